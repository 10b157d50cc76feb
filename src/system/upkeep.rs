//! A store that no tree works with, in the hands of a person: what was set aside in it, and what nobody
//! knows the outcome of.
//!
//! *Invariant.* No life begins here and no tool is asked. What a person decides is written down, and done
//! by the next [`System::recover`](super::System::recover).

use std::fmt;
use std::sync::Arc;

use super::quarantine::{NAMESAKE, exported, release_all, told, unknown};
use crate::checkpoint::store::Item;
use crate::checkpoint::{Batch, Durability, Listed, Store};
use crate::clock::TokioClock;
use crate::effects::{Effects, EffectsRef, Keep};
use crate::error::{QuarantineError, RecoverError};
use crate::id::{CheckpointId, ChildPath};
use crate::journal::{Aside, Journal, Journaled, Open, failed};
use crate::ledger::{EffectStatus, Entry, Ledger};
use crate::quarantine::Quarantined;

/// What a store has set aside, while no system runs on it. Made with [`Upkeep::of`]; the counterpart within a
/// running system is [`System::quarantine`](super::System::quarantine) with
/// [`System::effects`](super::System::effects).
///
/// It reads the store once, when it is made: nobody else may write to the store meanwhile. A
/// [`FileStore`](crate::checkpoint::FileStore) sees to that, and names whoever has it.
pub struct Upkeep {
    pub(super) journal: Arc<Journal>,
    effects: Arc<Effects>,
}

impl fmt::Debug for Upkeep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upkeep").finish_non_exhaustive()
    }
}

impl Upkeep {
    /// Reads a store. Nothing is written. May block on files; in a tokio runtime with time.
    ///
    /// # Errors
    /// The store cannot be read, or its journal is of a later version.
    pub fn of(store: Arc<dyn Store>) -> Result<Self, RecoverError> {
        let (journal, records) = Journal::open(store, Arc::new(TokioClock::new()))?;
        let mut ledger = Ledger::replayed(records);
        let is_lost = |entry: &&Entry| {
            // A tool that goes on with its own request tells.
            let told = journal.known(&entry.idempotency_key()) == Some(Journaled::Open);
            !told && is_lost(entry, journal.known(&entry.intent.task).as_ref())
        };
        let lost: Vec<_> =
            ledger.entries().into_iter().filter(is_lost).map(|entry| entry.intent.key).collect();
        for key in lost {
            // Here only: the next process finds the same, and writes it down.
            ledger.orphan(key);
        }
        let effects = Effects::new(|_| {});
        *effects.ledger.lock() = ledger;
        effects.attach(Arc::clone(&journal) as Arc<dyn Keep>);
        Ok(Self { journal, effects })
    }

    /// How many accepted requests have no fate yet, and are delivered again by the next process, but for those that
    /// are [in doubt](Upkeep::in_doubt).
    pub fn open_requests(&self) -> usize {
        self.journal.open_requests().len()
    }

    /// Every request that was set aside, the oldest first. What was asked is not told.
    pub fn requests(&self) -> Vec<Quarantined> {
        self.journal.set_aside().iter().map(told).collect()
    }

    /// A request as JSON, with what was asked, as a text if that cannot be read: user data, which stands nowhere
    /// else outside the store.
    ///
    /// # Errors
    /// No such request was set aside; it cannot be written down.
    pub fn export(&self, id: &str) -> Result<String, QuarantineError> {
        exported(&self.journal.aside(id).ok_or_else(|| unknown(id))?)
    }

    /// Has the next process do a request after all, as one that was accepted and has no fate: with attempts
    /// and crashes counted anew and the child's own deadline. Effects that were confirmed are not repeated. One
    /// that its child cannot read is found by that process, and refused or set aside again, as its
    /// [options](crate::system::RecoverOptions::set_unreadable_aside) say.
    ///
    /// # Errors
    /// No such request was set aside; the tree that the store belongs to has nothing that would take it, or only
    /// another child that was started from a template under the same id; the journal cannot be written. It is then
    /// set aside as before.
    pub async fn release(&self, id: &str) -> Result<(), QuarantineError> {
        let Aside { open: Open { child, .. }, deleted, .. } =
            self.journal.aside(id).ok_or_else(|| unknown(id))?;
        let why = if !self.has(&child)? {
            // A tree that does not find it cannot be taken up.
            Some(format!("nothing durable is at \"{child}\""))
        } else {
            deleted.then(|| NAMESAKE.to_owned())
        };
        if let Some(why) = why {
            return Err(QuarantineError::Refused { id: id.to_owned(), why });
        }
        let (_, handed) = self.journal.released(id).ok_or_else(|| unknown(id))?;
        handed.await.map_err(|error| QuarantineError::Journal(failed(&error)))
    }

    /// Gives a request up for good. Its fate stays `Quarantined`; under its key it is not accepted again.
    ///
    /// # Errors
    /// No such request was set aside; the journal cannot be written, and it is then set aside as before.
    pub async fn discard(&self, id: &str) -> Result<(), QuarantineError> {
        let handed = self.journal.discarded(id).ok_or_else(|| unknown(id))?;
        handed.await.map_err(|error| QuarantineError::Journal(failed(&error)))
    }

    /// Every checkpoint that was set aside because it could not be restored, with the reason. May block on
    /// files.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn checkpoints(&self) -> Result<Vec<Listed>, QuarantineError> {
        Ok(self.journal.store.quarantined()?)
    }

    /// A checkpoint that was set aside, whole: state and request in hand are user data.
    /// [`Export::read`](crate::checkpoint::Export::read) reads it, also elsewhere. May block on files.
    ///
    /// # Errors
    /// No such checkpoint was set aside; its bytes cannot be read.
    pub fn export_checkpoint(&self, id: CheckpointId) -> Result<Vec<u8>, QuarantineError> {
        self.is_bad(id)?;
        Ok(self.journal.store.load(id)?.export()?)
    }

    /// Lets a checkpoint be restored again, since what could not read it has been mended: the next process
    /// looks at it.
    ///
    /// # Errors
    /// No such checkpoint was set aside; the store cannot be written, and it is then set aside as before.
    pub async fn release_checkpoint(&self, id: CheckpointId) -> Result<(), QuarantineError> {
        self.is_bad(id)?;
        self.journal.store.commit(Batch::new().release(id), Durability::Sync).await?;
        Ok(())
    }

    /// Lets all checkpoints of a child that were set aside be restored again, in one commit: after a version of
    /// your program that could not restore them, which is gone. Which they are, the oldest first; none, if none of
    /// it was set aside.
    ///
    /// # Errors
    /// The store cannot be read or written, and they are then set aside as before.
    pub async fn release_checkpoints(
        &self,
        child: &ChildPath,
    ) -> Result<Vec<CheckpointId>, QuarantineError> {
        release_all(&self.journal, child).await
    }

    /// Gives up a checkpoint that was set aside: it is gone from the store, and a recovery line that names it
    /// is not returned to. What was built on it stays whole. Only here, since a running child may be about to
    /// build on it.
    ///
    /// # Errors
    /// No such checkpoint was set aside; the store cannot be written, and it is then set aside as before.
    pub async fn discard_checkpoint(&self, id: CheckpointId) -> Result<(), QuarantineError> {
        self.is_bad(id)?;
        self.journal.store.commit(Batch::new().item(Item::Drop(id)), Durability::Sync).await?;
        Ok(())
    }

    /// The effects that the store knows, and how those are settled that wait for a person. One whose process
    /// ended before its outcome was known, and whose request nobody works on any more, is unknown here, as it
    /// will be to the next process. Of a request that has failed that process undoes it by itself where it is of a
    /// transaction and has an undo; the store does not know which requests are, and a person's word helps there, too.
    pub fn effects(&self) -> EffectsRef {
        EffectsRef::new(Arc::clone(&self.effects))
    }

    fn is_bad(&self, id: CheckpointId) -> Result<(), QuarantineError> {
        let bad = self.checkpoints()?.iter().any(|listed| listed.checkpoint.id == id);
        if bad { Ok(()) } else { Err(QuarantineError::NotBad(id)) }
    }

    /// Whether the tree that used the store last keeps requests at this path, or will when it is taken up again.
    fn has(&self, child: &ChildPath) -> Result<bool, QuarantineError> {
        let topology = self.journal.store.info()?.topology;
        // A line is a path and what kind of child is there.
        let is_its =
            |line: &String| line.rsplit_once(' ').map(|(path, _)| path) == Some(child.as_str());
        let has = topology.is_none_or(|topology| topology.lines.iter().any(is_its));
        // Children of templates are no part of the tree's shape.
        Ok(has || self.journal.has_made(child))
    }
}

/// Whether nobody knows what became of an effect, and nobody works on its request any more.
fn is_lost(entry: &Entry, request: Option<&Journaled>) -> bool {
    entry.status == EffectStatus::Intended && request != Some(&Journaled::Open)
}

#[cfg(test)]
mod tests;
