//! Where an earlier process has stopped undoing, and what a person may have said since.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::{Entry as Node, System};
use crate::effects::Ends;
use crate::fate::Fate;
use crate::id::ChildPath;
use crate::journal::{Journal, Journaled};
use crate::ledger::{EffectStatus, Entry};

/// How the requests have ended whose undo has stopped.
pub(super) type Halted = Vec<(Arc<str>, Ends)>;

impl System {
    /// The requests that have ended and of which something was left standing; and those within a transaction of
    /// which nobody knows how they have ended. `failed`: those that the ledger says are to be undone.
    pub(super) fn halted(
        &self,
        entries: &[Entry],
        journal: &Journal,
        failed: &BTreeSet<Arc<str>>,
    ) -> (Halted, BTreeSet<Arc<str>>) {
        let (mut halted, mut doubted) = (BTreeMap::new(), BTreeSet::new());
        for entry in entries {
            let task = &entry.intent.task;
            let ends = match journal.known(task) {
                Some(Journaled::Open) => continue,
                Some(Journaled::Fated(Fate::Done | Fate::Unheard, _)) => Ends::Answered,
                Some(Journaled::Fated(Fate::Unknown, _))
                    if self.is_in_transaction(&entry.intent.owner) =>
                {
                    doubted.insert(Arc::clone(task));
                    Ends::Unanswered
                }
                Some(Journaled::Fated(..)) => Ends::Unanswered,
                None if failed.contains(task) => Ends::Unanswered,
                // Of any other one that is not durable nobody knows: more than was marked is not owed.
                None => Ends::Answered,
            };
            // Only what is within a transaction is.
            if let EffectStatus::Left(_) = entry.status {
                halted.insert(Arc::clone(task), ends);
            }
        }
        (halted.into_iter().collect(), doubted)
    }

    /// Whether what this child does is undone where its request ends without an answer.
    pub(super) fn is_in_transaction(&self, owner: &ChildPath) -> bool {
        match self.inner.registry.get(owner) {
            Some(Node::Child { slot, .. }) => slot.in_transaction(),
            _ => false,
        }
    }
}
