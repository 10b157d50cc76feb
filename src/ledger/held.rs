//! Acts that are with somebody who does nothing before it is decided.
//!
//! *Invariant.* What is held is rejected to whoever reads the journal, and under way to whoever asks in this process.

use super::{EffectKey, EffectStatus, Ledger, Record};

impl Ledger {
    /// It has not happened, whoever asks, until it [goes on](Ledger::go_on). What may be repeated needs nobody to say so.
    pub(super) fn hold(&mut self, key: EffectKey) -> Option<Record> {
        let entry = self.entries.get_mut(&key).filter(|entry| {
            let is_under_way = entry.in_flight && entry.status == EffectStatus::Intended;
            is_under_way && !entry.intent.kind.is_replay_safe()
        })?;
        Some(entry.becomes(EffectStatus::Rejected))
    }

    /// It may happen from now on, later than all that was asked for before; `None` where it is not held.
    pub(super) fn go_on(&mut self, key: EffectKey) -> Option<Record> {
        let held = self.entries.get(&key).filter(|entry| entry.is_held())?;
        let (intent, epoch) = (held.intent.clone(), held.epoch);
        self.open(intent, epoch).record
    }

    /// Whoever held it in this attempt has let it go on: whoever has the next one is the first who may do something.
    pub(crate) fn passes_on(&mut self, key: EffectKey, attempt: u32) {
        self.passed_on.insert(key, attempt);
    }

    /// Whether nobody who may have done something has had it before this attempt.
    pub(crate) fn is_first(&self, key: EffectKey, attempt: u32) -> bool {
        attempt == 1 || self.passed_on.get(&key).is_some_and(|passed| *passed + 1 == attempt)
    }

    /// Nobody waits for it any more: where it is held, it does not happen. Whether it was.
    pub(crate) fn lets_go_of_held(&mut self, key: EffectKey) -> bool {
        let held = self.entries.get_mut(&key).filter(|entry| entry.is_held());
        held.map(|entry| entry.in_flight = false).is_some()
    }
}

impl Ledger {
    /// That it may happen could not be written down: it does not.
    pub(crate) fn hold_again(&mut self, key: EffectKey) {
        if let Some(entry) = self.entries.get_mut(&key)
            && entry.in_flight
            && entry.status == EffectStatus::Intended
        {
            entry.status = EffectStatus::Rejected;
        }
    }
}

impl super::Entry {
    /// Whether it is with somebody who does nothing before it is decided.
    pub(crate) fn is_held(&self) -> bool {
        self.in_flight && self.status == EffectStatus::Rejected
    }
}
