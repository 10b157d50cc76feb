//! A request that cannot be mended goes back to where it began, and a transaction takes the world along.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mainstay::behavior::{Behavior, Call, Context, Stateful, Stateless, Step, Turn};
use mainstay::checkpoint::{MemoryStore, Scope, Snapshot, Store};
use mainstay::decision::{Declined, Rung};
use mainstay::error::{CallError, CheckpointError};
use mainstay::event::Event;
use mainstay::fault::{EffectKind, Fault};
use mainstay::id::CheckpointId;
use mainstay::points::PointSpec;
use mainstay::port::{CallOptions, Needs, Port};
use mainstay::spec::{ChildSpec, SupervisorSpec};
use mainstay::system::{RecoverOptions, System};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// What the bank has done, by idempotency key: the same key takes effect once.
#[derive(Default)]
struct Bank {
    done: Mutex<BTreeMap<String, Order>>,
    /// In the order in which they took place.
    log: Mutex<Vec<Order>>,
    /// Fails what is asked of this account.
    closed: Mutex<Option<Fault>>,
    /// The credit is never answered.
    hang: Mutex<bool>,
    /// Undoing fails.
    no_undo: Mutex<bool>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Order {
    Debit(u32),
    Credit(u32),
    Undo(Box<Order>),
    Notify(String),
}

#[derive(Clone)]
struct Desk(Arc<Bank>);

impl Behavior for Desk {
    type Request = Order;
    type Reply = ();
}

impl Stateless for Desk {
    async fn serve(&self, order: &Order, ctx: &Context) -> Result<(), Fault> {
        match order {
            Order::Credit(_) if *self.0.hang.lock() => std::future::pending().await,
            Order::Credit(_) => {
                if let Some(fault) = self.0.closed.lock().clone() {
                    return Err(fault);
                }
            }
            Order::Undo(_) if *self.0.no_undo.lock() => {
                return Err(Fault::business("the books are closed"));
            }
            _ => {}
        }
        if self.0.done.lock().insert(ctx.key(), order.clone()).is_none() {
            self.0.log.lock().push(order.clone());
        }
        Ok(())
    }
}

/// Moves an amount: debit, credit, notify. When it is rolled back it notifies and says so.
#[derive(Clone, Default)]
struct Teller {
    stage: Arc<u32>,
    moved: Arc<u32>,
    /// Whether a rollback is told to the user, or the transfer just tried again.
    gives_up: bool,
    /// Whether a failed order is a fault of its own work, which an older state might mend.
    own_fault: bool,
    /// What a rollback said of the acts before it.
    told: Option<Told>,
}

/// Kept, undone and unknown acts, each with what was asked and answered.
type Told = Arc<Mutex<Vec<(String, Option<String>)>>>;

impl Behavior for Teller {
    type Request = u32;
    type Reply = String;

    fn needs() -> Needs {
        Needs::none().needs::<Port<Order, ()>>("bank").needs::<Port<Order, ()>>("outbox")
    }
}

impl Stateful for Teller {
    async fn step(
        &mut self,
        amount: &u32,
        turn: Turn,
        ctx: &Context,
    ) -> Result<Step<String>, Fault> {
        let bank = ctx.port::<Order, ()>("bank")?;
        let outbox = ctx.port::<Order, ()>("outbox")?;
        match &turn {
            Turn::Performed(performed) => {
                let done = performed.get::<()>(0);
                if self.own_fault && done.is_err() {
                    return Err(Fault::output_invalid("the books do not add up"));
                }
                done?;
                self.stage = Arc::new(*self.stage + 1);
            }
            Turn::RolledBack(undone) if self.told.is_some() => {
                let acts = undone.acts.iter();
                let acts = acts
                    .map(|act| (act.request.to_string(), act.result.as_deref().map(str::to_owned)));
                self.told.as_ref().unwrap().lock().extend(acts);
            }
            Turn::RolledBack(_) if self.gives_up => self.stage = Arc::new(10),
            _ => {}
        }
        let call = match *self.stage {
            0 => {
                let debit = Order::Debit(*amount);
                bank.effect(debit.clone()).undo(&bank, Order::Undo(Box::new(debit)))
            }
            1 => {
                let credit = Order::Credit(*amount);
                bank.effect(credit.clone()).undo(&bank, Order::Undo(Box::new(credit)))
            }
            2 => outbox.effect(Order::Notify(format!("moved {amount}"))),
            10 => outbox.effect(Order::Notify(format!("could not move {amount}"))),
            stage => {
                self.stage = Arc::default();
                if stage == 3 {
                    self.moved = Arc::new(*self.moved + amount);
                    return Ok(Step::Reply(format!("moved, {} in all", self.moved)));
                }
                return Ok(Step::Reply("undone".to_owned()));
            }
        };
        Ok(Step::Perform(vec![Call::from(call)]))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        let snapshot = Snapshot::new("teller", 1).with("stage", Arc::clone(&self.stage));
        Some(snapshot.with("moved", Arc::clone(&self.moved)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.stage = snapshot.get("stage")?;
        self.moved = snapshot.get("moved")?;
        Ok(())
    }
}

fn spec(bank: &Arc<Bank>, scope: Scope, gives_up: bool) -> SupervisorSpec {
    let desk = Desk(Arc::clone(bank));
    let (one, other) = (desk.clone(), desk);
    SupervisorSpec::one_for_one("bank")
        .scope(scope)
        .child(
            ChildSpec::stateless("bank", move || one.clone())
                .effect(EffectKind::Compensable)
                .recorded::<Desk>(),
        )
        .child(ChildSpec::stateless("outbox", move || other.clone()).effect(EffectKind::Idempotent))
        .child(
            ChildSpec::stateful("teller", move || {
                let own_fault = scope == Scope::Flow;
                Teller { gives_up, own_fault, ..Teller::default() }
            })
            .durable::<Teller>(),
        )
}

async fn open(bank: &Arc<Bank>, scope: Scope, gives_up: bool) -> (System, Port<u32, String>) {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (system, _) = System::recover(spec(bank, scope, gives_up), store).await.unwrap();
    let teller = system.port::<u32, String>("bank/teller").unwrap();
    (system, teller)
}

fn compensated(event: &Event) -> bool {
    matches!(event, Event::Effect { status: "compensated", .. })
}

fn undo(order: Order) -> Order {
    Order::Undo(Box::new(order))
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_fails_is_undone_in_reverse_and_told_once() {
    let bank = Arc::new(Bank::default());
    let (system, teller) = open(&bank, Scope::Transaction, true).await;
    assert_eq!(teller.call(5_u32).await.unwrap().value, "moved, 5 in all");
    bank.log.lock().clear();
    *bank.closed.lock() = Some(Fault::business("the account is closed"));
    let mut events = system.events();
    assert_eq!(teller.call(7_u32).await.unwrap().value, "undone");
    let expected =
        [Order::Debit(7), undo(Order::Debit(7)), Order::Notify("could not move 7".to_owned())];
    assert_eq!(*bank.log.lock(), expected);
    *bank.closed.lock() = None;
    assert_eq!(teller.call(1_u32).await.unwrap().value, "moved, 6 in all");
    let mut rolled_back = 0;
    while let Some(event) = events.try_next() {
        if let Event::RolledBack { undone, kept, unknown, .. } = event.event {
            assert_eq!((undone, kept, unknown), (1, 0, 0));
            rolled_back += 1;
        }
    }
    assert_eq!(rolled_back, 1);
    let metrics = system.metrics();
    let counts = metrics.rollback_by_scope[&Scope::Transaction];
    assert_eq!((counts.entered, counts.recovered), (1, 1));
    assert_eq!(metrics.rollback_time[&Scope::Transaction].count, 1);
    assert_eq!(metrics.slo("S97").unwrap().met, Some(true));
    assert_eq!((metrics.recovery.entered, metrics.recovery.recovered), (2, 1), "the debtor's own");
}

#[tokio::test(start_paused = true)]
async fn a_state_that_is_taken_up_again_counts_for_integrity() {
    let bank = Arc::new(Bank::default());
    let (system, teller) = open(&bank, Scope::Flow, false).await;
    assert_eq!(teller.call(5_u32).await.unwrap().value, "moved, 5 in all");
    assert_eq!(system.metrics().slo("S52").unwrap().actual, None);
    let mut events = system.events();
    system.kill("bank/teller").unwrap();
    events.wait_for(|event| matches!(event, Event::Restored { .. })).await.unwrap();
    let integrity = system.metrics().slo("S52").unwrap().actual.unwrap();
    assert_eq!((integrity.value, integrity.samples), (1.0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_request_outside_a_transaction_is_done_again_once_and_its_acts_stand() {
    let bank = Arc::new(Bank::default());
    let (system, teller) = open(&bank, Scope::Flow, false).await;
    *bank.closed.lock() = Some(Fault::business("the account is closed"));
    let error = teller.call(7_u32).await.unwrap_err();
    let CallError::RecoveryExhausted { trail, .. } = &error else { panic!("{error}") };
    let actions: Vec<_> = trail.iter().map(|attempt| attempt.action.name()).collect();
    assert_eq!(actions, ["rollback", "fail"], "{error}");
    assert_eq!(*bank.log.lock(), [Order::Debit(7)], "the debit stands, and was made once");
    assert_eq!(system.effects().counts().confirmed, 1);
}

#[tokio::test(start_paused = true)]
async fn people_are_told_of_a_failed_rollback_and_asked_if_they_have_time() {
    for wait in [None, Some(Duration::from_secs(60))] {
        let bank = Arc::new(Bank::default());
        let mut options = RecoverOptions::default();
        if let Some(wait) = wait {
            options.system.points = PointSpec::new().after_rollback(wait);
        }
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let spec = spec(&bank, Scope::Flow, false);
        let (system, _) = System::recover_with(spec, store, options).await.unwrap();
        let teller = system.port::<u32, String>("bank/teller").unwrap();
        *bank.closed.lock() = Some(Fault::business("the account is closed"));
        let mut events = system.events();
        let began = system.clock().now();
        teller.call(7_u32).await.unwrap_err();
        assert_eq!(system.clock().now().since(began), wait.unwrap_or_default());
        let mut seen = Vec::new();
        while let Some(stamped) = events.try_next() {
            match stamped.event {
                Event::PointOpened { after, proposed, .. } => {
                    seen.push((after.unwrap().to_string(), proposed))
                }
                Event::PointClosed { decision, by_person: false, .. } => {
                    seen.push(("closed".to_owned(), decision));
                }
                _ => {}
            }
        }
        assert_eq!(seen, [("rollback".to_owned(), "fail"), ("closed".to_owned(), "continue")]);
        assert_eq!(system.points().log().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_ladder_that_is_spent_is_not_climbed_again_by_a_rollback() {
    let bank = Arc::new(Bank::default());
    let (_system, teller) = open(&bank, Scope::Session, false).await;
    *bank.closed.lock() = Some(Fault::business("the account is closed"));
    let error = teller.call(7_u32).await.unwrap_err();
    let CallError::RecoveryExhausted { trail, .. } = &error else { panic!("{error}") };
    let actions: Vec<_> = trail.iter().map(|attempt| attempt.action.name()).collect();
    assert_eq!(actions, ["fail"], "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_is_tried_again_after_its_rollback_acts_anew() {
    let bank = Arc::new(Bank::default());
    let (system, teller) = open(&bank, Scope::Transaction, false).await;
    let mut events = system.events();
    *bank.closed.lock() = Some(Fault::business("the account is closed"));
    let error = teller.call(7_u32).await.unwrap_err();
    assert!(matches!(error, CallError::RecoveryExhausted { .. }), "{error}");
    // The second try is undone, too, once the request has failed.
    for _ in 0..2 {
        events.wait_for(compensated).await.unwrap();
    }
    let debit = Order::Debit(7);
    let expected = [debit.clone(), undo(debit.clone()), debit.clone(), undo(debit)];
    assert_eq!(*bank.log.lock(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_around_a_flow_undoes_what_a_request_within_the_flow_has_done() {
    for (outer, inner, undone) in [
        (Scope::Transaction, Scope::Flow, true),
        (Scope::Transaction, Scope::Session, false),
        (Scope::Session, Scope::Flow, false),
    ] {
        let bank = Arc::new(Bank::default());
        let flow = spec(&bank, inner, false);
        let top = SupervisorSpec::one_for_one("top").scope(outer).supervisor(flow);
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let (system, _) = System::recover(top, store).await.unwrap();
        let teller = system.port::<u32, String>("top/bank/teller").unwrap();
        let mut events = system.events();
        *bank.closed.lock() = Some(Fault::business("the account is closed"));
        let error = teller.call(7_u32).await.unwrap_err();
        assert!(matches!(error, CallError::RecoveryExhausted { .. }), "{error}");
        let debit = Order::Debit(7);
        let expected = if undone {
            // After its own rollback, and once it has failed for good.
            for _ in 0..2 {
                events.wait_for(compensated).await.unwrap();
            }
            vec![debit.clone(), undo(debit.clone()), debit.clone(), undo(debit)]
        } else {
            vec![debit]
        };
        assert_eq!(*bank.log.lock(), expected, "{inner} in {outer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_runs_out_of_time_does_not_stay_half_done() {
    let bank = Arc::new(Bank::default());
    let (system, teller) = open(&bank, Scope::Transaction, true).await;
    let mut events = system.events();
    *bank.closed.lock() = Some(Fault::rate_limit("later").with_code("429"));
    let options = CallOptions::new().deadline(Duration::from_millis(1500));
    let error = teller.call_with(7_u32, options).await.unwrap_err();
    assert!(matches!(error, CallError::Expired { .. } | CallError::RecoveryExhausted { .. }));
    events.wait_for(compensated).await.unwrap();
    assert_eq!(bank.log.lock()[..2], [Order::Debit(7), undo(Order::Debit(7))]);
}

#[tokio::test(start_paused = true)]
async fn an_undo_that_fails_is_stuck_and_waits_for_a_person() {
    let bank = Arc::new(Bank::default());
    let (system, teller) = open(&bank, Scope::Transaction, true).await;
    *bank.closed.lock() = Some(Fault::business("the account is closed"));
    *bank.no_undo.lock() = true;
    assert_eq!(teller.call(7_u32).await.unwrap().value, "undone");
    let open = system.effects().open();
    assert_eq!(open.len(), 1);
    assert_eq!(open[0].status, "stuck");
    let counts = system.metrics().rollback_by_scope[&Scope::Transaction];
    assert_eq!((counts.entered, counts.recovered), (1, 0), "the world is not what it was");
    system.effects().undone(open[0].key).await.unwrap();
    assert!(system.effects().open().is_empty());
    assert!(system.effects().undone(open[0].key).await.is_err(), "it does not wait any more");
}

#[tokio::test(start_paused = true)]
async fn a_rollback_says_what_was_asked_and_what_came_of_what_stands() {
    let expected = [(Scope::Flow, Some("null".to_owned())), (Scope::Transaction, None)];
    for (scope, result) in expected {
        let (bank, told) = (Arc::new(Bank::default()), Told::default());
        *bank.closed.lock() = Some(Fault::business("the account is closed"));
        let (desk, other) = (Desk(Arc::clone(&bank)), Desk(Arc::clone(&bank)));
        let told_to = Some(Arc::clone(&told));
        let teller = Teller { told: told_to, own_fault: true, ..Teller::default() };
        let spec = SupervisorSpec::one_for_one("bank")
            .scope(scope)
            .child(
                ChildSpec::stateless("bank", move || desk.clone())
                    .effect(EffectKind::Compensable)
                    .recorded::<Desk>(),
            )
            .child(ChildSpec::stateless("outbox", move || other.clone()))
            .child(ChildSpec::stateful("teller", move || teller.clone()));
        let system = System::start(spec).await.unwrap();
        let teller = system.port::<u32, String>("bank/teller").unwrap();
        teller.call(7_u32).await.unwrap_err();
        assert_eq!(*told.lock(), [(r#"{"Debit":7}"#.to_owned(), result)], "{scope}");
    }
}

/// Gives snapshots, and cannot be brought back to any: nobody has written its `restore`.
#[derive(Clone, Default)]
struct Forgets(Arc<u32>);

impl Behavior for Forgets {
    type Request = u32;
    type Reply = u32;
}

impl Stateful for Forgets {
    async fn step(&mut self, more: &u32, turn: Turn, _: &Context) -> Result<Step<u32>, Fault> {
        match (more, turn) {
            (0, Turn::First) => Ok(Step::Continue),
            (0, _) => Err(Fault::output_invalid("nonsense")),
            (more, _) => {
                self.0 = Arc::new(*self.0 + more);
                Ok(Step::Reply(*self.0))
            }
        }
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("forgets", 1).with("sum", Arc::clone(&self.0)))
    }
}

/// The same, with a `restore` that panics.
#[derive(Clone, Default)]
struct Panics(Forgets);

impl Behavior for Panics {
    type Request = u32;
    type Reply = u32;
}

impl Stateful for Panics {
    async fn step(&mut self, more: &u32, turn: Turn, ctx: &Context) -> Result<Step<u32>, Fault> {
        self.0.step(more, turn, ctx).await
    }

    fn snapshot(&self) -> Option<Snapshot> {
        self.0.snapshot()
    }

    fn restore(&mut self, _: &Snapshot) -> Result<(), CheckpointError> {
        panic!("a bug")
    }
}

#[tokio::test(start_paused = true)]
async fn a_child_that_can_restore_nothing_fails_its_request_and_not_its_states_and_goes_on() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let both = |durable: bool| {
        let forgets = ChildSpec::stateful("forgets", Forgets::default).effect(EffectKind::Pure);
        let panics = ChildSpec::stateful("panics", Panics::default).effect(EffectKind::Pure);
        let (forgets, panics) = match durable {
            true => (forgets.durable::<Forgets>(), panics.durable::<Panics>()),
            false => (forgets, panics),
        };
        SupervisorSpec::one_for_one("root").child(forgets).child(panics)
    };
    for durable in [false, true] {
        let system = match durable {
            true => System::recover(both(true), Arc::clone(&store)).await.unwrap().0,
            false => System::start(both(false)).await.unwrap(),
        };
        for (child, why) in [("forgets", "write its Stateful::restore"), ("panics", "a bug")] {
            let port: Port<u32, u32> = system.port(format!("root/{child}").as_str()).unwrap();
            assert_eq!(port.call(1_u32).await.unwrap().value, 1, "{child}");
            let error = port.call(0_u32).await.unwrap_err();
            let CallError::RecoveryExhausted { fault, trail, .. } = &error else {
                panic!("{error}")
            };
            assert_eq!(fault.code.as_deref(), Some("restore"), "{child}: {error}");
            let last = trail.0.last().unwrap();
            let why_not = (Rung::Rollback, Declined::CheckpointUsed);
            assert!(last.declined.contains(&why_not), "{child}: {trail}");
            assert!(fault.message.contains(why), "{child}: {error}");
            let none = "none is set aside";
            assert!(fault.message.contains(none), "{child}: {error}");
            assert_eq!(port.call(1_u32).await.unwrap().value, 2, "{child} has lost nothing");
        }
        assert_eq!(store.quarantined().unwrap().len(), 0, "durable: {durable}");
        system.stop().await;
    }
}

/// How a state is taken up, and what a rollback has told.
#[derive(Default)]
struct How {
    forgets: AtomicBool,
    to: Mutex<Option<CheckpointId>>,
}

/// Adds up, and notes what it added. Fails the second step of 0 once.
#[derive(Clone)]
struct Notes {
    sum: Arc<u32>,
    note: Arc<Vec<u32>>,
    how: Arc<How>,
}

impl Behavior for Notes {
    type Request = u32;
    type Reply = u32;
}

impl Stateful for Notes {
    async fn step(&mut self, more: &u32, turn: Turn, _: &Context) -> Result<Step<u32>, Fault> {
        match turn {
            Turn::First if *more == 0 => return Ok(Step::Continue),
            Turn::Again => return Err(Fault::output_invalid("nonsense")),
            Turn::RolledBack(undone) => *self.how.to.lock() = undone.to,
            _ => {}
        }
        self.sum = Arc::new(*self.sum + more);
        self.note = Arc::new([&**self.note, &[*more]].concat());
        Ok(Step::Reply(*self.sum))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        let snapshot = Snapshot::new("notes", 1).with("sum", Arc::clone(&self.sum));
        Some(snapshot.with("note", Arc::clone(&self.note)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.sum = snapshot.get("sum")?;
        if !self.how.forgets.load(Ordering::SeqCst) {
            // The same, and not shared.
            self.note = Arc::new(snapshot.get::<Vec<u32>>("note")?.to_vec());
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_life_that_says_otherwise_after_its_restore_is_told_and_counts_against_integrity() {
    let (how, store) = (Arc::<How>::default(), Arc::new(MemoryStore::new()));
    let made = {
        let how = Arc::clone(&how);
        move || Notes { sum: Arc::default(), note: Arc::default(), how: Arc::clone(&how) }
    };
    let child = ChildSpec::stateful("notes", made).durable::<Notes>().effect(EffectKind::Pure);
    let spec =
        SupervisorSpec::one_for_one("root").intensity(9, Duration::from_secs(9)).child(child);
    let (system, _) = System::recover(spec, Arc::clone(&store) as Arc<dyn Store>).await.unwrap();
    let port = system.port::<u32, u32>("root/notes").unwrap();
    let integrity = async |samples: u64| loop {
        let actual = system.metrics().slo("S52").unwrap().actual;
        match actual.filter(|actual| actual.samples >= samples) {
            Some(actual) => return actual.value,
            None => tokio::task::yield_now().await,
        }
    };
    port.call(5_u32).await.unwrap();
    let stored = store.checkpoints(&"root/notes".into()).unwrap()[0].checkpoint.id;
    let mut events = system.events();
    system.kill("root/notes").unwrap();
    assert_eq!(port.call(0_u32).await.unwrap().value, 5);
    assert_eq!(*how.to.lock(), Some(stored), "it went back, and is told to what");
    assert_eq!(integrity(2).await, 1.0, "the restart and the rollback");
    while let Some(stamped) = events.try_next() {
        assert!(!matches!(stamped.event, Event::RestoredOtherwise { .. }), "{stamped:?}");
    }
    how.forgets.store(true, Ordering::SeqCst);
    system.kill("root/notes").unwrap();
    let is = |event: &Event| matches!(event, Event::RestoredOtherwise { .. });
    let Event::RestoredOtherwise { pieces, checkpoint, .. } =
        events.wait_for(is).await.unwrap().event
    else {
        unreachable!()
    };
    assert_eq!((pieces, checkpoint.is_some()), (vec!["note".to_owned()], true));
    assert!((integrity(3).await - 2.0 / 3.0).abs() < 1e-9);
    assert_eq!(port.call(1_u32).await.unwrap().value, 6, "and it goes on");
}
