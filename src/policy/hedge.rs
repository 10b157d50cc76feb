//! Whether a request that is slow is also given to a sibling, and after which time.
//!
//! A hedge is no rung of the ladder: nothing has failed. The same request goes to a second member under
//! a lease of its own; the first good answer is the answer, and the other copy is called off.
//!
//! *Invariant.* Pure, like the rest of the judgement. A hedge is a luxury: whatever speaks against it
//! means that there is none, and never that the request fares worse for it.
//!
//! | Spoken against by | |
//! |---|---|
//! | the attempt under way | has called what may not be called twice |
//! | the deadline | leaves less than [`HedgeFacts::min_attempt`] |
//! | the purse of the request | covers no other attempt |
//! | the members | none that does the same work is untried, allowed, ready, with a closed circuit and an open quota domain |
//! | the group | retries, hedges and probes under way are at [`most_extra`] |
//! | the retry budget of the sibling's quota domain | does not afford [`COST`](crate::policy::budget::RetryBudget::COST) |

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::moment::Moment;
use crate::policy::backoff;
use crate::policy::eligibility::{Candidate, GroupKind, Standing};

/// When a request that has no answer yet is also given to a sibling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Hedge {
    /// When it has had none for so long.
    After(Duration),
    /// When it has had none for longer than 95 of 100 requests of the last minute took; not before
    /// [`Latencies::ENOUGH`] of them were answered.
    P95,
}

impl Hedge {
    /// [`Hedge::After`].
    pub const fn after(delay: Duration) -> Self {
        Self::After(delay)
    }

    /// [`Hedge::P95`].
    pub const fn p95() -> Self {
        Self::P95
    }
}

impl fmt::Display for Hedge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::After(delay) => write!(f, "hedged after {delay:?}"),
            Self::P95 => f.write_str("hedged after p95"),
        }
    }
}

/// Why a slow request is not given to a sibling, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NoHedge {
    /// The attempt under way has called what may not be called twice.
    NotReplaySafe,
    /// There is no time left for another attempt.
    Deadline,
    /// The budget of the request covers no other attempt.
    RequestBudget,
    /// No sibling that may have it takes work now.
    NoSibling,
    /// As many retries, hedges and probes are under way as may be.
    Crowded {
        /// How many.
        limit: usize,
    },
    /// The retry budget of the sibling's quota domain is empty.
    RetryBudget,
}

impl fmt::Display for NoHedge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReplaySafe => f.write_str("not replay-safe"),
            Self::Deadline => f.write_str("no time left"),
            Self::RequestBudget => f.write_str("request budget used up"),
            Self::NoSibling => f.write_str("no sibling is ready"),
            Self::Crowded { limit } => {
                write!(f, "{limit} retries, hedges and probes are under way already")
            }
            Self::RetryBudget => f.write_str("retry budget empty"),
        }
    }
}

/// What is known about a request that is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HedgeFacts {
    /// Whether what the attempt under way has done may be done twice.
    pub replay_safe: bool,
    /// When its caller stops waiting.
    pub deadline: Moment,
    /// The least time an attempt needs.
    pub min_attempt: Duration,
    /// Whether the purse of the request covers another attempt.
    pub request_budget: bool,
    /// Requests of the group that are retried, substituted or hedged already, and probes.
    pub extra: usize,
    /// Requests of the group under way.
    pub in_flight: usize,
}

/// So many retries, hedges and probes a group may have under way: a fifth of what is under way, at
/// least 3.
pub const fn most_extra(in_flight: usize) -> usize {
    let fifth = in_flight / 5;
    if fifth > 3 { fifth } else { 3 }
}

/// The member that also gets the request, if any. `affords` tells whether the retry budget of a
/// member's quota domain affords it; whoever carries the decision out withdraws.
///
/// # Errors
/// What speaks against it.
pub fn hedge(
    facts: &HedgeFacts,
    kind: GroupKind,
    members: &[Candidate],
    affords: impl Fn(usize) -> bool,
    now: Moment,
) -> Result<usize, NoHedge> {
    if !facts.replay_safe {
        return Err(NoHedge::NotReplaySafe);
    }
    if facts.deadline.left(now) < facts.min_attempt.max(Duration::from_millis(1)) {
        return Err(NoHedge::Deadline);
    }
    if !facts.request_budget {
        return Err(NoHedge::RequestBudget);
    }
    let ready = members
        .iter()
        .filter(|member| !member.tried && member.fit && may_hedge(kind, member))
        .filter(|member| member.standing == Standing::Ready);
    let first = ready.min_by_key(|member| (member.priority, member.index));
    let first = first.ok_or(NoHedge::NoSibling)?;
    let limit = most_extra(facts.in_flight);
    if facts.extra >= limit {
        return Err(NoHedge::Crowded { limit });
    }
    if !affords(first.index) {
        return Err(NoHedge::RetryBudget);
    }
    Ok(first.index)
}

/// Whether a member does the same work as the primary. One that answers at once with less would always
/// win.
const fn may_hedge(kind: GroupKind, member: &Candidate) -> bool {
    let is_other = member.default_value || member.human || member.simpler;
    // Nobody acts beside a person who has not passed it on.
    !(is_other || member.behind_a_person || matches!(kind, GroupKind::Step))
}

/// How long the requests of a group took: counts in buckets an eighth of a power of two wide, over this
/// half minute and the last one. Of a fixed size, whatever comes.
#[derive(Clone, Debug)]
pub struct Latencies {
    now: Box<[u32; BUCKETS]>,
    before: Box<[u32; BUCKETS]>,
    turn: Moment,
}

/// Eight a power of two, for microseconds up to more than an hour.
const BUCKETS: usize = 8 * 33;

impl Default for Latencies {
    fn default() -> Self {
        let empty = || Box::new([0; BUCKETS]);
        Self { now: empty(), before: empty(), turn: Moment::START + Self::TURN }
    }
}

impl Latencies {
    /// So many requests must have been answered before a percentile means anything.
    pub const ENOUGH: u64 = 20;
    /// How long one half is counted.
    pub const TURN: Duration = Duration::from_secs(30);

    /// Counts one request.
    pub fn record(&mut self, took: Duration, now: Moment) {
        self.rotate(now);
        let count = &mut self.now[bucket(took)];
        *count = count.saturating_add(1);
    }

    /// The time within which 95 of 100 requests were answered, rounded up to the edge of its bucket and
    /// to whole milliseconds; `None` while too few were.
    pub fn p95(&mut self, now: Moment) -> Option<Duration> {
        self.rotate(now);
        let of = |index: usize| u64::from(self.now[index]) + u64::from(self.before[index]);
        let total: u64 = (0..BUCKETS).map(of).sum();
        if total < Self::ENOUGH {
            return None;
        }
        let wanted = total - total * 5 / 100;
        let mut seen = 0;
        let at = (0..BUCKETS).find(|index| {
            seen += of(*index);
            seen >= wanted
        })?;
        Some(backoff::whole_millis(edge(at)))
    }

    fn rotate(&mut self, now: Moment) {
        if now < self.turn {
            return;
        }
        std::mem::swap(&mut self.now, &mut self.before);
        self.now.fill(0);
        if now >= self.turn + Self::TURN {
            // Nothing came for a whole turn: what is in the other half is old, too.
            self.before.fill(0);
        }
        self.turn = now + Self::TURN;
    }
}

fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(8);
    let power = micros.ilog2();
    let eighth = (micros >> (power - 3)) & 7;
    ((power as usize - 3) * 8 + eighth as usize).min(BUCKETS - 1)
}

/// The upper edge of a bucket.
fn edge(bucket: usize) -> Duration {
    let (power, eighth) = (bucket / 8, bucket as u64 % 8);
    Duration::from_micros((9 + eighth) << power)
}
