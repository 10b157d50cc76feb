//! Something that answers: what behaviors are handed, and what references to children and groups
//! are made of.
//!
//! *Invariant.* A port reaches a mailbox, never an actor. It stays valid over every restart.

use std::any::{Any, TypeId, type_name};
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{CallError, NeedError, Unavailable};
use crate::fate::{Answer, Cost, Fate};
use crate::fault::{Class, EffectKind};
use crate::id::{ChildPath, RequestId};
use crate::mirror::CircuitView;
use crate::moment::Moment;
use crate::policy::budget::Limits;
use crate::policy::eligibility::{Candidate, GroupKind};
use crate::policy::history::History;

mod act;
mod asking;
mod envelope;
mod copies;
mod flight;
mod gate;
mod kept;
mod late;
mod options;
mod replay;
mod trial;
mod waiting;

pub(crate) use act::{Act, Decode, Encode, NotUndone, Reply, Unanswered};
pub use act::{Effect, Verified};
pub use asking::Call;
pub(crate) use asking::{AnyReply, Left, Making, Outcome, Question, Reading};
pub(crate) use envelope::{Book, Envelope, Hold};
pub(crate) use flight::{Cut, Flight, Soft, Tie};
pub(crate) use gate::{Gate, Recording};
pub(crate) use kept::{Kept, dropped, panic_text, unwound, unwound_here};
pub(crate) use late::Late;
pub(crate) use options::{AcceptOptions, More, UNDO};
pub(crate) use replay::{Replayed, is_replayed};
pub(crate) use trial::{Back, Trial, Trying, Turning};
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
    /// The idempotency key: the name of this task in the whole system, whoever is asked. Two children that are
    /// asked under the same key are taken for two parts of one task: of durable ones the second is refused as
    /// [`Unavailable::Duplicate`], and the same effect at the same place of both is done once.
    ///
    /// # Limits
    /// For durable children and groups 1 to 4,096 bytes ([`Unavailable::BadKey`]). Keys that begin with `undo-` are
    /// those of undos, and are refused ([`Unavailable::ReservedKey`]).
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
        Ok(self.target.accept(message, &mut options)?.id)
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
        let envelope = accept(&*self.target, message.into(), &mut options)?;
        Ok(Receipt { request: envelope.id })
    }

    /// [`Port::cast`] that returns once the request is durable: from then on it survives the process.
    /// For a child that is not [durable](crate::spec::ChildSpec::durable), the same as
    /// [`Port::cast_with`].
    ///
    /// Under a key that was accepted before, by whatever durable child and in whatever process, it is refused as
    /// [`Unavailable::Duplicate`]: the other one stands.
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
        let message = message.into();
        if let Some(why) = refusal(&options) {
            let child = self.path().clone();
            return Err(CallError::Refused { message, child, why });
        }
        let envelope = self.target.accept(message, &mut options)?;
        if let Some(gate) = envelope.gate()
            && let Err(error) = gate.passed().await
        {
            return Err(CallError::RecoveryExhausted {
                child: self.path().clone(),
                fault: Box::new(crate::error::failed(&error)),
                trail: crate::fate::Trail::default(),
                retry_after: None,
            });
        }
        Ok(Receipt { request: envelope.id })
    }
}

/// Accepts a call that an attempt may make. What may not be done twice is noted before it can begin,
/// since it may be over, and the attempt with it, before this returns.
fn accept<Q, R>(
    target: &dyn Accept<Q, R>,
    message: Q,
    options: &mut AcceptOptions,
) -> Result<Arc<Envelope<Q, R>>, CallError<Q>> {
    if let Some(why) = refusal(options) {
        let child = target.path().clone();
        return Err(CallError::Refused { message, child, why });
    }
    let Some(tie) = options.tie.clone().filter(|_| !target.is_replay_safe()) else {
        return target.accept(message, options);
    };
    tie.taint();
    let accepted = target.accept(message, options);
    if accepted.is_err() {
        tie.untaint();
    }
    accepted
}

/// Why nobody is asked for this.
fn refusal(options: &AcceptOptions) -> Option<Unavailable> {
    if is_replayed() {
        return Some(Unavailable::Replaying);
    }
    options.is_forged().then_some(Unavailable::ReservedKey)
}

/// What stands behind a port: a slot or a group.
pub(crate) trait Accept<Q, R>: Send + Sync {
    fn path(&self) -> &ChildPath;
    /// Accepts the message and counts it here, or gives it back. What it comes with is taken out of
    /// `options`.
    fn accept(
        &self,
        message: Q,
        options: &mut AcceptOptions,
    ) -> Result<Arc<Envelope<Q, R>>, CallError<Q>>;
    /// What asking it does to the world.
    fn effect_kind(&self) -> EffectKind;
    /// Whether asking twice does no harm.
    fn is_replay_safe(&self) -> bool {
        self.effect_kind().is_replay_safe()
    }
    /// How what is asked and answered here is read, if it survives the process: then a question that was
    /// asked before can be joined.
    fn reading(&self) -> Option<Reading>;
    /// Whether this goes on although its caller has left: the system stops, and whoever asks the next process
    /// for it again finds it there.
    fn is_left_open(&self, envelope: &Arc<Envelope<Q, R>>) -> bool;
    /// The caller has left.
    fn cancel(&self, envelope: &Arc<Envelope<Q, R>>);
    /// The caller has left, and what was begun is to be finished: takes it out, with the fate `Cancelled`, if
    /// it has never been handed out. Whether it was taken out.
    fn take_back(&self, envelope: &Arc<Envelope<Q, R>>) -> bool;
}

/// A group that an envelope belongs to. Its members tell it how the request fares with them; it knows
/// who else could serve, and counts the fate.
pub(crate) trait Home<Q, R>: Send + Sync {
    /// Whether who stands at this path is a person.
    fn is_person(&self, child: &ChildPath) -> bool;
    fn path(&self) -> &ChildPath;
    fn kind(&self) -> GroupKind;
    /// Who else could serve this request, after `member` failed.
    fn candidates(&self, history: &History, member: usize, now: Moment) -> Vec<Candidate>;
    /// `member` answered; the fate of the request is counted here, and other copies of it are called
    /// off. What those have cost so far. `flaw` is what went wrong all the same.
    fn served(
        &self,
        envelope: &Arc<Envelope<Q, R>>,
        member: usize,
        fate: Fate,
        flaw: Option<Class>,
        now: Moment,
    ) -> Cost;
    /// `member` gives the request up.
    fn gave_up(&self, request: RequestId, member: usize, class: Class, now: Moment);
    /// The request is tried again where it failed.
    fn tries_again(&self, envelope: &Arc<Envelope<Q, R>>);
    /// The request goes to another member, or waits until one has room.
    fn hand_on(&self, envelope: Arc<Envelope<Q, R>>, to: usize);
    fn wait(&self, envelope: Arc<Envelope<Q, R>>, until: Moment);
    /// The request has a fate without an answer; counted here. The caller of this delivers.
    fn ended(&self, envelope: &Arc<Envelope<Q, R>>, fate: Fate);
    /// How long until the first of its members is offered work again, when all rest.
    fn rests(&self, now: Moment) -> Option<Duration>;
    fn member_path(&self, member: usize) -> ChildPath;
    fn has_member(&self, path: &ChildPath) -> bool;
    /// How fates are written down; `None` when its requests are not durable.
    fn recording(&self) -> Option<Recording>;
    /// How the circuit of a member stands, for the dump.
    fn circuit(&self, member: usize, now: Moment) -> Option<CircuitView>;
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
