//! Whether a life that was restored is what was stored.
//!
//! *Invariant.* Nothing is refused for it and nobody waits for it: it is counted, and told.

use std::sync::Arc;

use super::Slot;
use crate::checkpoint::{Piece, Snapshot};
use crate::event::Event;
use crate::hub::Hub;
use crate::id::{CheckpointId, ChildPath};
use crate::slot::worker::{Worker, unwound};

impl<W: Worker> Slot<W> {
    /// A life was restored from this state, and has not begun: it is asked for its state again. What it shares with
    /// that is the same; what it has made anew is encoded, beside its work, and compared with what was recorded.
    pub(super) fn compare_restored(
        &self,
        life: &W::Life,
        from: &Snapshot,
        checkpoint: Option<CheckpointId>,
    ) {
        if !from.pieces().iter().any(Piece::is_encoded) {
            // Nothing is recorded that it could differ from.
            return self.hub.count_restored(true);
        }
        let told = Told { hub: Arc::clone(&self.hub), child: self.path.clone(), checkpoint };
        let all = || from.pieces().iter().map(|piece| piece.name().to_owned()).collect();
        let now = match unwound(|| W::snapshot(life)) {
            Ok(Some(now)) => now,
            Ok(None) | Err(_) => return told.differs(all()),
        };
        if let Some(names) = now.differs(from, true) {
            return told.differs(names);
        }
        let from = from.clone();
        self.hub.spawn(async move {
            let names = now.differs(&from, false);
            told.differs(names.unwrap_or_default());
        });
    }
}

struct Told {
    hub: Arc<Hub>,
    child: ChildPath,
    checkpoint: Option<CheckpointId>,
}

impl Told {
    /// In these pieces, if any.
    fn differs(self, pieces: Vec<String>) {
        let Self { hub, child, checkpoint } = self;
        hub.count_restored(pieces.is_empty());
        if !pieces.is_empty() {
            hub.emit(Event::RestoredOtherwise { child, checkpoint, pieces });
        }
    }
}
