//! What is written today is what the newest version of the log says.

use std::fs::File;

use super::segment::{
    FORMAT, FRAME_HEAD, Frames, Head, Pending, Read, SEGMENT_HEAD, Segment, TRAILER, Window, part,
    read_items,
};
use super::*;
use crate::checkpoint::index::Change;
use crate::checkpoint::manifest::Digest;
use crate::id::LineId;

/// What a segment says, written by this version: byte for byte the same, unless the writing has changed.
fn written_anew(path: &Path) -> Vec<u8> {
    let file = File::open(path).unwrap();
    let size = file.metadata().unwrap().len();
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    let segment = Arc::new(Segment { name, file });
    let head = Head::read(&segment, &segment.read(0, SEGMENT_HEAD).unwrap().try_into().unwrap());
    let head = head.unwrap();
    let mut written = head.bytes().to_vec();
    let mut window = Window::new(&segment, size);
    let mut sequence = if head.kind == segment::Kind::Log { head.first } else { 0 };
    let mut offset = SEGMENT_HEAD as u64;
    while let Read::Frame { sequence: found, len } = window.frame(offset, sequence).unwrap() {
        assert_eq!(found, sequence);
        let mut frames = Frames::default();
        frames.begin();
        let payload = window.payload(offset, len);
        read_items(&segment, offset + FRAME_HEAD as u64, payload, |change| {
            put(&mut frames, change);
            true
        })
        .unwrap();
        // All of it was synced, each before the next.
        frames.end(sequence, 0);
        written.extend(frames.bytes);
        sequence += 1;
        offset += (FRAME_HEAD + len + TRAILER.len()) as u64;
    }
    written
}

fn put(frames: &mut Frames, change: Change<Place, Place>) {
    let change: Pending = match change {
        Change::Piece(digest, place) => {
            return frames.content(digest, &place.content(digest).unwrap());
        }
        Change::Append(stream, position, place) => {
            return frames.append(&stream, position, &place.record().unwrap());
        }
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
    };
    frames.change(change).unwrap();
}

/// Kinds of items in a segment, of those that [`read_items`] knows.
fn kinds(bytes: &[u8]) -> std::collections::BTreeSet<u8> {
    let mut kinds = std::collections::BTreeSet::new();
    let mut frame = SEGMENT_HEAD;
    while frame < bytes.len() {
        let end = frame + FRAME_HEAD + u32::from_le_bytes(part(bytes, frame)) as usize;
        let mut at = frame + FRAME_HEAD;
        while at < end {
            kinds.insert(bytes[at]);
            at += 5 + u32::from_le_bytes(part(bytes, at + 1)) as usize;
        }
        frame = end + TRAILER.len();
    }
    kinds
}

/// The kinds of items that the store of the other golden files has none of, as a base: with what they are made of.
fn rare() -> (Vec<u8>, Vec<String>) {
    let id = |n: u128| CheckpointId(n << 64 | 7);
    let changes: [Pending; 5] = [
        Change::Unpin(id(1), "operator".to_owned()),
        Change::Release(id(2)),
        Change::Drop(id(3)),
        Change::DropLine(LineId(4 << 64 | 7)),
        Change::Anchor(id(5), Digest([9; 32])),
    ];
    let said = changes.iter().map(|change| format!("{change:?}")).collect();
    let mut frames = Frames::default();
    frames.begin();
    for change in changes {
        frames.change(change).unwrap();
    }
    frames.end(0, 0);
    let head = Head { kind: segment::Kind::Base, number: 1, first: 1, frames: 1 };
    (head.bytes().into_iter().chain(frames.bytes).collect(), said)
}

#[test]
fn every_kind_of_item_is_read_as_it_was_written() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let (bytes, said) = rare();
    let file = root.join(format!("v{FORMAT}/items.seg"));
    if std::env::var("MAINSTAY_GOLDEN").is_ok_and(|it| it == "write") && !file.exists() {
        std::fs::write(&file, &bytes).unwrap();
    }
    for version in 1..=FORMAT {
        let path = root.join(format!("v{version}/items.seg"));
        let segment = Segment { name: "items.seg".to_owned(), file: File::open(path).unwrap() };
        let segment = Arc::new(segment);
        let size = segment.file.metadata().unwrap().len();
        let len = size as usize - SEGMENT_HEAD - FRAME_HEAD - TRAILER.len();
        let at = (SEGMENT_HEAD + FRAME_HEAD) as u64;
        let mut found = Vec::new();
        read_items(&segment, at, &segment.read(at, len).unwrap(), |change| {
            found.push(format!("{change:?}"));
            true
        })
        .unwrap();
        assert_eq!(found, said, "version {version}");
    }
    assert_eq!(std::fs::read(file).unwrap(), bytes, "a change of the format is a new version");
}

#[test]
fn what_is_written_today_is_what_the_newest_version_wrote() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let newest = root.join(format!("v{FORMAT}"));
    let mut seen = std::collections::BTreeSet::new();
    for name in ["store/base-0000000001.seg", "store/log-0000000002.seg", "items.seg"] {
        let bytes = std::fs::read(newest.join(name)).unwrap();
        seen.extend(kinds(&bytes));
        let written = written_anew(&newest.join(name));
        let differs = bytes.iter().zip(&written).position(|(then, now)| then != now);
        assert_eq!(
            (differs, written.len()),
            (None, bytes.len()),
            "{name} is written otherwise than by version {FORMAT}: a change of the format is a new version, with its \
             own golden files"
        );
    }
    assert_eq!(seen, (1..=13).collect(), "every kind of item is in a golden file");
}
