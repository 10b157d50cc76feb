//! Children that say when they start and stop, and do on cue what children must not do.

#![allow(dead_code, reason = "each test crate uses its own part")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mainstay::behavior::{Behavior, Context, StartContext, Stateful, Step, Turn};
use mainstay::error::CallError;
use mainstay::family::ChildStatus;
use mainstay::fault::{ExitCause, Fault};
use mainstay::spec::{ChildSpec, SupervisorSpec};
use mainstay::system::{ChildRef, SupervisorRef, System};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

/// What a worker is asked to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Do {
    /// Say which life it is.
    Ping,
    /// Answer, and end with `Normal`.
    Finish,
    /// Never answer, at an await.
    Hang,
    /// Panic.
    Panic,
}

/// What a worker does when it starts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Starts {
    #[default]
    Well,
    /// With a fault.
    Not,
    /// It never comes to an end.
    Never,
    /// With a panic.
    Panics,
    /// The constructor panics.
    ConstructorPanics,
}

/// What a worker does when it stops.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Stops {
    #[default]
    Well,
    /// After so much time.
    After(Duration),
    /// It never comes to an end.
    Never,
}

#[derive(Default)]
struct Knobs {
    starts: Mutex<Starts>,
    stops: Mutex<Stops>,
}

/// Makes workers and hears from them.
#[derive(Clone)]
pub(crate) struct Kit {
    log: Arc<watch::Sender<Vec<String>>>,
    knobs: Arc<Mutex<HashMap<String, Arc<Knobs>>>>,
}

#[derive(Clone)]
pub(crate) struct Worker {
    kit: Kit,
    id: String,
    life: u32,
    knobs: Arc<Knobs>,
}

impl Behavior for Worker {
    type Request = Do;
    type Reply = u32;
}

impl Stateful for Worker {
    async fn start(&mut self, ctx: &StartContext) -> Result<(), Fault> {
        self.life = ctx.incarnation.0;
        let starts = *self.knobs.starts.lock();
        match starts {
            Starts::Well | Starts::ConstructorPanics => {}
            Starts::Not => {
                self.kit.say(format!("fail {}{}", self.id, self.life));
                return Err(Fault::internal("not today"));
            }
            Starts::Never => {
                self.kit.say(format!("try {}{}", self.id, self.life));
                std::future::pending::<()>().await;
            }
            Starts::Panics => panic!("no start"),
        }
        self.kit.say(format!("start {}{}", self.id, self.life));
        Ok(())
    }

    async fn step(&mut self, todo: &Do, _: Turn, ctx: &Context) -> Result<Step<u32>, Fault> {
        match todo {
            Do::Ping => {}
            Do::Finish => ctx.end_life(),
            Do::Hang => {
                self.kit.say(format!("hang {}{}", self.id, self.life));
                std::future::pending::<()>().await;
            }
            Do::Panic => panic!("on cue"),
        }
        Ok(Step::Reply(self.life))
    }

    async fn stop(&mut self, _: &ExitCause) {
        self.kit.say(format!("stop {}{}", self.id, self.life));
        let stops = *self.knobs.stops.lock();
        match stops {
            Stops::Well => {}
            Stops::After(time) => {
                let _ = tokio::time::timeout(time, std::future::pending::<()>()).await;
                self.kit.say(format!("stopped {}{}", self.id, self.life));
            }
            Stops::Never => std::future::pending::<()>().await,
        }
    }
}

impl Kit {
    pub(crate) fn new() -> Self {
        Self { log: Arc::new(watch::Sender::default()), knobs: Arc::default() }
    }

    fn say(&self, what: String) {
        self.log.send_modify(|log| log.push(what));
    }

    fn knobs(&self, id: &str) -> Arc<Knobs> {
        Arc::clone(self.knobs.lock().entry(id.to_owned()).or_default())
    }

    /// A permanent worker.
    pub(crate) fn child(&self, id: &str) -> ChildSpec {
        let (kit, name, knobs) = (self.clone(), id.to_owned(), self.knobs(id));
        ChildSpec::stateful(id, move || {
            assert!(*knobs.starts.lock() != Starts::ConstructorPanics, "not made");
            let knobs = Arc::clone(&knobs);
            Worker { kit: kit.clone(), id: name.clone(), life: 0, knobs }
        })
        .start_timeout(Duration::from_secs(36_000))
        .attempt_timeout(Duration::from_secs(36_000))
        .deadline(Duration::from_secs(360_000))
    }

    pub(crate) fn starts(&self, id: &str, starts: Starts) {
        *self.knobs(id).starts.lock() = starts;
    }

    pub(crate) fn stops(&self, id: &str, stops: Stops) {
        *self.knobs(id).stops.lock() = stops;
    }

    /// What was said since the last time, written together.
    pub(crate) fn said(&self) -> String {
        let mut said = Vec::new();
        self.log.send_modify(|log| said = std::mem::take(log));
        said.join(", ")
    }

    /// Waits until this is said. Says at once what else was said instead of waiting for ever.
    pub(crate) async fn hears(&self, what: &str) {
        let mut log = self.log.subscribe();
        let heard = log.wait_for(|log| log.iter().any(|said| said == what));
        let heard = tokio::time::timeout(FOREVER, heard).await.is_ok();
        assert!(heard, "never heard {what:?}, only {:?}", self.said());
    }
}

/// Longer than anything takes in a test. The clock is paused: it costs nothing.
pub(crate) const FOREVER: Duration = Duration::from_secs(100_000);

/// `ab`: workers `a` and `b`.
pub(crate) fn with(mut spec: SupervisorSpec, kit: &Kit, ids: &str) -> SupervisorSpec {
    for id in ids.chars() {
        spec = spec.child(kit.child(&id.to_string()));
    }
    spec
}

pub(crate) fn worker(system: &System, path: &str) -> ChildRef<Worker> {
    system.child::<Worker>(path).unwrap()
}

/// Which life answers.
pub(crate) async fn ping(system: &System, path: &str) -> Result<u32, CallError<Do>> {
    worker(system, path).call(Do::Ping).await.map(|answer| answer.value)
}

/// Each child with what it does: `a running, b stopped`.
pub(crate) async fn children(supervisor: &SupervisorRef) -> String {
    let infos = supervisor.which_children().await.unwrap();
    let all: Vec<_> = infos.iter().map(|info| format!("{} {}", info.id, info.status)).collect();
    all.join(", ")
}

pub(crate) async fn status(supervisor: &SupervisorRef, id: &str) -> Option<ChildStatus> {
    let infos = supervisor.which_children().await.unwrap();
    infos.iter().find(|info| &*info.id == id).map(|info| info.status)
}

/// Gives everything that can happen without time passing its turn. A supervisor's answer says that it
/// has worked on all it was told before.
pub(crate) async fn settle(supervisor: &SupervisorRef) {
    for _ in 0..50 {
        tokio::task::yield_now().await;
        let _ = supervisor.count_children().await;
    }
}

/// Lets this much time pass.
pub(crate) async fn pass(time: Duration) {
    tokio::time::advance(time).await;
}

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(crate) fn now() -> Instant {
    Instant::now()
}
