//! Any bytes, opened as the log of a store.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mainstay::checkpoint::file::AlteredEnd;
use mainstay::checkpoint::{FileOptions, Store};

fuzz_target!(|bytes: &[u8]| {
    let Ok(folder) = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()) else { return };
    if std::fs::write(folder.path().join("log-0000000001.seg"), bytes).is_err() {
        return;
    }
    let options = FileOptions::new().altered_end(AlteredEnd::CutOff);
    let Ok(store) = options.open(folder.path()) else { return };
    for child in store.children().unwrap_or_default() {
        for listed in store.checkpoints(&child).unwrap_or_default() {
            drop(store.load(listed.checkpoint.id));
        }
    }
    drop(store.compact());
});
