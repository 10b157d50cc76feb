//! Requests that an earlier process has left, taken up again.

use std::future::poll_fn;
use std::sync::atomic::AtomicBool;
use std::task::Poll;

use super::moody::{Mood, Moody};
use super::*;

/// Adds up. It comes to no end in the first process; in the second one it keeps its thread busy, once.
#[derive(Clone)]
struct Spins {
    sum: Arc<u64>,
    waits: Arc<AtomicBool>,
    spins: Arc<AtomicBool>,
    polls: Arc<AtomicU32>,
    at_work: Arc<Notify>,
}

impl Spins {
    fn new() -> Self {
        Self {
            sum: Arc::default(),
            waits: Arc::new(AtomicBool::new(true)),
            spins: Arc::default(),
            polls: Arc::default(),
            at_work: Arc::default(),
        }
    }

    fn spec(&self) -> SupervisorSpec {
        let made = self.clone();
        let child = ChildSpec::stateful("adds", move || made.clone()).durable::<Spins>();
        SupervisorSpec::one_for_one("desk").child(child)
    }
}

/// After so many polls somebody is told, and after so many more it gives up.
const TOLD: u32 = 10;
const ENOUGH: u32 = 100_000;

impl Behavior for Spins {
    type Request = u64;
    type Reply = u64;
}

impl Stateful for Spins {
    async fn step(&mut self, request: &u64, _: Turn, _: &Context) -> Result<Step<u64>, Fault> {
        if self.waits.load(Ordering::SeqCst) {
            self.at_work.notify_one();
            std::future::pending::<()>().await;
        }
        if self.spins.swap(false, Ordering::SeqCst) {
            poll_fn(|task| {
                let polls = self.polls.fetch_add(1, Ordering::SeqCst) + 1;
                if polls == TOLD {
                    self.at_work.notify_one();
                }
                if polls >= ENOUGH {
                    return Poll::Ready(());
                }
                task.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
        }
        self.sum = Arc::new(*self.sum + request);
        Ok(Step::Reply(*self.sum))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("adds", 1).with("sum", Arc::clone(&self.sum)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.sum = snapshot.get("sum")?;
        Ok(())
    }
}

/// A request that the first process has left in the middle of its step.
fn left_behind(adds: &Spins, store: &Arc<dyn Store>) {
    runtime().block_on(async {
        let (system, _) = System::recover(adds.spec(), Arc::clone(store)).await.unwrap();
        let port = system.port::<u64, u64>("desk/adds").unwrap();
        port.submit(7_u64, CallOptions::new().key("left")).await.unwrap();
        adds.at_work.notified().await;
    });
    adds.waits.store(false, Ordering::SeqCst);
}

async fn fate_of(system: &System, key: &str) -> (Fate, Option<String>) {
    let mut events = system.events();
    loop {
        match system.journaled(key) {
            Some(Journaled::Fated(fate, reply)) => return (fate, reply),
            _ => drop(events.next().await.unwrap()),
        }
    }
}

#[test]
fn a_request_is_taken_up_although_the_store_refuses_to_note_that() {
    let moody = Moody::new();
    let store = Arc::clone(&moody) as Arc<dyn Store>;
    let adds = Spins::new();
    left_behind(&adds, &store);
    // What the next process writes first is that the request is in its hands.
    moody.refuse(1);
    runtime().block_on(async {
        let (system, _) = System::recover(adds.spec(), Arc::clone(&store)).await.unwrap();
        assert_eq!(fate_of(&system, "left").await, (Fate::Done, Some("7".to_owned())));
        assert!(!moody.refuses(), "nothing was refused");
        assert_eq!(system.stats().failures.len(), 0, "and nothing has failed");
    });
}

#[test]
fn a_step_that_wakes_itself_hears_a_kill_also_when_its_request_was_left_by_another_process() {
    let store = store();
    let adds = Spins::new();
    left_behind(&adds, &store);
    adds.spins.store(true, Ordering::SeqCst);
    runtime().block_on(async {
        let (system, _) = System::recover(adds.spec(), Arc::clone(&store)).await.unwrap();
        adds.at_work.notified().await;
        system.kill("desk/adds").unwrap();
        assert_eq!(fate_of(&system, "left").await, (Fate::Done, Some("7".to_owned())));
        let polls = adds.polls.load(Ordering::SeqCst);
        assert!((TOLD..ENOUGH).contains(&polls), "{polls} polls");
    });
}

/// Refuses what it is asked, once it is told to.
struct Refuses(Arc<Notify>, Arc<Notify>);

impl Behavior for Refuses {
    type Request = u64;
    type Reply = u64;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
}

impl Stateless for Refuses {
    async fn serve(&self, _: &u64, _: &Context) -> Result<u64, Fault> {
        self.0.notify_one();
        self.1.notified().await;
        Err(Fault::business("as asked"))
    }
}

#[test]
fn a_fate_that_was_told_is_in_the_store_once_the_system_has_stopped() {
    let (begun, go) = (Arc::<Notify>::default(), Arc::<Notify>::default());
    let tree = || {
        let (begun, go) = (Arc::clone(&begun), Arc::clone(&go));
        let made = move || Refuses(Arc::clone(&begun), Arc::clone(&go));
        let child = ChildSpec::stateless("refuses", made).durable::<Refuses>();
        SupervisorSpec::one_for_one("desk").child(child)
    };
    let store = Moody::new();
    runtime().block_on(async {
        let (system, _) =
            System::recover(tree(), Arc::clone(&store) as Arc<dyn Store>).await.unwrap();
        let port = system.port::<u64, u64>("desk/refuses").unwrap();
        let call = port.call_with(7_u64, CallOptions::new().key("k"));
        let (answer, ()) = tokio::join!(call, async {
            begun.notified().await;
            store.turn(Mood::Silent);
            go.notify_one();
        });
        answer.unwrap_err();
        let stop = tokio::spawn(async move { system.stop().await });
        let half = Duration::from_millis(500);
        tokio::time::timeout(half, store.held(2)).await.expect("the stop waits for the store");
        assert!(!stop.is_finished());
        store.turn(Mood::Well);
        stop.await.unwrap();
    });
    runtime().block_on(async {
        let (system, recovered) = System::recover(tree(), store as Arc<dyn Store>).await.unwrap();
        assert_eq!(recovered.requests, 0);
        assert_eq!(system.journaled("k"), Some(Journaled::Fated(Fate::Failed, None)));
        system.stop().await;
    });
}

#[test]
fn a_key_that_is_empty_or_without_end_is_refused_by_name() {
    let (begun, go) = (Arc::<Notify>::default(), Arc::<Notify>::default());
    let made = move || Refuses(Arc::clone(&begun), Arc::clone(&go));
    let child = ChildSpec::stateless("refuses", made).durable::<Refuses>();
    let tree = SupervisorSpec::one_for_one("desk").child(child);
    runtime().block_on(async {
        let (system, _) = System::recover(tree, Moody::new() as Arc<dyn Store>).await.unwrap();
        let port = system.port::<u64, u64>("desk/refuses").unwrap();
        for (key, fits) in [("", false), (&*"k".repeat(4096), true), (&*"k".repeat(4097), false)] {
            let submitted = port.submit(7_u64, CallOptions::new().key(key)).await;
            match submitted {
                Ok(_) => assert!(fits, "{}", key.len()),
                Err(error) => {
                    assert!(!fits, "{error}");
                    assert!(error.to_string().contains("longer than 4,096 bytes"), "{error}");
                }
            }
        }
        assert_eq!(system.fates().open, 1);
        system.stop().await;
    });
}

#[test]
fn a_key_like_that_of_an_undo_is_refused_whoever_is_asked_and_however() {
    let made = || {
        let (begun, go) = (Arc::<Notify>::default(), Arc::<Notify>::default());
        move || Refuses(Arc::clone(&begun), Arc::clone(&go))
    };
    let durable = ChildSpec::stateless("durable", made()).durable::<Refuses>();
    let tree = SupervisorSpec::one_for_one("desk")
        .child(durable)
        .child(ChildSpec::stateless("plain", made()));
    runtime().block_on(async {
        let (system, _) = System::recover(tree, Moody::new() as Arc<dyn Store>).await.unwrap();
        for at in ["desk/durable", "desk/plain"] {
            let port = system.port::<u64, u64>(at).unwrap();
            let forged = || CallOptions::new().key("undo-it/0123-0");
            let errors = [
                port.submit(7_u64, forged()).await.map(drop).unwrap_err(),
                port.cast_with(7_u64, forged()).map(drop).unwrap_err(),
                port.call_with(7_u64, forged()).await.map(drop).unwrap_err(),
            ];
            for error in errors {
                let CallError::Refused { message: 7, why: Unavailable::ReservedKey, .. } = error
                else {
                    panic!("{at}: {error}")
                };
                assert!(error.to_string().contains("begins with \"undo-\""), "{error}");
            }
        }
        assert_eq!(system.fates().accepted, 0);
        system.stop().await;
    });
}
