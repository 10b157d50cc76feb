//! What was set aside can be listed, exported and released.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use mainstay::behavior::{Behavior, Call, Context, Stateful, Stateless, Step, Turn};
use mainstay::checkpoint::{Export, FileStore, MemoryStore, Snapshot, Store};
use mainstay::error::{CallError, CheckpointError, QuarantineError, RecoverError};
use mainstay::event::Event;
use mainstay::fate::Fate;
use mainstay::fault::{EffectKind, Fault};
use mainstay::id::CheckpointId;
use mainstay::journal::Journaled;
use mainstay::port::{CallOptions, Needs, Port};
use mainstay::spec::{ChildSpec, GroupSpec, SupervisorSpec};
use mainstay::system::{RecoverOptions, System};
use tokio::runtime::Runtime;
use tokio::sync::Notify;

use dying::Dying;
use moody::{Mood, Moody};

#[path = "common/dying.rs"]
mod dying;
#[path = "common/moody.rs"]
mod moody;
#[path = "quarantine/deaths.rs"]
mod deaths;
#[path = "quarantine/suspects.rs"]
mod suspects;

/// What is asked that no code survives, until it is mended.
const POISON: &str = "the secret poison";

/// What is asked that the agent never ends.
const ENDLESS: &str = "endless";

#[derive(Default)]
struct World {
    mended: AtomicBool,
    acts: AtomicU32,
    /// Those of the poison among them.
    poisons: AtomicU32,
    /// Snapshots cannot be restored.
    /// From this on, what was seen cannot be restored; 0 for none.
    torn: AtomicU32,
    /// The agent has begun with what it never ends.
    busy: Notify,
}

#[derive(Clone)]
struct Tool(Arc<World>);

impl Behavior for Tool {
    type Request = String;
    type Reply = u32;
}

impl Stateless for Tool {
    async fn serve(&self, request: &String, _: &Context) -> Result<u32, Fault> {
        if request == POISON {
            self.0.poisons.fetch_add(1, Ordering::SeqCst);
        }
        Ok(self.0.acts.fetch_add(1, Ordering::SeqCst) + 1)
    }
}

/// Acts once for each request, and then dies of the poison.
#[derive(Clone)]
struct Agent {
    world: Arc<World>,
    seen: Arc<u32>,
}

impl Behavior for Agent {
    type Request = String;
    type Reply = u32;

    fn needs() -> Needs {
        Needs::none().needs::<Port<String, u32>>("tool")
    }
}

impl Stateful for Agent {
    async fn step(
        &mut self,
        request: &String,
        turn: Turn,
        ctx: &Context,
    ) -> Result<Step<u32>, Fault> {
        if request == ENDLESS {
            self.world.busy.notify_one();
            std::future::pending::<()>().await;
        }
        if !matches!(turn, Turn::Performed(_)) {
            let tool = ctx.port::<String, u32>("tool")?;
            return Ok(Step::Perform(vec![Call::from(tool.effect(request.clone()))]));
        }
        assert!(request != POISON || self.world.mended.load(Ordering::SeqCst), "poisoned");
        self.seen = Arc::new(*self.seen + 1);
        Ok(Step::Reply(*self.seen))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("agent", 1).with("seen", Arc::clone(&self.seen)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        let (seen, torn) = (snapshot.get::<u32>("seen")?, self.world.torn.load(Ordering::SeqCst));
        if torn > 0 && *seen >= torn {
            return Err(CheckpointError::MissingField("memory".to_owned()));
        }
        self.seen = seen;
        Ok(())
    }
}

fn agent(world: &Arc<World>) -> ChildSpec {
    let agent = Agent { world: Arc::clone(world), seen: Arc::default() };
    ChildSpec::stateful("agent", move || agent.clone())
}

fn spec(world: &Arc<World>, agent: ChildSpec) -> SupervisorSpec {
    let tool = Tool(Arc::clone(world));
    SupervisorSpec::one_for_one("desk")
        .intensity(100_000, Duration::from_secs(5))
        .child(ChildSpec::stateless("tool", move || tool.clone()).effect(EffectKind::Idempotent))
        .child(agent)
}

fn durable(world: &Arc<World>) -> SupervisorSpec {
    spec(world, agent(world).durable::<Agent>())
}

/// Without a paused clock, for a store in files.
fn real_runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

async fn recover(spec: SupervisorSpec, store: &Arc<dyn Store>) -> (System, Port<String, u32>) {
    let (system, _) = System::recover(spec, Arc::clone(store)).await.unwrap();
    let port = system.port("desk/agent").unwrap();
    (system, port)
}

/// Has the poison quarantined.
async fn poison(agent: &Port<String, u32>, key: &str) {
    let error = agent.call_with(POISON, CallOptions::new().key(key)).await.unwrap_err();
    assert!(matches!(error, CallError::Quarantined { .. }), "{error:?}");
}

/// Releases a request, and waits for its fate.
async fn released(system: &System, id: &str) -> Fate {
    let mut events = system.events();
    let receipt = system.quarantine().release(id).await.unwrap();
    let mut seen = None;
    let its_fate = |event: &Event| {
        if let Event::Fated { request, fate, .. } = event
            && *request == receipt.request
        {
            seen = Some(*fate);
        }
        seen.is_some()
    };
    events.wait_for(its_fate).await.unwrap();
    assert_eq!(system.fate(receipt), Some(seen));
    seen.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_request_that_ended_two_lives_is_listed_exported_and_released_with_its_trail() {
    let world = Arc::new(World::default());
    let system = System::start(spec(&world, agent(&world).recorded::<Agent>())).await.unwrap();
    let agent = system.port::<String, u32>("desk/agent").unwrap();
    poison(&agent, "one").await;
    assert_eq!(agent.call("fine").await.unwrap().value, 1, "the healthy go on");

    let quarantine = system.quarantine();
    let listed = quarantine.requests();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].child.as_str(), listed[0].durable), ("desk/agent", false));
    assert_eq!(listed[0].trail.0.len(), 2);
    assert!(!format!("{listed:?}").contains("secret"), "what was asked is not told: {listed:?}");
    let exported = quarantine.export(&listed[0].id).unwrap();
    let exported: serde_json::Value = serde_json::from_str(&exported).unwrap();
    assert_eq!(exported["request"], POISON);
    assert_eq!(exported["child"], "desk/agent");
    assert_eq!(exported["trail"].as_array().unwrap().len(), 2);

    // Not mended yet, so it comes back, with all that has failed.
    assert_eq!(released(&system, &listed[0].id).await, Fate::Quarantined);
    let again = quarantine.requests();
    assert_eq!((again.len(), again[0].trail.0.len()), (1, 4));

    world.mended.store(true, Ordering::SeqCst);
    assert_eq!(released(&system, &again[0].id).await, Fate::Done);
    assert!(quarantine.requests().is_empty());
    let fates = system.fates();
    let tools = 2;
    assert_eq!((fates.accepted, fates.quarantined, fates.done), (4 + tools, 2, 2 + tools));
    assert!(fates.is_balanced(), "{fates:?}");
    // Once for the one that was fine, and once for the poison, however often it was tried.
    assert_eq!(world.acts.load(Ordering::SeqCst), 2);
}

#[test]
fn a_durable_request_is_set_aside_until_a_later_process_releases_it() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    until_a_later_process(runtime, || Arc::clone(&store));
}

#[test]
fn a_durable_request_that_was_set_aside_lies_in_the_files_of_a_store() {
    let folders = tempfile::tempdir().unwrap();
    let number = AtomicU32::new(0);
    until_a_later_process(real_runtime, || {
        // What a process that is killed leaves behind: its files as they are, at this moment.
        let last = number.fetch_add(1, Ordering::SeqCst);
        let folder = folders.path().join((last + 1).to_string());
        std::fs::create_dir(&folder).unwrap();
        if last > 0 {
            for file in std::fs::read_dir(folders.path().join(last.to_string())).unwrap() {
                let file = file.unwrap();
                std::fs::copy(file.path(), folder.join(file.file_name())).unwrap();
            }
        }
        Arc::new(FileStore::open(folder).unwrap())
    });
}

fn until_a_later_process(runtime: fn() -> Runtime, open: impl Fn() -> Arc<dyn Store>) {
    let world = Arc::new(World::default());
    // Each runtime is dropped with all that runs in it: nothing is stopped in order.
    runtime().block_on(async {
        let (_system, agent) = recover(durable(&world), &open()).await;
        poison(&agent, "one").await;
        poison(&agent, "two").await;
        // What was handed to the store before is there once this is answered.
        assert_eq!(agent.call("fine").await.unwrap().value, 1);
    });
    let first = runtime().block_on(async {
        let (system, agent) = recover(durable(&world), &open()).await;
        let quarantine = system.quarantine();
        let listed = quarantine.requests();
        let ids: Vec<_> = listed.iter().map(|listed| &*listed.id).collect();
        assert_eq!(ids, ["one", "two"]);
        assert!(listed.iter().all(|listed| listed.durable && listed.trail.0.len() == 2));
        let exported = quarantine.export("one").unwrap();
        assert!(exported.contains(POISON), "{exported}");
        assert_eq!(system.journaled("one"), Some(Journaled::Fated(Fate::Quarantined, None)));
        let again = agent.cast_with(POISON, CallOptions::new().key("one"));
        assert!(matches!(again, Err(CallError::Refused { .. })), "{again:?}");
        assert_eq!(released(&system, "one").await, Fate::Quarantined);
        assert_eq!(agent.call("fine").await.unwrap().value, 2);
        listed[0].clone()
    });
    world.mended.store(true, Ordering::SeqCst);
    runtime().block_on(async {
        let (system, agent) = recover(durable(&world), &open()).await;
        let quarantine = system.quarantine();
        let listed = quarantine.requests();
        assert_eq!(listed.len(), 2);
        let back = listed.iter().find(|listed| listed.id == first.id).unwrap();
        assert_eq!(back.trail.0[..2], first.trail.0[..]);
        assert_eq!(back.trail.0.len(), 4);
        quarantine.discard("two").await.unwrap();
        assert_eq!(released(&system, "one").await, Fate::Done);
        let done = Some(Journaled::Fated(Fate::Done, Some("3".to_owned())));
        assert_eq!(system.journaled("one"), done);
        assert_eq!(agent.call("fine").await.unwrap().value, 4);
        assert!(system.fates().is_balanced());
    });
    runtime().block_on(async {
        let (system, agent) = recover(durable(&world), &open()).await;
        assert!(system.quarantine().requests().is_empty());
        for key in ["one", "two"] {
            let again = agent.cast_with("fine", CallOptions::new().key(key));
            assert!(matches!(again, Err(CallError::Refused { .. })), "{key}: {again:?}");
        }
    });
    // Once for each of the poisons and of those that were fine: no act is done again.
    assert_eq!(world.acts.load(Ordering::SeqCst), 5);
}

#[test]
fn a_released_request_that_was_not_done_when_the_process_ended_is_done_by_the_next() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let world = Arc::new(World::default());
    runtime().block_on(async {
        let (system, agent) = recover(durable(&world), &store).await;
        poison(&agent, "one").await;
        world.mended.store(true, Ordering::SeqCst);
        // The process ends before the child is given the processor.
        system.quarantine().release("one").await.unwrap();
    });
    runtime().block_on(async {
        let (system, agent) = recover(durable(&world), &store).await;
        agent.call("fine").await.unwrap();
        assert!(system.quarantine().requests().is_empty());
        let Some(Journaled::Fated(fate, _)) = system.journaled("one") else { panic!("it is lost") };
        assert_eq!(fate, Fate::Done);
    });
}

#[tokio::test(start_paused = true)]
async fn a_name_that_was_not_set_aside_is_refused_and_named() {
    let world = Arc::new(World::default());
    let system = System::start(spec(&world, agent(&world))).await.unwrap();
    let quarantine = system.quarantine();
    let unknown = QuarantineError::NotFound("no such".to_owned());
    assert_eq!(quarantine.export("no such"), Err(unknown.clone()));
    assert_eq!(quarantine.release("no such").await, Err(unknown.clone()));
    assert_eq!(quarantine.discard("no such").await, Err(unknown.clone()));
    assert!(unknown.to_string().contains("no such"), "{unknown}");
    let id = CheckpointId(7);
    assert_eq!(quarantine.export_checkpoint(id), Err(QuarantineError::NotBad(id)));
    assert_eq!(quarantine.release_checkpoint(id).await, Err(QuarantineError::NotBad(id)));
    assert!(quarantine.checkpoints().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_not_taken_stays_set_aside() {
    let world = Arc::new(World::default());
    let system = System::start(spec(&world, agent(&world).mailbox(1))).await.unwrap();
    let agent = system.port::<String, u32>("desk/agent").unwrap();
    poison(&agent, "one").await;
    let quarantine = system.quarantine();
    let id = quarantine.requests()[0].id.clone();
    // Nothing runs in between: the mailbox is full.
    let fill = agent.cast("fine").unwrap();
    let error = quarantine.release(&id).await.unwrap_err();
    assert!(matches!(error, QuarantineError::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains(&*id), "{error}");
    assert_eq!(quarantine.requests().len(), 1);
    // Behind the one that fills it.
    system.events().wait_for(|event| matches!(event, Event::Fated { .. })).await.unwrap();
    assert_eq!(system.fate(fill), Some(Some(Fate::Done)));
    world.mended.store(true, Ordering::SeqCst);
    assert_eq!(released(&system, &id).await, Fate::Done);

    world.mended.store(false, Ordering::SeqCst);
    poison(&agent, "two").await;
    let desk = system.supervisor("desk").unwrap();
    desk.terminate_child("agent").await.unwrap();
    let id = quarantine.requests()[0].id.clone();
    assert!(matches!(quarantine.release(&id).await, Err(QuarantineError::Refused { .. })));
    desk.delete_child("agent").await.unwrap();
    let error = quarantine.release(&id).await.unwrap_err();
    assert!(error.to_string().contains("desk/agent"), "{error}");
    let exported = quarantine.export(&id).unwrap();
    assert!(exported.contains("\"request\":null"), "nobody can write it down: {exported}");
    quarantine.discard(&id).await.unwrap();
    assert!(quarantine.requests().is_empty());
    assert!(system.fates().is_balanced());
}

#[tokio::test(start_paused = true)]
async fn what_a_child_that_is_gone_has_left_is_not_for_another_of_its_path() {
    let world = Arc::new(World::default());
    let system = System::start(spec(&world, agent(&world))).await.unwrap();
    let desk = system.supervisor("desk").unwrap();
    let quarantine = system.quarantine();
    desk.start_child(agent(&world).with_id("brief")).await.unwrap();
    poison(&system.port::<String, u32>("desk/brief").unwrap(), "one").await;
    let id = quarantine.requests()[0].id.clone();
    desk.terminate_child("brief").await.unwrap();
    desk.delete_child("brief").await.unwrap();
    desk.start_child(agent(&world).with_id("brief")).await.unwrap();
    world.mended.store(true, Ordering::SeqCst);
    let error = quarantine.release(&id).await.unwrap_err().to_string();
    assert!(error.contains("another has its path"), "{error}");
    assert_eq!(quarantine.requests().len(), 1);
    world.mended.store(false, Ordering::SeqCst);
    poison(&system.port::<String, u32>("desk/brief").unwrap(), "two").await;
    let its = quarantine.requests()[1].id.clone();
    world.mended.store(true, Ordering::SeqCst);
    assert_eq!(released(&system, &its).await, Fate::Done);
}

#[test]
fn a_durable_request_that_is_not_taken_stays_set_aside() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let world = Arc::new(World::default());
    let narrow = || spec(&world, agent(&world).durable::<Agent>().mailbox(1));
    let stays = async |system: &System| {
        let quarantine = system.quarantine();
        let error = quarantine.release("one").await.unwrap_err();
        assert!(matches!(error, QuarantineError::Refused { .. }), "{error:?}");
        let listed = quarantine.requests();
        assert_eq!((listed.len(), listed[0].trail.0.len()), (1, 2), "{listed:?}");
        let exported = quarantine.export("one").unwrap();
        assert!(exported.contains(POISON), "{exported}");
    };
    runtime().block_on(async {
        let (system, agent) = recover(narrow(), &store).await;
        poison(&agent, "one").await;
        // One is at work, and one waits: the mailbox is full.
        agent.cast_with(ENDLESS, CallOptions::new().deadline(Duration::from_secs(5))).unwrap();
        world.busy.notified().await;
        agent.cast("fine").unwrap();
        stays(&system).await;
        while system.fates().open > 0 {
            system.events().next().await.unwrap();
        }
        system.supervisor("desk").unwrap().terminate_child("agent").await.unwrap();
        stays(&system).await;
        stays(&system).await;
    });
    world.mended.store(true, Ordering::SeqCst);
    runtime().block_on(async {
        let (system, _) = recover(narrow(), &store).await;
        let desk = system.supervisor("desk").unwrap();
        desk.terminate_child("agent").await.unwrap();
        stays(&system).await;
        desk.restart_child("agent").await.unwrap();
        assert_eq!(released(&system, "one").await, Fate::Done);
        assert!(system.quarantine().requests().is_empty());
        assert!(system.fates().is_balanced());
    });
    // One that was fine, and the poison once.
    assert_eq!(world.acts.load(Ordering::SeqCst), 2);
}

#[test]
fn open_requests_of_a_child_that_is_no_more_are_set_aside_where_the_tree_is_adopted() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let world = Arc::new(World::default());
    runtime().block_on(async {
        let (_system, agent) = recover(durable(&world), &store).await;
        agent.submit(ENDLESS, CallOptions::new().key("endless")).await.unwrap();
        world.busy.notified().await;
        agent.submit("fine", CallOptions::new().key("one")).await.unwrap();
    });
    let adopt = async |spec: SupervisorSpec| {
        let mut options = RecoverOptions::default();
        options.adopt_topology = true;
        System::recover_with(spec, Arc::clone(&store), options).await.unwrap()
    };
    let renamed = || {
        let agent = Agent { world: Arc::clone(&world), seen: Arc::default() };
        let other = ChildSpec::stateful("other", move || agent.clone());
        spec(&world, other.durable::<Agent>())
    };
    runtime().block_on(async {
        let error = System::recover(renamed(), Arc::clone(&store)).await.unwrap_err();
        assert!(matches!(error, RecoverError::Topology { .. }), "{error}");
        let (system, recovered) = adopt(renamed()).await;
        assert_eq!(recovered.requests, 0);
        let told: Vec<_> =
            recovered.set_aside.iter().map(|gone| (&*gone.key, gone.child.as_str())).collect();
        assert_eq!(told, [("endless", "desk/agent"), ("one", "desk/agent")]);
        let quarantine = system.quarantine();
        let listed = quarantine.requests();
        assert_eq!(listed.iter().map(|gone| &*gone.id).collect::<Vec<_>>(), ["endless", "one"]);
        let why = listed[0].trail.to_string();
        assert!(why.contains("child_gone") && why.contains("desk/agent"), "{why}");
        assert!(quarantine.export("one").unwrap().contains("fine"));
        let error = quarantine.release("one").await.unwrap_err();
        assert!(matches!(error, QuarantineError::Refused { .. }), "{error:?}");
        quarantine.discard("endless").await.unwrap();
        system.port::<String, u32>("desk/other").unwrap().call("fine").await.unwrap();
    });
    runtime().block_on(async {
        // It is the tree of this store from now on.
        let (system, _) = System::recover(renamed(), Arc::clone(&store)).await.unwrap();
        assert_eq!(system.quarantine().requests().len(), 1);
    });
    runtime().block_on(async {
        let (system, recovered) = adopt(durable(&world)).await;
        assert!(recovered.set_aside.is_empty());
        assert_eq!(released(&system, "one").await, Fate::Done);
        assert!(system.quarantine().requests().is_empty());
    });
}

#[tokio::test(start_paused = true)]
async fn of_those_that_are_not_durable_the_oldest_goes() {
    let world = Arc::new(World::default());
    let system = System::start(spec(&world, agent(&world))).await.unwrap();
    let agent = system.port::<String, u32>("desk/agent").unwrap();
    for number in 0..1003 {
        poison(&agent, &number.to_string()).await;
    }
    let listed = system.quarantine().requests();
    assert_eq!((listed.len(), system.quarantine().dropped()), (1000, 3));
    let numbers: Vec<_> = listed.iter().map(|listed| listed.request.unwrap().0).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    assert_eq!(system.fates().quarantined, 1003);
}

/// A member of a group that dies of the poison.
#[derive(Clone)]
struct Member(Arc<World>);

impl Behavior for Member {
    type Request = String;
    type Reply = u32;
}

impl Stateless for Member {
    async fn serve(&self, request: &String, _: &Context) -> Result<u32, Fault> {
        assert!(request != POISON || self.0.mended.load(Ordering::SeqCst), "poisoned");
        Ok(1)
    }
}

fn group(world: &Arc<World>) -> GroupSpec {
    let member = |id: &str| {
        let member = Member(Arc::clone(world));
        ChildSpec::stateless(id, move || member.clone()).effect(EffectKind::Read)
    };
    GroupSpec::model("group").member_spec(member("a")).member_spec(member("b"))
}

#[tokio::test(start_paused = true)]
async fn a_durable_request_that_no_member_takes_stays_set_aside() {
    let world = Arc::new(World::default());
    let root = SupervisorSpec::one_for_one("desk").group(group(&world).durable::<Member>());
    let (system, _) = System::recover(root, Arc::new(MemoryStore::new())).await.unwrap();
    let port = system.port::<String, u32>("desk/group").unwrap();
    poison(&port, "one").await;
    let (members, quarantine) = (system.supervisor("desk/group").unwrap(), system.quarantine());
    for member in ["a", "b"] {
        members.terminate_child(member).await.unwrap();
    }
    for _ in 0..2 {
        let error = quarantine.release("one").await.unwrap_err();
        assert!(matches!(error, QuarantineError::Refused { .. }), "{error:?}");
        assert!(quarantine.export("one").unwrap().contains(POISON));
    }
    world.mended.store(true, Ordering::SeqCst);
    members.restart_child("a").await.unwrap();
    assert_eq!(released(&system, "one").await, Fate::Done);
    assert!(quarantine.requests().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_group_takes_its_request_back_itself() {
    let world = Arc::new(World::default());
    let root = SupervisorSpec::one_for_one("desk").group(group(&world));
    let system = System::start(root).await.unwrap();
    let port = system.port::<String, u32>("desk/group").unwrap();
    poison(&port, "one").await;
    let quarantine = system.quarantine();
    let listed = quarantine.requests();
    assert_eq!(listed[0].child.as_str(), "desk/group");
    world.mended.store(true, Ordering::SeqCst);
    assert_eq!(released(&system, &listed[0].id).await, Fate::Done);
    let fates = system.fates();
    assert_eq!((fates.accepted, fates.quarantined, fates.done), (2, 1, 1));
}

#[test]
fn a_release_that_cannot_be_written_down_changes_nothing() {
    let world = Arc::new(World::default());
    let moody = Moody::new();
    let store: Arc<dyn Store> = Arc::clone(&moody) as Arc<dyn Store>;
    runtime().block_on(async {
        let (system, agent) = recover(durable(&world), &store).await;
        poison(&agent, "one").await;
        moody.turn(Mood::Full);
        let quarantine = system.quarantine();
        for error in [
            quarantine.release("one").await.unwrap_err(),
            quarantine.discard("one").await.unwrap_err(),
        ] {
            assert!(matches!(error, QuarantineError::Journal(_)), "{error:?}");
        }
        assert_eq!(quarantine.requests().len(), 1);
        let fates = system.fates();
        assert_eq!((fates.quarantined, fates.open), (1, 0));
        moody.turn(Mood::Well);
        world.mended.store(true, Ordering::SeqCst);
        assert_eq!(released(&system, "one").await, Fate::Done);
    });
}

#[test]
fn wherever_the_process_ends_a_released_request_is_done_once_or_still_set_aside() {
    for last_commit_is_made in [false, true] {
        let mut ends = 0;
        for limit in 0.. {
            // The second crash comes while the first is recovered from.
            let mut finished = true;
            for second in 0..8 {
                finished &= end_twice(limit, second, last_commit_is_made);
            }
            ends += 1;
            if finished {
                break;
            }
        }
        assert!(ends > 5, "only {ends} places to end at");
    }
}

fn end_twice(limit: u32, second: u32, last: bool) -> bool {
    let at = format!("{limit} {second} {last}");
    let (inner, world): (Arc<dyn Store>, _) =
        (Arc::new(MemoryStore::new()), Arc::new(World::default()));
    runtime().block_on(async {
        let (_system, agent) = recover(durable(&world), &inner).await;
        poison(&agent, "one").await;
    });
    world.mended.store(true, Ordering::SeqCst);
    let mut finished = true;
    for (nth, limit) in [limit, second].into_iter().enumerate() {
        let done = runtime().block_on(async {
            let store: Arc<dyn Store> = Arc::new(Dying::new(&inner, limit, last));
            let work = async {
                let (system, agent) = recover(durable(&world), &store).await;
                match system.quarantine().release("one").await {
                    Ok(_) | Err(QuarantineError::NotFound(_)) => {}
                    Err(error) => panic!("{error} at {at}"),
                }
                agent.call("fine").await.unwrap();
            };
            tokio::time::timeout(Duration::from_secs(20), work).await.is_ok()
        });
        finished &= done || nth > 0;
    }
    runtime().block_on(async {
        let (system, agent) = recover(durable(&world), &inner).await;
        agent.call("fine").await.unwrap();
        match system.journaled("one") {
            Some(Journaled::Fated(Fate::Done, _)) => {}
            Some(Journaled::Fated(Fate::Quarantined, None)) => {
                assert_eq!(system.quarantine().requests().len(), 1, "{at}");
                assert_eq!(released(&system, "one").await, Fate::Done, "{at}");
            }
            other => panic!("{other:?} at {at}"),
        }
        assert!(system.quarantine().requests().is_empty(), "{at}");
        assert_eq!(world.poisons.load(Ordering::SeqCst), 1, "{at}");
    });
    finished
}

#[test]
fn a_checkpoint_that_cannot_be_restored_is_listed_exported_and_released() {
    let world = Arc::new(World::default());
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let bad = runtime().block_on(async {
        let (system, agent) = recover(durable(&world), &store).await;
        for seen in 1..=3 {
            assert_eq!(agent.call("fine").await.unwrap().value, seen);
        }
        world.torn.store(2, Ordering::SeqCst);
        system.kill("desk/agent").unwrap();
        let all = "it goes on from the first, and has the others handled again";
        assert_eq!(agent.call("fine").await.unwrap().value, 4, "{all}");
        let listed = system.quarantine().checkpoints().unwrap();
        assert_eq!(listed.len(), 2, "they were tried in turn");
        for bad in &listed {
            let reason = bad.bad.as_deref().unwrap();
            assert!(reason.contains("memory"), "{reason}");
        }
        let newest = listed.iter().max_by_key(|bad| bad.checkpoint.step).unwrap();
        newest.checkpoint.id
    });
    // Never deleted by itself, nor taken as it is.
    store
        .retain(
            mainstay::checkpoint::Retention { checkpoints: 1, lines: 1 },
            mainstay::checkpoint::Wall(u64::MAX),
        )
        .unwrap();
    world.torn.store(0, Ordering::SeqCst);
    runtime().block_on(async {
        let (system, _) = recover(durable(&world), &store).await;
        let quarantine = system.quarantine();
        let exported = Export::read(&quarantine.export_checkpoint(bad).unwrap()).unwrap();
        assert_eq!(*exported.snapshot.get::<u32>("seen").unwrap(), 3);
        assert!(exported.listed.bad.is_some());
        quarantine.release_checkpoint(bad).await.unwrap();
        let left = quarantine.checkpoints().unwrap();
        assert!(left.iter().all(|other| other.checkpoint.id != bad) && left.len() == 1);
        let again = quarantine.release_checkpoint(bad).await;
        assert_eq!(again, Err(QuarantineError::NotBad(bad)));
    });
    // Released, it is one like all others.
    assert!(store.find(bad).unwrap().bad.is_none());
}
