//! What the runtime says about itself over the last minutes: rates, latencies, objectives, alerts.
//!
//! [`Watch`] is a machine: it is told what failed and what became of it, and reads, now and then, sums
//! that are kept anyway. A request that succeeds at once tells it nothing. What it measures are
//! [`Measure`]s; where they should be, [`Slo`]s say, and when somebody is told, [`AlertRule`]s.
//!
//! *Invariant.* No clock, no task, no lock: time is handed in. Its memory is fixed by its spec. Between
//! the beginning of an alert and its end there is exactly one of each, in this order.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::checkpoint::Scope;
use crate::error::SpecError;
use crate::fate::{Fate, FateCounts};
use crate::fault::Class;
use crate::moment::Moment;
use crate::policy::GroupKind;

mod histogram;
mod metrics;
mod slo;
mod text;
mod window;

pub use metrics::{DomainState, Metrics, RungCounts, Sample, SloState, Times};
pub use slo::{AlertRule, Bound, MIN_SAMPLES, Measure, Profile, Severity, Slo, Unit};

use window::{Counts, KINDS, Window};

/// The shortest window.
pub const SHORTEST_WINDOW: Duration = Duration::from_millis(60);

const KIND: [GroupKind; KINDS] =
    [GroupKind::Model, GroupKind::Tool, GroupKind::Step, GroupKind::Data, GroupKind::Output];

/// What is watched.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct WatchSpec {
    /// How far back is looked. It moves by a sixtieth of its length, and that often the rules are
    /// looked at.
    ///
    /// # Default
    /// 5 min.
    pub window: Duration,
    /// How long a rule has to be at rest before its alert ends, so that a value at the limit does not
    /// raise it again and again.
    ///
    /// # Default
    /// 30 s.
    pub hold: Duration,
    /// Whether a default value counts as a success of the group that gave it.
    ///
    /// # Default
    /// No: a default cannot fail, so it says nothing.
    pub count_defaulted: bool,
    /// The objectives, in order.
    ///
    /// # Default
    /// [`Slo::playbook`].
    pub slos: Vec<Slo>,
    /// The rules, in order.
    ///
    /// # Default
    /// [`AlertRule::playbook`].
    pub alerts: Vec<AlertRule>,
}

impl Default for WatchSpec {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(300),
            hold: Duration::from_secs(30),
            count_defaulted: false,
            slos: Slo::playbook(),
            alerts: AlertRule::playbook(),
        }
    }
}

impl WatchSpec {
    /// The playbook's objectives and rules, over 5 minutes.
    pub fn new() -> Self {
        Self::default()
    }

    /// With the objectives of a case.
    pub fn profile(profile: Profile) -> Self {
        profile.slos().into_iter().fold(Self::default(), Self::slo)
    }

    /// Sets [`WatchSpec::window`].
    #[must_use]
    pub const fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Sets [`WatchSpec::hold`].
    #[must_use]
    pub const fn hold(mut self, hold: Duration) -> Self {
        self.hold = hold;
        self
    }

    /// Sets [`WatchSpec::count_defaulted`].
    #[must_use]
    pub const fn count_defaulted(mut self, count: bool) -> Self {
        self.count_defaulted = count;
        self
    }

    /// Adds an objective, in the place of the one with its id, if there is one.
    #[must_use]
    pub fn slo(mut self, slo: Slo) -> Self {
        match self.slos.iter_mut().find(|known| known.id == slo.id) {
            Some(known) => *known = slo,
            None => self.slos.push(slo),
        }
        self
    }

    /// Adds a rule, in the place of the one with its id, if there is one.
    #[must_use]
    pub fn alert(mut self, rule: AlertRule) -> Self {
        match self.alerts.iter_mut().find(|known| known.id == rule.id) {
            Some(known) => *known = rule,
            None => self.alerts.push(rule),
        }
        self
    }

    /// Without the objectives and rules of this id.
    #[must_use]
    pub fn without(mut self, id: &str) -> Self {
        self.slos.retain(|slo| slo.id != id);
        self.alerts.retain(|rule| rule.id != id);
        self
    }

    /// Whether anything here says how fallbacks of groups of this kind fare. A tree with a group of two members or
    /// more for whose kind nothing does is refused at its start, with [`SpecError::Unmonitored`] (S81).
    pub fn covers_fallback(&self, kind: GroupKind) -> bool {
        let measures = self.slos.iter().map(|slo| &slo.measure);
        let mut all = measures.chain(self.alerts.iter().map(|rule| &rule.measure));
        all.any(|measure| match measure {
            Measure::FallbackSuccess | Measure::FallbackLatency | Measure::Recovery => true,
            Measure::FallbackSuccessOf(of)
            | Measure::Degraded(of)
            | Measure::AvailabilityOf(of) => *of == kind,
            _ => false,
        })
    }

    /// The signals that its objectives and rules ask for, each once.
    fn signals(&self) -> Vec<String> {
        let measures = self.slos.iter().map(|slo| &slo.measure);
        let all = measures.chain(self.alerts.iter().map(|rule| &rule.measure));
        let mut names: Vec<_> = all.filter_map(Measure::signal).map(str::to_owned).collect();
        names.sort();
        names.dedup();
        names
    }

    pub(crate) fn validate(&self) -> Result<(), SpecError> {
        let wrong = |path: &str, what, value: String, expected: &str| {
            let (path, expected) = (path.to_owned(), expected.to_owned());
            Err(SpecError::OutOfRange { path, what, value, expected })
        };
        if self.window < SHORTEST_WINDOW || self.window > Duration::from_secs(86_400) {
            let value = format!("{:?}", self.window);
            return wrong("watch", "the window", value, "from 60 ms to 24 h");
        }
        let slos = self.slos.iter().map(|slo| (&slo.id, slo.target));
        for (id, bound) in slos.chain(self.alerts.iter().map(|rule| (&rule.id, rule.when))) {
            if !bound.limit().is_finite() {
                let value = bound.limit().to_string();
                return wrong(&format!("watch/{id}"), "the limit", value, "a finite number");
            }
        }
        if let Some(rule) = self.alerts.iter().find(|rule| rule.min_samples == 0) {
            let path = format!("watch/{}", rule.id);
            return Err(SpecError::Zero { path, what: "min_samples" });
        }
        Ok(())
    }
}

/// What is reported from outside, for what the runtime cannot know: whether a customer was content,
/// whether code could be used, how long a whole conversation took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Signal {
    /// It was.
    Yes,
    /// It was not.
    No,
    /// It took so long.
    Took(Duration),
}

/// What the machine is told.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// An attempt ended without an answer: with a fault of this class, or with its life.
    Failed { class: Option<Class>, retried: bool },
    /// A request that has failed before has its fate.
    Fated(Fated),
    /// A group's answer was degraded, or a default value.
    Impaired { kind: GroupKind, degraded: bool, defaulted: bool },
    /// A rollback ended, after so long.
    RolledBack { scope: Scope, reached: bool, took: Duration },
    /// A state was taken up again and is what was stored, or not.
    Restored(bool),
}

/// What became of a request that has failed at least once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fated {
    pub(crate) fate: Fate,
    pub(crate) defaulted: bool,
    pub(crate) failed_at: Moment,
    pub(crate) retried: bool,
    /// It was handed on because a member has failed with it all the same.
    pub(crate) failed_over: bool,
    /// The kind of the group, and when it was first handed on.
    pub(crate) handed_on: Option<(GroupKind, Moment)>,
    pub(crate) rolled_back: bool,
}

/// Sums that are kept anyway, since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) attempts: u64,
    pub(crate) fates: FateCounts,
    /// Of groups, by their kind.
    pub(crate) groups: [FateCounts; KINDS],
}

impl Totals {
    pub(crate) fn group(&mut self, kind: GroupKind) -> &mut FateCounts {
        &mut self.groups[kind as usize]
    }
}

/// An alert that holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Alert {
    /// The rule, or for [`Severity::Info`] the objective that is missed.
    pub rule: String,
    /// How much it matters.
    pub severity: Severity,
    /// What is measured.
    pub measure: Measure,
    /// What it was when the alert began.
    pub value: f64,
    /// The limit that it is beyond.
    pub limit: f64,
    /// Of how many samples.
    pub samples: u64,
    /// Since when.
    pub since: Moment,
}

/// What has changed since the rules were looked at last.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    Raised(Alert),
    Cleared(Alert),
}

#[derive(Clone, Debug, Default)]
struct Held {
    alert: Option<Alert>,
    /// Since when its rule is at rest.
    calm: Option<Moment>,
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    spec: WatchSpec,
    signals: Vec<String>,
    window: Window,
    last: Totals,
    sampled: Moment,
    /// Of the rules, then of the objectives.
    held: Vec<Held>,
}

impl Watch {
    pub(crate) fn new(spec: WatchSpec, now: Moment) -> Self {
        let signals = spec.signals();
        let window = Window::new(spec.window, signals.len());
        let held = vec![Held::default(); spec.alerts.len() + spec.slos.len()];
        Self { spec, signals, window, last: Totals::default(), sampled: now, held }
    }

    /// When the rules are to be looked at next.
    pub(crate) const fn next(&self, now: Moment) -> Moment {
        self.window.edge(now)
    }

    pub(crate) fn on(&mut self, input: Input, now: Moment) {
        let Some(counts) = self.window.at(now) else { return };
        match input {
            Input::Failed { class, retried } => {
                match class {
                    Some(class) => counts.failures[class as usize] += 1,
                    None => counts.crashes += 1,
                }
                counts.retries += u64::from(retried);
            }
            Input::Fated(fated) => counts.fated(&fated, now),
            Input::Impaired { kind, degraded, defaulted } => {
                counts.degraded[kind as usize] += u64::from(degraded);
                counts.defaulted[kind as usize] += u64::from(defaulted);
            }
            Input::RolledBack { scope, reached, took } => {
                let at = scope as usize;
                counts.rollback[at].entered += 1;
                if reached {
                    counts.rollback[at].recovered += 1;
                    counts.rollback_times[at].record(took);
                }
            }
            Input::Restored(well) => {
                counts.restores.entered += 1;
                counts.restores.recovered += u64::from(well);
            }
        }
    }

    /// Whether anything asks for this signal, and it was counted.
    pub(crate) fn hear(&mut self, name: &str, signal: Signal, now: Moment) -> bool {
        let Ok(at) = self.signals.binary_search_by(|known| known.as_str().cmp(name)) else {
            return false;
        };
        let Some(counts) = self.window.at(now) else { return false };
        let heard = &mut counts.signals[at];
        match signal {
            Signal::Took(took) => heard.times.record(took),
            said => {
                heard.answers += 1;
                heard.yes += u64::from(said == Signal::Yes);
            }
        }
        true
    }

    /// Takes what was added to the sums since the last time. Nobody knows when, so the middle of the
    /// time between is taken for it.
    pub(crate) fn sample(&mut self, totals: Totals, now: Moment) {
        let middle = self.sampled + now.since(self.sampled) / 2;
        if let Some(counts) = self.window.at(middle) {
            counts.attempts += totals.attempts.saturating_sub(self.last.attempts);
            counts.fates.merge(&grown(&totals.fates, &self.last.fates));
            for kind in 0..KINDS {
                counts.groups[kind].merge(&grown(&totals.groups[kind], &self.last.groups[kind]));
            }
        }
        (self.last, self.sampled) = (totals, now);
    }

    /// Looks at the rules, and says which alerts have begun and which have ended.
    pub(crate) fn look(&mut self, now: Moment) -> Vec<Change> {
        let counts = self.window.sum(now);
        let Self { spec, signals, held, .. } = self;
        let take = |measure| metrics::take(measure, &counts, signals, spec.count_defaulted);
        let mut changes = Vec::new();
        let (rules, burns) = held.split_at_mut(spec.alerts.len());
        for (rule, held) in spec.alerts.iter().zip(&mut *rules) {
            let sample = take(&rule.measure)
                .filter(|it| it.samples >= rule.min_samples && rule.when.holds(it.value));
            let begun = sample.map(|sample| Alert {
                rule: rule.id.to_string(),
                severity: rule.severity,
                measure: rule.measure.clone(),
                value: sample.value,
                limit: rule.when.limit(),
                samples: sample.samples,
                since: now,
            });
            changes.extend(held.step(begun, spec.hold, now));
        }
        for (slo, held) in spec.slos.iter().zip(burns) {
            // An alert of the same says more.
            let mut raised = rules.iter().filter_map(|rule| rule.alert.as_ref());
            if raised.any(|alert| alert.measure == slo.measure) {
                changes.extend(held.alert.take().map(Change::Cleared));
                continue;
            }
            let sample = take(&slo.measure)
                .filter(|it| it.samples >= MIN_SAMPLES && !slo.target.holds(it.value));
            let begun = sample.map(|sample| Alert {
                rule: slo.id.to_string(),
                severity: Severity::Info,
                measure: slo.measure.clone(),
                value: sample.value,
                limit: slo.target.limit(),
                samples: sample.samples,
                since: now,
            });
            changes.extend(held.step(begun, spec.hold, now));
        }
        changes
    }

    /// Everything it knows.
    pub(crate) fn metrics(&self, now: Moment) -> Metrics {
        let counts = self.window.sum(now);
        let alerts = self.held.iter().filter_map(|held| held.alert.clone()).collect();
        Metrics::new(&self.spec, &self.signals, &counts, alerts, now)
    }
}

impl Held {
    /// `begun` is there while the rule holds.
    fn step(&mut self, begun: Option<Alert>, hold: Duration, now: Moment) -> Option<Change> {
        match (begun, &self.alert) {
            (Some(alert), None) => {
                *self = Self { alert: Some(alert.clone()), calm: None };
                Some(Change::Raised(alert))
            }
            (Some(_), Some(_)) => {
                self.calm = None;
                None
            }
            (None, None) => None,
            (None, Some(_)) => {
                let calm = *self.calm.get_or_insert(now);
                if now.since(calm) < hold {
                    return None;
                }
                self.calm = None;
                self.alert.take().map(Change::Cleared)
            }
        }
    }
}

impl Counts {
    fn fated(&mut self, fated: &Fated, now: Moment) {
        if matches!(fated.fate, Fate::Cancelled | Fate::Stopped | Fate::Suspended) {
            // Nobody failed it.
            return;
        }
        let answered = matches!(fated.fate, Fate::Done | Fate::Unheard);
        let defaulted = answered && fated.defaulted;
        self.troubled.entered += 1;
        self.troubled.recovered += u64::from(answered && !defaulted);
        self.troubled.defaulted += u64::from(defaulted);
        if fated.retried {
            self.retry.entered += 1;
            if answered && !fated.failed_over && !fated.rolled_back {
                self.retry.recovered += 1;
                self.retry_times.record(now.since(fated.failed_at));
            }
        }
        if let Some((kind, at)) = fated.handed_on {
            let rung = &mut self.fallback[kind as usize];
            rung.entered += 1;
            if defaulted {
                rung.defaulted += 1;
            } else if answered {
                rung.recovered += 1;
                self.fallback_times.record(now.since(at));
            }
        }
    }
}

/// How much each has grown.
fn grown(now: &FateCounts, before: &FateCounts) -> FateCounts {
    FateCounts {
        accepted: now.accepted.saturating_sub(before.accepted),
        open: 0,
        done: now.done.saturating_sub(before.done),
        unheard: now.unheard.saturating_sub(before.unheard),
        failed: now.failed.saturating_sub(before.failed),
        expired: now.expired.saturating_sub(before.expired),
        cancelled: now.cancelled.saturating_sub(before.cancelled),
        stopped: now.stopped.saturating_sub(before.stopped),
        quarantined: now.quarantined.saturating_sub(before.quarantined),
        unknown: now.unknown.saturating_sub(before.unknown),
        suspended: now.suspended.saturating_sub(before.suspended),
    }
}

#[cfg(test)]
mod tests;
