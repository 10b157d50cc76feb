//! Finding acts without a look at all of them.
//!
//! *Invariant.* What is found costs what it is, however much is remembered.

use std::ops::Bound;
use std::sync::Arc;

use super::{Entry, Ledger};

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

    /// The act whose tool is asked under this key now.
    pub(crate) fn asked_under(&self, key: &str) -> Option<&Entry> {
        let (name, _) = key.rsplit_once('-')?;
        let name = name.rsplit_once('/').map_or(name, |(_, name)| name);
        let entry = self.get(name.parse().ok()?)?;
        (entry.idempotency_key() == key).then_some(entry)
    }
}
