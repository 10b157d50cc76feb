//! Where things lie that were set aside: in a store that nobody works with, or in a tree at work.
//!
//! *Invariant.* Both say the same of the same thing.

use std::sync::Arc;

use mainstay::checkpoint::Listed;
use mainstay::error::QuarantineError;
use mainstay::id::{CheckpointId, ChildPath};
use mainstay::quarantine::Quarantined;
use mainstay::system::{EffectsRef, System, Upkeep};

pub(super) enum Shelf {
    Store(Upkeep),
    Live(System),
}

impl Shelf {
    /// How a request, a checkpoint and an effect are dealt with.
    pub(super) const fn how(&self) -> [&'static str; 3] {
        match self {
            Self::Store(_) => [
                "release KEY | discard KEY",
                "release KEY | release-checkpoints CHILD | discard KEY",
                "settle KEY happened [RESULT] | did-not-happen | undone | stands",
            ],
            Self::Live(_) => [
                "/aside release KEY | discard KEY",
                "/aside release KEY | release-checkpoints CHILD",
                "/effects says how",
            ],
        }
    }

    /// Whether anything was set aside.
    pub(super) fn holds_something(&self) -> bool {
        !self.requests().is_empty() || self.checkpoints().is_ok_and(|bad| !bad.is_empty())
    }

    /// Requests that were accepted and have no fate yet.
    pub(super) fn open_requests(&self) -> u64 {
        match self {
            Self::Store(upkeep) => upkeep.open_requests() as u64,
            Self::Live(system) => system.fates().open,
        }
    }

    pub(super) fn requests(&self) -> Vec<Quarantined> {
        match self {
            Self::Store(upkeep) => upkeep.requests(),
            Self::Live(system) => system.quarantine().requests(),
        }
    }

    pub(super) fn checkpoints(&self) -> Result<Vec<Listed>, QuarantineError> {
        match self {
            Self::Store(upkeep) => upkeep.checkpoints(),
            Self::Live(system) => system.quarantine().checkpoints(),
        }
    }

    pub(super) fn effects(&self) -> EffectsRef {
        match self {
            Self::Store(upkeep) => upkeep.effects(),
            Self::Live(system) => system.effects(),
        }
    }

    pub(super) fn export(&self, id: &str) -> Result<String, QuarantineError> {
        match self {
            Self::Store(upkeep) => upkeep.export(id),
            Self::Live(system) => system.quarantine().export(id),
        }
    }

    pub(super) fn export_checkpoint(&self, id: CheckpointId) -> Result<Vec<u8>, QuarantineError> {
        match self {
            Self::Store(upkeep) => upkeep.export_checkpoint(id),
            Self::Live(system) => system.quarantine().export_checkpoint(id),
        }
    }

    pub(super) async fn release(&self, id: &str) -> Result<(), QuarantineError> {
        match self {
            Self::Store(upkeep) => upkeep.release(id).await,
            Self::Live(system) => system.quarantine().release(id).await.map(drop),
        }
    }

    pub(super) async fn discard(&self, id: &str) -> Result<(), QuarantineError> {
        match self {
            Self::Store(upkeep) => upkeep.discard(id).await,
            Self::Live(system) => system.quarantine().discard(id).await,
        }
    }

    pub(super) async fn release_checkpoint(&self, id: CheckpointId) -> Result<(), QuarantineError> {
        match self {
            Self::Store(upkeep) => upkeep.release_checkpoint(id).await,
            Self::Live(system) => system.quarantine().release_checkpoint(id).await,
        }
    }

    pub(super) async fn release_checkpoints(
        &self,
        child: &ChildPath,
    ) -> Result<Vec<CheckpointId>, QuarantineError> {
        match self {
            Self::Store(upkeep) => upkeep.release_checkpoints(child).await,
            Self::Live(system) => system.quarantine().release_checkpoints(child).await,
        }
    }

    /// Requests that may have been done. A tree at work has told them when it began.
    pub(super) fn in_doubt(&self) -> Vec<Arc<str>> {
        match self {
            Self::Store(upkeep) => upkeep.in_doubt(),
            Self::Live(_) => Vec::new(),
        }
    }

    pub(super) async fn did_not_happen(&self, key: &str) -> Result<(), QuarantineError> {
        match self {
            Self::Store(upkeep) => upkeep.did_not_happen(key).await,
            Self::Live(system) => system.did_not_happen(key).await,
        }
    }
}
