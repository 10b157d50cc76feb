//! What is counted of retries and substitutes, and whether they helped.
//!
//! *Invariant.* A request is counted as recovered once, with its fate; a hand-over once, or not at all
//! when the member had no room.

use std::sync::Arc;

use super::{Mail, Slot};
use crate::decision::{Decision, Declined, Rung};
use crate::event::Event;
use crate::hub::Hub;
use crate::id::ChildPath;
use crate::mailbox::Ticket;
use crate::moment::Moment;
use crate::port::Soft;
use crate::slot::worker::Worker;

/// A request that failed elsewhere goes to `member`.
pub(crate) fn count_fallback(hub: &Hub, group: &ChildPath, member: &ChildPath) {
    let mut stats = hub.stats.lock();
    *stats.fallbacks.entry(group.clone()).or_default() += 1;
    stats.alternatives.entry(member.clone()).or_default().asked += 1;
}

/// It had no room after all.
pub(crate) fn uncount_fallback(hub: &Hub, group: &ChildPath, member: &ChildPath) {
    let mut stats = hub.stats.lock();
    if let Some(count) = stats.fallbacks.get_mut(group) {
        *count = count.saturating_sub(1);
    }
    if let Some(alternative) = stats.alternatives.get_mut(member) {
        alternative.asked = alternative.asked.saturating_sub(1);
    }
}

impl<W: Worker> Slot<W> {
    /// The soft failures of the task that this request is, or is a part of. The attempt that has just
    /// failed may have noted the first of them.
    pub(super) fn soft(&self, mail: &Mail<W>, ticket: Ticket) -> Soft {
        if let Some(soft) = mail.soft() {
            return soft;
        }
        let tie = self.desk().flight(ticket).and_then(|flight| flight.tie());
        let soft = tie.map_or_else(Soft::default, |tie| Arc::clone(tie.soft()));
        if let Some(mut book) = mail.book() {
            book.soft = Some(Arc::clone(&soft));
        }
        soft
    }

    /// Counts a fault that the next attempt is to mend, or that was one too many to be mended so.
    pub(super) fn add_up(&self, mail: &Mail<W>, decision: &Decision, now: Moment) {
        if let Some(Rung::Retry | Rung::Substitute) = decision.action.rung() {
            self.hub.stats.lock().soft_failures += 1;
            if let Some(soft) = mail.soft() {
                soft.lock().note(now);
            }
        }
        if let Some(Declined::SoftFailures { limit, window }) = decision.declined(Rung::Retry) {
            self.hub.stats.lock().accumulated += 1;
            let failures = mail.book().map_or(limit, |book| book.history.soft_failures());
            self.hub.emit(Event::Accumulated {
                child: self.path.clone(),
                request: mail.id,
                failures,
                window,
            });
        }
    }
}
