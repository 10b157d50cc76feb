//! What goes wrong with stored state: in its bytes, in its store, in its meaning.

use std::time::Duration;

use thiserror::Error;

use crate::fault::{Class, Fault};
use crate::id::{CheckpointId, ChildPath};

/// Why bytes were not made, or were refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The bytes are not what was written: cut short, flipped, or something else altogether.
    #[error("corrupt: {0}")]
    Corrupt(String),
    /// Written in a way this build does not read: a later format, codec or schema.
    #[error("{what} {found} is not known here, {expected} is")]
    Incompatible {
        /// What differs: the format, the codec, a schema.
        what: String,
        /// As found.
        found: String,
        /// As understood here.
        expected: String,
    },
    /// Larger than is ever written or read.
    #[error("{what} has {size} bytes, at most {limit} are taken")]
    TooLarge {
        /// What.
        what: String,
        /// Its size, or what it claims to be.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The bytes are sound, but are no value of the wanted type.
    #[error("not a {wanted}: {why}")]
    IllTyped {
        /// The type asked for.
        wanted: String,
        /// What does not fit.
        why: String,
    },
    /// A value that cannot be encoded, or whose bytes could not be read back.
    #[error("{what} cannot be stored: {why}")]
    Unstorable {
        /// Its type.
        what: String,
        /// Why.
        why: String,
    },
}

impl CodecError {
    /// What was found, for an error that says itself that something is corrupt.
    pub(crate) fn found(self) -> String {
        match self {
            Self::Corrupt(what) => what,
            other => other.to_string(),
        }
    }
}

/// Why a store did not do what it was asked. Nothing that was written before is lost by any of them.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another store object, in this process or another one, has the folder open.
    #[error(
        "store \"{store}\" is in use by {}; stop it, or use another folder",
        .holder.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    )]
    Locked {
        /// The folder.
        store: String,
        /// The process that has it, when it said so.
        holder: Option<u32>,
    },
    /// Another system of this process works on this store object. A store has one at a time.
    #[error(
        "{} has the system \"{root}\" of this process on it, for {age:?}{}",
        named(.store),
        if *.ending { ": it is about to stop, and has not come to its end" } else { "; stop it first" }
    )]
    InUse {
        /// The folder, or `memory`; empty where it is not known.
        store: String,
        /// The root of the other system.
        root: ChildPath,
        /// For how long it has had the store.
        age: Duration,
        /// Whether it is about to stop.
        ending: bool,
    },
    /// There is no such checkpoint, line or piece.
    #[error("{0} is not in the store")]
    NotFound(String),
    /// The stored bytes are not what was written.
    #[error("store file \"{file}\" is corrupt at byte {offset}: {what}")]
    Corrupt {
        /// The file.
        file: String,
        /// Where in it.
        offset: u64,
        /// What was found.
        what: String,
    },
    /// Written by a version, or in a format, that this build does not read.
    #[error("store file \"{file}\": {what} {found} is not known here, {expected} is")]
    Incompatible {
        /// The file.
        file: String,
        /// What differs.
        what: String,
        /// As found.
        found: String,
        /// As understood here.
        expected: String,
    },
    /// The batch contradicts the store: an unknown parent, an id used twice, a member that is missing.
    /// Nothing of it was written.
    #[error("{} refused the batch: {why}", named(.store))]
    Refused {
        /// The folder, or `memory`; empty where it is not known.
        store: String,
        /// What contradicts it, by name.
        why: String,
    },
    /// Something in the batch cannot be encoded. Nothing of it was written.
    #[error("{} refused the batch: {what}: {why}", named(.store))]
    Codec {
        /// The folder, or `memory`; empty where it is not known.
        store: String,
        /// What cannot be encoded: a checkpoint, a line, a record of a journal.
        what: String,
        /// Why.
        #[source]
        why: Box<CodecError>,
    },
    /// More bytes than one commit may have.
    #[error(
        "{}: the batch has {size} bytes with {what}, at most {limit} are taken at once",
        named(.store)
    )]
    TooLarge {
        /// The folder, or `memory`.
        store: String,
        /// What was too much: a checkpoint, a line, a record of a journal.
        what: String,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The disk, or the quota of the store, is full. Nothing of the batch is kept, and later ones may
    /// fit: free space, or compact.
    #[error("store \"{store}\" is full: {what}; free space, or compact it")]
    Full {
        /// The folder.
        store: String,
        /// What was said.
        what: String,
    },
    /// Reading or writing failed. Nothing of the batch is kept; the same may work later.
    #[error("store \"{store}\": {what} failed: {why}")]
    Io {
        /// The folder or file.
        store: String,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        why: String,
    },
    /// An earlier write failed in a way that leaves the file's end in doubt. Reading works; writing
    /// does until the store is opened anew.
    #[error("store \"{store}\" takes no more writes: {cause}; open it anew")]
    Poisoned {
        /// The folder.
        store: String,
        /// The first failure.
        cause: String,
    },
    /// The store was closed before it answered.
    #[error("{} is closed", named(.store))]
    Closed {
        /// The folder, or `memory`; empty where it is not known.
        store: String,
    },
}

/// How an error begins.
fn named(store: &str) -> String {
    if store.is_empty() { "the store".to_owned() } else { format!("store \"{store}\"") }
}

impl StoreError {
    /// Whether the same operation may work later without anybody's doing.
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Io { .. } | Self::Full { .. } | Self::Locked { .. } | Self::InUse { .. }
        )
    }

    /// Something that cannot be encoded, by name; which store it was meant for is said by
    /// [`StoreError::of`].
    pub(crate) fn codec(what: impl Into<String>) -> impl FnOnce(CodecError) -> Self {
        move |why| Self::Codec { store: String::new(), what: what.into(), why: Box::new(why) }
    }

    /// The same, of this store, where it does not say of which.
    #[must_use]
    pub(crate) fn of(mut self, name: &str) -> Self {
        if let Self::Refused { store, .. }
        | Self::Codec { store, .. }
        | Self::TooLarge { store, .. }
        | Self::Closed { store } = &mut self
            && store.is_empty()
        {
            name.clone_into(store);
        }
        self
    }
}

/// A failed synchronous write fails its step.
impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::new(Class::Internal, error.to_string())
    }
}

/// Why a checkpoint cannot be restored. Found before anything is stopped for it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// There is no such checkpoint, or none at all.
    #[error("{0} is not in the store")]
    NotFound(String),
    /// It is older than checkpoints may be, and no pin holds it.
    #[error("{checkpoint} is {age:?} old, at most {limit:?} are allowed; a pin would have held it")]
    Expired {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// Its age.
        age: Duration,
        /// The limit that applied.
        limit: Duration,
    },
    /// Its bytes are not what was written.
    #[error("{place} is corrupt: {what}")]
    Corrupt {
        /// Which checkpoint, piece, or file and byte.
        place: String,
        /// What was found.
        what: String,
    },
    /// A required field is absent.
    #[error("field \"{0}\" is missing")]
    MissingField(String),
    /// A field is of another type than the reader wants.
    #[error("field \"{field}\" is not a {wanted}: {why}")]
    IllTyped {
        /// The field.
        field: String,
        /// The type asked for.
        wanted: String,
        /// What does not fit.
        why: String,
    },
    /// A field cannot be stored. It is found when the checkpoint is made, not when it is needed.
    #[error("field \"{field}\" cannot be stored: {why}")]
    Unstorable {
        /// The field.
        field: String,
        /// Why.
        why: String,
    },
    /// Of a schema, format or topology that this system does not understand.
    #[error("{what} {found} does not fit, {expected} is expected here")]
    Incompatible {
        /// What differs: schema, format, topology.
        what: String,
        /// As found.
        found: String,
        /// As expected here.
        expected: String,
    },
    /// `restore` panicked with it: its bytes are what was written, and the code does not cope with what they say.
    #[error("the restore of {checkpoint} panicked: {panic}")]
    RestorePanicked {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// With which text.
        panic: String,
    },
    /// A new life, which would have it, could not be made: the user's code panicked before the state came into
    /// it. No state is at fault.
    #[error("a new life of \"{child}\" cannot be made: its {what} panicked: {panic}")]
    NoLife {
        /// The child.
        child: ChildPath,
        /// What panicked: `constructor`, or `snapshot` of a child that declares no schema.
        what: &'static str,
        /// With which text.
        panic: String,
    },
    /// A checkpoint it was built on is missing or has been altered.
    #[error("the lineage of {checkpoint} is broken: {why}")]
    BrokenLineage {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// Where.
        why: String,
    },
    /// It stands at a position of the effect ledger that the ledger has not reached: the ledger lost
    /// effects, and restoring would forget them.
    #[error("{checkpoint} stands at ledger position {position}, the ledger only at {current}")]
    LedgerBehind {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// Its position.
        position: u64,
        /// The ledger's.
        current: u64,
    },
    /// It failed a restore and was set aside.
    #[error("{checkpoint} was set aside: {reason}; release it to use it again")]
    Quarantined {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// Why.
        reason: String,
    },
    /// It was returned to once, and what followed led here again.
    #[error("{checkpoint} was returned to before, and only once is allowed")]
    Used {
        /// The checkpoint.
        checkpoint: CheckpointId,
    },
    /// The store could not say now. It may later.
    #[error("not readable now: {0}")]
    Transient(StoreError),
}

impl CheckpointError {
    /// Whether the same checkpoint may be usable later without anybody's doing.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Transient(_))
    }

    /// The error of the codec, met in this field.
    pub(crate) fn in_field(field: &str, error: CodecError) -> Self {
        let field = field.to_owned();
        match error {
            CodecError::Corrupt(what) => {
                Self::Corrupt { place: format!("field \"{field}\""), what }
            }
            CodecError::Incompatible { what, found, expected } => {
                Self::Incompatible { what: format!("field \"{field}\": {what}"), found, expected }
            }
            CodecError::IllTyped { wanted, why } => Self::IllTyped { field, wanted, why },
            other => Self::Unstorable { field, why: other.to_string() },
        }
    }
}

impl From<StoreError> for CheckpointError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound(what) => Self::NotFound(what),
            StoreError::Corrupt { file, offset, what } => {
                Self::Corrupt { place: format!("\"{file}\" at byte {offset}"), what }
            }
            StoreError::Incompatible { file, what, found, expected } => {
                Self::Incompatible { what: format!("\"{file}\": {what}"), found, expected }
            }
            other => Self::Transient(other),
        }
    }
}

impl From<CheckpointError> for Fault {
    fn from(error: CheckpointError) -> Self {
        Self::new(Class::Internal, error.to_string())
    }
}
