//! A store in memory: for tests, and for systems that need not survive their process.
//!
//! *Invariant.* It refuses what a durable store would refuse: pieces are encoded and read back all the
//! same, so what works here works on disk.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::checkpoint::Scope;
use crate::checkpoint::index::{Admission, Change, Index};
use crate::checkpoint::line::RecoveryLine;
use crate::checkpoint::manifest::Wall;
use crate::checkpoint::snapshot::Piece;
use crate::checkpoint::store::{
    Batch, Commit, Compacted, Durability, Item, JournalRecord, Listed, REQUEST, Receipt, Retained,
    Retention, Store, StoreInfo, Stored, request_of, unreadable,
};
use crate::error::StoreError;
use crate::id::{CheckpointId, ChildPath};

/// A store that ends with its process. Every durability is [`Durability::Memory`].
///
/// A checkpoint that is loaded holds the very [`Arc`]s it was made with.
#[derive(Default)]
pub struct MemoryStore {
    index: Mutex<Index<Content, Vec<u8>>>,
}

#[derive(Clone)]
struct Content {
    piece: Piece,
    bytes: Arc<Vec<u8>>,
}

/// What errors call it.
const NAME: &str = "memory";

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn take(&self, batch: Batch) -> Result<Receipt, StoreError> {
        let mut index = self.index.lock();
        let receipt = index.admit(&mut Admission::default(), &batch)?;
        let mut positions = receipt.positions.iter();
        for item in batch.items {
            let change = match item {
                Item::Checkpoint(sealed) => {
                    for encoded in sealed.contents() {
                        let made = sealed.snapshot().pieces().iter().find(|piece| {
                            let its = piece.encoded(sealed.snapshot().schema());
                            its.is_ok_and(|its| its.digest == encoded.digest)
                        });
                        let stored = || Piece::stored("".into(), encoded.clone());
                        let content = Content {
                            piece: made.cloned().unwrap_or_else(stored),
                            bytes: Arc::clone(&encoded.bytes),
                        };
                        index.pieces.entry(encoded.digest).or_insert(content);
                    }
                    Change::Checkpoint(Arc::clone(sealed.checkpoint()))
                }
                Item::Line(line) => Change::Line(line),
                Item::Append { stream, bytes } => {
                    let position = positions.next().map_or(0, |(_, position)| *position);
                    Change::Append(stream, position, bytes)
                }
                Item::Trim { stream, before } => Change::Trim(stream, before),
                Item::Pin(id, pin) => Change::Pin(id, pin),
                Item::Unpin(id, owner) => Change::Unpin(id, owner),
                Item::Bad(id, reason) => Change::Bad(id, reason),
                Item::Release(id) => Change::Release(id),
                Item::Topology(topology) => Change::Topology(topology),
                Item::Drop(id) => Change::Drop(id),
                Item::DropLine(id) => Change::DropLine(id),
                Item::Clear(child, now) => {
                    for id in index.left_by(&child, now) {
                        index.apply(Change::Drop(id));
                    }
                    continue;
                }
            };
            index.apply_admitted(change);
        }
        index.commits += 1;
        Ok(receipt)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

impl Store for MemoryStore {
    fn commit(&self, batch: Batch, _: Durability) -> Commit {
        Commit::ready(self.take(batch).map_err(|error| error.of(NAME)))
    }

    fn children(&self) -> Result<Vec<ChildPath>, StoreError> {
        Ok(self.index.lock().children())
    }

    fn checkpoints(&self, child: &ChildPath) -> Result<Vec<Listed>, StoreError> {
        Ok(self.index.lock().checkpoints(child))
    }

    fn find(&self, id: CheckpointId) -> Result<Listed, StoreError> {
        self.index.lock().find(id).cloned()
    }

    fn load(&self, id: CheckpointId) -> Result<Stored, StoreError> {
        let index = self.index.lock();
        let listed = index.find(id)?.clone();
        let envelope = match listed.checkpoint.envelope {
            Some(digest) => {
                let request = request_of(digest, Arc::clone(&index.piece(digest)?.bytes));
                Some(request.map_err(|error| unreadable(NAME, id, REQUEST, error))?)
            }
            None => None,
        };
        let piece = |name: &str, digest| {
            let content: &Content = index.piece(digest)?;
            Ok(content.piece.named(name.to_owned().into()))
        };
        Stored::assemble(listed, piece, envelope)
    }

    fn lines(&self, scope: Scope, at: &ChildPath) -> Result<Vec<Arc<RecoveryLine>>, StoreError> {
        Ok(self.index.lock().lines(scope, at))
    }

    fn scan(
        &self,
        stream: &str,
        from: u64,
        limit: usize,
    ) -> Result<Vec<JournalRecord>, StoreError> {
        let index = self.index.lock();
        let records = index.records(stream, from).take(limit);
        let records =
            records.map(|(position, bytes)| JournalRecord { position, bytes: bytes.clone() });
        Ok(records.collect())
    }

    fn streams(&self) -> Result<Vec<(Arc<str>, u64)>, StoreError> {
        Ok(self.index.lock().streams())
    }

    fn quarantined(&self) -> Result<Vec<Listed>, StoreError> {
        Ok(self.index.lock().quarantined())
    }

    fn info(&self) -> Result<StoreInfo, StoreError> {
        let index = self.index.lock();
        let (checkpoints, pieces, lines) = index.counts();
        Ok(StoreInfo {
            name: NAME.to_owned(),
            format: u32::from(crate::checkpoint::codec::FORMAT),
            topology: index.topology(),
            checkpoints,
            pieces,
            lines,
            bytes: index.pieces.values().map(|content| content.bytes.len() as u64).sum(),
            commits: index.commits,
            poisoned: None,
        })
    }

    fn retain(&self, keep: Retention, now: Wall) -> Result<Retained, StoreError> {
        self.retain_besides(keep, now, &HashSet::new())
    }

    fn retain_besides(
        &self,
        keep: Retention,
        now: Wall,
        held: &HashSet<CheckpointId>,
    ) -> Result<Retained, StoreError> {
        let mut index = self.index.lock();
        let plan = index.plan(keep, now, held);
        for id in &plan.lines {
            index.apply(Change::DropLine(*id));
        }
        for id in &plan.dropped {
            index.apply(Change::Drop(*id));
        }
        Ok(plan)
    }

    fn compact(&self) -> Result<Compacted, StoreError> {
        let before = self.info()?.bytes;
        self.index.lock().drop_dead_pieces();
        Ok(Compacted { before, after: self.info()?.bytes })
    }

    fn taken_up(&self) {
        self.index.lock().forget_moments();
    }

    fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
