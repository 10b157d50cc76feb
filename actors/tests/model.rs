//! The model endpoint against a server of ours: what is sent, how often, and what is made of it.

use std::time::{Duration, Instant};

use mainstay::fault::{Class, EffectState, Fault};
use mainstay_actors::chat::{ChatRequest, ResponseFormat};
use mainstay_actors::model::limits::RateLimits;
use mainstay_actors::model::{Model, TokenLimit};
use mainstay_actors::stub_server::{Row, StubServer};
use serde_json::json;

const KEY: &str = "sk-very-secret";

async fn ask(server: &StubServer) -> Result<String, Fault> {
    ask_within(server, Duration::MAX).await
}

async fn ask_within(server: &StubServer, left: Duration) -> Result<String, Fault> {
    let mut model = Model::openai(server.url(), "m").key(KEY);
    model.connect().unwrap();
    let reply = model.ask(&ChatRequest::from("hello"), left, 1).await?;
    Ok(reply.text)
}

#[tokio::test]
async fn one_attempt_is_one_request_with_the_key_in_its_header() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::reply("hi"));
    assert_eq!(ask(&server).await.unwrap(), "hi");
    let requests = server.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!((&*requests[0].method, &*requests[0].path), ("POST", "/v1/chat/completions"));
    assert_eq!(requests[0].header("authorization"), Some("Bearer sk-very-secret"));
    assert_eq!(requests[0].json()["messages"][0]["content"], "hello");
    assert_eq!(requests[0].json()["stream"], false);
}

#[tokio::test]
async fn no_failure_makes_the_client_ask_again() {
    let rows = [
        (Row::error(429, "rate_limit_exceeded", "x").header("retry-after", "0"), Class::RateLimit),
        (Row::error(500, "", "x"), Class::ServerTransient),
        (Row::error(503, "", "x").header("retry-after", "1"), Class::Overloaded),
        (Row::error(408, "", "x"), Class::Timeout),
        (Row::reset_after(), Class::Network),
        (Row::reply("long").cut_off(10), Class::Network),
        (Row::new(200, "<html>").header("content-type", "text/html"), Class::ServerTransient),
        (Row::new(200, "{}"), Class::OutputInvalid),
        (Row::new(200, r#"{"choices":[]}"#), Class::OutputInvalid),
        (Row::completion(serde_json::json!({"content": "a"}), "length"), Class::OutputInvalid),
        (
            Row::completion(serde_json::json!({"content": ""}), "content_filter"),
            Class::ContentFiltered,
        ),
        (Row::completion(serde_json::json!({"refusal": "no"}), "stop"), Class::ContentFiltered),
        (Row::error(200, "rate_limit_exceeded", "x"), Class::RateLimit),
    ];
    for (row, class) in rows {
        let server = StubServer::start().await.unwrap();
        server.then(row.clone());
        let fault = ask(&server).await.unwrap_err();
        assert_eq!(fault.class, class, "{row:?}: {fault:?}");
        assert_eq!(server.count(), 1, "{row:?}");
        assert_eq!(server.connections().len(), 1, "{row:?}");
    }
}

#[tokio::test]
async fn a_stream_that_nobody_asked_for_is_read_as_an_answer() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::reply_stream(["it ", "is"]));
    assert_eq!(ask(&server).await.unwrap(), "it is");
    let half = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"it\"}}]}\n\n";
    server.then(Row::new(200, half).header("content-type", "text/event-stream"));
    assert_eq!(ask(&server).await.unwrap_err().code.as_deref(), Some("stream_cut"));
    let refused = "data: {\"error\":{\"code\":\"rate_limit_exceeded\",\"message\":\"x\"}}\n\n";
    server.then(Row::new(200, refused).header("content-type", "text/event-stream"));
    assert_eq!(ask(&server).await.unwrap_err().class, Class::RateLimit);
    assert_eq!(server.count(), 3);
}

#[tokio::test]
async fn a_broken_connection_to_a_pure_endpoint_is_a_network_fault() {
    let server = StubServer::start().await.unwrap();
    for row in [Row::reset_before(), Row::reset_after(), Row::reply("x").cut_off(5)] {
        server.then(row);
        let fault = ask(&server).await.unwrap_err();
        assert_eq!(fault.class, Class::Network, "{fault:?}");
        assert_eq!(fault.code.as_deref(), Some("connection_reset"));
    }
}

#[tokio::test]
async fn a_refused_connection_shows_that_nothing_was_applied() {
    // A port that was just free, and is not listened on.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut model = Model::openai(format!("http://127.0.0.1:{port}/v1"), "m");
    model.connect().unwrap();
    let fault = model.ask(&"x".into(), Duration::MAX, 1).await.unwrap_err();
    assert_eq!((fault.class, fault.effect), (Class::Network, EffectState::NotApplied));
    assert_eq!(fault.code.as_deref(), Some("connection_refused"));
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_a_network_fault() {
    let mut model = Model::openai("http://no-such-host.invalid/v1", "m");
    model.connect().unwrap();
    let fault = model.ask(&"x".into(), Duration::from_secs(20), 1).await.unwrap_err();
    // Behind a proxy the proxy answers in its own words.
    if fault.class == Class::Network {
        assert_eq!(fault.effect, EffectState::NotApplied, "{fault:?}");
    }
}

#[tokio::test]
async fn the_deadline_bounds_an_answer_that_never_comes_and_one_that_trickles() {
    let server = StubServer::start().await.unwrap();
    for row in [Row::hang(), Row::reply("slow").slow(1, Duration::from_millis(50))] {
        server.then(row);
        let start = Instant::now();
        let fault = ask_within(&server, Duration::from_millis(200)).await.unwrap_err();
        assert_eq!(fault.class, Class::Timeout);
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn a_slow_answer_is_still_an_answer() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::reply("late").delay(Duration::from_millis(50)).slow(64, Duration::ZERO));
    assert_eq!(ask(&server).await.unwrap(), "late");
}

#[tokio::test]
async fn the_key_does_not_follow_a_redirect_to_another_origin() {
    let thief = StubServer::start().await.unwrap();
    let server = StubServer::start().await.unwrap();
    for status in [301, 302, 303, 307, 308] {
        let to = format!("{}/chat/completions", thief.url());
        server.then(Row::new(status, "").header("location", to));
        let fault = ask(&server).await.unwrap_err();
        assert_eq!(fault.class, Class::ModelUnavailable, "{status}");
        let host = thief.url().replace("/v1", "");
        let told = format!("the server redirects to {host}, which is not followed");
        assert_eq!(fault.message, told, "{status}");
    }
    // Of where it leads, nothing but the host: the rest may hold a secret.
    let to = "https://ada:hunter2@h.example/v1?key=sk-1";
    server.then(Row::new(301, "moved").header("location", to));
    let fault = ask(&server).await.unwrap_err();
    let told = "the server redirects to https://h.example, which is not followed: moved";
    assert_eq!(fault.message, told);
    assert_eq!(thief.connections().len(), 0);
}

#[tokio::test]
async fn a_redirect_within_the_origin_keeps_method_and_body() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::new(308, "").header("location", "/v2/chat/completions"));
    server.then(Row::reply("there"));
    assert_eq!(ask(&server).await.unwrap(), "there");
    let moved = &server.requests()[1];
    assert_eq!((&*moved.method, &*moved.path), ("POST", "/v2/chat/completions"));
    assert_eq!(moved.json()["messages"][0]["content"], "hello");
}

#[tokio::test]
async fn three_redirects_are_followed_and_a_fourth_is_told() {
    let server = StubServer::start().await.unwrap();
    let moved = |to: &str| Row::new(307, "").header("location", to);
    for step in ["/a", "/b?at=1", "c"] {
        server.then(moved(step));
    }
    server.then(Row::reply("there"));
    assert_eq!(ask(&server).await.unwrap(), "there");
    let seen = server.requests();
    let paths: Vec<_> = seen.iter().map(|request| &*request.path).collect();
    assert_eq!(paths, ["/v1/chat/completions", "/a", "/b?at=1", "/c"]);
    for request in &seen {
        // All of it, each time.
        assert_eq!(request.json(), seen[0].json());
        assert_eq!(request.header("authorization"), Some("Bearer sk-very-secret"));
        assert_eq!(request.header("host"), seen[0].header("host"));
    }
    for step in ["/a", "/b", "/c", "/d"] {
        server.then(moved(step));
    }
    let fault = ask(&server).await.unwrap_err();
    assert_eq!((fault.class, fault.code.as_deref()), (Class::ModelUnavailable, Some("307")));
    assert_eq!(server.count() - seen.len(), 4);
    // One that leads nowhere is the answer, too.
    for to in ["http://", "http://[", "mailto:desk@h.example"] {
        server.then(moved(to));
        let fault = ask(&server).await.unwrap_err();
        assert_eq!((fault.class, fault.code.as_deref()), (Class::ModelUnavailable, Some("307")));
    }
}

#[tokio::test]
async fn a_redirect_that_is_followed_has_no_time_of_its_own() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::new(307, "").header("location", "/v2"));
    server.then(Row::hang());
    let fault = ask_within(&server, Duration::from_millis(200)).await.unwrap_err();
    assert_eq!((fault.class, fault.code.as_deref()), (Class::Timeout, Some("deadline")));
    assert_eq!(server.count(), 2);
}

#[tokio::test]
async fn a_body_without_end_is_given_up_at_the_cap() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::new(200, vec![b' '; 11 * 1024 * 1024]));
    let fault = ask(&server).await.unwrap_err();
    assert_eq!(fault.code.as_deref(), Some("body_too_large"));
}

#[tokio::test]
async fn a_query_of_the_base_url_is_kept() {
    let server = StubServer::start().await.unwrap();
    let mut model = Model::openai(format!("{}/?api-version=1", server.url()), "m");
    model.connect().unwrap();
    model.ask(&"x".into(), Duration::MAX, 1).await.unwrap();
    assert_eq!(server.requests()[0].path, "/v1/chat/completions?api-version=1");
    assert_eq!(server.requests()[0].header("authorization"), None);
}

#[tokio::test]
async fn the_wait_that_was_asked_for_is_passed_on() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::error(429, "rate_limit_exceeded", "x").header("retry-after-ms", "1500"));
    let fault = ask(&server).await.unwrap_err();
    assert_eq!(fault.retry_after, Some(Duration::from_millis(1500)));
}

#[tokio::test]
async fn a_key_is_never_shown() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::error(401, "invalid_api_key", "Incorrect API key provided: sk-very-secret."));
    let mut model = Model::openai(format!("{}?token=sk-very-secret", server.url()), "m").key(KEY);
    model.connect().unwrap();
    let fault = model.ask(&"x".into(), Duration::MAX, 1).await.unwrap_err();
    assert_eq!(fault.class, Class::Permission);
    assert!(fault.message.contains("[key]"));
    for text in [format!("{model:?}"), format!("{fault:?}"), format!("{fault} {:?}", fault.source)]
    {
        assert!(!text.contains(KEY), "{text}");
    }
    // A failure below HTTP names no URL.
    let mut gone = Model::openai("http://127.0.0.1:1/v1?token=sk-very-secret", "m");
    gone.connect().unwrap();
    let fault = gone.ask(&"x".into(), Duration::MAX, 1).await.unwrap_err();
    assert!(!format!("{fault:?} {:?}", fault.source).contains(KEY));
}

#[tokio::test]
async fn a_key_that_is_not_set_fails_the_start_and_names_the_variable() {
    let mut model = Model::openai("http://127.0.0.1:1", "m").key_env("MAINSTAY_NO_SUCH_KEY");
    let fault = model.connect().unwrap_err();
    assert_eq!(fault.class, Class::Permission);
    assert!(fault.message.contains("MAINSTAY_NO_SUCH_KEY"));
    let fault = Model::openai("ftp://x", "m").connect().unwrap_err();
    assert_eq!(fault.class, Class::InputValidation);
    let fault = Model::openai("http://127.0.0.1:1", "m").key("a\nb").connect().unwrap_err();
    assert!(!fault.message.contains("a\nb"));
}

#[tokio::test]
async fn a_second_500_of_ollama_means_that_the_model_cannot_answer() {
    let server = StubServer::start().await.unwrap();
    let mut model = Model::ollama(server.url(), "m");
    model.connect().unwrap();
    let text = "llama runner process has terminated";
    let native = format!(r#"{{"error":"{text}"}}"#);
    let compatible = format!(
        r#"{{"error":{{"message":"{text}","type":"api_error","param":null,"code":null}}}}"#
    );
    // Another status may be mended by waiting.
    for (status, body, second) in [
        (500, &native, Class::ModelUnavailable),
        (500, &compatible, Class::ModelUnavailable),
        (502, &compatible, Class::ServerTransient),
    ] {
        server.otherwise(Row::new(status, body.as_str()));
        for (attempt, class) in [(1, Class::ServerTransient), (2, second)] {
            let fault = model.ask(&"x".into(), Duration::MAX, attempt).await.unwrap_err();
            assert_eq!(fault.class, class, "{status} {body}");
        }
    }
}

#[tokio::test]
async fn what_was_never_sent_does_not_count_against_the_rate_limits() {
    let limits =
        RateLimits::new().requests_per_minute(1).tokens_per_minute(100).max_wait(Duration::ZERO);
    let mut model = Model::openai("http://127.0.0.1:1/v1", "m").limits(limits);
    model.connect().unwrap();
    for _ in 0..3 {
        let fault = model.ask(&"x".into(), Duration::MAX, 1).await.unwrap_err();
        assert_eq!(fault.code.as_deref(), Some("connection_refused"));
    }
}

#[tokio::test]
async fn the_answer_that_is_always_asked_of_anthropic_counts_before_it_is_there() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::hang());
    let limits = RateLimits::new().tokens_per_minute(5000).max_wait(Duration::ZERO);
    let mut model = Model::anthropic(server.url(), "m").limits(limits);
    model.connect().unwrap();
    let (first, second) = (model.clone(), model);
    let first = tokio::spawn(async move { first.ask(&"x".into(), Duration::MAX, 1).await });
    server.asked(1).await;
    let fault = second.ask(&"x".into(), Duration::MAX, 1).await.unwrap_err();
    assert_eq!((fault.code.as_deref(), server.count()), (Some("local_limit"), 1));
    first.abort();
}

#[tokio::test]
async fn a_schema_that_leaves_fields_open_is_asked_for_without_being_enforced_and_json_all_the_same()
 {
    let server = StubServer::start().await.unwrap();
    let url = server.url();
    let models: [(Model, &str); 3] = [
        (Model::openai(url, "m"), "/response_format/json_schema/strict"),
        (Model::responses(url, "m"), "/text/format/strict"),
        (Model::anthropic(url, "m"), "/output_config"),
    ];
    let schema = |required: &[&str], more: bool| {
        json!({"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}},
            "required": required, "additionalProperties": more}})
    };
    for (mut model, place) in models {
        model.connect().unwrap();
        let is_claude = place == "/output_config";
        for (schema, enforced) in [
            (schema(&["a"], false), true),
            (schema(&["a"], true), false),
            // Anthropic lets fields be left out.
            (schema(&[], false), is_claude),
        ] {
            server.then(Row::new(400, "{}"));
            let request = ChatRequest::from("x").json_schema("answer", schema.clone());
            let _ = model.ask(&request, Duration::MAX, 1).await;
            let sent = server.requests().pop().unwrap().json();
            let found = sent.pointer(place).is_some_and(|value| *value != false);
            assert_eq!(found, enforced, "{sent}");
            let told = sent["system"].as_str().is_some_and(|text| text.contains("properties"));
            assert_eq!(told, is_claude && !enforced, "{sent}");
        }
    }
    let mut model = Model::openai(server.url(), "m");
    model.connect().unwrap();
    server.then(Row::reply("certainly"));
    let request = ChatRequest::from("x").json_schema("answer", schema(&[], true));
    let fault = model.ask(&request, Duration::MAX, 1).await.unwrap_err();
    assert_eq!(fault.code.as_deref(), Some("bad_json"));
}

#[tokio::test]
async fn an_answer_that_is_not_of_the_schema_that_was_asked_for_is_no_answer() {
    let server = StubServer::start().await.unwrap();
    let schema =
        json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
    let request = ChatRequest::from("x").json_schema("answer", schema);
    for structured in [true, false] {
        let mut model = Model::openai(server.url(), "m").structured_output(structured);
        model.connect().unwrap();
        for (said, wrong) in [
            (r#"{"n": 1}"#, ""),
            (r#"{"n": "one"}"#, "integer"),
            ("{}", "\"n\""),
            ("[1]", "object"),
        ] {
            server.then(Row::reply(said));
            let reply = model.ask(&request, Duration::MAX, 1).await;
            let Some(fault) = reply.as_ref().err() else {
                assert!(wrong.is_empty(), "{said}");
                continue;
            };
            let message = fault.message.to_string();
            assert!(!wrong.is_empty() && message.contains(wrong), "{said}: {message}");
            assert_eq!(
                (fault.class, fault.code.as_deref()),
                (Class::OutputInvalid, Some("bad_json"))
            );
            assert!(!message.contains("one"), "the text is the user's: {message}");
        }
    }
}

#[tokio::test]
async fn json_of_any_shape_is_asked_for_by_its_name() {
    let server = StubServer::start().await.unwrap();
    let url = server.url();
    for (mut model, place) in
        [(Model::openai(url, "m"), "messages"), (Model::responses(url, "m"), "input")]
    {
        model.connect().unwrap();
        for (asked, messages) in [("how many?", 2), ("how many, as json?", 1)] {
            server.then(Row::new(400, "{}"));
            let request = ChatRequest::from(asked).response_format(ResponseFormat::Json);
            let _ = model.ask(&request, Duration::MAX, 1).await;
            let sent = server.requests().pop().unwrap().json();
            let told = sent[place].as_array().unwrap();
            assert_eq!(told.len(), messages, "{sent}");
            assert!(sent[place].to_string().to_lowercase().contains("json"), "{sent}");
            assert!(sent.to_string().contains("json_object"), "{sent}");
        }
    }
}

#[tokio::test]
async fn a_client_that_was_not_connected_says_so() {
    let fault = Model::openai("http://x", "m").ask(&"x".into(), Duration::MAX, 1).await;
    assert_eq!(fault.unwrap_err().class, Class::Internal);
}

#[tokio::test]
async fn a_name_and_a_password_in_the_base_url_go_with_every_request_and_are_shown_to_nobody() {
    let server = StubServer::start().await.unwrap();
    let url = server.url().replace("http://", "http://desk:hunter%402-hunter@");
    let mut model = Model::openai(&url, "m");
    model.connect().unwrap();
    model.ask(&ChatRequest::from("hello"), Duration::MAX, 1).await.unwrap();
    // `desk:hunter@2-hunter`
    let header = "Basic ZGVzazpodW50ZXJAMi1odW50ZXI=";
    assert_eq!(server.requests()[0].header("authorization"), Some(header));
    server.then(Row::error(401, "", &format!("not you: {header}")));
    let fault = model.ask(&ChatRequest::from("hello"), Duration::MAX, 1).await.unwrap_err();
    assert!(!fault.message.contains("ZGVzazpodW50"), "{}", fault.message);
    // Where the key goes into the same header, it is the key.
    let mut keyed = Model::openai(&url, "m").key(KEY);
    keyed.connect().unwrap();
    keyed.ask(&ChatRequest::from("hello"), Duration::MAX, 1).await.unwrap();
    assert_eq!(server.requests()[2].header("authorization"), Some("Bearer sk-very-secret"));
}

#[tokio::test]
async fn a_schema_that_need_not_be_enforced_is_told_in_words_where_it_can_only_be_enforced() {
    let server = StubServer::start().await.unwrap();
    let said = json!({"content": [{"type": "text", "text": "no JSON"}], "stop_reason": "end_turn"});
    server.otherwise(Row::new(200, said.to_string()));
    let mut model = Model::anthropic(server.url(), "m");
    model.connect().unwrap();
    for strict in [false, true] {
        let format = ResponseFormat::Schema {
            name: "answer".into(),
            schema: json!({"type": "object", "additionalProperties": false}).to_string(),
            strict,
        };
        let request = ChatRequest::from("hello").response_format(format);
        let reply = model.ask(&request, Duration::MAX, 1).await;
        // A wish that is not met is for whoever wishes to find out.
        assert_eq!(reply.is_ok(), !strict, "{reply:?}");
        let sent = server.requests().pop().unwrap().json();
        assert_eq!(sent.get("output_config").is_some(), strict, "{sent}");
        let told = sent["system"].as_str().is_some_and(|text| text.contains("\"object\""));
        assert_eq!(told, !strict, "{sent}");
    }
}

#[tokio::test]
async fn the_token_limit_has_the_name_that_is_chosen() {
    let server = StubServer::start().await.unwrap();
    let request = ChatRequest::from("hello").max_tokens(7);
    for (name, expected) in [
        (None, "max_tokens"),
        (Some(TokenLimit::MaxTokens), "max_tokens"),
        (Some(TokenLimit::MaxCompletionTokens), "max_completion_tokens"),
    ] {
        let model = Model::openai(server.url(), "m");
        let mut model = name.into_iter().fold(model, Model::token_limit);
        model.connect().unwrap();
        model.ask(&request, Duration::MAX, 1).await.unwrap();
        let sent = server.requests().pop().unwrap().json();
        for name in ["max_tokens", "max_completion_tokens"] {
            assert_eq!(sent.get(name).is_some(), name == expected, "{sent}");
        }
    }
}

#[tokio::test]
async fn more_headers_go_with_every_request_and_their_secrets_are_shown_to_nobody() {
    let server = StubServer::start().await.unwrap();
    // The folder of the package: long enough for a secret, and set by whoever runs this.
    const VARIABLE: &str = "CARGO_MANIFEST_DIR";
    let hidden = std::env::var(VARIABLE).unwrap();
    let mut model = Model::openai(server.url(), "m")
        .key(KEY)
        .header("X-Team", "a-team-of-no-secret")
        .header("Authorization", "Basic instead-of-the-key")
        .header_env("X-Place", VARIABLE);
    model.connect().unwrap();
    server.then(Row::reply(&format!("a-team-of-no-secret {hidden} instead-of-the-key")));
    let reply = model.ask(&ChatRequest::from("hello"), Duration::MAX, 1).await.unwrap();
    assert_eq!(reply.text, "a-team-of-no-secret [key] [key]");
    let sent = &server.requests()[0];
    assert_eq!(sent.header("x-team"), Some("a-team-of-no-secret"));
    assert_eq!(sent.header("x-place"), Some(&*hidden));
    assert_eq!(sent.header("authorization"), Some("Basic instead-of-the-key"));
    server.then(Row::error(401, "", &format!("not {hidden} with instead-of-the-key")));
    let fault = model.ask(&ChatRequest::from("hello"), Duration::MAX, 1).await.unwrap_err();
    assert_eq!(fault.message.matches("[key]").count(), 2, "{fault}");
    for text in [format!("{model:?}"), format!("{fault:?} {:?}", fault.source)] {
        assert!(!text.contains(&hidden) && !text.contains("instead-of"), "{text}");
    }
    // They follow a key no further than it goes.
    let other = StubServer::start().await.unwrap();
    server.then(Row::new(307, "").header("location", other.url()));
    model.ask(&ChatRequest::from("hello"), Duration::MAX, 1).await.unwrap_err();
    assert_eq!(other.count(), 0);
    for (name, value) in [("content-length", "1"), ("Host", "x"), ("a b", "x"), ("x-a", "a\nb")] {
        let fault = Model::openai(server.url(), "m").header(name, value).connect().unwrap_err();
        assert_eq!(fault.code.as_deref(), Some("bad_header"), "{name}");
    }
    let fault = Model::openai(server.url(), "m").header_env("x", "MAINSTAY_NONE").connect();
    let fault = fault.unwrap_err();
    assert!(fault.class == Class::Permission && fault.message.contains("MAINSTAY_NONE"), "{fault}");
}

#[tokio::test]
async fn a_prompt_without_room_in_the_window_is_not_sent_and_ollama_is_told_the_window() {
    let server = StubServer::start().await.unwrap();
    let said = json!({"message": {"role": "assistant", "content": "hi"}, "done": true});
    server.otherwise(Row::new(200, said.to_string()));
    let mut model = Model::ollama_native(server.url(), "m");
    model.connect().unwrap();
    model.ask(&ChatRequest::from("hello"), Duration::MAX, 1).await.unwrap();
    let mut model = model.context_window(200);
    model.connect().unwrap();
    model.ask(&ChatRequest::from("hello"), Duration::MAX, 1).await.unwrap();
    let windows: Vec<_> =
        server.requests().iter().map(|it| it.json().pointer("/options/num_ctx").cloned()).collect();
    assert_eq!(windows, [None, Some(json!(200))]);
    let long = ChatRequest::from("x".repeat(1200));
    let fault = model.ask(&long, Duration::MAX, 1).await.unwrap_err();
    assert_eq!((fault.class, fault.effect), (Class::ContextLength, EffectState::NotApplied));
    assert_eq!((fault.code.as_deref(), server.count()), (Some("context_window"), 2));
}

#[tokio::test]
async fn where_a_provider_has_no_structured_output_the_model_is_told_in_words() {
    let server = StubServer::start().await.unwrap();
    let mut model = Model::openai(server.url(), "m").structured_output(false);
    model.connect().unwrap();
    let schema = json!({"type": "object", "title": "mine"});
    for (request, told) in [
        (ChatRequest::from("hello").response_format(ResponseFormat::Json), "one JSON value"),
        (ChatRequest::from("hello").json_schema("answer", schema.clone()), "\"mine\""),
        (ChatRequest::from("hello").system("Be kind.").json_schema("answer", schema), "\"mine\""),
    ] {
        server.then(Row::reply("{}"));
        model.ask(&request, Duration::MAX, 1).await.unwrap();
        let sent = server.requests().pop().unwrap().json();
        assert_eq!(sent.get("response_format"), None);
        let messages = sent["messages"].as_array().unwrap();
        assert_eq!((messages.len(), &messages[0]["role"]), (2, &json!("system")));
        assert!(messages[0]["content"].as_str().unwrap().contains(told), "{sent}");
        // It is looked at as ever.
        server.then(Row::reply("certainly"));
        let fault = model.ask(&request, Duration::MAX, 1).await.unwrap_err();
        assert_eq!(fault.code.as_deref(), Some("bad_json"));
    }
}
