//! What follows a failure: the judgement is asked, and its decision carried out.

use std::sync::Arc;

use super::point::{Due, Pending};
use super::{Desk, Job, LastEnd, Locked, Mail, Slot};
use crate::behavior::{Place, Turn};
use crate::decision::{Action, Decision, Rung};
use crate::error::CallError;
use crate::event::Event;
use crate::fate::{Attempt, Cost, Ended as EndedText, Fate};
use crate::fault::{Class, EffectKind, ExitCause, Fault};
use crate::id::Incarnation;
use crate::ledger::NOTHING_TO_UNDO;
use crate::lifecycle;
use crate::mailbox::{self, Order, Ticket};
use crate::moment::Moment;
use crate::policy::budget::RetryBudget;
use crate::policy::{
    self, CheckpointFacts, GroupKind, History, Outlook, RequestFacts, Tolerance, What,
};
use crate::port::{Book, Cut};
use crate::slot::recovery::count_fallback;
use crate::slot::worker::{Worker, dropped};
use crate::slot::{Carrier, Ended};

/// What an attempt ended with.
#[derive(Debug)]
pub(crate) enum Cause {
    Fault(Fault),
    Exit(ExitCause),
}

impl Cause {
    pub(super) fn as_policy(&self) -> policy::Cause<'_> {
        match self {
            Self::Fault(fault) => policy::Cause::Fault(fault),
            Self::Exit(exit) => policy::Cause::Exit(exit),
        }
    }

    pub(super) fn class(&self) -> Option<Class> {
        match self {
            Self::Fault(fault) => Some(fault.class),
            Self::Exit(_) => None,
        }
    }

    /// What a circuit is told.
    pub(super) fn health_class(&self) -> Class {
        match self {
            Self::Fault(fault) => fault.health_class(),
            Self::Exit(_) => Class::Internal,
        }
    }

    pub(super) fn text(&self) -> EndedText {
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
        job.settle(!matches!(&ended, Ended::Fault(fault, ..) if fault.own_limits));
        self.hand_back(&job, &ended);
        if let Some(bill) = &job.bill {
            let index = self.member.get().map_or(0, |member| member.index);
            job.mail.open_book(index, job.ticket.lease.delivery).spent.add(bill.all);
        }
        let mut unused = None;
        let mut report: Option<Box<dyn FnOnce()>> = None;
        let mut desk = self.desk();
        let current = desk.life.incarnation() == job.life
            && carrier.is_none_or(|number| desk.carrier_no == number);
        // A class may opt for more than the attempt: the life, or its siblings with it.
        let mut ended_life = None;
        let (ended, life, wider) = match ended {
            Ended::Fault(fault, place, tainted) => match self.rules.policy.what(fault.class) {
                What::Attempt => (Ended::Fault(fault, place, tainted), life, What::Attempt),
                What::Life => {
                    ended_life = life;
                    (Ended::Fault(fault, Place::START, tainted), None, What::Life)
                }
                What::Siblings => {
                    ended_life = life;
                    (Ended::Fault(fault, Place::START, tainted), None, What::Siblings)
                }
            },
            other => (other, life, What::Attempt),
        };
        match (&ended, life) {
            (_, Some(life)) if current && carrier.is_some() => desk.parked = Some(life),
            (_, Some(life)) => unused = Some(life),
            (Ended::Crash(..), None) | (Ended::Fault(..), None) if current => {
                let exit = match &ended {
                    Ended::Crash(cause, _) => Some(cause.as_ref().clone()),
                    Ended::Fault(fault, ..) if wider != What::Attempt => {
                        Some(ExitCause::Faulted(fault.class))
                    }
                    _ => None,
                };
                if let Some(cause) = exit {
                    let siblings = wider == What::Siblings;
                    let (parked, then) = self.life_lost(&mut desk, job.life, cause, siblings);
                    unused = parked;
                    report = then;
                }
            }
            _ => {}
        }
        self.drop_answer(&mut desk, job.ticket, true);
        let lease = desk.mailbox.flight(job.ticket).map(|flight| flight.orphan);
        let rest = desk.resting();
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
                Ended::Fault(fault, place, tainted) => {
                    drop(desk);
                    self.climb(
                        &job.mail,
                        job.ticket,
                        Cause::Fault(*fault),
                        Some(place),
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
        for left in [unused, ended_life] {
            if left.is_some() {
                let _ = dropped(left);
            }
        }
    }

    /// The life with this number is over. Returns what is left of it, to be dropped without the lock,
    /// and the report to its supervisor.
    #[allow(clippy::type_complexity)]
    pub(super) fn life_lost(
        &self,
        desk: &mut Desk<W>,
        life: Incarnation,
        cause: ExitCause,
        siblings: bool,
    ) -> (Option<W::Life>, Option<Box<dyn FnOnce()>>) {
        let output = desk.life.on(lifecycle::Input::Exited(life, cause.kind()));
        let parked = match output {
            lifecycle::Output::Ignored => None,
            _ => {
                desk.last_cause = Some(Box::new(LastEnd::new(&cause, self.hub.now())));
                // The next life knows nothing of the steps that were done.
                if let Some(resume) = desk.take_steps() {
                    desk.discard(resume);
                }
                desk.parked.take()
            }
        };
        let report: Option<Box<dyn FnOnce()>> = match output {
            lifecycle::Output::Report(..) => {
                Some(Box::new(self.report(desk, life, cause, siblings)))
            }
            _ => None,
        };
        self.publish_life(desk);
        (parked, report)
    }

    /// An attempt that was asked to end did so.
    fn cut_short(
        &self,
        mut desk: Locked<'_, W>,
        job: &Job<W>,
        cut: Cut,
        tainted: bool,
        now: Moment,
    ) {
        // A caller who left is not waited for by the next life.
        if cut == Cut::Cancel || (job.mail.is_cancelled() && !tainted) {
            if let Some(mail) = self.finish(&mut desk, job.ticket, now) {
                // Nothing was answered, and what it had called may have acted.
                let fate = if tainted { Fate::Unknown } else { Fate::Cancelled };
                let settled = self.settle(&mut desk, mail, fate);
                self.publish(&mut desk);
                self.wake(desk, now);
                self.tell(settled, &ExitCause::Stopped);
            }
            return;
        }
        // Interrupted without its fault: back to the front, unless doing it again from the start
        // would repeat what may not be repeated, or it has been handed out too often.
        let worn = desk.life.will_serve() && self.is_worn(&job.mail, job.ticket);
        if tainted || worn {
            drop(desk);
            let cause = Cause::Exit(ExitCause::Stopped);
            self.climb(&job.mail, job.ticket, cause, None, tainted, now);
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
        match mail.book() {
            Some(book) => !self.rules.policy.may_hand_out(delivery, &book.history),
            None => !self.rules.policy.may_hand_out(delivery, &History::default()),
        }
    }

    pub(super) fn interrupt(&self, desk: &mut Desk<W>, ticket: Ticket, now: Moment) {
        desk.out.retain(|out| out.ticket != ticket);
        let copied = desk.mailbox.flight(ticket).filter(|flight| flight.payload.was_copied());
        let mail = copied.map(|flight| Arc::clone(flight.payload));
        let output = desk.mailbox.on(
            mailbox::Input::Interrupt(ticket),
            &self.rules.bounds,
            self.rules.order,
            now,
        );
        if let mailbox::Output::Orphan(mail) = output {
            desk.discard(mail);
        }
        if let Some(mail) = mail {
            if let Some(number) = mail.next_delivery() {
                desk.mailbox.raise(mail.id, number);
            }
            desk.discard(mail);
        }
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
            mailbox::Output::Orphan(mail) => {
                desk.discard(mail);
                None
            }
            _ => None,
        }
    }

    /// Asks the judgement about a failed attempt and carries its decision out.
    pub(super) fn climb(
        &self,
        mail: &Mail<W>,
        ticket: Ticket,
        mut cause: Cause,
        place: Option<Place>,
        tainted: bool,
        now: Moment,
    ) {
        if mail.is_fated() || self.leaves_to_copy(mail, ticket, &mut cause, tainted, now) {
            let mut desk = self.desk();
            let left = self.finish(&mut desk, ticket, now);
            if let Some(left) = left {
                desk.discard(left);
            }
            self.publish(&mut desk);
            self.wake(desk, now);
            return;
        }
        let done = place.as_ref().map_or(0, |place| place.step);
        let mut decision = self.judge(mail, ticket, &cause, tainted, done, now);
        let left = mail.is_cancelled()
            && matches!(
                decision.action.rung(),
                Some(Rung::Retry | Rung::Substitute | Rung::Rollback)
            );
        if left {
            // Nobody waits for it any more.
            decision.action = Action::Fail;
        }
        let class = cause.class();
        // The end of a life is counted where it is reported, once.
        if let Cause::Fault(fault) = &cause {
            self.hub.count_failure(fault.class, fault.code.as_deref());
            self.add_up(mail, &decision, now);
        }
        // Whoever was interrupted without its fault has not failed.
        if !matches!(&cause, Cause::Exit(ExitCause::Stopped | ExitCause::Normal)) {
            self.hub.count_decision(class, decision.action, now);
        }
        let (attempt, _) = mail.attempt();
        let group = mail.home.as_ref();
        let to = match (decision.action, group) {
            (Action::Substitute { member }, Some(group)) => Some(group.member_path(member)),
            _ => None,
        };
        let due = self.due(mail, ticket.lease.delivery, &cause, decision.action, done, now);
        self.record(mail, ticket, &cause, &decision, attempt, now);
        let asks = due.as_ref().is_some_and(Due::waits) && !mail.is_cancelled();
        self.told(mail.id, ticket, &cause, attempt, (&decision, to, asks));
        let action = decision.action;
        let due = due.filter(|due| !self.is_only_told(mail, due, action, now));
        let mut desk = self.desk();
        if matches!(&cause, Cause::Fault(_)) {
            desk.attempt_failed(cause.text(), now);
        }
        let (delivery, life) = (ticket.lease.delivery, desk.life.incarnation());
        if let Some(due) = due.filter(|_| !mail.is_cancelled()) {
            let pending =
                Pending { cause, decision, place, life, attempt, tainted, done, delivery };
            self.park(desk, mail, ticket, due, pending, now);
            return;
        }
        // A caller who left since then found it in flight: nobody else would take it out.
        let left = left
            || (mail.is_cancelled()
                && matches!(action, Action::Retry { .. } | Action::Rollback | Action::Widen));
        if action == Action::Widen && !left {
            let pending =
                Pending { cause, decision, place, life, attempt, tainted, done, delivery };
            self.widen(desk, mail, ticket, pending, now);
            return;
        }
        let again = match action {
            _ if left => None,
            Action::Retry { at, .. } => Some((at, place)),
            Action::Rollback => Some((now, Some(Place { back: true, ..Place::START }))),
            _ => None,
        };
        if let Some((at, place)) = again {
            desk.out.retain(|out| out.ticket != ticket);
            let waits = desk.mailbox.on(
                mailbox::Input::RetryAt(ticket, at),
                &self.rules.bounds,
                self.rules.order,
                now,
            );
            if let mailbox::Output::Orphan(mail) = waits {
                desk.discard(mail);
            } else if let mailbox::Output::Waiting = waits {
                if self.rules.order == Order::Serial
                    && let Some(place) = place
                    && (place.back || !matches!(place.turn, Turn::First))
                {
                    let before = desk.rare().resume.replace(Box::new((mail.id, place)));
                    if let Some(before) = before {
                        desk.discard(before);
                    }
                }
                if at > now {
                    self.arm(&mut desk, at);
                }
            }
            if let Some(number) = mail.next_delivery() {
                desk.mailbox.raise(mail.id, number);
            }
            self.publish(&mut desk);
            self.wake(desk, now);
            if let Some(group) = &mail.home {
                group.tries_again(mail);
            }
            return;
        }
        let Some(mail) = self.finish(&mut desk, ticket, now) else {
            self.publish(&mut desk);
            self.wake(desk, now);
            return;
        };
        let place = None;
        let pending = Pending { cause, decision, place, life, attempt, tainted, done, delivery };
        self.carry_out(desk, mail, pending, left, now);
    }

    /// What ends a request's time here: it has left the mailbox, and goes to a sibling or gets its fate.
    pub(super) fn carry_out(
        &self,
        mut desk: Locked<'_, W>,
        mail: Mail<W>,
        pending: Pending,
        left: bool,
        now: Moment,
    ) {
        let Pending { cause, decision, attempt, tainted, .. } = pending;
        let action = decision.action;
        let (text, class, verdict) = (cause.text(), cause.class(), cause.health_class());
        if let Some(group) = mail.home.clone() {
            match action {
                Action::Substitute { member } => {
                    self.publish(&mut desk);
                    self.wake(desk, now);
                    self.gave_up(&mail, verdict, now);
                    let _ = self.take_back(&mut self.desk(), None);
                    let to = group.member_path(member);
                    count_fallback(&self.hub, group.path(), &to);
                    group.hand_on(mail, member);
                    return;
                }
                Action::AwaitSibling { until } => {
                    self.publish(&mut desk);
                    self.wake(desk, now);
                    self.gave_up(&mail, verdict, now);
                    let _ = self.take_back(&mut self.desk(), None);
                    group.wait(mail, until);
                    return;
                }
                _ => {}
            }
        }
        let fate = match action {
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
            self.gave_up(&mail, verdict, now);
        }
        if settled.is_none() {
            return;
        }
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
        done: u64,
        now: Moment,
    ) -> Decision {
        let policy_cause = cause.as_policy();
        let index = self.member.get().map_or(0, |member| member.index);
        let (history, rolled_back) = {
            let mut book = mail.open_book(index, ticket.lease.delivery);
            book.deliveries = book.deliveries.max(ticket.lease.delivery);
            book.tainted |= tainted;
            (mail.home.is_some().then(|| book.history.clone()), book.rolled_back)
        };
        // The members are looked at without the book: whoever has locked a slot may want to read it.
        let members = match (&mail.home, history) {
            (Some(group), Some(history)) => group.candidates(&history, index, now),
            _ => Vec::new(),
        };
        // What was gone back to is there, also where nothing has been done since.
        let can_go_back = self.can_go_back(done.max(rolled_back.into()));
        let wider = self.next_wider(mail, cause, done).map(|(_, wider)| wider);
        let soft = self.soft(mail, ticket);
        let mut book = mail.open_book(index, ticket.lease.delivery);
        let Tolerance { window, .. } = self.rules.policy.tolerance;
        book.history.tell_soft_failures(soft.lock().within(window, now));
        let checkpoint = can_go_back.then_some(CheckpointFacts {
            used: book.rolled_back,
            in_transaction: self.rules.in_transaction,
        });
        let effect = if book.tainted { EffectKind::Irreversible } else { self.spec.effect };
        let facts = RequestFacts {
            id: self.hub.seeded(mail.id),
            attempt: book.trail.0.len() as u32 + 1,
            delivery: book.counted(book.deliveries),
            deadline: mail.deadline,
            effect,
            changed: policy_cause.changes_next(book.feedback.as_deref()),
        };
        let mut domain = self.domain().lock();
        if let Cause::Fault(fault) = cause {
            self.tell_domain(&mut domain, fault, now);
        }
        let cost = RetryBudget::cost(&policy_cause);
        let outlook = Outlook {
            members: mail.home.is_some().then_some(&members[..]),
            kind: mail.home.as_ref().map_or(GroupKind::Model, |group| group.kind()),
            retry_budget: domain.retries.affords(cost),
            domain_open_at: domain.open_at(),
            request_budget: mail.purse().is_none_or(|purse| purse.covers(Cost::default(), now)),
            checkpoint,
            wider,
            has_parent: mail.is_nested(),
            copy_out: false,
        };
        let decision =
            policy::decide(&self.rules.policy, &policy_cause, &facts, &book.history, &outlook, now);
        if decision.action == Action::Rollback {
            book.rolled_back = true;
        }
        book.paid = 0;
        if let Action::Retry { .. } = decision.action {
            // Asked and taken under one lock, so that two callers cannot both pass on the last token.
            domain.retries.withdraw(cost);
            book.paid = cost;
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
        if let Some(mut book) = mail.book() {
            self.note(&mut book, ticket, cause, decision, attempt, now);
        }
    }

    pub(super) fn note(
        &self,
        book: &mut Book,
        ticket: Ticket,
        cause: &Cause,
        decision: &Decision,
        attempt: u32,
        now: Moment,
    ) {
        book.history.record(cause.as_policy(), decision.action);
        if self.spec.durable {
            book.failed.get_or_insert_with(|| self.hub.now());
        }
        if let Cause::Fault(fault) = cause {
            book.fault = Some(fault.clone());
            // A failure without feedback does not unsay what was said before.
            if let Some(feedback) = fault.feedback.clone().filter(|feedback| !feedback.is_empty()) {
                book.feedback = Some(feedback);
            }
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

    pub(super) fn gave_up(&self, mail: &Mail<W>, class: Class, now: Moment) {
        if let (Some(group), Some(member)) = (&mail.home, self.member.get()) {
            group.gave_up(mail.id, member.index, class, now);
        }
    }

    fn alert(&self, mail: &Mail<W>, ended: EndedText, attempts: u32) {
        self.hub.stats.lock().alerts += 1;
        let child = mail.home.as_ref().map_or(&self.path, |group| group.path()).clone();
        self.hub.emit(Event::Alert { child, request: mail.id, ended, attempts });
    }

    /// The ladder is spent: the error with the whole trail. Whoever asked within a request judges it
    /// with a ladder of its own; where there is nobody above, somebody is alerted, once. A missing
    /// permission is told where it is missing, too: no ladder above mends it.
    fn fail(&self, mail: &Mail<W>, fault: Fault, ended: EndedText, attempts: u32, now: Moment) {
        let is_failure = fault.code.as_deref() != Some(NOTHING_TO_UNDO);
        if is_failure && !mail.is_nested() || fault.class == Class::Permission {
            self.alert(mail, ended, attempts);
        }
        if let Some(group) = &mail.home {
            group.ended(mail, Fate::Failed);
        }
        let child = mail.home.as_ref().map_or(&self.path, |group| group.path()).clone();
        self.fated(mail, child.clone(), Fate::Failed, attempts, now);
        let retry_after = self.rests(mail, &fault, now);
        let (fault, trail) = (Box::new(fault), mail.trail());
        mail.deliver(Err(CallError::RecoveryExhausted { child, fault, trail, retry_after }));
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
            // A stateless attempt that blocks in its first poll blocks its carrier, too.
            self.fence(desk);
        }
        let position = desk.out.iter().position(|out| out.ticket == ticket)?;
        let out = desk.out.swap_remove(position);
        desk.abandon(&out);
        let tainted = !self.effect_of(desk.flight_of(&out)).is_replay_safe();
        // Otherwise its own copy would count as somebody at work.
        drop(out);
        self.drop_answer(desk, ticket, true);
        let mail = Arc::clone(desk.mailbox.flight(ticket)?.payload);
        let orphan = desk.mailbox.flight(ticket)?.orphan;
        let (parked, report) = self.life_lost(desk, life, ExitCause::Hang, false);
        if let Some(late) = mail.late() {
            late.give_up();
        }
        if orphan {
            self.finish(desk, ticket, now);
        }
        let me = self.me.upgrade()?;
        Some(Box::new(move || {
            let _ = dropped(parked);
            me.hub.emit(Event::Zombie { child: me.path.clone(), incarnation: life });
            if !orphan {
                me.climb(&mail, ticket, Cause::Exit(ExitCause::Hang), None, tainted, me.hub.now());
            }
            if let Some(report) = report {
                report();
            }
            let desk = me.desk();
            if let Some(rest) = desk.resting() {
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
