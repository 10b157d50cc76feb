//! What a running system says about its last minutes, on a paused clock: rates with their samples, and
//! alerts that begin once and end once.

use std::time::Duration;

use mainstay::event::{Event, EventStream};
use mainstay::fault::Class;
use mainstay::moment::Moment;
use mainstay::policy::{GroupKind, Policy};
use mainstay::port::Port;
use mainstay::spec::{GroupSpec, SupervisorSpec};
use mainstay::system::{System, SystemOptions};
use mainstay::watch::{
    Alert, AlertRule, Bound, Measure, Profile, Severity, Signal, Slo, WatchSpec,
};
use mainstay_actors::scripted::Script;

type Texts = Port<String, String>;

fn echo() -> Script {
    Script::echo()
}

async fn start(spec: SupervisorSpec, watch: WatchSpec) -> System {
    System::start_with(spec, SystemOptions::new().watch(watch)).await.unwrap()
}

/// A system of one scripted child, `root/it`.
async fn alone(script: &Script, watch: WatchSpec) -> (System, Texts) {
    let child = script.stateless("it").concurrency(64).policy(Policy::playbook_exact());
    let system = start(SupervisorSpec::one_for_one("root").child(child), watch).await;
    let port = system.port("root/it").unwrap();
    (system, port)
}

/// The next alert about this rule: whether it begins or ends, when, and what it says.
async fn next_about(events: &mut EventStream, rule: &str) -> (bool, Moment, Alert) {
    let is_it = |event: &Event| match event {
        Event::Raised { alert } | Event::Cleared { alert } => alert.rule == rule,
        _ => false,
    };
    let stamped = events.wait_for(is_it).await.unwrap();
    match stamped.event {
        Event::Raised { alert } => (true, stamped.at, alert),
        Event::Cleared { alert } => (false, stamped.at, alert),
        other => panic!("{other:?}"),
    }
}

/// Calls so many times at once; how many were answered.
async fn calls(port: &Texts, number: usize) -> usize {
    let all: Vec<_> = (0..number)
        .map(|n| {
            let port = port.clone();
            tokio::spawn(async move { port.call(format!("{n}")).await.is_ok() })
        })
        .collect();
    let mut answered = 0;
    for call in all {
        answered += usize::from(call.await.unwrap());
    }
    answered
}

#[tokio::test(start_paused = true)]
async fn an_alert_begins_once_and_ends_once() {
    let script = echo();
    let (system, port) = alone(&script, WatchSpec::new()).await;
    let mut events = system.events();
    script.otherwise_fail(Class::InputValidation);
    assert_eq!(calls(&port, 30).await, 0);
    let (raised, began, alert) = next_about(&mut events, "S88").await;
    assert!(raised);
    assert_eq!(began, Moment::from_millis(5_000), "at the first look");
    assert_eq!((alert.value, alert.limit, alert.samples), (1.0, 0.1, 30));
    assert_eq!((alert.severity, &alert.measure), (Severity::Warning, &Measure::ErrorRate));
    assert_eq!(alert.since, began);
    assert!(system.metrics().alerts.contains(&alert));
    // Nothing happens any more: the failures leave the window, and the rule comes to rest.
    let (raised, ended, again) = next_about(&mut events, "S88").await;
    assert_eq!((raised, again), (false, alert));
    assert_eq!(ended, Moment::from_millis(330_000), "5 min of window and 30 s of rest");
    // What is well does not raise it again.
    script.otherwise_usual();
    assert_eq!(calls(&port, 30).await, 30);
    tokio::time::timeout(Duration::from_secs(900), next_about(&mut events, "S88"))
        .await
        .expect_err("it has ended");
    let metrics = system.metrics();
    assert_eq!((metrics.attempts, &*metrics.alerts), (0, &[][..]));
}

#[tokio::test(start_paused = true)]
async fn rates_come_with_their_samples_and_latencies() {
    let script = echo();
    script.then_fail(Class::Network);
    script.then_fail(Class::Network);
    let (system, port) = alone(&script, WatchSpec::new()).await;
    assert_eq!(system.metrics().measure(&Measure::ErrorRate), None, "nothing has happened");
    // Two failures, then after 1 s and 2 s an answer.
    port.call("first".to_owned()).await.unwrap();
    assert_eq!(calls(&port, 7).await, 7);
    let metrics = system.metrics();
    let sample = |measure| {
        let sample = metrics.measure(&measure).unwrap();
        (sample.value, sample.samples)
    };
    assert_eq!(sample(Measure::ErrorRate), (0.2, 10));
    assert_eq!(sample(Measure::RetrySuccess), (1.0, 1));
    assert_eq!(sample(Measure::RetryLatency), (3.0, 1));
    assert_eq!(sample(Measure::RetriesPerRequest), (0.25, 8));
    assert_eq!(sample(Measure::Amplification), (1.25, 8));
    assert_eq!(sample(Measure::Availability), (1.0, 8));
    assert_eq!(sample(Measure::Recovery), (1.0, 1));
    assert_eq!(metrics.failures[&Class::Network], 2);
    assert_eq!((metrics.retry.entered, metrics.retry.recovered), (1, 1));
    assert_eq!((metrics.requests.done, metrics.requests.accepted), (8, 8));
    let retry = metrics.slo("S25").unwrap();
    assert_eq!((retry.met, &*retry.actual_text()), (Some(true), "100.0 %"));
    let missed = metrics.slo("S94").unwrap();
    assert_eq!((missed.met, &*missed.actual_text()), (Some(false), "20.0 %"));
    assert_eq!(metrics.slo("S97").unwrap().met, None, "nothing was rolled back");
    // It can be read by a machine.
    let json = serde_json::to_value(&metrics).unwrap();
    assert_eq!(json["failures"]["network"], 2);
    assert_eq!(json["slos"][1]["id"], "S25");
    assert_eq!(json["slos"][1]["actual"]["value"], 1.0);
    assert!(metrics.prometheus().contains("mainstay_slo_actual{slo=\"S94\"} 0.2\n"));
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_ends_with_its_deadline_has_not_recovered() {
    let script = echo();
    script.otherwise_fail(Class::Network);
    let child = script.stateless("it").policy(Policy::playbook_exact());
    let child = child.deadline(Duration::from_millis(6_500));
    let spec = SupervisorSpec::one_for_one("root").child(child);
    let system = start(spec, WatchSpec::new()).await;
    let port: Texts = system.port("root/it").unwrap();
    port.call("x".to_owned()).await.unwrap_err();
    let metrics = system.metrics();
    assert_eq!((metrics.retry.entered, metrics.retry.recovered), (1, 0));
    assert_eq!((metrics.recovery.entered, metrics.recovery.recovered), (1, 0));
    assert_eq!(system.stats().entered_retry, 1);
}

#[tokio::test(start_paused = true)]
async fn a_substitute_counts_for_the_kind_of_its_group() {
    let (first, second) = (echo(), echo());
    first.otherwise_fail(Class::ModelUnavailable);
    let group = GroupSpec::model("llm")
        .member_spec(first.stateless("first").concurrency(64))
        .member_spec(second.stateless("second").concurrency(64));
    let spec = SupervisorSpec::one_for_one("root").group(group);
    let system = start(spec, WatchSpec::new()).await;
    let port: Texts = system.port("root/llm").unwrap();
    let mut events = system.events();
    assert_eq!(calls(&port, 30).await, 30);
    let metrics = system.metrics();
    let model = metrics.fallback_by_kind["model"];
    // The circuit opens at the third failure, and the others are not handed on but served there.
    assert_eq!((model.entered, model.recovered, model.defaulted), (3, 3, 0));
    assert_eq!(metrics.measure(&Measure::FallbackLatency).unwrap().value, 0.0);
    let degraded = metrics.measure(&Measure::Degraded(GroupKind::Model)).unwrap();
    assert_eq!((degraded.value, degraded.samples), (1.0, 30));
    assert_eq!(metrics.slo("S29").unwrap().met, None, "no tool was replaced");
    // S28 is missed, and no rule is about it: an objective burns.
    let (raised, _, alert) = next_about(&mut events, "S28").await;
    assert_eq!((raised, alert.severity), (true, Severity::Info));
}

#[tokio::test(start_paused = true)]
async fn every_option_of_the_watch_is_heard() {
    // The window.
    let script = echo();
    script.otherwise_fail(Class::InputValidation);
    let (system, port) = alone(&script, WatchSpec::new().window(Duration::from_secs(60))).await;
    let mut events = system.events();
    calls(&port, 30).await;
    assert_eq!(next_about(&mut events, "S88").await.1, Moment::from_millis(1_000));
    assert_eq!(next_about(&mut events, "S88").await.1, Moment::from_millis(90_000));
    assert_eq!(system.metrics().window, Duration::from_secs(60));
    // The rest before the end.
    let (system, port) = alone(&script, WatchSpec::new().hold(Duration::from_secs(100))).await;
    let mut events = system.events();
    calls(&port, 30).await;
    assert!(next_about(&mut events, "S88").await.0);
    assert_eq!(next_about(&mut events, "S88").await.1, Moment::from_millis(400_000));
    // The rules and the objectives.
    let rule = AlertRule::new(
        "mine",
        "requests",
        Measure::RequestErrors,
        Bound::Above(0.5),
        Severity::Critical,
    );
    let slo = Slo::new("ours", "requests", Measure::RequestErrors, Bound::Below(0.9));
    let (system, port) = alone(&script, WatchSpec::new().alert(rule.min_samples(1)).slo(slo)).await;
    let mut events = system.events();
    calls(&port, 1).await;
    assert_eq!(next_about(&mut events, "mine").await.2.severity, Severity::Critical);
    assert_eq!(system.metrics().slo("ours").unwrap().met, Some(false));
    // What is reported from outside.
    assert!(!system.signal("satisfaction", Signal::Yes));
    let (system, _) = alone(&script, WatchSpec::profile(Profile::CustomerService)).await;
    assert!(system.signal("satisfaction", Signal::Yes));
    assert_eq!(system.metrics().slo("S65.satisfaction").unwrap().met, Some(true));
    // What cannot be watched.
    let spec = SupervisorSpec::one_for_one("root").child(script.stateless("it"));
    let options = SystemOptions::new().watch(WatchSpec::new().window(Duration::ZERO));
    let refused = System::start_with(spec, options).await.unwrap_err().to_string();
    assert!(refused.contains("the window is 0ns"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_system_that_is_gone_is_looked_at_no_more() {
    let script = echo();
    let (system, port) = alone(&script, WatchSpec::new()).await;
    let mut events = system.events();
    script.otherwise_fail(Class::InputValidation);
    calls(&port, 30).await;
    let clock = system.clock();
    let before = clock.now();
    system.stop().await;
    drop((system, port));
    while let Some(stamped) = events.next().await {
        assert!(!matches!(stamped.event, Event::Raised { .. }), "{stamped:?}");
    }
    assert_eq!(clock.now(), before, "nothing had to be waited for");
}
