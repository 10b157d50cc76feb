//! The table of hedging: who gets the copy, and what speaks against one.

use super::*;
use crate::policy::hedge::{HedgeFacts, Latencies, hedge, most_extra};

fn facts() -> HedgeFacts {
    HedgeFacts {
        replay_safe: true,
        deadline: Moment::NEVER,
        min_attempt: ms(10),
        request_budget: true,
        extra: 0,
        in_flight: 1,
    }
}

/// The primary, which has the request, and two others, changed as the test says.
fn three(change: impl Fn(&mut Candidate)) -> Vec<Candidate> {
    let mut members: Vec<_> = (0..3).map(Candidate::new).collect();
    members[0].tried = true;
    for (place, member) in members.iter_mut().enumerate().skip(1) {
        member.priority = place as u32;
        change(member);
    }
    members
}

fn judged(facts: HedgeFacts, members: &[Candidate]) -> Result<usize, NoHedge> {
    hedge(&facts, GroupKind::Model, members, |_| true, NOW)
}

#[test]
fn the_copy_goes_to_the_next_member_in_order_that_takes_work() {
    assert_eq!(judged(facts(), &three(|_| {})), Ok(1));
    let reversed = three(|member| member.priority = 9 - member.index as u32);
    assert_eq!(judged(facts(), &reversed), Ok(2));
    type Change = fn(&mut Candidate);
    let less: [(&str, Change); 9] = [
        ("tried", |member| member.tried = true),
        ("not allowed", |member| member.fit = false),
        ("full", |member| member.standing = Standing::Full),
        ("resting", |member| member.standing = Standing::OpenUntil(NOW)),
        ("isolated", |member| member.standing = Standing::Isolated),
        ("a simpler flow", |member| member.simpler = true),
        ("a default value", |member| member.default_value = true),
        ("a person", |member| member.human = true),
        ("whoever is behind a person", |member| member.behind_a_person = true),
    ];
    for (name, change) in less {
        let one = three(|member| {
            if member.index == 1 {
                change(member);
            }
        });
        assert_eq!(judged(facts(), &one), Ok(2), "{name}");
        assert_eq!(judged(facts(), &three(change)), Err(NoHedge::NoSibling), "{name}");
    }
    let step = hedge(&facts(), GroupKind::Step, &three(|_| {}), |_| true, NOW);
    assert_eq!(step, Err(NoHedge::NoSibling));
}

#[test]
fn what_speaks_against_a_hedge_is_named() {
    let all = three(|_| {});
    let rows = [
        (HedgeFacts { replay_safe: false, ..facts() }, NoHedge::NotReplaySafe),
        (HedgeFacts { deadline: NOW + ms(9), ..facts() }, NoHedge::Deadline),
        (HedgeFacts { deadline: NOW, min_attempt: Duration::ZERO, ..facts() }, NoHedge::Deadline),
        (HedgeFacts { request_budget: false, ..facts() }, NoHedge::RequestBudget),
        (HedgeFacts { extra: 3, ..facts() }, NoHedge::Crowded { limit: 3 }),
        (HedgeFacts { extra: 20, in_flight: 100, ..facts() }, NoHedge::Crowded { limit: 20 }),
    ];
    for (facts, why) in rows {
        assert_eq!(judged(facts, &all), Err(why), "{facts:?}");
    }
    assert_eq!(judged(HedgeFacts { deadline: NOW + ms(10), ..facts() }, &all), Ok(1));
    assert_eq!(judged(HedgeFacts { extra: 19, in_flight: 100, ..facts() }, &all), Ok(1));
    // The budget of the one that would be asked counts, not another's.
    let second_only = |member: usize| member == 2;
    let poor = hedge(&facts(), GroupKind::Model, &all, second_only, NOW);
    assert_eq!(poor, Err(NoHedge::RetryBudget));
    assert_eq!([0, 15, 19, 20, 100].map(most_extra), [3, 3, 3, 4, 20]);
}

#[test]
fn a_failure_while_a_copy_is_out_is_left_to_the_copy() {
    let mut case = class(Class::Network);
    case.outlook.copy_out = true;
    assert_eq!(case.judge().action, Action::AwaitCopy);
    for name in [Class::Permission, Class::BudgetDenied, Class::Cancelled, Class::InputValidation] {
        let mut case = class(name);
        case.outlook.copy_out = true;
        let decision = case.judge();
        assert_eq!(decision.action, Action::AwaitCopy, "{name}");
        assert_eq!(decision.declined(Rung::Retry), Some(Declined::CopyOut));
    }
    // An unknown outcome is held at once: the copy may do it again.
    let mut unknown = class(Class::Timeout).effect(EffectKind::Irreversible);
    unknown.outlook.copy_out = true;
    assert_eq!(unknown.judge().action, Action::HoldUnknown);
    // A life that it ended counts, so that the copy's end is the second.
    let mut history = History::default();
    let panic = ExitCause::Panic(String::new());
    history.record(Cause::Exit(&panic), Action::AwaitCopy);
    assert_eq!((history.crashes(), history.retries(), history.substitutions()), (1, 0, 0));
}

#[test]
fn the_percentile_is_that_of_the_last_minute() {
    let mut seen = Latencies::default();
    let second = |n: u64| Moment::START + ms(n * 1000);
    for _ in 0..19 {
        seen.record(ms(100), second(1));
    }
    assert_eq!(seen.p95(second(1)), None);
    seen.record(ms(60_000), second(1));
    // 19 of 20 are within the bucket that ends at 106.496 ms.
    assert_eq!(seen.p95(second(1)), Some(ms(107)));
    seen.record(ms(60_000), second(1));
    let edge = seen.p95(second(1)).unwrap();
    assert!(edge >= ms(60_000) && edge < ms(68_000), "{edge:?}");
    // Half a minute later they still count; a minute later they do not.
    assert_eq!(seen.p95(second(31)), Some(edge));
    assert_eq!(seen.p95(second(62)), None);
    for n in 0..100 {
        seen.record(ms(n + 1), second(63));
    }
    let p95 = seen.p95(second(63)).unwrap();
    assert!(p95 >= ms(95) && p95 <= ms(107), "{p95:?}");
    // Whatever comes, it has a bucket.
    for took in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
        seen.record(took, second(64));
    }
    assert!(seen.p95(second(400)).is_none());
}
