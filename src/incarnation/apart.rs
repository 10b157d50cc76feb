//! Attempts that block a thread: each on one of its own.
//!
//! *Invariant.* A thread that does not come back holds nothing that anybody waits for.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::runtime::Handle;

use super::{StatefulWorker, attempt};
use crate::behavior::Stateful;
use crate::fault::ExitCause;
use crate::port::Cut;
use crate::slot::{Bill, Ended, Job, Slot, Watched, Worker, watched};

/// Runs `work` to its end on a thread of its own; `None` when the thread could not be had or its work
/// was lost.
pub(super) fn thread<W: Worker, T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    slot: &Arc<Slot<W>>,
    work: F,
) -> impl Future<Output = Option<T>> + Send + use<W, T, F> {
    let (send, receive) = tokio::sync::oneshot::channel();
    let name = format!("mainstay {}", slot.path.id());
    // In a box, as in `Hub::spawn`.
    let work = Box::pin(async move {
        let _ = send.send(work.await);
    });
    let spawned = thread_of_its_own(name, slot.hub.runtime.clone(), work);
    async move {
        spawned.ok()?;
        receive.await.ok()
    }
}

fn thread_of_its_own(
    name: String,
    runtime: Handle,
    work: Pin<Box<dyn Future<Output = ()> + Send>>,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name).spawn(move || runtime.block_on(work))
}

/// An attempt of a stateful behavior that blocks: on a thread of its own, which is left behind when it
/// does not come back in time.
pub(super) async fn apart<B: Stateful>(
    slot: &Arc<Slot<StatefulWorker<B>>>,
    life: Box<B>,
    job: &mut Job<StatefulWorker<B>>,
) -> (Option<Box<B>>, Ended<B::Reply>) {
    let flight = job.flight.clone().unwrap_or_default();
    let copy_flight = Arc::clone(&flight);
    let mut copy = Job {
        mail: Arc::clone(&job.mail),
        ticket: job.ticket,
        flight: Some(Arc::clone(&flight)),
        life: job.life,
        attempt: job.attempt,
        place: job.place.take(),
        takes_over: job.takes_over.take(),
        refuse: job.refuse,
        torn: job.torn,
        behind: job.behind,
        reservation: None,
        bill: None,
    };
    let inner = Arc::clone(slot);
    let work = thread(slot, async move {
        let context = inner.context(&copy, copy_flight);
        let ended = attempt(&inner, life, &mut copy, &context, None).await;
        (ended, copy.reservation, Bill::of(&context))
    });
    match watched(|| work, std::convert::identity, &flight, &[Cut::Kill]).await {
        Watched::Done(Some((ended, reservation, bill))) => {
            (job.reservation, job.bill) = (reservation, bill);
            ended
        }
        Watched::Done(None) => {
            (None, Ended::Crash(Box::new(ExitCause::Panic("its thread was lost".to_owned())), true))
        }
        Watched::Panicked(text) => (None, Ended::Crash(Box::new(ExitCause::Panic(text)), true)),
        Watched::Cut(_) => (None, Ended::Crash(Box::new(ExitCause::Hang), true)),
    }
}
