//! What comes from outside: requests, callers who leave, and time.

use std::sync::Arc;

use super::{Mail, Refusal, Slot};
use crate::error::CallError;
use crate::fate::Fate;
use crate::fault::ExitCause;
use crate::hub::Timed;
use crate::id::ChildPath;
use crate::mailbox;
use crate::moment::Moment;
use crate::port::{Accept, AcceptOptions, Cut, Envelope};
use crate::slot::worker::Worker;

impl<W: Worker> Accept<W::Request, W::Reply> for Slot<W> {
    fn path(&self) -> &ChildPath {
        &self.path
    }

    fn accept(
        &self,
        message: W::Request,
        options: AcceptOptions,
    ) -> Result<Mail<W>, CallError<W::Request>> {
        let now = self.hub.now();
        let mut deadline = match options.deadline.or(self.rules.deadline) {
            Some(deadline) => now + deadline,
            None => Moment::NEVER,
        };
        if let Some(tie) = &options.tie {
            deadline = deadline.min(tie.deadline);
        }
        let cast = options.cast;
        let id = self.hub.next_id();
        let mail = Arc::new(Envelope::new(id, now, deadline, options, None, message));
        if cast {
            self.hub.cast_accepted(id);
        }
        match self.post(&mail, true, false, now) {
            Ok(()) => Ok(mail),
            Err(refusal) => {
                if cast {
                    self.hub.cast_forget(id);
                }
                Err(refused(mail, refusal, &self.path))
            }
        }
    }

    fn is_replay_safe(&self) -> bool {
        self.spec.effect.is_replay_safe()
    }

    fn cancel(&self, mail: &Mail<W>) {
        self.cancel_mail(mail);
    }
}

/// The error of a request that was not accepted, with its message.
pub(crate) fn refused<Q, R>(
    mail: Arc<Envelope<Q, R>>,
    refusal: Refusal,
    child: &ChildPath,
) -> CallError<Q> {
    // Nobody else holds it: the mailbox has handed it back.
    match (Arc::try_unwrap(mail), refusal) {
        (Ok(mail), Refusal::Full) => CallError::Full(mail.into_request()),
        (Ok(mail), Refusal::Away(why)) => {
            CallError::Refused { message: mail.into_request(), child: child.clone(), why }
        }
        (Err(_), _) => CallError::Cancelled { child: child.clone() },
    }
}

impl<W: Worker> Slot<W> {
    /// The caller has left: what waits is taken out; what is under way is dropped at its next safe
    /// point, unless it acts on the world, which is finished.
    pub(crate) fn cancel_mail(&self, mail: &Mail<W>) {
        let mut desk = self.desk.lock();
        let now = self.hub.now();
        let found = desk.mailbox.on(
            mailbox::Input::Cancel(mail.id),
            &self.rules.bounds,
            self.rules.order,
            now,
        );
        let mut settled = None;
        let mut dropped = None;
        match found {
            mailbox::Output::Removed(mail) => {
                self.left(&mut desk, &mail);
                if desk.resume.as_ref().is_some_and(|resume| resume.0 == mail.id) {
                    dropped = desk.resume.take();
                }
                settled = self.settle(&mut desk, mail, Fate::Cancelled);
            }
            mailbox::Output::InFlight(ticket)
                if self.spec.effect.is_replay_safe() || self.spec.stateful =>
            {
                if let Some(flight) = desk.flight(ticket) {
                    flight.ask(Cut::Cancel);
                }
            }
            _ => {}
        }
        self.publish(&mut desk);
        self.wake(desk, now);
        drop(dropped);
        self.tell(settled, &ExitCause::Stopped);
    }
}

impl<W: Worker> Timed for Slot<W> {
    fn on_time(&self, at: Moment) {
        let mut desk = self.desk.lock();
        if desk.armed != at {
            return;
        }
        desk.armed = Moment::NEVER;
        let now = self.hub.now();
        let mailbox::Output::Ticked(ticked) =
            desk.mailbox.on(mailbox::Input::Tick, &self.rules.bounds, self.rules.order, now)
        else {
            return;
        };
        let mut settled = Vec::new();
        let mut dropped = None;
        for mail in ticked.expired {
            self.left(&mut desk, &mail);
            if desk.resume.as_ref().is_some_and(|resume| resume.0 == mail.id) {
                dropped = desk.resume.take();
            }
            settled.extend(self.settle(&mut desk, mail, Fate::Expired));
        }
        for (ticket, mail) in ticked.orphaned {
            // Its caller is told now; whether the effect took place is known only for work that may
            // be repeated, and only such work is cut short.
            let safe = self.effect_of(&desk, ticket).is_replay_safe();
            let fate = if safe { Fate::Expired } else { Fate::Unknown };
            if safe && let Some(flight) = desk.flight(ticket) {
                flight.ask(Cut::Cancel);
            }
            self.left(&mut desk, &mail);
            settled.extend(self.settle(&mut desk, mail, fate));
        }
        let mut after = Vec::new();
        for ticket in ticked.overdue {
            after.extend(self.overdue(&mut desk, ticket, now));
        }
        let next = desk.mailbox.next_due();
        self.arm(&mut desk, next);
        self.publish(&mut desk);
        self.wake(desk, now);
        drop(dropped);
        self.tell(settled, &ExitCause::Stopped);
        for action in after {
            action();
        }
    }
}
