//! Acts whose tool does nothing until somebody has decided.
//!
//! *Invariant.* As long as an act is held, it is written down that it has not happened; and nothing is done for it
//! before it is written down again that it may have.

use std::fmt;
use std::sync::Arc;

use super::Effects;
use crate::behavior::{Context, Seat};
use crate::fault::{Class, Fault};
use crate::ledger::{EffectKey, Input};

/// The code of the fault by which a person's decision comes too late.
const LET_GO: &str = "let_go";

impl Effects {
    /// The act whose tool is given this key.
    fn given(&self, key: &str) -> Option<EffectKey> {
        let name = key.rsplit('/').next()?.rsplit_once('-')?.0;
        let name = name.parse().ok()?;
        let ledger = self.ledger.lock();
        ledger.get(name).filter(|entry| entry.idempotency_key() == key).map(|_| name)
    }

    /// Nothing is done for this act before [`Effects::goes_on`]. `None` where there is nothing to hold.
    pub(crate) async fn hold(&self, key: &str) -> Result<Option<EffectKey>, Fault> {
        let Some(key) = self.given(key) else { return Ok(None) };
        let output = self.ledger.lock().on(Input::Held(key));
        let Some(record) = output.record else { return Ok(None) };
        self.keep(record).await?;
        Ok(Some(key))
    }

    /// From now on it may have happened.
    pub(crate) async fn goes_on(&self, key: EffectKey) -> Result<(), Fault> {
        let output = self.ledger.lock().on(Input::GoesOn(key));
        let Some(record) = output.record else {
            let text = "nobody waits for this any more, and nothing was done";
            return Err(Fault::new(Class::Cancelled, text).with_code(LET_GO).not_applied());
        };
        self.keep(record).await
    }

    /// Nobody waits for this act any more. Whether it was held, and so will not happen.
    pub(super) fn lets_go(&self, key: EffectKey) -> bool {
        let is_held = self.ledger.lock().lets_go_of_held(key);
        self.changed.notify_waiters();
        is_held
    }
}

/// A request for which nothing is done yet; see [`Context::hold`].
#[must_use = "what is held is never done before `Hold::goes_on`"]
pub struct Hold {
    seat: Arc<dyn Seat>,
    key: Option<EffectKey>,
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
            Some(key) => self.seat.goes_on(key).await,
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
    /// one that somebody else has had before.
    ///
    /// # Errors
    /// The store does not take it.
    pub async fn hold(&self) -> Result<Hold, Fault> {
        let key = match self.key.as_deref().filter(|_| self.attempt == 1) {
            Some(key) => self.seat.hold(key).await?,
            None => None,
        };
        Ok(Hold { seat: Arc::clone(&self.seat), key })
    }
}
