//! A process leaves things behind, a person looks at the store, and the next process does as was said.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::runtime::Runtime;

use super::*;
use crate::behavior::{Behavior, Call, Context, Stateful, Stateless, Step, Turn};
use crate::checkpoint::{MemoryStore, Snapshot};
use crate::error::{CheckpointError, ResolveError};
use crate::event::Event;
use crate::fate::Fate;
use crate::fault::{EffectKind, Fault};
use crate::ledger::Said;
use crate::port::{CallOptions, Needs, Port};
use crate::spec::{ChildSpec, SupervisorSpec};
use crate::system::{Recovered, System};

#[derive(Default)]
struct World {
    mended: AtomicBool,
    acts: AtomicU32,
}

#[derive(Clone)]
struct Tool(Arc<World>);

impl Behavior for Tool {
    type Request = String;
    type Reply = String;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Irreversible);
}

impl Stateless for Tool {
    async fn serve(&self, request: &String, _: &Context) -> Result<String, Fault> {
        match &**request {
            // It has acted, and the process will end before anybody hears of it.
            "cut" => {
                self.0.acts.fetch_add(1, Ordering::SeqCst);
                std::future::pending().await
            }
            "lost" => Err(Fault::indeterminate("no answer")),
            _ => {
                self.0.acts.fetch_add(1, Ordering::SeqCst);
                Ok(request.clone())
            }
        }
    }
}

/// Acts once a request, says what the tool said, and dies of the poison.
#[derive(Clone)]
struct Agent(Arc<World>, Arc<u32>);

impl Behavior for Agent {
    type Request = String;
    type Reply = String;

    fn needs() -> Needs {
        Needs::none().needs::<Port<String, String>>("tool")
    }
}

impl Stateful for Agent {
    async fn step(
        &mut self,
        request: &String,
        turn: Turn,
        ctx: &Context,
    ) -> Result<Step<String>, Fault> {
        if let Turn::Performed(performed) = turn {
            assert!(request != "poison" || self.0.mended.load(Ordering::SeqCst), "poisoned");
            self.1 = Arc::new(*self.1 + 1);
            return Ok(Step::Reply(performed.get::<String>(0)?.value.clone()));
        }
        let tool = ctx.port::<String, String>("tool")?;
        Ok(Step::Perform(vec![Call::from(tool.effect(request.clone()))]))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("agent", 1).with("seen", Arc::clone(&self.1)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.1 = snapshot.get("seen")?;
        Ok(())
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

fn spec(world: &Arc<World>, agents: &[&str]) -> SupervisorSpec {
    let tool = Tool(Arc::clone(world));
    let spec = SupervisorSpec::one_for_one("desk")
        .intensity(1000, std::time::Duration::from_secs(5))
        .child(ChildSpec::stateless("tool", move || tool.clone()));
    agents.iter().fold(spec, |spec, id| {
        let agent = Agent(Arc::clone(world), Arc::default());
        spec.child(ChildSpec::stateful(*id, move || agent.clone()).durable::<Agent>())
    })
}

async fn recover(world: &Arc<World>, store: &Arc<dyn Store>) -> (System, Recovered) {
    System::recover(spec(world, &["agent"]), Arc::clone(store)).await.unwrap()
}

async fn ask(system: &System, request: &str, key: &str) -> bool {
    let agent = system.port::<String, String>("desk/agent").unwrap();
    agent.call_with(request, CallOptions::new().key(key)).await.is_ok()
}

fn fated(system: &System, key: &str) -> Option<Fate> {
    match system.journaled(key)? {
        Journaled::Fated(fate, _) => Some(fate),
        Journaled::Open => None,
    }
}

#[test]
fn what_a_person_says_of_the_requests_in_a_store_is_done_by_the_next_process() {
    let (world, store): (_, Arc<dyn Store>) = (Arc::default(), Arc::new(MemoryStore::new()));
    runtime().block_on(async {
        let (system, _) = recover(&world, &store).await;
        for key in ["one", "two"] {
            assert!(!ask(&system, "poison", key).await);
        }
        assert!(ask(&system, "fine", "three").await);
    });
    runtime().block_on(async {
        let upkeep = Upkeep::of(Arc::clone(&store)).unwrap();
        let listed = upkeep.requests();
        let ids: Vec<_> = listed.iter().map(|listed| &*listed.id).collect();
        assert_eq!((ids, upkeep.open_requests()), (vec!["one", "two"], 0));
        assert!(listed.iter().all(|it| it.durable && it.trail.0.len() == 2), "{listed:?}");
        assert!(!format!("{listed:?}").contains("poison\""), "{listed:?}");
        assert!(upkeep.export("two").unwrap().contains("\"request\":\"poison\""));
        upkeep.release("one").await.unwrap();
        upkeep.discard("two").await.unwrap();
        let gone = |id: &str| QuarantineError::NotFound(id.to_owned());
        assert_eq!(upkeep.release("one").await, Err(gone("one")));
        assert_eq!(upkeep.discard("two").await, Err(gone("two")));
        assert_eq!(upkeep.export("three"), Err(gone("three")));
        assert_eq!(Upkeep::of(Arc::clone(&store)).unwrap().open_requests(), 1);
    });
    assert_eq!(world.acts.load(Ordering::SeqCst), 3);
    world.mended.store(true, Ordering::SeqCst);
    runtime().block_on(async {
        let (system, recovered) = recover(&world, &store).await;
        assert_eq!(recovered.requests, 1);
        assert!(ask(&system, "fine", "four").await);
        assert_eq!(fated(&system, "one"), Some(Fate::Done));
        assert_eq!(fated(&system, "two"), Some(Fate::Quarantined));
        assert!(system.quarantine().requests().is_empty());
    });
    assert_eq!(world.acts.load(Ordering::SeqCst), 4, "what was confirmed is not done again");
}

#[test]
fn a_request_that_the_tree_has_no_place_for_is_not_released() {
    let (world, store): (_, Arc<dyn Store>) = (Arc::default(), Arc::new(MemoryStore::new()));
    runtime().block_on(async {
        let (system, _) = recover(&world, &store).await;
        assert!(!ask(&system, "poison", "one").await);
        drop(system);
        let options = crate::system::RecoverOptions { adopt_topology: true, ..Default::default() };
        let renamed = spec(&world, &["another"]);
        System::recover_with(renamed, Arc::clone(&store), options).await.unwrap();
    });
    runtime().block_on(async {
        let upkeep = Upkeep::of(Arc::clone(&store)).unwrap();
        let error = upkeep.release("one").await.unwrap_err().to_string();
        assert!(error.contains("\"one\"") && error.contains("\"desk/agent\""), "{error}");
        upkeep.discard("one").await.unwrap();
        System::recover(spec(&world, &["another"]), Arc::clone(&store)).await.unwrap();
    });
}

#[test]
fn a_checkpoint_that_was_given_up_is_gone_and_the_child_goes_on_from_the_others() {
    let (world, store): (_, Arc<dyn Store>) = (Arc::default(), Arc::new(MemoryStore::new()));
    runtime().block_on(async {
        let (system, _) = recover(&world, &store).await;
        for key in ["one", "two", "three"] {
            assert!(ask(&system, "fine", key).await);
        }
        // All but the newest.
        for listed in store.checkpoints(&"desk/agent".into()).unwrap().iter().skip(1) {
            let batch = Batch::new().mark_bad(listed.checkpoint.id, "it could not be restored");
            store.commit(batch, Durability::Sync).await.unwrap();
        }
    });
    let (released, discarded) = runtime().block_on(async {
        let upkeep = Upkeep::of(Arc::clone(&store)).unwrap();
        let bad = upkeep.checkpoints().unwrap();
        assert!(bad.len() >= 2, "{bad:?}");
        let id = bad[0].checkpoint.id;
        let export = crate::checkpoint::Export::read(&upkeep.export_checkpoint(id).unwrap());
        assert_eq!(export.unwrap().checkpoint().id, id);
        upkeep.discard_checkpoint(id).await.unwrap();
        assert_eq!(upkeep.discard_checkpoint(id).await, Err(QuarantineError::NotBad(id)));
        assert_eq!(upkeep.export_checkpoint(id), Err(QuarantineError::NotBad(id)));
        let other = bad[1].checkpoint.id;
        upkeep.release_checkpoint(other).await.unwrap();
        assert_eq!(upkeep.release_checkpoint(other).await, Err(QuarantineError::NotBad(other)));
        assert_eq!(upkeep.checkpoints().unwrap().len(), bad.len() - 2);
        (other, id)
    });
    assert!(store.find(discarded).is_err() && store.find(released).unwrap().bad.is_none());
    runtime().block_on(async {
        let (system, recovered) = recover(&world, &store).await;
        assert!(recovered.refused.is_empty(), "{:?}", recovered.refused);
        assert!(ask(&system, "fine", "five").await);
    });
}

/// The journal as a kill leaves it at this moment, without the records that say this.
fn killed(store: &Arc<dyn Store>, without: &str) -> Arc<dyn Store> {
    let records = store.scan("mainstay", 1, usize::MAX).unwrap();
    let kept = records.into_iter().map(|record| record.bytes).filter(|bytes| {
        let says = bytes.windows(without.len().max(1)).any(|part| part == without.as_bytes());
        without.is_empty() || !says
    });
    let batch = kept.fold(Batch::new(), |batch, bytes| batch.append("mainstay", bytes));
    let copy = MemoryStore::new();
    copy.commit(batch, Durability::Sync).wait().unwrap();
    Arc::new(copy)
}

#[test]
fn an_effect_that_nobody_knows_the_outcome_of_is_settled_before_the_next_process() {
    let (world, store): (_, Arc<dyn Store>) = (Arc::default(), Arc::new(MemoryStore::new()));
    let waiting = |store: &Arc<dyn Store>| {
        let upkeep = Upkeep::of(Arc::clone(store)).unwrap();
        let open = upkeep.effects().open();
        (open.iter().map(|effect| effect.task.clone()).collect::<Vec<_>>(), upkeep.open_requests())
    };
    runtime().block_on(async {
        let (system, _) = recover(&world, &store).await;
        for key in ["one", "two"] {
            assert!(!ask(&system, "lost", key).await);
        }
        let mut events = system.events();
        let agent = system.port::<String, String>("desk/agent").unwrap();
        agent.submit("cut", CallOptions::new().key("three")).await.unwrap();
        let acts = |event: &Event| matches!(event, Event::Effect { status: "intended", .. });
        events.wait_for(acts).await.unwrap();
        // One at which somebody is still at work is the next process's to find out.
        let left = killed(&store, "");
        assert_eq!(waiting(&left), (vec!["one".to_owned(), "two".to_owned()], 1));
        // Nobody is any more: that it is unknown had not been written down yet.
        let cut = killed(&store, "\"status\":\"unknown\"");
        assert!(cut.streams().unwrap()[0].1 < left.streams().unwrap()[0].1);
        assert_eq!(waiting(&cut), waiting(&left));
    });
    runtime().block_on(async {
        let (system, _) = recover(&world, &store).await;
        system.stop().await;
        let effects = Upkeep::of(Arc::clone(&store)).unwrap().effects();
        let open = effects.open();
        assert!(matches!(effects.undone(open[0].key).await, Err(ResolveError::NotOpen { .. })));
        effects.by("ann", "the bank says so").happened(open[0].key, &"paid").await.unwrap();
        for effect in &open[1..] {
            effects.did_not_happen(effect.key).await.unwrap();
        }
        assert!(effects.open().is_empty());
        assert!(waiting(&store).0.is_empty());
    });
    runtime().block_on(async {
        let (system, recovered) = recover(&world, &store).await;
        assert_eq!((recovered.effects.confirmed, recovered.effects.unknown), (1, 0));
        let listed = system.effects().list();
        let said =
            |status: &str| listed.iter().find(|it| it.status == status).unwrap().said.clone();
        assert_eq!(said("confirmed"), Some(Said::new("ann", "the bank says so")));
        assert_eq!(said("rejected"), None);
        assert!(serde_json::to_string(&listed).unwrap().contains("\"by\":\"ann\""));
    });
}

#[test]
fn what_nobody_can_read_any_more_is_exported_as_it_stands_there() {
    let (world, store): (_, Arc<dyn Store>) = (Arc::default(), Arc::new(MemoryStore::new()));
    runtime().block_on(async {
        let (system, _) = recover(&world, &store).await;
        assert!(!ask(&system, "poison", "one").await);
        let mut aside = system.inner.hub.journal.get().unwrap().aside("one").unwrap();
        aside.open.request = "[".repeat(300);
        let text: serde_json::Value = serde_json::from_str(&exported(&aside).unwrap()).unwrap();
        assert_eq!(text["request"], "[".repeat(300));
    });
}

#[tokio::test]
async fn an_act_of_a_request_that_failed_is_unknown_also_when_it_could_be_undone() {
    use crate::checkpoint::{SchemaId, codec};
    let key = "905c56b07c8b7c433a7149f912692b6f06600720ab3b4f299b34b43f7880473b";
    let fated = |fate: &str| format!(r#"{{"fated":{{"key":"one","fate":"{fate}","reply":null}}}}"#);
    for (fate, open) in [(None, 0), (Some("failed"), 1), (Some("expired"), 1), (Some("done"), 1)] {
        let mut lines = vec![
            r#"{"accepted":{"child":"desk/agent","key":"one","request":"5","deadline":null}}"#
                .to_owned(),
            format!(
                r#"{{"intent":{{"key":"{key}","epoch":0,"task":"one","owner":"desk/agent","step":3,"ordinal":0,"tool":"desk/till","kind":"compensable","request":"5","undo":["desk/undo","5"]}}}}"#
            ),
        ];
        lines.extend(fate.map(fated));
        let batch = lines.iter().fold(Batch::new(), |batch, line| {
            let schema = SchemaId::new("mainstay.journal", 10);
            batch.append("mainstay", codec::seal_bytes(&schema, line.as_bytes()).unwrap())
        });
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        store.commit(batch, Durability::Sync).await.unwrap();
        let effects = Upkeep::of(Arc::clone(&store)).unwrap().effects();
        assert_eq!(effects.open().len(), open, "{fate:?}");
        if open > 0 {
            effects.did_not_happen(effects.open()[0].key).await.unwrap();
        }
        assert!(Upkeep::of(store).unwrap().effects().open().is_empty(), "{fate:?}");
    }
}
