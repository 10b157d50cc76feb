//! What operators ask of a supervisor, with OTP's answers, and what OTP's neighbors on ractor got wrong.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mainstay::error::{CallError, ChildError, LookupError, SpecError, StartError};
use mainstay::family::ChildCounts;
use mainstay::fate::Fate;
use mainstay::fault::ExitCause;
use mainstay::policy::Policy;
use mainstay::spec::acting::Irreversible;
use mainstay::spec::{RestartType, SupervisorSpec};
use mainstay::system::{SupervisorRef, System};

#[path = "tree/kit.rs"]
mod kit;

use kit::{Do, FOREVER, Kit, Starts, children, now, pass, ping, secs, settle, with, worker};

async fn run(spec: SupervisorSpec, kit: &Kit) -> (System, SupervisorRef) {
    let spec = spec.intensity(9, secs(5)).no_child_limit();
    let system = System::start(spec).await.unwrap();
    let top = system.supervisor("top").unwrap();
    kit.said();
    (system, top)
}

fn slow(spec: SupervisorSpec) -> SupervisorSpec {
    spec.restart_backoff(secs(10), secs(10))
}

#[tokio::test(start_paused = true)]
async fn a_child_comes_and_goes_at_run_time() {
    let kit = Kit::new();
    let (system, top) = run(SupervisorSpec::dynamic("top"), &kit).await;
    assert_eq!(top.start_child(kit.child("a")).await.unwrap(), "top/a");
    let a = worker(&system, "top/a");
    assert_eq!(a.call(Do::Ping).await.unwrap().value, 1);
    top.terminate_child("a").await.unwrap();
    assert!(matches!(a.call(Do::Ping).await, Err(CallError::Refused { .. })));
    top.restart_child("a").await.unwrap();
    assert_eq!(a.call(Do::Ping).await.unwrap().value, 2, "the address holds");
    top.terminate_child("a").await.unwrap();
    top.delete_child("a").await.unwrap();
    assert_eq!(children(&top).await, "");
    assert!(matches!(system.child::<kit::Worker>("top/a"), Err(LookupError::NotFound(_))));
    assert_eq!(kit.said(), "start a1, stop a1, start a2, stop a2");
    assert_eq!((system.fates().accepted, system.fates().open), (2, 0), "what was counted is kept");
}

#[tokio::test(start_paused = true)]
async fn a_static_child_is_administrated_as_a_dynamic_one() {
    let kit = Kit::new();
    let (system, top) = run(with(SupervisorSpec::one_for_one("top"), &kit, "ab"), &kit).await;
    top.terminate_child("a").await.unwrap();
    top.delete_child("a").await.unwrap();
    assert_eq!(children(&top).await, "b running");
    top.start_child(kit.child("a")).await.unwrap();
    assert_eq!(children(&top).await, "b running, a running", "last in the order of starts");
    assert_eq!(ping(&system, "top/a").await.unwrap(), 1, "another child with an old name");
}

#[tokio::test(start_paused = true)]
async fn misuse_has_otps_answers() {
    // The same calls made to OTP 25 answer already_started, running, running, not_found (three times),
    // ok, already_present, ok, in this order.
    let kit = Kit::new();
    let (_system, top) = run(with(SupervisorSpec::one_for_one("top"), &kit, "a"), &kit).await;
    let path = || "top/a".into();
    assert_eq!(top.start_child(kit.child("a")).await, Err(StartError::AlreadyStarted(path())));
    assert_eq!(top.restart_child("a").await, Err(ChildError::Running(path())));
    assert_eq!(top.delete_child("a").await, Err(ChildError::Running(path())));
    let unknown = || Err(ChildError::NotFound("top/x".into()));
    assert_eq!(top.terminate_child("x").await, unknown());
    assert_eq!(top.restart_child("x").await, unknown());
    assert_eq!(top.delete_child("x").await, unknown());
    assert_eq!(top.child_spec("x").await.map(|_| ()), unknown());
    assert_eq!(top.terminate_child("a").await, Ok(()));
    assert_eq!(top.start_child(kit.child("a")).await, Err(StartError::AlreadyPresent(path())));
    assert_eq!(top.terminate_child("a").await, Ok(()));
    assert_eq!(kit.said(), "stop a1");
}

#[tokio::test(start_paused = true)]
async fn a_child_between_two_lives_is_restarting() {
    let kit = Kit::new();
    let (system, top) = run(slow(with(SupervisorSpec::one_for_one("top"), &kit, "a")), &kit).await;
    system.kill("top/a").unwrap();
    settle(&top).await;
    assert_eq!(children(&top).await, "a restarting");
    let path = || "top/a".into();
    assert_eq!(top.restart_child("a").await, Err(ChildError::Restarting(path())));
    assert_eq!(top.delete_child("a").await, Err(ChildError::Restarting(path())));
    assert_eq!(top.start_child(kit.child("a")).await, Err(StartError::AlreadyStarted(path())));
    kit.hears("start a2").await;
}

/// Defect R2: the child came back although its termination had been confirmed.
#[tokio::test(start_paused = true)]
async fn a_child_terminated_during_its_backoff_stays_away_and_what_waits_hears_of_it() {
    for spec in [
        SupervisorSpec::one_for_one("top"),
        SupervisorSpec::rest_for_one("top"),
        SupervisorSpec::one_for_all("top"),
    ] {
        let kit = Kit::new();
        let (system, top) = run(slow(with(spec, &kit, "a")), &kit).await;
        system.kill("top/a").unwrap();
        settle(&top).await;
        let waits = worker(&system, "top/a").cast(Do::Ping).unwrap();
        top.terminate_child("a").await.unwrap();
        assert_eq!(system.fate(waits), Some(Some(Fate::Stopped)));
        assert!(ping(&system, "top/a").await.is_err());
        pass(secs(60)).await;
        settle(&top).await;
        assert_eq!(children(&top).await, "a stopped");
        assert_eq!(kit.said(), "");
    }
}

/// Defect R3: a duplicate was confirmed, and then melted the supervisor with the first child.
#[tokio::test(start_paused = true)]
async fn a_duplicate_is_refused_and_does_not_touch_the_first() {
    let kit = Kit::new();
    let (system, top) = run(SupervisorSpec::dynamic("top"), &kit).await;
    top.start_child(kit.child("a")).await.unwrap();
    for _ in 0..20 {
        let again = top.start_child(kit.child("a")).await;
        assert_eq!(again, Err(StartError::AlreadyStarted("top/a".into())));
    }
    pass(secs(60)).await;
    assert_eq!(ping(&system, "top/a").await.unwrap(), 1);
    assert_eq!(kit.said(), "start a1");
}

/// Defect R4: a child in backoff did not count, and its return then melted the supervisor.
#[tokio::test(start_paused = true)]
async fn a_child_in_backoff_keeps_its_place_below_max_children() {
    let kit = Kit::new();
    let spec = slow(SupervisorSpec::dynamic("top")).max_children(NonZeroUsize::new(1).unwrap());
    let (system, top) = run(spec, &kit).await;
    top.start_child(kit.child("a")).await.unwrap();
    system.kill("top/a").unwrap();
    settle(&top).await;
    let full = StartError::MaxChildren { supervisor: "top".into(), limit: 1 };
    assert_eq!(top.start_child(kit.child("b")).await, Err(full.clone()));
    assert!(matches!(system.child::<kit::Worker>("top/b"), Err(LookupError::NotFound(_))));
    kit.hears("start a2").await;
    assert_eq!(ping(&system, "top/a").await.unwrap(), 2);
    top.terminate_child("a").await.unwrap();
    assert_eq!(top.start_child(kit.child("b")).await, Err(full), "its spec is kept");
    top.delete_child("a").await.unwrap();
    top.start_child(kit.child("b")).await.unwrap();
}

/// Defect R5: a sibling that was slow to stop made its next life collide with the one before.
#[tokio::test(start_paused = true)]
async fn one_for_all_waits_for_a_sibling_that_is_slow_to_stop() {
    let kit = Kit::new();
    let (system, top) = run(with(SupervisorSpec::one_for_all("top"), &kit, "ab"), &kit).await;
    kit.stops("b", kit::Stops::After(secs(3)));
    let begun = now();
    system.kill("top/a").unwrap();
    kit.hears("start b2").await;
    assert_eq!(begun.elapsed(), secs(3));
    assert_eq!(kit.said(), "stop b1, stopped b1, start a2, start b2");
    assert_eq!(children(&top).await, "a running, b running");
}

/// Defect R6: a temporary child whose start failed was confirmed.
#[tokio::test(start_paused = true)]
async fn a_first_start_that_fails_is_refused_with_its_cause_and_leaves_nothing_behind() {
    for kind in [RestartType::Permanent, RestartType::Transient, RestartType::Temporary] {
        for (starts, why) in [
            (Starts::Not, "not today"),
            (Starts::Panics, "start panicked: no start"),
            (Starts::ConstructorPanics, "the constructor panicked: not made"),
        ] {
            let kit = Kit::new();
            let (system, top) = run(SupervisorSpec::dynamic("top"), &kit).await;
            kit.starts("a", starts);
            let error = top.start_child(kit.child("a").restart(kind)).await.unwrap_err();
            let StartError::Child { child, cause: ExitCause::StartFailed(text) } = error else {
                panic!("another error: {error}")
            };
            assert_eq!(child, "top/a");
            assert!(text.contains(why), "{text}");
            assert_eq!(children(&top).await, "");
            assert!(system.child::<kit::Worker>("top/a").is_err());
            kit.starts("a", Starts::Well);
            top.start_child(kit.child("a")).await.unwrap();
            assert_eq!(ping(&system, "top/a").await.unwrap(), 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_by_hand_that_fails_is_told_and_leaves_the_child_stopped() {
    let kit = Kit::new();
    let (system, top) = run(with(SupervisorSpec::one_for_one("top"), &kit, "a"), &kit).await;
    top.terminate_child("a").await.unwrap();
    kit.starts("a", Starts::Not);
    let error = top.restart_child("a").await.unwrap_err();
    assert!(matches!(error, ChildError::StartFailed { .. }), "{error}");
    assert_eq!(children(&top).await, "a stopped");
    settle(&top).await;
    let call = tokio::time::timeout(FOREVER, ping(&system, "top/a"));
    let refused = call.await.expect("it is refused, and does not wait");
    assert!(matches!(refused, Err(CallError::Refused { .. })), "{refused:?}");
    kit.starts("a", Starts::Well);
    top.restart_child("a").await.unwrap();
    assert_eq!(ping(&system, "top/a").await.unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_spec_that_cannot_be_run_is_refused_by_name() {
    let kit = Kit::new();
    let (_system, top) = run(SupervisorSpec::dynamic("top"), &kit).await;
    let refused = top.start_child(kit.child("a").concurrency(0)).await;
    let expected = SpecError::Zero { path: "top/a".into(), what: "the concurrency" };
    assert_eq!(refused, Err(StartError::Spec(expected)));
    let refused =
        top.start_child(kit.child("a").needs::<mainstay::port::Port<u8, u8>>("llm")).await;
    let expected = SpecError::UnknownNeed { child: "top/a".into(), need: "llm".into() };
    assert_eq!(refused, Err(StartError::Spec(expected)));
    let blind = kit.child("a").policy(Policy::new()).acts::<Irreversible>();
    let expected = SpecError::RetriesIrreversible { path: "top/a".into() };
    assert_eq!(top.start_child(blind).await, Err(StartError::Spec(expected)));
    assert_eq!(children(&top).await, "");
}

#[tokio::test(start_paused = true)]
async fn children_are_listed_counted_and_described() {
    let kit = Kit::new();
    let spec = with(SupervisorSpec::one_for_one("top"), &kit, "ab")
        .supervisor(with(SupervisorSpec::one_for_one("inner"), &kit, "x"))
        .child(kit.child("t").transient());
    let (_system, top) = run(spec, &kit).await;
    top.terminate_child("b").await.unwrap();
    assert_eq!(children(&top).await, "a running, b stopped, inner running, t running");
    let counts = ChildCounts { specs: 4, active: 3, supervisors: 1, workers: 3 };
    assert_eq!(top.count_children().await.unwrap(), counts);
    let infos = top.which_children().await.unwrap();
    assert!(infos[2].options.is_supervisor && !infos[0].options.is_supervisor);
    assert_eq!(infos[3].options.restart, RestartType::Transient);
    let spec = top.child_spec("b").await.unwrap();
    assert_eq!(spec.id(), "b");
    // A spec that was asked for can be started elsewhere.
    top.start_child(spec.with_id("c")).await.unwrap();
    assert!(children(&top).await.ends_with("c running"));
}

/// Many come and go under one name: the clean-up of one never takes its successor with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_is_free_when_its_child_is_gone_and_its_successor_can_be_found() {
    let kit = Kit::new();
    let (system, top) = run(SupervisorSpec::dynamic("top"), &kit).await;
    for _ in 0..300 {
        top.start_child(kit.child("a").temporary()).await.unwrap();
        assert_eq!(ping(&system, "top/a").await.unwrap(), 1);
        top.terminate_child("a").await.unwrap();
    }
    assert_eq!((system.fates().accepted, system.fates().done), (300, 300));
}

/// A spec holds user values, whose `Drop` is user code: a supervisor does not run it.
#[tokio::test(start_paused = true)]
async fn a_refused_spec_that_panics_when_it_is_dropped_harms_nobody() {
    struct Bomb(Arc<AtomicUsize>);
    impl Drop for Bomb {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
            panic!("dropped");
        }
    }
    let kit = Kit::new();
    let dropped = Arc::new(AtomicUsize::new(0));
    let (system, top) = run(SupervisorSpec::dynamic("top"), &kit).await;
    top.start_child(kit.child("a")).await.unwrap();
    let bomb = |id: &str| {
        let bomb = Bomb(Arc::clone(&dropped));
        kit.child(id).mailbox_bytes(100, move |_: &Do| {
            let _ = &bomb;
            1
        })
    };
    assert!(top.start_child(bomb("a")).await.is_err());
    assert!(top.start_child(bomb("b").concurrency(0)).await.is_err());
    top.start_child(bomb("c").temporary()).await.unwrap();
    top.terminate_child("c").await.unwrap();
    settle(&top).await;
    assert_eq!(dropped.load(Ordering::SeqCst), 3);
    assert_eq!(ping(&system, "top/a").await.unwrap(), 1);
    assert_eq!(children(&top).await, "a running");
}
