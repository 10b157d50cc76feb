//! What a slot needs to know of the behavior in it, and how user code is run without letting a panic
//! out.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use ractor::{ActorCell, ActorRef};

use super::Slot;
use crate::behavior::StartContext;
use crate::fault::{ExitCause, Fault};
use crate::port::{Cut, Flight};

/// The only message that is sent through ractor: look at your slot.
pub(crate) struct Wake;

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
    /// The same life for another attempt; `None` when it serves one at a time.
    fn share(life: &Self::Life) -> Option<Self::Life>;
    /// A carrier for the slot, linked below `supervisor`.
    fn spawn(slot: Arc<Slot<Self>>, number: u32, supervisor: ActorCell) -> Option<ActorRef<Wake>>;
}

/// Runs user code that does not wait. A panic comes back as its text.
pub(crate) fn unwound<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(text)
}

/// Runs user code that waits. A panic, also while the future is dropped, comes back as its text.
pub(crate) async fn guarded<F: Future>(future: F) -> Result<F::Output, String> {
    let mut future = pin!(Some(future));
    let result = poll_fn(|task| {
        let Some(inner) = future.as_mut().as_pin_mut() else { return Poll::Pending };
        match catch_unwind(AssertUnwindSafe(|| inner.poll(task))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
            Err(payload) => Poll::Ready(Err(text(payload))),
        }
    })
    .await;
    match (catch_unwind(AssertUnwindSafe(|| future.set(None))), result) {
        (Err(payload), Ok(_)) => Err(text(payload)),
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
/// is made: whoever watches the time asks. The attempt is pinned by its caller, so that it is kept, and
/// moved, only once.
pub(crate) async fn watched<F: Future>(
    mut future: Pin<&mut Option<F>>,
    flight: &Flight,
    heard: &[Cut],
) -> Watched<F::Output> {
    let result = poll_fn(|task| {
        let Some(inner) = future.as_mut().as_pin_mut() else { return Poll::Pending };
        match catch_unwind(AssertUnwindSafe(|| inner.poll(task))) {
            Ok(Poll::Ready(value)) => return Poll::Ready(Watched::Done(value)),
            Err(payload) => return Poll::Ready(Watched::Panicked(text(payload))),
            Ok(Poll::Pending) => {}
        }
        flight.listen(task.waker());
        match flight.asked(heard) {
            Some(cut) => Poll::Ready(Watched::Cut(cut)),
            None => Poll::Pending,
        }
    })
    .await;
    match (catch_unwind(AssertUnwindSafe(|| future.set(None))), result) {
        // What was already answered stays answered; a future that panics while it is cut short has
        // left its state behind in an unknown shape.
        (Err(payload), Watched::Cut(_)) => Watched::Panicked(text(payload)),
        (_, result) => result,
    }
}

/// The text of a panic's payload. A payload may panic when it is dropped; that is nobody's news.
fn text(payload: Box<dyn Any + Send>) -> String {
    let text = if let Some(text) = payload.downcast_ref::<&'static str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a payload that is no text".to_owned()
    };
    let _ = catch_unwind(AssertUnwindSafe(move || drop(payload)));
    text
}
