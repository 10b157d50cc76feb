//! How far the log is known to be synced, in a small file beside it.
//!
//! In the log each batch says it of those before it, and of the last ones nothing does: whether blocks of these that
//! are missing were lost when the power failed, or later, could not be told. So it is written down after each sync.
//! The file is not synced itself: one that is older, or lost, says less.
//!
//! *Invariant.* It says of nothing that it is synced before that is so.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use super::segment::part;
use super::sync_folder;

const NAME: &str = "SYNCED";
const MAGIC: [u8; 4] = *b"MSSY";
const FORMAT: u8 = 1;
const LEN: usize = 28;

/// A segment, by its number, and up to which byte of it all is synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Synced {
    pub(super) number: u64,
    pub(super) len: u64,
}

impl Synced {
    fn bytes(self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = FORMAT;
        bytes[8..16].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.len.to_le_bytes());
        let sum = crc32fast::hash(&bytes[..24]);
        bytes[24..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// What the file in this folder says; `None` where there is none, or it cannot be read: it says nothing then.
    pub(super) fn read(folder: &Path) -> Option<Self> {
        let bytes = std::fs::read(folder.join(NAME)).ok()?;
        let known = bytes.len() == LEN && bytes[..4] == MAGIC && bytes[4] == FORMAT;
        if !known || crc32fast::hash(&bytes[..24]).to_le_bytes() != bytes[24..] {
            return None;
        }
        let number = u64::from_le_bytes(part(&bytes, 8));
        Some(Self { number, len: u64::from_le_bytes(part(&bytes, 16)) })
    }

    /// What it says is not so any more.
    pub(super) fn forget(folder: &Path) -> io::Result<()> {
        match std::fs::remove_file(folder.join(NAME)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => sync_folder(folder),
        }
    }
}

/// The file. Where it cannot be written, nothing is said.
#[derive(Debug)]
pub(super) struct Mark(Option<File>);

impl Mark {
    pub(super) fn open(folder: &Path) -> Self {
        let mut options = OpenOptions::new();
        Self(options.write(true).create(true).truncate(false).open(folder.join(NAME)).ok())
    }

    pub(super) fn write(&self, synced: Synced) {
        let Some(mut file) = self.0.as_ref() else { return };
        let written = file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(&synced.bytes()));
        // Then it says what it said, which is less, or nothing.
        drop(written);
    }
}
