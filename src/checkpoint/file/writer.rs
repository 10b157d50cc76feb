//! The one thread that writes.
//!
//! *Invariant.* A batch is answered once, after it is as durable as it asked for, or after every byte of
//! it is gone again.

use std::collections::HashSet;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use crate::checkpoint::file::compact::{Copied, Start};
use crate::checkpoint::file::open::create_log;
use crate::checkpoint::file::segment::{Frames, Head, Kind, MAX_FRAME, Segment, Waiting, place};
use crate::checkpoint::file::{Shared, Touch, sync_folder};
use crate::checkpoint::index::{Admission, Change};
use crate::checkpoint::manifest::Wall;
use crate::checkpoint::store::{Answerer, Batch, Durability, Item, Receipt, Retained, Retention};
use crate::error::StoreError;
use crate::id::CheckpointId;

/// How much is written at once, at most; more waits for the next round.
const GROUP: usize = 16 << 20;

type Answer<T> = SyncSender<Result<T, StoreError>>;

/// What the writer is asked for.
#[derive(Debug)]
pub(super) enum Job {
    Commit {
        batch: Batch,
        durability: Durability,
        answerer: Answerer,
    },
    Retain {
        keep: Retention,
        now: Wall,
        held: HashSet<CheckpointId>,
        answer: Answer<Retained>,
    },
    Flush {
        answer: Answer<()>,
    },
    /// Ends the present log and tells what it led to.
    Compact {
        answer: Answer<Start>,
    },
    /// The copy is in its place.
    Compacted {
        copied: Copied,
        answer: Answer<()>,
    },
}

/// The jobs that wait.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<Pending>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Pending {
    jobs: Vec<Job>,
    is_closed: bool,
}

impl Queue {
    /// After the queue is closed a job is dropped, which answers it.
    pub(super) fn push(&self, job: Job) {
        let mut state = self.state.lock();
        if !state.is_closed {
            state.jobs.push(job);
            drop(state);
            self.wake.notify_one();
        }
    }

    pub(super) fn close(&self) {
        self.state.lock().is_closed = true;
        self.wake.notify_one();
    }

    /// Answers all that wait by dropping them, and takes no more.
    fn abandon(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        let jobs = std::mem::take(&mut state.jobs);
        drop(state);
        drop(jobs);
    }

    /// Waits for jobs until `until`; no jobs when that has passed, none at all at the end.
    fn take(&self, into: &mut Vec<Job>, until: Option<Instant>) -> bool {
        let mut state = self.state.lock();
        loop {
            if !state.jobs.is_empty() {
                std::mem::swap(&mut state.jobs, into);
                return true;
            }
            if state.is_closed {
                return false;
            }
            match until {
                None => self.wake.wait(&mut state),
                Some(until) => {
                    if self.wake.wait_until(&mut state, until).timed_out() {
                        std::mem::swap(&mut state.jobs, into);
                        return true;
                    }
                }
            }
        }
    }
}

/// Where the log is written on.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) segment: Arc<Segment>,
    pub(super) number: u64,
    pub(super) len: u64,
    /// Of the next commit.
    pub(super) sequence: u64,
}

/// Whether a batch counts against the quota.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    Needed,
    /// It is what makes room.
    Made,
}

/// The batches that are written next, at once.
#[derive(Default)]
struct Group {
    frames: Frames,
    admission: Admission,
    waiting: Vec<Waiting>,
    retained: Vec<(Answer<Retained>, Retained)>,
    commits: u64,
    needs_sync: bool,
}

impl Group {
    /// Ready for the next batches, with the room it has, unless that is much.
    fn emptied(mut self) -> Self {
        const KEPT: usize = 4 << 20;
        if self.frames.bytes.capacity() > KEPT {
            return Self::default();
        }
        self.frames.bytes.clear();
        Self { frames: self.frames, waiting: self.waiting, ..Self::default() }
    }
}

/// However the writer ends, nobody waits for it any longer.
struct Last(Arc<Shared>);

impl Drop for Last {
    fn drop(&mut self) {
        if std::thread::panicking() {
            drop(self.0.poison("the writer panicked"));
        }
        self.0.queue.abandon();
    }
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    tail: Tail,
    /// Since when something written is not durable.
    unsynced: Option<Instant>,
    /// Up to where all of the segment is.
    synced: u64,
    /// An empty group with room: what each needs anew the system would have to fetch and clear.
    spare: Group,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, tail: Tail) -> Self {
        let synced = tail.len;
        Self { shared, tail, unsynced: None, synced, spare: Group::default() }
    }

    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let _last = Last(Arc::clone(&shared));
        let mut jobs = Vec::new();
        loop {
            let until = self.unsynced.map(|since| since + shared.options.sync_within);
            if !shared.queue.take(&mut jobs, until) {
                break;
            }
            if jobs.is_empty() {
                // Nobody is told: the next write or flush will be.
                drop(self.sync());
                continue;
            }
            let mut group = std::mem::take(&mut self.spare);
            for job in jobs.drain(..) {
                self.job(job, &mut group);
                if group.frames.bytes.len() >= GROUP {
                    self.write(std::mem::take(&mut group));
                    self.sync_in_time();
                }
            }
            self.write(group);
            // Also when there is always more to write.
            self.sync_in_time();
        }
        drop(self.sync());
    }

    /// Makes durable what has waited for that for as long as it may.
    fn sync_in_time(&mut self) {
        let within = self.shared.options.sync_within;
        if self.unsynced.is_some_and(|since| since.elapsed() >= within) {
            // Nobody is told: the next write or flush will be.
            drop(self.sync());
        }
    }

    fn job(&mut self, job: Job, group: &mut Group) {
        match job {
            Job::Commit { mut batch, durability, answerer } => {
                if batch.items.iter().any(|item| matches!(item, Item::Clear(..))) {
                    self.write(std::mem::take(group));
                    self.clear(&mut batch);
                }
                let room = if batch.makes_room { Room::Made } else { Room::Needed };
                match self.add(batch, group, room) {
                    Ok(receipt) => {
                        group.needs_sync |= durability == Durability::Sync;
                        group.waiting.push((answerer, receipt));
                    }
                    Err(error) => answerer.answer(Err(error)),
                }
            }
            Job::Retain { keep, now, held, answer } => {
                // Planned here, where nothing can be pinned or named in between.
                self.write(std::mem::take(group));
                let plan = self.shared.index.read().plan(keep, now, &held);
                let mut batch = Batch::new();
                for id in &plan.lines {
                    batch = batch.item(Item::DropLine(*id));
                }
                for id in &plan.dropped {
                    batch = batch.item(Item::Drop(*id));
                }
                if batch.is_empty() {
                    tell(&answer, Ok(plan));
                } else if let Err(error) = self.add(batch, group, Room::Made) {
                    tell(&answer, Err(error));
                } else {
                    group.needs_sync = true;
                    group.retained.push((answer, plan));
                    self.write(std::mem::take(group));
                }
            }
            Job::Flush { answer } => {
                self.write(std::mem::take(group));
                let done = self.shared.check().and_then(|()| self.sync());
                tell(&answer, done);
            }
            Job::Compact { answer } => {
                self.write(std::mem::take(group));
                tell(&answer, self.start_compaction());
            }
            Job::Compacted { copied, answer } => {
                self.write(std::mem::take(group));
                tell(&answer, self.end_compaction(copied));
            }
        }
    }

    /// Decides what goes of children that are gone: here, where nothing can be pinned or named in between.
    fn clear(&self, batch: &mut Batch) {
        let index = self.shared.index.read();
        for item in std::mem::take(&mut batch.items) {
            match item {
                Item::Clear(child, now) => {
                    batch.items.extend(index.left_by(&child, now).into_iter().map(Item::Drop));
                }
                item => batch.items.push(item),
            }
        }
    }

    /// Puts a batch into the group, or leaves the group as it was.
    fn add(&mut self, batch: Batch, group: &mut Group, room: Room) -> Result<Receipt, StoreError> {
        self.admit(batch, group, room).map_err(|error| error.of(&self.shared.name))
    }

    fn admit(
        &mut self,
        batch: Batch,
        group: &mut Group,
        room: Room,
    ) -> Result<Receipt, StoreError> {
        self.shared.check()?;
        let index = self.shared.index.read();
        let mut receipt = index.admit(&mut group.admission, &batch)?;
        let changes = group.frames.changes.len();
        let frames = &mut group.frames;
        frames.begin();
        let mut positions = receipt.positions.iter();
        let mut done = Ok(());
        for item in batch.items {
            if let Item::Checkpoint(sealed) = &item {
                for encoded in sealed.contents() {
                    if group.admission.wants(&index, encoded.digest) {
                        frames.content(encoded.digest, &encoded.bytes);
                    }
                }
            }
            // It is gone once it is written, and describing each would cost the others.
            let near = frames.len() + item.bulk() > MAX_FRAME;
            let what = near.then(|| item.describe());
            done = frames.batch_item(item, &mut positions);
            let (size, limit) = (frames.len(), MAX_FRAME);
            if done.is_ok() && size > limit {
                let (size, limit) = (size as u64, limit as u64);
                let what = what.unwrap_or_else(|| "a record".to_owned());
                done = Err(StoreError::TooLarge { store: String::new(), what, size, limit });
            }
            if done.is_err() {
                break;
            }
        }
        if done.is_ok() && room == Room::Needed {
            done = self.shared.has_room(frames.bytes.len() as u64);
        }
        if let Err(error) = done {
            frames.abandon(changes);
            // What it had been admitted with would be believed by those after it. Those before it are
            // whole, so they are written without it, and the admission begins anew.
            drop(index);
            self.write(std::mem::take(group));
            return Err(error);
        }
        receipt.sequence = self.tail.sequence + group.commits;
        let at = self.tail.len + group.frames.start() as u64;
        group.frames.end(receipt.sequence, at - self.synced);
        group.commits += 1;
        Ok(receipt)
    }

    /// Writes a group, makes it durable if any of it must be, and answers all of it.
    fn write(&mut self, mut group: Group) {
        if group.commits == 0 {
            self.spare = group.emptied();
            return;
        }
        let done = self.put(&group.frames.bytes, group.needs_sync);
        if let Err(error) = done {
            for (answerer, _) in group.waiting {
                answerer.answer(Err(error.clone()));
            }
            for (answer, _) in group.retained {
                tell(&answer, Err(error.clone()));
            }
            return;
        }
        let start = self.tail.len;
        self.tail.len += group.frames.bytes.len() as u64;
        self.tail.sequence += group.commits;
        if group.needs_sync {
            self.synced = self.tail.len;
        }
        self.shared.bytes.fetch_add(group.frames.bytes.len() as u64, Ordering::Relaxed);
        {
            let mut index = self.shared.index.write();
            for change in group.frames.changes.drain(..) {
                index.apply_admitted(place(change, &self.tail.segment, start));
            }
            index.commits += group.commits;
        }
        for (answerer, receipt) in group.waiting.drain(..) {
            answerer.answer(Ok(receipt));
        }
        for (answer, plan) in group.retained.drain(..) {
            tell(&answer, Ok(plan));
        }
        self.spare = group.emptied();
        if self.tail.len >= self.shared.options.segment {
            // One that cannot be begun now is begun after a later write; until then this one grows.
            drop(self.roll());
        }
    }

    fn put(&mut self, bytes: &[u8], needs_sync: bool) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.shared);
        if let Err(error) = self.append(bytes) {
            let error = shared.io("writing", &error);
            return Err(match self.cut() {
                Ok(()) => error,
                Err(cut) => shared.poison(&format!("{error}; and then: {cut}")),
            });
        }
        if !needs_sync {
            self.unsynced.get_or_insert_with(Instant::now);
            return Ok(());
        }
        self.sync().inspect_err(|_| {
            // Its batches are answered with an error, so they should not be there when the store is
            // opened anew. If even that fails, they may be: the answer says that writing ended.
            drop(self.cut());
        })
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Err((written, error)) = self.shared.touch(Touch::Write(bytes.len())) {
            self.write_at(&bytes[..written.min(bytes.len())])?;
            return Err(error);
        }
        self.write_at(bytes)
    }

    fn write_at(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut file = &self.tail.segment.file;
        io::Seek::seek(&mut file, io::SeekFrom::Start(self.tail.len))?;
        file.write_all(bytes)
    }

    /// Cuts off what stands behind the last whole group.
    fn cut(&self) -> io::Result<()> {
        self.shared.touch(Touch::Cut).map_err(|(_, error)| error)?;
        self.tail.segment.file.set_len(self.tail.len)
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        let done = self.shared.touch(Touch::Sync).map_err(|(_, error)| error);
        match done.and_then(|()| self.tail.segment.file.sync_data()) {
            Ok(()) => {
                self.unsynced = None;
                self.synced = self.tail.len;
                Ok(())
            }
            // The kernel may have dropped what it could not write and forgotten that it did: a second
            // sync that succeeds would mean nothing.
            Err(error) => {
                self.unsynced = None;
                Err(self.shared.poison(&format!("a sync failed: {error}")))
            }
        }
    }

    /// Begins the next segment. What stands in this one is durable first, so that no segment has
    /// anything that a later one builds on and it lost.
    fn roll(&mut self) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.shared);
        self.sync()?;
        shared.touch(Touch::Roll).map_err(|(_, error)| shared.io("beginning a segment", &error))?;
        let number = self.tail.number + 1;
        match create_log(&shared.folder, number, self.tail.sequence) {
            Ok(tail) => {
                shared.bytes.fetch_add(tail.len, Ordering::Relaxed);
                self.tail = tail;
                self.synced = self.tail.len;
                Ok(())
            }
            Err(error) => {
                // A file that was made but has no head would be taken for the end of the log.
                let path = shared.folder.join(Head::name(Kind::Log, number));
                drop(std::fs::remove_file(path));
                Err(shared.io("beginning a segment", &error))
            }
        }
    }

    fn start_compaction(&mut self) -> Result<Start, StoreError> {
        self.shared.check()?;
        let number = self.tail.number;
        self.roll()?;
        let mut index = self.shared.index.write();
        // From here on, a content that comes back is written again, so the copy need not have it.
        index.drop_dead_pieces();
        let changes = index.replay();
        Ok(Start { changes, number, sequence: self.tail.sequence })
    }

    fn end_compaction(&mut self, copied: Copied) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.shared);
        let old = {
            let mut index = shared.index.write();
            for change in copied.changes {
                match place(change, &copied.segment, 0) {
                    Change::Piece(digest, to) => index.move_piece(digest, to),
                    Change::Append(stream, position, to) => {
                        index.move_record(&stream, position, to);
                    }
                    bad @ Change::Bad(..) => index.apply_admitted(bad),
                    _ => {}
                }
            }
            std::fs::read_dir(&shared.folder)
        };
        let mut bytes = 0;
        for entry in old.map_err(|error| shared.io("listing", &error))? {
            let entry = entry.map_err(|error| shared.io("listing", &error))?;
            let name = entry.file_name();
            let Some((kind, number)) = name.to_str().and_then(Head::parse_name) else { continue };
            let is_old = match kind {
                Kind::Log => number <= copied.number,
                Kind::Base => number < copied.number,
            };
            if is_old {
                // One that cannot be removed now is removed when the store is opened.
                drop(std::fs::remove_file(entry.path()));
            } else {
                bytes += entry.metadata().map_or(0, |metadata| metadata.len());
            }
        }
        drop(sync_folder(&shared.folder));
        shared.bytes.store(bytes, Ordering::Relaxed);
        Ok(())
    }
}

fn tell<T>(answer: &Answer<T>, result: Result<T, StoreError>) {
    // The one who asked may have gone.
    drop(answer.try_send(result));
}
