//! Whether somebody has begun with a request whose work may not be repeated.
//!
//! A process that ends takes with it what it knew of the work it was at. For work that does no harm when it is
//! done again that is no loss. For any other the journal says, before the work begins, that it was begun; and
//! once it has ended and it is known that nothing has happened, that too.
//!
//! *Invariant.* Code that may not be repeated begins with a request once the store has said that it was handed
//! out.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Journal;
use super::line::Line;
use crate::checkpoint::{Batch, Commit, Durability};

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Hand {
    /// Whoever may have worked on it may be repeated.
    #[default]
    Harmless,
    /// Nobody is at work on it who may have acted.
    In,
    /// Somebody is, or was, and may have acted.
    Out,
    /// A version has accepted it that did not write this down.
    Untold,
}

impl Hand {
    /// Of one that is accepted by somebody who `acts`.
    pub(crate) const fn of(acts: bool) -> Self {
        if acts { Self::In } else { Self::Harmless }
    }

    /// Whether nobody knows if it was done, where whoever would do it again `acts`.
    pub(crate) const fn is_in_doubt(self, acts: bool) -> bool {
        match self {
            Self::Out => true,
            Self::Untold => acts,
            Self::Harmless | Self::In => false,
        }
    }

    /// Of one that a person has done again.
    pub(super) const fn released(self) -> Self {
        match self {
            Self::In | Self::Out => Self::In,
            // An earlier version may have released it, too.
            Self::Harmless | Self::Untold => self,
        }
    }

    #[allow(clippy::trivially_copy_pass_by_ref)]
    pub(super) const fn is_harmless(&self) -> bool {
        matches!(self, Self::Harmless)
    }
}

impl Journal {
    /// Somebody whose work may not be repeated is about to begin with this request. To be waited for before
    /// that is done; `None` when nothing is to be written.
    pub(crate) fn hands_out(&self, key: &Arc<str>, durability: Durability) -> Option<Commit> {
        let mut state = self.state.lock();
        if !state.hands(key, Hand::Out) {
            return None;
        }
        let line = Line::HandedOut { key: Arc::clone(key), out: true };
        Some(self.commit(Batch::new(), &line, durability))
    }

    /// The keys of the requests of which nobody knows whether they were done: with a fate, and then without.
    pub(crate) fn in_doubt(&self) -> Vec<Arc<str>> {
        self.state.lock().in_doubt()
    }

    /// Whoever had begun with this request has ended, and nothing has happened. Nobody waits for it: what is not
    /// written leaves the next process in doubt, which does no harm.
    pub(crate) fn hands_back(&self, key: &Arc<str>) {
        drop(self.handed_back(key, Durability::Async));
    }

    /// A person says that nothing has happened; `None` when nobody had begun with it, or it is not open.
    pub(crate) fn was_not_done(&self, key: &Arc<str>) -> Option<Commit> {
        self.handed_back(key, Durability::Sync)
    }

    fn handed_back(&self, key: &Arc<str>, durability: Durability) -> Option<Commit> {
        let mut state = self.state.lock();
        if !state.is_out(key) || !state.hands(key, Hand::In) {
            return None;
        }
        let line = Line::HandedOut { key: Arc::clone(key), out: false };
        Some(self.commit(Batch::new(), &line, durability))
    }
}
