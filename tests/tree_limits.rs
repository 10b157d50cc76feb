//! How often is too often: intensity, the limit of a single child, backoff, and what goes up when a
//! supervisor gives up.

use mainstay::error::CallError;
use mainstay::event::Event;
use mainstay::family::ChildStatus;
use mainstay::fault::ExitCause;
use mainstay::spec::SupervisorSpec;
use mainstay::system::System;

#[path = "tree/kit.rs"]
mod kit;

use kit::{Do, Kit, children, now, pass, ping, secs, settle, status, with, worker};

async fn crash(system: &System, kit: &Kit, life: u32) {
    system.kill("top/a").unwrap();
    kit.hears(&format!("start a{}", life + 1)).await;
    kit.said();
}

// OTP's supervisor, asked with erts 13: MaxR restarts within MaxT seconds are allowed, one more is not,
// and a restart exactly MaxT old still counts (supervisor:in_period, `>=`). Its clock counts in whole
// seconds, ours in nanoseconds.
#[tokio::test(start_paused = true)]
async fn one_restart_more_than_the_intensity_within_the_period_ends_the_supervisor() {
    let kit = Kit::new();
    let spec = with(SupervisorSpec::one_for_one("top"), &kit, "a");
    let system = System::start(spec.intensity(2, secs(5)).no_child_limit()).await.unwrap();
    crash(&system, &kit, 1).await;
    pass(secs(3)).await;
    crash(&system, &kit, 2).await;
    pass(secs(2)).await;
    system.kill("top/a").unwrap();
    let ExitCause::Intensity { child, cause, restarts, period } = system.wait().await.0 else {
        panic!("another cause")
    };
    assert_eq!((child.as_str(), *cause, restarts), ("top/a", ExitCause::Killed, 3));
    assert_eq!(period, secs(5));
}

#[tokio::test(start_paused = true)]
async fn the_window_slides_a_restart_older_than_the_period_does_not_count() {
    let kit = Kit::new();
    let spec = with(SupervisorSpec::one_for_one("top"), &kit, "a");
    let system = System::start(spec.intensity(2, secs(5)).no_child_limit()).await.unwrap();
    crash(&system, &kit, 1).await;
    pass(secs(3)).await;
    crash(&system, &kit, 2).await;
    pass(secs(2) + std::time::Duration::from_millis(1)).await;
    crash(&system, &kit, 3).await;
    pass(secs(3)).await;
    crash(&system, &kit, 4).await;
    assert_eq!(ping(&system, "top/a").await.unwrap(), 5);
}

#[tokio::test(start_paused = true)]
async fn an_intensity_of_zero_allows_no_restart() {
    let kit = Kit::new();
    let spec = with(SupervisorSpec::one_for_one("top"), &kit, "ab");
    let system = System::start(spec.intensity(0, secs(5)).no_child_limit()).await.unwrap();
    kit.said();
    system.kill("top/b").unwrap();
    assert!(matches!(system.wait().await.0, ExitCause::Intensity { restarts: 1, .. }));
    assert_eq!(kit.said(), "stop a1");
}

#[tokio::test(start_paused = true)]
async fn the_child_in_a_loop_is_set_aside_before_its_group_falls() {
    let kit = Kit::new();
    let spec = with(SupervisorSpec::one_for_one("top"), &kit, "ab");
    let system = System::start(spec.intensity(3, secs(5)).child_limit(2, secs(5))).await.unwrap();
    let mut events = system.events();
    for life in [1, 2] {
        crash(&system, &kit, life).await;
    }
    let a = worker(&system, "top/a");
    let waits = tokio::spawn({
        let a = a.clone();
        async move { a.call(Do::Hang).await }
    });
    kit.hears("hang a3").await;
    system.kill("top/a").unwrap();
    // What waits is told, what comes is refused, and the siblings go on.
    assert!(matches!(waits.await.unwrap(), Err(CallError::Stopped { .. })));
    assert!(matches!(a.call(Do::Ping).await, Err(CallError::Refused { .. })));
    let top = system.supervisor("top").unwrap();
    assert_eq!(children(&top).await, "a quarantined, b running");
    assert_eq!(ping(&system, "top/b").await.unwrap(), 1);
    let mut quarantined = 0;
    while let Some(stamped) = events.try_next() {
        if let Event::ChildQuarantined { child, .. } = &stamped.event {
            assert_eq!(child.as_str(), "top/a");
            quarantined += 1;
        }
    }
    assert_eq!(quarantined, 1);
    // The third exit did not count against the group: two restarts did, and a third is allowed.
    system.kill("top/b").unwrap();
    kit.hears("start b2").await;
    // An operator brings it back, with a clean record.
    top.restart_child("a").await.unwrap();
    assert_eq!(ping(&system, "top/a").await.unwrap(), 4);
    assert_eq!(status(&top, "a").await, Some(ChildStatus::Running));
}

#[tokio::test(start_paused = true)]
async fn a_childs_own_limit_goes_before_that_of_its_supervisor() {
    let kit = Kit::new();
    let spec = SupervisorSpec::one_for_one("top")
        .child(kit.child("a").child_limit(0, secs(5)))
        .child(kit.child("b"))
        .child_limit(5, secs(5))
        .intensity(9, secs(5));
    let system = System::start(spec).await.unwrap();
    system.kill("top/a").unwrap();
    system.kill("top/b").unwrap();
    kit.hears("start b2").await;
    let top = system.supervisor("top").unwrap();
    assert_eq!(children(&top).await, "a quarantined, b running");
}

#[tokio::test(start_paused = true)]
async fn the_limit_of_a_child_slides_as_the_intensity_does() {
    let kit = Kit::new();
    let spec = with(SupervisorSpec::one_for_one("top"), &kit, "a");
    let system = System::start(spec.intensity(9, secs(60)).child_limit(1, secs(5))).await.unwrap();
    crash(&system, &kit, 1).await;
    pass(secs(5) + std::time::Duration::from_nanos(1_000_000)).await;
    crash(&system, &kit, 2).await;
    pass(secs(5)).await;
    system.kill("top/a").unwrap();
    let top = system.supervisor("top").unwrap();
    settle(&top).await;
    assert_eq!(children(&top).await, "a quarantined", "exactly the period: it counts");
}

#[tokio::test(start_paused = true)]
async fn a_restart_waits_for_its_backoff_which_doubles_up_to_its_maximum() {
    let kit = Kit::new();
    let spec = with(SupervisorSpec::one_for_one("top"), &kit, "a");
    let spec = spec.intensity(9, secs(600)).no_child_limit().restart_backoff(secs(1), secs(3));
    let system = System::start(spec).await.unwrap();
    for (life, wait) in [(1, 1), (2, 2), (3, 3), (4, 3)] {
        let begun = now();
        crash(&system, &kit, life).await;
        assert_eq!(begun.elapsed(), secs(wait), "after life {life}");
    }
}

/// A nested supervisor that gives up is an exit of its parent's child, with the cause as data; the
/// parent starts it again, and its static children keep their addresses and mailboxes.
#[tokio::test(start_paused = true)]
async fn a_supervisor_that_gives_up_is_started_again_with_the_mailboxes_of_its_children() {
    let kit = Kit::new();
    let inner = with(SupervisorSpec::one_for_one("inner"), &kit, "ab");
    let inner = inner.intensity(1, secs(5)).no_child_limit();
    let spec =
        SupervisorSpec::one_for_one("top").supervisor(inner).restart_backoff(secs(1), secs(9));
    let system = System::start(spec).await.unwrap();
    let mut events = system.events();
    let a = worker(&system, "top/inner/a");
    kit.said();
    system.kill("top/inner/a").unwrap();
    kit.hears("start a2").await;
    let hung = a.cast(Do::Hang).unwrap();
    kit.hears("hang a2").await;
    let waits = tokio::spawn({
        let a = a.clone();
        async move { a.call(Do::Ping).await }
    });
    settle(&system.supervisor("top").unwrap()).await;
    system.kill("top/inner/a").unwrap();
    // Both were accepted by the life before; the one that hung is handed out once more, and hangs.
    kit.hears("hang a3").await;
    assert_eq!(kit.said(), "start a2, hang a2, stop b1, start a3, start b2, hang a3");
    assert_eq!(system.fate(hung), Some(None));
    assert!(!waits.is_finished());
    system.kill("top/inner/a").unwrap();
    assert_eq!(waits.await.unwrap().unwrap().value, 4);
    assert_eq!(a.call(Do::Ping).await.unwrap().value, 4, "the address has outlived its supervisor");
    let mut ended = Vec::new();
    while let Some(stamped) = events.try_next() {
        match &stamped.event {
            Event::Escalated { supervisor, child, cause, restarts } => {
                ended.push(format!("{supervisor} because of {child}: {cause}, {restarts}"));
            }
            Event::SupervisorEnded { supervisor, cause } => {
                ended.push(format!("{supervisor}: {cause}"));
            }
            _ => {}
        }
    }
    let expected =
        ["top/inner because of top/inner/a: killed, 2", "top/inner: restart intensity exceeded"];
    assert_eq!(ended, expected);
    assert!(system.fates().is_balanced());
}

#[tokio::test(start_paused = true)]
async fn an_escalation_that_reaches_the_root_says_the_whole_way() {
    let kit = Kit::new();
    let innermost = with(SupervisorSpec::one_for_one("in"), &kit, "a");
    let middle = SupervisorSpec::one_for_all("mid")
        .supervisor(innermost.intensity(0, secs(5)).no_child_limit())
        .child(kit.child("m"))
        .intensity(0, secs(5));
    let top = SupervisorSpec::one_for_one("top")
        .supervisor(middle)
        .child(kit.child("z"))
        .intensity(0, secs(5))
        .no_child_limit();
    let system = System::start(top).await.unwrap();
    kit.said();
    let z = worker(&system, "top/z");
    system.kill("top/mid/in/a").unwrap();
    let ended = system.wait().await.0;
    let mut way = Vec::new();
    let mut cause = &ended;
    while let ExitCause::Intensity { child, cause: inner, .. } = cause {
        way.push(child.as_str());
        cause = inner;
    }
    assert_eq!(way, ["top/mid", "top/mid/in", "top/mid/in/a"]);
    assert_eq!(*cause, ExitCause::Killed);
    assert_eq!(kit.said(), "stop m1, stop z1");
    assert!(z.call(Do::Ping).await.is_err());
    assert_eq!(system.fates().open, 0);
}
