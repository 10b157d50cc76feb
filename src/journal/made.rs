//! Children that were made from templates while the system ran, which every process makes again.
//!
//! *Invariant.* A child of this kind is in the journal before it begins, until it is gone. What the store holds of
//! others that had its path before is not its.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tokio::sync::watch;

use super::Journal;
use super::line::Line;
use super::state::{Aside, Known, State, quarantined};
use crate::checkpoint::store::Item;
use crate::checkpoint::{Batch, Commit, Durability, Listed, Receipt, Wall};
use crate::error::StoreError;
use crate::fate::{Fate, Trail};
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

/// Why a child is not made.
pub(crate) enum Taken {
    /// There is a child.
    Stands,
    /// It is being started, or has just ended: this ends with the next change of that, also with one that comes
    /// before anybody waits for it.
    Moves(NextChange),
    /// What others have left under its path cannot be read.
    Unreadable(StoreError),
}

/// See [`Taken::Moves`].
pub(crate) struct NextChange(watch::Receiver<()>);

impl NextChange {
    pub(crate) async fn come(mut self) {
        // Nothing is ever sent: the other end goes.
        while self.0.changed().await.is_ok() {}
    }
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
        state.children.changed(&self.child);
    }
}

/// See the [module](self).
#[derive(Default)]
pub(super) struct Children {
    by_path: BTreeMap<ChildPath, Child>,
    /// Whose end the store has not answered yet: until then it may still take what they have left.
    leaving: BTreeSet<ChildPath>,
    /// For a change of which path somebody waits. Who waits holds the other end, since before the lock was let go of.
    waiting: BTreeMap<ChildPath, watch::Sender<()>>,
    /// Of requests that were set aside and are being released: whose, and whether that child has ended for good since.
    pub(super) releasing: HashMap<u64, (ChildPath, bool)>,
    /// While a journal is read: the places of the requests that each path has accepted, also of those that have
    /// ended since.
    read: HashMap<ChildPath, Vec<u64>>,
}

impl Children {
    /// Takes up what was read: it stands.
    pub(super) fn put(&mut self, serial: Serial, made: Made) {
        self.by_path.insert(made.child.clone(), Child { serial, made, stands: true });
    }

    pub(super) fn remove(&mut self, child: &ChildPath) {
        self.by_path.remove(child);
        self.changed(child);
    }

    /// A request to this child is open, in this place, as was read.
    pub(super) fn note_read(&mut self, child: &ChildPath, place: u64) {
        self.read.entry(child.clone()).or_default().push(place);
    }

    /// All is read.
    pub(super) fn has_read(&mut self) {
        self.read = HashMap::new();
    }

    /// Whoever waits for this path looks again.
    fn changed(&mut self, child: &ChildPath) {
        drop(self.waiting.remove(child));
    }

    fn next_change(&mut self, child: &ChildPath) -> NextChange {
        let waiting = self.waiting.entry(child.clone()).or_insert_with(|| watch::Sender::new(()));
        NextChange(waiting.subscribe())
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
            again: false,
        }
    }
}

impl Aside {
    /// The record that says so, behind that of its acceptance, which has all that had failed.
    pub(super) fn line(&self) -> Line {
        let mut line = quarantined(&self.open.key, Trail::default(), self.at);
        if let Line::Fated { deleted, .. } = &mut line {
            *deleted = self.deleted;
        }
        line
    }
}

impl Known {
    /// Of one that was set aside.
    pub(super) fn with_aside(&mut self, then: impl FnOnce(&mut Aside)) {
        if let Self::Aside(_, aside) = self {
            then(aside);
        }
    }
}

impl State {
    /// A child is gone, as was read. What it had not come to ended with it.
    pub(super) fn unmakes(&mut self, child: &ChildPath, deleted: bool) {
        for place in self.children.read.remove(child).unwrap_or_default() {
            if let Some(key) = self.open_at(place).map(|open| Arc::clone(&open.key)) {
                self.ends(key, Fate::Stopped);
            }
        }
        self.is_gone(child, deleted);
    }

    /// The records that say who was made from templates, for a journal that is written anew.
    pub(super) fn made_lines(&self) -> Vec<Line> {
        let mut lines: Vec<_> = self.children.all().into_iter().map(|(_, it)| it.into()).collect();
        for line in &mut lines {
            if let Line::Made { again, .. } = line {
                *again = true;
            }
        }
        lines
    }

    fn is_gone(&mut self, child: &ChildPath, deleted: bool) {
        self.lets_go_of(child);
        if deleted {
            self.each_aside(|aside| aside.deleted |= aside.open.child == *child);
            let releasing = self.children.releasing.values_mut();
            releasing.for_each(|(whose, gone)| *gone |= whose == child);
        }
    }
}

impl Journal {
    /// A child is about to begin: nothing is started before the store has answered. What the store has of its path
    /// is of others, as long as nobody has that: both is looked at in one step, so that nobody can have come and
    /// gone in between.
    pub(crate) fn makes(&self, mut made: Made) -> Result<(Serial, Commit), Taken> {
        let mut state = self.state.lock();
        let stands = state.children.by_path.get(&made.child).map(|child| child.stands);
        if stands == Some(true) {
            return Err(Taken::Stands);
        }
        if stands.is_some() || state.children.leaving.contains(&made.child) {
            return Err(Taken::Moves(state.children.next_change(&made.child)));
        }
        let left = self.store.checkpoints(&made.child).map_err(Taken::Unreadable)?;
        made.before.extend(left.iter().map(|listed| listed.checkpoint.id));
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
        state.children.changed(child);
    }

    /// Whether a child of a template has this path, or is about to.
    pub(crate) fn has_made(&self, child: &ChildPath) -> bool {
        self.state.lock().children.by_path.contains_key(child)
    }

    /// It is gone, or did not begin, and all its requests have their fates: no process makes it again. `None` when
    /// that was said already.
    pub(crate) fn unmakes(self: &Arc<Self>, child: &ChildPath, serial: Serial) -> Option<Unmaking> {
        // It lets go, so a full store takes it.
        self.unmakes_with(child, serial, (Batch::new().making_room(true), false))
    }

    /// As [`Journal::unmakes`], of one that somebody has let end: its states go with it, as far as nobody needs them,
    /// and what was set aside of it is not for another of its path.
    pub(crate) fn clears(self: &Arc<Self>, child: &ChildPath, serial: Serial) -> Option<Unmaking> {
        // A full store takes it, or nobody could be let go of to make room.
        let batch = Batch::new().making_room(true);
        let batch = batch.item(Item::Clear(child.clone(), Wall::from(self.clock.wall())));
        self.unmakes_with(child, serial, (batch, true))
    }

    fn unmakes_with(
        self: &Arc<Self>,
        child: &ChildPath,
        serial: Serial,
        (batch, deleted): (Batch, bool),
    ) -> Option<Unmaking> {
        let mut state = self.state.lock();
        state.children.at(child, serial)?;
        self.stands_by_itself(child);
        let line = Line::Unmade { child: child.clone(), deleted };
        let commit = self.commit(batch, &line, Durability::Sync);
        state.is_gone(child, deleted);
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
