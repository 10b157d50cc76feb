//! Something that answers: what behaviors are handed, and what references to children and groups
//! are made of.
//!
//! *Invariant.* A port reaches a mailbox, never an actor. It stays valid over every restart.

use std::any::{Any, TypeId, type_name};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Waker;
use std::time::Duration;

use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};

use crate::checkpoint::Interval;
use crate::error::{CallError, NeedError};
use crate::fate::{Answer, Cost, Fate};
use crate::fault::{Class, EffectKind, Fault};
use crate::id::{ChildPath, RequestId};
use crate::mirror::CircuitView;
use crate::moment::Moment;
use crate::policy::budget::{Limits, Purse};
use crate::policy::eligibility::{Candidate, GroupKind};
use crate::policy::history::History;

mod act;
mod flight;
mod gate;
mod kept;
mod waiting;

pub(crate) use act::{Act, Reply, Trace, Unanswered};
pub use act::{Effect, Verified};
pub(crate) use flight::{Cut, Flight, Soft, Tie};
pub(crate) use gate::Gate;
pub(crate) use kept::{Kept, panic_text, unwound};
use waiting::Waiting;

/// How a call differs from its defaults.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CallOptions {
    /// The time it may take in all, from acceptance.
    ///
    /// # Default
    /// `None`: what the child's spec says; within a supervised attempt, at most what is left of it.
    pub deadline: Option<Duration>,
    /// The idempotency key.
    ///
    /// # Default
    /// `None`: one made from the request's id.
    pub key: Option<String>,
    /// What it may cost in attempts, tokens, money and time.
    ///
    /// # Default
    /// `None`: no limit of its own; within a supervised attempt, that of the attempt.
    pub budget: Option<Limits>,
}

impl CallOptions {
    /// Every option at its default.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`CallOptions::deadline`].
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Sets [`CallOptions::key`].
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets [`CallOptions::budget`].
    #[must_use]
    pub fn budget(mut self, budget: Limits) -> Self {
        self.budget = Some(budget);
        self
    }
}

/// Proof that a [`cast`](Port::cast) was accepted; ask
/// [`System::fate`](crate::system::System::fate) what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Receipt {
    /// The request.
    pub request: RequestId,
}

/// Something that takes `Q` and answers `R`: a child or a group. Cheap to clone.
pub struct Port<Q, R> {
    target: Arc<dyn Accept<Q, R>>,
    tie: Option<Arc<Tie>>,
}

impl<Q, R> Clone for Port<Q, R> {
    fn clone(&self) -> Self {
        Self { target: Arc::clone(&self.target), tie: self.tie.clone() }
    }
}

impl<Q, R> fmt::Debug for Port<Q, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Port").field(self.target.path()).finish()
    }
}

impl<Q: Send + Sync + 'static, R: Send + 'static> Port<Q, R> {
    pub(crate) fn new(target: Arc<dyn Accept<Q, R>>) -> Self {
        Self { target, tie: None }
    }

    pub(crate) fn tied(&self, tie: Arc<Tie>) -> Self {
        Self { target: Arc::clone(&self.target), tie: Some(tie) }
    }

    /// The path of the child or group.
    pub fn path(&self) -> &ChildPath {
        self.target.path()
    }

    /// Asks, and waits for the answer.
    ///
    /// There is always a deadline for a stateless child or a group: its worst-case retry schedule.
    /// A stateful child has none in total, but a limit for each step. Dropping the future calls the
    /// request off at the next safe point.
    ///
    /// # Errors
    /// [`CallError::Full`] and [`CallError::Refused`] give the message back; everything else is the
    /// fate of an accepted request.
    pub fn call(
        &self,
        message: impl Into<Q>,
    ) -> impl Future<Output = Result<Answer<R>, CallError<Q>>> + Send {
        let options = AcceptOptions { tie: self.tie.clone(), ..AcceptOptions::default() };
        self.exchange(message.into(), options)
    }

    /// [`Port::call`] with options.
    ///
    /// # Errors
    /// As [`Port::call`].
    pub fn call_with(
        &self,
        message: impl Into<Q>,
        options: CallOptions,
    ) -> impl Future<Output = Result<Answer<R>, CallError<Q>>> + Send {
        self.exchange(message.into(), AcceptOptions::new(options, self.tie.clone()))
    }

    /// Hands a message over that nobody here waits for.
    pub(crate) fn post(
        &self,
        message: Q,
        mut options: AcceptOptions,
    ) -> Result<RequestId, CallError<Q>> {
        options.cast = true;
        Ok(self.target.accept(message, options)?.id)
    }

    pub(crate) fn exchange(
        &self,
        message: Q,
        options: AcceptOptions,
    ) -> impl Future<Output = Result<Answer<R>, CallError<Q>>> + Send {
        Waiting::calling(&self.target, message, options)
    }

    /// Hands the message over and returns once it is accepted.
    ///
    /// # Errors
    /// [`CallError::Full`] and [`CallError::Refused`], with the message.
    pub fn cast(&self, message: impl Into<Q>) -> Result<Receipt, CallError<Q>> {
        self.cast_with(message, CallOptions::default())
    }

    /// [`Port::cast`] with options.
    ///
    /// # Errors
    /// As [`Port::cast`].
    pub fn cast_with(
        &self,
        message: impl Into<Q>,
        options: CallOptions,
    ) -> Result<Receipt, CallError<Q>> {
        let mut options = AcceptOptions::new(options, self.tie.clone());
        options.cast = true;
        let envelope = accept(&*self.target, message.into(), options)?;
        Ok(Receipt { request: envelope.id })
    }

    /// [`Port::cast`] that returns once the request is durable: from then on it survives the process.
    /// For a child that is not [durable](crate::spec::ChildSpec::durable), the same as
    /// [`Port::cast_with`].
    ///
    /// Under a key that this child has accepted before, in whatever process, it is refused as
    /// [`Unavailable::Duplicate`](crate::error::Unavailable::Duplicate): the other one stands.
    ///
    /// # Errors
    /// As [`Port::cast`]; and [`CallError::RecoveryExhausted`] with the code `store` when the journal
    /// cannot be written. The request then ends without anything being done for it.
    pub async fn submit(
        &self,
        message: impl Into<Q>,
        options: CallOptions,
    ) -> Result<Receipt, CallError<Q>> {
        let mut options = AcceptOptions::new(options, self.tie.clone());
        options.cast = true;
        let envelope = self.target.accept(message.into(), options)?;
        if let Some(gate) = &envelope.gate
            && let Err(error) = gate.passed().await
        {
            return Err(CallError::RecoveryExhausted {
                child: self.path().clone(),
                fault: Box::new(crate::error::failed(&error)),
                trail: crate::fate::Trail::default(),
            });
        }
        Ok(Receipt { request: envelope.id })
    }

    /// The call for a step to return in `Step::Perform`.
    pub fn ask(&self, message: impl Into<Q>) -> Call
    where
        R: Sync,
    {
        self.ask_with(message, CallOptions::default())
    }

    /// [`Port::ask`] with options.
    pub fn ask_with(&self, message: impl Into<Q>, options: CallOptions) -> Call
    where
        R: Sync,
    {
        let port = Self { target: Arc::clone(&self.target), tie: None };
        let message = message.into();
        Call::new(self.path().clone(), move |tie, _| {
            act::boxed(async move {
                // The step waits for its calls as a whole, so the pause of the attempt clock is the
                // runtime's, and only what the answer says is passed on here.
                let options = AcceptOptions::new(options, Some(Arc::clone(&tie)));
                let envelope = accept(&*port.target, message, options).map_err(Unanswered::from)?;
                let answer =
                    Waiting::accepted(&port.target, envelope).await.map_err(Unanswered::from)?;
                tie.note(&answer);
                Ok(answer.map(|value| Box::new(value) as Reply))
            })
        })
    }
}

/// Accepts a call that an attempt may make. What may not be done twice is noted before it can begin,
/// since it may be over, and the attempt with it, before this returns.
fn accept<Q, R>(
    target: &dyn Accept<Q, R>,
    message: Q,
    options: AcceptOptions,
) -> Result<Arc<Envelope<Q, R>>, CallError<Q>> {
    let tie = options.tie.clone().filter(|_| !target.is_replay_safe());
    if let Some(tie) = &tie {
        tie.taint();
    }
    let accepted = target.accept(message, options);
    if let (Err(_), Some(tie)) = (&accepted, &tie) {
        tie.untaint();
    }
    accepted
}

pub(crate) type Making = Pin<Box<dyn Future<Output = Result<Answer<Reply>, Unanswered>> + Send>>;

type Make = Box<dyn FnOnce(Arc<Tie>, Option<Arc<str>>) -> Making + Send>;

pub(crate) type Outcome = Result<Answer<Reply>, Fault>;

/// A call to another child that the runtime makes for a step. Made by [`Port::ask`], or from an
/// [`Effect`].
#[must_use = "a call is made only when it is returned in `Step::Perform`"]
pub struct Call {
    target: ChildPath,
    make: Make,
    pub(crate) act: Option<Box<Act>>,
}

impl Call {
    pub(crate) fn new(
        target: ChildPath,
        make: impl FnOnce(Arc<Tie>, Option<Arc<str>>) -> Making + Send + 'static,
    ) -> Self {
        Self { target, make: Box::new(make), act: None }
    }

    /// Whom it calls.
    pub fn target(&self) -> &ChildPath {
        &self.target
    }

    /// Whether it is an effect before which the state is stored.
    pub(crate) fn is_act(&self, interval: &Interval) -> bool {
        self.act
            .as_ref()
            .is_some_and(|act| *interval == Interval::EveryEffect || !act.kind.is_replay_safe())
    }

    /// Makes the call, with this idempotency key if it is an effect.
    pub(crate) fn make(self, tie: Arc<Tie>, key: Option<Arc<str>>) -> Making {
        (self.make)(tie, key)
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("target", &self.target).finish_non_exhaustive()
    }
}

/// What stands behind a port: a slot or a group.
pub(crate) trait Accept<Q, R>: Send + Sync {
    fn path(&self) -> &ChildPath;
    /// Accepts the message and counts it here, or gives it back.
    fn accept(
        &self,
        message: Q,
        options: AcceptOptions,
    ) -> Result<Arc<Envelope<Q, R>>, CallError<Q>>;
    /// What asking it does to the world.
    fn effect_kind(&self) -> EffectKind;
    /// Whether asking twice does no harm.
    fn is_replay_safe(&self) -> bool {
        self.effect_kind().is_replay_safe()
    }
    /// The caller has left.
    fn cancel(&self, envelope: &Arc<Envelope<Q, R>>);
}

/// [`CallOptions`] and what comes with a call inside the runtime.
#[derive(Default)]
pub(crate) struct AcceptOptions {
    pub(crate) deadline: Option<Duration>,
    pub(crate) key: Option<Arc<str>>,
    pub(crate) budget: Option<Box<Limits>>,
    pub(crate) tie: Option<Arc<Tie>>,
    pub(crate) cast: bool,
    /// Who is to be woken with the answer, if that is known already.
    pub(crate) waker: Option<Waker>,
    /// It stands in the journal already.
    pub(crate) recovered: bool,
    pub(crate) gate: Option<Arc<Gate>>,
}

impl AcceptOptions {
    fn new(options: CallOptions, tie: Option<Arc<Tie>>) -> Self {
        Self {
            deadline: options.deadline,
            key: options.key.map(Arc::from),
            budget: options.budget.map(Box::new),
            tie,
            cast: false,
            waker: None,
            recovered: false,
            gate: None,
        }
    }
}

/// A group that an envelope belongs to. Its members tell it how the request fares with them; it knows
/// who else could serve, and counts the fate.
pub(crate) trait Home<Q, R>: Send + Sync {
    fn path(&self) -> &ChildPath;
    fn kind(&self) -> GroupKind;
    /// Who else could serve this request, after `member` failed.
    fn candidates(&self, history: &History, member: usize, now: Moment) -> Vec<Candidate>;
    /// `member` answered; the fate of the request is counted here.
    fn served(&self, envelope: &Arc<Envelope<Q, R>>, member: usize, fate: Fate, now: Moment);
    /// `member` gives the request up.
    fn gave_up(&self, request: RequestId, member: usize, class: Class, now: Moment);
    /// The request goes to another member, or waits until one has room.
    fn hand_on(&self, envelope: Arc<Envelope<Q, R>>, to: usize);
    fn wait(&self, envelope: Arc<Envelope<Q, R>>, until: Moment);
    /// The request has a fate without an answer; counted here. The caller of this delivers.
    fn ended(&self, envelope: &Arc<Envelope<Q, R>>, fate: Fate);
    fn member_path(&self, member: usize) -> ChildPath;
    /// How the circuit of a member stands, for the dump.
    fn circuit(&self, member: usize, now: Moment) -> Option<CircuitView>;
}

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
    /// The last fault, for the error at the end of the ladder.
    pub(crate) fault: Option<Fault>,
    /// The soft failures of its task, when this is the request that the task is.
    pub(crate) soft: Option<Soft>,
    /// What the next attempt is told, whoever makes it: the last feedback there was.
    pub(crate) feedback: Option<Arc<str>>,
}

impl Book {
    /// Nothing yet, but that this member of the group has had the request as this hand-out.
    pub(crate) fn new(member: usize, delivery: crate::id::Delivery) -> Box<Self> {
        Box::new(Self {
            history: History::starting_at(member),
            trail: crate::fate::Trail::default(),
            deliveries: delivery,
            tainted: false,
            spent: Cost::default(),
            rolled_back: false,
            fault: None,
            soft: None,
            feedback: None,
        })
    }
}

/// A book, locked.
pub(crate) type BookLock<'a> = MappedMutexGuard<'a, Book>;

/// A request on its way: what was asked, until when, and who waits for it.
pub(crate) struct Envelope<Q, R> {
    pub(crate) id: RequestId,
    pub(crate) accepted_at: Moment,
    pub(crate) deadline: Moment,
    pub(crate) key: Option<Arc<str>>,
    pub(crate) purse: Option<Purse>,
    pub(crate) cast: bool,
    /// What a durable request waits for before anything is done about it.
    pub(crate) gate: Option<Arc<Gate>>,
    /// The soft failures of the task of another request that asked for this one.
    soft: Option<Soft>,
    pub(crate) request: Kept<Q>,
    pub(crate) home: Option<Arc<dyn Home<Q, R>>>,
    book: Mutex<Option<Box<Book>>>,
    state: AtomicU8,
    /// The member of the group that has it.
    at: AtomicU8,
    cell: Mutex<Cell<Q, R>>,
}

const FATED: u8 = 1;
const CANCELLED: u8 = 2;
/// Its fate is in the journal, or on its way there.
const JOURNALED: u8 = 4;
/// Something has failed.
const BOOKED: u8 = 8;

enum Cell<Q, R> {
    Waiting(Option<Waker>),
    Ready(Result<Answer<R>, CallError<Q>>),
    Gone,
}

impl<Q, R> Envelope<Q, R> {
    pub(crate) fn new(
        id: RequestId,
        accepted_at: Moment,
        deadline: Moment,
        options: AcceptOptions,
        home: Option<Arc<dyn Home<Q, R>>>,
        request: Q,
    ) -> Self {
        let inherited = options.tie.as_ref().and_then(|tie| tie.purse.clone());
        let purse = match (options.budget, inherited) {
            (Some(own), Some(parent)) => Some(parent.child(*own)),
            (Some(own), None) => Some(Purse::new(*own)),
            (None, parent) => parent,
        };
        Self {
            id,
            accepted_at,
            deadline,
            key: options.key,
            purse,
            cast: options.cast,
            gate: options.gate,
            soft: options.tie.as_ref().map(|tie| Arc::clone(&tie.soft)),
            request: Kept::new(request),
            home,
            book: Mutex::new(None),
            state: AtomicU8::new(0),
            at: AtomicU8::new(0),
            cell: Mutex::new(if options.cast { Cell::Gone } else { Cell::Waiting(options.waker) }),
        }
    }

    /// Whether another request asked for this one: what its ladder cannot mend, that one judges.
    pub(crate) const fn is_nested(&self) -> bool {
        self.soft.is_some()
    }

    /// The group it was asked of, if it was.
    pub(crate) fn home_path(&self) -> Option<&ChildPath> {
        self.home.as_ref().map(|home| home.path())
    }

    /// The soft failures of its task, as far as they are known outside of the attempt.
    pub(crate) fn soft(&self) -> Option<Soft> {
        self.soft.clone().or_else(|| self.book()?.soft.clone())
    }

    /// Takes the right to end this request: true for the first who asks.
    pub(crate) fn claim(&self) -> bool {
        self.state.fetch_or(FATED, Ordering::AcqRel) & FATED == 0
    }

    pub(crate) fn set_member(&self, member: usize) {
        self.at.store(member as u8, Ordering::Relaxed);
    }

    pub(crate) fn member(&self) -> usize {
        self.at.load(Ordering::Relaxed) as usize
    }

    pub(crate) fn is_fated(&self) -> bool {
        self.state.load(Ordering::Acquire) & FATED != 0
    }

    pub(crate) fn note_journaled(&self) {
        self.state.fetch_or(JOURNALED, Ordering::AcqRel);
    }

    pub(crate) fn is_journaled(&self) -> bool {
        self.state.load(Ordering::Acquire) & JOURNALED != 0
    }

    /// What has failed on its way; there from the first failure on.
    pub(crate) fn book(&self) -> Option<BookLock<'_>> {
        // Most requests never lock it.
        if self.state.load(Ordering::Acquire) & BOOKED == 0 {
            return None;
        }
        MutexGuard::try_map(self.book.lock(), |book| book.as_deref_mut()).ok()
    }

    /// The same, opened by this failure of that member unless an earlier one did.
    pub(crate) fn open_book(&self, member: usize, delivery: crate::id::Delivery) -> BookLock<'_> {
        let book = self.book.lock();
        self.state.fetch_or(BOOKED, Ordering::AcqRel);
        MutexGuard::map(book, |book| &mut **book.get_or_insert_with(|| Book::new(member, delivery)))
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.state.load(Ordering::Acquire) & CANCELLED != 0
    }

    /// Tells the caller, who may have left. Not to be called under a lock: it wakes the caller, and
    /// drops what nobody hears.
    pub(crate) fn deliver(&self, outcome: Result<Answer<R>, CallError<Q>>) {
        let mut unheard = Some(outcome);
        let waker = {
            let mut cell = self.cell.lock();
            match &mut *cell {
                Cell::Waiting(waker) => {
                    let waker = waker.take();
                    if let Some(outcome) = unheard.take() {
                        *cell = Cell::Ready(outcome);
                    }
                    waker
                }
                Cell::Ready(_) | Cell::Gone => None,
            }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        if unheard.is_some() {
            // The user's reply, dropped in the runtime's own task.
            let _ = unwound(move || drop(unheard));
        }
    }

    /// Hands the request back to a caller whose message was not accepted.
    pub(crate) fn into_request(self) -> Q {
        self.request.into_inner()
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A type that can be declared as a need: [`Port`]. Sealed.
pub trait PortType: sealed::Sealed + 'static {}

impl<Q, R> sealed::Sealed for Port<Q, R> {}
impl<Q: 'static, R: 'static> PortType for Port<Q, R> {}

/// The children and groups a behavior calls, with their types.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs(pub(crate) Vec<Need>);

/// One declared need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) name: String,
    pub(crate) port: TypeId,
    pub(crate) type_name: &'static str,
}

impl Needs {
    /// Needs nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// Also needs a port of this type under this name: the id of a child or group beside it or above
    /// it, nearest first, or a whole path.
    #[must_use]
    pub fn needs<P: PortType>(mut self, name: impl Into<String>) -> Self {
        self.0.push(Need {
            name: name.into(),
            port: TypeId::of::<P>(),
            type_name: type_name::<P>(),
        });
        self
    }
}

/// The ports of a child, resolved.
#[derive(Default)]
pub(crate) struct PortTable(pub(crate) Vec<(Need, Arc<dyn Any + Send + Sync>)>);

impl PortTable {
    pub(crate) fn get<Q: Send + Sync + 'static, R: Send + 'static>(
        &self,
        name: &str,
    ) -> Result<&Port<Q, R>, NeedError> {
        let (need, port) = self
            .0
            .iter()
            .find(|(need, _)| need.name == name)
            .ok_or_else(|| NeedError::Undeclared(name.to_owned()))?;
        port.downcast_ref().ok_or_else(|| NeedError::WrongType {
            need: name.to_owned(),
            declared: need.type_name,
            wanted: type_name::<Port<Q, R>>(),
        })
    }
}
