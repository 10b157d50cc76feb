//! The hazards of `ractor` that a naive "restart is retry" falls for, each with its number in the design
//! notes; those that load, lives and requests are attacked with are there.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use mainstay::behavior::{Behavior, Context, StartContext, Stateful, Stateless, Step, Turn};
use mainstay::event::Event;
use mainstay::family::Shutdown;
use mainstay::fate::Fate;
use mainstay::fault::{EffectKind, ExitCause, ExitKind, Fault};
use mainstay::port::{CallOptions, Port};
use mainstay::spec::{ChildSpec, SupervisorSpec};
use mainstay::system::System;
use tokio::sync::Notify;

#[path = "attack_support/support.rs"]
mod support;

use support::{Act, Clerk, Log, ms, pass, script, secs};

fn clerk(
    log: &Arc<Log>,
    act: impl Fn(u64, &Context) -> Act + Send + Sync + 'static,
) -> impl Fn() -> Clerk + Send + Sync + 'static {
    let clerk = Clerk { script: script(act), log: Arc::clone(log) };
    move || clerk.clone()
}

fn port(system: &System, path: &str) -> Port<u64, u64> {
    system.port(path).unwrap()
}

#[tokio::test(start_paused = true)]
async fn hazards_1_2_and_3_a_panic_loses_neither_its_request_nor_the_queue_nor_a_caller() {
    let log = Arc::new(Log::default());
    let panics =
        |id, ctx: &Context| if id == 0 && ctx.attempt() == 1 { Act::Panic } else { Act::Reply };
    let system = System::start(
        SupervisorSpec::one_for_one("top").child(ChildSpec::stateful("w", clerk(&log, panics))),
    )
    .await
    .unwrap();
    let w = port(&system, "top/w");
    let calls: Vec<_> = (0..20u64)
        .map(|id| {
            let w = w.clone();
            tokio::spawn(async move { w.call(id).await.unwrap() })
        })
        .collect();
    for (id, call) in calls.into_iter().enumerate() {
        let answer = call.await.unwrap();
        assert_eq!((answer.value, answer.attempts), (id as u64, 1 + u32::from(id == 0)));
    }
    assert_eq!(log.begun(), 21);
    system.stop().await;
}

/// Says that it is done when it is let go, whatever became of its life.
#[derive(Clone)]
struct Late(Arc<Notify>, Arc<AtomicU64>);

impl Behavior for Late {
    type Request = u64;
    type Reply = u64;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
}

impl Stateless for Late {
    async fn serve(&self, id: &u64, ctx: &Context) -> Result<u64, Fault> {
        let run = self.1.fetch_add(1, Ordering::Relaxed);
        if ctx.delivery().0 == 1 {
            self.0.notified().await;
        }
        Ok(*id * 10 + run)
    }
}

#[tokio::test(start_paused = true)]
async fn hazards_4_and_5_a_result_whose_lease_is_over_changes_nothing_and_is_told() {
    let (go, runs) = (Arc::new(Notify::new()), Arc::new(AtomicU64::new(0)));
    let late = Late(Arc::clone(&go), Arc::clone(&runs));
    let system = System::start(
        SupervisorSpec::one_for_all("top")
            .child(ChildSpec::stateful("falls", clerk(&Arc::default(), |_, _| Act::Reply)))
            .child(ChildSpec::stateless("w", move || late.clone()).shutdown(Shutdown::Brutal)),
    )
    .await
    .unwrap();
    let mut events = system.events();
    let w = port(&system, "top/w");
    let call = tokio::spawn(async move { w.call(7u64).await.unwrap() });
    while runs.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    system.kill("top/falls").unwrap();
    // It is let go in the moment in which its life is taken: its answer comes too late.
    events.wait_for(|event| matches!(event, Event::Interrupted { .. })).await;
    go.notify_one();
    let answer = call.await.unwrap();
    assert_eq!((answer.value, answer.attempts), (71, 1));
    let (fates, stats) = (system.fates(), system.stats());
    assert_eq!((fates.accepted, fates.done, fates.open), (1, 1, 0));
    assert!(stats.stale <= 1);
    system.stop().await;
}

#[tokio::test(start_paused = true)]
async fn hazards_6_and_7_an_address_and_a_timer_outlive_every_life_of_child_and_supervisor() {
    let log = Arc::new(Log::default());
    let system =
        System::start(SupervisorSpec::one_for_one("top").intensity(100, secs(1)).supervisor(
            SupervisorSpec::one_for_one("inner").intensity(0, secs(1)).no_child_limit().child(
                ChildSpec::stateful(
                    "w",
                    clerk(&log, |id, ctx| match id {
                        0 if ctx.attempt() == 1 => Act::Hang,
                        _ => Act::Reply,
                    }),
                ),
            ),
        ))
        .await
        .unwrap();
    let w = port(&system, "top/inner/w");
    let hangs = tokio::spawn({
        let w = w.clone();
        async move { w.call_with(0u64, CallOptions::new().deadline(secs(3))).await }
    });
    let waits = tokio::spawn({
        let w = w.clone();
        async move { w.call(1u64).await }
    });
    while log.begun() == 0 {
        tokio::task::yield_now().await;
    }
    for life in 2..6 {
        // One death is one too many for the inner supervisor: it falls, and is started again.
        let mut events = system.events();
        system.kill("top/inner/w").unwrap();
        events.wait_for(|event| matches!(event, Event::SupervisorEnded { .. })).await;
        events.wait_for(|event| matches!(event, Event::Started { .. })).await;
        assert_eq!(w.call(life).await.unwrap().value, life);
    }
    assert_eq!(hangs.await.unwrap().unwrap().attempts, 2);
    assert_eq!(waits.await.unwrap().unwrap().value, 1);
    assert_eq!(system.fates().open, 0);
    system.stop().await;
}

/// A pair that is torn while a step waits.
#[derive(Clone, Default)]
struct Pair(u64, u64, Arc<Mutex<Vec<(u64, u64)>>>);

impl Behavior for Pair {
    type Request = u64;
    type Reply = u64;
}

impl Stateful for Pair {
    async fn step(&mut self, id: &u64, _: Turn, ctx: &Context) -> Result<Step<u64>, Fault> {
        self.2.lock().unwrap().push((self.0, self.1));
        self.0 += 1;
        pass(10).await;
        if *id == 13 && ctx.attempt() == 1 {
            return Err(Fault::network("in the middle"));
        }
        self.1 += 1;
        Ok(Step::Reply(self.1))
    }
}

#[tokio::test(start_paused = true)]
async fn hazard_8_nobody_ever_sees_a_torn_state() {
    let seen: Arc<Mutex<Vec<(u64, u64)>>> = Arc::default();
    let pair = Pair(0, 0, Arc::clone(&seen));
    let system = System::start(
        SupervisorSpec::one_for_one("top")
            .intensity(100, secs(1))
            .no_child_limit()
            .child(ChildSpec::stateful("w", move || pair.clone()).attempt_timeout(ms(500))),
    )
    .await
    .unwrap();
    let w = port(&system, "top/w");
    for id in [1u64, 13, 2, 3, 4] {
        let call = tokio::spawn({
            let w = w.clone();
            async move { w.call(id).await.unwrap() }
        });
        if id == 3 {
            pass(5).await;
            system.kill("top/w").unwrap();
        }
        call.await.unwrap();
    }
    let seen = seen.lock().unwrap().clone();
    assert!(seen.iter().all(|(one, two)| one == two), "{seen:?}");
    // The fault came back to the state before it; the kill began anew.
    assert_eq!(seen, [(0, 0), (1, 1), (1, 1), (2, 2), (3, 3), (0, 0), (1, 1)]);
    system.stop().await;
}

struct Starts(Arc<AtomicU64>, Arc<dyn Fn(u64) -> Act + Send + Sync>);

impl Behavior for Starts {
    type Request = u64;
    type Reply = u64;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
}

impl Stateless for Starts {
    async fn start(&mut self, _: &StartContext) -> Result<(), Fault> {
        match (self.1)(self.0.fetch_add(1, Ordering::Relaxed) + 1) {
            Act::Hang => std::future::pending().await,
            Act::Fail(class) => Err(Fault::new(class, "no")),
            _ => Ok(()),
        }
    }
    async fn serve(&self, id: &u64, _: &Context) -> Result<u64, Fault> {
        if *id == 0 { panic!("zero") } else { Ok(*id) }
    }
}

fn starts(act: impl Fn(u64) -> Act + Send + Sync + 'static) -> (ChildSpec, Arc<AtomicU64>) {
    let lives = Arc::new(AtomicU64::new(0));
    let (count, act): (_, Arc<dyn Fn(u64) -> Act + Send + Sync>) =
        (Arc::clone(&lives), Arc::new(act));
    (ChildSpec::stateless("w", move || Starts(Arc::clone(&count), Arc::clone(&act))), lives)
}

#[tokio::test(start_paused = true)]
async fn hazards_9_and_10_a_start_that_fails_or_hangs_harms_no_sibling_and_freezes_nothing() {
    let log = Arc::new(Log::default());
    let (spec, lives) = starts(|life| match life {
        2 => Act::Fail(mainstay::fault::Class::Network),
        3 => Act::Hang,
        _ => Act::Reply,
    });
    let system = System::start(
        SupervisorSpec::one_for_one("top")
            .intensity(10, secs(100))
            .child(spec.start_timeout(secs(20)))
            .child(ChildSpec::stateful("sibling", clerk(&log, |_, _| Act::Reply))),
    )
    .await
    .unwrap();
    let mut events = system.events();
    system.kill("top/w").unwrap();
    events
        .wait_for(|event| matches!(event, Event::Exited { cause: ExitKind::StartFailed, .. }))
        .await;
    while lives.load(Ordering::Relaxed) < 3 {
        pass(1).await;
    }
    // While the third life hangs in its start, everybody else is served, and administration answers.
    assert_eq!(port(&system, "top/sibling").call(1u64).await.unwrap().value, 1);
    let top = system.supervisor("top").unwrap();
    assert_eq!(top.which_children().await.unwrap().len(), 2);
    assert!(system.tree().to_string().contains("starting"));
    assert_eq!(port(&system, "top/w").call(5u64).await.unwrap().value, 5);
    assert_eq!((lives.load(Ordering::Relaxed), log.lives.load(Ordering::Relaxed)), (4, 1));
    system.stop().await;
}

#[tokio::test(start_paused = true)]
async fn hazard_11_a_stop_during_a_backoff_or_a_start_is_final() {
    for (what, hang) in [("backoff", false), ("start", true)] {
        let (spec, lives) =
            starts(move |life| if hang && life > 1 { Act::Hang } else { Act::Reply });
        let system = System::start(
            SupervisorSpec::one_for_one("top")
                .intensity(100, secs(1))
                .restart_backoff(if hang { ms(1) } else { secs(10) }, secs(10))
                .child(spec),
        )
        .await
        .unwrap();
        system.kill("top/w").unwrap();
        pass(100).await;
        let before = lives.load(Ordering::Relaxed);
        system.supervisor("top").unwrap().terminate_child("w").await.unwrap();
        pass(60_000).await;
        assert_eq!(lives.load(Ordering::Relaxed), before, "{what}");
        system.stop().await;
        assert_eq!(system.fates().open, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn hazards_12_and_14_one_death_is_one_restart_and_never_looks_like_an_end_in_order() {
    let log = Arc::new(Log::default());
    let system = System::start(
        SupervisorSpec::one_for_one("top")
            .intensity(1, secs(100))
            .child(ChildSpec::stateful("w", clerk(&log, |_, _| Act::Reply)).transient()),
    )
    .await
    .unwrap();
    let mut events = system.events();
    // Told three times; there was one life to kill.
    for _ in 0..3 {
        system.kill("top/w").unwrap();
    }
    assert_eq!(port(&system, "top/w").call(1u64).await.unwrap().value, 1);
    system.stop().await;
    let mut exits = Vec::new();
    while let Some(stamped) = events.try_next() {
        if let Event::Exited { cause, .. } = stamped.event {
            exits.push(cause);
        }
    }
    assert_eq!(exits, [ExitKind::Killed, ExitKind::Stopped]);
    assert_eq!(log.lives.load(Ordering::Relaxed), 2);
}

#[derive(Clone)]
struct Ends(&'static str, Arc<Mutex<Vec<&'static str>>>);

impl Behavior for Ends {
    type Request = u64;
    type Reply = u64;
}

impl Stateful for Ends {
    async fn step(&mut self, id: &u64, _: Turn, _: &Context) -> Result<Step<u64>, Fault> {
        pass(*id).await;
        Ok(Step::Reply(*id))
    }
    async fn stop(&mut self, _: &ExitCause) {
        self.1.lock().unwrap().push(self.0);
    }
}

#[tokio::test(start_paused = true)]
async fn hazards_13_and_15_children_end_in_reverse_order_after_their_step_and_answer_while_busy() {
    let order: Arc<Mutex<Vec<&'static str>>> = Arc::default();
    let mut spec = SupervisorSpec::one_for_one("top");
    for id in ["a", "b", "c"] {
        let ends = Ends(id, Arc::clone(&order));
        spec = spec.child(ChildSpec::stateful(id, move || ends.clone()));
    }
    let system = System::start(spec).await.unwrap();
    let mut events = system.events();
    let receipt = port(&system, "top/b").cast(400u64).unwrap();
    pass(1).await;
    assert!(system.tree().to_string().contains("busy"));
    system.stop().await;
    assert_eq!(*order.lock().unwrap(), ["c", "b", "a"]);
    assert_eq!(system.fate(receipt), Some(Some(Fate::Done)));
    let done = events.wait_for(|event| matches!(event, Event::Fated { .. })).await.unwrap();
    assert_eq!(done.at.as_nanos() / 1_000_000, 400);
}
