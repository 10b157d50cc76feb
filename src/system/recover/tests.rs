//! What is forgotten of the effects of earlier processes. Here fewer are remembered than anywhere else.

use std::sync::Arc;

use tokio::runtime::Runtime;

use super::*;
use crate::behavior::{Behavior, Call, Context, Stateful, Stateless, Step, Turn};
use crate::checkpoint::{Interval, MemoryStore, Snapshot};
use crate::event::Event;
use crate::fate::Trail;
use crate::fault::{EffectKind, Fault};
use crate::ledger::{Intent, Record, Undo};
use crate::port::{CallOptions, Needs, Port};
use crate::spec::ChildSpec;

/// As many as are remembered here.
const REMEMBERED: usize = 40;

#[derive(Clone)]
struct Tool;

impl Behavior for Tool {
    type Request = String;
    type Reply = ();
    const EFFECT: Option<EffectKind> = Some(EffectKind::Irreversible);
}

impl Stateless for Tool {
    async fn serve(&self, request: &String, _: &Context) -> Result<(), Fault> {
        match request.starts_with("lost") {
            true => Err(Fault::indeterminate("no answer")),
            false => Ok(()),
        }
    }
}

#[derive(Clone)]
struct Agent;

impl Behavior for Agent {
    type Request = String;
    type Reply = ();

    fn needs() -> Needs {
        Needs::none().needs::<Port<String, ()>>("tool")
    }
}

impl Stateful for Agent {
    async fn step(
        &mut self,
        request: &String,
        turn: Turn,
        ctx: &Context,
    ) -> Result<Step<()>, Fault> {
        if let Turn::Performed(performed) = turn {
            performed.get::<()>(0)?;
            return Ok(Step::Reply(()));
        }
        let tool = ctx.port::<String, ()>("tool")?;
        Ok(Step::Perform(vec![Call::from(tool.effect(request.clone()))]))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("agent", 1))
    }

    fn restore(&mut self, _: &Snapshot) -> Result<(), CheckpointError> {
        Ok(())
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

/// In the middle of a transaction the answer of a tool was lost, and the process ended with the fate of its request.
#[test]
fn what_nobody_knows_is_undone_by_the_next_process_where_this_one_owes_it() {
    for fate in [Fate::Failed, Fate::Unknown] {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let (key, tool, request) = (Arc::<str>::from("k"), ChildPath::from("desk/tool"), "lost");
        let request: Arc<[u8]> = serde_json::to_vec(request).unwrap().into();
        let intent = Intent {
            key: EffectKey::of(&key, 0, 0, &tool, &request),
            task: Arc::clone(&key),
            owner: "desk/agent".into(),
            step: 0,
            ordinal: 0,
            tool: tool.clone(),
            kind: EffectKind::Compensable,
            request,
            undo: Some(Undo { tool, request: Arc::from(&b"\"undo\""[..]) }),
        };
        runtime().block_on(async {
            let clock = Arc::new(crate::clock::TokioClock::new());
            let (journal, _) = Journal::open(Arc::clone(&store), clock).unwrap();
            let open = Open {
                child: "desk/agent".into(),
                key: Arc::clone(&key),
                request: "\"lost\"".to_owned(),
                deadline: None,
                trail: Trail::default(),
                budget: None,
                taken: 0,
                hand: Default::default(),
                back: Default::default(),
                round: 0,
            };
            journal.accepted(open, Durability::Sync).unwrap().await.unwrap();
            let lost = Record::Status(intent.key, EffectStatus::Unknown);
            for record in [Record::Intent(intent.clone(), 0), lost] {
                journal.keep(record).await.unwrap();
            }
            let none = (Batch::new(), Durability::Sync);
            journal.fated(&key, fate, None, None, none).await.unwrap();
        });
        runtime().block_on(async {
            let agent = ChildSpec::stateful("agent", || Agent).durable::<Agent>();
            let spec = SupervisorSpec::one_for_one("desk")
                .scope(crate::checkpoint::Scope::Transaction)
                .child(ChildSpec::stateless("tool", || Tool).recorded::<Tool>())
                .child(agent);
            let (system, _) = System::recover(spec, Arc::clone(&store)).await.unwrap();
            let mut events = system.events();
            let undone = |event: &Event| matches!(event, Event::Effect { .. });
            let _ = tokio::time::timeout(Duration::from_secs(1), events.wait_for(undone)).await;
            let expected = if fate == Fate::Failed { "compensated" } else { "unknown" };
            assert_eq!(system.effects().list()[0].status, expected, "{fate}");
            system.stop().await;
        });
    }
}

async fn open(store: &Arc<dyn Store>) -> (System, Port<String, ()>) {
    let agent = ChildSpec::stateful("agent", || Agent).durable::<Agent>();
    let spec = SupervisorSpec::one_for_one("desk")
        .child(ChildSpec::stateless("tool", || Tool))
        .child(agent.checkpoint(Interval::Never));
    let (system, _) = System::recover(spec, Arc::clone(store)).await.unwrap();
    let port = system.port("desk/agent").unwrap();
    (system, port)
}

async fn asks(port: &Port<String, ()>, key: &str) -> bool {
    port.call_with(key.to_owned(), CallOptions::new().key(key)).await.is_ok()
}

#[test]
fn what_the_requests_of_earlier_processes_have_done_is_forgotten_as_that_of_this_one_is() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (mut unknown, processes, each) = (None, 6, 30);
    for process in 0..processes {
        // Each ends as by kill -9.
        runtime().block_on(async {
            let (system, port) = open(&store).await;
            for n in 0..each {
                assert!(asks(&port, &format!("{process}-{n}")).await);
            }
            if process == 0 {
                // Nobody knows what has become of this one, which is never forgotten.
                assert!(!asks(&port, "lost").await);
                unknown = Some(system.effects().open()[0].key);
            }
            assert!(system.effects().counts().confirmed <= REMEMBERED);
            assert_eq!(system.effects().counts().unknown, 1);
        });
    }
    let key = unknown.unwrap();
    runtime().block_on(async {
        let (system, port) = open(&store).await;
        assert_eq!(system.effects().counts().confirmed, REMEMBERED);
        // Long after its request was forgotten, a person settles it; then it is forgotten, too.
        for n in 0..REMEMBERED {
            assert!(asks(&port, &format!("a-{n}")).await);
        }
        assert!(system.effects().list().iter().any(|effect| effect.key == key));
        system.effects().did_not_happen(key).await.unwrap();
        assert_eq!(system.effects().counts().unknown, 0);
        for n in 0..REMEMBERED {
            assert!(asks(&port, &format!("b-{n}")).await);
        }
        assert!(system.effects().list().iter().all(|effect| effect.key != key));
        assert_eq!(system.effects().list().len(), REMEMBERED);
    });
    runtime().block_on(async {
        let (system, _) = open(&store).await;
        assert_eq!(system.effects().list().len(), REMEMBERED, "the store knows no more either");
    });
}

#[test]
fn what_requests_have_done_is_remembered_up_to_a_weight_however_few_they_are() {
    const HEAVY: usize = 20 << 10;
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let heavy = |n: u32| format!("{n}{}", "x".repeat(HEAVY));
    let send = |port: Port<String, ()>, n: u32| async move {
        let options = CallOptions::new().key(format!("heavy-{n}"));
        port.call_with(heavy(n), options).await.unwrap();
    };
    let tasks = |system: &System| -> Vec<String> {
        let mut tasks: Vec<_> =
            system.effects().list().iter().map(|effect| effect.task.to_string()).collect();
        tasks.sort();
        tasks
    };
    runtime().block_on(async {
        let (system, port) = open(&store).await;
        for n in 0..9 {
            send(port.clone(), n).await;
        }
        // Three of 20 KiB are 60 of 64, as they are here.
        assert_eq!(tasks(&system), ["heavy-6", "heavy-7", "heavy-8"]);
    });
    runtime().block_on(async {
        let (system, port) = open(&store).await;
        assert_eq!(
            tasks(&system),
            ["heavy-6", "heavy-7", "heavy-8"],
            "nor does the store know more"
        );
        send(port.clone(), 9).await;
        assert_eq!(
            tasks(&system),
            ["heavy-7", "heavy-8", "heavy-9"],
            "what was taken up weighs, too"
        );
        // One that is heavier than all that is remembered is remembered alone.
        let options = CallOptions::new().key("huge");
        port.call_with("x".repeat(5 * HEAVY), options).await.unwrap();
        assert_eq!(tasks(&system), ["huge"]);
        for n in 10..13 {
            send(port.clone(), n).await;
        }
        assert_eq!(tasks(&system), ["heavy-10", "heavy-11", "heavy-12"]);
    });
}
