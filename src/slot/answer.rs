//! The answer to a request while it is kept: the fate of the request is what comes of that.
//!
//! A deadline that falls into a write ends nothing: the caller hears of it, and the fate follows once the store
//! has answered or the attempt is over. What ends the attempt ends the wait, too, and the fate that the request
//! gets instead is written after the answer, with the state that this child stands by.
//!
//! *Invariant.* From the moment at which an answer is about to be kept, its request gets no other fate until it
//! is certain here that this answer does not count.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::accept::{self, is_heard_first};
use super::{Desk, Job, Mail, Slot};
use crate::checkpoint::{Batch, Checkpoint, Durability, Interval};
use crate::effects::Written;
use crate::error::CallError;
use crate::fate::Fate;
use crate::journal::End;
use crate::mailbox::{self, Ticket};
use crate::moment::Moment;
use crate::port::Recording;
use crate::slot::anchor::Anchor;
use crate::slot::keep::seal;
use crate::slot::worker::{Worker, unwound};

/// A fate that is still to be written down.
type Unwritten<W> = (Mail<W>, Fate, Durability);

impl<W: Worker> Slot<W> {
    /// Whether the state after each answer goes into the store.
    pub(super) fn keeps_state(&self) -> bool {
        self.journal().is_some() && self.spec.checkpoint != Interval::Never
    }

    /// The answer of this attempt, which counts, is about to be kept, with its fate if it is `recorded`.
    pub(super) fn begin_answer(&self, desk: &mut Desk<W>, job: &Job<W>, recorded: bool) {
        job.mail.note_answering(recorded);
        self.falls_due(desk, job.ticket, Moment::NEVER);
    }

    fn falls_due(&self, desk: &mut Desk<W>, ticket: Ticket, at: Moment) {
        desk.mailbox.on(
            mailbox::Input::Due(ticket, at),
            &self.rules.bounds,
            self.rules.order,
            self.hub.now(),
        );
    }

    /// The answer of this attempt, if one is being kept, does not count, whatever the store says of it later.
    pub(super) fn drop_answer(&self, desk: &mut Desk<W>, ticket: Ticket, may_be_kept: bool) {
        let Some(flight) = desk.mailbox.flight(ticket) else { return };
        if flight.orphan || !flight.payload.is_answering() {
            return;
        }
        flight.payload.forget_answer();
        let deadline = flight.payload.deadline;
        self.falls_due(desk, ticket, deadline);
        self.arm(desk, deadline);
        if may_be_kept {
            self.doubt(desk);
        }
    }

    /// The store may have a state that this child does not stand by.
    pub(super) fn doubt(&self, desk: &mut Desk<W>) {
        if self.keeps_state()
            && let Some(saved) = &mut desk.saved
        {
            saved.is_doubtful = true;
        }
    }

    /// Whether an answer comes too late to count, although its request has no fate yet: whoever has taken the
    /// life away, or has said that the answer does not count, does with the request what is to be done.
    pub(super) fn is_fenced(
        &self,
        desk: &Desk<W>,
        carrier: Option<u32>,
        job: &Job<W>,
        kept: bool,
    ) -> bool {
        let fenced = carrier
            .is_some_and(|number| desk.carrier_no != number || desk.life.incarnation() != job.life);
        (fenced || kept && !job.mail.is_answering())
            && desk.mailbox.flight(job.ticket).is_some_and(|flight| !flight.orphan)
    }

    /// The requests whose deadline has passed while their answers are kept, with what their callers hear.
    pub(super) fn told_at_deadline(
        &self,
        desk: &Desk<W>,
        now: Moment,
    ) -> Vec<(Mail<W>, CallError<W::Request>)> {
        let mut told = Vec::new();
        for flight in desk.mailbox.flights() {
            let mail = flight.payload;
            if flight.orphan || !mail.is_answering() || mail.was_told() || mail.deadline > now {
                continue;
            }
            mail.note_told();
            let acts = self.effect_of(desk.flight(flight.ticket)).acts();
            let child = mail.home.as_ref().map_or(&self.path, |group| group.path()).clone();
            let (trail, waited) = (mail.trail(), now.since(mail.accepted_at));
            // Who repeats what may be done must not be told that he may.
            let error = match acts || self.hub.effects.may_stand(&self.task_of(mail)) {
                true => CallError::Unknown { child, trail },
                false => CallError::Expired { child, waited, trail },
            };
            told.push((Arc::clone(mail), error));
        }
        told
    }

    /// When the next deadline passes of a request whose answer is kept.
    pub(super) fn answer_due(&self, desk: &Desk<W>) -> Moment {
        let kept = desk.mailbox.flights().filter(|flight| {
            !flight.orphan && flight.payload.is_answering() && !flight.payload.was_told()
        });
        kept.map(|flight| flight.payload.deadline).min().unwrap_or(Moment::NEVER)
    }

    /// A request that is counted here or by its group has its fate: it is written down, if that is `recorded`.
    pub(super) fn write_fate(
        &self,
        desk: &mut Desk<W>,
        mail: &Mail<W>,
        fate: Fate,
        recorded: Option<&Recording>,
    ) -> Written {
        if fate == Fate::Unknown && self.rules.in_transaction && self.spec.stateful {
            // Before the fate, so that a process that finds this one finds what stands for it.
            self.hub.effects.leave(&self.task_of(mail));
        }
        let answered = matches!(fate, Fate::Done | Fate::Unheard | Fate::Suspended);
        if !answered && desk.saved.as_ref().is_some_and(|saved| saved.is_doubtful) {
            let fated = recorded.map(|recording| (Arc::clone(mail), fate, recording.durability));
            return match (recorded, self.take_back(desk, fated)) {
                (None, _) => Written::No,
                (Some(_), None) => Written::OnItsWay,
                (Some(_), Some(handed)) => Written::Later(handed),
            };
        }
        let Some(recording) = recorded else { return Written::No };
        self.journal_fate(mail, fate, recording.durability);
        Written::OnItsWay
    }

    /// The store may have a state that this child does not stand by: it is given the one that the child goes on
    /// with, in one commit with the fate of the request that had led to the other one. Where that is handed to the
    /// store later, who is told then.
    pub(super) fn take_back(
        &self,
        desk: &mut Desk<W>,
        fated: Option<Unwritten<W>>,
    ) -> Option<oneshot::Receiver<()>> {
        let doubtful = desk.saved.as_ref().is_some_and(|saved| saved.is_doubtful);
        let me = self.me.upgrade().filter(|_| doubtful);
        let Some(me) = me else {
            if let Some((mail, fate, durability)) = fated {
                self.journal_fate(&mail, fate, durability);
            }
            return None;
        };
        let held = fated.as_ref().filter(|(_, fate, _)| !is_heard_first(*fate));
        let held = held.and_then(|(mail, ..)| Some((mail.hold()?, mail.deadline)));
        // What a state is written as is the user's code.
        let (tells, handed) = oneshot::channel();
        let written = async move { me.give_back(fated, tells).await };
        match held {
            Some((hold, deadline)) => {
                let late = self.hub.clock.sleep_until(deadline);
                self.hub.spawn(accept::held(hold, late, written));
            }
            None => self.hub.spawn(written),
        }
        Some(handed)
    }

    async fn give_back(&self, fated: Option<Unwritten<W>>, tells: oneshot::Sender<()>) {
        let (base, life) = {
            let desk = self.desk();
            let saved = desk.saved.as_ref().filter(|saved| saved.is_doubtful);
            (saved.and_then(|saved| saved.base.clone()), desk.life.incarnation())
        };
        let sealed = base.and_then(|base| {
            let (draft, _) = self.draft(base, life, 0);
            unwound(|| seal(draft)).ok()?.ok()
        });
        let (handed, checkpoint, before) = {
            let desk = self.desk();
            let Some(journal) = self.journal() else { return };
            let saved = desk.saved.as_ref().filter(|saved| saved.is_doubtful);
            // Another answer that is on its way brings the state after it.
            let comes = desk.mailbox.flights().any(|flight| flight.payload.is_answering());
            // Whoever has its path next would take it up.
            let unmade = desk.rare.as_ref().is_some_and(|rare| rare.unmade);
            let sealed = sealed.filter(|_| saved.is_some() && !comes && !unmade);
            let before = saved.and_then(|saved| Some(saved.parent.as_ref()?.id));
            let checkpoint = sealed.as_ref().map(|sealed| Arc::clone(sealed.checkpoint()));
            let batch = sealed.map_or_else(Batch::new, |sealed| Batch::new().sealed(sealed));
            let handed = match fated {
                Some((mail, fate, durability)) => match mail.key() {
                    Some(key) if fate != Fate::Quarantined => {
                        let end = End::unanswered(mail.spent_in_all());
                        journal.fated(key, fate, end, None, (batch, durability))
                    }
                    _ => {
                        self.journal_fate(&mail, fate, durability);
                        journal.commit_state(batch, durability)
                    }
                },
                None if checkpoint.is_some() => journal.commit_state(batch, self.spec.durability),
                None => return,
            };
            (handed, checkpoint, before)
        };
        // Nobody may wait for it.
        let _ = tells.send(());
        if handed.await.is_ok()
            && let Some(checkpoint) = checkpoint
        {
            self.taken_back(&checkpoint, before);
        }
    }

    fn taken_back(&self, checkpoint: &Arc<Checkpoint>, before: Option<crate::id::CheckpointId>) {
        let mut desk = self.desk();
        let Some(saved) = &mut desk.saved else { return };
        if saved.parent.as_ref().map(|parent| parent.id) == before && saved.mid.is_none() {
            saved.parent = Some(Arc::clone(checkpoint));
            saved.anchor = Anchor::between(checkpoint.id);
            saved.is_doubtful = false;
        }
    }
}
