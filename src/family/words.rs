//! What a supervisor is told and what it says: options, inputs, outputs.
//!
//! *Invariant.* Plain data. Nothing here decides.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{ChildError, StartError};
use crate::fault::ExitCause;
use crate::id::Incarnation;
use crate::moment::Moment;

use super::limit::Limit;

/// A child within its supervisor. Grows with each child and is never used again, so that the order
/// of keys is the order of starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key(pub u32);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "k{}", self.0)
    }
}

/// One hand-out of stops and starts to a runner. Grows with each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(pub u64);

/// One timer. Comes back in [`Input::Due`]; an old one changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

impl Token {
    /// The child whose end made the wait necessary.
    pub const fn child(self) -> Key {
        Key(self.0 as u32)
    }
}

/// One question of an operator. Chosen by whoever asks, and handed back with the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Who starts again when one child has to.
///
/// Ordered from narrow to wide: `OneForOne < RestForOne < OneForAll`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The child alone.
    #[default]
    OneForOne,
    /// The child and the siblings that were started after it.
    RestForOne,
    /// The child and all its siblings.
    OneForAll,
}

impl Strategy {
    /// The name in specs and dumps: `one_for_one`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OneForOne => "one_for_one",
            Self::RestForOne => "rest_for_one",
            Self::OneForAll => "one_for_all",
        }
    }

    /// Who starts again when a class has opted for the siblings of its child: those that this strategy
    /// names, and where it names none, all of them, since otherwise the wish would mean nothing.
    #[must_use]
    pub const fn with_siblings(self) -> Self {
        match self {
            Self::OneForOne | Self::OneForAll => Self::OneForAll,
            Self::RestForOne => Self::RestForOne,
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// After which ends a child is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartType {
    /// After every end.
    #[default]
    Permanent,
    /// After every end that is not normal ([`ExitCause::is_normal`]).
    Transient,
    /// Never: when it ends, it is removed with its spec.
    Temporary,
}

impl RestartType {
    /// The name in specs and dumps: `permanent`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Permanent => "permanent",
            Self::Transient => "transient",
            Self::Temporary => "temporary",
        }
    }

    /// Whether a child of this type is started again after such an end.
    ///
    /// | | normal | abnormal |
    /// |---|---|---|
    /// | permanent | yes | yes |
    /// | transient | no | yes |
    /// | temporary | no | no |
    pub const fn restarts_after(self, cause: &ExitCause) -> bool {
        match self {
            Self::Permanent => true,
            Self::Transient => !cause.is_normal(),
            Self::Temporary => false,
        }
    }
}

impl fmt::Display for RestartType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How long a child may take to stop. Data for whoever stops it; the family does not read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shutdown {
    /// No time: it is killed.
    Brutal,
    /// It is asked, and killed when this much time has passed.
    Timeout(Duration),
    /// It is asked and waited for. Right for supervisors, dangerous for anything else.
    Infinity,
}

impl Default for Shutdown {
    /// Five seconds, as in OTP.
    fn default() -> Self {
        Self::Timeout(Duration::from_secs(5))
    }
}

/// Whether a supervisor ends when its significant children have ended by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AutoShutdown {
    /// It does not.
    #[default]
    Never,
    /// With the first that ends.
    AnySignificant,
    /// With the last that ends.
    AllSignificant,
}

/// How a supervisor treats its children.
///
/// # Default
/// `one_for_one`, one restart in five seconds (as in OTP), no limit for a single child, no automatic
/// shutdown, no limit on the number of children, stops one after another, restarts at once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FamilyOptions {
    /// Who starts again when one child has to.
    pub strategy: Strategy,
    /// At most this many restarts; one more ends the supervisor with [`ExitCause::Intensity`].
    pub intensity: Limit,
    /// At most this many restarts of one child; one more sets the child aside (quarantine) while its
    /// siblings go on. `None`: no such limit.
    pub child_limit: Option<Limit>,
    /// Whether the supervisor ends with its significant children.
    pub auto_shutdown: AutoShutdown,
    /// At most this many children, stopped ones and those between two lives included; `start_child`
    /// is refused beyond. `None`: no limit.
    pub max_children: Option<usize>,
    /// Whether the supervisor's own end stops all children at the same time instead of one after
    /// another. Restarts of siblings are never parallel; what is stopped in a hurry ([`Input::Reset`]) is, in
    /// a family of [`Strategy::OneForOne`], whose children say that they do without each other.
    pub parallel_stop: bool,
    /// How long to wait before a restart: `(base, max)`. The first restart of a child within the
    /// intensity's period waits `base`, each further one twice as long as the one before, at most
    /// `max`. `None`: at once.
    pub backoff: Option<(Duration, Duration)>,
}

/// How one child is treated.
///
/// # Default
/// Permanent, not significant, not a supervisor, the family's limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildOptions {
    /// After which ends it is started again.
    pub restart: RestartType,
    /// Whether its own end may end the supervisor ([`AutoShutdown`]).
    pub significant: bool,
    /// Whether it is a supervisor itself; for counts and dumps.
    pub is_supervisor: bool,
    /// Its own limit, instead of [`FamilyOptions::child_limit`].
    pub child_limit: Option<Limit>,
}

/// What happened, or what somebody wants.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Start the children added with [`super::Family::add_static`]. A second one changes nothing.
    Boot,
    /// Add a child and start it. When no refusal comes back at once, the child has its key
    /// ([`super::Family::key_of`]) although its start may have to wait.
    Start {
        /// Whom to answer.
        ticket: Ticket,
        /// The child's id.
        id: Arc<str>,
        /// How it is treated.
        options: ChildOptions,
        /// Its last life, [`Incarnation::NONE`] for a new child.
        last: Incarnation,
    },
    /// Stop a child and keep its spec; a temporary one is removed.
    Terminate {
        /// Whom to answer.
        ticket: Ticket,
        /// The child.
        id: Arc<str>,
    },
    /// Start a stopped or quarantined child, with a clean record.
    Restart {
        /// Whom to answer.
        ticket: Ticket,
        /// The child.
        id: Arc<str>,
    },
    /// Remove a stopped child.
    Delete {
        /// Whom to answer.
        ticket: Ticket,
        /// The child.
        id: Arc<str>,
    },
    /// Stop and start again what runs, in order and uncounted: a rollback. Temporary children of a
    /// family that is reset as a whole are removed, as by a restart of siblings.
    Reset {
        /// Whom to answer, once all are up again.
        ticket: Ticket,
        /// One child; `None`: all of them.
        id: Option<Arc<str>>,
        /// Nobody is waited for longer than until then.
        until: Option<Moment>,
    },
    /// A life has ended.
    Exited {
        /// The child.
        key: Key,
        /// Which life.
        incarnation: Incarnation,
        /// Why.
        cause: ExitCause,
        /// A wider strategy than the family's for this one exit. A narrower one changes nothing.
        widen: Option<Strategy>,
    },
    /// A run has ended.
    RunDone {
        /// Which.
        run: RunId,
        /// `Err`: everything was stopped, this child of the run did not start, those before it are up,
        /// those after it were not tried.
        result: Result<(), (Key, ExitCause)>,
    },
    /// A timer is due.
    Due {
        /// Which.
        token: Token,
    },
    /// End the supervisor.
    Stop {
        /// Why; comes back in [`Output::Finished`].
        cause: ExitCause,
        /// Nobody is waited for longer than until then: it is stopped for a reset further up.
        until: Option<Moment>,
    },
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Stop these children, then start those, then say [`Input::RunDone`].
    Run {
        /// The name of the run.
        run: RunId,
        /// Whom to stop, in this order, and whether a restart follows. A child that is not up (any
        /// more) counts as stopped.
        stop: Vec<(Key, bool)>,
        /// Whether all may be stopped at the same time.
        parallel: bool,
        /// Until when the stops may take, whatever the children's own limits; `None`: as long as those.
        until: Option<Moment>,
        /// Whom to start, in this order, and as which life. The first that fails ends the run.
        start: Vec<(Key, Incarnation)>,
    },
    /// Break this run off and do nothing more for it. What it may have started is stopped by a later
    /// run.
    CancelRun(RunId),
    /// Say [`Input::Due`] at this moment.
    Arm {
        /// The timer.
        token: Token,
        /// When.
        at: Moment,
    },
    /// A child is set aside: it has crashed too often. It keeps its spec.
    Quarantined {
        /// The child.
        key: Key,
        /// Its last end.
        cause: ExitCause,
    },
    /// A child has come to rest, and nothing starts it but an operator or a restart of its siblings:
    /// it ended by itself, or an operator could not start it. It keeps its spec.
    Rests {
        /// The child.
        key: Key,
        /// Its last end.
        cause: ExitCause,
    },
    /// A child is gone with its spec.
    Removed {
        /// The child.
        key: Key,
        /// Its id, free again.
        id: Arc<str>,
    },
    /// An answer.
    Reply {
        /// To whom.
        ticket: Ticket,
        /// What.
        reply: Reply,
    },
    /// For events: a restart has been decided and counted.
    Restarting {
        /// The child that made it necessary.
        key: Key,
        /// Its end.
        cause: ExitCause,
        /// How many children it starts again, this one included.
        scope: usize,
        /// Restarts counted within the period of the intensity, this one included.
        restarts: u32,
    },
    /// All static children are up.
    Booted,
    /// The supervisor has ended; nothing of it is up. Said once, and last.
    Finished {
        /// Why.
        cause: ExitCause,
        /// The child that did not start, when that is why.
        start_error: Option<StartError>,
    },
}

/// An answer to a [`Ticket`].
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// The child is up.
    Started(Key),
    /// The child is stopped.
    Terminated,
    /// The child is up again.
    Restarted,
    /// The child is removed.
    Deleted,
    /// What ran has been started again.
    Reset,
    /// The child was not started, and is not kept unless it was there before.
    StartRefused(StartError),
    /// Nothing was done.
    ChildRefused(ChildError),
}

/// What a child does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ChildStatus {
    /// It is to be started for the first time, or by an operator.
    Starting,
    /// It is up.
    Running,
    /// It is between two lives: being stopped for a restart, waiting for one, or being started.
    Restarting,
    /// It is being stopped for good.
    Stopping,
    /// It is stopped: never started, ended by itself, or terminated.
    Stopped,
    /// It has crashed too often and waits for an operator.
    Quarantined,
}

impl ChildStatus {
    /// The name in dumps: `running`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Restarting => "restarting",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Quarantined => "quarantined",
        }
    }
}

impl fmt::Display for ChildStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A child as the supervisor sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct ChildInfo {
    /// The child.
    pub key: Key,
    /// Its id.
    pub id: Arc<str>,
    /// What it does.
    pub status: ChildStatus,
    /// Its present or last life.
    pub incarnation: Incarnation,
    /// How it is treated.
    pub options: ChildOptions,
}

/// How many children there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildCounts {
    /// All, whether they run or not.
    pub specs: usize,
    /// Those that are up.
    pub active: usize,
    /// Those that are supervisors, whether they run or not.
    pub supervisors: usize,
    /// Those that are not, whether they run or not.
    pub workers: usize,
}
