//! What can be asked for on the command line.

use std::num::{NonZeroU16, NonZeroUsize};
use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Parser, ValueEnum};

/// Works through customer complaints with a supervised desk of agents, while models and tools fail.
///
/// Without options it needs no key and no network: 240 complaints in 14 languages, two simulated model
/// services that fail at the given rate, and a local model of rules that stands in for them.
#[derive(Clone, Debug, Parser)]
#[command(name = "support_desk", after_help = AFTER, max_term_width = 100)]
pub(crate) struct Args {
    /// Complaints to work on: one JSON object a line, {"id": .., "text": .., "customer": .., "lang": ..};
    /// the last two may be missing. An orders.json and an expected.jsonl beside the file replace the
    /// built-in orders and the labels that satisfaction is judged by
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,

    /// An OpenAI-compatible server, such as http://127.0.0.1:8080/v1. It takes the place of the
    /// simulated services; the local model still stands in for it
    #[arg(long, value_name = "URL", requires = "model", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) model_url: Option<String>,

    /// The model to ask that server for
    #[arg(
        long,
        value_name = "NAME",
        requires = "model_url",
        value_parser = NonEmptyStringValueParser::new()
    )]
    pub(crate) model: Option<String>,

    /// The environment variable that holds the key for that server
    #[arg(
        long,
        value_name = "VAR",
        requires = "model_url",
        value_parser = NonEmptyStringValueParser::new()
    )]
    pub(crate) api_key_env: Option<String>,

    /// Which attempts fail, and how: another seed fails others
    #[arg(
        long,
        value_name = "N",
        default_value_t = 7,
        value_parser = seed,
        allow_negative_numbers = true
    )]
    pub(crate) seed: u64,

    /// The share of attempts at simulated models and at tools that fail, 0 to 1: three quarters of them
    /// time out, one quarter fails at once. A seventh of it is the share of complaints that are too complex
    /// for the full flow
    #[arg(
        long,
        value_name = "RATE",
        default_value_t = 0.08,
        value_parser = rate,
        allow_negative_numbers = true
    )]
    pub(crate) fault_rate: f64,

    /// Work on the first N complaints only
    #[arg(long, value_name = "N", value_parser = limit, allow_negative_numbers = true)]
    pub(crate) limit: Option<NonZeroUsize>,

    /// Agents that work in parallel, at most 64
    #[arg(
        long,
        value_name = "N",
        default_value = "8",
        value_parser = agents,
        allow_negative_numbers = true
    )]
    pub(crate) agents: NonZeroU16,

    /// Write the final tree, in this format, to stdout and nothing else; the report goes to stderr
    #[arg(long, value_name = "FORMAT")]
    pub(crate) dump: Option<Dump>,

    /// Write one JSON object as the last line of stdout: accepted, fates by kind, retries by class (a
    /// panic's is crash), fallbacks by group, latency_ms (p50, p95, p99 of the complaints), slo by id
    #[arg(long, value_name = "FORMAT")]
    pub(crate) summary: Option<Summary>,
}

const AFTER: &str = "\
Progress goes to stderr: redrawn in place on a terminal, otherwise a line every two seconds.
The report goes to stdout.

Exit codes:
  0    every complaint has its fate
  1    the same, but rows of the input were left out, or the report could not be written: each is
       named on stderr
  2    nothing was worked on: bad arguments, no usable input, no key, a server that cannot be used
  130  Ctrl-C or SIGTERM: the tree was stopped in order, and the report is about what was done until
       then; a second one ends the process at once";

/// A format of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dump {
    /// A table for people
    Text,
    /// JSON on one line
    Json,
    /// A Graphviz graph
    Dot,
    /// A Mermaid flowchart
    Mermaid,
}

/// A format of the summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Summary {
    /// JSON on one line
    Json,
}

fn seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("a number from 0 to {} is needed", u64::MAX))
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

fn agents(text: &str) -> Result<NonZeroU16, String> {
    match text.parse::<NonZeroU16>() {
        Ok(agents) if agents.get() <= 64 => Ok(agents),
        _ => Err("a number from 1 to 64 is needed".to_owned()),
    }
}
