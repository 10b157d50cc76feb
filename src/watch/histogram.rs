//! Durations, counted so that a percentile can be told.
//!
//! *Invariant.* It never grows beyond [`CELLS`] cells, whatever is recorded, and what it says of a
//! percentile is never too low, and at most a thirty-second too high.

use std::time::Duration;

/// Cells of equal width between two powers of two, as a power of two.
const FINE: u32 = 5;
const LOW: u64 = 1 << FINE;
/// Durations from here on, 50 days, are counted as this.
const LONGEST: u64 = 1 << 42;
/// How many cells there can be.
const CELLS: usize = 39 << FINE;

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub(crate) struct Histogram {
    /// Those that are not empty, in order.
    cells: Vec<(u16, u32)>,
    count: u64,
    sum: Duration,
    longest: Duration,
}

impl Histogram {
    pub(crate) fn record(&mut self, duration: Duration) {
        self.add(cell(micros(duration)), 1);
        self.count += 1;
        self.sum = self.sum.saturating_add(duration);
        self.longest = self.longest.max(duration);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (cell, count) in &other.cells {
            self.add(*cell, *count);
        }
        self.count += other.count;
        self.sum = self.sum.saturating_add(other.sum);
        self.longest = self.longest.max(other.longest);
    }

    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    pub(crate) const fn longest(&self) -> Duration {
        self.longest
    }

    pub(crate) fn mean(&self) -> Option<Duration> {
        (self.count > 0)
            .then(|| Duration::from_secs_f64(self.sum.as_secs_f64() / self.count as f64))
    }

    /// What this share of the durations does not exceed; `None` of none.
    pub(crate) fn quantile(&self, share: f64) -> Option<Duration> {
        let rank = ((share * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        let at = self.cells.iter().find(|(_, count)| {
            seen += u64::from(*count);
            seen >= rank
        });
        at.map(|(cell, _)| Duration::from_micros(upper(*cell)).min(self.longest))
    }

    fn add(&mut self, cell: u16, count: u32) {
        debug_assert!(usize::from(cell) < CELLS);
        match self.cells.binary_search_by_key(&cell, |(at, _)| *at) {
            Ok(at) => self.cells[at].1 = self.cells[at].1.saturating_add(count),
            Err(at) => self.cells.insert(at, (cell, count)),
        }
    }
}

/// Whole microseconds, rounded up.
fn micros(duration: Duration) -> u64 {
    let micros = duration.as_nanos().div_ceil(1000).min(u128::from(LONGEST - 1));
    u64::try_from(micros).unwrap_or(LONGEST - 1)
}

const fn cell(micros: u64) -> u16 {
    if micros < LOW {
        return micros as u16;
    }
    let power = 63 - micros.leading_zeros();
    let within = (micros >> (power - FINE)) & (LOW - 1);
    (((power - FINE + 1) as u16) << FINE) + within as u16
}

/// The longest duration that is counted in this cell.
const fn upper(cell: u16) -> u64 {
    if (cell as u64) < LOW {
        return cell as u64;
    }
    let shift = (cell >> FINE) as u32 - 1;
    let within = cell as u64 & (LOW - 1);
    ((LOW + within) << shift) + (1 << shift) - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_percentile_is_never_too_low_and_hardly_too_high(
            nanos in prop::collection::vec(0u64..20_000_000_000, 1..200),
            share in 0.01f64..=1.0,
        ) {
            let mut all: Vec<_> = nanos.into_iter().map(Duration::from_nanos).collect();
            let (mut one, mut other) = (Histogram::default(), Histogram::default());
            for (at, duration) in all.iter().enumerate() {
                if at % 3 == 0 { one.record(*duration) } else { other.record(*duration) }
            }
            one.merge(&other);
            all.sort_unstable();
            let rank = ((share * all.len() as f64).ceil() as usize).max(1);
            let exact = all[rank - 1];
            let told = one.quantile(share).unwrap();
            prop_assert!(told >= exact, "{told:?} of {exact:?}");
            let most = exact + exact / 32 + Duration::from_micros(2);
            prop_assert!(told <= most, "{told:?} of {exact:?}");
            prop_assert_eq!(one.longest(), all[all.len() - 1]);
            prop_assert_eq!(one.count() as usize, all.len());
        }

        #[test]
        fn every_duration_has_a_cell_that_ends_above_it(micros in 0u64..LONGEST) {
            let at = cell(micros);
            prop_assert!((at as usize) < CELLS);
            prop_assert!(upper(at) >= micros);
            prop_assert!(at == 0 || upper(at - 1) < micros);
        }
    }

    #[test]
    fn nothing_has_no_percentile_and_the_longest_is_kept_whole() {
        let mut histogram = Histogram::default();
        assert_eq!((histogram.quantile(0.95), histogram.mean()), (None, None));
        histogram.record(Duration::MAX);
        assert!(histogram.quantile(0.95).unwrap() >= Duration::from_secs(86_400 * 50));
    }
}
