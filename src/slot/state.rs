//! What the next life begins with: snapshots between steps, and their way into the store.
//!
//! In memory the last snapshot is kept, and the one at the end of the last request: it costs a handful
//! of reference counts. A durable child's state is stored with the fate of each request, before each
//! effect on the world, and as its interval says.
//!
//! *Invariant.* User code (`snapshot`, `restore`, the encoding of pieces) runs in the task of the life,
//! guarded, and never under the lock. What could not be written fails the step.

use std::sync::Arc;

use super::anchor::Anchor;
use super::keep::Unkept;
use super::unfit::Unfit;
use super::{Desk, Job, Mail, Recorder, Slot};
use crate::behavior::{Context, Place, Turn, Undone, default_key};
use crate::checkpoint::{Batch, Checkpoint, Durability, Interval, Schemas, Snapshot, Validated};
use crate::effects::Written;
use crate::event::Event;
use crate::fate::Fate;
use crate::fault::{ExitCause, Fault};
use crate::id::{CheckpointId, Incarnation, RequestId};
use crate::journal::Journal;
use crate::port::Recording;
use crate::slot::worker::{Worker, dropped, guarded, unwound};

/// The state a child can go back to.
pub(crate) struct Saved {
    /// As it was when the last request that was answered had been, or when the first life began.
    pub(super) base: Option<Snapshot>,
    /// As it was after the last step of the request in hand.
    pub(super) mid: Option<Mid>,
    /// The last checkpoint in the store: what the next one is built on.
    pub(super) parent: Option<Arc<Checkpoint>>,
    /// Steps done, over all lives.
    pub(super) steps: u64,
    /// Requests whose work is in the state between two requests, over all lives.
    pub(super) answered: u64,
    /// What the behavior has counted, over all lives.
    units: u64,
    /// Lives that began with it and ended at once.
    pub(super) ended: u32,
    /// What the request in hand goes back to, in the store.
    pub(super) anchor: Anchor,
    /// The store may have the state after an answer that does not count.
    pub(super) is_doubtful: bool,
}

/// States that are not needed any more.
pub(super) type Past = (Option<Snapshot>, Option<Mid>);

pub(super) struct Mid {
    pub(super) request: InHand,
    pub(super) step: u64,
    pub(super) snapshot: Snapshot,
    pub(super) stored: bool,
    pub(super) back: bool,
    pub(super) undo: Undoing,
}

impl Mid {
    /// How it is said that all is undone which was done from there on. Of a first step that has returned nothing is
    /// said: it would count as the beginning.
    pub(super) fn undone(&self) -> Undoing {
        if self.step > 0 || self.is_beginning() { Undoing::Done } else { Undoing::No }
    }

    /// Whether its request has not begun there, and begins again: the state is one between two requests.
    pub(super) fn is_beginning(&self) -> bool {
        self.back || self.step == 0 && self.undo == Undoing::Done
    }
}

/// A request, also one that another process had in hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum InHand {
    Here(RequestId),
    Before(Begun),
}

/// A request that had been begun with, as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Begun {
    pub(crate) key: Arc<str>,
    /// Which time it had been accepted under this key: what it did in another may be undone.
    pub(crate) round: u64,
}

impl Begun {
    pub(super) fn is<W: Worker>(&self, mail: &Mail<W>) -> bool {
        mail.key() == Some(&self.key) && mail.round() == self.round
    }
}

impl Continues {
    /// Tells what became of what its request did from there on. Whether it is of this request.
    pub(super) fn tell<W: Worker>(&mut self, mail: &Mail<W>, undone: &Arc<Undone>) -> bool {
        let is = self.request.is::<W>(mail);
        if is {
            self.undone = Arc::clone(undone);
        }
        is
    }
}

impl InHand {
    fn is_open(&self, open: &dyn Fn(&Begun) -> bool) -> bool {
        match self {
            Self::Here(_) => true,
            Self::Before(begun) => open(begun),
        }
    }

    pub(super) fn is<W: Worker>(&self, mail: &Mail<W>) -> bool {
        match self {
            Self::Here(id) => mail.id == *id,
            Self::Before(begun) => begun.is::<W>(mail),
        }
    }
}

/// Where a life that was restored goes on.
#[derive(Clone, Debug)]
pub(crate) struct Continues {
    request: InHand,
    pub(super) step: u64,
    back: bool,
    undo: Undoing,
    /// What a rollback has done to what the request did from there on.
    undone: Arc<Undone>,
}

/// Whether what a request has done from where its state stands is undone first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Undoing {
    #[default]
    No,
    /// A rollback to there is under way.
    Due,
    /// It is undone, and the request has not been told.
    Done,
}

/// The request in hand, as a checkpoint holds it.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct StoredInHand {
    pub(super) key: Arc<str>,
    pub(super) step: u64,
    /// A rollback to where the request began is under way.
    #[serde(default)]
    pub(super) back: bool,
    #[serde(default)]
    pub(super) undo: Undoing,
    /// As of [`Begun`].
    #[serde(default)]
    pub(super) round: u64,
}

/// Whether a checkpoint is of a request that was returned to its beginning, or goes back there, and had not begun again.
pub(crate) fn is_returned(validated: &Validated) -> bool {
    StoredInHand::of(validated).is_some_and(|it| it.is_beginning())
}

impl StoredInHand {
    /// The one that a checkpoint has, if it can be read.
    pub(super) fn of(validated: &Validated) -> Option<Self> {
        serde_json::from_slice(validated.envelope()?).ok()
    }

    /// As of [`Mid`].
    pub(super) fn is_beginning(&self) -> bool {
        self.back || self.step == 0 && self.undo == Undoing::Done
    }
}

impl Saved {
    /// What a checkpoint says.
    pub(super) fn of(validated: &Validated) -> Result<Box<Self>, String> {
        let checkpoint = validated.checkpoint();
        let mut saved = Saved::new();
        saved.parent = Some(Arc::clone(checkpoint));
        saved.steps = checkpoint.step;
        saved.answered = checkpoint.mailbox_cut;
        match validated.envelope() {
            Some(bytes) => {
                let stored: StoredInHand = serde_json::from_slice(bytes)
                    .map_err(|error| format!("the request in hand: {error}"))?;
                if stored.is_beginning() {
                    // The state in the middle is the one at the beginning.
                    saved.base = Some(validated.snapshot().clone());
                }
                saved.mid = Some(Mid {
                    request: InHand::Before(Begun { key: stored.key, round: stored.round }),
                    step: stored.step,
                    snapshot: validated.snapshot().clone(),
                    stored: true,
                    back: stored.back,
                    undo: stored.undo,
                });
            }
            None => saved.base = Some(validated.snapshot().clone()),
        }
        Ok(saved)
    }

    /// The last checkpoint in the store.
    pub(crate) fn last_checkpoint(&self) -> Option<&Arc<Checkpoint>> {
        self.parent.as_ref()
    }
}

/// As many starts that panicked as make a state guilty: one of them after a start without it went well.
const SUSPECT: u32 = u32::MAX;

/// What is thought of the state that a life had begun with whose start panicked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Suspicion {
    /// Nothing: it had none, or it is the first time.
    None,
    /// A start without it says more.
    Try,
    /// It is bad.
    Guilty,
}

/// Whether what a life gives is what its behavior says that it gives; why not.
fn fits_its_schema<W: Worker>(snapshot: &Snapshot) -> Result<(), String> {
    let schema = unwound(W::schema).map_err(|text| format!("schema panicked: {text}"))?;
    let Some(schema) = schema else { return Ok(()) };
    let schemas = Schemas::new().register(schema).map_err(|error| error.to_string())?;
    let fits = schemas.check(snapshot).map(drop);
    fits.map_err(|error| format!("its snapshot is not what its schema says: {error}"))
}

impl<W: Worker> Slot<W> {
    pub(super) fn journal(&self) -> Option<&Arc<Journal>> {
        if self.spec.durable { self.hub.journal.get() } else { None }
    }

    /// The first life has begun, or one from nothing: this is what it can go back to.
    pub(super) fn keep_start(&self, life: &W::Life) -> Result<(), ExitCause> {
        let snapshot = unwound(|| W::snapshot(life))
            .map_err(|text| ExitCause::StartFailed(format!("snapshot panicked: {text}")))?;
        if let Some(snapshot) = snapshot {
            // Else it would be found out by the first rollback, or by the next process.
            fits_its_schema::<W>(&snapshot).map_err(ExitCause::StartFailed)?;
            let mut desk = self.desk();
            let saved = desk.saved.get_or_insert_with(Saved::new);
            if saved.base.is_none() && saved.mid.is_none() {
                saved.base = Some(snapshot);
            }
        }
        Ok(())
    }

    /// Brings a newly constructed life to where the last one can be gone on with. A snapshot that does
    /// not fit is set aside, and the one before it tried; without any, the life begins as constructed. Where a child
    /// keeps its states in the store and none of them fits, nothing is set aside, and the start fails.
    pub(super) fn restore(
        &self,
        mut life: W::Life,
        number: Incarnation,
    ) -> Result<W::Life, ExitCause> {
        let (mut tried, mut unfit, has_lost) = (Vec::new(), Unfit::default(), self.has_lost());
        loop {
            let Some((snapshot, in_hand, checkpoint)) = self.next_to_restore() else {
                if unfit.is_empty() && !has_lost {
                    return Ok(life);
                }
                match self.older(&mut tried) {
                    Some(older) => self.take_older(&mut unfit, older),
                    None => return self.begin_without(life, unfit, number),
                }
                continue;
            };
            let restored = unwound(|| W::restore(&mut life, &snapshot));
            let why = match restored {
                Ok(Ok(())) => {
                    self.set_aside(unfit);
                    let mut desk = self.desk();
                    let step = in_hand.as_ref().map(|in_hand| in_hand.step);
                    desk.rare().continues = in_hand;
                    drop(desk);
                    self.compare_restored(&life, &snapshot, checkpoint);
                    self.hub.emit(Event::Restored {
                        child: self.path.clone(),
                        incarnation: number,
                        checkpoint,
                        step,
                    });
                    self.tell_policy(checkpoint);
                    return Ok(life);
                }
                Ok(Err(error)) if error.is_retryable() => {
                    // Nothing is wrong with the state: the next start has it again.
                    let _ = dropped(life);
                    self.put_back(unfit);
                    return Err(ExitCause::StartFailed(error.to_string()));
                }
                Ok(Err(error)) => error.to_string(),
                Err(text) => format!("restore panicked: {text}"),
            };
            self.note_unfit(&mut unfit, in_hand.is_some(), checkpoint, why);
            tried.extend(checkpoint);
            // It may have been half restored.
            let fresh = match unwound(|| self.worker.construct()) {
                Ok(fresh) => fresh,
                Err(text) => {
                    self.put_back(unfit);
                    let why = format!("the constructor panicked: {text}");
                    return Err(ExitCause::StartFailed(why));
                }
            };
            let old = std::mem::replace(&mut life, fresh);
            dropped(old).ok();
        }
    }

    /// Whether there was a state, and none is left in memory.
    fn has_lost(&self) -> bool {
        let desk = self.desk();
        desk.saved.as_ref().is_some_and(|saved| {
            saved.base.is_none() && saved.mid.is_none() && saved.parent.is_some()
        })
    }

    /// The start of a life panicked: what that says of the state it had begun with.
    pub(super) fn start_panicked(&self) -> Suspicion {
        if self.next_to_restore().is_none() {
            return Suspicion::None;
        }
        let mut desk = self.desk();
        let Some(saved) = &mut desk.saved else { return Suspicion::None };
        saved.ended = saved.ended.saturating_add(1);
        match saved.ended {
            0 | 1 => Suspicion::None,
            SUSPECT.. => Suspicion::Guilty,
            _ => Suspicion::Try,
        }
    }

    /// A life without the state begins: should the next one with it end at once again, it is the state's fault,
    /// and not that of something that was away until now.
    pub(super) fn suspect(&self) {
        if let Some(saved) = &mut self.desk().saved {
            saved.ended = SUSPECT - 1;
        }
    }

    /// Lives that begin with the state end at once, and one without it does not.
    pub(super) fn convict(&self) {
        let Some((_, in_hand, checkpoint)) = self.next_to_restore() else { return };
        let why = "lives that began with it ended at once, and one without it did not";
        self.drop_bad(in_hand.is_some(), checkpoint, why);
    }

    /// The latest state, if its request is still to be done; else the one between two requests.
    #[allow(clippy::type_complexity)]
    pub(super) fn next_to_restore(
        &self,
    ) -> Option<(Snapshot, Option<Continues>, Option<CheckpointId>)> {
        let mut desk = self.desk();
        let Desk { saved, mailbox, .. } = &mut *desk;
        let saved = saved.as_mut()?;
        let mut over = None;
        if let Some(mid) = &saved.mid {
            if mailbox.any_waiting(|mail| mid.request.is::<W>(mail)) {
                let in_hand = Continues {
                    request: mid.request.clone(),
                    step: mid.step,
                    back: mid.back,
                    undo: mid.undo,
                    undone: Arc::default(),
                };
                let id = saved.parent.as_ref().filter(|_| mid.stored).map(|parent| parent.id);
                return Some((mid.snapshot.clone(), Some(in_hand), id));
            }
            over = saved.mid.take();
        }
        let id = saved.parent.as_ref().map(|parent| parent.id);
        let found = saved.base.clone().map(|snapshot| (snapshot, None, id));
        desk.discard(over);
        found
    }

    pub(super) fn drop_bad(&self, mid: bool, checkpoint: Option<CheckpointId>, why: &str) {
        {
            let mut desk = self.desk();
            let mut bad = None;
            if let Some(saved) = &mut desk.saved {
                saved.ended = 0;
                bad =
                    if mid { saved.mid.take().map(|mid| mid.snapshot) } else { saved.base.take() };
            }
            desk.discard(bad);
        }
        self.tell_unfit(checkpoint, why);
    }

    /// A state could not be restored, and is set aside.
    pub(super) fn tell_unfit(&self, checkpoint: Option<CheckpointId>, why: &str) {
        if let (Some(id), Some(journal)) = (checkpoint, self.journal()) {
            // It is set aside for good, and a person can look at it; the answer changes nothing here.
            let batch = Batch::new().mark_bad(id, why);
            drop(journal.store.commit(batch, self.spec.durability));
        }
        tracing::warn!(target: "mainstay", child = %self.path, why, "a snapshot could not be restored");
        self.hub.emit(Event::RestoreFailed { child: self.path.clone(), checkpoint });
    }

    /// Takes up a state another process has left; called for the newest first, until it says that it
    /// needs none older. One in the middle of a request is taken only while that request is `open`; to
    /// go back to where the request began, the one before it is needed, too.
    pub(crate) fn adopt_state(
        &self,
        validated: &Validated,
        open: &dyn Fn(&Begun) -> bool,
    ) -> Result<Adopted, String> {
        let Saved { base, mid, parent, steps, answered, .. } = *Saved::of(validated)?;
        let mut desk = self.desk();
        let newest = desk.saved.is_none();
        let saved = desk.saved.get_or_insert_with(Saved::new);
        if newest {
            saved.parent = parent;
            saved.steps = steps;
            saved.answered = answered;
        }
        match mid {
            None => {
                saved.base = base;
                saved.anchor = Anchor::found(validated.checkpoint().id);
                Ok(Adopted::Between)
            }
            Some(mid) => {
                let is_middle = newest && mid.request.is_open(open);
                if is_middle {
                    saved.mid = Some(mid);
                }
                if base.is_some() {
                    saved.base = base;
                    saved.anchor = Anchor::found(validated.checkpoint().id);
                    return Ok(Adopted::Between);
                }
                Ok(if is_middle { Adopted::Middle } else { Adopted::PassedOver })
            }
        }
    }

    /// All states another process has left, from this one on, are of one request, the first: it began as a
    /// new life does.
    pub(crate) fn adopt_beginning(&self, oldest: CheckpointId) {
        let Ok(life) = unwound(|| self.worker.construct()) else { return };
        let snapshot = unwound(|| W::snapshot(&life)).ok().flatten();
        dropped(life).ok();
        if let Some(saved) = &mut self.desk().saved {
            saved.base = snapshot;
            saved.anchor = Anchor::found(oldest);
        }
    }

    /// Where the request that is taken up goes on, when the life was restored to the middle of it.
    pub(super) fn continued(&self, desk: &mut Desk<W>, mail: &Mail<W>) -> Option<Place> {
        let Continues { request, step, back, undo, undone } = desk.take_continues()?;
        if !request.is::<W>(mail) {
            return None;
        }
        if back
            && let Some(saved) = &mut desk.saved
            && let Some(mid) = &saved.mid
        {
            // The state in the middle is the one at the beginning. It stays there until the rollback begins: a line
            // that is drawn before that, and a life that comes before it, have to know of it.
            let before = saved.base.replace(mid.snapshot.clone());
            desk.discard(before);
        }
        let turn = match undo {
            // This process has nobody who could have told it.
            Undoing::Done => {
                let undone = Arc::new(self.hub.effects.standing_from(&self.task_of(mail), step));
                if step == 0 { Turn::RolledBack(undone) } else { Turn::Resumed(undone) }
            }
            _ => Turn::Resumed(undone),
        };
        Some(Place { turn, step, back, undo: undo == Undoing::Due })
    }

    /// Whether there is a state to go back to, once `done` steps of a request are done: going back to
    /// where it stands already would only be one more retry.
    pub(super) fn can_go_back(&self, done: u64) -> bool {
        done > 0 && self.desk().saved.as_ref().is_some_and(|saved| saved.base.is_some())
    }

    /// Whether the state is the one in the middle of another request, which ended without an answer
    /// within a transaction: it does not stay half done in the state either.
    pub(super) fn is_torn(&self, desk: &Desk<W>, mail: &Mail<W>) -> bool {
        let mid = desk.saved.as_ref().and_then(|saved| saved.mid.as_ref());
        self.rules.in_transaction && mid.is_some_and(|mid| !mid.request.is::<W>(mail))
    }

    /// A life with the state between two requests, in the place of one in the middle of a request that
    /// has ended without an answer.
    pub(crate) async fn mend(&self, job: &Job<W>) -> Result<W::Life, Unkept> {
        let limit = self.hub.clock.sleep_until(self.hub.now() + self.rules.scope.limit());
        let (life, ..) = tokio::select! {
            biased;
            life = self.life_between(job) => life?,
            () = limit => {
                let late = "the state before the last request could not be restored in time";
                return Err(Unkept::failed(Fault::timeout(late).with_code("rollback")));
            }
        };
        let mut desk = self.desk();
        let torn = desk.saved.as_mut().and_then(|saved| saved.mid.take());
        desk.discard(torn);
        drop(desk);
        Ok(life)
    }

    /// The state between two requests.
    pub(crate) fn base(&self) -> Option<Snapshot> {
        self.desk().saved.as_ref()?.base.clone()
    }

    /// A newly made life with this state, or as it is at the very beginning.
    pub(crate) async fn life_from(
        &self,
        base: Option<&Snapshot>,
        job: &Job<W>,
    ) -> Result<W::Life, Unkept> {
        let life = self.restored(base)?;
        let life = life.map_err(|why| Unkept::failed(Fault::internal(why).with_code("restore")))?;
        self.begun(life, job).await
    }

    /// A newly made life with this state that has not begun, or why it cannot have it.
    pub(super) fn restored(
        &self,
        base: Option<&Snapshot>,
    ) -> Result<Result<W::Life, String>, Unkept> {
        let mut life = unwound(|| self.worker.construct()).map_err(Unkept::panicked)?;
        Ok(match unwound(|| base.map_or(Ok(()), |base| W::restore(&mut life, base))) {
            Ok(Ok(())) => Ok(life),
            Ok(Err(error)) if error.is_retryable() => {
                let _ = dropped(life);
                return Err(Unkept::failed(
                    Fault::internal(error.to_string()).with_code("restore"),
                ));
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(text) => Err(format!("restore panicked: {text}")),
        })
    }

    /// A life in the place of the one of this job, once it has begun.
    pub(super) async fn begun(&self, mut life: W::Life, job: &Job<W>) -> Result<W::Life, Unkept> {
        let start = self.start_context(job.life);
        match guarded(|| W::start(&mut life, &start)).await {
            Ok(Ok(())) => Ok(life),
            Ok(Err(fault)) => Err(Unkept::failed(fault)),
            Err(text) => Err(Unkept::panicked(text)),
        }
    }

    /// What the ledger knows a request by.
    pub(super) fn task_of(&self, mail: &Mail<W>) -> String {
        match mail.key() {
            Some(key) => key.to_string(),
            None => default_key(self.hub.identity, mail.id),
        }
    }

    /// A request within a transaction ended without an answer: what it has done to the world does not
    /// stay half done, unless nobody knows what it has done.
    ///
    /// `fate` is the one it would have had: an act that is under way and makes it unknown is waited for.
    /// A fate that is `written` the store has to take first: a process that finds the request open goes on with
    /// it behind what it has done.
    pub(super) fn undo_unfinished(&self, mail: &Mail<W>, fate: Fate, written: Written) {
        if matches!(fate, Fate::Done | Fate::Unheard | Fate::Unknown | Fate::Suspended) {
            return;
        }
        mail.note_given_up();
        let task = self.task_of(mail);
        let effects = &self.hub.effects;
        if effects.may_stand(&task) {
            self.hub.spawn(effects.unwind(&task, written));
        }
    }

    /// A durable request has a fate without an answer.
    pub(super) fn journal_fate(&self, mail: &Mail<W>, fate: Fate, durability: Durability) {
        let Self { hub, path, .. } = self;
        Recorder { hub, path, codec: None, durability, acts: self.acts() }.ended(mail, fate);
    }

    /// How the fate of this request is written down: by the group that accepted it, or here.
    pub(super) fn recording(&self, mail: &Mail<W>) -> Option<Recording> {
        if let Some(home) = &mail.home {
            return home.recording();
        }
        let codec = self.spec.codec.filter(|_| self.spec.durable)?;
        Some(Recording { write_reply: codec.write_reply, durability: self.spec.durability })
    }

    /// Whether the answer to this request is in the store before anybody hears of it.
    pub(crate) fn keeps(&self, mail: &Mail<W>) -> bool {
        self.hub.journal.get().is_some() && self.recording(mail).is_some()
    }
}

impl Saved {
    pub(super) fn new() -> Box<Self> {
        Box::new(Self {
            base: None,
            mid: None,
            parent: None,
            steps: 0,
            answered: 0,
            units: 0,
            ended: 0,
            anchor: Anchor::default(),
            is_doubtful: false,
        })
    }

    /// As a new life begins.
    pub(super) fn beginning(base: Snapshot) -> Box<Self> {
        let mut saved = Self::new();
        saved.base = Some(base);
        saved
    }

    /// Whether it is one between two requests.
    pub(super) fn is_between(&self) -> bool {
        self.mid.as_ref().is_none_or(Mid::is_beginning)
    }

    pub(super) fn latest(&self) -> Option<&Snapshot> {
        self.mid.as_ref().map(|mid| &mid.snapshot).or(self.base.as_ref())
    }

    /// One more step; whether a checkpoint is due.
    pub(super) fn count(&mut self, context: &Context, interval: &Interval) -> bool {
        self.ended = 0;
        self.steps += 1;
        let before = self.units;
        self.units += context.take_units();
        interval.is_due(self.steps, before, self.units)
    }

    /// The request in hand ended while its answer was written, and is undone: the state is in its middle.
    #[must_use]
    pub(super) fn leave_torn(&mut self, request: RequestId, snapshot: Snapshot) -> Past {
        let request = InHand::Here(request);
        let mid = Mid { request, step: 0, snapshot, stored: false, back: false, undo: Undoing::No };
        (None, self.mid.replace(mid))
    }

    /// The request in hand was answered with this state. What was kept before it is the user's, and is
    /// for the caller to drop once no lock is held.
    #[must_use]
    pub(super) fn settle(&mut self, snapshot: Snapshot) -> Past {
        self.answered += 1;
        (self.base.replace(snapshot), self.mid.take())
    }
}

/// What became of a state that another process has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Adopted {
    /// It is the one between two requests: nothing older is needed.
    Between,
    /// A request that is still to be done goes on from it.
    Middle,
    /// It is of a request that has its fate, or of an earlier step.
    PassedOver,
}
