//! The decision table: one line a case, values only.

use std::time::Duration;

use super::*;
use crate::fault::{ExitCause, Fault};

mod accumulator;
mod budget;
mod deaths;
mod defaults;
mod hedge;
mod properties;
mod siblings;

const NOW: Moment = Moment::from_millis(1_000_000);

pub(super) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What happened, to be judged. The defaults: a replay-safe request without deadline at the root.
#[derive(Clone)]
struct Given {
    policy: Policy,
    fault: Option<Fault>,
    exit: ExitCause,
    request: RequestFacts,
    history: History,
    members: Option<Vec<Candidate>>,
    outlook: Outlook<'static>,
}

fn given(fault: Fault) -> Given {
    Given {
        policy: Policy::playbook_exact(),
        fault: Some(fault),
        exit: ExitCause::Hang,
        request: RequestFacts { effect: EffectKind::Read, ..RequestFacts::first(RequestId(7)) },
        history: History::default(),
        members: None,
        outlook: Outlook::default(),
    }
}

fn class(class: Class) -> Given {
    given(Fault::new(class, ""))
}

fn exit(exit: ExitCause) -> Given {
    Given { fault: None, exit, ..given(Fault::unknown("")) }
}

impl Given {
    fn policy(mut self, change: impl FnOnce(Policy) -> Policy) -> Self {
        self.policy = change(self.policy);
        self
    }

    fn effect(mut self, kind: EffectKind) -> Self {
        self.request.effect = kind;
        self
    }

    fn left(mut self, left: Duration) -> Self {
        self.request.deadline = NOW + left;
        self
    }

    fn request(mut self, change: impl FnOnce(&mut RequestFacts)) -> Self {
        change(&mut self.request);
        self
    }

    fn look(mut self, change: impl FnOnce(&mut Outlook<'static>)) -> Self {
        change(&mut self.outlook);
        self
    }

    fn members(mut self, members: impl Into<Vec<Candidate>>) -> Self {
        self.history.mark_tried(0);
        self.members = Some(members.into());
        self
    }

    fn group(mut self, kind: GroupKind) -> Self {
        self.outlook.kind = kind;
        self
    }

    /// After `times` retries of this class.
    fn retried(mut self, class: Class, times: u32) -> Self {
        let fault = Fault::new(class, "");
        for _ in 0..times {
            let action = Action::Retry { delay: Duration::ZERO, at: NOW };
            self.history.record(Cause::Fault(&fault), action);
        }
        self
    }

    /// After so many soft failures of its task within the window.
    fn added_up(mut self, failures: u32) -> Self {
        self.history.tell_soft_failures(failures);
        self
    }

    fn crashed(mut self) -> Self {
        let action = Action::Retry { delay: Duration::ZERO, at: NOW };
        self.history.record(Cause::Exit(&ExitCause::Hang), action);
        self
    }

    fn checkpoint(mut self, used: bool, in_transaction: bool) -> Self {
        self.outlook.checkpoint = Some(CheckpointFacts { used, in_transaction });
        self
    }

    fn judge(&self) -> Decision {
        let cause = match &self.fault {
            Some(fault) => Cause::Fault(fault),
            None => Cause::Exit(&self.exit),
        };
        let outlook = Outlook { members: self.members.as_deref(), ..self.outlook };
        decide(&self.policy, &cause, &self.request, &self.history, &outlook, NOW)
    }
}

/// One row of the table: the decision and its reasons, as they are printed.
#[track_caller]
fn check(given: Given, expected: &str) {
    assert_eq!(given.judge().to_string(), expected);
}

/// As [`check`], by what is done and why it was not retried.
#[track_caller]
fn declines(given: Given, why: Declined) {
    assert_eq!(given.judge().declined(Rung::Retry), Some(why));
}

/// The waits granted when a child alone fails with nothing but this class.
fn waits(class: Class, effect: EffectKind, changed: bool, policy: Policy) -> Vec<u64> {
    let fault = Fault::new(class, "");
    let mut given = given(fault.clone()).effect(effect);
    given.policy = policy;
    given.request.changed = changed;
    let mut waits = Vec::new();
    while let Action::Retry { delay, at } = given.judge().action {
        assert_eq!(at, NOW + delay);
        waits.push(delay.as_millis() as u64);
        given.history.record(Cause::Fault(&fault), Action::Retry { delay, at });
        given.request.attempt += 1;
        given.request.delivery = given.request.delivery.next();
    }
    waits
}

#[test]
fn each_class_is_retried_on_the_schedule_of_the_playbook() {
    for (class, expected) in [
        (Class::Network, &[1000, 2000, 4000][..]),
        (Class::Timeout, &[500, 1000]),
        (Class::RateLimit, &[2000]),
        (Class::ModelUnavailable, &[]),
        (Class::InputValidation, &[]),
        (Class::ToolExecution, &[1000, 2000]),
        (Class::ContextLength, &[]),
        (Class::Permission, &[]),
        (Class::Overloaded, &[2000]),
        (Class::ServerTransient, &[1000, 2000, 4000]),
        (Class::QuotaExhausted, &[]),
        (Class::ContentFiltered, &[]),
        (Class::OutputInvalid, &[]),
        (Class::Indeterminate, &[500, 1000]),
        (Class::Business, &[]),
        (Class::BudgetDenied, &[]),
        (Class::Exhausted, &[]),
        (Class::Cancelled, &[]),
        (Class::Internal, &[]),
        (Class::Unknown, &[]),
    ] {
        let found = waits(class, EffectKind::Read, true, Policy::playbook_exact());
        assert_eq!(found, expected, "{class}");
    }
}

#[test]
fn every_plain_class_alone_at_the_root_says_why_it_ends() {
    let tail = "no substitute: stands in no group; no rollback: no checkpoint; no escalate: no parent above the root";
    for name in [
        Class::ModelUnavailable,
        Class::InputValidation,
        Class::ContextLength,
        Class::QuotaExhausted,
        Class::ContentFiltered,
        Class::OutputInvalid,
        Class::Business,
        Class::Exhausted,
        Class::Internal,
        Class::Unknown,
    ] {
        check(class(name), &format!("fail; no retry: {name} is never retried; {tail}"));
    }
    check(
        class(Class::Permission),
        "fail; no retry: permission is never retried; no substitute: permission is not handed to a sibling; \
         no rollback: no checkpoint; no escalate: no parent above the root",
    );
    for name in [Class::BudgetDenied, Class::Cancelled] {
        check(
            class(name).look(|look| look.has_parent = true).checkpoint(false, true),
            &format!(
                "fail; no retry: {name} is never retried; no substitute: {name} is not handed to a sibling; \
                 no rollback: nothing to roll back; no escalate: {name} ends the request"
            ),
        );
    }
    // What only this child costs too much for goes to whoever is there, and to nobody above.
    let priced = || given(Fault::budget_denied("").not_applied().by_own_limits());
    let two = || [Candidate::new(0), Candidate::new(1)];
    check(priced().members(two()), "substitute member 1; no retry: budget_denied is never retried");
    check(
        priced().look(|look| look.has_parent = true).checkpoint(false, true),
        "fail; no retry: budget_denied is never retried; no substitute: stands in no group; \
         no rollback: nothing to roll back; no escalate: budget_denied ends the request",
    );
    assert_eq!(priced().members(two()).left(ms(0)).judge().action, Action::Fail);
    let spent = priced().members(two()).look(|look| look.request_budget = false).judge();
    assert_eq!(spent.declined(Rung::Substitute), Some(Declined::RequestBudget));
}

#[test]
fn a_class_cap_ends_its_retries_and_leaves_those_of_other_classes() {
    check(class(Class::Network).retried(Class::Network, 2), "retry in 4s");
    declines(
        class(Class::Network).retried(Class::Network, 3),
        Declined::ClassCap { class: Class::Network, cap: 3 },
    );
    declines(
        class(Class::Timeout).retried(Class::Timeout, 2),
        Declined::ClassCap { class: Class::Timeout, cap: 2 },
    );
    declines(
        class(Class::RateLimit).retried(Class::RateLimit, 1),
        Declined::ClassCap { class: Class::RateLimit, cap: 1 },
    );
    check(class(Class::RateLimit).retried(Class::Timeout, 2), "retry in 2s");
}

#[test]
fn the_global_cap_holds_over_all_classes_and_crashes() {
    let mixed = |given: Given| given.retried(Class::Timeout, 2).retried(Class::RateLimit, 1);
    declines(mixed(class(Class::Network)), Declined::GlobalCap { cap: 3 });
    declines(mixed(exit(ExitCause::Hang)), Declined::GlobalCap { cap: 3 });
    declines(
        class(Class::Network).crashed().retried(Class::Timeout, 2),
        Declined::GlobalCap { cap: 3 },
    );
    check(class(Class::Network).crashed().retried(Class::Timeout, 1), "retry in 1s");
}

#[test]
fn the_delivery_cap_counts_interruptions_but_no_substitutes() {
    let handed_out = |times| class(Class::Network).request(|r| r.delivery = Delivery(times));
    check(handed_out(4), "retry in 1s");
    declines(handed_out(5), Declined::DeliveryCap { cap: 5 });
    let mut substituted = handed_out(5);
    substituted.history.record(Cause::Fault(&Fault::network("")), Action::Substitute { member: 1 });
    check(substituted, "retry in 1s");
}

#[test]
fn a_retry_is_granted_only_with_time_for_its_wait_and_an_attempt() {
    check(class(Class::Network).left(ms(1001)), "retry in 1s");
    let short = Duration::new(1, 999_999);
    declines(
        class(Class::Network).left(short),
        Declined::Deadline { needed: ms(1000), left: short },
    );
    let patient = |given: Given| given.policy(|policy| policy.with_min_attempt(Duration::ZERO));
    check(patient(class(Class::Network)).left(ms(1000)), "retry in 1s");
    let longer = |given: Given| given.policy(|policy| policy.with_min_attempt(ms(500)));
    check(longer(class(Class::Network)).left(ms(1500)), "retry in 1s");
    declines(
        longer(class(Class::Network)).left(ms(1499)),
        Declined::Deadline { needed: ms(1000), left: ms(1499) },
    );
}

#[test]
fn a_request_at_its_deadline_expires_and_one_nanosecond_before_does_not() {
    let over = "needs 0ns, 0ns left to the deadline";
    let expired = format!(
        "expire; no retry: {over}; no substitute: {over}; no rollback: {over}; no escalate: {over}"
    );
    check(class(Class::Network).left(Duration::ZERO), &expired);
    check(class(Class::Network).request(|r| r.deadline = Moment::START), &expired);
    let members = [Candidate::new(0), Candidate::new(1)];
    let left = class(Class::Network).left(Duration::from_nanos(1)).members(members);
    assert_eq!(left.judge().action, Action::Substitute { member: 1 });
}

#[test]
fn what_the_other_side_asks_for_is_waited_for_up_to_thirty_seconds() {
    let asked = |class, wait| given(Fault::new(class, "").with_retry_after(wait));
    check(asked(Class::RateLimit, ms(500)), "retry in 2s");
    check(asked(Class::RateLimit, ms(2001)), "retry in 2.001s");
    check(asked(Class::RateLimit, ms(30_000)), "retry in 30s");
    declines(
        asked(Class::RateLimit, ms(30_001)),
        Declined::WaitTooLong { asked: ms(30_001), limit: ms(30_000) },
    );
    declines(
        asked(Class::RateLimit, Duration::MAX),
        Declined::WaitTooLong { asked: Duration::MAX, limit: ms(30_000) },
    );
    declines(
        asked(Class::RateLimit, ms(5000)).left(ms(4999)),
        Declined::WaitTooLong { asked: ms(5000), limit: ms(4999) },
    );
    check(asked(Class::RateLimit, ms(5000)).left(ms(5001)), "retry in 5s");
    declines(
        asked(Class::RateLimit, ms(5000)).left(ms(5000)),
        Declined::Deadline { needed: ms(5000), left: ms(5000) },
    );
    // Any class may be asked to wait, and none waits less than its schedule.
    check(asked(Class::ServerTransient, ms(3000)), "retry in 3s");
    check(asked(Class::ServerTransient, ms(300)), "retry in 1s");
    check(asked(Class::Network, Duration::from_nanos(1_000_000_001)), "retry in 1.001s");
    // Jitter never lifts an accepted wait above the longest.
    let jittered = asked(Class::RateLimit, ms(30_000)).policy(|_| Policy::default());
    check(jittered, "retry in 30s");
}

#[test]
fn a_closed_quota_domain_is_waited_for_like_a_retry_after() {
    let closed = |wait| class(Class::Network).look(|look| look.domain_open_at = NOW + wait);
    check(closed(ms(0)), "retry in 1s");
    check(closed(ms(20_000)), "retry in 20s");
    declines(closed(ms(31_000)), Declined::WaitTooLong { asked: ms(31_000), limit: ms(30_000) });
}

#[test]
fn an_unknown_outcome_is_held_before_anything_else_is_considered() {
    let why = "the outcome of the effect is unknown";
    let held = format!(
        "hold_unknown; no retry: {why}; no substitute: {why}; no rollback: {why}; no escalate: {why}"
    );
    let members = [Candidate::new(0), Candidate::new(1)];
    for kind in [EffectKind::Verifiable, EffectKind::Compensable, EffectKind::Irreversible] {
        for name in [Class::Timeout, Class::Indeterminate, Class::ServerTransient, Class::Internal]
        {
            check(class(name).effect(kind).members(members), &held);
        }
        for cause in [ExitCause::Hang, ExitCause::Killed, ExitCause::Panic("!".into())] {
            check(exit(cause.clone()).effect(kind).members(members), &held);
            // Neither a second crash nor the deadline may hide it.
            check(exit(cause).effect(kind).crashed().left(Duration::ZERO), &held);
        }
        check(given(Fault::network("reset").effect_unknown()).effect(kind), &held);
        check(given(Fault::cancelled("").effect_unknown()).effect(kind), &held);
    }
}

#[test]
fn an_effect_that_may_not_be_repeated_is_not_unless_it_did_not_happen() {
    let kind = EffectKind::Irreversible;
    check(class(Class::Network).effect(kind), "retry in 1s");
    check(class(Class::RateLimit).effect(kind), "retry in 2s");
    check(given(Fault::timeout("").not_applied()).effect(kind), "retry in 500ms");
    check(given(Fault::indeterminate("").not_applied()).effect(kind), "retry in 500ms");
    declines(class(Class::ToolExecution).effect(kind), Declined::NotReplaySafe);
    check(
        given(Fault::tool_execution("").not_applied())
            .effect(kind)
            .retried(Class::ToolExecution, 1),
        "retry in 2s",
    );
}

#[test]
fn a_crash_is_redelivered_once_and_its_second_death_quarantines_it() {
    let why = "has crashed a life before";
    let set_aside = format!(
        "quarantine; no retry: {why}; no substitute: {why}; no rollback: {why}; no escalate: {why}"
    );
    let members = [Candidate::new(0), Candidate::new(1)];
    for cause in [
        ExitCause::Panic("index out of bounds".into()),
        ExitCause::Hang,
        ExitCause::Killed,
        ExitCause::Faulted(Class::ToolExecution),
    ] {
        check(exit(cause.clone()), "retry in 0ns");
        check(exit(cause.clone()).crashed().members(members), &set_aside);
        check(
            exit(cause).members(members).policy(|policy| policy.with_crash_redeliveries(0)),
            &set_aside,
        );
    }
    // A first death whose redelivery is not possible may still go to a sibling.
    let spent = exit(ExitCause::Hang).members(members).retried(Class::Network, 3);
    check(spent, "substitute member 1; no retry: at most 3 retries a request");
}

#[test]
fn a_life_that_ended_for_its_own_reasons_is_not_held_against_the_request() {
    let members = [Candidate::new(0), Candidate::new(1)];
    for cause in [ExitCause::StartFailed("no key".into()), ExitCause::Poisoned("digest".into())] {
        // Nothing was executed, so not even an irreversible effect is in doubt.
        let case = exit(cause.clone()).effect(EffectKind::Irreversible).crashed().members(members);
        let expected =
            format!("substitute member 1; no retry: not retried after: {}", cause.kind());
        check(case, &expected);
    }
    check(
        exit(ExitCause::Stopped).crashed().members(members),
        "substitute member 1; no retry: not retried after: stopped",
    );
}

#[test]
fn a_crash_judged_again_by_the_parent_is_one_crash() {
    let mut case = exit(ExitCause::Hang).retried(Class::Network, 3);
    case.outlook.has_parent = true;
    let first = case.judge();
    assert_eq!(first.action, Action::Escalate);
    case.history.record(Cause::Exit(&case.exit), first.action);
    assert_eq!(case.history.crashes(), 0);
    // The one above sees a ladder that is spent, whatever it was that ended the life.
    let outer = class(Class::Exhausted).members([Candidate::new(0), Candidate::new(1)]);
    check(outer, "substitute member 1; no retry: exhausted is never retried");
}

#[test]
fn an_outer_ladder_never_retries_what_an_inner_one_gave_up() {
    let spent = class(Class::Exhausted);
    declines(spent.clone(), Declined::ClassNotRetryable(Class::Exhausted));
    // Nor may a policy have it do so.
    let eager =
        |policy: Policy| policy.with_rule(Class::Exhausted, Rule::new(3, Backoff::Fixed(ms(1))));
    declines(spent.clone().policy(eager), Declined::ClassNotRetryable(Class::Exhausted));
    // Going back would only climb the inner ladder again; an open transaction is undone all the same.
    let back = |in_transaction| spent.clone().checkpoint(false, in_transaction).judge();
    assert_eq!(back(false).declined(Rung::Rollback), Some(Declined::NothingToRollBack));
    assert_eq!(back(true).action, Action::Rollback);
}

#[test]
fn a_retry_that_changes_nothing_and_waits_for_nothing_is_refused() {
    let eager =
        |given: Given| given.policy(|policy| policy.with_backoff(Class::Network, Backoff::None));
    declines(eager(class(Class::Network)), Declined::NoChange);
    check(eager(class(Class::Network)).request(|r| r.changed = true), "retry in 0ns");
    check(eager(given(Fault::network("").with_retry_after(ms(1)))), "retry in 1ms");
}

#[test]
fn the_next_attempt_differs_when_it_is_told_something_new_or_made_by_another_life() {
    for (feedback, told, changes) in [
        (None, None, false),
        (None, Some("line 1"), false),
        (Some("line 1"), None, true),
        (Some("line 1"), Some("line 2"), true),
        (Some("line 1"), Some("line 1"), false),
        (Some(""), None, false),
        (Some(""), Some("line 1"), false),
    ] {
        let mut fault = Fault::new(Class::OutputInvalid, "");
        fault.feedback = feedback.map(Into::into);
        assert_eq!(Cause::Fault(&fault).changes_next(told), changes, "{feedback:?} after {told:?}");
    }
    assert!(Cause::Exit(&ExitCause::Hang).changes_next(Some("line 1")));
}

#[test]
fn a_rejected_output_is_generated_again_twice_and_only_with_feedback() {
    let policy = Policy::code_generation();
    assert_eq!(waits(Class::OutputInvalid, EffectKind::Read, true, policy.clone()), [0, 0]);
    assert!(waits(Class::OutputInvalid, EffectKind::Read, false, policy.clone()).is_empty());
    let slow = policy.with_backoff(Class::OutputInvalid, Backoff::Fixed(ms(100)));
    assert!(waits(Class::OutputInvalid, EffectKind::Read, false, slow.clone()).is_empty());
    declines(class(Class::OutputInvalid).policy(|_| slow), Declined::NoChange);
}

#[test]
fn an_empty_budget_ends_retries_and_the_request_budget_ends_substitutes_too() {
    let members = [Candidate::new(0), Candidate::new(1)];
    check(
        class(Class::Network).members(members).look(|look| look.retry_budget = false),
        "substitute member 1; no retry: retry budget empty",
    );
    check(
        class(Class::Network).members(members).look(|look| look.request_budget = false),
        "fail; no retry: request budget used up; no substitute: request budget used up; \
         no rollback: no checkpoint; no escalate: no parent above the root",
    );
}

#[test]
fn a_rollback_comes_after_retries_and_siblings_and_once_a_checkpoint() {
    let spent = |given: Given| given.retried(Class::Network, 3).look(|look| look.has_parent = true);
    check(
        spent(class(Class::Network)).checkpoint(false, false),
        "rollback; no retry: network is retried at most 3 times; no substitute: stands in no group",
    );
    check(
        spent(class(Class::Network)).checkpoint(true, false),
        "escalate; no retry: network is retried at most 3 times; no substitute: stands in no group; \
         no rollback: that checkpoint was used before",
    );
    for name in [Class::RateLimit, Class::Permission] {
        let case = |in_transaction| spent(class(name)).checkpoint(false, in_transaction).judge();
        assert_eq!(case(false).action, Action::Escalate);
        assert_eq!(case(false).declined(Rung::Rollback), Some(Declined::NothingToRollBack));
        assert_eq!(case(true).action, Action::Rollback);
    }
    let unsafe_tool = |in_transaction| {
        class(Class::ToolExecution)
            .effect(EffectKind::Irreversible)
            .checkpoint(false, in_transaction)
            .judge()
    };
    assert_eq!(unsafe_tool(false).declined(Rung::Rollback), Some(Declined::NotReplaySafe));
    assert_eq!(unsafe_tool(true).action, Action::Rollback);
}

#[test]
fn a_transaction_holds_for_all_that_is_narrower_and_ends_where_a_wider_scope_begins() {
    use crate::decision::Scope::{self, Flow, Session, Step, System, Transaction};
    let rows: [(&[Option<Scope>], Scope, bool); 12] = [
        (&[], Step, false),
        (&[None, None], Step, false),
        (&[Some(Flow)], Flow, false),
        (&[Some(Transaction)], Transaction, true),
        (&[Some(Transaction), None], Transaction, true),
        (&[Some(Transaction), Some(Flow)], Flow, true),
        (&[Some(Transaction), Some(Flow), None, Some(Step)], Step, true),
        (&[Some(Session), Some(Transaction), Some(Flow)], Flow, true),
        (&[Some(Transaction), Some(Session)], Session, false),
        (&[Some(Transaction), Some(System), Some(Flow)], Flow, false),
        (&[Some(Transaction), Some(Session), Some(Transaction), Some(Flow)], Flow, true),
        (&[Some(System), Some(Session), Some(Flow), Some(Step)], Step, false),
    ];
    for (above, scope, in_transaction) in rows {
        let found = above.iter().fold(Within::OUTSIDE, |within, scope| within.below(*scope));
        assert_eq!(found, Within { scope, in_transaction }, "{above:?}");
    }
}

#[test]
fn the_scope_above_returns_after_the_requests_own_rollback_and_as_far_as_the_class_reaches() {
    use crate::decision::Scope::{self, Flow, Session, Step, System, Transaction};
    let wider = |scope| Wider { scope, in_transaction: false, rollback_failed: false };
    let case = |name, wider| {
        class(name).retried(name, 3).look(|look| {
            look.wider = Some(wider);
            look.has_parent = true;
        })
    };
    check(
        case(Class::Network, wider(Flow)).checkpoint(true, false),
        "widen; no retry: network is retried at most 3 times; no substitute: stands in no group",
    );
    // What the request itself has done comes first.
    let own = case(Class::Network, wider(Flow)).checkpoint(false, false).judge();
    assert_eq!(own.action, Action::Rollback);
    // (class, the widest by itself, within a transaction)
    for (name, alone, within) in [
        (Class::Network, Flow, Transaction),
        (Class::ServerTransient, Flow, Transaction),
        (Class::Timeout, Flow, Transaction),
        (Class::Overloaded, Flow, Transaction),
        (Class::QuotaExhausted, Flow, Transaction),
        (Class::ToolExecution, Flow, Transaction),
        (Class::Exhausted, Flow, Transaction),
        (Class::RateLimit, Step, Transaction),
        (Class::Permission, Step, Transaction),
        (Class::InputValidation, Step, Step),
        (Class::ContextLength, Step, Step),
        (Class::ContentFiltered, Step, Step),
        (Class::OutputInvalid, Step, Step),
        (Class::Business, Step, Step),
        (Class::Unknown, Step, Step),
        (Class::ModelUnavailable, Flow, Transaction),
        (Class::Indeterminate, Flow, Transaction),
        (Class::Internal, Session, Session),
    ] {
        for scope in [Flow, Transaction, Session, System] {
            for (in_transaction, widest) in [(false, alone), (true, within)] {
                let found = case(name, Wider { in_transaction, ..wider(scope) }).judge();
                if scope <= widest {
                    assert_eq!(found.action, Action::Widen, "{name} to the {scope}");
                } else {
                    let why = Declined::ScopeTooWide { scope, widest };
                    assert_eq!(found.declined(Rung::Rollback), Some(why), "{name} to the {scope}");
                }
            }
        }
        // A rollback that failed is the matter of the next scope, whatever that is.
        let failed = Wider { rollback_failed: true, ..wider(System) };
        assert_eq!(case(name, failed).judge().action, Action::Widen, "{name}");
        // Unless the policy leaves it to people.
        let most = |scope: Scope| move |policy: Policy| policy.with_widest_rollback(scope);
        let bound = case(name, failed).policy(most(Session)).judge();
        let why = Declined::ScopeTooWide { scope: System, widest: Session };
        assert_eq!(bound.declined(Rung::Rollback), Some(why), "{name}");
    }
    // Of an inner ladder the class is judged that it was spent on, however deep.
    for (inner, widens) in [(Class::ToolExecution, true), (Class::Permission, false)] {
        let spent = |source| Fault::exhausted("").with_source(source);
        let fault = spent(spent(Fault::new(inner, "")));
        let outer = given(fault).look(|look| look.wider = Some(wider(Flow))).judge();
        assert_eq!(outer.action == Action::Widen, widens, "{inner}");
    }
    // What may not be repeated is not, unless it is undone.
    let unsafe_tool = |in_transaction| {
        case(Class::ToolExecution, Wider { in_transaction, ..wider(Flow) })
            .effect(EffectKind::Irreversible)
            .judge()
    };
    assert_eq!(unsafe_tool(false).declined(Rung::Rollback), Some(Declined::NotReplaySafe));
    assert_eq!(unsafe_tool(true).action, Action::Widen);
    // The end of a life is the matter of its supervisor.
    let ended = exit(ExitCause::Stopped).look(|look| look.wider = Some(wider(Flow))).judge();
    assert_eq!(ended.declined(Rung::Rollback), Some(Declined::NothingToRollBack));
}
