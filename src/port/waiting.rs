//! A caller that waits for the fate of its request.
//!
//! *Invariant.* A caller that leaves has its request called off, unless it asks for it again later, and the clock of the attempt that
//! calls stands still exactly while it waits.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context as TaskContext, Poll};

use super::envelope::{CANCELLED, Cell};
use super::flight::{Paused, Tie};
use super::{Accept, AcceptOptions, Envelope, accept};
use crate::error::CallError;
use crate::fate::Answer;

/// Written by hand: an async function around it would move each answer once more, and a waker that
/// comes with the message needs no lock.
pub(super) struct Waiting<'a, Q: Send + Sync + 'static, R: Send + 'static> {
    target: &'a Arc<dyn Accept<Q, R>>,
    /// What the first poll hands over.
    message: Option<Q>,
    options: AcceptOptions,
    envelope: Option<Arc<Envelope<Q, R>>>,
    /// The clock of the attempt that calls.
    pause: Option<Paused>,
    /// The attempt whose step waits for it with others.
    noted: Option<Arc<Tie>>,
}

impl<'a, Q: Send + Sync + 'static, R: Send + 'static> Waiting<'a, Q, R> {
    /// Hands the message over with the first poll, for an attempt whose clock then stands still.
    pub(super) fn calling(
        target: &'a Arc<dyn Accept<Q, R>>,
        message: Q,
        options: AcceptOptions,
    ) -> Self {
        Self { target, message: Some(message), options, envelope: None, pause: None, noted: None }
    }

    /// For a request that was accepted from a step of this attempt.
    pub(super) fn accepted(
        target: &'a Arc<dyn Accept<Q, R>>,
        envelope: Arc<Envelope<Q, R>>,
        tie: Arc<Tie>,
    ) -> Self {
        let options = AcceptOptions::default();
        let (envelope, noted) = (Some(envelope), Some(tie));
        Self { target, message: None, options, envelope, pause: None, noted }
    }
}

// Nothing in it is ever pinned.
impl<Q: Send + Sync + 'static, R: Send + 'static> Unpin for Waiting<'_, Q, R> {}

impl<Q: Send + Sync + 'static, R: Send + 'static> Future for Waiting<'_, Q, R> {
    type Output = Result<Answer<R>, CallError<Q>>;

    fn poll(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Self::Output> {
        if let Some(message) = self.message.take() {
            let me = &mut *self;
            let tie = me.options.tie.clone();
            me.options.waker = Some(task.waker().clone());
            match accept(&**me.target, message, &mut me.options) {
                Ok(envelope) => me.envelope = Some(envelope),
                Err(refused) => return Poll::Ready(Err(refused)),
            }
            me.pause = tie.map(|tie| tie.pause());
            return Poll::Pending;
        }
        let Some(envelope) = self.envelope.take() else { return Poll::Pending };
        // Usually nobody else holds it any more, and no lock is needed.
        let (cell, spent) = match Arc::try_unwrap(envelope) {
            Ok(envelope) => {
                let spent = envelope.spent();
                (envelope.cell.into_inner(), spent)
            }
            Err(envelope) => {
                let mut cell = envelope.cell.lock();
                if let Cell::Waiting(waker) | Cell::Held(waker, _) = &mut *cell {
                    if !waker.as_ref().is_some_and(|waker| waker.will_wake(task.waker())) {
                        *waker = Some(task.waker().clone());
                    }
                    drop(cell);
                    self.envelope = Some(envelope);
                    return Poll::Pending;
                }
                let cell = std::mem::replace(&mut *cell, Cell::Gone);
                (cell, envelope.spent())
            }
        };
        let (pause, noted) = (self.pause.take(), self.noted.take());
        if let (Cell::Plain(..), None, None) = (&cell, &pause, &noted) {
            // Nothing has to be noted: it is put together where it goes.
            let Cell::Plain(value, by, elapsed) = cell else { return Poll::Pending };
            return Poll::Ready(Ok(Answer { elapsed, ..Answer::new(value, by) }));
        }
        let Some(outcome) = cell.outcome() else { return Poll::Pending };
        if let Some(tie) = pause.as_ref().map(Paused::tie).or(noted.as_deref()) {
            match &outcome {
                Ok(answer) => tie.note(answer),
                // It was paid for, although there is no answer.
                Err(_) => tie.note_cost(spent),
            }
        }
        Poll::Ready(outcome)
    }
}

impl<Q: Send + Sync + 'static, R: Send + 'static> Drop for Waiting<'_, Q, R> {
    fn drop(&mut self) {
        if let Some(envelope) = self.envelope.take() {
            let is_open = self.target.is_left_open(&envelope);
            if !is_open {
                envelope.state.fetch_or(CANCELLED, Ordering::AcqRel);
            }
            let left = std::mem::replace(&mut *envelope.cell.lock(), Cell::Gone);
            drop(left);
            if !is_open {
                self.target.cancel(&envelope);
            }
        }
    }
}
