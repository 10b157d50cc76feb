//! Names of things: which child, which life of it, which request, which hand-out of that request.
//!
//! *Invariant.* Identifiers are plain values. None of them can reach an actor, and none is read from
//! a clock or a random source.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The address of a child for life: the ids of its supervisors and its own, joined by `/`.
///
/// The root supervisor's id is the first segment: `support/llm/claude`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct ChildPath(Arc<str>);

impl ChildPath {
    /// A path from its text. No check is made: a path that names nothing simply is not found.
    pub fn new(path: impl AsRef<str>) -> Self {
        Self(Arc::from(path.as_ref()))
    }

    /// The path of the child `id` below this one.
    pub fn join(&self, id: &str) -> Self {
        let mut text = String::with_capacity(self.0.len() + 1 + id.len());
        text.push_str(&self.0);
        text.push('/');
        text.push_str(id);
        Self(Arc::from(text))
    }

    /// The whole path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last segment: the child's id within its supervisor.
    pub fn id(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The supervisor's path; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        self.0.rsplit_once('/').map(|(head, _)| Self::new(head))
    }
}

impl fmt::Display for ChildPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ChildPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl From<&str> for ChildPath {
    fn from(path: &str) -> Self {
        Self::new(path)
    }
}

impl From<String> for ChildPath {
    fn from(path: String) -> Self {
        Self::new(path)
    }
}

impl From<ChildPath> for String {
    fn from(path: ChildPath) -> Self {
        path.0.as_ref().to_owned()
    }
}

impl PartialEq<str> for ChildPath {
    fn eq(&self, other: &str) -> bool {
        &*self.0 == other
    }
}

impl PartialEq<&str> for ChildPath {
    fn eq(&self, other: &&str) -> bool {
        &*self.0 == *other
    }
}

/// One life of a child. Grows by one with each start; [`Incarnation::NONE`] before the first.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Incarnation(pub u32);

impl Incarnation {
    /// The child has not been started yet.
    pub const NONE: Self = Self(0);

    /// The next life. Wraps after 2^32 lives.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// One accepted request. Unique within a system, in the order of acceptance as one thread sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RequestId(pub u64);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

/// How often a request has been handed out: 1 for the first time. Grows with each retry,
/// interruption and substitute, and never shrinks.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Delivery(pub u32);

impl Delivery {
    /// Not handed out yet.
    pub const NONE: Self = Self(0);

    /// The next hand-out.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// The right to work on a request: a request and one hand-out of it. Whoever comes back with a lease
/// that is no longer current changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lease {
    /// The request.
    pub request: RequestId,
    /// Which hand-out of it.
    pub delivery: Delivery,
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.request, self.delivery.0)
    }
}

/// What an effect is: the same act of the same task has the same key, however often it is tried.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EffectKey([u8; 32]);

impl EffectKey {
    /// The key of the `ordinal`-th act of a step. `arguments` are canonical: the same value always
    /// gives the same bytes.
    pub fn of(task: &str, step: u64, ordinal: u32, tool: &ChildPath, arguments: &[u8]) -> Self {
        let mut hash = blake3::Hasher::new();
        // Lengths first, so that no two sets of parts can run into each other.
        for part in [task.as_bytes(), tool.as_str().as_bytes(), arguments] {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.update(&step.to_le_bytes());
        hash.update(&ordinal.to_le_bytes());
        Self(*hash.finalize().as_bytes())
    }

    /// The key as stored.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A key that was stored.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl std::str::FromStr for EffectKey {
    type Err = ();

    /// Reads what `Display` writes: 64 hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, ()> {
        if text.len() != 64 || !text.is_ascii() {
            return Err(());
        }
        let mut key = [0; 32];
        for (at, byte) in key.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(drop)?;
        }
        Ok(Self(key))
    }
}

impl fmt::Display for EffectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for EffectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// One stored state of a child: `cp-` and a UUID. Sorted by the time it was issued, as far as the wall
/// clock of its issuer could be trusted; the store keeps its own order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CheckpointId(pub u128);

/// One recovery line: `line-` and a UUID.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LineId(pub u128);

/// A text that is no id of the wanted kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidId {
    /// The text.
    pub text: String,
    /// How it would have to look.
    pub wanted: &'static str,
}

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no id of the form {}", self.text, self.wanted)
    }
}

impl std::error::Error for InvalidId {}

/// The five groups of a UUID's text: how many hexadecimal digits each has.
const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];

fn write_uuid(f: &mut fmt::Formatter<'_>, prefix: &str, bits: u128) -> fmt::Result {
    let (a, b) = (bits >> 96, bits >> 80 & 0xffff);
    let (c, d) = (bits >> 64 & 0xffff, bits >> 48 & 0xffff);
    write!(f, "{prefix}{a:08x}-{b:04x}-{c:04x}-{d:04x}-{:012x}", bits & 0xffff_ffff_ffff)
}

fn read_uuid(text: &str, prefix: &str) -> Option<u128> {
    let mut groups = text.strip_prefix(prefix)?.split('-');
    let mut bits = 0_u128;
    for digits in GROUPS {
        let group = groups.next().filter(|group| group.len() == digits)?;
        if !group.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        bits = bits << (4 * digits) | u128::from_str_radix(group, 16).ok()?;
    }
    groups.next().is_none().then_some(bits)
}

macro_rules! uuid_id {
    ($name:ident, $prefix:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_uuid(f, $prefix, self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let invalid =
                    || InvalidId { text: text.to_owned(), wanted: concat!($prefix, "<uuid>") };
                read_uuid(text, $prefix).map(Self).ok_or_else(invalid)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }
    };
}

uuid_id!(CheckpointId, "cp-");
uuid_id!(LineId, "line-");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_id_reads_back_from_its_text_and_no_other_text_does() {
        let id = CheckpointId(0x0192_f0e1_d2c3_7123_8abc_0123_4567_89ab);
        assert_eq!(id.to_string(), "cp-0192f0e1-d2c3-7123-8abc-0123456789ab");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(CheckpointId(7).to_string().parse(), Ok(CheckpointId(7)));
        let line = LineId(id.0).to_string();
        assert_eq!(line.parse(), Ok(LineId(id.0)));
        for wrong in ["", "cp-", &line, "cp-0192f0e1d2c371238abc0123456789ab"] {
            let error = wrong.parse::<CheckpointId>().unwrap_err();
            assert_eq!(error.text, wrong);
        }
        for (at, other) in [(3, 'g'), (3, 'A'), (11, '0'), (5, '+')] {
            let mut text = id.to_string();
            text.replace_range(at..=at, &other.to_string());
            assert!(text.parse::<CheckpointId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_path_knows_its_id_and_its_parent() {
        let path = ChildPath::new("support").join("llm").join("claude");
        assert_eq!(path, "support/llm/claude");
        assert_eq!(path.id(), "claude");
        assert_eq!(path.parent(), Some(ChildPath::new("support/llm")));
        assert_eq!(ChildPath::new("support").parent(), None);
        assert_eq!(ChildPath::new("support").id(), "support");
    }
}
