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
    /// Nothing is done for this act before [`Effects::goes_on`]. `None` where there is nothing to hold.
    /// What somebody else has had before is not held; what is held stays so, whoever has it now.
    pub(crate) async fn hold(&self, key: &str, attempt: u32) -> Result<Option<EffectKey>, Fault> {
        let (key, output) = {
            let mut ledger = self.ledger.lock();
            let Some(entry) = ledger.asked_under(key) else { return Ok(None) };
            let key = entry.intent.key;
            if entry.is_held() {
                return Ok(Some(key));
            }
            if !ledger.is_first(key, attempt) {
                return Ok(None);
            }
            (key, ledger.on(Input::Held(key)))
        };
        // Whoever has asked may have left before.
        self.changed.notify_waiters();
        let Some(record) = output.record else { return Ok(None) };
        self.keep(record).await?;
        Ok(Some(key))
    }

    /// From now on it may have happened.
    pub(crate) async fn goes_on(&self, key: EffectKey, attempt: u32) -> Result<(), Fault> {
        let output = {
            let mut ledger = self.ledger.lock();
            let output = ledger.on(Input::GoesOn(key));
            if output.record.is_some() {
                ledger.passes_on(key, attempt);
            }
            output
        };
        let Some(record) = output.record else {
            let text = "nobody waits for this any more, and nothing was done";
            return Err(Fault::new(Class::Cancelled, text).with_code(LET_GO).not_applied());
        };
        self.keep(record).await.inspect_err(|_| self.ledger.lock().hold_again(key))
    }

    /// Nobody waits for this act any more. Whether it was held, and so will not happen.
    pub(super) fn lets_go(&self, key: EffectKey) -> bool {
        let is_held = self.ledger.lock().lets_go_of_held(key);
        if is_held {
            self.changed.notify_waiters();
        }
        is_held
    }
}
