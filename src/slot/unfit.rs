//! States that could not be restored for a life that starts, until it is known whose fault that is.
//!
//! *Invariant.* Nothing is set aside as long as nothing else could be restored either: then it is the program that
//! restores nothing, and the one that mends it finds all that was there.

use super::Slot;
use super::line::of_no_use;
use super::state::{Mid, Saved};
use crate::checkpoint::Snapshot;
use crate::event::Event;
use crate::fault::ExitCause;
use crate::id::{CheckpointId, Incarnation};
use crate::slot::worker::{Worker, dropped};

/// See the [module](self).
#[derive(Default)]
pub(super) struct Unfit {
    /// Where they are in the store, if they are, and what is wrong; the newest first.
    states: Vec<(Option<CheckpointId>, String)>,
    /// What was in memory at first.
    saved: Option<Box<Saved>>,
    base: Option<Snapshot>,
    mid: Option<Mid>,
}

impl Unfit {
    pub(super) fn is_empty(&self) -> bool {
        self.states.is_empty()
    }
}

impl<W: Worker> Slot<W> {
    /// This one could not be restored: the next is tried.
    pub(super) fn note_unfit(
        &self,
        unfit: &mut Unfit,
        is_mid: bool,
        checkpoint: Option<CheckpointId>,
        why: String,
    ) {
        unfit.states.push((checkpoint, why));
        let mut desk = self.desk();
        let Some(saved) = &mut desk.saved else { return };
        let (mid, base) = match is_mid {
            true => (saved.mid.take(), None),
            false => (None, saved.base.take()),
        };
        // What came from the store another start finds there.
        if unfit.saved.is_some() {
            desk.discard((mid, base));
            return;
        }
        unfit.mid = unfit.mid.take().or(mid);
        unfit.base = unfit.base.take().or(base);
    }

    /// An older state is taken up in the place of those that were in memory.
    pub(super) fn take_older(&self, unfit: &mut Unfit, older: Box<Saved>) {
        let mut desk = self.desk();
        let before = desk.saved.replace(older);
        desk.rare().behind = true;
        match before {
            Some(before) if unfit.saved.is_none() => unfit.saved = Some(before),
            before => desk.discard(before),
        }
    }

    /// Another one could be restored: these are set aside for good, and a person can look at them.
    pub(super) fn set_aside(&self, unfit: Unfit) {
        if unfit.is_empty() {
            return;
        }
        if let Some(saved) = &mut self.desk().saved {
            saved.ended = 0;
        }
        for (checkpoint, why) in &unfit.states {
            self.tell_unfit(*checkpoint, why);
        }
        let _ = dropped(unfit);
    }

    /// Nothing is said of these: the next start finds all as this one did.
    pub(super) fn put_back(&self, unfit: Unfit) {
        if unfit.is_empty() {
            return;
        }
        let Unfit { saved, base, mid, .. } = unfit;
        let mut desk = self.desk();
        if let Some(saved) = saved {
            let tried = desk.saved.replace(saved);
            desk.discard(tried);
        }
        if let Some(saved) = &mut desk.saved {
            saved.base = saved.base.take().or(base);
            saved.mid = saved.mid.take().or(mid);
        }
    }

    /// No state is left to try.
    pub(super) fn begin_without(
        &self,
        life: W::Life,
        unfit: Unfit,
        number: Incarnation,
    ) -> Result<W::Life, ExitCause> {
        if !unfit.is_empty() && self.journal().is_some() {
            let why = of_no_use(&unfit.states);
            let _ = dropped(life);
            self.put_back(unfit);
            return Err(ExitCause::StartFailed(why));
        }
        self.set_aside(unfit);
        let mut desk = self.desk();
        if let Some(saved) = &mut desk.saved {
            saved.steps = 0;
        }
        desk.rare().behind = true;
        drop(desk);
        self.hub.emit(Event::BeganAnew { child: self.path.clone(), incarnation: number });
        Ok(life)
    }
}
