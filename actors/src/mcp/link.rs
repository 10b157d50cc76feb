//! What the tools of a server share with its connection: the session, when there is one.

use std::pin::pin;
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
    /// What its server is to be told of calls, where that takes a request of its own; over stdio it is written at once.
    pub(super) owed: Option<Owed>,
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
        let mut asked = pin!(self.peer.call_tool_once(call));
        // Dropped before the call, which has the word sent when it is dropped.
        let mut dropped = Dropped(self.owed.clone());
        let outcome = timeout(time, asked.as_mut()).await;
        if outcome.is_ok() {
            dropped.0 = None;
        }
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

/// Of how many calls that nobody waits for any more the server has not been told.
#[derive(Clone, Debug)]
pub(super) struct Owed(Arc<watch::Sender<usize>>);

impl Default for Owed {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

impl Owed {
    /// The server was told of one, or it could not be.
    pub(super) fn paid(&self) {
        self.0.send_modify(|owed| *owed = owed.saturating_sub(1));
    }

    /// Returns when the server has been told of all.
    pub(super) async fn all_paid(&self) {
        // The sender is ours.
        let _ = self.0.subscribe().wait_for(|owed| *owed == 0).await;
    }
}

/// A call under way. Dropped, it is one of which the server is to be told.
struct Dropped(Option<Owed>);

impl Drop for Dropped {
    fn drop(&mut self) {
        if let Some(Owed(owed)) = &self.0 {
            owed.send_modify(|owed| *owed += 1);
        }
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
