//! Lives that are ready, until the supervisor agrees to begin with them.
//!
//! *Invariant.* A life is put in its child's place in the same moment in which the supervisor agrees, or not at
//! all: whoever hears that it could not be done finds everything as it was.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::words::WAITING;
use super::{Ask, Phase, Place, RollbackError};
use crate::checkpoint::{Batch, Durability, Store};
use crate::error::ChildError;
use crate::family::Reply;
use crate::hub::Asks;
use crate::id::CheckpointId;
use crate::moment::Moment;
use crate::slot::{Look, Prepared};

/// How long a supervisor that restarts its children is left alone before it is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// What the children that are reset begin with.
pub(crate) struct Lives {
    ready: Mutex<Vec<(Arc<dyn Look>, Prepared)>>,
    phase: Phase,
}

impl Lives {
    pub(super) fn new(ready: Vec<(Arc<dyn Look>, Prepared)>, phase: Phase) -> Arc<Self> {
        Arc::new(Self { ready: Mutex::new(ready), phase })
    }

    /// The supervisor agrees. Whether somebody still wants it.
    pub(crate) fn install(&self) -> bool {
        if !self.phase.begin() {
            return false;
        }
        self.phase.set("stopping and starting");
        for (child, life) in std::mem::take(&mut *self.ready.lock()) {
            child.install(life);
        }
        true
    }
}

impl Place {
    /// Whether the request that asked for it, if one did, still has something of it.
    pub(super) fn is_wanted(&self, asked: Option<&Asks>) -> Result<(), RollbackError> {
        let Some(asked) = asked else { return Ok(()) };
        if self.registry.rollbacks.has_returned(self.at(), asked.returns) {
            return Err(RollbackError::Returned(self.at().clone()));
        }
        match (asked.wanted)() {
            true => Ok(()),
            false => Err(RollbackError::Unwanted(self.at().clone())),
        }
    }

    /// Has the supervisor stop its children and start them with these lives, once it can: one that is just
    /// restarting them, because a sibling has failed, is waited for.
    pub(super) async fn reset(
        &self,
        lives: Vec<(Arc<dyn Look>, Prepared)>,
        asked: Option<&Asks>,
        begun: Moment,
        phase: &Phase,
    ) -> Result<(), RollbackError> {
        let hub = &self.node.hub;
        let lives = Lives::new(lives, phase.clone());
        let id = self.child.as_ref().map(|child| Arc::from(child.path().id()));
        let gone = || ChildError::SupervisorGone(self.node.path.clone());
        phase.set(WAITING);
        loop {
            self.is_wanted(asked)?;
            // What hangs may have half of the time that is left: the rest is for those that follow, and for
            // what is to be undone.
            let left = (begun + self.scope().limit()).since(hub.now());
            let until = hub.now() + left / 2;
            let ask = |send| Ask::Reset(Option::clone(&id), until, Arc::clone(&lives), send);
            let refused = match self.node.order(ask).await {
                Some(Reply::Reset) => return Ok(()),
                Some(Reply::ChildRefused(error)) => error,
                _ => gone(),
            };
            let soon = matches!(refused, ChildError::Restarting(_) | ChildError::SupervisorGone(_));
            if phase.has_begun() || !soon || hub.is_shutting_down() {
                return Err(RollbackError::Restart(refused));
            }
            hub.clock.sleep_until(hub.now() + ASK_AGAIN).await;
        }
    }
}

/// What could not be restored, where something else could, is for a person.
pub(super) async fn set_aside(store: &Arc<dyn Store>, bad: Vec<(CheckpointId, String)>) {
    for (id, why) in bad {
        drop(store.commit(Batch::new().mark_bad(id, why), Durability::Sync).await);
    }
}
