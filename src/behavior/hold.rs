//! What an attempt asks the runtime for that its child is a part of.
//!
//! *Invariant.* Nothing is done for a request that is held.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::Context;
use crate::clock::Clock;
use crate::event::Event;
use crate::fault::Fault;
use crate::id::{ChildPath, EffectKey};
use crate::port::PortTable;

pub(crate) type Undoes<'a> = Doing<'a, ()>;
pub(crate) type Doing<'a, T> = Pin<Box<dyn Future<Output = Result<T, Fault>> + Send + 'a>>;

/// What stays the same over all attempts of a child.
pub(crate) trait Seat: Send + Sync {
    fn path(&self) -> &ChildPath;
    fn ports(&self) -> Option<&PortTable>;
    fn clock(&self) -> &Arc<dyn Clock>;
    /// What its checkpoint interval counts.
    fn counts(&self) -> Option<&str>;
    /// Tells one system from another, in idempotency keys.
    fn identity(&self) -> u64;
    /// Has everybody who listens hear of it.
    fn emit(&self, event: Event);
    /// See [`Context::undo_within`].
    fn undo_within<'a>(&'a self, key: &'a str) -> Undoes<'a>;
    /// See [`Context::hold`].
    fn hold<'a>(&'a self, key: &'a str, attempt: u32) -> Doing<'a, Option<EffectKey>>;
    /// See [`Hold::goes_on`].
    fn goes_on(&self, key: EffectKey, attempt: u32) -> Doing<'_, ()>;
}

/// A request for which nothing is done yet; see [`Context::hold`].
#[must_use = "what is held is never done before `Hold::goes_on`"]
pub struct Hold {
    seat: Arc<dyn Seat>,
    key: Option<EffectKey>,
    attempt: u32,
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Hold {
    /// From now on it may have been done. Written down before this returns: what is to be done, or handed on to whoever
    /// does it, is so after it.
    ///
    /// # Errors
    /// The asker has left (class `cancelled`, code `let_go`), or the store does not take it: it must not be done.
    pub async fn goes_on(self) -> Result<(), Fault> {
        match self.key {
            Some(key) => self.seat.goes_on(key, self.attempt).await,
            None => Ok(()),
        }
    }
}

impl Context {
    /// Says that nothing is done for this request before [`Hold::goes_on`]; whoever waits for a person's decision says so
    /// before. If it is an act that may not be repeated, the next attempt, or the next process, asks for it again, where
    /// nobody would know else whether it has happened; and it does not take place any more once its asker has left.
    ///
    /// Written down before this returns. Nothing is held of a request that is no act, or one that may be repeated, and of
    /// one that somebody else has had before, who did not hold it.
    ///
    /// # Errors
    /// The store does not take it.
    pub async fn hold(&self) -> Result<Hold, Fault> {
        let key = match self.key.as_deref() {
            Some(key) => self.seat.hold(key, self.attempt).await?,
            None => None,
        };
        Ok(Hold { seat: Arc::clone(&self.seat), key, attempt: self.attempt })
    }
}
