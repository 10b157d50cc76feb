//! Siblings that stand in for each other, behind one address.
//!
//! A request is counted here, whoever serves it. It goes to the first member in order whose circuit
//! admits it; when that member gives it up, the judgement names the next. Who serves is derived from
//! the circuits and the order each time, so there is no position to forget, and a primary that heals
//! is returned to by itself.
//!
//! *Invariant.* A group runs no user code and starts nothing; its members are children of an ordinary
//! supervisor. Nothing but its spec can add a path.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use crate::checkpoint::{Durability, Topology};
use crate::circuit::{self, Admission, Circuit, CircuitSpec, State, Verdict};
use crate::event::Event;
use crate::fate::{Cost, Fate, FateCounts};
use crate::fault::{Class, ExitCause};
use crate::hub::{Hub, Timed};
use crate::id::{ChildPath, RequestId};
use crate::mirror::CircuitView;
use crate::moment::Moment;
use crate::policy::{Candidate, Capabilities, GroupKind, History, Standing, eligibility};
use crate::port::{Accept, Envelope, Home, Port, Recording};
use crate::slot::{Membership, Refusal, count_fallback, uncount_fallback};
use crate::spec::{AllDown, Codec, GroupSpec, Role};

mod accept;
mod allowed;
mod end;
mod hedge;
mod member;
mod order;
mod relief;
mod room;

use accept::Refused;
use hedge::Hedging;
pub(crate) use member::Member;
use order::Persons;
use room::Room;

/// How long a request waits before a group looks again for a member with room.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What a circuit is told of a request that says nothing about its member: only that it is a probe no
/// longer.
const UNTRIED: Verdict = Verdict::Fault(Class::Cancelled);

struct Seat<Q, R> {
    member: Arc<dyn Member<Q, R>>,
    id: String,
    domain: Arc<str>,
    capabilities: Arc<Capabilities>,
    role: Role,
    /// Members a request that failed here may go to; `None` for all after it.
    allow: Option<Vec<usize>>,
}

struct GroupDesk<Q, R> {
    circuits: Vec<Circuit>,
    counts: FateCounts,
    /// What no member takes now, with the moment each is offered again.
    waiting: VecDeque<(Arc<Envelope<Q, R>>, Moment)>,
    armed: Moment,
    /// Requests that are retried, substituted or hedged.
    extra: usize,
    serving: Option<usize>,
    closed: bool,
}

/// See the [module](self).
pub(crate) struct Group<Q, R> {
    me: Weak<Self>,
    path: ChildPath,
    kind: GroupKind,
    hub: Arc<Hub>,
    deadline: Duration,
    seats: Vec<Seat<Q, R>>,
    /// Who is offered what has not failed, in order.
    admission: Vec<usize>,
    room: Room,
    all_down: AllDown,
    hedging: Option<Hedging<Q, R>>,
    durable: Option<Codec>,
    durability: Durability,
    desk: Mutex<GroupDesk<Q, R>>,
}

/// A group, type erased.
pub(crate) trait AnyGroup: Send + Sync {
    fn counts(&self) -> FateCounts;
    fn kind(&self) -> GroupKind;
    fn count_ended(&self, fate: Fate);
    /// Whether somebody may serve whose work may not be repeated.
    fn acts(&self) -> bool;
    fn close(&self, cause: &ExitCause);
    fn open(&self);
    fn isolate(&self, member: &str, isolate: bool) -> bool;
    /// A line for each member: whom its requests may go to.
    fn allowed(&self) -> Vec<String>;
}

impl<Q: Send + Sync + 'static, R: Send + 'static> Group<Q, R> {
    pub(crate) fn new(
        path: ChildPath,
        spec: &GroupSpec,
        hub: Arc<Hub>,
        members: Vec<Arc<dyn Member<Q, R>>>,
        worst_case: Duration,
    ) -> Arc<Self> {
        let circuit: Arc<CircuitSpec> = Arc::new(spec.circuit);
        let ids: Vec<String> = members.iter().map(|member| member.path().id().to_owned()).collect();
        let position = |id: &String| ids.iter().position(|known| known == id);
        let seats: Vec<_> = members
            .into_iter()
            .map(|member| {
                let id = member.path().id().to_owned();
                let allow = spec
                    .allow
                    .iter()
                    .find(|(from, _)| *from == id)
                    .map(|(_, to)| to.iter().filter_map(position).collect());
                Seat {
                    id,
                    domain: member.domain_name(),
                    capabilities: member.capabilities().unwrap_or_default(),
                    role: member.role(),
                    allow,
                    member,
                }
            })
            .collect();
        let lists: Vec<_> = seats.iter().map(|seat| (seat.role, seat.allow.as_deref())).collect();
        let admission = eligibility::admission(&lists);
        let group = Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            path,
            kind: spec.kind,
            hub,
            admission,
            room: Room::of(spec),
            all_down: spec.all_down,
            hedging: spec.hedge.map(Hedging::new),
            durable: spec.durable,
            durability: spec.durability,
            deadline: spec.deadline.unwrap_or(worst_case),
            desk: Mutex::new(GroupDesk {
                circuits: seats.iter().map(|_| Circuit::new(Arc::clone(&circuit))).collect(),
                counts: FateCounts::default(),
                waiting: VecDeque::new(),
                armed: Moment::NEVER,
                extra: 0,
                serving: None,
                closed: false,
            }),
            seats,
        });
        for (index, seat) in group.seats.iter().enumerate() {
            let home: Weak<Self> = Weak::clone(&group.me);
            seat.member.join(Membership { group: home, index });
        }
        group
    }

    /// Hands the request to the first member, in this order, that takes it. Where `leave` is needed, nobody behind a person
    /// has it without that.
    fn offer(
        &self,
        mail: &Arc<Envelope<Q, R>>,
        errand: Errand,
        (order, leave): (impl IntoIterator<Item = usize>, bool),
        now: Moment,
    ) -> Result<(), Refused> {
        let mut refused = Refused::default();
        let mut persons = Persons::new(leave);
        for index in order {
            let seat = &self.seats[index];
            if !persons.let_pass(seat.role) {
                continue;
            }
            if let Some(until) = self.domain_closed(seat, now) {
                refused.until = refused.until.min(until);
                continue;
            }
            {
                let mut desk = self.desk.lock();
                match desk.circuits[index].admits(now) {
                    Admission::Yes => {}
                    Admission::Probe => {
                        let change = desk.circuits[index].on(circuit::Input::Probe(mail.id), now);
                        drop(desk);
                        self.changed(index, change);
                    }
                    Admission::No { until } => {
                        refused.isolated |= until.is_never();
                        refused.until = refused.until.min(until);
                        continue;
                    }
                }
            }
            mail.set_member(index);
            // Before it has the request: it may have failed with it before this call returns.
            self.mark(mail, index, errand);
            match seat.member.post(mail, errand != Errand::New, now) {
                Ok(()) => return Ok(()),
                Err(Refusal::Full) => refused.full = true,
                Err(Refusal::Away(why)) => refused.away = Some(why),
            }
            self.unmark(mail, index, errand);
            self.tell_circuit(index, mail.id, UNTRIED, now);
        }
        Err(refused)
    }

    fn domain_closed(&self, seat: &Seat<Q, R>, now: Moment) -> Option<Moment> {
        let domain = seat.member.domain()?;
        let domain = domain.lock();
        (!domain.is_open(now)).then(|| domain.open_at())
    }

    fn changed(&self, member: usize, change: Option<circuit::Transition>) {
        let Some(change) = change else { return };
        let state = match change.to {
            State::Closed => "closed",
            State::Open { .. } => "open",
            State::HalfOpen => "half-open",
            State::Isolated => "isolated",
        };
        self.hub.emit(Event::Circuit { child: self.seats[member].member.path().clone(), state });
        if let State::Open { .. } | State::Isolated = change.to {
            self.relieve(member);
        }
    }

    /// What a request says of a member: of a person nothing, who has as good reasons to pass on one as the next.
    fn verdict(&self, member: usize, verdict: Verdict) -> Verdict {
        if self.seats[member].role == Role::Human { UNTRIED } else { verdict }
    }

    fn tell_circuit(&self, member: usize, request: RequestId, verdict: Verdict, now: Moment) {
        let verdict = self.verdict(member, verdict);
        let change =
            self.desk.lock().circuits[member].on(circuit::Input::Ended { request, verdict }, now);
        self.changed(member, change);
    }

    fn arm(&self, desk: &mut GroupDesk<Q, R>, at: Moment) {
        if at < desk.armed {
            desk.armed = at;
            let me: Weak<Self> = Weak::clone(&self.me);
            self.hub.arm(at, me);
        }
    }

    /// A caller who left while the request was on its way found it nowhere.
    fn follow_up(&self, mail: &Arc<Envelope<Q, R>>) {
        if mail.is_cancelled() {
            self.seats[mail.member()].member.cancel(mail);
        }
    }

    /// Notes that a member has a request that has failed or was held up before.
    fn mark(&self, mail: &Arc<Envelope<Q, R>>, member: usize, errand: Errand) {
        let Some(mut book) = mail.book() else { return };
        match errand {
            Errand::Substitute => {
                book.history.mark_substituted(member);
                drop(book);
                count_fallback(&self.hub, &self.path, self.seats[member].member.path());
            }
            Errand::New | Errand::Moved => book.history.mark_tried(member),
        }
    }

    /// The member had no room after all.
    fn unmark(&self, mail: &Arc<Envelope<Q, R>>, member: usize, errand: Errand) {
        let Some(mut book) = mail.book() else { return };
        match errand {
            Errand::Substitute => {
                book.history.forget_substituted(member);
                drop(book);
                uncount_fallback(&self.hub, &self.path, self.seats[member].member.path());
            }
            Errand::New | Errand::Moved => book.history.forget_tried(member),
        }
    }

    pub(crate) fn port(self: &Arc<Self>) -> Port<Q, R> {
        Port::new(Arc::clone(self) as Arc<dyn Accept<Q, R>>)
    }

    pub(crate) fn port_any(self: &Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        Arc::new(self.port())
    }
}

/// What a request is to a member that it is offered to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Errand {
    /// Nobody has worked on it.
    New,
    /// It was held up, but has not failed.
    Moved,
    /// It has failed elsewhere.
    Substitute,
}

impl<Q: Send + Sync + 'static, R: Send + 'static> Home<Q, R> for Group<Q, R> {
    fn path(&self) -> &ChildPath {
        &self.path
    }

    fn kind(&self) -> GroupKind {
        self.kind
    }

    fn is_person(&self, child: &ChildPath) -> bool {
        let mut persons = self.seats.iter().filter(|seat| seat.role == Role::Human);
        persons.any(|seat| seat.member.path() == child)
    }

    fn candidates(&self, history: &History, member: usize, now: Moment) -> Vec<Candidate> {
        let failed = &self.seats[member];
        let admissions: Vec<_> = {
            let desk = self.desk.lock();
            desk.circuits.iter().map(|circuit| (circuit.admits(now), circuit.state(now))).collect()
        };
        self.seats
            .iter()
            .zip(admissions)
            .enumerate()
            .map(|(index, (seat, (admission, state)))| {
                let standing = match (admission, state) {
                    (_, State::Isolated) => Standing::Isolated,
                    (Admission::No { until }, _) => Standing::OpenUntil(until),
                    (Admission::Yes | Admission::Probe, _) => {
                        match (self.domain_closed(seat, now), seat.member.standing()) {
                            (Some(until), Standing::Ready) => Standing::OpenUntil(until),
                            (_, standing) => standing,
                        }
                    }
                };
                let place = self.place(member, index);
                Candidate {
                    tried: history.has_tried(index),
                    fit: index == member || place.is_some(),
                    standing,
                    same_quota_domain: seat.domain == failed.domain,
                    same_provider: seat.capabilities.same_provider(&failed.capabilities),
                    larger_window: seat.capabilities.has_larger_window(&failed.capabilities),
                    simpler: seat.role == Role::Simplified,
                    default_value: seat.role == Role::Default,
                    human: seat.role == Role::Human,
                    behind_a_person: failed.role == Role::Human,
                    content_chain: seat.role == Role::Content,
                    priority: place.unwrap_or_default(),
                    ..Candidate::new(index)
                }
            })
            .collect()
    }

    fn served(
        &self,
        mail: &Arc<Envelope<Q, R>>,
        member: usize,
        fate: Fate,
        flaw: Option<Class>,
        now: Moment,
    ) -> Cost {
        let (cost, won) = self.settle_copies(mail, Some(member), now);
        self.note_latency(mail, now);
        let extra = self.takes_extra(mail);
        let (change, switched) = {
            let mut desk = self.desk.lock();
            desk.counts.add(fate);
            desk.counts.open -= 1;
            let verdict = flaw.map_or(Verdict::Success, Verdict::Fault);
            let verdict = self.verdict(member, verdict);
            let change =
                desk.circuits[member].on(circuit::Input::Ended { request: mail.id, verdict }, now);
            desk.extra -= usize::from(extra);
            // One slow request does not make another member the one that serves.
            let before = if won { None } else { desk.serving.replace(member) };
            (change, before.filter(|before| *before != member))
        };
        self.changed(member, change);
        if let Some(from) = switched {
            self.hub.emit(Event::Switched {
                group: self.path.clone(),
                from: self.seats[from].member.path().clone(),
                to: self.seats[member].member.path().clone(),
                failback: member < from,
            });
        }
        self.offer_waiting(false);
        cost
    }

    fn tries_again(&self, mail: &Arc<Envelope<Q, R>>) {
        self.note_extra(mail);
    }

    fn gave_up(&self, request: RequestId, member: usize, class: Class, now: Moment) {
        self.tell_circuit(member, request, Verdict::Fault(class), now);
    }

    fn hand_on(&self, mail: Arc<Envelope<Q, R>>, to: usize) {
        let now = self.hub.now();
        if mail.is_cancelled() {
            self.end(&mail, Fate::Cancelled, &ExitCause::Stopped);
            return;
        }
        let probe = {
            let mut desk = self.desk.lock();
            match desk.circuits[to].admits(now) {
                Admission::Probe => desk.circuits[to].on(circuit::Input::Probe(mail.id), now),
                _ => None,
            }
        };
        self.changed(to, probe);
        self.note_extra(&mail);
        let from = mail.member();
        mail.set_member(to);
        if self.seats[to].member.post(&mail, true, now).is_err() {
            mail.set_member(from);
            self.unmark(&mail, to, Errand::Substitute);
            self.tell_circuit(to, mail.id, UNTRIED, now);
            self.hold(mail, now + LOOK_AGAIN);
        } else {
            self.follow_up(&mail);
        }
    }

    fn wait(&self, mail: Arc<Envelope<Q, R>>, until: Moment) {
        if mail.is_cancelled() {
            self.end(&mail, Fate::Cancelled, &ExitCause::Stopped);
        } else {
            // Room is announced when a member answers, but it comes in other ways, too.
            self.hold(mail, until.min(self.hub.now() + LOOK_AGAIN));
        }
    }

    fn ended(&self, mail: &Arc<Envelope<Q, R>>, fate: Fate) {
        // A member that lets deadlines pass is as one that times out.
        let verdict = match fate {
            Fate::Expired | Fate::Unknown => Verdict::Fault(Class::Timeout),
            _ => UNTRIED,
        };
        self.settled(mail, fate, verdict);
    }

    fn circuit(&self, member: usize, now: Moment) -> Option<CircuitView> {
        Some(match self.desk.lock().circuits[member].state(now) {
            State::Closed => CircuitView::Closed,
            State::Open { until } => CircuitView::Open { left: until.left(now) },
            State::HalfOpen => CircuitView::HalfOpen,
            State::Isolated => CircuitView::Isolated,
        })
    }

    fn recording(&self) -> Option<Recording> {
        let durability = self.durability;
        self.durable.map(|codec| Recording { write_reply: codec.write_reply, durability })
    }

    fn rests(&self, now: Moment) -> Option<Duration> {
        let mut first = Moment::NEVER;
        for &index in &self.admission {
            let seat = &self.seats[index];
            let circuit = match self.desk.lock().circuits[index].admits(now) {
                Admission::No { until } => until,
                Admission::Yes | Admission::Probe => now,
            };
            let back = self.domain_closed(seat, now).unwrap_or(now).max(circuit);
            match seat.member.standing() {
                Standing::Ready | Standing::Full if back <= now => return None,
                Standing::Ready | Standing::Full => first = first.min(back),
                // Nobody knows whether it comes back.
                _ => {}
            }
        }
        (!first.is_never()).then(|| first.left(now))
    }

    fn member_path(&self, member: usize) -> ChildPath {
        self.seats[member].member.path().clone()
    }

    fn has_member(&self, path: &ChildPath) -> bool {
        self.seats.iter().any(|seat| seat.member.path() == path)
    }
}

impl<Q: Send + Sync + 'static, R: Send + 'static> Timed for Group<Q, R> {
    fn on_time(&self, at: Moment) {
        {
            let mut desk = self.desk.lock();
            if desk.armed != at {
                return;
            }
            desk.armed = Moment::NEVER;
        }
        self.offer_waiting(true);
        let hedge = self.hedge_due();
        let mut desk = self.desk.lock();
        let next = desk
            .waiting
            .iter()
            .map(|(mail, until)| mail.deadline.min(*until))
            .min()
            .unwrap_or(Moment::NEVER)
            .min(hedge);
        self.arm(&mut desk, next);
    }
}

impl<Q: Send + Sync + 'static, R: Send + 'static> AnyGroup for Group<Q, R> {
    fn counts(&self) -> FateCounts {
        self.desk.lock().counts
    }

    fn kind(&self) -> GroupKind {
        self.kind
    }

    fn allowed(&self) -> Vec<String> {
        self.allowed_lines()
    }

    fn acts(&self) -> bool {
        !self.effect_kind().is_replay_safe()
    }

    fn count_ended(&self, fate: Fate) {
        let counts = &mut self.desk.lock().counts;
        counts.accepted += 1;
        counts.add(fate);
    }

    fn close(&self, cause: &ExitCause) {
        let waiting = {
            let mut desk = self.desk.lock();
            desk.closed = true;
            std::mem::take(&mut desk.waiting)
        };
        for (mail, _) in waiting {
            self.end(&mail, Fate::Stopped, cause);
        }
    }

    fn open(&self) {
        self.desk.lock().closed = false;
        let digest = Topology::new(self.allowed_lines()).digest;
        self.hub.emit(Event::AllowList { group: self.path.clone(), digest });
    }

    fn isolate(&self, member: &str, isolate: bool) -> bool {
        let Some(index) = self.seats.iter().position(|seat| seat.id == member) else {
            return false;
        };
        let input = if isolate { circuit::Input::Isolate } else { circuit::Input::Release };
        let change = self.desk.lock().circuits[index].on(input, self.hub.now());
        self.changed(index, change);
        true
    }
}

impl<Q, R> std::fmt::Debug for Group<Q, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group").field("path", &self.path).finish_non_exhaustive()
    }
}
