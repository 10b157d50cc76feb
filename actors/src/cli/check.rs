//! `mainstay check`: what a tree will do when something fails, on one page.

use std::fmt::Write;
use std::num::NonZeroU32;
use std::time::Duration;

use mainstay::behavior::Stateful;
use mainstay::checkpoint::{Interval, LONGEST_PIN, Risk, Scope, VALIDITY};
use mainstay::circuit::CircuitSpec;
use mainstay::fault::Class;
use mainstay::points::Choice;
use mainstay::policy::eligibility::{fits, is_never_substituted};
use mainstay::policy::{Candidate, GroupKind as PolicyGroup, Hedge, Policy};
use mainstay::watch::MIN_SAMPLES;
use mainstay_actors::agent::Agent;
use unicode_width::UnicodeWidthStr;

use super::build::{Tree, keeps, kept_group, kept_model};
use super::file::{AllDown, Budget, Durability, Group, Model, Named, Price, Strategy};
use super::profile::{Here, Profile, SCOPES};
use super::verify::times::of_server;
use super::{points, watch};

mod chaos;

/// The whole page.
pub(crate) fn page(tree: &Tree) -> String {
    let profile = tree.file.profile.as_ref().map(|profile| *profile.get_ref());
    let policy = tree.policy();
    let mut page = String::new();
    let named = profile.map_or("no profile", |profile| profile.name());
    let _ = writeln!(page, "{}: valid ({named}); {} answers", tree.name, tree.entry());

    classes(&mut page, tree, &policy);
    allow_list(&mut page, tree);
    acts(&mut page, tree);
    aliases(&mut page, tree);
    endpoints(&mut page, tree);
    limits(&mut page, tree, &policy);

    if let Some(profile) = profile {
        ladder(&mut page, tree, profile, &policy);
    }
    manual_points(&mut page, tree);
    watched(&mut page, tree);
    chaos::plan(&mut page, tree, profile, &policy);
    page
}

/// Where a person may decide what becomes of a request that has failed.
fn manual_points(page: &mut String, tree: &Tree) {
    let spec = points::spec(&tree.file);
    let _ = writeln!(page, "\nManual points: where a person may decide");
    let otherwise = match &spec.otherwise {
        Choice::Continue => "the ladder goes on",
        Choice::Abort => "it fails",
        Choice::RetryAgain => "once more, where a repeat is safe",
        other => other.name(),
    };
    let row = |after: &str, wait: Option<Duration>, not: &str| {
        let (wait, then) = match wait {
            Some(wait) => (format!("waits {}", span(wait)), format!("then {otherwise}")),
            None => (not.to_owned(), String::new()),
        };
        [after.to_owned(), wait, then]
    };
    let lines = [
        row("where no rung may help", spec.at_once, "does not wait"),
        row("after retries", spec.after_retry, "does not wait"),
        row("after substitutes", spec.after_substitute, "does not wait"),
        row("after a rollback", spec.after_rollback, "is only told"),
    ];
    align(page, &lines);
}

/// What the tree is watched by when it runs.
fn watched(page: &mut String, tree: &Tree) {
    let watch = tree.watch();
    let over = span(watch.window);
    let measured = |measure| watch::never(measure, &tree.file).unwrap_or_default();
    let _ = writeln!(page, "\nObjectives, over {over}");
    let mut lines = vec![["", "what", "goal", "measured"].map(str::to_owned)];
    lines.extend(watch.slos.iter().map(|slo| {
        let reported = if slo.measure.signal().is_some() { " (reported)" } else { "" };
        let name = format!("{}{reported}", slo.name);
        [slo.id.to_string(), name, slo.target_text(), measured(&slo.measure)]
    }));
    align(page, &lines);
    let counts = if watch.count_defaulted { "a success" } else { "no success" };
    let _ = writeln!(page, "  a default answer counts as {counts} of its group");
    let _ = writeln!(page, "\nAlerts, over {over}");
    let head = ["", "when", "severity", "samples", "measured"];
    let mut lines = vec![head.map(str::to_owned)];
    lines.extend(watch.alerts.iter().map(|rule| {
        let severity = rule.severity.to_string();
        let samples = format!(">= {}", rule.min_samples);
        [rule.id.to_string(), rule.condition(), severity, samples, measured(&rule.measure)]
    }));
    if !watch.slos.is_empty() {
        let samples = format!(">= {MIN_SAMPLES}");
        let missed = ["R18", "an objective is missed", "info", &samples, ""];
        lines.push(missed.map(str::to_owned));
    }
    let spent = ["S59", "a request with no rung left", "one alert each", "", ""];
    lines.push(spent.map(str::to_owned));
    align(page, &lines);
    let _ = writeln!(page, "  an alert ends after {} without its reason", span(watch.hold));
}

/// What of an answer a model is told, and gives it again.
const MENDED: &str = "an answer that is cut off, empty, not the JSON asked for, or calls a tool in a way that cannot be read";

/// Who has a time for one attempt that is not that of the policy.
fn own_times(tree: &Tree) -> Vec<(&str, String)> {
    let past = |time: Duration| {
        if time > Policy::new().attempt_timeout { ", above the usual 30 s" } else { "" }
    };
    let models = tree.file.models.iter().filter_map(|(name, model)| {
        let time = model.timeout.as_ref()?.get_ref().0;
        Some((name.get_ref().as_str(), format!("{}, its own{}", span(time), past(time))))
    });
    let servers = tree.file.tools.iter().filter_map(|(name, tool)| {
        let (call, wait) = of_server(tool)?;
        let said = format!(
            "{} a call, its own{}; up to {} more where its server is made again",
            span(call),
            past(call),
            span(wait)
        );
        Some((name.get_ref().as_str(), said))
    });
    models.chain(servers).collect()
}

fn classes(page: &mut String, tree: &Tree, policy: &Policy) {
    let _ = writeln!(page, "\nClasses: what a failed attempt leads to");
    let mut lines = vec![["class", "retries", "waits", "then"].map(str::to_owned)];
    for class in Class::ALL {
        let cap = policy.rule(class).cap;
        lines.push([
            class.name().to_owned(),
            cap.to_string(),
            waits(policy, class, cap),
            then(policy, class),
        ]);
    }
    align(page, &lines);
    if policy.rule(Class::OutputInvalid).cap > 0 {
        let _ = writeln!(
            page,
            "  output_invalid: only of a model that can be told what is wrong: {MENDED}; what a tool gives is not asked for again"
        );
    }
    let own =
        if own_times(tree).is_empty() { "" } else { ", where it has no time of its own (S79)" };
    let _ = writeln!(
        page,
        "  all together: at most {} retries; one attempt at most {:?}{own}; timeouts, tool errors and what is indeterminate only if a repeat is safe",
        policy.global_cap, policy.attempt_timeout
    );
}

/// Where a request of this class goes when it is not retried (any more): whom the runtime's own rule
/// lets stand in.
fn then(policy: &Policy, class: Class) -> String {
    let alone = policy.rule(Class::RateLimit).cap;
    if class == Class::Overloaded && policy.rule(class).cap == 0 && alone > 0 {
        // Whoever has nobody beside it waits, as for a rate limit.
        let retries = if alone == 1 { "retry" } else { "retries" };
        let waits = waits(policy, Class::RateLimit, alone);
        return format!("a sibling; where none can, {alone} {retries} after {waits}");
    }
    if class == Class::BudgetDenied {
        // Where a model of a group is too dear for what is left, another one may not be.
        return "a cheaper sibling where it is a model's price, else nobody".to_owned();
    }
    if is_never_substituted(class) {
        return "nobody: it ends here".to_owned();
    }
    let alike = Candidate { same_quota_domain: true, ..Candidate::new(1) };
    let fits = |candidate: &Candidate| fits(class, PolicyGroup::Model, candidate).is_ok();
    if fits(&alike) {
        return "a sibling".to_owned();
    }
    let others = [
        ("a sibling in another quota domain", Candidate { same_quota_domain: false, ..alike }),
        ("a larger window", Candidate { larger_window: true, ..alike }),
        ("a content chain", Candidate { content_chain: true, ..alike }),
        ("a simpler flow", Candidate { simpler: true, ..alike }),
        ("a person", Candidate { human: true, ..alike }),
        ("a default", Candidate { default_value: true, ..alike }),
    ];
    let fitting: Vec<_> =
        others.iter().filter(|(_, candidate)| fits(candidate)).map(|(name, _)| *name).collect();
    fitting.join(", ")
}

fn allow_list(page: &mut String, tree: &Tree) {
    let _ = writeln!(page, "\nAllow-list: who may stand in for whom");
    if tree.file.groups.is_empty() {
        let _ = writeln!(page, "  nobody: there are no groups");
    }
    for (name, group) in &tree.file.groups {
        let kind = group.kind.get_ref().name();
        let _ = writeln!(page, "  {} ({kind}): {}", name.get_ref(), chain(group));
        for (member, grant) in &group.grants {
            let _ = writeln!(
                page,
                "    {} may be weaker: {} ({})",
                member.get_ref(),
                grant.reason.get_ref(),
                grant.owner.get_ref()
            );
        }
        if let Some(hedge) = &group.hedge {
            let when = match hedge.get_ref().after.0 {
                Hedge::After(delay) => format!("without an answer after {}", span(delay)),
                _ => "slower than 95 of 100".to_owned(),
            };
            let _ = writeln!(page, "    hedged: a request {when} is given to the next one, too");
        }
        if let Some(all_down) = &group.all_down {
            let then = match all_down.get_ref() {
                AllDown::LastResort => {
                    "waits for one that is back in time, else one is asked all the same"
                }
                AllDown::WaitUntil => "waits for the first that is back, to its deadline",
                AllDown::Fail => "is refused at once",
            };
            let _ = writeln!(page, "    while all rest: a request {then}");
        }
        if keeps(&tree.file, name.get_ref()) {
            let _ = writeln!(page, "    durable: what it accepts survives the process");
        }
    }
}

/// What can be undone or asked about; nothing where the file says nothing of it.
fn acts(page: &mut String, tree: &Tree) {
    let lines: Vec<_> = tree.acts().into_iter().map(|(name, how)| [name, how]).collect();
    if !lines.is_empty() {
        let _ = writeln!(page, "\nActs: what is undone, and what tells whether it has happened");
        align(page, &lines);
    }
}

/// The tools whose own names cannot stand in a path; nothing where the file names none.
fn aliases(page: &mut String, tree: &Tree) {
    let lines: Vec<_> = tree
        .aliases()
        .map(|(here, own)| [here.to_owned(), format!("its server calls it {own:?}")])
        .collect();
    if !lines.is_empty() {
        let _ = writeln!(page, "\nTools by other names, in paths and for models");
        align(page, &lines);
    }
}

fn endpoints(page: &mut String, tree: &Tree) {
    let _ = writeln!(page, "\nModels");
    let head = ["name", "kind", "at a time", "account", "tokens cost", "keeps to"];
    let mut lines = vec![head.map(str::to_owned)];
    for (name, model) in &tree.file.models {
        let remote = model.kind.get_ref().example().is_some();
        let price = model.price_per_million.as_ref().map_or_else(
            || if remote { "counted only" } else { "nothing" }.to_owned(),
            |price| {
                let Price { input, output } = *price.get_ref();
                format!("{input} read, {output} written, a million")
            },
        );
        let usual =
            if remote { mainstay_actors::model::CONCURRENCY.to_string() } else { "-".to_owned() };
        lines.push([
            name.get_ref().clone(),
            model.kind.get_ref().name().to_owned(),
            model.concurrency.as_ref().map_or(usual, |it| it.get_ref().to_string()),
            model.quota_domain.as_ref().map_or("its own", |it| it.get_ref().as_str()).to_owned(),
            price,
            keeps_to(&tree.file.models, model),
        ]);
    }
    align(page, &lines);
}

/// The limits a model keeps to by itself; those of its account hold for all that are paid from it.
fn keeps_to(models: &Named<Model>, model: &Model) -> String {
    let account =
        |other: &&Model| other.limits.is_some() && other.quota_domain == model.quota_domain;
    let shared = model.quota_domain.as_ref().and_then(|_| models.values().find(account));
    let limits = model.limits.as_ref().or_else(|| shared?.limits.as_ref());
    let remote = model.kind.get_ref().example().is_some();
    let answers = model
        .answer_tokens
        .as_ref()
        .map(|tokens| format!("answers of {tokens} tokens where nobody says"));
    let mut parts = Vec::from_iter(answers);
    if let Some(window) = model.context_window.as_ref().filter(|_| remote) {
        parts.push(format!("a window of {} tokens", window.get_ref()));
    }
    if let Some(cap) = model.price_cap.as_ref().filter(|_| remote) {
        parts.push(format!("at most {} a request", cap.get_ref()));
    }
    let Some(limits) = limits.filter(|_| remote).map(|limits| *limits.get_ref()) else {
        let usual = if remote { "what the provider says" } else { "-" };
        return if parts.is_empty() { usual.to_owned() } else { parts.join(", ") };
    };
    if let Some(requests) = limits.requests_per_minute {
        parts.push(format!("{requests} requests a minute"));
    }
    if let Some(tokens) = limits.tokens_per_minute {
        parts.push(format!("{tokens} tokens a minute"));
    }
    if let Some(requests) = limits.concurrent {
        parts.push(format!("{requests} at a time"));
    }
    if let Some(wait) = limits.max_wait {
        parts.push(format!("waits up to {}", span(wait.0)));
    }
    parts.join(", ")
}

fn words_of(interval: &Interval) -> String {
    match interval {
        Interval::Steps(1) => "every step".to_owned(),
        Interval::Steps(steps) => format!("every {steps} steps"),
        Interval::Units { name, n } => format!("every {n} {name}"),
        Interval::EveryEffect => "before and after every effect".to_owned(),
        other => format!("{other:?}"),
    }
}

fn budget_of(budget: &Budget) -> String {
    let tokens = budget.tokens.as_ref().map(|it| format!("{} tokens", it.get_ref()));
    let money = budget.money.as_ref().map(|it| format!("{} in money", it.get_ref()));
    let time = budget.time.map(|it| span(it.0));
    let parts: Vec<_> = [tokens, money, time].into_iter().flatten().collect();
    format!("at most {}", parts.join(", "))
}

/// How many restarts there may be.
fn restarts(tree: &Tree) -> String {
    let (restarts, period) = tree.supervision();
    let period = span(period);
    match tree.file.supervisor.as_ref().map(|section| section.strategy).unwrap_or_default() {
        Strategy::OneForOne => format!(
            "{restarts} of one in {period}, then it is set aside; {restarts} of all, then the tree gives up"
        ),
        Strategy::OneForAll | Strategy::RestForOne => {
            format!("{restarts} in {period}, then the tree gives up")
        }
    }
}

fn limits(page: &mut String, tree: &Tree, policy: &Policy) {
    let _ = writeln!(page, "\nScopes and limits");
    let mut lines = vec![["", "rollback of", "limit"].map(str::to_owned)];
    for (row, scope) in SCOPES.iter().zip(Scope::ALL) {
        let limit = format!("{}, {} risk", span(scope.limit()), risk(scope.risk()));
        lines.push([(*row).to_owned(), scope.name().to_owned(), limit]);
    }
    let profile = tree.file.profile.as_ref().map(|profile| *profile.get_ref());
    let (row, what) = profile.map_or(("S45", ""), Profile::checkpoint);
    let every = words_of(&tree.interval()) + what;
    lines.push([row.to_owned(), "checkpoint".to_owned(), every]);
    for (name, agent) in &tree.file.agents {
        let name = name.get_ref();
        if agent.checkpoint.is_some() {
            let every = words_of(&tree.interval_of(agent));
            lines.push([String::new(), format!("checkpoint of {name}"), every]);
        }
        if let Some(budget) = &agent.budget {
            let at_most = budget_of(budget.get_ref());
            lines.push([String::new(), format!("a task of {name}"), at_most]);
        }
    }
    let own = tree.file.supervisor.as_ref().and_then(|section| section.scope.as_ref());
    if own.is_some() || tree.lines_every().is_some() {
        let tree_of = tree.scope().map_or_else(String::new, |scope| format!(": {scope}"));
        let every = tree.lines_every().map_or_else(
            || "lines are drawn by hand".to_owned(),
            |every| format!("a line every {}", span(every)),
        );
        lines.push([String::new(), format!("the tree{tree_of}"), every]);
    }
    align(page, &lines);
    let _ = writeln!(page);
    let breaker = CircuitSpec::new();
    let mut rows = vec![
        (
            "S46",
            "a checkpoint is valid for",
            format!("{}; {} when pinned", span(VALIDITY), span(LONGEST_PIN)),
        ),
        ("R12", "rollbacks for each checkpoint", "1".to_owned()),
        ("S78", "retries of one request", format!("at most {}", policy.global_cap)),
        (
            "S79",
            "one attempt",
            format!("{}, and {} of grace", span(policy.attempt_timeout), span(policy.hang_grace)),
        ),
        (
            "S80",
            "a substitute",
            format!("only from the allow-list above; at most {}", policy.depth_limit),
        ),
        ("S81", "a path without metrics", "refused at the start".to_owned()),
        (
            "",
            "a request that ends a life",
            format!("is tried {} more, then set aside", times(policy.crash_redeliveries)),
        ),
        ("", "restarts of children", restarts(tree)),
        (
            "",
            "a circuit opens at",
            format!(
                "{} failures in a row, or {} % of {} and more in {}",
                breaker.consecutive,
                breaker.failure_percent,
                breaker.min_requests,
                span(breaker.window)
            ),
        ),
    ];
    if tree.outlives_the_process() {
        let ends = match tree.process_deaths() {
            u32::MAX => "is begun again without end".to_owned(),
            ends => format!("is begun again {}, then set aside", times(ends)),
        };
        // Below the one that ends a life.
        rows.insert(7, ("", "a request that ends the process", ends));
    }
    let mut lines: Vec<_> =
        rows.into_iter().map(|row| [row.0.to_owned(), row.1.to_owned(), row.2]).collect();
    let after = lines.iter().position(|line| line[0] == "S80").unwrap_or(lines.len());
    let own = own_times(tree).into_iter();
    let own = own.map(|(name, time)| [String::new(), format!("one attempt of {name}"), time]);
    lines.splice(after..after, own);
    align(page, &lines);
    let _ = writeln!(page, "  store  {}", kept(tree));
}

/// Said of requests that a store does not keep.
pub(crate) fn not_kept(asked: &str) -> String {
    format!(
        "requests to `{asked}` are NOT kept: an agent keeps its own, and so does a group that is not `durable = false`, or a model that no agent asks"
    )
}

/// What survives the process.
fn kept(tree: &Tree) -> String {
    let Some(store) = &tree.file.store else {
        return "none: state ends with the process".to_owned();
    };
    let store = store.get_ref();
    let durability = match store.durability.as_ref().map(|it| *it.get_ref()).unwrap_or_default() {
        Durability::Sync => "sync",
        Durability::Async => "async: a power cut may take the last writes",
        Durability::Memory => return "memory: state ends with the process".to_owned(),
    };
    if let Some(asked) = tree.unkept() {
        return format!("{durability}; {}", not_kept(asked));
    }
    let group = kept_group(&tree.file).filter(|_| tree.file.agents.is_empty());
    if let Some(group) = group.or_else(|| kept_model(&tree.file)) {
        return format!("{durability}; requests to `{group}` are kept and begun again");
    }
    let what = match <Agent as Stateful>::schema() {
        Some(_) => "agents go on where they stood",
        None => "agents' requests are kept and begun again; the steps they had made are not kept",
    };
    format!("{durability}; {what}")
}

pub(crate) fn span(span: Duration) -> String {
    match span.as_secs() {
        seconds if span.subsec_nanos() == 0 && seconds >= 3600 && seconds % 3600 == 0 => {
            format!("{} h", seconds / 3600)
        }
        seconds if span.subsec_nanos() == 0 && seconds >= 60 && seconds % 60 == 0 => {
            format!("{} min", seconds / 60)
        }
        _ => format!("{} s", span.as_secs_f64()),
    }
}

const fn risk(risk: Risk) -> &'static str {
    match risk {
        Risk::Low => "low",
        Risk::Medium => "medium",
        Risk::High => "high",
    }
}

fn times(number: u32) -> String {
    if number == 1 { "once".to_owned() } else { format!("{number} times") }
}

/// What the profile asks for, and what of it this tree does.
fn ladder(page: &mut String, tree: &Tree, profile: Profile, policy: &Policy) {
    let _ = writeln!(page, "\nLadder of the profile");
    let mut lines = vec![["", "rung", "the playbook", "this tree"].map(str::to_owned)];
    let groups = |fits: &dyn Fn(&Group) -> bool, none: &str| {
        let all = tree.file.groups.iter().filter(|(_, group)| fits(group));
        let all: Vec<_> = all.map(|(_, group)| chain(group)).collect();
        if all.is_empty() { none.to_owned() } else { all.join("; ") }
    };
    for ((id, rung, what), here) in profile.ladder() {
        let here = match here {
            Here::Retries(class) => match policy.rule(*class).cap {
                0 => "no retry".to_owned(),
                cap => {
                    let told = match class {
                        Class::OutputInvalid => format!("; told what is wrong: {MENDED}"),
                        _ => String::new(),
                    };
                    format!("{}: {}{told}", times(cap), waits(policy, *class, cap))
                }
            },
            Here::Tools => {
                groups(&|group| group.kind.get_ref().is_of_tools(), "no tool has a stand-in")
            }
            Here::Scope => match tree.scope() {
                Some(Scope::Transaction) => undone(tree),
                Some(scope) => {
                    format!("a rollback reaches to its {}, and undoes nothing", scope.name())
                }
                None => "each agent goes back by itself".to_owned(),
            },
            Here::Text => groups(&|group| tree.ends_with_text(group), "no group ends with a text"),
        };
        lines.push([(*id).to_owned(), (*rung).to_owned(), (*what).to_owned(), here]);
    }
    align(page, &lines);
}

/// What a transaction that fails undoes, and what it leaves.
fn undone(tree: &Tree) -> String {
    let acts = tree.acts();
    let undone: Vec<_> =
        acts.iter().filter(|(_, how)| how.starts_with("undone")).map(|(name, _)| &**name).collect();
    let stays = tree.not_undone();
    let mut said = "a rollback reaches to its transaction".to_owned();
    if !undone.is_empty() {
        let _ = write!(said, "; what {} did is undone", undone.join(", "));
    }
    if !stays.is_empty() {
        let _ = write!(said, "; what {} did stays: no undo", stays.join(", "));
    }
    said + "; who asked is told"
}

/// The members of a group, the first choice first.
fn chain(group: &Group) -> String {
    let members: Vec<_> =
        group.members.get_ref().iter().map(|member| member.get_ref().as_str()).collect();
    members.join(" -> ")
}

/// How long each retry of a class waits.
fn waits(policy: &Policy, class: Class, cap: u32) -> String {
    let waits = (1..=cap).filter_map(NonZeroU32::new).filter_map(|n| policy.delay(class, n));
    let waits: Vec<_> = waits
        .map(|wait| if wait.is_zero() { "none".to_owned() } else { format!("{wait:?}") })
        .collect();
    waits.join(", ")
}

/// Columns as wide as their widest cell.
pub(crate) fn align<const N: usize>(page: &mut String, lines: &[[String; N]]) {
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
