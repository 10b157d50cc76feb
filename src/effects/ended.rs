//! When what a request has done is forgotten.
//!
//! *Invariant.* A request is in the order of those that ended at most once, by its last end. What is open
//! of it is never forgotten, and once that is settled, it ends anew.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::Effects;
use crate::ledger::{Input, Record};

/// How many requests' effects are remembered after their fates. Fewer where this crate's own tests count
/// them.
const REMEMBERED: usize = if cfg!(test) { 40 } else { 10_000 };

/// Requests that acted and have their fates.
#[derive(Default)]
pub(super) struct Ended {
    /// The oldest first; those with another stamp have ended again since, or act again.
    order: VecDeque<(u64, Arc<str>)>,
    stamps: HashMap<Arc<str>, u64>,
    /// Those that were forgotten but for what is open of them.
    open: HashSet<Arc<str>>,
    next: u64,
}

impl Ended {
    fn push(&mut self, task: Arc<str>) {
        self.next += 1;
        self.stamps.insert(Arc::clone(&task), self.next);
        self.order.push_back((self.next, task));
        if self.order.len() > 2 * self.stamps.len() + 64 {
            let stamps = &self.stamps;
            self.order.retain(|(stamp, task)| stamps.get(task) == Some(stamp));
        }
    }

    /// The oldest, when there are more than are remembered.
    fn pop(&mut self) -> Option<Arc<str>> {
        while self.stamps.len() > REMEMBERED {
            let (stamp, task) = self.order.pop_front()?;
            if self.stamps.get(&task) == Some(&stamp) {
                self.stamps.remove(&task);
                return Some(task);
            }
        }
        None
    }
}

impl Effects {
    /// A request has its fate. What it has done is remembered for a while, for whoever asks under the
    /// same key; then what is settled of it is forgotten.
    pub(crate) fn ended(&self, task: &str) {
        if !self.ledger.lock().knows(task) {
            return;
        }
        self.ended.lock().push(Arc::from(task));
        // Two for one, so that what an earlier process has left over goes by and by.
        for _ in 0..2 {
            let Some(task) = self.ended.lock().pop() else { return };
            self.note(Input::Retire(Arc::clone(&task)));
            if !self.ledger.lock().of_task(&task).is_empty() {
                self.ended.lock().open.insert(task);
            }
        }
    }

    /// A request acts: what it has done before is not forgotten under its hands.
    pub(super) fn begun(&self, task: &str) {
        let mut ended = self.ended.lock();
        ended.stamps.remove(task);
        ended.open.remove(task);
    }

    /// Something was found out, or done about.
    pub(super) fn settled(&self, record: &Record) {
        let Record::Status(key, status) = record else { return };
        if status.is_open() || self.ended.lock().open.is_empty() {
            return;
        }
        let task = self.ledger.lock().get(*key).map(|entry| Arc::clone(&entry.intent.task));
        let mut ended = self.ended.lock();
        if let Some(task) = task
            && ended.open.remove(&task)
        {
            ended.push(task);
        }
    }

    /// Takes up the ledger of an earlier process: those of its requests that have their fates ended in the
    /// order in which they acted last.
    pub(crate) fn take_up(&self, is_over: impl Fn(&str) -> bool) {
        let mut tasks = Vec::new();
        let mut seen = HashSet::new();
        for entry in self.ledger.lock().entries().into_iter().rev() {
            if seen.insert(Arc::clone(&entry.intent.task)) {
                tasks.push(Arc::clone(&entry.intent.task));
            }
        }
        if tasks.is_empty() {
            return;
        }
        self.used.store(true, std::sync::atomic::Ordering::Relaxed);
        tasks.retain(|task| is_over(task));
        let mut ended = self.ended.lock();
        for task in tasks.into_iter().rev() {
            ended.push(task);
        }
    }
}
