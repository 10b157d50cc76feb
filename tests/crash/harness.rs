//! An example as its users run it: killed, begun again, and given stores that somebody has damaged.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use tempfile::TempDir;

/// The built example. `cargo test` of all there is has built it; `cargo test --test crash` alone has not.
pub(super) fn example(name: &str) -> Command {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let me = std::env::current_exe().unwrap();
        // <target>/<profile>/deps/crash-...
        let profile = me.parent().and_then(Path::parent).unwrap();
        let examples = profile.join("examples");
        // Not asked to build what is there: for a part of the workspace cargo resolves other features, and builds half
        // of it anew, here and once more for whoever builds all of it next.
        if ["finance", "codegen"].iter().any(|name| is_stale(&examples.join(program(name)))) {
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args(["build", "--quiet", "--example", "finance", "--example", "codegen"]);
            cargo.arg("--target-dir").arg(profile.parent().unwrap());
            cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
            if !cfg!(debug_assertions) {
                cargo.arg("--release");
            }
            assert!(cargo.status().unwrap().success(), "the examples do not build");
        }
        examples
    });
    let mut command = Command::new(folder.join(program(name)));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn program(name: &str) -> String {
    format!("{name}{}", std::env::consts::EXE_SUFFIX)
}

/// Whether it is not there, or older than what it is made of.
fn is_stale(program: &Path) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let made_of = ["src", "actors/src", "examples"].iter().filter_map(|it| newest(&root.join(it)));
    let built = program.metadata().and_then(|data| data.modified()).ok();
    built.is_none() || made_of.max() > built
}

/// When the latest of the files in a folder was written.
fn newest(folder: &Path) -> Option<SystemTime> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let times = entries.filter_map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => newest(&entry.path()),
        _ => entry.metadata().and_then(|data| data.modified()).ok(),
    });
    times.max()
}

pub(super) fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(super) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Dies at this point, before it or right after it.
pub(super) fn die(mut command: Command, point: u64, after: bool) -> Output {
    command.args(["--die-at", &point.to_string()]);
    if after {
        command.arg("--die-after");
    }
    command.output().unwrap()
}

/// As [`die`], by a real SIGKILL from outside, while its other threads go on.
pub(super) fn killed(mut command: Command, point: u64, after: bool) -> Output {
    command.args(["--await-kill", "--die-at", &point.to_string()]);
    if after {
        command.arg("--die-after");
    }
    let mut child = command.spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut stderr = String::new();
    loop {
        let from = stderr.len();
        // It ends without having come to this point, or waits there.
        if said.read_line(&mut stderr).unwrap() == 0 || stderr[from..].contains("to be killed") {
            break;
        }
    }
    // It may have ended; then this says so.
    drop(child.kill());
    said.read_to_string(&mut stderr).unwrap();
    let mut output = child.wait_with_output().unwrap();
    output.stderr = stderr.into_bytes();
    #[cfg(unix)]
    {
        use std::os::unix::process::ExitStatusExt as _;
        let signal = output.status.signal();
        assert!(output.status.code().is_some() || signal == Some(9), "{signal:?}");
    }
    output
}

/// What it has said was accepted, each once.
pub(super) fn accepted(output: &Output) -> BTreeSet<String> {
    let errors = errors(output);
    let keys = errors.lines().filter_map(|line| line.strip_prefix("accepted "));
    let mut accepted = BTreeSet::new();
    for key in keys {
        assert!(accepted.insert(key.to_owned()), "{key} was accepted twice: {errors}");
    }
    accepted
}

/// Runs to the end; its summary, and all that it said.
pub(super) fn ends(command: Command, what: &str) -> (Value, String) {
    ends_without(command, &BTreeSet::new(), what)
}

/// As [`ends`], of a process after one that has accepted these: it knows each of them, and so takes none of them
/// for new.
pub(super) fn ends_without(
    mut command: Command,
    known: &BTreeSet<String>,
    what: &str,
) -> (Value, String) {
    let output = command.output().unwrap();
    let lost: Vec<_> = accepted(&output).into_iter().filter(|key| known.contains(key)).collect();
    assert!(lost.is_empty(), "{what}: accepted, and lost: {lost:?}");
    let text = text(&output);
    assert_eq!(output.status.code(), Some(0), "{what}: {text}{}", errors(&output));
    let summary = serde_json::from_str(text.lines().last().unwrap());
    (summary.unwrap_or_else(|_| panic!("{what}: {text}")), text)
}

/// How many points a run without an end passes, and what it said.
pub(super) fn points(mut command: Command) -> (u64, String) {
    let output = command.arg("--count-points").output().unwrap();
    let errors = errors(&output);
    let line = errors.lines().find_map(|line| line.strip_prefix("points: "));
    let points = line.unwrap_or_else(|| panic!("{errors}")).parse().unwrap();
    (points, text(&output))
}

/// It does not begin, and says all of this.
pub(super) fn refused(mut command: Command, code: i32, texts: &[&str]) {
    let output = command.output().unwrap();
    let errors = errors(&output);
    assert_eq!(output.status.code(), Some(code), "{errors}");
    for text in texts {
        assert!(errors.contains(text), "{text:?} is not in: {errors}");
    }
}

/// Numbers that follow from a seed, which is printed.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(name: &str) -> Self {
        let seed = match std::env::var("CRASH_SEED") {
            Ok(seed) => seed.parse().unwrap(),
            Err(_) => std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64,
        };
        println!("{name}: CRASH_SEED={seed}");
        Self(seed)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

/// The last log of the store in this folder: its name, its bytes, and where its batches end.
pub(super) struct Log {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
    pub(super) ends: Vec<usize>,
}

impl Log {
    pub(super) fn of(folder: &Path) -> Self {
        let mut logs: Vec<PathBuf> = std::fs::read_dir(folder.join("store"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
            .collect();
        logs.sort();
        let path = logs.pop().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let trailer = [0x4d, 0x53, 0x2e, 0xa5];
        let ends = bytes.windows(4).enumerate().filter(|(_, four)| *four == trailer);
        let ends = ends.map(|(at, _)| at + 4).collect();
        Self { name: path.file_name().unwrap().to_str().unwrap().to_owned(), bytes, ends }
    }

    /// Where it is cut: at the end of each batch, and in the middle of each.
    pub(super) fn cuts(&self) -> Vec<usize> {
        let mut from = 0;
        let mut cuts = Vec::new();
        for end in &self.ends {
            cuts.extend([*end, from + (end - from) / 2]);
            from = *end;
        }
        cuts
    }

    /// A copy of the folder with only so many bytes of it.
    pub(super) fn cut(&self, folder: &Path, at: usize) -> TempDir {
        let copy = copy(folder);
        std::fs::write(copy.path().join("store").join(&self.name), &self.bytes[..at]).unwrap();
        copy
    }

    /// A copy of the folder with one to three other bytes in it, and which.
    pub(super) fn scribbled(&self, folder: &Path, dice: &mut Dice) -> (TempDir, String) {
        let copy = copy(folder);
        let mut bytes = self.bytes.clone();
        let mut what = "other bytes at".to_owned();
        for _ in 0..=dice.below(3) {
            let at = dice.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 + dice.below(255) as u8;
            write!(what, " {at}").unwrap();
        }
        std::fs::write(copy.path().join("store").join(&self.name), bytes).unwrap();
        (copy, what)
    }

    /// Whether an error says where it is wrong.
    pub(super) fn is_named(&self, errors: &str) -> bool {
        let corrupt = errors.contains(&self.name) && errors.contains(" at byte ");
        corrupt || errors.contains(&self.name) && errors.contains("not known")
    }
}

pub(super) fn copy(from: &Path) -> TempDir {
    let to = TempDir::new().unwrap();
    copy_into(from, to.path());
    to
}

/// With the folders in it.
pub(super) fn copy_into(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            std::fs::create_dir_all(&to).unwrap();
            copy_into(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// A folder that takes no files.
pub(super) fn closed_folder(folder: &Path) -> PathBuf {
    let closed = folder.join("closed");
    std::fs::create_dir(&closed).unwrap();
    let mut rights = std::fs::metadata(&closed).unwrap().permissions();
    rights.set_readonly(true);
    std::fs::set_permissions(&closed, rights).unwrap();
    // Whoever may write everywhere is kept out by nothing but a file system that takes no files.
    match std::fs::write(closed.join("probe"), "") {
        Ok(()) => PathBuf::from("/proc/mainstay"),
        Err(_) => closed,
    }
}

/// A run that goes on until it is killed, which it is when this is dropped.
pub(super) struct Running(pub(super) Child);

impl Running {
    /// Once it has its store.
    pub(super) fn with_store(mut command: Command, folder: &Path) -> Self {
        let running = Self(command.spawn().unwrap());
        let (lock, pid) = (folder.join("store").join("LOCK"), running.pid());
        let started = Instant::now();
        while std::fs::read_to_string(&lock).unwrap_or_default().trim() != pid {
            assert!(started.elapsed() < Duration::from_secs(60), "it does not take its store");
            std::thread::sleep(Duration::from_millis(5));
        }
        running
    }

    pub(super) fn pid(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone now.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
