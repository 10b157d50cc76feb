//! Opening a folder: lock, read, cut off what was never whole.

use std::fs::{OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek, SeekFrom, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use crate::checkpoint::file::segment::{
    FRAME_HEAD, Head, Kind, Place, Read, SEGMENT_HEAD, Segment, TRAILER, Window, read_items,
};
use crate::checkpoint::file::writer::{Queue, Tail, Writer};
use crate::checkpoint::file::{
    AlteredEnd, FileOptions, FileStore, Lock, RELEASED, Shared, Touch, sync_folder,
};
use crate::checkpoint::index::Index;
use crate::error::StoreError;

const LOCK: &str = "LOCK";
/// How long a store of this process is waited for that nobody may have any more.
const LET_GO_WITHIN: Duration = Duration::from_secs(1);

pub(super) fn open(folder: &Path, options: FileOptions) -> Result<FileStore, StoreError> {
    let name = folder.display().to_string();
    let fail = |what: &'static str| {
        let store = name.clone();
        move |error: io::Error| StoreError::Io { store, what, why: error.to_string() }
    };
    make(folder, &options).map_err(fail("making the folder"))?;
    let lock = lock(folder, &name)?;
    let mut loading = Loading::new(folder, &name, &options);
    let tail = loading.load()?;
    let tail = match tail {
        Some(tail) => tail,
        None => loading.begin()?,
    };
    let (index, bytes) = (loading.index, loading.bytes);
    let shared = Arc::new(Shared {
        folder: folder.to_owned(),
        label: Arc::from(name.as_str()),
        name: name.clone(),
        options,
        index: RwLock::new(index),
        queue: Queue::default(),
        bytes: AtomicU64::new(bytes),
        poisoned: Mutex::new(None),
        compacting: Mutex::new(()),
        _lock: lock,
    });
    let writer = Writer::new(Arc::clone(&shared), tail);
    let writer = std::thread::Builder::new()
        .name("mainstay-store".to_owned())
        .spawn(move || writer.run())
        .map_err(fail("starting the writer"))?;
    Ok(FileStore { shared, writer: Some(writer) })
}

/// Reads all that opening reads, and changes nothing.
pub(super) fn verify(folder: &Path) -> Result<(), StoreError> {
    let name = folder.display().to_string();
    let options = FileOptions::default();
    let read = || {
        let mut loading = Loading { looks: true, ..Loading::new(folder, &name, &options) };
        loading.load().map(drop)
    };
    // Whoever works with it may have removed a file between its name and its bytes: then another look finds it right.
    let Err(error) = read().or_else(|_| read()) else { return Ok(()) };
    match is_taken(folder) {
        true => Err(StoreError::Locked { store: name, holder: holder(folder) }),
        false => Err(error),
    }
}

/// Whether somebody has the folder.
fn is_taken(folder: &Path) -> bool {
    let lock = OpenOptions::new().read(true).open(folder.join(LOCK));
    // It is given back at once.
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Who says that the folder is theirs.
fn holder(folder: &Path) -> Option<u32> {
    std::fs::read_to_string(folder.join(LOCK)).ok()?.trim().parse().ok()
}

/// Makes the folder, and those above it, where there are none. The names of those that it has made survive a power cut
/// before anything in them is answered to.
fn make(folder: &Path, options: &FileOptions) -> io::Result<()> {
    let new = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let new: Vec<&Path> = folder.ancestors().take_while(new).collect();
    std::fs::create_dir_all(folder)?;
    for path in new.iter().rev() {
        if let Some(faults) = &options.faults {
            faults.on(Touch::Folder).map_err(|(_, error)| error)?;
        }
        sync_folder(above(path))?;
    }
    Ok(())
}

/// The folder that a name stands in.
fn above(path: &Path) -> &Path {
    path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Takes the folder, or says who has it.
fn lock(folder: &Path, name: &str) -> Result<Lock, StoreError> {
    let fail = |error: io::Error| StoreError::Io {
        store: name.to_owned(),
        what: "locking",
        why: error.to_string(),
    };
    let path = folder.join(LOCK);
    let mut options = OpenOptions::new();
    let mut file =
        options.read(true).write(true).create(true).truncate(false).open(path).map_err(fail)?;
    let until = Instant::now() + LET_GO_WITHIN;
    // From before each look, so that none that is given back after it is missed.
    let mut released = RELEASED.0.lock();
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(fail(error)),
        }
        let mut text = String::new();
        // Who holds it is a courtesy; that somebody does is known.
        drop(file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_string(&mut text)));
        let holder = text.trim().parse().ok();
        let is_late = holder != Some(std::process::id())
            || RELEASED.1.wait_until(&mut released, until).timed_out();
        if is_late {
            return Err(StoreError::Locked { store: name.to_owned(), holder });
        }
    }
    drop(released);
    let mut lock = Lock(file);
    lock.0.set_len(0).map_err(fail)?;
    lock.0.seek(SeekFrom::Start(0)).map_err(fail)?;
    writeln!(lock.0, "{}", std::process::id()).map_err(fail)?;
    Ok(lock)
}

struct Loading<'a> {
    folder: &'a Path,
    name: &'a str,
    options: &'a FileOptions,
    index: Index<Place, Place>,
    bytes: u64,
    /// Whether nothing is changed.
    looks: bool,
    /// The number of the next log, and the sequence of its first commit, where there is no log to go on with.
    next: (u64, u64),
}

impl<'a> Loading<'a> {
    fn new(folder: &'a Path, name: &'a str, options: &'a FileOptions) -> Self {
        let index = Index::default();
        Self { folder, name, options, index, bytes: 0, looks: false, next: (1, 1) }
    }

    fn fail(&self, what: &'static str) -> impl FnOnce(io::Error) -> StoreError {
        let store = self.name.to_owned();
        move |error| StoreError::Io { store, what, why: error.to_string() }
    }

    /// The end of the log; none where one has to be begun.
    fn load(&mut self) -> Result<Option<Tail>, StoreError> {
        let (base, logs) = self.list()?;
        let mut next_number = 1;
        // The sequence of the next commit.
        let mut sequence = 1;
        if let Some(number) = base {
            sequence = self.load_base(number)?;
            next_number = number + 1;
        }
        self.index.commits = sequence - 1;
        let mut tail = None;
        for (at, number) in logs.iter().enumerate() {
            if *number != next_number {
                let file = Head::name(Kind::Log, next_number);
                let what = format!("it is missing, {} is there", Head::name(Kind::Log, *number));
                return Err(StoreError::Corrupt { file, offset: 0, what });
            }
            let is_last = at + 1 == logs.len();
            tail = self.load_log(*number, &mut sequence, is_last)?;
            next_number += 1;
        }
        // New, or the process ended right after it made a base or the file of the next log.
        if tail.is_none() {
            if base.is_none() && logs.is_empty() && !self.looks {
                // Whoever has made the folder may have ended before its name was durable. It may be in one that
                // this process cannot read, and then it is not this one's to see to.
                drop(sync_folder(above(self.folder)));
            }
            self.next = (if logs.is_empty() { next_number } else { next_number - 1 }, sequence);
        }
        Ok(tail)
    }

    /// Begins the log that was not there.
    fn begin(&mut self) -> Result<Tail, StoreError> {
        let (number, sequence) = self.next;
        let tail =
            create_log(self.folder, number, sequence).map_err(self.fail("beginning the log"))?;
        self.bytes += tail.len;
        Ok(tail)
    }

    /// The newest base, and the logs after it in order. What a base stands for is removed.
    fn list(&self) -> Result<(Option<u64>, Vec<u64>), StoreError> {
        let mut bases = Vec::new();
        let mut logs = Vec::new();
        let entries = std::fs::read_dir(self.folder).map_err(self.fail("listing"))?;
        for entry in entries {
            let entry = entry.map_err(self.fail("listing"))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            match Head::parse_name(name) {
                Some((Kind::Base, number)) => bases.push(number),
                Some((Kind::Log, number)) => logs.push(number),
                // A copy that was never finished.
                None if name.ends_with(".seg.new") && !self.looks => {
                    std::fs::remove_file(entry.path())
                        .map_err(self.fail("removing a half copy"))?;
                }
                None => {}
            }
        }
        let base = bases.iter().copied().max();
        let is_old = |number: u64| base.is_some_and(|base| number <= base);
        let removes = |number: &u64| !self.looks && is_old(*number);
        for number in logs.iter().copied().filter(removes) {
            let path = self.folder.join(Head::name(Kind::Log, number));
            std::fs::remove_file(path).map_err(self.fail("removing what a base stands for"))?;
        }
        let removes = |number: &u64| !self.looks && Some(*number) != base;
        for number in bases.iter().copied().filter(removes) {
            let path = self.folder.join(Head::name(Kind::Base, number));
            std::fs::remove_file(path).map_err(self.fail("removing an older base"))?;
        }
        logs.retain(|number| !is_old(*number));
        logs.sort_unstable();
        Ok((base, logs))
    }

    fn segment(&self, name: String) -> Result<(Arc<Segment>, u64), StoreError> {
        let path = self.folder.join(&name);
        let file = OpenOptions::new().read(true).write(!self.looks).open(path);
        let file = file.map_err(self.fail("opening a segment"))?;
        let size = file.metadata().map_err(self.fail("opening a segment"))?.len();
        Ok((Arc::new(Segment { name, file }), size))
    }

    fn head(&self, segment: &Segment) -> Result<Head, StoreError> {
        let mut bytes = [0; SEGMENT_HEAD];
        segment.read_into(0, &mut bytes).map_err(self.fail("reading"))?;
        Head::read(segment, &bytes)
    }

    /// Takes the frames from `offset` on; returns where it stopped, and what it found there.
    fn frames(
        &mut self,
        segment: &Arc<Segment>,
        size: u64,
        mut sequence: u64,
    ) -> (u64, u64, Result<Read, StoreError>) {
        let mut offset = SEGMENT_HEAD as u64;
        let mut window = Window::new(segment, size);
        loop {
            let (found, len) = match window.frame(offset, sequence) {
                Ok(Read::Frame { sequence, len }) => (sequence, len),
                other => return (offset, sequence, other),
            };
            if found != sequence {
                let what = format!("batch {found} stands where {sequence} should");
                return (offset, sequence, Err(segment.corrupt(offset, what)));
            }
            let at = offset + FRAME_HEAD as u64;
            let index = &mut self.index;
            let payload = window.payload(offset, len);
            let read = read_items(segment, at, payload, |change| index.apply(change));
            if let Err(error) = read {
                return (offset, sequence, Err(error));
            }
            sequence += 1;
            offset = at + (len + TRAILER.len()) as u64;
        }
    }

    /// Returns the sequence of the first commit after the base.
    fn load_base(&mut self, number: u64) -> Result<u64, StoreError> {
        let (segment, size) = self.segment(Head::name(Kind::Base, number))?;
        if size < SEGMENT_HEAD as u64 {
            return Err(segment.corrupt(0, "it is cut short"));
        }
        let head = self.head(&segment)?;
        if head.kind != Kind::Base || head.number != number {
            return Err(segment.corrupt(0, "its head is of another segment"));
        }
        let (offset, frames, end) = self.frames(&segment, size, 0);
        match end? {
            Read::End if frames == u64::from(head.frames) => {}
            // A base is renamed into its place when it is whole and durable.
            _ => return Err(segment.corrupt(offset, "it is cut short")),
        }
        self.bytes += size;
        Ok(head.first)
    }

    /// Returns the end of the log when it can be written on; none for a log whose head was never
    /// written.
    fn load_log(
        &mut self,
        number: u64,
        sequence: &mut u64,
        is_last: bool,
    ) -> Result<Option<Tail>, StoreError> {
        let (segment, size) = self.segment(Head::name(Kind::Log, number))?;
        if is_last && self.is_blank(&segment, size)? {
            return Ok(None);
        }
        if size < SEGMENT_HEAD as u64 {
            return Err(segment.corrupt(0, "it is cut short"));
        }
        let head = self.head(&segment)?;
        if head.kind != Kind::Log || head.number != number {
            return Err(segment.corrupt(0, "its head is of another segment"));
        }
        if head.first != *sequence {
            let what = format!("it begins with batch {}, not {sequence}", head.first);
            return Err(segment.corrupt(0, what));
        }
        let (offset, next, end) = self.frames(&segment, size, *sequence);
        self.index.commits += next - *sequence;
        *sequence = next;
        match end {
            // What another process wrote may not be durable yet: what is written from now on says that it is.
            Ok(Read::End) if is_last && !self.looks => {
                segment.file.sync_data().map_err(self.fail("syncing the log"))?;
            }
            Ok(Read::End) => {}
            Ok(_) if is_last => {
                if !self.looks {
                    self.cut(&segment, offset)?;
                }
            }
            Ok(_) => return Err(segment.corrupt(offset, "it is cut short, and others follow")),
            Err(StoreError::Corrupt { .. })
                if is_last && self.options.altered_end == AlteredEnd::CutOff =>
            {
                self.keep(&segment, offset, size)?;
                self.cut(&segment, offset)?;
            }
            Err(error) => return Err(error),
        }
        self.bytes += offset;
        Ok(Some(Tail { segment, number, len: offset, sequence: *sequence }))
    }

    /// Whether nothing, or nothing but zeros, was written: the file was made, and then all ended.
    fn is_blank(&self, segment: &Segment, size: u64) -> Result<bool, StoreError> {
        if size < SEGMENT_HEAD as u64 {
            return Ok(true);
        }
        let start = segment.read(0, SEGMENT_HEAD).map_err(self.fail("reading"))?;
        Ok(size == SEGMENT_HEAD as u64 && start.iter().all(|byte| *byte == 0))
    }

    fn cut(&self, segment: &Segment, at: u64) -> Result<(), StoreError> {
        segment.file.set_len(at).map_err(self.fail("cutting off what was not whole"))?;
        segment.file.sync_all().map_err(self.fail("cutting off what was not whole"))
    }

    /// Keeps what is cut off in a file beside the log, of its own and durable before anything is cut off.
    fn keep(&self, segment: &Segment, at: u64, size: u64) -> Result<(), StoreError> {
        let len = usize::try_from(size - at).unwrap_or(usize::MAX);
        let bytes = segment.read(at, len).map_err(self.fail("reading"))?;
        let keep = |name: String| {
            let path = self.folder.join(name);
            let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            sync_folder(self.folder)
        };
        let name = format!("{}.cut-{at}", segment.name);
        let mut kept = keep(name.clone());
        let mut nth = 1;
        // Something was cut off here before.
        while matches!(&kept, Err(error) if error.kind() == io::ErrorKind::AlreadyExists) {
            nth += 1;
            kept = keep(format!("{name}-{nth}"));
        }
        kept.map_err(self.fail("keeping what is cut off"))
    }
}

/// Begins a log: its head is durable before anything else is written to it.
pub(super) fn create_log(folder: &Path, number: u64, sequence: u64) -> io::Result<Tail> {
    let name = Head::name(Kind::Log, number);
    let path = folder.join(&name);
    let mut options = OpenOptions::new();
    let mut file = options.read(true).write(true).create(true).truncate(true).open(path)?;
    let head = Head { kind: Kind::Log, number, first: sequence, frames: 0 };
    file.write_all(&head.bytes())?;
    file.sync_all()?;
    sync_folder(folder)?;
    let segment = Arc::new(Segment { name, file });
    Ok(Tail { segment, number, len: SEGMENT_HEAD as u64, sequence })
}
