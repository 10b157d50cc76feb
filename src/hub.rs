//! What every part of a running system shares: time, timers, ids, events, counts.
//!
//! One heap holds the next moment at which each slot wants to be looked at; no timer is made for a
//! request or an attempt.
//!
//! *Invariant.* The hub knows no child and no actor; it calls back through [`Timed`].

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::runtime::RuntimeFlavor;
use tokio::sync::{Notify, OwnedRwLockReadGuard, RwLock};

use crate::checkpoint::{Digest, Retention, Scope, Wall};
use crate::circuit::{Domain, DomainSpec};
use crate::clock::Clock;
use crate::decision::Action;
use crate::effects::Effects;
use crate::error::{StoreError, Unavailable};
use crate::event::{Event, Events};
use crate::fate::{Fate, FateCounts};
use crate::fault::Class;
use crate::id::{ChildPath, RequestId};
use crate::journal::Journal;
use crate::ledger::Record;
use crate::moment::Moment;
use crate::points::{PointSpec, Points};
use crate::port::unwound;
use crate::quarantine::Shelf;
use crate::watch::{DomainState, Input, Watch, WatchSpec};

mod claim;
mod digests;
mod fated;
mod scopes;

pub(crate) use claim::Claim;
pub(crate) use digests::{Deciding, Digests};
pub(crate) use fated::note;
pub(crate) use scopes::{Asks, Returned, Returning, Scopes};

/// Something that wants to be looked at when its time has come.
pub(crate) trait Timed: Send + Sync {
    /// `at` is the moment that was armed; one that is no longer the armed one is stale.
    fn on_time(&self, at: Moment);
}

struct Entry {
    at: Moment,
    who: Weak<dyn Timed>,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

/// What has been counted since the start, by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Stats {
    /// Attempts that ended without an answer, by the class of their fault.
    pub failures: HashMap<Class, u64>,
    /// The same by class and code, as `network/reset`, without a code as `network`. Of at most 1,000
    /// codes; further ones count as `other`, since they may be made up by another side.
    pub failures_by_code: BTreeMap<String, u64>,
    /// Lives that ended, except as asked.
    pub crashes: u64,
    /// Retries decided, by the class of the fault before them; crash redeliveries count as
    /// [`Class::Internal`].
    pub retries: HashMap<Class, u64>,
    /// Requests that were answered after at least one retry and without a substitute, of those that
    /// entered a retry.
    pub recovered_by_retry: u64,
    /// Requests that entered a retry and have their fate.
    pub entered_retry: u64,
    /// Requests handed to a substitute, by group.
    pub fallbacks: HashMap<ChildPath, u64>,
    /// Requests that entered a substitute, with their fate, by group.
    pub entered_fallback: HashMap<ChildPath, u64>,
    /// Those of them that were answered, default values excluded, by group.
    pub recovered_by_fallback: HashMap<ChildPath, u64>,
    /// Those of them that were answered with a default value, by group.
    pub defaulted: HashMap<ChildPath, u64>,
    /// Requests that were also given to a second member because they were slow, by group. They are no
    /// fallbacks.
    pub hedges: HashMap<ChildPath, u64>,
    /// Those of them that the second member answered first, by group.
    pub hedges_won: HashMap<ChildPath, u64>,
    /// Substitutes by the member they were handed to: how each alternative does.
    pub alternatives: BTreeMap<ChildPath, Alternative>,
    /// Faults that a retry or a substitute answered.
    pub soft_failures: u64,
    /// Faults that were not retried because the soft failures of their task had added up.
    pub accumulated: u64,
    /// Alerts: ladders that were spent where nobody was left to judge again, permissions that were missing,
    /// outcomes that are unknown, and requests that were set aside.
    pub alerts: u64,
    /// Attempts made.
    pub attempts: u64,
    /// Requests accepted from outside, and by groups and children from each other.
    pub requests: u64,
    /// Results of a lease that was no longer current.
    pub stale: u64,
    /// Events that some subscriber was too slow for.
    pub events_lagged: u64,
}

/// How a member of a group does as a substitute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Alternative {
    /// Requests that failed elsewhere and were handed to it.
    pub asked: u64,
    /// Those of them that it answered, default values excluded.
    pub answered: u64,
    /// Those of them that it answered with a default value.
    pub defaulted: u64,
}

impl Alternative {
    /// The share of the requests handed to it that it answered; `None` before the first. Default
    /// values, which cannot fail, do not count as answers.
    pub fn success_rate(&self) -> Option<f64> {
        (self.asked > 0).then(|| self.answered as f64 / self.asked as f64)
    }
}

impl fmt::Display for Alternative {
    /// Answered of asked, default values included, as `3/4`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.answered + self.defaulted, self.asked)
    }
}

impl Stats {
    /// Physical attempts by logical requests; 1 when nothing is retried.
    pub fn amplification(&self) -> f64 {
        if self.requests == 0 { 1.0 } else { self.attempts as f64 / self.requests as f64 }
    }
}

/// Checkpoints of a child that stay in the store, besides those that are pinned, such as the one the
/// request in hand began with.
const RETAINED: Retention = Retention { checkpoints: 128, lines: 8 };
/// How long a stop waits for whoever tidies the store.
const TIDIED_WITHIN: Duration = Duration::from_secs(10);

/// How many codes of failures are told apart.
const CODES: usize = 1000;

const RECENT_FATES: usize = 65_536;
const RECENT_FOR: Duration = Duration::from_secs(600);

#[derive(Default)]
struct CastFates {
    /// `None` while it is open.
    by_id: HashMap<RequestId, Option<Fate>>,
    ended: VecDeque<(Moment, RequestId)>,
}

impl CastFates {
    /// Lets go of what is too old, or too much.
    fn prune(&mut self, now: Moment) {
        while self.ended.len() > RECENT_FATES
            || self.ended.front().is_some_and(|(at, _)| now.since(*at) > RECENT_FOR)
        {
            if let Some((_, old)) = self.ended.pop_front() {
                self.by_id.remove(&old);
            }
        }
    }
}

/// A quota domain, and where it was said by which numbers it runs; `None` for the default ones.
struct Known {
    domain: Arc<Mutex<Domain>>,
    at: Option<ChildPath>,
}

/// For how long the end of a system, or of a child of a template, waits for what is being undone.
const UNDOS: Duration = Duration::from_secs(10);

/// See the [module](self).
pub(crate) struct Hub {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) events: Arc<Events>,
    pub(crate) effects: Arc<Effects>,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) identity: u64,
    pub(crate) shutting_down: AtomicBool,
    /// The runtime was dropped under the system: nothing of it will ever run again.
    pub(crate) lost: AtomicBool,
    /// Where durable things are kept, if anywhere.
    pub(crate) journal: OnceLock<Arc<Journal>>,
    /// What it has that place by, until all has ended that may write there.
    pub(crate) claim: OnceLock<Weak<Claim>>,
    /// Requests that were set aside and are not durable.
    pub(crate) shelf: Shelf,
    /// The shape of the tree.
    pub(crate) topology: OnceLock<Digest>,
    /// Whom the groups of the tree allow to stand in for whom.
    pub(crate) allowed: OnceLock<Digest>,
    /// Of what decides about the failures of its children.
    pub(crate) digests: Digests,
    pub(crate) retired: Mutex<FateCounts>,
    pub(crate) stats: Mutex<Stats>,
    /// Attempts of children that are gone: the others count their own.
    pub(crate) attempts: AtomicU64,
    /// What happened lately.
    pub(crate) watch: Mutex<Watch>,
    /// What waits for a person.
    pub(crate) points: Arc<Points>,
    /// The supervisors that a request may have rolled back.
    scopes: OnceLock<Weak<dyn Scopes>>,
    next_id: AtomicU64,
    /// Mixed into what decides about waits.
    jitter_seed: OnceLock<u64>,
    timers: Mutex<BinaryHeap<Reverse<Entry>>>,
    sooner: Arc<Notify>,
    domains: Mutex<HashMap<Arc<str>, Known>>,
    casts: Mutex<CastFates>,
    /// Whoever waits for room to be made has this.
    making_room: tokio::sync::Mutex<()>,
    /// Whoever tidies the store reads it, and a stop waits for them: it belongs to others from then on.
    tidying: Arc<RwLock<()>>,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Hub {
    pub(crate) fn new(
        clock: Arc<dyn Clock>,
        runtime: tokio::runtime::Handle,
        events: usize,
        watch: WatchSpec,
        points: PointSpec,
        identity: u64,
    ) -> Arc<Self> {
        let events = Arc::new(Events::new(events));
        let watch = Mutex::new(Watch::new(watch, clock.now()));
        let effects = {
            let (events, clock) = (Arc::clone(&events), Arc::clone(&clock));
            Effects::new(move |event| events.emit(|| clock.now(), event))
        };
        effects.runs_on(runtime.clone());
        let hub = Arc::new(Self {
            clock,
            events,
            effects,
            runtime,
            identity,
            shutting_down: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            journal: OnceLock::new(),
            claim: OnceLock::new(),
            shelf: Shelf::default(),
            topology: OnceLock::new(),
            allowed: OnceLock::new(),
            digests: Digests::default(),
            retired: Mutex::default(),
            stats: Mutex::default(),
            attempts: AtomicU64::new(0),
            watch,
            points: Points::new(points),
            scopes: OnceLock::new(),
            next_id: AtomicU64::new(1),
            jitter_seed: OnceLock::new(),
            timers: Mutex::default(),
            sooner: Arc::default(),
            domains: Mutex::default(),
            casts: Mutex::default(),
            making_room: tokio::sync::Mutex::default(),
            tidying: Arc::default(),
        });
        let weak = Arc::downgrade(&hub);
        hub.runtime.spawn(run_timers(weak, Arc::clone(&hub.sooner)));
        hub
    }

    /// Who has scopes rolled back: said once, before anything starts.
    pub(crate) fn rolls_back_with(&self, scopes: Weak<dyn Scopes>) {
        let _ = self.scopes.set(scopes);
    }

    pub(crate) fn scopes(&self) -> Option<Arc<dyn Scopes>> {
        self.scopes.get()?.upgrade()
    }

    pub(crate) fn now(&self) -> Moment {
        self.clock.now()
    }

    pub(crate) fn next_id(&self) -> RequestId {
        RequestId(self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// Which jitter waits have: said once, before anything starts.
    pub(crate) fn jitters_by(&self, seed: u64) {
        let _ = self.jitter_seed.set(seed);
    }

    /// The request as its waits see it: processes that begin together do not wait together.
    pub(crate) fn seeded(&self, id: RequestId) -> RequestId {
        RequestId(id.0 ^ self.jitter_seed.get().copied().unwrap_or_default())
    }

    /// Asks for `who` to be looked at when `at` has come.
    pub(crate) fn arm(&self, at: Moment, who: Weak<dyn Timed>) {
        if at.is_never() {
            return;
        }
        let mut timers = self.timers.lock();
        let first = timers.peek().is_none_or(|Reverse(entry)| at < entry.at);
        timers.push(Reverse(Entry { at, who }));
        drop(timers);
        if first {
            self.sooner.notify_one();
            if self.runtime.runtime_flavor() == RuntimeFlavor::MultiThread {
                // Woken from a worker, the timer task stands in a place that only this worker looks
                // at, and this worker may be about to run code that blocks. Another task pushes it out
                // to where the others find it.
                self.runtime.spawn(async {});
            }
        }
    }

    pub(crate) fn emit(&self, event: Event) {
        if let Event::RestoreFailed { .. } = event {
            self.count_restored(false);
        }
        self.events.emit(|| self.now(), event);
    }

    /// A state was tried; whether a life has it, and is what was stored.
    pub(crate) fn count_restored(&self, well: bool) {
        self.watch(Input::Restored(well), self.now());
    }

    /// Tells the watch what happened. Never on the way of a request that succeeds at once.
    pub(crate) fn watch(&self, input: Input, now: Moment) {
        self.watch.lock().on(input, now);
    }

    /// The quota domain of this name, made when it is first asked for.
    pub(crate) fn domain(&self, name: &Arc<str>) -> Arc<Mutex<Domain>> {
        let mut domains = self.domains.lock();
        let known = domains.entry(Arc::clone(name)).or_insert_with(|| Known {
            domain: Arc::new(Mutex::new(Domain::new(DomainSpec::default()))),
            at: None,
        });
        Arc::clone(&known.domain)
    }

    /// How every quota domain stands that is known so far.
    pub(crate) fn domain_states(&self, now: Moment) -> BTreeMap<String, DomainState> {
        let domains: Vec<_> = {
            let domains = self.domains.lock();
            domains
                .iter()
                .map(|(name, known)| (name.to_string(), Arc::clone(&known.domain)))
                .collect()
        };
        let state = |domain: Arc<Mutex<Domain>>| DomainState::of(&domain.lock(), now);
        domains.into_iter().map(|(name, domain)| (name, state(domain))).collect()
    }

    /// Makes the quota domain of this name run by `spec`, as is said at this path. Where something else
    /// was said before, when it runs by that; `None` for the default.
    pub(crate) fn define_domain(
        &self,
        name: &Arc<str>,
        spec: DomainSpec,
        at: &ChildPath,
    ) -> Result<(), Option<ChildPath>> {
        let mut domains = self.domains.lock();
        let known = domains.entry(Arc::clone(name)).or_insert_with(|| Known {
            domain: Arc::new(Mutex::new(Domain::new(spec))),
            at: Some(at.clone()),
        });
        let same = *known.domain.lock().spec() == spec;
        if same { Ok(()) } else { Err(known.at.clone()) }
    }

    pub(crate) fn count_failure(&self, class: Class, code: Option<&str>) {
        let mut stats = self.stats.lock();
        *stats.failures.entry(class).or_default() += 1;
        let mut name = match code {
            Some(code) => format!("{class}/{code}"),
            None => class.to_string(),
        };
        if stats.failures_by_code.len() >= CODES && !stats.failures_by_code.contains_key(&name) {
            name = "other".to_owned();
        }
        *stats.failures_by_code.entry(name).or_default() += 1;
    }

    pub(crate) fn count_crash(&self) {
        self.stats.lock().crashes += 1;
    }

    pub(crate) fn count_decision(&self, class: Option<Class>, action: Action, now: Moment) {
        let retried = matches!(action, Action::Retry { .. });
        if retried {
            let mut stats = self.stats.lock();
            *stats.retries.entry(class.unwrap_or(Class::Internal)).or_default() += 1;
        }
        self.watch(Input::Failed { class, retried }, now);
    }

    /// A rollback of this scope that began then has ended.
    pub(crate) fn count_rollback(&self, scope: Scope, reached: bool, began: Moment) {
        let now = self.now();
        self.watch(Input::RolledBack { scope, reached, took: now.since(began) }, now);
    }

    pub(crate) fn cast_accepted(&self, id: RequestId) {
        self.casts.lock().by_id.insert(id, None);
    }

    pub(crate) fn cast_ended(&self, id: RequestId, fate: Fate, now: Moment) {
        let mut casts = self.casts.lock();
        casts.by_id.insert(id, Some(fate));
        casts.ended.push_back((now, id));
        casts.prune(now);
    }

    pub(crate) fn cast_forget(&self, id: RequestId) {
        self.casts.lock().by_id.remove(&id);
    }

    pub(crate) fn cast_fate(&self, id: RequestId) -> Option<Option<Fate>> {
        let mut casts = self.casts.lock();
        casts.prune(self.clock.now());
        casts.by_id.get(&id).copied()
    }

    /// Runs `work` as a task. In a box, so that all are tasks of one type: each further type is a thousand
    /// lines for the compiler, once more for every behavior of a user.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.spawn_boxed(Box::pin(work));
    }

    pub(crate) fn spawn_boxed(&self, work: Pin<Box<dyn Future<Output = ()> + Send>>) {
        drop(self.runtime.spawn(work));
    }

    /// Once nothing is being undone of requests that have their fates, or it takes too long.
    pub(crate) async fn all_unwound(&self) {
        self.or_too_long(self.effects.all_unwound()).await;
    }

    /// The same, of requests to this child.
    pub(crate) async fn unwound_of(&self, owner: &ChildPath) {
        self.or_too_long(self.effects.unwound_of(owner)).await;
    }

    async fn or_too_long(&self, undone: impl Future<Output = ()>) {
        let limit = self.clock.sleep_until(self.now() + UNDOS);
        tokio::select! {
            biased;
            () = undone => {}
            () = limit => {}
        }
    }

    /// Lets go, in the background, of what the store no longer needs. What fails is only said: nothing
    /// is lost by keeping more.
    pub(crate) fn tidy(&self, journal: &Arc<Journal>) {
        let Some(busy) = self.begin_tidying() else { return };
        let (journal, effects) = (Arc::clone(journal), Arc::clone(&self.effects));
        let now = Wall::from(self.clock.wall());
        let runtime = self.runtime.clone();
        self.runtime.spawn(async move {
            // What it says is put together and encoded, which takes a while: not where lives run.
            let writes = Arc::clone(&journal);
            let rewriting = runtime
                .spawn_blocking(move || writes.rewriting(|| effects.ledger.lock().records()));
            let tidied = match rewriting.await {
                Ok(Ok(rewriting)) => journal.rewritten(rewriting).await,
                Ok(Err(error)) => Err(error),
                // The system ends.
                Err(_) => Ok(()),
            };
            if let Err(error) = tidied {
                journal.note_failure(&error);
                tracing::warn!(target: "mainstay", %error, "the journal could not be tidied");
            }
            runtime.spawn_blocking(move || {
                if let Err(error) = journal.make_room(RETAINED, now) {
                    tracing::warn!(target: "mainstay", %error, "the store could not be tidied");
                }
                // Not before the store is let go of, too: the next system may open it at once.
                drop(journal);
                drop(busy);
            });
        });
    }

    /// Nobody begins to tidy what is about to be left to the next process. Whoever does has the store meanwhile.
    fn begin_tidying(&self) -> Option<(OwnedRwLockReadGuard<()>, Option<Arc<Claim>>)> {
        if self.is_shutting_down() {
            return None;
        }
        Some((Arc::clone(&self.tidying).try_read_owned().ok()?, self.claim()))
    }

    /// Waits until nobody tidies the store any more, for as long as that may take a stop. Returns whether it is so.
    pub(crate) async fn tidied(&self) -> bool {
        tokio::select! {
            biased;
            end = self.tidying.write() => {
                drop(end);
                true
            }
            () = self.clock.sleep_until(self.now() + TIDIED_WITHIN) => {
                tracing::warn!(target: "mainstay", "the store is tidied still, and not free at once");
                false
            }
        }
    }

    /// What the store is had by, while it is.
    pub(crate) fn claim(&self) -> Option<Arc<Claim>> {
        self.claim.get()?.upgrade()
    }

    /// As [`Hub::tidy`], for a store that is taken up: one process after the other may end before anything is
    /// due. What is small is waited for, so that this is done however short they are.
    pub(crate) async fn make_room(&self, journal: &Arc<Journal>) {
        const SMALL: u64 = 64 << 20;
        let waits = journal.is_full() || journal.weight().is_ok_and(|bytes| bytes < SMALL);
        let (journal, now) = (Arc::clone(journal), Wall::from(self.clock.wall()));
        let busy = self.begin_tidying();
        let made = self.runtime.spawn_blocking(move || {
            if let Err(error) = journal.make_room(RETAINED, now) {
                tracing::warn!(target: "mainstay", %error, "the store could not be tidied");
            }
            drop(journal);
            drop(busy);
        });
        if waits {
            let _ = made.await;
        }
    }

    /// Has this done, and again with room made for it as long as there is some to be had. Of those who find none at
    /// the same time one makes it for all.
    pub(crate) async fn with_room<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        journal: &Arc<Journal>,
        ledger: &(dyn Fn() -> Vec<Record> + Sync),
        work: impl Fn() -> F,
    ) -> Result<T, StoreError> {
        let mut done = work().await;
        if !matches!(done, Err(StoreError::Full { .. })) {
            return done;
        }
        let _alone = match self.making_room.try_lock() {
            Ok(alone) => alone,
            Err(_) => {
                let alone = self.making_room.lock().await;
                done = work().await;
                alone
            }
        };
        loop {
            let error = match done {
                Err(error @ StoreError::Full { .. }) => error,
                done => return done,
            };
            let before = journal.weight()?;
            journal.fill();
            if let Err(error) = journal.tidy(ledger).await {
                tracing::warn!(target: "mainstay", %error, "the journal could not be tidied");
            }
            self.make_room(journal).await;
            if journal.weight()? >= before {
                return Err(error);
            }
            done = work().await;
        }
    }

    /// Whether durable requests are left open for the next process.
    pub(crate) fn is_suspending(&self) -> bool {
        self.journal.get().is_some() && self.is_shutting_down()
    }

    /// Whether the runtime is gone; then a durable request is as after a power cut, and no fate of it is
    /// written down.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Why nothing is taken any more, when it is so for the whole system.
    pub(crate) fn away(&self) -> Option<Unavailable> {
        match (self.is_lost(), self.is_shutting_down()) {
            (true, _) => Some(Unavailable::RuntimeGone),
            (false, true) => Some(Unavailable::ShuttingDown),
            (false, false) => None,
        }
    }

    pub(crate) fn begin_shutdown(&self) {
        self.shutting_down.store(true, Ordering::Release);
        if let Some(claim) = self.claim() {
            claim.ends();
        }
        self.effects.look_again();
    }

    pub(crate) fn is_shutting_down(&self) -> bool {
        self.shutting_down.load(Ordering::Acquire)
    }
}

/// The one timer task of a system. Ends with the hub.
async fn run_timers(hub: Weak<Hub>, sooner: Arc<Notify>) {
    loop {
        let Some(strong) = hub.upgrade() else { return };
        let now = strong.now();
        let mut due = Vec::new();
        let next = {
            let mut timers = strong.timers.lock();
            loop {
                match timers.peek() {
                    Some(Reverse(entry)) if entry.at <= now => {
                        if let Some(Reverse(entry)) = timers.pop() {
                            due.push(entry);
                        }
                    }
                    Some(Reverse(entry)) => break entry.at,
                    None => break Moment::NEVER,
                }
            }
        };
        if !due.is_empty() {
            for entry in due {
                if let Some(who) = entry.who.upgrade() {
                    // Without this task no deadline would ever come again.
                    let _ = unwound(|| who.on_time(entry.at));
                }
            }
            continue;
        }
        let sleep = strong.clock.sleep_until(next);
        // The wait must not keep the system alive; dropping the hub notifies.
        drop(strong);
        tokio::select! {
            () = sleep => {}
            () = sooner.notified() => {}
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.sooner.notify_one();
    }
}
