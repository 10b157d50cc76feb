//! Children that are started from one template while the system runs.

use mainstay::behavior::{Behavior, Context, Stateful, Step, Turn};
use mainstay::error::CallError;
use mainstay::fault::Fault;
use mainstay::spec::{ChildSpec, SupervisorSpec};
use mainstay::system::System;

#[derive(Clone, Default)]
struct Counter {
    seen: u64,
}

impl Behavior for Counter {
    type Request = bool;
    type Reply = u64;
}

impl Stateful for Counter {
    async fn step(&mut self, wait: &bool, _: Turn, _: &Context) -> Result<Step<u64>, Fault> {
        if *wait {
            std::future::pending::<()>().await;
        }
        self.seen += 1;
        Ok(Step::Reply(self.seen))
    }
}

#[tokio::test(start_paused = true)]
async fn children_of_one_template_are_asked_for_their_own_specs_and_keep_their_own_state() {
    let system = System::start(SupervisorSpec::dynamic("pool")).await.unwrap();
    let pool = system.supervisor("pool").unwrap();
    let template = ChildSpec::stateful("0", Counter::default);
    for id in ["a", "b", "c"] {
        pool.start_child(template.clone().with_id(id)).await.unwrap();
    }
    for id in ["a", "b", "c"] {
        assert_eq!(pool.child_spec(id).await.unwrap().id(), id);
    }
    let a = system.child::<Counter>("pool/a").unwrap();
    assert_eq!(a.call(false).await.unwrap().value, 1);
    assert_eq!(a.call(false).await.unwrap().value, 2);
    assert_eq!(system.child::<Counter>("pool/b").unwrap().call(false).await.unwrap().value, 1);
    system.stop().await;
}

/// How many casts the child takes before its mailbox is full.
fn room(system: &System, path: &str) -> usize {
    let child = system.child::<Counter>(path).unwrap();
    let mut taken = 0;
    loop {
        match child.cast(true) {
            Ok(_) => taken += 1,
            Err(CallError::Full { .. }) => return taken,
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_child_that_differs_from_the_one_before_it_gets_its_own_rules() {
    let system = System::start(SupervisorSpec::dynamic("pool")).await.unwrap();
    let pool = system.supervisor("pool").unwrap();
    let template = ChildSpec::stateful("0", Counter::default);
    for (id, size) in [("a", 2), ("b", 2), ("c", 5), ("d", 2)] {
        pool.start_child(template.clone().with_id(id).mailbox(size)).await.unwrap();
        assert_eq!(room(&system, &format!("pool/{id}")), size as usize);
    }
    system.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_carrier_that_rests_is_woken_stopped_and_killed() {
    let system = System::start(SupervisorSpec::dynamic("pool")).await.unwrap();
    let pool = system.supervisor("pool").unwrap();
    pool.start_child(ChildSpec::stateful("a", Counter::default)).await.unwrap();
    let child = system.child::<Counter>("pool/a").unwrap();
    for seen in 1..=3 {
        assert_eq!(child.call(false).await.unwrap().value, seen);
    }
    // The next life comes up at rest, and works.
    system.kill("pool/a").unwrap();
    assert_eq!(child.call(false).await.unwrap().value, 1);
    pool.terminate_child("a").await.unwrap();
    assert!(child.call(false).await.is_err());
    pool.restart_child("a").await.unwrap();
    assert_eq!(child.call(false).await.unwrap().value, 1);
    system.stop().await;
}
