//! What retries and requests may spend: the retry budget of a quota domain, its amplification, and
//! the purse of a request.
//!
//! *Invariant.* Nothing is dispatched on credit by whoever knows what it may cost: that was withdrawn or
//! reserved before. Others are let through until what was settled has reached the limit. A refusal is a
//! value that names what ran out.
//!
//! # Why a budget and not just a cap?
//!
//! A cap bounds one request. When everything fails at once, a cap of three still quadruples the load
//! on a provider that is already down. The budget bounds the retries of *all* requests to one quota
//! domain: it is emptied by a storm in seconds, and a single failure never notices it. The numbers are
//! those of the AWS SDKs' standard retry mode: capacity 500, 14 for a retry after a server error or a
//! timeout, 5 after throttling; a success gives 1 back, and one that a retry has brought about what that retry
//! had cost. So retries that help cost nothing in the long run, and a provider that fails one time in six can be
//! asked through a whole day; those that do not help empty the budget.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::fate::Cost;
use crate::fault::{Class, Fault};
use crate::moment::Moment;
use crate::policy::strategy::Cause;

/// Tokens for retries, shared by everything in one quota domain. Starts full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryBudget {
    capacity: u32,
    tokens: u32,
    #[serde(default = "RetryBudget::refund")]
    refund: u32,
}

impl Default for RetryBudget {
    /// Full, with the capacity of [`RetryBudget::CAPACITY`].
    fn default() -> Self {
        Self::new(Self::CAPACITY)
    }
}

impl RetryBudget {
    /// The default capacity.
    pub const CAPACITY: u32 = 500;
    /// What a retry costs after a server error or a timeout.
    pub const COST: u32 = 14;
    /// What a retry costs when the other side asked for fewer requests.
    pub const COST_THROTTLED: u32 = 5;
    /// What a success at the first attempt gives back by default.
    pub const REFUND: u32 = 1;

    /// A full budget of this capacity. One of capacity 0 allows no retry at all.
    pub const fn new(capacity: u32) -> Self {
        Self { capacity, tokens: capacity, refund: Self::REFUND }
    }

    /// The same budget, to which a success gives so many tokens back.
    #[must_use]
    pub const fn with_refund(mut self, refund: u32) -> Self {
        self.refund = refund;
        self
    }

    const fn refund() -> u32 {
        Self::REFUND
    }

    /// What a retry after this cause costs. A redelivery after a crash is free: it is one for each
    /// request, asks nothing of a provider that failed, and a burst of them must lose nothing.
    pub const fn cost(cause: &Cause<'_>) -> u32 {
        match cause.class() {
            Some(Class::RateLimit | Class::Overloaded) => Self::COST_THROTTLED,
            None if cause.is_crash() => 0,
            _ => Self::COST,
        }
    }

    /// Whether `withdraw(cost)` would succeed.
    pub const fn affords(&self, cost: u32) -> bool {
        self.tokens >= cost
    }

    /// Takes the cost of a retry, all of it or nothing.
    pub const fn withdraw(&mut self, cost: u32) -> bool {
        let affordable = self.affords(cost);
        if affordable {
            self.tokens -= cost;
        }
        affordable
    }

    /// Gives back for a success at the first attempt, up to the capacity.
    pub const fn deposit(&mut self) {
        self.repay(0);
    }

    /// Gives back for a success that a retry has brought about which had cost so much: that, and no less than a
    /// success at the first attempt does; up to the capacity.
    pub const fn repay(&mut self, cost: u32) {
        let back = if cost > self.refund { cost } else { self.refund };
        let tokens = self.tokens.saturating_add(back);
        self.tokens = if tokens > self.capacity { self.capacity } else { tokens };
    }

    /// The tokens left.
    pub const fn tokens(&self) -> u32 {
        self.tokens
    }

    /// The capacity.
    pub const fn capacity(&self) -> u32 {
        self.capacity
    }
}

/// How many physical attempts the logical requests of a quota domain have caused.
///
/// # Default
///
/// Nothing counted; the cap is 150 %.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amplification {
    logical: u64,
    physical: u64,
    cap_percent: u32,
}

impl Default for Amplification {
    fn default() -> Self {
        Self::with_cap(Self::CAP_PERCENT)
    }
}

impl Amplification {
    /// The default cap: three attempts for every two requests.
    pub const CAP_PERCENT: u32 = 150;

    /// Nothing counted, with this cap in percent.
    pub const fn with_cap(cap_percent: u32) -> Self {
        Self { logical: 0, physical: 0, cap_percent }
    }

    /// Counts a request.
    pub const fn request(&mut self) {
        self.logical = self.logical.saturating_add(1);
    }

    /// Counts an attempt.
    pub const fn attempt(&mut self) {
        self.physical = self.physical.saturating_add(1);
    }

    /// Requests so far.
    pub const fn logical(&self) -> u64 {
        self.logical
    }

    /// Attempts so far.
    pub const fn physical(&self) -> u64 {
        self.physical
    }

    /// Attempts a request; `None` before the first request.
    pub fn ratio(&self) -> Option<f64> {
        (self.logical > 0).then(|| self.physical as f64 / self.logical as f64)
    }

    /// Whether there are more attempts than the cap allows. At exactly the cap there are not.
    pub const fn is_above_cap(&self) -> bool {
        // In whole numbers, so that "exactly the cap" means what it says.
        self.logical > 0
            && self.physical as u128 * 100 > self.logical as u128 * self.cap_percent as u128
    }
}

/// What a purse may hold. `None` is no limit.
///
/// # Default
///
/// No limit on anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Attempts, whoever makes them.
    pub attempts: Option<u64>,
    /// Tokens, input and output together.
    pub tokens: Option<u64>,
    /// Money in millionths.
    pub money_micros: Option<u64>,
    /// When the time is over.
    pub deadline: Moment,
}

impl Default for Limits {
    fn default() -> Self {
        Self { attempts: None, tokens: None, money_micros: None, deadline: Moment::NEVER }
    }
}

/// Attempts and what they cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// Attempts.
    pub attempts: u64,
    /// Tokens and money.
    pub cost: Cost,
}

impl Spent {
    const fn add(&mut self, other: Self) {
        self.attempts = self.attempts.saturating_add(other.attempts);
        self.cost.add(other.cost);
    }

    const fn sub(&mut self, other: Self) {
        self.attempts = self.attempts.saturating_sub(other.attempts);
        self.cost.tokens = self.cost.tokens.saturating_sub(other.cost.tokens);
        self.cost.money_micros = self.cost.money_micros.saturating_sub(other.cost.money_micros);
    }
}

/// What a purse can run out of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Resource {
    /// Attempts.
    Attempts,
    /// Tokens.
    Tokens,
    /// Money.
    Money,
    /// Time.
    Time,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Attempts => "attempts",
            Self::Tokens => "tokens",
            Self::Money => "money",
            Self::Time => "time",
        })
    }
}

/// A purse does not cover what was asked for. Terminal: the request is not retried with less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("budget denied: {asked} {what} asked for, {left} left")]
pub struct Denied {
    /// What ran out.
    pub what: Resource,
    /// How much was asked for.
    pub asked: u64,
    /// How much was left.
    pub left: u64,
}

impl From<Denied> for Fault {
    fn from(denied: Denied) -> Self {
        Self::budget_denied(denied.to_string()).not_applied()
    }
}

/// The budget of a request and of the work done for it. Clones share one purse; what a child purse
/// spends is also charged to its parent, so that the tightest of them all decides.
#[derive(Clone)]
pub struct Purse(Arc<Inner>);

struct Inner {
    parent: Option<Purse>,
    limits: Limits,
    book: Mutex<Book>,
}

#[derive(Clone, Copy, Default)]
struct Book {
    reserved: Spent,
    settled: Spent,
}

impl Default for Purse {
    /// Without limits.
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl fmt::Debug for Purse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let book = *self.0.book.lock();
        f.debug_struct("Purse")
            .field("limits", &self.0.limits)
            .field("reserved", &book.reserved)
            .field("settled", &book.settled)
            .field("parent", &self.0.parent)
            .finish()
    }
}

impl Purse {
    /// A purse with these limits and nothing spent.
    pub fn new(limits: Limits) -> Self {
        Self::resumed(limits, Spent::default())
    }

    /// A purse from which this much was spent before: after a crash, money does not come back.
    pub fn resumed(limits: Limits, spent: Spent) -> Self {
        Self::node(None, limits, spent)
    }

    /// A purse for a part of the work. It covers the smaller of its own limits and what is left here.
    #[must_use]
    pub fn child(&self, limits: Limits) -> Self {
        let deadline = limits.deadline.min(self.0.limits.deadline);
        Self::node(Some(self.clone()), Limits { deadline, ..limits }, Spent::default())
    }

    fn node(parent: Option<Self>, limits: Limits, settled: Spent) -> Self {
        let book = Mutex::new(Book { reserved: Spent::default(), settled });
        Self(Arc::new(Inner { parent, limits, book }))
    }

    /// The limits of this purse alone; its deadline is the earliest of its parents' and its own.
    pub fn limits(&self) -> Limits {
        self.0.limits
    }

    /// What was settled here.
    pub fn spent(&self) -> Spent {
        self.0.book.lock().settled
    }

    /// What is left of everything, here and in every parent, for somebody who has reserved nothing yet.
    pub fn left(&self) -> Limits {
        let limits = self.0.limits;
        let Book { reserved, settled } = *self.0.book.lock();
        let mut used = settled;
        used.add(reserved);
        let less = |limit: Option<u64>, used| limit.map(|limit| limit.saturating_sub(used));
        let own = Limits {
            attempts: less(limits.attempts, used.attempts),
            tokens: less(limits.tokens, used.cost.tokens),
            money_micros: less(limits.money_micros, used.cost.money_micros),
            deadline: limits.deadline,
        };
        let Some(parent) = &self.0.parent else { return own };
        let parent = parent.left();
        let smaller = |own: Option<u64>, other: Option<u64>| own.into_iter().chain(other).min();
        Limits {
            attempts: smaller(own.attempts, parent.attempts),
            tokens: smaller(own.tokens, parent.tokens),
            money_micros: smaller(own.money_micros, parent.money_micros),
            deadline: own.deadline.min(parent.deadline),
        }
    }

    /// As [`Purse::left`], for a purse that knows nothing of this one: where no attempt would be granted now, none
    /// is left.
    pub(crate) fn left_at(&self, now: Moment) -> Limits {
        let left = self.left();
        match self.covers(Cost::default(), now) {
            true => left,
            false => Limits { attempts: Some(0), ..left },
        }
    }

    /// Sets aside one attempt that may cost as much as `cost`, here and in every parent, or nothing
    /// anywhere. Call it before dispatch. Where the cost is not known before, reserve none: it is
    /// granted until what was settled has reached the limit.
    ///
    /// # Errors
    ///
    /// [`Denied`] names the first thing that does not suffice.
    pub fn reserve(&self, cost: Cost, now: Moment) -> Result<Reservation, Denied> {
        self.hold(Spent { attempts: 1, cost }, now)
    }

    /// Sets aside what an attempt that was reserved may cost more, as [`Purse::reserve`] does.
    pub(crate) fn reserve_more(&self, cost: Cost, now: Moment) -> Result<Reservation, Denied> {
        self.hold(Spent { attempts: 0, cost }, now)
    }

    fn hold(&self, held: Spent, now: Moment) -> Result<Reservation, Denied> {
        self.take(held, now)?;
        Ok(Reservation { purse: self.clone(), held, open: true })
    }

    /// Whether a reservation of `cost` would be granted now. Somebody else may be quicker.
    pub fn covers(&self, cost: Cost, now: Moment) -> bool {
        self.0.check(&self.0.book.lock(), Spent { attempts: 1, cost }, now).is_ok()
            && self.0.parent.as_ref().is_none_or(|parent| parent.covers(cost, now))
    }

    /// This much was spent somewhere else, by another process: it is gone, here and in every parent.
    pub(crate) fn charge(&self, cost: Cost) {
        self.put(Spent::default(), Some(Spent { attempts: 0, cost }));
    }

    fn take(&self, held: Spent, now: Moment) -> Result<(), Denied> {
        // The lock is kept while the parent is asked, so that all of them change or none. Locks are
        // always taken from child to parent, so nobody waits in a circle.
        let mut book = self.0.book.lock();
        self.0.check(&book, held, now)?;
        if let Some(parent) = &self.0.parent {
            parent.take(held, now)?;
        }
        book.reserved.add(held);
        Ok(())
    }

    fn put(&self, reserved: Spent, actual: Option<Spent>) {
        let mut book = self.0.book.lock();
        book.reserved.sub(reserved);
        if let Some(actual) = actual {
            book.settled.add(actual);
        }
        drop(book);
        if let Some(parent) = &self.0.parent {
            parent.put(reserved, actual);
        }
    }
}

impl Inner {
    fn check(&self, book: &Book, held: Spent, now: Moment) -> Result<(), Denied> {
        if now >= self.limits.deadline {
            return Err(Denied { what: Resource::Time, asked: 1, left: 0 });
        }
        let Book { reserved, settled } = book;
        let uses = [
            (
                Resource::Attempts,
                self.limits.attempts,
                reserved.attempts,
                settled.attempts,
                held.attempts,
            ),
            (
                Resource::Tokens,
                self.limits.tokens,
                reserved.cost.tokens,
                settled.cost.tokens,
                held.cost.tokens,
            ),
            (
                Resource::Money,
                self.limits.money_micros,
                reserved.cost.money_micros,
                settled.cost.money_micros,
                held.cost.money_micros,
            ),
        ];
        for (what, limit, reserved, settled, asked) in uses {
            let Some(limit) = limit else { continue };
            // What adds to an attempt that is under way takes only what it asks for.
            if held.attempts == 0 && asked == 0 {
                continue;
            }
            let left = limit.saturating_sub(reserved).saturating_sub(settled);
            // What an attempt costs is often known only afterwards. It may go past the limit; with
            // nothing left, none is begun.
            let used_up = settled > 0 && settled >= limit;
            if asked > left || used_up {
                return Err(Denied { what, asked: asked.max(1), left });
            }
        }
        Ok(())
    }
}

/// One attempt's share of a purse. Settle it with what the attempt cost, or release it when nothing
/// was dispatched. Dropped, it is settled in full: an attempt that was killed may have cost all of it.
#[must_use = "a reservation that is dropped is charged in full"]
#[derive(Debug)]
pub struct Reservation {
    purse: Purse,
    held: Spent,
    open: bool,
}

impl Reservation {
    /// What was set aside.
    pub const fn cost(&self) -> Cost {
        self.held.cost
    }

    /// Takes over what was set aside for the same attempt later: both are settled as one.
    pub(crate) fn join(&mut self, mut other: Self) {
        debug_assert!(Arc::ptr_eq(&self.purse.0, &other.purse.0), "two purses");
        if std::mem::take(&mut other.open) {
            self.held.add(other.held);
        }
    }

    /// The attempt cost this much. More than was reserved is charged as it is: the money is gone, and
    /// the next reservation will find less.
    pub fn settle(mut self, actual: Cost) {
        self.close(Some(actual));
    }

    /// Nothing was dispatched: everything goes back, the attempt too.
    pub fn release(mut self) {
        self.close(None);
    }

    fn close(&mut self, actual: Option<Cost>) {
        if std::mem::take(&mut self.open) {
            let attempts = self.held.attempts;
            self.purse.put(self.held, actual.map(|cost| Spent { attempts, cost }));
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.close(Some(self.held.cost));
    }
}
