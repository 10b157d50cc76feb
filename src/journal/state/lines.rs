//! Records of what the state says.
//!
//! *Invariant.* No record is larger than a store takes.

use std::sync::Arc;

use super::super::End;
use super::super::line::Line;
use crate::checkpoint::Wall;
use crate::fate::{Fate, Trail};
use crate::id::{CheckpointId, ChildPath};

/// Checkpoints in one record.
const RETURNED: usize = 1024;

pub(in crate::journal) fn fated(
    key: &Arc<str>,
    fate: Fate,
    End { reply, given }: End,
    work: Option<(ChildPath, u64)>,
) -> Line {
    let (key, trail) = (Arc::clone(key), Trail::default());
    Line::Fated { key, fate, reply, at: None, trail, work, deleted: false, given }
}

pub(in crate::journal) fn quarantined(key: &Arc<str>, trail: Trail, at: Wall) -> Line {
    let (key, fate, at) = (Arc::clone(key), Fate::Quarantined, Some(at));
    Line::Fated { key, fate, reply: None, at, trail, work: None, deleted: false, given: None }
}

/// The records that say that these were returned to, that the work of those is missing, and that of the others
/// in a state again; of a request in both lists, that somebody was told that it is missing.
pub(in crate::journal) fn returned(
    ids: &[CheckpointId],
    missing: &[Arc<str>],
    replayed: &[Arc<str>],
) -> Vec<Line> {
    let used = ids.chunks(RETURNED).map(|ids| (ids.to_vec(), Vec::new(), Vec::new()));
    let missing = missing.chunks(RETURNED).map(|keys| (Vec::new(), keys.to_vec(), Vec::new()));
    let replayed = replayed.chunks(RETURNED).map(|keys| (Vec::new(), Vec::new(), keys.to_vec()));
    let all = used.chain(missing).chain(replayed);
    all.map(|(checkpoints, missing, replayed)| Line::Returned { checkpoints, missing, replayed })
        .collect()
}
