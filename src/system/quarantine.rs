//! What was set aside, in the hands of a person: listed, exported, released.
//!
//! *Invariant.* Nothing is released by itself. What is handed over again is counted as a request accepted
//! anew; the fate it had stays.

use std::fmt;
use std::sync::Arc;

use serde_json::{Value, json};

use super::System;
use crate::checkpoint::{Batch, Durability, Listed};
use crate::error::QuarantineError;
use crate::id::{CheckpointId, ChildPath};
use crate::journal::{Aside, Journal, Releasing, failed};
use crate::port::{AcceptOptions, More, Receipt, dropped, unwound};
use crate::quarantine::{Quarantined, Shelved, Stays};

/// The requests and checkpoints that were set aside. See [`System::quarantine`].
#[derive(Clone)]
pub struct QuarantineRef {
    system: System,
}

impl fmt::Debug for QuarantineRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuarantineRef").finish_non_exhaustive()
    }
}

impl System {
    /// The requests that ended two lives, or the process too often, and the checkpoints that could not be restored: to be listed,
    /// exported and released.
    pub fn quarantine(&self) -> QuarantineRef {
        QuarantineRef { system: self.clone() }
    }
}

/// Why what was set aside of a child that was started while the system ran, and is gone, stays so.
pub(super) const NAMESAKE: &str =
    "its child was deleted, or has ended for good, and another has its path";

impl QuarantineRef {
    /// Every request that was set aside: those of durable children and groups, also by an earlier process,
    /// and then the others, each the oldest first. What was asked is not told.
    ///
    /// Durable ones are kept until they are released or discarded. Of the others the last 1,000 are kept,
    /// until the system is dropped.
    pub fn requests(&self) -> Vec<Quarantined> {
        let durable = self.journal().map(|journal| journal.set_aside()).unwrap_or_default();
        durable.iter().map(told).chain(self.system.inner.hub.shelf.list()).collect()
    }

    /// How many requests that were not durable had to go for newer ones.
    pub fn dropped(&self) -> u64 {
        self.system.inner.hub.shelf.dropped()
    }

    /// A request as JSON, with what was asked: user data, which stands nowhere else outside the store.
    ///
    /// `request` is what was asked as it is recorded, as a text if that cannot be read, and `null` for a child whose requests are not
    /// [recorded](crate::spec::ChildSpec::recorded).
    ///
    /// # Errors
    /// No such request was set aside; it cannot be written down.
    pub fn export(&self, id: &str) -> Result<String, QuarantineError> {
        if let Some(aside) = self.journal().and_then(|journal| journal.aside(id)) {
            return exported(&aside);
        }
        let shelf = &self.system.inner.hub.shelf;
        let (place, shelved) = shelf.take(id).ok_or_else(|| unknown(id))?;
        let codec = self.system.inner.registry.recorded(&shelved.told.child);
        let mut asked = Ok(Value::Null);
        if let Some((_, codec)) = codec {
            shelved.held.with_request(&mut |request| {
                let text =
                    unwound(|| (codec.write_request)(request)).and_then(std::convert::identity);
                asked = text.and_then(|text| {
                    serde_json::from_slice(&text).map_err(|error| error.to_string())
                });
            });
        }
        let told = shelved.told.clone();
        self.drop_outside(shelf.put_back(place, shelved));
        written(&told, &asked.map_err(QuarantineError::Export)?)
    }

    /// Hands a request over again, as a new one behind those that wait, since it is the one that has done
    /// harm: with attempts and crashes counted anew, the child's own deadline, and nobody who waits for the
    /// answer. Its fate can be asked for with [`System::fate`], and of a durable one with
    /// [`System::journaled`]. It keeps its name in the ledger: effects that were confirmed are not repeated.
    /// If it ends two lives again, it comes back here, with all that has failed.
    ///
    /// The fate `Quarantined` that it had is not taken back: it counts as accepted once more.
    ///
    /// # Errors
    /// No such request was set aside; it is still in somebody's hands; the child is gone, also where another was
    /// started under its id, or does not take it; the journal cannot be written. It is then set aside as before.
    pub async fn release(&self, id: &str) -> Result<Receipt, QuarantineError> {
        let durable = self.journal().filter(|journal| journal.aside(id).is_some()).cloned();
        let Some(journal) = durable else { return self.release_held(id) };
        let (system, id) = (self.system.clone(), Arc::<str>::from(id));
        // In a task of its own: between the journal and the mailbox it must not be dropped.
        let released = self
            .system
            .inner
            .hub
            .runtime
            .spawn(async move { Self { system }.release_durable(&journal, &id).await });
        match released.await {
            Ok(result) => result,
            Err(error) => Err(QuarantineError::Journal(failed(&error))),
        }
    }

    async fn release_durable(
        &self,
        journal: &Arc<Journal>,
        id: &Arc<str>,
    ) -> Result<Receipt, QuarantineError> {
        let aside = journal.aside(id).ok_or_else(|| unknown(id))?;
        let refused = |why: String| QuarantineError::Refused { id: id.to_string(), why };
        let (port, codec) =
            self.system.inner.registry.durable_at(&aside.open.child).ok_or_else(|| {
                refused(format!("nothing durable is at \"{}\"", aside.open.child))
            })?;
        let releasing = Releasing::of(journal, id).ok_or_else(|| unknown(id))?;
        if releasing.is_deleted() {
            return Err(refused(NAMESAKE.to_owned()));
        }
        let (open, handed) = journal.released(id).ok_or_else(|| unknown(id))?;
        handed.await.map_err(|error| QuarantineError::Journal(failed(&error)))?;
        let (key, recovered) = (Some(Arc::clone(id)), true);
        let (budget, round) = (open.budget, open.round);
        let options =
            AcceptOptions::with(More { key, budget, round, recovered, ..More::default() });
        match (codec.post)(&port, open.request.as_bytes(), options) {
            Ok(request) => Ok(Receipt { request }),
            Err(why) => {
                // What failed is there already. Where this cannot be written either, the next process
                // finds the request open and does it.
                let back = releasing.sets_back();
                back.await.map_err(|error| QuarantineError::Journal(failed(&error)))?;
                Err(refused(why))
            }
        }
    }

    fn release_held(&self, id: &str) -> Result<Receipt, QuarantineError> {
        let shelf = &self.system.inner.hub.shelf;
        let (place, shelved) = shelf.take(id).ok_or_else(|| unknown(id))?;
        let port = match self.system.inner.registry.port(&shelved.told.child) {
            Some((port, ..)) if !shelved.deleted => port,
            taken => {
                let nobody = || format!("nothing is at \"{}\"", shelved.told.child);
                let why = taken.map_or_else(nobody, |_| NAMESAKE.to_owned());
                self.drop_outside(shelf.put_back(place, shelved));
                return Err(QuarantineError::Refused { id: id.to_owned(), why });
            }
        };
        let Shelved { told, task, deleted, held } = shelved;
        let options = AcceptOptions::with(More { key: Some(Arc::clone(&task)), ..More::default() });
        shelf.remember(&task, &told.trail);
        match held.post(&*port, options) {
            Ok(request) => {
                shelf.lets_out(place);
                Ok(Receipt { request })
            }
            Err(unposted) => {
                let held = unposted.held;
                self.drop_outside(shelf.put_back(place, Shelved { told, task, deleted, held }));
                Err(match unposted.why {
                    Stays::InUse => QuarantineError::InUse(id.to_owned()),
                    Stays::Refused(why) => QuarantineError::Refused { id: id.to_owned(), why },
                })
            }
        }
    }

    /// Gives a request up for good. Its fate stays `Quarantined`; under its key it is not accepted again
    /// where it was durable.
    ///
    /// # Errors
    /// No such request was set aside; the journal cannot be written, and it is then set aside as before.
    pub async fn discard(&self, id: &str) -> Result<(), QuarantineError> {
        let effects = &self.system.inner.hub.effects;
        if let Some(handed) = self.journal().and_then(|journal| journal.discarded(id)) {
            handed.await.map_err(|error| QuarantineError::Journal(failed(&error)))?;
            effects.ended(id);
            return Ok(());
        }
        let taken = self.system.inner.hub.shelf.take(id);
        let (place, shelved) = taken.ok_or_else(|| unknown(id))?;
        self.system.inner.hub.shelf.lets_out(place);
        self.drop_outside(Some(shelved));
        Ok(())
    }

    /// Every checkpoint that was set aside because it could not be restored, with the reason. They are
    /// never deleted by themselves. Empty without a store. May block on files.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn checkpoints(&self) -> Result<Vec<Listed>, QuarantineError> {
        match self.journal() {
            Some(journal) => Ok(journal.store.quarantined()?),
            None => Ok(Vec::new()),
        }
    }

    /// A checkpoint that was set aside, whole: state and request in hand are user data.
    /// [`Export::read`](crate::checkpoint::Export::read) reads it, also elsewhere. May block on files.
    ///
    /// # Errors
    /// No such checkpoint was set aside; its bytes cannot be read.
    pub fn export_checkpoint(&self, id: CheckpointId) -> Result<Vec<u8>, QuarantineError> {
        let journal = self.bad(id)?;
        Ok(journal.store.load(id)?.export()?)
    }

    /// Lets a checkpoint be restored again, since what could not read it has been mended. It is looked at
    /// by the next [`System::recover`], or the next rollback that comes to it; no life is disturbed.
    ///
    /// # Errors
    /// No such checkpoint was set aside; the store cannot be written, and it is then set aside as before.
    pub async fn release_checkpoint(&self, id: CheckpointId) -> Result<(), QuarantineError> {
        let journal = self.bad(id)?;
        journal.store.commit(Batch::new().release(id), Durability::Sync).await?;
        Ok(())
    }

    /// Lets all checkpoints of a child that were set aside be restored again, in one commit: after a version of
    /// your program that could not restore them, which is gone. As [`QuarantineRef::release_checkpoint`] else.
    /// Which they are, the oldest first; none, if none of it was set aside.
    ///
    /// # Errors
    /// The store cannot be read or written, and they are then set aside as before.
    pub async fn release_checkpoints(
        &self,
        child: &ChildPath,
    ) -> Result<Vec<CheckpointId>, QuarantineError> {
        match self.journal() {
            Some(journal) => release_all(journal, child).await,
            None => Ok(Vec::new()),
        }
    }

    fn bad(&self, id: CheckpointId) -> Result<&Arc<Journal>, QuarantineError> {
        let journal = self.journal().ok_or(QuarantineError::NotBad(id))?;
        let bad = journal.store.quarantined()?.iter().any(|listed| listed.checkpoint.id == id);
        bad.then_some(journal).ok_or(QuarantineError::NotBad(id))
    }

    fn journal(&self) -> Option<&Arc<Journal>> {
        self.system.inner.hub.journal.get()
    }

    /// Nobody will ask for it any more.
    fn drop_outside(&self, shelved: Option<Shelved>) {
        if let Some(shelved) = shelved {
            self.system.inner.hub.effects.ended(&shelved.task);
            let _ = dropped(shelved);
        }
    }
}

pub(super) async fn release_all(
    journal: &Journal,
    child: &ChildPath,
) -> Result<Vec<CheckpointId>, QuarantineError> {
    let mut listed = journal.store.quarantined()?;
    listed.retain(|listed| listed.checkpoint.child == *child);
    let ids: Vec<_> = listed.iter().map(|listed| listed.checkpoint.id).collect();
    if !ids.is_empty() {
        let batch = ids.iter().fold(Batch::new(), |batch, id| batch.release(*id));
        journal.store.commit(batch, Durability::Sync).await?;
    }
    Ok(ids)
}

/// A durable request as JSON, with what was asked.
pub(super) fn exported(aside: &Aside) -> Result<String, QuarantineError> {
    // What nobody can read any more is set aside, too, and is shown as it stands there.
    let text = || Value::String(aside.open.request.clone());
    written(&told(aside), &serde_json::from_str(&aside.open.request).unwrap_or_else(|_| text()))
}

pub(super) fn told(aside: &Aside) -> Quarantined {
    Quarantined {
        id: Arc::clone(&aside.open.key),
        child: aside.open.child.clone(),
        request: None,
        at: aside.at,
        trail: aside.open.trail.clone(),
        durable: true,
    }
}

fn written(told: &Quarantined, asked: &Value) -> Result<String, QuarantineError> {
    let mut text =
        serde_json::to_value(told).map_err(|e| QuarantineError::Export(e.to_string()))?;
    if let Some(fields) = text.as_object_mut() {
        fields.insert("number".to_owned(), json!(told.request));
        fields.insert("request".to_owned(), asked.clone());
    }
    Ok(text.to_string())
}

pub(super) fn unknown(id: &str) -> QuarantineError {
    QuarantineError::NotFound(id.to_owned())
}
