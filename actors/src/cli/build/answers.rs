//! What answers without asking anybody: templates, defaults, and searches in documents of the file's.

use std::path::Path;

use mainstay::behavior::{Behavior, Context, Stateless};
use mainstay::fault::{EffectKind, Fault};
use mainstay::spec::Kind;
use mainstay::spec::acting::Read;
use mainstay::spec::{ChildSpec, Role};
use mainstay_actors::agent::{AgentReply, AgentRequest};
use mainstay_actors::chat::{ChatReply, ChatRequest, Role as Speaker};
use mainstay_actors::default::DefaultAnswer;
use mainstay_actors::search::{Document, ExactSearch, SearchRequest, VectorSearch};
use mainstay_actors::tool::{Tool, ToolContext, ToolReply, ToolRequest};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::file::Builtin;

/// Stands for the question in a template.
pub(crate) const QUESTION: &str = "{question}";

/// Answers with a text that has the question in it. It cannot fail, and is marked as a default.
#[derive(Clone, Debug)]
struct Template(String);

impl Behavior for Template {
    type Request = ChatRequest;
    type Reply = ChatReply;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
    const ROLE: Role = Role::Default;
}

impl Stateless for Template {
    async fn serve(&self, request: &ChatRequest, ctx: &Context) -> Result<ChatReply, Fault> {
        ctx.mark_defaulted();
        let asked = request.messages.iter().rev().find(|said| said.role == Speaker::User);
        let asked = asked.map(|said| said.text.trim()).unwrap_or_default();
        Ok(ChatReply::text(self.0.replace(QUESTION, asked)))
    }
}

pub(super) fn template(id: &str, text: &str) -> ChildSpec {
    let template = Template(text.to_owned());
    ChildSpec::stateless(id, move || template.clone()).kind(Kind::Output).concurrency(64)
}

/// A text that a model's place gives.
pub(super) fn instead_of_a_model(id: &str, text: &str) -> ChildSpec {
    DefaultAnswer::<ChatRequest, _>::new(ChatReply::text(text)).spec(id)
}

/// A text that an agent's place gives.
pub(super) fn instead_of_an_agent(id: &str, text: &str) -> anyhow::Result<ChildSpec> {
    let reply = json!({"text": text, "steps": 0, "tools_used": []});
    let reply: AgentReply = serde_json::from_value(reply)?;
    Ok(DefaultAnswer::<AgentRequest, _>::new(reply).spec(id))
}

/// A text that a tool's place gives: JSON as it is, any other as a string.
pub(super) fn instead_of_a_tool(id: &str, text: &str) -> ChildSpec {
    DefaultAnswer::<ToolRequest, _>::new(result(text)).spec(id)
}

/// What a tool answers that says this.
pub(crate) fn result(text: &str) -> ToolReply {
    let value = serde_json::from_str::<Value>(text).unwrap_or_else(|_| json!(text));
    ToolReply::new(value.to_string())
}

/// Reads documents: a JSON array of them, or one on each line.
pub(crate) fn documents(path: &Path) -> Result<Vec<Document>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let documents: Vec<Document> = match text.trim_start().starts_with('[') {
        true => serde_json::from_str(&text).map_err(|error| error.to_string())?,
        false => text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty())
            .map(|(at, line)| {
                serde_json::from_str(line).map_err(|error| format!("line {}: {error}", at + 1))
            })
            .collect::<Result<_, _>>()?,
    };
    if documents.is_empty() { Err("it holds no document".to_owned()) } else { Ok(documents) }
}

#[derive(Deserialize)]
struct Query {
    query: String,
    limit: Option<usize>,
}

impl Query {
    fn request(self) -> SearchRequest {
        let request = SearchRequest::new(self.query);
        self.limit.into_iter().fold(request, |request, limit| request.limit(limit))
    }
}

/// A search in documents, as a tool.
pub(super) fn search(id: &str, way: Builtin, found: &[Document]) -> Result<ChildSpec, Fault> {
    let tool = match way {
        Builtin::VectorSearch => {
            let index = VectorSearch::new(found)?;
            Tool::new(way.name(), Read, move |query: Query, _: ToolContext| {
                let hits = index.search(&query.request());
                async move { hits }
            })
        }
        _ => {
            let index = ExactSearch::new(found);
            Tool::new(way.name(), Read, move |query: Query, _: ToolContext| {
                let hits = index.search(&query.request());
                async move { hits }
            })
        }
    };
    Ok(tool.spec(id).kind(Kind::Data).into())
}
