//! With which requests in hand the process has ended.

use std::future::Future;
use std::time::Duration;

use super::*;
use crate::port::Trial;

/// A store with these requests open.
async fn with_open(keys: &[&str]) -> Arc<dyn Store> {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (journal, _) = Journal::open(Arc::clone(&store), clock()).unwrap();
    for key in keys {
        journal.accepted(open(key), Durability::Sync).unwrap().await.unwrap();
    }
    store
}

/// As the next process finds it.
fn next(store: &Arc<dyn Store>) -> Arc<Journal> {
    Journal::open(Arc::clone(store), clock()).unwrap().0
}

fn counts(journal: &Journal) -> Vec<u32> {
    journal.open_requests().iter().map(|open| open.taken).collect()
}

fn on_trial(journal: &Arc<Journal>, key: &str, alone: bool) -> Arc<Tried> {
    Tried::new(journal, &Arc::from(key), alone)
}

/// Somebody works on it, once it may.
async fn takes_up(trial: &Tried, step: u64) {
    trial.turn().await;
    if let Some(written) = trial.take_up(step) {
        written.await.unwrap();
    }
}

/// Whether it is over at once.
async fn is_ready(future: impl Future) -> bool {
    tokio::time::timeout(Duration::ZERO, future).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn a_process_that_ends_with_a_request_in_hand_is_counted_by_the_next() {
    let store = with_open(&["one", "two"]).await;
    for ends in 1..=2 {
        let journal = next(&store);
        takes_up(&on_trial(&journal, "one", false), 0).await;
        assert_eq!(counts(&next(&store)), [ends, 0]);
    }
    // Written anew the journal says the same.
    let journal = next(&store);
    journal.written.store(10_000, Ordering::Relaxed);
    journal.tidy(Vec::new).await.unwrap();
    assert_eq!(store.scan(STREAM, 1, 10).unwrap().len(), 2);
    assert_eq!(counts(&next(&store)), [2, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_is_not_in_hand_and_one_that_has_got_on_never_again() {
    let store = with_open(&["one"]).await;
    takes_up(&on_trial(&next(&store), "one", false), 0).await;
    let journal = next(&store);
    let trial = on_trial(&journal, "one", false);
    takes_up(&trial, 4).await;
    // Also by one that it has asked for.
    takes_up(&trial, u64::MAX).await;
    assert_eq!(counts(&next(&store)), [2], "counted once");
    assert!(trial.put_down().is_none(), "it is in one more hand");
    assert_eq!(counts(&next(&store)), [2]);
    trial.put_down().unwrap().await.unwrap();
    assert!(trial.put_down().is_none(), "put down once");
    assert_eq!(counts(&next(&store)), [1], "what was before stays");
    takes_up(&trial, u64::MAX).await;
    assert_eq!(counts(&next(&store)), [2]);
    assert_eq!([3, 4, 5, 6].map(|step| trial.is_further(step)), [false, false, true, true]);
    let kept = [4, 5, 6, 7, 8, 9, 12].map(|step| trial.wants_kept(step));
    assert_eq!(kept, [false, true, true, false, true, false, true]);
    let key = Arc::from("one");
    journal.commit_further(&key, Batch::new(), Durability::Sync).await.unwrap();
    trial.got_on();
    assert!(!trial.is_further(5) && trial.wants_kept(5));
    takes_up(&trial, 5).await;
    assert_eq!(counts(&next(&store)), [0]);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_ends_in_order_is_not_counted() {
    let store = with_open(&["one", "two"]).await;
    let journal = next(&store);
    let trials = ["one", "two"].map(|key| on_trial(&journal, key, false));
    for trial in &trials {
        takes_up(trial, 0).await;
    }
    assert_eq!(counts(&next(&store)), [1, 1]);
    journal.ends_in_order().await;
    assert_eq!(counts(&next(&store)), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn of_those_that_are_suspected_one_is_in_hand_at_a_time() {
    let store = with_open(&["one", "two", "three", "four"]).await;
    let journal = next(&store);
    let [one, two, three] = ["one", "two", "three"].map(|key| on_trial(&journal, key, true));
    takes_up(&one, 0).await;
    takes_up(&on_trial(&journal, "four", false), 0).await;
    assert!(!is_ready(takes_up(&two, 0)).await && !is_ready(takes_up(&three, 0)).await);
    assert_eq!(counts(&next(&store)), [1, 0, 0, 1]);
    drop(one.put_down());
    takes_up(&two, 0).await;
    assert!(!is_ready(takes_up(&one, 0)).await);
    two.got_on();
    takes_up(&one, 0).await;
    // For one that may itself wait for the others they do not wait for ever.
    let since = tokio::time::Instant::now();
    takes_up(&three, 0).await;
    assert_eq!(since.elapsed(), Duration::from_secs(30));
    // And it does not give the turn back that is not its own any more.
    drop(one.put_down());
    assert!(!is_ready(takes_up(&one, 0)).await);
}

#[tokio::test(start_paused = true)]
async fn who_takes_its_turn_up_again_before_it_is_over_does_not_have_it_for_longer() {
    let store = with_open(&["one", "two"]).await;
    let journal = next(&store);
    let [one, two] = ["one", "two"].map(|key| on_trial(&journal, key, true));
    takes_up(&one, 0).await;
    let clock = clock();
    let since = tokio::time::Instant::now();
    let comes = tokio::spawn(async move { takes_up(&two, 0).await });
    for _ in 0..3 {
        clock.sleep_until(clock.now() + Duration::from_secs(9)).await;
        // Whom it has asked is at work for it, too.
        takes_up(&one, 0).await;
    }
    comes.await.unwrap();
    assert_eq!(since.elapsed(), Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn what_was_counted_and_returned_ends_with_the_quarantine() {
    let store = with_open(&["one"]).await;
    let (journal, key) = (next(&store), Arc::from("one"));
    takes_up(&on_trial(&journal, "one", false), 0).await;
    let back = (Batch::new(), Durability::Sync);
    journal.goes_back(&key, None, back.clone()).await.unwrap();
    journal.returns_for(&key, &ChildPath::new("desk")).await;
    let found = next(&store).open_requests().remove(0);
    assert_eq!(found.back, Back { own: true, widest: Some(ChildPath::new("desk")) });
    journal.quarantined(&key, Trail::default(), Wall(1), Durability::Sync).await.unwrap();
    journal.goes_back(&key, None, back).await.unwrap();
    for journal in [Arc::clone(&journal), next(&store)] {
        let (open, handed) = journal.released("one").unwrap();
        handed.await.unwrap();
        assert_eq!((open.taken, open.back), (0, Back::default()));
        journal.quarantined(&key, Trail::default(), Wall(1), Durability::Sync).await.unwrap();
    }
}
