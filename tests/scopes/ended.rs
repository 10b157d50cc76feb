//! What was returned for a request counts for the next process, too: each rung of the ladder is climbed once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use mainstay::behavior::{Behavior, Context, Stateful, Step, Turn};
use mainstay::checkpoint::{Interval, MemoryStore, Scope, Snapshot, Store};
use mainstay::decision::{Declined, Rung};
use mainstay::error::CheckpointError;
use mainstay::event::{Event, EventStream};
use mainstay::fate::Fate;
use mainstay::fault::{Class, EffectKind, Fault};
use mainstay::journal::Journaled;
use mainstay::port::CallOptions;
use mainstay::spec::{ChildSpec, SupervisorSpec};
use mainstay::system::{RecoverOptions, System};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Order {
    Add(u64),
    /// Done in two steps, of which the second fails unless the sum is at most so much.
    AtMost(u64),
}

/// What tests do to clerks.
#[derive(Default)]
struct World {
    /// How often a request was told that it was rolled back by itself.
    rolled_back: AtomicU32,
    /// With this sum a second step does not end, once so many were rolled back.
    hangs_at: AtomicU64,
    hangs_after: AtomicU32,
    hangs: Notify,
}

const NEVER: u64 = u64::MAX;

#[derive(Clone)]
struct Clerk {
    sum: Arc<u64>,
    half: Arc<bool>,
    world: Arc<World>,
}

impl Behavior for Clerk {
    type Request = Order;
    type Reply = u64;
}

impl Stateful for Clerk {
    async fn step(&mut self, order: &Order, turn: Turn, _: &Context) -> Result<Step<u64>, Fault> {
        let world = &self.world;
        if let Turn::RolledBack(_) = turn {
            world.rolled_back.fetch_add(1, Ordering::SeqCst);
        }
        match *order {
            Order::Add(n) => self.sum = Arc::new(*self.sum + n),
            Order::AtMost(_) if !*self.half => {
                self.half = Arc::new(true);
                return Ok(Step::Continue);
            }
            Order::AtMost(most) => {
                let rolled_back = world.rolled_back.load(Ordering::SeqCst);
                if *self.sum == world.hangs_at.load(Ordering::SeqCst)
                    && rolled_back >= world.hangs_after.load(Ordering::SeqCst)
                {
                    world.hangs.notify_one();
                    std::future::pending::<()>().await;
                }
                if *self.sum > most {
                    return Err(Fault::new(Class::Internal, "the sum is too large"));
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

/// One process.
async fn process(store: &Arc<dyn Store>, world: &Arc<World>) -> (System, EventStream) {
    let world = Arc::clone(world);
    let made = move || {
        let (sum, half) = (Arc::new(0), Arc::new(false));
        Clerk { sum, half, world: Arc::clone(&world) }
    };
    let clerk = ChildSpec::stateful("clerk", made)
        .effect(EffectKind::Idempotent)
        .checkpoint(Interval::Steps(1))
        .durable::<Clerk>();
    let flow = SupervisorSpec::one_for_one("flow").scope(Scope::Flow).child(clerk);
    let top = SupervisorSpec::one_for_one("top").scope(Scope::Session).supervisor(flow);
    let options = RecoverOptions::default();
    let (system, _, events) =
        System::recover_observed(top, Arc::clone(store), options).await.unwrap();
    (system, events)
}

/// Does not stop the system: the process ends.
fn run(work: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().unwrap().block_on(work);
}

/// What was returned until the request had its fate, and why its own rollback was not.
async fn ends(events: &mut EventStream) -> (Vec<String>, Option<Declined>) {
    let (mut returned, mut why) = (Vec::new(), None);
    loop {
        match events.next().await.unwrap().event {
            Event::RolledBack { child, .. } => returned.push(child.to_string()),
            Event::ScopeRolledBack { at, .. } => returned.push(at.to_string()),
            Event::RollbackFailed { at, .. } => returned.push(format!("not {at}")),
            Event::Decided { decision, .. } => {
                why = why.or(decision.declined(Rung::Rollback));
            }
            Event::Fated { .. } => return (returned, why),
            _ => {}
        }
    }
}

#[test]
fn a_request_goes_back_to_its_beginning_once_whatever_process_does_it() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let world = Arc::<World>::default();
    world.hangs_at.store(7, Ordering::SeqCst);
    world.hangs_after.store(1, Ordering::SeqCst);
    run(async {
        let (system, _) = process(&store, &world).await;
        let clerk = system.port::<Order, u64>("top/flow/clerk").unwrap();
        clerk.call(Order::Add(7)).await.unwrap();
        clerk.submit(Order::AtMost(5), CallOptions::new().key("k")).await.unwrap();
        world.hangs.notified().await;
    });
    assert_eq!(world.rolled_back.load(Ordering::SeqCst), 1);
    world.hangs_at.store(NEVER, Ordering::SeqCst);
    run(async {
        let (system, mut events) = process(&store, &world).await;
        let (returned, why) = ends(&mut events).await;
        assert_eq!((returned, why), (Vec::new(), Some(Declined::CheckpointUsed)));
        assert_eq!(system.journaled("k"), Some(Journaled::Fated(Fate::Failed, None)));
    });
    assert_eq!(world.rolled_back.load(Ordering::SeqCst), 1, "not once more");
}

#[test]
fn a_scope_returns_once_for_a_request_whatever_process_does_it() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let world = Arc::<World>::default();
    world.hangs_at.store(10, Ordering::SeqCst);
    run(async {
        let (system, mut events) = process(&store, &world).await;
        let clerk = system.port::<Order, u64>("top/flow/clerk").unwrap();
        clerk.call(Order::Add(0)).await.unwrap();
        system.checkpoint("top").await.unwrap();
        clerk.call(Order::Add(10)).await.unwrap();
        system.checkpoint("top/flow").await.unwrap();
        clerk.call(Order::Add(1000)).await.unwrap();
        clerk.submit(Order::AtMost(5), CallOptions::new().key("k")).await.unwrap();
        world.hangs.notified().await;
        let all = std::iter::from_fn(|| events.try_next());
        let returned = all.filter(|it| matches!(it.event, Event::ScopeRolledBack { .. })).count();
        assert_eq!(returned, 1, "the flow");
    });
    assert_eq!(world.rolled_back.load(Ordering::SeqCst), 1);
    world.hangs_at.store(NEVER, Ordering::SeqCst);
    run(async {
        let (system, mut events) = process(&store, &world).await;
        // Neither its own state nor that of the flow once more.
        assert_eq!(ends(&mut events).await.0, ["top"]);
        let done = Fate::Done;
        assert_eq!(system.journaled("k"), Some(Journaled::Fated(done, Some("0".to_owned()))));
    });
    assert_eq!(world.rolled_back.load(Ordering::SeqCst), 1);
}
