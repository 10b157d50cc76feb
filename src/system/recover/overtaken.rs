//! States in the middle of a request that another member of the group has taken over since.

use super::System;
use crate::effects::is_overtaken;
use crate::id::ChildPath;
use crate::ledger::Ledger;
use crate::supervisor::Entry;

impl System {
    /// Whether another member of this child's group has acted for the request after it.
    pub(super) fn is_overtaken(&self, ledger: &Ledger, task: &str, child: &ChildPath) -> bool {
        let Some(group) = child.parent() else { return false };
        if !matches!(self.inner.registry.get(&group), Some(Entry::Group(_))) {
            return false;
        }
        is_overtaken(ledger, task, child, |owner| owner.parent().as_ref() == Some(&group))
    }
}
