//! What `check` says beyond what is wrong with a file: whether the store can be written here and now, and
//! what of the file nobody uses.
//!
//! *Invariant.* What was written to find it out is gone afterwards, and a store that is there is not touched.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

use mainstay::checkpoint::FileStore;
use mainstay::error::StoreError;
use toml::Spanned;

use super::super::build::{self, reach};
use super::super::file::TreeFile;
use super::super::snag::Snag;
use super::{What, every_name};

mod knobs;

/// The file by which a store knows who has it.
const LOCK: &str = "LOCK";

/// Why the store could not be opened, if that can be known before it is. One that another process works with is left
/// to it.
pub(crate) fn store(file: &TreeFile, folder: &Path) -> Option<Snag> {
    let path = file.store.as_ref()?.get_ref().path.as_ref()?;
    let folder = folder.join(path.get_ref());
    if let Err(error) = try_out(&folder) {
        let message = format!("the store cannot be written: {error}");
        let hint = "name a folder in which you may write; it is made if it is not there";
        return Some(Snag::new(path.span(), message, "to be kept here", hint));
    }
    // Where nothing was opened yet, there is nothing to read.
    let read = folder.join(LOCK).exists().then(|| FileStore::verify(&folder))?;
    let error = read.err().filter(|error| !matches!(error, StoreError::Locked { .. }))?;
    let message = format!("the store cannot be read: {error}");
    let hint = "put back a copy of the folder from before, or name another one";
    Some(Snag::new(path.span(), message, "kept here", hint))
}

/// Does what opening the store would, without leaving anything.
fn try_out(folder: &Path) -> io::Result<()> {
    let lock = folder.join(LOCK);
    if lock.exists() {
        return OpenOptions::new().write(true).open(lock).map(drop);
    }
    // A path of one part is seen from here.
    let above =
        folder.ancestors().map(|it| if it.as_os_str().is_empty() { Path::new(".") } else { it });
    let there = above.into_iter().find(|it| it.symlink_metadata().is_ok());
    let there = there.unwrap_or(Path::new("."));
    if let Err(error) = there.metadata() {
        // A link is there, and what it names is not, or is the link again: nothing can be made there.
        let what = format!("{} is a link that leads to nothing: {error}", there.display());
        return Err(io::Error::new(error.kind(), what));
    }
    let trial = there.join(format!(".mainstay-check-{}", std::process::id()));
    fs::create_dir(&trial).and_then(|()| fs::remove_dir(&trial))
}

/// What is strange, and wrong for nobody.
pub(crate) fn all(file: &TreeFile, folder: &Path) -> Vec<Snag> {
    unused(file).into_iter().chain(knobs::all(file)).chain(strange_store(file, folder)).collect()
}

/// A folder in which others keep something: a store would be one of many things there.
fn strange_store(file: &TreeFile, folder: &Path) -> Option<Snag> {
    let path = file.store.as_ref()?.get_ref().path.as_ref()?;
    let folder = folder.join(path.get_ref());
    let mut names: Vec<_> = fs::read_dir(folder).ok()?.flatten().map(|it| it.file_name()).collect();
    names.sort();
    let first = names.first().filter(|_| !names.iter().any(|name| name == LOCK))?;
    let message = format!("the folder of the store holds something else: {}", first.display());
    let hint = "name a folder of its own; it is made if it is not there";
    Some(Snag::new(path.span(), message, "is no store", hint).warning())
}

/// Who stands in the file, and is neither asked nor named by anybody.
fn unused(file: &TreeFile) -> Vec<Snag> {
    let mut names: Vec<&str> = match &file.entry {
        Some(entry) => vec![entry.get_ref()],
        None => build::entries(file),
    };
    let agents = file.agents.values();
    let named = agents
        .flat_map(|agent| agent.tools.iter().chain(&agent.agents).chain([&agent.model]))
        .chain(file.groups.values().flat_map(|group| group.members.get_ref()))
        .chain(file.groups.values().flat_map(reach::asked_of_group))
        .chain(file.tools.values().flat_map(reach::asked_of));
    names.extend(named.map(|name| name.get_ref().as_str()));
    // A tool of a server stands for its server, too.
    let heads = names.iter().map(|name| name.split_once('.').map_or(*name, |(head, _)| head));
    let used: BTreeSet<&str> = heads.collect();
    let unused = every_name(file).filter(|(name, _)| !used.contains(name.get_ref().as_str()));
    let said = |(name, what): (&Spanned<String>, What)| {
        let message = format!("nobody uses `{}`, {}", name.get_ref(), what.words());
        let hint = "name it where it is to serve, or remove it";
        Snag::new(name.span(), message, "is named nowhere else", hint).warning()
    };
    unused.map(said).collect()
}
