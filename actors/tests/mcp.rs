//! Servers of the Model Context Protocol as children, against a server of ours in processes of its
//! own: real pipes, real signals, real deaths, in real time.

use std::time::Duration;

use mainstay::checkpoint::Scope;
use mainstay::error::CallError;
use mainstay::event::Event;
use mainstay::fate::Ended;
use mainstay::fault::{Class, EffectKind, EffectState, ExitKind};
use mainstay::policy::Policy;
use mainstay::port::CallOptions;
use mainstay::spec::{GroupSpec, SupervisorSpec};
use mainstay::system::System;
use mainstay_actors::agent::{Agent, AgentReply, AgentRequest, Reach};
use mainstay_actors::mcp::{ListTools, McpServer};
use mainstay_actors::model::Model;
use mainstay_actors::stub_server::{Row, StubServer};
use mainstay_actors::tool::{ToolReply, ToolRequest, ToolSpec};

use harness::{Running, lives, scratch, signal, until};
use shop::{Log, OverHttp, shop};

#[path = "mcp/answers.rs"]
mod answers;
#[path = "mcp/harness.rs"]
mod harness;
#[path = "mcp/shop.rs"]
mod shop;

const READ: EffectKind = EffectKind::Read;
const PAY: EffectKind = EffectKind::Irreversible;

#[test]
fn a_tool_that_nobody_declared_cannot_be_given_a_policy_that_retries() {
    let server = McpServer::command("shop", [""; 0]).tool("sum", READ).tool("pay", PAY);
    let with = |name: &str, policy| {
        let tool = server.tool_named(name).spec(name).policy(policy);
        SupervisorSpec::one_for_one("root").child(tool).validate().map_err(|it| it.to_string())
    };
    for name in ["pay", "unheard_of"] {
        let error = with(name, Policy::new()).unwrap_err();
        let start = format!("\"root/{name}\": its policy retries, and its work is irreversible");
        assert!(error.starts_with(&start) && error.contains("without_retries"), "{error}");
        assert_eq!(with(name, Policy::without_retries()), Ok(()));
    }
    assert_eq!(with("sum", Policy::new()), Ok(()));
}

/// The class and code of a call that failed for good.
fn fault<Q: std::fmt::Debug>(error: CallError<Q>) -> (Class, Option<String>) {
    match error {
        CallError::RecoveryExhausted { fault, .. } => {
            (fault.class, fault.code.map(std::borrow::Cow::into_owned))
        }
        other => panic!("{other:?}"),
    }
}

fn coded(class: Class, code: &str) -> (Class, Option<String>) {
    (class, Some(code.to_owned()))
}

#[tokio::test]
async fn a_tool_of_a_server_is_a_tool_like_any_other() {
    let (server, log) = shop();
    let server = server.tool("sum", READ).tool("many", READ).tool("meta", READ);
    let running = Running::start(&server).await;
    assert_eq!(running.call("sum", r#"{"a":2,"b":3}"#).await.unwrap(), r#"{"sum":5}"#);
    assert_eq!(running.call("many", "").await.unwrap(), r#"["one",{"two":2}]"#);
    // The key goes along, for a server that can use it.
    let meta = running
        .tool("meta")
        .call_with(ToolRequest::new("meta", "{}"), CallOptions::new().key("task-7"))
        .await
        .unwrap();
    assert!(meta.value.content.contains(r#""mainstay/idempotencyKey":"task-7""#), "{meta:?}");
    // It can stand in for a tool of another name.
    let other = running.tool("sum").call(ToolRequest::new("add", r#"{"a":1}"#)).await.unwrap();
    assert_eq!(other.value.content, r#"{"sum":1}"#);
    let listed = running
        .system
        .port::<ListTools, Vec<mainstay_actors::mcp::FoundTool>>("root/s/connection")
        .unwrap()
        .call(ListTools)
        .await
        .unwrap();
    assert!(listed.value.iter().any(|tool| tool.spec.name == "refuse"));
    let pid = log.pids()[0];
    running.stop().await;
    assert_eq!(log.count("end of input"), 1, "a stop closes the server's input first");
    assert!(!lives(pid));
}

#[tokio::test]
async fn what_a_server_answers_becomes_a_fault_of_its_class() {
    let (server, log) = shop();
    let server = server.tool("protocol_error", READ).tool("refuse", READ).tool("sum", READ);
    let running = Running::start(&server).await;
    for (code, class) in [
        (-32700, Class::InputValidation),
        (-32600, Class::InputValidation),
        (-32602, Class::InputValidation),
        (-32601, Class::Exhausted),
        (-32002, Class::Exhausted),
        (-1, Class::Unknown),
    ] {
        let before = log.count("call protocol_error");
        let error =
            running.call("protocol_error", &format!(r#"{{"code":{code}}}"#)).await.unwrap_err();
        assert_eq!(fault(error), coded(class, &code.to_string()));
        assert_eq!(log.count("call protocol_error") - before, 1, "{code} is not retried");
    }
    for (says, class, code) in [
        ("insufficient funds", Class::Business, "tool_error"),
        ("MCP error -32602: Tool x not found", Class::InputValidation, "-32602"),
    ] {
        let arguments = serde_json::json!({"say": says}).to_string();
        assert_eq!(
            fault(running.call("refuse", &arguments).await.unwrap_err()),
            coded(class, code)
        );
    }
    let before = log.lines().len();
    for arguments in ["[1]", "{", "7"] {
        let error = running.call("sum", arguments).await.unwrap_err();
        assert_eq!(fault(error), coded(Class::InputValidation, "bad_arguments"));
    }
    assert_eq!(log.lines().len(), before, "bad arguments are not sent");
    running.stop().await;
}

#[tokio::test]
async fn an_internal_error_of_a_server_is_retried_for_a_read_only() {
    let (server, log) = shop();
    let reads = Running::start(&server.clone().tool("protocol_error", READ)).await;
    let error = reads.call("protocol_error", "{}").await.unwrap_err();
    assert_eq!(fault(error), coded(Class::ToolExecution, "-32603"));
    assert_eq!(log.count("call protocol_error"), 3);
    let error = reads.call("protocol_error", r#"{"code":-32001}"#).await.unwrap_err();
    assert_eq!(fault(error), coded(Class::Timeout, "-32001"));
    assert!(log.count("call protocol_error") > 4, "a read may come twice");
    reads.stop().await;
    let (server, log) = shop();
    // Nobody has declared it.
    let writes = Running::start(&server.tool("protocol_error", EffectKind::default())).await;
    let error = writes.call("protocol_error", "{}").await.unwrap_err();
    assert_eq!(fault(error), coded(Class::ToolExecution, "-32603"));
    assert_eq!(log.count("call protocol_error"), 1);
    // Nor is time that ran out behind the server.
    let late = writes.call("protocol_error", r#"{"code":-32001}"#).await;
    assert!(matches!(late, Err(CallError::Unknown { .. })), "{late:?}");
    assert_eq!(log.count("call protocol_error"), 2);
    writes.stop().await;
}

#[tokio::test]
async fn a_tools_own_error_is_retried_only_when_it_is_said_to_pass() {
    let (server, log) = shop();
    let running = Running::start(&server.errors_are_transient().tool("refuse", READ)).await;
    let error = running.call("refuse", "{}").await.unwrap_err();
    assert_eq!(fault(error), coded(Class::ToolExecution, "tool_error"));
    assert_eq!(log.count("call refuse"), 3);
    running.stop().await;
}

#[tokio::test]
async fn a_server_that_dies_in_a_read_comes_back_and_the_read_is_answered() {
    let (server, log) = shop();
    let mut running = Running::start(&server.tool("die_once", READ)).await;
    let mark = scratch("mark");
    let arguments = serde_json::json!({"mark": mark}).to_string();
    let answer = running.answer("die_once", &arguments).await.unwrap();
    assert_eq!(answer.value.content, r#""alive""#);
    assert_eq!(answer.attempts, 2);
    let Ended::Fault { class, .. } = &answer.trail.0[0].ended else { panic!("{answer:?}") };
    assert_eq!(*class, Class::Indeterminate);
    assert_eq!(running.connection_exits().await, ExitKind::Faulted);
    assert_eq!(log.pids().len(), 2);
    std::fs::remove_file(mark).unwrap();
    running.stop().await;
}

#[tokio::test]
async fn a_payment_in_flight_when_its_server_is_killed_is_unknown_and_not_made_again() {
    let (server, log) = shop();
    let mut running = Running::start(&server.tool("hang", PAY).tool("sum", READ)).await;
    let call = tokio::spawn({
        let port = running.tool("hang");
        async move { port.call(ToolRequest::new("hang", "{}")).await }
    });
    log.wait_for("call hang", 1).await;
    signal(log.pids()[0], "-KILL");
    assert!(matches!(call.await.unwrap(), Err(CallError::Unknown { .. })));
    assert_eq!(running.connection_exits().await, ExitKind::Faulted);
    assert_eq!(running.call("sum", r#"{"a":1}"#).await.unwrap(), r#"{"sum":1}"#);
    assert_eq!((log.count("call hang"), log.pids().len()), (1, 2));
    running.stop().await;
}

#[tokio::test]
async fn a_server_killed_while_idle_is_restarted_before_anybody_asks() {
    let (server, log) = shop();
    let mut running = Running::start(&server.tool("sum", READ)).await;
    signal(log.pids()[0], "-KILL");
    assert_eq!(running.connection_exits().await, ExitKind::Faulted);
    let back = |event: &Event| matches!(event, Event::Started { child, .. } if *child == "root/s/connection");
    running.events.wait_for(back).await.unwrap();
    let answer = running.answer("sum", "{}").await.unwrap();
    assert_eq!((answer.attempts, log.pids().len()), (1, 2));
    running.stop().await;
}

#[tokio::test]
async fn a_stopped_server_is_found_by_the_calls_deadline_killed_and_replaced() {
    let (server, log) = shop();
    let server = server
        .call_timeout(Duration::from_millis(300))
        .ping_timeout(Duration::from_millis(200))
        .tool("sum", READ)
        .tool("pay", PAY);
    let mut running = Running::start(&server).await;
    let stopped = log.pids()[0];
    signal(stopped, "-STOP");
    assert!(matches!(running.call("pay", "{}").await, Err(CallError::Unknown { .. })));
    assert_eq!(running.connection_exits().await, ExitKind::Faulted);
    let answer = running.answer("sum", r#"{"a":4}"#).await.unwrap();
    assert_eq!(answer.value.content, r#"{"sum":4}"#);
    assert!(!lives(stopped), "a stopped server does not stay behind");
    assert_eq!((log.count("call pay"), log.pids().len()), (0, 2));
    running.stop().await;
}

#[tokio::test]
async fn a_call_that_is_given_up_is_called_off_at_the_server_which_goes_on() {
    let (server, log) = shop();
    let server =
        server.call_timeout(Duration::from_millis(200)).tool("hang", READ).tool("sum", READ);
    let running = Running::start(&server).await;
    let short = CallOptions::new().deadline(Duration::from_millis(400));
    let error = running.tool("hang").call_with(ToolRequest::new("hang", "{}"), short).await;
    assert!(matches!(error, Err(CallError::Expired { .. } | CallError::RecoveryExhausted { .. })));
    log.wait_for("cancelled", 1).await;
    // And when the caller goes away.
    let call = tokio::spawn({
        let port = running.tool("hang");
        async move { port.call(ToolRequest::new("hang", "{}")).await }
    });
    log.wait_for("call hang", log.count("call hang") + 1).await;
    let before = log.count("cancelled");
    call.abort();
    log.wait_for("cancelled", before + 1).await;
    assert_eq!(running.call("sum", "{}").await.unwrap(), r#"{"sum":0}"#);
    assert_eq!(log.pids().len(), 1, "it answers, so it is not restarted");
    running.stop().await;
}

#[tokio::test]
async fn a_call_that_a_protocol_mismatch_ends_makes_the_connection_anew() {
    let (server, log) = shop();
    let mut running = Running::start(&server.tool("protocol_error", READ).tool("sum", READ)).await;
    let error = running.call("protocol_error", r#"{"code":-32022}"#).await.unwrap_err();
    assert_eq!(fault(error), coded(Class::ModelUnavailable, "-32022"));
    assert_eq!(running.connection_exits().await, ExitKind::Faulted);
    assert_eq!(running.call("sum", "{}").await.unwrap(), r#"{"sum":0}"#);
    assert_eq!((log.count("call protocol_error"), log.pids().len()), (1, 2));
    running.stop().await;
}

#[tokio::test]
async fn what_the_server_has_started_ends_with_it() {
    let (server, log) = shop();
    let mut running = Running::start(&server.tool("family", READ)).await;
    let child: u32 = running.call("family", "{}").await.unwrap().trim_matches('"').parse().unwrap();
    assert!(lives(child));
    signal(log.pids()[0], "-KILL");
    running.connection_exits().await;
    until("the end of the orphan", || !lives(child)).await;
    let second: u32 =
        running.call("family", "{}").await.unwrap().trim_matches('"').parse().unwrap();
    let server = log.pids()[1];
    running.stop().await;
    until("the end of the family", || !lives(second) && !lives(server)).await;
}

#[tokio::test]
async fn hints_are_believed_only_of_a_trusted_server_and_never_against_a_declaration() {
    let effects = async |server: McpServer| {
        let found = server.discover().await.unwrap();
        let of = |name: &str| found.iter().find(|tool| tool.spec.name == name).unwrap().effect;
        ["sum", "pay", "put", "refuse"].map(of)
    };
    use EffectKind::{Idempotent, Irreversible, Read};
    let (server, log) = shop();
    assert_eq!(effects(server.clone()).await, [Irreversible; 4]);
    let trusted = server.trusted().tool("pay", Irreversible);
    assert_eq!(effects(trusted.clone()).await, [Read, Irreversible, Idempotent, Irreversible]);
    until("the end of both", || log.pids().len() == 2 && !log.pids().into_iter().any(lives)).await;
    let found = trusted.discover().await.unwrap();
    let offered = trusted.offer(found);
    assert!(offered.tools().iter().any(|tool| tool.description == "does sum"));
    assert_eq!(offered.tool_named("put").effect(), Idempotent);
    assert_eq!(offered.tool_named("pay").effect(), Irreversible);
}

#[tokio::test]
async fn a_start_that_fails_says_why() {
    let start = async |server: McpServer| {
        let root = SupervisorSpec::one_for_one("root").child(server.connection("c"));
        System::start(root).await.err().unwrap().to_string()
    };
    let (server, _log) = shop();
    let text = start(server.clone().tool("sum", READ).tool("fly", READ)).await;
    assert!(text.contains(r#"the server has no tool "fly"; it has: change, die,"#), "{text}");
    let text = start(McpServer::command("no-such-program-anywhere", [""; 0])).await;
    assert!(text.contains(r#""no-such-program-anywhere" cannot be started"#), "{text}");
    let program = shop::shop_program().to_str().unwrap();
    let text = start(McpServer::command(program, ["--complain"])).await;
    assert!(text.contains("it said: the shop is closed today"), "{text}");
    let text = start(server.env_from("MAINSTAY_NO_SUCH_VARIABLE")).await;
    assert!(text.contains("environment variable MAINSTAY_NO_SUCH_VARIABLE is not set"), "{text}");
    let text = start(McpServer::url("no url")).await;
    assert!(text.contains("the server's URL is not an http(s) URL"), "{text}");
    let text = start(McpServer::url("http://127.0.0.1:9/mcp")).await;
    assert!(text.contains("the server 127.0.0.1:9 cannot be reached: "), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_is_given_up_in_time_wherever_it_is_asked() {
    // Over HTTP as well: the connection is taken, and nobody speaks.
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/mcp", deaf.local_addr().unwrap());
    let silent = McpServer::command("sleep", ["1000"]);
    for (server, told) in [
        (silent.clone(), "the server did not answer within 30s"),
        (silent.start_timeout(Duration::from_secs(2)), "the server did not answer within 2s"),
        (McpServer::url(url), "the server did not answer within 30s"),
    ] {
        let fault = server.discover().await.unwrap_err();
        assert_eq!((fault.class, fault.code.as_deref()), (Class::Timeout, Some("no_session")));
        assert_eq!(fault.message, told);
        let root = SupervisorSpec::one_for_one("root").child(server.connection("c"));
        let text = System::start(root).await.err().unwrap().to_string();
        assert!(text.contains(told), "{text}");
    }
}

#[tokio::test]
async fn a_list_of_tools_is_read_page_by_page_and_one_without_end_fails_the_start() {
    let program = shop::shop_program().to_str().unwrap();
    let of = |pages: u64| McpServer::command(program, ["--pages".to_owned(), pages.to_string()]);
    let found = of(3).discover().await.unwrap();
    let names: Vec<_> = found.iter().map(|tool| &*tool.spec.name).collect();
    assert_eq!(names[..3], ["page_1", "page_2", "sum"]);
    let fault = of(u64::MAX).discover().await.unwrap_err();
    assert_eq!(
        (fault.class, fault.code.as_deref()),
        (Class::OutputInvalid, Some("too_many_pages"))
    );
    assert_eq!(fault.message, "the server's list of tools has more than 256 pages");
    let schemaless = McpServer::command(program, ["--schemaless", "odd"]).discover().await;
    let told = "the list of tools: the tool \"odd\" cannot be read: missing field `inputSchema`";
    assert_eq!(schemaless.unwrap_err().message, told);
    // An empty cursor is none, and one that leads nowhere else is the end, too.
    for cursor in ["", "7"] {
        let found = McpServer::command(program, ["--cursor", cursor]).discover().await.unwrap();
        assert!(found.iter().any(|tool| tool.spec.name == "sum"), "{cursor}");
    }
}

#[tokio::test]
async fn a_server_gets_no_variable_that_was_not_named() {
    let (server, _log) = shop();
    let token = "tk-0123456789abcdef";
    let server = server.env("SHOP_COLOR", "green").env_from("CARGO_PKG_NAME");
    let server = server.env("SHOP_ROOT", "/srv/data/customers").env("SHOP_TOKEN", token);
    let server = server.env("SHOP_DOOR", "open-0123456789-sesame").secret("SHOP_DOOR");
    let running = Running::start(&server.tool("environment", READ)).await;
    for (name, value) in [
        ("SHOP_COLOR", "green"),
        // What is no secret is a value like others, however long.
        ("SHOP_ROOT", "/srv/data/customers"),
        ("SHOP_TOKEN", "[key]"),
        ("SHOP_DOOR", "[key]"),
        ("CARGO_PKG_NAME", "mainstay-actors"),
        ("CARGO_PKG_VERSION", "unset"),
    ] {
        let arguments = serde_json::json!({"name": name}).to_string();
        let said = running.call("environment", &arguments).await.unwrap();
        assert_eq!(said, format!("\"{value}\""), "{name}");
    }
    running.stop().await;
}

#[tokio::test]
async fn what_a_server_was_given_in_confidence_is_in_none_of_its_errors() {
    let (server, _log) = shop();
    let token = "tk-0123456789abcdef";
    let running = Running::start(&server.env("SHOP_TOKEN", token).tool("refuse", READ)).await;
    for quoted in [token, &token[..14]] {
        let arguments = serde_json::json!({"say": format!("bad token {quoted}.")}).to_string();
        let error = running.call("refuse", &arguments).await.unwrap_err();
        assert!(error.to_string().contains("bad token [key]."), "{error}");
        // The arguments, which are the caller's own, are handed back with the error.
        let CallError::RecoveryExhausted { fault, .. } = &error else { panic!("{error:?}") };
        assert!(!format!("{fault:?}").contains(&token[..14]), "{fault:?}");
    }
    running.stop().await;
}

#[tokio::test]
async fn a_call_with_no_server_to_be_had_is_given_up_without_doubt() {
    let (server, log) = shop();
    let server = server.connect_wait(Duration::from_millis(100)).tool("pay", PAY);
    // The tool without its connection.
    let root = SupervisorSpec::one_for_one("root").child(server.tool_named("pay").spec("pay"));
    let system = System::start(root).await.unwrap();
    let port = system.port::<ToolRequest, ToolReply>("root/pay").unwrap();
    let error = port.call(ToolRequest::new("pay", "{}")).await.unwrap_err();
    assert_eq!(fault(error), coded(Class::ModelUnavailable, "server_down"));
    assert!(log.pids().is_empty());
    system.stop().await;
}

#[tokio::test]
async fn what_a_tool_of_a_server_has_done_is_undone_by_another_of_its_tools() {
    let (server, log) = shop();
    let server = server.tool("pay", EffectKind::Compensable).tool("put", EffectKind::Idempotent);
    // It pays, and has nothing to say after that.
    let brain = StubServer::start().await.unwrap();
    brain.then(Row::tool_calls([("pay", r#"{"a":7}"#)]));
    brain.otherwise(Row::error(401, "invalid_api_key", "no"));
    let reach = Reach::new("s/pay").undo("s/put", "put", |pay| serde_json::json!({"b": pay["a"]}));
    let root = SupervisorSpec::one_for_one("root")
        .scope(Scope::Transaction)
        .child(Model::openai(brain.url(), "m").spec("llm"))
        .supervisor(server.supervisor("s"))
        .child(Agent::new("llm").tool(ToolSpec::new("pay"), reach).spec("agent"));
    let system = System::start(root).await.unwrap();
    let mut events = system.events();
    let agent = system.port::<AgentRequest, AgentReply>("root/agent").unwrap();
    agent.call("pay").await.unwrap_err();
    assert_eq!(log.count("done pay"), 1, "an act that could not be undone is not done");
    while system.effects().counts().compensated == 0 {
        assert_eq!(system.effects().counts().stuck, 0);
        events.next().await.unwrap();
    }
    assert_eq!(log.count("done put"), 1);
    assert_eq!(system.effects().open(), []);
    system.stop().await;
}

/// What was done in a transaction: something is paid, then this is called, and then the agent's model is
/// gone. How often that call was made, and how often it was undone.
async fn undone(tool: &str, arguments: &str, trusted: bool) -> (usize, usize) {
    let (server, log) = shop();
    let server = if trusted { server.trusted() } else { server };
    let server = server
        .tool("pay", EffectKind::Compensable)
        .tool(tool, EffectKind::Compensable)
        .tool("put", EffectKind::Idempotent)
        .tool("release", EffectKind::Idempotent);
    let brain = StubServer::start().await.unwrap();
    brain.then(Row::tool_calls([("pay", "{}")]));
    brain.then(Row::tool_calls([(tool, arguments)]));
    brain.otherwise(Row::error(401, "invalid_api_key", "no"));
    let nothing = |_: &serde_json::Value| serde_json::json!({});
    let pay = Reach::new("s/pay").undo("s/put", "put", nothing);
    let reach = Reach::new(format!("s/{tool}")).undo("s/release", "release", nothing);
    let agent = Agent::new("llm").tool(ToolSpec::new("pay"), pay).tool(ToolSpec::new(tool), reach);
    let root = SupervisorSpec::one_for_one("root")
        .scope(Scope::Transaction)
        .child(Model::openai(brain.url(), "m").spec("llm"))
        .supervisor(server.supervisor("s"))
        .child(agent.spec("agent"));
    let system = System::start(root).await.unwrap();
    let agent = system.port::<AgentRequest, AgentReply>("root/agent").unwrap();
    agent.call("pay").await.unwrap_err();
    // What was paid first is undone last.
    log.wait_for("done put", 1).await;
    system.stop().await;
    assert_eq!(system.effects().open(), [], "{tool} {arguments}");
    (log.count(&format!("call {tool}")), log.count("done release"))
}

#[tokio::test]
async fn what_a_server_says_has_failed_is_undone_unless_it_shows_that_nothing_was_done() {
    for says in [
        "sent, and not filed",
        "Output validation error: 'seven' is not of type 'number'",
        "MCP error -32602: Output validation error: Invalid structured content for tool refuse: no",
        "MCP error -32602: bad amount",
        "MCP error -32001: Request timed out",
    ] {
        let arguments = serde_json::json!({ "say": says }).to_string();
        assert_eq!(undone("refuse", &arguments, true).await, (1, 1), "{says}");
    }
    // Any tool can say so when it has acted, in a result; only of a trusted server is it believed that it does not.
    for says in [
        "Unknown tool: refuse",
        "MCP error -32602: Tool refuse not found",
        "Input validation error: 'a' is a required property",
    ] {
        let arguments = serde_json::json!({ "say": says }).to_string();
        assert_eq!(undone("refuse", &arguments, true).await, (1, 0), "{says}");
        assert_eq!(undone("refuse", &arguments, false).await, (1, 1), "{says}");
    }
    for code in [-32700, -32600, -32603, -32002, -32021, -32001, -1] {
        let arguments = format!(r#"{{"code":{code}}}"#);
        assert_eq!(undone("protocol_error", &arguments, false).await, (1, 1), "{code}");
    }
}

#[tokio::test]
async fn over_http_an_act_is_made_again_only_when_it_was_refused_before_it_was_made() {
    let log = Log::new();
    let http = OverHttp::start(&log);
    let server = McpServer::url(&http.address).tool("pay", PAY).tool("protocol_error", PAY);
    let running = Running::start(&server).await;
    let mut calls = 0;
    for status in [408, 500, 502, 503, 504] {
        // Whatever is said beside it that says nothing of the call.
        for rpc in ["", ",\"rpc\":-32000", ",\"rpc\":-32603", ",\"rpc\":7"] {
            let lost = running.call("pay", &format!(r#"{{"status":{status}{rpc}}}"#)).await;
            assert!(matches!(lost, Err(CallError::Unknown { .. })), "{status}{rpc}: {lost:?}");
            calls += 1;
            assert_eq!(log.count("call pay"), calls, "{status}{rpc}");
        }
    }
    for status in [400, 409, 410, 413, 422] {
        let error = running.call("pay", &format!(r#"{{"status":{status}}}"#)).await.unwrap_err();
        let CallError::RecoveryExhausted { fault, .. } = error else { panic!("{error:?}") };
        assert_eq!((fault.class, fault.effect), (Class::InputValidation, EffectState::Failed));
        calls += 1;
        assert_eq!(log.count("call pay"), calls, "{status}");
    }
    running.call("pay", r#"{"status":429}"#).await.unwrap_err();
    assert!(log.count("call pay") > calls + 1, "nobody has paid yet");
    let late = running.call("protocol_error", r#"{"code":-32001}"#).await;
    assert!(matches!(late, Err(CallError::Unknown { .. })), "{late:?}");
    assert_eq!(log.count("call protocol_error"), 1);
    running.stop().await;
}

#[tokio::test]
async fn a_stand_in_is_asked_after_a_503_only_for_what_may_be_done_twice() {
    for (name, kind, twice) in [("pay", PAY, false), ("put", EffectKind::Idempotent, true)] {
        let (first, (second, second_log)) = (Log::new(), shop());
        let http = OverHttp::start(&first);
        // The second does not look at the status that the first one is told to answer with.
        let servers = [McpServer::url(&http.address), second].map(|it| it.tool(name, kind));
        let group = GroupSpec::tool("tool")
            .member_spec(servers[0].tool_named(name).spec("first"))
            .member_spec(servers[1].tool_named(name).spec("second"));
        let root = SupervisorSpec::one_for_one("root")
            .child(servers[0].connection("there"))
            .child(servers[1].connection("here"))
            .group(group);
        let system = System::start(root).await.unwrap();
        let tool = system.port::<ToolRequest, ToolReply>("root/tool").unwrap();
        let answer = tool.call(ToolRequest::new(name, r#"{"status":503}"#)).await;
        let call = format!("call {name}");
        assert_eq!(first.count(&call), 1, "{name}");
        assert_eq!(second_log.count(&call), usize::from(twice), "{name}: {answer:?}");
        assert_eq!(answer.is_ok(), twice, "{answer:?}");
        assert_eq!(matches!(answer, Err(CallError::Unknown { .. })), !twice, "{answer:?}");
        system.stop().await;
    }
}

#[tokio::test]
async fn the_same_over_http() {
    let log = Log::new();
    let http = OverHttp::start(&log);
    let server = McpServer::url(&http.address).tool("sum", READ).tool("refuse", READ);
    let running = Running::start(&server).await;
    assert_eq!(running.call("sum", r#"{"a":2,"b":3}"#).await.unwrap(), r#"{"sum":5}"#);
    for (status, class, tries) in [
        (400, Class::InputValidation, 1),
        (401, Class::Permission, 1),
        (403, Class::Permission, 1),
        (500, Class::ServerTransient, 4),
        (503, Class::Overloaded, 1),
    ] {
        let beside = if status < 500 { &[""][..] } else { &["", ",\"rpc\":-32000"] };
        for rpc in beside {
            let asked = format!(r#"{{"status":{status}{rpc}}}"#);
            let error = running.call("sum", &asked).await.unwrap_err();
            let CallError::RecoveryExhausted { fault, trail, .. } = error else {
                panic!("{error:?}")
            };
            assert_eq!((fault.class, fault.code.as_deref()), (class, Some(&*status.to_string())));
            if tries > 1 {
                assert_eq!(trail.0.len(), tries);
            }
        }
    }
    // A code that says what was wrong goes before the status.
    let asked = r#"{"status":500,"rpc":-32602}"#;
    let CallError::RecoveryExhausted { fault, .. } = running.call("sum", asked).await.unwrap_err()
    else {
        panic!()
    };
    assert_eq!((fault.class, fault.code.as_deref()), (Class::InputValidation, Some("-32602")));
    // There is no process whose end would have to be waited for. Without timers that run by themselves,
    // any wait would be seen.
    tokio::time::pause();
    let before = tokio::time::Instant::now();
    running.stop().await;
    assert!(before.elapsed() < Duration::from_millis(500), "{:?}", before.elapsed());
}

#[tokio::test]
async fn a_server_over_http_that_is_killed_ends_the_life_and_is_reached_again() {
    let log = Log::new();
    let mut http = OverHttp::start(&log);
    let server = McpServer::url(&http.address).tool("hang", PAY).tool("sum", READ);
    let mut running = Running::start(&server).await;
    let call = tokio::spawn({
        let port = running.tool("hang");
        async move { port.call(ToolRequest::new("hang", "{}")).await }
    });
    log.wait_for("call hang", 1).await;
    http.kill();
    assert!(matches!(call.await.unwrap(), Err(CallError::Unknown { .. })));
    assert_eq!(running.connection_exits().await, ExitKind::Faulted);
    // Asked while it is down, and answered once it is back.
    let asked = tokio::spawn({
        let port = running.tool("sum");
        async move { port.call(ToolRequest::new("sum", r#"{"a":1}"#)).await }
    });
    until("the question", || running.system.fates().open == 1).await;
    http.start_again(&log);
    let answer = asked.await.unwrap().unwrap();
    assert_eq!(answer.value.content, r#"{"sum":1}"#);
    assert_eq!((log.count("call hang"), log.count("call sum")), (1, 1), "no call is made twice");
    running.stop().await;
}

/// What is said of a result that is too large; it is asked for once, since it would be no smaller.
async fn too_large(running: &Running, log: &Log, arguments: &str) -> String {
    let before = log.count("call fill");
    let error = running.call("fill", arguments).await.unwrap_err();
    let CallError::RecoveryExhausted { fault, .. } = error else { panic!("{error:?}") };
    let expected = coded(Class::OutputInvalid, "result_too_large");
    let code = fault.code.clone().map(std::borrow::Cow::into_owned);
    assert_eq!((fault.class, code), expected, "{fault}");
    assert_eq!(fault.effect, EffectState::NotApplied, "it only reads");
    assert_eq!(log.count("call fill") - before, 1);
    fault.message.into_owned()
}

#[tokio::test]
async fn a_result_that_is_too_large_names_tool_size_and_limit_over_both_transports() {
    for http in [false, true] {
        let (mut server, log) = shop();
        let over_http = http.then(|| OverHttp::start(&log));
        if let Some(over_http) = &over_http {
            server = McpServer::url(&over_http.address);
        }
        let running = Running::start(&server.tool("fill", READ).max_result_bytes(1002)).await;
        // With its quotes it is as long as may be.
        let whole = running.call("fill", r#"{"bytes":1000}"#).await.unwrap();
        assert_eq!(whole.len(), 1002);
        assert_eq!(
            too_large(&running, &log, r#"{"bytes":1001}"#).await,
            "\"fill\": the result has 1003 bytes; `max_result_bytes` is 1002"
        );
        let failed = r#"{"bytes":1003,"fail":true}"#;
        assert_eq!(
            too_large(&running, &log, failed).await,
            "\"fill\": the result has 1003 bytes; `max_result_bytes` is 1002"
        );
        // Nor is it read whole.
        let said = too_large(&running, &log, r#"{"bytes":3000000}"#).await;
        let size = if http { "more than the 1048576 bytes that are read" } else { "3000" };
        assert!(said.starts_with(&format!("\"fill\": the answer has {size}")), "{said}");
        assert!(said.ends_with("; `max_result_bytes` is 1002"), "{said}");
        // The connection is none the worse for it.
        assert_eq!(running.call("fill", "{}").await.unwrap(), r#""""#);
        assert_eq!(log.pids().len(), 1);
        running.stop().await;
    }
}

#[tokio::test]
async fn a_result_of_a_few_megabytes_is_within_the_limit_unless_told_otherwise() {
    let (server, log) = shop();
    let running = Running::start(&server.tool("fill", READ)).await;
    let most = mainstay_actors::mcp::MAX_RESULT;
    let asked = |bytes: usize| format!(r#"{{"bytes":{bytes}}}"#);
    assert_eq!(running.call("fill", &asked(most - 2)).await.unwrap().len(), most);
    let said = too_large(&running, &log, &asked(most - 1)).await;
    assert!(said.contains(&format!("the result has {} bytes", most + 1)), "{said}");
    running.stop().await;
}
