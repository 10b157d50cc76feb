//! Whoever stops using a system can open its store again.

use std::sync::Arc;

use mainstay::behavior::{Behavior, Context, Stateful, Step, Turn};
use mainstay::checkpoint::FileStore;
use mainstay::fault::Fault;
use mainstay::port::{Needs, Port};
use mainstay::spec::{ChildSpec, GroupSpec, SupervisorSpec};
use mainstay::system::System;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

#[derive(Clone)]
struct Counter(u64);

impl Behavior for Counter {
    type Request = u64;
    type Reply = u64;

    fn needs() -> Needs {
        Needs::none().needs::<Port<u64, u64>>("group")
    }
}

impl Stateful for Counter {
    async fn step(&mut self, more: &u64, _: Turn, _: &Context) -> Result<Step<u64>, Fault> {
        self.0 += more;
        Ok(Step::Reply(self.0))
    }
}

#[derive(Clone)]
struct Echo;

impl Behavior for Echo {
    type Request = u64;
    type Reply = u64;
}

impl Stateful for Echo {
    async fn step(&mut self, ask: &u64, _: Turn, _: &Context) -> Result<Step<u64>, Fault> {
        Ok(Step::Reply(*ask))
    }
}

fn spec() -> SupervisorSpec {
    let group = GroupSpec::model("group").member_spec(ChildSpec::stateful("echo", || Echo));
    let below = SupervisorSpec::one_for_all("below")
        .child(ChildSpec::stateful("counter", || Counter(0)).durable::<Counter>())
        .child(ChildSpec::stateful("other", || Counter(0)));
    SupervisorSpec::one_for_one("top").group(group).supervisor(below)
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// A system that has worked, in this folder.
fn worked(runtime: &Runtime, folder: &TempDir) -> System {
    runtime.block_on(async {
        let store = Arc::new(FileStore::open(folder.path()).unwrap());
        let (system, _) = System::recover(spec(), store).await.unwrap();
        for path in ["top/group", "top/below/counter", "top/below/other"] {
            let port: Port<u64, u64> = system.port(path).unwrap();
            port.call(1u64).await.unwrap();
        }
        system
    })
}

fn is_free(folder: &TempDir) {
    FileStore::open(folder.path()).map(drop).expect("nobody holds the store");
}

#[test]
fn a_system_that_was_stopped_and_dropped_lets_go_of_its_store() {
    let (runtime, folder) = (runtime(), TempDir::new().unwrap());
    let system = worked(&runtime, &folder);
    runtime.block_on(system.stop());
    drop(system);
    drop(runtime);
    is_free(&folder);
}

#[test]
fn a_system_that_was_only_dropped_lets_go_with_its_runtime() {
    let (runtime, folder) = (runtime(), TempDir::new().unwrap());
    drop(worked(&runtime, &folder));
    drop(runtime);
    is_free(&folder);
}

#[test]
fn a_system_whose_runtime_went_first_lets_go_when_it_is_dropped() {
    let (runtime, folder) = (runtime(), TempDir::new().unwrap());
    let system = worked(&runtime, &folder);
    drop(runtime);
    assert!(system.fates().is_balanced());
    drop(system);
    is_free(&folder);
}

#[test]
fn one_system_follows_the_other_on_one_runtime() {
    let (runtime, folder) = (runtime(), TempDir::new().unwrap());
    for _ in 0..3 {
        let system = worked(&runtime, &folder);
        runtime.block_on(async {
            system.stop().await;
            drop(system);
            // What still has to end is woken by now, and ends when it is polled.
            tokio::task::spawn_blocking(|| ()).await.unwrap();
            tokio::task::yield_now().await;
        });
    }
    is_free(&folder);
}
