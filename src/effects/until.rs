//! For how long tools are waited for, where others wait meanwhile; and what was not undone by then.
//!
//! *Invariant.* Nothing that was written down, or is being written down, is given up half-way: only waiting is.

use std::sync::Arc;
use std::time::Duration;

use super::Effects;
use crate::clock::Clock;
use crate::ledger::{EffectKey, EffectStatus, Entry};
use crate::moment::Moment;

/// Until when somebody is waited for.
#[derive(Clone)]
pub(crate) struct Until {
    clock: Arc<dyn Clock>,
    at: Moment,
}

impl Until {
    /// From now on for so long.
    pub(crate) fn new(clock: &Arc<dyn Clock>, limit: Duration) -> Self {
        Self { clock: Arc::clone(clock), at: clock.now() + limit }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.clock.now() >= self.at
    }

    /// What comes of this until then; without an end, whenever that is.
    pub(super) async fn bound<T>(until: Option<&Self>, work: impl Future<Output = T>) -> Option<T> {
        let Some(until) = until else { return Some(work.await) };
        tokio::select! {
            biased;
            done = work => Some(done),
            () = until.clock.sleep_until(until.at) => None,
        }
    }
}

impl Effects {
    /// The effect once nobody is at work on it any more, or as it is when the time is over.
    pub(super) async fn at_rest_until(
        &self,
        key: EffectKey,
        until: Option<&Until>,
    ) -> Option<Entry> {
        match Until::bound(until, self.at_rest_unless_stopping(key)).await {
            Some(entry) => entry,
            None => self.ledger.lock().get(key).cloned(),
        }
    }

    /// Whether its undo was begun and has no end.
    pub(super) fn is_compensating(&self, key: EffectKey) -> bool {
        let ledger = self.ledger.lock();
        ledger.get(key).is_some_and(|entry| entry.status == EffectStatus::Compensating)
    }

    /// Whether its undo was begun and did not succeed.
    pub(super) fn is_stuck(&self, key: EffectKey) -> bool {
        let ledger = self.ledger.lock();
        ledger.get(key).is_some_and(|entry| {
            matches!(entry.status, EffectStatus::Compensating | EffectStatus::Stuck(_))
        })
    }
}
