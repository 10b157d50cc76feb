//! The table at the head of the module, row by row, over every kind of effect.

use std::sync::Arc;

use super::super::tests::{KINDS, intent};
use super::*;
use crate::ledger::{Ledger, Undo, Verdict};

/// What a fault of this class that says nothing about its effect leaves of an act that may not be repeated.
const CLASSES: [(Class, &str); 20] = [
    (Class::Network, "rejected"),
    (Class::Timeout, "unknown"),
    (Class::RateLimit, "rejected"),
    (Class::ModelUnavailable, "rejected"),
    (Class::InputValidation, "rejected"),
    (Class::ToolExecution, "failed"),
    (Class::ContextLength, "rejected"),
    (Class::Permission, "rejected"),
    (Class::Overloaded, "rejected"),
    (Class::ServerTransient, "unknown"),
    (Class::QuotaExhausted, "rejected"),
    (Class::ContentFiltered, "rejected"),
    (Class::OutputInvalid, "failed"),
    (Class::Indeterminate, "unknown"),
    (Class::Business, "rejected"),
    (Class::BudgetDenied, "rejected"),
    (Class::Exhausted, "failed"),
    (Class::Cancelled, "failed"),
    (Class::Internal, "unknown"),
    (Class::Unknown, "failed"),
];

/// An act of this kind, with an undo or without, whose call ended so; and its status then.
fn after(kind: EffectKind, trace: Trace, doubtful: bool, fault: &Fault) -> (Ledger, &'static str) {
    let mut ledger = Ledger::default();
    let mut intent = intent(0, kind);
    intent.undo = Some(Undo { tool: intent.tool.clone(), request: Arc::from(&b"{}"[..]) });
    let key = intent.key;
    ledger.on(Input::Begin(intent));
    ledger.on(trace.input(key, kind, doubtful, fault));
    let status = ledger.get(key).unwrap().status.name();
    (ledger, status)
}

#[test]
fn every_class_and_every_word_about_the_effect_has_its_state_for_every_kind() {
    let named: Vec<_> = CLASSES.iter().map(|(class, _)| *class).collect();
    assert_eq!(named, Class::ALL);
    for (class, unstated) in CLASSES {
        for (effect, expected) in [
            (EffectState::Unstated, unstated),
            (EffectState::NotApplied, "rejected"),
            (EffectState::Failed, "failed"),
            (EffectState::Unknown, "unknown"),
        ] {
            let fault = Fault { effect, ..Fault::new(class, "no") };
            for kind in KINDS {
                let safe = kind.is_replay_safe();
                let expected = if safe && expected == "unknown" { "intended" } else { expected };
                let (_, status) = after(kind, Trace::of(&fault), false, &fault);
                assert_eq!(status, expected, "{class}, {effect:?}, {kind:?}");
                // What is certain, what is held and what may be tried again are one judgement.
                assert_eq!(status == "unknown", fault.leaves_unknown(kind));
                if !safe {
                    assert_eq!(status == "rejected", fault.is_replay_safe(kind));
                }
            }
        }
    }
}

#[test]
fn only_what_was_refused_for_certain_is_neither_undone_nor_held() {
    for (class, _) in CLASSES {
        for effect in [
            EffectState::Unstated,
            EffectState::NotApplied,
            EffectState::Failed,
            EffectState::Unknown,
        ] {
            let fault = Fault { effect, ..Fault::new(class, "no") };
            for kind in KINDS {
                let key = intent(0, kind).key;
                let (mut ledger, status) = after(kind, Trace::of(&fault), false, &fault);
                let undone = ledger.on(Input::Undo(key)).record.is_some();
                assert_eq!(undone, status != "rejected", "{class}, {effect:?}, {kind:?}");
                if undone {
                    ledger.on(Input::Undone(key));
                    assert_eq!(ledger.counts().compensated, 1);
                    let again = ledger.on(Input::Begin(intent(0, kind))).verdict;
                    assert_eq!(again, Some(Verdict::Dispatch), "under another key for the tool");
                    assert_eq!(ledger.get(key).unwrap().epoch, 1);
                }
            }
        }
    }
}

#[test]
fn a_refusal_after_an_attempt_that_may_have_acted_is_not_certain() {
    let refused = Fault::rate_limit("later");
    for kind in KINDS {
        let (_, status) = after(kind, Trace::Refused, true, &refused);
        // Of one that may not be repeated every attempt before was refused, or there was none.
        assert_eq!(status, if kind.is_replay_safe() { "intended" } else { "rejected" });
        let (_, status) = after(kind, Trace::Waited, false, &refused);
        assert_eq!(status, if kind.is_replay_safe() { "intended" } else { "rejected" });
    }
    for class in Class::ALL {
        let certain = [
            Class::Network,
            Class::RateLimit,
            Class::ModelUnavailable,
            Class::ContextLength,
            Class::Permission,
            Class::QuotaExhausted,
            Class::ContentFiltered,
            Class::BudgetDenied,
        ];
        assert_eq!(Trace::may_have_acted(class), !certain.contains(&class), "{class}");
    }
}
