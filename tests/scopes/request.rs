//! A request that its own rollback did not mend has the scopes above it return to their lines.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use mainstay::behavior::{Behavior, Context, Stateful, Step, Turn};
use mainstay::checkpoint::{MemoryStore, Retention, Scope, Snapshot, Store};
use mainstay::clock::{Clock, TokioClock};
use mainstay::decision::{Action, Declined, Rung};
use mainstay::error::{CallError, CheckpointError};
use mainstay::event::{Event, EventStream};
use mainstay::fate::Trail;
use mainstay::fault::{Class, EffectKind, Fault};
use mainstay::moment::Moment;
use mainstay::points::{Choice, Point, PointSpec};
use mainstay::policy::Policy;
use mainstay::port::{CallOptions, Needs, Port};
use mainstay::spec::{ChildSpec, SupervisorSpec};
use mainstay::system::{RecoverOptions, System, SystemOptions, To};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Order {
    Add(u64),
    /// Done in two steps, of which the second fails like this unless the sum is at most so much.
    AtMost(u64, Class),
    /// Never ends.
    Never,
}

/// How often the second step was begun.
type Attempts = Arc<AtomicU32>;

#[derive(Clone)]
struct Clerk {
    sum: Arc<u64>,
    half: Arc<bool>,
    attempts: Attempts,
}

impl Behavior for Clerk {
    type Request = Order;
    type Reply = u64;
}

impl Stateful for Clerk {
    async fn step(&mut self, order: &Order, _: Turn, _: &Context) -> Result<Step<u64>, Fault> {
        match *order {
            Order::Never => std::future::pending().await,
            Order::Add(n) => self.sum = Arc::new(*self.sum + n),
            Order::AtMost(..) if !*self.half => {
                self.half = Arc::new(true);
                return Ok(Step::Continue);
            }
            Order::AtMost(most, class) => {
                self.attempts.fetch_add(1, Ordering::SeqCst);
                if *self.sum > most {
                    return Err(Fault::new(class, "the sum is too large"));
                }
                self.half = Arc::new(false);
            }
        }
        Ok(Step::Reply(*self.sum))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        let snapshot = Snapshot::new("clerk", 1).with("sum", Arc::clone(&self.sum));
        Some(snapshot.with("half", Arc::clone(&self.half)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.sum = snapshot.get("sum")?;
        self.half = snapshot.get("half")?;
        Ok(())
    }
}

/// Has the first clerk do it.
#[derive(Clone)]
struct Boss(Arc<u64>);

impl Behavior for Boss {
    type Request = Order;
    type Reply = u64;

    fn needs() -> Needs {
        Needs::none().needs::<Port<Order, u64>>("a0")
    }
}

impl Stateful for Boss {
    async fn step(&mut self, order: &Order, turn: Turn, ctx: &Context) -> Result<Step<u64>, Fault> {
        if let Turn::Performed(performed) = turn {
            return Ok(Step::Reply(*performed.get::<u64>(0)?.value));
        }
        let clerk = ctx.port::<Order, u64>("a0")?;
        Ok(Step::Perform(vec![clerk.ask(*order)]))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("boss", 1).with("asked", Arc::clone(&self.0)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.0 = snapshot.get("asked")?;
        Ok(())
    }
}

struct Office {
    system: System,
    events: EventStream,
    attempts: Attempts,
    store: Arc<dyn Store>,
}

impl Office {
    /// Two clerks and their boss in `top/flow`; a line of each scope says that the clerks' sums are 0
    /// (of `top`) and 10 (of `top/flow`). What follows is in no line.
    async fn open(policy: Policy) -> Self {
        Self::with(policy, SystemOptions::new()).await
    }

    async fn with(policy: Policy, options: SystemOptions) -> Self {
        Self::of(policy, options, Scope::Flow).await
    }

    async fn of(policy: Policy, options: SystemOptions, scope: Scope) -> Self {
        let attempts = Attempts::default();
        let mut flow = SupervisorSpec::one_for_one("flow").scope(scope).policy(policy);
        for id in ["a0", "a1"] {
            let attempts = Arc::clone(&attempts);
            let made = move || Clerk {
                sum: Arc::new(0),
                half: Arc::new(false),
                attempts: Arc::clone(&attempts),
            };
            // What is done may be done again.
            let clerk =
                ChildSpec::stateful(id, made).effect(EffectKind::Idempotent).durable::<Clerk>();
            flow = flow.child(clerk);
        }
        let boss = ChildSpec::stateful("boss", || Boss(Arc::new(0))).effect(EffectKind::Idempotent);
        let flow = flow.child(boss.durable::<Boss>());
        let top = SupervisorSpec::one_for_one("top").scope(Scope::Session).supervisor(flow);
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let mut recover = RecoverOptions::default();
        recover.system = options;
        let (system, _) = System::recover_with(top, Arc::clone(&store), recover).await.unwrap();
        let office = Self { events: system.events(), system, attempts, store };
        office.add(0).await;
        office.system.checkpoint("top").await.unwrap();
        office.add(10).await;
        office.system.checkpoint("top/flow").await.unwrap();
        office.add(1000).await;
        office
    }

    fn port(&self, id: &str) -> Port<Order, u64> {
        self.system.port(format!("top/flow/{id}")).unwrap()
    }

    async fn add(&self, n: u64) {
        for id in ["a0", "a1"] {
            self.port(id).call(Order::Add(n)).await.unwrap();
        }
    }

    async fn sums(&self) -> [u64; 2] {
        let mut sums = [0; 2];
        for (sum, id) in sums.iter_mut().zip(["a0", "a1"]) {
            *sum = self.port(id).call(Order::Add(0)).await.unwrap().value;
        }
        sums
    }

    /// Waits for the next point.
    async fn asked(&mut self) -> Point {
        let opened = |event: &Event| matches!(event, Event::PointOpened { .. });
        self.events.wait_for(opened).await.unwrap();
        self.system.points().open().remove(0)
    }

    /// Who has pinned something of the first clerk.
    fn pins(&self) -> Vec<String> {
        let all = self.store.checkpoints(&"top/flow/a0".into()).unwrap();
        let pins = all.into_iter().flat_map(|listed| listed.pins);
        pins.map(|pin| pin.owner).filter(|owner| owner.contains("a point at")).collect()
    }

    /// Which supervisors have returned, and which could not, in order; and who was told of the latter.
    fn returned(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(event) = self.events.try_next() {
            match event.event {
                Event::ScopeRolledBack { at, .. } => all.push(at.to_string()),
                Event::RollbackFailed { at, .. } => all.push(format!("not {at}")),
                Event::RollbackExhausted { reasons, .. } => {
                    all.push(format!("{} reasons", reasons.len()));
                }
                Event::Alert { .. } => all.push("alert".to_owned()),
                _ => {}
            }
        }
        all
    }
}

fn actions(trail: &Trail) -> Vec<&'static str> {
    trail.iter().map(|attempt| attempt.action.name()).collect()
}

fn spent(error: &CallError<Order>) -> &Trail {
    match error {
        CallError::RecoveryExhausted { trail, .. } => trail,
        other => panic!("{other}"),
    }
}

fn no_retries() -> Policy {
    Policy::without_retries()
}

#[tokio::test(start_paused = true)]
async fn a_request_that_its_own_rollback_does_not_mend_has_its_flow_return_and_is_answered() {
    let mut office = Office::open(no_retries()).await;
    let order = Order::AtMost(10, Class::ToolExecution);
    let answer = office.port("a0").call(order).await.unwrap();
    assert_eq!(answer.value, 10, "from the line of the flow");
    assert_eq!(actions(&answer.trail), ["rollback", "widen"]);
    assert_eq!(office.attempts.load(Ordering::SeqCst), 3);
    assert_eq!(office.sums().await, [10, 10], "the other clerk has returned with it");
    assert_eq!(office.returned(), ["top/flow"]);
    assert!(office.system.fates().is_balanced(), "{:?}", office.system.fates());
}

/// People set the clock on their walls as they like.
#[derive(Debug, Default)]
struct Wall {
    real: TokioClock,
    back: AtomicBool,
}

impl Clock for Wall {
    fn now(&self) -> Moment {
        self.real.now()
    }

    fn wall(&self) -> SystemTime {
        let back = if self.back.load(Ordering::SeqCst) { 1800 } else { 0 };
        self.real.wall() - Duration::from_secs(back)
    }

    fn sleep_until(&self, at: Moment) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.real.sleep_until(at)
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_makes_no_line_younger_or_older_than_it_is() {
    // Back after the lines were drawn: they are no younger than the failure.
    let clock = Arc::<Wall>::default();
    let options = || SystemOptions::new().clock(Arc::clone(&clock) as Arc<dyn Clock>);
    let mut office = Office::with(no_retries(), options()).await;
    clock.back.store(true, Ordering::SeqCst);
    let order = Order::AtMost(10, Class::ToolExecution);
    assert_eq!(office.port("a0").call(order).await.unwrap().value, 10);
    assert_eq!(office.returned(), ["top/flow"]);
    // Back between a failure and a line: that is no older for it.
    clock.back.store(false, Ordering::SeqCst);
    let mut office = Office::with(Policy::playbook_exact(), options()).await;
    let port = office.port("a0");
    let call = tokio::spawn(async move { port.call(Order::AtMost(10, Class::Network)).await });
    let failed = |event: &Event| matches!(event, Event::Failed { attempt: 1, .. });
    office.events.wait_for(failed).await.unwrap();
    clock.back.store(true, Ordering::SeqCst);
    office.system.checkpoint("top/flow").await.unwrap();
    assert_eq!(call.await.unwrap().unwrap().value, 10, "from the line before");
}

#[tokio::test(start_paused = true)]
async fn the_scopes_return_one_after_the_other_as_far_as_the_class_reaches() {
    // What no line mends ends, with every scope that it reaches tried once.
    let mut office = Office::open(no_retries()).await;
    office.add(5).await;
    let order = Order::AtMost(0, Class::Internal);
    let answer = office.port("a0").call(order).await.unwrap();
    assert_eq!(answer.value, 0, "from the line of the session");
    assert_eq!(actions(&answer.trail), ["rollback", "widen", "widen"]);
    assert_eq!(office.returned(), ["top/flow", "top"]);

    let mut office = Office::open(no_retries()).await;
    let order = Order::AtMost(0, Class::ToolExecution);
    let error = office.port("a0").call(order).await.unwrap_err();
    assert_eq!(actions(spent(&error)), ["rollback", "widen", "fail"]);
    let last = spent(&error).iter().last().unwrap().clone();
    let why = Declined::ScopeTooWide { scope: Scope::Session, widest: Scope::Flow };
    assert!(last.declined.contains(&(Rung::Rollback, why)), "{last:?}");
    assert_eq!(office.returned(), ["top/flow", "alert"]);

    let mut office = Office::open(no_retries()).await;
    let order = Order::AtMost(0, Class::OutputInvalid);
    let error = office.port("a0").call(order).await.unwrap_err();
    assert_eq!(actions(spent(&error)), ["rollback", "fail"]);
    assert_eq!(office.returned(), ["alert"]);
    assert_eq!(office.sums().await, [1010, 1010], "nobody else has noticed");
}

#[tokio::test(start_paused = true)]
async fn a_policy_can_leave_wider_rollbacks_to_people() {
    let policy = no_retries().with_widest_rollback(Scope::Step);
    let mut office = Office::open(policy).await;
    let order = Order::AtMost(10, Class::Internal);
    let error = office.port("a0").call(order).await.unwrap_err();
    assert_eq!(actions(spent(&error)), ["rollback", "fail"]);
    assert_eq!(office.returned(), ["alert"]);
}

#[tokio::test(start_paused = true)]
async fn a_line_that_was_returned_to_is_not_for_the_next_request_but_the_scope_above_is() {
    let mut office = Office::open(no_retries()).await;
    let order = Order::AtMost(10, Class::Internal);
    office.port("a0").call(order).await.unwrap();
    office.add(1000).await;
    assert_eq!(office.returned(), ["top/flow"]);
    let answer = office.port("a1").call(order).await.unwrap();
    assert_eq!((answer.value, actions(&answer.trail)), (0, vec!["rollback", "widen"]));
    assert_eq!(office.returned(), ["not top/flow", "top"]);
    // None is left: the reasons are told, once, and one alert.
    office.add(1000).await;
    let error = office.port("a0").call(order).await.unwrap_err();
    let last = spent(&error).iter().last().unwrap().clone();
    assert_eq!(actions(spent(&error)), ["rollback", "fail"]);
    assert!(last.declined.contains(&(Rung::Rollback, Declined::NoValidLine)), "{last:?}");
    assert_eq!(office.returned(), ["not top/flow", "not top", "2 reasons", "alert"]);
    assert_eq!(office.sums().await, [1000, 1000], "and work goes on");
    assert!(office.system.fates().is_balanced(), "{:?}", office.system.fates());
}

#[tokio::test(start_paused = true)]
async fn no_request_has_a_scope_of_high_risk_return_where_that_has_to_be_approved() {
    let options = SystemOptions::new().approvals(true);
    let mut office = Office::of(no_retries(), options, Scope::Transaction).await;
    let order = Order::AtMost(0, Class::Internal);
    let error = office.port("a0").call(order).await.unwrap_err();
    assert_eq!(actions(spent(&error)), ["rollback", "fail"]);
    // And the session above, which is of less risk and does more, is not returned in its place.
    assert_eq!(office.returned(), ["not top/flow", "1 reasons", "alert"]);
    assert_eq!(office.sums().await, [1010, 1010]);
}

#[tokio::test(start_paused = true)]
async fn people_are_asked_before_a_scope_returns_for_a_request() {
    let points = PointSpec::new().after_rollback(Duration::from_secs(60));
    let mut office = Office::with(no_retries(), SystemOptions::new().points(points)).await;
    let port = office.port("a0");
    let order = Order::AtMost(10, Class::ToolExecution);
    let call = tokio::spawn(async move { port.call(order).await });
    let opened = |event: &Event| matches!(event, Event::PointOpened { .. });
    let event = office.events.wait_for(opened).await.unwrap().event;
    let Event::PointOpened { point, proposed, .. } = event else { unreachable!() };
    assert_eq!(proposed, "widen");
    office.system.points().decide(point, Choice::Continue, "ann", "let it").unwrap();
    assert_eq!(call.await.unwrap().unwrap().value, 10);
    assert_eq!(office.returned(), ["top/flow"]);
}

/// Longer than a state is valid.
const LONG: Duration = Duration::from_secs(3601);

#[tokio::test(start_paused = true)]
async fn what_a_request_may_go_back_to_stays_valid_and_in_the_store_while_it_waits_for_a_person() {
    let points = || SystemOptions::new().points(PointSpec::new().after_rollback(8 * LONG));
    let order = Order::AtMost(10, Class::ToolExecution);
    for choice in [Choice::Continue, Choice::Abort] {
        let mut office = Office::with(no_retries(), points()).await;
        let drawn = office.store.lines(Scope::Flow, &"top/flow".into()).unwrap()[0].id;
        let port = office.port("a0");
        let call = tokio::spawn(async move { port.call(order).await });
        let point = office.asked().await;
        assert_eq!(point.proposed, "widen");
        assert_eq!(point.lines.len(), 2, "of the flow and of the session");
        assert_eq!(point.lines[0], drawn);
        assert_eq!(
            point.pinned.len(),
            2,
            "what it began with, and that it has gone back: {point:?}"
        );
        tokio::time::advance(LONG).await;
        // Others go on, and the store is tidied.
        for _ in 0..3 {
            office.port("a1").call(Order::Add(1)).await.unwrap();
            office.system.checkpoint("top/flow").await.unwrap();
        }
        let keep = Retention { checkpoints: 1, lines: 1 };
        office.store.retain(keep, office.system.clock().wall().into()).unwrap();
        assert_eq!(office.store.lines(Scope::Flow, &"top/flow".into()).unwrap().len(), 2);
        for id in &point.pinned {
            let pins = office.store.find(*id).unwrap().pins;
            assert!(pins.iter().any(|pin| pin.owner == "a point at top/flow/a0"), "{pins:?}");
        }
        office.system.points().decide(point.id, choice.clone(), "ann", "let it").unwrap();
        let answer = call.await.unwrap();
        match choice {
            Choice::Continue => {
                assert_eq!(answer.unwrap().value, 10);
                assert_eq!(office.returned(), ["top/flow"]);
                assert_ne!(office.pins(), [""; 0], "it might have failed again");
            }
            _ => {
                answer.unwrap_err();
                assert_eq!(office.pins(), [""; 0]);
                // By hand it is too old by now, as it would have been before.
                let error = office.system.rollback("top/flow", To::Line(drawn)).await.unwrap_err();
                assert!(error.to_string().contains("old"), "{error}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_too_old_when_a_person_was_asked_is_not_brought_back() {
    let points = SystemOptions::new().points(PointSpec::new().after_rollback(8 * LONG));
    let mut office = Office::with(no_retries(), points).await;
    tokio::time::advance(LONG).await;
    let port = office.port("a0");
    let order = Order::AtMost(10, Class::ToolExecution);
    let call = tokio::spawn(async move { port.call(order).await });
    let point = office.asked().await;
    assert_eq!(point.lines, []);
    assert!(!office.pins().iter().any(|owner| owner.starts_with("line-")), "{:?}", office.pins());
    office.system.points().decide(point.id, Choice::Continue, "ann", "let it").unwrap();
    call.await.unwrap().unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn whoever_asked_within_a_request_has_the_flow_return_and_not_the_one_that_was_asked() {
    let mut office = Office::open(no_retries()).await;
    let order = Order::AtMost(10, Class::ToolExecution);
    let answer = office.port("boss").call(order).await.unwrap();
    assert_eq!((answer.value, actions(&answer.trail)), (10, vec!["widen"]));
    assert_eq!(office.returned(), ["top/flow"]);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_a_scope_to_return_still_expires_is_cancelled_and_stopped() {
    for how in ["deadline", "cancel", "stop"] {
        let mut office = Office::open(no_retries()).await;
        // It does not come to rest by itself, so the scope cannot return at once.
        let hung = office.port("a1");
        let hung = tokio::spawn(async move { hung.call(Order::Never).await });
        let port = office.port("a0");
        let seconds = if how == "stop" { 3600 } else { 1 };
        let options = CallOptions::new().deadline(Duration::from_secs(seconds));
        let order = Order::AtMost(10, Class::Internal);
        let call = tokio::spawn(async move { port.call_with(order, options).await });
        let widens = |event: &Event| match event {
            Event::Decided { decision, .. } => decision.action == Action::Widen,
            _ => false,
        };
        office.events.wait_for(widens).await.unwrap();
        match how {
            "deadline" => {
                let error = call.await.unwrap().unwrap_err();
                assert!(matches!(error, CallError::Expired { .. }), "{error}");
            }
            "cancel" => {
                call.abort();
                assert!(call.await.unwrap_err().is_cancelled());
            }
            _ => {
                office.system.stop().await;
                let error = call.await.unwrap().unwrap_err();
                assert!(matches!(error, CallError::Suspended { .. }), "{error}");
                let last = office.returned();
                assert!(last.iter().all(|what| what != "alert" && !what.ends_with("reasons")));
            }
        }
        hung.abort();
        let _ = hung.await;
        if how != "stop" {
            let is = |event: &Event| matches!(event, Event::ScopeRolledBack { .. });
            office.events.wait_for(is).await.unwrap();
            assert_eq!(office.sums().await, [10, 10]);
        }
        assert_eq!(office.attempts.load(Ordering::SeqCst), 2, "{how}: it was not done again");
        let fates = office.system.fates();
        assert!(fates.is_balanced(), "{how}: {fates:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_fail_together_are_returned_together() {
    let mut office = Office::open(no_retries()).await;
    // They stand in each other's way, so both have failed before the flow has returned for one of them.
    let hung = office.port("boss");
    let hung = tokio::spawn(async move { hung.call(Order::Never).await });
    let calls: Vec<_> = ["a0", "a1"]
        .map(|id| office.port(id))
        .map(|port| {
            tokio::spawn(async move { port.call(Order::AtMost(10, Class::Internal)).await })
        })
        .into();
    for call in calls {
        let answer = call.await.unwrap().unwrap();
        assert_eq!((answer.value, actions(&answer.trail)), (10, vec!["rollback", "widen"]));
    }
    hung.abort();
    assert_eq!(office.returned(), ["top/flow"], "once, and nothing wider");
}

#[tokio::test(start_paused = true)]
async fn a_line_that_was_drawn_after_the_failure_is_not_what_is_returned_to() {
    // The line is drawn while the request waits for its retry, in its middle and with the bad sum.
    let policy = Policy::playbook_exact();
    let mut office = Office::open(policy).await;
    let port = office.port("a0");
    let call = tokio::spawn(async move { port.call(Order::AtMost(10, Class::Network)).await });
    let failed = |event: &Event| matches!(event, Event::Failed { attempt: 1, .. });
    office.events.wait_for(failed).await.unwrap();
    tokio::time::advance(Duration::from_millis(100)).await;
    office.system.checkpoint("top/flow").await.unwrap();
    let answer = call.await.unwrap().unwrap();
    assert_eq!(answer.value, 10, "from the line before");
    assert_eq!(actions(&answer.trail)[3..], ["rollback", "widen"]);
    assert_eq!(office.sums().await, [10, 10]);
}

#[tokio::test(start_paused = true)]
async fn what_was_stored_after_a_line_that_was_returned_to_is_returned_to_by_nobody() {
    let mut office = Office::open(no_retries()).await;
    // Back to before the flow's line: that is of a future which has not been.
    office.system.rollback("top", To::Latest).await.unwrap();
    assert_eq!(office.sums().await, [0, 0]);
    office.add(1000).await;
    office.returned();
    let order = Order::AtMost(10, Class::ToolExecution);
    let error = office.port("a0").call(order).await.unwrap_err();
    assert_eq!(actions(spent(&error)), ["rollback", "fail"]);
    assert_eq!(office.returned(), ["not top/flow", "1 reasons", "alert"]);
    assert_eq!(office.sums().await, [1000, 1000]);
}
