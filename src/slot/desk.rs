//! The lock around what a slot knows.
//!
//! *Invariant.* Nothing of the user's is dropped while the lock is held: what is thrown away meanwhile
//! is kept until it is released, and dropped under a guard.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use parking_lot::MutexGuard;

use super::{Desk, Out};
use crate::fault::ExitCause;
use crate::moment::Moment;
use crate::slot::worker::{Worker, unwound};

/// How the last life ended.
pub(crate) struct LastEnd {
    pub(crate) cause: ExitCause,
    pub(crate) at: Moment,
    /// When the next one is due, if that is not at once.
    pub(crate) resumes: Option<Moment>,
}

impl LastEnd {
    pub(crate) fn new(cause: ExitCause, at: Moment) -> Self {
        Self { cause, at, resumes: None }
    }
}

/// The desk of a slot, locked.
pub(crate) struct Locked<'a, W: Worker>(MutexGuard<'a, Desk<W>>);

impl<'a, W: Worker> Locked<'a, W> {
    pub(super) fn new(guard: MutexGuard<'a, Desk<W>>) -> Self {
        Self(guard)
    }
}

impl<W: Worker> Deref for Locked<'_, W> {
    type Target = Desk<W>;

    fn deref(&self) -> &Desk<W> {
        &self.0
    }
}

impl<W: Worker> DerefMut for Locked<'_, W> {
    fn deref_mut(&mut self) -> &mut Desk<W> {
        &mut self.0
    }
}

impl<W: Worker> Drop for Locked<'_, W> {
    fn drop(&mut self) {
        if self.0.rubbish.is_empty() {
            return;
        }
        let rubbish = std::mem::take(&mut self.0.rubbish);
        MutexGuard::unlocked(&mut self.0, move || {
            for value in rubbish {
                let _ = unwound(move || drop(value));
            }
        });
    }
}

impl<W: Worker> Desk<W> {
    /// Keeps a user value until the lock is released.
    pub(crate) fn discard(&mut self, value: impl Send + 'static) {
        self.rubbish.push(Box::new(value));
    }

    /// An attempt is no longer listened to. Whoever still works on it is a zombie.
    pub(crate) fn abandon(&mut self, out: &Out) {
        self.zombies.retain(|zombie| zombie.strong_count() > 0);
        self.zombies.push(Arc::downgrade(&out.flight));
    }

    /// Attempts that were given up and have not come back.
    pub(crate) fn zombies(&self) -> usize {
        self.zombies.iter().filter(|zombie| zombie.strong_count() > 0).count()
    }
}
