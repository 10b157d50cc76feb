//! Callers of another runtime, after the system's own was dropped under it.

use std::sync::mpsc;
use std::time::Duration;

use mainstay::error::{CallError, ChildError, StartError, Unavailable};
use mainstay::fault::ExitKind;
use mainstay::port::Port;
use mainstay::spec::{GroupSpec, SupervisorSpec};
use mainstay::system::System;
use mainstay_actors::scripted::Script;

type Texts = Port<String, String>;

/// Nothing here takes seconds; who waits for ever is told so.
fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, waited) = mpsc::channel();
    std::thread::spawn(move || done.send(work()));
    waited.recv_timeout(Duration::from_secs(120)).expect("somebody waits for ever")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn root(script: &Script) -> SupervisorSpec {
    SupervisorSpec::one_for_one("root")
        .child(script.stateful("agent"))
        .child(script.stateless("tool"))
        .group(GroupSpec::model("llm").member_spec(script.stateless("one")))
        .supervisor(SupervisorSpec::dynamic("pool"))
}

#[test]
fn a_call_under_way_ends_when_the_runtime_of_its_system_is_dropped() {
    let own = runtime();
    let script = Script::echo();
    let system = own.block_on(System::start(root(&script))).unwrap();
    let pool = system.supervisor("root/pool").unwrap();
    own.block_on(pool.start_child(script.stateless("late"))).unwrap();
    let paths = ["root/agent", "root/tool", "root/llm", "root/pool/late"];
    for _ in paths {
        script.then_wait();
    }
    // A stateful child has no deadline in total: nobody but the end of the runtime ends this call.
    let callers: Vec<_> = paths
        .iter()
        .map(|path| {
            let port: Texts = system.port(*path).unwrap();
            std::thread::spawn(move || runtime().block_on(port.call("x")))
        })
        .collect();
    while script.count() < paths.len() {
        std::thread::yield_now();
    }
    in_time(move || drop(own));
    for (path, caller) in paths.iter().zip(callers) {
        let error = in_time(move || caller.join().unwrap()).unwrap_err();
        let CallError::Stopped { child, cause } = &error else { panic!("{path}: {error}") };
        assert_eq!((child.as_str(), cause.kind()), (*path, ExitKind::Killed));
    }
    let fates = system.fates();
    assert_eq!((fates.accepted, fates.stopped, fates.open), (4, 4, 0));
}

#[test]
fn who_calls_asks_or_stops_a_system_without_a_runtime_is_told_at_once() {
    let own = runtime();
    let script = Script::echo();
    let system = own.block_on(System::start(root(&script))).unwrap();
    in_time(move || drop(own));
    let looked = system.clone();
    in_time(move || {
        runtime().block_on(async {
            for path in ["root/agent", "root/tool", "root/llm"] {
                let port: Texts = system.port(path).unwrap();
                let error = port.call("x").await.unwrap_err();
                assert_eq!(
                    error.to_string(),
                    format!(
                        "child \"{path}\" refuses requests: \
                         the runtime it was started on was dropped"
                    )
                );
                let Err(CallError::Refused { message, why, .. }) = port.cast("y") else {
                    panic!("{path} has taken what nobody will do");
                };
                assert_eq!((&*message, why), ("y", Unavailable::RuntimeGone));
            }
            let pool = system.supervisor("root/pool").unwrap();
            let started = pool.start_child(script.stateless("late")).await;
            assert_eq!(started, Err(StartError::SupervisorGone("root/pool".into())));
            let counted = pool.count_children().await;
            assert_eq!(counted, Err(ChildError::SupervisorGone("root/pool".into())));
            system.stop().await;
            assert_eq!(system.wait().await.kind(), ExitKind::Killed);
        });
    });
    assert!(looked.tree().to_string().contains("stopped"));
}
