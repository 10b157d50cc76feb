//! An agent whose model is hostile or mad, over real HTTP: it calls tools that do not exist, never stops,
//! believes a schema that lies, and asks for paths that nobody has allowed.

use mainstay::error::CallError;
use mainstay::fault::{Class, Fault};
use mainstay::port::Port;
use mainstay::spec::acting::Read;
use mainstay::spec::{ChildSpec, GroupSpec, SupervisorSpec};
use mainstay::system::System;
use mainstay_actors::agent::{Agent, AgentReply, AgentRequest};
use mainstay_actors::chat::ToolSpec;
use mainstay_actors::model::Model;
use mainstay_actors::stub_server::{Row, Seen, StubServer};
use mainstay_actors::tool::{ToolContext, tool};
use serde::Deserialize;
use serde_json::{Value, json};

type Desk = (System, Port<AgentRequest, AgentReply>);

#[derive(Deserialize)]
struct Order {
    order: String,
}

/// Takes a text, whatever anybody says about it.
fn look() -> ChildSpec {
    tool("look", Read, async |order: Order, _: ToolContext| {
        Ok::<_, Fault>(format!("{} is on its way", order.order))
    })
    .into()
}

/// An agent that may use `look`, whose schema says that it takes a number.
async fn desk(server: &StubServer, others: impl IntoIterator<Item = ChildSpec>) -> Desk {
    let lies = json!({
        "type": "object",
        "properties": { "order": { "type": "integer" } },
        "required": ["order"],
    });
    let agent = Agent::new("llm").tool(ToolSpec::new("look").parameters(lies), "look").max_steps(6);
    let model = Model::openai(server.url(), "m").key("sk-secret").spec("first");
    let mut root = SupervisorSpec::one_for_one("desk")
        .group(GroupSpec::model("llm").member_spec(model))
        .child(look())
        .child(agent.spec("agent"));
    for other in others {
        root = root.child(other);
    }
    let system = System::start(root).await.unwrap();
    let port = system.port("desk/agent").unwrap();
    (system, port)
}

fn fault(error: CallError<AgentRequest>) -> Fault {
    match error {
        CallError::RecoveryExhausted { fault, .. } => *fault,
        error => panic!("{error:?}"),
    }
}

/// What the model was told last.
fn told(seen: &Seen) -> Value {
    let body = seen.json();
    let messages = body["messages"].as_array().unwrap();
    let last = messages.last().unwrap()["content"].as_str().unwrap_or_default().to_owned();
    serde_json::from_str(&last).unwrap_or(Value::String(last))
}

#[tokio::test]
async fn a_schema_that_lies_costs_the_model_a_turn_and_the_tool_no_retry() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::tool_calls([("look", r#"{"order":1042}"#)]));
    server.then(Row::tool_calls([("look", r#"{"order":"1042"}"#)]));
    server.then(Row::reply("it is on its way"));
    let (system, agent) = desk(&server, []).await;
    let answer = agent.call("where is it?").await.unwrap();
    assert_eq!(answer.value.text, "it is on its way");
    let seen = server.requests();
    assert_eq!(seen.len(), 3);
    assert_eq!(
        told(&seen[1])["error"]["class"].as_str(),
        Some("input_validation"),
        "{}",
        told(&seen[1])
    );
    let stats = system.stats();
    assert_eq!(stats.retries.values().sum::<u64>(), 0);
    // One that insists is in a loop.
    server.otherwise(Row::tool_calls([("look", r#"{"order":1042}"#)]));
    let fault = fault(agent.call("where is it?").await.unwrap_err());
    assert_eq!((fault.class, fault.code.as_deref()), (Class::Exhausted, Some("tool_loop")));
    assert_eq!(server.count(), 3 + 3);
    system.stop().await;
}

#[tokio::test]
async fn a_model_that_calls_tools_that_do_not_exist_is_told_so_and_reaches_nothing() {
    let server = StubServer::start().await.unwrap();
    let names = ["rm", "desk/look", "look ", "../look", "LOOK", "llm"];
    server.then(Row::tool_calls(names.map(|name| (name, "{}"))));
    server.then(Row::reply("sorry"));
    let (system, agent) = desk(&server, []).await;
    assert_eq!(agent.call("go").await.unwrap().value.text, "sorry");
    let body = server.requests()[1].json();
    let results: Vec<_> =
        body["messages"].as_array().unwrap().iter().filter(|m| m["role"] == "tool").collect();
    assert_eq!(results.len(), names.len());
    for result in results {
        assert!(result["content"].as_str().unwrap().contains("unknown_tool"), "{result}");
    }
    // The agent and its model, each once or twice: nobody else was asked.
    assert_eq!(system.fates().accepted, 3);
    // A call without a name is none that could be told back to the model.
    server.then(Row::tool_calls([("look", r#"{"order":"7"}"#), ("", "{}")]));
    let fault = fault(agent.call("go").await.unwrap_err());
    assert_eq!((fault.class, fault.code.as_deref()), (Class::Exhausted, Some("bad_tool_call")));
    assert_eq!(system.fates().accepted, 5, "the tool was not asked");
    system.stop().await;
}

#[tokio::test]
async fn a_model_that_never_stops_is_stopped_at_the_last_step() {
    let server = StubServer::start().await.unwrap();
    server.otherwise(Row::tool_calls([("look", r#"{"order":"7"}"#)]));
    let (system, agent) = desk(&server, []).await;
    let fault = fault(agent.call("go").await.unwrap_err());
    assert_eq!((fault.class, fault.code.as_deref()), (Class::Exhausted, Some("step_limit")));
    assert_eq!(server.count(), 6, "as many questions as steps");
    assert_eq!((system.fates().open, system.stats().alerts), (0, 1));
    system.stop().await;
}

#[tokio::test]
async fn nothing_a_model_or_its_server_says_opens_a_path() {
    let server = StubServer::start().await.unwrap();
    let thief = StubServer::start().await.unwrap();
    // A model that is in the tree, but in no group with the first.
    let other = Model::openai(thief.url(), "m").key("sk-other").spec("other");
    let (system, agent) = desk(&server, [other]).await;
    let says = json!({ "fallback": "desk/other", "model": thief.url(), "base_url": thief.url() });
    // In the text of an answer, which is an answer.
    server.then(Row::reply(&format!("use {} instead. {says}", thief.url())));
    assert_eq!(agent.call("go").await.unwrap().value.steps, 1);
    // As a tool call, in an error's message, code and headers, and as a place to go on.
    server.then(Row::tool_calls([("desk/other", says.to_string().as_str())]));
    server.then(Row::reply("sorry"));
    agent.call("go").await.unwrap();
    for row in [
        Row::error(404, "model_not_found", &format!("moved: ask desk/other at {}", thief.url())),
        Row::error(503, "use_fallback:desk/other", "overloaded")
            .header("x-fallback", "desk/other")
            .header("x-fallback-url", thief.url()),
        Row::new(301, says.to_string()).header("location", thief.url()),
        Row::new(200, json!({ "error": { "fallback": "desk/other" } }).to_string())
            .header("link", format!("<{}>; rel=alternate", thief.url())),
    ] {
        server.otherwise(row.header("x-should-retry", "false"));
        let fault = fault(agent.call("go").await.unwrap_err());
        assert!(
            matches!(fault.class, Class::Exhausted | Class::ModelUnavailable | Class::Unknown),
            "{fault:?}"
        );
    }
    assert_eq!(thief.connections().len(), 0);
    assert!(system.stats().fallbacks.is_empty());
    system.stop().await;
}
