//! Checkpoints and rollbacks by hand.
//!
//! *Invariant.* Whoever is asked to return does so as a whole or not at all, and nothing is stopped for
//! what cannot be restored.

use super::System;
use crate::id::{ChildPath, LineId};
use crate::supervisor::Place;
pub use crate::supervisor::{Report, RollbackError, To, Wider};

/// How a rollback is made.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RollbackOptions {
    /// Who wants it, and why; recorded in the event.
    ///
    /// # Default
    /// Nobody.
    pub approval: Option<(String, String)>,
}

impl RollbackOptions {
    /// Every option at its default.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`RollbackOptions::approval`].
    #[must_use]
    pub fn approved_by(mut self, owner: impl Into<String>, reason: impl Into<String>) -> Self {
        self.approval = Some((owner.into(), reason.into()));
        self
    }
}

impl System {
    /// Draws a recovery line: the states of all durable, stateful children below a supervisor, as of one
    /// moment, committed at once. No work is handed out below it meanwhile, and no step begun; requests
    /// wait. A child that waits for a call is between two steps: after a return it makes the call again.
    ///
    /// # Errors
    /// There is no store, no such supervisor, or nothing with a state below it; the children did not
    /// come to stand still within the limit of its scope; the store cannot be written.
    pub async fn checkpoint(&self, path: impl Into<ChildPath>) -> Result<LineId, RollbackError> {
        Place::find(&self.inner.registry, &path.into())?.draw().await
    }

    /// Returns a child to a checkpoint, or the subtree of a supervisor to a recovery line.
    ///
    /// Everything is validated and made ready while the old lives go on; then they are stopped in reverse
    /// order and started again in order, which counts against no restart intensity. Requests in flight
    /// return to the front of their mailboxes, and those that wait, wait. Requests that were answered since are
    /// replayed: nobody hears of it, and nobody is asked for anything ([`Report::replayed`]). Within
    /// [`Scope::Transaction`](crate::checkpoint::Scope) what the open requests have done to the world is
    /// undone, the latest first; a wider scope undoes so what its transactions have done. Effects that stand are not repeated.
    ///
    /// # Errors
    /// What was asked for cannot be restored, and why; [`RollbackError::NoneValid`] names the next wider
    /// scope.
    pub async fn rollback(
        &self,
        path: impl Into<ChildPath>,
        to: To,
    ) -> Result<Report, RollbackError> {
        self.rollback_with(path, to, RollbackOptions::default()).await
    }

    /// [`System::rollback`] with options.
    ///
    /// # Errors
    /// As [`System::rollback`].
    pub async fn rollback_with(
        &self,
        path: impl Into<ChildPath>,
        to: To,
        options: RollbackOptions,
    ) -> Result<Report, RollbackError> {
        let path = path.into();
        let place = Place::find(&self.inner.registry, &path)?;
        if options.approval.is_none() {
            place.may_return_by_itself()?;
        }
        place.roll_back(to, options.approval).await
    }
}
