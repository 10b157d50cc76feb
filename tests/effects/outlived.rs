//! An act whose asker, or whose process, has ended, and whose durable tool goes on with its own request.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mainstay::checkpoint::{MemoryStore, Scope, Store};
use mainstay::event::Event;
use mainstay::fate::Fate;
use mainstay::fault::EffectKind;
use mainstay::journal::Journaled;
use mainstay::ledger::EffectCounts;
use mainstay::moment::Moment;
use mainstay::policy::Policy;
use mainstay::port::CallOptions;
use mainstay::spec::{ChildSpec, SupervisorSpec};
use mainstay::system::System;
use tokio::runtime::{Builder, Runtime};

use super::left::{Clerk, FAILS, HOUR, Looks, Payer, SECOND, Slip, Till, payer, told};

/// A shop whose bank is durable, and does one thing after the other.
async fn shop(till: &Arc<Till>, store: &Arc<dyn Store>, kind: EffectKind, scope: Scope) -> System {
    let (clerk, looks) = (Clerk(Arc::clone(till)), Looks(Arc::clone(till)));
    let clerk = ChildSpec::stateless("clerk", move || clerk.clone())
        .effect(kind)
        .policy(Policy::without_retries())
        .attempt_timeout(HOUR * 24)
        .concurrency(1)
        .durable::<Clerk>();
    let flow = SupervisorSpec::rest_for_one("flow")
        .scope(scope)
        .child(ChildSpec::stateful("payer", Payer::default).durable::<Payer>());
    let spec = SupervisorSpec::one_for_one("shop")
        .child(clerk)
        .child(ChildSpec::stateless("looks", move || looks.clone()))
        .supervisor(flow);
    System::recover(spec, Arc::clone(store)).await.unwrap().0
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

fn world() -> (Arc<Till>, Arc<dyn Store>) {
    (Arc::default(), Arc::new(MemoryStore::new()))
}

/// Time enough for whoever does not wait.
async fn a_while(system: &System) {
    let mut events = system.events();
    tokio::time::timeout(SECOND, events.wait_for(|_| false)).await.unwrap_err();
}

async fn fate(system: &System, key: &str) -> Journaled {
    let mut events = system.events();
    loop {
        match system.journaled(key) {
            Some(fate @ Journaled::Fated(..)) => return fate,
            // The event may come before the store has the fate, and be the last one.
            _ => drop(tokio::time::timeout(SECOND, events.next()).await),
        }
    }
}

/// The bank has accepted the payment, and is killed before it has begun with it.
async fn accepted(till: &Arc<Till>, store: &Arc<dyn Store>, kind: EffectKind, amount: u32) {
    let system = shop(till, store, kind, Scope::Transaction).await;
    system.port::<String, Slip>("shop/clerk").unwrap().cast("block").unwrap();
    till.blocked.notified().await;
    let options = CallOptions::new().key("k").deadline(HOUR);
    payer(&system).submit(amount, options).await.unwrap();
    a_while(&system).await;
    assert_eq!(till.log(), Vec::<String>::new());
    // It is killed, and does not even begin to stop.
    std::mem::forget(system);
}

#[test]
fn what_a_tool_goes_on_with_in_the_next_process_is_waited_for_and_its_answer_is_the_outcome() {
    for kind in [EffectKind::Compensable, EffectKind::Verifiable, EffectKind::Irreversible] {
        let (till, store) = world();
        runtime().block_on(accepted(&till, &store, kind, 5));
        till.unblocks.notify_one();
        runtime().block_on(async {
            let system = shop(&till, &store, kind, Scope::Transaction).await;
            till.begun.notified().await;
            a_while(&system).await;
            assert_eq!(till.log(), ["begun"], "{kind:?}");
            till.goes_on.notify_one();
            let done = Journaled::Fated(Fate::Done, Some("5".to_owned()));
            assert_eq!(fate(&system, "k").await, done, "{kind:?}");
            assert_eq!(till.log(), ["begun", "paid"], "{kind:?}");
            assert_eq!(till.looks.load(Ordering::SeqCst), 0, "nobody had to look");
            let counts = EffectCounts { confirmed: 1, ..EffectCounts::default() };
            assert_eq!(system.effects().counts(), counts, "{kind:?}");
            system.stop().await;
        });
    }
}

#[test]
fn a_deadline_while_a_tool_goes_on_with_an_act_does_not_have_it_undone_before() {
    for kind in [EffectKind::Compensable, EffectKind::Verifiable] {
        let (till, store) = world();
        runtime().block_on(accepted(&till, &store, kind, 4));
        till.unblocks.notify_one();
        runtime().block_on(async {
            let system = shop(&till, &store, kind, Scope::Transaction).await;
            till.begun.notified().await;
            let mut events = system.events();
            let over = |event: &Event| matches!(event, Event::Fated { .. });
            tokio::time::timeout(2 * HOUR, events.wait_for(over)).await.unwrap().unwrap();
            assert_eq!(fate(&system, "k").await, Journaled::Fated(Fate::Expired, None));
            a_while(&system).await;
            assert_eq!(till.log(), ["begun"], "{kind:?}");
            till.goes_on.notify_one();
            told(&system, "compensated").await;
            assert_eq!(till.log(), ["begun", "paid", "undone"], "{kind:?}");
            system.stop().await;
        });
    }
}

#[test]
fn a_rollback_whose_processes_end_in_the_middle_of_its_undo_comes_to_its_end() {
    let (till, store) = world();
    let kind = EffectKind::Idempotent;
    till.undo_waits.store(true, Ordering::SeqCst);
    till.goes_on.notify_one();
    runtime().block_on(async {
        let system = shop(&till, &store, kind, Scope::Transaction).await;
        payer(&system).submit(FAILS, CallOptions::new().key("k")).await.unwrap();
        till.blocked.notified().await;
    });
    for _ in 0..2 {
        // Each ends while the code of the undo runs.
        runtime().block_on(async {
            let system = shop(&till, &store, kind, Scope::Transaction).await;
            till.blocked.notified().await;
            let mut events = system.events();
            let moment = Duration::from_millis(50);
            tokio::time::timeout(moment, events.wait_for(|_| false)).await.unwrap_err();
        });
    }
    till.undo_waits.store(false, Ordering::SeqCst);
    till.goes_on.notify_one();
    runtime().block_on(async {
        let system = shop(&till, &store, kind, Scope::Transaction).await;
        assert_eq!(fate(&system, "k").await, Journaled::Fated(Fate::Failed, None));
        a_while(&system).await;
        let again = ["begun", "paid", "undone"];
        assert_eq!(till.log(), [again, again].concat(), "undone, tried again, and undone");
        assert!(system.clock().now() < Moment::START + Duration::from_secs(20), "nobody waited");
        assert_eq!(system.effects().open(), []);
        system.stop().await;
    });
}

#[test]
fn a_stop_does_not_wait_for_a_tool_that_the_next_process_goes_on_with() {
    let (till, store) = world();
    runtime().block_on(accepted(&till, &store, EffectKind::Idempotent, 4));
    till.unblocks.notify_one();
    runtime().block_on(async {
        let system = shop(&till, &store, EffectKind::Idempotent, Scope::Transaction).await;
        till.begun.notified().await;
        a_while(&system).await;
        tokio::time::timeout(HOUR, system.stop()).await.expect("it does not hang");
        let told: Vec<_> = system.effects().list().iter().map(|it| it.status).collect();
        assert_eq!((told, till.log()), (vec!["intended"], vec!["begun".to_owned()]));
    });
}
