//! Servers of the Model Context Protocol as supervised children: [`McpServer`] keeps a connection,
//! [`McpTool`] is one of its tools.
//!
//! A connection is a life. Its start starts the server (or reaches it), initializes the session and
//! lists the tools; when the server dies, or no longer answers, the life ends and its supervisor
//! starts the next. The tools are children of their own beside it, since each has its own kind of
//! effect: a read is tried again after a death in the middle, a payment is not.
//!
//! ```
//! use mainstay::fault::EffectKind;
//! use mainstay::spec::SupervisorSpec;
//! use mainstay_actors::agent::Agent;
//! use mainstay_actors::chat::ToolSpec;
//! use mainstay_actors::local::LocalModel;
//! use mainstay_actors::mcp::McpServer;
//!
//! let files = McpServer::command("mcp-server-filesystem", ["data"])
//!     .tool("read_file", EffectKind::Read)
//!     .tool("write_file", EffectKind::Idempotent);
//! let agent = Agent::new("llm").tool(ToolSpec::new("read_file"), "files/read_file");
//! let desk = SupervisorSpec::one_for_one("desk")
//!     .child(LocalModel::default().spec("llm"))
//!     .supervisor(files.supervisor("files"))
//!     .child(agent.spec("agent"));
//! # drop(desk);
//! ```
//!
//! # Faults
//!
//! | What happens | Class, code | An act |
//! |---|---|---|
//! | arguments that are no JSON object | `InputValidation`, `bad_arguments`; the server is not asked | not done |
//! | a tool that was declared or [discovered](McpServer::discover), and is not there any more | `InputValidation`, `unknown_tool`; the server is not asked | not done |
//! | no connection in time | `ModelUnavailable`, `server_down`; the server was not asked | not done |
//! | the request could not be written, the HTTP connection was refused, the session is forgotten | `Network` | not done |
//! | the connection, or over HTTP the answer to the call, ended before the result came | `Indeterminate`, `connection_lost` | unknown |
//! | a gateway says that the server behind it is gone (`Connection closed`, alone or with -32000) | `Indeterminate`, `connection_lost`; the connection is made anew | unknown |
//! | no result within the call's time | `Timeout`; the server is told that the call is off, and is asked for a sign of life | unknown |
//! | time ran out behind the server: -32001, 408, or said by a gateway in a result | `Timeout`, the code or `behind_gateway` | unknown |
//! | the words of the official libraries that there is no such tool, or that the arguments do not fit its schema | `InputValidation`, the code, `unknown_tool` or `bad_arguments` | not done if the server is trusted, or it is an error -32601 or -32602 that names the tool; else failed |
//! | their words that the result does not fit its schema, whatever the code; a result that does not fit the `outputSchema` that the tool has declared, or has no `structuredContent` where it has declared one | `OutputInvalid`, `output_invalid` | unknown: the tool has run |
//! | -32700, -32600, -32602 | `InputValidation`, the code | failed |
//! | -32601, -32002 (what is asked for is not there) | `Exhausted`, the code: never asked again, but an alternative tool is, for a read; not `InputValidation`, which no alternative may answer | failed; of a trusted server not done when it is no method |
//! | -32603 | `ToolExecution`, the code | failed |
//! | -32020, -32021, -32022 | `ModelUnavailable`, the code; the connection is made anew | failed |
//! | any other code | `Unknown`, the code | failed |
//! | a result with `isError` | `Business`, `tool_error`: for the model to read, not for a retry; `ToolExecution` when [`McpServer::errors_are_transient`]; `InputValidation`, `unknown_tool` of a tool that the server has not listed | failed |
//! | a result that asks for a person's input | `Business`, `input_required` | failed |
//! | HTTP 401, 403; 429 | `Permission`; `RateLimit` | not done |
//! | HTTP 408, 504; 503; other 5xx, also beside an error in JSON of a code that says nothing of the call (-32603, -32000), whose `Retry-After` is then not known | `Timeout`; `Overloaded`; `ServerTransient` | unknown |
//! | HTTP 404, 405, 406, 411, 414, 415, 426, 431 | `InputValidation` | not done |
//! | other 4xx | `InputValidation` | failed |
//! | an answer of another kind, or over HTTP a body that cannot be read, as a batch that comes alone and not in an event | `OutputInvalid`, `unexpected_answer` | unknown |
//! | an answer over stdio, or an event over HTTP, that is not UTF-8, no JSON, or none that can be read (half a letter as `\ud83d`, a nesting deeper than 128) | `OutputInvalid`, `unreadable` | unknown |
//! | a result longer than [`McpServer::max_result_bytes`] | `OutputInvalid`, `result_too_large`: names the tool, the size and the limit | unknown |
//!
//! The last column is about tools that do something to the world. *Not done*: it is certain, and the call may be
//! made again. *Failed*: the server says so, and may have done a part; the call is not made again, by a retry, a
//! stand-in or a rollback, the caller is told, and a transaction undoes it. *Unknown*: nobody knows; neither is it
//! made again, the caller is told that it is not known, and a transaction undoes it. What may be repeated
//! ([`EffectKind::Read`], [`EffectKind::Idempotent`]) is retried as its class says, whatever stands there. A failure of
//! what only reads says that nothing was done. That a refusal ("invalid arguments") in a result counts as failed is a
//! decision: a tool that has acted and then asked another server hands on the same words. So an irreversible call that
//! was only refused is told as possibly done when its task fails, and a compensable one is undone, unless the server is
//! [trusted](McpServer::trusted).
//!
//! A server that says that its tools have changed (`notifications/tools/list_changed`) is asked for them anew, at most
//! once a second: a tool that has gone is refused as above until it is there again, and results are held against the
//! schema of now. A new tool is called by nobody: agents were made with those there were, and what a tool does to the
//! world is declared, not found out. The life goes on; the next one does not begin without a tool that was declared.
//!
//! Whoever has asked may call it off, and nobody else: a server's `notifications/cancelled` is about what it has asked itself,
//! and a call goes on to its result or to the end of its time.
//!
//! Over HTTP a request of its own tells that a call is off; a connection that ends in order is kept for it for up to a second.
//! An act that was in flight to the end of the time it had to finish may end with its connection, and without that word.
//!
//! What a server says is logged by the library below (`tracing`, target `rmcp`, from `info` on) before `[key]` stands in it
//! for secrets: keep no logs of that target where a server may quote what it was given.
//!
//! *Invariant.* What a server says about itself is believed only of a server marked trusted. A tool
//! whose effect nobody declared is irreversible.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mainstay::behavior::{Behavior, Context, StartContext, Stateless};
use mainstay::fault::{EffectKind, ExitCause, Fault};
use mainstay::spec::{ChildSpec, Kind, SupervisorSpec};
use reqwest::Url;

use crate::chat::ToolSpec;
use crate::names;
use crate::secrets::{Secrets, is_name_of_secret};
use crate::tool::{CONCURRENCY, ToolReply, ToolRequest, seen_by};
pub use classify::IDEMPOTENCY_KEY;
use connect::Connection;
use link::Link;

mod batch;
mod bounded;
mod classify;
mod connect;
mod events;
mod headers;
mod http;
mod link;
mod process;
mod tools;

/// How long a server may take for one call, by default.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a call waits for a connection that is down, by default.
pub const CONNECT_WAIT: Duration = Duration::from_secs(9);
/// How long a doubtful server may take for a sign of life, by default.
pub const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a server may take to start and to say which tools it has, by default.
pub const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How many pages a server's list of tools may have; more fail its start with `too_many_pages`.
pub const MAX_PAGES: usize = 256;
/// The longest result of a tool, in bytes, by default.
pub const MAX_RESULT: usize = 4 * 1024 * 1024;
/// The id of the connection below [`McpServer::supervisor`].
pub const CONNECTION: &str = "connection";

/// The waits of the runtime are a little longer than ours, so that ours say what happened.
const MARGIN: Duration = Duration::from_secs(1);

/// Where the server is.
#[derive(Clone, Debug)]
enum Way {
    Command { program: String, arguments: Vec<String> },
    Url(String),
}

#[derive(Clone)]
struct Plan {
    way: Way,
    env: Vec<(String, Setting)>,
    /// The variables that are secrets whatever they are called.
    secret: BTreeSet<String>,
    dir: Option<std::path::PathBuf>,
    bearer: Option<Setting>,
    headers: Vec<(String, Setting)>,
    effects: BTreeMap<String, EffectKind>,
    /// Those that were found and not declared: the server may be without one later.
    found_only: BTreeSet<String>,
    offered: BTreeMap<String, FoundTool>,
    trusted: bool,
    transient: bool,
    call_timeout: Duration,
    connect_wait: Duration,
    ping_timeout: Duration,
    start_timeout: Duration,
    max_result: usize,
}

/// A value, or where it is read at each start. Never shown.
#[derive(Clone)]
enum Setting {
    Given(Arc<str>),
    Env(String),
}

impl Setting {
    fn read(&self) -> Result<Arc<str>, Fault> {
        match self {
            Self::Given(value) => Ok(Arc::clone(value)),
            Self::Env(variable) => match std::env::var(variable) {
                Ok(value) if !value.is_empty() => Ok(value.into()),
                _ => Err(Fault::permission(format!("environment variable {variable} is not set"))
                    .with_code("no_variable")),
            },
        }
    }
}

/// A tool as a server describes it, with the kind of effect it is taken for.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct FoundTool {
    /// What a model is told about it, in the server's words.
    pub spec: ToolSpec,
    /// What one call does to the world: as declared; else as a trusted server says; else
    /// irreversible.
    pub effect: EffectKind,
}

/// A server, how it is reached, and what its tools do. Clones share the connection.
///
/// Environment variables are not handed to a server's process, but for those that every program
/// needs (such as `PATH`) and those named with [`McpServer::env`] and [`McpServer::env_from`].
#[derive(Clone)]
pub struct McpServer {
    plan: Arc<Plan>,
    link: Link,
}

impl McpServer {
    fn new(way: Way) -> Self {
        let plan = Plan {
            way,
            env: Vec::new(),
            secret: BTreeSet::new(),
            dir: None,
            bearer: None,
            headers: Vec::new(),
            effects: BTreeMap::new(),
            found_only: BTreeSet::new(),
            offered: BTreeMap::new(),
            trusted: false,
            transient: false,
            call_timeout: CALL_TIMEOUT,
            connect_wait: CONNECT_WAIT,
            ping_timeout: PING_TIMEOUT,
            start_timeout: START_TIMEOUT,
            max_result: MAX_RESULT,
        };
        Self { plan: Arc::new(plan), link: Link::default() }
    }

    /// A server that is started as a process of ours and spoken to over its standard input and
    /// output. It ends, with all processes of its group, when its life does.
    pub fn command(
        program: impl Into<String>,
        arguments: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let arguments = arguments.into_iter().map(Into::into).collect();
        Self::new(Way::Command { program: program.into(), arguments })
    }

    /// A server at this URL, spoken to over streamable HTTP.
    pub fn url(url: impl Into<String>) -> Self {
        Self::new(Way::Url(url.into()))
    }

    fn with(mut self, change: impl FnOnce(&mut Plan)) -> Self {
        change(Arc::make_mut(&mut self.plan));
        self
    }

    /// Declares a tool and what one call of it does to the world. The server must have it: a start
    /// fails with its name otherwise. It may be named as [`tool_id`](McpServer::tool_id) has it, unless
    /// two tools of the server would have that name.
    #[must_use]
    pub fn tool(self, name: impl Into<String>, effect: EffectKind) -> Self {
        self.with(|plan| {
            let name = name.into();
            plan.found_only.remove(&name);
            plan.effects.insert(name, effect);
        })
    }

    /// Sets an environment variable of the server's process. One whose name says that it is a secret (`KEY`,
    /// `TOKEN`, `SECRET`, `PASS`, `CREDENTIAL`, `AUTH` and the like) is said nowhere: `[key]` stands for it in
    /// the server's errors and results. So does it for one that [`McpServer::secret`] names. It does so however the
    /// server spells it (in larger or smaller letters, or as JSON quotes it), in an error also for a part of it. In a
    /// result, which would be another one without it, it stays if it has less than 8 bytes, or less than 16 and is made
    /// of words (`not-needed`) or of less than five different characters (`00000000`). A path or an address that is made
    /// of words is no secret because of its name; the password in one is.
    #[must_use]
    pub fn env(self, name: impl Into<String>, value: impl Into<Arc<str>>) -> Self {
        self.with(|plan| plan.env.push((name.into(), Setting::Given(value.into()))))
    }

    /// Hands this variable of our own environment to the server's process, read at each start. One
    /// that is not set fails the start, naming it. Whether it is a secret, its name says as for
    /// [`McpServer::env`].
    #[must_use]
    pub fn env_from(self, name: impl Into<String>) -> Self {
        let name = name.into();
        self.with(|plan| plan.env.push((name.clone(), Setting::Env(name))))
    }

    /// Takes this environment variable of the server's process for a secret, whatever its name and its value say.
    #[must_use]
    pub fn secret(self, name: impl Into<String>) -> Self {
        self.with(|plan| _ = plan.secret.insert(name.into()))
    }

    /// The folder the server's process runs in.
    ///
    /// # Default
    /// Ours.
    #[must_use]
    pub fn dir(self, dir: impl Into<std::path::PathBuf>) -> Self {
        self.with(|plan| plan.dir = Some(dir.into()))
    }

    /// Sends this bearer token with every request over HTTP.
    #[must_use]
    pub fn bearer(self, token: impl Into<Arc<str>>) -> Self {
        self.with(|plan| plan.bearer = Some(Setting::Given(token.into())))
    }

    /// Sends the bearer token in this environment variable, read at each start. One that is not set
    /// fails the start, naming it; so does one that no header can have (`InputValidation`, `bad_header`).
    #[must_use]
    pub fn bearer_env(self, variable: impl Into<String>) -> Self {
        self.with(|plan| plan.bearer = Some(Setting::Env(variable.into())))
    }

    /// Believes what the server says about its tools' effects (`readOnlyHint`, `idempotentHint`), for
    /// tools that are not declared; and of a call that it has refused it before the tool was run, also where a tool that
    /// has acted could have said it (the table of the [module](self)).
    ///
    /// # Default
    /// It is not believed.
    #[must_use]
    pub fn trusted(self) -> Self {
        self.with(|plan| plan.trusted = true)
    }

    /// Takes a result with `isError` for a passing failure that is worth a retry.
    ///
    /// # Default
    /// It is something for the model to read: `Business`, no retry.
    #[must_use]
    pub fn errors_are_transient(self) -> Self {
        self.with(|plan| plan.transient = true)
    }

    /// How long the server may take for one call.
    ///
    /// # Default
    /// [`CALL_TIMEOUT`].
    #[must_use]
    pub fn call_timeout(self, timeout: Duration) -> Self {
        self.with(|plan| plan.call_timeout = timeout)
    }

    /// How long a call waits for a connection that is down.
    ///
    /// # Default
    /// [`CONNECT_WAIT`].
    #[must_use]
    pub fn connect_wait(self, wait: Duration) -> Self {
        self.with(|plan| plan.connect_wait = wait)
    }

    /// How long the server may take for a sign of life, once a call has run out of time or was called
    /// off. One that stays silent is killed and started again.
    ///
    /// # Default
    /// [`PING_TIMEOUT`].
    #[must_use]
    pub fn ping_timeout(self, timeout: Duration) -> Self {
        self.with(|plan| plan.ping_timeout = timeout)
    }

    /// How long the server may take to start, to make the session and to list all its tools; also for
    /// [`McpServer::discover`]. One that takes longer is ended, and the fault is a `Timeout` with the
    /// code `no_session`.
    ///
    /// # Default
    /// [`START_TIMEOUT`].
    #[must_use]
    pub fn start_timeout(self, timeout: Duration) -> Self {
        self.with(|plan| plan.start_timeout = timeout)
    }

    /// The longest result of a tool, in bytes of what the caller is given; for an error of a tool, of its
    /// text. A longer one is a fault that names the tool, the size and this limit.
    ///
    /// The message a result comes in may say it twice and escaped, so of one message up to four times
    /// as many bytes are read, and at least 1 MiB; the rest is dropped as it comes. Over HTTP the size of
    /// what was not read whole is not known.
    ///
    /// # Default
    /// [`MAX_RESULT`].
    #[must_use]
    pub fn max_result_bytes(self, bytes: usize) -> Self {
        self.with(|plan| plan.max_result = bytes)
    }

    /// Offers these tools, as found by [`McpServer::discover`], with the kinds of effect they state.
    #[must_use]
    pub fn offer(self, found: impl IntoIterator<Item = FoundTool>) -> Self {
        self.with(|plan| {
            for tool in found {
                if !plan.effects.contains_key(&tool.spec.name) {
                    plan.found_only.insert(tool.spec.name.clone());
                    plan.effects.insert(tool.spec.name.clone(), tool.effect);
                }
                plan.offered.insert(tool.spec.name.clone(), tool);
            }
        })
    }

    /// Connects once, lists the server's tools, and ends the connection.
    ///
    /// # Errors
    /// As the start of a life.
    pub async fn discover(&self) -> Result<Vec<FoundTool>, Fault> {
        let connection = Connection::open(&self.plan).await.map_err(|it| self.plan.hide(it))?;
        let found = self.plan.found(&connection.catalog().tools);
        connection.close().await;
        Ok(found)
    }

    /// As [`McpServer::discover`], but the connection stays, so that the server starts once: the first life of
    /// [`McpServer::connection`], of this one or of a clone, takes it, if its server is still there. Without a life it
    /// ends with the last clone.
    ///
    /// # Errors
    /// As the start of a life.
    pub async fn discover_and_keep(&self) -> Result<Vec<FoundTool>, Fault> {
        let connection = Connection::open(&self.plan).await.map_err(|it| self.plan.hide(it))?;
        let found = self.plan.found(&connection.catalog().tools);
        self.link.keep(connection);
        Ok(found)
    }

    /// The tools that are declared or offered: what a model is told about each. One that is only
    /// declared has a name and nothing else.
    pub fn tools(&self) -> Vec<ToolSpec> {
        let spec = |name: &String| {
            let found = self.plan.offered.get(name).map(|found| found.spec.clone());
            found.unwrap_or_else(|| ToolSpec::new(name.clone()))
        };
        self.plan.effects.keys().map(spec).collect()
    }

    /// One tool as a behavior: [`McpTool::spec`] makes a child or a member of a group of it. Its kind
    /// of effect is the one declared; undeclared is irreversible. The connection must stand in the
    /// same system.
    pub fn tool_named(&self, name: impl Into<String>) -> McpTool {
        let name = name.into();
        let effect = self.plan.effects.get(&name).copied().unwrap_or_default();
        McpTool { name: name.into(), effect, plan: Arc::clone(&self.plan), link: self.link.clone() }
    }

    /// The connection as a child: it answers [`ListTools`]. Its start takes at most the
    /// [start timeout](McpServer::start_timeout), whatever the policy says.
    pub fn connection(&self, id: impl AsRef<str>) -> ChildSpec {
        let server = self.clone();
        let whole = self.plan.start_timeout.saturating_add(MARGIN);
        ChildSpec::stateless(id, move || McpConnection { server: server.clone(), open: None })
            .concurrency(CONCURRENCY)
            .attempt_timeout(whole)
    }

    /// The connection and every tool declared or offered, below a supervisor of this id. The tools
    /// are found at `{id}/{name}`, the name as [`tool_id`](McpServer::tool_id) has it.
    ///
    /// A server that dies is started again after 200 ms, doubling to 10 s; one that dies more than 10
    /// times a minute is set aside.
    pub fn supervisor(&self, id: impl AsRef<str>) -> SupervisorSpec {
        let minute = Duration::from_secs(60);
        let supervisor = SupervisorSpec::one_for_one(id)
            .intensity(20, minute)
            .child_limit(10, minute)
            .restart_backoff(Duration::from_millis(200), Duration::from_secs(10))
            .child(self.connection(CONNECTION));
        self.plan.effects.keys().fold(supervisor, |supervisor, name| {
            supervisor.child(self.tool_named(name.clone()).spec(Self::tool_id(name)))
        })
    }

    /// The id of the child that a tool of this name is: its name, or where that can be no id (it has a slash
    /// or a control character, is empty, or is [`CONNECTION`]), another one, by which it is also offered.
    pub fn tool_id(name: &str) -> Cow<'_, str> {
        match name {
            // The life beside the tools has it.
            CONNECTION => names::marked(name).into(),
            _ if names::can_be_an_id(name) => name.into(),
            _ => names::alias(name),
        }
    }
}

impl fmt::Debug for McpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Arguments, variables and URLs may hold keys.
        f.debug_struct("McpServer")
            .field("tools", &self.plan.effects)
            .field("call_timeout", &self.plan.call_timeout)
            .field("ping_timeout", &self.plan.ping_timeout)
            .finish_non_exhaustive()
    }
}

impl Plan {
    /// The longest message that is read.
    fn longest(&self) -> usize {
        self.max_result.saturating_mul(4).max(1024 * 1024)
    }

    /// What the server was given in confidence: it may quote it.
    fn secrets(&self) -> Secrets {
        let mut secrets = match &self.way {
            Way::Url(address) => Url::parse(address)
                .map_or_else(|_| Secrets::default(), |url| Secrets::new(None, &url)),
            Way::Command { arguments, .. } => Secrets::of_arguments(arguments),
        };
        for (name, setting) in &self.env {
            let Ok(value) = setting.read() else { continue };
            let value = value.trim();
            if self.secret.contains(name) {
                secrets.add(value);
            } else if is_name_of_secret(name) {
                secrets.add_named(name, value);
            }
            // Whatever it is called, and whether all of it is a secret: whoever uses it may quote the password alone.
            Url::parse(value).iter().for_each(|url| secrets.add_login(url));
        }
        if let Some(Ok(bearer)) = self.bearer.as_ref().map(Setting::read) {
            secrets.add(bearer.trim());
        }
        headers::hide(self, &mut secrets);
        secrets
    }

    /// The fault without it.
    fn hide(&self, fault: Fault) -> Fault {
        self.secrets().hide(fault)
    }

    fn found(&self, tools: &[rmcp::model::Tool]) -> Vec<FoundTool> {
        let secrets = self.secrets();
        let found = |tool: &rmcp::model::Tool| {
            let mut spec = classify::tool_spec(tool);
            secrets.clean(&mut spec.description);
            secrets.clean_json(&mut spec.parameters);
            let effect = self.declared(tool, tools).or_else(|| self.hinted(tool));
            FoundTool { spec, effect: effect.unwrap_or_default() }
        };
        tools.iter().map(found).collect()
    }

    /// What is declared of one of these tools, under its name or under its id.
    fn declared(
        &self,
        tool: &rmcp::model::Tool,
        tools: &[rmcp::model::Tool],
    ) -> Option<EffectKind> {
        let by_id = || {
            let id = McpServer::tool_id(&tool.name);
            let kind = self.effects.get(&*id)?;
            (tools::own_name(tools, &id) == Some(&tool.name)).then_some(kind)
        };
        self.effects.get(&*tool.name).or_else(by_id).copied()
    }

    fn hinted(&self, tool: &rmcp::model::Tool) -> Option<EffectKind> {
        let hints = tool.annotations.as_ref().filter(|_| self.trusted)?;
        // `idempotentHint` is about the same arguments, so the same request may come twice.
        match (hints.read_only_hint, hints.idempotent_hint) {
            (Some(true), _) => Some(EffectKind::Read),
            (_, Some(true)) => Some(EffectKind::Idempotent),
            _ => None,
        }
    }
}

/// Asks a connection for its server's tools.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListTools;

/// A connection to a server as a behavior; made with [`McpServer::connection`].
pub struct McpConnection {
    server: McpServer,
    open: Option<Connection>,
}

impl fmt::Debug for McpConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("McpConnection").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Behavior for McpConnection {
    type Request = ListTools;
    type Reply = Vec<FoundTool>;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
}

impl Stateless for McpConnection {
    async fn start(&mut self, ctx: &StartContext) -> Result<(), Fault> {
        let plan = &self.server.plan;
        let mut connection = match self.server.link.kept() {
            Some(connection) => connection,
            None => Connection::open(plan).await.map_err(|fault| plan.hide(fault))?,
        };
        connection.check(plan)?;
        connection.watch(&self.server.link, ctx.lifeline.clone(), plan);
        self.open = Some(connection);
        Ok(())
    }

    async fn serve(&self, _: &ListTools, _: &Context) -> Result<Vec<FoundTool>, Fault> {
        let open = self.open.as_ref().ok_or_else(|| Fault::internal("not connected"))?;
        Ok(self.server.plan.found(&open.catalog().tools))
    }

    async fn stop(&self, _: &ExitCause) {
        if let Some(open) = &self.open {
            open.hang_up().await;
        }
    }
}

/// A tool of a server as a behavior; made with [`McpServer::tool_named`]. Its faults are in the table
/// of the [module](self).
///
/// The name it is called by does not matter, so it can stand in for a tool of another name; the
/// arguments do.
#[derive(Clone)]
pub struct McpTool {
    name: Arc<str>,
    effect: EffectKind,
    plan: Arc<Plan>,
    link: Link,
}

impl McpTool {
    /// The child spec: stateless, kind `tool`, with the tool's kind of effect, recorded.
    pub fn spec(self, id: impl AsRef<str>) -> ChildSpec {
        let effect = self.effect;
        let whole = self.plan.connect_wait.saturating_add(self.plan.call_timeout);
        let whole = whole.saturating_add(MARGIN);
        ChildSpec::stateless(id, move || self.clone())
            .kind(Kind::Tool)
            .effect(effect)
            .concurrency(CONCURRENCY)
            .attempt_timeout(whole)
            // So that it can be asked to undo what another did, also by another process.
            .recorded::<Self>()
    }

    /// What one call does to the world.
    pub fn effect(&self) -> EffectKind {
        self.effect
    }
}

impl fmt::Debug for McpTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("McpTool")
            .field("name", &self.name)
            .field("effect", &self.effect)
            .finish_non_exhaustive()
    }
}

impl Behavior for McpTool {
    type Request = ToolRequest;
    type Reply = ToolReply;
}

impl Stateless for McpTool {
    async fn serve(&self, request: &ToolRequest, ctx: &Context) -> Result<ToolReply, Fault> {
        self.ask(request, ctx).await.map_err(|fault| seen_by(self.effect, fault))
    }
}

impl McpTool {
    async fn ask(&self, request: &ToolRequest, ctx: &Context) -> Result<ToolReply, Fault> {
        let arguments = classify::object(&request.arguments)?;
        let live = self.link.live(self.plan.connect_wait).await?;
        let catalog = live.catalog();
        let (name, listed) = match catalog.own_name(&self.name) {
            Some(name) => (name, true),
            None => (&*self.name, false),
        };
        // One that was declared was there when the life began.
        if !listed && self.plan.effects.contains_key(&*self.name) {
            let text = format!("the server has no tool \"{}\" any more", self.name);
            return Err(Fault::input_validation(text).with_code("unknown_tool").not_applied());
        }
        let call = classify::call(name, arguments, &ctx.key());
        let outcome = live.call(call, self.plan.call_timeout, self.plan.trusted).await;
        let reply = outcome.and_then(|outcome| {
            let asked = classify::Asked {
                name,
                listed,
                transient: self.plan.transient,
                trusted: self.plan.trusted,
                max: self.plan.max_result,
                promised: catalog.promised(name),
            };
            classify::reply(asked, outcome).inspect_err(|fault| {
                if classify::is_lost(fault) {
                    live.useless.notify_one();
                }
            })
        });
        let named = |fault| classify::name(fault, name, self.plan.max_result);
        match reply {
            Ok(mut reply) => {
                live.secrets.clean_json(&mut reply.content);
                Ok(reply)
            }
            Err(fault) => Err(self.plan.hide(named(fault))),
        }
    }
}
