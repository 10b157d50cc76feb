//! Who is asked, and whose requests a store keeps.

use std::collections::BTreeSet;

use mainstay::checkpoint::{Durability, Scope};
use mainstay::id::ChildPath;
use mainstay::policy::deaths::PROCESS_DEATHS;

use super::super::file::{self, GroupKind, TreeFile};
use super::super::verify;
use super::{TASKS, Tree, find};

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

/// Whether the requests of a group survive the process: of the one that is asked, and of those of models that
/// say so, which their agents join again.
pub(crate) fn keeps(file: &TreeFile, name: &str) -> bool {
    let inner = || {
        find(&file.groups, name).is_some_and(|group| {
            let says = group.durable.as_ref().is_some_and(|durable| *durable.get_ref());
            says && group.kind.get_ref().is_of_models() && file.store.is_some()
        })
    };
    kept_group(file) == Some(name) || inner()
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

impl Tree {
    /// Whoever is asked although there is a store that does not keep it: a model that agents ask, too, or a
    /// group that says so.
    pub(crate) fn unkept(&self) -> Option<&str> {
        let entry = entry(&self.file).filter(|_| self.file.store.is_some())?;
        let keeps = find(&self.file.agents, entry).is_some() || kept_model(&self.file).is_some();
        (!keeps && kept_group(&self.file) != Some(entry)).then_some(entry)
    }

    /// What a write to the store must survive.
    pub(crate) fn durability(&self) -> Durability {
        let store = self.file.store.as_ref().and_then(|store| store.get_ref().durability.as_ref());
        match store.map(|it| *it.get_ref()).unwrap_or_default() {
            file::Durability::Sync => Durability::Sync,
            file::Durability::Async => Durability::Async,
            file::Durability::Memory => Durability::Memory,
        }
    }

    /// Whether `mainstay store` has something to look at.
    pub(crate) fn has_store(&self) -> bool {
        self.file.store.as_ref().is_some_and(|store| store.get_ref().path.is_some())
    }

    /// How often in a row the process may end with a request in hand before it is set aside.
    pub(crate) fn process_deaths(&self) -> u32 {
        let store = self.file.store.as_ref().and_then(|it| it.get_ref().process_deaths.as_ref());
        store.map_or(PROCESS_DEATHS, |ends| ends.get_ref().get())
    }

    /// Whether this is a group that agents ask, and nobody else.
    pub(crate) fn is_inner(&self, child: &ChildPath) -> bool {
        kept_group(&self.file) != Some(child.id()) && keeps(&self.file, child.id())
    }

    /// Those who are asked by agents, and do nothing by that: people, groups of people, and those who take the tasks
    /// that agents give to agents.
    pub(crate) fn only_asked(&self) -> BTreeSet<ChildPath> {
        let names = verify::Names::of(&self.file);
        let agents = self.file.agents.keys().map(|name| name.get_ref().as_str());
        let agents = agents.filter(|name| names.is_sub_agent(name));
        let agents = agents.map(|name| format!("{name}/{TASKS}"));
        let person = |name: &str| find(&self.file.people, name).is_some();
        let groups = self.file.groups.iter().filter(|(_, group)| {
            group.members.get_ref().iter().all(|member| person(member.get_ref()))
        });
        let people = self.file.people.keys().chain(groups.map(|(name, _)| name));
        let all = agents.chain(people.map(|name| name.get_ref().clone()));
        all.map(|id| ChildPath::new(format!("{}/{id}", self.name))).collect()
    }

    /// Whether what a question did is undone when it fails, where it has an undo.
    pub(crate) fn undoes(&self) -> bool {
        self.scope() == Some(Scope::Transaction)
    }

    /// Whether who is asked is begun again by the process after this one.
    pub(crate) fn outlives_the_process(&self) -> bool {
        self.file.store.is_some()
            && self.durability() != Durability::Memory
            && self.unkept().is_none()
    }
}
