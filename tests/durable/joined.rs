//! A step that asks somebody durable asks once, wherever its process or its attempt ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mainstay::behavior::{Behavior, Call, Context, Stateful, Stateless, Step, Turn};
use mainstay::checkpoint::{Scope, Snapshot, Store};
use mainstay::error::CheckpointError;
use mainstay::event::Event;
use mainstay::fate::{Cost, Fate};
use mainstay::fault::{EffectKind, Fault};
use mainstay::journal::Journaled;
use mainstay::policy::budget::Limits;
use mainstay::port::{CallOptions, Needs, Port};
use mainstay::spec::{ChildSpec, GroupSpec, SupervisorSpec};
use mainstay::system::{RecoverOptions, Recovered, System, To};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::dying::Dying;
use super::{runtime, store};

/// What there is outside of the processes.
#[derive(Default)]
struct World {
    /// The keys under which money was given back.
    refunds: Mutex<Vec<String>>,
    /// How often the clerk began to think.
    thoughts: AtomicU32,
    /// The clerk fails whatever it is asked.
    broken: AtomicU32,
    /// How often the desk panics, fails, or comes to no end, when it has the clerk's answer.
    panics: AtomicU32,
    faults: AtomicU32,
    stalls: AtomicU32,
    /// Refunds from now on that cost as much and are refused.
    refused: AtomicU32,
    /// Refunds from now on that are never answered.
    hang: AtomicU32,
    hung: Notify,
}

impl World {
    fn refunds(&self) -> usize {
        let mut keys = self.refunds.lock().clone();
        keys.sort();
        keys.dedup();
        keys.len()
    }

    fn thoughts(&self) -> u32 {
        self.thoughts.load(Ordering::SeqCst)
    }
}

fn take(count: &AtomicU32) -> bool {
    count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

/// What giving money back costs.
const PRICE: Cost = Cost { tokens: 100, money_micros: 7 };

/// Gives money back, once for each key.
#[derive(Clone)]
struct Refund(Arc<World>);

impl Behavior for Refund {
    type Request = u64;
    type Reply = u64;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Idempotent);
}

impl Stateless for Refund {
    async fn serve(&self, amount: &u64, ctx: &Context) -> Result<u64, Fault> {
        self.0.refunds.lock().push(ctx.key());
        if take(&self.0.hang) {
            self.0.hung.notify_one();
            std::future::pending::<()>().await;
        }
        ctx.spend(PRICE);
        if take(&self.0.refused) {
            return Err(Fault::business("not today"));
        }
        Ok(*amount)
    }
}

/// Thinks, has money given back if there is any to give, and counts what it has worked on. Asked for
/// 1,000,000 it only says how much that was.
#[derive(Clone)]
struct Clerk(Arc<World>, Arc<u64>);

const COUNT: u64 = 1_000_000;

impl Behavior for Clerk {
    type Request = u64;
    type Reply = u64;

    fn needs() -> Needs {
        Needs::none().needs::<Port<u64, u64>>("refund")
    }
}

impl Stateful for Clerk {
    async fn step(&mut self, request: &u64, turn: Turn, ctx: &Context) -> Result<Step<u64>, Fault> {
        if *request == COUNT {
            return Ok(Step::Reply(*self.1));
        }
        if self.0.broken.load(Ordering::SeqCst) > 0 {
            return Err(Fault::internal("broken"));
        }
        if let Turn::Performed(performed) = &turn {
            if !performed.is_empty() {
                performed.get::<u64>(0)?;
            }
            self.1 = Arc::new(*self.1 + 1);
            return Ok(Step::Reply(request + 1));
        }
        if matches!(turn, Turn::First) && !ctx.is_replay() {
            self.0.thoughts.fetch_add(1, Ordering::SeqCst);
        }
        let refund = ctx.port::<u64, u64>("refund")?;
        let call = (*request > 0).then(|| Call::from(refund.effect(*request)));
        Ok(Step::Perform(call.into_iter().collect()))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("clerk", 1).with("worked", Arc::clone(&self.1)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.1 = snapshot.get("worked")?;
        Ok(())
    }
}

/// Asks the clerk, in the second of three steps, and answers what it says.
#[derive(Clone)]
struct Desk(Arc<World>, Arc<u64>, bool);

impl Behavior for Desk {
    type Request = u64;
    type Reply = u64;

    fn needs() -> Needs {
        Needs::none().needs::<Port<u64, u64>>("clerk")
    }
}

impl Stateful for Desk {
    async fn step(&mut self, request: &u64, turn: Turn, ctx: &Context) -> Result<Step<u64>, Fault> {
        if let Turn::Performed(performed) = turn {
            let answer = *performed.get::<u64>(0)?.value;
            assert!(!take(&self.0.panics), "with the answer in hand");
            if take(&self.0.stalls) {
                self.0.hung.notify_one();
                std::future::pending::<()>().await;
            }
            if take(&self.0.faults) {
                return Err(Fault::internal("with the answer in hand"));
            }
            self.1 = Arc::new(*self.1 + answer);
            return Ok(Step::Reply(answer));
        }
        if matches!(turn, Turn::First | Turn::RolledBack(_)) {
            return Ok(Step::Continue);
        }
        let clerk = ctx.port::<u64, u64>("clerk")?;
        let call = if self.2 { clerk.ask_recorded(*request) } else { clerk.ask(*request) };
        Ok(Step::Perform(vec![call]))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("desk", 1).with("told", Arc::clone(&self.1)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.1 = snapshot.get("told")?;
        Ok(())
    }
}

/// Who is asked by the desk.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Who {
    /// A durable agent.
    Clerk,
    /// The same, and its answers are recorded.
    Recorded,
    /// A durable tool.
    Tool,
    /// A durable group of tools.
    Group,
}

fn spec(world: &Arc<World>, who: Who) -> SupervisorSpec {
    let tool = Refund(Arc::clone(world));
    let clerk = Clerk(Arc::clone(world), Arc::default());
    let desk = Desk(Arc::clone(world), Arc::default(), who == Who::Recorded);
    let top =
        SupervisorSpec::one_for_one("top").scope(Scope::Flow).intensity(9, Duration::from_secs(5));
    let refund = ChildSpec::stateless("refund", move || tool.clone());
    let top = match who {
        Who::Tool => {
            let tool = Refund(Arc::clone(world));
            top.child(ChildSpec::stateless("clerk", move || tool.clone()).durable::<Refund>())
        }
        Who::Group => {
            let member = refund.clone().attempt_timeout(Duration::from_secs(3600));
            top.group(GroupSpec::tool("clerk").member_spec(member).durable::<Refund>())
        }
        _ => {
            let clerk = ChildSpec::stateful("clerk", move || clerk.clone()).durable::<Clerk>();
            top.child(refund.attempt_timeout(Duration::from_secs(3600))).child(clerk)
        }
    };
    top.child(ChildSpec::stateful("desk", move || desk.clone()).durable::<Desk>())
}

async fn recover(
    world: &Arc<World>,
    store: &Arc<dyn Store>,
    who: Who,
) -> (System, Recovered, [Port<u64, u64>; 2]) {
    let (system, recovered) = System::recover(spec(world, who), Arc::clone(store)).await.unwrap();
    let ports = ["top/desk", "top/clerk"].map(|path| system.port(path).unwrap());
    (system, recovered, ports)
}

async fn fate(system: &System, key: &str) -> Journaled {
    let mut events = system.events();
    loop {
        match system.journaled(key) {
            Some(fate @ Journaled::Fated(..)) => return fate,
            _ => drop(events.next().await.unwrap()),
        }
    }
}

fn case() -> CallOptions {
    CallOptions::new().key("case")
}

#[test]
fn who_is_asked_by_a_step_works_once_wherever_the_process_ends() {
    for who in [Who::Clerk, Who::Recorded, Who::Tool, Who::Group] {
        for last in [false, true] {
            for limit in 0.. {
                let (inner, world) = (store(), Arc::<World>::default());
                // Whoever asked is there still when the process is not.
                let accepted = std::sync::atomic::AtomicBool::new(false);
                let finished = runtime().block_on(async {
                    let store: Arc<dyn Store> = Arc::new(Dying::new(&inner, limit, last));
                    let work = async {
                        let (system, _, [desk, _]) = recover(&world, &store, who).await;
                        desk.submit(7_u64, case()).await.unwrap();
                        accepted.store(true, Ordering::SeqCst);
                        fate(&system, "case").await;
                    };
                    tokio::time::timeout(Duration::from_secs(20), work).await.is_ok()
                });
                runtime().block_on(async {
                    let (system, _, [desk, clerk]) = recover(&world, &inner, who).await;
                    let what = format!("{who:?} after {limit}, {last}");
                    if system.journaled("case").is_none() {
                        assert!(!accepted.load(Ordering::SeqCst), "{what}: it was lost");
                        desk.submit(7_u64, case()).await.unwrap();
                    }
                    let (fate, reply) = match fate(&system, "case").await {
                        Journaled::Fated(fate, reply) => (fate, reply),
                        other => panic!("{what}: {other:?}"),
                    };
                    assert_eq!(fate, Fate::Done, "{what}");
                    assert_eq!(world.refunds(), 1, "{what}: {:?}", world.refunds.lock());
                    // Whoever has asked is told what it has cost, whichever process heard the answer.
                    assert_eq!(system.given("case").unwrap().cost, PRICE, "{what}");
                    let agent = matches!(who, Who::Clerk | Who::Recorded);
                    assert_eq!(reply.as_deref(), Some(if agent { "8" } else { "7" }), "{what}");
                    if agent {
                        assert_eq!(clerk.call(COUNT).await.unwrap().value, 1, "{what}");
                    }
                });
                runtime().block_on(async {
                    let (_system, recovered, _) = recover(&world, &inner, who).await;
                    assert_eq!(recovered.open.len(), 0, "{who:?} after {limit}, {last}");
                });
                if finished {
                    assert!(
                        limit > 5,
                        "what is asked, worked on and answered is written down: {limit}"
                    );
                    break;
                }
            }
        }
    }
}

/// Asks for two refunds, one after the other.
#[derive(Clone, Default)]
struct Twice(Arc<u64>);

impl Behavior for Twice {
    type Request = u64;
    type Reply = u64;

    fn needs() -> Needs {
        Needs::none().needs::<Port<u64, u64>>("clerk")
    }
}

impl Stateful for Twice {
    async fn step(&mut self, request: &u64, turn: Turn, ctx: &Context) -> Result<Step<u64>, Fault> {
        if let Turn::Performed(performed) = turn {
            performed.get::<u64>(0)?;
            self.0 = Arc::new(*self.0 + 1);
        }
        if *self.0 == 2 {
            return Ok(Step::Reply(2));
        }
        let clerk = ctx.port::<u64, u64>("clerk")?;
        Ok(Step::Perform(vec![clerk.ask(request + *self.0)]))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("twice", 1).with("done", Arc::clone(&self.0)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.0 = snapshot.get("done")?;
        Ok(())
    }
}

#[test]
fn a_budget_that_is_used_up_is_used_up_wherever_the_process_ends() {
    let start = async |world: &Arc<World>, store: &Arc<dyn Store>| {
        let tool = Refund(Arc::clone(world));
        let tool = ChildSpec::stateless("clerk", move || tool.clone()).durable::<Refund>();
        let twice = ChildSpec::stateful("desk", Twice::default).durable::<Twice>();
        let spec = SupervisorSpec::one_for_one("top").child(tool).child(twice);
        let (system, _) = System::recover(spec, Arc::clone(store)).await.unwrap();
        let desk: Port<u64, u64> = system.port("top/desk").unwrap();
        if system.journaled("case").is_none() {
            let limits = Limits { tokens: Some(PRICE.tokens), ..Limits::default() };
            let _ = desk.submit(7_u64, case().budget(limits)).await;
        }
        system
    };
    for limit in 0.. {
        let (inner, world) = (store(), Arc::<World>::default());
        let finished = runtime().block_on(async {
            let store: Arc<dyn Store> = Arc::new(Dying::new(&inner, limit, true));
            let work = async { drop(fate(&start(&world, &store).await, "case").await) };
            tokio::time::timeout(Duration::from_secs(20), work).await.is_ok()
        });
        runtime().block_on(async {
            let system = start(&world, &inner).await;
            let Journaled::Fated(fate, _) = fate(&system, "case").await else { unreachable!() };
            assert_eq!((fate, world.refunds()), (Fate::Failed, 1), "after {limit}");
            assert_eq!(system.given("case").unwrap().cost, PRICE, "after {limit}");
        });
        if finished {
            assert!(limit > 3, "{limit}");
            break;
        }
    }
}

/// Asks until it is answered, in the same step.
#[derive(Clone, Default)]
struct Insists(Arc<u64>);

impl Behavior for Insists {
    type Request = u64;
    type Reply = u64;

    fn needs() -> Needs {
        Needs::none().needs::<Port<u64, u64>>("clerk")
    }
}

impl Stateful for Insists {
    async fn step(&mut self, request: &u64, turn: Turn, ctx: &Context) -> Result<Step<u64>, Fault> {
        if let Turn::Performed(performed) = turn {
            let answer = performed.get::<u64>(0);
            let answer = *answer.map_err(|_| Fault::network("once more"))?.value;
            self.0 = Arc::new(answer);
            return Ok(Step::Reply(answer));
        }
        Ok(Step::Perform(vec![ctx.port::<u64, u64>("clerk")?.ask(*request)]))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("insists", 1).with("told", Arc::clone(&self.0)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.0 = snapshot.get("told")?;
        Ok(())
    }
}

#[test]
fn a_question_that_failed_and_is_asked_again_is_paid_for_once_wherever_the_process_ends() {
    let start = async |world: &Arc<World>, store: &Arc<dyn Store>| {
        let tool = Refund(Arc::clone(world));
        let tool = ChildSpec::stateless("clerk", move || tool.clone()).durable::<Refund>();
        let desk = ChildSpec::stateful("desk", Insists::default).durable::<Insists>();
        let spec = SupervisorSpec::one_for_one("top").child(tool).child(desk);
        let (system, _) = System::recover(spec, Arc::clone(store)).await.unwrap();
        let desk: Port<u64, u64> = system.port("top/desk").unwrap();
        if system.journaled("case").is_none() {
            let _ = desk.submit(7_u64, case()).await;
        }
        system
    };
    for limit in 0.. {
        let (inner, world) = (store(), Arc::<World>::default());
        world.refused.store(1, Ordering::SeqCst);
        let finished = runtime().block_on(async {
            let store: Arc<dyn Store> = Arc::new(Dying::new(&inner, limit, true));
            let work = async { drop(fate(&start(&world, &store).await, "case").await) };
            tokio::time::timeout(Duration::from_secs(20), work).await.is_ok()
        });
        runtime().block_on(async {
            let system = start(&world, &inner).await;
            let Journaled::Fated(fate, _) = fate(&system, "case").await else { unreachable!() };
            assert_eq!(fate, Fate::Done, "after {limit}");
            let cost = system.given("case").unwrap().cost.tokens;
            let all = if finished { 2..=2 } else { 1..=2 };
            assert!(all.contains(&(cost / PRICE.tokens)), "after {limit}: {cost}");
        });
        if finished {
            assert!(limit > 5, "{limit}");
            break;
        }
    }
}

#[test]
fn what_an_open_question_cannot_have_mended_is_for_the_ladder_of_who_asked() {
    let (inner, world) = (store(), Arc::<World>::default());
    world.hang.store(1, Ordering::SeqCst);
    runtime().block_on(async {
        let (_system, _, [desk, _]) = recover(&world, &inner, Who::Clerk).await;
        desk.submit(7_u64, case()).await.unwrap();
        world.hung.notified().await;
    });
    world.broken.store(1, Ordering::SeqCst);
    runtime().block_on(async {
        let options = RecoverOptions::default();
        let spec = spec(&world, Who::Clerk);
        let (system, recovered, mut events) =
            System::recover_observed(spec, Arc::clone(&inner), options).await.unwrap();
        assert_eq!(recovered.open.len(), 2, "{recovered:?}");
        let fate = fate(&system, "case").await;
        assert!(matches!(fate, Journaled::Fated(Fate::Failed, _)), "{fate:?}");
        let mut alerts = Vec::new();
        while let Some(event) = events.try_next() {
            if let Event::Alert { child, .. } = &event.event {
                alerts.push(child.to_string());
            }
        }
        assert_eq!(alerts, ["top/desk"]);
    });
    assert_eq!(world.refunds(), 1);
}

#[test]
fn an_answer_is_given_again_to_a_step_that_is_done_again() {
    let (inner, world) = (store(), Arc::<World>::default());
    world.panics.store(1, Ordering::SeqCst);
    runtime().block_on(async {
        let (_system, _, [desk, clerk]) = recover(&world, &inner, Who::Clerk).await;
        assert_eq!(desk.call(0_u64).await.unwrap().value, 1);
        assert_eq!(clerk.call(COUNT).await.unwrap().value, 1);
    });
    assert_eq!(world.thoughts(), 1);
}

#[test]
fn a_request_that_goes_back_asks_anew_unless_something_was_done_for_it() {
    for (amount, thoughts) in [(0_u64, 2), (7, 1)] {
        let (inner, world) = (store(), Arc::<World>::default());
        world.faults.store(1, Ordering::SeqCst);
        runtime().block_on(async {
            let (system, _, [desk, clerk]) = recover(&world, &inner, Who::Clerk).await;
            let mut events = system.events();
            assert_eq!(desk.call(amount).await.unwrap().value, amount + 1);
            let mut back = 0;
            while let Some(event) = events.try_next() {
                back += u32::from(matches!(event.event, Event::RolledBack { .. }));
            }
            assert_eq!(back, 1);
            assert_eq!(clerk.call(COUNT).await.unwrap().value, u64::from(thoughts));
        });
        assert_eq!((world.thoughts(), world.refunds()), (thoughts, usize::from(amount > 0)));
    }
}

#[test]
fn a_scope_that_goes_back_has_its_requests_ask_anew_unless_something_was_done_for_them() {
    for (amount, thoughts) in [(0_u64, 2), (7, 1)] {
        let (inner, world) = (store(), Arc::<World>::default());
        runtime().block_on(async {
            let (system, _, [desk, clerk]) = recover(&world, &inner, Who::Clerk).await;
            let line = system.checkpoint("top").await.unwrap();
            // The answer is in the journal, and the desk does not come to an end with it.
            world.stalls.store(1, Ordering::SeqCst);
            desk.submit(amount, case()).await.unwrap();
            world.hung.notified().await;
            let report = system.rollback("top", To::Line(line)).await.unwrap();
            let fate = fate(&system, "case").await;
            assert!(matches!(fate, Journaled::Fated(Fate::Done, _)), "{fate:?}");
            // Either it is asked anew, or what it was asked is replayed; its work is there once.
            assert_eq!(report.replayed.len(), usize::from(amount > 0), "{report:?}");
            assert_eq!(clerk.call(COUNT).await.unwrap().value, 1);
            assert_eq!(system.lost_work(), []);
        });
        assert_eq!((world.thoughts(), world.refunds()), (thoughts, usize::from(amount > 0)));
    }
}

#[test]
fn a_question_that_is_open_when_the_system_stops_is_gone_on_with() {
    let (inner, world) = (store(), Arc::<World>::default());
    world.hang.store(1, Ordering::SeqCst);
    runtime().block_on(async {
        let (system, _, [desk, _]) = recover(&world, &inner, Who::Clerk).await;
        desk.submit(7_u64, case()).await.unwrap();
        world.hung.notified().await;
        system.stop().await;
    });
    runtime().block_on(async {
        let (system, recovered, [_, clerk]) = recover(&world, &inner, Who::Clerk).await;
        let open: Vec<_> = recovered.open.iter().map(|open| open.child.as_str()).collect();
        assert_eq!(open, ["top/desk", "top/clerk"]);
        let fate = fate(&system, "case").await;
        assert!(matches!(fate, Journaled::Fated(Fate::Done, _)), "{fate:?}");
        assert_eq!(clerk.call(COUNT).await.unwrap().value, 1);
    });
    // It went on in the middle, and did not begin anew.
    assert_eq!((world.thoughts(), world.refunds()), (1, 1));
}

#[test]
fn a_replay_is_given_what_somebody_durable_has_answered() {
    let (inner, world) = (store(), Arc::<World>::default());
    runtime().block_on(async {
        let (system, _, [desk, clerk]) = recover(&world, &inner, Who::Clerk).await;
        let line = system.checkpoint("top").await.unwrap();
        assert_eq!(desk.call(7_u64).await.unwrap().value, 8);
        let report = system.rollback("top", To::Line(line)).await.unwrap();
        assert_eq!((report.replayed.len(), report.missing.len()), (2, 0), "{report:?}");
        assert_eq!(desk.call(0_u64).await.unwrap().value, 1);
        assert_eq!(clerk.call(COUNT).await.unwrap().value, 2);
        assert_eq!(system.lost_work(), []);
    });
    assert_eq!(world.refunds(), 1);
}
