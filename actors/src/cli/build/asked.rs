//! Who is asked, and whose requests a store keeps.

use super::super::file::{GroupKind, TreeFile};
use super::super::verify;
use super::find;

/// Who may be asked: the groups of agents, and the agents in no group; where there are no agents, the
/// groups of models, and the models in no group.
pub(crate) fn entries(file: &TreeFile) -> Vec<&str> {
    let names = verify::Names::of(file);
    let no_agents = file.agents.is_empty();
    let answers = |kind: GroupKind| match no_agents {
        true => kind.is_of_models(),
        false => kind == GroupKind::Step,
    };
    let groups = file.groups.iter().filter(|(_, group)| answers(*group.kind.get_ref()));
    let groups = groups.map(|(name, _)| name.get_ref().as_str());
    let singles: Vec<&str> = match no_agents {
        true => file.models.keys().map(|name| name.get_ref().as_str()).collect(),
        false => file.agents.keys().map(|name| name.get_ref().as_str()).collect(),
    };
    let alone = |name: &&str| !names.is_member(name) && !names.is_sub_agent(name);
    groups.chain(singles.into_iter().filter(alone)).collect()
}

/// The group whose requests survive the process: the one that is asked, where there is a store.
pub(crate) fn kept_group(file: &TreeFile) -> Option<&str> {
    let entry = entry(file).filter(|_| file.store.is_some())?;
    let group = find(&file.groups, entry)?;
    group.durable.as_ref().is_none_or(|durable| *durable.get_ref()).then_some(entry)
}

/// The model whose requests survive the process: the one that is asked, where there is a store and no
/// agent asks it, too.
pub(crate) fn kept_model(file: &TreeFile) -> Option<&str> {
    let entry = entry(file).filter(|_| file.store.is_some())?;
    find(&file.models, entry)?;
    let shared = file.agents.values().any(|agent| agent.model.get_ref() == entry);
    (!shared).then_some(entry)
}

/// Who is asked.
pub(crate) fn entry(file: &TreeFile) -> Option<&str> {
    let named = file.entry.as_ref().map(|entry| entry.get_ref().as_str());
    named.or_else(|| entries(file).into_iter().next())
}
