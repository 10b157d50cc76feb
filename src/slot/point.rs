//! A request waits for a person, in its child's mailbox, as it would for a retry.
//!
//! *Invariant.* Whatever ends a waiting request, ends it here, too: what is decided about one that has
//! left the mailbox changes nothing.

use std::any::{TypeId, type_name};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::ladder::Cause;
use super::{Locked, Mail, Settled, Slot};
use crate::behavior::{Place, Turn};
use crate::decision::{Action, Decision, Rung};
use crate::event::Event;
use crate::fate::{Answer, Fate};
use crate::fault::Class;
use crate::hub;
use crate::mailbox::{self, Order, Ticket};
use crate::moment::Moment;
use crate::points::{Asked, Choice, Point, Said};
use crate::policy::History;
use crate::slot::worker::{Worker, unwound};

/// What was decided about a failed attempt, and is still to be carried out.
pub(super) struct Pending {
    pub(super) cause: Cause,
    pub(super) decision: Decision,
    /// Where the request goes on if it is tried again.
    pub(super) place: Option<Place>,
    pub(super) attempt: u32,
    pub(super) tainted: bool,
}

/// A rung that has failed, and how long a person has.
pub(super) struct Due {
    after: Rung,
    wait: Duration,
    again: bool,
    /// The history without this failure, in case it is decided otherwise.
    before: History,
}

/// Which rung has failed for good, when this is what comes next.
const fn failed(history: &History, action: Action) -> Option<Rung> {
    let (retried, handed_on) = (history.retries() > 0, history.substitutions() > 0);
    match action {
        Action::Substitute { .. } | Action::AwaitSibling { .. } if retried && !handed_on => {
            Some(Rung::Retry)
        }
        Action::Rollback | Action::Escalate | Action::Fail => {
            if history.rollbacks() > 0 {
                Some(Rung::Rollback)
            } else if handed_on {
                Some(Rung::Substitute)
            } else if retried {
                Some(Rung::Retry)
            } else {
                None
            }
        }
        _ => None,
    }
}

impl<W: Worker> Slot<W> {
    /// Whether a person is asked before this is carried out. Once a rung and request; to be asked before
    /// the decision is in the history.
    pub(super) fn due(
        &self,
        mail: &Mail<W>,
        ticket: Ticket,
        cause: &Cause,
        action: Action,
    ) -> Option<Due> {
        let mut book = mail.book()?;
        let after = failed(&book.history, action)?;
        let wait = self.hub.points.spec.wait(after)?;
        let asked = 1 << after as u8;
        if book.asked & asked != 0 {
            return None;
        }
        book.asked |= asked;
        let kind = self.spec.effect;
        let safe = matches!(cause, Cause::Fault(fault) if fault.is_replay_safe(kind));
        let again = safe
            && !book.tainted
            && self.rules.policy.may_hand_out(book.counted(ticket.lease.delivery), &book.history);
        Some(Due { after, wait, again, before: book.history.clone() })
    }

    /// People are told, and have no time to decide: nothing waits.
    pub(super) fn is_only_told(
        &self,
        mail: &Mail<W>,
        due: &Due,
        action: Action,
        now: Moment,
    ) -> bool {
        if !due.wait.is_zero() {
            return false;
        }
        let (child, request) = (self.path.clone(), mail.id);
        let point = self.hub.points.tell(child.clone(), request);
        self.hub.emit(Event::PointOpened {
            child: child.clone(),
            request,
            point,
            after: due.after,
            proposed: action.name(),
            until: now,
        });
        let decision = Choice::Continue.name();
        self.hub.emit(Event::PointClosed { child, request, point, decision, by_person: false });
        true
    }

    /// Has the request wait for a decision.
    pub(super) fn park(
        &self,
        mut desk: Locked<'_, W>,
        mail: &Mail<W>,
        ticket: Ticket,
        due: Due,
        pending: Pending,
        now: Moment,
    ) {
        desk.out.retain(|out| out.ticket != ticket);
        let held = mailbox::Input::RetryAt(ticket, Moment::NEVER);
        match desk.mailbox.on(held, &self.rules.bounds, self.rules.order, now) {
            mailbox::Output::Waiting => {}
            other => {
                if let mailbox::Output::Orphan(mail) = other {
                    desk.discard(mail);
                }
                self.publish(&mut desk);
                self.wake(desk, now);
                return;
            }
        }
        self.arm(&mut desk, mail.deadline);
        self.publish(&mut desk);
        self.wake(desk, now);
        let until = now + due.wait.min(mail.deadline.left(now) / 2);
        let mut choices = vec![Choice::Continue, Choice::Abort];
        choices.extend(due.again.then_some(Choice::RetryAgain));
        let shown = Point {
            id: 0,
            child: self.path.clone(),
            request: mail.id,
            after: due.after,
            class: pending.cause.class(),
            trail: mail.trail(),
            proposed: pending.decision.action.name(),
            choices,
            since: now,
            until,
        };
        let watched = Arc::downgrade(mail);
        let asked = Asked {
            reply: TypeId::of::<W::Reply>(),
            reply_name: type_name::<W::Reply>(),
            waits: Box::new(move || watched.upgrade().is_some_and(|mail| !mail.is_fated())),
        };
        let proposed = shown.proposed;
        let (point, mut hear) = self.hub.points.open(shown, asked);
        self.hub.emit(Event::PointOpened {
            child: self.path.clone(),
            request: mail.id,
            point,
            after: due.after,
            proposed,
            until,
        });
        // The wait keeps neither the child nor the request alive.
        let (me, mail) = (Weak::clone(&self.me), Arc::downgrade(mail));
        let expiry = self.hub.clock.sleep_until(until);
        let points = Arc::clone(&self.hub.points);
        let otherwise = match points.spec.otherwise {
            Choice::RetryAgain if !due.again => Choice::Continue,
            choice => choice,
        };
        self.hub.runtime.spawn(async move {
            let said = tokio::select! {
                biased;
                said = &mut hear => said.ok(),
                () = expiry => match points.expire(point, otherwise.name()) {
                    true => None,
                    false => hear.await.ok(),
                },
            };
            if let (Some(me), Some(mail)) = (me.upgrade(), mail.upgrade()) {
                me.decided(&mail, point, due, pending, said.ok_or(otherwise));
            } else {
                let _ = unwound(move || drop(said));
            }
        });
    }

    /// A person has decided, or nobody has in time.
    fn decided(
        &self,
        mail: &Mail<W>,
        point: u64,
        due: Due,
        mut pending: Pending,
        said: Result<Said, Choice>,
    ) {
        let now = self.hub.now();
        let by_person = said.is_ok();
        let mut answer = None;
        let choice = match said {
            Ok(Said::Choice(choice)) => choice,
            Ok(Said::Answer(value)) => {
                // Its type was compared when it was given.
                answer = value.downcast::<W::Reply>().ok();
                Choice::Continue
            }
            Err(otherwise) => otherwise,
        };
        let name = if answer.is_some() { "answer" } else { choice.name() };
        let decision = if mail.is_fated() { "gone" } else { name };
        self.hub.emit(Event::PointClosed {
            child: self.path.clone(),
            request: mail.id,
            point,
            decision,
            by_person,
        });
        let rolls_back = choice == Choice::Continue && pending.decision.action == Action::Rollback;
        if answer.is_none() && (choice == Choice::RetryAgain || rolls_back) {
            let place = match rolls_back {
                true => Some(Place { back: true, ..Place::START }),
                false => pending.place.take(),
            };
            if !rolls_back {
                let at_once = Action::Retry { delay: Duration::ZERO, at: now };
                Self::redecide(mail, due.before, &mut pending, at_once);
            }
            self.release(mail, place, now);
            return;
        }
        let mut desk = self.desk();
        let found = desk.mailbox.on(
            mailbox::Input::Cancel(mail.id),
            &self.rules.bounds,
            self.rules.order,
            now,
        );
        let mailbox::Output::Removed(mail) = found else {
            drop(desk);
            let _ = unwound(move || drop(answer));
            return;
        };
        self.left(&mut desk, &mail);
        match answer {
            Some(value) => {
                Self::redecide(&mail, due.before, &mut pending, Action::Fail);
                self.answered_by_person(desk, mail, *value, &pending, now);
            }
            None => {
                if choice == Choice::Abort {
                    Self::redecide(&mail, due.before, &mut pending, Action::Fail);
                }
                self.carry_out(desk, mail, pending, false, now);
            }
        }
    }

    /// Something else is done than what the ladder had decided, and its history says so.
    fn redecide(mail: &Mail<W>, before: History, pending: &mut Pending, action: Action) {
        let Some(mut book) = mail.book() else { return };
        book.rolled_back &= pending.decision.action != Action::Rollback;
        book.history = before;
        book.history.record(pending.cause.as_policy(), action);
        book.by_person += u32::from(matches!(action, Action::Retry { .. }));
        if let Some(last) = book.trail.0.last_mut() {
            last.action = action;
        }
        pending.decision.action = action;
    }

    /// It goes on where it stood, before what came later.
    fn release(&self, mail: &Mail<W>, place: Option<Place>, now: Moment) {
        let mut desk = self.desk();
        let found = desk.mailbox.on(
            mailbox::Input::Release(mail.id),
            &self.rules.bounds,
            self.rules.order,
            now,
        );
        if let mailbox::Output::Waiting = found
            && self.rules.order == Order::Serial
            && let Some(place) = place
            && (place.back || !matches!(place.turn, Turn::First))
            && let Some(before) = desk.rare().resume.replace(Box::new((mail.id, place)))
        {
            desk.discard(before);
        }
        self.publish(&mut desk);
        self.wake(desk, now);
    }

    fn answered_by_person(
        &self,
        mut desk: Locked<'_, W>,
        mail: Mail<W>,
        value: W::Reply,
        pending: &Pending,
        now: Moment,
    ) {
        let settled = self.settle(&mut desk, mail, Fate::Done);
        self.publish(&mut desk);
        self.wake(desk, now);
        let Some(Settled { mail, fate }) = settled else {
            let _ = unwound(move || drop(value));
            return;
        };
        if let Some(group) = &mail.home {
            self.gave_up(&mail, pending.cause.class().unwrap_or(Class::Internal), now);
            group.ended(&mail, fate);
        }
        // A person's word says nothing about the ladder: neither recovered nor lost.
        hub::note(&self.hub, &mail, fate, Some((&self.path, true)), now);
        if mail.cast {
            self.hub.cast_ended(mail.id, fate, now);
        }
        let trail = mail.trail();
        let (attempts, elapsed) = (pending.attempt, now.since(mail.accepted_at));
        if self.hub.events.wanted() {
            self.hub.emit(Event::Fated {
                child: mail.home.as_ref().map_or(&self.path, |group| group.path()).clone(),
                request: mail.id,
                fate,
                served_by: Some(self.path.clone()),
                attempts,
                degraded: true,
                defaulted: false,
                elapsed,
            });
        }
        mail.deliver(Ok(Answer {
            value,
            served_by: self.path.clone(),
            degraded: true,
            defaulted: false,
            attempts,
            cost: mail.spent(),
            elapsed,
            trail,
        }));
    }
}
