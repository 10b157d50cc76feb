//! MCP servers that nobody here wrote, over both transports, killed and stopped in the middle of
//! calls. `.ci/mcp/install` fetches them and says how to run this; without them each test says that it
//! was skipped.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mainstay::error::CallError;
use mainstay::fault::{Class, EffectKind, ExitKind};
use mainstay::port::CallOptions;
use mainstay_actors::mcp::McpServer;
use mainstay_actors::tool::ToolRequest;

use harness::{Running, lives, scratch, signal, until};

#[path = "mcp/harness.rs"]
mod harness;

const LONG: &str = r#"{"duration":20,"steps":4}"#;

/// The script of a reference server, if they are here.
fn script(name: &str) -> Option<String> {
    let Ok(folder) = std::env::var("MAINSTAY_MCP_SERVERS") else {
        println!("SKIPPED: MAINSTAY_MCP_SERVERS does not say where the servers are");
        return None;
    };
    let path = PathBuf::from(folder).join(format!("server-{name}/dist/index.js"));
    assert!(path.exists(), "MAINSTAY_MCP_SERVERS is set, and {path:?} is not there");
    Some(path.to_str().unwrap().to_owned())
}

fn everything() -> Option<McpServer> {
    Some(McpServer::command("node", [&*script("everything")?, "stdio"]))
}

/// The processes whose command line holds this text.
fn processes(text: &str) -> Vec<u32> {
    let list = Command::new("ps").args(["-eo", "pid=,args="]).output().unwrap();
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    list.lines()
        .filter(|line| line.contains(text))
        .filter_map(|line| line.split_whitespace().next()?.parse().ok())
        .filter(|pid| lives(*pid))
        .collect()
}

#[tokio::test]
async fn the_reference_servers_tools_are_found_with_their_schemas_and_called() {
    let Some(server) = everything() else { return };
    let found = server.discover().await.unwrap();
    let sum = found.iter().find(|tool| tool.spec.name == "get-sum").unwrap();
    assert_eq!(sum.effect, EffectKind::Irreversible, "it says that it only reads, to no avail");
    assert!(sum.spec.parameters.contains(r#""a""#) && !sum.spec.description.is_empty());
    let server = server.trusted();
    let found = server.discover().await.unwrap();
    let running = Running::start(&server.offer(found)).await;
    let said = running.call("get-sum", r#"{"a":40,"b":2}"#).await.unwrap();
    assert!(said.contains("42"), "{said}");
    let error = running.call("get-sum", r#"{"a":"forty"}"#).await.unwrap_err();
    let CallError::RecoveryExhausted { fault, trail, .. } = error else { panic!("{error:?}") };
    assert_eq!((fault.class, trail.0.len()), (Class::InputValidation, 1), "{fault}");
    running.stop().await;
}

#[tokio::test]
async fn the_reference_server_killed_in_a_call_comes_back() {
    let Some(server) = everything() else { return };
    // The variable tells this test's servers from those of the others.
    let mark = format!("mark-{}", std::process::id());
    let script = script("everything").unwrap();
    drop(server);
    let server = McpServer::command("node", [&*script, "stdio", &mark])
        .tool("trigger-long-running-operation", EffectKind::Irreversible)
        .tool("echo", EffectKind::Read);
    let mut running = Running::start(&server).await;
    let port = running.tool("trigger-long-running-operation");
    let call = tokio::spawn(async move { port.call(ToolRequest::new("long", LONG)).await });
    until("the call", || running.system.fates().open == 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let pids = processes(&mark);
    assert_eq!(pids.len(), 1);
    signal(pids[0], "-KILL");
    assert!(matches!(call.await.unwrap(), Err(CallError::Unknown { .. })));
    assert_eq!(running.connection_exits().await, ExitKind::Faulted);
    assert!(
        running.call("echo", r#"{"message":"still here"}"#).await.unwrap().contains("still here")
    );
    running.stop().await;
    assert!(processes(&mark).is_empty());
}

#[tokio::test]
async fn a_write_to_a_stopped_server_is_unknown_and_the_next_server_writes() {
    let Some(script) = script("filesystem") else { return };
    let folder = scratch("files");
    std::fs::create_dir(&folder).unwrap();
    let place = folder.to_str().unwrap().to_owned();
    let server = McpServer::command("node", [&*script, &*place])
        .call_timeout(Duration::from_millis(1500))
        .ping_timeout(Duration::from_millis(500))
        .tool("write_file", EffectKind::Irreversible)
        .tool("read_text_file", EffectKind::Read);
    let mut running = Running::start(&server).await;
    let write = |name: &str, text: &str| {
        serde_json::json!({"path": format!("{place}/{name}"), "content": text}).to_string()
    };
    running.call("write_file", &write("one", "first")).await.unwrap();
    assert_eq!(std::fs::read_to_string(folder.join("one")).unwrap(), "first");
    let stopped = processes(&place)[0];
    signal(stopped, "-STOP");
    let lost = running.call("write_file", &write("two", "second")).await;
    assert!(matches!(lost, Err(CallError::Unknown { .. })), "{lost:?}");
    assert_eq!(running.connection_exits().await, ExitKind::Faulted);
    running.call("write_file", &write("three", "third")).await.unwrap();
    assert_eq!(std::fs::read_to_string(folder.join("three")).unwrap(), "third");
    assert!(!folder.join("two").exists(), "a write that is unknown is not made again");
    assert!(!lives(stopped));
    let outside = serde_json::json!({"path": "/etc/hostname"}).to_string();
    let error = running.call("read_text_file", &outside).await.unwrap_err();
    let CallError::RecoveryExhausted { fault, .. } = error else { panic!("{error:?}") };
    assert_eq!((fault.class, fault.code.as_deref()), (Class::Business, Some("tool_error")));
    running.stop().await;
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn what_a_memory_server_was_told_survives_its_death() {
    let Some(script) = script("memory") else { return };
    let memory = scratch("memory.jsonl");
    let server = McpServer::command("node", [&*script])
        .env("MEMORY_FILE_PATH", memory.to_str().unwrap())
        .tool("create_entities", EffectKind::Idempotent)
        .tool("read_graph", EffectKind::Read);
    let mut running = Running::start(&server).await;
    let entity = r#"{"entities":[{"name":"Ada","entityType":"person","observations":["counts"]}]}"#;
    running.call("create_entities", entity).await.unwrap();
    running.system.kill("root/s/connection").unwrap();
    assert_eq!(running.connection_exits().await, ExitKind::Killed);
    assert!(running.call("read_graph", "{}").await.unwrap().contains("Ada"));
    running.stop().await;
    std::fs::remove_file(memory).unwrap();
}

/// `mcp-proxy` before the reference server: streamable HTTP in front of a real server.
struct Proxy(Child, u16);

impl Proxy {
    fn start(port: u16) -> Option<Self> {
        let script = script("everything")?;
        let Ok(python) = std::env::var("MAINSTAY_MCP_PYTHON") else {
            println!("SKIPPED: MAINSTAY_MCP_PYTHON does not say where mcp-proxy is");
            return None;
        };
        let child = Command::new("python3")
            .args(["-m", "mcp_proxy", "--host", "127.0.0.1", "--port", &port.to_string()])
            .args(["--", "node", &script, "stdio"])
            .env("PYTHONPATH", python)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Some(Self(child, port))
    }

    async fn listens(&self) {
        let port = self.1;
        until("the proxy", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn over_http_a_stopped_server_is_found_and_a_killed_one_reached_when_it_is_back() {
    let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let Some(mut proxy) = Proxy::start(port) else { return };
    proxy.listens().await;
    let server = McpServer::url(format!("http://127.0.0.1:{port}/mcp"))
        .call_timeout(Duration::from_secs(2))
        .ping_timeout(Duration::from_secs(1))
        .tool("trigger-long-running-operation", EffectKind::Irreversible)
        .tool("get-sum", EffectKind::Read);
    let mut running = Running::start(&server).await;
    let said = running.call("get-sum", r#"{"a":40,"b":2}"#).await.unwrap();
    assert!(said.contains("42"), "{said}");
    // Stopped: found by the call's time, and the connection is made anew as soon as it answers.
    signal(proxy.0.id(), "-STOP");
    let short = CallOptions::new().deadline(Duration::from_secs(3));
    let long = running.tool("trigger-long-running-operation");
    let lost = long.call_with(ToolRequest::new("long", LONG), short).await;
    assert!(matches!(lost, Err(CallError::Unknown { .. })), "{lost:?}");
    assert_eq!(running.connection_exits().await, ExitKind::Faulted);
    signal(proxy.0.id(), "-CONT");
    let said = running.call("get-sum", r#"{"a":1,"b":2}"#).await.unwrap();
    assert!(said.contains('3'), "{said}");
    // Killed in a call.
    let call = tokio::spawn(async move { long.call(ToolRequest::new("long", LONG)).await });
    until("the call", || running.system.fates().open == 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    proxy.0.kill().unwrap();
    proxy.0.wait().unwrap();
    let lost = call.await.unwrap();
    assert!(matches!(lost, Err(CallError::Unknown { .. })), "{lost:?}");
    proxy = Proxy::start(port).unwrap();
    proxy.listens().await;
    let said = running.call("get-sum", r#"{"a":2,"b":2}"#).await.unwrap();
    assert!(said.contains('4'), "{said}");
    running.stop().await;
}
