//! The schedule, exactly: which class is tried how often and at which millisecond, on a paused clock.
//!
//! A scripted child keeps when each attempt began; the whole runtime stands between it and the caller.
//! What siblings do about a class is in `schedule/siblings.rs`, and that no option is ignored in
//! `schedule/knobs.rs`.

use std::time::{Duration, SystemTime};

use mainstay::decision::{Action, Declined, Rung};
use mainstay::error::CallError;
use mainstay::event::Event;
use mainstay::fate::Trail;
use mainstay::fault::{Class, EffectKind, Fault};
use mainstay::policy::{Backoff, Policy, Rule};
use mainstay::port::{CallOptions, Port};
use mainstay::spec::{ChildSpec, GroupSpec, SupervisorSpec};
use mainstay::system::System;
use mainstay_actors::model::classify::classify;
use mainstay_actors::scripted::{Cue, Script};

#[path = "schedule/admission.rs"]
mod admission;
#[path = "schedule/order.rs"]
mod order;
#[path = "schedule/knobs.rs"]
mod knobs;
#[path = "schedule/adding_up.rs"]
mod adding_up;
#[path = "schedule/domains.rs"]
mod domains;
#[path = "schedule/gone.rs"]
mod gone;
#[path = "schedule/siblings.rs"]
mod siblings;

type Texts = Port<String, String>;

fn echo() -> Script {
    Script::echo()
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// When each attempt began, in milliseconds since the start.
fn times(script: &Script) -> Vec<u64> {
    let times = script.times();
    times.iter().map(|at| at.since_start()).map(whole).collect()
}

/// A time that must be a whole number of milliseconds.
fn whole(time: Duration) -> u64 {
    assert_eq!(time.subsec_nanos() % 1_000_000, 0, "{time:?} is no whole number of milliseconds");
    time.as_millis() as u64
}

fn now(system: &System) -> u64 {
    whole(system.clock().now().since_start())
}

/// A system of one scripted child, `root/it`.
async fn alone(script: &Script, change: impl FnOnce(ChildSpec) -> ChildSpec) -> (System, Texts) {
    let spec = change(script.stateless("it").concurrency(64));
    let root = SupervisorSpec::one_for_one("root").policy(Policy::playbook_exact()).child(spec);
    let system = System::start(root).await.unwrap();
    let port = system.port("root/it").unwrap();
    (system, port)
}

/// A system of one group, `root/llm`.
async fn grouped(group: GroupSpec) -> (System, Texts) {
    let system = System::start(SupervisorSpec::one_for_one("root").group(group)).await.unwrap();
    let port = system.port("root/llm").unwrap();
    (system, port)
}

/// The trail of a call that must have failed.
fn trail<R: std::fmt::Debug>(outcome: Result<R, CallError<String>>) -> Trail {
    match outcome {
        Err(CallError::RecoveryExhausted { trail, .. }) => trail,
        other => panic!("not exhausted: {other:?}"),
    }
}

/// Why the last failure in it was not answered by this rung.
fn declined(trail: &Trail, rung: Rung) -> Option<Declined> {
    let last = trail.iter().last()?;
    last.declined.iter().find(|(at, _)| *at == rung).map(|(_, why)| *why)
}

/// When attempts of this class begin at a child that nobody stands in for and that never recovers.
fn schedule(class: Class) -> &'static [u64] {
    match class {
        Class::Network | Class::ServerTransient => &[0, 1000, 3000, 7000],
        Class::Timeout | Class::Indeterminate => &[0, 500, 1500],
        // An overloaded child waits as a rate limited one, since it stands alone.
        Class::RateLimit | Class::Overloaded => &[0, 2000],
        Class::ToolExecution => &[0, 1000, 3000],
        _ => &[0],
    }
}

#[tokio::test(start_paused = true)]
async fn every_class_is_tried_exactly_as_often_and_when_the_playbook_says() {
    for class in Class::ALL {
        let script = echo();
        script.otherwise_fail(class);
        let (system, port) = alone(&script, |spec| spec).await;
        let mut events = system.events();
        let outcome = port.call("x").await;
        assert_eq!(times(&script), schedule(class), "{class}");
        assert_eq!(now(&system), schedule(class)[schedule(class).len() - 1], "{class}");
        let fates = system.fates();
        if class == Class::Cancelled {
            assert!(matches!(outcome, Err(CallError::Cancelled { .. })), "{outcome:?}");
            assert_eq!((fates.cancelled, fates.open), (1, 0));
            continue;
        }
        let trail = trail(outcome);
        assert_eq!(trail.0.len(), schedule(class).len(), "{class}: {trail}");
        assert_eq!((fates.accepted, fates.failed, fates.open), (1, 1, 0), "{class}");
        let mut alerts = 0;
        while let Some(stamped) = events.try_next() {
            alerts += u32::from(matches!(stamped.event, Event::Alert { .. }));
        }
        assert_eq!(alerts, 1, "{class}");
        let stats = system.stats();
        let retries: u64 = stats.retries.values().sum();
        assert_eq!(retries, schedule(class).len() as u64 - 1, "{class}");
        assert_eq!(stats.failures[&class], schedule(class).len() as u64, "{class}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_classes_that_are_never_retried_are_the_playbooks_and_what_extends_them() {
    let never = [Class::ModelUnavailable, Class::InputValidation, Class::ContextLength];
    for class in never.into_iter().chain([Class::Permission, Class::Unknown, Class::Exhausted]) {
        assert_eq!(schedule(class), [0]);
        let script = echo();
        script.otherwise_fail(class);
        let (_system, port) = alone(&script, |spec| spec).await;
        let trail = trail(port.call("x").await);
        assert_eq!(declined(&trail, Rung::Retry), Some(Declined::ClassNotRetryable(class)));
        assert_eq!(script.count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_after_retries_says_what_it_took() {
    for (class, failures) in [(Class::Network, 3), (Class::Timeout, 2), (Class::RateLimit, 1)] {
        let script = echo();
        (0..failures).for_each(|_| script.then_fail(class));
        let (system, port) = alone(&script, |spec| spec).await;
        let answer = port.call("x").await.unwrap();
        assert_eq!((answer.attempts, answer.served_by.as_str()), (failures + 1, "root/it"));
        assert!(!answer.degraded && !answer.defaulted);
        assert_eq!(answer.trail.0.len(), failures as usize);
        assert!(answer.trail.iter().all(|failed| matches!(failed.action, Action::Retry { .. })));
        assert_eq!(whole(answer.elapsed), schedule(class)[failures as usize]);
        let numbers: Vec<_> = script.attempts().iter().map(|attempt| attempt.attempt).collect();
        assert_eq!(numbers, (1..=failures + 1).collect::<Vec<_>>());
        let stats = system.stats();
        assert_eq!((stats.entered_retry, stats.recovered_by_retry), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn the_waits_begin_when_an_attempt_has_ended() {
    let script = echo();
    script.otherwise(|| Cue::fail(Class::Network).after(ms(200)));
    let (_system, port) = alone(&script, |spec| spec).await;
    trail(port.call("x").await);
    assert_eq!(times(&script), [0, 1200, 3400, 7600]);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_does_not_end_is_a_timeout_after_thirty_seconds() {
    let script = echo();
    script.otherwise(|| Cue::Hang);
    let (system, port) = alone(&script, |spec| spec).await;
    let trail = trail(port.call("x").await);
    assert_eq!(times(&script), [0, 30_500, 61_500]);
    assert_eq!(now(&system), 91_500);
    assert_eq!(
        declined(&trail, Rung::Retry),
        Some(Declined::ClassCap { class: Class::Timeout, cap: 2 })
    );
    // An attempt is not a life.
    assert_eq!(system.stats().crashes, 0);
    assert_eq!(script.lives().len(), 1);
}

/// What a provider's 429 with this header is.
fn limited(name: &str, value: &str) -> Fault {
    let wall: SystemTime = httpdate_like();
    classify(429, &[(name, value)].into_iter().collect(), b"", wall)
}

/// Tue, 24 Nov 2026 06:00:00 GMT.
fn httpdate_like() -> SystemTime {
    SystemTime::UNIX_EPOCH + secs(1_795_500_000)
}

#[tokio::test(start_paused = true)]
async fn a_rate_limited_child_waits_for_two_seconds_or_longer_when_it_was_asked_to() {
    let rows: [(&str, &str, &[u64]); 16] = [
        ("x-nothing", "1", &[0, 2000]),
        ("retry-after", "5", &[0, 5000]),
        ("retry-after", "2.5", &[0, 2500]),
        // Never a shorter wait than the playbook's.
        ("retry-after", "0", &[0, 2000]),
        ("retry-after", "1", &[0, 2000]),
        ("retry-after-ms", "2600", &[0, 2600]),
        ("retry-after", "Tue, 24 Nov 2026 06:00:07 GMT", &[0, 7000]),
        ("retry-after", "Tue, 24 Nov 2026 05:00:00 GMT", &[0, 2000]),
        ("retry-after", "NaN", &[0, 2000]),
        ("retry-after", "inf", &[0, 2000]),
        ("retry-after", "-30", &[0, 2000]),
        ("retry-after", "soon", &[0, 2000]),
        // At the limit it is waited for, above it not at all.
        ("retry-after", "30", &[0, 30_000]),
        ("retry-after", "30.001", &[0]),
        ("retry-after", "1e300", &[0]),
        ("retry-after", "Tue, 24 Nov 2026 06:01:00 GMT", &[0]),
    ];
    for (name, value, expected) in rows {
        let script = echo();
        let fault = limited(name, value);
        assert_eq!(fault.class, Class::RateLimit);
        script.otherwise(move || Cue::Fail(fault.clone()));
        let (system, port) = alone(&script, |spec| spec).await;
        let trail = trail(port.call("x").await);
        assert_eq!(times(&script), expected, "{name}: {value}");
        assert_eq!(now(&system), expected[expected.len() - 1], "{name}: {value}");
        if expected.len() == 1 {
            let why = declined(&trail, Rung::Retry);
            assert!(matches!(why, Some(Declined::WaitTooLong { limit, .. }) if limit == secs(30)));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_grows_or_shrinks_is_the_latest_one_asked_for() {
    let script = echo();
    for wait in ["3", "5", "4"] {
        script.then_fault(limited("retry-after", wait));
    }
    let policy = Policy::playbook_exact().with_cap(Class::RateLimit, 3);
    let (_system, port) = alone(&script, |spec| spec.policy(policy)).await;
    let answer = port.call("x").await.unwrap();
    assert_eq!(times(&script), [0, 3000, 8000, 12_000]);
    assert_eq!(answer.attempts, 4);
}

#[tokio::test(start_paused = true)]
async fn a_wait_beyond_the_deadline_is_not_begun() {
    for (wait, expected) in [("9", &[0_u64, 9000][..]), ("11", &[0])] {
        let script = echo();
        script.then_fault(limited("retry-after", wait));
        let (system, port) = alone(&script, |spec| spec).await;
        let outcome = port.call_with("x", CallOptions::new().deadline(secs(10))).await;
        assert_eq!(outcome.is_ok(), expected.len() == 2);
        assert_eq!(times(&script), expected);
        assert_eq!(now(&system), expected[expected.len() - 1]);
    }
}

/// The waits of so many requests that fail for ever, one after the other.
async fn waits(requests: u32) -> Vec<[u64; 3]> {
    let script = echo();
    script.otherwise_fail(Class::Network);
    let (_system, port) = alone(&script, |spec| spec.policy(Policy::default())).await;
    for _ in 0..requests {
        trail(port.call("x").await);
    }
    let times = times(&script);
    assert_eq!(times.len() as u32, 4 * requests);
    times.chunks(4).map(|of| [of[1] - of[0], of[2] - of[1], of[3] - of[2]]).collect()
}

#[tokio::test(start_paused = true)]
async fn jitter_makes_a_retry_up_to_a_fifth_later_and_never_earlier_and_is_the_same_again() {
    let first = waits(10).await;
    for wait in &first {
        for (wait, exact) in wait.iter().zip([1000, 2000, 4000]) {
            assert!((exact..=exact * 6 / 5).contains(wait), "{wait} ms for {exact} ms");
        }
    }
    let different: std::collections::BTreeSet<_> = first.iter().map(|wait| wait[0]).collect();
    assert!(different.len() > 5, "hardly any jitter: {first:?}");
    // By request and attempt, so that the same requests of another run wait as long.
    assert_eq!(first, waits(10).await);
}

#[tokio::test(start_paused = true)]
async fn three_retries_are_the_most_whatever_they_are_for() {
    let script = echo();
    for class in [Class::Timeout, Class::ToolExecution, Class::Timeout, Class::Network] {
        script.then_fail(class);
    }
    let (_system, port) = alone(&script, |spec| spec).await;
    let trail = trail(port.call("x").await);
    assert_eq!(times(&script), [0, 500, 1500, 2500]);
    assert_eq!(declined(&trail, Rung::Retry), Some(Declined::GlobalCap { cap: 3 }));
    assert_eq!(script.cues_left(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_cuts_a_request_at_its_millisecond() {
    // In the middle of an attempt, and before its first.
    let script = echo();
    script.then_hang();
    let (system, port) = alone(&script, |spec| spec.concurrency(1)).await;
    let options = || CallOptions::new().deadline(ms(7_321));
    let (first, second) =
        tokio::join!(port.call_with("x", options()), port.call_with("y", options()));
    for outcome in [first, second] {
        let Err(CallError::Expired { waited, .. }) = outcome else { panic!("{outcome:?}") };
        assert_eq!(whole(waited), 7_321);
    }
    assert_eq!(now(&system), 7_321);
    let fates = system.fates();
    assert_eq!((fates.expired, fates.open), (2, 0));
    assert_eq!(port.call("z").await.unwrap().value, "z");
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_could_not_end_before_the_deadline_is_not_waited_for() {
    // The second retry would begin at 3 s, and needs a millisecond at least.
    for (deadline, expected) in [(3000, &[0_u64, 1000][..]), (3001, &[0, 1000, 3000])] {
        let script = echo();
        script.otherwise_fail(Class::Network);
        let (system, port) = alone(&script, |spec| spec).await;
        let options = CallOptions::new().deadline(ms(deadline));
        let trail = trail(port.call_with("x", options).await);
        assert_eq!(times(&script), expected);
        assert_eq!(now(&system), expected[expected.len() - 1]);
        let why = declined(&trail, Rung::Retry);
        assert!(matches!(why, Some(Declined::Deadline { .. })), "{why:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_failures_empties_the_retry_budget_and_the_rest_goes_to_the_sibling_at_once() {
    let (primary, sibling) = (echo(), echo());
    primary.otherwise_fail(Class::Network);
    let group = GroupSpec::model("llm")
        .policy(Policy::playbook_exact())
        .member_spec(primary.stateless("primary").concurrency(64).quota_domain("account"))
        .member_spec(sibling.stateless("sibling").concurrency(64));
    let (system, port) = grouped(group).await;
    let calls = (0..40).map(|n| {
        let port = port.clone();
        tokio::spawn(async move { port.call(n.to_string()).await.unwrap() })
    });
    let (mut tried, mut unaffordable) = (0, 0);
    for call in calls.collect::<Vec<_>>() {
        let answer = call.await.unwrap();
        assert_eq!(answer.served_by, "root/llm/sibling");
        // The last of them are not tried at all: those before them have opened the circuit.
        let Some(last) = answer.trail.iter().last() else { continue };
        tried += 1;
        unaffordable += usize::from(last.declined[0] == (Rung::Retry, Declined::RetryBudget));
    }
    // 500 tokens at 14 a retry are 35 retries; the 36th and all after it are refused.
    assert!((38..=40).contains(&tried), "{tried}");
    assert_eq!(system.stats().retries[&Class::Network], 35);
    assert_eq!((primary.count(), unaffordable), (tried + 35, tried));
    assert_eq!(sibling.count(), 40);
    assert_eq!(now(&system), 1000);
    assert!(system.stats().amplification() < 3.0);
}

#[tokio::test(start_paused = true)]
async fn answers_fill_an_empty_retry_budget_again() {
    let script = echo();
    script.otherwise_fail(Class::Network);
    let (_system, port) = alone(&script, |spec| spec).await;
    // 11 requests of 3 retries are 462 of 500 tokens, and two more retries leave 10.
    for _ in 0..11 {
        trail(port.call("x").await);
    }
    script.forget();
    trail(port.call("x").await);
    assert_eq!(script.count(), 1 + 2);
    script.otherwise_usual();
    for _ in 0..3 {
        port.call("x").await.unwrap();
    }
    // 13 tokens do not pay for a retry, 14 do.
    script.forget();
    script.then_fail(Class::Network);
    let trail = trail(port.call("x").await);
    assert_eq!(declined(&trail, Rung::Retry), Some(Declined::RetryBudget));
    port.call("x").await.unwrap();
    script.then_fail(Class::Network);
    assert_eq!(port.call("x").await.unwrap().attempts, 2);
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_changes_nothing_and_waits_for_nothing_is_refused() {
    let cases = [
        (
            Class::Network,
            Policy::playbook_exact().with_rule(Class::Network, Rule::new(3, Backoff::None)),
        ),
        (Class::OutputInvalid, Policy::code_generation()),
    ];
    for (class, policy) in cases {
        let script = echo();
        script.otherwise_fail(class);
        let (system, port) = alone(&script, |spec| spec.policy(policy)).await;
        let trail = trail(port.call("x").await);
        assert_eq!(declined(&trail, Rung::Retry), Some(Declined::NoChange));
        assert_eq!((script.count(), now(&system)), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_repeated_is_not_unless_it_did_not_happen() {
    let rows = [
        (EffectKind::Irreversible, Fault::network("refused").not_applied(), 4),
        (EffectKind::Irreversible, Fault::tool_execution("failed"), 1),
        (EffectKind::Idempotent, Fault::tool_execution("failed"), 3),
        (EffectKind::Read, Fault::timeout("late"), 3),
    ];
    for (effect, fault, attempts) in rows {
        let script = echo();
        let text = format!("{effect:?} {fault:?}");
        script.otherwise(move || Cue::Fail(fault.clone()));
        let (_system, port) = alone(&script, |spec| spec.effect(effect)).await;
        assert!(port.call("x").await.is_err());
        assert_eq!(script.count(), attempts, "{text}");
    }
    // Nobody knows whether it happened: neither repeated nor called failed.
    let script = echo();
    script.otherwise_fail(Class::Timeout);
    let (system, port) = alone(&script, |spec| spec.effect(EffectKind::Irreversible)).await;
    assert!(matches!(port.call("x").await, Err(CallError::Unknown { .. })));
    assert_eq!((script.count(), system.fates().unknown), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn each_failed_attempt_is_counted_once_by_class_and_code() {
    let script = echo();
    let (system, it) = alone(&script, |spec| spec.effect(EffectKind::Read)).await;
    script.then(Cue::Fail(Fault::network("gone").with_code("reset")));
    script.then(Cue::Fail(Fault::network("gone").with_code("reset")));
    script.then(Cue::Fail(Fault::network("gone")));
    it.call("hello").await.unwrap();
    let counted = system.stats().failures_by_code;
    let counted: Vec<_> = counted.iter().map(|(code, times)| (code.as_str(), *times)).collect();
    assert_eq!(counted, [("network", 1), ("network/reset", 2)]);
}
