//! A snapshot of what was measured.
//!
//! *Invariant.* Every rate comes with the number of samples it was taken from, and what nothing
//! happened to is absent, not zero.

use super::histogram::Histogram;
use super::window::{Counts, Rung};
use super::*;
use crate::circuit::Domain;

/// A value, and of how many samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Sample {
    /// The value, in the [`Unit`] of its measure.
    pub value: f64,
    /// What it was taken from.
    pub samples: u64,
}

/// What entered a rung of the ladder, and what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RungCounts {
    /// Requests that have their fate and had entered it; of rollbacks, those begun.
    pub entered: u64,
    /// Those that it recovered.
    pub recovered: u64,
    /// Those that a default value answered: neither recovered nor lost.
    pub defaulted: u64,
}

/// How long something took.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Times {
    /// How many.
    pub count: u64,
    /// In seconds.
    pub mean: f64,
    /// In seconds, as the next; at most a thirty-second too high.
    pub p50: f64,
    /// The 95th percentile.
    pub p95: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

/// A quota domain as it stands. Its counts are of all the time since it is known, not of a window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct DomainState {
    /// Requests that were handed out for the first time in it.
    pub requests: u64,
    /// Attempts that were made in it: retries, substitutes, copies and what was interrupted included.
    pub attempts: u64,
    /// Attempts by requests; `None` before the first request.
    pub amplification: Option<f64>,
    /// Whether that is more than three attempts for every two requests.
    pub above_cap: bool,
    /// What is left of its retry budget, in tokens.
    pub retry_tokens: u32,
    /// What its retry budget can hold, in tokens.
    pub retry_capacity: u32,
    /// For how long it stays closed; `None` when it is open.
    pub closed_for: Option<Duration>,
}

impl DomainState {
    pub(crate) fn of(domain: &Domain, now: Moment) -> Self {
        let (spent, budget) = (&domain.amplification, &domain.retries);
        Self {
            requests: spent.logical(),
            attempts: spent.physical(),
            amplification: spent.ratio(),
            above_cap: spent.is_above_cap(),
            retry_tokens: budget.tokens(),
            retry_capacity: budget.capacity(),
            closed_for: (!domain.is_open(now)).then(|| domain.open_at().left(now)),
        }
    }
}

/// An objective and what it came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SloState {
    /// The objective.
    #[serde(flatten)]
    pub slo: Slo,
    /// What was measured; `None` when nothing happened that it is about.
    pub actual: Option<Sample>,
    /// Whether it is met; `None` when there is nothing to judge.
    pub met: Option<bool>,
}

/// What was measured over the window that ends at [`Metrics::at`].
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Metrics {
    /// When, on the system's clock.
    pub at: Moment,
    /// How far back it goes.
    pub window: Duration,
    /// Attempts made.
    pub attempts: u64,
    /// Attempts that ended with a fault, by class; classes without any are absent.
    pub failures: BTreeMap<Class, u64>,
    /// The same by the eight classes of the playbook.
    pub failures_by_playbook: BTreeMap<Class, u64>,
    /// Attempts that ended with their life.
    pub crashes: u64,
    /// Requests by fate. `open` is 0: it is no matter of a window.
    pub requests: FateCounts,
    /// Retries decided.
    pub retries: u64,
    /// Requests that were tried again.
    pub retry: RungCounts,
    /// Requests that were handed to a substitute.
    pub fallback: RungCounts,
    /// The same by the kind of the group; kinds without any are absent.
    pub fallback_by_kind: BTreeMap<&'static str, RungCounts>,
    /// Rollbacks.
    pub rollback: RungCounts,
    /// The same by scope; scopes without any are absent.
    pub rollback_by_scope: BTreeMap<Scope, RungCounts>,
    /// Requests that have failed at least once.
    pub recovery: RungCounts,
    /// From the first failure to the answer, of those that a retry recovered.
    pub retry_latency: Option<Times>,
    /// From the decision to the answer, of those that a substitute answered.
    pub fallback_latency: Option<Times>,
    /// How long rollbacks took, by scope.
    pub rollback_time: BTreeMap<Scope, Times>,
    /// Attempts by requests.
    pub amplification: Option<Sample>,
    /// The quota domains by name. A child that names none has one under its path, which is known from its
    /// first failure on.
    pub domains: BTreeMap<String, DomainState>,
    /// The objectives, in the order of the spec.
    pub slos: Vec<SloState>,
    /// The alerts that hold, as of the last time the rules were looked at.
    pub alerts: Vec<Alert>,
    #[serde(skip)]
    counts: Box<Raw>,
}

/// What further measures are taken from.
#[derive(Clone, Debug)]
struct Raw {
    counts: Counts,
    signals: Vec<String>,
    count_defaulted: bool,
}

impl PartialEq for Raw {
    /// It is what the other fields were made of.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Metrics {
    pub(super) fn new(
        spec: &WatchSpec,
        signals: &[String],
        counts: &Counts,
        alerts: Vec<Alert>,
        now: Moment,
    ) -> Self {
        let take = |measure: &Measure| take(measure, counts, signals, spec.count_defaulted);
        let failures: BTreeMap<_, _> = Class::ALL
            .into_iter()
            .map(|class| (class, counts.failures[class as usize]))
            .filter(|(_, count)| *count > 0)
            .collect();
        let mut failures_by_playbook = BTreeMap::new();
        for (class, count) in &failures {
            if *class != Class::Cancelled {
                *failures_by_playbook.entry(class.playbook()).or_default() += count;
            }
        }
        let slos = spec.slos.iter().map(|slo| {
            let actual = take(&slo.measure);
            let met = actual.map(|actual| slo.target.holds(actual.value));
            SloState { slo: slo.clone(), actual, met }
        });
        Self {
            at: now,
            window: spec.window,
            attempts: counts.attempts,
            failures,
            failures_by_playbook,
            crashes: counts.crashes,
            requests: counts.fates,
            retries: counts.retries,
            retry: counts.retry.into(),
            fallback: Rung::sum(&counts.fallback).into(),
            fallback_by_kind: by(KIND.map(kind_name), &counts.fallback),
            rollback: Rung::sum(&counts.rollback).into(),
            rollback_by_scope: by(Scope::ALL, &counts.rollback),
            recovery: counts.troubled.into(),
            retry_latency: Times::of(&counts.retry_times),
            fallback_latency: Times::of(&counts.fallback_times),
            rollback_time: Scope::ALL
                .into_iter()
                .zip(&counts.rollback_times)
                .filter_map(|(scope, times)| Some((scope, Times::of(times)?)))
                .collect(),
            amplification: take(&Measure::Amplification),
            domains: BTreeMap::new(),
            slos: slos.collect(),
            alerts,
            counts: Box::new(Raw {
                counts: counts.clone(),
                signals: signals.to_vec(),
                count_defaulted: spec.count_defaulted,
            }),
        }
    }

    /// What this measure came to; `None` when nothing happened that it is about.
    pub fn measure(&self, measure: &Measure) -> Option<Sample> {
        let raw = &*self.counts;
        take(measure, &raw.counts, &raw.signals, raw.count_defaulted)
    }

    /// The objective of this id.
    pub fn slo(&self, id: &str) -> Option<&SloState> {
        self.slos.iter().find(|state| state.slo.id == id)
    }
}

fn by<K: Ord, const N: usize>(keys: [K; N], rungs: &[Rung; N]) -> BTreeMap<K, RungCounts> {
    let counted = keys.into_iter().zip(rungs).filter(|(_, rung)| rung.entered > 0);
    counted.map(|(key, rung)| (key, (*rung).into())).collect()
}

const fn kind_name(kind: GroupKind) -> &'static str {
    match kind {
        GroupKind::Model => "model",
        GroupKind::Tool => "tool",
        GroupKind::Step => "step",
        GroupKind::Data => "data",
        GroupKind::Output => "output",
    }
}

impl From<Rung> for RungCounts {
    fn from(rung: Rung) -> Self {
        Self { entered: rung.entered, recovered: rung.recovered, defaulted: rung.defaulted }
    }
}

impl Times {
    fn of(times: &Histogram) -> Option<Self> {
        let at = |share| Some(times.quantile(share)?.as_secs_f64());
        Some(Self {
            count: times.count(),
            mean: times.mean()?.as_secs_f64(),
            p50: at(0.5)?,
            p95: at(0.95)?,
            p99: at(0.99)?,
            max: times.longest().as_secs_f64(),
        })
    }
}

impl SloState {
    /// What was measured, for people; `-` when there is nothing.
    pub fn actual_text(&self) -> String {
        self.actual.map_or_else(|| "-".to_owned(), |it| self.slo.measure.unit().show(it.value))
    }
}

/// A share of some: attempts that failed after the window had moved past their beginning do not make it
/// more than all.
fn share(part: u64, whole: u64) -> Option<Sample> {
    let value = (part as f64 / whole as f64).min(1.0);
    (whole > 0).then_some(Sample { value, samples: whole })
}

fn number(part: u64, whole: u64) -> Option<Sample> {
    (whole > 0).then(|| Sample { value: part as f64 / whole as f64, samples: whole })
}

fn p95(times: &Histogram) -> Option<Sample> {
    Some(Sample { value: times.quantile(0.95)?.as_secs_f64(), samples: times.count() })
}

const fn answered(fates: &FateCounts) -> u64 {
    fates.done + fates.unheard
}

const fn lost(fates: &FateCounts) -> u64 {
    fates.failed + fates.expired + fates.quarantined + fates.unknown
}

/// What a measure comes to.
pub(super) fn take(
    measure: &Measure,
    counts: &Counts,
    signals: &[String],
    count_defaulted: bool,
) -> Option<Sample> {
    let signal = |name: &str| {
        let at = signals.binary_search_by(|known| known.as_str().cmp(name)).ok()?;
        counts.signals.get(at)
    };
    let rung = |rung: Rung| {
        let extra = if count_defaulted { rung.defaulted } else { 0 };
        share(rung.recovered + extra, rung.entered)
    };
    let fates = &counts.fates;
    match measure {
        Measure::ErrorRate => share(counts.errors(), counts.attempts),
        Measure::RequestErrors => share(lost(fates), answered(fates) + lost(fates)),
        Measure::RetrySuccess => rung(counts.retry),
        Measure::RetryLatency => p95(&counts.retry_times),
        Measure::RetriesPerRequest => number(counts.retries, fates.accepted),
        Measure::Amplification => number(counts.attempts, fates.accepted),
        Measure::FallbackSuccess => rung(Rung::sum(&counts.fallback)),
        Measure::FallbackSuccessOf(kind) => rung(counts.fallback[*kind as usize]),
        Measure::FallbackLatency => p95(&counts.fallback_times),
        Measure::Degraded(kind) => {
            let kind = *kind as usize;
            share(counts.degraded[kind], answered(&counts.groups[kind]))
        }
        Measure::Availability => share(answered(fates), answered(fates) + lost(fates)),
        Measure::AvailabilityOf(kind) => {
            let (fates, defaulted) =
                (&counts.groups[*kind as usize], counts.defaulted[*kind as usize]);
            let defaulted = if count_defaulted { 0 } else { defaulted };
            let good = answered(fates).saturating_sub(defaulted);
            share(good, answered(fates) + lost(fates))
        }
        Measure::RollbackSuccess => rung(Rung::sum(&counts.rollback)),
        Measure::RollbackTime => p95(&counts.rollback_times()),
        Measure::Integrity => rung(counts.restores),
        Measure::Recovery => rung(counts.troubled),
        Measure::Share(name) => signal(name).and_then(|heard| share(heard.yes, heard.answers)),
        Measure::Mean(name) => {
            let times = &signal(name)?.times;
            Some(Sample { value: times.mean()?.as_secs_f64(), samples: times.count() })
        }
        Measure::P95(name) => p95(&signal(name)?.times),
    }
}
