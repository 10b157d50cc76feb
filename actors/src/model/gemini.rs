//! Google's generateContent, whole and streamed: a frame of the stream has the shape of an answer.

use mainstay::fault::Fault;
use serde_json::{Value, json};

use super::classify::is_error;
use super::ending::{Stop, reason_at};
use super::read::Heard;
use super::wire::{
    Delta, Found, NO_CHOICE, arguments, at, count_at, decimal, list_at, object_at, schema, set,
    text_at, thought, truth_at,
};
use crate::chat::{ChatRequest, ResponseFormat, Role, ToolChoice};
use crate::names::{self, SIGNED};

/// The body of a request. The model and whether to stream are said in the URL.
pub(crate) fn body(request: &ChatRequest) -> Result<Value, Fault> {
    let mut contents: Vec<(&str, Vec<Value>)> = Vec::new();
    let mut system = Vec::new();
    for (message, tool) in request.messages.iter().zip(names::tools(&request.messages)) {
        let mut parts = Vec::new();
        let role = match (message.role, &message.tool_call_id) {
            (Role::System, _) => {
                system.push(json!({ "text": message.text }));
                continue;
            }
            (Role::Tool, Some(_)) => {
                let name = tool.unwrap_or("unknown");
                // An object is wanted, and a tool may have said anything.
                let response = match serde_json::from_str::<Value>(&message.text) {
                    Ok(value @ Value::Object(_)) => value,
                    _ => json!({ "result": message.text }),
                };
                parts.push(json!({ "functionResponse": { "name": name, "response": response } }));
                "user"
            }
            (Role::Assistant, _) => "model",
            _ => "user",
        };
        let is_result = message.role == Role::Tool && message.tool_call_id.is_some();
        if !is_result && !message.text.is_empty() {
            parts.push(json!({ "text": message.text }));
        }
        for call in &message.tool_calls {
            let args = arguments(&call.arguments);
            let mut part = json!({ "functionCall": { "name": call.name, "args": args } });
            if let Some((_, signature)) = call.id.split_once(SIGNED) {
                part["thoughtSignature"] = signature.into();
            }
            parts.push(part);
        }
        match contents.last_mut() {
            Some((last, all)) if *last == role => all.extend(parts),
            _ if parts.is_empty() => {}
            _ => contents.push((role, parts)),
        }
    }
    let contents: Vec<_> =
        contents.into_iter().map(|(role, parts)| json!({ "role": role, "parts": parts })).collect();
    let mut body = json!({ "contents": contents });
    if !system.is_empty() {
        body["systemInstruction"] = json!({ "parts": system });
    }
    if !request.tools.is_empty() {
        let tools = request.tools.iter().map(|tool| {
            let parameters = schema(&tool.parameters, &format!("tool \"{}\"", tool.name))?;
            let (name, description) = (&tool.name, &tool.description);
            Ok(json!({
                "name": name, "description": description, "parametersJsonSchema": parameters,
            }))
        });
        let tools = tools.collect::<Result<Vec<_>, Fault>>()?;
        body["tools"] = json!([{ "functionDeclarations": tools }]);
        let mode = match request.tool_choice {
            ToolChoice::Auto => None,
            ToolChoice::None => Some("NONE"),
            ToolChoice::Required => Some("ANY"),
        };
        let config = mode.map(|mode| json!({ "functionCallingConfig": { "mode": mode } }));
        set(&mut body, "toolConfig", config);
    }
    let mut config = json!({});
    set(&mut config, "maxOutputTokens", request.max_tokens);
    set(&mut config, "temperature", request.temperature.map(decimal));
    set(&mut config, "seed", request.seed);
    set(
        &mut config,
        "stopSequences",
        (!request.stop.is_empty()).then_some(request.stop.as_slice()),
    );
    if request.response_format != ResponseFormat::Text {
        config["responseMimeType"] = "application/json".into();
    }
    if let ResponseFormat::Schema { schema: text, .. } = &request.response_format {
        config["responseJsonSchema"] = schema(text, "the answer")?;
    }
    if config.as_object().is_some_and(|config| !config.is_empty()) {
        body["generationConfig"] = config;
    }
    Ok(body)
}

/// Reads an answer.
pub(crate) fn whole(answer: &Value) -> Found {
    // Asked for a stream without its events, a list of frames is what comes.
    let frames = match answer {
        Value::Array(frames) => frames.as_slice(),
        answer => std::slice::from_ref(answer),
    };
    let (mut found, mut answered, mut first) = (Vec::new(), false, Heard::default());
    for (number, answer) in (0..).zip(frames) {
        if is_error(answer) {
            found.push(Delta::Error(answer.clone()));
        }
        let said = frame(answer, number, &mut first)?;
        // A prompt that was blocked has no candidate, but an end.
        answered |= at(answer, "/candidates/0")?.is_some() || said.contains(&Delta::End);
        found.extend(said);
    }
    if answered { Ok(found) } else { Err(NO_CHOICE.to_owned()) }
}

/// Reads the frame of this number. One without a candidate says nothing, or what was used.
pub(crate) fn frame(answer: &Value, frame: u64, first: &mut Heard) -> Found {
    let mut found = Vec::new();
    found.extend(text_at(answer, "/modelVersion")?.map(Delta::Model));
    if let Some(usage) = answer.get("usageMetadata") {
        let output = count_at(usage, "/candidatesTokenCount");
        // Thinking is paid for like what is said.
        let thought = count_at(usage, "/thoughtsTokenCount");
        let output = match (output, thought) {
            (None, None) => None,
            (said, thought) => Some(said.unwrap_or(0).saturating_add(thought.unwrap_or(0))),
        };
        // What its own tools have brought it is read like the prompt.
        let brought = count_at(usage, "/toolUsePromptTokenCount").unwrap_or(0);
        let input = count_at(usage, "/promptTokenCount").map(|it| it.saturating_add(brought));
        found.push(Delta::Usage { input, output });
    }
    if let Some(reason) = reason_at(answer, "/promptFeedback/blockReason")? {
        found.push(Delta::Stop(Stop::Filtered(reason)));
        found.push(Delta::End);
        return Ok(found);
    }
    let candidates = list_at(answer, "/candidates")?.iter().filter(|it| !it.is_null());
    let number = |candidate: &&Value| candidate.get("index").and_then(Value::as_u64);
    let Some(candidate) = first.of(candidates.collect(), number) else { return Ok(found) };
    for (place, part) in list_at(candidate, "/content/parts")?.iter().enumerate() {
        if truth_at(part, "/thought")? == Some(true) {
            found.extend(text_at(part, "/text")?.map(|text| thought(&text)));
            continue;
        }
        found.extend(text_at(part, "/text")?.filter(|text| !text.is_empty()).map(Delta::Text));
        if let Some(call) = object_at(part, "/functionCall")? {
            let number = (frame << 16) | place as u64;
            let id = text_at(call, "/id")?.unwrap_or_else(|| format!("call-{number}"));
            let id = match text_at(part, "/thoughtSignature")? {
                Some(signature) => format!("{id}{SIGNED}{signature}"),
                None => id,
            };
            found.push(Delta::Call {
                number,
                id: Some(id),
                name: text_at(call, "/name")?,
                arguments: call.get("args").map(Value::to_string).unwrap_or_default(),
            });
        }
    }
    if let Some(reason) = reason_at(candidate, "/finishReason")? {
        found.push(Delta::Stop(match reason.as_str() {
            "STOP" => Stop::Complete,
            "MAX_TOKENS" => Stop::Truncated,
            _ => Stop::foreign(reason),
        }));
    }
    Ok(found)
}
