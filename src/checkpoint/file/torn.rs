//! What was never written, told from what was altered.
//!
//! Of what stands unsynced when the power fails, any block may be missing, and later ones there: a file system
//! writes them in any order until it has synced. What was synced is whole. Every frame says how far before it
//! that was so when it was written.
//!
//! *Invariant.* Nothing that a frame after it says was synced is ever taken for torn.

use std::io;

use super::segment::{FRAME_HEAD, MAX_FRAME, Segment, TRAILER, part};

/// What file systems write at once: a whole block of zeros was never written.
const BLOCK: u64 = 4096;

/// Whether what stands at `offset`, and was to be the frame with this sequence, is not whole because it was never
/// written: a block of it is zero from where the frame begins, and nothing says that it was synced. `end` is
/// where it ends, as far as that is known.
pub(super) fn is_unwritten(
    segment: &Segment,
    (offset, end): (u64, u64),
    sequence: u64,
    size: u64,
) -> io::Result<bool> {
    Ok(has_hole(segment, (offset, end), size)?
        && !was_synced(segment, (offset, end), sequence, size)?)
}

/// Whether a block that has bytes of the frame is all zero: of the one it begins in, what is the frame's or comes
/// after it, if that is no less than a head, which is never zero.
fn has_hole(segment: &Segment, (offset, end): (u64, u64), size: u64) -> io::Result<bool> {
    let mut block = offset - offset % BLOCK;
    while block < end.min(size) {
        let from = block.max(offset);
        let until = (block + BLOCK).min(size);
        let len = (until - from) as usize;
        if len >= FRAME_HEAD && segment.read(from, len)?.iter().all(|byte| *byte == 0) {
            return Ok(true);
        }
        block += BLOCK;
    }
    Ok(false)
}

/// Whether a whole frame after it says that more was synced than what comes before it.
fn was_synced(
    segment: &Segment,
    (offset, end): (u64, u64),
    sequence: u64,
    size: u64,
) -> io::Result<bool> {
    let start = end.min(size);
    let bytes = segment.read(start, (size - start) as usize)?;
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= FRAME_HEAD + TRAILER.len()) {
        let Some((_, back, whole)) = whole_frame(rest).filter(|(later, ..)| *later > sequence)
        else {
            at += 1;
            continue;
        };
        if (start + at as u64).saturating_sub(u64::from(back)) > offset {
            return Ok(true);
        }
        at += whole;
    }
    Ok(false)
}

/// The frame that these bytes begin with: its sequence, how far before it all was synced, and its length.
fn whole_frame(bytes: &[u8]) -> Option<(u64, u32, usize)> {
    let len = u32::from_le_bytes(part(bytes, 0)) as usize;
    let whole = FRAME_HEAD + len + TRAILER.len();
    if len > MAX_FRAME || whole > bytes.len() || bytes[whole - TRAILER.len()..whole] != TRAILER {
        return None;
    }
    let (head, rest) = bytes.split_at(FRAME_HEAD);
    let is_sound = crc32fast::hash(&head[..20]).to_le_bytes() == head[20..]
        && crc32fast::hash(&rest[..len]).to_le_bytes() == head[4..8];
    let (sequence, back) = (u64::from_le_bytes(part(head, 8)), u32::from_le_bytes(part(head, 16)));
    is_sound.then_some((sequence, back, whole))
}
