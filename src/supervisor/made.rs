//! Children that were started from templates and are durable: they outlive the lives of their supervisor, as those
//! do that stand in its spec, and are made again by the next process.
//!
//! *Invariant.* A child is kept from when it is up for the first time until it is gone; the journal says so from
//! before the one until after the other.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Ask, Supervisor, Ward};
use crate::error::{ChildError, StartError, StoreError};
use crate::family::{ChildInfo, ChildOptions, ChildStatus, Reply};
use crate::id::ChildPath;
use crate::journal::Serial;
use crate::slot::Managed;

/// Those of one supervisor, in the order in which they were written down.
pub(super) type Kept = BTreeMap<Serial, (Arc<str>, ChildOptions, Ward)>;

/// What the store says of the end of a child.
pub(super) type Ended = oneshot::Receiver<Result<(), StoreError>>;

/// What a life of a supervisor says to whoever has asked for something.
pub(crate) struct Answer {
    pub(super) reply: Reply,
    /// It is so once the store has heard of the end of this child, whatever becomes of the life meanwhile.
    pub(super) ended: Option<(Ended, ChildPath)>,
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self { reply, ended: None }
    }
}

impl Answer {
    /// Once it is so. When the store has not taken the end of a child, that is an error for whoever had it deleted.
    async fn heard(self) -> Reply {
        let Some((ended, child)) = self.ended else { return self.reply };
        match (ended.await, self.reply) {
            (Ok(Err(why)), Reply::Deleted | Reply::Terminated) => {
                Reply::ChildRefused(ChildError::Recorded(child, why))
            }
            // The system stops: the next process has the child.
            (Err(_), Reply::Deleted | Reply::Terminated) => {
                let supervisor = child.parent().unwrap_or(child);
                Reply::ChildRefused(ChildError::SupervisorGone(supervisor))
            }
            (_, reply) => reply,
        }
    }
}

impl Supervisor {
    /// Asks the current life to do something. `None`: there is none, or it ends before it has come to that.
    pub(crate) async fn order(
        &self,
        ask: impl FnOnce(oneshot::Sender<Answer>) -> Ask,
    ) -> Option<Reply> {
        Some(self.ask(ask).await?.heard().await)
    }

    /// A child is up that was started from a template.
    pub(super) fn keep(&self, options: ChildOptions, ward: Ward) {
        let Some(serial) = ward.kept else { return };
        let path = ward.managed.path().clone();
        self.kept.lock().insert(serial, (Arc::from(path.id()), options, ward));
        if let Some(journal) = self.hub.journal.get() {
            journal.stands(&path, serial, true);
        }
    }

    /// The id of one is free.
    pub(super) fn let_go(&self, path: &ChildPath, serial: Serial) {
        let gone = self.kept.lock().remove(&serial);
        drop(gone);
        if let Some(journal) = self.hub.journal.get() {
            journal.stands(path, serial, false);
        }
    }

    /// Why nothing can be started under this path, which a child has.
    pub(crate) async fn taken(&self, path: &ChildPath) -> StartError {
        let children = self.ask(Ask::Which).await.unwrap_or_default();
        let rests = |it: &ChildInfo| {
            *it.id == *path.id()
                && matches!(it.status, ChildStatus::Stopped | ChildStatus::Quarantined)
        };
        if children.iter().any(rests) {
            return StartError::AlreadyPresent(path.clone());
        }
        StartError::AlreadyStarted(path.clone())
    }

    /// Every request of one has its fate: no process makes it again. But in a system that stops its requests
    /// are left open for the next process, and so is the child.
    pub(super) fn unmake(
        &self,
        child: Arc<dyn Managed>,
        serial: Serial,
        ended: oneshot::Sender<Result<(), StoreError>>,
    ) {
        let path = child.path();
        let Some(journal) = self.hub.journal.get() else {
            let _ = ended.send(Ok(()));
            return;
        };
        if self.hub.is_suspending() {
            // Nobody waits for its path.
            journal.stands(path, serial, true);
            return;
        }
        let (hub, journal, path) = (Arc::clone(&self.hub), Arc::clone(journal), path.clone());
        self.hub.spawn(async move {
            // A process that ends before that has to know whose acts they are.
            hub.unwound_of(&path).await;
            if hub.is_suspending() {
                journal.stands(&path, serial, true);
                return;
            }
            child.unmade();
            let _ = ended.send(match journal.clears(&path, serial) {
                Some(unmaking) => unmaking.done().await,
                None => Ok(()),
            });
        });
    }
}
