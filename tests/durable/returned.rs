//! What the next process knows of a request that a wider scope has returned, or that has gone back by itself, where
//! nothing was stored of it since: what it had spent, and what stands of what it had done.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use mainstay::behavior::{Behavior, Call, Context, StartContext, Stateful, Stateless, Step, Turn};
use mainstay::checkpoint::{Interval, Scope, Snapshot, Store};
use mainstay::error::CheckpointError;
use mainstay::event::{Event, EventStream};
use mainstay::fate::{Cost, Fate};
use mainstay::fault::{EffectKind, Fault};
use mainstay::id::CheckpointId;
use mainstay::journal::Journaled;
use mainstay::port::{CallOptions, Needs, Port};
use mainstay::spec::{ChildSpec, SupervisorSpec};
use mainstay::system::{Recovered, System, To};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{runtime, store};

#[path = "begins.rs"]
mod begins;

/// So many come here and wait until they may go on.
#[derive(Default)]
struct Waits {
    left: AtomicU32,
    here: Notify,
    go: Notify,
}

impl Waits {
    fn stops(&self, so_many: u32) {
        self.left.store(so_many, Ordering::SeqCst);
    }

    fn takes(&self) -> bool {
        self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |it| it.checked_sub(1)).is_ok()
    }

    async fn pass(&self) {
        if self.takes() {
            self.here.notify_one();
            self.go.notified().await;
        }
    }
}

/// What is there before and after the process.
#[derive(Default)]
struct World {
    acts: Mutex<Vec<u64>>,
    bank: Waits,
    gate: Waits,
    other: Waits,
    steps: Waits,
    counts: Waits,
    starts: Waits,
    /// So many first steps fail.
    faults: Waits,
    /// So many do so once they have spent something.
    late_faults: Waits,
    /// So many later steps cannot be done.
    refusals: Waits,
    /// No state in which so many requests were begun can be restored, if that is not 0; none at all, if it is [`ALL`].
    unfit: AtomicU64,
    /// Each turn that tells of a rollback: what is kept, and what is undone.
    told: Mutex<Vec<(&'static str, usize, usize)>>,
    /// What the last rollback of a request by itself has restored.
    to: Mutex<Option<CheckpointId>>,
}

const PAY: u64 = 7;
const GIVE_BACK: u64 = 8;
const PAY_MORE: u64 = 17;
const GIVE_MORE_BACK: u64 = 18;
/// Also to wait there.
const ASK: u64 = 9;

#[derive(Clone)]
struct Tool(Arc<World>);

impl Behavior for Tool {
    type Request = u64;
    type Reply = u64;
}

impl Stateless for Tool {
    async fn serve(&self, request: &u64, _: &Context) -> Result<u64, Fault> {
        if *request == ASK {
            self.0.gate.pass().await;
        } else {
            self.0.bank.pass().await;
            self.0.acts.lock().push(*request);
        }
        Ok(*request)
    }
}

/// What it is asked: to count, and to spend 6 tokens, and to pay, and to be refused after that. Who spends waits at
/// the gate then; and may find nobody there behind it, for good or for a while. And to pay twice.
const COUNTS: u64 = 0;
const SPENDS: u64 = 1;
const PAYS: u64 = 2;
const IS_REFUSED: u64 = 3;
const IS_LOST: u64 = 4;
const IS_LATE: u64 = 5;
const PAYS_TWICE: u64 = 6;

const ALL: u64 = u64::MAX;

#[derive(Clone)]
struct Payer {
    world: Arc<World>,
    /// Requests that it has begun.
    begun: Arc<u64>,
    stage: Arc<u64>,
}

impl Behavior for Payer {
    type Request = u64;
    type Reply = u64;

    fn needs() -> Needs {
        Needs::none().needs::<Port<u64, u64>>("bank").needs::<Port<u64, u64>>("gate")
    }
}

impl Stateful for Payer {
    async fn start(&mut self, _: &StartContext) -> Result<(), Fault> {
        self.world.starts.pass().await;
        Ok(())
    }

    async fn step(&mut self, request: &u64, turn: Turn, ctx: &Context) -> Result<Step<u64>, Fault> {
        let told = match &turn {
            Turn::RolledBack(it) => Some(("back", it.kept.len(), it.undone.len())),
            Turn::Resumed(it) => Some(("resumed", it.kept.len(), it.undone.len())),
            _ => None,
        };
        self.world.told.lock().extend(told);
        if let Turn::RolledBack(it) = &turn {
            *self.world.to.lock() = it.to;
        }
        if *request == COUNTS {
            self.world.counts.pass().await;
            self.begun = Arc::new(*self.begun + 1);
            return Ok(Step::Reply(*self.begun));
        }
        self.world.steps.pass().await;
        match turn {
            Turn::First | Turn::RolledBack(_) => {
                if self.world.faults.takes() {
                    self.world.faults.here.notify_one();
                    return Err(Fault::network("nobody is there"));
                }
                ctx.spend(Cost { tokens: 6, money_micros: 2 });
                if self.world.late_faults.takes() {
                    self.world.faults.here.notify_one();
                    return Err(Fault::network("nobody is there any more"));
                }
                self.begun = Arc::new(*self.begun + 1);
                self.stage = Arc::new(1);
            }
            Turn::Resumed(_) => {}
            _ => self.stage = Arc::new(*self.stage + 1),
        }
        let bank = ctx.port::<u64, u64>("bank")?;
        match (*self.stage, *request) {
            (1, SPENDS) => Ok(Step::Continue),
            (1, _) => {
                let act = bank.effect(PAY).undo(&bank, GIVE_BACK);
                Ok(Step::Perform(vec![Call::from(act)]))
            }
            (2, IS_REFUSED) if self.world.refusals.takes() => {
                Err(Fault::business("it cannot be done"))
            }
            (2, PAYS_TWICE) => {
                let act = bank.effect(PAY_MORE).undo(&bank, GIVE_MORE_BACK);
                Ok(Step::Perform(vec![Call::from(act)]))
            }
            (2, _) | (3, PAYS_TWICE) => {
                Ok(Step::Perform(vec![ctx.port::<u64, u64>("gate")?.ask(ASK)]))
            }
            (3, IS_LOST) if self.world.refusals.takes() => {
                Err(Fault::model_unavailable("nobody is there any more"))
            }
            (3, IS_LATE) if self.world.refusals.takes() => {
                self.world.refusals.here.notify_one();
                let late = Fault::network("nobody is there");
                Err(late.with_retry_after(Duration::from_secs(20)))
            }
            _ => {
                self.stage = Arc::new(0);
                Ok(Step::Reply(*self.begun))
            }
        }
    }

    fn snapshot(&self) -> Option<Snapshot> {
        let snapshot = Snapshot::new("payer", 1).with("begun", Arc::clone(&self.begun));
        Some(snapshot.with("stage", Arc::clone(&self.stage)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        let begun: Arc<u64> = snapshot.get("begun")?;
        let unfit = self.world.unfit.load(Ordering::SeqCst);
        if unfit == ALL || unfit == *begun && unfit > 0 {
            return Err(CheckpointError::MissingField("of today".to_owned()));
        }
        self.begun = begun;
        self.stage = snapshot.get("stage")?;
        Ok(())
    }
}

/// A durable child of one step, which a line waits for.
#[derive(Clone)]
struct Other(Arc<World>, Arc<u64>);

impl Behavior for Other {
    type Request = u64;
    type Reply = u64;
}

impl Stateful for Other {
    async fn step(&mut self, _: &u64, _: Turn, _: &Context) -> Result<Step<u64>, Fault> {
        self.0.other.pass().await;
        Ok(Step::Reply(1))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("other", 1).with("all", Arc::clone(&self.1)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.1 = snapshot.get("all")?;
        Ok(())
    }
}

struct Process {
    system: System,
    recovered: Recovered,
    payer: Port<u64, u64>,
}

fn tool(world: &Arc<World>, id: &'static str, effect: EffectKind) -> ChildSpec {
    let tool = Tool(Arc::clone(world));
    ChildSpec::stateless(id, move || tool.clone()).effect(effect).recorded::<Tool>()
}

fn payer(world: &Arc<World>) -> ChildSpec {
    let world = Arc::clone(world);
    let payer = Payer { world, begun: Arc::default(), stage: Arc::default() };
    ChildSpec::stateful("payer", move || payer.clone())
}

fn durable(payer: ChildSpec) -> ChildSpec {
    payer.durable::<Payer>().checkpoint(Interval::Steps(10))
}

impl Process {
    async fn begin(world: &Arc<World>, store: &Arc<dyn Store>, scope: Scope) -> Self {
        Self::begin_with(world, store, scope, payer(world)).await
    }

    async fn begin_with(
        world: &Arc<World>,
        store: &Arc<dyn Store>,
        scope: Scope,
        payer: ChildSpec,
    ) -> Self {
        let other = Other(Arc::clone(world), Arc::default());
        let top = SupervisorSpec::one_for_all("top")
            .scope(scope)
            .child(tool(world, "bank", EffectKind::Idempotent))
            .child(tool(world, "gate", EffectKind::Read))
            .child(ChildSpec::stateful("other", move || other.clone()).durable::<Other>())
            .child(durable(payer));
        let (system, recovered) = System::recover(top, Arc::clone(store)).await.unwrap();
        let payer = system.port("top/payer").unwrap();
        Self { system, recovered, payer }
    }

    async fn asks(&self, request: u64) {
        self.payer.submit(request, CallOptions::new().key("one")).await.unwrap();
    }

    /// Attempts and tokens that the request of before is charged.
    fn spent(&self) -> (u64, u64) {
        let is = |child: &str| child == "top/payer";
        let found = self.recovered.children.iter().find(|it| is(it.child.as_str()));
        found.map_or((0, 0), |it| (it.spent.attempts, it.spent.tokens))
    }

    /// What the request of before is answered in the end.
    async fn answer(&self) -> String {
        let (fate, reply) = self.fate().await;
        assert_eq!(fate, Fate::Done);
        reply.unwrap()
    }

    /// How it ends, and its answer.
    async fn fate(&self) -> (Fate, Option<String>) {
        let mut events = self.system.events();
        loop {
            match self.system.journaled("one") {
                Some(Journaled::Fated(fate, reply)) => return (fate, reply),
                Some(Journaled::Open) => drop(events.next().await.unwrap()),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// The next process: what it charges the request, what that is told, and its answer.
async fn next(
    world: &Arc<World>,
    store: &Arc<dyn Store>,
    scope: Scope,
) -> ((u64, u64), Vec<(&'static str, usize, usize)>, String) {
    world.told.lock().clear();
    let World { bank, gate, other, steps, counts, starts, .. } = &**world;
    for it in [bank, gate, other, steps, counts, starts] {
        it.stops(0);
    }
    let process = Process::begin(world, store, scope).await;
    let answer = process.answer().await;
    let told = world.told.lock().clone();
    (process.spent(), told, answer)
}

/// Also where a request has to be replayed before it, whose work is not in the line.
#[test]
fn a_request_that_a_scope_has_returned_is_charged_and_told_by_the_next_process() {
    for (scope, request) in [
        (Scope::Flow, PAYS),
        (Scope::Session, PAYS),
        (Scope::Flow, SPENDS),
        (Scope::Transaction, SPENDS),
        (Scope::Transaction, PAYS),
    ] {
        for replays in [false, true] {
            let (world, store) = (Arc::<World>::default(), store());
            runtime().block_on(async {
                let it = Process::begin(&world, &store, scope).await;
                it.payer.call(COUNTS).await.unwrap();
                it.system.checkpoint("top").await.unwrap();
                if replays {
                    it.payer.call(COUNTS).await.unwrap();
                }
                world.gate.stops(1);
                it.asks(request).await;
                world.gate.here.notified().await;
                world.steps.stops(1);
                let report = it.system.rollback("top", To::Latest).await.unwrap();
                assert_eq!(report.replayed.len(), usize::from(replays));
                // Its first step is under way, and nothing of it is in the store.
                world.steps.here.notified().await;
            });
            let (spent, told, answer) = runtime().block_on(next(&world, &store, scope));
            let what = format!("{scope}, {request}, {replays}");
            let is_undone = scope == Scope::Transaction;
            let (kept, undone) = match request {
                PAYS => (usize::from(!is_undone), usize::from(is_undone)),
                _ => (0, 0),
            };
            assert_eq!(spent, (1, 6), "{what}");
            assert_eq!(told, [("back", kept, undone)], "{what}");
            assert_eq!(answer, if replays { "3" } else { "2" }, "{what}");
            let acts = match (request, is_undone) {
                (PAYS, true) => &[PAY, GIVE_BACK, PAY][..],
                (PAYS, false) => &[PAY],
                _ => &[],
            };
            assert_eq!(*world.acts.lock(), acts, "{what}");
        }
    }
}

#[test]
fn a_line_that_is_drawn_before_a_request_that_was_returned_begins_again_says_so() {
    let (world, store) = (Arc::<World>::default(), store());
    runtime().block_on(async {
        let it = Process::begin(&world, &store, Scope::Flow).await;
        it.system.checkpoint("top").await.unwrap();
        world.gate.stops(1);
        it.asks(PAYS).await;
        world.gate.here.notified().await;
        world.faults.stops(1);
        it.system.rollback("top", To::Latest).await.unwrap();
        // It waits for its next attempt.
        world.faults.here.notified().await;
        it.system.checkpoint("top").await.unwrap();
    });
    let (spent, told, answer) = runtime().block_on(next(&world, &store, Scope::Flow));
    assert_eq!((spent, &told[..], &*answer), ((2, 6), &[("back", 1, 0)][..], "1"));
    assert_eq!(*world.acts.lock(), [PAY]);
}

#[test]
fn a_line_that_is_drawn_when_a_request_has_gone_back_by_itself_says_so() {
    let (world, store) = (Arc::<World>::default(), store());
    runtime().block_on(async {
        let it = Process::begin(&world, &store, Scope::Flow).await;
        world.other.stops(1);
        it.system.port::<u64, u64>("top/other").unwrap().cast(0_u64).unwrap();
        world.other.here.notified().await;
        world.refusals.stops(1);
        world.starts.stops(1);
        it.asks(IS_REFUSED).await;
        world.starts.here.notified().await;
        let mut line = std::pin::pin!(it.system.checkpoint("top"));
        let second = Duration::from_secs(1);
        assert!(tokio::time::timeout(second, &mut line).await.is_err());
        world.steps.stops(1);
        world.starts.go.notify_one();
        // It has gone back, and its first step waits for the line, which waits for the other.
        assert!(tokio::time::timeout(second, &mut line).await.is_err());
        world.other.go.notify_one();
        line.await.unwrap();
        world.steps.here.notified().await;
    });
    let (spent, told, answer) = runtime().block_on(next(&world, &store, Scope::Flow));
    assert_eq!((spent, &told[..], &*answer), ((2, 6), &[("back", 1, 0)][..], "1"));
    assert_eq!(*world.acts.lock(), [PAY]);
}

#[test]
fn a_line_that_is_drawn_between_a_replay_and_a_request_that_was_returned_says_so() {
    for (request, acts) in [(PAYS, &[PAY][..]), (SPENDS, &[])] {
        let (world, store) = (Arc::<World>::default(), store());
        runtime().block_on(async {
            let it = Process::begin(&world, &store, Scope::Flow).await;
            it.payer.call(COUNTS).await.unwrap();
            it.system.checkpoint("top").await.unwrap();
            it.payer.call(COUNTS).await.unwrap();
            world.gate.stops(1);
            it.asks(request).await;
            world.gate.here.notified().await;
            world.counts.stops(1);
            it.system.rollback("top", To::Latest).await.unwrap();
            world.counts.here.notified().await;
            let mut line = std::pin::pin!(it.system.checkpoint("top"));
            // It waits for the replay.
            assert!(tokio::time::timeout(Duration::from_secs(1), &mut line).await.is_err());
            world.steps.stops(1);
            world.counts.go.notify_one();
            line.await.unwrap();
            world.steps.here.notified().await;
        });
        let (spent, told, answer) = runtime().block_on(next(&world, &store, Scope::Flow));
        assert_eq!((spent, &told[..], &*answer), ((1, 6), &[("back", acts.len(), 0)][..], "3"));
        assert_eq!(*world.acts.lock(), acts);
    }
}

#[test]
fn a_request_that_was_returned_is_told_so_by_the_next_life_too() {
    // Its own life ends, and with that of a sibling.
    for ended in ["top/payer", "top/bank"] {
        let (world, store) = (Arc::<World>::default(), store());
        runtime().block_on(async {
            let it = Process::begin(&world, &store, Scope::Flow).await;
            it.system.checkpoint("top").await.unwrap();
            world.gate.stops(1);
            it.asks(PAYS).await;
            world.gate.here.notified().await;
            world.faults.stops(1);
            it.system.rollback("top", To::Latest).await.unwrap();
            // It waits for its next attempt.
            world.faults.here.notified().await;
            it.system.kill(ended).unwrap();
            assert_eq!(it.answer().await, "1");
            assert_eq!(*world.told.lock(), [("back", 1, 0); 2]);
            assert_eq!(*world.acts.lock(), [PAY]);
        });
    }
}

/// What its first step has made of the state is no beginning, also where all is undone that it did.
#[test]
fn a_request_that_was_returned_to_its_first_act_goes_on_there_in_the_next_process() {
    let (world, store) = (Arc::<World>::default(), store());
    runtime().block_on(async {
        let it = Process::begin(&world, &store, Scope::Transaction).await;
        world.bank.stops(1);
        world.gate.stops(1);
        it.asks(PAYS).await;
        world.bank.here.notified().await;
        it.system.checkpoint("top").await.unwrap();
        world.bank.go.notify_one();
        world.gate.here.notified().await;
        world.steps.stops(1);
        it.system.rollback("top", To::Latest).await.unwrap();
        world.steps.here.notified().await;
        assert_eq!(*world.told.lock(), [("resumed", 0, 1)]);
    });
    let (_, told, answer) = runtime().block_on(next(&world, &store, Scope::Transaction));
    assert_eq!((&told[..], &*answer), (&[("resumed", 0, 0)][..], "1"));
    assert_eq!(*world.acts.lock(), [PAY, GIVE_BACK, PAY]);
}

/// What comes after it in the store says that it was answered, and cannot be restored.
#[test]
fn a_state_that_a_request_was_returned_to_is_one_between_two_requests_once_that_is_answered() {
    let (world, store) = (Arc::<World>::default(), store());
    runtime().block_on(async {
        let it = Process::begin(&world, &store, Scope::Flow).await;
        it.payer.call(COUNTS).await.unwrap();
        it.system.checkpoint("top").await.unwrap();
        it.payer.call(COUNTS).await.unwrap();
        world.gate.stops(1);
        it.asks(PAYS).await;
        world.gate.here.notified().await;
        let report = it.system.rollback("top", To::Latest).await.unwrap();
        assert_eq!(report.replayed.len(), 1);
        assert_eq!(it.answer().await, "3");
        world.unfit.store(3, Ordering::SeqCst);
        it.system.kill("top/payer").unwrap();
        // The work of the second, which was replayed, is in the state.
        assert_eq!(it.payer.call(COUNTS).await.unwrap().value, 3);
        let lost = it.system.lost_work();
        assert!(lost.iter().all(|(_, key)| **key == *"one"), "{lost:?}");
    });
}

/// It is told again what stands, where it is returned to once more.
#[test]
fn a_request_that_was_returned_has_its_scope_return_to_where_it_began_again() {
    let (world, store) = (Arc::<World>::default(), store());
    runtime().block_on(async {
        let it = Process::begin(&world, &store, Scope::Flow).await;
        it.system.checkpoint("top").await.unwrap();
        world.gate.stops(1);
        it.asks(IS_LOST).await;
        world.gate.here.notified().await;
        world.faults.stops(1);
        it.system.rollback("top", To::Latest).await.unwrap();
        // It waits for its next attempt.
        world.faults.here.notified().await;
        it.system.checkpoint("top").await.unwrap();
    });
    // By itself, and then with its scope, which has used up the line before.
    world.refusals.stops(2);
    let (_, told, answer) = runtime().block_on(next(&world, &store, Scope::Flow));
    assert_eq!((&told[..], &*answer), (&[("back", 1, 0); 3][..], "1"));
    assert_eq!(*world.acts.lock(), [PAY]);
}

/// Also where what it had done was being undone when the line was drawn.
#[test]
fn a_request_that_goes_back_has_its_scope_return_to_where_it_goes_back_to() {
    let (world, store) = (Arc::<World>::default(), store());
    runtime().block_on(async {
        let it = Process::begin(&world, &store, Scope::Transaction).await;
        world.gate.stops(1);
        it.asks(IS_LOST).await;
        world.gate.here.notified().await;
        world.bank.stops(1);
        world.refusals.stops(1);
        world.gate.go.notify_one();
        world.bank.here.notified().await;
        it.system.checkpoint("top").await.unwrap();
    });
    world.refusals.stops(1);
    let (_, told, answer) = runtime().block_on(next(&world, &store, Scope::Transaction));
    assert_eq!((told.len(), &*answer), (2, "1"), "{told:?}");
    assert_eq!(*world.acts.lock(), [PAY, GIVE_BACK, PAY, GIVE_BACK, PAY]);
}

/// The next life of the payer is up: whether it has gone on in the middle of a request.
async fn up(events: &mut EventStream) -> bool {
    let mut is_middle = false;
    loop {
        match events.next().await.unwrap().event {
            Event::Restored { child, step, .. } if child.id() == "payer" => {
                is_middle = step.is_some();
            }
            Event::Started { child, .. } if child.id() == "payer" => return is_middle,
            _ => {}
        }
    }
}

#[test]
fn a_request_begins_with_a_life_that_a_line_from_before_its_child_has_begin_anew() {
    let (world, store) = (Arc::<World>::default(), store());
    runtime().block_on(async {
        let payer = payer(&world).lazy();
        let it = Process::begin_with(&world, &store, Scope::Flow, payer).await;
        let line = it.system.checkpoint("top").await.unwrap();
        world.refusals.stops(1);
        it.asks(IS_LATE).await;
        world.refusals.here.notified().await;
        // It waits for its next attempt, and is to go on where it stood.
        let mut events = it.system.events();
        it.system.kill("top/payer").unwrap();
        assert!(up(&mut events).await);
        let report = it.system.rollback("top", To::Latest).await.unwrap();
        let anew = report.children.iter().filter(|(_, id)| id.is_none());
        assert_eq!((report.line, anew.count()), (Some(line), 1));
        assert_eq!(it.answer().await, "1");
        assert_eq!(*world.told.lock(), [("back", 1, 0)]);
        assert_eq!(*world.acts.lock(), [PAY]);
    });
}
