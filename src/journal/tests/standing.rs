//! What children stand on stays in the store, whoever makes room.

use super::*;
use crate::checkpoint::FileOptions;
use crate::hub::Hub;
use crate::points::PointSpec;
use crate::watch::WatchSpec;

#[tokio::test]
async fn what_a_child_stands_on_is_kept_until_the_store_has_what_follows() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (journal, _) = Journal::open(Arc::clone(&store), clock()).unwrap();
    let child = ChildPath::new("desk/agent");
    let now = Now::read(&*journal.clock);
    let add = || {
        let draft = Draft::new(child.clone(), Snapshot::new("agent", 1), now).seal().unwrap();
        store.commit(Batch::new().checkpoint(&draft), Durability::Sync).wait().unwrap();
        draft.checkpoint().id
    };
    let ids: Vec<_> = (0..10).map(|_| add()).collect();
    let keep = Retention { checkpoints: 1, lines: 1 };
    let left = || {
        journal.fill();
        journal.make_room(keep, now.wall).unwrap();
        let kept = store.checkpoints(&child).unwrap();
        let mut kept: Vec<_> = kept.iter().map(|listed| listed.checkpoint.id).collect();
        kept.reverse();
        kept
    };
    let runtime = Handle::current();
    // Two rollbacks may return to the same.
    let first = journal.hold(&runtime, [ids[3], ids[5]]).await;
    let second = journal.hold(&runtime, [ids[3]]).await;
    assert_eq!(left(), [ids[3], ids[5], ids[9]]);
    drop(first);
    assert_eq!(left(), [ids[3], ids[9]]);
    // The store has not taken what it has become.
    journal.stands_on(&child, ids[3]);
    drop(second);
    assert_eq!(left(), [ids[3], ids[9]]);
    journal.stands_by_itself(&child);
    assert_eq!(left(), [ids[9]]);
}

#[tokio::test]
async fn whoever_has_begun_to_make_room_is_waited_for_before_what_is_held_is_looked_at() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (journal, _) = Journal::open(store, clock()).unwrap();
    let runtime = Handle::current();
    let retaining = journal.standing.retaining.lock();
    let mut holding = Box::pin(journal.hold(&runtime, [CheckpointId(1)]));
    let mut task = TaskContext::from_waker(Waker::noop());
    assert!(holding.as_mut().poll(&mut task).is_pending());
    drop(retaining);
    drop(holding.await);
}

#[tokio::test]
async fn of_many_who_find_no_room_one_makes_it_for_all() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileOptions::new().quota(300_000).open(folder.path()).unwrap();
    let store: Arc<dyn Store> = Arc::new(store);
    let (journal, _) = Journal::open(Arc::clone(&store), clock()).unwrap();
    let (watch, points) = (WatchSpec::default(), PointSpec::default());
    let hub = Hub::new(clock(), Handle::current(), 16, watch, points, 1);
    // Nobody needs it any more.
    let batch = Batch::new().append("other", noise(270_000).into_bytes()).trim("other", 2);
    store.commit(batch, Durability::Sync).await.unwrap();
    let mut writing = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (hub, journal, store) = (Arc::clone(&hub), Arc::clone(&journal), Arc::clone(&store));
        writing.spawn(async move {
            let write = || {
                store.commit(
                    Batch::new().append("mine", noise(20_000).into_bytes()),
                    Durability::Sync,
                )
            };
            hub.with_room(&journal, &Vec::new, write).await
        });
    }
    for written in writing.join_all().await {
        written.unwrap();
    }
    assert_eq!(journal.state.lock().tidied(), 1);
}

#[tokio::test]
async fn a_journal_is_put_together_anew_on_no_thread_that_lives_run_on() {
    let store = Arc::<Asked>::default();
    let (journal, _) = Journal::open(Arc::clone(&store) as Arc<dyn Store>, clock()).unwrap();
    let (watch, points) = (WatchSpec::default(), PointSpec::default());
    let hub = Hub::new(clock(), Handle::current(), 16, watch, points, 1);
    journal.fill();
    hub.tidy(&journal);
    for commits in 1..=2 {
        while store.waiting.lock().len() < commits {
            tokio::task::yield_now().await;
        }
        store.answer(commits - 1, true);
    }
    hub.tidied().await;
    let readers = store.readers.lock();
    assert!(!readers.is_empty() && !readers.contains(&std::thread::current().id()));
}
