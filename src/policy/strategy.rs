//! What starts again: after a fault the attempt, after a crash the life, or more.
//!
//! *Invariant.* Only facts about causes live here: who is to blame for the end of a life, and what an
//! end says about the effect. Caps and waits are elsewhere.

use serde::{Deserialize, Serialize};

use crate::fault::{Class, EffectKind, ExitCause, Fault};

/// What a retry of a class starts again.
///
/// Whoever ends a life for the sake of a retry has the fault judged, once, and not the exit that
/// follows from it: the retry was granted and counted already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum What {
    /// The attempt, from its pre-step state. The life goes on.
    #[default]
    Attempt,
    /// The life, from its snapshot.
    Life,
    /// The life and the siblings that the supervisor's strategy names: those after it under
    /// `rest_for_one`, otherwise all, also under `one_for_one`, which names none for a crash.
    Siblings,
}

/// What is judged.
#[derive(Clone, Copy, Debug)]
pub enum Cause<'a> {
    /// An attempt ended with a fault.
    Fault(&'a Fault),
    /// A life ended while it held the request.
    Exit(&'a ExitCause),
}

impl<'a> From<&'a Fault> for Cause<'a> {
    fn from(fault: &'a Fault) -> Self {
        Self::Fault(fault)
    }
}

impl<'a> From<&'a ExitCause> for Cause<'a> {
    fn from(cause: &'a ExitCause) -> Self {
        Self::Exit(cause)
    }
}

impl Cause<'_> {
    /// The class of the fault, or of the fault that ended the life; `None` for other ends of a life.
    pub const fn class(&self) -> Option<Class> {
        match self {
            Self::Fault(fault) => Some(fault.class),
            Self::Exit(ExitCause::Faulted(class)) => Some(*class),
            Self::Exit(_) => None,
        }
    }

    /// Whether the child turned the request away by [limits of its own](Fault::by_own_limits).
    pub const fn is_by_own_limits(&self) -> bool {
        matches!(self, Self::Fault(fault) if fault.own_limits)
    }

    /// Whether the request may have ended this life: a panic, a hang, a kill, or a fault whose
    /// strategy ends the life. A life that did not start, was stopped, or fell with its supervisor
    /// is not held against the request.
    pub const fn is_crash(&self) -> bool {
        matches!(
            self,
            Self::Exit(
                ExitCause::Panic(_) | ExitCause::Hang | ExitCause::Killed | ExitCause::Faulted(_)
            )
        )
    }

    /// Whether the request may be executed again by a child whose work is of this kind.
    pub fn is_replay_safe(&self, kind: EffectKind) -> bool {
        match self {
            Self::Fault(fault) => fault.is_replay_safe(kind),
            Self::Exit(ExitCause::Faulted(class)) => Fault::new(*class, "").is_replay_safe(kind),
            Self::Exit(ExitCause::StartFailed(_) | ExitCause::Poisoned(_)) => true,
            Self::Exit(_) => kind.is_replay_safe(),
        }
    }

    /// Whether nobody knows if an effect of this kind happened. A life that never started did
    /// nothing; any other that ended with a request in hand cannot tell.
    pub fn leaves_unknown(&self, kind: EffectKind) -> bool {
        match self {
            Self::Fault(fault) => fault.leaves_unknown(kind),
            Self::Exit(ExitCause::Faulted(class)) => Fault::new(*class, "").leaves_unknown(kind),
            Self::Exit(ExitCause::StartFailed(_) | ExitCause::Poisoned(_)) => false,
            Self::Exit(_) => !kind.is_replay_safe(),
        }
    }

    /// Whether the next attempt would be any different, when the one that ended was given `told`: after
    /// the end of a life another one makes it; after a fault it is told something else. To be told the
    /// same again changes nothing.
    pub fn changes_next(&self, told: Option<&str>) -> bool {
        match self {
            Self::Fault(fault) => match fault.feedback.as_deref() {
                None | Some("") => false,
                feedback => feedback != told,
            },
            Self::Exit(_) => true,
        }
    }

    /// The class by which siblings are chosen: the fault's own; a crash is as a defect of the child,
    /// any other end as a child that cannot answer, and so is one that keeps to limits of its own: whoever
    /// shares its account may have room, and somebody else may be cheaper.
    pub const fn sibling_class(&self) -> Class {
        match self.class() {
            Some(Class::RateLimit | Class::BudgetDenied) if self.is_by_own_limits() => {
                Class::ModelUnavailable
            }
            Some(class) => class,
            None if self.is_crash() => Class::Internal,
            None => Class::ModelUnavailable,
        }
    }
}
