//! What a slot needs to know of the behavior in it, and how user code is run without letting a panic
//! out.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use ractor::{ActorCell, ActorRef};

use super::Slot;
use crate::behavior::StartContext;
use crate::checkpoint::{Schema, Snapshot};
use crate::error::CheckpointError;
use crate::fault::{ExitCause, Fault};
use crate::port::{Cut, Flight, panic_text as text};

pub(crate) use crate::port::{dropped, unwound, unwound_here};

/// The only message that is sent through ractor: look at your slot. One of ractor's own kinds, so that this
/// crate compiles whether or not another one switches ractor's feature `cluster` on, which asks more of a
/// message.
pub(crate) type Wake = ();

/// A kind of behavior with its constructor.
pub(crate) trait Worker: Send + Sync + Sized + 'static {
    type Request: Send + Sync + 'static;
    type Reply: Send + 'static;
    /// What lives: the state, or the shared behavior.
    type Life: Send + 'static;

    fn construct(&self) -> Self::Life;
    fn start(
        life: &mut Self::Life,
        context: &StartContext,
    ) -> impl Future<Output = Result<(), Fault>> + Send;
    fn stop(life: &mut Self::Life, cause: &ExitCause) -> impl Future<Output = ()> + Send;
    /// What its snapshots must look like.
    fn schema() -> Option<Schema>;
    fn snapshot(life: &Self::Life) -> Option<Snapshot>;
    fn restore(life: &mut Self::Life, snapshot: &Snapshot) -> Result<(), CheckpointError>;
    /// The same life for another attempt; `None` when it serves one at a time.
    fn share(life: &Self::Life) -> Option<Self::Life>;
    /// A carrier for the slot, linked below `supervisor`.
    fn spawn(slot: Arc<Slot<Self>>, number: u32, supervisor: ActorCell) -> Option<ActorRef<Wake>>;
}

/// A future of the user's; one that panics while it is dropped does not take along who drops it.
struct Shield<F>(Option<Pin<Box<F>>>);

impl<F> Drop for Shield<F> {
    fn drop(&mut self) {
        if let Some(future) = self.0.take() {
            let _ = dropped(future);
        }
    }
}

/// Runs user code that waits. A panic comes back as its text: also one before there is a future, and
/// one while the future is dropped, be it that nobody waits for it any more.
pub(crate) async fn guarded<F: Future>(make: impl FnOnce() -> F) -> Result<F::Output, String> {
    let mut future = Shield(Some(Box::pin(unwound_here(make)?)));
    let result = poll_fn(|task| {
        let Some(inner) = future.0.as_mut() else { return Poll::Pending };
        match catch_unwind(AssertUnwindSafe(|| inner.as_mut().poll(task))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
            Err(payload) => Poll::Ready(Err(text(payload))),
        }
    })
    .await;
    let done = future.0.take();
    match (dropped(done), result) {
        (Err(text), Ok(_)) => Err(text),
        (_, result) => result,
    }
}

/// How a watched future ended.
pub(crate) enum Watched<T> {
    Done(T),
    Panicked(String),
    Cut(Cut),
}

/// Runs an attempt until it ends, or until one of the wishes it hears is asked of its flight. No timer
/// is made: whoever watches the time asks. The future is made in here, since code that makes one may
/// panic, too; what it ends with is made smaller by `pack` before it is moved on.
pub(crate) async fn watched<F: Future, T>(
    make: impl FnOnce() -> F,
    pack: impl Fn(F::Output) -> T,
    flight: &Flight,
    heard: &[Cut],
) -> Watched<T> {
    let mut future = match unwound_here(make) {
        Ok(future) => pin!(Some(future)),
        Err(text) => return Watched::Panicked(text),
    };
    let result = poll_fn(|task| poll_watched(future.as_mut(), &pack, flight, heard, task)).await;
    let_go(future, result)
}

/// One poll of [`watched`], for who keeps the future.
#[inline(always)]
pub(crate) fn poll_watched<F: Future, T>(
    future: Pin<&mut Option<F>>,
    pack: impl Fn(F::Output) -> T,
    flight: &Flight,
    heard: &[Cut],
    task: &mut TaskContext<'_>,
) -> Poll<Watched<T>> {
    let Some(inner) = future.as_pin_mut() else { return Poll::Pending };
    match catch_unwind(AssertUnwindSafe(|| inner.poll(task))) {
        Ok(Poll::Ready(value)) => return Poll::Ready(Watched::Done(pack(value))),
        Err(payload) => return Poll::Ready(Watched::Panicked(text(payload))),
        Ok(Poll::Pending) => {}
    }
    flight.listen(task.waker());
    match flight.asked(heard) {
        Some(cut) => Poll::Ready(Watched::Cut(cut)),
        None => Poll::Pending,
    }
}

/// The end of [`watched`]: the future goes.
#[inline(always)]
pub(crate) fn let_go<F, T>(mut future: Pin<&mut Option<F>>, result: Watched<T>) -> Watched<T> {
    match (catch_unwind(AssertUnwindSafe(|| future.set(None))), result) {
        // What was already answered stays answered; a future that panics while it is cut short has
        // left its state behind in an unknown shape.
        (Err(payload), Watched::Cut(_)) => Watched::Panicked(text(payload)),
        (_, result) => result,
    }
}
