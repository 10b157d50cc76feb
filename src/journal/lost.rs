//! Requests that were answered and whose work is in no state any more.
//!
//! *Invariant.* Somebody is told of each, and once, as far as the store says that it was told.

use std::sync::Arc;

use super::{Journal, state};
use crate::checkpoint::{Batch, Commit};
use crate::id::ChildPath;

/// How many requests whose work is lost are remembered.
const LOST: usize = 10_000;

impl Journal {
    /// The work of these requests could not be brought back into the child's state.
    pub(crate) fn note_lost(&self, child: &ChildPath, keys: Vec<Arc<str>>) {
        let mut lost = self.lost.lock();
        lost.extend(keys.into_iter().map(|key| (child.clone(), key)));
        let over = lost.len().saturating_sub(LOST);
        lost.drain(..over);
    }

    /// Whose work is in no state any more, as far as nobody was told.
    pub(crate) fn untold(&self) -> Vec<(ChildPath, Arc<str>)> {
        self.state.lock().untold()
    }

    /// Somebody was told that the work of these is in no state any more: those who follow are not.
    pub(crate) fn told_missing(&self, keys: &[Arc<str>]) -> Commit {
        let mut state = self.state.lock();
        state.note_missing(keys);
        state.note_replayed(keys);
        self.say_returned(state::returned(&[], keys, keys), Batch::new())
    }

    pub(crate) fn lost(&self) -> Vec<(ChildPath, Arc<str>)> {
        self.lost.lock().iter().cloned().collect()
    }
}
