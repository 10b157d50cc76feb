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

use crate::checkpoint::{Digest, Scope};
use crate::decision::{Decision, Rung};
use crate::fate::{Cost, Ended, Fate};
use crate::fault::{Class, ExitKind};
use crate::id::{CheckpointId, ChildPath, Delivery, Incarnation, LineId, RequestId};
use crate::ledger::EffectKey;
use crate::moment::Moment;
use crate::policy::NoHedge;
use crate::watch;

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
        /// Restarts within the period, this one included. A start that has failed counts against nobody else for a
        /// child of a template that this life of the supervisor has not seen up, and is not in here.
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
        /// Whether a person is asked first, who may decide otherwise: [`Event::PointOpened`] comes next, and
        /// [`Event::PointClosed`] says what is done.
        asks: bool,
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
        /// What it has cost in this process, as far as the children that worked on it said so, and what was
        /// asked for before, all in all, where its answer was heard in this process.
        cost: Cost,
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
    /// A state was restored, and what the life says of itself is not what was stored: `restore` forgets something or
    /// makes it anew in another form, or the encoding has no order (a `HashMap`). Nothing is refused for it; it counts
    /// against the integrity in the [metrics](crate::watch::Metrics).
    RestoredOtherwise {
        /// The child.
        child: ChildPath,
        /// The checkpoint, if it is in the store.
        checkpoint: Option<CheckpointId>,
        /// The names of the pieces that differ, are missing or are new.
        pieces: Vec<String>,
    },
    /// A life began with a state that was taken under another policy, or with other allow-lists in the tree:
    /// what is decided about its failures from now on may be something else.
    PolicyChanged {
        /// The child.
        child: ChildPath,
        /// The state.
        checkpoint: CheckpointId,
    },
    /// A group takes requests from now on, under this allow-list: what its later events say of stand-ins, and
    /// those of its members, was decided by it. Its lines: [`System::allow_list`](crate::system::System::allow_list).
    AllowList {
        /// The group.
        group: ChildPath,
        /// Of who may stand in for whom, with their capabilities.
        digest: Digest,
    },
    /// A child had a state, and nothing of it is left that can be restored: it begins as at the very beginning. A durable
    /// child that has states and can restore none of them does not start instead.
    BeganAnew {
        /// The child.
        child: ChildPath,
        /// Which life.
        incarnation: Incarnation,
    },
    /// A child whose state had gone back to before requests that were answered has handled them again, as
    /// they were handled first.
    Replayed {
        /// The child.
        child: ChildPath,
        /// How many requests' work is in the state again.
        requests: usize,
        /// How many requests' work is not: what they asked is not in the record any more, or they could not
        /// be handled as before. Which: [`System::lost_work`](crate::system::System::lost_work).
        lost: usize,
    },
    /// A behavior says that something has happened so often which it counts: see
    /// [`Context::note`](crate::behavior::Context::note).
    Noted {
        /// The child.
        child: ChildPath,
        /// The request.
        request: RequestId,
        /// What, as the behavior calls it.
        what: &'static str,
        /// How often.
        count: u64,
    },
    /// The states of many children, as of one moment, are in the store.
    LineDrawn {
        /// The supervisor whose subtree it covers.
        supervisor: ChildPath,
        /// The line.
        line: LineId,
        /// The scope that returns to it.
        scope: Scope,
        /// How many children it names.
        children: usize,
    },
    /// What a task has done was not undone as a whole: this act may stand and has no undo, or its undo did not
    /// succeed, so the acts before it stand too. A person has to look.
    UndoStopped {
        /// The child that acted.
        child: ChildPath,
        /// The tool.
        tool: ChildPath,
        /// The act at which it stopped.
        key: EffectKey,
        /// How many acts stand, or may stand, this one included.
        stands: usize,
    },
    /// A line that was due was not drawn: somebody was in the middle of a step for too long, or the store did
    /// not take it. The next is tried when it is due.
    LineMissed {
        /// The supervisor.
        supervisor: ChildPath,
        /// Why.
        reason: String,
    },
    /// A child, or the subtree of a supervisor, has returned to what is in the store.
    ScopeRolledBack {
        /// The child or supervisor.
        at: ChildPath,
        /// The scope.
        scope: Scope,
        /// The line, for a supervisor.
        line: Option<LineId>,
        /// How many children have returned.
        children: usize,
        /// What was refused before a valid one was found: each checkpoint, and why.
        refused: Vec<String>,
        /// Effects of open requests that stand.
        kept: usize,
        /// Effects of open requests that were undone.
        undone: usize,
        /// Effects of open requests that nobody knows about, or whose undo failed.
        unknown: usize,
        /// How many answered requests are handled again.
        replayed: usize,
        /// How many answered requests' work is not there any more.
        missing: usize,
        /// Who approved it, and why; for one that was asked for by hand.
        approved_by: Option<(String, String)>,
        /// How long it took.
        elapsed: Duration,
    },
    /// A child, or the subtree of a supervisor, could not return to anything.
    RollbackFailed {
        /// The child or supervisor.
        at: ChildPath,
        /// The scope.
        scope: Scope,
        /// The next wider scope, if there is one.
        wider: Option<Scope>,
        /// Why.
        reason: String,
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
    /// A slow request is also out at a second member.
    Hedged {
        /// The group.
        group: ChildPath,
        /// The request.
        request: RequestId,
        /// The member that had it.
        from: ChildPath,
        /// The member that has it, too.
        to: ChildPath,
        /// How long it had been under way.
        after: Duration,
    },
    /// A slow request is not given to a second member.
    NotHedged {
        /// The group.
        group: ChildPath,
        /// The request.
        request: RequestId,
        /// Why.
        why: NoHedge,
    },
    /// A quota domain closed.
    DomainClosed {
        /// The domain.
        domain: String,
        /// Until when.
        until: Moment,
    },
    /// A supervisor that fell could not begin again from a line, nor could any wider scope: somebody
    /// should look. It goes on with what each child has kept by itself. Exactly one a fall. Or a request
    /// was not mended by its own rollback, and no scope above could return: it fails, and its own alert
    /// follows.
    RollbackExhausted {
        /// The supervisor that fell, or the child that the request was at.
        at: ChildPath,
        /// Why each scope could not be returned, the narrowest first.
        reasons: Vec<String>,
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
    /// The ladder is spent and nobody is left to judge again, a permission is missing, an outcome is unknown
    /// or a request was set aside: somebody should look. At most one a request.
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
    /// A rung of the ladder could not help a request, or none may, and a person may decide until then.
    PointOpened {
        /// The child where it failed.
        child: ChildPath,
        /// The request.
        request: RequestId,
        /// The point, for [`PointsRef::decide`](crate::points::PointsRef::decide).
        point: u64,
        /// What has failed; `None` when no rung may help
        /// ([`PointSpec::at_once`](crate::points::PointSpec::at_once)).
        after: Option<Rung>,
        /// What the ladder does next, if nobody objects.
        proposed: &'static str,
        /// Until when.
        until: Moment,
    },
    /// It was decided, or nobody has decided in time.
    PointClosed {
        /// The child where it failed.
        child: ChildPath,
        /// The request.
        request: RequestId,
        /// The point.
        point: u64,
        /// `continue`, `abort`, `retry_again`, `substitute`, `roll_back`, `answer`; `gone` when the request
        /// had its fate by then.
        decision: &'static str,
        /// Whether a person did.
        by_person: bool,
    },
    /// A rule about the last minutes has begun to hold, or an objective to be missed. Exactly one until
    /// it is [cleared](Event::Cleared).
    Raised {
        /// The alert.
        alert: watch::Alert,
    },
    /// It has been at rest for long enough.
    Cleared {
        /// The alert, as it was raised.
        alert: watch::Alert,
    },
}

impl Event {
    /// The child, group or supervisor it is about; `None` for a quota domain, and for the whole system.
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
            | Self::RestoredOtherwise { child, .. }
            | Self::BeganAnew { child, .. }
            | Self::PolicyChanged { child, .. }
            | Self::Replayed { child, .. }
            | Self::Noted { child, .. }
            | Self::ScopeRolledBack { at: child, .. }
            | Self::RollbackFailed { at: child, .. }
            | Self::RollbackExhausted { at: child, .. }
            | Self::Checkpointed { child, .. }
            | Self::PointOpened { child, .. }
            | Self::PointClosed { child, .. }
            | Self::Accumulated { child, .. }
            | Self::UndoStopped { child, .. }
            | Self::Alert { child, .. } => Some(child),
            Self::Restarting { supervisor, .. }
            | Self::Escalated { supervisor, .. }
            | Self::LineDrawn { supervisor, .. }
            | Self::LineMissed { supervisor, .. }
            | Self::SupervisorEnded { supervisor, .. } => Some(supervisor),
            Self::AllowList { group, .. }
            | Self::Switched { group, .. }
            | Self::Hedged { group, .. }
            | Self::NotHedged { group, .. } => Some(group),
            Self::DomainClosed { .. } | Self::Raised { .. } | Self::Cleared { .. } => None,
        }
    }
}

impl watch::Alert {
    fn trace(&self) {
        let Self { rule, severity, value, limit, samples, .. } = self;
        match severity {
            watch::Severity::Info => {
                tracing::info!(target: "mainstay", rule, value, limit, samples, "objective missed");
            }
            watch::Severity::Warning => {
                tracing::warn!(target: "mainstay", rule, value, limit, samples, "alert raised");
            }
            watch::Severity::Critical => {
                tracing::error!(target: "mainstay", rule, value, limit, samples, "alert raised");
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

    /// The clock is only looked at where somebody listens.
    pub(crate) fn emit(&self, now: impl FnOnce() -> Moment, event: Event) {
        event.trace();
        if self.listeners.load(Ordering::Relaxed) > 0 {
            // An error only says that nobody listens any more.
            let _ = self.sender.send(Stamped { at: now(), event });
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

#[cfg(test)]
mod tests;
mod trace;
