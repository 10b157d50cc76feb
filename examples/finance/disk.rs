//! A disk below the database that is full after so many bytes, for those who test what becomes of a run on one.

use std::fs::OpenOptions;
use std::io::{Error, ErrorKind};
use std::path::Path;

use parking_lot::Mutex;
use redb::backends::FileBackend;
use redb::{Database, DatabaseError, StorageBackend};

/// See the [module](self). What finds no room any more is written as far as it goes, as on a real one.
#[derive(Debug)]
pub(crate) struct Disk {
    file: FileBackend,
    /// In bytes.
    room: Mutex<u64>,
}

impl Disk {
    /// The database in this file, which is there, on a disk with room for so many bytes more.
    pub(crate) fn open(path: &Path, room: u64) -> Result<Database, DatabaseError> {
        let file = FileBackend::new(OpenOptions::new().read(true).write(true).open(path)?)?;
        Database::builder().create_with_backend(Self { file, room: Mutex::new(room) })
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, Error> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), Error> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> Result<(), Error> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        let mut room = self.room.lock();
        let fits = data.len().min(usize::try_from(*room).unwrap_or(usize::MAX));
        *room -= fits as u64;
        self.file.write(offset, &data[..fits])?;
        match fits < data.len() {
            true => Err(Error::new(ErrorKind::StorageFull, "no space left on the disk")),
            false => Ok(()),
        }
    }

    fn close(&self) -> Result<(), Error> {
        self.file.close()
    }
}
