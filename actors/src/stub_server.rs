//! A small server in this process that answers what the test says: an OpenAI-compatible endpoint as
//! far as a client can tell, and a bad one on demand.
//!
//! ```
//! use mainstay_actors::stub_server::{Row, StubServer};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let server = StubServer::start().await?;
//! server.then(Row::error(429, "rate_limit_exceeded", "slower").header("retry-after", "2"));
//! server.then(Row::reply("hello"));
//! // ... a client asks `server.url()` ...
//! assert_eq!(server.count(), 0);
//! # Ok::<_, std::io::Error>(())
//! # })?;
//! # Ok::<_, std::io::Error>(())
//! ```
//!
//! It listens on a free port of the loopback address, speaks just enough HTTP/1.1, closes each
//! connection after one answer, and keeps every request with its time, so that a test can count what
//! was really sent, and every connection that the client left before its answer was whole. It is for
//! tests: bodies are read whole, up to 64 MiB, and nothing is encrypted.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Barrier, Notify, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

const MAX_HEAD: usize = 64 * 1024;
const MAX_BODY: usize = 64 * 1024 * 1024;

/// One answer, and how it is given.
#[derive(Clone, Debug)]
#[must_use]
pub struct Row {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    delay: Duration,
    manner: Manner,
}

#[derive(Clone, Debug)]
enum Manner {
    Whole,
    ResetBefore,
    ResetAfter,
    CutOff(usize),
    Slow { piece: usize, pause: Duration },
    Stream(Stream),
    Hang,
}

#[derive(Clone, Debug)]
struct Stream {
    pieces: Vec<Vec<u8>>,
    pause: Duration,
    meeting: Option<Arc<Barrier>>,
    end: StreamEnd,
}

/// How a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamEnd {
    /// In order.
    Whole,
    /// With a reset.
    Reset,
    /// Not at all.
    Hang,
}

impl Row {
    /// Any answer. The content type is JSON unless [`Row::header`] says otherwise.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            delay: Duration::ZERO,
            manner: Manner::Whole,
        }
    }

    /// A chat completion with this text.
    pub fn reply(text: &str) -> Self {
        Self::completion(serde_json::json!({ "role": "assistant", "content": text }), "stop")
    }

    /// A chat completion that asks for these tools: name and JSON arguments each.
    pub fn tool_calls<'a>(calls: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let calls: Vec<_> = calls
            .into_iter()
            .enumerate()
            .map(|(index, (name, arguments))| {
                serde_json::json!({
                    "id": format!("call-{index}"), "type": "function",
                    "function": { "name": name, "arguments": arguments },
                })
            })
            .collect();
        let message = serde_json::json!({
            "role": "assistant", "content": null, "tool_calls": calls,
        });
        Self::completion(message, "tool_calls")
    }

    /// A chat completion of this message that ended for this reason.
    pub fn completion(message: serde_json::Value, finish_reason: &str) -> Self {
        let body = serde_json::json!({
            "id": "chatcmpl-stub", "object": "chat.completion", "created": 0, "model": "stub",
            "choices": [{ "index": 0, "message": message, "finish_reason": finish_reason }],
            "usage": { "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15 },
        });
        Self::new(200, body.to_string())
    }

    /// A stream of these pieces, server-sent events unless [`Row::header`] says otherwise, sent one by
    /// one.
    pub fn stream<P: Into<Vec<u8>>>(pieces: impl IntoIterator<Item = P>) -> Self {
        let pieces = pieces.into_iter().map(Into::into).collect();
        let end = StreamEnd::Whole;
        let stream = Stream { pieces, pause: Duration::ZERO, meeting: None, end };
        Self { manner: Manner::Stream(stream), ..Self::new(200, "") }
    }

    /// A streamed chat completion with these pieces of text, usage and final frame included.
    pub fn reply_stream<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let delta = |delta: serde_json::Value, finish: Option<&str>| {
            let choice = serde_json::json!({ "index": 0, "delta": delta, "finish_reason": finish });
            event(&serde_json::json!({ "model": "stub", "choices": [choice] }))
        };
        let texts =
            texts.into_iter().map(|text| delta(serde_json::json!({ "content": text }), None));
        let usage = serde_json::json!({
            "model": "stub", "choices": [],
            "usage": { "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15 },
        });
        let mut pieces =
            vec![delta(serde_json::json!({ "role": "assistant", "content": "" }), None)];
        pieces.extend(texts);
        pieces.push(delta(serde_json::json!({}), Some("stop")));
        pieces.push(event(&usage));
        pieces.push("data: [DONE]\n\n".to_owned());
        Self::stream(pieces)
    }

    /// An error in OpenAI's shape.
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        let error = serde_json::json!({
            "error": { "message": message, "type": null, "param": null, "code": code },
        });
        Self::new(status, error.to_string())
    }

    /// Closes the connection with a reset before the request is read. It is counted as a connection,
    /// not as a request.
    pub fn reset_before() -> Self {
        Self { manner: Manner::ResetBefore, ..Self::new(0, "") }
    }

    /// Reads the request, then closes the connection with a reset and no answer.
    pub fn reset_after() -> Self {
        Self { manner: Manner::ResetAfter, ..Self::new(0, "") }
    }

    /// Reads the request and never answers.
    pub fn hang() -> Self {
        Self { manner: Manner::Hang, ..Self::new(0, "") }
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Waits so long before it answers.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Closes the connection after so many bytes of the body.
    pub fn cut_off(mut self, bytes: usize) -> Self {
        self.manner = Manner::CutOff(bytes);
        self
    }

    /// Gives the body in pieces of so many bytes, with a pause after each.
    pub fn slow(mut self, piece: usize, pause: Duration) -> Self {
        self.manner = Manner::Slow { piece: piece.max(1), pause };
        self
    }

    /// Sends only so many pieces of the stream, then ends it so.
    pub fn end_after(mut self, pieces: usize, end: StreamEnd) -> Self {
        if let Manner::Stream(stream) = &mut self.manner {
            stream.pieces.truncate(pieces);
            stream.end = end;
        }
        self
    }

    /// Pauses after each piece of the stream.
    pub fn pause(mut self, pause: Duration) -> Self {
        if let Manner::Stream(stream) = &mut self.manner {
            stream.pause = pause;
        }
        self
    }

    /// After the first piece, the stream waits until so many connections that were given this row have
    /// come as far: so many streams are open at once.
    pub fn together(mut self, connections: usize) -> Self {
        if let Manner::Stream(stream) = &mut self.manner {
            stream.meeting = Some(Arc::new(Barrier::new(connections)));
        }
        self
    }
}

fn event(value: &serde_json::Value) -> String {
    format!("data: {value}\n\n")
}

/// A request as it came.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Seen {
    /// When it was read whole.
    pub at: Instant,
    /// The method.
    pub method: String,
    /// The path and query.
    pub path: String,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Seen {
    /// The first header of this name, given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON; null when it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

struct Shared {
    rows: Mutex<VecDeque<Row>>,
    otherwise: Mutex<Row>,
    seen: Mutex<Vec<Seen>>,
    connections: Mutex<Vec<Instant>>,
    hang_ups: watch::Sender<usize>,
    read: Notify,
}

/// The server. It stops when it is dropped.
pub struct StubServer {
    url: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl StubServer {
    /// Starts a server on a free loopback port, on the current tokio runtime, which needs its I/O.
    ///
    /// # Errors
    /// No port can be bound.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}/v1", listener.local_addr()?);
        let shared = Arc::new(Shared {
            rows: Mutex::default(),
            otherwise: Mutex::new(Row::reply("ok")),
            seen: Mutex::default(),
            connections: Mutex::default(),
            hang_ups: watch::Sender::new(0),
            read: Notify::new(),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { url, shared, task })
    }

    /// The base URL: `http://127.0.0.1:port/v1`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The next connection is answered so; rows are used in the order they are added.
    pub fn then(&self, row: Row) {
        self.shared.rows.lock().push_back(row);
    }

    /// What is answered when no row is left.
    ///
    /// # Default
    /// `Row::reply("ok")`.
    pub fn otherwise(&self, row: Row) {
        *self.shared.otherwise.lock() = row;
    }

    /// The requests read so far.
    pub fn requests(&self) -> Vec<Seen> {
        self.shared.seen.lock().clone()
    }

    /// How many requests were read.
    pub fn count(&self) -> usize {
        self.shared.seen.lock().len()
    }

    /// How many connections the client left before their answer was whole.
    pub fn hang_ups(&self) -> usize {
        *self.shared.hang_ups.borrow()
    }

    /// Waits until the client has left so many.
    pub async fn hung_up(&self, connections: usize) {
        let mut seen = self.shared.hang_ups.subscribe();
        // The sender lives as long as this server.
        let _ = seen.wait_for(|count| *count >= connections).await;
    }

    /// Waits until so many requests were read.
    pub async fn asked(&self, requests: usize) {
        while self.count() < requests {
            self.shared.read.notified().await;
        }
    }

    /// When each connection was accepted, those that were reset before their request included.
    pub fn connections(&self) -> Vec<Instant> {
        self.shared.connections.lock().clone()
    }
}

impl Drop for StubServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for StubServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StubServer").field("url", &self.url).finish_non_exhaustive()
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Dropping the set ends the connections with the server.
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        let row = {
            let next = shared.rows.lock().pop_front();
            next.unwrap_or_else(|| shared.otherwise.lock().clone())
        };
        shared.connections.lock().push(Instant::now());
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            // A client that goes away is the client's business.
            let _ = serve(stream, row, &shared).await;
        });
    }
}

async fn serve(mut stream: TcpStream, row: Row, shared: &Shared) -> io::Result<()> {
    if let Manner::ResetBefore = row.manner {
        return stream.set_zero_linger();
    }
    let seen = read_request(&mut stream).await?;
    shared.seen.lock().push(seen);
    shared.read.notify_one();
    let (mut from, mut to) = stream.split();
    let left = async {
        // It has sent its request: whatever comes now is its leaving.
        let mut rest = [0; 64];
        while from.read(&mut rest).await.is_ok_and(|bytes| bytes > 0) {}
    };
    let answered = tokio::select! {
        biased;
        answered = answer(&mut to, &row) => answered.ok(),
        () = left => None,
    };
    let Some(reset) = answered else {
        shared.hang_ups.send_modify(|count| *count += 1);
        return Ok(());
    };
    if reset { stream.set_zero_linger() } else { stream.shutdown().await }
}

/// Answers, and says whether the connection is to be reset.
async fn answer(to: &mut (impl AsyncWrite + Unpin), row: &Row) -> io::Result<bool> {
    tokio::time::sleep(row.delay).await;
    match row.manner {
        Manner::ResetBefore | Manner::ResetAfter => return Ok(true),
        Manner::Hang => std::future::pending::<()>().await,
        Manner::Whole | Manner::CutOff(_) | Manner::Slow { .. } | Manner::Stream(_) => {}
    }
    let mut head = format!("HTTP/1.1 {} Stub\r\n", row.status);
    if !row.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
        let kind = match row.manner {
            Manner::Stream(_) => "text/event-stream",
            _ => "application/json",
        };
        head.push_str(&format!("content-type: {kind}\r\n"));
    }
    for (name, value) in &row.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    match row.manner {
        Manner::Stream(_) => head.push_str("transfer-encoding: chunked\r\n"),
        _ => head.push_str(&format!("content-length: {}\r\n", row.body.len())),
    }
    head.push_str("connection: close\r\n\r\n");
    to.write_all(head.as_bytes()).await?;
    match &row.manner {
        Manner::CutOff(bytes) => {
            to.write_all(row.body.get(..*bytes).unwrap_or(&row.body)).await?;
        }
        Manner::Slow { piece, pause } => {
            for piece in row.body.chunks(*piece) {
                to.write_all(piece).await?;
                tokio::time::sleep(*pause).await;
            }
        }
        Manner::Stream(stream) => return give(to, stream).await,
        Manner::Whole | Manner::ResetBefore | Manner::ResetAfter | Manner::Hang => {
            to.write_all(&row.body).await?;
        }
    }
    Ok(false)
}

async fn give(to: &mut (impl AsyncWrite + Unpin), stream: &Stream) -> io::Result<bool> {
    for (number, piece) in stream.pieces.iter().enumerate() {
        // An empty chunk would be the end.
        if !piece.is_empty() {
            let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
            chunk.extend_from_slice(piece);
            chunk.extend_from_slice(b"\r\n");
            to.write_all(&chunk).await?;
        }
        if let (0, Some(meeting)) = (number, &stream.meeting) {
            meeting.wait().await;
        }
        // The shortest sleep takes a millisecond, and what has not left when a reset comes is lost.
        if !stream.pause.is_zero() || stream.end != StreamEnd::Whole {
            tokio::time::sleep(stream.pause).await;
        }
    }
    match stream.end {
        StreamEnd::Whole => to.write_all(b"0\r\n\r\n").await.map(|()| false),
        StreamEnd::Reset => Ok(true),
        StreamEnd::Hang => std::future::pending().await,
    }
}

async fn read_request(stream: &mut TcpStream) -> io::Result<Seen> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if bytes.len() > MAX_HEAD {
            return Err(bad("head too long"));
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let method = first.next().unwrap_or_default().to_owned();
    let path = first.next().unwrap_or_default().to_owned();
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers
        .iter()
        .find(|(name, _)| name == "content-length")
        .map_or(Ok(0), |(_, value)| value.parse::<usize>())
        .map_err(|_| bad("content-length is no number"))?;
    if length > MAX_BODY {
        return Err(bad("body too long"));
    }
    let mut body = bytes.split_off(end + 4);
    while body.len() < length {
        if stream.read_buf(&mut body).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(Seen { at: Instant::now(), method, path, headers, body })
}
