//! Requests that were answered and whose work is in no state any more.
//!
//! *Invariant.* Somebody is told of each, and lives on for a while or ends in order: a process that is killed before
//! that has told nobody, for all that is known, and the next one tells them again.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::{Journal, state};
use crate::checkpoint::{Batch, Commit};
use crate::id::ChildPath;

/// How many requests whose work is lost are remembered.
const LOST: usize = 10_000;
/// How long a process has to live on after it has named them. Enough to write it down or to say it, and little beside
/// the hour in which somebody reads it.
pub(crate) const HEARD_AFTER: Duration = Duration::from_secs(10);

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

    /// The work of these is in no state any more, which somebody is still to be told.
    pub(crate) fn is_missing(&self, keys: &[Arc<str>]) -> Commit {
        let mut state = self.state.lock();
        state.note_missing(keys);
        self.say_returned(state::returned(&[], keys, &[]), Batch::new())
    }

    /// Whoever asked for it is told now that the work of these is in no state any more.
    pub(crate) fn tells(self: &Arc<Self>, runtime: &Handle, keys: Vec<Arc<str>>) {
        if keys.is_empty() {
            return;
        }
        self.named.lock().extend(keys.iter().cloned());
        let limit = self.clock.sleep_until(self.clock.now() + HEARD_AFTER);
        // The store is free once the system is gone, whoever has heard of what.
        let journal = Arc::downgrade(self);
        runtime.spawn(async move {
            limit.await;
            if let Some(journal) = journal.upgrade() {
                {
                    let mut named = journal.named.lock();
                    for key in &keys {
                        named.remove(key);
                    }
                }
                // When it cannot be written they are told twice.
                drop(journal.told_missing(&keys).await);
            }
        });
    }

    /// What was named to somebody who has not been seen to hear it.
    pub(super) fn named(&self) -> Vec<Arc<str>> {
        self.named.lock().iter().cloned().collect()
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
