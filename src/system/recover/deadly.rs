//! Requests that the process has ended with: those that it has ended with too often, and those that may have been
//! done and may not be done again.
//!
//! *Invariant.* What has its fate here has it in the store before anything else is handed out.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::System;
use crate::checkpoint::{Batch, Durability, Wall};
use crate::decision::Action;
use crate::error::{RecoverError, StoreError};
use crate::event::Event;
use crate::fate::{self, Attempt, Cost, Fate, Trail};
use crate::fault::Class;
use crate::id::Delivery;
use crate::journal::{Handed, Journal, Open, Tried};
use crate::policy::deaths::{Again, again};
use crate::port::Trying;

/// What the trail of such a request says of each attempt.
const PROCESS_ENDED: &str = "process_ended";

/// What is not handed out again by itself, in the order of acceptance.
#[derive(Default)]
pub(super) struct Ended {
    keys: HashSet<Arc<str>>,
    /// The process has ended too often with them in hand.
    pub(super) deadly: Vec<Open>,
    /// Nobody knows whether they were done.
    pub(super) in_doubt: Vec<Open>,
}

impl Ended {
    pub(super) fn has(&self, key: &str) -> bool {
        self.keys.contains(key)
    }
}

impl System {
    /// Those that are not handed out again by themselves.
    pub(super) fn ended_with(&self, open: Vec<Open>) -> Ended {
        let mut ended = Ended::default();
        for open in open {
            let key = Arc::clone(&open.key);
            // One that a person releases is done again, which must not happen to what may have been done.
            if open.hand.is_in_doubt(self.inner.registry.acts(&open.child)) {
                ended.in_doubt.push(open);
            } else if self.again(&open) == Again::Never {
                ended.deadly.push(open);
            } else {
                continue;
            }
            ended.keys.insert(key);
        }
        ended
    }

    fn again(&self, open: &Open) -> Again {
        again(open.taken, self.inner.registry.process_deaths(&open.child))
    }

    /// What a request that is handed out again comes with.
    pub(super) fn on_trial(&self, journal: &Arc<Journal>, open: &Open) -> Trying {
        Trying::new(Tried::new(journal, &open.key, self.again(open) == Again::Alone))
    }

    /// What is not handed out again has its fate from now on, and that is told here: whoever asked is gone, and no
    /// child has it. Of those in doubt a person has to find out what has become of them.
    pub(super) async fn settle_ended(
        &self,
        journal: &Arc<Journal>,
        gone: &[Open],
        ended: &Ended,
    ) -> Result<(), RecoverError> {
        self.end_all(journal, gone, |open| self.set_aside(journal, open), |_| {}).await?;
        let aside = |open: &Open| self.set_deadly_aside(journal, open);
        self.end_all(journal, &ended.deadly, aside, |open| {
            self.tell_ended(open, Fate::Quarantined, open.trail.0.len() as u32 + open.taken);
        })
        .await?;
        let unknown = |open: &Open| {
            journal.fated(&open.key, Fate::Unknown, None, None, (Batch::new(), Durability::Sync))
        };
        self.end_all(journal, &ended.in_doubt, unknown, |open| {
            self.tell_ended(open, Fate::Unknown, open.trail.0.len() as u32 + 1);
        })
        .await
    }

    /// Handed over together, so that many of them do not wait for the disk one by one; and again with room made for
    /// them where there is none.
    async fn end_all(
        &self,
        journal: &Arc<Journal>,
        requests: &[Open],
        end: impl Fn(&Open) -> Handed,
        tell: impl Fn(&Open),
    ) -> Result<(), RecoverError> {
        let hub = &self.inner.hub;
        let records = || hub.effects.ledger.lock().records();
        let handed: Vec<_> = requests.iter().map(&end).collect();
        for (open, handed) in requests.iter().zip(handed) {
            match handed.await {
                Err(StoreError::Full { .. }) => {
                    hub.with_room(journal, &records, || end(open)).await?;
                }
                done => done?,
            }
            tell(open);
        }
        Ok(())
    }

    /// Of a child that is no more, or that cannot read it.
    fn set_aside(&self, journal: &Arc<Journal>, request: &Open) -> Handed {
        let is_there = self.inner.registry.durable_at(&request.child).is_some();
        let code = if is_there { "request_unreadable" } else { "child_gone" };
        let gone = Attempt {
            at: self.inner.hub.now(),
            child: request.child.clone(),
            attempt: 0,
            delivery: Delivery::NONE,
            ended: fate::Ended::Fault { class: Class::Internal, code: Some(code.to_owned()) },
            action: Action::Quarantine,
            declined: Vec::new(),
        };
        let (trail, at) = (Trail(vec![gone]), Wall::from(self.inner.hub.clock.wall()));
        journal.quarantined(&request.key, trail, at, Durability::Sync)
    }

    fn set_deadly_aside(&self, journal: &Arc<Journal>, open: &Open) -> Handed {
        let hub = &self.inner.hub;
        let (now, ends) = (hub.now(), open.taken);
        let before = open.trail.0.len() as u32;
        let attempt = |n| Attempt {
            at: now,
            child: open.child.clone(),
            attempt: before + n,
            delivery: Delivery::NONE,
            ended: process_ended(),
            action: match n {
                n if n < ends => Action::Retry { delay: Duration::ZERO, at: now },
                _ => Action::Quarantine,
            },
            declined: Vec::new(),
        };
        let trail = Trail((1..=ends).map(attempt).collect());
        let at = Wall::from(hub.clock.wall());
        journal.quarantined(&open.key, trail, at, Durability::Sync)
    }

    fn tell_ended(&self, open: &Open, fate: Fate, attempts: u32) {
        let hub = &self.inner.hub;
        self.inner.registry.count_ended(&open.child, fate);
        hub.stats.lock().alerts += 1;
        let (child, request) = (open.child.clone(), hub.next_id());
        hub.emit(Event::Alert { child: child.clone(), request, ended: process_ended(), attempts });
        hub.emit(Event::Fated {
            child,
            request,
            fate,
            served_by: None,
            attempts,
            degraded: false,
            defaulted: false,
            elapsed: Duration::ZERO,
            cost: Cost::default(),
        });
    }
}

fn process_ended() -> fate::Ended {
    fate::Ended::Fault { class: Class::Internal, code: Some(PROCESS_ENDED.to_owned()) }
}
