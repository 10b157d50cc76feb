//! A request that begins here after another member of the group has acted for it.
//!
//! *Invariant.* It is told by its first turn what of that stands, however often it begins here: it is looked up each
//! time, and what this child has done for it changes nothing in it.

use std::sync::Arc;

use crate::behavior::{Turn, Undone};
use crate::slot::worker::Worker;
use crate::slot::{Mail, Slot};

impl<W: Worker> Slot<W> {
    /// What other members of the group have done for a request that begins here, if any of it stands or nobody knows.
    pub(crate) fn takes_over(&self, mail: &Mail<W>) -> Option<Arc<Undone>> {
        // Most have nobody to take anything over from.
        if !self.spec.stateful || self.member.get().is_none() || !self.hub.effects.is_used() {
            return None;
        }
        self.left_by_siblings(&self.task_of(mail))
    }

    /// The turn that the request of this task began with here, if it was not returned to its beginning.
    pub(crate) fn first_turn(&self, task: &str) -> Turn {
        self.left_by_siblings(task).map_or(Turn::First, Turn::RolledBack)
    }

    fn left_by_siblings(&self, task: &str) -> Option<Arc<Undone>> {
        let group = self.member.get()?.group.upgrade()?;
        let undone = self.hub.effects.left_by(task, &self.path, |owner| group.has_member(owner));
        undone.map(Arc::new)
    }
}
