//! The wire format of OpenAI's chat completions, which most servers speak: what is sent, and what
//! is made of an answer.

use std::time::SystemTime;

use mainstay::fault::Fault;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::RawResponse;
use super::classify::{classify, is_error};
use crate::chat::{ChatReply, ChatRequest, Finish, Role, ToolCall, ToolChoice, Usage};

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: Vec<WireMessage<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<WireTool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    stream: bool,
}

#[derive(Serialize)]
struct WireMessage<'a> {
    role: &'static str,
    // Null, not empty, where a model only asked for tools: some servers refuse the empty text.
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<WireCall<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
}

#[derive(Serialize)]
struct WireCall<'a> {
    id: &'a str,
    r#type: &'static str,
    function: WireFunction<'a>,
}

#[derive(Serialize)]
struct WireFunction<'a> {
    name: &'a str,
    arguments: &'a str,
}

#[derive(Serialize)]
struct WireTool<'a> {
    r#type: &'static str,
    function: WireToolFunction<'a>,
}

#[derive(Serialize)]
struct WireToolFunction<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    parameters: Box<RawValue>,
}

/// The body of a request. `completion_tokens` says which of the two names of the token limit the
/// server knows.
///
/// # Errors
/// `InputValidation` for a tool whose schema is not JSON.
pub(crate) fn body(
    model: &str,
    request: &ChatRequest,
    completion_tokens: bool,
) -> Result<Vec<u8>, Fault> {
    let messages = request.messages.iter().map(|message| WireMessage {
        role: message.role.name(),
        content: (!(message.text.is_empty() && message.role == Role::Assistant))
            .then_some(message.text.as_str()),
        tool_calls: message
            .tool_calls
            .iter()
            .map(|call| WireCall {
                id: &call.id,
                r#type: "function",
                function: WireFunction { name: &call.name, arguments: &call.arguments },
            })
            .collect(),
        tool_call_id: message.tool_call_id.as_deref(),
    });
    let tools = request.tools.iter().map(|tool| {
        let parameters = RawValue::from_string(tool.parameters.clone()).map_err(|error| {
            Fault::input_validation(format!("the schema of tool \"{}\" is not JSON", tool.name))
                .with_code("bad_schema")
                .with_source(error)
        })?;
        let (name, description) = (tool.name.as_str(), tool.description.as_str());
        Ok(WireTool {
            r#type: "function",
            function: WireToolFunction { name, description, parameters },
        })
    });
    let body = Body {
        model,
        messages: messages.collect(),
        tools: tools.collect::<Result<_, Fault>>()?,
        tool_choice: match request.tool_choice {
            _ if request.tools.is_empty() => None,
            ToolChoice::Auto => None,
            ToolChoice::None => Some("none"),
            ToolChoice::Required => Some("required"),
        },
        max_tokens: request.max_tokens.filter(|_| !completion_tokens),
        max_completion_tokens: request.max_tokens.filter(|_| completion_tokens),
        temperature: request.temperature,
        stop: &request.stop,
        seed: request.seed,
        stream: false,
    };
    serde_json::to_vec(&body).map_err(|error| {
        Fault::internal("the request cannot be written as JSON").with_source(error)
    })
}

#[derive(Deserialize)]
struct Completion {
    #[serde(default)]
    model: String,
    choices: Vec<Choice>,
    usage: Option<WireUsage>,
}

#[derive(Deserialize)]
struct Choice {
    message: ReplyMessage,
    finish_reason: Option<String>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct ReplyMessage {
    content: Option<String>,
    refusal: Option<String>,
    tool_calls: Option<Vec<ReplyCall>>,
}

#[derive(Deserialize)]
struct ReplyCall {
    #[serde(default)]
    id: String,
    function: ReplyFunction,
}

#[derive(Deserialize)]
struct ReplyFunction {
    name: String,
    // A text by the book; some servers send the object.
    #[serde(default)]
    arguments: Value,
}

#[derive(Deserialize)]
struct WireUsage {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
}

/// What an answer is: the reply or the fault, and what it used. A fault can have cost something,
/// too: an answer that was cut off is paid for.
pub(crate) fn outcome(
    response: &RawResponse,
    sent: usize,
    wall: SystemTime,
) -> (Result<ChatReply, Fault>, Usage) {
    if !(200..300).contains(&response.status) {
        return (Err(classify_raw(response, wall)), Usage::default());
    }
    let Ok(value) = serde_json::from_slice::<Value>(&response.body) else {
        // Something that is not the model has answered: a proxy's page, a login form. The model was
        // not heard, and the page may be gone the next time.
        let kind = response.headers.get("content-type").unwrap_or("no content type");
        let fault = Fault::server_transient(format!(
            "status {} with a body that is not JSON ({kind})",
            response.status
        ));
        return (Err(fault.with_code("not_json")), Usage::default());
    };
    if is_error(&value) {
        return (Err(classify_raw(response, wall)), Usage::default());
    }
    let completion = match serde_json::from_value::<Completion>(value) {
        Ok(completion) => completion,
        Err(error) => {
            let fault = Fault::output_invalid(format!("not a chat completion: {error}"));
            return (Err(fault.with_code("bad_shape")), estimate(sent, response.body.len()));
        }
    };
    let usage = match &completion.usage {
        Some(usage) if usage.prompt_tokens + usage.completion_tokens > 0 => {
            Usage { input: usage.prompt_tokens, output: usage.completion_tokens, estimated: false }
        }
        _ => estimate(sent, response.body.len()),
    };
    (reply(completion, usage, response, wall), usage)
}

fn reply(
    completion: Completion,
    usage: Usage,
    response: &RawResponse,
    wall: SystemTime,
) -> Result<ChatReply, Fault> {
    let Some(choice) = completion.choices.into_iter().next() else {
        return Err(Fault::output_invalid("no choice in the answer").with_code("no_choice"));
    };
    if let Some(error) = choice.error.filter(|error| !error.is_null()) {
        let body = serde_json::json!({ "error": error }).to_string();
        return Err(classify(response.status, &response.headers, body.as_bytes(), wall));
    }
    let finish = match choice.finish_reason.as_deref() {
        Some("length") => {
            return Err(Fault::output_invalid("the answer was cut off at its token limit")
                .with_code("truncated"));
        }
        Some("content_filter") => {
            return Err(Fault::content_filtered("the provider filtered the answer")
                .with_code("content_filter"));
        }
        Some("tool_calls" | "function_call") => Finish::ToolCalls,
        Some("stop") | None => Finish::Stop,
        Some(other) => Finish::Other(other.to_owned()),
    };
    if choice.message.refusal.is_some_and(|refusal| !refusal.is_empty()) {
        return Err(Fault::content_filtered("the model refused").with_code("refusal"));
    }
    let calls = choice.message.tool_calls.unwrap_or_default();
    let tool_calls = calls.into_iter().enumerate().map(|(index, call)| ToolCall {
        // Every call needs an id to send its result back under.
        id: if call.id.is_empty() { format!("call-{index}") } else { call.id },
        name: call.function.name,
        arguments: match call.function.arguments {
            Value::String(text) => text,
            Value::Null => "{}".to_owned(),
            value => value.to_string(),
        },
    });
    Ok(ChatReply {
        text: choice.message.content.unwrap_or_default(),
        tool_calls: tool_calls.collect(),
        usage,
        finish,
        model: completion.model,
    })
}

fn classify_raw(response: &RawResponse, wall: SystemTime) -> Fault {
    classify(response.status, &response.headers, &response.body, wall)
}

fn estimate(sent: usize, received: usize) -> Usage {
    let tokens = |bytes: usize| (bytes as u64).div_ceil(4);
    Usage { input: tokens(sent), output: tokens(received), estimated: true }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Message, ToolSpec};
    use crate::model::headers::Headers;
    use mainstay::fault::Class;

    fn ok(body: &str) -> (Result<ChatReply, Fault>, Usage) {
        let response =
            RawResponse { status: 200, headers: Headers::new(), body: body.as_bytes().to_vec() };
        outcome(&response, 40, SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn a_conversation_with_tools_is_written_as_the_api_wants_it() {
        let call =
            ToolCall { id: "c1".into(), name: "query".into(), arguments: r#"{"order":7}"#.into() };
        let request = ChatRequest::from("where is it?")
            .message(Message::tool_calls("", vec![call]))
            .message(Message::tool_result("c1", "shipped"))
            .tool(ToolSpec::new("query").description("finds an order"))
            .max_tokens(64);
        let value: Value = serde_json::from_slice(&body("m", &request, false).unwrap()).unwrap();
        assert_eq!(
            value,
            serde_json::json!({
                "model": "m",
                "messages": [
                    {"role": "user", "content": "where is it?"},
                    {"role": "assistant", "content": null, "tool_calls": [{
                        "id": "c1", "type": "function",
                        "function": {"name": "query", "arguments": "{\"order\":7}"},
                    }]},
                    {"role": "tool", "content": "shipped", "tool_call_id": "c1"},
                ],
                "tools": [{"type": "function", "function": {
                    "name": "query", "description": "finds an order",
                    "parameters": {"type": "object"},
                }}],
                "max_tokens": 64,
                "stream": false,
            })
        );
        let value: Value = serde_json::from_slice(&body("m", &request, true).unwrap()).unwrap();
        assert_eq!(value["max_completion_tokens"], 64);
    }

    #[test]
    fn a_schema_that_is_not_json_is_the_callers_fault_and_names_the_tool() {
        let mut tool = ToolSpec::new("query");
        tool.parameters = "{".into();
        let fault = body("m", &ChatRequest::from("x").tool(tool), false).unwrap_err();
        assert_eq!(fault.class, Class::InputValidation);
        assert!(fault.message.contains("\"query\""));
    }

    #[test]
    fn an_answer_is_read_with_its_tool_calls_and_its_usage() {
        let (reply, usage) =
            ok(r#"{"model":"m-1","choices":[{"message":{"content":null,"tool_calls":[
            {"id":"a","function":{"name":"f","arguments":"{\"x\":1}"}},
            {"function":{"name":"g","arguments":{"y":2}}}]},"finish_reason":"tool_calls"}],
            "usage":{"prompt_tokens":11,"completion_tokens":4}}"#);
        let reply = reply.unwrap();
        assert_eq!(reply.tool_calls[0].arguments, r#"{"x":1}"#);
        assert_eq!(reply.tool_calls[1].arguments, r#"{"y":2}"#);
        assert_eq!(reply.tool_calls[1].id, "call-1");
        assert_eq!(reply.finish, Finish::ToolCalls);
        assert_eq!(usage, Usage { input: 11, output: 4, estimated: false });
    }

    #[test]
    fn an_answer_without_usage_is_not_free() {
        let (_, usage) = ok(r#"{"choices":[{"message":{"content":"hi"}}]}"#);
        assert!(usage.estimated && usage.input == 10 && usage.output > 0);
    }
}
