//! Who has returned, and how far the one that is under way has come.
//!
//! *Invariant.* Returns are counted in the order in which they are made: one at a time.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::id::{ChildPath, LineId};
use crate::moment::Moment;

/// What rollbacks of a system share.
#[derive(Default)]
pub(crate) struct Rollbacks {
    /// One at a time: what stands still for one cannot be read by another.
    pub(super) turn: tokio::sync::Mutex<()>,
    /// How many there were.
    pub(super) returns: AtomicU64,
    /// Which of them each supervisor's last one was.
    last: parking_lot::Mutex<HashMap<ChildPath, u64>>,
    /// When each line of this process was drawn, the last ones.
    drawn: parking_lot::Mutex<VecDeque<(LineId, Moment)>>,
}

/// How many lines it is known of when they were drawn: more than any store keeps of a large tree.
const DRAWN: usize = 16_384;

impl Rollbacks {
    /// This line was drawn at that moment.
    pub(super) fn note_drawn(&self, line: LineId, at: Moment) {
        let mut drawn = self.drawn.lock();
        drawn.push_back((line, at));
        if drawn.len() > DRAWN {
            drawn.pop_front();
        }
    }

    /// When this process has drawn this line.
    pub(super) fn drawn(&self, line: LineId) -> Option<Moment> {
        self.drawn.lock().iter().rev().find(|(id, _)| *id == line).map(|(_, at)| *at)
    }

    /// This place has returned.
    pub(super) fn note(&self, at: &ChildPath) {
        let number = self.returns.fetch_add(1, Ordering::SeqCst) + 1;
        self.last.lock().insert(at.clone(), number);
    }

    /// Whether this place, or one above it, has returned after so many returns.
    pub(super) fn has_returned(&self, at: &ChildPath, since: u64) -> bool {
        let last = self.last.lock();
        let mut above = Some(at.clone());
        while let Some(path) = above {
            if last.get(&path).is_some_and(|number| *number > since) {
                return true;
            }
            above = path.parent();
        }
        false
    }
}

/// What is being done, for whoever finds that it took too long.
#[derive(Clone, Default)]
pub(super) struct Phase(Arc<parking_lot::Mutex<(&'static str, Reached)>>);

#[derive(Clone, Copy, Default, PartialEq)]
enum Reached {
    /// Nothing is changed yet.
    #[default]
    Making,
    /// Children are being changed.
    Changing,
    /// Nobody waits any more, and nothing was changed.
    GivenUp,
}

impl Phase {
    pub(super) fn set(&self, phase: &'static str) {
        self.0.lock().0 = phase;
    }

    pub(super) fn get(&self) -> &'static str {
        self.0.lock().0
    }

    /// From here on children are changed, unless it was given up.
    pub(super) fn begin(&self) -> bool {
        let mut now = self.0.lock();
        if now.1 == Reached::GivenUp {
            return false;
        }
        now.1 = Reached::Changing;
        true
    }

    pub(super) fn has_begun(&self) -> bool {
        self.0.lock().1 == Reached::Changing
    }

    /// Nobody waits any more. Whether nothing was changed: nothing will be.
    pub(super) fn give_up(&self) -> bool {
        let mut now = self.0.lock();
        if now.1 == Reached::Changing {
            return false;
        }
        now.1 = Reached::GivenUp;
        true
    }
}
