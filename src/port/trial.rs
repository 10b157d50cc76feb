//! What comes with a request that an earlier process has left.
//!
//! *Invariant.* What a request comes with was so before it was handed out here: what this process makes of
//! it is in its book.

use std::pin::Pin;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::checkpoint::Commit;
use crate::id::ChildPath;

/// What was returned for a request that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Back {
    /// It went back to where it began.
    #[serde(default)]
    pub(crate) own: bool,
    /// The widest supervisor that returned, or was to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) widest: Option<ChildPath>,
}

impl Back {
    pub(crate) const fn is_none(&self) -> bool {
        !self.own && self.widest.is_none()
    }
}

/// Whether the process ends with a request in hand, which is written down before it can: until the request
/// has got on from where it was taken up.
pub(crate) trait Trial: Send + Sync {
    /// Waits until it may be worked on.
    fn turn(&self) -> Turning<'_>;
    /// Somebody is about to work on it, for a request after so many of its steps. To be waited for before that
    /// is done.
    fn take_up(&self, step: u64) -> Option<Commit>;
    /// Somebody who had taken it up does not work on it now. What is written may be waited for.
    fn put_down(&self) -> Option<Commit>;
    /// It has got on, and that is written down: it is on trial no more.
    fn got_on(&self);
    /// Whether a state after so many steps is further than where it was taken up, and it is on trial.
    fn is_further(&self, step: u64) -> bool;
    /// Whether a state after so many steps is to be stored, whatever else says so.
    fn wants_kept(&self, step: u64) -> bool;
}

pub(crate) type Turning<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// A request that is on trial, or one that was asked for on its behalf: the process may end in the hands of
/// either.
#[derive(Clone)]
pub(crate) struct Trying {
    pub(crate) trial: Arc<dyn Trial>,
    is_own: bool,
}

impl Trying {
    pub(crate) fn new(trial: Arc<dyn Trial>) -> Self {
        Self { trial, is_own: true }
    }

    /// What the requests come with that this one asks for.
    pub(crate) fn on_behalf(&self) -> Self {
        Self { trial: Arc::clone(&self.trial), is_own: false }
    }

    /// As [`Trial::take_up`]; the steps of a request that was asked for are not its own.
    pub(crate) fn take_up(&self, step: u64) -> Option<Commit> {
        self.trial.take_up(if self.is_own { step } else { u64::MAX })
    }

    pub(crate) fn is_further(&self, step: u64) -> bool {
        self.is_own && self.trial.is_further(step)
    }

    pub(crate) fn wants_kept(&self, step: u64) -> bool {
        self.is_own && self.trial.wants_kept(step)
    }
}
