//! One life at work: the ractor actor that carries it, and the attempts it makes.
//!
//! The actor only has a number; it takes life and work from the slot, up to [`BATCH`] attempts before
//! others have their turn. It gets one message in its life, the first wake, and rests inside the
//! handler of it: waking a task costs a tenth of a message, and a kill is heard all the same. A stop
//! is heard once the carrier has seen that it is not needed any more.
//!
//! *Invariant.* An attempt that fails, panics or is cut short gives its request back; what it may lose
//! is the life. No user code runs outside a guard.

use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, ActorRuntime};

use crate::behavior::{Call, Context, Place, StartContext, Stateful, Stateless, Step, Turn};
use crate::checkpoint::{Interval, Schema, Snapshot};
use crate::error::CheckpointError;
use crate::fate::Cost;
use crate::fault::{ExitCause, Fault};
use crate::journal;
use crate::port::{Cut, Flight};
use crate::slot::{
    Bill, Ended, Job, Next, OnTrial, Said, Slot, Unkept, Wake, Watched, Worker, dropped, let_go,
    poll_watched, unwound, unwound_here, watched,
};

mod apart;
mod ended;
mod past;
mod perform;
mod replay;
mod stateless;
mod tasks;

use apart::apart;
use ended::{
    HEARD, Made, Replied, boxed_fault, failed, is_tainted, keep, late, let_drop, lost, not_back,
    not_kept,
};
use perform::perform;

/// Attempts a carrier makes before it yields.
const BATCH: u32 = 32;

/// A stateful behavior and how it is made.
pub(crate) struct StatefulWorker<B> {
    make: Arc<dyn Fn() -> B + Send + Sync>,
}

/// A stateless behavior and how it is made.
pub(crate) struct StatelessWorker<B> {
    make: Arc<dyn Fn() -> B + Send + Sync>,
}

impl<B> StatefulWorker<B> {
    pub(crate) fn new(make: Arc<dyn Fn() -> B + Send + Sync>) -> Self {
        Self { make }
    }
}

impl<B> StatelessWorker<B> {
    pub(crate) fn new(make: Arc<dyn Fn() -> B + Send + Sync>) -> Self {
        Self { make }
    }
}

impl<B: Stateful> Worker for StatefulWorker<B> {
    type Request = B::Request;
    type Reply = B::Reply;
    type Life = Box<B>;

    fn construct(&self) -> Box<B> {
        Box::new((self.make)())
    }

    fn start(
        life: &mut Box<B>,
        context: &StartContext,
    ) -> impl Future<Output = Result<(), Fault>> + Send {
        life.as_mut().start(context)
    }

    fn stop(life: &mut Box<B>, cause: &ExitCause) -> impl Future<Output = ()> + Send {
        life.as_mut().stop(cause)
    }

    fn schema() -> Option<Schema> {
        B::schema()
    }

    fn snapshot(life: &Box<B>) -> Option<Snapshot> {
        life.as_ref().snapshot()
    }

    fn restore(life: &mut Box<B>, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        life.as_mut().restore(snapshot)
    }

    fn share(_: &Box<B>) -> Option<Box<B>> {
        None
    }

    fn spawn(slot: Arc<Slot<Self>>, number: u32, boss: ActorCell) -> Option<ActorRef<Wake>> {
        spawn_carrier(slot, number, boss)
    }
}

impl<B: Stateless> Worker for StatelessWorker<B> {
    type Request = B::Request;
    type Reply = B::Reply;
    type Life = Arc<B>;

    fn construct(&self) -> Arc<B> {
        Arc::new((self.make)())
    }

    async fn start(life: &mut Arc<B>, context: &StartContext) -> Result<(), Fault> {
        match Arc::get_mut(life) {
            Some(behavior) => behavior.start(context).await,
            None => Err(Fault::internal("a life was shared before it began")),
        }
    }

    fn stop(life: &mut Arc<B>, cause: &ExitCause) -> impl Future<Output = ()> + Send {
        let behavior = Arc::clone(life);
        let cause = cause.clone();
        async move { behavior.stop(&cause).await }
    }

    fn schema() -> Option<Schema> {
        None
    }

    fn snapshot(_: &Arc<B>) -> Option<Snapshot> {
        None
    }

    fn restore(_: &mut Arc<B>, _: &Snapshot) -> Result<(), CheckpointError> {
        Ok(())
    }

    fn share(life: &Arc<B>) -> Option<Arc<B>> {
        Some(Arc::clone(life))
    }

    fn spawn(slot: Arc<Slot<Self>>, number: u32, boss: ActorCell) -> Option<ActorRef<Wake>> {
        spawn_carrier(slot, number, boss)
    }
}

/// How the two kinds of life go about their work.
trait Drive: Worker {
    /// Works, and rests, until the slot does not need this carrier any more.
    /// `flight` is that of attempts which have none of their own.
    fn drive(
        slot: &Arc<Slot<Self>>,
        number: u32,
        flight: Arc<Flight>,
    ) -> impl Future<Output = ()> + Send;
}

struct CarrierActor<W>(PhantomData<fn() -> W>);

/// Lives as long as the actor, in whatever way it ends.
struct Carried<W: Worker> {
    slot: Arc<Slot<W>>,
    number: u32,
}

impl<W: Worker> Drop for Carried<W> {
    fn drop(&mut self) {
        // ractor hands the state of an actor that ended to its supervisor, where no user value may
        // be dropped: what follows is done elsewhere.
        let slot = Arc::clone(&self.slot);
        let number = self.number;
        if slot.is_carrier(number) {
            let hub = Arc::clone(&slot.hub);
            hub.spawn(async move { slot.carrier_gone(number) });
        }
    }
}

impl<W: Drive> Actor for CarrierActor<W> {
    type Msg = Wake;
    type State = Carried<W>;
    type Arguments = Carried<W>;

    async fn pre_start(
        &self,
        _: ActorRef<Wake>,
        carried: Carried<W>,
    ) -> Result<Carried<W>, ActorProcessingErr> {
        Ok(carried)
    }

    async fn handle(
        &self,
        _: ActorRef<Wake>,
        _: Wake,
        carried: &mut Carried<W>,
    ) -> Result<(), ActorProcessingErr> {
        let waker = poll_fn(|task| Poll::Ready(task.waker().clone())).await;
        if let Some(flight) = carried.slot.carry(carried.number, waker) {
            // Boxed once a carrier: ractor keeps the future of a handler two or three times.
            Box::pin(W::drive(&carried.slot, carried.number, flight)).await;
        }
        Ok(())
    }
}

fn spawn_carrier<W: Drive>(
    slot: Arc<Slot<W>>,
    number: u32,
    boss: ActorCell,
) -> Option<ActorRef<Wake>> {
    let runtime = slot.hub.runtime.clone();
    let _entered = runtime.enter();
    let carried = Carried { slot, number };
    ActorRuntime::spawn_linked_instant(None, CarrierActor::<W>(PhantomData), carried, boss)
        .ok()
        .map(|(actor, _)| actor)
}

impl<B: Stateful> Drive for StatefulWorker<B> {
    async fn drive(slot: &Arc<Slot<Self>>, number: u32, flight: Arc<Flight>) {
        // The context of all its attempts.
        let mut context = None;
        let mut holder = None;
        loop {
            let mut next = slot.begin_work(number, &mut holder);
            let mut left = BATCH;
            let leave = loop {
                let mut life = match next {
                    Next::Work(life) => life,
                    Next::Rest => break false,
                    Next::Leave => break true,
                };
                let Some(job) = &mut holder else { break false };
                let (life, ended) = if slot.spec.blocking {
                    Box::pin(apart(slot, life, job)).await
                } else {
                    let context = match &mut context {
                        Some(context) => {
                            slot.renew(context, job);
                            context
                        }
                        none => none.insert(slot.context(job, Arc::clone(&flight))),
                    };
                    let context = &*context;
                    // The usual attempt is one step, which replies: it is made right here. Whatever
                    // else there is to do is boxed, so that this future is small.
                    let ended = if !job.is_plain() {
                        Box::pin(attempt(slot, life, job, context, None)).await
                    } else {
                        match unwound_here(|| B::clone(&life)) {
                            Err(text) => (
                                None,
                                Ended::Crash(
                                    lost(life, ExitCause::Panic(text)),
                                    is_tainted(context),
                                ),
                            ),
                            Ok(before) => {
                                let step = {
                                    let ask = &*job.mail.request;
                                    match unwound_here(|| life.step(ask, Turn::First, context)) {
                                        Ok(step) => {
                                            let mut step = pin!(Some(step));
                                            let ended = poll_fn(|task| {
                                                let step = step.as_mut();
                                                poll_watched(
                                                    step,
                                                    boxed_fault,
                                                    &flight,
                                                    &HEARD,
                                                    task,
                                                )
                                            })
                                            .await;
                                            let_go(step, ended)
                                        }
                                        Err(text) => Watched::Panicked(text),
                                    }
                                };
                                match step {
                                    Watched::Done(Ok(Step::Reply(reply))) => {
                                        match slot.keep_reply(&life, job, context, &reply) {
                                            Ok((state, None)) => {
                                                let_drop(before);
                                                let said = Said::with(state, job, context);
                                                (Some(life), Ended::Reply(reply, said))
                                            }
                                            kept => {
                                                let again = Place::START;
                                                let replied =
                                                    Replied { reply, kept, before, again };
                                                Box::pin(keep(slot, life, job, context, replied))
                                                    .await
                                            }
                                        }
                                    }
                                    step => {
                                        let made = Some((before, step));
                                        Box::pin(attempt(slot, life, job, context, made)).await
                                    }
                                }
                            }
                        }
                    };
                    job.bill = Bill::of(context);
                    ended
                };
                left -= 1;
                next = slot.after(Some(number), life, &mut holder, ended, left > 0);
            };
            if leave {
                return;
            }
            if left > 0 {
                rest().await;
            } else {
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Waits for the next wake. One that came since the slot was looked at is not missed: it has marked
/// this task to be polled again.
async fn rest() {
    let mut woken = false;
    poll_fn(|_| if std::mem::replace(&mut woken, true) { Poll::Ready(()) } else { Poll::Pending })
        .await;
}

/// One attempt of a stateful behavior: its steps, until it replies, fails or is cut short. The life
/// comes back as it was before the step that failed; it does not come back from a panic. The first step
/// may have been made, with the state before it.
async fn attempt<B: Stateful>(
    slot: &Arc<Slot<StatefulWorker<B>>>,
    mut life: Box<B>,
    job: &mut Job<StatefulWorker<B>>,
    context: &Context,
    mut made: Option<(B, Made<B::Reply>)>,
) -> (Option<Box<B>>, Ended<B::Reply>) {
    let flight = &*context.flight;
    if made.is_none()
        && let Err(ended) = admit(slot, job, flight, &[Cut::Kill, Cut::Timeout, Cut::Cancel]).await
    {
        return (Some(life), ended);
    }
    let mut hand = match slot.take_up(job, context).await {
        Ok(hand) => hand,
        Err(ended) => return (Some(life), ended),
    };
    if job.behind {
        match Box::pin(replay::catch_up(slot, life, job, context)).await {
            Ok(caught_up) => life = caught_up,
            Err(ended) => return ended,
        }
    }
    let tainted = || is_tainted(context);
    let place = job.place.take().map_or(Place::START, |place| *place);
    let Place { mut turn, step: mut done, back, undo } = place;
    // What comes before its first step takes none of the time that the step has.
    let mut first = !(job.behind || back || undo || job.torn || job.takes_over.is_some());
    if back {
        let began = slot.hub.now();
        // What it waits for now is not its code, and may be another request on trial.
        drop(hand.take());
        let gone = Box::pin(slot.go_back(job, context, undo)).await;
        let reached = gone.as_ref().is_ok_and(|(_, undone)| slot.has_undone(undone));
        slot.hub.count_rollback(slot.rules.scope, reached, began);
        match gone {
            Ok((fresh, undone)) => {
                let old = std::mem::replace(&mut life, fresh);
                let _ = dropped(old);
                turn = Turn::RolledBack(undone);
                done = 0;
            }
            Err((fresh, why)) => {
                if let Some(fresh) = fresh {
                    let old = std::mem::replace(&mut life, fresh);
                    let _ = dropped(old);
                }
                return not_back(life, why, Place::START, tainted());
            }
        }
    }
    if undo && !back {
        drop(hand.take());
        match Box::pin(slot.undo_from(done, job, context)).await {
            Ok(undone) => turn = Turn::Resumed(undone),
            Err(why) => {
                let again = Place { turn, step: done, back: false, undo };
                return not_back(life, why, again, tainted());
            }
        }
    }
    if back || undo {
        hand = match slot.take_up(job, context).await {
            Ok(hand) => hand,
            Err(ended) => return (Some(life), ended),
        };
    }
    if back || job.torn {
        match Box::pin(replay::brought_up(slot, life, job, context, &turn)).await {
            Ok(there) => life = there,
            Err(ended) => return ended,
        }
    }
    // Only this turn is so: tried again, it is looked up anew.
    let mut takes_over = None;
    if let Some(told) = job.takes_over.take() {
        match Box::pin(past::found_out(slot, life, told, (job, context), &mut hand)).await {
            Ok((same, told)) => (life, takes_over) = (same, told.map(Turn::RolledBack)),
            Err(ended) => return ended,
        }
    }
    if !first {
        slot.stands_between(job.ticket);
    }
    let every_effect = slot.spec.checkpoint == Interval::EveryEffect;
    'steps: loop {
        if !std::mem::take(&mut first) {
            while let Some(hold) = slot.next_step(job.ticket) {
                if let Err(cut) = slot.wait_held(hold, flight, context).await {
                    return (Some(life), Ended::Cut(cut, tainted()));
                }
            }
            if let Some(cut) = flight.asked(&[Cut::Kill, Cut::Stop, Cut::Cancel]) {
                return (Some(life), Ended::Cut(cut, tainted()));
            }
        }
        let again = Place { turn: turn.clone(), step: done, back: false, undo: false };
        let after = matches!(&turn, Turn::Performed(it) if every_effect && it.has_acted());
        let (before, step) = match made.take() {
            Some(made) => made,
            None => {
                let before = match unwound(|| B::clone(&life)) {
                    Ok(before) => before,
                    Err(text) => {
                        return (None, Ended::Crash(lost(life, ExitCause::Panic(text)), tainted()));
                    }
                };
                // A fault is large, and moved at every await on its way: not with every reply.
                let told = takes_over.take().unwrap_or(turn);
                let step = || life.step(&job.mail.request, told, context);
                let step = if hand.is_some() {
                    let step = || OnTrial::around(&mut hand, step());
                    Box::pin(watched(step, boxed_fault, flight, &HEARD)).await
                } else {
                    watched(step, boxed_fault, flight, &HEARD).await
                };
                (before, step)
            }
        };
        let over = 'over: {
            let fault = match step {
                Watched::Done(Ok(Step::Reply(reply))) => {
                    let kept = slot.keep_reply(&life, job, context, &reply);
                    return keep(slot, life, job, context, Replied { reply, kept, before, again })
                        .await;
                }
                Watched::Done(Ok(Step::Continue)) => {
                    let kept = match slot.keep_step(&life, job, context, done + 1, after) {
                        Ok(writing) => slot.kept(writing, job, context).await,
                        Err(kept) => Err(kept),
                    };
                    match kept {
                        Ok(()) => {
                            turn = Turn::Again;
                            done += 1;
                            let_drop((before, again));
                            continue 'steps;
                        }
                        Err(Unkept::Failed(fault)) => fault,
                        Err(Unkept::Late) => return late(life, before, context),
                        Err(Unkept::Ended(cause)) => {
                            break 'over (None, Ended::Crash(lost(life, cause), tainted()));
                        }
                    }
                }
                Watched::Done(Ok(Step::Perform(calls))) => {
                    let acted = calls.iter().any(Call::is_act);
                    // What those do who are asked may be asked for once: by whoever goes on from here.
                    let at_once = acted || after || calls.iter().any(Call::is_joined);
                    let kept = match slot.keep_step(&life, job, context, done, at_once) {
                        Ok(writing) => slot.kept(writing, job, context).await,
                        Err(kept) => Err(kept),
                    };
                    match kept {
                        Ok(()) => {}
                        Err(Unkept::Failed(fault)) => {
                            let _ = unwound(|| std::mem::replace(&mut *life, before));
                            return (Some(life), Ended::Fault(fault, again, tainted()));
                        }
                        Err(Unkept::Late) => return late(life, before, context),
                        Err(Unkept::Ended(cause)) => {
                            break 'over (None, Ended::Crash(lost(life, cause), tainted()));
                        }
                    }
                    let before = job.mail.before();
                    let asked = perform(slot, calls, context, done, (acted, before));
                    let performed = if hand.is_some() {
                        Box::pin(slot.waits_for(&mut hand, asked, context)).await
                    } else {
                        asked.await
                    };
                    match performed {
                        Ok(performed) => {
                            turn = Turn::Performed(performed);
                            done += 1;
                            let_drop((before, again));
                            continue 'steps;
                        }
                        Err(cut) => break 'over (Some(life), Ended::Cut(cut, tainted())),
                    }
                }
                Watched::Done(Err(fault)) => fault,
                Watched::Panicked(text) => {
                    break 'over (
                        None,
                        Ended::Crash(lost(life, ExitCause::Panic(text)), tainted()),
                    );
                }
                Watched::Cut(Cut::Timeout) => {
                    let limit = slot.rules.attempt_timeout;
                    Box::new(Fault::timeout(format!("no answer within {limit:?}")))
                }
                Watched::Cut(_) => {
                    let _ = dropped(life);
                    break 'over (None, Ended::Crash(Box::new(ExitCause::Killed), tainted()));
                }
            };
            return failed(life, before, fault, again, context);
        };
        let_drop((before, again));
        return over;
    }
}

/// Before an attempt: what it may cost is set aside, and what may not start over does not.
async fn admit<W: Worker>(
    slot: &Slot<W>,
    job: &mut Job<W>,
    flight: &Flight,
    heard: &[Cut],
) -> Result<(), Ended<W::Reply>> {
    let refused = |fault: Fault| Ended::Fault(Box::new(fault), Place::START, false);
    if let Some(gate) = job.mail.gate() {
        match watched(|| gate.passed(), std::convert::identity, flight, heard).await {
            Watched::Done(passed) => passed.map_err(|error| refused(journal::failed(&error)))?,
            Watched::Cut(Cut::Timeout) => {
                return Err(refused(journal::late(slot.rules.attempt_timeout)));
            }
            Watched::Cut(cut) => return Err(Ended::Cut(cut, false)),
            Watched::Panicked(text) => return Err(refused(Fault::internal(text))),
        }
    }
    if job.refuse {
        let why = "its life ended after it had called what may not be called twice";
        return Err(refused(Fault::cancelled(why).with_code("interrupted")));
    }
    if let Some(purse) = job.mail.purse() {
        match purse.reserve(Cost::default(), slot.hub.now()) {
            Ok(reservation) => job.reservation = Some(Box::new(reservation)),
            Err(denied) => return Err(refused(Fault::budget_denied(denied.to_string()))),
        }
    }
    Ok(())
}
