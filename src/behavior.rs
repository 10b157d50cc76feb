//! The user's code: what a child does with a request.
//!
//! A behavior is either [`Stateless`], many attempts at a time on `&self`, or [`Stateful`], one
//! request at a time in steps on `&mut self`. Both borrow the request, so that a failed attempt can
//! never take it along.
//!
//! *Invariant.* A behavior sees its request, its [`Context`], and the ports it declared. It cannot
//! reach an actor, another child's state, or the supervisor.

use std::any::type_name;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::checkpoint::{Schema, Snapshot};
use crate::error::{CheckpointError, NeedError};
use crate::event::Event;
use crate::fate::{Answer, Cost};
use crate::fault::{Class, EffectKind, ExitCause, Fault};
use crate::id::{CheckpointId, ChildPath, Delivery, EffectKey, RequestId};
use crate::moment::Moment;
use crate::policy::budget::{Limits, Purse};
use crate::policy::eligibility::Role;
pub use crate::port::Call;
use crate::port::{Flight, Needs, Outcome, Port, Soft, Tie};
pub use hold::Hold;
pub(crate) use hold::{Doing, Seat, Undoes};

mod hold;

/// What every behavior says about itself: the types it takes and gives, what it needs, and what its
/// work does to the world.
pub trait Behavior: Sized + Send + 'static {
    /// What it is asked. Behaviors borrow it; it is kept until the request has a fate.
    type Request: Send + Sync + 'static;
    /// What it answers.
    type Reply: Send + 'static;

    /// What one execution does to the world, unless the child's spec says otherwise.
    ///
    /// # Default
    /// `None`: [`EffectKind::Pure`] for a [`Stateful`] behavior, whose steps yield and do not act;
    /// [`EffectKind::Irreversible`] for a [`Stateless`] one, which is then not repeated after a
    /// timeout or a crash.
    const EFFECT: Option<EffectKind> = None;

    /// What it is in a group, unless the child's spec says otherwise.
    ///
    /// # Default
    /// [`Role::Sibling`].
    const ROLE: Role = Role::Sibling;

    /// The children and groups it calls, with their types; resolved when the system starts, beside
    /// the child first and then above it.
    ///
    /// # Default
    /// None.
    fn needs() -> Needs {
        Needs::none()
    }
}

/// A behavior without state between requests: `concurrency` attempts at a time, each an owned task
/// that fails, hangs or panics alone.
pub trait Stateless: Behavior + Sync {
    /// Called once at the start of a life, before the first request.
    ///
    /// # Errors
    /// A fault fails the start.
    fn start(&mut self, ctx: &StartContext) -> impl Future<Output = Result<(), Fault>> + Send {
        let _ = ctx;
        async { Ok(()) }
    }

    /// Answers one request.
    ///
    /// # Errors
    /// A fault ends this attempt; its class says what happens next.
    fn serve(
        &self,
        request: &Self::Request,
        ctx: &Context,
    ) -> impl Future<Output = Result<Self::Reply, Fault>> + Send;

    /// Called once when a life ends in order, within the shutdown limit; not after a panic or a kill.
    fn stop(&self, cause: &ExitCause) -> impl Future<Output = ()> + Send {
        let _ = cause;
        async {}
    }
}

/// A behavior with state, worked one request at a time in steps.
///
/// Before each step the runtime keeps a clone of the state; a step that fails or is cut short leaves
/// no trace in it. Keep large pieces behind an [`Arc`] so that the clone is a handful of counts.
pub trait Stateful: Behavior + Clone {
    /// Called once at the start of a life, before the first request.
    ///
    /// # Errors
    /// A fault fails the start.
    fn start(&mut self, ctx: &StartContext) -> impl Future<Output = Result<(), Fault>> + Send {
        let _ = ctx;
        async { Ok(()) }
    }

    /// Does one step of a request. A step should not call others or act on the world itself: it
    /// returns [`Step::Perform`], and gets the outcomes in its next turn.
    ///
    /// # Errors
    /// A fault ends this attempt: the state returns to what it was before the step.
    fn step(
        &mut self,
        request: &Self::Request,
        turn: Turn,
        ctx: &Context,
    ) -> impl Future<Output = Result<Step<Self::Reply>, Fault>> + Send;

    /// How it would ask for an act of before, with its question ([`Effect::verify`](crate::port::Effect::verify)): that is
    /// asked, and nothing else, before a [first turn](Turn::RolledBack) at a request that is taken over tells of the act
    /// as unknown, if its tool is [`Verifiable`](EffectKind::Verifiable). A call of another tool or request asks nothing.
    ///
    /// # Default
    /// None: it is told as unknown.
    fn question(&self, act: &PastAct, ctx: &Context) -> Option<Call> {
        let _ = (act, ctx);
        None
    }

    /// What its snapshots must look like, and how older ones become the present kind: which fields they must have
    /// above all. That an agent has `tools_used`, `context` and `memory` is required by [`Schema::agent`]. A life whose first
    /// snapshot is another does not begin: its start fails.
    ///
    /// # Default
    /// None: no field is required, whatever kind the spec says it is, whatever [`Stateful::snapshot`] gives is
    /// taken, and one that was stored by another version of the program is refused by name.
    fn schema() -> Option<Schema> {
        None
    }

    /// Its state, as named pieces behind [`Arc`]s: asked for between two steps, after each of them.
    /// Cheap when the pieces are shared with the state.
    ///
    /// A life after a crash begins with the last snapshot; and a
    /// [durable](crate::spec::ChildSpec::durable) child with the last one stored, also in another
    /// process. Whoever writes this writes [`Stateful::restore`], too.
    ///
    /// # Default
    /// None: each life begins as it was constructed.
    fn snapshot(&self) -> Option<Snapshot> {
        None
    }

    /// Takes the state of a snapshot. Called on a newly constructed behavior, before
    /// [`Stateful::start`].
    ///
    /// # Default
    /// It fails, and says that it has to be written: no snapshot fits, so no request can be rolled back.
    ///
    /// # Errors
    /// The snapshot does not fit: it is set aside, and an older one tried. Of a durable child all stay where none fits,
    /// and the start fails. Where a request is to go back and none fits, not even the snapshot of a life just made, that
    /// rollback fails, and nothing is set aside.
    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        Err(CheckpointError::Incompatible {
            what: "snapshot".to_owned(),
            found: snapshot.schema().to_string(),
            expected: format!(
                "a behavior that restores; {} gives snapshots, write its Stateful::restore",
                type_name::<Self>()
            ),
        })
    }

    /// Called once when a life ends in order, within the shutdown limit; not after a panic or a kill.
    fn stop(&mut self, cause: &ExitCause) -> impl Future<Output = ()> + Send {
        let _ = cause;
        async {}
    }
}

/// What a step returns.
#[derive(Debug)]
#[non_exhaustive]
pub enum Step<R> {
    /// More to do: another turn, [`Turn::Again`]. This step is done then: the next is another one in the keys of
    /// effects, also where it asks for the same, so a life that goes on behind it must not do it again
    /// ([`Turn::Resumed`]).
    Continue,
    /// The answer.
    Reply(R),
    /// Calls to other children, made by the runtime, in parallel; their outcomes come with the next
    /// turn. No calls is the same as [`Step::Continue`] with [`Turn::Performed`].
    Perform(Vec<Call>),
}

/// Why a step is called.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Turn {
    /// The first step of an attempt at this request.
    First,
    /// After [`Step::Continue`].
    Again,
    /// After [`Step::Perform`]: the outcomes, in the order of the calls.
    Performed(Performed),
    /// The state is that of a snapshot that was taken after a step of this request had returned. Go on from that
    /// state: the step that made it is in it. If that step returned [`Step::Perform`], what it asked for may or may
    /// not have been done: ask for it again, and effects that have taken place are not repeated, since this turn has
    /// the place of that step in their keys. If it returned [`Step::Continue`], it is done, and this turn is the next
    /// step: whoever does it all again acts a step later than before, under other keys, and that is another act.
    /// After a rollback it is told what became of what was done from there on; else nothing is.
    Resumed(Arc<Undone>),
    /// The request begins, and the state is that from before it; what was done for it is told. It went back to there,
    /// or it was taken over: the first turn of a [member of a group](crate::spec::GroupSpec) at a request for which
    /// another member has acted is this one, if any of that stands or nobody knows, and not [`Turn::First`], also in the next process.
    /// It is told then what was done up to the last such act of another member, each time that it begins the request
    /// anew; its own acts since are found by their keys.
    ///
    /// Do not ask for what is [kept](Undone::kept) again, nor for what is [unknown](Undone::unknown): only where it is
    /// asked for at the same step and place, in the same words, is it the same act. At another step it is done once more.
    RolledBack(Arc<Undone>),
}

/// What a rollback, or another member of the group, has left of the effects of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Undone {
    /// Effects that took place and still stand: asking for them again at the same step gives the recorded result. Those,
    /// too, that others did under the key of one that is unknown, but for what is about to be undone.
    pub kept: Vec<EffectKey>,
    /// Effects that were undone.
    pub undone: Vec<EffectKey>,
    /// Effects of which nobody knows whether they took place, or whose undo failed; and those that failed or were
    /// refused, as the call of a sub-agent may have been, where something that others did under their keys may stand.
    pub unknown: Vec<EffectKey>,
    /// What each of them was, in the same order: those kept, undone, unknown.
    pub acts: Vec<PastAct>,
    /// The checkpoint that the request's own rollback has restored. `None` where the state is in no store, where a
    /// scope above has returned (its [`Report`](crate::system::Report) says to what), and where the process that went
    /// back ended before the request was told.
    pub to: Option<CheckpointId>,
}

/// An effect that a request asked for before it was rolled back or taken over. Holds user data.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PastAct {
    /// The effect.
    pub key: EffectKey,
    /// Whom it was asked of.
    pub tool: ChildPath,
    /// What was asked: the request as JSON.
    pub request: Arc<str>,
    /// What came of it, as JSON; only of one that still stands.
    pub result: Option<Arc<str>>,
}

impl fmt::Debug for PastAct {
    /// Without what was asked and answered.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PastAct")
            .field("key", &self.key)
            .field("tool", &self.tool)
            .finish_non_exhaustive()
    }
}

/// Where in its request an attempt begins or goes on.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) turn: Turn,
    /// Steps of this request that have been done: the logical step of the next one.
    pub(crate) step: u64,
    /// Before anything else, the state returns to where the request began.
    pub(crate) back: bool,
    /// Before anything else, what was done from this step on is undone.
    pub(crate) undo: bool,
}

impl Place {
    pub(crate) const START: Self = Self { turn: Turn::First, step: 0, back: false, undo: false };

    /// Whether the request has been returned to its beginning and is told so.
    pub(crate) fn is_returned(&self) -> bool {
        self.step == 0 && !self.back && matches!(self.turn, Turn::RolledBack(_))
    }
}

/// The outcomes of the calls of a [`Step::Perform`]. Cheap to clone: a step that is tried again gets
/// the same outcomes, and no call is made twice.
#[derive(Clone, Debug)]
pub struct Performed {
    outcomes: Arc<[Outcome]>,
    acted: bool,
    cost: Cost,
}

impl Performed {
    /// `acted` says that one of the calls was an effect on the world.
    pub(crate) fn new(outcomes: Vec<Outcome>, acted: bool, cost: Cost) -> Self {
        Self { outcomes: outcomes.into(), acted, cost }
    }

    /// What the calls have cost together, also those that failed. What was taken from the record has cost
    /// nothing if this request was told before what it had cost; where it was not, since its process, or the
    /// attempt that had asked, had ended first, it is told now.
    pub const fn cost(&self) -> Cost {
        self.cost
    }

    pub(crate) const fn has_acted(&self) -> bool {
        self.acted
    }

    /// How many calls were made.
    pub fn len(&self) -> usize {
        self.outcomes.len()
    }

    /// Whether no call was made.
    pub fn is_empty(&self) -> bool {
        self.outcomes.is_empty()
    }

    /// The outcome of the call at `index`.
    ///
    /// # Errors
    /// The fault of the call: what its ladder could not mend is of class
    /// [`Exhausted`](crate::fault::Class::Exhausted). A wrong type or an index out of range is an
    /// `Internal` fault that says so.
    pub fn get<R: 'static>(&self, index: usize) -> Result<Answer<&R>, Fault> {
        let count = self.outcomes.len();
        let outcome = self
            .outcomes
            .get(index)
            .ok_or_else(|| Fault::internal(format!("no call {index}, only {count} were made")))?;
        let answer = outcome.as_ref().map_err(Clone::clone)?;
        let Some(value) = answer.value.downcast_ref::<R>() else {
            return Err(Fault::internal(format!(
                "the reply of \"{}\" (call {index}) is not {}",
                answer.served_by,
                type_name::<R>()
            )));
        };
        Ok(Answer {
            value,
            served_by: answer.served_by.clone(),
            degraded: answer.degraded,
            defaulted: answer.defaulted,
            attempts: answer.attempts,
            cost: answer.cost,
            elapsed: answer.elapsed,
            trail: answer.trail.clone(),
        })
    }
}

/// What a life knows when it starts.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StartContext {
    /// The child's path.
    pub path: ChildPath,
    /// Which life starts.
    pub incarnation: crate::id::Incarnation,
    /// How this life says, later, that it is over.
    pub lifeline: Lifeline,
}

/// A life's own way to say that it is over, for what it learns outside of any attempt: the process it
/// keeps has died, its connection is gone. The runtime then treats it as any other end of a life.
///
/// Cheap to clone; may outlive its life, and then does nothing.
#[derive(Clone)]
pub struct Lifeline {
    over: Arc<OnceLock<Class>>,
    tell: Arc<dyn Fn(Class) + Send + Sync>,
}

impl Lifeline {
    pub(crate) fn new(tell: impl Fn(Class) + Send + Sync + 'static) -> Self {
        Self { over: Arc::default(), tell: Arc::new(tell) }
    }

    /// Ends the life as [`ExitCause::Faulted`] with this class, so that its supervisor restarts it.
    /// Attempts of a stateless child that are under way end by themselves; the one of a stateful
    /// child is cut short. Said while the life still starts, it counts as soon as it has started.
    /// Only the first word counts.
    pub fn end(&self, class: Class) {
        if self.over.set(class).is_ok() {
            (self.tell)(class);
        }
    }

    pub(crate) fn said(&self) -> Option<Class> {
        self.over.get().copied()
    }
}

impl fmt::Debug for Lifeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lifeline").field("over", &self.over.get()).finish_non_exhaustive()
    }
}

/// What an attempt knows: which request, how much time, and the ports the behavior declared.
pub struct Context {
    pub(crate) request: RequestId,
    pub(crate) attempt: u32,
    pub(crate) delivery: Delivery,
    pub(crate) deadline: Moment,
    pub(crate) key: Option<Arc<str>>,
    pub(crate) feedback: Option<Arc<str>>,
    pub(crate) seat: Arc<dyn Seat>,
    pub(crate) flight: Arc<Flight>,
    pub(crate) purse: Option<Purse>,
    /// The soft failures of the task, if anybody else has noted some.
    pub(crate) soft: Option<Soft>,
    pub(crate) notes: Notes,
    pub(crate) tie: OnceLock<Arc<Tie>>,
    pub(crate) hedge: bool,
    pub(crate) replay: bool,
}

/// What an attempt says about its answer.
#[derive(Default)]
pub(crate) struct Notes {
    pub(crate) degraded: AtomicBool,
    pub(crate) defaulted: AtomicBool,
    pub(crate) last: AtomicBool,
    /// The class of what went wrong with an answer that stands.
    pub(crate) flaw: OnceLock<Class>,
    pub(crate) tokens: AtomicU64,
    pub(crate) money_micros: AtomicU64,
    pub(crate) units: AtomicU64,
}

impl Context {
    /// The request. The same over all attempts, also by substitutes.
    pub fn request(&self) -> RequestId {
        self.request
    }

    /// Which attempt this is, from 1. An interruption by a sibling's restart does not count.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Which hand-out of the request this is, from 1.
    pub fn delivery(&self) -> Delivery {
        self.delivery
    }

    /// Whether the request was answered before, and is handled again only for what it makes of the state,
    /// which has gone back to before it: nobody hears of the answer, calls are served from the record, and
    /// what the behavior does to the world by itself is not to be done again.
    pub fn is_replay(&self) -> bool {
        self.replay
    }

    /// Whether the request is out at another member of the group as well, which had it before: this
    /// attempt is a hedge, and whoever answers first has answered.
    pub fn is_hedge(&self) -> bool {
        self.hedge
    }

    /// The child's path.
    pub fn path(&self) -> &ChildPath {
        self.seat.path()
    }

    /// When the request must have its fate; [`Moment::NEVER`] when it has no deadline.
    pub fn deadline(&self) -> Moment {
        self.deadline
    }

    /// Time left to the deadline; [`Duration::MAX`] when it has none.
    pub fn time_left(&self) -> Duration {
        self.deadline.left(self.seat.clock().now())
    }

    /// The runtime's time.
    pub fn now(&self) -> Moment {
        self.seat.clock().now()
    }

    /// The idempotency key: the caller's, or one made from the request's id. The same over retries
    /// and substitutes, so a target that takes keys takes the effect once.
    pub fn key(&self) -> String {
        match &self.key {
            Some(key) => key.to_string(),
            None => default_key(self.seat.identity(), self.request),
        }
    }

    /// [`Context::key`], shared with the request where it has one.
    pub(crate) fn task(&self) -> Arc<str> {
        match &self.key {
            Some(key) => Arc::clone(key),
            None => Arc::from(default_key(self.seat.identity(), self.request)),
        }
    }

    /// What the last attempt that had something to say about its failure left for the next
    /// ([`Fault::with_feedback`]), whoever made it: a substitute hears it, too. `None` for a first
    /// attempt, and for a request that another process had accepted: feedback is not stored.
    pub fn feedback(&self) -> Option<&str> {
        self.feedback.as_deref()
    }

    /// The port declared under this name in [`Behavior::needs`]. Calls through it inherit this
    /// request's deadline and budget; the attempt timeout does not run while they are waited for.
    ///
    /// # Errors
    /// The need was not declared, or with another type.
    pub fn port<Q: Send + Sync + 'static, R: Send + 'static>(
        &self,
        need: &str,
    ) -> Result<Port<Q, R>, NeedError> {
        let port = self
            .seat
            .ports()
            .ok_or_else(|| NeedError::Undeclared(need.to_owned()))?
            .get::<Q, R>(need)?;
        Ok(port.tied(Arc::clone(self.tie())))
    }

    /// This port with its calls made within this request, as those of [`Context::port`]: for a child that
    /// could not be declared, since it was started later.
    pub fn within<Q: Send + Sync + 'static, R: Send + 'static>(
        &self,
        port: &Port<Q, R>,
    ) -> Port<Q, R> {
        port.tied(Arc::clone(self.tie()))
    }

    /// Counts `n` more of what the child's checkpoint interval counts, such as lines; of anything else,
    /// nothing. See [`Interval::Units`](crate::checkpoint::Interval::Units).
    pub fn count(&self, what: &str, n: u64) {
        if self.seat.counts() == Some(what) {
            self.notes.units.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// What is left of the request's budget, and of every budget around it, beside what this attempt and
    /// others under way have reserved. Without a budget nothing is limited.
    pub fn budget_left(&self) -> Limits {
        self.purse.as_ref().map_or_else(Limits::default, Purse::left)
    }

    /// Sets aside in the request's budget what the attempt may cost from now on, instead of what was
    /// reserved before and not [spent](Context::spend). Call it before anything that costs is asked for,
    /// and [`Context::owe`] when it is: an attempt that ends is charged what it has spent and owes, and the
    /// rest goes back. Without a budget nothing is set aside, and nothing refused.
    ///
    /// # Errors
    /// `BudgetDenied`, not applied: so much is not left. It is [of this child](Fault::by_own_limits), so that
    /// a cheaper sibling may be asked.
    pub fn reserve(&self, cost: Cost) -> Result<(), Fault> {
        if self.purse.is_none() {
            return Ok(());
        }
        let reserved = self.tie().reserve(cost, self.now());
        reserved.map_err(|denied| Fault::from(denied).by_own_limits())
    }

    /// Tells whoever listens to the [events](crate::event::Event::Noted) that this has happened so often.
    /// An attempt that is made again tells it again. `what` is fixed when the program is written: it holds
    /// nothing that users have said.
    pub fn note(&self, what: &'static str, count: u64) {
        let child = self.seat.path().clone();
        self.seat.emit(Event::Noted { child, request: self.request, what, count });
    }

    /// Adds to what the answer cost.
    pub fn spend(&self, cost: Cost) {
        self.notes.tokens.fetch_add(cost.tokens, Ordering::Relaxed);
        self.notes.money_micros.fetch_add(cost.money_micros, Ordering::Relaxed);
        // Where it is seen while the attempt is under way.
        self.tie().spend(cost);
    }

    /// What the attempt will have cost if it ends here, beside what was [spent](Context::spend): instead of
    /// what was said before. It is charged when the attempt is dropped, cut short or lost to a hedge; an
    /// attempt that comes to its end says zero, and spends what it was.
    pub fn owe(&self, cost: Cost) {
        self.tie().owe(cost);
    }

    /// Marks the answer as degraded: acceptable, but not what was asked for.
    pub fn mark_degraded(&self) {
        self.notes.degraded.store(true, Ordering::Relaxed);
    }

    /// Marks the answer as a default value. A defaulted answer is degraded, too.
    pub fn mark_defaulted(&self) {
        self.notes.defaulted.store(true, Ordering::Relaxed);
        self.mark_degraded();
    }

    /// The answer stands, but something failed while it was made: a stream that broke off after a part
    /// of it was heard. The circuit of this member counts the attempt as a failure of this class, and so
    /// do the counts; nothing is retried or substituted for it. Only the first word counts.
    pub fn mark_flawed(&self, class: Class) {
        let _ = self.notes.flaw.set(class);
    }

    /// Its work is done: once this request has its answer, this life ends with [`ExitCause::Normal`].
    /// A permanent child is started again, a transient one stays stopped, a temporary one is removed;
    /// a significant one may end its supervisor. An attempt that fails ends nothing.
    ///
    /// `stop` is not called, and other attempts of this life that are under way go on to their end.
    pub fn end_life(&self) {
        self.notes.last.store(true, Ordering::Relaxed);
    }

    pub(crate) fn tie(&self) -> &Arc<Tie> {
        self.tie.get_or_init(|| {
            let tie = Arc::new(Tie::new(
                self.deadline,
                Arc::clone(self.seat.clock()),
                self.purse.clone(),
                self.soft.clone(),
            ));
            self.flight.set_tie(&tie);
            tie
        })
    }

    /// What was counted since this was last asked.
    pub(crate) fn take_units(&self) -> u64 {
        self.notes.units.swap(0, Ordering::Relaxed)
    }

    pub(crate) fn is_degraded(&self) -> bool {
        self.notes.degraded.load(Ordering::Relaxed)
            || self.tie.get().is_some_and(|tie| tie.is_degraded())
    }

    pub(crate) fn is_defaulted(&self) -> bool {
        self.notes.defaulted.load(Ordering::Relaxed)
    }

    /// What the attempt has cost by itself.
    pub(crate) fn own_cost(&self) -> Cost {
        let mut cost = Cost {
            tokens: self.notes.tokens.load(Ordering::Relaxed),
            money_micros: self.notes.money_micros.load(Ordering::Relaxed),
        };
        if let Some(tie) = self.tie.get() {
            cost.add(tie.owed());
        }
        cost
    }

    /// With what it has called.
    pub(crate) fn cost(&self) -> Cost {
        let mut cost = self.own_cost();
        if let Some(tie) = self.tie.get() {
            cost.add(tie.cost());
        }
        cost
    }
}

/// The idempotency key of a request whose caller gave none.
pub(crate) fn default_key(identity: u64, request: RequestId) -> String {
    format!("ms-{identity:016x}-{}", request.0)
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("path", self.seat.path())
            .field("request", &self.request)
            .field("attempt", &self.attempt)
            .field("delivery", &self.delivery)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}
