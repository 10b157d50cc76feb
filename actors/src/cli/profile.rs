//! The playbook's three case profiles, and the numbers that hold in all of them: what
//! `mainstay check` prints and what `profile = "..."` sets.
//!
//! *Invariant.* The numbers are the playbook's, with its row ids; nothing here is measured, and what the
//! runtime knows itself is asked of it and not written here.

use mainstay::checkpoint::{Interval, Scope};
use mainstay::policy::Policy;
use mainstay_actors::agent::LINES;
use serde::Deserialize;

/// Which case of the playbook a tree is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Profile {
    CustomerService,
    Finance,
    Codegen,
}

/// A row of the playbook: its id, what it is about, its number.
pub(crate) type Row = (&'static str, &'static str, &'static str);

/// The rows of the scopes of a rollback, the narrowest first.
pub(crate) const SCOPES: [&str; 5] = ["S40", "S41", "S42", "S43", "S44"];

/// The objectives of every tree.
pub(crate) const OBJECTIVES: [Row; 14] = [
    ("S94", "error rate", "< 10 %"),
    ("S25", "retry success", "> 95 %"),
    ("S26", "retry latency, P95", "< 5 s"),
    ("S27", "retries a request, mean", "< 2"),
    ("S37", "fallback success", "> 90 %"),
    ("S38", "fallback latency, P95", "< 3 s"),
    ("S39", "availability as users see it", "> 95 %"),
    ("S28", "degraded answers of a model group", "< 5 %"),
    ("S29", "success of an alternative tool", "> 90 %"),
    ("S30", "completion of a simplified flow", "> 80 %"),
    ("S97", "rollback success", "> 99 %"),
    ("S51", "rollback time, P95", "< 30 s"),
    ("S52", "state integrity", "> 99.9 %"),
    ("S98", "recovery in all", "> 98 %"),
];

/// When somebody is told: row, condition, severity. Over 5 minutes, from 20 samples on.
pub(crate) const ALERTS: [Row; 5] = [
    ("S88", "error rate > 10 %", "warning"),
    ("S89", "retry success < 80 %", "warning"),
    ("R18", "fallback success < 80 %", "warning"),
    ("S90", "rollback success < 95 %", "critical"),
    ("S59", "a request with no rung left", "one alert each"),
];

/// The failure rates that every tree is tried with.
pub(crate) const CHAOS: [Row; 1] = [("S5", "any failure", "5 %, 10 % and 15 %")];

impl Profile {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::CustomerService => "customer_service",
            Self::Finance => "finance",
            Self::Codegen => "codegen",
        }
    }

    pub(crate) const fn policy(self) -> Policy {
        match self {
            // Timeouts twice and network errors thrice, exponentially: the playbook's defaults.
            Self::CustomerService | Self::Finance => Policy::new(),
            Self::Codegen => Policy::code_generation(),
        }
    }

    /// When agents are checkpointed.
    pub(crate) fn interval(self) -> Interval {
        match self {
            Self::CustomerService => Interval::Steps(5),
            Self::Finance => Interval::Steps(1),
            Self::Codegen => Interval::Units { name: LINES.into(), n: 10 },
        }
    }

    /// How far a rollback reaches, if not as far as it does without a profile.
    pub(crate) const fn scope(self) -> Option<Scope> {
        match self {
            Self::Finance => Some(Scope::Transaction),
            Self::CustomerService | Self::Codegen => None,
        }
    }

    /// The row that [`Profile::interval`] follows, and what else it says.
    pub(crate) const fn checkpoint(self) -> (&'static str, &'static str) {
        match self {
            Self::CustomerService => ("S64", ""),
            Self::Finance => ("S70", "; a transaction that fails is undone"),
            Self::Codegen => ("S76", " that an agent's model has written"),
        }
    }

    pub(crate) const fn ladder(self) -> &'static [Row] {
        match self {
            Self::CustomerService => &[
                ("S62", "retry", "a tool's timeout, 2 times, exponentially"),
                ("S63", "fallback", "refund, then a human agent"),
            ],
            Self::Finance => &[
                ("S68", "retry", "the network, 3 times, exponentially"),
                ("S69", "fallback", "undo the transaction, notify the user once"),
            ],
            Self::Codegen => &[
                ("S74", "retry", "a syntax error, 2 times, generated again with feedback"),
                ("S75", "fallback", "a template"),
            ],
        }
    }

    pub(crate) const fn objectives(self) -> &'static [Row] {
        match self {
            Self::CustomerService => &[
                ("S65", "satisfaction (reported from outside)", "> 95 %"),
                ("S65", "a person has to step in", "< 10 %"),
                ("S65", "response, mean", "< 30 s"),
            ],
            Self::Finance => &[
                ("S71", "transaction success", "> 99.9 %"),
                ("S71", "rollback success", "> 99 %"),
                ("S71", "funds lost", "< 0.01 %; none in tests"),
            ],
            Self::Codegen => &[
                ("S77", "usable code", "> 90 %"),
                ("S77", "a person has to repair", "< 5 %"),
                ("S77", "generation, P95", "< 10 s"),
            ],
        }
    }

    pub(crate) const fn chaos(self) -> &'static [Row] {
        match self {
            Self::CustomerService => &[
                ("S61", "a tool times out", "5 to 10 %"),
                ("S61", "a tool fails", "2 to 3 %"),
                ("S61", "a complex complaint fails", "1 to 2 %"),
            ],
            Self::Finance => &[
                ("S67", "the network fails", "1 to 2 %"),
                ("S67", "a transaction fails", "0.5 to 1 %"),
                ("S67", "insufficient funds", "< 0.1 %"),
            ],
            Self::Codegen => &[
                ("S73", "a syntax error", "10 to 15 %"),
                ("S73", "a development tool fails", "3 to 5 %"),
                ("S73", "the logic is wrong", "5 to 10 %"),
            ],
        }
    }
}
