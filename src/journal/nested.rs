//! Requests that were asked for by a step of another request, under keys that follow from that one's.
//!
//! *Invariant.* What a request asked for is let go of in one commit with whatever makes it ask anew.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::line::Line;
use super::{Journal, append};
use crate::checkpoint::Batch;
use crate::error::StoreError;

/// The keys that may follow from those of other requests: of very many, those that follow from one are found
/// without a look at the others.
#[derive(Default)]
pub(super) struct Nested(BTreeSet<Arc<str>>);

impl Nested {
    pub(super) fn put(&mut self, key: &Arc<str>) {
        if key.contains('/') {
            self.0.insert(Arc::clone(key));
        }
    }

    pub(super) fn remove(&mut self, key: &str) {
        if !self.0.is_empty() && key.contains('/') {
            self.0.remove(key);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Those that begin with this key and a slash, in their order.
    pub(super) fn below(&self, task: &str) -> impl Iterator<Item = &Arc<str>> {
        let from = format!("{task}/");
        let all = self.0.range::<str, _>((Bound::Included(&*from), Bound::Unbounded));
        all.take_while(move |key| key.starts_with(&*from))
    }
}

impl Journal {
    /// What was asked for by this request, by what that asked for, and so on; and whether it was answered.
    pub(crate) fn nested(&self, task: &str) -> Vec<(Arc<str>, bool)> {
        self.state.lock().asked(task)
    }

    /// Nothing is said of these any more, from now on here, and in the store once the batch is committed.
    pub(crate) fn without(&self, keys: &[Arc<str>], mut batch: Batch) -> Result<Batch, StoreError> {
        let mut state = self.state.lock();
        for key in keys {
            state.let_go(key);
            batch = append(batch, &Line::Withdrawn { key: Arc::clone(key) })?;
        }
        self.written.fetch_add(keys.len() as u64, Ordering::Relaxed);
        Ok(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_a_key_is_found_among_its_neighbours() {
        let mut nested = Nested::default();
        let keys = ["a", "a/", "a/1", "a/1/2", "a/2", "a-/1", "a0/1", "ab/1", "b"].map(Arc::from);
        keys.iter().for_each(|key| nested.put(key));
        let below = |nested: &Nested, task: &str| -> Vec<String> {
            nested.below(task).map(|key| key.to_string()).collect()
        };
        assert_eq!(below(&nested, "a"), ["a/", "a/1", "a/1/2", "a/2"]);
        assert_eq!(below(&nested, "a/1"), ["a/1/2"]);
        assert!(below(&nested, "b").is_empty() && below(&nested, "").is_empty());
        nested.remove("a/1/2");
        assert_eq!(below(&nested, "a"), ["a/", "a/1", "a/2"]);
    }
}
