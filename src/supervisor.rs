//! One supervisor: events in, the family decides, effects out.
//!
//! The node lasts as long as its spec; each of its lives is a ractor actor that feeds the family and
//! carries out what it says. What takes time, stopping and starting children, is done by runner tasks
//! that report back; the actor itself never waits.
//!
//! *Invariant.* A supervisor never blocks, never awaits and never runs user code: it can be stopped,
//! asked and dumped while every child hangs.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use ractor::ActorRuntime;
use tokio::sync::{Notify, oneshot};

use crate::error::StartError;
use crate::event::Event;
use crate::family::{ChildCounts, ChildInfo, ChildOptions, Key, RunId, Shutdown, Token};
use crate::fate::FateCounts;
use crate::fault::ExitCause;
use crate::group::AnyGroup;
use crate::hub::Hub;
use crate::id::{ChildPath, Incarnation};
use crate::journal::Serial;
use crate::mirror::{ChildState, Nested, Roster, Status};
use crate::moment::Moment;
use crate::policy::{Policy, Within};
use crate::slot::{Boxed, Ending, Link, Managed, Rules};
use crate::spec::{ChildSpec, SupervisorSpec};

mod build;
mod line;
mod made;
mod rollback;
mod runner;
mod shell;
mod undo;

use line::{Line, Said};
use shell::{Shell, SupervisorActor};

pub(crate) use build::{Entry, Registry, again, build};
pub(crate) use made::Answer;
pub(crate) use rollback::{Fallen, Lines, Lives, Place};
pub use rollback::{Report, RollbackError, To, Wider};

/// A child with what its supervisor needs to treat it.
#[derive(Clone)]
pub(crate) struct Ward {
    pub(crate) managed: Arc<dyn Managed>,
    pub(crate) shutdown: Shutdown,
    pub(crate) dynamic: bool,
    /// Of one that was started from a template and is durable: what it is in the journal.
    pub(crate) kept: Option<Serial>,
    /// The spec; its id may be that of another child made from the same template.
    pub(crate) spec: Option<Arc<ChildSpec>>,
}

/// What an operator asks of a supervisor.
pub(crate) enum Ask {
    Start(Arc<ChildSpec>, Option<Serial>, oneshot::Sender<Answer>),
    Terminate(Arc<str>, oneshot::Sender<Answer>),
    Restart(Arc<str>, oneshot::Sender<Answer>),
    Delete(Arc<str>, oneshot::Sender<Answer>),
    /// Stop one child, or all, and start them with these lives, uncounted; the stops are over at this moment.
    Reset(Option<Arc<str>>, Moment, Arc<Lives>, oneshot::Sender<Answer>),
    Which(oneshot::Sender<Vec<ChildInfo>>),
    Count(oneshot::Sender<ChildCounts>),
    /// `None` within: it is a supervisor.
    Spec(Arc<str>, oneshot::Sender<Option<Option<Arc<ChildSpec>>>>),
}

pub(crate) enum Msg {
    Exited { key: Key, life: Incarnation, cause: ExitCause, siblings: bool },
    RunDone { run: RunId, result: Result<(), (Key, ExitCause)> },
    Due(Token),
    Ask(Ask),
    Stop { cause: ExitCause, until: Option<Moment> },
}

/// Where the roster of a supervisor hangs: in its parent's, or nowhere for the root.
pub(crate) enum Hung {
    Root(Roster),
    Below(Nested),
}

impl Hung {
    pub(crate) fn roster(&self) -> &Roster {
        match self {
            Self::Root(roster) => roster,
            Self::Below(nested) => nested.roster(),
        }
    }
}

/// See the [module](self).
pub(crate) struct Supervisor {
    pub(crate) me: Weak<Self>,
    pub(crate) path: ChildPath,
    pub(crate) spec: Arc<SupervisorSpec>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) within: Within,
    pub(crate) hub: Arc<Hub>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) hung: Hung,
    pub(crate) statics: Vec<(Arc<str>, ChildOptions, Ward)>,
    kept: Mutex<made::Kept>,
    pub(crate) group: Option<Arc<dyn AnyGroup>>,
    /// The spec and the rules of the dynamic child that was started last.
    template: Mutex<Option<(Weak<ChildSpec>, Weak<Rules>)>>,
    desk: Mutex<Desk>,
    changed: Notify,
}

#[derive(Default)]
struct Desk {
    life: Incarnation,
    restarts: u32,
    actor: Option<Line>,
    link: Option<Link>,
    /// Who waits for this life to be up.
    booting: Option<oneshot::Sender<Result<(), StartError>>>,
    /// It was asked to stop, and whether another life follows.
    stopping: Option<bool>,
    /// It was past its shutdown limit.
    killed: bool,
    ended: Option<ExitCause>,
    gone: bool,
    /// It fell, and has not come up since.
    fallen: Option<Fallen>,
}

impl Supervisor {
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn new(
        path: ChildPath,
        spec: Arc<SupervisorSpec>,
        policy: Arc<Policy>,
        within: Within,
        hub: Arc<Hub>,
        registry: Arc<Registry>,
        hung: Hung,
        statics: Vec<(Arc<str>, ChildOptions, Ward)>,
        group: Option<Arc<dyn AnyGroup>>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            path,
            spec,
            policy,
            within,
            hub,
            registry,
            hung,
            statics,
            kept: Mutex::default(),
            group,
            template: Mutex::default(),
            desk: Mutex::default(),
            changed: Notify::new(),
        })
    }

    pub(crate) fn roster(&self) -> &Roster {
        self.hung.roster()
    }

    fn publish(&self, desk: &Desk, state: ChildState) {
        self.roster().publish(Status { state, ..Status::default() });
        self.roster().publish_life(desk.life, desk.restarts);
    }

    /// Begins a life: the actor is spawned, its static children started.
    pub(crate) fn begin_life(
        &self,
        life: Incarnation,
        link: Option<Link>,
    ) -> Option<oneshot::Receiver<Result<(), StartError>>> {
        let (send, receive) = oneshot::channel();
        let boss = link.as_ref().map(|link| link.boss.cell());
        {
            let mut desk = self.desk.lock();
            if desk.gone || desk.actor.is_some() {
                return None;
            }
            if desk.life != Incarnation::NONE {
                desk.restarts += 1;
            }
            desk.life = life;
            desk.link = link;
            desk.booting = Some(send);
            desk.stopping = None;
            desk.killed = false;
            desk.ended = None;
            self.publish(&desk, ChildState::Starting);
        }
        if let Some(group) = &self.group {
            group.open();
        }
        let said = Said::default();
        let shell = Shell::new(self.me.upgrade()?, life, Arc::clone(&said));
        let runtime = self.hub.runtime.clone();
        let _entered = runtime.enter();
        let spawned = match boss {
            Some(boss) => ActorRuntime::spawn_linked_instant(None, SupervisorActor, shell, boss),
            None => ActorRuntime::spawn_instant(None, SupervisorActor, shell),
        };
        let Ok((actor, _)) = spawned else {
            self.finished(life, ExitCause::Killed, None);
            return None;
        };
        let actor = Line::new(actor, &said);
        let mut desk = self.desk.lock();
        if desk.ended.is_none() && desk.life == life {
            if desk.killed {
                actor.kill();
            } else if desk.stopping.is_some() {
                actor.say(Msg::Stop { cause: ExitCause::Stopped, until: None });
            }
            desk.actor = Some(actor);
        }
        Some(receive)
    }

    /// Asks the current life to stop; `restart` when another follows.
    pub(crate) fn ask_stop(&self, cause: ExitCause, restart: bool) {
        self.ask_stop_until(cause, restart, None);
    }

    fn ask_stop_until(&self, cause: ExitCause, restart: bool, until: Option<Moment>) {
        let mut desk = self.desk.lock();
        let keep = desk.stopping.unwrap_or(restart) && restart;
        desk.stopping = Some(keep);
        if desk.life != Incarnation::NONE {
            let state = match (&desk.ended, keep) {
                (None, _) => ChildState::Stopping,
                (Some(_), true) => ChildState::Restarting,
                (Some(_), false) => ChildState::Stopped,
            };
            self.publish(&desk, state);
        }
        if let Some(actor) = &desk.actor {
            actor.say(Msg::Stop { cause, until });
        }
    }

    /// Why the last life ended; `None` while one is there or on its way.
    pub(crate) fn is_ended(&self) -> Option<ExitCause> {
        let desk = self.desk.lock();
        if desk.life == Incarnation::NONE { Some(ExitCause::Stopped) } else { desk.ended.clone() }
    }

    /// Waits until the current life, if there is one, has ended.
    pub(crate) async fn wait_ended(&self) -> ExitCause {
        loop {
            let changed = self.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            if let Some(cause) = self.is_ended() {
                return cause;
            }
            changed.await;
        }
    }

    /// Asks the current life. `None`: there is none, or it ends before it has answered. A question that
    /// is put while ractor closes the mailbox may never be dropped, so the end is watched, too.
    pub(crate) async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Option<T> {
        let (send, mut receive) = oneshot::channel();
        let life = {
            let desk = self.desk.lock();
            let actor = desk.actor.as_ref().filter(|_| desk.stopping.is_none())?;
            if !actor.say(Msg::Ask(ask(send))) {
                return None;
            }
            desk.life
        };
        let over = async {
            loop {
                let mut changed = std::pin::pin!(self.changed.notified());
                changed.as_mut().enable();
                {
                    let desk = self.desk.lock();
                    if desk.life != life || desk.ended.is_some() {
                        return;
                    }
                }
                changed.await;
            }
        };
        tokio::select! {
            biased;
            answer = &mut receive => return answer.ok(),
            () = over => {}
        }
        receive.try_recv().ok()
    }

    fn booted(&self, result: Result<(), StartError>) {
        let mut desk = self.desk.lock();
        if result.is_ok() {
            self.publish(&desk, ChildState::Idle);
        }
        let booting = desk.booting.take();
        drop(desk);
        if let Some(booting) = booting {
            let _ = booting.send(result);
        }
    }

    /// What a fall had begun and nobody ends any more: what is lost of it is named.
    fn comes_up_no_more(&self) {
        let fallen = self.desk.lock().fallen.take();
        fallen.into_iter().for_each(Fallen::let_go);
    }

    /// The runtime is gone, and the actor of the current life with it: whoever waits for its end, or for
    /// an answer, is told.
    pub(crate) fn lost(&self) {
        let life = {
            let mut desk = self.desk.lock();
            desk.stopping = Some(false);
            desk.life
        };
        self.finished(life, ExitCause::Killed, None);
    }

    /// The current life has ended, after all its children.
    fn finished(&self, life: Incarnation, cause: ExitCause, start_error: Option<StartError>) {
        let (link, asked, booting) = {
            let mut desk = self.desk.lock();
            if desk.life != life || desk.ended.is_some() {
                return;
            }
            desk.actor = None;
            desk.ended = Some(cause.clone());
            let asked = desk.stopping.is_some();
            let follows = desk.stopping.unwrap_or(desk.link.is_some());
            let state = if follows { ChildState::Restarting } else { ChildState::Stopped };
            self.publish(&desk, state);
            (desk.link.clone(), asked, desk.booting.take())
        };
        self.roster().publish_cause(cause.kind(), self.hub.now());
        self.hub
            .emit(Event::SupervisorEnded { supervisor: self.path.clone(), cause: cause.kind() });
        let was_booting = booting.is_some();
        if let Some(booting) = booting {
            let error = start_error.unwrap_or_else(|| StartError::Child {
                child: self.path.clone(),
                cause: cause.clone(),
            });
            let _ = booting.send(Err(error));
        }
        // A start that failed is heard by whoever started; an end that was asked for, by whoever asked.
        if let Some(link) = link
            && !asked
            && !was_booting
        {
            link.boss.exited(link.key, life, cause, false);
        }
        self.changed.notify_waiters();
    }
}

/// What a fall has begun, as long as the next life is not up: one that does not start, or is called off, leaves
/// it to the one after it, whose children stand on the same states.
struct Unsettled<'a> {
    node: &'a Supervisor,
    fallen: Option<Fallen>,
}

impl Drop for Unsettled<'_> {
    fn drop(&mut self) {
        let Some(fallen) = self.fallen.take() else { return };
        let before = self.node.desk.lock().fallen.replace(fallen);
        drop(before);
    }
}

impl Managed for Supervisor {
    fn path(&self) -> &ChildPath {
        &self.path
    }

    fn last_incarnation(&self) -> Incarnation {
        self.desk.lock().life
    }

    fn begin(self: Arc<Self>, life: Incarnation, link: Link) -> Boxed<Result<(), ExitCause>> {
        Box::pin(async move {
            let (fell, fallen) = {
                let mut desk = self.desk.lock();
                (matches!(desk.ended, Some(ExitCause::Intensity { .. })), desk.fallen.take())
            };
            let mut unsettled = Unsettled { node: &self, fallen };
            if fell && unsettled.fallen.is_none() {
                unsettled.fallen = Place::of(&self).after_fall().await;
            }
            let Some(receive) = self.begin_life(life, Some(link)) else {
                return Err(ExitCause::Stopped);
            };
            match receive.await {
                Ok(Ok(())) => {
                    if let Some(fallen) = unsettled.fallen.take() {
                        fallen.come_up(Place::of(&self));
                    }
                    Ok(())
                }
                Ok(Err(StartError::Child { child, cause })) => {
                    Err(ExitCause::StartFailed(format!("child \"{child}\": {cause}")))
                }
                Ok(Err(error)) => Err(ExitCause::StartFailed(error.to_string())),
                Err(_) => Err(ExitCause::Killed),
            }
        })
    }

    fn cancel_begin(&self, life: Incarnation) {
        let booting = {
            let mut desk = self.desk.lock();
            if desk.life == life { desk.booting.take() } else { None }
        };
        if booting.is_some() {
            self.ask_stop(ExitCause::Stopped, true);
        }
    }

    fn end(self: Arc<Self>, how: Ending) -> Boxed<()> {
        Box::pin(async move {
            self.ask_stop_until(how.cause.clone(), how.restart, how.until);
            let timeout = self.hub.clock.sleep_until(how.limit(self.hub.now()));
            let in_time = tokio::select! {
                biased;
                _ = self.wait_ended() => true,
                () = timeout => false,
            };
            if !in_time {
                self.end_brutally(&how).await;
            }
            if let Some(group) = &self.group
                && !how.restart
            {
                group.close(&how.cause);
            }
            if !how.restart {
                self.each_child(|child| child.give_up(&how.cause));
                self.comes_up_no_more();
            }
        })
    }

    fn resumes(&self, _: Moment) {}

    fn quarantine(&self, cause: &ExitCause) {
        self.give_up(cause);
        let desk = self.desk.lock();
        self.publish(&desk, ChildState::Quarantined);
    }

    fn give_up(&self, cause: &ExitCause) {
        if let Some(group) = &self.group {
            group.close(cause);
        }
        self.each_child(|child| child.give_up(cause));
        self.comes_up_no_more();
        let link = {
            let mut desk = self.desk.lock();
            if desk.ended.is_none() {
                return;
            }
            self.publish(&desk, ChildState::Stopped);
            desk.link.take()
        };
        drop(link);
    }

    fn remove(&self, cause: &ExitCause) {
        self.desk.lock().gone = true;
        if let Some(group) = &self.group {
            group.close(cause);
        }
        self.each_child(|child| {
            child.remove(cause);
            self.registry.rest(child.path());
        });
        self.comes_up_no_more();
        if let Hung::Below(nested) = &self.hung {
            nested.hide();
        }
    }

    fn revive(&self) {
        let mut desk = self.desk.lock();
        desk.gone = false;
        if let Hung::Below(nested) = &self.hung {
            nested.show();
        }
        self.publish(&desk, ChildState::Restarting);
    }

    fn counts(&self) -> FateCounts {
        FateCounts::default()
    }
}

impl Supervisor {
    /// No life follows: everything below gets its fate.
    pub(crate) fn abandon(&self, cause: &ExitCause) {
        Managed::give_up(self, cause);
    }

    /// Static children that were removed come back with the next life, as in OTP: they stand in the spec.
    fn revive_statics(&self) {
        self.each_child(|child| {
            if self.registry.wake(child.path()) {
                child.revive();
            }
        });
    }

    /// Those that outlive the lives of this supervisor.
    fn each_child(&self, then: impl Fn(&dyn Managed)) {
        for (_, _, ward) in &self.statics {
            then(&*ward.managed);
        }
        let kept = self.kept.lock().clone();
        for (_, _, ward) in kept.values() {
            then(&*ward.managed);
        }
    }

    /// Past its shutdown limit: every child at once, without mercy; then the actor.
    async fn end_brutally(&self, how: &Ending) {
        let paths = self.registry.below(&self.path);
        for managed in paths {
            managed.end(Ending { shutdown: Shutdown::Brutal, ..how.clone() }).await;
        }
        // The supervisors below are linked to this actor, and die with it. The end is said by what the
        // actors leave behind, which ends what still lives: nothing may start again before that is done.
        let supervisors = self.registry.supervisors_below(&self.path);
        {
            let mut desk = self.desk.lock();
            desk.killed = true;
            if let Some(actor) = &desk.actor {
                actor.kill();
            }
        }
        self.wait_ended().await;
        for supervisor in supervisors {
            supervisor.kill();
            supervisor.wait_ended().await;
        }
    }

    /// Its actor is not waited for any more.
    fn kill(&self) {
        let mut desk = self.desk.lock();
        if desk.ended.is_none() && desk.life != Incarnation::NONE {
            desk.killed = true;
            desk.stopping = Some(desk.stopping.unwrap_or(true));
            if let Some(actor) = &desk.actor {
                actor.kill();
            }
        }
    }
}
