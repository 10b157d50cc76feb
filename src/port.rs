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
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;

use crate::error::{CallError, NeedError};
use crate::fate::{Answer, Fate};
use crate::fault::{Class, Fault};
use crate::id::{ChildPath, RequestId};
use crate::mirror::CircuitView;
use crate::moment::Moment;
use crate::policy::budget::{Limits, Purse};
use crate::policy::eligibility::{Candidate, GroupKind};
use crate::policy::history::History;

mod flight;

pub(crate) use flight::{Cut, Flight, Paused, Tie};

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

    fn exchange(&self, message: Q, options: AcceptOptions) -> Waiting<'_, Q, R> {
        let target = &self.target;
        Waiting { target, message: Some((message, options)), envelope: None, pause: None }
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
        let envelope = self.target.accept(message.into(), options)?;
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
        Call::new(self.path().clone(), move |tie| {
            Box::pin(async move {
                // The step waits for its calls as a whole, so the pause of the attempt clock is the
                // runtime's, and only what the answer says is passed on here.
                let options = AcceptOptions::new(options, Some(Arc::clone(&tie)));
                let envelope = port.target.accept(message, options).map_err(Fault::from)?;
                let target = &port.target;
                let waiting =
                    Waiting { target, message: None, envelope: Some(envelope), pause: None };
                if !port.target.is_replay_safe() {
                    tie.taint();
                }
                let answer = waiting.await.map_err(Fault::from)?;
                tie.note(&answer);
                Ok(answer.map(|value| Box::new(value) as Box<dyn Any + Send + Sync>))
            })
        })
    }
}

type Making = Pin<Box<dyn Future<Output = Outcome> + Send>>;

pub(crate) type Outcome = Result<Answer<Box<dyn Any + Send + Sync>>, Fault>;

/// A call to another child that the runtime makes for a step. Made by
/// [`Port::ask`].
#[must_use = "a call is made only when it is returned in `Step::Perform`"]
pub struct Call {
    target: ChildPath,
    make: Box<dyn FnOnce(Arc<Tie>) -> Making + Send>,
}

impl Call {
    pub(crate) fn new(
        target: ChildPath,
        make: impl FnOnce(Arc<Tie>) -> Making + Send + 'static,
    ) -> Self {
        Self { target, make: Box::new(make) }
    }

    /// Whom it calls.
    pub fn target(&self) -> &ChildPath {
        &self.target
    }

    pub(crate) fn make(self, tie: Arc<Tie>) -> Making {
        (self.make)(tie)
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
    /// Whether asking twice does no harm.
    fn is_replay_safe(&self) -> bool;
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
    /// The last fault, for the error at the end of the ladder.
    pub(crate) fault: Option<Fault>,
}

/// A request on its way: what was asked, until when, and who waits for it.
pub(crate) struct Envelope<Q, R> {
    pub(crate) id: RequestId,
    pub(crate) accepted_at: Moment,
    pub(crate) deadline: Moment,
    pub(crate) key: Option<Arc<str>>,
    pub(crate) purse: Option<Purse>,
    pub(crate) cast: bool,
    pub(crate) request: Q,
    pub(crate) home: Option<Arc<dyn Home<Q, R>>>,
    pub(crate) book: Mutex<Option<Box<Book>>>,
    state: AtomicU8,
    /// The member of the group that has it.
    at: AtomicU8,
    cell: Mutex<Cell<Q, R>>,
}

const FATED: u8 = 1;
const CANCELLED: u8 = 2;
const BOOKED: u8 = 4;

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
            request,
            home,
            book: Mutex::new(None),
            state: AtomicU8::new(0),
            at: AtomicU8::new(0),
            cell: Mutex::new(if options.cast { Cell::Gone } else { Cell::Waiting(options.waker) }),
        }
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

    /// Whether anything has failed so far. Most requests never lock their book.
    pub(crate) fn has_book(&self) -> bool {
        self.state.load(Ordering::Acquire) & BOOKED != 0
    }

    /// Says that there is a book from now on. To be called with the book locked.
    pub(crate) fn opened_book(&self) {
        self.state.fetch_or(BOOKED, Ordering::AcqRel);
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
        drop(unheard);
    }

    /// Hands the request back to a caller whose message was not accepted.
    pub(crate) fn into_request(self) -> Q {
        self.request
    }
}

/// A caller waiting for the fate of its request. Written by hand: an async function around it would
/// move each answer once more, and a waker that comes with the message needs no lock.
struct Waiting<'a, Q: Send + Sync + 'static, R: Send + 'static> {
    target: &'a Arc<dyn Accept<Q, R>>,
    /// What the first poll hands over.
    message: Option<(Q, AcceptOptions)>,
    envelope: Option<Arc<Envelope<Q, R>>>,
    /// The clock of the attempt that calls, which stands still meanwhile.
    pause: Option<Paused>,
}

// Nothing in it is ever pinned.
impl<Q: Send + Sync + 'static, R: Send + 'static> Unpin for Waiting<'_, Q, R> {}

impl<Q: Send + Sync + 'static, R: Send + 'static> Future for Waiting<'_, Q, R> {
    type Output = Result<Answer<R>, CallError<Q>>;

    fn poll(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Self::Output> {
        if let Some((message, mut options)) = self.message.take() {
            let tie = options.tie.clone();
            options.waker = Some(task.waker().clone());
            match self.target.accept(message, options) {
                Ok(envelope) => self.envelope = Some(envelope),
                Err(refused) => return Poll::Ready(Err(refused)),
            }
            if let Some(tie) = tie {
                if !self.target.is_replay_safe() {
                    tie.taint();
                }
                self.pause = Some(tie.pause());
            }
            return Poll::Pending;
        }
        let Some(envelope) = &self.envelope else { return Poll::Pending };
        let outcome = {
            let mut cell = envelope.cell.lock();
            match &mut *cell {
                Cell::Waiting(Some(waker)) if waker.will_wake(task.waker()) => {
                    return Poll::Pending;
                }
                Cell::Waiting(waker) => {
                    *waker = Some(task.waker().clone());
                    return Poll::Pending;
                }
                Cell::Ready(_) => std::mem::replace(&mut *cell, Cell::Gone),
                Cell::Gone => return Poll::Pending,
            }
        };
        self.envelope = None;
        let pause = self.pause.take();
        match outcome {
            Cell::Ready(outcome) => {
                if let (Some(pause), Ok(answer)) = (pause, &outcome) {
                    pause.tie().note(answer);
                }
                Poll::Ready(outcome)
            }
            Cell::Waiting(_) | Cell::Gone => Poll::Pending,
        }
    }
}

impl<Q: Send + Sync + 'static, R: Send + 'static> Drop for Waiting<'_, Q, R> {
    fn drop(&mut self) {
        if let Some(envelope) = self.envelope.take() {
            envelope.state.fetch_or(CANCELLED, Ordering::AcqRel);
            let left = std::mem::replace(&mut *envelope.cell.lock(), Cell::Gone);
            drop(left);
            self.target.cancel(&envelope);
        }
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
