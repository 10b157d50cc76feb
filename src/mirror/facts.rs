//! The words of the mirror: what kind of node, in which state, and what there is to say about it.
//!
//! *Invariant.* Plain data without user data: paths, states, numbers, class and code names.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fate::Ended;
use crate::id::{ChildPath, Delivery, LineId, RequestId};
use crate::moment::Moment;

/// What a node of the tree is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
#[non_exhaustive]
pub enum Kind {
    /// Starts, watches and restarts its children.
    Supervisor,
    /// Siblings that stand in for each other.
    Group,
    /// A behavior with state that lives across requests.
    Stateful,
    /// A behavior without.
    Stateless,
    /// An agent.
    Agent,
    /// A model endpoint.
    Model,
    /// A tool.
    Tool,
    /// A step of a flow, or a simpler one in its place.
    Step,
    /// A source of data.
    Data,
    /// A default output that cannot fail.
    Output,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Supervisor,
        Self::Group,
        Self::Stateful,
        Self::Stateless,
        Self::Agent,
        Self::Model,
        Self::Tool,
        Self::Step,
        Self::Data,
        Self::Output,
    ];

    /// The name in dumps.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Supervisor => "supervisor",
            Self::Group => "group",
            Self::Stateful => "stateful",
            Self::Stateless => "stateless",
            Self::Agent => "agent",
            Self::Model => "model",
            Self::Tool => "tool",
            Self::Step => "step",
            Self::Data => "data",
            Self::Output => "output",
        }
    }

    /// Whether nodes of this kind have children.
    pub const fn is_branch(self) -> bool {
        matches!(self, Self::Supervisor | Self::Group)
    }

    pub(super) const fn from_code(code: u8) -> Self {
        if (code as usize) < Self::ALL.len() { Self::ALL[code as usize] } else { Self::Stateless }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a child is doing.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
#[non_exhaustive]
pub enum ChildState {
    /// Started on its first request, which has not come.
    #[default]
    Unstarted = 1,
    /// A life is starting.
    Starting,
    /// Alive, nothing to do.
    Idle,
    /// Alive and at work.
    Busy,
    /// Waiting before the next attempt or the next life.
    BackingOff,
    /// Alive, waiting for calls it made to other children, or for what is to be decided about a request that failed.
    Waiting,
    /// Asked to stop, not gone yet.
    Stopping,
    /// Between two lives.
    Restarting,
    /// Not running; may be started again.
    Stopped,
    /// Set aside after too many restarts, until an operator restarts it.
    Quarantined,
    /// Abandoned: its code did not yield, and its thread cannot be taken back.
    Zombie,
}

impl ChildState {
    /// Every state.
    pub const ALL: [Self; 11] = [
        Self::Unstarted,
        Self::Starting,
        Self::Idle,
        Self::Busy,
        Self::BackingOff,
        Self::Waiting,
        Self::Stopping,
        Self::Restarting,
        Self::Stopped,
        Self::Quarantined,
        Self::Zombie,
    ];

    /// The name in texts: `backing off`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unstarted => "unstarted",
            Self::Starting => "starting",
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::BackingOff => "backing off",
            Self::Waiting => "waiting",
            Self::Stopping => "stopping",
            Self::Restarting => "restarting",
            Self::Stopped => "stopped",
            Self::Quarantined => "quarantined",
            Self::Zombie => "zombie",
        }
    }

    pub(super) const fn from_code(code: u8) -> Option<Self> {
        if code == 0 || code as usize > Self::ALL.len() {
            None
        } else {
            Some(Self::ALL[code as usize - 1])
        }
    }
}

impl fmt::Display for ChildState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a slot publishes about its child whenever it changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// What it is doing.
    pub state: ChildState,
    /// Requests handed out and not back. Shown as 65,535 when there are more.
    pub in_flight: usize,
    /// Requests that wait in its mailbox. Shown as 2^32 - 1 when there are more.
    pub mailbox: usize,
    /// Whether a dump should ask the child's [`Detail`]: something is in flight, failed, open, waited for.
    pub has_detail: bool,
}

/// What does not change about a supervisor or a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its whole path.
    pub path: ChildPath,
    /// [`Kind::Supervisor`] or [`Kind::Group`].
    pub kind: Kind,
    /// What the members of a group are; `None` for a supervisor.
    pub of: Option<Kind>,
    /// `one_for_one`; for a group how members are chosen.
    pub strategy: Option<Arc<str>>,
    /// The restart intensity, as people say it: `3 in 5s`.
    pub intensity: Option<Arc<str>>,
    /// How far a rollback of a supervisor reaches: `flow`; `None` for a step.
    pub scope: Option<Arc<str>>,
    /// Whether the requests to a group survive the process.
    pub durable: bool,
}

impl Facts {
    /// A supervisor.
    pub fn supervisor(path: ChildPath, strategy: &str, intensity: &str) -> Self {
        Self {
            path,
            kind: Kind::Supervisor,
            of: None,
            strategy: Some(Arc::from(strategy)),
            intensity: Some(Arc::from(intensity)),
            scope: None,
            durable: false,
        }
    }

    /// Sets the scope.
    #[must_use]
    pub fn of_scope(mut self, scope: &str) -> Self {
        self.scope = Some(Arc::from(scope));
        self
    }

    /// A group whose members are of this kind.
    pub fn group(path: ChildPath, of: Kind) -> Self {
        Self {
            path,
            kind: Kind::Group,
            of: Some(of),
            strategy: None,
            intensity: None,
            scope: None,
            durable: false,
        }
    }

    /// Says whether its requests survive the process.
    #[must_use]
    pub const fn durable(mut self, durable: bool) -> Self {
        self.durable = durable;
        self
    }
}

/// What a node has to say beyond its row. Asked only of nodes whose row says that there is something.
pub trait Detail: Send + Sync {
    /// The detail, as of now. Called on the thread that dumps, with no lock of the mirror held; may take
    /// the slot's lock for a moment, and must not wait for anything else.
    fn detail(&self, now: Moment) -> NodeDetail;
}

/// See [`Detail`]. Everything may be empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct NodeDetail {
    /// The requests handed out and not back, the oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub in_flight: Vec<InFlight>,
    /// Its circuit; `None` when it is no member of a group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub circuit: Option<CircuitView>,
    /// How its last life or attempt failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_cause: Option<LastCause>,
    /// When a wait before the next attempt or life is over, from now; of one that is [`Waiting`](ChildState::Waiting) for
    /// a decision, how long that may take.
    #[serde(
        rename = "resumes_in_ms",
        with = "optional_millis",
        skip_serializing_if = "Option::is_none"
    )]
    pub resumes_in: Option<Duration>,
    /// Lives that were abandoned and still hold a thread.
    #[serde(skip_serializing_if = "is_zero")]
    pub zombies: u32,
    /// The children it has called and waits for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<ChildPath>,
    /// What is left of the retry budget of its quota domain, unless it is full. Shown only where there is
    /// something else to say, too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub budgets: Vec<BudgetView>,
    /// Requests that wait in a group because no member takes them now.
    #[serde(skip_serializing_if = "is_none_in")]
    pub waiting: usize,
    /// How a group hedges; `None` when it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hedges: Option<HedgeView>,
    /// Its last checkpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointView>,
    /// The last recovery line that this process has drawn for a supervisor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<LineView>,
}

impl NodeDetail {
    /// Whether there is nothing to say after all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A request that was handed out and is not back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlight {
    /// Which.
    pub request: RequestId,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// Which hand-out.
    pub delivery: Delivery,
    /// How long ago it was handed out.
    #[serde(rename = "age_ms", with = "millis")]
    pub age: Duration,
}

/// A circuit as dumps show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
#[non_exhaustive]
pub enum CircuitView {
    /// Work is offered.
    Closed,
    /// No work is offered until `left` is over.
    Open {
        /// Until it is tried again.
        #[serde(rename = "left_ms", with = "millis")]
        left: Duration,
    },
    /// It is being tried.
    HalfOpen,
    /// Taken out by hand.
    Isolated,
}

/// How a life or an attempt failed, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastCause {
    /// How.
    pub ended: Ended,
    /// How long ago.
    #[serde(rename = "age_ms", with = "millis")]
    pub age: Duration,
}

/// What is left of a budget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetView {
    /// Which: `retries`.
    pub name: String,
    /// What is left.
    pub left: u64,
    /// What it holds when full; `None` when it has no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// How a group hedges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HedgeView {
    /// After which time; `None` while too little is known for a percentile.
    #[serde(
        default,
        rename = "after_ms",
        with = "optional_millis",
        skip_serializing_if = "Option::is_none"
    )]
    pub after: Option<Duration>,
    /// Requests that were also given to a second member.
    pub sent: u64,
    /// Those of them that the second member answered first.
    pub won: u64,
}

/// A stored state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointView {
    /// Its id.
    pub id: String,
    /// How long ago it was taken.
    #[serde(rename = "age_ms", with = "millis")]
    pub age: Duration,
    /// After how many steps of the child, over all its lives.
    #[serde(default)]
    pub step: u64,
}

/// A stored recovery line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineView {
    /// Its id.
    pub id: LineId,
    /// How long ago it was drawn.
    #[serde(rename = "age_ms", with = "millis")]
    pub age: Duration,
    /// How many children return to it.
    pub children: usize,
}

impl LineView {
    pub(crate) const fn new(id: LineId, children: usize) -> Self {
        Self { id, age: Duration::ZERO, children }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
const fn is_none_in(count: &usize) -> bool {
    *count == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Durations as whole milliseconds.
mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        duration: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

mod optional_millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde asks for this signature")]
    pub(super) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::millis::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_millis))
    }
}
