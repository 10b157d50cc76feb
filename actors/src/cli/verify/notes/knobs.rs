//! What of a file changes nothing: said beneath what serves, or of nobody who would look at it.
//!
//! *Invariant.* Only a warning, and only where no run of this file would be another one without it.

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;

use super::super::super::build::{self, find, leaves};
use super::super::super::check::span;
use super::super::super::file::{Budget, Builtin, Group, Model, ModelKind, TreeFile};
use super::super::super::snag::Snag;
use super::super::Names;
use super::super::times::Times;

/// What is said of it.
pub(super) fn all(file: &TreeFile) -> Vec<Snag> {
    let mut knobs = Knobs { file, names: Names::of(file), snags: Vec::new() };
    for (name, model) in &file.models {
        knobs.alone(name.get_ref(), model);
        knobs.text(model);
        knobs.answer(model);
        knobs.longer(name.get_ref(), model);
    }
    for group in file.groups.values() {
        knobs.behind_a_text(group);
        knobs.grants(group);
    }
    for (name, agent) in &file.agents {
        if let Some(own) = agent.description.as_ref()
            && !knobs.names.is_sub_agent(name.get_ref())
        {
            let message = format!("a description of `{}`, which no agent starts", name.get_ref());
            let hint = "remove it, or name the agent in the `agents` of another one";
            knobs.say(own.span(), message, "told to nobody", hint);
        }
        knobs.temperature(agent.temperature.as_ref(), agent.model.get_ref());
    }
    if let Some(ask) = &file.ask {
        let entry = build::entry(file).unwrap_or_default();
        knobs.temperature(ask.get_ref().temperature.as_ref(), entry);
    }
    knobs.snags
}

struct Knobs<'a> {
    file: &'a TreeFile,
    names: Names<'a>,
    snags: Vec<Snag>,
}

fn is_endpoint(model: &Model) -> bool {
    model.kind.get_ref().example().is_some()
}

impl Knobs<'_> {
    fn say(&mut self, at: Range<usize>, message: impl Into<String>, label: &str, hint: &str) {
        self.snags.push(Snag::new(at, message, label, hint).warning());
    }

    /// The models that are asked by this name.
    fn asked(&self, name: &str) -> Vec<&Model> {
        let members = find(&self.file.groups, name).map(|group| group.members.get_ref());
        let members = members.into_iter().flatten().map(|it| it.get_ref().as_str());
        members.chain([name]).filter_map(|name| find(&self.file.models, name)).collect()
    }

    /// What only says who may stand in for whom, of one who stands beside nobody.
    fn alone(&mut self, name: &str, model: &Model) {
        let is_member = |group: &Group| {
            let members = group.members.get_ref();
            members.len() > 1 && members.iter().any(|member| member.get_ref() == name)
        };
        if self.file.groups.values().any(is_member) {
            return;
        }
        let account = model.quota_domain.as_ref().filter(|own| {
            let same = |other: &&Model| {
                other.quota_domain.as_ref().is_some_and(|it| it.get_ref() == own.get_ref())
            };
            self.file.models.values().filter(same).count() == 1
        });
        let given = [
            ("guardrail", model.guardrail.as_ref().map(Spanned::span)),
            ("residency", model.residency.as_ref().map(Spanned::span)),
            ("tool_rights", model.tool_rights.as_ref().map(Spanned::span)),
            ("provider", model.provider.as_ref().map(Spanned::span)),
            ("quota_domain", account.map(Spanned::span)),
            // Of an endpoint it bounds each request.
            (
                "price_cap",
                model.price_cap.as_ref().filter(|_| !is_endpoint(model)).map(Spanned::span),
            ),
        ];
        for (key, at) in given.into_iter().filter_map(|(key, at)| Some((key, at?))) {
            let message = format!("`{key}` of `{name}`, for which nobody can stand in");
            let hint =
                "remove it, or put the model into a group with others: it is compared with theirs";
            self.say(at, message, "compared with nobody's", hint);
        }
    }

    /// How long a text may take, and how many of them are given at once.
    fn text(&mut self, model: &Model) {
        if !model.kind.get_ref().gives_text() {
            return;
        }
        let given = [
            ("timeout", model.timeout.as_ref().map(Spanned::span)),
            ("concurrency", model.concurrency.as_ref().map(Spanned::span)),
        ];
        for (key, at) in given.into_iter().filter_map(|(key, at)| Some((key, at?))) {
            let message = format!("`{key}` of a text, which is there at once");
            self.say(at, message, "never reached", "remove it");
        }
    }

    /// The length of an answer where nothing has to be set aside for it.
    fn answer(&mut self, model: &Model) {
        let Some(tokens) = &model.answer_tokens else { return };
        let budgets = self.file.agents.values().filter_map(|agent| agent.budget.as_ref());
        let is_counted = |budget: &Spanned<Budget>| {
            budget.get_ref().tokens.is_some() || budget.get_ref().money.is_some()
        };
        let is_used = *model.kind.get_ref() == ModelKind::Anthropic
            || model.price_cap.is_some()
            || budgets.into_iter().any(is_counted);
        if is_endpoint(model) && !is_used {
            let hint = "remove it, or bound the answers by the `max_tokens` of who asks: this is for those under a budget of `tokens` or `money`, or a `price_cap`";
            self.say(tokens.span(), "`answer_tokens` without a budget", "never sent", hint);
        }
    }

    /// A time of its own that is longer than all of any task in which it is asked.
    fn longer(&mut self, name: &str, model: &Model) {
        let Some(own) = model.timeout.as_ref().filter(|_| is_endpoint(model)) else { return };
        let group = self.file.groups.iter().find(|(_, group)| {
            group.members.get_ref().iter().any(|member| member.get_ref() == name)
        });
        let asked = group.map_or(name, |(group, _)| group.get_ref().as_str());
        let is_entry = |it: &str| build::entry(self.file) == Some(it);
        let is_in_step = group.is_some_and(|(_, group)| !group.kind.get_ref().is_of_models());
        if is_entry(asked) || is_in_step {
            return;
        }
        let times = Times::of(self.file);
        let agents = self.file.agents.iter().filter(|(_, agent)| agent.model.get_ref() == asked);
        let longest = agents.map(|(agent, _)| times.of_task(agent.get_ref()));
        let longest: Option<Vec<Duration>> = longest.collect();
        let Some(longest) = longest.and_then(|all| all.into_iter().max()) else { return };
        if own.get_ref().0 > longest {
            let message = format!(
                "an attempt of {} in tasks that have {}",
                span(own.get_ref().0),
                span(longest)
            );
            let hint = "write a shorter `timeout`, or more `time` in the budget of the agent";
            self.say(own.span(), message, "the task is over by then", hint);
        }
    }

    fn behind_a_text(&mut self, group: &Group) {
        let [first, second, ..] = &group.members.get_ref()[..] else { return };
        let model = find(&self.file.models, first.get_ref());
        let tool = find(&self.file.tools, first.get_ref()).and_then(|tool| tool.builtin.as_ref());
        if model.is_some_and(|model| model.kind.get_ref().gives_text())
            || tool.is_some_and(|builtin| *builtin.get_ref() == Builtin::Default)
        {
            let message =
                format!("`{}` stands behind a text, which always answers", second.get_ref());
            let hint = "put the text last, as what is said where nobody else answers";
            self.say(second.span(), message, "never asked", hint);
        }
    }

    /// Those by which nothing is allowed that was not.
    fn grants(&mut self, group: &Group) {
        let Some(first) = group.members.get_ref().first() else { return };
        let of = |name: &str, leads| {
            find(&self.file.models, name).map(|model| leaves::capabilities(model, leads))
        };
        let primary = of(first.get_ref(), true).unwrap_or_default();
        let is_vain = |name: &&Spanned<String>| {
            let own = of(name.get_ref(), false).unwrap_or_default();
            name.get_ref() == first.get_ref() || own.weaker_than(&primary).is_none()
        };
        let vain: Vec<_> = group.grants.keys().filter(is_vain).cloned().collect();
        for name in vain {
            let message =
                format!("a grant for `{}`, which may stand in without one", name.get_ref());
            let hint = "remove it: it is for a member with lower guardrails, more rights, another residency or a higher price cap than the first";
            self.say(name.span(), message, "allows nothing more", hint);
        }
    }

    /// A temperature for what has none.
    fn temperature(&mut self, temperature: Option<&Spanned<f32>>, asked: &str) {
        let Some(temperature) = temperature else { return };
        let models = self.asked(asked);
        if !models.is_empty() && !models.iter().any(|model| is_endpoint(model)) {
            let hint = "remove it, or have a model of a provider asked";
            let message = "a temperature, and no model that has one";
            self.say(temperature.span(), message, "sent to nobody", hint);
        }
    }
}
