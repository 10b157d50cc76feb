//! When nobody is at work on an act any more, and what the request of a durable tool says of it.
//!
//! *Invariant.* Nothing is verified, undone or asked again while somebody works on it: a task of this process,
//! or a durable tool on its own request, which outlives its asker and its process. What came of that request is
//! what came of the act, whoever asked.

use std::pin::pin;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::dispatch::happened;
use super::going_on::Ends;
use super::joined::is_untouched;
use super::{Asked, Effects, Keep};
use crate::fate::{Fate, Given};
use crate::fault::{Class, EffectKind, Fault};
use crate::ledger::{EffectKey, EffectStatus, Entry, Input, Resolution};

/// Where the fate of a request is whose acts are to be undone.
#[derive(Debug)]
pub(crate) enum Written {
    /// Nothing is written of it, or it is known to be in the store.
    No,
    /// On its way into the store.
    OnItsWay,
    /// About to be handed to the store, which is told here.
    Later(oneshot::Receiver<()>),
}

impl Effects {
    /// The effect once nobody is at work on it any more.
    pub(super) async fn at_rest(&self, key: EffectKey) -> Option<Entry> {
        self.rest(key, false).await
    }

    /// As [`Effects::at_rest`]; what a tool still works on while the system stops is left to the next process,
    /// which [`Effects::is_with_tool`] tells.
    pub(super) async fn at_rest_unless_stopping(&self, key: EffectKey) -> Option<Entry> {
        self.rest(key, true).await
    }

    async fn rest(&self, key: EffectKey, gives_up: bool) -> Option<Entry> {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            let entry = self.ledger.lock().get(key).cloned()?;
            if entry.in_flight {
                changed.await;
                continue;
            }
            let Some((journal, request)) = self.request_of(&entry) else { return Some(entry) };
            let told = journal.told();
            match journal.known(&request) {
                None => return Some(entry),
                Some(Asked::Open) if gives_up && self.is_stopping() => return Some(entry),
                Some(Asked::Open) => {
                    tokio::select! {
                        () = told => {}
                        () = changed => {}
                    }
                }
                Some(ended) => {
                    let given = journal.given(&request);
                    let Some(input) = says(&entry, ended, given) else { return Some(entry) };
                    // Not waited for: the fate of the tool's request says the same to every process.
                    self.note(input);
                    return self.ledger.lock().get(key).cloned();
                }
            }
        }
    }

    /// Whether the tool works on its own request, whose asker is gone.
    pub(super) fn is_with_tool(&self, entry: &Entry) -> bool {
        self.request_of(entry)
            .is_some_and(|(journal, request)| matches!(journal.known(&request), Some(Asked::Open)))
    }

    /// As [`Effects::is_with_tool`].
    pub(crate) fn is_key_with_tool(&self, key: EffectKey) -> bool {
        let entry = self.ledger.lock().get(key).cloned();
        entry.is_some_and(|entry| self.is_with_tool(&entry))
    }

    /// Whether the tool of some act of this task works on its own request, whose asker is gone.
    pub(crate) fn is_task_with_tools(&self, task: &str) -> bool {
        let acts: Vec<_> = self.ledger.lock().of_task(task).into_iter().cloned().collect();
        acts.iter().any(|entry| self.is_with_tool(entry))
    }

    /// What a request has done that has its fate is undone. From now on, and not from the first poll, whoever
    /// acts under the same key waits for that. Where its fate is written, and the store does not take that, nothing
    /// is undone: the next process finds the request open, or answered, with all that it has done.
    pub(crate) fn unwind(
        self: &Arc<Self>,
        task: &str,
        written: Written,
    ) -> impl Future<Output = ()> + Send + use<> {
        let unwinding = self.unwinding_of(task);
        if matches!(written, Written::No) {
            // Before whoever asked hears of the failure, and writes down anything that follows from it.
            self.is_to_be_undone(task);
        }
        async move {
            let Unwinding { effects, task } = &unwinding;
            if let Written::Later(handed) = written {
                // Whoever was to hand it over may be gone.
                let _ = handed.await;
                if !effects.has_its_fate(task).await {
                    return;
                }
            } else if matches!(written, Written::OnItsWay) && !effects.has_its_fate(task).await {
                return;
            }
            effects.is_to_be_undone(task);
            effects.compensate(task).await;
            effects.settle_orphans_of(task);
            effects.halts(task, Ends::Unanswered);
        }
    }

    /// A task has ended without an answer, and what it has done is to be undone. Where the journal does not say so of
    /// its request, the ledger does, so that the next process undoes what this one has not come to.
    fn is_to_be_undone(&self, task: &str) {
        let output = self.ledger.lock().on(Input::Owes(Arc::from(task), true));
        if let (Some(record), Some(journal)) = (output.record, self.journal.get())
            && journal.known(task).is_none()
        {
            journal.note(record);
        }
    }

    /// A task acts anew, once what it owed is undone, or left to a person.
    pub(super) fn owes_no_more(&self, task: &str) {
        let owes = self.ledger.lock().owes(task);
        if owes {
            self.note(Input::Owes(Arc::from(task), false));
        }
    }

    /// Whether the store has taken a fate of this request without an answer, once it has answered.
    async fn has_its_fate(&self, task: &str) -> bool {
        let Some(journal) = self.journal.get() else { return true };
        loop {
            let told = journal.told();
            if journal.is_certain(task) {
                return !matches!(journal.known(task), Some(Asked::Open | Asked::Done(_)));
            }
            told.await;
        }
    }

    /// From now on this task is being undone.
    pub(super) fn unwinding_of(self: &Arc<Self>, task: &str) -> Unwinding {
        let unwinding = Unwinding { effects: Arc::clone(self), task: Arc::from(task) };
        self.unwinding.lock().push(Arc::clone(&unwinding.task));
        unwinding
    }

    pub(super) fn is_unwinding(&self, task: &str) -> bool {
        self.unwinding.lock().iter().any(|other| **other == *task)
    }

    /// Once nobody undoes what a request with this key has done before its fate.
    pub(super) async fn unwound(&self, task: &str) {
        self.until(|| !self.is_unwinding(task)).await;
    }

    /// Who asked for this is gone, and nobody will ask again: once its tool is done with it, too, it is known or
    /// lost. What a tool still works on while the system stops is found by the next process.
    pub(crate) async fn settle_orphan(&self, key: EffectKey) {
        let Some(entry) = self.at_rest_unless_stopping(key).await else { return };
        if entry.status == EffectStatus::Intended && !self.is_with_tool(&entry) {
            self.orphaned(key);
        }
    }

    /// Nobody will ask for this again, nor is at work on it: without an outcome it waits for a person.
    pub(crate) fn orphaned(&self, key: EffectKey) {
        let output = self.ledger.lock().orphan(key);
        self.noted(output);
    }

    /// Nobody works on this task any more, nor undoes it: what of it has no outcome is given up, unless its tool is
    /// at work on it, which is waited for.
    pub(crate) fn settle_orphans_of(self: &Arc<Self>, task: &str) {
        let lost: Vec<Entry> = {
            let ledger = self.ledger.lock();
            let is_lost =
                |it: &&Entry| it.status == EffectStatus::Intended && !it.in_flight && it.is_owed();
            ledger.of_task(task).into_iter().filter(is_lost).cloned().collect()
        };
        for entry in lost {
            let key = entry.intent.key;
            let request = self.request_of(&entry);
            // What its tool's own request says of it counts.
            let tells = request.is_some_and(|(journal, it)| journal.known(&it).is_some());
            match self.runtime.get().filter(|_| tells) {
                Some(runtime) => {
                    let effects = Arc::clone(self);
                    drop(runtime.spawn(async move { effects.settle_orphan(key).await }));
                }
                None => self.orphaned(key),
            }
        }
    }

    /// Whoever waits for something looks again: the system stops.
    pub(crate) fn look_again(&self) {
        self.changed.notify_waiters();
    }

    /// Under what key a durable tool was asked for an act of which nobody knows what came of it.
    fn request_of(&self, entry: &Entry) -> Option<(&Arc<dyn Keep>, Arc<str>)> {
        let journal = self.journal.get()?;
        let is_open = matches!(
            entry.status,
            EffectStatus::Intended | EffectStatus::Unknown | EffectStatus::Compensating
        );
        is_open.then(|| (journal, Arc::from(entry.idempotency_key())))
    }
}

/// A task that is being undone after its fate.
pub(super) struct Unwinding {
    pub(super) effects: Arc<Effects>,
    pub(super) task: Arc<str>,
}

impl Drop for Unwinding {
    fn drop(&mut self) {
        let mut tasks = self.effects.unwinding.lock();
        if let Some(at) = tasks.iter().position(|task| *task == self.task) {
            tasks.swap_remove(at);
        }
        drop(tasks);
        self.effects.is_unwound(&self.task);
        self.effects.changed.notify_waiters();
    }
}

/// What the end of the tool's request says of an act without an outcome; `None` when it is as before.
fn says(entry: &Entry, ended: Asked, given: Given) -> Option<Input> {
    let (key, kind) = (entry.intent.key, entry.intent.kind);
    if !matches!(entry.status, EffectStatus::Intended | EffectStatus::Unknown) {
        return None;
    }
    match ended {
        Asked::Done(reply) => Some(Input::Confirmed(key, happened(reply?, given))),
        // One that may be repeated may have acted in an attempt before the last.
        Asked::Over(fate) if is_untouched(fate) && !kind.is_replay_safe() => {
            Some(Input::Resolved(key, Resolution::NotHappened))
        }
        // Where it can be asked what is the case, that is better.
        Asked::Over(Fate::Failed)
            if matches!(kind, EffectKind::Compensable | EffectKind::Irreversible) =>
        {
            let text = format!("what was asked of \"{}\" has failed", entry.intent.tool);
            Some(Input::Failed(key, Fault::new(Class::Exhausted, text).effect_failed()))
        }
        Asked::Over(_) | Asked::Aside | Asked::Open => None,
    }
}
