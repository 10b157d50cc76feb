//! What comes with a call.
//!
//! *Invariant.* A call that comes with nothing special carries nothing for it.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::{Back, CallOptions, Gate, Late, Soft, Tie, Trying};
use crate::checkpoint::Budgets;
use crate::policy::budget::{Limits, Purse};

/// How the keys of undos begin, which nobody else may give: what was done under one counts as the undo.
pub(crate) const UNDO: &str = "undo-";

/// [`CallOptions`] and what comes with a call inside the runtime.
#[derive(Default)]
pub(crate) struct AcceptOptions {
    pub(crate) tie: Option<Arc<Tie>>,
    pub(crate) cast: bool,
    /// Who is to be woken with the answer, if that is known already.
    pub(crate) waker: Option<Waker>,
    pub(super) more: Option<Box<More>>,
}

/// What most calls do not come with, kept apart so that they are small.
#[derive(Default)]
pub(crate) struct More {
    pub(crate) deadline: Option<Duration>,
    pub(crate) key: Option<Arc<str>>,
    /// Whoever calls has given it a key of those that are the runtime's own.
    pub(crate) forged: bool,
    pub(crate) budget: Option<Limits>,
    pub(crate) purse: Option<Purse>,
    /// It stands in the journal already.
    pub(crate) recovered: bool,
    /// It was accepted before, and needs no room.
    pub(crate) has_place: bool,
    /// Its asker, should it be cut short, asks for it again under the same key.
    pub(crate) joined: bool,
    /// Another process has accepted it for somebody who asks for it again: the soft failures of that one.
    pub(crate) soft: Option<Soft>,
    /// What it has spent in other processes.
    pub(crate) before: Budgets,
    /// What a durable request waits for before anything is done about it.
    pub(crate) gate: Option<Arc<Gate>>,
    /// Whether the process ends with it in hand, for one that an earlier process has left or that such a one
    /// asks for.
    pub(crate) trial: Option<Trying>,
    /// Whom its answer is of use to also after its fate.
    pub(crate) late: Option<Arc<Late>>,
    /// What was returned for it by earlier processes.
    pub(crate) back: Back,
    /// Which time it was accepted under its key, of one that stands in the journal.
    pub(crate) round: u64,
}

impl AcceptOptions {
    pub(super) fn new(options: CallOptions, tie: Option<Arc<Tie>>) -> Self {
        let CallOptions { deadline, key, budget } = options;
        let forged = key.as_ref().is_some_and(|key| key.starts_with(UNDO));
        let more = (deadline.is_some() || key.is_some() || budget.is_some()).then(|| {
            Box::new(More { deadline, key: key.map(Arc::from), budget, forged, ..More::default() })
        });
        Self { tie, more, ..Self::default() }
    }

    /// One that comes with more than most.
    pub(crate) fn with(more: More) -> Self {
        Self { more: Some(Box::new(more)), ..Self::default() }
    }

    pub(crate) fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.more.as_ref()?.deadline
    }

    pub(crate) fn is_recovered(&self) -> bool {
        self.more.as_ref().is_some_and(|more| more.recovered)
    }

    pub(super) fn is_forged(&self) -> bool {
        self.more.as_ref().is_some_and(|more| more.forged)
    }

    pub(crate) fn has_place(&self) -> bool {
        self.more.as_ref().is_some_and(|more| more.has_place)
    }
}
