//! `[watch]`: objectives, alerts and the window they are looked at over.
//!
//! *Invariant.* What stands in no file is the runtime's: the playbook's objectives and rules, and those of
//! the profile. A key changes one of them, adds one, or takes one out, and never leaves one that cannot
//! hold.

use std::borrow::Cow;
use std::ops::Range;

use mainstay::policy::GroupKind as PolicyKind;
use mainstay::watch::{AlertRule, Bound, MIN_SAMPLES, Measure, Severity, Slo, Unit, WatchSpec};
use serde::Deserialize;
use toml::Spanned;

use super::file::{GroupKind, Named, Span, TreeFile};
use super::snag::Snag;

mod limit;
mod verify;

pub(crate) use limit::Limit;
pub(crate) use verify::verify;

/// What `mainstay run` reports, and whether it is a duration.
pub(crate) const SIGNALS: [(&str, bool); 6] = [
    ("generation", true),
    ("intervention", false),
    ("repair", false),
    ("response", true),
    ("satisfaction", false),
    ("usable", false),
];

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Watch {
    pub(crate) window: Option<Spanned<Span>>,
    pub(crate) hold: Option<Spanned<Span>>,
    #[serde(default)]
    pub(crate) count_defaulted: bool,
    #[serde(default)]
    pub(crate) without: Vec<Spanned<String>>,
    #[serde(default)]
    pub(crate) objectives: Named<Objective>,
    #[serde(default)]
    pub(crate) alerts: Named<Alerting>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Measured {
    ErrorRate,
    RequestErrors,
    RetrySuccess,
    RetryLatency,
    RetriesPerRequest,
    Amplification,
    FallbackSuccess,
    FallbackLatency,
    Degraded,
    Availability,
    RollbackSuccess,
    RollbackTime,
    Integrity,
    Recovery,
    Share,
    Mean,
    P95,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Objective {
    name: Option<String>,
    measure: Option<Spanned<Measured>>,
    kind: Option<Spanned<GroupKind>>,
    signal: Option<Spanned<String>>,
    above: Option<Spanned<Limit>>,
    below: Option<Spanned<Limit>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Weight {
    Warning,
    Critical,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Alerting {
    name: Option<String>,
    measure: Option<Spanned<Measured>>,
    kind: Option<Spanned<GroupKind>>,
    signal: Option<Spanned<String>>,
    above: Option<Spanned<Limit>>,
    below: Option<Spanned<Limit>>,
    severity: Option<Weight>,
    min_samples: Option<Spanned<u32>>,
}

/// The keys that objectives and alerts share.
#[derive(Clone, Copy)]
struct Keys<'a> {
    measure: Option<&'a Spanned<Measured>>,
    kind: Option<&'a Spanned<GroupKind>>,
    signal: Option<&'a Spanned<String>>,
    above: Option<&'a Spanned<Limit>>,
    below: Option<&'a Spanned<Limit>>,
}

macro_rules! keys {
    ($($section:ty),*) => {
        $(impl $section {
            const fn keys(&self) -> Keys<'_> {
                Keys {
                    measure: self.measure.as_ref(),
                    kind: self.kind.as_ref(),
                    signal: self.signal.as_ref(),
                    above: self.above.as_ref(),
                    below: self.below.as_ref(),
                }
            }
        })*
    };
}

keys!(Objective, Alerting);

impl Measured {
    /// What it is for groups of a kind, or of a signal; `None` when one of them is missing or too many.
    fn of(self, kind: Option<GroupKind>, signal: Option<&str>) -> Option<Measure> {
        let kind = kind.map(GroupKind::watched);
        let name = signal.map(|name| Cow::Owned(name.to_owned()));
        Some(match (self, kind, name) {
            (Self::Degraded, Some(kind), None) => Measure::Degraded(kind),
            (Self::FallbackSuccess, Some(kind), None) => Measure::FallbackSuccessOf(kind),
            (Self::Availability, Some(kind), None) => Measure::AvailabilityOf(kind),
            (Self::Share, None, Some(name)) => Measure::Share(name),
            (Self::Mean, None, Some(name)) => Measure::Mean(name),
            (Self::P95, None, Some(name)) => Measure::P95(name),
            (Self::ErrorRate, None, None) => Measure::ErrorRate,
            (Self::RequestErrors, None, None) => Measure::RequestErrors,
            (Self::RetrySuccess, None, None) => Measure::RetrySuccess,
            (Self::RetryLatency, None, None) => Measure::RetryLatency,
            (Self::RetriesPerRequest, None, None) => Measure::RetriesPerRequest,
            (Self::Amplification, None, None) => Measure::Amplification,
            (Self::FallbackSuccess, None, None) => Measure::FallbackSuccess,
            (Self::FallbackLatency, None, None) => Measure::FallbackLatency,
            (Self::Availability, None, None) => Measure::Availability,
            (Self::RollbackSuccess, None, None) => Measure::RollbackSuccess,
            (Self::RollbackTime, None, None) => Measure::RollbackTime,
            (Self::Integrity, None, None) => Measure::Integrity,
            (Self::Recovery, None, None) => Measure::Recovery,
            _ => return None,
        })
    }
}

impl GroupKind {
    pub(crate) const fn watched(self) -> PolicyKind {
        match self {
            Self::Model => PolicyKind::Model,
            Self::Tool => PolicyKind::Tool,
            Self::Step => PolicyKind::Step,
            Self::Data => PolicyKind::Data,
            Self::Output => PolicyKind::Output,
        }
    }
}

impl Keys<'_> {
    /// What is measured: what the keys say, or what it was.
    fn measure(&self, before: Option<&Measure>) -> Option<Measure> {
        let kind = self.kind.map(|kind| *kind.get_ref());
        let signal = self.signal.map(|signal| signal.get_ref().as_str());
        match self.measure {
            Some(measure) => measure.get_ref().of(kind, signal),
            None => before.cloned(),
        }
    }

    fn bound(&self, unit: Unit) -> Option<Bound> {
        let read = |limit: &Spanned<Limit>| limit.get_ref().read(unit).ok();
        let above = self.above.and_then(read).map(Bound::Above);
        above.or_else(|| self.below.and_then(read).map(Bound::Below))
    }
}

/// What a tree is watched by without the section.
fn usual(file: &TreeFile) -> WatchSpec {
    let profile = file.profile.as_ref().map(|profile| profile.get_ref().watched());
    profile.map_or_else(WatchSpec::new, WatchSpec::profile)
}

/// What a tree is watched by.
pub(crate) fn spec(file: &TreeFile) -> WatchSpec {
    let mut spec = usual(file);
    let Some(section) = file.watch.as_ref().map(Spanned::get_ref) else { return spec };
    if let Some(window) = &section.window {
        spec = spec.window(window.get_ref().0);
    }
    if let Some(hold) = &section.hold {
        spec = spec.hold(hold.get_ref().0);
    }
    spec = spec.count_defaulted(section.count_defaulted);
    for id in &section.without {
        spec = spec.without(id.get_ref());
    }
    for (id, objective) in &section.objectives {
        let before = spec.slos.iter().find(|slo| slo.id == **id.get_ref()).cloned();
        spec = match slo(id.get_ref(), objective, before) {
            Some(slo) => spec.slo(slo),
            None => spec,
        };
    }
    for (id, alert) in &section.alerts {
        let before = spec.alerts.iter().find(|rule| rule.id == **id.get_ref()).cloned();
        spec = match rule(id.get_ref(), alert, before) {
            Some(rule) => spec.alert(rule),
            None => spec,
        };
    }
    spec
}

fn slo(id: &str, section: &Objective, before: Option<Slo>) -> Option<Slo> {
    let keys = section.keys();
    let measure = keys.measure(before.as_ref().map(|slo| &slo.measure))?;
    let bound = keys.bound(measure.unit()).or(before.as_ref().map(|slo| slo.target))?;
    let name = section.name.clone().or_else(|| Some(before?.name.into_owned()));
    Some(Slo::new(id.to_owned(), name.unwrap_or_else(|| id.to_owned()), measure, bound))
}

fn rule(id: &str, section: &Alerting, before: Option<AlertRule>) -> Option<AlertRule> {
    let keys = section.keys();
    let measure = keys.measure(before.as_ref().map(|rule| &rule.measure))?;
    let bound = keys.bound(measure.unit()).or(before.as_ref().map(|rule| rule.when))?;
    let severity = match section.severity {
        Some(Weight::Warning) => Severity::Warning,
        Some(Weight::Critical) => Severity::Critical,
        None => before.as_ref().map_or(Severity::Warning, |rule| rule.severity),
    };
    let usual = before.as_ref().map_or(MIN_SAMPLES, |rule| rule.min_samples);
    let samples = section.min_samples.as_ref().map_or(usual, |it| u64::from(*it.get_ref()));
    let name = section.name.clone().or_else(|| Some(before?.name.into_owned()));
    let name = name.unwrap_or_else(|| id.to_owned());
    Some(AlertRule::new(id.to_owned(), name, measure, bound, severity).min_samples(samples))
}

/// Why nothing will ever be measured for this in the tree of a file; `None` when something may.
pub(crate) fn never(measure: &Measure, file: &TreeFile) -> Option<String> {
    let groups = |kind: Option<PolicyKind>, members: usize| {
        file.groups.values().any(|group| {
            kind.is_none_or(|kind| group.kind.get_ref().watched() == kind)
                && group.members.get_ref().len() >= members
        })
    };
    let kind = |kind: PolicyKind, members| {
        let name = GroupKind::ALL.iter().find(|name| name.watched() == kind)?.name();
        (!groups(Some(kind), members)).then(|| match members {
            1 => format!("never: no {name} group"),
            _ => format!("never: no {name} group of {members}"),
        })
    };
    match measure {
        Measure::Degraded(of) | Measure::AvailabilityOf(of) => kind(*of, 1),
        Measure::FallbackSuccessOf(of) => kind(*of, 2),
        Measure::FallbackSuccess | Measure::FallbackLatency => {
            (!groups(None, 2)).then(|| "never: nobody stands in for another".to_owned())
        }
        _ => {
            let signal = measure.signal()?;
            let known = SIGNALS.iter().any(|(name, _)| *name == signal);
            (!known).then(|| "never: nobody reports it".to_owned())
        }
    }
}
