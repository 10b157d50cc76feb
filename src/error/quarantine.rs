//! Why something that was set aside stays as it is.
//!
//! *Invariant.* No variant holds what was asked.

use thiserror::Error;

use super::StoreError;
use crate::fault::Fault;
use crate::id::CheckpointId;

/// Why something that was set aside stays as it is.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum QuarantineError {
    /// No request with this id was set aside, or it has been released or discarded since.
    #[error("no request {0:?} is set aside")]
    NotFound(String),
    /// No request with this key has the fate `Unknown`, or it has been asked again since.
    #[error("request {0:?} has no unknown outcome")]
    NotInDoubt(String),
    /// No checkpoint with this id was set aside, or it has been released since.
    #[error("checkpoint {0} is not set aside")]
    NotBad(CheckpointId),
    /// An attempt that was given up still works on it, or its caller has not taken the answer yet. Try
    /// again later.
    #[error("request {0:?} is still in somebody's hands: try again later")]
    InUse(String),
    /// It is not taken.
    #[error("request {id:?} is not taken: {why}")]
    Refused {
        /// What it is released by.
        id: String,
        /// Who does not take it, and why.
        why: String,
    },
    /// What was asked cannot be written down.
    #[error("the request cannot be written down: {0}")]
    Export(String),
    /// The journal could not be written, so nothing has changed.
    #[error("the journal cannot be written: {0}")]
    Journal(Fault),
    /// The store that has the checkpoints failed.
    #[error("the store failed: {0}")]
    Store(#[from] StoreError),
}
