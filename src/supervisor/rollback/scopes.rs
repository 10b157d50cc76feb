//! The scopes above a request whose own rollback is spent or impossible.
//!
//! *Invariant.* For a request, a scope returns once, and only to a line that no failure has returned to
//! yet: what failed again from there is the matter of the next scope, not of an older line.

use std::sync::Arc;

use super::{Back, Place, Registry, To};
use crate::checkpoint::Scope;
use crate::hub::{Returning, Scopes};
use crate::id::ChildPath;

impl Scopes for Registry {
    fn next(&self, at: &ChildPath) -> Option<(ChildPath, Scope)> {
        let journal = self.hub.journal.get()?;
        let mut above = at.parent();
        while let Some(path) = above {
            if let Some(node) = self.supervisor(&path)
                && node.scope > Scope::Step
                && journal.store.lines(node.scope, &path).is_ok_and(|lines| !lines.is_empty())
            {
                return Some((path, node.scope));
            }
            above = path.parent();
        }
        None
    }

    fn roll_back(self: Arc<Self>, at: ChildPath) -> Returning {
        Box::pin(async move {
            let place = Place::find(&self, &at).map_err(|error| error.to_string())?;
            place.may_return_by_itself().map_err(|error| error.to_string())?;
            let back = Back { to: To::Latest, approved_by: None, once: true };
            match place.returned(back).await {
                Ok(report) => Ok(report.line),
                Err(error) => Err(error.to_string()),
            }
        })
    }
}
