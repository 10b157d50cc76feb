//! Requests that end the process itself.
//!
//! A life that ends is counted where it ends. When the process ends, nobody is left to count: what was in
//! hand then is known to the next one by the journal, and judged here before it is handed out again.
//!
//! | The process has ended with it in hand | It is handed out |
//! |---|---|
//! | never since it last got on | as ever |
//! | fewer times in a row than is allowed | alone among such |
//! | as often as is allowed | never again by itself |
//!
//! *Invariant.* What was merely waiting, or in hand and got on, is not suspected: only what the process
//! ended with, again and again, at the same place.

/// How often in a row the process may end with a request in hand before that is set aside, by default.
pub const PROCESS_DEATHS: u32 = 3;

/// How a request that an earlier process has left is handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// As ever.
    Freely,
    /// One after the other, so that the guilty one is told from those that were in hand with it.
    Alone,
    /// It is set aside.
    Never,
}

/// Judges a request with which in hand the process has ended `deaths` times since it last got on, where
/// `limit` times are too many; [`u32::MAX`] times never are.
pub(crate) const fn again(deaths: u32, limit: u32) -> Again {
    match deaths {
        0 => Again::Freely,
        deaths if deaths < limit || limit == u32::MAX => Again::Alone,
        _ => Again::Never,
    }
}
