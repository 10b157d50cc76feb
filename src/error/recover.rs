//! Why a system was not recovered.
//!
//! *Invariant.* No variant holds what was asked.

use thiserror::Error;

use super::{CheckpointError, StartError, StoreError};
use crate::id::ChildPath;

/// Why a system could not take up what a store holds.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record of the journal cannot be read.
    #[error("record {position} of the journal: {why}")]
    Journal {
        /// Where it stands.
        position: u64,
        /// What is wrong.
        why: String,
    },
    /// The store belongs to a tree of another shape.
    #[error("the store belongs to another tree: {}", difference.join("; "))]
    Topology {
        /// What is different, a line each.
        difference: Vec<String>,
    },
    /// An accepted request cannot be delivered again: see
    /// [`RecoverOptions::set_unreadable_aside`](crate::system::RecoverOptions::set_unreadable_aside).
    #[error("the request {key:?} accepted by \"{child}\" cannot be delivered again: {why}")]
    Request {
        /// Who accepted it.
        child: ChildPath,
        /// Its idempotency key.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// A child's checkpoints cannot be read now, or this program does not understand them: the versions are
    /// named ([`RecoverOptions::give_up_states`](crate::system::RecoverOptions::give_up_states)).
    #[error("the state of \"{child}\": {why}")]
    State {
        /// The child.
        child: ChildPath,
        /// What is wrong.
        why: CheckpointError,
    },
    /// A child that was started from a template cannot be made again. With
    /// [`RecoverOptions::adopt_topology`](crate::system::RecoverOptions::adopt_topology) it is let go.
    #[error(
        "child \"{child}\" of template {template:?} of \"{supervisor}\" cannot be made again: {why}"
    )]
    Child {
        /// The child.
        child: ChildPath,
        /// Its template.
        template: String,
        /// Who had the template.
        supervisor: ChildPath,
        /// What is wrong.
        why: String,
    },
    /// The tree cannot be started.
    #[error(transparent)]
    Start(#[from] StartError),
}
