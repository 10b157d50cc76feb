//! Requests that were answered and whose work is in no state any more: a state went back to before them.
//!
//! *Invariant.* Each that the system names is said: the system may take it as told, and no process after this one say it.

use std::collections::HashSet;
use std::sync::Arc;

use mainstay::event::Event;
use mainstay::id::ChildPath;
use mainstay::system::System;
use serde_json::{Value, json};

/// What was said of it.
#[derive(Default)]
pub(super) struct Lost(HashSet<(ChildPath, Arc<str>)>);

impl Lost {
    /// What is to be said that was not yet, one a line.
    pub(super) fn news(&mut self, system: &System) -> Vec<String> {
        let mut named = system.lost_work();
        named.retain(|it| self.0.insert(it.clone()));
        let said = |(child, key): &(ChildPath, Arc<str>)| {
            format!(
                "lost: {child} had answered request {key:?}, and its state went back to before that"
            )
        };
        named.iter().map(said).collect()
    }
}

/// Whether more may be lost than before.
pub(super) fn may_lose(event: &Event) -> bool {
    match event {
        Event::Replayed { lost, .. } => *lost > 0,
        Event::RolledBack { .. }
        | Event::ScopeRolledBack { .. }
        | Event::RollbackFailed { .. }
        | Event::RollbackExhausted { .. } => true,
        _ => false,
    }
}

/// All of it, for a program.
pub(super) fn list(system: &System) -> Vec<Value> {
    let one = |(child, key): (ChildPath, Arc<str>)| json!({"child": child, "key": *key});
    system.lost_work().into_iter().map(one).collect()
}
