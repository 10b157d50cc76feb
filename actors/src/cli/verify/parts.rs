//! What is wrong with a section taken by itself: models, tools, the store, the policy.

use mainstay::policy::Policy;
use toml::Spanned;

use super::super::file::{Durability, ModelKind, Tool};
use super::super::profile::Profile;
use super::super::shop::Desk;
use super::Verify;

impl Verify<'_> {
    fn variable(&mut self, variable: &Spanned<String>) {
        let name = variable.get_ref();
        if std::env::var_os(name).is_none_or(|value| value.is_empty()) {
            self.say(
                variable.span(),
                format!("the environment variable {name} is not set"),
                "read from here",
                format!("set it before the start: export {name}=..."),
            );
        }
    }

    pub(super) fn models(&mut self) {
        for (name, model) in &self.file.models {
            let remote = matches!(model.kind.get_ref(), ModelKind::Openai | ModelKind::Ollama);
            let kind = match model.kind.get_ref() {
                ModelKind::Openai => "openai",
                ModelKind::Ollama => "ollama",
                ModelKind::Local => "local",
                ModelKind::Default => "default",
            };
            for (key, value) in
                [("url", &model.url), ("model", &model.model), ("key_env", &model.key_env)]
            {
                match value {
                    Some(value) if !remote => self.say(
                        value.span(),
                        format!("a `{kind}` model has no `{key}`"),
                        "does not fit the kind",
                        "remove it, or write `kind = \"openai\"` for an endpoint",
                    ),
                    None if remote && key != "key_env" => self.say(
                        name.span(),
                        format!("the model `{}` has no `{key}`", name.get_ref()),
                        format!("its kind is `{kind}`"),
                        if key == "url" {
                            "add a line such as `url = \"http://127.0.0.1:8080/v1\"`"
                        } else {
                            "add a line such as `model = \"gpt-4o\"`"
                        },
                    ),
                    _ => {}
                }
            }
            if let Some(variable) = &model.key_env
                && remote
            {
                self.variable(variable);
            }
            let gives_text = *model.kind.get_ref() == ModelKind::Default;
            match &model.text {
                Some(text) if !gives_text => self.say(
                    text.span(),
                    format!("a `{kind}` model has no `text`"),
                    "does not fit the kind",
                    "remove it, or write `kind = \"default\"` for an answer that is always the same",
                ),
                None if gives_text => self.say(
                    name.span(),
                    format!("the model `{}` has no `text`", name.get_ref()),
                    "its kind is `default`",
                    "add a line `text = \"...\"`: what it always answers",
                ),
                _ => {}
            }
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
            && command.get_ref().is_empty()
        {
            self.say(
                command.span(),
                "an empty command",
                "no program",
                "write [\"program\", \"argument\"]",
            );
        }
        let misfits = [
            (
                "bearer_env",
                tool.bearer_env.as_ref().map(Spanned::span),
                tool.url.is_none(),
                "a `url`",
            ),
            ("dir", tool.dir.as_ref().map(Spanned::span), tool.command.is_none(), "a `command`"),
            ("data", tool.data.as_ref().map(Spanned::span), tool.builtin.is_none(), "a `builtin`"),
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
        for variable in tool.env_from.iter().chain(&tool.bearer_env) {
            self.variable(variable);
        }
        let Some(builtin) = tool.builtin.as_ref().map(|builtin| *builtin.get_ref()) else { return };
        match &tool.data {
            Some(data) => {
                let path = self.folder.join(data.get_ref());
                if let Err(error) = Desk::read(&path) {
                    self.say(
                        data.span(),
                        format!(
                            "the orders in {} cannot be read: {error}",
                            data.get_ref().display()
                        ),
                        "seen from this file's folder",
                        "name a JSON file: [{\"order\": 1001, \"status\": \"shipped\"}]",
                    );
                }
            }
            None if builtin.needs_data() => self.say(
                name.span(),
                format!("the tool `{}` has no `data`", name.get_ref()),
                format!("`{}` works on a file of orders", builtin.name()),
                "add a line `data = \"orders.json\"`",
            ),
            None => {}
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
        let section = store.get_ref();
        let durability = section.durability.as_ref();
        let kind = durability.map_or(Durability::Sync, |durability| *durability.get_ref());
        if kind != Durability::Memory && section.path.is_none() {
            let hint = "add a line `path = \"...\"`, or `durability = \"memory\"`";
            self.say(store.span(), "a store without a path", "nowhere to write", hint);
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
