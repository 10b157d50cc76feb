//! Where the undo of a task has stopped, and how it goes on once a person has spoken.
//!
//! What stands although it is to be undone is marked as left, in the store too, so that whichever process hears
//! the word knows what is still owed.
//!
//! *Invariant.* Nothing is undone beyond an act of which nobody knows what came of it, whose undo has failed, or
//! which stands and cannot be undone; and nothing of a task that is in somebody's hands, or acts anew.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Effects;
use crate::event::Event;
use crate::ledger::{EffectKey, EffectStatus, Entry, Input};

/// The tasks that have ended and of which something is left standing.
#[derive(Default)]
pub(super) struct Halted(HashMap<Arc<str>, Ends>);

/// How a task has ended of which something is left standing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    /// Without an answer: all that it has done is to be undone.
    Unanswered,
    /// With an answer, after a rollback in its middle: what is left of before that is.
    Answered,
}

impl Effects {
    /// This task has ended. Goes on at once where a person has spoken before that.
    pub(crate) fn halts(self: &Arc<Self>, task: &str, ends: Ends) {
        let ledger = self.ledger.lock();
        let is_left = ledger.of_task(task).into_iter().any(Entry::is_owed);
        drop(ledger);
        if is_left {
            self.halted.lock().0.insert(Arc::from(task), ends);
            self.go_on(task);
        }
    }

    /// The fate of a request within a transaction is unknown, for an act of which nobody knows what came of it:
    /// what it has done besides stands until a person knows, and is marked so.
    pub(crate) fn leave(self: &Arc<Self>, task: &str) {
        self.settle_orphans_of(task);
        let keys: Vec<EffectKey> = {
            let ledger = self.ledger.lock();
            let acts = ledger.of_task(task);
            if !acts.iter().any(|entry| entry.status == EffectStatus::Unknown) {
                return;
            }
            let is_done = |it: &&&Entry| matches!(it.status, EffectStatus::Confirmed(_));
            let undoes = |it: &&&Entry| it.intent.undo.is_some() && it.intent.kind.acts();
            acts.iter().filter(is_done).filter(undoes).map(|it| it.intent.key).collect()
        };
        for key in keys {
            self.note(Input::Left(key));
        }
        self.halts(task, Ends::Unanswered);
    }

    /// A task acts: once nobody undoes what it has done before its fate, whoever has it in hand says what is
    /// undone of it.
    pub(super) async fn taken_up(&self, task: &str) {
        loop {
            self.unwound(task).await;
            let mut halted = self.halted.lock();
            if !self.is_unwinding(task) {
                halted.0.remove(task);
                break;
            }
        }
        self.owes_no_more(task);
    }

    /// This act is settled: where nothing of its task is open any more, nothing of it is left either.
    pub(super) fn no_more_left(&self, key: EffectKey) {
        if self.halted.lock().0.is_empty() {
            return;
        }
        let settled = {
            let ledger = self.ledger.lock();
            let Some(entry) = ledger.get(key) else { return };
            let task = &entry.intent.task;
            let is_owed = ledger.of_task(task).into_iter().any(Entry::is_owed);
            (!is_owed).then(|| Arc::clone(task))
        };
        if let Some(task) = settled {
            self.halted.lock().0.remove(&task);
        }
    }

    /// A person has spoken on this act: what stood for that is undone, in a task of its own.
    pub(crate) fn spoken_on(self: &Arc<Self>, key: EffectKey) {
        let task = self.ledger.lock().get(key).map(|entry| Arc::clone(&entry.intent.task));
        if let Some(task) = task {
            self.go_on(&task);
        }
    }

    fn go_on(self: &Arc<Self>, task: &str) {
        if !self.can_go_on(task) {
            return;
        }
        if let Some(runtime) = self.runtime.get() {
            let (effects, task) = (Arc::clone(self), Arc::<str>::from(task));
            let about_to = self.about_to_undo();
            drop(runtime.spawn(async move {
                effects.undo_rest(&task).await;
                drop(about_to);
            }));
        }
    }

    /// Something is about to be undone, until this is dropped: see [`Effects::all_unwound`].
    pub(crate) fn about_to_undo(self: &Arc<Self>) -> AboutTo {
        self.about_to_undo.fetch_add(1, Ordering::AcqRel);
        AboutTo(Arc::clone(self))
    }

    async fn undo_rest(self: &Arc<Self>, task: &Arc<str>) {
        // What was being undone when the person spoke has come to its end, and has marked what it left.
        let (ends, unwinding) = loop {
            self.unwound(task).await;
            let halted = self.halted.lock();
            let Some(ends) = halted.0.get(task).copied() else { return };
            if !self.is_unwinding(task) {
                break (ends, self.unwinding_of(task));
            }
        };
        if !self.can_go_on(task) {
            return;
        }
        match ends {
            Ends::Unanswered => drop(self.compensate(task).await),
            Ends::Answered => self.undo_left(task).await,
        }
        drop(unwinding);
    }

    /// Undoes what is left of a task that was answered.
    async fn undo_left(self: &Arc<Self>, task: &str) {
        let mut acts = self.acts_of(task);
        while let Some(entry) = acts.pop() {
            match stands(&entry, Ends::Answered) {
                Stands::Nothing => {}
                Stands::Owed => {
                    if !self.undo(entry.intent.key, None).await {
                        if self.is_stopping() {
                            // The next process goes on with it.
                            return;
                        }
                        let stands = 1 + acts.iter().filter(|it| is_left(it)).count();
                        let (child, tool) = (entry.intent.owner, entry.intent.tool);
                        let key = entry.intent.key;
                        (self.emit)(Event::UndoStopped { child, tool, key, stands });
                        return;
                    }
                }
                Stands::Stops => return,
            }
        }
    }

    /// Whether something of a task that has ended is left, and nothing keeps it from being undone.
    pub(crate) fn can_go_on(&self, task: &str) -> bool {
        let Some(ends) = self.halted.lock().0.get(task).copied() else { return false };
        let acts = self.acts_of(task);
        for (at, entry) in acts.iter().enumerate().rev() {
            match stands(entry, ends) {
                Stands::Nothing => {}
                Stands::Owed => return acts[..=at].iter().any(is_left),
                Stands::Stops => return false,
            }
        }
        false
    }

    /// Whether the undo of its task has stopped at this act, which cannot be undone.
    pub(super) fn stops_at(&self, key: EffectKey) -> bool {
        let ledger = self.ledger.lock();
        let Some(entry) = ledger.get(key).filter(|it| it.intent.undo.is_none()) else {
            return false;
        };
        let acts = ledger.of_task(&entry.intent.task);
        acts.into_iter().any(|it| it.seq < entry.seq && is_left(it))
    }

    /// The acts of a task, the earliest first.
    fn acts_of(&self, task: &str) -> Vec<Entry> {
        let ledger = self.ledger.lock();
        ledger.of_task(task).into_iter().filter(|it| it.intent.kind.acts()).cloned().collect()
    }
}

/// See [`Effects::about_to_undo`].
pub(crate) struct AboutTo(Arc<Effects>);

impl Drop for AboutTo {
    fn drop(&mut self) {
        self.0.about_to_undo.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.notify_waiters();
    }
}

/// What an act means for the undo of those before it.
enum Stands {
    /// There is nothing to undo.
    Nothing,
    /// It is to be undone.
    Owed,
    /// A person has to look first.
    Stops,
}

fn stands(entry: &Entry, ends: Ends) -> Stands {
    let undoes = entry.intent.undo.is_some();
    match entry.status {
        EffectStatus::Rejected | EffectStatus::Compensated => Stands::Nothing,
        EffectStatus::Failed(_) if !undoes => Stands::Nothing,
        EffectStatus::Left(_) if undoes => Stands::Owed,
        _ if entry.status.stands() => Stands::Stops,
        // It belongs to what was answered.
        EffectStatus::Confirmed(_) | EffectStatus::Failed(_) if ends == Ends::Answered => {
            Stands::Nothing
        }
        EffectStatus::Confirmed(_) | EffectStatus::Failed(_) => Stands::Owed,
        EffectStatus::Intended
        | EffectStatus::Unknown
        | EffectStatus::Compensating
        | EffectStatus::Left(_)
        | EffectStatus::Stuck(_) => Stands::Stops,
    }
}

fn is_left(entry: &Entry) -> bool {
    matches!(entry.status, EffectStatus::Left(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::EffectKind;
    use crate::id::ChildPath;
    use crate::ledger::{Happened, Intent, Record, Undo};

    #[tokio::test]
    async fn of_a_task_that_a_person_has_settled_nothing_is_remembered() {
        let effects = Effects::new(|_| {});
        let (tool, request) = (ChildPath::from("desk/tool"), Arc::<[u8]>::from(b"7".as_slice()));
        let keys = ["one", "two"].map(|task| {
            let key = EffectKey::of(task, 0, 0, &tool, &request);
            let undo = Some(Undo { tool: tool.clone(), request: Arc::clone(&request) });
            let (task, owner) = (Arc::from(task), "desk/agent".into());
            let (tool, request, kind) =
                (tool.clone(), Arc::clone(&request), EffectKind::Compensable);
            let intent =
                Intent { key, task, owner, step: 0, ordinal: 0, tool, kind, request, undo };
            let left = EffectStatus::Left(Happened::new(&b"1"[..]));
            effects.ledger.lock().apply(Record::Intent(intent, 0));
            effects.ledger.lock().apply(Record::Status(key, left));
            key
        });
        for task in ["one", "two"] {
            effects.halts(task, Ends::Unanswered);
        }
        let left = || effects.halted.lock().0.len();
        assert_eq!(left(), 2);
        effects.feed(Input::Stands(keys[0])).await.unwrap();
        assert_eq!(left(), 1);
        effects.feed(Input::Undone(keys[1])).await.unwrap();
        assert_eq!(left(), 0);
    }

    #[test]
    fn of_a_task_that_has_only_looked_nothing_is_remembered() {
        let effects = Effects::new(|_| {});
        let (tool, request) = (ChildPath::from("desk/tool"), Arc::<[u8]>::from(&b"7"[..]));
        for (task, kind) in [("reads", EffectKind::Read), ("acts", EffectKind::Irreversible)] {
            let key = EffectKey::of(task, 0, 0, &tool, &request);
            let (task, owner, undo) = (Arc::from(task), "desk/agent".into(), None);
            let (tool, request) = (tool.clone(), Arc::clone(&request));
            let intent =
                Intent { key, task, owner, step: 0, ordinal: 0, tool, kind, request, undo };
            effects.ledger.lock().apply(Record::Intent(intent, 0));
        }
        for task in ["reads", "acts"] {
            effects.halts(task, Ends::Unanswered);
        }
        assert_eq!(effects.halted.lock().0.keys().map(|it| &**it).collect::<Vec<_>>(), ["acts"]);
    }
}
