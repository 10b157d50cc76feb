//! A supervisor that ends with its work: significant children and automatic shutdown.

use mainstay::error::CallError;
use mainstay::fault::ExitCause;
use mainstay::spec::{AutoShutdown, RestartType, SupervisorSpec};
use mainstay::system::System;

#[path = "tree/kit.rs"]
mod kit;

use kit::{Do, Kit, children, pass, ping, secs, settle, with, worker};

/// `a`, and the significant `s` and `t`, in a supervisor of their own that shuts down by itself.
fn tree(kit: &Kit, auto: AutoShutdown, kind: RestartType, inner: RestartType) -> SupervisorSpec {
    let team = with(SupervisorSpec::one_for_one("team"), kit, "a")
        .child(kit.child("s").restart(kind).significant())
        .child(kit.child("t").restart(kind).significant())
        .auto_shutdown(auto)
        .intensity(9, secs(5))
        .no_child_limit()
        .restart(inner);
    SupervisorSpec::one_for_one("top").supervisor(team).intensity(9, secs(5)).no_child_limit()
}

async fn finish(system: &System, id: &str) {
    worker(system, &format!("top/team/{id}")).call(Do::Finish).await.unwrap();
    settle(&system.supervisor("top").unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn the_first_significant_child_that_ends_ends_its_supervisor() {
    let kit = Kit::new();
    let transient = RestartType::Transient;
    let spec = tree(&kit, AutoShutdown::AnySignificant, transient, transient);
    let system = System::start(spec).await.unwrap();
    kit.said();
    finish(&system, "s").await;
    assert_eq!(kit.said(), "stop t1, stop a1");
    let top = system.supervisor("top").unwrap();
    assert_eq!(children(&top).await, "team stopped", "transient, and its end was a normal one");
    assert!(matches!(ping(&system, "top/team/a").await, Err(CallError::Refused { .. })));
    let dump = system.tree().to_string();
    assert!(!dump.contains("restarting"), "{dump}");
    top.restart_child("team").await.unwrap();
    assert_eq!(ping(&system, "top/team/a").await.unwrap(), 2);
    assert_eq!(ping(&system, "top/team/s").await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_last_significant_child_that_ends_ends_its_supervisor() {
    let kit = Kit::new();
    let transient = RestartType::Transient;
    let spec = tree(&kit, AutoShutdown::AllSignificant, transient, transient);
    let system = System::start(spec).await.unwrap();
    kit.said();
    finish(&system, "s").await;
    assert_eq!(kit.said(), "");
    let team = system.supervisor("top/team").unwrap();
    assert_eq!(children(&team).await, "a running, s stopped, t running");
    finish(&system, "t").await;
    assert_eq!(kit.said(), "stop a1");
    assert_eq!(children(&system.supervisor("top").unwrap()).await, "team stopped");
}

#[tokio::test(start_paused = true)]
async fn a_permanent_supervisor_that_ended_with_its_work_is_started_again() {
    let kit = Kit::new();
    let spec =
        tree(&kit, AutoShutdown::AnySignificant, RestartType::Transient, RestartType::Permanent);
    let system = System::start(spec).await.unwrap();
    finish(&system, "s").await;
    kit.hears("start t2").await;
    assert_eq!(ping(&system, "top/team/s").await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_temporary_supervisor_that_ended_with_its_work_is_gone_with_its_children() {
    let kit = Kit::new();
    let (transient, temporary) = (RestartType::Transient, RestartType::Temporary);
    let spec = tree(&kit, AutoShutdown::AnySignificant, transient, temporary);
    let system = System::start(spec).await.unwrap();
    let a = worker(&system, "top/team/a");
    finish(&system, "s").await;
    let top = system.supervisor("top").unwrap();
    assert_eq!(children(&top).await, "");
    for path in ["top/team", "top/team/a", "top/team/s"] {
        assert!(system.supervisor(path).is_err() && system.child::<kit::Worker>(path).is_err());
        assert!(!system.tree().to_string().contains("team"), "{}", system.tree());
    }
    assert!(a.call(Do::Ping).await.is_err(), "an old address is told so");
    assert!(system.fates().is_balanced());
    // Its name is free.
    top.start_child(kit.child("team")).await.unwrap();
    assert_eq!(ping(&system, "top/team").await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_significant_child_that_crashes_has_not_ended_unless_it_is_temporary() {
    for (kind, ends) in [(RestartType::Transient, false), (RestartType::Temporary, true)] {
        let kit = Kit::new();
        let spec = tree(&kit, AutoShutdown::AnySignificant, kind, RestartType::Transient);
        let system = System::start(spec).await.unwrap();
        kit.said();
        system.kill("top/team/s").unwrap();
        settle(&system.supervisor("top").unwrap()).await;
        let expected = if ends { "team stopped" } else { "team running" };
        assert_eq!(children(&system.supervisor("top").unwrap()).await, expected, "{kind}");
        assert_eq!(kit.said(), if ends { "stop t1, stop a1" } else { "start s2" });
    }
}

/// OTP 25 does the same: `terminate_child` of a significant child never ends the supervisor, and the
/// child does not count as one that is awaited any more.
#[tokio::test(start_paused = true)]
async fn a_significant_child_that_an_operator_terminates_ends_nothing() {
    for auto in [AutoShutdown::AnySignificant, AutoShutdown::AllSignificant] {
        let kit = Kit::new();
        let transient = RestartType::Transient;
        let system = System::start(tree(&kit, auto, transient, transient)).await.unwrap();
        let team = system.supervisor("top/team").unwrap();
        team.terminate_child("s").await.unwrap();
        pass(secs(60)).await;
        assert_eq!(children(&team).await, "a running, s stopped, t running");
        finish(&system, "t").await;
        assert_eq!(children(&system.supervisor("top").unwrap()).await, "team stopped");
    }
}

#[tokio::test(start_paused = true)]
async fn a_root_that_ends_with_its_work_ends_the_system() {
    let kit = Kit::new();
    let spec = with(SupervisorSpec::one_for_one("top"), &kit, "a")
        .child(kit.child("s").transient().significant())
        .auto_shutdown(AutoShutdown::AllSignificant);
    let system = System::start(spec).await.unwrap();
    let a = worker(&system, "top/a");
    worker(&system, "top/s").call(Do::Finish).await.unwrap();
    assert_eq!(system.wait().await.0, ExitCause::Normal);
    assert!(kit.said().ends_with("stop a1"));
    assert!(a.call(Do::Ping).await.is_err());
    assert!(system.fates().is_balanced());
}

/// Children that a supervisor was given at run time go with it when it gives up; what they had accepted
/// is told why. Those of its spec come back with their mailboxes.
#[tokio::test(start_paused = true)]
async fn dynamic_children_end_with_their_supervisor_and_their_requests_with_its_cause() {
    let kit = Kit::new();
    let team =
        with(SupervisorSpec::one_for_one("team"), &kit, "a").intensity(0, secs(5)).no_child_limit();
    let system = System::start(SupervisorSpec::one_for_one("top").supervisor(team)).await.unwrap();
    let team = system.supervisor("top/team").unwrap();
    team.start_child(kit.child("guest")).await.unwrap();
    let guest = worker(&system, "top/team/guest");
    let call = tokio::spawn({
        let guest = guest.clone();
        async move { guest.call(Do::Hang).await }
    });
    kit.hears("hang guest1").await;
    let waits = tokio::spawn({
        let guest = guest.clone();
        async move { guest.call(Do::Ping).await }
    });
    settle(&team).await;
    system.kill("top/team/a").unwrap();
    kit.hears("start a2").await;
    for call in [call, waits] {
        let Err(CallError::Stopped { cause, .. }) = call.await.unwrap() else {
            panic!("another error")
        };
        assert!(matches!(cause, ExitCause::Intensity { .. } | ExitCause::Stopped), "{cause}");
    }
    settle(&system.supervisor("top").unwrap()).await;
    assert_eq!(children(&team).await, "a running", "the address of a supervisor holds, too");
    assert!(system.child::<kit::Worker>("top/team/guest").is_err());
    assert!(guest.call(Do::Ping).await.is_err());
    assert!(!system.tree().to_string().contains("guest"), "{}", system.tree());
    team.start_child(kit.child("guest")).await.unwrap();
    assert_eq!(ping(&system, "top/team/guest").await.unwrap(), 1);
    assert!(system.fates().is_balanced());
    assert_eq!(system.fates().open, 0);
}

/// As `mainstay::family` says, and unlike OTP 25, which starts it again with its siblings:
/// a child that an operator terminated stays stopped until an operator restarts it.
#[tokio::test(start_paused = true)]
async fn a_terminated_child_stays_stopped_when_its_siblings_restart() {
    let kit = Kit::new();
    let spec = with(SupervisorSpec::one_for_all("top"), &kit, "abc");
    let system = System::start(spec).await.unwrap();
    let top = system.supervisor("top").unwrap();
    top.terminate_child("b").await.unwrap();
    kit.said();
    system.kill("top/a").unwrap();
    kit.hears("start c2").await;
    assert_eq!(kit.said(), "stop c1, start a2, start c2");
    assert_eq!(children(&top).await, "a running, b stopped, c running");
    top.restart_child("b").await.unwrap();
    assert_eq!(children(&top).await, "a running, b running, c running");
}

/// A transient child that has ended normally comes back with its siblings, as in OTP 25.
#[tokio::test(start_paused = true)]
async fn a_child_that_ended_by_itself_comes_back_with_its_siblings() {
    let kit = Kit::new();
    let spec =
        with(SupervisorSpec::one_for_all("top"), &kit, "a").child(kit.child("b").transient());
    let system = System::start(spec).await.unwrap();
    let top = system.supervisor("top").unwrap();
    worker(&system, "top/b").call(Do::Finish).await.unwrap();
    settle(&top).await;
    assert_eq!(children(&top).await, "a running, b stopped");
    system.kill("top/a").unwrap();
    kit.hears("start b2").await;
    assert_eq!(ping(&system, "top/b").await.unwrap(), 2);
}

/// A supervisor that is started again has the children of its spec, as in OTP, where `init` is called
/// anew: also those that were deleted, and temporary ones that had ended.
#[tokio::test(start_paused = true)]
async fn a_supervisor_that_is_started_again_has_all_children_of_its_spec() {
    let kit = Kit::new();
    let deep = with(SupervisorSpec::one_for_one("deep"), &kit, "x");
    let team = with(SupervisorSpec::one_for_one("team"), &kit, "ab")
        .child(kit.child("t").temporary())
        .supervisor(deep.restart(RestartType::Temporary))
        .intensity(0, secs(5))
        .no_child_limit();
    let system = System::start(SupervisorSpec::one_for_one("top").supervisor(team)).await.unwrap();
    let team = system.supervisor("top/team").unwrap();
    let (b, x) = (worker(&system, "top/team/b"), worker(&system, "top/team/deep/x"));
    assert_eq!(x.call(Do::Ping).await.unwrap().value, 1);
    let before = system.tree();
    worker(&system, "top/team/t").call(Do::Finish).await.unwrap();
    for id in ["b", "deep"] {
        team.terminate_child(id).await.unwrap();
    }
    team.delete_child("b").await.unwrap();
    settle(&team).await;
    assert_eq!(children(&team).await, "a running");
    let dump = system.tree();
    assert_eq!(dump.len(), 3, "top, team and a: {dump}");
    assert_eq!(dump.counts(), system.counts());
    // Another child under an old name does not outlive the supervisor.
    team.start_child(kit.child("b")).await.unwrap();
    assert_eq!(ping(&system, "top/team/b").await.unwrap(), 1);
    assert!(b.call(Do::Ping).await.is_err(), "the old address is not the new child's");

    system.kill("top/team/a").unwrap();
    kit.hears("start a2").await;
    settle(&system.supervisor("top").unwrap()).await;
    assert_eq!(children(&team).await, "a running, b running, t running, deep running");
    assert_eq!(b.call(Do::Ping).await.unwrap().value, 2, "the old address holds again");
    assert_eq!(x.call(Do::Ping).await.unwrap().value, 2);
    assert_eq!(ping(&system, "top/team/t").await.unwrap(), 2);
    let dump = system.tree();
    assert_eq!((dump.len(), dump.counts()), (before.len(), system.counts()), "{dump}");
    let fates = system.fates();
    assert!(fates.is_balanced());
    assert_eq!((fates.accepted, fates.done, fates.open), (6, 6, 0));
}
