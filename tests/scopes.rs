//! Many children return together to what they were at one moment, and nothing accepted is lost on the
//! way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use mainstay::behavior::{Behavior, Context, StartContext, Stateful, Step, Turn};
use mainstay::checkpoint::{
    Batch, Durability, FileStore, MemoryStore, Pin, Scope, Snapshot, Store, Wall,
};
use mainstay::error::CheckpointError;
use mainstay::event::Event;
use mainstay::fault::{EffectKind, Fault};
use mainstay::id::ChildPath;
use mainstay::port::Port;
use mainstay::spec::{ChildSpec, SupervisorSpec};
use mainstay::system::{RecoverOptions, RollbackError, RollbackOptions, System, SystemOptions, To};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

#[path = "common/dying.rs"]
mod dying;
#[path = "scopes/ended.rs"]
mod ended;
#[path = "common/moody.rs"]
mod moody;
#[path = "scopes/replay.rs"]
mod replay;
#[path = "scopes/request.rs"]
mod request;
#[path = "scopes/restarting.rs"]
mod restarting;

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Ask {
    Add(u64),
    /// Adds in so many steps.
    Slowly(u64),
    /// Adds once the switch is told to go on.
    Wait(u64),
    Panic,
}

/// What tests do to agents.
#[derive(Default)]
struct Switch {
    go: Notify,
    begun: Notify,
    open: AtomicBool,
    /// So many starts panic.
    bad_starts: AtomicU32,
    /// Starts with this sum panic, unless it is 0.
    poison: AtomicU64,
    steps: AtomicU32,
}

#[derive(Clone)]
struct Agent {
    sum: Arc<u64>,
    /// Steps done of the request in hand.
    done: Arc<u64>,
    switch: Arc<Switch>,
}

impl Behavior for Agent {
    type Request = Ask;
    type Reply = u64;
}

impl Stateful for Agent {
    async fn start(&mut self, _: &StartContext) -> Result<(), Fault> {
        let bad = &self.switch.bad_starts;
        if bad.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
            panic!("what it needs is away");
        }
        let poison = self.switch.poison.load(Ordering::SeqCst);
        assert!(poison == 0 || *self.sum != poison, "this state is poison");
        Ok(())
    }

    async fn step(&mut self, ask: &Ask, _: Turn, _: &Context) -> Result<Step<u64>, Fault> {
        self.switch.steps.fetch_add(1, Ordering::SeqCst);
        match *ask {
            Ask::Add(n) => self.sum = Arc::new(*self.sum + n),
            Ask::Slowly(n) if *self.done < n => {
                self.done = Arc::new(*self.done + 1);
                self.sum = Arc::new(*self.sum + 1);
                tokio::task::yield_now().await;
                return Ok(Step::Continue);
            }
            Ask::Slowly(_) => self.done = Arc::new(0),
            Ask::Wait(n) => {
                self.switch.begun.notify_one();
                if !self.switch.open.load(Ordering::SeqCst) {
                    self.switch.go.notified().await;
                }
                self.sum = Arc::new(*self.sum + n);
            }
            Ask::Panic => panic!("as asked"),
        }
        Ok(Step::Reply(*self.sum))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        let snapshot = Snapshot::new("agent", 1).with("sum", Arc::clone(&self.sum));
        Some(snapshot.with("done", Arc::clone(&self.done)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.sum = snapshot.get("sum")?;
        self.done = snapshot.get("done")?;
        Ok(())
    }
}

fn agent(id: &str, switch: &Arc<Switch>) -> ChildSpec {
    let switch = Arc::clone(switch);
    let made = move || Agent { sum: Arc::new(0), done: Arc::new(0), switch: Arc::clone(&switch) };
    // By itself it acts on the world, so that nothing is replayed: what a line says is what is returned to.
    ChildSpec::stateful(id, made).durable::<Agent>().effect(EffectKind::Idempotent)
}

/// Whatever is counted against the intensity of `flow` ends it.
fn spec(switch: &Arc<Switch>, agents: usize, scope: Scope) -> SupervisorSpec {
    let mut flow =
        SupervisorSpec::one_for_one("flow").scope(scope).intensity(0, SECOND).no_child_limit();
    for n in 0..agents {
        flow = flow.child(agent(&format!("a{n}"), switch));
    }
    SupervisorSpec::one_for_one("top").scope(Scope::System).intensity(3, SECOND).supervisor(flow)
}

const SECOND: Duration = Duration::from_secs(1);

struct Bench {
    system: System,
    store: Arc<dyn Store>,
    switch: Arc<Switch>,
}

impl Bench {
    async fn of(store: Arc<dyn Store>, agents: usize, scope: Scope) -> Self {
        let switch = Arc::<Switch>::default();
        let tree = spec(&switch, agents, scope);
        let (system, _) = System::recover(tree, Arc::clone(&store)).await.unwrap();
        Self { system, store, switch }
    }

    async fn new(agents: usize) -> Self {
        Self::of(Arc::new(MemoryStore::new()), agents, Scope::Flow).await
    }

    fn port(&self, n: usize) -> Port<Ask, u64> {
        self.system.port(format!("top/flow/a{n}")).unwrap()
    }

    async fn ask(&self, n: usize, ask: Ask) -> u64 {
        self.port(n).call(ask).await.unwrap().value
    }

    fn balanced(&self) {
        let fates = self.system.fates();
        assert!(fates.is_balanced(), "{fates:?}");
    }
}

async fn returns(store: Arc<dyn Store>) {
    let bench = Bench::of(store, 3, Scope::Flow).await;
    let mut events = bench.system.events();
    for n in 0..3 {
        bench.ask(n, Ask::Add(10)).await;
    }
    let line = bench.system.checkpoint("top/flow").await.unwrap();
    for n in 0..3 {
        assert_eq!(bench.ask(n, Ask::Add(1)).await, 11);
    }
    let report = bench.system.rollback("top/flow", To::Latest).await.unwrap();
    assert_eq!((report.line, report.children.len()), (Some(line), 3));
    assert!(report.refused.is_empty());
    assert_eq!(report.scope, Scope::Flow);
    for n in 0..3 {
        assert_eq!(bench.ask(n, Ask::Add(0)).await, 10, "as it was when the line was drawn");
    }
    let mut seen = Vec::new();
    while let Some(event) = events.try_next() {
        match event.event {
            Event::LineDrawn { children, .. } => seen.push(format!("drawn {children}")),
            Event::ScopeRolledBack { children, .. } => seen.push(format!("back {children}")),
            Event::Restarting { .. } | Event::SupervisorEnded { .. } => panic!("it was counted"),
            _ => {}
        }
    }
    assert_eq!(seen, ["drawn 3", "back 3"]);
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn a_subtree_returns_as_one_to_its_line_and_no_restart_is_counted() {
    returns(Arc::new(MemoryStore::new())).await;
}

#[tokio::test]
async fn a_subtree_returns_to_a_line_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    returns(Arc::new(FileStore::open(folder.path()).unwrap())).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_returned_to_is_what_the_next_process_begins_with() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let bench = Bench::of(Arc::clone(&store), 1, Scope::Flow).await;
    bench.ask(0, Ask::Add(10)).await;
    bench.system.checkpoint("top/flow").await.unwrap();
    bench.ask(0, Ask::Add(5)).await;
    bench.system.rollback("top/flow", To::Latest).await.unwrap();
    bench.system.stop().await;
    let bench = Bench::of(store, 1, Scope::Flow).await;
    assert_eq!(bench.ask(0, Ask::Add(0)).await, 10);
}

#[tokio::test(start_paused = true)]
async fn a_line_is_returned_to_once_and_then_the_next_older_and_then_the_wider_scope_is_named() {
    let bench = Bench::new(2).await;
    let mut lines = Vec::new();
    for _ in 0..2 {
        bench.ask(0, Ask::Add(1)).await;
        bench.ask(1, Ask::Add(1)).await;
        lines.push(bench.system.checkpoint("top/flow").await.unwrap());
    }
    let newest = bench.system.rollback("top/flow", To::Latest).await.unwrap();
    assert_eq!(newest.line, Some(lines[1]));
    let older = bench.system.rollback("top/flow", To::Latest).await.unwrap();
    assert_eq!(older.line, Some(lines[0]));
    assert!(matches!(older.refused[0].why, CheckpointError::Used { .. }), "{:?}", older.refused);
    assert_eq!(bench.ask(1, Ask::Add(0)).await, 1);
    let named = bench.system.rollback("top/flow", To::Line(lines[0])).await.unwrap_err();
    let RollbackError::Refused(refused) = named else { panic!("{named}") };
    assert!(matches!(refused.why, CheckpointError::Used { .. }));
    let error = bench.system.rollback("top/flow", To::Latest).await.unwrap_err();
    let RollbackError::NoneValid { refused, wider, .. } = &error else { panic!("{error}") };
    assert_eq!(refused.len(), 2);
    let wider = wider.as_ref().unwrap();
    assert_eq!((wider.scope, wider.at.as_ref().unwrap().as_str()), (Scope::System, "top"));
    assert!(error.to_string().contains("next is the system scope of \"top\""), "{error}");
    assert_eq!(bench.ask(1, Ask::Add(0)).await, 1, "nothing was stopped for it");
}

#[tokio::test(start_paused = true)]
async fn an_old_line_is_refused_as_expired_unless_it_is_pinned() {
    let bench = Bench::new(1).await;
    bench.ask(0, Ask::Add(7)).await;
    let line = bench.system.checkpoint("top/flow").await.unwrap();
    tokio::time::advance(Duration::from_secs(3601)).await;
    let error = bench.system.rollback("top/flow", To::Line(line)).await.unwrap_err();
    let RollbackError::Refused(refused) = error else { panic!("{error}") };
    let CheckpointError::Expired { checkpoint, .. } = refused.why else { panic!("{refused}") };
    let since = bench.system.clock().wall().into();
    let pin = Pin {
        owner: "a person".into(),
        reason: "looks at it".into(),
        since,
        until: Wall(u64::MAX),
    };
    bench.store.commit(Batch::new().pin(checkpoint, pin), Durability::Sync).await.unwrap();
    bench.system.rollback("top/flow", To::Line(line)).await.unwrap();
    assert_eq!(bench.ask(0, Ask::Add(0)).await, 7);
}

#[tokio::test(start_paused = true)]
async fn a_single_child_returns_and_its_siblings_do_not_notice() {
    let bench = Bench::new(2).await;
    bench.ask(0, Ask::Add(1)).await;
    let path = ChildPath::new("top/flow/a0");
    let first = bench.store.checkpoints(&path).unwrap()[0].checkpoint.id;
    bench.ask(0, Ask::Add(1)).await;
    bench.ask(1, Ask::Add(5)).await;
    let mut events = bench.system.events();
    let report = bench.system.rollback("top/flow/a0", To::Checkpoint(first)).await.unwrap();
    assert_eq!(report.children, [(path, Some(first))]);
    assert_eq!(bench.ask(0, Ask::Add(0)).await, 1);
    assert_eq!(bench.ask(1, Ask::Add(0)).await, 5);
    while let Some(event) = events.try_next() {
        let sibling = event.event.path().is_some_and(|path| path.as_str().ends_with("a1"));
        assert!(!sibling || !matches!(event.event, Event::Started { .. }), "{event:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_in_flight_returns_to_the_front_and_what_waits_waits() {
    let bench = Bench::new(1).await;
    bench.ask(0, Ask::Add(10)).await;
    bench.system.checkpoint("top/flow").await.unwrap();
    let port = bench.port(0);
    let first = tokio::spawn({
        let port = port.clone();
        async move { port.call(Ask::Slowly(1_000)).await.unwrap().value }
    });
    let mut events = bench.system.events();
    while bench.switch.steps.load(Ordering::SeqCst) < 50 {
        tokio::task::yield_now().await;
    }
    let second = tokio::spawn(async move { port.call(Ask::Add(1)).await.unwrap().value });
    tokio::task::yield_now().await;
    bench.system.rollback("top/flow", To::Latest).await.unwrap();
    assert_eq!(first.await.unwrap(), 1_010, "from the beginning, once");
    assert_eq!(second.await.unwrap(), 1_011);
    let mut interrupted = 0;
    while let Some(event) = events.try_next() {
        interrupted += u32::from(matches!(event.event, Event::Interrupted { .. }));
    }
    assert_eq!(interrupted, 1);
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn a_line_is_drawn_between_two_steps_and_a_request_in_hand_goes_on_from_there() {
    let bench = Bench::new(1).await;
    let port = bench.port(0);
    let call = tokio::spawn(async move { port.call(Ask::Slowly(1_000)).await.unwrap().value });
    while bench.switch.steps.load(Ordering::SeqCst) < 50 {
        tokio::task::yield_now().await;
    }
    bench.system.checkpoint("top/flow").await.unwrap();
    let drawn = bench.switch.steps.load(Ordering::SeqCst);
    while bench.switch.steps.load(Ordering::SeqCst) < drawn + 100 {
        tokio::task::yield_now().await;
    }
    let done = bench.switch.steps.load(Ordering::SeqCst);
    bench.system.rollback("top/flow", To::Latest).await.unwrap();
    assert_eq!(call.await.unwrap(), 1_000);
    let all = bench.switch.steps.load(Ordering::SeqCst);
    let again = done - drawn;
    assert!((1_001 + again..1_010 + again).contains(&all), "{drawn} {done} {all}");
}

#[tokio::test(start_paused = true)]
async fn a_line_is_not_drawn_while_a_step_does_not_end_and_work_goes_on_after_the_limit() {
    let bench = Bench::new(2).await;
    let port = bench.port(0);
    let call = tokio::spawn(async move { port.call(Ask::Wait(1)).await.unwrap().value });
    bench.switch.begun.notified().await;
    let error = bench.system.checkpoint("top/flow").await.unwrap_err();
    let RollbackError::TooLate { scope, limit, phase, wider, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!((*scope, *limit), (Scope::Flow, Duration::from_secs(10)));
    assert_eq!(*phase, "waiting for the children to stand still");
    assert_eq!(wider.as_ref().unwrap().scope, Scope::System);
    assert_eq!(bench.ask(1, Ask::Add(3)).await, 3, "nobody is held any more");
    bench.switch.go.notify_one();
    assert_eq!(call.await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_can_be_asked_of_what_is_not_there_or_has_no_state() {
    let bench = Bench::new(1).await;
    let line = bench.system.checkpoint("top/flow").await.unwrap();
    let error = |result: Result<_, RollbackError>| result.map(drop).unwrap_err();
    assert!(matches!(
        error(bench.system.rollback("top/nobody", To::Latest).await),
        RollbackError::Lookup(_)
    ));
    let path = "top/flow/a0";
    assert!(matches!(
        error(bench.system.rollback(path, To::Line(line)).await),
        RollbackError::WrongTarget { found: "a child", .. }
    ));
    let wrong = bench.system.checkpoint(path).await.unwrap_err();
    assert!(matches!(wrong, RollbackError::WrongTarget { .. }));
    assert!(matches!(
        error(bench.system.rollback("top", To::Line(line)).await),
        RollbackError::NoLine { .. }
    ));
    let plain = System::start(SupervisorSpec::one_for_one("plain")).await.unwrap();
    assert!(matches!(plain.checkpoint("plain").await.unwrap_err(), RollbackError::NoStore));
}

#[tokio::test(start_paused = true)]
async fn a_system_that_wants_approval_returns_a_scope_of_high_risk_only_with_it() {
    let switch = Arc::<Switch>::default();
    let mut options = RecoverOptions::default();
    options.system = SystemOptions::new().approvals(true);
    let tree = spec(&switch, 1, Scope::Transaction);
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (system, _) = System::recover_with(tree, store, options).await.unwrap();
    let agent = system.port::<Ask, u64>("top/flow/a0").unwrap();
    agent.call(Ask::Add(1)).await.unwrap();
    system.checkpoint("top/flow").await.unwrap();
    let mut events = system.events();
    let error = system.rollback("top/flow", To::Latest).await.unwrap_err();
    assert!(matches!(error, RollbackError::NeedsApproval { .. }), "{error}");
    let approved = RollbackOptions::new().approved_by("ann", "ticket 7");
    system.rollback_with("top/flow", To::Latest, approved).await.unwrap();
    let event =
        events.wait_for(|event| matches!(event, Event::ScopeRolledBack { .. })).await.unwrap();
    let Event::ScopeRolledBack { approved_by, .. } = event.event else { unreachable!() };
    assert_eq!(approved_by, Some(("ann".to_owned(), "ticket 7".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn a_system_that_wants_approval_has_no_scope_of_high_risk_return_by_itself() {
    for (approvals, sum, event) in [(false, 1, "back"), (true, 11, "alerted")] {
        let switch = Arc::<Switch>::default();
        let mut options = RecoverOptions::default();
        options.system = SystemOptions::new().approvals(approvals);
        let tree = spec(&switch, 1, Scope::Transaction);
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let (system, _) = System::recover_with(tree, store, options).await.unwrap();
        let agent = system.port::<Ask, u64>("top/flow/a0").unwrap();
        agent.call(Ask::Add(1)).await.unwrap();
        system.checkpoint("top").await.unwrap();
        system.checkpoint("top/flow").await.unwrap();
        agent.call(Ask::Add(10)).await.unwrap();
        let mut events = system.events();
        system.kill("top/flow/a0").unwrap();
        let heard = loop {
            match events.next().await.unwrap().event {
                Event::ScopeRolledBack { .. } => break "back",
                Event::RollbackExhausted { reasons, .. } => {
                    // What is wider does more, and is not done in its place.
                    assert_eq!(reasons.len(), 1, "{reasons:?}");
                    assert!(reasons[0].contains("approved"), "{reasons:?}");
                    break "alerted";
                }
                _ => {}
            }
        };
        assert_eq!(heard, event);
        assert_eq!(agent.call(Ask::Add(0)).await.unwrap().value, sum);
    }
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_falls_begins_again_from_its_line() {
    let bench = Bench::new(2).await;
    bench.ask(0, Ask::Add(10)).await;
    bench.ask(1, Ask::Add(10)).await;
    bench.system.checkpoint("top/flow").await.unwrap();
    bench.ask(1, Ask::Add(1)).await;
    let mut events = bench.system.events();
    bench.system.kill("top/flow/a0").unwrap();
    let event =
        events.wait_for(|event| matches!(event, Event::ScopeRolledBack { .. })).await.unwrap();
    assert_eq!(event.event.path().unwrap().as_str(), "top/flow");
    assert_eq!(bench.ask(1, Ask::Add(0)).await, 10);
    assert_eq!(bench.ask(0, Ask::Add(0)).await, 10);
    bench.balanced();
}

#[tokio::test(start_paused = true)]
async fn a_state_that_ends_lives_at_once_is_set_aside_and_the_older_one_tried() {
    let switch = Arc::<Switch>::default();
    let tree = SupervisorSpec::one_for_one("top").intensity(5, SECOND).child(agent("a0", &switch));
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (system, _) = System::recover(tree, Arc::clone(&store)).await.unwrap();
    let port = system.port::<Ask, u64>("top/a0").unwrap();
    port.call(Ask::Add(10)).await.unwrap();
    port.call(Ask::Add(5)).await.unwrap();
    let mut events = system.events();
    switch.poison.store(15, Ordering::SeqCst);
    system.kill("top/a0").unwrap();
    assert_eq!(port.call(Ask::Add(0)).await.unwrap().value, 10, "the one before");
    let failed = events.wait_for(|event| matches!(event, Event::RestoreFailed { .. })).await;
    let Event::RestoreFailed { checkpoint: Some(bad), .. } = failed.unwrap().event else {
        panic!("no checkpoint was named")
    };
    let aside = store.quarantined().unwrap();
    assert_eq!(aside.len(), 1);
    assert_eq!(aside[0].checkpoint.id, bad);
    assert_eq!(
        aside[0].bad.as_deref(),
        Some("lives that began with it ended at once, and one without it did not")
    );
}

#[tokio::test(start_paused = true)]
async fn starts_that_panic_whatever_the_state_set_no_state_aside() {
    // Wherever it ends, before a start or before what is tried without a state.
    for starts in 18..=21 {
        starts_that_panic(starts).await;
    }
}

async fn starts_that_panic(starts: u32) {
    let switch = Arc::<Switch>::default();
    let tree = SupervisorSpec::one_for_one("top").intensity(99, SECOND).child(agent("a0", &switch));
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (system, _) = System::recover(tree, Arc::clone(&store)).await.unwrap();
    let port = system.port::<Ask, u64>("top/a0").unwrap();
    for _ in 0..5 {
        port.call(Ask::Add(10)).await.unwrap();
    }
    let mut events = system.events();
    switch.bad_starts.store(starts, Ordering::SeqCst);
    system.kill("top/a0").unwrap();
    assert_eq!(port.call(Ask::Add(0)).await.unwrap().value, 50, "it goes on with its last state");
    assert!(store.quarantined().unwrap().is_empty());
    let mut panics = 0;
    while let Some(event) = events.try_next() {
        match event.event {
            Event::RestoreFailed { .. } | Event::BeganAnew { .. } => panic!("{event:?}"),
            Event::Exited { .. } => panics += 1,
            _ => {}
        }
    }
    assert!(panics > 5, "only {panics} starts panicked");
}

#[tokio::test(start_paused = true)]
async fn a_thousand_agents_return_under_load_and_nothing_accepted_is_lost() {
    let bench = Bench::new(1_000).await;
    let calls: Vec<_> = (0..3_000)
        .map(|n| {
            let port = bench.port(n % 1_000);
            tokio::spawn(async move { port.call(Ask::Slowly(5)).await.map(|answer| answer.value) })
        })
        .collect();
    tokio::task::yield_now().await;
    bench.system.checkpoint("top/flow").await.unwrap();
    bench.balanced();
    let report = bench.system.rollback("top/flow", To::Latest).await.unwrap();
    assert_eq!(report.children.len(), 1_000);
    bench.balanced();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    let fates = bench.system.fates();
    assert_eq!((fates.accepted, fates.done, fates.open), (3_000, 3_000, 0));
}

#[tokio::test(start_paused = true)]
async fn a_stop_during_a_rollback_stops() {
    let bench = Bench::new(50).await;
    for n in 0..50 {
        bench.ask(n, Ask::Add(1)).await;
    }
    bench.system.checkpoint("top/flow").await.unwrap();
    let system = bench.system.clone();
    let rollback = tokio::spawn(async move { system.rollback("top/flow", To::Latest).await });
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
    bench.system.stop().await;
    // It was done before the stop came, or it was given up; it does not bring anybody back.
    let _ = rollback.await.unwrap();
    bench.balanced();
    assert!(bench.port(0).call(Ask::Add(1)).await.is_err());
}
