//! The example `support_desk` as a child process: found, run, interrupted, read.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Nothing here takes so long; a program that hangs fails the test instead of holding it up.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where `cargo test` has put the program, beside this test. A run of this test alone does not build
/// examples; then it is built here.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let profile = test.parent().unwrap().parent().unwrap();
        let name = format!("support_desk{}", std::env::consts::EXE_SUFFIX);
        let program = profile.join("examples").join(name);
        if !program.exists() {
            let mut cargo = std::process::Command::new(env!("CARGO"));
            cargo.args(["build", "--quiet", "--example", "support_desk"]);
            if profile.ends_with("release") {
                cargo.arg("--release");
            }
            let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap();
            assert!(built.success() && program.exists(), "{program:?} cannot be built");
        }
        program
    })
}

/// The program with these arguments, not yet running.
pub(crate) fn command<I: AsRef<str>>(arguments: impl IntoIterator<Item = I>) -> Command {
    let mut command = Command::new(program());
    for argument in arguments {
        command.arg(argument.as_ref());
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    /// The last line of stdout as JSON, with its counts balanced.
    pub(crate) fn summary(&self) -> Value {
        let line = self.out.lines().last().unwrap_or_default();
        let summary: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{self:#?}"));
        assert_eq!(summary["accepted"].as_u64().unwrap(), sum(&summary["fates"]), "{summary}");
        summary
    }
}

/// The sum of the numbers of an object.
pub(crate) fn sum(counts: &Value) -> u64 {
    counts.as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum()
}

/// Runs the program to its end.
pub(crate) async fn run(arguments: &[&str]) -> Ran {
    finish(command(arguments).output()).await
}

pub(crate) async fn finish(output: impl Future<Output = std::io::Result<Output>>) -> Ran {
    timeout(PATIENCE, output).await.expect("the program hangs").unwrap().into()
}

/// A program that runs, with its stderr read line by line.
pub(crate) struct Running {
    child: Child,
    err: BufReader<tokio::process::ChildStderr>,
    seen: String,
}

impl Running {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut child = command(arguments).spawn().unwrap();
        let err = BufReader::new(child.stderr.take().unwrap());
        Self { child, err, seen: String::new() }
    }

    /// Waits for a line on stderr with this in it.
    pub(crate) async fn wait_for(&mut self, text: &str) {
        let from = self.seen.len();
        let read = async {
            while !self.seen[from..].contains(text) {
                let read = self.err.read_line(&mut self.seen).await.unwrap();
                assert!(read > 0, "it ended without {text:?}: {}", self.seen);
            }
        };
        timeout(PATIENCE, read).await.unwrap_or_else(|_| panic!("no {text:?} on stderr"));
    }

    /// Presses Ctrl-C.
    pub(crate) async fn interrupt(&self) {
        self.signal("-INT").await;
    }

    /// Sends a signal, by its name.
    pub(crate) async fn signal(&self, name: &str) {
        let id = self.child.id().expect("it runs").to_string();
        let sent = Command::new("kill").args([name, &id]).status().await.unwrap();
        assert!(sent.success());
    }

    pub(crate) async fn end(mut self) -> Ran {
        let mut out = String::new();
        let mut stdout = self.child.stdout.take().unwrap();
        let rest = async {
            let (read, _) = tokio::join!(
                stdout.read_to_string(&mut out),
                self.err.read_to_string(&mut self.seen)
            );
            read.unwrap();
            self.child.wait().await.unwrap()
        };
        let status = timeout(PATIENCE, rest).await.expect("the program hangs");
        Ran { code: status.code(), out, err: self.seen }
    }
}

/// A file in a folder of its own, so that nothing lies beside it that was not put there.
pub(crate) fn file(folder: &str, name: &str, content: impl AsRef<[u8]>) -> String {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("support_desk").join(folder);
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}
