//! Time, rounds, and lines.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::{Builder, Runtime};

/// How thorough the run is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) rounds: usize,
    pub(crate) quick: bool,
}

impl Options {
    /// A tenth of the work when it must be quick.
    pub(crate) fn size(&self, full: usize) -> usize {
        if self.quick { (full / 10).max(1) } else { full }
    }
}

/// CPU time that this thread has used.
pub(crate) fn thread_cpu() -> Duration {
    read(ClockId::ThreadCPUTime)
}

/// CPU time that this process has used.
pub(crate) fn process_cpu() -> Duration {
    read(ClockId::ProcessCPUTime)
}

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// A runtime on this thread alone.
pub(crate) fn ct() -> Runtime {
    Builder::new_current_thread().enable_time().build().expect("a runtime can be had")
}

/// A runtime with two workers.
pub(crate) fn mt2() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2).enable_time().build().expect("a runtime can be had")
}

/// What can be asked, again and again.
pub(crate) trait Asks: Clone + Send + 'static {
    /// Asks once; panics when there is no answer.
    fn ask(&self) -> impl Future<Output = ()> + Send;
}

/// Nanoseconds of CPU a call, with so many callers that each wait for their answer before they ask
/// again.
pub(crate) fn price(runtime: &Runtime, callers: usize, calls: usize, asks: &impl Asks) -> f64 {
    let one_thread = runtime.metrics().num_workers() == 1;
    let clock = if one_thread { thread_cpu } else { process_cpu };
    let each = (calls / callers).max(1);
    let begun = clock();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..callers)
            .map(|_| {
                let asks = asks.clone();
                tokio::spawn(async move {
                    for _ in 0..each {
                        asks.ask().await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("every call is answered");
        }
    });
    (clock() - begun).as_nanos() as f64 / (each * callers) as f64
}

/// One side of a comparison: its name, and one round of it.
pub(crate) type Side<'a> = (&'static str, Box<dyn FnMut() -> f64 + 'a>);

/// Gives the sides their turns, round by round, after one round that does not count; returns the
/// median of each.
pub(crate) fn alternate(options: &Options, mut sides: Vec<Side<'_>>) -> Vec<(&'static str, f64)> {
    let mut samples = vec![Vec::with_capacity(options.rounds); sides.len()];
    for round in 0..=options.rounds {
        for turn in 0..sides.len() {
            // Nobody is always the one that comes after another.
            let at = (turn + round) % sides.len();
            let sample = sides[at].1();
            if round > 0 {
                samples[at].push(sample);
            }
        }
    }
    sides.iter().zip(&mut samples).map(|((name, _), samples)| (*name, median(samples))).collect()
}

/// The middle one; 0 when there is none.
pub(crate) fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(0.0)
}

/// What a number means.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unit {
    /// Nanoseconds.
    Time,
    /// A second.
    Rate,
    /// Bytes.
    Memory,
}

impl Unit {
    pub(crate) fn show(self, value: f64) -> String {
        let steps: &[(f64, &str)] = match self {
            Self::Time => &[(1e9, " s"), (1e6, " ms"), (1e3, " us"), (1.0, " ns")],
            Self::Rate => &[(1e6, " M/s"), (1e3, " k/s"), (1.0, " /s")],
            Self::Memory => &[(1e6, " MB"), (1e3, " KB"), (1.0, " B")],
        };
        let (step, name) =
            steps.iter().find(|(step, _)| value >= *step).unwrap_or(&steps[steps.len() - 1]);
        let value = value / step;
        let digits = if value >= 100.0 {
            0
        } else if value >= 10.0 {
            1
        } else {
            2
        };
        format!("{value:.digits$}{name}")
    }
}

/// What is to be reached.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// None: for the record.
    Reported,
    /// Ours by the peer's, at most.
    Ratio(f64),
    /// Ours, at most.
    AtMost(f64),
    /// Ours, at least.
    AtLeast(f64),
}

/// Prints a line for each peer; the goal stands in the first.
pub(crate) fn report(what: impl fmt::Display, unit: Unit, medians: &[(&str, f64)], goal: Goal) {
    let Some(((_, ours), peers)) = medians.split_first() else { return };
    let shown = unit.show(*ours);
    let verdict = |met: bool| if met { "met" } else { "missed" };
    let absolute = match goal {
        Goal::AtMost(most) => format!(" goal {} {}", unit.show(most), verdict(*ours <= most)),
        Goal::AtLeast(least) => format!(" goal {} {}", unit.show(least), verdict(*ours >= least)),
        Goal::Reported | Goal::Ratio(_) => String::new(),
    };
    if peers.is_empty() {
        println!("{what} ours {shown}{absolute}");
    }
    for (at, (peer, theirs)) in peers.iter().enumerate() {
        let ratio = ours / theirs;
        let goal = match goal {
            Goal::Ratio(most) if at == 0 => format!(" goal {most:.2} {}", verdict(ratio <= most)),
            _ if at == 0 => absolute.clone(),
            _ => String::new(),
        };
        let theirs = unit.show(*theirs);
        println!("{what} ours {shown} peer {peer} {theirs} ratio {ratio:.2}{goal}");
    }
}
