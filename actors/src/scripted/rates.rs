//! Failures by chance that is the same in every run.

use mainstay::fault::Class;

/// How often what goes wrong, each from 0 to 1; together at most 1, what is beyond is cut off.
///
/// The draw depends on the seed, the request and the attempt and on nothing else, so a run is
/// repeated exactly however its tasks interleave. Two draws of one request are independent.
///
/// ```
/// use mainstay_actors::scripted::Rates;
///
/// let rates = Rates { seed: 7, timeout: 0.05, tool_failure: 0.02, panic: 0.01, ..Rates::default() };
/// assert_eq!(rates.draw(42, 1), rates.draw(42, 1));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rates {
    /// Other seeds fail other attempts.
    pub seed: u64,
    /// Faults of class `Network`.
    pub network: f64,
    /// Faults of class `Timeout`, at once: nothing is waited for.
    pub timeout: f64,
    /// Faults of class `RateLimit`.
    pub rate_limit: f64,
    /// Faults of class `ModelUnavailable`.
    pub unavailable: f64,
    /// Faults of class `ToolExecution`.
    pub tool_failure: f64,
    /// Faults of any other class.
    pub others: Vec<(Class, f64)>,
    /// Panics.
    pub panic: f64,
    /// Attempts that never end by themselves.
    pub hang: f64,
    /// Wrong answers, as [`Script::lies_with`](super::Script::lies_with) says them.
    pub lie: f64,
}

/// What a draw says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Draw {
    /// All is well.
    Well,
    /// A fault of this class.
    Fail(Class),
    /// A panic.
    Panic,
    /// An attempt that never ends.
    Hang,
    /// A wrong answer.
    Lie,
}

impl Rates {
    /// No failures, with this seed.
    pub fn seeded(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// What happens to this attempt, from 1, at the request with this number.
    pub fn draw(&self, request: u64, attempt: u32) -> Draw {
        let fixed = [
            (Draw::Fail(Class::Network), self.network),
            (Draw::Fail(Class::Timeout), self.timeout),
            (Draw::Fail(Class::RateLimit), self.rate_limit),
            (Draw::Fail(Class::ModelUnavailable), self.unavailable),
            (Draw::Fail(Class::ToolExecution), self.tool_failure),
            (Draw::Panic, self.panic),
            (Draw::Hang, self.hang),
            (Draw::Lie, self.lie),
        ];
        let others = self.others.iter().map(|(class, rate)| (Draw::Fail(*class), *rate));
        let at = self.number(request, attempt);
        let mut sum = 0.0;
        for (draw, rate) in fixed.into_iter().chain(others) {
            sum += rate.max(0.0);
            if at < sum {
                return draw;
            }
        }
        Draw::Well
    }

    /// A number from 0 to 1 for this attempt at this request.
    fn number(&self, request: u64, attempt: u32) -> f64 {
        let mixed = mix(mix(mix(self.seed) ^ request) ^ u64::from(attempt));
        // 53 bits are what a float holds.
        (mixed >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// SplitMix64's step: every bit of the input moves every bit of the output.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_many_requests_the_rates_come_true() {
        for seed in [1, 2, 3] {
            let rates = Rates { timeout: 0.05, panic: 0.01, ..Rates::seeded(seed) };
            let draws: Vec<_> = (0..100_000).map(|request| rates.draw(request, 1)).collect();
            let share = |wanted| {
                draws.iter().filter(|draw| **draw == wanted).count() as f64 / draws.len() as f64
            };
            assert!((share(Draw::Fail(Class::Timeout)) - 0.05).abs() < 0.005, "seed {seed}");
            assert!((share(Draw::Panic) - 0.01).abs() < 0.002, "seed {seed}");
        }
    }

    #[test]
    fn a_second_attempt_is_another_draw() {
        let rates = Rates { network: 0.5, ..Rates::seeded(9) };
        let both = (0..10_000)
            .filter(|&request| {
                rates.draw(request, 1) != Draw::Well && rates.draw(request, 2) != Draw::Well
            })
            .count();
        assert!((2300..2700).contains(&both), "{both}");
    }

    #[test]
    fn certain_is_certain_and_never_is_never() {
        let always = Rates { others: vec![(Class::Permission, 1.0)], ..Rates::seeded(0) };
        for request in 0..1000 {
            assert_eq!(always.draw(request, 1), Draw::Fail(Class::Permission));
            assert_eq!(Rates::seeded(request).draw(request, 1), Draw::Well);
        }
    }
}
