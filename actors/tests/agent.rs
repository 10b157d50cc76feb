//! What an agent may spend, whom it can ask, and who hears it.

use std::sync::Arc;
use std::time::Duration;

use mainstay::behavior::{Behavior, Context, Stateless};
use mainstay::checkpoint::Scope;
use mainstay::error::CallError;
use mainstay::event::Event;
use mainstay::fate::Cost;
use mainstay::fault::{Class, EffectKind, Fault};
use mainstay::policy::Policy;
use mainstay::port::{CallOptions, Port};
use mainstay::spec::acting::{Irreversible, Read};
use mainstay::spec::{ChildSpec, SupervisorSpec};
use mainstay::system::System;
use mainstay_actors::agent::{
    Agent, AgentReply, AgentRequest, AgentTool, Reach, TURNS_LEFT_OUT, TaskBudget, Team,
};
use mainstay_actors::chat::stream::{OnBreak, StreamEvent, open};
use mainstay_actors::chat::{
    ChatReply, ChatRequest, Message, ResponseFormat, Role, ToolCall, ToolSpec,
};
use mainstay_actors::model::Model;
use mainstay_actors::stub_server::{Row, StubServer};
use mainstay_actors::tool::{ToolContext, ToolReply, ToolRequest, tool};
use parking_lot::Mutex;
use serde_json::{Value, json};

type Decide = Arc<dyn Fn(&ChatRequest) -> Result<ChatReply, Fault> + Send + Sync>;

/// A model that costs and takes time.
#[derive(Clone)]
struct Brain {
    decide: Decide,
    cost: Cost,
    takes: Duration,
    streams: bool,
    asked: Arc<Mutex<Vec<ChatRequest>>>,
}

impl Brain {
    fn new(
        decide: impl Fn(&ChatRequest) -> Result<ChatReply, Fault> + Send + Sync + 'static,
    ) -> Self {
        Self {
            decide: Arc::new(decide),
            cost: Cost::default(),
            takes: Duration::ZERO,
            streams: false,
            asked: Arc::default(),
        }
    }

    fn spec(&self, id: &str) -> ChildSpec {
        let brain = self.clone();
        ChildSpec::stateless(id, move || brain.clone()).concurrency(8)
    }
}

impl Behavior for Brain {
    type Request = ChatRequest;
    type Reply = ChatReply;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
}

impl Stateless for Brain {
    async fn serve(&self, request: &ChatRequest, ctx: &Context) -> Result<ChatReply, Fault> {
        self.asked.lock().push(request.clone());
        tokio::time::sleep(self.takes).await;
        ctx.spend(self.cost);
        let reply = (self.decide)(request)?;
        if let Some(sink) = request.stream.as_ref().filter(|_| self.streams) {
            let _ = sink.attempt().whole(&reply).await;
        }
        Ok(reply)
    }
}

fn results(request: &ChatRequest) -> usize {
    request.messages.iter().filter(|message| message.role == Role::Tool).count()
}

fn call(name: &str, arguments: impl Into<String>) -> ToolCall {
    ToolCall { id: "id".to_owned(), name: name.to_owned(), arguments: arguments.into() }
}

/// Looks for ever.
fn restless(request: &ChatRequest) -> Result<ChatReply, Fault> {
    Ok(ChatReply::calls([call("look", format!("{{\"n\":{}}}", results(request)))]))
}

fn look() -> ChildSpec {
    tool("look", Read, async |_: Value, _: ToolContext| Ok::<_, Fault>("nothing")).into()
}

fn agent() -> Agent {
    Agent::new("llm").tool(ToolSpec::new("look"), "look").max_steps(20)
}

async fn start(brain: &Brain, agent: Agent) -> (System, Port<AgentRequest, AgentReply>) {
    let spec = SupervisorSpec::one_for_one("desk")
        .child(brain.spec("llm"))
        .child(look())
        .child(agent.spec("agent"));
    let system = System::start(spec).await.unwrap();
    let port = system.port("desk/agent").unwrap();
    (system, port)
}

fn fault(error: CallError<AgentRequest>) -> Fault {
    match error {
        CallError::RecoveryExhausted { fault, .. } => *fault,
        error => panic!("{error:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_is_used_up_ends_the_task_and_nothing_more_is_asked() {
    let table = [
        (TaskBudget::new().tokens(100), "task_tokens"),
        (TaskBudget::new().money_micros(100), "task_money"),
    ];
    for (budget, code) in table {
        let brain = Brain { cost: Cost { tokens: 40, money_micros: 40 }, ..Brain::new(restless) };
        let (_system, port) = start(&brain, agent().budget(budget)).await;
        for tasks in 1..=2 {
            let fault = fault(port.call("go").await.unwrap_err());
            assert_eq!((fault.class, fault.code.as_deref()), (Class::BudgetDenied, Some(code)));
            // Forty, eighty, a hundred and twenty; each task has a budget of its own.
            assert_eq!(brain.asked.lock().len(), 3 * tasks, "{code}");
        }
    }
}

/// A tool that is paid for and fails, differently each time.
#[derive(Clone, Default)]
struct Costly(Arc<Mutex<u64>>);

impl Behavior for Costly {
    type Request = ToolRequest;
    type Reply = ToolReply;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Read);
}

impl Stateless for Costly {
    async fn serve(&self, _: &ToolRequest, ctx: &Context) -> Result<ToolReply, Fault> {
        ctx.spend(Cost { tokens: 60, money_micros: 0 });
        let mut count = self.0.lock();
        *count += 1;
        Err(Fault::new(Class::Business, format!("not so, for the {count}. time")))
    }
}

#[tokio::test(start_paused = true)]
async fn what_failed_is_charged_to_the_task_and_to_whoever_asked() {
    let start = async |agent: Agent, brain: &Brain| {
        let tool = Costly::default();
        let spec = SupervisorSpec::one_for_one("desk")
            .child(brain.spec("llm"))
            .child(ChildSpec::stateless("look", move || tool.clone()))
            .child(agent.spec("agent"));
        let system = System::start(spec).await.unwrap();
        let port: Port<AgentRequest, AgentReply> = system.port("desk/agent").unwrap();
        (system, port)
    };
    let brain = Brain::new(restless);
    let (_system, port) = start(agent().budget(TaskBudget::new().tokens(100)), &brain).await;
    let fault = fault(port.call("go").await.unwrap_err());
    assert_eq!(fault.code.as_deref(), Some("task_tokens"), "{fault:?}");
    assert_eq!(brain.asked.lock().len(), 2, "two tools, that is a hundred and twenty");
    let brain = Brain::new(|request: &ChatRequest| match results(request) {
        0 => restless(request),
        _ => Ok(ChatReply::text("it does not work")),
    });
    let (_system, port) = start(agent(), &brain).await;
    assert_eq!(port.call("go").await.unwrap().cost.tokens, 60);
}

#[tokio::test(start_paused = true)]
async fn what_was_spent_does_not_come_back_with_a_rollback() {
    let brain = Brain::new(|request: &ChatRequest| match results(request) {
        2 => Err(Fault::new(Class::ContentFiltered, "no")),
        _ => restless(request),
    });
    let brain = Brain { cost: Cost { tokens: 40, money_micros: 0 }, ..brain };
    let agent = agent().budget(TaskBudget::new().tokens(130));
    let desk = SupervisorSpec::one_for_one("desk").scope(Scope::Transaction);
    let desk = desk.child(brain.spec("llm")).child(look()).child(agent.spec("agent"));
    let system = System::start(desk).await.unwrap();
    let port: Port<AgentRequest, AgentReply> = system.port("desk/agent").unwrap();
    let fault = fault(port.call("go").await.unwrap_err());
    assert_eq!(fault.code.as_deref(), Some("task_tokens"));
    // Two, one that failed, and after the rollback only one more.
    assert_eq!(brain.asked.lock().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_task_out_of_time_ends_then_and_not_later() {
    let brain = Brain { takes: Duration::from_secs(1), ..Brain::new(restless) };
    let budget = TaskBudget::new().time(Duration::from_millis(2500));
    let (_system, port) = start(&brain, agent().budget(budget)).await;
    let before = tokio::time::Instant::now();
    let fault = fault(port.call("go").await.unwrap_err());
    assert_eq!(fault.code.as_deref(), Some("task_time"), "{fault:?}");
    assert_eq!(before.elapsed(), Duration::from_millis(2500));
    assert_eq!(brain.asked.lock().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_refused_is_given_again_in_the_same_conversation() {
    let brain = Brain::new(|request: &ChatRequest| {
        Ok(ChatReply::text(format!("answer {}", request.messages.len())))
    });
    let even = |text: &str| match text.ends_with('5') {
        true => Ok(()),
        false => Err("it must end with 5".to_owned()),
    };
    let (system, port) = start(&brain, agent().validate(even)).await;
    let answer = port.call("go").await.unwrap();
    assert_eq!((&*answer.value.text, answer.value.steps), ("answer 5", 3));
    assert_eq!(system.fates().done, 4, "three questions and the task");
    let (_system, port) = start(&brain, agent().validate(|_| Err("never".to_owned()))).await;
    let fault = fault(port.call("go").await.unwrap_err());
    assert_eq!((fault.class, fault.code.as_deref()), (Class::OutputInvalid, Some("rejected")));
}

#[tokio::test(start_paused = true)]
async fn a_model_is_told_of_what_shape_its_answer_must_be() {
    let open = json!({"type": "object", "properties": {"n": {"type": "integer"}}});
    let mut closed = open.clone();
    (closed["required"], closed["additionalProperties"]) = (json!(["n"]), json!(false));
    for (schema, strict) in [(open, false), (closed, true)] {
        for with_tools in [false, true] {
            let brain = Brain::new(|_| Ok(ChatReply::text("{\"n\":7}")));
            let agent = if with_tools { agent() } else { Agent::new("llm") };
            let agent = agent.system("Count.").answer_schema(schema.clone());
            let (_system, port) = start(&brain, agent).await;
            assert_eq!(port.call("go").await.unwrap().value.text, "{\"n\":7}");
            let asked = brain.asked.lock()[0].clone();
            let told = &asked.messages[0];
            assert!(told.role == Role::System && told.text.starts_with("Count.\n\n"), "{told:?}");
            assert!(told.text.ends_with(&schema.to_string()), "{told:?}");
            let wanted = match with_tools {
                // Some providers refuse both at a time, and with others the model calls no tool then.
                true => ResponseFormat::Text,
                false => ResponseFormat::Schema {
                    name: "answer".into(),
                    schema: schema.to_string(),
                    strict,
                },
            };
            assert_eq!(asked.response_format, wanted);
        }
    }
}

#[tokio::test]
async fn what_an_endpoint_finds_to_be_no_json_is_given_again_in_the_same_conversation() {
    let server = StubServer::start().await.unwrap();
    let schema = json!({
        "type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"],
        "additionalProperties": false,
    });
    for said in ["certainly! {", "{\"n\":", "{\"n\":7}", "{\"n\":\"x\"}", "certainly!", "{\"n\":8}"]
    {
        server.then(Row::reply(said));
    }
    let spec = SupervisorSpec::one_for_one("desk")
        .child(Model::openai(server.url(), "m").spec("llm"))
        .child(Agent::new("llm").answer_schema(schema).spec("agent"));
    let system = System::start(spec).await.unwrap();
    let port: Port<AgentRequest, AgentReply> = system.port("desk/agent").unwrap();
    for answer in ["{\"n\":7}", "{\"n\":8}"] {
        let reply = port.call("go").await.unwrap().value;
        assert_eq!((&*reply.text, reply.steps), (answer, 3));
    }
    let asked: Vec<_> = server.requests().iter().map(|request| request.json()).collect();
    assert_eq!(asked[0]["response_format"]["json_schema"]["strict"], true);
    // There are models that refuse a conversation in which one speaks twice in a row.
    for (request, turns) in asked.iter().zip([1, 1, 1, 1, 3, 3]) {
        let turns_of = |message: &Value| message["role"].as_str().unwrap().to_owned();
        let roles: Vec<_> = request["messages"].as_array().unwrap().iter().map(turns_of).collect();
        let alternate = ["system", "user", "assistant", "user"];
        assert_eq!(roles, alternate[..=turns], "{request}");
    }
    for (at, times) in [(0, 0), (1, 1), (2, 2), (3, 0), (4, 0), (5, 1)] {
        let last = asked[at]["messages"].as_array().unwrap().last().unwrap()["content"].to_string();
        assert_eq!(last.matches("it is not JSON").count(), times, "{last}");
        assert_eq!(last.contains("Your answer cannot be used"), at > 3, "{last}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_schema_with_a_word_that_is_not_checked_is_refused_by_name_and_place() {
    let schema = json!({"type": "object", "properties": {"id": {"pattern": "^a"}}});
    let brain = Brain::new(|_| Ok(ChatReply::text("{}")));
    let (_system, port) = start(&brain, Agent::new("llm").answer_schema(schema.clone())).await;
    let fault = fault(port.call("go").await.unwrap_err());
    assert_eq!((fault.class, fault.code.as_deref()), (Class::InputValidation, Some("bad_schema")));
    let why = Agent::checks_schema(&schema).unwrap_err();
    assert!(
        why.contains("`pattern` at /properties/id") && fault.message.ends_with(&why),
        "{fault}"
    );
    assert!(brain.asked.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_conversation_that_is_too_long_for_the_model_is_shortened_and_goes_on() {
    let brain = Brain::new(|request: &ChatRequest| {
        let length: usize = request.messages.iter().map(|message| message.text.len()).sum();
        match results(request) {
            _ if length > 10_000 => Err(Fault::context_length("10000")),
            count @ (0 | 1) => Ok(ChatReply::calls([call("read", format!("{{\"n\":{count}}}"))])),
            _ => Ok(ChatReply::text("read")),
        }
    });
    let long =
        tool("read", Read, async |_: Value, _: ToolContext| Ok::<_, Fault>("x".repeat(6000)));
    let spec = SupervisorSpec::one_for_one("desk")
        .child(brain.spec("llm"))
        .child(long)
        .child(Agent::new("llm").tool(ToolSpec::new("read"), "read").spec("agent"));
    let system = System::start(spec).await.unwrap();
    let port = system.port::<AgentRequest, AgentReply>("desk/agent").unwrap();
    let answer = port.call("go").await.unwrap();
    assert_eq!((&*answer.value.text, answer.value.compacted), ("read", true));
    assert_eq!(brain.asked.lock().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_long_history_is_left_out_by_its_oldest_turns_and_everybody_is_told() {
    let brain = Brain::new(|request: &ChatRequest| {
        let length: usize = request.messages.iter().map(|message| message.text.len()).sum();
        match length > 1000 {
            true => Err(Fault::context_length("1000")),
            false => Ok(ChatReply::text("short enough")),
        }
    });
    let (system, port) = start(&brain, agent().system("be kind")).await;
    let turn = |n| [Message::user(format!("question {n}")), Message::assistant("x".repeat(150))];
    let mut events = system.events();
    let task = AgentRequest::new("and now?").history((0..10).flat_map(turn));
    let answer = port.call(task).await.unwrap().value;
    let left_out = answer.left_out;
    assert_eq!((&*answer.text, left_out.turns, left_out.steps), ("short enough", 5, 0));
    let asked = brain.asked.lock().clone();
    assert_eq!(asked.len(), 2);
    let told = &asked[1].messages;
    assert!(told[0].text.starts_with("be kind\n\n[Left out to make room: the 5 oldest turns"));
    assert_eq!((&*told[1].text, told.len()), ("question 5", 1 + 2 * 5 + 1));
    let noted = events.wait_for(|event| matches!(event, Event::Noted { .. })).await.unwrap().event;
    let Event::Noted { what, count, child, .. } = noted else { panic!("{noted:?}") };
    assert_eq!((what, count, child.as_str()), (TURNS_LEFT_OUT, 5, "desk/agent"));
    // With nothing to leave out, it is the task's end.
    let failed = fault(port.call("x".repeat(2000).as_str()).await.unwrap_err());
    assert_eq!(failed.class, Class::Exhausted);
}

/// A tool that was called, and the tokens that it might have used.
type Left = (String, Option<u64>);

/// Notes what it may spend.
#[derive(Clone, Default)]
struct Purser(Arc<Mutex<Vec<Left>>>);

impl Behavior for Purser {
    type Request = ToolRequest;
    type Reply = ToolReply;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Read);
}

impl Stateless for Purser {
    async fn serve(&self, request: &ToolRequest, ctx: &Context) -> Result<ToolReply, Fault> {
        self.0.lock().push((request.name.clone(), ctx.budget_left().tokens));
        Ok(ToolReply::new("1"))
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_spends_nothing_takes_no_share_of_what_is_left() {
    let purser = Purser::default();
    let counter = purser.clone();
    let brain = Brain::new(|request: &ChatRequest| {
        Ok(match results(request) {
            0 => ChatReply::calls(["a", "b", "free"].map(|name| call(name, "{}"))),
            _ => ChatReply::text("done"),
        })
    });
    let agent = Agent::new("llm")
        .tool(ToolSpec::new("a"), "purser")
        .tool(ToolSpec::new("b"), "purser")
        .tool(ToolSpec::new("free"), Reach::new("purser").free())
        .budget(TaskBudget::new().tokens(900));
    let spec = SupervisorSpec::one_for_one("desk")
        .child(brain.spec("llm"))
        .child(ChildSpec::stateless("purser", move || counter.clone()).concurrency(3))
        .child(agent.spec("agent"));
    let system = System::start(spec).await.unwrap();
    let port = system.port::<AgentRequest, AgentReply>("desk/agent").unwrap();
    port.call("go").await.unwrap();
    let mut left = purser.0.lock().clone();
    left.sort();
    let expected = [("a", 450), ("b", 450), ("free", 900)];
    assert_eq!(left, expected.map(|(name, tokens)| (name.to_owned(), Some(tokens))));
}

/// Gives its task to the tool `expert`, then says what came back.
fn delegating(request: &ChatRequest) -> Result<ChatReply, Fault> {
    Ok(match results(request) {
        0 => ChatReply::calls([call("expert", r#"{"task":"what is six times seven?"}"#)]),
        _ => ChatReply::text(format!("the expert says {}", request.messages.last().unwrap().text)),
    })
}

#[tokio::test(start_paused = true)]
async fn an_agent_can_be_the_tool_of_another_and_costs_where_it_was_asked() {
    let expert = Brain {
        cost: Cost { tokens: 7, money_micros: 0 },
        ..Brain::new(|request: &ChatRequest| {
            assert_eq!(request.last_user_text(), "what is six times seven?");
            Ok(ChatReply::text("42"))
        })
    };
    let boss = Brain { cost: Cost { tokens: 10, money_micros: 0 }, ..Brain::new(delegating) };
    let offer = AgentTool::offer("expert", "Knows numbers.");
    assert!(offer.parameters.contains("\"task\""), "{offer:?}");
    let spec = SupervisorSpec::one_for_one("desk")
        .child(expert.spec("llm_expert"))
        .child(boss.spec("llm"))
        .child(Agent::new("llm_expert").spec("mathematician"))
        .child(AgentTool::new("mathematician").spec("expert"))
        .child(Agent::new("llm").tool(offer, "expert").spec("agent"));
    let system = System::start(spec).await.unwrap();
    let port = system.port::<AgentRequest, AgentReply>("desk/agent").unwrap();
    let answer = port.call("go").await.unwrap();
    assert_eq!(answer.value.text, "the expert says \"42\"");
    assert_eq!(answer.cost.tokens, 27);
    let fates = system.fates();
    assert!(fates.is_balanced() && fates.done == fates.accepted, "{fates:?}");
}

/// Books what it is asked to, and is heard of by nobody.
#[derive(Clone, Default)]
struct Unheard(Arc<Mutex<Vec<String>>>);

impl Behavior for Unheard {
    type Request = ToolRequest;
    type Reply = ToolReply;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Idempotent);
}

impl Stateless for Unheard {
    async fn serve(&self, _: &ToolRequest, ctx: &Context) -> Result<ToolReply, Fault> {
        self.0.lock().push(ctx.key());
        std::future::pending().await
    }
}

/// An agent that is not heard of.
#[derive(Clone)]
struct Silent;

impl Behavior for Silent {
    type Request = AgentRequest;
    type Reply = AgentReply;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
}

impl Stateless for Silent {
    async fn serve(&self, _: &AgentRequest, _: &Context) -> Result<AgentReply, Fault> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn an_act_that_may_be_repeated_and_was_not_heard_of_is_not_made_under_another_key() {
    let booked = Unheard::default();
    let unheard = booked.clone();
    // The same once more, and then what was said of the two.
    let insists = |request: &ChatRequest| {
        let told = request.messages.iter().filter(|message| message.role == Role::Tool);
        let told: Vec<_> = told.map(|message| &*message.text).collect();
        Ok(match told.len() {
            ..4 => ChatReply::calls(["book", "expert"].map(|name| call(name, r#"{"task":"x"}"#))),
            _ => ChatReply::text(told.join("\n")),
        })
    };
    let limit = Duration::from_secs(5);
    let spec = SupervisorSpec::one_for_one("desk")
        .child(Brain::new(insists).spec("llm"))
        .child(ChildSpec::stateless("mathematician", || Silent).attempt_timeout(limit))
        .child(AgentTool::new("mathematician").spec("expert"))
        .child(ChildSpec::stateless("book", move || unheard.clone()).attempt_timeout(limit))
        .child(
            Agent::new("llm")
                .tool(ToolSpec::new("book"), "book")
                .tool(AgentTool::offer("expert", "Knows."), "expert")
                .spec("agent"),
        );
    let system = System::start(spec).await.unwrap();
    let port = system.port::<AgentRequest, AgentReply>("desk/agent").unwrap();
    let options = CallOptions::new().deadline(Duration::from_secs(3600));
    let answer = port.call_with("go", options).await.unwrap();
    let told: Vec<_> = answer.value.text.lines().collect();
    assert_eq!(told.len(), 4, "{told:?}");
    for first in &told[..2] {
        assert!(first.contains("it may have happened"), "{first}");
    }
    for second in &told[2..] {
        assert!(second.contains("outcome_unknown"), "{second}");
    }
    let mut keys = booked.0.lock().clone();
    assert!(keys.len() > 1, "it was retried");
    keys.dedup();
    assert_eq!(keys.len(), 1, "{keys:?}");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_fails_after_it_has_acted_does_not_say_that_nothing_was_done() {
    for (paid, advice) in [
        (Some(Ok("paid")), "do not repeat the same call"),
        (Some(Err(Fault::indeterminate("sent"))), "it may have happened"),
        (None, "nothing was done"),
    ] {
        let pays = paid.is_some();
        let expert = Brain::new(move |request: &ChatRequest| match results(request) {
            0 if pays => Ok(ChatReply::calls([call("pay", "{}")])),
            _ => Err(Fault::timeout("connecting").not_applied()),
        });
        let pay = tool("pay", Irreversible, move |_: Value, _: ToolContext| {
            let paid = paid.clone().unwrap_or(Ok("paid"));
            async { paid }
        });
        let once = Policy::without_retries();
        let spec = SupervisorSpec::one_for_one("desk")
            .child(expert.spec("llm_expert").policy(once.clone()))
            .child(Brain::new(delegating).spec("llm"))
            .child(pay)
            .child(
                Agent::new("llm_expert")
                    .tool(ToolSpec::new("pay"), "pay")
                    .spec("mathematician")
                    .policy(once),
            )
            .child(AgentTool::new("mathematician").spec("expert"))
            .child(
                Agent::new("llm").tool(AgentTool::offer("expert", "Pays."), "expert").spec("agent"),
            );
        let system = System::start(spec).await.unwrap();
        let port = system.port::<AgentRequest, AgentReply>("desk/agent").unwrap();
        let answer = port.call("go").await.unwrap();
        assert!(answer.value.text.contains(advice), "{advice}: {}", answer.value.text);
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_called_off_leaves_no_agent_of_the_team_behind() {
    for wait in 0..60 {
        let boss = Brain::new(delegating);
        let slow = Brain {
            takes: Duration::from_secs(1 << 20),
            ..Brain::new(|_: &ChatRequest| Ok(ChatReply::text("42")))
        };
        let team = Team::new(Agent::new("llm_expert"));
        let spec = SupervisorSpec::one_for_one("desk")
            .child(slow.spec("llm_expert"))
            .child(boss.spec("llm"))
            .supervisor(SupervisorSpec::dynamic("team"))
            .child(team.spec("expert"))
            .child(Agent::new("llm").tool(Team::offer("expert", "Knows."), "expert").spec("agent"));
        let system = System::start(spec).await.unwrap();
        team.attach(&system, "desk/team");
        let expert = system.port::<ToolRequest, ToolReply>("desk/expert").unwrap();
        let mut asked = Box::pin(expert.call(ToolRequest::new("expert", r#"{"task":"x"}"#)));
        tokio::select! {
            biased;
            answer = &mut asked => panic!("{answer:?}"),
            () = async {
                for _ in 0..wait {
                    tokio::task::yield_now().await;
                }
            } => {}
        }
        drop(asked);
        let supervisor = system.supervisor("desk/team").unwrap();
        let mut looks = 0;
        while !supervisor.which_children().await.unwrap().is_empty() {
            looks += 1;
            assert!(looks < 100, "after {wait} there is one for ever");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        system.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_team_starts_an_agent_for_each_task_and_removes_it() {
    let expert = Brain::new(|_: &ChatRequest| Ok(ChatReply::text("42")));
    let boss = Brain::new(delegating);
    let team = Team::new(Agent::new("llm_expert"));
    let spec = SupervisorSpec::one_for_one("desk")
        .child(expert.spec("llm_expert"))
        .child(boss.spec("llm"))
        .supervisor(SupervisorSpec::dynamic("team"))
        .child(team.spec("expert"))
        .child(Agent::new("llm").tool(Team::offer("expert", "Knows."), "expert").spec("agent"));
    let system = System::start(spec).await.unwrap();
    let port = system.port::<AgentRequest, AgentReply>("desk/agent").unwrap();
    let answer = port.call("go").await.unwrap();
    assert!(answer.value.text.contains("not_attached"), "{}", answer.value.text);
    // What is asked before is done once it is.
    let mut events = system.events();
    let asked =
        |event: &Event| matches!(event, Event::Fated { child, .. } if child.as_str() == "desk/llm");
    let (answer, ()) = tokio::join!(port.call("go"), async {
        events.wait_for(asked).await.unwrap();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(team.attach(&system, "desk/team"));
    });
    assert_eq!(answer.unwrap().value.text, "the expert says \"42\"");
    assert!(!team.attach(&system, "desk/team"), "only the first counts");
    let mut events = system.events();
    let answer = port.call("go").await.unwrap();
    assert_eq!(answer.value.text, "the expert says \"42\"");
    let supervisor = system.supervisor("desk/team").unwrap();
    while !supervisor.which_children().await.unwrap().is_empty() {
        events.next().await.unwrap();
    }
    assert_eq!(expert.asked.lock().len(), 2);
    system.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_of_a_team_works_within_the_request_that_it_was_started_for() {
    let expert = Brain::new(|_: &ChatRequest| Err(Fault::new(Class::Business, "not mine")));
    let expert = Brain { cost: Cost { tokens: 30, money_micros: 0 }, ..expert };
    let boss = Brain::new(delegating);
    let team = Team::new(Agent::new("llm_expert"));
    let spec = SupervisorSpec::one_for_one("desk")
        .child(expert.spec("llm_expert"))
        .child(boss.spec("llm"))
        .supervisor(SupervisorSpec::dynamic("team"))
        .child(team.spec("expert"))
        .child(Agent::new("llm").tool(Team::offer("expert", "Knows."), "expert").spec("agent"));
    let system = System::start(spec).await.unwrap();
    team.attach(&system, "desk/team");
    let port = system.port::<AgentRequest, AgentReply>("desk/agent").unwrap();
    let answer = port.call("go").await.unwrap();
    // What its task has cost is charged although it failed, and nobody is alerted: the boss has heard.
    assert_eq!((answer.cost.tokens, system.stats().alerts), (30, 0));
}

#[tokio::test]
async fn a_caller_who_leaves_is_heard_by_the_server() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::hang());
    let spec = SupervisorSpec::one_for_one("desk")
        .child(Model::openai(server.url(), "stub").spec("llm"))
        .child(look())
        .child(agent().spec("agent"));
    let system = System::start(spec).await.unwrap();
    let port = system.port::<AgentRequest, AgentReply>("desk/agent").unwrap();
    let call = tokio::spawn(async move { port.call("go").await });
    server.asked(1).await;
    assert_eq!(server.hang_ups(), 0);
    call.abort();
    let patience = Duration::from_secs(20);
    tokio::time::timeout(patience, server.hung_up(1)).await.expect("the server still writes");
    assert_eq!(server.count(), 1);
}

fn chatty(request: &ChatRequest) -> Result<ChatReply, Fault> {
    Ok(match results(request) {
        0 => {
            let mut reply = ChatReply::calls([call("look", "{}")]);
            reply.text = "wait".to_owned();
            reply
        }
        _ => ChatReply::text("there"),
    })
}

async fn heard(brain: &Brain, agent: Agent) -> Vec<StreamEvent> {
    let (_system, port) = start(brain, agent).await;
    let (sink, mut stream) = open(2);
    let request = AgentRequest::new("go").stream_to(sink.on_break(OnBreak::Restart));
    let listen = async {
        let mut events = Vec::new();
        while let Some(event) = stream.next().await {
            events.push(event);
        }
        events
    };
    let (answer, events) = tokio::join!(port.call(request), listen);
    assert_eq!(answer.unwrap().value.text, "there");
    events
}

#[tokio::test(start_paused = true)]
async fn a_listener_hears_the_answer_through_to_its_end() {
    let text = |text: &str| StreamEvent::Text(text.to_owned());
    let streams = Brain { streams: true, ..Brain::new(chatty) };
    let asked = StreamEvent::ToolCall(call("look", "{}"));
    assert_eq!(
        heard(&streams, agent()).await,
        [text("wait"), asked, text("there"), StreamEvent::Done]
    );
    // A model that does not stream is heard whole, at the end.
    assert_eq!(heard(&Brain::new(chatty), agent()).await, [text("there"), StreamEvent::Done]);
    // What may be refused is not heard before it was accepted.
    let checked = agent().validate(|_| Ok(()));
    assert_eq!(heard(&streams, checked).await, [text("there"), StreamEvent::Done]);
}

#[tokio::test(start_paused = true)]
async fn a_part_of_an_answer_is_not_the_agents_answer() {
    let brain = Brain::new(|request: &ChatRequest| {
        let sink = request.stream.clone().expect("a listener");
        let mut writer = sink.attempt();
        let half = futures_now(writer.text("half"));
        assert!(half);
        writer.fail(Fault::network("reset"))
    });
    let (_system, port) = start(&brain, agent()).await;
    let (sink, mut stream) = open(8);
    let error = port.call(AgentRequest::new("go").stream_to(sink)).await.unwrap_err();
    let fault = fault(error);
    assert_eq!(fault.code.as_deref(), Some("partial"), "{fault:?}");
    assert_eq!(brain.asked.lock().len(), 1, "there is no other part to be had");
    assert_eq!(stream.next().await, Some(StreamEvent::Text("half".to_owned())));
    assert!(matches!(stream.next().await, Some(StreamEvent::Partial(_))));
}

/// Whether it is ready at once.
fn futures_now(future: impl Future) -> bool {
    let mut future = std::pin::pin!(future);
    let mut task = std::task::Context::from_waker(std::task::Waker::noop());
    future.as_mut().poll(&mut task).is_ready()
}
