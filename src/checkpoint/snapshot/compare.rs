//! Whether what a life says of itself after it was restored is what it was restored from.
//!
//! *Invariant.* Values that are shared are the same, and are not looked at; nothing is encoded that has not been
//! recorded.

use super::{Encoded, Piece, Snapshot};
use crate::checkpoint::codec;

impl Snapshot {
    /// The names of the pieces in which this one, given by a life that was just restored, is not what that was
    /// restored `from`; of what was never encoded nothing is recorded, and it counts as the same. `None` where it has
    /// to be encoded to know and `at_once` is wanted.
    pub(crate) fn differs(&self, from: &Self, at_once: bool) -> Option<Vec<String>> {
        let mut names = Vec::new();
        for before in from.pieces() {
            let now = self.piece(before.name()).ok();
            let is_same = match now {
                None => false,
                Some(now) if now.body.value().is_some_and(|it| before.body.has(it)) => true,
                Some(_) if !before.is_encoded() => true,
                Some(_) if at_once => return None,
                Some(now) => self.has_bytes_of(now, before, from),
            };
            if !is_same {
                names.push(before.name().to_owned());
            }
        }
        let is_new = |piece: &&Piece| !from.has(piece.name());
        names.extend(self.pieces().iter().filter(is_new).map(|piece| piece.name().to_owned()));
        Some(names)
    }

    fn has_bytes_of(&self, now: &Piece, before: &Piece, from: &Self) -> bool {
        let (Ok(now), Ok(before)) = (now.encoded(self.schema()), before.encoded(from.schema()))
        else {
            return false;
        };
        now.digest == before.digest || is_renamed(now, before)
    }
}

/// What an older version of the schema has written, and nobody has changed, has another name for the same bytes.
fn is_renamed(now: &Encoded, before: &Encoded) -> bool {
    match (codec::open(&now.bytes), codec::open(&before.bytes)) {
        (Ok(now), Ok(before)) => now.payload() == before.payload(),
        _ => false,
    }
}
