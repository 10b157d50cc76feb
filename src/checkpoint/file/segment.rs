//! The bytes of a log: segments of frames of items. The format page describes them.
//!
//! *Invariant.* A frame is a batch, so what is whole is a batch that is whole. What ends early was being
//! written when the process or the power ended; what is wrong in any other way is corruption, and is
//! named by file and byte, never skipped.

use std::fs::File;
use std::io;
use std::sync::Arc;

use crate::checkpoint::codec::{self};
use crate::checkpoint::file::torn::is_unwritten;
use crate::checkpoint::index::Change;
use crate::checkpoint::manifest::Digest;
use crate::checkpoint::store::{Item, Receipt};
use crate::checkpoint::stored;
use crate::error::{CodecError, StoreError};
use crate::id::{CheckpointId, LineId};

/// The version of the log that is written.
pub(super) const FORMAT: u8 = 1;
pub(super) const SEGMENT_HEAD: usize = 32;
pub(super) const FRAME_HEAD: usize = 24;
/// Ends every frame. Not zero, so that a frame whose end was never written can be told from one that
/// was altered.
pub(super) const TRAILER: [u8; 4] = [0x4d, 0x53, 0x2e, 0xa5];
/// The most bytes a frame may have.
pub(super) const MAX_FRAME: usize = 1 << 30;
const MAGIC: [u8; 4] = *b"MSLG";
/// What file systems write at once: a whole block of zeros was never written.
const BLOCK: usize = 4096;

/// A file of the log.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) name: String,
    pub(super) file: File,
}

/// Where bytes are.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) segment: Arc<Segment>,
    pub(super) offset: u64,
    pub(super) len: u32,
}

impl Segment {
    pub(super) fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.read_into(offset, &mut bytes)?;
        Ok(bytes)
    }

    #[cfg(unix)]
    pub(super) fn read_into(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, bytes, offset)
    }

    #[cfg(windows)]
    pub(super) fn read_into(&self, mut offset: u64, mut bytes: &mut [u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match std::os::windows::fs::FileExt::seek_read(&self.file, bytes, offset)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => {
                    bytes = &mut bytes[read..];
                    offset += read as u64;
                }
            }
        }
        Ok(())
    }

    pub(super) fn corrupt(&self, offset: u64, what: impl Into<String>) -> StoreError {
        StoreError::Corrupt { file: self.name.clone(), offset, what: what.into() }
    }

    fn codec(&self, offset: u64, error: CodecError) -> StoreError {
        match error {
            CodecError::Incompatible { what, found, expected } => {
                StoreError::Incompatible { file: self.name.clone(), what, found, expected }
            }
            other => self.corrupt(offset, other.found()),
        }
    }
}

impl Place {
    /// The bytes there.
    pub(super) fn bytes(&self) -> Result<Vec<u8>, StoreError> {
        self.segment.read(self.offset, self.len as usize).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.segment.corrupt(self.offset, "the file ends here"),
            _ => StoreError::Io {
                store: self.segment.name.clone(),
                what: "reading",
                why: error.to_string(),
            },
        })
    }

    /// The content of this name there, whole: a checksum that was made to fit says nothing of what was altered.
    pub(super) fn content(&self, name: Digest) -> Result<Vec<u8>, StoreError> {
        let bytes = self.bytes()?;
        let opened = codec::open(&bytes).map_err(|error| self.segment.codec(self.offset, error))?;
        let found = opened.digest();
        drop(opened);
        if found != name {
            let what = format!("the content named {name} is that of {found}");
            return Err(self.segment.corrupt(self.offset, what));
        }
        Ok(bytes)
    }

    /// The record of a journal there, which begins with its checksum.
    pub(super) fn record(&self) -> Result<Vec<u8>, StoreError> {
        let mut bytes = self.bytes()?;
        if bytes.len() < 4 || bytes[..4] != crc32fast::hash(&bytes[4..]).to_le_bytes() {
            return Err(self.segment.corrupt(self.offset, "a journal record's checksum is wrong"));
        }
        bytes.drain(..4);
        Ok(bytes)
    }
}

/// What a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Commits as they came.
    Log,
    /// The state that all segments up to its number led to.
    Base,
}

/// The head of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: Kind,
    /// Its number; for a base the last one it stands for.
    pub(super) number: u64,
    /// The sequence of the first commit in it; for a base, of the first one after it.
    pub(super) first: u64,
    /// How many frames a base has.
    pub(super) frames: u32,
}

impl Head {
    pub(super) fn name(kind: Kind, number: u64) -> String {
        match kind {
            Kind::Log => format!("log-{number:010}.seg"),
            Kind::Base => format!("base-{number:010}.seg"),
        }
    }

    pub(super) fn parse_name(name: &str) -> Option<(Kind, u64)> {
        let (kind, rest) = match name.strip_prefix("log-") {
            Some(rest) => (Kind::Log, rest),
            None => (Kind::Base, name.strip_prefix("base-")?),
        };
        let number = rest.strip_suffix(".seg").filter(|digits| digits.len() == 10)?;
        number.parse().ok().map(|number| (kind, number))
    }

    pub(super) fn bytes(self) -> [u8; SEGMENT_HEAD] {
        let mut bytes = [0; SEGMENT_HEAD];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = FORMAT;
        bytes[5] = u8::from(self.kind == Kind::Base);
        bytes[8..16].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.frames.to_le_bytes());
        let sum = crc32fast::hash(&bytes[..28]);
        bytes[28..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    pub(super) fn read(segment: &Segment, bytes: &[u8; SEGMENT_HEAD]) -> Result<Self, StoreError> {
        if bytes[..4] != MAGIC {
            return Err(segment.corrupt(0, "this is no segment of a log"));
        }
        if bytes[4] != FORMAT {
            return Err(StoreError::Incompatible {
                file: segment.name.clone(),
                what: "format".to_owned(),
                found: bytes[4].to_string(),
                expected: format!("up to {FORMAT}"),
            });
        }
        let sum = crc32fast::hash(&bytes[..28]);
        if bytes[28..] != sum.to_le_bytes() || bytes[5] > 1 || bytes[6..8] != [0, 0] {
            return Err(segment.corrupt(0, "the segment's head does not match its checksum"));
        }
        Ok(Self {
            kind: if bytes[5] == 0 { Kind::Log } else { Kind::Base },
            number: u64::from_le_bytes(part(bytes, 8)),
            first: u64::from_le_bytes(part(bytes, 16)),
            frames: u32::from_le_bytes(part(bytes, 24)),
        })
    }
}

/// `N` bytes; its callers stay within `bytes`.
pub(super) fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&bytes[at..at + N]);
    part
}

/// A change that stands in a frame that is not written yet: places are offsets into the buffer.
pub(super) type Pending = Change<Range, Range>;

/// Bytes of a buffer: offset and length.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    pub(super) offset: usize,
    pub(super) len: u32,
}

/// Builds frames in a buffer.
#[derive(Debug, Default)]
pub(super) struct Frames {
    pub(super) bytes: Vec<u8>,
    pub(super) changes: Vec<Pending>,
    start: usize,
}

impl Frames {
    pub(super) fn begin(&mut self) {
        self.start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; FRAME_HEAD]);
    }

    /// How long the frame is that was begun.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Takes the frame back, and the changes from `changes` on.
    pub(super) fn abandon(&mut self, changes: usize) {
        self.bytes.truncate(self.start);
        self.changes.truncate(changes);
    }

    /// Where the frame stands that was begun.
    pub(super) const fn start(&self) -> usize {
        self.start
    }

    /// `back`: so far before it everything is synced.
    pub(super) fn end(&mut self, sequence: u64, back: u64) {
        let payload = self.start + FRAME_HEAD;
        let len = (self.bytes.len() - payload) as u32;
        let sum = crc32fast::hash(&self.bytes[payload..]);
        let mut head = [0; FRAME_HEAD];
        head[..4].copy_from_slice(&len.to_le_bytes());
        head[4..8].copy_from_slice(&sum.to_le_bytes());
        head[8..16].copy_from_slice(&sequence.to_le_bytes());
        // A frame so far from there says the most that can be said.
        let back = u32::try_from(back).unwrap_or(u32::MAX);
        head[16..20].copy_from_slice(&back.to_le_bytes());
        let sum = crc32fast::hash(&head[..20]);
        head[20..].copy_from_slice(&sum.to_le_bytes());
        self.bytes[self.start..payload].copy_from_slice(&head);
        self.bytes.extend_from_slice(&TRAILER);
    }

    fn item(&mut self, kind: u8, parts: &[&[u8]]) -> Range {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        self.bytes.push(kind);
        self.bytes.extend_from_slice(&(len as u32).to_le_bytes());
        let offset = self.bytes.len();
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        Range { offset, len: len as u32 }
    }

    pub(super) fn content(&mut self, digest: Digest, envelope: &[u8]) {
        let at = self.item(1, &[&digest.0, envelope]);
        let range = Range { offset: at.offset + 32, len: at.len - 32 };
        self.changes.push(Change::Piece(digest, range));
    }

    pub(super) fn append(&mut self, stream: &Arc<str>, position: u64, bytes: &[u8]) {
        let sum = crc32fast::hash(bytes).to_le_bytes();
        let head = 10 + stream.len();
        let name = (stream.len() as u16).to_le_bytes();
        let at = self.item(4, &[&position.to_le_bytes(), &name, stream.as_bytes(), &sum, bytes]);
        let range = Range { offset: at.offset + head, len: at.len - head as u32 };
        self.changes.push(Change::Append(Arc::clone(stream), position, range));
    }

    /// Everything of a batch but the contents, which the caller writes when they are wanted.
    pub(super) fn batch_item(
        &mut self,
        item: Item,
        positions: &mut std::slice::Iter<'_, (Arc<str>, u64)>,
    ) -> Result<(), StoreError> {
        let change = match item {
            Item::Checkpoint(sealed) => {
                self.item(2, &[sealed.manifest()]);
                self.changes.push(Change::Checkpoint(Arc::clone(sealed.checkpoint())));
                return Ok(());
            }
            Item::Append { stream, bytes } => {
                if stream.len() > usize::from(u16::MAX) {
                    let (size, limit) = (stream.len(), u16::MAX);
                    let start: String = stream.chars().take(40).collect();
                    let why = format!(
                        "the name of journal \"{start}...\" has {size} bytes, at most {limit} are taken"
                    );
                    return Err(StoreError::Refused { store: String::new(), why });
                }
                let position = positions.next().map_or(0, |(_, position)| *position);
                self.append(&stream, position, &bytes);
                return Ok(());
            }
            Item::Line(line) => Change::Line(line),
            Item::Trim { stream, before } => Change::Trim(stream, before),
            Item::Pin(id, pin) => Change::Pin(id, pin),
            Item::Unpin(id, owner) => Change::Unpin(id, owner),
            Item::Bad(id, reason) => Change::Bad(id, reason),
            Item::Release(id) => Change::Release(id),
            Item::Topology(topology) => Change::Topology(topology),
            Item::Drop(id) => Change::Drop(id),
            Item::DropLine(id) => Change::DropLine(id),
            // The writer has put in its place what it comes to.
            Item::Clear(..) => return Ok(()),
        };
        self.change(change)
    }

    /// A change without bytes of its own elsewhere.
    pub(super) fn change(&mut self, change: Pending) -> Result<(), StoreError> {
        match &change {
            Change::Piece(..) | Change::Append(..) => {}
            Change::Checkpoint(it) => {
                let text = stored::write_checkpoint(it).map_err(|e| codec(it.id.to_string(), e))?;
                self.item(2, &[&text]);
            }
            Change::Line(line) => {
                let text = stored::write_line(line).map_err(|e| codec(line.id.to_string(), e))?;
                self.item(3, &[&text]);
            }
            Change::Trim(stream, before) => {
                self.item(5, &[&before.to_le_bytes(), stream.as_bytes()]);
            }
            Change::Pin(id, pin) => {
                let what = || format!("the pin of \"{}\" on {id}", pin.owner);
                let pin = stored::write_pin(pin).map_err(|e| codec(what(), e))?;
                self.item(6, &[&id.0.to_le_bytes(), &pin]);
            }
            Change::Unpin(id, owner) => {
                self.item(7, &[&id.0.to_le_bytes(), owner.as_bytes()]);
            }
            Change::Bad(id, reason) => {
                self.item(8, &[&id.0.to_le_bytes(), reason.as_bytes()]);
            }
            Change::Release(id) => drop(self.item(9, &[&id.0.to_le_bytes()])),
            Change::Topology(it) => {
                let text =
                    stored::write_topology(it).map_err(|e| codec("the topology".to_owned(), e))?;
                self.item(10, &[&text]);
            }
            Change::Drop(id) => drop(self.item(11, &[&id.0.to_le_bytes()])),
            Change::DropLine(id) => drop(self.item(12, &[&id.0.to_le_bytes()])),
            Change::Anchor(id, chain) => {
                self.item(13, &[&id.0.to_le_bytes(), &chain.0]);
            }
        }
        self.changes.push(change);
        Ok(())
    }
}

fn codec(what: String, why: CodecError) -> StoreError {
    StoreError::codec(what)(why)
}

/// A change whose bytes stand in a segment.
pub(super) fn place(change: Pending, segment: &Arc<Segment>, at: u64) -> Change<Place, Place> {
    let place = |range: Range| Place {
        segment: Arc::clone(segment),
        offset: at + range.offset as u64,
        len: range.len,
    };
    match change {
        Change::Piece(digest, range) => Change::Piece(digest, place(range)),
        Change::Append(stream, position, range) => Change::Append(stream, position, place(range)),
        Change::Checkpoint(it) => Change::Checkpoint(it),
        Change::Line(it) => Change::Line(it),
        Change::Trim(stream, before) => Change::Trim(stream, before),
        Change::Pin(id, pin) => Change::Pin(id, pin),
        Change::Unpin(id, owner) => Change::Unpin(id, owner),
        Change::Bad(id, reason) => Change::Bad(id, reason),
        Change::Release(id) => Change::Release(id),
        Change::Topology(it) => Change::Topology(it),
        Change::Drop(id) => Change::Drop(id),
        Change::DropLine(id) => Change::DropLine(id),
        Change::Anchor(id, chain) => Change::Anchor(id, chain),
    }
}

/// What stands at an offset of a segment.
pub(super) enum Read {
    /// A whole frame: its sequence, and how long its payload is, which stands in the window.
    Frame { sequence: u64, len: usize },
    /// The end.
    End,
    /// A frame that was being written when everything ended.
    Torn,
}

/// A segment as it is read from its beginning to its end: many small frames with one call to the
/// system.
pub(super) struct Window<'a> {
    segment: &'a Segment,
    size: u64,
    /// Where the bytes stand in the segment.
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    /// How much is read at once, at least.
    const LEAST: u64 = 256 << 10;

    /// Of a segment that is `size` bytes long.
    pub(super) const fn new(segment: &'a Segment, size: u64) -> Self {
        Self { segment, size, start: 0, bytes: Vec::new() }
    }

    /// Bytes within the segment.
    fn get(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        let end = offset + len as u64;
        if offset < self.start || end > self.start + self.bytes.len() as u64 {
            // The callers stay within the size, so this is at least `len`.
            let read = (len as u64).max(Self::LEAST).min(self.size - offset);
            self.bytes.resize(read as usize, 0);
            self.start = offset;
            if let Err(error) = self.segment.read_into(offset, &mut self.bytes) {
                self.bytes.clear();
                return Err(error);
            }
        }
        Ok(&self.bytes[(offset - self.start) as usize..][..len])
    }

    fn io(&self, error: &io::Error) -> StoreError {
        let store = self.segment.name.clone();
        StoreError::Io { store, what: "reading", why: error.to_string() }
    }

    /// The payload of the frame at `offset`, the last one that was read, so it is in the window.
    pub(super) fn payload(&self, offset: u64, len: usize) -> &[u8] {
        &self.bytes[(offset - self.start) as usize + FRAME_HEAD..][..len]
    }

    /// Reads the frame at `offset`, which is to be the one with this sequence.
    pub(super) fn frame(&mut self, offset: u64, sequence: u64) -> Result<Read, StoreError> {
        let (segment, size) = (self.segment, self.size);
        let left = size - offset;
        if left == 0 {
            return Ok(Read::End);
        }
        if left < FRAME_HEAD as u64 {
            return Ok(Read::Torn);
        }
        let head: [u8; FRAME_HEAD] = match self.get(offset, FRAME_HEAD) {
            Ok(head) => part(head, 0),
            Err(error) => return Err(self.io(&error)),
        };
        if crc32fast::hash(&head[..20]).to_le_bytes() != head[20..] {
            // A head that was written in part is followed by nothing, or by what was never written.
            let head = (offset, offset + FRAME_HEAD as u64);
            let torn = is_zero_from(segment, head.1, size)
                .and_then(|zero| Ok(zero || is_unwritten(segment, head, sequence, size)?));
            if torn.map_err(|error| self.io(&error))? {
                return Ok(Read::Torn);
            }
            return Err(segment.corrupt(offset, "a frame's head does not match its checksum"));
        }
        let len = u32::from_le_bytes(part(&head, 0)) as usize;
        if len > MAX_FRAME {
            return Err(segment.corrupt(offset, format!("a frame of {len} bytes")));
        }
        let whole = FRAME_HEAD + len + TRAILER.len();
        let next = offset + whole as u64;
        if next > size {
            return Ok(Read::Torn);
        }
        let frame = match self.get(offset, whole) {
            Ok(frame) => frame,
            Err(error) => return Err(self.io(&error)),
        };
        let (payload, trailer) = frame[FRAME_HEAD..].split_at(len);
        let is_whole = crc32fast::hash(payload).to_le_bytes() == head[4..8];
        if is_whole && trailer == TRAILER {
            return Ok(Read::Frame { sequence: u64::from_le_bytes(part(&head, 8)), len });
        }
        // Never written, rather than altered: the end is zero, or a whole block is, which no altered
        // bit makes so. Of the last frame, or when nothing says that it was synced.
        let hole = || has_zero_block(offset + FRAME_HEAD as u64, payload);
        if next == size && (trailer[3] == 0 || (!is_whole && hole())) {
            return Ok(Read::Torn);
        }
        let torn = is_unwritten(segment, (offset, next), sequence, size);
        if torn.map_err(|error| self.io(&error))? {
            return Ok(Read::Torn);
        }
        let what = "a batch does not match its checksum";
        Err(segment.corrupt(offset + FRAME_HEAD as u64, what))
    }
}

fn is_zero_from(segment: &Segment, mut offset: u64, size: u64) -> io::Result<bool> {
    while offset < size {
        let len = (size - offset).min(1 << 16) as usize;
        if segment.read(offset, len)?.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        offset += len as u64;
    }
    Ok(true)
}

/// Whether a block of the file, counted from its beginning, lies in the payload and is all zero.
fn has_zero_block(offset: u64, payload: &[u8]) -> bool {
    let skip = (BLOCK as u64 - offset % BLOCK as u64) as usize % BLOCK;
    let Some(rest) = payload.get(skip..) else { return false };
    rest.chunks_exact(BLOCK).any(|block| block.iter().all(|byte| *byte == 0))
}

/// The changes in a payload that stands at `offset` of the segment.
pub(super) fn read_items(
    segment: &Arc<Segment>,
    offset: u64,
    payload: &[u8],
    mut each: impl FnMut(Change<Place, Place>) -> bool,
) -> Result<(), StoreError> {
    let mut at = 0;
    while at < payload.len() {
        let here = offset + at as u64;
        let broken = || segment.corrupt(here, "an item is not what its kind says");
        let head = payload.get(at..at + 5).ok_or_else(broken)?;
        let len = u32::from_le_bytes(part(head, 1)) as usize;
        let body = payload.get(at + 5..).and_then(|rest| rest.get(..len)).ok_or_else(broken)?;
        let place = |skip: usize| Place {
            segment: Arc::clone(segment),
            offset: here + 5 + skip as u64,
            len: (len - skip) as u32,
        };
        let codec = |error| segment.codec(here, error);
        let id = || body.get(..16).map(|_| u128::from_le_bytes(part(body, 0))).ok_or_else(broken);
        let text = |from: usize| {
            let bytes = body.get(from..).ok_or_else(broken)?;
            String::from_utf8(bytes.to_vec()).map_err(|_| broken())
        };
        let number = || body.get(..8).map(|_| u64::from_le_bytes(part(body, 0))).ok_or_else(broken);
        let change = match head[0] {
            1 if len >= 32 => Change::Piece(Digest(part(body, 0)), place(32)),
            2 => Change::Checkpoint(Arc::new(stored::read_checkpoint(body).map_err(codec)?)),
            3 => Change::Line(Arc::new(stored::read_line(body).map_err(codec)?)),
            4 => {
                let position = number()?;
                let name = body.get(8..10).ok_or_else(broken)?;
                let end = 10 + usize::from(u16::from_le_bytes(part(name, 0)));
                let name = body.get(10..end).ok_or_else(broken)?;
                let name = std::str::from_utf8(name).map_err(|_| broken())?;
                Change::Append(Arc::from(name), position, place(end))
            }
            5 => Change::Trim(Arc::from(text(8)?), number()?),
            6 => {
                let pin = body.get(16..).ok_or_else(broken)?;
                Change::Pin(CheckpointId(id()?), stored::read_pin(pin).map_err(codec)?)
            }
            7 => Change::Unpin(CheckpointId(id()?), text(16)?),
            8 => Change::Bad(CheckpointId(id()?), text(16)?),
            9 => Change::Release(CheckpointId(id()?)),
            10 => Change::Topology(Arc::new(stored::read_topology(body).map_err(codec)?)),
            11 => Change::Drop(CheckpointId(id()?)),
            12 => Change::DropLine(LineId(id()?)),
            13 if len == 48 => Change::Anchor(CheckpointId(id()?), Digest(part(body, 16))),
            1 | 13 => return Err(broken()),
            kind => {
                return Err(StoreError::Incompatible {
                    file: segment.name.clone(),
                    what: "item kind".to_owned(),
                    found: kind.to_string(),
                    expected: "up to 13".to_owned(),
                });
            }
        };
        if !each(change) {
            return Err(segment.corrupt(here, "records of a journal are missing before this one"));
        }
        at += 5 + len;
    }
    Ok(())
}

/// A batch that waits to be written, with what its answer will be.
pub(super) type Waiting = (crate::checkpoint::store::Answerer, Receipt);
