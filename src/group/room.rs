//! What waits in the group itself, while no member takes it.
//!
//! *Invariant.* What has been accepted is never refused for want of room: the bounds are for requests that
//! have just come. Those that wait are offered again in the order in which they came.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use super::{Errand, Group, LOOK_AGAIN};
use crate::error::Unavailable;
use crate::fate::Fate;
use crate::fault::ExitCause;
use crate::moment::Moment;
use crate::port::Envelope;
use crate::slot::unwound;
use crate::spec::{GroupSpec, Weigh};

/// How much may wait.
pub(super) struct Room {
    count: usize,
    bytes: Option<(usize, Weigh)>,
}

impl Room {
    pub(super) fn of(spec: &GroupSpec) -> Self {
        let bytes = spec.mailbox_bytes.as_ref();
        Self {
            count: spec.mailbox as usize,
            bytes: bytes.map(|weighed| (weighed.0.0, Arc::clone(&weighed.0.2))),
        }
    }
}

impl<Q: Send + Sync + 'static, R: Send + 'static> Group<Q, R> {
    /// Whether a request that has just come finds no room to wait in.
    pub(super) fn is_crowded(&self, mail: &Envelope<Q, R>) -> bool {
        // The weight is the user's code: it is not run under the lock, and a message that cannot be
        // weighed finds no room.
        let weight = |mail: &Envelope<Q, R>, weigh: &Weigh| {
            unwound(|| weigh(&*mail.request as &dyn Any)).unwrap_or(usize::MAX)
        };
        let waiting: Vec<_> = {
            let desk = self.desk.lock();
            if desk.waiting.len() >= self.room.count {
                return true;
            }
            match self.room.bytes {
                None => return false,
                Some(_) => desk.waiting.iter().map(|(mail, _)| Arc::clone(mail)).collect(),
            }
        };
        self.room.bytes.as_ref().is_some_and(|(bytes, weigh)| {
            let held = waiting.iter().map(|mail| weight(mail, weigh));
            held.fold(weight(mail, weigh), usize::saturating_add) > *bytes
        })
    }

    pub(super) fn hold(&self, mail: Arc<Envelope<Q, R>>, until: Moment) {
        let mut desk = self.desk.lock();
        if desk.closed {
            drop(desk);
            self.end(&mail, Fate::Stopped, &ExitCause::Stopped);
            return;
        }
        let at = until.min(mail.deadline);
        desk.waiting.push_back((mail, until));
        self.arm(&mut desk, at);
    }

    /// Offers what waits to whoever has room now.
    pub(super) fn offer_waiting(&self, due_only: bool) {
        let mut expired = Vec::new();
        let mut due = Vec::new();
        let now = {
            let mut desk = self.desk.lock();
            if desk.waiting.is_empty() {
                // As after nearly every answer: what time it is takes longer to ask.
                return;
            }
            let now = self.hub.now();
            for (mail, until) in std::mem::take(&mut desk.waiting) {
                if mail.deadline <= now {
                    expired.push(mail);
                } else if !due_only || until <= now {
                    due.push((mail, until));
                } else {
                    desk.waiting.push_back((mail, until));
                }
            }
            now
        };
        for mail in expired {
            self.end(&mail, Fate::Expired, &ExitCause::Stopped);
        }
        // When one that nobody has worked on finds no member, no other one does.
        let mut shut: Option<Moment> = None;
        for (mail, since) in due {
            if mail.is_fated() {
                continue;
            }
            let (errand, order) = self.order(&mail, now);
            if let (Errand::New, Some(until)) = (errand, shut) {
                self.hold(mail, if since > now { since.min(until) } else { until });
                continue;
            }
            let last = mail.member();
            match self.offer(&mail, errand, order, now) {
                Ok(()) => {
                    self.plan_hedge(&mail, now);
                    self.follow_up(&mail);
                }
                Err(refused) => {
                    mail.set_member(last);
                    let coming = refused.full
                        || !refused.until.is_never()
                        || refused.away == Some(Unavailable::Restarting);
                    if !coming {
                        // Nobody is left who could serve it, and nobody will come back by itself.
                        self.give_up(&mail);
                        continue;
                    }
                    let until = if refused.full || refused.until.is_never() {
                        now + LOOK_AGAIN
                    } else {
                        refused.until.max(now + Duration::from_millis(1))
                    };
                    if errand == Errand::New {
                        shut = Some(until);
                    }
                    self.hold(mail, until);
                }
            }
        }
    }
}
