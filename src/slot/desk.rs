//! The lock around what a slot knows, and what is counted under it.
//!
//! *Invariant.* Nothing of the user's is dropped while the lock is held: what is thrown away meanwhile
//! is kept until it is released, and dropped under a guard.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use parking_lot::MutexGuard;

use super::{Desk, Out};
use crate::fate::{Ended, Fate, FateCounts};
use crate::fault::ExitCause;
use crate::id::Incarnation;
use crate::mailbox::Ticket;
use crate::moment::Moment;
use crate::port::{Cut, Flight};
use crate::slot::worker::{Worker, dropped};

/// How the last life ended, or the last attempt failed, whichever was later.
pub(crate) struct LastEnd {
    pub(crate) ended: Ended,
    pub(crate) at: Moment,
    /// When the next one is due, if that is not at once.
    pub(crate) resumes: Option<Moment>,
}

impl LastEnd {
    pub(crate) fn new(cause: &ExitCause, at: Moment) -> Self {
        Self { ended: Ended::Exit(cause.kind()), at, resumes: None }
    }
}

/// The desk of a slot, locked.
pub(crate) struct Locked<'a, W: Worker>(MutexGuard<'a, Desk<W>>);

impl<'a, W: Worker> Locked<'a, W> {
    pub(super) fn new(guard: MutexGuard<'a, Desk<W>>) -> Self {
        Self(guard)
    }
}

impl<W: Worker> Locked<'_, W> {
    /// Drops what was thrown away, and what is rare when nothing of it is left.
    #[cold]
    fn tidy(&mut self) {
        let Some(rare) = &mut self.0.rare else { return };
        let rubbish = std::mem::take(&mut rare.rubbish);
        rare.zombies.retain(|zombie| zombie.strong_count() > 0);
        if rare.is_empty() {
            self.0.rare = None;
        }
        if rubbish.is_empty() {
            return;
        }
        MutexGuard::unlocked(&mut self.0, move || {
            for value in rubbish {
                let _ = dropped(value);
            }
        });
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
        if self.0.rare.is_some() {
            self.tidy();
        }
    }
}

impl<W: Worker> Desk<W> {
    /// The flight of an attempt that is out.
    pub(crate) fn flight(&self, ticket: Ticket) -> Option<&Arc<Flight>> {
        self.flight_of(self.out.iter().find(|out| out.ticket == ticket)?)
    }

    /// The flight of this attempt: its own, or that of the carrier.
    pub(crate) fn flight_of<'a>(&'a self, out: &'a Out) -> Option<&'a Arc<Flight>> {
        out.flight.as_ref().or(self.flight.as_ref())
    }

    /// Asks every attempt that is out to end.
    pub(crate) fn ask_all(&self, cut: Cut) {
        for out in &self.out {
            if let Some(flight) = self.flight_of(out) {
                flight.ask(cut);
            }
        }
    }

    /// The carrier is given up, and its flight with it.
    pub(crate) fn forget_carrier(&mut self) {
        self.carrier_no = self.carrier_no.wrapping_add(1);
        self.woken = false;
        self.waker = None;
        // What it leaves behind is still asked through it.
        if let Some(flight) = self.flight.take() {
            for out in &mut self.out {
                out.flight.get_or_insert_with(|| Arc::clone(&flight));
            }
        }
    }

    /// An attempt has failed so. A wait for the next life goes on.
    pub(crate) fn attempt_failed(&mut self, ended: Ended, at: Moment) {
        let resumes = self.last_cause.as_ref().and_then(|last| last.resumes);
        self.last_cause = Some(Box::new(LastEnd { ended, at, resumes }));
    }

    /// Keeps a user value until the lock is released.
    pub(crate) fn discard(&mut self, value: impl Send + 'static) {
        self.rare().rubbish.push(Box::new(value));
    }

    /// Whether this life is the one that is up.
    pub(crate) fn is_in(&self, life: Incarnation) -> bool {
        self.life.is_up() && self.life.incarnation() == life
    }

    /// An attempt is no longer listened to. Whoever still works on it is a zombie.
    pub(crate) fn abandon(&mut self, out: &Out) {
        let flight = out.flight.as_ref().or(self.flight.as_ref()).map(Arc::downgrade);
        let zombies = &mut self.rare().zombies;
        zombies.retain(|zombie| zombie.strong_count() > 0);
        zombies.extend(flight);
    }
}

/// Fates without `open`, which is counted by looking. Most children only ever see one kind.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) accepted: u64,
    done: u64,
    /// Hand-outs.
    pub(crate) attempts: u64,
    others: Option<Box<FateCounts>>,
    /// Requests in this mailbox that a group has accepted and counts.
    pub(crate) guests: u32,
}

impl Counts {
    pub(super) fn add(&mut self, fate: Fate) {
        match fate {
            Fate::Done => self.done += 1,
            other => self.others.get_or_insert_default().add(other),
        }
    }

    /// What was counted, with so many open.
    pub(crate) fn fates(&self, open: usize) -> FateCounts {
        let mut fates = self.others.as_deref().copied().unwrap_or_default();
        fates.accepted = self.accepted;
        fates.done = self.done;
        fates.open = open as u64;
        fates
    }
}
