//! The records of the journal as they are written.
//!
//! *Invariant.* A record says by name what it is; a field that came later has a default, so that what an
//! earlier version wrote is read.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Hand, Open};
use crate::checkpoint::Wall;
use crate::fate::{Cost, Fate, Given, Trail};
use crate::fault::{EffectKind, Fault};
use crate::id::{CheckpointId, ChildPath, EffectKey};
use crate::ledger::{EffectStatus, Happened, Intent, Record, Said, Undo};
use crate::policy::budget::Limits;
use crate::port::Back;

/// The first version that says which requests were handed out.
const KEEPS_HANDS: u32 = 7;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    Accepted {
        child: ChildPath,
        key: Arc<str>,
        request: String,
        deadline: Option<u64>,
        /// What failed before it was released.
        #[serde(default, skip_serializing_if = "Trail::is_empty")]
        trail: Trail,
        /// What it may cost, time aside.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        budget: Option<Limits>,
        /// As [`Line::TakenUp`] and [`Line::WentBack`] say.
        #[serde(default, skip_serializing_if = "is_none")]
        taken: u32,
        #[serde(default, skip_serializing_if = "Back::is_none")]
        back: Back,
        /// As [`Line::HandedOut`] says.
        #[serde(default, skip_serializing_if = "Hand::is_harmless")]
        hand: Hand,
        /// Which time it was accepted under its key.
        #[serde(default, skip_serializing_if = "is_first")]
        round: u64,
    },
    Fated {
        key: Arc<str>,
        fate: Fate,
        reply: Option<String>,
        /// Of one that was set aside: when, and what had failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<Wall>,
        #[serde(default, skip_serializing_if = "Trail::is_empty")]
        trail: Trail,
        /// Of one that was answered by a child with a state: after how many of the child's steps.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        work: Option<(ChildPath, u64)>,
        /// Of one that was set aside: as [`Line::Unmade`] says.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        deleted: bool,
        /// How its answer was given, and what it has cost.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        given: Option<Box<Given>>,
    },
    /// One that was set aside is to be done after all.
    Released {
        key: Arc<str>,
        /// As of [`Line::Accepted`].
        #[serde(default, skip_serializing_if = "is_first")]
        round: u64,
    },
    /// One that was set aside is not wanted any more.
    Discarded {
        key: Arc<str>,
    },
    /// It was not accepted, although a record says so: nothing is said of its key.
    Withdrawn {
        key: Arc<str>,
    },
    /// Should the process end now, it has ended so many times with this request in hand since that last got
    /// on. Written of those that an earlier process has left.
    TakenUp {
        key: Arc<str>,
        n: u32,
    },
    /// It has gone back to where it began, or the supervisor at `to` was to return for it.
    WentBack {
        key: Arc<str>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<ChildPath>,
    },
    /// Code that may act on the world and may not be repeated has begun with it; or that code has ended, and
    /// nothing has happened. Written before the one and after the other.
    HandedOut {
        key: Arc<str>,
        out: bool,
    },
    Intent(StoredIntent),
    Status {
        key: String,
        status: StoredStatus,
        /// The person on whose word, and why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        said: Option<Arc<Said>>,
    },
    /// What came of a question that is no effect.
    Asked {
        task: Arc<str>,
        key: String,
        status: StoredStatus,
    },
    Retired {
        task: Arc<str>,
    },
    /// It has ended without an answer, and what it has done is to be undone; or that is over.
    Owes {
        task: Arc<str>,
        owes: bool,
    },
    /// A child is made from this template in every process, until [`Line::Unmade`] says otherwise.
    Made {
        child: ChildPath,
        template: Arc<str>,
        arguments: String,
        /// States under its path that are of others before it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        before: Vec<CheckpointId>,
        /// Said again by a journal that is written anew: of one that there is already it says nothing.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        again: bool,
    },
    /// It is gone.
    Unmade {
        child: ChildPath,
        /// What was set aside of it is not for another of its path: it has not failed to begin, nor was it let go by
        /// a program that could not make it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        deleted: bool,
    },
    /// These were returned to, and are not again.
    Returned {
        checkpoints: Vec<CheckpointId>,
        /// Whose work went with the states, as was told.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        missing: Vec<Arc<str>>,
        /// Whose work was brought back into a state, which is done once.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        replayed: Vec<Arc<str>>,
    },
}

#[derive(Serialize, Deserialize)]
pub(super) struct StoredIntent {
    key: String,
    epoch: u32,
    task: Arc<str>,
    owner: ChildPath,
    step: u64,
    ordinal: u32,
    tool: ChildPath,
    kind: EffectKind,
    request: String,
    undo: Option<(ChildPath, String)>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum StoredStatus {
    Intended,
    Confirmed(StoredHappened),
    Left(StoredHappened),
    Rejected,
    Failed(Fault),
    Unknown,
    Compensating,
    Compensated,
    Stuck(String),
}

/// What came of an effect. Alone the result, which is all that earlier versions wrote.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum StoredHappened {
    Plain(String),
    More {
        result: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        served_by: Option<ChildPath>,
        #[serde(default)]
        degraded: bool,
        #[serde(default)]
        defaulted: bool,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        stands: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cost: Option<Cost>,
    },
}

impl From<Happened> for StoredHappened {
    fn from(happened: Happened) -> Self {
        let Happened { result, served_by, degraded, defaulted, stands, cost } = happened;
        let result = String::from_utf8_lossy(&result).into_owned();
        let cost = (cost != Cost::default()).then_some(cost);
        if served_by.is_none() && !degraded && !defaulted && !stands && cost.is_none() {
            return Self::Plain(result);
        }
        Self::More { result, served_by, degraded, defaulted, stands, cost }
    }
}

impl From<StoredHappened> for Happened {
    fn from(stored: StoredHappened) -> Self {
        match stored {
            StoredHappened::Plain(result) => Self::new(bytes(result)),
            StoredHappened::More { result, served_by, degraded, defaulted, stands, cost } => {
                let (result, cost) = (bytes(result), cost.unwrap_or_default());
                Self { result, served_by, degraded, defaulted, stands, cost }
            }
        }
    }
}

impl From<&Open> for Line {
    fn from(open: &Open) -> Self {
        Self::Accepted {
            child: open.child.clone(),
            key: Arc::clone(&open.key),
            request: open.request.clone(),
            deadline: open.deadline,
            trail: open.trail.clone(),
            budget: open.budget,
            taken: open.taken,
            back: open.back.clone(),
            hand: open.hand,
            round: open.round,
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_none(n: &u32) -> bool {
    *n == 0
}

#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_first(round: &u64) -> bool {
    *round == 0
}

impl Line {
    /// The request that was accepted, of such a record.
    pub(super) fn into_open(self) -> Option<Open> {
        let Self::Accepted {
            child,
            key,
            request,
            deadline,
            trail,
            budget,
            taken,
            back,
            hand,
            round,
        } = self
        else {
            return None;
        };
        Some(Open { child, key, request, deadline, trail, budget, taken, back, hand, round })
    }

    /// As a version has written it.
    pub(super) fn of_version(mut self, version: u32) -> Self {
        if version < KEEPS_HANDS
            && let Self::Accepted { hand, .. } = &mut self
        {
            *hand = Hand::Untold;
        }
        self
    }

    /// Whether the next record may say what became of what this one says.
    pub(super) const fn is_begun(&self) -> bool {
        matches!(self, Self::Accepted { .. } | Self::Intent(_))
    }
}

impl From<Record> for Line {
    fn from(record: Record) -> Self {
        match record {
            Record::Intent(intent, epoch) => Self::Intent(StoredIntent {
                key: intent.key.to_string(),
                epoch,
                task: intent.task,
                owner: intent.owner,
                step: intent.step,
                ordinal: intent.ordinal,
                tool: intent.tool,
                kind: intent.kind,
                request: String::from_utf8_lossy(&intent.request).into_owned(),
                undo: intent
                    .undo
                    .map(|undo| (undo.tool, String::from_utf8_lossy(&undo.request).into_owned())),
            }),
            Record::Status(key, status) => {
                Self::Status { key: key.to_string(), status: status.into(), said: None }
            }
            Record::Said(key, status, said) => {
                Self::Status { key: key.to_string(), status: status.into(), said: Some(said) }
            }
            Record::Asked(task, key, status) => {
                Self::Asked { task, key: key.to_string(), status: status.into() }
            }
            Record::Retired(task) => Self::Retired { task },
            Record::Owes(task, owes) => Self::Owes { task, owes },
        }
    }
}

impl From<EffectStatus> for StoredStatus {
    fn from(status: EffectStatus) -> Self {
        match status {
            EffectStatus::Intended => Self::Intended,
            EffectStatus::Confirmed(happened) => Self::Confirmed(happened.into()),
            EffectStatus::Left(happened) => Self::Left(happened.into()),
            EffectStatus::Rejected => Self::Rejected,
            EffectStatus::Failed(fault) => Self::Failed(fault),
            EffectStatus::Unknown => Self::Unknown,
            EffectStatus::Compensating => Self::Compensating,
            EffectStatus::Compensated => Self::Compensated,
            EffectStatus::Stuck(why) => Self::Stuck(why),
        }
    }
}

impl From<StoredStatus> for EffectStatus {
    fn from(status: StoredStatus) -> Self {
        match status {
            StoredStatus::Intended => Self::Intended,
            StoredStatus::Confirmed(happened) => Self::Confirmed(happened.into()),
            StoredStatus::Left(happened) => Self::Left(happened.into()),
            StoredStatus::Rejected => Self::Rejected,
            StoredStatus::Failed(fault) => Self::Failed(fault),
            StoredStatus::Unknown => Self::Unknown,
            StoredStatus::Compensating => Self::Compensating,
            StoredStatus::Compensated => Self::Compensated,
            StoredStatus::Stuck(why) => Self::Stuck(why),
        }
    }
}

impl StoredIntent {
    pub(super) fn into_record(self) -> Result<Record, String> {
        let intent = Intent {
            key: key_of(&self.key)?,
            task: self.task,
            owner: self.owner,
            step: self.step,
            ordinal: self.ordinal,
            tool: self.tool,
            kind: self.kind,
            request: bytes(self.request),
            undo: self.undo.map(|(tool, request)| Undo { tool, request: bytes(request) }),
        };
        Ok(Record::Intent(intent, self.epoch))
    }
}

fn bytes(text: String) -> Arc<[u8]> {
    Arc::from(text.into_bytes())
}

pub(super) fn key_of(text: &str) -> Result<EffectKey, String> {
    text.parse().map_err(|()| format!("{text:?} is no key of an effect"))
}
