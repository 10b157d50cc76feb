//! Any bytes, opened as the log of a store: as they are, and with checksums that hold, behind which most
//! bytes never get by chance.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mainstay::checkpoint::file::AlteredEnd;
use mainstay::checkpoint::{FileOptions, Store};

fuzz_target!(|bytes: &[u8]| {
    survive(bytes);
    let mut healed = bytes.to_vec();
    heal(&mut healed);
    if healed != bytes {
        survive(&healed);
    }
});

fn survive(bytes: &[u8]) {
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
    for (stream, _) in store.streams().unwrap_or_default() {
        drop(store.scan(&stream, 1, 100));
    }
    drop(store.quarantined());
    drop(store.retain(Default::default(), mainstay::checkpoint::Wall(1)));
    drop(store.compact());
    drop(store);
    // What it has made of that, it can read.
    drop(FileOptions::new().open(folder.path()).expect("a store opens after it was compacted"));
}

/// Makes every checksum of a segment hold, as far as its lengths go.
fn heal(bytes: &mut [u8]) {
    if bytes.len() < 32 {
        return;
    }
    bytes[..6].copy_from_slice(b"MSLG\x01\x00");
    bytes[8..16].copy_from_slice(&1_u64.to_le_bytes());
    put(bytes, 28, crc(&bytes[..28]));
    let mut at = 32;
    while at + 24 <= bytes.len() {
        let end = at + 24 + number(bytes, at);
        if end + 4 > bytes.len() {
            break;
        }
        heal_items(&mut bytes[at + 24..end]);
        put(bytes, at + 4, crc(&bytes[at + 24..end]));
        put(bytes, at + 20, crc(&bytes[at..at + 20]));
        bytes[end..end + 4].copy_from_slice(&[0x4d, 0x53, 0x2e, 0xa5]);
        at = end + 4;
    }
}

fn heal_items(payload: &mut [u8]) {
    let mut at = 0;
    while at + 5 <= payload.len() {
        let (kind, len) = (payload[at], number(payload, at + 1));
        let Some(body) = payload.get_mut(at + 5..).and_then(|rest| rest.get_mut(..len)) else { return };
        let skip = match kind {
            1 => Some(32),
            2 | 3 | 10 => Some(0),
            6 => Some(16),
            _ => None,
        };
        if let Some(envelope) = skip.and_then(|skip| body.get_mut(skip..)).filter(|it| it.len() >= 32) {
            let sum = crc_of(envelope[..28].iter().chain(&envelope[32..]));
            put(envelope, 28, sum);
        }
        if kind == 4 && len >= 14 {
            let name = 10 + usize::from(u16::from_le_bytes([body[8], body[9]]));
            if name + 4 <= len {
                put(body, name, crc(&body[name + 4..]));
            }
        }
        at += 5 + len;
    }
}

fn number(bytes: &[u8], at: usize) -> usize {
    bytes[at..at + 4].iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
}

fn put(bytes: &mut [u8], at: usize, sum: u32) {
    bytes[at..at + 4].copy_from_slice(&sum.to_le_bytes());
}

fn crc(bytes: &[u8]) -> u32 {
    crc_of(bytes.iter())
}

/// CRC-32 (IEEE).
fn crc_of<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    !bytes.fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| sum >> 1 ^ (0xedb8_8320 & (sum & 1).wrapping_neg()))
    })
}
