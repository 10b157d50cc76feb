//! A store in memory that fails, or does not answer, when the test says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mainstay::checkpoint::{
    Batch, Commit, Compacted, Durability, JournalRecord, Listed, MemoryStore, Receipt,
    RecoveryLine, Retained, Retention, Scope, Store, StoreInfo, Stored, Wall,
};
use mainstay::error::StoreError;
use mainstay::id::{CheckpointId, ChildPath};
use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

/// What a commit comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mood {
    #[default]
    Well,
    /// Nothing is written any more.
    #[allow(dead_code, reason = "not every test file needs it")]
    Full,
    /// Commits are taken, and neither made nor answered until it is well again.
    Silent,
}

type Waits = (Batch, Durability, Box<dyn FnOnce(Result<Receipt, StoreError>) + Send>);

#[derive(Debug, Default)]
pub(super) struct Moody {
    inner: MemoryStore,
    mood: Mutex<Mood>,
    waiting: Mutex<Waiting>,
    /// Commits that are still made before it falls silent; more than there ever are, if it does not.
    left: AtomicUsize,
    /// So many of the next commits are refused.
    refused: AtomicUsize,
    changed: Notify,
    tidying: Tidying,
}

/// Whether whoever tidies is held up.
#[derive(Debug, Default)]
struct Tidying {
    held: Mutex<bool>,
    free: Condvar,
    begun: Notify,
}

#[derive(Default)]
struct Waiting(Vec<Waits>);

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} commits", self.0.len())
    }
}

impl Moody {
    pub(super) fn new() -> Arc<Self> {
        let moody = Self::default();
        moody.left.store(usize::MAX, Ordering::SeqCst);
        Arc::new(moody)
    }

    /// Falls silent after so many more commits.
    #[allow(dead_code, reason = "not every test file needs it")]
    pub(super) fn silent_after(&self, commits: usize) {
        self.left.store(commits, Ordering::SeqCst);
    }

    /// Refuses so many of the next commits.
    #[allow(dead_code, reason = "not every test file needs it")]
    pub(super) fn refuse(&self, commits: usize) {
        self.refused.store(commits, Ordering::SeqCst);
    }

    /// Whether it still refuses the next one.
    #[allow(dead_code, reason = "not every test file needs it")]
    pub(super) fn refuses(&self) -> bool {
        self.refused.load(Ordering::SeqCst) > 0
    }

    /// From now on. What waits for an answer gets it in order, unless it goes on being silent.
    pub(super) fn turn(&self, mood: Mood) {
        *self.mood.lock() = mood;
        self.left.store(usize::MAX, Ordering::SeqCst);
        if mood == Mood::Silent {
            return;
        }
        for (batch, durability, answer) in std::mem::take(&mut self.waiting.lock().0) {
            answer(match mood {
                Mood::Full => Err(full()),
                _ => self.inner.commit(batch, durability).wait(),
            });
        }
    }

    /// It is well, and refuses of what waits for an answer the last one.
    #[allow(dead_code, reason = "not every test file needs it")]
    pub(super) fn refuse_last(&self) {
        let last = self.waiting.lock().0.pop();
        self.turn(Mood::Well);
        if let Some((_, _, answer)) = last {
            answer(Err(full()));
        }
    }

    /// The process has ended: what waits is not made, and the next one finds it well.
    #[allow(dead_code, reason = "not every test file needs it")]
    pub(super) fn lose(&self) {
        self.waiting.lock().0.clear();
        self.turn(Mood::Well);
    }

    /// From now on whoever tidies it is held up, or not any more.
    #[allow(dead_code, reason = "not every test file needs it")]
    pub(super) fn hold_tidying(&self, held: bool) {
        *self.tidying.held.lock() = held;
        self.tidying.free.notify_all();
    }

    /// Waits until somebody is held up.
    #[allow(dead_code, reason = "not every test file needs it")]
    pub(super) async fn tidies(&self) {
        self.tidying.begun.notified().await;
    }

    /// Waits until so many commits wait for an answer.
    #[allow(dead_code, reason = "not every test file needs it")]
    pub(super) async fn held(&self, commits: usize) {
        loop {
            let changed = self.changed.notified();
            if self.waiting.lock().0.len() >= commits {
                return;
            }
            changed.await;
        }
    }
}

fn full() -> StoreError {
    StoreError::Refused { store: "moody".to_owned(), why: "no space left".to_owned() }
}

impl Store for Moody {
    fn commit(&self, batch: Batch, durability: Durability) -> Commit {
        let refused =
            self.refused.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if refused.is_ok() {
            return Commit::ready(Err(full()));
        }
        let mood = *self.mood.lock();
        let mood = match (mood, self.left.fetch_sub(1, Ordering::SeqCst)) {
            (Mood::Well, 0) => {
                self.turn(Mood::Silent);
                Mood::Silent
            }
            _ => mood,
        };
        match mood {
            Mood::Well => self.inner.commit(batch, durability),
            Mood::Full => Commit::ready(Err(full())),
            Mood::Silent => {
                let (answerer, commit) = Commit::pending();
                let answer = Box::new(move |result| answerer.answer(result));
                self.waiting.lock().0.push((batch, durability, answer));
                self.changed.notify_waiters();
                commit
            }
        }
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

    /// What tidies asks for its weight first.
    fn info(&self) -> Result<StoreInfo, StoreError> {
        let mut held = self.tidying.held.lock();
        while *held {
            self.tidying.begun.notify_one();
            self.tidying.free.wait(&mut held);
        }
        drop(held);
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
