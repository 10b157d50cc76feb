//! What earlier versions wrote is read by this one.
//!
//! `tests/golden/` has a folder for each version of the format: an export, and a store as its files.
//! They are never written again. A new version adds a folder: run with `MAINSTAY_GOLDEN=write`. `journal/` has those of the
//! journal, one file a version from 3 on: 1 and 2 never left this project.
//!
//! What is written today is compared with the newest version, so that nobody changes it without noticing: here the
//! envelopes, in `checkpoint/file/tests` the log, in `journal/tests/golden` the journal.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mainstay::checkpoint::{
    Batch, Budgets, Checkpoint, Digest, Draft, Durability, Export, FileOptions, FileStore,
    LineDraft, Now, Pin, Rules, Schema, Schemas, Scope, Snapshot, Store, Topology, Validator, Wall,
    codec,
};
use mainstay::id::{ChildPath, Incarnation};
use mainstay::moment::Moment;
use serde::{Deserialize, Serialize};

const START: Wall = Wall(1_760_000_000_000);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Turn {
    User(String),
    Tool { name: String, arguments: String, result: Option<String> },
}

fn turns(count: usize) -> Vec<Turn> {
    let tool = Turn::Tool {
        name: "query_order".to_owned(),
        arguments: r#"{"order":1042}"#.to_owned(),
        result: Some("in transit".to_owned()),
    };
    let pair = [Turn::User("Wo ist meine Bestellung 1042?".to_owned()), tool];
    pair.into_iter().cycle().take(count).collect()
}

fn now(seconds: u64) -> Now {
    let wall = START.after(Duration::from_secs(seconds));
    Now { wall, moment: Moment::from_millis(seconds * 1000) }
}

fn snapshot(step: u64) -> Snapshot {
    Snapshot::new("agent", 1)
        .with("tools_used", Arc::new(vec!["query_order".to_owned()]))
        // Long enough to be compressed.
        .with("context", Arc::new(turns(200)))
        .with("memory", Arc::new((step, -1.5_f64, Some('ß'))))
}

fn folder(version: u32) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/golden").join(format!("v{version}"))
}

fn write(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let store = FileOptions::new().segment_bytes(3000).open(folder.join("store")).unwrap();
    let commit = |batch| store.commit(batch, Durability::Sync).wait().unwrap();
    let topology = Topology::new(["root/agent agent".to_owned(), "root/tool tool".to_owned()]);
    commit(Batch::new().topology(topology.clone()));
    let agent = ChildPath::new("root/agent");
    let mut last: Option<Arc<Checkpoint>> = None;
    for step in 1..=4 {
        let draft = Draft::new(agent.clone(), snapshot(step), now(step))
            .at(Incarnation(2), step)
            .scope(Scope::Flow)
            .envelope(b"Where is order 1042?".to_vec())
            .topology(topology.digest)
            .ledger(step)
            .mailbox_cut(40 + step)
            .policy(Digest::of(b"policy"))
            .budgets(Budgets { attempts: 3, tokens: 1000, money_micros: 17, wall_millis: 250 });
        let draft = match &last {
            Some(last) => draft.after(last),
            None => draft,
        };
        let sealed = draft.seal().unwrap();
        commit(Batch::new().checkpoint(&sealed).append("requests", vec![step as u8; 5]));
        last = Some(Arc::clone(sealed.checkpoint()));
        if step == 2 {
            // The first two become a base, the others stand in logs.
            store.compact().unwrap();
            let pin = Pin {
                owner: "operator".to_owned(),
                reason: "approval".to_owned(),
                since: now(2).wall,
                until: now(7200).wall,
            };
            commit(Batch::new().pin(sealed.checkpoint().id, pin).trim("requests", 2));
        }
    }
    let last = last.unwrap();
    let line = LineDraft::new(Scope::Session, ChildPath::new("root"), now(5)).member(&last);
    commit(Batch::new().line(line.journal("requests", 5).draw().unwrap()));
    commit(Batch::new().mark_bad(last.id, "it failed a restore"));
    let export = store.load(last.id).unwrap().export().unwrap();
    std::fs::write(folder.join("export.bin"), export).unwrap();
    drop(store);
    std::fs::remove_file(folder.join("store/LOCK")).unwrap();
}

fn read(folder: &Path) {
    let place = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder.join("store")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), place.path().join(entry.file_name())).unwrap();
    }
    let store = FileStore::open(place.path()).unwrap();
    let agent = ChildPath::new("root/agent");
    let listed = store.checkpoints(&agent).unwrap();
    assert_eq!(listed.len(), 4);
    let schema = Schema::agent(1)
        .field::<Vec<String>>("tools_used")
        .field::<Vec<Turn>>("context")
        .field::<(u64, f64, Option<char>)>("memory");
    let schemas = Schemas::new().register(schema).unwrap();
    let topology = store.info().unwrap().topology.unwrap();
    assert_eq!(topology.lines, ["root/agent agent", "root/tool tool"]);
    let rules = Rules { topology: Some(topology.digest), ledger: 4, ..Rules::at(now(10)) };
    let search = Validator::new(&store, &schemas, rules).newest(&agent).unwrap();
    assert_eq!(search.refused.len(), 1, "the newest was set aside");
    let valid = search.found.unwrap();
    let checkpoint = valid.checkpoint();
    assert_eq!(
        (checkpoint.step, checkpoint.incarnation, checkpoint.ledger),
        (3, Incarnation(2), 3)
    );
    assert_eq!((checkpoint.scope, checkpoint.mailbox_cut), (Scope::Flow, 43));
    assert_eq!((checkpoint.created_at, checkpoint.validity().as_secs()), (now(3).wall, 3600));
    assert_eq!(checkpoint.budgets.tokens, 1000);
    assert_eq!(checkpoint.policy, Digest::of(b"policy"));
    assert_eq!(checkpoint.lineage.seq, 2);
    assert_eq!(valid.envelope(), Some(&b"Where is order 1042?"[..]));
    assert_eq!(*valid.snapshot().get::<Vec<Turn>>("context").unwrap(), turns(200));
    let memory = valid.snapshot().get::<(u64, f64, Option<char>)>("memory").unwrap();
    assert_eq!(*memory, (3, -1.5, Some('ß')));
    // What is encoded today has the same name as what was encoded then.
    let encoded = valid.snapshot().digest().unwrap();
    assert_eq!(encoded, snapshot(3).digest().unwrap());
    assert_eq!(listed[2].pins[0].owner, "operator");
    let records = store.scan("requests", 1, 9).unwrap();
    assert_eq!(
        records.iter().map(|it| (it.position, it.bytes[0])).collect::<Vec<_>>(),
        [(2, 2), (3, 3), (4, 4)]
    );
    let lines = store.lines(Scope::Session, &ChildPath::new("root")).unwrap();
    assert_eq!(lines[0].members, [(agent, listed[0].checkpoint.id)]);
    assert_eq!(lines[0].journal, [(Arc::from("requests"), 5)]);
    assert_eq!(store.quarantined().unwrap()[0].bad.as_deref(), Some("it failed a restore"));
    let export = Export::read(&std::fs::read(folder.join("export.bin")).unwrap()).unwrap();
    assert_eq!(export.checkpoint().step, 4);
    assert_eq!(*export.snapshot.get::<Vec<Turn>>("context").unwrap(), turns(200));
    // And it can be written on.
    let batch = Batch::new().append("requests", vec![5]);
    let receipt = store.commit(batch, Durability::Sync).wait().unwrap();
    assert_eq!(receipt.positions[0].1, 5);
}

#[test]
fn every_version_of_the_format_is_read() {
    let newest = {
        let place = tempfile::tempdir().unwrap();
        FileStore::open(place.path()).unwrap().info().unwrap().format
    };
    if std::env::var_os("MAINSTAY_GOLDEN").is_some() && !folder(newest).exists() {
        write(&folder(newest));
    }
    for version in 1..=newest {
        read(&folder(version));
    }
}

/// What an envelope says of its payload before compression, and that payload: a later compressor may do better.
fn plain(bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let opened = codec::open(bytes).unwrap();
    (bytes[..20].to_vec(), opened.payload().to_vec())
}

#[test]
fn what_is_written_today_is_what_the_newest_version_wrote() {
    const CHANGED: &str = "it is written otherwise than by the newest version: a change of the format is a new version, with its own \
         golden files";
    let newest = versions().last().unwrap();
    let then = std::fs::read(newest.join("export.bin")).unwrap();
    let export = Export::read(&then).unwrap();
    // The checkpoint and the export are encoded anew.
    assert_eq!(plain(&export.export().unwrap()), plain(&then), "{CHANGED}");
    let checkpoint = export.checkpoint();
    // And so is each content: the names of them all are in the checkpoint.
    let draft = Draft::new(checkpoint.child.clone(), snapshot(4), now(4));
    let sealed = draft.envelope(b"Where is order 1042?".to_vec()).seal().unwrap();
    let names: Vec<Digest> = checkpoint.contents().collect();
    let now: Vec<Digest> = sealed.checkpoint().contents().collect();
    assert_eq!(now, names, "{CHANGED}");
    let (_, all) = plain(&then);
    let (mut whole, mut compressed) = (0, 0);
    for (_, bytes) in sealed.parts() {
        let is_compressed = bytes[6] == 1;
        // Of one that is compressed its head up to the length of what is stored, and the name of its schema.
        let head = if is_compressed { &bytes[..20] } else { &bytes[..] };
        assert!(all.windows(head.len()).any(|there| there == head), "{CHANGED}: {bytes:x?}");
        compressed += u32::from(is_compressed);
        whole += u32::from(!is_compressed);
    }
    assert_eq!((whole, compressed), (3, 1), "{CHANGED}");
}

/// Every version that is written or was.
fn versions() -> impl Iterator<Item = PathBuf> {
    let place = tempfile::tempdir().unwrap();
    let newest = FileStore::open(place.path()).unwrap().info().unwrap().format;
    (1..=newest).map(folder)
}

#[test]
fn every_prefix_and_every_flipped_bit_of_an_export_of_any_version_is_refused() {
    for folder in versions() {
        let bytes = std::fs::read(folder.join("export.bin")).unwrap();
        assert!(Export::read(&bytes).is_ok());
        for end in 0..bytes.len() {
            assert!(Export::read(&bytes[..end]).is_err(), "{folder:?} cut at {end}");
        }
        for at in 0..8 * bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            assert!(Export::read(&flipped).is_err(), "{folder:?}, bit {at} flipped");
        }
    }
}

#[test]
fn a_base_cut_or_altered_at_any_byte_is_refused_in_any_version() {
    for folder in versions() {
        let place = tempfile::tempdir().unwrap();
        let mut bases = Vec::new();
        for entry in std::fs::read_dir(folder.join("store")).unwrap() {
            let entry = entry.unwrap();
            let to = place.path().join(entry.file_name());
            std::fs::copy(entry.path(), &to).unwrap();
            if entry.file_name().to_string_lossy().starts_with("base-") {
                bases.push(to);
            }
        }
        assert_eq!(bases.len(), 1, "{folder:?}");
        let bytes = std::fs::read(&bases[0]).unwrap();
        for at in 0..bytes.len() {
            std::fs::write(&bases[0], &bytes[..at]).unwrap();
            let refused = FileStore::open(place.path());
            assert!(refused.is_err(), "{folder:?} cut at {at}: {refused:?}");
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            std::fs::write(&bases[0], &flipped).unwrap();
            let refused = FileStore::open(place.path());
            assert!(refused.is_err(), "{folder:?}, a bit of byte {at} flipped: {refused:?}");
        }
        std::fs::write(&bases[0], &bytes).unwrap();
        assert!(FileStore::open(place.path()).is_ok(), "{folder:?}");
    }
}
