//! What a system is made of: [`ChildSpec`], [`SupervisorSpec`], [`GroupSpec`], with their defaults and
//! their validation.
//!
//! *Invariant.* Specs are data: building one starts nothing. They are validated as a whole, before
//! anything starts, and a [`SpecError`](crate::error::SpecError) names the offender.

use std::any::{Any, TypeId};
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::behavior::Behavior;
use crate::checkpoint::{Durability, Interval, Scope};
use crate::circuit::DomainSpec;
pub use crate::family::{AutoShutdown, Limit, RestartType, Shutdown, Strategy};
use crate::fault::EffectKind;
pub use crate::mirror::Kind;
use crate::policy::Policy;
pub use crate::policy::eligibility::{Capabilities, Grant, GroupKind, Role};
use crate::port::{Need, Needs, PortType};

pub mod acting;
mod codec;
mod deaths;
mod domain;
mod group;
mod like;
mod template;
mod validate;

pub use acting::AnyChild;
pub(crate) use codec::Codec;
pub(crate) use domain::{defined_by, domains};
pub use group::{AllDown, GroupSpec, MAX_MEMBERS};
use template::Template;

pub(crate) use validate::{dynamic_child, resolve};

/// What happens to a request that comes while the child is between two lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum BetweenLives {
    /// It waits in the mailbox, until its deadline.
    #[default]
    Wait,
    /// It is given back: [`CallError::Refused`](crate::error::CallError::Refused). As a member of a
    /// group, the child is passed over and a sibling serves.
    Refuse,
}

/// When the first life of a child begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartMode {
    /// With its supervisor, in order: a start that fails is heard at once.
    #[default]
    Eager,
    /// With its first request: a start that fails is an exit like any other.
    Lazy,
}

/// Builds the slot of a child, and the group it is a member of; made where the behavior's type is
/// known, and given and giving what only the shell can name.
pub(crate) trait Recipe: Send + Sync {
    fn build(&self, site: &dyn Any) -> Box<dyn Any>;
    fn build_group(&self, site: &dyn Any) -> Box<dyn Any>;
}

/// The weight of a request, type erased.
pub(crate) type Weigh = Arc<dyn Fn(&dyn Any) -> usize + Send + Sync>;

/// What a supervisor needs to start and treat a child.
///
/// Made with [`ChildSpec::stateful`] and [`ChildSpec::stateless`].
#[derive(Clone)]
pub struct ChildSpec {
    pub(crate) id: Arc<str>,
    pub(crate) kind: Kind,
    pub(crate) stateful: bool,
    pub(crate) recipe: Arc<dyn Recipe>,
    pub(crate) port: TypeId,
    pub(crate) port_name: &'static str,
    pub(crate) request: TypeId,
    pub(crate) restart: RestartType,
    pub(crate) shutdown: Shutdown,
    pub(crate) significant: bool,
    pub(crate) start_mode: StartMode,
    pub(crate) between_lives: BetweenLives,
    pub(crate) blocking: bool,
    pub(crate) effect: EffectKind,
    /// Irreversible by its type: no policy has it retried, its own or one above.
    pub(crate) once: bool,
    pub(crate) role: Role,
    pub(crate) concurrency: u32,
    pub(crate) mailbox: u32,
    pub(crate) mailbox_bytes: Option<(usize, TypeId, Weigh)>,
    pub(crate) attempt_timeout: Option<Duration>,
    pub(crate) start_timeout: Option<Duration>,
    pub(crate) deadline: Option<Duration>,
    pub(crate) child_limit: Option<Limit>,
    pub(crate) policy: Option<Arc<Policy>>,
    pub(crate) quota_domain: Option<Arc<str>>,
    pub(crate) domain_spec: Option<DomainSpec>,
    pub(crate) capabilities: Option<Arc<Capabilities>>,
    pub(crate) needs: Needs,
    pub(crate) codec: Option<Codec>,
    pub(crate) durable: bool,
    pub(crate) durability: Durability,
    pub(crate) process_deaths: u32,
    pub(crate) checkpoint: Interval,
}

/// Requests that may wait before a child, by default.
pub const DEFAULT_MAILBOX: usize = 1024;

impl ChildSpec {
    /// The id: unique within its supervisor, a segment of the child's path.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The same spec under another id: the way to many children from one template.
    #[must_use]
    pub fn with_id(mut self, id: impl AsRef<str>) -> Self {
        self.id = Arc::from(id.as_ref());
        self
    }

    /// Permanent: restarted after every end.
    ///
    /// # Default
    /// This is the default, as in OTP.
    #[must_use]
    pub fn permanent(self) -> Self {
        self.restart(RestartType::Permanent)
    }

    /// Transient: restarted after an abnormal end only.
    #[must_use]
    pub fn transient(self) -> Self {
        self.restart(RestartType::Transient)
    }

    /// Temporary: never restarted; forgotten when it ends.
    #[must_use]
    pub fn temporary(self) -> Self {
        self.restart(RestartType::Temporary)
    }

    /// The restart type.
    ///
    /// # Default
    /// [`RestartType::Permanent`], as in OTP.
    #[must_use]
    pub fn restart(mut self, restart: RestartType) -> Self {
        self.restart = restart;
        self
    }

    /// How it is stopped.
    ///
    /// # Default
    /// [`Shutdown::Timeout`] of 5 s, as an OTP worker.
    #[must_use]
    pub fn shutdown(mut self, shutdown: Shutdown) -> Self {
        self.shutdown = shutdown;
        self
    }

    /// Its end by itself may end its supervisor: [`SupervisorSpec::auto_shutdown`]. Not for a
    /// permanent child, which does not end by itself.
    #[must_use]
    pub fn significant(mut self) -> Self {
        self.significant = true;
        self
    }

    /// Begins its first life with its first request instead of with its supervisor.
    #[must_use]
    pub fn lazy(mut self) -> Self {
        self.start_mode = StartMode::Lazy;
        self
    }

    /// What happens to requests between two lives.
    ///
    /// # Default
    /// [`BetweenLives::Wait`].
    #[must_use]
    pub fn between_lives(mut self, between: BetweenLives) -> Self {
        self.between_lives = between;
        self
    }

    /// Its code blocks a thread: each attempt runs on a thread of its own, so that one that hangs
    /// holds up nobody. A thread that does not come back is left behind as a zombie.
    #[must_use]
    pub fn blocking(mut self) -> Self {
        self.blocking = true;
        self
    }

    /// What one execution does to the world. Where that is known when the code is written,
    /// [`ChildSpec::acts`] puts it into the type.
    ///
    /// # Default
    /// [`Behavior::EFFECT`].
    #[must_use]
    pub fn effect(mut self, effect: EffectKind) -> Self {
        self.effect = effect;
        self
    }

    /// Attempts at a time, for a stateless child.
    ///
    /// # Default
    /// 1. A stateful child has no other value.
    #[must_use]
    pub fn concurrency(mut self, attempts: u32) -> Self {
        self.concurrency = attempts;
        self
    }

    /// Requests that may wait. One more is given back as `Full`, but for what a group hands on after a
    /// failure elsewhere: an eighth of this number, at least 1, is kept in reserve for such requests, on
    /// top.
    ///
    /// # Default
    /// [`DEFAULT_MAILBOX`].
    #[must_use]
    pub fn mailbox(mut self, requests: u32) -> Self {
        self.mailbox = requests;
        self
    }

    /// Bytes that may wait, with the weight of a request. `Q` must be the behavior's request type.
    ///
    /// # Default
    /// No bound.
    #[must_use]
    pub fn mailbox_bytes<Q: 'static>(
        mut self,
        bytes: usize,
        weigh: impl Fn(&Q) -> usize + Send + Sync + 'static,
    ) -> Self {
        let weigh: Weigh = Arc::new(move |any| any.downcast_ref().map_or(0, &weigh));
        self.mailbox_bytes = Some((bytes, TypeId::of::<Q>(), weigh));
        self
    }

    /// How long one attempt may take; for a stateful child, one step.
    ///
    /// # Default
    /// The policy's: 30 s (S79).
    #[must_use]
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = Some(timeout);
        self
    }

    /// How long a start may take, constructor and `start` together.
    ///
    /// # Default
    /// The attempt timeout.
    #[must_use]
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.start_timeout = Some(timeout);
        self
    }

    /// How long a request may take in all when its caller does not say.
    ///
    /// # Default
    /// For a stateless child, the worst-case retry schedule of its policy; for a stateful child
    /// none, since each step has its own limit.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// How often it may restart before it is set aside.
    ///
    /// # Default
    /// [`SupervisorSpec::child_limit`].
    #[must_use]
    pub fn child_limit(mut self, restarts: u32, period: Duration) -> Self {
        self.child_limit = Some(Limit { count: restarts, period });
        self
    }

    /// The policy for its faults and exits. One that retries is refused
    /// ([`RetriesIrreversible`](crate::error::SpecError::RetriesIrreversible)) for a child whose work is irreversible, and so for a stateless
    /// one that does not say what it does to the world.
    ///
    /// # Default
    /// Its supervisor's.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = Some(Arc::new(policy));
        self
    }

    /// What it can do and may do: compared between the members of a group.
    ///
    /// # Default
    /// Nothing declared, which is compared as nothing: no guardrails, no tool rights, no residency, no
    /// price cap, no known window. Beside a primary that declares more it is a downgrade, and refused
    /// without a grant.
    #[must_use]
    pub fn capabilities(mut self, capabilities: Capabilities) -> Self {
        self.capabilities = Some(Arc::new(capabilities));
        self
    }

    /// What it is in its group.
    ///
    /// # Default
    /// [`Behavior::ROLE`].
    #[must_use]
    pub fn role(mut self, role: Role) -> Self {
        self.role = role;
        self
    }

    /// One more port the behavior may ask its context for, beside those of
    /// [`Behavior::needs`].
    #[must_use]
    pub fn needs<P: PortType>(mut self, name: impl Into<String>) -> Self {
        self.needs = self.needs.needs::<P>(name);
        self
    }

    /// What it is, for the dump, and for nothing else: which fields its states must have says its behavior's
    /// [schema](crate::behavior::Stateful::schema), also of an agent.
    ///
    /// # Default
    /// [`Kind::Stateful`] or [`Kind::Stateless`].
    #[must_use]
    pub fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// Its requests and replies can be written down: an effect of it can be undone, or it can be asked
    /// to undo one, in another process than the one that asked. `B` is its behavior.
    ///
    /// # Default
    /// They cannot.
    #[must_use]
    pub fn recorded<B: Behavior>(mut self) -> Self
    where
        B::Request: Serialize + DeserializeOwned,
        B::Reply: Serialize + DeserializeOwned,
    {
        self.codec = Some(Codec::of::<B>());
        self
    }

    /// Its requests survive the process: what it accepts is in the journal before it is worked on, and
    /// is delivered again by [`System::recover`](crate::system::System::recover) if it had no fate, unless the
    /// child may not be repeated ([`ChildSpec::effect`]) and had begun with it. With a stateful behavior that gives snapshots, so does its state. `B` is its behavior. A child that
    /// is started while the system runs is made from a template ([`SupervisorSpec::template`]), or refused.
    ///
    /// # Default
    /// What waits in its mailbox is lost with the process, and so is its state.
    #[must_use]
    pub fn durable<B: Behavior>(mut self) -> Self
    where
        B::Request: Serialize + DeserializeOwned,
        B::Reply: Serialize + DeserializeOwned,
    {
        self.durable = true;
        self.recorded::<B>()
    }

    /// When a durable child's state is stored, besides with the fate of each request and before each
    /// effect on the world.
    ///
    /// # Default
    /// After every 10 steps.
    #[must_use]
    pub fn checkpoint(mut self, interval: Interval) -> Self {
        self.checkpoint = interval;
        self
    }

    /// What a durable child's writes must survive before it goes on. The ledger of effects is always
    /// written so that it survives a power cut.
    ///
    /// # Default
    /// [`Durability::Sync`]: a power cut.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Whether requests to it that were answered may be handled again for what they make of its state: it
    /// keeps one, and does nothing to the world by itself.
    pub(crate) fn can_replay(&self) -> bool {
        self.durable && self.stateful && !self.effect.acts()
    }

    pub(crate) fn all_needs(&self) -> &[Need] {
        &self.needs.0
    }
}

impl fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildSpec")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .field("port", &self.port_name)
            .field("restart", &self.restart)
            .field("shutdown", &self.shutdown)
            .field("significant", &self.significant)
            .field("effect", &self.effect)
            .field("durable", &self.durable)
            .finish_non_exhaustive()
    }
}

/// A child of a supervisor.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    Child(Arc<ChildSpec>),
    Supervisor(Arc<SupervisorSpec>),
    Group(Arc<GroupSpec>),
}

impl Node {
    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Child(spec) => &spec.id,
            Self::Supervisor(spec) => &spec.id,
            Self::Group(spec) => &spec.supervisor.id,
        }
    }
}

/// A supervisor: its children in order, its strategy, its limits.
///
/// Defaults are OTP's: `one_for_one`, at most 1 restart in 5 s, no automatic shutdown. Beyond OTP, a
/// child that exceeds the intensity by itself is set aside before its supervisor falls
/// ([`SupervisorSpec::child_limit`]).
#[derive(Clone, Debug)]
pub struct SupervisorSpec {
    pub(crate) id: Arc<str>,
    pub(crate) strategy: Strategy,
    pub(crate) dynamic: bool,
    pub(crate) intensity: Limit,
    pub(crate) child_limit: ChildLimit,
    pub(crate) auto_shutdown: AutoShutdown,
    pub(crate) max_children: Option<NonZeroUsize>,
    pub(crate) restart: RestartType,
    pub(crate) shutdown: Shutdown,
    pub(crate) significant: bool,
    pub(crate) backoff: Option<(Duration, Duration)>,
    pub(crate) policy: Option<Arc<Policy>>,
    pub(crate) scope: Option<Scope>,
    pub(crate) lines: Option<Duration>,
    pub(crate) domains: Vec<(Arc<str>, DomainSpec)>,
    pub(crate) children: Vec<Node>,
    pub(crate) templates: Vec<Template>,
}

/// The limit of restarts a child of a supervisor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChildLimit {
    /// As the intensity for `one_for_one`, none for the other strategies.
    Default,
    Off,
    At(Limit),
}

impl SupervisorSpec {
    fn new(id: impl AsRef<str>, strategy: Strategy) -> Self {
        Self {
            id: Arc::from(id.as_ref()),
            strategy,
            dynamic: false,
            intensity: Limit { count: 1, period: Duration::from_secs(5) },
            child_limit: ChildLimit::Default,
            auto_shutdown: AutoShutdown::Never,
            max_children: None,
            restart: RestartType::Permanent,
            shutdown: Shutdown::Infinity,
            significant: false,
            backoff: None,
            policy: None,
            scope: None,
            lines: None,
            domains: Vec::new(),
            children: Vec::new(),
            templates: Vec::new(),
        }
    }

    /// A child that exits is restarted alone.
    pub fn one_for_one(id: impl AsRef<str>) -> Self {
        Self::new(id, Strategy::OneForOne)
    }

    /// When a child exits, all are restarted: stopped in reverse order, started in order.
    pub fn one_for_all(id: impl AsRef<str>) -> Self {
        Self::new(id, Strategy::OneForAll)
    }

    /// When a child exits, it and those after it are restarted.
    pub fn rest_for_one(id: impl AsRef<str>) -> Self {
        Self::new(id, Strategy::RestForOne)
    }

    /// For children that come and go: started with
    /// [`SupervisorRef::start_child`](crate::system::SupervisorRef::start_child), or, durable ones, with
    /// [`SupervisorRef::start_from`](crate::system::SupervisorRef::start_from), restarted alone, stopped in parallel.
    pub fn dynamic(id: impl AsRef<str>) -> Self {
        Self { dynamic: true, ..Self::new(id, Strategy::OneForOne) }
    }

    /// The id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Adds a child; children start in the order they are added.
    #[must_use]
    pub fn child(mut self, spec: impl Into<AnyChild>) -> Self {
        self.children.push(Node::Child(Arc::new(spec.into().0)));
        self
    }

    /// Adds a supervisor below this one.
    #[must_use]
    pub fn supervisor(mut self, spec: SupervisorSpec) -> Self {
        self.children.push(Node::Supervisor(Arc::new(spec)));
        self
    }

    /// Adds a group.
    #[must_use]
    pub fn group(mut self, spec: GroupSpec) -> Self {
        self.children.push(Node::Group(Arc::new(spec)));
        self
    }

    /// At most `restarts` within any `period`; one more ends this supervisor, with the cause.
    ///
    /// # Default
    /// 1 in 5 s, as in OTP.
    #[must_use]
    pub fn intensity(mut self, restarts: u32, period: Duration) -> Self {
        self.intensity = Limit { count: restarts, period };
        self
    }

    /// How often one child may restart before it is set aside, so that a child in a loop does not
    /// take its healthy siblings down.
    ///
    /// # Default
    /// The intensity for `one_for_one`; none for `one_for_all` and `rest_for_one`, whose children
    /// depend on each other.
    #[must_use]
    pub fn child_limit(mut self, restarts: u32, period: Duration) -> Self {
        self.child_limit = ChildLimit::At(Limit { count: restarts, period });
        self
    }

    /// No child is set aside: a child in a loop ends this supervisor, as in OTP.
    #[must_use]
    pub fn no_child_limit(mut self) -> Self {
        self.child_limit = ChildLimit::Off;
        self
    }

    /// Whether the end of significant children ends this supervisor.
    ///
    /// # Default
    /// [`AutoShutdown::Never`], as in OTP.
    #[must_use]
    pub fn auto_shutdown(mut self, auto: AutoShutdown) -> Self {
        self.auto_shutdown = auto;
        self
    }

    /// At most this many children, those between two lives included.
    ///
    /// # Default
    /// No limit.
    #[must_use]
    pub fn max_children(mut self, children: NonZeroUsize) -> Self {
        self.max_children = Some(children);
        self
    }

    /// The restart type of this supervisor below its parent.
    ///
    /// # Default
    /// [`RestartType::Permanent`].
    #[must_use]
    pub fn restart(mut self, restart: RestartType) -> Self {
        self.restart = restart;
        self
    }

    /// How this supervisor is stopped by its parent.
    ///
    /// # Default
    /// [`Shutdown::Infinity`], as in OTP: its children have limits of their own.
    #[must_use]
    pub fn shutdown(mut self, shutdown: Shutdown) -> Self {
        self.shutdown = shutdown;
        self
    }

    /// Its end by itself may end its parent.
    #[must_use]
    pub fn significant(mut self) -> Self {
        self.significant = true;
        self
    }

    /// Waits before a crashed child starts again: `base`, doubling with each restart of that child
    /// in the period, up to `max`.
    ///
    /// # Default
    /// At once, as in OTP.
    #[must_use]
    pub fn restart_backoff(mut self, base: Duration, max: Duration) -> Self {
        self.backoff = Some((base, max));
        self
    }

    /// The policy of its children's faults and exits.
    ///
    /// # Default
    /// Its parent's; [`Policy::default`] at the root.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = Some(Arc::new(policy));
        self
    }

    /// How far a rollback below it reaches. Within a [`Scope::Transaction`], what a request to a
    /// stateful child has done to the world, or may have done, is undone when the request is rolled
    /// back, or ends without an answer; the next request then begins with the state from before it. That
    /// holds for narrower scopes within it, too, and ends where a wider one begins.
    ///
    /// # Default
    /// Its parent's; [`Scope::Step`] at the root.
    #[must_use]
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = Some(scope);
        self
    }

    /// Draws a recovery line of its subtree by itself: once when the system is up, and then every `period`,
    /// unless the newest line, or what was returned to, says it all; a line says nothing any more once it is too
    /// old to be returned to, after [`VALIDITY`](crate::checkpoint::VALIDITY), so the period is less than that.
    /// Its children stand still meanwhile:
    /// for a tenth of the period and a second at most; where a step takes longer there is an
    /// [`Event::LineMissed`](crate::event::Event::LineMissed) instead of a line. It needs a system with a
    /// store, and a durable, stateful child below.
    ///
    /// # Default
    /// Lines are drawn by hand only ([`System::checkpoint`](crate::system::System::checkpoint)).
    #[must_use]
    pub fn lines_every(mut self, period: Duration) -> Self {
        self.lines = Some(period);
        self
    }

    pub(crate) fn effective_child_limit(&self) -> Option<Limit> {
        match self.child_limit {
            ChildLimit::Default if self.strategy == Strategy::OneForOne => Some(self.intensity),
            ChildLimit::Default | ChildLimit::Off => None,
            ChildLimit::At(limit) => Some(limit),
        }
    }
}
