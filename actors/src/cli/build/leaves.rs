//! The children that stand for something outside: models and MCP servers.

use std::path::Path;

use mainstay::spec::{Capabilities, ChildSpec};
use mainstay_actors::chat::{ChatReply, ChatRequest};
use mainstay_actors::default::DefaultAnswer;
use mainstay_actors::local::LocalModel;
use mainstay_actors::mcp::McpServer;
use mainstay_actors::model::Model;

use super::super::file::{self, ModelKind};

/// The server of a tool's section; `None` for a built-in tool.
pub(super) fn server(tool: &file::Tool, folder: &Path) -> Option<McpServer> {
    let mut server = match (&tool.command, &tool.url) {
        (Some(command), _) => {
            let (program, arguments) = command.get_ref().split_first()?;
            McpServer::command(program, arguments)
        }
        (None, Some(url)) => McpServer::url(url.get_ref()),
        (None, None) => return None,
    };
    for (variable, value) in &tool.env {
        server = server.env(variable, value.as_str());
    }
    for variable in &tool.env_from {
        server = server.env_from(variable.get_ref());
    }
    if let Some(variable) = &tool.bearer_env {
        server = server.bearer_env(variable.get_ref());
    }
    if let Some(dir) = &tool.dir {
        server = server.dir(folder.join(dir.get_ref()));
    }
    if tool.trusted.as_ref().is_some_and(|trusted| *trusted.get_ref()) {
        server = server.trusted();
    }
    if let Some(timeout) = &tool.timeout {
        server = server.call_timeout(timeout.get_ref().0);
    }
    for (tool, effect) in &tool.effects {
        server = server.tool(tool.get_ref(), *effect);
    }
    Some(server)
}

pub(super) fn model(name: &str, model: &file::Model) -> ChildSpec {
    let text = |value: &Option<toml::Spanned<String>>| {
        value.as_ref().map(|value| value.get_ref().clone()).unwrap_or_default()
    };
    let mut spec = match model.kind.get_ref() {
        ModelKind::Openai | ModelKind::Ollama => {
            let (url, id) = (text(&model.url), text(&model.model));
            let mut endpoint = match model.kind.get_ref() {
                ModelKind::Ollama => Model::ollama(url, id),
                _ => Model::openai(url, id),
            };
            if let Some(variable) = &model.key_env {
                endpoint = endpoint.key_env(variable.get_ref());
            }
            endpoint.spec(name)
        }
        ModelKind::Local => LocalModel::default().spec(name),
        ModelKind::Default => {
            DefaultAnswer::<ChatRequest, _>::new(ChatReply::text(text(&model.text))).spec(name)
        }
    };
    if let Some(timeout) = &model.timeout {
        spec = spec.attempt_timeout(timeout.get_ref().0);
    }
    if let Some(concurrency) = &model.concurrency {
        spec = spec.concurrency(*concurrency.get_ref());
    }
    if let Some(domain) = &model.quota_domain {
        spec = spec.quota_domain(domain);
    }
    spec.capabilities(Capabilities {
        guardrail: model.guardrail.unwrap_or_default(),
        residency: model.residency.clone(),
        provider: model.provider.clone(),
        context_window: model.context_window,
        ..Capabilities::default()
    })
}
