//! Handing out runs, and what follows when they are done.
//!
//! *Invariant.* A run that is not in the table of jobs was called off; its report changes nothing.

use crate::error::{ChildError, StartError};
use crate::fault::ExitCause;
use crate::id::Incarnation;

use super::child::{Phase, Rest, Then};
use super::words::{Key, Output, Reply, RunId, Strategy, Ticket};
use super::{Family, Stage};

/// What a run is for.
#[derive(Clone, Debug)]
pub(super) enum Job {
    /// The first start of the static children.
    Boot { start: Vec<Key>, died: Vec<Death> },
    /// The restart of one child.
    Alone(Key),
    /// The restart of siblings, or its first half.
    Group { stop: Vec<Key>, start: Vec<Key> },
    /// `Start`.
    Begin(Ticket, Key),
    /// `Restart`.
    Revive(Ticket, Key),
    /// `Reset` of one child.
    Reset(Ticket, Key),
    /// `Terminate`.
    Terminate(Ticket, Key),
    /// The family's end.
    Last,
}

/// An exit that waits for the end of the boot.
#[derive(Clone, Debug)]
pub(super) struct Death {
    pub(super) key: Key,
    pub(super) incarnation: Incarnation,
    pub(super) cause: ExitCause,
    pub(super) widen: Option<Strategy>,
    /// Its start was done; otherwise that has failed.
    pub(super) was_up: bool,
}

impl Family {
    pub(super) fn boot(&mut self) {
        if !matches!(self.stage, Stage::Fresh) {
            return;
        }
        self.stage = Stage::Booting;
        let run = self.new_run();
        let mut keys = Vec::new();
        let mut start = Vec::new();
        for (&key, child) in &mut self.children {
            if child.phase == Phase::Queued {
                continue;
            }
            child.incarnation = child.incarnation.next();
            self.tally.shift(child, Phase::Starting(run));
            keys.push(key);
            start.push((key, child.incarnation));
        }
        if start.is_empty() {
            self.stage = Stage::Open;
            self.out.push(Output::Booted);
            self.drain();
        } else {
            self.jobs.insert(run, Job::Boot { start: keys, died: Vec::new() });
            self.out.push(Output::Run {
                run,
                stop: Vec::new(),
                parallel: false,
                until: None,
                start,
            });
        }
    }

    /// Hands out the start of one child.
    pub(super) fn launch(&mut self, key: Key, job: Job) {
        let run = self.new_run();
        let Some(child) = self.children.get_mut(&key) else { return };
        child.incarnation = child.incarnation.next();
        let start = vec![(key, child.incarnation)];
        self.tally.shift(child, Phase::Starting(run));
        self.jobs.insert(run, job);
        self.out.push(Output::Run { run, stop: Vec::new(), parallel: false, until: None, start });
    }

    /// Hands out the stop of one child, as an operator wished.
    pub(super) fn launch_stop(&mut self, ticket: Ticket, key: Key) {
        let run = self.new_run();
        let Some(child) = self.children.get_mut(&key) else { return };
        let then = if child.is_temporary() { Then::Remove } else { Then::Rest };
        self.tally.shift(child, Phase::Stopping(run, then));
        self.jobs.insert(run, Job::Terminate(ticket, key));
        let stop = vec![(key, false)];
        self.out.push(Output::Run { run, stop, parallel: false, until: None, start: Vec::new() });
    }

    pub(super) fn run_done(&mut self, run: RunId, result: Result<(), (Key, ExitCause)>) {
        let Some(job) = self.jobs.remove(&run) else { return };
        match job {
            Job::Boot { start, died } => self.boot_done(run, &start, died, result),
            Job::Alone(key) => match result {
                Ok(()) => self.shift(key, Phase::Up),
                Err((_, cause)) => {
                    self.shift(key, Phase::Held);
                    self.again(key, cause, Strategy::OneForOne);
                }
            },
            Job::Group { stop, start } => self.group_done(run, &stop, &start, result),
            Job::Begin(ticket, key) => {
                match result {
                    Ok(()) => {
                        self.shift(key, Phase::Up);
                        self.reply(ticket, Reply::Started(key));
                    }
                    Err((_, cause)) => {
                        let child = self.child_path(key);
                        self.remove(key);
                        let error = StartError::Child { child, cause };
                        self.reply(ticket, Reply::StartRefused(error));
                    }
                }
                self.drain_after(key);
            }
            Job::Revive(ticket, key) => {
                match result {
                    Ok(()) => {
                        self.shift(key, Phase::Up);
                        self.reply(ticket, Reply::Restarted);
                    }
                    Err((_, cause)) => {
                        let child = self.child_path(key);
                        self.shift(key, Phase::Idle(Rest::Terminated));
                        self.out.push(Output::Rests { key, cause: cause.clone() });
                        let error = ChildError::StartFailed { child, cause };
                        self.reply(ticket, Reply::ChildRefused(error));
                    }
                }
                self.drain_after(key);
            }
            Job::Reset(ticket, key) => self.reset_done(ticket, key, result),
            Job::Terminate(ticket, key) => {
                self.stopped(key);
                self.reply(ticket, Reply::Terminated);
                self.drain_after(key);
            }
            Job::Last => self.last_done(),
        }
    }

    fn boot_done(
        &mut self,
        run: RunId,
        start: &[Key],
        mut died: Vec<Death>,
        result: Result<(), (Key, ExitCause)>,
    ) {
        let mut failed = result.err();
        if let Some((key, cause)) =
            failed.take_if(|(key, _)| self.children.get(key).is_some_and(|child| child.kept))
        {
            // As one that has died during the boot.
            let incarnation = self.incarnation_of(key).unwrap_or(Incarnation::NONE);
            if self.phase(key) == Some(Phase::Starting(run)) {
                self.shift(key, Phase::Held);
                died.push(Death { key, incarnation, cause, widen: None, was_up: false });
            }
            if start.last() != Some(&key) {
                self.boot_on(run, start, key, died);
                return;
            }
        }
        let mut up = true;
        for &key in start {
            up &= failed.as_ref().is_none_or(|(failed, _)| *failed != key);
            match self.phase(key) {
                Some(Phase::Starting(by)) if by == run && up => self.shift(key, Phase::Up),
                _ if failed.is_none() => {}
                _ => self.shift(key, Phase::Idle(Rest::Ended)),
            }
        }
        if let Some((key, cause)) = failed {
            let error = StartError::Child { child: self.child_path(key), cause };
            self.end(ExitCause::StartFailed(error.to_string()), Some(error), true);
            return;
        }
        self.stage = Stage::Open;
        self.out.push(Output::Booted);
        for death in died {
            let current = self.children.get(&death.key).is_some_and(|child| {
                child.phase == Phase::Held && child.incarnation == death.incarnation
            });
            if current && self.is_open() {
                if death.was_up {
                    self.has_ended(death.key, &death.cause);
                }
                self.fell(death.key, death.cause, death.widen);
            }
        }
        self.drain();
    }

    /// The boot goes on after this child. It is one boot to those before it, too.
    fn boot_on(&mut self, before: RunId, all: &[Key], after: Key, died: Vec<Death>) {
        let run = self.new_run();
        let mut start = Vec::new();
        for &key in all {
            if self.phase(key) != Some(Phase::Starting(before)) {
                continue;
            }
            self.shift(key, Phase::Starting(run));
            if key > after {
                start.extend(self.incarnation_of(key).map(|life| (key, life)));
            }
        }
        self.jobs.insert(run, Job::Boot { start: all.to_vec(), died });
        self.out.push(Output::Run { run, stop: Vec::new(), parallel: false, until: None, start });
    }

    /// What was planned for a child that is stopped now.
    pub(super) fn stopped(&mut self, key: Key) {
        match self.phase(key) {
            Some(Phase::Stopping(_, Then::Rest)) => self.shift(key, Phase::Idle(Rest::Terminated)),
            Some(Phase::Stopping(_, Then::Remove)) => self.remove(key),
            Some(Phase::Stopping(_, Then::Hold)) => self.shift(key, Phase::Held),
            Some(Phase::Stopping(_, Then::Queue)) => self.shift(key, Phase::Queued),
            _ => {}
        }
    }
}
