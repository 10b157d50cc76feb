//! When what a request has done is forgotten.
//!
//! *Invariant.* A request is in the order of those that ended at most once, by its last end. What is open
//! of it is never forgotten, nor is anything of it while it is being undone, and once that is settled, it ends anew.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::Effects;
use crate::ledger::{EffectKey, Input, Record};

/// How many requests' effects are remembered after their fates. Fewer where this crate's own tests count
/// them.
const REMEMBERED: usize = if cfg!(test) { 40 } else { 10_000 };

/// How many bytes of requests, undos and results of theirs: as many as are kept of replies. The last one is
/// remembered whatever it weighs.
const WEIGHT: usize = if cfg!(test) { 64 << 10 } else { 64 << 20 };

/// Requests that acted and have their fates.
#[derive(Default)]
pub(super) struct Ended {
    /// The oldest first; those with another stamp have ended again since, or act again.
    order: VecDeque<(u64, Arc<str>)>,
    stamps: HashMap<Arc<str>, Stamp>,
    /// Of all that have a stamp.
    weight: usize,
    /// Those that were forgotten but for what is open of them.
    open: HashSet<Arc<str>>,
    next: u64,
}

#[derive(Clone, Copy)]
struct Stamp {
    number: u64,
    weight: usize,
}

impl Ended {
    fn push(&mut self, task: Arc<str>, weight: usize) {
        self.next += 1;
        self.remove(&task);
        self.weight += weight;
        self.stamps.insert(Arc::clone(&task), Stamp { number: self.next, weight });
        self.order.push_back((self.next, task));
        if self.order.len() > 2 * self.stamps.len() + 64 {
            let stamps = &self.stamps;
            self.order.retain(|(number, task)| {
                stamps.get(task).is_some_and(|stamp| stamp.number == *number)
            });
        }
    }

    fn remove(&mut self, task: &str) {
        if let Some(stamp) = self.stamps.remove(task) {
            self.weight -= stamp.weight;
        }
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.stamps.len()
    }

    fn is_heavy(&self) -> bool {
        self.weight > WEIGHT && self.stamps.len() > 1
    }

    /// The oldest, when there is more than is remembered.
    fn pop(&mut self) -> Option<Arc<str>> {
        while self.stamps.len() > REMEMBERED || self.is_heavy() {
            let (number, task) = self.order.pop_front()?;
            if self.stamps.get(&task).is_some_and(|stamp| stamp.number == number) {
                self.remove(&task);
                return Some(task);
            }
        }
        None
    }
}

impl Effects {
    /// A request has its fate. What it has done is remembered for a while, for whoever asks under the
    /// same key; then what is settled of it is forgotten.
    pub(crate) fn ended(self: &Arc<Self>, task: &str) {
        self.paid_for(task);
        let weight = {
            let ledger = self.ledger.lock();
            if !ledger.knows(task) {
                return;
            }
            ledger.weight(task)
        };
        self.ended.lock().push(Arc::from(task), weight);
        // What is being undone is given up where that has stopped.
        if !self.is_unwinding(task) {
            self.settle_orphans_of(task);
        }
        let mut gone = 0;
        loop {
            let task = {
                let mut ended = self.ended.lock();
                // Two for one, so that what an earlier process has left over goes by and by.
                if gone >= 2 && !ended.is_heavy() {
                    return;
                }
                let Some(task) = ended.pop() else { return };
                task
            };
            gone += 1;
            // One that is still being undone ends anew once it is.
            if self.is_unwinding(&task) {
                self.ended.lock().open.insert(Arc::clone(&task));
                if self.is_unwinding(&task) {
                    continue;
                }
                self.ended.lock().open.remove(&task);
            }
            self.note(Input::Retire(Arc::clone(&task)));
            if self.ledger.lock().knows(&task) {
                self.ended.lock().open.insert(task);
            }
        }
    }

    /// Whoever waited for this is gone, which may have been so late that its request has its fate.
    pub(super) fn is_lost(self: &Arc<Self>, key: EffectKey) {
        let task = self.ledger.lock().get(key).map(|entry| Arc::clone(&entry.intent.task));
        let Some(task) = task else { return };
        let is_over = {
            let ended = self.ended.lock();
            ended.stamps.contains_key(&task) || ended.open.contains(&task)
        };
        if is_over && !self.is_unwinding(&task) {
            self.settle_orphans_of(&task);
        }
    }

    /// All is undone of a request that had its fate before, or nothing more is.
    pub(super) fn is_unwound(&self, task: &Arc<str>) {
        if !self.ended.lock().open.contains(task) {
            return;
        }
        let weight = self.ledger.lock().weight(task);
        let mut ended = self.ended.lock();
        if ended.open.remove(task) {
            ended.push(Arc::clone(task), weight);
        }
    }

    /// A request acts: what it has done before is not forgotten under its hands.
    pub(super) fn begun(&self, task: &str) {
        let mut ended = self.ended.lock();
        ended.remove(task);
        ended.open.remove(task);
    }

    /// Something was found out, or done about.
    pub(super) fn settled(&self, record: &Record) {
        let (Record::Status(key, status) | Record::Said(key, status, _)) = record else { return };
        if status.is_open() {
            return;
        }
        self.no_more_left(*key);
        if self.ended.lock().open.is_empty() {
            return;
        }
        let task = {
            let ledger = self.ledger.lock();
            let task = ledger.get(*key).map(|entry| Arc::clone(&entry.intent.task));
            task.map(|task| (ledger.weight(&task), task))
        };
        let mut ended = self.ended.lock();
        if let Some((weight, task)) = task
            && ended.open.remove(&task)
        {
            ended.push(task, weight);
        }
    }

    /// Takes up the ledger of an earlier process: those of its requests that have their fates ended in the
    /// order in which they acted last.
    pub(crate) fn take_up(&self, is_over: impl Fn(&str) -> bool) {
        let mut tasks = self.ledger.lock().tasks();
        if tasks.is_empty() {
            return;
        }
        self.used.store(true, std::sync::atomic::Ordering::Relaxed);
        tasks.retain(|task| is_over(task));
        let ledger = self.ledger.lock();
        let mut ended = self.ended.lock();
        for task in tasks {
            let weight = ledger.weight(&task);
            ended.push(task, weight);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::EffectKind;
    use crate::id::ChildPath;
    use crate::ledger::{EffectStatus, Happened, Intent, Undo};

    /// It has acted twice, and both can be undone.
    fn acts(effects: &Effects, task: &str) {
        let (tool, request) = (ChildPath::from("desk/tool"), Arc::<[u8]>::from(&b"7"[..]));
        for step in 0..2 {
            let key = EffectKey::of(task, step, 0, &tool, &request);
            let undo = Some(Undo { tool: tool.clone(), request: Arc::clone(&request) });
            let (task, owner) = (Arc::from(task), "desk/agent".into());
            let (tool, request) = (tool.clone(), Arc::clone(&request));
            let kind = EffectKind::Compensable;
            let intent = Intent { key, task, owner, step, ordinal: 0, tool, kind, request, undo };
            let done = EffectStatus::Confirmed(Happened::new(&b"1"[..]));
            let mut ledger = effects.ledger.lock();
            ledger.apply(Record::Intent(intent, 0));
            ledger.apply(Record::Status(key, done));
        }
    }

    #[test]
    fn nothing_is_forgotten_of_a_request_while_it_is_being_undone() {
        let effects = Effects::new(|_| {});
        let known = |task: &str| effects.ledger.lock().of_task(task).len();
        let others = |round: usize| {
            for n in 0..2 * REMEMBERED {
                let task = format!("{round} {n}");
                acts(&effects, &task);
                effects.ended(&task);
            }
        };
        acts(&effects, "slow");
        let unwinding = effects.unwinding_of("slow");
        effects.ended("slow");
        others(0);
        assert_eq!(known("slow"), 2);
        assert_eq!(known("0 0"), 0, "the others are");
        // It is the last one that has ended from now on.
        drop(unwinding);
        assert_eq!(known("slow"), 2);
        others(1);
        assert_eq!(known("slow"), 0);
        assert_eq!(effects.ended.lock().count(), REMEMBERED);
    }
}
