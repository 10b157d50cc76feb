//! A request on its way: what was asked, until when, who waits for it, and what has failed so far.
//!
//! *Invariant.* Its right to a fate is taken once. Nothing of the user's is dropped, and no caller is
//! woken, under a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::Waker;
use std::time::Duration;

use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};

use super::copies::Copies;
use super::{AcceptOptions, Gate, Home, Kept, Late, More, Soft, Trying, dropped};
use crate::checkpoint::Budgets;
use crate::decision::Action;
use crate::error::CallError;
use crate::fate::{Answer, Cost, Fate};
use crate::fault::Fault;
use crate::id::{ChildPath, RequestId};
use crate::moment::Moment;
use crate::policy::budget::Purse;
use crate::policy::history::History;

/// What failed on a request's way, kept apart from the envelope because most requests have none.
pub(crate) struct Book {
    pub(crate) history: History,
    pub(crate) trail: crate::fate::Trail,
    /// Hand-outs so far, wherever.
    pub(crate) deliveries: crate::id::Delivery,
    /// An attempt has called what may not be called twice.
    pub(crate) tainted: bool,
    /// What the attempts that gave no answer have cost.
    pub(crate) spent: Cost,
    /// It was rolled back, once.
    pub(crate) rolled_back: bool,
    /// When it failed first.
    pub(crate) failed: Option<Moment>,
    /// The widest supervisor that was rolled back for it, or was to be; and why those that were not.
    pub(crate) widened: Option<Box<(Option<crate::id::ChildPath>, Vec<String>)>>,
    /// Whether it is out at two members.
    pub(crate) copies: Copies,
    /// After which rungs a person was asked, a bit each.
    pub(crate) asked: u8,
    /// Hand-outs that a person has asked for: they are not counted against the cap.
    pub(crate) by_person: u32,
    /// The last fault, for the error at the end of the ladder.
    pub(crate) fault: Option<Fault>,
    /// The soft failures of its task, when this is the request that the task is.
    pub(crate) soft: Option<Soft>,
    /// What the next attempt is told, whoever makes it: the last feedback there was.
    pub(crate) feedback: Option<Arc<str>>,
    /// What the retry that is under way has cost the retry budget.
    pub(crate) paid: u32,
}

impl Book {
    /// Whether nobody knows what became of its effect.
    pub(crate) fn is_unknown(&self) -> bool {
        self.trail.0.last().is_some_and(|last| last.action == Action::HoldUnknown)
    }

    /// What the retry has cost by which this child has the request now.
    pub(crate) fn paid_at(&self, child: &crate::id::ChildPath) -> u32 {
        if self.trail.0.last().is_some_and(|last| last.child == *child) { self.paid } else { 0 }
    }

    /// Nothing yet, but that this member of the group has had the request as this hand-out.
    pub(crate) fn new(member: usize, delivery: crate::id::Delivery) -> Box<Self> {
        Self::with(History::starting_at(member), delivery)
    }

    /// Nothing yet, but that somebody who was stopped has had the request as this hand-out.
    fn interrupted(delivery: crate::id::Delivery) -> Box<Self> {
        Self::with(History::default(), delivery)
    }

    fn with(history: History, delivery: crate::id::Delivery) -> Box<Self> {
        Box::new(Self {
            history,
            trail: crate::fate::Trail::default(),
            deliveries: delivery,
            tainted: false,
            spent: Cost::default(),
            rolled_back: false,
            failed: None,
            widened: None,
            copies: Copies::default(),
            asked: 0,
            by_person: 0,
            fault: None,
            soft: None,
            feedback: None,
            paid: 0,
        })
    }
}

impl Book {
    /// A hand-out as the cap counts it.
    pub(crate) const fn counted(&self, delivery: crate::id::Delivery) -> crate::id::Delivery {
        crate::id::Delivery(delivery.0.saturating_sub(self.by_person))
    }
}

/// A book, locked.
pub(crate) type BookLock<'a> = MappedMutexGuard<'a, Book>;

/// A request on its way: what was asked, until when, and who waits for it.
pub(crate) struct Envelope<Q, R> {
    pub(crate) id: RequestId,
    pub(crate) accepted_at: Moment,
    pub(crate) deadline: Moment,
    more: Option<Box<More>>,
    pub(crate) cast: bool,
    /// The soft failures of the task of another request that asked for this one.
    soft: Option<Soft>,
    pub(crate) request: Kept<Q>,
    pub(crate) home: Option<Arc<dyn Home<Q, R>>>,
    pub(super) book: Mutex<Option<Box<Book>>>,
    pub(super) fated: AtomicBool,
    pub(super) state: AtomicU8,
    /// The member of the group that has it.
    at: AtomicU8,
    pub(super) cell: Mutex<Cell<Q, R>>,
}

pub(super) const CANCELLED: u8 = 2;
/// Its answer is in the journal, or on its way there.
pub(super) const JOURNALED: u8 = 4;
/// Something has failed, or it is out at two members.
pub(super) const BOOKED: u8 = 8;
/// It has a fate for which what it has done is undone: nothing that it does from there on counts.
pub(super) const GIVEN_UP: u8 = 32;
/// It was out at two members.
pub(super) const HEDGED: u8 = 16;
/// Its answer is being kept: its fate is what comes of that.
const ANSWERING: u8 = 64;
/// Its deadline has passed meanwhile, and its caller has heard of that.
const TOLD: u8 = 128;

pub(super) enum Cell<Q, R> {
    Waiting(Option<Waker>),
    /// The same, and what it has ended with is on its way into the store: what there is to say of that is
    /// said once it is there.
    Held(Option<Waker>, Option<Box<Self>>),
    /// The usual answer: at the first attempt, and nothing else to say of it.
    Plain(R, ChildPath, Duration),
    Whole(Box<Result<Answer<R>, CallError<Q>>>),
    Gone,
}

impl<Q, R> Cell<Q, R> {
    /// What it says; `None` when it says nothing yet, or any more.
    #[inline]
    pub(super) fn outcome(self) -> Option<Result<Answer<R>, CallError<Q>>> {
        match self {
            Self::Plain(value, by, elapsed) => {
                Some(Ok(Answer { elapsed, ..Answer::new(value, by) }))
            }
            Self::Whole(outcome) => Some(*outcome),
            Self::Waiting(_) | Self::Held(..) | Self::Gone => None,
        }
    }
}

impl<Q, R> Envelope<Q, R> {
    #[inline(always)]
    pub(crate) fn new(
        id: RequestId,
        accepted_at: Moment,
        deadline: Moment,
        options: &mut AcceptOptions,
        home: Option<Arc<dyn Home<Q, R>>>,
        request: Q,
    ) -> Self {
        let inherited = options.tie.as_ref().and_then(|tie| tie.purse.clone());
        if options.more.is_some() || inherited.is_some() {
            let more = options.more();
            more.purse = match (more.budget.take(), inherited) {
                (Some(own), Some(parent)) => Some(parent.child(own)),
                (Some(own), None) => Some(Purse::resumed(own, more.before.into())),
                (None, parent) => parent,
            };
        }
        let soft = match &options.tie {
            Some(tie) => Some(Arc::clone(tie.soft())),
            None => options.more.as_mut().and_then(|more| more.soft.take()),
        };
        if let Some(trial) = options.tie.as_ref().and_then(|tie| tie.trial().cloned()) {
            options.more().trial.get_or_insert(trial);
        }
        Self {
            id,
            accepted_at,
            deadline,
            more: options.more.take(),
            cast: options.cast,
            soft,
            request: Kept::new(request),
            home,
            book: Mutex::new(None),
            fated: AtomicBool::new(false),
            state: AtomicU8::new(0),
            at: AtomicU8::new(0),
            cell: Mutex::new(if options.cast {
                Cell::Gone
            } else {
                Cell::Waiting(options.waker.take())
            }),
        }
    }

    /// The idempotency key that it came with.
    pub(crate) fn key(&self) -> Option<&Arc<str>> {
        self.more.as_ref()?.key.as_ref()
    }

    /// Which time it was accepted under its key.
    pub(crate) fn round(&self) -> u64 {
        self.more.as_ref().map_or(0, |more| more.round)
    }

    pub(crate) fn purse(&self) -> Option<&Purse> {
        self.more.as_ref()?.purse.as_ref()
    }

    /// Whether it comes with nothing that an attempt has to look at first.
    pub(crate) fn is_plain(&self) -> bool {
        self.more.as_ref().is_none_or(|more| {
            let waits = more.gate.is_some() || more.recovered;
            !waits && more.purse.is_none() && more.trial.is_none()
        })
    }

    /// Whether the process ends with it in hand, if an earlier one has left it or the one that asked for it.
    pub(crate) fn trial(&self) -> Option<&Trying> {
        self.more.as_ref()?.trial.as_ref()
    }

    /// A book that says what earlier processes have returned for this request.
    fn booked(&self, mut book: Box<Book>) -> Box<Book> {
        if let Some(more) = self.more.as_ref().filter(|more| !more.back.is_none()) {
            book.rolled_back = more.back.own;
            if let Some(at) = &more.back.widest {
                book.widened = Some(Box::new((Some(at.clone()), Vec::new())));
            }
        }
        book
    }

    /// What it waits for before anything is done about it, if it is durable.
    pub(crate) fn gate(&self) -> Option<&Arc<Gate>> {
        self.more.as_ref()?.gate.as_ref()
    }

    /// What it has spent in other processes.
    pub(crate) fn before(&self) -> Budgets {
        self.more.as_ref().map_or_else(Budgets::default, |more| more.before)
    }

    /// Whom its answer is of use to also after its fate.
    pub(crate) fn late(&self) -> Option<&Arc<Late>> {
        self.more.as_ref()?.late.as_ref()
    }

    /// Whether its asker, should it be cut short, asks for it again under the same key.
    pub(crate) fn is_joined(&self) -> bool {
        self.more.as_ref().is_some_and(|more| more.joined)
    }

    /// Whether another request asked for this one: what its ladder cannot mend, that one judges.
    pub(crate) const fn is_nested(&self) -> bool {
        self.soft.is_some()
    }

    /// The soft failures of its task, as far as they are known outside of the attempt.
    pub(crate) fn soft(&self) -> Option<Soft> {
        self.soft.clone().or_else(|| self.book()?.soft.clone())
    }

    /// Takes the right to end this request: true for the first who asks. One without a group is asked
    /// for under the lock of its slot only, and needs no operation that is atomic as a whole.
    pub(crate) fn claim(&self) -> bool {
        if self.home.is_some() {
            return !self.fated.swap(true, Ordering::AcqRel);
        }
        let first = !self.fated.load(Ordering::Acquire);
        self.fated.store(true, Ordering::Release);
        first
    }

    pub(crate) fn set_member(&self, member: usize) {
        self.at.store(member as u8, Ordering::Relaxed);
    }

    pub(crate) fn member(&self) -> usize {
        self.at.load(Ordering::Relaxed) as usize
    }

    pub(crate) fn is_fated(&self) -> bool {
        self.fated.load(Ordering::Acquire)
    }

    pub(crate) fn note_journaled(&self) {
        self.state.fetch_or(JOURNALED, Ordering::AcqRel);
    }

    pub(crate) fn forget_journaled(&self) {
        self.state.fetch_and(!JOURNALED, Ordering::AcqRel);
    }

    pub(crate) fn is_journaled(&self) -> bool {
        self.state.load(Ordering::Acquire) & JOURNALED != 0
    }

    /// From here on its fate is what comes of its answer, which goes into the journal if it is `recorded`.
    pub(crate) fn note_answering(&self, recorded: bool) {
        let journaled = if recorded { JOURNALED } else { 0 };
        self.state.fetch_or(ANSWERING | journaled, Ordering::AcqRel);
    }

    /// That answer does not count.
    pub(crate) fn forget_answer(&self) {
        self.state.fetch_and(!(ANSWERING | JOURNALED), Ordering::AcqRel);
    }

    pub(crate) fn is_answering(&self) -> bool {
        self.state.load(Ordering::Acquire) & ANSWERING != 0
    }

    /// Its caller hears now that the deadline has passed, and its fate follows.
    pub(crate) fn note_told(&self) {
        self.state.fetch_or(TOLD, Ordering::AcqRel);
    }

    pub(crate) fn was_told(&self) -> bool {
        self.state.load(Ordering::Acquire) & TOLD != 0
    }

    pub(crate) fn note_given_up(&self) {
        self.state.fetch_or(GIVEN_UP, Ordering::AcqRel);
    }

    pub(crate) fn is_given_up(&self) -> bool {
        self.state.load(Ordering::Acquire) & GIVEN_UP != 0
    }

    /// What has failed on its way; there from the first failure on.
    pub(crate) fn book(&self) -> Option<BookLock<'_>> {
        // Most requests never lock it.
        if self.state.load(Ordering::Acquire) & BOOKED == 0 {
            return None;
        }
        MutexGuard::try_map(self.book.lock(), |book| book.as_deref_mut()).ok()
    }

    /// Whether nobody knows what became of its effect, while it waits for a person.
    pub(crate) fn is_unknown(&self) -> bool {
        self.book().is_some_and(|book| book.is_unknown())
    }

    /// The fate of this request when it ends so.
    #[inline]
    pub(crate) fn ends_as(&self, fate: Fate) -> Fate {
        match fate {
            // Of a cast nobody hears anyway.
            Fate::Done if self.is_cancelled() || self.was_told() && !self.cast => Fate::Unheard,
            // What ends a person's time to decide must not say that it may be repeated.
            Fate::Expired | Fate::Cancelled | Fate::Stopped if self.is_unknown() => Fate::Unknown,
            fate => fate,
        }
    }

    /// The same, opened by this failure of that member unless an earlier one did.
    pub(crate) fn open_book(&self, member: usize, delivery: crate::id::Delivery) -> BookLock<'_> {
        let book = self.book.lock();
        self.state.fetch_or(BOOKED, Ordering::AcqRel);
        MutexGuard::map(book, |book| {
            &mut **book.get_or_insert_with(|| self.booked(Book::new(member, delivery)))
        })
    }

    /// It was handed out under this number, without failing: nothing is known against any member.
    pub(crate) fn note_hand_out(&self, delivery: crate::id::Delivery) {
        let mut book = self.book.lock();
        self.state.fetch_or(BOOKED, Ordering::AcqRel);
        let book = book.get_or_insert_with(|| self.booked(Book::interrupted(delivery)));
        book.deliveries = book.deliveries.max(delivery);
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.state.load(Ordering::Acquire) & CANCELLED != 0
    }

    /// Tells the caller, who may have left. Not to be called under a lock: it wakes the caller, and
    /// drops what nobody hears.
    pub(crate) fn deliver(&self, outcome: Result<Answer<R>, CallError<Q>>) {
        self.fill(Cell::Whole(Box::new(outcome)));
    }

    /// The same, of an answer at the first attempt that is neither degraded nor has a cost.
    #[inline]
    pub(crate) fn reply(&self, value: R, by: ChildPath, elapsed: Duration) {
        self.fill(Cell::Plain(value, by, elapsed));
    }

    #[inline]
    fn fill(&self, outcome: Cell<Q, R>) {
        let mut cell = self.cell.lock();
        match &mut *cell {
            Cell::Waiting(waker) => {
                let waker = waker.take();
                *cell = outcome;
                drop(cell);
                if let Some(waker) = waker {
                    waker.wake();
                }
                return;
            }
            Cell::Held(_, said @ None) => {
                *said = Some(Box::new(outcome));
                return;
            }
            _ => drop(cell),
        }
        // The user's reply, dropped in the runtime's own task.
        let _ = dropped(outcome);
    }

    /// Its caller hears nothing until what this returns is dropped; `None` when he has heard, has left, or
    /// is held already.
    pub(crate) fn hold(self: &Arc<Self>) -> Option<Hold<Q, R>> {
        let mut cell = self.cell.lock();
        let Cell::Waiting(waker) = &mut *cell else { return None };
        let waker = waker.take();
        *cell = Cell::Held(waker, None);
        Some(Hold(Arc::clone(self)))
    }

    /// Hands the request back to a caller whose message was not accepted.
    pub(crate) fn into_request(self) -> Q {
        self.request.into_inner()
    }
}

/// See [`Envelope::hold`].
pub(crate) struct Hold<Q, R>(Arc<Envelope<Q, R>>);

impl<Q, R> Drop for Hold<Q, R> {
    fn drop(&mut self) {
        let mut cell = self.0.cell.lock();
        let Cell::Held(waker, said) = &mut *cell else { return };
        let waker = waker.take();
        let Some(said) = said.take() else {
            *cell = Cell::Waiting(waker);
            return;
        };
        *cell = *said;
        drop(cell);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
