use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Deserializer, Serializer};

use super::*;
use crate::checkpoint::{Batch, Durability};
use crate::checkpoint::{Draft, MemoryStore, Now, Store, Wall};
use crate::id::ChildPath;
use crate::moment::Moment;

static ENCODED: AtomicUsize = AtomicUsize::new(0);

/// Counts how often it is encoded.
struct Counted(u32);

impl Serialize for Counted {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ENCODED.fetch_add(1, Ordering::SeqCst);
        serializer.serialize_u32(self.0)
    }
}

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u32::deserialize(deserializer).map(Self)
    }
}

#[test]
fn a_piece_is_encoded_once_however_often_it_is_stored() {
    let value = Arc::new(Counted(7));
    let mut last = Snapshot::new("agent", 1);
    let before = ENCODED.load(Ordering::SeqCst);
    for step in 0..50_u32 {
        let next = Snapshot::new("agent", 1)
            .with("counted", Arc::clone(&value))
            .with("step", Arc::new(step))
            .following(&last);
        next.digest().unwrap();
        next.digest().unwrap();
        last = next.clone();
    }
    assert_eq!(ENCODED.load(Ordering::SeqCst) - before, 1);
    assert!(last.pieces()[0].is_encoded());
}

#[test]
fn a_snapshot_made_after_another_takes_over_what_did_not_change() {
    let (kept, changed) = (Arc::new(1_u8), Arc::new(2_u8));
    let before = Snapshot::new("agent", 4).with("kept", Arc::clone(&kept)).with("changed", changed);
    before.digest().unwrap();
    let next = Snapshot::after(&before).with("kept", kept).with("changed", Arc::new(2_u8));
    assert_eq!(next.schema(), before.schema());
    let encoded: Vec<bool> = next.pieces().iter().map(Piece::is_encoded).collect();
    assert_eq!(encoded, [true, false]);
    assert_eq!(next.digest().unwrap(), before.digest().unwrap());
    assert!(Snapshot::after(&before).pieces().is_empty());
}

#[test]
fn a_snapshot_in_a_draft_holds_nothing_of_the_one_before() {
    let old = Arc::new("old".to_owned());
    let before = Snapshot::new("agent", 1).with("memory", Arc::clone(&old));
    let after = || Snapshot::after(&before).with("memory", Arc::new("new".to_owned()));
    let now = Now { wall: Wall(1), moment: Moment::START };
    let draft = Draft::new(ChildPath::new("a"), after(), now);
    let followed = after().following(&before);
    drop(before);
    assert_eq!(Arc::strong_count(&old), 1);
    assert_eq!((draft.seal().is_ok(), followed.has("memory")), (true, true));
}

#[test]
fn a_snapshot_gives_back_the_very_value_it_was_given() {
    let value = Arc::new(vec![1_u8, 2]);
    let snapshot = Snapshot::new("agent", 1).with("context", Arc::clone(&value));
    assert!(Arc::ptr_eq(&snapshot.get::<Vec<u8>>("context").unwrap(), &value));
    assert!(!snapshot.pieces()[0].is_encoded(), "nobody has asked for its bytes");
    let missing = snapshot.get::<Vec<u8>>("memory").unwrap_err();
    assert_eq!(missing, CheckpointError::MissingField("memory".to_owned()));
    let wrong = snapshot.get::<String>("context").unwrap_err();
    assert!(matches!(wrong, CheckpointError::IllTyped { ref field, .. } if field == "context"));
}

#[test]
fn a_piece_from_a_store_is_decoded_once_and_not_written_again() {
    let value = Arc::new(Counted(9));
    let snapshot = Snapshot::new("agent", 1).with("counted", value);
    let encoded = snapshot.pieces()[0].encoded(snapshot.schema()).unwrap().clone();
    let stored = Piece::stored("counted".into(), encoded.clone());
    let loaded = Snapshot::new("agent", 1).with_piece(stored);
    let first = loaded.get::<Counted>("counted").unwrap();
    assert!(Arc::ptr_eq(&first, &loaded.get::<Counted>("counted").unwrap()));
    assert!(matches!(loaded.get::<String>("counted"), Err(CheckpointError::IllTyped { .. })));
    // The restored state goes on with this value, and its next snapshot knows its bytes.
    let next = Snapshot::new("agent", 1).with("counted", first).following(&loaded);
    assert!(next.pieces()[0].is_encoded());
    assert_eq!(next.pieces()[0].encoded(next.schema()).unwrap().digest, encoded.digest);
}

#[test]
fn only_the_same_value_under_the_same_name_and_schema_is_taken_over() {
    let value = Arc::new(1_u8);
    let before = Snapshot::new("agent", 2).with("a", Arc::clone(&value));
    before.digest().unwrap();
    let taken = |next: Snapshot| next.following(&before).pieces()[0].is_encoded();
    assert!(taken(Snapshot::new("agent", 2).with("a", Arc::clone(&value))));
    assert!(taken(Snapshot::new("agent", 3).with("a", Arc::clone(&value))));
    assert!(!taken(Snapshot::new("agent", 1).with("a", Arc::clone(&value))));
    assert!(!taken(Snapshot::new("tool", 2).with("a", Arc::clone(&value))));
    assert!(!taken(Snapshot::new("agent", 2).with("b", Arc::clone(&value))));
    assert!(!taken(Snapshot::new("agent", 2).with("a", Arc::new(1_u8))));
}

#[test]
fn the_digest_names_the_content_and_not_how_it_was_put_together() {
    let of = |pairs: &[(&'static str, u8)]| {
        let snapshot = Snapshot::new("agent", 1);
        let all = pairs.iter().fold(snapshot, |it, (name, value)| it.with(*name, Arc::new(*value)));
        all.digest().unwrap()
    };
    assert_eq!(of(&[("a", 1), ("b", 2)]), of(&[("b", 2), ("a", 1)]));
    assert_eq!(of(&[("a", 9), ("b", 2), ("a", 1)]), of(&[("a", 1), ("b", 2)]));
    assert_ne!(of(&[("a", 1), ("b", 2)]), of(&[("a", 2), ("b", 1)]));
    assert_ne!(of(&[("a", 1)]), of(&[("b", 1)]));
}

#[test]
fn a_piece_that_cannot_be_stored_is_named_when_the_checkpoint_is_made() {
    let now = Now { wall: Wall(1), moment: Moment::START };
    let snapshot = Snapshot::new("agent", 1)
        .with("fine", Arc::new(BTreeMap::from([(1, 2)])))
        .with("json", Arc::new(serde_json::json!({"a": [1, 2]})));
    let error = Draft::new(ChildPath::new("a"), snapshot, now).seal().unwrap_err();
    assert!(
        matches!(&error, CheckpointError::Unstorable { field, .. } if field == "json"),
        "{error}"
    );
}

#[test]
fn what_is_printed_of_a_snapshot_holds_no_value() {
    let snapshot = Snapshot::new("agent", 1).with("memory", Arc::new("a secret".to_owned()));
    let printed = format!("{snapshot:?} {:?}", snapshot.pieces());
    assert!(printed.contains("memory") && !printed.contains("secret"), "{printed}");
}

#[test]
fn the_store_in_memory_hands_out_the_values_it_was_given() {
    let value = Arc::new("state".to_owned());
    let now = Now { wall: Wall(1), moment: Moment::START };
    let snapshot = Snapshot::new("agent", 1).with("memory", Arc::clone(&value));
    let sealed = Draft::new(ChildPath::new("a"), snapshot, now).seal().unwrap();
    let store = MemoryStore::new();
    store.commit(Batch::new().checkpoint(&sealed), Durability::Sync).wait().unwrap();
    let loaded = store.load(sealed.checkpoint().id).unwrap();
    assert!(Arc::ptr_eq(&loaded.snapshot.get::<String>("memory").unwrap(), &value));
}
