//! How long to wait before a retry: the schedule, its jitter, and how both are clamped.
//!
//! *Invariant.* A delay is never shorter than the schedule says, never longer than the longest delay
//! accepted, and always a whole number of milliseconds. The same request and attempt always get the
//! same jitter, so that a replay waits as its original did.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::RequestId;

/// The schedule of the waits before retries of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Backoff {
    /// No wait. Such a retry is declined as [`NoChange`](crate::decision::Declined::NoChange) unless
    /// the request changes.
    #[default]
    None,
    /// Always the same wait.
    Fixed(Duration),
    /// `base` before the first retry, then each time `factor` times the one before.
    Exponential {
        /// The first wait.
        base: Duration,
        /// What each next wait is multiplied by; at least 1.
        factor: f64,
    },
}

impl Backoff {
    /// The default base of an exponential schedule.
    pub const BASE: Duration = Duration::from_secs(1);
    /// The default factor of an exponential schedule.
    pub const FACTOR: f64 = 2.0;

    /// A schedule that doubles: `base`, twice that, four times that.
    pub const fn doubling(base: Duration) -> Self {
        Self::Exponential { base, factor: Self::FACTOR }
    }

    /// The wait before retry `n`, counted from 1, without jitter and at most `max`.
    pub fn delay(&self, n: u32, max: Duration) -> Duration {
        let raw = match *self {
            Self::None => Duration::ZERO,
            Self::Fixed(delay) => delay,
            Self::Exponential { base, factor } => {
                let longest = max.as_secs_f64();
                let exponent = i32::try_from(n.saturating_sub(1)).unwrap_or(i32::MAX);
                // Compared as floats first: a product that does not fit into a `Duration` would panic
                // there, and here it is just longer than the longest. `max` against NaN yields 0.
                let secs = (base.as_secs_f64() * factor.powi(exponent)).max(0.0);
                if secs >= longest { max } else { Duration::from_secs_f64(secs) }
            }
        };
        whole_millis(raw.min(max))
    }
}

/// How much later than the schedule a retry may come, so that those who failed together do not come
/// back together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Jitter {
    /// Exactly on schedule.
    None,
    /// Later by up to this share of the delay, evenly spread.
    Ratio {
        /// The share in percent, at most 100.
        percent: u8,
    },
}

impl Default for Jitter {
    /// Up to 20 % later.
    fn default() -> Self {
        Self::Ratio { percent: 20 }
    }
}

impl Jitter {
    /// This delay with the jitter of this attempt of this request. Never shorter.
    pub const fn apply(self, delay: Duration, id: RequestId, attempt: u32) -> Duration {
        match self {
            Self::None => delay,
            Self::Ratio { percent } => {
                // 32 bits of chance are plenty and keep the product well within 128 bits.
                let chance = (seed(id, attempt) >> 32) as u128;
                let extra = delay.as_nanos().saturating_mul(percent as u128 * chance) / (100 << 32);
                delay.saturating_add(nanos(extra))
            }
        }
    }

    /// The longest this delay can become.
    pub const fn longest(self, delay: Duration) -> Duration {
        match self {
            Self::None => delay,
            Self::Ratio { percent } => {
                let extra = delay.as_nanos().saturating_mul(percent as u128) / 100;
                delay.saturating_add(nanos(extra))
            }
        }
    }
}

/// Rounded up to a whole number of milliseconds: a timer may be late but never early.
pub const fn whole_millis(delay: Duration) -> Duration {
    match delay.subsec_nanos() % 1_000_000 {
        0 => delay,
        over => delay.saturating_add(Duration::from_nanos(1_000_000 - over as u64)),
    }
}

const fn nanos(nanos: u128) -> Duration {
    if nanos > u64::MAX as u128 { Duration::MAX } else { Duration::from_nanos(nanos as u64) }
}

/// Splitmix64 (Steele, Lea and Flood, 2014): neighbouring ids and attempts give unrelated numbers.
const fn seed(id: RequestId, attempt: u32) -> u64 {
    let mut z = id.0 ^ (attempt as u64).wrapping_mul(0xa076_1d64_78bd_642f);
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
