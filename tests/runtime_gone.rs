//! The runtime that a system was started on is dropped, while callers on another one still wait.

use std::future::pending;
use std::sync::mpsc;
use std::time::Duration;

use mainstay::behavior::{Behavior, Context, Stateful, Step, Turn};
use mainstay::error::{CallError, Unavailable};
use mainstay::fault::Fault;
use mainstay::port::Port;
use mainstay::spec::{ChildSpec, GroupSpec, SupervisorSpec};
use mainstay::system::System;
use tokio::runtime::{Builder, Runtime};

/// Says that it has begun, and never ends.
#[derive(Clone)]
struct Stuck(mpsc::Sender<()>);

impl Behavior for Stuck {
    type Request = u64;
    type Reply = u64;
}

impl Stateful for Stuck {
    async fn step(&mut self, _: &u64, _: Turn, _: &Context) -> Result<Step<u64>, Fault> {
        let _ = self.0.send(());
        pending().await
    }
}

fn runtime(threads: usize) -> Runtime {
    match threads {
        0 => Builder::new_current_thread().enable_all().build().unwrap(),
        threads => {
            Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap()
        }
    }
}

fn asked(port: &Port<u64, u64>) -> impl Future<Output = Result<u64, CallError<u64>>> + use<> {
    let port = port.clone();
    async move { port.call(1u64).await.map(|answer| answer.value) }
}

/// What callers on another runtime hear when the system's own, with so many threads, is dropped.
fn gone(threads: usize) {
    let (begun, begins) = mpsc::channel();
    let own = runtime(threads);
    let system = own
        .block_on(System::start(
            SupervisorSpec::one_for_one("top")
                .group(GroupSpec::model("group").member_spec(ChildSpec::stateful("member", {
                    let begun = begun.clone();
                    move || Stuck(begun.clone())
                })))
                .child(ChildSpec::stateful("child", move || Stuck(begun.clone()))),
        ))
        .unwrap();
    let other = runtime(1);
    let paths = ["top/child", "top/group"];
    let ports = paths.map(|path| system.port::<u64, u64>(path).unwrap());
    // One that is worked on, and one that waits, at each.
    let calls: Vec<_> =
        ports.iter().flat_map(|port| [asked(port), asked(port)]).map(|c| other.spawn(c)).collect();
    own.block_on(async {
        let begun = tokio::task::spawn_blocking(move || (begins.recv(), begins.recv(), begins));
        assert!(matches!(begun.await.unwrap(), (Ok(()), Ok(()), _)));
    });
    drop(own);
    for call in calls {
        let heard = other.block_on(async { tokio::time::timeout(MINUTE, call).await });
        let error = heard.expect("it hears of the end").unwrap().unwrap_err();
        assert!(matches!(error, CallError::Stopped { .. }), "{error}");
    }
    for port in &ports {
        let error = other.block_on(asked(port)).unwrap_err();
        let CallError::Refused { why, message, .. } = error else { panic!("{error}") };
        assert_eq!((why, message), (Unavailable::ShuttingDown, 1));
    }
    let fates = system.fates();
    assert!(fates.is_balanced() && fates.open == 0 && fates.stopped == 4, "{fates:?}");
    assert!(!system.tree().to_string().is_empty());
    let stopped = other.block_on(async { tokio::time::timeout(MINUTE, system.stop()).await });
    assert!(stopped.is_ok(), "a system without a runtime has stopped");
}

/// Longer than anything here takes, so that a hang fails.
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn callers_elsewhere_hear_that_a_current_thread_runtime_is_gone() {
    gone(0);
}

#[test]
fn callers_elsewhere_hear_that_a_runtime_with_workers_is_gone() {
    gone(2);
}
