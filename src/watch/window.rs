//! A sliding window: a ring of buckets of equal width.
//!
//! *Invariant.* Its size is fixed when it is made. What is recorded at one moment is seen until the
//! window has moved past its bucket, and never later.

use std::time::Duration;

use super::histogram::Histogram;
use crate::checkpoint::Scope;
use crate::fate::FateCounts;
use crate::fault::Class;
use crate::moment::Moment;

/// Buckets in a window: it moves by a sixtieth of its length.
pub(crate) const BUCKETS: u64 = 60;
/// The kinds of group.
pub(crate) const KINDS: usize = 5;

/// What entered a rung, and what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rung {
    pub(crate) entered: u64,
    pub(crate) recovered: u64,
    pub(crate) defaulted: u64,
}

/// What a signal has said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    pub(crate) yes: u64,
    pub(crate) answers: u64,
    pub(crate) times: Histogram,
}

/// What happened within one bucket, or within all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) attempts: u64,
    /// By class, in the order of [`Class::ALL`].
    pub(crate) failures: [u64; Class::ALL.len()],
    pub(crate) crashes: u64,
    pub(crate) retries: u64,
    pub(crate) fates: FateCounts,
    pub(crate) groups: [FateCounts; KINDS],
    pub(crate) degraded: [u64; KINDS],
    pub(crate) defaulted: [u64; KINDS],
    pub(crate) retry: Rung,
    pub(crate) fallback: [Rung; KINDS],
    pub(crate) rollback: [Rung; Scope::ALL.len()],
    /// Requests that have failed at least once.
    pub(crate) troubled: Rung,
    pub(crate) restores: Rung,
    pub(crate) retry_times: Histogram,
    pub(crate) fallback_times: Histogram,
    pub(crate) rollback_times: [Histogram; Scope::ALL.len()],
    /// In the order of the spec.
    pub(crate) signals: Vec<Heard>,
}

impl Rung {
    pub(crate) const fn merge(&mut self, other: Self) {
        self.entered += other.entered;
        self.recovered += other.recovered;
        self.defaulted += other.defaulted;
    }

    pub(crate) fn sum(rungs: &[Self]) -> Self {
        rungs.iter().fold(Self::default(), |mut sum, rung| {
            sum.merge(*rung);
            sum
        })
    }
}

impl Counts {
    pub(crate) fn new(signals: usize) -> Self {
        Self { signals: vec![Heard::default(); signals], ..Self::default() }
    }

    fn merge(&mut self, other: &Self) {
        self.attempts += other.attempts;
        add(&mut self.failures, &other.failures);
        self.crashes += other.crashes;
        self.retries += other.retries;
        self.fates.merge(&other.fates);
        for (mine, theirs) in self.groups.iter_mut().zip(&other.groups) {
            mine.merge(theirs);
        }
        add(&mut self.degraded, &other.degraded);
        add(&mut self.defaulted, &other.defaulted);
        self.retry.merge(other.retry);
        let rungs = self.fallback.iter_mut().chain(&mut self.rollback);
        for (mine, theirs) in rungs.zip(other.fallback.iter().chain(&other.rollback)) {
            mine.merge(*theirs);
        }
        self.troubled.merge(other.troubled);
        self.restores.merge(other.restores);
        self.retry_times.merge(&other.retry_times);
        self.fallback_times.merge(&other.fallback_times);
        for (mine, theirs) in self.rollback_times.iter_mut().zip(&other.rollback_times) {
            mine.merge(theirs);
        }
        for (mine, theirs) in self.signals.iter_mut().zip(&other.signals) {
            mine.yes += theirs.yes;
            mine.answers += theirs.answers;
            mine.times.merge(&theirs.times);
        }
    }

    /// The failed attempts that are errors.
    pub(crate) fn errors(&self) -> u64 {
        let cancelled = self.failures[Class::Cancelled as usize];
        self.failures.iter().sum::<u64>() - cancelled + self.crashes
    }

    pub(crate) fn rollback_times(&self) -> Histogram {
        let mut all = Histogram::default();
        for times in &self.rollback_times {
            all.merge(times);
        }
        all
    }
}

fn add<const N: usize>(mine: &mut [u64; N], theirs: &[u64; N]) {
    for (mine, theirs) in mine.iter_mut().zip(theirs) {
        *mine += theirs;
    }
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub(crate) struct Window {
    width: u64,
    signals: usize,
    /// Each with the number of the bucket it is now, counted from the start of time.
    ring: Vec<(u64, Counts)>,
}

impl Window {
    /// A window of this length, with room for so many signals.
    pub(crate) fn new(length: Duration, signals: usize) -> Self {
        let nanos = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        let ring = (0..BUCKETS).map(|_| (u64::MAX, Counts::new(signals))).collect();
        Self { width: (nanos / BUCKETS).max(1), signals, ring }
    }

    /// When the bucket of `now` ends.
    pub(crate) const fn edge(&self, now: Moment) -> Moment {
        Moment::from_nanos((now.as_nanos() / self.width + 1).saturating_mul(self.width))
    }

    /// Where what happens at this moment is recorded; `None` when the window has moved past it.
    pub(crate) fn at(&mut self, now: Moment) -> Option<&mut Counts> {
        let number = now.as_nanos() / self.width;
        let (held, counts) = &mut self.ring[(number % BUCKETS) as usize];
        if *held != u64::MAX && *held > number {
            return None;
        }
        if *held != number {
            *held = number;
            *counts = Counts::new(self.signals);
        }
        Some(counts)
    }

    /// Everything within the window that ends now.
    pub(crate) fn sum(&self, now: Moment) -> Counts {
        let last = now.as_nanos() / self.width;
        let mut sum = Counts::new(self.signals);
        for (number, counts) in &self.ring {
            if *number <= last && last - number < BUCKETS {
                sum.merge(counts);
            }
        }
        sum
    }
}
