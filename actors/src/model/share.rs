//! What a request may use of the budget of whoever asks: decided before it is sent.
//!
//! *Invariant.* What a share allows costs no more than what is left, as far as the prompt is estimated
//! right; and whoever is denied is told what would have been the least.

use mainstay::fate::Cost;
use mainstay::fault::Fault;
use mainstay::policy::budget::{Denied, Limits, Resource};

use crate::chat::Usage;

/// The most tokens of an answer to a request that names no limit of its own, by default, where one has to be
/// named: see [`Model::answer_tokens`](super::Model::answer_tokens). Nearly every model takes so many; a
/// provider refuses a limit that is above the model's own.
pub const BUDGETED_ANSWER: u32 = 4096;
/// The code of the fault of an answer that was cut off at its limit.
pub(super) const TRUNCATED: &str = "truncated";
/// The fewest tokens that are worth asking for; there are providers that refuse a smaller limit.
const LEAST: u32 = 16;

/// Prices of a million tokens, read and written, in millionths.
pub(super) type Price = (u64, u64);

/// What a request may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    /// At most, by the estimate.
    pub(super) usage: Usage,
    /// The limit of the answer that is to be sent.
    pub(super) limit: u32,
}

/// The share of a request with a prompt of so many tokens, whose answer may have `limit`, or else what is left,
/// at most `most`, at this price. `None` where nothing is limited that it uses.
///
/// # Errors
/// What is left does not cover it.
pub(super) fn share(
    prompt: u64,
    limit: Option<u32>,
    most: u32,
    price: Price,
    left: &Limits,
) -> Result<Option<Share>, Denied> {
    let money = left.money_micros.filter(|_| price != (0, 0));
    if left.tokens.is_none() && money.is_none() {
        return Ok(None);
    }
    let usage = |output: u64| Usage { input: prompt, output, estimated: true };
    let least = cost(price, usage(u64::from(limit.unwrap_or(LEAST.min(most)))));
    for (what, asked, left) in [
        (Resource::Tokens, least.tokens, left.tokens),
        (Resource::Money, least.money_micros, money),
    ] {
        if let Some(left) = left.filter(|left| asked > *left) {
            return Err(Denied { what, asked, left });
        }
    }
    let by_tokens = left.tokens.map(|left| u128::from(left - prompt.min(left)));
    let by_money = money.filter(|_| price.1 > 0).map(|left| {
        let prompt = u128::from(prompt) * u128::from(price.0);
        (u128::from(left) * MILLION).saturating_sub(prompt) / u128::from(price.1)
    });
    let fits = by_tokens.into_iter().chain(by_money).fold(u128::from(most), u128::min);
    // It fits what is no larger.
    let limit = limit.unwrap_or(u32::try_from(fits).unwrap_or(most));
    Ok(Some(Share { usage: usage(u64::from(limit)), limit }))
}

const MILLION: u128 = 1_000_000;

/// The fault of an answer that was cut off at a limit that nobody had asked for, with where it came from.
pub(super) fn cut_off(mut fault: Fault, limit: u32, most: u32, capped: bool) -> Fault {
    if fault.code.as_deref() == Some(TRUNCATED) {
        let why = match (limit < most, capped) {
            (true, false) => "all that the budget had left",
            (true, true) => "all that the budget or the model's `price_cap` had left",
            (false, _) => {
                "what it gets where nobody says: set `max_tokens`, or raise the model's `answer_tokens`"
            }
        };
        fault.message = format!("the answer was cut off at {limit} tokens, {why}").into();
    }
    fault
}

/// What this costs.
pub(super) fn cost((input, output): Price, usage: Usage) -> Cost {
    let micros =
        u128::from(usage.input) * u128::from(input) + u128::from(usage.output) * u128::from(output);
    Cost {
        tokens: usage.total(),
        money_micros: u64::try_from(micros.div_ceil(MILLION)).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: Price = (0, 0);
    /// 1 a token read and 2 a token written, in millionths.
    const PAID: Price = (1_000_000, 2_000_000);

    fn left(tokens: Option<u64>, money_micros: Option<u64>) -> Limits {
        Limits { tokens, money_micros, ..Limits::default() }
    }

    #[test]
    fn an_answer_gets_what_it_asks_for_or_else_what_is_left_at_the_price() {
        let table = [
            // prompt, limit, price, left: limit of the answer
            (100, Some(50), FREE, left(None, None), None),
            (100, Some(50), FREE, left(None, Some(0)), None),
            (100, Some(50), FREE, left(Some(150), Some(0)), Some(50)),
            (100, None, FREE, left(Some(150), None), Some(50)),
            (100, None, FREE, left(Some(1_000_000), None), Some(BUDGETED_ANSWER)),
            (100, Some(90_000), FREE, left(Some(1_000_000), None), Some(90_000)),
            (100, Some(50), PAID, left(None, Some(200)), Some(50)),
            (100, None, PAID, left(None, Some(200)), Some(50)),
            (100, None, PAID, left(None, Some(201)), Some(50)),
            (100, None, PAID, left(Some(120), Some(200)), Some(20)),
            (100, None, PAID, left(Some(900), Some(200)), Some(50)),
            // Only what is read is paid for.
            (100, None, (1_000_000, 0), left(None, Some(100)), Some(BUDGETED_ANSWER)),
            (0, None, (1, 1), left(None, Some(u64::MAX)), Some(BUDGETED_ANSWER)),
        ];
        for (prompt, limit, price, left, expected) in table {
            let share = share(prompt, limit, BUDGETED_ANSWER, price, &left).unwrap();
            assert_eq!(share.map(|share| share.limit), expected, "{prompt} {limit:?} {left:?}");
            let Some(share) = share else { continue };
            assert_eq!((share.usage.input, share.usage.output), (prompt, share.limit.into()));
            let cost = cost(price, share.usage);
            assert!(left.tokens.is_none_or(|left| cost.tokens <= left), "{cost:?}");
            assert!(left.money_micros.is_none_or(|left| cost.money_micros <= left), "{cost:?}");
        }
        let much = left(Some(1_000_000), None);
        for (limit, most, expected) in [(None, 9, 9), (None, 90_000, 90_000), (Some(50), 9, 50)] {
            let share = share(100, limit, most, FREE, &much).unwrap().unwrap();
            assert_eq!(share.limit, expected, "{limit:?} {most}");
        }
    }

    #[test]
    fn what_does_not_fit_is_denied_with_the_least_that_it_takes() {
        let table = [
            (100, Some(51), FREE, left(Some(150), None), Resource::Tokens, 151, 150),
            (100, None, FREE, left(Some(115), None), Resource::Tokens, 116, 115),
            (100, Some(51), PAID, left(Some(151), Some(201)), Resource::Money, 202, 201),
            (100, None, PAID, left(None, Some(131)), Resource::Money, 132, 131),
            (100, Some(0), PAID, left(None, Some(99)), Resource::Money, 100, 99),
            (u64::MAX, Some(1), PAID, left(None, Some(7)), Resource::Money, u64::MAX, 7),
            (u64::MAX, None, FREE, left(Some(7), None), Resource::Tokens, u64::MAX, 7),
        ];
        for (prompt, limit, price, left, what, asked, rest) in table {
            let denied = share(prompt, limit, BUDGETED_ANSWER, price, &left).unwrap_err();
            assert_eq!(denied, Denied { what, asked, left: rest }, "{prompt} {limit:?}");
        }
    }
}
