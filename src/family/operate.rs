//! What operators want: start, terminate, restart and delete a child.
//!
//! *Invariant.* Each ticket is answered exactly once, also when the family ends first.

use std::sync::Arc;

use crate::error::{ChildError, StartError};
use crate::id::Incarnation;

use super::child::{Phase, Rest};
use super::run::Job;
use super::words::{ChildOptions, Key, Output, Reply, RunId, Ticket};
use super::{Family, Stage};

/// A wish. The child is looked up when it is carried out.
#[derive(Clone, Debug)]
pub(super) struct Op {
    verb: Verb,
    ticket: Ticket,
    id: Arc<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    /// `Start`, admitted.
    Begin,
    /// `Restart`, admitted.
    Revive,
    Terminate,
    Restart,
    Delete,
}

impl Op {
    pub(super) const fn terminate(ticket: Ticket, id: Arc<str>) -> Self {
        Self { verb: Verb::Terminate, ticket, id }
    }

    pub(super) const fn restart(ticket: Ticket, id: Arc<str>) -> Self {
        Self { verb: Verb::Restart, ticket, id }
    }

    pub(super) const fn delete(ticket: Ticket, id: Arc<str>) -> Self {
        Self { verb: Verb::Delete, ticket, id }
    }
}

impl Family {
    pub(super) fn start(
        &mut self,
        ticket: Ticket,
        id: Arc<str>,
        options: ChildOptions,
        last: Incarnation,
    ) {
        if let Err(error) = self.admit(&id, options, last) {
            self.reply(ticket, Reply::StartRefused(error));
            return;
        }
        self.operate(Op { verb: Verb::Begin, ticket, id });
    }

    fn admit(
        &mut self,
        id: &Arc<str>,
        options: ChildOptions,
        last: Incarnation,
    ) -> Result<(), StartError> {
        if matches!(self.stage, Stage::Ending { .. } | Stage::Over) {
            return Err(StartError::SupervisorGone(self.path.clone()));
        }
        if let Some(key) = self.key_of(id) {
            let path = self.path.join(id);
            return Err(match self.phase(key) {
                Some(Phase::Idle(_)) if !matches!(self.stage, Stage::Fresh) => {
                    StartError::AlreadyPresent(path)
                }
                _ => StartError::AlreadyStarted(path),
            });
        }
        let full = |limit| StartError::MaxChildren { supervisor: self.path.clone(), limit };
        if let Some(limit) = self.options.max_children
            && self.children.len() >= limit
        {
            return Err(full(limit));
        }
        let keys_used_up = full(u32::MAX as usize);
        self.insert(Arc::clone(id), options, last, Phase::Queued).map(drop).ok_or(keys_used_up)
    }

    /// Carries a wish out, or keeps it until it can be.
    pub(super) fn operate(&mut self, op: Op) {
        if matches!(self.stage, Stage::Ending { .. } | Stage::Over) {
            return self.gone(op.verb, op.ticket);
        }
        let Some(key) = self.key_of(&op.id) else {
            let error = ChildError::NotFound(self.path.join(&op.id));
            return self.reply(op.ticket, Reply::ChildRefused(error));
        };
        let Some(phase) = self.phase(key) else { return };
        let waits = self.group.is_some() || !self.is_open();
        match op.verb {
            Verb::Begin | Verb::Revive if waits => self.queue.push(op),
            Verb::Begin => self.launch(key, Job::Begin(op.ticket, key)),
            Verb::Revive => self.revive(key, op.ticket),
            Verb::Terminate => self.terminate(key, phase, op),
            Verb::Restart => match phase {
                Phase::Idle(_) if waits => {
                    self.shift(key, Phase::Queued);
                    self.queue.push(Op { verb: Verb::Revive, ..op });
                }
                Phase::Idle(_) => self.revive(key, op.ticket),
                _ => self.refuse_or_wait(key, phase, op),
            },
            Verb::Delete => match phase {
                Phase::Idle(_) if matches!(self.stage, Stage::Fresh) => self.queue.push(op),
                Phase::Idle(_) => {
                    self.remove(key);
                    self.reply(op.ticket, Reply::Deleted);
                }
                _ => self.refuse_or_wait(key, phase, op),
            },
        }
    }

    fn revive(&mut self, key: Key, ticket: Ticket) {
        if let Some(child) = self.children.get_mut(&key) {
            child.log = None;
        }
        self.launch(key, Job::Revive(ticket, key));
    }

    fn terminate(&mut self, key: Key, phase: Phase, op: Op) {
        match phase {
            Phase::Idle(_) if matches!(self.stage, Stage::Fresh) => self.queue.push(op),
            Phase::Idle(Rest::Quarantined) => self.reply(op.ticket, Reply::Terminated),
            Phase::Held if !self.is_open() => self.queue.push(op),
            Phase::Idle(_) => {
                self.shift(key, Phase::Idle(Rest::Terminated));
                self.reply(op.ticket, Reply::Terminated);
            }
            // It is dead, but what waits for its next life has to hear that there is none.
            Phase::Backoff(_) | Phase::Held => {
                self.launch_stop(op.ticket, key);
                self.group_over();
            }
            Phase::Up => self.launch_stop(op.ticket, key),
            Phase::Queued => self.after.entry(key).or_default().push(op),
            Phase::Starting(run) | Phase::Stopping(run, _) => match self.jobs.get(&run) {
                Some(Job::Boot { .. } | Job::Group { .. }) => self.queue.push(op),
                Some(Job::Alone(_)) => {
                    self.call_off(run);
                    self.launch_stop(op.ticket, key);
                }
                _ => self.after.entry(key).or_default().push(op),
            },
        }
    }

    /// `Restart` and `Delete` of a child that is not stopped.
    fn refuse_or_wait(&mut self, key: Key, phase: Phase, op: Op) {
        let refusal = match phase {
            Phase::Up => ChildError::Running,
            Phase::Backoff(_) | Phase::Held => ChildError::Restarting,
            Phase::Idle(_) | Phase::Queued => {
                self.after.entry(key).or_default().push(op);
                return;
            }
            Phase::Starting(run) | Phase::Stopping(run, _) => match self.jobs.get(&run) {
                Some(Job::Alone(_)) => ChildError::Restarting,
                Some(Job::Group { .. }) if phase.is_alive() => ChildError::Restarting,
                Some(Job::Group { .. } | Job::Boot { .. }) => {
                    self.queue.push(op);
                    return;
                }
                _ => {
                    self.after.entry(key).or_default().push(op);
                    return;
                }
            },
        };
        let error = refusal(self.path.join(&op.id));
        self.reply(op.ticket, Reply::ChildRefused(error));
    }

    /// Breaks off a run that starts one child; what an operator wished is done again later.
    pub(super) fn call_off(&mut self, run: RunId) {
        let Some(job) = self.jobs.remove(&run) else { return };
        self.out.push(Output::CancelRun(run));
        let (verb, ticket, key) = match job {
            Job::Begin(ticket, key) => (Verb::Begin, ticket, key),
            Job::Revive(ticket, key) => (Verb::Revive, ticket, key),
            Job::Reset(ticket, key) => {
                // What waited for it waits for the siblings now: nobody else would take it up again.
                self.queue.extend(self.after.remove(&key).into_iter().flatten());
                return self.resets.push(ticket);
            }
            _ => return,
        };
        if let Some(id) = self.id_of(key).cloned() {
            self.queue.push(Op { verb, ticket, id });
        }
    }

    /// The family ends before this run is done.
    pub(super) fn abandon(&mut self, job: Job) {
        match job {
            Job::Begin(ticket, _) => self.gone(Verb::Begin, ticket),
            Job::Revive(ticket, _) => self.gone(Verb::Revive, ticket),
            Job::Terminate(ticket, _) | Job::Reset(ticket, _) => {
                self.gone(Verb::Terminate, ticket);
            }
            Job::Boot { .. } | Job::Alone(_) | Job::Group { .. } | Job::Last => {}
        }
    }

    /// The family ends before what was to be reset is up again.
    pub(super) fn abandon_resets(&mut self) {
        for ticket in std::mem::take(&mut self.resets) {
            self.gone(Verb::Terminate, ticket);
        }
    }

    fn gone(&mut self, verb: Verb, ticket: Ticket) {
        let path = self.path.clone();
        let reply = match verb {
            Verb::Begin => Reply::StartRefused(StartError::SupervisorGone(path)),
            _ => Reply::ChildRefused(ChildError::SupervisorGone(path)),
        };
        self.reply(ticket, reply);
    }

    /// Tries again all that had to wait for the boot or for a restart of siblings.
    pub(super) fn drain(&mut self) {
        for op in std::mem::take(&mut self.queue) {
            self.operate(op);
        }
    }

    /// Tries again what had to wait for another wish about this child.
    pub(super) fn drain_after(&mut self, key: Key) {
        for op in self.after.remove(&key).into_iter().flatten() {
            self.operate(op);
        }
    }
}
