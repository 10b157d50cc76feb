//! A connection: made, watched, ended.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mainstay::behavior::Lifeline;
use mainstay::fault::{Class, Fault};
use parking_lot::RwLock;
use rmcp::model::{
    ClientRequest, Implementation, ListToolsRequest, PaginatedRequestParams, PingRequest,
    ServerResult, Tool,
};
use rmcp::service::{ClientInitializeError, Peer, RoleClient, RunningService};
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::{ServiceError, ServiceExt};
use serde::Deserialize;
use tokio::process::Child;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::bounded::Bounded;
use super::link::{Link, Live, Owed};
use super::process::{self, Group, Said};
use super::tools::{Catalog, Listener, follow};
use super::{MAX_PAGES, Plan, Way, classify, http};

/// How long a server that was told to end may take, before it is told again, and then killed.
const GRACE: Duration = Duration::from_secs(1);

/// An open connection. Dropped, it takes the server's process with it.
#[derive(Debug)]
pub(super) struct Connection {
    live: Arc<Live>,
    session: Option<RunningService<RoleClient, Listener>>,
    /// The server says that it has other tools.
    changed: Arc<Notify>,
    child: Option<Child>,
    group: Option<Arc<Group>>,
    over: Arc<Over>,
    keeper: Option<JoinHandle<()>>,
}

/// The word that a connection is to end, and that it has ended.
#[derive(Debug)]
struct Over {
    asked: Notify,
    ended: watch::Sender<bool>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(group) = &self.group {
            group.kill();
        }
        if let Some(keeper) = &self.keeper {
            keeper.abort();
        }
    }
}

impl Connection {
    /// Starts the server or reaches it, initializes the session, lists the tools; within the plan's
    /// time, since whoever looks which tools there are has no other limit.
    pub(super) async fn open(plan: &Plan) -> Result<Self, Fault> {
        let mut said = Said::default();
        match timeout(plan.start_timeout, Self::reach(plan, &mut said)).await {
            Ok(opened) => opened,
            // Its process has ended with what was dropped, so that it has no more to say.
            Err(_) => {
                let text = format!("the server did not answer within {:?}", plan.start_timeout);
                Err(Fault::timeout(format!("{text}{}", said.tail().await)).with_code("no_session"))
            }
        }
    }

    async fn reach(plan: &Plan, said: &mut Said) -> Result<Self, Fault> {
        let mut client = Listener::default();
        client.config.client_info = Implementation::new("mainstay", env!("CARGO_PKG_VERSION"));
        let changed = Arc::clone(&client.changed);
        let owed = Owed::default();
        let (session, child, group) = match &plan.way {
            Way::Url(url) => {
                let transport = http::transport(plan, url, owed.clone())?;
                (client.serve(transport).await, None, None)
            }
            Way::Command { .. } => {
                let process = process::start(plan)?;
                *said = process.said;
                let longest = plan.longest();
                let stdout = Bounded::new(process.stdout, longest);
                let transport = AsyncRwTransport::new_client(stdout, process.stdin)
                    .with_max_line_length(longest);
                let session = client.serve(transport).await;
                (session, Some(process.child), Some(process.group))
            }
        };
        let owed = matches!(plan.way, Way::Url(_)).then_some(owed);
        let session = match session {
            Ok(session) => session,
            Err(error) => {
                // Ended first, so that it has no more to say.
                if let Some(group) = &group {
                    group.kill();
                }
                return Err(refused(error, std::mem::take(said)).await);
            }
        };
        let tools = listed(session.peer()).await?;
        let live = Live {
            peer: session.peer().clone(),
            catalog: RwLock::new(Arc::new(Catalog::new(tools))),
            secrets: plan.secrets(),
            doubt: Notify::new(),
            useless: Notify::new(),
            owed,
        };
        Ok(Self {
            live: Arc::new(live),
            session: Some(session),
            changed,
            child,
            group,
            over: Arc::new(Over { asked: Notify::new(), ended: watch::Sender::new(false) }),
            keeper: None,
        })
    }

    pub(super) fn catalog(&self) -> Arc<Catalog> {
        self.live.catalog()
    }

    /// Whether the server has every tool that was declared. One that was only found may be gone: nobody may
    /// need it.
    pub(super) fn check(&self, plan: &Plan) -> Result<(), Fault> {
        let catalog = self.live.catalog();
        let missing: Vec<_> = plan
            .effects
            .keys()
            .filter(|name| !plan.found_only.contains(*name) && catalog.own_name(name).is_none())
            .map(String::as_str)
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let mut there: Vec<_> = catalog.tools.iter().map(|tool| &*tool.name).collect();
        there.sort_unstable();
        Err(Fault::input_validation(format!(
            "the server has no tool \"{}\"; it has: {}",
            missing.join("\", \""),
            there.join(", ")
        ))
        .with_code("unknown_tool"))
    }

    /// Whether a connection that nobody watches has not ended.
    pub(super) fn is_up(&self) -> bool {
        self.session.as_ref().is_some_and(|session| !session.is_closed())
            && !self.live.peer.is_transport_closed()
    }

    /// Opens the link to the tools, and from now on tells the lifeline when the server is gone.
    pub(super) fn watch(&mut self, link: &Link, lifeline: Lifeline, plan: &Plan) {
        let (ping, patience) = (plan.ping_timeout, plan.start_timeout);
        let Some(session) = self.session.take() else { return };
        let (live, child, group) = (Arc::clone(&self.live), self.child.take(), self.group.clone());
        let (link, over) = (link.clone(), Arc::clone(&self.over));
        let changed = Arc::clone(&self.changed);
        link.up(&live);
        self.keeper = Some(tokio::spawn(async move {
            // Also when this task is aborted.
            let _closed = Closed { link, live: Arc::clone(&live) };
            let class = tokio::select! {
                class = keep(session, child, &live, &over, ping) => class,
                never = follow(&live, &changed, patience) => match never {},
            };
            // Whatever the server has started goes with it.
            if let Some(group) = group {
                group.kill();
            }
            drop(_closed);
            over.ended.send_replace(true);
            if let Some(class) = class {
                lifeline.end(class);
            }
        }));
    }

    /// Ends the connection in order: the server is told, given a moment, asked, given a moment, and
    /// killed when it still lives.
    pub(super) async fn hang_up(&self) {
        self.over.asked.notify_one();
        let mut ended = self.over.ended.subscribe();
        for asked in [true, false] {
            if timeout(GRACE, ended.wait_for(|ended| *ended)).await.is_ok() {
                return;
            }
            if let Some(group) = &self.group
                && asked
            {
                group.ask();
            }
        }
    }

    /// Ends a connection that nobody watches.
    pub(super) async fn close(mut self) {
        if let Some(mut session) = self.session.take() {
            let _ = session.close_with_timeout(GRACE).await;
        }
        if let Some(child) = &mut self.child {
            let _ = timeout(GRACE, child.wait()).await;
        }
    }
}

/// All tools of a server, page by page: a list that has no end is no list.
pub(super) async fn listed(peer: &Peer<RoleClient>) -> Result<Vec<Tool>, Fault> {
    let (mut tools, mut cursor) = (Vec::new(), None);
    for _ in 0..MAX_PAGES {
        let params = PaginatedRequestParams::default().with_cursor(cursor.clone());
        let page = match peer.list_tools(Some(params)).await {
            Ok(page) => page,
            // A server may have other things than tools.
            Err(ServiceError::McpError(error)) if error.code.0 == -32601 => return Ok(tools),
            Err(error) => {
                let why = match error {
                    ServiceError::UnexpectedResponse => unreadable(peer, cursor).await,
                    _ => None,
                };
                let (fault, _) = classify::error("", false, error, SystemTime::now());
                let why = why.unwrap_or_else(|| fault.message.to_string());
                let text = format!("the list of tools: {why}");
                return Err(Fault { message: text.into(), ..fault });
            }
        };
        tools.extend(page.tools);
        // Some servers write the empty text for none.
        let next = page.next_cursor.filter(|next| !next.is_empty());
        if next.is_some() && next == cursor {
            tracing::warn!(
                target: "mainstay",
                "the server's list of tools goes on where it was; it is taken as whole"
            );
            return Ok(tools);
        }
        cursor = next;
        if cursor.is_none() {
            return Ok(tools);
        }
    }
    let text = format!("the server's list of tools has more than {MAX_PAGES} pages");
    Err(Fault::output_invalid(text).with_code("too_many_pages"))
}

/// What of a page cannot be read: the transport does not say it, so the page is asked for once more.
async fn unreadable(peer: &Peer<RoleClient>, cursor: Option<String>) -> Option<String> {
    /// Of a name, so much is said, in characters.
    const LONGEST: usize = 100;
    let request = ListToolsRequest {
        params: Some(PaginatedRequestParams::default().with_cursor(cursor)),
        ..Default::default()
    };
    let page = peer.send_request(ClientRequest::ListToolsRequest(request)).await.ok()?;
    let ServerResult::CustomResult(page) = page else { return None };
    let Some(tools) = page.0["tools"].as_array() else {
        return Some("there is no list `tools` in the answer".to_owned());
    };
    tools.iter().enumerate().find_map(|(index, tool)| {
        let error = Tool::deserialize(tool).err()?;
        let name = tool["name"].as_str().map(|name| name.chars().take(LONGEST).collect());
        let name = name.map_or_else(
            || format!("the tool in place {}", index + 1),
            |name: String| format!("the tool {name:?}"),
        );
        Some(format!("{name} cannot be read: {error}"))
    })
}

struct Closed {
    link: Link,
    live: Arc<Live>,
}

impl Drop for Closed {
    fn drop(&mut self) {
        self.link.down(&self.live);
    }
}

/// Watches a session until it is over; says why, unless it was asked to end.
async fn keep(
    session: RunningService<RoleClient, Listener>,
    mut child: Option<Child>,
    live: &Live,
    over: &Over,
    ping: Duration,
) -> Option<Class> {
    let token = session.cancellation_token();
    let mut closed = Box::pin(session.waiting());
    let gone = async {
        tokio::select! {
            _ = &mut closed => Class::Network,
            () = exited(&mut child) => Class::Network,
            () = silent(live, ping) => Class::Timeout,
            () = live.useless.notified() => Class::ModelUnavailable,
        }
    };
    tokio::select! {
        class = gone => return Some(class),
        () = over.asked.notified() => {}
    }
    // The word of a call that is off is a request of its own, and the end of a connection says nothing.
    if let Some(owed) = &live.owed {
        tokio::select! {
            _ = &mut closed => return None,
            _ = timeout(GRACE, owed.all_paid()) => {}
        }
    }
    token.cancel();
    let _ = closed.await;
    if child.is_some() {
        exited(&mut child).await;
    }
    None
}

/// Returns when the process has ended; never when there is none.
async fn exited(child: &mut Option<Child>) {
    match child {
        Some(child) => {
            let _ = child.wait().await;
        }
        None => std::future::pending().await,
    }
}

/// Returns when there was doubt, and the server gave no sign of life.
async fn silent(live: &Live, ping: Duration) {
    loop {
        live.doubt.notified().await;
        match timeout(ping, ask(&live.peer)).await {
            // Whatever it says, it lives.
            Ok(Ok(()) | Err(ServiceError::McpError(_))) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

async fn ask(peer: &Peer<RoleClient>) -> Result<(), ServiceError> {
    peer.send_request(ClientRequest::PingRequest(PingRequest::default())).await.map(drop)
}

/// Why a session could not be made.
async fn refused(error: ClientInitializeError, said: Said) -> Fault {
    let (fault, text) = match error {
        ClientInitializeError::TransportError { error, context } => {
            let error = ServiceError::TransportSend(error);
            let (fault, _) = classify::error("", false, error, SystemTime::now());
            let text = format!("{}, when {context}", fault.message);
            (fault, text)
        }
        ClientInitializeError::ConnectionClosed(why) => {
            (Fault::network(""), format!("the connection ended at once: {why}"))
        }
        ClientInitializeError::JsonRpcError(error) => {
            let error = ServiceError::McpError(error);
            let (fault, _) = classify::error("", false, error, SystemTime::now());
            let text = format!("the server refused the session: {}", fault.message);
            (fault, text)
        }
        other => {
            let fault = Fault::model_unavailable("").with_code("no_session");
            (fault, format!("no session: {other}"))
        }
    };
    Fault { message: format!("{text}{}", said.tail().await).into(), ..fault }
}
