//! An act on the world happens once, however often the step that asks for it is done.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use mainstay::behavior::{Behavior, Call, Context, Stateful, Stateless, Step, Turn};
use mainstay::checkpoint::{MemoryStore, Store};
use mainstay::error::CallError;
use mainstay::fate::Fate;
use mainstay::fault::{Class, EffectKind, Fault};
use mainstay::journal::Journaled;
use mainstay::ledger::EffectCounts;
use mainstay::policy::Policy;
use mainstay::port::{CallOptions, Needs, Port, Verified};
use mainstay::spec::acting::{Compensable, Idempotent, Irreversible};
use mainstay::spec::{AnyChild, ChildSpec, GroupSpec, SupervisorSpec};
use mainstay::system::System;
use parking_lot::Mutex;
use tokio::sync::Notify;

#[path = "effects/doubted.rs"]
mod doubted;
#[path = "effects/held.rs"]
mod held;
#[path = "effects/left.rs"]
mod left;
#[path = "effects/outlived.rs"]
mod outlived;
#[path = "effects/stuck.rs"]
mod stuck;
#[path = "effects/taken_over.rs"]
mod taken_over;

/// What the world has seen.
#[derive(Default)]
struct World {
    /// The keys of the acts, in order.
    acts: Mutex<Vec<String>>,
    /// Acts from now on happen and their answer is lost in a panic: how many.
    swallow: AtomicU32,
    /// Acts from now on do not happen, and their answer is lost all the same: how many.
    vanish: AtomicU32,
    /// Acts from now on fail.
    fail: Mutex<Option<Fault>>,
    /// Crashes of the agent that are left, after its act.
    crash: AtomicU32,
    questions: AtomicU32,
    /// Whoever asks the register waits.
    ponders: AtomicU32,
    pondered: Notify,
    /// The tool never answers, and does nothing.
    hang: AtomicU32,
    hung: Notify,
}

fn take(count: &AtomicU32) -> bool {
    count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

#[derive(Clone)]
struct Tool(Arc<World>);

impl Behavior for Tool {
    type Request = u32;
    type Reply = u32;
}

impl Stateless for Tool {
    async fn serve(&self, request: &u32, ctx: &Context) -> Result<u32, Fault> {
        if let Some(fault) = self.0.fail.lock().clone() {
            return Err(fault);
        }
        if take(&self.0.hang) {
            self.0.hung.notify_one();
            std::future::pending::<()>().await;
        }
        if take(&self.0.vanish) {
            return Err(Fault::indeterminate("nobody knows"));
        }
        self.0.acts.lock().push(ctx.key());
        assert!(!take(&self.0.swallow), "the answer is lost");
        Ok(request * 2)
    }
}

/// Is out of order.
#[derive(Clone)]
struct Gone;

impl Behavior for Gone {
    type Request = u32;
    type Reply = u32;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Idempotent);
}

impl Stateless for Gone {
    async fn serve(&self, _: &u32, _: &Context) -> Result<u32, Fault> {
        Err(Fault::exhausted("out of order").not_applied())
    }
}

/// Says whether an act happened.
#[derive(Clone)]
struct Register(Arc<World>);

impl Behavior for Register {
    type Request = u32;
    type Reply = bool;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Read);
}

impl Stateless for Register {
    async fn serve(&self, _: &u32, _: &Context) -> Result<bool, Fault> {
        self.0.questions.fetch_add(1, Ordering::SeqCst);
        if take(&self.0.ponders) {
            self.0.hung.notify_one();
            self.0.pondered.notified().await;
        }
        Ok(!self.0.acts.lock().is_empty())
    }
}

#[derive(Clone)]
struct Agent(Arc<World>);

impl Behavior for Agent {
    type Request = u32;
    type Reply = u32;

    fn needs() -> Needs {
        Needs::none().needs::<Port<u32, u32>>("tool").needs::<Port<u32, bool>>("register")
    }
}

impl Stateful for Agent {
    async fn step(&mut self, request: &u32, turn: Turn, ctx: &Context) -> Result<Step<u32>, Fault> {
        match turn {
            Turn::Performed(performed) => {
                let answer = performed.get::<u32>(0)?;
                assert!(!take(&self.0.crash), "the agent dies after its act");
                Ok(Step::Reply(*answer.value))
            }
            _ => {
                let tool = ctx.port::<u32, u32>("tool")?;
                let register = ctx.port::<u32, bool>("register")?;
                let act = tool.effect(*request).verify(&register, *request, |happened| {
                    if *happened { Verified::Happened(77_u32) } else { Verified::NotHappened }
                });
                Ok(Step::Perform(vec![Call::from(act)]))
            }
        }
    }
}

async fn desk(kind: EffectKind) -> (System, Arc<World>, Port<u32, u32>) {
    let world = Arc::new(World::default());
    let system = System::start(spec(&world, kind, false)).await.unwrap();
    let port = system.port::<u32, u32>("desk/agent").unwrap();
    (system, world, port)
}

fn spec(world: &Arc<World>, kind: EffectKind, durable: bool) -> SupervisorSpec {
    let (tool, register, agent) =
        (Tool(Arc::clone(world)), Register(Arc::clone(world)), Agent(Arc::clone(world)));
    let mut asks = ChildSpec::stateful("agent", move || agent.clone());
    if durable {
        asks = asks.durable::<Agent>();
    }
    SupervisorSpec::one_for_one("desk")
        .intensity(10, std::time::Duration::from_secs(5))
        .child(ChildSpec::stateless("tool", move || tool.clone()).effect(kind))
        .child(ChildSpec::stateless("register", move || register.clone()))
        .child(asks)
}

#[tokio::test(start_paused = true)]
async fn a_crash_after_an_act_does_not_act_again() {
    for kind in [EffectKind::Irreversible, EffectKind::Compensable, EffectKind::Idempotent] {
        let (system, world, agent) = desk(kind).await;
        world.crash.store(1, Ordering::SeqCst);
        let answer = agent.call(21_u32).await.unwrap();
        assert_eq!(answer.value, 42, "{kind:?}");
        assert_eq!(world.acts.lock().len(), 1, "{kind:?}");
        assert_eq!(world.crash.load(Ordering::SeqCst), 0, "it did crash");
        assert!(system.fates().is_balanced());
    }
}

#[tokio::test(start_paused = true)]
async fn an_act_that_is_served_from_the_record_says_who_gave_its_result() {
    let world = Arc::<World>::default();
    let mut answers = Vec::new();
    for crashes in [0, 1] {
        // The first member is gone, so a stand-in acts.
        let agent = Agent(Arc::clone(&world));
        let tools =
            GroupSpec::tool("tool").member("first", Gone).member("second", Tool(world.clone()));
        let register = Register(Arc::clone(&world));
        let spec = SupervisorSpec::one_for_one("desk")
            .group(tools)
            .child(ChildSpec::stateless("register", move || register.clone()))
            .child(ChildSpec::stateful("agent", move || agent.clone()));
        let system = System::start(spec).await.unwrap();
        world.crash.store(crashes, Ordering::SeqCst);
        let agent = system.port::<u32, u32>("desk/agent").unwrap();
        let answer = agent.call(21_u32).await.unwrap();
        assert_eq!((answer.value, world.crash.load(Ordering::SeqCst)), (42, 0));
        answers.push((answer.degraded, answer.defaulted));
    }
    assert_eq!(world.acts.lock().len(), 2, "one each");
    assert_eq!(
        answers,
        [(true, false); 2],
        "told in the same way, from the tool and from the record"
    );
}

#[tokio::test(start_paused = true)]
async fn an_act_whose_answer_was_lost_is_not_repeated_and_not_reported_as_failed() {
    let (system, world, agent) = desk(EffectKind::Irreversible).await;
    world.swallow.store(1, Ordering::SeqCst);
    let error = agent.call(21_u32).await.unwrap_err();
    assert!(matches!(error, CallError::Unknown { .. }), "{error}");
    assert_eq!(world.acts.lock().len(), 1);
    let counts = system.effects().counts();
    assert_eq!(counts, EffectCounts { unknown: 1, ..EffectCounts::default() });
}

#[tokio::test(start_paused = true)]
async fn the_word_of_a_person_counts_also_while_it_is_asked_whether_an_act_happened() {
    let (system, world, agent) = desk(EffectKind::Verifiable).await;
    world.vanish.store(1, Ordering::SeqCst);
    world.ponders.store(1, Ordering::SeqCst);
    let call = tokio::spawn(async move { agent.call(21_u32).await.unwrap().value });
    world.hung.notified().await;
    let effects = system.effects();
    let key = effects.open()[0].key;
    effects.happened(key, &5_u32).await.unwrap();
    // It says that nothing has happened.
    world.pondered.notify_one();
    assert_eq!(call.await.unwrap(), 5);
    assert_eq!((world.acts.lock().len(), effects.counts().confirmed), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_keyed_act_whose_answer_was_lost_is_repeated_with_the_same_key() {
    let (_system, world, agent) = desk(EffectKind::Idempotent).await;
    world.swallow.store(1, Ordering::SeqCst);
    assert_eq!(agent.call(21_u32).await.unwrap().value, 42);
    let acts = world.acts.lock();
    assert_eq!(acts.len(), 2);
    assert_eq!(acts[0], acts[1]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_act_is_no_act() {
    let (system, world, agent) = desk(EffectKind::Irreversible).await;
    *world.fail.lock() = Some(Fault::business("insufficient funds"));
    let error = agent.call(21_u32).await.unwrap_err();
    let CallError::RecoveryExhausted { fault, .. } = error else { panic!("{error}") };
    assert_eq!(fault.class, Class::Exhausted);
    assert_eq!(system.effects().counts().unknown, 0);
}

#[tokio::test(start_paused = true)]
async fn two_requests_that_ask_for_the_same_are_two_acts() {
    let (_system, world, agent) = desk(EffectKind::Irreversible).await;
    agent.call(21_u32).await.unwrap();
    agent.call(21_u32).await.unwrap();
    let acts = world.acts.lock();
    assert_eq!(acts.len(), 2);
    assert_ne!(acts[0], acts[1]);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_is_irreversible_by_its_type_is_retried_by_nobody() {
    type Typed = fn(ChildSpec) -> AnyChild;
    let cases: [(Typed, u32); 5] = [
        (|spec| spec.acts::<Irreversible>().into(), 1),
        // A refusal says that nothing has happened.
        (|spec| spec.effect(EffectKind::Irreversible).into(), 4),
        (|spec| spec.acts::<Compensable>().into(), 4),
        (
            |spec| {
                spec.acts::<Idempotent>().policy(Policy::new().with_cap(Class::Network, 2)).into()
            },
            3,
        ),
        (|spec| spec.acts::<Idempotent>().policy(Policy::without_retries()).into(), 1),
    ];
    for (case, (typed, expected)) in cases.into_iter().enumerate() {
        let world = Arc::new(World::default());
        *world.fail.lock() = Some(Fault::network("refused"));
        let tool = Tool(Arc::clone(&world));
        let attempts = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&attempts);
        let child =
            ChildSpec::stateless("tool", move || Counted(tool.clone(), Arc::clone(&counted)));
        let spec = SupervisorSpec::one_for_one("desk").child(typed(child));
        let system = System::start(spec).await.unwrap();
        let tool = system.port::<u32, u32>("desk/tool").unwrap();
        assert!(tool.call(1_u32).await.is_err());
        assert_eq!(attempts.load(Ordering::SeqCst), expected, "case {case}");
    }
}

#[derive(Clone)]
struct Counted(Tool, Arc<AtomicU32>);

impl Behavior for Counted {
    type Request = u32;
    type Reply = u32;
}

impl Stateless for Counted {
    async fn serve(&self, request: &u32, ctx: &Context) -> Result<u32, Fault> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.serve(request, ctx).await
    }
}

#[tokio::test(start_paused = true)]
async fn an_act_whose_answer_was_lost_is_asked_about_where_that_is_possible() {
    let (system, world, agent) = desk(EffectKind::Verifiable).await;
    world.swallow.store(1, Ordering::SeqCst);
    // The answer is the one of the question, and not the tool's.
    assert_eq!(agent.call(21_u32).await.unwrap().value, 77);
    assert_eq!(world.acts.lock().len(), 1);
    assert_eq!(world.questions.load(Ordering::SeqCst), 1);
    let confirmed = EffectCounts { confirmed: 1, ..EffectCounts::default() };
    assert_eq!(system.effects().counts(), confirmed);
}

#[tokio::test(start_paused = true)]
async fn an_act_that_the_question_says_has_not_happened_is_known_to_have_failed() {
    let (system, world, agent) = desk(EffectKind::Verifiable).await;
    world.vanish.store(1, Ordering::SeqCst);
    let error = agent.call(21_u32).await.unwrap_err();
    let CallError::RecoveryExhausted { fault, .. } = error else { panic!("{error}") };
    assert_eq!(fault.class, Class::Exhausted, "{fault}");
    assert_eq!(world.questions.load(Ordering::SeqCst), 1);
    assert_eq!(system.effects().counts(), EffectCounts::default());
    assert!(world.acts.lock().is_empty());
}

/// Acts where it can be undone.
#[derive(Clone)]
struct Careful;

impl Behavior for Careful {
    type Request = u32;
    type Reply = u32;

    fn needs() -> Needs {
        Needs::none().needs::<Port<u32, u32>>("tool").needs::<Port<u32, u32>>("back")
    }
}

impl Stateful for Careful {
    async fn step(&mut self, request: &u32, turn: Turn, ctx: &Context) -> Result<Step<u32>, Fault> {
        if let Turn::Performed(performed) = turn {
            return Ok(Step::Reply(*performed.get::<u32>(0)?.value));
        }
        let (tool, back) = (ctx.port::<u32, u32>("tool")?, ctx.port::<u32, u32>("back")?);
        Ok(Step::Perform(vec![Call::from(tool.effect(*request).undo(&back, *request))]))
    }
}

#[tokio::test(start_paused = true)]
async fn an_act_that_nobody_could_be_asked_to_undo_is_not_done() {
    for recorded in [false, true] {
        let world = Arc::new(World::default());
        let (tool, back) = (Tool(Arc::clone(&world)), Tool(Arc::default()));
        let mut back = ChildSpec::stateless("back", move || back.clone());
        if recorded {
            back = back.recorded::<Tool>();
        }
        let root = SupervisorSpec::one_for_one("desk")
            .child(ChildSpec::stateless("tool", move || tool.clone()))
            .child(back)
            .child(ChildSpec::stateful("agent", || Careful));
        let system = System::start(root).await.unwrap();
        let answer = system.port::<u32, u32>("desk/agent").unwrap().call(21_u32).await;
        assert_eq!(world.acts.lock().len(), usize::from(recorded));
        if recorded {
            assert_eq!(answer.unwrap().value, 42);
            continue;
        }
        let CallError::RecoveryExhausted { fault, .. } = answer.unwrap_err() else {
            panic!("the act was refused")
        };
        assert_eq!(fault.code.as_deref(), Some("effect_undo"), "{fault}");
        let told = r#"what "desk/tool" does could not be undone: "desk/back" is gone"#;
        assert!(fault.message.starts_with(told), "{fault}");
        assert_eq!(system.effects().counts(), EffectCounts::default());
    }
}

#[test]
fn an_act_is_asked_about_after_the_process_ended_and_again_when_its_answer_is_lost() {
    let (store, world): (Arc<dyn Store>, _) = (Arc::new(MemoryStore::new()), Arc::default());
    let process = |work: &dyn Fn(System) -> Pin<Box<dyn Future<Output = ()>>>| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().start_paused(true).build().unwrap().block_on(async {
            let spec = spec(&world, EffectKind::Verifiable, true);
            let (system, _) = System::recover(spec, Arc::clone(&store)).await.unwrap();
            work(system).await;
        });
    };
    world.hang.store(1, Ordering::SeqCst);
    process(&|system| {
        let world = Arc::clone(&world);
        Box::pin(async move {
            let agent = system.port::<u32, u32>("desk/agent").unwrap();
            agent.submit(21_u32, CallOptions::new().key("one")).await.unwrap();
            world.hung.notified().await;
        })
    });
    world.swallow.store(1, Ordering::SeqCst);
    process(&|system| {
        Box::pin(async move {
            let mut events = system.events();
            while !matches!(system.journaled("one"), Some(Journaled::Fated(..))) {
                events.next().await.unwrap();
            }
            let done = Some(Journaled::Fated(Fate::Done, Some("77".to_owned())));
            assert_eq!(system.journaled("one"), done);
        })
    });
    assert_eq!(world.questions.load(Ordering::SeqCst), 2);
    assert_eq!(world.acts.lock().len(), 1);
}
