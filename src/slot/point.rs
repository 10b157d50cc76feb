//! A request waits for a person, in its child's mailbox, as it would for a retry.
//!
//! *Invariant.* Whatever ends a waiting request, ends it here, too: what is decided about one that has
//! left the mailbox changes nothing.

use std::any::{Any, TypeId, type_name};
use std::convert::identity;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::ladder::Cause;
use super::ways::Ways;
use super::{Locked, Mail, Settled, Slot};
use crate::behavior::{Place, Turn};
use crate::checkpoint::Batch;
use crate::decision::{Action, Decision, Rung};
use crate::event::Event;
use crate::fate::{Answer, Fate};
use crate::fault::EffectKind;
use crate::hub;
use crate::id::{ChildPath, Delivery, Incarnation};
use crate::journal::End;
use crate::mailbox::{self, Order, Ticket};
use crate::moment::Moment;
use crate::points::{Asked, Choice, Point, Said};
use crate::policy::{self, CheckpointFacts, History, Standing};
use crate::slot::worker::{Worker, dropped, unwound};

/// What was decided about a failed attempt, and is still to be carried out.
pub(super) struct Pending {
    pub(super) cause: Cause,
    pub(super) decision: Decision,
    /// Where the request goes on if it is tried again, in the life that has come so far.
    pub(super) place: Option<Place>,
    /// Which that is. Another one begins the request afresh, or as what it was restored to says.
    pub(super) life: Incarnation,
    pub(super) attempt: u32,
    pub(super) tainted: bool,
    /// How many of its steps were done.
    pub(super) done: u64,
    /// Which hand-out failed.
    pub(super) delivery: Delivery,
}

/// A rung that has failed, or none that may help; how long a person has, and what they can choose.
pub(super) struct Due {
    after: Option<Rung>,
    wait: Duration,
    choices: Vec<Choice>,
    /// The history without this failure, in case it is decided otherwise.
    before: History,
    /// What is held until it is decided.
    ways: Ways,
}

impl Due {
    /// Whether anybody is waited for: without a time of their own, people are only told.
    pub(super) const fn waits(&self) -> bool {
        !self.wait.is_zero()
    }
}

/// No point is opened for less: its end and that of the request would be one moment.
const LEAST: Duration = Duration::from_millis(2);

impl<W: Worker> Slot<W> {
    /// Whether a person is asked before this is carried out. Once a rung and request; to be asked before
    /// the decision is in the history.
    pub(super) fn due(
        &self,
        mail: &Mail<W>,
        delivery: Delivery,
        cause: &Cause,
        action: Action,
        done: u64,
        now: Moment,
    ) -> Option<Due> {
        let (before, (after, wait)) = {
            let book = mail.book()?;
            let due = self.hub.points.spec.due(&book.history, cause.class(), action)?;
            (book.history.clone(), due)
        };
        if mail.deadline.left(now) / 2 < LEAST && !wait.is_zero() {
            return None;
        }
        // Both look elsewhere, so the book is not held.
        let members = match &mail.home {
            Some(group) => {
                let index = self.member.get().map_or(0, |member| member.index);
                group.candidates(&before, index, now)
            }
            None => Vec::new(),
        };
        let can_go_back = self.can_go_back(done);
        let mut book = mail.book()?;
        let asked = 1 << after.map_or(Rung::ALL.len(), |after| after as usize);
        if book.asked & asked != 0 {
            return None;
        }
        book.asked |= asked;
        let judged = cause.as_policy();
        let effect = if book.tainted { EffectKind::Irreversible } else { self.spec.effect };
        let mut choices = vec![Choice::Continue];
        if action != Action::HoldUnknown {
            choices.push(Choice::Abort);
        }
        let counted = book.counted(delivery);
        let safe = matches!(cause, Cause::Fault(fault) if fault.is_replay_safe(self.spec.effect));
        if safe && !book.tainted && self.rules.policy.may_hand_out(counted, &before) {
            choices.push(Choice::RetryAgain);
        }
        if let Some(group) = &mail.home {
            let kind = group.kind();
            let fit = members
                .iter()
                .filter(|member| policy::may_choose(&judged, effect, &before, kind, member));
            choices.extend(fit.map(|member| Choice::Substitute(group.member_path(member.index))));
        }
        let checkpoint = can_go_back.then_some(CheckpointFacts {
            // The one that the ladder is about to use is still there.
            used: book.rolled_back && action != Action::Rollback,
            in_transaction: self.rules.in_transaction,
        });
        if policy::may_go_back(&judged, effect, checkpoint) {
            choices.push(Choice::RollBack);
        }
        Some(Due { after, wait, choices, before, ways: Ways::default() })
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
        desk: Locked<'_, W>,
        mail: &Mail<W>,
        ticket: Ticket,
        due: Due,
        pending: Pending,
        now: Moment,
    ) {
        if self.hold_back(desk, mail, ticket, now) {
            self.ask(mail, due, pending, now);
        }
    }

    /// Takes a request back for longer: it keeps its place, and waits until it is released or taken out.
    /// Whether it waits: it may have had its fate already.
    pub(super) fn hold_back(
        &self,
        mut desk: Locked<'_, W>,
        mail: &Mail<W>,
        ticket: Ticket,
        now: Moment,
    ) -> bool {
        desk.out.retain(|out| out.ticket != ticket);
        let held = mailbox::Input::RetryAt(ticket, Moment::NEVER);
        match desk.mailbox.on(held, &self.rules.bounds, self.rules.order, now) {
            mailbox::Output::Waiting => self.arm(&mut desk, mail.deadline),
            other => {
                if let mailbox::Output::Orphan(mail) = other {
                    desk.discard(mail);
                }
                self.publish(&mut desk);
                self.wake(desk, now);
                return false;
            }
        }
        self.publish(&mut desk);
        self.wake(desk, now);
        true
    }

    /// Takes a request that is held back out of the mailbox; `None` when it has got its fate meanwhile.
    pub(super) fn take_out(
        &self,
        desk: &mut Locked<'_, W>,
        mail: &Mail<W>,
        now: Moment,
    ) -> Option<Mail<W>> {
        let found = desk.mailbox.on(
            mailbox::Input::Cancel(mail.id),
            &self.rules.bounds,
            self.rules.order,
            now,
        );
        let mailbox::Output::Removed(mail) = found else { return None };
        self.left(desk, &mail);
        Some(mail)
    }

    /// Asks a person about a request that is held back.
    pub(super) fn ask(&self, mail: &Mail<W>, mut due: Due, pending: Pending, now: Moment) {
        let wait = due.wait.min(mail.deadline.left(now) / 2);
        let until = now + wait;
        due.ways = self.hold_ways(mail, wait);
        let shown = Point {
            id: 0,
            child: self.path.clone(),
            request: mail.id,
            after: due.after,
            class: pending.cause.class(),
            trail: mail.trail(),
            proposed: pending.decision.action.name(),
            choices: due.choices.clone(),
            since: now,
            until,
            pinned: due.ways.states.clone(),
            lines: due.ways.lines(),
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
        let otherwise = match &points.spec.otherwise {
            choice if due.choices.contains(choice) => choice.clone(),
            _ => Choice::Continue,
        };
        self.hub.spawn(async move {
            let said = tokio::select! {
                biased;
                said = &mut hear => said.ok(),
                () = expiry => match points.expire(point, otherwise.name()) {
                    true => None,
                    false => hear.await.ok(),
                },
            };
            let me = me.upgrade();
            if let (Some(me), Some(mail)) = (&me, mail.upgrade()) {
                let said = me.keep_said(&mail, said).await;
                me.decided(&mail, point, due, pending, said.ok_or(otherwise));
            } else {
                if let Some(me) = me {
                    me.let_ways_go(&due.ways, false);
                }
                let _ = dropped(said);
            }
        });
    }

    /// What a person has answered is in the store before anybody hears of it, as any answer to this request
    /// would be. One that cannot be kept is as if nobody had said it.
    async fn keep_said(&self, mail: &Mail<W>, said: Option<Said>) -> Option<Said> {
        let (Some(Said::Answer(value)), Some(journal)) = (&said, self.hub.journal.get()) else {
            return said;
        };
        let Some((recording, key)) = self.recording(mail).zip(mail.key()) else { return said };
        if mail.is_fated() {
            return said;
        }
        let text = unwound(|| (recording.write_reply)(&**value as &dyn Any)).and_then(identity);
        let kept = match text {
            Err(error) => {
                tracing::warn!(target: "mainstay", child = %self.path, %error, "a person's answer cannot be written down");
                false
            }
            Ok(text) => {
                let reply = String::from_utf8_lossy(&text).into_owned();
                mail.note_journaled();
                let batch = (Batch::new(), recording.durability);
                let end = End::answered(reply, self.given_by_person(mail));
                let handed = journal.fated(key, Fate::Done, end, None, batch);
                let limit = (self.hub.now() + self.rules.attempt_timeout).min(mail.deadline);
                // The journal says what it could not write.
                tokio::select! {
                    biased;
                    kept = handed => kept.is_ok(),
                    () = self.hub.clock.sleep_until(limit) => false,
                }
            }
        };
        if kept {
            return said;
        }
        mail.forget_journaled();
        let _ = dropped(said);
        None
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
        let to = match &choice {
            Choice::Substitute(path) => self.still_ready(mail, path, &due, now),
            _ => None,
        };
        let choice = match choice {
            // It was taken out of service meanwhile.
            Choice::Substitute(_) if to.is_none() => Choice::Continue,
            choice => choice,
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
        let proposed = pending.decision.action;
        let rolls_back = match &choice {
            Choice::Continue => proposed == Action::Rollback,
            choice => *choice == Choice::RollBack,
        };
        let again = answer.is_none() && (choice == Choice::RetryAgain || rolls_back);
        let widens = answer.is_none() && choice == Choice::Continue && proposed == Action::Widen;
        self.let_ways_go(&due.ways, (again || widens) && !mail.is_fated());
        if again {
            let place = match rolls_back {
                true => Some(Place { back: true, ..Place::START }),
                false => pending.place.take(),
            };
            let action = match rolls_back {
                true => Action::Rollback,
                false => Action::Retry { delay: Duration::ZERO, at: now },
            };
            if action != proposed {
                Self::redecide(mail, due.before, &mut pending, action);
            }
            self.release(mail, place.map(|place| (pending.life, place)), now);
            return;
        }
        if widens {
            self.return_above(mail, pending);
            return;
        }
        let mut desk = self.desk();
        let Some(mail) = self.take_out(&mut desk, mail, now) else {
            drop(desk);
            let _ = dropped(answer);
            return;
        };
        match answer {
            Some(value) => {
                Self::redecide(&mail, due.before, &mut pending, Action::Fail);
                self.answered_by_person(desk, mail, *value, &pending, now);
            }
            None => {
                let chosen = match to {
                    Some(member) => Some(Action::Substitute { member }),
                    None => (choice == Choice::Abort).then_some(Action::Fail),
                };
                if let Some(action) = chosen {
                    Self::redecide(&mail, due.before, &mut pending, action);
                }
                self.carry_out(desk, mail, pending, false, now);
            }
        }
    }

    /// The member that a person has chosen, if it still takes work.
    fn still_ready(
        &self,
        mail: &Mail<W>,
        path: &ChildPath,
        due: &Due,
        now: Moment,
    ) -> Option<usize> {
        let group = mail.home.as_ref()?;
        let index = self.member.get().map_or(0, |member| member.index);
        let members = group.candidates(&due.before, index, now);
        let found = members.iter().find(|member| group.member_path(member.index) == *path)?;
        matches!(found.standing, Standing::Ready | Standing::Full).then_some(found.index)
    }

    /// Something else is done than what the ladder had decided, and its history says so.
    fn redecide(mail: &Mail<W>, before: History, pending: &mut Pending, action: Action) {
        let Some(mut book) = mail.book() else { return };
        book.rolled_back &= pending.decision.action != Action::Rollback;
        book.rolled_back |= action == Action::Rollback;
        book.history = before;
        book.history.record(pending.cause.as_policy(), action);
        book.by_person += u32::from(matches!(action, Action::Retry { .. }));
        if let Some(last) = book.trail.0.last_mut() {
            last.action = action;
        }
        pending.decision.action = action;
    }

    /// It goes on where it stood, before what came later; where it stood in another life says nothing
    /// to this one.
    pub(super) fn release(&self, mail: &Mail<W>, place: Option<(Incarnation, Place)>, now: Moment) {
        let mut desk = self.desk();
        let place = match place {
            Some((life, place)) if !place.back && !desk.is_in(life) => {
                desk.discard(place);
                None
            }
            place => place.map(|(_, place)| place),
        };
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
            let _ = dropped(value);
            return;
        };
        if let Some(group) = &mail.home {
            self.gave_up(&mail, pending.cause.health_class(), now);
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
                cost: mail.spent(),
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
