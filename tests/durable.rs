//! What was accepted, done and known survives the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mainstay::behavior::{Behavior, Call, Context, Stateful, Stateless, Step, Turn};
use mainstay::checkpoint::{FileStore, Interval, MemoryStore, Schema, Snapshot, Store};
use mainstay::error::{CallError, CheckpointError, RecoverError, StartError, Unavailable};
use mainstay::event::Event;
use mainstay::fate::Fate;
use mainstay::fault::{EffectKind, Fault};
use mainstay::journal::Journaled;
use mainstay::policy::Policy;
use mainstay::policy::budget::Limits;
use mainstay::port::{CallOptions, Needs, Port};
use mainstay::spec::{ChildSpec, GroupSpec, SupervisorSpec};
use mainstay::system::{RecoverOptions, System};
use mainstay::tree::TreeDump;
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::sync::Notify;

use dying::Dying;

#[path = "common/dying.rs"]
mod dying;
#[path = "durable/again.rs"]
mod again;
#[path = "durable/cleared.rs"]
mod cleared;
#[path = "common/moody.rs"]
mod moody;
#[path = "durable/replies.rs"]
mod replies;
#[path = "durable/stale.rs"]
mod stale;
#[path = "durable/templates.rs"]
mod templates;
#[path = "durable/unfit.rs"]
mod unfit;
#[path = "durable/torn.rs"]
mod torn;
#[path = "durable/versions.rs"]
mod versions;
#[path = "durable/joined.rs"]
mod joined;
#[path = "durable/handed.rs"]
mod handed;
#[path = "durable/returned.rs"]
mod returned;
#[path = "durable/marks.rs"]
mod marks;
#[path = "durable/one_system.rs"]
mod one_system;

/// The world outside: it is there before and after the process.
#[derive(Default)]
struct World {
    acts: Mutex<Vec<u64>>,
    keys: Mutex<Vec<String>>,
    /// The tool hangs after its next act, so that the process can be ended there.
    hang: AtomicU32,
    hung: Notify,
}

#[derive(Clone)]
struct Tool(Arc<World>);

impl Behavior for Tool {
    type Request = u64;
    type Reply = u64;
}

impl Stateless for Tool {
    async fn serve(&self, request: &u64, ctx: &Context) -> Result<u64, Fault> {
        self.0.keys.lock().push(ctx.key());
        self.0.acts.lock().push(*request);
        if self.0.hang.load(Ordering::SeqCst) > 0 {
            self.0.hang.fetch_sub(1, Ordering::SeqCst);
            self.0.hung.notify_one();
            std::future::pending::<()>().await;
        }
        Ok(request + 1)
    }
}

/// Adds up what it is asked, and acts `request` times, one act a step.
#[derive(Clone)]
struct Counter {
    sum: Arc<u64>,
    /// Acts done for the request in hand.
    done: Arc<u64>,
}

impl Counter {
    fn new() -> Self {
        Self { sum: Arc::new(0), done: Arc::new(0) }
    }
}

impl Behavior for Counter {
    type Request = u64;
    type Reply = u64;

    fn needs() -> Needs {
        Needs::none().needs::<Port<u64, u64>>("tool")
    }
}

impl Stateful for Counter {
    async fn step(&mut self, request: &u64, turn: Turn, ctx: &Context) -> Result<Step<u64>, Fault> {
        if let Turn::Performed(performed) = turn {
            performed.get::<u64>(0)?;
            self.done = Arc::new(*self.done + 1);
        }
        if *self.done < *request {
            let tool = ctx.port::<u64, u64>("tool")?;
            return Ok(Step::Perform(vec![Call::from(tool.effect(100 * *request + *self.done))]));
        }
        self.done = Arc::new(0);
        self.sum = Arc::new(*self.sum + request);
        Ok(Step::Reply(*self.sum))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        let snapshot = Snapshot::new("counter", 1);
        Some(snapshot.with("sum", Arc::clone(&self.sum)).with("done", Arc::clone(&self.done)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.sum = snapshot.get("sum")?;
        self.done = snapshot.get("done")?;
        Ok(())
    }
}

fn spec(world: &Arc<World>, kind: EffectKind) -> SupervisorSpec {
    let tool = Tool(Arc::clone(world));
    SupervisorSpec::one_for_one("desk")
        .intensity(10, Duration::from_secs(5))
        .child(
            ChildSpec::stateless("tool", move || tool.clone())
                .effect(kind)
                .attempt_timeout(Duration::from_secs(3600)),
        )
        .child(ChildSpec::stateful("counter", Counter::new).durable::<Counter>())
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

async fn recover(
    spec: SupervisorSpec,
    store: &Arc<dyn Store>,
) -> (System, mainstay::system::Recovered, Port<u64, u64>) {
    let (system, recovered) = System::recover(spec, Arc::clone(store)).await.unwrap();
    let port = system.port::<u64, u64>("desk/counter").unwrap();
    (system, recovered, port)
}

fn store() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
}

#[test]
fn state_survives_the_process() {
    let (store, world) = (store(), Arc::new(World::default()));
    runtime().block_on(async {
        let (_system, recovered, counter) =
            recover(spec(&world, EffectKind::Irreversible), &store).await;
        assert_eq!((recovered.requests, recovered.children.len()), (0, 0));
        assert_eq!(counter.call(2_u64).await.unwrap().value, 2);
        assert_eq!(counter.call(3_u64).await.unwrap().value, 5);
    });
    // The runtime is gone, and everything in it: nothing was stopped in order.
    runtime().block_on(async {
        let (_system, recovered, counter) =
            recover(spec(&world, EffectKind::Irreversible), &store).await;
        assert_eq!((recovered.requests, recovered.children.len()), (0, 1));
        assert_eq!(counter.call(1_u64).await.unwrap().value, 6);
        assert_eq!(*world.acts.lock(), [200, 201, 300, 301, 302, 100]);
    });
}

#[test]
fn wherever_the_process_ends_no_act_is_lost_and_none_is_done_twice() {
    for last_commit_is_made in [false, true] {
        end_everywhere(last_commit_is_made);
    }
}

fn end_everywhere(last_commit_is_made: bool) {
    let mut ends = 0;
    for limit in 0.. {
        let (inner, world) = (store(), Arc::new(World::default()));
        let dying = Arc::new(Dying::new(&inner, limit, last_commit_is_made));
        // What the caller was told, who is still there when the process is not.
        let told = Mutex::new(Vec::new());
        let finished = runtime().block_on(async {
            let store: Arc<dyn Store> = Arc::clone(&dying) as Arc<dyn Store>;
            let work = async {
                let (_system, _, counter) =
                    recover(spec(&world, EffectKind::Irreversible), &store).await;
                for (key, request) in [("one", 1_u64), ("three", 3)] {
                    counter.submit(request, CallOptions::new().key(key)).await.unwrap();
                    told.lock().push(key);
                }
                counter.call(0_u64).await.unwrap();
            };
            tokio::time::timeout(Duration::from_secs(60), work).await.is_ok()
        });
        let accepted = inner.scan("mainstay", 1, usize::MAX).unwrap().len() as u64;
        runtime().block_on(async {
            let (system, _, counter) =
                recover(spec(&world, EffectKind::Irreversible), &inner).await;
            for (key, request) in [("one", 1_u64), ("three", 3)] {
                if system.journaled(key).is_none() {
                    assert!(!told.lock().contains(&key), "{key} was lost, limit {limit}");
                    counter.submit(request, CallOptions::new().key(key)).await.unwrap();
                }
            }
            // Behind all others, so they have their fates when it is answered.
            counter.call(0_u64).await.unwrap();
            let unknown = system.effects().open();
            let acts = world.acts.lock().clone();
            for act in [100, 300, 301, 302] {
                let times = acts.iter().filter(|done| **done == act).count();
                assert!(times <= 1, "{act} {times} times, limit {limit}: {acts:?}");
            }
            // What did not happen belongs to a request that waits for a person.
            let done = acts.len();
            assert!(done == 4 || !unknown.is_empty(), "limit {limit} {accepted}: {acts:?}");
            for key in ["one", "three"] {
                let Some(Journaled::Fated(fate, _)) = system.journaled(key) else {
                    panic!("{key} was lost, limit {limit}")
                };
                assert!(matches!(fate, Fate::Done | Fate::Unknown), "{key} {fate}");
            }
        });
        ends += 1;
        if finished {
            break;
        }
    }
    assert!(ends > 12, "only {ends} places to end at");
}

#[test]
fn an_act_under_way_when_the_process_ended_is_unknown_or_asked_for_again_by_its_kind() {
    for (kind, expected) in
        [(EffectKind::Irreversible, Fate::Unknown), (EffectKind::Idempotent, Fate::Done)]
    {
        let (store, world) = (store(), Arc::new(World::default()));
        world.hang.store(1, Ordering::SeqCst);
        runtime().block_on(async {
            let (_system, _, counter) = recover(spec(&world, kind), &store).await;
            counter.submit(1_u64, CallOptions::new().key("one")).await.unwrap();
            world.hung.notified().await;
        });
        runtime().block_on(async {
            let (system, recovered, counter) = recover(spec(&world, kind), &store).await;
            assert_eq!((recovered.requests, recovered.open.len()), (1, 1));
            let open = &recovered.open[0];
            assert_eq!((&*open.key, &*open.request), ("one", "1"));
            assert!(!format!("{open:?}").contains("request:"), "{open:?}");
            // The next request waits for the one before it.
            counter.call(2_u64).await.unwrap();
            let Some(Journaled::Fated(fate, _)) = system.journaled("one") else {
                panic!("{:?}", system.journaled("one"));
            };
            assert_eq!(fate, expected, "{kind:?}");
            let unknown = usize::from(kind == EffectKind::Irreversible);
            assert_eq!(system.effects().open().len(), unknown);
            let keys = world.keys.lock();
            assert_eq!(keys.len(), 4 - unknown, "{kind:?}");
            assert!(kind == EffectKind::Irreversible || keys[0] == keys[1]);
        });
    }
}

#[test]
fn a_system_that_stops_leaves_durable_requests_open_for_the_next() {
    let (store, world) = (store(), Arc::new(World::default()));
    world.hang.store(1, Ordering::SeqCst);
    runtime().block_on(async {
        let (system, _, counter) = recover(spec(&world, EffectKind::Idempotent), &store).await;
        let call = tokio::spawn({
            let counter = counter.clone();
            async move { counter.call(1_u64).await }
        });
        world.hung.notified().await;
        counter.submit(5_u64, CallOptions::new().key("five")).await.unwrap();
        system.stop().await;
        let error = call.await.unwrap().unwrap_err();
        assert!(matches!(error, CallError::Suspended { .. }), "{error:?}");
        assert_eq!(system.fates().suspended, 2);
        assert!(system.fates().is_balanced());
    });
    runtime().block_on(async {
        let (system, recovered, counter) =
            recover(spec(&world, EffectKind::Idempotent), &store).await;
        assert_eq!(recovered.requests, 2);
        assert_eq!(counter.call(1_u64).await.unwrap().value, 7);
        assert_eq!(
            system.journaled("five"),
            Some(Journaled::Fated(Fate::Done, Some("6".to_owned())))
        );
    });
}

#[test]
fn a_request_under_a_key_that_was_accepted_before_is_refused() {
    let (store, world) = (store(), Arc::new(World::default()));
    for round in 0..2 {
        runtime().block_on(async {
            let (_system, _, counter) =
                recover(spec(&world, EffectKind::Irreversible), &store).await;
            let submitted = counter.submit(1_u64, CallOptions::new().key("once")).await;
            if round == 0 {
                submitted.unwrap();
                counter.call(1_u64).await.unwrap();
            } else {
                let Err(CallError::Refused { message, .. }) = submitted else {
                    panic!("{submitted:?}")
                };
                assert_eq!(message, 1);
            }
        });
    }
    assert_eq!(world.acts.lock().len(), 2);
}

#[test]
fn a_crash_goes_on_with_the_last_state_not_with_the_first() {
    let (store, world) = (store(), Arc::new(World::default()));
    runtime().block_on(async {
        let (system, _, counter) = recover(spec(&world, EffectKind::Irreversible), &store).await;
        assert_eq!(counter.call(4_u64).await.unwrap().value, 4);
        system.kill("desk/counter").unwrap();
        assert_eq!(counter.call(1_u64).await.unwrap().value, 5);
    });
}

#[test]
fn a_store_of_another_tree_is_refused_with_the_difference_named() {
    let (store, world) = (store(), Arc::new(World::default()));
    runtime().block_on(async {
        recover(spec(&world, EffectKind::Irreversible), &store).await;
    });
    runtime().block_on(async {
        let other = SupervisorSpec::one_for_one("desk").child(
            ChildSpec::stateless("other", {
                let tool = Tool(Arc::clone(&world));
                move || tool.clone()
            })
            .durable::<Tool>(),
        );
        let error = System::recover(other, Arc::clone(&store)).await.unwrap_err();
        let RecoverError::Topology { difference } = &error else { panic!("{error}") };
        assert_eq!(difference.len(), 2, "{error}");
        assert!(error.to_string().contains("desk/counter"), "{error}");
        assert!(error.to_string().contains("desk/other"), "{error}");
    });
}

#[test]
fn a_durable_child_without_a_store_is_refused() {
    runtime().block_on(async {
        let world = Arc::new(World::default());
        let error = System::start(spec(&world, EffectKind::Irreversible)).await.unwrap_err();
        assert!(matches!(error, StartError::Spec(_)), "{error}");
        assert!(error.to_string().contains("desk/counter"), "{error}");
    });
}

#[test]
fn a_child_that_is_started_while_the_system_runs_cannot_be_durable_and_the_store_stays_of_use() {
    let (store, world) = (store(), Arc::new(World::default()));
    for _ in 0..2 {
        runtime().block_on(async {
            let (system, ..) = recover(spec(&world, EffectKind::Irreversible), &store).await;
            let tool = Tool(Arc::clone(&world));
            let late = ChildSpec::stateless("late", move || tool.clone());
            let desk = system.supervisor("desk").unwrap();
            let error = desk.start_child(late.clone().durable::<Tool>()).await.unwrap_err();
            let StartError::Spec(error) = error else { panic!("{error}") };
            assert_eq!(
                error.to_string(),
                "\"desk/late\": durable and a child that is started while the system runs, and from no template \
                 exclude each other"
            );
            // What it is asked for is not in the store, and binds nobody.
            desk.start_child(late).await.unwrap();
            let late = system.port::<u64, u64>("desk/late").unwrap();
            late.cast(1_u64).unwrap();
        });
    }
}

#[test]
fn the_dump_and_the_spec_say_who_survives_the_process() {
    let (store, world) = (store(), Arc::new(World::default()));
    runtime().block_on(async {
        let grouped = Tool(Arc::clone(&world));
        let tool = ChildSpec::stateless("one", move || grouped.clone());
        let group = GroupSpec::tool("tools").member_spec(tool);
        let spec = spec(&world, EffectKind::Read).group(group.durable::<Tool>());
        let (system, ..) = recover(spec, &store).await;
        let dump = system.tree();
        let again = serde_json::from_str::<TreeDump>(&dump.to_json()).unwrap();
        for dump in [&dump, &again] {
            let of = |path: &str| dump.find(&path.into()).unwrap().is_durable();
            let durable = ["desk/counter", "desk/tools"].map(of);
            let others = ["desk", "desk/tool", "desk/tools/one"].map(of);
            assert_eq!((durable, others), ([true; 2], [false; 3]));
        }
        let text = dump.to_string();
        assert!(text.contains("durable stateful") && text.contains("durable tool group"), "{text}");
        assert!(dump.to_mermaid().contains("durable stateful"), "{}", dump.to_mermaid());
        assert_eq!(dump.to_json().matches("\"durable\":true").count(), 2);
    });
    let tool = Tool(world);
    let plain = ChildSpec::stateless("late", move || tool.clone());
    assert!(format!("{plain:?}").contains("durable: false"), "{plain:?}");
    let durable = plain.durable::<Tool>();
    assert!(format!("{durable:?}").contains("durable: true"), "{durable:?}");
}

#[test]
fn checkpoints_are_taken_at_the_interval_and_with_each_fate() {
    let (store, world) = (store(), Arc::new(World::default()));
    runtime().block_on(async {
        let tool = Tool(Arc::clone(&world));
        let counter = ChildSpec::stateful("counter", Counter::new).durable::<Counter>();
        let spec = SupervisorSpec::one_for_one("desk")
            .child(ChildSpec::stateless("tool", move || tool.clone()).effect(EffectKind::Read))
            .child(counter.checkpoint(Interval::Steps(4)));
        let (_system, _, counter) = recover(spec, &store).await;
        // Ten acts and the reply are eleven steps: checkpoints after 4, 8, and with the fate.
        counter.call(10_u64).await.unwrap();
    });
    let listed = store.checkpoints(&"desk/counter".into()).unwrap();
    let steps: Vec<_> = listed.iter().rev().map(|listed| listed.checkpoint.step).collect();
    assert_eq!(steps, [4, 8, 11]);
}

#[test]
fn a_store_does_not_grow_with_every_request_there_ever_was() {
    let (store, world) = (store(), Arc::new(World::default()));
    runtime().block_on(async {
        let (_system, _, counter) = recover(spec(&world, EffectKind::Irreversible), &store).await;
        let (mut requests, mut most) = (0, 0);
        loop {
            counter.call(0_u64).await.unwrap();
            requests += 1;
            let kept = store.info().unwrap().checkpoints;
            most = most.max(kept);
            // It is tidied in a thread of its own, which takes as long as it takes.
            if kept < most / 2 {
                break;
            }
            assert!(requests < 200_000, "{kept} checkpoints after {requests} requests");
        }
        assert!(requests > 1000, "nothing is forgotten early: {requests}");
    });
}

#[test]
fn a_durable_tool_is_asked_once_wherever_the_process_ends() {
    let spec = |world: &Arc<World>| {
        let tool = Tool(Arc::clone(world));
        let tool =
            ChildSpec::stateless("tool", move || tool.clone()).effect(EffectKind::Idempotent);
        SupervisorSpec::one_for_one("desk")
            .child(tool.durable::<Tool>())
            .child(ChildSpec::stateful("counter", Counter::new).durable::<Counter>())
    };
    for last in [false, true] {
        for limit in 0.. {
            let (inner, world) = (store(), Arc::new(World::default()));
            let finished = runtime().block_on(async {
                let store: Arc<dyn Store> = Arc::new(Dying::new(&inner, limit, last));
                let work = async {
                    let (_system, _, counter) = recover(spec(&world), &store).await;
                    counter.submit(2_u64, CallOptions::new().key("two")).await.unwrap();
                    counter.call(0_u64).await.unwrap();
                };
                tokio::time::timeout(Duration::from_secs(20), work).await.is_ok()
            });
            runtime().block_on(async {
                let (system, _, counter) = recover(spec(&world), &inner).await;
                if system.journaled("two").is_none() {
                    counter.submit(2_u64, CallOptions::new().key("two")).await.unwrap();
                }
                assert_eq!(counter.call(0_u64).await.unwrap().value, 2, "{limit} {last}");
                let fate = system.journaled("two");
                assert!(matches!(fate, Some(Journaled::Fated(Fate::Done, _))), "{fate:?}");
                assert_eq!(system.effects().open(), []);
            });
            // What was under way is done again under the same key, and nothing under another.
            let mut acts: Vec<_> = world.acts.lock().iter().copied().collect();
            acts.sort_unstable();
            acts.dedup();
            let mut keys = world.keys.lock().clone();
            keys.sort();
            keys.dedup();
            assert_eq!((acts.as_slice(), keys.len()), (&[200, 201][..], 2), "{limit} {last}");
            if finished {
                break;
            }
        }
    }
}

/// As the counter, of an earlier version: it was asked by name.
#[derive(Clone)]
struct Named(Arc<Notify>);

impl Behavior for Named {
    type Request = String;
    type Reply = u64;
}

impl Stateful for Named {
    async fn step(&mut self, _: &String, _: Turn, _: &Context) -> Result<Step<u64>, Fault> {
        self.0.notify_one();
        std::future::pending().await
    }
}

#[test]
fn a_request_that_cannot_be_read_is_named_and_the_store_left_as_it_was() {
    let (store, world) = (store(), Arc::new(World::default()));
    runtime().block_on(async {
        let begun = Arc::new(Notify::new());
        let named = Named(Arc::clone(&begun));
        let spec = SupervisorSpec::one_for_one("desk")
            .child(ChildSpec::stateful("counter", move || named.clone()).durable::<Named>());
        let (system, _) = System::recover(spec, Arc::clone(&store)).await.unwrap();
        let port = system.port::<String, u64>("desk/counter").unwrap();
        for (key, text) in [("first", "5"), ("second", "five")] {
            port.submit(text, CallOptions::new().key(key)).await.unwrap();
        }
        begun.notified().await;
    });
    runtime().block_on(async {
        let before = store.info().unwrap();
        let spec = spec(&world, EffectKind::Irreversible);
        let error = System::recover(spec, Arc::clone(&store)).await.unwrap_err();
        let RecoverError::Request { key, .. } = &error else { panic!("{error}") };
        assert_eq!(key, "first", "{error}");
        let after = store.info().unwrap();
        assert_eq!((after.commits, after.topology), (before.commits, before.topology));
    });
    runtime().block_on(async {
        let mut options = RecoverOptions::default();
        options.set_unreadable_aside = true;
        let spec = spec(&world, EffectKind::Irreversible);
        let (system, recovered) =
            System::recover_with(spec, Arc::clone(&store), options).await.unwrap();
        let aside: Vec<_> = recovered.set_aside.iter().map(|it| &*it.key).collect();
        assert_eq!((recovered.requests, aside), (0, vec!["first", "second"]));
        let quarantine = system.quarantine();
        let why = quarantine.requests()[0].trail.to_string();
        assert!(why.contains("request_unreadable") && why.contains("desk/counter"), "{why}");
        assert!(quarantine.export("second").unwrap().contains("five"));
        assert!(quarantine.release("second").await.is_err(), "it is still not readable");
        assert_eq!(quarantine.requests().len(), 2, "and still there");
        // The healthy go on.
        let port = system.port::<u64, u64>("desk/counter").unwrap();
        assert_eq!(port.call(1_u64).await.unwrap().value, 1);
    });
}

#[derive(Clone)]
struct Fraction;

impl Behavior for Fraction {
    type Request = f64;
    type Reply = f64;
}

impl Stateful for Fraction {
    async fn step(&mut self, request: &f64, _: Turn, _: &Context) -> Result<Step<f64>, Fault> {
        Ok(Step::Reply(*request))
    }
}

#[test]
fn a_request_that_could_not_be_read_again_is_not_accepted() {
    let store = store();
    let spec = || {
        let child = ChildSpec::stateful("half", || Fraction).durable::<Fraction>();
        SupervisorSpec::one_for_one("desk").child(child)
    };
    runtime().block_on(async {
        let (system, _) = System::recover(spec(), Arc::clone(&store)).await.unwrap();
        let port = system.port::<f64, f64>("desk/half").unwrap();
        for none in [f64::NAN, f64::INFINITY] {
            let refused = port.submit(none, CallOptions::new()).await.unwrap_err();
            let CallError::Refused { message, why, .. } = refused else { panic!("{refused}") };
            assert_eq!(why, Unavailable::Unrecordable);
            assert!(!message.is_finite(), "it is given back");
        }
        assert_eq!(port.call(0.5).await.unwrap().value, 0.5);
    });
    runtime().block_on(async {
        let (_system, recovered) = System::recover(spec(), Arc::clone(&store)).await.unwrap();
        assert_eq!(recovered.requests, 0);
    });
}

#[test]
fn a_request_has_the_budget_it_was_given_also_in_the_next_process() {
    let store = store();
    let attempts = Arc::new(AtomicU32::new(0));
    let spec = |attempts: &Arc<AtomicU32>| {
        let failing = Failing(Arc::clone(attempts));
        SupervisorSpec::one_for_one("desk")
            .child(ChildSpec::stateful("failing", move || failing.clone()).durable::<Failing>())
    };
    runtime().block_on(async {
        let dying = Arc::new(Dying::new(&store, 2, true));
        let (system, _) = System::recover(spec(&attempts), dying).await.unwrap();
        let port = system.port::<u64, u64>("desk/failing").unwrap();
        let limits = Limits { attempts: Some(2), ..Limits::default() };
        port.submit(1_u64, CallOptions::new().key("one").budget(limits)).await.unwrap();
    });
    attempts.store(0, Ordering::SeqCst);
    runtime().block_on(async {
        let (system, recovered) =
            System::recover(spec(&attempts), Arc::clone(&store)).await.unwrap();
        assert_eq!(recovered.requests, 1);
        let mut events = system.events();
        while system.journaled("one") == Some(Journaled::Open) {
            events.next().await.unwrap();
        }
    });
    assert_eq!(attempts.load(Ordering::SeqCst), 2, "without one it would be tried three times");
}

#[derive(Clone)]
struct Failing(Arc<AtomicU32>);

impl Behavior for Failing {
    type Request = u64;
    type Reply = u64;
}

impl Stateful for Failing {
    async fn step(&mut self, _: &u64, _: Turn, _: &Context) -> Result<Step<u64>, Fault> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Err(Fault::network("no"))
    }
}

#[test]
fn a_store_does_not_grow_with_every_process_there_ever_was() {
    let dir = tempfile::tempdir().unwrap();
    let process = async |calls: u64| {
        let store: Arc<dyn Store> = Arc::new(FileStore::open(dir.path()).unwrap());
        let spec = SupervisorSpec::one_for_one("desk")
            .child(ChildSpec::stateful("noise", Noise::default).durable::<Noise>());
        let (system, _) = System::recover(spec, Arc::clone(&store)).await.unwrap();
        let found = store.info().unwrap();
        let port = system.port::<u64, u64>("desk/noise").unwrap();
        for seed in 0..calls {
            port.call(seed).await.unwrap();
        }
        system.stop().await;
        (found, store.info().unwrap())
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (_, left) = process(180).await;
        assert!(left.checkpoints >= 180 && left.bytes > 4 << 20, "{left:?}");
        // Too little for this process to have tidied up. The next one does, as more than a quarter goes.
        let (found, _) = process(0).await;
        assert_eq!(found.checkpoints, 128);
        assert!(found.bytes < left.bytes / 4 * 3, "{found:?} {left:?}");
    });
}

/// Its state is another one each time, and does not get smaller when it is packed.
#[derive(Clone, Default)]
struct Noise(Arc<Vec<u8>>);

impl Behavior for Noise {
    type Request = u64;
    type Reply = u64;
}

impl Stateful for Noise {
    async fn step(&mut self, seed: &u64, _: Turn, _: &Context) -> Result<Step<u64>, Fault> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let byte = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        self.0 = Arc::new((0..40 << 10).map(byte).collect());
        Ok(Step::Reply(*seed))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("noise", 1).with("noise", Arc::clone(&self.0)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.0 = snapshot.get("noise")?;
        Ok(())
    }
}
