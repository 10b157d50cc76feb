//! Ollama's own API, whole and streamed: a line of the stream has the shape of an answer.

use mainstay::fault::Fault;
use serde_json::{Value, json};

use super::ending::{Stop, reason_at};
use super::openai::tools;
use super::wire::{
    Delta, Found, arguments, at, count_at, decimal, list_at, object_at, schema, set, text_at,
    thought, truth_at, unsupported, written,
};
use crate::chat::{ChatRequest, ResponseFormat, ToolChoice};
use crate::names;

/// The body of a request that wants a window of so many tokens.
pub(crate) fn body(
    model: &str,
    request: &ChatRequest,
    stream: bool,
    window: Option<u32>,
) -> Result<Value, Fault> {
    let messages: Vec<_> = request
        .messages
        .iter()
        .zip(names::tools(&request.messages))
        .map(|(message, tool)| {
            let mut wire = json!({ "role": message.role.name(), "content": message.text });
            if !message.tool_calls.is_empty() {
                let calls = message.tool_calls.iter().map(|call| {
                    json!({ "function": {
                        "name": call.name, "arguments": arguments(&call.arguments),
                    } })
                });
                wire["tool_calls"] = calls.collect();
            }
            set(&mut wire, "tool_name", tool);
            wire
        })
        .collect();
    // Unless told otherwise it cuts what is too long, and answers something else.
    let mut body = json!({
        "model": model, "messages": messages, "stream": stream, "truncate": false, "shift": false,
    });
    match request.tool_choice {
        _ if request.tools.is_empty() => {}
        ToolChoice::None => {}
        ToolChoice::Auto => body["tools"] = tools(request)?,
        ToolChoice::Required => return Err(unsupported("tool choice `required`", "Ollama's API")),
    }
    match &request.response_format {
        ResponseFormat::Text => {}
        ResponseFormat::Json => body["format"] = "json".into(),
        ResponseFormat::Schema { schema: text, .. } => {
            body["format"] = schema(text, "the answer")?;
        }
    }
    let mut options = json!({});
    set(&mut options, "num_ctx", window);
    set(&mut options, "num_predict", request.max_tokens);
    set(&mut options, "temperature", request.temperature.map(decimal));
    set(&mut options, "seed", request.seed);
    set(&mut options, "stop", (!request.stop.is_empty()).then_some(request.stop.as_slice()));
    if options.as_object().is_some_and(|options| !options.is_empty()) {
        body["options"] = options;
    }
    Ok(body)
}

/// Reads an answer.
pub(crate) fn whole(answer: &Value) -> Found {
    match truth_at(answer, "/done")? {
        // The beginning of a stream that lost its name on the way looks like this.
        Some(false) => Err("an answer that is not done".to_owned()),
        None if object_at(answer, "/message")?.is_none() => Err("no message".to_owned()),
        _ => frame(answer, 0),
    }
}

/// Reads the frame of this number. One without a message says nothing, or that it was the last.
pub(crate) fn frame(answer: &Value, frame: u64) -> Found {
    let mut found = Vec::new();
    found.extend(text_at(answer, "/model")?.map(Delta::Model));
    found.extend(text_at(answer, "/message/thinking")?.map(|text| thought(&text)));
    found.extend(
        text_at(answer, "/message/content")?.filter(|text| !text.is_empty()).map(Delta::Text),
    );
    for (place, call) in list_at(answer, "/message/tool_calls")?.iter().enumerate() {
        found.push(Delta::Call {
            number: (frame << 16) | place as u64,
            id: text_at(call, "/id")?,
            name: text_at(call, "/function/name")?,
            arguments: written(at(call, "/function/arguments")?),
        });
    }
    if truth_at(answer, "/done")? == Some(true) {
        found.push(Delta::Usage {
            input: count_at(answer, "/prompt_eval_count"),
            output: count_at(answer, "/eval_count"),
        });
        found.push(Delta::Stop(match reason_at(answer, "/done_reason")?.as_deref() {
            None | Some("stop") => Stop::Complete,
            Some("length") => Stop::Truncated,
            Some(other) => Stop::foreign(other.to_owned()),
        }));
        found.push(Delta::End);
    }
    Ok(found)
}
