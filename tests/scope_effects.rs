//! What the world has seen when a scope returns: within a transaction it is undone, elsewhere it stands
//! and is not repeated; also when the process ends on the way, and when a supervisor falls again and
//! again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use mainstay::behavior::{Behavior, Call, Context, StartContext, Stateful, Stateless, Step, Turn};
use mainstay::checkpoint::{
    Batch, Draft, Durability, MemoryStore, Now, Scope, Sealed, Snapshot, Store,
};
use mainstay::error::CheckpointError;
use mainstay::event::Event;
use mainstay::fate::Fate;
use mainstay::fault::{EffectKind, Fault};
use mainstay::id::ChildPath;
use mainstay::journal::Journaled;
use mainstay::port::{CallOptions, Needs, Port};
use mainstay::spec::{ChildSpec, Shutdown, SupervisorSpec};
use mainstay::system::{Recovered, RollbackError, System, To, Upkeep};
use mainstay::tree::TreeDump;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use dying::Dying;

#[path = "scope_effects/held.rs"]
mod held;
#[path = "common/dying.rs"]
mod dying;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Order {
    Debit,
    Refund,
}

/// What is there before and after the process.
#[derive(Default)]
struct World {
    seen: Mutex<BTreeSet<String>>,
    log: Mutex<Vec<Order>>,
    waiting: Notify,
    open: AtomicBool,
    opened: Notify,
    told: Mutex<Vec<(usize, usize, usize)>>,
    bad_restores: AtomicU32,
    /// The buyer panics when it has paid twice.
    is_poison: AtomicBool,
    /// So many starts of the buyer fail.
    bad_starts: AtomicU32,
    /// Refunds wait for it, if it is there.
    till: Mutex<Option<Arc<Notify>>>,
    /// Refunds that were begun.
    refunds: AtomicU32,
    /// The buyer takes a step.
    stepped: Notify,
}

impl World {
    fn open(&self) {
        self.open.store(true, Ordering::SeqCst);
        self.opened.notify_waiters();
    }

    fn log(&self) -> Vec<Order> {
        self.log.lock().clone()
    }
}

#[derive(Clone)]
struct Bank(Arc<World>);

impl Behavior for Bank {
    type Request = Order;
    type Reply = ();
    const EFFECT: Option<EffectKind> = Some(EffectKind::Idempotent);
}

impl Stateless for Bank {
    async fn serve(&self, order: &Order, ctx: &Context) -> Result<(), Fault> {
        let is_refund = *order == Order::Refund;
        self.0.refunds.fetch_add(u32::from(is_refund), Ordering::SeqCst);
        let till = self.0.till.lock().clone().filter(|_| is_refund);
        if let Some(till) = till {
            self.0.waiting.notify_one();
            till.notified().await;
        }
        if self.0.seen.lock().insert(ctx.key()) {
            self.0.log.lock().push(*order);
        }
        Ok(())
    }
}

/// Answers once it is open.
#[derive(Clone)]
struct Gate(Arc<World>);

impl Behavior for Gate {
    type Request = ();
    type Reply = ();
    const EFFECT: Option<EffectKind> = Some(EffectKind::Read);
}

impl Stateless for Gate {
    async fn serve(&self, (): &(), _: &Context) -> Result<(), Fault> {
        let mut opened = std::pin::pin!(self.0.opened.notified());
        opened.as_mut().enable();
        if !self.0.open.load(Ordering::SeqCst) {
            self.0.waiting.notify_one();
            opened.await;
        }
        Ok(())
    }
}

/// Pays and waits at the gate, so many times, and says how often it has done so.
#[derive(Clone)]
struct Buyer {
    stage: Arc<u32>,
    paid: Arc<u32>,
    world: Arc<World>,
}

impl Behavior for Buyer {
    type Request = u32;
    type Reply = u32;

    fn needs() -> Needs {
        Needs::none().needs::<Port<Order, ()>>("bank").needs::<Port<(), ()>>("gate")
    }
}

impl Stateful for Buyer {
    async fn start(&mut self, _: &StartContext) -> Result<(), Fault> {
        let bad = &self.world.bad_starts;
        match bad.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)) {
            Ok(_) => Err(Fault::network("what it needs is away")),
            Err(_) => Ok(()),
        }
    }

    async fn step(&mut self, times: &u32, turn: Turn, ctx: &Context) -> Result<Step<u32>, Fault> {
        self.world.stepped.notify_waiters();
        match &turn {
            Turn::Performed(performed) => {
                performed.get::<()>(0)?;
                self.stage = Arc::new(*self.stage + 1);
            }
            Turn::RolledBack(undone) | Turn::Resumed(undone) => {
                let told = (undone.kept.len(), undone.undone.len(), undone.unknown.len());
                self.world.told.lock().push(told);
            }
            _ => {}
        }
        assert!(*self.stage < 3 || !self.world.is_poison.load(Ordering::SeqCst), "as asked");
        let call = match *self.stage {
            done if done == times * 2 => {
                self.stage = Arc::new(0);
                self.paid = Arc::new(*self.paid + 1);
                return Ok(Step::Reply(*self.paid));
            }
            done if done % 2 == 0 => {
                let bank = ctx.port::<Order, ()>("bank")?;
                Call::from(bank.effect(Order::Debit).undo(&bank, Order::Refund))
            }
            _ => ctx.port::<(), ()>("gate")?.ask(()),
        };
        Ok(Step::Perform(vec![call]))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        let snapshot = Snapshot::new("buyer", 1).with("stage", Arc::clone(&self.stage));
        Some(snapshot.with("paid", Arc::clone(&self.paid)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        let bad = &self.world.bad_restores;
        if bad.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
            let what = "it does not look right".to_owned();
            return Err(CheckpointError::Corrupt { place: "the state".to_owned(), what });
        }
        self.stage = snapshot.get("stage")?;
        self.paid = snapshot.get("paid")?;
        Ok(())
    }
}

const SECOND: Duration = Duration::from_secs(1);

async fn open(
    world: &Arc<World>,
    store: &Arc<dyn Store>,
    scope: Scope,
) -> (System, Port<u32, u32>) {
    open_with(world, store, scope, Shutdown::Brutal).await
}

/// The same, with a gate that takes so long to stop while somebody waits at it.
async fn open_with(
    world: &Arc<World>,
    store: &Arc<dyn Store>,
    scope: Scope,
    gate_stops: Shutdown,
) -> (System, Port<u32, u32>) {
    let (system, _) = recover(world, store, scope, gate_stops).await;
    let buyer = system.port::<u32, u32>("top/flow/buyer").unwrap();
    (system, buyer)
}

async fn recover(
    world: &Arc<World>,
    store: &Arc<dyn Store>,
    scope: Scope,
    gate_stops: Shutdown,
) -> (System, Recovered) {
    let (bank, gate) = (Bank(Arc::clone(world)), Gate(Arc::clone(world)));
    let world = Arc::clone(world);
    let buyer = move || Buyer { stage: Arc::default(), paid: Arc::default(), world: world.clone() };
    let flow = SupervisorSpec::one_for_one("flow")
        .scope(scope)
        .intensity(0, SECOND)
        .no_child_limit()
        .child(
            ChildSpec::stateless("bank", move || bank.clone())
                .attempt_timeout(Duration::from_secs(86_400))
                .recorded::<Bank>(),
        )
        .child(
            ChildSpec::stateless("gate", move || gate.clone())
                .concurrency(2)
                .attempt_timeout(Duration::from_secs(86_400))
                .shutdown(gate_stops),
        )
        .child(ChildSpec::stateful("buyer", buyer).durable::<Buyer>());
    let top = SupervisorSpec::one_for_one("top").scope(Scope::System).intensity(9, SECOND);
    System::recover(top.supervisor(flow), Arc::clone(store)).await.unwrap()
}

fn store() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
}

/// One purchase is at the gate when its flow returns to the line before it.
async fn returns_at_the_gate(scope: Scope, at: &str) -> (Arc<World>, [usize; 3], u32) {
    let (world, store) = (Arc::<World>::default(), store());
    let (system, buyer) = open(&world, &store, scope).await;
    system.checkpoint(at).await.unwrap();
    let call = tokio::spawn(async move { buyer.call(1_u32).await.unwrap().value });
    world.waiting.notified().await;
    let report = system.rollback(at, To::Latest).await.unwrap();
    world.open();
    let paid = call.await.unwrap();
    assert!(system.fates().is_balanced(), "{:?}", system.fates());
    (world, [report.kept.len(), report.undone.len(), report.unknown.len()], paid)
}

#[tokio::test(start_paused = true)]
async fn what_a_transaction_has_done_since_its_line_is_undone_and_the_agent_is_told() {
    let (world, report, paid) = returns_at_the_gate(Scope::Transaction, "top/flow").await;
    assert_eq!(report, [0, 1, 0]);
    assert_eq!(world.log(), [Order::Debit, Order::Refund, Order::Debit]);
    assert_eq!(*world.told.lock(), [(0, 1, 0)]);
    assert_eq!(paid, 1);
}

#[tokio::test(start_paused = true)]
async fn a_rollback_that_is_too_late_since_a_child_hangs_still_undoes_what_it_has_to() {
    let (world, store) = (Arc::<World>::default(), store());
    // Whatever is in the way is waited for.
    let slow = Shutdown::Infinity;
    let (system, buyer) = open_with(&world, &store, Scope::Transaction, slow).await;
    system.checkpoint("top/flow").await.unwrap();
    let call = tokio::spawn(async move { buyer.call(1_u32).await.unwrap().value });
    world.waiting.notified().await;
    // Nobody calls this one off: it holds the gate up until that is opened.
    system.port::<(), ()>("top/flow/gate").unwrap().cast(()).unwrap();
    world.waiting.notified().await;
    let mut events = system.events();
    let error = system.rollback("top/flow", To::Latest).await.unwrap_err();
    let RollbackError::TooLate { limit, .. } = error else { panic!("{error}") };
    assert_eq!(limit, 30 * SECOND);
    assert_eq!(world.log(), [Order::Debit]);
    world.open();
    let ended = |event: &Event| matches!(event, Event::ScopeRolledBack { undone: 1, .. });
    tokio::time::timeout(90 * SECOND, events.wait_for(ended)).await.expect("it goes on to its end");
    assert_eq!(world.log()[..2], [Order::Debit, Order::Refund]);
    assert_eq!(call.await.unwrap(), 1);
    assert_eq!(world.log(), [Order::Debit, Order::Refund, Order::Debit]);
    assert!(system.fates().is_balanced(), "{:?}", system.fates());
}

#[tokio::test(start_paused = true)]
async fn what_a_flow_has_done_stands_and_is_not_done_again() {
    for scope in [Scope::Step, Scope::Flow, Scope::Session] {
        let (world, report, paid) = returns_at_the_gate(scope, "top/flow").await;
        assert_eq!(report, [1, 0, 0], "{scope}");
        assert_eq!(world.log(), [Order::Debit], "{scope}");
        assert_eq!(*world.told.lock(), [(1, 0, 0)], "{scope}");
        assert_eq!(paid, 1, "{scope}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_the_line_has_in_its_middle_is_told_what_was_undone_since() {
    let (world, store) = (Arc::<World>::default(), store());
    let (system, buyer) = open(&world, &store, Scope::Transaction).await;
    let call = tokio::spawn(async move { buyer.call(2_u32).await.unwrap().value });
    world.waiting.notified().await;
    system.checkpoint("top/flow").await.unwrap();
    // Once, so that it pays again and waits there again.
    world.opened.notify_waiters();
    world.waiting.notified().await;
    assert_eq!(world.log(), [Order::Debit, Order::Debit]);
    let report = system.rollback("top/flow", To::Latest).await.unwrap();
    assert_eq!((report.kept.len(), report.undone.len()), (0, 1), "the first was before the line");
    world.open();
    assert_eq!(call.await.unwrap(), 1);
    assert_eq!(world.log(), [Order::Debit, Order::Debit, Order::Refund, Order::Debit]);
    assert_eq!(*world.told.lock(), [(0, 1, 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_wider_scope_undoes_what_the_transactions_below_it_have_done_and_nothing_else() {
    let (world, report, _) = returns_at_the_gate(Scope::Transaction, "top").await;
    assert_eq!(report, [0, 1, 0]);
    assert_eq!(world.log(), [Order::Debit, Order::Refund, Order::Debit]);
    let (world, report, _) = returns_at_the_gate(Scope::Flow, "top").await;
    assert_eq!(report, [1, 0, 0]);
    assert_eq!(world.log(), [Order::Debit]);
}

/// Whatever the last thing was that the store has heard of: the next process ends it, once. Whoever was returned is told
/// so by the next process, if it has not got on in this one.
#[test]
fn a_process_that_ends_anywhere_in_a_rollback_is_gone_on_with() {
    for scope in [Scope::Transaction, Scope::Flow] {
        let (mut interrupted, mut undone, mut kept) = (0, 0, 0);
        for commits in 0..30 {
            for last in [false, true] {
                let (world, inner) = (Arc::<World>::default(), store());
                interrupted += u32::from(!is_returned(&world, &inner, scope, (commits, last)));
                world.told.lock().clear();
                world.open();
                runtime().block_on(async {
                    let (system, buyer) = open(&world, &inner, scope).await;
                    if system.journaled("k").is_none() {
                        buyer.submit(1_u32, CallOptions::new().key("k")).await.unwrap();
                    }
                    let mut events = system.events();
                    while system.journaled("k") == Some(Journaled::Open)
                        || system.effects().counts().compensating > 0
                    {
                        let _ = tokio::time::timeout(SECOND, events.next()).await;
                    }
                    let what = format!(
                        "{scope}, after {commits} commits, last: {last}: {:?} {:?} {:?}",
                        world.log(),
                        system.journaled("k"),
                        system.effects().list()
                    );
                    let count = |order| world.log().iter().filter(|it| **it == order).count();
                    assert_eq!(count(Order::Debit), count(Order::Refund) + 1, "{what}");
                    assert_eq!(system.effects().open(), [], "{what}");
                    undone += count(Order::Refund);
                    kept += world.told.lock().iter().filter(|it| **it == (1, 0, 0)).count();
                });
            }
        }
        assert!(interrupted > 10, "{interrupted} were interrupted");
        let is_undone = scope == Scope::Transaction;
        assert_eq!((undone > 5, kept > 0), (is_undone, !is_undone), "{scope}, {undone}, {kept}");
    }
}

/// A purchase at the gate is returned to before it, by a process whose store takes so many commits; whether it has
/// come to the end of that.
fn is_returned(
    world: &Arc<World>,
    store: &Arc<dyn Store>,
    scope: Scope,
    (commits, last): (u32, bool),
) -> bool {
    let dying: Arc<dyn Store> = Arc::new(Dying::new(store, commits, last));
    let first = async {
        let (system, buyer) = open(world, &dying, scope).await;
        system.checkpoint("top/flow").await?;
        buyer.submit(1_u32, CallOptions::new().key("k")).await.unwrap();
        world.waiting.notified().await;
        let again = system.rollback("top/flow", To::Latest).await;
        world.open();
        again.map(drop)
    };
    let done =
        runtime().block_on(async { tokio::time::timeout(Duration::from_secs(900), first).await });
    matches!(done, Ok(Ok(())))
}

/// As above, with a line that has the request in its middle.
#[test]
fn a_process_that_ends_anywhere_in_a_rollback_to_the_middle_of_a_request_is_gone_on_with() {
    let (mut undone, mut told) = (0, 0);
    for commits in 5..25 {
        for last in [false, true] {
            let (world, inner) = (Arc::<World>::default(), store());
            let dying: Arc<dyn Store> = Arc::new(Dying::new(&inner, commits, last));
            let returned = Arc::new(AtomicBool::new(false));
            let done = Arc::clone(&returned);
            let first = async {
                let (system, buyer) = open(&world, &dying, Scope::Transaction).await;
                buyer.submit(2_u32, CallOptions::new().key("k")).await.unwrap();
                world.waiting.notified().await;
                // The process ends where its store does.
                if system.checkpoint("top/flow").await.is_err() {
                    return;
                }
                world.opened.notify_waiters();
                world.waiting.notified().await;
                if system.rollback("top/flow", To::Latest).await.is_err() {
                    return;
                }
                done.store(true, Ordering::SeqCst);
                // It pays once more, as far as it gets.
                world.waiting.notified().await;
            };
            let _ = runtime()
                .block_on(async { tokio::time::timeout(Duration::from_secs(900), first).await });
            let refunds = |world: &World| {
                world.log().into_iter().filter(|order| *order == Order::Refund).count()
            };
            let (before, whole) = (refunds(&world), returned.load(Ordering::SeqCst));
            world.told.lock().clear();
            world.open();
            runtime().block_on(async {
                let (system, buyer) = open(&world, &inner, Scope::Transaction).await;
                if system.journaled("k").is_none() {
                    buyer.submit(2_u32, CallOptions::new().key("k")).await.unwrap();
                }
                let mut events = system.events();
                while system.journaled("k") == Some(Journaled::Open) {
                    let _ = tokio::time::timeout(SECOND, events.next()).await;
                }
                let what = format!(
                    "after {commits} commits, last: {last}: {:?} {:?} {:?}",
                    world.log(),
                    system.journaled("k"),
                    system.effects().list()
                );
                let debits = world.log().len() - refunds(&world);
                assert_eq!(debits, refunds(&world) + 2, "{what}");
                assert_eq!(system.effects().open(), [], "{what}");
                // What was undone before the process ended is not again.
                assert!(refunds(&world) <= 1, "{what}");
                assert!(!whole || refunds(&world) == before, "{what}");
                if refunds(&world) > before {
                    undone += 1;
                    assert_eq!(*world.told.lock(), [(0, 1, 0)], "{what}");
                    told += 1;
                }
            });
        }
    }
    assert!(undone > 0 && told > 0, "{undone} were undone by the next process, {told} told");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn each_scope_has_its_own_limit() {
    for (scope, seconds) in [
        (Scope::Step, 5),
        (Scope::Flow, 10),
        (Scope::Transaction, 30),
        (Scope::Session, 60),
        (Scope::System, 300),
    ] {
        let (world, store) = (Arc::<World>::default(), store());
        // The lives that follow take for ever to be stored.
        let dying: Arc<dyn Store> = Arc::new(Dying::new(&store, 3, false));
        let (system, _buyer) = open(&world, &dying, scope).await;
        system.checkpoint("top/flow").await.unwrap();
        let begun = tokio::time::Instant::now();
        let error = loop {
            match system.checkpoint("top/flow").await {
                Ok(_) => assert_eq!(begun.elapsed(), Duration::ZERO),
                Err(error) => break error,
            }
        };
        let RollbackError::TooLate { limit, phase, .. } = &error else { panic!("{error}") };
        assert_eq!(*phase, "writing what they have become");
        assert_eq!((*limit, begun.elapsed()), (seconds * SECOND, seconds * SECOND), "{scope}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_state_that_cannot_be_restored_is_set_aside_and_nobody_is_stopped_for_it() {
    let (world, store) = (Arc::<World>::default(), store());
    let (system, buyer) = open(&world, &store, Scope::Flow).await;
    world.open();
    buyer.call(1_u32).await.unwrap();
    let older = system.checkpoint("top/flow").await.unwrap();
    buyer.call(1_u32).await.unwrap();
    let newer = system.checkpoint("top/flow").await.unwrap();
    let mut events = system.events();
    world.bad_restores.store(1, Ordering::SeqCst);
    let error = system.rollback("top/flow", To::Line(newer)).await.unwrap_err();
    assert!(error.to_string().contains("it does not look right"), "{error}");
    while let Some(event) = events.try_next() {
        assert!(!matches!(event.event, Event::Exited { .. } | Event::Started { .. }), "{event:?}");
    }
    assert_eq!(store.quarantined().unwrap().len(), 1);
    let report = system.rollback("top/flow", To::Latest).await.unwrap();
    assert_eq!(report.line, Some(older));
    assert!(matches!(report.refused[0].why, CheckpointError::Quarantined { .. }));
    assert_eq!(buyer.call(1_u32).await.unwrap().value, 2);
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_the_ledger_has_not_reached_is_refused() {
    let (world, store) = (Arc::<World>::default(), store());
    let (system, buyer) = open(&world, &store, Scope::Flow).await;
    world.open();
    buyer.call(1_u32).await.unwrap();
    let path = ChildPath::new("top/flow/buyer");
    let last = Arc::clone(&store.checkpoints(&path).unwrap()[0].checkpoint);
    assert!(last.ledger > 0, "a payment was recorded");
    let snapshot = store.load(last.id).unwrap().snapshot;
    let now = Now::read(&*system.clock());
    let draft = Draft::new(path, snapshot, now).after(&last).topology(last.topology);
    let ahead: Sealed = draft.ledger(last.ledger + 100).seal().unwrap();
    store.commit(Batch::new().checkpoint(&ahead), Durability::Sync).await.unwrap();
    let to = To::Checkpoint(ahead.checkpoint().id);
    let error = system.rollback("top/flow/buyer", to).await.unwrap_err();
    let RollbackError::Refused(refused) = error else { panic!("{error}") };
    assert!(matches!(refused.why, CheckpointError::LedgerBehind { .. }), "{refused}");
    system.rollback("top/flow/buyer", To::Checkpoint(last.id)).await.unwrap();
}

async fn falls(system: &System) {
    let mut events = system.events();
    system.kill("top/flow/buyer").unwrap();
    let ended = |event: &Event| matches!(event, Event::SupervisorEnded { .. });
    events.wait_for(ended).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_falls_from_a_line_again_takes_the_wider_scope_along() {
    let (world, store) = (Arc::<World>::default(), store());
    let (system, buyer) = open(&world, &store, Scope::Flow).await;
    world.open();
    system.checkpoint("top").await.unwrap();
    buyer.call(1_u32).await.unwrap();
    system.checkpoint("top/flow").await.unwrap();
    let mut events = system.events();
    let mut back = Vec::new();
    for _ in 0..2 {
        falls(&system).await;
        let is = |event: &Event| matches!(event, Event::ScopeRolledBack { .. });
        let event = events.wait_for(is).await.unwrap().event;
        back.push(event.path().unwrap().to_string());
    }
    assert_eq!(back, ["top/flow", "top"]);
    assert_eq!(buyer.call(1_u32).await.unwrap().value, 1, "as it was before the first purchase");
}

/// The store has the state in its middle still, and what it had done before that is undone.
#[tokio::test(start_paused = true)]
async fn a_request_of_a_transaction_that_is_released_begins_anew_in_the_next_process() {
    let (world, store) = (Arc::<World>::default(), store());
    world.is_poison.store(true, Ordering::SeqCst);
    world.open();
    let (system, buyer) = open(&world, &store, Scope::Transaction).await;
    let mut events = system.events();
    buyer.submit(2_u32, CallOptions::new().key("k")).await.unwrap();
    let undone = |event: &Event| matches!(event, Event::Effect { status: "compensated", .. });
    for _ in 0..2 {
        tokio::time::timeout(90 * SECOND, events.wait_for(undone)).await.expect("it is undone");
    }
    assert_eq!(world.log(), [Order::Debit, Order::Debit, Order::Refund, Order::Refund]);
    assert_eq!(system.journaled("k"), Some(Journaled::Fated(Fate::Quarantined, None)));
    system.stop().await;
    drop((system, buyer));
    world.is_poison.store(false, Ordering::SeqCst);
    let upkeep = Upkeep::of(Arc::clone(&store)).unwrap();
    upkeep.release("k").await.unwrap();
    drop(upkeep);
    let (system, buyer) = open(&world, &store, Scope::Transaction).await;
    assert_eq!(buyer.call(1_u32).await.unwrap().value, 2, "it is the second that is paid for");
    assert_eq!(world.log()[4..], [Order::Debit; 3]);
    system.stop().await;
}

/// Each undo is asked for once, and in its order, however late the first of them is; and the request waits.
#[tokio::test(start_paused = true)]
async fn what_was_done_before_an_act_whose_undo_is_late_is_undone_after_it() {
    let (world, store) = (Arc::<World>::default(), store());
    let (system, buyer) = open(&world, &store, Scope::Transaction).await;
    system.checkpoint("top/flow").await.unwrap();
    let call = tokio::spawn(async move { buyer.call(2_u32).await.unwrap().value });
    world.waiting.notified().await;
    world.opened.notify_waiters();
    world.waiting.notified().await;
    assert_eq!(world.log(), [Order::Debit, Order::Debit]);
    let till = Arc::<Notify>::default();
    *world.till.lock() = Some(Arc::clone(&till));
    let mut events = system.events();
    let error = system.rollback("top/flow", To::Latest).await.unwrap_err();
    assert!(matches!(error, RollbackError::TooLate { .. }), "{error}");
    let ended = |event: &Event| matches!(event, Event::ScopeRolledBack { unknown: 2, .. });
    tokio::time::timeout(SECOND, events.wait_for(ended)).await.expect("it has come to its end");
    world.open();
    let quiet = tokio::time::timeout(SECOND, events.wait_for(|_| false)).await;
    assert!(quiet.is_err());
    assert_eq!((world.log().len(), world.refunds.load(Ordering::SeqCst)), (2, 1));
    assert_eq!(*world.told.lock(), [(0, 0, 2)]);
    till.notify_one();
    let undone = |event: &Event| matches!(event, Event::Effect { status: "compensated", .. });
    events.wait_for(undone).await.unwrap();
    till.notify_one();
    assert_eq!(call.await.unwrap(), 1);
    assert_eq!(world.log()[2..], [Order::Refund, Order::Refund, Order::Debit, Order::Debit]);
    assert_eq!(world.refunds.load(Ordering::SeqCst), 2);
    assert_eq!(system.effects().open(), []);
}

/// Also where its child was asked for nothing else, and where a line has it in its middle.
#[tokio::test(start_paused = true)]
async fn a_request_that_is_released_and_has_not_got_on_when_the_process_ends_begins_anew() {
    for before in [0, 1] {
        let (world, inner) = (Arc::<World>::default(), store());
        let dying = Arc::new(Dying::new(&inner, u32::MAX, false));
        let store = Arc::clone(&dying) as Arc<dyn Store>;
        let (system, buyer) = open(&world, &store, Scope::Transaction).await;
        let mut events = system.events();
        world.open();
        for _ in 0..before {
            buyer.call(1_u32).await.unwrap();
        }
        world.log.lock().clear();
        world.is_poison.store(true, Ordering::SeqCst);
        world.open.store(false, Ordering::SeqCst);
        buyer.submit(2_u32, CallOptions::new().key("k")).await.unwrap();
        world.waiting.notified().await;
        let line = system.checkpoint("top").await.unwrap();
        world.open();
        let undone = |event: &Event| matches!(event, Event::Effect { status: "compensated", .. });
        for _ in 0..2 {
            tokio::time::timeout(90 * SECOND, events.wait_for(undone)).await.expect("it is undone");
        }
        assert_eq!(world.log(), [Order::Debit, Order::Debit, Order::Refund, Order::Refund]);
        world.is_poison.store(false, Ordering::SeqCst);
        dying.dies_after(1);
        system.quarantine().release("k").await.unwrap();
        drop((system, buyer));
        let (system, buyer) = open(&world, &inner, Scope::Transaction).await;
        let mut events = system.events();
        while system.journaled("k") == Some(Journaled::Open) {
            let _ = tokio::time::timeout(SECOND, events.next()).await;
        }
        let done = Some(Journaled::Fated(Fate::Done, Some((before + 1).to_string())));
        assert_eq!(system.journaled("k"), done);
        assert_eq!(
            world.log()[4..],
            [Order::Debit; 2],
            "{before} before it: both are paid for anew"
        );
        // The line has it in its middle, where it had been set aside since: it is where it began.
        system.rollback("top", To::Line(line)).await.unwrap();
        assert_eq!(buyer.call(1_u32).await.unwrap().value, before + 1);
        system.stop().await;
    }
}

/// What a scope falls for is often still away when it begins again.
#[tokio::test(start_paused = true)]
async fn a_supervisor_that_fell_is_settled_also_when_its_first_starts_fail() {
    let (world, store) = (Arc::<World>::default(), store());
    let (system, buyer) = open(&world, &store, Scope::Transaction).await;
    system.checkpoint("top/flow").await.unwrap();
    let call = tokio::spawn(async move { buyer.call(1_u32).await.unwrap().value });
    world.waiting.notified().await;
    world.bad_starts.store(2, Ordering::SeqCst);
    let mut events = system.events();
    system.kill("top/flow/gate").unwrap();
    let ended = |event: &Event| matches!(event, Event::ScopeRolledBack { undone: 1, .. });
    tokio::time::timeout(90 * SECOND, events.wait_for(ended)).await.expect("it is settled");
    assert_eq!(world.bad_starts.load(Ordering::SeqCst), 0);
    world.open();
    assert_eq!(call.await.unwrap(), 1);
    assert_eq!(world.log(), [Order::Debit, Order::Refund, Order::Debit]);
    assert_eq!(*world.told.lock(), [(0, 1, 0)]);
    assert!(system.fates().is_balanced(), "{:?}", system.fates());
}

#[tokio::test(start_paused = true)]
async fn a_line_that_was_returned_to_is_not_again_also_by_the_next_process() {
    let (world, store) = (Arc::<World>::default(), store());
    world.open();
    let (system, buyer) = open(&world, &store, Scope::Flow).await;
    buyer.call(1_u32).await.unwrap();
    let older = system.checkpoint("top/flow").await.unwrap();
    buyer.call(1_u32).await.unwrap();
    let newer = system.checkpoint("top/flow").await.unwrap();
    system.rollback("top/flow", To::Line(newer)).await.unwrap();
    system.stop().await;
    for _ in 0..2 {
        let (system, _) = open(&world, &store, Scope::Flow).await;
        let error = system.rollback("top/flow", To::Line(newer)).await.unwrap_err();
        let RollbackError::Refused(refused) = error else { panic!("{error}") };
        assert!(matches!(refused.why, CheckpointError::Used { .. }), "{refused}");
        // And neither is what was made of it.
        let path = ChildPath::new("top/flow/buyer");
        let made = store.checkpoints(&path).unwrap()[0].checkpoint.id;
        let error = system.rollback(path.as_str(), To::Checkpoint(made)).await.unwrap_err();
        assert!(error.to_string().contains("returned to before"), "{error}");
        system.stop().await;
    }
    let (system, buyer) = open(&world, &store, Scope::Flow).await;
    let report = system.rollback("top/flow", To::Latest).await.unwrap();
    assert_eq!(report.line, Some(older));
    assert_eq!(buyer.call(1_u32).await.unwrap().value, 2);
}

#[tokio::test(start_paused = true)]
async fn requests_whose_work_is_lost_with_a_state_are_named() {
    let (world, store) = (Arc::<World>::default(), store());
    world.open();
    let (system, buyer) = open(&world, &store, Scope::Flow).await;
    let pays = async |buyer: &Port<u32, u32>, key: &str| {
        buyer.call_with(1_u32, CallOptions::new().key(key)).await.unwrap().value
    };
    assert_eq!(pays(&buyer, "before").await, 1);
    let line = system.checkpoint("top/flow").await.unwrap();
    assert_eq!(pays(&buyer, "second").await, 2);
    assert_eq!(pays(&buyer, "third").await, 3);
    let report = system.rollback("top/flow", To::Line(line)).await.unwrap();
    let path = ChildPath::new("top/flow/buyer");
    let all = [(path.clone(), Arc::from("second")), (path.clone(), Arc::from("third"))];
    assert_eq!((&report.replayed[..], &report.missing[..]), (&all[..], &[][..]));
    // What the gate said is not on record.
    assert_eq!(pays(&buyer, "fourth").await, 2);
    assert_eq!(system.lost_work(), all);
    system.stop().await;
    let newest = store.checkpoints(&path).unwrap()[0].checkpoint.id;
    let (system, recovered) = recover(&world, &store, Scope::Flow, Shutdown::Brutal).await;
    // Only who asked could know, so it is named once more.
    assert_eq!((&recovered.missing[..], &recovered.replayed[..]), (&all[..], &[][..]));
    system.stop().await;
    let bad = Batch::new().mark_bad(newest, "it does not look right");
    store.commit(bad, Durability::Sync).await.unwrap();
    let (_system, recovered) = recover(&world, &store, Scope::Flow, Shutdown::Brutal).await;
    assert_eq!(recovered.replayed, [(path, Arc::from("fourth"))]);
    assert_eq!(recovered.missing, []);
}

#[tokio::test(start_paused = true)]
async fn rollbacks_by_hand_and_after_a_fall_count_in_the_objectives() {
    let (world, store) = (Arc::<World>::default(), store());
    world.open();
    let (system, buyer) = open(&world, &store, Scope::Flow).await;
    system.checkpoint("top/flow").await.unwrap();
    buyer.call(1_u32).await.unwrap();
    let counted = || {
        let counts = system.metrics().rollback_by_scope.get(&Scope::Flow).copied();
        counts.map(|counts| (counts.entered, counts.recovered))
    };
    assert_eq!(counted(), None);
    // Asked in the wrong way: nothing was begun.
    system.rollback("top/flow/bank", To::Latest).await.unwrap_err();
    assert_eq!(counted(), None);
    system.rollback("top/flow", To::Latest).await.unwrap();
    assert_eq!(counted(), Some((1, 1)));
    system.rollback("top/flow", To::Latest).await.unwrap_err();
    assert_eq!(counted(), Some((2, 1)));
    system.checkpoint("top/flow").await.unwrap();
    let mut events = system.events();
    falls(&system).await;
    events.wait_for(|event| matches!(event, Event::ScopeRolledBack { .. })).await.unwrap();
    assert_eq!(counted(), Some((3, 2)));
    let metrics = system.metrics();
    assert_eq!(metrics.slo("S97").unwrap().met, Some(false));
    assert_eq!(metrics.rollback_time[&Scope::Flow].count, 2);
}

#[tokio::test(start_paused = true)]
async fn a_line_that_is_drawn_while_a_fall_is_undone_lets_nobody_go_on_before() {
    let (world, store) = (Arc::<World>::default(), store());
    let (system, buyer) = open(&world, &store, Scope::Transaction).await;
    system.checkpoint("top/flow").await.unwrap();
    let call = tokio::spawn(async move { buyer.call(1_u32).await.unwrap().value });
    world.waiting.notified().await;
    let till = Arc::<Notify>::default();
    *world.till.lock() = Some(Arc::clone(&till));
    falls(&system).await;
    world.waiting.notified().await;
    // The flow has begun again, and what its buyer has paid is being given back.
    let mut stepped = std::pin::pin!(world.stepped.notified());
    stepped.as_mut().enable();
    let mut events = system.events();
    system.checkpoint("top").await.unwrap();
    events.wait_for(|event| matches!(event, Event::LineDrawn { .. })).await.unwrap();
    let early = tokio::time::timeout(SECOND, &mut stepped).await;
    assert!(early.is_err(), "the buyer went on with an effect that was not settled");
    assert_eq!(world.log(), [Order::Debit]);
    till.notify_one();
    stepped.await;
    world.open();
    assert_eq!(call.await.unwrap(), 1);
    assert_eq!(world.log(), [Order::Debit, Order::Refund, Order::Debit]);
    assert_eq!(*world.told.lock(), [(0, 1, 0)]);
    assert!(system.fates().is_balanced(), "{:?}", system.fates());
}

#[tokio::test(start_paused = true)]
async fn when_no_scope_can_return_somebody_is_told_once_with_all_reasons_and_work_goes_on() {
    let (world, store) = (Arc::<World>::default(), store());
    let (system, buyer) = open(&world, &store, Scope::Flow).await;
    world.open();
    buyer.call(1_u32).await.unwrap();
    system.checkpoint("top/flow").await.unwrap();
    falls(&system).await;
    buyer.call(1_u32).await.unwrap();
    let mut events = system.events();
    falls(&system).await;
    let is = |event: &Event| matches!(event, Event::RollbackExhausted { .. });
    let event = events.wait_for(is).await.unwrap().event;
    let Event::RollbackExhausted { at, reasons } = event else { unreachable!() };
    assert_eq!((at.as_str(), reasons.len()), ("top/flow", 2), "{reasons:?}");
    assert!(reasons[0].contains("flow scope") && reasons[1].contains("system scope"));
    assert_eq!(buyer.call(1_u32).await.unwrap().value, 3);
    while let Some(event) = events.try_next() {
        assert!(!is(&event.event), "told twice");
    }
}

#[tokio::test(start_paused = true)]
async fn every_form_of_the_dump_says_the_scope_and_the_last_line() {
    let (world, store) = (Arc::<World>::default(), store());
    let (system, _buyer) = open(&world, &store, Scope::Session).await;
    let before = system.tree().to_string();
    assert!(before.contains("session") && !before.contains("line-"), "{before}");
    let line = system.checkpoint("top/flow").await.unwrap();
    tokio::time::advance(90 * SECOND).await;
    let dump = system.tree();
    let said = format!("{line}, 1m30s, 1 children");
    assert!(dump.to_string().contains(&said), "{dump}");
    for text in [dump.to_dot(), dump.to_mermaid()] {
        assert!(text.contains("scope session") && text.contains(&said), "{text}");
    }
    let json = serde_json::to_value(&dump).unwrap();
    let flow = &json["root"]["children"][0];
    assert_eq!((&flow["scope"], &flow["line"]["age_ms"]), (&"session".into(), &90_000.into()));
    let read: TreeDump = serde_json::from_value(json).unwrap();
    assert_eq!(read.to_string(), dump.to_string());
}
