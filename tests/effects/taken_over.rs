//! A request that a sibling takes over after another has acted for it: what was done is told, and not done again.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use mainstay::behavior::{Behavior, Call, Context, Stateful, Stateless, Step, Turn, Undone};
use mainstay::checkpoint::{MemoryStore, Store};
use mainstay::fate::Fate;
use mainstay::fault::{EffectKind, Fault};
use mainstay::journal::Journaled;
use mainstay::policy::Policy;
use mainstay::port::{CallOptions, Needs, Port};
use mainstay::spec::{ChildSpec, GroupSpec, SupervisorSpec};
use mainstay::system::System;
use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};

use super::{Tool, World, take};

/// What the flows have seen, and what is to go wrong with them.
#[derive(Default)]
struct Log {
    world: Arc<World>,
    /// The turns that began the request with the second, and what the last of them was told.
    begun: Mutex<Vec<&'static str>>,
    told: Mutex<Undone>,
    /// The second fails so often in its first step, or dies after its first act, or hangs before or after it.
    second: World,
    /// The first is away.
    is_away: Mutex<bool>,
    /// The first has another one pay.
    asks: Mutex<bool>,
}

/// Pays 7, and fails then. Told what stands, it answers how much that is.
#[derive(Clone)]
struct First(Arc<Log>);

impl Behavior for First {
    type Request = u32;
    type Reply = u32;

    fn needs() -> Needs {
        Needs::none().needs::<Port<u32, u32>>("tool").needs::<Port<u32, u32>>("helper")
    }
}

/// Has its worker do it, under its own key.
#[derive(Clone)]
struct Helper;

impl Behavior for Helper {
    type Request = u32;
    type Reply = u32;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Idempotent);

    fn needs() -> Needs {
        Needs::none().needs::<Port<u32, u32>>("worker")
    }
}

impl Stateless for Helper {
    async fn serve(&self, due: &u32, ctx: &Context) -> Result<u32, Fault> {
        let options = CallOptions::new().key(ctx.key());
        let done = ctx.port::<u32, u32>("worker")?.call_with(*due, options).await;
        done.map(|answer| answer.value).map_err(Fault::from)
    }
}

/// Pays, and fails then.
#[derive(Clone)]
struct Worker;

impl Behavior for Worker {
    type Request = u32;
    type Reply = u32;

    fn needs() -> Needs {
        Needs::none().needs::<Port<u32, u32>>("tool")
    }
}

impl Stateful for Worker {
    async fn step(&mut self, due: &u32, turn: Turn, ctx: &Context) -> Result<Step<u32>, Fault> {
        if matches!(turn, Turn::Performed(_)) {
            return Err(Fault::exhausted("its model is away"));
        }
        Ok(Step::Perform(vec![Call::from(ctx.port::<u32, u32>("tool")?.effect(*due))]))
    }
}

impl Stateful for First {
    async fn step(&mut self, _: &u32, turn: Turn, ctx: &Context) -> Result<Step<u32>, Fault> {
        if let Turn::RolledBack(told) = &turn {
            *self.0.told.lock() = (**told).clone();
            return Ok(Step::Reply(told.kept.len() as u32));
        }
        if matches!(turn, Turn::Performed(_)) || *self.0.is_away.lock() {
            return Err(Fault::exhausted("its model is away"));
        }
        let whom = if *self.0.asks.lock() { "helper" } else { "tool" };
        Ok(Step::Perform(vec![Call::from(ctx.port::<u32, u32>(whom)?.effect(7_u32))]))
    }
}

/// Pays 5 and then 7, but for what it was told that stands.
#[derive(Clone)]
struct Second {
    log: Arc<Log>,
    due: Vec<u32>,
}

impl Behavior for Second {
    type Request = u32;
    type Reply = u32;

    fn needs() -> Needs {
        First::needs()
    }
}

impl Stateful for Second {
    async fn step(&mut self, _: &u32, turn: Turn, ctx: &Context) -> Result<Step<u32>, Fault> {
        let log = Arc::clone(&self.log);
        match &turn {
            Turn::Performed(performed) => {
                performed.get::<u32>(0)?;
                assert!(!take(&log.second.crash), "it dies after its act");
                if take(&log.second.swallow) {
                    log.second.hung.notify_one();
                    std::future::pending::<()>().await;
                }
            }
            turn => {
                self.due = vec![7, 5];
                log.begun.lock().push(match turn {
                    Turn::First => "first",
                    Turn::RolledBack(_) => "rolled back",
                    _ => "another",
                });
                if let Turn::RolledBack(told) = turn {
                    let stands =
                        |due: &u32| told.acts.iter().any(|it| *it.request == due.to_string());
                    self.due.retain(|due| !stands(due));
                    *log.told.lock() = (**told).clone();
                }
                if take(&log.second.hang) {
                    log.second.hung.notify_one();
                    std::future::pending::<()>().await;
                }
                if take(&log.second.vanish) {
                    return Err(Fault::network("try it again"));
                }
            }
        }
        match self.due.pop() {
            Some(due) => Ok(Step::Perform(vec![ctx.port::<u32, u32>("tool")?.effect(due).into()])),
            None => Ok(Step::Reply(0)),
        }
    }
}

fn spec(log: &Arc<Log>, durable: bool) -> SupervisorSpec {
    let (tool, first) = (Tool(Arc::clone(&log.world)), First(Arc::clone(log)));
    let second = Second { log: Arc::clone(log), due: Vec::new() };
    let first =
        ChildSpec::stateful("first", move || first.clone()).policy(Policy::without_retries());
    let mut group = GroupSpec::step("flow")
        .member_spec(first)
        .member_spec(ChildSpec::stateful("second", move || second.clone()));
    if durable {
        group = group.durable::<First>();
    }
    SupervisorSpec::one_for_one("desk")
        .child(ChildSpec::stateless("tool", move || tool.clone()).effect(EffectKind::Irreversible))
        .child(ChildSpec::stateful("worker", || Worker))
        .child(ChildSpec::stateless("helper", || Helper))
        .group(group)
}

fn counts(told: &Undone) -> (usize, usize, usize) {
    (told.kept.len(), told.undone.len(), told.unknown.len())
}

fn acts(log: &Log) -> usize {
    log.world.acts.lock().len()
}

async fn asks(log: &Arc<Log>) -> Result<String, String> {
    let system = System::start(spec(log, false)).await.unwrap();
    let answer = system.port::<u32, u32>("desk/flow").unwrap().call(1_u32).await;
    answer.map(|answer| answer.served_by.to_string()).map_err(|error| error.to_string())
}

/// That has failed, and may be asked again: what it did all the same stands.
#[tokio::test(start_paused = true)]
async fn a_substitute_is_told_what_was_done_for_another_by_one_that_failed() {
    let log = Arc::new(Log::default());
    *log.asks.lock() = true;
    assert_eq!(asks(&log).await.unwrap(), "desk/flow/second");
    assert_eq!(*log.begun.lock(), ["rolled back"]);
    let told = log.told.lock().clone();
    assert_eq!(counts(&told), (1, 0, 1), "the payment stands, and what it was asked with is open");
    let tools: Vec<_> = told.acts.iter().map(|act| act.tool.to_string()).collect();
    assert_eq!(tools, ["desk/tool", "desk/helper"]);
    assert_eq!(acts(&log), 2, "7 and 5");
}

#[tokio::test(start_paused = true)]
async fn a_substitute_is_told_what_stands_and_does_not_do_it_again_at_another_step() {
    let log = Arc::new(Log::default());
    assert_eq!(asks(&log).await.unwrap(), "desk/flow/second");
    assert_eq!(*log.begun.lock(), ["rolled back"]);
    let told = log.told.lock().clone();
    assert_eq!(counts(&told), (1, 0, 0));
    assert_eq!(told.acts[0].result.as_deref(), Some("14"));
    assert_eq!(acts(&log), 2, "7 by the first, and 5");
}

#[tokio::test(start_paused = true)]
async fn a_substitute_that_begins_once_more_is_told_the_same() {
    let log = Arc::new(Log::default());
    log.second.vanish.store(1, Ordering::SeqCst);
    log.second.crash.store(1, Ordering::SeqCst);
    assert_eq!(asks(&log).await.unwrap(), "desk/flow/second");
    // After a fault, and after a death behind its own act, which it asks for again at the same step.
    assert_eq!(*log.begun.lock(), ["rolled back"; 3]);
    assert_eq!(counts(&log.told.lock()), (1, 0, 0));
    assert_eq!(acts(&log), 2);
}

#[tokio::test(start_paused = true)]
async fn a_substitute_is_told_of_what_nobody_knows_and_of_nothing_that_has_not_happened() {
    let log = Arc::new(Log::default());
    *log.world.fail.lock() = Some(Fault::permission("no").not_applied());
    asks(&log).await.unwrap_err();
    assert_eq!(*log.begun.lock(), ["first"]);
}

/// The process ends without a stop, where the second hangs in it.
fn is_killed(log: &Arc<Log>, store: &Arc<dyn Store>) {
    runtime().block_on(async {
        let (system, _) = System::recover(spec(log, true), Arc::clone(store)).await.unwrap();
        let port = system.port::<u32, u32>("desk/flow").unwrap();
        port.submit(1_u32, CallOptions::new().key("k")).await.unwrap();
        log.second.hung.notified().await;
    });
}

/// The next process does it, and answers so.
fn is_done(log: &Arc<Log>, store: &Arc<dyn Store>, reply: &str) {
    runtime().block_on(async {
        let (system, _) = System::recover(spec(log, true), Arc::clone(store)).await.unwrap();
        let mut events = system.events();
        while !matches!(system.journaled("k"), Some(Journaled::Fated(..))) {
            events.next().await.unwrap();
        }
        let done = Journaled::Fated(Fate::Done, Some(reply.to_owned()));
        assert_eq!(system.journaled("k"), Some(done));
    });
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

#[test]
fn the_next_process_tells_the_substitute_as_well() {
    let (log, store) = (Arc::new(Log::default()), Arc::new(MemoryStore::new()) as Arc<dyn Store>);
    log.second.hang.store(1, Ordering::SeqCst);
    is_killed(&log, &store);
    // In the next one the first is not there at all.
    *log.is_away.lock() = true;
    is_done(&log, &store, "0");
    assert_eq!(*log.begun.lock(), ["rolled back"; 2]);
    assert_eq!(counts(&log.told.lock()), (1, 0, 0));
    assert_eq!(acts(&log), 2);
}

#[test]
fn one_that_has_it_again_in_the_next_process_is_told_what_both_have_done() {
    let (log, store) = (Arc::new(Log::default()), Arc::new(MemoryStore::new()) as Arc<dyn Store>);
    log.second.swallow.store(1, Ordering::SeqCst);
    is_killed(&log, &store);
    is_done(&log, &store, "2");
    let told = log.told.lock().clone();
    let asked: Vec<_> = told.acts.iter().map(|it| &*it.request).collect();
    assert_eq!((counts(&told), asked), ((2, 0, 0), vec!["7", "5"]));
    assert_eq!(acts(&log), 2);
}
