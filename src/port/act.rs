//! Asking a tool to act on the world: [`Port::effect`].

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::asking::Make;
use super::{Accept, AcceptOptions, Call, CallOptions, Late, Left, Making, Port, Tie, Waiting};
use crate::error::CallError;
use crate::fate::{Answer, Ended};
use crate::fault::{EffectKind, Fault};
use crate::ledger::{Resolution, Trace, Undo};
use crate::text;

/// A reply whose type only the call knows.
pub(crate) type Reply = Box<dyn Any + Send + Sync>;

/// What makes a call an effect.
pub(crate) struct Act {
    pub(crate) kind: EffectKind,
    /// The request as canonical text, which is part of the effect's key.
    pub(crate) request: Result<Arc<[u8]>, String>,
    pub(crate) undo: Option<Result<Undo, String>>,
    pub(crate) verify: Option<Verify>,
    pub(crate) decode: Decode,
    pub(crate) encode: Encode,
}

/// Reads a reply that was written down.
pub(crate) type Decode = fn(&[u8]) -> Result<Reply, String>;
/// Writes one down.
pub(crate) type Encode = fn(&Reply) -> Result<Arc<[u8]>, String>;

pub(super) fn decode<R: DeserializeOwned + Send + Sync + 'static>(
    bytes: &[u8],
) -> Result<Reply, String> {
    text::read::<R>(bytes).map(|reply| Box::new(reply) as Reply)
}

pub(super) fn encode<R: Serialize + DeserializeOwned + 'static>(
    reply: &Reply,
) -> Result<Arc<[u8]>, String> {
    match reply.downcast_ref::<R>() {
        Some(reply) => text::storable(reply).map(Arc::from),
        None => Err("the reply has another type".to_owned()),
    }
}

/// Asks whether an effect happened.
pub(crate) type Verify =
    Box<dyn Fn(Arc<Tie>) -> Pin<Box<dyn Future<Output = Resolution> + Send>> + Send + Sync>;

/// What a question says about an effect whose outcome is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verified<R> {
    /// It happened; this was its result.
    Happened(R),
    /// It did not happen, and will not happen by itself: the tool may be asked again.
    NotHappened,
    /// It cannot be told. The effect stays unknown until somebody can.
    CannotTell,
}

/// An act on the world, asked of a tool by a step: made by [`Port::effect`], returned in
/// [`Step::Perform`](crate::behavior::Step::Perform).
///
/// The runtime writes down the intent before the tool is asked, and the outcome before the next step.
/// A step that is done again, after a fault, a crash, a rollback or in another process, gets the
/// outcome that was recorded, and the tool is not asked twice. What the step is given when the outcome
/// is not known, and may not be tried again, is a fault of class
/// [`Indeterminate`](crate::fault::Class::Indeterminate) with the code `effect_unknown`.
#[must_use = "an effect takes place only when it is returned in `Step::Perform`"]
pub struct Effect<R> {
    call: Call,
    act: Act,
    reply: PhantomData<fn() -> R>,
}

impl<Q, R> Port<Q, R>
where
    Q: Serialize + Send + Sync + 'static,
    R: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    /// The effect for a step to return in `Step::Perform`: as [`Port::ask`], but recorded in the
    /// ledger, so that it happens once however often the step is done.
    ///
    /// It is known again by its request, as text. A request that is written in another order each time, as one
    /// with a `HashSet` is, is another effect each time: use a `BTreeSet`. The order of a map does not matter.
    ///
    /// What the tool does to the world is what its spec says
    /// ([`ChildSpec::effect`](crate::spec::ChildSpec::effect)). The tool finds the effect's
    /// idempotency key in its [`Context::key`](crate::behavior::Context::key).
    pub fn effect(&self, message: impl Into<Q>) -> Effect<R> {
        self.effect_with(message, CallOptions::default())
    }

    /// [`Port::effect`] with options. [`CallOptions::key`] changes nothing: an effect has a key of its
    /// own.
    pub fn effect_with(&self, message: impl Into<Q>, options: CallOptions) -> Effect<R> {
        let message = message.into();
        let act = Act {
            kind: self.target.effect_kind(),
            request: text::canonical(&message).map(Arc::from),
            undo: None,
            verify: None,
            decode: decode::<R>,
            encode: encode::<R>,
        };
        let asked = Asked { target: Arc::clone(&self.target), message, options };
        let call = Call::new(self.path().clone(), asked);
        Effect { call, act, reply: PhantomData }
    }
}

/// What a tool is asked for.
struct Asked<Q, R> {
    target: Arc<dyn Accept<Q, R>>,
    message: Q,
    options: CallOptions,
}

impl<Q: Send + Sync + 'static, R: Send + Sync + 'static> Make for Asked<Q, R> {
    fn make(self: Box<Self>, tie: Arc<Tie>, key: Option<Arc<str>>) -> Making {
        let Self { target, message, options } = *self;
        boxed(async move {
            let mut options = AcceptOptions::new(options, Some(Arc::clone(&tie)));
            options.more().key = key;
            let envelope = target.accept(message, &mut options).map_err(Unanswered::from)?;
            let answer = Waiting::accepted(&target, envelope, tie).await;
            Ok(answer.map_err(Unanswered::from)?.map(|value| Box::new(value) as Reply))
        })
    }

    fn finish(self: Box<Self>, tie: Arc<Tie>, key: Option<Arc<str>>, left: Left) -> Making {
        let Self { target, message, options } = *self;
        boxed(async move {
            let mut options = AcceptOptions::new(options, Some(Arc::new(tie.without_deadline())));
            let (late, mut told) = Late::new();
            let more = options.more();
            (more.key, more.late) = (key, Some(Arc::new(late)));
            let envelope = target.accept(message, &mut options).map_err(Unanswered::from)?;
            let mut waiting = Waiting::accepted(&target, Arc::clone(&envelope), Arc::clone(&tie));
            let mut taken_back = false;
            let answer = tokio::select! {
                biased;
                answer = &mut waiting => {
                    drop(envelope);
                    answer
                }
                () = left => {
                    taken_back = target.take_back(&envelope);
                    drop(envelope);
                    waiting.await
                }
            };
            if let Err(CallError::Unknown { .. }) = &answer
                // Its time is over, and it may still be at work.
                && let Ok(late) = (&mut told).await
                && let Ok(answer) = late.downcast::<Answer<R>>()
            {
                tie.note(&answer);
                return Ok(answer.map(|value| Box::new(value) as Reply));
            }
            let answer = answer.map_err(|error| {
                let unanswered = Unanswered::from(error);
                // Nobody was ever asked.
                if taken_back { unanswered.refused() } else { unanswered }
            });
            Ok(answer?.map(|value| Box::new(value) as Reply))
        })
    }
}

impl<R: Serialize + Send + 'static> Effect<R> {
    /// How it is reversed: by asking this child or group this. It must be able to cope with an effect
    /// that has never happened, or in part, since it is also asked when nobody knows and when the tool has
    /// failed; and be durable or at least
    /// [`recorded`](crate::spec::ChildSpec::recorded), since the undo may be left to another process: with
    /// another one the effect is refused with the code `effect_undo`, and its tool is not asked.
    ///
    /// Where the undo asks the same request of the same tool, that tool is taken for one that does nothing but by others, under
    /// its key ([`Context::undo_within`](crate::behavior::Context::undo_within)): of an outcome that nobody knows no person is
    /// told as long as nothing was done under it.
    ///
    /// A tool whose answer to "there is nothing to undo" is a fault gives that the code
    /// [`NOTHING_TO_UNDO`](crate::ledger::NOTHING_TO_UNDO): the undo is done. With any other fault it has failed:
    /// the effect is `stuck`, what the task did before it stands, and
    /// [`Event::UndoStopped`](crate::event::Event::UndoStopped) calls a person, who has undone it by hand or found
    /// nothing to undo, and says so ([`EffectsRef::undone`](crate::system::EffectsRef::undone)). A tool that is
    /// somebody else's, as one of an MCP server that answers `isError`, is asked through a behavior that tells
    /// the two apart.
    pub fn undo<Q: Serialize + Send + Sync + 'static, A: Send + 'static>(
        mut self,
        port: &Port<Q, A>,
        message: impl Into<Q>,
    ) -> Self {
        let request = text::canonical(&message.into());
        let tool = port.path().clone();
        self.act.undo = Some(request.map(|request| Undo { tool, request: Arc::from(request) }));
        self
    }

    /// How to find out whether it happened: by asking this child or group this. Only asked when the
    /// outcome is not known, at once when an answer was lost and when a process goes on with it, of
    /// tools whose kind is [`Verifiable`](crate::fault::EffectKind::Verifiable).
    pub fn verify<Q, A>(
        mut self,
        port: &Port<Q, A>,
        question: impl Into<Q>,
        read: impl Fn(&A) -> Verified<R> + Send + Sync + 'static,
    ) -> Self
    where
        Q: Clone + Send + Sync + 'static,
        A: Send + Sync + 'static,
    {
        let (port, question, read) = (port.clone(), question.into(), Arc::new(read));
        // It may be asked twice: about what was done before, and about what follows from the answer.
        self.act.verify = Some(Box::new(move |tie| {
            let asked = port.ask(question.clone()).make(tie, None);
            let read = Arc::clone(&read);
            Box::pin(async move {
                let Ok(answer) = asked.await else { return Resolution::CannotTell };
                let Some(answer) = answer.value.downcast_ref::<A>() else {
                    return Resolution::CannotTell;
                };
                match read(answer) {
                    Verified::Happened(result) => match text::canonical(&result) {
                        Ok(result) => Resolution::Happened(Arc::from(result)),
                        Err(_) => Resolution::CannotTell,
                    },
                    Verified::NotHappened => Resolution::NotHappened,
                    Verified::CannotTell => Resolution::CannotTell,
                }
            })
        }));
        self
    }
}

impl<R> From<Effect<R>> for Call {
    fn from(effect: Effect<R>) -> Self {
        effect.call.acting(effect.act)
    }
}

impl<R> fmt::Debug for Effect<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Effect")
            .field("tool", self.call.target())
            .field("kind", &self.act.kind)
            .finish_non_exhaustive()
    }
}

/// Why something is not undone.
#[derive(Clone, Debug)]
pub(crate) enum NotUndone {
    /// The tool says that it failed, or nobody knows.
    Failed(Fault),
    /// It was not asked.
    Later(Fault),
}

impl<Q> From<CallError<Q>> for NotUndone {
    fn from(error: CallError<Q>) -> Self {
        let later = matches!(
            error,
            CallError::Full { .. }
                | CallError::Refused { .. }
                | CallError::Suspended { .. }
                | CallError::Stopped { .. }
        );
        let fault = Fault::from(error);
        if later { Self::Later(fault) } else { Self::Failed(fault) }
    }
}

/// A call without an answer, and what that says about the effect.
pub(crate) struct Unanswered {
    pub(crate) fault: Fault,
    pub(crate) trace: Trace,
    /// An attempt before the last one may have acted: only of a tool that may be asked again.
    pub(crate) doubtful: bool,
}

impl Unanswered {
    /// The same, when it is certain that nobody has begun.
    fn refused(self) -> Self {
        Self { trace: Trace::Refused, doubtful: false, ..self }
    }
}

impl<Q> From<CallError<Q>> for Unanswered {
    fn from(error: CallError<Q>) -> Self {
        let trace = match &error {
            CallError::Full { .. } | CallError::Refused { .. } => Trace::Refused,
            CallError::RecoveryExhausted { fault, .. } => Trace::of(fault),
            CallError::Expired { trail, .. } if trail.0.is_empty() => Trace::Waited,
            CallError::Suspended { .. } => Trace::Suspended,
            _ => Trace::Lost,
        };
        let doubtful = match &error {
            CallError::RecoveryExhausted { trail, .. } => {
                let (_, earlier) = trail.0.split_last().unzip();
                earlier.unwrap_or_default().iter().any(|attempt| match attempt.ended {
                    Ended::Fault { class, .. } => Trace::may_have_acted(class),
                    Ended::Exit(_) => true,
                })
            }
            _ => false,
        };
        Self { fault: Fault::from(error), trace, doubtful }
    }
}

impl From<Unanswered> for Fault {
    fn from(unanswered: Unanswered) -> Self {
        unanswered.fault
    }
}

pub(super) fn boxed(
    make: impl Future<Output = Result<crate::fate::Answer<Reply>, Unanswered>> + Send + 'static,
) -> Making {
    Box::pin(make)
}
