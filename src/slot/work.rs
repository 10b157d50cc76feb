//! Handing work out and taking results back.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::replay::is_known;
use super::{Desk, Mail, Out, Settled, Slot, Undoing};
use crate::behavior::{Context, Notes, Place, Turn, Undone};
use crate::checkpoint::Snapshot;
use crate::circuit::Permit;
use crate::event::Event;
use crate::fate::{Answer, Cost, Fate, Trail};
use crate::fault::{Class, EffectKind, ExitCause, Fault};
use crate::hub;
use crate::id::{Delivery, Incarnation};
use crate::lifecycle::Stage;
use crate::mailbox::{self, Order, Ticket};
use crate::moment::Moment;
use crate::policy::budget::Reservation;
use crate::port::{Cut, Flight};
use crate::slot::hold::Hold;
use crate::slot::worker::{Worker, dropped};
use crate::watch::Input;

mod bill;
mod taken_over;

pub(crate) use bill::Bill;

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
    /// Where a request that is tried again goes on, if that is not its beginning.
    pub(crate) place: Option<Box<Place>>,
    /// What others have done for a request that begins here: see [`Slot::takes_over`].
    pub(crate) takes_over: Option<Arc<Undone>>,
    /// It may not be started over.
    pub(crate) refuse: bool,
    /// The state is in the middle of another request: see [`Slot::mend`].
    pub(crate) torn: bool,
    /// The state is one of before requests that were answered: see [`Slot::replays`].
    pub(crate) behind: bool,
    pub(crate) reservation: Option<Box<Reservation>>,
    /// What it has cost, however it ended, if that is anything.
    pub(crate) bill: Option<Box<Bill>>,
}

impl<W: Worker> Job<W> {
    /// The attempt is over: what was set aside is settled with what it has cost. One for which nothing was
    /// `asked` of anybody gives its attempt back.
    pub(crate) fn settle(&mut self, asked: bool) {
        let Some(mut reservation) = self.reservation.take() else { return };
        let own = match &mut self.bill {
            Some(bill) => {
                if let Some(held) = bill.held.take() {
                    reservation.join(held);
                }
                bill.own
            }
            None => Cost::default(),
        };
        if asked || own != Cost::default() {
            reservation.settle(own);
        } else {
            reservation.release();
        }
    }

    /// Whether nothing stands between it and the first step of its request, as for most.
    pub(crate) fn is_plain(&self) -> bool {
        let is_first = self.place.is_none() && self.takes_over.is_none() && !self.refuse;
        is_first && !self.torn && !self.behind && self.mail.is_plain()
    }
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
    /// What went wrong all the same.
    pub(crate) flaw: Option<Class>,
    /// It was kept, and its request left its fate to that.
    pub(crate) kept: bool,
    /// What the child has become.
    pub(crate) state: Option<Box<Snapshot>>,
}

impl Said {
    pub(crate) fn of(context: &Context) -> Self {
        Self {
            degraded: context.is_degraded(),
            defaulted: context.is_defaulted(),
            last: context.notes.last.load(std::sync::atomic::Ordering::Relaxed),
            flaw: context.notes.flaw.get().copied(),
            kept: false,
            state: None,
        }
    }

    /// Of an answer with which the child has become this.
    pub(crate) fn with<W: Worker>(
        state: Option<Snapshot>,
        job: &Job<W>,
        context: &Context,
    ) -> Self {
        let said = Self::of(context);
        match state {
            Some(state) => {
                Self { kept: job.mail.is_answering(), state: Some(Box::new(state)), ..said }
            }
            None => said,
        }
    }
}

/// What a carrier does next.
pub(crate) enum Next<W: Worker> {
    /// Another attempt, with the life; its job stands where it was asked to.
    Work(W::Life),
    /// Nothing until it is woken, or, after as many attempts as it may make at a time, until others
    /// have had their turn; the life, if it was given, has been parked.
    Rest,
    /// Nothing any more: another carrier is in its place, or none is needed.
    Leave,
}

impl<W: Worker> Slot<W> {
    /// The next attempt for the carrier with this number, if there is one. Its job is put into `into`:
    /// it is too large to be handed from one to the next.
    pub(crate) fn begin_work(&self, carrier: u32, into: &mut Option<Job<W>>) -> Next<W> {
        let mut desk = self.desk();
        if desk.carrier_no != carrier {
            return Next::Leave;
        }
        if !desk.mailbox.has_work(self.rules.order) {
            // As each time that all work is handed out: nothing changes, and nobody has to be shown it.
            desk.woken = false;
            return Next::Rest;
        }
        let now = self.hub.now();
        match self.next_job(&mut desk, into, now) {
            Some(life) => Next::Work(life),
            None => {
                desk.woken = false;
                self.publish(&mut desk);
                Next::Rest
            }
        }
    }

    /// Takes a job and the life for it. Every refusal leaves both where they are.
    #[inline(always)]
    fn next_job(
        &self,
        desk: &mut Desk<W>,
        into: &mut Option<Job<W>>,
        now: Moment,
    ) -> Option<W::Life> {
        if !self.can_work(desk, now) {
            return None;
        }
        if let Some(domain) = self.domain.get() {
            let mut domain = domain.lock();
            let permit = match desk.take_gate() {
                Some(turn) => domain.redeem(*turn, now),
                None => domain.permit(now),
            };
            if let Permit::At(turn) = permit {
                drop(domain);
                desk.rare().gate = Some(Box::new(turn));
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
            // One that was interrupted is at its first attempt still, and no request more.
            if ticket.lease.delivery == Delivery(1) {
                domain.amplification.request();
            }
        }
        let flight = self.flight(desk);
        desk.counts.attempts += 1;
        if desk.out.capacity() == 0 {
            desk.out.reserve_exact(1);
        }
        let place = self.place(desk, &mail);
        let behind = desk.rare.as_ref().is_some_and(|rare| rare.behind);
        let is_known = is_known::<W>(place.as_deref(), &mail);
        desk.out.push(Out {
            ticket,
            flight: flight.clone(),
            life: desk.life.incarnation(),
            told: false,
            since: now,
            paused: Duration::ZERO,
            between: false,
            // Until its first step, also while it waits for replays, it stands where it was returned to.
            goes_back: is_known.then_some(Undoing::Done),
        });
        let torn = !place.as_ref().is_some_and(|place| place.back) && self.is_torn(desk, &mail);
        self.arm(desk, limit);
        self.publish(desk);
        let life = match self.rules.order {
            Order::Serial => desk.parked.take()?,
            Order::Concurrent(_) => W::share(desk.parked.as_ref()?)?,
        };
        let life_no = desk.life.incarnation();
        // Starting over would repeat what may not be repeated.
        let begins = place.as_ref().is_none_or(|place| matches!(place.turn, Turn::First));
        let refuse = tainted && begins;
        let takes_over = place.is_none().then(|| self.takes_over(&mail)).flatten();
        *into = Some(Job {
            mail,
            ticket,
            flight,
            life: life_no,
            attempt,
            place,
            takes_over,
            refuse,
            torn,
            behind,
            reservation: None,
            bill: None,
        });
        Some(life)
    }

    /// Where this request goes on; `None` for its beginning.
    fn place(&self, desk: &mut Desk<W>, mail: &Mail<W>) -> Option<Box<Place>> {
        // Nothing is rare with most: no more is asked.
        desk.rare.as_ref()?;
        if let Some(place) = self.continued(desk, mail) {
            if let Some(older) = desk.take_resume_of(mail.id) {
                desk.discard(older);
            }
            return Some(Box::new(place));
        }
        desk.take_resume_of(mail.id).map(|resume| Box::new(resume.1))
    }

    /// A flight for one attempt alone, or `None` for the one that its carrier uses again and again.
    fn flight(&self, desk: &Desk<W>) -> Option<Arc<Flight>> {
        match &desk.flight {
            Some(flight) => {
                flight.reset();
                None
            }
            None => Some(Arc::default()),
        }
    }

    /// What one execution of this hand-out does to the world: as the spec says, unless it has called
    /// what may not be called twice.
    pub(crate) fn effect_of(&self, flight: Option<&Arc<Flight>>) -> EffectKind {
        let tie = flight.and_then(|flight| flight.tie());
        let tainted = tie.is_some_and(|tie| tie.is_tainted());
        if tainted { EffectKind::Irreversible } else { self.spec.effect }
    }

    /// A step of a longer attempt begins: it has the whole attempt timeout again. Not while the child
    /// is held: then it is to be asked again once that is over.
    pub(crate) fn next_step(&self, ticket: Ticket) -> Option<Arc<Hold>> {
        let now = self.hub.now();
        let limit = now + self.rules.attempt_timeout;
        let mut desk = self.desk();
        if let Some(hold) = desk.holds().first() {
            return Some(Arc::clone(hold));
        }
        self.extend(&mut desk, ticket, limit, now);
        let flight = desk.flight(ticket).cloned();
        if let (Some(flight), Some(out)) =
            (flight, desk.out.iter_mut().find(|out| out.ticket == ticket))
        {
            out.since = now;
            out.between = false;
            out.paused = flight.tie().map_or(Duration::ZERO, |tie| tie.paused(now).0);
            // A step that ended in its grace has ended; the next is not told of it.
            if std::mem::take(&mut out.told) {
                flight.unask(Cut::Timeout);
            }
        }
        self.arm(&mut desk, limit);
        None
    }

    /// Takes the result of an attempt, and the next one when `more` of them may be made without
    /// giving others their turn. The life comes back with it, unless it was lost.
    ///
    /// `carrier` is the number of a serial carrier; a shared life has none. The next job replaces the
    /// one that has ended.
    pub(crate) fn after(
        &self,
        carrier: Option<u32>,
        life: Option<W::Life>,
        holder: &mut Option<Job<W>>,
        ended: Ended<W::Reply>,
        more: bool,
    ) -> Next<W> {
        let Some(job) = holder.take() else { return Next::Rest };
        match ended {
            Ended::Reply(reply, said) => {
                self.answered(carrier, life, (job, holder), reply, said, more)
            }
            other => {
                self.not_answered(carrier, life, job, other);
                match carrier {
                    Some(number) if more => self.begin_work(number, holder),
                    _ => Next::Rest,
                }
            }
        }
    }

    #[inline(always)]
    fn answered(
        &self,
        carrier: Option<u32>,
        life: Option<W::Life>,
        (mut job, holder): (Job<W>, &mut Option<Job<W>>),
        reply: W::Reply,
        mut said: Said,
        more: bool,
    ) -> Next<W> {
        let now = self.hub.now();
        job.settle(true);
        let (mut unused, mut past) = (None, None);
        let mut cost = job.bill.take().map_or_else(Cost::default, |bill| bill.all);
        if job.attempt > 1 || job.ticket.lease.delivery > Delivery(1) || job.mail.was_copied() {
            cost.add(job.mail.spent());
        }
        let mut desk = self.desk();
        if self.is_fenced(&desk, carrier, &job, said.kept) {
            drop(desk);
            self.stale(&job.mail, job.ticket);
            let _ = dropped((life, reply));
            return carrier.map_or(Next::Rest, |number| self.begin_work(number, holder));
        }
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
        let (mut late, mut is_orphan) = (false, false);
        let settled = match finished {
            mailbox::Output::Finished(mail) => {
                self.left(&mut desk, &mail);
                self.settle(&mut desk, mail, Fate::Done)
            }
            mailbox::Output::Orphan(_) => {
                is_orphan = true;
                late = job.mail.was_copied();
                None
            }
            _ => {
                drop(desk);
                self.stale(&job.mail, job.ticket);
                let _ = dropped(life);
                return carrier.map_or(Next::Rest, |number| self.begin_work(number, holder));
            }
        };
        let current = desk.life.incarnation() == job.life
            && carrier.is_none_or(|number| desk.carrier_no == number);
        if let Some(life) = life {
            if current && carrier.is_some() && desk.life.stage() != Stage::Down {
                desk.parked = Some(life);
                if let (Some(state), Some(saved)) = (said.state.take(), &mut desk.saved) {
                    past = Some(match is_orphan && job.mail.is_given_up() {
                        // What it did is undone: the next request begins where this one did.
                        true => saved.leave_torn(job.mail.id, *state),
                        false => saved.settle(*state),
                    });
                }
            } else {
                unused = Some(life);
            }
        }
        let mut report = None;
        if said.last && current {
            let (parked, then) = self.life_lost(&mut desk, job.life, ExitCause::Normal, false);
            unused = unused.or(parked);
            report = then;
        }
        let mut next = Next::Rest;
        let mut rest = None;
        match carrier {
            Some(_) if current => {
                if more {
                    // A life that has ended with this answer leaves its carrier without work, too.
                    let up = desk.life.is_up();
                    match if up { self.next_job(&mut desk, holder, now) } else { None } {
                        Some(life) => next = Next::Work(life),
                        None => desk.woken = false,
                    }
                }
                if matches!(next, Next::Rest) {
                    rest = desk.resting();
                    self.publish(&mut desk);
                }
                drop(desk);
            }
            _ => {
                rest = desk.resting();
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
            // The other copy within a group has told it, and a transaction that has ended is undone.
            let is_moot = late || self.spec.stateful && self.rules.in_transaction;
            match job.mail.late().filter(|_| !is_moot) {
                Some(heard) => {
                    let cost = Cost::default();
                    let elapsed = now.since(job.mail.accepted_at);
                    let answer = Answer { elapsed, cost, ..Answer::new(reply, self.path.clone()) };
                    heard.tell(Box::new(Answer {
                        degraded: said.degraded,
                        defaulted: said.defaulted,
                        ..answer
                    }));
                }
                _ => drop(dropped(reply)),
            }
            if late {
                self.stale(&job.mail, job.ticket);
            }
        }
        if unused.is_some() {
            let _ = dropped(unused);
        }
        if past.is_some() {
            let _ = dropped(past);
        }
        if let Some(report) = report {
            report();
        }
        match carrier {
            Some(number) if !current => self.begin_work(number, holder),
            _ => next,
        }
    }

    fn deliver(
        &self,
        settled: Settled<W>,
        (attempts, mut cost): (u32, Cost),
        value: W::Reply,
        said: Said,
        now: Moment,
    ) {
        let Settled { mail, fate } = settled;
        let elapsed = now.since(mail.accepted_at);
        let mut degraded = said.degraded;
        let defaulted = said.defaulted;
        if let Some(class) = said.flaw {
            self.hub.count_failure(class, None);
        }
        // Every success pays for the retries of others, and for its own. Before the first failure the budget is full.
        if let Some(domain) = self.domain.get().filter(|_| said.flaw.is_none()) {
            let paid = mail.book().map_or(0, |book| book.paid_at(&self.path));
            domain.lock().retries.repay(paid);
        }
        if let Some(group) = &mail.home {
            let index = self.member.get().map_or(0, |member| member.index);
            degraded |= index > 0;
            cost.add(group.served(&mail, index, fate, said.flaw, now));
            if degraded || defaulted {
                let kind = group.kind();
                self.hub.watch(Input::Impaired { kind, degraded, defaulted }, now);
            }
        }
        hub::note(&self.hub, &mail, fate, Some((&self.path, defaulted)), now);
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
                degraded,
                defaulted,
                elapsed,
                cost,
            });
        }
        let by = self.path.clone();
        if fate == Fate::Unheard
            && let Some(heard) = mail.late()
        {
            // Who was told at the deadline waits for how it has ended.
            let answer = Answer { elapsed, cost, ..Answer::new(value, by) };
            heard.tell(Box::new(Answer { degraded, defaulted, attempts, ..answer }));
            return;
        }
        if attempts <= 1 && !degraded && !defaulted && cost == Cost::default() {
            mail.reply(value, by, elapsed);
            return;
        }
        let trail = if attempts > 1 { mail.trail() } else { Trail::default() };
        mail.deliver(Ok(Answer {
            value,
            served_by: by,
            degraded,
            defaulted,
            attempts,
            cost,
            elapsed,
            trail,
        }));
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
        let flight = Arc::clone(desk.flight(ticket)?);
        let position = desk.out.iter().position(|out| out.ticket == ticket)?;
        let out = &mut desk.out[position];
        if !out.told {
            // The clock stands still while a supervised call is waited for.
            if let Some(tie) = flight.tie() {
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
            flight.ask(Cut::Timeout);
            self.extend(desk, ticket, now + self.rules.policy.hang_grace, now);
            return None;
        }
        let life = out.life;
        flight.ask(Cut::Kill);
        // A copy of it would count as somebody at work.
        drop(flight);
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
            key: job.mail.key().cloned(),
            feedback: self.feedback(job),
            seat: Arc::clone(self) as Arc<dyn crate::behavior::Seat>,
            flight,
            purse: job.mail.purse().cloned(),
            soft: job.mail.soft(),
            notes: Notes::default(),
            tie: std::sync::OnceLock::new(),
            hedge: self.is_second_copy(&job.mail),
            replay: false,
        }
    }

    /// The same context for another attempt of its carrier: two counts less to touch.
    pub(crate) fn renew(&self, context: &mut Context, job: &Job<W>) {
        context.request = job.mail.id;
        context.attempt = job.attempt;
        context.delivery = job.ticket.lease.delivery;
        context.deadline = job.mail.deadline;
        context.key = job.mail.key().cloned();
        context.feedback = self.feedback(job);
        context.purse = job.mail.purse().cloned();
        context.soft = job.mail.soft();
        context.notes = Notes::default();
        context.tie.take();
        context.hedge = false;
    }

    /// What an earlier attempt has left for this one. The first has nothing to look for.
    fn feedback(&self, job: &Job<W>) -> Option<Arc<str>> {
        if job.ticket.lease.delivery <= Delivery(1) {
            return None;
        }
        job.mail.book()?.feedback.clone()
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
