//! The scopes above a request whose own rollback is spent or impossible.
//!
//! *Invariant.* For a request, a scope returns once, and only to a line that no failure has returned to
//! yet: what failed again from there is the matter of the next scope, not of an older line. Whoever failed
//! before a return was made for another has been returned with it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Back, Place, Registry, RollbackError, To};
use crate::checkpoint::{Listed, Now, RecoveryLine, Scope, Store};
use crate::hub::{Asks, Returned, Returning, Scopes};
use crate::id::ChildPath;
use crate::moment::Moment;

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

    fn lines(&self, child: &ChildPath, failed: Moment) -> Vec<Arc<RecoveryLine>> {
        let Some(journal) = self.hub.journal.get() else { return Vec::new() };
        let now = Now::read(&*self.hub.clock);
        let (mut found, mut at) = (Vec::new(), child.clone());
        while let Some((above, scope)) = self.next(&at) {
            let lines = journal.store.lines(scope, &above).unwrap_or_default();
            let is_younger = |line: &RecoveryLine| {
                self.rollbacks.drawn(line.id).is_some_and(|drawn| drawn > failed)
            };
            let fits = |line: &RecoveryLine| {
                line.members.iter().all(|(_, id)| !journal.is_used_up(*id))
                    && may_be_pinned(&*journal.store, line, now)
            };
            found.extend(lines.into_iter().find(|line| !is_younger(line) && fits(line)));
            at = above;
        }
        found
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

/// Whether all of this line could be returned to now, as far as age and people say: what cannot is not brought back
/// by a pin.
fn may_be_pinned(store: &dyn Store, line: &RecoveryLine, now: Now) -> bool {
    let held = |listed: &Listed| line.is_held_by(&listed.pins, now.wall);
    let hook = line.hook().and_then(|id| store.find(id).ok());
    hook.is_some_and(|listed| held(&listed))
        || line.members.iter().all(|(_, id)| store.find(*id).is_ok_and(|it| it.is_of_use(now)))
}
