//! What is known about an effect, and who has said so.
//!
//! *Invariant.* A person's name and reason are written with what the person said, in one record, and stand with that
//! only: what becomes of the effect later is not on that person's word.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Entry, Input, Ledger, Output, Record};
use crate::fate::Cost;
use crate::fault::Fault;
use crate::id::{ChildPath, EffectKey};

/// Who has spoken on an effect, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Said {
    /// The person, as given.
    pub by: String,
    /// The reason, as given.
    pub why: String,
}

impl Said {
    /// By this person, for this reason.
    pub fn new(by: impl Into<String>, why: impl Into<String>) -> Self {
        Self { by: by.into(), why: why.into() }
    }
}

/// What is known about an effect.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub enum EffectStatus {
    /// It may have been dispatched; no outcome is known.
    Intended,
    /// It happened; what came of it.
    Confirmed(Happened),
    /// It happened and stands, although it was to be undone: the undo of its task stopped here. A person
    /// must look.
    Left(Happened),
    /// It did not happen.
    Rejected,
    /// The tool said that it failed, without saying that nothing has happened: it is not repeated unless
    /// that does no harm, and is undone if it has an undo.
    Failed(Fault),
    /// Nobody knows, and it may not be repeated, or nobody is left who would: it waits for a verification or a person.
    Unknown,
    /// It happened, or may have, and is being undone.
    Compensating,
    /// It happened, or may have, and was undone.
    Compensated,
    /// It happened, or may have, and undoing it failed; why. A person must look.
    Stuck(String),
}

/// What came of an effect that took place.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happened {
    /// The encoded result.
    pub result: Arc<[u8]>,
    /// Who gave it, where that was not the tool that was asked: a member of a group.
    pub served_by: Option<ChildPath>,
    /// A stand-in gave it, or a stand-in's work is in it.
    pub degraded: bool,
    /// It is the default of a group.
    pub defaulted: bool,
    /// A person has said that it stands rightly: it is not undone by itself any more.
    pub stands: bool,
    /// What it has cost, as far as its tool said so.
    #[serde(default)]
    pub cost: Cost,
}

impl Happened {
    /// With this result, of the tool itself.
    pub fn new(result: impl Into<Arc<[u8]>>) -> Self {
        let (result, cost) = (result.into(), Cost::default());
        Self { result, served_by: None, degraded: false, defaulted: false, stands: false, cost }
    }
}

impl fmt::Debug for Happened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Happened")
            .field("served_by", &self.served_by)
            .field("degraded", &self.degraded)
            .field("defaulted", &self.defaulted)
            .field("stands", &self.stands)
            .finish_non_exhaustive()
    }
}

impl EffectStatus {
    /// The name in dumps: `confirmed`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Intended => "intended",
            Self::Confirmed(_) => "confirmed",
            Self::Left(_) => "left",
            Self::Rejected => "rejected",
            Self::Failed(_) => "failed",
            Self::Unknown => "unknown",
            Self::Compensating => "compensating",
            Self::Compensated => "compensated",
            Self::Stuck(_) => "stuck",
        }
    }

    /// Whether a person has said that it stands rightly.
    pub const fn stands(&self) -> bool {
        matches!(self, Self::Confirmed(Happened { stands: true, .. }))
    }

    /// Whether somebody still has to find something out or do something about it.
    pub const fn is_open(&self) -> bool {
        matches!(
            self,
            Self::Intended | Self::Unknown | Self::Compensating | Self::Stuck(_) | Self::Left(_)
        )
    }
}

impl fmt::Debug for EffectStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Entry {
    /// Another status, of which nobody has said anything yet.
    pub(super) fn becomes(&mut self, status: EffectStatus) -> Record {
        self.status = status.clone();
        self.said = None;
        Record::Status(self.intent.key, status)
    }
}

impl Ledger {
    /// Applies a status that was written before.
    pub(super) fn note(&mut self, key: EffectKey, status: EffectStatus, said: Option<Arc<Said>>) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.status = status;
            entry.in_flight = false;
            entry.said = said;
        }
    }

    /// What a person says changes a status, or nothing.
    pub(super) fn on_word(&mut self, said: Arc<Said>, input: Input) -> Output {
        let mut output = self.on(input);
        output.record = output.record.map(|record| match record {
            Record::Status(key, status) => {
                if let Some(entry) = self.entries.get_mut(&key) {
                    entry.said = Some(Arc::clone(&said));
                }
                Record::Said(key, status, said)
            }
            other => other,
        });
        output
    }
}
