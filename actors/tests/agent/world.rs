//! A desk with an agent that pays, and a world that remembers what was paid after the desk is gone.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use mainstay::behavior::{Behavior, Context, Stateless};
use mainstay::fault::{EffectKind, Fault};
use mainstay::port::Port;
use mainstay::spec::acting::AtRunTime;
use mainstay::spec::{ChildSpec, SupervisorSpec};
use mainstay_actors::agent::{Agent, AgentReply, AgentRequest};
use mainstay_actors::chat::{ChatReply, ChatRequest, Message, Role, ToolCall, ToolSpec};
use mainstay_actors::tool::{ToolContext, tool};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::Notify;

/// What happens outside.
#[derive(Default)]
pub(crate) struct World {
    /// Amounts paid, in order, with the idempotency key.
    pub(crate) paid: Mutex<Vec<(u32, String)>>,
    /// What the model was asked, each time.
    pub(crate) asked: Mutex<Vec<Vec<Message>>>,
    /// The model hangs once at its call with so many tool results.
    pub(crate) hang_model: Mutex<Option<usize>>,
    /// The model fails once, for good, at its call with so many tool results.
    pub(crate) fail_model: Mutex<Option<usize>>,
    /// The tool hangs once after it has paid this.
    pub(crate) hang_tool: Mutex<Option<u32>>,
    pub(crate) hung: Notify,
    /// Payments and questions are also written here, one a line.
    pub(crate) file: Option<PathBuf>,
}

impl World {
    fn write(&self, line: &str) {
        if let Some(path) = &self.file {
            let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
            writeln!(file, "{line}").unwrap();
        }
    }

    async fn hang(&self) {
        self.write("hangs");
        println!("hangs");
        self.hung.notify_one();
        std::future::pending().await
    }

    pub(crate) fn amounts(&self) -> Vec<u32> {
        self.paid.lock().iter().map(|(amount, _)| *amount).collect()
    }
}

fn take<T: PartialEq>(slot: &Mutex<Option<T>>, value: T) -> bool {
    let mut slot = slot.lock();
    let hit = *slot == Some(value);
    if hit {
        *slot = None;
    }
    hit
}

/// A model that decides by what it is told.
#[derive(Clone)]
pub(crate) struct Brain {
    pub(crate) world: Arc<World>,
    pub(crate) decide: fn(&ChatRequest) -> ChatReply,
}

impl Behavior for Brain {
    type Request = ChatRequest;
    type Reply = ChatReply;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
}

impl Stateless for Brain {
    async fn serve(&self, request: &ChatRequest, _: &Context) -> Result<ChatReply, Fault> {
        let results = results(request);
        self.world.asked.lock().push(request.messages.clone());
        self.world.write(&format!("asked {results}"));
        if take(&self.world.hang_model, results) {
            self.world.hang().await;
        }
        if take(&self.world.fail_model, results) {
            return Err(Fault::new(mainstay::fault::Class::ContentFiltered, "no"));
        }
        Ok((self.decide)(request))
    }
}

/// How many tool results are in a conversation.
pub(crate) fn results(request: &ChatRequest) -> usize {
    request.messages.iter().filter(|message| message.role == Role::Tool).count()
}

pub(crate) fn pay(amount: u32) -> ToolCall {
    ToolCall {
        id: format!("call-{amount}"),
        name: "pay".to_owned(),
        arguments: format!("{{\"amount\": {amount}}}"),
    }
}

/// Pays 1, then 2, then says so.
pub(crate) fn one_after_the_other(request: &ChatRequest) -> ChatReply {
    match results(request) {
        count @ (0 | 1) => ChatReply::calls([pay(count as u32 + 1)]),
        _ => ChatReply::text("paid 1 and 2"),
    }
}

#[derive(Deserialize)]
struct Pay {
    amount: u32,
}

pub(crate) fn desk(
    world: &Arc<World>,
    kind: EffectKind,
    decide: fn(&ChatRequest) -> ChatReply,
    durable: bool,
) -> SupervisorSpec {
    let brain = Brain { world: Arc::clone(world), decide };
    let agent = payer("llm");
    SupervisorSpec::one_for_one("desk")
        .child(ChildSpec::stateless("llm", move || brain.clone()).concurrency(4))
        .child(payments(world, kind))
        .child(if durable { agent.durable_spec("agent") } else { agent.spec("agent") })
}

pub(crate) fn payer(model: &str) -> Agent {
    Agent::new(model).system("Pay.").tool(ToolSpec::new("pay"), "pay")
}

pub(crate) fn payments(world: &Arc<World>, kind: EffectKind) -> ChildSpec {
    let world = Arc::clone(world);
    tool("pay", AtRunTime(kind), move |pay: Pay, ctx: ToolContext| {
        let world = Arc::clone(&world);
        async move {
            world.write(&format!("paid {} {}", pay.amount, ctx.key()));
            world.paid.lock().push((pay.amount, ctx.key().to_owned()));
            if take(&world.hang_tool, pay.amount) {
                world.hang().await;
            }
            Ok::<_, Fault>(format!("paid {}", pay.amount))
        }
    })
}

pub(crate) type AgentPort = Port<AgentRequest, AgentReply>;
