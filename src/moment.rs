//! A point in the runtime's time, as a value.
//!
//! *Invariant.* A [`Moment`] is handed in, never read here: whoever judges with time is told what
//! time it is, so that judgement can be tested with numbers.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Nanoseconds since the system's clock was made. Monotonic; jumps of the wall clock do not move it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Moment(u64);

impl Moment {
    /// When the clock was made.
    pub const START: Self = Self(0);
    /// Later than every other moment: no deadline, no timer.
    pub const NEVER: Self = Self(u64::MAX);

    /// The moment `nanos` nanoseconds after the start.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The moment `millis` milliseconds after the start.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Nanoseconds since the start.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time since the start.
    pub const fn since_start(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// How long ago `earlier` was; zero when it is not earlier.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// How long until `self`, seen from `now`; zero when it has passed, [`Duration::MAX`] for
    /// [`Moment::NEVER`].
    pub const fn left(self, now: Self) -> Duration {
        if self.is_never() { Duration::MAX } else { self.since(now) }
    }

    /// Whether this is [`Moment::NEVER`].
    pub const fn is_never(self) -> bool {
        self.0 == u64::MAX
    }

    /// This moment and `delay`; [`Moment::NEVER`] when the sum does not fit.
    #[must_use]
    pub const fn after(self, delay: Duration) -> Self {
        let nanos = delay.as_nanos();
        if nanos > u64::MAX as u128 {
            Self::NEVER
        } else {
            Self(self.0.saturating_add(nanos as u64))
        }
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, delay: Duration) -> Self {
        self.after(delay)
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_never() { f.write_str("never") } else { write!(f, "+{:?}", self.since_start()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_stays_never_and_sums_saturate() {
        assert_eq!(Moment::NEVER + Duration::from_secs(1), Moment::NEVER);
        assert_eq!(Moment::START + Duration::MAX, Moment::NEVER);
        assert_eq!(Moment::NEVER.left(Moment::START), Duration::MAX);
        assert_eq!(Moment::from_millis(3).since(Moment::from_millis(5)), Duration::ZERO);
    }
}
