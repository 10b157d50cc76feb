//! The scopes above a request that its own rollback did not mend.
//!
//! The request waits, out of reach of its child, while a supervisor above returns to its line; then it is
//! done again from there. When that one cannot return, the next wider one is asked; when none can, the
//! reasons are told and the request goes on as if there were none.
//!
//! *Invariant.* For one request each supervisor returns at most once, the nearest first: the tree is
//! finite, and so is the ladder. Whoever waits is a task, never a supervisor.

use std::sync::{Arc, Weak};

use super::ladder::Cause;
use super::point::Pending;
use super::{Locked, Mail, Slot};
use crate::checkpoint::Scope;
use crate::decision::{Action, Declined, Rung};
use crate::event::Event;
use crate::fault::{Class, EffectKind, Fault};
use crate::hub::{Asks, Returned};
use crate::id::ChildPath;
use crate::mailbox::Ticket;
use crate::moment::Moment;
use crate::policy::{self, Wider};
use crate::slot::worker::Worker;

impl<W: Worker> Slot<W> {
    /// The next supervisor above that may return for this request, once its own rollback is spent or
    /// impossible. Only those who share a state with others take part, and only where nobody waits
    /// within another request: that one's ladder sees more of what was done.
    pub(super) fn next_wider(
        &self,
        mail: &Mail<W>,
        cause: &Cause,
        done: u64,
    ) -> Option<(ChildPath, Wider)> {
        let Cause::Fault(fault) = cause else { return None };
        if mail.is_nested() || !self.spec.stateful || self.journal().is_none() {
            return None;
        }
        // What cannot be written would not be written after a return, either.
        if fault.code.as_deref() == Some("store") {
            return None;
        }
        let (rolled_back, beyond) = {
            let book = mail.book()?;
            (book.rolled_back, book.widened.as_ref().and_then(|it| it.0.clone()))
        };
        // A first step that failed by itself has left nothing behind.
        if done == 0 && !rolled_back && fault.class != Class::Exhausted && beyond.is_none() {
            return None;
        }
        let (at, scope) = self.hub.scopes()?.next(beyond.as_ref().unwrap_or(&self.path))?;
        let rollback_failed = rolled_back && is_of_rollback(fault);
        let in_transaction = self.rules.in_transaction || scope == Scope::Transaction;
        Some((at, Wider { scope, in_transaction, rollback_failed }))
    }

    /// Has the request wait until the scope above has returned.
    pub(super) fn widen(
        &self,
        desk: Locked<'_, W>,
        mail: &Mail<W>,
        ticket: Ticket,
        pending: Pending,
        now: Moment,
    ) {
        if self.hold_back(desk, mail, ticket, now) {
            self.return_above(mail, pending);
        }
    }

    /// The request is held back: has the supervisors above return, one after the other, until one has.
    pub(super) fn return_above(&self, mail: &Mail<W>, pending: Pending) {
        let hub = Arc::clone(&self.hub);
        let Some(returns) = hub.scopes().map(|scopes| scopes.returns()) else { return };
        let failed = mail.book().and_then(|book| book.failed);
        let failed = failed.unwrap_or_else(|| hub.now());
        let (child, task) = (self.path.clone(), self.task_of(mail));
        let key = mail.key().cloned();
        // The wait keeps neither the child nor the request alive.
        let (me, mail) = (Weak::clone(&self.me), Arc::downgrade(mail));
        self.hub.spawn(async move {
            loop {
                let next = {
                    let (Some(me), Some(mail)) = (me.upgrade(), mail.upgrade()) else { return };
                    if me.is_over(&mail) {
                        return;
                    }
                    me.above(&mail, &pending)
                };
                let (Some(at), Some(scopes)) = (next, hub.scopes()) else { break };
                let (who, whose) = (Weak::clone(&me), Weak::clone(&mail));
                let wanted = move || match (who.upgrade(), whose.upgrade()) {
                    (Some(me), Some(mail)) => !me.is_over(&mail),
                    _ => false,
                };
                if let (Some(journal), Some(key)) = (hub.journal.get(), &key) {
                    // Before it is asked: a process that ends meanwhile has had it return, or not at all.
                    journal.returns_for(key, &at).await;
                }
                let (child, task) = (child.clone(), task.clone());
                let asks = Asks { returns, failed, child, task, wanted: Box::new(wanted) };
                let returned = scopes.roll_back(at.clone(), asks).await;
                let (Some(me), Some(mail)) = (me.upgrade(), mail.upgrade()) else { return };
                if me.is_over(&mail) {
                    return;
                }
                let (why, stop) = match returned {
                    Returned::Back => (None, false),
                    Returned::Not(why) => (Some(why), false),
                    Returned::Stop(why) => (Some(why), true),
                    Returned::Unwanted => return,
                };
                let back = why.is_none();
                if let Some(mut book) = mail.book() {
                    let widened = book.widened.get_or_insert_default();
                    widened.0 = Some(at);
                    widened.1.extend(why);
                }
                if back {
                    me.goes_on(&mail);
                    return;
                }
                if stop {
                    break;
                }
            }
            if let (Some(me), Some(mail)) = (me.upgrade(), mail.upgrade()) {
                me.none_above(&mail, pending);
            }
        });
    }

    /// Whether nobody is helped by a return: it has its fate, or gets it at once from whoever ends it.
    fn is_over(&self, mail: &Mail<W>) -> bool {
        mail.is_fated()
            || mail.is_cancelled()
            || mail.deadline <= self.hub.now()
            || self.hub.is_shutting_down()
            || self.hub.is_lost()
    }

    /// The scope has returned: the request is done again from there.
    fn goes_on(&self, mail: &Mail<W>) {
        if let Some(number) = mail.next_delivery() {
            self.desk().mailbox.raise(mail.id, number);
        }
        self.release(mail, None, self.hub.now());
        if let Some(group) = &mail.home {
            group.tries_again(mail);
        }
    }

    /// Who is to return next, if the class reaches so far.
    fn above(&self, mail: &Mail<W>, pending: &Pending) -> Option<ChildPath> {
        let (at, wider) = self.next_wider(mail, &pending.cause, pending.done)?;
        let effect = match mail.book()?.tainted {
            true => EffectKind::Irreversible,
            false => self.spec.effect,
        };
        let cause = pending.cause.as_policy();
        policy::may_widen(&self.rules.policy, &cause, effect, &wider).is_ok().then_some(at)
    }

    /// No scope above could return: the request ends as if there were none, unless a person says what else
    /// to do.
    fn none_above(&self, mail: &Mail<W>, mut pending: Pending) {
        if self.is_over(mail) {
            return;
        }
        let now = self.hub.now();
        let reasons = {
            let Some(mut book) = mail.book() else { return };
            let why = [(Rung::Rollback, Declined::NoValidLine), (Rung::Escalate, Declined::AtRoot)];
            pending.decision.action = Action::Fail;
            pending.decision.declined.extend(why);
            if let Some(last) = book.trail.0.last_mut() {
                last.action = pending.decision.action;
                last.declined.clone_from(&pending.decision.declined);
            }
            book.widened.as_ref().map_or_else(Vec::new, |widened| widened.1.clone())
        };
        if !reasons.is_empty() {
            self.hub.emit(Event::RollbackExhausted { at: self.path.clone(), reasons });
        }
        let Pending { decision, cause, done, delivery, .. } = &pending;
        let due = self.due(mail, *delivery, cause, decision.action, *done, now);
        let due = due.filter(|due| !self.is_only_told(mail, due, decision.action, now));
        if let Some(due) = due.filter(|_| !mail.is_cancelled()) {
            self.ask(mail, due, pending, now);
            return;
        }
        let mut desk = self.desk();
        if let Some(mail) = self.take_out(&mut desk, mail, now) {
            let left = mail.is_cancelled();
            self.carry_out(desk, mail, pending, left, now);
        }
    }
}

/// Whether it tells of a rollback that could not be made.
fn is_of_rollback(fault: &Fault) -> bool {
    matches!(fault.code.as_deref(), Some("rollback" | "restore"))
}
