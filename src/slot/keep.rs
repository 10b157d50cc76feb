//! How states and answers are kept: in memory after every step, in the store when they have to be.
//!
//! *Invariant.* What has to be in the store is there before anybody hears of what came of it. A store that
//! does not answer costs the attempt its time, and nothing else.

use std::any::Any;
use std::convert::identity;
use std::sync::Arc;

use super::anchor::Anchor;
use super::state::{InHand, Mid, Saved, StoredInHand, Undoing};
use super::{Desk, Job, Slot};
use crate::behavior::Context;
use crate::checkpoint::{Batch, Checkpoint, Draft, Now, Sealed, Snapshot};
use crate::event::Event;
use crate::fate::Fate;
use crate::fault::{Class, ExitCause, Fault};
use crate::id::{ChildPath, Incarnation};
use crate::journal::{self, End, Handed, Journal};
use crate::port::{Cut, Recording};
use crate::slot::worker::{Watched, Worker, dropped, unwound, watched};

/// The code of a fault that tells of a reply that cannot be kept.
const UNRECORDABLE: &str = "reply_unrecordable";

impl<W: Worker> Slot<W> {
    /// After a step that has more to come. `step` is the logical step at which the request goes on;
    /// `at_once` that it has to be stored whatever the interval says. What is returned has to be
    /// [finished](Slot::kept) before the step counts.
    pub(crate) fn keep_step(
        &self,
        life: &W::Life,
        job: &Job<W>,
        context: &Context,
        step: u64,
        at_once: bool,
    ) -> Result<Option<Writing>, Unkept> {
        let Some(snapshot) = unwound(|| W::snapshot(life)).map_err(Unkept::panicked)? else {
            return Ok(None);
        };
        let (due, snapshot, before) = {
            let mut desk = self.desk();
            desk.counts_still(job)?;
            let saved = desk.saved.get_or_insert_with(Saved::new);
            let snapshot = match saved.latest() {
                Some(before) => snapshot.following(before),
                None => snapshot,
            };
            let trial = job.mail.trial();
            let at_once = at_once || trial.is_some_and(|trial| trial.wants_kept(step));
            let due = saved.count(context, &self.spec.checkpoint) || at_once;
            let before = saved.mid.replace(Mid {
                request: InHand::Here(job.mail.id),
                step,
                snapshot: snapshot.clone(),
                stored: false,
                back: false,
                undo: Undoing::No,
            });
            if let Some(out) = desk.out.iter_mut().find(|out| out.ticket == job.ticket) {
                out.between = true;
            }
            desk.told_still();
            (due, snapshot, before)
        };
        // What it alone still had is the user's, and is not dropped under the lock.
        let _ = dropped(before);
        let Some(journal) = self.journal().filter(|_| due) else { return Ok(None) };
        let (key, round) = (context.task(), job.mail.round());
        let in_hand = StoredInHand { key, step, back: false, undo: Undoing::No, round };
        self.write_in_hand(journal, snapshot, (job, context), &in_hand).map(Some)
    }

    pub(super) fn write_in_hand(
        &self,
        journal: &Journal,
        snapshot: Snapshot,
        (job, context): (&Job<W>, &Context),
        in_hand: &StoredInHand,
    ) -> Result<Writing, Unkept> {
        let envelope =
            serde_json::to_vec(in_hand).map_err(|error| Unkept::failed(journal::failed(&error)))?;
        let (draft, steps) = self.draft(snapshot, job.life, 0);
        let draft = draft.budgets(self.spent(job, context));
        let sealed = seal(draft.envelope(envelope))?;
        self.desk().counts_still(job)?;
        let checkpoint = Arc::clone(sealed.checkpoint());
        let batch = self.hold_base(journal, Batch::new().sealed(sealed), checkpoint.id);
        let durability = self.spec.durability;
        let further = job.mail.trial().is_some_and(|trial| trial.is_further(in_hand.step));
        let handed = match job.mail.key() {
            // That it goes back is counted with the state that it goes back to.
            Some(key) if in_hand.back => {
                Handed::plain(journal.goes_back(key, None, (batch, durability)))
            }
            Some(key) if further => Handed::plain(journal.commit_further(key, batch, durability)),
            _ => journal.commit_state(batch, durability),
        };
        let writing = Writing::new(handed, Some(checkpoint), steps);
        Ok(Writing { mid: true, further, ..writing })
    }

    /// Waits until what was handed to the store is as durable as the spec wants, as long as the attempt
    /// may take. A store that answers later still has the last word on what it has.
    pub(crate) async fn kept(
        &self,
        writing: Option<Writing>,
        job: &Job<W>,
        context: &Context,
    ) -> Result<(), Unkept> {
        let Some(writing) = writing else { return Ok(()) };
        let heard = &[Cut::Kill, Cut::Timeout];
        let handed = writing.handed;
        let mut is_refused = false;
        let kept = match watched(|| handed, identity, &context.flight, heard).await {
            Watched::Done(result) => result.map_err(|error| {
                if let Some(journal) = self.hub.journal.get() {
                    journal.note_failure(&error);
                    if journal.wants_tidying() {
                        // Whoever tries again may find room.
                        self.hub.tidy(journal);
                    }
                }
                is_refused = true;
                Unkept::failed(journal::failed(&error))
            }),
            Watched::Cut(Cut::Timeout) => {
                Err(Unkept::failed(journal::late(self.rules.attempt_timeout)))
            }
            Watched::Cut(_) => Err(Unkept::Ended(ExitCause::Killed)),
            Watched::Panicked(text) => Err(Unkept::panicked(text)),
        };
        if let Err(unkept) = kept {
            let mut desk = self.desk();
            if writing.answers {
                // The fate it will have after all is another.
                self.drop_answer(&mut desk, job.ticket, !is_refused);
                if !is_refused && job.mail.is_fated() && desk.standing(job) == Standing::Late {
                    // It has another, and no more follows.
                    self.doubt(&mut desk);
                    let _ = self.take_back(&mut desk, None);
                }
            }
            if let Some(saved) = &mut desk.saved {
                saved.anchor.doubt();
            }
            return Err(unkept);
        }
        if let Some(journal) = self.hub.journal.get()
            && journal.wants_tidying()
        {
            self.hub.tidy(journal);
        }
        if let Some(checkpoint) = &writing.checkpoint {
            self.stored(checkpoint, job, writing.steps, writing.mid);
        }
        if let Some(trial) = job.mail.trial().filter(|_| writing.further) {
            trial.trial.got_on();
        }
        Ok(())
    }

    /// After the step that answers a request: what the child has become, and for a durable one, the
    /// request's fate, are kept before anybody hears of the answer. Returns the state that the next
    /// life begins with once the answer counts.
    pub(crate) fn keep_reply(
        &self,
        life: &W::Life,
        job: &Job<W>,
        context: &Context,
        reply: &W::Reply,
    ) -> Result<(Option<Snapshot>, Option<Writing>), Unkept> {
        let mut snapshot = unwound(|| W::snapshot(life)).map_err(Unkept::panicked)?;
        let journal = self.hub.journal.get();
        let recording = journal.and_then(|_| self.recording(&job.mail)).zip(job.mail.key());
        if snapshot.is_none() && recording.is_none() && !self.rules.in_transaction {
            return Ok((None, None));
        }
        let standing = {
            let mut desk = self.desk();
            let standing = desk.counts_still(job)?;
            if let Some(now) = snapshot.take() {
                let saved = desk.saved.get_or_insert_with(Saved::new);
                saved.count(context, &self.spec.checkpoint);
                snapshot = Some(match saved.latest() {
                    Some(before) => now.following(before),
                    None => now,
                });
            }
            let is_kept = recording.is_some() || self.rules.in_transaction || self.keeps_state();
            if standing == Standing::Current && is_kept {
                self.begin_answer(&mut desk, job, recording.is_some());
            }
            standing
        };
        let Some(journal) = journal else { return Ok((snapshot, None)) };
        // Its caller was told another fate: that one stands, and so does what it has made of the state.
        let recording = recording.filter(|_| standing == Standing::Current);
        let written =
            self.write_reply(journal, recording, snapshot.as_ref(), (job, context), reply);
        if written.is_err() {
            self.drop_answer(&mut self.desk(), job.ticket, false);
        }
        Ok((snapshot, written?))
    }

    fn write_reply(
        &self,
        journal: &Arc<Journal>,
        recording: Option<(Recording, &Arc<str>)>,
        snapshot: Option<&Snapshot>,
        (job, context): (&Job<W>, &Context),
        reply: &W::Reply,
    ) -> Result<Option<Writing>, Unkept> {
        let mut batch = Batch::new();
        let (mut checkpoint, mut steps) = (None, 0);
        if let Some(snapshot) = snapshot
            && self.keeps_state()
        {
            let (draft, at) = self.draft(snapshot.clone(), job.life, 1);
            let draft = draft.budgets(self.spent(job, context));
            let done = seal(draft)?;
            checkpoint = Some(Arc::clone(done.checkpoint()));
            batch = self.let_base_go(batch.sealed(done));
            steps = at;
        }
        let handed = match recording {
            Some((recording, key)) => {
                let text = unwound(|| (recording.write_reply)(reply as &dyn Any))
                    .map_err(Unkept::panicked)?
                    .map_err(|why| Unkept::failed(unrecordable(&self.path, &why)))?;
                let reply = String::from_utf8_lossy(&text).into_owned();
                self.desk().counts_still(job)?;
                let work = checkpoint.is_some().then(|| (self.path.clone(), steps));
                let batch = (batch, recording.durability);
                let end = End::answered(reply, self.given(job, context));
                journal.fated(key, Fate::Done, end, work, batch)
            }
            // The group that accepted it keeps no fates, but the state is this child's own.
            None if checkpoint.is_some() => {
                self.desk().counts_still(job)?;
                journal.commit_state(batch, self.spec.durability)
            }
            None => return Ok(None),
        };
        Ok(Some(Writing { answers: true, ..Writing::new(handed, checkpoint, steps) }))
    }

    /// A checkpoint with the work of so many requests more than the state between two requests.
    pub(super) fn draft(&self, snapshot: Snapshot, life: Incarnation, more: u64) -> (Draft, u64) {
        let now = Now::read(&*self.hub.clock);
        let desk = self.desk();
        let (parent, steps, answered) = match &desk.saved {
            Some(saved) => (saved.parent.clone(), saved.steps, saved.answered),
            None => (None, 0, 0),
        };
        drop(desk);
        let topology = self.hub.topology.get().copied().unwrap_or_default();
        let ledger = self.journal().map_or(0, |journal| journal.reached());
        let draft = Draft::new(self.path.clone(), snapshot, now)
            .at(life, steps)
            .topology(topology)
            .policy(self.policy_digest())
            .mailbox_cut(answered + more)
            .ledger(ledger);
        match parent {
            Some(parent) => (draft.after(&parent), steps),
            None => (draft, steps),
        }
    }

    fn stored(&self, checkpoint: &Arc<Checkpoint>, job: &Job<W>, step: u64, mid: bool) {
        {
            let mut desk = self.desk();
            let is_current = desk.standing(job) != Standing::Stale;
            if let Some(journal) = self.journal().filter(|_| is_current) {
                journal.stands_by_itself(&self.path);
            }
            if is_current && let Some(saved) = &mut desk.saved {
                saved.parent = Some(Arc::clone(checkpoint));
                if !mid {
                    saved.anchor = Anchor::between(checkpoint.id);
                    saved.is_doubtful = false;
                }
                if let Some(current) = &mut saved.mid {
                    current.stored = mid;
                }
            }
        }
        if self.hub.events.wanted() {
            self.hub.emit(Event::Checkpointed {
                child: self.path.clone(),
                checkpoint: checkpoint.id,
                step,
            });
        }
    }
}

/// A write that was handed to the store.
pub(crate) struct Writing {
    handed: Handed,
    checkpoint: Option<Arc<Checkpoint>>,
    steps: u64,
    mid: bool,
    /// It is the answer to the request.
    answers: bool,
    /// The request has got on with it, from where an earlier process had left it.
    further: bool,
}

impl Writing {
    /// The state between two requests, after so many steps.
    pub(super) const fn new(
        handed: Handed,
        checkpoint: Option<Arc<Checkpoint>>,
        steps: u64,
    ) -> Self {
        Self { handed, checkpoint, steps, mid: false, answers: false, further: false }
    }
}

/// What an attempt's work is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its lease is the one that counts.
    Current,
    /// Its request has a fate already.
    Late,
    /// Its request was handed out again, or its life has ended: nothing it does changes anything.
    Stale,
}

impl<W: Worker> Desk<W> {
    pub(super) fn standing(&self, job: &Job<W>) -> Standing {
        match self.mailbox.flight(job.ticket) {
            Some(flight) if self.life.incarnation() == job.life => {
                let is_late = flight.orphan || job.mail.is_fated();
                if is_late { Standing::Late } else { Standing::Current }
            }
            _ => Standing::Stale,
        }
    }

    /// Fails when nothing of this attempt may be kept.
    pub(super) fn counts_still(&self, job: &Job<W>) -> Result<Standing, Unkept> {
        match self.standing(job) {
            Standing::Stale => Err(Unkept::Ended(ExitCause::Killed)),
            Standing::Late if job.mail.is_given_up() => Err(Unkept::Late),
            standing => Ok(standing),
        }
    }
}

/// Why a state was not kept.
pub(crate) enum Unkept {
    /// It could not be written: the step fails.
    Failed(Box<Fault>),
    /// The user's code panicked, or the life was killed meanwhile: it ends.
    Ended(ExitCause),
    /// The request has a fate for which its work is undone: the state goes back to before it.
    Late,
}

/// Why a state was not gone back to.
pub(crate) enum NotBack {
    Unkept(Unkept),
    /// The system stops, and the next process goes on.
    Stopped,
}

impl From<Unkept> for NotBack {
    fn from(unkept: Unkept) -> Self {
        Self::Unkept(unkept)
    }
}

impl Unkept {
    pub(super) fn failed(fault: Fault) -> Self {
        Self::Failed(Box::new(fault))
    }

    pub(super) fn panicked(text: String) -> Self {
        Self::Ended(ExitCause::Panic(text))
    }
}

/// The fault of a child whose reply cannot be kept: whoever asked for it again would never hear it. What it did
/// to the world for it, it did.
fn unrecordable(child: &ChildPath, why: &str) -> Fault {
    let text = format!("the reply of \"{child}\" cannot be recorded: {why}");
    Fault::new(Class::OutputInvalid, text).with_code(UNRECORDABLE).effect_unknown()
}

pub(super) fn seal(draft: Draft) -> Result<Sealed, Unkept> {
    draft.seal().map_err(|error| Unkept::failed(journal::failed(&error)))
}
