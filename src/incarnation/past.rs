//! What nobody knows of a request that is taken over, and can be asked.
//!
//! *Invariant.* The questions are asked before the first step, in none of its time, and of nothing that is under way.

use std::sync::Arc;

use super::{StatefulWorker, boxed_fault, is_tainted, lost};
use crate::behavior::{Context, Place, Stateful, Undone};
use crate::fault::{ExitCause, Fault};
use crate::port::Cut;
use crate::slot::{Ended, Job, OnTrial, Slot, Watched, unwound, watched};

/// The life comes back with what it is told, if that is anything; or how its attempt ended.
type FoundOut<B, R> = Result<(Box<B>, Option<Arc<Undone>>), (Option<Box<B>>, Ended<R>)>;

/// What the first turn is told, once all was asked that can be.
pub(super) async fn found_out<B: Stateful>(
    slot: &Arc<Slot<StatefulWorker<B>>>,
    life: Box<B>,
    told: Arc<Undone>,
    (job, context): (&Job<StatefulWorker<B>>, &Context),
    hand: &mut Option<OnTrial>,
) -> FoundOut<B, B::Reply> {
    let effects = &slot.hub.effects;
    let mut calls = Vec::new();
    let is_open = |key| told.unknown.contains(&key) && effects.can_be_asked(key);
    for act in told.acts.iter().filter(|act| is_open(act.key)) {
        match unwound(|| life.question(act, context)) {
            Ok(Some(call)) => calls.push((act.key, call)),
            Ok(None) => {}
            Err(text) => {
                let cause = lost(life, ExitCause::Panic(text));
                return Err((None, Ended::Crash(cause, is_tainted(context))));
            }
        }
    }
    let told = if calls.is_empty() {
        Some(told)
    } else {
        let tie = context.tie();
        tie.waits_for(calls.iter().map(|(_, call)| call.target().clone()).collect());
        let all = async {
            let _paused = tie.pause();
            for (key, call) in calls {
                effects.ask_about(key, call, Arc::clone(tie)).await?;
            }
            Ok(())
        };
        let asked = async {
            let heard = &[Cut::Kill, Cut::Stop, Cut::Cancel];
            match watched(|| all, boxed_fault, &context.flight, heard).await {
                Watched::Done(asked) => Ok(asked),
                Watched::Panicked(text) => Ok(Err(Box::new(Fault::internal(text)))),
                Watched::Cut(cut) => Err(cut),
            }
        };
        let asked = slot.waits_for(hand, asked, context).await;
        tie.waits_for(Vec::new());
        match asked {
            Ok(Ok(())) => slot.takes_over(&job.mail),
            Ok(Err(fault)) => {
                let ended = Ended::Fault(fault, Place::START, is_tainted(context));
                return Err((Some(life), ended));
            }
            Err(cut) => return Err((Some(life), Ended::Cut(cut, is_tainted(context)))),
        }
    };
    if let Some(told) = &told {
        effects.told_unknown(&told.unknown);
    }
    Ok((life, told))
}
