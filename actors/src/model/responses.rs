//! OpenAI's responses.

use mainstay::fault::Fault;
use serde_json::{Value, json};

use super::ending::{Stop, reason_at};
use super::openai::{choice, is_enforceable};
use super::read::written_of;
use super::wire::{
    Delta, Found, at, count_at, decimal, list_at, number_at, object_at, rewritten, schema, set,
    text_at, thought, unsupported, written,
};
use crate::chat::{ChatRequest, ResponseFormat, Role};

/// The body of a request. Nothing is kept at the provider: the conversation is ours.
pub(crate) fn body(model: &str, request: &ChatRequest, stream: bool) -> Result<Value, Fault> {
    if !request.stop.is_empty() {
        return Err(unsupported("stop texts", "the responses API"));
    }
    let mut input = Vec::new();
    for message in &request.messages {
        if let (Role::Tool, Some(id)) = (message.role, &message.tool_call_id) {
            input.push(json!({
                "type": "function_call_output", "call_id": id, "output": message.text,
            }));
            continue;
        }
        if !message.text.is_empty() || message.tool_calls.is_empty() {
            input.push(json!({ "role": message.role.name(), "content": message.text }));
        }
        input.extend(message.tool_calls.iter().map(|call| {
            json!({
                "type": "function_call", "call_id": call.id,
                "name": call.name, "arguments": rewritten(&call.arguments),
            })
        }));
    }
    let mut body = json!({ "model": model, "input": input, "stream": stream, "store": false });
    if !request.tools.is_empty() {
        let tools = request.tools.iter().map(|tool| {
            let parameters = schema(&tool.parameters, &format!("tool \"{}\"", tool.name))?;
            // Strict is the default here, and refuses most schemas that were not written for it.
            Ok(json!({
                "type": "function", "name": tool.name, "description": tool.description,
                "parameters": parameters, "strict": false,
            }))
        });
        body["tools"] = tools.collect::<Result<Vec<_>, Fault>>()?.into();
        set(&mut body, "tool_choice", choice(request.tool_choice));
    }
    set(&mut body, "max_output_tokens", request.max_tokens);
    set(&mut body, "temperature", request.temperature.map(decimal));
    match &request.response_format {
        ResponseFormat::Text => {}
        ResponseFormat::Json => body["text"] = json!({ "format": { "type": "json_object" } }),
        ResponseFormat::Schema { name, schema: text, strict } => {
            let strict = *strict && is_enforceable(text);
            let schema = schema(text, "the answer")?;
            body["text"] = json!({ "format": {
                "type": "json_schema", "name": name, "schema": schema, "strict": strict,
            } });
        }
    }
    Ok(body)
}

pub(crate) fn whole(answer: &Value) -> Found {
    if text_at(answer, "/type")?.as_deref() == Some("error") {
        return Ok(vec![Delta::Error(answer.clone())]);
    }
    if !answer.get("output").is_some_and(Value::is_array) {
        return Err("no list of outputs".to_owned());
    }
    let mut found = output(answer)?;
    let status = text_at(answer, "/status")?;
    found.extend(ended(answer, status.as_deref().unwrap_or("completed"))?);
    Ok(found)
}

fn output(response: &Value) -> Found {
    let mut found = Vec::new();
    for (number, item) in list_at(response, "/output")?.iter().enumerate() {
        match text_at(item, "/type")?.as_deref() {
            Some("message") => {
                for part in list_at(item, "/content")? {
                    match text_at(part, "/type")?.as_deref() {
                        Some("refusal") => found.push(Delta::Refused),
                        _ => found.extend(text_at(part, "/text")?.map(Delta::Text)),
                    }
                }
            }
            Some("function_call") => found.push(call(number as u64, item)?),
            // Reasoning and the provider's own tools.
            _ => {}
        }
    }
    Ok(found)
}

fn call(number: u64, item: &Value) -> Result<Delta, String> {
    Ok(Delta::Call {
        number,
        id: text_at(item, "/call_id")?.or(text_at(item, "/id")?),
        name: text_at(item, "/name")?,
        arguments: written(at(item, "/arguments")?),
    })
}

/// What a response says of itself when it is over in this way.
fn ended(response: &Value, status: &str) -> Found {
    let mut found = Vec::new();
    found.extend(text_at(response, "/model")?.map(Delta::Model));
    let counts = ["/usage/input_tokens", "/usage/output_tokens", "/usage/total_tokens"];
    let [input, output, total] = counts.map(|place| count_at(response, place));
    found.push(Delta::Usage { input, output: written_of(input, output, total) });
    match status {
        "completed" => found.push(Delta::Stop(Stop::Complete)),
        "incomplete" => {
            let reason = reason_at(response, "/incomplete_details/reason")?.unwrap_or_default();
            found.push(Delta::Stop(match Stop::foreign(reason.clone()) {
                // It is not, whatever the reason.
                Stop::Complete | Stop::ToolCalls | Stop::Other(_) => Stop::Incomplete(reason),
                stop => stop,
            }));
        }
        "failed" | "cancelled" => {
            let error = response.get("error").filter(|error| !error.is_null());
            let error = error.cloned().unwrap_or_else(|| json!({ "type": "server_error" }));
            found.push(Delta::Error(json!({ "error": error })));
        }
        // Queued, or being worked on: there is more to come, but not here.
        _ => return Err("a response that is not over".to_owned()),
    }
    found.push(Delta::End);
    Ok(found)
}

pub(crate) fn frame(frame: &Value) -> Found {
    let number = number_at(frame, "/output_index")?.unwrap_or(0);
    Ok(match text_at(frame, "/type")?.as_deref() {
        Some("response.output_text.delta") => {
            text_at(frame, "/delta")?.map(Delta::Text).into_iter().collect()
        }
        // What was not said in pieces.
        Some("response.output_text.done") => {
            let text = text_at(frame, "/text")?.map(Delta::Text).into_iter().collect();
            vec![Delta::Again(text)]
        }
        Some("response.reasoning_text.delta" | "response.reasoning_summary_text.delta") => {
            text_at(frame, "/delta")?.map(|text| thought(&text)).into_iter().collect()
        }
        Some("response.refusal.delta" | "response.refusal.done") => vec![Delta::Refused],
        // The whole call; the pieces of its arguments before it say nothing more.
        Some("response.output_item.done") => match object_at(frame, "/item")? {
            Some(item) if text_at(item, "/type")?.as_deref() == Some("function_call") => {
                vec![call(number, item)?]
            }
            _ => Vec::new(),
        },
        Some(kind @ ("response.completed" | "response.incomplete" | "response.failed")) => {
            let response = object_at(frame, "/response")?.ok_or("an end without its response")?;
            // Some servers stream next to nothing, and say all of it here.
            let mut found = vec![Delta::Again(output(response)?)];
            // The event's name says how it ended; where the two differ, the worse is believed.
            let status = match text_at(response, "/status")? {
                Some(bad) if matches!(&*bad, "incomplete" | "failed" | "cancelled") => bad,
                _ => kind.trim_start_matches("response.").to_owned(),
            };
            found.extend(ended(response, &status)?);
            found
        }
        Some("error") => vec![Delta::Error(frame.clone())],
        _ => Vec::new(),
    })
}
