//! The family's own end.
//!
//! *Invariant.* It is said once, after everything that may have been up was stopped, and every
//! operator has been answered by then.

use crate::error::StartError;
use crate::fault::ExitCause;
use crate::moment::Moment;

use super::child::{Phase, Rest, Then};
use super::run::Job;
use super::words::Output;
use super::{Family, Stage};

impl Family {
    pub(super) fn stop(&mut self, cause: ExitCause, until: Option<Moment>) {
        match &self.stage {
            Stage::Fresh | Stage::Booting | Stage::Open => {
                self.end_until(cause, None, false, until)
            }
            // It was falling by itself, and the mailboxes waited for the parent, who has decided now.
            Stage::Ending { cause, start_error, follows: true } => {
                let (cause, start_error) = (cause.clone(), start_error.clone());
                self.end_until(cause, start_error, false, until);
            }
            Stage::Ending { .. } | Stage::Over => {}
        }
    }

    /// Stops everything in reverse order, and then says so.
    pub(super) fn end(&mut self, cause: ExitCause, start_error: Option<StartError>, follows: bool) {
        self.end_until(cause, start_error, follows, None);
    }

    fn end_until(
        &mut self,
        cause: ExitCause,
        start_error: Option<StartError>,
        follows: bool,
        until: Option<Moment>,
    ) {
        self.stage = Stage::Ending { cause, start_error, follows };
        self.group = None;
        for (run, job) in std::mem::take(&mut self.jobs) {
            self.out.push(Output::CancelRun(run));
            self.abandon(job);
        }
        self.abandon_resets();
        for op in std::mem::take(&mut self.queue) {
            self.operate(op);
        }
        for op in std::mem::take(&mut self.after).into_values().flatten() {
            self.operate(op);
        }
        let run = self.new_run();
        let mut stop = Vec::new();
        for (&key, child) in self.children.iter_mut().rev() {
            if child.phase.may_be_up() {
                stop.push((key, follows));
                self.tally.shift(child, Phase::Stopping(run, Then::Rest));
            } else if !matches!(child.phase, Phase::Idle(_)) {
                self.tally.shift(child, Phase::Idle(Rest::Ended));
            }
        }
        if stop.is_empty() {
            self.finish();
            return;
        }
        self.jobs.insert(run, Job::Last);
        let parallel = self.options.parallel_stop || self.hurries(until);
        self.out.push(Output::Run { run, stop, parallel, until, start: Vec::new() });
    }

    pub(super) fn last_done(&mut self) {
        for child in self.children.values_mut() {
            if child.phase.may_be_up() {
                self.tally.shift(child, Phase::Idle(Rest::Terminated));
            }
        }
        self.finish();
    }

    fn finish(&mut self) {
        if let Stage::Ending { cause, start_error, .. } =
            std::mem::replace(&mut self.stage, Stage::Over)
        {
            self.out.push(Output::Finished { cause, start_error });
        }
    }
}
