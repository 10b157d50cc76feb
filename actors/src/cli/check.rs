//! `mainstay check`: what a tree will do when something fails, on one page.

use std::fmt::Write;
use std::num::NonZeroU32;

use mainstay::fault::Class;
use mainstay::policy::Policy;
use unicode_width::UnicodeWidthStr;

use super::build::Tree;
use super::file::{Durability, GroupKind};
use super::profile::{ALERTS, CHAOS, LIMITS, NO_CHECKPOINT_RULE, OBJECTIVES, Row, SCOPES};

/// The whole page.
pub(crate) fn page(tree: &Tree) -> String {
    let profile = tree.file.profile.as_ref().map(|profile| *profile.get_ref());
    let policy = tree.policy();
    let mut page = String::new();
    let named = profile.map_or("no profile", |profile| profile.name());
    let _ = writeln!(page, "{}: valid ({named}); {} answers", tree.name, tree.entry());

    classes(&mut page, &policy);
    allow_list(&mut page, tree);

    let mut scopes = SCOPES.to_vec();
    scopes.push(profile.map_or(NO_CHECKPOINT_RULE, |profile| profile.checkpoint()));
    table(&mut page, "Scopes and limits", &["", "rollback of", "limit"], &scopes);
    let _ = writeln!(page);
    rows(&mut page, &LIMITS);
    store(&mut page, tree);

    if let Some(profile) = profile {
        table(&mut page, "Ladder of the profile", &["", "rung", "what"], profile.ladder());
    }
    let mut objectives = OBJECTIVES.to_vec();
    objectives.extend(profile.iter().flat_map(|profile| profile.objectives()));
    table(&mut page, "Objectives", &["", "what", "goal"], &objectives);
    table(&mut page, "Alerts, over 5 min from 20 samples on", &["", "when", "severity"], &ALERTS);
    let mut chaos = CHAOS.to_vec();
    chaos.extend(profile.iter().flat_map(|profile| profile.chaos()));
    table(&mut page, "Chaos plan", &["", "what is injected", "rate"], &chaos);
    page
}

fn classes(page: &mut String, policy: &Policy) {
    let _ = writeln!(page, "\nClasses: what a failed attempt leads to");
    let mut lines = vec![["class", "retries", "waits", "then"].map(str::to_owned)];
    for class in Class::ALL {
        let cap = policy.rule(class).cap;
        let waits: Vec<_> = (1..=cap)
            .filter_map(NonZeroU32::new)
            .filter_map(|n| policy.delay(class, n))
            .map(|wait| if wait.is_zero() { "none".to_owned() } else { format!("{wait:?}") })
            .collect();
        lines.push([
            class.name().to_owned(),
            cap.to_string(),
            waits.join(", "),
            then(class).to_owned(),
        ]);
    }
    align(page, &lines);
    let _ = writeln!(
        page,
        "  all together: at most {} retries; one attempt at most {:?}; timeouts and tool errors only if a repeat is safe",
        policy.global_cap, policy.attempt_timeout
    );
}

/// Where a request of this class goes when it is not retried (any more).
const fn then(class: Class) -> &'static str {
    match class {
        Class::Permission | Class::BudgetDenied | Class::Cancelled => "nobody: it ends here",
        Class::RateLimit | Class::QuotaExhausted => "a sibling in another quota domain",
        Class::ContextLength => "a larger window, a simpler flow",
        Class::InputValidation | Class::Business => "a simpler flow, a default",
        Class::ContentFiltered => "a content chain, a simpler flow, a default",
        _ => "a sibling",
    }
}

fn allow_list(page: &mut String, tree: &Tree) {
    let _ = writeln!(page, "\nAllow-list: who may stand in for whom");
    if tree.file.groups.is_empty() {
        let _ = writeln!(page, "  nobody: there are no groups");
    }
    for (name, group) in &tree.file.groups {
        let members: Vec<_> =
            group.members.get_ref().iter().map(|member| member.get_ref().as_str()).collect();
        let kind = match group.kind.get_ref() {
            GroupKind::Model => "model",
            GroupKind::Tool => "tool",
            GroupKind::Step => "step",
        };
        let _ = writeln!(page, "  {} ({kind}): {}", name.get_ref(), members.join(" -> "));
        for (member, grant) in &group.grants {
            let _ = writeln!(
                page,
                "    {} may be weaker: {} ({})",
                member.get_ref(),
                grant.reason.get_ref(),
                grant.owner.get_ref()
            );
        }
    }
}

fn store(page: &mut String, tree: &Tree) {
    let _ = match &tree.file.store {
        None => writeln!(page, "  store  none: state ends with the process"),
        Some(store) => {
            let store = store.get_ref();
            let durability = match store.durability.as_ref().map(|it| *it.get_ref()) {
                None | Some(Durability::Sync) => "sync",
                Some(Durability::Async) => "async",
                Some(Durability::Memory) => "memory",
            };
            writeln!(page, "  store  {durability}; {NOT_USED}")
        }
    };
}

/// Said wherever a store is named, until there is one.
pub(crate) const NOT_USED: &str = "NOT USED YET: this version keeps no state";

fn table(page: &mut String, title: &str, head: &[&str; 3], body: &[Row]) {
    let _ = writeln!(page, "\n{title}");
    let mut lines = vec![head.map(str::to_owned)];
    lines.extend(body.iter().map(|row| [row.0, row.1, row.2].map(str::to_owned)));
    align(page, &lines);
}

fn rows(page: &mut String, body: &[Row]) {
    let lines: Vec<_> = body.iter().map(|row| [row.0, row.1, row.2].map(str::to_owned)).collect();
    align(page, &lines);
}

/// Columns as wide as their widest cell.
fn align<const N: usize>(page: &mut String, lines: &[[String; N]]) {
    let width = |column: usize| lines.iter().map(|line| line[column].width()).max().unwrap_or(0);
    let widths: Vec<_> = (0..N).map(width).collect();
    for line in lines {
        let mut text = String::from(" ");
        for (cell, width) in line.iter().zip(&widths) {
            let _ = write!(text, " {cell}{} ", " ".repeat(width - cell.width()));
        }
        let _ = writeln!(page, "{}", text.trim_end());
    }
}
