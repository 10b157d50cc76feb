//! Handing work out and taking results back.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::{Desk, Mail, Out, Settled, Slot};
use crate::behavior::{Context, Notes, Place, Turn};
use crate::checkpoint::Snapshot;
use crate::circuit::Permit;
use crate::event::Event;
use crate::fate::{Answer, Cost, Fate};
use crate::fault::{EffectKind, ExitCause, Fault};
use crate::id::{Delivery, Incarnation};
use crate::lifecycle::Stage;
use crate::mailbox::{self, Order, Ticket};
use crate::moment::Moment;
use crate::policy::budget::Reservation;
use crate::port::{Cut, Flight};
use crate::slot::recovery::note_recovery;
use crate::slot::worker::{Worker, unwound};

/// The least time between two looks at an attempt that waits for others.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// An attempt to be made.
pub(crate) struct Job<W: Worker> {
    pub(crate) mail: Mail<W>,
    pub(crate) ticket: Ticket,
    /// `None` for the flight of the carrier.
    pub(crate) flight: Option<Arc<Flight>>,
    pub(crate) life: Incarnation,
    pub(crate) attempt: u32,
    /// Where a request that is tried again goes on.
    pub(crate) place: Place,
    /// It may not be started over.
    pub(crate) refuse: bool,
    /// The state is in the middle of another request: see [`Slot::mend`].
    pub(crate) torn: bool,
    pub(crate) reservation: Option<Box<Reservation>>,
    /// What it has cost, however it ended.
    pub(crate) bill: Bill,
}

/// What an attempt has cost.
#[derive(Clone, Copy, Default)]
pub(crate) struct Bill {
    /// By itself: the calls it made are charged where they were worked on.
    pub(crate) own: Cost,
    /// With the calls it made.
    pub(crate) all: Cost,
}

impl Bill {
    pub(crate) fn of(context: &Context) -> Self {
        Self { own: context.own_cost(), all: context.cost() }
    }
}

/// What is left of a job once it is done.
struct Done<W: Worker> {
    mail: Mail<W>,
    ticket: Ticket,
    life: Incarnation,
    attempt: u32,
}

/// How an attempt ended.
pub(crate) enum Ended<R> {
    /// With a reply, and what the attempt said about it.
    Reply(R, Said),
    /// With a fault; where to go on when it is tried again. Boxed, as the next, so that the usual end
    /// is small to hand on.
    Fault(Box<Fault>, Place, bool),
    /// The life with it.
    Crash(Box<ExitCause>, bool),
    /// It was asked to stop at a step boundary, or its caller has left; whether it has called what may
    /// not be called twice.
    Cut(Cut, bool),
}

/// What an attempt said about its answer.
pub(crate) struct Said {
    pub(crate) degraded: bool,
    pub(crate) defaulted: bool,
    /// Whether the life ends with it, its work done.
    pub(crate) last: bool,
    /// What the child has become.
    pub(crate) state: Option<Snapshot>,
}

impl Said {
    pub(crate) fn of(context: &Context) -> Self {
        Self {
            degraded: context.is_degraded(),
            defaulted: context.notes.defaulted.load(std::sync::atomic::Ordering::Relaxed),
            last: context.notes.last.load(std::sync::atomic::Ordering::Relaxed),
            state: None,
        }
    }
}

/// What a carrier does next.
pub(crate) enum Next<W: Worker> {
    /// Another attempt, with the life.
    Work(W::Life, Job<W>),
    /// Nothing until it is woken, or, after as many attempts as it may make at a time, until others
    /// have had their turn; the life, if it was given, has been parked.
    Rest,
    /// Nothing any more: another carrier is in its place, or none is needed.
    Leave,
}

impl<W: Worker> Slot<W> {
    /// The next attempt for the carrier with this number, if there is one.
    pub(crate) fn begin_work(&self, carrier: u32) -> Next<W> {
        let now = self.hub.now();
        let mut desk = self.desk();
        if desk.carrier_no != carrier {
            return Next::Leave;
        }
        match self.next_job(&mut desk, now) {
            Some((life, job)) => Next::Work(life, job),
            None => {
                desk.woken = false;
                self.publish(&mut desk);
                Next::Rest
            }
        }
    }

    /// Takes a job and the life for it. Every refusal leaves both where they are.
    pub(crate) fn next_job(&self, desk: &mut Desk<W>, now: Moment) -> Option<(W::Life, Job<W>)> {
        if !self.can_work(desk, now) {
            return None;
        }
        if let Some(domain) = self.domain.get() {
            let mut domain = domain.lock();
            let permit = match desk.gate.take() {
                Some(turn) => domain.redeem(*turn, now),
                None => domain.permit(now),
            };
            if let Permit::At(turn) = permit {
                drop(domain);
                desk.gate = Some(Box::new(turn));
                self.arm(desk, turn.at);
                return None;
            }
        }
        let limit = now + self.rules.attempt_timeout;
        let taken = desk.mailbox.on(
            mailbox::Input::Take { limit },
            &self.rules.bounds,
            self.rules.order,
            now,
        );
        let mailbox::Output::Leased { ticket, payload: mail } = taken else { return None };
        let (attempt, tainted) = mail.attempt();
        if let Some(domain) = self.domain.get() {
            let mut domain = domain.lock();
            domain.amplification.attempt();
            if attempt == 1 {
                domain.amplification.request();
            }
        }
        let flight = self.flight(desk);
        if desk.out.capacity() == 0 {
            desk.out.reserve_exact(1);
        }
        desk.out.push(Out {
            ticket,
            flight: Arc::clone(&flight),
            life: desk.life.incarnation(),
            told: false,
            since: now,
            paused: Duration::ZERO,
        });
        let continued = self.continued(desk, &mail);
        let place = match desk.resume.take() {
            other if continued.is_some() => {
                desk.resume = other;
                continued.unwrap_or(Place::START)
            }
            Some(resume) if resume.0 == mail.id => resume.1,
            other => {
                desk.resume = other;
                Place::START
            }
        };
        let torn = !place.back && self.is_torn(desk, &mail);
        self.arm(desk, limit);
        self.publish(desk);
        let life = match self.rules.order {
            Order::Serial => desk.parked.take()?,
            Order::Concurrent(_) => W::share(desk.parked.as_ref()?)?,
        };
        let life_no = desk.life.incarnation();
        // Starting over would repeat what may not be repeated.
        let refuse = tainted && matches!(place.turn, Turn::First);
        let job = Job {
            mail,
            ticket,
            flight: (desk.flight.is_none()).then_some(flight),
            life: life_no,
            attempt,
            place,
            refuse,
            torn,
            reservation: None,
            bill: Bill::default(),
        };
        Some((life, job))
    }

    /// A flight for one attempt alone, or the one that its carrier uses again and again.
    fn flight(&self, desk: &Desk<W>) -> Arc<Flight> {
        match &desk.flight {
            Some(flight) => {
                flight.reset();
                Arc::clone(flight)
            }
            None => Arc::default(),
        }
    }

    /// What one execution of this hand-out does to the world: as the spec says, unless it has called
    /// what may not be called twice.
    pub(crate) fn effect_of(&self, flight: &Flight) -> EffectKind {
        let tainted = flight.tie().is_some_and(|tie| tie.is_tainted());
        if tainted { EffectKind::Irreversible } else { self.spec.effect }
    }

    /// A step of a longer attempt begins: it has the whole attempt timeout again.
    pub(crate) fn next_step(&self, ticket: Ticket) {
        let now = self.hub.now();
        let limit = now + self.rules.attempt_timeout;
        let mut desk = self.desk();
        self.extend(&mut desk, ticket, limit, now);
        if let Some(out) = desk.out.iter_mut().find(|out| out.ticket == ticket) {
            out.since = now;
            out.paused = out.flight.tie().map_or(Duration::ZERO, |tie| tie.paused(now).0);
            // A step that ended in its grace has ended; the next is not told of it.
            if std::mem::take(&mut out.told) {
                out.flight.unask(Cut::Timeout);
            }
        }
        self.arm(&mut desk, limit);
    }

    /// Takes the result of an attempt, and the next one when `more` of them may be made without
    /// giving others their turn. The life comes back with it, unless it was lost.
    ///
    /// `carrier` is the number of a serial carrier; a shared life has none.
    pub(crate) fn after(
        &self,
        carrier: Option<u32>,
        life: Option<W::Life>,
        job: Job<W>,
        ended: Ended<W::Reply>,
        more: bool,
    ) -> Next<W> {
        match ended {
            Ended::Reply(reply, said) => self.answered(carrier, life, job, reply, said, more),
            other => {
                self.not_answered(carrier, life, job, other);
                match carrier {
                    Some(number) if more => self.begin_work(number),
                    _ => Next::Rest,
                }
            }
        }
    }

    fn answered(
        &self,
        carrier: Option<u32>,
        life: Option<W::Life>,
        mut job: Job<W>,
        reply: W::Reply,
        mut said: Said,
        more: bool,
    ) -> Next<W> {
        let now = self.hub.now();
        if let Some(reservation) = job.reservation.take() {
            reservation.settle(job.bill.own);
        }
        let mut unused = None;
        let mut cost = job.bill.all;
        if job.attempt > 1 || job.ticket.lease.delivery > Delivery(1) {
            cost.add(job.mail.spent());
        }
        let job =
            Done::<W> { mail: job.mail, ticket: job.ticket, life: job.life, attempt: job.attempt };
        let mut desk = self.desk();
        let finished = desk.mailbox.on(
            mailbox::Input::Finish(job.ticket),
            &self.rules.bounds,
            self.rules.order,
            now,
        );
        let out = desk.out.iter().position(|out| out.ticket == job.ticket);
        if let Some(out) = out {
            desk.out.swap_remove(out);
        }
        let settled = match finished {
            mailbox::Output::Finished(mail) => {
                self.left(&mut desk, &mail);
                self.settle(&mut desk, mail, Fate::Done)
            }
            mailbox::Output::Orphan(_) => None,
            _ => {
                drop(desk);
                self.stale(&job.mail, job.ticket);
                let _ = unwound(move || drop(life));
                return carrier.map_or(Next::Rest, |number| self.begin_work(number));
            }
        };
        let current = desk.life.incarnation() == job.life
            && carrier.is_none_or(|number| desk.carrier_no == number);
        if let Some(life) = life {
            if current && carrier.is_some() && desk.life.stage() != Stage::Down {
                desk.parked = Some(life);
                if let (Some(state), Some(saved)) = (said.state.take(), &mut desk.saved) {
                    saved.settle(state);
                }
            } else {
                unused = Some(life);
            }
        }
        let mut report = None;
        if said.last && current {
            let (parked, then) = self.life_lost(&mut desk, job.life, ExitCause::Normal, None);
            unused = unused.or(parked);
            report = then;
        }
        let mut next = Next::Rest;
        let mut rest = None;
        match carrier {
            Some(_) if current => {
                if more {
                    // A life that has ended with this answer leaves its carrier without work, too.
                    let job = if desk.life.is_up() { self.next_job(&mut desk, now) } else { None };
                    match job {
                        Some((life, job)) => next = Next::Work(life, job),
                        None => desk.woken = false,
                    }
                }
                if matches!(next, Next::Rest) {
                    rest = desk.resting.clone();
                    self.publish(&mut desk);
                }
                drop(desk);
            }
            _ => {
                rest = desk.resting.clone();
                self.publish(&mut desk);
                self.wake(desk, now);
            }
        }
        if let Some(rest) = rest {
            rest.notify_waiters();
            rest.notify_one();
        }
        if let Some(settled) = settled {
            self.deliver(settled, (job.attempt, cost), reply, said, now);
        } else {
            let _ = unwound(move || drop(reply));
        }
        if unused.is_some() {
            let _ = unwound(move || drop(unused));
        }
        if let Some(report) = report {
            report();
        }
        match carrier {
            Some(number) if !current => self.begin_work(number),
            _ => next,
        }
    }

    fn deliver(
        &self,
        settled: Settled<W>,
        (attempts, cost): (u32, Cost),
        value: W::Reply,
        said: Said,
        now: Moment,
    ) {
        let Settled { mail, fate } = settled;
        let elapsed = now.since(mail.accepted_at);
        let mut answer = Answer {
            value,
            served_by: self.path.clone(),
            degraded: said.degraded,
            defaulted: said.defaulted,
            attempts,
            cost,
            elapsed,
            trail: crate::fate::Trail::default(),
        };
        if attempts > 1 {
            answer.trail = mail.trail();
        }
        // Every success pays for the retries of others. Before the first failure the budget is full.
        if let Some(domain) = self.domain.get() {
            domain.lock().retries.deposit();
        }
        if let Some(group) = &mail.home {
            let index = self.member.get().map_or(0, |member| member.index);
            answer.degraded |= index > 0;
            group.served(&mail, index, fate, now);
        }
        note_recovery(&self.hub, &mail, Some(&answer));
        if mail.cast {
            self.hub.cast_ended(mail.id, fate, now);
        }
        if self.hub.events.wanted() {
            let child = mail.home.as_ref().map_or(&self.path, |group| group.path()).clone();
            self.hub.emit(Event::Fated {
                child,
                request: mail.id,
                fate,
                served_by: Some(self.path.clone()),
                attempts,
                degraded: answer.degraded,
                defaulted: answer.defaulted,
                elapsed,
            });
        }
        mail.deliver(Ok(answer));
    }

    pub(crate) fn stale(&self, mail: &Mail<W>, ticket: Ticket) {
        self.hub.stats.lock().stale += 1;
        self.publish(&mut self.desk());
        self.hub.emit(Event::Stale {
            child: self.path.clone(),
            request: mail.id,
            delivery: ticket.lease.delivery,
        });
    }

    /// An attempt that overran its limit: its time is over, or, told that before, it hangs.
    pub(crate) fn overdue(
        &self,
        desk: &mut Desk<W>,
        ticket: Ticket,
        now: Moment,
    ) -> Option<Box<dyn FnOnce()>>
    where
        W: 'static,
    {
        let limit = desk.mailbox.flight(ticket)?.limit;
        let position = desk.out.iter().position(|out| out.ticket == ticket)?;
        let out = &mut desk.out[position];
        if !out.told {
            // The clock stands still while a supervised call is waited for.
            if let Some(tie) = out.flight.tie() {
                let (paused, waiting) = tie.paused(now);
                let waited = paused.saturating_sub(out.paused);
                let due = (out.since + self.rules.attempt_timeout + waited).max(limit);
                if waiting || due > now {
                    // While it waits, what is left of its time does not shrink.
                    let later = if waiting { due.max(now + LOOK_AGAIN) } else { due };
                    self.extend(desk, ticket, later, now);
                    return None;
                }
            }
            out.told = true;
            out.flight.ask(Cut::Timeout);
            self.extend(desk, ticket, now + self.rules.policy.hang_grace, now);
            return None;
        }
        let life = out.life;
        out.flight.ask(Cut::Kill);
        self.hung(desk, ticket, life, now)
    }

    fn extend(&self, desk: &mut Desk<W>, ticket: Ticket, limit: Moment, now: Moment) {
        desk.mailbox.on(
            mailbox::Input::Extend(ticket, limit),
            &self.rules.bounds,
            self.rules.order,
            now,
        );
    }

    /// The context of an attempt with this flight.
    pub(crate) fn context(self: &Arc<Self>, job: &Job<W>, flight: Arc<Flight>) -> Context {
        Context {
            request: job.mail.id,
            attempt: job.attempt,
            delivery: job.ticket.lease.delivery,
            deadline: job.mail.deadline,
            key: job.mail.key.clone(),
            feedback: self.feedback(job),
            seat: Arc::clone(self) as Arc<dyn crate::behavior::Seat>,
            flight,
            purse: job.mail.purse.clone(),
            soft: job.mail.soft(),
            notes: Notes::default(),
            tie: std::sync::OnceLock::new(),
        }
    }

    /// The same context for another attempt of its carrier: two counts less to touch.
    pub(crate) fn renew(&self, context: &mut Context, job: &Job<W>) {
        context.request = job.mail.id;
        context.attempt = job.attempt;
        context.delivery = job.ticket.lease.delivery;
        context.deadline = job.mail.deadline;
        context.key.clone_from(&job.mail.key);
        context.feedback = self.feedback(job);
        context.purse.clone_from(&job.mail.purse);
        context.soft = job.mail.soft();
        context.notes = Notes::default();
        context.tie.take();
    }

    /// What an earlier attempt has left for this one. The first has nothing to look for.
    fn feedback(&self, job: &Job<W>) -> Option<Arc<str>> {
        if job.ticket.lease.delivery <= Delivery(1) {
            return None;
        }
        job.mail.book()?.feedback.clone()
    }

    pub(crate) fn count_attempt(&self) {
        self.hub.attempts.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    /// A carrier has come up and says how it can be woken; `None` when it is too late. Its attempts
    /// share the flight that it gets if they come one after the other and none can be left behind on
    /// its thread.
    pub(crate) fn carry(&self, number: u32, waker: Waker) -> Option<Arc<Flight>> {
        let mut desk = self.desk();
        if desk.carrier_no != number {
            return None;
        }
        desk.waker = Some(waker);
        let flight = Arc::<Flight>::default();
        if self.rules.order == Order::Serial && !self.spec.blocking {
            desk.flight = Some(Arc::clone(&flight));
        }
        Some(flight)
    }

    pub(crate) fn is_carrier(&self, number: u32) -> bool {
        self.desk().carrier_no == number
    }
}
