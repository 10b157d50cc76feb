//! What children of templates leave behind when they are deleted, and who needs whom.

use std::sync::OnceLock;

use mainstay::checkpoint::{Batch, Durability, Scope};
use mainstay::id::ChildPath;
use mainstay::spec::Shutdown;
use mainstay::system::{SupervisorRef, To};
use parking_lot::Condvar;

use super::moody::{Mood, Moody};
use super::*;

/// A number that takes its time to be written, while the gate is closed.
#[derive(Clone, Copy, serde::Deserialize)]
struct Slow(u64);

#[derive(Default)]
struct Gate {
    closed: Mutex<bool>,
    changed: Condvar,
    waits: Notify,
}

fn gate() -> &'static Gate {
    static GATE: OnceLock<Gate> = OnceLock::new();
    GATE.get_or_init(Gate::default)
}

impl serde::Serialize for Slow {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut closed = gate().closed.lock();
        while *closed {
            gate().waits.notify_one();
            gate().changed.wait(&mut closed);
        }
        serializer.serialize_u64(self.0)
    }
}

#[derive(Clone)]
struct Sum(Arc<Slow>);

impl Behavior for Sum {
    type Request = u64;
    type Reply = u64;
}

impl Stateful for Sum {
    async fn step(&mut self, request: &u64, _: Turn, _: &Context) -> Result<Step<u64>, Fault> {
        self.0 = Arc::new(Slow(self.0.0 + request));
        Ok(Step::Reply(self.0.0))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("sum", 1).with("sum", Arc::clone(&self.0)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.0 = snapshot.get("sum")?;
        Ok(())
    }
}

fn desk() -> SupervisorSpec {
    let sum = |first: &u64| {
        let first = *first;
        let sum = ChildSpec::stateful("", move || Sum(Arc::new(Slow(first))));
        sum.effect(EffectKind::Pure).shutdown(Shutdown::Brutal).durable::<Sum>()
    };
    SupervisorSpec::one_for_one("desk").scope(Scope::Session).template("sum", sum)
}

async fn up(store: &Arc<dyn Store>) -> (System, SupervisorRef) {
    let (system, _) = System::recover(desk(), Arc::clone(store)).await.unwrap();
    let desk = system.supervisor("desk").unwrap();
    (system, desk)
}

async fn delete(desk: &SupervisorRef, id: &str) {
    desk.terminate_child(id).await.unwrap();
    desk.delete_child(id).await.unwrap();
}

/// An answer was on its way into the store when its child was killed, which then has to give back the state of
/// before. The user's code takes its time over that, and another child has the path meanwhile.
#[test]
fn a_state_that_is_given_back_late_is_not_that_of_the_next_child() {
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap();
    threads.block_on(async {
        let moody = Moody::new();
        let store: Arc<dyn Store> = Arc::clone(&moody) as Arc<dyn Store>;
        let (system, desk) = up(&store).await;
        desk.start_from("sum", "a", &100_u64).await.unwrap();
        let port = system.port::<u64, u64>("desk/a").unwrap();
        moody.silent_after(1);
        port.submit(5_u64, CallOptions::new().key("late")).await.unwrap();
        moody.held(1).await;
        *gate().closed.lock() = true;
        desk.terminate_child("a").await.unwrap();
        gate().waits.notified().await;
        moody.turn(Mood::Well);
        desk.delete_child("a").await.unwrap();
        desk.start_from("sum", "a", &0_u64).await.unwrap();
        *gate().closed.lock() = false;
        gate().changed.notify_all();
        while system.journaled("late") != Some(Journaled::Fated(Fate::Stopped, None)) {
            tokio::task::yield_now().await;
        }
        let left = store.checkpoints(&ChildPath::new("desk/a")).unwrap();
        assert!(left.is_empty(), "{left:?}");
    });
}

#[test]
fn the_states_of_a_deleted_child_go_with_it_but_for_what_people_and_lines_need() {
    let store = store();
    let states = |id: &str| {
        let listed = store.checkpoints(&ChildPath::new("desk").join(id)).unwrap();
        listed.iter().map(|it| it.checkpoint.id).collect::<Vec<_>>()
    };
    runtime().block_on(async {
        let (system, desk) = up(&store).await;
        for id in ["a", "b", "stays"] {
            desk.start_from("sum", id, &0_u64).await.unwrap();
        }
        let ask = async |id: &str| {
            let port = system.port::<u64, u64>(format!("desk/{id}")).unwrap();
            port.call(1_u64).await.unwrap();
        };
        ask("a").await;
        ask("b").await;
        system.checkpoint("desk").await.unwrap();
        let named = [states("a")[0], states("b")[0]];
        desk.start_from("sum", "c", &0_u64).await.unwrap();
        ask("c").await;
        let bad = states("c")[0];
        let batch = Batch::new().mark_bad(bad, "to look at");
        store.commit(batch, Durability::Sync).await.unwrap();
        for id in ["a", "b", "c"] {
            ask(id).await;
            ask(id).await;
            assert!(states(id).len() > 1, "{id}");
            delete(&desk, id).await;
        }
        assert_eq!(["a", "b", "c"].map(states), [named[0], named[1], bad].map(|id| vec![id]));
    });
    runtime().block_on(async {
        let (system, _) = up(&store).await;
        let report = system.rollback("desk", To::Latest).await.unwrap();
        assert!(report.line.is_some() && report.refused.is_empty(), "{report:?}");
    });
}

#[test]
fn a_child_of_the_spec_that_gets_the_path_of_a_deleted_one_begins_anew() {
    let store = store();
    runtime().block_on(async {
        let (system, desk) = up(&store).await;
        desk.start_from("sum", "a", &100_u64).await.unwrap();
        assert_eq!(
            system.port::<u64, u64>("desk/a").unwrap().call(1_u64).await.unwrap().value,
            101
        );
        delete(&desk, "a").await;
    });
    runtime().block_on(async {
        let sum = ChildSpec::stateful("a", || Sum(Arc::new(Slow(0))));
        let spec = desk().child(sum.effect(EffectKind::Pure).durable::<Sum>());
        let mut options = RecoverOptions::default();
        options.adopt_topology = true;
        let (system, recovered) =
            System::recover_with(spec, Arc::clone(&store), options).await.unwrap();
        assert!(recovered.children.is_empty(), "{recovered:?}");
        assert_eq!(system.port::<u64, u64>("desk/a").unwrap().call(1_u64).await.unwrap().value, 1);
    });
}

#[test]
fn whose_a_state_is_comes_before_what_became_of_it() {
    let store = store();
    runtime().block_on(async {
        let (system, desk) = up(&store).await;
        let newest = |id: &str| store.checkpoints(&ChildPath::new(id)).unwrap()[0].checkpoint.id;
        for id in ["a", "b"] {
            desk.start_from("sum", id, &0_u64).await.unwrap();
            system.port::<u64, u64>(format!("desk/{id}")).unwrap().call(1_u64).await.unwrap();
        }
        let of_b = newest("desk/b");
        system.rollback("desk/b", To::Checkpoint(of_b)).await.unwrap();
        let refused = system.rollback("desk/a", To::Checkpoint(of_b)).await.unwrap_err();
        assert!(refused.to_string().contains("desk/b"), "{refused}");
        let batch = Batch::new().mark_bad(newest("desk/a"), "to look at");
        store.commit(batch, Durability::Sync).await.unwrap();
        let of_a = newest("desk/a");
        delete(&desk, "a").await;
        desk.start_from("sum", "a", &0_u64).await.unwrap();
        let refused = system.rollback("desk/a", To::Checkpoint(of_a)).await.unwrap_err();
        assert!(refused.to_string().contains("was deleted"), "{refused}");
    });
}

/// Asks its "tool".
fn counters() -> SupervisorSpec {
    let (world, tool) = (Arc::new(World::default()), |world: Arc<World>| {
        ChildSpec::stateless("", move || Tool(Arc::clone(&world))).effect(EffectKind::Pure)
    });
    SupervisorSpec::one_for_one("desk")
        .template("counter", |(): &()| {
            ChildSpec::stateful("", Counter::new).effect(EffectKind::Pure).durable::<Counter>()
        })
        .template("tool", move |(): &()| tool(Arc::clone(&world)).durable::<Tool>())
}

#[test]
fn a_child_that_needs_one_that_was_started_anew_after_it_is_made_again_after_that() {
    let store = store();
    runtime().block_on(async {
        let (system, _) = System::recover(counters(), Arc::clone(&store)).await.unwrap();
        let desk = system.supervisor("desk").unwrap();
        desk.start_from("tool", "tool", &()).await.unwrap();
        for id in ["one", "two"] {
            desk.start_from("counter", id, &()).await.unwrap();
        }
        delete(&desk, "tool").await;
        desk.start_from("tool", "tool", &()).await.unwrap();
    });
    runtime().block_on(async {
        let (system, recovered) = System::recover(counters(), Arc::clone(&store)).await.unwrap();
        let made: Vec<_> = recovered.made.iter().map(ChildPath::id).collect();
        assert_eq!(made, ["one", "two", "tool"], "in the order of their starts");
        let two = system.port::<u64, u64>("desk/two").unwrap();
        assert_eq!(two.call(2_u64).await.unwrap().value, 2);
    });
    // Without it, the first of the others is named.
    runtime().block_on(async {
        let (system, _) = System::recover(counters(), Arc::clone(&store)).await.unwrap();
        delete(&system.supervisor("desk").unwrap(), "tool").await;
    });
    runtime().block_on(async {
        let refused = System::recover(counters(), Arc::clone(&store)).await.unwrap_err();
        let RecoverError::Child { child, why, .. } = &refused else { panic!("{refused}") };
        // Who reads it may have a command line, and no options of ours.
        assert!(refused.to_string().ends_with(&**why), "{refused}");
        assert_eq!(child.as_str(), "desk/one");
        assert!(why.contains("tool"), "{why}");
    });
}
