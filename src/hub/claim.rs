//! Who works on a store: one system at a time.
//!
//! Another process is kept away by the store itself. Two systems of one process have the very same store, and
//! would each deliver what is open and write over what the other one knows.
//!
//! *Invariant.* A store is had by one claim at most, from before it is looked at until all has ended that could
//! write to it, and nobody waits for a claim for ever.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::checkpoint::{Store, Wall};
use crate::clock::Clock;
use crate::error::StoreError;
use crate::id::ChildPath;

/// For how long a system that ends is waited for. It may undo for 10 s, tidy for 10 s, and its children have 5 s
/// where nothing else is said.
const ENDS_WITHIN: Duration = Duration::from_secs(30);
/// The same, of one that is not known to end: its runtime may have been told to on another thread.
const SHOWS_WITHIN: Duration = Duration::from_secs(1);

/// By where the store is in memory, which no other one is as long as there is a claim: it holds the place.
static CLAIMS: LazyLock<Mutex<HashMap<usize, Weak<Claim>>>> = LazyLock::new(Mutex::default);
/// Some claim has been let go of.
static RELEASED: Notify = Notify::const_new();

/// Held by everything that may write to the store by itself: see the [module](self).
pub(crate) struct Claim {
    /// Not the store itself, which is closed when the system lets go of it.
    store: Weak<dyn Store>,
    root: ChildPath,
    since: Wall,
    ending: AtomicBool,
    /// Somebody sees to it that all is written before it is let go of.
    in_order: AtomicBool,
}

impl Claim {
    /// Takes the store for the system of this root, once another one that ends has ended.
    pub(crate) async fn take(
        store: &Arc<dyn Store>,
        root: &ChildPath,
        clock: &dyn Clock,
    ) -> Result<Arc<Self>, StoreError> {
        let began = clock.now();
        loop {
            let mut released = std::pin::pin!(RELEASED.notified());
            released.as_mut().enable();
            let held = match Self::try_take(store, root, clock) {
                Ok(claim) => return Ok(claim),
                Err(held) => held,
            };
            let within = if held.is_ending() { ENDS_WITHIN } else { SHOWS_WITHIN };
            let until = began + within;
            if clock.now() >= until {
                let error = StoreError::InUse {
                    store: store.info().map(|info| info.name).unwrap_or_default(),
                    root: held.root.clone(),
                    age: Wall::from(clock.wall()).since(held.since),
                    ending: held.is_ending(),
                };
                return Err(error);
            }
            // If everybody else has let go meanwhile, this is what tells.
            drop(held);
            tokio::select! {
                biased;
                () = released => {}
                () = clock.sleep_until(until) => {}
            }
        }
    }

    fn try_take(
        store: &Arc<dyn Store>,
        root: &ChildPath,
        clock: &dyn Clock,
    ) -> Result<Arc<Self>, Arc<Self>> {
        let since = Wall::from(clock.wall());
        let mut claims = CLAIMS.lock();
        let place = place(Arc::as_ptr(store));
        if let Some(held) = claims.get(&place).and_then(Weak::upgrade) {
            return Err(held);
        }
        let claim = Arc::new(Self {
            store: Arc::downgrade(store),
            root: root.clone(),
            since,
            ending: AtomicBool::new(false),
            in_order: AtomicBool::new(false),
        });
        claims.insert(place, Arc::downgrade(&claim));
        Ok(claim)
    }

    /// The store once more, for a system that has come to its end before: `None` where the next one has it.
    pub(crate) fn again(
        store: &Arc<dyn Store>,
        root: &ChildPath,
        clock: &dyn Clock,
    ) -> Option<Arc<Self>> {
        Self::try_take(store, root, clock).ok()
    }

    /// The system ends by itself from here on.
    pub(crate) fn ends(&self) {
        self.ending.store(true, Ordering::Release);
        // Who waits for it may do so for longer.
        RELEASED.notify_waiters();
    }

    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    /// As [`Claim::ends`], and whoever says so waits until all is written.
    pub(crate) fn ends_in_order(&self) {
        self.in_order.store(true, Ordering::Release);
        self.ends();
    }

    pub(crate) fn is_in_order(&self) -> bool {
        self.in_order.load(Ordering::Acquire)
    }

    /// The system has come to its end, whoever still has this.
    pub(crate) fn let_go(&self) {
        {
            let mut claims = CLAIMS.lock();
            let place = place(self.store.as_ptr());
            // The next one may have the place already.
            if claims.get(&place).is_some_and(|it| std::ptr::eq(it.as_ptr(), self)) {
                claims.remove(&place);
            }
        }
        RELEASED.notify_waiters();
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.let_go();
    }
}

fn place(store: *const dyn Store) -> usize {
    store.cast::<()>().addr()
}
