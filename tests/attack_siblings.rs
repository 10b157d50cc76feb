//! Lives that end beside others: during the restart of a sibling, and among attempts that share them;
//! and values of the user's that panic when they are dropped.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mainstay::behavior::{Behavior, Context, Stateless};
use mainstay::error::CallError;
use mainstay::event::Event;
use mainstay::family::Shutdown;
use mainstay::fate::Fate::{Done, Expired};
use mainstay::fault::{EffectKind, Fault};
use mainstay::port::Port;
use mainstay::spec::{ChildSpec, SupervisorSpec};
use mainstay::system::System;

#[path = "attack_support/support.rs"]
mod support;

use support::{Act, Clerk, Hand, Log, ms, script, secs};

/// A request whose `Drop` panics, as a user's value may.
struct Thorn(u64);

impl Drop for Thorn {
    fn drop(&mut self) {
        if self.0 > 0 && !std::thread::panicking() {
            panic!("the request");
        }
    }
}

struct Taker;

impl Behavior for Taker {
    type Request = Thorn;
    type Reply = Thorn;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
}

impl Stateless for Taker {
    async fn serve(&self, thorn: &Thorn, _: &Context) -> Result<Thorn, Fault> {
        if thorn.0 == 2 { pending().await } else { Ok(Thorn(thorn.0)) }
    }
}

#[tokio::test(start_paused = true)]
async fn requests_and_replies_that_panic_when_dropped_disturb_nobody() {
    let system = System::start(
        SupervisorSpec::one_for_one("top")
            .child(ChildSpec::stateless("t", || Taker).concurrency(2).deadline(secs(5))),
    )
    .await
    .unwrap();
    let port: Port<Thorn, Thorn> = system.port("top/t").unwrap();
    // Answered to nobody; expired in flight; expired in the queue: each drops its values in another
    // place of the runtime's.
    let receipts: Vec<_> =
        [1, 2, 2, 2, 2, 1].map(|n| port.cast(Thorn(n)).unwrap()).into_iter().collect();
    let later = port.call(Thorn(0)).await;
    assert!(matches!(later, Err(CallError::Expired { .. })));
    assert_eq!(port.call(Thorn(0)).await.unwrap().value.0, 0);
    let fates: Vec<_> = receipts.into_iter().map(|receipt| system.fate(receipt)).collect();
    let expected = [Done, Expired, Expired, Expired, Expired, Expired];
    assert_eq!(fates, expected.map(|fate| Some(Some(fate))));
    assert_eq!((system.stats().crashes, system.fates().open), (0, 0));
    system.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_sibling_that_dies_during_the_restart_of_another_widens_it_and_counts_once() {
    let strategies: [fn(&'static str) -> SupervisorSpec; 2] =
        [SupervisorSpec::one_for_all, SupervisorSpec::rest_for_one];
    for strategy in strategies {
        let log = Arc::new(Log::default());
        let clerk = |act: Act| Clerk {
            script: script(move |_, ctx| if ctx.attempt() == 1 { act } else { Act::Reply }),
            log: Arc::clone(&log),
        };
        let (a, b, c) = (clerk(Act::Panic), clerk(Act::Hang), clerk(Act::ReplyAfter(5)));
        let soon = Shutdown::Timeout(ms(100));
        let system = System::start(
            strategy("top")
                .intensity(1, secs(60))
                .child(ChildSpec::stateful("a", move || a.clone()).shutdown(soon))
                .child(ChildSpec::stateful("b", move || b.clone()).shutdown(soon))
                .child(ChildSpec::stateful("c", move || c.clone()).shutdown(soon)),
        )
        .await
        .unwrap();
        let port = |id: &str| system.port::<u64, u64>(format!("top/{id}")).unwrap();
        let (a, b, c) = (port("a"), port("b"), port("c"));
        let killer = system.clone();
        let mut events = system.events();
        let watch = tokio::spawn(async move {
            events.wait_for(|event| matches!(event, Event::Restarting { .. })).await;
            // `b` hangs in its step and is waited for: it dies now.
            killer.kill("top/b").unwrap();
        });
        let hanging = tokio::spawn(async move { b.call(2u64).await });
        let waiting = tokio::spawn(async move { c.call(3u64).await });
        while log.begins.load(Ordering::Relaxed) < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(a.call(1u64).await.unwrap().attempts, 2);
        assert_eq!(waiting.await.unwrap().unwrap().attempts, 1);
        assert!(hanging.await.unwrap().unwrap().attempts <= 2);
        watch.await.unwrap();
        assert_eq!(log.lives.load(Ordering::Relaxed), 6);
        let info = system.supervisor("top").unwrap().which_children().await.unwrap();
        assert_eq!(info.len(), 3);
        system.stop().await;
        assert_eq!(system.fates().open, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_shared_life_that_panics_leaves_its_other_attempts_alone() {
    let log = Arc::new(Log::default());
    let plan = script(|id, ctx| match id {
        0 if ctx.attempt() == 1 => Act::Panic,
        _ => Act::ReplyAfter(100),
    });
    let hand = Hand { script: plan, log: Arc::clone(&log) };
    let system = System::start(
        SupervisorSpec::one_for_one("top")
            .child(ChildSpec::stateless("w", move || hand.clone()).concurrency(8)),
    )
    .await
    .unwrap();
    let port: Port<u64, u64> = system.port("top/w").unwrap();
    let calls: Vec<_> = (1..8u64)
        .chain([0])
        .map(|id| {
            let port = port.clone();
            tokio::spawn(async move { port.call(id).await.unwrap() })
        })
        .collect();
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap().attempts, 1 + u32::from(n == 7));
    }
    assert_eq!(log.begun(), 9);
    assert_eq!(log.lives.load(Ordering::Relaxed), 2);
    system.stop().await;
}
