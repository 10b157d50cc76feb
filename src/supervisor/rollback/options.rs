//! What may be returned to, and what may not any more.
//!
//! *Invariant.* Nothing here changes anything.

use std::sync::Arc;

use super::Place;
use super::progress::Rollbacks;
use crate::checkpoint::{RecoveryLine, Store, Validated};
use crate::error::CheckpointError;
use crate::hub::Asks;
use crate::id::{CheckpointId, ChildPath};
use crate::journal::Journal;
use crate::moment::Moment;
use crate::slot::{Look, given_up, is_returned};

/// What may be returned to.
pub(super) enum Wanted {
    Checkpoint(CheckpointId),
    Line(Arc<RecoveryLine>),
}

impl Wanted {
    /// Whether it was drawn after that: what an earlier process has drawn was not, whatever the clock said
    /// that people read.
    pub(super) fn is_younger(&self, than: Moment, rollbacks: &Rollbacks) -> bool {
        matches!(self, Self::Line(line) if rollbacks.drawn(line.id).is_some_and(|at| at > than))
    }
}

/// Whether the request that asks stands in the middle of these states.
pub(super) fn has_in_hand(lives: &[(Arc<dyn Look>, Option<Validated>)], asked: &Asks) -> bool {
    lives.iter().any(|(child, validated)| {
        let validated = validated.as_ref().filter(|_| *child.path() == asked.child);
        validated.filter(|validated| !is_returned(validated)).is_some_and(|validated| {
            child.in_hand(validated).is_some_and(|begun| *begun.key == *asked.task)
        })
    })
}

/// Refuses what is of another than the child with this path, before anything else is said of it.
pub(super) fn check_owner(
    store: &dyn Store,
    journal: Option<&Journal>,
    (child, id): (&ChildPath, CheckpointId),
) -> Result<(), CheckpointError> {
    let owner = store.find(id)?.checkpoint.child.clone();
    let found = if owner != *child {
        owner.to_string()
    } else if journal.is_some_and(|journal| journal.is_of_another(child, id)) {
        format!("one that had the path {child} before and was deleted")
    } else {
        return Ok(());
    };
    let what = "the checkpoint's child".to_owned();
    Err(CheckpointError::Incompatible { what, found, expected: child.to_string() })
}

/// Whether this was returned to before, or is of a future that a rollback has given up.
pub(super) fn is_used_up(journal: &Journal, child: &ChildPath, id: CheckpointId) -> bool {
    if journal.is_used_up(id) {
        return true;
    }
    let all = journal.states(child).unwrap_or_default();
    let last = all.first().map(|listed| listed.checkpoint.id);
    given_up(journal, &all, last).contains(&id)
}

/// What these have returned to, and what each had stored since: a line of that would take some of them
/// forward again, to where the others are not.
pub(super) fn used_up(
    journal: &Journal,
    returned: &[(ChildPath, Option<CheckpointId>)],
) -> Vec<CheckpointId> {
    let mut used = Vec::with_capacity(returned.len());
    for (child, id) in returned {
        let stored = journal.states(child).unwrap_or_default();
        let since = stored.iter().map(|listed| listed.checkpoint.id);
        used.extend(since.take_while(|stored| Some(*stored) != *id));
        used.extend(*id);
    }
    used
}

impl Place {
    /// Whether this member of a line was made from a template and is gone since, whoever has its path now. Others
    /// stand in the spec, which is that of the line.
    pub(super) fn is_gone(
        &self,
        line: &RecoveryLine,
        member: &ChildPath,
        id: CheckpointId,
    ) -> bool {
        let hub = &self.node.hub;
        let Some(journal) = hub.journal.get() else { return false };
        if journal.has_made(member) {
            return journal.is_of_another(member, id);
        }
        let above = member.parent().and_then(|above| self.registry.supervisor(&above));
        hub.topology.get() == Some(&line.topology)
            && above.is_some_and(|above| {
                !above.spec.templates.is_empty()
                    && above.statics.iter().all(|(id, ..)| **id != *member.id())
            })
    }
}
