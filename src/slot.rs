//! The slot: what a child is between and across its lives.
//!
//! It owns the mailbox, the requests in flight and their reply ports, the child's timers, and the
//! number of its life. A life is a value parked here while nobody works with it; the actor that works
//! is only its carrier, spawned with the first work and replaced when it is lost.
//!
//! *Invariant.* Nothing of value travels inside a ractor mailbox: a carrier is only woken. User values
//! are never dropped, and callers never woken, under the lock. A result names its lease, and one that
//! is not current changes nothing.

use std::any::Any;
use std::sync::{Arc, OnceLock, Weak};
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use ractor::{ActorCell, ActorRef};

use crate::checkpoint::{Digest, Scope};
use crate::circuit::Domain;
use crate::error::{CallError, Unavailable};
use crate::event::Event;
use crate::family::Key;
use crate::fate::{Cost, Fate, FateCounts, Trail};
use crate::fault::{EffectKind, ExitCause};
use crate::hub::Hub;
use crate::id::{ChildPath, Delivery, Incarnation};

use crate::lifecycle::{self, Lifecycle, Stage};
use crate::mailbox::{self, Bounds, Entry, Mailbox, Order, Ticket};
use crate::mirror::{ChildState, Detail, RowHandle, Status};
use crate::moment::Moment;
use crate::policy::{Policy, Within};
use crate::port::{Envelope, Flight, Home, PortTable};
use crate::spec::{BetweenLives, ChildSpec, StartMode};

mod accept;
mod anchor;
mod answer;
mod back;
mod copies;
mod ladder;
mod lives;
mod desk;
mod hand;
mod hold;
mod keep;
mod line;
mod look;
mod marks;
mod point;
mod rare;
mod recovery;
mod replay;
mod same;
mod seat;
mod state;
mod trial;
mod unfit;
mod ways;
mod wide;
mod work;
mod worker;

pub(crate) use accept::{Recorder, Room, refused};
pub(crate) use desk::{Counts, LastEnd, Locked};
pub(crate) use hold::Held;
pub(crate) use keep::{NotBack, Unkept, Writing};
pub(crate) use ladder::Cause;
pub(crate) use line::{Kept, Prepared, given_up};
pub(crate) use lives::Ending;
pub(crate) use look::Look;
pub(crate) use recovery::{count_fallback, uncount_fallback};
pub(crate) use replay::{Answered, Replay, Replayed, told_apart};
pub(crate) use state::{Adopted, Begun, Saved, Undoing, is_returned};
pub(crate) use trial::OnTrial;
pub(crate) use work::{Bill, Ended, Job, Next, Said};
pub(crate) use worker::{
    Wake, Watched, Worker, dropped, guarded, let_go, poll_watched, unwound, unwound_here, watched,
};

/// Whom a life's end is reported to.
pub(crate) trait Boss: Send + Sync {
    /// `siblings`: a class has opted for more than this life.
    fn exited(&self, key: Key, life: Incarnation, cause: ExitCause, siblings: bool);
    fn cell(&self) -> ActorCell;
}

/// A child as its supervisor sees it, type erased.
pub(crate) trait Managed: Send + Sync {
    fn path(&self) -> &ChildPath;
    fn last_incarnation(&self) -> Incarnation;
    fn begin(self: Arc<Self>, life: Incarnation, link: Link) -> Boxed<Result<(), ExitCause>>;
    /// Gives up a beginning that has not ended yet.
    fn cancel_begin(&self, life: Incarnation);
    fn end(self: Arc<Self>, how: Ending) -> Boxed<()>;
    fn quarantine(&self, cause: &ExitCause);
    /// Its next life begins at this moment. For those who look.
    fn resumes(&self, at: Moment);
    /// No life follows unless it is started by hand: what waits gets its fate.
    fn give_up(&self, cause: &ExitCause);
    /// It leaves the system.
    fn remove(&self, cause: &ExitCause);
    /// It was removed for good: from now on it hands no state to the store any more.
    fn unmade(&self) {}
    /// It was removed, and its supervisor is started again from its spec, in which it stands.
    fn revive(&self);
    fn counts(&self) -> FateCounts;
    /// Attempts made so far.
    fn attempts(&self) -> u64 {
        0
    }
}

pub(crate) type Boxed<T> = std::pin::Pin<Box<dyn Future<Output = T> + Send>>;

/// Which child of which supervisor.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) boss: Arc<dyn Boss>,
    pub(crate) key: Key,
}

/// What a child's spec and its surroundings come to; shared by the children of one template.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) policy: Arc<Policy>,
    pub(crate) attempt_timeout: Duration,
    pub(crate) start_timeout: Duration,
    pub(crate) deadline: Option<Duration>,
    pub(crate) bounds: Bounds,
    pub(crate) order: Order,
    /// The scope it stands in.
    pub(crate) scope: Scope,
    /// Whether that is within a transaction: what a request has done is undone when it is rolled back, or
    /// ends without an answer.
    pub(crate) in_transaction: bool,
    /// Of all that decides about failures, once somebody has asked: see [`Slot::policy_digest`].
    digest: OnceLock<Digest>,
}

impl Rules {
    pub(crate) fn new(spec: &ChildSpec, inherited: &Arc<Policy>, within: Within) -> Self {
        let policy = spec.policy.clone().unwrap_or_else(|| Arc::clone(inherited));
        let policy = if spec.once { Arc::new((*policy).clone().once()) } else { policy };
        let attempt_timeout = spec.attempt_timeout.unwrap_or(policy.attempt_timeout);
        let deadline = spec.deadline.or_else(|| {
            let exact = (*policy).clone().with_attempt_timeout(attempt_timeout);
            (!spec.stateful).then(|| exact.worst_case(1))
        });
        Self {
            attempt_timeout,
            start_timeout: spec.start_timeout.unwrap_or(attempt_timeout),
            deadline,
            bounds: Bounds {
                count: spec.mailbox as usize,
                bytes: spec.mailbox_bytes.as_ref().map(|(bytes, ..)| *bytes),
                reserve: (spec.mailbox as usize / 8).max(1),
            },
            order: if spec.stateful {
                Order::Serial
            } else {
                Order::Concurrent(spec.concurrency as usize)
            },
            scope: within.scope,
            in_transaction: within.in_transaction,
            digest: OnceLock::new(),
            policy,
        }
    }
}

/// Where a member stands in its group.
pub(crate) struct Membership<Q, R> {
    pub(crate) group: Weak<dyn Home<Q, R>>,
    pub(crate) index: usize,
}

/// See the [module](self).
pub(crate) struct Slot<W: Worker> {
    pub(crate) me: Weak<Self>,
    pub(crate) path: ChildPath,
    pub(crate) spec: Arc<ChildSpec>,
    pub(crate) rules: Arc<Rules>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) worker: W,
    pub(crate) ports: OnceLock<Box<PortTable>>,
    pub(crate) member: OnceLock<Box<Membership<W::Request, W::Reply>>>,
    domain: OnceLock<Arc<Mutex<Domain>>>,
    desk: Mutex<Desk<W>>,
}

/// The carrier of a life.
pub(crate) enum Carrier {
    None,
    /// Being spawned; wakes are remembered in `woken`.
    Coming,
    There(ActorRef<Wake>),
}

/// An attempt that is out.
pub(crate) struct Out {
    pub(crate) ticket: Ticket,
    /// `None` for that of the desk, which its carrier uses again and again.
    pub(crate) flight: Option<Arc<Flight>>,
    pub(crate) life: Incarnation,
    /// It was told that its time is over; the next overrun is a hang.
    pub(crate) told: bool,
    /// When its current step began, and for how long it had waited for others until then.
    pub(crate) since: Moment,
    pub(crate) paused: Duration,
    /// Its last step is over and kept, and the next has not begun.
    pub(crate) between: bool,
    /// Going back: what a state stored now says of that.
    pub(crate) goes_back: Option<Undoing>,
}

pub(crate) type Mail<W> = Arc<Envelope<<W as Worker>::Request, <W as Worker>::Reply>>;

pub(crate) struct Desk<W: Worker> {
    row: RowHandle,
    pub(crate) mailbox: Mailbox<Mail<W>>,
    pub(crate) life: Lifecycle,
    pub(crate) parked: Option<W::Life>,
    pub(crate) link: Option<Link>,
    pub(crate) carrier: Carrier,
    pub(crate) carrier_no: u32,
    /// A wake is on its way, or a carrier is at work and will look again before it rests.
    pub(crate) woken: bool,
    /// How a carrier that rests is woken; there from its first look on.
    pub(crate) waker: Option<Waker>,
    pub(crate) out: Vec<Out>,
    /// The flight of a serial carrier, used again for each of its attempts.
    pub(crate) flight: Option<Arc<Flight>>,
    pub(crate) counts: Counts,
    pub(crate) armed: Moment,
    pub(crate) last_cause: Option<Box<LastEnd>>,
    /// The life that a lazy child will begin with its first request.
    pub(crate) lazy: Option<Incarnation>,
    /// What the next life can begin with.
    pub(crate) saved: Option<Box<Saved>>,
    /// What most children have nothing of.
    rare: Option<Box<rare::Rare<W>>>,
}

/// What must be done once the lock is released: nothing of the user's is touched under it.
pub(crate) struct Settled<W: Worker> {
    pub(crate) mail: Mail<W>,
    pub(crate) fate: Fate,
}

impl<W: Worker> Slot<W> {
    pub(crate) fn new(
        path: ChildPath,
        spec: Arc<ChildSpec>,
        rules: Arc<Rules>,
        hub: Arc<Hub>,
        worker: W,
        row: RowHandle,
    ) -> Arc<Self> {
        let domain = OnceLock::new();
        if let Some(name) = &spec.quota_domain {
            let _ = domain.set(hub.domain(name));
        }
        Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            path,
            spec,
            rules,
            hub,
            worker,
            ports: OnceLock::new(),
            member: OnceLock::new(),
            domain,
            desk: Mutex::new(Desk {
                row,
                mailbox: Mailbox::default(),
                life: Lifecycle::default(),
                parked: None,
                link: None,
                carrier: Carrier::None,
                carrier_no: 0,
                woken: false,
                waker: None,
                out: Vec::new(),
                flight: None,
                counts: Counts::default(),
                armed: Moment::NEVER,
                last_cause: None,
                lazy: None,
                saved: None,
                rare: None,
            }),
        })
    }

    pub(crate) fn desk(&self) -> Locked<'_, W> {
        Locked::new(self.desk.lock())
    }

    /// The quota domain; a child without a named one gets its own with its first failure.
    pub(crate) fn domain(&self) -> &Arc<Mutex<Domain>> {
        self.domain.get_or_init(|| self.hub.domain(&Arc::from(self.path.as_str())))
    }

    /// The quota domain, if the child has one so far.
    pub(crate) fn known_domain(&self) -> Option<Arc<Mutex<Domain>>> {
        self.domain.get().cloned()
    }

    pub(crate) fn effect(&self) -> EffectKind {
        self.spec.effect
    }

    /// Puts a request into the mailbox. `guest` is how often a group has handed it out before, which
    /// counts it; `None` when it is counted here.
    pub(crate) fn post(
        &self,
        mail: &Mail<W>,
        guest: Option<Delivery>,
        room: Room,
        now: Moment,
    ) -> Result<(), Refusal> {
        // The weight is the user's code: it is not run under the lock, and a message that cannot be
        // weighed finds no room.
        let bytes = match &self.spec.mailbox_bytes {
            None => 0,
            Some((_, _, weigh)) => {
                unwound(|| weigh(&*mail.request as &dyn Any)).unwrap_or(usize::MAX)
            }
        };
        let mut desk = self.desk();
        let stage = desk.life.stage();
        if !desk.life.will_serve() || self.hub.is_lost() {
            return Err(Refusal::Away(self.hub.away().unwrap_or(match stage {
                Stage::Quarantined => Unavailable::Quarantined,
                Stage::Removed => Unavailable::Removed,
                _ => Unavailable::Stopped,
            })));
        }
        if self.spec.between_lives == BetweenLives::Refuse
            && room != Room::Kept
            && desk.life.is_between_lives()
        {
            return Err(Refusal::Away(Unavailable::Restarting));
        }
        let entry = Entry {
            id: mail.id,
            deadline: mail.deadline,
            bytes,
            delivery: guest.unwrap_or(Delivery::NONE),
            payload: Arc::clone(mail),
        };
        let (bounds, order) = (&self.rules.bounds, self.rules.order);
        let substitute = room == Room::Reserve;
        // Each in a call of its own, which knows what it feeds.
        let offered = match room {
            Room::Kept => desk.mailbox.on(mailbox::Input::Readmit(entry), bounds, order, now),
            _ => desk.mailbox.on(mailbox::Input::Offer { entry, substitute }, bounds, order, now),
        };
        if let mailbox::Output::Full(payload) = offered {
            drop(desk);
            drop(payload);
            return Err(Refusal::Full);
        }
        match guest {
            None => desk.counts.accepted += 1,
            Some(_) => desk.counts.guests += 1,
        }
        self.arm(&mut desk, mail.deadline);
        self.publish(&mut desk);
        self.wake(desk, now);
        Ok(())
    }

    /// Has the slot looked at when `at` has come, if nothing sooner is armed.
    pub(crate) fn arm(&self, desk: &mut Desk<W>, at: Moment) {
        if at < desk.armed {
            desk.armed = at;
            let me: Weak<Self> = Weak::clone(&self.me);
            self.hub.arm(at, me);
        }
    }

    /// Wakes the carrier if there is work, spawning it if there is none. Consumes the lock, since a
    /// carrier is spawned without it.
    pub(crate) fn wake(&self, mut desk: Locked<'_, W>, now: Moment) {
        if desk.life.stage() == Stage::Dormant {
            self.wake_lazy(desk);
            return;
        }
        if desk.woken || !self.can_work(&mut desk, now) {
            return;
        }
        match &desk.carrier {
            Carrier::There(_) => {
                desk.woken = true;
                let waker = desk.waker.clone();
                drop(desk);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            Carrier::None => self.spawn_carrier(desk),
            Carrier::Coming => desk.woken = true,
        }
    }

    /// Whether a life is there and something may be handed out. Arms a timer when only the quota
    /// domain stands in the way.
    pub(crate) fn can_work(&self, desk: &mut Desk<W>, now: Moment) -> bool {
        if !desk.life.is_up() || desk.parked.is_none() || !desk.mailbox.has_work(self.rules.order) {
            return false;
        }
        let Some(rare) = desk.rare.as_deref() else { return true };
        if !rare.holds.is_empty() {
            return false;
        }
        match rare.gate.as_ref().map(|turn| turn.at) {
            Some(at) if at > now => {
                self.arm(desk, at);
                false
            }
            _ => true,
        }
    }

    fn spawn_carrier(&self, mut desk: Locked<'_, W>) {
        let Some(me) = self.me.upgrade() else { return };
        let Some(link) = desk.link.clone() else { return };
        desk.carrier = Carrier::Coming;
        desk.woken = true;
        let number = desk.carrier_no;
        drop(desk);
        let spawned = W::spawn(me, number, link.boss.cell());
        let mut desk = self.desk();
        if desk.carrier_no != number {
            // Fenced while it came up.
            if let Some(actor) = spawned {
                actor.stop(None);
            }
            return;
        }
        match spawned {
            Some(actor) => {
                let _ = actor.send_message(());
                desk.carrier = Carrier::There(actor);
            }
            None => {
                desk.carrier = Carrier::None;
                desk.woken = false;
            }
        }
    }

    fn wake_lazy(&self, mut desk: Locked<'_, W>) {
        let (Some(life), Some(link)) = (desk.lazy.take(), desk.link.clone()) else { return };
        let Some(me) = self.me.upgrade() else { return };
        // It begins here and not in the task, so that a stop in between finds it starting.
        if desk.life.on(lifecycle::Input::Begin(life)) != lifecycle::Output::Changed {
            return;
        }
        self.publish_life(&mut desk);
        drop(desk);
        self.hub.spawn(async move {
            if let Err(cause) = Arc::clone(&me).bring_up(life).await {
                link.boss.exited(link.key, life, cause, false);
            }
        });
    }

    /// The fate of a request that is counted here or by its group. Returns what to tell after the
    /// lock is released; `None` when another was first.
    pub(crate) fn settle(
        &self,
        desk: &mut Desk<W>,
        mail: Mail<W>,
        fate: Fate,
    ) -> Option<Settled<W>> {
        if !mail.claim() {
            desk.discard(mail);
            return None;
        }
        let fate = mail.ends_as(fate);
        let recording = self.recording(&mail);
        let suspended = recording.is_some()
            && (fate == Fate::Stopped && self.hub.is_suspending() || self.hub.is_lost());
        let (ends, fate) = match suspended {
            true => (Fate::Suspended, Fate::Suspended),
            false => (fate, self.unless_in_doubt(&mail, fate)),
        };
        if mail.home.is_none() {
            desk.counts.add(fate);
        }
        let written = self.write_fate(desk, &mail, fate, recording.as_ref());
        // What is being undone is not forgotten before it is.
        if self.rules.in_transaction && self.spec.stateful {
            self.undo_unfinished(&mail, ends, written);
        }
        self.remember(desk, &mail, fate, recording.is_some());
        Some(Settled { mail, fate })
    }

    /// An entry has left the mailbox.
    pub(crate) fn left(&self, desk: &mut Desk<W>, mail: &Mail<W>) {
        if mail.home.is_some() {
            desk.counts.guests = desk.counts.guests.saturating_sub(1);
        }
    }

    /// Tells the caller and the world about requests that ended without an answer.
    pub(crate) fn tell(&self, settled: impl IntoIterator<Item = Settled<W>>, cause: &ExitCause) {
        let now = self.hub.now();
        for Settled { mail, fate } in settled {
            if let Some(group) = &mail.home {
                group.ended(&mail, fate);
            }
            let child = mail.home.as_ref().map_or(&self.path, |group| group.path()).clone();
            let trail = mail.trail();
            let attempts = trail.0.len() as u32;
            let error = match fate {
                Fate::Expired => CallError::Expired {
                    child: child.clone(),
                    waited: now.since(mail.accepted_at),
                    trail,
                },
                Fate::Cancelled => CallError::Cancelled { child: child.clone() },
                Fate::Suspended => CallError::Suspended { child: child.clone() },
                Fate::Quarantined => CallError::Quarantined { child: child.clone(), trail },
                Fate::Unknown => CallError::Unknown { child: child.clone(), trail },
                _ => CallError::Stopped { child: child.clone(), cause: cause.clone() },
            };
            self.fated(&mail, child, fate, attempts, now);
            mail.deliver(Err(error));
        }
    }

    /// The event of a fate without an answer, and what a cast's receipt asks for.
    pub(crate) fn fated(
        &self,
        mail: &Mail<W>,
        child: ChildPath,
        fate: Fate,
        attempts: u32,
        now: Moment,
    ) {
        crate::hub::note(&self.hub, mail, fate, None, now);
        if mail.cast {
            self.hub.cast_ended(mail.id, fate, now);
        }
        if self.hub.events.wanted() {
            self.hub.emit(Event::Fated {
                child,
                request: mail.id,
                fate,
                served_by: None,
                attempts,
                degraded: false,
                defaulted: false,
                elapsed: now.since(mail.accepted_at),
                cost: mail.spent(),
            });
        }
    }

    /// Shows the state of the desk in the mirror.
    pub(crate) fn publish(&self, desk: &mut Desk<W>) {
        if desk.life.stage() == Stage::Removed {
            desk.row.hide();
            return;
        }
        let in_flight = desk.mailbox.in_flight();
        let state = match desk.life.stage() {
            Stage::Dormant => ChildState::Unstarted,
            Stage::Starting => ChildState::Starting,
            Stage::Up if in_flight > 0 => ChildState::Busy,
            // All that is held back waits for somebody to release it, and not for a time.
            Stage::Up if desk.mailbox.held_until().is_some_and(Moment::is_never) => {
                ChildState::Waiting
            }
            Stage::Up if desk.mailbox.is_holding() => ChildState::BackingOff,
            Stage::Up => ChildState::Idle,
            Stage::Stopping => ChildState::Stopping,
            Stage::Down => ChildState::Restarting,
            Stage::Stopped | Stage::Removed => ChildState::Stopped,
            Stage::Quarantined => ChildState::Quarantined,
        };
        let has_detail = in_flight > 0
            || desk.last_cause.is_some()
            || desk.has_zombies()
            || self.member.get().is_some()
            || desk.saved.as_ref().is_some_and(|saved| saved.last_checkpoint().is_some())
            || desk.mailbox.is_holding();
        let mailbox = desk.mailbox.depth();
        desk.row.publish(Status { state, in_flight, mailbox, has_detail });
        desk.told_still();
    }

    pub(crate) fn publish_life(&self, desk: &mut Desk<W>) {
        let (incarnation, restarts) = (desk.life.incarnation(), desk.life.restarts());
        desk.row.publish_life(incarnation, restarts);
        self.publish(desk);
    }

    pub(crate) fn report(
        &self,
        desk: &Desk<W>,
        life: Incarnation,
        cause: ExitCause,
        siblings: bool,
    ) -> impl FnOnce() + use<W> {
        let link = desk.link.clone();
        let hub = Arc::clone(&self.hub);
        let event =
            Event::Exited { child: self.path.clone(), incarnation: life, cause: cause.kind() };
        move || {
            if !cause.is_normal() {
                hub.count_crash();
            }
            hub.emit(event);
            if let Some(link) = link {
                link.boss.exited(link.key, life, cause, siblings);
            }
        }
    }

    /// Whom the mirror asks for details.
    pub(crate) fn show(&self, detail: Weak<dyn Detail>) {
        self.desk().row.set_detail(detail);
    }

    pub(crate) fn is_lazy(&self) -> bool {
        self.spec.start_mode == StartMode::Lazy
    }
}

/// Why a mailbox did not take a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Full,
    Away(Unavailable),
}

impl<Q, R> Envelope<Q, R> {
    pub(crate) fn trail(&self) -> Trail {
        self.book().map(|book| book.trail.clone()).unwrap_or_default()
    }

    /// What the attempts before this one have cost.
    pub(crate) fn spent(&self) -> Cost {
        self.book().map(|book| book.spent).unwrap_or_default()
    }

    /// Which attempt comes next, and whether an earlier one has called what may not be called twice.
    pub(crate) fn attempt(&self) -> (u32, bool) {
        match self.book() {
            None => (1, false),
            Some(book) => (book.trail.0.len() as u32 + 1 + book.copies.others(), book.tainted),
        }
    }

    pub(crate) fn deliveries(&self) -> Delivery {
        match self.book() {
            None => Delivery::NONE,
            Some(book) => book.deliveries,
        }
    }
}

impl<W: Worker> std::fmt::Debug for Slot<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").field("path", &self.path).finish_non_exhaustive()
    }
}
