//! State as a message: named, shared, immutable pieces.
//!
//! *Invariant.* A piece is encoded and hashed when somebody first needs its bytes, and not again for the snapshots
//! that follow: the encoding stays with it. Cloning a snapshot is a reference count, and dropping one never panics.

use std::any::{Any, type_name};
use std::borrow::Cow;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::checkpoint::codec::{self, SchemaId};
use crate::checkpoint::manifest::Digest;
use crate::error::CheckpointError;

type Shared = Arc<dyn Any + Send + Sync>;
type Encode =
    fn(&SchemaId, Option<&(dyn Any + Send + Sync)>, &str) -> Result<Encoded, CheckpointError>;

/// The state of a child at one moment, between two steps.
///
/// ```
/// use std::sync::Arc;
/// use mainstay::checkpoint::Snapshot;
///
/// let context = Arc::new(vec!["hello".to_owned()]);
/// let before = Snapshot::new("agent", 1).with("context", Arc::clone(&context));
/// // A step later nothing has changed: the piece, and any encoding of it, is taken over.
/// let after = Snapshot::new("agent", 1).with("context", context).following(&before);
/// assert_eq!(after.get::<Vec<String>>("context")?.len(), 1);
/// # Ok::<(), mainstay::error::CheckpointError>(())
/// ```
///
/// # Limits
/// The value behind an [`Arc`] must not change while it is in a snapshot: no interior mutability. A
/// `HashMap` in it makes its digest differ between two equal values; take a `BTreeMap` where digests
/// are compared. See [`codec`](crate::checkpoint::codec::encode) for types that cannot be stored. It is made for some
/// hundred pieces at most: each is looked for among all, and with 10,000 a snapshot takes more than a second.
#[derive(Clone)]
pub struct Snapshot {
    content: Arc<Content>,
    /// The snapshot before, while this one is put together.
    previous: Option<Arc<Content>>,
}

#[derive(Clone)]
struct Content {
    schema: SchemaId,
    pieces: Vec<Piece>,
    /// A bit for each [kind] of name among the pieces: a name of another kind is not looked for among them.
    marks: u64,
}

impl Snapshot {
    /// An empty snapshot of this schema.
    pub fn new(schema: impl Into<Cow<'static, str>>, version: u32) -> Self {
        Self::of(SchemaId::new(schema, version))
    }

    pub(crate) fn of(schema: SchemaId) -> Self {
        let content = Content { schema, pieces: Vec::new(), marks: 0 };
        Self { content: Arc::new(content), previous: None }
    }

    /// The next snapshot after `previous`, of the same schema and still empty. Pieces that did not
    /// change are taken over as they are added, which is cheaper than [`Snapshot::following`] and
    /// comes to the same. Until it becomes part of a draft it holds the pieces of `previous`, too.
    pub fn after(previous: &Self) -> Self {
        let Content { schema, pieces, .. } = &*previous.content;
        let (schema, pieces) = (schema.clone(), Vec::with_capacity(pieces.len()));
        let content = Content { schema, pieces, marks: 0 };
        Self { content: Arc::new(content), previous: Some(Arc::clone(&previous.content)) }
    }

    /// Adds a piece; one of the same name is replaced.
    #[must_use]
    pub fn with<T>(self, name: impl Into<Cow<'static, str>>, value: Arc<T>) -> Self
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        self.with_given(name.into(), value, encode::<T>)
    }

    fn with_given(self, name: Cow<'static, str>, value: Shared, encode: Encode) -> Self {
        let (value, encoded) = (Value(Some(value)), Held::default());
        let (kind, body) = (kind(&name), Body::Given { value, encode, encoded });
        self.put(Piece { name, body, kind }, true)
    }

    /// Adds a piece of another snapshot as it is: neither decoded nor, later, written again.
    ///
    /// # Errors
    /// [`CheckpointError::MissingField`] when `from` has no such piece.
    pub fn keep(self, from: &Self, name: &str) -> Result<Self, CheckpointError> {
        Ok(self.with_piece(from.piece(name)?.clone()))
    }

    #[must_use]
    pub(crate) fn with_piece(self, piece: Piece) -> Self {
        self.put(piece, false)
    }

    /// A piece that `is_given` may be one of the snapshot before.
    #[inline(always)]
    fn put(mut self, mut piece: Piece, is_given: bool) -> Self {
        let Content { pieces, marks, .. } = Arc::make_mut(&mut self.content);
        if is_given && let Some(previous) = &self.previous {
            piece.take_over(&previous.pieces, pieces.len());
        }
        let mark = 1 << piece.kind;
        let may_be_there = *marks & mark != 0;
        *marks |= mark;
        let known = match may_be_there {
            true => pieces.iter_mut().find(|other| other.is_named(piece.kind, &piece.name)),
            false => None,
        };
        match known {
            Some(other) => *other = piece,
            None => {
                if pieces.len() == pieces.capacity() {
                    grow(pieces);
                }
                pieces.push(piece);
            }
        }
        self
    }

    /// Takes over from `previous` the pieces that did not change: those of the same name whose value
    /// is the same [`Arc`]. Their encodings come along, so only what changed costs anything.
    #[must_use]
    pub fn following(self, previous: &Self) -> Self {
        self.settled().taking_over(previous)
    }

    /// Lets go of the snapshot before.
    pub(crate) fn settled(mut self) -> Self {
        self.previous = None;
        self
    }

    fn taking_over(mut self, previous: &Self) -> Self {
        let (before, now) = (&previous.content, &self.content);
        let is_known =
            before.schema.name == now.schema.name && before.schema.version <= now.schema.version;
        // A child in memory whose states nobody has needed the bytes of has nothing to hand on.
        let has_bytes = || before.pieces.iter().any(Piece::may_have_bytes);
        if is_known && !Arc::ptr_eq(before, now) && has_bytes() {
            let pieces = &mut Arc::make_mut(&mut self.content).pieces;
            for (at, piece) in pieces.iter_mut().enumerate() {
                piece.take_over(&before.pieces, at);
            }
        }
        self
    }

    /// Name and version of its schema.
    pub fn schema(&self) -> &SchemaId {
        &self.content.schema
    }

    /// The pieces, in the order in which they were added.
    pub fn pieces(&self) -> &[Piece] {
        &self.content.pieces
    }

    /// Whether there is a piece of this name.
    pub fn has(&self, name: &str) -> bool {
        self.found(name).is_some()
    }

    /// The piece of this name: the very [`Arc`] it was made with, or, for one that comes from a store,
    /// decoded now and kept.
    ///
    /// # Errors
    /// [`CheckpointError::MissingField`]; [`CheckpointError::IllTyped`] when it is no `T`;
    /// [`CheckpointError::Corrupt`].
    pub fn get<T>(&self, name: &str) -> Result<Arc<T>, CheckpointError>
    where
        T: DeserializeOwned + Send + Sync + 'static,
    {
        self.piece(name)?.get()
    }

    /// What names its whole content: schema, and the names and digests of its pieces in the order of
    /// their names. Encodes what has not been encoded yet.
    ///
    /// # Errors
    /// A piece that cannot be encoded.
    pub fn digest(&self) -> Result<Digest, CheckpointError> {
        let Content { schema, pieces, .. } = &*self.content;
        let mut parts = Vec::with_capacity(pieces.len());
        for piece in pieces {
            parts.push((piece.name(), piece.encoded(schema)?.digest));
        }
        parts.sort_unstable();
        let mut hash = blake3::Hasher::new();
        hash.update(schema.to_string().as_bytes());
        for (name, digest) in parts {
            hash.update(&(name.len() as u64).to_le_bytes());
            hash.update(name.as_bytes());
            hash.update(&digest.0);
        }
        Ok(Digest(*hash.finalize().as_bytes()))
    }

    fn piece(&self, name: &str) -> Result<&Piece, CheckpointError> {
        self.found(name).ok_or_else(|| CheckpointError::MissingField(name.to_owned()))
    }

    fn found(&self, name: &str) -> Option<&Piece> {
        let kind = kind(name);
        if self.content.marks & (1 << kind) == 0 {
            return None;
        }
        self.content.pieces.iter().find(|piece| piece.is_named(kind, name))
    }
}

impl fmt::Debug for Snapshot {
    /// Schema and names; never a value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.pieces().iter().map(Piece::name).collect();
        f.debug_struct("Snapshot").field("schema", self.schema()).field("pieces", &names).finish()
    }
}

/// One named part of a snapshot. Cheap to clone.
#[derive(Clone)]
pub struct Piece {
    name: Cow<'static, str>,
    body: Body,
    /// Of its name.
    kind: u8,
}

/// Room for more pieces. Most have a handful, or a dozen, which allocators still have at hand: 1 KiB; but not for what
/// is made larger, so it is moved.
#[cold]
#[inline(never)]
fn grow(pieces: &mut Vec<Piece>) {
    let mut room = Vec::with_capacity((3 * pieces.len()).max(4));
    room.append(pieces);
    *pieces = room;
}

/// One of 64 kinds of names: names of one snapshot tend to begin alike, and each is looked for among all of them.
fn kind(name: &str) -> u8 {
    let name = name.as_bytes();
    ((name.len() as u8).wrapping_mul(23) ^ name.last().copied().unwrap_or(0)) % 64
}

/// A user's value; there until it is let go of.
#[derive(Clone)]
struct Value(Option<Shared>);

impl Drop for Value {
    /// The last snapshot that has a value is let go of by the runtime, wherever that happens to be: a panic of
    /// its end goes no further than here, and neither does one of the payload's.
    fn drop(&mut self) {
        if let Some(value) = self.0.take()
            && let Err(payload) = catch_unwind(AssertUnwindSafe(move || drop(value)))
        {
            let ended = catch_unwind(AssertUnwindSafe(move || drop(payload)));
            ended.unwrap_or_else(std::mem::forget);
        }
    }
}

/// What all clones of a piece have in common: its bytes, once somebody has needed them.
type Encoding = OnceLock<Result<Encoded, CheckpointError>>;

enum Body {
    /// It was made here.
    Given { value: Value, encode: Encode, encoded: Held },
    /// It came as bytes, and has a value once somebody has asked for it.
    Stored(Arc<Loaded>),
}

/// The encoding of a piece. Most pieces are given anew after each step and found to be the old ones, so
/// nothing is allocated for one before it has a clone or bytes, and one that is taken over is put in its
/// place without the locks of a cell.
#[derive(Default)]
struct Held {
    taken: Option<Arc<Encoding>>,
    own: OnceLock<Arc<Encoding>>,
}

impl Held {
    fn get(&self) -> Option<&Arc<Encoding>> {
        self.taken.as_ref().or_else(|| self.own.get())
    }

    fn get_or_init(&self) -> &Arc<Encoding> {
        self.taken.as_ref().unwrap_or_else(|| self.own.get_or_init(Arc::default))
    }
}

impl Clone for Held {
    fn clone(&self) -> Self {
        Self { taken: Some(Arc::clone(self.get_or_init())), own: OnceLock::new() }
    }
}

struct Loaded {
    encoded: Encoded,
    value: OnceLock<Value>,
}

impl Clone for Body {
    fn clone(&self) -> Self {
        match self {
            Self::Given { value, encode, encoded } => {
                Self::Given { value: value.clone(), encode: *encode, encoded: encoded.clone() }
            }
            Self::Stored(loaded) => Self::Stored(Arc::clone(loaded)),
        }
    }
}

impl Body {
    /// Its value, once it has one.
    fn value(&self) -> Option<&Shared> {
        let value = match self {
            Self::Given { value, .. } => Some(value),
            Self::Stored(loaded) => loaded.value.get(),
        };
        value.and_then(|value| value.0.as_ref())
    }

    /// Whether it has this very value.
    fn has(&self, value: &Shared) -> bool {
        self.value().is_some_and(|own| Arc::ptr_eq(own, value))
    }
}

/// A piece as an envelope, with the name of its content.
#[derive(Clone, Debug)]
pub(crate) struct Encoded {
    pub(crate) digest: Digest,
    pub(crate) bytes: Arc<Vec<u8>>,
}

impl Piece {
    fn new(name: Cow<'static, str>, body: Body) -> Self {
        Self { kind: kind(&name), name, body }
    }

    /// A piece that comes from a store, which has checked its bytes.
    pub(crate) fn stored(name: Cow<'static, str>, encoded: Encoded) -> Self {
        Self::new(name, Body::Stored(Arc::new(Loaded { encoded, value: OnceLock::new() })))
    }

    /// What a store in memory gives back under this name: the content is shared, and what was stored under
    /// another name with the same bytes may have been of another type.
    pub(crate) fn named(&self, name: Cow<'static, str>) -> Self {
        let encoded = match &self.body {
            Body::Given { encoded, .. } => encoded.get().and_then(|it| it.get()?.clone().ok()),
            Body::Stored(_) => None,
        };
        let body = match (&self.body, encoded) {
            (Body::Given { value, .. }, Some(encoded)) => {
                let value = OnceLock::from(value.clone());
                Body::Stored(Arc::new(Loaded { encoded, value }))
            }
            (body, _) => body.clone(),
        };
        Self::new(name, body)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether its bytes have been made, or came from a store.
    pub fn is_encoded(&self) -> bool {
        match &self.body {
            Body::Given { encoded, .. } => encoded.get().is_some_and(|it| it.get().is_some()),
            Body::Stored(_) => true,
        }
    }

    /// Whether its bytes have been made, or may be made for all that share them.
    fn may_have_bytes(&self) -> bool {
        match &self.body {
            Body::Given { encoded, .. } => encoded.get().is_some(),
            Body::Stored(_) => true,
        }
    }

    fn is_named(&self, kind: u8, name: &str) -> bool {
        let own = &*self.name;
        // Most names are literals, and asked for by the code that gave them.
        self.kind == kind && (std::ptr::eq(own, name) || own == name)
    }

    /// Takes over what is known of the piece of the same name and value among these, which is most
    /// likely at the same place.
    fn take_over(&mut self, before: &[Self], at: usize) {
        let Some(value) = self.body.value() else { return };
        let (kind, name) = (self.kind, &*self.name);
        let same = |other: &&Self| other.body.has(value) && other.is_named(kind, name);
        let known = before.get(at).filter(same).or_else(|| before.iter().find(same));
        match (&mut self.body, known.map(|known| &known.body)) {
            (Body::Given { encoded, .. }, Some(Body::Given { encoded: known, .. })) => {
                encoded.taken = known.get().cloned();
            }
            (body, Some(known)) => *body = known.clone(),
            (_, None) => {}
        }
    }

    fn get<T: DeserializeOwned + Send + Sync + 'static>(&self) -> Result<Arc<T>, CheckpointError> {
        let is = |value: &Value| value.0.clone().and_then(|value| value.downcast::<T>().ok());
        let loaded = match &self.body {
            Body::Given { value, .. } => {
                return is(value).ok_or_else(|| CheckpointError::IllTyped {
                    field: self.name.to_string(),
                    wanted: type_name::<T>().to_owned(),
                    why: "it holds another type".to_owned(),
                });
            }
            Body::Stored(loaded) => loaded,
        };
        if let Some(value) = loaded.value.get().and_then(is) {
            return Ok(value);
        }
        let value = codec::decode_checked::<T>(&loaded.encoded.bytes)
            .map_err(|error| CheckpointError::in_field(&self.name, error))?;
        let value = Arc::new(value);
        // Of two that decode at once, all get the first one's; but pieces of different types share their
        // bytes where these are the same, as those of an empty list and of an empty text are.
        let held = loaded.value.get_or_init(|| Value(Some(Arc::clone(&value) as _)));
        Ok(is(held).unwrap_or(value))
    }

    pub(crate) fn encoded(&self, schema: &SchemaId) -> Result<&Encoded, CheckpointError> {
        match &self.body {
            Body::Given { value, encode, encoded } => {
                let made = encoded
                    .get_or_init()
                    .get_or_init(|| encode(schema, value.0.as_deref(), &self.name));
                made.as_ref().map_err(Clone::clone)
            }
            Body::Stored(loaded) => Ok(&loaded.encoded),
        }
    }
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Piece")
            .field("name", &self.name)
            .field("encoded", &self.is_encoded())
            .finish_non_exhaustive()
    }
}

fn encode<T>(
    schema: &SchemaId,
    value: Option<&(dyn Any + Send + Sync)>,
    field: &str,
) -> Result<Encoded, CheckpointError>
where
    T: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    let Some(value) = value.and_then(|value| value.downcast_ref::<T>()) else {
        // `Snapshot::with` stores the function together with a value of its type.
        let why = "it holds another type".to_owned();
        let (field, wanted) = (field.to_owned(), type_name::<T>().to_owned());
        return Err(CheckpointError::IllTyped { field, wanted, why });
    };
    let (digest, bytes) =
        codec::encode(schema, value).map_err(|error| CheckpointError::in_field(field, error))?;
    Ok(Encoded { digest, bytes: Arc::new(bytes) })
}

mod compare;
#[cfg(test)]
mod tests;
