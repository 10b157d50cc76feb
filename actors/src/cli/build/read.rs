//! From the path of a tree file to what it says.
//!
//! *Invariant.* What cannot be read is said with the place, and nothing is made of a part of a file.

use std::path::{Path, PathBuf};

use super::super::file::{self, TreeFile};
use super::super::snag::{Snag, Snags};

/// Reads a file whose words and types are right; whether they fit each other is not looked at yet. With the
/// folder of its paths, and its text.
pub(super) fn parse(path: &Path) -> anyhow::Result<(TreeFile, PathBuf, String)> {
    parse_as(path, file::read)
}

fn parse_as<T>(
    path: &Path,
    read: impl FnOnce(&str) -> Result<T, Snag>,
) -> anyhow::Result<(T, PathBuf, String)> {
    let bytes = std::fs::read(path).map_err(|error| {
        let hint = match () {
            () if path.is_dir() => "name the tree file itself",
            () if path.exists() => "is it yours to read?",
            () => "paths are seen from the folder you are in",
        };
        anyhow::anyhow!("{} cannot be read: {error}; {hint}", path.display())
    })?;
    let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
    let snags = |text: String, snags| {
        anyhow::Error::new(Snags { file: path.display().to_string(), text, snags })
    };
    let text = match String::from_utf8(bytes) {
        // Some editors write a mark at the beginning, which is no column of its own.
        Ok(text) => text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
            let hint = "save the file as UTF-8";
            let snag = Snag::new(at..at + 1, "this is not UTF-8", "here", hint);
            return Err(snags(text, vec![snag]));
        }
    };
    match read(&text) {
        Ok(file) => Ok((file, folder, text)),
        Err(snag) => Err(snags(text, vec![snag])),
    }
}

/// Where the state of a tree is kept; `None` where that is nowhere, or in memory. Nothing else of the file has
/// to be right, nor the variables that it names be there: whoever looks at a store starts no tree.
///
/// # Errors
/// [`Snags`] for a file that cannot be read.
pub(crate) fn store_folder(path: &Path) -> anyhow::Result<Option<PathBuf>> {
    let (store, folder, _) = parse_as(path, file::read_store)?;
    let store = store.as_ref().and_then(|store| store.get_ref().path.as_ref());
    Ok(store.map(|path| folder.join(path.get_ref())))
}
