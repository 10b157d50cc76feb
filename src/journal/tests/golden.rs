//! What each version of the journal wrote is read by this one. `tests/golden/journal/` has the texts of all
//! records that a version knows, one a line. They are never written again; a new version adds a file: run
//! with `MAINSTAY_GOLDEN=write`.

use std::path::{Path, PathBuf};

use super::super::line::{StoredHappened, StoredStatus};
use super::*;
use crate::fate::{Attempt, Cost, Ended, Given};
use crate::fault::{Class, EffectKind, ExitKind, Fault};
use crate::id::{Delivery, EffectKey};
use crate::ledger::{EffectStatus, Happened, Intent, Ledger, Said, Undo};
use crate::policy::budget::Limits;

fn file(version: u32) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/golden/journal").join(format!("v{version}.jsonl"))
}

fn trail() -> Trail {
    let mut trail = Trail::default();
    trail.0.push(Attempt {
        at: Moment::from_millis(5),
        child: ChildPath::new("desk/agent"),
        attempt: 1,
        delivery: Delivery(1),
        ended: Ended::Exit(ExitKind::Panic),
        action: crate::decision::Action::Quarantine,
        declined: Vec::new(),
    });
    trail
}

fn intent(ordinal: u32) -> Record {
    let (agent, tool) = (ChildPath::new("desk/agent"), ChildPath::new("desk/till"));
    let request: Arc<[u8]> = Arc::from(&b"{\"pay\":5}"[..]);
    let undo = Undo { tool: ChildPath::new("desk/undo"), request: Arc::clone(&request) };
    let intent = Intent {
        key: EffectKey::of("one", 3, ordinal, &tool, &request),
        task: Arc::from("one"),
        owner: agent,
        step: 3,
        ordinal,
        tool,
        kind: EffectKind::Compensable,
        request,
        undo: (ordinal == 0).then_some(undo),
    };
    Record::Intent(intent, ordinal)
}

pub(super) fn an_intent() -> Intent {
    match intent(0) {
        Record::Intent(intent, _) => intent,
        other => panic!("{other:?}"),
    }
}

fn key_of(record: &Record) -> EffectKey {
    match record {
        Record::Intent(intent, _) => intent.key,
        other => panic!("{other:?}"),
    }
}

/// All that can be written.
fn lines() -> Vec<Line> {
    let accepted = |key: &str, trail: Trail| Line::Accepted {
        child: ChildPath::new("desk/agent"),
        key: Arc::from(key),
        request: "{\"pay\":5}".to_owned(),
        deadline: Some(9),
        trail,
        budget: None,
        taken: 0,
        back: Back::default(),
        hand: Hand::Harmless,
        round: 0,
    };
    let fated = |key: &str, fate, reply: Option<&str>, work: Option<u64>| Line::Fated {
        key: Arc::from(key),
        fate,
        reply: reply.map(str::to_owned),
        at: (fate == Fate::Quarantined).then_some(Wall(7)),
        trail: if fate == Fate::Quarantined { trail() } else { Trail::default() },
        work: work.map(|step| (ChildPath::new("desk/agent"), step)),
        deleted: false,
        given: (key == "two").then(|| Box::new(given())),
    };
    let mut lines = vec![
        accepted("one", Trail::default()),
        accepted("two", trail()),
        accepted("three", Trail::default()),
        fated("two", Fate::Done, Some("8"), Some(4)),
        fated("three", Fate::Quarantined, None, None),
        accepted("four", Trail::default()),
        fated("four", Fate::Quarantined, None, None),
        Line::Released { key: Arc::from("four"), round: 1 },
        accepted("five", Trail::default()),
        fated("five", Fate::Quarantined, None, None),
        Line::Discarded { key: Arc::from("five") },
        accepted("six", Trail::default()),
        Line::Withdrawn { key: Arc::from("six") },
        Line::Returned {
            checkpoints: vec![CheckpointId(77)],
            missing: Vec::new(),
            replayed: Vec::new(),
        },
        Line::Returned {
            checkpoints: Vec::new(),
            missing: vec![Arc::from("two")],
            replayed: Vec::new(),
        },
    ];
    let statuses = statuses();
    for (ordinal, status) in statuses.into_iter().enumerate() {
        let record = intent(ordinal as u32);
        let key = key_of(&record).to_string();
        lines.push(Line::from(record));
        let said = Some(Arc::new(Said::new("ann", "the bank says so")));
        let said = said.filter(|_| matches!(status, StoredStatus::Compensated));
        lines.push(Line::Status { key, status, said });
    }
    lines.push(accepted("seven", trail()));
    lines.push(fated("seven", Fate::Done, Some("7"), Some(6)));
    lines.push(accepted("eight", trail()));
    lines.push(fated("eight", Fate::Done, Some("8"), Some(7)));
    let replayed = vec![Arc::from("eight")];
    lines.push(Line::Returned { checkpoints: Vec::new(), missing: Vec::new(), replayed });
    let asked = key_of(&intent(77)).to_string();
    let status = StoredStatus::Confirmed(happened());
    lines.push(Line::Asked { task: Arc::from("two"), key: asked, status });
    lines.push(Line::Retired { task: Arc::from("gone") });
    let (key, at) = (|key: &str| Arc::from(key), ChildPath::new("desk"));
    lines.push(Line::TakenUp { key: key("one"), n: 1 });
    lines.push(Line::TakenUp { key: key("four"), n: 2 });
    lines.push(Line::TakenUp { key: key("one"), n: 0 });
    lines.push(Line::TakenUp { key: key("two"), n: 7 });
    lines.push(Line::WentBack { key: key("one"), to: None });
    lines.push(Line::WentBack { key: key("four"), to: Some(at.clone()) });
    for (name, out) in [("one", true), ("four", true), ("four", false), ("two", true)] {
        lines.push(Line::HandedOut { key: key(name), out });
    }
    for (id, before) in [("a", vec![CheckpointId(78)]), ("b", Vec::new())] {
        let child = ChildPath::new("desk/pool").join(id);
        let arguments = "{\"first\":5}".to_owned();
        lines.push(Line::Made { child, template: key("sum"), arguments, before, again: false });
    }
    let to = |child: &str, key: &str| {
        let mut line = accepted(key, Trail::default());
        if let Line::Accepted { child: at, .. } = &mut line {
            *at = ChildPath::new(child);
        }
        line
    };
    lines.push(to("desk/pool/b", "ten"));
    lines.push(to("desk/pool/b", "eleven"));
    lines.push(fated("eleven", Fate::Quarantined, None, None));
    lines.push(Line::Unmade { child: ChildPath::new("desk/pool/b"), deleted: true });
    // As by a journal that was written anew.
    for name in ["twelve", "thirteen"] {
        lines.push(to("desk/pool/a", name));
        lines.push(fated(name, Fate::Quarantined, None, None));
        if let Some(Line::Fated { deleted, .. }) = lines.last_mut() {
            *deleted = name == "twelve";
        }
    }
    let (child, arguments) = (ChildPath::new("desk/pool/a"), "{\"first\":5}".to_owned());
    let (template, before) = (key("sum"), Vec::new());
    lines.push(Line::Made { child, template, arguments, before, again: true });
    lines.push(match accepted("nine", Trail::default()) {
        Line::Accepted { child, key, request, deadline, trail, budget, .. } => {
            let back = Back { own: true, widest: Some(at) };
            let (taken, hand, round) = (3, Hand::In, u64::MAX);
            let accepted =
                Open { child, key, request, deadline, trail, budget, taken, back, hand, round };
            Line::from(&accepted)
        }
        other => other,
    });
    let mut costly = accepted("fourteen", Trail::default());
    if let Line::Accepted { budget, .. } = &mut costly {
        *budget = Some(limits());
    }
    lines.push(costly);
    for (name, owes) in [("one", true), ("gone", true), ("one", false), ("one", true)] {
        lines.push(Line::Owes { task: key(name), owes });
    }
    lines
}

fn limits() -> Limits {
    let (attempts, tokens, money_micros) = (Some(3), Some(1000), Some(17));
    Limits { attempts, tokens, money_micros, ..Limits::default() }
}

/// Each record by a number of its own. One that is added here must be among [`lines`].
fn kind(line: &Line) -> usize {
    match line {
        Line::Accepted { .. } => 0,
        Line::Fated { .. } => 1,
        Line::Released { .. } => 2,
        Line::Discarded { .. } => 3,
        Line::Withdrawn { .. } => 4,
        Line::TakenUp { .. } => 5,
        Line::WentBack { .. } => 6,
        Line::HandedOut { .. } => 7,
        Line::Intent(_) => 8,
        Line::Status { .. } => 9,
        Line::Asked { .. } => 10,
        Line::Retired { .. } => 11,
        Line::Made { .. } => 12,
        Line::Unmade { .. } => 13,
        Line::Returned { .. } => 14,
        Line::Owes { .. } => 15,
    }
}

/// A change of what is written is a new version, with a file of its own.
#[test]
fn what_is_written_today_is_what_the_newest_version_wrote() {
    let lines = lines();
    let kinds: std::collections::BTreeSet<_> = lines.iter().map(kind).collect();
    assert_eq!(kinds, (0..16).collect(), "all that can be written");
    let texts = std::fs::read_to_string(file(VERSION)).unwrap();
    let newest: Vec<&str> = texts.lines().collect();
    let today: Vec<_> = lines.iter().map(|line| serde_json::to_string(line).unwrap()).collect();
    assert_eq!(today, newest, "a change of what is written is a new version of the journal");
    // Read, and written again as it was read.
    for text in newest {
        let line: Line = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&line).unwrap(), text);
    }
}

fn given() -> Given {
    Given {
        served_by: Some(ChildPath::new("desk/agents/second")),
        degraded: true,
        defaulted: true,
        attempts: 2,
        cost: Cost { tokens: 9, money_micros: 5 },
        ..Given::default()
    }
}

fn happened() -> StoredHappened {
    StoredHappened::More {
        result: "\"done\"".to_owned(),
        served_by: Some(ChildPath::new("desk/tills/second")),
        degraded: true,
        defaulted: false,
        stands: false,
        cost: Some(Cost { tokens: 7, money_micros: 0 }),
    }
}

/// As this version of the journal has written it.
fn as_of(version: u32) -> Happened {
    let happened = Happened::from(happened());
    Happened { cost: if version > 9 { happened.cost } else { Cost::default() }, ..happened }
}

fn statuses() -> Vec<StoredStatus> {
    let fault = Fault::new(Class::ToolExecution, "no").with_code("e");
    vec![
        StoredStatus::Intended,
        StoredStatus::Confirmed(StoredHappened::Plain("\"done\"".to_owned())),
        StoredStatus::Rejected,
        StoredStatus::Failed(fault),
        StoredStatus::Unknown,
        StoredStatus::Compensating,
        StoredStatus::Compensated,
        StoredStatus::Stuck("why".to_owned()),
        StoredStatus::Confirmed(happened()),
        StoredStatus::Left(happened()),
    ]
}

#[tokio::test(start_paused = true)]
async fn what_every_version_wrote_is_read() {
    if std::env::var("MAINSTAY_GOLDEN").is_ok_and(|it| it == "write") && !file(VERSION).exists() {
        let lines = lines();
        let texts = lines.iter().map(|line| serde_json::to_string(line).unwrap() + "\n");
        std::fs::write(file(VERSION), texts.collect::<String>()).unwrap();
    }
    for version in 3..=VERSION {
        let texts = std::fs::read_to_string(file(version)).unwrap();
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        for text in texts.lines() {
            let schema = SchemaId::new(SCHEMA, version);
            let (_, bytes) = codec::seal_raw(&schema, text.as_bytes()).unwrap();
            store.commit(Batch::new().append(STREAM, bytes), Durability::Sync).await.unwrap();
        }
        let (journal, records) = Journal::open(store, clock()).unwrap();
        let known = |key| journal.known(key);
        assert_eq!(known("one"), Some(Journaled::Open));
        assert_eq!(known("two"), Some(Journaled::Fated(Fate::Done, Some("8".to_owned()))));
        assert_eq!(known("three"), Some(Journaled::Fated(Fate::Quarantined, None)));
        assert_eq!(known("four"), Some(Journaled::Open));
        assert_eq!(known("five"), Some(Journaled::Fated(Fate::Quarantined, None)));
        assert_eq!(known("six"), None);
        let aside: Vec<_> =
            journal.set_aside().into_iter().map(|it| (it.open.key, it.deleted)).collect();
        let all = [("three", false), ("eleven", true), ("twelve", true), ("thirteen", false)];
        let all = all.map(|(key, deleted)| (Arc::<str>::from(key), deleted));
        assert_eq!(aside, all[..if version > 9 { 4 } else { 1 }]);
        assert!(journal.is_used_up(CheckpointId(77)));
        let open = journal.open_requests();
        let found: Vec<_> = open.iter().map(|it| (it.taken, it.back.clone())).collect();
        if version > 5 {
            let back = |own, at: Option<&str>| Back { own, widest: at.map(ChildPath::new) };
            let all = [
                (0, back(true, None)),
                (2, back(false, Some("desk"))),
                (3, back(true, Some("desk"))),
                (0, Back::default()),
            ];
            assert_eq!(found, all[..if version > 10 { 4 } else { 3 }]);
        } else {
            assert_eq!(found, vec![(0, Back::default()); 2]);
        }
        let budgets: Vec<_> = open.iter().filter_map(|it| it.budget).collect();
        assert_eq!(budgets, vec![limits(); usize::from(version > 10)]);
        let hands: Vec<_> = open.iter().map(|it| it.hand).collect();
        match version {
            11.. => assert_eq!(hands, [Hand::Out, Hand::In, Hand::In, Hand::Harmless]),
            7.. => assert_eq!(hands, [Hand::Out, Hand::In, Hand::In]),
            _ => assert!(hands.iter().all(|hand| *hand == Hand::Untold), "{hands:?}"),
        }
        let rounds: Vec<_> = open.iter().map(|it| it.round).collect();
        match version {
            11.. => assert_eq!(rounds, [0, 1, u64::MAX, 0]),
            _ => assert!(rounds.iter().all(|round| *round == 0), "{rounds:?}"),
        }
        let made: Vec<_> = journal.made().into_iter().map(|(_, made)| made).collect();
        assert_eq!(made.len(), usize::from(version > 7));
        if let [made] = &made[..] {
            let (child, before) = (ChildPath::new("desk/pool/a"), CheckpointId(78));
            assert_eq!((&made.child, &*made.template), (&child, "sum"));
            assert_eq!(made.arguments, "{\"first\":5}");
            assert!(journal.is_of_another(&child, before));
            // It had not come to this when it was gone.
            assert_eq!(known("ten"), Some(Journaled::Fated(Fate::Stopped, None)));
        }
        let count = records.len();
        let ledger = Ledger::replayed(records);
        let names: Vec<_> = ledger.entries().iter().map(|it| it.status.name()).collect();
        // Also by a journal that is written anew.
        for ledger in [&ledger, &Ledger::replayed(ledger.records())] {
            let said: Vec<_> = ledger.entries().iter().filter_map(|it| it.said.clone()).collect();
            let ann = Arc::new(Said::new("ann", "the bank says so"));
            assert_eq!(said, vec![ann; usize::from(version > 8)]);
        }
        let asked = usize::from(version > 4);
        let owes = if version > 11 { 4 } else { 0 };
        let others = 1 + asked + owes;
        assert_eq!(names.len() * 2 + others, count, "an intent and a status each, and others");
        for ledger in [&ledger, &Ledger::replayed(ledger.records())] {
            let owing: Vec<_> = ledger.owing().iter().map(|task| &**task).collect();
            assert_eq!(owing, vec!["one"; usize::from(version > 11)], "of whom an act is known");
        }
        if asked > 0 {
            let key = key_of(&intent(77));
            let answer = EffectStatus::Confirmed(as_of(version));
            assert_eq!(ledger.recalled("two", key), Some(&answer));
            let due = (6, Arc::from("seven"), Some("{\"pay\":5}".to_owned()));
            let once = (7, Arc::from("eight"), None);
            assert_eq!(journal.replays(&ChildPath::new("desk/agent"), 4), [due, once.clone()]);
            assert_eq!(journal.replays(&ChildPath::new("desk/agent"), 6), [once]);
        }
        let all = [
            "intended",
            "confirmed",
            "rejected",
            "failed",
            "unknown",
            "compensating",
            "compensated",
            "stuck",
        ];
        assert_eq!(names[..8], all);
        assert!(ledger.entries()[0].intent.undo.is_some());
        assert_eq!(journal.given_of("two"), (version > 9).then(given));
        let marked = as_of(version);
        let later = [EffectStatus::Confirmed(marked.clone()), EffectStatus::Left(marked)];
        if version > 3 {
            let found: Vec<_> = ledger.entries()[8..].iter().map(|it| it.status.clone()).collect();
            assert_eq!(found, later);
        }
    }
}

/// The journal of these payloads, as a version has written them.
async fn read(payloads: &[Vec<u8>], version: u32) -> Result<(), RecoverError> {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let schema = SchemaId::new(SCHEMA, version);
    let batch = payloads.iter().fold(Batch::new(), |batch, payload| {
        batch.append(STREAM, codec::seal_raw(&schema, payload).unwrap().1)
    });
    store.commit(batch, Durability::Sync).await.unwrap();
    let (journal, records) = Journal::open(store, clock())?;
    // Whatever it has made of that can be looked at, and written anew.
    let ledger = Ledger::replayed(records);
    drop((ledger.entries(), ledger.records().len(), journal.made(), journal.set_aside()));
    for open in journal.open_requests() {
        drop((journal.known(&open.key), journal.replays(&open.child, 0)));
    }
    Ok(())
}

/// Changes one of the values in it, counted from outside, into another one; none where there are not so many.
fn change(value: &mut serde_json::Value, nth: &mut usize, other: &serde_json::Value) {
    use serde_json::Value;
    if *nth == 0 {
        *value = other.clone();
    }
    *nth = nth.wrapping_sub(1);
    match value {
        Value::Array(list) => list.iter_mut().for_each(|it| change(it, nth, other)),
        Value::Object(members) => members.values_mut().for_each(|it| change(it, nth, other)),
        _ => {}
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(400))]

    /// A record that says anything is read or refused by its position, whatever stands around it.
    #[test]
    fn a_record_of_any_bytes_is_read_or_refused_by_its_position(
        version in 1..=VERSION,
        at in 0..400_usize,
        nth in 0..24_usize,
        what in 0..8_usize,
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40),
    ) {
        let texts = std::fs::read_to_string(file(version.max(3))).unwrap();
        let mut payloads: Vec<Vec<u8>> = texts.lines().map(|it| it.as_bytes().to_vec()).collect();
        let at = at % payloads.len();
        let others = serde_json::json!([null, -1, u64::MAX, "", "cp-", [], {"confirmed": {}}]);
        let changed = &mut payloads[at];
        match others.get(what) {
            Some(other) => {
                let mut value = serde_json::from_slice(changed).unwrap();
                change(&mut value, &mut { nth }, other);
                *changed = serde_json::to_vec(&value).unwrap();
            }
            None => {
                let from = nth % changed.len();
                changed.splice(from..changed.len().min(from + bytes.len()), bytes);
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        match runtime.block_on(read(&payloads, version)) {
            // What it says may be found not to fit by one that comes after it.
            Err(RecoverError::Journal { position, why }) => {
                assert!(position > at as u64 && position <= payloads.len() as u64, "{position}: {why}");
                assert!(!why.is_empty());
            }
            other => other.unwrap(),
        }
    }
}
