//! The checks of a whole tree of specs.

use std::any::TypeId;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::{
    AutoShutdown, ChildLimit, ChildSpec, GroupKind, GroupSpec, Limit, MAX_MEMBERS, Node,
    RestartType, Role, SupervisorSpec, Weigh,
};
use crate::checkpoint::{Interval, VALIDITY};
use crate::error::SpecError;
use crate::fault::EffectKind;
use crate::id::ChildPath;
use crate::policy::Hedge;

/// What can be needed: the type of its port.
struct Target {
    port: TypeId,
    type_name: &'static str,
    /// The paths it may wait for: a group waits for its members.
    waits_for: Vec<ChildPath>,
}

impl SupervisorSpec {
    /// Checks the whole tree below, fields and combinations, without starting anything.
    ///
    /// # Errors
    /// The first offence, with its path.
    pub fn validate(&self) -> Result<(), SpecError> {
        tree(self)
    }

    /// The same for what is watched: `covered` says whether fallbacks of a kind of group are.
    pub(crate) fn validate_watched(
        &self,
        covered: impl Fn(GroupKind) -> bool,
    ) -> Result<(), SpecError> {
        watched(self, &ChildPath::new(&*self.id), &covered)
    }
}

/// Checks the tree below `root`.
fn tree(root: &SupervisorSpec) -> Result<(), SpecError> {
    let path = ChildPath::new(&*root.id);
    id("", &root.id)?;
    let mut targets = BTreeMap::new();
    supervisor(root, &path, &mut targets)?;
    super::domains(root, &path)?;
    let mut needs = Vec::new();
    collect_needs(root, &path, &mut needs);
    for (child, spec) in needs {
        for need in spec.all_needs() {
            let Some(found) = resolve(&child, &need.name, |path| targets.contains_key(path)) else {
                return Err(SpecError::UnknownNeed {
                    child: child.to_string(),
                    need: need.name.clone(),
                });
            };
            let target = &targets[&found];
            if target.port != need.port {
                return Err(SpecError::NeedType {
                    child: child.to_string(),
                    need: need.name.clone(),
                    wanted: need.type_name.to_owned(),
                    found: target.type_name.to_owned(),
                });
            }
            if let Some(own) = targets.get_mut(&child) {
                own.waits_for.push(found);
            }
        }
    }
    cycle(&targets)
}

/// The path that `need` names, seen from `child`: beside it, then above it, then as a whole path.
/// A child does not find itself.
pub(crate) fn resolve(
    child: &ChildPath,
    need: &str,
    exists: impl Fn(&ChildPath) -> bool,
) -> Option<ChildPath> {
    let mut scope = child.parent();
    while let Some(parent) = scope {
        let candidate = parent.join(need);
        if candidate != *child && exists(&candidate) {
            return Some(candidate);
        }
        scope = parent.parent();
    }
    let whole = ChildPath::new(need);
    exists(&whole).then_some(whole)
}

/// Checks one child spec that is started below `parent` while the system runs, from a template if `made` says so.
pub(crate) fn dynamic_child(
    parent: &ChildPath,
    spec: &ChildSpec,
    auto: AutoShutdown,
    made: bool,
) -> Result<(), SpecError> {
    id(parent.as_str(), &spec.id)?;
    let path = parent.join(&spec.id);
    if let Some((name, domain)) = super::defined_by(spec) {
        super::domain::check(name, &domain, &path)?;
    }
    if spec.durable && !made {
        // No other process could make it again, and without it no store that holds a request of its
        // could be recovered.
        return Err(SpecError::BadCombination {
            path: path.to_string(),
            one: "durable".to_owned(),
            other: "a child that is started while the system runs, and from no template".to_owned(),
        });
    }
    child(spec, &path, auto)
}

fn id(parent: &str, id: &str) -> Result<(), SpecError> {
    if id.is_empty() || id.contains('/') || id.chars().any(char::is_control) {
        return Err(SpecError::InvalidId { parent: parent.to_owned(), id: id.to_owned() });
    }
    Ok(())
}

fn limit(path: &ChildPath, limit: Limit, what: &'static str) -> Result<(), SpecError> {
    if limit.period.is_zero() {
        return Err(SpecError::ZeroPeriod { path: path.to_string(), what });
    }
    Ok(())
}

fn not_zero(
    path: &ChildPath,
    value: Option<Duration>,
    what: &'static str,
) -> Result<(), SpecError> {
    if value.is_some_and(|value| value.is_zero()) {
        return Err(SpecError::Zero { path: path.to_string(), what });
    }
    Ok(())
}

/// A request with which the process has never ended is not set aside.
fn deaths(path: &str, ends: u32) -> Result<(), SpecError> {
    if ends > 0 {
        return Ok(());
    }
    let what = "the number of ends of the process after which a request is set aside";
    Err(SpecError::Zero { path: path.to_owned(), what })
}

fn significance(
    path: &ChildPath,
    significant: bool,
    restart: RestartType,
    auto: AutoShutdown,
) -> Result<(), SpecError> {
    if !significant {
        return Ok(());
    }
    let other = if restart == RestartType::Permanent {
        "permanent, which does not end by itself"
    } else if auto == AutoShutdown::Never {
        "a supervisor that never shuts down by itself"
    } else {
        return Ok(());
    };
    Err(SpecError::BadCombination {
        path: path.to_string(),
        one: "significant".to_owned(),
        other: other.to_owned(),
    })
}

/// Whether there may be a state below that a line can hold. What is started while the system runs has one when
/// it is made from a template.
fn has_state(spec: &SupervisorSpec) -> bool {
    !spec.templates.is_empty()
        || spec.children.iter().any(|node| match node {
            Node::Child(child) => child.stateful && child.durable,
            Node::Supervisor(inner) => has_state(inner),
            Node::Group(group) => has_state(&group.supervisor),
        })
}

fn supervisor(
    spec: &SupervisorSpec,
    path: &ChildPath,
    targets: &mut BTreeMap<ChildPath, Target>,
) -> Result<(), SpecError> {
    limit(path, spec.intensity, "the restart intensity")?;
    if let ChildLimit::At(child_limit) = spec.child_limit {
        limit(path, child_limit, "the child limit")?;
    }
    if let Some(policy) = &spec.policy {
        policy.validate(path.as_str())?;
    }
    if let Some((base, max)) = spec.backoff {
        not_zero(path, Some(base), "the restart backoff")?;
        if base > max {
            return Err(SpecError::OutOfRange {
                path: path.to_string(),
                what: "the restart backoff",
                value: format!("{base:?}"),
                expected: format!("at most its maximum, {max:?}"),
            });
        }
    }
    not_zero(path, spec.lines, "the time between recovery lines")?;
    if let Some(period) = spec.lines.filter(|period| *period >= VALIDITY) {
        return Err(SpecError::OutOfRange {
            path: path.to_string(),
            what: "the time between recovery lines",
            value: format!("{period:?}"),
            expected: format!(
                "less than {VALIDITY:?}, after which a line is too old to be returned to"
            ),
        });
    }
    if spec.lines.is_some() && !has_state(spec) {
        return Err(SpecError::BadCombination {
            path: path.to_string(),
            one: "lines_every".to_owned(),
            other: "no durable, stateful child below, and no template of one".to_owned(),
        });
    }
    if let Some(max) = spec.max_children
        && spec.children.len() > max.get()
    {
        return Err(SpecError::OutOfRange {
            path: path.to_string(),
            what: "the number of children",
            value: spec.children.len().to_string(),
            expected: format!("at most max_children, {max}"),
        });
    }
    super::template::validate(spec, path)?;
    let mut seen = HashSet::new();
    for node in &spec.children {
        id(path.as_str(), node.id())?;
        if !seen.insert(node.id()) {
            return Err(SpecError::DuplicateId {
                parent: path.to_string(),
                id: node.id().to_owned(),
            });
        }
        let below = path.join(node.id());
        match node {
            Node::Child(spec_below) => {
                child(spec_below, &below, spec.auto_shutdown)?;
                targets.insert(
                    below,
                    Target {
                        port: spec_below.port,
                        type_name: spec_below.port_name,
                        waits_for: Vec::new(),
                    },
                );
            }
            Node::Supervisor(inner) => {
                significance(&below, inner.significant, inner.restart, spec.auto_shutdown)?;
                supervisor(inner, &below, targets)?;
            }
            Node::Group(group_spec) => group(group_spec, &below, targets)?,
        }
    }
    Ok(())
}

fn child(spec: &ChildSpec, path: &ChildPath, auto: AutoShutdown) -> Result<(), SpecError> {
    significance(path, spec.significant, spec.restart, auto)?;
    if spec.concurrency == 0 {
        return Err(SpecError::Zero { path: path.to_string(), what: "the concurrency" });
    }
    if spec.stateful && spec.concurrency > 1 {
        return Err(SpecError::BadCombination {
            path: path.to_string(),
            one: "stateful".to_owned(),
            other: format!("a concurrency of {}", spec.concurrency),
        });
    }
    mailbox(path.as_str(), spec.mailbox, spec.mailbox_bytes.as_ref(), spec.request)?;
    if let Some(codec) = &spec.codec
        && codec.port != spec.port
    {
        return Err(SpecError::NeedType {
            child: path.to_string(),
            need: "the behavior whose requests are written down".to_owned(),
            wanted: codec.port_name.to_owned(),
            found: spec.port_name.to_owned(),
        });
    }
    match spec.checkpoint {
        Interval::Steps(0) | Interval::Units { n: 0, .. } => {
            return Err(SpecError::Zero {
                path: path.to_string(),
                what: "the checkpoint interval",
            });
        }
        _ => {}
    }
    deaths(path.as_str(), spec.process_deaths)?;
    not_zero(path, spec.attempt_timeout, "the attempt timeout")?;
    not_zero(path, spec.start_timeout, "the start timeout")?;
    not_zero(path, spec.deadline, "the deadline")?;
    if let (Some(deadline), Some(attempt)) = (spec.deadline, spec.attempt_timeout)
        && deadline < attempt
    {
        return Err(SpecError::DeadlineTooShort { path: path.to_string(), deadline, attempt });
    }
    if let Some(child_limit) = spec.child_limit {
        limit(path, child_limit, "the child limit")?;
    }
    if let Some(policy) = &spec.policy {
        policy.validate(path.as_str())?;
        // What the type says is checked by the compiler; this is for kinds that are found out later.
        if policy.retries() && spec.effect == EffectKind::Irreversible {
            return Err(SpecError::RetriesIrreversible { path: path.to_string() });
        }
    }
    Ok(())
}

/// Every group with somebody to fall back to is watched: `covered` says whether fallbacks of a kind are.
fn watched(
    spec: &SupervisorSpec,
    path: &ChildPath,
    covered: &impl Fn(GroupKind) -> bool,
) -> Result<(), SpecError> {
    for node in &spec.children {
        let below = path.join(node.id());
        match node {
            Node::Supervisor(inner) => watched(inner, &below, covered)?,
            Node::Group(group) if group.members().count() > 1 && !covered(group.kind) => {
                return Err(SpecError::Unmonitored { path: below.to_string() });
            }
            Node::Group(_) | Node::Child(_) => {}
        }
    }
    Ok(())
}

fn group(
    spec: &GroupSpec,
    path: &ChildPath,
    targets: &mut BTreeMap<ChildPath, Target>,
) -> Result<(), SpecError> {
    let name = path.to_string();
    if !spec.monitored {
        return Err(SpecError::Unmonitored { path: name });
    }
    let members: Vec<_> = spec.members().collect();
    let Some(first) = members.first() else { return Err(SpecError::EmptyGroup { path: name }) };
    if members.len() > MAX_MEMBERS {
        return Err(SpecError::ChainTooLong {
            path: name,
            members: members.len(),
            limit: MAX_MEMBERS,
        });
    }
    supervisor(&spec.supervisor, path, targets)?;
    not_zero(path, spec.deadline, "the deadline")?;
    spec.circuit.validate(path.as_str())?;
    for member in &members {
        if member.port != first.port {
            return Err(SpecError::MemberType {
                group: name,
                member: member.id.to_string(),
                wanted: first.port_name.to_owned(),
                found: member.port_name.to_owned(),
            });
        }
    }
    let known = |id: &str| members.iter().any(|member| &*member.id == id);
    for (member, grant) in &spec.grants {
        if !known(member) {
            return Err(SpecError::UnknownTarget {
                path: name,
                member: member.clone(),
                target: member.clone(),
            });
        }
        if grant.owner.trim().is_empty() || grant.reason.trim().is_empty() {
            return Err(SpecError::GrantWithoutReason { path: name, member: member.clone() });
        }
    }
    let mut listed = HashSet::new();
    for (member, list) in &spec.allow {
        if !listed.insert(member) {
            return Err(SpecError::BadCombination {
                path: name,
                one: format!("an allow-list of {member:?}"),
                other: "a second one".to_owned(),
            });
        }
        for target in std::iter::once(member).chain(list) {
            if !known(target) {
                return Err(SpecError::UnknownTarget {
                    path: name,
                    member: member.clone(),
                    target: target.clone(),
                });
            }
        }
    }
    allow_cycle(&name, &members, &spec.allow)?;
    // Who declares nothing has nothing: no guardrails to keep, and no rights to hand on.
    let declared = |member: &ChildSpec| member.capabilities.as_deref().cloned().unwrap_or_default();
    let primary = declared(first);
    for member in &members[1..] {
        let granted = spec.grants.iter().any(|(id, _)| **id == *member.id);
        if let Some(what) = declared(member).weaker_than(&primary)
            && !granted
        {
            return Err(SpecError::Downgrade {
                path: name,
                member: member.id.to_string(),
                primary: first.id.to_string(),
                what: what.to_owned(),
            });
        }
    }
    deaths(&name, spec.process_deaths)?;
    if let Some(codec) = &spec.durable {
        if codec.port != first.port {
            return Err(SpecError::NeedType {
                child: name,
                need: "the behavior whose requests are written down".to_owned(),
                wanted: codec.port_name.to_owned(),
                found: first.port_name.to_owned(),
            });
        }
        if spec.hedge.is_some() {
            return Err(SpecError::BadCombination {
                path: name,
                one: "a hedge".to_owned(),
                other: "a durable group".to_owned(),
            });
        }
    }
    let bytes = spec.mailbox_bytes.as_ref().map(|weighed| &weighed.0);
    mailbox(&name, spec.mailbox, bytes, first.request)?;
    hedge(spec, &name, &members)?;
    targets.insert(
        path.clone(),
        Target {
            port: first.port,
            type_name: first.port_name,
            waits_for: members.iter().map(|member| path.join(&member.id)).collect(),
        },
    );
    Ok(())
}

/// The bounds of a mailbox, of a child or a group whose requests are of this type.
fn mailbox(
    path: &str,
    count: u32,
    bytes: Option<&(usize, TypeId, Weigh)>,
    request: TypeId,
) -> Result<(), SpecError> {
    if count == 0 {
        return Err(SpecError::Zero { path: path.to_owned(), what: "the mailbox" });
    }
    let Some((bytes, weighed, _)) = bytes else { return Ok(()) };
    if *bytes == 0 {
        return Err(SpecError::Zero { path: path.to_owned(), what: "the mailbox in bytes" });
    }
    if *weighed != request {
        return Err(SpecError::BadCombination {
            path: path.to_owned(),
            one: "the weight of a mailbox in bytes".to_owned(),
            other: "a behavior with another request type".to_owned(),
        });
    }
    Ok(())
}

/// A hedged request is worked on by two members at a time: what they do must bear it.
fn hedge(spec: &GroupSpec, group: &str, members: &[&Arc<ChildSpec>]) -> Result<(), SpecError> {
    let Some(hedge) = spec.hedge else { return Ok(()) };
    let refuse = |member: &ChildSpec, what: String| {
        Err(SpecError::BadCombination {
            path: format!("{group}/{}", member.id),
            one: what,
            other: "a group that hedges".to_owned(),
        })
    };
    if hedge == Hedge::After(Duration::ZERO) {
        return Err(SpecError::Zero { path: group.to_owned(), what: "the delay of a hedge" });
    }
    let alike: Vec<_> = members
        .iter()
        .filter(|member| matches!(member.role, Role::Sibling | Role::Content))
        .collect();
    if alike.len() < 2 || spec.kind == GroupKind::Step {
        return Err(SpecError::BadCombination {
            path: group.to_owned(),
            one: "a hedge".to_owned(),
            other: "a group without two members that do the same work".to_owned(),
        });
    }
    for member in alike {
        if !member.effect.is_replay_safe() {
            return refuse(
                member,
                format!("the effect {:?}, which is not replay-safe", member.effect),
            );
        }
        if member.stateful {
            return refuse(member, "a member with state".to_owned());
        }
    }
    Ok(())
}

fn allow_cycle(
    group: &str,
    members: &[&Arc<ChildSpec>],
    allow: &[(String, Vec<String>)],
) -> Result<(), SpecError> {
    let ids: Vec<&str> = members.iter().map(|member| &*member.id).collect();
    let found = find_cycle(ids.iter().copied(), |from: &&str| {
        match allow.iter().find(|(member, _)| member == from) {
            Some((_, list)) => list.iter().map(String::as_str).collect(),
            // Who has no list may hand on to all who follow.
            None => ids.iter().copied().skip_while(|id| id != from).skip(1).collect(),
        }
    });
    match found {
        Some(cycle) => Err(SpecError::FallbackCycle {
            path: group.to_owned(),
            cycle: cycle.into_iter().map(str::to_owned).collect(),
        }),
        None => Ok(()),
    }
}

fn cycle(targets: &BTreeMap<ChildPath, Target>) -> Result<(), SpecError> {
    let found = find_cycle(targets.keys().cloned(), |path: &ChildPath| {
        targets.get(path).map(|target| target.waits_for.clone()).unwrap_or_default()
    });
    match found {
        Some(path) => Err(SpecError::NeedCycle {
            path: path.into_iter().map(|path| path.to_string()).collect(),
        }),
        None => Ok(()),
    }
}

/// The first circle found by a depth-first walk, its first node again at the end. Iterative, since a
/// chain of needs may be long.
fn find_cycle<N: Clone + Eq + std::hash::Hash>(
    starts: impl Iterator<Item = N>,
    next: impl Fn(&N) -> Vec<N>,
) -> Option<Vec<N>> {
    let mut done: HashSet<N> = HashSet::new();
    for start in starts {
        if done.contains(&start) {
            continue;
        }
        let mut on_path: HashSet<N> = HashSet::from([start.clone()]);
        let mut stack = vec![(start.clone(), next(&start))];
        while let Some((node, left)) = stack.last_mut() {
            match left.pop() {
                None => {
                    on_path.remove(node);
                    done.insert(node.clone());
                    stack.pop();
                }
                Some(below) if on_path.contains(&below) => {
                    let mut cycle: Vec<N> = stack
                        .iter()
                        .map(|(node, _)| node.clone())
                        .skip_while(|node| *node != below)
                        .collect();
                    cycle.push(below);
                    return Some(cycle);
                }
                Some(below) if done.contains(&below) => {}
                Some(below) => {
                    on_path.insert(below.clone());
                    let below_next = next(&below);
                    stack.push((below, below_next));
                }
            }
        }
    }
    None
}

fn collect_needs<'a>(
    spec: &'a SupervisorSpec,
    path: &ChildPath,
    needs: &mut Vec<(ChildPath, &'a ChildSpec)>,
) {
    for node in &spec.children {
        let below = path.join(node.id());
        match node {
            Node::Child(child) => needs.push((below, child)),
            Node::Supervisor(inner) => collect_needs(inner, &below, needs),
            Node::Group(group) => collect_needs(&group.supervisor, &below, needs),
        }
    }
}
