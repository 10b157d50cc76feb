//! Who starts again when a child ends: strategies, and restart types against causes.

use mainstay::error::CallError;
use mainstay::fate::Fate;
use mainstay::fault::EffectKind;
use mainstay::spec::{RestartType, SupervisorSpec};
use mainstay::system::System;

#[path = "tree/kit.rs"]
mod kit;

use kit::{Do, Kit, Starts, children, ping, secs, settle, with, worker};

/// A supervisor that may restart as often as it likes.
fn lenient(spec: SupervisorSpec) -> SupervisorSpec {
    spec.intensity(1000, secs(5)).no_child_limit()
}

async fn run(spec: SupervisorSpec, kit: &Kit) -> System {
    let system = System::start(lenient(spec)).await.unwrap();
    kit.said();
    system
}

#[tokio::test(start_paused = true)]
async fn one_for_one_restarts_the_child_alone() {
    let kit = Kit::new();
    let system = run(with(SupervisorSpec::one_for_one("top"), &kit, "abc"), &kit).await;
    system.kill("top/b").unwrap();
    kit.hears("start b2").await;
    assert_eq!(kit.said(), "start b2");
    assert_eq!(ping(&system, "top/a").await.unwrap(), 1);
    assert_eq!(ping(&system, "top/b").await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn one_for_all_stops_the_siblings_in_reverse_and_starts_all_in_order() {
    let kit = Kit::new();
    let system = run(with(SupervisorSpec::one_for_all("top"), &kit, "abcd"), &kit).await;
    system.kill("top/b").unwrap();
    kit.hears("start d2").await;
    assert_eq!(kit.said(), "stop d1, stop c1, stop a1, start a2, start b2, start c2, start d2");
}

#[tokio::test(start_paused = true)]
async fn rest_for_one_restarts_the_child_and_those_started_after_it() {
    let kit = Kit::new();
    let system = run(with(SupervisorSpec::rest_for_one("top"), &kit, "abcd"), &kit).await;
    system.kill("top/b").unwrap();
    kit.hears("start d2").await;
    assert_eq!(kit.said(), "stop d1, stop c1, start b2, start c2, start d2");
    assert_eq!(ping(&system, "top/a").await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_waits_in_a_sibling_taken_along_is_answered_by_its_next_life() {
    let kit = Kit::new();
    let system = run(with(SupervisorSpec::one_for_all("top"), &kit, "ab"), &kit).await;
    kit.starts("a", Starts::Never);
    system.kill("top/b").unwrap();
    kit.hears("try a2").await;
    let call = tokio::spawn({
        let system = system.clone();
        async move { ping(&system, "top/a").await }
    });
    settle(&system.supervisor("top").unwrap()).await;
    assert!(!call.is_finished(), "it waits for the next life");
    kit.starts("a", Starts::Well);
    // `a` hangs in its start: an operator takes it out and brings it back.
    let top = system.supervisor("top").unwrap();
    assert_eq!(children(&top).await, "a restarting, b restarting");
    system.stop().await;
    assert!(matches!(call.await.unwrap(), Err(CallError::Stopped { .. })));
    assert!(system.fates().is_balanced());
    assert_eq!(system.fates().open, 0);
}

/// Each type against each end of a life. `Stopped` is what a supervisor or an operator does, after
/// which nothing comes back by itself, whatever the type.
#[tokio::test(start_paused = true)]
async fn restart_types_against_causes() {
    // Checked against OTP's supervisor (erts 13): permanent is restarted after `normal`, too;
    // transient is not; temporary never, and its spec is gone from which_children.
    let table = [
        (RestartType::Permanent, Do::Finish, "a running, b running", true),
        (RestartType::Permanent, Do::Panic, "a running, b running", true),
        (RestartType::Transient, Do::Finish, "a running, b stopped", false),
        (RestartType::Transient, Do::Panic, "a running, b running", true),
        (RestartType::Temporary, Do::Finish, "a running", false),
        (RestartType::Temporary, Do::Panic, "a running", false),
    ];
    for (restart, end, expected, again) in table {
        let kit = Kit::new();
        let b = kit.child("b").restart(restart).effect(EffectKind::Irreversible);
        let spec = with(SupervisorSpec::one_for_one("top"), &kit, "a").child(b);
        let system = run(spec, &kit).await;
        let b = worker(&system, "top/b");
        let answer = b.call(end.clone()).await;
        assert_eq!(answer.is_ok(), end == Do::Finish, "{restart} {end:?}: {answer:?}");
        let top = system.supervisor("top").unwrap();
        settle(&top).await;
        assert_eq!(children(&top).await, expected, "{restart} {end:?}");
        assert_eq!(kit.said(), if again { "start b2" } else { "" }, "{restart} {end:?}");
        let pinged = b.call(Do::Ping).await;
        assert_eq!(pinged.is_ok(), again, "{restart} {end:?}: {pinged:?}");
        assert!(system.fates().is_balanced());
    }
}

#[tokio::test(start_paused = true)]
async fn a_child_of_any_type_that_an_operator_stops_stays_stopped() {
    for restart in [RestartType::Permanent, RestartType::Transient, RestartType::Temporary] {
        let kit = Kit::new();
        let spec = SupervisorSpec::one_for_one("top").child(kit.child("b").restart(restart));
        let system = run(spec, &kit).await;
        let top = system.supervisor("top").unwrap();
        top.terminate_child("b").await.unwrap();
        settle(&top).await;
        assert_eq!(kit.said(), "stop b1");
        let expected = if restart == RestartType::Temporary { "" } else { "b stopped" };
        assert_eq!(children(&top).await, expected, "{restart}");
    }
}

/// A killed transient child is restarted: a kill is never taken for a normal end (defect R1).
#[tokio::test(start_paused = true)]
async fn a_killed_transient_child_is_restarted() {
    let kit = Kit::new();
    let spec = SupervisorSpec::one_for_one("top").child(kit.child("a").transient());
    let system = run(spec, &kit).await;
    system.kill("top/a").unwrap();
    kit.hears("start a2").await;
    assert_eq!(ping(&system, "top/a").await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_child_that_ended_normally_gives_what_waits_its_fate_and_refuses_what_comes() {
    let kit = Kit::new();
    let spec = SupervisorSpec::one_for_one("top").child(kit.child("a").transient());
    let system = run(spec, &kit).await;
    let a = worker(&system, "top/a");
    let last = a.cast(Do::Finish).unwrap();
    let waits = a.cast(Do::Ping).unwrap();
    settle(&system.supervisor("top").unwrap()).await;
    assert_eq!(system.fate(last), Some(Some(Fate::Done)));
    assert_eq!(system.fate(waits), Some(Some(Fate::Stopped)));
    assert!(matches!(a.call(Do::Ping).await, Err(CallError::Refused { .. })));
    assert_eq!((system.fates().open, system.fates().accepted), (0, 2));
    let dump = system.tree().to_string();
    assert!(dump.contains("stopped"), "{dump}");
    // An operator may start it again, as in OTP.
    system.supervisor("top").unwrap().restart_child("a").await.unwrap();
    assert_eq!(ping(&system, "top/a").await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_normal_end_is_no_crash_in_the_counts() {
    let kit = Kit::new();
    let spec = SupervisorSpec::one_for_one("top").child(kit.child("a"));
    let system = run(spec, &kit).await;
    worker(&system, "top/a").call(Do::Finish).await.unwrap();
    kit.hears("start a2").await;
    assert_eq!(system.stats().crashes, 0);
    system.kill("top/a").unwrap();
    kit.hears("start a3").await;
    assert_eq!(system.stats().crashes, 1);
}

/// A second death while siblings restart widens the restart that is under way, and counts once.
#[tokio::test(start_paused = true)]
async fn a_sibling_that_dies_during_anothers_restart_widens_it() {
    let kit = Kit::new();
    let spec = with(SupervisorSpec::rest_for_one("top"), &kit, "abc");
    let system = System::start(spec.intensity(2, secs(5)).no_child_limit()).await.unwrap();
    kit.said();
    kit.starts("c", Starts::Never);
    system.kill("top/b").unwrap();
    kit.hears("try c2").await;
    kit.starts("c", Starts::Well);
    system.kill("top/a").unwrap();
    kit.hears("start c3").await;
    assert_eq!(kit.said(), "stop c1, start b2, try c2, stop b2, start a2, start b3, start c3");
    let top = system.supervisor("top").unwrap();
    assert_eq!(children(&top).await, "a running, b running, c running");
}

/// As in OTP: a start that fails in a restart counts like an exit and is tried again.
#[tokio::test(start_paused = true)]
async fn a_start_that_fails_in_a_restart_is_tried_again_until_it_succeeds() {
    for (spec, expected) in [
        (SupervisorSpec::one_for_one("top"), "fail b2, start b3"),
        (SupervisorSpec::rest_for_one("top"), "stop c1, fail b2, start b3, start c3"),
        (
            SupervisorSpec::one_for_all("top"),
            "stop c1, stop a1, start a2, fail b2, stop a2, start a3, start b3, start c3",
        ),
    ] {
        let kit = Kit::new();
        let spec = with(spec, &kit, "abc").restart_backoff(secs(1), secs(60));
        let system = run(spec, &kit).await;
        kit.starts("b", Starts::Not);
        system.kill("top/b").unwrap();
        kit.hears("fail b2").await;
        kit.starts("b", Starts::Well);
        kit.hears("start b3").await;
        settle(&system.supervisor("top").unwrap()).await;
        assert_eq!(kit.said(), expected);
        assert_eq!(
            children(&system.supervisor("top").unwrap()).await,
            "a running, b running, c running"
        );
    }
}
