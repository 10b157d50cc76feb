//! What is asked of a rollback, and what is answered.
//!
//! *Invariant.* Plain data. An error says what to do next.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::checkpoint::{Refused, Scope};
use crate::error::{CheckpointError, ChildError, LookupError, StoreError};
use crate::id::{CheckpointId, ChildPath, EffectKey, LineId};

/// What to return to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// The newest line, or for a child the newest checkpoint, that is valid and was not returned to yet.
    Latest,
    /// This recovery line of a supervisor.
    Line(LineId),
    /// This checkpoint of a child.
    Checkpoint(CheckpointId),
}

/// What came of a rollback.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// The child or supervisor.
    pub at: ChildPath,
    /// The scope.
    pub scope: Scope,
    /// The line, for a supervisor.
    pub line: Option<LineId>,
    /// The children that have returned, with what they returned to; `None`: to the very beginning,
    /// since they had not lived yet when the line was drawn.
    pub children: Vec<(ChildPath, Option<CheckpointId>)>,
    /// Newer checkpoints that were refused, and why.
    pub refused: Vec<Refused>,
    /// Effects of requests that are open which stand. They are not repeated.
    pub kept: Vec<EffectKey>,
    /// Effects of requests that are open which were undone.
    pub undone: Vec<EffectKey>,
    /// Effects of requests that are open of which nobody knows, or whose undo failed.
    pub unknown: Vec<EffectKey>,
    /// Requests that were answered after what was returned to, in the order of their answers: before its next
    /// request each child handles them again, with the outcomes of their calls from the record
    /// ([`Event::Replayed`](crate::event::Event::Replayed) tells how that went). By child and idempotency key.
    pub replayed: Vec<(ChildPath, Arc<str>)>,
    /// Such requests that are not handled again, since they are not kept any more (the last 10,000 are, up to
    /// 16 MiB of what was asked) or their child acts on the world by itself: what they have done to the states
    /// is not there. By child and idempotency key, of the last 65,536 answers; a child that keeps no
    /// checkpoints is not known about.
    pub missing: Vec<(ChildPath, Arc<str>)>,
    /// How long it took.
    pub elapsed: Duration,
}

/// Where to go when a scope cannot be returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wider {
    /// The next wider scope.
    pub scope: Scope,
    /// The supervisor that has it, if the tree has one.
    pub at: Option<ChildPath>,
}

impl fmt::Display for Wider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.at {
            Some(at) => write!(f, "the {} scope of \"{at}\"", self.scope),
            None => write!(f, "the {} scope, which no supervisor above has", self.scope),
        }
    }
}

fn next(wider: Option<&Wider>) -> String {
    wider.map_or_else(|| "there is no wider scope".to_owned(), |wider| format!("next is {wider}"))
}

fn list(refused: &[Refused]) -> String {
    let each: Vec<_> = refused.iter().map(ToString::to_string).collect();
    if each.is_empty() { "there is none".to_owned() } else { each.join("; ") }
}

/// Why a line was not drawn, or a rollback not made. Unless it says otherwise, nothing was stopped.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum RollbackError {
    /// Nothing has this path.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The system was started without a store.
    #[error("there is no store; use System::recover")]
    NoStore,
    /// Nothing at or below the path is durable, stateful, and gives snapshots.
    #[error("\"{0}\" has no durable child with a state")]
    NoState(ChildPath),
    /// A new life of a child could not be made, as user code panicked: a [`CheckpointError::NoLife`], which names it
    /// and its text. No state is at fault, and none was set aside.
    #[error("{0}; no state is at fault")]
    NoLife(CheckpointError),
    /// A line was asked of a child, or a checkpoint of a supervisor.
    #[error("\"{at}\" is {found}; {wanted}")]
    WrongTarget {
        /// The path.
        at: ChildPath,
        /// What is there.
        found: &'static str,
        /// What can be asked of it.
        wanted: &'static str,
    },
    /// There is no such line at this place.
    #[error("{line} is no line of \"{at}\"")]
    NoLine {
        /// The line.
        line: LineId,
        /// The supervisor.
        at: ChildPath,
    },
    /// What was named cannot be restored.
    #[error("{0}")]
    Refused(Box<Refused>),
    /// Nothing that is stored can be restored.
    #[error("nothing valid for the {scope} scope of \"{at}\": {}; {}", list(.refused), next(.wider.as_ref()))]
    NoneValid {
        /// The child or supervisor.
        at: ChildPath,
        /// Its scope.
        scope: Scope,
        /// What was refused, the newest first.
        refused: Vec<Refused>,
        /// Where to go next.
        wider: Option<Wider>,
    },
    /// The scope's limit is over. When the restart had begun, it goes on without anybody waiting.
    #[error("the {scope} scope of \"{at}\" was not done within {limit:?} (while {phase}); {}", next(.wider.as_ref()))]
    TooLate {
        /// The child or supervisor.
        at: ChildPath,
        /// Its scope.
        scope: Scope,
        /// Its limit.
        limit: Duration,
        /// What took too long.
        phase: &'static str,
        /// Where to go next.
        wider: Option<Wider>,
    },
    /// The scope is one of high risk, and the system wants it approved.
    #[error(
        "a rollback of the {scope} scope of \"{at}\" has to be approved; use RollbackOptions::approved_by"
    )]
    NeedsApproval {
        /// The child or supervisor.
        at: ChildPath,
        /// Its scope.
        scope: Scope,
    },
    /// It has returned already since the request failed that asked for it.
    #[error("\"{0}\" has returned since the request failed")]
    Returned(ChildPath),
    /// Nobody waits any more for the request that asked for it.
    #[error("nobody waits for the request that would have \"{0}\" return")]
    Unwanted(ChildPath),
    /// The supervisor was to stop and start the children, and a life that was to follow did not begin, or the
    /// system is about to end. What goes on does so from what was returned to.
    #[error("the restart failed: {0}")]
    Restart(ChildError),
    /// The store could not be read or written. When the restart had been made, it stands.
    #[error("{0}")]
    Store(CheckpointError),
}

/// What a rollback does before it changes anything.
pub(super) const BEFORE: [&str; 3] =
    ["waiting for another rollback", "making the lives that follow", WAITING];
/// It may be that a sibling has failed just now.
pub(super) const WAITING: &str = "waiting for its supervisor, which restarts its children";

impl RollbackError {
    /// Whether a rollback was begun and did not come to its end, and not merely asked for in the wrong way.
    pub(super) const fn has_tried(&self) -> bool {
        match self {
            Self::Refused(_)
            | Self::NoneValid { .. }
            | Self::NoLife(_)
            | Self::TooLate { .. }
            | Self::Restart(_)
            | Self::Store(_) => true,
            Self::Lookup(_)
            | Self::NoStore
            | Self::NoState(_)
            | Self::WrongTarget { .. }
            | Self::NoLine { .. }
            | Self::Returned(_)
            | Self::Unwanted(_)
            | Self::NeedsApproval { .. } => false,
        }
    }

    /// Whether children are being changed all the same.
    pub(super) fn goes_on(&self) -> bool {
        matches!(self, Self::TooLate { phase, .. } if !BEFORE.contains(phase))
    }
}

impl From<StoreError> for RollbackError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.into())
    }
}
