//! The spec of a group.

use std::any::TypeId;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{
    AnyChild, ChildSpec, Codec, DEFAULT_MAILBOX, Grant, GroupKind, Node, SupervisorSpec, Weigh,
};
use crate::behavior::Behavior;
use crate::checkpoint::Durability;
use crate::circuit::{CircuitSpec, DomainSpec};
use crate::policy::deaths::PROCESS_DEATHS;
use crate::policy::{Hedge, Policy};

/// An ordered set of siblings that take the same request and give the same reply.
///
/// It has an address like a child; whoever calls it is served by the first member that is fit, and a
/// request that fails there goes to the next, as far as the allow-list and the class of the failure
/// let it. Its members are children under a `one_for_one` supervisor of the group's name.
#[derive(Clone, Debug)]
pub struct GroupSpec {
    pub(crate) supervisor: SupervisorSpec,
    pub(crate) kind: GroupKind,
    pub(crate) circuit: CircuitSpec,
    pub(crate) monitored: bool,
    pub(crate) deadline: Option<Duration>,
    pub(crate) allow: Vec<(String, Vec<String>)>,
    pub(crate) grants: Vec<(String, Grant)>,
    pub(crate) hedge: Option<Hedge>,
    pub(crate) durable: Option<Codec>,
    pub(crate) durability: Durability,
    pub(crate) process_deaths: u32,
    pub(crate) all_down: AllDown,
    pub(crate) mailbox: u32,
    pub(crate) mailbox_bytes: Option<Weighed>,
}

/// What becomes of a new request to a group while every member rests: its circuit is open, or its quota
/// domain closed. A request that has failed at a member is the ladder's, whatever this says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AllDown {
    /// It waits in the group for a member that is back before its deadline. When none is, a member with an
    /// open circuit is asked all the same, one request at a time; others are refused at once as
    /// [`Unavailable::Resting`](crate::error::Unavailable::Resting).
    #[default]
    LastResort,
    /// It waits in the group for the first member that is back, at most to its deadline, at which it has
    /// expired. Nobody is asked before.
    WaitUntil,
    /// It is refused at once as [`Unavailable::Resting`](crate::error::Unavailable::Resting), which says
    /// when the first of them is back.
    Fail,
}

/// A bound in bytes, with the type of the requests and their weight.
#[derive(Clone)]
pub(crate) struct Weighed(pub(crate) (usize, TypeId, Weigh));

impl fmt::Debug for Weighed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.0)
    }
}

/// The longest chain of members.
pub const MAX_MEMBERS: usize = 6;

impl GroupSpec {
    fn new(id: impl AsRef<str>, kind: GroupKind) -> Self {
        Self {
            supervisor: SupervisorSpec::one_for_one(id).intensity(3, Duration::from_secs(5)),
            kind,
            circuit: CircuitSpec::default(),
            monitored: true,
            deadline: None,
            allow: Vec::new(),
            grants: Vec::new(),
            hedge: None,
            durable: None,
            durability: Durability::default(),
            process_deaths: PROCESS_DEATHS,
            all_down: AllDown::default(),
            mailbox: DEFAULT_MAILBOX as u32,
            mailbox_bytes: None,
        }
    }

    /// Models that stand in for each other.
    pub fn model(id: impl AsRef<str>) -> Self {
        Self::new(id, GroupKind::Model)
    }

    /// A tool and its alternatives.
    pub fn tool(id: impl AsRef<str>) -> Self {
        Self::new(id, GroupKind::Tool)
    }

    /// A full flow and simpler ones.
    pub fn step(id: impl AsRef<str>) -> Self {
        Self::new(id, GroupKind::Step)
    }

    /// A search and other ways to the same data.
    pub fn data(id: impl AsRef<str>) -> Self {
        Self::new(id, GroupKind::Data)
    }

    /// Generated output, and a default value that cannot fail.
    pub fn output(id: impl AsRef<str>) -> Self {
        Self::new(id, GroupKind::Output)
    }

    /// A group from a chain of names, first choice first, such as those of
    /// [`preset`](crate::policy::preset): `bind` says which child each name is, and the name is its id.
    pub fn chain<S: Into<AnyChild>>(
        id: impl AsRef<str>,
        kind: GroupKind,
        names: &[&str],
        mut bind: impl FnMut(&str) -> S,
    ) -> Self {
        names.iter().fold(Self::new(id, kind), |group, name| {
            let child: AnyChild = bind(name).into();
            group.member_spec(child.0.with_id(name))
        })
    }

    /// The id.
    pub fn id(&self) -> &str {
        &self.supervisor.id
    }

    /// Adds a member by its spec. The first is the primary, by which all others are
    /// measured, whoever hands a request on to them; they follow in order.
    #[must_use]
    pub fn member_spec(mut self, spec: impl Into<AnyChild>) -> Self {
        let spec = spec.into();
        self.supervisor = self.supervisor.child(spec);
        self
    }

    /// From `member`, a failed request may only go to these, in this order.
    ///
    /// # Default
    /// To every member after it, in order.
    #[must_use]
    pub fn allow(
        mut self,
        member: impl Into<String>,
        targets: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        self.allow.push((member.into(), targets.into_iter().map(Into::into).collect()));
        self
    }

    /// Lets this member stand in although it is weaker than the primary.
    #[must_use]
    pub fn grant(mut self, member: impl Into<String>, grant: Grant) -> Self {
        self.grants.push((member.into(), grant));
        self
    }

    /// How the members' circuits open and close.
    ///
    /// # Default
    /// [`CircuitSpec::default`].
    #[must_use]
    pub fn circuit(mut self, options: CircuitSpec) -> Self {
        self.circuit = options;
        self
    }

    /// Switches the metrics of this path off. Such a spec is refused (S81): an unmonitored path
    /// hides that the primary is gone.
    #[must_use]
    pub fn unmonitored(mut self) -> Self {
        self.monitored = false;
        self
    }

    /// How long a request may take in all when its caller does not say.
    ///
    /// # Default
    /// The worst-case schedule over all members.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// What becomes of a new request while every member rests: its circuit is open, or its quota domain
    /// closed.
    ///
    /// # Default
    /// [`AllDown::LastResort`].
    #[must_use]
    pub fn all_down(mut self, all_down: AllDown) -> Self {
        self.all_down = all_down;
        self
    }

    /// Requests that may wait in the group itself, while every member rests: its circuit is open or its
    /// quota domain closed. One more gives the message back as `Full`. What waits at a member counts
    /// there, and what was accepted before and waits for a sibling is not refused.
    ///
    /// # Default
    /// [`DEFAULT_MAILBOX`].
    #[must_use]
    pub fn mailbox(mut self, requests: u32) -> Self {
        self.mailbox = requests;
        self
    }

    /// Bytes that may wait in the group itself, with the weight of a request; see
    /// [`GroupSpec::mailbox`]. `Q` must be the request type of its members.
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
        self.mailbox_bytes = Some(Weighed((bytes, TypeId::of::<Q>(), weigh)));
        self
    }

    /// A request that its member has not answered by then is given to the next fit sibling as well; the
    /// first good answer is the answer, and the other copy is called off. At most one more for each
    /// request, and only as far as the retry budget goes: beyond it there is no hedge, and nothing else
    /// changes. A hedge is no fallback and is not counted as one.
    ///
    /// Every member that does the same work has to be stateless and to be replay-safe: `Pure`, `Read`
    /// or `Idempotent`.
    ///
    /// # Default
    /// None.
    #[must_use]
    pub fn hedge(mut self, hedge: Hedge) -> Self {
        self.hedge = Some(hedge);
        self
    }

    /// Its requests survive the process: what the group accepts is in the journal before a member works on
    /// it, and is delivered again by [`System::recover`](crate::system::System::recover) if it had no
    /// fate; the fate is written once, for the group, whoever served. `B` is the behavior of a member: all
    /// of them take and give the same.
    ///
    /// The members need not be durable themselves. One that is, and has state, stores it as ever.
    ///
    /// # Default
    /// What waits is lost with the process.
    #[must_use]
    pub fn durable<B: Behavior>(mut self) -> Self
    where
        B::Request: Serialize + DeserializeOwned,
        B::Reply: Serialize + DeserializeOwned,
    {
        self.durable = Some(Codec::of::<B>());
        self
    }

    /// What a write to the journal of a durable group must survive; see [`ChildSpec::durability`].
    ///
    /// # Default
    /// [`Durability::Sync`]: a power cut.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// The restart intensity over its members.
    ///
    /// # Default
    /// 3 in 5 s.
    #[must_use]
    pub fn intensity(mut self, restarts: u32, period: Duration) -> Self {
        self.supervisor = self.supervisor.intensity(restarts, period);
        self
    }

    /// The limit of each member; see [`SupervisorSpec::child_limit`].
    #[must_use]
    pub fn child_limit(mut self, restarts: u32, period: Duration) -> Self {
        self.supervisor = self.supervisor.child_limit(restarts, period);
        self
    }

    /// The policy of its members' faults and exits.
    ///
    /// # Default
    /// Its supervisor's.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.supervisor = self.supervisor.policy(policy);
        self
    }

    /// How a quota domain of its members closes, opens and pays for retries; see
    /// [`SupervisorSpec::quota_domain`].
    ///
    /// # Default
    /// [`DomainSpec::default`](crate::circuit::DomainSpec::default).
    #[must_use]
    pub fn quota_domain(mut self, domain: impl AsRef<str>, spec: DomainSpec) -> Self {
        self.supervisor = self.supervisor.quota_domain(domain, spec);
        self
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = &Arc<ChildSpec>> {
        self.supervisor.children.iter().filter_map(|node| match node {
            Node::Child(spec) => Some(spec),
            Node::Supervisor(_) | Node::Group(_) => None,
        })
    }
}
