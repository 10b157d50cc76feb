//! What will be done about a fault or an exit, and why nothing gentler.
//!
//! *Invariant.* A [`Decision`] is a value: it can be compared, printed and stored, and carrying it out
//! is somebody else's job.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fault::{Class, ExitKind};
use crate::moment::Moment;

/// The answers to a failure, gentlest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    /// The same request again, later.
    Retry,
    /// The same request to a sibling.
    Substitute,
    /// Back to a checkpoint.
    Rollback,
    /// To the parent.
    Escalate,
}

impl Rung {
    /// The ladder, gentlest first.
    pub const ALL: [Self; 4] = [Self::Retry, Self::Substitute, Self::Rollback, Self::Escalate];

    /// Its name in events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Substitute => "substitute",
            Self::Rollback => "rollback",
            Self::Escalate => "escalate",
        }
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is done with the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Action {
    /// Hand it out again to the same child.
    Retry {
        /// The wait, jitter included, clamped, rounded up to milliseconds.
        delay: Duration,
        /// When: now and the delay.
        at: Moment,
    },
    /// Hand it to a sibling of the group: the index in the group's order.
    Substitute {
        /// Which member.
        member: usize,
    },
    /// Every fit sibling is full or resting: wait until the group has room, at most to the deadline.
    AwaitSibling {
        /// The first moment at which asking again makes sense.
        until: Moment,
    },
    /// The request is out at a second member as well ([`Hedge`](crate::policy::Hedge)): that copy's
    /// answer, or its failure, decides.
    AwaitCopy,
    /// Return to where the request began, or to the last valid checkpoint, and do the work since again.
    Rollback,
    /// Have the scope above return to its recovery line, and do the request again from there.
    Widen,
    /// Hand the failure to the parent's ladder.
    Escalate,
    /// No rung is left, or none applies: the request ends here, failed, with its trail.
    Fail,
    /// Nobody knows whether the effect happened: neither repeat it nor call it failed.
    HoldUnknown,
    /// The request has ended two lives: set it aside, with its trail.
    Quarantine,
    /// The request's time is over.
    Expire,
}

impl Action {
    /// The rung this action stands on; `None` for the ends that are no rung.
    pub const fn rung(self) -> Option<Rung> {
        match self {
            Self::Retry { .. } => Some(Rung::Retry),
            Self::Substitute { .. } | Self::AwaitSibling { .. } => Some(Rung::Substitute),
            Self::Rollback | Self::Widen => Some(Rung::Rollback),
            Self::Escalate => Some(Rung::Escalate),
            Self::AwaitCopy | Self::Fail | Self::HoldUnknown | Self::Quarantine | Self::Expire => {
                None
            }
        }
    }

    /// One word for events and dumps.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Retry { .. } => "retry",
            Self::Substitute { .. } => "substitute",
            Self::AwaitSibling { .. } => "await_sibling",
            Self::AwaitCopy => "await_copy",
            Self::Rollback => "rollback",
            Self::Widen => "widen",
            Self::Escalate => "escalate",
            Self::Fail => "fail",
            Self::HoldUnknown => "hold_unknown",
            Self::Quarantine => "quarantine",
            Self::Expire => "expire",
        }
    }
}

/// Why a rung was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Declined {
    /// This class is never retried.
    ClassNotRetryable(Class),
    /// This end of a life is not the request's doing, and its supervisor starts the next one.
    ExitNotRetryable(ExitKind),
    /// The cap of this class is reached.
    ClassCap {
        /// The class.
        class: Class,
        /// Its cap.
        cap: u32,
    },
    /// The cap over all classes is reached.
    GlobalCap {
        /// The cap.
        cap: u32,
    },
    /// The request has been handed out as often as it may be.
    DeliveryCap {
        /// The cap.
        cap: u32,
    },
    /// It could not end before the deadline.
    Deadline {
        /// The wait it would have needed.
        needed: Duration,
        /// The time left.
        left: Duration,
    },
    /// The other side asked for a longer wait than we accept.
    WaitTooLong {
        /// The wait asked for.
        asked: Duration,
        /// The longest wait we accept.
        limit: Duration,
    },
    /// The retry budget of the quota domain is empty.
    RetryBudget,
    /// The budget of the request is used up.
    RequestBudget,
    /// The soft failures of the whole task have added up.
    SoftFailures {
        /// How many are mended one by one.
        limit: u32,
        /// Within this time.
        window: Duration,
    },
    /// Nothing would change and nothing would be waited for.
    NoChange,
    /// The effect may have happened and may not be repeated.
    NotReplaySafe,
    /// The outcome of the effect is unknown.
    EffectUnknown,
    /// The request has crashed a life before.
    CrashedBefore,
    /// The child stands in no group.
    NoGroup,
    /// This class is never handed to a sibling of this kind.
    ClassNotEligible(Class),
    /// Every member of the allow-list has been tried.
    AllowListExhausted,
    /// No member that is left is fit for this class: a larger window, another quota domain, a
    /// simpler flow.
    NoFitSibling,
    /// Every fit member is full.
    SiblingsFull,
    /// Every fit member's circuit is open, or it is isolated or out of service.
    SiblingsUnavailable,
    /// The longest chain of substitutes is reached.
    Depth {
        /// The longest chain.
        limit: u32,
    },
    /// There is no checkpoint to return to.
    NoCheckpoint,
    /// That checkpoint has been returned to before.
    CheckpointUsed,
    /// Nothing is broken that a rollback would mend.
    NothingToRollBack,
    /// The next scope is wider than what a failure of this class, or the policy, has returned.
    ScopeTooWide {
        /// The next scope.
        scope: Scope,
        /// The widest that is returned.
        widest: Scope,
    },
    /// No scope above could be returned to a line.
    NoValidLine,
    /// There is no parent above the root.
    AtRoot,
    /// No parent has a wider substitute.
    NoWiderSubstitute,
    /// This class ends the request wherever it occurs.
    Terminal(Class),
    /// The request is out at a second member as well.
    CopyOut,
}

impl fmt::Display for Declined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClassNotRetryable(class) => write!(f, "{class} is never retried"),
            Self::ExitNotRetryable(kind) => write!(f, "not retried after: {kind}"),
            Self::ClassCap { class, cap } => write!(f, "{class} is retried at most {cap} times"),
            Self::GlobalCap { cap } => write!(f, "at most {cap} retries a request"),
            Self::DeliveryCap { cap } => write!(f, "handed out {cap} times already"),
            Self::Deadline { needed, left } => {
                write!(f, "needs {needed:?}, {left:?} left to the deadline")
            }
            Self::WaitTooLong { asked, limit } => {
                write!(f, "asked to wait {asked:?}, at most {limit:?} accepted")
            }
            Self::RetryBudget => f.write_str("retry budget empty"),
            Self::RequestBudget => f.write_str("request budget used up"),
            Self::SoftFailures { limit, window } => {
                write!(f, "the task has had {limit} soft failures within {window:?}")
            }
            Self::NoChange => f.write_str("nothing would change and nothing would be waited for"),
            Self::NotReplaySafe => f.write_str("not replay-safe"),
            Self::EffectUnknown => f.write_str("the outcome of the effect is unknown"),
            Self::CrashedBefore => f.write_str("has crashed a life before"),
            Self::NoGroup => f.write_str("stands in no group"),
            Self::ClassNotEligible(class) => write!(f, "{class} is not handed to a sibling"),
            Self::AllowListExhausted => f.write_str("every allowed sibling was tried"),
            Self::NoFitSibling => f.write_str("no sibling is fit for this class"),
            Self::SiblingsFull => f.write_str("every fit sibling is full"),
            Self::SiblingsUnavailable => f.write_str("every fit sibling is out of service"),
            Self::Depth { limit } => write!(f, "at most {limit} substitutes a request"),
            Self::NoCheckpoint => f.write_str("no checkpoint"),
            Self::CheckpointUsed => f.write_str("that checkpoint was used before"),
            Self::NothingToRollBack => f.write_str("nothing to roll back"),
            Self::ScopeTooWide { scope, widest } => {
                write!(f, "the next scope is the {scope}, at most the {widest} is rolled back")
            }
            Self::NoValidLine => f.write_str("no scope above could be returned to a line"),
            Self::AtRoot => f.write_str("no parent above the root"),
            Self::NoWiderSubstitute => f.write_str("no parent has a wider substitute"),
            Self::Terminal(class) => write!(f, "{class} ends the request"),
            Self::CopyOut => f.write_str("the request is out at a second member"),
        }
    }
}

/// What was decided, and why each gentler rung was not taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// What is done.
    pub action: Action,
    /// The gentler rungs, in order, each with its reason.
    pub declined: Vec<(Rung, Declined)>,
}

impl Decision {
    /// Why this rung was declined, if it was.
    pub fn declined(&self, rung: Rung) -> Option<Declined> {
        self.declined.iter().find(|(at, _)| *at == rung).map(|(_, why)| *why)
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.action {
            Action::Retry { delay, .. } => write!(f, "retry in {delay:?}")?,
            Action::Substitute { member } => write!(f, "substitute member {member}")?,
            action => f.write_str(action.name())?,
        }
        for (rung, why) in &self.declined {
            write!(f, "; no {rung}: {why}")?;
        }
        Ok(())
    }
}

/// How far a rollback reaches: a level of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// One step of one child.
    Step,
    /// A flow: a child and those it works with.
    Flow,
    /// All participants of a transaction.
    Transaction,
    /// A session with a user.
    Session,
    /// The whole tree.
    System,
}

/// What a rollback of a scope puts at stake. It decides whether a person is asked first, and nothing
/// else: it does not grow with the scope, and the ladder goes by scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Risk {
    /// One step is done again.
    Low,
    /// Work of minutes, or part of a conversation, is done again.
    Medium,
    /// Effects on the world are undone, or everything stops.
    High,
}

impl Scope {
    /// Every scope, the narrowest first.
    pub const ALL: [Self; 5] =
        [Self::Step, Self::Flow, Self::Transaction, Self::Session, Self::System];

    /// How long a rollback of this scope may take: 5 s, 10 s, 30 s, 1 min, 5 min.
    pub const fn limit(self) -> Duration {
        Duration::from_secs(match self {
            Self::Step => 5,
            Self::Flow => 10,
            Self::Transaction => 30,
            Self::Session => 60,
            Self::System => 300,
        })
    }

    /// What a rollback of this scope puts at stake.
    pub const fn risk(self) -> Risk {
        match self {
            Self::Step => Risk::Low,
            Self::Flow | Self::Session => Risk::Medium,
            Self::Transaction | Self::System => Risk::High,
        }
    }

    /// The next wider scope; `None` for the widest.
    pub const fn wider(self) -> Option<Self> {
        match self {
            Self::Step => Some(Self::Flow),
            Self::Flow => Some(Self::Transaction),
            Self::Transaction => Some(Self::Session),
            Self::Session => Some(Self::System),
            Self::System => None,
        }
    }

    /// Its name, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Flow => "flow",
            Self::Transaction => "transaction",
            Self::Session => "session",
            Self::System => "system",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
