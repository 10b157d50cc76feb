//! The children that stand for something outside: models and MCP servers.

use std::collections::HashMap;
use std::path::Path;

use mainstay::spec::{Capabilities, ChildSpec};
use mainstay_actors::local::LocalModel;
use mainstay_actors::mcp::McpServer;
use mainstay_actors::model::limits::RateLimits;
use mainstay_actors::model::{Model, TokenLimit};
use toml::Spanned;

use super::super::file::{self, LimitName, ModelKind};
use super::answers;
use super::stage::Stage;

/// The server of a tool's section; `None` for a built-in tool.
pub(super) fn server(tool: &file::Tool, folder: &Path) -> Option<McpServer> {
    let mut server = match (&tool.command, &tool.url) {
        (Some(command), _) => {
            let (program, arguments) = command.get_ref().split_first()?;
            // A name is looked up in `PATH`; a path is one, as all in the file, from its folder.
            let program = if program.contains(std::path::is_separator) {
                let program = folder.join(program);
                // It is started in another folder than ours.
                std::path::absolute(&program).unwrap_or(program).to_string_lossy().into_owned()
            } else {
                program.clone()
            };
            McpServer::command(program, arguments)
        }
        (None, Some(url)) => McpServer::url(url.get_ref()),
        (None, None) => return None,
    };
    for (variable, value) in tool.env.iter().flat_map(|env| env.get_ref()) {
        server = server.env(variable, value.get_ref().as_str());
    }
    for variable in &tool.env_from {
        server = server.env_from(variable.get_ref());
    }
    if let Some(variable) = &tool.bearer_env {
        server = server.bearer_env(variable.get_ref());
    }
    for (name, value) in tool.headers.iter().flat_map(|it| it.get_ref()) {
        server = server.header(name.get_ref(), value.get_ref().as_str());
    }
    for (name, variable) in tool.headers_env.iter().flat_map(|it| it.get_ref()) {
        server = server.header_env(name.get_ref(), variable.get_ref());
    }
    if tool.command.is_some() {
        // Its arguments may be paths, so it runs where those of the file begin.
        let dir = tool.dir.as_ref().map_or(folder.to_path_buf(), |dir| folder.join(dir.get_ref()));
        if !dir.as_os_str().is_empty() {
            server = server.dir(dir);
        }
    }
    if tool.trusted.as_ref().is_some_and(|trusted| *trusted.get_ref()) {
        server = server.trusted();
    }
    if let Some(timeout) = &tool.timeout {
        server = server.call_timeout(timeout.get_ref().0);
    }
    if let Some(bytes) = &tool.max_result_bytes {
        server = server.max_result_bytes(bytes.get_ref().get());
    }
    if let Some(wait) = &tool.connect_wait {
        server = server.connect_wait(wait.get_ref().0);
    }
    if let Some(timeout) = &tool.start_timeout {
        server = server.start_timeout(timeout.get_ref().0);
    }
    if let Some(timeout) = &tool.ping_timeout {
        server = server.ping_timeout(timeout.get_ref().0);
    }
    if tool.errors_are_transient.as_ref().is_some_and(|transient| *transient.get_ref()) {
        server = server.errors_are_transient();
    }
    for (tool, act) in &tool.effects {
        server = server.tool(tool.get_ref(), act.kind);
    }
    Some(server)
}

/// The limits of every model that has some. Those of a quota domain are one account.
pub(super) fn limits(models: &file::Named<file::Model>) -> HashMap<String, RateLimits> {
    let mut domains = HashMap::new();
    let mut single = HashMap::new();
    for (name, model) in models {
        let Some(section) = &model.limits else { continue };
        let section = section.get_ref();
        let mut limits = RateLimits::new();
        if let Some(requests) = section.requests_per_minute {
            limits = limits.requests_per_minute(requests);
        }
        if let Some(tokens) = section.tokens_per_minute {
            limits = limits.tokens_per_minute(tokens);
        }
        if let Some(requests) = section.concurrent {
            limits = limits.concurrent(requests);
        }
        if let Some(wait) = section.max_wait {
            limits = limits.max_wait(wait.0);
        }
        match &model.quota_domain {
            Some(domain) => domains.insert(domain.get_ref().as_str(), limits),
            None => single.insert(name.get_ref().clone(), limits),
        };
    }
    for (name, model) in models {
        let shared =
            model.quota_domain.as_ref().and_then(|domain| domains.get(domain.get_ref().as_str()));
        if let (Some(limits), Some(_)) = (shared, model.kind.get_ref().example()) {
            single.insert(name.get_ref().clone(), limits.clone());
        }
    }
    single
}

/// An endpoint over HTTP; `None` for what is none.
fn endpoint(model: &file::Model) -> Option<Model> {
    let text = |value: &Option<Spanned<String>>| {
        value.as_ref().map(|value| value.get_ref().clone()).unwrap_or_default()
    };
    let (url, id) = (text(&model.base_url), text(&model.model));
    Some(match model.kind.get_ref() {
        ModelKind::Openai => Model::openai(url, id),
        ModelKind::Responses => Model::responses(url, id),
        ModelKind::Anthropic => Model::anthropic(url, id),
        ModelKind::Gemini => Model::gemini(url, id),
        ModelKind::Ollama => Model::ollama(url, id),
        ModelKind::OllamaNative => Model::ollama_native(url, id),
        ModelKind::Local | ModelKind::Default | ModelKind::Template => return None,
    })
}

fn window(model: &file::Model) -> Option<u32> {
    model.context_window.as_ref().map(|window| window.get_ref().get())
}

fn price_cap(model: &file::Model) -> Option<u64> {
    model.price_cap.as_ref().and_then(|cap| file::micros(*cap.get_ref()))
}

pub(super) fn model(
    name: &str,
    model: &file::Model,
    leads: bool,
    limits: Option<&RateLimits>,
    stage: Option<&Stage>,
) -> ChildSpec {
    let mut spec = match (endpoint(model), stage) {
        (_, Some(stage)) if model.text.is_none() => stage.model(name, model),
        (Some(mut endpoint), _) => {
            if let Some(variable) = &model.key_env {
                endpoint = endpoint.key_env(variable.get_ref());
            }
            if let Some(price) = &model.price_per_million {
                let micros = |price| file::micros(price).unwrap_or_default();
                let price = price.get_ref();
                endpoint = endpoint.price_per_million(micros(price.input), micros(price.output));
            }
            if let Some(cap) = price_cap(model) {
                endpoint = endpoint.price_cap(cap);
            }
            if let Some(limits) = limits {
                endpoint = endpoint.limits(limits.clone());
            }
            if let Some(window) = window(model) {
                endpoint = endpoint.context_window(window);
            }
            if let Some(name) = &model.token_limit {
                endpoint = endpoint.token_limit(match name.get_ref() {
                    LimitName::MaxTokens => TokenLimit::MaxTokens,
                    LimitName::MaxCompletionTokens => TokenLimit::MaxCompletionTokens,
                });
            }
            if let Some(asked) = &model.structured_output {
                endpoint = endpoint.structured_output(*asked.get_ref());
            }
            for (name, value) in model.headers.iter().flat_map(|it| it.get_ref()) {
                endpoint = endpoint.header(name.get_ref(), value.get_ref());
            }
            for (name, variable) in model.headers_env.iter().flat_map(|it| it.get_ref()) {
                endpoint = endpoint.header_env(name.get_ref(), variable.get_ref());
            }
            if let Some(idle) = &model.idle_timeout {
                endpoint = endpoint.idle_timeout(idle.get_ref().0);
            }
            if let Some(tokens) = &model.answer_tokens {
                endpoint = endpoint.answer_tokens(tokens.get_ref().get());
            }
            endpoint.spec(name)
        }
        (None, _) => match (&model.text, model.kind.get_ref()) {
            (Some(text), ModelKind::Template) => answers::template(name, text.get_ref()),
            (Some(text), _) => answers::instead_of_a_model(name, text.get_ref()),
            (None, _) => LocalModel::default().spec(name),
        },
    };
    if let Some(timeout) = &model.timeout {
        spec = spec.attempt_timeout(timeout.get_ref().0);
    }
    if let Some(concurrency) = &model.concurrency {
        spec = spec.concurrency(*concurrency.get_ref());
    }
    if let Some(domain) = &model.quota_domain {
        spec = spec.quota_domain(domain.get_ref());
    }
    spec.capabilities(capabilities(model, leads))
}

/// What a model may and can, beside the others of its group; whether it `leads` one.
pub(crate) fn capabilities(model: &file::Model, leads: bool) -> Capabilities {
    // What costs nothing keeps every cap; a first member that says one sets it for the others.
    let free = model.kind.get_ref().example().is_none() && !leads;
    let text = |said: &Option<Spanned<String>>| said.as_ref().map(|said| said.get_ref().clone());
    Capabilities {
        guardrail: model.guardrail.as_ref().map_or(0, |level| *level.get_ref()),
        tool_rights: model.tool_rights.clone().map(Spanned::into_inner).unwrap_or_default(),
        residency: text(&model.residency),
        price_cap_micros: price_cap(model).or(free.then_some(0)),
        provider: text(&model.provider),
        context_window: window(model),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_has_for_a_sign_of_life_what_the_file_says() {
        let section = |more: &str| {
            let text = format!("[tools.t]\ncommand = [\"true\"]\n{more}");
            let file = file::read(&text).unwrap();
            let shown = server(file.tools.values().next().unwrap(), Path::new("")).unwrap();
            format!("{shown:?}")
        };
        assert!(section("ping_timeout = \"700ms\"\n").contains("ping_timeout: 700ms"));
        assert!(section("").contains("ping_timeout: 5s"));
    }
}
