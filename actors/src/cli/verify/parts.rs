//! What is wrong with a section taken by itself: tools, agents, the store, the policy.

use std::ops::Range;
use std::path::{Path, PathBuf};

use mainstay::checkpoint::VALIDITY;
use mainstay::policy::Policy;
use mainstay_actors::agent::Agent as AgentLoop;
use mainstay_actors::mcp::McpServer;
use serde_json::Value;
use toml::Spanned;

use super::super::build::{self, answers};
use super::super::file::{
    Agent, Answering, Budget, Builtin, Checkpoint, Durability, Otherwise, Tool, micros,
};
use super::super::profile::Profile;
use super::super::shop::Desk;
use super::super::snag::is_name_of_variable;
use super::Verify;

pub(super) fn is_url(text: &str) -> bool {
    reqwest::Url::parse(text)
        .is_ok_and(|url| url.has_host() && matches!(url.scheme(), "http" | "https"))
}

/// Whether the system takes it for the name of a variable.
fn is_variable(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0']) && !name.contains(char::is_whitespace)
}

impl Verify<'_> {
    pub(super) fn variable(&mut self, variable: &Spanned<String>) {
        let name = variable.get_ref();
        let is_set = || std::env::var_os(name).is_some_and(|value| !value.is_empty());
        if !is_variable(name) || !is_name_of_variable(name) && !is_set() {
            self.no_variable(variable.span());
        } else if !is_set() {
            self.say(
                variable.span(),
                format!("the environment variable {name} is not set"),
                "read from here",
                format!("set it before the start: export {name}=..."),
            );
        }
    }

    /// One whose value goes into a header.
    pub(super) fn sent_variable(&mut self, variable: &Spanned<String>) {
        self.variable(variable);
        let name = variable.get_ref();
        let Some(value) = std::env::var_os(name).filter(|value| !value.is_empty()) else { return };
        let value = value.to_str().map(str::trim);
        let what = match value {
            Some("") => "blanks only",
            Some(value) if reqwest::header::HeaderValue::try_from(value).is_ok() => return,
            _ => "what no header can have",
        };
        let message = format!("the environment variable {name} has {what}");
        let hint = "set it to one line, without control characters";
        self.say(variable.span(), message, "cannot be sent", hint);
    }

    /// Does not say what it is instead: it may be the key itself.
    fn no_variable(&mut self, span: Range<usize>) {
        let message = "this is not the name of an environment variable";
        let hint = "write one such as `MY_KEY`, and set this variable before the start: what it has stands in no file";
        self.say(span, message, "no name", hint);
    }

    /// A file that must hold a JSON schema that answers can be checked with.
    fn schema(&mut self, folder: &Path, schema: &Spanned<PathBuf>) {
        let text = std::fs::read_to_string(folder.join(schema.get_ref()));
        let read = text.map_err(|error| error.to_string()).and_then(|text| {
            serde_json::from_str::<serde_json::Map<_, Value>>(&text)
                .map_err(|error| error.to_string())
        });
        match read.map(|read| AgentLoop::checks_schema(&Value::Object(read))) {
            Ok(Ok(())) => {}
            Ok(Err(why)) => {
                let message = format!("the schema cannot be held: {why}");
                let hint = "say it in a `description` instead: answers are checked with what the page about the tree file lists";
                self.say(schema.span(), message, "of this file", hint);
            }
            Err(error) => {
                let message = format!("the schema cannot be read: {error}");
                let hint = "name a file with a JSON schema, seen from this file's folder";
                self.say(schema.span(), message, "read from here", hint);
            }
        }
    }

    /// What an agent may spend, when it is checkpointed, and what its answers are checked with.
    pub(super) fn agent_limits(&mut self, folder: &Path, agent: &Agent) {
        if let Some(schema) = &agent.answer_schema {
            self.schema(folder, schema);
        }
        if let Some(budget) = &agent.budget {
            let Budget { tokens, money, time } = budget.get_ref();
            if tokens.is_none() && money.is_none() && time.is_none() {
                let hint = "write { tokens = 50000, money = 0.5, time = \"2m\" }, or leave it out";
                self.say(budget.span(), "a budget that bounds nothing", "of what?", hint);
            }
            if let Some(tokens) = tokens.as_ref().filter(|tokens| *tokens.get_ref() == 0) {
                let hint = "at least 1, for all calls of a task together";
                self.say(tokens.span(), "a budget of no tokens", "nothing can be done", hint);
            }
            if let (Some(budget), Some(answer)) = (tokens, &agent.max_tokens)
                && u64::from(*answer.get_ref()) >= *budget.get_ref()
            {
                let message = format!(
                    "an answer of {} tokens under a budget of {} for all of a task",
                    answer.get_ref(),
                    budget.get_ref()
                );
                let hint = "write fewer `max_tokens`, or a larger budget: a model is asked only if its prompt and its answer fit";
                self.say(answer.span(), message, "no model is ever asked", hint);
            }
            match money {
                Some(money) if micros(*money.get_ref()).is_none_or(|micros| micros == 0) => {
                    let hint =
                        "write what a task may cost in the currency of the prices, such as 0.5";
                    self.say(money.span(), "a budget that is no amount of money", "no price", hint);
                }
                Some(money) => self.money(money, agent),
                None => {}
            }
        }
        if let Some(own) = &agent.checkpoint {
            let Checkpoint { steps, lines, effects } = *own.get_ref();
            let given = [steps.is_some(), lines.is_some(), effects == Some(true)];
            let hint = "write one of { steps = 5 }, { lines = 10 } and { effects = true }";
            if given.iter().filter(|given| **given).count() != 1 || effects == Some(false) {
                self.say(own.span(), "a checkpoint after what?", "one of three", hint);
            } else if self.file.store.is_none() {
                let hint = "add [store] with a `path`";
                self.say(
                    own.span(),
                    "a checkpoint in a tree without a store",
                    "kept nowhere",
                    hint,
                );
            }
        }
    }

    /// What the whole tree returns to.
    pub(super) fn scopes(&mut self) {
        let Some(section) = &self.file.supervisor else { return };
        let given = [
            ("scope", section.scope.as_ref().map(Spanned::span)),
            ("lines_every", section.lines_every.as_ref().map(Spanned::span)),
        ];
        for (key, span) in given {
            if let (Some(span), None) = (span, &self.file.store) {
                let message = format!("`{key}` in a tree without a store");
                self.say(span, message, "nothing is returned to", "add [store] with a `path`");
            }
        }
        let period = section.lines_every.as_ref();
        if let Some(period) = period.filter(|period| period.get_ref().0 >= VALIDITY) {
            let label = "a line is returned to for an hour at most";
            let hint = "draw them more often, as every \"50m\"";
            self.say(period.span(), "recovery lines too far from each other", label, hint);
        }
    }

    /// How a model is asked where no agent does it.
    pub(super) fn ask(&mut self, folder: &Path) {
        let Some(ask) = &self.file.ask else { return };
        let entry = super::super::build::entry(self.file);
        if !entry.is_some_and(|entry| self.names.is_asked_as_model(entry)) {
            let hint = "give each agent its `system`, `max_tokens` and `temperature`";
            self.say(ask.span(), "[ask] in a tree whose agents are asked", "of no use", hint);
            return;
        }
        let section = ask.get_ref();
        self.sampling(section.max_tokens.as_ref(), section.temperature.as_ref());
        self.fits_window(section.max_tokens.as_ref(), entry.unwrap_or_default());
        let format = section.response_format.as_ref();
        let kind = format.map(|format| *format.get_ref()).unwrap_or_default();
        match (&section.schema, format) {
            (Some(schema), _) if kind != Answering::Schema => {
                let hint = "add a line `response_format = \"schema\"`";
                self.say(schema.span(), "a schema that is not asked for", "of no use", hint);
            }
            (Some(schema), _) => self.schema(folder, schema),
            (None, Some(format)) if kind == Answering::Schema => {
                let hint = "add a line `schema = \"answer.json\"`";
                self.say(format.span(), "a format without its schema", "which one?", hint);
            }
            _ => {}
        }
        let Some(format) = format.filter(|_| kind != Answering::Text) else { return };
        for (name, model) in &self.file.models {
            let text = model.text.as_ref().map(|text| text.get_ref().as_str());
            let json =
                text.is_some_and(|text| serde_json::from_str::<serde_json::Value>(text).is_ok());
            if model.kind.get_ref().example().is_none() && !json {
                let message = format!("`{}` does not answer in JSON", name.get_ref());
                let hint = "remove the model, or give it a `text` that is JSON";
                self.say(format.span(), message, "asked for here", hint);
            }
        }
    }

    /// How a model is asked.
    pub(super) fn sampling(
        &mut self,
        tokens: Option<&Spanned<u32>>,
        temperature: Option<&Spanned<f32>>,
    ) {
        if let Some(tokens) = tokens.filter(|tokens| *tokens.get_ref() == 0) {
            let hint = "leave it out for the provider's own limit";
            self.say(tokens.span(), "an answer without a token", "at least 1", hint);
        }
        if let Some(heat) = temperature.filter(|heat| !(0.0..=2.0).contains(heat.get_ref())) {
            let hint = "0 for always the same, 1 for as the model was made";
            self.say(heat.span(), "a temperature that no model has", "0 to 2", hint);
        }
    }

    pub(super) fn tools(&mut self) {
        for (name, tool) in &self.file.tools {
            self.tool(name, tool);
        }
    }

    fn tool(&mut self, name: &Spanned<String>, tool: &Tool) {
        let ways = [
            ("builtin", tool.builtin.as_ref().map(Spanned::span)),
            ("command", tool.command.as_ref().map(Spanned::span)),
            ("url", tool.url.as_ref().map(Spanned::span)),
        ];
        let given: Vec<_> =
            ways.iter().filter_map(|(key, span)| Some((*key, span.clone()?))).collect();
        match &given[..] {
            [] => self.say(
                name.span(),
                format!("the tool `{}` is nothing yet", name.get_ref()),
                "no `builtin`, `command` or `url`",
                "add `command = [\"...\"]` or `url = \"...\"` for an MCP server, or `builtin = \"...\"`",
            ),
            [_] => {}
            [.., (second, span)] => self.say(
                span.clone(),
                format!("the tool `{}` is two things: `{}` and `{second}`", name.get_ref(), given[0].0),
                format!("besides `{}`", given[0].0),
                "keep one of them, or make two tools",
            ),
        }
        if let Some(command) = &tool.command
            && command.get_ref().first().is_none_or(|program| program.trim().is_empty())
        {
            self.say(
                command.span(),
                "an empty command",
                "no program",
                "write [\"program\", \"argument\"]",
            );
        }
        if let Some(url) = &tool.url
            && !is_url(url.get_ref())
        {
            let hint = "write one such as \"http://127.0.0.1:8000/mcp\"";
            self.say(url.span(), "the URL of the server is not an http(s) URL", "no URL", hint);
        }
        if let Some(dir) = &tool.dir
            && !self.folder.join(dir.get_ref()).is_dir()
        {
            let message = format!("there is no folder {}", dir.get_ref().display());
            self.say(dir.span(), message, "seen from this file's folder", "name one that exists");
        }
        let misfits = [
            ("env", tool.env.as_ref().map(Spanned::span), tool.command.is_none(), "a `command`"),
            (
                "env_from",
                tool.env_from.first().map(Spanned::span),
                tool.command.is_none(),
                "a `command`",
            ),
            (
                "effects",
                tool.effects.keys().next().map(Spanned::span),
                tool.builtin.is_some(),
                "a server",
            ),
            (
                "timeout",
                tool.timeout.as_ref().map(Spanned::span),
                tool.builtin.is_some(),
                "a server",
            ),
            (
                "max_result_bytes",
                tool.max_result_bytes.as_ref().map(Spanned::span),
                tool.builtin.is_some(),
                "a server",
            ),
            (
                "connect_wait",
                tool.connect_wait.as_ref().map(Spanned::span),
                tool.builtin.is_some(),
                "a server",
            ),
            (
                "start_timeout",
                tool.start_timeout.as_ref().map(Spanned::span),
                tool.builtin.is_some(),
                "a server",
            ),
            (
                "ping_timeout",
                tool.ping_timeout.as_ref().map(Spanned::span),
                tool.builtin.is_some(),
                "a server",
            ),
            (
                "errors_are_transient",
                tool.errors_are_transient.as_ref().map(Spanned::span),
                tool.builtin.is_some(),
                "a server",
            ),
            (
                "bearer_env",
                tool.bearer_env.as_ref().map(Spanned::span),
                tool.url.is_none(),
                "a `url`",
            ),
            ("headers", tool.headers.as_ref().map(Spanned::span), tool.url.is_none(), "a `url`"),
            (
                "headers_env",
                tool.headers_env.as_ref().map(Spanned::span),
                tool.url.is_none(),
                "a `url`",
            ),
            ("dir", tool.dir.as_ref().map(Spanned::span), tool.command.is_none(), "a `command`"),
            ("data", tool.data.as_ref().map(Spanned::span), tool.builtin.is_none(), "a `builtin`"),
            (
                "documents",
                tool.documents.as_ref().map(Spanned::span),
                tool.builtin.is_none(),
                "a `builtin`",
            ),
            ("text", tool.text.as_ref().map(Spanned::span), tool.builtin.is_none(), "a `builtin`"),
            ("undo", tool.undo.as_ref().map(Spanned::span), tool.builtin.is_none(), "a `builtin`"),
            (
                "trusted",
                tool.trusted.as_ref().map(Spanned::span),
                tool.builtin.is_some(),
                "a server",
            ),
        ];
        for (key, span, misfit, wants) in misfits {
            if let (Some(span), true) = (span, misfit) {
                self.say(span, format!("`{key}` without {wants}"), "has no use here", "remove it");
            }
        }
        if let Some(env) = &tool.env
            && env.get_ref().keys().any(|name| !is_variable(name))
        {
            self.no_variable(env.span());
        }
        for (name, value) in tool.env.iter().flat_map(|env| env.get_ref()) {
            if value.get_ref().contains('\0') {
                let message = format!("the variable `{name}` has a NUL in it");
                self.say(value.span(), message, "no variable can have one", "remove the `\\u0000`");
            }
        }
        for variable in &tool.env_from {
            self.variable(variable);
        }
        if let Some(variable) = &tool.bearer_env {
            self.sent_variable(variable);
        }
        if tool.url.is_some() {
            self.headers(&tool.headers, &tool.headers_env, McpServer::takes_header);
        }
        let names = [&tool.headers, &tool.headers_env].into_iter().flatten();
        let mut names = names.flat_map(|it| it.get_ref().keys());
        if let (Some(bearer), true) =
            (&tool.bearer_env, names.any(|it| it.get_ref().eq_ignore_ascii_case("authorization")))
        {
            let hint = "keep one of the two";
            self.say(
                bearer.span(),
                "a bearer token beside the header `authorization`",
                "is that header",
                hint,
            );
        }
        if let Some(builtin) = &tool.builtin {
            self.builtin(name, *builtin.get_ref(), tool);
        }
    }

    fn builtin(&mut self, name: &Spanned<String>, builtin: Builtin, tool: &Tool) {
        let rows = [
            ("data", tool.data.as_ref().map(Spanned::span), builtin.needs_data()),
            ("documents", tool.documents.as_ref().map(Spanned::span), builtin.needs_documents()),
            ("text", tool.text.as_ref().map(Spanned::span), builtin.needs_text()),
        ];
        for (key, span, needed) in rows {
            match (key, span, needed) {
                (_, Some(span), false) => self.say(
                    span,
                    format!("`{}` has no `{key}`", builtin.name()),
                    "has no use here",
                    "remove it",
                ),
                ("data", None, true) => self.say(
                    name.span(),
                    format!("the tool `{}` has no `data`", name.get_ref()),
                    format!("`{}` works on a file of orders", builtin.name()),
                    "add a line `data = \"orders.json\"`",
                ),
                ("documents", None, true) => self.say(
                    name.span(),
                    format!("the tool `{}` has no `documents`", name.get_ref()),
                    format!("`{}` searches in some", builtin.name()),
                    "add a line `documents = \"faq.jsonl\"`",
                ),
                (_, None, true) => self.say(
                    name.span(),
                    format!("the tool `{}` has no `text`", name.get_ref()),
                    "it always says the same",
                    "add a line `text = \"...\"`",
                ),
                _ => {}
            }
        }
        if let (Some(data), true) = (&tool.data, builtin.needs_data())
            && let Err(error) = Desk::read(&self.folder.join(data.get_ref()))
        {
            self.say(
                data.span(),
                format!("the orders in {} cannot be read: {error}", data.get_ref().display()),
                "seen from this file's folder",
                "name a JSON file: [{\"order\": 1001, \"status\": \"shipped\"}]",
            );
        }
        if let (Some(documents), true) = (&tool.documents, builtin.needs_documents())
            && let Err(error) = answers::documents(&self.folder.join(documents.get_ref()))
        {
            self.say(
                documents.span(),
                format!(
                    "the documents in {} cannot be read: {error}",
                    documents.get_ref().display()
                ),
                "seen from this file's folder",
                "name a file with one on each line: {\"id\": \"returns\", \"text\": \"...\"}",
            );
        }
    }

    /// What is wrong with the people who stand in.
    pub(super) fn people(&mut self) {
        for (name, person) in &self.file.people {
            match (&person.otherwise, &person.text) {
                (Some(otherwise), None) if *otherwise.get_ref() == Otherwise::Answer => self.say(
                    otherwise.span(),
                    format!("`{}` has no `text` to answer with", name.get_ref()),
                    "what is the answer?",
                    "add a line `text = \"...\"`",
                ),
                _ => {}
            }
        }
    }

    pub(super) fn store(&mut self) {
        let finance =
            self.file.profile.as_ref().filter(|profile| *profile.get_ref() == Profile::Finance);
        let Some(store) = &self.file.store else {
            if let Some(profile) = finance {
                let hint = "add [store] with `path = \"...\"`";
                self.say(
                    profile.span(),
                    "the profile `finance` without a store",
                    "keeps money",
                    hint,
                );
            }
            return;
        };
        let kept = build::kept_group(self.file).or_else(|| build::kept_model(self.file));
        if self.file.agents.is_empty() && kept.is_none() {
            let hint = "remove the store, or the `durable = false` of the group that is asked";
            let label = "agents, and the group or model that is asked, are kept";
            self.say(store.span(), "a store, and nothing to keep", label, hint);
        }
        let section = store.get_ref();
        let durability = section.durability.as_ref();
        let kind = durability.map_or(Durability::Sync, |durability| *durability.get_ref());
        if kind != Durability::Memory && section.path.is_none() {
            let hint = "add a line `path = \"...\"`, or `durability = \"memory\"`";
            self.say(store.span(), "a store without a path", "nowhere to write", hint);
        }
        if let Some(path) = &section.path
            && path.get_ref().as_os_str().is_empty()
        {
            let hint = "name a folder; it is made if it is not there";
            self.say(path.span(), "a store without a path", "empty", hint);
        }
        if let Some(path) = &section.path
            && path.get_ref().as_os_str().as_encoded_bytes().contains(&0)
        {
            let hint = "remove the `\\u0000`";
            self.say(path.span(), "the store's path has a NUL in it", "no path can have one", hint);
        }
        if let Some(path) = &section.path {
            let folder = self.folder.join(path.get_ref());
            let file = folder.ancestors().find(|above| above.is_file());
            if let Some(file) = file {
                let message = match file == folder {
                    true => "the store is to be in a file".to_owned(),
                    false => format!("the store is to be below a file, {}", file.display()),
                };
                let hint = "name a folder; it is made if it is not there";
                self.say(path.span(), message, "a folder is expected", hint);
            }
        }
        if let (Durability::Memory, Some(path)) = (kind, &section.path) {
            let hint = "write `durability = \"sync\"` or \"async\", or remove the path";
            self.say(path.span(), "a path for what stays in memory", "never written", hint);
        }
        if let (Durability::Memory, Some(ends)) = (kind, &section.process_deaths) {
            let hint = "remove it, or add a `path` and write `durability = \"sync\"` or \"async\"";
            let message = "ends of the process counted in what ends with it";
            self.say(ends.span(), message, "never more than none", hint);
        }
        if let (Some(durability), Some(_)) = (durability, finance)
            && kind != Durability::Sync
        {
            self.say(
                durability.span(),
                "the profile `finance` with a store that may lose writes",
                "an effect must be on disk before it is made",
                "write `durability = \"sync\"`, or leave it out",
            );
        }
    }

    pub(super) fn policy(&mut self) {
        let Some(section) = &self.file.policy else { return };
        let most = section.max_retries.as_ref();
        if let Some(most) = most.filter(|most| *most.get_ref() > Policy::GLOBAL_CAP) {
            self.say(
                most.span(),
                format!("{} retries of one request", most.get_ref()),
                "at most 3",
                "more would be an avalanche (S78); let a sibling answer instead",
            );
        }
        let global = most.map_or(Policy::GLOBAL_CAP, |most| *most.get_ref());
        for (class, cap) in &section.retries {
            let alone = Policy::new().with_cap(*class.get_ref(), (*cap).min(Policy::GLOBAL_CAP));
            let name = class.get_ref().name();
            if *cap > global {
                self.say(
                    class.span(),
                    format!(
                        "{cap} retries for `{name}`, more than {global} for all classes together"
                    ),
                    "above the limit",
                    format!("write at most {global}"),
                );
            } else if alone.validate("file").is_err() {
                self.say(
                    class.span(),
                    format!("`{name}` is never retried"),
                    "again would end the same way",
                    "remove it, or write 0",
                );
            }
        }
        for (what, value) in
            [("max_delay", &section.max_delay), ("attempt_timeout", &section.attempt_timeout)]
        {
            if let Some(value) = value
                && value.get_ref().0 > Policy::MAX_DELAY
            {
                let message = format!("`{what}` above 30 s");
                self.say(value.span(), message, "at most 30 s", "write `\"30s\"` or less");
            }
        }
        if let Some(jitter) = &section.jitter_percent
            && *jitter.get_ref() > 100
        {
            self.say(jitter.span(), "a jitter above 100 %", "0 to 100", "write 20, the default");
        }
    }
}
