//! What an attempt's context knows of its child.
//!
//! *Invariant.* None of it changes while the child is there.

use std::sync::Arc;

use super::Slot;
use super::worker::Worker;
use crate::behavior::{Doing, Seat, Undoes};
use crate::checkpoint::Interval;
use crate::clock::Clock;
use crate::event::Event;
use crate::id::{ChildPath, EffectKey};
use crate::port::PortTable;

impl<W: Worker> Seat for Slot<W> {
    fn path(&self) -> &ChildPath {
        &self.path
    }

    fn ports(&self) -> Option<&PortTable> {
        self.ports.get().map(|ports| &**ports)
    }

    fn clock(&self) -> &Arc<dyn Clock> {
        &self.hub.clock
    }

    fn counts(&self) -> Option<&str> {
        match &self.spec.checkpoint {
            Interval::Units { name, .. } => Some(name),
            _ => None,
        }
    }

    fn identity(&self) -> u64 {
        self.hub.identity
    }

    fn emit(&self, event: Event) {
        self.hub.emit(event);
    }

    fn undo_within<'a>(&'a self, key: &'a str) -> Undoes<'a> {
        Box::pin(self.hub.effects.undo_within(key))
    }

    fn hold<'a>(&'a self, key: &'a str, attempt: u32) -> Doing<'a, Option<EffectKey>> {
        Box::pin(self.hub.effects.hold(key, attempt))
    }

    fn goes_on(&self, key: EffectKey, attempt: u32) -> Doing<'_, ()> {
        Box::pin(self.hub.effects.goes_on(key, attempt))
    }
}
