//! A change on its way into the store.
//!
//! *Invariant.* The journal hears what the store says of it, whoever waits for that.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};

use tokio::runtime::Handle;

use super::Journal;
use super::state::Token;
use crate::checkpoint::Commit;
use crate::error::StoreError;

/// A change that was handed to the store. It counts once the store says so, whether or not anybody
/// waits for that.
#[must_use = "a change has not happened until the store says so"]
pub(crate) struct Handed {
    pub(super) commit: Option<Commit>,
    pub(super) token: Option<(Arc<Journal>, Token)>,
}

impl Handed {
    /// A commit that the journal has no part in.
    pub(crate) const fn plain(commit: Commit) -> Self {
        Self { commit: Some(commit), token: None }
    }
}

impl Journal {
    /// Where answers of the store are waited for that nobody else waits for.
    fn runtime(&self) -> Option<Handle> {
        self.runtime.clone().or_else(|| Handle::try_current().ok())
    }
}

impl Future for Handed {
    type Output = Result<(), StoreError>;

    fn poll(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let Some(commit) = &mut self.commit else {
            return Poll::Ready(Err(StoreError::Closed { store: String::new() }));
        };
        let Poll::Ready(result) = Pin::new(commit).poll(task) else { return Poll::Pending };
        self.commit = None;
        if let (Ok(receipt), Some((journal, _))) = (&result, &self.token) {
            journal.note_reached(receipt);
        }
        let result = result.map(drop);
        if let Some((journal, token)) = self.token.take() {
            journal.answered(&token, &result);
        }
        Poll::Ready(result)
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        let (Some(mut commit), Some((journal, token))) = (self.commit.take(), self.token.take())
        else {
            return;
        };
        let mut task = TaskContext::from_waker(Waker::noop());
        if let Poll::Ready(result) = Pin::new(&mut commit).poll(&mut task) {
            journal.answered(&token, &result.map(drop));
        } else if let Some(runtime) = journal.runtime() {
            // Not that of whoever leaves, who may be on none, or on one that ends.
            runtime.spawn(async move { journal.answered(&token, &commit.await.map(drop)) });
        }
    }
}
