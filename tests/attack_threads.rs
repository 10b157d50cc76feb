//! Everything at once on real threads: 64 callers, some of whom leave, faults, panics, hangs, kills,
//! hedged copies, operators, and a watcher who counts all the time. What is exact on a paused clock is
//! checked there (`attack_chaos`); here it is what only threads can break.

#[path = "attack_support/storm.rs"]
mod storm;
#[path = "attack_support/support.rs"]
mod support;

use std::sync::Arc;

use mainstay::behavior::{Behavior, Context, Stateful, Step, Turn};
use mainstay::checkpoint::{MemoryStore, Scope, Snapshot};
use mainstay::error::CheckpointError;
use mainstay::event::Event;
use mainstay::fault::Fault;
use mainstay::port::Port;
use mainstay::spec::{ChildSpec, SupervisorSpec};
use mainstay::system::{System, To};

use storm::{CALLERS, Strategy, Wild, storm};

const CALLS: u64 = 60;

/// More seeds by hand: `STORM_SEEDS=100..120 cargo test --test attack_threads`.
fn seeds() -> Vec<u64> {
    let Ok(range) = std::env::var("STORM_SEEDS") else { return vec![2, 9] };
    let (from, to) = range.split_once("..").expect("STORM_SEEDS is a range, such as 100..120");
    (from.parse().unwrap()..to.parse().unwrap()).collect()
}

fn weathers(strategy: Strategy) {
    for seed in seeds() {
        let workers = 2 + seed as usize % 3;
        let weather =
            storm(Wild { strategy, seed, workers, calls: CALLS, stops: false, nested: false });
        assert!(weather.looks > 100, "{} looks", weather.looks);
        assert!(weather.answers > CALLERS * CALLS / 4, "{} answers", weather.answers);
        assert!(weather.crashes > 5, "{} crashes", weather.crashes);
        assert!(weather.hedges > 5, "{} hedges", weather.hedges);
    }
}

#[test]
fn threads_agree_on_every_fate_under_one_for_one() {
    weathers(SupervisorSpec::one_for_one);
}

#[test]
fn threads_agree_on_every_fate_under_one_for_all() {
    weathers(SupervisorSpec::one_for_all);
}

#[test]
fn threads_agree_on_every_fate_under_rest_for_one() {
    weathers(SupervisorSpec::rest_for_one);
}

/// Agents hold requests while they wait for others, under one deadline.
#[test]
fn threads_agree_when_children_ask_children() {
    for seed in seeds() {
        for strategy in
            [SupervisorSpec::one_for_one, SupervisorSpec::one_for_all, SupervisorSpec::rest_for_one]
        {
            let workers = 2 + seed as usize % 3;
            let wild = Wild { strategy, seed, workers, calls: CALLS, stops: false, nested: true };
            let weather = storm(wild);
            assert!(weather.answers > CALLERS * CALLS / 4, "{} answers", weather.answers);
        }
    }
}

/// Whoever asks while everything is being stopped, and after that, is told at once.
#[test]
fn a_system_that_is_stopped_in_a_storm_leaves_nobody_waiting_and_nothing_open() {
    for seed in seeds() {
        for strategy in
            [SupervisorSpec::one_for_one, SupervisorSpec::one_for_all, SupervisorSpec::rest_for_one]
        {
            let workers = 2 + seed as usize % 3;
            let weather = storm(Wild {
                strategy,
                seed,
                workers,
                calls: CALLS,
                stops: true,
                nested: seed.is_multiple_of(3),
            });
            assert!(weather.answers > CALLERS, "{} answers", weather.answers);
        }
    }
}

#[derive(Clone)]
struct Sum(Arc<u64>);

impl Behavior for Sum {
    type Request = u64;
    type Reply = u64;
}

impl Stateful for Sum {
    async fn step(&mut self, more: &u64, _: Turn, _: &Context) -> Result<Step<u64>, Fault> {
        self.0 = Arc::new(*self.0 + more);
        Ok(Step::Reply(*self.0))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("sum", 1).with("sum", Arc::clone(&self.0)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.0 = snapshot.get("sum")?;
        Ok(())
    }
}

/// What rests below a supervisor that ends does not take the life with it that a child has begun below the next
/// one: it is no restart, and counts against no intensity.
#[test]
fn a_rollback_by_hand_ends_no_new_life() {
    const CHILDREN: u64 = 8;
    let child =
        |number: u64| ChildSpec::stateful(number.to_string(), || Sum(Arc::new(0))).durable::<Sum>();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let pool = SupervisorSpec::one_for_one("pool");
        let pool = (0..CHILDREN).fold(pool, |pool, number| pool.child(child(number)));
        let top = SupervisorSpec::one_for_one("top").scope(Scope::Session).supervisor(pool);
        let store = Arc::new(MemoryStore::new());
        let (system, _) = System::recover(top, store).await.unwrap();
        let mut events = system.events();
        let port =
            |number| -> Port<u64, u64> { system.port(format!("top/pool/{number}")).unwrap() };
        let ports: Vec<_> = (0..CHILDREN).map(port).collect();
        for round in 1..=40 {
            for port in &ports {
                assert_eq!(port.call(1_u64).await.unwrap().value, round);
            }
            system.checkpoint("top").await.unwrap();
            let report = system.rollback("top", To::Latest).await.unwrap();
            assert_eq!(report.children.len() as u64, CHILDREN);
            while let Some(stamped) = events.try_next() {
                let ended = matches!(stamped.event, Event::Restarting { .. });
                assert!(!ended, "{:?}", stamped.event);
            }
        }
        for port in &ports {
            assert_eq!(port.call(0_u64).await.unwrap().value, 40);
        }
        assert_eq!(events.lagged(), 0);
        system.stop().await;
    });
}
