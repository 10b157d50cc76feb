//! What a task may spend.
//!
//! *Invariant.* Every call is given what is left, and those that are made together and may spend share it. What was spent does not come
//! back with a rollback.

use std::time::Duration;

use mainstay::fate::Cost;
use mainstay::fault::Fault;
use mainstay::moment::Moment;
use mainstay::policy::budget::Limits;
use mainstay::port::CallOptions;
use serde::{Deserialize, Serialize};

/// What an agent may spend on one task, all calls of models, tools and sub-agents included, whoever
/// makes them in the end. A budget that the caller has set counts beside it: the tighter one decides.
///
/// A [`Model`](crate::model::Model) is not asked for more than is left: see its budgets. Another call that
/// has begun may go past the limit, since its cost is known only afterwards; none is begun when nothing is
/// left. The task then ends as `BudgetDenied`, which nobody retries. Calls that are made together share what is left
/// equally, but for those that [spend nothing](super::Reach::free): they take no share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TaskBudget {
    /// Tokens, read and written together.
    ///
    /// # Default
    /// `None`: no limit.
    pub tokens: Option<u64>,
    /// Money in millionths.
    ///
    /// # Default
    /// `None`: no limit.
    pub money_micros: Option<u64>,
    /// Time from the first step to the answer. Time in which no process worked for the task does not
    /// count.
    ///
    /// # Default
    /// `None`: no limit.
    pub time: Option<Duration>,
}

impl TaskBudget {
    /// No limit on anything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`TaskBudget::tokens`].
    #[must_use]
    pub fn tokens(mut self, tokens: u64) -> Self {
        self.tokens = Some(tokens);
        self
    }

    /// Sets [`TaskBudget::money_micros`].
    #[must_use]
    pub fn money_micros(mut self, micros: u64) -> Self {
        self.money_micros = Some(micros);
        self
    }

    /// Sets [`TaskBudget::time`].
    #[must_use]
    pub fn time(mut self, time: Duration) -> Self {
        self.time = Some(time);
        self
    }

    /// What is left after `spent`, for each of `calls` calls that may spend and are made together at `now`.
    ///
    /// # Errors
    /// Nothing is left of something.
    pub(super) fn share(
        &self,
        spent: &Spent,
        calls: usize,
        now: Moment,
    ) -> Result<CallOptions, Fault> {
        if *self == Self::default() {
            return Ok(CallOptions::new());
        }
        let calls = calls.max(1) as u64;
        let part = |what, limit: Option<u64>, used: u64| match limit {
            None => Ok(None),
            Some(limit) if used >= limit => Err(denied(what, limit)),
            Some(limit) => Ok(Some(((limit - used) / calls).max(1))),
        };
        let mut limits = Limits {
            tokens: part("tokens", self.tokens, spent.tokens)?,
            money_micros: part("money", self.money_micros, spent.money_micros)?,
            ..Limits::default()
        };
        let mut options = CallOptions::new();
        if let Some(time) = self.time {
            let left = time.saturating_sub(spent.time());
            if left.is_zero() {
                return Err(denied("time", time.as_millis()));
            }
            limits.deadline = now.after(left);
            options = options.deadline(left);
        }
        Ok(options.budget(limits))
    }
}

fn denied(what: &'static str, limit: impl std::fmt::Display) -> Fault {
    let unit = match what {
        "money" => " millionths",
        "time" => " ms",
        _ => "",
    };
    Fault::budget_denied(format!("the task has used up its {what}: {limit}{unit}"))
        .with_code(format!("task_{what}"))
        .not_applied()
}

/// What a task has spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Spent {
    pub(super) tokens: u64,
    pub(super) money_micros: u64,
    /// Nanoseconds.
    time: u64,
}

impl Spent {
    pub(super) fn add(&mut self, cost: Cost) {
        self.tokens = self.tokens.saturating_add(cost.tokens);
        self.money_micros = self.money_micros.saturating_add(cost.money_micros);
    }

    pub(super) fn add_time(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.time = self.time.saturating_add(nanos);
    }

    pub(super) fn time(&self) -> Duration {
        Duration::from_nanos(self.time)
    }
}

#[cfg(test)]
mod tests {
    use mainstay::fault::Class;

    use super::*;

    fn spent(tokens: u64, money_micros: u64, millis: u64) -> Spent {
        let mut spent = Spent::default();
        spent.add(Cost { tokens, money_micros });
        spent.add_time(Duration::from_millis(millis));
        spent
    }

    #[test]
    fn calls_that_are_made_together_share_what_is_left() {
        let now = Moment::from_millis(500);
        let time = Duration::from_secs(2);
        let budget = TaskBudget::new().tokens(100).money_micros(70).time(time);
        for (used, calls, tokens, money, until) in [
            (spent(0, 0, 0), 1, 100, 70, 2500),
            (spent(40, 0, 500), 3, 20, 23, 2000),
            (spent(99, 69, 1999), 4, 1, 1, 501),
        ] {
            let options = budget.share(&used, calls, now).unwrap();
            let limits = options.budget.unwrap();
            assert_eq!((limits.tokens, limits.money_micros), (Some(tokens), Some(money)));
            assert_eq!(limits.deadline, Moment::from_millis(until));
            assert_eq!(options.deadline, Some(limits.deadline.left(now)));
        }
    }

    #[test]
    fn a_task_that_has_used_something_up_is_denied_and_told_what() {
        let time = Duration::from_secs(2);
        let budget = TaskBudget::new().tokens(100).money_micros(70).time(time);
        for (used, code) in [
            (spent(100, 0, 0), "task_tokens"),
            (spent(0, 71, 0), "task_money"),
            (spent(0, 0, 2000), "task_time"),
        ] {
            let fault = budget.share(&used, 1, Moment::START).unwrap_err();
            assert_eq!((fault.class, fault.code.as_deref()), (Class::BudgetDenied, Some(code)));
        }
        let nothing = TaskBudget::new().share(&spent(9, 9, 9), 1, Moment::START).unwrap();
        assert!(nothing.budget.is_none() && nothing.deadline.is_none(), "{nothing:?}");
    }
}
