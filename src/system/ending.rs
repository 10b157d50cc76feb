//! How a system ends: stopped, let go of, by itself, or with its runtime.
//!
//! *Invariant.* However it ends, what waits has its fate, and the store is given to the next system only once
//! nothing of this one can write to it any more.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::{Inner, System};
use crate::fault::ExitCause;
use crate::hub::{Claim, Hub};
use crate::port::{dropped, unwound};
use crate::supervisor::{Registry, Supervisor};

/// For how long the end of a system waits for outcomes to be written down.
const OUTCOMES: Duration = Duration::from_secs(1);

impl Drop for Inner {
    fn drop(&mut self) {
        self.hub.begin_shutdown();
        self.root.ask_stop(ExitCause::Stopped, false);
        let leaves = Leaves { root: Arc::clone(&self.root), registry: Arc::clone(&self.registry) };
        // Only of a system that has not come up, or is about to.
        let claim = self.claim.get_mut().take();
        if self.root.is_ended().is_none() {
            let hub = Arc::clone(&self.hub);
            self.hub.runtime.spawn(async move {
                leaves.root.wait_ended().await;
                drop(leaves);
                if let Some(claim) = claim {
                    hub.lets_go(claim).await;
                }
            });
        } else if let Some(claim) = claim
            && self.hub.journal.get().is_some()
        {
            drop(leaves);
            let hub = Arc::clone(&self.hub);
            self.hub.runtime.spawn(async move { hub.lets_go(claim).await });
        }
    }
}

/// Lets go of everything there was when it is dropped: once the root has ended, or its runtime is gone. What
/// has a path knows its supervisor, which knows the paths, and none of them would let go by itself.
struct Leaves {
    root: Arc<Supervisor>,
    registry: Arc<Registry>,
}

impl Drop for Leaves {
    fn drop(&mut self) {
        let cause = self.root.is_ended().unwrap_or(ExitCause::Stopped);
        // It drops what was the user's.
        let _ = unwound(|| {
            self.root.abandon(&cause);
            self.registry.clear();
        });
        for shelved in self.root.hub.shelf.close() {
            let _ = dropped(shelved);
        }
    }
}

/// Held by the task that waits for the root's end. Dropped before that, the runtime is gone, and
/// everything that would have ended a request with it.
struct Watch {
    hub: Weak<Hub>,
    registry: Weak<Registry>,
    root: Arc<Supervisor>,
    /// What the store is had by: let go of behind all the rest.
    claim: Option<Arc<Claim>>,
    ended: bool,
}

impl Watch {
    fn end(&mut self) -> Option<Arc<Claim>> {
        self.ended = true;
        self.claim.take()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if let Some(hub) = self.hub.upgrade() {
            hub.lost.store(true, Ordering::Release);
            hub.begin_shutdown();
        }
        self.root.lost();
        self.root.abandon(&ExitCause::Killed);
        // Those that were started while it ran stand in no spec.
        if let Some(registry) = self.registry.upgrade() {
            for supervisor in registry.supervisors_below(&self.root.path) {
                supervisor.lost();
            }
            for child in registry.below(&self.root.path) {
                child.give_up(&ExitCause::Killed);
            }
        }
    }
}

impl System {
    /// When the root ends by itself, or its runtime is dropped under it, what still waits gets its fate.
    pub(super) fn watch_root(&self) {
        let root = Arc::clone(&self.inner.root);
        let hub = Arc::downgrade(&self.inner.hub);
        let effects = Arc::clone(&self.inner.hub.effects);
        let mut watch = Watch {
            hub: Weak::clone(&hub),
            registry: Arc::downgrade(&self.inner.registry),
            root: Arc::clone(&root),
            claim: self.inner.claim.lock().take(),
            ended: false,
        };
        self.inner.hub.runtime.spawn(async move {
            let cause = root.wait_ended().await;
            let claim = watch.end();
            effects.close();
            let hub = hub.upgrade();
            if let Some(hub) = &hub {
                hub.begin_shutdown();
            }
            root.abandon(&cause);
            drop(root);
            if let (Some(hub), Some(claim)) = (hub, claim) {
                hub.lets_go(claim).await;
            }
        });
    }
}

impl Inner {
    /// See [`System::stop`].
    pub(super) async fn stop(&self) {
        let hub = &self.hub;
        let journal = hub.journal.get();
        let claim = hub.claim().or_else(|| {
            // It has ended by itself.
            Claim::again(&journal?.store, &self.root.path, &*hub.clock)
        });
        if let Some(claim) = &claim {
            claim.ends_in_order();
        }
        tokio::select! {
            () = hub.all_unwound() => {}
            _ = self.root.wait_ended() => {}
        }
        hub.begin_shutdown();
        self.root.ask_stop(ExitCause::Stopped, false);
        self.root.wait_ended().await;
        self.root.abandon(&ExitCause::Stopped);
        hub.outcomes().await;
        // Not where the next system has the store already.
        if let Some(journal) = journal
            && claim.is_some()
        {
            journal.ends_in_order().await;
        }
        if hub.tidied().await
            && let Some(claim) = claim
        {
            claim.let_go();
        }
    }
}

impl Hub {
    /// Once every tool's request has its fate, and what came of it is written down, or it takes too long. Nothing
    /// is begun any more.
    async fn outcomes(&self) {
        let limit = self.clock.sleep_until(self.now() + OUTCOMES);
        self.effects.close();
        tokio::select! {
            biased;
            () = self.effects.all_at_rest() => {}
            () = limit => {}
        }
    }

    /// The root has ended: nothing begins any more, and what was handed to the store is waited for. What is tidied
    /// has the store until it is done.
    async fn lets_go(&self, claim: Arc<Claim>) {
        if claim.is_in_order() {
            // Who stops it waits for that.
            return;
        }
        self.outcomes().await;
        if let Some(journal) = self.journal.get() {
            journal.all_written().await;
        }
        drop(claim);
    }
}
