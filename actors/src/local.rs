//! A chat model without a network, a key or a weight: rules for a customer-service desk.
//!
//! [`LocalModel`] stands at the end of a chain of models, so that the desk still works when every
//! provider is down, and it makes examples and tests run anywhere. It reads the last message of the
//! user, finds its language, what its writer wants and which order it names, asks for the tools
//! `query_order`, `refund` and `escalate` if it is offered them, and says the result in the writer's
//! language.
//!
//! *Invariant.* The same conversation always gets the same answer. Nothing in a message changes the
//! rules: what reads like an attempt to steer a model is left out before anything is decided, and
//! only a tool the request offers is ever asked for.
//!
//! # Limits
//! Rules, not understanding: keywords in 14 languages. On the 240 complaints of `examples/data`, with
//! which the lists were checked, see the test `local.rs` for the share it gets right; other texts
//! fare worse. It follows no system prompt and makes no conversation.

use std::fmt;

use mainstay::behavior::{Behavior, Context, Stateless};
use mainstay::fate::Cost;
use mainstay::fault::{EffectKind, Fault};
use mainstay::spec::ChildSpec;
use mainstay::spec::Kind;
use serde_json::{Value, json};

use crate::chat::{ChatReply, ChatRequest, Role, ToolCall, ToolChoice, Usage};
use crate::names;
use phrases::{Phrases, STATES, phrases};

mod keywords;
mod order;
mod phrases;
mod text;
mod understand;

/// The languages of [`LocalModel`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Language {
    /// English; also what nothing speaks against.
    En,
    /// German.
    De,
    /// French.
    Fr,
    /// Spanish.
    Es,
    /// Portuguese.
    Pt,
    /// Italian.
    It,
    /// Polish.
    Pl,
    /// Dutch.
    Nl,
    /// Russian.
    Ru,
    /// Turkish.
    Tr,
    /// Arabic.
    Ar,
    /// Hindi, also in Latin letters.
    Hi,
    /// Chinese.
    Zh,
    /// Japanese.
    Ja,
}

impl Language {
    /// The ISO 639-1 code.
    pub const fn code(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::De => "de",
            Self::Fr => "fr",
            Self::Es => "es",
            Self::Pt => "pt",
            Self::It => "it",
            Self::Pl => "pl",
            Self::Nl => "nl",
            Self::Ru => "ru",
            Self::Tr => "tr",
            Self::Ar => "ar",
            Self::Hi => "hi",
            Self::Zh => "zh",
            Self::Ja => "ja",
        }
    }

    /// Whether words are not set apart by spaces, or have others joined to them.
    const fn is_joined(self) -> bool {
        matches!(self, Self::Ar | Self::Zh | Self::Ja)
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// What a message asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Intent {
    /// A person. Wins over the rest.
    Human,
    /// Money back, a return, a cancellation. Wins over `Status`.
    Refund,
    /// Where an order is.
    Status,
    /// Anything else.
    Other,
}

impl Intent {
    /// The name: `human`, `refund`, `status`, `other`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::Refund => "refund",
            Self::Status => "status",
            Self::Other => "other",
        }
    }
}

/// What [`LocalModel::understand`] makes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Understood {
    /// The language it is mainly in.
    pub language: Language,
    /// What its writer wants.
    pub intent: Intent,
    /// The order it is about, whether or not there is such an order.
    pub order: Option<u32>,
}

/// The offline model. See the [module](self).
#[derive(Clone, Debug)]
pub struct LocalModel {
    refund_limit_cents: i64,
}

impl Default for LocalModel {
    /// Refunds up to 500.00 by itself.
    fn default() -> Self {
        Self { refund_limit_cents: 50_000 }
    }
}

impl LocalModel {
    /// The model with its defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Orders of more than this, in minor units of their currency, go to a person.
    ///
    /// # Default
    /// 50 000: 500.00.
    #[must_use]
    pub fn refund_limit_cents(mut self, cents: i64) -> Self {
        self.refund_limit_cents = cents;
        self
    }

    /// The child spec: stateless, kind `model`.
    pub fn spec(self, id: impl AsRef<str>) -> ChildSpec {
        ChildSpec::stateless(id, move || self.clone()).kind(Kind::Model).concurrency(8)
    }

    /// What a message is about.
    pub fn understand(text: &str) -> Understood {
        understand::understand(text)
    }

    /// The next answer in a conversation: tool calls, or the last word. Usage is an estimate, a token
    /// for four bytes.
    pub fn reply(&self, request: &ChatRequest) -> ChatReply {
        let text = request.last_user_text();
        let understood = Self::understand(text);
        let turn = Turn {
            model: self,
            request,
            phrases: phrases(understood.language),
            order: understood.order,
            results: results(request),
        };
        let mut reply = match understood.intent {
            Intent::Human => turn.escalate("the customer asks for a person"),
            Intent::Refund => turn.refund(),
            Intent::Status => turn.status(),
            Intent::Other => ChatReply::text(turn.phrases.other),
        };
        let written = reply.text.len()
            + reply.tool_calls.iter().map(|call| call.arguments.len()).sum::<usize>();
        let read: usize = request.messages.iter().map(|message| message.text.len()).sum();
        let tokens = |bytes: usize| (bytes as u64).div_ceil(4);
        reply.usage = Usage { input: tokens(read), output: tokens(written), estimated: true };
        reply.model = "local".to_owned();
        reply
    }
}

/// A tool call that was made since the user spoke, and what came of it.
struct Made {
    name: String,
    result: Value,
}

impl Made {
    fn failed(&self) -> bool {
        self.result.get("error").is_some_and(|error| !error.is_null())
    }

    /// The tool said that there is no such order, rather than that it could not tell.
    fn is_nothing(&self) -> bool {
        let says_no = |key: &str| self.result.get(key).and_then(Value::as_bool) == Some(false);
        let class = self.result.pointer("/error/class").and_then(Value::as_str);
        self.result.is_null()
            || says_no("found")
            || says_no("exists")
            || matches!(class, Some("input_validation" | "business"))
    }
}

fn results(request: &ChatRequest) -> Vec<Made> {
    let spoke = request.messages.iter().rposition(|message| message.role == Role::User);
    let since = &request.messages[spoke.map_or(0, |at| at + 1)..];
    let made = since.iter().zip(names::tools(since)).filter_map(|(message, tool)| {
        let tool = tool?.to_owned();
        let result = serde_json::from_str(&message.text)
            .unwrap_or_else(|_| Value::String(message.text.clone()));
        Some(Made { name: tool, result })
    });
    made.collect()
}

struct Turn<'a> {
    model: &'a LocalModel,
    request: &'a ChatRequest,
    phrases: &'a Phrases,
    order: Option<u32>,
    results: Vec<Made>,
}

impl Turn<'_> {
    fn made(&self, name: &str) -> Option<&Made> {
        self.results.iter().rev().find(|made| made.name == name)
    }

    fn offers(&self, name: &str) -> bool {
        self.request.tool_choice != ToolChoice::None
            && self.request.tools.iter().any(|tool| tool.name == name)
    }

    #[expect(clippy::needless_pass_by_value, reason = "reads better with `json!` at the call")]
    fn call(&self, name: &str, arguments: Value) -> ChatReply {
        let id = format!("local-{}", self.results.len() + 1);
        ChatReply::calls([ToolCall { id, name: name.to_owned(), arguments: arguments.to_string() }])
    }

    fn say(&self, text: &str) -> ChatReply {
        let order = self.order.map(|order| order.to_string()).unwrap_or_default();
        ChatReply::text(text.replace("{order}", &order))
    }

    fn status(&self) -> ChatReply {
        let Some(order) = self.order else { return self.say(self.phrases.ask_order) };
        match self.made("query_order") {
            None if self.offers("query_order") => {
                self.call("query_order", json!({ "order": order }))
            }
            None => self.say(self.phrases.trouble),
            Some(made) if made.is_nothing() => self.say(self.phrases.not_found),
            Some(made) if made.failed() => self.say(self.phrases.trouble),
            Some(made) => {
                let state =
                    made.result.get("status").and_then(Value::as_str).unwrap_or("processing");
                let known = STATES.iter().position(|known| *known == state);
                let state = known.map_or(state, |index| self.phrases.states[index]);
                let mut text = self.phrases.status.replace("{status}", state);
                if let Some(eta) = made.result.get("eta").and_then(Value::as_str) {
                    text.push_str(&self.phrases.eta.replace("{eta}", eta));
                }
                self.say(&text)
            }
        }
    }

    fn refund(&self) -> ChatReply {
        let Some(order) = self.order else { return self.say(self.phrases.ask_order) };
        match self.made("refund") {
            Some(made) if made.failed() => return self.escalate("the refund failed"),
            Some(_) => return self.say(self.phrases.refunded),
            None => {}
        }
        match self.made("query_order") {
            None if self.offers("query_order") => {
                return self.call("query_order", json!({ "order": order }));
            }
            Some(made) if made.is_nothing() => return self.say(self.phrases.not_found),
            Some(made) if made.failed() => return self.escalate("the order cannot be looked up"),
            Some(made) => {
                if made.result.get("status").and_then(Value::as_str) == Some("refunded") {
                    return self.say(self.phrases.already);
                }
                let cents = made.result.get("amount_cents").and_then(Value::as_i64);
                if cents.is_some_and(|cents| cents > self.model.refund_limit_cents) {
                    return self.escalate("the refund is above what the desk may pay out");
                }
            }
            None => {}
        }
        if self.offers("refund") {
            self.call("refund", json!({ "order": order, "reason": "the customer asks for it" }))
        } else {
            self.escalate("the customer asks for a refund")
        }
    }

    fn escalate(&self, reason: &str) -> ChatReply {
        match self.made("escalate") {
            None if self.offers("escalate") => {
                self.call("escalate", json!({ "order": self.order, "reason": reason }))
            }
            None => self.say(self.phrases.trouble),
            Some(made) if made.failed() => self.say(self.phrases.trouble),
            Some(_) => self.say(self.phrases.escalated),
        }
    }
}

impl Behavior for LocalModel {
    type Request = ChatRequest;
    type Reply = ChatReply;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
}

impl Stateless for LocalModel {
    async fn serve(&self, request: &ChatRequest, ctx: &Context) -> Result<ChatReply, Fault> {
        if let Some(part) = request.stream.as_ref().and_then(|sink| sink.broken()) {
            ctx.mark_degraded();
            return Ok(part);
        }
        let reply = self.reply(request);
        if let Some(sink) = &request.stream {
            if ctx.is_hedge() || sink.is_hedged() {
                sink.rival().whole(&reply).await.map_err(|_| {
                    Fault::cancelled("another attempt writes the stream")
                        .with_code("superseded")
                        .not_applied()
                })?;
            } else {
                // The reply is there, whoever listens to it.
                let _ = sink.attempt().whole(&reply).await;
            }
        }
        ctx.spend(Cost { tokens: reply.usage.total(), money_micros: 0 });
        Ok(reply)
    }
}

#[cfg(test)]
mod tests;
