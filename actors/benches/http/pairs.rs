//! Pairs of measurements, taken right after one another, and what their ratios say.
//!
//! *Invariant.* No assumption on how the noise is spread: a machine that slows down for a while slows down
//! both sides of a pair, and the interval of the median comes from ranks alone.

use super::meter::{Unit, median};

/// What came of the pairs.
pub(crate) struct Pairs {
    ours: f64,
    theirs: f64,
    ratios: Vec<f64>,
}

/// So many pairs, after a tenth as many that do not count. Who comes first changes from pair to pair.
pub(crate) fn of(
    pairs: usize,
    mut ours: impl FnMut() -> f64,
    mut theirs: impl FnMut() -> f64,
) -> Pairs {
    let warm = pairs.div_ceil(10);
    let (mut all, mut others) = (Vec::with_capacity(pairs), Vec::with_capacity(pairs));
    let mut ratios = Vec::with_capacity(pairs);
    for pair in 0..warm + pairs {
        let (mine, other) = if pair % 2 == 0 {
            let mine = ours();
            (mine, theirs())
        } else {
            let other = theirs();
            (ours(), other)
        };
        if pair >= warm {
            all.push(mine);
            others.push(other);
            ratios.push(mine / other);
        }
    }
    ratios.sort_by(f64::total_cmp);
    Pairs { ours: median(&mut all), theirs: median(&mut others), ratios }
}

impl Pairs {
    /// The line of this figure. A goal is met or missed if the whole interval says so.
    pub(crate) fn line(mut self, what: &str, peer: &str, goal: Option<f64>) -> String {
        let (low, high) = interval(&self.ratios);
        let ratio = median(&mut self.ratios);
        let verdict = goal.map_or(String::new(), |most| {
            let verdict = match (high <= most, low > most) {
                (true, _) => "met",
                (_, true) => "missed",
                _ => "undecided",
            };
            format!(" goal {most:.2} {verdict}")
        });
        let (ours, theirs) = (Unit::Time.show(self.ours), Unit::Time.show(self.theirs));
        let pairs = self.ratios.len();
        format!(
            "{what} ours {ours} peer {peer} {theirs} ratio {ratio:.3} \
             (95 %: {low:.3} to {high:.3}, {pairs} pairs){verdict}"
        )
    }
}

/// Where the median lies with 95 %, by the ranks of a binomial.
fn interval(sorted: &[f64]) -> (f64, f64) {
    let count = sorted.len();
    let half = count as f64 / 2.0;
    let reach = 1.96 * (count as f64).sqrt() / 2.0;
    let low = (half - reach).floor().max(0.0) as usize;
    let high = ((half + reach).ceil() as usize).min(count - 1);
    (sorted[low.min(count - 1)], sorted[high])
}
