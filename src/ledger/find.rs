//! Finding acts without a look at all of them.
//!
//! *Invariant.* What is found costs what it is, however much is remembered.

use std::ops::Bound;
use std::sync::Arc;

use super::{EffectStatus, Entry, Intent, Ledger};

impl Ledger {
    /// The tasks that have acted.
    pub(crate) fn acted(&self) -> impl Iterator<Item = &Arc<str>> {
        self.tasks.keys()
    }

    /// The acts of this task and of all that it asked for, and so on: whose keys begin with its own and a slash.
    pub(crate) fn below(&self, task: &str) -> impl Iterator<Item = &Entry> {
        let from = format!("{task}/");
        let nested = self.tasks.range::<str, _>((Bound::Included(&*from), Bound::Unbounded));
        let nested = nested.take_while(move |(other, _)| other.starts_with(&*from));
        let own = self.tasks.get(task).into_iter();
        own.chain(nested.map(|(_, keys)| keys)).flatten().filter_map(|key| self.entries.get(key))
    }

    /// What was done under the key of this act, and under those of these, and so on.
    pub(crate) fn parts(&self, entry: &Entry) -> Vec<&Entry> {
        let mut parts = Vec::new();
        let mut keys = vec![entry.idempotency_key()];
        while let Some(key) = keys.pop() {
            for part in self.below(&key).filter(|part| part.intent.kind.acts()) {
                // The key of an act of a task with a long one does not begin with that.
                if part.has_short_key() {
                    keys.push(part.idempotency_key());
                }
                parts.push(part);
            }
        }
        parts
    }

    /// Whether this asks somebody who does nothing but by others, under its key, as a sub-agent, and nothing that they have
    /// done stands: whoever undoes such a call is asked what it was asked before.
    pub(crate) fn has_done_nothing(&self, entry: &Entry) -> bool {
        let Intent { tool, request, undo, kind, .. } = &entry.intent;
        let is_by_others = kind.is_replay_safe()
            && undo.as_ref().is_some_and(|undo| undo.tool == *tool && undo.request == *request);
        let stands = |part: &&Entry| {
            let own = !matches!(part.status, EffectStatus::Rejected | EffectStatus::Compensated);
            let is_moot = part.status == EffectStatus::Intended && !part.is_owed();
            own && !is_moot && !self.has_done_nothing(part)
        };
        is_by_others && !self.parts(entry).iter().any(stands)
    }

    /// The act whose tool is asked under this key now.
    pub(crate) fn asked_under(&self, key: &str) -> Option<&Entry> {
        let (name, _) = key.rsplit_once('-')?;
        let name = name.rsplit_once('/').map_or(name, |(_, name)| name);
        let entry = self.get(name.parse().ok()?)?;
        (entry.idempotency_key() == key).then_some(entry)
    }
}
