//! What the ledger asks of the journal: that its records are kept, and what is known of requests.
//!
//! *Invariant.* Nobody is told that something is kept before the store has said so.

use std::pin::Pin;
use std::sync::Arc;

use super::line::Line;
use super::{Journal, Journaled, KEPT_WITHIN, failed, late};
use crate::checkpoint::{Batch, Durability};
use crate::effects::{Asked, Keep, Keeping};
use crate::fate::{Fate, Given};
use crate::ledger::Record;

impl Keep for Journal {
    fn keep(&self, record: Record) -> Keeping {
        // The ledger has changed already: a journal that is being written anew either has this change, too,
        // or is handed over first.
        let state = self.state.lock();
        let commit = self.commit(Batch::new(), &Line::from(record), Durability::Sync);
        drop(state);
        let limit = self.clock.sleep_until(self.clock.now() + KEPT_WITHIN);
        Box::pin(async move {
            tokio::select! {
                biased;
                kept = commit => kept.map(drop).map_err(|error| failed(&error)),
                () = limit => Err(late(KEPT_WITHIN)),
            }
        })
    }

    fn known(&self, key: &str) -> Option<Asked> {
        let Some(known) = Self::known(self, key) else {
            // About to be accepted, it is as if it were open: whoever asks waits for what becomes of that.
            return (!self.state.lock().is_free(key)).then_some(Asked::Open);
        };
        Some(match known {
            Journaled::Open => Asked::Open,
            Journaled::Fated(Fate::Done, reply) => Asked::Done(reply),
            Journaled::Fated(Fate::Quarantined, _) => Asked::Aside,
            Journaled::Fated(fate, _) => Asked::Over(fate),
        })
    }

    fn given(&self, key: &str) -> Given {
        self.state.lock().given(key).cloned().unwrap_or_default()
    }

    fn is_certain(&self, key: &str) -> bool {
        self.state.lock().is_certain(key)
    }

    fn free(self: Arc<Self>, key: &Arc<str>) -> Keeping {
        let freed = self.freed(key);
        Box::pin(async move { freed.await.map_err(|error| failed(&error)) })
    }

    fn asked_by(&self, task: &str) -> Vec<(Arc<str>, bool)> {
        self.nested(task)
    }

    fn let_go(&self, keys: &[Arc<str>]) -> Keeping {
        let commit = self.without(keys, Batch::new());
        let commit = commit.map(|batch| self.store.commit(batch, Durability::Sync));
        Box::pin(async move {
            let kept = match commit {
                Ok(commit) => commit.await.map(drop),
                Err(error) => Err(error),
            };
            kept.map_err(|error| failed(&error))
        })
    }

    fn told(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let mut told = Box::pin(self.changed.notified());
        // From now on, and not from when it is waited for.
        told.as_mut().enable();
        told
    }

    fn note(&self, record: Record) {
        // Nobody can wait for it: what is not written is found out again by whoever asks next.
        let _state = self.state.lock();
        drop(self.commit(Batch::new(), &Line::from(record), Durability::Async));
    }
}
