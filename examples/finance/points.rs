//! Numbered points at which the process can be made to end: every commit of the runtime's store
//! (journal, ledger, checkpoint) and every act of the database.
//!
//! *Invariant.* Nothing else changes: a commit goes to the store in the order it came, and its answer
//! comes back as it is. Only after one that failed, or after a failure of the database, there is no other: a smaller one
//! might still have room, and say that a request has failed for which the next process will have room again.

use std::collections::HashSet;
use std::io::{Write as _, stderr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mainstay::checkpoint::{
    Batch, Commit, Compacted, Durability, JournalRecord, Listed, RecoveryLine, Retained, Retention,
    Scope, Store, StoreInfo, Stored, Wall,
};
use mainstay::error::StoreError;
use mainstay::id::{CheckpointId, ChildPath};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::mishaps::Mishaps;

/// Counts points, and ends the process at one of them.
#[derive(Debug, Default)]
pub(crate) struct Points {
    die_at: Option<u64>,
    die_after: bool,
    await_kill: bool,
    tell_accepted: bool,
    passed: AtomicU64,
    /// The last commit of the store that survives a power cut.
    durable: AtomicU64,
    failure: Mutex<Option<Failure>>,
    told: Notify,
}

/// What cannot be used any more, so that the run ends.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The runtime's store.
    #[error(transparent)]
    Store(StoreError),
    /// What is written beside it, in words that name it.
    #[error("{0}")]
    Beside(String),
}

impl Failure {
    /// What the runtime is told of its store, which is whole in the second case.
    fn of_store(self) -> StoreError {
        match self {
            Self::Store(error) => error,
            Self::Beside(cause) => StoreError::Poisoned { store: "of this run".to_owned(), cause },
        }
    }
}

impl Points {
    pub(crate) fn new(mishaps: &Mishaps) -> Arc<Self> {
        let Mishaps { die_at, die_after, await_kill, tell_accepted, .. } = *mishaps;
        Arc::new(Self { die_at, die_after, await_kill, tell_accepted, ..Self::default() })
    }

    /// A request was accepted: from here on it must not be lost.
    pub(crate) fn accepted(&self, key: &str) {
        if self.tell_accepted {
            let _ = writeln!(stderr(), "accepted {key}");
        }
    }

    /// The process ends here: nothing is written, closed or dropped any more.
    fn end(&self) -> ! {
        if self.await_kill {
            let _ = writeln!(stderr(), "waits to be killed");
            loop {
                std::thread::park();
            }
        }
        std::process::abort()
    }

    /// A point is reached; its number.
    fn before(&self) -> u64 {
        let point = self.passed.fetch_add(1, Ordering::SeqCst) + 1;
        if self.die_at == Some(point) && !self.die_after {
            self.end();
        }
        point
    }

    /// What the point stands for is done.
    fn after(&self, point: u64) {
        if self.die_at == Some(point) && self.die_after {
            self.end();
        }
    }

    /// Does something that is a point.
    pub(crate) fn pass<T>(&self, act: impl FnOnce() -> T) -> T {
        let point = self.before();
        let result = act();
        self.after(point);
        result
    }

    /// How many commits the store cannot lose.
    pub(crate) fn durable(&self) -> u64 {
        self.durable.load(Ordering::SeqCst)
    }

    /// The store cannot lose what it had after so many commits.
    pub(crate) fn reach(&self, commits: u64) {
        self.durable.fetch_max(commits, Ordering::SeqCst);
    }

    pub(crate) fn passed(&self) -> u64 {
        self.passed.load(Ordering::SeqCst)
    }

    /// What has failed first, if anything has.
    pub(crate) fn failed(&self) -> Option<Failure> {
        self.failure.lock().clone()
    }

    /// Waits until something has failed, if it ever does.
    pub(crate) async fn failure(&self) -> Failure {
        loop {
            let told = self.told.notified();
            if let Some(failure) = self.failed() {
                return failure;
            }
            told.await;
        }
    }

    /// The run ends, and until then the store takes nothing more.
    pub(crate) fn fail(&self, failure: Failure) {
        self.failure.lock().get_or_insert(failure);
        self.told.notify_waiters();
    }
}

/// A store whose commits are points, and which tells of its failures. After one, here or beside it, it takes
/// nothing more.
#[derive(Debug)]
pub(crate) struct Pointed {
    inner: Arc<dyn Store>,
    points: Arc<Points>,
    runtime: Handle,
}

impl Pointed {
    /// Within a runtime.
    pub(crate) fn new(inner: Arc<dyn Store>, points: Arc<Points>) -> Self {
        Self { inner, points, runtime: Handle::current() }
    }
}

impl Store for Pointed {
    fn commit(&self, batch: Batch, durability: Durability) -> Commit {
        if let Some(failure) = self.points.failed() {
            return Commit::ready(Err(failure.of_store()));
        }
        let point = self.points.before();
        let commit = self.inner.commit(batch, durability);
        let (answerer, answer) = Commit::pending();
        let points = Arc::clone(&self.points);
        self.runtime.spawn(async move {
            let result = commit.await;
            match &result {
                Ok(receipt) => {
                    if durability == Durability::Sync {
                        points.reach(receipt.sequence);
                    }
                    points.after(point);
                }
                Err(error) => points.fail(Failure::Store(error.clone())),
            }
            answerer.answer(result);
        });
        answer
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
        self.points.pass(|| self.inner.retain(keep, now))
    }

    fn retain_besides(
        &self,
        keep: Retention,
        now: Wall,
        held: &HashSet<CheckpointId>,
    ) -> Result<Retained, StoreError> {
        self.points.pass(|| self.inner.retain_besides(keep, now, held))
    }

    fn live(&self) -> Result<u64, StoreError> {
        self.inner.live()
    }

    fn taken_up(&self) {
        self.inner.taken_up();
    }

    fn compact(&self) -> Result<Compacted, StoreError> {
        self.points.pass(|| self.inner.compact())
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.inner.flush()
    }
}
