//! From specs to slots, groups and supervisors, and the table of what has a path.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dashmap::DashMap;
use parking_lot::Mutex;

use super::rollback::Rollbacks;
use super::{Hung, Supervisor, Ward};
use crate::checkpoint::{Scope, Topology};
use crate::circuit::DomainSpec;
use crate::effects::{Asking, Undoer};
use crate::error::SpecError;
use crate::family::ChildOptions;
use crate::fate::FateCounts;
use crate::fault::Fault;
use crate::group::AnyGroup;
use crate::hub::Hub;
use crate::id::ChildPath;
use crate::journal::Serial;
use crate::ledger::Undo;
use crate::mirror::{Facts, Kind, Roster};
use crate::policy::{GroupKind, Policy, Within};
use crate::port::{NotUndone, PortTable};
use crate::recipe::{Built, BuiltGroup, GroupSite, Site};
use crate::slot::{Look, Managed, Rules, dropped};
use crate::spec::{
    ChildSpec, Codec, GroupSpec, Node, SupervisorSpec, defined_by, domains, dynamic_child, resolve,
};
use crate::watch::Totals;

mod kept;

/// What has a path. Small: there is one a child.
#[derive(Clone)]
pub(crate) enum Entry {
    Child {
        slot: Arc<dyn Look>,
        /// The type of its behavior, with its name.
        behavior: fn() -> (TypeId, &'static str),
    },
    Group(Arc<GroupEntry>),
    Supervisor(Arc<Supervisor>),
}

/// A group with its types and its supervisor.
pub(crate) struct GroupEntry {
    pub(crate) group: Arc<dyn AnyGroup>,
    pub(crate) port: Arc<dyn Any + Send + Sync>,
    port_type: TypeId,
    pub(crate) port_name: &'static str,
    /// How requests to it are written down, if it is durable.
    pub(crate) durable: Option<Codec>,
    process_deaths: u32,
    pub(crate) node: Arc<Supervisor>,
}

/// A ticket for an entry that was detached.
pub(crate) struct Left(u64);

/// What has no path, and is counted all the same.
#[derive(Default)]
struct Aside {
    /// Until their requests have their fates.
    leaving: HashMap<u64, Entry>,
    /// Until the supervisor whose spec they stand in is started again.
    resting: HashMap<ChildPath, Entry>,
    next: u64,
}

/// The table of slots by path, which outlives the supervisors.
pub(crate) struct Registry {
    pub(crate) entries: DashMap<ChildPath, Entry>,
    aside: Mutex<Aside>,
    pub(super) hub: Arc<Hub>,
    pub(super) rollbacks: Rollbacks,
    /// Whether scopes of high risk return only when a person has approved it.
    pub(crate) approvals: bool,
}

impl Registry {
    pub(crate) fn new(hub: Arc<Hub>, approvals: bool) -> Arc<Self> {
        Arc::new(Self {
            entries: DashMap::new(),
            aside: Mutex::default(),
            hub,
            rollbacks: Rollbacks::default(),
            approvals,
        })
    }

    pub(crate) fn get(&self, path: &ChildPath) -> Option<Entry> {
        self.entries.get(path).map(|entry| entry.value().clone())
    }

    /// Removes an entry; what it has counted is kept.
    pub(crate) fn forget(&self, path: &ChildPath) {
        self.retire(self.detach(path));
    }

    /// Frees a path. What had it counts until it is retired.
    pub(crate) fn detach(&self, path: &ChildPath) -> Option<Left> {
        let mut aside = self.aside.lock();
        let (_, entry) = self.entries.remove(path)?;
        let left = aside.next;
        aside.next += 1;
        aside.leaving.insert(left, entry);
        Some(Left(left))
    }

    /// Forgets what was detached, once its requests have their fates; what it has counted is kept.
    pub(crate) fn retire(&self, left: Option<Left>) {
        let Some(left) = left else { return };
        let mut aside = self.aside.lock();
        let entry = aside.leaving.remove(&left.0);
        if let Some(entry) = &entry {
            self.hub.retired.lock().merge(&entry.counts());
            self.hub.attempts.fetch_add(entry.attempts(), Ordering::Relaxed);
        }
        drop(aside);
        drop(entry);
    }

    /// Frees the path of what stands in a spec and comes back with it.
    pub(crate) fn rest(&self, path: &ChildPath) {
        let mut aside = self.aside.lock();
        if let Some((path, entry)) = self.entries.remove(path) {
            aside.resting.insert(path, entry);
        }
    }

    /// Gives a path back to what rested. False when nothing did.
    pub(crate) fn wake(&self, path: &ChildPath) -> bool {
        let mut aside = self.aside.lock();
        let found = aside.resting.remove_entry(path);
        found.map(|(path, entry)| self.entries.insert(path, entry)).is_some()
    }

    pub(crate) fn clear(&self) {
        let paths: Vec<_> = self.entries.iter().map(|entry| entry.key().clone()).collect();
        for path in paths {
            self.forget(&path);
        }
    }

    /// Every child below a supervisor.
    pub(crate) fn below(&self, path: &ChildPath) -> Vec<Arc<dyn Managed>> {
        let prefix = format!("{path}/");
        self.entries
            .iter()
            .filter(|entry| entry.key().as_str().starts_with(&prefix))
            .filter_map(|entry| match entry.value() {
                Entry::Child { slot, .. } => Some(Arc::clone(slot) as Arc<dyn Managed>),
                Entry::Group(_) | Entry::Supervisor(_) => None,
            })
            .collect()
    }

    /// The supervisor with this path, also that of a group.
    pub(crate) fn supervisor(&self, path: &ChildPath) -> Option<Arc<Supervisor>> {
        match self.get(path)? {
            Entry::Supervisor(node) => Some(node),
            Entry::Group(group) => Some(Arc::clone(&group.node)),
            Entry::Child { .. } => None,
        }
    }

    /// Every supervisor below a supervisor.
    pub(crate) fn supervisors_below(&self, path: &ChildPath) -> Vec<Arc<Supervisor>> {
        let prefix = format!("{path}/");
        self.entries
            .iter()
            .filter(|entry| entry.key().as_str().starts_with(&prefix))
            .filter_map(|entry| match entry.value() {
                Entry::Supervisor(node) => Some(Arc::clone(node)),
                Entry::Group(group) => Some(Arc::clone(&group.node)),
                Entry::Child { .. } => None,
            })
            .collect()
    }

    pub(crate) fn fates(&self) -> FateCounts {
        let aside = self.aside.lock();
        let mut sum = *self.hub.retired.lock();
        for entry in aside.leaving.values().chain(aside.resting.values()) {
            sum.merge(&entry.counts());
        }
        for entry in &self.entries {
            sum.merge(&entry.value().counts());
        }
        sum
    }

    /// The sums that the watch reads. Looks at every child.
    pub(crate) fn totals(&self) -> Totals {
        let mut totals =
            Totals { attempts: self.attempts(), fates: self.fates(), ..Totals::default() };
        for entry in &self.entries {
            if let Entry::Group(group) = entry.value() {
                totals.group(group.group.kind()).merge(&group.group.counts());
            }
        }
        totals
    }

    /// Attempts made, by whoever was ever there.
    pub(crate) fn attempts(&self) -> u64 {
        let aside = self.aside.lock();
        let mut sum = self.hub.attempts.load(Ordering::Relaxed);
        for entry in aside.leaving.values().chain(aside.resting.values()) {
            sum += entry.attempts();
        }
        for entry in &self.entries {
            sum += entry.value().attempts();
        }
        sum
    }

    /// The port of what has this path, with its type.
    pub(crate) fn port(
        &self,
        path: &ChildPath,
    ) -> Option<(Arc<dyn Any + Send + Sync>, TypeId, &'static str)> {
        match self.get(path)? {
            Entry::Child { slot, .. } => {
                Some((slot.port_any()?, slot.port_type(), slot.spec().port_name))
            }
            Entry::Group(group) => {
                Some((Arc::clone(&group.port), group.port_type, group.port_name))
            }
            Entry::Supervisor(_) => None,
        }
    }

    /// The port of what has this path, and how its requests are written down.
    pub(crate) fn recorded(&self, path: &ChildPath) -> Option<(Arc<dyn Any + Send + Sync>, Codec)> {
        match self.get(path)? {
            Entry::Child { slot, .. } => Some((slot.port_any()?, slot.spec().codec?)),
            Entry::Group(group) => {
                let codec = group.node.spec.children.iter().find_map(|child| match child {
                    Node::Child(spec) => spec.codec,
                    Node::Supervisor(_) | Node::Group(_) => None,
                });
                Some((Arc::clone(&group.port), group.durable.or(codec)?))
            }
            Entry::Supervisor(_) => None,
        }
    }

    /// Whom the groups allow to stand in for whom.
    pub(crate) fn allowed(&self) -> Topology {
        let lines = self.entries.iter().filter_map(|entry| match entry.value() {
            Entry::Group(group) => Some(group.group.allowed()),
            Entry::Child { .. } | Entry::Supervisor(_) => None,
        });
        Topology::new(lines.flatten())
    }

    /// Whom the group that has this path allows to stand in for whom.
    pub(crate) fn allow_list(&self, path: &ChildPath) -> Option<Topology> {
        match self.get(path)? {
            Entry::Group(group) => Some(Topology::new(group.group.allowed())),
            Entry::Child { .. } | Entry::Supervisor(_) => None,
        }
    }

    /// Resolves the needs of a child.
    fn wire(&self, slot: &Arc<dyn Look>) -> Result<(), SpecError> {
        let path = slot.path().clone();
        let spec = Arc::clone(slot.spec());
        let mut table = PortTable::default();
        for need in spec.all_needs() {
            let exists = |path: &ChildPath| {
                self.entries
                    .get(path)
                    .is_some_and(|entry| !matches!(entry.value(), Entry::Supervisor(_)))
            };
            let unknown =
                || SpecError::UnknownNeed { child: path.to_string(), need: need.name.clone() };
            let found = resolve(&path, &need.name, exists).ok_or_else(unknown)?;
            let (port, port_type, port_name) = self.port(&found).ok_or_else(unknown)?;
            if port_type != need.port {
                return Err(SpecError::NeedType {
                    child: path.to_string(),
                    need: need.name.clone(),
                    wanted: need.type_name.to_owned(),
                    found: port_name.to_owned(),
                });
            }
            table.0.push((need.clone(), port));
        }
        if !table.0.is_empty() {
            slot.set_ports(table);
        }
        Ok(())
    }
}

impl Undoer for Registry {
    fn undo(&self, undo: Undo, key: String) -> Asking {
        let found = self.recorded(&undo.tool);
        let (hub, key) = (Arc::clone(&self.hub), Arc::from(key));
        Box::pin(async move {
            match found {
                Some(tool) => super::undo::undo(&hub, tool, &undo, &key).await,
                None => {
                    let why = "is gone, or takes no recorded requests";
                    let fault = Fault::internal(format!("\"{}\" {why}", undo.tool));
                    // Of a system that is going down everything is.
                    let away = hub.is_shutting_down() || hub.is_lost();
                    Err(if away { NotUndone::Later(fault) } else { NotUndone::Failed(fault) })
                }
            }
        })
    }

    fn can_undo(&self, tool: &ChildPath) -> bool {
        self.recorded(tool).is_some()
    }

    fn is_stopping(&self) -> bool {
        self.hub.is_shutting_down() || self.hub.is_lost()
    }
}

impl Entry {
    fn counts(&self) -> FateCounts {
        match self {
            Self::Child { slot, .. } => slot.counts(),
            Self::Group(entry) => entry.group.counts(),
            Self::Supervisor(_) => FateCounts::default(),
        }
    }

    fn attempts(&self) -> u64 {
        match self {
            Self::Child { slot, .. } => slot.attempts(),
            Self::Group(_) | Self::Supervisor(_) => 0,
        }
    }
}

/// Builds a whole tree from a validated spec; nothing starts yet.
pub(crate) fn build(
    spec: &Arc<SupervisorSpec>,
    hub: &Arc<Hub>,
    registry: &Arc<Registry>,
) -> Result<Arc<Supervisor>, SpecError> {
    let path = ChildPath::new(&*spec.id);
    for (name, (at, domain)) in domains(spec, &path)? {
        define_domain(hub, &name, domain, &at)?;
    }
    let roster = Roster::root(facts(spec, &path, spec.scope.unwrap_or(Scope::Step)));
    let policy = spec.policy.clone().unwrap_or_default();
    let above = Above { policy, within: Within::OUTSIDE.below(spec.scope) };
    let root = supervisor(spec, path, above, hub, registry, Hung::Root(roster), None)?;
    let slots: Vec<_> = registry
        .entries
        .iter()
        .filter_map(|entry| match entry.value() {
            Entry::Child { slot, .. } => Some(Arc::clone(slot)),
            _ => None,
        })
        .collect();
    for slot in slots {
        registry.wire(&slot)?;
    }
    Ok(root)
}

fn define_domain(
    hub: &Arc<Hub>,
    name: &Arc<str>,
    spec: DomainSpec,
    at: &ChildPath,
) -> Result<(), SpecError> {
    hub.define_domain(name, spec, at).map_err(|before| SpecError::DomainConflict {
        domain: name.to_string(),
        one: before.map_or_else(|| "the defaults".to_owned(), |before| before.to_string()),
        other: at.to_string(),
    })
}

/// How long a request takes at the most, when nothing cuts its ladder off.
fn worst_case_of(rules: &Rules, members: usize) -> Duration {
    (*rules.policy).clone().with_attempt_timeout(rules.attempt_timeout).worst_case(members)
}

/// A deadline that is shorter than the worst case is no error, since most requests never see that; but
/// whoever has said it should know that rungs may be cut off.
fn warn_of_short(
    path: &ChildPath,
    deadline: Option<Duration>,
    worst_case: impl FnOnce() -> Duration,
) {
    let Some(deadline) = deadline else { return };
    let worst_case = worst_case();
    if deadline < worst_case {
        tracing::warn!(
            target: "mainstay", %path, ?deadline, ?worst_case,
            "the deadline is shorter than the worst-case retry schedule, which it may cut off"
        );
    }
}

fn facts(spec: &SupervisorSpec, path: &ChildPath, scope: Scope) -> Facts {
    let strategy = if spec.dynamic { "dynamic".to_owned() } else { spec.strategy.to_string() };
    let intensity = format!("{} in {:?}", spec.intensity.count, spec.intensity.period);
    let facts = Facts::supervisor(path.clone(), &strategy, &intensity);
    match scope {
        Scope::Step => facts,
        wider => facts.of_scope(wider.name()),
    }
}

const fn kind_of(kind: GroupKind) -> Kind {
    match kind {
        GroupKind::Model => Kind::Model,
        GroupKind::Tool => Kind::Tool,
        GroupKind::Step => Kind::Step,
        GroupKind::Data => Kind::Data,
        GroupKind::Output => Kind::Output,
    }
}

/// What children have from above them.
struct Above {
    policy: Arc<Policy>,
    within: Within,
}

impl Above {
    fn below(&self, spec: &SupervisorSpec) -> Self {
        Self {
            policy: spec.policy.clone().unwrap_or_else(|| Arc::clone(&self.policy)),
            within: self.within.below(spec.scope),
        }
    }
}

fn supervisor(
    spec: &Arc<SupervisorSpec>,
    path: ChildPath,
    above: Above,
    hub: &Arc<Hub>,
    registry: &Arc<Registry>,
    hung: Hung,
    group: Option<&Arc<GroupSpec>>,
) -> Result<Arc<Supervisor>, SpecError> {
    let mut statics = Vec::with_capacity(spec.children.len());
    let mut members = Vec::new();
    let mut worst_case = Duration::ZERO;
    for node in &spec.children {
        let below = path.join(node.id());
        let id: Arc<str> = Arc::from(node.id());
        let (options, ward) = match node {
            Node::Child(child) => {
                let rules = Arc::new(Rules::new(child, &above.policy, above.within));
                warn_of_short(&below, child.deadline, || worst_case_of(&rules, 1));
                if group.is_some() {
                    worst_case = worst_case.max(worst_case_of(&rules, spec.children.len()));
                }
                let built = slot(child, &below, rules, hub, registry, hung.roster());
                let ward = Ward {
                    managed: Arc::clone(&built.slot) as Arc<dyn Managed>,
                    shutdown: child.shutdown,
                    dynamic: false,
                    kept: None,
                    spec: Some(Arc::clone(child)),
                };
                if group.is_some() {
                    members.push(built.member);
                }
                (ChildOptions::of(child), ward)
            }
            Node::Supervisor(inner) => {
                let nested = hung.roster().nest(facts(
                    inner,
                    &below,
                    inner.scope.unwrap_or(above.within.scope),
                ));
                let below_it = above.below(inner);
                let built =
                    supervisor(inner, below, below_it, hub, registry, Hung::Below(nested), None)?;
                (nested_options(inner), nested_ward(inner, built))
            }
            Node::Group(group_spec) => {
                let inner = Arc::new(group_spec.supervisor.clone());
                let facts = Facts::group(below.clone(), kind_of(group_spec.kind));
                let nested = hung.roster().nest(facts.durable(group_spec.durable.is_some()));
                let below_it = above.below(&inner);
                let built = supervisor(
                    &inner,
                    below,
                    below_it,
                    hub,
                    registry,
                    Hung::Below(nested),
                    Some(group_spec),
                )?;
                (nested_options(&inner), nested_ward(&inner, built))
            }
        };
        statics.push((id, options, ward));
    }
    warn_of_short(&path, group.and_then(|group| group.deadline), || worst_case);
    let built_group = match group {
        None => None,
        Some(group) => make_group(group, &path, hub, members, worst_case),
    };
    if let Some(built) = &built_group {
        hung.roster().set_detail(Arc::downgrade(&built.detail));
    }
    let any_group = built_group.as_ref().map(|built| Arc::clone(&built.group));
    let node = Supervisor::new(
        path.clone(),
        Arc::clone(spec),
        above.policy,
        above.within,
        Arc::clone(hub),
        Arc::clone(registry),
        hung,
        statics,
        any_group,
    );
    let entry = match (built_group, group) {
        (Some(built), Some(group)) => {
            // The first member's types are the group's.
            let first = group.members().next().map(|member| (member.port, member.port_name));
            let (port_type, port_name) = first.unwrap_or((TypeId::of::<()>(), ""));
            Entry::Group(Arc::new(GroupEntry {
                group: built.group,
                port: built.port,
                port_type,
                port_name,
                durable: group.durable,
                process_deaths: group.process_deaths,
                node: Arc::clone(&node),
            }))
        }
        _ => Entry::Supervisor(Arc::clone(&node)),
    };
    registry.entries.insert(path, entry);
    Ok(node)
}

fn nested_options(spec: &SupervisorSpec) -> ChildOptions {
    ChildOptions {
        restart: spec.restart,
        significant: spec.significant,
        is_supervisor: true,
        child_limit: None,
    }
}

fn nested_ward(spec: &SupervisorSpec, node: Arc<Supervisor>) -> Ward {
    Ward { managed: node, shutdown: spec.shutdown, dynamic: false, kept: None, spec: None }
}

fn make_group(
    spec: &Arc<GroupSpec>,
    path: &ChildPath,
    hub: &Arc<Hub>,
    members: Vec<Box<dyn Any + Send>>,
    worst_case: Duration,
) -> Option<BuiltGroup> {
    let recipe = Arc::clone(&spec.members().next()?.recipe);
    let site = GroupSite {
        path: path.clone(),
        spec: Arc::clone(spec),
        hub: Arc::clone(hub),
        members: parking_lot::Mutex::new(members),
        worst_case,
    };
    recipe.build_group(&site).downcast::<BuiltGroup>().ok().map(|built| *built)
}

fn slot(
    spec: &Arc<ChildSpec>,
    path: &ChildPath,
    rules: Arc<Rules>,
    hub: &Arc<Hub>,
    registry: &Arc<Registry>,
    roster: &Roster,
) -> Built {
    if rules.policy.has_unsafe_limits() {
        tracing::warn!(target: "mainstay", child = %path, "policy without the ceilings of safety");
    }
    let row = roster.add(path.clone(), spec.kind);
    let row = if spec.durable { row.durable() } else { row };
    let site = Site {
        path: path.clone(),
        spec: Arc::clone(spec),
        rules,
        hub: Arc::clone(hub),
        row: parking_lot::Mutex::new(Some(row)),
    };
    let built = spec
        .recipe
        .build(&site)
        .downcast::<Built>()
        .expect("a recipe is given a site with a row and makes a slot of it");
    registry.entries.insert(
        path.clone(),
        Entry::Child { slot: Arc::clone(&built.slot), behavior: built.behavior },
    );
    *built
}

/// A spec and what it comes to. Children that are alike but for their ids, made from one template,
/// share them with the child that was started before, as long as one of them is there.
fn template(node: &Supervisor, spec: &Arc<ChildSpec>) -> (Arc<ChildSpec>, Arc<Rules>) {
    let mut last = node.template.lock();
    let known = last.as_ref().and_then(|(spec, rules)| spec.upgrade().zip(rules.upgrade()));
    match known {
        Some((known, rules)) if known.is_like(spec) => (known, rules),
        other => {
            let rules = Arc::new(Rules::new(spec, &node.policy, node.within));
            *last = Some((Arc::downgrade(spec), Arc::downgrade(&rules)));
            drop(last);
            // The user's closures are in there, and this is the supervisor's task.
            let _ = dropped(other);
            (Arc::clone(spec), rules)
        }
    }
}

/// Builds a child that is started while the system runs.
pub(super) fn dynamic(
    node: &Arc<Supervisor>,
    spec: &Arc<ChildSpec>,
    kept: Option<Serial>,
) -> Result<(ChildOptions, Ward), SpecError> {
    dynamic_child(&node.path, spec, node.spec.auto_shutdown, kept.is_some())?;
    let path = node.path.join(&spec.id);
    if let Some((name, domain)) = defined_by(spec) {
        define_domain(&node.hub, name, domain, &path)?;
    }
    let (spec, rules) = template(node, spec);
    let built = slot(&spec, &path, rules, &node.hub, &node.registry, node.roster());
    if let Err(error) = node.registry.wire(&built.slot) {
        node.registry.forget(&path);
        return Err(error);
    }
    let ward = Ward {
        managed: built.slot,
        shutdown: spec.shutdown,
        dynamic: true,
        kept,
        spec: Some(Arc::clone(&spec)),
    };
    Ok((ChildOptions::of(&spec), ward))
}

/// Builds a child again that an earlier process has started from a template; it begins with its supervisor.
pub(crate) fn again(
    node: &Arc<Supervisor>,
    spec: &Arc<ChildSpec>,
    serial: Serial,
) -> Result<(), SpecError> {
    if node.registry.get(&node.path.join(&spec.id)).is_some() {
        let (parent, id) = (node.path.to_string(), spec.id.to_string());
        return Err(SpecError::DuplicateId { parent, id });
    }
    let (options, ward) = dynamic(node, spec, Some(serial))?;
    node.keep(options, Ward { dynamic: false, ..ward });
    Ok(())
}
