//! How a life of a supervisor is told something.
//!
//! *Invariant.* What is said lies here, in order; ractor carries a wake for each, and nothing of value.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use ractor::{ActorCell, ActorRef};

use super::Msg;
use crate::slot::Wake;

/// What has been said to one life and not been heard yet.
pub(super) type Said = Arc<Mutex<VecDeque<Msg>>>;

/// The way to one life.
#[derive(Clone)]
pub(super) struct Line {
    actor: ActorRef<Wake>,
    said: Said,
}

impl Line {
    pub(super) fn new(actor: ActorRef<Wake>, said: &Said) -> Self {
        Self { actor, said: Arc::clone(said) }
    }

    /// Says this; `false` when nobody is there to hear it.
    pub(super) fn say(&self, message: Msg) -> bool {
        self.said.lock().push_back(message);
        self.actor.send_message(()).is_ok()
    }

    pub(super) fn stop(&self) {
        self.actor.stop(None);
    }

    pub(super) fn kill(&self) {
        self.actor.kill();
    }

    pub(super) fn cell(&self) -> ActorCell {
        self.actor.get_cell()
    }
}
