//! What most children have nothing of, most of the time: kept apart, so that the others are small and
//! are asked one question instead of eight.
//!
//! *Invariant.* It is there only while there is something in it, but for the time of a lock.

use std::sync::{Arc, Weak};

use tokio::sync::Notify;

use super::{Desk, hold, line, state};
use crate::behavior::Place;
use crate::id::RequestId;
use crate::port::Flight;
use crate::slot::worker::Worker;

/// A request that is tried again, and where it goes on.
pub(super) type Resume = Box<(RequestId, Place)>;

/// See the [module](self).
pub(super) struct Rare<W: Worker> {
    pub(super) resume: Option<Resume>,
    /// Attempts that were given up; those that somebody still works on are zombies.
    pub(super) zombies: Vec<Weak<Flight>>,
    /// Who waits for the life to come to rest.
    pub(super) resting: Option<Arc<Notify>>,
    /// The request that the life was restored to the middle of, and where it goes on.
    pub(super) continues: Option<state::Continues>,
    /// The life that the next one is, whatever the last had become.
    pub(super) candidate: Option<Box<line::Candidate<W::Life>>>,
    /// Why no work is handed out.
    pub(super) holds: Vec<Arc<hold::Hold>>,
    /// The turn this child has been given by its quota domain.
    pub(super) gate: Option<Box<crate::circuit::Slot>>,
    /// The state is one of before requests that were answered: they are replayed before anything else is
    /// done.
    pub(super) behind: bool,
    /// The child is gone for good, and whoever has its path next must find nothing of it.
    pub(super) unmade: bool,
    /// What was the user's and is to be dropped once the lock is released.
    pub(super) rubbish: Vec<Box<dyn Send>>,
}

impl<W: Worker> Default for Rare<W> {
    fn default() -> Self {
        Self {
            resume: None,
            zombies: Vec::new(),
            resting: None,
            continues: None,
            candidate: None,
            holds: Vec::new(),
            gate: None,
            behind: false,
            unmade: false,
            rubbish: Vec::new(),
        }
    }
}

impl<W: Worker> Rare<W> {
    pub(super) fn is_empty(&self) -> bool {
        // Named one by one, so that a new field is not forgotten here.
        let Self {
            resume,
            zombies,
            resting,
            continues,
            candidate,
            holds,
            gate,
            behind,
            unmade,
            rubbish,
        } = self;
        resume.is_none()
            && zombies.is_empty()
            && resting.is_none()
            && continues.is_none()
            && candidate.is_none()
            && holds.is_empty()
            && gate.is_none()
            && !*behind
            && !*unmade
            && rubbish.is_empty()
    }
}

impl<W: Worker> Desk<W> {
    /// What is rare, to put something in.
    pub(super) fn rare(&mut self) -> &mut Rare<W> {
        self.rare.get_or_insert_default()
    }

    pub(super) fn holds(&self) -> &[Arc<hold::Hold>] {
        self.rare.as_ref().map_or(&[], |rare| &rare.holds)
    }

    pub(super) fn resting(&self) -> Option<Arc<Notify>> {
        self.rare.as_ref()?.resting.clone()
    }

    pub(super) fn candidate(&self) -> Option<&line::Candidate<W::Life>> {
        self.rare.as_ref()?.candidate.as_deref()
    }

    pub(super) fn take_candidate(&mut self) -> Option<Box<line::Candidate<W::Life>>> {
        self.rare.as_mut()?.candidate.take()
    }

    pub(super) fn take_continues(&mut self) -> Option<state::Continues> {
        self.rare.as_mut()?.continues.take()
    }

    pub(super) fn take_gate(&mut self) -> Option<Box<crate::circuit::Slot>> {
        self.rare.as_mut()?.gate.take()
    }

    pub(super) fn take_resume(&mut self) -> Option<Resume> {
        self.rare.as_mut()?.resume.take()
    }

    /// As [`Desk::take_resume`], for the end of a life. That a request has been returned to its beginning says nothing of
    /// the steps of the life, and is told by the next one.
    pub(super) fn take_steps(&mut self) -> Option<Resume> {
        self.rare.as_mut()?.resume.take_if(|resume| !resume.1.is_returned())
    }

    /// Where this request goes on, if it is the one.
    pub(super) fn take_resume_of(&mut self, request: RequestId) -> Option<Resume> {
        self.rare.as_mut()?.resume.take_if(|resume| resume.0 == request)
    }

    /// The request that has been returned to its beginning and is told so when it is tried again.
    pub(super) fn returned(&self) -> Option<RequestId> {
        let resume = self.rare.as_ref()?.resume.as_deref();
        resume.filter(|(_, place)| place.is_returned()).map(|(request, _)| *request)
    }

    pub(super) fn has_zombies(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| !rare.zombies.is_empty())
    }

    /// Attempts that were given up and have not come back.
    pub(super) fn zombies(&self) -> usize {
        let Some(rare) = &self.rare else { return 0 };
        rare.zombies.iter().filter(|zombie| zombie.strong_count() > 0).count()
    }
}
