//! Tasks that have ended without an answer, and owe it to the world that what they have done is undone.
//!
//! *Invariant.* A task owes nothing of which no act is known, and nothing once it acts anew: what it has done until
//! then is undone before that, or left to a person.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{EffectStatus, Entry, Ledger};

impl Ledger {
    /// Whether this task has ended without an answer, and is to be undone.
    pub(crate) fn owes(&self, task: &str) -> bool {
        self.owing.contains(task)
    }

    /// All that are.
    pub(crate) fn owing(&self) -> &BTreeSet<Arc<str>> {
        &self.owing
    }

    /// What is still to be undone of these, and is not begun with. Where the undoing has stopped it is a person's.
    pub(crate) fn owed(&self) -> Vec<&Entry> {
        let mut owed: Vec<&Entry> = Vec::new();
        for task in &self.owing {
            let acts = self.of_task(task);
            if !acts.iter().any(|entry| entry.stops()) {
                owed.extend(acts.into_iter().filter(|entry| entry.undoes()));
            }
        }
        owed.sort_by_key(|entry| entry.seq);
        owed
    }

    /// Whether that is another word than before.
    pub(super) fn note_owing(&mut self, task: &Arc<str>, owes: bool) -> bool {
        match owes && self.tasks.contains_key(task) {
            true => self.owing.insert(Arc::clone(task)),
            false => self.owing.remove(task),
        }
    }
}

impl Entry {
    /// Whether the undoing of its task has stopped at it, and a person was called.
    pub(crate) const fn stops(&self) -> bool {
        match self.status {
            EffectStatus::Left(_) | EffectStatus::Stuck(_) => true,
            EffectStatus::Unknown => self.intent.undo.is_none(),
            _ => false,
        }
    }

    /// Whether it is undone where its task is, which is not begun.
    pub(crate) fn undoes(&self) -> bool {
        let may_stand = matches!(
            self.status,
            EffectStatus::Confirmed(_) | EffectStatus::Failed(_) | EffectStatus::Intended
        );
        may_stand && self.intent.undo.is_some() && self.intent.kind.acts() && !self.status.stands()
    }
}
