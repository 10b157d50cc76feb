//! A quota domain: what shares one provider's limits.
//!
//! *Invariant.* Closed until the latest moment anybody asked for. After it opens, those who waited are
//! let in one by one, since all of them at once would close it again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::SpecError;
use crate::fault::Class;
use crate::moment::Moment;
use crate::policy::budget::{Amplification, RetryBudget};

/// How a quota domain closes and opens.
///
/// # Default
///
/// Closed for at least 2 s and at most 5 min; 10 requests a second after it opens, doubling each
/// second, for 5 s; a retry budget of 500 tokens, of which a success gives 1 back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct DomainSpec {
    /// The shortest it closes, whatever the other side says.
    pub min_close: Duration,
    /// The longest one answer can close it: a header is not trusted with more.
    pub max_close: Duration,
    /// Requests let in during the first second after it opens; twice as many in each next second.
    pub ramp_rate: u32,
    /// So long after it opened nobody is spaced any more, unless others still wait before them.
    pub ramp: Duration,
    /// The tokens of its retry budget; 0 allows no retry at all. A retry costs 14, after throttling 5.
    pub retry_capacity: u32,
    /// The tokens that a success at the first attempt gives back. One that a retry has brought about gives what that
    /// retry had cost, if that is more.
    pub retry_refund: u32,
}

impl Default for DomainSpec {
    fn default() -> Self {
        Self::new()
    }
}

impl DomainSpec {
    /// The default.
    pub const fn new() -> Self {
        Self {
            min_close: Duration::from_secs(2),
            max_close: Duration::from_secs(300),
            ramp_rate: 10,
            ramp: Duration::from_secs(5),
            retry_capacity: RetryBudget::CAPACITY,
            retry_refund: RetryBudget::REFUND,
        }
    }

    /// The same spec, closing at least and at most so long for one answer.
    #[must_use]
    pub const fn with_close(mut self, min: Duration, max: Duration) -> Self {
        self.min_close = min;
        self.max_close = max;
        self
    }

    /// The same spec, letting in `rate` requests in the first second, for so long.
    #[must_use]
    pub const fn with_ramp(mut self, rate: u32, ramp: Duration) -> Self {
        self.ramp_rate = rate;
        self.ramp = ramp;
        self
    }

    /// The same spec, with a retry budget of so many tokens, of which each success at the first
    /// attempt gives `refund` back.
    #[must_use]
    pub const fn with_retries(mut self, capacity: u32, refund: u32) -> Self {
        self.retry_capacity = capacity;
        self.retry_refund = refund;
        self
    }

    /// Whether a domain can run by this. `path` names it in the error.
    ///
    /// # Errors
    ///
    /// The first value that cannot be.
    pub fn validate(&self, path: &str) -> Result<(), SpecError> {
        if self.ramp_rate == 0 {
            return Err(SpecError::Zero { path: path.to_owned(), what: "the domain's ramp rate" });
        }
        if self.retry_refund == 0 {
            return Err(SpecError::Zero { path: path.to_owned(), what: "the domain's refund" });
        }
        if self.min_close > self.max_close {
            return Err(SpecError::OutOfRange {
                path: path.to_owned(),
                what: "the domain's shortest closing",
                value: format!("{:?}", self.min_close),
                expected: format!("at most {:?}, its longest", self.max_close),
            });
        }
        Ok(())
    }
}

/// When a request may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Permit {
    /// Now.
    Now,
    /// Not before [`Slot::at`]. It is kept for the asker, who comes back with [`Domain::redeem`].
    At(Slot),
}

/// A place on the ramp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// When it is its holder's turn.
    pub at: Moment,
    /// Which closing it belongs to: the next one makes it void.
    closing: u32,
}

/// What shares one provider's limits: an account, a key, a model family.
#[derive(Clone, Debug, Default)]
pub struct Domain {
    spec: DomainSpec,
    /// Closed until then; the start of the ramp.
    open_at: Moment,
    /// The first moment on the ramp that nobody has.
    next: Moment,
    /// Counts the closings.
    closing: u32,
    /// What retries in this domain may spend.
    pub retries: RetryBudget,
    /// Attempts a request in this domain.
    pub amplification: Amplification,
}

impl Domain {
    /// An open domain with a full retry budget.
    pub fn new(spec: DomainSpec) -> Self {
        let retries = RetryBudget::new(spec.retry_capacity).with_refund(spec.retry_refund);
        Self { spec, retries, ..Self::default() }
    }

    /// What it runs by.
    pub const fn spec(&self) -> &DomainSpec {
        &self.spec
    }

    /// Until when it is closed; a moment that has passed when it is open.
    pub const fn open_at(&self) -> Moment {
        self.open_at
    }

    /// Whether it is open.
    pub fn is_open(&self, now: Moment) -> bool {
        self.open_at <= now
    }

    /// What a failure of this class says about the domain: a rate limit closes it for the wait that was
    /// asked for, at least for the shortest; any other closes it only for a wait that was asked for.
    /// Whether it said anything.
    pub fn told(&mut self, class: Class, retry_after: Option<Duration>, now: Moment) -> bool {
        match (class, retry_after) {
            (Class::RateLimit, _) => self.rate_limited(retry_after, now),
            (_, Some(wait)) if !wait.is_zero() => self.close(wait.min(self.spec.max_close), now),
            _ => return false,
        }
        true
    }

    /// Somebody was asked to slow down, perhaps for a stated time. Closes the domain for that time, at
    /// least for the shortest, and never opens it earlier than it would have.
    pub fn rate_limited(&mut self, retry_after: Option<Duration>, now: Moment) {
        let DomainSpec { min_close, max_close, .. } = self.spec;
        self.close(retry_after.unwrap_or_default().min(max_close).max(min_close), now);
    }

    fn close(&mut self, wait: Duration, now: Moment) {
        let until = now + wait;
        if until > self.open_at {
            // Places on the old ramp are void, not only those before the new opening: its later ones
            // are dense, and would be a burst at the foot of the new ramp.
            self.open_at = until;
            self.next = until;
            self.closing = self.closing.wrapping_add(1);
        }
    }

    /// When a request may be sent. While the domain is closed or its ramp is not over, each asker gets
    /// a place of its own: 10 of them in the first second after it opens, 20 in the second, and so on,
    /// so that any number of waiters is through soon, but never all at once.
    pub fn permit(&mut self, now: Moment) -> Permit {
        let at = now.max(self.next);
        let ramp_over = self.closing == 0 || now >= self.open_at + self.spec.ramp;
        if at == now && ramp_over {
            return Permit::Now;
        }
        self.next = at + self.spacing(at);
        if at == now { Permit::Now } else { Permit::At(Slot { at, closing: self.closing }) }
    }

    /// Comes back with the place that [`Domain::permit`] gave. It holds unless the domain was closed
    /// again for longer; then there is a new one.
    pub fn redeem(&mut self, slot: Slot, now: Moment) -> Permit {
        if slot.closing != self.closing {
            self.permit(now)
        } else if slot.at > now {
            Permit::At(slot)
        } else {
            Permit::Now
        }
    }

    /// The time between two requests let in at `slot`.
    fn spacing(&self, slot: Moment) -> Duration {
        // Twenty doublings are ten million requests a second: enough to say "no spacing".
        let doublings = slot.since(self.open_at).as_secs().min(20) as u32;
        let rate = u64::from(self.spec.ramp_rate.max(1)) << doublings;
        Duration::from_nanos(1_000_000_000 / rate)
    }
}
