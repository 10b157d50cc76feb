//! What has been done since that which is returned to.
//!
//! *Invariant.* Nothing here changes anything.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::Place;
use crate::hub::Hub;
use crate::id::{CheckpointId, ChildPath};
use crate::journal::Journal;
use crate::slot::{Answered, Look, told_apart};

/// What is written down together with the states that were returned to.
#[derive(Default)]
pub(super) struct Since {
    /// What is not returned to again.
    pub(super) used: Vec<CheckpointId>,
    /// Requests whose work is in no state any more.
    pub(super) missing: Vec<Arc<str>>,
    /// Requests that are asked for anew.
    pub(super) given_up: Vec<Arc<str>>,
}

impl Since {
    /// And the requests that are replayed, and those that are not and are missing.
    pub(super) fn of(
        place: &Place,
        journal: &Journal,
        used: Vec<CheckpointId>,
        returned: &[(ChildPath, Option<CheckpointId>)],
        children: &[Arc<dyn Look>],
    ) -> (Self, Answered, Answered) {
        let given_up = given_up(place, children);
        let step_of = |id| journal.store.find(id).map_or(0, |listed| listed.checkpoint.step);
        let states = returned.iter().map(|(child, id)| (child.clone(), id.map_or(0, step_of)));
        let known: HashMap<_, _> = children.iter().map(|it| (it.path(), &**it)).collect();
        let mut work = journal.work_since(&states.collect());
        work.retain(|(_, key)| given_up.binary_search(key).is_err());
        // Whose answer was on its way is done again itself.
        let open: HashSet<_> =
            children.iter().flat_map(|it| it.open_tasks()).map(|(_, key, _)| key).collect();
        work.retain(|(_, key)| !open.contains(&**key));
        let (replayed, missing) = told_apart(journal, work, |path| known.get(path).copied());
        let keys = missing.iter().map(|(_, key)| Arc::clone(key)).collect();
        (Self { used, missing: keys, given_up }, replayed, missing)
    }
}

/// What the open requests were answered by others since: they ask for it anew, as far as nothing was done for
/// it that stands. In the order of their keys.
fn given_up(place: &Place, children: &[Arc<dyn Look>]) -> Vec<Arc<str>> {
    let effects = &place.node.hub.effects;
    let open = children.iter().flat_map(|child| child.open_tasks());
    let mut all: Vec<_> = open.flat_map(|(_, task, step)| effects.given_up(&task, step)).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Requests whose work is in no state any more.
pub(super) struct Missing(Answered);

impl Missing {
    /// They are named before anything is undone, which may take long: not everybody who returns somebody looks
    /// at a report, and whoever does may not live to see it.
    pub(super) fn noted(journal: &Journal, missing: Answered) -> Self {
        for (child, key) in &missing {
            journal.note_lost(child, vec![Arc::clone(key)]);
        }
        Self(missing)
    }

    /// All is settled, and they are about to be told. Until they have been heard, the next process names them.
    pub(super) fn told(self, hub: &Hub, journal: &Arc<Journal>) -> Answered {
        journal.tells(&hub.runtime, self.0.iter().map(|(_, key)| Arc::clone(key)).collect());
        self.0
    }
}
