//! Requests that were in hand when the process ended: how the next one hands them out.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use mainstay::behavior::{Behavior, Context, Stateless};
use mainstay::checkpoint::{MemoryStore, Store};
use mainstay::error::{RecoverError, SpecError, StartError};
use mainstay::fate::Fate;
use mainstay::fault::{EffectKind, Fault};
use mainstay::journal::Journaled;
use mainstay::port::CallOptions;
use mainstay::spec::{ChildSpec, GroupSpec, SupervisorSpec};
use mainstay::system::{Recovered, System};
use tokio::sync::Semaphore;

use crate::dying::Dying;
use crate::runtime;

/// How long it rests at most.
const TICK: Duration = Duration::from_millis(50);

/// How long a request takes: so long that the last of several waits for longer than an attempt may take.
const WORK: Duration = Duration::from_secs(20);

struct World {
    /// Work does not end.
    hangs: AtomicBool,
    begun: Semaphore,
    at_once: AtomicU32,
    most_at_once: AtomicU32,
}

impl World {
    /// In which work does not end.
    fn hanging() -> Arc<Self> {
        Arc::new(Self {
            hangs: AtomicBool::new(true),
            begun: Semaphore::new(0),
            at_once: AtomicU32::new(0),
            most_at_once: AtomicU32::new(0),
        })
    }
}

#[derive(Clone)]
struct Tool(Arc<World>);

impl Behavior for Tool {
    type Request = u32;
    type Reply = u32;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Idempotent);
}

impl Stateless for Tool {
    async fn serve(&self, asked: &u32, _: &Context) -> Result<u32, Fault> {
        let world = &self.0;
        if world.hangs.load(Ordering::SeqCst) {
            world.begun.add_permits(1);
            pending::<()>().await;
        }
        if *asked > 0 {
            let now = world.at_once.fetch_add(1, Ordering::SeqCst) + 1;
            world.most_at_once.fetch_max(now, Ordering::SeqCst);
            // It never rests for long.
            for _ in 0..WORK.as_millis() / TICK.as_millis() {
                let _ = tokio::time::timeout(TICK, pending::<()>()).await;
            }
            world.at_once.fetch_sub(1, Ordering::SeqCst);
        }
        Ok(*asked)
    }
}

/// A tool, and one in a group; a request to either is set aside after the process has ended so often.
fn tree(world: &Arc<World>, deaths: u32) -> SupervisorSpec {
    let tool = |id: &str| {
        let world = Arc::clone(world);
        ChildSpec::stateless(id, move || Tool(Arc::clone(&world))).concurrency(4)
    };
    let group = GroupSpec::tool("group").member_spec(tool("first"));
    SupervisorSpec::one_for_one("top")
        .child(tool("tool").process_deaths(deaths).durable::<Tool>())
        .group(group.process_deaths(deaths).durable::<Tool>())
}

struct Bench {
    world: Arc<World>,
    store: Arc<dyn Store>,
    deaths: u32,
}

impl Bench {
    /// These requests are open when the first process ends, to what has this path.
    fn with(requests: u32, path: &str, deaths: u32) -> Self {
        let bench = Self { world: World::hanging(), store: Arc::new(MemoryStore::new()), deaths };
        runtime().block_on(async {
            let (system, _) = bench.recover(&bench.store).await.unwrap();
            let port = system.port::<u32, u32>(path).unwrap();
            for n in 1..=requests {
                port.submit(n, CallOptions::new().key(format!("{n}"))).await.unwrap();
            }
            bench.world.begun.acquire_many(requests).await.unwrap().forget();
        });
        bench
    }

    async fn recover(&self, store: &Arc<dyn Store>) -> Result<(System, Recovered), RecoverError> {
        System::recover(tree(&self.world, self.deaths), Arc::clone(store)).await
    }

    /// A process ends with so many in hand: nothing is written after they were taken up.
    fn dies(&self, in_hand: u32) {
        let dying: Arc<dyn Store> = Arc::new(Dying::new(&self.store, in_hand, false));
        runtime().block_on(async {
            let (_system, recovered) = self.recover(&dying).await.unwrap();
            assert_eq!(recovered.ended_processes.len(), 0);
            self.world.begun.acquire_many(in_hand).await.unwrap().forget();
        });
    }
}

#[test]
fn those_that_are_suspected_are_handed_out_one_after_the_other_and_new_ones_at_once() {
    let bench = Bench::with(3, "top/tool", 3);
    bench.dies(3);
    bench.world.hangs.store(false, Ordering::SeqCst);
    runtime().block_on(async {
        let (system, recovered) = bench.recover(&bench.store).await.unwrap();
        assert_eq!((recovered.requests, recovered.ended_processes.len()), (3, 0));
        let mut events = system.events();
        let port = system.port::<u32, u32>("top/tool").unwrap();
        let answer = port.call(0_u32).await.unwrap();
        assert!(answer.elapsed < WORK, "{answer:?}");
        while system.fates().open > 0 {
            events.next().await.unwrap();
        }
        assert_eq!(bench.world.most_at_once.load(Ordering::SeqCst), 1);
        let fates = system.fates();
        assert_eq!((fates.accepted, fates.done), (4, 4));
        // Whoever waited for its turn was not late.
        assert_eq!((system.stats().attempts, system.stats().failures.len()), (4, 0));
    });
}

#[test]
fn without_a_suspicion_all_are_handed_out_together() {
    let bench = Bench::with(3, "top/tool", 3);
    bench.world.hangs.store(false, Ordering::SeqCst);
    runtime().block_on(async {
        let (system, _) = bench.recover(&bench.store).await.unwrap();
        let mut events = system.events();
        while system.fates().open > 0 {
            events.next().await.unwrap();
        }
        assert_eq!(bench.world.most_at_once.load(Ordering::SeqCst), 3);
    });
}

#[test]
fn a_process_that_is_stopped_in_order_is_not_counted_whatever_is_in_hand() {
    let bench = Bench::with(1, "top/tool", 1);
    for _ in 0..3 {
        runtime().block_on(async {
            let (system, recovered) = bench.recover(&bench.store).await.unwrap();
            assert_eq!((recovered.requests, recovered.ended_processes.len()), (1, 0));
            bench.world.begun.acquire().await.unwrap().forget();
            system.stop().await;
            assert_eq!(system.fates().suspended, 1);
        });
    }
    // One that is not, is.
    bench.dies(1);
    runtime().block_on(async {
        let (system, recovered) = bench.recover(&bench.store).await.unwrap();
        assert_eq!((recovered.requests, recovered.ended_processes.len()), (0, 1));
        assert_eq!(system.journaled("1"), Some(Journaled::Fated(Fate::Quarantined, None)));
    });
}

#[test]
fn a_request_to_a_group_is_set_aside_as_the_group_says() {
    let bench = Bench::with(1, "top/group", 2);
    bench.dies(1);
    bench.dies(1);
    bench.world.hangs.store(false, Ordering::SeqCst);
    runtime().block_on(async {
        let (system, recovered) = bench.recover(&bench.store).await.unwrap();
        let aside = &recovered.ended_processes;
        assert_eq!(aside.len(), 1);
        assert_eq!((&*aside[0].key, aside[0].child.as_str()), ("1", "top/group"));
        let fates = system.fates();
        assert!(fates.is_balanced() && fates.quarantined == 1, "{fates:?}");
        let listed = system.quarantine().requests();
        let attempts: Vec<_> = listed[0].trail.iter().map(|it| it.attempt).collect();
        assert_eq!(attempts, [1, 2]);
    });
}

#[test]
fn no_end_of_the_process_at_all_is_no_number_to_set_a_request_aside_after() {
    let refused = |tree: SupervisorSpec| {
        runtime().block_on(async {
            let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
            match System::recover(tree, store).await {
                Err(RecoverError::Start(StartError::Spec(SpecError::Zero { path, what }))) => {
                    format!("{path}: {what}")
                }
                other => panic!("{:?}", other.map(|(_, recovered)| recovered)),
            }
        })
    };
    let world = World::hanging();
    let what = "the number of ends of the process after which a request is set aside";
    assert_eq!(refused(tree(&world, 0)), format!("top/tool: {what}"));
    let group = GroupSpec::tool("group").process_deaths(0);
    let member = ChildSpec::stateless("first", move || Tool(Arc::clone(&world)));
    let tree = SupervisorSpec::one_for_one("top").group(group.member_spec(member));
    assert_eq!(refused(tree), format!("top/group: {what}"));
}
