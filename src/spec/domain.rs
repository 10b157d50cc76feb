//! Quota domains in specs: who shares one, and by which numbers it runs.
//!
//! *Invariant.* A domain is one thing in the whole system: two definitions of it that differ are
//! refused.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::{ChildSpec, Node, SupervisorSpec};
use crate::circuit::DomainSpec;
use crate::error::SpecError;
use crate::id::ChildPath;

impl ChildSpec {
    /// The quota domain: what shares one provider's limits (account, key, model family). A 429 to one
    /// child closes it for all, and they share a retry budget.
    ///
    /// # Default
    /// The child's own.
    #[must_use]
    pub fn quota_domain(mut self, domain: impl AsRef<str>) -> Self {
        self.quota_domain = Some(Arc::from(domain.as_ref()));
        self
    }

    /// [`ChildSpec::quota_domain`], and how that domain closes, opens and pays for retries. Whoever says
    /// that of one domain says the same, wherever it stands.
    ///
    /// # Default
    /// [`DomainSpec::default`], for a domain that nobody defines.
    #[must_use]
    pub fn quota_domain_with(mut self, domain: impl AsRef<str>, spec: DomainSpec) -> Self {
        self.domain_spec = Some(spec);
        self.quota_domain(domain)
    }
}

impl SupervisorSpec {
    /// How the quota domain of this name closes, opens and pays for retries. Domains are known by name
    /// in the whole system, wherever they are defined; two definitions that differ are refused, and so is
    /// one that no child of the tree uses, unless children may come later: there is a dynamic supervisor
    /// here or below, or one without children.
    ///
    /// # Default
    /// [`DomainSpec::default`], for a domain that nobody defines.
    #[must_use]
    pub fn quota_domain(mut self, domain: impl AsRef<str>, spec: DomainSpec) -> Self {
        self.domains.push((Arc::from(domain.as_ref()), spec));
        self
    }
}

/// The domains that are defined in a tree, each with where it is first.
pub(crate) type Domains = BTreeMap<Arc<str>, (ChildPath, DomainSpec)>;

/// Every definition of a domain at and below `spec`.
pub(crate) fn domains(spec: &SupervisorSpec, path: &ChildPath) -> Result<Domains, SpecError> {
    let mut found = Domains::new();
    collect(spec, path, &mut found)?;
    let mut used = HashSet::new();
    note_used(spec, path, &mut used);
    all_used(spec, path, &used)?;
    Ok(found)
}

/// The domains that children use: the named ones, and the path of a child that names none, which is the
/// name of its own.
fn note_used(spec: &SupervisorSpec, path: &ChildPath, used: &mut HashSet<Arc<str>>) {
    for node in &spec.children {
        let below = path.join(node.id());
        match node {
            Node::Child(child) => {
                let own = || Arc::from(below.as_str());
                used.insert(child.quota_domain.clone().unwrap_or_else(own));
            }
            Node::Supervisor(inner) => note_used(inner, &below, used),
            Node::Group(group) => note_used(&group.supervisor, &below, used),
        }
    }
}

/// A definition that nobody runs by is a slip of the pen: the domain that was meant runs by the default.
fn all_used(
    spec: &SupervisorSpec,
    path: &ChildPath,
    used: &HashSet<Arc<str>>,
) -> Result<(), SpecError> {
    if let Some((name, _)) = spec.domains.iter().find(|(name, _)| !used.contains(name))
        && !may_grow(spec)
    {
        return Err(SpecError::UnusedDomain { path: path.to_string(), domain: name.to_string() });
    }
    spec.children.iter().try_for_each(|node| {
        let below = path.join(node.id());
        match node {
            Node::Child(_) => Ok(()),
            Node::Supervisor(inner) => all_used(inner, &below, used),
            Node::Group(group) => all_used(&group.supervisor, &below, used),
        }
    })
}

/// Whether this is a place for children that are started while the system runs.
fn may_grow(spec: &SupervisorSpec) -> bool {
    spec.dynamic
        || !spec.templates.is_empty()
        || spec.children.is_empty()
        || spec.children.iter().any(|node| match node {
            Node::Supervisor(inner) => may_grow(inner),
            Node::Child(_) | Node::Group(_) => false,
        })
}

fn collect(spec: &SupervisorSpec, path: &ChildPath, found: &mut Domains) -> Result<(), SpecError> {
    for (name, domain) in &spec.domains {
        define(name, *domain, path, found)?;
    }
    for node in &spec.children {
        let below = path.join(node.id());
        match node {
            Node::Child(child) => {
                if let Some((name, domain)) = defined_by(child) {
                    define(name, domain, &below, found)?;
                }
            }
            Node::Supervisor(inner) => collect(inner, &below, found)?,
            Node::Group(group) => collect(&group.supervisor, &below, found)?,
        }
    }
    Ok(())
}

/// What a child's spec says of its domain.
pub(crate) fn defined_by(child: &ChildSpec) -> Option<(&Arc<str>, DomainSpec)> {
    child.quota_domain.as_ref().zip(child.domain_spec)
}

fn define(
    name: &Arc<str>,
    spec: DomainSpec,
    path: &ChildPath,
    found: &mut Domains,
) -> Result<(), SpecError> {
    check(name, &spec, path)?;
    match found.entry(Arc::clone(name)) {
        Entry::Vacant(entry) => {
            entry.insert((path.clone(), spec));
        }
        Entry::Occupied(entry) if entry.get().1 != spec => {
            return Err(SpecError::DomainConflict {
                domain: name.to_string(),
                one: entry.get().0.to_string(),
                other: path.to_string(),
            });
        }
        Entry::Occupied(_) => {}
    }
    Ok(())
}

/// Whether the domain can run by this definition at `path`.
pub(crate) fn check(name: &str, spec: &DomainSpec, path: &ChildPath) -> Result<(), SpecError> {
    if name.trim().is_empty() {
        return Err(SpecError::OutOfRange {
            path: path.to_string(),
            what: "the name of a quota domain",
            value: format!("{name:?}"),
            expected: "a name that is not empty".to_owned(),
        });
    }
    spec.validate(&format!("{path} (quota domain {name})"))
}
