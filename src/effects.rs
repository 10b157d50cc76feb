//! Carrying out effects: the ledger is asked, the journal written, then the tool.
//!
//! *Invariant.* No tool is asked before the intent is where the journal's durability says it must be,
//! and no step hears of an outcome before that outcome is. What may not be repeated is waited for to its end,
//! whoever has left; an attempt that is dropped half-way leaves any other effect as lost, never as failed.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::behavior::{PastAct, Undone};
use crate::event::Event;
use crate::fate::{Cost, Fate, Given};
use crate::fault::{Class, EffectKind, Fault};
use crate::id::ChildPath;
use crate::ledger::{
    EffectKey, EffectStatus, Entry, Input, Intent, Ledger, Output, Record, Resolution, Undo,
    Verdict,
};
use crate::port::{Act, Call, NotUndone, Outcome, Tie};

mod dispatch;
mod ended;
mod going_on;
pub(crate) mod held;
mod joined;
mod lanes;
mod paid;
mod parts;
mod recall;
mod rest;
mod settling;
mod taken_over;
mod undo;
mod until;

use dispatch::{Lost, NoAnswer, intent, unknown};
pub(crate) use going_on::Ends;
pub(crate) use joined::AskKey;
pub(crate) use lanes::Unwind;
use parts::told_of;
use recall::{recorded, unreadable};
pub(crate) use rest::Written;
pub use settling::{EffectView, EffectsRef};
pub(crate) use taken_over::is_overtaken;
pub(crate) use until::Until;

/// The code of a fault whose effect waits for a verification or a person.
pub(crate) const EFFECT_UNKNOWN: &str = "effect_unknown";

/// The code of a fault whose effect was not asked for, since nobody could undo it.
const EFFECT_UNDO: &str = "effect_undo";

/// The effects of a system.
pub(crate) struct Effects {
    pub(crate) ledger: Mutex<Ledger>,
    journal: OnceLock<Arc<dyn Keep>>,
    undoer: OnceLock<Weak<dyn Undoer>>,
    /// What is being undone right now.
    undoing: Mutex<HashSet<EffectKey>>,
    /// The tasks that are being undone after their fates.
    unwinding: Mutex<Vec<Arc<str>>>,
    /// How many tasks are about to undo something.
    about_to_undo: AtomicUsize,
    halted: Mutex<going_on::Halted>,
    /// Something has become of some effect.
    changed: Notify,
    emit: Box<dyn Fn(Event) + Send + Sync>,
    /// Whether there has been an effect at all.
    used: AtomicBool,
    /// Requests that acted and have their fates.
    ended: Mutex<ended::Ended>,
    paid: Mutex<paid::Paid>,
    runtime: OnceLock<Handle>,
    /// How many acts are with their tools, in tasks of their own.
    apart: AtomicUsize,
    /// Nobody works on anything any more.
    closed: AtomicBool,
}

/// What is known of a request that a durable tool has accepted.
pub(crate) enum Asked {
    Open,
    /// It was done; the reply as JSON, if that is remembered.
    Done(Option<String>),
    /// It ended so, without being done.
    Over(Fate),
    /// It has ended two lives, and is a person's.
    Aside,
}

/// Keeps records of the ledger.
pub(crate) trait Keep: Send + Sync {
    /// Resolves once the record is durable.
    fn keep(&self, record: Record) -> Keeping;
    /// As [`Keep::keep`], with nobody to wait for it.
    fn note(&self, record: Record);
    /// What is known of the request that a durable tool has accepted under this key.
    fn known(&self, key: &str) -> Option<Asked>;
    /// How its answer was given, and what it has cost, also without an answer. Nothing of what is not known.
    fn given(&self, key: &str) -> Given;
    /// Whether the store has answered to all that was said of it.
    fn is_certain(&self, key: &str) -> bool;
    /// Such a request ended without being done: it may be asked for again.
    fn free(self: Arc<Self>, key: &Arc<str>) -> Keeping;
    /// The requests that were asked for by this request, and by those, under keys that follow from its own;
    /// and whether each was answered.
    fn asked_by(&self, task: &str) -> Vec<(Arc<str>, bool)>;
    /// Nothing is said of these requests any more: they are asked for anew.
    fn let_go(&self, keys: &[Arc<str>]) -> Keeping;
    /// Completes when something has become of some request.
    fn told(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// Asks whoever stands at a path to undo something.
pub(crate) trait Undoer: Send + Sync {
    fn undo(&self, undo: Undo, key: String) -> Asking;
    /// Whether what stands at this path can be asked to.
    fn can_undo(&self, tool: &ChildPath) -> bool;
    /// Whether the system is about to end.
    fn is_stopping(&self) -> bool;
}

pub(crate) type Asking = std::pin::Pin<Box<dyn Future<Output = Result<(), NotUndone>> + Send>>;

pub(crate) type Keeping = std::pin::Pin<Box<dyn Future<Output = Result<(), Fault>> + Send>>;

impl fmt::Debug for Effects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Effects").finish_non_exhaustive()
    }
}

/// Who acts, and where in its task.
#[derive(Clone)]
pub(crate) struct Site {
    /// The idempotency key of the request.
    pub(crate) task: Arc<str>,
    pub(crate) owner: ChildPath,
    pub(crate) step: u64,
    pub(crate) ordinal: u32,
    /// What it had spent by the state that it goes on with in this process, if that survives the process.
    pub(crate) before: Option<Cost>,
}

impl Effects {
    pub(crate) fn new(emit: impl Fn(Event) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            ledger: Mutex::default(),
            journal: OnceLock::new(),
            undoer: OnceLock::new(),
            undoing: Mutex::default(),
            unwinding: Mutex::default(),
            about_to_undo: AtomicUsize::new(0),
            halted: Mutex::default(),
            changed: Notify::new(),
            emit: Box::new(emit),
            used: AtomicBool::new(false),
            ended: Mutex::default(),
            paid: Mutex::default(),
            runtime: OnceLock::new(),
            apart: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        })
    }

    /// Whom records are given to. Without one, the ledger lasts as long as the process.
    pub(crate) fn attach(&self, journal: Arc<dyn Keep>) {
        let _ = self.journal.set(journal);
    }

    /// Who finds the tools that undo.
    pub(crate) fn undo_with(&self, undoer: Weak<dyn Undoer>) {
        let _ = self.undoer.set(undoer);
    }

    /// Whether there has been an effect at all.
    pub(crate) fn is_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// What of a task's effects stands, and what is not known.
    pub(crate) fn standing(&self, task: &str) -> Undone {
        self.standing_from(task, 0)
    }

    /// As [`Effects::standing`], for what was done at this step of the task and later.
    pub(crate) fn standing_from(&self, task: &str, step: u64) -> Undone {
        let ledger = self.ledger.lock();
        let acts = ledger.of_task(task).into_iter();
        let told = told_of(&ledger, acts.filter(|entry| entry.intent.step >= step));
        drop(ledger);
        self.described(told)
    }

    /// Whether anything that a task has done to the world stands, or may.
    pub(crate) fn may_stand(&self, task: &str) -> bool {
        let ledger = self.ledger.lock();
        ledger.of_task(task).iter().any(|entry| {
            let gone = matches!(entry.status, EffectStatus::Rejected | EffectStatus::Compensated);
            entry.intent.kind.acts() && !gone
        })
    }

    /// Adds what the effects were.
    fn described(&self, mut told: Undone) -> Undone {
        let ledger = self.ledger.lock();
        let text = |bytes: &Arc<[u8]>| Arc::from(String::from_utf8_lossy(bytes).as_ref());
        let keys = told.kept.iter().chain(&told.undone).chain(&told.unknown);
        let acts = keys.filter_map(|key| ledger.get(*key)).map(|entry| PastAct {
            key: entry.intent.key,
            tool: entry.intent.tool.clone(),
            request: text(&entry.intent.request),
            result: match &entry.status {
                EffectStatus::Confirmed(happened) | EffectStatus::Left(happened) => {
                    Some(text(&happened.result))
                }
                _ => None,
            },
        });
        told.acts = acts.collect();
        told
    }

    fn is_stopping(&self) -> bool {
        self.undoer.get().and_then(Weak::upgrade).is_none_or(|undoer| undoer.is_stopping())
    }

    /// Whether something of this task is to be undone, and its tool was not asked, or is at work on it still.
    pub(crate) fn owes(&self, task: &str) -> bool {
        let undoes = |entry: &&Entry| entry.status == EffectStatus::Compensating;
        self.ledger.lock().of_task(task).iter().any(undoes) || self.is_task_with_tools(task)
    }

    /// Feeds the ledger; what must be kept is kept before this returns.
    pub(crate) async fn feed(&self, input: Input) -> Result<Output, Fault> {
        let output = self.ledger.lock().on(input);
        self.fed(&output).await?;
        Ok(output)
    }

    /// The ledger was fed: what must be kept is kept before this returns.
    async fn fed(&self, output: &Output) -> Result<(), Fault> {
        self.changed.notify_waiters();
        if let Some(record) = &output.record {
            self.keep(record.clone()).await?;
            self.tell(record);
            self.settled(record);
        }
        Ok(())
    }

    /// Feeds the ledger; what must be kept is handed to the journal, and not waited for.
    pub(crate) fn note(&self, input: Input) {
        let output = self.ledger.lock().on(input);
        self.noted(output);
    }

    /// The ledger was fed; what must be kept is handed to the journal, and not waited for.
    fn noted(&self, output: Output) {
        self.changed.notify_waiters();
        if let Some(record) = output.record {
            self.tell(&record);
            self.settled(&record);
            if let Some(journal) = self.journal.get() {
                journal.note(record);
            }
        }
    }

    async fn keep(&self, record: Record) -> Result<(), Fault> {
        match self.journal.get() {
            Some(journal) => journal.keep(record).await,
            None => Ok(()),
        }
    }

    fn tell(&self, record: &Record) {
        let (key, status) = match record {
            Record::Intent(intent, _) => (intent.key, "intended"),
            Record::Status(key, status) | Record::Said(key, status, _) => (*key, status.name()),
            Record::Asked(..) | Record::Retired(_) | Record::Owes(..) => return,
        };
        self.tell_status(key, status);
    }

    fn tell_status(&self, key: EffectKey, status: &'static str) {
        let who = self
            .ledger
            .lock()
            .get(key)
            .map(|entry| (entry.intent.owner.clone(), entry.intent.tool.clone()));
        if let Some((child, tool)) = who {
            (self.emit)(Event::Effect { child, tool, key, status });
        }
    }

    /// Has an effect take place, or finds out what came of it before.
    pub(crate) async fn act(self: Arc<Self>, site: Site, mut call: Call, tie: Arc<Tie>) -> Outcome {
        let Some(act) = call.act.take() else {
            return call.make(tie, None).await.map_err(Fault::from);
        };
        self.used.store(true, Ordering::Relaxed);
        let act = *act;
        let intent = intent(&site, &call, &act)?;
        let key = intent.key;
        self.opens(&site, &tie);
        self.begun(&site.task);
        // Of a request with the same key that has its fate: what it did is undone before it is done again.
        self.taken_up(&site.task).await;
        let tool = call.target().clone();
        let output = loop {
            // Whoever asked before may have left its tool at work.
            self.at_rest(key).await;
            let output = self.begin(&site, &tool, &act, &tie, &intent).await?;
            if output.verdict != Some(Verdict::Busy) {
                break output;
            }
        };
        self.carry_out(site, call, act, tie, key, output).await
    }

    /// What is to be done about an effect that is asked for, once it was found out where it can be.
    async fn begin(
        self: &Arc<Self>,
        site: &Site,
        tool: &ChildPath,
        act: &Act,
        tie: &Arc<Tie>,
        intent: &Intent,
    ) -> Result<Output, Fault> {
        let key = intent.key;
        let status = self.ledger.lock().get(key).map(|entry| entry.status.clone());
        if status == Some(EffectStatus::Compensating) {
            // A rollback that an earlier process did not end: it is ended first.
            self.undo(key, None).await;
        }
        // What was done before is not refused any more.
        let asked_anew = |status| match status {
            EffectStatus::Rejected => true,
            EffectStatus::Failed(_) => intent.kind.is_replay_safe(),
            _ => false,
        };
        if status.is_none_or(asked_anew) {
            self.check_undo(intent)?;
        }
        let mut output = self.ledger.lock().on(Input::Begin(intent.clone()));
        if output.verdict == Some(Verdict::Verify) {
            let asked = act.verify.as_ref().map(|verify| verify(Arc::clone(tie)));
            let resolution = match asked {
                Some(asked) => asked.await,
                None => Resolution::CannotTell,
            };
            let told = resolution != Resolution::CannotTell;
            self.feed(Input::Resolved(key, resolution)).await?;
            if !told {
                return Err(unknown(site, tool));
            }
            output = self.ledger.lock().on(Input::Begin(intent.clone()));
        }
        Ok(output)
    }

    /// An act that is to be undone by somebody who could not be asked to is not done: whoever relies on
    /// the undo would learn it when it is needed.
    fn check_undo(&self, intent: &Intent) -> Result<(), Fault> {
        let undo = intent.undo.as_ref().filter(|_| intent.kind.acts());
        let undoer = self.undoer.get().and_then(Weak::upgrade);
        match (undo, undoer) {
            (Some(undo), Some(undoer)) if !undoer.can_undo(&undo.tool) => {
                let text = format!(
                    "what \"{}\" does could not be undone: \"{}\" is gone, or takes no recorded requests",
                    intent.tool, undo.tool
                );
                Err(Fault::internal(text).with_code(EFFECT_UNDO).not_applied())
            }
            _ => Ok(()),
        }
    }

    /// The answer of a tool was lost: asks whether it happened, if that can be asked. `unknown` is what
    /// the step is given when it cannot be told.
    async fn find_out(
        &self,
        key: EffectKey,
        tool: &ChildPath,
        act: Act,
        tie: Arc<Tie>,
        unknown: Fault,
    ) -> Outcome {
        let verify = act.verify.as_ref().filter(|_| act.kind == EffectKind::Verifiable);
        let Some(asked) = verify.map(|verify| verify(tie)) else { return Err(unknown) };
        let resolution = asked.await;
        self.feed(Input::Resolved(key, resolution)).await?;
        // A person may have spoken meanwhile, and their word counts.
        let status = self.ledger.lock().get(key).map(|entry| entry.status.clone());
        match status {
            Some(EffectStatus::Confirmed(happened) | EffectStatus::Left(happened)) => {
                let bytes = &happened.result;
                let value = (act.decode)(bytes).map_err(|error| unreadable(key, &error))?;
                Ok(recorded(value, tool, happened))
            }
            Some(EffectStatus::Rejected) => {
                let why = format!("\"{tool}\" gave no answer, and nothing has happened");
                Err(Fault::exhausted(why).not_applied().with_source(unknown))
            }
            _ => Err(unknown),
        }
    }

    async fn carry_out(
        self: Arc<Self>,
        site: Site,
        call: Call,
        act: Act,
        tie: Arc<Tie>,
        key: EffectKey,
        output: Output,
    ) -> Outcome {
        let record = output.record;
        match output.verdict.unwrap_or(Verdict::Unknown) {
            Verdict::Replay(happened) => {
                let value =
                    (act.decode)(&happened.result).map_err(|error| unreadable(key, &error))?;
                if let Some(record) = record {
                    self.keep(record).await?;
                }
                self.tell_status(key, "replayed");
                let cost = happened.cost;
                let mut answer = recorded(value, call.target(), happened);
                answer.cost = self.due(&site, key, cost, &tie);
                // Whoever uses a stand-in's work is degraded by it, however it came by it.
                tie.note(&answer);
                Ok(answer)
            }
            Verdict::Failed(fault) => {
                self.tell_status(key, "replayed");
                Err(fault)
            }
            Verdict::Unknown | Verdict::Verify => {
                if let Some(record) = record {
                    self.tell(&record);
                    self.keep(record).await?;
                }
                Err(unknown(&site, call.target()))
            }
            Verdict::Busy => Err(Fault::new(
                Class::Indeterminate,
                format!("an earlier attempt still waits for \"{}\"", call.target()),
            )
            .with_code(EFFECT_UNKNOWN)
            .effect_unknown()),
            Verdict::Dispatch | Verdict::Again => {
                let mut guard = Lost::new(Arc::clone(&self), key);
                if let Some(record) = record {
                    self.tell(&record);
                    self.keep(record).await?;
                }
                let idempotency = self.ledger.lock().get(key).map(Entry::idempotency_key);
                let idempotency: Option<Arc<str>> = idempotency.map(Arc::from);
                guard.dispatched();
                let tool = call.target().clone();
                let known = self.journal.get().zip(idempotency.as_ref());
                let known = known.and_then(|(journal, key)| journal.known(key));
                if !matches!(known, Some(Asked::Open | Asked::Done(_))) {
                    self.makes(&site, key);
                }
                match self.dispatch(guard, call, &act, Arc::clone(&tie), idempotency).await {
                    // What was asked for before.
                    Ok(mut answer) if answer.attempts == 0 => {
                        answer.cost = self.due(&site, key, answer.cost, &tie);
                        tie.note(&answer);
                        Ok(answer)
                    }
                    Ok(answer) => {
                        self.heard(&site, key);
                        Ok(answer)
                    }
                    Err(NoAnswer { fault, unknown: false }) => {
                        self.heard(&site, key);
                        Err(fault)
                    }
                    Err(NoAnswer { fault, .. }) => {
                        let unknown = unknown(&site, &tool).with_source(fault);
                        self.find_out(key, &tool, act, tie, unknown).await
                    }
                }
            }
        }
    }
}
