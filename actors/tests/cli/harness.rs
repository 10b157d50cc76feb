//! What the tests of the command line share: the built binary in a folder of its own.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder for the files of one test; gone when dropped.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("mainstay-cli-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn with(name: &str, text: &str) -> Self {
        let folder = Self::new();
        std::fs::write(folder.0.join(name), text).unwrap();
        folder
    }

    pub(crate) fn run(&self, arguments: &[&str], input: &str) -> Said {
        run(&self.0, arguments, input.as_bytes())
    }

    pub(crate) fn run_bytes(&self, arguments: &[&str], input: &[u8]) -> Said {
        run(&self.0, arguments, input)
    }
}

/// The command with these arguments in a folder, with pipes.
pub(crate) fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
    command.args(arguments).current_dir(folder).env_remove("MAINSTAY_TEST_KEY");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn said(output: Output) -> Said {
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

fn run(folder: &Path, arguments: &[&str], input: &[u8]) -> Said {
    let mut child = command(folder, arguments).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    said(child.wait_with_output().unwrap())
}

/// An example, from the root of the workspace.
pub(crate) fn support(arguments: &[&str], input: &str) -> Said {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    run(root, arguments, input.as_bytes())
}

/// The server for tests, built beside them.
pub(crate) fn shop() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.join("examples").join("mcp_shop")
}

/// What is said about a file, and that it ends with 2 and prints nothing else.
#[track_caller]
pub(crate) fn refused(text: &str, expected: &str) {
    let said = Folder::with("t.toml", text).run(&["check", "t.toml"], "");
    assert_eq!(said.err, expected, "\n{}", said.err);
    assert_eq!((said.code, &*said.out), (2, ""));
}
