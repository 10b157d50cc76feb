//! What keeps the requests that it accepts, and how those are taken up again.
//!
//! *Invariant.* Only what keeps its requests is asked to do one that an earlier process has accepted.

use std::any::Any;
use std::sync::Arc;

use super::{Entry, Registry};
use crate::fate::Fate;
use crate::id::ChildPath;
use crate::policy::deaths::PROCESS_DEATHS;
use crate::slot::Look;
use crate::spec::Codec;

impl Registry {
    /// As [`Registry::recorded`], of what keeps the requests that it accepts.
    pub(crate) fn durable_at(
        &self,
        path: &ChildPath,
    ) -> Option<(Arc<dyn Any + Send + Sync>, Codec)> {
        let keeps = match self.get(path)? {
            Entry::Child { slot, .. } => slot.spec().durable,
            Entry::Group(group) => group.durable.is_some(),
            Entry::Supervisor(_) => false,
        };
        self.recorded(path).filter(|_| keeps)
    }

    /// Every child that is durable, in the order of their paths.
    pub(crate) fn durable(&self) -> Vec<Arc<dyn Look>> {
        self.all_durable(|_| true)
    }

    /// The child with this path, or those below it, as far as they are durable, in the order of their paths.
    pub(crate) fn durable_below(&self, at: &ChildPath) -> Vec<Arc<dyn Look>> {
        // One among many is not looked for among all.
        if let Some(entry @ Entry::Child { .. }) = self.get(at) {
            return durable(&entry).into_iter().collect();
        }
        let is_below =
            |path: &str| path.strip_prefix(at.as_str()).is_some_and(|it| it.starts_with('/'));
        self.all_durable(|path| is_below(path.as_str()))
    }

    fn all_durable(&self, is_wanted: impl Fn(&ChildPath) -> bool) -> Vec<Arc<dyn Look>> {
        let wanted = self.entries.iter().filter(|entry| is_wanted(entry.key()));
        let mut found: Vec<_> = wanted.filter_map(|entry| durable(entry.value())).collect();
        found.sort_unstable_by(|one, other| one.path().cmp(other.path()));
        found
    }

    /// Every group that is durable, in the order of their paths.
    pub(crate) fn durable_groups(&self) -> Vec<ChildPath> {
        let durable =
            |entry: &Entry| matches!(entry, Entry::Group(group) if group.durable.is_some());
        let found = self.entries.iter().filter(|entry| durable(entry.value()));
        let mut found: Vec<_> = found.map(|entry| entry.key().clone()).collect();
        found.sort();
        found
    }

    /// How often in a row the process may end with a request in hand that what has this path has accepted.
    pub(crate) fn process_deaths(&self, path: &ChildPath) -> u32 {
        match self.get(path) {
            Some(Entry::Child { slot, .. }) => slot.spec().process_deaths,
            Some(Entry::Group(group)) => group.process_deaths,
            Some(Entry::Supervisor(_)) | None => PROCESS_DEATHS,
        }
    }

    /// Whether somebody may work on what this path has accepted whose work may not be repeated.
    pub(crate) fn acts(&self, path: &ChildPath) -> bool {
        match self.get(path) {
            Some(Entry::Child { slot, .. }) => !slot.spec().effect.is_replay_safe(),
            Some(Entry::Group(group)) => group.group.acts(),
            // Nobody knows what was there.
            Some(Entry::Supervisor(_)) | None => true,
        }
    }

    /// A request of before has this fate without being handed out: it counts as accepted here, too.
    pub(crate) fn count_ended(&self, path: &ChildPath, fate: Fate) {
        match self.get(path) {
            Some(Entry::Child { slot, .. }) => slot.count_ended(fate),
            Some(Entry::Group(group)) => group.group.count_ended(fate),
            Some(Entry::Supervisor(_)) | None => {}
        }
    }
}

fn durable(entry: &Entry) -> Option<Arc<dyn Look>> {
    match entry {
        Entry::Child { slot, .. } if slot.spec().durable => Some(Arc::clone(slot)),
        _ => None,
    }
}
