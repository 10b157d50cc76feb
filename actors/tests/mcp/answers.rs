//! Answers that the protocol allows, and some that it does not, over both transports.

use std::time::Duration;

use mainstay::error::CallError;
use mainstay::fault::{Class, EffectState};
use mainstay_actors::mcp::{FoundTool, ListTools, McpServer};
use mainstay_actors::tool::ToolRequest;
use serde_json::json;

use super::harness::Running;
use super::shop::{Log, OverHttp, shop, shop_program};
use super::{PAY, READ, coded, fault};

#[tokio::test]
async fn a_result_is_told_as_it_was_written() {
    let (server, _log) = shop();
    let running = Running::start(&server.tool("say", READ)).await;
    let say = async |result: &str| {
        let arguments = json!({ "result": result }).to_string();
        running.call("say", &arguments).await
    };
    let long = r#"{"b":1,"a":123456789012345678901234567890,"b":2,"c":0.1000000000000000055511151231257827}"#;
    let text = serde_json::Value::from(long).to_string();
    for (result, told) in [
        (format!(r#"{{"content":[{{"type":"text","text":{text}}}]}}"#), long.to_owned()),
        (
            format!(
                r#"{{"content":[{{"type":"text","text":{text}}},{{"type":"text","text":"x"}}]}}"#
            ),
            format!(r#"[{long},"x"]"#),
        ),
        // The text beside what is structured says the same as it was written.
        (
            format!(
                r#"{{"content":[{{"type":"text","text":{text}}}],"structuredContent":{long}}}"#
            ),
            long.to_owned(),
        ),
        (
            r#"{"content":[{"type":"text","text":"seven"}],"structuredContent":{"n":7}}"#
                .to_owned(),
            r#"{"n":7}"#.to_owned(),
        ),
        // What is null is not there.
        (
            r#"{"content":[{"type":"text","text":"ok"}],"isError":null,"structuredContent":null}"#
                .to_owned(),
            "\"ok\"".to_owned(),
        ),
    ] {
        assert_eq!(say(&result).await.unwrap(), told, "{result}");
    }
    let lost = format!(r#"{{"content":[],"structuredContent":{long}}}"#);
    let error = say(&lost).await.unwrap_err();
    assert_eq!(fault(error), coded(Class::OutputInvalid, "output_invalid"));
    running.stop().await;
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_is_a_fault_at_once_and_one_in_a_batch_is_read() {
    let (server, log) = shop();
    let running = Running::start(&server.tool("say", READ).tool("put", PAY)).await;
    let say = async |tool: &str, dressed: &str| {
        let result = r#"{"content":[{"type":"text","text":"gr\u00fc\u00dfe, und das ist alles, was es hier zu sagen gibt: größe"}]}"#;
        let arguments = json!({ "result": result, "as": dressed, "a": 1 }).to_string();
        running.call(tool, &arguments).await
    };
    assert!(say("say", "batch").await.unwrap().ends_with("größe\""));
    // Nobody waits for what is there already, but cannot be read: also where the id comes last.
    for dressed in ["latin", "half", "late", "garbled"] {
        let error = say("say", dressed).await.unwrap_err();
        assert_eq!(fault(error), coded(Class::OutputInvalid, "unreadable"), "{dressed}");
    }
    // Nor where only a reader that looks at all of it finds that it cannot: a text was cut within a letter.
    let result = r#"{"content":[{"type":"text","text":"so far \ud83d"}]}"#;
    let arguments = json!({ "result": result }).to_string();
    let error = running.call("say", &arguments).await.unwrap_err();
    assert!(error.to_string().contains("cannot be read: "), "{error}");
    assert_eq!(fault(error), coded(Class::OutputInvalid, "unreadable"));
    // What may have been done is not done again.
    assert!(matches!(say("put", "half").await, Err(CallError::Unknown { .. })));
    assert_eq!((log.count("call put"), log.pids().len()), (1, 1));
    // A block that the protocol does not have.
    let result = r#"{"content":[{"type":"hologram","of":"a ship"}]}"#;
    let arguments = json!({ "result": result }).to_string();
    let error = running.call("say", &arguments).await.unwrap_err();
    assert_eq!(fault(error).0, Class::OutputInvalid);
    running.stop().await;
}

#[tokio::test]
async fn a_session_that_the_server_does_not_know_any_more_is_made_anew_and_the_act_made_once() {
    // Also where it says so under the id of the request.
    for way in ["--sessions", "--sessions-by-id", "--gone"] {
        forgets(way).await;
    }
}

#[tokio::test]
async fn an_error_that_speaks_of_a_session_is_the_calls_where_the_status_refuses_nothing() {
    let log = Log::new();
    let http = OverHttp::start_with(&log, &["--sessions"]);
    let running = Running::start(&McpServer::url(&http.address).tool("pay", PAY)).await;
    for (asked, dressed) in ["session", "nobody's session"].into_iter().enumerate() {
        let arguments = json!({"a": 1, "as": dressed}).to_string();
        let error = running.call("pay", &arguments).await.unwrap_err();
        assert_eq!(log.count("call pay"), asked + 1, "{dressed}: the payment was made, {error:?}");
        assert!(!format!("{error:?}").contains("NotApplied"), "{dressed}: {error:?}");
        assert!(error.to_string().contains("after the charge"), "{dressed}: {error:?}");
    }
    running.stop().await;
}

async fn forgets(way: &str) {
    let log = Log::new();
    let http = OverHttp::start_with(&log, &[way]);
    let running = Running::start(&McpServer::url(&http.address).tool("pay", PAY)).await;
    assert_eq!(running.call("pay", r#"{"a":1,"forget":true}"#).await.unwrap(), r#"{"sum":1}"#);
    // It says so with a status of 400 and an error of nobody's request, or with 404.
    let answer = running.call("pay", r#"{"a":2}"#).await.unwrap();
    assert_eq!(answer, r#"{"sum":2}"#);
    assert_eq!(log.count("call pay"), 2);
    running.stop().await;
}

#[tokio::test]
async fn a_redirect_within_the_origin_is_followed_and_one_elsewhere_is_named() {
    let log = Log::new();
    let http = OverHttp::start_with(&log, &["--moved", "/mcp/"]);
    let found = McpServer::url(&http.address).discover().await.unwrap();
    assert!(found.iter().any(|tool| tool.spec.name == "sum"));
    let http = OverHttp::start_with(&log, &["--moved", "http://localhost:9/mcp"]);
    let fault = McpServer::url(&http.address).discover().await.unwrap_err();
    assert!(fault.message.contains("status 307 and refers to elsewhere"), "{fault:?}");
    assert_eq!(fault.code.as_deref(), Some("307"));
}

#[tokio::test]
async fn a_tool_that_was_only_found_may_be_gone_later_and_the_others_are_there() {
    let (whole, _log) = shop();
    let found = whole.discover().await.unwrap();
    let log = Log::new();
    let program = shop_program().to_str().unwrap();
    let server = McpServer::command(program, ["--log", log.path(), "--without", "many"]);
    let server = server.tool("sum", READ).offer(found);
    let running = Running::start(&server).await;
    assert_eq!(running.call("sum", r#"{"a":1}"#).await.unwrap(), r#"{"sum":1}"#);
    let error = running.call("many", "{}").await.unwrap_err();
    assert_eq!(fault(error), coded(Class::InputValidation, "unknown_tool"));
    assert_eq!(log.count("call many"), 0, "it is not asked for what it has not");
    running.stop().await;
}

#[tokio::test]
async fn a_result_that_is_not_of_the_schema_its_tool_has_declared_is_none() {
    let (server, log) = shop();
    let running = Running::start(&server.clone().tool("promise", READ)).await;
    let promise = async |running: &Running, result: &str| {
        let arguments = json!({ "result": result }).to_string();
        running.call("promise", &arguments).await
    };
    let kept = r#"{"content":[],"structuredContent":{"in":"eur","more":[],"sum":7}}"#;
    assert_eq!(promise(&running, kept).await.unwrap(), r#"{"in":"eur","more":[],"sum":7}"#);
    // What failed has promised nothing.
    let failed = r#"{"isError":true,"content":[{"type":"text","text":"closed"}]}"#;
    let error = promise(&running, failed).await.unwrap_err();
    assert_eq!(fault(error), coded(Class::Business, "tool_error"));
    let calls = log.count("call promise");
    let lies = [
        (r#"{"sum":"7","in":"gold"}"#, "member \"in\" is none of \"eur\", \"usd\""),
        (r#"{"sum":"7"}"#, "member \"sum\" is of type string, not integer"),
        (r#"{"in":"eur"}"#, "member \"sum\" is missing"),
        ("[7]", "it is of type array, not object"),
        ("null", "has nothing of it"),
    ];
    for (given, said) in lies {
        let text = r#"[{"type":"text","text":"seven"}]"#;
        let result = format!(r#"{{"content":{text},"structuredContent":{given}}}"#);
        let error = promise(&running, &result).await.unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
        assert_eq!(fault(error), coded(Class::OutputInvalid, "output_invalid"));
    }
    assert_eq!(log.count("call promise") - calls, lies.len(), "it would lie again");
    running.stop().await;
    // The tool has run, whatever it says about it.
    let running = Running::start(&server.tool("promise", PAY)).await;
    let lost = promise(&running, r#"{"content":[]}"#).await;
    assert!(matches!(lost, Err(CallError::Unknown { .. })), "{lost:?}");
    running.stop().await;
}

#[tokio::test]
async fn a_read_whose_server_dies_each_time_is_told_to_have_done_nothing() {
    let (server, _log) = shop();
    let running = Running::start(&server.tool("die", READ)).await;
    let error = running.call("die", "{}").await.unwrap_err();
    let CallError::RecoveryExhausted { fault, .. } = error else { panic!("{error:?}") };
    assert_eq!((fault.class, fault.effect), (Class::Indeterminate, EffectState::NotApplied));
    running.stop().await;
}

#[tokio::test]
async fn over_http_too_an_answer_that_cannot_be_read_is_a_fault_at_once() {
    let log = Log::new();
    let http = OverHttp::start(&log);
    let server = McpServer::url(&http.address);
    let (reads, acts) = (server.clone().tool("say", READ), server.tool("say", PAY));
    let (reads, acts) = (Running::start(&reads).await, Running::start(&acts).await);
    let result = r#"{"content":[{"type":"text","text":"größe 404"}]}"#;
    let say = async |running: &Running, more: serde_json::Value| {
        let mut arguments = json!({ "result": result });
        arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        running.call("say", &arguments.to_string()).await
    };
    for well in [json!({}), json!({"sse": 1}), json!({"sse": 1, "as": "batch"})] {
        assert_eq!(say(&reads, well.clone()).await.unwrap(), "\"größe 404\"", "{well}");
    }
    let half_a_letter = r#"{"content":[{"type":"text","text":"so far \ud83d"}]}"#;
    // Of a list in the place of one answer the transport does not say which it is.
    for (odd, code) in [
        (json!({"as": "latin"}), "unexpected_answer"),
        (json!({"as": "half"}), "unexpected_answer"),
        (json!({"as": "batch"}), "unexpected_answer"),
        (json!({"kind": "text/html"}), "unexpected_answer"),
        (json!({"kind": "text/event-stream"}), "connection_lost"),
        (json!({"cut": 20}), "connection_lost"),
        (json!({"sse": 1, "as": "latin"}), "unreadable"),
        (json!({"sse": 1, "as": "half"}), "unreadable"),
        (json!({"sse": 1, "as": "garbled"}), "unreadable"),
        (json!({"sse": 1, "result": half_a_letter}), "unreadable"),
        (json!({"sse": 1, "result": half_a_letter, "as": "batch"}), "unreadable"),
        (json!({"sse": 1, "cut": 0}), "connection_lost"),
        (json!({"sse": 1, "cut": 40}), "connection_lost"),
    ] {
        let class = match code {
            "connection_lost" => Class::Indeterminate,
            _ => Class::OutputInvalid,
        };
        let error = say(&reads, odd.clone()).await.unwrap_err();
        assert_eq!(fault(error), coded(class, code), "{odd}");
        // What may have been done is not done again.
        let calls = log.count("call say");
        let lost = say(&acts, odd.clone()).await;
        assert!(matches!(lost, Err(CallError::Unknown { .. })), "{odd}: {lost:?}");
        assert_eq!(log.count("call say"), calls + 1, "{odd}");
    }
    reads.stop().await;
    acts.stop().await;
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_named_with_the_reason() {
    let fault = McpServer::url("http://127.0.0.1:1/mcp?key=sk-0123456789").discover().await;
    let fault = fault.unwrap_err();
    assert_eq!(fault.code.as_deref(), Some("not_connected"), "{fault}");
    assert!(fault.message.contains("127.0.0.1:1 cannot be reached: "), "{fault}");
    assert!(fault.message.contains("refused") && !fault.message.contains("sk-"), "{fault}");
}

#[tokio::test]
async fn a_result_that_is_too_large_for_an_event_is_told_as_one() {
    let log = Log::new();
    let http = OverHttp::start(&log);
    let server = McpServer::url(&http.address).tool("fill", READ);
    let running = Running::start(&server).await;
    for (arguments, sent) in [(r#"{"bytes":20000000,"sse":1}"#, 1), (r#"{"bytes":20000000}"#, 2)] {
        let error = running.call("fill", arguments).await.unwrap_err();
        assert!(
            error.to_string().contains("more than the 16777216 bytes that are read"),
            "{error}"
        );
        assert_eq!(fault(error), coded(Class::OutputInvalid, "result_too_large"));
        assert_eq!(log.count("call fill"), sent);
    }
    // Ten megabytes can be read and are more than a result may have, unless that is told.
    let error = running.call("fill", r#"{"bytes":10000000,"sse":1}"#).await.unwrap_err();
    assert!(error.to_string().contains("the result has 10000002 bytes"), "{error}");
    running.stop().await;
    let running = Running::start(&server.max_result_bytes(10_000_002)).await;
    for arguments in [r#"{"bytes":10000000,"sse":1}"#, r#"{"bytes":10000000}"#] {
        assert_eq!(running.call("fill", arguments).await.unwrap().len(), 10_000_002);
    }
    running.stop().await;
}

#[tokio::test]
async fn headers_go_with_every_request_and_to_nobody_else_and_are_said_nowhere() {
    let token = "tk-0123456789abcdef";
    let log = Log::new();
    let http =
        OverHttp::start_with(&log, &["--sessions", "--wants", &format!("x-shop-key: {token}")]);
    let refused = McpServer::url(&http.address).discover().await.unwrap_err();
    assert_eq!(refused.code.as_deref(), Some("401"));
    let server = McpServer::url(&http.address).header("X-Shop-Key", token);
    let running = Running::start(&server.clone().tool("refuse", READ).tool("pay", PAY)).await;
    assert_eq!(running.call("pay", r#"{"a":1}"#).await.unwrap(), r#"{"sum":1}"#);
    let arguments = json!({"say": format!("bad token {token}")}).to_string();
    let error = running.call("refuse", &arguments).await.unwrap_err();
    assert!(error.to_string().contains("bad token [key]"), "{error}");
    assert!(!format!("{server:?}").contains(token));
    running.stop().await;
    // Nobody else gets them, or anything.
    let elsewhere = Log::new();
    let other = OverHttp::start(&elsewhere);
    let http = OverHttp::start_with(&log, &["--moved", &other.address]);
    let fault =
        McpServer::url(&http.address).header("x-shop-key", token).discover().await.unwrap_err();
    assert_eq!(fault.code.as_deref(), Some("307"));
    assert_eq!(elsewhere.lines().len(), 1, "{:?}", elsewhere.lines());
    // By its variable, a header is a secret whatever its name.
    let from = |name: &str| McpServer::url(&other.address).header_env("x-color", name);
    from("CARGO_PKG_NAME").discover().await.unwrap();
    let running = Running::start(&from("CARGO_PKG_NAME").tool("refuse", READ)).await;
    let arguments = json!({"say": concat!("bad color ", env!("CARGO_PKG_NAME"))}).to_string();
    let error = running.call("refuse", &arguments).await.unwrap_err();
    assert!(error.to_string().contains("bad color [key]"), "{error}");
    running.stop().await;
    // A good result is rid of it, too, also where it is short, or quoted twice; and it stays one.
    for (key, quoted, told) in [
        ("SEC\"part12", r#"{"key":"SEC\"part12"}"#, r#"{"key":"[key]"}"#),
        ("4820193756", r#"{"n":4820193756}"#, r#"{"n":"[key]"}"#),
    ] {
        let server = McpServer::url(&other.address).header("x-api-key", key).tool("say", READ);
        let running = Running::start(&server).await;
        let result = json!({ "content": [{ "type": "text", "text": quoted }] }).to_string();
        let arguments = json!({ "result": result }).to_string();
        assert_eq!(running.call("say", &arguments).await.unwrap(), told);
        running.stop().await;
    }
    // Nor does a model hear it in what the server says of its tools.
    let quoted = McpServer::url(&other.address).header("x-api-key", "does protocol_error");
    let found = quoted.discover().await.unwrap();
    let found = found.iter().find(|tool| tool.spec.name == "protocol_error").unwrap();
    assert_eq!(found.spec.description, "[key]");
    let fault = from("MAINSTAY_NO_SUCH_VARIABLE").discover().await.unwrap_err();
    assert!(fault.message.contains("MAINSTAY_NO_SUCH_VARIABLE is not set"), "{fault:?}");
    for (server, said) in [
        (server.clone().bearer("x\ny"), "the bearer token cannot be sent"),
        (server.clone().header("a b", "c"), "has a name that none can have"),
        (server.clone().header("a", "b\nc"), "has a value that none can have"),
        (server.clone().header("Host", "c"), "is set by HTTP itself"),
        (server.clone().header("Mcp-Session-Id", "c"), "is set by the protocol itself"),
        (server.clone().bearer("x").header("Authorization", "c"), "stands beside a bearer token"),
    ] {
        let fault = server.discover().await.unwrap_err();
        assert_eq!(
            (fault.class, fault.code.as_deref()),
            (Class::InputValidation, Some("bad_header"))
        );
        assert!(fault.message.contains(said), "{fault:?}");
    }
}

#[tokio::test]
async fn a_tool_that_the_server_has_no_more_is_refused_as_soon_as_it_says_so() {
    let (server, log) = shop();
    let server = server.tool("change", READ).tool("pay", PAY).tool("sum", READ);
    let running = Running::start(&server).await;
    let port = running.system.port::<ListTools, Vec<FoundTool>>("root/s/connection").unwrap();
    let has_pay = async || {
        let listed = port.call(ListTools).await.unwrap().value;
        listed.iter().any(|tool| tool.spec.name == "pay")
    };
    let listed_as = async |there: bool| {
        let told = async { while has_pay().await != there {} };
        tokio::time::timeout(Duration::from_secs(30), told).await.expect("the list");
    };
    running.call("pay", "{}").await.unwrap();
    running.call("change", r#"{"gone":"pay"}"#).await.unwrap();
    listed_as(false).await;
    let error = running.call("pay", "{}").await.unwrap_err();
    assert_eq!(fault(error), coded(Class::InputValidation, "unknown_tool"));
    assert_eq!(log.count("call pay"), 1, "it was not asked");
    assert_eq!(running.call("sum", r#"{"a":1}"#).await.unwrap(), r#"{"sum":1}"#);
    // It is there again.
    running.call("change", "{}").await.unwrap();
    listed_as(true).await;
    running.call("pay", "{}").await.unwrap();
    assert_eq!((log.count("call pay"), log.pids().len()), (2, 1));
    running.stop().await;
}

#[tokio::test]
async fn what_is_a_secret_among_the_arguments_of_a_server_is_in_none_of_its_errors() {
    let (token, password) = ("tk-0123456789abcdef", "pa55-w0rd");
    let option = format!("--api-key={token}");
    let address = format!("postgres://desk:{password}@db/orders");
    let script = "echo \"bad key $0 of $1\" >&2; exit 3";
    let server = McpServer::command("sh", ["-c", script, &option, &address]);
    let fault = server.discover().await.unwrap_err();
    let said = "bad key --api-key=[key] of postgres://desk:[key]@db/orders";
    assert!(fault.message.contains(said), "{fault}");
}

#[tokio::test]
async fn over_http_too_a_server_hears_that_a_call_is_off_when_all_ends() {
    let log = Log::new();
    let http = OverHttp::start(&log);
    for (round, kind) in [(1, READ), (2, PAY)] {
        let server = McpServer::url(&http.address).tool("hang", kind);
        let running = Running::start(&server).await;
        let port = running.tool("hang");
        let call = tokio::spawn(async move { port.call(ToolRequest::new("hang", "{}")).await });
        log.wait_for("call hang", round).await;
        // The end of the system, and with it of this runtime, is all that the server could hear of.
        call.abort();
        running.system.stop().await;
        // It may hear of it late, and would not hear of it from a connection that has ended.
        log.wait_for("cancelled", round).await;
    }
}
