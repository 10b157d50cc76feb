//! The mailbox against a list that is searched each time, and stories with numbers.

use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

use super::*;

const fn at(millis: u64) -> Moment {
    Moment::from_millis(millis)
}

/// Where a request is; each is in one place.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    /// The smallest rank is in front.
    Waiting(i64),
    Held {
        due: u64,
        order: u64,
    },
    Leased {
        limit: u64,
        orphan: bool,
    },
    Gone,
}

#[derive(Clone, Debug)]
struct Request {
    deadline: u64,
    bytes: usize,
    delivery: u32,
    place: Place,
}

/// What an output comes to, without what only the mailbox knows.
#[derive(Clone, Debug, PartialEq)]
enum Said {
    Plain(&'static str),
    One(&'static str, u64),
    Leased(u64, u32),
    Ticked { expired: Vec<u64>, orphaned: Vec<u64>, overdue: Vec<u64>, released: usize },
    Drained { waited: Vec<u64>, leased: Vec<u64> },
}

/// A list of every request there ever was; its number is its place in the list.
#[derive(Clone, Debug)]
struct Model {
    order: Order,
    bounds: Bounds,
    now: u64,
    all: Vec<Request>,
    /// Every hand-out there ever was, current or not.
    handed: Vec<(usize, u32)>,
    said: Said,
}

#[derive(Clone, Debug)]
enum Move {
    Wait(u64),
    Offer { life: u64, bytes: usize, substitute: bool },
    Readmit { life: u64, bytes: usize },
    Take(u64),
    Finish(usize),
    RetryAfter(usize, u64),
    Interrupt(usize),
    Extend(usize, u64),
    Due(usize, u64),
    Orphan(usize),
    Cancel(u64),
    Release(u64),
    Tick,
    Drain,
}

impl Model {
    fn ids(&self, wanted: impl Fn(&Request) -> bool) -> Vec<u64> {
        (0..self.all.len()).filter(|n| wanted(&self.all[*n])).map(|n| n as u64).collect()
    }

    fn waiting(&self) -> Vec<u64> {
        let rank = |n: &u64| match self.all[*n as usize].place {
            Place::Waiting(rank) => rank,
            _ => 0,
        };
        let mut ids = self.ids(|request| matches!(request.place, Place::Waiting(_)));
        ids.sort_by_key(rank);
        ids
    }

    fn held(&self) -> Vec<u64> {
        let key = |n: &u64| match self.all[*n as usize].place {
            Place::Held { due, order } => (due, order),
            _ => (0, 0),
        };
        let mut ids = self.ids(|request| matches!(request.place, Place::Held { .. }));
        ids.sort_by_key(key);
        ids
    }

    fn leased(&self) -> Vec<u64> {
        self.ids(|request| matches!(request.place, Place::Leased { .. }))
    }

    fn depth(&self) -> usize {
        self.waiting().len() + self.held().len()
    }

    fn bytes(&self) -> usize {
        let inside = self.waiting().into_iter().chain(self.held());
        inside.map(|n| self.all[n as usize].bytes).sum()
    }

    fn open(&self) -> usize {
        let own = |request: &Request| matches!(request.place, Place::Leased { orphan: false, .. });
        self.depth() + self.ids(own).len()
    }

    fn front(&self) -> i64 {
        self.ranks().min().map_or(0, |rank| rank - 1)
    }

    fn back(&self) -> i64 {
        self.ranks().max().map_or(0, |rank| rank + 1)
    }

    fn ranks(&self) -> impl Iterator<Item = i64> {
        self.all.iter().filter_map(|request| match request.place {
            Place::Waiting(rank) => Some(rank),
            _ => None,
        })
    }

    fn has_work(&self) -> bool {
        !self.waiting().is_empty()
            && match self.order {
                Order::Serial => self.leased().is_empty() && self.held().is_empty(),
                Order::Concurrent(limit) => self.leased().len() < limit,
            }
    }

    fn next_due(&self) -> u64 {
        let due = |request: &Request| match request.place {
            Place::Waiting(_) => request.deadline,
            Place::Held { due, .. } => due.min(request.deadline),
            Place::Leased { limit, orphan: true } => limit,
            Place::Leased { limit, orphan: false } => limit.min(request.deadline),
            Place::Gone => u64::MAX,
        };
        self.all.iter().map(due).min().unwrap_or(u64::MAX)
    }

    /// Ends a hand-out: whose it was, and whether it was an orphan; `None` when it is not current.
    fn give_back(&mut self, handed: usize) -> Option<(usize, bool)> {
        let (id, delivery) = *self.handed.get(handed)?;
        let request = &mut self.all[id];
        match request.place {
            Place::Leased { orphan, .. } if request.delivery == delivery => {
                request.place = Place::Gone;
                Some((id, orphan))
            }
            _ => None,
        }
    }

    fn tell(&mut self, told: &Move) -> Said {
        let now = self.now;
        match *told {
            Move::Wait(_) => Said::Plain("nothing"),
            Move::Offer { life, bytes, substitute } => {
                let id = self.all.len() as u64;
                let count = self.bounds.count + if substitute { self.bounds.reserve } else { 0 };
                let heavy = self.bounds.bytes.is_some_and(|limit| self.bytes() + bytes > limit);
                let full = self.depth() >= count || heavy;
                let place = if full { Place::Gone } else { Place::Waiting(self.back()) };
                self.all.push(Request { deadline: now + life, bytes, delivery: 0, place });
                if full { Said::One("full", id) } else { Said::Plain("accepted") }
            }
            Move::Readmit { life, bytes } => {
                let place = Place::Waiting(self.back());
                self.all.push(Request { deadline: now + life, bytes, delivery: 0, place });
                Said::Plain("accepted")
            }
            Move::Take(time) => {
                let front = self.waiting().first().copied();
                match front.filter(|id| self.has_work() && self.all[*id as usize].deadline > now) {
                    None => Said::Plain("nothing"),
                    Some(id) => {
                        let request = &mut self.all[id as usize];
                        request.delivery += 1;
                        request.place = Place::Leased { limit: now + time, orphan: false };
                        self.handed.push((id as usize, request.delivery));
                        Said::Leased(id, request.delivery)
                    }
                }
            }
            Move::Finish(handed) => match self.give_back(handed) {
                None => Said::Plain("stale"),
                Some((id, true)) => Said::One("orphan", id as u64),
                Some((id, false)) => Said::One("finished", id as u64),
            },
            Move::RetryAfter(handed, delay) => match self.give_back(handed) {
                None => Said::Plain("stale"),
                Some((id, true)) => Said::One("orphan", id as u64),
                Some((id, false)) => {
                    self.all[id].place = match self.order {
                        // The order of holding is that of the calls: their number grows.
                        _ if delay > 0 => Place::Held { due: now + delay, order: self.turn() },
                        Order::Serial => Place::Waiting(self.front()),
                        Order::Concurrent(_) => Place::Waiting(self.back()),
                    };
                    Said::Plain("waiting")
                }
            },
            Move::Interrupt(handed) => match self.give_back(handed) {
                None => Said::Plain("stale"),
                Some((id, true)) => Said::One("orphan", id as u64),
                Some((id, false)) => {
                    self.all[id].place = Place::Waiting(self.front());
                    Said::Plain("waiting")
                }
            },
            Move::Extend(handed, time) => match self.give_back(handed) {
                None => Said::Plain("stale"),
                Some((id, orphan)) => {
                    self.all[id].place = Place::Leased { limit: now + time, orphan };
                    Said::Plain("waiting")
                }
            },
            Move::Due(handed, life) => {
                let before = self.handed.get(handed).map(|(id, _)| self.all[*id].place);
                match (self.give_back(handed), before) {
                    (Some((id, _)), Some(place)) => {
                        (self.all[id].place, self.all[id].deadline) = (place, now + life);
                        Said::Plain("waiting")
                    }
                    _ => Said::Plain("stale"),
                }
            }
            Move::Orphan(handed) => {
                let before = self.handed.get(handed).map(|(id, _)| self.all[*id].place);
                match (self.give_back(handed), before) {
                    (Some((id, orphan)), Some(Place::Leased { limit, .. })) => {
                        self.all[id].place = Place::Leased { limit, orphan: true };
                        if orphan { Said::Plain("none") } else { Said::One("orphaned", id as u64) }
                    }
                    _ => Said::Plain("none"),
                }
            }
            Move::Cancel(id) => match self.all.get_mut(id as usize) {
                Some(request) => match request.place {
                    Place::Leased { .. } => Said::One("in flight", id),
                    Place::Gone => Said::Plain("unknown"),
                    _ => {
                        request.place = Place::Gone;
                        Said::One("removed", id)
                    }
                },
                None => Said::Plain("unknown"),
            },
            Move::Release(id) => {
                let front = self.front();
                match self.all.get_mut(id as usize) {
                    Some(request) if matches!(request.place, Place::Held { .. }) => {
                        request.place = Place::Waiting(front);
                        Said::Plain("waiting")
                    }
                    _ => Said::Plain("unknown"),
                }
            }
            Move::Tick => self.tick(),
            Move::Drain => {
                let waited = [self.waiting(), self.held()].concat();
                let mut leased = Vec::new();
                for (id, request) in self.all.iter_mut().enumerate() {
                    match &mut request.place {
                        Place::Leased { orphan, .. } => {
                            if !std::mem::replace(orphan, true) {
                                leased.push(id as u64);
                            }
                        }
                        place => *place = Place::Gone,
                    }
                }
                Said::Drained { waited, leased }
            }
        }
    }

    fn turn(&self) -> u64 {
        let order = |request: &Request| match request.place {
            Place::Held { order, .. } => order + 1,
            _ => 0,
        };
        self.all.iter().map(order).max().unwrap_or(0)
    }

    fn tick(&mut self) -> Said {
        let now = self.now;
        let late = |request: &Request| request.deadline <= now;
        let waits =
            |request: &Request| matches!(request.place, Place::Waiting(_) | Place::Held { .. });
        let expired = self.ids(|request| waits(request) && late(request));
        for id in &expired {
            self.all[*id as usize].place = Place::Gone;
        }
        let due: Vec<_> = self
            .held()
            .into_iter()
            .filter(
                |id| matches!(self.all[*id as usize].place, Place::Held { due, .. } if due <= now),
            )
            .collect();
        for id in due.iter().rev() {
            self.all[*id as usize].place = Place::Waiting(self.front());
        }
        let (mut orphaned, mut overdue) = (Vec::new(), Vec::new());
        for (id, request) in self.all.iter_mut().enumerate() {
            let Place::Leased { limit, orphan } = &mut request.place else { continue };
            if *limit <= now {
                overdue.push(id as u64);
            }
            if request.deadline <= now && !std::mem::replace(orphan, true) {
                orphaned.push(id as u64);
            }
        }
        Said::Ticked { expired, orphaned, overdue, released: due.len() }
    }
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Move;

    fn init_state() -> BoxedStrategy<Self> {
        let order = prop_oneof![Just(Order::Serial), (1usize..4).prop_map(Order::Concurrent)];
        (order, 1usize..6, prop::option::of(20usize..60), 0usize..3)
            .prop_map(|(order, count, bytes, reserve)| Self {
                order,
                bounds: Bounds { count, bytes, reserve },
                now: 0,
                all: Vec::new(),
                handed: Vec::new(),
                said: Said::Plain("nothing"),
            })
            .boxed()
    }

    fn transitions(state: &Self) -> BoxedStrategy<Move> {
        let handed = 0..state.handed.len().max(1);
        let (all, time) = (state.all.len() as u64, 1u64..40);
        prop_oneof![
            4 => (0u64..25).prop_map(Move::Wait),
            10 => (0u64..100, 0usize..25, any::<bool>())
                .prop_map(|(life, bytes, substitute)| Move::Offer { life, bytes, substitute }),
            2 => (0u64..100, 0usize..25)
                .prop_map(|(life, bytes)| Move::Readmit { life, bytes }),
            10 => time.clone().prop_map(Move::Take),
            4 => handed.clone().prop_map(Move::Finish),
            4 => (handed.clone(), 0u64..30).prop_map(|(n, delay)| Move::RetryAfter(n, delay)),
            3 => handed.clone().prop_map(Move::Interrupt),
            1 => (handed.clone(), time).prop_map(|(n, time)| Move::Extend(n, time)),
            1 => (handed.clone(), 0u64..60).prop_map(|(n, life)| Move::Due(n, life)),
            1 => handed.prop_map(Move::Orphan),
            2 => (0..all + 1).prop_map(Move::Cancel),
            2 => (0..all + 1).prop_map(Move::Release),
            4 => Just(Move::Tick),
            1 => Just(Move::Drain),
        ]
        .boxed()
    }

    fn apply(mut state: Self, transition: &Move) -> Self {
        if let Move::Wait(time) = transition {
            state.now += time;
        }
        state.said = state.tell(transition);
        state
    }
}

struct Mailboxes;

fn said(output: Output<u64>) -> Said {
    let sorted = |mut ids: Vec<u64>| {
        ids.sort_unstable();
        ids
    };
    match output {
        Output::Accepted => Said::Plain("accepted"),
        Output::Full(id) => Said::One("full", id),
        Output::Leased { ticket, payload } => Said::Leased(payload, ticket.lease.delivery.0),
        Output::Nothing => Said::Plain("nothing"),
        Output::Finished(id) => Said::One("finished", id),
        Output::Waiting => Said::Plain("waiting"),
        Output::Orphan(id) => Said::One("orphan", id),
        Output::Stale => Said::Plain("stale"),
        Output::Removed(id) => Said::One("removed", id),
        Output::InFlight(ticket) => Said::One("in flight", ticket.lease.request.0),
        Output::Unknown => Said::Plain("unknown"),
        Output::Ticked(ticked) => Said::Ticked {
            expired: sorted(ticked.expired),
            orphaned: sorted(ticked.orphaned.into_iter().map(|(_, id)| id).collect()),
            overdue: sorted(ticked.overdue.iter().map(|out| out.lease.request.0).collect()),
            released: ticked.released,
        },
        Output::Drained(all) => Said::Drained { waited: all, leased: Vec::new() },
    }
}

impl StateMachineTest for Mailboxes {
    type SystemUnderTest = (Mailbox<u64>, Vec<Ticket>, u64);
    type Reference = Model;

    fn init_test(_: &Model) -> Self::SystemUnderTest {
        (Mailbox::default(), Vec::new(), 0)
    }

    fn apply(
        (mut mailbox, mut tickets, mut next): Self::SystemUnderTest,
        model: &Model,
        told: Move,
    ) -> Self::SystemUnderTest {
        let now = at(model.now);
        let ticket = |n: usize| tickets.get(n).copied();
        let input = match told {
            Move::Wait(_) => None,
            Move::Offer { life, bytes, .. } | Move::Readmit { life, bytes } => {
                let id = RequestId(next);
                next += 1;
                let deadline = at(model.now + life);
                let delivery = Delivery::NONE;
                let entry = Entry { id, deadline, bytes, delivery, payload: id.0 };
                Some(match told {
                    Move::Offer { substitute, .. } => Input::Offer { entry, substitute },
                    _ => Input::Readmit(entry),
                })
            }
            Move::Take(time) => Some(Input::Take { limit: at(model.now + time) }),
            Move::Finish(n) => ticket(n).map(Input::Finish),
            Move::RetryAfter(n, delay) => {
                ticket(n).map(|ticket| Input::RetryAt(ticket, at(model.now + delay)))
            }
            Move::Interrupt(n) => ticket(n).map(Input::Interrupt),
            Move::Extend(n, time) => {
                ticket(n).map(|ticket| Input::Extend(ticket, at(model.now + time)))
            }
            Move::Due(n, life) => ticket(n).map(|ticket| Input::Due(ticket, at(model.now + life))),
            Move::Orphan(n) => {
                let orphaned = ticket(n).and_then(|ticket| mailbox.orphan(ticket));
                let said = orphaned.map_or(Said::Plain("none"), |id| Said::One("orphaned", id));
                assert_eq!(said, model.said);
                None
            }
            Move::Cancel(id) => Some(Input::Cancel(RequestId(id))),
            Move::Release(id) => Some(Input::Release(RequestId(id))),
            Move::Tick => Some(Input::Tick),
            Move::Drain => Some(Input::Drain),
        };
        if let Some(input) = input {
            let output = mailbox.on(input, &model.bounds, model.order, now);
            if let Output::Leased { ticket, .. } = &output {
                tickets.push(*ticket);
            }
            match (said(output), &model.said) {
                (Said::Drained { waited: mut all, .. }, Said::Drained { waited, leased }) => {
                    let mut last = all.split_off(waited.len());
                    last.sort_unstable();
                    assert_eq!((&all, &last), (waited, leased));
                }
                (said, expected) => assert_eq!(said, *expected),
            }
        }
        (mailbox, tickets, next)
    }

    fn check_invariants((mailbox, ..): &Self::SystemUnderTest, model: &Model) {
        assert_eq!(mailbox.depth(), model.depth());
        assert_eq!(mailbox.open(), model.open());
        assert_eq!(mailbox.bytes(), model.bytes());
        assert_eq!(mailbox.in_flight(), model.leased().len());
        assert_eq!(mailbox.is_holding(), !model.held().is_empty());
        assert_eq!(mailbox.has_work(model.order), model.has_work());
        let due = model.next_due();
        assert_eq!(mailbox.next_due(), if due == u64::MAX { Moment::NEVER } else { at(due) });
        let mut flights: Vec<_> = mailbox.flights().map(|flight| *flight.payload).collect();
        flights.sort_unstable();
        assert_eq!(flights, model.leased());
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn a_mailbox_behaves_like_a_list_that_is_searched(sequential 1..80 => Mailboxes);
}

#[test]
fn a_message_of_any_weight_is_given_back_and_never_overflows_the_count() {
    let bounds = Bounds { count: 4, bytes: Some(100), reserve: 0 };
    let mut mailbox = Mailbox::default();
    let entry = |id, bytes| Entry {
        id: RequestId(id),
        deadline: Moment::NEVER,
        bytes,
        delivery: Delivery::NONE,
        payload: id,
    };
    let mut offer = |id, bytes| {
        let input = Input::Offer { entry: entry(id, bytes), substitute: false };
        mailbox.on(input, &bounds, Order::Serial, Moment::START)
    };
    assert_eq!(offer(1, 60), Output::Accepted);
    assert_eq!(offer(2, usize::MAX), Output::Full(2));
    assert_eq!(offer(3, 40), Output::Accepted);
    assert_eq!(offer(4, 1), Output::Full(4));
    // Those that come back have their places, whatever they weigh; and the others have none.
    let mut readmit = |id, bytes| {
        let input = Input::Readmit(entry(id, bytes));
        mailbox.on(input, &bounds, Order::Serial, Moment::START)
    };
    assert_eq!(readmit(5, 30), Output::Accepted);
    assert_eq!(readmit(6, usize::MAX), Output::Accepted);
    assert_eq!(readmit(7, 1), Output::Accepted);
    for left in (0..5).rev() {
        let take = Input::Take { limit: Moment::NEVER };
        let taken = mailbox.on(take, &bounds, Order::Concurrent(9), Moment::START);
        assert!(matches!(taken, Output::Leased { .. }), "{taken:?}");
        assert_eq!(mailbox.depth(), left);
    }
    assert_eq!(mailbox.bytes(), 0);
}

#[test]
fn a_burst_leaves_no_memory_behind() {
    let bounds = Bounds { count: 1000, bytes: None, reserve: 0 };
    let mut mailbox = Mailbox::default();
    for id in 0..1000 {
        let entry = Entry {
            id: RequestId(id),
            deadline: Moment::NEVER.min(at(1 + id)),
            bytes: 0,
            delivery: Delivery::NONE,
            payload: id,
        };
        let input = Input::Offer { entry, substitute: false };
        assert_eq!(mailbox.on(input, &bounds, Order::Serial, Moment::START), Output::Accepted);
    }
    assert_eq!(mailbox.next_due(), at(1));
    let Output::Ticked(ticked) = mailbox.on(Input::Tick, &bounds, Order::Serial, at(2000)) else {
        panic!("a tick says what it did")
    };
    assert_eq!((ticked.expired.len(), mailbox.open()), (1000, 0));
    mailbox.shrink();
    assert!(mailbox.waiting.capacity() <= 64);
}

#[test]
fn a_hand_out_elsewhere_is_counted_for_what_waits_and_for_what_is_held_and_never_backwards() {
    let order = Order::Concurrent(4);
    let bounds = Bounds { count: 8, bytes: None, reserve: 0 };
    let mut mailbox = Mailbox::default();
    for id in [1, 2, 3] {
        let (id, delivery) = (RequestId(id), Delivery::NONE);
        let entry = Entry { id, deadline: Moment::NEVER, bytes: 0, delivery, payload: id };
        mailbox.on(Input::Offer { entry, substitute: false }, &bounds, order, at(0));
    }
    let take = |mailbox: &mut Mailbox<RequestId>, now: u64| {
        let taken = mailbox.on(Input::Take { limit: at(99) }, &bounds, order, at(now));
        let Output::Leased { ticket, .. } = taken else { panic!("{taken:?}") };
        ticket
    };
    // The first is held for a retry, the others wait.
    let first = take(&mut mailbox, 0);
    mailbox.on(Input::RetryAt(first, at(10)), &bounds, order, at(0));
    mailbox.raise(RequestId(1), Delivery(5));
    mailbox.raise(RequestId(2), Delivery(3));
    mailbox.raise(RequestId(2), Delivery(1));
    mailbox.raise(RequestId(9), Delivery(7));
    let taken: Vec<_> = (0..2).map(|_| take(&mut mailbox, 0).lease.delivery).collect();
    assert_eq!(taken, [Delivery(4), Delivery(1)]);
    mailbox.on(Input::Tick, &bounds, order, at(10));
    assert_eq!(take(&mut mailbox, 10).lease.delivery, Delivery(6));
}
