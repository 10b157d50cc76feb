//! Children that were made from templates.

use std::collections::BTreeSet;
use std::pin::pin;

use super::*;
use crate::id::CheckpointId;
use crate::journal::{Made, Releasing, Taken};

fn made(id: &str) -> Made {
    let child = ChildPath::new("desk").join(id);
    let before = std::iter::once(CheckpointId(7)).collect();
    Made { child, template: Arc::from("sum"), arguments: "5".to_owned(), before }
}

#[tokio::test(start_paused = true)]
async fn who_was_made_is_kept_when_the_journal_is_written_anew_and_who_is_gone_is_not() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (journal, _) = Journal::open(Arc::clone(&store), clock()).unwrap();
    let paths = ["b", "gone", "a"].map(|id| ChildPath::new("desk").join(id));
    let mut serials = Vec::new();
    for id in ["b", "gone", "a"] {
        let (serial, commit) = journal.makes(made(id)).ok().unwrap();
        commit.await.unwrap();
        journal.stands(&ChildPath::new("desk").join(id), serial, true);
        serials.push(serial);
    }
    assert!(matches!(journal.makes(made("a")), Err(Taken::Stands)));
    let work = Some((paths[1].clone(), 3));
    let open = Open { child: paths[1].clone(), ..open("one") };
    drop(journal.accepted(open, Durability::Sync));
    let batch = (Batch::new(), Durability::Sync);
    journal.fated(&Arc::from("one"), Fate::Done, None, work, batch).await.unwrap();
    assert_eq!(journal.replays(&paths[1], 0).len(), 1);
    // Of one that had the path later nobody has heard.
    assert!(journal.unmakes(&paths[1], serials[1] + 9).is_none());
    journal.unmakes(&paths[1], serials[1]).unwrap().done().await.unwrap();
    assert!(journal.replays(&paths[1], 0).is_empty(), "a later one has not done that");
    for n in 0..2000 {
        let key = Arc::from(format!("key {n}"));
        drop(journal.accepted(super::open(&key), Durability::Async));
        journal.withdrawn(&key, Durability::Async).await.unwrap();
    }
    let before = store.scan(STREAM, 1, usize::MAX).unwrap().len();
    // The state that was another's is no more.
    journal.tidy(Vec::new).await.unwrap();
    assert!(store.scan(STREAM, 1, usize::MAX).unwrap().len() < before / 100);
    let (journal, _) = Journal::open(store, clock()).unwrap();
    let all = journal.made();
    let found: Vec<_> = all.iter().map(|(_, made)| (&made.child, &*made.arguments)).collect();
    assert_eq!(found, [(&paths[0], "5"), (&paths[2], "5")]);
    assert!(all.iter().all(|(_, made)| made.before.is_empty()));
    assert!(journal.replays(&paths[1], 0).is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_there_when_a_child_is_made_is_of_others_however_late_it_came() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (journal, _) = Journal::open(Arc::clone(&store), clock()).unwrap();
    // Whoever made this up has looked at the store before another had the path, and left a state there.
    let made = Made { before: BTreeSet::new(), ..made("a") };
    let (first, commit) = journal.makes(made.clone()).ok().unwrap();
    commit.await.unwrap();
    let draft = Draft::new(made.child.clone(), Snapshot::new("sum", 1), Now::read(&*clock()));
    let sealed = draft.seal().unwrap();
    journal.commit_state(Batch::new().checkpoint(&sealed), Durability::Sync).await.unwrap();
    assert_eq!(journal.states(&made.child).unwrap().len(), 1);
    journal.unmakes(&made.child, first).unwrap().done().await.unwrap();
    let (_, commit) = journal.makes(made.clone()).ok().unwrap();
    commit.await.unwrap();
    assert!(journal.states(&made.child).unwrap().is_empty());
    let (journal, _) = Journal::open(Arc::clone(&store), clock()).unwrap();
    assert!(journal.is_of_another(&made.child, sealed.checkpoint().id));
}

/// Of one that is gone for good; and not of one that was let go, or that never began.
#[tokio::test(start_paused = true)]
async fn what_was_set_aside_is_known_to_be_of_one_that_is_gone() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (journal, _) = Journal::open(Arc::clone(&store), clock()).unwrap();
    for (id, key) in [("gone", "one"), ("let go", "two"), ("lives", "three")] {
        let made = made(id);
        let path = made.child.clone();
        let (serial, commit) = journal.makes(made.clone()).ok().unwrap();
        commit.await.unwrap();
        let open = Open { child: path.clone(), ..open(key) };
        drop(journal.accepted(open, Durability::Sync));
        let key = Arc::from(key);
        journal.quarantined(&key, Trail::default(), Wall(9), Durability::Sync).await.unwrap();
        match id {
            "gone" => journal.clears(&path, serial).unwrap().done().await.unwrap(),
            "let go" => journal.unmakes(&path, serial).unwrap().done().await.unwrap(),
            _ => continue,
        }
        // Its namesake.
        let (_, commit) = journal.makes(made).ok().unwrap();
        commit.await.unwrap();
    }
    let told = |journal: &Journal| {
        let all = journal.set_aside().into_iter();
        all.map(|aside| (aside.open.key.to_string(), aside.deleted)).collect::<Vec<_>>()
    };
    let all = [("one", true), ("two", false), ("three", false)];
    let all = all.map(|(key, deleted)| (key.to_owned(), deleted));
    assert_eq!(told(&journal), all);
    let (journal, _) = Journal::open(Arc::clone(&store), clock()).unwrap();
    assert_eq!(told(&journal), all);
    // And by a journal that is written anew.
    journal.written.store(u64::MAX, Ordering::Relaxed);
    journal.tidy(Vec::new).await.unwrap();
    assert_eq!(told(&Journal::open(store, clock()).unwrap().0), all);
}

/// A release that the store refuses leaves it set aside, and of whom it was.
#[tokio::test(start_paused = true)]
async fn a_release_that_is_refused_as_its_child_goes_forgets_nothing() {
    let asked = Arc::new(Asked::default());
    let store: Arc<dyn Store> = Arc::clone(&asked) as Arc<dyn Store>;
    let (journal, _) = Journal::open(store, clock()).unwrap();
    let made = made("a");
    let path = made.child.clone();
    let (serial, commit) = journal.makes(made).ok().unwrap();
    drop(commit);
    let key = Arc::from("one");
    drop(journal.accepted(Open { child: path.clone(), ..open("one") }, Durability::Sync));
    let aside = journal.quarantined(&key, Trail::default(), Wall(9), Durability::Sync);
    (0..3).for_each(|nth| asked.answer(nth, true));
    aside.await.unwrap();
    let (_, released) = journal.released("one").unwrap();
    let unmaking = journal.clears(&path, serial).unwrap();
    asked.answer(3, false);
    assert!(released.await.is_err());
    asked.answer(4, true);
    unmaking.done().await.unwrap();
    assert!(journal.aside("one").unwrap().deleted);
}

#[tokio::test(start_paused = true)]
async fn of_a_change_hears_who_waits_for_its_path() {
    let (journal, _) = Journal::open(Arc::new(MemoryStore::new()), clock()).unwrap();
    let [(one, a), (other, b)] = ["a", "b"].map(|id| {
        let (serial, commit) = journal.makes(made(id)).ok().unwrap();
        drop(commit);
        let Err(Taken::Moves(change)) = journal.makes(made(id)) else { panic!("{id} moves") };
        (serial, change)
    });
    let (mut a, mut b) = (pin!(a.come()), pin!(b.come()));
    let mut cx = TaskContext::from_waker(Waker::noop());
    journal.stands(&ChildPath::new("desk/b"), other, true);
    assert!(b.as_mut().poll(&mut cx).is_ready());
    assert!(a.as_mut().poll(&mut cx).is_pending(), "nothing has become of it");
    journal.stands(&ChildPath::new("desk/a"), one, true);
    assert!(a.as_mut().poll(&mut cx).is_ready());
}

/// Two others may come between the answer that a path moves and the first look at when that changes: one whose
/// child ends, and one who has the path then. The second change is not the one that was waited for.
#[tokio::test(start_paused = true)]
async fn a_change_that_comes_before_anybody_waits_for_it_is_heard() {
    let (journal, _) = Journal::open(Arc::new(MemoryStore::new()), clock()).unwrap();
    let path = ChildPath::new("desk/a");
    let (first, commit) = journal.makes(made("a")).ok().unwrap();
    drop(commit);
    let Err(Taken::Moves(change)) = journal.makes(made("a")) else { panic!("it moves") };
    drop(journal.unmakes(&path, first));
    let (_, commit) = journal.makes(made("a")).ok().unwrap();
    drop(commit);
    assert!(matches!(journal.makes(made("a")), Err(Taken::Moves(_))), "of another now");
    let mut cx = TaskContext::from_waker(Waker::noop());
    assert!(pin!(change.come()).poll(&mut cx).is_ready());
}

/// A journal with a child that has an open request, others whose arguments weigh much, and fates; how many commits that
/// was.
fn heavy(asked: &Arc<Asked>) -> (Arc<Journal>, usize) {
    let (journal, _) = Journal::open(Arc::clone(asked) as Arc<dyn Store>, clock()).unwrap();
    let open = Open { child: ChildPath::new("desk/a"), ..open("one") };
    drop(journal.makes(made("a")));
    drop(journal.accepted(open, Durability::Sync));
    for n in 0..40 {
        let key = Arc::<str>::from(weighty(n));
        drop(journal.accepted(super::open(&key), Durability::Sync));
        let batch = (Batch::new(), Durability::Sync);
        drop(journal.fated(&key, Fate::Failed, None, None, batch));
        let arguments = format!("{:?}", weighty(n));
        drop(journal.makes(Made { arguments, ..made(&n.to_string()) }));
    }
    let before = asked.waiting.lock().len();
    (0..before).for_each(|nth| asked.answer(nth, true));
    journal.written.store(LONG, Ordering::Relaxed);
    (journal, before)
}

/// As many records as no journal of [`heavy`] needs.
const LONG: u64 = 10_000;

fn weighty(n: usize) -> String {
    format!("{n}{}", "x".repeat(1000))
}

/// The records of a journal that is written anew come in several commits, and the process may end between two.
#[tokio::test(start_paused = true)]
async fn a_journal_that_is_written_anew_in_part_ends_no_request_of_a_child() {
    let asked = Arc::new(Asked::default());
    let (journal, before) = heavy(&asked);
    let mut tidies = pin!(journal.tidy(Vec::new));
    let mut cx = TaskContext::from_waker(Waker::noop());
    assert!(tidies.as_mut().poll(&mut cx).is_pending());
    let all = asked.waiting.lock().len();
    assert!(all > before + 8, "{}", all - before);
    let weight = |item: &Item| match item {
        Item::Append { bytes, .. } => bytes.len(),
        other => panic!("{other:?} before all is there"),
    };
    let weights: Vec<usize> = asked.waiting.lock()[before..]
        .iter()
        .map(|it| it.as_ref().unwrap().0.items.iter().map(weight).sum())
        .collect();
    assert!(weights.iter().all(|weight| *weight < BATCH + BATCH / 2), "{weights:?}");
    assert_eq!(journal.bytes.load(Ordering::Relaxed), weights.iter().sum::<usize>() as u64);
    for ends in before..=all {
        let is_last = ends == all;
        // What was said before goes once the store has answered to all of it.
        assert!(tidies.as_mut().poll(&mut cx).is_pending());
        assert_eq!(asked.waiting.lock().len(), all + usize::from(is_last));
        let store: Arc<dyn Store> = Arc::clone(&asked) as Arc<dyn Store>;
        let (journal, _) = Journal::open(store, clock()).unwrap();
        assert_eq!(journal.known("one"), Some(Journaled::Open), "{}", ends - before);
        assert_eq!(journal.made().len(), 41);
        asked.answer(ends, true);
    }
    tidies.await.unwrap();
    let (journal, _) = Journal::open(Arc::clone(&asked) as Arc<dyn Store>, clock()).unwrap();
    assert_eq!((journal.open_requests().len(), journal.made().len()), (1, 41));
    assert_eq!(journal.made()[0].1.child, ChildPath::new("desk/a"), "the oldest first");
    assert!(asked.scan(STREAM, 1, usize::MAX).unwrap().len() < 130);
}

/// Also where there is room for a smaller part after it.
#[tokio::test(start_paused = true)]
async fn a_journal_of_which_the_store_refuses_a_part_is_there_as_before() {
    for refused in [0, 1] {
        let asked = Arc::new(Asked::default());
        let (journal, before) = heavy(&asked);
        let mut tidies = pin!(journal.tidy(Vec::new));
        let mut cx = TaskContext::from_waker(Waker::noop());
        assert!(tidies.as_mut().poll(&mut cx).is_pending());
        let all = asked.waiting.lock().len();
        (before..all).for_each(|nth| asked.answer(nth, nth != before + refused));
        let done = tidies.as_mut().poll(&mut cx);
        assert!(matches!(done, Poll::Ready(Err(_))), "{refused} {done:?}");
        assert_eq!(asked.waiting.lock().len(), all, "nothing has gone");
        assert!(journal.written.load(Ordering::Relaxed) > LONG, "it is as due as it was");
        let (journal, _) = Journal::open(asked, clock()).unwrap();
        assert_eq!((journal.open_requests().len(), journal.made().len()), (1, 41));
        assert!((0..40).all(|n| journal.known(&weighty(n)).is_some()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_path_is_free_once_the_store_has_answered_that_its_child_is_gone() {
    let asked = Arc::new(Asked::default());
    let store: Arc<dyn Store> = Arc::clone(&asked) as Arc<dyn Store>;
    let (journal, _) = Journal::open(store, clock()).unwrap();
    let (serial, commit) = journal.makes(made("a")).ok().unwrap();
    assert!(matches!(journal.makes(made("a")), Err(Taken::Moves(_))), "it has not begun yet");
    asked.answer(0, true);
    commit.await.unwrap();
    let path = ChildPath::new("desk/a");
    let unmaking = journal.unmakes(&path, serial).unwrap();
    assert!(journal.unmakes(&path, serial).is_none(), "once");
    assert!(matches!(journal.makes(made("a")), Err(Taken::Moves(_))));
    asked.answer(1, false);
    assert!(unmaking.done().await.is_err());
    assert!(journal.makes(made("a")).is_ok());
}

#[tokio::test(start_paused = true)]
async fn who_has_the_path_of_one_whose_end_was_refused_takes_up_nothing_of_it() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (journal, _) = Journal::open(Arc::clone(&store), clock()).unwrap();
    let path = ChildPath::new("desk/a");
    let (_, commit) = journal.makes(made("a")).ok().unwrap();
    commit.await.unwrap();
    let open = |key: &str| Open { child: path.clone(), ..open(key) };
    drop(journal.accepted(open("one"), Durability::Sync));
    drop(journal.accepted(open("two"), Durability::Sync));
    let batch = (Batch::new(), Durability::Sync);
    let work = Some((path.clone(), 1));
    journal.fated(&Arc::from("two"), Fate::Done, None, work, batch).await.unwrap();
    // The store takes neither the end of it nor the fate of what was open, and then another one of its path.
    journal.commit(Batch::new(), &Line::from(&made("a")), Durability::Sync).await.unwrap();
    let (journal, _) = Journal::open(store, clock()).unwrap();
    assert_eq!(journal.made().len(), 1);
    assert!(journal.open_requests().is_empty());
    assert_eq!(journal.known("one"), Some(Journaled::Fated(Fate::Stopped, None)));
    assert!(journal.replays(&path, 0).is_empty());
}

/// What is needed is decided where its states go, and not before.
#[tokio::test(start_paused = true)]
async fn a_line_that_is_on_its_way_keeps_what_it_names_of_a_child_that_goes() {
    let asked = Arc::new(Asked::default());
    let (journal, _) = Journal::open(Arc::clone(&asked) as Arc<dyn Store>, clock()).unwrap();
    let made = made("a");
    let path = made.child.clone();
    let (serial, commit) = journal.makes(made).ok().unwrap();
    drop(commit);
    let now = Now::read(&*clock());
    let [named, other] = [1, 2].map(|step| {
        let draft = Draft::new(path.clone(), Snapshot::new("sum", 1), now);
        let sealed = draft.at(Incarnation(1), step).seal().unwrap();
        drop(journal.commit_state(Batch::new().checkpoint(&sealed), Durability::Sync));
        sealed
    });
    (0..3).for_each(|nth| asked.answer(nth, true));
    let line = LineDraft::new(Scope::Session, ChildPath::new("desk"), now);
    let line = line.member(named.checkpoint()).draw().unwrap();
    let drawn = asked.commit(Batch::new().line(line), Durability::Sync);
    let unmaking = journal.clears(&path, serial).unwrap();
    asked.answer(3, true);
    asked.answer(4, true);
    drawn.await.unwrap();
    unmaking.done().await.unwrap();
    let left: Vec<_> = asked.checkpoints(&path).unwrap();
    let left: Vec<_> = left.iter().map(|listed| listed.checkpoint.id).collect();
    assert_eq!(left, [named.checkpoint().id]);
    assert!(asked.find(other.checkpoint().id).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_nobody_takes_is_set_aside_again_for_whom_it_was() {
    for is_deleted in [false, true] {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let (journal, _) = Journal::open(Arc::clone(&store), clock()).unwrap();
        let path = ChildPath::new("desk/agent");
        let (serial, commit) = journal.makes(made("agent")).ok().unwrap();
        commit.await.unwrap();
        journal.stands(&path, serial, true);
        journal.accepted(open("one"), Durability::Sync).unwrap().await.unwrap();
        let (key, trail) = (Arc::from("one"), Trail::default());
        journal.quarantined(&key, trail, Wall(9), Durability::Sync).await.unwrap();
        let releasing = Releasing::of(&journal, "one").unwrap();
        let (_, handed) = journal.released("one").unwrap();
        handed.await.unwrap();
        if is_deleted {
            journal.clears(&path, serial).unwrap().done().await.unwrap();
        }
        releasing.sets_back().await.unwrap();
        assert!(journal.state.lock().children.releasing.is_empty());
        let (again, _) = Journal::open(store, clock()).unwrap();
        for journal in [journal, again] {
            let aside = journal.aside("one").unwrap();
            assert_eq!((aside.deleted, aside.at), (is_deleted, Wall(9)));
            assert_eq!(aside.open.request, open("one").request);
            assert!(journal.open_requests().is_empty());
        }
    }
}
