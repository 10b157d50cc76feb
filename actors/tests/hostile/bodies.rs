//! Answers that are none, in every wire format, asked for whole and as a stream: what becomes of them, and
//! that a key goes nowhere with them.

use std::time::Duration;

use mainstay::fault::{Class, EffectState};
use mainstay_actors::chat::stream::{StreamEvent, open};
use mainstay_actors::chat::{ChatRequest, Message, ToolCall, ToolSpec};
use mainstay_actors::stub_server::{Row, StreamEnd, StubServer};
use serde_json::{Value, json};

use crate::wires::{KEY, LONG, WIRES, Wire, ask, connected, fault, hear, said, what};

/// The most that is read of a body.
const MOST: usize = 10 * 1024 * 1024;

/// An answer of the server, and what is made of it when it is asked for whole and as a stream.
type Case = (&'static str, Row, (Class, &'static str), (Class, &'static str));

const NOT_JSON: (Class, &str) = (Class::ServerTransient, "not_json");
const CUT: (Class, &str) = (Class::Network, "stream_cut");

fn row(kind: &str, body: impl Into<Vec<u8>>) -> Row {
    Row::new(200, body).header("content-type", kind)
}

fn cases(wire: Wire) -> Vec<Case> {
    let page = "<!doctype html>\n<html><title>Sign in</title>\ndata of yours: none\n</html>";
    let (error, class) = wire.error();
    let code: &'static str = match wire {
        Wire::Chat => "overloaded",
        Wire::Responses => "rate_limit_exceeded",
        Wire::Anthropic => "overloaded_error",
        Wire::Gemini => "RESOURCE_EXHAUSTED",
        Wire::Ollama => "200",
    };
    let reported = (class, code);
    let listed = format!("[{error}]");
    let pretty = serde_json::to_string_pretty(&error).unwrap().replace('\n', "\r\n");
    let error = error.to_string();
    let whole = wire.whole("hello").to_string();
    let half = whole[..whole.len() / 2].to_owned();
    let packed =
        |kind: &str| row(kind, *b"\x1f\x8b\x08\x00\xff\nx").header("content-encoding", "gzip");
    let right = wire.content_type();
    // Lines have no names that could tell one that is meant from any other.
    let no_frame = if wire.is_lines() { (Class::ServerTransient, "bad_frame") } else { CUT };
    let mut cases: Vec<Case> = vec![
        ("a page", row("text/html; charset=utf-8", page), NOT_JSON, NOT_JSON),
        ("a page under the right name", row(right, page), NOT_JSON, no_frame),
        ("a page as text", row("text/plain", page), NOT_JSON, no_frame),
        ("an error", row("application/json", &*error), reported, reported),
        ("an error as a stream", row(right, &*error), reported, reported),
        ("an error over several lines", row(right, &*pretty), reported, reported),
        ("an error as text", row("text/plain; charset=utf-8", &*error), reported, reported),
        ("an error without a name", row("", &*error), reported, reported),
        (
            "an error with a mark",
            row("application/json", format!("\u{feff}{error}")),
            reported,
            reported,
        ),
        ("nothing", row("application/json", ""), NOT_JSON, NOT_JSON),
        ("nothing as a stream", row(right, ""), NOT_JSON, CUT),
        ("no content", Row::new(204, ""), NOT_JSON, NOT_JSON),
        ("half an answer", row("application/json", &*half), NOT_JSON, NOT_JSON),
        ("half an answer as a stream", row(right, &*half), NOT_JSON, CUT),
        ("packed", packed("application/json"), NOT_JSON, NOT_JSON),
        ("a packed stream", packed(right), NOT_JSON, NOT_JSON),
        ("a bad letter", row("application/json", *b"{\"a\":\"\xff\"}"), NOT_JSON, NOT_JSON),
    ];
    // The one that reports nothing in a field of that name.
    if wire != Wire::Responses {
        cases.push(("an error in a list", row("application/json", &*listed), reported, reported));
    }
    cases
}

#[tokio::test]
async fn an_answer_that_is_none_is_judged_by_what_it_is_in_every_wire() {
    let server = StubServer::start().await.unwrap();
    for wire in WIRES {
        let model = wire.model(server.url());
        for (case, row, whole, streamed) in cases(wire) {
            server.then(row.clone());
            let found = ask(&model).await;
            assert_eq!(what(&found), Some(whole), "{wire:?}, {case}, whole: {found:?}");
            server.then(row);
            let (found, heard) = hear(&model).await;
            assert_eq!(what(&found), Some(streamed), "{wire:?}, {case}, streamed: {found:?}");
            assert_eq!(heard, [], "{wire:?}, {case}");
            if case.contains("packed") {
                assert!(fault(&found).unwrap().message.contains("gzip"), "{found:?}");
            }
        }
    }
    // Nor was it asked for.
    assert!(server.requests().iter().all(|request| request.header("accept-encoding").is_none()));
}

#[tokio::test]
async fn a_good_answer_is_one_whatever_it_is_called_in_every_wire() {
    let server = StubServer::start().await.unwrap();
    for wire in WIRES {
        let model = wire.model(server.url());
        let body = wire.whole("h\u{e9}llo").to_string();
        for kind in ["application/json", "text/html", "", "text/plain", wire.content_type()] {
            for body in [body.clone(), format!("\u{feff}{body}")] {
                server.then(row(kind, body.clone()));
                assert_eq!(ask(&model).await.unwrap().text, "h\u{e9}llo", "{wire:?}, {kind}");
                server.then(row(kind, body));
                let (reply, heard) = hear(&model).await;
                assert_eq!(reply.unwrap().text, "h\u{e9}llo", "{wire:?}, {kind}");
                assert_eq!(said(&heard), "h\u{e9}llo", "{wire:?}, {kind}");
            }
        }
    }
}

#[tokio::test]
async fn no_beginning_of_a_whole_answer_is_taken_for_it_in_any_wire() {
    let server = StubServer::start().await.unwrap();
    for wire in WIRES {
        let model = wire.model(server.url());
        let body = wire.whole("h\u{e9}llo").to_string();
        for cut in (0..body.len()).step_by(5) {
            let part = &body.as_bytes()[..cut];
            server.then(Row::new(200, part));
            assert_eq!(what(&ask(&model).await), Some(NOT_JSON), "{wire:?}, {cut}");
            // The same with its length announced: then it is the connection that broke.
            server.then(Row::new(200, body.clone()).cut_off(cut));
            let found = ask(&model).await;
            let expected = (Class::Network, "connection_reset");
            assert_eq!(what(&found), Some(expected), "{wire:?}, {cut}");
            assert_eq!(fault(&found).unwrap().effect, EffectState::Unstated);
        }
    }
}

#[tokio::test]
async fn a_stream_that_is_called_json_is_heard_as_one_in_every_wire() {
    let server = StubServer::start().await.unwrap();
    for wire in WIRES {
        let model = wire.model(server.url());
        let body = wire.all_written(&wire.frames(&["hel", "lo"]));
        for streamed in [true, false] {
            server.then(row("application/json; charset=utf-8", body.clone()));
            let found = if streamed { hear(&model).await.0 } else { ask(&model).await };
            assert_eq!(found.unwrap().text, "hello", "{wire:?}, {streamed}");
        }
        // Half of one is none.
        let half = wire.all_written(&[wire.begin(), vec![wire.text("hel")]].concat());
        server.then(row("application/json", half));
        let (found, _) = hear(&model).await;
        assert_eq!(what(&found), Some((Class::Network, "stream_cut")), "{wire:?}");
        // Nor is a whole answer, on one line or on several.
        for body in [wire.whole("hello").to_string(), format!("{:#}", wire.whole("hello"))] {
            server.then(row("application/json", body));
            assert_eq!(hear(&model).await.0.unwrap().text, "hello", "{wire:?}");
        }
    }
    // Ollama's lines are heard as they come.
    let wire = Wire::Ollama;
    let begun = wire.written(&wire.text("hel"));
    let row = Row::stream([begun]).header("content-type", "application/json");
    server.then(row.end_after(1, StreamEnd::Reset));
    let (found, heard) = hear(&wire.model(server.url())).await;
    assert_eq!((what(&found), &*said(&heard)), (Some((Class::Network, "connection_reset")), "hel"));
}

#[tokio::test]
async fn ten_megabytes_are_read_and_more_are_not_in_any_wire() {
    let server = StubServer::start().await.unwrap();
    let too_large = Some((Class::OutputInvalid, "body_too_large"));
    for wire in WIRES {
        let model = wire.model(server.url());
        let mut body = wire.whole("hello").to_string().into_bytes();
        body.resize(MOST, b' ');
        server.then(row("application/json", body.clone()));
        assert_eq!(ask(&model).await.unwrap().text, "hello", "{wire:?}");
        body.push(b' ');
        for streamed in [false, true] {
            server.then(row("application/json", body.clone()));
            let found = if streamed { hear(&model).await.0 } else { ask(&model).await };
            assert_eq!(what(&found), too_large, "{wire:?}");
        }
        // In frames of an honest size, which say nothing.
        let idle = wire.written(&format!("{{\"x\":\"{}\"}}", "x".repeat(900 * 1024)));
        let mut pieces = vec![wire.all_written(&wire.begin()), wire.written(&wire.text("hello"))];
        pieces.resize(14, idle);
        server.then(wire.row(pieces));
        let (found, heard) = hear(&model).await;
        assert_eq!(what(&found), too_large, "{wire:?}");
        assert_eq!((&*said(&heard), found.is_ok()), ("hello", true), "{wire:?}");
    }
}

#[tokio::test]
async fn an_error_is_what_its_status_says_whatever_becomes_of_its_text() {
    let server = StubServer::start().await.unwrap();
    let model = WIRES[0].model(server.url());
    let (limited, refused) = ((Class::RateLimit, "429"), (Class::Permission, "401"));
    let down = (Class::ServerTransient, "500");
    let page = "<html>too many".repeat(20);
    let rows = [
        (Row::new(429, page.clone()).header("retry-after", "120").cut_off(100), limited),
        (Row::new(429, page.clone()).header("retry-after", "120").cut_off(0), limited),
        (Row::new(401, page.clone()).cut_off(100), refused),
        // It does not end for an hour.
        (Row::new(500, page).slow(100, Duration::from_secs(3600)), down),
        (Row::new(500, vec![b'x'; MOST + 1]), down),
    ];
    for (row, expected) in rows {
        server.then(row.clone());
        let found = ask(&model).await;
        assert_eq!(what(&found), Some(expected), "{expected:?}");
        let wait = (expected == limited).then_some(Duration::from_secs(120));
        assert_eq!(fault(&found).unwrap().retry_after, wait, "{expected:?}");
        server.then(row);
        let (found, heard) = hear(&model).await;
        assert_eq!((what(&found), heard.is_empty()), (Some(expected), true));
    }
}

#[tokio::test]
async fn a_field_of_another_type_is_a_fault_that_names_it_in_every_wire() {
    let server = StubServer::start().await.unwrap();
    // Where, in an answer and in a frame of a stream, and what stands there.
    let cases: [(Wire, &[&str], &[&str]); 5] = [
        (
            Wire::Chat,
            &[
                "/model",
                "/choices/0/message",
                "/choices/0/message/content",
                "/choices/0/message/tool_calls",
                "/choices/0/finish_reason",
            ],
            &[
                "/choices",
                "/choices/0/delta",
                "/choices/0/delta/content",
                "/choices/0/finish_reason",
            ],
        ),
        (
            Wire::Responses,
            &[
                "/model",
                "/status",
                "/output/0/type",
                "/output/0/content",
                "/output/0/content/0/text",
            ],
            &["/type", "/delta", "/output_index"],
        ),
        (
            Wire::Anthropic,
            &["/model", "/stop_reason", "/content/0/type", "/content/0/text"],
            &["/type", "/index", "/delta", "/delta/type", "/delta/text"],
        ),
        (
            Wire::Gemini,
            &[
                "/modelVersion",
                "/candidates/0/finishReason",
                "/candidates/0/content",
                "/candidates/0/content/parts",
                "/candidates/0/content/parts/0/text",
            ],
            &["/candidates", "/candidates/0/content/parts", "/candidates/0/content/parts/0/text"],
        ),
        (
            Wire::Ollama,
            &["/model", "/done", "/done_reason", "/message", "/message/content"],
            &["/model", "/done", "/message", "/message/content", "/message/tool_calls"],
        ),
    ];
    for (wire, whole, frame) in cases {
        let model = wire.model(server.url());
        let wrong = |mut value: Value, place: &str| {
            let (holder, field) = place.rsplit_once('/').unwrap();
            value.pointer_mut(holder).unwrap()[field] = json!(7.5);
            value
        };
        for place in whole {
            server.then(Row::new(200, wrong(wire.whole("hello"), place).to_string()));
            let found = ask(&model).await;
            named(
                wire,
                place,
                fault(&found).unwrap_or_else(|| panic!("{wire:?}, {place}: {found:?}")),
            );
        }
        for place in frame {
            let text: Value = serde_json::from_str(&wire.text("hello")).unwrap();
            let mut frames = wire.begin();
            frames.push(wrong(text, place).to_string());
            frames.extend(wire.stop());
            frames.extend(wire.last());
            server.then(wire.row([wire.all_written(&frames)]));
            let (found, heard) = hear(&model).await;
            assert_eq!(heard, [], "{wire:?}, {place}");
            named(
                wire,
                place,
                fault(&found).unwrap_or_else(|| panic!("{wire:?}, {place}: {found:?}")),
            );
        }
    }
}

fn named(wire: Wire, place: &str, fault: &mainstay::fault::Fault) {
    assert_eq!((fault.class, fault.code.as_deref()), (Class::OutputInvalid, Some("bad_shape")));
    let field = place.rsplit('/').next().unwrap();
    assert!(fault.message.contains(field), "{wire:?}, {place}: {}", fault.message);
}

#[tokio::test]
async fn an_answer_that_says_itself_that_it_is_not_over_is_no_answer() {
    let server = StubServer::start().await.unwrap();
    let cases = [
        (Wire::Responses, "/status", json!("in_progress")),
        (Wire::Responses, "/status", json!("queued")),
        (Wire::Ollama, "/done", json!(false)),
    ];
    for (wire, place, value) in cases {
        let model = wire.model(server.url());
        let mut body = wire.whole("hel");
        *body.pointer_mut(place).unwrap() = value;
        for streamed in [false, true] {
            server.then(row("application/json", body.to_string()));
            let found = if streamed { hear(&model).await.0 } else { ask(&model).await };
            // A line that is not the last is the beginning of a stream where one was asked for.
            let is_begun = streamed && wire.is_lines();
            let expected = if is_begun { CUT } else { (Class::OutputInvalid, "bad_shape") };
            assert_eq!(what(&found), Some(expected), "{wire:?}");
        }
    }
    // The end of a stream is told by its name, too, and one that says nothing at all is no answer.
    for (wire, frame, expected) in [
        (
            Wire::Responses,
            r#"{"type":"response.incomplete","response":{}}"#,
            (Class::Unknown, "incomplete"),
        ),
        (
            Wire::Responses,
            r#"{"type":"response.failed","response":{}}"#,
            (Class::ServerTransient, "server_error"),
        ),
        (Wire::Chat, "[DONE]", (Class::OutputInvalid, "no_choice")),
        (Wire::Anthropic, "[DONE]", CUT),
        (Wire::Gemini, "[DONE]", CUT),
        (Wire::Gemini, r#"{"usageMetadata":{"promptTokenCount":3}}"#, CUT),
    ] {
        server.then(wire.row([wire.written(frame)]));
        let (found, heard) = hear(&wire.model(server.url())).await;
        assert_eq!((what(&found), heard.len()), (Some(expected), 0), "{wire:?}, {frame}");
    }
}

#[tokio::test]
async fn what_a_stream_of_responses_says_only_at_its_end_is_heard() {
    let server = StubServer::start().await.unwrap();
    let model = Wire::Responses.model(server.url());
    let output = json!([
        {"type": "message", "content": [{"type": "output_text", "text": "hello"}]},
        {"type": "function_call", "call_id": "c1", "name": "find", "arguments": "{}"},
    ]);
    let end = json!({"type": "response.completed", "response": {"output": output}}).to_string();
    for said_before in [None, Some(Wire::Responses.text("hello"))] {
        let frames: Vec<_> = said_before.into_iter().chain([end.clone()]).collect();
        server.then(Wire::Responses.row([Wire::Responses.all_written(&frames)]));
        let (reply, heard) = hear(&model).await;
        let reply = reply.unwrap();
        assert_eq!((&*reply.text, &*said(&heard), reply.tool_calls.len()), ("hello", "hello", 1));
    }
}

/// The names of the tools and of the calls that a request told.
fn names_told(wire: Wire, body: &Value) -> Vec<String> {
    let places: [&str; 2] = match wire {
        Wire::Chat | Wire::Ollama => ["/tools", "/messages/1/tool_calls"],
        Wire::Responses => ["/tools", "/input"],
        Wire::Anthropic => ["/tools", "/messages/1/content"],
        Wire::Gemini => ["/tools/0/functionDeclarations", "/contents/1/parts"],
    };
    let items = places.iter().flat_map(|place| body.pointer(place).unwrap().as_array().unwrap());
    let name = |item: &Value| {
        let holder = ["/function/name", "/functionCall/name", "/name"];
        let name = holder.iter().find_map(|place| item.pointer(place))?;
        name.as_str().map(str::to_owned)
    };
    items.filter_map(name).collect()
}

#[tokio::test]
async fn a_tool_is_told_by_a_name_that_providers_take_and_called_by_its_own_in_every_wire() {
    let server = StubServer::start().await.unwrap();
    let odd = ["admin.tools.list", "x/y", "get weather", "\u{dc}n\u{ef}", &"q".repeat(80)]
        .map(str::to_owned);
    let request = odd
        .iter()
        .fold(ChatRequest::from("x"), |request, name| request.tool(ToolSpec::new(name.as_str())));
    let call = ToolCall { id: "c0".into(), name: odd[1].clone(), arguments: "{}".into() };
    let request = request
        .message(Message::tool_calls("", vec![call]))
        .message(Message::tool_result("c0", "done"));
    for wire in WIRES {
        let model = wire.model(server.url());
        server.then(row("application/json", wire.whole("hello").to_string()));
        model.ask(&request, LONG, 1).await.unwrap();
        let told = names_told(wire, &server.requests().last().unwrap().json());
        let fits = |name: &String| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
            (1..=64).contains(&name.len()) && name.bytes().all(plain)
        };
        assert!(told.len() == 6 && told.iter().all(fits), "{wire:?}: {told:?}");
        assert_eq!(told[5], told[1], "a call of before has the name that its tool has: {wire:?}");
        for (name, alias) in odd.iter().zip(&told) {
            let mut frames = wire.begin();
            frames.extend(wire.call(&["{}"]));
            frames.extend(wire.stop());
            let bytes = wire.all_written(&frames).replace("\"find\"", &format!("\"{alias}\""));
            server.then(wire.row([bytes]));
            let (sink, mut stream) = open(64);
            let reply = model.ask(&request.clone().stream_to(sink), LONG, 1).await.unwrap();
            assert_eq!(&reply.tool_calls[0].name, name, "{wire:?}");
            let expected = StreamEvent::ToolCall(reply.tool_calls[0].clone());
            assert_eq!(stream.next().await, Some(expected), "{wire:?}");
        }
    }
}

#[tokio::test]
async fn a_number_that_would_become_another_one_is_a_fault_in_every_wire_that_reads_arguments() {
    let server = StubServer::start().await.unwrap();
    for wire in WIRES {
        let model = wire.model(server.url());
        let frames = |number: &str| {
            let mut frames = wire.begin();
            frames.extend(wire.call(&["{\"account\":4711}"]));
            frames.extend(wire.stop());
            wire.all_written(&frames).replace("4711", number)
        };
        server.then(wire.row([frames("18446744073709551615")]));
        let reply = hear(&model).await.0.unwrap();
        assert!(reply.tool_calls[0].arguments.contains("18446744073709551615"), "{wire:?}");
        let long = "123456789012345678901234567890";
        server.then(wire.row([frames(long)]));
        match hear(&model).await.0 {
            // Where they come as a text they are what the model wrote.
            Ok(reply) => assert!(reply.tool_calls[0].arguments.contains(long), "{wire:?}"),
            Err(fault) => {
                let found = (fault.class, fault.code.as_deref());
                assert_eq!(found, (Class::OutputInvalid, Some("bad_shape")), "{wire:?}");
                assert!(fault.message.contains(long), "{wire:?}: {fault:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_connection_that_is_reset_is_a_network_fault_in_every_wire() {
    let server = StubServer::start().await.unwrap();
    for wire in WIRES {
        let model = wire.model(server.url());
        for streamed in [false, true] {
            for row in [Row::reset_before(), Row::reset_after(), Row::reply("x").cut_off(7)] {
                server.then(row.clone());
                let found = if streamed { hear(&model).await.0 } else { ask(&model).await };
                let fault = found.unwrap_err();
                let (class, code) = (fault.class, fault.code.as_deref());
                assert_eq!((class, code), (Class::Network, Some("connection_reset")), "{row:?}");
                // From here nobody can tell whether the request was read; that the endpoint is pure
                // is what makes it safe to ask again.
                assert_eq!(fault.effect, EffectState::Unstated, "{wire:?}, {row:?}");
            }
        }
        let gone = wire.model("http://127.0.0.1:1/v1");
        for found in [ask(&gone).await, hear(&gone).await.0] {
            let fault = found.unwrap_err();
            let found = (fault.class, fault.code.as_deref(), fault.effect);
            let expected = (Class::Network, Some("connection_refused"), EffectState::NotApplied);
            assert_eq!(found, expected, "{wire:?}");
            assert!(fault.message.contains("127.0.0.1:1 refused"), "{}", fault.message);
        }
    }
}

#[tokio::test]
async fn a_key_follows_no_redirect_and_is_shown_nowhere_however_a_wire_carries_it() {
    let thief = StubServer::start().await.unwrap();
    let server = StubServer::start().await.unwrap();
    let odd = "q/+ key=4711&0815 \u{e9}";
    let encoded = "q%2F%2B%20key%3D4711%260815%20%C3%A9";
    let in_url = format!("{}?key={encoded}", server.url().replace("//", "//user:pass-4711@"));
    for wire in WIRES {
        let model = connected(wire.bare(&in_url).key(KEY));
        let (name, value) = wire.key_header();
        for (number, status) in [301, 302, 303, 307, 308].into_iter().enumerate() {
            // Another port, the same machine by another name, and a scheme of its own.
            for to in [
                format!("{}/x?key={encoded}", thief.url()),
                thief.url().replace("127.0.0.1", "localhost"),
                format!("//{}/", thief.url().trim_start_matches("http://")),
                server.url().replace("http:", "https:"),
                "file:///etc/passwd".to_owned(),
            ] {
                // What came to it is told by the server, as it came and as it was meant.
                let body = format!("moved: {to} {encoded} {odd} {KEY} {in_url}");
                server.then(Row::new(status, body).header("location", to));
                let found = if number % 2 == 0 { ask(&model).await } else { hear(&model).await.0 };
                let fault = found.unwrap_err();
                assert_eq!(fault.class, Class::ModelUnavailable, "{wire:?}, {status}");
                let shown = format!("{fault} {fault:?} {:?} {model:?}", fault.source);
                for secret in [KEY, odd, encoded, "pass-4711", &KEY[3..15], &encoded[..20]] {
                    assert!(!shown.contains(secret), "{wire:?}, {secret}: {shown}");
                }
            }
        }
        let sent = server.requests();
        let sent = sent.last().unwrap();
        if wire.key_header().0 != "authorization" {
            assert_eq!(sent.header(name), Some(&*value), "{wire:?}");
        }
        assert!(sent.path.contains(encoded), "{wire:?}: {}", sent.path);
        // Within the origin it is followed, and what it was asked with is not told on the way.
        server.then(Row::new(307, "").header("location", "/elsewhere"));
        server.then(row("application/json", wire.whole("hello").to_string()));
        assert_eq!(
            ask(&wire.model(&format!("{}?key={encoded}", server.url()))).await.unwrap().text,
            "hello"
        );
        let sent = server.requests();
        let sent = sent.last().unwrap();
        assert_eq!((&*sent.path, sent.header("referer")), ("/elsewhere", None), "{wire:?}");
        assert_eq!(sent.header(name), Some(&*value), "{wire:?}");
    }
    assert_eq!(thief.connections().len(), 0);
    // In a circle within the origin it ends, too.
    server.otherwise(Row::new(307, "").header("location", "/v1/again"));
    for wire in WIRES {
        let before = server.count();
        ask(&wire.model(server.url())).await.unwrap_err();
        assert!((2..=5).contains(&(server.count() - before)), "{wire:?}");
    }
}
