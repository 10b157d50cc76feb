//! Compaction: the state that the log led to, copied into one segment that takes its place.
//!
//! The log is ended first, so the copy stands for whole segments; commits go on into the next one
//! meanwhile. The copy is made by the thread that asked for it.
//!
//! *Invariant.* The copy is whole and durable before it has its name, and the log is removed after that.
//! At every moment a crash leaves either the log or the copy.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{self, Seek, SeekFrom, Write as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::checkpoint::codec;
use crate::checkpoint::file::segment::{
    Frames, Head, Kind, Pending, Place, Range, SEGMENT_HEAD, Segment,
};
use crate::checkpoint::file::writer::Job;
use crate::checkpoint::file::{FileStore, Shared, Touch, sync_folder};
use crate::checkpoint::index::Change;
use crate::checkpoint::manifest::Digest;
use crate::checkpoint::store::Compacted;
use crate::error::StoreError;

/// How long a frame of a copy may become.
const FRAME: usize = 4 << 20;

/// What a compaction begins with.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) changes: Vec<Change<Place, Place>>,
    /// The last segment that the copy stands for.
    pub(super) number: u64,
    /// Of the first commit that it does not have.
    pub(super) sequence: u64,
}

/// What it ends with: where things are now, from the beginning of the segment.
#[derive(Debug)]
pub(super) struct Copied {
    pub(super) segment: Arc<Segment>,
    /// And the checkpoints that cannot be read any more.
    pub(super) changes: Vec<Pending>,
    pub(super) number: u64,
}

pub(super) fn compact(store: &FileStore) -> Result<Compacted, StoreError> {
    let shared = &store.shared;
    let _one_at_a_time = shared.compacting.lock();
    let before = shared.bytes.load(Ordering::Relaxed);
    let start = store.ask(|answer| Job::Compact { answer })?;
    let name = Head::name(Kind::Base, start.number);
    let new = shared.folder.join(format!("{name}.new"));
    let copied = copy(shared, start, name, &new).inspect_err(|_| {
        // What is left of it is removed when the store is opened, at the latest.
        drop(std::fs::remove_file(&new));
    })?;
    store.ask(|answer| Job::Compacted { copied, answer })?;
    Ok(Compacted { before, after: shared.bytes.load(Ordering::Relaxed) })
}

fn copy(
    shared: &Shared,
    start: Start,
    name: String,
    new: &std::path::Path,
) -> Result<Copied, StoreError> {
    let io = |error: io::Error| shared.io("compacting", &error);
    let mut options = OpenOptions::new();
    let mut file =
        options.read(true).write(true).create(true).truncate(true).open(new).map_err(io)?;
    file.write_all(&[0; SEGMENT_HEAD]).map_err(io)?;
    let mut copy = Copy {
        file: &mut file,
        at: SEGMENT_HEAD,
        frames: 0,
        moved: Vec::new(),
        buffer: Frames::default(),
        damaged: HashMap::new(),
    };
    for change in start.changes {
        copy.add(change, io)?;
    }
    copy.end_frame().map_err(io)?;
    let (frames, moved) = (copy.frames, copy.moved);
    let head = Head { kind: Kind::Base, number: start.number, first: start.sequence, frames };
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    file.write_all(&head.bytes()).map_err(io)?;
    file.sync_all().map_err(io)?;
    shared.touch(Touch::Swap).map_err(|(_, error)| io(error))?;
    std::fs::rename(new, shared.folder.join(&name)).map_err(io)?;
    sync_folder(&shared.folder).map_err(io)?;
    let segment = Arc::new(Segment { name, file });
    Ok(Copied { segment, changes: moved, number: start.number })
}

struct Copy<'a> {
    file: &'a mut std::fs::File,
    /// Where the buffer will stand in the file.
    at: usize,
    frames: u32,
    moved: Vec<Pending>,
    buffer: Frames,
    /// The contents that are, and why.
    damaged: HashMap<Digest, String>,
}

impl Copy<'_> {
    fn add(
        &mut self,
        change: Change<Place, Place>,
        io: impl FnOnce(io::Error) -> StoreError,
    ) -> Result<(), StoreError> {
        if self.buffer.bytes.is_empty() {
            self.buffer.begin();
        }
        match change {
            // Both are checked on the way: what is corrupt is never copied as if it were sound. A content has a
            // checksum of its own, by which it is refused wherever it stands: those that name it are marked, and
            // the others are not kept from being copied.
            Change::Piece(digest, place) => {
                let bytes = place.bytes()?;
                if let Err(why) = codec::check(&bytes) {
                    self.damaged.insert(digest, why.to_string());
                }
                self.buffer.content(digest, &bytes);
            }
            Change::Checkpoint(it) => {
                let why = it.contents().find_map(|digest| self.damaged.get(&digest));
                let bad = why.map(|why| (it.id, format!("a content of it is damaged: {why}")));
                self.buffer.change(Change::Checkpoint(it))?;
                if let Some((id, why)) = bad {
                    self.buffer.change(Change::Bad(id, why.clone()))?;
                    self.moved.push(Change::Bad(id, why));
                }
            }
            Change::Append(stream, position, place) => {
                self.buffer.append(&stream, position, &place.record()?);
            }
            other => {
                let change = match other {
                    Change::Line(it) => Change::Line(it),
                    Change::Trim(stream, before) => Change::Trim(stream, before),
                    Change::Pin(id, pin) => Change::Pin(id, pin),
                    Change::Bad(id, reason) => Change::Bad(id, reason),
                    Change::Topology(it) => Change::Topology(it),
                    Change::Anchor(id, chain) => Change::Anchor(id, chain),
                    // A state needs no words for what is gone.
                    _ => return Ok(()),
                };
                self.buffer.change(change)?;
            }
        }
        if self.buffer.len() >= FRAME { self.end_frame().map_err(io) } else { Ok(()) }
    }

    fn end_frame(&mut self) -> io::Result<()> {
        if self.buffer.bytes.is_empty() {
            return Ok(());
        }
        self.buffer.end(u64::from(self.frames), 0);
        self.frames += 1;
        self.file.write_all(&self.buffer.bytes)?;
        let at = self.at;
        let shift = |range: Range| Range { offset: range.offset + at, len: range.len };
        for change in self.buffer.changes.drain(..) {
            match change {
                Change::Piece(digest, range) => {
                    self.moved.push(Change::Piece(digest, shift(range)))
                }
                Change::Append(stream, position, range) => {
                    self.moved.push(Change::Append(stream, position, shift(range)));
                }
                _ => {}
            }
        }
        self.at += self.buffer.bytes.len();
        self.buffer.bytes.clear();
        Ok(())
    }
}
