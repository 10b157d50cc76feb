//! What each format writes and reads, as the providers document it.

use mainstay::fault::{Class, Fault};
use reqwest::Url;
use serde_json::{Value, json};

use super::Terms;
use super::{Delta, Draft, Heard, Wire, openai, outcome, typed};
use crate::chat::{
    ChatReply, ChatRequest, Finish, Message, ResponseFormat, ToolCall, ToolChoice, ToolSpec, Usage,
};
use crate::model::transport::Head;

const ALL: [Wire; 5] = [Wire::Chat, Wire::Responses, Wire::Anthropic, Wire::Gemini, Wire::Ollama];

/// A request that uses everything that every format has.
fn request() -> ChatRequest {
    let call = |id: &str, arguments: &str| ToolCall {
        id: id.into(),
        name: "query".into(),
        arguments: arguments.into(),
    };
    ChatRequest::from("where is it?")
        .system("be brief")
        .message(Message::tool_calls(
            "I look.",
            vec![call("c1", r#"{"order":7}"#), call("c2~sig", "nonsense")],
        ))
        .message(Message::tool_result("c1", "shipped"))
        .message(Message::tool_result("c2~sig", r#"{"state":"lost"}"#))
        .tool(ToolSpec::new("query").description("finds an order"))
        .max_tokens(64)
        .temperature(0.2)
}

fn written(wire: Wire, request: &ChatRequest, stream: bool) -> Value {
    serde_json::from_slice(&wire.body("m", request, stream, Terms::default()).unwrap()).unwrap()
}

fn read(wire: Wire, body: &Value) -> (Result<ChatReply, Fault>, Usage) {
    let body = body.to_string().into_bytes();
    outcome(wire, &Head::of(200), &body, &ChatRequest::default(), 40)
}

/// The text as it came in, and what it all came to.
fn streamed(wire: Wire, frames: &[&str]) -> (Vec<String>, Result<ChatReply, Fault>, Usage) {
    let mut draft = Draft::new(wire, 40);
    let mut texts = Vec::new();
    for frame in frames {
        assert!(!draft.is_over(), "{frame} comes after the end");
        texts.push(draft.frame(frame.as_bytes()).unwrap());
    }
    assert!(draft.is_whole());
    texts.retain(|text| !text.is_empty());
    let (reply, usage) = draft.finish(&ChatRequest::default(), &Head::of(200));
    (texts, reply, usage)
}

#[test]
fn chat_completions_are_asked_as_the_api_wants_it() {
    let parameters = json!({"type": "object"});
    let mut expected = json!({
        "model": "m",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "where is it?"},
            {"role": "assistant", "content": "I look.", "tool_calls": [
                {"id": "c1", "type": "function",
                 "function": {"name": "query", "arguments": "{\"order\":7}"}},
                {"id": "c2~sig", "type": "function",
                 "function": {"name": "query", "arguments": "{\"value\":\"nonsense\"}"}},
            ]},
            {"role": "tool", "content": "shipped", "tool_call_id": "c1"},
            {"role": "tool", "content": "{\"state\":\"lost\"}", "tool_call_id": "c2~sig"},
        ],
        "tools": [{"type": "function", "function": {
            "name": "query", "description": "finds an order", "parameters": parameters,
        }}],
        "max_tokens": 64,
        "temperature": 0.2,
        "stream": false,
    });
    assert_eq!(written(Wire::Chat, &request(), false), expected);
    expected["stream"] = true.into();
    expected["stream_options"] = json!({"include_usage": true});
    assert_eq!(written(Wire::Chat, &request(), true), expected);
    let official = Wire::Chat
        .body("m", &request(), false, Terms { completion: true, ..Terms::default() })
        .unwrap();
    let official: Value = serde_json::from_slice(&official).unwrap();
    assert_eq!(
        (&official["max_completion_tokens"], &official["max_tokens"]),
        (&json!(64), &Value::Null)
    );
    let silent = ChatRequest::new([Message::tool_calls("", vec![])]);
    assert_eq!(written(Wire::Chat, &silent, false)["messages"][0]["content"], Value::Null);
    let rest = ChatRequest::from("x").stop("END").seed(7);
    let rest = written(Wire::Chat, &rest, false);
    assert_eq!((&rest["stop"], &rest["seed"]), (&json!(["END"]), &json!(7)));
}

#[test]
fn responses_are_asked_as_the_api_wants_it() {
    let expected = json!({
        "model": "m",
        "input": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "where is it?"},
            {"role": "assistant", "content": "I look."},
            {"type": "function_call", "call_id": "c1", "name": "query",
             "arguments": "{\"order\":7}"},
            {"type": "function_call", "call_id": "c2~sig", "name": "query",
             "arguments": "{\"value\":\"nonsense\"}"},
            {"type": "function_call_output", "call_id": "c1", "output": "shipped"},
            {"type": "function_call_output", "call_id": "c2~sig",
             "output": "{\"state\":\"lost\"}"},
        ],
        "tools": [{"type": "function", "name": "query", "description": "finds an order",
                   "parameters": {"type": "object"}, "strict": false}],
        "max_output_tokens": 64,
        "temperature": 0.2,
        "store": false,
        "stream": true,
    });
    assert_eq!(written(Wire::Responses, &request(), true), expected);
}

#[test]
fn messages_are_asked_as_the_api_wants_it() {
    let expected = json!({
        "model": "m",
        "system": "be brief",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "where is it?"}]},
            {"role": "assistant", "content": [
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "c1", "name": "query", "input": {"order": 7}},
                {"type": "tool_use", "id": "c2~sig", "name": "query",
                 "input": {"value": "nonsense"}},
            ]},
            // Two results in a row are one message.
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "shipped"},
                {"type": "tool_result", "tool_use_id": "c2~sig",
                 "content": "{\"state\":\"lost\"}"},
            ]},
        ],
        "tools": [{"name": "query", "description": "finds an order",
                   "input_schema": {"type": "object"}}],
        "max_tokens": 64,
        "temperature": 0.2,
        "stream": false,
    });
    assert_eq!(written(Wire::Anthropic, &request(), false), expected);
    let least = written(Wire::Anthropic, &ChatRequest::from("x").stop("END"), false);
    assert_eq!((&least["max_tokens"], &least["stop_sequences"]), (&json!(4096), &json!(["END"])));
}

#[test]
fn generate_content_is_asked_as_the_api_wants_it() {
    let expected = json!({
        "systemInstruction": {"parts": [{"text": "be brief"}]},
        "contents": [
            {"role": "user", "parts": [{"text": "where is it?"}]},
            {"role": "model", "parts": [
                {"text": "I look."},
                {"functionCall": {"name": "query", "args": {"order": 7}}},
                {"functionCall": {"name": "query", "args": {"value": "nonsense"}},
                 "thoughtSignature": "sig"},
            ]},
            {"role": "user", "parts": [
                {"functionResponse": {"name": "query", "response": {"result": "shipped"}}},
                {"functionResponse": {"name": "query", "response": {"state": "lost"}}},
            ]},
        ],
        "tools": [{"functionDeclarations": [{
            "name": "query", "description": "finds an order",
            "parametersJsonSchema": {"type": "object"},
        }]}],
        "generationConfig": {"maxOutputTokens": 64, "temperature": 0.2},
    });
    assert_eq!(written(Wire::Gemini, &request(), true), expected);
    let rest = written(Wire::Gemini, &ChatRequest::from("x").stop("END").seed(7), false);
    assert_eq!(rest["generationConfig"], json!({"stopSequences": ["END"], "seed": 7}));
}

#[test]
fn ollama_is_asked_as_its_api_wants_it_and_told_not_to_cut() {
    let expected = json!({
        "model": "m",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "where is it?"},
            {"role": "assistant", "content": "I look.", "tool_calls": [
                {"function": {"name": "query", "arguments": {"order": 7}}},
                {"function": {"name": "query", "arguments": {"value": "nonsense"}}},
            ]},
            {"role": "tool", "content": "shipped", "tool_name": "query"},
            {"role": "tool", "content": "{\"state\":\"lost\"}", "tool_name": "query"},
        ],
        "tools": [{"type": "function", "function": {
            "name": "query", "description": "finds an order", "parameters": {"type": "object"},
        }}],
        "options": {"num_predict": 64, "temperature": 0.2f32.to_string().parse::<f64>().unwrap()},
        "stream": true,
        "truncate": false,
        "shift": false,
    });
    assert_eq!(written(Wire::Ollama, &request(), true), expected);
    let rest = written(Wire::Ollama, &ChatRequest::from("x").stop("END").seed(7), false);
    assert_eq!(rest["options"], json!({"stop": ["END"], "seed": 7}));
}

#[test]
fn the_tool_choice_is_said_in_each_formats_words_or_refused() {
    let ask = |wire: Wire, choice| {
        let request = ChatRequest::from("x").tool(ToolSpec::new("t")).tool_choice(choice);
        wire.body("m", &request, false, Terms::default())
            .map(|body| serde_json::from_slice::<Value>(&body).unwrap())
    };
    let cases = [
        (Wire::Chat, "/tool_choice", json!("none"), json!("required")),
        (Wire::Responses, "/tool_choice", json!("none"), json!("required")),
        (Wire::Anthropic, "/tool_choice/type", json!("none"), json!("any")),
        (Wire::Gemini, "/toolConfig/functionCallingConfig/mode", json!("NONE"), json!("ANY")),
    ];
    for (wire, place, none, required) in cases {
        assert_eq!(ask(wire, ToolChoice::Auto).unwrap().pointer(place), None, "{wire:?}");
        assert_eq!(ask(wire, ToolChoice::None).unwrap().pointer(place), Some(&none), "{wire:?}");
        let said = ask(wire, ToolChoice::Required).unwrap();
        assert_eq!(said.pointer(place), Some(&required), "{wire:?}");
    }
    assert!(ask(Wire::Ollama, ToolChoice::Auto).unwrap()["tools"].is_array());
    assert!(ask(Wire::Ollama, ToolChoice::None).unwrap()["tools"].is_null());
    let refused = ask(Wire::Ollama, ToolChoice::Required).unwrap_err();
    assert_eq!(refused.code.as_deref(), Some("unsupported"));
    let stop =
        Wire::Responses.body("m", &ChatRequest::from("x").stop("END"), false, Terms::default());
    assert_eq!(stop.unwrap_err().class, Class::InputValidation);
}

#[test]
fn json_is_asked_for_in_each_formats_words() {
    let mut schema = json!({"type": "object", "properties": {"n": {"type": "number"}}});
    (schema["required"], schema["additionalProperties"]) = (json!(["n"]), json!(false));
    let named = json!({"name": "answer", "schema": schema, "strict": true});
    let mut typed = named.clone();
    typed["type"] = "json_schema".into();
    let cases = [
        (
            Wire::Chat,
            "/response_format",
            json!({"type": "json_object"}),
            json!({"type": "json_schema", "json_schema": named}),
        ),
        (Wire::Responses, "/text/format", json!({"type": "json_object"}), typed),
        (
            Wire::Anthropic,
            "/output_config/format",
            Value::Null,
            json!({"type": "json_schema", "schema": schema}),
        ),
        (Wire::Gemini, "/generationConfig/responseJsonSchema", Value::Null, schema.clone()),
        (Wire::Ollama, "/format", json!("json"), schema.clone()),
    ];
    for (wire, place, any, shaped) in cases {
        let ask = |request: ChatRequest| {
            let body = written(wire, &request, false);
            body.pointer(place).cloned().unwrap_or_default()
        };
        let request = ChatRequest::from("x");
        assert_eq!(ask(request.clone()), Value::Null, "{wire:?}");
        assert_eq!(ask(request.clone().response_format(ResponseFormat::Json)), any, "{wire:?}");
        assert_eq!(ask(request.json_schema("answer", schema.clone())), shaped, "{wire:?}");
    }
    let json = ChatRequest::from("x").response_format(ResponseFormat::Json);
    let told = written(Wire::Anthropic, &json, false);
    assert!(told["system"].as_str().unwrap().contains("JSON"));
    let told = written(Wire::Gemini, &json, false);
    assert_eq!(told["generationConfig"]["responseMimeType"], "application/json");
}

#[test]
fn a_schema_that_is_not_json_is_the_callers_fault_and_names_the_tool() {
    let mut tool = ToolSpec::new("query");
    tool.parameters = "{".into();
    let format = ResponseFormat::Schema { name: "a".into(), schema: "{".into(), strict: false };
    for wire in ALL {
        let fault = wire
            .body("m", &ChatRequest::from("x").tool(tool.clone()), false, Terms::default())
            .unwrap_err();
        assert_eq!(fault.class, Class::InputValidation);
        assert!(fault.message.contains("\"query\""), "{wire:?}");
        let request = ChatRequest::from("x").response_format(format.clone());
        let fault = wire.body("m", &request, false, Terms::default()).unwrap_err();
        assert!(fault.message.contains("the answer"), "{wire:?}");
    }
}

#[test]
fn each_format_has_its_path() {
    let base = Url::parse("http://h/v1/?api-version=2").unwrap();
    let cases = [
        (Wire::Chat, "m", false, "/v1/chat/completions?api-version=2"),
        (Wire::Responses, "m", true, "/v1/responses?api-version=2"),
        (Wire::Anthropic, "m", true, "/v1/messages?api-version=2"),
        (Wire::Ollama, "m", true, "/v1/api/chat?api-version=2"),
        (Wire::Gemini, "m", false, "/v1/models/m:generateContent?api-version=2"),
        (
            Wire::Gemini,
            "tunedModels/m",
            true,
            "/v1/tunedModels/m:streamGenerateContent?api-version=2&alt=sse",
        ),
        // A name is data: it cannot leave its place.
        (Wire::Gemini, "../x?y", false, "/v1/x%3Fy:generateContent?api-version=2"),
    ];
    for (wire, model, stream, expected) in cases {
        let url = wire.url(&base, model, stream).unwrap();
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        assert_eq!(format!("{}{query}", url.path()), expected);
    }
}

#[test]
fn each_format_is_read_whole() {
    let answers = [
        (
            Wire::Chat,
            json!({"model": "m-1", "choices": [{"finish_reason": "tool_calls", "message": {
                "content": "I look.",
                "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{\"x\":1}"}}],
            }}], "usage": {"prompt_tokens": 11, "completion_tokens": 4}}),
        ),
        (
            Wire::Responses,
            json!({"model": "m-1", "status": "completed", "error": null, "output": [
                {"type": "reasoning", "summary": []},
                {"type": "message", "content": [{"type": "output_text", "text": "I look."}]},
                {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{\"x\":1}"},
            ], "usage": {"input_tokens": 11, "output_tokens": 4}}),
        ),
        (
            Wire::Anthropic,
            json!({"type": "message", "model": "m-1", "stop_reason": "tool_use", "content": [
                {"type": "thinking", "thinking": "hm"},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
            ], "usage": {"input_tokens": 8, "cache_read_input_tokens": 3, "output_tokens": 4}}),
        ),
        (
            Wire::Gemini,
            json!({"modelVersion": "m-1", "candidates": [{"finishReason": "STOP", "content": {
                "parts": [
                    {"text": "hm", "thought": true},
                    {"text": "I look."},
                    {"functionCall": {"id": "a", "name": "f", "args": {"x": 1}}},
                ]}}],
                "usageMetadata": {"promptTokenCount": 11, "candidatesTokenCount": 3,
                                  "thoughtsTokenCount": 1}}),
        ),
        (
            Wire::Ollama,
            json!({"model": "m-1", "done": true, "done_reason": "stop", "message": {
                "role": "assistant", "content": "I look.", "thinking": "hm",
                "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": {"x": 1}}}],
            }, "prompt_eval_count": 11, "eval_count": 4}),
        ),
    ];
    for (wire, answer) in answers {
        let (reply, usage) = read(wire, &answer);
        let reply = reply.unwrap();
        assert_eq!(usage, Usage { input: 11, output: 4, estimated: false }, "{wire:?}");
        let call = ToolCall { id: "a".into(), name: "f".into(), arguments: r#"{"x":1}"#.into() };
        let expected = ChatReply {
            text: "I look.".into(),
            tool_calls: vec![call],
            usage,
            finish: Finish::ToolCalls,
            model: "m-1".into(),
        };
        assert_eq!(reply, expected, "{wire:?}");
    }
}

#[test]
fn each_format_is_read_in_frames_and_comes_to_the_same() {
    let answers: [(Wire, &[&str]); 5] = [
        (
            Wire::Chat,
            &[
                r#"{"model":"m-1","choices":[{"delta":{"role":"assistant","content":""}}]}"#,
                r#"{"model":"m-1","choices":[{"delta":{"content":"I "}}]}"#,
                r#"{"model":"m-1","choices":[{"delta":{"content":"look."}}]}"#,
                r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":""}}]}}]}"#,
                r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"x\""}}]}}]}"#,
                r#"{"choices":[{"delta":{"tool_calls":[{"index":1,"id":"b","function":{"name":"g"}}]}}]}"#,
                r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":":1}"}}]}}]}"#,
                r#"{"choices":[{"delta":{},"finish_reason":"tool_calls"}]}"#,
                r#"{"choices":[],"usage":{"prompt_tokens":11,"completion_tokens":4}}"#,
                "[DONE]",
            ],
        ),
        (
            Wire::Responses,
            &[
                r#"{"type":"response.created","response":{"status":"in_progress","error":null}}"#,
                r#"{"type":"response.output_text.delta","output_index":0,"delta":"I "}"#,
                r#"{"type":"response.output_text.delta","output_index":0,"delta":"look."}"#,
                r#"{"type":"response.function_call_arguments.delta","output_index":1,"delta":"{\"x\""}"#,
                r#"{"type":"response.output_item.done","output_index":1,"item":{"type":"function_call","call_id":"a","name":"f","arguments":"{\"x\":1}"}}"#,
                r#"{"type":"response.output_item.done","output_index":2,"item":{"type":"function_call","call_id":"b","name":"g","arguments":"{}"}}"#,
                r#"{"type":"response.completed","response":{"model":"m-1","status":"completed","error":null,"usage":{"input_tokens":11,"output_tokens":4}}}"#,
            ],
        ),
        (
            Wire::Anthropic,
            &[
                r#"{"type":"message_start","message":{"model":"m-1","usage":{"input_tokens":11,"output_tokens":1}}}"#,
                r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
                r#"{"type":"ping"}"#,
                r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"I "}}"#,
                r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"look."}}"#,
                r#"{"type":"content_block_stop","index":0}"#,
                r#"{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"a","name":"f","input":{}}}"#,
                r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"x\""}}"#,
                r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":":1}"}}"#,
                r#"{"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"b","name":"g","input":{}}}"#,
                r#"{"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"output_tokens":4}}"#,
                r#"{"type":"message_stop"}"#,
            ],
        ),
        (
            Wire::Gemini,
            &[
                r#"{"modelVersion":"m-1","candidates":[{"content":{"parts":[{"text":"I "}]}}]}"#,
                r#"{"candidates":[{"content":{"parts":[{"text":"look."}]}}],"usageMetadata":{"promptTokenCount":11,"candidatesTokenCount":2}}"#,
                r#"{"candidates":[{"content":{"parts":[{"functionCall":{"id":"a","name":"f","args":{"x":1}}}]}}]}"#,
                r#"{"candidates":[{"content":{"parts":[{"functionCall":{"id":"b","name":"g"}}]}}]}"#,
                r#"{"candidates":[{"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":11,"candidatesTokenCount":4}}"#,
            ],
        ),
        (
            Wire::Ollama,
            &[
                r#"{"model":"m-1","message":{"role":"assistant","content":"I "},"done":false}"#,
                r#"{"model":"m-1","message":{"role":"assistant","content":"look."},"done":false}"#,
                r#"{"model":"m-1","message":{"content":"","tool_calls":[{"id":"a","function":{"name":"f","arguments":{"x":1}}}]},"done":false}"#,
                r#"{"model":"m-1","message":{"content":"","tool_calls":[{"id":"b","function":{"name":"g","arguments":{}}}]},"done":false}"#,
                r#"{"model":"m-1","message":{"content":""},"done":true,"done_reason":"stop","prompt_eval_count":11,"eval_count":4}"#,
            ],
        ),
    ];
    for (wire, frames) in answers {
        let (texts, reply, usage) = streamed(wire, frames);
        assert_eq!(texts, ["I ", "look."], "{wire:?}");
        let reply = reply.unwrap();
        assert_eq!(usage, Usage { input: 11, output: 4, estimated: false }, "{wire:?}");
        let call = |id: &str, name: &str, arguments: &str| ToolCall {
            id: id.into(),
            name: name.into(),
            arguments: arguments.into(),
        };
        let expected = ChatReply {
            text: "I look.".into(),
            tool_calls: vec![call("a", "f", r#"{"x":1}"#), call("b", "g", "{}")],
            usage,
            finish: Finish::ToolCalls,
            model: "m-1".into(),
        };
        assert_eq!(reply, expected, "{wire:?}");
    }
}

#[test]
fn calls_without_ids_get_ids_that_differ() {
    let (reply, _) = read(
        Wire::Chat,
        &json!({"choices": [{"message": {"tool_calls": [
            {"function": {"name": "f", "arguments": "{}"}},
            {"function": {"name": "g", "arguments": {"y": 2}}},
        ]}}]}),
    );
    let reply = reply.unwrap();
    assert_eq!(reply.tool_calls[0].id, "call-0");
    assert_eq!(reply.tool_calls[1].id, "call-1");
    assert_eq!(reply.tool_calls[1].arguments, r#"{"y":2}"#);
    // Also over the frames of a stream, where each frame counts from 0 again.
    let call = r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f"},"thoughtSignature":"s"}]}}]}"#;
    let (_, reply, _) =
        streamed(Wire::Gemini, &[call, call, r#"{"candidates":[{"finishReason":"STOP"}]}"#]);
    let calls = reply.unwrap().tool_calls;
    assert_eq!(calls.len(), 2);
    assert_ne!(calls[0].id, calls[1].id);
    assert!(calls[0].id.ends_with("~s"));
}

#[test]
fn the_arguments_of_a_call_are_read_as_a_text_and_as_an_object_in_every_format() {
    let object = json!({"x": [1, "é"]});
    for arguments in [object.clone(), object.to_string().into()] {
        let call = json!({"name": "f", "arguments": arguments});
        let answers = [
            (Wire::Chat, json!({"choices": [{"message": {"tool_calls": [{"function": call}]}}]})),
            (
                Wire::Responses,
                json!({"output": [{"type": "function_call", "name": "f", "arguments": arguments}]}),
            ),
            (Wire::Ollama, json!({"done": true, "message": {"tool_calls": [{"function": call}]}})),
        ];
        for (wire, answer) in answers {
            let (reply, _) = read(wire, &answer);
            assert_eq!(reply.unwrap().tool_calls[0].arguments, object.to_string(), "{wire:?}");
        }
    }
    // A gateway that does not cut them into pieces.
    let start = json!({"type": "content_block_start", "index": 0, "content_block":
        {"type": "tool_use", "id": "a", "name": "f", "input": object}});
    let end = r#"{"type":"message_delta","delta":{"stop_reason":"tool_use"}}"#;
    let (_, reply, _) = streamed(Wire::Anthropic, &[&start.to_string(), end]);
    assert_eq!(reply.unwrap().tool_calls[0].arguments, object.to_string());
}

#[test]
fn a_count_that_is_left_out_or_is_none_is_estimated_by_itself() {
    for output in [Value::Null, json!("5"), json!(5.5)] {
        let usage = json!({"prompt_tokens": 11, "completion_tokens": output});
        let answer = json!({"usage": usage, "choices": [{"message": {"content": "12345678"}}]});
        let (_, usage) = read(Wire::Chat, &answer);
        assert_eq!((usage.input, usage.estimated), (11, true), "{output}");
        assert!(usage.output > 0, "{output}");
    }
}

#[test]
fn calls_that_share_a_number_are_told_apart_by_their_ids() {
    let call = |id: &str, name: &str| {
        json!({"choices": [{"delta": {"tool_calls": [
            {"id": id, "function": {"name": name, "arguments": "{\"x\":"}}]}}]})
        .to_string()
    };
    let rest = r#"{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"1}"}}]}}]}"#;
    let last = r#"{"choices":[{"delta":{},"finish_reason":"tool_calls"}]}"#;
    let frames = [&*call("a", "f"), rest, &*call("b", "g"), rest, last];
    let (_, reply, _) = streamed(Wire::Chat, &frames);
    let calls = reply.unwrap().tool_calls;
    let said: Vec<_> =
        calls.iter().map(|call| (&*call.id, &*call.name, &*call.arguments)).collect();
    assert_eq!(said, [("a", "f", "{\"x\":1}"), ("b", "g", "{\"x\":1}")]);
}

#[test]
fn an_error_that_is_an_object_in_another_languages_words_is_heard() {
    let failed = |data: &[u8]| {
        let mut draft = Draft::new(Wire::Chat, 40);
        draft.failed(data)?;
        Err::<(), _>(draft.finish(&ChatRequest::default(), &Head::of(200)).0.unwrap_err())
    };
    let fault = failed(b"{'error': 'Rate limit reached for m'}").unwrap_err();
    assert_eq!(fault.class, Class::RateLimit, "{fault:?}");
    assert!(fault.message.contains("Rate limit reached for m"), "{fault:?}");
    // What is cut off or garbled has not.
    for data in [&b"{"[..], b"{ \"error\": \"Rate limit", b"{\"error\":: \"Rate limit\"}"] {
        let fault = failed(data).unwrap_err();
        assert_eq!(
            (fault.class, fault.code.as_deref()),
            (Class::ServerTransient, Some("bad_frame"))
        );
    }
}

#[test]
fn an_answer_without_usage_is_not_free() {
    let (_, usage) = read(Wire::Chat, &json!({"choices": [{"message": {"content": "hi"}}]}));
    assert!(usage.estimated && usage.input == 10 && usage.output > 0);
    let (_, usage) = read(Wire::Anthropic, &json!({"nothing": true}));
    assert!(usage.estimated && usage.output > 0);
}

#[test]
fn a_stream_that_breaks_off_is_paid_for_by_what_was_said() {
    let mut draft = Draft::new(Wire::Anthropic, 40);
    draft
        .frame(br#"{"type":"message_start","message":{"usage":{"input_tokens":33,"output_tokens":1}}}"#)
        .unwrap();
    let text = "x".repeat(80);
    let frame =
        json!({"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}});
    draft.frame(frame.to_string().as_bytes()).unwrap();
    assert_eq!(draft.usage(), Usage { input: 33, output: 20, estimated: true });
    let mut draft = Draft::new(Wire::Chat, 40);
    draft.frame(br#"{"choices":[{"delta":{"content":"12345678"}}]}"#).unwrap();
    assert_eq!(draft.usage(), Usage { input: 10, output: 2, estimated: true });
}

#[test]
fn no_json_can_make_a_format_fail_in_another_way_than_with_a_fault() {
    let nasty = [
        json!(null),
        json!([]),
        json!({}),
        json!("x"),
        json!(7),
        json!({"choices": [null]}),
        json!({"choices": [{"message": 7}]}),
        json!({"choices": [{"delta": {"content": {"a": 1}}}]}),
        json!({"type": "message_start"}),
        json!({"type": "content_block_start"}),
        json!({"type": "response.completed"}),
        json!({"candidates": [{"content": {"parts": [null, 7, {"functionCall": null}]}}]}),
        json!({"message": {"tool_calls": [null]}, "done": "yes"}),
    ];
    for wire in ALL {
        for value in &nasty {
            let (reply, _) = read(wire, value);
            if let Err(fault) = reply {
                assert_eq!(fault.class, Class::OutputInvalid, "{wire:?} {value}");
            }
            if let Err(fault) = Draft::new(wire, 1).frame(value.to_string().as_bytes()) {
                assert_eq!(
                    fault.code.as_deref(),
                    Some(if fault.message.contains("no choice") {
                        "no_choice"
                    } else {
                        "bad_shape"
                    })
                );
            }
        }
        let fault = Draft::new(wire, 1).frame(b"{\"a\":\"\xff\"}").unwrap_err();
        assert_eq!(fault.code.as_deref(), Some("bad_utf8"));
        let fault = Draft::new(wire, 1).frame(b"{\"a\":").unwrap_err();
        assert_eq!(fault.code.as_deref(), Some("bad_frame"));
    }
}

fn all_of(found: typed::Read) -> Vec<Delta> {
    let mut all = Vec::new();
    found.tell(|delta| all.push(delta));
    all
}

#[test]
fn an_answer_read_from_its_bytes_says_what_its_tree_of_values_says() {
    let (mut typed_reads, mut left) = (0, 0);
    for content in [json!("a\n\u{e9}"), json!(""), Value::Null, json!([{"text": "part"}]), json!(7)]
    {
        for calls in [
            Value::Null,
            json!([]),
            json!([{"id": "c", "function": {"name": "n", "arguments": "{}"}}, {"index": 4}]),
            json!([{"id": "c", "function": {"name": "n", "arguments": {"a": 1}}}]),
        ] {
            for reason in ["stop", "length", "content_filter", "error", "odd", "tool_calls"] {
                for usage in
                    [Value::Null, json!({"prompt_tokens": 3}), json!({"prompt_tokens": 1.5})]
                {
                    for error in [Value::Null, json!({"message": "busy"})] {
                        let said = json!({"content": content, "tool_calls": calls, "refusal": ""});
                        let answer = json!({"model": "m", "usage": usage, "choices": [{
                            "message": said, "delta": said, "finish_reason": reason, "error": error,
                        }], "more": 1});
                        let bytes = answer.to_string().into_bytes();
                        let tree = openai::whole(&answer);
                        match typed::whole(&bytes) {
                            Some(found) => {
                                assert_eq!(Ok(all_of(found)), tree, "{answer}");
                                typed_reads += 1;
                            }
                            None => left += 1,
                        }
                        if let Some(found) = typed::frame(&bytes, &mut Heard::default()) {
                            let tree = openai::frame(&answer, &mut Heard::default());
                            assert_eq!(Ok(all_of(found)), tree, "{answer}");
                        }
                    }
                }
            }
        }
    }
    // Three contents, three lists of calls, six reasons, two usages and no error are read so.
    assert_eq!((typed_reads, typed_reads + left), (3 * 3 * 6 * 2, 5 * 4 * 6 * 3 * 2));
    for (odd, why) in [
        (
            &br#"{"error":{"message":"busy"},"choices":[{"message":{"content":"a"}}]}"#[..],
            "an error",
        ),
        (br#"{"choices":[]}"#, "no choice"),
        (br#"[{"error":{"message":"busy"}}]"#, "a list"),
        (b"{\"more\":\"\xff\",\"choices\":[{\"message\":{\"content\":\"a\"}}]}", "not UTF-8"),
    ] {
        assert!(typed::whole(odd).is_none(), "{why}");
    }
}
