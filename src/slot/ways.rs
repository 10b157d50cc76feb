//! The ways back of a request that waits for a person, held for as long as it waits.
//!
//! *Invariant.* What could be returned to when the point opened can be returned to when it is decided, however old
//! it has become meanwhile, and what could not is not brought back. A pin that nobody takes away ends by itself.

use std::sync::Arc;
use std::time::Duration;

use super::{Mail, Slot};
use crate::checkpoint::{Batch, Now, POINT, Pin, RecoveryLine, VALIDITY, Wall};
use crate::id::{CheckpointId, LineId};
use crate::slot::worker::Worker;

/// What is held for one of them.
#[derive(Default)]
pub(super) struct Ways {
    /// States of the child: the one that its request in hand began with, and its newest.
    pub(super) states: Vec<CheckpointId>,
    /// Lines of the scopes above.
    lines: Vec<Arc<RecoveryLine>>,
}

impl Ways {
    pub(super) fn lines(&self) -> Vec<LineId> {
        self.lines.iter().map(|line| line.id).collect()
    }
}

impl<W: Worker> Slot<W> {
    /// Pins what the request could be brought back to, now that it waits so long for a person.
    pub(super) fn hold_ways(&self, mail: &Mail<W>, wait: Duration) -> Ways {
        let Some(journal) = self.journal().filter(|_| self.spec.stateful) else {
            return Ways::default();
        };
        let now = Now::read(&*self.hub.clock);
        let (base, newest) = {
            let desk = self.desk();
            let saved = desk.saved.as_ref();
            let newest = saved.and_then(|saved| saved.parent.as_ref()).map(|parent| parent.id);
            (saved.and_then(|saved| saved.anchor.id()), newest)
        };
        let newest = newest.filter(|newest| base != Some(*newest));
        let is_of_use =
            |id: &CheckpointId| journal.store.find(*id).is_ok_and(|listed| listed.is_of_use(now));
        let states = base.into_iter().chain(newest).filter(is_of_use).collect();
        // Whoever has asked for it within a request of its own has the scopes return.
        let scopes = self.hub.scopes().filter(|_| !mail.is_nested());
        let failed = mail.book().and_then(|book| book.failed).unwrap_or(now.moment);
        let lines = scopes.map_or_else(Vec::new, |scopes| scopes.lines(&self.path, failed));
        let ways = Ways { states, lines };
        // So long that whoever decides at the last moment is in time.
        self.pin(&ways, Some(wait.saturating_add(VALIDITY)));
        ways
    }

    /// It is decided. Where the request goes on, it may fail again and need them: they are as good as new.
    pub(super) fn let_ways_go(&self, ways: &Ways, goes_on: bool) {
        self.pin(ways, goes_on.then_some(VALIDITY));
    }

    /// Pins them for so long, or takes the pins away.
    fn pin(&self, ways: &Ways, held: Option<Duration>) {
        let Some(journal) = self.journal() else { return };
        let now = Wall::from(self.hub.clock.wall());
        // A child does nothing else meanwhile, so one name is enough.
        let whom = format!("{POINT}{}", self.path);
        let states = ways.states.iter().map(|id| (*id, whom.clone()));
        let lines = ways.lines.iter().filter_map(|it| Some((it.hook()?, it.pinned_for(&whom))));
        let mut batch = Batch::new();
        // What is gone meanwhile would have the store refuse all of it.
        for (id, owner) in states.chain(lines).filter(|(id, _)| journal.store.find(*id).is_ok()) {
            batch = match held {
                None => batch.unpin(id, owner),
                Some(held) => {
                    let reason = "a request waits for a person, who may have it go back".to_owned();
                    batch.pin(id, Pin { owner, reason, since: now, until: now.after(held) })
                }
            };
        }
        if batch.is_empty() {
            return;
        }
        let written = journal.store.commit(batch, self.spec.durability);
        let child = self.path.clone();
        self.hub.spawn(async move {
            if let Err(error) = written.await {
                tracing::warn!(target: "mainstay", %child, %error, "what a person may return to could not be pinned");
            }
        });
    }
}
