//! Small failures that add up: how many of one task were mended one by one, lately.
//!
//! *Invariant.* Nothing but moments is kept, and no more of them than a limit can ask for.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::moment::Moment;

/// How many soft failures of one task are mended one by one. A task is a request from outside with
/// all the calls made for it; a soft failure is a fault that a retry or a substitute answered.
///
/// # Default
///
/// 20 within 60 s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Tolerance {
    /// So many within the window; the next fault is not retried.
    pub failures: u32,
    /// How long one counts.
    pub window: Duration,
}

impl Tolerance {
    /// The most failures that can be asked for, and the most that are remembered.
    pub const MOST: u32 = 10_000;

    /// So many failures within this window.
    pub const fn new(failures: u32, window: Duration) -> Self {
        Self { failures, window }
    }
}

impl Default for Tolerance {
    fn default() -> Self {
        Self::new(20, Duration::from_secs(60))
    }
}

/// When the soft failures of one task were, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SoftFailures(VecDeque<Moment>);

impl SoftFailures {
    /// Notes one.
    pub fn note(&mut self, now: Moment) {
        if self.0.len() >= Tolerance::MOST as usize {
            self.0.pop_front();
        }
        self.0.push_back(now);
    }

    /// How many there were within `window` before `now`; one that is exactly that old does not count
    /// any more. Nothing is forgotten: the next who asks may have a longer window.
    pub fn within(&self, window: Duration, now: Moment) -> u32 {
        let recent = self.0.iter().rev().take_while(|at| now.since(**at) < window);
        recent.count() as u32
    }
}
