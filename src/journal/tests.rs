//! What the journal claims, whatever the store answers, and when.

use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;

use super::*;
use crate::checkpoint::store::{Answerer, Item};
use crate::checkpoint::{
    Compacted, Draft, FileStore, JournalRecord, LineDraft, Listed, MemoryStore, Now, RecoveryLine,
    Retained, Retention, Scope, Snapshot, StoreInfo, Stored,
};
use crate::clock::TokioClock;
use crate::effects::Keep;
use crate::id::{CheckpointId, Incarnation};
use crate::ledger::{Happened, Input, Ledger};

/// A store that answers each commit when the test says how.
#[derive(Debug, Default)]
struct Asked {
    inner: MemoryStore,
    /// Who has asked where its journals end.
    readers: Mutex<Vec<std::thread::ThreadId>>,
    waiting: Mutex<Vec<Option<(Batch, Answerer)>>>,
}

impl Asked {
    fn answer(&self, nth: usize, made: bool) {
        let (batch, answerer) = self.waiting.lock()[nth].take().expect("it is answered once");
        answerer.answer(if made {
            self.inner.commit(batch, Durability::Sync).wait()
        } else {
            Err(StoreError::Refused { store: "disk".to_owned(), why: "full".to_owned() })
        });
    }
}

impl Store for Asked {
    fn commit(&self, batch: Batch, _: Durability) -> Commit {
        let (answerer, commit) = Commit::pending_of("disk".into());
        self.waiting.lock().push(Some((batch, answerer)));
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
        self.readers.lock().push(std::thread::current().id());
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

fn clock() -> Arc<dyn Clock> {
    Arc::new(TokioClock::new())
}

fn open(key: &str) -> Open {
    Open {
        child: ChildPath::new("desk/agent"),
        key: Arc::from(key),
        request: "\"what was asked\"".to_owned(),
        deadline: Some(7),
        trail: Trail::default(),
        budget: None,
        taken: 0,
        back: Back::default(),
        hand: Hand::default(),
        round: 0,
    }
}

fn withdraw(journal: &Arc<Journal>) -> Handed {
    journal.withdrawn(&Arc::from("one"), Durability::Sync)
}

#[tokio::test]
async fn a_key_that_was_withdrawn_is_free_whatever_the_store_has_answered_so_far() {
    let (store, journal) = with_one().await;
    let withdrawn = withdraw(&journal);
    assert_eq!(journal.known("one"), Some(Journaled::Open), "the store has not said so");
    let again = journal.accepted(open("one"), Durability::Sync).unwrap();
    assert!(journal.accepted(open("one"), Durability::Sync).is_none(), "it is under way");
    store.answer(1, true);
    withdrawn.await.unwrap();
    assert_eq!(journal.known("one"), None);
    store.answer(2, true);
    again.await.unwrap();
    assert_eq!(journal.known("one"), Some(Journaled::Open));
    let withdrawn = withdraw(&journal);
    store.answer(3, true);
    withdrawn.await.unwrap();
    // Nothing is open, so there is nothing to withdraw, nor to end.
    withdraw(&journal).await.unwrap();
    fate(&journal).await.unwrap();
    assert_eq!(store.waiting.lock().len(), 4);
    let (journal, _) = Journal::open(Arc::clone(&store) as Arc<dyn Store>, clock()).unwrap();
    assert_eq!((journal.known("one"), journal.open_requests().len()), (None, 0));
    drop(journal.accepted(open("one"), Durability::Sync).unwrap());
}

#[tokio::test]
async fn a_withdrawal_that_the_store_refuses_leaves_the_request_open() {
    for again in [false, true] {
        let (store, journal) = with_one().await;
        let withdrawn = withdraw(&journal);
        let accepted = again.then(|| journal.accepted(open("one"), Durability::Sync).unwrap());
        store.answer(1, false);
        withdrawn.await.unwrap_err();
        if let Some(accepted) = accepted {
            store.answer(2, false);
            accepted.await.unwrap_err();
        }
        assert_eq!(journal.known("one"), Some(Journaled::Open));
        let (read, _) = Journal::open(Arc::clone(&store) as Arc<dyn Store>, clock()).unwrap();
        assert_eq!(read.open_requests().len(), 1);
    }
}

fn done() -> Option<Journaled> {
    Some(Journaled::Fated(Fate::Done, Some("1".to_owned())))
}

fn fate(journal: &Arc<Journal>) -> Handed {
    let (key, reply) = (Arc::from("one"), Some("1".to_owned()));
    journal.fated(&key, Fate::Done, reply, None, (Batch::new(), Durability::Sync))
}

/// A journal with one request that is open for certain.
async fn with_one() -> (Arc<Asked>, Arc<Journal>) {
    let store = Arc::new(Asked::default());
    let (journal, _) = Journal::open(Arc::clone(&store) as Arc<dyn Store>, clock()).unwrap();
    let handed = journal.accepted(open("one"), Durability::Sync).unwrap();
    assert_eq!(journal.known("one"), None, "the store has not said so");
    assert!(journal.accepted(open("one"), Durability::Sync).is_none(), "it is under way");
    store.answer(0, true);
    handed.await.unwrap();
    assert_eq!(journal.known("one"), Some(Journaled::Open));
    (store, journal)
}

#[tokio::test(start_paused = true)]
async fn a_change_counts_when_the_store_has_said_so_also_when_nobody_waits() {
    let (store, journal) = with_one().await;
    drop(fate(&journal));
    assert_eq!(journal.known("one"), Some(Journaled::Open));
    store.answer(1, true);
    // What was left to the runtime is done before the clock moves.
    tokio::time::timeout(Duration::from_millis(1), std::future::pending::<()>()).await.unwrap_err();
    assert_eq!(journal.known("one"), done());
}

#[tokio::test(start_paused = true)]
async fn a_change_counts_also_when_it_was_left_on_a_thread_without_a_runtime() {
    let (store, journal) = with_one().await;
    let handed = fate(&journal);
    std::thread::spawn(move || drop(handed)).join().unwrap();
    store.answer(1, true);
    tokio::time::timeout(Duration::from_millis(1), std::future::pending::<()>()).await.unwrap_err();
    assert_eq!(journal.known("one"), done());
}

#[tokio::test]
async fn what_a_request_has_asked_for_is_found_whatever_has_become_of_it() {
    let (store, journal) = with_one().await;
    let nested = |journal: &Arc<Journal>, task: &str| -> Vec<_> {
        journal.nested(task).into_iter().map(|(key, done)| (key.to_string(), done)).collect()
    };
    let is = |done: bool| vec![("one/1".to_owned(), done)];
    for (nth, key) in ["one/1", "one/2", "one-/1"].into_iter().enumerate() {
        let accepted = journal.accepted(open(key), Durability::Sync).unwrap();
        // One is refused.
        store.answer(nth + 1, nth != 1);
        assert_eq!(accepted.await.is_ok(), nth != 1);
    }
    assert_eq!(nested(&journal, "one"), is(false));
    let key = Arc::<str>::from("one/1");
    let fated = |made: bool| {
        let reply = Some("1".to_owned());
        let batch = (Batch::new(), Durability::Sync);
        let handed = journal.fated(&key, Fate::Done, reply, None, batch);
        let last = store.waiting.lock().len() - 1;
        store.answer(last, made);
        handed
    };
    fated(false).await.unwrap_err();
    assert_eq!(nested(&journal, "one"), is(false));
    fated(true).await.unwrap();
    assert_eq!(nested(&journal, "one"), is(true));
    let (read, _) = Journal::open(Arc::clone(&store) as Arc<dyn Store>, clock()).unwrap();
    assert_eq!(nested(&read, "one"), is(true));
    assert_eq!(nested(&read, "one/1"), []);
    drop(journal.without(&[Arc::clone(&key)], Batch::new()).unwrap());
    assert_eq!(nested(&journal, "one"), []);
    assert_eq!(journal.state.lock().nested(), 1, "the one that is open, and nothing of the others");
}

#[tokio::test(start_paused = true)]
async fn a_change_that_was_refused_is_taken_back_to_what_is_certain() {
    for (first, second) in [(true, true), (true, false), (false, true), (false, false)] {
        let (store, journal) = with_one().await;
        let done_first = fate(&journal);
        let key = Arc::from("one");
        let then = journal.fated(&key, Fate::Failed, None, None, (Batch::new(), Durability::Sync));
        store.answer(1, first);
        assert_eq!(done_first.await.is_ok(), first);
        let certain = if first { done() } else { Some(Journaled::Open) };
        assert_eq!(journal.known("one"), certain, "{first} {second}");
        store.answer(2, second);
        assert_eq!(then.await.is_ok(), second);
        let failed = Some(Journaled::Fated(Fate::Failed, None));
        assert_eq!(journal.known("one"), if second { failed } else { certain });
        let (again, _) = Journal::open(Arc::clone(&store) as Arc<dyn Store>, clock()).unwrap();
        assert_eq!(again.known("one"), journal.known("one"), "{first} {second}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_was_written_anew_with_a_refused_change_unsays_it() {
    let (store, journal) = with_one().await;
    let refused = fate(&journal);
    // As it is when it has grown.
    journal.written.store(10_000, Ordering::Relaxed);
    let tidied = tokio::spawn({
        let journal = Arc::clone(&journal);
        async move { journal.tidy(Vec::new).await }
    });
    tokio::time::timeout(Duration::from_millis(1), std::future::pending::<()>()).await.unwrap_err();
    store.answer(1, false);
    refused.await.unwrap_err();
    // What unsays it: that it was, and that it is open.
    (2..=4).for_each(|nth| store.answer(nth, true));
    while store.waiting.lock().len() < 6 {
        tokio::task::yield_now().await;
    }
    store.answer(5, true);
    tidied.await.unwrap().unwrap();
    assert_eq!(journal.known("one"), Some(Journaled::Open));
    let (again, _) = Journal::open(Arc::clone(&store) as Arc<dyn Store>, clock()).unwrap();
    assert_eq!(again.known("one"), Some(Journaled::Open));
    assert_eq!(again.open_requests()[0].deadline, Some(7));
}

#[tokio::test(start_paused = true)]
async fn what_was_set_aside_survives_a_journal_that_is_written_anew() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (journal, _) = Journal::open(Arc::clone(&store), clock()).unwrap();
    for key in ["one", "two"] {
        journal.accepted(open(key), Durability::Sync).unwrap().await.unwrap();
        let key = Arc::from(key);
        let aside = journal.quarantined(&key, Trail::default(), Wall(9), Durability::Sync);
        aside.await.unwrap();
    }
    journal.written.store(10_000, Ordering::Relaxed);
    journal.tidy(Vec::new).await.unwrap();
    let (again, _) = Journal::open(Arc::clone(&store), clock()).unwrap();
    let told = |journal: &Arc<Journal>| {
        let all = journal.set_aside();
        all.iter().map(|aside| (aside.open.key.to_string(), aside.at)).collect::<Vec<_>>()
    };
    assert_eq!(told(&again), [("one".to_owned(), Wall(9)), ("two".to_owned(), Wall(9))]);
    assert_eq!(told(&again), told(&journal));
    let (released, handed) = again.released("one").unwrap();
    handed.await.unwrap();
    assert_eq!((released.request, released.round), (open("one").request, 1));
    again.discarded("two").unwrap().await.unwrap();
    assert!(again.released("two").is_none());
    let (third, _) = Journal::open(store, clock()).unwrap();
    assert_eq!(third.known("one"), Some(Journaled::Open));
    assert_eq!(third.open_requests()[0].deadline, None, "it has the child's own again");
    assert_eq!(third.known("two"), Some(Journaled::Fated(Fate::Quarantined, None)));
    assert!(third.set_aside().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_was_returned_to_is_known_for_as_long_as_the_store_has_it() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (journal, _) = Journal::open(Arc::clone(&store), clock()).unwrap();
    let snapshot = Snapshot::new("agent", 1);
    let sealed = Draft::new(ChildPath::new("desk/agent"), snapshot, Now::read(&*clock())).seal();
    let sealed = sealed.unwrap();
    let (kept, gone, only_here) = (sealed.checkpoint().id, CheckpointId(2), CheckpointId(3));
    journal.returned(&[kept, gone], &[], Batch::new().checkpoint(&sealed)).await.unwrap();
    journal.use_up([only_here]);
    let used = |journal: &Journal| [kept, gone, only_here].map(|id| journal.is_used_up(id));
    assert_eq!(used(&journal), [true, true, true]);
    let (again, _) = Journal::open(Arc::clone(&store), clock()).unwrap();
    assert_eq!(used(&again), [true, true, false]);
    again.written.store(10_000, Ordering::Relaxed);
    again.tidy(Vec::new).await.unwrap();
    let (third, _) = Journal::open(store, clock()).unwrap();
    assert_eq!(used(&third), [true, false, false]);
}

#[tokio::test(start_paused = true)]
async fn a_journal_of_the_first_version_is_read_and_one_of_a_later_version_is_refused() {
    let line = |version, text: &str| {
        let schema = SchemaId::new(SCHEMA, version);
        let (_, bytes) = codec::seal_raw(&schema, text.as_bytes()).unwrap();
        Batch::new().append(STREAM, bytes)
    };
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    for text in [
        r#"{"accepted":{"child":"desk/agent","key":"one","request":"5","deadline":null}}"#,
        r#"{"fated":{"key":"one","fate":"quarantined","reply":null}}"#,
        r#"{"accepted":{"child":"desk/agent","key":"two","request":"6","deadline":8}}"#,
    ] {
        store.commit(line(1, text), Durability::Sync).await.unwrap();
    }
    let (journal, _) = Journal::open(Arc::clone(&store), clock()).unwrap();
    assert_eq!(journal.set_aside()[0].open.request, "5", "it had been kept all the time");
    assert_eq!(journal.open_requests()[0].deadline, Some(8));
    store.commit(line(VERSION + 1, "{}"), Durability::Sync).await.unwrap();
    let error = Journal::open(store, clock()).unwrap_err().to_string();
    let later = (VERSION + 1).to_string();
    assert!(error.contains("mainstay.journal") && error.contains(&later), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_store_is_tidied_once_it_has_doubled_or_is_full() {
    use crate::checkpoint::{Draft, Now, Snapshot};
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let clock = clock();
    let (journal, _) = Journal::open(Arc::clone(&store), Arc::clone(&clock)).unwrap();
    let child = ChildPath::new("desk/agent");
    let now = Now::read(&*clock);
    let add = |count: usize| {
        for _ in 0..count {
            let draft = Draft::new(child.clone(), Snapshot::new("agent", 1), now);
            let batch = Batch::new().checkpoint(&draft.seal().unwrap());
            store.commit(batch, Durability::Sync).wait().unwrap();
        }
    };
    let keep = Retention { checkpoints: 5_000, lines: 1 };
    let left = || {
        journal.make_room(keep, now.wall).unwrap();
        store.info().unwrap().checkpoints
    };
    add(4_095);
    assert_eq!((left(), journal.wants_tidying()), (4_095, false), "it is small");
    add(1_905);
    assert_eq!(left(), 5_000);
    add(4_999);
    assert_eq!(left(), 9_999, "it has not doubled");
    add(1);
    assert_eq!(left(), 5_000);
    add(10);
    assert_eq!(left(), 5_010);
    let full = StoreError::Full { store: "disk".to_owned(), what: "no room".to_owned() };
    journal.note_failure(&StoreError::Closed { store: "disk".to_owned() });
    assert_eq!((left(), journal.wants_tidying()), (5_010, false));
    journal.note_failure(&full);
    assert!(journal.wants_tidying());
    assert_eq!(left(), 2_500, "what is kept otherwise does not make room");
    // That helped, so it may help again at once; but this was refused before.
    journal.note_failure(&full);
    assert!(journal.wants_tidying());
    assert_eq!(left(), 2_500);
    // It did not help, so it is not tried all the time.
    journal.note_failure(&full);
    assert!(!journal.wants_tidying());
    tokio::time::advance(FULL_EVERY).await;
    journal.note_failure(&full);
    assert!(journal.wants_tidying());
    assert_eq!(left(), 1_250, "the disk is others', too");
}

#[test]
fn a_store_that_has_little_to_let_go_of_is_not_copied() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(FileStore::open(folder.path()).unwrap());
    let clock = clock();
    let (journal, _) = Journal::open(Arc::clone(&store), Arc::clone(&clock)).unwrap();
    let now = Now::read(&*clock);
    let keep = Retention { checkpoints: 8, lines: 1 };
    let write = |megabytes: usize| {
        let batch = Batch::new().append("other", vec![7; megabytes << 20]);
        store.commit(batch, Durability::Async).wait().unwrap();
    };
    let megabytes = || {
        journal.make_room(keep, now.wall).unwrap();
        store.info().unwrap().bytes >> 20
    };
    let state = Snapshot::new("agent", 1).with("noise", Arc::new(noise(4 << 20)));
    let state = Draft::new(ChildPath::new("desk/agent"), state, now).seal().unwrap();
    store.commit(Batch::new().checkpoint(&state), Durability::Sync).wait().unwrap();
    write(1);
    assert_eq!(megabytes(), 5, "all of it stays");
    write(6);
    store.commit(Batch::new().trim("other", 2), Durability::Sync).wait().unwrap();
    assert_eq!(megabytes(), 11, "a tenth of it has gone");
    // Whoever drops them: here as a child that was deleted takes its states along.
    let drops = Batch::new().item(Item::Drop(state.checkpoint().id));
    store.commit(drops, Durability::Sync).wait().unwrap();
    assert_eq!(megabytes(), 11, "it has not doubled");
    write(6);
    assert_eq!(megabytes(), 17);
    write(6);
    assert_eq!(megabytes(), 23, "a fifth of it has gone");
    store.commit(Batch::new().trim("other", 4), Durability::Sync).wait().unwrap();
    write(24);
    assert_eq!(megabytes(), 30, "more than a quarter of it had gone");
}

/// A text that cannot be packed.
fn noise(count: usize) -> String {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        char::from(b' ' + (state >> 58) as u8)
    };
    (0..count).map(|_| next()).collect()
}

#[test]
fn an_outcome_that_comes_while_the_journal_is_written_anew_is_not_lost() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let (journal, _) = Journal::open(Arc::clone(&store), clock()).unwrap();
        let mut ledger = Ledger::default();
        let intent = golden::an_intent();
        let key = intent.key;
        journal.keep(ledger.on(Input::Begin(intent)).record.unwrap()).await.unwrap();
        for n in 0..2_000 {
            drop(journal.accepted(open(&format!("{n}")), Durability::Sync));
            let (key, batch) = (Arc::from(n.to_string()), (Batch::new(), Durability::Sync));
            drop(journal.fated(&key, Fate::Cancelled, None, None, batch));
        }
        journal.written.store(u64::MAX, Ordering::Relaxed);
        let other = std::thread::scope(|scope| {
            let (send, said) = std::sync::mpsc::channel();
            let tidied = journal.tidy(|| {
                let copy = ledger.records();
                let confirmed = Input::Confirmed(key, Happened::new(&b"1"[..]));
                let record = ledger.on(confirmed).record.unwrap();
                let journal = &journal;
                scope.spawn(move || {
                    let kept = journal.keep(record);
                    let _ = send.send(());
                    drop(kept);
                });
                // It waits for this to be over; were it not to, it would be done by now.
                let _ = said.recv_timeout(Duration::from_millis(200));
                copy
            });
            futures_now(tidied)
        });
        other.unwrap();
        let (_, records) = Journal::open(store, clock()).unwrap();
        let status = Ledger::replayed(records).get(key).unwrap().status.clone();
        assert_eq!(status.name(), "confirmed");
    });
}

/// What a store in memory answers at once.
fn futures_now<F: Future>(future: F) -> F::Output {
    let mut task = TaskContext::from_waker(Waker::noop());
    match std::pin::pin!(future).poll(&mut task) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the store has not answered"),
    }
}

#[tokio::test(start_paused = true)]
async fn replies_are_remembered_up_to_a_weight_and_fates_beyond_it() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (journal, _) = Journal::open(Arc::clone(&store), clock()).unwrap();
    // Nothing that gets much smaller when it is packed.
    let number = |n: usize| format!("{:08x}", n.wrapping_mul(2_654_435_769) as u32);
    let long: String = (0..state::REPLY_BYTES / 4 / 8).map(number).collect();
    for n in 0..6 {
        let key: Arc<str> = Arc::from(n.to_string());
        drop(journal.accepted(open(&key), Durability::Sync));
        let batch = (Batch::new(), Durability::Sync);
        journal.fated(&key, Fate::Done, Some(long.clone()), None, batch).await.unwrap();
    }
    let replies = |journal: &Journal| -> Vec<bool> {
        let known = |n: i32| journal.known(&n.to_string()).unwrap();
        let has = |known| match known {
            Journaled::Fated(Fate::Done, reply) => reply.is_some(),
            other => panic!("{other:?}"),
        };
        (0..6).map(known).map(has).collect()
    };
    let last_four = [false, false, true, true, true, true];
    assert_eq!(replies(&journal), last_four);
    let written = store.scan(STREAM, 1, usize::MAX).unwrap().len();
    // However few its records are, it is heavy.
    assert!(journal.wants_tidying());
    journal.tidy(Vec::new).await.unwrap();
    let left = store.scan(STREAM, 1, usize::MAX).unwrap();
    assert!(left.len() < written, "{} of {written}", left.len());
    let (journal, _) = Journal::open(store, clock()).unwrap();
    assert_eq!(replies(&journal), last_four);
}

#[tokio::test(start_paused = true)]
async fn what_a_request_may_cost_is_known_to_the_next_process() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (journal, _) = Journal::open(Arc::clone(&store), clock()).unwrap();
    let budget = Some(Limits { tokens: Some(9), ..Limits::default() });
    drop(journal.accepted(Open { budget, ..open("one") }, Durability::Sync));
    let (journal, _) = Journal::open(store, clock()).unwrap();
    assert_eq!(journal.open_requests()[0].budget, budget);
}

#[tokio::test(start_paused = true)]
async fn answered_requests_are_kept_up_to_a_weight_and_while_a_state_is_before_them() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (journal, _) = Journal::open(Arc::clone(&store), clock()).unwrap();
    let child = ChildPath::new("desk/agent");
    let done = |step: u64, weight: usize| {
        let key: Arc<str> = Arc::from(format!("{step:02}"));
        let request = "x".repeat(weight - 2);
        drop(journal.accepted(Open { request, ..open(&key) }, Durability::Sync));
        let work = Some((child.clone(), step));
        let batch = (Batch::new(), Durability::Sync);
        drop(journal.fated(&key, Fate::Done, Some("1".to_owned()), work, batch));
    };
    let kept = |journal: &Journal, after: u64| -> Vec<u64> {
        let due = journal.replays(&child, after).into_iter();
        due.filter_map(|(step, _, request)| request.map(|_| step)).collect()
    };
    // Four of them weigh as much as all may.
    let quarter = past::REPLAYED_BYTES / 4;
    (1..=6).for_each(|step| done(step, quarter));
    assert_eq!(journal.replays(&child, 0).len(), 6, "what they were is known of all");
    assert_eq!(kept(&journal, 0), [3, 4, 5, 6]);
    assert_eq!(kept(&journal, 4), [5, 6]);
    // The store has a state of after 4 steps, and none before.
    let now = Now::read(&*journal.clock);
    let draft = Draft::new(child.clone(), Snapshot::new("agent", 1), now).at(Incarnation(1), 4);
    let batch = Batch::new().checkpoint(&draft.seal().unwrap());
    store.commit(batch, Durability::Sync).wait().unwrap();
    journal.written.store(u64::MAX, Ordering::Relaxed);
    journal.tidy(Vec::new).await.unwrap();
    assert_eq!(kept(&journal, 0), [5, 6]);
    let (journal, _) = Journal::open(store, clock()).unwrap();
    assert_eq!(kept(&journal, 0), [5, 6], "the next process has them, too");
}

mod golden;
mod hand;
mod made;
mod standing;
mod trial;

#[tokio::test(start_paused = true)]
async fn what_was_set_aside_is_not_asked_again_by_the_effect_that_asked_for_it() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (journal, _) = Journal::open(Arc::clone(&store), clock()).unwrap();
    for (key, fate) in [("aside", None), ("cut", Some(Fate::Cancelled))] {
        journal.accepted(open(key), Durability::Sync).unwrap().await.unwrap();
        let key = Arc::from(key);
        let kept = (Batch::new(), Durability::Sync);
        let ended = match fate {
            None => journal.quarantined(&key, Trail::default(), Wall(9), Durability::Sync),
            Some(fate) => journal.fated(&key, fate, None, None, kept),
        };
        ended.await.unwrap();
        Keep::free(Arc::clone(&journal), &key).await.unwrap();
    }
    let told = |key| Keep::known(&*journal, key);
    assert!(matches!(told("aside"), Some(crate::effects::Asked::Aside)));
    assert!(told("cut").is_none());
    assert_eq!(journal.set_aside().len(), 1);
}
