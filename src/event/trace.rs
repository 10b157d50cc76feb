//! What each event is in the log.
//!
//! *Invariant.* One line an event, as fields; nothing of what users ask or are answered.

use super::Event;
use crate::decision::Rung;
use crate::watch;

impl Event {
    pub(super) fn trace(&self) {
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
            Self::RollbackExhausted { at, reasons } => {
                tracing::error!(target: "mainstay", %at, ?reasons, "no scope can be rolled back");
            }
            Self::Accumulated { child, request, failures, window } => {
                tracing::warn!(target: "mainstay", %child, %request, failures, ?window, "soft failures add up");
            }
            Self::UndoStopped { child, tool, key, stands } => {
                tracing::error!(target: "mainstay", %child, %tool, %key, stands, "an undo stopped; a person has to look");
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
            Self::Hedged { group, request, from, to, after } => {
                tracing::info!(target: "mainstay", %group, %request, %from, %to, ?after, "hedged");
            }
            Self::NotHedged { group, request, why } => {
                tracing::debug!(target: "mainstay", %group, %request, %why, "not hedged");
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
            Self::RestoredOtherwise { child, checkpoint, pieces } => {
                tracing::warn!(target: "mainstay", %child, ?checkpoint, ?pieces, "restored, and not what was stored");
            }
            Self::PolicyChanged { child, checkpoint } => {
                tracing::warn!(target: "mainstay", %child, %checkpoint, "taken up under another policy");
            }
            Self::AllowList { group, digest } => {
                tracing::info!(target: "mainstay", %group, %digest, "takes requests under this allow-list");
            }
            Self::BeganAnew { child, incarnation } => {
                tracing::error!(target: "mainstay", %child, %incarnation, "no state could be restored");
            }
            Self::Replayed { child, requests, lost: 0 } => {
                tracing::info!(target: "mainstay", %child, requests, "replayed");
            }
            Self::Replayed { child, requests, lost } => {
                tracing::error!(target: "mainstay", %child, requests, lost, "replayed, but for some");
            }
            Self::Noted { child, request, what, count } => {
                tracing::info!(target: "mainstay", %child, %request, what, count, "noted");
            }
            Self::LineDrawn { supervisor, line, scope, children } => {
                tracing::info!(target: "mainstay", %supervisor, %line, %scope, children, "recovery line drawn");
            }
            Self::LineMissed { supervisor, reason } => {
                tracing::warn!(target: "mainstay", %supervisor, reason, "recovery line missed");
            }
            Self::ScopeRolledBack {
                at,
                scope,
                line,
                children,
                kept,
                undone,
                unknown,
                replayed,
                missing,
                ..
            } => {
                tracing::warn!(target: "mainstay", %at, %scope, ?line, children, kept, undone, unknown, replayed, missing, "scope rolled back");
            }
            Self::RollbackFailed { at, scope, wider, reason } => {
                tracing::error!(target: "mainstay", %at, %scope, ?wider, reason, "rollback failed");
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
            Self::PointOpened { child, request, point, after, proposed, until } => {
                let after = after.map_or("at once", Rung::name);
                tracing::warn!(target: "mainstay", %child, %request, point, after, proposed, %until, "a person may decide");
            }
            Self::PointClosed { child, request, point, decision, by_person } => {
                tracing::info!(target: "mainstay", %child, %request, point, decision, by_person, "decided at a point");
            }
            Self::Raised { alert } => alert.trace(),
            Self::Cleared { alert } => {
                let watch::Alert { rule, severity, .. } = alert;
                tracing::info!(target: "mainstay", rule, %severity, "alert cleared");
            }
            Self::SupervisorEnded { supervisor, cause } => {
                tracing::info!(target: "mainstay", %supervisor, %cause, "supervisor ended");
            }
        }
    }
}
