//! The durable store: an append-only log of batches in a folder of its own, with group commit.
//!
//! One thread writes. It takes all batches that wait, writes them at once, makes them durable with one
//! `fdatasync`, and answers them all, so many agents share the cost of a commit, and no thread that runs
//! async code ever waits for a disk. What the log leads to is kept in memory as an index; contents and
//! journal records are read where they stand. [`checkpoint_format`] describes every byte.
//!
//! *Invariant.* The log only grows, by whole batches, at its end. A write that fails is cut off again; a
//! failed sync ends all writing until the store is opened anew, since the kernel may have forgotten
//! what it could not write. What was answered with success is never touched but by compaction, which
//! makes a copy durable first.
//!
//! [`checkpoint_format`]: crate::documentation::checkpoint_format

mod compact;
mod open;
mod segment;
mod torn;
mod writer;

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, RwLock};

use crate::checkpoint::Scope;
use crate::checkpoint::index::Index;
use crate::checkpoint::line::RecoveryLine;
use crate::checkpoint::manifest::Wall;
use crate::checkpoint::snapshot::{Encoded, Piece};
use crate::checkpoint::store::{
    Batch, Commit, Compacted, Durability, JournalRecord, Listed, REQUEST, Retained, Retention,
    Store, StoreInfo, Stored, request_of, unreadable,
};
use crate::error::StoreError;
use crate::id::{CheckpointId, ChildPath};

use segment::Place;
use writer::{Job, Queue};

/// What to do with an end of the log that was altered, rather than cut short by a crash. (A log that
/// was cut short always opens to its last whole batch.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AlteredEnd {
    /// Refuse to open, naming file and byte.
    #[default]
    Refuse,
    /// Go on from the last whole batch before it; what is cut off is kept in a file beside the log.
    /// Batches that were answered with success may be among it.
    CutOff,
}

/// What a medium is asked for, to be failed on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Touch {
    /// So many bytes are to be written at the end of the log.
    Write(usize),
    /// What was written is to be made durable.
    Sync,
    /// The bytes of a failed write are to be cut off.
    Cut,
    /// A segment is to be begun.
    Roll,
    /// A copy that compaction made is to take the place of the log.
    Swap,
    /// The name of a folder that was made for the store is to be made durable.
    Folder,
}

/// Fails what a store does to its files, for tests of what happens then.
pub trait Faults: Send + Sync + fmt::Debug + 'static {
    /// Called before each touch.
    ///
    /// # Errors
    /// The error is what the operating system is taken to have said. Of a [`Touch::Write`] the number of
    /// bytes given is written first.
    fn on(&self, touch: Touch) -> Result<(), (usize, io::Error)>;
}

/// How a [`FileStore`] is opened.
#[derive(Clone, Debug)]
pub struct FileOptions {
    quota: Option<u64>,
    segment: u64,
    sync_within: Duration,
    altered_end: AlteredEnd,
    faults: Option<Arc<dyn Faults>>,
}

/// # Default
/// No quota, segments of 64 MiB, unsynced writes made durable within 200 ms, an altered end refused.
impl Default for FileOptions {
    fn default() -> Self {
        Self {
            quota: None,
            segment: 64 << 20,
            sync_within: Duration::from_millis(200),
            altered_end: AlteredEnd::Refuse,
            faults: None,
        }
    }
}

impl FileOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes the log may have. A commit beyond it is answered [`StoreError::Full`]. While
    /// compaction makes its copy, both take room on the disk, and only the log counts. Retention is
    /// never refused: it is what makes room.
    #[must_use]
    pub const fn quota(mut self, bytes: u64) -> Self {
        self.quota = Some(bytes);
        self
    }

    /// How long a file of the log may become before the next one is begun. A batch is never split.
    #[must_use]
    pub const fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment = bytes;
        self
    }

    /// Within which time a commit that did not ask for it is made to survive a power cut.
    #[must_use]
    pub const fn sync_within(mut self, time: Duration) -> Self {
        self.sync_within = time;
        self
    }

    /// What to do with an end of the log that was altered.
    #[must_use]
    pub const fn altered_end(mut self, what: AlteredEnd) -> Self {
        self.altered_end = what;
        self
    }

    /// Fails touches of the files on purpose.
    #[must_use]
    pub fn faults(mut self, faults: Arc<dyn Faults>) -> Self {
        self.faults = Some(faults);
        self
    }

    /// Opens the store in this folder, or makes one there.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when it is open already, here or in another process, with that process's
    /// id. One that is open in this process is waited for, up to a second: whoever has it last may be a task that
    /// ends, and is about to make durable what was written. [`StoreError::Corrupt`] with file and byte; [`StoreError::Incompatible`] for a later format;
    /// [`StoreError::Io`], such as for a folder that cannot be written to.
    pub fn open(self, folder: impl AsRef<Path>) -> Result<FileStore, StoreError> {
        open::open(folder.as_ref(), self)
    }
}

/// A store in a folder. See [the module](self) for how, and [`Store`] for what.
///
/// Dropping it writes what is waiting, makes everything durable and gives the folder back.
pub struct FileStore {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

/// What the writer and the readers share.
#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    name: String,
    /// The same, for the answers that are waited for.
    label: Arc<str>,
    options: FileOptions,
    index: RwLock<Index<Place, Place>>,
    queue: Queue,
    /// Bytes of all segments.
    bytes: std::sync::atomic::AtomicU64,
    poisoned: Mutex<Option<String>>,
    compacting: Mutex<()>,
    _lock: Lock,
}

/// The folder is ours.
#[derive(Debug)]
struct Lock(std::fs::File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough: a process that is being spawned at this moment has a copy of
        // it until it becomes another program, and would keep the lock as long.
        drop(self.0.unlock());
        let _released = RELEASED.0.lock();
        RELEASED.1.notify_all();
    }
}

/// A folder of this process was given back.
static RELEASED: (Mutex<()>, Condvar) = (Mutex::new(()), Condvar::new());

impl Shared {
    fn io(&self, what: &'static str, error: &io::Error) -> StoreError {
        let why = error.to_string();
        match error.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => {
                StoreError::Full { store: self.name.clone(), what: why }
            }
            _ => StoreError::Io { store: self.name.clone(), what, why },
        }
    }

    fn poison(&self, cause: &str) -> StoreError {
        let mut poisoned = self.poisoned.lock();
        let cause = poisoned.get_or_insert_with(|| cause.to_owned()).clone();
        StoreError::Poisoned { store: self.name.clone(), cause }
    }

    fn check(&self) -> Result<(), StoreError> {
        match &*self.poisoned.lock() {
            Some(cause) => {
                Err(StoreError::Poisoned { store: self.name.clone(), cause: cause.clone() })
            }
            None => Ok(()),
        }
    }

    /// Whether so many bytes more are within the quota.
    fn has_room(&self, more: u64) -> Result<(), StoreError> {
        let total = self.bytes.load(std::sync::atomic::Ordering::Relaxed) + more;
        match self.options.quota {
            Some(quota) if total > quota => {
                let what = format!("{total} bytes are more than its quota of {quota}");
                Err(StoreError::Full { store: self.name.clone(), what })
            }
            _ => Ok(()),
        }
    }

    /// Fails on purpose, when told to.
    fn touch(&self, touch: Touch) -> Result<(), (usize, io::Error)> {
        self.options.faults.as_ref().map_or(Ok(()), |faults| faults.on(touch))
    }
}

impl FileStore {
    /// Opens the store in this folder, or makes one there, with the defaults of [`FileOptions`].
    ///
    /// # Errors
    /// See [`FileOptions::open`].
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, StoreError> {
        FileOptions::new().open(folder)
    }

    /// Reads the store in this folder as [opening](FileOptions::open) it does, with the default options, and leaves all
    /// of it as it is: nothing is begun, cut off or removed, and nobody is kept from opening it. A log that was cut
    /// short by a crash is right. Blocks for as long as it takes to read all of it.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`], [`StoreError::Incompatible`] and [`StoreError::Io`] as when it is opened, also for a
    /// folder that is not there; [`StoreError::Locked`] where it was not found right and somebody is at work with it,
    /// so that it may be.
    pub fn verify(folder: impl AsRef<Path>) -> Result<(), StoreError> {
        open::verify(folder.as_ref())
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.shared.folder
    }

    /// Puts a question to the writer and waits for its answer.
    fn ask<T>(
        &self,
        job: impl FnOnce(std::sync::mpsc::SyncSender<Result<T, StoreError>>) -> Job,
    ) -> Result<T, StoreError> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        self.shared.queue.push(job(sender));
        receiver
            .recv()
            .unwrap_or_else(|_| Err(StoreError::Closed { store: self.shared.name.clone() }))
    }
}

impl Drop for FileStore {
    fn drop(&mut self) {
        self.shared.queue.close();
        if let Some(writer) = self.writer.take() {
            // It catches what it can; a panic there has poisoned the store, and has nobody to tell here.
            drop(writer.join());
        }
    }
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStore").field("folder", &self.shared.folder).finish_non_exhaustive()
    }
}

impl Store for FileStore {
    fn commit(&self, batch: Batch, durability: Durability) -> Commit {
        let (answerer, commit) = Commit::pending_of(Arc::clone(&self.shared.label));
        self.shared.queue.push(Job::Commit { batch, durability, answerer });
        commit
    }

    fn children(&self) -> Result<Vec<ChildPath>, StoreError> {
        Ok(self.shared.index.read().children())
    }

    fn checkpoints(&self, child: &ChildPath) -> Result<Vec<Listed>, StoreError> {
        Ok(self.shared.index.read().checkpoints(child))
    }

    fn find(&self, id: CheckpointId) -> Result<Listed, StoreError> {
        self.shared.index.read().find(id).cloned()
    }

    fn load(&self, id: CheckpointId) -> Result<Stored, StoreError> {
        // Places are looked up under the lock, bytes are read without it: a segment that compaction
        // has removed meanwhile stays readable while somebody has it open.
        let (listed, places, request) = {
            let index = self.shared.index.read();
            let listed = index.find(id)?.clone();
            let mut places = Vec::with_capacity(listed.checkpoint.pieces.len());
            for (_, digest) in &listed.checkpoint.pieces {
                places.push((*digest, index.piece(*digest)?.clone()));
            }
            let request = match listed.checkpoint.envelope {
                Some(digest) => Some((digest, index.piece(digest)?.clone())),
                None => None,
            };
            (listed, places, request)
        };
        let request = match request {
            Some((digest, place)) => {
                let request = request_of(digest, Arc::new(place.content(digest)?));
                Some(request.map_err(|error| unreadable(&self.shared.name, id, REQUEST, error))?)
            }
            None => None,
        };
        let piece = |name: &str, digest| {
            let place = places.iter().find(|(other, _)| *other == digest);
            let (_, place) = place.ok_or_else(|| StoreError::NotFound(name.to_owned()))?;
            let encoded = Encoded { digest, bytes: Arc::new(place.content(digest)?) };
            Ok(Piece::stored(name.to_owned().into(), encoded))
        };
        Stored::assemble(listed, piece, request)
    }

    fn lines(&self, scope: Scope, at: &ChildPath) -> Result<Vec<Arc<RecoveryLine>>, StoreError> {
        Ok(self.shared.index.read().lines(scope, at))
    }

    fn scan(
        &self,
        stream: &str,
        from: u64,
        limit: usize,
    ) -> Result<Vec<JournalRecord>, StoreError> {
        let places: Vec<(u64, Place)> = {
            let index = self.shared.index.read();
            let records = index.records(stream, from).take(limit);
            records.map(|(position, place)| (position, place.clone())).collect()
        };
        let record = |(position, place): (u64, Place)| {
            Ok(JournalRecord { position, bytes: place.record()? })
        };
        places.into_iter().map(record).collect()
    }

    fn streams(&self) -> Result<Vec<(Arc<str>, u64)>, StoreError> {
        Ok(self.shared.index.read().streams())
    }

    fn quarantined(&self) -> Result<Vec<Listed>, StoreError> {
        Ok(self.shared.index.read().quarantined())
    }

    fn info(&self) -> Result<StoreInfo, StoreError> {
        let index = self.shared.index.read();
        let (checkpoints, pieces, lines) = index.counts();
        Ok(StoreInfo {
            name: self.shared.name.clone(),
            format: u32::from(segment::FORMAT),
            topology: index.topology(),
            checkpoints,
            pieces,
            lines,
            bytes: self.shared.bytes.load(std::sync::atomic::Ordering::Relaxed),
            commits: index.commits,
            poisoned: self.shared.poisoned.lock().clone(),
        })
    }

    fn retain(&self, keep: Retention, now: Wall) -> Result<Retained, StoreError> {
        self.retain_besides(keep, now, &HashSet::new())
    }

    fn retain_besides(
        &self,
        keep: Retention,
        now: Wall,
        held: &HashSet<CheckpointId>,
    ) -> Result<Retained, StoreError> {
        let held = held.clone();
        self.ask(|answer| Job::Retain { keep, now, held, answer })
    }

    fn live(&self) -> Result<u64, StoreError> {
        Ok(self.shared.index.read().live_bytes(|place| place.len.into(), |place| place.len.into()))
    }

    fn compact(&self) -> Result<Compacted, StoreError> {
        compact::compact(self)
    }

    fn taken_up(&self) {
        self.shared.index.write().forget_moments();
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.ask(|answer| Job::Flush { answer })
    }
}

/// Makes the entries of a folder durable.
fn sync_folder(folder: &Path) -> io::Result<()> {
    // Elsewhere a folder cannot be opened as a file, and its entries are durable without it.
    if cfg!(unix) { std::fs::File::open(folder)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests;
