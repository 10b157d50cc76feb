//! An attempt under way, as those see it who may cut it short, and the calls it makes.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;

use super::Trying;
use crate::clock::Clock;
use crate::fate::{Answer, Cost};
use crate::id::ChildPath;
use crate::moment::Moment;
use crate::policy::SoftFailures;
use crate::policy::budget::{Denied, Purse, Reservation};

/// The soft failures of one task, shared by all that is done for it.
pub(crate) type Soft = Arc<Mutex<SoftFailures>>;

/// What ties the calls an attempt makes to the attempt: its deadline and budget go down, what its
/// answers cost and whether they were degraded come up, and its clock stops while it waits.
pub(crate) struct Tie {
    pub(crate) deadline: Moment,
    pub(crate) purse: Option<Purse>,
    /// The soft failures of the whole task; made when somebody asks for them, since most attempts call nobody.
    soft: OnceLock<Soft>,
    clock: Arc<dyn Clock>,
    degraded: AtomicBool,
    tainted: AtomicU32,
    /// What its calls come with while its request is on trial.
    trial: OnceLock<Trying>,
    inner: Mutex<TieState>,
}

#[derive(Default)]
struct TieState {
    cost: Cost,
    /// What the attempt has cost by itself.
    own: Cost,
    /// What it would cost more, did it end now.
    owed: Cost,
    /// What was set aside for it, beside the attempt itself.
    held: Option<Reservation>,
    waiting: u32,
    since: Moment,
    paused: Duration,
    waits_for: Vec<ChildPath>,
}

impl Tie {
    pub(crate) fn new(
        deadline: Moment,
        clock: Arc<dyn Clock>,
        purse: Option<Purse>,
        soft: Option<Soft>,
    ) -> Self {
        Self {
            deadline,
            purse,
            soft: soft.map_or_else(OnceLock::new, OnceLock::from),
            clock,
            degraded: AtomicBool::new(false),
            tainted: AtomicU32::new(0),
            trial: OnceLock::new(),
            inner: Mutex::new(TieState::default()),
        }
    }

    /// The soft failures of the whole task.
    pub(crate) fn soft(&self) -> &Soft {
        self.soft.get_or_init(Soft::default)
    }

    /// For a request that outlasts the attempt: the same budget and soft failures, and no deadline.
    pub(crate) fn without_deadline(&self) -> Self {
        let (purse, soft) = (self.purse.clone(), Some(Arc::clone(self.soft())));
        let tie = Self::new(Moment::NEVER, Arc::clone(&self.clock), purse, soft);
        if let Some(trial) = self.trial.get() {
            let _ = tie.trial.set(trial.clone());
        }
        tie
    }

    /// Completes when the time of the attempt's request is over.
    pub(crate) fn over(&self) -> impl Future<Output = ()> + Send + use<> {
        self.clock.sleep_until(self.deadline)
    }

    /// Its calls are made on behalf of a request that is on trial.
    pub(crate) fn tries(&self, trial: &Trying) {
        let _ = self.trial.set(trial.on_behalf());
    }

    pub(crate) fn trial(&self) -> Option<&Trying> {
        self.trial.get()
    }

    /// Stops the attempt's clock until the guard is dropped.
    pub(crate) fn pause(self: &Arc<Self>) -> Paused {
        let now = self.clock.now();
        let mut inner = self.inner.lock();
        if inner.waiting == 0 {
            inner.since = now;
        }
        inner.waiting += 1;
        Paused(Arc::clone(self))
    }

    pub(crate) fn note<R>(&self, answer: &Answer<R>) {
        if answer.degraded {
            self.degraded.store(true, Ordering::Relaxed);
        }
        self.note_cost(answer.cost);
    }

    /// A call of the attempt has cost this.
    pub(crate) fn note_cost(&self, cost: Cost) {
        self.inner.lock().cost.add(cost);
    }

    /// What the calls of the attempt have cost so far, also those that failed.
    pub(crate) fn called(&self) -> Cost {
        self.inner.lock().cost
    }

    /// The attempt says that it has cost this much more.
    pub(crate) fn spend(&self, cost: Cost) {
        self.inner.lock().own.add(cost);
    }

    /// What it would cost more, did it end now: instead of what was said before.
    pub(crate) fn owe(&self, cost: Cost) {
        self.inner.lock().owed = cost;
    }

    /// Sets aside what the attempt may cost from now on.
    pub(crate) fn reserve(&self, cost: Cost, now: Moment) -> Result<(), Denied> {
        let Some(purse) = &self.purse else { return Ok(()) };
        let mut inner = self.inner.lock();
        let mut needed = inner.own;
        needed.add(cost);
        let held = inner.held.as_ref().map_or_else(Cost::default, Reservation::cost);
        let more = Cost {
            tokens: needed.tokens.saturating_sub(held.tokens),
            money_micros: needed.money_micros.saturating_sub(held.money_micros),
        };
        let more = purse.reserve_more(more, now)?;
        match &mut inner.held {
            Some(held) => held.join(more),
            none => *none = Some(more),
        }
        Ok(())
    }

    /// What was set aside, for whoever settles it.
    pub(crate) fn take_held(&self) -> Option<Reservation> {
        self.inner.lock().held.take()
    }

    pub(crate) fn owed(&self) -> Cost {
        self.inner.lock().owed
    }

    /// What the attempt and its calls have cost so far.
    pub(crate) fn so_far(&self) -> Cost {
        let inner = self.inner.lock();
        let mut cost = inner.own;
        cost.add(inner.cost);
        cost.add(inner.owed);
        cost
    }

    pub(crate) fn is_degraded(&self) -> bool {
        self.degraded.load(Ordering::Relaxed)
    }

    /// The attempt has called something that may not be called twice.
    pub(crate) fn taint(&self) {
        self.tainted.fetch_add(1, Ordering::AcqRel);
    }

    /// One such call was turned away.
    pub(crate) fn untaint(&self) {
        self.tainted.fetch_sub(1, Ordering::AcqRel);
    }

    pub(crate) fn is_tainted(&self) -> bool {
        self.tainted.load(Ordering::Acquire) > 0
    }

    pub(crate) fn cost(&self) -> Cost {
        self.inner.lock().cost
    }

    /// For how long the attempt has waited for supervised calls, and whether it does now.
    pub(crate) fn paused(&self, now: Moment) -> (Duration, bool) {
        let inner = self.inner.lock();
        if inner.waiting == 0 {
            (inner.paused, false)
        } else {
            (inner.paused + now.since(inner.since), true)
        }
    }

    pub(crate) fn waits_for(&self, targets: Vec<ChildPath>) {
        self.inner.lock().waits_for = targets;
    }

    pub(crate) fn waiting_for(&self) -> Vec<ChildPath> {
        self.inner.lock().waits_for.clone()
    }
}

/// While it lives, the attempt's clock stands still.
pub(crate) struct Paused(Arc<Tie>);

impl Paused {
    pub(crate) fn tie(&self) -> &Tie {
        &self.0
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        let now = self.0.clock.now();
        let mut inner = self.0.inner.lock();
        inner.waiting -= 1;
        if inner.waiting == 0 {
            let since = inner.since;
            inner.paused += now.since(since);
        }
    }
}

/// What is asked of an attempt that is under way.
#[derive(Default)]
pub(crate) struct Flight {
    asked: AtomicU8,
    waker: Mutex<Option<Waker>>,
    tie: Mutex<Option<Arc<Tie>>>,
}

impl fmt::Debug for Flight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flight").field("asked", &self.asked).finish_non_exhaustive()
    }
}

/// Why an attempt is cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Its time is over.
    Timeout,
    /// Nobody waits for it.
    Cancel,
    /// Its life is to stop, at the next step boundary.
    Stop,
    /// Its life is gone.
    Kill,
}

impl Cut {
    const fn bit(self) -> u8 {
        match self {
            Self::Timeout => 1,
            Self::Cancel => 2,
            Self::Stop => 4,
            Self::Kill => 8,
        }
    }
}

impl Flight {
    const HAS_TIE: u8 = 128;

    /// Asks for the attempt to end; the strongest wish wins.
    pub(crate) fn ask(&self, cut: Cut) {
        self.asked.fetch_or(cut.bit(), Ordering::AcqRel);
        if let Some(waker) = self.waker.lock().take() {
            waker.wake();
        }
    }

    /// Takes back a wish that came too late.
    pub(crate) fn unask(&self, cut: Cut) {
        self.asked.fetch_and(!cut.bit(), Ordering::AcqRel);
    }

    /// What was asked, of the kinds that are heard here.
    pub(crate) fn asked(&self, heard: &[Cut]) -> Option<Cut> {
        let asked = self.asked.load(Ordering::Acquire);
        if asked & !Self::HAS_TIE == 0 {
            return None;
        }
        heard.iter().copied().find(|cut| asked & cut.bit() != 0)
    }

    /// Leaves a waker to be called when something is asked.
    pub(crate) fn listen(&self, waker: &Waker) {
        let mut slot = self.waker.lock();
        if !slot.as_ref().is_some_and(|old| old.will_wake(waker)) {
            *slot = Some(waker.clone());
        }
    }

    pub(crate) fn set_tie(&self, tie: &Arc<Tie>) {
        *self.tie.lock() = Some(Arc::clone(tie));
        self.asked.fetch_or(Self::HAS_TIE, Ordering::AcqRel);
    }

    pub(crate) fn tie(&self) -> Option<Arc<Tie>> {
        if self.asked.load(Ordering::Acquire) & Self::HAS_TIE == 0 {
            return None;
        }
        self.tie.lock().clone()
    }

    /// Ready for the next attempt of the same life.
    pub(crate) fn reset(&self) {
        // Most attempts end without being asked anything, and call nobody.
        if self.asked.load(Ordering::Acquire) == 0 {
            return;
        }
        if self.asked.swap(0, Ordering::AcqRel) & Self::HAS_TIE != 0 {
            *self.tie.lock() = None;
        }
    }
}
