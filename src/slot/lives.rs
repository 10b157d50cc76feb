//! Lives begin and end here, in the task of a runner: never in a supervisor.

use std::sync::{Arc, Weak};

use tokio::sync::Notify;

use super::state::Suspicion;
use super::{Boxed, Carrier, Cause, Desk, LastEnd, Link, Locked, Managed, Slot};
use crate::behavior::{Lifeline, StartContext};
use crate::event::Event;
use crate::family::Shutdown;
use crate::fate::{Fate, FateCounts};
use crate::fault::{Class, ExitCause, Fault};
use crate::hub::Timed;
use crate::id::{ChildPath, Incarnation};
use crate::lifecycle::{self, Output, Stage};
use crate::mailbox::{self, Ticket};
use crate::moment::Moment;
use crate::port::{Cut, Late};
use crate::slot::worker::{Worker, dropped, guarded, unwound};

/// How a life is ended.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    pub(crate) shutdown: Shutdown,
    /// Another life follows: what waits may wait for it.
    pub(crate) restart: bool,
    pub(crate) cause: ExitCause,
    /// Past this moment it is not waited for, unless its own shutdown knows no limit.
    pub(crate) until: Option<Moment>,
}

impl Ending {
    /// When it ends without mercy.
    pub(crate) fn limit(&self, now: Moment) -> Moment {
        match self.shutdown {
            Shutdown::Brutal => now,
            Shutdown::Timeout(limit) => (now + limit).min(self.until.unwrap_or(Moment::NEVER)),
            Shutdown::Infinity => Moment::NEVER,
        }
    }
}

impl<W: Worker> Slot<W> {
    /// Begins a life: the constructor and `start`, guarded, within the start timeout.
    pub(super) async fn begin_now(
        self: Arc<Self>,
        life: Incarnation,
        link: Link,
    ) -> Result<(), ExitCause> {
        {
            let mut desk = self.desk();
            if desk.life.on(lifecycle::Input::Begin(life)) != Output::Changed {
                return Err(ExitCause::Stopped);
            }
            self.link(&mut desk, link);
            self.publish_life(&mut desk);
        }
        self.bring_up(life).await
    }

    /// What this life knows when it starts.
    pub(super) fn start_context(&self, life: Incarnation) -> StartContext {
        let slot = Weak::clone(&self.me);
        let lifeline = Lifeline::new(move |class| {
            if let Some(slot) = slot.upgrade() {
                slot.life_over(life, class);
            }
        });
        StartContext { path: self.path.clone(), incarnation: life, lifeline }
    }

    /// The rest of a beginning: the child is `Starting` by now.
    pub(super) async fn bring_up(self: Arc<Self>, life: Incarnation) -> Result<(), ExitCause> {
        // If this task is dropped while the start hangs, the child must not stay "starting".
        let mut pending = Pending { slot: &self, life, armed: true };
        let context = self.start_context(life);
        let said = context.lifeline.clone();
        let begun = self.construct(&context).await;
        pending.armed = false;
        let mut unused = None;
        let result = match begun {
            Ok(value) => {
                let mut desk = self.desk();
                if desk.life.on(lifecycle::Input::Began(life)) == Output::Changed {
                    desk.parked = Some(value);
                    self.publish_life(&mut desk);
                    let now = self.hub.now();
                    if self.hub.events.wanted() {
                        self.hub
                            .emit(Event::Started { child: self.path.clone(), incarnation: life });
                    }
                    self.wake(desk, now);
                    // Said before there was a life to end.
                    if let Some(class) = said.said() {
                        self.life_over(life, class);
                    }
                    Ok(())
                } else {
                    unused = Some(value);
                    Err(ExitCause::Stopped)
                }
            }
            Err(cause) => {
                let mut desk = self.desk();
                desk.life.on(lifecycle::Input::Exited(life, cause.kind()));
                desk.last_cause = Some(Box::new(LastEnd::new(&cause, self.hub.now())));
                self.publish_life(&mut desk);
                drop(desk);
                self.hub.emit(Event::Exited {
                    child: self.path.clone(),
                    incarnation: life,
                    cause: cause.kind(),
                });
                Err(cause)
            }
        };
        if let Some(unused) = unused {
            dropped(unused).ok();
        }
        result
    }

    async fn construct(&self, context: &StartContext) -> Result<W::Life, ExitCause> {
        let failed = |text: String| ExitCause::StartFailed(text);
        let candidate = {
            let mut desk = self.desk();
            // Where the last life was to go on.
            let _ = desk.take_continues();
            desk.take_candidate()
        };
        let mut life = match candidate {
            Some(candidate) => self.begin_candidate(*candidate, context.incarnation)?,
            None => {
                let life = unwound(|| self.worker.construct())
                    .map_err(|text| failed(format!("the constructor panicked: {text}")))?;
                self.restore(life, context.incarnation)?
            }
        };
        let limit = self.hub.now() + self.rules.start_timeout;
        match self.started(&mut life, context, limit).await {
            Ok(Ok(())) => {
                self.keep_start(&life)?;
                Ok(life)
            }
            Ok(Err(fault)) => {
                dropped(life).ok();
                Err(failed(fault.to_string()))
            }
            Err(text) => {
                dropped(life).ok();
                match self.start_panicked() {
                    Suspicion::Guilty => self.convict(),
                    Suspicion::Try if self.starts_without_state(context, limit).await => {
                        self.suspect();
                    }
                    Suspicion::Try | Suspicion::None => {}
                }
                Err(failed(format!("start panicked: {text}")))
            }
        }
    }

    /// Runs a life's start until this moment; the text of its panic.
    async fn started(
        &self,
        life: &mut W::Life,
        context: &StartContext,
        limit: Moment,
    ) -> Result<Result<(), Fault>, String> {
        let timeout = self.hub.clock.sleep_until(limit);
        let start = guarded(|| W::start(life, context));
        tokio::select! {
            biased;
            started = start => started,
            () = timeout => Ok(Err(Fault::timeout(format!(
                "start took longer than {:?}",
                self.rules.start_timeout
            )))),
        }
    }

    /// Whether a life that has no state begins: what keeps that from it is no fault of a state's. It is for
    /// this only, and dropped.
    async fn starts_without_state(&self, context: &StartContext, limit: Moment) -> bool {
        let Ok(mut life) = unwound(|| self.worker.construct()) else { return false };
        let started = self.started(&mut life, context, limit).await;
        dropped(life).ok();
        matches!(started, Ok(Ok(())))
    }

    async fn end_now(self: Arc<Self>, how: Ending) {
        let deadline = how.limit(self.hub.now());
        let resting = Arc::new(Notify::new());
        {
            let mut desk = self.desk();
            let before = desk.life.stage();
            if desk.life.on(lifecycle::Input::Stop { restart: how.restart }) == Output::Ignored {
                drop(desk);
                if !how.restart {
                    self.drain(&how.cause);
                }
                return;
            }
            desk.rare().resting = Some(Arc::clone(&resting));
            // A lazy life that was promised is not begun any more; the next start promises its own.
            desk.lazy = None;
            if before == Stage::Up {
                desk.ask_all(Cut::Stop);
            }
            self.publish(&mut desk);
        }
        if !matches!(how.shutdown, Shutdown::Brutal) {
            let timeout = self.hub.clock.sleep_until(deadline);
            let rest = async {
                while !self.is_at_rest() {
                    resting.notified().await;
                }
            };
            tokio::select! {
                biased;
                () = rest => {}
                () = timeout => {}
            }
        }
        if !self.is_at_rest() {
            self.kill_now(&how);
        }
        let life = self.desk().parked.take();
        if let Some(mut life) = life {
            let timeout = self.hub.clock.sleep_until(deadline);
            {
                let stop = guarded(|| W::stop(&mut life, &how.cause));
                if !matches!(how.shutdown, Shutdown::Brutal) {
                    tokio::select! {
                        biased;
                        _ = stop => {}
                        () = timeout => {}
                    }
                }
            }
            dropped(life).ok();
        }
        {
            let mut desk = self.desk();
            if desk.life.on(lifecycle::Input::Ended) == Output::Changed {
                desk.last_cause = None;
                let life = desk.life.incarnation();
                if self.hub.events.wanted() {
                    self.hub.emit(Event::Exited {
                        child: self.path.clone(),
                        incarnation: life,
                        cause: how.cause.kind(),
                    });
                }
            }
            desk.rare().resting = None;
            desk.woken = false;
            // The next life knows nothing of the steps that were done.
            if let Some(resume) = desk.take_steps() {
                desk.discard(resume);
            }
            if !how.restart {
                self.dismiss(&mut desk);
            }
            self.publish_life(&mut desk);
        }
        if !how.restart {
            self.drain(&how.cause);
        }
    }

    /// Whether no attempt of the current life is under way, and the life is where it can be taken.
    fn is_at_rest(&self) -> bool {
        let desk = self.desk();
        let life = desk.life.incarnation();
        let out = desk.out.iter().any(|out| out.life == life);
        !out && (desk.parked.is_some() || desk.life.stage() != Stage::Stopping || !desk.woken)
    }

    /// Ends what would not end by itself.
    fn kill_now(&self, how: &Ending) {
        let now = self.hub.now();
        let mut desk = self.desk();
        let life = desk.life.incarnation();
        self.fence(&mut desk);
        let parked = desk.parked.take();
        let outs = self.cut_off(&mut desk, life);
        let mut climbs = Vec::new();
        let mut interrupted = Vec::new();
        let mut settled = Vec::new();
        for (ticket, safe) in outs {
            self.drop_answer(&mut desk, ticket, true);
            let Some(flight) = desk.mailbox.flight(ticket) else { continue };
            let (orphan, mail) = (flight.orphan, Arc::clone(flight.payload));
            if orphan {
                self.finish(&mut desk, ticket, now);
            } else if safe && mail.is_cancelled() {
                if let Some(mail) = self.finish(&mut desk, ticket, now) {
                    settled.extend(self.settle(&mut desk, mail, Fate::Cancelled));
                }
            } else if safe && !(how.restart && self.is_worn(&mail, ticket)) {
                self.interrupt(&mut desk, ticket, now);
                interrupted.push(mail.id);
            } else {
                climbs.push((ticket, Arc::clone(&mail), !safe));
            }
            desk.discard(mail);
        }
        self.publish(&mut desk);
        drop(desk);
        for request in interrupted {
            self.hub.emit(Event::Interrupted { child: self.path.clone(), request });
        }
        self.tell(settled, &how.cause);
        for (ticket, mail, tainted) in climbs {
            self.climb(&mail, ticket, Cause::Exit(ExitCause::Stopped), None, tainted, now);
        }
        if let Some(parked) = parked {
            dropped(parked).ok();
        }
    }

    /// Asks the attempts of this life to end and listens to them no longer; which they were, and
    /// whether they may be executed again.
    fn cut_off(&self, desk: &mut Desk<W>, life: Incarnation) -> Vec<(Ticket, bool)> {
        let out = std::mem::take(&mut desk.out);
        let cut: Vec<_> = out
            .iter()
            .filter(|out| out.life == life)
            .map(|out| (out.ticket, self.effect_of(desk.flight_of(out)).is_replay_safe()))
            .collect();
        for out in &out {
            if out.life == life {
                if let Some(flight) = desk.flight_of(out) {
                    flight.ask(Cut::Kill);
                }
                self.expect_late(desk, out.ticket);
                desk.abandon(out);
            }
        }
        desk.out = out;
        cut
    }

    /// Nobody waits for the answer of this attempt here. Whoever has to know how its work ends waits no longer
    /// for code that does not come back than for one that hangs.
    fn expect_late(&self, desk: &Desk<W>, ticket: Ticket) {
        let flight = desk.mailbox.flight(ticket);
        if let Some(late) = flight.and_then(|flight| flight.payload.late()) {
            let grace = self.rules.attempt_timeout + self.rules.policy.hang_grace;
            let who = Arc::downgrade(late) as Weak<dyn Timed>;
            self.hub.arm(self.hub.now() + grace, who);
        }
    }

    /// The carrier is not needed any more.
    fn dismiss(&self, desk: &mut Desk<W>) {
        let waker = desk.waker.take();
        desk.forget_carrier();
        if let Carrier::There(actor) = std::mem::replace(&mut desk.carrier, Carrier::None) {
            actor.stop(None);
        }
        // It hears that only once it has seen that it is not the carrier any more.
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whose child it is from now on. A carrier dies with the supervisor below which it was spawned: one that rests
    /// from the life before is not taken over from another one's life, or its end would be this life's.
    fn link(&self, desk: &mut Desk<W>, link: Link) {
        let before = desk.link.replace(link);
        let is_same = match (&before, &desk.link) {
            (Some(before), Some(now)) => Arc::ptr_eq(&before.boss, &now.boss),
            _ => true,
        };
        if !is_same {
            self.dismiss(desk);
        }
    }

    /// Everything that is open gets the fate `Stopped`; what acts on the world without being
    /// repeatable, and is still under way, `Unknown`.
    pub(super) fn drain(&self, cause: &ExitCause) {
        let now = self.hub.now();
        let mut desk = self.desk();
        let unknown: Vec<_> = desk
            .out
            .iter()
            .filter(|out| !self.effect_of(desk.flight_of(out)).is_replay_safe())
            .map(|out| out.ticket.lease.request)
            .collect();
        self.note_hand_outs(&desk);
        for out in &desk.out {
            self.expect_late(&desk, out.ticket);
        }
        let out: Vec<_> = desk.mailbox.flights().map(|flight| flight.ticket).collect();
        for ticket in out {
            self.drop_answer(&mut desk, ticket, true);
        }
        let drained =
            desk.mailbox.on(mailbox::Input::Drain, &self.rules.bounds, self.rules.order, now);
        let mailbox::Output::Drained(all) = drained else { return };
        let resume = desk.take_resume();
        let mut settled = Vec::with_capacity(all.len());
        let mut group_owned = Vec::new();
        for mail in all {
            self.left(&mut desk, &mail);
            let fate = match unknown.contains(&mail.id) || mail.is_unknown() {
                true => Fate::Unknown,
                false => Fate::Stopped,
            };
            // A group may still have somebody to serve what only waited here.
            if mail.home.is_some() && fate == Fate::Stopped && !self.hub.is_shutting_down() {
                let _ = self.take_back(&mut desk, None);
                group_owned.push(mail);
            } else {
                settled.extend(self.settle(&mut desk, mail, fate));
            }
        }
        self.publish(&mut desk);
        drop(desk);
        drop(resume);
        self.tell(settled, cause);
        for mail in group_owned {
            let index = self.member.get().map_or(0, |member| member.index);
            if let Some(group) = mail.home.clone()
                && !mail.give_up_copy(index)
            {
                group.wait(mail, now);
            }
        }
    }

    /// What is given back to a group takes the number of its last hand-out along, so that the next one,
    /// by whatever member, has another.
    fn note_hand_outs(&self, desk: &Desk<W>) {
        let waiting = desk.mailbox.waiting().map(|(_, number, mail)| (number, mail));
        let out =
            desk.mailbox.flights().map(|flight| (flight.ticket.lease.delivery, flight.payload));
        for (number, mail) in waiting.chain(out) {
            if mail.home.is_some() && number > mail.deliveries() {
                mail.note_hand_out(number);
            }
        }
    }

    /// The carrier with this number is gone, by whatever way.
    pub(crate) fn carrier_gone(&self, number: u32) {
        let now = self.hub.now();
        let mut desk = self.desk();
        if desk.carrier_no != number {
            return;
        }
        desk.carrier = Carrier::None;
        self.fence(&mut desk);
        self.end_killed(desk, ExitCause::Killed, now);
    }

    /// The current life was killed or said that it is over, and its carrier is fenced.
    fn end_killed(&self, mut desk: Locked<'_, W>, cause: ExitCause, now: Moment) {
        let life = desk.life.incarnation();
        // What a shared life works on goes on in tasks of its own, which report by themselves.
        let serial = self.rules.order == mailbox::Order::Serial;
        let outs = if serial { self.cut_off(&mut desk, life) } else { Vec::new() };
        let (parked, report) = self.life_lost(&mut desk, life, cause.clone(), false);
        let mut climbs = Vec::new();
        for (ticket, safe) in outs {
            self.drop_answer(&mut desk, ticket, true);
            let Some(flight) = desk.mailbox.flight(ticket) else { continue };
            if flight.orphan {
                self.finish(&mut desk, ticket, now);
            } else {
                climbs.push((ticket, Arc::clone(flight.payload), !safe));
            }
        }
        let rest = desk.resting();
        self.publish(&mut desk);
        drop(desk);
        for (ticket, mail, tainted) in climbs {
            self.climb(&mail, ticket, Cause::Exit(cause.clone()), None, tainted, now);
        }
        if let Some(report) = report {
            report();
        }
        if let Some(rest) = rest {
            rest.notify_waiters();
            rest.notify_one();
        }
        if let Some(parked) = parked {
            dropped(parked).ok();
        }
    }

    /// The life itself says that it is over. The attempts of a stateless child hold a share of it and
    /// end by themselves, with what they know; they are not judged twice.
    fn life_over(&self, life: Incarnation, class: Class) {
        let now = self.hub.now();
        let mut desk = self.desk();
        if !desk.life.is_up() || desk.life.incarnation() != life {
            return;
        }
        self.fence(&mut desk);
        self.end_killed(desk, ExitCause::Faulted(class), now);
    }

    /// Kills the current life from outside, as an operator or a test does.
    pub(crate) fn kill(&self) {
        let now = self.hub.now();
        let mut desk = self.desk();
        if !desk.life.is_up() {
            return;
        }
        self.fence(&mut desk);
        if self.rules.order != mailbox::Order::Serial {
            let life = desk.life.incarnation();
            self.cut_off(&mut desk, life);
        }
        self.end_killed(desk, ExitCause::Killed, now);
    }
}

impl Timed for Late {
    fn on_time(&self, _: Moment) {
        self.give_up();
    }
}

/// A start that may be dropped half-way.
struct Pending<'a, W: Worker> {
    slot: &'a Slot<W>,
    life: Incarnation,
    armed: bool,
}

impl<W: Worker> Drop for Pending<'_, W> {
    fn drop(&mut self) {
        if self.armed {
            self.slot.cancel_begin(self.life);
        }
    }
}

impl<W: Worker> Managed for Slot<W> {
    fn path(&self) -> &ChildPath {
        &self.path
    }

    fn last_incarnation(&self) -> Incarnation {
        self.desk().life.last_given()
    }

    fn begin(self: Arc<Self>, life: Incarnation, link: Link) -> Boxed<Result<(), ExitCause>> {
        if self.is_lazy() {
            let mut desk = self.desk();
            if desk.mailbox.depth() == 0 && desk.life.stage() != Stage::Removed {
                self.link(&mut desk, link);
                desk.lazy = Some(life);
                desk.life.rest_dormant();
                self.publish_life(&mut desk);
                return Box::pin(std::future::ready(Ok(())));
            }
        }
        Box::pin(self.begin_now(life, link))
    }

    fn cancel_begin(&self, life: Incarnation) {
        let mut desk = self.desk();
        if desk.life.on(lifecycle::Input::Void(life)) == Output::Changed {
            self.publish_life(&mut desk);
        }
        if desk.lazy == Some(life) {
            desk.lazy = None;
        }
    }

    fn end(self: Arc<Self>, how: Ending) -> Boxed<()> {
        Box::pin(self.end_now(how))
    }

    fn resumes(&self, at: Moment) {
        if let Some(last) = self.desk().last_cause.as_deref_mut() {
            last.resumes = Some(at);
        }
    }

    fn quarantine(&self, cause: &ExitCause) {
        {
            let mut desk = self.desk();
            if desk.life.on(lifecycle::Input::Quarantine) == Output::Ignored {
                return;
            }
            self.dismiss(&mut desk);
            self.publish_life(&mut desk);
        }
        self.drain(cause);
    }

    fn give_up(&self, cause: &ExitCause) {
        let link = {
            let mut desk = self.desk();
            desk.life.on(lifecycle::Input::GiveUp);
            desk.lazy = None;
            self.dismiss(&mut desk);
            self.publish_life(&mut desk);
            desk.link.take()
        };
        drop(link);
        self.drain(cause);
    }

    fn remove(&self, cause: &ExitCause) {
        let link = {
            let mut desk = self.desk();
            desk.life.on(lifecycle::Input::Remove);
            desk.lazy = None;
            self.dismiss(&mut desk);
            self.publish_life(&mut desk);
            desk.link.take()
        };
        drop(link);
        self.drain(cause);
    }

    fn unmade(&self) {
        self.desk().rare().unmade = true;
    }

    fn revive(&self) {
        let mut desk = self.desk();
        desk.life.on(lifecycle::Input::Revive);
        self.publish_life(&mut desk);
    }

    fn counts(&self) -> FateCounts {
        let desk = self.desk();
        desk.counts.fates(desk.mailbox.open().saturating_sub(desk.counts.guests as usize))
    }

    fn attempts(&self) -> u64 {
        self.desk().counts.attempts
    }
}
