//! The task that has the watch look, again and again, as time goes by.
//!
//! *Invariant.* Sums are read by one at a time, so that none is taken twice, and never in the task of
//! the timers, which deadlines wait for.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::event::Event;
use crate::hub::{Hub, Timed};
use crate::moment::Moment;
use crate::supervisor::Registry;
use crate::watch::{Change, Metrics};

/// Of its time, the share that is spent looking: with so many children that a look takes long, it is
/// taken more rarely.
const REST: u32 = 100;

/// See the [module](self).
pub(super) struct Watching {
    me: Weak<Self>,
    hub: Arc<Hub>,
    registry: Arc<Registry>,
    reading: Mutex<()>,
}

impl Watching {
    pub(super) fn new(hub: &Arc<Hub>, registry: &Arc<Registry>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            hub: Arc::clone(hub),
            registry: Arc::clone(registry),
            reading: Mutex::new(()),
        })
    }

    pub(super) fn begin(&self) {
        self.arm(self.hub.now());
    }

    fn arm(&self, after: Moment) {
        let at = self.hub.watch.lock().next(after);
        let me: Weak<Self> = Weak::clone(&self.me);
        self.hub.arm(at, me);
    }

    fn read(&self) -> Moment {
        let _one = self.reading.lock();
        let totals = self.registry.totals();
        let now = self.hub.now();
        self.hub.watch.lock().sample(totals, now);
        now
    }

    fn look(&self) {
        let began = self.hub.now();
        let now = self.read();
        let changes = self.hub.watch.lock().look(now);
        for change in changes {
            self.hub.emit(match change {
                Change::Raised(alert) => Event::Raised { alert },
                Change::Cleared(alert) => Event::Cleared { alert },
            });
        }
        self.arm(now + now.since(began) * REST);
    }

    pub(super) fn metrics(&self) -> Metrics {
        let now = self.read();
        let mut metrics = self.hub.watch.lock().metrics(now);
        metrics.domains = self.hub.domain_states(now);
        metrics
    }
}

impl Timed for Watching {
    fn on_time(&self, _: Moment) {
        if self.hub.is_shutting_down() {
            return;
        }
        if let Some(me) = self.me.upgrade() {
            self.hub.runtime.spawn(async move { me.look() });
        }
    }
}
