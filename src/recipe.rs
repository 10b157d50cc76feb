//! Where the types of a behavior meet the shell: specs made from behaviors, and slots and groups made
//! from specs.
//!
//! *Invariant.* Everything that depends on a behavior's type is captured here, once; the rest of the
//! runtime works with what comes out.

use std::any::{Any, TypeId, type_name};
use std::sync::Arc;
use std::time::Duration;

use crate::behavior::{Behavior, Stateful, Stateless};
use crate::checkpoint::{Durability, Interval};
use crate::family::{RestartType, Shutdown};
use crate::fault::EffectKind;
use crate::group::{AnyGroup, Group, Member};
use crate::hub::Hub;
use crate::id::ChildPath;
use crate::incarnation::{StatefulWorker, StatelessWorker};
use crate::mirror::{Detail, Kind, RowHandle};
use crate::policy::GroupKind;
use crate::policy::deaths::PROCESS_DEATHS;
use crate::port::Port;
use crate::slot::{Look, Rules, Slot, Worker};
use crate::spec::{BetweenLives, ChildSpec, DEFAULT_MAILBOX, GroupSpec, Recipe, StartMode};

/// What a slot is built with.
pub(crate) struct Site {
    pub(crate) path: ChildPath,
    pub(crate) spec: Arc<ChildSpec>,
    pub(crate) rules: Arc<Rules>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) row: parking_lot::Mutex<Option<RowHandle>>,
}

/// A slot as it comes out: for the table of the system, and, with its types, for a group.
pub(crate) struct Built {
    pub(crate) slot: Arc<dyn Look>,
    pub(crate) member: Box<dyn Any + Send>,
    pub(crate) behavior: fn() -> (TypeId, &'static str),
}

/// What a group is built with.
pub(crate) struct GroupSite {
    pub(crate) path: ChildPath,
    pub(crate) spec: Arc<GroupSpec>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) members: parking_lot::Mutex<Vec<Box<dyn Any + Send>>>,
    pub(crate) worst_case: Duration,
}

/// A group as it comes out.
pub(crate) struct BuiltGroup {
    pub(crate) group: Arc<dyn AnyGroup>,
    pub(crate) port: Arc<dyn Any + Send + Sync>,
    pub(crate) detail: Arc<dyn Detail>,
}

struct Made<B, W> {
    worker: fn(Arc<dyn Fn() -> B + Send + Sync>) -> W,
    make: Arc<dyn Fn() -> B + Send + Sync>,
}

impl<B: Behavior, W: Worker<Request = B::Request, Reply = B::Reply>> Recipe for Made<B, W> {
    fn build(&self, site: &dyn Any) -> Box<dyn Any> {
        let Some(site) = site.downcast_ref::<Site>() else { return Box::new(()) };
        let Some(row) = site.row.lock().take() else { return Box::new(()) };
        let slot = Slot::new(
            site.path.clone(),
            Arc::clone(&site.spec),
            Arc::clone(&site.rules),
            Arc::clone(&site.hub),
            (self.worker)(Arc::clone(&self.make)),
            row,
        );
        let detail: Arc<dyn Detail> = Arc::clone(&slot) as Arc<dyn Detail>;
        slot.show(Arc::downgrade(&detail));
        let member: Arc<dyn Member<B::Request, B::Reply>> = Arc::clone(&slot) as _;
        Box::new(Built {
            slot,
            member: Box::new(member),
            behavior: || (TypeId::of::<B>(), type_name::<B>()),
        })
    }

    fn build_group(&self, site: &dyn Any) -> Box<dyn Any> {
        let Some(site) = site.downcast_ref::<GroupSite>() else { return Box::new(()) };
        // The spec was validated: every member has the types of the first.
        let members: Vec<_> = std::mem::take(&mut *site.members.lock())
            .into_iter()
            .filter_map(|member| {
                member
                    .downcast::<Arc<dyn Member<B::Request, B::Reply>>>()
                    .ok()
                    .map(|member| *member)
            })
            .collect();
        let group = Group::new(
            site.path.clone(),
            &site.spec,
            Arc::clone(&site.hub),
            members,
            site.worst_case,
        );
        let port = group.port_any();
        let detail = Arc::clone(&group) as Arc<dyn Detail>;
        Box::new(BuiltGroup { group, port, detail })
    }
}

fn spec<B: Behavior>(
    id: impl AsRef<str>,
    stateful: bool,
    recipe: Arc<dyn Recipe>,
    kind: Kind,
    effect: EffectKind,
) -> ChildSpec {
    ChildSpec {
        id: Arc::from(id.as_ref()),
        kind,
        stateful,
        recipe,
        port: TypeId::of::<Port<B::Request, B::Reply>>(),
        port_name: type_name::<Port<B::Request, B::Reply>>(),
        request: TypeId::of::<B::Request>(),
        restart: RestartType::Permanent,
        shutdown: Shutdown::default(),
        significant: false,
        start_mode: StartMode::Eager,
        between_lives: BetweenLives::Wait,
        blocking: false,
        effect,
        once: false,
        role: B::ROLE,
        concurrency: 1,
        mailbox: DEFAULT_MAILBOX as u32,
        mailbox_bytes: None,
        attempt_timeout: None,
        start_timeout: None,
        deadline: None,
        child_limit: None,
        policy: None,
        quota_domain: None,
        domain_spec: None,
        capabilities: None,
        needs: B::needs(),
        codec: None,
        durable: false,
        durability: Durability::default(),
        process_deaths: PROCESS_DEATHS,
        checkpoint: Interval::default(),
    }
}

impl ChildSpec {
    /// A child with state: one request at a time, in steps. `make` builds the behavior at the start of
    /// each life.
    pub fn stateful<B: Stateful>(
        id: impl AsRef<str>,
        make: impl Fn() -> B + Send + Sync + 'static,
    ) -> Self {
        let made = Made { worker: StatefulWorker::new, make: Arc::new(make) };
        let effect = B::EFFECT.unwrap_or(EffectKind::Pure);
        spec::<B>(id, true, Arc::new(made), Kind::Stateful, effect)
    }

    /// A child without state between requests. `make` builds the behavior at the start of each life.
    pub fn stateless<B: Stateless>(
        id: impl AsRef<str>,
        make: impl Fn() -> B + Send + Sync + 'static,
    ) -> Self {
        let made = Made { worker: StatelessWorker::new, make: Arc::new(make) };
        let effect = B::EFFECT.unwrap_or(EffectKind::Irreversible);
        spec::<B>(id, false, Arc::new(made), Kind::Stateless, effect)
    }
}

impl GroupSpec {
    /// Adds a member by its behavior; each of its lives gets a clone. The first is the primary; the
    /// others follow in order. For options, use [`GroupSpec::member_spec`].
    #[must_use]
    pub fn member<B: Stateless + Clone>(self, id: impl AsRef<str>, behavior: B) -> Self {
        let kind = match self.kind {
            GroupKind::Model => Kind::Model,
            GroupKind::Tool => Kind::Tool,
            GroupKind::Step => Kind::Step,
            GroupKind::Data => Kind::Data,
            GroupKind::Output => Kind::Output,
        };
        let spec = ChildSpec::stateless(id, move || behavior.clone()).kind(kind).concurrency(64);
        self.member_spec(spec)
    }
}

/// The typed port behind one whose types were erased.
pub(crate) fn port_of<Q: Send + Sync + 'static, R: Send + 'static>(
    port: Arc<dyn Any + Send + Sync>,
) -> Option<Port<Q, R>> {
    port.downcast_ref::<Port<Q, R>>().cloned()
}
