//! One request at a time, at the edges: hand-outs, interruptions, callers who leave, deadlines.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use mainstay::behavior::Context;
use mainstay::error::CallError;
use mainstay::event::Event;
use mainstay::family::Shutdown;
use mainstay::fate::Fate;
use mainstay::fault::Class;
use mainstay::port::{CallOptions, Port};
use mainstay::spec::{ChildSpec, GroupSpec, SupervisorSpec};
use mainstay::system::System;

#[path = "attack_support/support.rs"]
mod support;

use support::{Act, Clerk, Hand, Log, ms, pass, script, secs};

fn hand(
    log: &Arc<Log>,
    act: impl Fn(u64, &Context) -> Act + Send + Sync + 'static,
) -> impl Fn() -> Hand + Send + Sync + 'static {
    let hand = Hand { script: script(act), log: Arc::clone(log) };
    move || hand.clone()
}

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

async fn begun(log: &Log, runs: u64) {
    while log.begins.load(Ordering::Relaxed) < runs {
        pass(1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_request_keeps_its_attempt_and_is_handed_out_five_times_at_most() {
    let log = Arc::new(Log::default());
    let soon = Shutdown::Timeout(ms(10));
    let system = System::start(
        SupervisorSpec::one_for_all("top")
            .intensity(100, secs(1))
            .no_child_limit()
            .child(ChildSpec::stateful("falls", clerk(&log, |_, _| Act::Reply)))
            .child(ChildSpec::stateful("innocent", clerk(&log, |_, _| Act::Hang)).shutdown(soon)),
    )
    .await
    .unwrap();
    let innocent = port(&system, "top/innocent");
    let call = tokio::spawn(async move { innocent.call(1u64).await });
    for n in 1..=5 {
        begun(&log, n).await;
        system.kill("top/falls").unwrap();
    }
    let error = call.await.unwrap().unwrap_err();
    assert!(matches!(error, CallError::RecoveryExhausted { .. }), "{error}");
    assert_eq!(log.of(1).begun, [(1, 1), (1, 2), (1, 3), (1, 4), (1, 5)]);
    assert_eq!((system.fates().failed, system.fates().open), (1, 0));
    system.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_request_goes_before_those_that_waited() {
    let log = Arc::new(Log::default());
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&order);
    let system = System::start(
        SupervisorSpec::one_for_all("top")
            .child(ChildSpec::stateful("falls", clerk(&log, |_, _| Act::Reply)))
            .child(ChildSpec::stateful(
                "innocent",
                clerk(&log, move |id, ctx| {
                    seen.lock().unwrap().push((id, ctx.attempt(), ctx.delivery().0));
                    if ctx.delivery().0 == 1 && id == 1 { Act::Hang } else { Act::Reply }
                }),
            )),
    )
    .await
    .unwrap();
    let innocent = port(&system, "top/innocent");
    for id in 1..=3u64 {
        innocent.cast(id).unwrap();
    }
    begun(&log, 1).await;
    let mut events = system.events();
    system.kill("top/falls").unwrap();
    let mut answered = 0;
    events
        .wait_for(|event| {
            answered += u32::from(matches!(event, Event::Fated { fate: Fate::Done, .. }));
            answered == 3
        })
        .await;
    assert_eq!(*order.lock().unwrap(), [(1, 1, 1), (1, 1, 2), (2, 1, 1), (3, 1, 1)]);
    system.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_caller_left_is_not_run_again_by_a_restart_or_a_retry() {
    for restart in [true, false] {
        let log = Arc::new(Log::default());
        let system = System::start(
            SupervisorSpec::one_for_all("top")
                .child(ChildSpec::stateful("falls", clerk(&log, |_, _| Act::Reply)))
                .child(
                    ChildSpec::stateful(
                        "innocent",
                        clerk(&log, move |_, _| match restart {
                            true => Act::Hang,
                            false => Act::Fail(Class::Network),
                        }),
                    )
                    .shutdown(Shutdown::Timeout(ms(10))),
                ),
        )
        .await
        .unwrap();
        let innocent = port(&system, "top/innocent");
        {
            let call = innocent.call(1u64);
            let left = tokio::time::timeout(ms(1), call).await;
            assert!(left.is_err());
        }
        let mut events = system.events();
        if restart {
            // In its step it hears nothing; the restart takes it along.
            assert_eq!(system.fates().open, 1);
            system.kill("top/falls").unwrap();
            events.wait_for(|event| matches!(event, Event::Fated { .. })).await;
        }
        assert_eq!((system.fates().cancelled, system.fates().open), (1, 0));
        assert_eq!(port(&system, "top/falls").call(2u64).await.unwrap().value, 2);
        assert_eq!(log.of(1).begun.len(), 1);
        system.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_is_kept_to_the_millisecond_wherever_the_request_is() {
    let log = Arc::new(Log::default());
    let system = System::start(
        SupervisorSpec::one_for_one("top")
            .intensity(100, secs(1))
            .restart_backoff(secs(60), secs(60))
            .child(ChildSpec::stateful("hangs", clerk(&log, |_, _| Act::Hang)))
            .child(ChildSpec::stateless("fails", hand(&log, |_, _| Act::Fail(Class::RateLimit))))
            .child(ChildSpec::stateful("down", clerk(&log, |_, _| Act::Reply)))
            .group(
                GroupSpec::model("group").member_spec(
                    ChildSpec::stateless("only", hand(&log, |_, _| Act::Hang))
                        .mailbox(1)
                        .concurrency(1),
                ),
            ),
    )
    .await
    .unwrap();
    system.kill("top/down").unwrap();
    let mut calls = Vec::new();
    for (n, path) in
        ["top/hangs", "top/hangs", "top/fails", "top/down", "top/group"].iter().enumerate()
    {
        let port = port(&system, path);
        let deadline = ms(700 + 13 * n as u64);
        calls.push(tokio::spawn(async move {
            let began = tokio::time::Instant::now();
            let error = port.call_with(n as u64, CallOptions::new().deadline(deadline)).await;
            (path, deadline, began.elapsed(), error)
        }));
    }
    for call in calls {
        let (path, deadline, took, error) = call.await.unwrap();
        match error {
            Err(CallError::Expired { waited, .. }) => {
                assert_eq!((waited, took), (deadline, deadline), "{path}");
            }
            // It cannot be retried in time, and says so at once.
            Err(CallError::RecoveryExhausted { .. }) => assert_eq!(*path, "top/fails"),
            other => panic!("{path}: {other:?}"),
        }
    }
    assert_eq!(system.fates().expired, 4);
    system.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_past_its_deadline_is_never_begun() {
    let log = Arc::new(Log::default());
    let system = System::start(SupervisorSpec::one_for_one("top").child(ChildSpec::stateful(
        "w",
        clerk(&log, |id, _| if id == 0 { Act::ReplyAfter(100) } else { Act::Reply }),
    )))
    .await
    .unwrap();
    let w = port(&system, "top/w");
    // Its time is over in the very moment in which the child is free.
    let exact = w.call_with(1u64, CallOptions::new().deadline(ms(100)));
    let never = w.call_with(2u64, CallOptions::new().deadline(ms(0)));
    let (first, exact, never) = tokio::join!(w.call(0u64), exact, never);
    assert!(matches!(exact, Err(CallError::Expired { .. })));
    assert!(matches!(never, Err(CallError::Expired { .. })));
    assert_eq!(first.unwrap().value, 0);
    assert_eq!((log.of(1).begun.len(), log.of(2).begun.len()), (0, 0));
    system.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_child_that_is_terminated_gives_its_requests_a_fate_and_can_be_started_again() {
    let log = Arc::new(Log::default());
    let system = System::start(
        SupervisorSpec::one_for_one("top").child(
            ChildSpec::stateless(
                "w",
                hand(&log, |_, ctx| if ctx.delivery().0 == 1 { Act::Hang } else { Act::Reply }),
            )
            .shutdown(Shutdown::Brutal),
        ),
    )
    .await
    .unwrap();
    let w = port(&system, "top/w");
    let call = tokio::spawn({
        let w = w.clone();
        async move { w.call(1u64).await }
    });
    begun(&log, 1).await;
    let top = system.supervisor("top").unwrap();
    top.terminate_child("w").await.unwrap();
    assert!(matches!(call.await.unwrap(), Err(CallError::Stopped { .. })));
    assert!(matches!(w.call(2u64).await, Err(CallError::Refused { message: 2, .. })));
    top.restart_child("w").await.unwrap();
    assert_eq!(w.call(3u64).await.unwrap().attempts, 2);
    let fates = system.fates();
    assert_eq!((fates.stopped, fates.open), (1, 0));
    assert!(fates.is_balanced());
    system.stop().await;
}

/// Puts the calling task behind all that are to run now.
async fn behind_all() {
    let mut been = false;
    poll_fn(|task| {
        task.waker().wake_by_ref();
        if std::mem::replace(&mut been, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// An attempt that is expected to wait is handed to a task of its own, where it runs in its turn: whatever comes
/// before that comes before the attempt.
#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_not_wanted_any_more_in_its_first_turn_is_not_begun() {
    for killed in [false, true] {
        let log = Arc::new(Log::default());
        let act = |id, _: &Context| if id == 1 { Act::ReplyAfter(100) } else { Act::Reply };
        let system = System::start(
            SupervisorSpec::one_for_one("top")
                .child(ChildSpec::stateless("w", hand(&log, act)).concurrency(4)),
        )
        .await
        .unwrap();
        let test = {
            let (log, system) = (Arc::clone(&log), system.clone());
            async move {
                let w = port(&system, "top/w");
                let waits = tokio::spawn({
                    let w = w.clone();
                    async move { w.call(1u64).await }
                });
                begun(&log, 1).await;
                {
                    let mut call = pin!(w.call(2u64));
                    let first = poll_fn(|task| Poll::Ready(call.as_mut().poll(task))).await;
                    assert!(first.is_pending());
                    // The child has its turn, and its new task is behind this one.
                    behind_all().await;
                    assert!(log.of(2).begun.is_empty());
                    if killed {
                        system.kill("top/w").unwrap();
                        call.await.unwrap();
                    }
                }
                waits.await.unwrap().unwrap();
                pass(1).await;
                w
            }
        };
        // In a task like the others: what is blocked on has its turn out of the line.
        let w = tokio::spawn(test).await.unwrap();
        let begun: Vec<_> = log.of(2).begun.iter().map(|(_, delivery)| *delivery).collect();
        if killed {
            // Its first hand-out came to nothing: it was served in the next life only.
            assert_eq!(begun, [2]);
        } else {
            assert!(begun.is_empty());
            assert_eq!(system.fates().cancelled, 1);
        }
        assert_eq!(w.call(3u64).await.unwrap().value, 3);
        assert_eq!(system.fates().open, 0);
        system.stop().await;
    }
}
