//! An answer while it is written, on standard output; what is said besides, on standard error.

use std::io::IsTerminal;

use mainstay_actors::chat::stream::{ChatStream, StreamEvent};
use serde_json::{Value, json};

use super::super::{say, tell, write_out};

/// An answer on its way to the terminal.
pub(super) struct Page {
    stream: Option<ChatStream>,
    /// What has been shown of this attempt at it.
    text: String,
    /// Whether the line that was last written to is not ended.
    midline: bool,
    /// Whether it is for a program: each piece is an object on a line of its own.
    json: bool,
}

/// An object with what kind it is, where several kinds come on lines of their own.
pub(crate) fn as_line(event: &str, mut body: Value) -> Value {
    body["event"] = event.into();
    body
}

impl Page {
    pub(super) fn new(stream: Option<ChatStream>, json: bool) -> Self {
        Self { stream, text: String::new(), midline: false, json }
    }

    /// Whether this answer stands there as it is.
    pub(super) fn has_shown(&self, answer: &str) -> bool {
        !self.text.is_empty() && self.text.trim() == answer.trim()
    }

    /// Whether a part of an answer stands there.
    pub(super) fn has_begun(&self) -> bool {
        !self.text.is_empty()
    }

    /// The next piece; waits for ever where nothing is streamed.
    pub(super) async fn next(&mut self) -> Option<StreamEvent> {
        match &mut self.stream {
            Some(stream) => stream.next().await,
            None => std::future::pending().await,
        }
    }

    pub(super) fn show(&mut self, piece: Option<StreamEvent>, progress: bool) {
        match piece {
            None => self.stream = None,
            Some(piece) if self.json => {
                match &piece {
                    StreamEvent::Text(piece) => self.text.push_str(piece),
                    StreamEvent::Restart | StreamEvent::ToolCall(_) => self.text.clear(),
                    _ => {}
                }
                say_piece(piece);
            }
            Some(StreamEvent::Text(piece)) => {
                write_out(&piece);
                self.midline = !piece.ends_with('\n');
                self.text.push_str(&piece);
            }
            Some(StreamEvent::Restart) => {
                self.end();
                tell("  (the answer broke off; once more)");
                self.text.clear();
            }
            // What an agent's model says before it calls tools is no part of the answer.
            Some(StreamEvent::ToolCall(call)) => {
                self.end();
                self.text.clear();
                if progress {
                    tell(format_args!("  calls {}", call.name));
                }
            }
            Some(StreamEvent::Partial(fault)) => {
                self.end();
                tell(format_args!("  (the answer broke off: {})", fault.class));
            }
            Some(_) => {}
        }
    }

    /// What has come and was not shown yet.
    pub(super) fn rest(&mut self, progress: bool) {
        while let Some(Ok(Some(piece))) = self.stream.as_mut().map(ChatStream::try_next) {
            self.show(Some(piece), progress);
        }
    }

    /// Another answer was given than the one that has begun to stand there: by one who does not write it piece by piece.
    pub(super) fn give_up(&mut self) {
        self.end();
        if self.json {
            say_piece(StreamEvent::Restart);
        } else {
            tell("  (the answer broke off; another one was given)");
        }
    }

    /// Ends the line; whether there was one.
    pub(super) fn end(&mut self) -> bool {
        let midline = std::mem::take(&mut self.midline);
        if midline {
            say("");
        }
        midline
    }

    /// Begins a line for what is said besides, where both go to the same terminal; what goes elsewhere
    /// stays as it was written.
    pub(super) fn make_room(&mut self) {
        if self.midline && std::io::stdout().is_terminal() {
            self.midline = false;
            tell("");
        }
    }
}

fn say_piece(piece: StreamEvent) {
    say(match piece {
        StreamEvent::Text(text) => as_line("text", json!({ "text": text })),
        StreamEvent::Restart => as_line("restart", json!({})),
        StreamEvent::ToolCall(call) => {
            as_line("tool_call", json!({ "name": call.name, "arguments": call.arguments }))
        }
        StreamEvent::Partial(fault) => as_line("partial", json!({ "class": fault.class.name() })),
        // The answer itself comes after it.
        _ => return,
    });
}

impl Drop for Page {
    /// What is said next, by whoever ended this, begins a line of its own.
    fn drop(&mut self) {
        self.end();
    }
}
