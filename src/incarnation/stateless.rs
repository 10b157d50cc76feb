//! The attempts of a stateless behavior: several at a time, each alone.
//!
//! *Invariant.* What an attempt does, or fails to do, holds up no other one: what does not end at once has a
//! task of its own.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use super::apart::thread;
use super::ended::boxed_fault;
use super::tasks::{Tasks, Work};
use super::{BATCH, Drive, StatelessWorker, admit, rest};
use crate::behavior::{Context, Place, Stateless};
use crate::fault::{ExitCause, Fault};
use crate::port::{Cut, Flight};
use crate::slot::{Bill, Ended, Job, Next, OnTrial, Said, Slot, Unkept, Watched, dropped, watched};

/// After an attempt that had to wait so many are expected to.
const ALIKE: u32 = 8;

/// What is heard while nothing of an attempt has run: it acts on nobody yet, so that it is always safe to end it.
const UNBEGUN: [Cut; 3] = [Cut::Kill, Cut::Timeout, Cut::Cancel];

impl<B: Stateless> Drive for StatelessWorker<B> {
    async fn drive(slot: &Arc<Slot<Self>>, number: u32, _: Arc<Flight>) {
        let mut left = BATCH;
        let tasks = Tasks::new();
        let mut alike = 0;
        loop {
            if left == 0 {
                left = BATCH;
                tokio::task::yield_now().await;
            }
            left -= 1;
            let mut holder = None;
            let (life, job) = match (slot.begin_work(number, &mut holder), holder) {
                (Next::Work(life), Some(job)) => (life, job),
                (Next::Leave, _) => return,
                _ => {
                    rest().await;
                    continue;
                }
            };
            if slot.spec.blocking {
                let inner = Arc::clone(slot);
                let alone = thread(slot, async move { serve(&inner, life, job).await });
                let slot = Arc::clone(slot);
                slot.hub.clone().spawn(async move {
                    if let Some((job, ended)) = alone.await {
                        slot.after(None, None, &mut Some(job), ended, false);
                    }
                });
                continue;
            }
            let mut alone = alone(Arc::clone(slot), life, job);
            // Most attempts that only compute end with their first poll, and need no task. One that waits has been
            // polled once too often if it was polled here.
            if alike > 0 {
                alike -= 1;
            } else {
                let polled = poll_fn(|task| Poll::Ready(alone.as_mut().poll(task))).await;
                if polled.is_ready() {
                    continue;
                }
                alike = ALIKE;
            }
            tasks.run(alone, |task| slot.hub.spawn_boxed(task));
        }
    }
}

/// One attempt of a stateless behavior, and what comes of it.
fn alone<B: Stateless>(
    slot: Arc<Slot<StatelessWorker<B>>>,
    life: Arc<B>,
    job: Job<StatelessWorker<B>>,
) -> Work {
    Box::pin(async move {
        let (job, ended) = serve(&slot, life, job).await;
        slot.after(None, None, &mut Some(job), ended, false);
    })
}

/// One attempt of a stateless behavior, which owns all it needs.
async fn serve<B: Stateless>(
    slot: &Arc<Slot<StatelessWorker<B>>>,
    life: Arc<B>,
    mut job: Job<StatelessWorker<B>>,
) -> (Job<StatelessWorker<B>>, Ended<B::Reply>) {
    let flight = job.flight.clone().unwrap_or_default();
    if !job.is_plain()
        && let Err(ended) = Box::pin(admit(slot, &mut job, &flight, &UNBEGUN)).await
    {
        return (job, ended);
    }
    let context = slot.context(&job, flight);
    let heard: &[Cut] =
        if slot.effect().is_replay_safe() { &UNBEGUN } else { &[Cut::Kill, Cut::Timeout] };
    let mut hand = None;
    if job.mail.trial().is_some() || slot.hands_out(&job.mail) {
        match Box::pin(slot.take_up(&job, &context)).await {
            Ok(taken) => hand = taken,
            Err(ended) => return (job, ended),
        }
    }
    let served = || life.serve(&job.mail.request, &context);
    let done = if let Some(cut) = context.flight.asked(&UNBEGUN) {
        // It has waited since it was handed out, for its task or its turn, and is not wanted any more.
        Watched::Cut(cut)
    } else if hand.is_some() {
        let served =
            watched(|| OnTrial::around(&mut hand, served()), boxed_fault, &context.flight, heard);
        Box::pin(served).await
    } else {
        watched(served, boxed_fault, &context.flight, heard).await
    };
    let tainted = context.tie.get().is_some_and(|tie| tie.is_tainted());
    let ended = match done {
        Watched::Done(Ok(reply)) if slot.keeps(&job.mail) => {
            Box::pin(kept(slot, &life, &job, &context, reply, tainted)).await
        }
        Watched::Done(Ok(reply)) => Ended::Reply(reply, Said::of(&context)),
        Watched::Done(Err(fault)) => Ended::Fault(fault, Place::START, tainted),
        Watched::Panicked(text) => Ended::Crash(Box::new(ExitCause::Panic(text)), tainted),
        Watched::Cut(Cut::Timeout) => Ended::Fault(
            Box::new(Fault::timeout(format!("no answer within {:?}", slot.rules.attempt_timeout))),
            Place::START,
            tainted,
        ),
        Watched::Cut(Cut::Kill) => Ended::Crash(Box::new(ExitCause::Killed), tainted),
        Watched::Cut(cut) => Ended::Cut(cut, tainted),
    };
    job.bill = Bill::of(&context);
    drop(context);
    // The last one to hold a life that has ended drops it.
    let _ = dropped(life);
    (job, ended)
}

/// The answer to a durable request is in the store before anybody hears of it.
async fn kept<B: Stateless>(
    slot: &Slot<StatelessWorker<B>>,
    life: &Arc<B>,
    job: &Job<StatelessWorker<B>>,
    context: &Context,
    reply: B::Reply,
    tainted: bool,
) -> Ended<B::Reply> {
    let written = slot.keep_reply(life, job, context, &reply);
    let answers = job.mail.is_answering();
    let kept = match written {
        Ok((_, writing)) => slot.kept(writing, job, context).await,
        Err(unkept) => Err(unkept),
    };
    let unkept = match kept {
        Ok(()) => return Ended::Reply(reply, Said { kept: answers, ..Said::of(context) }),
        Err(unkept) => unkept,
    };
    let _ = dropped(reply);
    match unkept {
        Unkept::Failed(fault) => Ended::Fault(fault, Place::START, tainted),
        Unkept::Ended(cause) => Ended::Crash(Box::new(cause), tainted),
        Unkept::Late => Ended::Cut(Cut::Cancel, tainted),
    }
}
