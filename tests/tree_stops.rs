//! Starting and stopping: order, limits, failing starts, and what works while everything is stuck.

use mainstay::error::{CallError, ChildError, StartError};
use mainstay::family::ChildStatus;
use mainstay::fault::ExitCause;
use mainstay::spec::{GroupSpec, Shutdown, SupervisorSpec};
use mainstay::system::System;

#[path = "tree/kit.rs"]
mod kit;

use kit::{Do, Kit, Starts, Stops, children, now, pass, ping, secs, settle, with, worker};

/// `a`, then a supervisor with `b` and `c`, then `d`.
fn nested(kit: &Kit) -> SupervisorSpec {
    SupervisorSpec::one_for_one("top")
        .child(kit.child("a"))
        .supervisor(with(SupervisorSpec::one_for_one("in"), kit, "bc"))
        .child(kit.child("d"))
}

#[tokio::test(start_paused = true)]
async fn a_tree_starts_from_left_to_right_and_stops_from_right_to_left() {
    let kit = Kit::new();
    let system = System::start(nested(&kit)).await.unwrap();
    assert_eq!(kit.said(), "start a1, start b1, start c1, start d1");
    system.stop().await;
    assert_eq!(kit.said(), "stop d1, stop c1, stop b1, stop a1");
    assert_eq!(system.wait().await.0, ExitCause::Stopped);
}

/// Defect R7: a tree was said to run although a child could never start. As in OTP, the ones started
/// before it are stopped in reverse order, and the cause comes back.
#[tokio::test(start_paused = true)]
async fn a_start_that_fails_stops_what_was_started_in_reverse_and_returns_its_cause() {
    let kit = Kit::new();
    kit.starts("c", Starts::Not);
    let error = System::start(nested(&kit)).await.unwrap_err();
    assert_eq!(kit.said(), "start a1, start b1, fail c1, stop b1, stop a1");
    let StartError::Child { child, cause: ExitCause::StartFailed(text) } = error else {
        panic!("another error: {error}")
    };
    assert_eq!(child, "top/in");
    assert!(text.contains("top/in/c") && text.contains("not today"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_start_that_panics_or_takes_too_long_is_a_start_that_fails() {
    for (starts, why) in [
        (Starts::Panics, "panicked: no start"),
        (Starts::ConstructorPanics, "constructor panicked: not made"),
        (Starts::Never, "longer than 7s"),
    ] {
        let kit = Kit::new();
        kit.starts("b", starts);
        let begun = now();
        let spec = with(SupervisorSpec::one_for_one("top"), &kit, "a")
            .child(kit.child("b").start_timeout(secs(7)));
        let error = System::start(spec).await.unwrap_err().to_string();
        assert!(error.contains("top/b") && error.contains(why), "{error}");
        assert_eq!(begun.elapsed(), secs(if starts == Starts::Never { 7 } else { 0 }));
        assert!(kit.said().ends_with("stop a1"));
    }
}

#[tokio::test(start_paused = true)]
async fn each_child_has_its_own_time_to_stop() {
    for (shutdown, expected, said) in [
        (Shutdown::Brutal, 0, "stop b1, stop a1"),
        (Shutdown::Timeout(secs(3)), 3, "stop b1, stop a1"),
        (Shutdown::Timeout(secs(30)), 20, "stop b1, stopped b1, stop a1"),
        (Shutdown::Infinity, 20, "stop b1, stopped b1, stop a1"),
    ] {
        let kit = Kit::new();
        kit.stops("b", Stops::After(secs(20)));
        let spec = with(SupervisorSpec::one_for_one("top"), &kit, "a")
            .child(kit.child("b").shutdown(shutdown));
        let system = System::start(spec).await.unwrap();
        kit.said();
        let begun = now();
        system.stop().await;
        assert_eq!(begun.elapsed(), secs(expected), "{shutdown:?}");
        let said = if shutdown == Shutdown::Brutal { "stop a1" } else { said };
        assert_eq!(kit.said(), said, "{shutdown:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_child_that_is_at_work_finishes_its_step_within_its_time_or_is_cut_off() {
    for shutdown in [Shutdown::Brutal, Shutdown::Timeout(secs(3))] {
        let kit = Kit::new();
        let spec = SupervisorSpec::one_for_one("top").child(kit.child("a").shutdown(shutdown));
        let system = System::start(spec).await.unwrap();
        let a = worker(&system, "top/a");
        let call = tokio::spawn(async move { a.call(Do::Hang).await });
        kit.hears("hang a1").await;
        let begun = now();
        system.stop().await;
        let limit = if shutdown == Shutdown::Brutal { 0 } else { 3 };
        assert_eq!(begun.elapsed(), secs(limit));
        assert!(matches!(call.await.unwrap(), Err(CallError::Stopped { .. })));
        assert_eq!(system.fates().open, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_past_its_own_limit_takes_its_children_with_it() {
    let kit = Kit::new();
    kit.stops("b", Stops::Never);
    let inner = SupervisorSpec::one_for_one("in")
        .child(kit.child("b").shutdown(Shutdown::Infinity))
        .shutdown(Shutdown::Timeout(secs(4)));
    let spec = SupervisorSpec::one_for_one("top").child(kit.child("a")).supervisor(inner);
    let system = System::start(spec).await.unwrap();
    let begun = now();
    system.stop().await;
    assert_eq!(begun.elapsed(), secs(4));
    assert!(kit.said().ends_with("stop b1, stop a1"));
    assert!(ping(&system, "top/in/b").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn dynamic_children_are_stopped_in_parallel() {
    let kit = Kit::new();
    let spec = SupervisorSpec::one_for_one("top").supervisor(SupervisorSpec::dynamic("pool"));
    let system = System::start(spec).await.unwrap();
    let pool = system.supervisor("top/pool").unwrap();
    for id in ["a", "b", "c"] {
        kit.stops(id, Stops::After(secs(4)));
        pool.start_child(kit.child(id)).await.unwrap();
    }
    let begun = now();
    system.stop().await;
    assert_eq!(begun.elapsed(), secs(4), "not twelve");
}

/// In every state that a supervisor can be stuck in, it answers, can be dumped, and stops.
#[tokio::test(start_paused = true)]
async fn a_supervisor_works_while_its_children_hang_back_off_or_block_in_their_start() {
    let kit = Kit::new();
    let spec = with(SupervisorSpec::one_for_one("top"), &kit, "abc")
        .supervisor(SupervisorSpec::dynamic("pool"))
        .intensity(9, secs(5))
        .no_child_limit()
        .restart_backoff(secs(50), secs(50));
    let system = System::start(spec).await.unwrap();
    let top = system.supervisor("top").unwrap();
    let pool = system.supervisor("top/pool").unwrap();
    let hangs = worker(&system, "top/a").cast(Do::Hang).unwrap();
    kit.hears("hang a1").await;
    system.kill("top/b").unwrap();
    kit.starts("x", Starts::Never);
    let starting = tokio::spawn({
        let (pool, spec) = (pool.clone(), kit.child("x"));
        async move { pool.start_child(spec).await }
    });
    kit.hears("try x1").await;
    settle(&top).await;
    let begun = now();
    assert_eq!(children(&top).await, "a running, b restarting, c running, pool running");
    assert_eq!(children(&pool).await, "x starting");
    pool.start_child(kit.child("y")).await.unwrap();
    assert_eq!(ping(&system, "top/pool/y").await.unwrap(), 1);
    top.terminate_child("c").await.unwrap();
    top.delete_child("c").await.unwrap();
    assert_eq!(top.count_children().await.unwrap().specs, 3);
    assert_eq!(top.child_spec("a").await.unwrap().id(), "a");
    let dumped = std::thread::spawn({
        let system = system.clone();
        move || system.tree().to_string()
    });
    let dump = dumped.join().unwrap();
    for part in ["busy", "restarting", "starting"] {
        assert!(dump.contains(part), "{part} in {dump}");
    }
    assert_eq!(begun.elapsed(), secs(0));
    system.stop().await;
    assert_eq!(begun.elapsed(), secs(5), "a's five seconds, and nobody else's");
    let gone = StartError::SupervisorGone("top/pool".into());
    assert_eq!(starting.await.unwrap(), Err(gone));
    assert!(matches!(system.fate(hangs), Some(Some(_))));
    pass(secs(1000)).await;
    let said = kit.said();
    assert!(said.ends_with("stop y1"), "nothing comes back: {said}");
    let gone = ChildError::SupervisorGone("top".into());
    assert_eq!(top.which_children().await, Err(gone.clone()));
    assert_eq!(top.terminate_child("a").await, Err(gone));
    assert!(top.start_child(kit.child("z")).await.is_err());
}

/// A supervisor stopped during a backoff, a start or a restart loop stops, and nothing comes back.
#[tokio::test(start_paused = true)]
async fn a_supervisor_stopped_in_the_middle_of_a_restart_stops_and_nothing_comes_back() {
    let strategies =
        [SupervisorSpec::one_for_one, SupervisorSpec::rest_for_one, SupervisorSpec::one_for_all];
    for strategy in strategies {
        for starts in [Starts::Well, Starts::Never, Starts::Not] {
            let kit = Kit::new();
            let inner =
                with(strategy("in"), &kit, "ab").intensity(u32::MAX, secs(5)).no_child_limit();
            // Well: stopped in its backoff. Never: in a start. Not: in a loop of failing starts.
            let wait = if starts == Starts::Well { 50 } else { 1 };
            let inner = inner.restart_backoff(secs(wait), secs(wait));
            let spec = SupervisorSpec::one_for_one("top").supervisor(inner);
            let system = System::start(spec).await.unwrap();
            kit.starts("b", starts);
            system.kill("top/in/b").unwrap();
            let inner = system.supervisor("top/in").unwrap();
            match starts {
                Starts::Never => kit.hears("try b2").await,
                Starts::Not => kit.hears("fail b4").await,
                _ => settle(&inner).await,
            }
            let waits = worker(&system, "top/in/b").cast(Do::Ping).unwrap();
            kit.starts("b", Starts::Well);
            kit.said();
            let begun = now();
            system.supervisor("top").unwrap().terminate_child("in").await.unwrap();
            assert_eq!(begun.elapsed(), secs(0));
            // It is remembered for ten minutes.
            assert!(matches!(system.fate(waits), Some(Some(_))), "{starts:?}");
            kit.said();
            pass(secs(1000)).await;
            settle(&system.supervisor("top").unwrap()).await;
            assert_eq!(kit.said(), "", "{starts:?}");
            assert_eq!(children(&system.supervisor("top").unwrap()).await, "in stopped");
            assert!(ping(&system, "top/in/a").await.is_err());
            // By hand it comes back whole.
            system.supervisor("top").unwrap().restart_child("in").await.unwrap();
            assert_eq!(
                children(&system.supervisor("top/in").unwrap()).await,
                "a running, b running"
            );
            assert!(ping(&system, "top/in/b").await.is_ok());
            system.stop().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_tree_whose_last_handle_is_dropped_is_stopped() {
    let kit = Kit::new();
    let system = System::start(nested(&kit)).await.unwrap();
    let a = worker(&system, "top/a");
    drop(system);
    kit.hears("stop a1").await;
    assert!(kit.said().ends_with("stop d1, stop c1, stop b1, stop a1"));
    assert!(a.call(Do::Ping).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_group_can_be_administrated_as_the_supervisor_of_its_members() {
    let kit = Kit::new();
    let group = GroupSpec::tool("tools").member_spec(kit.child("x")).member_spec(kit.child("y"));
    let system = System::start(SupervisorSpec::one_for_one("top").group(group)).await.unwrap();
    let tools = system.supervisor("top/tools").unwrap();
    assert_eq!(children(&tools).await, "x running, y running");
    tools.terminate_child("x").await.unwrap();
    let port = system.port::<Do, u32>("top/tools").unwrap();
    assert_eq!(port.call(Do::Ping).await.unwrap().served_by, "top/tools/y");
    tools.restart_child("x").await.unwrap();
    assert_eq!(port.call(Do::Ping).await.unwrap().served_by, "top/tools/x");
}

/// Dumps and administration from plain threads, beside a runtime whose only worker is blocked.
#[test]
fn a_tree_is_dumped_from_any_thread_while_the_only_worker_is_blocked() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let kit = Kit::new();
    let system = runtime.block_on(async { System::start(nested(&kit)).await.unwrap() });
    // Nothing drives the runtime from here on.
    let dumps: Vec<_> = (0..4)
        .map(|_| {
            let system = system.clone();
            std::thread::spawn(move || system.tree().to_string())
        })
        .collect();
    for dump in dumps {
        let dump = dump.join().unwrap();
        for id in ["top", "in", "a", "b", "c", "d"] {
            assert!(dump.contains(id), "{dump}");
        }
    }
    assert!(system.fates().is_balanced());
    runtime.block_on(system.stop());
}

/// A brutal stop of a supervisor that is to come back takes all that is below it, at any depth, before
/// anything starts again: no left-over of it ends the lives that follow.
#[tokio::test(start_paused = true)]
async fn a_supervisor_stopped_brutally_comes_back_whole() {
    let kit = Kit::new();
    let deepest = with(SupervisorSpec::one_for_one("deepest"), &kit, "z");
    let deep = with(SupervisorSpec::one_for_one("deep"), &kit, "y").supervisor(deepest);
    let brutal = with(SupervisorSpec::one_for_one("brutal"), &kit, "x")
        .supervisor(deep)
        .shutdown(Shutdown::Brutal);
    let spec = with(SupervisorSpec::one_for_all("top"), &kit, "a")
        .supervisor(brutal)
        .intensity(100, secs(5));
    let system = System::start(spec).await.unwrap();
    let top = system.supervisor("top").unwrap();
    for id in ["x", "y", "z"] {
        kit.stops(id, Stops::Never);
    }
    for life in 2..20 {
        let begun = now();
        system.kill("top/a").unwrap();
        kit.hears(&format!("start z{life}")).await;
        settle(&top).await;
        let said = kit.said();
        let started = format!("start a{life}, start x{life}, start y{life}, start z{life}");
        assert!(said.ends_with(&started), "{said}");
        assert_eq!(begun.elapsed(), secs(0));
        for path in ["top/brutal/x", "top/brutal/deep/y", "top/brutal/deep/deepest/z"] {
            assert_eq!(ping(&system, path).await.unwrap(), life, "{path}");
        }
        let restarts = system.tree().find(&"top/brutal/deep".into()).unwrap().restarts();
        assert_eq!(restarts, life - 1, "one life after the other: {}", system.tree());
    }
    system.stop().await;
}

/// Those that come after the one whose start hangs are called off before they have begun. That must not
/// use up the number that they are given next: they could never be started again, and their supervisor
/// would fail for ever.
#[tokio::test(start_paused = true)]
async fn a_supervisor_that_is_stopped_while_a_restart_hangs_can_be_started_again() {
    let kit = Kit::new();
    let inner = with(SupervisorSpec::one_for_all("in"), &kit, "ab").intensity(9, secs(5));
    let system = System::start(SupervisorSpec::one_for_one("top").supervisor(inner)).await.unwrap();
    let top = system.supervisor("top").unwrap();
    kit.starts("a", Starts::Never);
    system.kill("top/in/a").unwrap();
    kit.hears("try a2").await;
    top.terminate_child("in").await.unwrap();
    kit.starts("a", Starts::Well);
    top.restart_child("in").await.unwrap();
    assert_eq!(ping(&system, "top/in/a").await.unwrap(), 3);
    assert_eq!(ping(&system, "top/in/b").await.unwrap(), 3);
    assert_eq!(top.which_children().await.unwrap()[0].status, ChildStatus::Running);
}
