//! A rollback stops and starts children without anybody having failed.
//!
//! *Invariant.* Nothing is counted, and no limit is asked. Each ticket is answered once everything that
//! was to be reset is up again, or the family ends.

use crate::error::ChildError;
use crate::fault::ExitCause;
use crate::id::Incarnation;
use crate::moment::Moment;

use super::child::Phase;
use super::run::Job;
use super::words::{Key, Output, Reply, Strategy, Ticket};
use super::{Family, Stage};

use std::sync::Arc;

impl Family {
    /// Whether one child, or all, can be reset now.
    ///
    /// # Errors
    /// It is over, or restarts its children, or this one; or there is no such child.
    pub(crate) fn may_reset(&self, id: Option<&str>) -> Result<(), ChildError> {
        if matches!(self.stage, Stage::Ending { .. } | Stage::Over) {
            return Err(ChildError::SupervisorGone(self.path.clone()));
        }
        if !self.is_open() {
            return Err(ChildError::Restarting(self.path.clone()));
        }
        let Some(id) = id else { return Ok(()) };
        let key = self.key_of(id).ok_or_else(|| ChildError::NotFound(self.path.join(id)))?;
        match self.phase(key) {
            Some(Phase::Up | Phase::Idle(_) | Phase::Backoff(_) | Phase::Held | Phase::Queued) => {
                Ok(())
            }
            Some(Phase::Starting(run)) if matches!(self.jobs.get(&run), Some(Job::Alone(_))) => {
                Ok(())
            }
            _ => Err(ChildError::Restarting(self.child_path(key))),
        }
    }

    pub(super) fn reset(&mut self, ticket: Ticket, id: Option<Arc<str>>, until: Option<Moment>) {
        match (self.may_reset(id.as_deref()), id.and_then(|id| self.key_of(&id))) {
            (Err(error), _) => self.reply(ticket, Reply::ChildRefused(error)),
            (Ok(()), None) => self.reset_all(ticket, until),
            (Ok(()), Some(key)) => self.reset_one(ticket, key, until),
        }
    }

    fn reset_all(&mut self, ticket: Ticket, until: Option<Moment>) {
        self.resets.push(ticket);
        self.regroup(None, Strategy::OneForAll, Key(0), self.now, until);
        if self.group.as_ref().is_some_and(|group| group.run.is_none() && group.token.is_none()) {
            // Nobody runs and nobody waits.
            self.group_over();
        }
    }

    fn reset_one(&mut self, ticket: Ticket, key: Key, until: Option<Moment>) {
        match self.phase(key) {
            Some(Phase::Starting(run)) => self.call_off(run),
            // Its next life, if there is one, begins with what it is given now.
            Some(Phase::Idle(_) | Phase::Backoff(_) | Phase::Held | Phase::Queued) => {
                return self.reply(ticket, Reply::Reset);
            }
            _ => {}
        }
        let run = self.new_run();
        let Some(child) = self.children.get_mut(&key) else { return };
        child.incarnation = child.incarnation.next();
        let start: Vec<(Key, Incarnation)> = vec![(key, child.incarnation)];
        self.tally.shift(child, Phase::Starting(run));
        self.jobs.insert(run, Job::Reset(ticket, key));
        self.out.push(Output::Run { run, stop: vec![(key, true)], parallel: false, until, start });
    }

    pub(super) fn reset_done(
        &mut self,
        ticket: Ticket,
        key: Key,
        result: Result<(), (Key, ExitCause)>,
    ) {
        match result {
            Ok(()) => {
                self.shift(key, Phase::Up);
                self.reply(ticket, Reply::Reset);
            }
            Err((_, cause)) => {
                let child = self.child_path(key);
                let error = ChildError::StartFailed { child, cause: cause.clone() };
                self.reply(ticket, Reply::ChildRefused(error));
                // From here on it is a life that ended, as any other.
                self.shift(key, Phase::Held);
                self.fell(key, cause, None);
            }
        }
        self.drain_after(key);
    }

    /// The restart of siblings is over, and with it what was reset.
    pub(super) fn resets_done(&mut self) {
        for ticket in std::mem::take(&mut self.resets) {
            self.reply(ticket, Reply::Reset);
        }
    }
}
