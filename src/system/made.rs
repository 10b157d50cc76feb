//! Starting children from templates.
//!
//! *Invariant.* A durable child is in the journal before it is started. A start that fails leaves no record.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::SupervisorRef;
use crate::error::{SpecError, StartError, TemplateError};
use crate::family::Reply;
use crate::id::ChildPath;
use crate::journal::{Journal, Made, Serial, Taken};
use crate::spec::{ChildSpec, dynamic_child};
use crate::supervisor::{Ask, Supervisor};

impl SupervisorRef {
    /// Starts a child from a template that its spec has
    /// ([`SupervisorSpec::template`](crate::spec::SupervisorSpec::template)), and returns once the child is up.
    ///
    /// A durable child is written down first, with the template's name and its arguments:
    /// [`System::recover`](crate::system::System::recover) makes it again, also when the process ended before it
    /// was up, until it is deleted ([`SupervisorRef::delete_child`]) or, as a temporary one, ends. It begins with
    /// its supervisor from then on, as if it stood in the spec, and keeps its requests and its state over the
    /// supervisor's restarts. One that had this id before, and is gone, has left it nothing. A child that is not
    /// durable is started as by [`SupervisorRef::start_child`].
    ///
    /// Dropping the future does not call the start off.
    ///
    /// # Errors
    /// [`StartError::Template`]: there is no such template, it takes other arguments, these cannot be written down
    /// and read again, or the store does not take the record. A durable child in a system without a store
    /// ([`SpecError::NoStore`]). Whatever [`SupervisorRef::start_child`] refuses, after which the child is not
    /// kept, nor made again.
    pub async fn start_from<A: Serialize + DeserializeOwned + 'static>(
        &self,
        template: impl AsRef<str>,
        id: impl AsRef<str>,
        arguments: &A,
    ) -> Result<ChildPath, StartError> {
        let (node, id, template) = (&self.node, id.as_ref(), template.as_ref());
        let (spec, arguments) = node.spec.made_from((&node.path, id), template, arguments)?;
        if !spec.durable {
            return self.start_child(spec).await;
        }
        dynamic_child(&node.path, &spec, node.spec.auto_shutdown, true)?;
        let child = node.path.join(id);
        let Some(journal) = node.hub.journal.get() else {
            return Err(SpecError::NoStore { path: child.to_string() }.into());
        };
        let template = Arc::from(template);
        let made = Made { child, template, arguments, before: BTreeSet::new() };
        let start = Start { node: Arc::clone(node), journal: Arc::clone(journal), spec, made };
        // Half of it would leave a record without a child.
        let started = node.hub.runtime.spawn(start.carry_out());
        started.await.unwrap_or_else(|_| Err(StartError::SupervisorGone(node.path.clone())))
    }
}

/// A child that is about to be started.
struct Start {
    node: Arc<Supervisor>,
    journal: Arc<Journal>,
    spec: ChildSpec,
    made: Made,
}

impl Start {
    async fn carry_out(self) -> Result<ChildPath, StartError> {
        let path = self.made.child.clone();
        let serial = self.write().await?;
        let spec = Arc::new(self.spec);
        match self.node.order(|send| Ask::Start(spec, Some(serial), send)).await {
            Some(Reply::Started(_)) => Ok(path),
            reply => {
                if let Some(unmaking) = self.journal.unmakes(&path, serial) {
                    // The start has failed, whatever becomes of this.
                    drop(unmaking.done().await);
                }
                match reply {
                    Some(Reply::StartRefused(error)) => Err(error),
                    _ => Err(StartError::SupervisorGone(self.node.path.clone())),
                }
            }
        }
    }

    /// The record of it, once its path is free.
    async fn write(&self) -> Result<Serial, StartError> {
        let path = self.made.child.clone();
        let failed = |child, why| Err(TemplateError::Store { child, why }.into());
        let (serial, commit) = loop {
            if self.is_others(&path) {
                return Err(self.node.taken(&path).await);
            }
            match self.journal.makes(self.made.clone()) {
                Ok(written) => break written,
                Err(Taken::Stands) => return Err(self.node.taken(&path).await),
                Err(Taken::Unreadable(why)) => return failed(path, why),
                Err(Taken::Moves(change)) => change.come().await,
            }
        };
        let Err(why) = commit.await else { return Ok(serial) };
        self.journal.note_failure(&why);
        if self.journal.wants_tidying() {
            // Whoever tries again may find room.
            self.node.hub.tidy(&self.journal);
        }
        // A journal that was written anew meanwhile has it.
        drop(self.journal.unmakes(&path, serial));
        failed(path, why)
    }

    /// Whether somebody has this path who is no child of a template. Who takes it after that is refused, or
    /// refuses this one, by the supervisor.
    fn is_others(&self, path: &ChildPath) -> bool {
        let is_static = self.node.statics.iter().any(|(id, ..)| **id == *path.id());
        is_static || (!self.journal.has_made(path) && self.node.registry.get(path).is_some())
    }
}
