//! How an answer was given, and what a request has cost, as is kept of durable requests.
//!
//! *Invariant.* Plain data, written by the names of its fields; one that came later has a default.

use serde::{Deserialize, Serialize};

use super::Cost;
use crate::id::ChildPath;

/// How an answer that is kept was given: see [`System::given`](crate::system::System::given).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Given {
    /// Who gave it, where that was not the one who was asked: a member of a group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served_by: Option<ChildPath>,
    /// Whether a substitute gave it, or something it rests on was degraded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub degraded: bool,
    /// Whether it is a default value rather than work.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub defaulted: bool,
    /// Attempts made in the process that answered, the one that succeeded included.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub attempts: u32,
    /// What it has cost, in all processes, as far as the children that worked on it said so. What an attempt
    /// had cost that the end of a process cut short is not known.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub cost: Cost,
}

impl Given {
    /// What no answer was given for, at this cost.
    pub(crate) fn nothing(cost: Cost) -> Option<Box<Self>> {
        (!is_nothing(&cost)).then(|| Box::new(Self { cost, ..Self::default() }))
    }
}

const fn one() -> u32 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_one(attempts: &u32) -> bool {
    *attempts == 1
}

fn is_nothing(cost: &Cost) -> bool {
    *cost == Cost::default()
}

impl Default for Given {
    /// By the one who was asked, at the first attempt, at no cost.
    fn default() -> Self {
        let cost = Cost::default();
        Self { served_by: None, degraded: false, defaulted: false, attempts: 1, cost }
    }
}
