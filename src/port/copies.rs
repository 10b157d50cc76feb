//! A request that is out at two members of its group at a time.
//!
//! *Invariant.* Whoever fails with a copy gives it up under the lock of the book, so of two members that
//! fail at the same moment exactly one is the last, and goes on with the request.

use std::sync::atomic::Ordering;

use super::envelope::{BOOKED, Book, Envelope, HEDGED};
use crate::id::Delivery;

/// Who has a copy.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    /// The members, a bit each; none when there is only one copy.
    out: u64,
    /// The member that got the second copy.
    second: usize,
    /// It counts as more than one request under way.
    pub(crate) extra: bool,
}

impl<Q, R> Envelope<Q, R> {
    /// A second copy is about to go to `to`, while `from` has the first and has handed it out as
    /// `delivery`. False when something has failed already: then the ladder has it.
    pub(crate) fn begin_copy(&self, from: usize, to: usize, delivery: Delivery) -> bool {
        let mut slot = self.book.lock();
        if slot.is_some() || self.is_fated() || self.is_cancelled() {
            return false;
        }
        let mut book = Book::new(from, delivery);
        book.history.mark_tried(to);
        book.copies.out = 1 << from | 1 << to;
        book.copies.second = to;
        *slot = Some(book);
        self.state.fetch_or(BOOKED | HEDGED, Ordering::AcqRel);
        true
    }

    /// Whether there was a second copy at some time.
    pub(crate) fn was_copied(&self) -> bool {
        self.state.load(Ordering::Acquire) & HEDGED != 0
    }

    /// The members that have a copy, while there is more than one or the other has failed.
    pub(crate) fn copies(&self) -> Vec<usize> {
        if !self.was_copied() {
            return Vec::new();
        }
        self.book().map(|book| members(book.copies.out)).unwrap_or_default()
    }

    /// `member` has lost its copy. True when another still has one: nothing is to be done about the
    /// request here any more.
    pub(crate) fn give_up_copy(&self, member: usize) -> bool {
        if !self.was_copied() {
            return false;
        }
        let Some(mut book) = self.book() else { return false };
        let left = book.copies.give_up(member);
        drop(book);
        match left {
            Some(other) => {
                self.set_member(other);
                true
            }
            None => false,
        }
    }

    /// The request has its fate: those that still have a copy, and whether `winner`, if it answered, had
    /// the second one.
    pub(crate) fn end_copies(&self, winner: Option<usize>) -> (Vec<usize>, bool) {
        if !self.was_copied() {
            return (Vec::new(), false);
        }
        let Some(mut book) = self.book() else { return (Vec::new(), false) };
        let out = std::mem::take(&mut book.copies.out);
        let won = out != 0 && winner == Some(book.copies.second);
        let others = members(out).into_iter().filter(|member| Some(*member) != winner);
        (others.collect(), won)
    }

    /// The number that the next hand-out of a copy follows, when another copy may have been handed out
    /// meanwhile: it is nobody else's.
    pub(crate) fn next_delivery(&self) -> Option<Delivery> {
        if !self.was_copied() {
            return None;
        }
        let mut book = self.book()?;
        let before = book.deliveries;
        book.deliveries = before.next();
        Some(before)
    }
}

impl Copies {
    /// How many have a copy beside one of them.
    pub(crate) const fn others(&self) -> u32 {
        self.out.count_ones().saturating_sub(1)
    }

    /// Whether this member has the second of two copies that are out.
    pub(crate) const fn is_second(&self, member: usize) -> bool {
        self.others() > 0 && self.second == member
    }

    /// Whether this member has a copy.
    pub(crate) const fn has(&self, member: usize) -> bool {
        self.out & (1 << member) != 0
    }

    /// Takes this member's bit; who else has a copy, if anybody has.
    pub(crate) fn give_up(&mut self, member: usize) -> Option<usize> {
        if !self.has(member) {
            return None;
        }
        self.out &= !(1 << member);
        (self.out != 0).then(|| self.out.trailing_zeros() as usize)
    }
}

fn members(out: u64) -> Vec<usize> {
    (0..u64::BITS as usize).filter(|member| out & (1 << member) != 0).collect()
}
