//! What is committed at once.
//!
//! *Invariant.* Who commits puts a batch together, who stores takes it apart; neither copies what is in it.

use std::sync::Arc;

use crate::checkpoint::line::RecoveryLine;
use crate::checkpoint::manifest::{Pin, Sealed, Topology, Wall};
use crate::id::{CheckpointId, ChildPath, LineId};

/// What is committed at once: whole or not at all.
#[derive(Clone, Debug, Default)]
#[must_use = "a batch is nothing until it is committed"]
pub struct Batch {
    pub(crate) items: Vec<Item>,
    /// It is written in order to give up more than it takes, and no quota refuses it.
    pub(crate) makes_room: bool,
}

/// One thing in a [`Batch`], for whoever writes a [`Store`](crate::checkpoint::Store).
///
/// They take effect in their order, and each sees those before it. A later version of the runtime may have
/// others: refuse the batch with [`StoreError::Refused`](crate::error::StoreError::Refused) for one that you do
/// not know, and so where it is said below that something is refused.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Item {
    /// A checkpoint and its contents ([`Sealed::parts`]), those that are in the store already among them. Refused when
    /// its id is taken; when it has a parent that is neither in the store nor one whose chain is remembered
    /// ([`Store::retain`](crate::checkpoint::Store::retain)); and when it does not go on from the parent's chain
    /// ([`Checkpoint::follows`](crate::checkpoint::Checkpoint::follows)).
    Checkpoint(Sealed),
    /// A recovery line. Refused when its id is taken, or one of its members is not in the store.
    Line(Arc<RecoveryLine>),
    /// A record at the end of a journal. Positions count from 1 and are not given twice, whatever was trimmed.
    Append {
        /// The journal's name.
        stream: Arc<str>,
        /// The record.
        bytes: Vec<u8>,
    },
    /// The records of a journal before a position are forgotten. Refused when that is beyond the position of its next
    /// record.
    Trim {
        /// The journal's name.
        stream: Arc<str>,
        /// The position of the first record that is left.
        before: u64,
    },
    /// A checkpoint is pinned; a pin of the same owner is replaced. Refused when it is not in the store.
    Pin(CheckpointId, Pin),
    /// The pin of this owner is taken away; nothing happens when there is none.
    Unpin(CheckpointId, String),
    /// A checkpoint is set aside, for this reason. Refused when it is not in the store.
    Bad(CheckpointId, String),
    /// It is not set aside any more. Refused when it is not in the store.
    Release(CheckpointId),
    /// The shape of the tree the store belongs to from now on.
    Topology(Arc<Topology>),
    /// A checkpoint goes; its chain is remembered as long as another one goes on from it. Nothing happens when there
    /// is none.
    Drop(CheckpointId),
    /// A recovery line goes; nothing happens when there is none.
    DropLine(LineId),
    /// What is left of a child that is gone, but for what somebody needs now: [`Retention::left_by`] says which
    /// checkpoints go. That is decided where this is applied, so that no line or pin that was committed before its
    /// batch is overlooked.
    ///
    /// [`Retention::left_by`]: crate::checkpoint::Retention::left_by
    Clear(ChildPath, Wall),
}

impl Item {
    /// What it is, for an error about it.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Checkpoint(sealed) => {
                let checkpoint = sealed.checkpoint();
                format!("{} of \"{}\"", checkpoint.id, checkpoint.child)
            }
            Self::Line(line) => line.id.to_string(),
            Self::Append { stream, .. } => format!("a record of journal \"{stream}\""),
            Self::Trim { stream, .. } => format!("the trimming of journal \"{stream}\""),
            Self::Pin(id, pin) => format!("the pin of \"{}\" on {id}", pin.owner),
            Self::Unpin(id, owner) => format!("the end of the pin of \"{owner}\" on {id}"),
            Self::Bad(id, _) => format!("the mark of {id}"),
            Self::Release(id) => format!("the release of {id}"),
            Self::Topology(_) => "the topology".to_owned(),
            Self::Drop(id) => format!("the end of {id}"),
            Self::DropLine(id) => format!("the end of {id}"),
            Self::Clear(child, _) => format!("the end of what \"{child}\" has left"),
        }
    }

    /// About how many bytes it has at most, contents aside.
    pub(crate) fn bulk(&self) -> usize {
        const SMALL: usize = 64 << 10;
        match self {
            Self::Append { bytes, .. } => SMALL + bytes.len(),
            _ => SMALL,
        }
    }
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// What is in it, in order: for a store that looks before it takes.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// What is in it, in order: for a store that takes it.
    pub fn into_items(self) -> Vec<Item> {
        self.items
    }

    /// Whether it is written in order to give up more than it takes. A store that is full, or over a quota, takes it
    /// all the same if it can: after it there may be room again.
    pub const fn makes_room(&self) -> bool {
        self.makes_room
    }

    pub(crate) fn making_room(mut self, it_does: bool) -> Self {
        self.makes_room = it_does;
        self
    }

    pub(crate) fn item(mut self, item: Item) -> Self {
        if self.items.is_empty() {
            // Most have one or two, and an item is large.
            self.items.reserve_exact(2);
        }
        self.items.push(item);
        self
    }

    /// A checkpoint with its pieces. Pieces that the store has are not written again.
    pub fn checkpoint(self, sealed: &Sealed) -> Self {
        self.item(Item::Checkpoint(sealed.clone()))
    }

    /// As [`Batch::checkpoint`], of one that nobody else needs.
    pub(crate) fn sealed(self, sealed: Sealed) -> Self {
        self.item(Item::Checkpoint(sealed))
    }

    /// A recovery line; its checkpoints are in the store, or before it in this batch.
    pub fn line(self, line: RecoveryLine) -> Self {
        self.item(Item::Line(Arc::new(line)))
    }

    /// A record at the end of a named journal; its position is in the
    /// [`Receipt`](crate::checkpoint::Receipt).
    pub fn append(self, stream: impl Into<Arc<str>>, bytes: Vec<u8>) -> Self {
        self.item(Item::Append { stream: stream.into(), bytes })
    }

    /// Forgets the records of a journal before this position. Positions are not given anew.
    pub fn trim(self, stream: impl Into<Arc<str>>, before: u64) -> Self {
        self.item(Item::Trim { stream: stream.into(), before })
    }

    /// Pins a checkpoint; a pin of the same owner is replaced.
    pub fn pin(self, id: CheckpointId, pin: Pin) -> Self {
        self.item(Item::Pin(id, pin))
    }

    /// Takes an owner's pin away; nothing happens when there is none.
    pub fn unpin(self, id: CheckpointId, owner: impl Into<String>) -> Self {
        self.item(Item::Unpin(id, owner.into()))
    }

    /// Sets a checkpoint aside: it is not restored again until it is released, and never deleted.
    pub fn mark_bad(self, id: CheckpointId, reason: impl Into<String>) -> Self {
        self.item(Item::Bad(id, reason.into()))
    }

    /// Takes the mark of [`Batch::mark_bad`] away.
    pub fn release(self, id: CheckpointId) -> Self {
        self.item(Item::Release(id))
    }

    /// The shape of the tree the store belongs to from now on.
    pub fn topology(self, topology: Topology) -> Self {
        self.item(Item::Topology(Arc::new(topology)))
    }
}
