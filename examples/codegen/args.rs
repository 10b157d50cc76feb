//! What can be asked for on the command line.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::mishaps::Mishaps;

/// Writes small Python functions with a supervised agent, checks them with the real interpreter, and has
/// what is wrong written again.
///
/// Without options it needs no key and no network: 46 functions, written by rules that make mistakes at
/// the given rate. python3 must be on the PATH. What is generated is run with your rights: with a model,
/// use one that you trust, or a container.
#[derive(Clone, Debug, Parser)]
#[command(name = "codegen", after_help = AFTER, max_term_width = 100)]
pub(crate) struct Args {
    /// Where its state is kept. Run again with the same store, seed and rate or model after it was killed,
    /// and it goes on where it was. Without it, the state lives as long as the process
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,

    /// An OpenAI-compatible server, such as http://127.0.0.1:8080/v1, that writes instead of the rules
    #[arg(long, value_name = "URL", requires = "model")]
    pub(crate) model_url: Option<String>,

    /// The model to ask that server for
    #[arg(long, value_name = "NAME", requires = "model_url")]
    pub(crate) model: Option<String>,

    /// The environment variable that holds the key for that server
    #[arg(long, value_name = "VAR", requires = "model_url")]
    pub(crate) api_key_env: Option<String>,

    /// Which generations and checks fail, and how: another seed fails others
    #[arg(long, value_name = "N", default_value_t = 7)]
    pub(crate) seed: u64,

    /// The share of generations by rules that have a syntax error, 0 to 1. Three fifths of it have wrong
    /// logic, and a third of it is the share of attempts of the interpreter that fail
    #[arg(long, value_name = "RATE", default_value_t = 0.12, value_parser = rate)]
    pub(crate) fault_rate: f64,

    /// Write the first N functions only
    #[arg(long, value_name = "N", value_parser = limit)]
    pub(crate) limit: Option<NonZeroUsize>,

    /// How long the rules take for a line, in milliseconds, at most 1000
    #[arg(long, value_name = "MS", default_value_t = 4, value_parser = clap::value_parser!(u16).range(..=1000))]
    pub(crate) pace: u16,

    /// Write one JSON object as the last line of stdout: accepted and fates (of all requests of this
    /// process), usable, templates and regenerations (of all functions), resumed (functions taken over
    /// from a process that had ended), slo
    #[arg(long, value_name = "FORMAT")]
    pub(crate) summary: Option<Summary>,

    #[command(flatten)]
    pub(crate) mishaps: Mishaps,
}

const AFTER: &str = "\
Progress goes to stderr, the report to stdout.

Exit codes:
  0    every function has its fate
  2    nothing was written: bad arguments, no python3, a server that does not answer, or a store that
       cannot be used: unwritable, in use, of another run or program, corrupt
  3    the store or the temporary folder failed, as when the disk is full; what the store had is kept, and
       the same arguments go on
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

fn limit(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "a number from 1 on is needed".to_owned())
}
