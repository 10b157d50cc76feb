//! What a call without an answer leaves in the ledger: a table, and nothing else.
//!
//! | The fault says, or its class if it says nothing | Recorded as |
//! |---|---|
//! | nothing happened; a class that is a [refusal](crate::fault::Class::is_refusal) | rejected |
//! | it failed; a class that is neither of the others | failed |
//! | nobody knows; a timeout, an indeterminate outcome, a server's or an internal error | lost: unknown, or intended still where a repeat does no harm |
//!
//! *Invariant.* Rejected means that it is certain that nothing has happened. An attempt before the last one
//! that may have acted takes that certainty away.

use super::Input;
use crate::fault::{Class, EffectKind, EffectState, Fault};
use crate::id::EffectKey;

/// What is known of an effect whose call had no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trace {
    /// Nothing happened: it was refused.
    Refused,
    /// No attempt has ended; if the tool is one that may not be repeated, none was made.
    Waited,
    /// The tool says that it failed.
    Failed,
    /// The next process goes on with it.
    Suspended,
    /// Nobody knows.
    Lost,
}

impl Trace {
    /// What the last fault of a call says.
    pub(crate) const fn of(fault: &Fault) -> Self {
        match fault.effect {
            EffectState::NotApplied => Self::Refused,
            EffectState::Failed => Self::Failed,
            EffectState::Unknown => Self::Lost,
            EffectState::Unstated if fault.class.is_refusal() => Self::Refused,
            EffectState::Unstated if fault.leaves_unknown(EffectKind::Irreversible) => Self::Lost,
            EffectState::Unstated => Self::Failed,
        }
    }

    /// Whether an attempt may have acted of which only the class is remembered. These three are refusals by
    /// themselves, and also what is said of them where a server has failed on the way.
    pub(crate) const fn may_have_acted(class: Class) -> bool {
        !class.is_refusal()
            || matches!(class, Class::Overloaded | Class::InputValidation | Class::Business)
    }

    /// What the ledger is told. `doubtful`: an attempt before the last one may have acted, which only a tool
    /// that may be asked again has.
    pub(crate) fn input(
        self,
        key: EffectKey,
        kind: EffectKind,
        doubtful: bool,
        fault: &Fault,
    ) -> Input {
        let repeats = kind.is_replay_safe();
        match self {
            Self::Refused if doubtful && repeats => Input::Lost(key),
            Self::Refused => Input::Rejected(key),
            Self::Waited if !repeats => Input::Rejected(key),
            Self::Failed => Input::Failed(key, fault.clone()),
            Self::Waited | Self::Suspended | Self::Lost => Input::Lost(key),
        }
    }
}

#[cfg(test)]
mod tests;
