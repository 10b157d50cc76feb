//! What the attacks share: chance from a seed, behaviors that do as they are told and keep a log of it,
//! and an auditor who counts at every event.
#![allow(dead_code, reason = "each attack uses a part of it")]

use std::collections::HashMap;
use std::future::pending;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainstay::behavior::{Behavior, Context, Stateful, Stateless, Step, Turn};
use mainstay::event::{Event, Stamped};
use mainstay::fault::{Class, EffectKind, Fault};
use mainstay::system::System;

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Time passes, or the task is dropped.
pub(crate) async fn pass(millis: u64) {
    let _ = tokio::time::timeout(ms(millis), pending::<()>()).await;
}

/// Chance that can be repeated; prints its seed.
#[derive(Debug)]
pub(crate) struct Chance(AtomicU64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        println!("seed {seed}");
        Arc::new(Self(AtomicU64::new(seed)))
    }

    pub(crate) fn next(&self) -> u64 {
        const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// True in `n` of a thousand cases.
    pub(crate) fn mille(&self, n: u64) -> bool {
        self.below(1000) < n
    }
}

/// What an attempt does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    Reply,
    ReplyAfter(u64),
    Fail(Class),
    Panic,
    Hang,
}

pub(crate) type Script = Arc<dyn Fn(u64, &Context) -> Act + Send + Sync>;

pub(crate) fn script(act: impl Fn(u64, &Context) -> Act + Send + Sync + 'static) -> Script {
    Arc::new(act)
}

/// What was done, by request.
#[derive(Debug, Default)]
pub(crate) struct Log {
    runs: Mutex<HashMap<u64, Runs>>,
    pub(crate) lives: AtomicU64,
    pub(crate) begins: AtomicU64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Runs {
    /// Attempt and delivery of each run.
    pub(crate) begun: Vec<(u32, u32)>,
    pub(crate) completed: u32,
    /// Runs that began although the work was complete.
    pub(crate) again: u32,
}

impl Log {
    pub(crate) fn of(&self, id: u64) -> Runs {
        self.runs.lock().unwrap().get(&id).cloned().unwrap_or_default()
    }

    pub(crate) fn all(&self) -> Vec<Runs> {
        self.runs.lock().unwrap().values().cloned().collect()
    }

    pub(crate) fn begun(&self) -> usize {
        self.all().iter().map(|runs| runs.begun.len()).sum()
    }

    pub(crate) fn again(&self) -> u32 {
        self.all().iter().map(|runs| runs.again).sum()
    }

    fn begin(&self, id: u64, ctx: &Context) {
        self.begins.fetch_add(1, Ordering::Relaxed);
        let mut runs = self.runs.lock().unwrap();
        let runs = runs.entry(id).or_default();
        runs.again += u32::from(runs.completed > 0);
        runs.begun.push((ctx.attempt(), ctx.delivery().0));
    }

    fn complete(&self, id: u64) {
        self.runs.lock().unwrap().entry(id).or_default().completed += 1;
    }
}

async fn act(act: Act, id: u64) -> Result<(), Fault> {
    match act {
        Act::Reply => Ok(()),
        Act::ReplyAfter(millis) => {
            pass(millis).await;
            Ok(())
        }
        Act::Fail(class) => Err(Fault::new(class, "as told")),
        Act::Panic => panic!("request {id} was told to"),
        Act::Hang => pending().await,
    }
}

/// Many at a time; answers with the request's number.
#[derive(Clone)]
pub(crate) struct Hand {
    pub(crate) script: Script,
    pub(crate) log: Arc<Log>,
}

impl Behavior for Hand {
    type Request = u64;
    type Reply = u64;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
}

impl Stateless for Hand {
    async fn start(&mut self, _: &mainstay::behavior::StartContext) -> Result<(), Fault> {
        self.log.lives.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn serve(&self, id: &u64, ctx: &Context) -> Result<u64, Fault> {
        self.log.begin(*id, ctx);
        act((self.script)(*id, ctx), *id).await?;
        self.log.complete(*id);
        Ok(*id)
    }
}

/// One at a time, in two steps; answers with the request's number.
#[derive(Clone)]
pub(crate) struct Clerk {
    pub(crate) script: Script,
    pub(crate) log: Arc<Log>,
}

impl Behavior for Clerk {
    type Request = u64;
    type Reply = u64;
}

impl Stateful for Clerk {
    async fn start(&mut self, _: &mainstay::behavior::StartContext) -> Result<(), Fault> {
        self.log.lives.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn step(&mut self, id: &u64, turn: Turn, ctx: &Context) -> Result<Step<u64>, Fault> {
        if matches!(turn, Turn::First) {
            self.log.begin(*id, ctx);
            return Ok(Step::Continue);
        }
        act((self.script)(*id, ctx), *id).await?;
        self.log.complete(*id);
        Ok(Step::Reply(*id))
    }
}

/// Counts at every event: accepted must be the fates and what is open, always. Hands each event on.
pub(crate) struct Audit {
    pub(crate) events: u64,
    pub(crate) unbalanced: u64,
}

pub(crate) fn audit(
    system: &System,
    mut each: impl FnMut(&Stamped) + Send + 'static,
) -> tokio::task::JoinHandle<Audit> {
    let system = system.clone();
    let mut events = system.events();
    let root = system.tree().root().path().clone();
    tokio::spawn(async move {
        let mut audit = Audit { events: 0, unbalanced: 0 };
        while let Some(stamped) = events.next().await {
            audit.events += 1;
            let fates = system.fates();
            audit.unbalanced += u64::from(!fates.is_balanced());
            each(&stamped);
            if let Event::SupervisorEnded { supervisor, .. } = &stamped.event
                && *supervisor == root
            {
                break;
            }
        }
        audit
    })
}
