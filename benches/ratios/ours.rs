//! Our side: behaviors that answer, fail or hang as their request says.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mainstay::behavior::{Behavior, Context, Stateful, Stateless, Step, Turn};
use mainstay::fault::{Class, EffectKind, Fault};
use mainstay::policy::Policy;
use mainstay::port::Port;
use mainstay::spec::{ChildSpec, SupervisorSpec};
use mainstay::system::System;

use super::meter::{Asks, thread_cpu};

/// What is asked of a [`Cue`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// An answer.
    Echo(u64),
    /// To show that it serves again.
    Mark,
    /// A panic at the first attempt.
    PanicOnce,
    /// Nothing at the first attempt, for as long as it is let; then it shows that it serves again.
    HangOnce,
    /// A fault, which is not retried.
    Err,
    /// A panic, every time.
    Panic,
}

/// From a failure to the moment when its child works again.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    failed: AtomicU64,
    took: Mutex<Vec<f64>>,
    /// Attempts that failed, and lives that ended by it.
    pub(crate) failures: AtomicU64,
}

impl Stopwatch {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            failed: AtomicU64::new(0),
            took: Mutex::default(),
            failures: AtomicU64::new(0),
        })
    }

    /// In CPU time of this thread, on which all of it happens: what others take does not count.
    fn now() -> u64 {
        thread_cpu().as_nanos() as u64
    }

    /// It fails now, or so much later.
    pub(crate) fn fails(&self, later: Duration) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.failed.store(Self::now() + later.as_nanos() as u64, Ordering::Relaxed);
    }

    /// It serves again.
    pub(crate) fn serves(&self) {
        let failed = self.failed.swap(0, Ordering::Relaxed);
        if failed > 0 {
            let took = Self::now().saturating_sub(failed) as f64;
            self.took.lock().expect("no holder panics").push(took);
        }
    }

    /// What was measured since the last time this was asked.
    pub(crate) fn took(&self) -> Vec<f64> {
        std::mem::take(&mut *self.took.lock().expect("no holder panics"))
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

/// Does as it is asked.
#[derive(Clone, Debug)]
pub(crate) struct Cue {
    pub(crate) watch: Arc<Stopwatch>,
    /// How long an attempt may hang.
    pub(crate) timeout: Duration,
}

impl Cue {
    pub(crate) fn new(watch: &Arc<Stopwatch>) -> Self {
        Self { watch: Arc::clone(watch), timeout: Duration::ZERO }
    }

    async fn work(&self, ask: Ask, first: bool) -> Result<u64, Fault> {
        match ask {
            Ask::Echo(value) => return Ok(value + 1),
            Ask::PanicOnce if first => {
                self.watch.fails(Duration::ZERO);
                panic!("cue");
            }
            Ask::HangOnce if first => {
                self.watch.fails(self.timeout);
                std::future::pending::<()>().await;
            }
            Ask::Err => {
                self.watch.fails(Duration::ZERO);
                return Err(Fault::input_validation("cue"));
            }
            Ask::Panic => {
                self.watch.fails(Duration::ZERO);
                panic!("cue");
            }
            Ask::Mark | Ask::PanicOnce | Ask::HangOnce => self.watch.serves(),
        }
        Ok(0)
    }
}

impl Behavior for Cue {
    type Request = Ask;
    type Reply = u64;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
}

impl Stateful for Cue {
    async fn step(&mut self, ask: &Ask, _: Turn, ctx: &Context) -> Result<Step<u64>, Fault> {
        Ok(Step::Reply(self.work(*ask, ctx.attempt() == 1).await?))
    }
}

impl Stateless for Cue {
    async fn serve(&self, ask: &Ask, ctx: &Context) -> Result<u64, Fault> {
        self.work(*ask, ctx.attempt() == 1).await
    }
}

/// Adds one.
#[derive(Clone, Debug)]
pub(crate) struct Echo;

impl Behavior for Echo {
    type Request = u64;
    type Reply = u64;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
}

impl Stateful for Echo {
    async fn step(&mut self, value: &u64, _: Turn, _: &Context) -> Result<Step<u64>, Fault> {
        Ok(Step::Reply(value + 1))
    }
}

impl Stateless for Echo {
    async fn serve(&self, value: &u64, _: &Context) -> Result<u64, Fault> {
        Ok(value + 1)
    }
}

/// An address of ours that is asked for the next number.
#[derive(Clone, Debug)]
pub(crate) struct Ours(pub(crate) Port<u64, u64>);

impl Asks for Ours {
    async fn ask(&self) {
        let answer = self.0.call(7_u64).await.expect("it succeeds");
        assert_eq!(answer.value, 8);
    }
}

/// Never retries: what fails goes to a sibling, or to its caller.
pub(crate) fn no_retries() -> Policy {
    Class::ALL
        .into_iter()
        .fold(Policy::new(), |policy, class| policy.with_cap(class, 0))
        .with_global_cap(0)
}

/// A tree that never gives up on a child, so that what is measured is the restart.
pub(crate) fn patient(spec: SupervisorSpec) -> SupervisorSpec {
    spec.intensity(u32::MAX, Duration::from_secs(1)).no_child_limit()
}

/// One child "echo" with a deadline, below "top".
pub(crate) async fn echo(child: ChildSpec) -> (System, Port<u64, u64>) {
    let child = child.deadline(Duration::from_secs(60));
    let system =
        System::start(SupervisorSpec::one_for_one("top").child(child)).await.expect("it starts");
    let port = system.port::<u64, u64>("top/echo").expect("it is there");
    (system, port)
}
