//! What the wire formats have in common: an answer, whole or in frames, is read into [`Delta`]s, and
//! a [`Draft`] makes the reply or the fault of them.
//!
//! *Invariant.* No format says what a failure means; each says what happened, and this module and
//! [`classify`](super::classify) judge it, so that the same thing has the same class everywhere.

use std::borrow::Cow;

use mainstay::fault::{Class, Fault};
use reqwest::Url;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::again::{cut_off, unusable};
use super::calls::{Calls, Piece};
use super::classify::{is_code, is_error};
use super::ending::{Ending, Said, Stop};
use super::openai::typed;
pub(crate) use super::read::{
    Heard, at, count_at, list_at, number_at, object_at, text_at, truth_at,
};
use super::transport::Head;
use super::{anthropic, gemini, ollama, openai, responses};
use crate::chat::{ChatReply, ChatRequest, Finish, PAUSED, Usage};
use crate::exact;
use crate::names::{self, Ids};

mod format;

/// The wire formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// OpenAI's chat completions.
    Chat,
    /// OpenAI's responses.
    Responses,
    /// Anthropic's messages.
    Anthropic,
    /// Google's generateContent.
    Gemini,
    /// Ollama's own `/api/chat`.
    Ollama,
}

/// What a request says differently from server to server of one format.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Terms {
    /// Whether the token limit is called `max_completion_tokens`, in chat completions.
    pub(crate) completion: bool,
    /// How large a window is wanted, in tokens, where that can be said.
    pub(crate) window: Option<u32>,
    /// Whether it is told which messages are on the way to an answer, in responses.
    pub(crate) phases: bool,
}

/// One thing an answer says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Delta {
    /// More text.
    Text(String),
    /// More of the tool call with this number.
    Call { number: u64, id: Option<String>, name: Option<String>, arguments: String },
    /// Which model answers.
    Model(String),
    /// Tokens so far; what is `None` is as before.
    Usage { input: Option<u64>, output: Option<u64> },
    /// So many letters of what it thinks, which nobody hears.
    Thought(usize),
    /// The model declined.
    Refused,
    /// All of it once more: what had not been said is said now.
    Again(Vec<Delta>),
    /// Why it ended. What was to be said has been said.
    Stop(Stop),
    /// The last frame.
    End,
    /// An error, as the body that reports it.
    Error(Value),
}

/// How a format reads: what it found, or why the answer has not the shape it must have.
pub(crate) type Found = Result<Vec<Delta>, String>;

impl Wire {
    /// Where a request goes.
    pub(crate) fn url(self, base: &Url, model: &str, stream: bool) -> Option<Url> {
        let mut url = base.clone();
        {
            let mut path = url.path_segments_mut().ok()?;
            path.pop_if_empty();
            match self {
                Self::Chat => path.extend(["chat", "completions"]),
                Self::Responses => path.push("responses"),
                Self::Anthropic => path.push("messages"),
                Self::Ollama => path.extend(["api", "chat"]),
                Self::Gemini => {
                    if !model.contains('/') {
                        path.push("models");
                    }
                    let method = if stream { "streamGenerateContent" } else { "generateContent" };
                    let mut parts = model.split('/').peekable();
                    while let Some(part) = parts.next() {
                        if parts.peek().is_some() {
                            path.push(part);
                        } else {
                            path.push(&format!("{part}:{method}"));
                        }
                    }
                    &mut path
                }
            };
        }
        if self == Self::Gemini && stream {
            // Without it the stream is one JSON list.
            url.query_pairs_mut().append_pair("alt", "sse");
        }
        Some(url)
    }

    /// The ids of calls that the server at this host takes.
    pub(crate) fn ids(self, host: Option<&str>) -> Ids {
        let is_mistral = |host: &str| host == "mistral.ai" || host.ends_with(".mistral.ai");
        match self {
            Self::Chat if host.is_some_and(is_mistral) => Ids::Nine,
            Self::Chat | Self::Responses => Ids::Short,
            Self::Anthropic => Ids::Plain,
            Self::Gemini | Self::Ollama => Ids::Any,
        }
    }

    /// The body of a request.
    ///
    /// # Errors
    /// `InputValidation` for what is not JSON and for what the format cannot say.
    pub(crate) fn body(
        self,
        model: &str,
        request: &ChatRequest,
        stream: bool,
        terms: Terms,
    ) -> Result<Vec<u8>, Fault> {
        let body = match self {
            Self::Chat => return openai::body(model, request, stream, terms.completion),
            Self::Responses => responses::body(model, request, stream, terms.phases),
            Self::Anthropic => anthropic::body(model, request, stream),
            Self::Gemini => gemini::body(request),
            Self::Ollama => ollama::body(model, request, stream, terms.window),
        }?;
        serde_json::to_vec(&body).map_err(unwritable)
    }

    /// What an answer says, read without a tree of values, where the format can; `None` if it is not what
    /// nearly all answers are: it has to be read as [`Wire::whole`] does.
    fn whole_of(self, body: &[u8]) -> Option<typed::Read> {
        match self {
            Self::Chat => typed::whole(body),
            _ => None,
        }
    }

    /// The same for a frame.
    fn frame_of(self, frame: &[u8], first: &mut Heard) -> Option<typed::Read> {
        match self {
            Self::Chat => typed::frame(frame, first),
            _ => None,
        }
    }

    fn whole(self, answer: &Value) -> Found {
        match self {
            Self::Chat => openai::whole(answer),
            Self::Responses => responses::whole(answer),
            Self::Anthropic => anthropic::whole(answer),
            Self::Gemini => gemini::whole(answer),
            Self::Ollama => ollama::whole(answer),
        }
    }

    fn frame(self, frame: &Value, number: u64, first: &mut Heard) -> Found {
        if is_error(frame) {
            return Ok(vec![Delta::Error(frame.clone())]);
        }
        match self {
            Self::Chat => openai::frame(frame, first),
            Self::Responses => responses::frame(frame, first),
            Self::Anthropic => anthropic::frame(frame),
            Self::Gemini => gemini::frame(frame, number, first),
            Self::Ollama => ollama::frame(frame, number),
        }
    }
}

/// An answer that is being put together.
#[derive(Debug)]
pub(crate) struct Draft {
    wire: Wire,
    sent: usize,
    received: usize,
    frames: u64,
    heard: Heard,
    text: String,
    calls: Calls,
    model: String,
    input: Option<u64>,
    output: Option<u64>,
    /// Letters that came and are no text: of calls, and of what was thought.
    unheard: usize,
    refused: bool,
    stop: Option<Stop>,
    ending: Ending,
    ended: bool,
    error: Option<Value>,
}

impl Draft {
    /// An empty one, for a request of so many bytes.
    pub(crate) fn new(wire: Wire, sent: usize) -> Self {
        Self {
            wire,
            sent,
            received: 0,
            frames: 0,
            heard: Heard::default(),
            text: String::new(),
            calls: Calls::default(),
            model: String::new(),
            input: None,
            output: None,
            unheard: 0,
            refused: false,
            stop: None,
            ending: Ending::default(),
            ended: false,
            error: None,
        }
    }

    /// Reads one frame of a stream and returns the text in it.
    ///
    /// # Errors
    /// The frame is not JSON, or not of this format. What it says went wrong is for
    /// [`Draft::finish`] to tell; [`Draft::is_over`] tells that there is nothing more to read.
    pub(crate) fn frame(&mut self, data: &[u8]) -> Result<String, Fault> {
        self.received += data.len();
        self.frames += 1;
        if data.trim_ascii() == b"[DONE]" {
            // Where it is no word of the format, a gateway says it, which may not know.
            self.ended = self.wire == Wire::Chat || self.ending.said != Said::Nothing;
            return Ok(String::new());
        }
        if let Some(found) = self.wire.frame_of(data, &mut self.heard) {
            let before = self.text.len();
            found.tell(|delta| self.hear(delta));
            self.weigh();
            return Ok(self.text[before..].to_owned());
        }
        let value = serde_json::from_slice::<Value>(data).map_err(|_| unreadable(data))?;
        let found = self
            .wire
            .frame(&value, self.frames, &mut self.heard)
            .and_then(|found| exact(found, data));
        let found = found.map_err(bad_shape)?;
        let before = self.text.len();
        self.take(found);
        self.weigh();
        Ok(self.text[before..].to_owned())
    }

    /// Reads the data of an event that is called an error, whatever it says.
    ///
    /// # Errors
    /// What went wrong is told in JSON, and that has not come whole: as [`Draft::frame`].
    pub(crate) fn failed(&mut self, data: &[u8]) -> Result<(), Fault> {
        self.received += data.len();
        self.frames += 1;
        self.error = Some(match serde_json::from_slice::<Value>(data) {
            Ok(error) if is_error(&error) => error,
            Ok(error) => json!({ "error": error }),
            Err(_) if begins_as_json(data) => return Err(unreadable(data)),
            Err(_) => json!({ "error": String::from_utf8_lossy(data) }),
        });
        Ok(())
    }

    /// Letters that came since it was asked last, and are no text; and whether a tool call has begun.
    pub(crate) fn unheard(&mut self) -> (usize, bool) {
        (std::mem::take(&mut self.unheard), !self.calls.is_empty())
    }

    /// The bytes that are kept of what was said.
    pub(crate) fn kept(&self) -> usize {
        self.text.len() + self.calls.size() + self.heard.aside.size()
    }

    /// Whether the final frame was read, or an error.
    pub(crate) fn is_over(&self) -> bool {
        self.ended || self.error.is_some()
    }

    /// Whether everything that was to be said has been said, even if the final frame is missing.
    pub(crate) fn is_complete(&self) -> bool {
        self.ended || self.ending.said == Said::All
    }

    /// The stream has ended: whether it was whole. Where each frame said that it was the last, one was.
    pub(crate) fn is_whole(&mut self) -> bool {
        if self.ending.said == Said::Perhaps {
            self.ending.said = Said::All;
        }
        self.is_complete() || self.is_over()
    }

    /// A frame was read. There are gateways that say that a model is done where it has not begun.
    fn weigh(&mut self) {
        let is_good = matches!(self.stop, Some(Stop::Complete | Stop::ToolCalls));
        self.ending.weigh(!self.says_nothing() || self.refused || !is_good);
    }

    fn says_nothing(&self) -> bool {
        self.text.is_empty() && self.calls.is_empty()
    }

    fn take(&mut self, found: impl IntoIterator<Item = Delta>) {
        for delta in found {
            self.hear(delta);
        }
    }

    fn hear(&mut self, delta: Delta) {
        match delta {
            Delta::Text(text) => {
                self.ending.content |= !text.is_empty();
                if self.text.is_empty() {
                    // The whole of most answers.
                    self.text = text;
                } else {
                    self.text.push_str(&text);
                }
            }
            Delta::Call { number, id, name, arguments } => {
                let names = [&id, &name].into_iter().flatten().any(|name| !name.is_empty());
                self.ending.content |= names || !arguments.is_empty();
                self.unheard += arguments.chars().count();
                let id = id.unwrap_or_default();
                self.calls.hear(self.wire, Piece { number, id, name, arguments });
            }
            Delta::Model(model) => self.model = model,
            Delta::Usage { input, output } => {
                // Of Anthropic's counts, that at the end may be without what came from a cache.
                let least = self.input.filter(|_| self.wire == Wire::Anthropic);
                self.input = input.max(least).or(self.input);
                self.output = output.or(self.output);
            }
            Delta::Thought(letters) => {
                self.ending.content |= letters > 0;
                self.unheard += letters;
            }
            Delta::Refused => self.refused = true,
            Delta::Again(all) => {
                let is_call = |delta: &&Delta| matches!(delta, Delta::Call { .. });
                let silent = self.text.is_empty();
                // Some of the calls may have been said nowhere else. Nobody has heard of one yet.
                let more = all.iter().filter(is_call).count() > self.calls.len();
                if more {
                    self.calls = Calls::default();
                }
                let missed = all.into_iter().filter(|delta| match delta {
                    Delta::Text(_) => silent,
                    Delta::Call { .. } => more,
                    _ => true,
                });
                self.take(missed.collect::<Vec<_>>());
            }
            Delta::Stop(stop) => {
                self.ending.stopped = true;
                self.stop = Some(stop);
            }
            Delta::End => self.ended = true,
            Delta::Error(error) => self.error = Some(error),
        }
    }

    /// Tokens used, by the provider's word or by our estimate. A stream that broke off has not had its
    /// last word on that.
    pub(crate) fn usage(&self) -> Usage {
        let said = self.text.len() + self.calls.size();
        // Frames are mostly packaging.
        let guess = estimate(self.sent, if self.frames > 0 { said } else { self.received });
        match (self.input, self.output) {
            (None | Some(0), None | Some(0)) => guess,
            (input, output) if self.is_complete() => {
                // What was there was not for nothing.
                let input = input.filter(|input| *input > 0 || self.sent == 0);
                let output = output.filter(|output| *output > 0 || said == 0);
                Usage {
                    input: input.unwrap_or(guess.input),
                    output: output.unwrap_or(guess.output),
                    estimated: input.is_none() || output.is_none(),
                }
            }
            (input, output) => Usage {
                input: input.filter(|input| *input > 0).unwrap_or(guess.input),
                output: output.unwrap_or(0).max(guess.output),
                estimated: true,
            },
        }
    }

    /// The reply or the fault. A fault can have cost something, too: an answer that was cut off is
    /// paid for.
    pub(crate) fn finish(
        self,
        request: &ChatRequest,
        head: &Head,
    ) -> (Result<ChatReply, Fault>, Usage) {
        let usage = self.usage();
        let reply = self.judge(usage, request, head);
        (reply.map(|reply| names::heard(reply, request)), usage)
    }

    fn judge(self, usage: Usage, request: &ChatRequest, head: &Head) -> Result<ChatReply, Fault> {
        if let Some(error) = self.error {
            return Err(head.judge(error.to_string().as_bytes()));
        }
        if self.frames > 0 && self.stop.is_none() && !self.refused && self.says_nothing() {
            return Err(bad_shape(NO_CHOICE.to_owned()));
        }
        let finish = match self.stop {
            Some(Stop::Truncated) => return Err(cut_off(!self.calls.is_empty())),
            Some(Stop::Filtered(code)) => {
                let text = "the provider filtered the answer";
                return Err(Fault::content_filtered(text).with_code(plain(code, "content_filter")));
            }
            Some(Stop::ContextLength) => {
                return Err(Fault::context_length("the answer did not fit the context window")
                    .with_code("model_context_window_exceeded"));
            }
            Some(Stop::BadOutput(code)) => {
                let text = "the model made a tool call that cannot be read";
                return Err(unusable(text, plain(code, "bad_tool_call")));
            }
            Some(Stop::Spoiled(code)) => {
                let text = "the provider says that the answer is not as it should be";
                return Err(unusable(text, plain(code, "spoiled")));
            }
            Some(Stop::Incomplete(why)) => {
                let named = is_code(&why).then(|| format!("that is not known here: {why}"));
                let named = named.as_deref().unwrap_or("that is not said");
                return Err(Fault::new(
                    Class::Unknown,
                    format!("the provider calls the answer incomplete, for a reason {named}"),
                )
                .with_code(plain(why, "incomplete")));
            }
            Some(Stop::Broken(code)) => {
                let text = "the provider broke the answer off";
                return Err(Fault::server_transient(text).with_code(plain(code, "broken_off")));
            }
            _ if self.refused => {
                return Err(Fault::content_filtered("the model refused").with_code("refusal"));
            }
            // It has come to nothing, for whatever reason.
            Some(Stop::Other(other))
                if self.text.is_empty() && self.calls.is_empty() && other != PAUSED =>
            {
                let text = "the model said nothing and asked for nothing, for a reason that is not known here";
                return Err(unusable(text, plain(other, "empty_answer")));
            }
            Some(Stop::Other(other)) => Finish::Other(other),
            Some(Stop::ToolCalls) => Finish::ToolCalls,
            // Some formats have one word for both.
            Some(Stop::Complete) | None if self.calls.is_empty() => {
                if self.text.is_empty() {
                    let text = "the model said nothing and asked for nothing";
                    return Err(unusable(text, "empty_answer"));
                }
                Finish::Stop
            }
            Some(Stop::Complete) | None => Finish::ToolCalls,
        };
        if self.calls.lacks_a_name() {
            let text = "the model made a tool call without a name";
            return Err(unusable(text, "bad_tool_call"));
        }
        let tool_calls = self.calls.made();
        if tool_calls.is_empty() {
            format::kept(&self.text, request)?;
        }
        Ok(ChatReply { text: self.text, tool_calls, usage, finish, model: self.model })
    }
}

/// What a whole answer is.
pub(crate) fn outcome(
    wire: Wire,
    head: &Head,
    body: &[u8],
    request: &ChatRequest,
    sent: usize,
) -> (Result<ChatReply, Fault>, Usage) {
    let body = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
    if !head.is_success() {
        return (Err(head.judge(body)), Usage::default());
    }
    let mut draft = Draft::new(wire, sent);
    draft.received = body.len();
    if let Some(found) = wire.whole_of(body) {
        found.tell(|delta| draft.hear(delta));
        return draft.finish(request, head);
    }
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        // Something that is not the model has answered: a proxy's page, a login form. The model was
        // not heard, and the page may be gone the next time.
        let (status, kind) = (head.status, head.content_type());
        let kind = kind.as_deref().unwrap_or("no content type");
        let packed = match head.encoding() {
            Some(encoding) => format!(", packed as {encoding}, which was not asked for"),
            None => String::new(),
        };
        let text = format!("status {status} with a body that is not JSON ({kind}{packed})");
        return (Err(Fault::server_transient(text).with_code("not_json")), Usage::default());
    };
    if is_error(&value) {
        return (Err(head.judge(body)), Usage::default());
    }
    match wire.whole(&value).and_then(|found| exact(found, body)) {
        Ok(found) => {
            draft.take(found);
            draft.ended = true;
        }
        Err(what) => return (Err(bad_shape(what)), draft.usage()),
    }
    draft.finish(request, head)
}

/// What was found, unless the arguments of a call in it have become other ones by being read: where they
/// are an object, they are written anew.
fn exact(found: Vec<Delta>, text: &[u8]) -> Found {
    let written = |delta: &Delta| {
        matches!(delta, Delta::Call { arguments, .. } if !arguments.is_empty())
            || matches!(delta, Delta::Again(_))
    };
    match found.iter().any(written).then(|| exact::too_long(text)).flatten() {
        Some(number) => Err(format!("with a tool call is a number that does not fit: {number}")),
        None => Ok(found),
    }
}

/// The provider's word as a code, or ours where it is none: events hold no user data.
fn plain(code: String, otherwise: &'static str) -> Cow<'static, str> {
    if is_code(&code) { code.into() } else { otherwise.into() }
}

/// Whether this is an object as JSON has it, as far as its first member. Others, as Python prints them
/// (`{'error': 'too many requests'}`), are words.
fn begins_as_json(data: &[u8]) -> bool {
    let inner = data.trim_ascii_start().strip_prefix(b"{");
    inner.is_some_and(|inner| matches!(inner.trim_ascii_start().first(), None | Some(b'"' | b'}')))
}

/// Something between the model and us mangles frames; it may be gone the next time.
fn unreadable(frame: &[u8]) -> Fault {
    let (code, what) = match std::str::from_utf8(frame) {
        Ok(_) => ("bad_frame", "is not JSON"),
        Err(_) => ("bad_utf8", "is not UTF-8"),
    };
    Fault::server_transient(format!("a frame of the stream {what}")).with_code(code)
}

fn bad_shape(what: String) -> Fault {
    let code = if what == NO_CHOICE { "no_choice" } else { "bad_shape" };
    Fault::output_invalid(format!("the answer has not the shape it must have: {what}"))
        .with_code(code)
}

/// What a format says of an answer that is well-formed and empty.
pub(crate) const NO_CHOICE: &str = "no choice in it";

/// Tokens for these bytes, at a token for four.
pub(crate) fn estimate(sent: usize, received: usize) -> Usage {
    let tokens = |bytes: usize| (bytes as u64).div_ceil(4);
    Usage { input: tokens(sent), output: tokens(received), estimated: true }
}

// What the formats share in reading and writing.

/// The schema of a tool, or of an answer.
pub(crate) fn schema(text: &str, of: &str) -> Result<Value, Fault> {
    serde_json::from_str(text).map_err(|error| bad_schema(error, of))
}

/// The same as it stands.
pub(crate) fn raw(text: &str, of: impl FnOnce() -> String) -> Result<&RawValue, Fault> {
    serde_json::from_str(text).map_err(|error| bad_schema(error, &of()))
}

fn bad_schema(error: serde_json::Error, of: &str) -> Fault {
    Fault::input_validation(format!("the schema of {of} is not JSON"))
        .with_code("bad_schema")
        .with_source(error)
}

/// The fault of a request that no JSON can be made of.
pub(crate) fn unwritable(error: serde_json::Error) -> Fault {
    Fault::internal("the request cannot be written as JSON").with_source(error)
}

/// The fault of a request that a format cannot express.
pub(crate) fn unsupported(what: &str, api: &str) -> Fault {
    Fault::input_validation(format!("{api} has no {what}")).with_code("unsupported")
}

/// The arguments of a tool call as an object, for formats that want one. A model can have written
/// anything; what is no object becomes an object that holds it.
pub(crate) fn arguments(text: &str) -> Value {
    match serde_json::from_str::<Value>(text) {
        Ok(value @ Value::Object(_)) => value,
        Ok(Value::Null) => Value::Object(serde_json::Map::new()),
        Ok(value) => json!({ "value": value }),
        Err(_) if text.trim().is_empty() => Value::Object(serde_json::Map::new()),
        Err(_) => json!({ "value": text }),
    }
}

/// The same as text, and an object as it was written: servers read the arguments of earlier calls, too, and
/// refuse a whole request for one that is none.
pub(crate) fn rewritten(text: &str) -> Cow<'_, str> {
    let is_object = text.trim_start().starts_with('{')
        && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    if is_object { Cow::Borrowed(text) } else { Cow::Owned(arguments(text).to_string()) }
}

/// What was thought, of which only the length counts.
pub(crate) fn thought(text: &str) -> Delta {
    Delta::Thought(text.chars().count())
}

/// The arguments of a call as text. Some formats have them so and some as an object, and not all servers
/// keep to theirs.
pub(crate) fn written(arguments: Option<&Value>) -> String {
    match arguments {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    }
}

/// Sets a field unless there is nothing to say.
pub(crate) fn set(body: &mut Value, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        body[name] = value.into();
    }
}

/// A temperature without the digits that a conversion to f64 would add.
pub(crate) fn decimal(number: f32) -> Value {
    number.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

#[cfg(test)]
mod tests;
