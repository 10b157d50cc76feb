//! The copies of a request that is out at two members of a group: what a slot knows of one, and how it
//! is called off.
//!
//! *Invariant.* A copy that is called off changes nothing any more: its hand-out is an orphan, and what
//! it brings is stale.

use std::sync::Arc;

use super::{Cause, Mail, Slot};
use crate::circuit::Domain;
use crate::decision::{Action, Decision};
use crate::event::Event;
use crate::fate::Cost;
use crate::fault::{Class, EffectKind, EffectState, Fault};
use crate::id::{ChildPath, Delivery, RequestId};
use crate::mailbox::{self, Ticket};
use crate::moment::Moment;
use crate::policy::{self, Outlook, RequestFacts};
use crate::port::Cut;
use crate::slot::worker::Worker;

impl<W: Worker> Slot<W> {
    /// The number under which a request is handed out here, or will be; and whether what is done for it
    /// may still be done twice. `None` when it is not here.
    pub(crate) fn hand_out(&self, mail: &Mail<W>) -> Option<(Delivery, bool)> {
        let desk = self.desk();
        let found = desk.mailbox.flights().find(|flight| flight.payload.id == mail.id);
        if let Some(flight) = found {
            let out = desk.flight(flight.ticket)?;
            let safe = self.effect_of(Some(out)).is_replay_safe();
            return (!flight.orphan).then_some((flight.ticket.lease.delivery, safe));
        }
        let mut waiting = desk.mailbox.waiting();
        let safe = self.spec.effect.is_replay_safe();
        waiting.find(|(id, ..)| *id == mail.id).map(|(_, delivery, _)| (delivery.next(), safe))
    }

    /// Another copy of this request was answered, or the request has ended without an answer: this one is
    /// taken out, or ended at its next safe point. What it has cost so far.
    pub(crate) fn call_off(&self, mail: &Mail<W>, now: Moment) -> Cost {
        let mut desk = self.desk();
        let mut cost = Cost::default();
        let found = desk.mailbox.on(
            mailbox::Input::Cancel(mail.id),
            &self.rules.bounds,
            self.rules.order,
            now,
        );
        match found {
            mailbox::Output::Removed(copy) => {
                self.left(&mut desk, &copy);
                desk.discard(copy);
            }
            mailbox::Output::InFlight(ticket) => {
                if let Some(copy) = desk.mailbox.orphan(ticket) {
                    self.left(&mut desk, &copy);
                    desk.discard(copy);
                }
                if let Some(flight) = desk.flight(ticket).map(Arc::clone) {
                    cost = flight.tie().map(|tie| tie.so_far()).unwrap_or_default();
                    flight.ask(Cut::Cancel);
                }
            }
            _ => {}
        }
        self.publish(&mut desk);
        self.wake(desk, now);
        cost
    }

    /// Whether the copy here is the second of two that are out.
    pub(crate) fn is_second_copy(&self, mail: &Mail<W>) -> bool {
        let Some(member) = self.member.get().filter(|_| mail.was_copied()) else { return false };
        mail.book().is_some_and(|book| book.copies.is_second(member.index))
    }

    /// Whether the copy that failed here is not missed, because another is out. Judged and written down
    /// under one lock: the one that fails last has to know of it. Where that one stood back for a copy that
    /// has failed meanwhile (`Cancelled` and not applied, though the request is not cancelled), `cause` becomes one that is tried again.
    pub(super) fn leaves_to_copy(
        &self,
        mail: &Mail<W>,
        ticket: Ticket,
        cause: &mut Cause,
        tainted: bool,
        now: Moment,
    ) -> bool {
        let Some(member) = self.member.get().filter(|_| mail.was_copied()) else { return false };
        let Some(mut book) = mail.book() else { return false };
        let was_out = book.copies.has(member.index);
        let stood_back = !mail.is_cancelled()
            && matches!(
                cause,
                Cause::Fault(Fault {
                    class: Class::Cancelled,
                    effect: EffectState::NotApplied,
                    ..
                })
            );
        let Some(other) = book.copies.give_up(member.index) else {
            if was_out
                && stood_back
                && let Cause::Fault(fault) = cause
            {
                let text = format!("the copy that it stood back for has failed: {}", fault.message);
                *fault = Fault::network(text).with_code("stood_back");
            }
            return false;
        };
        let cause = &*cause;
        book.tainted |= tainted;
        let effect = if book.tainted { EffectKind::Irreversible } else { self.spec.effect };
        let facts =
            RequestFacts { effect, deadline: mail.deadline, ..RequestFacts::first(mail.id) };
        let outlook = Outlook { copy_out: true, ..Outlook::default() };
        let cause_of = cause.as_policy();
        let policy = &self.rules.policy;
        let decision = policy::decide(policy, &cause_of, &facts, &book.history, &outlook, now);
        if decision.action != Action::AwaitCopy {
            return false;
        }
        let attempt = book.trail.0.len() as u32 + 1;
        self.note(&mut book, ticket, cause, &decision, attempt, now);
        if stood_back {
            // It may well do the request, if the other does not.
            book.history.forget_tried(member.index);
        }
        drop(book);
        mail.set_member(other);
        if let Cause::Fault(fault) = cause {
            self.hub.count_failure(fault.class, fault.code.as_deref());
            self.tell_domain(&mut self.domain().lock(), fault, now);
        }
        self.told(mail.id, ticket, cause, attempt, (&decision, None, false));
        self.gave_up(mail, cause.health_class(), now);
        true
    }

    /// What a failure says to all that share the quota domain. Limits that the child keeps to by itself are
    /// no matter of theirs.
    pub(super) fn tell_domain(&self, domain: &mut Domain, fault: &Fault, now: Moment) {
        if !fault.own_limits
            && domain.told(fault.class, fault.retry_after, now)
            && let Some(name) = &self.spec.quota_domain
        {
            let until = domain.open_at();
            self.hub.emit(Event::DomainClosed { domain: name.to_string(), until });
        }
    }

    /// The events of a failure and of what is done about it, or with `asks` would be,
    /// as a person is asked first.
    pub(super) fn told(
        &self,
        request: RequestId,
        ticket: Ticket,
        cause: &Cause,
        attempt: u32,
        (decision, to, asks): (&Decision, Option<ChildPath>, bool),
    ) {
        if !self.hub.events.wanted() {
            return;
        }
        self.hub.emit(Event::Failed {
            child: self.path.clone(),
            request,
            attempt,
            delivery: ticket.lease.delivery,
            ended: cause.text(),
        });
        let (class, decision) = (cause.class(), decision.clone());
        let child = self.path.clone();
        self.hub.emit(Event::Decided { child, request, decision, to, class, asks });
    }
}
