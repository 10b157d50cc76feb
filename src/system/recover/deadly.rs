//! Requests that the process has ended with.
//!
//! *Invariant.* One that is set aside here is so in the store before anything else is handed out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::System;
use crate::checkpoint::{Durability, Wall};
use crate::decision::Action;
use crate::error::RecoverError;
use crate::event::Event;
use crate::fate::{Attempt, Ended, Fate, Trail};
use crate::fault::Class;
use crate::id::Delivery;
use crate::journal::{Journal, Open, Tried};
use crate::policy::deaths::{Again, again};
use crate::port::Trying;

/// What the trail of such a request says of each attempt.
const PROCESS_ENDED: &str = "process_ended";

/// By their keys.
pub(super) type Deadly = HashMap<Arc<str>, (usize, Open)>;

/// In the order in which they were accepted.
pub(super) fn in_order(deadly: Deadly) -> Vec<Open> {
    let mut requests: Vec<_> = deadly.into_values().collect();
    requests.sort_by_key(|(place, _)| *place);
    requests.into_iter().map(|(_, open)| open).collect()
}

impl System {
    /// Those that are not handed out again by themselves.
    pub(super) fn deadly(&self, open: Vec<Open>) -> Deadly {
        let never = |open: &Open| self.again(open) == Again::Never;
        let all = open.into_iter().enumerate().filter(|(_, open)| never(open));
        all.map(|(place, open)| (Arc::clone(&open.key), (place, open))).collect()
    }

    fn again(&self, open: &Open) -> Again {
        again(open.taken, self.inner.registry.process_deaths(&open.child))
    }

    /// What a request that is handed out again comes with.
    pub(super) fn on_trial(&self, journal: &Arc<Journal>, open: &Open) -> Trying {
        Trying::new(Tried::new(journal, &open.key, self.again(open) == Again::Alone))
    }

    /// Its fate is told here: whoever asked is gone, and no child has it.
    pub(super) async fn set_deadly_aside(
        &self,
        journal: &Arc<Journal>,
        open: &Open,
    ) -> Result<(), RecoverError> {
        let hub = &self.inner.hub;
        let (now, ends) = (hub.now(), open.taken);
        let before = open.trail.0.len() as u32;
        let ended =
            || Ended::Fault { class: Class::Internal, code: Some(PROCESS_ENDED.to_owned()) };
        let attempt = |n| Attempt {
            at: now,
            child: open.child.clone(),
            attempt: before + n,
            delivery: Delivery::NONE,
            ended: ended(),
            action: match n {
                n if n < ends => Action::Retry { delay: Duration::ZERO, at: now },
                _ => Action::Quarantine,
            },
            declined: Vec::new(),
        };
        let trail = Trail((1..=ends).map(attempt).collect());
        let at = Wall::from(hub.clock.wall());
        journal.quarantined(&open.key, trail, at, Durability::Sync).await?;
        self.inner.registry.count_set_aside(&open.child);
        hub.stats.lock().alerts += 1;
        let (child, request) = (open.child.clone(), hub.next_id());
        let attempts = before + ends;
        hub.emit(Event::Alert { child: child.clone(), request, ended: ended(), attempts });
        hub.emit(Event::Fated {
            child,
            request,
            fate: Fate::Quarantined,
            served_by: None,
            attempts,
            degraded: false,
            defaulted: false,
            elapsed: Duration::ZERO,
        });
        Ok(())
    }
}
