//! Calls that the runtime makes for a step: [`Port::ask`], and those whose answers are written down.
//!
//! *Invariant.* What is asked is put into text only for those whose answers are to be written down.

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::act::{Decode, Encode, boxed, decode, encode};
use super::waiting::Waiting;
use super::{
    Accept, AcceptOptions, Act, CallOptions, Port, Reply, Tie, Unanswered, accept, unwound,
};
use crate::fate::Answer;
use crate::fault::Fault;
use crate::id::ChildPath;
use crate::text;

pub(crate) type Making = Pin<Box<dyn Future<Output = Result<Answer<Reply>, Unanswered>> + Send>>;

pub(crate) type Outcome = Result<Answer<Reply>, Fault>;

/// Completes when nobody waits for a call any more.
pub(crate) type Left = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How a call is made.
pub(super) trait Make: Send {
    fn make(self: Box<Self>, tie: Arc<Tie>, key: Option<Arc<str>>) -> Making;
    /// As [`Make::make`], to the end of it, whoever has left: then only what nobody has begun is called off.
    fn finish(self: Box<Self>, tie: Arc<Tie>, key: Option<Arc<str>>, _: Left) -> Making {
        self.make(tie, key)
    }
    /// How what is asked and answered is written down, for one whose answer is.
    fn written(&self) -> Option<Written> {
        None
    }
    fn is_written(&self) -> bool {
        false
    }
    /// How the question is known to somebody whose requests survive the process.
    fn question(&self) -> Option<Question> {
        None
    }
    fn is_joined(&self) -> bool {
        false
    }
}

/// A reply as its giver knows it.
pub(crate) type AnyReply = Box<dyn Any + Send>;

/// How the requests and replies of a durable child or group are text.
#[derive(Clone, Copy)]
pub(crate) struct Reading {
    pub(crate) write_request: fn(&dyn Any) -> Result<Vec<u8>, String>,
    pub(crate) read_reply: fn(&[u8]) -> Result<AnyReply, String>,
}

/// What a question to somebody durable is known by when it is asked once more, and how its answer is read.
pub(crate) struct Question {
    pub(crate) request: Result<Vec<u8>, String>,
    /// Whether answering it twice does no harm.
    pub(crate) may_repeat: bool,
    pub(crate) read: Read,
}

type Read = Box<dyn Fn(&[u8]) -> Result<Reply, String> + Send + Sync>;

/// What a call whose answer is written down is known by, and how the answer is read.
pub(crate) struct Written {
    /// What is asked, as canonical text.
    pub(crate) request: Result<Arc<[u8]>, String>,
    pub(crate) decode: Decode,
    pub(crate) encode: Encode,
}

/// A call to another child that the runtime makes for a step. Made by [`Port::ask`] or
/// [`Port::ask_recorded`], or from an [`Effect`](super::Effect).
#[must_use = "a call is made only when it is returned in `Step::Perform`"]
pub struct Call {
    target: ChildPath,
    make: Box<dyn Make>,
    pub(crate) act: Option<Box<Act>>,
}

impl Call {
    pub(super) fn new(target: ChildPath, make: impl Make + 'static) -> Self {
        Self { target, make: Box::new(make), act: None }
    }

    /// The same call as an effect.
    pub(super) fn acting(self, act: Act) -> Self {
        Self { act: Some(Box::new(act)), ..self }
    }

    /// Whom it calls.
    pub fn target(&self) -> &ChildPath {
        &self.target
    }

    /// Whether it acts on the world: the state, and in it what led to the act, is stored before.
    pub(crate) fn is_act(&self) -> bool {
        self.act.as_ref().is_some_and(|act| act.kind.acts())
    }

    /// Whether its answer is to be written down.
    pub(crate) fn is_written(&self) -> bool {
        self.make.is_written()
    }

    /// How its answer is written down, if it is to be.
    pub(crate) fn written(&self) -> Option<Written> {
        self.make.written()
    }

    /// Whether it goes to somebody whose requests survive the process, under no key of the asker's own.
    pub(crate) fn is_joined(&self) -> bool {
        self.act.is_none() && self.make.is_joined()
    }

    /// What such a call is known by.
    pub(crate) fn question(&self) -> Option<Question> {
        self.make.question().filter(|_| self.act.is_none())
    }

    /// Makes the call, with this idempotency key if it is an effect or is to be joined.
    pub(crate) fn make(self, tie: Arc<Tie>, key: Option<Arc<str>>) -> Making {
        self.make.make(tie, key)
    }

    /// As [`Call::make`], to the end of it: the deadline of whoever asks is none of the request's, and once
    /// `left` completes, only what nobody has begun is called off.
    pub(crate) fn finish(self, tie: Arc<Tie>, key: Option<Arc<str>>, left: Left) -> Making {
        self.make.finish(tie, key, left)
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("target", &self.target).finish_non_exhaustive()
    }
}

/// A question to whom a port leads to.
struct Ask<Q, R> {
    target: Arc<dyn Accept<Q, R>>,
    message: Q,
    options: CallOptions,
}

impl<Q: Send + Sync + 'static, R: Send + Sync + 'static> Make for Ask<Q, R> {
    fn make(self: Box<Self>, tie: Arc<Tie>, key: Option<Arc<str>>) -> Making {
        let Self { target, message, options } = *self;
        boxed(async move {
            // The step waits for its calls as a whole, so the pause of the attempt clock is the
            // runtime's, and only what the answer says is passed on here.
            let mut options = AcceptOptions::new(options, Some(Arc::clone(&tie)));
            if key.is_some() {
                let more = options.more();
                (more.key, more.joined) = (key, true);
            }
            let envelope = accept(&*target, message, &mut options).map_err(Unanswered::from)?;
            let waiting = Waiting::accepted(&target, envelope, tie);
            let answer = waiting.await.map_err(Unanswered::from)?;
            Ok(answer.map(|value| Box::new(value) as Reply))
        })
    }

    fn question(&self) -> Option<Question> {
        let reading = self.target.reading().filter(|_| self.options.key.is_none())?;
        let text = unwound(|| (reading.write_request)(&self.message as &dyn Any));
        let read = move |bytes: &[u8]| {
            let reply = (reading.read_reply)(bytes)?.downcast::<R>();
            reply.map(|reply| reply as Reply).map_err(|_| "it is of another type".to_owned())
        };
        Some(Question {
            request: text.and_then(|text| text),
            may_repeat: self.target.is_replay_safe(),
            read: Box::new(read),
        })
    }

    fn is_joined(&self) -> bool {
        self.options.key.is_none() && self.target.reading().is_some()
    }
}

/// One whose answer is written down.
struct Recorded<Q, R>(Ask<Q, R>);

impl<Q, R> Make for Recorded<Q, R>
where
    Q: Serialize + Send + Sync + 'static,
    R: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    fn make(self: Box<Self>, tie: Arc<Tie>, key: Option<Arc<str>>) -> Making {
        Make::make(Box::new(self.0), tie, key)
    }

    fn written(&self) -> Option<Written> {
        let request = text::canonical(&self.0.message).map(Arc::from);
        Some(Written { request, decode: decode::<R>, encode: encode::<R> })
    }

    fn is_written(&self) -> bool {
        true
    }

    fn question(&self) -> Option<Question> {
        self.0.question()
    }

    fn is_joined(&self) -> bool {
        self.0.is_joined()
    }
}

impl<Q: Send + Sync + 'static, R: Send + 'static> Port<Q, R> {
    /// The call for a step to return in `Step::Perform`.
    ///
    /// Asked of a [durable](crate::spec::ChildSpec::durable) child or group, by one that is durable itself or
    /// whose request has a key, it is asked once: a step that is done again, also by another process, joins
    /// what it has asked for, or is given the answer. A request that went back to before it asks anew, unless
    /// something was done for the answer that stands.
    pub fn ask(&self, message: impl Into<Q>) -> Call
    where
        R: Sync,
    {
        self.ask_with(message, CallOptions::default())
    }

    /// [`Port::ask`] with options.
    pub fn ask_with(&self, message: impl Into<Q>, options: CallOptions) -> Call
    where
        R: Sync,
    {
        let ask = Ask { target: Arc::clone(&self.target), message: message.into(), options };
        Call { target: self.path().clone(), make: Box::new(ask), act: None }
    }

    /// As [`Port::ask`], with the answer written down for a durable child, and for a request whose asker gave it
    /// a key. When the child's state goes back to before this request, which has been answered, the request is
    /// replayed with the answers it was given; what was asked with [`Port::ask`] is not known then, and what the
    /// request had made of the state is lost. And an answer since which the request has acted on the world is
    /// given again where the request begins anew: another one might make it act once more.
    ///
    /// Whoever is asked, unless it is durable itself, is asked again whenever the step is done again for any
    /// other reason: an answer that is never to be given twice is that of an [`effect`](Port::effect).
    pub fn ask_recorded(&self, message: impl Into<Q>) -> Call
    where
        Q: Serialize,
        R: Serialize + DeserializeOwned + Sync,
    {
        self.ask_recorded_with(message, CallOptions::default())
    }

    /// [`Port::ask_recorded`] with options.
    pub fn ask_recorded_with(&self, message: impl Into<Q>, options: CallOptions) -> Call
    where
        Q: Serialize,
        R: Serialize + DeserializeOwned + Sync,
    {
        let ask = Ask { target: Arc::clone(&self.target), message: message.into(), options };
        let make = Box::new(Recorded(ask));
        Call { target: self.path().clone(), make, act: None }
    }
}
