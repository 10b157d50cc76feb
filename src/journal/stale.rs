//! States that were stored in the middle of a request which begins anew.
//!
//! *Invariant.* What a request did before it was set aside may be undone: nobody goes on behind that.

use std::sync::Arc;

use super::{Handed, Journal, Open};
use crate::checkpoint::Batch;
use crate::checkpoint::store::Item;
use crate::error::StoreError;
use crate::id::{CheckpointId, ChildPath};

/// Why such a state is set aside.
const ANEW: &str = "the request in whose middle it was taken was released, and begins anew";

/// What is read of the request in hand.
#[derive(serde::Deserialize)]
struct Named {
    key: Arc<str>,
}

impl Journal {
    /// A request that was set aside is open again, and begins anew, whatever the store has of its middle; `None` when
    /// there is none with this key. `is_at_rest` says that nobody builds on that. May block on files.
    pub(crate) fn released_anew(
        self: &Arc<Self>,
        key: &str,
        is_at_rest: bool,
    ) -> Result<Option<(Open, Handed)>, StoreError> {
        let Some(aside) = self.aside(key) else { return Ok(None) };
        let (middles, is_first) = self.middles(&aside.open.child, key)?;
        let batch = middles.into_iter().fold(Batch::new(), |batch, id| {
            if is_at_rest {
                batch.item(Item::Drop(id))
            } else if is_first {
                // There is nothing else yet, and a store with bad states alone is refused.
                batch
            } else {
                batch.mark_bad(id, ANEW)
            }
        });
        Ok(self.released_with(key, batch))
    }

    /// What the child has stored last, as far as it is of the middle of this request; and whether there is nothing
    /// before it.
    fn middles(
        &self,
        child: &ChildPath,
        key: &str,
    ) -> Result<(Vec<CheckpointId>, bool), StoreError> {
        let (mut middles, mut is_first) = (Vec::new(), true);
        for listed in self.states(child)? {
            if listed.checkpoint.envelope.is_none() {
                is_first = false;
                break;
            }
            let id = listed.checkpoint.id;
            let in_hand = self.store.load(id)?.envelope().ok().flatten();
            let named = in_hand.and_then(|bytes| serde_json::from_slice::<Named>(&bytes).ok());
            if listed.bad.is_none() && named.is_some_and(|named| *named.key == *key) {
                middles.push(id);
            }
        }
        Ok((middles, is_first))
    }
}
