//! Requests that were answered: in whose state their work is, and what they asked, as long as that is kept.
//!
//! *Invariant.* The work of a request is found by its key and by its child, or by neither.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use super::state::MIB;
use super::{Hand, Open};
use crate::fate::Trail;
use crate::id::ChildPath;
use crate::port::Back;

/// Requests that are kept for a replay after they were answered, of all children together, and what they may
/// weigh. As many as those whose effects are remembered: without these there is no replay.
pub(super) const REPLAYED: usize = 10_000;
pub(super) const REPLAYED_BYTES: usize = 16 * MIB;

/// In whose state, and after how many steps, the work of a request is.
#[derive(Default)]
pub(super) struct Works {
    by_key: HashMap<Arc<str>, (ChildPath, u64)>,
    /// In the order in which it came there. Each child of many looks for its own after a rollback.
    by_child: HashMap<ChildPath, BTreeSet<(u64, Arc<str>)>>,
}

impl Works {
    pub(super) fn get(&self, key: &str) -> Option<&(ChildPath, u64)> {
        self.by_key.get(key)
    }

    pub(super) fn insert(&mut self, key: &Arc<str>, (child, step): (ChildPath, u64)) {
        self.remove(key);
        self.by_child.entry(child.clone()).or_default().insert((step, Arc::clone(key)));
        self.by_key.insert(Arc::clone(key), (child, step));
    }

    pub(super) fn remove(&mut self, key: &str) {
        let Some((key, (child, step))) = self.by_key.remove_entry(key) else { return };
        if let Some(here) = self.by_child.get_mut(&child) {
            here.remove(&(step, key));
            if here.is_empty() {
                self.by_child.remove(&child);
            }
        }
    }

    /// What is in the state of this child.
    pub(super) fn all_of(&self, child: &ChildPath) -> Vec<(u64, Arc<str>)> {
        self.by_child.get(child).into_iter().flatten().cloned().collect()
    }

    /// What came into the state of this child after more than so many steps.
    pub(super) fn after(
        &self,
        child: &ChildPath,
        step: u64,
    ) -> impl Iterator<Item = &(u64, Arc<str>)> {
        let first = (step.saturating_add(1), Arc::from(""));
        self.by_child.get(child).into_iter().flat_map(move |here| here.range(first.clone()..))
    }
}

/// Requests that were answered, bounded: the oldest go.
#[derive(Default)]
pub(super) struct Past {
    kept: HashMap<Arc<str>, (u64, Open)>,
    order: VecDeque<(u64, Arc<str>)>,
    bytes: usize,
    next: u64,
}

impl Past {
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &Arc<str>> {
        self.kept.keys()
    }

    pub(super) fn get(&self, key: &str) -> Option<&Open> {
        self.kept.get(key).map(|(_, open)| open)
    }

    pub(super) fn keep(&mut self, open: &Open) {
        self.remove(&open.key);
        let (stamp, key) = (self.next, Arc::clone(&open.key));
        self.next += 1;
        self.bytes += weight(open);
        self.order.push_back((stamp, Arc::clone(&key)));
        // Handed over again it is nobody's who failed, and bound to no time.
        let (trail, back) = (Trail::default(), Back::default());
        let hand = Hand::default();
        let open = Open { deadline: None, trail, taken: 0, back, hand, ..open.clone() };
        self.kept.insert(key, (stamp, open));
        self.bound(REPLAYED, REPLAYED_BYTES);
        // Those that were removed in between leave their places behind.
        if self.order.len() > 2 * self.kept.len() + 64 {
            let kept = &self.kept;
            self.order.retain(|(stamp, key)| kept.get(key).is_some_and(|(at, _)| at == stamp));
        }
    }

    /// The older half goes.
    pub(super) fn halve(&mut self) {
        self.bound(self.kept.len() / 2, self.bytes / 2);
    }

    fn bound(&mut self, count: usize, bytes: usize) {
        while self.kept.len() > count || self.bytes > bytes {
            let Some((stamp, old)) = self.order.pop_front() else { break };
            if self.kept.get(&old).is_some_and(|(kept, _)| *kept == stamp) {
                self.remove(&old);
            }
        }
    }

    pub(super) fn remove(&mut self, key: &str) {
        if let Some((_, open)) = self.kept.remove(key) {
            self.bytes -= weight(&open);
        }
    }

    pub(super) fn retain(&mut self, mut is_needed: impl FnMut(&str) -> bool) {
        let gone: Vec<_> = self.kept.keys().filter(|key| !is_needed(key)).map(Arc::clone).collect();
        for key in gone {
            self.remove(&key);
        }
    }
}

fn weight(open: &Open) -> usize {
    open.request.len() + open.key.len()
}
