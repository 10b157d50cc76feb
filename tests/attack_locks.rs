//! Threads against the locks: who looks in while others fail, users' values that come back into the
//! runtime when they are dropped, work that blocks, and shutdowns at any moment.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use mainstay::behavior::{Behavior, Context, Stateful, Stateless, Step, Turn};
use mainstay::error::CallError;
use mainstay::event::Event;
use mainstay::family::Shutdown;
use mainstay::fault::{Class, EffectKind, Fault};
use mainstay::policy::Policy;
use mainstay::port::{CallOptions, Port};
use mainstay::spec::{ChildSpec, GroupSpec, SupervisorSpec};
use mainstay::system::System;

#[path = "attack_support/support.rs"]
mod support;

use support::{Act, Chance, Hand, Log, ms, script, secs};

/// A deadlock would take for ever; nothing here takes seconds.
async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(120), work).await.expect("somebody waits for ever")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn looking_in_while_members_of_a_group_fail_blocks_nobody() {
    let log = Arc::new(Log::default());
    let chance = Chance::new(11);
    let member = |fails: u64| {
        let chance = Arc::clone(&chance);
        Hand {
            script: script(move |_, _| {
                if chance.mille(fails) { Act::Fail(Class::ModelUnavailable) } else { Act::Reply }
            }),
            log: Arc::clone(&log),
        }
    };
    let (one, two) = (member(500), member(0));
    let system = System::start(
        SupervisorSpec::one_for_one("top")
            .group(GroupSpec::model("llm").member("one", one).member("two", two)),
    )
    .await
    .unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let looker = {
        let (system, done) = (system.clone(), Arc::clone(&done));
        std::thread::spawn(move || {
            let mut looks = 0u64;
            while !done.load(Ordering::Relaxed) {
                looks += system.tree().to_string().len() as u64;
                assert!(system.fates().is_balanced());
            }
            looks
        })
    };
    in_time(async {
        let callers: Vec<_> = (0..8u64)
            .map(|caller| {
                let port: Port<u64, u64> = system.port("top/llm").unwrap();
                tokio::spawn(async move {
                    for n in 0..400 {
                        assert_eq!(port.call(caller * 400 + n).await.unwrap().value % 400, n);
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await.unwrap();
        }
        done.store(true, Ordering::Relaxed);
        system.stop().await;
    })
    .await;
    assert!(looker.join().unwrap() > 0);
    assert_eq!((system.fates().done, system.fates().open), (3200, 0));
}

/// Looks into the system, and calls it, when it is dropped.
struct Nosy(Option<(System, Arc<AtomicU64>)>);

impl Drop for Nosy {
    fn drop(&mut self) {
        if let Some((system, looks)) = &self.0 {
            assert!(system.fates().is_balanced());
            let _ = system.tree().to_string();
            if let Ok(port) = system.port::<Nosy, Nosy>("top/w") {
                let _ = port.cast(Nosy(None));
            }
            looks.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[derive(Clone)]
struct Nose(Arc<AtomicU64>);

impl Behavior for Nose {
    type Request = Nosy;
    type Reply = Nosy;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
}

impl Stateful for Nose {
    async fn step(&mut self, _: &Nosy, _: Turn, _: &Context) -> Result<Step<Nosy>, Fault> {
        match self.0.fetch_add(1, Ordering::Relaxed) % 5 {
            0 => panic!("now and then"),
            1 => std::future::pending().await,
            2 => Err(Fault::input_validation("no")),
            _ => Ok(Step::Reply(Nosy(None))),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_that_comes_back_into_the_runtime_when_dropped_finds_no_lock_held() {
    let policy = Policy::default().with_attempt_timeout(secs(1));
    let count = Arc::new(AtomicU64::new(0));
    let system = System::start(
        SupervisorSpec::one_for_one("top").intensity(1000, secs(1)).no_child_limit().child(
            ChildSpec::stateful("w", move || Nose(Arc::clone(&count)))
                .policy(policy)
                .mailbox(64)
                .shutdown(Shutdown::Brutal),
        ),
    )
    .await
    .unwrap();
    let looks = Arc::new(AtomicU64::new(0));
    let port: Port<Nosy, Nosy> = system.port("top/w").unwrap();
    let mut given = 0;
    for n in 0..40u64 {
        let nosy = Nosy(Some((system.clone(), Arc::clone(&looks))));
        // Nobody else holds it: whoever ends it drops it. Some expire, some are killed, some wait.
        let options = CallOptions::new().deadline(ms(1 + 300 * (n % 7)));
        given += 1;
        drop(port.cast_with(nosy, options));
        if n % 8 == 3 {
            system.kill("top/w").unwrap();
        }
        support::pass(n % 5 * 50).await;
    }
    system.stop().await;
    let fates = system.fates();
    assert!(fates.is_balanced());
    assert_eq!((fates.open, looks.load(Ordering::Relaxed)), (0, given));
    // It holds the system in its value: what is dropped now must not be.
    assert!(fates.expired > 0 && fates.done > 0 && fates.stopped > 0, "{fates:?}");
}

/// Blocks its thread until it is let go.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn block(&self) {
        let mut open = self.0.0.lock().unwrap();
        while !*open {
            open = self.0.1.wait(open).unwrap();
        }
    }

    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
}

#[derive(Clone)]
struct Blocks(Gate, Arc<AtomicU64>);

impl Behavior for Blocks {
    type Request = u64;
    type Reply = u64;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
}

impl Blocks {
    fn work(&self, id: u64, ctx: &Context) -> u64 {
        if id == 1 && ctx.delivery().0 == 1 {
            self.0.block();
            self.1.fetch_add(1, Ordering::SeqCst);
        }
        id
    }
}

impl Stateless for Blocks {
    async fn serve(&self, id: &u64, ctx: &Context) -> Result<u64, Fault> {
        Ok(self.work(*id, ctx))
    }
}

impl Stateful for Blocks {
    async fn step(&mut self, id: &u64, _: Turn, ctx: &Context) -> Result<Step<u64>, Fault> {
        Ok(Step::Reply(self.work(*id, ctx)))
    }
}

fn zombies(system: &System) -> usize {
    let tree = system.tree().to_string();
    usize::from(tree.contains("zombie"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_blocks_is_a_hang_and_shows_as_a_zombie_until_it_comes_back() {
    let policy = Policy::default().with_attempt_timeout(ms(40)).with_hang_grace(ms(10));
    for (serial, apart) in [(true, true), (true, false), (false, true), (false, false)] {
        let (gate, woken) = (Gate::default(), Arc::new(AtomicU64::new(0)));
        let blocks = Blocks(gate.clone(), Arc::clone(&woken));
        let mut spec = if serial {
            ChildSpec::stateful("w", move || blocks.clone())
        } else {
            ChildSpec::stateless("w", move || blocks.clone()).concurrency(2)
        };
        if apart {
            spec = spec.blocking();
        }
        let system =
            System::start(SupervisorSpec::one_for_one("top").policy(policy.clone()).child(spec))
                .await
                .unwrap();
        let port: Port<u64, u64> = system.port("top/w").unwrap();
        let mut events = system.events();
        in_time(async {
            let call = tokio::spawn({
                let port = port.clone();
                async move { port.call(1u64).await }
            });
            events.wait_for(|event| matches!(event, Event::Zombie { .. })).await;
            // The next life serves it while the old one still sits there.
            assert_eq!(call.await.unwrap().unwrap().attempts, 2, "{serial} {apart}");
            assert_eq!(port.call(2u64).await.unwrap().value, 2);
            assert_eq!(zombies(&system), 1, "{serial} {apart}");
            gate.open();
            while zombies(&system) > 0 {
                tokio::task::yield_now().await;
            }
            assert_eq!(woken.load(Ordering::SeqCst), 1, "{serial} {apart} {:?}", system.stats());
            let fates = system.fates();
            assert_eq!((fates.accepted, fates.done, fates.open), (2, 2, 0));
            assert_eq!(system.stats().crashes, 1, "{serial} {apart}");
            system.stop().await;
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_system_that_is_stopped_at_any_moment_ends_with_nothing_open() {
    let chance = Chance::new(5);
    for round in 0..60 {
        let log = Arc::new(Log::default());
        let plan = script(|id, ctx| match id % 7 {
            0 if ctx.attempt() == 1 => Act::Panic,
            1 => Act::ReplyAfter(1),
            2 => Act::Hang,
            _ => Act::Reply,
        });
        let hand = Hand { script: plan, log: Arc::clone(&log) };
        let shutdown = if round % 2 == 0 { Shutdown::Brutal } else { Shutdown::Timeout(ms(1)) };
        let mut spec =
            ChildSpec::stateless("w", move || hand.clone()).concurrency(4).shutdown(shutdown);
        if round % 3 == 0 {
            spec = spec.lazy();
        }
        let system = System::start(
            SupervisorSpec::one_for_one("top")
                .intensity(100_000, secs(1))
                .no_child_limit()
                .child(spec),
        )
        .await
        .unwrap();
        let port: Port<u64, u64> = system.port("top/w").unwrap();
        let calls: Vec<_> = (0..32u64)
            .map(|id| {
                let port = port.clone();
                tokio::spawn(async move { port.call(id).await })
            })
            .collect();
        for _ in 0..chance.below(40) {
            tokio::task::yield_now().await;
        }
        in_time(async {
            system.stop().await;
            for call in calls {
                if let Err(CallError::Refused { message, .. }) = call.await.unwrap() {
                    assert!(message < 32);
                }
            }
            let fates = system.fates();
            assert!(fates.is_balanced());
            assert_eq!(fates.open, 0);
            // And nothing comes back.
            let lives = log.lives.load(Ordering::Relaxed);
            assert!(port.call(99u64).await.is_err());
            tokio::task::yield_now().await;
            assert_eq!(log.lives.load(Ordering::Relaxed), lives);
        })
        .await;
    }
}
