//! An act of which nobody knows what came, and whose request another takes over, or is answered: it is asked about where
//! it can be, and waits for a person where it cannot.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use mainstay::behavior::{Behavior, Call, Context, PastAct, Stateful, Stateless, Step, Turn};
use mainstay::checkpoint::{MemoryStore, Store};
use mainstay::fate::Fate;
use mainstay::fault::{EffectKind, Fault};
use mainstay::journal::Journaled;
use mainstay::policy::Policy;
use mainstay::port::{CallOptions, Needs, Port, Verified};
use mainstay::spec::{ChildSpec, GroupSpec, SupervisorSpec};
use mainstay::system::System;
use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;

use super::take;

struct Case {
    kind: EffectKind,
    /// Whether the act has happened when the process ends.
    happens: bool,
    /// What the register says; `None` where it does not know.
    says: Option<bool>,
    has_question: bool,
    has_undo: bool,
    acts: AtomicU32,
    questions: AtomicU32,
    /// So often the tool does not answer.
    hangs: AtomicU32,
    hung: Notify,
    is_away: AtomicBool,
    /// How the second has begun, and how much it was told as kept and as unknown.
    begun: Mutex<Vec<(&'static str, usize, usize)>>,
    /// It is told, and may go on.
    told: Notify,
    goes_on: Notify,
}

impl Case {
    fn new(kind: EffectKind) -> Self {
        Self {
            kind,
            happens: false,
            says: None,
            has_question: false,
            has_undo: false,
            acts: AtomicU32::new(0),
            questions: AtomicU32::new(0),
            hangs: AtomicU32::new(1),
            hung: Notify::new(),
            is_away: AtomicBool::new(false),
            begun: Mutex::default(),
            told: Notify::new(),
            goes_on: Notify::new(),
        }
    }

    fn acts(&self) -> u32 {
        self.acts.load(Ordering::SeqCst)
    }

    fn questions(&self) -> u32 {
        self.questions.load(Ordering::SeqCst)
    }
}

#[derive(Clone)]
struct Till(Arc<Case>);

impl Behavior for Till {
    type Request = u32;
    type Reply = u32;
}

impl Stateless for Till {
    async fn serve(&self, due: &u32, _: &Context) -> Result<u32, Fault> {
        let hangs = take(&self.0.hangs);
        if !hangs || self.0.happens {
            self.0.acts.fetch_add(1, Ordering::SeqCst);
        }
        if hangs {
            self.0.hung.notify_one();
            std::future::pending::<()>().await;
        }
        Ok(due * 2)
    }
}

/// Asked whether it happened, and to undo it.
#[derive(Clone)]
struct Register(Arc<Case>);

impl Behavior for Register {
    type Request = u32;
    type Reply = Option<bool>;
}

impl Stateless for Register {
    async fn serve(&self, _: &u32, _: &Context) -> Result<Option<bool>, Fault> {
        self.0.questions.fetch_add(1, Ordering::SeqCst);
        Ok(self.0.says)
    }
}

fn needs() -> Needs {
    Needs::none().needs::<Port<u32, u32>>("till").needs::<Port<u32, Option<bool>>>("register")
}

fn pays(case: &Case, ctx: &Context) -> Result<Call, Fault> {
    let till = ctx.port::<u32, u32>("till")?;
    let mut effect = till.effect(7_u32);
    if case.has_undo {
        effect = effect.undo(&till, 8_u32);
    }
    if case.has_question {
        let register = ctx.port::<u32, Option<bool>>("register")?;
        effect = effect.verify(&register, 7_u32, |answer| match answer {
            Some(true) => Verified::Happened(14),
            Some(false) => Verified::NotHappened,
            None => Verified::CannotTell,
        });
    }
    Ok(effect.into())
}

#[derive(Clone)]
struct First(Arc<Case>);

impl Behavior for First {
    type Request = u32;
    type Reply = u32;

    fn needs() -> Needs {
        needs()
    }
}

impl Stateful for First {
    async fn step(&mut self, _: &u32, turn: Turn, ctx: &Context) -> Result<Step<u32>, Fault> {
        if self.0.is_away.load(Ordering::SeqCst) {
            return Err(Fault::exhausted("its model is away"));
        }
        match turn {
            // Whatever came of it.
            Turn::Performed(_) => Ok(Step::Reply(1)),
            _ => Ok(Step::Perform(vec![pays(&self.0, ctx)?])),
        }
    }
}

/// Pays in its second step, unless it is told of it.
#[derive(Clone)]
struct Second(Arc<Case>);

impl Behavior for Second {
    type Request = u32;
    type Reply = u32;

    fn needs() -> Needs {
        needs()
    }
}

impl Stateful for Second {
    async fn step(&mut self, _: &u32, turn: Turn, ctx: &Context) -> Result<Step<u32>, Fault> {
        let begins = |turn, kept, unknown| self.0.begun.lock().push((turn, kept, unknown));
        match turn {
            Turn::First => {
                begins("first", 0, 0);
                Ok(Step::Continue)
            }
            Turn::RolledBack(told) => {
                begins("rolled back", told.kept.len(), told.unknown.len());
                self.0.told.notify_one();
                self.0.goes_on.notified().await;
                Ok(Step::Reply(2))
            }
            Turn::Performed(performed) => {
                performed.get::<u32>(0)?;
                Ok(Step::Reply(2))
            }
            _ => Ok(Step::Perform(vec![pays(&self.0, ctx)?])),
        }
    }

    fn question(&self, act: &PastAct, ctx: &Context) -> Option<Call> {
        assert_eq!((act.tool.as_str(), &*act.request), ("desk/till", "7"));
        pays(&self.0, ctx).ok()
    }
}

fn spec(case: &Arc<Case>) -> SupervisorSpec {
    let (till, register) = (Till(Arc::clone(case)), Register(Arc::clone(case)));
    let (first, second) = (First(Arc::clone(case)), Second(Arc::clone(case)));
    let first =
        ChildSpec::stateful("first", move || first.clone()).policy(Policy::without_retries());
    let group = GroupSpec::step("flow")
        .member_spec(first)
        .member_spec(ChildSpec::stateful("second", move || second.clone()))
        .durable::<First>();
    let till = ChildSpec::stateless("till", move || till.clone());
    SupervisorSpec::one_for_one("desk")
        .child(till.effect(case.kind).recorded::<Till>())
        .child(ChildSpec::stateless("register", move || register.clone()).effect(EffectKind::Read))
        .group(group)
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

async fn has_its_fate(system: &System) {
    let mut events = system.events();
    while !matches!(system.journaled("k"), Some(Journaled::Fated(..))) {
        events.next().await.unwrap();
    }
    assert!(matches!(system.journaled("k"), Some(Journaled::Fated(Fate::Done, _))));
}

fn statuses(system: &System) -> Vec<&'static str> {
    system.effects().open().iter().map(|it| it.status).collect()
}

/// The process ends while the first pays, and in the next one the second takes over; what is listed for a person then,
/// and is so still in the one after that.
fn taken_over(case: &Arc<Case>) -> Vec<&'static str> {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let recover = || System::recover(spec(case), Arc::clone(&store));
    runtime().block_on(async {
        let (system, _) = recover().await.unwrap();
        let port = system.port::<u32, u32>("desk/flow").unwrap();
        port.submit(1_u32, CallOptions::new().key("k")).await.unwrap();
        case.hung.notified().await;
    });
    case.is_away.store(true, Ordering::SeqCst);
    let listed = runtime().block_on(async {
        let (system, _) = recover().await.unwrap();
        let told = async {
            case.told.notified().await;
            let listed = statuses(&system);
            case.goes_on.notify_one();
            listed
        };
        let told = tokio::select! {
            listed = told => Some(listed),
            () = has_its_fate(&system) => None,
        };
        has_its_fate(&system).await;
        let listed = statuses(&system);
        assert!(told.is_none_or(|told| told == listed), "while it is worked on, too");
        system.stop().await;
        listed
    });
    runtime().block_on(async {
        let (system, _) = recover().await.unwrap();
        assert_eq!(statuses(&system), listed, "it is not forgotten");
        for act in system.effects().open() {
            system.effects().did_not_happen(act.key).await.unwrap();
        }
        assert_eq!(statuses(&system), [""; 0]);
        system.stop().await;
    });
    listed
}

#[test]
fn its_question_is_asked_before_a_member_that_takes_over_is_told() {
    for (happens, says, begun, acts) in [
        (true, Some(true), ("rolled back", 1, 0), 1),
        (false, Some(false), ("first", 0, 0), 1),
        (true, None, ("rolled back", 0, 1), 1),
        (false, None, ("rolled back", 0, 1), 0),
    ] {
        let case = Case { happens, says, has_question: true, ..Case::new(EffectKind::Verifiable) };
        let case = Arc::new(case);
        let listed = taken_over(&case);
        assert_eq!(*case.begun.lock(), [begun], "{happens} {says:?}");
        assert_eq!((case.questions(), case.acts()), (1, acts), "{happens} {says:?}");
        let expected: &[&str] = if says.is_none() { &["unknown"] } else { &[] };
        assert_eq!(listed, expected, "{happens} {says:?}");
    }
}

#[test]
fn what_is_told_as_unknown_waits_for_a_person_unless_to_know_does_nobody_any_good() {
    use EffectKind::{Compensable, Idempotent, Irreversible, Verifiable};
    for (kind, has_undo, is_listed) in [
        (Idempotent, true, true),
        (Idempotent, false, false),
        (Verifiable, false, true),
        (Verifiable, true, true),
        (Compensable, true, true),
        (Irreversible, false, true),
    ] {
        // Of another kind nothing is asked.
        let has_question = kind != Verifiable;
        let case = Arc::new(Case { has_undo, has_question, happens: true, ..Case::new(kind) });
        let listed = taken_over(&case);
        assert_eq!(*case.begun.lock(), [("rolled back", 0, 1)], "{kind:?}");
        assert_eq!((case.questions(), case.acts()), (0, 1), "{kind:?}");
        assert_eq!(listed.len(), usize::from(is_listed), "{kind:?} {has_undo}");
    }
}

/// No process has ended.
#[tokio::test(start_paused = true)]
async fn what_a_request_is_answered_without_waits_for_a_person_too() {
    for (has_undo, is_listed) in [(true, true), (false, false)] {
        let case = Arc::new(Case { has_undo, ..Case::new(EffectKind::Idempotent) });
        case.hangs.store(u32::MAX, Ordering::SeqCst);
        let system = System::start(spec_of_one(&case)).await.unwrap();
        let port = system.port::<u32, u32>("desk/first").unwrap();
        assert_eq!(port.call(1_u32).await.unwrap().value, 1);
        assert_eq!(statuses(&system).len(), usize::from(is_listed));
        system.stop().await;
    }
}

fn spec_of_one(case: &Arc<Case>) -> SupervisorSpec {
    let (till, register) = (Till(Arc::clone(case)), Register(Arc::clone(case)));
    let first = First(Arc::clone(case));
    let till = ChildSpec::stateless("till", move || till.clone());
    SupervisorSpec::one_for_one("desk")
        .child(till.effect(case.kind).recorded::<Till>())
        .child(ChildSpec::stateless("register", move || register.clone()).effect(EffectKind::Read))
        .child(ChildSpec::stateful("first", move || first.clone()))
}
