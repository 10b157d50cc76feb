//! What a request has ended with, as the journal says it beside the fate.
//!
//! *Invariant.* What an earlier version wrote says nothing of how an answer was given, which is not the same as
//! nothing to say.

use crate::fate::{Cost, Given};

/// What a request has ended with, beside its fate.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct End {
    /// The reply as text.
    pub(crate) reply: Option<String>,
    /// `None` where an earlier version wrote it, and of what had no answer and no cost.
    pub(crate) given: Option<Box<Given>>,
}

impl End {
    /// Without an answer, at this cost.
    pub(crate) fn unanswered(cost: Cost) -> Self {
        Self { reply: None, given: Given::nothing(cost) }
    }

    /// Answered so.
    pub(crate) fn answered(reply: String, given: Given) -> Self {
        Self { reply: Some(reply), given: Some(Box::new(given)) }
    }
}

impl From<Option<String>> for End {
    fn from(reply: Option<String>) -> Self {
        Self { reply, given: None }
    }
}
