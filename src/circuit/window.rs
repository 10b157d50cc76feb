//! Counts over a sliding window, in bounded memory.
//!
//! *Invariant.* Ten slices, whatever the load: the window slides by a tenth at a time, so what is
//! counted is between nine and ten tenths old at most.

use std::time::Duration;

use crate::moment::Moment;

const SLICES: u64 = 10;

/// Successes and failures of the last tenths of a window.
#[derive(Clone, Debug)]
pub(super) struct Window {
    width: u64,
    newest: u64,
    /// Total and failures of each slice, by the slice's number modulo ten.
    slices: [(u32, u32); SLICES as usize],
}

impl Window {
    pub(super) const fn new(window: Duration) -> Self {
        let nanos = window.as_nanos();
        let nanos = if nanos > u64::MAX as u128 { u64::MAX } else { nanos as u64 };
        // At least a nanosecond wide, so that an unvalidated window of zero divides nothing by zero.
        let width = if nanos < SLICES { 1 } else { nanos / SLICES };
        Self { width, newest: 0, slices: [(0, 0); SLICES as usize] }
    }

    pub(super) fn count(&mut self, failed: bool, now: Moment) {
        self.slide(now);
        let slice = &mut self.slices[(self.newest % SLICES) as usize];
        slice.0 = slice.0.saturating_add(1);
        slice.1 = slice.1.saturating_add(u32::from(failed));
    }

    /// Requests and failures still in the window.
    pub(super) fn totals(&mut self, now: Moment) -> (u64, u64) {
        self.slide(now);
        self.slices.iter().fold((0, 0), |(total, failed), slice| {
            (total + u64::from(slice.0), failed + u64::from(slice.1))
        })
    }

    fn slide(&mut self, now: Moment) {
        let slice = now.as_nanos() / self.width;
        // A moment before the newest slice belongs to it: time is handed in and may be a little old.
        let steps = slice.saturating_sub(self.newest).min(SLICES);
        for step in 1..=steps {
            self.slices[((self.newest + step) % SLICES) as usize] = (0, 0);
        }
        self.newest = self.newest.max(slice);
    }
}
