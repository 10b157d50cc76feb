//! Requests of which nobody knows whether they were done, in the hands of a person.
//!
//! *Invariant.* Nothing is asked anew here: a key is free again, and whoever may use it decides.

use std::sync::Arc;

use super::{System, Upkeep};
use crate::effects::EffectsRef;
use crate::error::{QuarantineError, ResolveError};
use crate::fate::Fate;
use crate::journal::{Journal, Journaled, failed};

impl System {
    /// The keys of the requests whose fate is `Unknown`, the oldest first, of the last 65,536 that have a fate, also
    /// of those that an earlier process has told, or ended before it could. None without a store.
    pub fn in_doubt(&self) -> Vec<Arc<str>> {
        let Some(journal) = self.inner.hub.journal.get() else { return Vec::new() };
        let is_over =
            |key: &Arc<str>| matches!(journal.known(key), Some(Journaled::Fated(Fate::Unknown, _)));
        journal.in_doubt().into_iter().filter(is_over).collect()
    }

    /// A person has found out that a request to a durable child or group whose fate is `Unknown` has not happened:
    /// under its key it may be asked again. Such are told in
    /// [`Recovered::in_doubt`](super::Recovered::in_doubt), and by
    /// [`CallError::Unknown`](crate::error::CallError::Unknown). The fate that it had is not taken back. Where it was
    /// asked for as an effect that is unknown, that counts as [not happened](EffectsRef::did_not_happen), too.
    ///
    /// # Errors
    /// No request with this key has the fate `Unknown`; the journal cannot be written, and the key is then taken as
    /// before.
    pub async fn did_not_happen(&self, key: &str) -> Result<(), QuarantineError> {
        let not_in_doubt = || QuarantineError::NotInDoubt(key.to_owned());
        freed(self.inner.hub.journal.get().ok_or_else(not_in_doubt)?, key).await?;
        told(&self.effects(), key).await
    }
}

impl Upkeep {
    /// The keys of the requests whose fate is `Unknown`, the oldest first, of the last 65,536 that have a fate; and
    /// then of those that have none and that the next process gives it, since code that may not be repeated had
    /// begun with them when the last one ended.
    pub fn in_doubt(&self) -> Vec<Arc<str>> {
        self.journal.in_doubt()
    }

    /// As [`System::did_not_happen`]. One that has no fate is delivered again by the next process.
    ///
    /// # Errors
    /// As there; also of one that is not [in doubt](Upkeep::in_doubt).
    pub async fn did_not_happen(&self, key: &str) -> Result<(), QuarantineError> {
        match self.journal.was_not_done(&Arc::from(key)) {
            Some(written) => match written.await {
                Ok(_) => Ok(()),
                Err(error) => Err(QuarantineError::Journal(failed(&error))),
            },
            None => {
                freed(&self.journal, key).await?;
                told(&self.effects(), key).await
            }
        }
    }
}

/// Where it was asked for as an effect, that did not happen either.
async fn told(effects: &EffectsRef, key: &str) -> Result<(), QuarantineError> {
    effects.was_not_done(key).await.map_err(|error| match error {
        ResolveError::Journal(fault) => QuarantineError::Journal(fault),
        // Somebody else has spoken on it meanwhile.
        _ => QuarantineError::NotInDoubt(key.to_owned()),
    })
}

async fn freed(journal: &Arc<Journal>, key: &str) -> Result<(), QuarantineError> {
    if !matches!(journal.known(key), Some(Journaled::Fated(Fate::Unknown, _))) {
        return Err(QuarantineError::NotInDoubt(key.to_owned()));
    }
    let freed = journal.freed(&Arc::from(key));
    freed.await.map_err(|error| QuarantineError::Journal(failed(&error)))
}
