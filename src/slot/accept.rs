//! What comes from outside: requests, callers who leave, and time.

use std::any::Any;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context as TaskContext, Waker};

use super::{Desk, Mail, Refusal, Slot};
use crate::behavior::default_key;
use crate::checkpoint::{Batch, Durability, Now, Wall};
use crate::effects::{Ends, Written};
use crate::error::{CallError, Unavailable};
use crate::fate::{Fate, Trail};
use crate::fault::{EffectKind, ExitCause};
use crate::hub::{Hub, Timed};
use crate::id::{ChildPath, Delivery, RequestId};
use crate::journal::{End, Hand, Open};
use crate::mailbox;
use crate::moment::Moment;
use crate::policy::budget::Limits;
use crate::port::{Accept, AcceptOptions, Back, Cut, Envelope, Gate, Hold, Reading};
use crate::quarantine::{Quarantined, Shelved, hold};
use crate::slot::worker::{Worker, unwound};
use crate::spec::Codec;

impl<W: Worker> Accept<W::Request, W::Reply> for Slot<W> {
    fn path(&self) -> &ChildPath {
        &self.path
    }

    fn accept(
        &self,
        message: W::Request,
        options: &mut AcceptOptions,
    ) -> Result<Mail<W>, CallError<W::Request>> {
        let now = self.hub.now();
        let mut deadline = match options.deadline().or(self.rules.deadline) {
            Some(deadline) => now + deadline,
            None => Moment::NEVER,
        };
        if let Some(tie) = &options.tie {
            deadline = deadline.min(tie.deadline);
        }
        let cast = options.cast;
        let id = self.hub.next_id();
        let (recovered, has_place) = (options.is_recovered(), options.has_place());
        let recorder = Recorder {
            hub: &self.hub,
            path: &self.path,
            codec: self.spec.codec.as_ref(),
            durability: self.spec.durability,
            acts: self.acts(),
        };
        let full = || self.desk().mailbox.depth() >= self.rules.bounds.count;
        if self.spec.durable
            && let Err(why) = recorder.accepted(id, deadline, &message, options, full)
        {
            return Err(match why {
                Refusal::Full => CallError::Full { message, child: self.path.clone() },
                Refusal::Away(why) => CallError::Refused { message, child: self.path.clone(), why },
            });
        }
        let mail = Arc::new(Envelope::new(id, now, deadline, options, None, message));
        if cast {
            self.hub.cast_accepted(id);
        }
        let room = if has_place { Room::Kept } else { Room::Own };
        match self.post(&mail, None, room, now) {
            Ok(()) => Ok(mail),
            Err(refusal) => {
                if cast {
                    self.hub.cast_forget(id);
                }
                if self.spec.durable {
                    recorder.given_back(&mail, recovered);
                }
                Err(refused(mail, refusal, &self.path))
            }
        }
    }

    fn effect_kind(&self) -> EffectKind {
        self.spec.effect
    }

    fn reading(&self) -> Option<Reading> {
        self.spec.codec.as_ref().filter(|_| self.spec.durable).map(Codec::reading)
    }

    fn is_left_open(&self, mail: &Mail<W>) -> bool {
        mail.is_joined() && self.hub.is_suspending()
    }

    fn cancel(&self, mail: &Mail<W>) {
        self.cancel_mail(mail);
    }

    fn take_back(&self, mail: &Mail<W>) -> bool {
        self.take_untried(mail)
    }
}

/// Which time it is that this request is accepted under its key.
const fn round(identity: u64, request: RequestId) -> u64 {
    identity.wrapping_add(request.0.wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// The longest idempotency key of a durable request, in bytes: 65,536 of them are remembered.
const LONGEST_KEY: usize = 4096;

/// What room a request may take in a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// What there is for everybody.
    Own,
    /// That and the reserve, which is for substitutes.
    Reserve,
    /// It was accepted before, and has its place.
    Kept,
}

/// The error of a request that was not accepted, with its message.
pub(crate) fn refused<Q, R>(
    mail: Arc<Envelope<Q, R>>,
    refusal: Refusal,
    child: &ChildPath,
) -> CallError<Q> {
    // Nobody else holds it: the mailbox has handed it back.
    match (Arc::try_unwrap(mail), refusal) {
        (Ok(mail), Refusal::Full) => {
            CallError::Full { message: mail.into_request(), child: child.clone() }
        }
        (Ok(mail), Refusal::Away(why)) => {
            CallError::Refused { message: mail.into_request(), child: child.clone(), why }
        }
        (Err(_), _) => CallError::Cancelled { child: child.clone() },
    }
}

/// How a child or a group writes down what it accepts, and what becomes of it.
pub(crate) struct Recorder<'a> {
    pub(crate) hub: &'a Hub,
    pub(crate) path: &'a ChildPath,
    pub(crate) codec: Option<&'a Codec>,
    pub(crate) durability: Durability,
    /// Whether somebody may work on it whose work may not be repeated.
    pub(crate) acts: bool,
}

impl Recorder<'_> {
    /// Puts a durable request into the journal, unless it came from there; the gate it is given opens
    /// once it is there.
    pub(crate) fn accepted<Q: 'static>(
        &self,
        id: RequestId,
        deadline: Moment,
        message: &Q,
        options: &mut AcceptOptions,
        full: impl FnOnce() -> bool,
    ) -> Result<(), Refusal> {
        let Some(journal) = self.hub.journal.get().filter(|_| !options.is_recovered()) else {
            return Ok(());
        };
        if full() {
            return Err(Refusal::Full);
        }
        let unrecordable = Refusal::Away(Unavailable::Unrecordable);
        let codec = self.codec.ok_or(unrecordable)?;
        let text = unwound(|| (codec.write_request)(message as &dyn Any));
        let text = text.ok().and_then(Result::ok).ok_or(unrecordable)?;
        let now = Now::read(&*self.hub.clock);
        // Another process knows nothing of what whoever asks has left.
        let own = options.more().budget;
        let budget = match options.tie.as_ref().and_then(|tie| tie.purse.as_ref()) {
            Some(purse) => Some(purse.child(own.unwrap_or_default()).left_at(now.moment)),
            None => own,
        };
        let more = options.more();
        if more.key.as_ref().is_some_and(|key| !(1..=LONGEST_KEY).contains(&key.len())) {
            return Err(Refusal::Away(Unavailable::BadKey));
        }
        // Under a key of its own it is the first. No two of a system have the same id, nor two systems one identity.
        more.round = more.key.as_ref().map_or(0, |_| round(self.hub.identity, id));
        let key =
            more.key.get_or_insert_with(|| Arc::from(default_key(self.hub.identity, id).as_str()));
        let left = deadline.left(now.moment);
        let open = Open {
            child: self.path.clone(),
            key: Arc::clone(key),
            request: String::from_utf8_lossy(&text).into_owned(),
            deadline: (!deadline.is_never()).then(|| now.wall.after(left).0),
            trail: Trail::default(),
            // What time it may take is in its deadline.
            budget: budget
                .map(|limits| Limits { deadline: Moment::NEVER, ..limits })
                .filter(|limits| *limits != Limits::default()),
            taken: 0,
            back: Back::default(),
            hand: Hand::of(self.acts),
            round: more.round,
        };
        if journal.wants_tidying() {
            self.hub.tidy(journal);
        }
        let handed =
            journal.accepted(open, self.durability).ok_or(Refusal::Away(Unavailable::Duplicate))?;
        let gate = Arc::new(Gate::default());
        more.gate = Some(Arc::clone(&gate));
        self.hub.spawn(async move { gate.open(handed.await) });
        Ok(())
    }

    /// A request that was written down is not taken after all: it may come again under its key. What the
    /// journal says of one that came from there is for whoever took it from there.
    pub(crate) fn given_back<Q, R>(&self, mail: &Envelope<Q, R>, recovered: bool) {
        if let (false, Some(journal), Some(key)) = (recovered, self.hub.journal.get(), mail.key()) {
            drop(journal.withdrawn(key, self.durability));
        }
    }

    /// A durable request has a fate without an answer.
    pub(crate) fn ended<Q, R>(&self, mail: &Arc<Envelope<Q, R>>, fate: Fate)
    where
        Q: Send + Sync + 'static,
        R: Send + 'static,
    {
        if let (Some(journal), Some(key)) = (self.hub.journal.get(), mail.key())
            && fate != Fate::Suspended
        {
            // An answer is written before anybody hears of it. Whatever else it has ended with counts from
            // now on, and comes after an answer that was handed to the store.
            if matches!(fate, Fate::Done | Fate::Unheard) && mail.is_journaled() {
                return;
            }
            let mut written = match fate {
                Fate::Quarantined => {
                    let at = Wall::from(self.hub.clock.wall());
                    journal.quarantined(key, mail.trail(), at, self.durability)
                }
                _ => {
                    let (end, batch) = (End::unanswered(mail.spent_in_all()), Batch::new());
                    journal.fated(key, fate, end, None, (batch, self.durability))
                }
            };
            if !is_heard_first(fate)
                && Pin::new(&mut written)
                    .poll(&mut TaskContext::from_waker(Waker::noop()))
                    .is_pending()
                && let Some(hold) = mail.hold()
            {
                let late = self.hub.clock.sleep_until(mail.deadline);
                self.hub.spawn(held(hold, late, async move { drop(written.await) }));
            }
        }
    }
}

/// Whether the caller need not wait until this fate is in the store: another process that finds the request
/// open would end it in the same way, or nobody waits.
pub(super) fn is_heard_first(fate: Fate) -> bool {
    matches!(fate, Fate::Done | Fate::Unheard | Fate::Expired | Fate::Cancelled | Fate::Suspended)
}

/// Writes, and lets the caller hear of it once that is over, or at its deadline.
pub(super) async fn held<Q, R>(
    hold: Hold<Q, R>,
    late: impl Future<Output = ()> + Send,
    written: impl Future<Output = ()> + Send,
) {
    let mut written = pin!(written);
    tokio::select! {
        biased;
        () = &mut written => return,
        () = late => drop(hold),
    }
    written.await;
}

impl<W: Worker> Slot<W> {
    /// The caller has left: what waits is taken out; what is under way is dropped at its next safe
    /// point, unless it acts on the world, which is finished.
    pub(crate) fn cancel_mail(&self, mail: &Mail<W>) {
        let mut desk = self.desk();
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
                dropped = desk.take_resume_of(mail.id);
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

impl<W: Worker> Slot<W> {
    /// The fate of a request whose time is over or for which nobody waits, which must not say that it may be
    /// repeated while an act of it is with its tool, or nobody knows what came of one. What a transaction
    /// undoes of it, it undoes.
    #[inline]
    pub(crate) fn unless_in_doubt(&self, mail: &Mail<W>, fate: Fate) -> Fate {
        let repeats = matches!(fate, Fate::Expired | Fate::Cancelled | Fate::Stopped);
        if !repeats || !self.spec.stateful || !self.hub.effects.is_used() {
            return fate;
        }
        let in_doubt = self.hub.effects.is_in_doubt(&self.task_of(mail), self.rules.in_transaction);
        if in_doubt { Fate::Unknown } else { fate }
    }

    /// A group ends a request that was here last, and is in nobody's hands, with this fate or that which is
    /// returned.
    pub(crate) fn ended_by_group(&self, mail: &Mail<W>, fate: Fate) -> Fate {
        let told = self.unless_in_doubt(mail, fate);
        let is_left = fate == Fate::Unknown && self.hub.effects.is_used();
        if self.rules.in_transaction && self.spec.stateful && is_left {
            self.hub.effects.leave(&self.task_of(mail));
        }
        told
    }

    /// What follows then is as for one that ends here.
    pub(crate) fn undone_for_group(&self, mail: &Mail<W>, fate: Fate, is_written: bool) {
        if self.rules.in_transaction && self.spec.stateful {
            let written = if is_written { Written::OnItsWay } else { Written::No };
            self.undo_unfinished(mail, fate, written);
        }
        if self.spec.stateful && self.hub.effects.is_used() {
            self.hub.effects.ended(&self.task_of(mail));
        }
    }

    /// Takes a request out that waits here and has never been handed out; whether it did.
    pub(crate) fn take_untried(&self, mail: &Mail<W>) -> bool {
        let now = self.hub.now();
        let mut desk = self.desk();
        let untried = desk.mailbox.waiting().any(|(id, delivery, mail_here)| {
            id == mail.id && delivery == Delivery::NONE && mail_here.book().is_none()
        });
        if !untried || mail.was_copied() {
            return false;
        }
        let input = mailbox::Input::Cancel(mail.id);
        let found = desk.mailbox.on(input, &self.rules.bounds, self.rules.order, now);
        let mailbox::Output::Removed(mail) = found else { return false };
        self.left(&mut desk, &mail);
        let settled = self.settle(&mut desk, mail, Fate::Cancelled);
        let taken = settled.is_some();
        self.publish(&mut desk);
        self.wake(desk, now);
        self.tell(settled, &ExitCause::Stopped);
        taken
    }
}

impl<W: Worker> Slot<W> {
    /// A request has its fate: what it has done is remembered for a while. One that ended two lives is
    /// kept, and with it what it has done, for as long as it may be released.
    pub(super) fn remember(&self, desk: &mut Desk<W>, mail: &Mail<W>, fate: Fate, recorded: bool) {
        if fate == Fate::Quarantined {
            // Nobody works on it until a person says so; within a transaction it is being undone.
            if self.spec.stateful && self.hub.effects.is_used() && !self.rules.in_transaction {
                self.hub.effects.settle_orphans_of(&self.task_of(mail));
            }
            if !recorded {
                self.shelve(desk, mail);
            }
            return;
        }
        // One that is suspended goes on in another process.
        if self.spec.stateful && fate != Fate::Suspended && self.hub.effects.is_used() {
            let task = self.task_of(mail);
            self.hub.effects.ended(&task);
            if self.rules.in_transaction && matches!(fate, Fate::Done | Fate::Unheard) {
                self.hub.effects.halts(&task, Ends::Answered);
            }
        }
        if mail.cast && self.hub.shelf.remembers() {
            self.hub.shelf.forget(&self.task_of(mail));
        }
    }

    fn shelve(&self, desk: &mut Desk<W>, mail: &Mail<W>) {
        let child = mail.home.as_ref().map_or(&self.path, |group| group.path()).clone();
        let told = Quarantined {
            id: Arc::from(default_key(self.hub.identity, mail.id)),
            child,
            request: Some(mail.id),
            at: Wall::from(self.hub.clock.wall()),
            trail: mail.trail(),
            durable: false,
        };
        let task = Arc::from(self.task_of(mail));
        let held = hold(Arc::clone(mail));
        if let Some(gone) = self.hub.shelf.put(Shelved { told, task, deleted: false, held }) {
            self.hub.effects.ended(&gone.task);
            desk.discard(gone);
        }
    }

    /// Takes out the requests of a group that wait here and have not been tried here: those that have
    /// were granted their retries, which an open circuit does not take back.
    pub(crate) fn withdraw_untried(&self) -> Vec<Mail<W>> {
        let now = self.hub.now();
        let mut desk = self.desk();
        let untried = |mail: &Mail<W>, delivery| match mail.book() {
            None => delivery == Delivery::NONE,
            Some(book) => {
                delivery == book.deliveries
                    && book.trail.iter().all(|attempt| attempt.child != self.path)
            }
        };
        let ids: Vec<_> = desk
            .mailbox
            .waiting()
            .filter(|(_, delivery, mail)| {
                mail.home.is_some() && !mail.was_copied() && untried(mail, *delivery)
            })
            .map(|(id, ..)| id)
            .collect();
        let mut mails = Vec::with_capacity(ids.len());
        for id in ids {
            let input = mailbox::Input::Cancel(id);
            let found = desk.mailbox.on(input, &self.rules.bounds, self.rules.order, now);
            if let mailbox::Output::Removed(mail) = found {
                self.left(&mut desk, &mail);
                mails.push(mail);
            }
        }
        self.publish(&mut desk);
        self.wake(desk, now);
        mails
    }
}

impl<W: Worker> Timed for Slot<W> {
    fn on_time(&self, at: Moment) {
        let mut desk = self.desk();
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
            dropped = dropped.or(desk.take_resume_of(mail.id));
            settled.extend(self.settle(&mut desk, mail, Fate::Expired));
        }
        for (ticket, mail) in ticked.orphaned {
            // Its caller is told now; whether the effect took place is known only for work that may
            // be repeated, and only such work is cut short.
            let out = desk.out.iter().find(|out| out.ticket == ticket);
            let effect = out.map_or(self.spec.effect, |out| self.effect_of(desk.flight_of(out)));
            let safe = effect.is_replay_safe();
            let fate = if safe { Fate::Expired } else { Fate::Unknown };
            if safe && let Some(flight) = out.and_then(|out| desk.flight_of(out)) {
                flight.ask(Cut::Cancel);
            }
            self.left(&mut desk, &mail);
            settled.extend(self.settle(&mut desk, mail, fate));
        }
        let told = self.told_at_deadline(&desk, now);
        let mut after = Vec::new();
        for ticket in ticked.overdue {
            after.extend(self.overdue(&mut desk, ticket, now));
        }
        let next = desk.mailbox.next_due().min(self.answer_due(&desk));
        self.arm(&mut desk, next);
        self.publish(&mut desk);
        self.wake(desk, now);
        drop(dropped);
        self.tell(settled, &ExitCause::Stopped);
        for (mail, error) in told {
            mail.deliver(Err(error));
        }
        for action in after {
            action();
        }
    }
}
