//! The table at the head of the module, and what must hold over any history.

use proptest::prelude::*;

use super::*;

pub(super) fn intent(ordinal: u32, kind: EffectKind) -> Intent {
    let tool = ChildPath::new("desk/refund");
    Intent {
        key: EffectKey::of("task", 1, ordinal, &tool, b"{}"),
        task: "task".into(),
        owner: ChildPath::new("desk/agent"),
        step: 1,
        ordinal,
        kind,
        request: Arc::from(&b"{}"[..]),
        undo: (kind == EffectKind::Compensable)
            .then(|| Undo { tool: tool.clone(), request: Arc::from(&b"{}"[..]) }),
        tool,
    }
}

fn ask(ledger: &mut Ledger, kind: EffectKind) -> Verdict {
    ledger.on(Input::Begin(intent(0, kind))).verdict.unwrap()
}

fn key() -> EffectKey {
    intent(0, EffectKind::Pure).key
}

fn result() -> Arc<[u8]> {
    Arc::from(&b"done"[..])
}

fn happened() -> Happened {
    Happened::new(result())
}

pub(super) const KINDS: [EffectKind; 6] = [
    EffectKind::Pure,
    EffectKind::Read,
    EffectKind::Idempotent,
    EffectKind::Verifiable,
    EffectKind::Compensable,
    EffectKind::Irreversible,
];

#[test]
fn an_unknown_act_is_dispatched_once_its_intent_is_written_down() {
    let mut ledger = Ledger::default();
    let output = ledger.on(Input::Begin(intent(0, EffectKind::Irreversible)));
    assert_eq!(output.verdict, Some(Verdict::Dispatch));
    assert_eq!(output.record, Some(Record::Intent(intent(0, EffectKind::Irreversible), 0)));
    assert_eq!(ask(&mut ledger, EffectKind::Irreversible), Verdict::Busy);
}

#[test]
fn a_confirmed_act_is_never_dispatched_again_whatever_its_kind() {
    for kind in KINDS {
        let mut ledger = Ledger::default();
        ask(&mut ledger, kind);
        ledger.on(Input::Confirmed(key(), happened()));
        assert_eq!(ask(&mut ledger, kind), Verdict::Replay(happened()), "{kind:?}");
        // Nothing that comes late changes it.
        for late in [
            Input::Rejected(key()),
            Input::Lost(key()),
            Input::Resolved(key(), Resolution::NotHappened),
            Input::Confirmed(key(), Happened::new(&b"other"[..])),
        ] {
            assert_eq!(ledger.on(late).record, None);
        }
        assert_eq!(ask(&mut ledger, kind), Verdict::Replay(happened()), "{kind:?}");
    }
}

#[test]
fn a_lost_act_is_repeated_verified_or_held_by_its_kind() {
    for (kind, expected) in KINDS.into_iter().zip([
        Verdict::Again,
        Verdict::Again,
        Verdict::Again,
        Verdict::Verify,
        Verdict::Unknown,
        Verdict::Unknown,
    ]) {
        let mut ledger = Ledger::default();
        ask(&mut ledger, kind);
        let record = ledger.on(Input::Lost(key())).record;
        assert_eq!(record.is_some(), !kind.is_replay_safe(), "{kind:?}");
        assert_eq!(ask(&mut ledger, kind), expected, "{kind:?}");
    }
}

/// With an undo or without one.
fn undoable(kind: EffectKind, has_undo: bool) -> Intent {
    let undo = Undo { tool: ChildPath::new("desk/refund"), request: Arc::from(&b"back"[..]) };
    Intent { undo: has_undo.then_some(undo), ..intent(0, kind) }
}

#[test]
fn an_act_that_nobody_asks_for_any_more_waits_for_a_person_unless_it_may_be_forgotten() {
    for kind in KINDS {
        for has_undo in [true, false] {
            let mut ledger = Ledger::default();
            ledger.on(Input::Begin(undoable(kind, has_undo)));
            assert_eq!(ledger.orphan(key()).record, None, "somebody waits for it");
            assert_eq!(ask(&mut ledger, kind), Verdict::Busy);
            ledger.on(Input::Lost(key()));
            ledger.orphan(key());
            let is_moot = kind.is_replay_safe() && !has_undo;
            let expected = if is_moot { EffectStatus::Intended } else { EffectStatus::Unknown };
            assert_eq!(ledger.get(key()).unwrap().status, expected, "{kind:?} {has_undo}");
            assert_eq!(ledger.orphan(key()).record, None, "it is said once");
        }
    }
}

#[test]
fn a_call_by_which_others_act_waits_for_a_person_only_where_one_of_them_may_have() {
    let kind = EffectKind::Idempotent;
    let call = {
        let plain = intent(0, kind);
        let undo = Undo { tool: plain.tool.clone(), request: Arc::clone(&plain.request) };
        Intent { undo: Some(undo), ..plain }
    };
    let done = Some(Input::Confirmed as fn(EffectKey, Happened) -> Input);
    for (part, came, expected) in [
        (None, None, "intended"),
        (Some(EffectKind::Read), done, "intended"),
        // It may be repeated, and has no undo.
        (Some(EffectKind::Idempotent), None, "intended"),
        (Some(EffectKind::Idempotent), done, "unknown"),
        (Some(EffectKind::Irreversible), None, "unknown"),
        (Some(EffectKind::Irreversible), done, "unknown"),
    ] {
        let mut ledger = Ledger::default();
        ledger.on(Input::Begin(call.clone()));
        if let Some(kind) = part {
            let task: Arc<str> = ledger.get(key()).unwrap().idempotency_key().into();
            let plain = intent(0, kind);
            let part = EffectKey::of(&task, 0, 0, &plain.tool, &plain.request);
            ledger.on(Input::Begin(Intent { key: part, task, ..plain }));
            match came {
                Some(came) => ledger.on(came(part, happened())),
                None => ledger.on(Input::Lost(part)),
            };
        }
        ledger.on(Input::Lost(key()));
        ledger.orphan(key());
        assert_eq!(ledger.get(key()).unwrap().status.name(), expected, "{part:?} {came:?}");
    }
    // One that undoes by another request does something by itself.
    let mut ledger = Ledger::default();
    ledger.on(Input::Begin(undoable(kind, true)));
    ledger.on(Input::Lost(key()));
    ledger.orphan(key());
    assert_eq!(ledger.get(key()).unwrap().status.name(), "unknown");
}

#[test]
fn an_act_that_does_no_harm_is_asked_for_again_although_it_was_given_up() {
    let kind = EffectKind::Idempotent;
    let mut ledger = Ledger::default();
    let mut records: Vec<_> =
        ledger.on(Input::Begin(undoable(kind, true))).record.into_iter().collect();
    records.extend(ledger.on(Input::Lost(key())).record);
    records.extend(ledger.orphan(key()).record);
    let again = ledger.on(Input::Begin(undoable(kind, true)));
    assert_eq!(again.verdict, Some(Verdict::Again));
    assert_eq!(again.record, Some(Record::Status(key(), EffectStatus::Intended)));
    records.extend(again.record);
    assert_eq!(ask(&mut ledger, kind), Verdict::Busy);
    // What comes of it then is what came of it.
    let mut next = Ledger::replayed(records);
    for ledger in [&mut ledger, &mut next] {
        ledger.on(Input::Rejected(key()));
        assert_eq!(ledger.get(key()).unwrap().status, EffectStatus::Rejected);
    }
}

#[test]
fn an_act_that_is_held_has_not_happened_until_it_goes_on() {
    for kind in KINDS {
        let mut records = Vec::new();
        let mut ledger = Ledger::default();
        records.extend(ledger.on(Input::Begin(intent(0, kind))).record);
        let held = ledger.on(Input::Held(key())).record;
        assert_eq!(held.is_some(), !kind.is_replay_safe(), "{kind:?}");
        records.extend(held.clone());
        // Who asks meanwhile waits; a process after this one asks again.
        assert_eq!(ask(&mut ledger, kind), Verdict::Busy, "{kind:?}");
        let again = if kind.is_replay_safe() { Verdict::Again } else { Verdict::Dispatch };
        assert_eq!(ask(&mut Ledger::replayed(records.clone()), kind), again, "{kind:?}");
        // Nobody can undo it, or hold it a second time.
        assert_eq!(ledger.on(Input::Undo(key())).record, None);
        assert_eq!(ledger.on(Input::Held(key())).record, None, "{kind:?}");
        let on = ledger.on(Input::GoesOn(key())).record;
        assert_eq!(on, held.map(|_| Record::Intent(intent(0, kind), 0)), "{kind:?}");
        records.extend(on);
        assert_eq!(ledger.on(Input::GoesOn(key())).record, None, "{kind:?}");
        let mut next = Ledger::replayed(records);
        assert_ne!(ask(&mut next, kind), Verdict::Dispatch, "{kind:?}");
        assert!(ledger.on(Input::Confirmed(key(), happened())).record.is_some(), "{kind:?}");
        assert_eq!(ask(&mut ledger, kind), Verdict::Replay(happened()), "{kind:?}");
    }
}

#[test]
fn a_held_act_whose_asker_leaves_does_not_happen() {
    for kind in KINDS.into_iter().filter(|kind| !kind.is_replay_safe()) {
        let mut ledger = Ledger::default();
        ask(&mut ledger, kind);
        assert!(!ledger.lets_go_of_held(key()), "its tool may be at it");
        ledger.on(Input::Held(key()));
        assert!(ledger.lets_go_of_held(key()));
        assert_eq!(ledger.on(Input::GoesOn(key())).record, None, "{kind:?}");
        assert_eq!(ledger.on(Input::Lost(key())).record, None, "{kind:?}");
        assert_eq!(ask(&mut ledger, kind), Verdict::Dispatch, "{kind:?}");
    }
}

#[test]
fn an_orphaned_intent_of_a_process_that_was_killed_is_treated_as_a_lost_act() {
    for (kind, expected) in KINDS.into_iter().zip([
        Verdict::Again,
        Verdict::Again,
        Verdict::Again,
        Verdict::Verify,
        Verdict::Unknown,
        Verdict::Unknown,
    ]) {
        let mut before = Ledger::default();
        let record = before.on(Input::Begin(intent(0, kind))).record;
        let mut ledger = Ledger::replayed(record);
        assert_eq!(ask(&mut ledger, kind), expected, "{kind:?}");
    }
}

#[test]
fn a_rejected_act_may_be_dispatched_again_with_the_same_key() {
    let mut ledger = Ledger::default();
    ask(&mut ledger, EffectKind::Irreversible);
    let before = ledger.get(key()).unwrap().idempotency_key();
    ledger.on(Input::Rejected(key()));
    assert_eq!(ask(&mut ledger, EffectKind::Irreversible), Verdict::Dispatch);
    assert_eq!(ledger.get(key()).unwrap().idempotency_key(), before);
}

#[test]
fn an_act_the_tool_failed_at_fails_the_same_way_again_unless_it_may_be_repeated() {
    let fault = Fault::tool_execution("no paper");
    for (kind, expected) in KINDS.into_iter().zip([
        Verdict::Dispatch,
        Verdict::Dispatch,
        Verdict::Dispatch,
        Verdict::Failed(fault.clone()),
        Verdict::Failed(fault.clone()),
        Verdict::Failed(fault.clone()),
    ]) {
        let mut ledger = Ledger::default();
        ask(&mut ledger, kind);
        let before = ledger.get(key()).unwrap().idempotency_key();
        ledger.on(Input::Failed(key(), fault.clone()));
        assert!(!ledger.get(key()).unwrap().status.is_open(), "nobody is waited for");
        assert_eq!(ask(&mut ledger, kind), expected, "{kind:?}");
        assert_eq!(ledger.get(key()).unwrap().idempotency_key(), before, "{kind:?}");
    }
}

#[test]
fn what_a_verification_or_a_person_says_settles_an_unknown_act() {
    for (resolution, expected) in [
        (Resolution::Happened(result()), Verdict::Replay(happened())),
        (Resolution::NotHappened, Verdict::Dispatch),
        (Resolution::CannotTell, Verdict::Unknown),
    ] {
        let mut ledger = Ledger::default();
        ask(&mut ledger, EffectKind::Irreversible);
        ledger.on(Input::Lost(key()));
        assert_eq!(ledger.counts().unknown, 1);
        ledger.on(Input::Resolved(key(), resolution.clone()));
        assert_eq!(ask(&mut ledger, EffectKind::Irreversible), expected, "{resolution:?}");
    }
}

#[test]
fn an_undone_act_is_asked_for_again_under_a_new_key_for_the_tool() {
    let mut ledger = Ledger::default();
    let kind = EffectKind::Compensable;
    ask(&mut ledger, kind);
    let first = ledger.get(key()).unwrap().idempotency_key();
    ledger.on(Input::Confirmed(key(), happened()));
    ledger.on(Input::Undo(key()));
    assert_eq!(ask(&mut ledger, kind), Verdict::Unknown, "not while it is being undone");
    ledger.on(Input::Undone(key()));
    assert_eq!(ask(&mut ledger, kind), Verdict::Dispatch);
    assert_ne!(ledger.get(key()).unwrap().idempotency_key(), first);
}

#[test]
fn an_act_without_an_undo_is_not_undone() {
    let mut ledger = Ledger::default();
    ask(&mut ledger, EffectKind::Irreversible);
    ledger.on(Input::Confirmed(key(), happened()));
    assert_eq!(ledger.on(Input::Undo(key())).record, None);
    assert_eq!(ask(&mut ledger, EffectKind::Irreversible), Verdict::Replay(happened()));
}

#[test]
fn an_undo_that_fails_is_stuck_until_it_succeeds() {
    let mut ledger = Ledger::default();
    ask(&mut ledger, EffectKind::Compensable);
    ledger.on(Input::Confirmed(key(), happened()));
    ledger.on(Input::Undo(key()));
    ledger.on(Input::UndoFailed(key(), "the bank is closed".into()));
    assert_eq!(ledger.counts().stuck, 1);
    ledger.on(Input::Retire("task".into()));
    assert_eq!(ledger.counts().stuck, 1, "nothing a person must see is forgotten");
    ledger.on(Input::Undone(key()));
    assert_eq!(ledger.counts().compensated, 1);
}

#[test]
fn the_effects_of_a_task_are_told_in_their_order_and_forgotten_with_it() {
    let mut ledger = Ledger::default();
    for (ordinal, step) in [(0, 1), (1, 1), (0, 2), (0, 3)] {
        let mut intent = intent(ordinal, EffectKind::Compensable);
        intent.step = step;
        intent.key = EffectKey::of("task", step, ordinal, &intent.tool, b"{}");
        ledger.on(Input::Begin(intent.clone()));
        ledger.on(Input::Confirmed(intent.key, happened()));
    }
    let places = |ledger: &Ledger, task| -> Vec<_> {
        let entries = ledger.of_task(task);
        entries.iter().map(|entry| (entry.intent.step, entry.intent.ordinal)).collect()
    };
    assert_eq!(places(&ledger, "task"), [(1, 0), (1, 1), (2, 0), (3, 0)]);
    assert!(places(&ledger, "another").is_empty());
    let record = ledger.on(Input::Retire("task".into())).record;
    assert_eq!(record, Some(Record::Retired("task".into())));
    assert!(ledger.entries().is_empty() && places(&ledger, "task").is_empty());
    assert_eq!(ledger.on(Input::Retire("task".into())).record, None, "once");
}

#[test]
fn acts_are_found_by_what_their_tools_are_asked_under_and_below_their_task() {
    let mut ledger = Ledger::default();
    let long = format!("t/{}", "x".repeat(200));
    let tasks = ["t", "t/1.0-a", "t/1.0-a/2", "t-", "tt", &long];
    for task in tasks {
        let mut intent = intent(0, EffectKind::Compensable);
        intent.task = task.into();
        intent.key = EffectKey::of(task, 0, 0, &intent.tool, b"{}");
        ledger.on(Input::Begin(intent));
    }
    for task in tasks {
        let entry = ledger.of_task(task)[0];
        let key = entry.idempotency_key();
        assert_eq!(ledger.asked_under(&key), Some(entry), "{key}");
        // Of another epoch, of another task, and no key of an act.
        for other in [format!("{key}1"), format!("x/{key}"), format!("{key}-0"), task.to_owned()] {
            assert_eq!(ledger.asked_under(&other), None, "{other}");
        }
    }
    let below = |task| -> Vec<_> {
        ledger.below(task).map(|entry| entry.intent.task.to_string()).collect()
    };
    assert_eq!(below("t"), ["t", "t/1.0-a", "t/1.0-a/2", &long]);
    assert_eq!(below("t/1.0-a"), ["t/1.0-a", "t/1.0-a/2"]);
    assert!(below("x").is_empty());
    assert_eq!(ledger.acted().count(), tasks.len());
}

#[test]
fn what_nobody_will_find_out_and_nobody_has_to_know_goes_with_its_task() {
    for kind in KINDS {
        let mut ledger = Ledger::default();
        ask(&mut ledger, kind);
        ledger.on(Input::Lost(key()));
        ledger.on(Input::Retire("task".into()));
        assert_eq!(ledger.knows("task"), !kind.is_replay_safe(), "{kind:?}");
    }
    // What is to be undone is not forgotten before.
    let mut ledger = Ledger::default();
    let undo = intent(0, EffectKind::Compensable).undo;
    ledger.on(Input::Begin(Intent { undo, ..intent(0, EffectKind::Idempotent) }));
    ledger.on(Input::Lost(key()));
    ledger.on(Input::Retire("task".into()));
    assert!(ledger.knows("task"));
}

#[test]
fn a_key_depends_on_each_of_its_parts() {
    let tool = ChildPath::new("t");
    let keys = [
        EffectKey::of("a", 1, 0, &tool, b"x"),
        EffectKey::of("b", 1, 0, &tool, b"x"),
        EffectKey::of("a", 2, 0, &tool, b"x"),
        EffectKey::of("a", 1, 1, &tool, b"x"),
        EffectKey::of("a", 1, 0, &ChildPath::new("u"), b"x"),
        EffectKey::of("a", 1, 0, &tool, b"y"),
        // The same letters, cut elsewhere.
        EffectKey::of("at", 1, 0, &ChildPath::new(""), b"x"),
    ];
    for (at, key) in keys.iter().enumerate() {
        assert!(!keys[..at].contains(key), "{at}");
    }
    assert_eq!(keys[0], EffectKey::of("a", 1, 0, &tool, b"x"));
    assert_eq!(EffectKey::from_bytes(*keys[0].as_bytes()), keys[0]);
}

fn arb_input() -> impl Strategy<Value = Input> {
    let kind = prop::sample::select(KINDS.to_vec());
    let key = (0..3_u32).prop_map(|ordinal| intent(ordinal, EffectKind::Pure).key);
    prop_oneof![
        4 => (0..3_u32, kind).prop_map(|(ordinal, kind)| Input::Begin(intent(ordinal, kind))),
        2 => key.clone().prop_map(|key| Input::Confirmed(key, happened())),
        1 => key.clone().prop_map(Input::Rejected),
        1 => key.clone().prop_map(|key| Input::Failed(key, Fault::tool_execution("no"))),
        2 => key.clone().prop_map(Input::Lost),
        2 => key.clone().prop_map(Input::Held),
        1 => key.clone().prop_map(Input::GoesOn),
        1 => key.clone().prop_map(|key| Input::Resolved(key, Resolution::Happened(result()))),
        1 => key.clone().prop_map(|key| Input::Resolved(key, Resolution::NotHappened)),
        1 => key.clone().prop_map(|key| Input::Resolved(key, Resolution::CannotTell)),
        1 => key.clone().prop_map(Input::Undo),
        1 => key.clone().prop_map(Input::Undone),
        1 => key.clone().prop_map(Input::Left),
        1 => key.clone().prop_map(Input::Stands),
        1 => key.prop_map(|key| Input::UndoFailed(key, "no".into())),
        1 => Just(Input::Retire("task".into())),
    ]
}

proptest! {
    #[test]
    fn the_journal_tells_the_same_as_the_ledger_at_any_moment(
        inputs in prop::collection::vec(arb_input(), 0..60)
    ) {
        let mut ledger = Ledger::default();
        let mut journal = Ledger::default();
        for input in inputs {
            let happened = match &input {
                Input::Begin(intent) => ledger.get(intent.key).is_some_and(|entry| {
                    matches!(entry.status, EffectStatus::Confirmed(_) | EffectStatus::Left(_))
                }),
                _ => false,
            };
            let output = ledger.on(input);
            if happened {
                prop_assert!(matches!(output.verdict, Some(Verdict::Replay(_))));
            }
            if output.verdict == Some(Verdict::Dispatch) {
                prop_assert!(matches!(output.record, Some(Record::Intent(..))));
            }
            if let Some(record) = output.record {
                journal.apply(record);
            }
            let seen = |ledger: &Ledger| -> Vec<_> {
                let all = ledger.entries();
                all.iter().map(|e| (e.intent.clone(), e.epoch, e.status.clone())).collect()
            };
            prop_assert_eq!(seen(&ledger), seen(&journal));
            prop_assert_eq!(seen(&ledger), seen(&Ledger::replayed(ledger.records())));
        }
    }
}

#[test]
fn what_an_undo_left_standing_waits_for_a_person_or_for_its_task() {
    let left = || {
        let mut ledger = Ledger::default();
        ask(&mut ledger, EffectKind::Irreversible);
        ledger.on(Input::Confirmed(key(), happened()));
        assert!(ledger.on(Input::Left(key())).record.is_some());
        assert!(ledger.get(key()).unwrap().status.is_open());
        assert_eq!(ledger.counts().stuck, 1);
        // Its task has its fate: it is not forgotten.
        ledger.on(Input::Retire("task".into()));
        assert_eq!(ledger.get(key()).unwrap().status.name(), "left");
        ledger
    };
    let mut asked = left();
    let output = asked.on(Input::Begin(intent(0, EffectKind::Irreversible)));
    assert_eq!(output.verdict, Some(Verdict::Replay(happened())));
    assert!(output.record.is_some(), "the next process hears of it");
    assert_eq!(asked.get(key()).unwrap().status.name(), "confirmed");
    for (said, name) in [(Input::Stands(key()), "confirmed"), (Input::Undone(key()), "compensated")]
    {
        let mut ledger = left();
        assert!(ledger.on(said).record.is_some());
        assert_eq!(ledger.get(key()).unwrap().status.name(), name);
    }
    // A person's word is not taken back: not by an undo, and not by one that stops there.
    let mut stands = left();
    stands.on(Input::Stands(key()));
    for again in [Input::Undo(key()), Input::Left(key())] {
        assert!(stands.on(again).record.is_none());
    }
    assert!(stands.get(key()).unwrap().status.stands());
    // What was not left does not become so, and what does not stand cannot stand rightly.
    let mut ledger = Ledger::default();
    ask(&mut ledger, EffectKind::Irreversible);
    assert!(ledger.on(Input::Left(key())).record.is_none());
    assert!(ledger.on(Input::Stands(key())).record.is_none());
}

#[test]
fn what_is_said_twice_by_a_journal_that_was_being_written_anew_keeps_its_order() {
    let mut ledger = Ledger::default();
    for ordinal in 0..4 {
        let mut intent = intent(0, EffectKind::Compensable);
        // A step whose acts are asked for in another order than their keys have.
        intent.ordinal = ordinal;
        intent.key = EffectKey::of("task", 1, ordinal, &intent.tool, b"{}");
        let key = intent.key;
        ledger.on(Input::Begin(intent));
        if ordinal != 2 {
            ledger.on(Input::Confirmed(key, happened()));
        }
    }
    let told = |ledger: &Ledger| -> Vec<(u32, EffectStatus)> {
        let of_task = ledger.of_task("task");
        of_task.iter().map(|entry| (entry.intent.ordinal, entry.status.clone())).collect()
    };
    let records = ledger.records();
    // An intent and its outcome stand in the same batch.
    let ends = (0..=records.len())
        .filter(|end| !matches!(records.get(*end), Some(Record::Status(..))))
        .collect::<Vec<_>>();
    assert_eq!(ends.len(), 5);
    for end in ends {
        let twice = Ledger::replayed(records.iter().chain(&records[..end]).cloned());
        assert_eq!(told(&twice), told(&ledger), "after {end} of {}", records.len());
    }
    // One that was refused and is made after all is a later act.
    let key = EffectKey::of("task", 1, 2, &ChildPath::new("desk/refund"), b"{}");
    let mut again = Vec::new();
    again.extend(ledger.on(Input::Rejected(key)).record);
    let mut intent = intent(0, EffectKind::Compensable);
    (intent.ordinal, intent.key) = (2, key);
    again.extend(ledger.on(Input::Begin(intent)).record);
    assert_eq!(again.len(), 2);
    let replayed = Ledger::replayed(records.into_iter().chain(again));
    assert_eq!(told(&replayed), told(&ledger));
}

#[test]
fn a_persons_name_stands_with_what_the_person_has_said_and_not_with_what_came_later() {
    let said = |by: &str| Arc::new(Said::new(by, "the bank says so"));
    let happened = || Input::Resolved(key(), Resolution::Happened(result()));
    let word = |by: &str, input| Input::By(said(by), Box::new(input));
    // By itself, by somebody without a name, and by another.
    for (last, by) in [
        (Input::UndoFailed(key(), "no".to_owned()), None),
        (Input::Undone(key()), None),
        (word("bob", Input::Undone(key())), Some("bob")),
    ] {
        let mut ledger = Ledger::default();
        let mut written = Vec::new();
        let first = [Input::Begin(intent(0, EffectKind::Compensable)), Input::Lost(key())];
        for input in first.into_iter().chain([word("ann", happened())]) {
            written.extend(ledger.on(input).record);
        }
        assert_eq!(ledger.get(key()).unwrap().said, Some(said("ann")));
        for input in [Input::Undo(key()), last] {
            written.extend(ledger.on(input).record);
        }
        for ledger in [Ledger::replayed(written), Ledger::replayed(ledger.records()), ledger] {
            let entry = ledger.get(key()).unwrap();
            assert_ne!(entry.status.name(), "confirmed");
            assert_eq!(entry.said, by.map(said), "{}", entry.status.name());
        }
    }
}
