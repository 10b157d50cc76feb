//! The five wire formats from the server's side: the same answer in the words of each.

use std::time::Duration;

use mainstay::fault::{Class, Fault};
use mainstay_actors::chat::stream::{StreamEvent, open};
use mainstay_actors::chat::{ChatReply, ChatRequest};
use mainstay_actors::model::Model;
use mainstay_actors::stub_server::Row;
use serde_json::{Value, json};

/// For whatever must end by itself.
pub(crate) const LONG: Duration = Duration::from_secs(20);
/// The key of every model here.
pub(crate) const KEY: &str = "sk-secret-4711-0815";
pub(crate) const WIRES: [Wire; 5] =
    [Wire::Chat, Wire::Responses, Wire::Anthropic, Wire::Gemini, Wire::Ollama];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    Chat,
    Responses,
    Anthropic,
    Gemini,
    Ollama,
}

impl Wire {
    /// A model that speaks it, with a key, ready to be asked.
    pub(crate) fn model(self, url: &str) -> Model {
        connected(self.bare(url).key(KEY))
    }

    pub(crate) fn bare(self, url: &str) -> Model {
        match self {
            Self::Chat => Model::openai(url, "m"),
            Self::Responses => Model::responses(url, "m"),
            Self::Anthropic => Model::anthropic(url, "m"),
            Self::Gemini => Model::gemini(url, "m"),
            Self::Ollama => Model::ollama_native(url, "m"),
        }
    }

    /// The header that carries the key, and what it says.
    pub(crate) fn key_header(self) -> (&'static str, String) {
        match self {
            Self::Anthropic => ("x-api-key", KEY.to_owned()),
            Self::Gemini => ("x-goog-api-key", KEY.to_owned()),
            _ => ("authorization", format!("Bearer {KEY}")),
        }
    }

    pub(crate) fn is_lines(self) -> bool {
        self == Self::Ollama
    }

    pub(crate) fn content_type(self) -> &'static str {
        if self.is_lines() { "application/x-ndjson" } else { "text/event-stream" }
    }

    /// A stream of these pieces under the content type that is right for it.
    pub(crate) fn row<P: Into<Vec<u8>>>(self, pieces: impl IntoIterator<Item = P>) -> Row {
        Row::stream(pieces).header("content-type", self.content_type())
    }

    /// The frames before the first word.
    pub(crate) fn begin(self) -> Vec<String> {
        match self {
            Self::Chat => vec![json!({"model": "m-1", "choices": [
                {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": null},
            ]})],
            Self::Responses => {
                vec![json!({"type": "response.created", "response": {"status": "in_progress"}})]
            }
            Self::Anthropic => vec![
                json!({"type": "message_start", "message": {
                    "model": "m-1", "usage": {"input_tokens": 10, "output_tokens": 1}}}),
                json!({"type": "content_block_start", "index": 0,
                       "content_block": {"type": "text", "text": ""}}),
            ],
            Self::Gemini | Self::Ollama => Vec::new(),
        }
        .into_iter()
        .map(|frame: Value| frame.to_string())
        .collect()
    }

    pub(crate) fn text(self, text: &str) -> String {
        match self {
            Self::Chat => json!({"choices": [
                {"index": 0, "delta": {"content": text}, "finish_reason": null}]}),
            Self::Responses => {
                json!({"type": "response.output_text.delta", "output_index": 0, "delta": text})
            }
            Self::Anthropic => json!({"type": "content_block_delta", "index": 0,
                                      "delta": {"type": "text_delta", "text": text}}),
            Self::Gemini => json!({"candidates": [{"content": {"parts": [{"text": text}]}}]}),
            Self::Ollama => json!({"model": "m-1", "done": false,
                                   "message": {"role": "assistant", "content": text}}),
        }
        .to_string()
    }

    /// One tool call, `find` with id `c1`, whose arguments come in these pieces where the format can.
    pub(crate) fn call(self, pieces: &[&str]) -> Vec<String> {
        let whole = pieces.concat();
        let object: Value = serde_json::from_str(&whole).unwrap();
        let mut frames = Vec::new();
        match self {
            Self::Chat => {
                let call = |call: Value| json!({"choices": [{"delta": {"tool_calls": [call]}}]});
                frames.push(call(json!({"index": 0, "id": "c1", "type": "function",
                                        "function": {"name": "find", "arguments": ""}})));
                frames.extend(
                    pieces
                        .iter()
                        .map(|piece| call(json!({"index": 0, "function": {"arguments": piece}}))),
                );
            }
            Self::Responses => {
                frames.extend(pieces.iter().map(|piece| {
                    json!({"type": "response.function_call_arguments.delta", "output_index": 1,
                           "delta": piece})
                }));
                let item = json!({"type": "function_call", "call_id": "c1", "name": "find",
                                  "arguments": whole});
                frames.push(json!({"type": "response.output_item.done", "output_index": 1,
                                   "item": item}));
            }
            Self::Anthropic => {
                frames.push(json!({"type": "content_block_start", "index": 1, "content_block":
                    {"type": "tool_use", "id": "c1", "name": "find", "input": {}}}));
                frames.extend(pieces.iter().map(|piece| {
                    json!({"type": "content_block_delta", "index": 1,
                           "delta": {"type": "input_json_delta", "partial_json": piece}})
                }));
                frames.push(json!({"type": "content_block_stop", "index": 1}));
            }
            Self::Gemini => frames.push(json!({"candidates": [{"content": {"parts": [
                {"functionCall": {"id": "c1", "name": "find", "args": object}}]}}]})),
            Self::Ollama => frames.push(json!({"done": false, "message": {"content": "",
                "tool_calls": [{"id": "c1", "function": {"name": "find", "arguments": object}}]}})),
        }
        frames.iter().map(Value::to_string).collect()
    }

    /// The frame with which everything is said: why it ended, and 10 and 5 tokens.
    pub(crate) fn stop(self) -> Vec<String> {
        match self {
            Self::Chat => vec![
                json!({"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 5}}),
                json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}),
            ],
            Self::Responses => vec![json!({"type": "response.completed", "response": {
                "model": "m-1", "status": "completed", "error": null,
                "usage": {"input_tokens": 10, "output_tokens": 5}}})],
            Self::Anthropic => vec![
                json!({"type": "content_block_stop", "index": 0}),
                json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"},
                       "usage": {"output_tokens": 5}}),
            ],
            Self::Gemini => vec![json!({"modelVersion": "m-1",
                "candidates": [{"finishReason": "STOP"}],
                "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 5}})],
            Self::Ollama => vec![json!({"model": "m-1", "done": true, "done_reason": "stop",
                "message": {"role": "assistant", "content": ""},
                "prompt_eval_count": 10, "eval_count": 5})],
        }
        .into_iter()
        .map(|frame: Value| frame.to_string())
        .collect()
    }

    /// What comes after that, in those that have more.
    pub(crate) fn last(self) -> Option<String> {
        match self {
            Self::Chat => Some("[DONE]".to_owned()),
            Self::Anthropic => Some(json!({"type": "message_stop"}).to_string()),
            _ => None,
        }
    }

    /// All frames of an answer.
    pub(crate) fn frames(self, texts: &[&str]) -> Vec<String> {
        let texts = texts.iter().map(|text| self.text(text));
        let mut frames = self.begin();
        frames.extend(texts);
        frames.extend(self.stop());
        frames.extend(self.last());
        frames
    }

    /// A frame as most servers write it.
    pub(crate) fn written(self, frame: &str) -> String {
        if self.is_lines() { format!("{frame}\n") } else { format!("data: {frame}\n\n") }
    }

    pub(crate) fn all_written(self, frames: &[String]) -> String {
        frames.iter().map(|frame| self.written(frame)).collect()
    }

    /// An answer that does not come as a stream.
    pub(crate) fn whole(self, text: &str) -> Value {
        match self {
            Self::Chat => json!({"model": "m-1", "choices": [
                {"index": 0, "message": {"role": "assistant", "content": text},
                 "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 10, "completion_tokens": 5}}),
            Self::Responses => json!({"model": "m-1", "status": "completed", "error": null,
                "output": [{"type": "message", "content": [{"type": "output_text", "text": text}]}],
                "usage": {"input_tokens": 10, "output_tokens": 5}}),
            Self::Anthropic => json!({"type": "message", "model": "m-1", "stop_reason": "end_turn",
                "content": [{"type": "text", "text": text}],
                "usage": {"input_tokens": 10, "output_tokens": 5}}),
            Self::Gemini => json!({"modelVersion": "m-1", "candidates": [
                {"finishReason": "STOP", "content": {"parts": [{"text": text}]}}],
                "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 5}}),
            Self::Ollama => json!({"model": "m-1", "done": true, "done_reason": "stop",
                "message": {"role": "assistant", "content": text},
                "prompt_eval_count": 10, "eval_count": 5}),
        }
    }

    /// An error as the provider reports it, and what it is.
    pub(crate) fn error(self) -> (Value, Class) {
        match self {
            Self::Chat => (
                json!({"error": {"message": "busy", "type": "server_error", "code": "overloaded"}}),
                Class::Overloaded,
            ),
            Self::Responses => (
                json!({"type": "error", "code": "rate_limit_exceeded", "message": "slower"}),
                Class::RateLimit,
            ),
            Self::Anthropic => (
                json!({"type": "error",
                       "error": {"type": "overloaded_error", "message": "Overloaded"}}),
                Class::Overloaded,
            ),
            Self::Gemini => (
                json!({"error": {"code": 429, "message": "x", "status": "RESOURCE_EXHAUSTED"}}),
                Class::RateLimit,
            ),
            Self::Ollama => (
                json!({"error": "server busy, please try again. maximum pending requests exceeded"}),
                Class::Overloaded,
            ),
        }
    }
}

pub(crate) fn connected(mut model: Model) -> Model {
    model.connect().unwrap();
    model
}

/// One whole answer.
pub(crate) async fn ask(model: &Model) -> Result<ChatReply, Fault> {
    model.ask(&"hello".into(), LONG, 1).await
}

/// One streamed answer, and what was heard of it.
pub(crate) async fn hear(model: &Model) -> (Result<ChatReply, Fault>, Vec<StreamEvent>) {
    hear_for(model, LONG).await
}

/// The same with so much time.
pub(crate) async fn hear_for(
    model: &Model,
    time_left: Duration,
) -> (Result<ChatReply, Fault>, Vec<StreamEvent>) {
    let (sink, mut stream) = open(4096);
    let ask = async {
        let request = ChatRequest::from("hello").stream_to(sink);
        model.ask(&request, time_left, 1).await
    };
    let listen = async {
        let mut heard = Vec::new();
        while let Some(event) = stream.next().await {
            heard.push(event);
        }
        heard
    };
    tokio::join!(ask, listen)
}

/// The text that was heard.
pub(crate) fn said(heard: &[StreamEvent]) -> String {
    let texts = heard.iter().filter_map(|event| match event {
        StreamEvent::Text(text) => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}

/// The fault that ended an attempt, or broke off its answer.
pub(crate) fn fault(outcome: &Result<ChatReply, Fault>) -> Option<&Fault> {
    match outcome {
        Err(fault) => Some(fault),
        Ok(reply) => reply.broken_by(),
    }
}

/// The same as its class and code.
pub(crate) fn what(outcome: &Result<ChatReply, Fault>) -> Option<(Class, &str)> {
    fault(outcome).map(|fault| (fault.class, fault.code.as_deref().unwrap_or_default()))
}
