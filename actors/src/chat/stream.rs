//! An answer while it is written: [`open`] makes a [`StreamSink`], which goes with the request, and a
//! [`ChatStream`], which hears what is written.
//!
//! ```
//! # use mainstay_actors::chat::{ChatReply, ChatRequest};
//! use mainstay_actors::chat::stream::{OnBreak, StreamEvent, open};
//!
//! # async fn show(llm: mainstay::system::ChildRef<mainstay_actors::local::LocalModel>)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! let (sink, mut stream) = open(64);
//! let request = ChatRequest::from("hello").stream_to(sink.on_break(OnBreak::Restart));
//! let listen = async {
//!     while let Some(event) = stream.next().await {
//!         match event {
//!             StreamEvent::Text(piece) => print!("{piece}"),
//!             StreamEvent::Restart => println!("\n(once more)"),
//!             _ => {}
//!         }
//!     }
//! };
//! let (answer, ()) = tokio::join!(llm.call(request), listen);
//! println!("{}", answer?.value.text);
//! # Ok(())
//! # }
//! ```
//!
//! The reply of the call stays the truth: the stream says early what the reply will say whole, and a
//! stream that ended without [`StreamEvent::Done`] was not finished by whoever answered (a sibling
//! that does not stream, for instance).
//!
//! # The commit point
//!
//! An attempt writes nothing before its commit: until then it can fail, be retried or be substituted
//! without anybody noticing. From its first piece on the listener cannot be made to forget, and what a
//! failure means is [`OnBreak`]'s to say. An attempt never goes on in the middle of another's answer: a
//! newer one begins anew, if the listener can, or finds that the answer has broken off; and the pieces
//! of the older one are refused from then on.
//!
//! *Invariant.* What is heard between two [`StreamEvent::Restart`]s was written by one attempt.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use mainstay::fault::{Class, Fault};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{ChatReply, Finish, ToolCall};

/// Something heard.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum StreamEvent {
    /// The next piece of the text.
    Text(String),
    /// The model asks for a tool; given whole, when the answer is complete.
    ToolCall(ToolCall),
    /// What was heard so far is void: another attempt begins anew. Only with [`OnBreak::Restart`].
    Restart,
    /// The answer is complete. The last event.
    Done,
    /// The answer broke off here, and what was heard is all there will be. The last event. Only with
    /// [`OnBreak::Partial`].
    Partial(Fault),
}

/// What becomes of an answer that breaks off after a part of it was heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnBreak {
    /// The part is the answer: the call succeeds, degraded, with [`Finish::Partial`], which holds the
    /// fault. Nothing is tried again.
    #[default]
    Partial,
    /// The fault takes the ladder as ever, and the attempt that writes next begins with
    /// [`StreamEvent::Restart`]. For listeners that can take back what they have shown.
    Restart,
}

/// Opens a stream that holds this many events, at least one, until they are heard.
///
/// An attempt waits while the stream is full, which in turn slows the provider down. So listen while
/// the call runs, not after it: an endpoint gives up on a listener that does not listen.
pub fn open(capacity: usize) -> (StreamSink, ChatStream) {
    let shared = Arc::new(Shared {
        state: Mutex::default(),
        capacity: capacity.max(1),
        readable: Notify::new(),
        writable: Notify::new(),
    });
    let alive = Arc::new(Alive(Arc::clone(&shared)));
    (StreamSink { alive, on_break: OnBreak::default(), in_turns: false }, ChatStream { shared })
}

struct Shared {
    state: Mutex<State>,
    capacity: usize,
    readable: Notify,
    writable: Notify,
}

#[derive(Default)]
struct State {
    queue: VecDeque<StreamEvent>,
    /// How many attempts have been begun.
    begun: u64,
    /// The attempt that wrote last; attempts count from 1.
    owner: u64,
    /// That one has broken off, and whoever is still at work may begin anew.
    gone: bool,
    /// The attempt that wrote last is a rival's.
    by_rival: bool,
    /// The newest attempt that is no rival: it is under way as long as a rival of it is.
    first: u64,
    /// Whether anything was written since the start or the last restart marker.
    written: bool,
    text: String,
    calls: Vec<ToolCall>,
    end: Option<End>,
    closed: bool,
    deaf: bool,
}

enum End {
    Done { told: bool },
    Partial { fault: Fault, told: bool },
}

/// Tells the listener when the last sink is gone.
struct Alive(Arc<Shared>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.state.lock().closed = true;
        self.0.readable.notify_one();
    }
}

/// The end of a stream that goes with a request; see [`open`]. Clones are the same stream, and equal.
#[derive(Clone)]
pub struct StreamSink {
    alive: Arc<Alive>,
    on_break: OnBreak,
    in_turns: bool,
}

impl StreamSink {
    /// Sets what becomes of an answer that breaks off.
    ///
    /// # Default
    /// [`OnBreak::Partial`].
    #[must_use]
    pub fn on_break(mut self, on_break: OnBreak) -> Self {
        self.on_break = on_break;
        self
    }

    /// An answer that asks for tools, that says nothing, or that its provider goes on with when it is
    /// given back ([`ChatReply::is_paused`]), is only a turn: the stream goes on with the next answer, and
    /// ends with one that is whole. A [`StreamEvent::Restart`] takes nothing of a turn back. For agents.
    ///
    /// # Default
    /// The first answer ends the stream.
    #[must_use]
    pub fn in_turns(mut self) -> Self {
        self.in_turns = true;
        self
    }

    /// Whether the stream has had its last event, heard or not.
    pub fn is_over(&self) -> bool {
        self.shared().state.lock().end.is_some()
    }

    /// Begins an attempt at the answer. For endpoints; nothing is heard until it writes.
    pub fn attempt(&self) -> StreamWriter {
        self.begin(false)
    }

    /// Begins an attempt while another is under way ([`Context::is_hedge`]): whoever writes first has the
    /// stream, and the other is refused, unless the one that wrote breaks off before.
    ///
    /// [`Context::is_hedge`]: mainstay::behavior::Context::is_hedge
    pub fn rival(&self) -> StreamWriter {
        self.begin(true)
    }

    fn begin(&self, rival: bool) -> StreamWriter {
        let (number, rival) = {
            let mut state = self.shared().state.lock();
            state.begun += 1;
            // One that waited for its turn until its hedge wrote is the hedge's rival, as that would have been its.
            let rival = rival || state.is_hedged();
            if !rival {
                state.first = state.begun;
            }
            (state.begun, rival)
        };
        StreamWriter { sink: self.clone(), number, rival, wrote: false, over: false }
    }

    /// Whether an attempt has begun to write an answer that is not over, and has not broken off.
    pub fn is_written(&self) -> bool {
        let state = self.shared().state.lock();
        state.written && !state.gone
    }

    /// Whether it is a [rival](StreamSink::rival) that has begun to write so.
    pub(crate) fn is_hedged(&self) -> bool {
        self.shared().state.lock().is_hedged()
    }

    /// The part that was heard, if the answer broke off and the listener wants no other. An endpoint
    /// asks before it begins, since an attempt that was ended from outside (by a timeout, a kill)
    /// could not say so itself, and returns this instead of an answer.
    pub fn broken(&self) -> Option<ChatReply> {
        let state = self.shared().state.lock();
        match &state.end {
            Some(End::Partial { fault, .. }) => Some(state.part(fault.clone())),
            _ => None,
        }
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.alive.0
    }
}

impl PartialEq for StreamSink {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.alive, &other.alive)
    }
}

impl Eq for StreamSink {}

impl fmt::Debug for StreamSink {
    /// Without what was said.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamSink").field("on_break", &self.on_break).finish_non_exhaustive()
    }
}

/// Why a piece was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// A newer attempt writes.
    Superseded,
    /// The stream has had its last event.
    Ended,
}

/// One attempt at an answer. Its first piece is its commit.
///
/// Dropped after that without [`StreamWriter::finish`] or [`StreamWriter::fail`], it breaks the answer
/// off: that is how an attempt ends that is cancelled, killed or out of time.
#[derive(Debug)]
#[must_use]
pub struct StreamWriter {
    sink: StreamSink,
    number: u64,
    rival: bool,
    wrote: bool,
    over: bool,
}

impl StreamWriter {
    /// Whether a piece was written.
    pub fn committed(&self) -> bool {
        self.wrote
    }

    /// Writes a piece of text. Waits while the stream is full. Where nobody listens any more, the
    /// piece is dropped.
    ///
    /// # Errors
    /// The piece was refused, and every later one will be.
    pub async fn text(&mut self, text: impl Into<String>) -> Result<(), Refusal> {
        self.write(StreamEvent::Text(text.into())).await
    }

    /// Writes a whole tool call; otherwise as [`StreamWriter::text`].
    ///
    /// # Errors
    /// As [`StreamWriter::text`].
    pub async fn tool_call(&mut self, call: ToolCall) -> Result<(), Refusal> {
        self.write(StreamEvent::ToolCall(call)).await
    }

    async fn write(&mut self, event: StreamEvent) -> Result<(), Refusal> {
        let shared = Arc::clone(self.sink.shared());
        loop {
            // Made before the look, so that no wake-up between the two is lost.
            let notified = shared.writable.notified();
            {
                let mut state = shared.state.lock();
                self.claim(&mut state)?;
                if state.deaf || state.queue.len() < shared.capacity {
                    match &event {
                        StreamEvent::Text(text) => state.text.push_str(text),
                        StreamEvent::ToolCall(call) => state.calls.push(call.clone()),
                        _ => {}
                    }
                    state.written = true;
                    if !state.deaf {
                        state.queue.push_back(event);
                    }
                    drop(state);
                    shared.readable.notify_one();
                    return Ok(());
                }
            }
            notified.await;
        }
    }

    /// Makes the stream this attempt's, or finds that it cannot be.
    fn claim(&mut self, state: &mut State) -> Result<(), Refusal> {
        if state.end.is_some() {
            return Err(Refusal::Ended);
        }
        // Behind a rival that broke off, the attempt that it was to outrun is the only one left.
        let is_left = state.gone && state.first == self.number;
        if state.owner > self.number && !is_left {
            return Err(Refusal::Superseded);
        }
        if state.owner != self.number {
            if state.written && self.rival && !state.gone {
                return Err(Refusal::Superseded);
            }
            if state.written && self.sink.on_break == OnBreak::Partial {
                // The older attempt was given up and does not know it yet (a life that hangs).
                state.end = Some(End::Partial { fault: cut_off(), told: false });
                self.sink.shared().readable.notify_one();
                self.sink.shared().writable.notify_waiters();
                return Err(Refusal::Ended);
            }
            state.owner = self.number;
            state.by_rival = self.rival;
            state.gone = false;
            if state.written {
                // One more than the capacity: a marker never waits.
                if !state.deaf {
                    state.queue.push_back(StreamEvent::Restart);
                }
                state.written = false;
                state.text.clear();
                state.calls.clear();
            }
            // The older attempt may be waiting for room, and must learn that it has lost.
            self.sink.shared().writable.notify_waiters();
        }
        self.wrote = true;
        Ok(())
    }

    /// The answer is complete; the listener hears [`StreamEvent::Done`], unless it was only a turn of a
    /// stream [in turns](StreamSink::in_turns).
    ///
    /// # Errors
    /// The stream was another's.
    pub fn finish(self) -> Result<(), Refusal> {
        self.end(false)
    }

    /// As [`StreamWriter::finish`], for this reply: one that is paused is a turn, too.
    ///
    /// # Errors
    /// As [`StreamWriter::finish`].
    pub fn finish_as(self, reply: &ChatReply) -> Result<(), Refusal> {
        let paused = reply.is_paused();
        self.end(paused)
    }

    fn end(mut self, paused: bool) -> Result<(), Refusal> {
        let shared = Arc::clone(self.sink.shared());
        self.over = true;
        {
            let mut state = shared.state.lock();
            self.claim(&mut state)?;
            // An answer without a word is none: whoever asked refuses it, and another's may be heard.
            let is_turn = paused || !state.calls.is_empty() || state.text.is_empty();
            if self.sink.in_turns && is_turn {
                // The turn stands whatever comes: the next attempt begins as if nothing were written, and
                // none that was begun before it writes any more.
                state.begun += 1;
                state.owner = state.begun;
                state.written = false;
                state.text.clear();
                state.calls.clear();
                return Ok(());
            }
            state.end = Some(End::Done { told: false });
        }
        shared.readable.notify_one();
        Ok(())
    }

    /// The attempt failed. With [`OnBreak::Partial`] and something heard, what was heard becomes the
    /// reply.
    ///
    /// # Errors
    /// The fault itself, for the ladder: nothing was heard yet, or the listener wants another attempt.
    pub fn fail(mut self, fault: Fault) -> Result<ChatReply, Fault> {
        self.over = true;
        self.break_off(fault.clone()).ok_or(fault)
    }

    fn break_off(&self, fault: Fault) -> Option<ChatReply> {
        let shared = self.sink.shared();
        let mut state = shared.state.lock();
        if self.sink.on_break == OnBreak::Restart {
            state.gone |= self.wrote && state.owner == self.number;
            return None;
        }
        if let Some(End::Partial { fault, .. }) = &state.end {
            return Some(state.part(fault.clone()));
        }
        if !self.wrote || state.owner != self.number || state.end.is_some() {
            return None;
        }
        let reply = state.part(fault.clone());
        state.end = Some(End::Partial { fault, told: false });
        drop(state);
        shared.readable.notify_one();
        Some(reply)
    }

    /// Writes a reply that is there already, and finishes.
    ///
    /// # Errors
    /// As [`StreamWriter::text`].
    pub async fn whole(mut self, reply: &ChatReply) -> Result<(), Refusal> {
        if !reply.text.is_empty() {
            self.text(reply.text.as_str()).await?;
        }
        for call in &reply.tool_calls {
            self.tool_call(call.clone()).await?;
        }
        self.finish_as(reply)
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        if !self.over {
            let _ = self.break_off(cut_off());
        }
    }
}

fn cut_off() -> Fault {
    Fault::new(Class::Cancelled, "the attempt was ended from outside").with_code("cut_off")
}

impl State {
    fn is_hedged(&self) -> bool {
        self.written && self.by_rival && !self.gone
    }

    fn part(&self, fault: Fault) -> ChatReply {
        ChatReply {
            text: self.text.clone(),
            tool_calls: self.calls.clone(),
            finish: Finish::Partial(Box::new(fault)),
            ..ChatReply::default()
        }
    }
}

/// The end of a stream that listens; see [`open`].
///
/// Dropping it cancels nothing: the answer is written on, unheard. Drop the call to cancel it.
pub struct ChatStream {
    shared: Arc<Shared>,
}

impl ChatStream {
    /// The next event. `None` after the last one, and when every [`StreamSink`] is gone: the runtime
    /// drops the request's when the request has its fate.
    pub async fn next(&mut self) -> Option<StreamEvent> {
        loop {
            match self.try_next() {
                Err(Pending) => self.shared.readable.notified().await,
                Ok(event) => return event,
            }
        }
    }

    /// As [`ChatStream::next`], without waiting.
    ///
    /// # Errors
    /// Nothing is there yet.
    pub fn try_next(&mut self) -> Result<Option<StreamEvent>, Pending> {
        let mut state = self.shared.state.lock();
        if let Some(event) = state.queue.pop_front() {
            drop(state);
            self.shared.writable.notify_waiters();
            return Ok(Some(event));
        }
        let closed = state.closed;
        match &mut state.end {
            Some(End::Done { told: told @ false }) => {
                *told = true;
                Ok(Some(StreamEvent::Done))
            }
            Some(End::Partial { fault, told: told @ false }) => {
                *told = true;
                Ok(Some(StreamEvent::Partial(fault.clone())))
            }
            Some(_) => Ok(None),
            None if closed => Ok(None),
            None => Err(Pending),
        }
    }
}

impl Drop for ChatStream {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.deaf = true;
        state.queue.clear();
        drop(state);
        self.shared.writable.notify_waiters();
    }
}

impl fmt::Debug for ChatStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatStream").finish_non_exhaustive()
    }
}

/// Nothing is there yet; see [`ChatStream::try_next`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending;

#[cfg(test)]
mod tests;
