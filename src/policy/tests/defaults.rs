//! The numbers themselves: defaults, presets, limits of a spec, jitter, worst case, storage.

use std::num::NonZeroU32;

use super::*;
use crate::error::SpecError;
use crate::policy::preset::{OperationKind, priority, select_fallback};

fn nth(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

#[test]
fn the_defaults_are_the_playbooks_numbers() {
    let policy = Policy::default();
    assert_eq!(policy.global_cap, 3);
    assert_eq!(policy.max_delay, ms(30_000));
    assert_eq!(policy.attempt_timeout, ms(30_000));
    assert_eq!(policy.hang_grace, ms(1000));
    assert_eq!(policy.min_attempt, ms(1));
    assert_eq!(policy.delivery_cap, 5);
    assert_eq!(policy.crash_redeliveries, 1);
    assert_eq!(policy.depth_limit, 5);
    assert_eq!(policy.jitter, Jitter::Ratio { percent: 20 });
    assert!(!policy.has_unsafe_limits());
    assert_eq!(Backoff::BASE, ms(1000));
    assert_eq!(Backoff::FACTOR, 2.0);
    assert_eq!(Policy::playbook_exact(), policy.clone().with_jitter(Jitter::None));
    assert_eq!(Policy::code_generation().rule(Class::OutputInvalid).cap, 2);
    for class in Class::ALL {
        assert_eq!(policy.what(class), What::Attempt);
        // What the words call retryable is what the policy retries, and the two replay-safe kinds of
        // a lost answer.
        let retried = policy.rule(class).cap > 0;
        assert_eq!(retried, class.is_retryable() || class == Class::Indeterminate, "{class}");
    }
    for policy in [policy, Policy::playbook_exact(), Policy::code_generation()] {
        assert_eq!(policy.validate("root"), Ok(()));
    }
}

#[test]
fn a_delay_is_counted_from_one_and_ends_at_the_cap() {
    let policy = Policy::default();
    assert_eq!(policy.delay(Class::Network, nth(1)), Some(ms(1000)));
    assert_eq!(policy.delay(Class::Network, nth(3)), Some(ms(4000)));
    assert_eq!(policy.delay(Class::Network, nth(4)), None);
    assert_eq!(policy.delay(Class::RateLimit, nth(2)), None);
    assert_eq!(policy.delay(Class::Permission, nth(1)), None);
}

#[test]
fn a_delay_is_clamped_and_rounded_up() {
    let doubling = Backoff::doubling(ms(1000));
    assert_eq!(doubling.delay(5, ms(30_000)), ms(16_000));
    assert_eq!(doubling.delay(6, ms(30_000)), ms(30_000));
    assert_eq!(doubling.delay(u32::MAX, ms(30_000)), ms(30_000));
    let odd = Backoff::Fixed(Duration::from_nanos(1_500_001));
    assert_eq!(odd.delay(1, ms(30_000)), ms(2));
    let thirds = Backoff::Exponential { base: ms(100), factor: 3.0 };
    assert_eq!(thirds.delay(2, ms(30_000)), ms(300));
    let absurd = Backoff::Exponential { base: ms(100), factor: f64::NAN };
    assert_eq!(absurd.delay(2, ms(30_000)), Duration::ZERO);
}

#[test]
fn jitter_is_the_same_for_the_same_attempt_and_spread_over_its_range() {
    let jitter = Jitter::default();
    let delay = ms(1000);
    let mut sum = Duration::ZERO;
    let mut seen = std::collections::BTreeSet::new();
    for id in 0..1000 {
        let found = jitter.apply(delay, RequestId(id), 1);
        assert_eq!(found, jitter.apply(delay, RequestId(id), 1));
        assert!(found >= delay && found <= jitter.longest(delay));
        seen.insert(found);
        sum += found;
    }
    assert!(seen.len() > 990);
    let mean = sum / 1000;
    assert!(mean > ms(1095) && mean < ms(1105), "{mean:?}");
    assert_eq!(jitter.longest(delay), ms(1200));
    assert_ne!(jitter.apply(delay, RequestId(1), 1), jitter.apply(delay, RequestId(1), 2),);
}

#[test]
fn the_worst_case_adds_all_attempts_and_the_longest_waits() {
    assert_eq!(Policy::playbook_exact().worst_case(1), ms(4 * 30_000 + 7000));
    assert_eq!(Policy::default().worst_case(1), ms(4 * 30_000 + 8400));
    assert_eq!(Policy::default().worst_case(3), ms(6 * 30_000 + 8400));
    // No chain is longer than its depth.
    assert_eq!(Policy::default().worst_case(50), ms(9 * 30_000 + 8400));
    assert_eq!(Policy::default().worst_case(0), Policy::default().worst_case(1));
    // Without network errors the longest waits are a mix of classes: 2 + 2 (overloaded) + 1.
    let mixed =
        Policy::playbook_exact().with_cap(Class::Network, 0).with_cap(Class::ServerTransient, 0);
    assert_eq!(mixed.worst_case(1), ms(4 * 30_000 + 5000));
}

#[test]
fn a_cap_above_the_global_one_is_refused_and_more_than_three_needs_asking() {
    let above = Policy::default().with_global_cap(2);
    assert_eq!(
        above.validate("root/llm"),
        Err(SpecError::CapAboveGlobal {
            path: "root/llm".into(),
            class: Class::Network,
            cap: 3,
            global: 2
        })
    );
    let four = Policy::default().with_global_cap(4);
    let error = four.validate("root/llm").unwrap_err();
    assert_eq!(
        error.to_string(),
        "\"root/llm\": the global retry cap is 4, at most 3 (or ask for `unsafe_limits`)"
    );
    assert_eq!(four.unsafe_limits().with_cap(Class::Network, 4).validate("root"), Ok(()));
    let endless = Policy::default().unsafe_limits().with_global_cap(101);
    assert!(endless.validate("root").is_err());
}

#[test]
fn every_value_out_of_range_is_refused() {
    let good = Policy::default;
    for bad in [
        good().with_max_delay(Duration::ZERO),
        good().with_max_delay(ms(30_001)),
        good().with_attempt_timeout(Duration::ZERO),
        good().with_min_attempt(ms(30_001)),
        good().with_delivery_cap(0),
        good().with_depth_limit(6),
        good().with_crash_redeliveries(2),
        good().with_jitter(Jitter::Ratio { percent: 101 }),
        good().with_cap(Class::Permission, 1),
        good().with_cap(Class::ModelUnavailable, 1),
        good().with_backoff(Class::Network, Backoff::Exponential { base: ms(1), factor: 0.5 }),
        good().with_backoff(Class::Network, Backoff::Exponential { base: ms(1), factor: f64::NAN }),
    ] {
        assert!(bad.validate("root").is_err(), "{bad:?}");
    }
}

#[test]
fn a_cap_that_came_in_unvalidated_does_not_retry_what_is_never_retried() {
    for class in [Class::Permission, Class::InputValidation, Class::Unknown, Class::Exhausted] {
        let policy = Policy::default().with_rule(class, Rule::new(3, Backoff::Fixed(ms(1))));
        assert!(waits(class, EffectKind::Read, true, policy).is_empty());
    }
}

#[test]
fn a_policy_and_a_history_survive_storage_and_a_missing_class_has_the_playbooks_rule() {
    let policy = Policy::code_generation().with_what(Class::Timeout, What::Life);
    let text = serde_json::to_string(&policy).unwrap();
    assert_eq!(serde_json::from_str::<Policy>(&text).unwrap(), policy);
    assert_eq!(serde_json::from_str::<Policy>("{}").unwrap(), Policy::default());
    let partial =
        r#"{"rules": {"network": {"cap": 1, "backoff": {"fixed": {"secs": 3, "nanos": 0}}}}}"#;
    let partial: Policy = serde_json::from_str(partial).unwrap();
    assert_eq!(partial.delay(Class::Network, nth(1)), Some(ms(3000)));
    assert_eq!(partial.rule(Class::Timeout), Policy::default().rule(Class::Timeout));

    let history = class(Class::Network).retried(Class::Network, 2).crashed().history;
    let text = serde_json::to_string(&history).unwrap();
    assert_eq!(serde_json::from_str::<History>(&text).unwrap(), history);
    assert_eq!(history.retries(), 3);
    assert_eq!(history.retries_of(Class::Network), 2);
}

#[test]
fn a_class_is_its_own_place_in_the_tables() {
    for (place, class) in Class::ALL.into_iter().enumerate() {
        assert_eq!(class as usize, place);
    }
}

#[test]
fn the_presets_are_the_playbooks_chains() {
    assert_eq!(preset::MODEL_CHAIN, ["gpt-4", "claude", "gpt-3.5"]);
    let chain = |name: &str| select_fallback(OperationKind::from(name));
    assert_eq!(chain("llm_service"), ["claude_service", "openai_service", "local_model"]);
    assert_eq!(chain("tool_execution"), ["fallback_tool", "manual_override"]);
    assert_eq!(chain("telepathy"), ["error_handler"]);
    let names = ["claude_service", "openai_service", "local_model", "mistral"];
    assert_eq!(names.map(priority), [1, 2, 3, 4]);
    assert_eq!(["claude", "openai", "local"].map(priority), [1, 2, 3]);
    assert!(preset::LLM_SERVICE.is_sorted_by_key(|name| priority(name)));
}
