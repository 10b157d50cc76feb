//! An act whose asker has left while its tool is at work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use mainstay::behavior::{Behavior, Call, Context, Stateful, Stateless, Step, Turn};
use mainstay::checkpoint::{MemoryStore, Schema, Scope, Snapshot, Store};
use mainstay::error::{CallError, CheckpointError};
use mainstay::event::Event;
use mainstay::fate::Fate;
use mainstay::fault::{EffectKind, Fault};
use mainstay::journal::Journaled;
use mainstay::ledger::{EffectCounts, NOTHING_TO_UNDO};
use mainstay::policy::Policy;
use mainstay::port::{CallOptions, Needs, Port, Verified};
use mainstay::spec::{ChildSpec, SupervisorSpec};
use mainstay::system::{System, To};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize, Serializer};
use tokio::sync::Notify;

/// A bank that takes its time: a payment is under way until the bank is told to go on.
#[derive(Default)]
pub(super) struct Till {
    log: Mutex<Vec<String>>,
    pub(super) begun: Notify,
    pub(super) goes_on: Notify,
    /// Somebody takes its time about something else.
    pub(super) blocked: Notify,
    pub(super) unblocks: Notify,
    /// Undoing takes until it is unblocked.
    pub(super) undo_waits: AtomicBool,
    /// What comes of an undo, if not the undo.
    pub(super) undo_fails: Mutex<Option<Fault>>,
    /// How often was asked whether it was paid.
    pub(super) looks: AtomicU32,
}

impl Till {
    pub(super) fn log(&self) -> Vec<String> {
        self.log.lock().clone()
    }

    fn has_paid(&self) -> bool {
        self.log.lock().iter().any(|line| line == "paid")
    }
}

#[derive(Clone)]
pub(super) struct Clerk(pub(super) Arc<Till>);

impl Behavior for Clerk {
    type Request = String;
    type Reply = Slip;
}

/// What a payment is answered with; one of a torn one cannot be written down.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct Slip(pub(super) u32);

const TORN: u32 = 13;
const LARGE: u32 = 100;
/// It is paid, and then it fails.
pub(super) const FAILS: u32 = 66;

impl Serialize for Slip {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        assert!(self.0 != TORN, "it is torn");
        self.0.serialize(to)
    }
}

impl Stateless for Clerk {
    async fn serve(&self, order: &String, _: &Context) -> Result<Slip, Fault> {
        if order == "undo" {
            if self.0.undo_waits.load(Ordering::SeqCst) {
                self.0.blocked.notify_one();
                self.0.unblocks.notified().await;
            }
            if let Some(fault) = self.0.undo_fails.lock().clone() {
                return Err(fault);
            }
            self.0.log.lock().push("undone".to_owned());
            return Ok(Slip(0));
        }
        if order == "block" {
            self.0.blocked.notify_one();
            self.0.unblocks.notified().await;
            return Ok(Slip(0));
        }
        self.0.log.lock().push("begun".to_owned());
        self.0.begun.notify_one();
        self.0.goes_on.notified().await;
        self.0.log.lock().push("paid".to_owned());
        Ok(Slip(order.parse().unwrap()))
    }
}

/// Says whether it was paid.
#[derive(Clone)]
pub(super) struct Looks(pub(super) Arc<Till>);

impl Behavior for Looks {
    type Request = ();
    type Reply = bool;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Read);
}

impl Stateless for Looks {
    async fn serve(&self, (): &(), _: &Context) -> Result<bool, Fault> {
        self.0.looks.fetch_add(1, Ordering::SeqCst);
        Ok(self.0.has_paid())
    }
}

/// Takes its siblings along.
#[derive(Clone)]
pub(super) struct Bomb;

impl Behavior for Bomb {
    type Request = ();
    type Reply = ();
}

impl Stateful for Bomb {
    async fn step(&mut self, (): &(), _: Turn, _: &Context) -> Result<Step<()>, Fault> {
        panic!("it goes off");
    }
}

/// Pays, and remembers how much.
#[derive(Clone, Default)]
pub(super) struct Payer {
    paid: Arc<u32>,
}

impl Behavior for Payer {
    type Request = u32;
    type Reply = u32;

    fn needs() -> Needs {
        Needs::none().needs::<Port<String, Slip>>("clerk").needs::<Port<(), bool>>("looks")
    }
}

impl Stateful for Payer {
    async fn step(&mut self, amount: &u32, turn: Turn, ctx: &Context) -> Result<Step<u32>, Fault> {
        if *amount == 0 {
            return Ok(Step::Reply(*self.paid));
        }
        if let Turn::Performed(performed) = &turn {
            self.paid = Arc::new(*self.paid + performed.get::<Slip>(0)?.value.0);
            if *amount == FAILS {
                return Err(Fault::business("it was not to be paid"));
            }
            return Ok(Step::Reply(*self.paid));
        }
        let clerk = ctx.port::<String, Slip>("clerk")?;
        let looks = ctx.port::<(), bool>("looks")?;
        // For a large one there is a second.
        let time = CallOptions::new().deadline(if *amount < LARGE { HOUR * 24 } else { SECOND });
        let act = clerk.effect_with(amount.to_string(), time).verify(&looks, (), |paid| {
            if *paid { Verified::Happened(Slip(0)) } else { Verified::NotHappened }
        });
        // An even amount is given back where it is to be.
        let act = if amount.is_multiple_of(2) { act.undo(&clerk, "undo") } else { act };
        Ok(Step::Perform(vec![Call::from(act)]))
    }

    fn schema() -> Option<Schema> {
        Some(Schema::new("payer", 1).field::<u32>("paid"))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("payer", 1).with("paid", Arc::clone(&self.paid)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.paid = snapshot.get("paid")?;
        Ok(())
    }
}

/// A shop whose bank's acts are of this kind, and whose supervisor has this scope.
async fn shop(kind: EffectKind, scope: Scope, at_once: u32) -> (System, Arc<Till>) {
    let (till, store): (Arc<Till>, Arc<dyn Store>) = (Arc::default(), Arc::new(MemoryStore::new()));
    let system = shop_on(&till, &store, kind, scope, at_once).await;
    (system, till)
}

async fn shop_on(
    till: &Arc<Till>,
    store: &Arc<dyn Store>,
    kind: EffectKind,
    scope: Scope,
    at_once: u32,
) -> System {
    let (clerk, looks) = (Clerk(Arc::clone(till)), Looks(Arc::clone(till)));
    let clerk = ChildSpec::stateless("clerk", move || clerk.clone())
        .effect(kind)
        .policy(Policy::without_retries())
        .attempt_timeout(HOUR)
        .concurrency(at_once)
        .recorded::<Clerk>();
    let flow = SupervisorSpec::rest_for_one("flow")
        .scope(scope)
        .intensity(10, HOUR)
        .child(ChildSpec::stateful("bomb", || Bomb))
        .child(ChildSpec::stateful("payer", Payer::default).durable::<Payer>());
    let spec = SupervisorSpec::one_for_one("shop")
        .child(clerk)
        .child(ChildSpec::stateless("looks", move || looks.clone()))
        .supervisor(flow);
    System::recover(spec, Arc::clone(store)).await.unwrap().0
}

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const HOUR: Duration = Duration::from_secs(3600);

/// Once something is written down of the act.
pub(super) async fn told(system: &System, status: &'static str) {
    let mut events = system.events();
    let told = |event: &Event| matches!(event, Event::Effect { status: now, .. } if *now == status);
    tokio::time::timeout(HOUR, events.wait_for(told)).await.expect(status);
}

pub(super) fn payer(system: &System) -> Port<u32, u32> {
    system.port::<u32, u32>("shop/flow/payer").unwrap()
}

/// How somebody leaves while the act of its request is under way; the fate that is told.
async fn leaves(system: &System, till: &Till, amount: u32, how: &str) -> Option<Journaled> {
    let options = CallOptions::new().key("k");
    match how {
        "deadline" => {
            let call = payer(system).call_with(amount, options.deadline(SECOND)).await;
            call.expect_err("it is late");
        }
        _ => {
            let port = payer(system);
            let call = port.call_with(amount, options);
            tokio::select! {
                _ = call => panic!("the bank takes its time"),
                () = till.begun.notified() => {}
            }
            let mut events = system.events();
            let fated = |event: &Event| matches!(event, Event::Fated { .. });
            events.wait_for(fated).await.unwrap();
        }
    }
    system.journaled("k")
}

#[tokio::test(start_paused = true)]
async fn an_act_whose_asker_has_left_is_finished_and_its_outcome_recorded() {
    for how in ["deadline", "left"] {
        let (system, till) = shop(EffectKind::Irreversible, Scope::Flow, 1).await;
        let fate = leaves(&system, &till, 5, how).await;
        assert_eq!(fate, Some(Journaled::Fated(Fate::Unknown, None)), "{how}");
        assert_eq!(system.effects().counts().intended, 1, "{how}");
        assert_eq!(payer(&system).call(0_u32).await.unwrap().value, 0, "the payer is free");
        till.goes_on.notify_one();
        told(&system, "confirmed").await;
        assert_eq!(till.log(), ["begun", "paid"], "{how}");
        let counts = EffectCounts { confirmed: 1, ..EffectCounts::default() };
        assert_eq!(system.effects().counts(), counts, "{how}");
        assert!(system.fates().is_balanced());
        system.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_act_is_not_undone_before_its_tool_is_done_with_it() {
    for how in ["deadline", "left"] {
        let (system, till) = shop(EffectKind::Compensable, Scope::Transaction, 4).await;
        let fate = leaves(&system, &till, 4, how).await;
        let expected = if how == "deadline" { Fate::Expired } else { Fate::Cancelled };
        assert_eq!(fate, Some(Journaled::Fated(expected, None)), "it is undone, as a whole");
        assert_eq!(payer(&system).call(0_u32).await.unwrap().value, 0, "{how}");
        assert_eq!(till.log(), ["begun"], "{how}");
        till.goes_on.notify_one();
        told(&system, "compensated").await;
        assert_eq!(till.log(), ["begun", "paid", "undone"], "{how}");
        system.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_finds_nothing_to_undo_has_undone_it_and_any_other_fault_calls_a_person() {
    for found_nothing in [true, false] {
        let (system, till) = shop(EffectKind::Compensable, Scope::Transaction, 4).await;
        let fault = Fault::business("there is no such payment");
        let fault = if found_nothing { fault.with_code(NOTHING_TO_UNDO) } else { fault };
        *till.undo_fails.lock() = Some(fault);
        leaves(&system, &till, 4, "left").await;
        let mut events = system.events();
        till.goes_on.notify_one();
        told(&system, if found_nothing { "compensated" } else { "stuck" }).await;
        let called = events.wait_for(|it| matches!(it, Event::UndoStopped { .. }));
        let called = tokio::time::timeout(SECOND, called).await.is_ok();
        assert_eq!(called, !found_nothing);
        assert_eq!(system.stats().alerts, u64::from(!found_nothing));
        if !found_nothing {
            let open = system.effects().open();
            assert_eq!(open.len(), 1);
            system.effects().undone(open[0].key).await.unwrap();
        }
        let counts = EffectCounts { compensated: 1, ..EffectCounts::default() };
        assert_eq!(system.effects().counts(), counts);
        system.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_rollback_by_hand_waits_for_the_act_that_it_undoes() {
    let (system, till) = shop(EffectKind::Compensable, Scope::Transaction, 4).await;
    assert_eq!(payer(&system).call(0_u32).await.unwrap().value, 0);
    system.checkpoint("shop/flow").await.unwrap();
    let port = payer(&system);
    let call = tokio::spawn(async move { port.call(4_u32).await.unwrap().value });
    till.begun.notified().await;
    let rollback = system.rollback("shop/flow", To::Latest);
    let mut events = system.events();
    let goes_on = async {
        let stops = |event: &Event| matches!(event, Event::Interrupted { .. });
        events.wait_for(stops).await.unwrap();
        // Time enough for an undo that does not wait.
        tokio::time::timeout(SECOND, events.wait_for(|_| false)).await.unwrap_err();
        till.goes_on.notify_one();
    };
    let (report, ()) = tokio::join!(rollback, goes_on);
    assert_eq!(report.unwrap().undone.len(), 1);
    till.goes_on.notify_one();
    assert_eq!(call.await.unwrap(), 4);
    assert_eq!(till.log(), ["begun", "paid", "undone", "begun", "paid"]);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_is_done_again_waits_for_the_act_that_it_has_left_behind() {
    for kind in [EffectKind::Verifiable, EffectKind::Irreversible] {
        let (system, till) = shop(kind, Scope::Flow, 4).await;
        let port = payer(&system);
        let call = tokio::spawn(async move { port.call(5_u32).await.unwrap().value });
        till.begun.notified().await;
        let mut events = system.events();
        system.port::<(), ()>("shop/flow/bomb").unwrap().call(()).await.unwrap_err();
        // Time enough for whoever does not wait.
        let _ = tokio::time::timeout(SECOND, events.wait_for(|_| false)).await;
        assert_eq!(till.log(), ["begun"], "{kind:?}");
        till.goes_on.notify_one();
        assert_eq!(call.await.unwrap(), 5, "{kind:?}");
        assert_eq!(till.log(), ["begun", "paid"], "{kind:?}");
        system.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_act_that_its_tool_has_not_begun_is_taken_back_when_its_asker_leaves() {
    let (system, till) = shop(EffectKind::Irreversible, Scope::Flow, 1).await;
    system.port::<String, Slip>("shop/clerk").unwrap().cast("1").unwrap();
    till.begun.notified().await;
    let fate = leaves(&system, &till, 5, "deadline").await;
    // It is taken back in the same moment.
    assert!(
        matches!(fate, Some(Journaled::Fated(Fate::Expired | Fate::Unknown, None))),
        "{fate:?}"
    );
    till.goes_on.notify_one();
    system.stop().await;
    assert_eq!(till.log(), ["begun", "paid"], "only what was begun before");
    assert_eq!(system.effects().counts(), EffectCounts::default(), "it has not happened");
}

#[tokio::test(start_paused = true)]
async fn an_act_whose_result_panics_when_it_is_written_down_is_in_doubt_and_waits_for_nobody() {
    let (system, till) = shop(EffectKind::Irreversible, Scope::Flow, 1).await;
    till.goes_on.notify_one();
    let error = payer(&system).call_with(TORN, CallOptions::new().key("k")).await.unwrap_err();
    assert!(matches!(error, CallError::Unknown { .. }), "{error}");
    assert_eq!(system.effects().counts().unknown, 1);
    assert_eq!(payer(&system).call(0_u32).await.unwrap().value, 0);
    tokio::time::timeout(HOUR, system.stop()).await.expect("nothing is left behind");
}

#[tokio::test(start_paused = true)]
async fn an_act_that_is_finished_while_the_system_stops_is_not_done_again_by_the_next() {
    let (till, store): (Arc<Till>, Arc<dyn Store>) = (Arc::default(), Arc::new(MemoryStore::new()));
    let system = shop_on(&till, &store, EffectKind::Irreversible, Scope::Flow, 1).await;
    payer(&system).submit(5_u32, CallOptions::new().key("k")).await.unwrap();
    till.begun.notified().await;
    let mut events = system.events();
    let goes_on = async {
        let stops = |event: &Event| matches!(event, Event::Interrupted { .. });
        events.wait_for(stops).await.unwrap();
        till.goes_on.notify_one();
    };
    tokio::join!(system.stop(), goes_on);
    let system = shop_on(&till, &store, EffectKind::Irreversible, Scope::Flow, 1).await;
    let mut events = system.events();
    while !matches!(system.journaled("k"), Some(Journaled::Fated(..))) {
        events.next().await.unwrap();
    }
    let done = Some(Journaled::Fated(Fate::Done, Some("5".to_owned())));
    assert_eq!((system.journaled("k"), till.log().len()), (done, 2));
}

#[tokio::test(start_paused = true)]
async fn an_act_that_its_tool_is_late_with_is_waited_for_before_anybody_asks_or_undoes() {
    for kind in [EffectKind::Verifiable, EffectKind::Compensable, EffectKind::Irreversible] {
        let (system, till) = shop(kind, Scope::Transaction, 4).await;
        let port = payer(&system);
        let call = tokio::spawn(async move { port.call(LARGE).await.map(|paid| paid.value) });
        till.begun.notified().await;
        let mut events = system.events();
        let late = |event: &Event| matches!(event, Event::Fated { fate: Fate::Unknown, .. });
        events.wait_for(late).await.unwrap();
        // Time enough for whoever does not wait.
        tokio::time::timeout(SECOND, events.wait_for(|_| false)).await.unwrap_err();
        assert_eq!(till.log(), ["begun"], "{kind:?}");
        till.goes_on.notify_one();
        assert_eq!(call.await.unwrap().unwrap(), LARGE, "{kind:?}");
        assert_eq!(till.log(), ["begun", "paid"], "{kind:?}");
        let counts = EffectCounts { confirmed: 1, ..EffectCounts::default() };
        assert_eq!(system.effects().counts(), counts, "{kind:?}");
        system.stop().await;
    }
}

/// Thinks until the bank goes on, and pays then.
#[derive(Clone)]
struct Thinker(Arc<Till>);

impl Behavior for Thinker {
    type Request = u32;
    type Reply = u32;

    fn needs() -> Needs {
        Needs::none().needs::<Port<String, Slip>>("clerk")
    }
}

impl Stateful for Thinker {
    async fn step(&mut self, amount: &u32, turn: Turn, ctx: &Context) -> Result<Step<u32>, Fault> {
        if let Turn::Performed(performed) = &turn {
            return Ok(Step::Reply(performed.get::<Slip>(0)?.value.0));
        }
        if *amount == 0 {
            return Ok(Step::Reply(0));
        }
        self.0.goes_on.notified().await;
        let clerk = ctx.port::<String, Slip>("clerk")?;
        Ok(Step::Perform(vec![Call::from(clerk.effect(amount.to_string()))]))
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_that_asks_for_an_act_after_the_fate_of_its_request_does_not_act() {
    let till = Arc::<Till>::default();
    let (clerk, thinker) = (Clerk(Arc::clone(&till)), Thinker(Arc::clone(&till)));
    let clerk = ChildSpec::stateless("clerk", move || clerk.clone())
        .effect(EffectKind::Irreversible)
        .policy(Policy::without_retries());
    let spec = SupervisorSpec::one_for_one("shop")
        .child(clerk)
        .child(ChildSpec::stateful("thinker", move || thinker.clone()));
    let system = System::start(spec).await.unwrap();
    let port = system.port::<u32, u32>("shop/thinker").unwrap();
    let mut events = system.events();
    let error = port.call_with(5_u32, CallOptions::new().deadline(SECOND)).await.unwrap_err();
    assert!(matches!(error, CallError::Expired { .. }), "{error}");
    till.goes_on.notify_one();
    assert_eq!(port.call(0_u32).await.unwrap().value, 0, "it is at its next request");
    let acts = events.wait_for(|event| matches!(event, Event::Effect { .. }));
    let begun = tokio::time::timeout(SECOND, acts).await;
    assert!(begun.is_err(), "not even its intent: {begun:?}");
    system.stop().await;
    assert_eq!(till.log(), Vec::<String>::new());
    assert_eq!(system.effects().counts(), EffectCounts::default());
}
