//! Requests that were answered after what is returned to are handled again: nobody hears of it, nobody is
//! asked, and the state has their work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use mainstay::behavior::{Behavior, Call, Context, Stateful, Stateless, Step, Turn};
use mainstay::checkpoint::{Batch, Durability, FileStore, MemoryStore, Scope, Snapshot, Store};
use mainstay::error::{CallError, CheckpointError, Unavailable};
use mainstay::event::Event;
use mainstay::fault::{EffectKind, Fault};
use mainstay::id::ChildPath;
use mainstay::journal::Journaled;
use mainstay::port::{CallOptions, Needs, Port};
use mainstay::spec::{ChildSpec, SupervisorSpec};
use mainstay::system::{Recovered, System, To};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::dying::Dying;
use super::moody::{Mood, Moody};

/// What is outside, before and after every process.
#[derive(Default)]
struct World {
    /// Each time the tool acts, or the model is asked.
    acts: Mutex<Vec<String>>,
    /// Steps that were replays.
    replayed: AtomicU32,
    /// A replay does something else than the first time.
    strays: AtomicBool,
    /// A replay panics.
    panics: AtomicBool,
    /// A replay hangs.
    hangs: AtomicBool,
    /// Whoever is asked waits.
    is_shut: AtomicBool,
    waits: Notify,
    opened: Notify,
}

impl World {
    fn acts(&self) -> Vec<String> {
        self.acts.lock().clone()
    }
}

#[derive(Clone)]
struct Tool(Arc<World>);

impl Behavior for Tool {
    type Request = String;
    type Reply = String;
}

impl Stateless for Tool {
    async fn serve(&self, what: &String, _: &Context) -> Result<String, Fault> {
        if self.0.is_shut.load(Ordering::SeqCst) {
            self.0.waits.notify_one();
            self.0.opened.notified().await;
        }
        let mut acts = self.0.acts.lock();
        acts.push(what.clone());
        if what.contains("refused") {
            return Err(Fault::tool_execution("as asked"));
        }
        // Asked a second time, it would answer otherwise.
        Ok(format!("{what}#{}", acts.len()))
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Ask {
    /// Asks the model, which is written down, and acts on what it says.
    Act(String),
    /// Asks the model without having that written down.
    Plain(String),
    /// Asks within its step.
    Inside(String),
    /// Fails the first time, with feedback.
    Twice(String),
    /// Takes its time.
    Slow(Duration),
    /// What the state says.
    Tell,
}

#[derive(Clone)]
struct Agent {
    memory: Arc<Vec<String>>,
    world: Arc<World>,
}

impl Behavior for Agent {
    type Request = Ask;
    type Reply = Vec<String>;

    fn needs() -> Needs {
        let needs = Needs::none().needs::<Port<String, String>>("tool");
        needs.needs::<Port<String, String>>("model")
    }
}

impl Agent {
    fn learn(&mut self, what: String) {
        let mut memory = (*self.memory).clone();
        memory.push(what);
        self.memory = Arc::new(memory);
    }
}

impl Stateful for Agent {
    async fn step(
        &mut self,
        ask: &Ask,
        turn: Turn,
        ctx: &Context,
    ) -> Result<Step<Vec<String>>, Fault> {
        if ctx.is_replay() {
            self.world.replayed.fetch_add(1, Ordering::SeqCst);
            assert!(!self.world.panics.load(Ordering::SeqCst), "as asked");
            if self.world.hangs.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
        }
        let model = ctx.port::<String, String>("model")?;
        let tool = ctx.port::<String, String>("tool")?;
        let stray =
            if ctx.is_replay() && self.world.strays.load(Ordering::SeqCst) { "!" } else { "" };
        let call = match (ask, turn) {
            (Ask::Tell, _) => return Ok(Step::Reply((*self.memory).clone())),
            (Ask::Slow(long), _) => {
                // Until the paused clock is there.
                tokio::time::timeout(*long, std::future::pending::<()>()).await.ok();
                return Ok(Step::Reply((*self.memory).clone()));
            }
            (Ask::Act(what), Turn::First) => model.ask_recorded(format!("{what}?{stray}")),
            (Ask::Plain(what), Turn::First) => model.ask(format!("{what}?")),
            (Ask::Twice(_), Turn::First) if ctx.feedback().is_none() => {
                return Err(Fault::network("no").with_feedback("say it again"));
            }
            (Ask::Twice(what), Turn::First) => model.ask_recorded(format!("{what}?again")),
            (Ask::Inside(what), _) => {
                let said =
                    tool.call(what.clone()).await.map_or("nothing".to_owned(), |it| it.value);
                self.learn(said);
                return Ok(Step::Reply((*self.memory).clone()));
            }
            (_, Turn::Performed(performed)) => {
                let said = match performed.get::<String>(0) {
                    Ok(answer) => answer.value.clone(),
                    Err(fault) => format!("failed: {}", fault.class),
                };
                if said.starts_with("do ") || !said.contains('?') {
                    self.learn(said);
                    return Ok(Step::Reply((*self.memory).clone()));
                }
                Call::from(tool.effect(format!("do {said}")))
            }
            (_, other) => return Err(Fault::internal(format!("{other:?}"))),
        };
        Ok(Step::Perform(vec![call]))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("agent", 1).with("memory", Arc::clone(&self.memory)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.memory = snapshot.get("memory")?;
        Ok(())
    }
}

fn tree(world: &Arc<World>, kind: Option<EffectKind>) -> SupervisorSpec {
    let (tool, model) = (Tool(Arc::clone(world)), Tool(Arc::clone(world)));
    let world = Arc::clone(world);
    let make = move || Agent { memory: Arc::default(), world: Arc::clone(&world) };
    let mut agent = ChildSpec::stateful("agent", make)
        .durable::<Agent>()
        .attempt_timeout(Duration::from_secs(2));
    if let Some(kind) = kind {
        agent = agent.effect(kind);
    }
    SupervisorSpec::one_for_one("top")
        .scope(Scope::Flow)
        .intensity(10, Duration::from_secs(5))
        .child(ChildSpec::stateless("tool", move || tool.clone()).effect(EffectKind::Irreversible))
        .child(ChildSpec::stateless("model", move || model.clone()).effect(EffectKind::Pure))
        .child(agent)
}

struct Bench {
    world: Arc<World>,
    store: Arc<dyn Store>,
    system: System,
    recovered: Recovered,
}

impl Bench {
    async fn over(world: Arc<World>, store: Arc<dyn Store>, kind: Option<EffectKind>) -> Self {
        let tree = tree(&world, kind);
        let (system, recovered) = System::recover(tree, Arc::clone(&store)).await.unwrap();
        Self { world, store, system, recovered }
    }

    async fn new() -> Self {
        Self::over(Arc::default(), Arc::new(MemoryStore::new()), None).await
    }

    /// Another process with the same store.
    async fn again(self) -> Self {
        self.system.stop().await;
        Self::over(self.world, self.store, None).await
    }

    async fn ask(&self, key: &str, ask: Ask) -> Vec<String> {
        let port = self.system.port::<Ask, Vec<String>>("top/agent").unwrap();
        port.call_with(ask, CallOptions::new().key(key)).await.unwrap().value
    }

    async fn tell(&self) -> Vec<String> {
        let port = self.system.port::<Ask, Vec<String>>("top/agent").unwrap();
        port.call(Ask::Tell).await.unwrap().value
    }
}

fn act(what: &str) -> Ask {
    Ask::Act(what.to_owned())
}

fn keys(listed: &[(ChildPath, Arc<str>)]) -> Vec<&str> {
    listed
        .iter()
        .map(|(child, key)| {
            assert_eq!(child.as_str(), "top/agent");
            &**key
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn answered_requests_are_handled_again_from_the_record_and_nobody_hears_of_it() {
    let bench = Bench::new().await;
    bench.ask("one", act("a")).await;
    let line = bench.system.checkpoint("top").await.unwrap();
    bench.ask("two", act("b")).await;
    bench.ask("three", act("refused")).await;
    bench.ask("four", Ask::Twice("d".to_owned())).await;
    let (before, acts) = (bench.tell().await, bench.world.acts());
    let fates = bench.system.fates();
    let mut events = bench.system.events();
    let report = bench.system.rollback("top", To::Line(line)).await.unwrap();
    assert_eq!(keys(&report.replayed)[..3], ["two", "three", "four"]);
    assert_eq!(report.missing, []);
    assert_eq!(bench.world.replayed.load(Ordering::SeqCst), 0, "not before somebody asks");
    assert_eq!(bench.tell().await, before);
    assert_eq!(bench.world.acts(), acts, "nobody was asked again");
    // With what `tell` asked.
    let replayed = Event::Replayed { child: "top/agent".into(), requests: 4, lost: 0 };
    let mut seen = Vec::new();
    while let Some(event) = events.try_next() {
        assert!(!matches!(event.event, Event::Effect { .. }), "{:?}", event.event);
        seen.push(event.event);
    }
    assert!(seen.contains(&replayed), "{seen:?}");
    let fated = seen.iter().filter(|event| matches!(event, Event::Fated { .. })).count();
    assert_eq!(fated, 1, "the one that asked");
    let now = bench.system.fates();
    assert_eq!((now.accepted, now.done), (fates.accepted + 1, fates.done + 1));
    assert_eq!(bench.system.lost_work(), []);
    assert!(matches!(bench.system.journaled("two"), Some(Journaled::Fated(..))));
}

/// In a system that works there is always somebody in the middle of something when a line is drawn.
#[tokio::test(start_paused = true)]
async fn a_line_in_the_middle_of_a_request_is_of_use_once_the_request_has_its_fate() {
    for is_cancelled in [false, true] {
        let bench = Bench::new().await;
        bench.ask("one", act("a")).await;
        bench.world.is_shut.store(true, Ordering::SeqCst);
        let port = bench.system.port::<Ask, Vec<String>>("top/agent").unwrap();
        let options = CallOptions::new().key("two");
        let two = tokio::spawn(async move { port.call_with(act("b"), options).await });
        bench.world.waits.notified().await;
        let line = bench.system.checkpoint("top").await.unwrap();
        bench.world.is_shut.store(false, Ordering::SeqCst);
        if is_cancelled {
            two.abort();
            assert!(two.await.unwrap_err().is_cancelled());
        } else {
            bench.world.opened.notify_one();
            two.await.unwrap().unwrap();
        }
        bench.ask("three", act("c")).await;
        let (before, acts) = (bench.tell().await, bench.world.acts());
        let report = bench.system.rollback("top", To::Latest).await.unwrap();
        assert_eq!((report.line, &*report.refused), (Some(line), &[][..]));
        let again = if is_cancelled { &["three"][..] } else { &["two", "three"] };
        assert_eq!(keys(&report.replayed)[..again.len()], *again);
        assert_eq!(report.missing, []);
        assert_eq!(bench.tell().await, before);
        assert_eq!(bench.world.acts(), acts, "nobody was asked again");
        // What is stored of it is what the next process goes on from.
        let bench = bench.again().await;
        assert_eq!(bench.recovered.missing, []);
        assert_eq!(bench.tell().await, before);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_in_the_record_is_named_and_the_others_are_handled_all_the_same() {
    let bench = Bench::new().await;
    let line = bench.system.checkpoint("top").await.unwrap();
    bench.ask("plain", Ask::Plain("refused".to_owned())).await;
    bench.ask("one", act("a")).await;
    bench.ask("inside", Ask::Inside("b".to_owned())).await;
    bench.ask("two", act("c")).await;
    let acts = bench.world.acts();
    let mut events = bench.system.events();
    bench.system.rollback("top", To::Line(line)).await.unwrap();
    let told = bench.tell().await;
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("do a?") && told[1].starts_with("do c?"), "{told:?}");
    assert_eq!(bench.world.acts(), acts);
    assert_eq!(keys(&bench.system.lost_work()), ["plain", "inside"]);
    let replayed = Event::Replayed { child: "top/agent".into(), requests: 2, lost: 2 };
    events.wait_for(|event| *event == replayed).await.unwrap();
    // Nobody was told which they are but who asked, so the next process says so, and the one after it not.
    let bench = bench.again().await;
    assert_eq!(keys(&bench.recovered.missing), ["inside", "plain"]);
    let bench = bench.again().await;
    assert_eq!(bench.recovered.missing, []);
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_strays_panics_or_hangs_costs_nobody_but_itself() {
    let switches: [fn(&World) -> &AtomicBool; 3] =
        [|it| &it.strays, |it| &it.panics, |it| &it.hangs];
    for switch in switches {
        let bench = Bench::new().await;
        bench.ask("one", act("a")).await;
        let line = bench.system.checkpoint("top").await.unwrap();
        bench.ask("two", act("b")).await;
        let acts = bench.world.acts();
        switch(&bench.world).store(true, Ordering::SeqCst);
        bench.system.rollback("top", To::Line(line)).await.unwrap();
        let told = bench.tell().await;
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(bench.world.acts(), acts);
        assert_eq!(keys(&bench.system.lost_work()), ["two"]);
        assert!(bench.system.quarantine().requests().is_empty());
        let fates = bench.system.fates();
        assert_eq!((fates.quarantined, fates.failed), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_replay_takes_is_not_taken_from_the_request_behind_it() {
    let bench = Bench::new().await;
    let line = bench.system.checkpoint("top").await.unwrap();
    bench.ask("one", act("a")).await;
    bench.world.hangs.store(true, Ordering::SeqCst);
    bench.system.rollback("top", To::Line(line)).await.unwrap();
    let mut events = bench.system.events();
    // The replay has taken its two seconds; this has as long, and takes longer than the grace of a hang.
    bench.ask("slow", Ask::Slow(Duration::from_millis(1_900))).await;
    assert_eq!(keys(&bench.system.lost_work()), ["one"]);
    while let Some(event) = events.try_next() {
        let is_end = matches!(event.event, Event::Zombie { .. } | Event::Failed { .. });
        assert!(!is_end, "{:?}", event.event);
    }
    assert_eq!(bench.system.fates().failed, 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_is_replayed_once() {
    // What it makes of the state may be what the state is given up for.
    let bench = Bench::new().await;
    let oldest = bench.system.checkpoint("top").await.unwrap();
    bench.ask("one", act("a")).await;
    let line = bench.system.checkpoint("top").await.unwrap();
    bench.ask("two", act("b")).await;
    bench.system.rollback("top", To::Line(line)).await.unwrap();
    let told = bench.tell().await;
    assert_eq!(told.len(), 2);
    let report = bench.system.rollback("top", To::Line(oldest)).await.unwrap();
    assert_eq!(keys(&report.missing), ["two"]);
    assert_eq!(keys(&report.replayed)[0], "one");
    assert_eq!(bench.tell().await, told[..1]);
    // Which the next process knows.
    let bench = bench.again().await;
    assert_eq!(bench.recovered.replayed, []);
    assert_eq!(bench.tell().await, told[..1]);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_acts_by_itself_is_not_asked_again() {
    let (world, store) = (Arc::default(), Arc::new(MemoryStore::new()));
    let bench = Bench::over(world, store, Some(EffectKind::Idempotent)).await;
    let line = bench.system.checkpoint("top").await.unwrap();
    bench.ask("one", act("a")).await;
    let report = bench.system.rollback("top", To::Line(line)).await.unwrap();
    assert_eq!((keys(&report.missing), report.replayed), (vec!["one"], Vec::new()));
    assert_eq!(bench.tell().await, Vec::<String>::new());
    assert_eq!(bench.world.replayed.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn the_next_process_goes_on_with_replays_that_were_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(FileStore::open(dir.path()).unwrap());
    let bench = Bench::over(Arc::default(), store, None).await;
    bench.ask("one", act("a")).await;
    let line = bench.system.checkpoint("top").await.unwrap();
    bench.ask("two", act("b")).await;
    let (told, acts) = (bench.ask("three", act("c")).await, bench.world.acts());
    bench.system.rollback("top", To::Line(line)).await.unwrap();
    let bench = bench.again().await;
    assert_eq!(keys(&bench.recovered.replayed), ["two", "three"]);
    assert_eq!(bench.tell().await, told);
    assert_eq!(bench.world.acts(), acts);
}

#[tokio::test(start_paused = true)]
async fn a_recovery_that_refuses_the_newest_states_has_their_requests_handled_again() {
    let bench = Bench::new().await;
    bench.ask("one", act("a")).await;
    let (told, acts) = (bench.ask("two", act("b")).await, bench.world.acts());
    let path = ChildPath::new("top/agent");
    let newest = bench.store.checkpoints(&path).unwrap()[0].checkpoint.id;
    let bad = Batch::new().mark_bad(newest, "it does not look right");
    bench.store.commit(bad, Durability::Sync).await.unwrap();
    let bench = bench.again().await;
    assert_eq!(keys(&bench.recovered.replayed), ["two"]);
    assert_eq!(bench.tell().await, told);
    assert_eq!(bench.world.acts(), acts);
}

#[tokio::test(start_paused = true)]
async fn a_behavior_is_told_that_nobody_is_asked_in_a_replay() {
    #[derive(Clone)]
    struct Curious(Arc<Mutex<Vec<String>>>, Arc<u32>, Port<String, String>);

    impl Behavior for Curious {
        type Request = u32;
        type Reply = u32;
    }

    impl Stateful for Curious {
        async fn step(&mut self, _: &u32, _: Turn, ctx: &Context) -> Result<Step<u32>, Fault> {
            self.1 = Arc::new(*self.1 + 1);
            if ctx.is_replay() {
                // A port of its own, which comes from nowhere the runtime knows of.
                let cast = self.2.cast("x".to_owned()).map(drop).map_err(|error| match error {
                    CallError::Refused { why: Unavailable::Replaying, .. } => "refused".to_owned(),
                    other => other.to_string(),
                });
                let submitted = self.2.submit("x".to_owned(), CallOptions::new()).await;
                self.0.lock().push(format!("{cast:?} {}", submitted.is_err()));
            }
            Ok(Step::Reply(*self.1))
        }

        fn snapshot(&self) -> Option<Snapshot> {
            Some(Snapshot::new("curious", 1).with("count", Arc::clone(&self.1)))
        }

        fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
            self.1 = snapshot.get("count")?;
            Ok(())
        }
    }

    let world = Arc::<World>::default();
    let tool = Tool(Arc::clone(&world));
    let outside = SupervisorSpec::one_for_one("outside")
        .child(ChildSpec::stateless("tool", move || tool.clone()));
    let outside = System::start(outside).await.unwrap();
    let port = outside.port::<String, String>("outside/tool").unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let made = Curious(Arc::clone(&seen), Arc::new(0), port);
    let tree = SupervisorSpec::one_for_one("top")
        .scope(Scope::Flow)
        .child(ChildSpec::stateful("curious", move || made.clone()).durable::<Curious>());
    let (system, _) = System::recover(tree, Arc::new(MemoryStore::new())).await.unwrap();
    let port = system.port::<u32, u32>("top/curious").unwrap();
    let line = system.checkpoint("top").await.unwrap();
    assert_eq!(port.call(1_u32).await.unwrap().value, 1);
    system.rollback("top", To::Line(line)).await.unwrap();
    // It went on as if that were nothing, so what it came to is not believed.
    assert_eq!(port.call(1_u32).await.unwrap().value, 1);
    assert_eq!(*seen.lock(), ["Err(\"refused\") true"]);
    assert_eq!(system.lost_work().len(), 1);
    assert_eq!(world.acts(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_process_that_ends_while_it_replays_leaves_the_rest_to_the_next() {
    let mut finished = false;
    let mut limit = 0;
    while !finished {
        for last in [false, true] {
            let bench = Bench::new().await;
            bench.ask("one", act("a")).await;
            let line = bench.system.checkpoint("top").await.unwrap();
            bench.ask("two", act("b")).await;
            let (told, acts) = (bench.ask("three", act("c")).await, bench.world.acts());
            bench.system.stop().await;
            let Bench { world, store: inner, .. } = bench;
            let dying: Arc<dyn Store> = Arc::new(Dying::new(&inner, limit, last));
            let work = async {
                let bench = Bench::over(Arc::clone(&world), dying, None).await;
                let back = bench.system.rollback("top", To::Line(line)).await;
                let port = bench.system.port::<Ask, Vec<String>>("top/agent").unwrap();
                match port.call(Ask::Tell).await {
                    Ok(answer) if back.is_ok() => assert_eq!(answer.value, told),
                    // The machine is dead.
                    _ => std::future::pending::<()>().await,
                }
            };
            finished = tokio::time::timeout(Duration::from_secs(60), work).await.is_ok();
            let bench = Bench::over(world, inner, None).await;
            assert_eq!(bench.tell().await, told, "after {limit} commits, {last}");
            assert_eq!(bench.world.acts(), acts, "after {limit} commits, {last}");
            assert_eq!(bench.system.lost_work(), []);
            bench.system.stop().await;
        }
        limit += 1;
    }
    assert!(limit > 4, "the rollback, the replay and the answer are commits of their own");
}

/// What comes between a replay and the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Between {
    /// The store answers later than the attempt may take.
    Late,
    /// The store fails.
    Fails,
    /// The life is killed.
    Killed,
    /// The request's time is over, and what it did is undone.
    GivenUp,
}

#[tokio::test(start_paused = true)]
async fn what_was_replayed_is_not_lost_whatever_becomes_of_the_attempt_that_writes_it() {
    for between in [Between::Late, Between::Fails, Between::Killed, Between::GivenUp] {
        let store = Moody::new();
        let world = Arc::<World>::default();
        let tree = match between {
            Between::GivenUp => tree(&world, None).scope(Scope::Transaction),
            _ => tree(&world, None),
        };
        let shared = Arc::clone(&store) as Arc<dyn Store>;
        let (system, recovered) = System::recover(tree, Arc::clone(&shared)).await.unwrap();
        let bench = Bench { world, store: shared, system, recovered };
        let line = bench.system.checkpoint("top").await.unwrap();
        bench.ask("one", act("a")).await;
        bench.ask("two", act("b")).await;
        let (before, acts) = (bench.tell().await, bench.world.acts());
        bench.system.rollback("top", To::Line(line)).await.unwrap();
        // The request's own acceptance is answered, what was replayed before it is not.
        store.silent_after(1);
        let port = bench.system.port::<Ask, Vec<String>>("top/agent").unwrap();
        let mut options = CallOptions::new().key("told");
        if between == Between::GivenUp {
            options = options.deadline(Duration::from_secs(1));
        }
        let told = tokio::spawn(async move { port.call_with(Ask::Tell, options).await });
        store.held(1).await;
        match between {
            Between::Late => {
                // Longer than an attempt may take, and not as long as until the next one writes.
                tokio::time::timeout(Duration::from_millis(2_100), std::future::pending::<()>())
                    .await
                    .ok();
                store.turn(Mood::Well);
            }
            Between::Fails => {
                store.turn(Mood::Full);
                tokio::time::timeout(Duration::from_millis(10), std::future::pending::<()>())
                    .await
                    .ok();
                store.turn(Mood::Well);
            }
            Between::Killed => {
                bench.system.kill("top/agent").unwrap();
                tokio::time::timeout(Duration::from_millis(10), std::future::pending::<()>())
                    .await
                    .ok();
                store.turn(Mood::Well);
            }
            Between::GivenUp => {
                tokio::time::timeout(Duration::from_secs(1), std::future::pending::<()>())
                    .await
                    .ok();
                store.turn(Mood::Well);
                assert!(matches!(told.await.unwrap(), Err(CallError::Expired { .. })));
            }
        }
        assert_eq!(bench.tell().await, before, "{between:?}");
        assert_eq!(bench.system.lost_work(), [], "{between:?}");
        assert_eq!(bench.world.acts(), acts, "{between:?}");
        let bench = bench.again().await;
        assert_eq!(bench.tell().await, before, "{between:?}, in the next process");
        assert_eq!(bench.recovered.missing, [], "{between:?}");
    }
}
