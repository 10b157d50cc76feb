//! The servers that nobody here wrote: where they are, how they are started, and how the one that writes
//! files is caught in the middle of it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mainstay::error::CallError;
use mainstay::fate::Answer;
use mainstay::fault::EffectKind;
use mainstay_actors::mcp::McpServer;
use mainstay_actors::tool::{ToolReply, ToolRequest};
use tokio::task::JoinHandle;

use super::harness::{Running, lives, scratch, signal, until};

/// The length of a file that takes several writes. A gateway takes messages up to 4 MiB.
pub(crate) const WHOLE: usize = 4_000_000;

/// The script of a reference server, if they are here.
pub(crate) fn script(name: &str) -> Option<String> {
    let Ok(folder) = std::env::var("MAINSTAY_MCP_SERVERS") else {
        println!("SKIPPED: MAINSTAY_MCP_SERVERS does not say where the servers are");
        return None;
    };
    let path = PathBuf::from(folder).join(format!("server-{name}/dist/index.js"));
    assert!(path.exists(), "MAINSTAY_MCP_SERVERS is set, and {path:?} is not there");
    Some(path.to_str().unwrap().to_owned())
}

/// In which a server is written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Language {
    TypeScript,
    Python,
}

/// A bank on the official library for this language, and its log; if the library is here.
pub(crate) fn bank(language: Language) -> Option<(McpServer, PathBuf)> {
    let log = scratch("bank");
    let written = log.to_str().unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let fixture = |name: &str| fixtures.join(name).to_str().unwrap().to_owned();
    let server = match language {
        Language::TypeScript => {
            let everything = PathBuf::from(script("everything")?);
            // The folder that holds the packages, four above the script of one of them.
            let modules = everything.ancestors().nth(4).unwrap().to_str().unwrap();
            McpServer::command("node", [&*fixture("bank.cjs"), modules, written])
        }
        Language::Python => {
            let Ok(packages) = std::env::var("MAINSTAY_MCP_PYTHON") else {
                println!("SKIPPED: MAINSTAY_MCP_PYTHON does not say where the library is");
                return None;
            };
            let server = McpServer::command("python3", [&*fixture("bank.py"), written]);
            server.env("PYTHONPATH", packages)
        }
    };
    Some((server, log))
}

/// The node processes whose command line holds this text.
pub(crate) fn processes(text: &str) -> Vec<u32> {
    let list = Command::new("ps").args(["-eo", "pid=,args="]).output().unwrap();
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    list.lines()
        .filter_map(|line| line.trim().split_once(' '))
        .filter(|(_, command)| command.trim().starts_with("node") && command.contains(text))
        .filter_map(|(pid, _)| pid.parse().ok())
        .filter(|pid| lives(*pid))
        .collect()
}

/// `mcp-proxy` before a server: streamable HTTP in front of a real one.
pub(crate) struct Proxy(pub(crate) Child, u16);

impl Proxy {
    pub(crate) fn start(port: u16, server: &str, arguments: &[&str]) -> Option<Self> {
        let script = script(server)?;
        let Ok(python) = std::env::var("MAINSTAY_MCP_PYTHON") else {
            println!("SKIPPED: MAINSTAY_MCP_PYTHON does not say where mcp-proxy is");
            return None;
        };
        let child = Command::new("python3")
            .args(["-m", "mcp_proxy", "--host", "127.0.0.1", "--port", &port.to_string()])
            .args(["--", "node", &script])
            .args(arguments)
            .env("PYTHONPATH", python)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Some(Self(child, port))
    }

    pub(crate) async fn listens(&self) {
        let port = self.1;
        until("the proxy", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
    }

    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A port that nobody has.
pub(crate) fn free_port() -> u16 {
    let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    free.local_addr().unwrap().port()
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a call of a tool came to.
pub(crate) type Outcome = Result<Answer<ToolReply>, CallError<ToolRequest>>;

/// The reference server of files with a folder of its own, as a child or behind a gateway.
pub(crate) struct Files {
    folder: PathBuf,
    gateway: Option<Proxy>,
    pub(crate) server: McpServer,
}

impl Files {
    /// With these tools, if the server is here.
    pub(crate) async fn start(over_http: bool, tools: &[(&str, EffectKind)]) -> Option<Self> {
        let script = script("filesystem")?;
        let folder = scratch("files");
        std::fs::create_dir(&folder).unwrap();
        let place = folder.to_str().unwrap();
        let (server, gateway) = if over_http {
            let port = free_port();
            let gateway = Proxy::start(port, "filesystem", &[place])?;
            gateway.listens().await;
            (McpServer::url(format!("http://127.0.0.1:{port}/mcp")), Some(gateway))
        } else {
            (McpServer::command("node", [&*script, place]), None)
        };
        let server =
            server.call_timeout(Duration::from_secs(4)).ping_timeout(Duration::from_millis(500));
        let server = tools.iter().fold(server, |server, (name, kind)| server.tool(*name, *kind));
        Some(Self { folder, gateway, server })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// How long a file is; 0 when it is not there.
    pub(crate) fn length(&self, name: &str) -> usize {
        length(&self.path(name))
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        serde_json::json!({"path": self.path(name), "content": text}).to_string()
    }

    /// The process that works on the files.
    pub(crate) fn pid(&self) -> u32 {
        let found = processes(self.folder.to_str().unwrap());
        assert_eq!(found.len(), 1, "{found:?}");
        found[0]
    }

    /// A call of `write_file` whose server stands still, with a part of the file written.
    pub(crate) async fn caught_writing(
        &self,
        running: &Running,
        name: &str,
    ) -> JoinHandle<Outcome> {
        let (pid, path) = (self.pid(), self.path(name));
        for _ in 0..30 {
            let port = running.tool("write_file");
            let request = ToolRequest::new("write_file", self.write(name, &"x".repeat(WHOLE)));
            let call = tokio::spawn(async move { port.call(request).await });
            let path = path.clone();
            let stop = move || stop_when_there_is(pid, &path);
            tokio::task::spawn_blocking(stop).await.unwrap();
            until("the stop", || stands_still(pid)).await;
            if self.length(name) < WHOLE {
                return call;
            }
            // It was done before the signal came. Another time.
            signal(pid, "-CONT");
            call.await.unwrap().unwrap();
            std::fs::remove_file(self.path(name)).unwrap();
        }
        panic!("in 30 tries it was never caught");
    }

    /// Kills the server and the gateway.
    pub(crate) fn kill(&mut self, pid: u32) {
        // The gateway first, so that it has no time to tell of the other's end.
        if let Some(gateway) = &mut self.gateway {
            gateway.kill();
        }
        signal(pid, "-KILL");
    }

    /// Stops what is spoken to: the gateway, if there is one.
    pub(crate) fn signal(&self, pid: u32, name: &str) {
        signal(self.gateway.as_ref().map_or(pid, |gateway| gateway.0.id()), name);
    }

    /// Starts the gateway again where it was. The server is our child otherwise, and comes back by itself.
    pub(crate) async fn come_back(&mut self) {
        let Some(port) = self.gateway.as_ref().map(|gateway| gateway.1) else { return };
        // Ended before the next one wants the port.
        self.gateway = None;
        let gateway = Proxy::start(port, "filesystem", &[self.folder.to_str().unwrap()]).unwrap();
        gateway.listens().await;
        self.gateway = Some(gateway);
    }

    /// A pipe with a name in the folder: who reads it waits until somebody writes.
    pub(crate) fn pipe(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.gateway = None;
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Returns when somebody reads the pipe.
pub(crate) async fn reader_of(pipe: &Path) -> std::fs::File {
    let pipe = pipe.to_owned();
    let open = move || std::fs::OpenOptions::new().write(true).open(pipe).unwrap();
    tokio::task::spawn_blocking(open).await.unwrap()
}

fn length(path: &Path) -> usize {
    path.metadata().map_or(0, |data| data.len().try_into().unwrap())
}

/// Stops the process as soon as the file has a first part.
fn stop_when_there_is(pid: u32, path: &Path) {
    let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    // Looks without a pause: the whole file takes a few milliseconds.
    while length(path) == 0 {
        std::thread::yield_now();
    }
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
}

/// Whether none of its threads runs: each does what it has asked the system for to the end before.
fn stands_still(pid: u32) -> bool {
    let threads = Command::new("ps").args(["-L", "-o", "stat=", "-p", &pid.to_string()]).output();
    let threads = String::from_utf8(threads.unwrap().stdout).unwrap();
    threads.lines().all(|state| state.trim().starts_with('T'))
}
