//! The end of a request that no member has.
//!
//! *Invariant.* It is counted here once, and its caller told once.

use std::sync::Arc;

use super::{Group, UNTRIED};
use crate::circuit::{self, Verdict};
use crate::error::CallError;
use crate::event::Event;
use crate::fate::Fate;
use crate::fault::{ExitCause, Fault};
use crate::hub;
use crate::port::{Envelope, Home};

impl<Q: Send + Sync + 'static, R: Send + 'static> Group<Q, R> {
    /// Nobody is left who could serve it. One that has failed before has climbed its ladder to the end;
    /// one that nobody has worked on only hears that all have stopped.
    pub(super) fn give_up(&self, mail: &Arc<Envelope<Q, R>>) {
        let failed = mail.book().is_some_and(|book| !book.trail.0.is_empty());
        let fate = if failed { Fate::Failed } else { Fate::Stopped };
        self.end(mail, fate, &ExitCause::Stopped);
    }

    /// Ends a request that no member has.
    pub(super) fn end(&self, mail: &Arc<Envelope<Q, R>>, fate: Fate, cause: &ExitCause) {
        if !mail.claim() {
            return;
        }
        let (ends, is_durable) = (fate, self.durable.is_some());
        let member = &self.seats[mail.member()].member;
        let fate = match fate {
            Fate::Stopped if is_durable && self.hub.is_suspending() => Fate::Suspended,
            fate => member.ends(mail, fate),
        };
        if is_durable {
            self.recorder().ended(mail, fate);
        }
        if fate != Fate::Suspended {
            member.undoes(mail, ends, is_durable);
        }
        // Whoever it failed at has been judged for that; that it waited here is nobody's failure.
        self.settled(mail, fate, UNTRIED);
        let now = self.hub.now();
        hub::note(&self.hub, mail, fate, None, now);
        let trail = mail.trail();
        let attempts = trail.0.len() as u32;
        let child = self.path.clone();
        let error = match fate {
            Fate::Expired => CallError::Expired {
                child: child.clone(),
                waited: now.since(mail.accepted_at),
                trail,
            },
            Fate::Failed => {
                let ended = trail.0.last().map(|attempt| attempt.ended.clone());
                if let (false, Some(ended)) = (mail.is_nested(), ended) {
                    self.hub.stats.lock().alerts += 1;
                    let child = child.clone();
                    self.hub.emit(Event::Alert { child, request: mail.id, ended, attempts });
                }
                let fault = mail.book().and_then(|book| book.fault.clone());
                let fault = fault.unwrap_or_else(|| Fault::internal("every member is gone"));
                let (child, fault) = (child.clone(), Box::new(fault));
                let retry_after = self.rests(now);
                CallError::RecoveryExhausted { child, fault, trail, retry_after }
            }
            Fate::Cancelled => CallError::Cancelled { child: child.clone() },
            Fate::Suspended => CallError::Suspended { child: child.clone() },
            Fate::Unknown => CallError::Unknown { child: child.clone(), trail },
            _ => CallError::Stopped { child: child.clone(), cause: cause.clone() },
        };
        if mail.cast {
            if let Some(key) = mail.key().filter(|_| self.hub.shelf.remembers()) {
                self.hub.shelf.forget(key);
            }
            self.hub.cast_ended(mail.id, fate, now);
        }
        if self.hub.events.wanted() {
            self.hub.emit(Event::Fated {
                child,
                request: mail.id,
                fate,
                served_by: None,
                attempts,
                degraded: false,
                defaulted: false,
                elapsed: now.since(mail.accepted_at),
                cost: mail.spent(),
            });
        }
        mail.deliver(Err(error));
    }

    /// Counts the fate of a request, and tells the circuit of whoever had it last what that says of them.
    pub(super) fn settled(&self, mail: &Arc<Envelope<Q, R>>, fate: Fate, verdict: Verdict) {
        let now = self.hub.now();
        let member = mail.member();
        let verdict = self.verdict(member, verdict);
        self.settle_copies(mail, None, now);
        let extra = self.takes_extra(mail);
        let change = {
            let mut desk = self.desk.lock();
            desk.extra -= usize::from(extra);
            desk.counts.add(fate);
            desk.counts.open -= 1;
            desk.circuits[member].on(circuit::Input::Ended { request: mail.id, verdict }, now)
        };
        self.changed(member, change);
    }
}
