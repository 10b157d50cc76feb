//! Times and sizes that do not go together: the one ends what the other would do.
//!
//! *Invariant.* What is refused here can have no effect in any run; what is only unwise is not.

use std::collections::BTreeMap;
use std::time::Duration;

use mainstay::policy::Policy;
use mainstay_actors::mcp::{CALL_TIMEOUT, CONNECT_WAIT};
use toml::Spanned;

use super::super::check::span;
use super::super::file::{Agent, Limits, Model, ModelKind, Tool, TreeFile};
use super::Verify;

/// How long one attempt of a child has that has no time of its own.
pub(crate) fn usual(file: &TreeFile) -> Duration {
    let own = file.policy.as_ref().and_then(|policy| policy.attempt_timeout.as_ref());
    own.map_or(Policy::new().attempt_timeout, |own| own.get_ref().0)
}

/// How long a call of a server's tool has, and how long it waits before where the server is made again.
pub(crate) fn of_server(tool: &Tool) -> Option<(Duration, Duration)> {
    let time = |own: &Option<Spanned<super::super::file::Span>>, usual| {
        own.as_ref().map_or(usual, |own| own.get_ref().0)
    };
    let is_server = tool.command.is_some() || tool.url.is_some();
    is_server.then(|| (time(&tool.timeout, CALL_TIMEOUT), time(&tool.connect_wait, CONNECT_WAIT)))
}

fn find<'a, T>(
    mut all: impl Iterator<Item = (&'a Spanned<String>, &'a T)>,
    name: &str,
) -> Option<&'a T> {
    all.find(|(other, _)| other.get_ref() == name).map(|(_, it)| it)
}

/// How long one attempt of this child may take.
fn attempt(file: &TreeFile, name: &str) -> Duration {
    let model = find(file.models.iter(), name).and_then(|model| model.timeout.as_ref());
    let server = name.split_once('.').map_or(name, |(server, _)| server);
    let server = find(file.tools.iter(), server).and_then(of_server);
    let server = server.map(|(call, wait)| call.saturating_add(wait));
    model.map(|own| own.get_ref().0).or(server).unwrap_or_else(|| usual(file))
}

/// How long the tasks of agents have, by their own budgets and by those of whoever starts them.
pub(crate) struct Times<'f>(BTreeMap<&'f str, Option<Duration>>);

impl<'f> Times<'f> {
    pub(crate) fn of(file: &'f TreeFile) -> Self {
        let mut times = Self(BTreeMap::new());
        for name in file.agents.keys() {
            times.look(file, name.get_ref());
        }
        times
    }

    /// The longest that a task of this agent can have; `None` where nothing bounds it.
    pub(crate) fn of_task(&self, name: &str) -> Option<Duration> {
        self.0.get(name).copied().flatten()
    }

    fn look(&mut self, file: &'f TreeFile, name: &'f str) -> Option<Duration> {
        if let Some(known) = self.0.get(name) {
            return *known;
        }
        // Who starts himself is told so elsewhere.
        self.0.insert(name, None);
        let own = find(file.agents.iter(), name).and_then(|agent| agent.budget.as_ref());
        let own = own.and_then(|budget| budget.get_ref().time).map(|time| time.0);
        let starts = |agent: &Agent| agent.agents.iter().any(|sub| sub.get_ref() == name);
        let bosses = file.agents.iter().filter(|(_, agent)| starts(agent));
        let above: Vec<_> = bosses.map(|(boss, _)| self.look(file, boss.get_ref())).collect();
        let above: Option<Vec<Duration>> = above.into_iter().collect();
        let above = above.and_then(|all| all.into_iter().max());
        let time = own.into_iter().chain(above).min();
        self.0.insert(name, time);
        time
    }
}

/// Whether the limit of an answer is a bound beside the window, as Ollama's `num_predict` is, which may be above it.
fn is_bound_apart(model: &Model) -> bool {
    matches!(model.kind.get_ref(), ModelKind::Ollama | ModelKind::OllamaNative)
}

impl Verify<'_> {
    /// A pause that is longer than all of the answer may take.
    pub(super) fn idle(&mut self, name: &Spanned<String>, model: &Model) {
        let Some(idle) = &model.idle_timeout else { return };
        let whole = attempt(self.file, name.get_ref());
        if idle.get_ref().0 > whole {
            let message = format!(
                "a pause of {} in an answer that may take {}",
                span(idle.get_ref().0),
                span(whole)
            );
            let hint = "write a shorter one, or a longer `timeout` for the model";
            self.say(idle.span(), message, "never waited for", hint);
        }
    }

    /// An answer that has no room in the window of the endpoint that is to give it.
    pub(super) fn answer_in_window(&mut self, model: &Model) {
        let (Some(tokens), Some(window)) = (&model.answer_tokens, &model.context_window) else {
            return;
        };
        if is_bound_apart(model) {
            return;
        }
        if tokens.get_ref() >= window.get_ref() {
            self.too_long(tokens.get_ref().get(), tokens.span(), window.get_ref().get());
        }
    }

    /// An answer that has no room in the window of anybody who is asked for it: `asked` is a model or a group.
    pub(super) fn fits_window(&mut self, tokens: Option<&Spanned<u32>>, asked: &str) {
        let Some(tokens) = tokens else { return };
        let members = match find(self.file.groups.iter(), asked) {
            Some(group) => group.members.get_ref().iter().map(|it| it.get_ref().as_str()).collect(),
            None => vec![asked],
        };
        let models = members.into_iter().filter_map(|name| find(self.file.models.iter(), name));
        // What asks no provider has no window.
        let endpoints = models.filter(|model| model.kind.get_ref().example().is_some());
        let window = |model: &Model| {
            let window = model.context_window.as_ref().filter(|_| !is_bound_apart(model));
            window.map(|window| window.get_ref().get())
        };
        let windows: Option<Vec<u32>> = endpoints.map(window).collect();
        // Where one states none, it may be large enough.
        let largest = windows.and_then(|windows| windows.into_iter().max());
        if let Some(largest) = largest.filter(|largest| tokens.get_ref() >= largest) {
            self.too_long(*tokens.get_ref(), tokens.span(), largest);
        }
    }

    fn too_long(&mut self, tokens: u32, at: std::ops::Range<usize>, window: u32) {
        let message = format!("an answer of {tokens} tokens in a window of {window}");
        let hint = "write fewer, or the window that the model has: prompt and answer share it";
        self.say(at, message, "no room for a prompt", hint);
    }

    /// A wait for room at an endpoint that is longer than any attempt that may wait: the limits of a quota domain hold
    /// for all of it.
    pub(super) fn max_wait(
        &mut self,
        name: &Spanned<String>,
        model: &Model,
        limits: &Spanned<Limits>,
        wait: Duration,
    ) {
        let domain = model.quota_domain.as_ref().map(Spanned::get_ref);
        let same = |other: &Model| {
            domain.is_some() && other.quota_domain.as_ref().map(Spanned::get_ref) == domain
        };
        let waiting = self.file.models.iter().filter(|(other, model)| {
            other.get_ref() == name.get_ref()
                || model.kind.get_ref().example().is_some() && same(model)
        });
        let longest = waiting.map(|(name, _)| attempt(self.file, name.get_ref())).max();
        if let Some(longest) = longest.filter(|longest| wait > *longest) {
            let message =
                format!("a wait of {} in an attempt that has {}", span(wait), span(longest));
            let hint = "write a shorter `max_wait`, or a longer `timeout` for the model";
            self.say(limits.span(), message, "never waited for", hint);
        }
    }

    /// A person who has more time than the task of the agent that asks, or than that of whoever has started it.
    pub(super) fn people_in_time(&mut self, agent_name: &str, agent: &Agent) {
        let Some(time) = Times::of(self.file).of_task(agent_name) else { return };
        let own = agent.budget.as_ref().and_then(|budget| budget.get_ref().time);
        let asked = agent.tools.iter().chain([&agent.model]).map(|it| it.get_ref().as_str());
        let members = asked.clone().filter_map(|name| find(self.file.groups.iter(), name));
        let members = members.flat_map(|group| group.members.get_ref());
        let all = asked.chain(members.map(|it| it.get_ref().as_str()));
        let people: Vec<_> = all
            .filter_map(|name| self.file.people.iter().find(|(other, _)| other.get_ref() == name))
            .filter(|(_, person)| person.expiry() >= time)
            .map(|(name, person)| {
                let at = person.expiry.as_ref().map_or_else(|| name.span(), Spanned::span);
                (at, name.get_ref().clone(), person.expiry())
            })
            .collect();
        for (at, name, expiry) in people {
            let message = format!(
                "`{name}` has {} to decide, for an agent whose task has {}",
                span(expiry),
                span(time)
            );
            let hint = match own {
                Some(own) if own.0 <= time => {
                    "write a shorter `expiry`, or more `time` in the agent's budget"
                }
                _ => {
                    "write a shorter `expiry`, or more `time` in the budget of who starts the agent"
                }
            };
            self.say(at, message, "the task is over by then", hint);
        }
    }
}
