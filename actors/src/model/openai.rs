//! OpenAI's chat completions, which most servers speak.

use std::borrow::Cow;

use mainstay::fault::Fault;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::ending::{Stop, reason_at};
use super::read::{Heard, written_of};
use super::wire::{
    Delta, Found, NO_CHOICE, at, count_at, decimal, list_at, number_at, object_at, raw, rewritten,
    schema, text_at, unwritable, written,
};
use crate::chat::{ChatRequest, Message, ResponseFormat, Role, ToolCall, ToolChoice};
use crate::tool::schema::known;

pub(super) mod typed;

/// Whether it says which fields each object has, and that it has them all: another one is refused where it is to
/// be enforced.
pub(super) fn is_enforceable(schema: &str) -> bool {
    !serde_json::from_str(schema).is_ok_and(|schema| known::is_open(&schema, true))
}

/// The body of a request. `completion` says which of the two names of the token limit the server knows.
pub(crate) fn body(
    model: &str,
    request: &ChatRequest,
    stream: bool,
    completion: bool,
) -> Result<Vec<u8>, Fault> {
    let tools = request.tools.iter().map(|tool| {
        let parameters = raw(&tool.parameters, || format!("tool \"{}\"", tool.name))?;
        let (name, description) = (&*tool.name, &*tool.description);
        Ok(Tool { kind: "function", function: Described { name, description, parameters } })
    });
    let response_format = match &request.response_format {
        ResponseFormat::Text => None,
        ResponseFormat::Json => Some(Format { kind: "json_object", json_schema: None }),
        ResponseFormat::Schema { name, schema, strict } => {
            let strict = *strict && is_enforceable(schema);
            let schema = raw(schema, || "the answer".to_owned())?;
            let json_schema = Some(Shape { name, schema, strict });
            Some(Format { kind: "json_schema", json_schema })
        }
    };
    let limit = |named: bool| request.max_tokens.filter(|_| named);
    let body = Body {
        model,
        messages: Said(&request.messages),
        stream,
        stream_options: stream.then_some(StreamOptions { include_usage: true }),
        tools: tools.collect::<Result<_, Fault>>()?,
        tool_choice: choice(request.tool_choice).filter(|_| !request.tools.is_empty()),
        max_completion_tokens: limit(completion),
        max_tokens: limit(!completion),
        temperature: request.temperature.map(decimal),
        stop: &request.stop,
        seed: request.seed,
        response_format,
    };
    let texts = request.messages.iter().map(|message| message.text.len() + 64);
    let mut bytes = Vec::with_capacity(128 + texts.sum::<usize>());
    serde_json::to_writer(&mut bytes, &body).map_err(unwritable)?;
    Ok(bytes)
}

/// A request as it is written, straight from the request that was asked.
#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: Said<'a>,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<Value>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<Format<'a>>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Serialize)]
struct Tool<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    function: Described<'a>,
}

#[derive(Serialize)]
struct Described<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    parameters: &'a RawValue,
}

#[derive(Serialize)]
struct Format<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    json_schema: Option<Shape<'a>>,
}

#[derive(Serialize)]
struct Shape<'a> {
    name: &'a str,
    schema: &'a RawValue,
    strict: bool,
}

struct Said<'a>(&'a [Message]);

impl Serialize for Said<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|message| {
            Spoken {
                role: message.role.name(),
                // Null, not empty, where a model only asked for tools: some servers refuse the empty text.
                content: Some(&*message.text)
                    .filter(|text| !text.is_empty() || message.role != Role::Assistant),
                tool_calls: Called(&message.tool_calls),
                tool_call_id: message.tool_call_id.as_deref(),
            }
        }))
    }
}

#[derive(Serialize)]
struct Spoken<'a> {
    role: &'static str,
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Called::is_empty")]
    tool_calls: Called<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
}

struct Called<'a>(&'a [ToolCall]);

impl Called<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Called<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|call| Call {
            id: &call.id,
            kind: "function",
            function: Function { name: &call.name, arguments: rewritten(&call.arguments) },
        }))
    }
}

#[derive(Serialize)]
struct Call<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    arguments: Cow<'a, str>,
}

/// Also Ollama's.
pub(super) fn tools(request: &ChatRequest) -> Result<Value, Fault> {
    let tools = request.tools.iter().map(|tool| {
        let parameters = schema(&tool.parameters, &format!("tool \"{}\"", tool.name))?;
        let mut function = json!({ "name": tool.name, "parameters": parameters });
        if !tool.description.is_empty() {
            function["description"] = tool.description.as_str().into();
        }
        Ok(json!({ "type": "function", "function": function }))
    });
    tools.collect::<Result<Vec<_>, Fault>>().map(Value::from)
}

/// Also that of the responses API.
pub(super) fn choice(choice: ToolChoice) -> Option<&'static str> {
    match choice {
        ToolChoice::Auto => None,
        ToolChoice::None => Some("none"),
        ToolChoice::Required => Some("required"),
    }
}

pub(crate) fn whole(answer: &Value) -> Found {
    if !answer.get("choices").is_some_and(Value::is_array) {
        return Err("no list of choices".to_owned());
    }
    let choice = heard(answer, &mut Heard::default())?.ok_or(NO_CHOICE)?;
    if let Some(error) = at(choice, "/error")? {
        return Ok(vec![Delta::Error(json!({ "error": error }))]);
    }
    let Some(message) = object_at(choice, "/message")? else {
        return Err("a choice without a message".to_owned());
    };
    let mut found = common(answer)?;
    said(message, &mut found)?;
    found.extend(reason_at(choice, "/finish_reason")?.map(ended));
    found.push(Delta::End);
    Ok(found)
}

pub(crate) fn frame(frame: &Value, first: &mut Heard) -> Found {
    let mut found = common(frame)?;
    // The frame with the usage has an empty list; a gateway's heartbeat may have none.
    let Some(choice) = heard(frame, first)? else { return Ok(found) };
    if let Some(error) = at(choice, "/error")? {
        return Ok(vec![Delta::Error(json!({ "error": error }))]);
    }
    if let Some(delta) = object_at(choice, "/delta")? {
        said(delta, &mut found)?;
    }
    // What some servers write instead, and others at the end once more.
    if let Some(message) = object_at(choice, "/message")? {
        let mut whole = Vec::new();
        said(message, &mut whole)?;
        found.push(Delta::Again(whole));
    }
    found.extend(reason_at(choice, "/finish_reason")?.map(ended));
    Ok(found)
}

fn heard<'a>(answer: &'a Value, first: &mut Heard) -> Result<Option<&'a Value>, String> {
    let choices = list_at(answer, "/choices")?.iter().filter(|choice| !choice.is_null());
    Ok(first.of(choices.collect(), |choice| choice.get("index").and_then(Value::as_u64)))
}

fn common(answer: &Value) -> Found {
    let mut found = Vec::new();
    found.extend(text_at(answer, "/model")?.map(Delta::Model));
    if answer.get("usage").is_some_and(Value::is_object) {
        let counts = ["/usage/prompt_tokens", "/usage/completion_tokens", "/usage/total_tokens"];
        let [input, output, total] = counts.map(|place| count_at(answer, place));
        found.push(Delta::Usage { input, output: written_of(input, output, total) });
    }
    Ok(found)
}

fn said(message: &Value, found: &mut Vec<Delta>) -> Result<(), String> {
    for thought in ["reasoning_content", "reasoning"] {
        let text = message.get(thought).and_then(Value::as_str).filter(|text| !text.is_empty());
        found.extend(text.map(|text| Delta::Thought(text.chars().count())));
    }
    match message.get("content") {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) => found.push(Delta::Text(text.clone())),
        // A list of parts is what is sent to it, and what some servers send back.
        Some(Value::Array(parts)) => {
            for part in parts {
                // Others are what it thinks.
                let kind = text_at(part, "/type")?;
                if matches!(kind.as_deref(), None | Some("text" | "output_text")) {
                    found.extend(text_at(part, "/text")?.map(Delta::Text));
                }
            }
        }
        Some(_) => return Err("/content is no text".to_owned()),
    }
    if text_at(message, "/refusal")?.is_some_and(|refusal| !refusal.is_empty()) {
        found.push(Delta::Refused);
    }
    let calls = list_at(message, "/tool_calls")?;
    // As calls were written before there could be several.
    if let (Some(call), true) = (object_at(message, "/function_call")?, calls.is_empty()) {
        found.push(Delta::Call {
            number: 0,
            id: None,
            name: text_at(call, "/name")?,
            arguments: written(at(call, "/arguments")?),
        });
    }
    for (place, call) in calls.iter().enumerate() {
        found.push(Delta::Call {
            number: number_at(call, "/index")?.unwrap_or(place as u64),
            id: text_at(call, "/id")?,
            name: text_at(call, "/function/name")?,
            arguments: written(at(call, "/function/arguments")?),
        });
    }
    Ok(())
}

fn ended(reason: impl AsRef<str> + Into<String>) -> Delta {
    Delta::Stop(match reason.as_ref() {
        "stop" => Stop::Complete,
        "tool_calls" | "function_call" => Stop::ToolCalls,
        "length" => Stop::Truncated,
        "content_filter" => Stop::Filtered(reason.into()),
        // A gateway's, that does not say which.
        "error" => return Delta::Error(json!({ "error": { "type": "server_error" } })),
        _ => Stop::foreign(reason.into()),
    })
}
