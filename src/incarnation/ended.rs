//! How a step ends: its reply is kept, or what it left behind goes.
//!
//! *Invariant.* Nobody hears of a reply before what has to be kept is; after a fault the life is as it
//! was before the step.

use std::sync::Arc;

use super::StatefulWorker;
use crate::behavior::{Context, Place, Stateful, Step};
use crate::checkpoint::Snapshot;
use crate::effects::EFFECT_UNKNOWN;
use crate::fault::{ExitCause, Fault};
use crate::port::Cut;
use crate::slot::{Ended, Job, NotBack, Said, Slot, Unkept, Watched, Writing, dropped};

/// What a step is cut short by.
pub(super) const HEARD: [Cut; 2] = [Cut::Kill, Cut::Timeout];

/// Drops the state before a step that succeeded.
#[inline]
pub(super) fn let_drop<B>(before: B) {
    if std::mem::needs_drop::<B>() {
        let _ = dropped(before);
    }
}

pub(super) fn is_tainted(context: &Context) -> bool {
    context.tie.get().is_some_and(|tie| tie.is_tainted())
}

/// How a step ended.
pub(super) type Made<R> = Watched<Result<Step<R>, Box<Fault>>>;

/// A reply that is not told yet, with what has to be kept first.
pub(super) struct Replied<B: Stateful> {
    pub(super) reply: B::Reply,
    pub(super) kept: Result<(Option<Snapshot>, Option<Writing>), Unkept>,
    pub(super) before: B,
    pub(super) again: Place,
}

/// Keeps what has to be kept before anybody hears of a reply.
pub(super) async fn keep<B: Stateful>(
    slot: &Arc<Slot<StatefulWorker<B>>>,
    life: Box<B>,
    job: &Job<StatefulWorker<B>>,
    context: &Context,
    replied: Replied<B>,
) -> (Option<Box<B>>, Ended<B::Reply>) {
    let Replied { reply, kept, before, again } = replied;
    let answers = job.mail.is_answering();
    let kept = match kept {
        Ok((state, None)) => Ok(state),
        Ok((state, writing)) => slot.kept(writing, job, context).await.map(|()| state),
        Err(kept) => Err(kept),
    };
    match kept {
        Ok(state) => {
            let_drop(before);
            let said = Said { kept: answers, ..Said::with(state, job, context) };
            (Some(life), Ended::Reply(reply, said))
        }
        Err(Unkept::Failed(fault)) => {
            let _ = dropped(reply);
            failed(life, before, fault, again, context)
        }
        Err(Unkept::Late) => {
            let _ = dropped(reply);
            late(life, before, context)
        }
        Err(Unkept::Ended(cause)) => {
            let _ = dropped((reply, before));
            (None, Ended::Crash(lost(life, cause), is_tainted(context)))
        }
    }
}

/// A step has failed: what it left behind goes; a state that cannot even be dropped is not gone on
/// with.
pub(super) fn failed<B: Stateful>(
    mut life: Box<B>,
    before: B,
    fault: Box<Fault>,
    again: Place,
    context: &Context,
) -> (Option<Box<B>>, Ended<B::Reply>) {
    let torn = std::mem::replace(&mut *life, before);
    if let Err(text) = dropped(torn) {
        return (None, Ended::Crash(lost(life, ExitCause::Panic(text)), is_tainted(context)));
    }
    // An effect that nobody knows about makes the outcome of the whole request unknown.
    let unknown = fault.code.as_deref() == Some(EFFECT_UNKNOWN);
    (Some(life), Ended::Fault(fault, again, unknown || is_tainted(context)))
}

/// The request has ended, and nothing of its step counts.
pub(super) fn late<B: Stateful>(
    mut life: Box<B>,
    before: B,
    context: &Context,
) -> (Option<Box<B>>, Ended<B::Reply>) {
    let gone = std::mem::replace(&mut *life, before);
    if let Err(text) = dropped(gone) {
        return (None, Ended::Crash(lost(life, ExitCause::Panic(text)), is_tainted(context)));
    }
    (Some(life), Ended::Cut(Cut::Cancel, is_tainted(context)))
}

/// What an attempt had to keep before its first step was not.
pub(super) fn not_kept<B, R>(
    life: Box<B>,
    unkept: Unkept,
    again: Place,
    tainted: bool,
) -> (Option<Box<B>>, Ended<R>) {
    match unkept {
        Unkept::Failed(fault) => (Some(life), Ended::Fault(fault, again, tainted)),
        Unkept::Ended(cause) => (None, Ended::Crash(lost(life, cause), tainted)),
        Unkept::Late => (Some(life), Ended::Cut(Cut::Cancel, tainted)),
    }
}

/// The state was not gone back to before the first step.
pub(super) fn not_back<B, R>(
    life: Box<B>,
    not_back: NotBack,
    again: Place,
    tainted: bool,
) -> (Option<Box<B>>, Ended<R>) {
    match not_back {
        NotBack::Unkept(unkept) => not_kept(life, unkept, again, tainted),
        NotBack::Stopped => (Some(life), Ended::Cut(Cut::Stop, tainted)),
    }
}

pub(super) fn lost<B>(life: Box<B>, cause: ExitCause) -> Box<ExitCause> {
    let _ = dropped(life);
    Box::new(cause)
}

pub(super) fn boxed_fault<T>(result: Result<T, Fault>) -> Result<T, Box<Fault>> {
    result.map_err(Box::new)
}
