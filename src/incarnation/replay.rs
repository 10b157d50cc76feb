//! Handling requests again that were answered, on a state that has gone back to before them.
//!
//! *Invariant.* Nobody hears of it and nobody is asked: the outcomes of calls are those of the record. What
//! cannot be handled so leaves the state as it was before, and is named.

use std::sync::Arc;

use super::{HEARD, StatefulWorker, boxed_fault, is_tainted, lost, not_kept};
use crate::behavior::{Call, Context, Performed, Place, Stateful, Step, Turn};
use crate::checkpoint::Snapshot;
use crate::effects::Site;
use crate::fate::Cost;
use crate::fault::{ExitCause, Fault};
use crate::port::{Cut, Flight, Replayed as Guarded};
use crate::slot::{
    Ended, Job, Replay, Replayed, Slot, Unkept, Watched, Worker, dropped, unwound, watched,
};

/// How often a step is tried that was tried again when the request was handled first: more often than any
/// ladder has rungs.
const ATTEMPTS: u32 = 16;

/// The life comes back, or how it ended.
type CaughtUp<B, R> = Result<Box<B>, (Option<Box<B>>, Ended<R>)>;

/// How a replay ended, if its life goes on.
enum Over {
    Done,
    Failed(String),
}

/// Replays what is not in the state, before the request of this job is worked on.
pub(super) async fn catch_up<B: Stateful>(
    slot: &Arc<Slot<StatefulWorker<B>>>,
    life: Box<B>,
    job: &Job<StatefulWorker<B>>,
    context: &Context,
) -> CaughtUp<B, B::Reply> {
    let (life, ended) = match replay_all(slot, life, job, context).await {
        Err((Some(life), ended)) => (life, ended),
        done => return done,
    };
    // What was replayed is in nobody's state, and is replayed again: a life that goes on stands before it.
    match renewed(slot, life, None, job).await {
        Ok(life) => Err((Some(life), ended)),
        Err(lost) => Err(lost),
    }
}

/// Before the first step of a request that takes the place of another one's middle, or has gone back: a life with
/// the state between the two, and with what had to be replayed where that is an older one.
pub(super) async fn brought_up<B: Stateful>(
    slot: &Arc<Slot<StatefulWorker<B>>>,
    mut life: Box<B>,
    job: &mut Job<StatefulWorker<B>>,
    context: &Context,
    turn: &Turn,
) -> CaughtUp<B, B::Reply> {
    if job.torn {
        match slot.mend(job).await {
            Ok(fresh) => {
                let old = std::mem::replace(&mut life, fresh);
                let _ = dropped(old);
            }
            Err(unkept) => {
                return Err(not_kept(life, unkept, Place::START, is_tainted(context)));
            }
        }
    }
    if !slot.is_behind() {
        return Ok(life);
    }
    // What is written with the replays says where the request that waits begins.
    job.place = Some(Box::new(Place { turn: turn.clone(), ..Place::START }));
    let caught_up = catch_up(slot, life, job, context).await;
    job.place = None;
    caught_up
}

async fn replay_all<B: Stateful>(
    slot: &Arc<Slot<StatefulWorker<B>>>,
    mut life: Box<B>,
    job: &Job<StatefulWorker<B>>,
    context: &Context,
) -> CaughtUp<B, B::Reply> {
    let mut replayed = Replayed { done: Vec::new(), lost: Vec::new(), state: None };
    for due in slot.replays() {
        let Replay { key, step, request } = due;
        let (back, over) = match request {
            Ok(request) => again(slot, life, (&key, &request), job, context).await?,
            Err(why) => (life, Over::Failed(why)),
        };
        life = back;
        match over {
            Over::Done => match unwound(|| StatefulWorker::<B>::snapshot(&life)) {
                Ok(Some(snapshot)) => {
                    replayed.done.push(key);
                    replayed.state = Some((following(slot, &replayed, snapshot), step));
                }
                // It keeps no state after all.
                Ok(None) => replayed.done.push(key),
                Err(text) => {
                    let cause = lost(life, ExitCause::Panic(text));
                    return Err((None, Ended::Crash(cause, false)));
                }
            },
            Over::Failed(why) => {
                tracing::warn!(target: "mainstay", child = %slot.path, why, "a request cannot be replayed");
                replayed.lost.push(key);
                life = renewed(slot, life, replayed.state.as_ref(), job).await?;
            }
        }
    }
    match slot.keep_replayed(replayed, job, context).await {
        Ok(()) => Ok(life),
        Err(unkept) => Err(not_kept(life, unkept, Place::START, false)),
    }
}

/// A snapshot that shares with the one before what has not changed.
fn following<B: Stateful>(
    slot: &Slot<StatefulWorker<B>>,
    replayed: &Replayed,
    snapshot: Snapshot,
) -> Snapshot {
    match &replayed.state {
        Some((before, _)) => snapshot.following(before),
        None => match slot.base() {
            Some(before) => snapshot.following(&before),
            None => snapshot,
        },
    }
}

/// A life as it was after what was replayed so far: nothing of what came then is trusted.
async fn renewed<B: Stateful>(
    slot: &Arc<Slot<StatefulWorker<B>>>,
    life: Box<B>,
    after: Option<&(Snapshot, u64)>,
    job: &Job<StatefulWorker<B>>,
) -> CaughtUp<B, B::Reply> {
    let _ = dropped(life);
    let state = after.map(|(snapshot, _)| snapshot.clone()).or_else(|| slot.base());
    match slot.life_from(state.as_ref(), job).await {
        Ok(fresh) => Ok(fresh),
        Err(Unkept::Failed(fault)) => {
            let cause = ExitCause::StartFailed(fault.to_string());
            Err((None, Ended::Crash(Box::new(cause), false)))
        }
        Err(Unkept::Ended(cause)) => Err((None, Ended::Crash(Box::new(cause), false))),
        Err(Unkept::Late) => Err((None, Ended::Crash(Box::new(ExitCause::Killed), false))),
    }
}

/// Handles one request again. The life is not to be trusted when that failed.
async fn again<B: Stateful>(
    slot: &Arc<Slot<StatefulWorker<B>>>,
    mut life: Box<B>,
    (key, request): (&Arc<str>, &B::Request),
    job: &Job<StatefulWorker<B>>,
    waiting: &Context,
) -> Result<(Box<B>, Over), (Option<Box<B>>, Ended<B::Reply>)> {
    let flight: &Arc<Flight> = &waiting.flight;
    let mut context = slot.replay_context(job, flight, key);
    let (mut turn, mut done) = (slot.first_turn(key), 0);
    loop {
        slot.stands_between(job.ticket);
        while let Some(hold) = slot.next_step(job.ticket) {
            if let Err(cut) = slot.wait_held(hold, flight, waiting).await {
                return Err((Some(life), Ended::Cut(cut, false)));
            }
        }
        match flight.asked(&[Cut::Kill, Cut::Stop]) {
            Some(Cut::Kill) => return Err(killed(life)),
            Some(cut) => return Err((Some(life), Ended::Cut(cut, false))),
            None => {}
        }
        let before = match unwound(|| B::clone(&life)) {
            Ok(before) => before,
            Err(text) => return Ok((life, Over::Failed(text))),
        };
        let step = watched(
            || Guarded::new(|| life.step(request, turn.clone(), &context)),
            |(result, asked)| (boxed_fault(result), asked),
            flight,
            &HEARD,
        )
        .await;
        let over = match step {
            Watched::Done((_, true)) => {
                Over::Failed("a step asks somebody without leaving that to the runtime".to_owned())
            }
            Watched::Done((Ok(Step::Reply(reply)), _)) => match dropped(reply) {
                Ok(()) => Over::Done,
                Err(text) => Over::Failed(text),
            },
            Watched::Done((Ok(Step::Continue), _)) => {
                (turn, done) = (Turn::Again, done + 1);
                context.attempt = 1;
                let _ = dropped(before);
                continue;
            }
            Watched::Done((Ok(Step::Perform(calls)), _)) => {
                match recall(slot, &calls, &context, done) {
                    Ok(performed) => {
                        (turn, done) = (Turn::Performed(performed), done + 1);
                        context.attempt = 1;
                        let _ = dropped(before);
                        continue;
                    }
                    Err(fault) => Over::Failed(fault.to_string()),
                }
            }
            // Then it was tried again, and was answered in the end.
            Watched::Done((Err(fault), _)) if context.attempt < ATTEMPTS => {
                context.attempt += 1;
                context.feedback = fault.feedback.clone().or(context.feedback);
                let torn = std::mem::replace(&mut *life, before);
                if let Err(text) = dropped(torn) {
                    return Ok((life, Over::Failed(text)));
                }
                continue;
            }
            Watched::Done((Err(fault), _)) => Over::Failed(fault.to_string()),
            Watched::Panicked(text) => Over::Failed(text),
            Watched::Cut(Cut::Timeout) => {
                flight.unask(Cut::Timeout);
                Over::Failed(format!("no answer within {:?}", slot.rules.attempt_timeout))
            }
            Watched::Cut(_) => return Err(killed(life)),
        };
        let _ = dropped(before);
        return Ok((life, over));
    }
}

fn killed<B, R>(life: Box<B>) -> (Option<Box<B>>, Ended<R>) {
    (None, Ended::Crash(lost(life, ExitCause::Killed), false))
}

/// The outcomes of these calls, as they are on record.
fn recall<W: Worker>(
    slot: &Slot<W>,
    calls: &[Call],
    context: &Context,
    step: u64,
) -> Result<Performed, Fault> {
    let task: Arc<str> = context.task();
    let mut outcomes = Vec::with_capacity(calls.len());
    for (ordinal, call) in calls.iter().enumerate() {
        let site = Site {
            task: Arc::clone(&task),
            owner: slot.path.clone(),
            step,
            ordinal: ordinal as u32,
            before: None,
        };
        outcomes.push(slot.hub.effects.recall(&site, call)?);
    }
    let acted = calls.iter().any(Call::is_act);
    Ok(Performed::new(outcomes, acted, Cost::default()))
}
