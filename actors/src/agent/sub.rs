//! Agents as tools of other agents.
//!
//! *Invariant.* A sub-agent works under the idempotency key of the call that asked it: however often
//! the call is made again, also by another process, what the sub-agent has done to the world is not done
//! twice. What its model had said before that is not asked for again.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mainstay::behavior::{Behavior, Context, Stateful, Stateless, Step, Turn};
use mainstay::error::{CallError, Unavailable};
use mainstay::fate::Answer;
use mainstay::fault::{Class, EffectKind, EffectState, Fault};
use mainstay::id::ChildPath;
use mainstay::port::{CallOptions, Port};
use mainstay::spec::ChildSpec;
use mainstay::spec::Kind;
use mainstay::system::{SupervisorRef, System};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::SetOnce;

use super::{Agent, AgentReply, AgentRequest};
use crate::chat::ToolSpec;
use crate::tool::{CONCURRENCY, ToolReply, ToolRequest};

/// How long a task waits for its team to be attached.
const ATTACHED: Duration = Duration::from_secs(2);

/// The arguments a sub-agent is called with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubTask {
    /// What is wanted. A sub-agent knows nothing of the conversation that led to it.
    pub task: String,
}

/// What a model is told about an agent that it can give tasks to.
fn offer(name: &str, description: &str) -> ToolSpec {
    ToolSpec::new(name).description(description).parameters(json!({
        "type": "object",
        "properties": { "task": { "type": "string", "description": "The task, with all it needs." } },
        "required": ["task"],
        "additionalProperties": false,
    }))
}

fn task(request: &ToolRequest) -> Result<AgentRequest, Fault> {
    let read: SubTask = serde_json::from_str(&request.arguments).map_err(|error| {
        Fault::input_validation(format!("arguments: {error}"))
            .with_code("bad_arguments")
            .not_applied()
    })?;
    Ok(AgentRequest::new(read.task))
}

fn content<R: Borrow<AgentReply>>(answer: &Answer<R>, ctx: &Context) -> ToolReply {
    if answer.degraded {
        ctx.mark_degraded();
    }
    ToolReply::new(json!(answer.value.borrow().text).to_string())
}

/// A tool whose work is done by the agent, or group of agents, under this need.
///
/// The sub-agent gets what is left of the caller's deadline and budget, and its costs count there.
///
/// | The sub-agent | The tool | When the process ends in the middle of a task |
/// |---|---|---|
/// | [`Agent::spec`] | [`AgentTool::spec`] | the call is made again, and the sub-agent begins anew; what its model had said that led to an act is given again, and no act is done twice: the caller's ledger is what survives |
/// | [`Agent::durable_spec`] | [`AgentTool::durable_spec`] | the sub-agent goes on where its last step had ended, and the call waits for what comes of it |
///
/// In a [transaction](mainstay::checkpoint::Scope::Transaction) that fails, what the sub-agent has done is undone if the agent
/// that asks it says so: [`Reach::agent`](super::Reach::agent). [`AgentTool::durable_spec`] refuses to, with code `task_own`, since
/// the task of a durable one is its own: a person is called.
///
/// A durable one refuses a task that it has been given before: from [`AgentTool::spec`] such a call fails with code
/// `task_known`.
#[derive(Clone, Debug)]
pub struct AgentTool {
    need: String,
}

impl AgentTool {
    /// A tool that asks the child or group under this need.
    pub fn new(need: impl Into<String>) -> Self {
        Self { need: need.into() }
    }

    /// What a model is told about it.
    pub fn offer(name: impl AsRef<str>, description: impl AsRef<str>) -> ToolSpec {
        offer(name.as_ref(), description.as_ref())
    }

    /// The child spec: kind `tool`, [`CONCURRENCY`] tasks at a time as far as the agent takes them.
    pub fn spec(self, id: impl AsRef<str>) -> ChildSpec {
        let need = self.need.clone();
        ChildSpec::stateless(id, move || self.clone())
            .kind(Kind::Tool)
            .concurrency(CONCURRENCY)
            .needs::<Port<AgentRequest, AgentReply>>(need)
            .recorded::<Self>()
    }

    /// The child spec for an agent that is [durable](Agent::durable_spec): kind `tool`, one task at a time, as such
    /// an agent takes them. A call that is made again, in this process or another, waits for the task that it had
    /// asked for before, and costs nothing once more. That holds for calls with a key: those of a durable agent have
    /// one.
    pub fn durable_spec(self, id: impl AsRef<str>) -> ChildSpec {
        let need = self.need.clone();
        ChildSpec::stateful(id, move || Joining(self.clone()))
            .kind(Kind::Tool)
            .needs::<Port<AgentRequest, AgentReply>>(need)
            .recorded::<Joining>()
    }
}

/// [`AgentTool::durable_spec`]: it asks in a step, which is what a question is joined by.
#[derive(Clone, Debug)]
struct Joining(AgentTool);

impl Behavior for Joining {
    type Request = ToolRequest;
    type Reply = ToolReply;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Idempotent);
}

impl Stateful for Joining {
    async fn step(
        &mut self,
        request: &ToolRequest,
        turn: Turn,
        ctx: &Context,
    ) -> Result<Step<ToolReply>, Fault> {
        if ctx.undoes().is_some() {
            // Nor is it given the task once more.
            let why = "the task of a durable sub-agent is its own, and is not undone from here";
            return Err(Fault::business(why).with_code("task_own"));
        }
        if let Turn::Performed(performed) = &turn {
            let answer = performed.get::<AgentReply>(0).map_err(unheard)?;
            return Ok(Step::Reply(content(&answer, ctx)));
        }
        let port = ctx.port::<AgentRequest, AgentReply>(&self.0.need)?;
        Ok(Step::Perform(vec![port.ask_recorded(task(request)?)]))
    }
}

impl Behavior for AgentTool {
    type Request = ToolRequest;
    type Reply = ToolReply;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Idempotent);
}

impl Stateless for AgentTool {
    async fn serve(&self, request: &ToolRequest, ctx: &Context) -> Result<ToolReply, Fault> {
        if ctx.undoes().is_some() {
            return undone(ctx).await;
        }
        let port = ctx.port::<AgentRequest, AgentReply>(&self.need)?;
        let options = CallOptions::new().key(ctx.key());
        let answer = port.call_with(task(request)?, options).await.map_err(failed)?;
        Ok(content(&answer, ctx))
    }
}

/// A sub-agent does nothing to the world but what its ledger knows.
async fn undone(ctx: &Context) -> Result<ToolReply, Fault> {
    ctx.undo_within().await?;
    Ok(ToolReply::new("undone"))
}

fn failed(error: CallError<AgentRequest>) -> Fault {
    match error {
        CallError::Refused { why: Unavailable::Duplicate, .. } => {
            Fault::indeterminate("the agent was given this task before").with_code("task_known")
        }
        error => unheard(Fault::from(error)),
    }
}

/// What an agent's failure says of what it did, where nobody has heard how it ended: its acts are its own, and of any kind.
fn unheard(fault: Fault) -> Fault {
    let last = fault.source.as_ref().and_then(|source| source.downcast_ref::<Fault>());
    // Without one its time was over, or it was set aside.
    let is_unheard = last.is_none_or(|last| last.leaves_unknown(EffectKind::Irreversible));
    match (fault.class, fault.effect) {
        (Class::Exhausted, EffectState::Unstated) if is_unheard => fault.effect_unknown(),
        _ => fault,
    }
}

/// A tool that starts an agent of its own for each task, as a dynamic child, and removes it afterwards.
///
/// A dynamic child needs a supervisor, and that there is only once the system has started: until
/// [`Team::attach`], tasks wait, and after 2 s are refused with code `not_attached`.
///
/// In a [transaction](mainstay::checkpoint::Scope::Transaction) that fails, what the agents have done is undone if the agent that
/// asks says so: [`Reach::agent`](super::Reach::agent).
///
/// # Limits
/// A task has the time that is left to the call, at most [`Team::LONGEST`]. What it costs is charged to
/// the caller when it has ended; give the agent a [budget](Agent::budget) of its own. A process that
/// ends meanwhile takes the dynamic children with it; the call is made again and starts another, which begins anew.
/// Agents that are started at run time and go on in the next process are those of a
/// [template](mainstay::spec::SupervisorSpec::template) that makes them [durable](Agent::durable_spec): start one with
/// [`SupervisorRef::start_from`], give it tasks under keys, and delete it when it has no more to do.
///
/// Once attached it holds the system, which then does not stop because its last handle elsewhere was
/// dropped: end it with [`System::stop`].
#[derive(Clone)]
pub struct Team {
    agent: Agent,
    place: Arc<SetOnce<(System, ChildPath)>>,
}

impl Team {
    /// The longest time for one task: an hour.
    pub const LONGEST: Duration = Duration::from_secs(3600);

    /// A team of agents like this one.
    pub fn new(agent: Agent) -> Self {
        Self { agent, place: Arc::new(SetOnce::new()) }
    }

    /// What a model is told about it.
    pub fn offer(name: impl AsRef<str>, description: impl AsRef<str>) -> ToolSpec {
        offer(name.as_ref(), description.as_ref())
    }

    /// The child spec of the tool: as [`AgentTool::spec`]. Keep a clone of the team to attach it.
    pub fn spec(&self, id: impl AsRef<str>) -> ChildSpec {
        let team = self.clone();
        ChildSpec::stateless(id, move || team.clone())
            .kind(Kind::Tool)
            .concurrency(CONCURRENCY)
            .attempt_timeout(Self::LONGEST)
            .deadline(Self::LONGEST)
            .recorded::<Self>()
    }

    /// From now on its agents are started under this supervisor. Only the first call counts; whether
    /// this was the first.
    pub fn attach(&self, system: &System, supervisor: impl Into<ChildPath>) -> bool {
        self.place.set((system.clone(), supervisor.into())).is_ok()
    }
}

impl fmt::Debug for Team {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Team").field("agent", &self.agent).finish_non_exhaustive()
    }
}

impl Behavior for Team {
    type Request = ToolRequest;
    type Reply = ToolReply;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Idempotent);
}

impl Stateless for Team {
    async fn serve(&self, request: &ToolRequest, ctx: &Context) -> Result<ToolReply, Fault> {
        if ctx.undoes().is_some() {
            return undone(ctx).await;
        }
        let task = task(request)?;
        let unready = |what: String, code: &'static str| {
            Fault::tool_execution(what).with_code(code).not_applied()
        };
        // A request of before may be gone on with before whoever starts the system comes to that.
        let Ok((system, path)) = tokio::time::timeout(ATTACHED, self.place.wait()).await else {
            return Err(unready("the team is attached to no supervisor".into(), "not_attached"));
        };
        let supervisor = system
            .supervisor(path.clone())
            .map_err(|error| unready(error.to_string(), "not_attached"))?;
        let id = format!("task-{}-{}", ctx.request().0, ctx.delivery().0);
        let spec = self.agent.clone().spec(&id).temporary();
        // From here on, since the attempt may be cut off before it hears that the child has started.
        let started = Started { supervisor, id };
        let child = started
            .supervisor
            .start_child(spec)
            .await
            .map_err(|error| unready(error.to_string(), "not_started"))?;
        // Within the request that this is for: on its budget and its deadline, and no task of its own.
        let port = system
            .port::<AgentRequest, AgentReply>(child)
            .map(|port| ctx.within(&port))
            .map_err(|error| unready(error.to_string(), "not_started"))?;
        let options =
            CallOptions::new().key(ctx.key()).deadline(ctx.time_left().min(Self::LONGEST));
        let answer = port.call_with(task, options).await.map_err(failed)?;
        drop(started);
        Ok(content(&answer, ctx))
    }
}

/// Removes the child however the attempt ends.
struct Started {
    supervisor: SupervisorRef,
    id: String,
}

impl Drop for Started {
    fn drop(&mut self) {
        let (supervisor, id) = (self.supervisor.clone(), std::mem::take(&mut self.id));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { supervisor.terminate_child(&id).await });
        }
    }
}
