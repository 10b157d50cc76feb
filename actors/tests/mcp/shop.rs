//! The server of ours that the tests of MCP use, over both transports, and what it was told.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use mainstay_actors::mcp::McpServer;

use super::harness::{scratch, until};

/// Our own server. A run of all tests has built it; a run of this test alone has not, and does it here.
pub(crate) fn shop_program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        // This test stands in `deps`, beside `examples`.
        let me = std::env::current_exe().unwrap();
        let name = format!("mcp_shop{}", std::env::consts::EXE_SUFFIX);
        let program = me.parent().unwrap().parent().unwrap().join("examples").join(name);
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let written = |path: &Path| path.metadata().and_then(|data| data.modified()).ok();
        let source = written(&package.join("examples/mcp_shop.rs"));
        if written(&program).is_some_and(|built| Some(built) >= source) {
            return program;
        }
        let mut cargo = Command::new(env!("CARGO"));
        // What cargo tells a test of its package would make the inner one build everything anew.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("CARGO_") && !matches!(&*name, "CARGO_HOME" | "CARGO_TARGET_DIR") {
                cargo.env_remove(&*name);
            }
        }
        let built = cargo
            .args(["build", "--quiet", "-p", "mainstay-actors", "--example", "mcp_shop"])
            .args(if cfg!(debug_assertions) { None } else { Some("--release") })
            .current_dir(package)
            .status()
            .unwrap();
        assert!(built.success(), "the example mcp_shop does not build");
        program
    })
}

/// What our server was told, line by line.
#[derive(Clone)]
pub(crate) struct Log(PathBuf);

impl Log {
    pub(crate) fn new() -> Self {
        Self(scratch("log"))
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        std::fs::read_to_string(&self.0).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    pub(crate) fn count(&self, line: &str) -> usize {
        self.lines().iter().filter(|there| *there == line).count()
    }

    /// The processes that were the server, in order.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.lines().iter().filter_map(|line| line.strip_prefix("pid ")?.parse().ok()).collect()
    }

    /// Waits until the line is there `times` times: another process writes it.
    pub(crate) async fn wait_for(&self, line: &str, times: usize) {
        until(&format!("\"{line}\" {times} times"), || self.count(line) >= times).await;
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Our server over standard input and output, with its log.
pub(crate) fn shop() -> (McpServer, Log) {
    let log = Log::new();
    let server =
        McpServer::command(shop_program().to_str().unwrap(), ["--log", log.0.to_str().unwrap()]);
    (server, log)
}

/// Our server over HTTP; ends when dropped.
pub(crate) struct OverHttp {
    pub(crate) process: std::process::Child,
    pub(crate) address: String,
}

impl OverHttp {
    pub(crate) fn start(log: &Log) -> Self {
        Self::start_at(log, "0", &[])
    }

    /// The same with these options.
    pub(crate) fn start_with(log: &Log, options: &[&str]) -> Self {
        Self::start_at(log, "0", options)
    }

    fn start_at(log: &Log, port: &str, options: &[&str]) -> Self {
        use std::io::BufRead;
        let mut process = Command::new(shop_program())
            .args(["--http", "--port", port, "--log", log.0.to_str().unwrap()])
            .args(options)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let out = process.stdout.take().unwrap();
        std::io::BufReader::new(out).read_line(&mut line).unwrap();
        Self { process, address: format!("http://{}/mcp", line.trim()) }
    }

    /// Ends it, at once.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Another one at the same address, after it was killed.
    pub(crate) fn start_again(&mut self, log: &Log) {
        let port = self.address.trim_end_matches("/mcp").rsplit(':').next().unwrap();
        let again = Self::start_at(log, port, &[]);
        assert_eq!(again.address, self.address);
        *self = again;
    }
}

impl Drop for OverHttp {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
