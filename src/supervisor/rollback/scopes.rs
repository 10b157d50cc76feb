//! The scopes above a request whose own rollback is spent or impossible.
//!
//! *Invariant.* For a request, a scope returns once, and only to a line that no failure has returned to
//! yet: what failed again from there is the matter of the next scope, not of an older line. Whoever failed
//! before a return was made for another has been returned with it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Back, Place, Registry, RollbackError, To};
use crate::checkpoint::Scope;
use crate::hub::{Asks, Returned, Returning, Scopes};
use crate::id::ChildPath;

impl Scopes for Registry {
    fn next(&self, at: &ChildPath) -> Option<(ChildPath, Scope)> {
        let journal = self.hub.journal.get()?;
        let mut above = at.parent();
        while let Some(path) = above {
            if let Some(node) = self.supervisor(&path)
                && node.within.scope > Scope::Step
                && journal
                    .store
                    .lines(node.within.scope, &path)
                    .is_ok_and(|lines| !lines.is_empty())
            {
                return Some((path, node.within.scope));
            }
            above = path.parent();
        }
        None
    }

    fn returns(&self) -> u64 {
        self.rollbacks.returns.load(Ordering::SeqCst)
    }

    fn roll_back(self: Arc<Self>, at: ChildPath, asks: Asks) -> Returning {
        Box::pin(async move {
            let place = match Place::find(&self, &at) {
                Ok(place) => place,
                Err(error) => return Returned::Not(error.to_string()),
            };
            if let Err(error) = place.may_return_by_itself() {
                return Returned::Stop(place.failed(&error));
            }
            let back = Back { to: To::Latest, approved_by: None, asked: Some(asks) };
            match place.returned(back).await {
                Ok(_) | Err(RollbackError::Returned(_)) => Returned::Back,
                Err(RollbackError::Unwanted(_)) => Returned::Unwanted,
                // Its supervisor falls, and begins again from a line by itself.
                Err(RollbackError::Restart(_)) => Returned::Back,
                Err(error) if error.goes_on() => {
                    // It has begun, and is ended all the same.
                    drop(self.rollbacks.turn.lock().await);
                    Returned::Back
                }
                Err(error) => Returned::Not(error.to_string()),
            }
        })
    }
}
