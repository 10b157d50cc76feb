//! OpenAI's responses.

use mainstay::fault::Fault;
use serde_json::{Value, json};

use super::ending::{Stop, reason_at};
use super::openai::{choice, is_enforceable};
use super::read::{Heard, written_of};
use super::wire::{
    Delta, Found, at, count_at, decimal, list_at, number_at, object_at, rewritten, schema, set,
    text_at, thought, unsupported, written,
};
use crate::chat::{ChatRequest, ResponseFormat, Role};

/// What was said on the way to an answer that is still to come. It is no part of it, and all that there is where none
/// comes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Aside {
    /// The numbers of the outputs that it is said in.
    outputs: Vec<u64>,
    text: String,
}

impl Aside {
    /// The bytes that are kept of it.
    pub(super) fn size(&self) -> usize {
        self.text.len()
    }
}

/// The phase of a message on the way to an answer, and that of the answer. OpenAI's models from `gpt-5.3-codex` on say it
/// of their messages and want to be told again, or they end too early; earlier ones pass over it.
const COMMENTARY: &str = "commentary";
const ANSWER: &str = "final_answer";

/// Whether an output is said on the way to an answer.
fn is_aside(item: &Value) -> bool {
    item.get("phase").and_then(Value::as_str) == Some(COMMENTARY)
}

/// The body of a request. Nothing is kept at the provider: the conversation is ours. Where it knows of `phases`, it is
/// told those of the model's messages: what comes with calls is on the way, what comes alone was an answer.
pub(crate) fn body(
    model: &str,
    request: &ChatRequest,
    stream: bool,
    phases: bool,
) -> Result<Value, Fault> {
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
            let mut said = json!({ "role": message.role.name(), "content": message.text });
            if phases && message.role == Role::Assistant {
                let is_answer = message.tool_calls.is_empty();
                said["phase"] = if is_answer { ANSWER } else { COMMENTARY }.into();
            }
            input.push(said);
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
    let items = list_at(response, "/output")?;
    let is_message = |item: &&Value| item.get("type").is_some_and(|kind| kind == "message");
    let is_answered = items.iter().filter(is_message).any(|item| !is_aside(item));
    for (number, item) in items.iter().enumerate() {
        match text_at(item, "/type")?.as_deref() {
            Some("message") => {
                for part in list_at(item, "/content")? {
                    match text_at(part, "/type")?.as_deref() {
                        Some("refusal") => found.push(Delta::Refused),
                        _ if is_answered && is_aside(item) => {}
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

/// `heard` keeps what is said on the way to an answer until it is known whether one comes.
pub(crate) fn frame(frame: &Value, heard: &mut Heard) -> Found {
    let number = number_at(frame, "/output_index")?.unwrap_or(0);
    let aside = &mut heard.aside;
    let is_aside_of = |aside: &Aside| aside.outputs.contains(&number);
    Ok(match text_at(frame, "/type")?.as_deref() {
        Some("response.output_item.added") => {
            if object_at(frame, "/item")?.is_some_and(is_aside) {
                aside.outputs.push(number);
            }
            Vec::new()
        }
        Some("response.output_text.delta") => {
            let text = text_at(frame, "/delta")?.unwrap_or_default();
            if is_aside_of(aside) {
                aside.text.push_str(&text);
                vec![thought(&text)]
            } else {
                vec![Delta::Text(text)]
            }
        }
        // What was not said in pieces.
        Some("response.output_text.done") => {
            let text = text_at(frame, "/text")?;
            if is_aside_of(aside) {
                if aside.text.is_empty() {
                    aside.text = text.unwrap_or_default();
                }
                Vec::new()
            } else {
                vec![Delta::Again(text.map(Delta::Text).into_iter().collect())]
            }
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
            if !aside.text.is_empty() {
                let text = std::mem::take(&mut aside.text);
                found.push(Delta::Again(vec![Delta::Text(text)]));
            }
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

#[cfg(test)]
mod tests {
    use super::super::transport::Head;
    use super::super::wire::{Draft, Wire, outcome};
    use super::*;
    use crate::chat::{Message, ToolCall};

    fn message(phase: Value, text: &str) -> Value {
        json!({"type": "message", "role": "assistant", "phase": phase,
               "content": [{"type": "output_text", "text": text}]})
    }

    fn answer(output: &[Value]) -> Value {
        json!({"status": "completed", "model": "m", "output": output})
    }

    /// What a whole answer says, and what a stream of the same does, piece by piece, with or without all of it at the end.
    fn said(output: &[Value]) -> [String; 3] {
        let (request, head) = (ChatRequest::from("hi"), Head::of(200));
        let body = answer(output).to_string();
        let (whole, _) = outcome(Wire::Responses, &head, body.as_bytes(), &request, 0);
        let streamed = |last: &[Value]| {
            let mut draft = Draft::new(Wire::Responses, 0);
            let mut heard = String::new();
            let mut frame = |frame: Value| {
                heard += &draft.frame(frame.to_string().as_bytes()).unwrap();
            };
            for (number, item) in output.iter().enumerate() {
                let of = |kind: &str| json!({"type": kind, "output_index": number, "item": item});
                frame(of("response.output_item.added"));
                let text = item["content"][0]["text"].as_str().unwrap_or_default();
                for piece in text.split_inclusive(' ') {
                    frame(json!({"type": "response.output_text.delta",
                                 "output_index": number, "delta": piece}));
                }
                if !text.is_empty() {
                    frame(json!({"type": "response.output_text.done",
                                 "output_index": number, "text": text}));
                }
                frame(of("response.output_item.done"));
            }
            frame(json!({"type": "response.completed", "response": answer(last)}));
            let (reply, _) = draft.finish(&request, &head);
            assert_eq!(reply.unwrap().text, heard, "what is heard is the answer");
            heard
        };
        [whole.unwrap().text, streamed(output), streamed(&[])]
    }

    #[test]
    fn what_is_said_on_the_way_to_an_answer_is_no_part_of_it() {
        let aside = |text| message(COMMENTARY.into(), text);
        let call = json!({"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"});
        let cases: [(&[Value], &str); 5] = [
            (&[aside("I will look. "), message(ANSWER.into(), "It is here.")], "It is here."),
            (&[aside("One. "), aside("Two. "), message(Value::Null, "Three.")], "Three."),
            // Where there is nothing else, it is what was said.
            (&[aside("I will look."), call], "I will look."),
            (&[aside("I will look.")], "I will look."),
            // Whoever says nothing of phases means all of it.
            (&[message(Value::Null, "One. "), message(Value::Null, "Two.")], "One. Two."),
        ];
        for (output, expected) in cases {
            assert_eq!(said(output), [expected; 3], "{output:?}");
        }
    }

    #[test]
    fn openai_is_told_again_what_was_on_the_way_to_an_answer() {
        let call = ToolCall { id: "a".into(), name: "f".into(), arguments: "{}".into() };
        let request = ChatRequest::new([
            Message::system("Be brief."),
            Message::user("Where?"),
            Message::tool_calls("I will look.", vec![call]),
            Message::tool_result("a", "here"),
            Message::assistant("It is here."),
            Message::user("Thanks."),
        ]);
        let phases = |told: bool| {
            let body = body("m", &request, false, told).unwrap();
            let input = body["input"].as_array().unwrap().clone();
            input.into_iter().map(|item| item["phase"].clone()).collect::<Vec<_>>()
        };
        let none = || Value::Null;
        let expected = [none(), none(), COMMENTARY.into(), none(), none(), ANSWER.into(), none()];
        assert_eq!(phases(true), expected);
        assert!(phases(false).iter().all(Value::is_null));
    }
}
