//! What holds for every history: following the decisions ends, within every cap, in the order of the
//! ladder.

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::decision::Scope;
use crate::fault::EffectState;
use crate::policy::backoff::whole_millis;

#[derive(Clone, Debug)]
enum Blow {
    Fault(Fault),
    Exit(ExitCause),
}

impl Blow {
    fn cause(&self) -> Cause<'_> {
        match self {
            Self::Fault(fault) => Cause::Fault(fault),
            Self::Exit(exit) => Cause::Exit(exit),
        }
    }
}

fn classes() -> impl Strategy<Value = Class> {
    prop::sample::select(&Class::ALL[..])
}

fn blows() -> impl Strategy<Value = Blow> {
    let effect = prop_oneof![
        4 => Just(EffectState::Unstated),
        1 => Just(EffectState::NotApplied),
        1 => Just(EffectState::Unknown),
    ];
    let wait = prop_oneof![3 => Just(None), 1 => (0u64..40_000).prop_map(Some)];
    let fault = (classes(), effect, wait).prop_map(|(class, effect, wait)| {
        let mut fault = Fault::new(class, "");
        fault.effect = effect;
        fault.retry_after = wait.map(Duration::from_millis);
        Blow::Fault(fault)
    });
    let exit = prop_oneof![
        Just(ExitCause::Panic(String::new())),
        Just(ExitCause::Hang),
        Just(ExitCause::Killed),
        Just(ExitCause::Stopped),
        Just(ExitCause::StartFailed(String::new())),
        classes().prop_map(ExitCause::Faulted),
    ]
    .prop_map(Blow::Exit);
    prop_oneof![4 => fault, 1 => exit]
}

fn members() -> impl Strategy<Value = Vec<Candidate>> {
    let flags = prop::array::uniform8(prop::bool::weighted(0.3));
    prop::collection::vec((flags, 0u32..3), 0..7).prop_map(|members| {
        let member = |(index, (flags, priority)): (usize, ([bool; 8], u32))| {
            let [unfit, domain, provider, larger, simpler, default, human, content] = flags;
            Candidate {
                fit: !unfit,
                same_quota_domain: domain,
                same_provider: provider,
                larger_window: larger,
                simpler,
                default_value: default,
                human,
                content_chain: content,
                priority,
                ..Candidate::new(index)
            }
        };
        members.into_iter().enumerate().map(member).collect()
    })
}

fn standings() -> impl Strategy<Value = Standing> {
    prop_oneof![
        4 => Just(Standing::Ready),
        2 => Just(Standing::Full),
        1 => (0u64..10_000).prop_map(|after| Standing::OpenUntil(NOW + ms(after))),
        1 => Just(Standing::Isolated),
        1 => Just(Standing::OutOfService),
    ]
}

fn policies() -> impl Strategy<Value = Policy> {
    let bases = prop_oneof![
        Just(Policy::default()),
        Just(Policy::playbook_exact()),
        Just(Policy::code_generation()),
    ];
    (bases, 0u32..4, 1u32..6, 0u32..6, 0u32..2).prop_map(|(base, cap, deliveries, depth, crash)| {
        let mut policy = base
            .with_global_cap(cap)
            .with_delivery_cap(deliveries)
            .with_depth_limit(depth)
            .with_crash_redeliveries(crash);
        for class in Class::ALL {
            policy = policy.clone().with_cap(class, policy.rule(class).cap.min(cap));
        }
        policy
    })
}

fn kinds() -> impl Strategy<Value = EffectKind> {
    prop_oneof![
        3 => Just(EffectKind::Read),
        1 => Just(EffectKind::Idempotent),
        1 => Just(EffectKind::Verifiable),
        1 => Just(EffectKind::Irreversible),
    ]
}

fn group_kinds() -> impl Strategy<Value = GroupKind> {
    use GroupKind::{Data, Model, Output, Step, Tool};
    prop::sample::select(vec![Model, Tool, Step, Data, Output])
}

/// Whether the ladder would have had this sibling: a second, plainer reading of the rules.
fn may_be_asked(member: &Candidate, walk: &Walk, class: Class, safe: bool, now: Moment) -> bool {
    let takes_work = match member.standing {
        Standing::Ready => true,
        Standing::OpenUntil(until) => until <= now,
        _ => false,
    };
    takes_work
        && !walk.history.has_tried(member.index)
        && (safe || member.default_value || member.human)
        && eligibility::fits(class, walk.kind, member).is_ok()
}

struct Walk {
    history: History,
    kind: GroupKind,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn following_the_decisions_ends_within_every_cap_and_in_the_order_of_the_ladder(
        policy in policies(),
        blows in prop::collection::vec(blows(), 1..12),
        members in prop::option::weighted(0.8, members()),
        standings in prop::collection::vec(standings(), 1..20),
        effect in kinds(),
        kind in group_kinds(),
        (changed, retry_budget, checkpoints, parents) in (any::<bool>(), prop::bool::weighted(0.9), 0u32..3, 0u32..3),
        (lines, scope) in (0u32..4, prop::sample::select(Scope::ALL.to_vec())),
        deadline in prop::option::of(0u64..200_000),
        interruptions in prop::collection::vec(0u32..3, 1..4),
        id in any::<u64>(),
    ) {
        prop_assert_eq!(policy.validate("random"), Ok(()));
        let mut now = NOW;
        let mut request = RequestFacts {
            deadline: deadline.map_or(Moment::NEVER, |left| NOW + ms(left)),
            effect,
            changed,
            ..RequestFacts::first(RequestId(id))
        };
        let mut walk = Walk { history: History::starting_at(0), kind };
        let mut members = members;
        let (mut checkpoints, mut lines, mut parents) = (checkpoints, lines, parents);
        let (mut retries, mut by_class) = (0, [0; Class::ALL.len()]);
        let (mut substitutes, mut deaths, mut awaits) = (0, 0, 0);
        let (mut steps, mut failure) = (0, 0);
        let exhausted = Blow::Fault(Fault::new(Class::Exhausted, ""));
        let (mut judged_again, mut escalated) = (false, false);
        loop {
            steps += 1;
            prop_assert!(steps < 200, "does not end");
            // A failure that is judged again is the same failure.
            failure += usize::from(!judged_again);
            // The ladder above sees one that is spent.
            let inner = &blows[failure % blows.len()];
            let spent = std::mem::take(&mut escalated);
            let blow = if spent { &exhausted } else { inner };
            let cause = blow.cause();
            if let Some(members) = &mut members {
                for member in members {
                    let standing = standings[(member.index + steps) % standings.len()];
                    // Nobody is full for ever.
                    member.standing = if awaits > 20 { Standing::Ready } else { standing };
                }
            }
            let checkpoint = (checkpoints > 0).then(CheckpointFacts::default);
            let outlook = Outlook {
                members: members.as_deref(),
                kind,
                retry_budget,
                checkpoint,
                wider: (lines > 0).then_some(Wider {
                    scope,
                    in_transaction: false,
                    rollback_failed: false,
                }),
                has_parent: parents > 0,
                ..Outlook::default()
            };
            let decision = decide(&policy, &cause, &request, &walk.history, &outlook, now);
            let sibling_class = cause.sibling_class();
            let safe = cause.is_replay_safe(effect);
            let ready = members.iter().flatten().any(|member| {
                may_be_asked(member, &walk, sibling_class, safe, now)
            }) && substitutes < policy.depth_limit;
            // Each gentler rung has its reason, in order.
            let rungs: Vec<_> = decision.declined.iter().map(|(rung, _)| *rung).collect();
            let gentler = decision.action.rung().map_or(4, |rung| rung as usize);
            prop_assert_eq!(&rungs[..], &Rung::ALL[..gentler]);
            if cause.is_crash() && !judged_again {
                deaths += 1;
            }
            judged_again = false;
            match decision.action {
                Action::Retry { delay, at } => {
                    prop_assert!(safe && !spent && retry_budget);
                    prop_assert!(cause.is_crash() || sibling_class != Class::Exhausted);
                    prop_assert!(at < request.deadline || request.deadline.is_never());
                    retries += 1;
                    prop_assert!(retries <= policy.global_cap);
                    if let Blow::Fault(fault) = blow {
                        let class = fault.class;
                        let n = walk.history.retries_of(class) + 1;
                        let rule = match class {
                            Class::Overloaded => policy.rule(Class::RateLimit),
                            _ => policy.rule(class),
                        };
                        by_class[class as usize] += 1;
                        prop_assert!(by_class[class as usize] <= rule.cap);
                        let asked = fault.retry_after.unwrap_or_default();
                        let least = rule.backoff.delay(n, policy.max_delay).max(asked);
                        let most = whole_millis(least * 12 / 10).min(policy.max_delay);
                        prop_assert!(delay >= least && delay <= most, "{least:?} {delay:?} {most:?}");
                    }
                    now = at;
                    request.attempt += 1;
                }
                Action::Substitute { member } => {
                    prop_assert!(sibling_class != Class::Permission);
                    substitutes += 1;
                    prop_assert!(substitutes <= policy.depth_limit);
                    prop_assert!(ready);
                    let member = members.as_ref().unwrap().iter().find(|m| m.index == member).unwrap();
                    prop_assert!(may_be_asked(member, &walk, sibling_class, safe, now));
                    request.attempt += 1;
                }
                Action::AwaitSibling { until } => {
                    prop_assert!(until <= request.deadline && !ready);
                    prop_assert!(sibling_class != Class::Permission);
                    awaits += 1;
                    judged_again = true;
                    escalated = spent;
                    now = if until.is_never() { now + ms(1000) } else { now.max(until) };
                }
                Action::Rollback => {
                    prop_assert!(!ready && safe);
                    let retried = decision.declined(Rung::Retry);
                    prop_assert!(retried.is_some());
                    checkpoints -= 1;
                    request.attempt += 1;
                }
                Action::Widen => {
                    prop_assert!(!ready && safe && scope <= policy.widest_rollback);
                    prop_assert!(checkpoint.is_none() || decision.declined(Rung::Retry).is_some());
                    lines -= 1;
                    request.attempt += 1;
                }
                Action::Escalate => {
                    prop_assert!(!ready && parents > 0);
                    parents -= 1;
                    escalated = true;
                    deaths -= u32::from(cause.is_crash());
                    judged_again = true;
                }
                Action::AwaitCopy => prop_assert!(false, "there is no copy"),
                Action::HoldUnknown => {
                    prop_assert!(cause.leaves_unknown(effect));
                    break;
                }
                Action::Quarantine => {
                    prop_assert_eq!(deaths, policy.crash_redeliveries + 1);
                    break;
                }
                Action::Fail => {
                    prop_assert!(!ready);
                    break;
                }
                Action::Expire => {
                    prop_assert!(now >= request.deadline);
                    break;
                }
            }
            prop_assert!(deaths <= policy.crash_redeliveries + 1);
            walk.history.record(cause, decision.action);
            if !judged_again {
                let interrupted = interruptions[steps % interruptions.len()];
                if matches!(decision.action, Action::Retry { .. }) {
                    let handed_out = request.delivery.0 - (walk.history.substitutions());
                    prop_assert!(handed_out < policy.delivery_cap);
                }
                request.delivery = Delivery(request.delivery.0 + 1 + interrupted);
            }
        }
    }

    #[test]
    fn siblings_never_multiply_the_retries(
        count in 1usize..7,
        picks in prop::collection::vec(any::<Index>(), 1..40),
    ) {
        let members: Vec<_> = (0..count).map(Candidate::new).collect();
        let policy = Policy::default();
        let mut history = History::starting_at(0);
        let request = RequestFacts { effect: EffectKind::Read, ..RequestFacts::first(RequestId(1)) };
        let outlook = Outlook { members: Some(&members), ..Outlook::default() };
        let transient = [Class::Network, Class::Timeout, Class::RateLimit, Class::ServerTransient];
        let mut attempts = 1;
        for step in 0.. {
            let class = transient[picks[step % picks.len()].index(transient.len())];
            let fault = Fault::new(class, "");
            let cause = Cause::Fault(&fault);
            let action = decide(&policy, &cause, &request, &history, &outlook, NOW).action;
            if action == Action::Fail {
                break;
            }
            history.record(cause, action);
            attempts += 1;
        }
        prop_assert!(attempts <= 1 + 3 + (count - 1));
    }
}
