//! What is left of a store after crashes, power cuts, full disks and flipped bits.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainstay::checkpoint::file::{AlteredEnd, Faults, Touch};
use mainstay::checkpoint::{
    Batch, Draft, Durability, FileOptions, FileStore, Now, Receipt, Retention, Rules, Schemas,
    Sealed, Snapshot, Store, Validator, Wall,
};
use mainstay::error::StoreError;
use mainstay::id::{ChildPath, Incarnation};
use mainstay::moment::Moment;
use proptest::prelude::*;
use tempfile::TempDir;

const FIRST: &str = "log-0000000001.seg";

/// A folder in memory where there is one: these tests are about bytes, and there are thousands of them.
fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn now(step: u64) -> Now {
    Now { wall: Wall(1_700_000_000_000 + step), moment: Moment::from_millis(step) }
}

fn agent() -> ChildPath {
    ChildPath::new("root/agent")
}

fn seal(step: u64, memory: &str, parent: Option<&Sealed>) -> Sealed {
    let snapshot = Snapshot::new("agent", 1).with("memory", Arc::new(memory.to_owned()));
    let draft = Draft::new(agent(), snapshot, now(step)).at(Incarnation(1), step);
    match parent {
        Some(parent) => draft.after(parent.checkpoint()),
        None => draft,
    }
    .seal()
    .unwrap()
}

fn commit(store: &FileStore, batch: Batch) -> Result<Receipt, StoreError> {
    store.commit(batch, Durability::Sync).wait()
}

/// A log of a few batches of every kind of item, and its length after each.
fn sample(folder: &Path) -> Vec<u64> {
    let store = FileStore::open(folder).unwrap();
    let len = || std::fs::metadata(folder.join(FIRST)).unwrap().len();
    let mut lens = vec![len()];
    let mut last: Option<Sealed> = None;
    for step in 1..=5 {
        let sealed = seal(step, &format!("memory {step}"), last.as_ref());
        let batch = Batch::new().checkpoint(&sealed).append("requests", vec![step as u8; 9]);
        let batch = if step == 4 {
            batch.mark_bad(sealed.checkpoint().id, "bad").trim("requests", 2)
        } else {
            batch
        };
        commit(&store, batch).unwrap();
        last = Some(sealed);
        lens.push(len());
    }
    lens
}

/// What can be seen of a sample: how many checkpoints, and the last record of the journal.
fn seen(store: &FileStore) -> (usize, u64) {
    let records = store.scan("requests", 1, 99).unwrap();
    (store.checkpoints(&agent()).unwrap().len(), records.last().map_or(0, |it| it.position))
}

fn with_log(bytes: &[u8]) -> TempDir {
    let folder = scratch();
    std::fs::write(folder.path().join(FIRST), bytes).unwrap();
    folder
}

#[test]
fn a_log_cut_at_any_byte_opens_to_its_last_whole_batch() {
    let folder = scratch();
    let lens = sample(folder.path());
    let bytes = std::fs::read(folder.path().join(FIRST)).unwrap();
    assert_eq!(bytes.len() as u64, lens[5]);
    for cut in 0..=bytes.len() {
        let whole = lens.iter().skip(1).filter(|len| **len <= cut as u64).count();
        let place = with_log(&bytes[..cut]);
        let store = FileStore::open(place.path()).unwrap_or_else(|it| panic!("at {cut}: {it}"));
        assert_eq!(seen(&store), (whole, whole as u64), "cut at {cut}");
        assert_eq!(store.info().unwrap().commits, whole as u64);
        // And it goes on from there.
        let batch = Batch::new().append("requests", vec![0]);
        let receipt = commit(&store, batch).unwrap();
        assert_eq!(receipt.sequence, whole as u64 + 1);
        assert_eq!(receipt.positions[0].1, whole as u64 + 1);
        drop(store);
        let store = FileStore::open(place.path()).unwrap();
        assert_eq!(seen(&store), (whole, whole as u64 + 1), "cut at {cut}, opened again");
    }
}

#[test]
fn a_bit_flipped_anywhere_in_a_log_is_found_and_named() {
    let folder = scratch();
    sample(folder.path());
    let bytes = std::fs::read(folder.path().join(FIRST)).unwrap();
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        let place = with_log(&flipped);
        match FileStore::open(place.path()) {
            Err(StoreError::Corrupt { file, offset, .. }) => {
                assert_eq!(file, FIRST);
                assert!(offset <= at as u64, "byte {at} is blamed on {offset}");
            }
            Err(StoreError::Incompatible { what, .. }) => {
                assert_eq!((what.as_str(), at), ("format", 4))
            }
            other => panic!("byte {at}: {other:?}"),
        }
    }
}

#[test]
fn an_end_that_was_never_written_is_cut_off_and_one_that_was_altered_is_not() {
    let folder = scratch();
    let lens = sample(folder.path());
    let bytes = std::fs::read(folder.path().join(FIRST)).unwrap();
    // The file has its length, but the blocks of its end were never written.
    for from in lens[4] as usize..bytes.len() {
        let mut torn = bytes.clone();
        torn[from..].fill(0);
        let place = with_log(&torn);
        FileStore::verify(place.path()).unwrap_or_else(|it| panic!("from {from}: {it}"));
        assert_eq!(std::fs::read(place.path().join(FIRST)).unwrap(), torn);
        let store = FileStore::open(place.path().join(".")).map(|it| seen(&it));
        assert_eq!(store.unwrap_or_else(|it| panic!("from {from}: {it}")), (4, 4));
    }
    let longer = [&bytes[..], &[0; 5000]].concat();
    assert_eq!(seen(&FileStore::open(with_log(&longer).path()).unwrap()), (5, 5));
    let mut altered = bytes.clone();
    let at = bytes.len() - 10;
    altered[at] ^= 1;
    let place = with_log(&altered);
    assert!(matches!(FileStore::open(place.path()), Err(StoreError::Corrupt { .. })));
    let options = FileOptions::new().altered_end(AlteredEnd::CutOff);
    assert_eq!(seen(&options.open(place.path()).unwrap()), (4, 4));
    let kept = place.path().join(format!("{FIRST}.cut-{}", lens[4]));
    assert_eq!(std::fs::read(kept).unwrap(), altered[lens[4] as usize..]);
}

#[test]
fn a_block_of_zeros_within_the_last_batch_was_never_written() {
    let folder = scratch();
    let store = FileStore::open(folder.path()).unwrap();
    commit(&store, Batch::new().append("requests", vec![1])).unwrap();
    commit(&store, Batch::new().append("requests", vec![7; 20_000])).unwrap();
    drop(store);
    let mut bytes = std::fs::read(folder.path().join(FIRST)).unwrap();
    bytes[8192..12_288].fill(0);
    let store = FileStore::open(with_log(&bytes).path()).unwrap();
    assert_eq!(store.scan("requests", 1, 9).unwrap().len(), 1);
}

/// Batches of many lengths: how many, where what was synced ends, and the whole log.
fn half_synced(folder: &Path) -> (usize, usize, Vec<u8>) {
    let options = FileOptions::new().sync_within(Duration::from_secs(86_400));
    let store = options.open(folder).unwrap();
    let batch = |n: usize, len: usize| {
        let bytes = (0..len).map(|at| (at * 31 + n) as u8 | 1).collect::<Vec<_>>();
        Batch::new().append("requests", bytes)
    };
    (0..3).for_each(|n| drop(commit(&store, batch(n, 5000)).unwrap()));
    let read = || std::fs::read(folder.join(FIRST)).unwrap();
    let synced = read().len();
    for n in 3..40 {
        let batch = batch(n, [60, 9000, 200, 700][n % 4]);
        store.commit(batch, Durability::Async).wait().unwrap();
    }
    (40, synced, read())
}

/// The file system had written later blocks when the power failed, and not these.
#[test]
fn blocks_that_were_not_written_before_a_sync_are_cut_off_with_what_follows() {
    const BLOCK: usize = 4096;
    let folder = scratch();
    let (count, synced, bytes) = half_synced(folder.path());
    let blocks = bytes.len().div_ceil(BLOCK);
    let (mut cut, mut least) = (0, usize::MAX);
    for block in 0..blocks {
        for more in [0, 1, 2, 5] {
            let mut torn = bytes.clone();
            let mut is_torn = false;
            for block in [block, block + more] {
                let from = (block * BLOCK).max(synced);
                let until = ((block + 1) * BLOCK).min(bytes.len());
                if from < until {
                    torn[from..until].fill(0);
                    is_torn = true;
                }
            }
            if !is_torn {
                continue;
            }
            let place = with_log(&torn);
            let store = FileStore::open(place.path());
            let store = store.unwrap_or_else(|error| panic!("{block} and {more}: {error}"));
            let left = store.scan("requests", 1, 99).unwrap().len();
            assert!((3..count).contains(&left), "{block} and {more}: {left}");
            least = least.min(left);
            cut += 1;
            // What is written after it is whole.
            let receipt = commit(&store, Batch::new().append("requests", vec![1])).unwrap();
            assert_eq!(receipt.positions[0].1, left as u64 + 1);
            drop(store);
            let store = FileStore::open(place.path()).unwrap();
            assert_eq!(store.scan("requests", 1, 99).unwrap().len(), left + 1);
        }
    }
    assert!(cut > 50 && least == 3, "{cut}, {least}");
    // What was synced by the word of a later batch was written.
    for block in 1..synced / BLOCK {
        let mut altered = bytes.clone();
        altered[block * BLOCK..(block + 1) * BLOCK].fill(0);
        let error = FileStore::open(with_log(&altered).path()).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "block {block}: {error}");
    }
}

#[test]
fn each_end_that_is_cut_off_on_request_is_kept() {
    let folder = scratch();
    let lens = sample(folder.path());
    let bytes = std::fs::read(folder.path().join(FIRST)).unwrap();
    let place = scratch();
    for nth in 1..=3 {
        let mut altered = bytes.clone();
        altered[lens[4] as usize + 30] ^= nth;
        std::fs::write(place.path().join(FIRST), &altered).unwrap();
        assert!(matches!(FileStore::open(place.path()), Err(StoreError::Corrupt { .. })));
        let options = FileOptions::new().altered_end(AlteredEnd::CutOff);
        assert_eq!(seen(&options.open(place.path()).unwrap()), (4, 4));
        // And not written over those before it, which were cut off at the same byte.
        let nth = if nth == 1 { String::new() } else { format!("-{nth}") };
        let kept = place.path().join(format!("{FIRST}.cut-{}{nth}", lens[4]));
        assert_eq!(std::fs::read(kept).unwrap(), altered[lens[4] as usize..]);
    }
}

#[test]
fn a_batch_says_how_far_before_it_everything_is_synced() {
    let folder = scratch();
    let options = FileOptions::new().sync_within(Duration::from_secs(86_400));
    let store = options.open(folder.path()).unwrap();
    for (n, durability) in
        [Durability::Async, Durability::Async, Durability::Sync, Durability::Memory]
            .into_iter()
            .enumerate()
    {
        let batch = Batch::new().append("requests", vec![n as u8; 10]);
        store.commit(batch, durability).wait().unwrap();
    }
    let bytes = std::fs::read(folder.path().join(FIRST)).unwrap();
    let backs: Vec<u32> = (0..4)
        .map(|n| {
            let at = 32 + n * (bytes.len() - 32) / 4 + 16;
            u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
        })
        .collect();
    let len = (bytes.len() as u32 - 32) / 4;
    assert_eq!(backs, [0, len, 2 * len, 0]);
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1/half-synced.seg");
    assert_eq!(bytes, std::fs::read(&golden).unwrap());
    assert_eq!(
        FileStore::open(with_log(&bytes).path()).unwrap().scan("requests", 1, 9).unwrap().len(),
        4
    );
}

/// Some thirty commits over several segments.
fn in_segments(folder: &Path) -> Vec<String> {
    let store = FileOptions::new().segment_bytes(2000).open(folder).unwrap();
    let mut last = None;
    for step in 1..=30 {
        let sealed = seal(step, &format!("memory {step}"), last.as_ref());
        commit(&store, Batch::new().checkpoint(&sealed).append("requests", vec![1; 50])).unwrap();
        last = Some(sealed);
    }
    drop(store);
    files(folder)
}

fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let names = entries.map(|it| it.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|it| it.ends_with(".seg")).collect();
    names.sort_unstable();
    names
}

fn copy(from: &Path) -> TempDir {
    let folder = scratch();
    for name in files(from) {
        std::fs::copy(from.join(&name), folder.path().join(&name)).unwrap();
    }
    folder
}

#[test]
fn a_segment_that_is_missing_cut_or_altered_in_the_middle_is_named() {
    let folder = scratch();
    let names = in_segments(folder.path());
    assert!(names.len() > 3, "{names:?}");
    let corrupt = |place: &TempDir| {
        let before = files(place.path());
        let found = FileStore::verify(place.path()).unwrap_err();
        assert_eq!(files(place.path()), before);
        match FileStore::open(place.path()) {
            Err(StoreError::Corrupt { file, offset, what }) => {
                assert_eq!(found, StoreError::Corrupt { file: file.clone(), offset, what });
                file
            }
            other => panic!("{other:?}"),
        }
    };
    for (at, name) in names.iter().enumerate().take(names.len() - 1) {
        let place = copy(folder.path());
        std::fs::remove_file(place.path().join(name)).unwrap();
        assert_eq!(corrupt(&place), *name);
        let place = copy(folder.path());
        let path = place.path().join(name);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(corrupt(&place), *name);
        // Also when it is cut between two batches.
        std::fs::write(&path, &bytes[..32]).unwrap();
        assert_eq!(corrupt(&place), names[at + 1]);
        let mut flipped = bytes.clone();
        flipped[bytes.len() / 2] ^= 4;
        std::fs::write(&path, &flipped).unwrap();
        assert_eq!(corrupt(&place), *name);
        // What stands before it must not be cut off either.
        let options = FileOptions::new().altered_end(AlteredEnd::CutOff);
        assert!(options.open(place.path()).is_err());
    }
}

#[test]
fn a_store_that_somebody_has_is_verified_and_not_called_wrong() {
    let folder = scratch();
    let none = folder.path().join("none");
    assert!(matches!(FileStore::verify(&none), Err(StoreError::Io { .. })));
    FileStore::verify(folder.path()).unwrap();
    assert!(!none.exists() && files(folder.path()).is_empty());
    sample(folder.path());
    let store = FileStore::open(folder.path()).unwrap();
    FileStore::verify(folder.path()).unwrap();
    // As it may be found in the middle of what is written to it.
    let path = folder.path().join(FIRST);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(&path, &bytes).unwrap();
    let holder = Some(std::process::id());
    let found = FileStore::verify(folder.path()).unwrap_err();
    assert!(matches!(found, StoreError::Locked { holder: it, .. } if it == holder), "{found:?}");
    drop(store);
    assert!(matches!(FileStore::verify(folder.path()), Err(StoreError::Corrupt { .. })));
}

#[test]
fn a_crash_at_any_point_of_a_compaction_loses_nothing() {
    let folder = scratch();
    in_segments(folder.path());
    let before = copy(folder.path());
    let store = FileStore::open(folder.path()).unwrap();
    store.compact().unwrap();
    commit(&store, Batch::new().append("requests", vec![2])).unwrap();
    let all = (30, 31);
    assert_eq!(seen(&store), all);
    drop(store);
    let names = files(folder.path());
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names[0].starts_with("base-"), "{names:?}");
    assert_eq!(seen(&FileStore::open(folder.path()).unwrap()), all);
    // The copy has its name, and the log is not removed yet, or only in part.
    for gone in 0..3 {
        let place = copy(folder.path());
        for name in files(before.path()).iter().skip(gone) {
            std::fs::copy(before.path().join(name), place.path().join(name)).unwrap();
        }
        let there = files(place.path());
        FileStore::verify(place.path()).unwrap();
        assert_eq!(files(place.path()), there);
        assert_eq!(seen(&FileStore::open(place.path()).unwrap()), all);
        assert_eq!(files(place.path()), names);
    }
    // The copy is half made.
    std::fs::write(before.path().join("base-0000000009.seg.new"), b"half").unwrap();
    FileStore::verify(before.path()).unwrap();
    assert!(before.path().join("base-0000000009.seg.new").exists());
    assert_eq!(seen(&FileStore::open(before.path()).unwrap()), (30, 30));
    assert!(!before.path().join("base-0000000009.seg.new").exists());
    // A copy that was cut short after it had its name is not taken for whole.
    let base = folder.path().join(&names[0]);
    let bytes = std::fs::read(&base).unwrap();
    std::fs::write(&base, &bytes[..bytes.len() / 2]).unwrap();
    assert!(matches!(FileStore::open(folder.path()), Err(StoreError::Corrupt { .. })));
}

/// Fails touches as told, and tells what was touched.
#[derive(Debug, Default)]
struct Script {
    fail: Mutex<BTreeMap<&'static str, (usize, io::ErrorKind)>>,
    syncs: AtomicUsize,
    /// Of new folders, whose names are made durable.
    folders: AtomicUsize,
    /// The first sync says that it began, and waits to be let go.
    gate: Mutex<Option<(Sender<()>, Receiver<()>)>>,
}

impl Script {
    fn fail(&self, touch: &'static str, written: usize, kind: io::ErrorKind) {
        self.fail.lock().unwrap().insert(touch, (written, kind));
    }

    fn heal(&self) {
        self.fail.lock().unwrap().clear();
    }
}

impl Faults for Script {
    fn on(&self, touch: Touch) -> Result<(), (usize, io::Error)> {
        let name = match touch {
            Touch::Write(_) => "write",
            Touch::Sync => "sync",
            Touch::Cut => "cut",
            Touch::Roll => "roll",
            Touch::Swap => "swap",
            Touch::Folder => "folder",
            _ => "other",
        };
        self.folders.fetch_add(usize::from(touch == Touch::Folder), Ordering::SeqCst);
        if touch == Touch::Sync {
            self.syncs.fetch_add(1, Ordering::SeqCst);
            let gate = self.gate.lock().unwrap().take();
            if let Some((began, go)) = gate {
                began.send(()).unwrap();
                go.recv().unwrap();
            }
        }
        match self.fail.lock().unwrap().get(name) {
            Some((written, kind)) => Err((*written, io::Error::from(*kind))),
            None => Ok(()),
        }
    }
}

fn scripted(folder: &Path) -> (FileStore, Arc<Script>) {
    let script = Arc::new(Script::default());
    let faults: Arc<dyn Faults> = Arc::clone(&script) as Arc<dyn Faults>;
    (FileOptions::new().faults(faults).open(folder).unwrap(), script)
}

#[test]
fn the_names_of_the_folders_that_are_made_for_a_store_are_durable_before_it_takes_anything() {
    let place = scratch();
    let script = Arc::new(Script::default());
    let options = FileOptions::new().faults(Arc::clone(&script) as Arc<dyn Faults>);
    let open = |name: &str| options.clone().open(place.path().join(name));
    drop(open("a/b/store").unwrap());
    assert_eq!(script.folders.load(Ordering::SeqCst), 3);
    drop(open("a/b/store").unwrap());
    assert_eq!(script.folders.load(Ordering::SeqCst), 3, "nothing was made");
    drop(open("a/b/other").unwrap());
    assert_eq!(script.folders.load(Ordering::SeqCst), 4);
    script.fail("folder", 0, io::ErrorKind::Other);
    let error = open("new").unwrap_err();
    assert!(matches!(error, StoreError::Io { what: "making the folder", .. }), "{error}");
}

fn journal(store: &FileStore) -> Vec<u8> {
    store.scan("requests", 1, 99).unwrap().iter().map(|it| it.bytes[0]).collect()
}

fn append(store: &FileStore, byte: u8) -> Result<Receipt, StoreError> {
    commit(store, Batch::new().append("requests", vec![byte; 100]))
}

#[test]
fn a_write_that_fails_half_way_leaves_nothing_and_the_next_one_works() {
    for written in [0, 1, 30, 100, usize::MAX] {
        let folder = scratch();
        let (store, script) = scripted(folder.path());
        append(&store, 1).unwrap();
        script.fail("write", written, io::ErrorKind::StorageFull);
        let error = append(&store, 2).unwrap_err();
        assert!(matches!(error, StoreError::Full { .. }), "{error}");
        script.fail("write", written, io::ErrorKind::Other);
        let error = append(&store, 2).unwrap_err();
        assert!(matches!(error, StoreError::Io { what: "writing", .. }), "{error}");
        assert!(error.is_retryable());
        script.heal();
        assert_eq!(journal(&store), [1]);
        append(&store, 3).unwrap();
        drop(store);
        assert_eq!(journal(&FileStore::open(folder.path()).unwrap()), [1, 3]);
    }
}

#[test]
fn a_failed_sync_ends_all_writing_until_the_store_is_opened_anew() {
    let folder = scratch();
    let (store, script) = scripted(folder.path());
    append(&store, 1).unwrap();
    script.fail("sync", 0, io::ErrorKind::Other);
    let error = append(&store, 2).unwrap_err();
    assert!(
        matches!(&error, StoreError::Poisoned { cause, .. } if cause.contains("sync")),
        "{error}"
    );
    // A sync that works again proves nothing about what was forgotten meanwhile.
    script.heal();
    let again = append(&store, 3).unwrap_err();
    assert_eq!(again, error);
    assert!(!again.is_retryable());
    assert_eq!(store.flush().unwrap_err(), error);
    assert_eq!(store.retain(Retention::default(), Wall(0)), Ok(Default::default()));
    assert!(store.compact().is_err());
    assert!(store.info().unwrap().poisoned.is_some());
    assert_eq!(journal(&store), [1], "reading works");
    drop(store);
    let store = FileStore::open(folder.path()).unwrap();
    assert_eq!(journal(&store), [1]);
    append(&store, 4).unwrap();
    assert_eq!(journal(&store), [1, 4]);
}

#[test]
fn bytes_that_cannot_be_cut_off_again_end_all_writing_and_are_gone_when_opened() {
    let folder = scratch();
    let (store, script) = scripted(folder.path());
    append(&store, 1).unwrap();
    script.fail("write", 60, io::ErrorKind::StorageFull);
    script.fail("cut", 0, io::ErrorKind::Other);
    let error = append(&store, 2).unwrap_err();
    assert!(matches!(error, StoreError::Poisoned { .. }), "{error}");
    script.heal();
    assert!(append(&store, 3).is_err());
    drop(store);
    assert_eq!(journal(&FileStore::open(folder.path()).unwrap()), [1]);
}

#[test]
fn a_segment_that_cannot_be_begun_only_makes_this_one_longer() {
    let folder = scratch();
    let script = Arc::new(Script::default());
    let faults: Arc<dyn Faults> = Arc::clone(&script) as Arc<dyn Faults>;
    let options = FileOptions::new().segment_bytes(500).faults(faults);
    let store = options.open(folder.path()).unwrap();
    script.fail("roll", 0, io::ErrorKind::PermissionDenied);
    (1..=20).for_each(|byte| drop(append(&store, byte).unwrap()));
    assert_eq!(files(folder.path()).len(), 1);
    assert!(store.compact().is_err(), "a compaction ends the log first");
    script.heal();
    append(&store, 21).unwrap();
    append(&store, 22).unwrap();
    assert!(files(folder.path()).len() > 1);
    assert_eq!(journal(&store), (1..=22).collect::<Vec<u8>>());
}

#[test]
fn a_compaction_that_fails_changes_nothing() {
    let folder = scratch();
    let (store, script) = scripted(folder.path());
    (1..=5).for_each(|byte| drop(append(&store, byte).unwrap()));
    script.fail("swap", 0, io::ErrorKind::StorageFull);
    assert!(matches!(store.compact(), Err(StoreError::Full { .. })));
    assert!(files(folder.path()).iter().all(|name| name.starts_with("log-")));
    append(&store, 6).unwrap();
    script.heal();
    store.compact().unwrap();
    assert_eq!(journal(&store), [1, 2, 3, 4, 5, 6]);
    drop(store);
    assert_eq!(journal(&FileStore::open(folder.path()).unwrap()), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_store_at_its_quota_is_full_and_has_room_again_after_compaction() {
    let folder = scratch();
    let store = FileOptions::new().quota(4000).open(folder.path()).unwrap();
    let mut made: Vec<Sealed> = Vec::new();
    let error = loop {
        let step = made.len() as u64 + 1;
        let sealed = seal(step, &format!("memory {step}"), made.last());
        match commit(&store, Batch::new().checkpoint(&sealed)) {
            Ok(_) => made.push(sealed),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(&error, StoreError::Full { what, .. } if what.contains("quota of 4000")),
        "{error}"
    );
    assert!(made.len() > 3, "{}", made.len());
    assert_eq!(store.checkpoints(&agent()).unwrap().len(), made.len());
    // Even a refused one must leave room for the retention that makes room.
    let retained = store.retain(Retention { checkpoints: 1, lines: 1 }, Wall(0));
    let Ok(retained) = retained else { panic!("{retained:?}") };
    assert_eq!(retained.dropped.len(), made.len() - 1);
    store.compact().unwrap();
    let sealed = seal(99, "again", made.last());
    commit(&store, Batch::new().checkpoint(&sealed)).unwrap();
    drop(store);
    let store = FileStore::open(folder.path()).unwrap();
    let schemas = Schemas::new().register(mainstay::checkpoint::Schema::new("agent", 1)).unwrap();
    let found = Validator::new(&store, &schemas, Rules::at(now(100))).newest(&agent()).unwrap();
    assert_eq!(found.found.unwrap().checkpoint().id, sealed.checkpoint().id);
}

#[test]
fn a_content_that_rots_while_the_store_is_open_is_named_and_never_handed_out() {
    let folder = scratch();
    let store = FileStore::open(folder.path()).unwrap();
    let sealed = seal(1, "the memory that rots", None);
    commit(&store, Batch::new().checkpoint(&sealed).append("requests", b"REQUEST".to_vec()))
        .unwrap();
    let path = folder.path().join(FIRST);
    let bytes = std::fs::read(&path).unwrap();
    let find = |text: &[u8]| bytes.windows(text.len()).position(|it| it == text).unwrap();
    let rot = |at: usize| {
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        let mut file = file;
        io::Seek::seek(&mut file, io::SeekFrom::Start(at as u64)).unwrap();
        file.write_all(&[bytes[at] ^ 32]).unwrap();
    };
    rot(find(b"memory that rots"));
    let error = store.load(sealed.checkpoint().id).unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt { file, .. } if file == FIRST), "{error}");
    rot(find(b"REQUEST"));
    let error = store.scan("requests", 1, 9).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert!(store.compact().is_err(), "it is not copied as if it were sound");
}

/// Nobody writes it again, and the log would grow until the disk is full.
#[test]
fn a_content_that_rots_stops_no_compaction_and_is_refused_after_it() {
    let folder = scratch();
    let store = FileStore::open(folder.path()).unwrap();
    let first = seal(1, "the memory that rots", None);
    let second = seal(2, "another memory", Some(&first));
    commit(&store, Batch::new().checkpoint(&first)).unwrap();
    commit(&store, Batch::new().checkpoint(&second)).unwrap();
    let path = folder.path().join(FIRST);
    let mut bytes = std::fs::read(&path).unwrap();
    let text = b"memory that rots";
    let at = bytes.windows(text.len()).position(|it| it == text).unwrap();
    bytes[at] ^= 32;
    std::fs::write(&path, &bytes).unwrap();
    let is_right = |store: &FileStore| {
        let error = store.load(first.checkpoint().id).unwrap_err();
        assert!(matches!(&error, StoreError::Corrupt { .. }), "{error}");
        store.load(second.checkpoint().id).unwrap();
        let bad = store.quarantined().unwrap();
        let bad: Vec<_> =
            bad.iter().map(|it| (it.checkpoint.id, it.bad.clone().unwrap())).collect();
        let [(id, why)] = &bad[..] else { panic!("{bad:?}") };
        assert_eq!(*id, first.checkpoint().id);
        assert!(why.contains("a content of it is damaged"), "{why}");
    };
    store.compact().unwrap();
    assert!(!path.exists());
    is_right(&store);
    drop(store);
    let store = FileStore::open(folder.path()).unwrap();
    is_right(&store);
    // And once more.
    store.compact().unwrap();
    is_right(&store);
}

/// Whenever something is written, there is more to write by the time that is done; so often.
#[derive(Debug, Default)]
struct Busy {
    store: Mutex<Option<Arc<FileStore>>>,
    left: AtomicUsize,
    last: Mutex<Option<Sender<()>>>,
    touches: Mutex<Vec<Touch>>,
}

impl Faults for Busy {
    fn on(&self, touch: Touch) -> Result<(), (usize, io::Error)> {
        let less = |left: usize| left.checked_sub(1);
        let is_write = matches!(touch, Touch::Write(_));
        if is_write && self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok() {
            let store = self.store.lock().unwrap().clone().unwrap();
            drop(store.commit(Batch::new().append("requests", vec![1]), Durability::Async));
            if self.left.load(Ordering::SeqCst) == 0 {
                drop(store);
                drop(self.last.lock().unwrap().take());
            }
        }
        self.touches.lock().unwrap().push(touch);
        Ok(())
    }
}

#[test]
fn a_commit_that_did_not_ask_for_it_is_synced_in_time_also_when_there_is_always_more_to_write() {
    let folder = scratch();
    let busy = Arc::new(Busy { left: AtomicUsize::new(5), ..Busy::default() });
    let faults: Arc<dyn Faults> = Arc::clone(&busy) as Arc<dyn Faults>;
    let options = FileOptions::new().sync_within(Duration::ZERO).faults(faults);
    let store = Arc::new(options.open(folder.path()).unwrap());
    *busy.store.lock().unwrap() = Some(Arc::clone(&store));
    busy.touches.lock().unwrap().clear();
    let (last, is_last) = channel();
    *busy.last.lock().unwrap() = Some(last);
    store.commit(Batch::new().append("requests", vec![1]), Durability::Async).wait().unwrap();
    // Until it is dropped.
    is_last.recv().unwrap_err();
    *busy.store.lock().unwrap() = None;
    drop(store);
    let touches = busy.touches.lock().unwrap();
    let synced: Vec<bool> = touches.iter().map(|touch| matches!(touch, Touch::Sync)).collect();
    assert_eq!(synced[..12], [false, true].repeat(6), "{touches:?}");
}

#[test]
fn a_store_is_opened_once_and_the_second_one_is_told_by_whom() {
    let folder = scratch();
    let store = FileStore::open(folder.path()).unwrap();
    let error = FileStore::open(folder.path()).unwrap_err();
    let holder = Some(std::process::id());
    assert!(matches!(&error, StoreError::Locked { holder: it, .. } if *it == holder), "{error}");
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    // Somebody is about to let go of it.
    let leaves = std::thread::spawn(move || {
        store.flush().unwrap();
        drop(store);
    });
    FileStore::open(folder.path()).unwrap();
    leaves.join().unwrap();
}

#[test]
fn a_place_where_nothing_can_be_written_is_refused_clearly() {
    let folder = scratch();
    let file = folder.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let error = FileStore::open(&file).unwrap_err();
    assert!(matches!(&error, StoreError::Io { what: "making the folder", .. }), "{error}");
    assert!(error.to_string().contains("file"), "{error}");
    let locked = folder.path().join("locked");
    std::fs::create_dir(&locked).unwrap();
    let mut permissions = std::fs::metadata(&locked).unwrap().permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(&locked, permissions).unwrap();
    // Whoever may write everywhere is not stopped by the permission, and must not be refused.
    let may_write = std::fs::write(locked.join("probe"), b"").is_ok();
    match FileStore::open(&locked) {
        Ok(_) => assert!(may_write),
        Err(error) => {
            assert!(!may_write);
            assert!(matches!(&error, StoreError::Io { what: "locking", .. }), "{error}");
        }
    }
}

#[test]
fn commits_that_wait_together_share_one_sync() {
    let folder = scratch();
    let (store, script) = scripted(folder.path());
    let (began, has_begun) = channel();
    let (go, gone) = channel();
    *script.gate.lock().unwrap() = Some((began, gone));
    let batch = |byte| Batch::new().append("requests", vec![byte]);
    let first = store.commit(batch(0), Durability::Sync);
    has_begun.recv().unwrap();
    // All of these come while the first is being synced.
    let commits: Vec<_> =
        (1..=50).map(|byte| store.commit(batch(byte), Durability::Sync)).collect();
    go.send(()).unwrap();
    first.wait().unwrap();
    commits.into_iter().for_each(|commit| drop(commit.wait().unwrap()));
    assert_eq!(script.syncs.load(Ordering::SeqCst), 2);
}

#[test]
fn a_commit_that_did_not_ask_for_it_is_synced_soon_after() {
    let folder = scratch();
    let script = Arc::new(Script::default());
    let (began, has_begun) = channel();
    let (go, gone) = channel();
    *script.gate.lock().unwrap() = Some((began, gone));
    let faults: Arc<dyn Faults> = Arc::clone(&script) as Arc<dyn Faults>;
    let options = FileOptions::new().sync_within(Duration::ZERO).faults(faults);
    let store = options.open(folder.path()).unwrap();
    // Answered while nothing has been synced, since the first sync has not been let go.
    store.commit(Batch::new().append("requests", vec![1]), Durability::Async).wait().unwrap();
    has_begun.recv().unwrap();
    go.send(()).unwrap();
    drop(store);
    // With the time left long, only the end of the store syncs.
    let (store, script) = scripted(&folder.path().join("other"));
    store.commit(Batch::new().append("requests", vec![1]), Durability::Memory).wait().unwrap();
    assert_eq!(script.syncs.load(Ordering::SeqCst), 0);
    drop(store);
    assert_eq!(script.syncs.load(Ordering::SeqCst), 1);
}

const CHILD: &str = "MAINSTAY_STORE_CHILD";

/// Not a test of its own: what the next one runs in a process that it kills.
#[test]
fn child_process_that_commits_for_ever() {
    let Some(folder) = std::env::var_os(CHILD) else { return };
    let store = FileStore::open(PathBuf::from(folder)).unwrap();
    let mut last = None;
    for step in 1.. {
        let sealed = seal(step, &format!("memory {step}"), last.as_ref());
        let batch =
            Batch::new().checkpoint(&sealed).append("requests", step.to_le_bytes().to_vec());
        // Every second one asks for no sync: the end of the process must not take it either.
        let durability = if step % 2 == 0 { Durability::Sync } else { Durability::Async };
        store.commit(batch, durability).wait().unwrap();
        println!("committed {step}");
        last = Some(sealed);
    }
}

#[test]
fn what_was_answered_survives_the_death_of_the_process() {
    let folder = scratch();
    for round in 0..3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_process_that_commits_for_ever", "--nocapture"])
            .env(CHILD, folder.path().join(round.to_string()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut answered = 0;
        for line in lines {
            let line = line.unwrap();
            let Some((_, step)) = line.split_once("committed ") else { continue };
            answered = step.trim().parse().unwrap();
            if answered == 1 {
                let error = FileStore::open(folder.path().join(round.to_string())).unwrap_err();
                assert!(
                    matches!(error, StoreError::Locked { holder: Some(pid), .. } if pid == child.id())
                );
            }
            if answered >= 20 + 7 * round {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let store = FileStore::open(folder.path().join(round.to_string())).unwrap();
        let (checkpoints, records) = seen(&store);
        assert!(records >= answered, "{records} of {answered}");
        assert_eq!(checkpoints as u64, records, "a batch is whole");
        let newest = &store.checkpoints(&agent()).unwrap()[0];
        assert_eq!(newest.checkpoint.step, records);
        assert!(newest.broken.is_none());
        let loaded = store.load(newest.checkpoint.id).unwrap();
        assert_eq!(*loaded.snapshot.get::<String>("memory").unwrap(), format!("memory {records}"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_bytes_in_a_log_harm_the_process(
        noise in prop::collection::vec(any::<u8>(), 0..400),
        at in any::<prop::sample::Index>(),
        whole in any::<bool>(),
    ) {
        static SAMPLE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        let sample = SAMPLE.get_or_init(|| {
            let folder = scratch();
            sample(folder.path());
            std::fs::read(folder.path().join(FIRST)).unwrap()
        });
        let mut bytes = sample.clone();
        if whole {
            bytes = noise;
        } else {
            let at = at.index(bytes.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&noise);
        }
        let place = with_log(&bytes);
        // Opened or refused; what is opened is a prefix of what was written.
        if let Ok(store) = FileStore::open(place.path()) {
            prop_assert!(seen(&store).0 <= 5);
        }
    }
}
