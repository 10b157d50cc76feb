//! Standard output of a server, of which no message is kept that is longer than may be.
//!
//! The transport drops a line that is too long and says nothing, so whoever asked would wait until its
//! time is over. This reader lets everything pass, and behind such a line it writes one of its own: an
//! error that answers the same request.
//!
//! *Invariant.* It keeps a few hundred bytes, however much a server writes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// The code of the error that stands for a message that was too long. No server's: theirs have five
/// digits.
pub(super) const TOO_LONG: i32 = -1_320_000;
/// How much of a member of a message is looked at, in bytes; no id is longer.
const MEMBER: usize = 256;
/// How much is read at once.
const PIECE: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Bounded<R> {
    inner: R,
    longest: usize,
    line: Line,
    /// What was read and, where a line ended that was too long, what is said about it.
    ready: Vec<u8>,
    given: usize,
}

impl<R> Bounded<R> {
    pub(super) fn new(inner: R, longest: usize) -> Self {
        Self { inner, longest, line: Line::default(), ready: Vec::new(), given: 0 }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.ready.clear();
        self.given = 0;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.ready.extend_from_slice(line);
            self.line.read(line);
            if line.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                if line.length > self.longest {
                    self.ready.extend(line.refusal(self.longest).into_iter().flatten());
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
        }
        let count = buffer.remaining().min(this.ready.len() - this.given);
        buffer.put_slice(&this.ready[this.given..this.given + count]);
        this.given += count;
        Poll::Ready(Ok(()))
    }
}

/// A message that is being read: how long it is, and which request it answers.
#[derive(Debug, Default)]
struct Line {
    length: usize,
    depth: usize,
    in_text: bool,
    escaped: bool,
    /// The beginning of the member of the outermost object that is being read.
    member: Vec<u8>,
    id: Option<Vec<u8>>,
    /// It asks something itself, so it answers nothing.
    asks: bool,
}

impl Line {
    fn read(&mut self, bytes: &[u8]) {
        self.length += bytes.len();
        for &byte in bytes {
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
                        if self.depth == 1 {
                            continue;
                        }
                    }
                    b'}' | b']' => {
                        self.depth = self.depth.saturating_sub(1);
                        if self.depth == 0 {
                            self.member();
                        }
                    }
                    b',' if self.depth == 1 => {
                        self.member();
                        continue;
                    }
                    _ => {}
                }
            }
            if self.depth == 1 && self.member.len() < MEMBER {
                self.member.push(byte);
            }
        }
    }

    /// A member has been read to its end.
    fn member(&mut self) {
        let member = std::mem::take(&mut self.member);
        let Some(colon) = member.iter().position(|byte| *byte == b':') else { return };
        let (name, value) = (member[..colon].trim_ascii(), member[colon + 1..].trim_ascii());
        match name {
            br#""id""# => self.id = Some(value.to_vec()),
            br#""method""# => self.asks = true,
            _ => {}
        }
    }

    /// The error that answers the same request, as a line; `None` if it answers none.
    fn refusal(&self, longest: usize) -> Option<Vec<u8>> {
        let id = self.id.as_ref().filter(|_| !self.asks)?;
        let id: serde_json::Value = serde_json::from_slice(id).ok()?;
        let message = too_long(Some(self.length), longest);
        let error = serde_json::json!({ "code": TOO_LONG, "message": message });
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
        let lines = ["{\"id\":1,\"result\":{}}\n", "\n", "not JSON ]}\n", "no end"];
        assert_eq!(read(&lines, 100).await, lines.concat());
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
            let said = read(&[&line, "{\"id\":2,\"result\":{}}\n"], 1000).await;
            let (first, rest) = said.split_at(line.len());
            assert_eq!(first, line);
            let rest: Vec<_> = rest.lines().collect();
            let error: serde_json::Value = serde_json::from_str(rest[0]).unwrap();
            assert_eq!(error["id"].to_string(), id);
            assert_eq!(error["error"]["code"], TOO_LONG);
            let size = line.len();
            let message = format!("the answer has {size} bytes, of which at most 1000 are read");
            assert_eq!(error["error"]["message"], *message);
            assert_eq!(rest[1..], ["{\"id\":2,\"result\":{}}"], "the next is read as it is");
        }
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
        assert_eq!(bounded.line.length % PIECE, 0);
    }
}
