//! What the world has seen of requests that return: it is undone, or said to stand, before they go on.
//!
//! *Invariant.* A child goes on once what was done for its own requests is settled, and no sooner; and no later,
//! since what is undone for others may be undone by it. Whatever the tools do, all go on in the end.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::{Phase, Place, RollbackError, Since};
use crate::behavior::Undone;
use crate::checkpoint::{Batch, Scope, Sealed};
use crate::effects::Until;
use crate::error::ChildError;
use crate::journal::Journal;
use crate::slot::{Held, Look, Undoing};

/// A child, and the task and the state of whose undo it is to say.
type Became<'a> = (&'a Arc<dyn Look>, Option<(String, Undoing)>);

impl Place {
    /// What has done something to the world.
    fn tasks(&self) -> HashSet<Arc<str>> {
        let ledger = self.node.hub.effects.ledger.lock();
        ledger.acted().map(Arc::clone).collect()
    }

    /// The children stand where they have returned to, and do nothing yet: that is stored, and then
    /// their effects are settled. Each goes on as soon as its own are.
    pub(super) async fn settle(
        &self,
        journal: &Arc<Journal>,
        held: &Held,
        since: Since,
        phase: &Phase,
    ) -> Result<Undone, RollbackError> {
        // Before anything is undone: a process that ends half-way through goes on from the states that
        // have not done it yet, and not from those that rely on it.
        phase.set("writing what they have become");
        let known = self.tasks();
        let (mut each, mut owing) = (Vec::new(), Vec::new());
        for child in held.children() {
            let undoing = self.undoing(&**child, &known);
            if child.open_tasks().iter().any(|(_, task, _)| known.contains(&**task)) {
                owing.push((Arc::clone(child), undoing.clone()));
            }
            let became = undoing.map(|task| (task, Undoing::Due));
            // Of what stands there is nothing to be done, but the next process is to know of it.
            let became =
                became.or_else(|| Some((self.returned_with(&**child, &known)?, Undoing::Done)));
            each.push((child, became));
        }
        if let Err(error) = self.keep(journal, each, since).await {
            // Nothing can be undone then, but they go on all the same, and have to know what stands.
            self.tell_standing(&owing, &known);
            return Err(error);
        }
        phase.set("undoing effects");
        let owing_paths: HashSet<_> = owing.iter().map(|(child, _)| child.path().clone()).collect();
        for child in held.children().iter().filter(|it| !owing_paths.contains(it.path())) {
            held.release(child);
        }
        let (hub, known) = (&self.node.hub, Arc::new(known));
        // Time of its own: of the limit nothing may be left, for a child that hung.
        let until = Until::new(&hub.clock, self.scope().limit());
        // All at once: of two that undo for each other, each has to be settled before the other is.
        let mut settling = JoinSet::new();
        let mut all = vec![Undone::default(); owing.len()];
        for (at, (child, task)) in owing.iter().cloned().enumerate() {
            let (place, journal, known) = (self.clone(), Arc::clone(journal), Arc::clone(&known));
            let (until, phase) = (until.clone(), phase.clone());
            let settles = async move {
                let done = place.settle_child(&journal, (&child, task), &known, &until, &phase);
                (at, done.await)
            };
            settling.spawn_on(settles, &hub.runtime);
        }
        let mut failed = None;
        while let Some(settled) = settling.join_next().await {
            match settled {
                Ok((at, Ok(told))) => {
                    all[at] = told;
                    held.release(&owing[at].0);
                }
                Ok((_, Err(error))) => drop(failed.get_or_insert(error)),
                Err(_) => drop(failed.get_or_insert_with(|| self.gone())),
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        let mut told = Undone::default();
        for part in all {
            told.kept.extend(part.kept);
            told.undone.extend(part.undone);
            told.unknown.extend(part.unknown);
        }
        Ok(told)
    }

    /// What the open requests of a child have done to the world: within a transaction it is undone. A wider scope
    /// undoes what the transactions below it have done. `undoing` is the request whose undo is under way by what
    /// the store has of the child.
    async fn settle_child(
        &self,
        journal: &Arc<Journal>,
        (child, undoing): (&Arc<dyn Look>, Option<String>),
        known: &HashSet<Arc<str>>,
        until: &Until,
        phase: &Phase,
    ) -> Result<Undone, RollbackError> {
        let (hub, effects) = (&self.node.hub, &self.node.hub.effects);
        let mut all = Undone::default();
        let tasks = child.open_tasks().into_iter().filter(|(_, task, _)| known.contains(&**task));
        let tasks: Vec<_> = tasks.collect();
        let mut late = Vec::new();
        for (request, task, step) in &tasks {
            let told = if self.undoes(&**child) {
                let (told, is_late) = effects.compensate_until(task, *step, until).await;
                late.extend(is_late.then_some((task, *step)));
                told
            } else {
                effects.standing(task)
            };
            all.kept.extend(&told.kept);
            all.undone.extend(&told.undone);
            all.unknown.extend(&told.unknown);
            if told != Undone::default() {
                child.tell_undone(*request, *step, Arc::new(told));
            }
        }
        if hub.is_shutting_down() && tasks.iter().any(|(_, task, _)| effects.owes(task)) {
            // The next process goes on from the states that have not done it yet.
            return Err(self.gone());
        }
        for (task, step) in &late {
            // Before it acts again.
            effects.undo_later(task, *step);
        }
        // Of one that is not undone yet the store goes on saying so.
        if let Some(task) = undoing.filter(|it| !late.iter().any(|(late, _)| *late == it)) {
            // All is undone: what it does from here on is not. Whoever begins again in another process is told.
            phase.set("writing that all is undone");
            let done = vec![(child, Some((task, Undoing::Done)))];
            self.keep(journal, done, Since::default()).await?;
        }
        Ok(all)
    }

    /// What open requests have done to the world and was not settled.
    fn tell_standing(&self, owing: &[(Arc<dyn Look>, Option<String>)], known: &HashSet<Arc<str>>) {
        for (child, _) in owing {
            for (request, task, step) in child.open_tasks() {
                if known.contains(&*task) {
                    let stands = self.node.hub.effects.standing_from(&task, step);
                    child.tell_undone(request, step, Arc::new(stands));
                }
            }
        }
    }

    fn gone(&self) -> RollbackError {
        RollbackError::Restart(ChildError::SupervisorGone(self.node.path.clone()))
    }

    /// Stores what these have become, which counts as returned to as well as what was used since.
    async fn keep(
        &self,
        journal: &Arc<Journal>,
        children: Vec<Became<'_>>,
        since: Since,
    ) -> Result<(), RollbackError> {
        let Since { used, missing, given_up } = since;
        let mut members = Vec::with_capacity(children.len());
        for (child, undoing) in children {
            let undoing = undoing.as_ref().map(|(task, undo)| (task.as_str(), *undo));
            let captured = child.capture(Scope::Step, undoing);
            if let Some(sealed) = captured.map_err(RollbackError::Store)? {
                members.push((Arc::clone(child), sealed));
            }
        }
        let write = |members: &[(Arc<dyn Look>, Sealed)]| {
            let fresh = members.iter().map(|(_, sealed)| sealed.checkpoint().id);
            let used: Vec<_> = used.iter().copied().chain(fresh).collect();
            let batch = members.iter().fold(Batch::new(), |it, (_, sealed)| it.checkpoint(sealed));
            let batch = journal.without(&given_up, batch);
            let commit = batch.map(|batch| journal.returned(&used, &missing, batch));
            async move { commit?.await }
        };
        let hub = &self.node.hub;
        let ledger = || hub.effects.ledger.lock().records();
        // Whatever room is made, what is returned to stays.
        while let Err(error) = hub.with_room(journal, &ledger, || write(&members)).await {
            let count = members.len();
            self.forget_gone(&*journal.store, &mut members);
            if members.len() == count {
                journal.note_failure(&error);
                for (child, sealed) in &members {
                    if let Some(parent) = sealed.checkpoint().lineage.parent {
                        journal.stands_on(child.path(), parent);
                    }
                }
                return Err(error.into());
            }
        }
        for (child, sealed) in &members {
            child.captured(sealed);
            journal.stands_by_itself(child.path());
        }
        Ok(())
    }

    /// Whether what the open requests of this child have done is undone: a transaction does so for all below it, and a
    /// wider scope for the transactions below it.
    fn undoes(&self, child: &dyn Look) -> bool {
        self.scope() == Scope::Transaction || child.in_transaction()
    }

    /// The open request of a child that has done something to the world since the line was drawn, where that is
    /// about to be undone.
    fn undoing(&self, child: &dyn Look, known: &HashSet<Arc<str>>) -> Option<String> {
        if !self.undoes(child) || known.is_empty() {
            return None;
        }
        let effects = &self.node.hub.effects;
        let acted = |task: &str, step| {
            known.contains(task) && effects.standing_from(task, step) != Undone::default()
        };
        let open = child.open_tasks().into_iter().filter(|(_, task, step)| acted(task, *step));
        // The one in whose middle the child stands comes first.
        open.max_by_key(|(.., step)| *step).map(|(_, task, _)| task)
    }

    /// The open request of a child for which nothing is to be undone, and that has done something to the world since
    /// the line was drawn, or has spent something.
    fn returned_with(&self, child: &dyn Look, known: &HashSet<Arc<str>>) -> Option<String> {
        let effects = &self.node.hub.effects;
        let undoes = self.undoes(child);
        let open = child.open_tasks().into_iter().filter_map(|(request, task, step)| {
            let acted =
                known.contains(&*task) && effects.standing_from(&task, step) != Undone::default();
            let is_known = if acted { !undoes } else { child.has_spent(request) };
            is_known.then_some((step, acted, task))
        });
        open.max_by_key(|(step, acted, _)| (*step, *acted)).map(|(.., task)| task)
    }
}
