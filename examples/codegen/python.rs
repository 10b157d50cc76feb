//! The tool that checks what was generated: the real Python interpreter, in a process of its own.
//!
//! Each check runs in a temporary folder that is removed afterwards, without the environment of this
//! process, where keys may be. The process is killed when it takes too long and when the attempt is
//! dropped, whatever the reason; should this process be killed itself, its limits end it. That is no
//! sandbox: what a model wrote runs with your rights.
//!
//! *Invariant.* A temporary folder that cannot be used ends the run. Were it the answer to a check, every function
//! would be found wrong, and stay so.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use mainstay::behavior::{Behavior, Context, Stateless};
use mainstay::fault::{EffectKind, Fault};
use serde::Deserialize;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::faults::Faults;
use crate::points::{Failure, Points};
use crate::specs::Example;

/// How long the code may run.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// What is read of the verdict, in bytes.
const MOST: u64 = 64 * 1024;

/// What the interpreter runs: it compiles the code first and then tries the examples. The code's own
/// output goes nowhere, and its verdict is the last thing the process writes.
const HARNESS: &str = r#"
import json, os, sys
try:
    import resource, signal
    signal.alarm(20)
    resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
except (ImportError, OSError, ValueError):
    pass
name, verdict = sys.argv[1], sys.stdout
sys.stdout = open(os.devnull, "w")
def say(kind, text=""):
    verdict.write(json.dumps({"kind": kind, "text": text[:1000]}))
    verdict.flush()
    os._exit(0)
with open("function.py", encoding="utf-8") as file:
    code = file.read()
with open("examples.json", encoding="utf-8") as file:
    examples = json.load(file)
try:
    compiled = compile(code, "function.py", "exec")
except (SyntaxError, ValueError) as error:
    line = getattr(error, "lineno", None)
    say("syntax", f"line {line}: {getattr(error, 'msg', error)}: {(getattr(error, 'text', '') or '').strip()}")
try:
    space = {"__name__": "function"}
    exec(compiled, space)
    function = space[name]
except BaseException as error:
    say("wrong", f"it defines no {name}: {type(error).__name__}: {error}")
for example in examples:
    call = f"{name}({', '.join(map(repr, example['given']))})"
    wanted = "ValueError" if example["raises"] else repr(example["gives"])
    try:
        result = function(*example["given"])
        found, same = repr(result), False
        if not example["raises"]:
            result, right = json.dumps(result, sort_keys=True), json.dumps(example["gives"], sort_keys=True)
            same = result == right or json.loads(result) == example["gives"]
    except BaseException as error:
        found = f"{type(error).__name__}: {error}"
        same = example["raises"] and isinstance(error, ValueError)
    if not same:
        say("wrong", f"{call} gives {found}, and should give {wanted}")
say("passes")
"#;

/// A function and what it should do.
#[derive(Clone, Debug)]
pub(crate) struct Check {
    pub(crate) name: String,
    pub(crate) code: String,
    pub(crate) examples: Vec<Example>,
    /// Which check of this function it is: others may have more luck.
    pub(crate) occasion: String,
}

/// What the interpreter says about it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", content = "text", rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// It does what the examples say.
    Passes(String),
    /// It is no Python.
    Syntax(String),
    /// It does something else.
    Wrong(String),
}

/// The interpreter as a child.
#[derive(Clone, Debug)]
pub(crate) struct Python {
    program: PathBuf,
    faults: Faults,
    points: Arc<Points>,
}

impl Python {
    /// The interpreter that is there.
    pub(crate) async fn find(faults: Faults, points: &Arc<Points>) -> Result<Self, String> {
        let missing = |why: String| {
            format!(
                "python3 cannot be run, and it checks what is generated: {why}; install Python 3.8 or \
                 newer, or put it on the PATH"
            )
        };
        let path = std::env::var_os("PATH").unwrap_or_default();
        let name = format!("python3{}", std::env::consts::EXE_SUFFIX);
        let program = std::env::split_paths(&path)
            .filter(|folder| !folder.as_os_str().is_empty())
            .map(|folder| folder.join(&name))
            .find(|file| file.is_file())
            .ok_or_else(|| missing("there is none on the PATH".to_owned()))?;
        let mut command = bare(&program);
        command.args(["-c", "import sys; sys.exit(sys.version_info < (3, 8))"]);
        match timeout(2 * PATIENCE, command.status()).await {
            Ok(Ok(status)) if status.success() => {
                Ok(Self { program, faults, points: Arc::clone(points) })
            }
            Ok(Ok(status)) => {
                Err(missing(format!("{} is too old or broken ({status})", program.display())))
            }
            Ok(Err(error)) => Err(missing(format!("{}: {error}", program.display()))),
            Err(_) => Err(missing(format!("{} does not answer", program.display()))),
        }
    }

    async fn run(&self, check: &Check) -> std::io::Result<Option<Vec<u8>>> {
        let folder = match folder_of(check) {
            Ok(folder) => folder,
            Err(error) => {
                let all = std::env::temp_dir();
                let text = format!("temporary folder \"{}\": {error}", all.display());
                self.points.fail(Failure::Beside(text));
                return std::future::pending().await;
            }
        };
        let mut command = bare(&self.program);
        command.args(["-c", HARNESS, &check.name]).current_dir(folder.path());
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut said = Vec::new();
        let work = async {
            if let Some(stdout) = child.stdout.take() {
                BufReader::new(stdout).take(MOST).read_to_end(&mut said).await?;
            }
            child.wait().await
        };
        let ended = timeout(PATIENCE, work).await;
        if ended.is_err() {
            child.kill().await?;
            return Ok(None);
        }
        Ok(Some(said))
    }
}

/// What the interpreter is to find.
fn folder_of(check: &Check) -> std::io::Result<TempDir> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("function.py"), &check.code)?;
    let examples = serde_json::to_vec(&check.examples)?;
    std::fs::write(folder.path().join("examples.json"), examples)?;
    Ok(folder)
}

/// The interpreter without anything of this process but where programs and libraries are.
fn bare(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().args(["-I", "-S", "-B"]).kill_on_drop(true);
    for name in ["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

impl Behavior for Python {
    type Request = Check;
    type Reply = Verdict;
    // It writes only what it removes again.
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
}

impl Stateless for Python {
    async fn serve(&self, check: &Check, ctx: &Context) -> Result<Verdict, Fault> {
        let work = format!("{}/{}", check.name, check.occasion);
        if self.faults.tool(&work, ctx.attempt()) {
            return Err(Fault::tool_execution("injected").with_code("injected"));
        }
        match self.run(check).await {
            Ok(Some(said)) => Ok(serde_json::from_slice(&said).unwrap_or_else(|_| {
                Verdict::Wrong("the interpreter ended without a verdict".to_owned())
            })),
            Ok(None) => Ok(Verdict::Wrong(format!("it does not end within {PATIENCE:?}"))),
            Err(error) => {
                Err(Fault::tool_execution(format!("python3: {error}")).with_code("python"))
            }
        }
    }
}
