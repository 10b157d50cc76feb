//! What follows when a child ends: the restart table, limits, backoff, sibling strategies.
//!
//! *Invariant.* Each restart is counted before anything is done for it, and nothing is tried again
//! without a report from outside, so that nothing loops in here.

use std::time::Duration;

use crate::fault::ExitCause;
use crate::id::Incarnation;
use crate::moment::Moment;

use super::child::{Phase, Rest, Then};
use super::run::{Death, Job};
use super::words::{AutoShutdown, Key, Output, Reply, RunId, Strategy, Token};
use super::{Family, Group, Stage};

/// No backoff doubles more often than this many times, so no child's log need be longer.
const DOUBLINGS: u32 = 64;

/// What the limits say to one more restart.
enum Verdict {
    Go {
        restarts: u32,
        at: Moment,
    },
    /// This child alone; nobody else is held to account for it.
    Alone {
        restarts: u32,
        at: Moment,
    },
    Quarantine,
    Fall {
        restarts: u32,
    },
}

impl Family {
    pub(super) fn exited(
        &mut self,
        key: Key,
        incarnation: Incarnation,
        cause: ExitCause,
        widen: Option<Strategy>,
    ) {
        if !matches!(self.stage, Stage::Booting | Stage::Open) {
            return;
        }
        let Some(child) = self.children.get(&key) else { return };
        if child.incarnation != incarnation {
            return;
        }
        match child.phase {
            Phase::Up => {
                self.has_ended(key, &cause);
                self.fell(key, cause, widen);
            }
            Phase::Starting(run) => match self.jobs.get_mut(&run) {
                Some(Job::Boot { died, .. }) => {
                    died.push(Death { key, incarnation, cause, widen, was_up: true });
                    self.shift(key, Phase::Held);
                }
                Some(Job::Group { .. }) => {
                    self.has_ended(key, &cause);
                    self.fell(key, cause, widen);
                }
                Some(_) => self.started_and_fell(run, key, cause, widen),
                None => {}
            },
            _ => {}
        }
    }

    /// A child that a run of its own had started ended before the run was reported. The start counts as
    /// done, and the run is over, whenever its runner says so.
    fn started_and_fell(
        &mut self,
        run: RunId,
        key: Key,
        cause: ExitCause,
        widen: Option<Strategy>,
    ) {
        self.out.push(Output::CancelRun(run));
        match self.jobs.remove(&run) {
            Some(Job::Begin(ticket, _)) => self.reply(ticket, Reply::Started(key)),
            Some(Job::Revive(ticket, _)) => self.reply(ticket, Reply::Restarted),
            Some(Job::Reset(ticket, _)) => self.reply(ticket, Reply::Reset),
            _ => {}
        }
        self.has_ended(key, &cause);
        self.fell(key, cause, widen);
        self.drain_after(key);
    }

    /// What becomes of a child counts against the family, too, once it has been up: its end tells whether it was.
    pub(super) fn has_ended(&mut self, key: Key, cause: &ExitCause) {
        if let Some(child) = self.children.get_mut(&key) {
            let untried = std::mem::take(&mut child.untried) || child.kept;
            child.kept = untried && matches!(cause, ExitCause::StartFailed(_));
        }
    }

    /// A child that was up has ended by itself.
    pub(super) fn fell(&mut self, key: Key, cause: ExitCause, widen: Option<Strategy>) {
        let Some(child) = self.children.get(&key) else { return };
        let options = child.options;
        if options.restart.restarts_after(&cause) {
            self.shift(key, Phase::Held);
            self.again(key, cause, widen.unwrap_or_default());
            return;
        }
        if child.is_temporary() {
            self.remove(key);
        } else {
            self.shift(key, Phase::Idle(Rest::Ended));
            self.out.push(Output::Rests { key, cause });
        }
        let ends = options.significant
            && match self.options.auto_shutdown {
                AutoShutdown::Never => false,
                AutoShutdown::AnySignificant => true,
                AutoShutdown::AllSignificant => self.tally.significant == 0,
            };
        if ends {
            self.end(ExitCause::Normal, None, false);
        }
    }

    /// A child that is dead and `Held` has to start again.
    pub(super) fn again(&mut self, key: Key, cause: ExitCause, widen: Strategy) {
        let (restarts, at) = match self.judge(key) {
            Verdict::Go { restarts, at } => (restarts, at),
            Verdict::Alone { restarts, at } => return self.alone(key, cause, restarts, at),
            Verdict::Quarantine => return self.quarantine(key, cause),
            Verdict::Fall { restarts } => return self.fall(key, cause, restarts),
        };
        let mut strategy = self.options.strategy.max(widen);
        if let Some(group) = &self.group
            && (strategy != Strategy::OneForOne || key >= group.from)
        {
            strategy = strategy.max(group.strategy);
        }
        let from = match strategy {
            Strategy::OneForOne => return self.alone(key, cause, restarts, at),
            Strategy::RestForOne => key,
            Strategy::OneForAll => Key(0),
        };
        self.together(key, cause, restarts, strategy, from, at);
    }

    /// Counts one more restart of this child, first against its own limit. What was not up yet has harmed nobody: its
    /// limit, for which that of the family stands in, is the only one.
    fn judge(&mut self, key: Key) -> Verdict {
        let now = self.now;
        let intensity = self.options.intensity;
        let mut delay = Duration::ZERO;
        let mut alone = false;
        if let Some(child) = self.children.get_mut(&key) {
            alone = child.kept;
            let limit = child.options.child_limit.or(self.options.child_limit);
            let limit = limit.or(alone.then_some(intensity));
            let backoff = self.options.backoff;
            if limit.is_some() || backoff.is_some() {
                let own = limit.map_or(Duration::ZERO, |limit| limit.period);
                let pace = backoff.map_or(Duration::ZERO, |_| intensity.period);
                let keep = limit.map_or(0, |limit| limit.count).saturating_add(1).max(DOUBLINGS);
                let log = child.log.get_or_insert_default();
                log.add(now, own.max(pace), keep as usize);
                if limit.is_some_and(|limit| log.within(now, limit.period) > limit.count) {
                    return Verdict::Quarantine;
                }
                if let Some((base, max)) = backoff {
                    let doublings = log.within(now, intensity.period).saturating_sub(1);
                    let factor = 2_u32.saturating_pow(doublings.min(DOUBLINGS));
                    delay = base.saturating_mul(factor).min(max);
                }
            }
        }
        if alone {
            let restarts = self.log.within(now, intensity.period);
            return Verdict::Alone { restarts, at: now + delay };
        }
        let keep = intensity.count as usize;
        self.log.add(now, intensity.period, keep.saturating_add(1));
        let restarts = self.log.within(now, intensity.period);
        if restarts > intensity.count {
            Verdict::Fall { restarts }
        } else {
            Verdict::Go { restarts, at: now + delay }
        }
    }

    fn quarantine(&mut self, key: Key, cause: ExitCause) {
        self.shift(key, Phase::Idle(Rest::Quarantined));
        self.out.push(Output::Quarantined { key, cause });
    }

    fn fall(&mut self, key: Key, cause: ExitCause, restarts: u32) {
        let cause = ExitCause::Intensity {
            child: self.child_path(key),
            cause: Box::new(cause),
            restarts,
            period: self.options.intensity.period,
        };
        self.end(cause, None, true);
    }

    /// Restarts one child.
    fn alone(&mut self, key: Key, cause: ExitCause, restarts: u32, at: Moment) {
        self.out.push(Output::Restarting { key, cause, scope: 1, restarts });
        if at <= self.now {
            self.launch(key, Job::Alone(key));
        } else {
            let token = self.new_token(key);
            self.shift(key, Phase::Backoff(token));
            self.out.push(Output::Arm { token, at });
        }
    }

    /// Restarts all children from `from` on, together with those of a restart that is under way.
    fn together(
        &mut self,
        key: Key,
        cause: ExitCause,
        restarts: u32,
        strategy: Strategy,
        from: Key,
        at: Moment,
    ) {
        self.regroup(Some((key, cause, restarts)), strategy, from, at, None);
    }

    /// As `together`; without a reason, nothing was counted and nothing is said.
    pub(super) fn regroup(
        &mut self,
        why: Option<(Key, ExitCause, u32)>,
        strategy: Strategy,
        mut from: Key,
        mut at: Moment,
        mut until: Option<Moment>,
    ) {
        if let Some(group) = self.group.take() {
            // Who waits for the reset still does.
            until = until.into_iter().chain(group.until).min();
            from = from.min(group.from);
            at = at.max(group.at);
            if let Some(run) = group.run {
                self.jobs.remove(&run);
                self.out.push(Output::CancelRun(run));
            }
        }
        let waits = at > self.now;
        let run = self.new_run();
        let (mut stop, mut start, mut scope) = (Vec::new(), Vec::new(), 0);
        let mut called_off = Vec::new();
        for (&key, child) in self.children.range_mut(from..) {
            let then = match child.phase {
                Phase::Idle(Rest::Terminated | Rest::Quarantined) | Phase::Queued => continue,
                // What an operator wishes goes on; all other runs of this scope were called off.
                Phase::Stopping(by, _) if self.jobs.contains_key(&by) => continue,
                Phase::Stopping(_, then) => then,
                Phase::Starting(by) => match self.jobs.get(&by) {
                    None => Then::Hold,
                    Some(Job::Begin(..) | Job::Revive(..)) => {
                        called_off.push(by);
                        Then::Queue
                    }
                    Some(_) => {
                        called_off.push(by);
                        // Only a reset starts a temporary child again.
                        if child.is_temporary() { Then::Remove } else { Then::Hold }
                    }
                },
                Phase::Idle(Rest::Ended) | Phase::Backoff(_) | Phase::Held | Phase::Up => {
                    if child.is_temporary() { Then::Remove } else { Then::Hold }
                }
            };
            let follows = then != Then::Remove;
            if child.phase.may_be_up() || !follows {
                stop.push((key, follows));
            }
            scope += usize::from(then == Then::Hold);
            let phase = if then != Then::Hold {
                Phase::Stopping(run, then)
            } else if !waits {
                child.incarnation = child.incarnation.next();
                start.push((key, child.incarnation));
                Phase::Starting(run)
            } else if child.phase.may_be_up() {
                Phase::Stopping(run, then)
            } else {
                Phase::Held
            };
            self.tally.shift(child, phase);
        }
        stop.reverse();
        for run in called_off {
            self.call_off(run);
        }
        let slow = why.as_ref().map_or(from, |(key, ..)| *key);
        if let Some((key, cause, restarts)) = why {
            self.out.push(Output::Restarting { key, cause, scope, restarts });
        }
        let busy = !stop.is_empty() || !start.is_empty();
        if busy {
            let stop_keys = stop.iter().map(|&(key, _)| key).collect();
            let start_keys = start.iter().map(|&(key, _)| key).collect();
            self.jobs.insert(run, Job::Group { stop: stop_keys, start: start_keys });
            let parallel = self.hurries(until);
            self.out.push(Output::Run { run, stop, parallel, until, start });
        }
        let token = waits.then(|| self.new_token(slow));
        if let Some(token) = token {
            self.out.push(Output::Arm { token, at });
        }
        self.group = Some(Group { from, strategy, run: busy.then_some(run), token, at, until });
    }

    /// Whether all are stopped at the same time, since there is little time and no order that matters.
    pub(super) fn hurries(&self, until: Option<Moment>) -> bool {
        until.is_some() && self.options.strategy == Strategy::OneForOne
    }

    /// Starts all that are held. Without any, the restart is over.
    fn launch_group(&mut self) {
        let run = self.new_run();
        let Some(group) = &mut self.group else { return };
        let (mut keys, mut start) = (Vec::new(), Vec::new());
        for (&key, child) in self.children.range_mut(group.from..) {
            if child.phase == Phase::Held {
                child.incarnation = child.incarnation.next();
                self.tally.shift(child, Phase::Starting(run));
                keys.push(key);
                start.push((key, child.incarnation));
            }
        }
        if start.is_empty() {
            self.group = None;
            self.resets_done();
            self.drain();
            return;
        }
        group.run = Some(run);
        self.jobs.insert(run, Job::Group { stop: Vec::new(), start: keys });
        self.out.push(Output::Run { run, stop: Vec::new(), parallel: false, until: None, start });
    }

    pub(super) fn group_done(
        &mut self,
        run: RunId,
        stop: &[Key],
        start: &[Key],
        result: Result<(), (Key, ExitCause)>,
    ) {
        for &key in stop {
            self.stopped(key);
        }
        let (failed, cause) = result.err().unzip();
        let mut tried = true;
        let mut failed_here = false;
        for &key in start {
            let here = failed == Some(key);
            tried &= !here;
            if self.phase(key) != Some(Phase::Starting(run)) {
                continue;
            }
            failed_here |= here;
            self.shift(key, if tried { Phase::Up } else { Phase::Held });
        }
        let Some(group) = &mut self.group else { return };
        group.run = None;
        if let (Some(key), Some(cause), true) = (failed, cause, failed_here) {
            // Those before it are up. As in OTP, only one_for_all stops them again.
            if group.strategy == Strategy::RestForOne {
                group.from = key;
            }
            let strategy = group.strategy;
            let alone = self.children.get(&key).is_some_and(|child| child.kept);
            self.again(key, cause, strategy);
            if !alone && self.phase(key) != Some(Phase::Idle(Rest::Quarantined)) {
                self.drain();
                return;
            }
        }
        self.group_on();
        self.drain();
    }

    /// Ends the restart of siblings if an operator has taken the last of them out of it.
    pub(super) fn group_over(&mut self) {
        if self.tally.held == 0 && self.group.as_ref().is_some_and(|group| group.run.is_none()) {
            self.group = None;
            self.resets_done();
            self.drain();
        }
    }

    /// The group's run is done or there is none: on with what is held, unless it has to wait.
    fn group_on(&mut self) {
        if self.group.as_ref().is_some_and(|group| group.run.is_none() && group.token.is_none()) {
            self.launch_group();
        }
    }

    pub(super) fn due(&mut self, token: Token) {
        if let Some(group) = &mut self.group
            && group.token == Some(token)
        {
            group.token = None;
            self.group_on();
            return;
        }
        let key = token.child();
        if self.phase(key) == Some(Phase::Backoff(token)) {
            self.launch(key, Job::Alone(key));
        }
    }
}
