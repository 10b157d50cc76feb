//! One child's record.
//!
//! *Invariant.* A child is in at most one run, and its phase names it.

use std::sync::Arc;

use crate::id::Incarnation;

use super::limit::Log;
use super::words::{ChildOptions, ChildStatus, RestartType, RunId, Token};

/// What the family keeps of a child.
#[derive(Clone, Debug)]
pub(super) struct Child {
    pub(super) id: Arc<str>,
    pub(super) options: ChildOptions,
    /// The life that is up, or the last one that was handed to a run.
    pub(super) incarnation: Incarnation,
    pub(super) phase: Phase,
    /// It was started while an earlier life of the supervisor ran, and has not been up in this one: neither the boot
    /// nor what the family is allowed depends on it.
    pub(super) kept: bool,
    /// It was `kept` when it was last said to be up. A lazy one is said to be before it has begun: that it was not is
    /// known by its end.
    pub(super) untried: bool,
    /// Its own restarts; only where a limit or a backoff asks for them.
    pub(super) log: Option<Box<Log>>,
}

impl Child {
    pub(super) fn is_temporary(&self) -> bool {
        self.options.restart == RestartType::Temporary
    }
}

/// Where a child stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not running, and nothing will start it but what `Rest` says.
    Idle(Rest),
    /// Running.
    Up,
    /// Dead; it starts again by itself when this timer is due.
    Backoff(Token),
    /// Dead; it starts again with the restart of its siblings.
    Held,
    /// An operator wants it started, which has to wait for the siblings.
    Queued,
    /// In the start list of this run. Up, dead, or still the life before: only the runner knows.
    Starting(RunId),
    /// In the stop list of this run, and not in its start list.
    Stopping(RunId, Then),
}

/// Why a child is not running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Never started, or ended by itself. A restart of its siblings takes it along.
    Ended,
    /// An operator stopped it, and only an operator starts it.
    Terminated,
    /// It crashed too often, and only an operator starts it.
    Quarantined,
}

/// What becomes of a child once it is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// It rests, as an operator wished.
    Rest,
    /// It is removed with its spec.
    Remove,
    /// It starts again with its siblings.
    Hold,
    /// The start an operator asked for is done again.
    Queue,
}

impl Phase {
    /// Whether the child counts as one that still does its work, or will again.
    pub(super) const fn is_alive(self) -> bool {
        !matches!(self, Self::Idle(_) | Self::Stopping(_, Then::Rest | Then::Remove))
    }

    /// Whether a life of it may be up.
    pub(super) const fn may_be_up(self) -> bool {
        matches!(self, Self::Up | Self::Starting(_) | Self::Stopping(..))
    }

    /// What the world is told; `first` when the run of a `Starting` is an operator's or the boot.
    pub(super) const fn status(self, first: bool) -> ChildStatus {
        match self {
            Self::Idle(Rest::Quarantined) => ChildStatus::Quarantined,
            Self::Idle(_) => ChildStatus::Stopped,
            Self::Up => ChildStatus::Running,
            Self::Queued | Self::Stopping(_, Then::Queue) => ChildStatus::Starting,
            Self::Starting(_) if first => ChildStatus::Starting,
            Self::Backoff(_) | Self::Held | Self::Starting(_) | Self::Stopping(_, Then::Hold) => {
                ChildStatus::Restarting
            }
            Self::Stopping(..) => ChildStatus::Stopping,
        }
    }
}
