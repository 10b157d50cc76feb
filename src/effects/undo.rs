//! Undoing what a task has done to the world, the latest first.
//!
//! *Invariant.* An undo that was begun is asked for once at a time, and until its tool has answered, whoever has
//! stopped waiting for it. What an open request has done is undone before it acts again, or is shown to a person.

use std::sync::{Arc, Weak};

use super::parts::told_of;
use super::rest::Unwinding;
use super::{Effects, Until};
use crate::behavior::{Context, Undone};
use crate::event::Event;
use crate::fault::Fault;
use crate::ledger::{EffectKey, EffectStatus, Entry, Input, Record};
use crate::port::{NotUndone, UNDO};

/// For whom something is undone.
#[derive(Clone, Copy)]
enum Of<'a> {
    /// A request that is over, or that does not go on before all is undone.
    Ending,
    /// One that goes on whatever comes of it: what stands then is marked as left. Tools are waited for until then.
    Going(Option<&'a Until>),
}

impl Effects {
    /// Undoes what a task has done to the world, the latest first, and says what stands. What may have
    /// happened is undone, too. At an effect that may stand and has no undo it stops: what came before
    /// that cannot be told apart from it.
    pub(crate) async fn compensate(self: &Arc<Self>, task: &str) -> Undone {
        self.compensate_from(task, 0).await
    }

    /// As [`Effects::compensate`], for what was done at this step of the task and later.
    pub(crate) async fn compensate_from(self: &Arc<Self>, task: &str, step: u64) -> Undone {
        self.compensates(task, step, Of::Ending).await.0
    }

    /// As [`Effects::compensate_from`], for a request that goes on whatever comes of it. What is not undone until
    /// then is told as unknown; whether there is such, which [`Effects::undo_later`] is for.
    pub(crate) async fn compensate_until(
        self: &Arc<Self>,
        task: &str,
        step: u64,
        until: &Until,
    ) -> (Undone, bool) {
        self.compensates(task, step, Of::Going(Some(until))).await
    }

    /// Goes on with that in a task of its own. From now on the request acts again once that has come to its end.
    pub(crate) fn undo_later(self: &Arc<Self>, task: &str, step: u64) {
        let Some(runtime) = self.runtime.get() else { return };
        let unwinding = self.unwinding_of(task);
        drop(runtime.spawn(async move {
            let Unwinding { effects, task } = &unwinding;
            effects.compensates(task, step, Of::Going(None)).await;
        }));
    }

    async fn compensates(self: &Arc<Self>, task: &str, step: u64, of: Of<'_>) -> (Undone, bool) {
        let (until, goes_on) = match of {
            Of::Ending => (None, false),
            Of::Going(until) => (until, true),
        };
        let mut told = Undone::default();
        let mut acts: Vec<EffectKey> = {
            let ledger = self.ledger.lock();
            ledger
                .of_task(task)
                .into_iter()
                .filter(|entry| entry.intent.step >= step)
                .map(|entry| entry.intent.key)
                .collect()
        };
        acts.reverse();
        let (mut stop, mut later) = (false, false);
        let mut stopped = None;
        for key in acts {
            // What somebody else is undoing is told as undone once that is written down, too: whoever is told may store
            // that it is.
            let _ = Until::bound(until, self.nobody_undoes(key)).await;
            let Some(entry) = self.at_rest_until(key, until).await else { continue };
            if !entry.intent.kind.acts() {
                continue;
            }
            if entry.in_flight || self.is_with_tool(&entry) {
                // Nothing is decided about what came before either, until its tool is done: by whoever goes on later,
                // or by the next process.
                (stop, later) = (true, true);
                told.unknown.push(key);
                stopped.get_or_insert((entry.intent.owner, entry.intent.tool, key));
                continue;
            }
            match entry.status {
                // Of one that failed the tool says so, so that what came before can be told apart from it; what it may
                // have left behind is told, unless to ask again does no harm. What others have done for it is undone
                // by their own failure.
                EffectStatus::Rejected | EffectStatus::Failed(_) if !entry.undoes() => {
                    let _ = Until::bound(until, self.unwound(&entry.idempotency_key())).await;
                    let left = told_of(&self.ledger.lock(), [&entry]);
                    told.kept.extend(left.kept);
                    told.unknown.extend(left.unknown);
                    continue;
                }
                EffectStatus::Compensated => {
                    told.undone.push(key);
                    continue;
                }
                ref status if status.stands() => {
                    told.kept.push(key);
                    continue;
                }
                EffectStatus::Stuck(_) => stop = true,
                EffectStatus::Compensating | EffectStatus::Failed(_) | EffectStatus::Rejected => {}
                EffectStatus::Confirmed(_)
                | EffectStatus::Left(_)
                | EffectStatus::Intended
                | EffectStatus::Unknown => {
                    stop |= entry.intent.undo.is_none();
                }
            }
            let late = until.is_some_and(Until::is_over);
            if !stop && !late && self.undo_until(key, None, until).await {
                told.undone.push(key);
                continue;
            }
            if !stop && (self.is_compensating(key) || until.is_some_and(Until::is_over)) {
                // The tool was not asked, or has not answered: nothing is decided about what came before either.
                later = true;
            }
            stop = true;
            stopped.get_or_insert((entry.intent.owner, entry.intent.tool, key));
            // Whatever becomes of those who go on with it later: a person sees it.
            let is_marked = goes_on && !self.is_stopping();
            match entry.status {
                _ if later && !is_marked => told.unknown.push(key),
                EffectStatus::Confirmed(_) | EffectStatus::Left(_) if !self.is_stuck(key) => {
                    // Until its task asks for it again, or a person says that it stands rightly.
                    if let Err(fault) = self.feed(Input::Left(key)).await {
                        tracing::warn!(target: "mainstay", %key, %fault, "what was left standing is not written down");
                    }
                    if later { &mut told.unknown } else { &mut told.kept }.push(key);
                }
                _ => told.unknown.push(key),
            }
        }
        // What a stop has cut short, the next process goes on with.
        let is_stopping = later && self.is_stopping();
        if let Some((child, tool, key)) = stopped.filter(|_| !is_stopping) {
            // From here on it is a person's: nobody else can know what belongs together.
            let stands = told.kept.len() + told.unknown.len();
            (self.emit)(Event::UndoStopped { child, tool, key, stands });
        }
        (self.described(told), later && !is_stopping)
    }

    /// Undoes all that was done under a key which is not that of a request in a transaction, but of a call from
    /// one. A process that ends meanwhile has the next one ask for it again.
    ///
    /// # Errors
    /// Something stands still, or may; a person sees which.
    pub(crate) async fn undo_within(self: &Arc<Self>, key: &str) -> Result<(), Fault> {
        let _ = self.compensate(key).await;
        let stands = |entry: &&Entry| {
            let is_over = matches!(
                entry.status,
                EffectStatus::Rejected | EffectStatus::Failed(_) | EffectStatus::Compensated
            );
            entry.intent.kind.acts() && !entry.status.stands() && !is_over
        };
        let left: Vec<String> = {
            let ledger = self.ledger.lock();
            let of = ledger.of_task(key);
            of.into_iter().filter(stands).map(|it| it.intent.tool.to_string()).collect()
        };
        if left.is_empty() {
            return Ok(());
        }
        if self.is_stopping() {
            // It was not asked for, as far as whoever has asked is concerned.
            std::future::pending::<()>().await;
        }
        let text = format!("of what was done within it, stands or may stand: {}", left.join(", "));
        Err(Fault::business(text).with_code("stands"))
    }

    /// Returns once no undo of this effect is under way.
    async fn nobody_undoes(&self, key: EffectKey) {
        loop {
            let mut told = std::pin::pin!(self.changed.notified());
            told.as_mut().enable();
            if !self.undoing.lock().contains(&key) {
                return;
            }
            told.await;
        }
    }

    /// Undoes one effect, or goes on with an undo that was interrupted; whether it is undone. Whoever
    /// asks for one that is under way waits for that. `begun` is the epoch of an undo that is only gone on with:
    /// its task may have come to the end of it, and have acted anew.
    pub(crate) async fn undo(self: &Arc<Self>, key: EffectKey, begun: Option<u32>) -> bool {
        self.undo_until(key, begun, None).await
    }

    /// As [`Effects::undo`]; nobody is waited for any longer than until then.
    async fn undo_until(
        self: &Arc<Self>,
        key: EffectKey,
        begun: Option<u32>,
        until: Option<&Until>,
    ) -> bool {
        let turn = async {
            // Of several who wait, one is first.
            while !self.undoing.lock().insert(key) {
                self.nobody_undoes(key).await;
            }
            Undoing { effects: Arc::clone(self), key }
        };
        let Some(turn) = Until::bound(until, turn).await else { return false };
        // What its tool works on still is not undone beside it.
        let entry = self.at_rest_until(key, until).await;
        if entry.is_none_or(|entry| entry.in_flight || self.is_with_tool(&entry)) {
            return false;
        }
        if let Some(epoch) = begun {
            let is_it = |it: &Entry| it.epoch == epoch && it.status == EffectStatus::Compensating;
            if !self.ledger.lock().get(key).is_some_and(is_it) {
                return false;
            }
        }
        match self.runtime.get() {
            // Whoever stops waiting for it does not take the call back: it would be made anew beside one that may
            // still be at work.
            Some(runtime) => {
                let done = Until::bound(until, runtime.spawn(turn.ends())).await;
                if done.is_none() {
                    tracing::warn!(target: "mainstay", %key, "an undo was not done in time");
                }
                done.is_some_and(|done| done.unwrap_or(false))
            }
            None => turn.ends().await,
        }
    }
}

/// While it lives, nobody else undoes this effect.
struct Undoing {
    effects: Arc<Effects>,
    key: EffectKey,
}

impl Undoing {
    /// Undoes it; whether that was done.
    async fn ends(self) -> bool {
        let Self { effects, key } = &self;
        let key = *key;
        let Ok(output) = effects.feed(Input::Undo(key)).await else { return false };
        let entry = effects.ledger.lock().get(key).cloned();
        let Some(entry) = entry else { return false };
        match entry.status {
            // Whoever began it may have been given up before that was written.
            EffectStatus::Compensating if output.record.is_none() => {
                if effects.keep(Record::Status(key, EffectStatus::Compensating)).await.is_err() {
                    return false;
                }
            }
            EffectStatus::Compensating => {}
            status => return status == EffectStatus::Compensated,
        }
        let undoer = effects.undoer.get().and_then(Weak::upgrade);
        let (Some(undo), Some(undoer)) = (entry.intent.undo.clone(), undoer) else { return false };
        let asked = undoer.undo(undo, format!("{UNDO}{}", entry.idempotency_key()));
        drop(undoer);
        let done = asked.await;
        let input = match &done {
            Ok(()) => Input::Undone(key),
            Err(NotUndone::Failed(fault)) => Input::UndoFailed(key, fault.to_string()),
            Err(NotUndone::Later(fault)) => {
                // It is gone on with by whoever undoes its task next, the next process at the latest.
                tracing::warn!(target: "mainstay", %key, %fault, "an undo was not asked for");
                return false;
            }
        };
        effects.feed(input).await.is_ok() && done.is_ok()
    }
}

impl Drop for Undoing {
    fn drop(&mut self) {
        self.effects.undoing.lock().remove(&self.key);
        self.effects.changed.notify_waiters();
    }
}

impl Context {
    /// The idempotency key of the call that this request asks to undo
    /// ([`Effect::undo`](crate::port::Effect::undo)): the one that call had as its [key](Context::key). `None` of a
    /// request that undoes nothing.
    pub fn undoes(&self) -> Option<&str> {
        self.key.as_deref()?.strip_prefix(UNDO)
    }

    /// Undoes what was done to the world within the call that this request asks to undo, the latest first: of a tool
    /// that does nothing by itself, and has others do it under its own [key](Context::key).
    ///
    /// # Errors
    /// Of class [`Business`](crate::fault::Class::Business), so that nobody tries again: with the code `stands`,
    /// something within it is not undone, and what stands is a person's from then on
    /// ([`EffectsRef::open`](crate::system::EffectsRef::open)); with the code `no_undo`, this request undoes nothing.
    pub async fn undo_within(&self) -> Result<(), Fault> {
        match self.undoes() {
            Some(key) => self.seat.undo_within(key).await,
            None => Err(Fault::business("this request undoes nothing").with_code("no_undo")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;

    use super::*;
    use crate::fault::EffectKind;
    use crate::id::ChildPath;
    use crate::ledger::{Intent, Undo};

    /// The ledger says so at once, and the store later.
    #[tokio::test]
    async fn what_another_undoes_is_told_once_that_has_come_to_its_end() {
        let effects = Effects::new(|_| {});
        let (tool, request) = (ChildPath::from("desk/tool"), Arc::<[u8]>::from(&b"7"[..]));
        let key = EffectKey::of("one", 0, 0, &tool, &request);
        let undo = Some(Undo { tool: tool.clone(), request: Arc::clone(&request) });
        let (task, owner, kind) = (Arc::from("one"), "desk/agent".into(), EffectKind::Compensable);
        let intent = Intent { key, task, owner, step: 0, ordinal: 0, tool, kind, request, undo };
        effects.ledger.lock().apply(Record::Intent(intent, 0));
        effects.ledger.lock().apply(Record::Status(key, EffectStatus::Compensated));
        effects.undoing.lock().insert(key);
        let another = Undoing { effects: Arc::clone(&effects), key };
        let mut told = pin!(effects.compensate("one"));
        let waits = poll_fn(|task| Poll::Ready(told.as_mut().poll(task).is_pending())).await;
        assert!(waits, "it is not written down yet");
        drop(another);
        assert_eq!(told.await.undone, [key]);
    }
}
