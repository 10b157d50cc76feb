//! States that children are about to go on from, or do: the store does not let go of these.
//!
//! What a child has stored last is kept anyway. After a rollback it stands on an older state, and until something that
//! follows that is in the store, nothing there says so.
//!
//! *Invariant.* What is stood on when it is looked for stays, whoever makes room meanwhile, and whoever has begun to.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::Journal;
use crate::checkpoint::{Retained, Retention, Wall};
use crate::error::StoreError;
use crate::id::{CheckpointId, ChildPath};

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// By how many rollbacks that are under way.
    held: Mutex<HashMap<CheckpointId, usize>>,
    /// Of children whose states the store has not taken since they returned to these.
    left: Mutex<HashMap<ChildPath, CheckpointId>>,
    /// Whether there are any: each step that is stored asks.
    has_left: AtomicBool,
    /// Whoever lets go of something has this.
    pub(super) retaining: Mutex<()>,
}

/// What a rollback may return to. It is held until this is dropped.
pub(crate) struct Footing {
    journal: Arc<Journal>,
    ids: Vec<CheckpointId>,
}

impl Drop for Footing {
    fn drop(&mut self) {
        let mut held = self.journal.standing.held.lock();
        for id in &self.ids {
            if let Some(count) = held.get_mut(id) {
                *count -= 1;
                if *count == 0 {
                    held.remove(id);
                }
            }
        }
    }
}

impl Journal {
    /// From now on the store keeps these, if it has them once this has ended.
    pub(crate) async fn hold(
        self: &Arc<Self>,
        runtime: &Handle,
        ids: impl IntoIterator<Item = CheckpointId>,
    ) -> Footing {
        let footing = Footing { journal: Arc::clone(self), ids: ids.into_iter().collect() };
        {
            let mut held = self.standing.held.lock();
            for id in &footing.ids {
                *held.entry(*id).or_default() += 1;
            }
        }
        if self.standing.retaining.try_lock().is_none() {
            // Whoever has begun without them, in a thread that may wait for files, has to end first.
            let journal = Arc::clone(self);
            let ended = runtime.spawn_blocking(move || drop(journal.standing.retaining.lock()));
            drop(ended.await);
        }
        footing
    }

    /// The store has not taken what this child has become since it has returned to that, and it goes on from there.
    pub(crate) fn stands_on(&self, child: &ChildPath, id: CheckpointId) {
        let mut left = self.standing.left.lock();
        left.insert(child.clone(), id);
        self.standing.has_left.store(true, Ordering::Release);
    }

    /// The store has what this child has become since, or the child is gone.
    pub(crate) fn stands_by_itself(&self, child: &ChildPath) {
        if !self.standing.has_left.load(Ordering::Acquire) {
            return;
        }
        let mut left = self.standing.left.lock();
        left.remove(child);
        self.standing.has_left.store(!left.is_empty(), Ordering::Release);
    }

    /// Has the store let go of what is not kept, and on which nobody stands. May block on files.
    pub(super) fn retain(&self, keep: Retention, now: Wall) -> Result<Retained, StoreError> {
        let _alone = self.standing.retaining.lock();
        let mut held: HashSet<_> = self.standing.held.lock().keys().copied().collect();
        held.extend(self.standing.left.lock().values());
        self.store.retain_besides(keep, now, &held)
    }
}
