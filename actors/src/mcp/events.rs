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
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use futures_core::stream::BoxStream;
use rmcp::model::{RequestId, ServerJsonRpcMessage};
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
    rest: Rest,
}

/// The messages of a batch that are still to come. They are copied one by one: a hostile one holds millions.
#[derive(Default)]
struct Rest {
    batch: String,
    places: VecDeque<Range<usize>>,
    /// What else the event of the batch has: an id, which may be as long as an event. The last message has it, since
    /// what comes after that one is asked for by it when the stream has broken off.
    event: Sse,
}

impl Rest {
    /// # Errors
    /// The text, which is no batch.
    fn of(batch: String, event: &mut Sse) -> Result<Self, String> {
        let Ok(messages) = serde_json::from_str::<Vec<&RawValue>>(&batch) else {
            return Err(batch);
        };
        let begin = batch.as_ptr().addr();
        let place = |message: &&RawValue| {
            let at = message.get().as_ptr().addr() - begin;
            at..at + message.get().len()
        };
        let places = messages.iter().map(place).collect();
        Ok(Self { places, batch, event: std::mem::take(event) })
    }

    fn next(&mut self) -> Option<(String, Sse)> {
        let message = self.batch[self.places.pop_front()?].to_owned();
        if self.places.is_empty() {
            let Self { event, .. } = std::mem::take(self);
            return Some((message, event));
        }
        Some((message, Sse::default()))
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("asked", &self.asked).finish_non_exhaustive()
    }
}

impl Answer {
    pub(super) fn new(inner: Events, asked: RequestId, longest: usize) -> Self {
        Self { inner, asked, longest, rest: Rest::default() }
    }

    /// An event, or what takes its place; `None` of a batch.
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
        if !data.trim_start().starts_with('[') {
            return Some(Ok(self.read(data, event)));
        }
        match Rest::of(data, &mut event) {
            Ok(rest) => self.rest = rest,
            Err(data) => return Some(Ok(self.read(data, event))),
        }
        None
    }

    /// The event with this message, if the transport can read that, or with one that says why it cannot.
    fn read(&self, data: String, event: Sse) -> Sse {
        let flaw = || {
            // Some servers give signs of life by what is no message, or tell of what they do.
            let mut line = Line::default();
            line.read(data.trim().as_bytes(), usize::MAX);
            line.flaw(usize::MAX)
        };
        let is_read = serde_json::from_str::<ServerJsonRpcMessage>(&data).is_ok();
        match (!is_read).then(flaw).flatten() {
            Some((code, why)) => self.error(code, &why),
            None => Sse { data: Some(data), ..event },
        }
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
            if let Some((message, event)) = this.rest.next() {
                return Poll::Ready(Some(Ok(this.read(message, event))));
            }
            let Some(event) = ready!(this.inner.as_mut().poll_next(cx)) else {
                return Poll::Ready(None);
            };
            if let Some(event) = this.heard(event) {
                return Poll::Ready(Some(event));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// A stream of one event.
    struct One(Option<Sse>);

    impl Stream for One {
        type Item = Result<Sse, SseError>;

        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            Poll::Ready(self.0.take().map(Ok))
        }
    }

    async fn heard(event: Sse) -> Vec<Sse> {
        let mut answer = Answer::new(Box::pin(One(Some(event))), RequestId::Number(7), 1000);
        let mut heard = Vec::new();
        while let Some(event) = poll_fn(|cx| Pin::new(&mut answer).poll_next(cx)).await {
            heard.push(event.unwrap());
        }
        heard
    }

    #[tokio::test]
    async fn only_the_last_message_of_a_batch_has_the_id_of_its_event() {
        let answer = r#"{"jsonrpc":"2.0","id":7,"result":{}}"#;
        let event = Sse { id: Some("here".to_owned()), ..Sse::default() };
        let batch = event.clone().data(format!(" [{answer}, 1,{answer} ]\n"));
        let messages: Vec<_> =
            heard(batch).await.into_iter().map(|it| (it.data.unwrap(), it.id)).collect();
        let of = |text: &str, id: Option<&str>| (text.to_owned(), id.map(str::to_owned));
        assert_eq!(messages, [of(answer, None), of("1", None), of(answer, Some("here"))]);
        for alone in [answer, "[no batch", "[] and more"] {
            let said = heard(event.clone().data(alone.to_owned())).await;
            assert_eq!((said.len(), said[0].id.as_deref()), (1, Some("here")), "{alone}");
            assert_eq!(said[0].data.as_deref(), Some(alone));
        }
        assert!(heard(event.data("[]".to_owned())).await.is_empty(), "an empty batch says nothing");
    }
}
