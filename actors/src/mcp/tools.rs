//! The tools of a server, as it has said last which it has.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use rmcp::ClientHandler;
use rmcp::model::{ClientConfig, Tool};
use rmcp::service::{NotificationContext, RoleClient};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::McpServer;
use super::connect::listed;
use super::link::Live;

/// How long a server that says again that its tools have changed is not asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// A list of them.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    pub(super) tools: Vec<Tool>,
    /// The schemas of their results, of those that have declared one.
    promised: HashMap<String, Value>,
}

impl Catalog {
    pub(super) fn new(tools: Vec<Tool>) -> Self {
        let promised = tools.iter().filter_map(|tool| {
            let schema = tool.output_schema.as_deref()?.clone();
            Some((tool.name.to_string(), Value::Object(schema)))
        });
        Self { promised: promised.collect(), tools }
    }

    /// What the tool of this name has said of its results.
    pub(super) fn promised(&self, name: &str) -> Option<&Value> {
        self.promised.get(name)
    }

    pub(super) fn own_name(&self, name: &str) -> Option<&str> {
        own_name(&self.tools, name)
    }
}

/// What a server calls the tool that has this name or this id. A name that is an id of others, too, is the
/// one's whose name it is; an id of several is nobody's.
pub(super) fn own_name<'a>(tools: &'a [Tool], name: &str) -> Option<&'a str> {
    let names = || tools.iter().map(|tool| &*tool.name);
    if let Some(own) = names().find(|own| *own == name) {
        return Some(own);
    }
    let mut fits = names().filter(|own| McpServer::tool_id(own) == name);
    let first = fits.next()?;
    fits.all(|other| other == first).then_some(first)
}

/// Hears what a server says unasked.
#[derive(Clone, Debug, Default)]
pub(super) struct Listener {
    pub(super) config: ClientConfig,
    /// Its tools have changed.
    pub(super) changed: Arc<Notify>,
}

impl ClientHandler for Listener {
    fn get_info(&self) -> ClientConfig {
        self.config.clone()
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.changed.notify_one();
    }
}

/// Asks for the tools anew whenever they have changed. A list that does not come in time, or is none, leaves the one
/// before.
pub(super) async fn follow(live: &Live, changed: &Notify, limit: Duration) -> Infallible {
    loop {
        changed.notified().await;
        match timeout(limit, listed(&live.peer)).await {
            Ok(Ok(tools)) => live.set_catalog(Catalog::new(tools)),
            Ok(Err(_)) | Err(_) => tracing::warn!(
                target: "mainstay",
                "the server says that its tools have changed, and does not say which it has; those before are taken"
            ),
        }
        sleep(PAUSE).await;
    }
}
