//! Children that were made from templates while the system ran, which every process makes again.
//!
//! *Invariant.* A child of this kind is in the journal before it begins, until it is gone. What the store holds of
//! others that had its path before is not its.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::Notify;

use super::Journal;
use super::line::Line;
use super::state::State;
use crate::checkpoint::{Batch, Commit, Durability, Listed, Receipt};
use crate::error::StoreError;
use crate::fate::Fate;
use crate::id::{CheckpointId, ChildPath};

/// How a child is made again.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) child: ChildPath,
    /// The name of the template; its supervisor is the parent of the child.
    pub(crate) template: Arc<str>,
    /// As text.
    pub(crate) arguments: String,
    /// The states that were in the store under its path before it: another's.
    pub(crate) before: BTreeSet<CheckpointId>,
}

/// Distinguishes a child from those that have its path before and after it.
pub(crate) type Serial = u64;

/// Why a path is not free.
pub(crate) enum Taken {
    /// There is a child.
    Stands,
    /// It is being started, or has just ended: this tells of a change.
    Moves(Arc<Notify>),
}

struct Child {
    serial: Serial,
    made: Made,
    stands: bool,
}

/// The end of a child, on its way into the store. Its path is free once the store has answered, or nobody waits.
#[must_use = "a child has not ended until the store says so"]
pub(crate) struct Unmaking {
    commit: Commit,
    journal: Arc<Journal>,
    child: ChildPath,
}

impl Unmaking {
    /// Once the store has answered. When it has refused this, the next process makes the child again.
    pub(crate) async fn done(mut self) -> Result<(), StoreError> {
        let commit = std::mem::replace(&mut self.commit, Commit::ready(Ok(Receipt::default())));
        let result = commit.await.map(drop);
        if let Err(error) = &result {
            self.journal.note_failure(error);
            tracing::warn!(target: "mainstay", child = %self.child, %error, "the end of a child was not written");
        }
        result
    }
}

impl Drop for Unmaking {
    fn drop(&mut self) {
        let mut state = self.journal.state.lock();
        state.children.leaving.remove(&self.child);
        state.children.changed.notify_waiters();
    }
}

/// See the [module](self).
#[derive(Default)]
pub(super) struct Children {
    by_path: BTreeMap<ChildPath, Child>,
    /// Whose end the store has not answered yet: until then it may still take what they have left.
    leaving: BTreeSet<ChildPath>,
    changed: Arc<Notify>,
}

impl Children {
    /// Takes up what was read: it stands.
    pub(super) fn put(&mut self, serial: Serial, made: Made) {
        self.by_path.insert(made.child.clone(), Child { serial, made, stands: true });
    }

    pub(super) fn remove(&mut self, child: &ChildPath) {
        self.by_path.remove(child);
        self.changed.notify_waiters();
    }

    pub(super) fn has(&self, child: &ChildPath) -> bool {
        self.by_path.contains_key(child)
    }

    pub(super) fn len(&self) -> usize {
        self.by_path.len()
    }

    /// The oldest first.
    pub(super) fn all(&self) -> Vec<(Serial, &Made)> {
        let mut all: Vec<_> = self.by_path.values().map(|it| (it.serial, &it.made)).collect();
        all.sort_by_key(|(serial, _)| *serial);
        all
    }

    /// Forgets the states that are no more.
    pub(super) fn retain_before(&mut self, is_there: impl Fn(CheckpointId) -> bool) {
        for child in self.by_path.values_mut() {
            child.made.before.retain(|id| is_there(*id));
        }
    }

    fn at(&mut self, path: &ChildPath, serial: Serial) -> Option<&mut Child> {
        self.by_path.get_mut(path).filter(|child| child.serial == serial)
    }
}

impl From<&Made> for Line {
    fn from(made: &Made) -> Self {
        Self::Made {
            child: made.child.clone(),
            template: Arc::clone(&made.template),
            arguments: made.arguments.clone(),
            before: made.before.iter().copied().collect(),
        }
    }
}

impl State {
    /// A child is gone, as was read. What it had not come to ended with it.
    pub(super) fn unmakes(&mut self, child: &ChildPath) {
        let left: Vec<_> = self
            .opened()
            .filter(|open| open.child == *child)
            .map(|it| Arc::clone(&it.key))
            .collect();
        for key in left {
            self.ends(key, Fate::Stopped);
        }
        self.lets_go_of(child);
    }
}

impl Journal {
    /// A child is about to begin: nothing is started before the store has answered.
    pub(crate) fn makes(&self, made: Made) -> Result<(Serial, Commit), Taken> {
        let mut state = self.state.lock();
        if let Some(child) = state.children.by_path.get(&made.child) {
            let changed = Arc::clone(&state.children.changed);
            return Err(if child.stands { Taken::Stands } else { Taken::Moves(changed) });
        }
        if state.children.leaving.contains(&made.child) {
            return Err(Taken::Moves(Arc::clone(&state.children.changed)));
        }
        let commit = self.commit(Batch::new(), &Line::from(&made), Durability::Sync);
        let serial = state.number();
        let path = made.child.clone();
        state.children.by_path.insert(path, Child { serial, made, stands: false });
        Ok((serial, commit))
    }

    /// It has begun; or its id is free, and it has not ended yet.
    pub(crate) fn stands(&self, child: &ChildPath, serial: Serial, stands: bool) {
        let mut state = self.state.lock();
        if let Some(child) = state.children.at(child, serial) {
            child.stands = stands;
        }
        state.children.changed.notify_waiters();
    }

    /// Whether a child of a template has this path, or is about to.
    pub(crate) fn has_made(&self, child: &ChildPath) -> bool {
        self.state.lock().children.by_path.contains_key(child)
    }

    /// Whether it is being started, or has just ended.
    pub(crate) fn moves(&self, child: &ChildPath) -> bool {
        let state = self.state.lock();
        let children = &state.children;
        children.leaving.contains(child)
            || children.by_path.get(child).is_some_and(|child| !child.stands)
    }

    /// It is gone, or did not begin, and all its requests have their fates: no process makes it again. `None` when
    /// that was said already.
    pub(crate) fn unmakes(self: &Arc<Self>, child: &ChildPath, serial: Serial) -> Option<Unmaking> {
        let mut state = self.state.lock();
        state.children.at(child, serial)?;
        let line = Line::Unmade { child: child.clone() };
        let commit = self.commit(Batch::new(), &line, Durability::Sync);
        state.lets_go_of(child);
        state.children.leaving.insert(child.clone());
        Some(Unmaking { commit, journal: Arc::clone(self), child: child.clone() })
    }

    /// The children that are to be made again, the oldest first.
    pub(crate) fn made(&self) -> Vec<(Serial, Made)> {
        let state = self.state.lock();
        state.children.all().into_iter().map(|(serial, made)| (serial, made.clone())).collect()
    }

    /// The states of a child in the store, the newest first, without those of others that had its path before.
    pub(crate) fn states(&self, child: &ChildPath) -> Result<Vec<Listed>, StoreError> {
        let mut all = self.store.checkpoints(child)?;
        let state = self.state.lock();
        if let Some(of) = state.children.by_path.get(child) {
            all.retain(|listed| !of.made.before.contains(&listed.checkpoint.id));
        }
        Ok(all)
    }

    /// Whether this is the state of another that had the child's path before.
    pub(crate) fn is_of_another(&self, child: &ChildPath, id: CheckpointId) -> bool {
        let state = self.state.lock();
        state.children.by_path.get(child).is_some_and(|it| it.made.before.contains(&id))
    }
}
