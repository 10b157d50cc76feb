//! Children that were made from templates.

use super::*;
use crate::id::CheckpointId;
use crate::journal::{Made, Taken};

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
