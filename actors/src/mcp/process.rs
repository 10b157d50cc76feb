//! A server as a process of ours: started in a group of its own, and ended with it.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mainstay::fault::Fault;
use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Plan, Way};

/// What every program needs to run at all; everything else must be named.
const PASSED_ON: [&str; 16] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "TERM",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "TEMP",
    "TMP",
    "SystemRoot",
    "SystemDrive",
    "APPDATA",
    "USERPROFILE",
];
/// How much of the last output on standard error is kept for the error of a failed start, in bytes.
const KEPT: usize = 1024;
/// How long the last words of a server that was ended are waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// A process that was started.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) child: Child,
    pub(super) group: Arc<Group>,
    pub(super) stdin: ChildStdin,
    pub(super) stdout: ChildStdout,
    pub(super) said: Said,
}

pub(super) fn start(plan: &Plan) -> Result<Process, Fault> {
    let Way::Command { program, arguments } = &plan.way else {
        return Err(Fault::internal("a server at a URL is no process of ours"));
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    for name in PASSED_ON {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    for (name, value) in &plan.env {
        command.env(name, &*value.read()?);
    }
    if let Some(dir) = &plan.dir {
        command.current_dir(dir);
    }
    // Of its own, so that what the server has started ends with it, and a Ctrl-C in our terminal
    // reaches it through us only.
    #[cfg(unix)]
    command.process_group(0);
    let mut child = command.spawn().map_err(|error| {
        // A whole command in one text may have a key in it.
        let (name, rest) = program.split_once(char::is_whitespace).unwrap_or((program, ""));
        let more = if rest.is_empty() { "" } else { " ..." };
        Fault::model_unavailable(format!("\"{name}{more}\" cannot be started: {error}"))
            .with_code("not_started")
    })?;
    let group = Arc::new(Group { leader: child.id(), over: AtomicBool::new(false) });
    let (Some(stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(Fault::internal("a process without pipes"));
    };
    let said = Said::default();
    let (open, heard) = watch::channel(());
    tokio::spawn(listen(stderr, said.clone(), open));
    Ok(Process { child, group, stdin, stdout, said: Said { heard: Some(heard), ..said } })
}

/// A process and all it has started. Killed when dropped.
#[derive(Debug)]
pub(super) struct Group {
    leader: Option<u32>,
    over: AtomicBool,
}

impl Group {
    /// Asks the whole group to end.
    pub(super) fn ask(&self) {
        if !self.over.load(Ordering::Acquire) {
            self.signal(false);
        }
    }

    /// Ends the whole group, at once and for good. Done once, since its number may be another's
    /// later.
    pub(super) fn kill(&self) {
        if !self.over.swap(true, Ordering::AcqRel) {
            self.signal(true);
        }
    }

    #[cfg(unix)]
    fn signal(&self, hard: bool) {
        use rustix::process::{Pid, Signal, kill_process_group};
        let signal = if hard { Signal::KILL } else { Signal::TERM };
        let leader = self.leader.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(leader) = leader {
            // An error says that nobody is left.
            let _ = kill_process_group(leader, signal);
        }
    }

    /// Without groups the process itself is ended when its handle is dropped.
    #[cfg(not(unix))]
    fn signal(&self, _: bool) {
        let _ = self.leader;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The end of what the server said on standard error. For the error of a start, and nothing else: it
/// may hold anything.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    kept: Arc<Mutex<Vec<u8>>>,
    /// Closed when there is no more to hear.
    heard: Option<watch::Receiver<()>>,
}

impl Said {
    /// The last lines of a server that has ended, as an addition to a message; empty when nothing was
    /// said. They may still be in the pipe, so it waits a moment for them.
    pub(super) async fn tail(mut self) -> String {
        if let Some(heard) = &mut self.heard {
            let _ = timeout(PATIENCE, heard.changed()).await;
        }
        let bytes = self.kept.lock();
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim();
        if text.is_empty() { String::new() } else { format!("; it said: {text}") }
    }
}

async fn listen(mut stderr: ChildStderr, said: Said, open: watch::Sender<()>) {
    let mut buffer = [0; 512];
    // A pipe that nobody empties would stop the server.
    while let Ok(count @ 1..) = stderr.read(&mut buffer).await {
        let mut kept = said.kept.lock();
        kept.extend_from_slice(&buffer[..count]);
        let extra = kept.len().saturating_sub(KEPT);
        kept.drain(..extra);
    }
    drop(open);
}
