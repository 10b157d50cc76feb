//! What callers see: one enum an operation.
//!
//! *Invariant.* A refused message comes back in the error. Errors say what and where, and where there
//! is a next step, name it.

mod checkpoint;
mod inner;
mod quarantine;
mod recover;
mod template;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::fate::{Fate, Trail};
use crate::fault::{Class, ExitCause, ExitKind, Fault};
use crate::id::{ChildPath, EffectKey};

pub use checkpoint::{CheckpointError, CodecError, StoreError};
pub use quarantine::QuarantineError;
pub use recover::RecoverError;
pub use template::TemplateError;

/// Why a call was not answered.
///
/// `Q` is the request: [`CallError::Full`] and [`CallError::Refused`] give it back.
#[non_exhaustive]
pub enum CallError<Q> {
    /// The mailbox is full, or all those of a group; here is the message. Try later, or elsewhere.
    Full {
        /// The message.
        message: Q,
        /// The child, or the group.
        child: ChildPath,
    },
    /// The child does not take requests now, and its spec says not to wait; here is the message.
    Refused {
        /// The message.
        message: Q,
        /// The child.
        child: ChildPath,
        /// Why.
        why: Unavailable,
    },
    /// The deadline passed first.
    Expired {
        /// The child called.
        child: ChildPath,
        /// How long it was waited.
        waited: Duration,
        /// What had failed by then.
        trail: Trail,
    },
    /// Every rung of the ladder was climbed. One alert was sent, unless another request had asked for
    /// this one: then its own ladder judges that, and alerts if it is spent, too. A missing permission
    /// alerts in any case.
    RecoveryExhausted {
        /// The child called.
        child: ChildPath,
        /// The last fault.
        fault: Box<Fault>,
        /// Every failed attempt with what was decided.
        trail: Trail,
        /// How long after this error whoever could serve is offered work again; of a group, the first of
        /// its members. `None` when somebody is offered work now, or nobody comes back by himself. What
        /// waited for another call that failed is told what that one was told.
        retry_after: Option<Duration>,
    },
    /// The effect may or may not have happened, and must not be repeated: verify it, or ask a person. Also at the
    /// deadline of a request that has acted and whose answer is being written down then: its key tells what
    /// came of it ([`System::journaled`](crate::system::System::journaled)).
    Unknown {
        /// The child called.
        child: ChildPath,
        /// What is known.
        trail: Trail,
    },
    /// The request ended two lives and was set aside.
    Quarantined {
        /// The child called.
        child: ChildPath,
        /// What happened.
        trail: Trail,
    },
    /// The request was called off.
    Cancelled {
        /// The child called.
        child: ChildPath,
    },
    /// The system stopped before it was done. It is durable: the next system on the same store takes it
    /// up again, under the same key.
    Suspended {
        /// Where it was accepted.
        child: ChildPath,
    },
    /// The child, its supervisor or the system stopped before the request was answered.
    Stopped {
        /// The child called.
        child: ChildPath,
        /// Why it stopped.
        cause: ExitCause,
    },
}

/// Why a child does not take requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Unavailable {
    /// It is between two lives, and its spec says to refuse then.
    Restarting,
    /// It was stopped and may be started again.
    Stopped,
    /// It restarted too often and was set aside until an operator restarts it.
    Quarantined,
    /// It was removed.
    Removed,
    /// The system is shutting down.
    ShuttingDown,
    /// It is a group, and every member that could serve was taken out of service by hand.
    Isolated,
    /// It is a group, and every member that is not isolated rests: its circuit is open, or its quota
    /// domain closed. That is for longer than this request may take, unless the group is one that
    /// waits for nobody ([`AllDown::Fail`](crate::spec::AllDown::Fail)).
    Resting {
        /// How long after the refusal the first of them is offered work again.
        retry_after: Duration,
    },
    /// The runtime that the system was started on is gone.
    RuntimeGone,
    /// It is durable, and a request under the same idempotency key was accepted before: by this or another
    /// durable child or group, in this process or an earlier one. That one stands;
    /// [`System::journaled`](crate::system::System::journaled) tells what became of it.
    Duplicate,
    /// It is durable, and this request cannot be written down.
    Unrecordable,
    /// It is durable, and the request's idempotency key is empty or longer than 4,096 bytes.
    BadKey,
    /// The request's idempotency key begins with `undo-`, as those of undos do, for which it would be taken.
    ReservedKey,
    /// Whoever asks handles a request again that was answered before: nobody is asked for that.
    Replaying,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resting { retry_after } => {
                return write!(
                    f,
                    "every member rests (circuit open or quota domain closed); the first is back in \
                     {retry_after:?}"
                );
            }
            Self::Restarting => "restarting",
            Self::Stopped => "stopped",
            Self::Quarantined => "quarantined after too many restarts; restart it to release it",
            Self::Removed => "removed",
            Self::ShuttingDown => "shutting down",
            Self::Isolated => "every member is isolated by hand; release one",
            Self::RuntimeGone => "the runtime it was started on was dropped",
            Self::Duplicate => "a request with this key was accepted before, here or elsewhere",
            Self::Unrecordable => "the request cannot be written down",
            Self::BadKey => "its idempotency key is empty or longer than 4,096 bytes",
            Self::ReservedKey => {
                "its idempotency key begins with \"undo-\", as only those of undos do; give another one"
            }
            Self::Replaying => "not asked: the request that asks is being replayed",
        })
    }
}

impl<Q> CallError<Q> {
    /// The fate of the request; `None` when it was never accepted.
    pub const fn fate(&self) -> Option<Fate> {
        match self {
            Self::Full { .. } | Self::Refused { .. } => None,
            Self::Expired { .. } => Some(Fate::Expired),
            Self::RecoveryExhausted { .. } => Some(Fate::Failed),
            Self::Unknown { .. } => Some(Fate::Unknown),
            Self::Suspended { .. } => Some(Fate::Suspended),
            Self::Quarantined { .. } => Some(Fate::Quarantined),
            Self::Cancelled { .. } => Some(Fate::Cancelled),
            Self::Stopped { .. } => Some(Fate::Stopped),
        }
    }

    /// Whether the same call may be made again without doing anything twice: it was not accepted.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Refused { .. })
    }

    /// The message, when it was not accepted.
    pub fn into_message(self) -> Option<Q> {
        match self {
            Self::Full { message, .. } | Self::Refused { message, .. } => Some(message),
            _ => None,
        }
    }

    /// The failed attempts; `None` for errors that have none.
    pub const fn trail(&self) -> Option<&Trail> {
        match self {
            Self::Expired { trail, .. }
            | Self::RecoveryExhausted { trail, .. }
            | Self::Unknown { trail, .. }
            | Self::Quarantined { trail, .. } => Some(trail),
            _ => None,
        }
    }

    /// How long after this error the same call may fare better, as far as that is known: whoever could
    /// serve rests until then.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { why: Unavailable::Resting { retry_after }, .. } => Some(*retry_after),
            Self::RecoveryExhausted { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The same error about another message type.
    pub fn map_message<T>(self, f: impl FnOnce(Q) -> T) -> CallError<T> {
        match self {
            Self::Full { message, child } => CallError::Full { message: f(message), child },
            Self::Refused { message, child, why } => {
                CallError::Refused { message: f(message), child, why }
            }
            Self::Expired { child, waited, trail } => CallError::Expired { child, waited, trail },
            Self::RecoveryExhausted { child, fault, trail, retry_after } => {
                CallError::RecoveryExhausted { child, fault, trail, retry_after }
            }
            Self::Unknown { child, trail } => CallError::Unknown { child, trail },
            Self::Quarantined { child, trail } => CallError::Quarantined { child, trail },
            Self::Cancelled { child } => CallError::Cancelled { child },
            Self::Suspended { child } => CallError::Suspended { child },
            Self::Stopped { child, cause } => CallError::Stopped { child, cause },
        }
    }
}

impl<Q> fmt::Display for CallError<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { child, .. } => {
                write!(f, "child \"{child}\": mailbox full; the message is returned")
            }
            Self::Refused { child, why, .. } => {
                write!(f, "child \"{child}\" refuses requests: {why}")
            }
            Self::Expired { child, waited, trail } => {
                write!(f, "child \"{child}\": no answer within {waited:?}")?;
                if trail.is_empty() { Ok(()) } else { write!(f, " ({trail})") }
            }
            Self::RecoveryExhausted { child, fault, trail, retry_after } => {
                write!(f, "child \"{child}\": all recovery strategies failed: {fault}")?;
                if let Some(wait) = retry_after {
                    write!(f, "; whoever could serve is back in {wait:?}")?;
                }
                if trail.is_empty() { Ok(()) } else { write!(f, " ({trail})") }
            }
            Self::Unknown { child, .. } => write!(
                f,
                "child \"{child}\": the effect may or may not have happened; verify it before repeating it"
            ),
            Self::Suspended { child } => {
                write!(
                    f,
                    "child \"{child}\": the system stopped; the request is taken up when it is recovered"
                )
            }
            Self::Quarantined { child, .. } => {
                write!(f, "child \"{child}\": the request ended two lives and was set aside")
            }
            Self::Cancelled { child } => write!(f, "child \"{child}\": the request was called off"),
            Self::Stopped { child, cause } => {
                write!(f, "child \"{child}\" stopped before it answered: {cause}")
            }
        }
    }
}

impl<Q> fmt::Debug for CallError<Q> {
    /// As [`fmt::Display`]: the message itself is never printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Full { .. } => "Full",
            Self::Refused { .. } => "Refused",
            Self::Expired { .. } => "Expired",
            Self::RecoveryExhausted { .. } => "RecoveryExhausted",
            Self::Unknown { .. } => "Unknown",
            Self::Quarantined { .. } => "Quarantined",
            Self::Cancelled { .. } => "Cancelled",
            Self::Suspended { .. } => "Suspended",
            Self::Stopped { .. } => "Stopped",
        };
        write!(f, "{name}({self})")
    }
}

impl<Q> std::error::Error for CallError<Q> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::RecoveryExhausted { fault, .. } => Some(&**fault),
            _ => None,
        }
    }
}

/// Why a person's word about an effect was not taken.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// There is no such effect.
    #[error("no effect {0} is known")]
    NotFound(EffectKey),
    /// It does not wait for a person.
    #[error("effect {key} is {status} and does not wait for anybody")]
    NotOpen {
        /// The effect.
        key: EffectKey,
        /// What is known about it.
        status: &'static str,
    },
    /// The result cannot be recorded.
    #[error("the result cannot be recorded: {0}")]
    Result(String),
    /// The journal could not be written, so nothing has changed for good.
    #[error("the journal cannot be written: {0}")]
    Journal(Fault),
}

/// A spec that cannot be run, with the offender.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum SpecError {
    /// An id is empty or holds `/` or a control character.
    #[error("id {id:?} in \"{parent}\": use a non-empty id without '/' and control characters")]
    InvalidId {
        /// The supervisor or group.
        parent: String,
        /// The id.
        id: String,
    },
    /// A quota domain is defined twice, with different numbers.
    #[error("the quota domain {domain:?} is one thing in \"{one}\" and another in \"{other}\"")]
    DomainConflict {
        /// The domain.
        domain: String,
        /// Where it is defined first, or has been in use.
        one: String,
        /// Where it is defined otherwise.
        other: String,
    },
    /// A quota domain is defined, and no child uses it.
    #[error(
        "the quota domain {domain:?} is defined in \"{path}\", and no child uses it: \
         name it with `ChildSpec::quota_domain`"
    )]
    UnusedDomain {
        /// Where it is defined.
        path: String,
        /// The domain.
        domain: String,
    },
    /// A child is durable, and there is no store.
    #[error("child \"{path}\" is durable: start the tree with `System::recover` and a store")]
    NoStore {
        /// The child.
        path: String,
    },
    /// Two children have the same id.
    #[error("child \"{id}\" stands twice in \"{parent}\"")]
    DuplicateId {
        /// The supervisor or group.
        parent: String,
        /// The id.
        id: String,
    },
    /// The period of a restart intensity is zero.
    #[error("\"{path}\": the period of {what} is zero")]
    ZeroPeriod {
        /// Where.
        path: String,
        /// Which limit.
        what: &'static str,
    },
    /// A number or a duration that must not be zero is.
    #[error("\"{path}\": {what} is zero")]
    Zero {
        /// Where.
        path: String,
        /// Which option.
        what: &'static str,
    },
    /// A value is out of its range.
    #[error("\"{path}\": {what} is {value}, {expected}")]
    OutOfRange {
        /// Where.
        path: String,
        /// Which option.
        what: &'static str,
        /// The value.
        value: String,
        /// What would be right.
        expected: String,
    },
    /// Two options contradict each other.
    #[error("\"{path}\": {one} and {other} exclude each other")]
    BadCombination {
        /// Where.
        path: String,
        /// One option with its value.
        one: String,
        /// The other.
        other: String,
    },
    /// The policy of a child retries what cannot be repeated.
    #[error(
        "\"{path}\": its policy retries, and its work is irreversible: it says so, or does not say what it does; say it (`ChildSpec::effect`, `acts`), or give it `Policy::without_retries()` or no policy of its own"
    )]
    RetriesIrreversible {
        /// The child.
        path: String,
    },
    /// A class cap is above the global cap.
    #[error(
        "\"{path}\": {class} may be retried {cap} times, but at most {global} retries a request are allowed"
    )]
    CapAboveGlobal {
        /// Where.
        path: String,
        /// The class.
        class: Class,
        /// Its cap.
        cap: u32,
        /// The global cap.
        global: u32,
    },
    /// The deadline is shorter than the first attempt needs.
    #[error("\"{path}\": a deadline of {deadline:?} leaves no time for one attempt of {attempt:?}")]
    DeadlineTooShort {
        /// Where.
        path: String,
        /// The deadline.
        deadline: Duration,
        /// The attempt timeout.
        attempt: Duration,
    },
    /// A need names nothing that can be found from where it stands.
    #[error(
        "child \"{child}\" needs \"{need}\", and there is no such child or group beside or above it"
    )]
    UnknownNeed {
        /// The child.
        child: String,
        /// What it needs.
        need: String,
    },
    /// A need has another type than what it names.
    #[error("child \"{child}\" needs \"{need}\" as {wanted}, which is {found}")]
    NeedType {
        /// The child.
        child: String,
        /// What it needs.
        need: String,
        /// The type it asks for.
        wanted: String,
        /// The type that is there.
        found: String,
    },
    /// Children need each other in a circle, so that each could wait for the other for ever.
    #[error("needs form a cycle: {}", .path.join(" -> "))]
    NeedCycle {
        /// The circle; its first child stands again at the end.
        path: Vec<String>,
    },
    /// A group has no members.
    #[error("group \"{path}\" has no members")]
    EmptyGroup {
        /// The group.
        path: String,
    },
    /// A member takes or gives other types than the first.
    #[error("group \"{group}\": member \"{member}\" is {found}, the first member is {wanted}")]
    MemberType {
        /// The group.
        group: String,
        /// The member.
        member: String,
        /// The first member's type.
        wanted: String,
        /// This member's type.
        found: String,
    },
    /// The metrics of a fallback path are switched off, or no objective and no rule is about fallback.
    #[error(
        "group \"{path}\" is not monitored; a fallback path without metrics, objective or rule is refused"
    )]
    Unmonitored {
        /// The group.
        path: String,
    },
    /// A path from member to member comes back to where it was.
    #[error("group \"{path}\": the fallback path {} is a cycle", .cycle.join(" -> "))]
    FallbackCycle {
        /// The group.
        path: String,
        /// The circle; its first member stands again at the end.
        cycle: Vec<String>,
    },
    /// The allow-list names a member that does not exist.
    #[error(
        "group \"{path}\": the allow-list of \"{member}\" names \"{target}\", which is no member"
    )]
    UnknownTarget {
        /// The group.
        path: String,
        /// Whose allow-list.
        member: String,
        /// The name.
        target: String,
    },
    /// More members than a chain of substitutes may have.
    #[error("group \"{path}\" has {members} members, a chain has at most {limit}")]
    ChainTooLong {
        /// The group.
        path: String,
        /// How many.
        members: usize,
        /// The limit.
        limit: usize,
    },
    /// A substitute is weaker than its primary.
    #[error(
        "group \"{path}\": member \"{member}\" has {what} than \"{primary}\"; grant it with an owner and a reason"
    )]
    Downgrade {
        /// The group.
        path: String,
        /// The weaker member.
        member: String,
        /// Whom it would stand in for.
        primary: String,
        /// In what it is weaker: "a lower guardrail level".
        what: String,
    },
    /// A grant has no owner or no reason.
    #[error("group \"{path}\": the grant for \"{member}\" lacks an owner or a reason")]
    GrantWithoutReason {
        /// The group.
        path: String,
        /// The member.
        member: String,
    },
}

/// Why a start failed. Everything that had been started was stopped again, in reverse order.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The spec cannot be run.
    #[error("the spec cannot be run: {0}")]
    Spec(#[from] SpecError),
    /// A child did not start.
    #[error("child \"{child}\" did not start: {cause}")]
    Child {
        /// The child.
        child: ChildPath,
        /// Why.
        cause: ExitCause,
    },
    /// A child with this id runs already.
    #[error("child \"{0}\" is already started")]
    AlreadyStarted(ChildPath),
    /// A child with this id is known and does not run; restart or delete it.
    #[error("child \"{0}\" is already present and not running; restart it, or delete it first")]
    AlreadyPresent(ChildPath),
    /// The supervisor has as many children as it may have.
    #[error("supervisor \"{supervisor}\" has {limit} children, its limit")]
    MaxChildren {
        /// The supervisor.
        supervisor: ChildPath,
        /// Its limit.
        limit: usize,
    },
    /// The supervisor is stopping or gone.
    #[error("supervisor \"{0}\" is not running")]
    SupervisorGone(ChildPath),
    /// It could not be made from a template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// There is no tokio runtime to run on.
    #[error("no tokio runtime: start a system from within one")]
    NoRuntime,
}

/// Why an operation on a child by its supervisor was refused.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum ChildError {
    /// There is no such child.
    #[error("child \"{0}\" is not found")]
    NotFound(ChildPath),
    /// The child is a supervisor or a group: what it was built from is no spec of a child.
    #[error("child \"{0}\" is a supervisor, which has no child spec")]
    Supervisor(ChildPath),
    /// The child runs.
    #[error("child \"{0}\" is running; terminate it first")]
    Running(ChildPath),
    /// The child is between two lives.
    #[error("child \"{0}\" is restarting; terminate it first")]
    Restarting(ChildPath),
    /// The child did not start.
    #[error("child \"{child}\" did not start: {cause}")]
    StartFailed {
        /// The child.
        child: ChildPath,
        /// Why.
        cause: ExitCause,
    },
    /// The child is gone, but the store did not take that: the next process makes it again.
    #[error("child \"{0}\" is gone, but its record is not: {1}")]
    Recorded(ChildPath, StoreError),
    /// The supervisor is stopping or gone: nobody was deleted. It may be about to be restarted.
    #[error("supervisor \"{0}\" is not running")]
    SupervisorGone(ChildPath),
}

/// Why a path could not be resolved to a typed reference.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LookupError {
    /// Nothing has this path.
    #[error("no child \"{0}\"")]
    NotFound(ChildPath),
    /// What has this path is of another type.
    #[error("child \"{path}\" is {found}, not {wanted}")]
    WrongType {
        /// The path.
        path: ChildPath,
        /// The type asked for.
        wanted: &'static str,
        /// The type that is there.
        found: &'static str,
    },
}

/// Why a behavior does not get a port.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NeedError {
    /// The behavior did not declare this need.
    #[error("need \"{0}\" was not declared; add it to `needs`")]
    Undeclared(String),
    /// The need was declared with another type.
    #[error("need \"{need}\" was declared as {declared}, not {wanted}")]
    WrongType {
        /// The need.
        need: String,
        /// As declared.
        declared: &'static str,
        /// As asked for.
        wanted: &'static str,
    },
}

impl From<NeedError> for Fault {
    fn from(error: NeedError) -> Self {
        Self::new(Class::Internal, error.to_string()).not_applied()
    }
}

/// The last word on a system that has ended.
#[derive(Clone, Debug, PartialEq, Error)]
#[error("the root supervisor ended: {0}")]
pub struct RootEnded(pub ExitCause);

impl RootEnded {
    /// The kind of the cause.
    pub const fn kind(&self) -> ExitKind {
        self.0.kind()
    }
}

/// The fault of a step that has waited for the store for as long as it may.
pub(crate) fn late(limit: std::time::Duration) -> Fault {
    Fault::timeout(format!("the store has not answered within {limit:?}")).with_code("store")
}

/// The fault of a step whose write failed.
pub(crate) fn failed(error: &impl fmt::Display) -> Fault {
    Fault::internal(format!("the store failed: {error}")).with_code("store")
}

#[cfg(test)]
mod tests;
