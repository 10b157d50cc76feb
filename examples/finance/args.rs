//! What can be asked for on the command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::mishaps::Mishaps;

/// Moves money between accounts in an embedded database, and can be killed at any moment.
///
/// Each transfer is a debit, a credit and one notice in the user's outbox: all of it, or all of it
/// undone with one notice that says so. Started again with the same arguments, it goes on where it was.
#[derive(Clone, Debug, Parser)]
#[command(name = "finance", after_help = AFTER, max_term_width = 100)]
pub(crate) struct Args {
    /// Where the database and the runtime's store are kept. Without it, in a temporary folder
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,

    /// How many transfers, 1 to 50000
    #[arg(long, value_name = "N", default_value_t = 60,
          value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub(crate) transfers: u32,

    /// Which transfers, and what fails: another seed fails others
    #[arg(long, value_name = "S", default_value_t = 17)]
    pub(crate) seed: u64,

    /// The share of calls that fail, 0 to 1, instead of the playbook's: 1.5 % of calls lose their
    /// connection, 0.75 % of transfers have their transaction aborted (one in twenty of these for good),
    /// and 0.05 % ask for more than there is; with this option RATE, RATE and a tenth of it
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub(crate) fault_rate: Option<f64>,

    /// Write one JSON object as the last line of stdout: transfers, sum_before, sum_after, lost,
    /// duplicated, notifications_duplicated, unknown_open, resumed
    #[arg(long, value_name = "FORMAT")]
    pub(crate) summary: Option<Summary>,

    #[command(flatten)]
    pub(crate) mishaps: Mishaps,

    /// The wait before the first retry in milliseconds, instead of the playbook's
    #[arg(long, value_name = "MS", hide = true)]
    pub(crate) backoff_ms: Option<u64>,

    /// How often in a row the process may end with a transfer in hand before that is set aside
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), hide = true)]
    pub(crate) deaths: Option<u32>,

    /// After how many bytes that this process writes into the database its disk is full
    #[arg(long, value_name = "BYTES", hide = true)]
    pub(crate) disk: Option<u64>,
}

const AFTER: &str = "\
Progress goes to stderr, the report to stdout. What became of the money is read from the database: what
the runtime believes about itself does not enter into it.

Exit codes:
  0    every transfer is done or undone as a whole, each with one notice, or waits for a person, to
       whom an act of it is unknown (unknown_open)
  1    the database says otherwise
  2    bad arguments
  3    the store or the database cannot be used: unwritable, in use, of another run, corrupt, full
  130  Ctrl-C: stopped in order; the same arguments go on with it";

/// A format of the summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Summary {
    /// JSON on one line
    Json,
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.0..=1.0).contains(&rate) => Ok(rate),
        _ => Err("a share from 0 to 1 is needed, such as 0.1".to_owned()),
    }
}
