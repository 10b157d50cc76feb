//! How many restarts are too many: a sliding window.
//!
//! *Invariant.* A log never holds more moments than the largest count it is asked about.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::moment::Moment;

/// At most `count` restarts within any `period`; one more is too many.
///
/// # Default
/// One in five seconds, as in OTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Limit {
    /// So many are allowed. Zero: none.
    pub count: u32,
    /// Within so much time, both ends included.
    pub period: Duration,
}

impl Limit {
    /// At most `count` within `period`.
    pub const fn new(count: u32, period: Duration) -> Self {
        Self { count, period }
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self::new(1, Duration::from_secs(5))
    }
}

/// When the last restarts were.
#[derive(Clone, Debug, Default)]
pub(super) struct Log(VecDeque<Moment>);

impl Log {
    /// One more, at `now`. Forgets what is older than `period`, and the oldest beyond `keep`.
    pub(super) fn add(&mut self, now: Moment, period: Duration, keep: usize) {
        while self.0.front().is_some_and(|&at| now.since(at) > period) {
            self.0.pop_front();
        }
        while self.0.len() >= keep.max(1) {
            self.0.pop_front();
        }
        self.0.push_back(now);
    }

    /// How many within the last `period`.
    pub(super) fn within(&self, now: Moment, period: Duration) -> u32 {
        let old = self.0.partition_point(|&at| now.since(at) > period);
        u32::try_from(self.0.len() - old).unwrap_or(u32::MAX)
    }
}
