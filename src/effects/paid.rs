//! What recorded answers have cost, for those who hear them again.
//!
//! *Invariant.* A request is told once in a process what a call has cost: when it hears the answer, or, where it
//! had left or its process had ended, from the record. What its state was stored after, it was told by then.
//!
//! # Why not with every answer from the record?
//!
//! A step that is done again, or a task that went back, hears the same answers again, and what it has paid for
//! them was counted: money does not come back with a rollback, nor is it spent twice.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Effects, Site};
use crate::fate::Cost;
use crate::id::EffectKey;
use crate::port::Tie;

/// How many requests are remembered after their fates, for whoever asks under the same key.
const REMEMBERED: usize = 10_000;

#[derive(Default)]
pub(super) struct Paid {
    tasks: HashMap<Arc<str>, Task>,
    /// Those that have their fates, the oldest first.
    ended: VecDeque<Arc<str>>,
}

struct Task {
    /// The step at which it goes on in this process: what was asked before that is in its state.
    from: u64,
    /// What this process has asked for: it was charged to the budget where it was worked on.
    made: HashSet<EffectKey>,
    told: HashSet<EffectKey>,
}

impl Paid {
    fn task(&mut self, site: &Site) -> &mut Task {
        self.tasks.entry(Arc::clone(&site.task)).or_insert_with(|| Task {
            from: site.step,
            made: HashSet::new(),
            told: HashSet::new(),
        })
    }
}

impl Effects {
    /// A task is about to ask for something. The first time in a process, it is told what had been paid for it
    /// that the state it goes on with knows nothing of: nobody hears those answers again, or they cost nothing.
    pub(super) fn opens(&self, site: &Site, tie: &Tie) {
        let Some(before) = site.before else { return };
        if self.paid.lock().tasks.contains_key(&site.task) {
            return;
        }
        let (paid, keys) = self.ledger.lock().paid_by(&site.task);
        {
            let mut known = self.paid.lock();
            if known.tasks.contains_key(&site.task) {
                return;
            }
            known.task(site).told.extend(keys);
        }
        let lost = paid.without(before);
        if lost != Cost::default() {
            if let Some(purse) = &tie.purse {
                purse.charge(lost);
            }
            tie.note_cost(lost);
        }
    }

    /// A call is about to be made that is charged where it is worked on.
    pub(super) fn makes(&self, site: &Site, key: EffectKey) {
        self.used.store(true, Ordering::Relaxed);
        let mut paid = self.paid.lock();
        let task = paid.task(site);
        task.made.insert(key);
        task.told.remove(&key);
    }

    /// Whoever asked has heard its end, and what it has cost.
    pub(super) fn heard(&self, site: &Site, key: EffectKey) {
        self.paid.lock().task(site).told.insert(key);
    }

    /// What of the `cost` of a call whose end is in the record its asker is still to be told. Asked for by
    /// another process, it is charged to the asker's budget as well.
    pub(super) fn due(&self, site: &Site, key: EffectKey, cost: Cost, tie: &Tie) -> Cost {
        self.used.store(true, Ordering::Relaxed);
        let made = {
            let mut paid = self.paid.lock();
            let task = paid.task(site);
            if site.step < task.from || !task.told.insert(key) {
                return Cost::default();
            }
            task.made.contains(&key)
        };
        if let (false, Some(purse)) = (made, &tie.purse) {
            purse.charge(cost);
        }
        cost
    }

    /// A request has its fate.
    pub(super) fn paid_for(&self, task: &str) {
        let mut paid = self.paid.lock();
        let Some((task, _)) = paid.tasks.get_key_value(task) else { return };
        let task = Arc::clone(task);
        paid.ended.push_back(task);
        while paid.ended.len() > REMEMBERED {
            if let Some(oldest) = paid.ended.pop_front() {
                paid.tasks.remove(&oldest);
            }
        }
    }
}
