//! Lives that end badly: in the constructor, in `start`, in `stop`, in `Drop`, before there is a future,
//! with a payload that is no text.

use std::future::{Future, pending};
use std::panic::panic_any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mainstay::behavior::{Behavior, Context, StartContext, Stateful, Stateless, Step, Turn};
use mainstay::error::StartError;
use mainstay::event::Event;
use mainstay::family::Shutdown;
use mainstay::fault::{Class, EffectKind, ExitCause, ExitKind, Fault};
use mainstay::policy::{Policy, What};
use mainstay::port::Port;
use mainstay::spec::{ChildSpec, SupervisorSpec};
use mainstay::system::System;

#[path = "attack_support/support.rs"]
mod support;

use support::{ms, secs};

/// Where it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    Nowhere,
    Constructor,
    Start,
    /// `start` panics before it returns a future.
    StartCall,
    /// `start` hangs, and its future panics when it is dropped.
    StartDrop,
    /// The work panics before it returns a future.
    Call,
    /// With a payload that is no text and panics when it is dropped.
    Payload,
    /// The work is cut short, and its future panics when it is dropped.
    CutDrop,
    /// The state panics when it is dropped, after a fault that ends the life.
    Drop,
    Stop,
    StopCall,
    /// `stop` hangs, and its future panics when it is dropped.
    StopDrop,
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("dropped");
        }
    }
}

/// Breaks once, in its first life, at its place.
struct Glass {
    place: Where,
    life: u64,
    armed: bool,
}

impl Glass {
    fn new(place: Where, lives: &AtomicU64) -> Self {
        let life = lives.fetch_add(1, Ordering::Relaxed) + 1;
        assert!(!(place == Where::Constructor && life == 2), "constructed");
        Self { place, life, armed: false }
    }

    fn breaks(&self, place: Where) -> bool {
        self.place == place && self.life == 1
    }
}

impl Clone for Glass {
    fn clone(&self) -> Self {
        Self { place: self.place, life: self.life, armed: false }
    }
}

impl Drop for Glass {
    fn drop(&mut self) {
        if self.armed && !std::thread::panicking() {
            panic!("the state");
        }
    }
}

impl Behavior for Glass {
    type Request = u64;
    type Reply = u64;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
}

impl Glass {
    fn starts(&mut self) -> impl Future<Output = Result<(), Fault>> + Send {
        // The first life must come up: what breaks in a start breaks in the second.
        let at = |place| self.place == place && self.life == 2;
        assert!(!at(Where::StartCall), "called");
        let (panics, hangs) = (at(Where::Start), at(Where::StartDrop));
        async move {
            assert!(!panics, "started");
            if hangs {
                let _bomb = Bomb;
                pending::<()>().await;
            }
            Ok(())
        }
    }

    fn works(&self, id: u64) -> impl Future<Output = Result<u64, Fault>> + Send {
        assert!(!self.breaks(Where::Call), "called");
        let (payload, cut) = (self.breaks(Where::Payload), self.breaks(Where::CutDrop));
        let dies = self.life == 1 && !matches!(self.place, Where::Nowhere | Where::CutDrop);
        let ends = self.breaks(Where::Drop);
        async move {
            if payload {
                panic_any(Bomb);
            }
            if cut {
                let _bomb = Bomb;
                pending::<()>().await;
            }
            if ends {
                return Err(Fault::tool_execution("the end"));
            }
            assert!(!dies, "worked");
            Ok(id)
        }
    }

    fn stops(&self) -> impl Future<Output = ()> + Send {
        assert!(self.place != Where::StopCall, "called");
        let (panics, hangs) = (self.place == Where::Stop, self.place == Where::StopDrop);
        async move {
            assert!(!panics, "stopped");
            if hangs {
                let _bomb = Bomb;
                pending::<()>().await;
            }
        }
    }
}

impl Stateless for Glass {
    fn start(&mut self, _: &StartContext) -> impl Future<Output = Result<(), Fault>> + Send {
        self.armed = self.breaks(Where::Drop);
        self.starts()
    }

    fn serve(&self, id: &u64, _: &Context) -> impl Future<Output = Result<u64, Fault>> + Send {
        self.works(*id)
    }

    fn stop(&self, _: &ExitCause) -> impl Future<Output = ()> + Send {
        self.stops()
    }
}

impl Stateful for Glass {
    fn start(&mut self, _: &StartContext) -> impl Future<Output = Result<(), Fault>> + Send {
        self.armed = self.breaks(Where::Drop);
        self.starts()
    }

    fn step(
        &mut self,
        id: &u64,
        _: Turn,
        _: &Context,
    ) -> impl Future<Output = Result<Step<u64>, Fault>> + Send {
        let work = self.works(*id);
        async move { work.await.map(Step::Reply) }
    }

    fn stop(&mut self, _: &ExitCause) -> impl Future<Output = ()> + Send {
        self.stops()
    }
}

fn glass(place: Where, serial: bool) -> (ChildSpec, Arc<AtomicU64>) {
    let lives = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&lives);
    let make = move || Glass::new(place, &count);
    let spec = if serial {
        ChildSpec::stateful("glass", make)
    } else {
        ChildSpec::stateless("glass", make)
    };
    (spec.shutdown(Shutdown::Timeout(ms(500))), lives)
}

#[tokio::test(start_paused = true)]
async fn wherever_a_behavior_panics_its_request_is_answered_by_the_next_life() {
    use Where::*;
    let policy =
        Policy::default().with_attempt_timeout(secs(2)).with_what(Class::ToolExecution, What::Life);
    for serial in [false, true] {
        for place in [
            Nowhere,
            Constructor,
            Start,
            StartCall,
            StartDrop,
            Call,
            Payload,
            CutDrop,
            Drop,
            Stop,
            StopCall,
            StopDrop,
        ] {
            let (spec, lives) = glass(place, serial);
            let system = System::start(
                SupervisorSpec::one_for_one("top")
                    .intensity(5, secs(60))
                    .policy(policy.clone())
                    .child(spec),
            )
            .await
            .unwrap();
            let mut events = system.events();
            let port: Port<u64, u64> = system.port("top/glass").unwrap();
            let answer = port.call(7u64).await.unwrap_or_else(|e| panic!("{place:?}: {e}"));
            let expected = match place {
                Nowhere => 1,
                // A start that failed is one life more.
                Constructor | Start | StartCall | StartDrop => 3,
                _ => 2,
            };
            // A constructor that panics has made no life, but it was one.
            assert_eq!(lives.load(Ordering::Relaxed), expected, "{place:?} {serial}");
            assert_eq!(answer.attempts, 1 + u32::from(place != Nowhere), "{place:?} {serial}");
            system.stop().await;
            let mut exits = Vec::new();
            while let Some(stamped) = events.try_next() {
                if let Event::Exited { cause, .. } = stamped.event {
                    exits.push(cause);
                }
            }
            let first = match place {
                Nowhere => ExitKind::Stopped,
                // The state that the failed step left behind panics before its life is ended for it.
                Drop if !serial => ExitKind::Faulted,
                // Never disguised: not as a kill, not as a normal end.
                _ => ExitKind::Panic,
            };
            assert_eq!(exits[0], first, "{place:?} {serial}");
            let failed = exits.iter().filter(|kind| **kind == ExitKind::StartFailed).count();
            assert_eq!(failed as u64, expected.saturating_sub(2), "{place:?} {serial}");
            assert_eq!(exits.last(), Some(&ExitKind::Stopped), "{place:?} {serial}");
            assert!(system.fates().is_balanced());
            assert_eq!(system.fates().open, 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_start_that_fails_in_any_way_is_an_error_and_not_a_hang() {
    struct Never(u8);
    impl Behavior for Never {
        type Request = u64;
        type Reply = u64;
    }
    impl Clone for Never {
        fn clone(&self) -> Self {
            Self(self.0)
        }
    }
    impl Stateful for Never {
        fn start(&mut self, _: &StartContext) -> impl Future<Output = Result<(), Fault>> + Send {
            let how = self.0;
            assert!(how != 1, "called");
            async move {
                assert!(how != 2, "polled");
                let _bomb = Bomb;
                pending().await
            }
        }
        async fn step(&mut self, id: &u64, _: Turn, _: &Context) -> Result<Step<u64>, Fault> {
            Ok(Step::Reply(*id))
        }
    }
    for (how, says) in [(1, "called"), (2, "polled"), (3, "longer than 30s")] {
        let spec =
            SupervisorSpec::one_for_one("top").child(ChildSpec::stateful("n", move || Never(how)));
        let error = System::start(spec).await.unwrap_err();
        let StartError::Child { child, cause: ExitCause::StartFailed(text) } = &error else {
            panic!("{error}")
        };
        assert_eq!(*child, "top/n");
        assert!(text.contains(says), "{text}");
    }
}
