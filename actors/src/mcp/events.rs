//! The events of an answer that a server writes as a stream.
//!
//! The transport drops an event that it cannot read, and whoever asked would wait until the stream ends or its time
//! is over; one that is not UTF-8 or is too long ends the stream for it, without a word of why. Here an error that
//! answers the same request takes the place of each, and messages that come in a batch, as an older version of the
//! protocol has it, get events of their own.
//!
//! *Invariant.* What can be read passes as it is.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use futures_core::stream::BoxStream;
use rmcp::model::RequestId;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use sse_stream::{Error as SseError, Sse};

use super::bounded::{Line, TOO_LONG, UNREADABLE, too_long};

pub(super) type Events = BoxStream<'static, Result<Sse, SseError>>;

/// The events of the answer to one request.
pub(super) struct Answer {
    inner: Events,
    asked: RequestId,
    /// The longest event, in bytes.
    longest: usize,
    /// The messages of a batch that are still to come.
    rest: VecDeque<Sse>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("asked", &self.asked).finish_non_exhaustive()
    }
}

impl Answer {
    pub(super) fn new(inner: Events, asked: RequestId, longest: usize) -> Self {
        Self { inner, asked, longest, rest: VecDeque::new() }
    }

    /// An event, or what takes its place.
    fn heard(&mut self, event: Result<Sse, SseError>) -> Option<Result<Sse, SseError>> {
        let mut event = match event {
            Ok(event) => event,
            Err(SseError::Utf8Parse(_)) => {
                return Some(Ok(self.error(UNREADABLE, "the answer is not UTF-8")));
            }
            // The type of this one is the transport's own.
            Err(error) if error.to_string().contains("maximum size of") => {
                return Some(Ok(self.error(TOO_LONG, &too_long(None, self.longest))));
            }
            Err(error) => return Some(Err(error)),
        };
        // Others are for the transport, as is one without data.
        let is_message = matches!(event.event.as_deref(), None | Some("" | "message"));
        let Some(data) = event.data.take_if(|_| is_message) else { return Some(Ok(event)) };
        let text = data.trim();
        if text.is_empty() {
            return Some(Ok(Sse { data: Some(data), ..event }));
        }
        if text.starts_with('[')
            && let Ok(messages) = serde_json::from_str::<Vec<Box<RawValue>>>(text)
        {
            let each = messages
                .iter()
                .map(|message| Sse { data: Some(message.get().to_owned()), ..event.clone() });
            self.rest.extend(each);
            return self.rest.pop_front().map(Ok);
        }
        if serde_json::from_str::<IgnoredAny>(text).is_ok() {
            return Some(Ok(Sse { data: Some(data), ..event }));
        }
        // Some servers give signs of life so, or tell of what they do.
        let mut line = Line::default();
        line.read(text.as_bytes(), usize::MAX);
        Some(Ok(match line.flaw(usize::MAX) {
            Some((code, why)) => self.error(code, &why),
            None => Sse { data: Some(data), ..event },
        }))
    }

    fn error(&self, code: i32, message: &str) -> Sse {
        let error = serde_json::json!({ "code": code, "message": message });
        let said = serde_json::json!({ "jsonrpc": "2.0", "id": self.asked, "error": error });
        Sse::default().data(said.to_string())
    }
}

impl Stream for Answer {
    type Item = Result<Sse, SseError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(event) = this.rest.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            let Some(event) = ready!(this.inner.as_mut().poll_next(cx)) else {
                return Poll::Ready(None);
            };
            // An empty batch says nothing.
            if let Some(event) = this.heard(event) {
                return Poll::Ready(Some(event));
            }
        }
    }
}
