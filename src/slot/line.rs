//! What a rollback of many children needs of each: its state as of now, and a next life that is ready
//! before the old one is stopped.
//!
//! *Invariant.* A candidate is made while the old life goes on, and changes nothing until it is
//! installed. Once it is, the next life is it, whatever the old one becomes.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::state::{InHand, Saved, StoredInHand, Undoing};
use super::{Job, Look, Mail, Out, Slot, Unkept};
use crate::behavior::default_key;
use crate::checkpoint::{
    Budgets, Checkpoint, Draft, Interval, Listed, Now, Rules, Schemas, Scope, Sealed, Snapshot,
    Validated, Validator,
};
use crate::error::CheckpointError;
use crate::event::Event;
use crate::fault::{ExitCause, Fault};
use crate::id::{CheckpointId, Incarnation, RequestId};
use crate::journal::Journal;
use crate::slot::worker::{Worker, dropped, unwound};

/// How what a child has become stands to what the store has of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// There is no state at all.
    Nothing,
    /// This checkpoint says it all.
    At(CheckpointId),
    /// There has been more since.
    Behind,
}

/// A life that waits for its turn.
pub(crate) struct Candidate<L> {
    life: L,
    saved: Box<Saved>,
}

/// A candidate whose type is not known.
pub(crate) struct Prepared(Box<dyn Any + Send>);

/// Which of all the checkpoints of a child, the newest first, are of a future that a rollback has given up: they
/// were stored after what was returned to, and the last one, which may have been set aside, does not come from them.
pub(crate) fn given_up(
    journal: &Journal,
    all: &[Listed],
    last: Option<CheckpointId>,
) -> HashSet<CheckpointId> {
    let used: HashSet<_> =
        all.iter().map(|it| it.checkpoint.id).filter(|id| journal.is_used_up(*id)).collect();
    let mut given_up = used.clone();
    if used.is_empty() {
        return given_up;
    }
    let mut places: HashMap<_, _> =
        all.iter().enumerate().map(|(at, it)| (it.checkpoint.id, at)).collect();
    let (mut next, mut after) = (last, None);
    while let Some(at) = next.and_then(|id| places.remove(&id)) {
        let checkpoint = &all[at].checkpoint;
        given_up.remove(&checkpoint.id);
        let is_used = used.contains(&checkpoint.id);
        // What was returned to, and what the rollback has stored: a step that was under way meanwhile may have
        // stored something in between, which nobody has marked.
        if let Some(kept) = after.filter(|_| is_used) {
            given_up.extend(all[at.min(kept + 1)..at].iter().map(|it| it.checkpoint.id));
        }
        after = Some(at).filter(|_| is_used);
        next = checkpoint.lineage.parent;
    }
    given_up
}

/// A state does not fit the request in hand.
fn in_hand(id: CheckpointId, found: &str, expected: &str) -> CheckpointError {
    let what = format!("in {id}, the request in hand");
    let (found, expected) = (found.to_owned(), expected.to_owned());
    CheckpointError::Incompatible { what, found, expected }
}

/// What a child has that can restore none of its states.
pub(super) fn of_no_use(unfit: &[(Option<CheckpointId>, String)]) -> String {
    let (id, why) = match unfit.first() {
        Some((id, why)) => (*id, why.as_str()),
        None => (None, "there is none"),
    };
    let newest = id.map_or_else(|| "the newest".to_owned(), |id| format!("the newest, {id}"));
    format!("no state can be restored, and none is set aside; {newest}: {why}")
}

impl<W: Worker> Slot<W> {
    pub(super) fn key_of(&self, mail: &Mail<W>) -> String {
        match mail.key() {
            Some(key) => key.to_string(),
            None => default_key(self.hub.identity, mail.id),
        }
    }

    pub(super) fn capture_state(
        &self,
        scope: Scope,
        undoing: Option<(&str, Undoing)>,
    ) -> Result<Option<Sealed>, CheckpointError> {
        let now = Now::read(&*self.hub.clock);
        let found = {
            let desk = self.desk();
            let saved = desk.candidate().map(|it| &it.saved).or(desk.saved.as_ref());
            let Some(saved) = saved else { return Ok(None) };
            let (key, round) = (RefCell::new(None), Cell::new(0));
            let spent = Cell::new(Budgets::default());
            let is_open = |request: &InHand| {
                let is = |mail: &Mail<W>| {
                    let is = request.is::<W>(mail);
                    if is {
                        *key.borrow_mut() = Some(self.key_of(mail));
                        round.set(mail.round());
                        spent.set(self.spent_in_hand(&desk, mail));
                    }
                    is
                };
                desk.mailbox.any_waiting(is) || desk.mailbox.flights().any(|it| is(it.payload))
            };
            let mid = saved.mid.as_ref().filter(|mid| is_open(&mid.request));
            let snapshot = match mid {
                Some(mid) => Some(mid.snapshot.clone()),
                None => saved.base.clone(),
            };
            let in_hand = mid.zip(key.take()).map(|(mid, key)| StoredInHand {
                step: mid.step,
                back: mid.back,
                undo: match undoing {
                    Some((task, Undoing::Done)) if task == key => mid.undone(),
                    Some((task, undo)) if task == key => undo,
                    _ => mid.undo,
                },
                key: key.into(),
                round: round.get(),
            });
            let in_hand = in_hand.or_else(|| {
                // It begins again: with the undos, or with being told of them.
                let (key, undo) = undoing?;
                let (back, undo) = match undo {
                    Undoing::Done => (false, undo),
                    // Its own rollback does that by itself.
                    _ if self.rules.in_transaction => (true, Undoing::No),
                    _ => (true, undo),
                };
                let note = |mail: &Mail<W>| {
                    let is = self.key_of(mail) == key;
                    if is {
                        round.set(mail.round());
                        spent.set(self.spent_in_hand(&desk, mail));
                    }
                    is
                };
                let _ = desk.mailbox.any_waiting(note)
                    || desk.mailbox.flights().any(|it| note(it.payload));
                let (key, round) = (Arc::from(key), round.get());
                Some(StoredInHand { key, step: 0, back, undo, round })
            });
            let in_hand = in_hand.or_else(|| {
                // It goes back by itself: the next process goes on with that.
                let life = desk.life.incarnation();
                let is = |out: &&Out| out.life == life && out.goes_back.is_some();
                let out = desk.out.iter().find(is).filter(|_| desk.candidate().is_none())?;
                let (undo, mail) = (out.goes_back?, desk.mailbox.flight(out.ticket)?.payload);
                spent.set(self.spent_in_hand(&desk, mail));
                let (key, round) = (Arc::from(self.key_of(mail)), mail.round());
                Some(StoredInHand { key, step: 0, back: undo != Undoing::Done, undo, round })
            });
            let in_hand = in_hand.or_else(|| {
                // It begins again: it has been returned to its beginning and waits to be told so, or waits to be tried
                // once more, or to be handed out, and has spent something.
                if desk.candidate().is_some() {
                    return None;
                }
                let (found, returned) = (RefCell::new(None), desk.returned());
                desk.mailbox.any_waiting(|mail| {
                    let is = returned.map_or_else(|| mail.has_spent(), |it| mail.id == it);
                    if is {
                        spent.set(self.spent_in_hand(&desk, mail));
                        *found.borrow_mut() = Some((self.key_of(mail), mail.round()));
                    }
                    is
                });
                let (key, round) = found.take()?;
                let (key, undo) = (Arc::from(key), Undoing::Done);
                Some(StoredInHand { key, step: 0, back: false, undo, round })
            });
            let parent: Option<Arc<Checkpoint>> = saved.parent.clone();
            let at = (saved.steps, saved.answered, desk.life.incarnation());
            snapshot.map(|it| (it, in_hand, parent, at, spent.get()))
        };
        let Some((snapshot, in_hand, parent, at, spent)) = found else { return Ok(None) };
        let (steps, answered, life) = at;
        let topology = self.hub.topology.get().copied().unwrap_or_default();
        let mut draft = Draft::new(self.path.clone(), snapshot, now)
            .at(life, steps)
            .scope(scope)
            .topology(topology)
            .policy(self.policy_digest())
            .mailbox_cut(answered)
            .budgets(spent)
            .ledger(self.journal().map_or(0, |journal| journal.position()));
        if let Some(parent) = &parent {
            draft = draft.after(parent);
        }
        if let Some(in_hand) = in_hand {
            let bytes = serde_json::to_vec(&in_hand).map_err(|error| {
                let field = "the request in hand".to_owned();
                CheckpointError::Unstorable { field, why: error.to_string() }
            })?;
            draft = draft.envelope(bytes);
        }
        draft.seal().map(Some)
    }

    pub(super) fn state_kept(&self) -> Kept {
        let desk = self.desk();
        let saved = desk.candidate().map(|it| &it.saved).or(desk.saved.as_ref());
        let Some(saved) = saved.filter(|saved| saved.latest().is_some()) else {
            return Kept::Nothing;
        };
        match &saved.parent {
            Some(parent)
                if parent.step == saved.steps
                    && saved.mid.as_ref().is_none_or(|mid| mid.stored) =>
            {
                Kept::At(parent.id)
            }
            _ => Kept::Behind,
        }
    }

    pub(super) fn state_captured(&self, sealed: &Sealed) {
        let checkpoint = sealed.checkpoint();
        {
            let mut desk = self.desk();
            let desk = &mut *desk;
            let candidate = desk.rare.as_mut().and_then(|rare| rare.candidate.as_mut());
            let saved = match candidate {
                Some(candidate) => Some(&mut candidate.saved),
                None => desk.saved.as_mut(),
            };
            if let Some(saved) = saved {
                saved.parent = Some(Arc::clone(checkpoint));
                if let Some(mid) = &mut saved.mid {
                    mid.stored = true;
                }
            }
            self.publish(desk);
        }
        self.hub.emit(Event::Checkpointed {
            child: self.path.clone(),
            checkpoint: checkpoint.id,
            step: checkpoint.step,
        });
    }

    pub(super) fn prepare_life(
        &self,
        validated: Option<&Validated>,
    ) -> Result<Prepared, CheckpointError> {
        let (life, saved) = match validated {
            None => (self.new_life()?, Saved::new()),
            Some(validated) => {
                let place = validated.checkpoint().id;
                let mut saved = Saved::of(validated)
                    .map_err(|what| CheckpointError::Corrupt { place: place.to_string(), what })?;
                self.pass_fated_beginning(&mut saved);
                if self.is_of_fated(&saved) {
                    (self.life_before(&mut saved, place)?, saved)
                } else {
                    self.check_in_hand(&saved, place)?;
                    self.find_base(&mut saved);
                    (self.life_with(validated)?, saved)
                }
            }
        };
        Ok(Prepared(Box::new(Candidate { life, saved })))
    }

    /// A newly made life with this state, which has not begun.
    pub(super) fn life_with(&self, validated: &Validated) -> Result<W::Life, CheckpointError> {
        self.life_of(validated.snapshot(), validated.checkpoint().id)
    }

    fn life_of(&self, state: &Snapshot, id: CheckpointId) -> Result<W::Life, CheckpointError> {
        let mut life = self.new_life()?;
        let why = match unwound(|| W::restore(&mut life, state)) {
            Ok(Ok(())) => return Ok(life),
            Ok(Err(why)) => why,
            Err(panic) => CheckpointError::RestorePanicked { checkpoint: id, panic },
        };
        let _ = dropped(life);
        Err(why)
    }

    /// A life as it is at the very beginning.
    pub(super) fn new_life(&self) -> Result<W::Life, CheckpointError> {
        unwound(|| self.worker.construct()).map_err(|panic| self.no_life("constructor", panic))
    }

    pub(super) fn no_life(&self, what: &'static str, panic: String) -> CheckpointError {
        CheckpointError::NoLife { child: self.path.clone(), what, panic }
    }

    /// A newly made life with the state before the request in whose middle this one was taken, which has its fate by
    /// now: what was answered is replayed from its beginning, and what has failed left nothing behind.
    fn life_before(&self, saved: &mut Saved, id: CheckpointId) -> Result<W::Life, CheckpointError> {
        self.find_base(saved);
        let Some(base) = &saved.base else {
            return Err(in_hand(id, "one that has its fate", "one that is open, or none"));
        };
        let life = self.life_of(base, id)?;
        saved.mid = None;
        Ok(life)
    }

    /// A request that was to begin there has its fate: what is left is a state between two requests.
    fn pass_fated_beginning(&self, saved: &mut Saved) {
        if saved.mid.as_ref().is_some_and(|mid| mid.is_beginning()) && self.is_of_fated(saved) {
            saved.mid = None;
        }
    }

    /// Whether it is of the middle of a request that is not open any more.
    fn is_of_fated(&self, saved: &Saved) -> bool {
        let Some(mid) = &saved.mid else { return false };
        let desk = self.desk();
        let is = |mail: &Mail<W>| match &mid.request {
            InHand::Here(id) => mail.id == *id,
            InHand::Before(begun) => {
                *self.key_of(mail) == *begun.key && mail.round() == begun.round
            }
        };
        !desk.mailbox.any_waiting(is) && !desk.mailbox.flights().any(|it| is(it.payload))
    }

    /// A state in the middle of a request is of use only while that request is open; and one after a request only
    /// when that is not open any more: its fate may be in the store, and it is done again all the same.
    fn check_in_hand(&self, saved: &Saved, id: CheckpointId) -> Result<(), CheckpointError> {
        if self.is_of_fated(saved) {
            return Err(in_hand(id, "one that has its fate", "one that is open, or none"));
        }
        let has_its_work = |(_, key, _): &(RequestId, String, u64)| {
            let work = self.journal().and_then(|journal| journal.work_of(key));
            work.is_some_and(|(child, step)| child == self.path && step <= saved.steps)
        };
        if self.tasks().iter().any(has_its_work) {
            return Err(in_hand(id, "one whose work is in it", "one that is begun, or none"));
        }
        Ok(())
    }

    /// A state in the middle of a request may have to go back to where the request began: that is the
    /// one before it in its lineage, or the very beginning.
    fn find_base(&self, saved: &mut Saved) {
        if saved.base.is_some() {
            return;
        }
        let (Some(_), Some(journal), Ok(Some(schema))) =
            (&saved.mid, self.journal(), Look::schema(self))
        else {
            return;
        };
        let Ok(schemas) = Schemas::new().register(schema) else { return };
        let mut next = saved.parent.as_ref().map(|parent| parent.lineage.parent);
        while let Some(id) = next.take() {
            let Some(id) = id else {
                // One that keeps nothing between its requests has answered others, maybe.
                if self.spec.checkpoint != Interval::Never
                    && let Ok(life) = unwound(|| self.worker.construct())
                {
                    saved.base = unwound(|| W::snapshot(&life)).ok().flatten();
                    let _ = dropped(life);
                }
                return;
            };
            let Ok(listed) = journal.store.find(id) else { return };
            // It is of use as long as the later one is.
            let rules = Rules::of_any_age(&listed.checkpoint);
            if let Ok(validated) = Validator::new(&*journal.store, &schemas, rules).validate(id) {
                saved.base = Saved::of(&validated).ok().and_then(|before| before.base);
                if saved.base.is_none() {
                    next = Some(validated.checkpoint().lineage.parent);
                }
            }
        }
    }

    pub(super) fn install_life(&self, prepared: Prepared) {
        let Ok(candidate) = prepared.0.downcast::<Candidate<W::Life>>() else { return };
        let before = self.desk().rare().candidate.replace(candidate);
        if let Some(before) = before {
            // Not here: a supervisor may have put it there, and what it drops is user code.
            self.hub.spawn(async move {
                let _ = dropped(before);
            });
        }
    }

    /// The candidate begins, with its state and not with what the last life had become.
    pub(super) fn begin_candidate(
        &self,
        candidate: Candidate<W::Life>,
        number: Incarnation,
    ) -> Result<W::Life, ExitCause> {
        let Candidate { life, saved } = candidate;
        let in_middle = saved.mid.is_some();
        let anew = saved.mid.is_none() && saved.base.is_none();
        {
            let mut desk = self.desk();
            if let Some(before) = desk.saved.replace(saved) {
                desk.discard(before);
            }
        }
        if anew {
            return Ok(life);
        }
        match self.next_to_restore() {
            Some((from, in_hand, checkpoint)) if in_middle == in_hand.is_some() => {
                self.compare_restored(&life, &from, checkpoint);
                let step = in_hand.as_ref().map(|in_hand| in_hand.step);
                self.desk().rare().continues = in_hand;
                let child = self.path.clone();
                self.hub.emit(Event::Restored { child, incarnation: number, checkpoint, step });
                self.tell_policy(checkpoint);
                Ok(life)
            }
            // Its request has got its fate in the meantime: what is older is tried.
            _ => {
                let _ = dropped(life);
                let fresh = unwound(|| self.worker.construct()).map_err(|text| {
                    ExitCause::StartFailed(format!("the constructor panicked: {text}"))
                })?;
                self.restore(fresh, number)
            }
        }
    }

    /// A life with the state between two requests, that state, and where the store has it. Where that cannot be restored, with the one before
    /// it, or the one at the very beginning: then the child has to [replay](Slot::is_behind) what is not in it.
    ///
    /// What could not be restored is set aside once another one has been. Where none can, not even that of a life that
    /// has just been made, it is the program that restores nothing: all stays, and a wider scope may know better.
    pub(super) async fn life_between(
        &self,
        job: &Job<W>,
    ) -> Result<(W::Life, Snapshot, Option<CheckpointId>), Unkept> {
        let (mut tried, mut unfit) = (Vec::new(), Vec::new());
        let (mut instead, mut anew) = (None::<Box<Saved>>, false);
        loop {
            let base = match &instead {
                Some(saved) => saved.base.clone(),
                None => self.base(),
            };
            if let Some(base) = base {
                let id = match &instead {
                    Some(saved) => saved.parent.as_ref().map(|parent| parent.id),
                    None => self.between(),
                };
                let why = match self.restored(Some(&base))? {
                    Ok(life) => {
                        self.compare_restored(&life, &base, id);
                        self.stands_on(instead, unfit, anew.then_some(job.life));
                        return Ok((self.begun(life, job).await?, base, id));
                    }
                    Err(why) => why,
                };
                tried.extend(id);
                unfit.push((id, why));
                if anew {
                    let unfit = of_no_use(&unfit);
                    return Err(Unkept::failed(Fault::internal(unfit).with_code("restore")));
                }
                // Whoever ends it, or watches its time, has had no turn meanwhile.
                tokio::task::yield_now().await;
            }
            let mut older = self.older(&mut tried);
            // Only one that is no middle of a request will do.
            while older.as_ref().is_some_and(|saved| !saved.is_between()) {
                older = self.older(&mut tried);
            }
            anew = older.is_none();
            instead = Some(match older {
                Some(saved) => saved,
                None => {
                    let life = unwound(|| self.worker.construct()).map_err(Unkept::panicked)?;
                    let base = unwound(|| W::snapshot(&life)).map_err(Unkept::panicked)?;
                    let _ = dropped(life);
                    let base = base.ok_or_else(|| {
                        let gone = Fault::internal("the checkpoint is gone").with_code("store");
                        Unkept::failed(gone)
                    })?;
                    Saved::beginning(base)
                }
            });
        }
    }

    /// A life has been restored for the child to go back to, with this state `instead` of the one in memory where that
    /// and those after it could not be.
    fn stands_on(
        &self,
        instead: Option<Box<Saved>>,
        unfit: Vec<(Option<CheckpointId>, String)>,
        anew: Option<Incarnation>,
    ) {
        let Some(mut saved) = instead else { return };
        {
            let mut desk = self.desk();
            if let Some(before) = &mut desk.saved {
                // It is still built on the last one there is.
                saved.parent = saved.parent.take().or_else(|| before.parent.clone());
            }
            saved.mid = None;
            let before = desk.saved.replace(saved);
            desk.discard(before);
            desk.rare().behind = true;
        }
        for (checkpoint, why) in unfit {
            self.tell_unfit(checkpoint, &why);
        }
        if let Some(incarnation) = anew {
            self.hub.emit(Event::BeganAnew { child: self.path.clone(), incarnation });
        }
    }

    /// The checkpoint of the state between two requests, where the store has one of just that.
    fn between(&self) -> Option<CheckpointId> {
        let id = self.desk().saved.as_ref()?.anchor.id()?;
        let store = &self.journal()?.store;
        if store.find(id).ok()?.checkpoint.envelope.is_none() {
            return Some(id);
        }
        // A request that begins there is in it, too.
        let envelope = store.load(id).ok()?.envelope().ok()??;
        let in_hand: StoredInHand = serde_json::from_slice(&envelope).ok()?;
        in_hand.is_beginning().then_some(id)
    }

    /// Whether the state is one of before requests that were answered.
    pub(crate) fn is_behind(&self) -> bool {
        self.desk().rare.as_ref().is_some_and(|rare| rare.behind)
    }

    /// The newest checkpoint in the store that can be gone on from and was not tried yet, however old.
    pub(super) fn older(&self, tried: &mut Vec<CheckpointId>) -> Option<Box<Saved>> {
        let journal = self.journal()?;
        let schemas = Schemas::new().register(Look::schema(self).ok()??).ok()?;
        let all = journal.states(&self.path).ok()?;
        let last = {
            let desk = self.desk();
            desk.saved.as_ref().and_then(|saved| saved.parent.as_ref()).map(|parent| parent.id)
        };
        let given_up = given_up(journal, &all, last);
        for listed in all {
            let id = listed.checkpoint.id;
            if tried.contains(&id) || given_up.contains(&id) {
                continue;
            }
            tried.push(id);
            let any_age = Rules::of_any_age(&listed.checkpoint);
            let rules = Rules { ledger: journal.position(), ..any_age };
            let validator = Validator::new(&*journal.store, &schemas, rules);
            let Ok(validated) = validator.validate(id) else { continue };
            let Ok(mut saved) = Saved::of(&validated) else { continue };
            self.pass_fated_beginning(&mut saved);
            if self.check_in_hand(&saved, id).is_ok() {
                self.find_base(&mut saved);
                return Some(saved);
            }
        }
        None
    }

    pub(super) fn tasks(&self) -> Vec<(RequestId, String, u64)> {
        let desk = self.desk();
        let step_of = |mail: &Mail<W>| {
            let saved = desk.candidate().map(|it| &it.saved).or(desk.saved.as_ref());
            let in_hand = saved.and_then(|saved| saved.mid.as_ref());
            in_hand.filter(|mid| mid.request.is::<W>(mail)).map_or(0, |mid| mid.step)
        };
        let all = RefCell::new(Vec::new());
        let note = |mail: &Mail<W>| {
            all.borrow_mut().push((mail.id, self.key_of(mail), step_of(mail)));
            false
        };
        desk.mailbox.any_waiting(note);
        for flight in desk.mailbox.flights() {
            note(flight.payload);
        }
        all.take()
    }
}
