//! What is measured, what is aimed at, and when somebody is told.
//!
//! *Invariant.* The playbook's numbers stand here and nowhere else; every one can be replaced.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::policy::GroupKind;

/// Something that is measured over the window. Rates are shares between 0 and 1, durations seconds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Measure {
    /// Attempts that ended without an answer, of all attempts. Cancelled ones are no errors.
    ErrorRate,
    /// Requests that ended without an answer, of all that ended; those that were cancelled or stopped
    /// are left out.
    RequestErrors,
    /// Requests that only retries recovered, of those that entered a retry.
    RetrySuccess,
    /// From the first failure to the answer, of requests that only retries recovered: the 95th
    /// percentile.
    RetryLatency,
    /// Retries by requests, over all requests.
    RetriesPerRequest,
    /// Attempts by requests: 1 when nothing is retried.
    Amplification,
    /// Requests that a substitute answered, of those that were handed to one. Default values are no
    /// success, unless [`WatchSpec::count_defaulted`](super::WatchSpec::count_defaulted) says so.
    FallbackSuccess,
    /// The same, of groups of one kind.
    FallbackSuccessOf(GroupKind),
    /// From the decision to hand a request on to its answer: the 95th percentile.
    FallbackLatency,
    /// Degraded answers, of all answers of groups of one kind.
    Degraded(GroupKind),
    /// Answers, degraded ones too, of all requests that ended; those that were cancelled or stopped are
    /// left out.
    Availability,
    /// The same of requests to groups of one kind, without default values.
    AvailabilityOf(GroupKind),
    /// Rollbacks that reached their checkpoint, of those begun.
    RollbackSuccess,
    /// How long they took: the 95th percentile.
    RollbackTime,
    /// States that were taken up again and are what was stored, of those that were tried: after the end of a life, and
    /// for a rollback.
    Integrity,
    /// Requests that were answered without a default value, of those that have failed at least once.
    Recovery,
    /// A signal that is reported from outside ([`Signal`](super::Signal)): how often it was yes.
    Share(Cow<'static, str>),
    /// A reported duration: its mean.
    Mean(Cow<'static, str>),
    /// A reported duration: the 95th percentile.
    P95(Cow<'static, str>),
}

/// What a [`Measure`] is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Between 0 and 1; shown as percent.
    Share,
    /// Seconds.
    Seconds,
    /// A plain number.
    Number,
}

impl Measure {
    /// What it is counted in.
    pub const fn unit(&self) -> Unit {
        match self {
            Self::RetryLatency
            | Self::FallbackLatency
            | Self::RollbackTime
            | Self::Mean(_)
            | Self::P95(_) => Unit::Seconds,
            Self::RetriesPerRequest | Self::Amplification => Unit::Number,
            _ => Unit::Share,
        }
    }

    /// The signal it is made of, if it is reported from outside.
    pub fn signal(&self) -> Option<&str> {
        match self {
            Self::Share(name) | Self::Mean(name) | Self::P95(name) => Some(name),
            _ => None,
        }
    }
}

impl Unit {
    /// A value for people: `97.5 %`, `4.20 s`, `1.07`.
    pub fn show(self, value: f64) -> String {
        match self {
            Self::Share => format!("{:.1} %", value * 100.0),
            Self::Seconds => format!("{value:.2} s"),
            Self::Number => format!("{value:.2}"),
        }
    }

    /// A limit for people, as it was written: `95 %`, `5 s`, `2`.
    fn limit(self, value: f64) -> String {
        match self {
            // What a share written as a decimal fraction has lost in binary does not show.
            Self::Share => format!("{} %", (value * 1e8).round() / 1e6),
            Self::Seconds => format!("{value} s"),
            Self::Number => value.to_string(),
        }
    }
}

/// A limit; a value that equals it is on neither side.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// More than this.
    Above(f64),
    /// Less than this.
    Below(f64),
}

impl Bound {
    /// The limit.
    pub const fn limit(self) -> f64 {
        match self {
            Self::Above(limit) | Self::Below(limit) => limit,
        }
    }

    /// Whether a value is strictly beyond it.
    pub fn holds(self, value: f64) -> bool {
        match self {
            Self::Above(limit) => value > limit,
            Self::Below(limit) => value < limit,
        }
    }

    /// For people: `> 95 %`, `< 5 s`.
    pub fn show(self, unit: Unit) -> String {
        let sign = match self {
            Self::Above(_) => '>',
            Self::Below(_) => '<',
        };
        format!("{sign} {}", unit.limit(self.limit()))
    }
}

/// An objective: where a measure should be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Slo {
    /// Names it; the playbook's have the number of their row.
    pub id: Cow<'static, str>,
    /// What it is about, in words.
    pub name: Cow<'static, str>,
    /// What is measured.
    pub measure: Measure,
    /// Where it should be.
    pub target: Bound,
}

impl Slo {
    /// An objective.
    pub fn new(
        id: impl Into<Cow<'static, str>>,
        name: impl Into<Cow<'static, str>>,
        measure: Measure,
        target: Bound,
    ) -> Self {
        Self { id: id.into(), name: name.into(), measure, target }
    }

    const fn row(id: &'static str, name: &'static str, measure: Measure, target: Bound) -> Self {
        Self { id: Cow::Borrowed(id), name: Cow::Borrowed(name), measure, target }
    }

    /// The target for people: `> 95 %`.
    pub fn target_text(&self) -> String {
        self.target.show(self.measure.unit())
    }

    /// The playbook's objectives, which hold in every case.
    pub fn playbook() -> Vec<Self> {
        use Bound::{Above, Below};
        vec![
            Self::row("S94", "error rate", Measure::ErrorRate, Below(0.10)),
            Self::row("S25", "retry success", Measure::RetrySuccess, Above(0.95)),
            Self::row("S26", "retry latency, P95", Measure::RetryLatency, Below(5.0)),
            Self::row("S27", "retries a request, mean", Measure::RetriesPerRequest, Below(2.0)),
            Self::row("S37", "fallback success", Measure::FallbackSuccess, Above(0.90)),
            Self::row("S38", "fallback latency, P95", Measure::FallbackLatency, Below(3.0)),
            Self::row("S39", "availability as users see it", Measure::Availability, Above(0.95)),
            Self::row(
                "S28",
                "degraded answers of a model group",
                Measure::Degraded(GroupKind::Model),
                Below(0.05),
            ),
            Self::row(
                "S29",
                "success of an alternative tool",
                Measure::FallbackSuccessOf(GroupKind::Tool),
                Above(0.90),
            ),
            Self::row(
                "S30",
                "completion of a simplified flow",
                Measure::FallbackSuccessOf(GroupKind::Step),
                Above(0.80),
            ),
            Self::row("S31", "retrieval", Measure::AvailabilityOf(GroupKind::Data), Above(0.95)),
            Self::row(
                "S32",
                "output available",
                Measure::AvailabilityOf(GroupKind::Output),
                Above(0.98),
            ),
            Self::row("S97", "rollback success", Measure::RollbackSuccess, Above(0.99)),
            Self::row("S51", "rollback time, P95", Measure::RollbackTime, Below(30.0)),
            Self::row("S52", "state integrity", Measure::Integrity, Above(0.999)),
            Self::row("S98", "recovery in all", Measure::Recovery, Above(0.98)),
        ]
    }
}

/// How much an alert matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// An objective is missed, and no rule says that this is an alert: its reserve burns.
    Info,
    /// Somebody should look today.
    Warning,
    /// Somebody should look now.
    Critical,
}

impl Severity {
    /// Its name, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// When somebody is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AlertRule {
    /// Names it; the playbook's have the number of their row.
    pub id: Cow<'static, str>,
    /// What it is about, in words.
    pub name: Cow<'static, str>,
    /// What is measured.
    pub measure: Measure,
    /// Where it raises; strictly.
    pub when: Bound,
    /// How much it matters.
    pub severity: Severity,
    /// From how many samples on.
    ///
    /// # Default
    /// 20.
    pub min_samples: u64,
}

/// Samples without which nothing is said.
pub const MIN_SAMPLES: u64 = 20;

impl AlertRule {
    /// A rule that needs [`MIN_SAMPLES`].
    pub fn new(
        id: impl Into<Cow<'static, str>>,
        name: impl Into<Cow<'static, str>>,
        measure: Measure,
        when: Bound,
        severity: Severity,
    ) -> Self {
        let (id, name) = (id.into(), name.into());
        Self { id, name, measure, when, severity, min_samples: MIN_SAMPLES }
    }

    /// Sets [`AlertRule::min_samples`]; at least 1.
    #[must_use]
    pub fn min_samples(mut self, samples: u64) -> Self {
        self.min_samples = samples.max(1);
        self
    }

    /// The condition for people: `error rate > 10 %`.
    pub fn condition(&self) -> String {
        format!("{} {}", self.name, self.when.show(self.measure.unit()))
    }

    /// The playbook's rules, and two of ours: on substitutes (`R18`) and on amplification (`4.5`, by
    /// its paragraph).
    pub fn playbook() -> Vec<Self> {
        use Bound::{Above, Below};
        use Severity::{Critical, Warning};
        let row = |id, name, measure, when, severity| Self {
            id: Cow::Borrowed(id),
            name: Cow::Borrowed(name),
            measure,
            when,
            severity,
            min_samples: MIN_SAMPLES,
        };
        vec![
            row("S88", "error rate", Measure::ErrorRate, Above(0.10), Warning),
            row("S89", "retry success", Measure::RetrySuccess, Below(0.80), Warning),
            row("R18", "fallback success", Measure::FallbackSuccess, Below(0.80), Warning),
            row("S90", "rollback success", Measure::RollbackSuccess, Below(0.95), Critical),
            row("4.5", "attempts by request", Measure::Amplification, Above(1.5), Warning),
        ]
    }
}

/// A case of the playbook, with the objectives that come with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// Case 1: customer service.
    CustomerService,
    /// Case 2: financial transactions.
    Finance,
    /// Case 3: code generation.
    Codegen,
}

impl Profile {
    /// The objectives of this case alone. What the runtime cannot know is taken from signals that the
    /// program reports with [`System::signal`](crate::system::System::signal): `satisfaction`,
    /// `intervention` and `response`; `funds_lost`, yes for a transaction whose money is gone; `usable`,
    /// `repair` and `generation`. An objective whose signal nobody reports has no value.
    pub fn slos(self) -> Vec<Slo> {
        use Bound::{Above, Below};
        let share = |name| Measure::Share(Cow::Borrowed(name));
        let row = Slo::row;
        match self {
            Self::CustomerService => vec![
                row("S65.satisfaction", "satisfaction", share("satisfaction"), Above(0.95)),
                row("S65.intervention", "a person had to help", share("intervention"), Below(0.10)),
                row(
                    "S65.response",
                    "response, mean",
                    Measure::Mean(Cow::Borrowed("response")),
                    Below(30.0),
                ),
            ],
            Self::Finance => vec![
                row("S71.success", "transaction success", Measure::Availability, Above(0.999)),
                row("S71.rollback", "rollback success", Measure::RollbackSuccess, Above(0.99)),
                row("S71.loss", "funds lost", share("funds_lost"), Below(0.0001)),
            ],
            Self::Codegen => vec![
                row("S77.usable", "usable code", share("usable"), Above(0.90)),
                row("S77.repair", "a person had to repair", share("repair"), Below(0.05)),
                row(
                    "S77.generation",
                    "generation, P95",
                    Measure::P95(Cow::Borrowed("generation")),
                    Below(10.0),
                ),
            ],
        }
    }
}
