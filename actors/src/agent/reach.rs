//! [`Reach`]: where the calls of a tool go, how they are undone, and how their outcome is found out.
//!
//! *Invariant.* What is asked to undo or to verify follows from the arguments of the call alone: it is
//! written down before the tool is asked, when there is no result yet.

use std::fmt;
use std::sync::Arc;

use mainstay::behavior::{Call, Context};
use mainstay::fault::Fault;
use mainstay::port::{CallOptions, Port, Verified};
use serde_json::Value;

use crate::chat::ToolCall;
use crate::tool::{ToolReply, ToolRequest};

type Map = dyn Fn(&Value) -> Value + Send + Sync;
type Read = dyn Fn(&Value) -> Verified<Value> + Send + Sync;

/// Another tool, and what it is asked about a call.
#[derive(Clone)]
struct Asks {
    need: String,
    tool: String,
    map: Arc<Map>,
}

impl Asks {
    fn request(&self, arguments: &Value) -> ToolRequest {
        ToolRequest::new(&*self.tool, (self.map)(arguments).to_string())
    }

    fn port(&self, ctx: &Context) -> Result<Port<ToolRequest, ToolReply>, Fault> {
        Ok(ctx.port(&self.need)?)
    }
}

/// Where the calls of an agent's tool go, for [`Agent::tool`](super::Agent::tool). A need alone, as
/// text, is one without an undo and without a question.
///
/// ```
/// use mainstay::port::Verified;
/// use mainstay_actors::agent::{Agent, Reach};
/// use mainstay_actors::tool::ToolSpec;
/// use serde_json::json;
///
/// let book = Reach::new("book")
///     .undo("cancel", "cancel", |book| json!({ "seat": book["seat"] }))
///     .verify("look", "look", |book| json!({ "seat": book["seat"] }), |answer| match answer.as_str() {
///         Some("taken") => Verified::Happened(json!("booked")),
///         Some("free") => Verified::NotHappened,
///         _ => Verified::CannotTell,
///     });
/// let agent = Agent::new("llm").tool(ToolSpec::new("book"), book);
/// ```
#[derive(Clone)]
pub struct Reach {
    need: String,
    undo: Option<Asks>,
    verify: Option<(Asks, Arc<Read>)>,
    /// What it has done is what others have, under its key.
    within: bool,
    free: bool,
}

impl Reach {
    /// To the child or group under this need.
    pub fn new(need: impl Into<String>) -> Self {
        Self { need: need.into(), undo: None, verify: None, within: false, free: false }
    }

    /// To a sub-agent under this need, a [`Team`](super::Team) or an [`AgentTool`](super::AgentTool), which the model
    /// knows by this name. What it has done in its tasks is undone where a transaction fails: what it cannot undo is a
    /// person's, and so is what the agent has done before. Not so of [`AgentTool::durable_spec`](super::AgentTool::durable_spec),
    /// which refuses to.
    pub fn agent(need: impl Into<String>, name: impl Into<String>) -> Self {
        let need = need.into();
        Self { within: true, ..Self::new(need.clone()).undo(need, name, Value::clone) }
    }

    /// How a call is undone: by asking `tool`, of the child or group under this need, with the arguments
    /// that `map` makes of those of the call. It is asked for what is confirmed, unknown or failed when a
    /// transaction fails, the latest first, and must cope with a call that has never happened, or in part. That
    /// child must be durable or [`recorded`](mainstay::spec::ChildSpec::recorded), as the tools of this crate are; with another one
    /// the call is refused with the code `effect_undo`.
    ///
    /// # Default
    /// None: a transaction that comes to such a call stops undoing there and calls a person, unless the call
    /// has failed.
    #[must_use]
    pub fn undo(
        mut self,
        need: impl Into<String>,
        tool: impl Into<String>,
        map: impl Fn(&Value) -> Value + Send + Sync + 'static,
    ) -> Self {
        self.within = false;
        self.undo = Some(Asks { need: need.into(), tool: tool.into(), map: Arc::new(map) });
        self
    }

    /// How to find out whether a call whose outcome is unknown has happened: by asking `tool`, of the
    /// child or group under this need, with the arguments that `map` makes of those of the call; `read`
    /// says what the answer means, and what the call's result is if it happened. Asked only of tools
    /// whose kind is [`Verifiable`](mainstay::fault::EffectKind::Verifiable).
    ///
    /// # Default
    /// None: such a call stays unknown until a person resolves it.
    #[must_use]
    pub fn verify(
        mut self,
        need: impl Into<String>,
        tool: impl Into<String>,
        map: impl Fn(&Value) -> Value + Send + Sync + 'static,
        read: impl Fn(&Value) -> Verified<Value> + Send + Sync + 'static,
    ) -> Self {
        let asks = Asks { need: need.into(), tool: tool.into(), map: Arc::new(map) };
        self.verify = Some((asks, Arc::new(read)));
        self
    }

    /// Calls of this tool cost no tokens and no money: where they are made together with others, they take no share of
    /// the agent's [budget](super::Agent::budget). What one costs all the same is counted, and bounded by all that is
    /// left.
    ///
    /// # Default
    /// They may cost something, and calls that are made together share what is left equally.
    #[must_use]
    pub fn free(mut self) -> Self {
        self.free = true;
        self
    }

    pub(super) fn is_free(&self) -> bool {
        self.free
    }

    pub(super) fn need(&self) -> &String {
        &self.need
    }

    /// Everyone that may be asked.
    pub(super) fn needs(&self) -> impl Iterator<Item = &String> {
        let undo = self.undo.iter().map(|asks| &asks.need);
        let verify = self.verify.iter().map(|(asks, _)| &asks.need);
        std::iter::once(&self.need).chain(undo).chain(verify)
    }

    /// The call as an effect.
    pub(super) fn effect(
        &self,
        call: ToolCall,
        options: CallOptions,
        ctx: &Context,
    ) -> Result<Call, Fault> {
        let text = if call.arguments.trim().is_empty() { "{}" } else { &*call.arguments };
        // What is no JSON is refused by the tool, and leaves nothing to undo.
        let arguments = serde_json::from_str::<Value>(text).ok();
        let port = ctx.port::<ToolRequest, ToolReply>(&self.need)?;
        let request = ToolRequest::new(call.name, call.arguments);
        // To the letter: by that the runtime knows that what was asked does nothing but by others.
        let again = self.within.then(|| request.clone());
        let mut effect = port.effect_with(request, options);
        if let (Some(asks), Some(arguments)) = (&self.undo, &arguments) {
            let undo = again.unwrap_or_else(|| asks.request(arguments));
            effect = effect.undo(&asks.port(ctx)?, undo);
        }
        if let (Some((asks, read)), Some(arguments)) = (&self.verify, &arguments) {
            let read = Arc::clone(read);
            let read = move |answer: &ToolReply| {
                // An answer that is no JSON is read as the text that it is.
                let answer = serde_json::from_str(&answer.content)
                    .unwrap_or_else(|_| Value::from(&*answer.content));
                match read(&answer) {
                    Verified::Happened(result) => {
                        Verified::Happened(ToolReply::new(result.to_string()))
                    }
                    Verified::NotHappened => Verified::NotHappened,
                    Verified::CannotTell => Verified::CannotTell,
                }
            };
            effect = effect.verify(&asks.port(ctx)?, asks.request(arguments), read);
        }
        Ok(Call::from(effect))
    }
}

impl From<&str> for Reach {
    fn from(need: &str) -> Self {
        Self::new(need)
    }
}

impl From<String> for Reach {
    fn from(need: String) -> Self {
        Self::new(need)
    }
}

impl From<&String> for Reach {
    fn from(need: &String) -> Self {
        Self::new(need)
    }
}

impl fmt::Debug for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reach")
            .field("need", &self.need)
            .field("undo", &self.undo.as_ref().map(|asks| &asks.tool))
            .field("verify", &self.verify.as_ref().map(|(asks, _)| &asks.tool))
            .field("free", &self.free)
            .finish()
    }
}
