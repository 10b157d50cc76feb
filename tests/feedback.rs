//! What was wrong with an answer reaches whoever answers next.

use std::sync::Arc;

use mainstay::behavior::{Behavior, Context, Stateful, Stateless, Step, Turn};
use mainstay::error::CallError;
use mainstay::fault::{Class, EffectKind, Fault};
use mainstay::policy::Policy;
use mainstay::spec::{ChildSpec, GroupSpec, SupervisorSpec};
use mainstay::system::System;
use parking_lot::Mutex;

/// What each attempt was told.
type Told = Arc<Mutex<Vec<Option<String>>>>;

/// Fails attempt after attempt with these faults, then answers.
#[derive(Clone)]
struct Writer {
    faults: Vec<Fault>,
    told: Told,
}

impl Writer {
    fn attempt(&self, ctx: &Context) -> Result<u32, Fault> {
        self.told.lock().push(ctx.feedback().map(str::to_owned));
        let attempt = ctx.attempt();
        match self.faults.get(attempt as usize - 1) {
            Some(fault) => Err(fault.clone()),
            None => Ok(attempt),
        }
    }
}

impl Behavior for Writer {
    type Request = ();
    type Reply = u32;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
}

impl Stateless for Writer {
    async fn serve(&self, (): &(), ctx: &Context) -> Result<u32, Fault> {
        self.attempt(ctx)
    }
}

impl Stateful for Writer {
    async fn step(&mut self, (): &(), _: Turn, ctx: &Context) -> Result<Step<u32>, Fault> {
        self.attempt(ctx).map(Step::Reply)
    }
}

fn invalid(feedback: &str) -> Fault {
    Fault::output_invalid("it does not compile").with_feedback(feedback)
}

fn writer(faults: Vec<Fault>, told: &Told) -> Writer {
    Writer { faults, told: Arc::clone(told) }
}

fn told(told: &Told) -> Vec<Option<String>> {
    std::mem::take(&mut *told.lock())
}

fn some(texts: &[Option<&str>]) -> Vec<Option<String>> {
    texts.iter().map(|text| text.map(str::to_owned)).collect()
}

/// The answer of one writer alone, and what its attempts were told.
async fn alone(
    stateful: bool,
    faults: Vec<Fault>,
) -> (Result<u32, CallError<()>>, Vec<Option<String>>) {
    let notes = Told::default();
    let writer = writer(faults, &notes);
    let spec = if stateful {
        ChildSpec::stateful("writer", move || writer.clone())
    } else {
        ChildSpec::stateless("writer", move || writer.clone())
    };
    let root = SupervisorSpec::one_for_one("root").child(spec.policy(Policy::code_generation()));
    let system = System::start(root).await.unwrap();
    let port = system.port::<(), u32>("root/writer").unwrap();
    let answer = port.call(()).await.map(|answer| answer.value);
    system.stop().await;
    (answer, told(&notes))
}

#[tokio::test(start_paused = true)]
async fn an_invalid_output_is_generated_again_at_most_twice_with_feedback() {
    for stateful in [false, true] {
        let faults = vec![invalid("line 1"), invalid("line 2")];
        let (answer, notes) = alone(stateful, faults.clone()).await;
        assert_eq!(answer.unwrap(), 3);
        assert_eq!(notes, some(&[None, Some("line 1"), Some("line 2")]));

        let (answer, notes) = alone(stateful, [faults, vec![invalid("line 3")]].concat()).await;
        let Err(CallError::RecoveryExhausted { fault, .. }) = answer else { panic!("{answer:?}") };
        assert_eq!(fault.class, Class::OutputInvalid);
        assert_eq!(notes.len(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_feedback_again_or_none_is_no_reason_to_generate_again() {
    let (answer, notes) = alone(false, vec![invalid("line 1"), invalid("line 1")]).await;
    assert!(answer.is_err());
    assert_eq!(notes, some(&[None, Some("line 1")]));
    for silent in [Fault::output_invalid("it does not compile"), invalid("")] {
        let (answer, notes) = alone(false, vec![silent]).await;
        assert!(answer.is_err());
        assert_eq!(notes, some(&[None]));
    }
}

#[tokio::test(start_paused = true)]
async fn feedback_outlasts_failures_that_say_nothing() {
    let faults = vec![invalid("line 1"), Fault::network("reset")];
    let (answer, notes) = alone(true, faults).await;
    assert_eq!(answer.unwrap(), 3);
    assert_eq!(notes, some(&[None, Some("line 1"), Some("line 1")]));
}

#[tokio::test(start_paused = true)]
async fn a_substitute_hears_what_was_wrong_and_the_next_request_does_not() {
    let notes = Told::default();
    let faults = |from: u32| (from..from + 3).map(|n| invalid(&format!("line {n}"))).collect();
    let (first, second) = (writer(faults(1), &notes), writer(vec![], &notes));
    let group = GroupSpec::step("writers")
        .member_spec(
            ChildSpec::stateless("first", move || first.clone()).policy(Policy::code_generation()),
        )
        .member_spec(ChildSpec::stateless("second", move || second.clone()));
    let system = System::start(SupervisorSpec::one_for_one("root").group(group)).await.unwrap();
    let port = system.port::<(), u32>("root/writers").unwrap();
    for _ in 0..2 {
        let answer = port.call(()).await.unwrap();
        assert_eq!((answer.value, &answer.served_by), (4, &"root/writers/second".into()));
        let lines = some(&[None, Some("line 1"), Some("line 2"), Some("line 3")]);
        assert_eq!(told(&notes), lines);
    }
}

#[test]
fn feedback_is_in_no_debug_text() {
    let fault = invalid("a secret of the user");
    assert!(!format!("{fault:?} {fault}").contains("secret"), "{fault:?}");
}
