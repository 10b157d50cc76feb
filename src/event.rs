//! What happened: every fault, decision, restart, circuit change and fate as a typed value, for logs,
//! metrics and tests.
//!
//! *Invariant.* No event holds user data: no request, no reply, no message of a fault, a provider or
//! a panic. Sending never blocks; a subscriber that is too slow loses the oldest and is told how many.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::broadcast;

use crate::checkpoint::Scope;
use crate::decision::Decision;
use crate::fate::{Ended, Fate};
use crate::fault::{Class, ExitKind};
use crate::id::{CheckpointId, ChildPath, Delivery, Incarnation, RequestId};
use crate::ledger::EffectKey;
use crate::moment::Moment;

/// An event with its time.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Stamped {
    /// When, on the system's clock.
    pub at: Moment,
    /// What.
    pub event: Event,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A life began.
    Started {
        /// The child.
        child: ChildPath,
        /// Which life.
        incarnation: Incarnation,
    },
    /// A life ended.
    Exited {
        /// The child.
        child: ChildPath,
        /// Which life.
        incarnation: Incarnation,
        /// Why.
        cause: ExitKind,
    },
    /// A supervisor restarts a child, and those its strategy takes along.
    Restarting {
        /// The supervisor.
        supervisor: ChildPath,
        /// The child whose exit is the reason.
        child: ChildPath,
        /// Why it exited.
        cause: ExitKind,
        /// How many children start again.
        scope: usize,
        /// Restarts within the period, this one included.
        restarts: u32,
    },
    /// A child restarted too often and was set aside.
    ChildQuarantined {
        /// The child.
        child: ChildPath,
        /// Its last cause.
        cause: ExitKind,
    },
    /// A supervisor gave up: more restarts than its intensity allows.
    Escalated {
        /// The supervisor.
        supervisor: ChildPath,
        /// The child whose exit was one too many.
        child: ChildPath,
        /// Why that child exited.
        cause: ExitKind,
        /// Restarts within the period.
        restarts: u32,
    },
    /// A supervisor ended.
    SupervisorEnded {
        /// The supervisor.
        supervisor: ChildPath,
        /// Why.
        cause: ExitKind,
    },
    /// A life that hung or was killed still occupies a thread; it was replaced.
    Zombie {
        /// The child.
        child: ChildPath,
        /// Which life.
        incarnation: Incarnation,
    },
    /// An attempt ended without an answer.
    Failed {
        /// Who made it.
        child: ChildPath,
        /// The request.
        request: RequestId,
        /// Which attempt.
        attempt: u32,
        /// Which hand-out.
        delivery: Delivery,
        /// How.
        ended: Ended,
    },
    /// What is done about it.
    Decided {
        /// Where the attempt failed.
        child: ChildPath,
        /// The request.
        request: RequestId,
        /// What, and why nothing gentler.
        decision: Decision,
        /// The sibling, for a substitute.
        to: Option<ChildPath>,
        /// The class the decision rests on; `None` for an exit.
        class: Option<Class>,
    },
    /// A request was interrupted without its fault and waits again at the front.
    Interrupted {
        /// The child.
        child: ChildPath,
        /// The request.
        request: RequestId,
    },
    /// An accepted request has its fate.
    Fated {
        /// Where it was accepted.
        child: ChildPath,
        /// The request.
        request: RequestId,
        /// How it ended.
        fate: Fate,
        /// Who served it.
        served_by: Option<ChildPath>,
        /// Attempts made.
        attempts: u32,
        /// Whether the answer is degraded.
        degraded: bool,
        /// Whether the answer is a default value.
        defaulted: bool,
        /// From acceptance.
        elapsed: Duration,
    },
    /// A life begins with the state of an earlier one.
    Restored {
        /// The child.
        child: ChildPath,
        /// Which life.
        incarnation: Incarnation,
        /// The checkpoint, if it is in the store.
        checkpoint: Option<CheckpointId>,
        /// At which step of a request it goes on; `None` between two requests.
        step: Option<u64>,
    },
    /// A snapshot could not be restored, and was set aside.
    RestoreFailed {
        /// The child.
        child: ChildPath,
        /// The checkpoint, if it is in the store.
        checkpoint: Option<CheckpointId>,
    },
    /// A child's state returned to where a request began.
    RolledBack {
        /// The child.
        child: ChildPath,
        /// The request.
        request: RequestId,
        /// The scope the child stands in.
        scope: Scope,
        /// Effects of the request that stand.
        kept: usize,
        /// Effects of the request that were undone.
        undone: usize,
        /// Effects of the request that nobody knows about, or whose undo failed.
        unknown: usize,
    },
    /// A child's state is in the store.
    Checkpointed {
        /// The child.
        child: ChildPath,
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// After how many steps of the child, over all its lives.
        step: u64,
    },
    /// A result came for a lease that is no longer current, and changed nothing.
    Stale {
        /// The child.
        child: ChildPath,
        /// The request.
        request: RequestId,
        /// The hand-out it belonged to.
        delivery: Delivery,
    },
    /// A circuit changed.
    Circuit {
        /// The member.
        child: ChildPath,
        /// Its circuit now: `closed`, `open`, `half-open`, `isolated`.
        state: &'static str,
    },
    /// A group is served by another member than before.
    Switched {
        /// The group.
        group: ChildPath,
        /// The member that served.
        from: ChildPath,
        /// The member that serves.
        to: ChildPath,
        /// Whether it is a return towards the primary.
        failback: bool,
    },
    /// A quota domain closed.
    DomainClosed {
        /// The domain.
        domain: String,
        /// Until when.
        until: Moment,
    },
    /// What is known about an effect changed, or a recorded result was served instead of asking the tool.
    Effect {
        /// The child that acts.
        child: ChildPath,
        /// The tool.
        tool: ChildPath,
        /// The effect.
        key: EffectKey,
        /// What is known now: `intended`, `confirmed`, `replayed`, `unknown`, ...
        status: &'static str,
    },
    /// The soft failures of a task have added up: a fault that would have been retried goes to the next
    /// rung instead.
    Accumulated {
        /// Where the last of them was.
        child: ChildPath,
        /// The request it was of.
        request: RequestId,
        /// How many there were, this one not included.
        failures: u32,
        /// Within this time.
        window: Duration,
    },
    /// The ladder is spent: somebody should look. Exactly one a request.
    Alert {
        /// Where the request was accepted.
        child: ChildPath,
        /// The request.
        request: RequestId,
        /// The last failure.
        ended: Ended,
        /// Attempts made.
        attempts: u32,
    },
}

impl Event {
    /// The child, group or supervisor it is about; `None` for a quota domain.
    pub fn path(&self) -> Option<&ChildPath> {
        match self {
            Self::Started { child, .. }
            | Self::Exited { child, .. }
            | Self::ChildQuarantined { child, .. }
            | Self::Zombie { child, .. }
            | Self::Failed { child, .. }
            | Self::Decided { child, .. }
            | Self::Interrupted { child, .. }
            | Self::Fated { child, .. }
            | Self::Stale { child, .. }
            | Self::Circuit { child, .. }
            | Self::Effect { child, .. }
            | Self::Restored { child, .. }
            | Self::RolledBack { child, .. }
            | Self::RestoreFailed { child, .. }
            | Self::Checkpointed { child, .. }
            | Self::Accumulated { child, .. }
            | Self::Alert { child, .. } => Some(child),
            Self::Restarting { supervisor, .. }
            | Self::Escalated { supervisor, .. }
            | Self::SupervisorEnded { supervisor, .. } => Some(supervisor),
            Self::Switched { group, .. } => Some(group),
            Self::DomainClosed { .. } => None,
        }
    }

    fn trace(&self) {
        match self {
            Self::Fated { child, request, fate, attempts, .. } => {
                tracing::debug!(target: "mainstay", %child, %request, %fate, attempts, "fated");
            }
            Self::Failed { child, request, attempt, ended, .. } => {
                tracing::info!(target: "mainstay", %child, %request, attempt, %ended, "attempt failed");
            }
            Self::Decided { child, request, decision, .. } => {
                tracing::info!(target: "mainstay", %child, %request, %decision, "decided");
            }
            Self::Accumulated { child, request, failures, window } => {
                tracing::warn!(target: "mainstay", %child, %request, failures, ?window, "soft failures add up");
            }
            Self::Alert { child, request, ended, attempts } => {
                tracing::error!(target: "mainstay", %child, %request, %ended, attempts, "all recovery strategies failed");
            }
            Self::Escalated { supervisor, child, cause, restarts } => {
                tracing::error!(target: "mainstay", %supervisor, %child, %cause, restarts, "restart intensity exceeded");
            }
            Self::Exited { child, incarnation, cause } => {
                tracing::info!(target: "mainstay", %child, %incarnation, %cause, "exited");
            }
            Self::Restarting { supervisor, child, cause, scope, restarts } => {
                tracing::warn!(target: "mainstay", %supervisor, %child, %cause, scope, restarts, "restarting");
            }
            Self::ChildQuarantined { child, cause } => {
                tracing::error!(target: "mainstay", %child, %cause, "child quarantined");
            }
            Self::Zombie { child, incarnation } => {
                tracing::warn!(target: "mainstay", %child, %incarnation, "zombie left behind");
            }
            Self::Circuit { child, state } => {
                tracing::info!(target: "mainstay", %child, state, "circuit");
            }
            Self::Switched { group, from, to, failback } => {
                tracing::info!(target: "mainstay", %group, %from, %to, failback, "switched");
            }
            Self::DomainClosed { domain, until } => {
                tracing::info!(target: "mainstay", %domain, %until, "quota domain closed");
            }
            Self::Restored { child, incarnation, checkpoint, step } => {
                tracing::info!(target: "mainstay", %child, %incarnation, ?checkpoint, ?step, "restored");
            }
            Self::RolledBack { child, request, scope, kept, undone, unknown } => {
                tracing::warn!(target: "mainstay", %child, %request, %scope, kept, undone, unknown, "rolled back");
            }
            Self::RestoreFailed { child, checkpoint } => {
                tracing::error!(target: "mainstay", %child, ?checkpoint, "restore failed");
            }
            Self::Checkpointed { child, checkpoint, step } => {
                tracing::debug!(target: "mainstay", %child, %checkpoint, step, "checkpointed");
            }
            Self::Effect { child, tool, key, status } => {
                tracing::info!(target: "mainstay", %child, %tool, %key, status, "effect");
            }
            Self::Stale { child, request, delivery } => {
                tracing::debug!(target: "mainstay", %child, %request, delivery = delivery.0, "stale result");
            }
            Self::Started { child, incarnation } => {
                tracing::debug!(target: "mainstay", %child, %incarnation, "started");
            }
            Self::Interrupted { child, request } => {
                tracing::debug!(target: "mainstay", %child, %request, "interrupted");
            }
            Self::SupervisorEnded { supervisor, cause } => {
                tracing::info!(target: "mainstay", %supervisor, %cause, "supervisor ended");
            }
        }
    }
}

/// Where events go.
#[derive(Debug)]
pub(crate) struct Events {
    sender: broadcast::Sender<Stamped>,
    // Asking the channel takes its lock; this is one load on the path of every answer.
    listeners: Arc<AtomicUsize>,
    lagged: Arc<AtomicU64>,
}

impl Events {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            sender: broadcast::Sender::new(capacity),
            listeners: Arc::default(),
            lagged: Arc::default(),
        }
    }

    /// Whether anybody would see an event of little weight.
    pub(crate) fn wanted(&self) -> bool {
        self.listeners.load(Ordering::Relaxed) > 0
            || tracing::enabled!(target: "mainstay", tracing::Level::DEBUG)
    }

    pub(crate) fn emit(&self, at: Moment, event: Event) {
        event.trace();
        if self.listeners.load(Ordering::Relaxed) > 0 {
            // An error only says that nobody listens any more.
            let _ = self.sender.send(Stamped { at, event });
        }
    }

    pub(crate) fn subscribe(&self) -> EventStream {
        self.listeners.fetch_add(1, Ordering::Relaxed);
        EventStream {
            receiver: self.sender.subscribe(),
            listeners: Arc::clone(&self.listeners),
            lagged: 0,
            total: Arc::clone(&self.lagged),
        }
    }

    pub(crate) fn lagged(&self) -> u64 {
        self.lagged.load(Ordering::Relaxed)
    }
}

/// A subscription to events, from when it was made.
#[derive(Debug)]
pub struct EventStream {
    receiver: broadcast::Receiver<Stamped>,
    listeners: Arc<AtomicUsize>,
    lagged: u64,
    total: Arc<AtomicU64>,
}

impl EventStream {
    /// The next event; `None` once the system is gone. Events that this subscriber was too slow for
    /// are skipped and counted in [`EventStream::lagged`].
    pub async fn next(&mut self) -> Option<Stamped> {
        loop {
            match self.receiver.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(missed)) => self.count(missed),
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    /// An event that is there already; `None` when there is none.
    pub fn try_next(&mut self) -> Option<Stamped> {
        loop {
            match self.receiver.try_recv() {
                Ok(event) => return Some(event),
                Err(broadcast::error::TryRecvError::Lagged(missed)) => self.count(missed),
                Err(_) => return None,
            }
        }
    }

    /// Waits for the first event that `wanted` accepts; `None` once the system is gone.
    pub async fn wait_for(&mut self, mut wanted: impl FnMut(&Event) -> bool) -> Option<Stamped> {
        loop {
            let stamped = self.next().await?;
            if wanted(&stamped.event) {
                return Some(stamped);
            }
        }
    }

    /// How many events this subscriber has missed.
    pub fn lagged(&self) -> u64 {
        self.lagged
    }

    fn count(&mut self, missed: u64) {
        self.lagged += missed;
        self.total.fetch_add(missed, Ordering::Relaxed);
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        self.listeners.fetch_sub(1, Ordering::Relaxed);
    }
}
