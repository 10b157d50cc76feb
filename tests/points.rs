//! Where a person may decide what becomes of a request: who is asked, for how long, and what comes of
//! each thing that can be said.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use mainstay::behavior::{Behavior, Context, Stateful, Stateless, Step, Turn};
use mainstay::checkpoint::{Snapshot, Store};
use mainstay::decision::{Action, Rung};
use mainstay::error::{CallError, CheckpointError};
use mainstay::event::{Event, EventStream};
use mainstay::fate::{Answer, Fate};
use mainstay::fault::{Class, EffectKind, Fault};
use mainstay::journal::Journaled;
use mainstay::moment::Moment;
use mainstay::points::{Choice, Point, PointError, PointSpec};
use mainstay::policy::Policy;
use mainstay::port::{CallOptions, Needs, Port};
use mainstay::spec::{ChildSpec, GroupSpec, SupervisorSpec};
use mainstay::system::{RecoverOptions, System, SystemOptions};
use mainstay_actors::scripted::{Script, Scripted};
use tokio::task::JoinHandle;

use moody::{Mood, Moody};

#[path = "common/moody.rs"]
mod moody;

type Texts = Port<String, String>;
type Outcome = Result<Answer<String>, CallError<String>>;

const HOUR: Duration = Duration::from_secs(3600);

fn echo() -> Script {
    Script::echo()
}

fn ms(millis: u64) -> Moment {
    Moment::from_millis(millis)
}

async fn start(spec: SupervisorSpec, points: PointSpec) -> System {
    System::start_with(spec, SystemOptions::new().points(points)).await.unwrap()
}

/// A group `root/llm` of two, and where it is asked.
async fn pair(first: &Script, second: &Script, points: PointSpec) -> (System, Texts) {
    let member =
        |script: &Script, id| script.stateless(id).policy(Policy::playbook_exact()).concurrency(8);
    let group = GroupSpec::model("llm")
        .member_spec(member(first, "first"))
        .member_spec(member(second, "second"))
        .deadline(24 * HOUR);
    let system = start(SupervisorSpec::one_for_one("root").group(group), points).await;
    let port = system.port("root/llm").unwrap();
    (system, port)
}

/// A child `root/it`, and where it is asked.
async fn alone(script: &Script, points: PointSpec) -> (System, Texts) {
    let child = script.stateless("it").policy(Policy::playbook_exact()).deadline(24 * HOUR);
    let system = start(SupervisorSpec::one_for_one("root").child(child), points).await;
    let port = system.port("root/it").unwrap();
    (system, port)
}

fn call(port: &Texts) -> JoinHandle<Outcome> {
    let port = port.clone();
    tokio::spawn(async move { port.call("x").await })
}

/// The same over a store, as the durable child `root/it`.
async fn durable(script: &Script, store: Arc<dyn Store>) -> (System, Texts) {
    let child = script.stateless("it").durable::<Scripted<String, String>>();
    let child = child.policy(Policy::playbook_exact()).deadline(24 * HOUR);
    let mut options = RecoverOptions::default();
    options.system = SystemOptions::new().points(PointSpec::everywhere(HOUR));
    let spec = SupervisorSpec::one_for_one("root").child(child);
    let (system, _) = System::recover_with(spec, store, options).await.unwrap();
    let port = system.port("root/it").unwrap();
    (system, port)
}

async fn opened(events: &mut EventStream) -> (Moment, Event) {
    let stamped = events.wait_for(|event| matches!(event, Event::PointOpened { .. })).await;
    let stamped = stamped.unwrap();
    (stamped.at, stamped.event)
}

/// Waits for the next point.
async fn point(system: &System, events: &mut EventStream) -> Point {
    opened(events).await;
    let open = system.points().open();
    assert_eq!(open.len(), 1, "{open:?}");
    open[0].clone()
}

async fn closed(events: &mut EventStream) -> (&'static str, bool) {
    let stamped = events.wait_for(|event| matches!(event, Event::PointClosed { .. })).await;
    match stamped.unwrap().event {
        Event::PointClosed { decision, by_person, .. } => (decision, by_person),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_unless_it_is_said() {
    let (first, second) = (echo(), echo());
    first.otherwise_fail(Class::Network);
    second.otherwise_fail(Class::Network);
    let (system, port) = pair(&first, &second, PointSpec::new()).await;
    let mut events = system.events();
    port.call("x").await.unwrap_err();
    assert_eq!(system.clock().now(), ms(7_000));
    while let Some(stamped) = events.try_next() {
        assert!(!matches!(stamped.event, Event::PointOpened { .. }), "{stamped:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_retry_waits_for_a_person_and_goes_on_when_nobody_decides() {
    let (first, second) = (echo(), echo());
    first.otherwise_fail(Class::Network);
    let points = PointSpec::new().after_retry(Duration::from_secs(60));
    let (system, port) = pair(&first, &second, points).await;
    let mut events = system.events();
    let called = call(&port);
    let shown = point(&system, &mut events).await;
    assert_eq!((shown.after, shown.proposed), (Some(Rung::Retry), "substitute"));
    assert_eq!((shown.since, shown.until), (ms(7_000), ms(67_000)));
    assert_eq!((shown.child.as_str(), shown.class), ("root/llm/first", Some(Class::Network)));
    assert_eq!(shown.trail.0.len(), 4);
    let second_one = Choice::Substitute("root/llm/second".into());
    let all = [Choice::Continue, Choice::Abort, Choice::RetryAgain, second_one];
    assert_eq!(shown.choices, all);
    assert_eq!(system.fates().open, 1);
    assert_eq!(closed(&mut events).await, ("continue", false));
    let answer = called.await.unwrap().unwrap();
    assert_eq!(answer.served_by.as_str(), "root/llm/second");
    assert_eq!(system.clock().now(), ms(67_000));
    assert!(system.points().open().is_empty());
    let log = system.points().log();
    assert_eq!((log.len(), log[0].what, &log[0].by), (1, "continue", &None));
    assert!(system.fates().is_balanced());
}

#[tokio::test(start_paused = true)]
async fn what_a_person_says_is_done_at_once() {
    for (choice, served) in [
        (Choice::Continue, Some("root/llm/second")),
        (Choice::Abort, None),
        (Choice::RetryAgain, Some("root/llm/first")),
    ] {
        let (first, second) = (echo(), echo());
        for _ in 0..4 {
            first.then_fail(Class::Network);
        }
        let (system, port) = pair(&first, &second, PointSpec::everywhere(HOUR)).await;
        let mut events = system.events();
        let called = call(&port);
        let shown = point(&system, &mut events).await;
        system.points().decide(shown.id, choice.clone(), "ada", "seen it before").unwrap();
        let again = system.points().decide(shown.id, choice.clone(), "bob", "");
        assert_eq!(again, Err(PointError::NotOpen(shown.id)), "a point is decided once");
        assert_eq!(closed(&mut events).await, (choice.name(), true));
        match (called.await.unwrap(), served) {
            (Ok(answer), Some(served)) => assert_eq!(answer.served_by.as_str(), served),
            (Err(CallError::RecoveryExhausted { trail, .. }), None) => {
                assert_eq!((trail.0.len(), second.count()), (4, 0));
                assert_eq!(trail.0[3].action.name(), "fail", "what was done, not proposed");
            }
            (outcome, _) => panic!("{choice:?}: {outcome:?}"),
        }
        assert_eq!(system.clock().now(), ms(7_000), "nothing waited for longer");
        let log = system.points().log();
        assert_eq!((log.len(), log[0].what), (1, choice.name()));
        assert_eq!((log[0].by.as_deref(), &*log[0].why), (Some("ada"), "seen it before"));
        let fates = system.fates();
        assert!(fates.is_balanced() && fates.open == 0, "{fates:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_person_answers_in_the_place_of_the_child() {
    for grouped in [false, true] {
        let (first, second) = (echo(), echo());
        first.otherwise_fail(Class::Network);
        let points = PointSpec::new().after_retry(HOUR);
        let (system, port) = match grouped {
            true => pair(&first, &second, points).await,
            false => alone(&first, points).await,
        };
        let mut events = system.events();
        let called = call(&port);
        let shown = point(&system, &mut events).await;
        let wrong = system.points().answer(shown.id, 7_u32, "ada", "").unwrap_err();
        let text =
            format!("point {} takes an answer of type alloc::string::String, not u32", shown.id);
        assert_eq!(wrong.to_string(), text);
        system.points().answer(shown.id, "by hand".to_owned(), "ada", "I know it").unwrap();
        assert_eq!(closed(&mut events).await, ("answer", true));
        let answer = called.await.unwrap().unwrap();
        assert_eq!((&*answer.value, answer.degraded, answer.attempts), ("by hand", true, 4));
        assert_eq!(answer.trail.0.len(), 4);
        assert_eq!(second.count(), 0);
        let fates = system.fates();
        assert_eq!((fates.done, fates.open), (1, 0), "{fates:?}");
        assert!(fates.is_balanced());
        let metrics = system.metrics();
        assert_eq!(metrics.recovery.recovered, 0, "the ladder has not done it");
        assert_eq!(metrics.fallback.entered, 0, "it was handed to no sibling");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_person_answers_for_a_durable_request_is_in_the_store_before_it_is_heard() {
    let moody = Moody::new();
    let script = echo();
    script.otherwise_fail(Class::Permission);
    {
        let (system, port) = durable(&script, Arc::clone(&moody) as Arc<dyn Store>).await;
        let mut events = system.events();
        let asked = |key| {
            let port = port.clone();
            tokio::spawn(async move { port.call_with("x", CallOptions::new().key(key)).await })
        };
        // As long as the store does not answer, nobody hears of it.
        let slow = asked("slow");
        let shown = point(&system, &mut events).await;
        moody.turn(Mood::Silent);
        system.points().answer(shown.id, "mine".to_owned(), "ada", "").unwrap();
        moody.held(1).await;
        assert_eq!((slow.is_finished(), system.fates().open), (false, 1));
        assert_eq!(system.journaled("slow"), Some(Journaled::Open));
        moody.turn(Mood::Well);
        assert_eq!(slow.await.unwrap().unwrap().value, "mine");
        assert_eq!(closed(&mut events).await, ("answer", true));
        // One that cannot be kept is as if nobody had said it.
        let refused = asked("refused");
        let shown = point(&system, &mut events).await;
        moody.turn(Mood::Full);
        system.points().answer(shown.id, "mine".to_owned(), "ada", "").unwrap();
        assert_eq!(closed(&mut events).await, ("continue", false));
        refused.await.unwrap().unwrap_err();
        moody.turn(Mood::Well);
        // And nobody waits for the store for longer than an attempt may take.
        let never = asked("never");
        let shown = point(&system, &mut events).await;
        moody.turn(Mood::Silent);
        system.points().answer(shown.id, "mine".to_owned(), "ada", "").unwrap();
        assert_eq!(closed(&mut events).await, ("continue", false));
        never.await.unwrap().unwrap_err();
        moody.turn(Mood::Full);
        assert!(system.fates().is_balanced());
    }
    moody.turn(Mood::Well);
    let (system, _) = durable(&script, moody as Arc<dyn Store>).await;
    let reply = Some(Journaled::Fated(Fate::Done, Some("\"mine\"".to_owned())));
    assert_eq!(system.journaled("slow"), reply);
    assert_ne!(system.journaled("refused"), reply);
}

#[tokio::test(start_paused = true)]
async fn a_failed_fallback_and_a_failed_retry_are_points_of_their_own() {
    let (first, second) = (echo(), echo());
    first.otherwise_fail(Class::Network);
    second.otherwise_fail(Class::ModelUnavailable);
    let (system, port) = pair(&first, &second, PointSpec::everywhere(HOUR)).await;
    let mut events = system.events();
    let called = call(&port);
    let shown = point(&system, &mut events).await;
    system.points().decide(shown.id, Choice::Continue, "ada", "").unwrap();
    let shown = point(&system, &mut events).await;
    assert_eq!((shown.after, shown.proposed), (Some(Rung::Substitute), "fail"));
    assert_eq!(shown.child.as_str(), "root/llm/second");
    // Once more, and it fails again: nobody is asked the same twice.
    system.points().decide(shown.id, Choice::RetryAgain, "ada", "").unwrap();
    called.await.unwrap().unwrap_err();
    assert_eq!(second.count(), 2);
    assert_eq!(system.points().log().len(), 2);
    // Only this rung.
    let (system, port) = pair(&first, &second, PointSpec::new().after_substitute(HOUR)).await;
    let mut events = system.events();
    let called = call(&port);
    assert_eq!(point(&system, &mut events).await.after, Some(Rung::Substitute));
    assert_eq!(closed(&mut events).await, ("continue", false));
    called.await.unwrap().unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn what_is_done_without_anybody_can_be_chosen() {
    let (first, second) = (echo(), echo());
    first.otherwise_fail(Class::Network);
    for (otherwise, asked) in [(Choice::Abort, 0), (Choice::Continue, 1), (Choice::RetryAgain, 1)] {
        let before = second.count();
        let points = PointSpec::new().after_retry(HOUR).otherwise(otherwise.clone());
        let (system, port) = pair(&first, &second, points).await;
        let mut events = system.events();
        let called = call(&port);
        assert_eq!(closed(&mut events).await, (otherwise.name(), false));
        let outcome = called.await.unwrap();
        assert_eq!(outcome.is_ok(), asked == 1, "{otherwise:?}: {outcome:?}");
        assert_eq!(second.count() - before, asked);
    }
    assert_eq!(first.count(), 4 + 4 + 5);
}

#[tokio::test(start_paused = true)]
async fn a_repeat_that_is_not_safe_is_not_offered() {
    let script = echo();
    script.then_fail(Class::RateLimit);
    script.otherwise_fail(Class::ToolExecution);
    let child = script.stateless("it").deadline(24 * HOUR).effect(EffectKind::Irreversible);
    let root = SupervisorSpec::one_for_one("root").policy(Policy::playbook_exact()).child(child);
    let points = PointSpec::new().after_retry(HOUR);
    let system = start(root, points).await;
    let port = system.port("root/it").unwrap();
    let mut events = system.events();
    let called = call(&port);
    let shown = point(&system, &mut events).await;
    assert_eq!(shown.choices, [Choice::Continue, Choice::Abort]);
    let refused = system.points().decide(shown.id, Choice::RetryAgain, "ada", "").unwrap_err();
    assert_eq!(refused.to_string(), format!("point {} does not offer retry_again", shown.id));
    assert_eq!(system.points().open().len(), 1, "it still waits");
    system.points().decide(shown.id, Choice::Abort, "ada", "").unwrap();
    called.await.unwrap().unwrap_err();
    assert_eq!(script.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_person_has_at_most_half_of_the_time_that_is_left() {
    let (first, second) = (echo(), echo());
    first.otherwise_fail(Class::Network);
    let (system, port) = pair(&first, &second, PointSpec::everywhere(HOUR)).await;
    let mut events = system.events();
    let options = CallOptions::new().deadline(Duration::from_secs(27));
    let called = tokio::spawn(async move { port.call_with("x".to_owned(), options).await });
    let shown = point(&system, &mut events).await;
    assert_eq!(shown.until, ms(17_000));
    assert_eq!(called.await.unwrap().unwrap().served_by.as_str(), "root/llm/second");
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_leaves_and_a_system_that_stops_take_the_point_along() {
    for stops in [false, true] {
        let script = echo();
        script.otherwise_fail(Class::Network);
        let (system, port) = alone(&script, PointSpec::everywhere(HOUR)).await;
        let mut events = system.events();
        let called = call(&port);
        let shown = point(&system, &mut events).await;
        if stops {
            system.stop().await;
            let error = called.await.unwrap().unwrap_err();
            assert!(matches!(error, CallError::Stopped { .. }), "{error}");
        } else {
            called.abort();
            events.wait_for(|event| matches!(event, Event::Fated { .. })).await.unwrap();
        }
        assert!(system.points().open().is_empty());
        let late = system.points().decide(shown.id, Choice::Continue, "ada", "");
        assert_eq!(late, Err(PointError::NotOpen(shown.id)));
        let fates = system.fates();
        assert_eq!((fates.stopped, fates.cancelled), (u64::from(stops), u64::from(!stops)));
        assert!(fates.is_balanced() && fates.open == 0, "{fates:?}");
        assert_eq!(script.count(), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn others_go_on_while_one_waits_and_a_stateful_child_keeps_its_place() {
    let script = echo();
    for _ in 0..4 {
        script.then_fail(Class::Network);
    }
    let (system, port) = alone(&script, PointSpec::everywhere(HOUR)).await;
    let mut events = system.events();
    let called = call(&port);
    let shown = point(&system, &mut events).await;
    assert_eq!(port.call("another").await.unwrap().value, "another");
    system.points().decide(shown.id, Choice::RetryAgain, "ada", "").unwrap();
    assert_eq!(called.await.unwrap().unwrap().value, "x");
    // A stateful child does one after the other, and what waits for a person is the one it does.
    let script = echo();
    for _ in 0..4 {
        script.then_fail(Class::Network);
    }
    let child = script.stateful("it").policy(Policy::playbook_exact());
    let spec = SupervisorSpec::one_for_one("root").child(child);
    let system = start(spec, PointSpec::everywhere(HOUR)).await;
    let port: Texts = system.port("root/it").unwrap();
    let mut events = system.events();
    let first = call(&port);
    let shown = point(&system, &mut events).await;
    let second = tokio::spawn(async move { port.call("second").await });
    tokio::task::yield_now().await;
    assert_eq!(script.count(), 4);
    system.points().decide(shown.id, Choice::RetryAgain, "ada", "").unwrap();
    assert_eq!(first.await.unwrap().unwrap().value, "x");
    assert_eq!(second.await.unwrap().unwrap().value, "second");
}

/// A group `root/llm` of three, where the first names the others in this order.
async fn three(scripts: [&Script; 3], points: PointSpec) -> (System, Texts) {
    let mut group = GroupSpec::model("llm").deadline(24 * HOUR).allow("first", ["second", "third"]);
    for (script, id) in scripts.into_iter().zip(["first", "second", "third"]) {
        group = group.member_spec(script.stateless(id).policy(Policy::playbook_exact()));
    }
    let system = start(SupervisorSpec::one_for_one("root").group(group), points).await;
    let port = system.port("root/llm").unwrap();
    (system, port)
}

fn member(id: &str) -> Choice {
    Choice::Substitute(format!("root/llm/{id}").into())
}

#[tokio::test(start_paused = true)]
async fn a_person_chooses_a_member_of_the_allow_list_and_no_other() {
    let (first, second, third) = (echo(), echo(), echo());
    first.otherwise_fail(Class::Network);
    let (system, port) = three([&first, &second, &third], PointSpec::everywhere(HOUR)).await;
    let mut events = system.events();
    let called = call(&port);
    let shown = point(&system, &mut events).await;
    assert!(shown.choices.ends_with(&[member("second"), member("third")]), "{:?}", shown.choices);
    for stranger in ["first", "fourth"] {
        let refused = system.points().decide(shown.id, member(stranger), "ada", "").unwrap_err();
        let text = format!("point {} does not offer substitute root/llm/{stranger}", shown.id);
        assert_eq!(refused.to_string(), text);
    }
    system.points().decide(shown.id, member("third"), "ada", "it speaks Dutch").unwrap();
    assert_eq!(closed(&mut events).await, ("substitute", true));
    let answer = called.await.unwrap().unwrap();
    assert_eq!((answer.served_by.id(), answer.degraded, second.count()), ("third", true, 0));
    let last = answer.trail.0.last().unwrap();
    assert_eq!(last.action, Action::Substitute { member: 2 }, "what was done, not proposed");
    assert_eq!(system.points().log()[0].what, "substitute");
    assert!(system.fates().is_balanced());
    // Without anybody, the same can be done.
    let points = PointSpec::everywhere(HOUR).otherwise(member("third"));
    let (_system, port) = three([&first, &second, &third], points).await;
    assert_eq!(port.call("x").await.unwrap().served_by.id(), "third");
    assert_eq!(second.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_was_taken_out_while_a_person_chose_it_is_passed_over() {
    let (first, second, third) = (echo(), echo(), echo());
    first.otherwise_fail(Class::Network);
    let (system, port) = three([&first, &second, &third], PointSpec::everywhere(HOUR)).await;
    let mut events = system.events();
    let called = call(&port);
    let shown = point(&system, &mut events).await;
    system.isolate("root/llm/third").unwrap();
    system.points().decide(shown.id, member("third"), "ada", "").unwrap();
    assert_eq!(closed(&mut events).await, ("continue", true));
    assert_eq!(called.await.unwrap().unwrap().served_by.id(), "second");
    assert_eq!(third.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_no_rung_may_help_is_asked_about_at_once() {
    for class in [Class::Permission, Class::InputValidation] {
        let (first, second) = (echo(), echo());
        first.then_fail(class);
        let (system, port) = pair(&first, &second, PointSpec::new().at_once(HOUR)).await;
        let mut events = system.events();
        let called = call(&port);
        let shown = point(&system, &mut events).await;
        assert_eq!((shown.after, shown.proposed, shown.class), (None, "fail", Some(class)));
        assert_eq!(shown.since, ms(0));
        let choices = [Choice::Continue, Choice::Abort, Choice::RetryAgain];
        assert_eq!(shown.choices, choices, "no sibling gets what {class} forbids");
        // The key was renewed, or the input is taken after all.
        system.points().decide(shown.id, Choice::RetryAgain, "ada", "renewed").unwrap();
        assert_eq!(called.await.unwrap().unwrap().served_by.id(), "first");
        // Nobody has time: it fails as it would have, and somebody is alerted.
        first.then_fail(class);
        let called = call(&port);
        assert_eq!(point(&system, &mut events).await.after, None);
        assert_eq!(closed(&mut events).await, ("continue", false));
        called.await.unwrap().unwrap_err();
        assert_eq!(system.stats().alerts, 1);
        // Others do not wait.
        let (system, port) = pair(&first, &second, PointSpec::new().at_once(HOUR)).await;
        first.then_fail(Class::ModelUnavailable);
        port.call("x").await.unwrap();
        assert_eq!(system.clock().now(), ms(0));
    }
}

/// A child whose effect may have happened and may not be repeated.
async fn unsure(script: &Script, points: PointSpec) -> (System, Texts) {
    script.then_fail(Class::Timeout);
    let child = script.stateless("it").deadline(24 * HOUR).effect(EffectKind::Irreversible);
    let root = SupervisorSpec::one_for_one("root").policy(Policy::playbook_exact()).child(child);
    let system = start(root, points).await;
    let port = system.port("root/it").unwrap();
    (system, port)
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_waits_for_the_word_of_a_person_and_is_never_said_to_have_failed() {
    let script = echo();
    let points = PointSpec::everywhere(HOUR).otherwise(Choice::Abort);
    let (system, port) = unsure(&script, points.clone()).await;
    let mut events = system.events();
    let called = call(&port);
    let shown = point(&system, &mut events).await;
    assert_eq!((shown.after, shown.proposed), (None, "hold_unknown"));
    assert_eq!(shown.choices, [Choice::Continue]);
    for choice in [Choice::Abort, Choice::RetryAgain, Choice::RollBack] {
        let refused = system.points().decide(shown.id, choice.clone(), "ada", "").unwrap_err();
        assert_eq!(refused, PointError::NotOffered { point: shown.id, choice });
    }
    system.points().answer(shown.id, "it did".to_owned(), "ada", "the books say so").unwrap();
    assert_eq!(called.await.unwrap().unwrap().value, "it did");
    assert_eq!(system.fates().done, 1);
    // Nobody in time, a caller who leaves, a system that stops: it stays unknown.
    for end in ["nobody", "caller", "system"] {
        let (system, port) = unsure(&script, points.clone()).await;
        let mut events = system.events();
        let called = call(&port);
        point(&system, &mut events).await;
        match end {
            "caller" => called.abort(),
            "system" => system.stop().await,
            _ => assert_eq!(closed(&mut events).await, ("continue", false)),
        }
        if end == "caller" {
            events.wait_for(|event| matches!(event, Event::Fated { .. })).await.unwrap();
        } else {
            let error = called.await.unwrap().unwrap_err();
            assert!(matches!(error, CallError::Unknown { .. }), "{end}: {error}");
        }
        let fates = system.fates();
        assert_eq!((fates.unknown, fates.open), (1, 0), "{end}: {fates:?}");
        assert!(fates.is_balanced());
    }
    assert_eq!(script.count(), 4, "nothing was done twice");
}

/// Asks its child within its own request.
#[derive(Clone)]
struct Asks;

impl Behavior for Asks {
    type Request = String;
    type Reply = String;

    fn needs() -> Needs {
        Needs::none().needs::<Texts>("it")
    }
}

impl Stateless for Asks {
    async fn serve(&self, text: &String, ctx: &Context) -> Result<String, Fault> {
        Ok(ctx.port::<String, String>("it")?.call(text.clone()).await?.value)
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_permission_alerts_where_it_is_missing_also_within_a_request() {
    for (class, expected) in [
        (Class::Permission, &["root/it", "root/outer"][..]),
        (Class::InputValidation, &["root/outer"]),
    ] {
        let script = echo();
        script.otherwise_fail(class);
        let root = SupervisorSpec::one_for_one("root")
            .child(script.stateless("it"))
            .child(ChildSpec::stateless("outer", || Asks));
        let system = start(root, PointSpec::new()).await;
        let port: Texts = system.port("root/outer").unwrap();
        let mut events = system.events();
        port.call("x").await.unwrap_err();
        let mut alerted = Vec::new();
        while let Some(stamped) = events.try_next() {
            if let Event::Alert { child, .. } = stamped.event {
                alerted.push(child.to_string());
            }
        }
        assert_eq!(alerted, expected, "{class}");
    }
}

/// Counts its steps, and lacks a permission in the second until it is given.
#[derive(Clone, Default)]
struct Walks {
    steps: Arc<u32>,
    allowed: Arc<AtomicBool>,
}

impl Behavior for Walks {
    type Request = String;
    type Reply = String;
}

impl Stateful for Walks {
    async fn step(&mut self, _: &String, turn: Turn, _: &Context) -> Result<Step<String>, Fault> {
        if *self.steps == 1 && !self.allowed.load(Ordering::Relaxed) {
            return Err(Fault::permission("not yours"));
        }
        self.steps = Arc::new(*self.steps + 1);
        let back = matches!(turn, Turn::RolledBack(_));
        match (back, *self.steps) {
            (_, 3) => Ok(Step::Reply("walked".to_owned())),
            _ => Ok(Step::Continue),
        }
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("walks", 1).with("steps", Arc::clone(&self.steps)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.steps = snapshot.get("steps")?;
        Ok(())
    }
}

/// Counts its steps in a life that nobody keeps, and fails in the third until it is mended.
#[derive(Clone)]
struct Forgets {
    steps: u32,
    mended: Arc<AtomicBool>,
    /// How often a request was begun, in all lives.
    begun: Arc<AtomicU32>,
}

impl Behavior for Forgets {
    type Request = String;
    type Reply = String;
}

impl Stateful for Forgets {
    async fn step(&mut self, _: &String, turn: Turn, _: &Context) -> Result<Step<String>, Fault> {
        if matches!(turn, Turn::First) {
            self.begun.fetch_add(1, Ordering::Relaxed);
            self.steps = 0;
        }
        if self.steps == 2 && !self.mended.load(Ordering::Relaxed) {
            return Err(Fault::network("refused"));
        }
        self.steps += 1;
        match self.steps {
            1 | 2 => Ok(Step::Continue),
            _ => Ok(Step::Reply(format!("begun {}", self.begun.load(Ordering::Relaxed)))),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn once_more_in_another_life_begins_afresh_and_in_the_same_goes_on() {
    for (killed, early, begun) in [(false, false, 1), (true, false, 2), (true, true, 2)] {
        let mended = Arc::new(AtomicBool::new(false));
        let (given, counted) = (Arc::clone(&mended), Arc::new(AtomicU32::new(0)));
        let made =
            move || Forgets { steps: 0, mended: Arc::clone(&given), begun: Arc::clone(&counted) };
        let child = ChildSpec::stateful("it", made).policy(Policy::playbook_exact());
        let root = SupervisorSpec::one_for_one("root")
            .restart_backoff(Duration::from_secs(5), Duration::from_secs(5))
            .child(child);
        let system = start(root, PointSpec::everywhere(HOUR)).await;
        let port: Texts = system.port("root/it").unwrap();
        let mut events = system.events();
        let called = call(&port);
        let shown = point(&system, &mut events).await;
        mended.store(true, Ordering::Relaxed);
        if killed {
            system.kill("root/it").unwrap();
            events.wait_for(|event| matches!(event, Event::Restarting { .. })).await.unwrap();
            if !early {
                let up = |event: &Event| matches!(event, Event::Started { .. });
                events.wait_for(up).await.unwrap();
            }
        }
        system.points().decide(shown.id, Choice::RetryAgain, "ada", "").unwrap();
        let answer = called.await.unwrap().unwrap();
        let expected = format!("begun {begun}");
        assert_eq!(answer.value, expected, "killed: {killed}, early: {early}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_person_has_a_request_rolled_back_that_the_ladder_would_not_once() {
    let allowed = Arc::new(AtomicBool::new(false));
    let given = Arc::clone(&allowed);
    let child = ChildSpec::stateful("it", move || Walks {
        steps: Arc::default(),
        allowed: Arc::clone(&given),
    });
    let spec = SupervisorSpec::one_for_one("root").child(child.policy(Policy::playbook_exact()));
    let system = start(spec, PointSpec::new().at_once(HOUR).after_rollback(HOUR)).await;
    let port: Texts = system.port("root/it").unwrap();
    let mut events = system.events();
    let called = call(&port);
    let shown = point(&system, &mut events).await;
    assert_eq!((shown.after, shown.proposed), (None, "fail"));
    let all = [Choice::Continue, Choice::Abort, Choice::RetryAgain, Choice::RollBack];
    assert_eq!(shown.choices, all);
    allowed.store(true, Ordering::Relaxed);
    system.points().decide(shown.id, Choice::RollBack, "ada", "from the start").unwrap();
    assert_eq!(closed(&mut events).await, ("roll_back", true));
    let answer = called.await.unwrap().unwrap();
    assert_eq!(answer.value, "walked");
    let actions: Vec<_> = answer.trail.iter().map(|attempt| attempt.action.name()).collect();
    assert_eq!(actions, ["rollback"]);
    let mut rolled_back = 0;
    while let Some(stamped) = events.try_next() {
        rolled_back += usize::from(matches!(stamped.event, Event::RolledBack { .. }));
    }
    assert_eq!(rolled_back, 1);
}

#[tokio::test(start_paused = true)]
async fn a_dump_says_that_a_decision_is_waited_for_and_how_long() {
    let script = echo();
    script.otherwise_fail(Class::Network);
    let (system, port) = alone(&script, PointSpec::everywhere(HOUR)).await;
    let mut events = system.events();
    let call = call(&port);
    let asked = point(&system, &mut events).await;
    let dump = system.tree();
    let text = dump.to_string();
    let left = asked.until.left(system.clock().now());
    assert_eq!(left, HOUR);
    assert!(text.contains("waiting 1h00m") && text.contains("a decision"), "{text}");
    assert!(!text.contains("backing off"), "{text}");
    assert_eq!((dump.counts().backing_off, dump.counts().serving), (0, 1), "{text}");
    system.points().decide(asked.id, Choice::Abort, "ann", "").unwrap();
    call.await.unwrap().unwrap_err();
    let text = system.tree().to_string();
    assert!(!text.contains("waiting") && !text.contains("a decision"), "{text}");
}
