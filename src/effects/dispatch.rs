//! An act with its tool: asked, waited for to the end, and what came of it written down.
//!
//! *Invariant.* An act that may not be repeated belongs to a task of its own from the moment its intent is
//! durable until its outcome is: while its tool works on it, it is in flight, whoever has left, so that nobody
//! asks again, verifies or undoes it meanwhile. The task ends when the tool's request has its fate, which the
//! end of the system brings about at the latest; one that panics leaves its act lost.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use super::{Asked, EFFECT_UNKNOWN, Effects, Site, recorded, unreadable};
use crate::fate::{Answer, Given};
use crate::fault::{Class, EffectKind, Fault};
use crate::id::ChildPath;
use crate::ledger::{EffectKey, EffectStatus, Happened, Input, Intent, Record, Trace};
use crate::port::{Act, Call, Decode, Encode, Reply, Tie, Unanswered, dropped};

/// A call without an answer.
pub(super) struct NoAnswer {
    pub(super) fault: Fault,
    /// Nobody knows whether it happened.
    pub(super) unknown: bool,
}

impl NoAnswer {
    const fn told(fault: Fault) -> Self {
        Self { fault, unknown: false }
    }
}

/// What a durable tool was asked under the same key before.
enum Before {
    Nothing,
    /// It was done; the reply, if that is kept, and how it was given.
    Done(Option<String>, Given),
    /// The system has ended first.
    Suspended,
}

/// Whoever is dropped while it waits leaves its effect lost.
pub(super) struct Lost {
    effects: Arc<Effects>,
    key: EffectKey,
    armed: bool,
    dispatched: bool,
}

impl Lost {
    pub(super) const fn new(effects: Arc<Effects>, key: EffectKey) -> Self {
        Self { effects, key, armed: true, dispatched: false }
    }

    /// From now on the tool may have been asked.
    pub(super) const fn dispatched(&mut self) {
        self.dispatched = true;
    }

    /// What came of it is known.
    pub(super) const fn disarm(&mut self) {
        self.armed = false;
    }
}

impl Drop for Lost {
    fn drop(&mut self) {
        if self.armed {
            // Before the tool was asked, it is certain that nothing has happened.
            let input =
                if self.dispatched { Input::Lost(self.key) } else { Input::Rejected(self.key) };
            self.effects.note(input);
            self.effects.is_lost(self.key);
        }
    }
}

/// An act in a task of its own.
struct Apart(Arc<Effects>);

impl Apart {
    fn new(effects: &Arc<Effects>) -> Self {
        effects.apart.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(effects))
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        self.0.apart.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.notify_waiters();
    }
}

/// What is asked for, as it is written down before.
pub(super) fn intent(site: &Site, call: &Call, act: &Act) -> Result<Intent, Fault> {
    let unreadable = |error: &String| {
        Fault::internal(format!("a request for \"{}\" cannot be recorded: {error}", call.target()))
            .with_code("effect_request")
    };
    let request = act.request.as_ref().map_err(unreadable)?;
    let undo = act.undo.as_ref().map(|undo| undo.as_ref().map_err(unreadable).cloned());
    Ok(Intent {
        key: EffectKey::of(&site.task, site.step, site.ordinal, call.target(), request),
        task: Arc::clone(&site.task),
        owner: site.owner.clone(),
        step: site.step,
        ordinal: site.ordinal,
        tool: call.target().clone(),
        kind: act.kind,
        request: Arc::clone(request),
        undo: undo.transpose()?,
    })
}

/// What a step is told of an act of which nobody knows what came.
pub(super) fn unknown(site: &Site, tool: &ChildPath) -> Fault {
    Fault::new(
        Class::Indeterminate,
        format!(
            "nobody knows whether what step {} asked of \"{tool}\" happened; it waits to be resolved",
            site.step
        ),
    )
    .with_code(EFFECT_UNKNOWN)
    .effect_unknown()
}

/// What came of an act, as the request of its durable tool has ended.
pub(super) fn happened(reply: String, given: Given) -> Happened {
    let Given { served_by, degraded, defaulted, cost, .. } = given;
    Happened { served_by, degraded, defaulted, cost, ..Happened::new(reply.into_bytes()) }
}

impl Effects {
    /// Where acts go on whose askers have left.
    pub(crate) fn runs_on(&self, runtime: Handle) {
        let _ = self.runtime.set(runtime);
    }

    /// Asks the tool, and writes down what came of it. Of what may not be repeated the latter is done also
    /// when this is dropped.
    pub(super) async fn dispatch(
        self: &Arc<Self>,
        guard: Lost,
        call: Call,
        act: &Act,
        tie: Arc<Tie>,
        key: Option<Arc<str>>,
    ) -> Result<Answer<Reply>, NoAnswer> {
        let Act { kind, encode, decode, .. } = *act;
        let tool = call.target().clone();
        if kind.is_replay_safe() {
            return match self.join(&key).await.map_err(NoAnswer::told)? {
                Before::Nothing => {
                    let made = call.make(tie, key).await;
                    guard.came(made, &tool, kind, encode).await
                }
                before => guard.joined(before, &tool, decode).await,
            };
        }
        let effects = Arc::clone(self);
        let (stays, mut left) = watch::channel(());
        let (tell, told) = oneshot::channel();
        let apart = Apart::new(self);
        // In a box, as in `Hub::spawn`.
        let going_on: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
            let _apart = apart;
            let mut guard = guard;
            let came = match effects.join(&key).await {
                Ok(Before::Nothing) if tell.is_closed() => {
                    guard.dispatched = false;
                    return;
                }
                Ok(Before::Nothing) => {
                    let over = tie.over();
                    let mut leaves = left.clone();
                    let left_or_over = Box::pin(async move {
                        tokio::select! {
                            _ = leaves.changed() => {}
                            () = over => {}
                        }
                    });
                    let made = call.finish(tie, key, left_or_over);
                    let let_go = async {
                        let _ = left.changed().await;
                        // It may be held later than that.
                        effects.until(|| effects.lets_go(guard.key)).await;
                    };
                    let made = tokio::select! {
                        biased;
                        made = made => made,
                        // Whoever was asked waits for somebody else, and does nothing any more.
                        () = let_go => {
                            // Whoever asks for it again may have begun.
                            guard.disarm();
                            return;
                        }
                    };
                    guard.came(made, &tool, kind, encode).await
                }
                Ok(before) => guard.joined(before, &tool, decode).await,
                Err(fault) => {
                    drop(guard);
                    Err(NoAnswer::told(fault))
                }
            };
            if let Err(came) = tell.send(came) {
                // The user's reply, which nobody hears.
                let _ = dropped(came);
            }
        });
        match self.runtime.get() {
            Some(runtime) => drop(runtime.spawn(going_on)),
            None => drop(tokio::spawn(going_on)),
        }
        let told = told.await;
        drop(stays);
        told.unwrap_or_else(|_| {
            let fault = Fault::internal("what came of it could not be written down");
            Err(NoAnswer { fault, unknown: true })
        })
    }

    /// What came of the request that a durable tool has accepted under this key for an attempt before this
    /// one, or for another process. One that is under way is waited for; one that ended without being done is
    /// forgotten.
    async fn join(&self, key: &Option<Arc<str>>) -> Result<Before, Fault> {
        let Some((journal, key)) = self.journal.get().zip(key.as_ref()) else {
            return Ok(Before::Nothing);
        };
        loop {
            let (told, mut closed) = (journal.told(), pin!(self.changed.notified()));
            closed.as_mut().enable();
            match journal.known(key) {
                None => return Ok(Before::Nothing),
                Some(Asked::Done(reply)) => return Ok(Before::Done(reply, journal.given(key))),
                Some(Asked::Over(_)) => Arc::clone(journal).free(key).await?,
                Some(Asked::Open) if self.closed.load(Ordering::Acquire) => {
                    return Ok(Before::Suspended);
                }
                Some(Asked::Open) => {
                    tokio::select! {
                        () = told => {}
                        () = closed => {}
                    }
                }
                Some(Asked::Aside) => {
                    let text = "what was asked for has ended two lives, and was set aside";
                    return Err(Fault::new(Class::Exhausted, text));
                }
            }
        }
    }

    /// Nobody works on anything any more: what is open is for the next process.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Once no act is with its tool.
    pub(crate) async fn all_at_rest(&self) {
        self.until(|| self.apart.load(Ordering::Acquire) == 0).await;
    }

    /// Once nothing is being undone for a request that has its fate.
    pub(crate) async fn all_unwound(&self) {
        let is_idle = || self.about_to_undo.load(Ordering::Acquire) == 0;
        self.until(|| self.unwinding.lock().is_empty() && is_idle()).await;
    }

    /// Once nothing is being undone that this child has done.
    pub(crate) async fn unwound_of(&self, owner: &ChildPath) {
        self.until(|| {
            let tasks = self.unwinding.lock().clone();
            let ledger = self.ledger.lock();
            let is_its = |task: &Arc<str>| {
                ledger.of_task(task).iter().any(|entry| entry.intent.owner == *owner)
            };
            !tasks.iter().any(is_its)
        })
        .await;
    }

    /// Once this holds, of which every change is told.
    pub(super) async fn until(&self, holds: impl Fn() -> bool) {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if holds() {
                return;
            }
            changed.await;
        }
    }

    /// Whether something of this task may be happening, or may have happened, that may not be repeated.
    /// `is_undone`: what can be undone of it will be.
    pub(crate) fn is_in_doubt(&self, task: &str, is_undone: bool) -> bool {
        let ledger = self.ledger.lock();
        ledger.of_task(task).into_iter().any(|entry| {
            let open = matches!(entry.status, EffectStatus::Intended | EffectStatus::Unknown);
            let undone = is_undone && entry.intent.undo.is_some();
            open && !undone && !entry.intent.kind.is_replay_safe()
        })
    }
}

impl Lost {
    /// Has the ledger know what came of a request that was made before.
    async fn joined(
        mut self,
        before: Before,
        tool: &ChildPath,
        decode: Decode,
    ) -> Result<Answer<Reply>, NoAnswer> {
        self.disarm();
        let (effects, key) = (&self.effects, self.key);
        let gone = |text: String| Fault::new(Class::Indeterminate, text);
        let (reply, given) = match before {
            Before::Done(Some(reply), given) => (reply, given),
            Before::Done(None, _) => {
                effects.feed(Input::Lost(key)).await.map_err(NoAnswer::told)?;
                let text = format!("\"{tool}\" has answered, and the answer is not kept any more");
                return Err(NoAnswer { fault: gone(text), unknown: true });
            }
            Before::Nothing | Before::Suspended => {
                self.let_go();
                let text =
                    format!("\"{tool}\" has stopped, and goes on with it in the next process");
                return Err(NoAnswer::told(gone(text)));
            }
        };
        let value = decode(reply.as_bytes());
        let happened = happened(reply, given);
        let cost = happened.cost;
        let fed = effects.feed(Input::Confirmed(key, happened.clone())).await;
        fed.map_err(NoAnswer::told)?;
        let value = value.map_err(|error| NoAnswer::told(unreadable(key, &error)))?;
        Ok(Answer { cost, ..recorded(value, tool, happened) })
    }

    /// The next process finds it as it is.
    fn let_go(&self) {
        self.effects.ledger.lock().let_go(self.key);
        self.effects.changed.notify_waiters();
    }

    /// Has the ledger know what came of a call.
    async fn came(
        mut self,
        made: Result<Answer<Reply>, Unanswered>,
        tool: &ChildPath,
        kind: EffectKind,
        encode: Encode,
    ) -> Result<Answer<Reply>, NoAnswer> {
        let (effects, key) = (Arc::clone(&self.effects), self.key);
        match made {
            Ok(answer) => {
                let bytes = encode(&answer.value).map_err(|error| {
                    NoAnswer::told(Fault::internal(format!("a result cannot be recorded: {error}")))
                })?;
                let happened = Happened {
                    result: bytes,
                    served_by: (answer.served_by != *tool).then(|| answer.served_by.clone()),
                    degraded: answer.degraded,
                    defaulted: answer.defaulted,
                    stands: false,
                    cost: answer.cost,
                };
                self.disarm();
                let fed = effects.feed(Input::Confirmed(key, happened)).await;
                fed.map_err(NoAnswer::told)?;
                Ok(answer)
            }
            Err(Unanswered { fault, trace: Trace::Suspended, .. }) if !kind.is_replay_safe() => {
                self.disarm();
                self.let_go();
                Err(NoAnswer::told(fault))
            }
            Err(Unanswered { fault, trace, doubtful }) => {
                self.disarm();
                let input = trace.input(key, kind, doubtful, &fault);
                // Asked for again by its own step it does no harm; by another one, it would be another act.
                let is_lost = matches!(input, Input::Lost(_)) && kind == EffectKind::Idempotent;
                let fault = match fault.class {
                    Class::Cancelled | Class::BudgetDenied => fault,
                    _ if is_lost => fault.effect_unknown(),
                    _ => fault,
                };
                let output = effects.feed(input).await.map_err(NoAnswer::told)?;
                effects.is_lost(key);
                let unknown =
                    matches!(output.record, Some(Record::Status(_, EffectStatus::Unknown)));
                Err(NoAnswer { fault, unknown })
            }
        }
    }
}
