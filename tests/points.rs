//! Where a person may decide what becomes of a request: who is asked, for how long, and what comes of
//! each thing that can be said.

use std::time::Duration;

use mainstay::decision::Rung;
use mainstay::error::CallError;
use mainstay::event::{Event, EventStream};
use mainstay::fate::Answer;
use mainstay::fault::{Class, EffectKind};
use mainstay::moment::Moment;
use mainstay::points::{Choice, Point, PointError, PointSpec};
use mainstay::policy::Policy;
use mainstay::port::{CallOptions, Port};
use mainstay::spec::{GroupSpec, SupervisorSpec};
use mainstay::system::{System, SystemOptions};
use mainstay_actors::scripted::Script;
use tokio::task::JoinHandle;

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
    assert_eq!((shown.after, shown.proposed), (Rung::Retry, "substitute"));
    assert_eq!((shown.since, shown.until), (ms(7_000), ms(67_000)));
    assert_eq!((shown.child.as_str(), shown.class), ("root/llm/first", Some(Class::Network)));
    assert_eq!(shown.trail.0.len(), 4);
    assert_eq!(shown.choices, [Choice::Continue, Choice::Abort, Choice::RetryAgain]);
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
        system.points().decide(shown.id, choice, "ada", "seen it before").unwrap();
        let again = system.points().decide(shown.id, choice, "bob", "");
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
    assert_eq!((shown.after, shown.proposed), (Rung::Substitute, "fail"));
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
    assert_eq!(point(&system, &mut events).await.after, Rung::Substitute);
    assert_eq!(closed(&mut events).await, ("continue", false));
    called.await.unwrap().unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn what_is_done_without_anybody_can_be_chosen() {
    let (first, second) = (echo(), echo());
    first.otherwise_fail(Class::Network);
    for (otherwise, asked) in [(Choice::Abort, 0), (Choice::Continue, 1), (Choice::RetryAgain, 1)] {
        let before = second.count();
        let points = PointSpec::new().after_retry(HOUR).otherwise(otherwise);
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
    let child = script.stateless("it").policy(Policy::playbook_exact()).deadline(24 * HOUR);
    let child = child.effect(EffectKind::Irreversible);
    let points = PointSpec::new().after_retry(HOUR);
    let system = start(SupervisorSpec::one_for_one("root").child(child), points).await;
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
