use std::sync::Arc;

use super::*;
use crate::id::{ChildPath, Incarnation};
use crate::moment::Moment;

#[test]
fn a_checkpoint_is_due_every_ten_steps_unless_told_otherwise() {
    let due = |interval: Interval| -> Vec<u64> {
        (0..=40).filter(|step| interval.is_due(*step, 0, 0)).collect()
    };
    assert_eq!(due(Interval::default()), [10, 20, 30, 40]);
    assert_eq!(due(Interval::Steps(16)), [16, 32]);
    assert_eq!(due(Interval::Steps(1)).len(), 40);
    assert!(due(Interval::Steps(0)).is_empty());
    assert!(due(Interval::Never).is_empty());
    assert!(due(Interval::EveryEffect).is_empty());
}

#[test]
fn units_are_counted_by_the_multiples_they_pass() {
    let lines = Interval::Units { name: "lines".into(), n: 10 };
    for (last, now, due) in [
        (0, 9, false),
        (0, 10, true),
        (10, 19, false),
        (10, 20, true),
        // Seven lines in one step: 18 to 25 passes 20.
        (18, 25, true),
        (3, 47, true),
        (21, 29, false),
    ] {
        assert_eq!(lines.is_due(1, last, now), due, "{last} to {now}");
    }
    assert!(!Interval::Units { name: "lines".into(), n: 0 }.is_due(1, 0, 99));
}

#[test]
fn each_scope_has_the_limit_and_the_risk_of_the_playbook() {
    let table = Scope::ALL.map(|scope| (scope.name(), scope.limit().as_secs(), scope.risk()));
    let wanted = [
        ("step", 5, Risk::Low),
        ("flow", 10, Risk::Medium),
        ("transaction", 30, Risk::High),
        ("session", 60, Risk::Medium),
        ("system", 300, Risk::High),
    ];
    assert_eq!(table, wanted);
    let mut scope = Some(Scope::Step);
    let mut wider = Vec::new();
    while let Some(here) = scope {
        wider.push(here);
        scope = here.wider();
    }
    assert_eq!(wider, Scope::ALL);
}

#[test]
fn the_defaults_are_one_hour_a_day_of_pins_and_synchronous() {
    assert_eq!(VALIDITY, Duration::from_secs(3600));
    assert_eq!(LONGEST_PIN, Duration::from_secs(86_400));
    assert_eq!(Durability::default(), Durability::Sync);
    assert_eq!(AGENT_FIELDS, ["tools_used", "context", "memory"]);
}

#[test]
fn an_id_is_a_uuid_of_version_seven_and_never_given_twice() {
    let wall = Wall(0x0123_4567_89ab);
    let ids: std::collections::BTreeSet<_> = (0..1000).map(|_| new_checkpoint_id(wall)).collect();
    assert_eq!(ids.len(), 1000);
    for id in ids {
        let text = id.to_string();
        assert!(text.starts_with("cp-01234567-89ab-7"), "{text}");
        assert!(matches!(text.as_bytes()[22], b'8' | b'9' | b'a' | b'b'), "{text}");
    }
    assert!(new_checkpoint_id(Wall(1)) < new_checkpoint_id(Wall(2)));
}

#[test]
fn what_is_corrupt_is_said_to_be_so_once() {
    let cut = crate::error::CodecError::Corrupt("it ends too early".to_owned());
    let error = store::unreadable("log", crate::id::CheckpointId(7), store::REQUEST, cut);
    let text = crate::error::CheckpointError::from(error).to_string();
    assert!(text.ends_with(": it ends too early"), "{text}");
    assert_eq!(text.matches("corrupt").count(), 1, "{text}");
}

#[test]
fn what_is_left_of_a_child_goes_but_for_what_came_before_that_and_needs_it() {
    let folder = tempfile::tempdir().unwrap();
    let stores: [Arc<dyn Store>; 2] =
        [Arc::new(MemoryStore::new()), Arc::new(FileStore::open(folder.path()).unwrap())];
    let now = Now { wall: Wall(1_700_000_000_000), moment: Moment::START };
    for store in stores {
        for round in 0..20 {
            let child = ChildPath::new("desk").join(&format!("c{round}"));
            let sealed = [1, 2, 3, 4].map(|step| {
                let draft = Draft::new(child.clone(), Snapshot::new("sum", 1), now);
                draft.at(Incarnation(1), step).seal().unwrap()
            });
            let id = |nth: usize| sealed[nth].checkpoint().id;
            let all = sealed.iter().fold(Batch::new(), Batch::checkpoint);
            let line = LineDraft::new(Scope::Session, ChildPath::new("desk"), now);
            let line = line.member(sealed[0].checkpoint()).draw().unwrap();
            let pin = |owner: &str| Pin {
                owner: owner.to_owned(),
                reason: "a test".to_owned(),
                since: now.wall,
                until: Wall(u64::MAX),
            };
            // Its own pins hold nothing any more. All these are on their way when it goes.
            let needs = Batch::new().pin(id(1), pin("ann")).pin(id(2), pin(child.as_str()));
            let clear = Batch::new().item(store::Item::Clear(child.clone(), now.wall));
            let commits = [all, Batch::new().line(line), needs, clear]
                .map(|batch| store.commit(batch, Durability::Async));
            for commit in commits {
                commit.wait().unwrap();
            }
            let left = store.checkpoints(&child).unwrap();
            let left: Vec<_> = left.iter().map(|listed| listed.checkpoint.id).collect();
            assert_eq!(left, [id(1), id(0)], "{store:?}");
        }
    }
    // It is so for the next process, too.
    let store = FileStore::open(folder.path()).unwrap();
    assert_eq!(store.info().unwrap().checkpoints, 40);
}

/// A content that somebody has altered together with its checksum, so that all bytes are as if they had been written.
#[test]
fn a_content_that_is_not_what_its_name_says_is_corrupt_although_its_checksum_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::open(folder.path()).unwrap();
    let now = Now { wall: Wall(1_700_000_000_000), moment: Moment::START };
    let schema = SchemaId::new("sum", 1);
    let (name, _) = codec::encode(&schema, &7_u32).unwrap();
    let (_, altered) = codec::encode(&schema, &8_u32).unwrap();
    let encoded = snapshot::Encoded { digest: name, bytes: Arc::new(altered) };
    let snapshot = Snapshot::new("sum", 1).with_piece(Piece::stored("n".into(), encoded));
    let sealed = Draft::new(ChildPath::new("desk"), snapshot, now).seal().unwrap();
    store.commit(Batch::new().checkpoint(&sealed), Durability::Sync).wait().unwrap();
    let error = store.load(sealed.checkpoint().id).unwrap_err();
    assert!(matches!(error, crate::error::StoreError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains(&name.to_string()), "{error}");
}
