//! The end of a process, as its store sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use mainstay::checkpoint::{
    Batch, Commit, Compacted, Durability, JournalRecord, Listed, RecoveryLine, Retained, Retention,
    Scope, Store, StoreInfo, Stored, Wall,
};
use mainstay::error::StoreError;
use mainstay::id::{CheckpointId, ChildPath};

/// A store that takes so many commits, and then the machine is dead.
#[derive(Debug)]
pub(super) struct Dying {
    inner: Arc<dyn Store>,
    pub(super) left: AtomicU32,
    /// The commit after those is made, too, but nobody hears of it.
    last: AtomicBool,
}

impl Dying {
    /// After `commits` more; then one more is made that nobody hears of, if `last` says so.
    pub(super) fn new(inner: &Arc<dyn Store>, commits: u32, last: bool) -> Self {
        Self {
            inner: Arc::clone(inner),
            left: AtomicU32::new(commits),
            last: AtomicBool::new(last),
        }
    }

    /// From now on so many more.
    #[allow(dead_code, reason = "not each of the tests that share this waits for its start")]
    pub(super) fn dies_after(&self, commits: u32) {
        self.left.store(commits, Ordering::SeqCst);
    }
}

impl Store for Dying {
    fn commit(&self, batch: Batch, durability: Durability) -> Commit {
        let alive = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
            .is_ok();
        if alive {
            return self.inner.commit(batch, durability);
        }
        if self.last.swap(false, Ordering::SeqCst) {
            drop(self.inner.commit(batch, durability));
        }
        let (answerer, commit) = Commit::pending();
        std::mem::forget(answerer);
        commit
    }

    fn children(&self) -> Result<Vec<ChildPath>, StoreError> {
        self.inner.children()
    }

    fn checkpoints(&self, child: &ChildPath) -> Result<Vec<Listed>, StoreError> {
        self.inner.checkpoints(child)
    }

    fn find(&self, id: CheckpointId) -> Result<Listed, StoreError> {
        self.inner.find(id)
    }

    fn load(&self, id: CheckpointId) -> Result<Stored, StoreError> {
        self.inner.load(id)
    }

    fn lines(&self, scope: Scope, at: &ChildPath) -> Result<Vec<Arc<RecoveryLine>>, StoreError> {
        self.inner.lines(scope, at)
    }

    fn scan(
        &self,
        stream: &str,
        from: u64,
        limit: usize,
    ) -> Result<Vec<JournalRecord>, StoreError> {
        self.inner.scan(stream, from, limit)
    }

    fn streams(&self) -> Result<Vec<(Arc<str>, u64)>, StoreError> {
        self.inner.streams()
    }

    fn quarantined(&self) -> Result<Vec<Listed>, StoreError> {
        self.inner.quarantined()
    }

    fn info(&self) -> Result<StoreInfo, StoreError> {
        self.inner.info()
    }

    fn retain(&self, keep: Retention, now: Wall) -> Result<Retained, StoreError> {
        self.inner.retain(keep, now)
    }

    fn compact(&self) -> Result<Compacted, StoreError> {
        self.inner.compact()
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.inner.flush()
    }
}
