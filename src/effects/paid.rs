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
const REMEMBERED: usize = if cfg!(test) { 40 } else { 10_000 };

#[derive(Default)]
pub(super) struct Paid {
    tasks: HashMap<Arc<str>, Task>,
    /// Those that have their fates, the oldest first.
    ended: VecDeque<(u64, Arc<str>)>,
    /// Counts ends.
    next: u64,
}

struct Task {
    /// The step at which it goes on in this process: what was asked before that is in its state.
    from: u64,
    /// What this process has asked for: it was charged to the budget where it was worked on.
    made: HashSet<EffectKey>,
    told: HashSet<EffectKey>,
    /// What the state that it goes on with counts beyond what is on record for it: what has failed.
    counted: Cost,
    /// Which end it had last, if it has not gone on since.
    ended: Option<u64>,
}

impl Paid {
    fn task(&mut self, site: &Site) -> &mut Task {
        let task = self.tasks.entry(Arc::clone(&site.task)).or_insert_with(|| Task {
            from: site.step,
            made: HashSet::new(),
            told: HashSet::new(),
            counted: Cost::default(),
            ended: None,
        });
        task.ended = None;
        task
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
            let task = known.task(site);
            task.told.extend(keys);
            task.counted = before.without(paid);
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
        let mut paid = self.paid.lock();
        // What is heard after its fate does not have it go on.
        match paid.tasks.get_mut(&site.task) {
            Some(task) => task.told.insert(key),
            None => paid.task(site).told.insert(key),
        };
    }

    /// What of the `cost` of a call whose end is in the record its asker is still to be told. Asked for by
    /// another process, it is charged to the asker's budget as well.
    pub(super) fn due(&self, site: &Site, key: EffectKey, cost: Cost, tie: &Tie) -> Cost {
        self.due_as(site, key, cost, (tie, false))
    }

    /// As [`Effects::due`], where nothing has come of it. No record of the asker's says that it heard of that: what
    /// the state that it goes on with had counted beyond those is taken for it.
    pub(super) fn due_in_vain(&self, site: &Site, key: EffectKey, cost: Cost, tie: &Tie) -> Cost {
        self.due_as(site, key, cost, (tie, true))
    }

    fn due_as(
        &self,
        site: &Site,
        key: EffectKey,
        mut cost: Cost,
        (tie, in_vain): (&Tie, bool),
    ) -> Cost {
        self.used.store(true, Ordering::Relaxed);
        let made = {
            let mut paid = self.paid.lock();
            let task = paid.task(site);
            if site.step < task.from || !task.told.insert(key) {
                return Cost::default();
            }
            if in_vain {
                (cost, task.counted) = (cost.without(task.counted), task.counted.without(cost));
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
        let Paid { tasks, ended, next } = &mut *paid;
        let Some(known) = tasks.get_mut(task) else { return };
        *next += 1;
        known.ended = Some(*next);
        ended.push_back((*next, Arc::from(task)));
        while ended.len() > REMEMBERED {
            let Some((number, oldest)) = ended.pop_front() else { break };
            // One that has ended again since, or goes on, leaves its place behind.
            if tasks.get(&oldest).is_some_and(|task| task.ended == Some(number)) {
                tasks.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::TokioClock;
    use crate::id::ChildPath;
    use crate::moment::Moment;

    fn site(task: &str, step: u64, before: Option<Cost>) -> Site {
        Site { task: Arc::from(task), owner: "desk/agent".into(), step, ordinal: 0, before }
    }

    fn key(task: &str, step: u64) -> EffectKey {
        EffectKey::of(task, step, 0, &ChildPath::from("desk/tool"), b"7")
    }

    const fn tokens(tokens: u64) -> Cost {
        Cost { tokens, money_micros: 0 }
    }

    #[tokio::test]
    async fn what_the_state_had_counted_for_what_failed_is_not_charged_again() {
        let effects = Effects::new(|_| {});
        let tie = Tie::new(Moment::NEVER, Arc::new(TokioClock::new()), None, None);
        let at = |step| site("one", step, Some(tokens(100)));
        effects.opens(&at(2), &tie);
        assert_eq!(effects.due_in_vain(&at(2), key("one", 2), tokens(70), &tie), tokens(0));
        assert_eq!(effects.due_in_vain(&at(3), key("one", 3), tokens(70), &tie), tokens(40));
        // An answer is on record as soon as its asker has heard it.
        effects.opens(&site("two", 2, Some(tokens(100))), &tie);
        assert_eq!(effects.due(&site("two", 2, None), key("two", 2), tokens(70), &tie), tokens(70));
    }

    #[tokio::test]
    async fn who_ends_often_or_goes_on_is_not_forgotten_before_others() {
        let effects = Effects::new(|_| {});
        let tie = Tie::new(Moment::NEVER, Arc::new(TokioClock::new()), None, None);
        let asks = |task: &str| effects.due(&site(task, 0, None), key(task, 0), tokens(5), &tie);
        for task in ["often", "on"] {
            assert_eq!(asks(task), tokens(5));
            effects.paid_for(task);
        }
        assert_eq!(asks("on"), tokens(0));
        for n in 0..2 * REMEMBERED {
            let other = n.to_string();
            asks(&other);
            effects.paid_for(&other);
            effects.paid_for("often");
        }
        assert_eq!((asks("often"), asks("on"), asks("0")), (tokens(0), tokens(0), tokens(5)));
    }
}
