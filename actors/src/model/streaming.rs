//! One answer as it is written: bytes become frames, frames become text, and the text is held back or
//! let through.

use std::time::Duration;

use mainstay::fault::Fault;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use tokio::time::{Instant, timeout, timeout_at};

use super::commit::{Input, Machine, Output, Rules};
use super::frames::{Frame, Frames, Framing, MAX_FRAME, TooLong};
use super::transport::{Head, read_whole, too_large, transport};
use super::wire::{Draft, Wire, outcome};
use super::{Course, MAX_BODY, Model, superseded};
use crate::chat::stream::{Refusal, StreamWriter};
use crate::chat::{ChatReply, ChatRequest, Usage};
use crate::http::Response;
use crate::secrets::{Secrets, Veil};

/// Reads an answer and writes it to a stream. An error is that of a connection that broke before anything
/// could be said about what was used.
pub(crate) async fn answer(
    model: &Model,
    mut response: Response,
    sent: usize,
    request: &ChatRequest,
    mut writer: StreamWriter,
    secrets: &Secrets,
    course: &Course<'_>,
) -> Result<(Result<ChatReply, Fault>, Usage), Fault> {
    let Model { wire, rules, .. } = model;
    let wire = *wire;
    let Some(Manner { framing, most, is_json }) = manner(wire, &response) else {
        // An error, or a server that does not stream.
        let (head, body) = read_whole(response).await?;
        let (outcome, usage) = whole(wire, &head, &body, request, sent);
        return Ok(match outcome.map(|reply| secrets.cleaned(reply)) {
            Ok(reply) => (give(writer, rules, reply).await, usage),
            fault => (fault, usage),
        });
    };
    let head = Head::take(&mut response);
    let mut reader = Reader {
        response,
        frames: Frames::new(framing, most),
        draft: Draft::new(wire, sent),
        machine: Machine::new(*rules),
        start: Instant::now(),
        received: 0,
        brought: 0,
        framing,
        most,
        unframed: Some(Vec::new()),
        said: None,
        idle: rules.idle,
        secrets,
        veil: Veil::default(),
    };
    let ended = reader.run(&mut writer, course).await;
    let Reader { draft, mut machine, start, mut veil, unframed, .. } = reader;
    // It has come as far as it comes: no time is up, and no connection broken.
    let is_read = |fault: &Fault| {
        matches!(fault.code.as_deref(), Some("stream_cut" | "bad_frame" | "bad_utf8"))
    };
    if let (Err(fault), Some(body)) = (&ended, unframed.as_deref())
        && (is_json || matches!(body.trim_ascii_start().first(), Some(b'{' | b'[' | b'\xef')))
        && let (outcome, usage) = outcome(wire, &head, body, request, sent)
        && (is_json && is_read(fault)
            || !outcome.as_ref().is_err_and(|fault| fault.code.as_deref() == Some("not_json")))
    {
        // No stream at all: an answer, or an error, under the name of one.
        return Ok(match outcome.map(|reply| secrets.cleaned(reply)) {
            Ok(reply) => (give(writer, rules, reply).await, usage),
            fault => (fault, usage),
        });
    }
    let (outcome, usage) = match ended {
        Ok(()) => draft.finish(request, &head),
        Err(fault) => (Err(fault), draft.usage()),
    };
    let outcome = outcome.map(|reply| secrets.cleaned(reply));
    let rest = veil.rest(secrets);
    let end = outcome.as_ref().map(|_| ()).map_err(Clone::clone);
    let output = machine.on(Input::End(end), start.elapsed());
    let outcome = match (outcome, output) {
        (Ok(reply), output) => {
            let mut held = match output {
                Output::Finish(held) => held,
                _ => Vec::new(),
            };
            held.extend(Some(rest).filter(|rest| !rest.is_empty()));
            finish(writer, rules, held, reply).await
        }
        (Err(fault), _) => {
            let fault = secrets.hide(fault);
            writer.fail(fault).map(|part| ChatReply { usage, ..part })
        }
    };
    Ok((outcome, usage))
}

/// What a whole answer is, which may be a stream all the same. There are gateways that stream whatever is asked, and some
/// that call a stream what it is not.
pub(crate) fn whole(
    wire: Wire,
    head: &Head,
    body: &[u8],
    request: &ChatRequest,
    sent: usize,
) -> (Result<ChatReply, Fault>, Usage) {
    let kind = head.content_type().unwrap_or_default().to_ascii_lowercase();
    let is_packed = head.encoding().is_some_and(|it| !it.eq_ignore_ascii_case("identity"));
    let is_json = matches!(body.trim_ascii_start().first(), Some(b'{' | b'[' | b'\xef'));
    // A page that only goes by the name of a stream has none.
    let mut lines = body.split(|byte| *byte == b'\n');
    let has_events = lines.any(|line| line.starts_with(b"data:") || line.starts_with(b"event:"));
    let is_named = kind.contains("event-stream") || kind.contains("json");
    let is_events = is_named && has_events && !is_json;
    let reads = |text: &[u8]| serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok();
    let mut lines = body.split(|byte| *byte == b'\n');
    let is_lines = wire == Wire::Ollama && lines.next().is_some_and(reads) && !reads(body);
    if !head.is_success() || !(is_events || is_lines) || is_packed {
        return outcome(wire, head, body, request, sent);
    }
    let framing = if is_lines { Framing::Lines } else { Framing::Events };
    let (mut frames, mut draft) = (Frames::new(framing, MAX_BODY), Draft::new(wire, sent));
    let read = read_events(&mut frames, &mut draft, body);
    match read {
        Err(fault) if !draft.is_complete() => (Err(fault), draft.usage()),
        _ => draft.finish(request, head),
    }
}

fn read_events(frames: &mut Frames, draft: &mut Draft, body: &[u8]) -> Result<(), Fault> {
    frames.push(body).map_err(too_long)?;
    frames.end().map_err(too_long)?;
    while let Some(frame) = frames.next() {
        match frame {
            Frame::Data(data) => drop(draft.frame(&data)?),
            Frame::Error(data) => draft.failed(&data)?,
            Frame::Beat => {}
        }
        if draft.is_over() {
            break;
        }
    }
    if draft.is_whole() { Ok(()) } else { Err(cut_off()) }
}

fn cut_off() -> Fault {
    Fault::network("the stream ended without its final frame").with_code("stream_cut")
}

/// How a body is to be read.
struct Manner {
    framing: Framing,
    /// The longest frame, in bytes.
    most: usize,
    /// It is called JSON: where it has no frame it is no answer.
    is_json: bool,
}

/// How the body is to be read; `None` for whole.
fn manner(wire: Wire, response: &Response) -> Option<Manner> {
    let packed = |encoding: &HeaderValue| !encoding.as_bytes().eq_ignore_ascii_case(b"identity");
    // Nothing can be read of what is packed, which was not asked for, and that is to be said.
    if !response.status().is_success()
        || response.headers().get(CONTENT_ENCODING).is_some_and(packed)
    {
        return None;
    }
    let kind = response.headers().get(CONTENT_TYPE).map(|kind| kind.as_bytes());
    let kind = String::from_utf8_lossy(kind.unwrap_or_default()).to_ascii_lowercase();
    if kind.contains("ndjson") || kind.contains("jsonl") {
        return Some(Manner { framing: Framing::Lines, most: MAX_FRAME, is_json: false });
    }
    // The last frames of a response have all of it in them once more.
    let most = if wire == Wire::Responses { MAX_BODY } else { MAX_FRAME };
    if kind.contains("event-stream") {
        return Some(Manner { framing: Framing::Events, most, is_json: false });
    }
    // What a proxy calls Ollama's lines, each of which is that. A whole answer may be one line.
    if kind.contains("json") && wire == Wire::Ollama {
        return Some(Manner { framing: Framing::Lines, most: MAX_BODY, is_json: true });
    }
    // By the content type alone a page of a proxy and a stream that a proxy relabeled look the same;
    // what is labeled as something else is that.
    if kind.contains("json") || kind.contains("html") {
        return None;
    }
    let framing = if wire == Wire::Ollama { Framing::Lines } else { Framing::Events };
    Some(Manner { framing, most, is_json: false })
}

async fn give(writer: StreamWriter, rules: &Rules, reply: ChatReply) -> Result<ChatReply, Fault> {
    let held = if reply.text.is_empty() { Vec::new() } else { vec![reply.text.clone()] };
    finish(writer, rules, held, reply).await
}

/// Writes what is left, the tool calls and the end.
async fn finish(
    mut writer: StreamWriter,
    rules: &Rules,
    held: Vec<String>,
    reply: ChatReply,
) -> Result<ChatReply, Fault> {
    let written = async {
        for text in held {
            listen(rules.idle, writer.text(text)).await?;
        }
        for call in &reply.tool_calls {
            listen(rules.idle, writer.tool_call(call.clone())).await?;
        }
        Ok(())
    };
    match written.await {
        Ok(()) => {
            // Superseded in the last moment: the answer is as good as before, if anybody wants it.
            let _ = writer.finish_as(&reply);
            Ok(reply)
        }
        Err(fault) => writer.fail(fault).map(|part| ChatReply { usage: reply.usage, ..part }),
    }
}

async fn listen(
    patience: Duration,
    written: impl Future<Output = Result<(), Refusal>>,
) -> Result<(), Fault> {
    match timeout(patience, written).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(superseded()),
        Err(_) => {
            let text = format!("the stream was full for {patience:?}, and nobody listened");
            Err(Fault::cancelled(text).with_code("listener_stalled"))
        }
    }
}

/// How long the final frame is waited for when all was said: it may still bring the usage.
const LAST: Duration = Duration::from_secs(1);
/// How long the end of the body is waited for after the final frame.
const TRAILER: Duration = Duration::from_millis(20);

/// The bytes in which a letter may come: some servers send 300 with each token.
const WRAPPING: usize = 512;

/// How long is waited where a time that is not reached by any clock is waited for.
const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

struct Reader<'a> {
    response: Response,
    frames: Frames,
    draft: Draft,
    machine: Machine,
    start: Instant,
    received: usize,
    /// Of what was received, what says something: bytes of text, and letters that nobody hears.
    brought: usize,
    framing: Framing,
    /// The longest frame, in bytes.
    most: usize,
    /// All that came, up to the first frame. A line is one if it can be read.
    unframed: Option<Vec<u8>>,
    /// When all had been said.
    said: Option<Instant>,
    idle: Duration,
    secrets: &'a Secrets,
    veil: Veil,
}

impl Reader<'_> {
    /// Reads to the final frame. An answer that was all said needs none, nor is it any the worse for what
    /// comes instead.
    async fn run(&mut self, writer: &mut StreamWriter, course: &Course<'_>) -> Result<(), Fault> {
        let mut broken = None;
        loop {
            course.used(self.draft.usage());
            if self.draft.kept() > MAX_BODY {
                return self.unless_said(too_large());
            }
            while let Some(frame) = self.frames.next() {
                let text = match self.text_of(frame) {
                    Ok(text) => text,
                    Err(fault) => {
                        self.rest().await;
                        return self.unless_said(fault);
                    }
                };
                let bytes = text.len();
                self.step(Input::Frame(text), writer).await?;
                let (characters, content) = self.draft.unheard();
                self.brought += bytes + characters;
                self.machine.on(Input::Brought { characters, content }, self.start.elapsed());
                if self.draft.is_over() {
                    self.leave().await;
                    return Ok(());
                }
            }
            if let Some(fault) = broken {
                return self.unless_said(fault);
            }
            let tick = self.start.checked_add(self.machine.next_tick());
            let mut wake = tick.unwrap_or_else(|| Instant::now() + NEVER);
            if self.draft.is_complete() {
                // Signs of life do not prolong it; what says that there was more does.
                let last = *self.said.get_or_insert_with(Instant::now) + LAST;
                wake = wake.min(last);
            } else {
                self.said = None;
            }
            match timeout_at(wake, self.response.chunk()).await {
                // All was said, and the final frame does not come.
                Err(_) if self.draft.is_complete() => return Ok(()),
                Err(_) => self.step(Input::Tick, writer).await?,
                Ok(Ok(Some(chunk))) => {
                    self.received += chunk.len();
                    if self.received
                        > MAX_BODY.saturating_add(self.brought.saturating_mul(WRAPPING))
                    {
                        // What is here is not all of it.
                        self.unframed = None;
                        return self.unless_said(too_large());
                    }
                    self.keep(&chunk);
                    // What was whole before it is still to be read.
                    broken = self.frames.push(&chunk).map_err(too_long).err();
                }
                Ok(Ok(None)) => return self.ended(writer).await,
                Ok(Err(error)) => return self.unless_said(transport(error)),
            }
        }
    }

    /// What a frame says that a listener may hear.
    fn text_of(&mut self, frame: Frame) -> Result<String, Fault> {
        if self.framing == Framing::Events && frame != Frame::Beat {
            self.unframed = None;
        }
        let text = match frame {
            Frame::Data(data) => self.draft.frame(&data)?,
            Frame::Error(data) => {
                self.draft.failed(&data)?;
                String::new()
            }
            Frame::Beat => return Ok(String::new()),
        };
        self.unframed = None;
        Ok(self.veil.push(self.secrets, text))
    }

    fn keep(&mut self, chunk: &[u8]) {
        let whole = self.unframed.as_ref().map_or(0, Vec::len) + chunk.len() <= self.most;
        match &mut self.unframed {
            Some(all) if whole => all.extend_from_slice(chunk),
            all => *all = None,
        }
    }

    /// The first frame cannot be read: what is no stream is looked at whole.
    async fn rest(&mut self) {
        let idle = self.idle;
        let rest = async {
            while self.unframed.is_some()
                && let Ok(Some(chunk)) = self.response.chunk().await
            {
                self.keep(&chunk);
            }
        };
        let _ = timeout(idle, rest).await;
    }

    /// A failure after all was said is none.
    fn unless_said(&self, fault: Fault) -> Result<(), Fault> {
        if self.draft.is_complete() { Ok(()) } else { Err(fault) }
    }

    /// The final frame is there. Usually the body's end comes with it, and only a body that was read to
    /// its end leaves a connection that can be used again.
    async fn leave(&mut self) {
        let rest = async { while let Ok(Some(_)) = self.response.chunk().await {} };
        let _ = timeout(TRAILER, rest).await;
    }

    /// The body has ended.
    async fn ended(&mut self, writer: &mut StreamWriter) -> Result<(), Fault> {
        if let Err(error) = self.frames.end() {
            return self.unless_said(too_long(error));
        }
        while let Some(frame) = self.frames.next() {
            // Half a frame is no frame.
            let Ok(text) = self.text_of(frame) else { break };
            self.step(Input::Frame(text), writer).await?;
        }
        if self.draft.is_whole() {
            return Ok(());
        }
        Err(cut_off())
    }

    async fn step(&mut self, input: Input, writer: &mut StreamWriter) -> Result<(), Fault> {
        match self.machine.on(input, self.start.elapsed()) {
            Output::Give(texts) => {
                let before = Instant::now();
                for text in texts {
                    listen(self.idle, writer.text(text)).await?;
                }
                self.machine.on(Input::Held(before.elapsed()), self.start.elapsed());
                Ok(())
            }
            Output::Fail { fault, .. } => Err(fault),
            Output::Wait | Output::Finish(_) => Ok(()),
        }
    }
}

fn too_long(_: TooLong) -> Fault {
    Fault::output_invalid("a frame of the stream is too long").with_code("frame_too_large")
}
