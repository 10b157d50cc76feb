//! Requests that were asked for by a step of another request, under keys that follow from that one's.
//!
//! *Invariant.* What a request asked for is let go of in one commit with whatever makes it ask anew.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::line::Line;
use super::{Journal, append};
use crate::checkpoint::Batch;
use crate::error::StoreError;

impl Journal {
    /// What was asked for by this request, by what that asked for, and so on; and whether it was answered.
    pub(crate) fn nested(&self, task: &str) -> Vec<(Arc<str>, bool)> {
        let state = self.state.lock();
        let below = |key: &str| key.strip_prefix(task).is_some_and(|rest| rest.starts_with('/'));
        let asked = state.asked().filter(|(key, _)| below(key));
        asked.map(|(key, answered)| (Arc::clone(key), answered)).collect()
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
