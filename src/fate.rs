//! How an accepted request ended: exactly one [`Fate`] each, and at any moment
//! `accepted = sum of fates + open`.
//!
//! *Invariant.* Plain data. Who writes a fate first is settled elsewhere; here it only has a name.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::decision::{Action, Declined, Rung};
use crate::fault::{Class, ExitKind};
use crate::id::{ChildPath, Delivery};
use crate::moment::Moment;

mod given;

pub use given::Given;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Fate {
    /// Answered.
    Done,
    /// Answered, but its caller had left; or its deadline passed while the answer was being kept, and its caller
    /// had heard of that.
    Unheard,
    /// Every rung of the ladder was climbed, or none applied.
    Failed,
    /// Its deadline passed first.
    Expired,
    /// Its caller left before it was answered.
    Cancelled,
    /// The child or the system stopped.
    Stopped,
    /// It ended two lives and was set aside.
    Quarantined,
    /// Its effect may or may not have happened, and it may not be repeated.
    Unknown,
    /// The system stopped before it was done, and it is durable: it is open in the journal, and
    /// [`System::recover`](crate::system::System::recover) takes it up again.
    Suspended,
}

impl Fate {
    /// Every fate.
    pub const ALL: [Self; 9] = [
        Self::Done,
        Self::Unheard,
        Self::Failed,
        Self::Expired,
        Self::Cancelled,
        Self::Stopped,
        Self::Quarantined,
        Self::Unknown,
        Self::Suspended,
    ];

    /// The name in events, metrics and summaries.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Unheard => "unheard",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Stopped => "stopped",
            Self::Quarantined => "quarantined",
            Self::Unknown => "unknown",
            Self::Suspended => "suspended",
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Counts of requests by fate, with those still open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FateCounts {
    /// Accepted so far.
    pub accepted: u64,
    /// Accepted and without a fate: waiting, in flight, backing off, or being decided.
    pub open: u64,
    /// See [`Fate::Done`].
    pub done: u64,
    /// See [`Fate::Unheard`].
    pub unheard: u64,
    /// See [`Fate::Failed`].
    pub failed: u64,
    /// See [`Fate::Expired`].
    pub expired: u64,
    /// See [`Fate::Cancelled`].
    pub cancelled: u64,
    /// See [`Fate::Stopped`].
    pub stopped: u64,
    /// See [`Fate::Quarantined`].
    pub quarantined: u64,
    /// See [`Fate::Unknown`].
    pub unknown: u64,
    /// See [`Fate::Suspended`].
    #[serde(default)]
    pub suspended: u64,
}

impl FateCounts {
    /// The count of one fate.
    pub const fn of(&self, fate: Fate) -> u64 {
        match fate {
            Fate::Done => self.done,
            Fate::Unheard => self.unheard,
            Fate::Failed => self.failed,
            Fate::Expired => self.expired,
            Fate::Cancelled => self.cancelled,
            Fate::Stopped => self.stopped,
            Fate::Quarantined => self.quarantined,
            Fate::Unknown => self.unknown,
            Fate::Suspended => self.suspended,
        }
    }

    /// Counts one more request with this fate. `accepted` and `open` are left alone.
    pub const fn add(&mut self, fate: Fate) {
        let count = match fate {
            Fate::Done => &mut self.done,
            Fate::Unheard => &mut self.unheard,
            Fate::Failed => &mut self.failed,
            Fate::Expired => &mut self.expired,
            Fate::Cancelled => &mut self.cancelled,
            Fate::Stopped => &mut self.stopped,
            Fate::Quarantined => &mut self.quarantined,
            Fate::Unknown => &mut self.unknown,
            Fate::Suspended => &mut self.suspended,
        };
        *count += 1;
    }

    /// The sum over all fates.
    pub const fn ended(&self) -> u64 {
        self.done
            + self.unheard
            + self.failed
            + self.expired
            + self.cancelled
            + self.stopped
            + self.quarantined
            + self.unknown
            + self.suspended
    }

    /// Whether `accepted = sum of fates + open`. Always true of what the runtime returns.
    pub const fn is_balanced(&self) -> bool {
        self.accepted == self.ended() + self.open
    }

    /// Adds another count to this one.
    pub const fn merge(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.open += other.open;
        self.done += other.done;
        self.unheard += other.unheard;
        self.failed += other.failed;
        self.expired += other.expired;
        self.cancelled += other.cancelled;
        self.stopped += other.stopped;
        self.quarantined += other.quarantined;
        self.unknown += other.unknown;
        self.suspended += other.suspended;
    }
}

/// What an answer cost, as far as the children that served it said so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Tokens, input and output together.
    pub tokens: u64,
    /// Millionths of the currency the user counts in.
    pub money_micros: u64,
}

impl Cost {
    /// Adds another cost to this one, saturating.
    pub const fn add(&mut self, other: Self) {
        self.tokens = self.tokens.saturating_add(other.tokens);
        self.money_micros = self.money_micros.saturating_add(other.money_micros);
    }

    /// What is left of it without the other, never less than nothing.
    pub(crate) const fn without(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_sub(other.tokens),
            money_micros: self.money_micros.saturating_sub(other.money_micros),
        }
    }
}

/// What ended an attempt, without texts: the class and code of a fault, or the kind of an exit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ended {
    /// A fault.
    Fault {
        /// Its class.
        class: Class,
        /// Its code, if it had one.
        code: Option<String>,
    },
    /// The end of a life.
    Exit(ExitKind),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault { class, code: Some(code) } => write!(f, "{class} ({code})"),
            Self::Fault { class, code: None } => write!(f, "{class}"),
            Self::Exit(kind) => write!(f, "{kind}"),
        }
    }
}

/// One failed attempt and what was decided after it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it ended.
    pub at: Moment,
    /// Who made it.
    pub child: ChildPath,
    /// Which attempt of the request it was, from 1.
    pub attempt: u32,
    /// Which hand-out.
    pub delivery: Delivery,
    /// How it ended.
    pub ended: Ended,
    /// What was done then.
    pub action: Action,
    /// Why nothing gentler.
    pub declined: Vec<(Rung, Declined)>,
}

/// The failed attempts of a request, in order. Empty for most answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trail(pub Vec<Attempt>);

impl Trail {
    /// Whether nothing failed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The failed attempts, first to last.
    pub fn iter(&self) -> std::slice::Iter<'_, Attempt> {
        self.0.iter()
    }
}

impl fmt::Display for Trail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, entry) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(
                f,
                "attempt {} at {}: {} -> {}",
                entry.attempt,
                entry.child,
                entry.ended,
                entry.action.name()
            )?;
        }
        Ok(())
    }
}

/// A reply, with who gave it and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Answer<R> {
    /// The reply.
    pub value: R,
    /// The child that gave it: the one called, or the member of the group that served.
    pub served_by: ChildPath,
    /// Whether a substitute gave it, or something it rests on was degraded.
    pub degraded: bool,
    /// Whether it is a default value rather than work.
    pub defaulted: bool,
    /// Attempts made, the one that succeeded included.
    pub attempts: u32,
    /// What it cost.
    pub cost: Cost,
    /// From acceptance to the reply.
    pub elapsed: Duration,
    /// What failed on the way.
    pub trail: Trail,
}

impl<R> Answer<R> {
    /// An answer at the first attempt, by this child, not degraded, at no cost.
    pub fn new(value: R, served_by: ChildPath) -> Self {
        Self {
            value,
            served_by,
            degraded: false,
            defaulted: false,
            attempts: 1,
            cost: Cost::default(),
            elapsed: Duration::ZERO,
            trail: Trail::default(),
        }
    }

    /// The same answer with another value.
    pub fn map<T>(self, f: impl FnOnce(R) -> T) -> Answer<T> {
        Answer {
            value: f(self.value),
            served_by: self.served_by,
            degraded: self.degraded,
            defaulted: self.defaulted,
            attempts: self.attempts,
            cost: self.cost,
            elapsed: self.elapsed,
            trail: self.trail,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_balance_when_every_accepted_request_is_open_or_has_a_fate() {
        let mut counts = FateCounts { accepted: 9, ..FateCounts::default() };
        assert!(!counts.is_balanced());
        for fate in Fate::ALL {
            counts.add(fate);
            assert_eq!(counts.of(fate), 1);
        }
        assert_eq!(counts.ended(), 9);
        assert!(counts.is_balanced());
        let mut twice = counts;
        twice.merge(&counts);
        assert_eq!(twice.accepted, 18);
        assert!(twice.is_balanced());
    }
}
