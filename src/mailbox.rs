//! The requests of one child: waiting, leased out, held back for a retry.
//!
//! The mailbox belongs to the child and not to one of its lives, so nothing that was accepted is lost
//! with a life. A machine: [`Mailbox::on`] takes an [`Input`] and the time, and says what came of it.
//!
//! *Invariant.* Payloads are opaque: the mailbox never looks into one, and never drops one that it has
//! not handed back. It knows no clock, no channel and no actor. Every entry is in exactly one place,
//! so what is open can be counted by looking.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::id::{Delivery, Lease, RequestId};
use crate::moment::Moment;

#[cfg(test)]
mod tests;

/// How much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Requests that may wait, those held back for a retry included.
    pub count: usize,
    /// Bytes that may wait, by the weights given with the requests; `None` for no bound.
    pub bytes: Option<usize>,
    /// How many more may wait when they come as substitutes from a sibling.
    pub reserve: usize,
}

/// How requests are worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// One at a time; one that is held back for a retry keeps its place before the others.
    Serial,
    /// Up to this many at a time; while one is held back, others go on.
    Concurrent(usize),
}

/// A request as the mailbox sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<T> {
    /// Which request.
    pub id: RequestId,
    /// When it must have its fate.
    pub deadline: Moment,
    /// Its weight.
    pub bytes: usize,
    /// How often it has been handed out so far.
    pub delivery: Delivery,
    /// The request itself.
    pub payload: T,
}

/// Where a leased entry is kept: names one hand-out, and finds it without a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// Which hand-out.
    pub lease: Lease,
    index: u32,
}

/// What happens to a mailbox.
#[derive(Debug)]
pub enum Input<T> {
    /// A request comes; `substitute` may use the reserve.
    Offer {
        /// The request.
        entry: Entry<T>,
        /// Whether it comes from a sibling.
        substitute: bool,
    },
    /// A request that was accepted before comes back. It has its place, whatever the bounds are now.
    Readmit(Entry<T>),
    /// A worker asks for work, which it must end by `limit`.
    Take {
        /// When the attempt is over.
        limit: Moment,
    },
    /// The request of this hand-out has ended.
    Finish(Ticket),
    /// The request of this hand-out is tried again at this moment.
    RetryAt(Ticket, Moment),
    /// The request of this hand-out was interrupted without its fault: back to the front.
    Interrupt(Ticket),
    /// The attempt of this hand-out may take until this moment.
    Extend(Ticket, Moment),
    /// The request of this hand-out must have its fate by this moment instead.
    Due(Ticket, Moment),
    /// The caller has left.
    Cancel(RequestId),
    /// A request that is held back need not wait any longer: to the front.
    Release(RequestId),
    /// Time has passed.
    Tick,
    /// Everything must go, what is leased included.
    Drain,
}

/// What came of an [`Input`].
#[derive(Debug, PartialEq, Eq)]
pub enum Output<T> {
    /// The request waits.
    Accepted,
    /// There is no room: here it is again.
    Full(T),
    /// Work.
    Leased {
        /// The hand-out.
        ticket: Ticket,
        /// The request.
        payload: T,
    },
    /// Nothing can be handed out now.
    Nothing,
    /// The entry has left the mailbox.
    Finished(T),
    /// The entry waits again.
    Waiting,
    /// The request had its fate already; its hand-out is over.
    Orphan(T),
    /// That hand-out is not current.
    Stale,
    /// The entry was waiting and has left the mailbox.
    Removed(T),
    /// The entry is leased out.
    InFlight(Ticket),
    /// There is no such entry.
    Unknown,
    /// What the time has done.
    Ticked(Ticked<T>),
    /// Everything that was open; leased entries become orphans and stand last.
    Drained(Vec<T>),
}

/// What passed with the time.
#[derive(Debug, PartialEq, Eq)]
pub struct Ticked<T> {
    /// Waiting requests past their deadline; they have left.
    pub expired: Vec<T>,
    /// Leased requests past their deadline; the hand-out goes on as an orphan.
    pub orphaned: Vec<(Ticket, T)>,
    /// Hand-outs past their limit.
    pub overdue: Vec<Ticket>,
    /// How many requests came back from being held.
    pub released: usize,
}

impl<T> Default for Ticked<T> {
    fn default() -> Self {
        Self { expired: Vec::new(), orphaned: Vec::new(), overdue: Vec::new(), released: 0 }
    }
}

#[derive(Debug)]
struct Leased<T> {
    entry: Entry<T>,
    since: Moment,
    limit: Moment,
    orphan: bool,
}

/// Where a hand-out is kept.
#[derive(Debug)]
enum Place<T> {
    Out(Leased<T>),
    /// Free, as is the one with this number, and so on; [`NONE`] at the end.
    Free(u32),
}

/// No place.
const NONE: u32 = u32::MAX;

impl<T> Place<T> {
    const fn out(&self) -> Option<&Leased<T>> {
        match self {
            Self::Out(leased) => Some(leased),
            Self::Free(_) => None,
        }
    }

    const fn out_mut(&mut self) -> Option<&mut Leased<T>> {
        match self {
            Self::Out(leased) => Some(leased),
            Self::Free(_) => None,
        }
    }
}

/// What is held back for a retry, and how often that was done.
#[derive(Debug)]
struct Back<T> {
    heap: BinaryHeap<Reverse<Held<T>>>,
    order: u64,
}

impl<T> Default for Back<T> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), order: 0 }
    }
}

#[derive(Debug)]
struct Held<T> {
    due: Moment,
    order: u64,
    entry: Entry<T>,
}

impl<T> PartialEq for Held<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.due, self.order) == (other.due, other.order)
    }
}
impl<T> Eq for Held<T> {}
impl<T> PartialOrd for Held<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Held<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.order).cmp(&(other.due, other.order))
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct Mailbox<T> {
    waiting: VecDeque<Entry<T>>,
    /// There only while something is held back: most mailboxes never hold anything.
    back: Option<Box<Back<T>>>,
    leased: Vec<Place<T>>,
    /// The first free place.
    free: u32,
    // Both bounded by the concurrency of a child, which is a u32.
    in_flight: u32,
    orphans: u32,
    bytes: usize,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            back: None,
            leased: Vec::new(),
            free: NONE,
            in_flight: 0,
            orphans: 0,
            bytes: 0,
        }
    }
}

/// A hand-out, for the dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flight<'a, T> {
    /// Which hand-out.
    pub ticket: Ticket,
    /// Since when.
    pub since: Moment,
    /// Until when.
    pub limit: Moment,
    /// Whether its request has its fate already.
    pub orphan: bool,
    /// The request.
    pub payload: &'a T,
}

impl<T: Clone> Mailbox<T> {
    /// Requests that wait, those held back included.
    pub fn depth(&self) -> usize {
        self.waiting.len() + self.held().len()
    }

    /// Those that are held back, in no order.
    fn held(&self) -> impl ExactSizeIterator<Item = &Held<T>> {
        let heap = self.back.as_ref().map_or(&[][..], |back| back.heap.as_slice());
        heap.iter().map(|held| &held.0)
    }

    /// The requests that wait for their turn, those held back excluded, with their hand-outs so far.
    pub fn waiting(&self) -> impl Iterator<Item = (RequestId, Delivery, &T)> {
        self.waiting.iter().map(|entry| (entry.id, entry.delivery, &entry.payload))
    }

    /// Whether something is held back for a retry.
    pub fn is_holding(&self) -> bool {
        self.back.is_some()
    }

    /// When the next request that is held back for a retry is due.
    pub fn held_until(&self) -> Option<Moment> {
        self.back.as_ref()?.heap.peek().map(|held| held.0.due)
    }

    /// Hand-outs that are out, orphans included.
    pub fn in_flight(&self) -> usize {
        self.in_flight as usize
    }

    /// Requests without a fate.
    pub fn open(&self) -> usize {
        self.depth() + (self.in_flight - self.orphans) as usize
    }

    /// Whether something like this waits, held back entries included.
    pub fn any_waiting(&self, like: impl Fn(&T) -> bool) -> bool {
        self.waiting.iter().any(|entry| like(&entry.payload))
            || self.held().any(|held| like(&held.entry.payload))
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a worker would get something now. Hand-outs of orphans still hold their place.
    #[inline]
    pub fn has_work(&self, order: Order) -> bool {
        if self.waiting.is_empty() {
            return false;
        }
        match order {
            Order::Serial => self.in_flight == 0 && self.back.is_none(),
            Order::Concurrent(limit) => self.in_flight() < limit,
        }
    }

    /// The next moment at which time alone changes something.
    pub fn next_due(&self) -> Moment {
        let mut due = Moment::NEVER;
        for entry in &self.waiting {
            due = due.min(entry.deadline);
        }
        for held in self.held() {
            due = due.min(held.due).min(held.entry.deadline);
        }
        for leased in self.leased.iter().filter_map(Place::out) {
            due = due.min(leased.limit);
            if !leased.orphan {
                due = due.min(leased.entry.deadline);
            }
        }
        due
    }

    /// The hand-outs that are out.
    pub fn flights(&self) -> impl Iterator<Item = Flight<'_, T>> {
        self.leased.iter().enumerate().filter_map(|(index, leased)| {
            let leased = leased.out()?;
            Some(Flight {
                ticket: Ticket { lease: leased.lease(), index: index as u32 },
                since: leased.since,
                limit: leased.limit,
                orphan: leased.orphan,
                payload: &leased.entry.payload,
            })
        })
    }

    /// The hand-out of this ticket, if it is current.
    pub fn flight(&self, ticket: Ticket) -> Option<Flight<'_, T>> {
        let leased = self.leased.get(ticket.index as usize)?.out()?;
        (leased.lease() == ticket.lease).then_some(Flight {
            ticket,
            since: leased.since,
            limit: leased.limit,
            orphan: leased.orphan,
            payload: &leased.entry.payload,
        })
    }

    /// Feeds one input. `bounds` and `order` are the child's, handed in so that a million mailboxes
    /// need not keep a copy each.
    // Each caller knows which input it feeds: inlined, the choice and the copies around it are gone.
    #[inline(always)]
    pub fn on(&mut self, input: Input<T>, bounds: &Bounds, order: Order, now: Moment) -> Output<T> {
        match input {
            Input::Offer { entry, substitute } => self.offer(entry, substitute, bounds),
            Input::Readmit(mut entry) => {
                // Its weight fills what room there is to count in.
                entry.bytes = entry.bytes.min(usize::MAX - self.bytes);
                self.put(entry)
            }
            Input::Take { limit } => self.take(limit, order, now),
            Input::Finish(ticket) => match self.give_back(ticket) {
                Some(leased) if leased.orphan => Output::Orphan(leased.entry.payload),
                Some(leased) => Output::Finished(leased.entry.payload),
                None => Output::Stale,
            },
            Input::RetryAt(ticket, due) => self.retry_at(ticket, due, order, now),
            Input::Interrupt(ticket) => match self.give_back(ticket) {
                Some(leased) if leased.orphan => Output::Orphan(leased.entry.payload),
                Some(leased) => {
                    self.bytes += leased.entry.bytes;
                    self.waiting.push_front(leased.entry);
                    Output::Waiting
                }
                None => Output::Stale,
            },
            Input::Extend(ticket, limit) => match self.current(ticket) {
                Some(leased) => {
                    leased.limit = limit;
                    Output::Waiting
                }
                None => Output::Stale,
            },
            Input::Due(ticket, deadline) => match self.current(ticket) {
                Some(leased) => {
                    leased.entry.deadline = deadline;
                    Output::Waiting
                }
                None => Output::Stale,
            },
            Input::Cancel(id) => self.cancel(id),
            Input::Release(id) => self.release(id),
            Input::Tick => Output::Ticked(self.tick(now)),
            Input::Drain => Output::Drained(self.drain()),
        }
    }

    #[inline(always)]
    fn offer(&mut self, entry: Entry<T>, substitute: bool, bounds: &Bounds) -> Output<T> {
        let count = bounds.count + if substitute { bounds.reserve } else { 0 };
        let heavy =
            bounds.bytes.is_some_and(|limit| self.bytes.saturating_add(entry.bytes) > limit);
        if self.depth() >= count || heavy {
            return Output::Full(entry.payload);
        }
        self.put(entry)
    }

    #[inline(always)]
    fn put(&mut self, entry: Entry<T>) -> Output<T> {
        self.bytes += entry.bytes;
        if self.waiting.capacity() == 0 {
            // Most mailboxes never hold more than one: room for the usual four is not taken.
            self.waiting.reserve_exact(1);
        }
        self.waiting.push_back(entry);
        Output::Accepted
    }

    #[inline(always)]
    fn take(&mut self, limit: Moment, order: Order, now: Moment) -> Output<T> {
        if !self.has_work(order) {
            return Output::Nothing;
        }
        // One whose time is over is not begun any more: the next tick gives it its fate.
        if self.waiting.front().is_none_or(|entry| entry.deadline <= now) {
            return Output::Nothing;
        }
        let Some(mut entry) = self.waiting.pop_front() else { return Output::Nothing };
        self.bytes -= entry.bytes;
        entry.delivery = entry.delivery.next();
        let lease = Lease { request: entry.id, delivery: entry.delivery };
        let payload = entry.payload.clone();
        let leased = Leased { entry, since: now, limit, orphan: false };
        self.in_flight += 1;
        let mut index = self.free;
        match self.leased.get_mut(index as usize) {
            Some(place) => {
                if let Place::Free(next) = place {
                    self.free = *next;
                }
                *place = Place::Out(leased);
            }
            None => {
                if self.leased.capacity() == 0 {
                    self.leased.reserve_exact(1);
                }
                index = self.leased.len() as u32;
                self.leased.push(Place::Out(leased));
            }
        }
        Output::Leased { ticket: Ticket { lease, index }, payload }
    }

    fn current(&mut self, ticket: Ticket) -> Option<&mut Leased<T>> {
        let leased = self.leased.get_mut(ticket.index as usize)?.out_mut()?;
        (leased.lease() == ticket.lease).then_some(leased)
    }

    #[inline]
    fn give_back(&mut self, ticket: Ticket) -> Option<Leased<T>> {
        self.current(ticket)?;
        let free = Place::Free(self.free);
        let Place::Out(leased) = std::mem::replace(&mut self.leased[ticket.index as usize], free)
        else {
            return None;
        };
        self.free = ticket.index;
        self.in_flight -= 1;
        if leased.orphan {
            self.orphans -= 1;
        }
        Some(leased)
    }

    fn retry_at(&mut self, ticket: Ticket, due: Moment, order: Order, now: Moment) -> Output<T> {
        let Some(leased) = self.give_back(ticket) else { return Output::Stale };
        if leased.orphan {
            return Output::Orphan(leased.entry.payload);
        }
        self.bytes += leased.entry.bytes;
        if due <= now {
            match order {
                Order::Serial => self.waiting.push_front(leased.entry),
                Order::Concurrent(_) => self.waiting.push_back(leased.entry),
            }
        } else {
            let back = self.back.get_or_insert_default();
            back.order += 1;
            back.heap.push(Reverse(Held { due, order: back.order, entry: leased.entry }));
        }
        Output::Waiting
    }

    fn release(&mut self, id: RequestId) -> Output<T> {
        match self.take_held(id) {
            Some(entry) => {
                self.waiting.push_front(entry);
                Output::Waiting
            }
            None => Output::Unknown,
        }
    }

    fn take_held(&mut self, id: RequestId) -> Option<Entry<T>> {
        let back = self.back.as_mut()?;
        let mut held = std::mem::take(&mut back.heap).into_vec();
        let found = held.iter().position(|held| held.0.entry.id == id);
        let found = found.map(|at| held.swap_remove(at).0.entry);
        back.heap = BinaryHeap::from(held);
        self.drop_back();
        found
    }

    /// Nothing is held back any more: what holds it is not needed.
    fn drop_back(&mut self) {
        if self.back.as_ref().is_some_and(|back| back.heap.is_empty()) {
            self.back = None;
        }
    }

    fn cancel(&mut self, id: RequestId) -> Output<T> {
        if let Some(at) = self.waiting.iter().position(|entry| entry.id == id)
            && let Some(entry) = self.waiting.remove(at)
        {
            self.bytes -= entry.bytes;
            return Output::Removed(entry.payload);
        }
        if let Some(entry) = self.take_held(id) {
            self.bytes -= entry.bytes;
            return Output::Removed(entry.payload);
        }
        let in_flight = self.flights().find(|flight| flight.ticket.lease.request == id);
        match in_flight {
            Some(flight) => Output::InFlight(flight.ticket),
            None => Output::Unknown,
        }
    }

    /// Numbers the next hand-out of a request that waits so that it follows `delivery`, when that is
    /// more: it was handed out elsewhere meanwhile.
    pub fn raise(&mut self, id: RequestId, delivery: Delivery) {
        for entry in self.waiting.iter_mut().filter(|entry| entry.id == id) {
            entry.delivery = entry.delivery.max(delivery);
        }
        if let Some(back) = &mut self.back {
            let mut held = std::mem::take(&mut back.heap).into_vec();
            for Reverse(held) in held.iter_mut().filter(|held| held.0.entry.id == id) {
                held.entry.delivery = held.entry.delivery.max(delivery);
            }
            back.heap = BinaryHeap::from(held);
        }
    }

    /// Gives a leased request its fate before its hand-out ends; the hand-out becomes an orphan.
    pub fn orphan(&mut self, ticket: Ticket) -> Option<T> {
        let leased = self.current(ticket)?;
        if leased.orphan {
            return None;
        }
        leased.orphan = true;
        let payload = leased.entry.payload.clone();
        self.orphans += 1;
        Some(payload)
    }

    fn tick(&mut self, now: Moment) -> Ticked<T> {
        let mut ticked = Ticked::default();
        if self.waiting.iter().any(|entry| entry.deadline <= now) {
            for entry in std::mem::take(&mut self.waiting) {
                if entry.deadline <= now {
                    self.bytes -= entry.bytes;
                    ticked.expired.push(entry.payload);
                } else {
                    self.waiting.push_back(entry);
                }
            }
        }
        if self.held().any(|held| held.due <= now || held.entry.deadline <= now)
            && let Some(back) = &mut self.back
        {
            let mut due = Vec::new();
            for held in std::mem::take(&mut back.heap) {
                if held.0.entry.deadline <= now {
                    self.bytes -= held.0.entry.bytes;
                    ticked.expired.push(held.0.entry.payload);
                } else if held.0.due <= now {
                    due.push(held.0);
                } else {
                    back.heap.push(held);
                }
            }
            self.drop_back();
            due.sort();
            ticked.released = due.len();
            // A retry has waited its turn already: it goes before those that came later.
            for held in due.into_iter().rev() {
                self.waiting.push_front(held.entry);
            }
        }
        for (index, slot) in self.leased.iter_mut().enumerate() {
            let Some(leased) = slot.out_mut() else { continue };
            let ticket = Ticket { lease: leased.lease(), index: index as u32 };
            if !leased.orphan && leased.entry.deadline <= now {
                leased.orphan = true;
                self.orphans += 1;
                ticked.orphaned.push((ticket, leased.entry.payload.clone()));
            }
            if leased.limit <= now {
                ticked.overdue.push(ticket);
            }
        }
        ticked
    }

    fn drain(&mut self) -> Vec<T> {
        let mut all: Vec<T> = Vec::with_capacity(self.open());
        all.extend(self.waiting.drain(..).map(|entry| entry.payload));
        let mut held = self.back.take().map(|back| back.heap.into_vec()).unwrap_or_default();
        held.sort_by(|one, other| one.0.cmp(&other.0));
        all.extend(held.into_iter().map(|held| held.0.entry.payload));
        self.bytes = 0;
        for leased in self.leased.iter_mut().filter_map(Place::out_mut) {
            if !leased.orphan {
                leased.orphan = true;
                self.orphans += 1;
                all.push(leased.entry.payload.clone());
            }
        }
        all
    }

    /// Returns memory that a burst has left.
    pub fn shrink(&mut self) {
        if self.waiting.is_empty() && self.waiting.capacity() > 64 {
            self.waiting.shrink_to(16);
        }
    }
}

impl<T> Leased<T> {
    fn lease(&self) -> Lease {
        Lease { request: self.entry.id, delivery: self.entry.delivery }
    }
}
