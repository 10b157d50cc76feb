//! What a call that failed is to whoever asked for it within a request of its own.
//!
//! *Invariant.* The outer child does not climb the ladder of the inner one again. When somebody is back
//! who could serve it goes along in the cause, not as a wait that was asked of the outer child: that would
//! close its quota domain for others.

use std::sync::Arc;
use std::time::Duration;

use super::CallError;
use crate::fault::{Class, EffectState, Fault};

/// A failed inner call, seen by the outer child: its ladder is spent, so the outer one does not retry
/// it. An effect that may have happened stays unknown; a call that was turned away can be repeated.
impl<Q> From<CallError<Q>> for Fault {
    fn from(error: CallError<Q>) -> Self {
        let (text, retry_after) = (error.to_string(), error.retry_after());
        match error {
            CallError::Full { .. } | CallError::Refused { .. } => {
                let mut outer = Self::new(Class::Overloaded, text).not_applied();
                if retry_after.is_some() {
                    let rests = Self { retry_after, ..Self::new(Class::Overloaded, "") };
                    outer.source = Some(Arc::new(rests));
                }
                outer
            }
            CallError::Cancelled { .. } => Self::new(Class::Cancelled, text),
            CallError::Unknown { .. } => Self::new(Class::Indeterminate, text).effect_unknown(),
            CallError::RecoveryExhausted { fault, .. } => {
                // What was forbidden, and what nobody pays for, keeps its meaning through every layer: an
                // outer sibling must not be asked to do it.
                let class = match fault.class {
                    Class::Permission | Class::BudgetDenied => fault.class,
                    _ => Class::Exhausted,
                };
                let mut outer = Self::new(class, text);
                outer.code.clone_from(&fault.code);
                outer.effect = match fault.effect {
                    // A ladder that is spent never says that nothing has happened.
                    EffectState::Failed if class == Class::Exhausted => EffectState::Unstated,
                    effect => effect,
                };
                outer.source = Some(Arc::new(Self { retry_after, ..*fault }));
                outer
            }
            CallError::Expired { .. }
            | CallError::Quarantined { .. }
            | CallError::Suspended { .. }
            | CallError::Stopped { .. } => Self::new(Class::Exhausted, text),
        }
    }
}

impl Fault {
    /// The wait that was asked for, or that an inner call was told.
    pub(crate) fn retry_after_known(&self) -> Option<Duration> {
        let inner = || self.source.as_ref()?.downcast_ref::<Self>()?.retry_after;
        self.retry_after.or_else(inner)
    }
}
