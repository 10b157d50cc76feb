//! The table's rows about siblings: who is fit, who comes first, and what is said when nobody is.

use super::*;
use crate::policy::eligibility::{Role, admission, fits};

/// Three members: the one that failed and two others, changed as the test says.
fn three(change: impl Fn(&mut Candidate)) -> Vec<Candidate> {
    (0..3)
        .map(|index| {
            let mut member = Candidate::new(index);
            if index > 0 {
                change(&mut member);
            }
            member
        })
        .collect()
}

/// A case in which no retry is left, so that siblings are all that is judged.
fn spent(name: Class) -> Given {
    class(name).retried(Class::Network, 3)
}

#[track_caller]
fn substitutes(given: Given, member: usize) {
    assert_eq!(given.judge().action, Action::Substitute { member });
}

#[track_caller]
fn refuses(given: Given, why: Declined) {
    let decision = given.judge();
    assert_eq!(decision.declined(Rung::Substitute), Some(why), "{decision}");
}

#[test]
fn each_class_is_handed_only_to_members_that_fit_it() {
    type Gift = fn(&mut Candidate);
    let plain: Gift = |_| {};
    let same_domain: Gift = |member| member.same_quota_domain = true;
    let larger: Gift = |member| member.larger_window = true;
    let simpler: Gift = |member| member.simpler = true;
    let default: Gift = |member| member.default_value = true;
    let human: Gift = |member| member.human = true;
    let content: Gift = |member| member.content_chain = true;
    let gifts = [plain, same_domain, larger, simpler, default, human, content];
    // Columns: plain, same quota domain, larger window, simpler, default, human, content chain.
    for (name, row) in [
        (Class::Network, [1, 1, 1, 1, 1, 1, 1]),
        (Class::Timeout, [1, 1, 1, 1, 1, 1, 1]),
        (Class::RateLimit, [1, 0, 1, 1, 1, 1, 1]),
        (Class::ModelUnavailable, [1, 1, 1, 1, 1, 1, 1]),
        (Class::InputValidation, [0, 0, 0, 1, 1, 0, 0]),
        (Class::ToolExecution, [1, 1, 1, 1, 1, 1, 1]),
        (Class::ContextLength, [0, 0, 1, 1, 0, 0, 0]),
        (Class::Permission, [0, 0, 0, 0, 0, 0, 0]),
        (Class::Overloaded, [1, 1, 1, 1, 1, 1, 1]),
        (Class::ServerTransient, [1, 1, 1, 1, 1, 1, 1]),
        (Class::QuotaExhausted, [1, 0, 1, 1, 1, 1, 1]),
        (Class::ContentFiltered, [0, 0, 0, 1, 1, 0, 1]),
        (Class::OutputInvalid, [1, 1, 1, 1, 1, 1, 1]),
        (Class::Indeterminate, [1, 1, 1, 1, 1, 1, 1]),
        (Class::Business, [0, 0, 0, 1, 1, 0, 0]),
        (Class::BudgetDenied, [0, 0, 0, 0, 0, 0, 0]),
        (Class::Exhausted, [1, 1, 1, 1, 1, 1, 1]),
        (Class::Cancelled, [0, 0, 0, 0, 0, 0, 0]),
        (Class::Internal, [1, 1, 1, 1, 1, 1, 1]),
        (Class::Unknown, [1, 1, 1, 1, 1, 1, 1]),
    ] {
        for (column, (gift, expected)) in gifts.iter().zip(row).enumerate() {
            let decision = spent(name).members(three(gift)).judge();
            let substituted = decision.action == Action::Substitute { member: 1 };
            assert_eq!(substituted, expected == 1, "{name}, column {column}: {decision}");
        }
    }
}

#[test]
fn who_keeps_to_limits_of_its_own_may_be_stood_in_for_from_the_same_account() {
    let long = || Fault::rate_limit("").with_retry_after(ms(60_000));
    let same_domain = || three(|member| member.same_quota_domain = true);
    refuses(given(long()).members(same_domain()), Declined::NoFitSibling);
    substitutes(given(long().by_own_limits()).members(same_domain()), 1);
    // Alone, it is told the wait as by anybody else.
    let short = Fault::rate_limit("").with_retry_after(ms(7000)).by_own_limits();
    assert_eq!(given(short).judge().action, Action::Retry { delay: ms(7000), at: NOW + ms(7000) });
}

#[test]
fn later_members_of_a_step_group_are_simpler_flows() {
    for name in [Class::InputValidation, Class::ContextLength, Class::ContentFiltered] {
        substitutes(class(name).group(GroupKind::Step).members(three(|_| {})), 1);
        assert!(fits(name, GroupKind::Step, &Candidate::new(0)).is_err());
        for kind in [GroupKind::Model, GroupKind::Tool, GroupKind::Data, GroupKind::Output] {
            assert!(fits(name, kind, &Candidate::new(1)).is_err());
        }
    }
    let step = class(Class::Permission).group(GroupKind::Step).members(three(|_| {}));
    refuses(step, Declined::ClassNotEligible(Class::Permission));
}

#[test]
fn a_refusal_names_what_is_missing() {
    refuses(spent(Class::Network), Declined::NoGroup);
    refuses(spent(Class::Network).members([]), Declined::AllowListExhausted);
    refuses(spent(Class::Network).members([Candidate::new(0)]), Declined::AllowListExhausted);
    refuses(
        spent(Class::Network).members(three(|member| member.tried = true)),
        Declined::AllowListExhausted,
    );
    refuses(
        spent(Class::Network).members(three(|member| member.fit = false)),
        Declined::NoFitSibling,
    );
    refuses(spent(Class::ContextLength).members(three(|_| {})), Declined::NoFitSibling);
    refuses(
        class(Class::InputValidation).members(three(|_| {})),
        Declined::ClassNotEligible(Class::InputValidation),
    );
    for standing in [Standing::OpenUntil(NOW + ms(1)), Standing::Isolated, Standing::OutOfService] {
        refuses(
            spent(Class::Network).members(three(|member| member.standing = standing)),
            Declined::SiblingsUnavailable,
        );
    }
}

#[test]
fn a_chain_of_substitutes_ends_at_its_depth() {
    let mut case = spent(Class::Network).members((0..10).map(Candidate::new).collect::<Vec<_>>());
    for expected in 1..=5 {
        let action = case.judge().action;
        assert_eq!(action, Action::Substitute { member: expected });
        case.history.record(Cause::Fault(&Fault::network("")), action);
    }
    refuses(case, Declined::Depth { limit: 5 });
}

#[test]
fn a_sibling_whose_retries_are_spent_still_gets_one_attempt() {
    let mut case = spent(Class::Network).members(three(|_| {}));
    let fault = Fault::network("");
    case.history.record(Cause::Fault(&fault), Action::Substitute { member: 1 });
    check(case.clone(), "substitute member 2; no retry: network is retried at most 3 times");
    case.history.record(Cause::Fault(&fault), Action::Substitute { member: 2 });
    refuses(case, Declined::AllowListExhausted);
}

#[test]
fn after_an_escalation_the_members_are_those_of_another_group_and_the_spending_stays() {
    let mut case = spent(Class::Network).members(three(|_| {}));
    let fault = Fault::network("");
    case.history.record(Cause::Fault(&fault), Action::Substitute { member: 1 });
    case.history.record(Cause::Fault(&fault), Action::Escalate);
    assert!(!case.history.has_tried(0) && !case.history.has_tried(1));
    assert_eq!((case.history.retries(), case.history.substitutions()), (3, 1));
    assert_eq!(case.history.last(), Some(Class::Network));
}

#[test]
fn full_siblings_are_waited_for_until_one_may_be_asked_or_the_deadline() {
    let full = three(|member| member.standing = Standing::Full);
    let wait = |until| Action::AwaitSibling { until };
    assert_eq!(spent(Class::Network).members(full.clone()).judge().action, wait(Moment::NEVER));
    let timed = spent(Class::Network).members(full.clone()).left(ms(700));
    assert_eq!(timed.judge().action, wait(NOW + ms(700)));
    let mut mixed = full.clone();
    mixed[2].standing = Standing::OpenUntil(NOW + ms(300));
    let mixed = spent(Class::Network).members(mixed).left(ms(700));
    assert_eq!(mixed.judge().action, wait(NOW + ms(300)));
    refuses(
        spent(Class::Network).members(full.clone()).left(Duration::from_nanos(1)),
        Declined::SiblingsFull,
    );
    // A full member that is not fit is nothing to wait for.
    let unfit = spent(Class::ContextLength).members(full.clone());
    refuses(unfit, Declined::NoFitSibling);
    let mut one_ready = full;
    one_ready[2].standing = Standing::Ready;
    substitutes(spent(Class::Network).members(one_ready), 2);
}

#[test]
fn an_overloaded_child_is_retried_once_only_when_no_sibling_can_take_the_request() {
    substitutes(class(Class::Overloaded).members(three(|_| {})), 1);
    let full = three(|member| member.standing = Standing::Full);
    check(class(Class::Overloaded).members(full.clone()), "retry in 2s");
    check(class(Class::Overloaded), "retry in 2s");
    let asked = given(Fault::overloaded("").with_retry_after(ms(7000)));
    check(asked, "retry in 7s");
    let again = class(Class::Overloaded).members(full).retried(Class::Overloaded, 1).judge();
    assert_eq!(again.action, Action::AwaitSibling { until: Moment::NEVER });
    assert_eq!(
        again.declined(Rung::Retry),
        Some(Declined::ClassCap { class: Class::Overloaded, cap: 1 })
    );
}

#[test]
fn a_sibling_behind_the_same_closed_quota_domain_rests() {
    let closed = |given: Given| given.look(|look| look.domain_open_at = NOW + ms(60_000));
    let shared = three(|member| member.same_quota_domain = member.index == 1);
    substitutes(closed(class(Class::Network)).members(shared), 2);
    let all_shared = three(|member| member.same_quota_domain = true);
    refuses(closed(class(Class::Network)).members(all_shared), Declined::SiblingsUnavailable);
    // That its circuit would let a probe through does not open the domain.
    let probed = three(|member| {
        member.same_quota_domain = true;
        member.standing = Standing::OpenUntil(NOW);
    });
    refuses(closed(class(Class::Network)).members(probed), Declined::SiblingsUnavailable);
}

#[test]
fn an_effect_that_may_not_be_repeated_goes_only_to_a_person_or_a_default() {
    let unsafe_tool = || class(Class::ToolExecution).effect(EffectKind::Irreversible);
    refuses(unsafe_tool().members(three(|_| {})), Declined::NotReplaySafe);
    substitutes(unsafe_tool().members(three(|member| member.human = member.index == 2)), 2);
    substitutes(unsafe_tool().members(three(|member| member.default_value = member.index == 2)), 2);
    // Refused before it took effect, it may go anywhere.
    substitutes(
        class(Class::ModelUnavailable).effect(EffectKind::Irreversible).members(three(|_| {})),
        1,
    );
}

#[test]
fn members_are_asked_by_circuit_then_provider_then_priority_then_place() {
    let mut members = three(|_| {});
    substitutes(spent(Class::Network).members(members.clone()), 1);
    members[1].priority = 9;
    substitutes(spent(Class::Network).members(members.clone()), 2);
    members[2].same_provider = true;
    // The provider matters from the second attempt on, and at once when it is slow or overloaded.
    substitutes(spent(Class::Network).members(members.clone()), 2);
    substitutes(spent(Class::Network).members(members.clone()).request(|r| r.attempt = 2), 1);
    substitutes(spent(Class::Timeout).members(members.clone()), 1);
    substitutes(spent(Class::Overloaded).members(members.clone()), 1);
    // A closed circuit goes before a probe, whatever the provider.
    members[1].standing = Standing::OpenUntil(NOW);
    substitutes(spent(Class::Timeout).members(members.clone()), 2);
    members[2].standing = Standing::Isolated;
    substitutes(spent(Class::Timeout).members(members), 1);
}

#[test]
fn a_default_value_comes_last_and_a_person_before_it() {
    let mut members = three(|_| {});
    members[1].default_value = true;
    members[2].standing = Standing::OpenUntil(NOW);
    members[2].priority = 9;
    substitutes(spent(Class::Network).members(members.clone()), 2);
    members[2].human = true;
    substitutes(spent(Class::Network).members(members), 2);
}

#[test]
fn nobody_is_asked_over_the_head_of_a_person_behind_another_one() {
    // The first was a person, and so is the second.
    let mut members = three(|member| {
        member.behind_a_person = true;
        member.human = member.index == 1;
        member.priority = u32::try_from(member.index).unwrap();
    });
    let passed_on = || given(Fault::exhausted("").not_applied()).effect(EffectKind::Irreversible);
    substitutes(passed_on().members(members.clone()), 1);
    for standing in [Standing::Isolated, Standing::OutOfService, Standing::OpenUntil(Moment::NEVER)]
    {
        members[1].standing = standing;
        refuses(passed_on().members(members.clone()), Declined::SiblingsUnavailable);
    }
    // Where the person stands behind the third, that one is first.
    members[1].standing = Standing::Ready;
    members[1].priority = 9;
    substitutes(passed_on().members(members), 2);
}

#[test]
fn a_person_who_has_said_nothing_has_given_no_leave() {
    let behind = |change: fn(&mut Candidate)| {
        three(|member| {
            member.behind_a_person = true;
            change(member);
        })
    };
    for silent in [Class::Timeout, Class::Internal, Class::Indeterminate] {
        let silent = || spent(silent);
        refuses(silent().members(behind(|_| {})), Declined::NoFitSibling);
        substitutes(silent().members(behind(|member| member.human = true)), 1);
        substitutes(silent().members(behind(|member| member.default_value = true)), 1);
    }
    substitutes(class(Class::Exhausted).members(behind(|_| {})), 1);
}

#[test]
fn a_new_request_goes_where_the_allow_lists_lead_people_and_defaults_last() {
    let none: Option<&[usize]> = None;
    for (members, order) in [
        (vec![], vec![]),
        (vec![(Role::Sibling, none); 3], vec![0, 1, 2]),
        // Only the listed, in that order, and nobody whom no list leads to.
        (vec![(Role::Sibling, Some(&[][..])), (Role::Sibling, none)], vec![0]),
        (
            vec![(Role::Sibling, Some(&[2, 1][..])), (Role::Sibling, none), (Role::Sibling, none)],
            vec![0, 2, 1],
        ),
        // The way goes on from who is reached.
        (
            vec![
                (Role::Sibling, Some(&[1][..])),
                (Role::Sibling, Some(&[3][..])),
                (Role::Sibling, none),
                (Role::Sibling, none),
            ],
            vec![0, 1, 3],
        ),
        (
            vec![
                (Role::Sibling, none),
                (Role::Default, none),
                (Role::Human, none),
                (Role::Simplified, none),
                (Role::Content, none),
            ],
            vec![0, 3, 4, 2, 1],
        ),
        (vec![(Role::Default, none)], vec![0]),
        // A primary is asked first, whatever it is.
        (vec![(Role::Human, none), (Role::Default, none), (Role::Sibling, none)], vec![0, 2, 1]),
    ] {
        assert_eq!(admission(&members), order, "{members:?}");
    }
}

#[test]
fn a_weaker_member_is_recognized_by_what_it_would_gain() {
    let primary = Capabilities {
        guardrail: 2,
        tool_rights: ["search".to_owned()].into(),
        residency: Some("eu".to_owned()),
        price_cap_micros: Some(100),
        context_window: Some(8000),
        provider: Some("one".to_owned()),
    };
    assert_eq!(primary.weaker_than(&primary), None);
    let with = |change: fn(&mut Capabilities)| {
        let mut target = primary.clone();
        change(&mut target);
        target.weaker_than(&primary)
    };
    assert_eq!(with(|c| c.guardrail = 1), Some("a lower guardrail level"));
    assert_eq!(with(|c| c.guardrail = 3), None);
    assert_eq!(with(|c| c.tool_rights.extend(["pay".to_owned()])), Some("more tool rights"));
    assert_eq!(with(|c| c.tool_rights.clear()), None);
    assert_eq!(with(|c| c.residency = Some("us".to_owned())), Some("another residency"));
    assert_eq!(with(|c| c.residency = None), Some("another residency"));
    assert_eq!(with(|c| c.price_cap_micros = Some(101)), Some("a higher price cap"));
    assert_eq!(with(|c| c.price_cap_micros = None), Some("a higher price cap"));
    assert_eq!(with(|c| c.price_cap_micros = Some(99)), None);
    assert_eq!(with(|c| c.context_window = None), None);
    assert_eq!(
        primary.weaker_than(&Capabilities { guardrail: 0, ..Capabilities::default() }),
        Some("more tool rights")
    );
    assert!(!primary.has_larger_window(&primary));
    assert!(Grant::new("ops", "the only local model").is_complete());
    assert!(!Grant::new("ops", " ").is_complete());
}

#[test]
fn a_person_may_choose_whom_the_table_allows_and_nobody_else() {
    type Change = fn(&mut Candidate);
    let plain: Change = |_| {};
    let may = |cause: Cause<'_>, effect, history: &History, change: Change| {
        let mut member = Candidate::new(2);
        change(&mut member);
        crate::policy::may_choose(&cause, effect, history, GroupKind::Model, &member)
    };
    let none = History::default();
    for (name, change, expected) in [
        (Class::Network, plain, true),
        (Class::Network, |member| member.tried = true, false),
        (Class::Network, |member| member.fit = false, false),
        (Class::Network, |member| member.standing = Standing::Full, false),
        (Class::Network, |member| member.standing = Standing::OpenUntil(NOW), false),
        (Class::Network, |member| member.standing = Standing::Isolated, false),
        (Class::Network, |member| member.standing = Standing::OutOfService, false),
        (Class::RateLimit, |member| member.same_quota_domain = true, false),
        (Class::ContextLength, plain, false),
        (Class::ContextLength, |member| member.larger_window = true, true),
        (Class::InputValidation, plain, false),
        (Class::InputValidation, |member| member.simpler = true, true),
        (Class::Permission, plain, false),
        (Class::BudgetDenied, plain, false),
    ] {
        let fault = Fault::new(name, "");
        let found = may(Cause::Fault(&fault), EffectKind::Read, &none, change);
        assert_eq!(found, expected, "{name}");
    }
    // The length of the chain does not bind a person; that a member has had the request does.
    let fault = Fault::network("");
    let mut long = History::default();
    for member in 10..20 {
        long.record(Cause::Fault(&fault), Action::Substitute { member });
    }
    assert!(may(Cause::Fault(&fault), EffectKind::Read, &long, plain));
    long.mark_tried(2);
    assert!(!may(Cause::Fault(&fault), EffectKind::Read, &long, plain));
    // An effect that may have happened is repeated for nobody.
    let unknown = Fault::timeout("");
    let human: Change = |member| member.human = true;
    for change in [plain, human] {
        assert!(!may(Cause::Fault(&unknown), EffectKind::Irreversible, &none, change));
    }
    let failed = Fault::tool_execution("");
    assert!(!may(Cause::Fault(&failed), EffectKind::Irreversible, &none, plain));
    assert!(may(Cause::Fault(&failed), EffectKind::Irreversible, &none, human));
}

#[test]
fn a_person_may_go_back_once_a_checkpoint_and_repeat_no_effect() {
    let at = |used, in_transaction| Some(CheckpointFacts { used, in_transaction });
    for (name, effect, checkpoint, expected) in [
        (Class::Network, EffectKind::Read, at(false, false), true),
        (Class::Network, EffectKind::Read, at(true, false), false),
        (Class::Network, EffectKind::Read, None, false),
        // The ladder sees nothing that it would mend; a person may know more.
        (Class::Permission, EffectKind::Read, at(false, false), true),
        (Class::ToolExecution, EffectKind::Irreversible, at(false, false), false),
        (Class::ToolExecution, EffectKind::Irreversible, at(false, true), true),
        (Class::Timeout, EffectKind::Irreversible, at(false, true), false),
    ] {
        let fault = Fault::new(name, "");
        let found = crate::policy::may_go_back(&Cause::Fault(&fault), effect, checkpoint);
        assert_eq!(found, expected, "{name} {effect:?} {checkpoint:?}");
    }
}
