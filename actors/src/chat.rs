//! What a model is asked and what it answers, whoever makes it.
//!
//! Every model endpoint takes a [`ChatRequest`] and gives a [`ChatReply`], so models can stand in for
//! each other in a group, and the offline [`LocalModel`](crate::local::LocalModel) for any of them.
//!
//! *Invariant.* Plain data that can be stored: no JSON trees, JSON is kept as text. The one thing that
//! is not data, who listens to the answer as it comes ([`ChatRequest::stream`]), is not stored. No
//! provider's wire format shows here.

use mainstay::fault::Fault;
use serde::{Deserialize, Serialize};

use crate::chat::stream::StreamSink;

pub mod stream;

/// A conversation to be continued, with the tools the model may ask for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChatRequest {
    /// The conversation, oldest first.
    pub messages: Vec<Message>,
    /// The tools the model may ask for.
    ///
    /// # Default
    /// None.
    pub tools: Vec<ToolSpec>,
    /// Whether it may, must or must not ask for tools.
    ///
    /// # Default
    /// [`ToolChoice::Auto`].
    pub tool_choice: ToolChoice,
    /// Tokens the answer may have. An answer cut off there is a fault, `OutputInvalid`.
    ///
    /// # Default
    /// `None`: the provider's.
    pub max_tokens: Option<u32>,
    /// How much chance is in the answer, from 0.
    ///
    /// # Default
    /// `None`: the provider's.
    pub temperature: Option<f32>,
    /// Texts before which the answer ends.
    ///
    /// # Default
    /// None.
    pub stop: Vec<String>,
    /// A seed, for providers that take one.
    ///
    /// # Default
    /// `None`.
    pub seed: Option<u64>,
    /// What the text of the answer must be.
    ///
    /// # Default
    /// [`ResponseFormat::Text`].
    pub response_format: ResponseFormat,
    /// Who listens to the answer while it is written. Not stored: a request that is read again after
    /// a crash has no listener.
    ///
    /// # Default
    /// `None`: the answer comes whole.
    #[serde(skip)]
    pub stream: Option<StreamSink>,
    /// Whoever asks has an answer that is no JSON given again, so nobody else does. Not stored.
    #[serde(skip)]
    pub(crate) regenerated: bool,
}

impl ChatRequest {
    /// A request of these messages, everything else at its default.
    pub fn new(messages: impl IntoIterator<Item = Message>) -> Self {
        Self { messages: messages.into_iter().collect(), ..Self::default() }
    }

    /// Adds a message at the end.
    #[must_use]
    pub fn message(mut self, message: Message) -> Self {
        self.messages.push(message);
        self
    }

    /// Puts a system message before everything else.
    #[must_use]
    pub fn system(mut self, text: impl Into<String>) -> Self {
        self.messages.insert(0, Message::system(text));
        self
    }

    /// Adds a tool.
    #[must_use]
    pub fn tool(mut self, tool: ToolSpec) -> Self {
        self.tools.push(tool);
        self
    }

    /// Sets [`ChatRequest::tool_choice`].
    #[must_use]
    pub fn tool_choice(mut self, choice: ToolChoice) -> Self {
        self.tool_choice = choice;
        self
    }

    /// Sets [`ChatRequest::max_tokens`].
    #[must_use]
    pub fn max_tokens(mut self, tokens: u32) -> Self {
        self.max_tokens = Some(tokens);
        self
    }

    /// Sets [`ChatRequest::temperature`].
    #[must_use]
    pub fn temperature(mut self, temperature: f32) -> Self {
        self.temperature = Some(temperature);
        self
    }

    /// Adds a text to [`ChatRequest::stop`].
    #[must_use]
    pub fn stop(mut self, text: impl Into<String>) -> Self {
        self.stop.push(text.into());
        self
    }

    /// Sets [`ChatRequest::seed`].
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Sets [`ChatRequest::response_format`].
    #[must_use]
    pub fn response_format(mut self, format: ResponseFormat) -> Self {
        self.response_format = format;
        self
    }

    /// Asks for an answer that fits this JSON schema, strictly, `name` being what the schema is called.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "reads better with `json!` at the call")]
    pub fn json_schema(self, name: impl Into<String>, schema: serde_json::Value) -> Self {
        let (name, schema) = (name.into(), schema.to_string());
        self.response_format(ResponseFormat::Schema { name, schema, strict: true })
    }

    /// Sets [`ChatRequest::stream`].
    #[must_use]
    pub fn stream_to(mut self, sink: StreamSink) -> Self {
        self.stream = Some(sink);
        self
    }

    /// The text of the last message of the user; empty when there is none.
    pub fn last_user_text(&self) -> &str {
        self.messages
            .iter()
            .rev()
            .find(|message| message.role == Role::User)
            .map_or("", |message| &message.text)
    }
}

impl From<&str> for ChatRequest {
    /// One message of the user.
    fn from(text: &str) -> Self {
        Self::new([Message::user(text)])
    }
}

impl From<String> for ChatRequest {
    /// One message of the user.
    fn from(text: String) -> Self {
        Self::new([Message::user(text)])
    }
}

/// Who said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Whoever runs the agent.
    System,
    /// The person, or whoever asks.
    User,
    /// The model.
    Assistant,
    /// A tool's result.
    Tool,
}

impl Role {
    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Message {
    /// Who said it.
    pub role: Role,
    /// What was said; may be empty for a model that only asks for tools.
    pub text: String,
    /// What the model asks for; only with [`Role::Assistant`].
    pub tool_calls: Vec<ToolCall>,
    /// Which [`ToolCall`] this is the result of; only with [`Role::Tool`].
    pub tool_call_id: Option<String>,
}

impl Message {
    fn new(role: Role, text: impl Into<String>) -> Self {
        Self { role, text: text.into(), tool_calls: Vec::new(), tool_call_id: None }
    }

    /// An instruction of whoever runs the agent.
    pub fn system(text: impl Into<String>) -> Self {
        Self::new(Role::System, text)
    }

    /// Something the user said.
    pub fn user(text: impl Into<String>) -> Self {
        Self::new(Role::User, text)
    }

    /// Something the model said.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self::new(Role::Assistant, text)
    }

    /// Tools the model asked for, with what it said besides.
    pub fn tool_calls(text: impl Into<String>, calls: Vec<ToolCall>) -> Self {
        Self { tool_calls: calls, ..Self::new(Role::Assistant, text) }
    }

    /// The result of a tool call.
    pub fn tool_result(call_id: impl Into<String>, content: impl Into<String>) -> Self {
        Self { tool_call_id: Some(call_id.into()), ..Self::new(Role::Tool, content) }
    }
}

/// A tool call the model asks for. Nothing has been done yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The model's id for it. Not an idempotency key: another attempt has another.
    pub id: String,
    /// The tool.
    pub name: String,
    /// The arguments, JSON as the model wrote it. Unchecked.
    pub arguments: String,
}

/// Whether the model may ask for tools.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ToolChoice {
    /// As it sees fit.
    #[default]
    Auto,
    /// It must not.
    None,
    /// It must.
    Required,
}

/// What the text of an answer must be.
///
/// An endpoint asks its provider for it and checks the text; one that is not JSON, or not of the schema, is a
/// fault, `OutputInvalid` with code `bad_json`. Of a schema the words are checked that
/// [`Agent::answer_schema`](crate::agent::Agent::answer_schema) lists; with any other (`pattern`, `if`) it is the
/// provider's word.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ResponseFormat {
    /// Any text.
    #[default]
    Text,
    /// JSON of any shape. Where a provider wants that word in a message, too, and it is in none, the model is told.
    Json,
    /// JSON of this shape.
    Schema {
        /// What the schema is called, for providers that want a name.
        name: String,
        /// The JSON schema, as text.
        schema: String,
        /// Whether the provider must enforce it, or fail; only some can, and only for the part of
        /// JSON schema they know. One that leaves fields open (an object without `additionalProperties: false`,
        /// or with a property that is not `required`) is asked for without, where it would be refused; the
        /// answer has to be JSON all the same. Where it is not `strict`, it is a wish: an answer that is no JSON is no fault, and a
        /// provider that can only enforce schemas is told in words.
        strict: bool,
    },
}

/// What a model is told about a tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ToolSpec {
    /// The name the model calls it by.
    pub name: String,
    /// What it is for.
    ///
    /// # Default
    /// Empty.
    pub description: String,
    /// The JSON schema of the arguments, as text.
    ///
    /// # Default
    /// An object of any fields.
    pub parameters: String,
}

impl ToolSpec {
    /// A tool of this name that takes any object.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            description: String::new(),
            parameters: r#"{"type":"object"}"#.to_owned(),
        }
    }

    /// Sets [`ToolSpec::description`].
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    /// Sets the JSON schema of the arguments.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "reads better with `json!` at the call")]
    pub fn parameters(mut self, schema: serde_json::Value) -> Self {
        self.parameters = schema.to_string();
        self
    }
}

/// What a model answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChatReply {
    /// What it said; may be empty when it asks for tools.
    pub text: String,
    /// What it asks for, in its order.
    pub tool_calls: Vec<ToolCall>,
    /// What it used.
    pub usage: Usage,
    /// Why it ended.
    pub finish: Finish,
    /// The model that answered, in the provider's words.
    pub model: String,
}

impl ChatReply {
    /// An answer in words.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// The fault that broke the answer off, if it is only a part.
    pub fn broken_by(&self) -> Option<&Fault> {
        match &self.finish {
            Finish::Partial(fault) => Some(fault),
            _ => None,
        }
    }

    /// Whether it is not over: Anthropic ends a turn that took long so, and goes on when it is given back
    /// what it has said.
    pub fn is_paused(&self) -> bool {
        self.tool_calls.is_empty() && matches!(&self.finish, Finish::Other(why) if why == PAUSED)
    }

    /// An answer that asks for tools.
    pub fn calls(calls: impl IntoIterator<Item = ToolCall>) -> Self {
        Self {
            tool_calls: calls.into_iter().collect(),
            finish: Finish::ToolCalls,
            ..Self::default()
        }
    }
}

/// Tokens used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens read.
    pub input: u64,
    /// Tokens written.
    pub output: u64,
    /// Whether these are our estimate, a token for four bytes, because the provider did not say. An
    /// answer never counts as free: a budget in tokens must end a loop.
    pub estimated: bool,
}

impl Usage {
    /// Read and written together.
    pub const fn total(&self) -> u64 {
        self.input.saturating_add(self.output)
    }
}

/// Why an answer ended. Answers that were cut off or filtered are faults, not answers, with one
/// exception: what a listener has already heard cannot be taken back, see [`Finish::Partial`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Finish {
    /// It was complete.
    #[default]
    Stop,
    /// It asks for tools.
    ToolCalls,
    /// It broke off after a listener had heard a part of it, which is the text of the reply. Only
    /// requests with a [`StreamSink`] that asks for it end so; see [`stream`].
    Partial(Box<Fault>),
    /// Something else, in the provider's words.
    Other(String),
}

/// Anthropic's word for a turn that is not over.
pub(crate) const PAUSED: &str = "pause_turn";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_becomes_one_message_of_the_user() {
        let request = ChatRequest::from("hello").system("be brief");
        assert_eq!(request.messages, [Message::system("be brief"), Message::user("hello")]);
        assert_eq!(request.last_user_text(), "hello");
        assert_eq!(ChatRequest::default().last_user_text(), "");
    }
}
