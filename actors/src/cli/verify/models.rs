//! What is wrong with the models.

use mainstay_actors::model::Model as Endpoint;
use toml::Spanned;

use super::super::file::{Headers, Limits, Model, ModelKind, Price, micros};
use super::super::snag::is_secret_name;
use super::Verify;
use super::parts::is_url;

/// A kind with its article.
fn a(kind: &str) -> String {
    let article = if kind.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} `{kind}`")
}

impl Verify<'_> {
    pub(super) fn models(&mut self) {
        for (name, model) in &self.file.models {
            let (kind, example) = (model.kind.get_ref().name(), model.kind.get_ref().example());
            let endpoint = [
                ("base_url", model.base_url.as_ref().map(Spanned::span)),
                ("model", model.model.as_ref().map(Spanned::span)),
                ("key_env", model.key_env.as_ref().map(Spanned::span)),
                ("idle_timeout", model.idle_timeout.as_ref().map(Spanned::span)),
                ("answer_tokens", model.answer_tokens.as_ref().map(Spanned::span)),
                ("structured_output", model.structured_output.as_ref().map(Spanned::span)),
                ("headers", model.headers.as_ref().map(Spanned::span)),
                ("headers_env", model.headers_env.as_ref().map(Spanned::span)),
                ("price_per_million", model.price_per_million.as_ref().map(Spanned::span)),
                ("limits", model.limits.as_ref().map(Spanned::span)),
            ];
            for (key, span) in endpoint {
                match (span, example) {
                    (Some(span), None) => self.say(
                        span,
                        format!("{} model has no `{key}`", a(kind)),
                        "does not fit the kind",
                        "remove it, or write `kind = \"openai\"` for an endpoint",
                    ),
                    (None, Some(example)) if matches!(key, "base_url" | "model") => self.say(
                        name.span(),
                        format!("the model `{}` has no `{key}`", name.get_ref()),
                        format!("its kind is `{kind}`"),
                        if key == "model" {
                            "add a line `model = \"...\"`: what the provider calls it".to_owned()
                        } else {
                            format!("add a line such as `base_url = \"{example}\"`")
                        },
                    ),
                    _ => {}
                }
            }
            self.endpoint(name, model);
            self.headers(&model.headers, &model.headers_env, Endpoint::takes_header);
            self.window(name, model);
            self.idle(name, model);
            self.answer_in_window(model);
            if let Some(limit) = &model.token_limit
                && !matches!(model.kind.get_ref(), ModelKind::Openai | ModelKind::Ollama)
            {
                let hint =
                    "remove it: only chat completions (`openai`, `ollama`) have two names for it";
                let message = format!("{} model has no `token_limit`", a(kind));
                self.say(limit.span(), message, "does not fit the kind", hint);
            }
            let gives_text = model.kind.get_ref().gives_text();
            match &model.text {
                Some(text) if !gives_text => self.say(
                    text.span(),
                    format!("{} model has no `text`", a(kind)),
                    "does not fit the kind",
                    "remove it, or write `kind = \"default\"` for an answer that is always the same",
                ),
                None if gives_text => self.say(
                    name.span(),
                    format!("the model `{}` has no `text`", name.get_ref()),
                    format!("its kind is `{kind}`"),
                    match *model.kind.get_ref() {
                        ModelKind::Template => {
                            "add a line `text = \"...\"`, with {question} where the question goes"
                        }
                        _ => "add a line `text = \"...\"`: what it always answers",
                    },
                ),
                _ => {}
            }
        }
    }

    /// What is wrong with the values of one model.
    fn endpoint(&mut self, name: &Spanned<String>, model: &Model) {
        if let Some(url) = &model.base_url {
            let text = url.get_ref();
            if !is_url(text) {
                let hint = model.kind.get_ref().example().unwrap_or_default();
                let hint = format!("write one such as \"{hint}\"");
                self.say(url.span(), "the base URL is not an http(s) URL", "no URL", hint);
            }
        }
        if let Some(id) = &model.model
            && id.get_ref().trim().is_empty()
        {
            let hint = "write what the provider calls it";
            self.say(id.span(), "a model without a name", "empty", hint);
        }
        if let (Some(variable), Some(_)) = (&model.key_env, model.kind.get_ref().example()) {
            self.sent_variable(variable);
        }
        if let Some(price) = &model.price_per_million {
            let Price { input, output } = *price.get_ref();
            if micros(input).is_none() || micros(output).is_none() {
                let hint = "what a million tokens cost: { input = 2.5, output = 10.0 }";
                self.say(price.span(), "a price that is none", "0 or more", hint);
            }
        }
        if let Some(cap) = &model.price_cap {
            if micros(*cap.get_ref()).is_none() {
                let hint = "the most that one request may cost, such as 0.05";
                self.say(cap.span(), "a price cap that is none", "0 or more", hint);
            } else if model.kind.get_ref().example().is_some() && model.price_per_million.is_none()
            {
                let message = "a price cap of a model without prices";
                let hint = "add `price_per_million = { input = 2.5, output = 10.0 }`, with 0 for what is free";
                self.say(cap.span(), message, "nothing is ever counted", hint);
            }
        }
        if let Some(concurrency) = &model.concurrency
            && *concurrency.get_ref() == 0
        {
            let hint = "leave it out for the usual number";
            self.say(concurrency.span(), "a model that takes no request", "at least 1", hint);
        }
        let Some(limits) = &model.limits else { return };
        let Limits { requests_per_minute, tokens_per_minute, concurrent, max_wait } =
            *limits.get_ref();
        if [requests_per_minute, concurrent].contains(&Some(0)) || tokens_per_minute == Some(0) {
            let hint = "leave a limit out that does not hold";
            self.say(limits.span(), "a limit that lets nothing through", "at least 1", hint);
        }
        if requests_per_minute.is_none() && tokens_per_minute.is_none() && concurrent.is_none() {
            let hint = "`requests_per_minute`, `tokens_per_minute` or `concurrent`";
            self.say(limits.span(), "limits that limit nothing", "none is stated", hint);
        }
        if let Some(wait) = max_wait {
            self.max_wait(name, model, limits, wait.0);
        }
        let Some(domain) = model.quota_domain.as_ref().map(Spanned::get_ref) else { return };
        let same = |other: &&Model| {
            other.quota_domain.as_ref().map(Spanned::get_ref) == Some(domain)
                && other.limits.is_some()
        };
        let first = self.file.models.iter().find(|(_, other)| same(other));
        if let Some((first, _)) = first.filter(|(first, _)| first.get_ref() != name.get_ref()) {
            let message = format!(
                "the limits of the quota domain `{domain}` are stated by `{}` already",
                first.get_ref()
            );
            let hint = "a quota domain is one account: state its limits once, they hold for all";
            self.say(limits.span(), message, "stated twice", hint);
        }
    }

    /// What is wrong with the headers that go with every request.
    pub(super) fn headers(
        &mut self,
        headers: &Headers,
        headers_env: &Headers,
        takes: impl Fn(&str) -> Result<(), String>,
    ) {
        let literal = headers.iter().flat_map(|it| it.get_ref().keys());
        let named = headers_env.iter().flat_map(|it| it.get_ref().keys());
        for name in literal.clone().chain(named) {
            if let Err(why) = takes(name.get_ref()) {
                let hint = "write the name of another one";
                self.say(name.span(), why, "cannot be sent", hint);
            }
        }
        for name in literal.filter(|name| is_secret_name(name.get_ref())) {
            self.say(
                name.span(),
                format!("the header `{}` has its secret in the file", name.get_ref()),
                "a key stands in no file",
                format!("write `headers_env = {{ {} = \"ITS_VARIABLE\" }}`", name.get_ref()),
            );
        }
        for (name, value) in headers.iter().flat_map(|it| it.get_ref()) {
            if !is_secret_name(name.get_ref())
                && reqwest::header::HeaderValue::try_from(value.get_ref().as_str()).is_err()
            {
                let hint = "write it on one line, without control characters";
                self.say(value.span(), "a value that no header can have", "cannot be sent", hint);
            }
        }
        let variables = headers_env.iter().flat_map(|it| it.get_ref());
        variables.for_each(|(_, variable)| self.sent_variable(variable));
        // To HTTP the case of a name means nothing: only one of the values would be sent.
        let mut before: Vec<(&Spanned<String>, bool)> = Vec::new();
        for (list, is_literal) in [(headers, true), (headers_env, false)] {
            let mut names: Vec<_> = list.iter().flat_map(|it| it.get_ref().keys()).collect();
            names.sort_by_key(|name| name.span().start);
            for name in names {
                let is_it = |(other, _): &&(&Spanned<String>, bool)| {
                    other.get_ref().eq_ignore_ascii_case(name.get_ref())
                };
                if let Some((other, other_literal)) = before.iter().find(is_it) {
                    let label = match *other_literal == is_literal {
                        true => format!("stands as `{}` as well", other.get_ref()),
                        false => "stands in `headers` as well".to_owned(),
                    };
                    let message = format!("the header `{}` has two values", name.get_ref());
                    self.say(name.span(), message, label, "keep one of the two");
                }
                before.push((name, is_literal));
            }
        }
    }

    /// What asks no provider has a window only beside others: it is what a longer prompt is given to.
    fn window(&mut self, name: &Spanned<String>, model: &Model) {
        let Some(window) = &model.context_window else { return };
        if model.kind.get_ref().example().is_some() {
            return;
        }
        let is_this = |member: &Spanned<String>| member.get_ref() == name.get_ref();
        let stated = |member: &Spanned<String>| {
            !is_this(member)
                && self.file.models.iter().any(|(other, model)| {
                    other.get_ref() == member.get_ref() && model.context_window.is_some()
                })
        };
        let mut groups = self.file.groups.values().map(|group| group.members.get_ref());
        if !groups.any(|members| members.iter().any(is_this) && members.iter().any(stated)) {
            let message =
                format!("the window of `{}`, which is compared with nobody's", name.get_ref());
            let hint = "state `context_window` of the others in its group, too, or remove it";
            self.say(window.span(), message, "nothing follows from it", hint);
        }
    }
}
