//! The two behaviors that play a script.

use std::fmt;

use mainstay::behavior::{Behavior, Context, StartContext, Stateful, Stateless, Step, Turn};
use mainstay::fault::{EffectKind, ExitCause, Fault};
use mainstay::id::Incarnation;

use super::cue::{Birth, Cue, StepCue};
use super::{Script, Seen};

/// A stateless behavior that does what its [`Script`] says. A clone is another life of it.
pub struct Scripted<Q, R> {
    script: Script<Q, R>,
    birth: Birth,
    life: Incarnation,
    /// A template, from which lives are cloned, is none itself.
    born: bool,
}

impl<Q, R> Scripted<Q, R> {
    pub(super) fn template(script: Script<Q, R>) -> Self {
        Self { script, birth: Birth::Well, life: Incarnation::NONE, born: false }
    }

    pub(super) fn born(script: Script<Q, R>) -> Self {
        let birth = script.born();
        Self { script, birth, life: Incarnation::NONE, born: true }
    }
}

impl<Q, R> Clone for Scripted<Q, R> {
    fn clone(&self) -> Self {
        Self::born(self.script.clone())
    }
}

impl<Q, R> Drop for Scripted<Q, R> {
    fn drop(&mut self) {
        if self.born {
            self.script.dropped();
        }
    }
}

impl<Q, R> fmt::Debug for Scripted<Q, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scripted").field("life", &self.life).finish_non_exhaustive()
    }
}

impl<Q: Send + Sync + 'static, R: Send + 'static> Behavior for Scripted<Q, R> {
    type Request = Q;
    type Reply = R;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
}

impl<Q: Send + Sync + 'static, R: Send + 'static> Stateless for Scripted<Q, R> {
    async fn start(&mut self, ctx: &StartContext) -> Result<(), Fault> {
        self.life = ctx.incarnation;
        let birth = std::mem::take(&mut self.birth);
        self.script.started(birth, ctx.incarnation).await
    }

    async fn serve(&self, request: &Q, ctx: &Context) -> Result<R, Fault> {
        let act = self.script.next(request, ctx, self.life, Seen::Serve, 0);
        let number = act.number;
        let wrong =
            || Err(Fault::internal("a stateless behavior has no steps").with_code("scripted"));
        match self.script.wait(act).await {
            Cue::Reply(reply) | Cue::Lie(reply) => Ok(reply),
            Cue::Answer(answer) => answer(request, ctx),
            Cue::Fail(fault) => Err(fault),
            Cue::Continue | Cue::Perform(_) | Cue::Step(_) => wrong(),
            _ => Ok(self.script.answer(request, number)),
        }
    }

    async fn stop(&self, cause: &ExitCause) {
        self.script.stopped(cause.kind()).await;
    }
}

/// A stateful behavior that does what its [`Script`] says, one cue a step. Its state is a counter of
/// steps, which shows what a rollback did: a step that failed has not counted.
pub struct ScriptedState<Q, R> {
    script: Script<Q, R>,
    birth: Birth,
    life: Incarnation,
    counter: u64,
}

impl<Q, R> ScriptedState<Q, R> {
    pub(super) fn born(script: Script<Q, R>) -> Self {
        let birth = script.born();
        Self { script, birth, life: Incarnation::NONE, counter: 0 }
    }

    /// Steps done.
    pub fn counter(&self) -> u64 {
        self.counter
    }
}

impl<Q, R> Clone for ScriptedState<Q, R> {
    fn clone(&self) -> Self {
        Self {
            script: self.script.clone(),
            birth: self.birth.clone(),
            life: self.life,
            counter: self.counter,
        }
    }
}

impl<Q, R> Drop for ScriptedState<Q, R> {
    fn drop(&mut self) {
        self.script.dropped();
    }
}

impl<Q, R> fmt::Debug for ScriptedState<Q, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedState")
            .field("life", &self.life)
            .field("counter", &self.counter)
            .finish_non_exhaustive()
    }
}

impl<Q: Send + Sync + 'static, R: Send + 'static> Behavior for ScriptedState<Q, R> {
    type Request = Q;
    type Reply = R;
}

impl<Q: Send + Sync + 'static, R: Send + 'static> Stateful for ScriptedState<Q, R> {
    async fn start(&mut self, ctx: &StartContext) -> Result<(), Fault> {
        self.life = ctx.incarnation;
        let birth = std::mem::take(&mut self.birth);
        self.script.started(birth, ctx.incarnation).await
    }

    async fn step(&mut self, request: &Q, turn: Turn, ctx: &Context) -> Result<Step<R>, Fault> {
        let seen = match turn {
            Turn::First => Seen::First,
            Turn::Again => Seen::Again,
            _ => Seen::Performed,
        };
        let act = self.script.next(request, ctx, self.life, seen, self.counter);
        // First of all, so that a step that fails or hangs has changed something to be undone.
        self.counter += 1;
        match self.script.wait(act).await {
            Cue::Reply(reply) | Cue::Lie(reply) => Ok(Step::Reply(reply)),
            Cue::Answer(answer) => answer(request, ctx).map(Step::Reply),
            Cue::Fail(fault) => Err(fault),
            Cue::Continue => Ok(Step::Continue),
            Cue::Perform(calls) => calls(request, ctx).map(Step::Perform),
            Cue::Step(step) => step(StepCue { request, turn, ctx, counter: &mut self.counter }),
            _ => Ok(Step::Reply(self.script.answer(request, self.counter))),
        }
    }

    async fn stop(&mut self, cause: &ExitCause) {
        self.script.stopped(cause.kind()).await;
    }
}
