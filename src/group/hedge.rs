//! Giving a slow request to a second member as well.
//!
//! *Invariant.* A request is hedged at most once, and never after something has failed: then the ladder
//! has it. What cannot be hedged fares as if there were no hedging.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::{Errand, Group, UNTRIED};
use crate::circuit::Admission;
use crate::event::Event;
use crate::fate::Cost;
use crate::id::RequestId;
use crate::mirror::{Detail, HedgeView, NodeDetail};
use crate::moment::Moment;
use crate::policy::budget::RetryBudget;
use crate::policy::hedge::{HedgeFacts, Latencies, hedge};
use crate::policy::{Hedge, History, NoHedge, Standing};
use crate::port::{Envelope, Home};

/// A request that will be slow at this moment.
struct Due<Q, R> {
    at: Moment,
    id: RequestId,
    mail: Weak<Envelope<Q, R>>,
}

impl<Q, R> PartialEq for Due<Q, R> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.id) == (other.at, other.id)
    }
}
impl<Q, R> Eq for Due<Q, R> {}
impl<Q, R> PartialOrd for Due<Q, R> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<Q, R> Ord for Due<Q, R> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.id).cmp(&(other.at, other.id))
    }
}

/// What a group that hedges knows beside its desk.
pub(super) struct Hedging<Q, R> {
    how: Hedge,
    book: Mutex<HedgeBook<Q, R>>,
}

struct HedgeBook<Q, R> {
    due: BinaryHeap<Reverse<Due<Q, R>>>,
    latencies: Option<Latencies>,
    sent: u64,
    won: u64,
}

impl<Q, R> Hedging<Q, R> {
    pub(super) fn new(how: Hedge) -> Self {
        let latencies = matches!(how, Hedge::P95).then(Latencies::default);
        let book = HedgeBook { due: BinaryHeap::new(), latencies, sent: 0, won: 0 };
        Self { how, book: Mutex::new(book) }
    }
}

impl<Q: Send + Sync + 'static, R: Send + 'static> Group<Q, R> {
    /// A member has just got this request for the first time.
    pub(super) fn plan_hedge(&self, mail: &Arc<Envelope<Q, R>>, now: Moment) {
        let Some(hedging) = &self.hedging else { return };
        if mail.book().is_some() {
            return;
        }
        let at = {
            let mut book = hedging.book.lock();
            let delay = match (hedging.how, &mut book.latencies) {
                (Hedge::After(delay), _) => Some(delay),
                (Hedge::P95, latencies) => latencies.as_mut().and_then(|seen| seen.p95(now)),
            };
            let Some(delay) = delay else { return };
            let at = now + delay;
            if at >= mail.deadline {
                return;
            }
            book.due.push(Reverse(Due { at, id: mail.id, mail: Arc::downgrade(mail) }));
            at
        };
        self.arm(&mut self.desk.lock(), at);
    }

    /// Hedges what has become slow; when the next request will be.
    pub(super) fn hedge_due(&self) -> Moment {
        let Some(hedging) = &self.hedging else { return Moment::NEVER };
        let now = self.hub.now();
        loop {
            let due = {
                let mut book = hedging.book.lock();
                match book.due.peek() {
                    None => return Moment::NEVER,
                    Some(Reverse(due)) if due.at > now => return due.at,
                    Some(_) => book.due.pop(),
                }
            };
            if let Some(mail) = due.and_then(|Reverse(due)| due.mail.upgrade()) {
                self.hedge(&mail, now);
            }
        }
    }

    fn hedge(&self, mail: &Arc<Envelope<Q, R>>, now: Moment) {
        if mail.is_fated() || mail.is_cancelled() || mail.book().is_some() {
            return;
        }
        let from = mail.member();
        // It may be on its way to its fate, or wait in the group.
        let Some((delivery, safe)) = self.seats[from].member.hand_out(mail) else { return };
        let to = match self.chosen(mail, from, safe, now) {
            Ok(to) => to,
            Err(why) => {
                let (group, request) = (self.path.clone(), mail.id);
                self.hub.emit(Event::NotHedged { group, request, why });
                return;
            }
        };
        if !mail.begin_copy(from, to, delivery) {
            return;
        }
        self.seats[to].member.own_domain().lock().retries.withdraw(RetryBudget::COST);
        self.note_extra(mail);
        let follows = mail.next_delivery().unwrap_or(delivery);
        let posted = self.seats[to].member.post_copy(mail, follows, now).is_ok();
        if !posted {
            self.own_again(mail, to, now);
            return;
        }
        if let Some(hedging) = &self.hedging {
            hedging.book.lock().sent += 1;
        }
        *self.hub.stats.lock().hedges.entry(self.path.clone()).or_default() += 1;
        self.hub.emit(Event::Hedged {
            group: self.path.clone(),
            request: mail.id,
            from: self.seats[from].member.path().clone(),
            to: self.seats[to].member.path().clone(),
            after: now.since(mail.accepted_at),
        });
        // It was answered, or its caller left, while the copy was on its way.
        if mail.is_fated() {
            self.seats[to].member.call_off(mail, now);
        } else if mail.is_cancelled() {
            self.seats[to].member.cancel(mail);
        }
    }

    /// The member had no room for the copy after all. If the other one has failed meanwhile, nobody has
    /// the request now.
    fn own_again(&self, mail: &Arc<Envelope<Q, R>>, to: usize, now: Moment) {
        self.unmark(mail, to, Errand::Moved);
        let somebody = mail.give_up_copy(to);
        if !somebody && !mail.is_fated() && mail.book().is_some_and(|book| !book.trail.is_empty()) {
            self.hold(Arc::clone(mail), now);
        }
    }

    fn chosen(
        &self,
        mail: &Arc<Envelope<Q, R>>,
        from: usize,
        replay_safe: bool,
        now: Moment,
    ) -> Result<usize, NoHedge> {
        let mut members = self.candidates(&History::starting_at(from), from, now);
        let (extra, in_flight) = {
            let desk = self.desk.lock();
            for member in &mut members {
                // A circuit that is half open is probed by requests, not by their copies.
                if desk.circuits[member.index].admits(now) != Admission::Yes
                    && member.standing == Standing::Ready
                {
                    member.standing = Standing::OpenUntil(now);
                }
            }
            let probes: usize = desk.circuits.iter().map(|circuit| circuit.probes(now)).sum();
            let open = usize::try_from(desk.counts.open).unwrap_or(usize::MAX);
            (desk.extra + probes, open.saturating_sub(desk.waiting.len()))
        };
        let facts = HedgeFacts {
            replay_safe,
            deadline: mail.deadline,
            min_attempt: self.seats[from].member.min_attempt(),
            request_budget: mail.purse().is_none_or(|purse| purse.covers(Cost::default(), now)),
            extra,
            in_flight,
        };
        let affords = |to: usize| {
            self.seats[to].member.own_domain().lock().retries.affords(RetryBudget::COST)
        };
        hedge(&facts, self.kind, &members, affords, now)
    }

    /// Calls off what is still out of a request that has its fate. What that has cost, and whether the
    /// second copy was the one that was answered.
    pub(super) fn settle_copies(
        &self,
        mail: &Arc<Envelope<Q, R>>,
        winner: Option<usize>,
        now: Moment,
    ) -> (Cost, bool) {
        let (losers, won) = mail.end_copies(winner);
        let mut cost = Cost::default();
        for loser in losers {
            cost.add(self.seats[loser].member.call_off(mail, now));
            // Whom the fate says something about is told by whoever knows what.
            if winner.is_some() || loser != mail.member() {
                self.tell_circuit(loser, mail.id, UNTRIED, now);
            }
        }
        if won && let Some(hedging) = &self.hedging {
            hedging.book.lock().won += 1;
            *self.hub.stats.lock().hedges_won.entry(self.path.clone()).or_default() += 1;
        }
        (cost, won)
    }

    /// A request was answered. The time is that of the caller: one that a copy answered took its member
    /// longer still, and is among the slow ones all the same.
    pub(super) fn note_latency(&self, mail: &Arc<Envelope<Q, R>>, now: Moment) {
        let Some(hedging) = &self.hedging else { return };
        let mut book = hedging.book.lock();
        if let Some(latencies) = &mut book.latencies
            && mail.book().is_none_or(|book| book.trail.is_empty())
        {
            latencies.record(now.since(mail.accepted_at), now);
        }
    }

    /// The request is tried more than once from now on. One that has its fate meanwhile has been taken
    /// off already, and is not counted any more. Counted under the lock of its book, so that it is never
    /// taken off before.
    pub(super) fn note_extra(&self, mail: &Arc<Envelope<Q, R>>) {
        let Some(mut book) = mail.book() else { return };
        if !mail.is_fated() && !std::mem::replace(&mut book.copies.extra, true) {
            self.desk.lock().extra += 1;
        }
    }

    /// Whether a request that has its fate had been counted as one that is tried more than once.
    pub(super) fn takes_extra(&self, mail: &Arc<Envelope<Q, R>>) -> bool {
        mail.book().is_some_and(|mut book| std::mem::take(&mut book.copies.extra))
    }
}

impl<Q: Send + Sync + 'static, R: Send + 'static> Detail for Group<Q, R> {
    fn detail(&self, now: Moment) -> NodeDetail {
        let waiting = self.desk.lock().waiting.len();
        let mut detail = NodeDetail { waiting, ..NodeDetail::default() };
        if let Some(hedging) = &self.hedging {
            let mut book = hedging.book.lock();
            let after = match (hedging.how, &mut book.latencies) {
                (Hedge::After(delay), _) => Some(delay),
                (Hedge::P95, latencies) => latencies.as_mut().and_then(|seen| seen.p95(now)),
            };
            detail.hedges = Some(HedgeView { after, sent: book.sent, won: book.won });
        }
        detail
    }
}
