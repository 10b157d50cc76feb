//! Anthropic's messages.

use mainstay::fault::Fault;
use serde_json::{Value, json};

use super::ending::{Stop, reason_at};
use super::share::BUDGETED_ANSWER;
use super::wire::{
    Delta, Found, arguments, count_at, decimal, list_at, number_at, object_at, schema, set,
    text_at, thought,
};
use crate::chat::{ChatRequest, ResponseFormat, Role, ToolChoice};
use crate::tool::schema::known;

/// The version of the API that is spoken, a header of every request.
pub(crate) const VERSION: &str = "2023-06-01";

/// The body of a request. The API has no seed, which is left out.
pub(crate) fn body(model: &str, request: &ChatRequest, stream: bool) -> Result<Value, Fault> {
    let mut system: Vec<_> = request
        .messages
        .iter()
        .filter(|message| message.role == Role::System)
        .map(|message| message.text.as_str())
        .collect();
    // Roles alternate here: what one side says in a row is one message.
    let mut messages: Vec<(&str, Vec<Value>)> = Vec::new();
    for message in request.messages.iter().filter(|message| message.role != Role::System) {
        let role = if message.role == Role::Assistant { "assistant" } else { "user" };
        let mut blocks = Vec::new();
        match (&message.tool_call_id, message.role) {
            (Some(id), Role::Tool) => blocks.push(json!({
                "type": "tool_result", "tool_use_id": id, "content": message.text,
            })),
            // An empty text is refused.
            _ if message.text.is_empty() => {}
            _ => blocks.push(json!({ "type": "text", "text": message.text })),
        }
        blocks.extend(message.tool_calls.iter().map(|call| {
            json!({
                "type": "tool_use", "id": call.id, "name": call.name,
                "input": arguments(&call.arguments),
            })
        }));
        match messages.last_mut() {
            Some((last, all)) if *last == role => all.extend(blocks),
            _ if blocks.is_empty() => {}
            _ => messages.push((role, blocks)),
        }
    }
    if request.response_format == ResponseFormat::Json {
        // There is no such option, only one for a schema.
        system.push("Answer with one JSON value and nothing else.");
    }
    let (wish, enforced) = match &request.response_format {
        // Here a schema is enforced, and one that cannot be is refused.
        ResponseFormat::Schema { schema: text, strict, .. } => {
            let schema = schema(text, "the answer")?;
            if *strict && !known::is_open(&schema, false) {
                (None, Some(schema))
            } else {
                let text = "Answer with one JSON value of this schema and nothing else:";
                (Some(format!("{text} {schema}")), None)
            }
        }
        _ => (None, None),
    };
    system.extend(wish.as_deref());
    let messages: Vec<_> = messages
        .into_iter()
        .map(|(role, content)| json!({ "role": role, "content": content }))
        .collect();
    let mut body = json!({
        "model": model, "messages": messages, "stream": stream,
        // This API wants a number.
        "max_tokens": request.max_tokens.unwrap_or(BUDGETED_ANSWER),
    });
    set(&mut body, "system", (!system.is_empty()).then(|| system.join("\n\n")));
    if !request.tools.is_empty() {
        let tools = request.tools.iter().map(|tool| {
            let input_schema = schema(&tool.parameters, &format!("tool \"{}\"", tool.name))?;
            let (name, description) = (&tool.name, &tool.description);
            Ok(json!({ "name": name, "description": description, "input_schema": input_schema }))
        });
        body["tools"] = tools.collect::<Result<Vec<_>, Fault>>()?.into();
        let kind = match request.tool_choice {
            ToolChoice::Auto => None,
            ToolChoice::None => Some("none"),
            ToolChoice::Required => Some("any"),
        };
        set(&mut body, "tool_choice", kind.map(|kind| json!({ "type": kind })));
    }
    set(&mut body, "temperature", request.temperature.map(decimal));
    set(&mut body, "stop_sequences", (!request.stop.is_empty()).then_some(request.stop.as_slice()));
    if let Some(schema) = enforced {
        body["output_config"] = json!({ "format": { "type": "json_schema", "schema": schema } });
    }
    Ok(body)
}

pub(crate) fn whole(answer: &Value) -> Found {
    if !answer.get("content").is_some_and(Value::is_array) {
        return Err("no list of content".to_owned());
    }
    let mut found = begun(answer)?;
    for (number, block) in list_at(answer, "/content")?.iter().enumerate() {
        found.extend(opened(number as u64, block, true)?);
    }
    found.extend(usage(answer.get("usage")));
    found.extend(reason_at(answer, "/stop_reason")?.map(stopped));
    found.push(Delta::End);
    Ok(found)
}

pub(crate) fn frame(frame: &Value) -> Found {
    let number = number_at(frame, "/index")?.unwrap_or(0);
    Ok(match text_at(frame, "/type")?.as_deref() {
        Some("message_start") => {
            let message = object_at(frame, "/message")?.ok_or("a start without its message")?;
            let mut found = begun(message)?;
            found.extend(usage(message.get("usage")));
            found
        }
        Some("content_block_start") => {
            let block = object_at(frame, "/content_block")?.ok_or("a block without content")?;
            opened(number, block, false)?.into_iter().collect()
        }
        Some("content_block_delta") => match text_at(frame, "/delta/type")?.as_deref() {
            Some("text_delta") => {
                text_at(frame, "/delta/text")?.map(Delta::Text).into_iter().collect()
            }
            Some("input_json_delta") => vec![Delta::Call {
                number,
                id: None,
                name: None,
                arguments: text_at(frame, "/delta/partial_json")?.unwrap_or_default(),
            }],
            Some("thinking_delta") => {
                text_at(frame, "/delta/thinking")?.map(|text| thought(&text)).into_iter().collect()
            }
            // Signatures, citations.
            _ => Vec::new(),
        },
        Some("message_delta") => {
            let mut found = usage(frame.get("usage"));
            found.extend(reason_at(frame, "/delta/stop_reason")?.map(stopped));
            found
        }
        Some("message_stop") => vec![Delta::End],
        Some("error") => vec![Delta::Error(frame.clone())],
        _ => Vec::new(),
    })
}

fn begun(message: &Value) -> Found {
    Ok(text_at(message, "/model")?.map(Delta::Model).into_iter().collect())
}

/// A block as it begins. In a stream its input is an empty object, and comes in pieces; some gateways have it
/// all here.
fn opened(number: u64, block: &Value, whole: bool) -> Result<Option<Delta>, String> {
    Ok(match text_at(block, "/type")?.as_deref() {
        Some("text") => text_at(block, "/text")?.filter(|text| !text.is_empty()).map(Delta::Text),
        Some("tool_use") => Some(Delta::Call {
            number,
            id: text_at(block, "/id")?,
            name: text_at(block, "/name")?,
            arguments: match block.get("input") {
                Some(Value::Object(fields)) if !whole && fields.is_empty() => String::new(),
                Some(Value::Null) | None => String::new(),
                Some(input) => input.to_string(),
            },
        }),
        _ => None,
    })
}

fn usage(usage: Option<&Value>) -> Vec<Delta> {
    let Some(usage) = usage else { return Vec::new() };
    // What was read from or written to a cache is not in `input_tokens`.
    let kinds = ["/input_tokens", "/cache_creation_input_tokens", "/cache_read_input_tokens"];
    let counted = kinds.map(|kind| count_at(usage, kind));
    let input =
        counted.iter().flatten().copied().reduce(u64::saturating_add).filter(|sum| *sum > 0);
    vec![Delta::Usage { input, output: count_at(usage, "/output_tokens") }]
}

fn stopped(reason: String) -> Delta {
    match reason.as_str() {
        "end_turn" | "stop_sequence" => Delta::Stop(Stop::Complete),
        "tool_use" => Delta::Stop(Stop::ToolCalls),
        "max_tokens" => Delta::Stop(Stop::Truncated),
        "refusal" => Delta::Refused,
        "model_context_window_exceeded" => Delta::Stop(Stop::ContextLength),
        // `pause_turn` among others: not an error, the conversation goes on.
        _ => Delta::Stop(Stop::foreign(reason)),
    }
}
