//! Events that several have to hear, from a stream that is one.
//!
//! *Invariant.* What was read ahead is heard again, in its order.

use std::collections::VecDeque;

use mainstay::event::{EventStream, Stamped};

/// A stream of events that can be read ahead.
pub(super) struct Heard {
    ahead: VecDeque<Stamped>,
    events: EventStream,
}

impl Heard {
    /// Those that have come until now, without taking them from whoever hears the next.
    pub(super) fn until_now(&mut self) -> Vec<Stamped> {
        self.ahead.extend(std::iter::from_fn(|| self.events.try_next()));
        self.ahead.iter().cloned().collect()
    }

    /// The next one; `None` once the system is gone.
    pub(super) async fn next(&mut self) -> Option<Stamped> {
        match self.ahead.pop_front() {
            Some(stamped) => Some(stamped),
            None => self.events.next().await,
        }
    }

    /// The next one, if it is there.
    pub(super) fn try_next(&mut self) -> Option<Stamped> {
        self.ahead.pop_front().or_else(|| self.events.try_next())
    }
}

impl From<EventStream> for Heard {
    fn from(events: EventStream) -> Self {
        Self { ahead: VecDeque::new(), events }
    }
}
