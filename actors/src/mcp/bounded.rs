//! Standard output of a server, of which no message is kept that is longer than may be.
//!
//! The transport drops a line that is too long, is not UTF-8, or that it cannot read as a message, and says nothing, so
//! whoever asked would wait until its time is over. This reader lets everything pass, and behind such a line it writes one of its
//! own: an error that answers the same request. Messages that come in a [batch](super::batch) get lines of their own.
//! Of an answer that ends before it says which request it answers, nothing is known: that call runs out of time.
//!
//! *Invariant.* It keeps one message of the length that may be, however much a server writes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rmcp::model::ServerJsonRpcMessage;
use serde::de::IgnoredAny;
use serde_json::Value;
use tokio::io::{AsyncRead, ReadBuf};

use super::batch::Unbatch;

/// The code of the error that stands for a message that was too long. No server's: theirs have five
/// digits.
pub(super) const TOO_LONG: i32 = -1_320_000;
/// The code of the error that stands for a message that cannot be read.
pub(super) const UNREADABLE: i32 = -1_320_001;
/// How much of a member of a message is looked at, in bytes; no id is longer.
const MEMBER: usize = 256;
/// How deep it is remembered what was opened; no message that can be read is deeper.
const DEEPEST: usize = 256;
/// What an answer has one of.
const ANSWER: [&[u8]; 2] = [br#""result""#, br#""error""#];
/// How much is read at once.
const PIECE: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Bounded<R> {
    inner: R,
    longest: usize,
    unbatch: Unbatch,
    line: Line,
    /// What was read and, where a line ended that was too long, what is said about it.
    ready: Vec<u8>,
    given: usize,
}

impl<R> Bounded<R> {
    pub(super) fn new(inner: R, longest: usize) -> Self {
        Self {
            inner,
            longest,
            unbatch: Unbatch::default(),
            line: Line::default(),
            ready: Vec::new(),
            given: 0,
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.ready.clear();
        self.given = 0;
        let mut lines = Vec::with_capacity(bytes.len() + 1);
        self.unbatch.read(bytes, &mut lines);
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            self.ready.extend_from_slice(line);
            self.line.read(line, self.longest);
            if line.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                if let Some((code, why)) = line.flaw(self.longest) {
                    self.ready.extend(line.refusal(code, &why).into_iter().flatten());
                }
            }
        }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Bounded<R> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.given == this.ready.len() {
            let mut piece = [0; PIECE];
            let mut piece = ReadBuf::new(&mut piece);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut piece))?;
            this.take(piece.filled());
            // What was read may all be held back, and nothing given is the end of all.
            if this.ready.is_empty() && !piece.filled().is_empty() {
                this.ready.push(b' ');
            }
        }
        let count = buffer.remaining().min(this.ready.len() - this.given);
        buffer.put_slice(&this.ready[this.given..this.given + count]);
        this.given += count;
        Poll::Ready(Ok(()))
    }
}

/// A message that is being read: how long it is, and which request it answers.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// All of it, until it is too long.
    kept: Vec<u8>,
    length: usize,
    depth: usize,
    /// What was opened and is not closed, from the outermost on.
    open: Vec<u8>,
    /// The outermost was closed: what comes then is no part of it.
    closed: bool,
    /// How many braces were opened more than closed, also in texts.
    braces: isize,
    in_text: bool,
    escaped: bool,
    /// The beginning of the member of the outermost object that is being read.
    member: Vec<u8>,
    id: Option<Vec<u8>>,
    /// It asks something itself, so it answers nothing.
    asks: bool,
    /// It has a member that an answer has.
    answers: bool,
    /// The bytes of a letter of which the rest is to come.
    letter: Vec<u8>,
    not_utf8: bool,
}

impl Line {
    pub(super) fn read(&mut self, bytes: &[u8], longest: usize) {
        self.length += bytes.len();
        if self.length <= longest {
            self.kept.extend_from_slice(bytes);
        } else {
            self.kept = Vec::new();
        }
        self.letters(bytes);
        for &byte in bytes {
            self.braces += match byte {
                b'{' => 1,
                b'}' => -1,
                _ => 0,
            };
            if self.in_text {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_text = false,
                    _ => {}
                }
            } else {
                match byte {
                    b'"' => self.in_text = true,
                    b'{' | b'[' => {
                        self.depth += 1;
                        if self.depth <= DEEPEST {
                            self.open.push(byte);
                        }
                        if self.depth == 1 {
                            continue;
                        }
                    }
                    b'}' | b']' => self.close(byte),
                    b',' if self.depth == 1 => {
                        self.member();
                        continue;
                    }
                    _ => {}
                }
            }
            if self.depth == 1 && !self.closed && self.member.len() < MEMBER {
                self.member.push(byte);
            }
        }
    }

    /// Closes the innermost of its kind. Where another is open within that, its own end is missing.
    fn close(&mut self, byte: u8) {
        if self.depth > self.open.len() {
            self.depth -= 1;
            return;
        }
        let opened = if byte == b'}' { b'{' } else { b'[' };
        let Some(at) = self.open.iter().rposition(|open| *open == opened) else { return };
        self.open.truncate(at);
        self.depth = at;
        if at == 0 {
            self.member();
            self.closed = true;
        }
    }

    /// Looks whether they are UTF-8, as far as can be said.
    fn letters(&mut self, bytes: &[u8]) {
        if self.letter.is_empty() && bytes.is_ascii() {
            return;
        }
        self.letter.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.letter) {
            Ok(_) => self.letter.len(),
            Err(error) => {
                self.not_utf8 |= error.error_len().is_some();
                error.valid_up_to()
            }
        };
        self.letter.drain(..if self.not_utf8 { self.letter.len() } else { whole });
    }

    /// Why the transport drops it, if it does.
    pub(super) fn flaw(&self, longest: usize) -> Option<(i32, String)> {
        match self {
            _ if self.length > longest => Some((TOO_LONG, too_long(Some(self.length), longest))),
            _ if self.not_utf8 || !self.letter.is_empty() => {
                Some((UNREADABLE, "the answer is not UTF-8".to_owned()))
            }
            // Logs are written there, too, and are none.
            _ if !self.answers() => None,
            _ => self.unread().map(|why| (UNREADABLE, why)),
        }
    }

    /// Why it is no message to the transport, which reads it in the same way.
    fn unread(&self) -> Option<String> {
        const MARK: &[u8] = "\u{feff}".as_bytes();
        let line = self.kept.strip_prefix(MARK).unwrap_or(&self.kept);
        if serde_json::from_slice::<ServerJsonRpcMessage>(line).is_ok() {
            return None;
        }
        if serde_json::from_slice::<IgnoredAny>(line).is_err() {
            let breaks_off = self.in_text || self.depth > 0;
            let how = if breaks_off { "breaks off in the middle" } else { "is not JSON" };
            return Some(format!("the answer {how}"));
        }
        // Half a letter (`\ud83d`), a number that is too large, or a nesting that is too deep.
        Some(match serde_json::from_slice::<Value>(line) {
            Err(error) => format!("the answer cannot be read: {error}"),
            Ok(_) => "the answer is no message of JSON-RPC 2.0".to_owned(),
        })
    }

    /// Whether it has what an answer has, and a request has not, or stands in the middle of that.
    fn answers(&self) -> bool {
        let member = self.member.trim_ascii();
        let within = || ANSWER.iter().any(|name| member.starts_with(name));
        !self.asks && (self.answers || within())
    }

    /// A member has been read to its end.
    fn member(&mut self) {
        let member = std::mem::take(&mut self.member);
        if self.closed {
            return;
        }
        let Some(colon) = member.iter().position(|byte| *byte == b':') else { return };
        let (name, value) = (member[..colon].trim_ascii(), member[colon + 1..].trim_ascii());
        match name {
            br#""id""# => self.id = Some(value.to_vec()),
            br#""method""# => self.asks = true,
            name => self.answers |= ANSWER.contains(&name),
        }
    }

    /// The id at the end of a message in which a text has no end, so that it is no member by itself. It is that of the
    /// message only if all braces are closed with it; else it may be of something within the message, and another's.
    fn last(&self) -> Option<&[u8]> {
        const NAME: &[u8] = b"\"id\"";
        if !self.in_text || self.braces != 0 {
            return None;
        }
        let end = self.kept.get(self.kept.len().saturating_sub(MEMBER)..)?.trim_ascii();
        let end = end.strip_suffix(b"}")?;
        let at = end.windows(NAME.len()).rposition(|part| part == NAME)?;
        let value = end[at + NAME.len()..].trim_ascii().strip_prefix(b":")?.trim_ascii();
        // All of ours are numbers, and a text may be the one that has no end.
        value.iter().all(u8::is_ascii_digit).then_some(value)
    }

    /// The error that answers the same request, as a line; `None` if it answers none.
    fn refusal(&self, code: i32, message: &str) -> Option<Vec<u8>> {
        let id = self.id.as_deref().or_else(|| self.last()).filter(|_| !self.asks)?;
        let id: serde_json::Value = serde_json::from_slice(id).ok()?;
        let error = serde_json::json!({ "code": code, "message": message });
        let line = serde_json::json!({ "jsonrpc": "2.0", "id": id, "error": error });
        Some(format!("{line}\n").into_bytes())
    }
}

/// What is said of an answer that was not read whole.
pub(super) fn too_long(length: Option<usize>, longest: usize) -> String {
    match length {
        Some(length) => {
            format!("the answer has {length} bytes, of which at most {longest} are read")
        }
        None => format!("the answer has more than the {longest} bytes that are read"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    async fn read(lines: &[&str], longest: usize) -> String {
        let written = lines.concat();
        let mut said = String::new();
        Bounded::new(written.as_bytes(), longest).read_to_string(&mut said).await.unwrap();
        said
    }

    #[tokio::test]
    async fn what_is_not_too_long_passes_as_it_is() {
        let lines = [
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n",
            "\u{feff}{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":1,\"message\":\"\\ud83d\\ude00\"}}\r\n",
            "\n",
            "not JSON ]}\n",
            "no end",
        ];
        assert_eq!(read(&lines, 200).await, lines.concat());
    }

    #[tokio::test]
    async fn behind_an_answer_that_is_too_long_stands_an_error_for_the_same_request() {
        let long = "x".repeat(40_000);
        for (id, line) in [
            (
                "7",
                format!(
                    "{{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{{\"id\":8,\"a\":\"{long}\"}}}}\n"
                ),
            ),
            (
                "7",
                format!("{{\"result\":{{\"a\":[\"\\\"}}{long}\",{{\"id\":9}}]}}, \"id\" : 7 }}\n"),
            ),
            ("\"a,b}\"", format!("{{\"result\":\"{long}\",\"id\":\"a,b}}\"}}\n")),
        ] {
            let next = "{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{}}";
            let said = read(&[&line, next, "\n"], 1000).await;
            let (first, rest) = said.split_at(line.len());
            assert_eq!(first, line);
            let rest: Vec<_> = rest.lines().collect();
            let error: serde_json::Value = serde_json::from_str(rest[0]).unwrap();
            assert_eq!(error["id"].to_string(), id);
            assert_eq!(error["error"]["code"], TOO_LONG);
            let size = line.len();
            let message = format!("the answer has {size} bytes, of which at most 1000 are read");
            assert_eq!(error["error"]["message"], *message);
            assert_eq!(rest[1..], [next], "the next is read as it is");
        }
    }

    #[tokio::test]
    async fn behind_an_answer_that_cannot_be_read_stands_an_error_for_the_same_request() {
        let read = async |written: &[u8]| {
            let mut said = Vec::new();
            Bounded::new(written, 100_000).read_to_end(&mut said).await.unwrap();
            String::from_utf8_lossy(&said[written.len()..]).into_owned()
        };
        // A letter may come in two pieces.
        let long = "ä".repeat(PIECE);
        let whole = format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"x{long}\"}}\n");
        assert_eq!(read(whole.as_bytes()).await, "");
        let latin = [b"{\"id\":1,\"result\":\"", &[0xe4][..], b"\"}\n"].concat();
        let late = [whole.trim_end().as_bytes(), &[0xc3][..], b"\n"].concat();
        let holding = |what: &str| {
            format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{{\"a\":{what}}}}}\n").into_bytes()
        };
        let deep = "[".repeat(130) + &"]".repeat(130);
        for (line, why) in [
            (latin, "is not UTF-8"),
            (b"{\"id\":1,\"result\":{\"a\":\n".to_vec(), "breaks off in the middle"),
            (b"{\"id\":1,\"result\":\"a\n".to_vec(), "breaks off in the middle"),
            // The id stands behind what has no end, or is no JSON.
            (b"{\"result\":{\"a\":\"b},\"id\":1}\n".to_vec(), "breaks off in the middle"),
            (b"{\"result\":{\"a\":[1},\"id\" : 1 } \n".to_vec(), "is not JSON"),
            (b"{\"result\":{\"a\":tru},\"id\":1}\n".to_vec(), "is not JSON"),
            (b"{\"id\":1,\"error\":{\"code\":01}}\n".to_vec(), "is not JSON"),
            (late, "is not UTF-8"),
            // A reader that does not look at what it reads takes these.
            (holding("\"\\ud83d\""), "cannot be read: unexpected end of hex escape"),
            (holding("1e999"), "cannot be read: number out of range"),
            (holding(&deep), "cannot be read: recursion limit"),
            (b"{\"id\":1,\"result\":{}}\n".to_vec(), "is no message of JSON-RPC"),
            (
                b"{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":\"a\"}\n".to_vec(),
                "is no message of JSON-RPC",
            ),
        ] {
            let error: serde_json::Value = serde_json::from_str(&read(&line).await).unwrap();
            assert_eq!((&error["id"], &error["error"]["code"]), (&1.into(), &UNREADABLE.into()));
            assert!(error["error"]["message"].as_str().unwrap().contains(why), "{error}");
        }
        // Whoever asks gets no answer that he did not ask for.
        assert_eq!(read(b"{\"id\":1,\"method\":\"a\n").await, "");
        assert_eq!(read(b"{\"method\":\"a\",\"params\":{\"result\":tru},\"id\":1}\n").await, "");
        // Nor is anything known of one that ends before it says which it answers: what it has within it may have the id
        // of another request.
        for line in [
            "{\"result\":{\"id\":1,\"a\":\"b",
            "{\"jsonrpc\":\"2.0\",\"result\":{\"order\":{\"id\":5}",
            "{\"jsonrpc\":\"2.0\",\"result\":{\"order\":{\"id\":5",
            "{\"result\":{\"order\":{\"id\":5}}",
            "{\"result\":{\"a\":\"b},\"order\":{\"id\":5}",
            "{\"result\":{\"a\":\"b},\"order\":{\"id\":5}}",
            "{\"result\":{\"a\":[{\"b\":[1},{\"id\":5}",
            "{\"result\":{}},\"order\":{\"id\":5}}",
            "{\"result\":{\"a\":tru}} {\"id\":5,\"b\":1}",
        ] {
            assert_eq!(read(format!("{line}\n").as_bytes()).await, "", "{line}");
        }
    }

    #[tokio::test]
    async fn the_messages_of_a_batch_come_one_by_one() {
        let mut said = String::new();
        let written = "[{\"id\":1},{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{}}]\n";
        Bounded::new(written.as_bytes(), 100).read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "{\"id\":1}\n{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{}} \n");
    }

    #[tokio::test]
    async fn what_answers_nothing_gets_no_error() {
        let long = "x".repeat(2000);
        for line in [
            format!("{{\"id\":7,\"method\":\"{long}\"}}\n"),
            format!("{{\"method\":\"{long}\"}}\n"),
            format!("{long}\n"),
            format!("{{\"result\":\"{long}\",\"id\":}}\n"),
        ] {
            assert_eq!(read(&[&line], 1000).await, line);
        }
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_not_kept() {
        let mut bounded = Bounded::new(tokio::io::repeat(b'['), 1000);
        let mut piece = vec![0; 1 << 20];
        bounded.read_exact(&mut piece).await.unwrap();
        assert!(bounded.ready.capacity() <= 2 * PIECE && bounded.line.member.len() <= MEMBER);
        assert!(bounded.line.open.len() <= DEEPEST);
        assert_eq!(bounded.line.length % PIECE, 0);
    }
}
