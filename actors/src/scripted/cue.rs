//! What a scripted behavior can be told to do.

use std::fmt;
use std::time::Duration;

use mainstay::behavior::{Call, Context, Step, Turn};
use mainstay::fault::{Class, Fault};

type Answer<Q, R> = Box<dyn FnOnce(&Q, &Context) -> Result<R, Fault> + Send>;
type Calls<Q> = Box<dyn FnOnce(&Q, &Context) -> Result<Vec<Call>, Fault> + Send>;
type StepFn<Q, R> = Box<dyn FnOnce(StepCue<'_, Q>) -> Result<Step<R>, Fault> + Send>;

/// What happens in one attempt, or in one step of a stateful behavior. Given to
/// [`Script::then`](super::Script::then).
#[non_exhaustive]
pub enum Cue<Q, R> {
    /// As if nothing were scripted: [`Rates`](super::Rates), then the usual answer.
    Usual,
    /// This answer.
    Reply(R),
    /// This answer, which is wrong; only the record knows.
    Lie(R),
    /// What this function says.
    Answer(Answer<Q, R>),
    /// This fault.
    Fail(Fault),
    /// A panic with this payload.
    Panic(Payload),
    /// Never ends; can be dropped at any time.
    Hang,
    /// Waits for [`Script::release`](super::Script::release), then the usual answer. Can be dropped
    /// at any time.
    Wait,
    /// Blocks its thread for so long by the real clock, then the usual answer. Nothing can stop it.
    Block(Duration),
    /// Blocks its thread until [`Script::release`](super::Script::release), then the usual answer.
    BlockUntilReleased,
    /// Sleeps by tokio's clock, then does this.
    After(Duration, Box<Cue<Q, R>>),
    /// [`Step::Continue`]. Only for a stateful behavior.
    Continue,
    /// [`Step::Perform`] of these calls. Only for a stateful behavior.
    Perform(Calls<Q>),
    /// Whatever this step does. Only for a stateful behavior.
    Step(StepFn<Q, R>),
}

impl<Q, R> Cue<Q, R> {
    /// A fault of this class, with code `scripted`.
    pub fn fail(class: Class) -> Self {
        Self::Fail(scripted(class))
    }

    /// What this function says.
    pub fn answer(answer: impl FnOnce(&Q, &Context) -> Result<R, Fault> + Send + 'static) -> Self {
        Self::Answer(Box::new(answer))
    }

    /// These calls; their outcomes come with the next turn.
    pub fn perform(
        calls: impl FnOnce(&Q, &Context) -> Result<Vec<Call>, Fault> + Send + 'static,
    ) -> Self {
        Self::Perform(Box::new(calls))
    }

    /// Whatever this step does.
    pub fn step(
        step: impl FnOnce(StepCue<'_, Q>) -> Result<Step<R>, Fault> + Send + 'static,
    ) -> Self {
        Self::Step(Box::new(step))
    }

    /// Sleeps by tokio's clock first.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self::After(delay, Box::new(self))
    }

    pub(super) fn did(&self) -> Did {
        match self {
            Self::Usual | Self::Reply(_) | Self::Answer(_) => Did::Answer,
            Self::Lie(_) => Did::Lie,
            Self::Fail(fault) => Did::Fail(fault.class),
            Self::Panic(_) => Did::Panic,
            Self::Hang => Did::Hang,
            Self::Wait => Did::Wait,
            Self::Block(_) | Self::BlockUntilReleased => Did::Block,
            Self::After(_, cue) => cue.did(),
            Self::Continue => Did::Continue,
            Self::Perform(_) => Did::Perform,
            Self::Step(_) => Did::Step,
        }
    }
}

impl<Q, R> fmt::Debug for Cue<Q, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cue").field(&self.did()).finish()
    }
}

pub(super) fn scripted(class: Class) -> Fault {
    Fault::new(class, "scripted").with_code("scripted")
}

/// What a [`Cue::Step`] gets.
#[derive(Debug)]
#[non_exhaustive]
pub struct StepCue<'a, Q> {
    /// The request.
    pub request: &'a Q,
    /// Why the step is called, with the outcomes of calls.
    pub turn: Turn,
    /// The attempt's context.
    pub ctx: &'a Context,
    /// The counter of [`ScriptedState`](super::ScriptedState), this step included. May be changed: it
    /// is the state.
    pub counter: &'a mut u64,
}

/// What a panic carries.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Payload {
    /// A text.
    Text(String),
    /// A number: no text can be made of it.
    Number(u64),
}

impl Payload {
    pub(super) fn panic(self) -> ! {
        match self {
            Self::Text(text) => std::panic::panic_any(text),
            Self::Number(number) => std::panic::panic_any(number),
        }
    }
}

/// How a life begins. Given to [`Script::then_born`](super::Script::then_born).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Birth {
    /// Well.
    #[default]
    Well,
    /// The constructor panics.
    ConstructorPanics,
    /// `start` fails with this fault.
    StartFails(Fault),
    /// `start` panics.
    StartPanics,
    /// `start` never ends.
    StartHangs,
}

/// What a scripted behavior did in an attempt or a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Did {
    /// Gave an answer, or was about to.
    Answer,
    /// Gave a wrong answer.
    Lie,
    /// Failed.
    Fail(Class),
    /// Panicked.
    Panic,
    /// Hung.
    Hang,
    /// Waited to be released.
    Wait,
    /// Blocked its thread.
    Block,
    /// Asked for another step.
    Continue,
    /// Made calls.
    Perform,
    /// What a function said.
    Step,
}
