//! MCP servers that nobody here wrote, over both transports, killed and stopped in the middle of
//! calls. `.ci/mcp/install` fetches them and says how to run this; without them each test says that it
//! was skipped.

use std::io::Write;
use std::time::Duration;

use mainstay::checkpoint::Scope;
use mainstay::error::CallError;
use mainstay::fault::{Class, EffectKind, ExitKind};
use mainstay::port::CallOptions;
use mainstay::spec::SupervisorSpec;
use mainstay::system::System;
use mainstay_actors::agent::{Agent, AgentReply, AgentRequest, Reach};
use mainstay_actors::mcp::McpServer;
use mainstay_actors::model::Model;
use mainstay_actors::stub_server::{Row, StubServer};
use mainstay_actors::tool::{ToolRequest, ToolSpec};
use serde_json::json;

use harness::{Running, lives, scratch, signal, until};
use servers::{Files, Language, Proxy, WHOLE, bank, free_port, processes, reader_of, script};

#[path = "mcp/harness.rs"]
mod harness;
#[path = "mcp/servers.rs"]
mod servers;

const LONG: &str = r#"{"duration":20,"steps":4}"#;

fn everything() -> Option<McpServer> {
    Some(McpServer::command("node", [&*script("everything")?, "stdio"]))
}

#[tokio::test]
async fn the_reference_servers_tools_are_found_with_their_schemas_and_called() {
    let Some(server) = everything() else { return };
    let found = server.discover().await.unwrap();
    let sum = found.iter().find(|tool| tool.spec.name == "get-sum").unwrap();
    assert_eq!(sum.effect, EffectKind::Irreversible, "it says that it only reads, to no avail");
    assert!(sum.spec.parameters.contains(r#""a""#) && !sum.spec.description.is_empty());
    let server = server.trusted();
    let found = server.discover().await.unwrap();
    let running = Running::start(&server.offer(found)).await;
    let said = running.call("get-sum", r#"{"a":40,"b":2}"#).await.unwrap();
    assert!(said.contains("42"), "{said}");
    let error = running.call("get-sum", r#"{"a":"forty"}"#).await.unwrap_err();
    let CallError::RecoveryExhausted { fault, trail, .. } = error else { panic!("{error:?}") };
    assert_eq!((fault.class, trail.0.len()), (Class::InputValidation, 1), "{fault}");
    running.stop().await;
}

#[tokio::test]
async fn the_reference_server_killed_in_a_call_comes_back() {
    let Some(server) = everything() else { return };
    // The variable tells this test's servers from those of the others.
    let mark = format!("mark-{}", std::process::id());
    let script = script("everything").unwrap();
    drop(server);
    let server = McpServer::command("node", [&*script, "stdio", &mark])
        .tool("trigger-long-running-operation", EffectKind::Irreversible)
        .tool("echo", EffectKind::Read);
    let mut running = Running::start(&server).await;
    let port = running.tool("trigger-long-running-operation");
    let call = tokio::spawn(async move { port.call(ToolRequest::new("long", LONG)).await });
    until("the call", || running.system.fates().open == 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let pids = processes(&mark);
    assert_eq!(pids.len(), 1);
    signal(pids[0], "-KILL");
    assert!(matches!(call.await.unwrap(), Err(CallError::Unknown { .. })));
    assert_eq!(running.connection_exits().await, ExitKind::Faulted);
    assert!(
        running.call("echo", r#"{"message":"still here"}"#).await.unwrap().contains("still here")
    );
    running.stop().await;
    assert!(processes(&mark).is_empty());
}

const WRITE: (&str, EffectKind) = ("write_file", EffectKind::Irreversible);
const READ: (&str, EffectKind) = ("read_text_file", EffectKind::Read);

/// The next write is made, once the connection has ended and is there again, and the one before is not
/// made again.
async fn writes_again(files: &Files, running: &mut Running, left: usize) {
    running.call("write_file", &files.write("next", "and on")).await.unwrap();
    assert_eq!(std::fs::read_to_string(files.path("next")).unwrap(), "and on");
    assert_eq!(files.length("big"), left, "a write that is unknown is not made again");
    let folder = files.path("big").parent().unwrap().read_dir().unwrap();
    assert_eq!(folder.count(), 2, "nor under the name of a copy");
}

async fn a_write_whose_server_is_killed(over_http: bool) {
    let Some(mut files) = Files::start(over_http, &[WRITE]).await else { return };
    let mut running = Running::start(&files.server).await;
    let call = files.caught_writing(&running, "big").await;
    let (pid, left) = (files.pid(), files.length("big"));
    files.kill(pid);
    let lost = call.await.unwrap();
    assert!(matches!(lost, Err(CallError::Unknown { .. })), "{lost:?}");
    assert_eq!(running.connection_exits().await, ExitKind::Faulted);
    files.come_back().await;
    writes_again(&files, &mut running, left).await;
    assert!(!lives(pid));
    running.stop().await;
}

#[tokio::test]
async fn a_write_whose_server_is_killed_in_the_middle_is_unknown_and_the_next_one_is_made() {
    a_write_whose_server_is_killed(false).await;
}

#[tokio::test]
async fn over_http_a_write_killed_in_the_middle_is_unknown_and_the_next_one_is_made() {
    a_write_whose_server_is_killed(true).await;
}

#[tokio::test]
async fn a_write_whose_server_is_stopped_in_the_middle_is_unknown_and_the_next_server_writes() {
    let Some(files) = Files::start(false, &[WRITE, READ]).await else { return };
    let mut running = Running::start(&files.server).await;
    let call = files.caught_writing(&running, "big").await;
    let (stopped, left) = (files.pid(), files.length("big"));
    let lost = call.await.unwrap();
    assert!(matches!(lost, Err(CallError::Unknown { .. })), "{lost:?}");
    assert_eq!(running.connection_exits().await, ExitKind::Faulted);
    writes_again(&files, &mut running, left).await;
    assert!(!lives(stopped), "a stopped server does not stay behind");
    let outside = serde_json::json!({"path": "/etc/hostname"}).to_string();
    let error = running.call("read_text_file", &outside).await.unwrap_err();
    let CallError::RecoveryExhausted { fault, .. } = error else { panic!("{error:?}") };
    assert_eq!((fault.class, fault.code.as_deref()), (Class::Business, Some("tool_error")));
    running.stop().await;
}

#[tokio::test]
async fn over_http_a_write_stopped_in_the_middle_is_unknown_and_what_goes_on_is_not_heard_of() {
    let Some(files) = Files::start(true, &[WRITE]).await else { return };
    let mut running = Running::start(&files.server).await;
    let call = files.caught_writing(&running, "big").await;
    let server = files.pid();
    files.signal(server, "-STOP");
    let lost = call.await.unwrap();
    assert!(matches!(lost, Err(CallError::Unknown { .. })), "{lost:?}");
    assert_eq!(running.connection_exits().await, ExitKind::Faulted);
    // Nobody told it to end: it did write the rest, which is why nobody may say that it had not.
    signal(server, "-CONT");
    until("the rest", || files.length("big") == WHOLE).await;
    files.signal(server, "-CONT");
    writes_again(&files, &mut running, WHOLE).await;
    assert_eq!(files.pid(), server, "behind the gateway the server is the same");
    running.stop().await;
}

#[tokio::test]
async fn a_write_that_may_be_repeated_and_is_killed_in_the_middle_is_made_again_and_is_whole() {
    let idempotent = ("write_file", EffectKind::Idempotent);
    let Some(mut files) = Files::start(false, &[idempotent]).await else { return };
    let mut running = Running::start(&files.server).await;
    let call = files.caught_writing(&running, "big").await;
    let (pid, part) = (files.pid(), files.length("big"));
    files.kill(pid);
    let answer = call.await.unwrap().unwrap();
    assert_eq!(answer.attempts, 2);
    assert_eq!(running.connection_exits().await, ExitKind::Faulted);
    assert!(files.length("big") > part);
    assert!(std::fs::read(files.path("big")).unwrap().iter().all(|byte| *byte == b'x'));
    running.stop().await;
}

async fn a_read_whose_server_is_killed(over_http: bool) {
    let Some(mut files) = Files::start(over_http, &[READ]).await else { return };
    let mut running = Running::start(&files.server).await;
    // What is read is a pipe with a name, so that the server is in the middle until somebody writes.
    let pipe = files.pipe("pipe");
    let (port, path) = (running.tool("read_text_file"), serde_json::json!({"path": pipe}));
    let request = ToolRequest::new("read_text_file", path.to_string());
    let call = tokio::spawn(async move { port.call(request).await });
    let first = reader_of(&pipe).await;
    files.kill(files.pid());
    drop(first);
    assert_eq!(running.connection_exits().await, ExitKind::Faulted);
    files.come_back().await;
    let mut second = reader_of(&pipe).await;
    second.write_all(b"still to be read").unwrap();
    drop(second);
    let answer = call.await.unwrap().unwrap();
    assert!(answer.value.content.contains("still to be read"), "{}", answer.value.content);
    assert_eq!(answer.attempts, 2);
    running.stop().await;
}

#[tokio::test]
async fn a_read_whose_server_is_killed_in_the_middle_is_answered_by_the_next() {
    a_read_whose_server_is_killed(false).await;
}

#[tokio::test]
async fn over_http_a_read_killed_in_the_middle_is_answered_when_the_server_is_back() {
    a_read_whose_server_is_killed(true).await;
}

#[tokio::test]
async fn a_write_whose_server_dies_behind_a_gateway_that_lives_is_unknown() {
    let Some(mut files) = Files::start(true, &[WRITE]).await else { return };
    let mut running = Running::start(&files.server).await;
    let call = files.caught_writing(&running, "big").await;
    let left = files.length("big");
    signal(files.pid(), "-KILL");
    let lost = call.await.unwrap();
    // The gateway says of it what it says of a tool that has refused.
    assert!(matches!(lost, Err(CallError::Unknown { .. })), "{lost:?}");
    assert_eq!(running.connection_exits().await, ExitKind::Faulted);
    // It does not start the server again, so neither does it serve.
    files.come_back().await;
    writes_again(&files, &mut running, left).await;
    running.stop().await;
}

#[tokio::test]
async fn what_a_memory_server_was_told_survives_its_death() {
    let Some(script) = script("memory") else { return };
    let memory = scratch("memory.jsonl");
    let server = McpServer::command("node", [&*script])
        .env("MEMORY_FILE_PATH", memory.to_str().unwrap())
        .tool("create_entities", EffectKind::Idempotent)
        .tool("read_graph", EffectKind::Read);
    let mut running = Running::start(&server).await;
    let entity = r#"{"entities":[{"name":"Ada","entityType":"person","observations":["counts"]}]}"#;
    running.call("create_entities", entity).await.unwrap();
    running.system.kill("root/s/connection").unwrap();
    assert_eq!(running.connection_exits().await, ExitKind::Killed);
    assert!(running.call("read_graph", "{}").await.unwrap().contains("Ada"));
    running.stop().await;
    std::fs::remove_file(memory).unwrap();
}

#[tokio::test]
async fn over_http_a_stopped_server_is_found_and_a_killed_one_reached_when_it_is_back() {
    let port = free_port();
    let Some(mut proxy) = Proxy::start(port, "everything", &["stdio"]) else { return };
    proxy.listens().await;
    let server = McpServer::url(format!("http://127.0.0.1:{port}/mcp"))
        .call_timeout(Duration::from_secs(2))
        .ping_timeout(Duration::from_secs(1))
        .tool("trigger-long-running-operation", EffectKind::Irreversible)
        .tool("get-sum", EffectKind::Read);
    let mut running = Running::start(&server).await;
    let said = running.call("get-sum", r#"{"a":40,"b":2}"#).await.unwrap();
    assert!(said.contains("42"), "{said}");
    // Stopped: found by the call's time, and the connection is made anew as soon as it answers.
    signal(proxy.0.id(), "-STOP");
    let short = CallOptions::new().deadline(Duration::from_secs(3));
    let long = running.tool("trigger-long-running-operation");
    let lost = long.call_with(ToolRequest::new("long", LONG), short).await;
    assert!(matches!(lost, Err(CallError::Unknown { .. })), "{lost:?}");
    assert_eq!(running.connection_exits().await, ExitKind::Faulted);
    signal(proxy.0.id(), "-CONT");
    let said = running.call("get-sum", r#"{"a":1,"b":2}"#).await.unwrap();
    assert!(said.contains('3'), "{said}");
    // Killed in a call.
    let call = tokio::spawn(async move { long.call(ToolRequest::new("long", LONG)).await });
    until("the call", || running.system.fates().open == 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    proxy.kill();
    let lost = call.await.unwrap();
    assert!(matches!(lost, Err(CallError::Unknown { .. })), "{lost:?}");
    proxy = Proxy::start(port, "everything", &["stdio"]).unwrap();
    proxy.listens().await;
    let said = running.call("get-sum", r#"{"a":2,"b":2}"#).await.unwrap();
    assert!(said.contains('4'), "{said}");
    running.stop().await;
}

/// A bank whose work is a transaction: something is booked, then this tool is called, and then the agent's
/// model is gone.
async fn what_is_left_of_a_call_is_undone(language: Language) {
    let Some((server, log)) = bank(language) else { return };
    let can_undo = ["book", "pay", "file"];
    // What it says of arguments that it has refused is believed: nothing has to be undone for them.
    let server = server.trusted();
    let server = can_undo
        .into_iter()
        .fold(server, |server, name| server.tool(name, EffectKind::Compensable))
        .tool("undo", EffectKind::Idempotent);
    let brain = StubServer::start().await.unwrap();
    brain.otherwise(Row::error(401, "invalid_api_key", "no"));
    let agent = can_undo.into_iter().fold(Agent::new("llm"), |agent, name| {
        let reach = Reach::new(format!("s/{name}"));
        let reach = reach.undo("s/undo", "undo", |asked| json!({"x": asked["x"]}));
        agent.tool(ToolSpec::new(name), reach)
    });
    let root = SupervisorSpec::one_for_one("root")
        .scope(Scope::Transaction)
        .child(Model::openai(brain.url(), "m").spec("llm"))
        .supervisor(server.supervisor("s"))
        .child(agent.spec("agent"));
    let system = System::start(root).await.unwrap();
    let agent = system.port::<AgentRequest, AgentReply>("root/agent").unwrap();
    let lines = || std::fs::read_to_string(&log).unwrap_or_default();
    for (tool, arguments, expected) in [
        // The library looks at what the tool has given once it has run.
        ("pay", r#"{"x":"1"}"#, "book b\npay 1\nundo 1\nundo b\n"),
        ("file", r#"{"x":"2"}"#, "book b\nfile 2\nundo 2\nundo b\n"),
        // And at the arguments before.
        ("pay", r#"{"x":3}"#, "book b\nundo b\n"),
    ] {
        let _ = std::fs::remove_file(&log);
        brain.then(Row::tool_calls([("book", r#"{"x":"b"}"#)]));
        brain.then(Row::tool_calls([(tool, arguments)]));
        agent.call("pay").await.unwrap_err();
        // What was booked first is undone last.
        until("the last undo", || lines().ends_with("undo b\n")).await;
        assert_eq!(lines(), expected, "{tool} {arguments}");
    }
    system.stop().await;
    assert_eq!(system.effects().open(), []);
    std::fs::remove_file(log).unwrap();
}

#[tokio::test]
async fn what_a_server_in_typescript_has_done_and_says_has_failed_is_undone() {
    what_is_left_of_a_call_is_undone(Language::TypeScript).await;
}

#[tokio::test]
async fn what_a_server_in_python_has_done_and_says_has_failed_is_undone() {
    what_is_left_of_a_call_is_undone(Language::Python).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_binary_has_a_model_call_the_tools_of_the_reference_server_and_ends_it() {
    let Some(script) = script("everything") else { return };
    let brain = StubServer::start().await.unwrap();
    brain.then(Row::tool_calls([("get-sum", r#"{"a":40,"b":2}"#)]));
    brain.then(Row::reply("it is 42"));
    let mark = format!("binary-{}", std::process::id());
    let folder = scratch("binary");
    std::fs::create_dir_all(&folder).unwrap();
    let tree = format!(
        "[models.m]\nkind = \"openai\"\nbase_url = \"{}\"\nmodel = \"m\"\n[tools.every]\ncommand = [\"node\", {script:?}, \"stdio\", {mark:?}]\n[tools.every.effects]\nget-sum = \"read\"\n[agents.a]\nmodel = \"m\"\ntools = [\"every.get-sum\"]\n",
        brain.url()
    );
    std::fs::write(folder.join("t.toml"), tree).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mainstay"));
    command.current_dir(&folder).args(["run", "t.toml", "--json", "add them"]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let answer: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(answer["text"], "it is 42", "{answer}");
    assert!(answer["tools_used"].to_string().contains("get-sum"), "{answer}");
    let told = brain.requests()[1].json()["messages"].clone();
    let result = told.as_array().unwrap().last().unwrap();
    assert!(result["role"] == "tool" && result.to_string().contains("42"), "{told}");
    assert!(processes(&mark).is_empty(), "the server has gone with the command");
    std::fs::remove_dir_all(folder).unwrap();
}
