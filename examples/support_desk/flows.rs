//! What is done with a complaint: the full flow gives it to an agent; the simplified flow, for what is
//! too complex for that, gives it to a person and tells the customer so.

use std::sync::Arc;
use std::time::Duration;

use mainstay::behavior::{Behavior, Context, Stateless};
use mainstay::fault::{EffectKind, Fault};
use mainstay::port::CallOptions;
use mainstay_actors::agent::{AgentReply, AgentRequest};
use mainstay_actors::tool::{ToolReply, ToolRequest};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::faults::Faults;

/// A complaint on its way through the desk.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) id: String,
    pub(crate) text: String,
}

/// What the customer is told.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) text: String,
}

/// The last resort: a default value.
pub(crate) const DEFAULT_REPLY: &str =
    "Thank you for your message. We have it, and will write to you as soon as we can.";
const HANDED_OVER: &str = "Thank you for your message. A colleague will look into this with you.";

/// The agents that are free.
#[derive(Clone, Debug)]
pub(crate) struct Agents {
    free: Arc<Mutex<Vec<String>>>,
    room: Arc<Semaphore>,
}

impl Agents {
    pub(crate) fn new(ids: Vec<String>) -> Self {
        let room = Arc::new(Semaphore::new(ids.len()));
        Self { free: Arc::new(Mutex::new(ids)), room }
    }
}

/// An agent that is taken until this is dropped.
struct Taken<'a> {
    id: String,
    agents: &'a Agents,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.agents.free.lock().push(std::mem::take(&mut self.id));
        self.agents.room.add_permits(1);
    }
}

impl Agents {
    async fn take(&self) -> Result<Taken<'_>, Fault> {
        let permit = self.room.acquire().await.map_err(|_| Fault::internal("no agents"))?;
        permit.forget();
        let id = self.free.lock().pop().ok_or_else(|| Fault::internal("no agent is free"))?;
        Ok(Taken { id, agents: self })
    }
}

/// Gives the complaint to a free agent.
#[derive(Clone, Debug)]
pub(crate) struct FullFlow {
    pub(crate) agents: Agents,
    pub(crate) faults: Faults,
}

impl Behavior for FullFlow {
    type Request = Ask;
    type Reply = Reply;
    // Every effect below is keyed by the complaint.
    const EFFECT: Option<EffectKind> = Some(EffectKind::Idempotent);
}

impl Stateless for FullFlow {
    async fn serve(&self, ask: &Ask, ctx: &Context) -> Result<Reply, Fault> {
        let agent = self.agents.take().await?;
        if self.faults.is_complex(&ask.id) {
            // Not the flow's failure: its circuit stays closed, and only a simpler flow can take it.
            return Err(Fault::business("too complex for the full flow").with_code("complex"));
        }
        let agent = ctx.port::<AgentRequest, AgentReply>(&agent.id)?;
        let options = CallOptions::new().key(ctx.key());
        let answer = agent.call_with(ask.text.as_str(), options).await.map_err(Fault::from)?;
        Ok(Reply { text: answer.value.text })
    }
}

/// Opens a ticket for a person.
#[derive(Clone, Debug)]
pub(crate) struct SimpleFlow;

impl Behavior for SimpleFlow {
    type Request = Ask;
    type Reply = Reply;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Idempotent);
}

impl Stateless for SimpleFlow {
    async fn serve(&self, _: &Ask, ctx: &Context) -> Result<Reply, Fault> {
        let escalate = ctx.port::<ToolRequest, ToolReply>("escalate")?;
        let request = ToolRequest::new("escalate", json!({ "reason": "complex" }).to_string());
        let options = CallOptions::new().key(format!("{}/0.0/escalate/simple", ctx.key()));
        escalate.call_with(request, options).await.map_err(Fault::from)?;
        Ok(Reply { text: HANDED_OVER.to_owned() })
    }
}

/// How long somebody takes who is only simulated.
pub(crate) async fn take(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}
