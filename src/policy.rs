//! What to do about a failure: [`decide`]. Read this page first.
//!
//! A fault or the end of a life comes in, with what is known about the request, what has been done for
//! it, and what there is to do next; a [`Decision`] comes out, with the reason why each gentler rung
//! was not taken. The order is always retry, substitute, roll back, escalate.
//!
//! *Invariant.* Judgement is pure: it reads no clock, rolls no dice, asks nobody and changes nothing.
//! The same arguments give the same decision. Whatever follows the decisions ends: each of them
//! spends something that is finite.
//!
//! | Class | Retries | Waits | What else ends its retries |
//! |---|---|---|---|
//! | network, server transient | 3 | 1, 2, 4 s | |
//! | timeout, indeterminate | 2 | 0.5, 1 s | not replay-safe: held as unknown |
//! | rate limit | 1 | 2 s or what was asked for | asked for more than 30 s or the time left |
//! | tool execution | 2 | 1, 2 s | not replay-safe |
//! | overloaded | 0; 1 when no sibling can take it | as rate limit | |
//! | output invalid | 0; 2 in [`Policy::code_generation`] | none | the request does not change |
//! | all others | 0 | | |
//! | a crash | 1 | none | not replay-safe; a second one is quarantined |
//!
//! All of them together: at most 3 a request, whoever makes them; and no more once the soft failures of
//! the whole task have added up to its [`Tolerance`]. Who may stand in for whom is in
//! [`eligibility`]; how long a wait is, in [`backoff`].

use std::time::Duration;

use crate::decision::{Action, Decision, Declined, Rung};
use crate::fault::{Class, EffectKind};
use crate::id::{Delivery, RequestId};
use crate::moment::Moment;

pub mod accumulator;
pub mod backoff;
pub mod budget;
pub mod deaths;
pub mod eligibility;
pub mod hedge;
pub mod history;
pub mod preset;
pub mod reach;
pub mod rules;
pub mod strategy;

#[cfg(test)]
mod tests;

pub use self::accumulator::{SoftFailures, Tolerance};
pub use self::backoff::{Backoff, Jitter};
pub use self::eligibility::{Candidate, Capabilities, Grant, GroupKind, Role, Standing};
pub use self::hedge::{Hedge, NoHedge};
pub use self::history::History;
pub use self::reach::Wider;
pub(crate) use self::reach::Within;
pub use self::rules::{Policy, Rule};
pub use self::strategy::{Cause, What};

/// What is known about the request that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestFacts {
    /// Which request, for its [jitter](Policy::jitter) alone.
    pub id: RequestId,
    /// Which attempt failed, from 1.
    pub attempt: u32,
    /// Which hand-out failed.
    pub delivery: Delivery,
    /// When its caller stops waiting.
    pub deadline: Moment,
    /// What the work does to the world.
    pub effect: EffectKind,
    /// Whether the next attempt differs from the one that failed, for example by feedback on its answer
    /// ([`Cause::changes_next`]).
    pub changed: bool,
}

impl RequestFacts {
    /// The first attempt and hand-out of a request, without a deadline and with an effect that cannot
    /// be repeated, as undeclared effects are.
    pub const fn first(id: RequestId) -> Self {
        Self {
            id,
            attempt: 1,
            delivery: Delivery(1),
            deadline: Moment::NEVER,
            effect: EffectKind::Irreversible,
            changed: false,
        }
    }
}

/// The checkpoint that a rollback would return to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckpointFacts {
    /// Whether it was returned to before: each is good for one rollback.
    pub used: bool,
    /// Whether a transaction is open since then, with effects to be undone.
    pub in_transaction: bool,
}

/// What there is to do next, seen from where the request failed.
///
/// # Default
///
/// A child alone at the root, without checkpoint, with every budget affordable and an open quota
/// domain.
#[derive(Clone, Copy, Debug)]
pub struct Outlook<'a> {
    /// The members of the group, the failed one included; `None` for a child in no group.
    pub members: Option<&'a [Candidate]>,
    /// What the members are to each other.
    pub kind: GroupKind,
    /// Whether the retry budget of the quota domain affords a retry after this cause
    /// ([`budget::RetryBudget::cost`]). Whoever carries the decision out withdraws.
    pub retry_budget: bool,
    /// Until when the quota domain of the failed member is closed.
    pub domain_open_at: Moment,
    /// Whether the purse of the request covers another attempt.
    pub request_budget: bool,
    /// The newest valid checkpoint of the scope.
    pub checkpoint: Option<CheckpointFacts>,
    /// The next supervisor above that has a line to return to, unless it returned for this request.
    pub wider: Option<Wider>,
    /// Whether there is a supervisor above.
    pub has_parent: bool,
    /// Whether the request is out at a second member as well, which may still answer it.
    pub copy_out: bool,
}

impl Default for Outlook<'_> {
    fn default() -> Self {
        Self {
            members: None,
            kind: GroupKind::Model,
            retry_budget: true,
            domain_open_at: Moment::START,
            request_budget: true,
            checkpoint: None,
            wider: None,
            has_parent: false,
            copy_out: false,
        }
    }
}

/// Judges one failure.
///
/// `history` is what was before this failure; [`History::record`] the decision afterwards. The
/// decision never costs an allocation when the answer is a plain retry.
///
/// Before the ladder come the ends that no rung may prevent, in this order: an effect whose outcome is
/// unknown is held, a request that ends its second life is quarantined, one that is out at a second
/// member is left to that one, a class that ends the request
/// wherever it occurs ends it, unless only this child costs too much and a sibling can take it, and a request whose time is over expires. An unknown outcome comes
/// before the deadline, since a caller who hears "expired" would believe that the request may be
/// repeated.
pub fn decide(
    policy: &Policy,
    cause: &Cause<'_>,
    request: &RequestFacts,
    history: &History,
    outlook: &Outlook<'_>,
    now: Moment,
) -> Decision {
    Case { policy, cause: *cause, request, history, outlook, now }.judge()
}

/// Everything one judgement looks at.
struct Case<'a> {
    policy: &'a Policy,
    cause: Cause<'a>,
    request: &'a RequestFacts,
    history: &'a History,
    outlook: &'a Outlook<'a>,
    now: Moment,
}

impl Case<'_> {
    fn judge(&self) -> Decision {
        if self.cause.leaves_unknown(self.request.effect) {
            return end(Action::HoldUnknown, [Declined::EffectUnknown; 4]);
        }
        if self.cause.is_crash() && self.history.crashes() >= self.policy.crash_redeliveries {
            return end(Action::Quarantine, [Declined::CrashedBefore; 4]);
        }
        if self.outlook.copy_out {
            return end(Action::AwaitCopy, [Declined::CopyOut; 4]);
        }
        if let Some(class @ (Class::BudgetDenied | Class::Cancelled)) = self.cause.class() {
            return self.denied(class);
        }
        if self.request.deadline <= self.now {
            let why = Declined::Deadline { needed: Duration::ZERO, left: Duration::ZERO };
            return end(Action::Expire, [why; 4]);
        }
        self.climb()
    }

    /// Nobody pays for it, or nobody wants it. What only this child costs too much for, a sibling may do.
    fn denied(&self, class: Class) -> Decision {
        let no_retry = Declined::ClassNotRetryable(class);
        let substitute = match self.cause.is_by_own_limits() && self.request.deadline > self.now {
            true => self.substitute(),
            false => Err(Declined::ClassNotEligible(class)),
        };
        match substitute {
            Ok(action) => Decision { action, declined: vec![(Rung::Retry, no_retry)] },
            Err(why) => {
                let end_of_it = Declined::Terminal(class);
                end(Action::Fail, [no_retry, why, Declined::NothingToRollBack, end_of_it])
            }
        }
    }

    /// The ladder, gentlest rung first.
    fn climb(&self) -> Decision {
        let mut declined = Vec::new();
        match self.retry() {
            Ok(action) => return Decision { action, declined },
            Err(why) => declined.push((Rung::Retry, why)),
        }
        match self.substitute() {
            Ok(action) => return Decision { action, declined },
            Err(why) => declined.push((Rung::Substitute, why)),
        }
        match self.roll_back() {
            Ok(action) => return Decision { action, declined },
            Err(why) => declined.push((Rung::Rollback, why)),
        }
        if self.outlook.has_parent {
            return Decision { action: Action::Escalate, declined };
        }
        declined.push((Rung::Escalate, Declined::AtRoot));
        Decision { action: Action::Fail, declined }
    }

    fn retry(&self) -> Result<Action, Declined> {
        let Case { policy, request, history, outlook, .. } = *self;
        let (schedule, changes) = self.schedule()?;
        if history.retries() >= policy.global_cap {
            return Err(Declined::GlobalCap { cap: policy.global_cap });
        }
        if !policy.may_hand_out(request.delivery, history) {
            return Err(Declined::DeliveryCap { cap: policy.delivery_cap });
        }
        if !self.cause.is_replay_safe(request.effect) {
            return Err(Declined::NotReplaySafe);
        }
        if !outlook.request_budget {
            return Err(Declined::RequestBudget);
        }
        let delay = self.wait(schedule)?;
        if delay.is_zero() && !changes {
            return Err(Declined::NoChange);
        }
        // Small failures that add up say that more is wrong than the last of them: the next rung looks
        // further. A life that ends is counted elsewhere.
        let Tolerance { failures: limit, window } = policy.tolerance;
        if matches!(self.cause, Cause::Fault(_)) && history.soft_failures() >= limit {
            return Err(Declined::SoftFailures { limit, window });
        }
        // Last, so that nothing is said about the budget when another reason would have sufficed.
        if !outlook.retry_budget {
            return Err(Declined::RetryBudget);
        }
        Ok(Action::Retry { delay, at: self.now + delay })
    }

    /// The wait that the schedule asks for, and whether the retry would be any different from the
    /// attempt that failed.
    fn schedule(&self) -> Result<(Duration, bool), Declined> {
        let Case { policy, request, history, .. } = *self;
        let class = match self.cause {
            Cause::Fault(fault) => fault.class,
            // The next life is the change, and its start has a backoff of its own.
            Cause::Exit(_) if self.cause.is_crash() => return Ok((Duration::ZERO, true)),
            Cause::Exit(exit) => return Err(Declined::ExitNotRetryable(exit.kind())),
        };
        let mut rule = policy.rule(class);
        if matches!(class, Class::Overloaded) && rule.cap == 0 && self.nobody_can_take_it() {
            rule = policy.rule(Class::RateLimit);
        }
        if rule.cap == 0 || !rules::may_be_retried(class) {
            return Err(Declined::ClassNotRetryable(class));
        }
        let before = history.retries_of(class);
        if before >= rule.cap {
            return Err(Declined::ClassCap { class, cap: rule.cap });
        }
        // The same question to the same model would be luck, whatever the wait.
        if matches!(class, Class::OutputInvalid) && !request.changed {
            return Err(Declined::NoChange);
        }
        let delay = rule.backoff.delay(before.saturating_add(1), policy.max_delay);
        Ok((delay, request.changed))
    }

    /// The whole wait: the schedule or what the other side asked for, whichever is longer, with
    /// jitter, if the deadline leaves time for it.
    fn wait(&self, schedule: Duration) -> Result<Duration, Declined> {
        let Case { policy, request, outlook, now, .. } = *self;
        let left = request.deadline.left(now);
        let retry_after = match self.cause {
            Cause::Fault(fault) => fault.retry_after.unwrap_or_default(),
            Cause::Exit(_) => Duration::ZERO,
        };
        // A closed quota domain asks for the same thing in other words.
        let asked = retry_after.max(outlook.domain_open_at.since(now));
        let limit = policy.max_delay.min(left);
        if asked > limit && asked > schedule {
            return Err(Declined::WaitTooLong { asked, limit });
        }
        let whole = policy.jitter.apply(schedule.max(asked), request.id, request.attempt);
        let delay = backoff::whole_millis(whole.min(policy.max_delay));
        if left < delay.saturating_add(policy.min_attempt) {
            return Err(Declined::Deadline { needed: delay, left });
        }
        Ok(delay)
    }

    fn substitute(&self) -> Result<Action, Declined> {
        let Case { policy, request, history, outlook, now, .. } = *self;
        let class = self.cause.sibling_class();
        if eligibility::is_never_substituted(class) {
            return Err(Declined::ClassNotEligible(class));
        }
        let members = outlook.members.ok_or(Declined::NoGroup)?;
        if history.substitutions() >= policy.depth_limit {
            return Err(Declined::Depth { limit: policy.depth_limit });
        }
        if !outlook.request_budget {
            return Err(Declined::RequestBudget);
        }
        let safe = self.cause.is_replay_safe(request.effect);
        // A second try at the same provider is the less promising one, and when the provider is slow
        // or overloaded so is the first.
        let demote = request.attempt > 1 || matches!(class, Class::Timeout | Class::Overloaded);
        let mut best = None;
        let mut refusal = None;
        let mut open_at = Moment::NEVER;
        let (mut fit, mut full) = (false, false);
        // Nobody is asked over the head of a person whose leave comes first.
        let mut person = None;
        for member in members {
            if member.tried || history.has_tried(member.index) {
                continue;
            }
            // What the table says comes first: that a member would repeat an effect matters only if
            // it might have been asked at all.
            let mut fits = eligibility::fits(class, outlook.kind, member);
            if !safe && !member.default_value && !member.human {
                fits = fits.and(Err(Declined::NotReplaySafe));
            }
            let leave = matches!(self.cause, Cause::Fault(it) if eligibility::is_leave(it.class));
            if member.needs_leave() && !leave {
                fits = fits.and(Err(Declined::NoFitSibling));
            }
            if let Err(why) = fits {
                refusal.get_or_insert(why);
                continue;
            }
            fit = true;
            let seen = self.seen(member);
            let is_next = person.is_none_or(|(priority, _)| member.priority < priority);
            if member.gives_leave() && is_next {
                person = Some((member.priority, member.index));
            }
            match (seen.rank(demote, now), seen.standing) {
                (Some(rank), _) => {
                    if best.is_none_or(|(first, _)| rank < first) {
                        best = Some((rank, member.index));
                    }
                }
                (None, Standing::Full) => full = true,
                (None, Standing::OpenUntil(until)) => open_at = open_at.min(until),
                (None, _) => {}
            }
        }
        let goes_over = |index: usize| {
            let all = members.iter().filter(|it| !it.default_value);
            let place = { all }.find(|it| it.index == index).map(|it| it.priority);
            person.is_some_and(|(first, person)| person != index && place > Some(first))
        };
        if let Some((_, member)) = best.filter(|(_, index)| !goes_over(*index)) {
            return Ok(Action::Substitute { member });
        }
        match refusal {
            _ if full && request.deadline.left(now) < policy.min_attempt => {
                Err(Declined::SiblingsFull)
            }
            // Room comes soon and is announced. An open circuit alone is not waited for: that would
            // turn "everything is down" into the slowest answer there is.
            _ if full => Ok(Action::AwaitSibling { until: open_at.min(request.deadline) }),
            _ if fit => Err(Declined::SiblingsUnavailable),
            Some(why) => Err(why),
            None => Err(Declined::AllowListExhausted),
        }
    }

    /// The member as it stands for this request: behind a closed quota domain it rests.
    fn seen(&self, member: &Candidate) -> Candidate {
        let closed_until = self.outlook.domain_open_at;
        let shares = member.same_quota_domain && !member.default_value && !member.human;
        let standing = match member.standing {
            Standing::Ready | Standing::Full if shares && closed_until > self.now => {
                Standing::OpenUntil(closed_until)
            }
            Standing::OpenUntil(until) if shares => Standing::OpenUntil(until.max(closed_until)),
            standing => standing,
        };
        Candidate { standing, ..*member }
    }

    /// Whether no sibling would take the request at once.
    fn nobody_can_take_it(&self) -> bool {
        !matches!(self.substitute(), Ok(Action::Substitute { .. }))
    }

    fn roll_back(&self) -> Result<Action, Declined> {
        let own = self.go_back();
        match self.outlook.wider {
            Some(wider) if own.is_err() => self.widen(&wider),
            _ => own,
        }
    }

    /// The scope above, once the request's own rollback is spent or impossible.
    fn widen(&self, wider: &Wider) -> Result<Action, Declined> {
        may_widen(self.policy, &self.cause, self.request.effect, wider)?;
        Ok(Action::Widen)
    }

    fn go_back(&self) -> Result<Action, Declined> {
        let checkpoint = self.outlook.checkpoint.ok_or(Declined::NoCheckpoint)?;
        if checkpoint.used {
            return Err(Declined::CheckpointUsed);
        }
        if !checkpoint.in_transaction {
            // These break nothing that an older state would mend, and a ladder that is spent would only be
            // climbed once more; an open transaction is undone all
            // the same.
            if let Some(Class::RateLimit | Class::Permission | Class::Exhausted) =
                self.cause.class()
            {
                return Err(Declined::NothingToRollBack);
            }
            // The work since the checkpoint is done again, this effect included.
            if !self.cause.is_replay_safe(self.request.effect) {
                return Err(Declined::NotReplaySafe);
            }
        }
        Ok(Action::Rollback)
    }
}

/// Whether a person may send a request that failed so to this member. What the ladder may never do, it
/// does not do for a person either; its order, its length and its budgets do not bind them.
pub(crate) fn may_choose(
    cause: &Cause<'_>,
    effect: EffectKind,
    history: &History,
    kind: GroupKind,
    member: &Candidate,
) -> bool {
    let repeats = !member.default_value && !member.human;
    !cause.leaves_unknown(effect)
        && !member.tried
        && !history.has_tried(member.index)
        && matches!(member.standing, Standing::Ready)
        && eligibility::fits(cause.sibling_class(), kind, member).is_ok()
        && (cause.is_replay_safe(effect) || !repeats)
}

/// Whether a person may have the work since the checkpoint done again. That it would mend nothing is for
/// them to judge; that it would repeat an effect is not.
pub(crate) fn may_go_back(
    cause: &Cause<'_>,
    effect: EffectKind,
    checkpoint: Option<CheckpointFacts>,
) -> bool {
    !cause.leaves_unknown(effect)
        && checkpoint.is_some_and(|checkpoint| {
            !checkpoint.used && (checkpoint.in_transaction || cause.is_replay_safe(effect))
        })
}

/// Whether the next scope above is returned for a request that failed so.
pub(crate) fn may_widen(
    policy: &Policy,
    cause: &Cause<'_>,
    effect: EffectKind,
    wider: &Wider,
) -> Result<(), Declined> {
    // Lives that end are the matter of their supervisor, which returns by itself when it falls.
    let Cause::Fault(fault) = cause else { return Err(Declined::NothingToRollBack) };
    let class = fault.innermost().class;
    let scope = wider.scope;
    let widest = reach::widest(class, wider).min(policy.widest_rollback);
    if scope > widest {
        return Err(Declined::ScopeTooWide { scope, widest });
    }
    // The work since the line is done again, this effect included.
    if !wider.in_transaction && !cause.is_replay_safe(effect) {
        return Err(Declined::NotReplaySafe);
    }
    Ok(())
}

/// An end that is no rung, with the reason for each of the four.
fn end(action: Action, why: [Declined; 4]) -> Decision {
    Decision { action, declined: Rung::ALL.into_iter().zip(why).collect() }
}
