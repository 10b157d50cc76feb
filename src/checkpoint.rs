//! State on its way to disk and back: snapshots, checkpoints, recovery lines, and the stores that keep
//! them.
//!
//! A [`Snapshot`] is state as a message: named, shared, immutable pieces. [`Draft::seal`] makes a
//! [`Checkpoint`] of it, with an id, a lineage and a digest. A [`Batch`] of such things is committed to
//! a [`Store`] whole or not at all. Later a [`Validator`] doubts everything the store says, and what it
//! lets pass is a [`Validated`], the only thing that can be restored. A [`RecoveryLine`] names one
//! checkpoint a child, such that they agree.
//!
//! There are two stores, [`MemoryStore`] and [`FileStore`]. What a store of your own has to do is said at
//! [`Store`], and [`contract`] checks that it does.
//!
//! *Invariant.* Nothing here starts, stops or asks a child. Time is handed in, as [`Now`]. The encoding
//! is known to [`codec`] alone.

pub mod codec;
pub mod contract;
pub mod file;
pub mod line;
pub mod manifest;
pub mod memory;
pub mod snapshot;
pub mod store;
pub mod validate;

mod batch;
mod index;
mod spread;
mod stored;

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use crate::decision::{Risk, Scope};
pub use codec::SchemaId;
pub use file::{FileOptions, FileStore};
pub use line::{LineDraft, RecoveryLine, ValidLine};
pub use manifest::{
    Budgets, Checkpoint, Digest, Draft, Lineage, Now, Pin, Sealed, Topology, Wall,
    new_checkpoint_id,
};
pub use memory::MemoryStore;
pub use snapshot::{Piece, Snapshot};
pub use store::{
    Batch, Commit, Compacted, Durability, Export, Item, JournalRecord, Listed, Receipt, Retained,
    Retention, Store, StoreInfo, Stored,
};
pub use validate::{Refused, Rules, Schema, Schemas, Validated, Validator};

/// The fields every agent's snapshot must have.
pub const AGENT_FIELDS: [&str; 3] = ["tools_used", "context", "memory"];
/// How old a checkpoint may be, unless a pin holds it: one hour.
pub const VALIDITY: Duration = Duration::from_secs(3600);
/// With the child's path behind it, who pins what a request may go back to that waits for a person.
pub(crate) const POINT: &str = "a point at ";
/// How long a pin can hold a checkpoint, from when it was pinned: a day.
pub const LONGEST_PIN: Duration = Duration::from_secs(24 * 3600);

/// How often a child's state is stored.
///
/// Whatever it says, the state is stored before an effect on the world (any but
/// [`Pure`](crate::fault::EffectKind::Pure) and [`Read`](crate::fault::EffectKind::Read)), so that another
/// process asks for the same effect again, and not its model for another one; and with the fate of each
/// request, unless it is [`Interval::Never`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Interval {
    /// After every `n` steps: at step n, 2n, and so on.
    Steps(u32),
    /// After every `n` of what the behavior counts itself, such as lines or pages.
    Units {
        /// What is counted.
        name: Cow<'static, str>,
        /// How many of it.
        n: u32,
    },
    /// Only before and after every effect on the world: what asks for it, and what has become of the
    /// state once the step that was given its outcome is done.
    EveryEffect,
    /// Never by itself; still before every effect on the world.
    Never,
}

impl Interval {
    /// Whether a checkpoint is due at `step`, counted from 1, and `units` of what [`Interval::Units`]
    /// names, when the last one was taken at `last_units`. An interval of zero is due never.
    pub const fn is_due(&self, step: u64, last_units: u64, units: u64) -> bool {
        match self {
            Self::Steps(n) => *n > 0 && step > 0 && step.is_multiple_of(*n as u64),
            // Units may grow by more than one a step, so it counts whether a multiple was passed.
            Self::Units { n, .. } => *n > 0 && units / *n as u64 > last_units / *n as u64,
            Self::EveryEffect | Self::Never => false,
        }
    }
}

/// # Default
/// Every 10 steps.
impl Default for Interval {
    fn default() -> Self {
        Self::Steps(10)
    }
}

#[cfg(test)]
mod tests;
