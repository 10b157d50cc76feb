//! The chaos plan: what to try a tree with, and what this one then does.
//!
//! *Invariant.* The rates are the playbook's; what comes of them is asked of the runtime's own rules.

use std::fmt::Write;
use std::num::NonZeroU32;

use mainstay::fault::{Class, EffectKind, Fault};
use mainstay::policy::eligibility::fits;
use mainstay::policy::{Candidate, Policy};

use super::super::build::{Tree, entry, reach};
use super::super::file::{Group, TreeFile};
use super::super::profile::{CHAOS, Injected, On, Profile};
use super::align;

/// Something of the tree that may fail.
struct Target {
    name: String,
    /// What one attempt of it does to the world.
    effect: EffectKind,
}

/// The plan of a tree.
pub(super) fn plan(page: &mut String, tree: &Tree, profile: Option<Profile>, policy: &Policy) {
    let _ =
        writeln!(page, "\nChaos plan: what `check --chaos` tries it with, and what it then does");
    let rows = CHAOS.iter().chain(profile.iter().flat_map(|profile| profile.chaos()));
    for Injected { id, what, rate, class, on, .. } in rows {
        let _ = writeln!(page, "  {id}  {what}: {rate}");
        let mut lines: Vec<[String; 3]> = Vec::new();
        for target in targets(tree, *on) {
            let then = then(tree, &target, *class, policy);
            lines.push(["    ".to_owned(), target.name, then]);
        }
        if lines.is_empty() {
            let _ = writeln!(page, "        nothing here can fail so");
        }
        align(page, &lines);
    }
}

fn targets(tree: &Tree, on: On) -> Vec<Target> {
    let file = &tree.file;
    let of = |name: &str, effect| Target { name: name.to_owned(), effect };
    let models = || {
        let all = file.models.iter().filter(|(_, model)| !model.kind.get_ref().gives_text());
        all.map(|(name, _)| of(name.get_ref(), EffectKind::Pure)).collect::<Vec<_>>()
    };
    let tools = || {
        let mut all: Vec<_> =
            tree.tool_effects().into_iter().map(|(name, effect)| Target { name, effect }).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    };
    match on {
        On::Models => models(),
        On::Tools => tools(),
        On::Everything => models().into_iter().chain(tools()).collect(),
        On::Agents => file.agents.keys().map(|name| of(name.get_ref(), EffectKind::Pure)).collect(),
    }
}

fn then(tree: &Tree, target: &Target, class: Class, policy: &Policy) -> String {
    let fault = Fault::new(class, "injected");
    if fault.leaves_unknown(target.effect) {
        return "not again: whether it happened is unknown, and a person settles it (/effects)"
            .to_owned();
    }
    let cap = if fault.is_replay_safe(target.effect) { policy.rule(class).cap } else { 0 };
    let waits: Vec<_> = (1..=cap)
        .filter_map(NonZeroU32::new)
        .filter_map(|n| policy.delay(class, n))
        .map(|wait| if wait.is_zero() { "at once".to_owned() } else { format!("{wait:?}") })
        .collect();
    let retries = match waits.len() {
        0 => "no retry".to_owned(),
        1 => format!("1 retry ({})", waits[0]),
        many => format!("{many} retries ({})", waits.join(", ")),
    };
    format!("{retries}, then {}", substitute(tree, &target.name, class))
}

/// Who stands in for a member of a group, or what comes of its request.
fn substitute(tree: &Tree, name: &str, class: Class) -> String {
    let file = &tree.file;
    let group = file.groups.iter().find(|(_, group)| place(group, name).is_some());
    let Some((id, group)) = group else { return end(file, name) };
    let members = group.members.get_ref();
    let from = place(group, name).unwrap_or_default();
    let next = members.iter().enumerate().skip(from + 1).find(|(index, member)| {
        let candidate = candidate(file, group, name, member.get_ref(), *index);
        fits(class, group.kind.get_ref().watched(), &candidate).is_ok()
    });
    match next {
        Some((_, member)) => member.get_ref().clone(),
        None => end(file, id.get_ref()),
    }
}

fn place(group: &Group, name: &str) -> Option<usize> {
    group.members.get_ref().iter().position(|member| member.get_ref() == name)
}

/// How one member looks to another that has failed.
fn candidate(file: &TreeFile, group: &Group, from: &str, to: &str, index: usize) -> Candidate {
    let model = |name: &str| {
        file.models.iter().find(|(id, _)| id.get_ref() == name).map(|(_, model)| model)
    };
    let (failed, other) = (model(from), model(to));
    let window = |model: Option<&super::Model>| {
        model.and_then(|model| model.context_window.as_ref()).map(|window| *window.get_ref())
    };
    let domain = |model: Option<&super::Model>| {
        model.and_then(|it| it.quota_domain.as_ref().map(|own| own.get_ref().clone()))
    };
    let is_text = |tool: &super::super::file::Tool| tool.text.is_some();
    Candidate {
        same_quota_domain: domain(failed).is_some() && domain(failed) == domain(other),
        larger_window: window(failed).zip(window(other)).is_some_and(|(a, b)| b > a),
        simpler: *group.kind.get_ref() == super::super::file::GroupKind::Step && index > 0,
        default_value: other.is_some_and(|model| model.kind.get_ref().gives_text())
            || file.tools.iter().any(|(id, tool)| id.get_ref() == to && is_text(tool)),
        human: file.people.keys().any(|person| person.get_ref() == to),
        ..Candidate::new(index)
    }
}

/// What comes of a request that nobody stands in for.
fn end(file: &TreeFile, name: &str) -> String {
    if entry(file) == Some(name) {
        return "there is no answer".to_owned();
    }
    let names = super::super::verify::Names::of(file);
    let asks_model = |agent: &super::super::file::Agent| agent.model.get_ref() == name;
    if names.is_asked_as_model(name) || file.agents.values().any(asks_model) {
        return "its agent fails".to_owned();
    }
    let is_it = |other: &toml::Spanned<String>| {
        let other = other.get_ref();
        other == name || name.split_once('.').is_some_and(|(server, _)| server == other)
    };
    let mut offered =
        file.agents.values().flat_map(|agent| agent.tools.iter().chain(&agent.agents));
    if offered.any(is_it) {
        return "the agent's model is told".to_owned();
    }
    // No agent has it: it is asked to undo, or whether something has happened.
    if reach::undone_by(file).any(is_it) {
        return "what it was to undo stays, and a person settles it (/effects)".to_owned();
    }
    let mut asked = file.tools.values().flat_map(reach::asked_of);
    if asked.any(is_it) || file.groups.values().flat_map(reach::asked_of_group).any(is_it) {
        return "what it was asked about stays unknown, and a person settles it (/effects)"
            .to_owned();
    }
    "nobody: no agent has it".to_owned()
}
