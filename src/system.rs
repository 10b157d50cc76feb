//! The root: a running tree, its addresses, and its end.
//!
//! *Invariant.* Everything a user holds is made of slots and groups: it stays valid over every
//! restart, and answers, if only with an error, after the system has stopped.

use std::any::{TypeId, type_name};
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::behavior::Behavior;
use crate::checkpoint::Topology;
use crate::clock::{Clock, TokioClock};
pub use crate::effects::{EffectView, EffectsRef};
use crate::error::{ChildError, LookupError, RootEnded, SpecError, StartError};
use crate::event::EventStream;
use crate::family::{ChildCounts, Reply};
pub use crate::family::{ChildInfo, ChildStatus};
use crate::fate::{Fate, FateCounts};
use crate::fault::ExitCause;
pub use crate::hub::{Alternative, Stats};
use crate::hub::{Claim, Hub};
use crate::id::{ChildPath, Incarnation};
use crate::mirror::Roster;
use crate::points::{PointSpec, PointsRef};
use crate::port::{Port, Receipt};
use crate::recipe::port_of;
use crate::spec::{AnyChild, ChildSpec, SupervisorSpec};
use crate::supervisor::{Answer, Ask, Entry, Lines, Registry, Supervisor, build};
use crate::watch::{Metrics, Signal, WatchSpec};

/// How a system runs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SystemOptions {
    /// The clock.
    ///
    /// # Default
    /// [`TokioClock`], made at the start.
    pub clock: Option<Arc<dyn Clock>>,
    /// Events that are kept for a subscriber that is slow.
    ///
    /// # Default
    /// 4,096.
    pub event_capacity: usize,
    /// What is watched: the window, objectives, rules. At least one of them is about fallback where a group
    /// has somebody to fall back to: its success, its latency, recovery, or degraded answers or availability
    /// of groups of its kind.
    ///
    /// # Default
    /// The playbook's, over 5 minutes.
    pub watch: WatchSpec,
    /// Where people may decide, and for how long.
    ///
    /// # Default
    /// Nowhere.
    pub points: PointSpec,
    /// Whether a rollback of a scope of high risk (transaction, system) has to be
    /// [approved](RollbackOptions::approved_by). Such a scope then returns only by hand: a supervisor of it
    /// that falls begins again with what each child has kept by itself, and no request has it return;
    /// the events `RollbackFailed` and `RollbackExhausted` say that an approval was missing. What a
    /// request has done within a transaction is undone all the same when it fails there.
    ///
    /// # Default
    /// No.
    pub approvals: bool,
    /// Mixed into the [jitter](crate::policy::Policy::jitter) of every wait. Requests are numbered from 1 in each
    /// process, so processes with the same seed that begin together (a fleet of workers, commands of one timer) have
    /// their first requests retried at the same moments: give each its own, such as a random number. With the same
    /// seed a run can be repeated.
    ///
    /// # Default
    /// 0. `mainstay run` takes a random one.
    pub jitter_seed: u64,
}

impl Default for SystemOptions {
    fn default() -> Self {
        Self {
            clock: None,
            event_capacity: 4096,
            watch: WatchSpec::default(),
            points: PointSpec::default(),
            approvals: false,
            jitter_seed: 0,
        }
    }
}

impl SystemOptions {
    /// Every option at its default.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`SystemOptions::clock`].
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Sets [`SystemOptions::event_capacity`]; at least 1.
    #[must_use]
    pub fn event_capacity(mut self, events: usize) -> Self {
        self.event_capacity = events.max(1);
        self
    }

    /// Sets [`SystemOptions::watch`].
    #[must_use]
    pub fn watch(mut self, watch: WatchSpec) -> Self {
        self.watch = watch;
        self
    }

    /// Sets [`SystemOptions::points`].
    #[must_use]
    pub fn points(mut self, points: PointSpec) -> Self {
        self.points = points;
        self
    }

    /// Sets [`SystemOptions::jitter_seed`].
    #[must_use]
    pub fn jitter_seed(mut self, seed: u64) -> Self {
        self.jitter_seed = seed;
        self
    }

    /// Sets [`SystemOptions::approvals`].
    #[must_use]
    pub fn approvals(mut self, wanted: bool) -> Self {
        self.approvals = wanted;
        self
    }
}

/// A running tree. Clones are the same system; when the last one is dropped, the tree is stopped.
#[derive(Clone)]
pub struct System {
    inner: Arc<Inner>,
}

struct Inner {
    hub: Arc<Hub>,
    registry: Arc<Registry>,
    root: Arc<Supervisor>,
    watching: Arc<Watching>,
    /// What the store is had by, until somebody waits for the end of the root.
    claim: Mutex<Option<Arc<Claim>>>,
    /// What draws lines.
    lines: OnceLock<Vec<Arc<Lines>>>,
}

impl fmt::Debug for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("System").field("root", &self.inner.root.path).finish_non_exhaustive()
    }
}

mod doubt;
mod ending;
mod made;
mod quarantine;
mod recover;
mod rollback;
mod upkeep;
mod watching;

use watching::Watching;

pub use quarantine::QuarantineRef;
pub use recover::{LetGo, RecoverOptions, Recovered, RecoveredChild, RecoveredRequest};
pub use rollback::{Report, RollbackError, RollbackOptions, To, Wider};
pub use upkeep::Upkeep;

static IDENTITY: AtomicU64 = AtomicU64::new(0);

impl System {
    /// Validates the spec and starts the tree, left to right. Returns once every child that is not
    /// lazy is up.
    ///
    /// # Errors
    /// A spec that cannot be run; a child that does not start, after those started before it were
    /// stopped in reverse order; no tokio runtime.
    pub async fn start(spec: SupervisorSpec) -> Result<Self, StartError> {
        Self::start_with(spec, SystemOptions::default()).await
    }

    /// [`System::start`] with options.
    ///
    /// # Errors
    /// As [`System::start`].
    pub async fn start_with(
        spec: SupervisorSpec,
        options: SystemOptions,
    ) -> Result<Self, StartError> {
        let system = Self::assemble(spec, options)?;
        let registry = &system.inner.registry;
        let children = registry.durable().into_iter().map(|child| child.path().clone());
        if let Some(path) = children.chain(registry.durable_groups()).next() {
            let path = path.to_string();
            system.inner.hub.begin_shutdown();
            system.inner.registry.clear();
            return Err(SpecError::NoStore { path }.into());
        }
        system.boot().await
    }

    /// Everything there is of a system before its first life.
    fn assemble(spec: SupervisorSpec, options: SystemOptions) -> Result<Self, StartError> {
        spec.validate()?;
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| StartError::NoRuntime)?;
        let clock = options.clock.unwrap_or_else(|| Arc::new(TokioClock::new()));
        options.watch.validate()?;
        spec.validate_watched(|kind| options.watch.covers_fallback(kind))?;
        let SystemOptions { event_capacity, watch, points, .. } = options;
        let hub = Hub::new(clock, runtime, event_capacity, watch, points, identity());
        hub.jitters_by(options.jitter_seed);
        let registry = Registry::new(Arc::clone(&hub), options.approvals);
        let root = build(&Arc::new(spec), &hub, &registry)?;
        let undoer: Weak<Registry> = Arc::downgrade(&registry);
        hub.rolls_back_with(undoer.clone());
        hub.effects.undo_with(undoer);
        let watching = Watching::new(&hub, &registry);
        Ok(Self {
            inner: Arc::new(Inner {
                hub,
                registry,
                root,
                watching,
                claim: Mutex::default(),
                lines: OnceLock::new(),
            }),
        })
    }

    async fn boot(self) -> Result<Self, StartError> {
        let system = self;
        let root = &system.inner.root;
        let booting = root.begin_life(Incarnation(1), None);
        let result = match booting {
            Some(booting) => booting.await.unwrap_or_else(|_| {
                Err(StartError::Child { child: root.path.clone(), cause: ExitCause::Killed })
            }),
            None => Err(StartError::SupervisorGone(root.path.clone())),
        };
        match result {
            Ok(()) => {
                system.watch_root();
                system.inner.watching.begin();
                let lines = Lines::begin(&system.inner.registry, root).await;
                let _ = system.inner.lines.set(lines);
                Ok(system)
            }
            Err(error) => {
                system.inner.hub.begin_shutdown();
                system.inner.registry.clear();
                Err(error)
            }
        }
    }

    /// The child at this path.
    ///
    /// # Errors
    /// Nothing has this path, or another behavior does; the error names both.
    pub fn child<B: Behavior>(
        &self,
        path: impl Into<ChildPath>,
    ) -> Result<ChildRef<B>, LookupError> {
        let path = path.into();
        match self.inner.registry.get(&path) {
            Some(Entry::Child { slot, behavior }) => {
                let (behavior, behavior_name) = behavior();
                let wrong = || LookupError::WrongType {
                    path: path.clone(),
                    wanted: type_name::<B>(),
                    found: behavior_name,
                };
                if behavior != TypeId::of::<B>() {
                    return Err(wrong());
                }
                let port = slot.port_any().and_then(port_of).ok_or_else(wrong)?;
                Ok(ChildRef { port, behavior: PhantomData })
            }
            Some(Entry::Group(group)) => Err(LookupError::WrongType {
                path,
                wanted: type_name::<B>(),
                found: group.port_name,
            }),
            Some(Entry::Supervisor(_)) => Err(LookupError::WrongType {
                path,
                wanted: type_name::<B>(),
                found: "a supervisor",
            }),
            None => Err(LookupError::NotFound(path)),
        }
    }

    /// The child or group at this path, by the types it takes and gives.
    ///
    /// # Errors
    /// Nothing has this path, or its types are others; the error names both.
    pub fn port<Q: Send + Sync + 'static, R: Send + 'static>(
        &self,
        path: impl Into<ChildPath>,
    ) -> Result<Port<Q, R>, LookupError> {
        let path = path.into();
        let (port, found) = match self.inner.registry.get(&path) {
            Some(Entry::Child { slot, .. }) => (slot.port_any(), slot.spec().port_name),
            Some(Entry::Group(group)) => (Some(Arc::clone(&group.port)), group.port_name),
            Some(Entry::Supervisor(_)) => (None, "a supervisor"),
            None => return Err(LookupError::NotFound(path)),
        };
        port.and_then(port_of).ok_or(LookupError::WrongType {
            path,
            wanted: type_name::<Port<Q, R>>(),
            found,
        })
    }

    /// The supervisor, or the supervisor of the group, at this path.
    ///
    /// # Errors
    /// Nothing has this path, or a child does.
    pub fn supervisor(&self, path: impl Into<ChildPath>) -> Result<SupervisorRef, LookupError> {
        let path = path.into();
        match self.inner.registry.get(&path) {
            Some(Entry::Supervisor(node)) => Ok(SupervisorRef { node }),
            Some(Entry::Group(group)) => Ok(SupervisorRef { node: Arc::clone(&group.node) }),
            Some(Entry::Child { behavior, .. }) => {
                Err(LookupError::WrongType { path, wanted: "a supervisor", found: behavior().1 })
            }
            None => Err(LookupError::NotFound(path)),
        }
    }

    /// Requests by fate, over the whole system. At any moment `accepted = sum of fates + open`.
    pub fn fates(&self) -> FateCounts {
        self.inner.registry.fates()
    }

    /// Whom a group allows to stand in for whom: a line of JSON for each member, and their digest, which
    /// [`Event::AllowList`](crate::event::Event::AllowList) has told. `None` for what is no group.
    pub fn allow_list(&self, group: impl Into<ChildPath>) -> Option<Topology> {
        self.inner.registry.allow_list(&group.into())
    }

    pub(crate) fn roster(&self) -> &Roster {
        self.inner.root.roster()
    }

    /// What has been counted since the start.
    pub fn stats(&self) -> Stats {
        let mut stats = self.inner.hub.stats.lock().clone();
        stats.attempts = self.inner.registry.attempts();
        stats.requests = self.fates().accepted;
        stats.events_lagged = self.inner.hub.events.lagged();
        stats
    }

    /// What was measured over the last minutes, up to now: rates, latencies, objectives, and the alerts
    /// that hold.
    ///
    /// Looks at every child, as [`System::fates`] does.
    pub fn metrics(&self) -> Metrics {
        self.inner.watching.metrics()
    }

    /// Reports what the runtime cannot know by itself. Returns whether it was counted: only what an
    /// objective or a rule of [`SystemOptions::watch`] asks for is.
    pub fn signal(&self, name: &str, signal: Signal) -> bool {
        let hub = &self.inner.hub;
        hub.watch.lock().hear(name, signal, hub.now())
    }

    /// What became of a cast: `None` when it is not known any more, `Some(None)` while it is open.
    ///
    /// The last 65,536 ended casts are known, each for 10 minutes.
    pub fn fate(&self, receipt: Receipt) -> Option<Option<Fate>> {
        self.inner.hub.cast_fate(receipt.request)
    }

    /// The effects on the world that are known, and those somebody must look at.
    pub fn effects(&self) -> EffectsRef {
        EffectsRef::new(Arc::clone(&self.inner.hub.effects))
    }

    /// What waits for a person to decide, and how it is decided.
    pub fn points(&self) -> PointsRef {
        PointsRef::new(Arc::clone(&self.inner.hub.points))
    }

    /// Every event from now on.
    pub fn events(&self) -> EventStream {
        self.inner.hub.events.subscribe()
    }

    /// The clock.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.inner.hub.clock)
    }

    /// Kills the current life of a child: an abnormal end, which its supervisor answers. Requests in
    /// flight are delivered again, once, when that does no harm.
    ///
    /// # Errors
    /// Nothing has this path, or it is no child.
    pub fn kill(&self, path: impl Into<ChildPath>) -> Result<(), LookupError> {
        let path = path.into();
        match self.inner.registry.get(&path) {
            Some(Entry::Child { slot, .. }) => {
                slot.kill();
                Ok(())
            }
            Some(Entry::Group(_) | Entry::Supervisor(_)) => {
                Err(LookupError::WrongType { path, wanted: "a child", found: "a supervisor" })
            }
            None => Err(LookupError::NotFound(path)),
        }
    }

    /// Takes a member out of its group by hand, until [`System::release`].
    ///
    /// # Errors
    /// Nothing has this path, or it is no member of a group.
    pub fn isolate(&self, path: impl Into<ChildPath>) -> Result<(), LookupError> {
        self.set_isolated(path.into(), true)
    }

    /// Puts a member back, with its circuit closed.
    ///
    /// # Errors
    /// As [`System::isolate`].
    pub fn release(&self, path: impl Into<ChildPath>) -> Result<(), LookupError> {
        self.set_isolated(path.into(), false)
    }

    fn set_isolated(&self, path: ChildPath, isolated: bool) -> Result<(), LookupError> {
        let group = path.parent().and_then(|parent| self.inner.registry.get(&parent));
        match group {
            Some(Entry::Group(entry)) if entry.group.isolate(path.id(), isolated) => Ok(()),
            _ => Err(LookupError::NotFound(path)),
        }
    }

    /// Stops the tree in reverse order, each child within its shutdown limit, and returns when all is
    /// stopped. What was open has the fate `Stopped`, or `Unknown` where an effect was under way. Nobody is at
    /// work on the store any more, unless it takes longer than 10 s to tidy it.
    ///
    /// What is being undone of requests that have failed or were called off is waited for first, for up to 10 s:
    /// it is tools of this tree that undo, and requests are taken until then. What is not undone by then is undone by the next process where the tree
    /// is durable, and is among [`EffectsRef::open`](crate::system::EffectsRef::open) after this.
    pub async fn stop(&self) {
        self.inner.stop().await;
    }

    /// Waits until the root has ended, by itself or because it was stopped, and says why.
    pub async fn wait(&self) -> RootEnded {
        RootEnded(self.inner.root.wait_ended().await)
    }
}

/// Distinguishes the keys of one system from those of another, also in another process.
fn identity() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // The standard library's hasher is keyed at random; a key needs to be unique, not secret.
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.write_u64(IDENTITY.fetch_add(1, Ordering::Relaxed));
    hasher.finish()
}

/// The address of a child, valid over every restart of the child and of its supervisors.
pub struct ChildRef<B: Behavior> {
    port: Port<B::Request, B::Reply>,
    behavior: PhantomData<fn() -> B>,
}

impl<B: Behavior> Clone for ChildRef<B> {
    fn clone(&self) -> Self {
        Self { port: self.port.clone(), behavior: PhantomData }
    }
}

impl<B: Behavior> Deref for ChildRef<B> {
    type Target = Port<B::Request, B::Reply>;

    fn deref(&self) -> &Self::Target {
        &self.port
    }
}

impl<B: Behavior> fmt::Debug for ChildRef<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ChildRef").field(self.port.path()).finish()
    }
}

/// A supervisor, to be administrated as in OTP.
#[derive(Clone)]
pub struct SupervisorRef {
    node: Arc<Supervisor>,
}

impl fmt::Debug for SupervisorRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SupervisorRef").field(&self.node.path).finish()
    }
}

impl SupervisorRef {
    /// Its path.
    pub fn path(&self) -> &ChildPath {
        &self.node.path
    }

    /// Starts a child below it, and returns once the child is up. Supervisors and groups stand in the spec
    /// that the system starts with. A durable child is started with [`SupervisorRef::start_from`].
    ///
    /// # Errors
    /// A spec that cannot be run, such as a durable one; an id that is taken, by a running child or by one that is present;
    /// too many children; a start that fails, after which the child is not kept.
    pub async fn start_child(&self, spec: impl Into<AnyChild>) -> Result<ChildPath, StartError> {
        let AnyChild(spec) = spec.into();
        let path = self.node.path.join(spec.id());
        match self.node.order(|send| Ask::Start(Arc::new(spec), None, send)).await {
            Some(Reply::Started(_)) => Ok(path),
            Some(Reply::StartRefused(error)) => Err(error),
            _ => Err(StartError::SupervisorGone(self.node.path.clone())),
        }
    }

    /// Stops a child. Its spec is kept, unless it is temporary.
    ///
    /// # Errors
    /// There is no such child, or its end as in [`SupervisorRef::delete_child`].
    pub async fn terminate_child(&self, id: impl AsRef<str>) -> Result<(), ChildError> {
        self.ask(|send| Ask::Terminate(Arc::from(id.as_ref()), send)).await
    }

    /// Starts a child again that was terminated or set aside.
    ///
    /// # Errors
    /// There is no such child, it runs, or it is between two lives; its start fails.
    pub async fn restart_child(&self, id: impl AsRef<str>) -> Result<(), ChildError> {
        self.ask(|send| Ask::Restart(Arc::from(id.as_ref()), send)).await
    }

    /// Forgets a child that does not run, and its spec. One of a template is gone for the next processes, too.
    ///
    /// # Errors
    /// There is no such child, it runs, or it is between two lives; or it is gone, and the store did not take that.
    pub async fn delete_child(&self, id: impl AsRef<str>) -> Result<(), ChildError> {
        self.ask(|send| Ask::Delete(Arc::from(id.as_ref()), send)).await
    }

    async fn ask(
        &self,
        ask: impl FnOnce(oneshot::Sender<Answer>) -> Ask,
    ) -> Result<(), ChildError> {
        match self.node.order(ask).await {
            Some(Reply::ChildRefused(error)) => Err(error),
            Some(_) => Ok(()),
            None => Err(self.gone()),
        }
    }

    fn gone(&self) -> ChildError {
        ChildError::SupervisorGone(self.node.path.clone())
    }

    /// Its children, in the order of their start.
    ///
    /// # Errors
    /// The supervisor is not running.
    pub async fn which_children(&self) -> Result<Vec<ChildInfo>, ChildError> {
        self.node.ask(Ask::Which).await.ok_or_else(|| self.gone())
    }

    /// How many children it has, by kind.
    ///
    /// # Errors
    /// The supervisor is not running.
    pub async fn count_children(&self) -> Result<ChildCounts, ChildError> {
        self.node.ask(Ask::Count).await.ok_or_else(|| self.gone())
    }

    /// The spec of a child.
    ///
    /// # Errors
    /// There is no such child; it is a supervisor or a group itself ([`ChildError::Supervisor`]); the
    /// supervisor is not running.
    pub async fn child_spec(&self, id: impl AsRef<str>) -> Result<ChildSpec, ChildError> {
        let asked = self.node.ask(|send| Ask::Spec(Arc::from(id.as_ref()), send)).await;
        let path = || self.node.path.join(id.as_ref());
        let found = asked.ok_or_else(|| self.gone())?;
        let spec = found.ok_or_else(|| ChildError::NotFound(path()))?;
        // Children of one template share a spec, which has the id of one of them.
        spec.map(|spec| (*spec).clone().with_id(id.as_ref()))
            .ok_or_else(|| ChildError::Supervisor(path()))
    }
}
