//! What follows a failure: the judgement is asked, and its decision carried out.

use std::sync::Arc;

use super::{Desk, Job, Mail, Slot};
use crate::behavior::Turn;
use crate::decision::{Action, Decision, Rung};
use crate::error::CallError;
use crate::event::Event;
use crate::family::Strategy;
use crate::fate::{Answer, Attempt, Ended as EndedText, Fate, Trail};
use crate::fault::{Class, EffectKind, ExitCause, Fault};
use crate::id::Incarnation;
use crate::lifecycle;
use crate::mailbox::{self, Order, Ticket};
use crate::moment::Moment;
use crate::policy::budget::RetryBudget;
use crate::policy::{self, GroupKind, History, Outlook, RequestFacts, What};
use crate::port::{Book, Cut};
use crate::slot::worker::Worker;
use crate::slot::{Carrier, Ended};

/// What an attempt ended with.
#[derive(Debug)]
pub(crate) enum Cause {
    Fault(Fault),
    Exit(ExitCause),
}

impl Cause {
    fn as_policy(&self) -> policy::Cause<'_> {
        match self {
            Self::Fault(fault) => policy::Cause::Fault(fault),
            Self::Exit(exit) => policy::Cause::Exit(exit),
        }
    }

    fn class(&self) -> Option<Class> {
        match self {
            Self::Fault(fault) => Some(fault.class),
            Self::Exit(_) => None,
        }
    }

    fn text(&self) -> EndedText {
        match self {
            Self::Fault(fault) => EndedText::Fault {
                class: fault.class,
                code: fault.code.as_ref().map(|code| code.to_string()),
            },
            Self::Exit(exit) => EndedText::Exit(exit.kind()),
        }
    }

    fn into_fault(self) -> Fault {
        match self {
            Self::Fault(fault) => fault,
            Self::Exit(exit) => {
                Fault::internal(format!("the life that worked on it ended: {exit}"))
            }
        }
    }
}

impl<W: Worker> Slot<W> {
    /// Takes back an attempt without an answer: parks the life or reports its end, then climbs the
    /// ladder with the request.
    pub(super) fn not_answered(
        &self,
        carrier: Option<u32>,
        life: Option<W::Life>,
        mut job: Job<W>,
        ended: Ended<W::Reply>,
    ) {
        let now = self.hub.now();
        if let Some(reservation) = job.reservation.take() {
            reservation.settle(crate::fate::Cost::default());
        }
        let mut unused = None;
        let mut report: Option<Box<dyn FnOnce()>> = None;
        let mut desk = self.desk();
        let current = desk.life.incarnation() == job.life
            && carrier.is_none_or(|number| desk.carrier_no == number);
        // A class may opt for more than the attempt: the life, or its siblings with it.
        let (ended, life, widen) = match ended {
            Ended::Fault(fault, turn, tainted) => match self.rules.policy.what(fault.class) {
                What::Attempt => (Ended::Fault(fault, turn, tainted), life, None),
                What::Life => (Ended::Fault(fault, Turn::First, tainted), None, Some(None)),
                What::Siblings => (
                    Ended::Fault(fault, Turn::First, tainted),
                    None,
                    Some(Some(Strategy::OneForAll)),
                ),
            },
            other => (other, life, None),
        };
        match (&ended, life) {
            (_, Some(life)) if current && carrier.is_some() => desk.parked = Some(life),
            (_, Some(life)) => unused = Some(life),
            (Ended::Crash(..), None) | (Ended::Fault(..), None) if current => {
                let exit = match &ended {
                    Ended::Crash(cause, _) => Some(cause.as_ref().clone()),
                    Ended::Fault(fault, ..) if widen.is_some() => {
                        Some(ExitCause::Faulted(fault.class))
                    }
                    _ => None,
                };
                if let Some(cause) = exit {
                    let (parked, then) =
                        self.life_lost(&mut desk, job.life, cause, widen.flatten());
                    unused = parked;
                    report = then;
                }
            }
            _ => {}
        }
        let lease = desk.mailbox.flight(job.ticket).map(|flight| flight.orphan);
        let rest = desk.resting.clone();
        match lease {
            None => {
                drop(desk);
                self.stale(&job.mail, job.ticket);
            }
            Some(true) => {
                self.finish(&mut desk, job.ticket, now);
                self.publish(&mut desk);
                self.wake(desk, now);
            }
            Some(false) => match ended {
                Ended::Fault(fault, turn, tainted) => {
                    drop(desk);
                    self.climb(
                        &job.mail,
                        job.ticket,
                        Cause::Fault(*fault),
                        Some(turn),
                        tainted,
                        now,
                    );
                }
                Ended::Crash(cause, tainted) => {
                    drop(desk);
                    self.climb(&job.mail, job.ticket, Cause::Exit(*cause), None, tainted, now);
                }
                Ended::Cut(cut, tainted) => self.cut_short(desk, &job, cut, tainted, now),
                Ended::Reply(..) => drop(desk),
            },
        }
        // The supervisor hears of the end once the request is back in its place.
        if let Some(report) = report {
            report();
        }
        if let Some(rest) = rest {
            rest.notify_waiters();
            rest.notify_one();
        }
        if carrier.is_none() {
            let desk = self.desk();
            self.wake(desk, now);
        }
        drop(unused);
    }

    /// The life with this number is over. Returns what is left of it, to be dropped without the lock,
    /// and the report to its supervisor.
    #[allow(clippy::type_complexity)]
    pub(super) fn life_lost(
        &self,
        desk: &mut Desk<W>,
        life: Incarnation,
        cause: ExitCause,
        widen: Option<Strategy>,
    ) -> (Option<W::Life>, Option<Box<dyn FnOnce()>>) {
        let output = desk.life.on(lifecycle::Input::Exited(life, cause.kind()));
        let parked = match output {
            lifecycle::Output::Ignored => None,
            _ => {
                desk.last_cause = Some(Box::new((cause.clone(), self.hub.now())));
                // The next life knows nothing of the steps that were done.
                desk.resume = None;
                desk.parked.take()
            }
        };
        let report: Option<Box<dyn FnOnce()>> = match output {
            lifecycle::Output::Report(..) => Some(Box::new(self.report(desk, life, cause, widen))),
            _ => None,
        };
        self.publish_life(desk);
        (parked, report)
    }

    /// An attempt that was asked to end did so.
    fn cut_short(
        &self,
        mut desk: parking_lot::MutexGuard<'_, Desk<W>>,
        job: &Job<W>,
        cut: Cut,
        tainted: bool,
        now: Moment,
    ) {
        if cut == Cut::Cancel {
            if let Some(mail) = self.finish(&mut desk, job.ticket, now) {
                let fate = if tainted { Fate::Unheard } else { Fate::Cancelled };
                let settled = self.settle(&mut desk, mail, fate);
                self.publish(&mut desk);
                self.wake(desk, now);
                self.tell(settled, &ExitCause::Stopped);
            }
            return;
        }
        // Interrupted without its fault: back to the front, unless doing it again from the start
        // would repeat what may not be repeated, or it has been handed out too often.
        let worn = self.is_worn(&job.mail, job.ticket);
        if tainted || worn {
            drop(desk);
            let why = if tainted {
                "interrupted after it had called what may not be called twice"
            } else {
                "interrupted too often"
            };
            let fault = Fault::cancelled(why).with_code("interrupted");
            self.climb(&job.mail, job.ticket, Cause::Fault(fault), None, tainted, now);
            return;
        }
        self.interrupt(&mut desk, job.ticket, now);
        self.publish(&mut desk);
        self.wake(desk, now);
        self.hub.emit(Event::Interrupted { child: self.path.clone(), request: job.mail.id });
    }

    /// Whether a request that is interrupted here has been handed out as often as it may be.
    pub(super) fn is_worn(&self, mail: &Mail<W>, ticket: Ticket) -> bool {
        let delivery = ticket.lease.delivery;
        match &*mail.book.lock() {
            Some(book) => !self.rules.policy.may_hand_out(delivery.next(), &book.history),
            None => !self.rules.policy.may_hand_out(delivery.next(), &History::default()),
        }
    }

    pub(super) fn interrupt(&self, desk: &mut Desk<W>, ticket: Ticket, now: Moment) {
        desk.out.retain(|out| out.ticket != ticket);
        desk.mailbox.on(
            mailbox::Input::Interrupt(ticket),
            &self.rules.bounds,
            self.rules.order,
            now,
        );
    }

    /// The entry of this hand-out leaves the mailbox; `None` when its request has a fate already.
    pub(super) fn finish(
        &self,
        desk: &mut Desk<W>,
        ticket: Ticket,
        now: Moment,
    ) -> Option<Mail<W>> {
        desk.out.retain(|out| out.ticket != ticket);
        let finished = desk.mailbox.on(
            mailbox::Input::Finish(ticket),
            &self.rules.bounds,
            self.rules.order,
            now,
        );
        match finished {
            mailbox::Output::Finished(mail) => {
                self.left(desk, &mail);
                Some(mail)
            }
            _ => None,
        }
    }

    /// Asks the judgement about a failed attempt and carries its decision out.
    pub(super) fn climb(
        &self,
        mail: &Mail<W>,
        ticket: Ticket,
        cause: Cause,
        turn: Option<Turn>,
        tainted: bool,
        now: Moment,
    ) {
        let mut decision = self.judge(mail, ticket, &cause, tainted, now);
        let left = mail.is_cancelled()
            && matches!(decision.action.rung(), Some(Rung::Retry | Rung::Substitute));
        if left {
            // Nobody waits for it any more.
            decision.action = Action::Fail;
        }
        let text = cause.text();
        let class = cause.class();
        self.hub.count_failure(class);
        self.hub.count_decision(class, decision.action);
        let (attempt, _) = mail.attempt();
        let group = mail.home.as_ref();
        let to = match (decision.action, group) {
            (Action::Substitute { member }, Some(group)) => Some(group.member_path(member)),
            _ => None,
        };
        self.record(mail, ticket, &cause, &decision, attempt, now);
        if self.hub.events.wanted() {
            self.hub.emit(Event::Failed {
                child: self.path.clone(),
                request: mail.id,
                attempt,
                delivery: ticket.lease.delivery,
                ended: text.clone(),
            });
            self.hub.emit(Event::Decided {
                child: self.path.clone(),
                request: mail.id,
                decision: decision.clone(),
                to,
                class,
            });
        }
        let mut desk = self.desk();
        if let Action::Retry { at, .. } = decision.action {
            desk.out.retain(|out| out.ticket != ticket);
            let waits = desk.mailbox.on(
                mailbox::Input::RetryAt(ticket, at),
                &self.rules.bounds,
                self.rules.order,
                now,
            );
            if let mailbox::Output::Waiting = waits {
                if self.rules.order == Order::Serial
                    && let Some(turn @ (Turn::Performed(_) | Turn::Again)) = turn
                {
                    desk.resume = Some(Box::new((mail.id, turn)));
                }
                self.arm(&mut desk, at);
            }
            self.publish(&mut desk);
            self.wake(desk, now);
            return;
        }
        let Some(mail) = self.finish(&mut desk, ticket, now) else {
            self.publish(&mut desk);
            self.wake(desk, now);
            return;
        };
        if let Some(group) = mail.home.clone() {
            let verdict = class.unwrap_or(Class::Internal);
            match decision.action {
                Action::Substitute { member } => {
                    self.publish(&mut desk);
                    self.wake(desk, now);
                    self.gave_up(&mail, verdict, now);
                    self.count_fallback(group.path());
                    group.hand_on(mail, member);
                    return;
                }
                Action::AwaitSibling { until } => {
                    self.publish(&mut desk);
                    self.wake(desk, now);
                    self.gave_up(&mail, verdict, now);
                    group.wait(mail, until);
                    return;
                }
                _ => {}
            }
        }
        let fate = match decision.action {
            Action::HoldUnknown => Fate::Unknown,
            Action::Quarantine => Fate::Quarantined,
            Action::Expire => Fate::Expired,
            _ if left || (class == Some(Class::Cancelled) && !tainted) => Fate::Cancelled,
            _ => Fate::Failed,
        };
        let settled = self.settle(&mut desk, Arc::clone(&mail), fate);
        self.publish(&mut desk);
        self.wake(desk, now);
        if mail.home.is_some() {
            self.gave_up(&mail, class.unwrap_or(Class::Internal), now);
        }
        if settled.is_none() {
            return;
        }
        self.note_recovery(&mail, None);
        if fate == Fate::Failed {
            self.fail(&mail, cause.into_fault(), text, attempt, now);
        } else {
            if matches!(fate, Fate::Quarantined | Fate::Unknown) {
                self.alert(&mail, text, attempt);
            }
            self.tell(settled, &ExitCause::Stopped);
        }
    }

    fn judge(
        &self,
        mail: &Mail<W>,
        ticket: Ticket,
        cause: &Cause,
        tainted: bool,
        now: Moment,
    ) -> Decision {
        let policy_cause = cause.as_policy();
        let index = self.member.get().map_or(0, |member| member.index);
        let mut book = mail.book.lock();
        let book = book.get_or_insert_with(|| {
            Box::new(Book {
                history: History::starting_at(index),
                trail: Trail::default(),
                deliveries: ticket.lease.delivery,
                tainted: false,
                fault: None,
            })
        });
        mail.opened_book();
        book.deliveries = ticket.lease.delivery;
        book.tainted |= tainted;
        let members = mail
            .home
            .as_ref()
            .map(|group| group.candidates(&book.history, index, now))
            .unwrap_or_default();
        let effect = if book.tainted { EffectKind::Irreversible } else { self.spec.effect };
        let facts = RequestFacts {
            id: mail.id,
            attempt: book.trail.0.len() as u32 + 1,
            delivery: ticket.lease.delivery,
            deadline: mail.deadline,
            effect,
            changed: matches!(cause, Cause::Exit(_)),
            escalated: false,
        };
        let mut domain = self.domain().lock();
        if let Cause::Fault(fault) = cause
            && fault.class == Class::RateLimit
        {
            domain.rate_limited(fault.retry_after, now);
            if let Some(name) = &self.spec.quota_domain {
                self.hub.emit(Event::DomainClosed {
                    domain: name.to_string(),
                    until: domain.open_at(),
                });
            }
        }
        let cost = RetryBudget::cost(&policy_cause);
        let outlook = Outlook {
            members: mail.home.is_some().then_some(&members[..]),
            kind: mail.home.as_ref().map_or(GroupKind::Model, |group| group.kind()),
            retry_budget: domain.retries.affords(cost),
            domain_open_at: domain.open_at(),
            request_budget: mail
                .purse
                .as_ref()
                .is_none_or(|purse| purse.covers(crate::fate::Cost::default(), now)),
            checkpoint: None,
            has_parent: self.path.parent().is_some(),
        };
        let decision =
            policy::decide(&self.rules.policy, &policy_cause, &facts, &book.history, &outlook, now);
        if let Action::Retry { .. } = decision.action {
            // Asked and taken under one lock, so that two callers cannot both pass on the last token.
            domain.retries.withdraw(cost);
        }
        decision
    }

    fn record(
        &self,
        mail: &Mail<W>,
        ticket: Ticket,
        cause: &Cause,
        decision: &Decision,
        attempt: u32,
        now: Moment,
    ) {
        let mut book = mail.book.lock();
        let Some(book) = book.as_mut() else { return };
        book.history.record(cause.as_policy(), decision.action);
        if let Cause::Fault(fault) = cause {
            book.fault = Some(fault.clone());
        }
        book.trail.0.push(Attempt {
            at: now,
            child: self.path.clone(),
            attempt,
            delivery: ticket.lease.delivery,
            ended: cause.text(),
            action: decision.action,
            declined: decision.declined.clone(),
        });
    }

    fn gave_up(&self, mail: &Mail<W>, class: Class, now: Moment) {
        if let (Some(group), Some(member)) = (&mail.home, self.member.get()) {
            group.gave_up(mail.id, member.index, class, now);
        }
    }

    fn alert(&self, mail: &Mail<W>, ended: EndedText, attempts: u32) {
        self.hub.stats.lock().alerts += 1;
        let child = mail.home.as_ref().map_or(&self.path, |group| group.path()).clone();
        self.hub.emit(Event::Alert { child, request: mail.id, ended, attempts });
    }

    /// The ladder is spent: one alert, and the error with the whole trail.
    fn fail(&self, mail: &Mail<W>, fault: Fault, ended: EndedText, attempts: u32, now: Moment) {
        self.alert(mail, ended, attempts);
        if let Some(group) = &mail.home {
            group.ended(mail, Fate::Failed);
        }
        let child = mail.home.as_ref().map_or(&self.path, |group| group.path()).clone();
        self.fated(mail, child.clone(), Fate::Failed, attempts, now);
        let fault = Box::new(fault);
        mail.deliver(Err(CallError::RecoveryExhausted { child, fault, trail: mail.trail() }));
    }

    fn count_fallback(&self, group: &crate::id::ChildPath) {
        *self.hub.stats.lock().fallbacks.entry(group.clone()).or_default() += 1;
    }

    /// Counts, for a request that has its fate, what became of the retries and substitutes it needed.
    pub(super) fn note_recovery(&self, mail: &Mail<W>, answer: Option<&Answer<W::Reply>>) {
        if !mail.has_book() {
            return;
        }
        let (retries, substitutions) = match &*mail.book.lock() {
            None => return,
            Some(book) => (book.history.retries(), book.history.substitutions()),
        };
        let mut stats = self.hub.stats.lock();
        if retries > 0 {
            stats.entered_retry += 1;
            if answer.is_some() && substitutions == 0 {
                stats.recovered_by_retry += 1;
            }
        }
        if substitutions > 0
            && let Some(group) = &mail.home
        {
            let path = group.path();
            *stats.entered_fallback.entry(path.clone()).or_default() += 1;
            match answer {
                Some(answer) if answer.defaulted => {
                    *stats.defaulted.entry(path.clone()).or_default() += 1;
                }
                Some(_) => *stats.recovered_by_fallback.entry(path.clone()).or_default() += 1,
                None => {}
            }
        }
    }

    /// An attempt did not even yield after it was told that its time is over: its life is given up,
    /// and its carrier with it.
    pub(super) fn hung(
        &self,
        desk: &mut Desk<W>,
        ticket: Ticket,
        life: Incarnation,
        now: Moment,
    ) -> Option<Box<dyn FnOnce()>> {
        if life == desk.life.incarnation() {
            desk.zombies += 1;
            // A stateless attempt that blocks in its first poll blocks its carrier, too.
            self.fence(desk);
        }
        let tainted = !self.effect_of(desk, ticket).is_replay_safe();
        let mail = Arc::clone(desk.mailbox.flight(ticket)?.payload);
        let orphan = desk.mailbox.flight(ticket)?.orphan;
        let (parked, report) = self.life_lost(desk, life, ExitCause::Hang, None);
        if orphan {
            self.finish(desk, ticket, now);
        }
        let me = self.me.upgrade()?;
        Some(Box::new(move || {
            drop(parked);
            me.hub.emit(Event::Zombie { child: me.path.clone(), incarnation: life });
            if !orphan {
                me.climb(&mail, ticket, Cause::Exit(ExitCause::Hang), None, tainted, me.hub.now());
            }
            if let Some(report) = report {
                report();
            }
            let desk = me.desk();
            if let Some(rest) = desk.resting.clone() {
                rest.notify_waiters();
                rest.notify_one();
            }
        }))
    }

    /// The carrier is no longer listened to, whatever it does.
    pub(super) fn fence(&self, desk: &mut Desk<W>) {
        desk.forget_carrier();
        if let Carrier::There(actor) = std::mem::replace(&mut desk.carrier, Carrier::None) {
            actor.kill();
        }
    }
}
