//! The playbook's three case profiles: what `mainstay check` prints of them and what `profile = "..."`
//! sets.
//!
//! *Invariant.* The numbers are the playbook's, with its row ids; nothing here is measured, and what the
//! runtime knows itself is asked of it and not written here.

use mainstay::checkpoint::{Interval, Scope};
use mainstay::fault::Class;
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

/// What of a tree answers to a row of the ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Here {
    /// How often a class is retried.
    Retries(Class),
    /// The groups of tools.
    Tools,
    /// How far a rollback reaches.
    Scope,
    /// The groups that end with a text.
    Text,
}

/// The rows of the scopes of a rollback, the narrowest first.
pub(crate) const SCOPES: [&str; 5] = ["S40", "S41", "S42", "S43", "S44"];

/// Whom a failure is to meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    Models,
    Tools,
    Agents,
    Everything,
}

/// A failure that a tree is to be tried with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Injected {
    pub(crate) id: &'static str,
    pub(crate) what: &'static str,
    pub(crate) rate: &'static str,
    /// The most of it, as a share: what a trial does.
    pub(crate) most: f64,
    pub(crate) class: Class,
    pub(crate) on: On,
}

const fn injected(
    id: &'static str,
    what: &'static str,
    rate: &'static str,
    most: f64,
    class: Class,
    on: On,
) -> Injected {
    Injected { id, what, rate, most, class, on }
}

/// What every tree is tried with, at each of [`RATES`].
pub(crate) const CHAOS: [Injected; 1] = [injected(
    "S5",
    "the network fails",
    "5 %, 10 % and 15 %",
    0.15,
    Class::Network,
    On::Everything,
)];

/// The rates of S5, in percent.
pub(crate) const RATES: [u32; 3] = [5, 10, 15];

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
            Self::Finance => ("S70", "; a transaction that fails returns to its beginning"),
            Self::Codegen => ("S76", " that an agent's model has written"),
        }
    }

    pub(crate) const fn ladder(self) -> &'static [(Row, Here)] {
        match self {
            Self::CustomerService => &[
                (
                    ("S62", "retry", "a tool's timeout, 2 times, exponentially"),
                    Here::Retries(Class::Timeout),
                ),
                (("S63", "fallback", "refund, then a human agent"), Here::Tools),
            ],
            Self::Finance => &[
                (
                    ("S68", "retry", "the network, 3 times, exponentially"),
                    Here::Retries(Class::Network),
                ),
                (("S69", "fallback", "undo the transaction, notify the user once"), Here::Scope),
            ],
            Self::Codegen => &[
                (
                    ("S74", "retry", "a syntax error, 2 times, generated again with feedback"),
                    Here::Retries(Class::OutputInvalid),
                ),
                (("S75", "fallback", "a template"), Here::Text),
            ],
        }
    }

    /// The runtime's own word for it: its objectives come with it.
    pub(crate) const fn watched(self) -> mainstay::watch::Profile {
        match self {
            Self::CustomerService => mainstay::watch::Profile::CustomerService,
            Self::Finance => mainstay::watch::Profile::Finance,
            Self::Codegen => mainstay::watch::Profile::Codegen,
        }
    }

    pub(crate) const fn chaos(self) -> &'static [Injected] {
        const DESK: &[Injected] = &[
            injected("S61", "a tool times out", "5 to 10 %", 0.1, Class::Timeout, On::Tools),
            injected("S61", "a tool fails", "2 to 3 %", 0.03, Class::ToolExecution, On::Tools),
            injected(
                "S61",
                "a complaint is too hard",
                "1 to 2 %",
                0.02,
                Class::Business,
                On::Agents,
            ),
        ];
        const MONEY: &[Injected] = &[
            injected("S67", "the network fails", "1 to 2 %", 0.02, Class::Network, On::Everything),
            injected(
                "S67",
                "a transaction fails",
                "0.5 to 1 %",
                0.01,
                Class::ToolExecution,
                On::Tools,
            ),
            injected("S67", "funds are insufficient", "< 0.1 %", 0.001, Class::Business, On::Tools),
        ];
        const CODE: &[Injected] = &[
            injected("S73", "a syntax error", "10 to 15 %", 0.15, Class::OutputInvalid, On::Models),
            injected("S73", "a tool fails", "3 to 5 %", 0.05, Class::ToolExecution, On::Tools),
            injected("S73", "the logic is wrong", "5 to 10 %", 0.1, Class::Business, On::Agents),
        ];
        match self {
            Self::CustomerService => DESK,
            Self::Finance => MONEY,
            Self::Codegen => CODE,
        }
    }
}
