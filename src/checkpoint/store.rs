//! What a store of checkpoints promises.
//!
//! *Invariant.* A batch is committed whole or not at all, in the order of commits, and what was
//! answered with success is never taken back. No method hides a failure. Committing does not block the
//! caller's thread; reading may.

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin as Pinned;
use std::sync::Arc;
use std::task::{Context, Poll};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

pub use crate::checkpoint::batch::{Batch, Item};
use crate::checkpoint::codec;
use crate::checkpoint::index::Index;
use crate::checkpoint::line::RecoveryLine;
use crate::checkpoint::manifest::{Checkpoint, Digest, Now, Pin, Topology, Wall, envelope_schema};
use crate::checkpoint::snapshot::{Encoded, Piece, Snapshot};
use crate::checkpoint::{LONGEST_PIN, Scope, stored};
use crate::error::{CodecError, StoreError};
use crate::id::{CheckpointId, ChildPath, LineId};

/// When a commit is answered.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Once it is in this process's memory, or better: it survives the end of a child.
    Memory,
    /// Once the operating system has it: it survives the end of this process. It is made to survive a
    /// power cut soon after.
    Async,
    /// Once it survives a power cut.
    #[default]
    Sync,
}

/// The answer to a commit, to be awaited, or waited for on a thread that may block. Dropping it does
/// not call the commit off.
#[must_use = "a commit has not happened until its answer says so"]
pub struct Commit(State);

enum State {
    Ready(Option<Result<Receipt, StoreError>>),
    Waiting(oneshot::Receiver<Result<Receipt, StoreError>>, Arc<str>),
}

/// Where the answer to a commit is put.
pub struct Answerer(oneshot::Sender<Result<Receipt, StoreError>>);

impl Answerer {
    /// Gives the answer. Nobody may be waiting for it.
    pub fn answer(self, result: Result<Receipt, StoreError>) {
        // The one who asked may have gone; the commit stands all the same.
        drop(self.0.send(result));
    }
}

impl fmt::Debug for Answerer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answerer")
    }
}

impl Commit {
    /// An answer that is known already.
    pub const fn ready(result: Result<Receipt, StoreError>) -> Self {
        Self(State::Ready(Some(result)))
    }

    /// An answer to come. When the [`Answerer`] is dropped, it is [`StoreError::Closed`].
    pub fn pending() -> (Answerer, Self) {
        Self::pending_of("".into())
    }

    /// As [`Commit::pending`], from the store of this name, which the error then says.
    pub fn pending_of(store: Arc<str>) -> (Answerer, Self) {
        let (sender, receiver) = oneshot::channel();
        (Answerer(sender), Self(State::Waiting(receiver, store)))
    }

    /// Waits for the answer on this thread. Not for a thread that runs async code, where it panics:
    /// await the commit there.
    ///
    /// # Errors
    /// What the store answers.
    pub fn wait(self) -> Result<Receipt, StoreError> {
        match self.0 {
            State::Ready(result) => result.unwrap_or_else(|| closed("")),
            State::Waiting(receiver, store) => {
                receiver.blocking_recv().unwrap_or_else(|_| closed(&store))
            }
        }
    }
}

impl Future for Commit {
    type Output = Result<Receipt, StoreError>;

    fn poll(mut self: Pinned<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Ready(result) => Poll::Ready(result.take().unwrap_or_else(|| closed(""))),
            State::Waiting(receiver, store) => Pinned::new(receiver)
                .poll(cx)
                .map(|answer| answer.unwrap_or_else(|_| closed(store))),
        }
    }
}

impl fmt::Debug for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            State::Ready(_) => "Commit(answered)",
            State::Waiting(..) => "Commit(waiting)",
        })
    }
}

fn closed(store: &str) -> Result<Receipt, StoreError> {
    Err(StoreError::Closed { store: store.to_owned() })
}

/// A batch that was committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Which commit of this store it was; grows by one each.
    pub sequence: u64,
    /// The positions of the journal records, in the order of the batch.
    pub positions: Vec<(Arc<str>, u64)>,
}

/// A record of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalRecord {
    /// Its position, from 1.
    pub position: u64,
    /// What was appended.
    pub bytes: Vec<u8>,
}

/// A checkpoint as a store lists it, without its pieces.
#[derive(Clone, Debug)]
pub struct Listed {
    /// What it says about itself.
    pub checkpoint: Arc<Checkpoint>,
    /// What holds it.
    pub pins: Vec<Pin>,
    /// Why it was set aside, if it was.
    pub bad: Option<Arc<str>>,
    /// What is wrong with its lineage, if anything is.
    pub broken: Option<Arc<str>>,
}

impl Listed {
    /// Whether people and its age say nothing against it now.
    pub(crate) fn is_of_use(&self, now: Now) -> bool {
        let Self { checkpoint, pins, bad, .. } = self;
        bad.is_none()
            && (checkpoint.age(now) <= checkpoint.validity()
                || pins.iter().any(|pin| pin.holds(now.wall, LONGEST_PIN)))
    }
}

/// A checkpoint with its pieces, as a store has it. It can be looked at; to restore it, have it
/// [validated](crate::checkpoint::Validator).
#[derive(Clone, Debug)]
pub struct Stored {
    /// What the store says about it.
    pub listed: Listed,
    /// Its state; pieces are decoded when asked for.
    pub snapshot: Snapshot,
    pub(crate) envelope: Option<Encoded>,
}

impl Stored {
    /// What it says about itself.
    pub fn checkpoint(&self) -> &Arc<Checkpoint> {
        &self.listed.checkpoint
    }

    /// The request in hand when it was taken.
    ///
    /// # Errors
    /// Its bytes are corrupt.
    pub fn envelope(&self) -> Result<Option<Vec<u8>>, CodecError> {
        let Some(encoded) = &self.envelope else { return Ok(None) };
        Ok(Some(codec::open(&encoded.bytes)?.raw()?.to_vec()))
    }

    /// Puts together what [`Store::load`] answers, for a store of your own: `content` gives the bytes of a content,
    /// as [`Sealed::parts`] has given them, by its name.
    ///
    /// # Errors
    /// What `content` says; [`StoreError::Corrupt`] and [`StoreError::Incompatible`], which name `store`, when the
    /// bytes are not the content of that name.
    ///
    /// [`Sealed::parts`]: crate::checkpoint::Sealed::parts
    pub fn new(
        store: &str,
        listed: Listed,
        mut content: impl FnMut(Digest) -> Result<Arc<Vec<u8>>, StoreError>,
    ) -> Result<Self, StoreError> {
        let id = listed.checkpoint.id;
        let mut read = |what: &str, digest: Digest| {
            let bytes = content(digest)?;
            let is_it = codec::open(&bytes).map(|opened| opened.digest() == digest);
            if is_it.map_err(|error| unreadable(store, id, what, error))? {
                return Ok(Encoded { digest, bytes });
            }
            let other = CodecError::Corrupt(format!("it is not {digest}"));
            Err(unreadable(store, id, what, other))
        };
        let envelope = match listed.checkpoint.envelope {
            Some(digest) => {
                let request = request_of(digest, read(REQUEST, digest)?.bytes);
                Some(request.map_err(|error| unreadable(store, id, REQUEST, error))?)
            }
            None => None,
        };
        let piece = |name: &str, digest| {
            let encoded = read(&format!("piece \"{name}\""), digest)?;
            Ok(Piece::stored(name.to_owned().into(), encoded))
        };
        Self::assemble(listed, piece, envelope)
    }

    /// Puts together what belongs to a checkpoint; `piece` finds a content by its name.
    pub(crate) fn assemble(
        listed: Listed,
        mut piece: impl FnMut(&str, Digest) -> Result<Piece, StoreError>,
        envelope: Option<Encoded>,
    ) -> Result<Self, StoreError> {
        let mut snapshot = Snapshot::of(listed.checkpoint.schema.clone());
        for (name, digest) in &listed.checkpoint.pieces {
            snapshot = snapshot.with_piece(piece(name, *digest)?);
        }
        Ok(Self { listed, snapshot, envelope })
    }

    /// Everything in one sequence of bytes, for another machine; [`Export::read`] reads it.
    ///
    /// # Errors
    /// More than one envelope may hold.
    pub fn export(&self) -> Result<Vec<u8>, StoreError> {
        let mut contents = Vec::new();
        for piece in self.snapshot.pieces() {
            let encoded = piece.encoded(self.snapshot.schema());
            let encoded = encoded.map_err(|error| StoreError::Refused {
                store: String::new(),
                why: format!("piece \"{}\" of {}: {error}", piece.name(), self.checkpoint().id),
            })?;
            contents.push(encoded.bytes.to_vec());
        }
        contents.extend(self.envelope.iter().map(|encoded| encoded.bytes.to_vec()));
        let reason = self.listed.bad.as_deref().map(str::to_owned);
        stored::write_export(self.checkpoint(), contents, reason)
            .map_err(StoreError::codec(format!("the export of {}", self.checkpoint().id)))
    }
}

/// A checkpoint that left its store.
#[derive(Debug)]
pub struct Export;

impl Export {
    /// Reads what [`Stored::export`] wrote. The result belongs to no store, so its lineage is unknown
    /// and it cannot be validated; it can be looked at.
    ///
    /// # Errors
    /// The bytes are corrupt, of a later version, or not complete.
    pub fn read(bytes: &[u8]) -> Result<Stored, CodecError> {
        let (checkpoint, contents, bad) = stored::read_export(bytes)?;
        if !checkpoint.is_sound() {
            return Err(CodecError::Corrupt("the checkpoint's digest does not match".to_owned()));
        }
        let mut found = Vec::with_capacity(contents.len());
        for bytes in contents {
            let digest = codec::open(&bytes)?.digest();
            found.push(Encoded { digest, bytes: Arc::new(bytes) });
        }
        let find = |digest: Digest| {
            let content = found.iter().find(|encoded| encoded.digest == digest);
            let missing = || StoreError::NotFound(format!("content {digest}"));
            content.cloned().ok_or_else(missing)
        };
        let incomplete = |error: StoreError| CodecError::Corrupt(error.to_string());
        let envelope = checkpoint.envelope.map(find).transpose().map_err(incomplete)?;
        let listed = Listed {
            checkpoint: Arc::new(checkpoint),
            pins: Vec::new(),
            bad: bad.map(Arc::from),
            broken: Some(Arc::from("an export has no store around it")),
        };
        let piece = |name: &str, digest| Ok(Piece::stored(name.to_owned().into(), find(digest)?));
        Stored::assemble(listed, piece, envelope).map_err(incomplete)
    }
}

/// What is kept when a store is tidied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How many checkpoints of each child, the newest. At least one is kept.
    pub checkpoints: usize,
    /// How many recovery lines of each scope and place, the newest. At least one is kept.
    pub lines: usize,
}

impl Retention {
    /// What goes by the rules of [`Store::retain`], for a store of your own: of all its checkpoints and lines, in the
    /// order in which they were committed. What is `held` besides stays, too ([`Store::retain_besides`]). It looks at
    /// each of them once.
    pub fn plan(
        self,
        checkpoints: impl IntoIterator<Item = Listed>,
        lines: impl IntoIterator<Item = Arc<RecoveryLine>>,
        held: &HashSet<CheckpointId>,
        now: Wall,
    ) -> Retained {
        Index::<(), ()>::of(checkpoints, lines).plan(self, now, held)
    }

    /// The checkpoints of a child that is gone which nobody needs, for a store of your own that takes an
    /// [`Item::Clear`]: all but those that are set aside, that one of these lines names, or that a pin holds which is
    /// not the child's own. The child's checkpoints and all lines are in the order in which they were committed.
    pub fn left_by(
        child: &ChildPath,
        checkpoints: impl IntoIterator<Item = Listed>,
        lines: impl IntoIterator<Item = Arc<RecoveryLine>>,
        now: Wall,
    ) -> Vec<CheckpointId> {
        Index::<(), ()>::of(checkpoints, lines).left_by(child, now)
    }
}

/// # Default
/// 10 checkpoints a child, 3 lines a place.
impl Default for Retention {
    fn default() -> Self {
        Self { checkpoints: 10, lines: 3 }
    }
}

/// What a retention took away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    /// Checkpoints.
    pub dropped: Vec<CheckpointId>,
    /// Recovery lines.
    pub lines: Vec<LineId>,
}

/// What a compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Bytes before.
    pub before: u64,
    /// Bytes after.
    pub after: u64,
}

/// What a store says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreInfo {
    /// Its kind and place, for people.
    pub name: String,
    /// The format it writes.
    pub format: u32,
    /// The shape of the tree it belongs to; `None` before one was committed.
    pub topology: Option<Arc<Topology>>,
    /// How many checkpoints it has.
    pub checkpoints: usize,
    /// How many contents, each once.
    pub pieces: usize,
    /// How many recovery lines.
    pub lines: usize,
    /// How many bytes it takes where it keeps them.
    pub bytes: u64,
    /// How many commits it has taken.
    pub commits: u64,
    /// Why it takes no more writes, if it does not.
    pub poisoned: Option<String>,
}

/// A place that keeps checkpoints, recovery lines and journals.
///
/// Methods other than [`Store::commit`] may block on files: call them where that is allowed. All see
/// what was committed before they were called.
///
/// # A store of your own
/// - [`Store::commit`] looks at the [items](Batch::items) of a batch, one after the other, and refuses all of it for
///   one that contradicts the store, as [`Item`] says of each. Then it makes all of it durable, as asked for, and
///   answers with a [`Receipt`]. It does not block: where it has to wait, it answers with [`Commit::pending_of`] and
///   gives the answer later.
/// - A checkpoint is kept as the bytes of [`Sealed::manifest`], which [`Checkpoint::read`] reads, and of each of
///   [`Sealed::parts`], once for each name; [`Stored::new`] puts them together. A line is kept as those of
///   [`RecoveryLine::write`]. What else there is are texts and numbers.
/// - [`Store::retain`] and [`Store::retain_besides`] ask [`Retention::plan`] what goes, and an [`Item::Clear`] asks [`Retention::left_by`].
/// - The runtime calls the reading methods on threads that run async code: they may read a file, and must not wait for
///   what such a thread would have to do (no `block_on`).
/// - One that is put around another one passes every method on, those with a default as well.
///
/// [`contract`](crate::checkpoint::contract) checks all this but the last two.
///
/// [`Sealed::manifest`]: crate::checkpoint::Sealed::manifest
/// [`Sealed::parts`]: crate::checkpoint::Sealed::parts
pub trait Store: Send + Sync + fmt::Debug + 'static {
    /// Commits a batch, whole or not at all.
    ///
    /// Commits take effect in the order of the calls. The answer comes as [`Durability`] says; a commit
    /// that is answered with an error has left nothing.
    ///
    /// # Errors
    /// In the answer: [`StoreError::Refused`] when the batch contradicts the store, and what the medium
    /// says.
    fn commit(&self, batch: Batch, durability: Durability) -> Commit;

    /// The children that have checkpoints, sorted.
    ///
    /// # Errors
    /// The store cannot be read.
    fn children(&self) -> Result<Vec<ChildPath>, StoreError>;

    /// The checkpoints of a child, the newest first; those set aside among them.
    ///
    /// # Errors
    /// The store cannot be read.
    fn checkpoints(&self, child: &ChildPath) -> Result<Vec<Listed>, StoreError>;

    /// One checkpoint as it is listed.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    fn find(&self, id: CheckpointId) -> Result<Listed, StoreError>;

    /// One checkpoint with its pieces.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Corrupt`] with file and place.
    fn load(&self, id: CheckpointId) -> Result<Stored, StoreError>;

    /// The recovery lines of a scope at a place in the tree, the newest first.
    ///
    /// # Errors
    /// The store cannot be read.
    fn lines(&self, scope: Scope, at: &ChildPath) -> Result<Vec<Arc<RecoveryLine>>, StoreError>;

    /// The records of a journal from a position on, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] with file and place.
    fn scan(&self, stream: &str, from: u64, limit: usize)
    -> Result<Vec<JournalRecord>, StoreError>;

    /// The names of the journals, sorted, with the position of the next record of each.
    ///
    /// # Errors
    /// The store cannot be read.
    fn streams(&self) -> Result<Vec<(Arc<str>, u64)>, StoreError>;

    /// What was set aside, of all children.
    ///
    /// # Errors
    /// The store cannot be read.
    fn quarantined(&self) -> Result<Vec<Listed>, StoreError>;

    /// What the store is and holds.
    ///
    /// # Errors
    /// The store cannot be read.
    fn info(&self) -> Result<StoreInfo, StoreError>;

    /// Drops old checkpoints and lines. Kept in any case: what is pinned now, also a line whose first member has a
    /// pin whose owner begins with the line's id and a space; what a kept line names,
    /// what was set aside, and what a child goes on from, whatever becomes of its request in hand: of all, and of
    /// those its last one comes from, the newest between two requests. A checkpoint whose parent goes stays whole: the store remembers the
    /// parent's chain.
    ///
    /// # Errors
    /// As a commit.
    fn retain(&self, keep: Retention, now: Wall) -> Result<Retained, StoreError>;

    /// As [`Store::retain`], and keeps these as well: a rollback is about to return to them, or a child stands on one
    /// that it has stored nothing after.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Default
    /// Nothing is dropped while there are any: right for a store that does not know how to pass over them.
    fn retain_besides(
        &self,
        keep: Retention,
        now: Wall,
        held: &HashSet<CheckpointId>,
    ) -> Result<Retained, StoreError> {
        if held.is_empty() { self.retain(keep, now) } else { Ok(Retained::default()) }
    }

    /// About how many bytes it would take if it were compacted now: what that saves decides whether it is. A store
    /// that cannot tell says 0, and is compacted whenever it has doubled.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be looked at.
    fn live(&self) -> Result<u64, StoreError> {
        Ok(0)
    }

    /// Gives back the room of what was dropped, while the store goes on serving.
    ///
    /// # Errors
    /// The medium fails; the store is then as before.
    fn compact(&self) -> Result<Compacted, StoreError>;

    /// A system takes the store up, in the process of another one that had it before, maybe: what was stored so far
    /// ages by the clock that people read from now on, and not by the other one's, which is not that of this one
    /// ([`Checkpoint::taken`]).
    ///
    /// # Default
    /// Nothing: right for a store that has read all it knows.
    fn taken_up(&self) {}

    /// Waits until everything committed so far, however durable, survives a power cut.
    ///
    /// # Errors
    /// What the medium says.
    fn flush(&self) -> Result<(), StoreError>;
}

/// What errors call the request in hand of a checkpoint.
pub(crate) const REQUEST: &str = "the request in hand";

/// A content of a checkpoint cannot be read: `part` is which; `store` is the name of where it is.
pub(crate) fn unreadable(
    store: &str,
    id: CheckpointId,
    part: &str,
    error: CodecError,
) -> StoreError {
    let file = store.to_owned();
    match error {
        CodecError::Incompatible { what, found, expected } => {
            let what = format!("{part} of {id}: {what}");
            StoreError::Incompatible { file, what, found, expected }
        }
        other => {
            let what = format!("{part} of {id}: {}", other.found());
            StoreError::Corrupt { file, offset: 0, what }
        }
    }
}

/// The name of the piece that is the request in hand, where contents are put together.
pub(crate) fn request_of(digest: Digest, bytes: Arc<Vec<u8>>) -> Result<Encoded, CodecError> {
    let opened = codec::open(&bytes)?;
    if opened.schema != envelope_schema() {
        return Err(CodecError::Incompatible {
            what: "schema".to_owned(),
            found: opened.schema.to_string(),
            expected: envelope_schema().to_string(),
        });
    }
    drop(opened);
    Ok(Encoded { digest, bytes })
}
