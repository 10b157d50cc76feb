//! What an agent is asked and what it answers.
//!
//! *Invariant.* Plain data that can be stored, apart from the listener, which is not.

use mainstay::fault::Class;
use serde::{Deserialize, Serialize};

use super::turns::LeftOut;
use crate::chat::Message;
use crate::chat::stream::StreamSink;

/// A task for an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AgentRequest {
    /// What is wanted.
    pub text: String,
    /// The conversation before.
    ///
    /// # Default
    /// None.
    pub history: Vec<Message>,
    /// How many turns of the conversation the caller has left out of the history, for lack of room; the model
    /// is told. See [`leave_out_turns`](super::leave_out_turns).
    ///
    /// # Default
    /// 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u32,
    /// Who listens to the answer while it is written. Not stored: a task that goes on in another
    /// process has no listener.
    ///
    /// A listener also hears what the model says before it calls tools, each round ended by the calls.
    /// To an agent with [validators](super::Agent::validate) the listener hears the answer whole, once
    /// it was accepted: what was heard cannot be taken back.
    ///
    /// # Default
    /// `None`: the answer comes whole.
    #[serde(skip)]
    pub stream: Option<StreamSink>,
}

impl AgentRequest {
    /// A task without a history.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// Sets [`AgentRequest::history`].
    #[must_use]
    pub fn history(mut self, messages: impl IntoIterator<Item = Message>) -> Self {
        self.history = messages.into_iter().collect();
        self
    }

    /// Sets [`AgentRequest::left_out`].
    #[must_use]
    pub const fn left_out(mut self, turns: u32) -> Self {
        self.left_out = turns;
        self
    }

    /// Sets [`AgentRequest::stream`].
    #[must_use]
    pub fn stream_to(mut self, sink: StreamSink) -> Self {
        self.stream = Some(sink);
        self
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks in this way")]
const fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl From<&str> for AgentRequest {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for AgentRequest {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

/// What came of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AgentReply {
    /// The answer.
    pub text: String,
    /// Model calls made.
    pub steps: u32,
    /// Tool calls made, served from the record or refused, in order.
    pub tools_used: Vec<ToolUse>,
    /// Whether earlier tool results were shortened, because the conversation had become too long for
    /// the model.
    #[serde(default)]
    pub compacted: bool,
    /// What of the conversation was left out, because it had become too long for the model also without long
    /// tool results.
    #[serde(default)]
    pub left_out: LeftOut,
}

/// A tool call of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ToolUse {
    /// The tool, as the model named it.
    pub name: String,
    /// The arguments, as the model wrote them.
    pub arguments: String,
    /// Why it failed; `None` when it did not.
    pub failed: Option<Class>,
}
