//! What a transaction has done to the world and to the state does not stay half done: not after a fault,
//! not after a doubt, and not after the end of the process.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mainstay::behavior::{Behavior, Call, Context, Stateful, Stateless, Step, Turn};
use mainstay::checkpoint::{Interval, MemoryStore, Scope, Snapshot, Store};
use mainstay::error::{CallError, CheckpointError, ResolveError};
use mainstay::event::{Event, Stamped};
use mainstay::fate::Fate;
use mainstay::fault::{EffectKind, Fault};
use mainstay::journal::Journaled;
use mainstay::port::{CallOptions, Needs, Port};
use mainstay::spec::{ChildSpec, SupervisorSpec};
use mainstay::system::{RecoverOptions, System, To};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;
use tokio::sync::Notify;

use dying::Dying;

#[path = "transaction/beside.rs"]
mod beside;
#[path = "transaction/deleted.rs"]
mod deleted;
#[path = "common/dying.rs"]
mod dying;
#[path = "transaction/in_vain.rs"]
mod in_vain;
#[path = "transaction/kept.rs"]
mod kept;
#[path = "transaction/late.rs"]
mod late;
#[path = "common/moody.rs"]
mod moody;
#[path = "transaction/returned.rs"]
mod returned;
#[path = "transaction/spoken.rs"]
mod spoken;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Order {
    Debit(u32),
    Credit(u32),
    UndoDebit(u32),
    UndoCredit(u32),
    Told {
        done: bool,
    },
    /// Only asked, by whoever was told that so much was undone.
    Asked {
        undone: usize,
    },
}

use Order::{Asked, Credit, Debit, Told, UndoCredit, UndoDebit};

/// How a credit goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goes {
    /// The connection is refused.
    Refused,
    /// It happens, and the answer is lost.
    Lost,
    /// The bank says no.
    No,
    /// It happens, and the bank says that something has failed.
    Half,
    /// It is never answered.
    Hangs,
}

/// The world: it takes idempotency keys, and is there before and after the process.
#[derive(Default)]
struct Bank {
    done: Mutex<BTreeMap<String, Order>>,
    log: Mutex<Vec<Order>>,
    /// How the next credits go; well, when nothing is left.
    credits: Mutex<VecDeque<Goes>>,
    /// How all of them go.
    always: Mutex<Option<Goes>>,
    /// Nobody can be told.
    mute: AtomicBool,
    /// A second undo is never answered.
    slow: AtomicBool,
    hung: Notify,
}

impl Bank {
    fn count(&self, order: Order) -> usize {
        self.log.lock().iter().filter(|done| **done == order).count()
    }

    fn log(&self) -> Vec<Order> {
        self.log.lock().clone()
    }
}

#[derive(Clone)]
struct Desk(Arc<Bank>);

impl Behavior for Desk {
    type Request = Order;
    type Reply = ();
    const EFFECT: Option<EffectKind> = Some(EffectKind::Idempotent);
}

impl Stateless for Desk {
    async fn serve(&self, order: &Order, ctx: &Context) -> Result<(), Fault> {
        let goes = match order {
            Credit(_) | Asked { .. } => self.0.credits.lock().pop_front().or(*self.0.always.lock()),
            Told { .. } if self.0.mute.load(Ordering::SeqCst) => Some(Goes::No),
            UndoDebit(_) if self.0.slow.load(Ordering::SeqCst) && self.0.count(*order) == 1 => {
                Some(Goes::Hangs)
            }
            _ => None,
        };
        if matches!(order, Asked { .. }) {
            self.0.log.lock().push(*order);
        }
        match goes {
            Some(Goes::Refused) => return Err(Fault::network("refused")),
            Some(Goes::No) => return Err(Fault::business("the account is closed")),
            Some(Goes::Hangs) => {
                self.0.hung.notify_one();
                std::future::pending().await
            }
            Some(Goes::Lost | Goes::Half) | None => {}
        }
        let asks = matches!(order, Asked { .. });
        if !asks && self.0.done.lock().insert(ctx.key(), *order).is_none() {
            self.0.log.lock().push(*order);
        }
        match goes {
            Some(Goes::Lost) => Err(Fault::indeterminate("no answer")),
            Some(Goes::Half) => Err(Fault::business("it cannot be filed").effect_failed()),
            _ => Ok(()),
        }
    }
}

/// What can be undone is less.
const LARGE: u32 = 1000;

/// What is credited out of nothing.
const ALONE: u32 = 77;

/// What is credited and cannot be taken back there.
const FOREIGN: u32 = 900;

/// As [`FOREIGN`], with nobody knowing whether it was credited.
const DOUBTFUL: u32 = 901;

/// The same, and two accounts are debited of it.
const TWICE: u32 = 903;

/// Undoing what was credited of this fails.
const STUCK: u32 = 902;

/// Of this it asks before it tells that it is undone.
const RARE: u32 = 8;

/// Moves an amount, and counts what it has moved.
#[derive(Clone, Default)]
struct Teller {
    stage: Arc<u32>,
    moved: Arc<u32>,
    /// After a rollback the user is told; otherwise it is tried again.
    tells: bool,
}

impl Behavior for Teller {
    type Request = u32;
    type Reply = u32;

    fn needs() -> Needs {
        Needs::none().needs::<Port<Order, ()>>("bank").needs::<Port<Order, ()>>("undoer")
    }
}

impl Stateful for Teller {
    async fn step(&mut self, amount: &u32, turn: Turn, ctx: &Context) -> Result<Step<u32>, Fault> {
        let bank = ctx.port::<Order, ()>("bank")?;
        let undoer = ctx.port::<Order, ()>("undoer")?;
        match &turn {
            Turn::Performed(performed) => {
                performed.get::<()>(0)?;
                self.stage = Arc::new(*self.stage + 1);
            }
            Turn::RolledBack(undone) if self.tells => {
                let kept = usize::from(*amount == STUCK);
                let doubtful = usize::from(matches!(*amount, FOREIGN | STUCK));
                let told = (undone.kept.len(), undone.unknown.len());
                assert_eq!(told, (kept, doubtful), "{undone:?}");
                self.stage = Arc::new(10);
                if *amount == RARE {
                    let undone = undone.undone.len();
                    self.stage = Arc::new(9);
                    return Ok(Step::Perform(vec![bank.ask(Asked { undone })]));
                }
            }
            _ => {}
        }
        let act = match *self.stage {
            // So much cannot be given back.
            0 if *amount == ALONE => bank.effect(Credit(ALONE)).undo(&undoer, UndoCredit(ALONE)),
            0 if *amount >= LARGE => bank.effect(Debit(*amount)),
            0 if *amount == TWICE => {
                let debit = |of| Call::from(bank.effect(Debit(of)).undo(&undoer, UndoDebit(of)));
                return Ok(Step::Perform(vec![debit(TWICE), debit(TWICE + 1)]));
            }
            0 => bank.effect(Debit(*amount)).undo(&undoer, UndoDebit(*amount)),
            1 if matches!(*amount, FOREIGN | DOUBTFUL | TWICE) => bank.effect(Credit(*amount)),
            1 if *amount == STUCK => bank.effect(Credit(STUCK)).undo(&undoer, Credit(STUCK)),
            1 => bank.effect(Credit(*amount)).undo(&undoer, UndoCredit(*amount)),
            2 => bank.effect(Told { done: true }),
            10 => bank.effect(Told { done: false }),
            stage => {
                self.stage = Arc::default();
                if stage == 3 {
                    self.moved = Arc::new(*self.moved + amount);
                }
                return Ok(Step::Reply(*self.moved));
            }
        };
        Ok(Step::Perform(vec![Call::from(act)]))
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

async fn open(bank: &Arc<Bank>, store: &Arc<dyn Store>, tells: bool) -> (System, Port<u32, u32>) {
    open_as(EffectKind::Idempotent, bank, store, tells, Interval::Steps(1)).await
}

async fn open_with(
    bank: &Arc<Bank>,
    store: &Arc<dyn Store>,
    tells: bool,
    interval: Interval,
) -> (System, Port<u32, u32>) {
    open_as(EffectKind::Idempotent, bank, store, tells, interval).await
}

/// With a bank whose acts are of this kind.
async fn open_as(
    kind: EffectKind,
    bank: &Arc<Bank>,
    store: &Arc<dyn Store>,
    tells: bool,
    interval: Interval,
) -> (System, Port<u32, u32>) {
    let tree = spec(kind, bank, tells, interval);
    let (system, _) = System::recover(tree, Arc::clone(store)).await.unwrap();
    let teller = system.port::<u32, u32>("bank/teller").unwrap();
    (system, teller)
}

fn spec(kind: EffectKind, bank: &Arc<Bank>, tells: bool, interval: Interval) -> SupervisorSpec {
    let (desk, undoes) = (Desk(Arc::clone(bank)), Desk(Arc::clone(bank)));
    // Durable, so that it is asked once also by two processes.
    let undoer = ChildSpec::stateless("undoer", move || undoes.clone()).durable::<Desk>();
    SupervisorSpec::one_for_one("bank")
        .scope(Scope::Transaction)
        .child(undoer)
        .child(
            ChildSpec::stateless("bank", move || desk.clone())
                .effect(kind)
                .recorded::<Desk>()
                .attempt_timeout(Duration::from_secs(86_400)),
        )
        .child(
            ChildSpec::stateful("teller", move || Teller { tells, ..Teller::default() })
                .durable::<Teller>()
                .checkpoint(interval),
        )
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

fn store() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
}

/// Until nothing is open and nothing is being undone.
async fn settled(system: &System, key: &str) -> Fate {
    let mut events = system.events();
    loop {
        if let Some(Journaled::Fated(fate, _)) = system.journaled(key)
            && system.effects().counts().compensating == 0
        {
            // What follows from the fate follows at once.
            let more = tokio::time::timeout(Duration::from_secs(1), events.next()).await;
            if more.is_err() {
                return fate;
            }
        }
        let _ = tokio::time::timeout(Duration::from_secs(1), events.next()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_act_that_may_have_happened_is_undone_with_the_others() {
    for credits in [
        [Goes::Lost, Goes::Lost, Goes::Lost].as_slice(),
        // The last word is a refusal, and the first was none.
        &[Goes::Lost, Goes::Refused, Goes::Refused, Goes::Refused],
        &[Goes::Lost, Goes::No],
        // The bank has said that it failed, and not that nothing has happened.
        &[Goes::Half],
    ] {
        let bank = Arc::new(Bank::default());
        let (_system, teller) = open(&bank, &store(), true).await;
        bank.credits.lock().extend(credits);
        assert_eq!(teller.call(7_u32).await.unwrap().value, 0, "{credits:?}");
        let expected = [Debit(7), Credit(7), UndoCredit(7), UndoDebit(7), Told { done: false }];
        assert_eq!(bank.log(), expected, "{credits:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_act_that_failed_is_undone_once_and_never_asked_for_again_where_it_may_not_be() {
    let irreversible = EffectKind::Irreversible;
    for (amount, tells, expected) in [
        // With an undo it is undone, and then it is asked for under another key.
        (
            7,
            false,
            &[
                Debit(7),
                Credit(7),
                UndoCredit(7),
                UndoDebit(7),
                Debit(7),
                Credit(7),
                Told { done: true },
            ][..],
        ),
        // Without one what came before is undone all the same, and whoever acts is told.
        (
            FOREIGN,
            true,
            &[Debit(FOREIGN), Credit(FOREIGN), UndoDebit(FOREIGN), Told { done: false }],
        ),
        // It fails the second time as it did the first, and the bank is not asked.
        (
            FOREIGN,
            false,
            &[
                Debit(FOREIGN),
                Credit(FOREIGN),
                UndoDebit(FOREIGN),
                Debit(FOREIGN),
                UndoDebit(FOREIGN),
            ],
        ),
    ] {
        let (bank, store) = (Arc::new(Bank::default()), store());
        let (system, teller) =
            open_as(irreversible, &bank, &store, tells, Interval::Steps(1)).await;
        let mut events = system.events();
        bank.credits.lock().extend([Goes::Half]);
        teller.submit(amount, CallOptions::new().key("it")).await.unwrap();
        settled(&system, "it").await;
        assert_eq!(bank.log(), expected, "{amount}, {tells}");
        assert_eq!(system.effects().open(), []);
        while let Some(stamped) = events.try_next() {
            assert!(!matches!(stamped.event, Event::UndoStopped { .. }), "nobody is called");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_undo_that_stops_at_an_act_without_one_calls_a_person() {
    let bank = Arc::new(Bank::default());
    let (system, teller) = open(&bank, &store(), false).await;
    let mut events = system.events();
    bank.credits.lock().extend([Goes::No]);
    // It goes on from the record of what stands, and the second time it goes through.
    assert_eq!(teller.call(LARGE).await.unwrap().value, LARGE);
    assert_eq!(bank.log(), [Debit(LARGE), Credit(LARGE), Told { done: true }]);
    let mut stops = Vec::new();
    while let Some(stamped) = events.try_next() {
        if let Event::UndoStopped { child, tool, stands, .. } = stamped.event {
            stops.push((child.to_string(), tool.to_string(), stands));
        }
    }
    assert_eq!(stops, [("bank/teller".to_owned(), "bank/bank".to_owned(), 1)]);
    assert_eq!(system.effects().open(), [], "what stood is part of the work that was done");
    // Where it is not gone on with, what stands waits for a person.
    bank.credits.lock().extend([Goes::No, Goes::No]);
    teller.call(LARGE).await.unwrap_err();
    let left = loop {
        if let [left] = &system.effects().open()[..] {
            break left.clone();
        }
        events.next().await.unwrap();
    };
    assert_eq!((left.status, left.tool.as_str()), ("left", "bank/bank"));
    let wrong = system.effects().happened(left.key, &()).await.unwrap_err();
    assert!(matches!(wrong, ResolveError::NotOpen { status: "left", .. }), "{wrong}");
    system.effects().stands(left.key).await.unwrap();
    assert_eq!(system.effects().open(), []);
    while events.try_next().is_some() {}
    // Where everything can be undone, nobody is called.
    bank.credits.lock().extend([Goes::No]);
    teller.call(7_u32).await.unwrap();
    while let Some(stamped) = events.try_next() {
        assert!(!matches!(stamped.event, Event::UndoStopped { .. }));
    }
}

#[test]
fn what_a_person_has_said_stands_is_not_undone_by_the_next_process() {
    for both in [false, true] {
        let (bank, store) = (Arc::new(Bank::default()), store());
        runtime().block_on(async {
            let (system, teller) = open(&bank, &store, false).await;
            bank.mute.store(true, Ordering::SeqCst);
            teller.submit(FOREIGN, CallOptions::new().key("it")).await.unwrap();
            assert_eq!(settled(&system, "it").await, Fate::Failed);
            let effects = system.effects();
            let left = effects.open();
            let told: Vec<_> = left.iter().map(|left| left.status).collect();
            assert_eq!(told, ["left"; 2]);
            effects.stands(left[0].key).await.unwrap();
            match both {
                true => effects.stands(left[1].key).await.unwrap(),
                false => effects.undone(left[1].key).await.unwrap(),
            }
            assert_eq!(effects.open(), []);
        });
        for _ in 0..2 {
            runtime().block_on(async {
                let (system, _) = open(&bank, &store, false).await;
                assert_eq!(settled(&system, "it").await, Fate::Failed);
                assert_eq!(system.effects().open(), [], "nobody is called again");
                assert_eq!(bank.log(), [Debit(FOREIGN), Credit(FOREIGN)]);
            });
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_undo_whose_tool_is_away_is_asked_for_again() {
    let bank = Arc::new(Bank::default());
    let (system, teller) = open(&bank, &store(), true).await;
    let desk = system.supervisor("bank").unwrap();
    desk.terminate_child("undoer").await.unwrap();
    bank.credits.lock().extend([Goes::No]);
    let mut events = system.events();
    let call = tokio::spawn(async move { teller.call(7_u32).await });
    let begun = |event: &Event| matches!(event, Event::Effect { status: "compensating", .. });
    events.wait_for(begun).await.unwrap();
    tokio::time::advance(Duration::from_secs(3)).await;
    desk.restart_child("undoer").await.unwrap();
    assert_eq!(call.await.unwrap().unwrap().value, 0);
    assert_eq!(bank.log(), [Debit(7), UndoDebit(7), Told { done: false }]);
    assert_eq!(system.effects().open(), []);
}

#[test]
fn an_undo_that_a_stop_has_cut_short_is_gone_on_with_by_the_next_process() {
    // Stopped in order, and the runtime gone.
    for in_order in [true, false] {
        let (bank, store) = (Arc::new(Bank::default()), store());
        runtime().block_on(async {
            let (system, teller) = open(&bank, &store, true).await;
            let desk = system.supervisor("bank").unwrap();
            desk.terminate_child("undoer").await.unwrap();
            bank.credits.lock().extend([Goes::No]);
            let mut events = system.events();
            teller.submit(7_u32, CallOptions::new().key("it")).await.unwrap();
            let begun =
                |event: &Event| matches!(event, Event::Effect { status: "compensating", .. });
            events.wait_for(begun).await.unwrap();
            if in_order {
                system.stop().await;
            }
            while let Some(stamped) = events.try_next() {
                assert!(!matches!(stamped.event, Event::UndoStopped { .. }), "nobody is called");
            }
        });
        assert_eq!(bank.log(), [Debit(7)]);
        runtime().block_on(async {
            let (system, _) = open(&bank, &store, true).await;
            assert_eq!(settled(&system, "it").await, Fate::Done);
            assert_eq!(system.effects().open(), [], "nobody is called");
            assert_eq!(bank.log(), [Debit(7), UndoDebit(7), Told { done: false }]);
        });
    }
}

#[test]
fn a_system_that_stops_after_a_failure_has_undone_what_it_had_done() {
    for slow in [false, true] {
        let (bank, store) = (Arc::new(Bank::default()), store());
        let twice = [Debit(7), UndoDebit(7), Debit(7), UndoDebit(7)];
        *bank.always.lock() = Some(Goes::No);
        bank.slow.store(slow, Ordering::SeqCst);
        runtime().block_on(async {
            let (system, teller) = open(&bank, &store, false).await;
            let failed = teller.call_with(7_u32, CallOptions::new().key("it")).await;
            assert!(failed.is_err(), "{failed:?}");
            let began = system.clock().now();
            system.stop().await;
            // Not for ever, and what is left is said.
            let waited = system.clock().now().since(began);
            assert_eq!(waited >= Duration::from_secs(10), slow, "{waited:?}");
            assert!(waited < Duration::from_secs(20), "{waited:?}");
            assert_eq!(system.effects().open().len(), usize::from(slow));
        });
        assert_eq!(bank.log(), twice[..if slow { 3 } else { 4 }]);
        bank.slow.store(false, Ordering::SeqCst);
        runtime().block_on(async {
            let (system, _) = open(&bank, &store, false).await;
            assert_eq!(settled(&system, "it").await, Fate::Failed);
            assert_eq!(bank.log(), twice);
        });
    }
}

#[tokio::test(start_paused = true)]
async fn an_act_that_was_refused_each_time_is_not_undone() {
    let bank = Arc::new(Bank::default());
    let (_system, teller) = open(&bank, &store(), true).await;
    bank.credits.lock().extend([Goes::Refused; 4]);
    assert_eq!(teller.call(7_u32).await.unwrap().value, 0);
    assert_eq!(bank.log(), [Debit(7), UndoDebit(7), Told { done: false }]);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_failed_leaves_no_trace_in_the_state() {
    let bank = Arc::new(Bank::default());
    let (system, teller) = open(&bank, &store(), false).await;
    assert_eq!(teller.call(5_u32).await.unwrap().value, 5);
    *bank.always.lock() = Some(Goes::No);
    let submitted = teller.submit(7_u32, CallOptions::new().key("seven")).await;
    submitted.unwrap();
    assert_eq!(settled(&system, "seven").await, Fate::Failed);
    *bank.always.lock() = None;
    bank.log.lock().clear();
    assert_eq!(teller.call(1_u32).await.unwrap().value, 6);
    assert_eq!(bank.log(), [Debit(1), Credit(1), Told { done: true }], "from the beginning");
}

#[test]
fn a_request_that_failed_does_not_cost_the_next_process_its_state() {
    let (bank, store) = (Arc::new(Bank::default()), store());
    runtime().block_on(async {
        let (system, teller) = open(&bank, &store, false).await;
        assert_eq!(teller.call(5_u32).await.unwrap().value, 5);
        *bank.always.lock() = Some(Goes::No);
        teller.submit(7_u32, CallOptions::new().key("seven")).await.unwrap();
        assert_eq!(settled(&system, "seven").await, Fate::Failed);
        *bank.always.lock() = None;
    });
    runtime().block_on(async {
        let (_system, teller) = open(&bank, &store, false).await;
        assert_eq!(teller.call(1_u32).await.unwrap().value, 6);
    });
}

#[test]
fn a_request_taken_up_in_the_middle_can_still_go_back_to_its_beginning() {
    for before in [0, 5] {
        let (bank, store) = (Arc::new(Bank::default()), store());
        runtime().block_on(async {
            let (_system, teller) = open(&bank, &store, true).await;
            if before > 0 {
                assert_eq!(teller.call(before).await.unwrap().value, before);
            }
            bank.log.lock().clear();
            *bank.always.lock() = Some(Goes::Hangs);
            teller.submit(7_u32, CallOptions::new().key("seven")).await.unwrap();
            bank.hung.notified().await;
        });
        runtime().block_on(async {
            *bank.always.lock() = Some(Goes::No);
            let (system, _teller) = open(&bank, &store, true).await;
            assert_eq!(settled(&system, "seven").await, Fate::Done);
            let told = Some(Journaled::Fated(Fate::Done, Some(before.to_string())));
            assert_eq!(system.journaled("seven"), told);
            // It cannot be told that the credit, which hung, has not happened.
            let log: Vec<_> = bank.log().into_iter().filter(|act| *act != UndoCredit(7)).collect();
            assert_eq!(log, [Debit(7), UndoDebit(7), Told { done: false }]);
        });
    }
}

/// The next process, after one that ended when all was undone and the teller asked about it: nothing is undone or
/// returned to once more, and the teller is told the same.
fn goes_on_after_its_rollback(bank: &Arc<Bank>, store: &Arc<dyn Store>, undone: usize) {
    let before = bank.log();
    assert_eq!(before.last(), Some(&Asked { undone }), "{before:?}");
    runtime().block_on(async {
        let spec = spec(EffectKind::Idempotent, bank, true, Interval::Never);
        let recovering =
            System::recover_observed(spec, Arc::clone(store), RecoverOptions::default());
        let (system, _, mut events) = recovering.await.unwrap();
        assert_eq!(settled(&system, "it").await, Fate::Done);
        assert_eq!(bank.log()[before.len()..], [Asked { undone }, Told { done: false }]);
        assert_eq!(system.effects().open(), []);
        assert!(system.fates().is_balanced(), "{:?}", system.fates());
        while let Some(Stamped { event, .. }) = events.try_next() {
            let back = matches!(event, Event::RolledBack { .. } | Event::ScopeRolledBack { .. });
            assert!(!back, "it was done before: {event:?}");
        }
    });
}

#[test]
fn a_rollback_of_a_request_that_was_done_is_not_done_again_by_the_next_process() {
    // No state is stored after the rollback but its own.
    let (bank, store) = (Arc::new(Bank::default()), store());
    runtime().block_on(async {
        let (_system, teller) = open_with(&bank, &store, true, Interval::Never).await;
        bank.credits.lock().extend([Goes::No, Goes::Hangs]);
        teller.submit(RARE, CallOptions::new().key("it")).await.unwrap();
        bank.hung.notified().await;
    });
    assert_eq!(bank.log(), [Debit(RARE), UndoDebit(RARE), Asked { undone: 1 }]);
    goes_on_after_its_rollback(&bank, &store, 1);
}

#[test]
fn a_rollback_by_hand_undoes_what_another_process_has_done_and_a_third_does_not_undo_it_again() {
    let (bank, store) = (Arc::new(Bank::default()), store());
    let line = runtime().block_on(async {
        let (system, teller) = open_with(&bank, &store, true, Interval::Never).await;
        let line = system.checkpoint("bank").await.unwrap();
        bank.credits.lock().extend([Goes::Hangs; 3]);
        teller.submit(RARE, CallOptions::new().key("it")).await.unwrap();
        bank.hung.notified().await;
        line
    });
    assert_eq!(bank.log(), [Debit(RARE)]);
    runtime().block_on(async {
        let (system, _) = open_with(&bank, &store, true, Interval::Never).await;
        bank.hung.notified().await;
        assert_eq!(bank.log(), [Debit(RARE)], "it has gone on where it was");
        let report = system.rollback("bank", To::Line(line)).await.unwrap();
        assert_eq!((report.line, report.undone.len()), (Some(line), 2), "{report:?}");
        bank.hung.notified().await;
    });
    // Nobody can tell that the credit which hung did not happen.
    let undone = [Debit(RARE), UndoCredit(RARE), UndoDebit(RARE), Asked { undone: 2 }];
    assert_eq!(bank.log(), undone);
    goes_on_after_its_rollback(&bank, &store, 2);
}

#[test]
fn wherever_the_process_ends_a_transfer_is_done_or_undone_as_a_whole() {
    for (amount, always, tells) in [
        (7, None, true),
        (7, Some(Goes::No), true),
        (7, Some(Goes::No), false),
        (7, Some(Goes::Lost), false),
        (7, Some(Goes::Half), true),
        // Nothing else is to be undone.
        (ALONE, Some(Goes::Half), false),
    ] {
        for last in [false, true] {
            end_everywhere(amount, always, tells, last);
        }
    }
}

fn end_everywhere(amount: u32, always: Option<Goes>, tells: bool, last: bool) {
    for limit in 0.. {
        let at = format!("{amount} {always:?} {tells} {last} {limit}");
        let (inner, bank) = (store(), Arc::new(Bank::default()));
        *bank.always.lock() = always;
        let finished = runtime().block_on(async {
            let store: Arc<dyn Store> = Arc::new(Dying::new(&inner, limit, last));
            let work = async {
                let (system, teller) = open(&bank, &store, tells).await;
                teller.submit(amount, CallOptions::new().key("seven")).await.unwrap();
                settled(&system, "seven").await;
            };
            tokio::time::timeout(Duration::from_secs(20), work).await.is_ok()
        });
        runtime().block_on(async {
            let (system, teller) = open(&bank, &inner, tells).await;
            match teller.submit(amount, CallOptions::new().key("seven")).await {
                Ok(_) | Err(CallError::Refused { .. }) => {}
                Err(error) => panic!("{error} at {at}"),
            }
            let fate = settled(&system, "seven").await;
            let debits = bank.count(Debit(amount)) - bank.count(UndoDebit(amount));
            let credits = bank.count(Credit(amount)) - bank.count(UndoCredit(amount));
            let answered = always.is_none() || tells;
            assert_eq!(fate == Fate::Done, answered, "{fate} at {at}");
            let expected = usize::from(always.is_none());
            assert_eq!((debits, credits), (expected, expected), "{:?} at {at}", bank.log());
            let told = Told { done: always.is_none() };
            assert_eq!(bank.count(told), usize::from(answered), "{:?} at {at}", bank.log());
            assert!(system.effects().open().is_empty(), "at {at}");
        });
        if finished {
            assert!(limit >= 8, "only {limit} places to end at");
            break;
        }
    }
}
