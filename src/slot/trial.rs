//! Work on a request that an earlier process has left: the next one knows of it that it was in hand.
//!
//! *Invariant.* It is in hand from before its first step until the attempt ends, but for the time in which
//! it waits: for calls that a step has returned, or, longer than [`REST`], for whatever else. Waiting for its
//! turn costs an attempt none of its time, and keeps nobody from drawing a line.

use std::convert::identity;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Wake as Wakes, Waker};
use std::time::Duration;

use tokio::sync::Notify;

use super::{Ended, Job, Slot};
use crate::behavior::Context;
use crate::checkpoint::Commit;
use crate::clock::Clock;
use crate::error::StoreError;
use crate::port::{Cut, Tie, Trying};
use crate::slot::worker::{Watched, Worker, watched};

/// What is heard while nothing of the request runs.
const HEARD: [Cut; 3] = [Cut::Kill, Cut::Stop, Cut::Cancel];

/// A step that waits for longer is not in hand until it is woken: what it waits for then is a network or a
/// person, and what ends the process meanwhile is not the step. Shorter waits are not worth two records.
const REST: Duration = Duration::from_millis(100);

/// An attempt at a request that is on trial. While it lives and nothing else is said, the request is in hand.
pub(crate) struct OnTrial {
    trial: Trying,
    clock: Arc<dyn Clock>,
    tie: Arc<Tie>,
    holds: bool,
}

impl OnTrial {
    async fn take_up(&mut self, step: u64) -> Result<(), StoreError> {
        if self.holds {
            return Ok(());
        }
        let _paused = self.tie.pause();
        self.trial.trial.turn().await;
        self.holds = true;
        match self.trial.take_up(step) {
            Some(written) => written.await.map(drop),
            None => Ok(()),
        }
    }

    fn put_down(&mut self) -> Option<Commit> {
        std::mem::take(&mut self.holds).then(|| self.trial.trial.put_down())?
    }

    /// Runs a step, and lets go of its request while that rests.
    pub(crate) async fn around<F: Future>(hand: &mut Option<Self>, step: F) -> F::Output {
        let Some(hand) = hand else { return step.await };
        let mut step = pin!(step);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        loop {
            let polled = poll_fn(|_| {
                // By its own waker it is known that there is something to do for it.
                Poll::Ready(step.as_mut().poll(&mut TaskContext::from_waker(&waker)))
            });
            if let Poll::Ready(done) = polled.await {
                return done;
            }
            let rests = hand.clock.sleep_until(hand.clock.now() + REST);
            tokio::select! {
                biased;
                () = woken.0.notified() => {
                    // One that wakes itself would keep the thread, and hear nothing.
                    tokio::task::yield_now().await;
                    continue;
                }
                () = rests => {}
            }
            if let Some(written) = hand.put_down() {
                let _ = written.await;
            }
            woken.0.notified().await;
            // Where it was taken up is known. What cannot be written now fails the step when it is kept.
            let _ = hand.take_up(u64::MAX).await;
        }
    }
}

impl Drop for OnTrial {
    fn drop(&mut self) {
        // Handed over: nobody has to wait for it.
        drop(self.put_down());
    }
}

#[derive(Default)]
struct Woken(Notify);

impl Wakes for Woken {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

impl<W: Worker> Slot<W> {
    /// Before the first step of an attempt: the request is in hand while what is returned lives. `None` for
    /// one that is not on trial.
    pub(crate) async fn take_up(
        &self,
        job: &Job<W>,
        context: &Context,
    ) -> Result<Option<OnTrial>, Ended<W::Reply>> {
        let hand = match job.mail.trial() {
            Some(trial) => Some(self.take_up_on_trial(trial, job, context).await?),
            None => None,
        };
        if self.hands_out(&job.mail) {
            self.note_begun(job, context).await?;
        }
        Ok(hand)
    }

    async fn take_up_on_trial(
        &self,
        trial: &Trying,
        job: &Job<W>,
        context: &Context,
    ) -> Result<OnTrial, Ended<W::Reply>> {
        let (trial, clock) = (trial.clone(), Arc::clone(&self.hub.clock));
        let tie = Arc::clone(context.tie());
        tie.tries(&trial);
        let mut hand = OnTrial { trial, clock, tie, holds: false };
        let step = job.place.as_ref().map_or(0, |place| place.step);
        {
            let mut desk = self.desk();
            if let Some(out) = desk.out.iter_mut().find(|out| out.ticket == job.ticket) {
                out.between = true;
            }
            desk.told_still();
        }
        match watched(|| hand.take_up(step), identity, &context.flight, &HEARD).await {
            Watched::Done(Err(error)) => {
                // It is worked on all the same; only that the process ends with it would not be known.
                if let Some(journal) = self.hub.journal.get() {
                    journal.note_failure(&error);
                }
            }
            Watched::Cut(cut) => return Err(Ended::Cut(cut, false)),
            Watched::Done(Ok(())) | Watched::Panicked(_) => {}
        }
        while let Some(hold) = self.next_step(job.ticket) {
            if let Err(cut) = self.wait_held(hold, &context.flight, context).await {
                return Err(Ended::Cut(cut, false));
            }
        }
        Ok(hand)
    }

    /// Waits for what a step has asked others: meanwhile its request is not in its hand.
    pub(crate) async fn waits_for<T>(
        &self,
        hand: &mut Option<OnTrial>,
        work: impl Future<Output = Result<T, Cut>>,
        context: &Context,
    ) -> Result<T, Cut> {
        let Some(hand) = hand else { return work.await };
        let _paused = context.tie().pause();
        if let Some(written) = hand.put_down()
            && let Watched::Cut(cut) = watched(|| written, identity, &context.flight, &HEARD).await
        {
            return Err(cut);
        }
        let done = work.await?;
        // As above.
        match watched(|| hand.take_up(u64::MAX), identity, &context.flight, &HEARD).await {
            Watched::Cut(cut) => Err(cut),
            Watched::Done(_) | Watched::Panicked(_) => Ok(done),
        }
    }
}
