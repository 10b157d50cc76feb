//! What comes from outside: requests to a group, and callers who leave.
//!
//! *Invariant.* A request is counted before it is offered, and in the journal, if the group is durable,
//! before that.

use std::sync::Arc;

use super::order::Persons;
use super::{AnyGroup, Errand, Group, LOOK_AGAIN, UNTRIED};
use crate::circuit;
use crate::error::{CallError, Unavailable};
use crate::fate::Fate;
use crate::fault::{EffectKind, ExitCause};
use crate::id::ChildPath;
use crate::moment::Moment;
use crate::policy::Standing;
use crate::port::{Accept, AcceptOptions, Envelope, Home, Reading};
use crate::slot::{Recorder, Refusal, refused};
use crate::spec::{AllDown, Codec};

/// Why no member took a request.
pub(super) struct Refused {
    /// Somebody is full.
    pub(super) full: bool,
    /// When the first of those that rest is offered work again.
    pub(super) until: Moment,
    /// Why the last who was asked does not serve.
    pub(super) away: Option<Unavailable>,
    /// Somebody is isolated by hand.
    pub(super) isolated: bool,
}

impl Default for Refused {
    fn default() -> Self {
        Self { full: false, until: Moment::NEVER, away: None, isolated: false }
    }
}

impl Refused {
    fn why(&self, now: Moment) -> Refusal {
        match self.away {
            _ if self.full => Refusal::Full,
            Some(why) => Refusal::Away(why),
            None if !self.until.is_never() => {
                Refusal::Away(Unavailable::Resting { retry_after: self.until.left(now) })
            }
            None if self.isolated => Refusal::Away(Unavailable::Isolated),
            None => Refusal::Away(Unavailable::Stopped),
        }
    }
}

impl<Q: Send + Sync + 'static, R: Send + 'static> Accept<Q, R> for Group<Q, R> {
    fn path(&self) -> &ChildPath {
        &self.path
    }

    fn accept(
        &self,
        message: Q,
        options: &mut AcceptOptions,
    ) -> Result<Arc<Envelope<Q, R>>, CallError<Q>> {
        let now = self.hub.now();
        let mut deadline = now + options.deadline().unwrap_or(self.deadline);
        if let Some(tie) = &options.tie {
            deadline = deadline.min(tie.deadline);
        }
        let (cast, recovered) = (options.cast, options.is_recovered());
        let id = self.hub.next_id();
        let full = || self.seats.iter().all(|seat| seat.member.standing() == Standing::Full);
        if self.durable.is_some()
            && !self.desk.lock().closed
            && let Err(why) = self.recorder().accepted(id, deadline, &message, options, full)
        {
            return Err(match why {
                Refusal::Full => CallError::Full { message, child: self.path.clone() },
                Refusal::Away(why) => CallError::Refused { message, child: self.path.clone(), why },
            });
        }
        let home = self.me.upgrade().map(|me| me as Arc<dyn Home<Q, R>>);
        let mail = Arc::new(Envelope::new(id, now, deadline, options, home, message));
        {
            let mut desk = self.desk.lock();
            if desk.closed {
                drop(desk);
                if self.durable.is_some() {
                    // It closed after the request was written down, and gives it back all the same.
                    self.recorder().given_back(&mail, recovered);
                }
                let why = self.hub.away().unwrap_or(Unavailable::Stopped);
                return Err(refused(mail, Refusal::Away(why), &self.path));
            }
            // Before it is offered: a member may be done with it before the offer returns.
            desk.counts.accepted += 1;
            desk.counts.open += 1;
        }
        if cast {
            self.hub.cast_accepted(id);
        }
        let order = (self.admission.iter().copied(), true);
        let mut refusal = match self.offer(&mail, Errand::New, order, now) {
            Ok(()) => {
                self.plan_hedge(&mail, now);
                return Ok(mail);
            }
            Err(refusal) => refusal,
        };
        if recovered && refusal.full {
            // It was accepted before, and is not given back now.
            self.hold(Arc::clone(&mail), now + LOOK_AGAIN);
            return Ok(mail);
        }
        let (rest, in_time) = (!refusal.until.is_never(), refusal.until <= deadline);
        let waits = match self.all_down {
            AllDown::LastResort => in_time,
            AllDown::WaitUntil => true,
            // Somebody who is full is not down, and what was accepted before is not given back.
            AllDown::Fail => in_time && (refusal.full || recovered),
        };
        if rest && waits {
            // Everybody rests; somebody will be back in time, or is waited for all the same.
            if recovered || !self.is_crowded(&mail) {
                self.hold(Arc::clone(&mail), refusal.until);
                return Ok(mail);
            }
            refusal.full = true;
        } else if rest
            && (self.all_down == AllDown::LastResort || recovered)
            && self.post_last_resort(&mail, &mut refusal, now)
        {
            return Ok(mail);
        }
        {
            let mut desk = self.desk.lock();
            desk.counts.accepted -= 1;
            desk.counts.open -= 1;
        }
        if cast {
            self.hub.cast_forget(id);
        }
        if self.durable.is_some() {
            self.recorder().given_back(&mail, recovered);
        }
        Err(refused(mail, refusal.why(now), &self.path))
    }

    /// Whoever serves, it may have been the member that does most.
    fn effect_kind(&self) -> EffectKind {
        let kinds = self.seats.iter().map(|seat| seat.member.effect_kind());
        kinds.max().unwrap_or_default()
    }

    fn reading(&self) -> Option<Reading> {
        self.durable.as_ref().map(Codec::reading)
    }

    fn is_left_open(&self, mail: &Arc<Envelope<Q, R>>) -> bool {
        mail.is_joined() && self.hub.is_suspending()
    }

    fn cancel(&self, mail: &Arc<Envelope<Q, R>>) {
        let waited = {
            let mut desk = self.desk.lock();
            let at = desk.waiting.iter().position(|(waiting, _)| waiting.id == mail.id);
            at.and_then(|at| desk.waiting.remove(at))
        };
        match waited {
            Some((mail, _)) => self.end(&mail, Fate::Cancelled, &ExitCause::Stopped),
            None => {
                let copies = mail.copies();
                if copies.is_empty() {
                    self.seats[mail.member()].member.cancel(mail);
                }
                for member in copies {
                    self.seats[member].member.cancel(mail);
                }
            }
        }
    }

    fn take_back(&self, mail: &Arc<Envelope<Q, R>>) -> bool {
        let waited = {
            let mut desk = self.desk.lock();
            let mut waiting = desk.waiting.iter();
            let at = waiting.position(|(it, _)| it.id == mail.id && it.book().is_none());
            at.and_then(|at| desk.waiting.remove(at))
        };
        match waited {
            Some((mail, _)) => {
                self.end(&mail, Fate::Cancelled, &ExitCause::Stopped);
                true
            }
            None => self.seats[mail.member()].member.take_back(mail),
        }
    }
}

impl<Q: Send + Sync + 'static, R: Send + 'static> Group<Q, R> {
    /// Nobody who rests is back in time: a member with an open circuit is asked all the same, one request
    /// at a time, since that is better than nothing. Whose quota domain is closed is not.
    fn post_last_resort(
        &self,
        mail: &Arc<Envelope<Q, R>>,
        refused: &mut Refused,
        now: Moment,
    ) -> bool {
        let mut persons = Persons::new(true);
        for &index in &self.admission {
            let seat = &self.seats[index];
            if !persons.let_pass(seat.role) {
                continue;
            }
            if self.domain_closed(seat, now).is_some() {
                continue;
            }
            {
                let mut desk = self.desk.lock();
                if !desk.circuits[index].admits_last_resort(now) {
                    continue;
                }
                desk.circuits[index].on(circuit::Input::Probe(mail.id), now);
            }
            mail.set_member(index);
            match seat.member.post(mail, false, now) {
                Ok(()) => return true,
                Err(Refusal::Full) => refused.full = true,
                Err(Refusal::Away(why)) => refused.away = Some(why),
            }
            self.tell_circuit(index, mail.id, UNTRIED, now);
        }
        false
    }

    pub(super) fn recorder(&self) -> Recorder<'_> {
        Recorder {
            hub: &self.hub,
            path: &self.path,
            codec: self.durable.as_ref(),
            durability: self.durability,
            acts: AnyGroup::acts(self),
        }
    }
}
