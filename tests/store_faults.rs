//! A store that fails, and one that does not answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mainstay::behavior::{Behavior, Call, Context, Stateful, Stateless, Step, Turn};
use mainstay::checkpoint::{Interval, Snapshot, Store};
use mainstay::error::{CallError, CheckpointError};
use mainstay::event::Event;
use mainstay::fate::{Answer, Fate};
use mainstay::fault::{Class, EffectKind, Fault};
use mainstay::journal::Journaled;
use mainstay::points::PointSpec;
use mainstay::policy::Policy;
use mainstay::port::{CallOptions, Needs, Port};
use mainstay::spec::{ChildSpec, SupervisorSpec};
use mainstay::system::{RecoverOptions, System, SystemOptions};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use moody::{Mood, Moody};

#[path = "store_faults/full_disk.rs"]
mod full_disk;
#[path = "common/moody.rs"]
mod moody;

#[derive(Clone)]
struct Tool(Arc<AtomicU32>);

impl Behavior for Tool {
    type Request = u64;
    type Reply = u64;
}

impl Stateless for Tool {
    async fn serve(&self, request: &u64, _: &Context) -> Result<u64, Fault> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(*request)
    }
}

/// What the counter refuses for good.
const HOPELESS: u64 = 1_000;

/// Adds up; asked for an odd number, it acts first.
#[derive(Clone, Default)]
struct Counter {
    sum: Arc<u64>,
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
        } else if *request == HOPELESS {
            return Err(Fault::new(Class::InputValidation, "hopeless"));
        } else if request % 2 == 1 {
            let tool = ctx.port::<u64, u64>("tool")?;
            return Ok(Step::Perform(vec![Call::from(tool.effect(*request))]));
        }
        self.sum = Arc::new(*self.sum + request);
        Ok(Step::Reply(*self.sum))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("counter", 1).with("sum", Arc::clone(&self.sum)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.sum = snapshot.get("sum")?;
        Ok(())
    }
}

struct Desk {
    moody: Arc<Moody>,
    store: Arc<dyn Store>,
    acts: Arc<AtomicU32>,
}

impl Desk {
    fn new() -> Self {
        let moody = Moody::new();
        let store = Arc::clone(&moody) as Arc<dyn Store>;
        Self { moody, store, acts: Arc::default() }
    }

    fn spec(&self) -> SupervisorSpec {
        let tool = Tool(Arc::clone(&self.acts));
        SupervisorSpec::one_for_one("desk")
            .child(
                ChildSpec::stateless("tool", move || tool.clone()).effect(EffectKind::Irreversible),
            )
            .child(
                ChildSpec::stateful("counter", Counter::default)
                    .durable::<Counter>()
                    .attempt_timeout(Duration::from_secs(5))
                    .checkpoint(Interval::Steps(1)),
            )
    }

    async fn open(&self) -> (System, Port<u64, u64>) {
        let (system, _) = System::recover(self.spec(), Arc::clone(&self.store)).await.unwrap();
        let counter = system.port("desk/counter").unwrap();
        (system, counter)
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

fn keyed(key: &str) -> CallOptions {
    CallOptions::new().key(key)
}

fn code<Q>(error: &CallError<Q>) -> Option<&str> {
    match error {
        CallError::RecoveryExhausted { fault, .. } => fault.code.as_deref(),
        _ => None,
    }
}

#[test]
fn a_full_store_fails_what_it_cannot_take_and_loses_nothing_written_before() {
    let desk = Desk::new();
    runtime().block_on(async {
        let (system, counter) = desk.open().await;
        assert_eq!(counter.call_with(2_u64, keyed("before")).await.unwrap().value, 2);
        desk.moody.turn(Mood::Full);
        // The acceptance cannot be written: nothing is done, and nothing is claimed.
        let error = counter.submit(3_u64, keyed("refused")).await.unwrap_err();
        assert_eq!(code(&error), Some("store"), "{error}");
        assert!(error.to_string().contains("no space left"), "{error}");
        assert_eq!(system.journaled("refused"), None);
        let error = counter.call_with(4_u64, keyed("called")).await.unwrap_err();
        assert_eq!(code(&error), Some("store"), "{error}");
        assert_eq!(system.journaled("called"), None);
        assert_eq!(desk.acts.load(Ordering::SeqCst), 0);
        let fates = system.fates();
        assert!(fates.is_balanced(), "{fates:?}");
        assert_eq!((fates.done, fates.failed), (1, 2));

        // There is room again: the same keys are taken, and the state is as it was.
        desk.moody.turn(Mood::Well);
        assert_eq!(counter.call_with(3_u64, keyed("refused")).await.unwrap().value, 5);
        let before = Some(Journaled::Fated(Fate::Done, Some("2".to_owned())));
        assert_eq!(system.journaled("before"), before);
    });
    runtime().block_on(async {
        let (system, counter) = desk.open().await;
        assert_eq!(counter.call(2_u64).await.unwrap().value, 7);
        let done = Some(Journaled::Fated(Fate::Done, Some("5".to_owned())));
        assert_eq!(system.journaled("refused"), done);
        assert_eq!(system.journaled("called"), None);
    });
}

/// Accepts a request, and has the store turn before the fate is written.
async fn turn_before_the_fate(desk: &Desk, counter: &Port<u64, u64>, mood: Mood) {
    // The acceptance waits, and the child with it.
    desk.moody.turn(Mood::Silent);
    counter.cast_with(2_u64, keyed("late").deadline(Duration::from_secs(600))).unwrap();
    desk.moody.held(1).await;
    desk.moody.turn(Mood::Well);
    desk.moody.turn(mood);
}

#[test]
fn a_fate_that_could_not_be_written_is_not_claimed() {
    let desk = Desk::new();
    runtime().block_on(async {
        let (system, counter) = desk.open().await;
        let mut events = system.events();
        turn_before_the_fate(&desk, &counter, Mood::Full).await;
        events.wait_for(|event| matches!(event, Event::Fated { .. })).await.unwrap();
        let fates = system.fates();
        assert_eq!((fates.accepted, fates.failed, fates.done), (1, 1, 0));
        // Neither the answer nor its failure is in the store: there it is open.
        assert_eq!(system.journaled("late"), Some(Journaled::Open));
        desk.moody.turn(Mood::Well);
    });
    runtime().block_on(async {
        let (system, counter) = desk.open().await;
        assert_eq!(counter.call(4_u64).await.unwrap().value, 6, "it was done by this process");
        let done = Some(Journaled::Fated(Fate::Done, Some("2".to_owned())));
        assert_eq!(system.journaled("late"), done);
    });
}

#[test]
fn a_fate_is_not_claimed_before_the_store_has_said_so() {
    let desk = Desk::new();
    runtime().block_on(async {
        let (system, counter) = desk.open().await;
        turn_before_the_fate(&desk, &counter, Mood::Silent).await;
        desk.moody.held(1).await;
        assert_eq!(system.journaled("late"), Some(Journaled::Open));
        assert_eq!(system.fates().open, 1);
        let mut events = system.events();
        desk.moody.turn(Mood::Well);
        events.wait_for(|event| matches!(event, Event::Fated { .. })).await.unwrap();
        let done = Some(Journaled::Fated(Fate::Done, Some("2".to_owned())));
        assert_eq!(system.journaled("late"), done);
        assert_eq!(system.fates().done, 1);
    });
}

/// Asks for what fails for good, and has the store fall silent before that is written down.
async fn fail_in_silence(
    desk: &Desk,
    counter: &Port<u64, u64>,
) -> JoinHandle<Result<Answer<u64>, CallError<u64>>> {
    desk.moody.turn(Mood::Silent);
    let counter = counter.clone();
    let options = keyed("hopeless").deadline(Duration::from_secs(600));
    let call = tokio::spawn(async move { counter.call_with(HOPELESS, options).await });
    desk.moody.held(1).await;
    desk.moody.turn(Mood::Well);
    desk.moody.turn(Mood::Silent);
    desk.moody.held(1).await;
    call
}

#[test]
fn a_failure_is_not_told_before_it_is_in_the_store() {
    let desk = Desk::new();
    runtime().block_on(async {
        let (system, counter) = desk.open().await;
        let began = system.clock().now();
        let mut events = system.events();
        let call = fail_in_silence(&desk, &counter).await;
        events.wait_for(|event| matches!(event, Event::Fated { .. })).await.unwrap();
        tokio::task::yield_now().await;
        assert!(!call.is_finished());
        assert_eq!(system.journaled("hopeless"), Some(Journaled::Open));
        desk.moody.turn(Mood::Well);
        let error = call.await.unwrap().unwrap_err();
        assert!(matches!(error, CallError::RecoveryExhausted { .. }), "{error:?}");
        assert_eq!(system.journaled("hopeless"), Some(Journaled::Fated(Fate::Failed, None)));
        assert_eq!(system.clock().now(), began, "nobody waited for more than the store");
    });
    runtime().block_on(async {
        let (system, _) = desk.open().await;
        assert_eq!(system.journaled("hopeless"), Some(Journaled::Fated(Fate::Failed, None)));
    });
}

#[test]
fn a_failure_that_the_store_does_not_take_is_told_by_the_deadline() {
    let desk = Desk::new();
    runtime().block_on(async {
        let (system, counter) = desk.open().await;
        let began = system.clock().now();
        let call = fail_in_silence(&desk, &counter).await;
        let error = call.await.unwrap().unwrap_err();
        assert!(matches!(error, CallError::RecoveryExhausted { .. }), "{error:?}");
        assert_eq!(system.clock().now().since(began), Duration::from_secs(600));
        assert_eq!(system.journaled("hopeless"), Some(Journaled::Open));
    });
}

#[test]
fn a_silent_store_ends_steps_by_their_limits_and_work_goes_on_when_it_answers() {
    let desk = Desk::new();
    runtime().block_on(async {
        let (system, counter) = desk.open().await;
        assert_eq!(counter.call(2_u64).await.unwrap().value, 2);
        let began = system.clock().now();
        let mut events = system.events();
        desk.moody.turn(Mood::Silent);
        let call = tokio::spawn({
            let counter = counter.clone();
            let options = keyed("silent").deadline(Duration::from_secs(30));
            async move { counter.call_with(3_u64, options).await }
        });
        // The attempt ends by its limit, with a fault that names the store.
        let failed = events.wait_for(|event| matches!(event, Event::Failed { .. })).await;
        let failed = failed.unwrap();
        assert_eq!(failed.at.since(began), Duration::from_secs(5));
        let text = format!("{:?}", failed.event);
        assert!(text.contains("store") && text.contains("imeout"), "{text}");
        // The tree can be looked at, and supervised, meanwhile.
        assert!(system.tree().to_string().contains("counter"));
        let root = system.supervisor("desk").unwrap();
        assert_eq!(root.count_children().await.unwrap().active, 2);
        root.restart_child("tool").await.unwrap_err();
        root.terminate_child("tool").await.unwrap();
        root.restart_child("tool").await.unwrap();
        let error = call.await.unwrap().unwrap_err();
        assert!(system.clock().now().since(began) <= Duration::from_secs(30));
        let named = error.trail().is_some_and(|trail| trail.to_string().contains("store"));
        assert!(named, "{error:?}");
        assert_eq!(desk.acts.load(Ordering::SeqCst), 0, "no act without its intent");
        assert!(system.fates().is_balanced());

        desk.moody.turn(Mood::Well);
        assert_eq!(counter.call(3_u64).await.unwrap().value, 5);
        assert_eq!(desk.acts.load(Ordering::SeqCst), 1);
        assert_eq!(system.stats().crashes, 0, "a store that hangs is no hang of the child");
    });
    runtime().block_on(async {
        let (_system, counter) = desk.open().await;
        assert_eq!(counter.call(2_u64).await.unwrap().value, 7);
    });
}

#[test]
fn an_intent_that_is_not_durable_in_time_is_no_act() {
    let desk = Desk::new();
    runtime().block_on(async {
        let (system, counter) = desk.open().await;
        // The acceptance and the state before the act are written, then there is silence.
        let mut events = system.events();
        desk.moody.silent_after(2);
        counter.cast_with(3_u64, keyed("act")).unwrap();
        let began = system.clock().now();
        let failed = events.wait_for(|event| matches!(event, Event::Failed { .. })).await;
        let failed = failed.unwrap();
        assert_eq!(failed.at.since(began), Duration::from_secs(30), "{:?}", failed.event);
        assert!(format!("{:?}", failed.event).contains("store"), "{:?}", failed.event);
        assert_eq!(desk.acts.load(Ordering::SeqCst), 0);
        desk.moody.turn(Mood::Well);
        assert_eq!(counter.call(2_u64).await.unwrap().value, 5);
        assert_eq!(desk.acts.load(Ordering::SeqCst), 1, "tried again, it acts once");
        let Some(Journaled::Fated(fate, _)) = system.journaled("act") else { panic!("it is lost") };
        assert_eq!(fate, Fate::Done);
    });
}

#[test]
fn a_store_that_answers_after_the_attempt_was_over_does_not_make_it_count_twice() {
    let desk = Desk::new();
    runtime().block_on(async {
        let (system, counter) = desk.open().await;
        let mut events = system.events();
        turn_before_the_fate(&desk, &counter, Mood::Silent).await;
        let failed = events.wait_for(|event| matches!(event, Event::Failed { .. })).await;
        assert!(format!("{:?}", failed.unwrap().event).contains("store"));
        desk.moody.turn(Mood::Well);
        events.wait_for(|event| matches!(event, Event::Fated { .. })).await.unwrap();
        let done = Some(Journaled::Fated(Fate::Done, Some("2".to_owned())));
        assert_eq!(system.journaled("late"), done);
        assert_eq!(counter.call(2_u64).await.unwrap().value, 4);
        assert_eq!(system.stats().failures.get(&Class::Timeout), Some(&1));
    });
    runtime().block_on(async {
        let (_system, counter) = desk.open().await;
        assert_eq!(counter.call(2_u64).await.unwrap().value, 6);
    });
}

/// So many requests write more than is left untidied.
const TIDIED_FROM: u32 = 2_100;

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_whoever_tidies_the_store() {
    let desk = Desk::new();
    let (system, counter) = desk.open().await;
    desk.moody.hold_tidying(true);
    for _ in 0..TIDIED_FROM {
        counter.call(2_u64).await.unwrap();
    }
    desk.moody.tidies().await;
    let stopping = tokio::spawn({
        let system = system.clone();
        async move { system.stop().await }
    });
    system.wait().await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!stopping.is_finished(), "somebody is at work on the store");
    desk.moody.hold_tidying(false);
    stopping.await.unwrap();
}

/// Nobody has let it do anything.
struct Barred;

impl Behavior for Barred {
    type Request = u64;
    type Reply = u64;
}

impl Stateless for Barred {
    async fn serve(&self, _: &u64, _: &Context) -> Result<u64, Fault> {
        Err(Fault::new(Class::Permission, "it is not allowed to"))
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_leaves_while_the_answer_of_a_person_is_written_leaves_one_fate() {
    let moody = Moody::new();
    let day = Duration::from_secs(86_400);
    let child = ChildSpec::stateless("barred", || Barred)
        .effect(EffectKind::Idempotent)
        .durable::<Barred>()
        .policy(Policy::playbook_exact())
        .deadline(day);
    let spec = SupervisorSpec::one_for_one("desk").child(child);
    let mut options = RecoverOptions::default();
    options.system = SystemOptions::new().points(PointSpec::everywhere(day / 24));
    let store = Arc::clone(&moody) as Arc<dyn Store>;
    let (system, _) = System::recover_with(spec, store, options).await.unwrap();
    let barred = system.port::<u64, u64>("desk/barred").unwrap();
    let mut events = system.events();
    let call = tokio::spawn(async move { barred.call_with(1_u64, keyed("k")).await });
    events.wait_for(|event| matches!(event, Event::PointOpened { .. })).await.unwrap();
    let shown = system.points().open().remove(0);
    moody.turn(Mood::Silent);
    system.points().answer(shown.id, 7_u64, "ada", "").unwrap();
    moody.held(1).await;
    call.abort();
    let _ = call.await;
    assert_eq!((system.fates().cancelled, system.fates().open), (1, 0));
    moody.turn(Mood::Well);
    while tokio::time::timeout(Duration::from_secs(1), events.next()).await.is_ok() {}
    assert_eq!(system.journaled("k"), Some(Journaled::Fated(Fate::Cancelled, None)));
    assert!(system.fates().is_balanced());
}
