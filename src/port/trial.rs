//! What comes with a request that an earlier process has left.
//!
//! *Invariant.* What a request comes with was so before it was handed out here: what this process makes of
//! it is in its book.

use std::pin::Pin;

use serde::{Deserialize, Serialize};

use crate::checkpoint::Commit;
use crate::error::StoreError;
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
    /// It is about to be worked on from this step on: to be waited for before that is done.
    fn take_up(&self, step: u64) -> Taking<'_>;
    /// Nothing of it runs any more. What is written may be waited for.
    fn put_down(&self) -> Option<Commit>;
    /// It has got on, and that is written down: it is on trial no more.
    fn got_on(&self);
    /// Whether a state after so many steps is further than where it was taken up, and it is on trial.
    fn is_further(&self, step: u64) -> bool;
    /// Whether a state after so many steps is to be stored, whatever else says so.
    fn wants_kept(&self, step: u64) -> bool;
}

pub(crate) type Taking<'a> = Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send + 'a>>;
