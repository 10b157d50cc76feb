//! What the store says of a request that begins, or goes back to where it begins, while the next process is about to
//! take it up, or this one to try it again.

use super::super::moody::{Mood, Moody};
use super::*;

/// A request to pay that is refused within a transaction has had its act undone when the process ends, and has not
/// written that down; and the next ends when a line is drawn while it waits to take the request up.
#[test]
fn a_line_that_is_drawn_while_a_request_that_goes_back_is_taken_up_says_so() {
    let (world, moody) = (Arc::<World>::default(), Moody::new());
    let store = Arc::clone(&moody) as Arc<dyn Store>;
    runtime().block_on(async {
        let it = Process::begin(&world, &store, Scope::Transaction).await;
        world.refusals.stops(1);
        world.bank.stops(1);
        it.asks(IS_REFUSED).await;
        world.bank.here.notified().await;
        world.bank.stops(1);
        world.bank.go.notify_one();
        // It is to give back.
        world.bank.here.notified().await;
        moody.silent_after(1);
        world.bank.go.notify_one();
        moody.held(1).await;
    });
    assert_eq!(*world.acts.lock(), [PAY, GIVE_BACK]);
    moody.lose();
    runtime().block_on(async {
        world.starts.stops(1);
        let begins = async {
            world.starts.here.notified().await;
            moody.turn(Mood::Silent);
            world.starts.go.notify_one();
        };
        let (it, ()) = tokio::join!(Process::begin(&world, &store, Scope::Transaction), begins);
        moody.held(1).await;
        let mut line = std::pin::pin!(it.system.checkpoint("top"));
        assert!(tokio::time::timeout(Duration::from_secs(1), &mut line).await.is_err());
        moody.held(2).await;
        // Both are made, and the process ends.
        moody.turn(Mood::Well);
    });
    assert!(world.told.lock().is_empty());
    let (_, told, answer) = runtime().block_on(next(&world, &store, Scope::Transaction));
    assert_eq!((&told[..], &*answer), (&[("back", 0, 1)][..], "1"));
    assert_eq!(*world.acts.lock(), [PAY, GIVE_BACK, PAY]);
}

/// Also of one that nothing has returned, or that has been returned and is tried again.
#[test]
fn a_line_that_is_drawn_while_a_request_waits_knows_what_it_has_spent() {
    for returns in [false, true] {
        let (world, store) = (Arc::<World>::default(), store());
        runtime().block_on(async {
            let it = Process::begin(&world, &store, Scope::Flow).await;
            it.system.checkpoint("top").await.unwrap();
            if returns {
                world.gate.stops(1);
                it.asks(SPENDS).await;
                world.gate.here.notified().await;
                world.faults.stops(1);
                it.system.rollback("top", To::Latest).await.unwrap();
            } else {
                world.late_faults.stops(1);
                it.asks(SPENDS).await;
            }
            // It waits for its next attempt.
            world.faults.here.notified().await;
            it.system.checkpoint("top").await.unwrap();
        });
        let (spent, told, answer) = runtime().block_on(next(&world, &store, Scope::Flow));
        assert_eq!((spent, &told[..], &*answer), ((2, 6), &[("back", 0, 0)][..], "1"));
        assert!(world.acts.lock().is_empty());
    }
}

/// Its child is in no transaction: a session within one begins anew. What it has done is undone all the same.
#[test]
fn what_a_transaction_undoes_in_a_session_below_it_is_gone_on_with_by_the_next_process() {
    let (world, store) = (Arc::<World>::default(), store());
    let begin = || async {
        let inner = SupervisorSpec::one_for_all("inner")
            .scope(Scope::Session)
            .child(durable(payer(&world)));
        let top = SupervisorSpec::one_for_all("top")
            .scope(Scope::Transaction)
            .child(tool(&world, "bank", EffectKind::Idempotent))
            .child(tool(&world, "gate", EffectKind::Read))
            .supervisor(inner);
        let (system, recovered) = System::recover(top, Arc::clone(&store)).await.unwrap();
        let payer = system.port("top/inner/payer").unwrap();
        Process { system, recovered, payer }
    };
    runtime().block_on(async {
        let it = begin().await;
        it.system.checkpoint("top").await.unwrap();
        world.gate.stops(1);
        it.asks(PAYS_TWICE).await;
        world.gate.here.notified().await;
        world.bank.stops(1);
        let rollback = it.system.rollback("top", To::Latest);
        tokio::select! {
            _ = rollback => panic!("nothing was undone"),
            () = world.bank.here.notified() => {}
        }
    });
    assert_eq!(*world.acts.lock(), [PAY, PAY_MORE]);
    world.bank.stops(0);
    world.gate.stops(0);
    let answer = runtime().block_on(async { begin().await.answer().await });
    assert_eq!(answer, "1");
    assert_eq!(*world.told.lock(), [("back", 0, 2)]);
    assert_eq!(*world.acts.lock(), [PAY, PAY_MORE, GIVE_MORE_BACK, GIVE_BACK, PAY, PAY_MORE]);
}

/// The state that it goes back to is in the store with what a scope has replayed before it.
#[test]
fn a_request_that_was_returned_is_told_which_checkpoint_its_own_rollback_has_restored() {
    let (world, store) = (Arc::<World>::default(), store());
    runtime().block_on(async {
        let it = Process::begin(&world, &store, Scope::Flow).await;
        it.payer.call(COUNTS).await.unwrap();
        it.system.checkpoint("top").await.unwrap();
        it.payer.call(COUNTS).await.unwrap();
        world.gate.stops(1);
        it.asks(IS_LOST).await;
        world.gate.here.notified().await;
        world.refusals.stops(1);
        it.system.rollback("top", To::Latest).await.unwrap();
        assert_eq!(it.answer().await, "3");
    });
    assert_eq!(*world.told.lock(), [("back", 1, 0); 2]);
    let to = world.to.lock().expect("it is in the store");
    let found = store.load(to).unwrap();
    assert_eq!(*found.snapshot.get::<u64>("begun").unwrap(), 2);
}

/// The request has failed since, so what is left there is a state between two requests.
#[test]
fn a_state_that_a_request_was_returned_to_is_doubted_like_any_other_once_that_has_failed() {
    let (world, store) = (Arc::<World>::default(), store());
    runtime().block_on(async {
        let it = Process::begin(&world, &store, Scope::Flow).await;
        it.payer.call(COUNTS).await.unwrap();
        it.system.checkpoint("top").await.unwrap();
        it.payer.call(COUNTS).await.unwrap();
        world.gate.stops(1);
        it.asks(IS_LOST).await;
        world.gate.here.notified().await;
        world.refusals.stops(9);
        it.system.rollback("top", To::Latest).await.unwrap();
        assert_eq!(it.fate().await, (Fate::Failed, None));
    });
    world.unfit.store(2, Ordering::SeqCst);
    runtime().block_on(async {
        let it = Process::begin(&world, &store, Scope::Flow).await;
        let refused = it.recovered.refused.iter().map(|it| it.child.as_str());
        // As it was returned there, and as it went back by itself.
        assert_eq!(refused.collect::<Vec<_>>(), ["top/payer"; 2]);
        // The work of the second was replayed once, and is lost.
        assert_eq!(it.payer.call(COUNTS).await.unwrap().value, 2);
        assert_eq!(it.recovered.missing.len(), 1);
    });
}

/// Has a state in memory once it has begun something.
#[derive(Clone)]
struct Sparse(Arc<World>, Option<Arc<u64>>);

impl Behavior for Sparse {
    type Request = u64;
    type Reply = u64;
}

impl Stateful for Sparse {
    async fn step(&mut self, _: &u64, turn: Turn, _: &Context) -> Result<Step<u64>, Fault> {
        match turn {
            Turn::First => {
                self.1 = Some(Arc::new(1));
                return Ok(Step::Continue);
            }
            Turn::Resumed(_) => self.0.told.lock().push(("resumed", 0, 0)),
            _ => {}
        }
        if self.0.refusals.takes() {
            self.0.refusals.here.notify_one();
            return Err(Fault::network("nobody is there").with_retry_after(Duration::from_secs(20)));
        }
        Ok(Step::Reply(self.1.as_ref().map_or(0, |begun| **begun)))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("sparse", 1).with("begun", Arc::clone(self.1.as_ref()?)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        if self.0.unfit.load(Ordering::SeqCst) == ALL {
            return Err(CheckpointError::MissingField("of today".to_owned()));
        }
        self.1 = Some(snapshot.get("begun")?);
        Ok(())
    }
}

/// Where the life before was to go on is of no use to one that has no state.
#[test]
fn a_request_begins_with_a_life_that_none_of_its_states_can_be_restored_for() {
    let world = Arc::<World>::default();
    runtime().block_on(async {
        let payer = Sparse(Arc::clone(&world), None);
        let top = SupervisorSpec::one_for_all("top")
            .intensity(3, Duration::from_secs(5))
            .child(ChildSpec::stateful("payer", move || payer.clone()));
        let system = System::start(top).await.unwrap();
        let port: Port<u64, u64> = system.port("top/payer").unwrap();
        world.refusals.stops(1);
        let mut events = system.events();
        let answer = port.call(COUNTS);
        let kills = async {
            world.refusals.here.notified().await;
            // It waits for its next attempt.
            system.kill("top/payer").unwrap();
            assert!(up(&mut events).await);
            world.unfit.store(ALL, Ordering::SeqCst);
            system.kill("top/payer").unwrap();
        };
        let (answer, ()) = tokio::join!(answer, kills);
        assert_eq!(answer.unwrap().value, 1);
        assert!(world.told.lock().is_empty());
    });
}
