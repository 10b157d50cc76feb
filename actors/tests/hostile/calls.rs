//! The calls of tools and their results, as the servers of each wire write and are told them.

use mainstay::fault::Fault;
use mainstay::spec::acting::Read;
use mainstay::spec::{GroupSpec, SupervisorSpec};
use mainstay::system::System;
use mainstay_actors::agent::{Agent, AgentReply, AgentRequest};
use mainstay_actors::chat::{ChatRequest, Message, ToolCall, ToolSpec};
use mainstay_actors::model::Model;
use mainstay_actors::stub_server::{Row, StubServer};
use mainstay_actors::tool::{ToolContext, tool};
use serde_json::{Value, json};

use crate::wires::{LONG, WIRES, Wire, hear};

fn call(id: &str, name: &str) -> ToolCall {
    ToolCall { id: id.into(), name: name.into(), arguments: "{}".into() }
}

/// Calls as a request tells them (name, id) and results (name, id, text). A format that has no ids, or no
/// names of results, has none here.
type Told = (Vec<(String, String)>, Vec<(String, String, String)>);

fn told(wire: Wire, body: &Value) -> Told {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        value => value.to_string(),
    };
    let (mut calls, mut results) = (Vec::new(), Vec::new());
    let messages = ["messages", "input", "contents"].iter().find_map(|key| body[*key].as_array());
    for message in messages.unwrap() {
        match wire {
            Wire::Chat | Wire::Ollama => {
                for call in message["tool_calls"].as_array().into_iter().flatten() {
                    calls.push((text(&call["function"]["name"]), text(&call["id"])));
                }
                if message["role"] == "tool" {
                    let of = (text(&message["tool_name"]), text(&message["tool_call_id"]));
                    results.push((of.0, of.1, text(&message["content"])));
                }
            }
            Wire::Responses => {
                let id = text(&message["call_id"]);
                match message["type"].as_str() {
                    Some("function_call") => calls.push((text(&message["name"]), id)),
                    Some("function_call_output") => {
                        results.push((String::new(), id, text(&message["output"])));
                    }
                    _ => {}
                }
            }
            Wire::Anthropic => {
                for block in message["content"].as_array().into_iter().flatten() {
                    if block["type"] == "tool_use" {
                        calls.push((text(&block["name"]), text(&block["id"])));
                    } else if block["type"] == "tool_result" {
                        let id = text(&block["tool_use_id"]);
                        results.push((String::new(), id, text(&block["content"])));
                    }
                }
            }
            Wire::Gemini => {
                for part in message["parts"].as_array().into_iter().flatten() {
                    if let Some(call) = part.get("functionCall") {
                        calls.push((text(&call["name"]), String::new()));
                    }
                    if let Some(result) = part.get("functionResponse") {
                        let said = text(&result["response"]["result"]);
                        results.push((text(&result["name"]), String::new(), said));
                    }
                }
            }
        }
    }
    (calls, results)
}

/// What this request is told to the server of a wire.
async fn sent(wire: Wire, request: &ChatRequest) -> Value {
    let server = StubServer::start().await.unwrap();
    server.then(Row::new(200, wire.whole("done").to_string()));
    wire.model(server.url()).ask(request, LONG, 1).await.unwrap();
    server.requests()[0].json()
}

#[tokio::test]
async fn a_result_belongs_to_its_own_call_where_ids_repeat_in_every_wire() {
    let request = ChatRequest::from("where is it?")
        .message(Message::tool_calls("", vec![call("call-0", "order"), call("call-1", "stock")]))
        .message(Message::tool_result("call-0", "lost"))
        .message(Message::tool_result("call-1", "none"))
        .message(Message::tool_calls("", vec![call("call-0", "faq"), call("call-0", "law")]))
        .message(Message::tool_result("call-0", "refund"))
        .message(Message::tool_result("call-0", "14 days"));
    for wire in WIRES {
        let (calls, results) = told(wire, &sent(wire, &request).await);
        let names: Vec<_> = calls.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["order", "stock", "faq", "law"], "{wire:?}");
        let said: Vec<_> = results.iter().map(|(.., said)| &**said).collect();
        assert_eq!(said, ["lost", "none", "refund", "14 days"], "{wire:?}");
        if matches!(wire, Wire::Gemini | Wire::Ollama) {
            let of: Vec<_> = results.iter().map(|(name, ..)| &**name).collect();
            assert_eq!(of, names, "{wire:?}");
        } else {
            // An id is the id of one call.
            let ids: Vec<_> = calls.iter().map(|(_, id)| id).collect();
            let of: Vec<_> = results.iter().map(|(_, id, _)| id).collect();
            assert_eq!(of, ids, "{wire:?}");
            let unlike: std::collections::HashSet<_> = ids.iter().collect();
            assert_eq!(unlike.len(), 4, "{wire:?}: {ids:?}");
        }
    }
}

#[tokio::test]
async fn an_agent_goes_on_at_another_provider_with_what_its_tools_have_said() {
    let (gemini, other) = (StubServer::start().await.unwrap(), StubServer::start().await.unwrap());
    let asks = |tool: &str, signature: &str| {
        Row::new(
            200,
            json!({"candidates": [{"finishReason": "STOP", "content": {"parts": [
            {"functionCall": {"name": tool, "args": {}}, "thoughtSignature": signature}]}}]})
            .to_string(),
        )
    };
    let signatures = ["c2ln/a+b=".repeat(60), "bmV4/d+c=".repeat(60)];
    gemini.then(asks("order", &signatures[0]));
    gemini.then(asks("faq", &signatures[1]));
    gemini.otherwise(Row::error(503, "", "busy"));
    other.then(Row::new(200, Wire::Anthropic.whole("done").to_string()));
    let says = |name: &'static str, said: &'static str| {
        tool(name, Read, move |_: Value, _: ToolContext| async move { Ok::<_, Fault>(said) })
    };
    let models = GroupSpec::model("llm")
        .member_spec(Model::gemini(gemini.url(), "m").spec("gemini"))
        .member_spec(Model::anthropic(other.url(), "m").spec("other"));
    let agent =
        Agent::new("llm").tool(ToolSpec::new("order"), "order").tool(ToolSpec::new("faq"), "faq");
    let root = SupervisorSpec::one_for_one("desk")
        .group(models)
        .child(says("order", "lost"))
        .child(says("faq", "refund"))
        .child(agent.spec("agent"));
    let system = System::start(root).await.unwrap();
    let port = system.port::<AgentRequest, AgentReply>("desk/agent").unwrap();
    assert_eq!(port.call("where is it?").await.unwrap().value.text, "done");
    let last = gemini.requests().last().unwrap().json();
    let (_, results) = told(Wire::Gemini, &last);
    let of: Vec<_> = results.iter().map(|(name, ..)| &**name).collect();
    assert_eq!(of, ["order", "faq"]);
    // Each call with its signature, which nobody else is shown.
    let shown = last.to_string();
    assert!(signatures.iter().all(|signature| shown.contains(signature)), "{shown}");
    let body = other.requests()[0].json();
    let (calls, results) = told(Wire::Anthropic, &body);
    let ids: Vec<_> = calls.iter().map(|(_, id)| id).collect();
    let of: Vec<_> = results.iter().map(|(_, id, _)| id).collect();
    assert_eq!(of, ids);
    assert_ne!(ids[0], ids[1]);
    assert!(!signatures.iter().any(|signature| body.to_string().contains(signature)), "{body}");
    system.stop().await;
}

#[tokio::test]
async fn a_call_is_put_together_whatever_its_pieces_are_called() {
    let piece = |id: &str, name: Option<&str>, arguments: &str| {
        let call = json!({"index": 0, "id": id, "type": "function",
                          "function": {"name": name, "arguments": arguments}});
        json!({"choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": null}]})
    };
    let written = [
        // Every piece has an id of its own.
        vec![
            piece("a1", Some("order"), ""),
            piece("a2", None, "{\"n\":"),
            piece("a3", Some(""), "1042}"),
        ],
        // Every call has the same number, and the pieces of two come by turns.
        vec![
            piece("a1", Some("order"), "{\"n\":"),
            piece("b1", Some("faq"), "{\"q\":"),
            piece("a1", None, "1042}"),
            piece("b1", None, "7}"),
        ],
    ];
    let server = StubServer::start().await.unwrap();
    let model = Wire::Chat.model(server.url());
    let expected = [
        &[("a1", "order", "{\"n\":1042}")][..],
        &[("a1", "order", "{\"n\":1042}"), ("b1", "faq", "{\"q\":7}")],
    ];
    for (pieces, expected) in written.into_iter().zip(expected) {
        let mut frames: Vec<_> = pieces.iter().map(Value::to_string).collect();
        frames.extend(Wire::Chat.stop());
        frames.extend(Wire::Chat.last());
        server.then(Wire::Chat.row([Wire::Chat.all_written(&frames)]));
        let calls = hear(&model).await.0.unwrap().tool_calls;
        let calls: Vec<_> =
            calls.iter().map(|call| (&*call.id, &*call.name, &*call.arguments)).collect();
        assert_eq!(calls, expected);
    }
}

#[tokio::test]
async fn calls_that_are_told_apart_by_nothing_but_their_ends_are_all_heard() {
    let wire = Wire::Chat;
    let server = StubServer::start().await.unwrap();
    // As Gemini's answers come through compatible endpoints: each whole, number 0 or none, and no id.
    for named in [
        json!({"index": 0, "id": "", "type": "function"}),
        json!({"index": 0, "id": null}),
        json!({"type": "function"}),
    ] {
        let piece = |name: &str, n: u32| {
            let mut call = named.clone();
            call["function"] = json!({"name": name, "arguments": format!("{{\"n\":{n}}}")});
            json!({"choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": null}]})
        };
        let mut frames: Vec<_> =
            [piece("order", 1), piece("order", 2), piece("faq", 3)].map(|it| it.to_string()).into();
        frames.extend(wire.stop());
        frames.extend(wire.last());
        server.then(wire.row([wire.all_written(&frames)]));
        let calls = hear(&wire.model(server.url())).await.0.unwrap().tool_calls;
        let said: Vec<_> = calls.iter().map(|call| (&*call.name, &*call.arguments)).collect();
        assert_eq!(said, [("order", "{\"n\":1}"), ("order", "{\"n\":2}"), ("faq", "{\"n\":3}")]);
        let ids: std::collections::HashSet<_> = calls.iter().map(|call| &call.id).collect();
        assert_eq!(ids.len(), 3, "{named}");
    }
}

#[tokio::test]
async fn a_call_that_only_the_last_frame_has_is_heard_and_none_twice() {
    let wire = Wire::Responses;
    let server = StubServer::start().await.unwrap();
    let item = |id: &str, name: &str| json!({"type": "function_call", "call_id": id, "name": name, "arguments": "{}"});
    let all = [item("a", "order"), item("b", "order"), item("c", "faq")];
    for told in [&all[..], &all[1..2], &[]] {
        let mut frames = vec![wire.text("I look.")];
        frames.extend(told.iter().enumerate().map(|(number, item)| {
            let done = "response.output_item.done";
            json!({"type": done, "output_index": number + 1, "item": item}).to_string()
        }));
        let mut end: Value = serde_json::from_str(&wire.stop()[0]).unwrap();
        end["response"]["output"] = all.to_vec().into();
        frames.push(end.to_string());
        server.then(wire.row([wire.all_written(&frames)]));
        let reply = hear(&wire.model(server.url())).await.0.unwrap();
        let ids: Vec<_> = reply.tool_calls.iter().map(|call| &*call.id).collect();
        assert_eq!((&*reply.text, ids), ("I look.", vec!["a", "b", "c"]));
    }
}

#[tokio::test]
async fn arguments_that_are_no_object_go_back_as_one_in_every_wire() {
    let with =
        |id: &str, arguments: &str| ToolCall { arguments: arguments.into(), ..call(id, "find") };
    let long = r#"{"b":123456789012345678901234567890,"a":1}"#;
    let request = ChatRequest::from("x")
        .message(Message::tool_calls(
            "",
            vec![with("c1", "{\"order\":"), with("c2", long), with("c3", "7"), with("c4", " ")],
        ))
        .message(Message::tool_result("c1", "no"));
    for (wire, place) in [
        (Wire::Chat, "/messages/1/tool_calls/0/function/arguments"),
        (Wire::Responses, "/input/1/arguments"),
    ] {
        let body = sent(wire, &request).await;
        let of = |nth: usize| {
            let place = match wire {
                Wire::Chat => place.replace("/0/", &format!("/{nth}/")),
                _ => place.replace("/1/", &format!("/{}/", nth + 1)),
            };
            body.pointer(&place).unwrap().as_str().unwrap().to_owned()
        };
        assert_eq!(serde_json::from_str::<Value>(&of(0)).unwrap(), json!({"value": "{\"order\":"}));
        // What is one goes back as it was written.
        assert_eq!(of(1), long, "{wire:?}");
        assert_eq!((&*of(2), &*of(3)), ("{\"value\":7}", "{}"), "{wire:?}");
    }
}

#[tokio::test]
async fn a_call_that_the_provider_makes_itself_is_none_of_ours_and_one_without_a_name_is_none() {
    let wire = Wire::Anthropic;
    let server = StubServer::start().await.unwrap();
    let frames = [
        json!({"type": "content_block_start", "index": 0,
               "content_block": {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}}}),
        json!({"type": "content_block_delta", "index": 0,
               "delta": {"type": "input_json_delta", "partial_json": "{\"q\":1}"}}),
        json!({"type": "content_block_delta", "index": 1,
               "delta": {"type": "text_delta", "text": "the answer"}}),
    ];
    let mut frames: Vec<_> = frames.iter().map(Value::to_string).collect();
    frames.extend(wire.stop());
    frames.extend(wire.last());
    server.then(wire.row([wire.all_written(&frames)]));
    let reply = hear(&wire.model(server.url())).await.0.unwrap();
    assert_eq!((&*reply.text, reply.tool_calls.len()), ("the answer", 0));
    let nameless =
        json!({"content": null, "tool_calls": [{"id": "c", "function": {"arguments": "{}"}}]});
    server.then(Row::completion(nameless, "tool_calls"));
    let fault = Wire::Chat.model(server.url()).ask(&"x".into(), LONG, 1).await.unwrap_err();
    assert_eq!(fault.code.as_deref(), Some("bad_tool_call"));
}
