//! What came of the questions of each task, which only a replay needs.
//!
//! *Invariant.* The answers weigh no more than may be: those of the oldest tasks go first, and of the last
//! task none does.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{EffectKey, EffectStatus, Ledger, weight};
use crate::fate::Cost;

/// What the answers to questions may weigh: those of the oldest tasks go, and with them their replay.
const ASKED_BYTES: usize = 64 << 20;

impl Ledger {
    pub(super) fn note_asked(&mut self, task: Arc<str>, key: EffectKey, status: EffectStatus) {
        self.asked_bytes += weight(&status);
        let asked = self.asked.entry(Arc::clone(&task)).or_insert_with(|| {
            self.askers.push_back(task);
            BTreeMap::new()
        });
        if let Some(before) = asked.insert(key, status) {
            self.asked_bytes -= weight(&before);
        }
        while self.asked_bytes > ASKED_BYTES && self.asked.len() > 1 {
            let Some(oldest) = self.askers.pop_front() else { break };
            self.forget_asked(&oldest);
        }
        // Tasks that were forgotten in between leave their places behind.
        if self.askers.len() > 2 * self.asked.len() + 64 {
            let asked = &self.asked;
            self.askers.retain(|task| asked.contains_key(task));
        }
    }

    /// What has come of this task's questions and acts by what is on record, and what that has cost together.
    pub(crate) fn paid_by(&self, task: &str) -> (Cost, Vec<EffectKey>) {
        let asked = self.asked.get(task).into_iter().flatten();
        let acts = self.of_task(task).into_iter().map(|it| (&it.intent.key, &it.status));
        let (mut cost, mut keys) = (Cost::default(), Vec::new());
        for (key, status) in asked.chain(acts) {
            if let EffectStatus::Confirmed(happened) | EffectStatus::Left(happened) = status {
                cost.add(happened.cost);
                keys.push(*key);
            }
        }
        (cost, keys)
    }

    pub(super) fn forget_asked(&mut self, task: &str) {
        for status in self.asked.remove(task).iter().flat_map(BTreeMap::values) {
            self.asked_bytes -= weight(status);
        }
    }
}
