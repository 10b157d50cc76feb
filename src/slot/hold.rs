//! Standing still: no work is handed out and no further step begun, so that what many children have
//! become can be read, or changed, as of one moment.
//!
//! *Invariant.* A hold ends with whoever asked for it, also when that one is given up half-way. What is
//! between two steps stays there while anybody holds it: a line is drawn and a supervisor that fell begins
//! again at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use super::{Desk, Look, Slot};
use crate::behavior::Context;
use crate::port::{Cut, Flight};
use crate::slot::worker::{Watched, Worker, watched};

/// Why slots stand still.
#[derive(Default)]
pub(crate) struct Hold {
    over: AtomicBool,
    released: Notify,
    /// Somebody has come to rest.
    still: Notify,
}

impl Hold {
    async fn released(&self) {
        loop {
            let mut released = std::pin::pin!(self.released.notified());
            released.as_mut().enable();
            if self.over.load(Ordering::Acquire) {
                return;
            }
            released.await;
        }
    }
}

/// Children that stand still, until this is dropped.
pub(crate) struct Held {
    hold: Arc<Hold>,
    children: Vec<Arc<dyn Look>>,
}

impl Held {
    pub(crate) fn new(children: Vec<Arc<dyn Look>>) -> Self {
        let hold = Arc::<Hold>::default();
        for child in &children {
            child.hold(&hold);
        }
        Self { hold, children }
    }

    pub(crate) fn children(&self) -> &[Arc<dyn Look>] {
        &self.children
    }

    /// This one, which has begun a life since, goes on.
    pub(crate) fn release(&self, child: &Arc<dyn Look>) {
        child.unhold(&self.hold);
    }

    /// Waits until each is between two steps.
    pub(crate) async fn still(&self) {
        for child in &self.children {
            loop {
                let mut still = std::pin::pin!(self.hold.still.notified());
                still.as_mut().enable();
                if child.is_still() {
                    break;
                }
                still.await;
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.hold.over.store(true, Ordering::Release);
        for child in &self.children {
            child.unhold(&self.hold);
        }
        self.hold.released.notify_waiters();
    }
}

impl<W: Worker> Slot<W> {
    pub(super) fn hold_still(&self, hold: &Arc<Hold>) {
        let mut desk = self.desk();
        desk.rare().holds.push(Arc::clone(hold));
        desk.told_still();
    }

    pub(super) fn go_on(&self, hold: &Arc<Hold>) {
        let now = self.hub.now();
        let mut desk = self.desk();
        if let Some(rare) = desk.rare.as_mut() {
            rare.holds.retain(|current| !Arc::ptr_eq(current, hold));
        }
        if desk.holds().is_empty() {
            self.wake(desk, now);
        }
    }

    pub(super) fn stands_still(&self) -> bool {
        let desk = self.desk();
        let life = desk.life.incarnation();
        desk.out.iter().all(|out| out.between || out.life != life)
    }

    /// Between two steps of an attempt: waits while the child is held. The attempt's clock stands still
    /// meanwhile.
    pub(crate) async fn wait_held(
        &self,
        hold: Arc<Hold>,
        flight: &Flight,
        context: &Context,
    ) -> Result<(), Cut> {
        let _paused = context.tie().pause();
        let heard = &[Cut::Kill, Cut::Stop, Cut::Cancel];
        match watched(|| hold.released(), std::convert::identity, flight, heard).await {
            Watched::Cut(cut) => Err(cut),
            Watched::Done(()) | Watched::Panicked(_) => Ok(()),
        }
    }
}

impl<W: Worker> Desk<W> {
    /// Whoever waits for this child to stand still looks again.
    pub(super) fn told_still(&self) {
        for hold in self.holds() {
            hold.still.notify_waiters();
        }
    }
}
