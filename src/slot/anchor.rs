//! The checkpoint that the request in hand goes back to, held for as long as the request takes.
//!
//! A request of many steps leaves many checkpoints behind, and the store keeps a number of them: without a
//! pin, the one it began with would be the first to go.
//!
//! *Invariant.* A pin is written with the checkpoint that needs it, and taken away with the fate that does
//! not. One that nobody takes away ends by itself.

use std::time::Duration;

use super::Slot;
use crate::checkpoint::{Batch, LONGEST_PIN, Pin, Wall};
use crate::id::CheckpointId;
use crate::journal::Journal;
use crate::slot::worker::Worker;

/// How old a pin gets before it is written anew.
const RENEWED: Duration = Duration::from_secs(3600);

/// Where the request in hand began, in the store.
#[derive(Default)]
pub(super) struct Anchor {
    at: Option<CheckpointId>,
    /// Since when it is pinned, as far as is known.
    pinned: Option<Wall>,
}

impl Anchor {
    /// The state between two requests, which nothing holds yet.
    pub(super) fn between(at: CheckpointId) -> Self {
        Self { at: Some(at), pinned: None }
    }

    /// Where the request in hand began, if that is in the store.
    pub(super) fn id(&self) -> Option<CheckpointId> {
        self.at
    }

    /// One that another process may have pinned.
    pub(super) fn found(at: CheckpointId) -> Self {
        Self { at: Some(at), pinned: Some(Wall(0)) }
    }

    /// Whether the pin was written is not known.
    pub(super) fn doubt(&mut self) {
        self.pinned = self.pinned.map(|_| Wall(0));
    }
}

impl<W: Worker> Slot<W> {
    /// Adds to the checkpoint of a step what holds the one the request began with: where that is none,
    /// since it is the child's first request, the first of its own.
    pub(super) fn hold_base(&self, journal: &Journal, batch: Batch, own: CheckpointId) -> Batch {
        let now = Wall::from(self.hub.clock.wall());
        let base = {
            let desk = self.desk();
            let Some(saved) = &desk.saved else { return batch };
            if saved.anchor.pinned.is_some_and(|since| now.since(since) < RENEWED) {
                return batch;
            }
            saved.anchor.at.unwrap_or(own)
        };
        if base != own && journal.store.find(base).is_err() {
            // It is gone, and what cannot be pinned is refused with all that comes along.
            return batch;
        }
        if let Some(saved) = &mut self.desk().saved {
            saved.anchor = Anchor { at: Some(base), pinned: Some(now) };
        }
        let reason = "the request in hand may go back to it".to_owned();
        let pin =
            Pin { owner: self.path.to_string(), reason, since: now, until: now.after(LONGEST_PIN) };
        batch.pin(base, pin)
    }

    /// Adds to the fate of a request that what it began with is not needed any more.
    pub(super) fn let_base_go(&self, batch: Batch) -> Batch {
        let desk = self.desk();
        match desk.saved.as_ref().map(|saved| &saved.anchor) {
            Some(Anchor { at: Some(base), pinned: Some(_) }) => {
                batch.unpin(*base, self.path.to_string())
            }
            _ => batch,
        }
    }
}
