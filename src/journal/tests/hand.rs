//! With which requests code had begun that may not be repeated.

use super::*;

fn hands(journal: &Journal) -> Vec<Hand> {
    journal.open_requests().iter().map(|open| open.hand).collect()
}

fn next(store: &Arc<dyn Store>) -> Arc<Journal> {
    Journal::open(Arc::clone(store), clock()).unwrap().0
}

#[tokio::test(start_paused = true)]
async fn the_next_process_knows_what_was_handed_out_also_when_the_journal_is_written_anew() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let journal = next(&store);
    let keys: Vec<Arc<str>> = ["one", "two", "three"].map(Arc::from).to_vec();
    for (key, acts) in keys.iter().zip([true, true, false]) {
        let open = Open { hand: Hand::of(acts), ..open(key) };
        journal.accepted(open, Durability::Sync).unwrap().await.unwrap();
    }
    let out = |key| journal.hands_out(key, Durability::Sync);
    out(&keys[0]).unwrap().await.unwrap();
    out(&keys[1]).unwrap().await.unwrap();
    assert!(out(&keys[0]).is_none(), "it is written once");
    journal.hands_back(&keys[1]);
    journal.hands_back(&keys[2]);
    let told = [Hand::Out, Hand::In, Hand::Harmless];
    assert_eq!((hands(&journal), hands(&next(&store))), (told.to_vec(), told.to_vec()));
    journal.written.store(10_000, Ordering::Relaxed);
    journal.tidy(Vec::new).await.unwrap();
    assert_eq!(store.scan(STREAM, 1, 10).unwrap().len(), 3);
    assert_eq!(hands(&next(&store)), told);
    // Nothing is handed out that is over.
    let fate = journal.fated(&keys[0], Fate::Unknown, None, None, (Batch::new(), Durability::Sync));
    fate.await.unwrap();
    assert!(out(&keys[0]).is_none());
    assert_eq!(next(&store).in_doubt(), [Arc::clone(&keys[0])]);
    // What was set aside and is released was begun by nobody.
    out(&keys[1]).unwrap().await.unwrap();
    let aside = journal.quarantined(&keys[1], Trail::default(), Wall(1), Durability::Sync);
    aside.await.unwrap();
    journal.released("two").unwrap().1.await.unwrap();
    for journal in [Arc::clone(&journal), next(&store)] {
        let open = journal.open_requests().into_iter().find(|open| *open.key == *"two");
        assert_eq!(open.unwrap().hand, Hand::In);
    }
}

#[test]
fn what_an_earlier_version_has_accepted_is_in_doubt_where_it_may_not_be_repeated() {
    let doubts = |hand: Hand| [true, false].map(|acts| hand.is_in_doubt(acts));
    assert_eq!(doubts(Hand::Untold), [true, false]);
    assert_eq!(doubts(Hand::Out), [true, true]);
    assert_eq!(doubts(Hand::In), [false, false]);
    assert_eq!(doubts(Hand::Harmless), [false, false]);
}
