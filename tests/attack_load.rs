//! Full load for a long time: faults end attempts, crashes end lives, and neither melts anything.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mainstay::behavior::{Behavior, Context, Stateful, Stateless, Step, Turn};
use mainstay::error::CallError;
use mainstay::event::Event;
use mainstay::fault::{Class, EffectKind, Fault};
use mainstay::policy::Policy;
use mainstay::port::{Needs, Port};
use mainstay::spec::{ChildSpec, GroupSpec, SupervisorSpec};
use mainstay::system::System;

#[path = "attack_support/support.rs"]
mod support;

use support::{Act, Chance, Clerk, Hand, Log, audit, ms, script, secs};

#[tokio::test(start_paused = true)]
async fn one_panic_in_a_hundred_loses_nothing() {
    for serial in [false, true] {
        let chance = Chance::new(2);
        let log = Arc::new(Log::default());
        let luck = Arc::clone(&chance);
        let panics = Arc::new(AtomicU64::new(0));
        let panicked = Arc::clone(&panics);
        // The request is not the poison, its attempt was.
        let plan = script(move |_, ctx| {
            if luck.mille(10) && ctx.attempt() == 1 {
                panicked.fetch_add(1, Ordering::Relaxed);
                return Act::Panic;
            }
            Act::Reply
        });
        let spec =
            SupervisorSpec::one_for_one("top").intensity(1_000_000, secs(1)).no_child_limit();
        let (hand, clerk) = (
            Hand { script: Arc::clone(&plan), log: Arc::clone(&log) },
            Clerk { script: plan, log: Arc::clone(&log) },
        );
        let system = System::start(spec.child(if serial {
            ChildSpec::stateful("w", move || clerk.clone())
        } else {
            ChildSpec::stateless("w", move || hand.clone()).concurrency(16)
        }))
        .await
        .unwrap();
        let port: Port<u64, u64> = system.port("top/w").unwrap();
        let callers: Vec<_> = (0..64u64)
            .map(|caller| {
                let port = port.clone();
                tokio::spawn(async move {
                    for n in 0..200u64 {
                        let id = caller * 200 + n;
                        assert_eq!(port.call(id).await.unwrap().value, id);
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await.unwrap();
        }
        let fates = system.fates();
        assert_eq!((fates.accepted, fates.done, fates.open), (12_800, 12_800, 0));
        assert_eq!(log.again(), 0);
        let panics = panics.load(Ordering::Relaxed);
        assert!(panics > 60, "{panics}");
        assert_eq!(log.begins.load(Ordering::Relaxed), 12_800 + panics);
        system.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_kill_with_many_attempts_under_way_loses_none() {
    let log = Arc::new(Log::default());
    let plan = script(|_, ctx| if ctx.attempt() == 1 { Act::Hang } else { Act::Reply });
    let hand = Hand { script: plan, log: Arc::clone(&log) };
    let system = System::start(
        SupervisorSpec::one_for_one("top")
            .child(ChildSpec::stateless("w", move || hand.clone()).concurrency(256)),
    )
    .await
    .unwrap();
    let port: Port<u64, u64> = system.port("top/w").unwrap();
    let calls: Vec<_> = (0..256u64)
        .map(|id| {
            let port = port.clone();
            tokio::spawn(async move { port.call(id).await })
        })
        .collect();
    while log.begins.load(Ordering::Relaxed) < 256 {
        tokio::task::yield_now().await;
    }
    system.kill("top/w").unwrap();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().attempts, 2);
    }
    let (fates, stats) = (system.fates(), system.stats());
    assert_eq!((fates.done, fates.open), (256, 0));
    assert_eq!(log.lives.load(Ordering::Relaxed), 2);
    assert_eq!(stats.attempts, 512);
    system.stop().await;
}

#[tokio::test(start_paused = true)]
async fn five_per_cent_timeouts_for_ten_minutes_restart_nobody() {
    let chance = Chance::new(5);
    let log = Arc::new(Log::default());
    let luck = Arc::clone(&chance);
    let plan =
        script(
            move |_, _| {
                if luck.mille(50) { Act::Hang } else { Act::ReplyAfter(200 + luck.below(400)) }
            },
        );
    let policy = Policy::default().with_attempt_timeout(secs(2));
    let hand = Hand { script: Arc::clone(&plan), log: Arc::clone(&log) };
    let clerk = Clerk { script: plan, log: Arc::clone(&log) };
    // The tightest intensity there is: one restart would end the tree.
    let system = System::start(
        SupervisorSpec::one_for_all("top")
            .intensity(0, secs(3600))
            .policy(policy)
            .child(ChildSpec::stateless("busy", move || hand.clone()).concurrency(32))
            .child(ChildSpec::stateful("sibling", move || clerk.clone())),
    )
    .await
    .unwrap();
    let restarts = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&restarts);
    let auditor = audit(&system, move |stamped| {
        if matches!(stamped.event, Event::Exited { .. } | Event::Restarting { .. }) {
            seen.fetch_add(1, Ordering::Relaxed);
        }
    });
    let end = tokio::time::Instant::now() + secs(600);
    let lost = Arc::new(AtomicU64::new(0));
    let callers: Vec<_> = (0..48u64)
        .map(|caller| {
            let name = if caller < 44 { "top/busy" } else { "top/sibling" };
            let port: Port<u64, u64> = system.port(name).unwrap();
            let lost = Arc::clone(&lost);
            tokio::spawn(async move {
                let mut id = caller << 32;
                while tokio::time::Instant::now() < end {
                    id += 1;
                    if let Err(error) = port.call(id).await {
                        // Three hangs in a row are the end of the ladder, and of nothing else.
                        assert!(matches!(error, CallError::RecoveryExhausted { .. }), "{error}");
                        lost.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(restarts.load(Ordering::Relaxed), 0);
    assert_eq!(log.lives.load(Ordering::Relaxed), 2);
    let (fates, stats) = (system.fates(), system.stats());
    assert!(fates.done > 20_000, "{fates:?}");
    assert_eq!((stats.crashes, fates.open), (0, 0));
    // 0.05^3 of them: the retry budget was never what they lacked.
    let lost = lost.load(Ordering::Relaxed);
    assert!(lost * 2000 < fates.done, "{lost} of {}", fates.done);
    assert!(stats.failures[&Class::Timeout] > 1000);
    system.stop().await;
    assert_eq!(auditor.await.unwrap().unbalanced, 0);
}

/// Calls what it is told to, and passes the fault on.
#[derive(Clone)]
struct Layer;

impl Behavior for Layer {
    type Request = u64;
    type Reply = u64;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
    fn needs() -> Needs {
        Needs::none().needs::<Port<u64, u64>>("below")
    }
}

impl Stateless for Layer {
    async fn serve(&self, id: &u64, ctx: &Context) -> Result<u64, Fault> {
        Ok(ctx.port::<u64, u64>("below")?.call(*id).await?.value)
    }
}

/// The same, in steps.
#[derive(Clone)]
struct Stairs;

impl Behavior for Stairs {
    type Request = u64;
    type Reply = u64;
    fn needs() -> Needs {
        Needs::none().needs::<Port<u64, u64>>("middle")
    }
}

impl Stateful for Stairs {
    async fn step(&mut self, id: &u64, turn: Turn, ctx: &Context) -> Result<Step<u64>, Fault> {
        match turn {
            Turn::Performed(outcomes) => Ok(Step::Reply(*outcomes.get::<u64>(0)?.value)),
            _ => Ok(Step::Perform(vec![ctx.port::<u64, u64>("middle")?.ask(*id)])),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn two_nested_calls_against_a_dead_provider_make_the_attempts_of_one_ladder() {
    for class in [Class::Network, Class::Timeout, Class::RateLimit, Class::ModelUnavailable] {
        let log = Arc::new(Log::default());
        let dead = Hand { script: script(move |_, _| Act::Fail(class)), log: Arc::clone(&log) };
        let system = System::start(
            SupervisorSpec::one_for_one("top")
                .policy(Policy::playbook_exact())
                .child(ChildSpec::stateless("below", move || dead.clone()))
                .child(ChildSpec::stateless("middle", || Layer))
                .child(ChildSpec::stateful("above", || Stairs)),
        )
        .await
        .unwrap();
        let port: Port<u64, u64> = system.port("top/above").unwrap();
        let error = port.call(1u64).await.unwrap_err();
        let CallError::RecoveryExhausted { fault, trail, .. } = error else { panic!("{error}") };
        assert_eq!((fault.class, trail.0.len()), (Class::Exhausted, 1));
        let ladder = HashMap::from([
            (Class::Network, 4),
            (Class::Timeout, 3),
            (Class::RateLimit, 2),
            (Class::ModelUnavailable, 1),
        ]);
        assert_eq!(log.of(1).begun.len(), ladder[&class], "{class}");
        let fates = system.fates();
        assert_eq!((fates.accepted, fates.failed), (3, 3));
        assert_eq!(system.stats().attempts, ladder[&class] as u64 + 2);
        system.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_group_below_costs_its_own_ladder_and_no_more() {
    let log = Arc::new(Log::default());
    let member =
        |class| Hand { script: script(move |_, _| Act::Fail(class)), log: Arc::clone(&log) };
    let (first, second) = (member(Class::Network), member(Class::Network));
    let system = System::start(
        SupervisorSpec::one_for_one("top")
            .policy(Policy::playbook_exact())
            .group(GroupSpec::model("below").member("one", first).member("two", second))
            .child(ChildSpec::stateless("middle", || Layer)),
    )
    .await
    .unwrap();
    let port: Port<u64, u64> = system.port("top/middle").unwrap();
    assert!(port.call(1u64).await.is_err());
    // Three retries are shared by both members: n siblings never multiply them.
    assert_eq!(log.of(1).begun.len(), 5);
    system.stop().await;
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_children_killed_at_once_come_back_and_keep_their_queues() {
    const CHILDREN: u64 = 10_000;
    let log = Arc::new(Log::default());
    let plan = script(|_, _| Act::ReplyAfter(50));
    let mut spec = SupervisorSpec::one_for_one("top").intensity(1_000_000, ms(1)).no_child_limit();
    for n in 0..CHILDREN {
        let clerk = Clerk { script: Arc::clone(&plan), log: Arc::clone(&log) };
        spec = spec.child(ChildSpec::stateful(format!("c{n}"), move || clerk.clone()));
    }
    let system = System::start(spec).await.unwrap();
    let mut calls = Vec::new();
    for n in 0..CHILDREN {
        let port: Port<u64, u64> = system.port(format!("top/c{n}")).unwrap();
        // One in flight when it falls, one that waits behind it.
        calls.push(tokio::spawn(async move {
            let (one, two) = tokio::join!(port.call(2 * n), port.call(2 * n + 1));
            (one.unwrap(), two.unwrap())
        }));
    }
    while log.begins.load(Ordering::Relaxed) < CHILDREN {
        tokio::task::yield_now().await;
    }
    for n in 0..CHILDREN {
        system.kill(format!("top/c{n}")).unwrap();
    }
    for call in calls {
        let (one, two) = call.await.unwrap();
        assert_eq!((one.value + 1, two.attempts), (two.value, 1));
    }
    let fates = system.fates();
    assert_eq!((fates.accepted, fates.done, fates.open), (2 * CHILDREN, 2 * CHILDREN, 0));
    assert_eq!(log.again(), 0);
    assert_eq!(log.lives.load(Ordering::Relaxed), 2 * CHILDREN);
    system.stop().await;
}
