//! What the tests of MCP share: a server in a system, real processes, and ways to wait for them.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mainstay::error::CallError;
use mainstay::event::{Event, EventStream};
use mainstay::fate::Answer;
use mainstay::fault::{Class, ExitKind};
use mainstay::policy::{Backoff, Jitter, Policy};
use mainstay::port::Port;
use mainstay::spec::SupervisorSpec;
use mainstay::system::System;
use mainstay_actors::mcp::McpServer;
use mainstay_actors::tool::{ToolReply, ToolRequest};

/// A path that no other test uses.
pub(crate) fn scratch(name: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("mainstay-mcp-{}-{number}-{name}", std::process::id()))
}

/// Waits for something that no event tells of, because it happens in another process.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited 30 s in vain for {what}");
}

pub(crate) fn signal(pid: u32, name: &str) {
    let done = Command::new("kill").args([name, &pid.to_string()]).status().unwrap();
    assert!(done.success(), "kill {name} {pid}");
}

/// Whether there is such a process that is not only waiting to be reaped.
pub(crate) fn lives(pid: u32) -> bool {
    let state = Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output().unwrap();
    let state = String::from_utf8_lossy(&state.stdout).trim().to_owned();
    !state.is_empty() && !state.starts_with('Z')
}

/// The policy with its caps, and waits that a test can afford in real time: how long they are is
/// tested where the clock is paused.
fn quick() -> Policy {
    let exact = Policy::new().with_jitter(Jitter::None);
    let waits = Class::ALL.into_iter().filter(|class| exact.rule(*class).backoff != Backoff::None);
    let soon = Backoff::Fixed(Duration::from_millis(20));
    waits.fold(exact.clone(), |policy, class| policy.with_backoff(class, soon))
}

/// A system with a server `s` in it; stop it at the end.
pub(crate) struct Running {
    pub(crate) system: Arc<System>,
    pub(crate) events: EventStream,
}

impl Running {
    pub(crate) async fn start(server: &McpServer) -> Self {
        let policy = quick();
        let root =
            SupervisorSpec::one_for_one("root").policy(policy).supervisor(server.supervisor("s"));
        let system = System::start(root).await.unwrap();
        let events = system.events();
        Self { system: Arc::new(system), events }
    }

    pub(crate) fn tool(&self, name: &str) -> Port<ToolRequest, ToolReply> {
        self.system.port(format!("root/s/{name}")).unwrap()
    }

    pub(crate) async fn call(
        &self,
        name: &str,
        arguments: &str,
    ) -> Result<String, CallError<ToolRequest>> {
        self.answer(name, arguments).await.map(|answer| answer.value.content)
    }

    pub(crate) async fn answer(
        &self,
        name: &str,
        arguments: &str,
    ) -> Result<Answer<ToolReply>, CallError<ToolRequest>> {
        self.tool(name).call(ToolRequest::new(name, arguments)).await
    }

    /// Waits for the next end of the connection's life.
    pub(crate) async fn connection_exits(&mut self) -> ExitKind {
        let stamped = self
            .events
            .wait_for(|event| matches!(event, Event::Exited { child, .. } if *child == "root/s/connection"))
            .await
            .unwrap();
        let Event::Exited { cause, .. } = stamped.event else { unreachable!() };
        cause
    }

    /// Stops the system, in which nothing may be left open.
    pub(crate) async fn stop(self) {
        self.system.stop().await;
        assert!(self.system.fates().is_balanced());
        assert_eq!(self.system.fates().open, 0);
    }
}
