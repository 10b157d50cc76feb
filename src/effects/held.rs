//! Acts whose tool does nothing until somebody has decided.
//!
//! *Invariant.* As long as an act is held, it is written down that it has not happened; and nothing is done for it
//! before it is written down again that it may have.

use super::Effects;
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
