//! OpenAI's chat completions, which most servers speak.

use mainstay::fault::Fault;
use serde_json::{Value, json};

use super::wire::{
    Delta, Found, NO_CHOICE, Stop, at, decimal, list_at, number_at, schema, set, text_at,
};
use crate::chat::{ChatRequest, Message, ResponseFormat, Role, ToolChoice};

/// The body of a request. `official` says which of the two names of the token limit the server knows.
pub(crate) fn body(
    model: &str,
    request: &ChatRequest,
    stream: bool,
    official: bool,
) -> Result<Value, Fault> {
    let messages: Vec<_> = request.messages.iter().map(message).collect();
    let mut body = json!({ "model": model, "messages": messages, "stream": stream });
    if stream {
        body["stream_options"] = json!({ "include_usage": true });
    }
    if !request.tools.is_empty() {
        body["tools"] = tools(request)?;
        set(&mut body, "tool_choice", choice(request.tool_choice));
    }
    let limit = if official { "max_completion_tokens" } else { "max_tokens" };
    set(&mut body, limit, request.max_tokens);
    set(&mut body, "temperature", request.temperature.map(decimal));
    set(&mut body, "stop", (!request.stop.is_empty()).then_some(request.stop.as_slice()));
    set(&mut body, "seed", request.seed);
    match &request.response_format {
        ResponseFormat::Text => {}
        ResponseFormat::Json => body["response_format"] = json!({ "type": "json_object" }),
        ResponseFormat::Schema { name, schema: text, strict } => {
            let schema = schema(text, "the answer")?;
            body["response_format"] = json!({
                "type": "json_schema",
                "json_schema": { "name": name, "schema": schema, "strict": strict },
            });
        }
    }
    Ok(body)
}

fn message(message: &Message) -> Value {
    // Null, not empty, where a model only asked for tools: some servers refuse the empty text.
    let content = if message.text.is_empty() && message.role == Role::Assistant {
        Value::Null
    } else {
        message.text.as_str().into()
    };
    let mut wire = json!({ "role": message.role.name(), "content": content });
    if !message.tool_calls.is_empty() {
        let calls = message.tool_calls.iter().map(|call| {
            json!({
                "id": call.id, "type": "function",
                "function": { "name": call.name, "arguments": call.arguments },
            })
        });
        wire["tool_calls"] = calls.collect();
    }
    set(&mut wire, "tool_call_id", message.tool_call_id.as_deref());
    wire
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
    let choice = at(answer, "/choices/0").ok_or(NO_CHOICE)?;
    if let Some(error) = choice.get("error").filter(|error| !error.is_null()) {
        return Ok(vec![Delta::Error(json!({ "error": error }))]);
    }
    if !choice.get("message").is_some_and(Value::is_object) {
        return Err("a choice without a message".to_owned());
    }
    let mut found = common(answer);
    said(choice, "message", &mut found)?;
    found.push(Delta::End);
    Ok(found)
}

pub(crate) fn frame(frame: &Value) -> Found {
    let mut found = common(frame);
    // The frame with the usage has an empty list; a gateway's heartbeat may have none.
    let Some(choice) = at(frame, "/choices/0") else { return Ok(found) };
    if let Some(error) = choice.get("error").filter(|error| !error.is_null()) {
        return Ok(vec![Delta::Error(json!({ "error": error }))]);
    }
    said(choice, "delta", &mut found)?;
    Ok(found)
}

fn common(answer: &Value) -> Vec<Delta> {
    let mut found = Vec::new();
    found.extend(text_at(answer, "/model").map(Delta::Model));
    if answer.get("usage").is_some_and(Value::is_object) {
        found.push(Delta::Usage {
            input: number_at(answer, "/usage/prompt_tokens"),
            output: number_at(answer, "/usage/completion_tokens"),
        });
    }
    found
}

fn said(choice: &Value, holder: &str, found: &mut Vec<Delta>) -> Result<(), String> {
    let message = choice.get(holder).unwrap_or(&Value::Null);
    match message.get("content") {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) => found.push(Delta::Text(text.clone())),
        // A list of parts is what is sent to it, and what some servers send back.
        Some(Value::Array(parts)) => {
            let texts = parts.iter().filter_map(|part| text_at(part, "/text"));
            found.extend(texts.map(Delta::Text));
        }
        Some(_) => return Err("a content that is no text".to_owned()),
    }
    if text_at(message, "/refusal").is_some_and(|refusal| !refusal.is_empty()) {
        found.push(Delta::Refused);
    }
    for (place, call) in list_at(message, "/tool_calls").iter().enumerate() {
        let arguments = match at(call, "/function/arguments") {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            // A text by the book; some servers send the object.
            Some(value) => value.to_string(),
        };
        found.push(Delta::Call {
            number: number_at(call, "/index").unwrap_or(place as u64),
            id: text_at(call, "/id"),
            name: text_at(call, "/function/name"),
            arguments,
        });
    }
    let Some(reason) = text_at(choice, "/finish_reason") else { return Ok(()) };
    found.push(Delta::Stop(match reason.as_str() {
        "stop" => Stop::Complete,
        "tool_calls" | "function_call" => Stop::ToolCalls,
        "length" => Stop::Truncated,
        "content_filter" => Stop::Filtered(reason),
        // A gateway's, that does not say which.
        "error" => {
            found.push(Delta::Error(json!({ "error": { "type": "server_error" } })));
            return Ok(());
        }
        _ => Stop::Other(reason),
    }));
    Ok(())
}
