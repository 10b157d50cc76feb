//! When the store lets go of what is not kept, and when it is worth a copy of what stays.
//!
//! *Invariant.* A store that is full is always tried; one that is not is copied at most as often as it doubles.

use std::sync::atomic::Ordering;

use super::Journal;
use crate::checkpoint::{Retention, Wall};
use crate::error::StoreError;

/// A smaller store is not compacted before it is full: copying it would save nobody anything.
const COMPACT_FROM: u64 = 4 << 20;

/// Whether a quarter of this is free once so much is left.
const fn has_room(of: u64, left: u64) -> bool {
    left < of / 4 * 3
}

/// What is kept where that does not make room enough. A fall does not return to a line that was drawn after it,
/// so the one before the newest stays, too.
fn fewer(keep: Retention) -> Option<Retention> {
    match keep {
        Retention { checkpoints: 2.., .. } => {
            Some(Retention { checkpoints: keep.checkpoints / 2, ..keep })
        }
        Retention { lines: 3.., .. } => Some(Retention { lines: keep.lines / 2, ..keep }),
        _ => None,
    }
}

impl Journal {
    /// Has the store let go of what is not kept, once it has grown to twice what it was after the last
    /// time, or is full, and copies what stays if that is little enough: the copy costs each byte at most about
    /// one more. When it is full, fewer are kept, until a quarter of it is free. Blocks.
    pub(crate) fn make_room(&self, mut keep: Retention, now: Wall) -> Result<(), StoreError> {
        let is_full = self.is_full.swap(false, Ordering::Relaxed);
        let due = (2 * self.compacted.load(Ordering::Relaxed)).max(COMPACT_FROM);
        let before = self.weight()?;
        if !is_full && before < due {
            return Ok(());
        }
        // What was refused before the last time, and is heard of only now, was refused by a fuller store.
        let filled = self.filled.swap(if is_full { before } else { 0 }, Ordering::Relaxed);
        let in_need = is_full && !has_room(filled, before);
        loop {
            let had = self.store.info()?.checkpoints;
            let dropped = self.retain(keep, now)?.dropped.len();
            if !is_full && !self.saves()? {
                self.compacted.store(self.weight()?, Ordering::Relaxed);
                return Ok(());
            }
            let fewer = fewer(keep).filter(|_| in_need);
            let mut compacted = Ok(());
            if fewer.is_none() || has_room(had as u64, (had - dropped.min(had)) as u64) {
                // A copy of less may find the room that this one has not.
                compacted = self.store.compact().map(drop);
                self.compacted.store(self.weight()?, Ordering::Relaxed);
            }
            if compacted.is_ok() && has_room(before, self.weight()?) {
                // It has helped, so it may help again at once.
                *self.full_at.lock() = None;
                return Ok(());
            }
            match (fewer, compacted) {
                (Some(fewer), Ok(()) | Err(StoreError::Full { .. })) => keep = fewer,
                (_, compacted) => return compacted,
            }
        }
    }

    /// Whether a copy would be so much smaller that it is worth its price: by a quarter. A store whose children have few
    /// states each only grows, and its copies would save nothing.
    fn saves(&self) -> Result<bool, StoreError> {
        Ok(has_room(self.store.info()?.bytes, self.store.live()?))
    }

    /// How many bytes the store has, or what it knows of its checkpoints takes in memory, if that is more.
    pub(crate) fn weight(&self) -> Result<u64, StoreError> {
        const LISTED: u64 = 1024;
        let info = self.store.info()?;
        Ok(info.bytes.max(info.checkpoints as u64 * LISTED))
    }
}
