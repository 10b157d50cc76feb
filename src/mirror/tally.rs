//! Counts that are kept, so that asking for them costs nothing.
//!
//! *Invariant.* Each row is counted in one cell of its supervisor's tally and of every tally above it,
//! from the moment it is added to the moment its handle is dropped. Going from idle to busy and back
//! moves nothing, so that a request writes no line that two children share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

use super::facts::{ChildState, Kind};

/// How many nodes there are, by what they are doing.
///
/// Supervisors and groups are counted as such, everything else by its state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Counts {
    /// Supervisors, the one asked included.
    pub supervisors: u64,
    /// Groups.
    pub groups: u64,
    /// Children that are neither: the sum of the nine below.
    pub children: u64,
    /// See [`ChildState::Unstarted`].
    pub unstarted: u64,
    /// Idle, busy, or waiting for calls they made.
    pub serving: u64,
    /// See [`ChildState::Starting`].
    pub starting: u64,
    /// See [`ChildState::BackingOff`].
    pub backing_off: u64,
    /// See [`ChildState::Stopping`].
    pub stopping: u64,
    /// See [`ChildState::Restarting`].
    pub restarting: u64,
    /// See [`ChildState::Stopped`].
    pub stopped: u64,
    /// See [`ChildState::Quarantined`].
    pub quarantined: u64,
    /// See [`ChildState::Zombie`].
    pub zombies: u64,
    /// Restarts of all nodes that are there now.
    pub restarts: u64,
}

/// Which cell counts a node.
pub(crate) const fn cell(kind: Kind, state: ChildState) -> usize {
    match (kind, state) {
        (Kind::Supervisor, _) => 9,
        (Kind::Group, _) => 10,
        (_, ChildState::Unstarted) => 0,
        (_, ChildState::Idle | ChildState::Busy | ChildState::Waiting) => 1,
        (_, ChildState::Starting) => 2,
        (_, ChildState::BackingOff) => 3,
        (_, ChildState::Stopping) => 4,
        (_, ChildState::Restarting) => 5,
        (_, ChildState::Stopped) => 6,
        (_, ChildState::Quarantined) => 7,
        (_, ChildState::Zombie) => 8,
    }
}

pub(crate) const CELLS: usize = 11;

impl Counts {
    pub(crate) fn from_cells(cells: [u64; CELLS], restarts: u64) -> Self {
        let [
            unstarted,
            serving,
            starting,
            backing_off,
            stopping,
            restarting,
            stopped,
            quarantined,
            zombies,
            supervisors,
            groups,
        ] = cells;
        Self {
            supervisors,
            groups,
            children: cells[..9].iter().sum(),
            unstarted,
            serving,
            starting,
            backing_off,
            stopping,
            restarting,
            stopped,
            quarantined,
            zombies,
            restarts,
        }
    }
}

/// The counts of one supervisor and all below it.
#[derive(Debug, Default)]
pub(super) struct Tally {
    above: Option<Arc<Tally>>,
    cells: [AtomicU64; CELLS],
    restarts: AtomicU64,
}

impl Tally {
    pub(super) fn below(above: Option<Arc<Self>>) -> Arc<Self> {
        Arc::new(Self { above, ..Self::default() })
    }

    /// Counts a node here and not above.
    pub(super) fn enter_here(&self, cell: usize) {
        self.cells[cell].fetch_add(1, Relaxed);
    }

    fn each(&self, mut f: impl FnMut(&Self)) {
        let mut next = Some(self);
        while let Some(tally) = next {
            f(tally);
            next = tally.above.as_deref();
        }
    }

    pub(super) fn enter(&self, cell: usize) {
        self.each(|tally| {
            tally.cells[cell].fetch_add(1, Relaxed);
        });
    }

    pub(super) fn leave(&self, cell: usize) {
        self.each(|tally| {
            tally.cells[cell].fetch_sub(1, Relaxed);
        });
    }

    pub(super) fn step(&self, from: usize, to: usize) {
        self.each(|tally| {
            tally.cells[to].fetch_add(1, Relaxed);
            tally.cells[from].fetch_sub(1, Relaxed);
        });
    }

    /// Takes a node's number of restarts from `from` to `to`.
    pub(super) fn restarts(&self, from: u32, to: u32) {
        if from != to {
            let change = u64::from(to).wrapping_sub(u64::from(from));
            self.each(|tally| {
                // Adds two's complement, which subtracts when the number went down.
                tally.restarts.fetch_add(change, Relaxed);
            });
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let cells = std::array::from_fn(|cell| self.cells[cell].load(Relaxed));
        Counts::from_cells(cells, self.restarts.load(Relaxed))
    }
}
