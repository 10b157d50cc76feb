//! [`Agent`]: asks a model, calls the tools it asks for, tells it what came of them, until it answers.
//!
//! The loop is a stateful behavior in steps: every model call and every round of tool calls is a
//! [`Step::Perform`], made by the runtime. Between two steps the agent can be looked at, stopped and
//! taken up again where it stood.
//!
//! *Invariant.* The agent acts only through the ports it declared, and a model's answer can name
//! nothing else: a tool is found by its name among those configured, or not at all.

use std::sync::Arc;

use mainstay::behavior::{Behavior, Context, Stateful, Step, Turn};
use mainstay::fault::{Class, EffectKind, Fault};
use mainstay::id::RequestId;
use mainstay::mirror::Kind;
use mainstay::port::{CallOptions, Port};
use mainstay::spec::ChildSpec;
use serde::{Deserialize, Serialize};

use crate::chat::{ChatReply, ChatRequest, Message, ToolSpec};
use crate::tool::{ToolReply, ToolRequest};
use run::{Next, Run};

mod run;

pub use run::{MAX_CALLS, MAX_FAILURES, MAX_RESULT};

/// Model calls an agent makes for one task, by default.
pub const DEFAULT_MAX_STEPS: u32 = 8;

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
}

impl AgentRequest {
    /// A task without a history.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), history: Vec::new() }
    }

    /// Sets [`AgentRequest::history`].
    #[must_use]
    pub fn history(mut self, messages: impl IntoIterator<Item = Message>) -> Self {
        self.history = messages.into_iter().collect();
        self
    }
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
    /// Tool calls made or refused, in order.
    pub tools_used: Vec<ToolUse>,
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

/// How an agent works; shared by all its states.
#[derive(Clone, Debug)]
struct Plan {
    model: String,
    system: Option<String>,
    tools: Vec<(ToolSpec, String)>,
    max_steps: u32,
    max_tokens: Option<u32>,
    temperature: Option<f32>,
}

/// The model and tool loop. Made with [`Agent::new`], turned into a child with [`Agent::spec`].
///
/// A tool call that fails is not the agent's failure: its own ladder has retried and substituted what
/// it could, and what is left is told to the model, which can do better with it than another retry.
/// So is a call of a tool that does not exist.
///
/// Each tool call has an idempotency key of the task, the step, the place in it, the tool and its
/// arguments, so a round of calls that is made again takes effect once in tools that take keys.
///
/// # Errors
/// | What | Class, code |
/// |---|---|
/// | the model call failed for good | that fault, usually `Exhausted` |
/// | the model still asks for tools in its last step | `Exhausted`, `step_limit`: again would end there again, a simpler flow may not |
/// | the same tool call, with the same arguments, failed [`MAX_FAILURES`] times | `Exhausted`, `tool_loop` |
/// | the model said nothing | `OutputInvalid`, `empty_answer` |
/// | a tool call was called off, or denied by the budget | that fault |
#[derive(Clone, Debug)]
pub struct Agent {
    plan: Arc<Plan>,
    /// The task in progress, and whose it is.
    run: Option<(RequestId, Run)>,
}

impl Agent {
    /// An agent that asks the model under this need: the id of a child or group beside it or above it.
    pub fn new(model: impl Into<String>) -> Self {
        let plan = Plan {
            model: model.into(),
            system: None,
            tools: Vec::new(),
            max_steps: DEFAULT_MAX_STEPS,
            max_tokens: None,
            temperature: None,
        };
        Self { plan: Arc::new(plan), run: None }
    }

    fn with(mut self, change: impl FnOnce(&mut Plan)) -> Self {
        change(Arc::make_mut(&mut self.plan));
        self
    }

    /// The system message.
    ///
    /// # Default
    /// None.
    #[must_use]
    pub fn system(self, text: impl Into<String>) -> Self {
        self.with(|plan| plan.system = Some(text.into()))
    }

    /// Offers the model this tool; calls of it go to the child or group under this need. A tool of the
    /// same name is replaced.
    #[must_use]
    pub fn tool(self, spec: ToolSpec, need: impl Into<String>) -> Self {
        self.with(|plan| {
            plan.tools.retain(|(other, _)| other.name != spec.name);
            plan.tools.push((spec, need.into()));
        })
    }

    /// Model calls for one task, at least 1.
    ///
    /// # Default
    /// [`DEFAULT_MAX_STEPS`].
    #[must_use]
    pub fn max_steps(self, steps: u32) -> Self {
        self.with(|plan| plan.max_steps = steps.max(1))
    }

    /// Tokens an answer of the model may have.
    ///
    /// # Default
    /// The provider's.
    #[must_use]
    pub fn max_tokens(self, tokens: u32) -> Self {
        self.with(|plan| plan.max_tokens = Some(tokens))
    }

    /// How much chance is in the model's answers, from 0.
    ///
    /// # Default
    /// The provider's.
    #[must_use]
    pub fn temperature(self, temperature: f32) -> Self {
        self.with(|plan| plan.temperature = Some(temperature))
    }

    /// The child spec: stateful, kind `agent`, with the needs of its model and its tools.
    pub fn spec(self, id: impl AsRef<str>) -> ChildSpec {
        let plan = Arc::clone(&self.plan);
        let mut needs: Vec<&String> = plan.tools.iter().map(|(_, need)| need).collect();
        needs.sort();
        needs.dedup();
        let spec = ChildSpec::stateful(id, move || self.clone()).kind(Kind::Agent).needs::<Port<
            ChatRequest,
            ChatReply,
        >>(
            plan.model.clone(),
        );
        needs
            .into_iter()
            .fold(spec, |spec, need| spec.needs::<Port<ToolRequest, ToolReply>>(need.clone()))
    }

    fn perform(&self, next: Next, ctx: &Context) -> Result<Step<AgentReply>, Fault> {
        let calls = match next {
            Next::Done(reply) => return Ok(Step::Reply(reply)),
            Next::Ask(request) => {
                vec![ctx.port::<ChatRequest, ChatReply>(&self.plan.model)?.ask(request)]
            }
            Next::Call(planned) => {
                let call = |planned: run::Planned| {
                    let port = ctx.port::<ToolRequest, ToolReply>(&planned.need)?;
                    let key = format!("{}/{}", ctx.key(), planned.key);
                    let request = ToolRequest::new(planned.call.name, planned.call.arguments);
                    Ok(port.ask_with(request, CallOptions::new().key(key)))
                };
                planned.into_iter().map(call).collect::<Result<_, Fault>>()?
            }
        };
        Ok(Step::Perform(calls))
    }
}

impl Behavior for Agent {
    type Request = AgentRequest;
    type Reply = AgentReply;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
}

impl Stateful for Agent {
    async fn step(
        &mut self,
        request: &AgentRequest,
        turn: Turn,
        ctx: &Context,
    ) -> Result<Step<AgentReply>, Fault> {
        // A task that comes again after a fault or an interruption goes on where it stood.
        let run = match &mut self.run {
            Some((id, run)) if *id == ctx.request() => run,
            other => {
                let run = Run::new(Arc::clone(&self.plan), &request.history, &request.text);
                &mut other.insert((ctx.request(), run)).1
            }
        };
        let next = match turn {
            Turn::Performed(performed) => match run.expects() {
                0 => run.on_model(performed.get::<ChatReply>(0)?.value.clone())?,
                count => {
                    let results = (0..count).map(|index| {
                        performed.get::<ToolReply>(index).map(|answer| answer.value.content.clone())
                    });
                    let results: Vec<_> = results.collect();
                    run.on_tools(results)?
                }
            },
            _ => run.resume(),
        };
        if let Next::Done(_) = next {
            self.run = None;
        }
        self.perform(next, ctx)
    }
}
