//! What can be asked to go wrong with a process, for those who test what it survives.

use clap::Args;

/// Options that no help shows.
#[derive(Clone, Debug, Args)]
pub(crate) struct Mishaps {
    /// Ends the process at this numbered point: each commit of the store is one, and each act of
    /// a database beside it
    #[arg(long, value_name = "N", hide = true)]
    pub(crate) die_at: Option<u64>,

    /// Ends it right after that point, before anybody hears of it, instead of right before
    #[arg(long, hide = true, requires = "die_at")]
    pub(crate) die_after: bool,

    /// Says so on stderr at that point and stays there, for whoever reads it to kill the process, instead of ending it
    #[arg(long, hide = true, requires = "die_at")]
    pub(crate) await_kill: bool,

    /// Says on stderr of each request that it has been accepted, once it has been: who reads it remembers what
    /// must not be lost
    #[arg(long, hide = true)]
    pub(crate) tell_accepted: bool,

    /// Says on stderr how many points were passed
    #[arg(long, hide = true)]
    pub(crate) count_points: bool,

    /// How many bytes the runtime's store may have
    #[arg(long, value_name = "BYTES", hide = true)]
    pub(crate) quota: Option<u64>,

    /// By how many seconds the clock that people read is wrong
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 0,
        hide = true,
        allow_negative_numbers = true
    )]
    pub(crate) clock_jump: i64,
}
