//! Work on a request that an earlier process has left: it is known to the next one that it was in hand.
//!
//! *Invariant.* It is in hand from before its first step until the attempt ends, but for the time in which
//! it waits for calls that a step has returned. Waiting for its turn costs an attempt none of its time, and
//! keeps nobody from drawing a line.

use std::convert::identity;
use std::sync::Arc;

use super::{Ended, Job, Slot};
use crate::behavior::{Context, Place};
use crate::journal::failed;
use crate::port::{Cut, Trial};
use crate::slot::worker::{Watched, Worker, watched};

/// What is heard while nothing of the request runs.
const HEARD: [Cut; 3] = [Cut::Kill, Cut::Stop, Cut::Cancel];

/// While it lives, its request is in hand.
pub(crate) struct OnTrial(Arc<dyn Trial>);

impl Drop for OnTrial {
    fn drop(&mut self) {
        // Handed over: nobody has to wait for it.
        drop(self.0.put_down());
    }
}

impl<W: Worker> Slot<W> {
    /// Before the first step of an attempt: the request is in hand while what is returned lives. `None` for
    /// one that this process has accepted.
    pub(crate) async fn take_up(
        &self,
        job: &Job<W>,
        context: &Context,
    ) -> Result<Option<OnTrial>, Ended<W::Reply>> {
        let Some(trial) = job.mail.trial() else { return Ok(None) };
        // Also when this wait is cut short.
        let in_hand = OnTrial(Arc::clone(trial));
        let step = job.place.as_ref().map_or(0, |place| place.step);
        {
            let mut desk = self.desk();
            if let Some(out) = desk.out.iter_mut().find(|out| out.ticket == job.ticket) {
                out.between = true;
            }
            desk.told_still();
        }
        let taken = {
            let _paused = context.tie().pause();
            watched(|| trial.take_up(step), identity, &context.flight, &HEARD).await
        };
        match taken {
            Watched::Done(Err(error)) => {
                return Err(Ended::Fault(Box::new(failed(&error)), Place::START, false));
            }
            Watched::Cut(cut) => return Err(Ended::Cut(cut, false)),
            Watched::Done(Ok(())) | Watched::Panicked(_) => {}
        }
        while let Some(hold) = self.next_step(job.ticket) {
            if let Err(cut) = self.wait_held(hold, &context.flight, context).await {
                return Err(Ended::Cut(cut, false));
            }
        }
        Ok(Some(in_hand))
    }

    /// Waits for what a step has asked others: meanwhile its request is not in hand.
    pub(crate) async fn waits_for<T>(
        &self,
        work: impl Future<Output = Result<T, Cut>>,
        job: &Job<W>,
        context: &Context,
    ) -> Result<T, Cut> {
        let Some(trial) = job.mail.trial() else { return work.await };
        let _paused = context.tie().pause();
        if let Some(written) = trial.put_down()
            && let Watched::Cut(cut) = watched(|| written, identity, &context.flight, &HEARD).await
        {
            return Err(cut);
        }
        let done = work.await?;
        // Where it was taken up is known. What cannot be written now fails the step that follows, which is
        // not kept either.
        match watched(|| trial.take_up(u64::MAX), identity, &context.flight, &HEARD).await {
            Watched::Cut(cut) => Err(cut),
            Watched::Done(_) | Watched::Panicked(_) => Ok(done),
        }
    }
}
