//! Which transfers there are, and what fails: all of it follows from the seed.
//!
//! *Invariant.* Nothing here depends on time, on order or on how often the process was started, so that
//! a run that was cut short plans the same as the one that goes on with it.

use serde::{Deserialize, Serialize};

/// How many accounts there are.
pub(crate) const ACCOUNTS: u32 = 16;
/// What each holds at first, in cents.
pub(crate) const OPENING: i64 = 1_000_000;
/// The largest transfer that is meant to succeed.
const LARGEST: u64 = 5_000;
/// Of the transactions that are aborted, one in so many always is: the playbook says how often one is, and
/// not how often no retry helps. With its rates 0.04 % of the transfers are then undone, whatever is done
/// for them, and the 99.9 % of S71 can be reached by whoever masters all the rest.
const STUBBORN: u64 = 20;
/// Tries that may fail at a tool whose failure would leave a transfer in between: its outages end
/// before its retries do. A try is an attempt of any message about the transfer: an outage does not know
/// which request it is that fails, so one that is sent anew finds it later than the last did, also when
/// the budget for retries has run dry and each message has but one attempt.
const SHORT_OUTAGE: u32 = 2;

/// A transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Transfer {
    pub(crate) id: u32,
    pub(crate) from: u32,
    pub(crate) to: u32,
    /// In cents.
    pub(crate) amount: i64,
}

/// A tool, as faults see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    Debit,
    Credit,
    Notify,
    Undo,
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strike {
    /// The connection is refused: nothing happens.
    Refused,
    /// It happens, and the answer is lost.
    AnswerLost,
    /// The database aborts the transaction.
    Aborted,
}

/// What happens in a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) transfers: u32,
    pub(crate) seed: u64,
    network: f64,
    aborted: f64,
    beyond: f64,
}

impl Plan {
    /// The playbook's rates, or this one.
    pub(crate) fn new(transfers: u32, seed: u64, rate: Option<f64>) -> Self {
        let (network, aborted, beyond) = match rate {
            None => (0.015, 0.0075, 0.0005),
            Some(rate) => (rate, rate, rate / 10.0),
        };
        Self { transfers, seed, network, aborted, beyond }
    }

    /// The transfer with this number.
    pub(crate) fn transfer(&self, id: u32) -> Transfer {
        let from = (self.dice(id, 1) % u64::from(ACCOUNTS)) as u32;
        let step = 1 + (self.dice(id, 2) % u64::from(ACCOUNTS - 1)) as u32;
        let amount = if self.is_beyond_funds(id) {
            i64::from(ACCOUNTS) * OPENING * 10
        } else {
            1 + (self.dice(id, 3) % LARGEST) as i64
        };
        Transfer { id, from, to: (from + step) % ACCOUNTS, amount }
    }

    /// Whether the transfer asks for more than there is.
    pub(crate) fn is_beyond_funds(&self, id: u32) -> bool {
        share(self.dice(id, 4)) < self.beyond
    }

    /// What happens to this attempt of a message: number 0 is the transfer's own, later ones count on.
    pub(crate) fn strike_message(
        &self,
        transfer: u32,
        message: u32,
        attempt: u32,
    ) -> Option<Strike> {
        self.strike(Tool::Notify, transfer, attempt.saturating_add(message))
    }

    /// What happens at this try.
    pub(crate) fn strike(&self, tool: Tool, transfer: u32, attempt: u32) -> Option<Strike> {
        let essential = matches!(tool, Tool::Notify | Tool::Undo);
        if essential && attempt > SHORT_OUTAGE {
            return None;
        }
        let dice = self.dice(transfer, 16 * (tool as u64 + 1) + u64::from(attempt) * 1024);
        if share(dice) < self.network {
            let refused = dice.is_multiple_of(2);
            return Some(if refused { Strike::Refused } else { Strike::AnswerLost });
        }
        // Aborted transactions belong to a transfer: most once, some whatever is tried.
        let dice = self.dice(transfer, 5);
        let stubborn = dice.is_multiple_of(STUBBORN);
        let struck = tool == Tool::Credit && share(dice) < self.aborted;
        (struck && (stubborn || attempt == 1)).then_some(Strike::Aborted)
    }

    /// Evenly spread and always the same.
    fn dice(&self, id: u32, salt: u64) -> u64 {
        let mut state = self.seed ^ mix(u64::from(id) << 32 | salt);
        state = mix(state);
        mix(state)
    }
}

fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn share(dice: u64) -> f64 {
    (dice >> 11) as f64 / (1_u64 << 53) as f64
}
