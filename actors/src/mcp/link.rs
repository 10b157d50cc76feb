//! What the tools of a server share with its connection: the session, when there is one.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mainstay::fault::Fault;
use parking_lot::{Mutex, RwLock};
use rmcp::model::{CallToolRequestParams, CallToolResponse};
use rmcp::service::{Peer, RoleClient};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::classify;
use super::connect::Connection;
use super::tools::Catalog;
use crate::secrets::Secrets;

/// Where the tools find the session of the life that is up.
#[derive(Clone, Debug)]
pub(super) struct Link {
    state: Arc<watch::Sender<Option<Arc<Live>>>>,
    /// A connection that was made before its life.
    spare: Arc<Mutex<Option<Connection>>>,
}

impl Default for Link {
    fn default() -> Self {
        Self { state: Arc::new(watch::Sender::new(None)), spare: Arc::default() }
    }
}

impl Link {
    /// The session; waits for one for at most `wait`.
    pub(super) async fn live(&self, wait: Duration) -> Result<Arc<Live>, Fault> {
        let mut state = self.state.subscribe();
        let up = timeout(wait, state.wait_for(Option::is_some)).await;
        // The sender is ours, so the only failure is that nobody came.
        up.ok().and_then(Result::ok).and_then(|live| live.clone()).ok_or_else(|| {
            Fault::model_unavailable(format!("the server has not been reached within {wait:?}"))
                .with_code("server_down")
                .not_applied()
        })
    }

    /// Has the next life take this connection.
    pub(super) fn keep(&self, connection: Connection) {
        *self.spare.lock() = Some(connection);
    }

    /// The connection that was kept, if its server is still there.
    pub(super) fn kept(&self) -> Option<Connection> {
        self.spare.lock().take().filter(Connection::is_up)
    }

    pub(super) fn up(&self, live: &Arc<Live>) {
        self.state.send_replace(Some(Arc::clone(live)));
    }

    /// This session is over; a later one stays.
    pub(super) fn down(&self, live: &Arc<Live>) {
        self.state.send_if_modified(|state| {
            let mine = state.as_ref().is_some_and(|there| Arc::ptr_eq(there, live));
            if mine {
                *state = None;
            }
            mine
        });
    }
}

/// A session that was made.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) peer: Peer<RoleClient>,
    /// What it has said of its tools.
    pub(super) catalog: RwLock<Arc<Catalog>>,
    /// What its server was given in confidence.
    pub(super) secrets: Secrets,
    /// Somebody has reason to doubt that the server still answers.
    pub(super) doubt: Notify,
    /// Somebody knows that this session is of no use any more.
    pub(super) useless: Notify,
}

impl Live {
    /// Makes one call of a server that is believed or not. One that is dropped or runs out of time is called off at
    /// the server.
    pub(super) async fn call(
        self: &Arc<Self>,
        call: CallToolRequestParams,
        time: Duration,
        trusted: bool,
    ) -> Result<CallToolResponse, Fault> {
        let tool = call.name.clone();
        let mut doubtful = Doubt { live: self, answered: false };
        let outcome = timeout(time, self.peer.call_tool_once(call)).await;
        let Ok(outcome) = outcome else {
            return Err(Fault::timeout(format!("no result within {time:?}")));
        };
        outcome
            .map_err(|error| {
                let (fault, verdict) = classify::error(&tool, trusted, error, SystemTime::now());
                doubtful.answered = verdict == Verdict::Answered;
                if verdict == Verdict::Useless {
                    self.useless.notify_one();
                }
                fault
            })
            .inspect(|_| doubtful.answered = true)
    }

    /// Its tools, as it has said last.
    pub(super) fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog.read())
    }

    pub(super) fn set_catalog(&self, catalog: Catalog) {
        *self.catalog.write() = Arc::new(catalog);
    }
}

/// What a failed call says about the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The server has answered.
    Answered,
    /// It may be gone.
    Doubtful,
    /// It must be made anew.
    Useless,
}

/// Raises doubt when a call ends without an answer, also when it is dropped.
struct Doubt<'a> {
    live: &'a Live,
    answered: bool,
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.live.doubt.notify_one();
        }
    }
}
