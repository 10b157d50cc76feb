//! When the state of a durable child is stored: as its interval says, and in any case before it acts on
//! the world, so that another process acts as was decided and asks for no second decision.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mainstay::behavior::{Behavior, Call, Context, Stateful, Stateless, Step, Turn};
use mainstay::checkpoint::{Interval, MemoryStore, Snapshot, Store};
use mainstay::error::CheckpointError;
use mainstay::fate::Fate;
use mainstay::fault::{EffectKind, Fault};
use mainstay::journal::Journaled;
use mainstay::port::{CallOptions, Needs, Port};
use mainstay::spec::{ChildSpec, SupervisorSpec};
use mainstay::system::System;
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::sync::Notify;

/// The world outside: it is there before and after the process.
#[derive(Default)]
struct World {
    /// What was paid, and under which key.
    paid: Mutex<Vec<(u64, String)>>,
    /// How often the model was asked.
    asked: AtomicU32,
    /// Acts from now on happen, and are never answered: how many.
    hang: AtomicU32,
    hung: Notify,
}

/// Decides what to pay: something else each time.
#[derive(Clone)]
struct Model(Arc<World>);

impl Behavior for Model {
    type Request = u64;
    type Reply = u64;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Read);
}

impl Stateless for Model {
    async fn serve(&self, request: &u64, _: &Context) -> Result<u64, Fault> {
        Ok(request + u64::from(self.0.asked.fetch_add(1, Ordering::SeqCst)))
    }
}

#[derive(Clone)]
struct Bank(Arc<World>);

impl Behavior for Bank {
    type Request = u64;
    type Reply = u64;
}

impl Stateless for Bank {
    async fn serve(&self, request: &u64, ctx: &Context) -> Result<u64, Fault> {
        self.0.paid.lock().push((*request, ctx.key()));
        let left =
            self.0.hang.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if left.is_ok() {
            self.0.hung.notify_one();
            std::future::pending::<()>().await;
        }
        Ok(*request)
    }
}

/// Asks its model what to pay, if it `asks`, and pays it; one step more, and it answers.
#[derive(Clone)]
struct Agent {
    asks: bool,
    decided: Arc<Option<u64>>,
    paid: Arc<Option<u64>>,
}

impl Agent {
    fn new(asks: bool) -> Self {
        Self { asks, decided: Arc::default(), paid: Arc::default() }
    }
}

impl Behavior for Agent {
    type Request = u64;
    type Reply = u64;

    fn needs() -> Needs {
        Needs::none().needs::<Port<u64, u64>>("model").needs::<Port<u64, u64>>("bank")
    }
}

impl Stateful for Agent {
    async fn step(&mut self, request: &u64, turn: Turn, ctx: &Context) -> Result<Step<u64>, Fault> {
        ctx.count("pages", 1);
        if let Turn::Performed(performed) = turn {
            let value = *performed.get::<u64>(0)?.value;
            if self.decided.is_none() {
                self.decided = Arc::new(Some(value));
            } else {
                self.paid = Arc::new(Some(value));
                return Ok(Step::Continue);
            }
        }
        if let Some(paid) = *self.paid {
            (self.decided, self.paid) = (Arc::default(), Arc::default());
            return Ok(Step::Reply(paid));
        }
        if self.asks && self.decided.is_none() {
            let model = ctx.port::<u64, u64>("model")?;
            return Ok(Step::Perform(vec![model.ask(*request)]));
        }
        let decided = self.decided.unwrap_or(*request);
        self.decided = Arc::new(Some(decided));
        let bank = ctx.port::<u64, u64>("bank")?;
        Ok(Step::Perform(vec![Call::from(bank.effect(decided))]))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        let snapshot = Snapshot::new("agent", 1);
        Some(
            snapshot
                .with("decided", Arc::clone(&self.decided))
                .with("paid", Arc::clone(&self.paid)),
        )
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.decided = snapshot.get("decided")?;
        self.paid = snapshot.get("paid")?;
        Ok(())
    }
}

fn spec(world: &Arc<World>, kind: EffectKind, interval: Interval, asks: bool) -> SupervisorSpec {
    let (model, bank) = (Model(Arc::clone(world)), Bank(Arc::clone(world)));
    SupervisorSpec::one_for_one("desk")
        .child(ChildSpec::stateless("model", move || model.clone()))
        .child(
            ChildSpec::stateless("bank", move || bank.clone())
                .effect(kind)
                .attempt_timeout(Duration::from_secs(3600)),
        )
        .child(
            ChildSpec::stateful("agent", move || Agent::new(asks))
                .durable::<Agent>()
                .checkpoint(interval),
        )
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

/// After which steps of one request the state is stored: the act is asked for in the first, its outcome
/// taken in in the second, and the answer given in the third.
fn stored(kind: EffectKind, interval: Interval) -> Vec<u64> {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let world = Arc::<World>::default();
    runtime().block_on(async {
        let spec = spec(&world, kind, interval, false);
        let (system, _) = System::recover(spec, Arc::clone(&store)).await.unwrap();
        let agent = system.port::<u64, u64>("desk/agent").unwrap();
        assert_eq!(agent.call(7_u64).await.unwrap().value, 7);
    });
    let listed = store.checkpoints(&"desk/agent".into()).unwrap();
    listed.iter().rev().map(|listed| listed.checkpoint.step).collect()
}

#[test]
fn each_interval_stores_the_state_before_every_act_on_the_world_and_of_no_other() {
    let pages = |n| Interval::Units { name: "pages".into(), n };
    // After which steps it is stored when the tool only reads, and when it acts.
    let table: [(Interval, &[u64], &[u64]); 6] = [
        (Interval::Steps(10), &[3], &[1, 3]),
        (Interval::Steps(2), &[2, 3], &[1, 2, 3]),
        (pages(2), &[2, 3], &[1, 2, 3]),
        (pages(10), &[3], &[1, 3]),
        (Interval::EveryEffect, &[3], &[1, 2, 3]),
        (Interval::Never, &[], &[1]),
    ];
    let kinds = [
        (EffectKind::Pure, false),
        (EffectKind::Read, false),
        (EffectKind::Idempotent, true),
        (EffectKind::Verifiable, true),
        (EffectKind::Compensable, true),
        (EffectKind::Irreversible, true),
    ];
    for (interval, reads, acts) in table {
        for (kind, is_act) in kinds {
            let expected = if is_act { acts } else { reads };
            assert_eq!(stored(kind, interval.clone()), expected, "{interval:?}, {kind:?}");
        }
    }
}

#[test]
fn what_a_model_has_decided_is_done_by_the_next_process_and_not_decided_again() {
    for kind in [EffectKind::Idempotent, EffectKind::Irreversible] {
        for interval in [Interval::default(), Interval::EveryEffect, Interval::Never] {
            decides_once(kind, &interval);
        }
    }
}

fn decides_once(kind: EffectKind, interval: &Interval) {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let world = Arc::<World>::default();
    world.hang.store(1, Ordering::SeqCst);
    runtime().block_on(async {
        let spec = spec(&world, kind, interval.clone(), true);
        let (system, _) = System::recover(spec, Arc::clone(&store)).await.unwrap();
        let agent = system.port::<u64, u64>("desk/agent").unwrap();
        agent.submit(100_u64, CallOptions::new().key("refund")).await.unwrap();
        // The bank has paid, and the process ends before anybody hears of it.
        world.hung.notified().await;
    });
    runtime().block_on(async {
        let spec = spec(&world, kind, interval.clone(), true);
        let (system, recovered) = System::recover(spec, Arc::clone(&store)).await.unwrap();
        assert_eq!(recovered.requests, 1);
        let mut events = system.events();
        while !matches!(system.journaled("refund"), Some(Journaled::Fated(..))) {
            events.next().await.unwrap();
        }
        let fated = system.journaled("refund");
        let expected = match kind {
            EffectKind::Idempotent => Journaled::Fated(Fate::Done, Some("100".to_owned())),
            _ => Journaled::Fated(Fate::Unknown, None),
        };
        assert_eq!(fated, Some(expected), "{kind:?}, {interval:?}");
    });
    assert_eq!(world.asked.load(Ordering::SeqCst), 1, "{kind:?}, {interval:?}");
    let paid = world.paid.lock();
    // One payment for the bank, which knows it by its key.
    let times = if kind == EffectKind::Idempotent { 2 } else { 1 };
    assert_eq!(paid.len(), times, "{kind:?}, {interval:?}");
    assert!(paid.iter().all(|payment| *payment == paid[0]), "{paid:?}, {interval:?}");
}
