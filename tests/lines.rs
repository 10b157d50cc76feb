//! Recovery lines that draw themselves.

use std::sync::Arc;
use std::time::Duration;

use mainstay::behavior::{Behavior, Context, Stateful, Step, Turn};
use mainstay::checkpoint::{MemoryStore, Scope, Snapshot, Store, VALIDITY};
use mainstay::error::{CheckpointError, SpecError};
use mainstay::event::Event;
use mainstay::fault::{EffectKind, Fault};
use mainstay::port::Port;
use mainstay::spec::{ChildSpec, SupervisorSpec};
use mainstay::system::{RollbackError, System, To};
use tokio::sync::Notify;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Adds up. A zero takes one step for as long as the door is shut, and one more.
#[derive(Clone)]
struct Adder {
    sum: Arc<u64>,
    door: Arc<Notify>,
}

impl Behavior for Adder {
    type Request = u64;
    type Reply = u64;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
}

impl Stateful for Adder {
    async fn step(&mut self, more: &u64, turn: Turn, _: &Context) -> Result<Step<u64>, Fault> {
        if *more == 0 && matches!(turn, Turn::First) {
            self.door.notified().await;
            return Ok(Step::Continue);
        }
        self.sum = Arc::new(*self.sum + more);
        Ok(Step::Reply(*self.sum))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("adder", 1).with("sum", Arc::clone(&self.sum)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.sum = snapshot.get("sum")?;
        Ok(())
    }
}

fn flow(door: &Arc<Notify>) -> SupervisorSpec {
    let child = |id: &str| {
        let door = Arc::clone(door);
        let made = move || Adder { sum: Arc::default(), door: Arc::clone(&door) };
        // It acts by itself, so that nothing is replayed: what a line says is what is returned to.
        ChildSpec::stateful(id, made)
            .durable::<Adder>()
            .effect(EffectKind::Idempotent)
            .attempt_timeout(86_400 * SECOND)
    };
    SupervisorSpec::one_for_one("flow").scope(Scope::Flow).child(child("one")).child(child("two"))
}

struct Bed {
    store: Arc<dyn Store>,
    door: Arc<Notify>,
    system: System,
    ports: [Port<u64, u64>; 2],
}

impl Bed {
    async fn new(period: Option<Duration>) -> Self {
        Self::on(Arc::new(MemoryStore::new()), period).await
    }

    async fn on(store: Arc<dyn Store>, period: Option<Duration>) -> Self {
        let door = Arc::<Notify>::default();
        let mut flow = flow(&door);
        if let Some(period) = period {
            flow = flow.lines_every(period);
        }
        let top = SupervisorSpec::one_for_one("top").supervisor(flow);
        let (system, _) = System::recover(top, Arc::clone(&store)).await.unwrap();
        let ports = ["one", "two"].map(|id| system.port(format!("top/flow/{id}")).unwrap());
        Self { store, door, system, ports }
    }

    fn lines(&self) -> usize {
        self.store.lines(Scope::Flow, &"top/flow".into()).unwrap().len()
    }

    async fn add(&self, more: u64) -> [u64; 2] {
        let [one, two] = &self.ports;
        [one.call(more).await.unwrap().value, two.call(more).await.unwrap().value]
    }
}

fn is_line(event: &Event) -> bool {
    matches!(event, Event::LineDrawn { children: 2, .. })
}

#[tokio::test(start_paused = true)]
async fn the_first_line_is_there_before_anybody_has_the_system() {
    let bed = Bed::new(Some(MINUTE)).await;
    assert_eq!(bed.lines(), 1);
    assert_eq!(bed.add(5).await, [5, 5]);
    bed.system.rollback("top/flow", To::Latest).await.unwrap();
    assert_eq!(bed.add(1).await, [1, 1], "from the very beginning");
    let bed = Bed::new(None).await;
    assert_eq!(bed.lines(), 0, "by hand only");
    let error = bed.system.rollback("top/flow", To::Latest).await.unwrap_err();
    assert!(matches!(error, RollbackError::NoneValid { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_line_is_drawn_every_period_when_there_is_something_new_to_say() {
    let bed = Bed::new(Some(MINUTE)).await;
    let began = tokio::time::Instant::now();
    let mut events = bed.system.events();
    for round in 1..=3_u32 {
        bed.add(1).await;
        events.wait_for(is_line).await.unwrap();
        assert_eq!(began.elapsed(), round * MINUTE);
    }
    // Not to the very moment at which one is due.
    let quiet = tokio::time::timeout(MINUTE * 21 / 2, events.wait_for(is_line)).await;
    assert!(quiet.is_err(), "nothing was new");
    bed.add(1).await;
    bed.system.rollback("top/flow", To::Latest).await.unwrap();
    let quiet = tokio::time::timeout(10 * MINUTE, events.wait_for(is_line)).await;
    assert!(quiet.is_err(), "what was returned to is not kept once more");
    assert_eq!(bed.add(10).await, [13, 13]);
    events.wait_for(is_line).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn nobody_stands_still_for_long_for_a_step_that_takes_its_time() {
    for (period, patience) in [(MINUTE, SECOND), (5 * SECOND, SECOND / 2)] {
        let bed = Bed::new(Some(period)).await;
        let mut events = bed.system.events();
        let [one, two] = bed.ports.clone();
        let slow = tokio::spawn(async move { one.call(0_u64).await.unwrap().value });
        two.call(1_u64).await.unwrap();
        let began = tokio::time::Instant::now();
        let missed = |event: &Event| matches!(event, Event::LineMissed { .. });
        let event = events.wait_for(missed).await.unwrap().event;
        let Event::LineMissed { supervisor, reason } = event else { unreachable!() };
        assert_eq!(supervisor.as_str(), "top/flow");
        assert!(reason.contains("to stand still"), "{reason}");
        assert_eq!(began.elapsed(), period + patience);
        // The other is not held any more.
        assert_eq!(two.call(1_u64).await.unwrap().value, 2);
        assert_eq!(began.elapsed(), period + patience);
        bed.door.notify_one();
        assert_eq!(slow.await.unwrap(), 0);
        events.wait_for(is_line).await.unwrap();
        assert_eq!(began.elapsed(), 2 * period + patience);
        bed.system.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_process_draws_no_line_that_is_there_already() {
    let bed = Bed::new(Some(MINUTE)).await;
    bed.add(1).await;
    bed.system.events().wait_for(is_line).await.unwrap();
    assert_eq!(bed.lines(), 2);
    bed.system.stop().await;
    let bed = Bed::on(bed.store, Some(MINUTE)).await;
    assert_eq!(bed.lines(), 2);
    assert_eq!(bed.add(1).await, [2, 2]);
}

#[tokio::test(start_paused = true)]
async fn lines_that_cannot_be_drawn_are_refused_by_name() {
    let none = SupervisorSpec::one_for_one("top").lines_every(MINUTE);
    let error = none.validate().unwrap_err();
    assert!(matches!(error, SpecError::BadCombination { .. }), "{error}");
    assert!(error.to_string().contains("lines_every"), "{error}");
    let none = SupervisorSpec::dynamic("top").lines_every(MINUTE);
    let error = none.validate().unwrap_err();
    assert!(error.to_string().contains("no durable, stateful child below"), "{error}");
    let error = flow(&Arc::default()).lines_every(Duration::ZERO).validate().unwrap_err();
    assert!(error.to_string().contains("the time between recovery lines"), "{error}");
    let late = flow(&Arc::default()).lines_every(VALIDITY).validate().unwrap_err();
    assert!(late.to_string().contains("less than 3600s"), "{late}");
    flow(&Arc::default()).lines_every(VALIDITY - SECOND).validate().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_quiet_system_has_a_line_that_can_be_returned_to_at_any_time() {
    for period in [10 * MINUTE, 50 * MINUTE] {
        let bed = Bed::new(Some(period)).await;
        let mut events = bed.system.events();
        assert_eq!(bed.add(5).await, [5, 5]);
        events.wait_for(is_line).await.unwrap();
        let before = bed.lines();
        let never = events.wait_for(|event| matches!(event, Event::RollbackFailed { .. }));
        assert!(tokio::time::timeout(5 * VALIDITY, never).await.is_err());
        let drawn = bed.lines() - before;
        assert!((4..=8).contains(&drawn), "one before each is too old: {drawn}");
        bed.system.rollback("top/flow", To::Latest).await.unwrap();
        assert_eq!(bed.add(1).await, [6, 6]);
        events.wait_for(is_line).await.unwrap();
        bed.system.stop().await;
        // As long as the process is down, nobody draws any.
        tokio::time::advance(2 * VALIDITY).await;
        let bed = Bed::on(bed.store, Some(period)).await;
        bed.system.rollback("top/flow", To::Latest).await.unwrap();
        assert_eq!(bed.add(1).await, [7, 7]);
        bed.system.stop().await;
    }
}
