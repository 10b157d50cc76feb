//! The main job as its users meet it: the example `support_desk`, run as a program.

use std::collections::BTreeSet;

use mainstay_actors::stub_server::{Row, StubServer};
use serde_json::{Value, json};

use program::{Running, command, file, finish, run, sum};

// Beside this file it would be a test of its own.
#[path = "support_desk/program.rs"]
mod program;

#[tokio::test]
async fn the_summary_is_one_json_object_whose_counts_balance() {
    let ran = run(&["--limit", "24", "--summary", "json"]).await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert!(ran.out.contains("24 of 24 in"), "{}", ran.out);
    let summary = ran.summary();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    let wanted: BTreeSet<_> =
        names(&["accepted", "fates", "retries", "fallbacks", "latency_ms", "slo"]);
    assert_eq!(keys(&summary), wanted);
    // An agent asks a model at least once for each complaint.
    assert!(summary["accepted"].as_u64().unwrap() > 2 * 24, "{summary}");
    let latency = |name: &str| summary["latency_ms"][name].as_f64().unwrap();
    assert!(0.0 < latency("p50") && latency("p50") <= latency("p95"), "{summary}");
    assert!(latency("p95") <= latency("p99"), "{summary}");
    let groups: BTreeSet<_> =
        names(&["support/llm_service", "support/refunds", "support/desk/complaints"]);
    assert_eq!(keys(&summary["fallbacks"]), groups);
    for id in ["S25", "S26", "S27", "S28", "S29", "S30", "S31", "S32", "S37", "S38", "S39"] {
        assert!(summary["slo"][id]["target"].is_string(), "{id}: {summary}");
    }
    for id in ["S65.satisfaction", "S65.intervention", "S65.response"] {
        assert!(summary["slo"][id]["actual"].is_number(), "{id}: {summary}");
    }
    assert_eq!(summary["slo"]["S39"]["actual"], json!(100.0));
    assert_eq!(summary["slo"]["S39"]["met"], json!(true));
}

#[tokio::test]
async fn without_faults_nothing_is_retried_and_nothing_handed_on() {
    let ran = run(&["--limit", "40", "--fault-rate", "0", "--summary", "json"]).await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let summary = ran.summary();
    assert_eq!(summary["retries"], json!({}));
    assert_eq!(sum(&summary["fallbacks"]), 0, "{summary}");
    assert_eq!(summary["fates"]["done"], summary["accepted"]);
    assert_eq!(summary["slo"]["S28"]["actual"], json!(0.0));
    // Nothing entered a retry: there is no rate of success, and none is made up.
    assert_eq!(summary["slo"]["S25"]["actual"], Value::Null);
    assert_eq!(summary["slo"]["S25"]["met"], Value::Null);
}

#[tokio::test]
async fn when_every_attempt_fails_every_customer_still_gets_an_answer() {
    let ran = run(&["--limit", "6", "--fault-rate", "1", "--summary", "json"]).await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert!(ran.out.contains("6 of 6 in"), "{}", ran.out);
    let summary = ran.summary();
    assert!(sum(&summary["retries"]) > 0, "{summary}");
    assert!(summary["fallbacks"]["support/llm_service"].as_u64().unwrap() > 0, "{summary}");
    assert_eq!(summary["slo"]["S39"]["actual"], json!(100.0));
    assert_eq!(summary["slo"]["S28"]["actual"], json!(100.0), "only the local model is left");
}

/// Which attempts fail follows from the seed and the complaints. How long things take does not, so
/// neither does what depends on it: latencies, circuits that open, an emptied retry budget.
#[tokio::test]
async fn the_same_seed_fails_the_same_attempts_and_another_seed_others() {
    let desk = async |seed: &str| {
        let limit = ["--limit", "32", "--agents", "4", "--summary", "json"];
        let ran = run(&[&["--seed", seed], &limit[..]].concat()).await;
        let summary = ran.summary();
        ["fates", "retries", "fallbacks"].map(|key| summary[key].clone())
    };
    let (first, again, other) = tokio::join!(desk("3"), desk("3"), desk("4"));
    assert_eq!(first, again);
    assert_ne!(first, other);
    assert!(sum(&first[1]) > 0, "nothing failed: {first:?}");
}

#[tokio::test]
async fn bad_arguments_are_refused_by_name() {
    let model = ["--model-url", "http://127.0.0.1:1/v1", "--model", "m"];
    for (arguments, named) in [
        (vec!["--bogus"], "--bogus"),
        (vec!["--limit", "0"], "--limit"),
        (vec!["--limit", "many"], "'many'"),
        (vec!["--seed", "-1"], "'-1' for '--seed <N>': a number from 0"),
        (vec!["--fault-rate", "-0.1"], "'-0.1' for '--fault-rate <RATE>'"),
        (vec!["--model-url", "http://127.0.0.1:1/v1", "--model", ""], "--model <NAME>"),
        (vec!["--model-url", "", "--model", "m"], "--model-url <URL>"),
        (vec!["--fault-rate", "1.5"], "--fault-rate"),
        (vec!["--fault-rate", "NaN"], "--fault-rate"),
        (vec!["--agents", "65"], "--agents"),
        (vec!["--dump", "xml"], "--dump"),
        (vec!["--summary", "xml"], "--summary"),
        (vec!["--model-url", "http://127.0.0.1:1/v1"], "--model <NAME>"),
        (vec!["--model", "m"], "--model-url <URL>"),
        (vec!["--api-key-env", "X"], "--model-url <URL>"),
        (vec!["--model-url", "ftp://x/v1", "--model", "m"], "ftp://x/v1"),
        ([&model[..], &["--api-key-env", "MAINSTAY_NO_SUCH_KEY"]].concat(), "MAINSTAY_NO_SUCH_KEY"),
    ] {
        let ran = run(&arguments).await;
        assert_eq!((ran.code, &*ran.out), (Some(2), ""), "{arguments:?}: {ran:#?}");
        assert!(ran.err.contains("error: ") && ran.err.contains(named), "{arguments:?}: {ran:#?}");
    }
}

#[tokio::test]
async fn help_names_every_flag() {
    let ran = run(&["--help"]).await;
    assert_eq!((ran.code, &*ran.err), (Some(0), ""));
    for flag in [
        "--input",
        "--model-url",
        "--model ",
        "--api-key-env",
        "--seed",
        "--fault-rate",
        "--limit",
        "--agents",
        "--dump",
        "--summary",
        "--help",
    ] {
        assert!(ran.out.contains(flag), "{flag} is not in {}", ran.out);
    }
}

#[tokio::test]
async fn a_bad_row_is_named_by_file_and_line_and_the_good_ones_are_worked_on() {
    let book = format!(r#"{{"id": "book", "text": "{}"}}"#, "so long ".repeat(1_000_000));
    let rows: &[&[u8]] = &[
        br#"{"id": "good-1", "customer": "Uma Berg", "text": "Where is order 1042?"}"#,
        br#"{"id": "no-text"}"#,
        b"not json at all",
        b"",
        br#"{"id": "good-1", "text": "the same id again"}"#,
        b"{\"id\": \"latin-1\", \"text\": \"caf\xe9\"}",
        br#"["array", "of two"]"#,
        br#"{"id": "good-2", "text": "I want to talk to a person."}"#,
        book.as_bytes(),
    ];
    let path = file("rows", "rows.jsonl", rows.join(&b'\n'));
    let ran = run(&["--input", &path, "--fault-rate", "0", "--summary", "json"]).await;
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    for (line, why) in [
        (2, "missing field `text`"),
        (3, "not a JSON object"),
        (5, "the id \"good-1\" was used before"),
        (6, "not UTF-8 from byte 31 of the line on"),
        (7, "not a JSON object"),
        (9, "\"text\" is longer than 65536 bytes"),
    ] {
        let error = format!("error: {path}:{line}: ");
        let found = ran.err.lines().find(|text| text.starts_with(&error));
        assert!(found.is_some_and(|text| text.contains(why)), "{line}: {}", ran.err);
    }
    assert!(ran.err.contains("error: 6 rows were left out"), "{}", ran.err);
    assert!(ran.out.contains("2 of 2 in"), "{}", ran.out);
    assert_eq!(ran.summary()["slo"]["S39"]["actual"], json!(100.0));
}

#[tokio::test]
async fn an_input_without_a_usable_row_is_refused_by_name() {
    let files = [
        (file("none", "empty.jsonl", ""), "there is no complaint in it"),
        (file("none", "blank.jsonl", "\n \r\n"), "there is no complaint in it"),
        (file("none", "utf16.jsonl", b"\xff\xfe{\0"), "UTF-16"),
        (file("none", "bytes.jsonl", b"\xff\xfd\n\xc3\x28"), ":2: not UTF-8 from byte 1"),
        (file("none", "missing.jsonl.not", "").replace(".not", ""), "cannot be read"),
    ];
    for (path, why) in &files {
        let ran = run(&["--input", path]).await;
        assert_eq!((ran.code, &*ran.out), (Some(2), ""), "{path}: {ran:#?}");
        assert!(ran.err.contains(path.as_str()) && ran.err.contains(why), "{path}: {ran:#?}");
    }
}

#[tokio::test]
async fn satisfaction_is_judged_by_the_labels_beside_the_input_and_not_made_up() {
    let row = r#"{"id": "a", "customer": "x", "text": "Where is order 1?"}"#;
    let path = file("no_labels", "rows.jsonl", row);
    let arguments =
        |path: &str| ["--input", path, "--fault-rate", "0", "--summary", "json"].map(str::to_owned);
    let judged = async |path: &str| {
        let ran = finish(command(arguments(path)).output()).await;
        assert_eq!(ran.code, Some(0), "{ran:#?}");
        ran.summary()["slo"]["S65.satisfaction"]["actual"].clone()
    };
    assert_eq!(judged(&path).await, Value::Null);

    let label = r#"{"id": "a", "intent": "status", "order": 777, "exists": true}"#;
    let order = r#"[{"order": 777, "customer": "x", "status": "shipped", "item": "hat",
        "amount_cents": 100, "currency": "EUR", "eta": "2026-11-27"}]"#;
    let path = file("labels", "rows.jsonl", row.replace("order 1?", "order 777?"));
    file("labels", "expected.jsonl", label);
    file("labels", "orders.json", order);
    assert_eq!(judged(&path).await, json!(100.0), "it looks up the order the label names");
    file("labels", "expected.jsonl", label.replace("777", "778"));
    assert_eq!(judged(&path).await, json!(0.0), "it looks up another order");
}

#[tokio::test]
async fn a_server_that_cannot_be_used_is_named_before_anything_is_begun() {
    let gone = StubServer::start().await.unwrap();
    let url = gone.url().to_owned();
    drop(gone);
    let ran = run(&["--model-url", &url, "--model", "m"]).await;
    assert_eq!((ran.code, &*ran.out), (Some(2), ""), "{ran:#?}");
    assert!(ran.err.contains(&url) && ran.err.contains("cannot be reached"), "{ran:#?}");

    let refusing = StubServer::start().await.unwrap();
    refusing.otherwise(Row::error(401, "invalid_api_key", "Incorrect API key provided"));
    let ran = run(&["--model-url", refusing.url(), "--model", "m"]).await;
    assert_eq!((ran.code, &*ran.out), (Some(2), ""), "{ran:#?}");
    assert!(ran.err.contains(refusing.url()) && ran.err.contains("permission"), "{ran:#?}");
    assert_eq!(refusing.requests().len(), 1, "asked once, not again");
}

#[tokio::test]
async fn a_server_of_the_users_is_asked_with_tools_and_its_key_shows_nowhere() {
    const KEY: &str = "sk-nobody-may-see-this";
    let server = StubServer::start().await.unwrap();
    server.otherwise(Row::reply("We are looking into it."));
    let arguments = ["--model-url", server.url(), "--model", "tiny", "--api-key-env", "DESK_KEY"];
    let rest = ["--limit", "3", "--fault-rate", "0", "--summary", "json"];
    let mut command = command(arguments.iter().chain(&rest));
    let ran = finish(command.env("DESK_KEY", KEY).output()).await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert!(ran.out.contains("We are looking into it."), "{}", ran.out);
    assert!(!ran.out.contains(KEY) && !ran.err.contains(KEY), "{ran:#?}");
    assert_eq!(sum(&ran.summary()["fallbacks"]), 0);
    let seen = server.requests();
    assert_eq!(seen.len(), 1 + 3, "one to see whether it is there, one for each complaint");
    for request in &seen[1..] {
        let body = request.json();
        assert_eq!(request.header("authorization"), Some(&*format!("Bearer {KEY}")));
        assert_eq!(body["model"], "tiny");
        let tools = body["tools"].as_array().unwrap().iter();
        let tools: Vec<_> = tools.map(|tool| tool["function"]["name"].as_str().unwrap()).collect();
        assert_eq!(tools, ["query_order", "refund", "escalate"]);
    }
}

#[tokio::test]
async fn the_local_model_stands_in_for_a_server_that_goes_down() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::reply("Hello."));
    server.otherwise(Row::error(404, "model_not_found", "The model does not exist"));
    let arguments = ["--model-url", server.url(), "--model", "tiny", "--limit", "3"];
    let ran = run(&[&arguments[..], &["--fault-rate", "0", "--summary", "json"]].concat()).await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let summary = ran.summary();
    assert!(summary["fallbacks"]["support/llm_service"].as_u64().unwrap() > 0, "{summary}");
    assert_eq!(summary["slo"]["S28"]["actual"], json!(100.0));
    assert_eq!(summary["slo"]["S39"]["actual"], json!(100.0));
}

#[cfg(unix)]
#[tokio::test]
async fn ctrl_c_stops_the_tree_in_order_and_reports_what_was_done() {
    let mut desk = Running::start(&["--summary", "json"]);
    desk.wait_for(" of 240 complaints").await;
    desk.interrupt().await;
    let ran = desk.end().await;
    assert_eq!(ran.code, Some(130), "{ran:#?}");
    assert!(ran.err.contains("stopping the tree in order"), "{}", ran.err);
    assert!(ran.out.contains("interrupted: "), "{}", ran.out);
    assert!(!ran.out.contains("240 of 240"), "{}", ran.out);
    assert!(ran.out.contains("The tree, when it was interrupted"), "{}", ran.out);
    ran.summary();
}

#[cfg(unix)]
#[tokio::test]
async fn what_a_stop_cannot_wait_for_has_a_fate_all_the_same() {
    // The first answers take longer than any shutdown limit.
    let mut desk = Running::start(&["--fault-rate", "1", "--summary", "json"]);
    desk.wait_for(" of 240 complaints").await;
    desk.interrupt().await;
    let ran = desk.end().await;
    assert_eq!(ran.code, Some(130), "{ran:#?}");
    let summary = ran.summary();
    assert!(summary["fates"]["stopped"].as_u64().unwrap() > 0, "{summary}");
    assert_eq!(summary["latency_ms"]["p50"], Value::Null, "nobody was answered: {summary}");
}

#[cfg(unix)]
#[tokio::test]
async fn a_second_ctrl_c_ends_the_process_at_once() {
    // Everything hangs or fails, so a stop in order takes a while.
    let mut desk = Running::start(&["--fault-rate", "1", "--agents", "32", "--summary", "json"]);
    desk.wait_for(" of 240 complaints").await;
    desk.interrupt().await;
    desk.wait_for("stopping the tree in order").await;
    desk.interrupt().await;
    let ran = desk.end().await;
    assert_eq!((ran.code, &*ran.out), (Some(130), ""), "{ran:#?}");
}

#[tokio::test]
async fn the_tree_alone_goes_to_stdout_in_the_format_asked_for() {
    let dump = async |format: &str| {
        let ran = run(&["--limit", "2", "--agents", "3", "--dump", format]).await;
        assert_eq!(ran.code, Some(0), "{ran:#?}");
        assert!(ran.err.contains("Objectives"), "the report is on stderr: {}", ran.err);
        assert!(!ran.out.contains("Objectives"), "{}", ran.out);
        ran.out
    };
    let (text, json, dot, mermaid) =
        tokio::join!(dump("text"), dump("json"), dump("dot"), dump("mermaid"));
    assert!(text.starts_with("name "), "{text}");
    assert!(dot.starts_with("digraph"), "{dot}");
    assert!(mermaid.starts_with("flowchart"), "{mermaid}");
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["root"]["path"], "support");
    for text in [&text, &dot, &mermaid, &json.to_string()] {
        assert!(text.contains("claude_service") && text.contains("human_agent"), "{text}");
        assert!(text.contains("agent_3") && !text.contains("agent_4"), "{text}");
    }
}

#[tokio::test]
async fn a_dump_and_a_summary_are_two_json_lines() {
    let ran = run(&["--limit", "1", "--dump", "json", "--summary", "json"]).await;
    let lines: Vec<_> = ran.out.lines().collect();
    assert_eq!(lines.len(), 2, "{}", ran.out);
    assert_eq!(serde_json::from_str::<Value>(lines[0]).unwrap()["root"]["path"], "support");
    ran.summary();
}

#[tokio::test]
async fn a_reader_that_leaves_early_is_no_failure() {
    let mut child = command(["--limit", "2", "--fault-rate", "0"]).spawn().unwrap();
    drop(child.stdout.take());
    let ran = finish(child.wait_with_output()).await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert!(!ran.err.contains("panicked"), "{}", ran.err);
}

/// The last thing asked for was the report: that it is lost must not look like a success.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_report_that_cannot_be_written_is_an_error() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = command(["--limit", "1", "--fault-rate", "0", "--summary", "json"]);
    let child = command.stdout(full).spawn().unwrap();
    let ran = finish(child.wait_with_output()).await;
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert!(ran.err.contains("error: the report cannot be written to stdout: "), "{ran:#?}");
}

#[cfg(unix)]
#[tokio::test]
async fn a_request_to_terminate_stops_the_tree_in_order_as_ctrl_c_does() {
    let mut desk = Running::start(&["--summary", "json"]);
    desk.wait_for(" of 240 complaints").await;
    desk.signal("-TERM").await;
    let ran = desk.end().await;
    assert_eq!(ran.code, Some(130), "{ran:#?}");
    assert!(ran.err.contains("stopping the tree in order"), "{}", ran.err);
    ran.summary();
}

/// A server may take half a minute to say that it is there.
#[cfg(unix)]
#[tokio::test]
async fn ctrl_c_while_the_server_is_waited_for_ends_it_and_says_so() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", silent.local_addr().unwrap());
    let desk = Running::start(&["--model-url", &url, "--model", "m"]);
    let (_asked, _) = silent.accept().await.unwrap();
    desk.interrupt().await;
    let ran = desk.end().await;
    assert_eq!((ran.code, &*ran.out), (Some(130), ""), "{ran:#?}");
    assert!(ran.err.contains("nothing was worked on"), "{ran:#?}");
}
