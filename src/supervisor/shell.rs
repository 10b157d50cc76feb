//! One life of a supervisor: the actor, and the family it feeds.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;

use super::line::{Line, Said};
use super::made::{Answer, Ended};
use super::{Ask, Msg, Supervisor, Ward, build};
use crate::error::StartError;
use crate::event::Event;
use crate::family::{
    ChildOptions, Family, FamilyOptions, Input, Key, Output, Reply, RunId, Shutdown, Ticket, Token,
};
use crate::fault::ExitCause;
use crate::hub::Timed;
use crate::id::{ChildPath, Incarnation};
use crate::moment::Moment;
use crate::slot::{Boss, Ending, Managed, Wake};
use crate::spec::ChildSpec;

/// A supervisor's life seen from its children.
struct Office {
    line: Line,
}

impl Boss for Office {
    fn exited(&self, key: Key, life: Incarnation, cause: ExitCause, siblings: bool) {
        self.line.say(Msg::Exited { key, life, cause, siblings });
    }

    fn cell(&self) -> ActorCell {
        self.line.cell()
    }
}

/// A run under way.
pub(super) struct Running {
    pub(super) cancelled: Arc<AtomicBool>,
    pub(super) task: AbortHandle,
    pub(super) start: Vec<(Arc<dyn Managed>, Incarnation)>,
}

/// A restart that waits for its moment.
struct Backoff {
    line: Line,
    token: Token,
}

impl Timed for Backoff {
    fn on_time(&self, _: Moment) {
        self.line.say(Msg::Due(self.token));
    }
}

/// The state of one life of a supervisor.
pub(super) struct Shell {
    pub(super) node: Arc<Supervisor>,
    life: Incarnation,
    said: Said,
    family: Family,
    pub(super) wards: HashMap<Key, Ward>,
    pub(super) runs: HashMap<RunId, Running>,
    backoffs: HashMap<Token, Arc<dyn Timed>>,
    /// What is being cleared away after the last life of a child. Its next one waits for that.
    pub(super) clearing: HashMap<Key, watch::Receiver<()>>,
    tickets: HashMap<Ticket, oneshot::Sender<Answer>>,
    next_ticket: u64,
    pub(super) office: Option<Arc<dyn Boss>>,
    /// What was asked is done once the store has heard of the end of this child.
    ended: Option<(Ended, ChildPath)>,
    done: bool,
}

impl Shell {
    pub(super) fn new(node: Arc<Supervisor>, life: Incarnation, said: Said) -> Self {
        let spec = &node.spec;
        let options = FamilyOptions {
            strategy: spec.strategy,
            intensity: spec.intensity,
            child_limit: spec.effective_child_limit(),
            auto_shutdown: spec.auto_shutdown,
            max_children: spec.max_children.map(std::num::NonZeroUsize::get),
            parallel_stop: spec.dynamic,
            backoff: spec.backoff,
        };
        node.revive_statics();
        let mut family = Family::new(node.path.clone(), options);
        let mut wards = HashMap::with_capacity(node.statics.len());
        let kept = node.kept.lock().clone();
        for (id, options, ward) in node.statics.iter().chain(kept.values()) {
            let (id, last) = (Arc::clone(id), ward.managed.last_incarnation());
            // The spec was validated, and what is kept has ids of its own: none stands twice.
            let added = match ward.kept {
                None => family.add_static(id, *options, last),
                Some(_) => family.add_kept(id, *options, last),
            };
            if let Ok(key) = added {
                wards.insert(key, ward.clone());
            }
        }
        Self {
            node,
            life,
            said,
            family,
            wards,
            runs: HashMap::new(),
            backoffs: HashMap::new(),
            clearing: HashMap::new(),
            tickets: HashMap::new(),
            next_ticket: 0,
            office: None,
            ended: None,
            done: false,
        }
    }

    fn feed(&mut self, me: &Line, input: Input) {
        let now = self.node.hub.now();
        let outputs = self.family.on(input, now);
        for output in outputs {
            self.carry_out(me, output);
        }
        self.ended = None;
    }

    fn carry_out(&mut self, me: &Line, output: Output) {
        let node = Arc::clone(&self.node);
        match output {
            Output::Run { run, stop, parallel, until, start } => {
                self.start_run(me, run, stop, (parallel, until), start);
            }
            Output::CancelRun(run) => {
                if let Some(running) = self.runs.remove(&run) {
                    running.cancelled.store(true, Ordering::Release);
                    running.task.abort();
                    for (child, life) in running.start {
                        child.cancel_begin(life);
                    }
                }
            }
            Output::Arm { token, at } => {
                let timer: Arc<dyn Timed> = Arc::new(Backoff { line: me.clone(), token });
                node.hub.arm(at, Arc::downgrade(&timer));
                self.backoffs.insert(token, timer);
                if let Some(ward) = self.wards.get(&token.child()) {
                    ward.managed.resumes(at);
                }
            }
            Output::Quarantined { key, cause } => {
                if let Some(ward) = self.wards.get(&key) {
                    node.hub.emit(Event::ChildQuarantined {
                        child: ward.managed.path().clone(),
                        cause: cause.kind(),
                    });
                    let managed = Arc::clone(&ward.managed);
                    self.clear(key, move || managed.quarantine(&cause));
                }
            }
            Output::Rests { key, cause } => {
                if let Some(ward) = self.wards.get(&key) {
                    let managed = Arc::clone(&ward.managed);
                    self.clear(key, move || managed.give_up(&cause));
                }
            }
            Output::Removed { key, .. } => {
                if let Some(ward) = self.wards.remove(&key) {
                    // Its id is free from now on, whenever its requests have their fates.
                    let path = ward.managed.path();
                    let left = if ward.dynamic || ward.kept.is_some() {
                        node.hub.shelf.lets_go_of(path);
                        node.registry.detach(path)
                    } else {
                        node.registry.rest(path);
                        None
                    };
                    let (heard, ended) = oneshot::channel();
                    if let Some(serial) = ward.kept {
                        node.let_go(path, serial);
                        self.ended = Some((ended, path.clone()));
                    }
                    self.clear(key, move || {
                        ward.managed.remove(&ExitCause::Stopped);
                        node.registry.retire(left);
                        if let Some(serial) = ward.kept {
                            node.unmake(ward.managed, serial, heard);
                        }
                    });
                }
            }
            Output::Reply { ticket, reply } => {
                // It comes back with the lives that follow, which a start that failed does not.
                if let Reply::Started(key) = reply
                    && let Some(ward) = self.wards.get_mut(&key).filter(|ward| ward.kept.is_some())
                    && let Some(spec) = &ward.spec
                {
                    let options = ChildOptions::of(spec);
                    ward.dynamic = false;
                    node.keep(options, ward.clone());
                }
                let Some(caller) = self.tickets.remove(&ticket) else { return };
                drop(caller.send(Answer { reply, ended: self.ended.take() }));
            }
            Output::Restarting { key, cause, scope, restarts } => {
                if let Some(ward) = self.wards.get(&key) {
                    node.hub.emit(Event::Restarting {
                        supervisor: node.path.clone(),
                        child: ward.managed.path().clone(),
                        cause: cause.kind(),
                        scope,
                        restarts,
                    });
                }
            }
            Output::Booted => node.booted(Ok(())),
            Output::Finished { cause, start_error } => {
                self.done = true;
                if let ExitCause::Intensity { child, cause, restarts, .. } = &cause {
                    node.hub.emit(Event::Escalated {
                        supervisor: node.path.clone(),
                        child: child.clone(),
                        cause: cause.kind(),
                        restarts: *restarts,
                    });
                }
                // The children that only this life knew go with it; the others wait for the next.
                // All of them are dropped there: ractor drops what is left here in the parent.
                let gone = std::mem::take(&mut self.wards);
                let clearing = std::mem::take(&mut self.clearing);
                let life = self.life;
                me.stop();
                node.hub.runtime.clone().spawn(async move {
                    for mut clearing in clearing.into_values() {
                        while clearing.changed().await.is_ok() {}
                    }
                    for ward in gone.into_values().filter(|ward| ward.dynamic) {
                        ward.managed.remove(&cause);
                        node.hub.shelf.lets_go_of(ward.managed.path());
                        node.registry.forget(ward.managed.path());
                    }
                    node.finished(life, cause, start_error);
                });
            }
        }
    }

    /// Giving requests their fates drops user values, which is not done here.
    fn clear(&mut self, key: Key, work: impl FnOnce() + Send + 'static) {
        let (clearing, cleared) = watch::channel(());
        self.clearing.insert(key, cleared);
        self.node.hub.runtime.spawn(async move {
            work();
            drop(clearing);
        });
    }

    /// Drops elsewhere what may hold user values.
    fn discard(&self, what: impl Send + 'static) {
        self.node.hub.runtime.spawn(async move { drop(what) });
    }

    fn ask(&mut self, me: &Line, ask: Ask) {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        match ask {
            Ask::Start(spec, kept, caller) => {
                let id = Arc::clone(&spec.id);
                if self.family.key_of(&id).is_some() {
                    // The family says which misuse it is; the child that is there is not touched.
                    self.tickets.insert(ticket, caller);
                    let options = ChildOptions::of(&spec);
                    self.feed(me, Input::Start { ticket, id, options, last: Incarnation::NONE });
                    self.discard(spec);
                    return;
                }
                match build::dynamic(&self.node, &spec, kept) {
                    Err(error) => {
                        let _ = caller.send(Reply::StartRefused(StartError::Spec(error)).into());
                    }
                    Ok((options, ward)) => {
                        self.tickets.insert(ticket, caller);
                        let key = self.family.next_key();
                        self.wards.insert(key, ward.clone());
                        let last = ward.managed.last_incarnation();
                        self.feed(me, Input::Start { ticket, id, options, last });
                        if self.family.status(key).is_none()
                            && let Some(ward) = self.wards.remove(&key)
                        {
                            self.node.registry.forget(ward.managed.path());
                        }
                    }
                }
                self.discard(spec);
            }
            Ask::Terminate(id, caller) => {
                self.tickets.insert(ticket, caller);
                self.feed(me, Input::Terminate { ticket, id });
            }
            Ask::Restart(id, caller) => {
                self.tickets.insert(ticket, caller);
                self.feed(me, Input::Restart { ticket, id });
            }
            Ask::Delete(id, caller) => {
                self.tickets.insert(ticket, caller);
                self.feed(me, Input::Delete { ticket, id });
            }
            Ask::Reset(id, until, lives, caller) => match self.family.may_reset(id.as_deref()) {
                Ok(()) if lives.install() => {
                    self.tickets.insert(ticket, caller);
                    self.feed(me, Input::Reset { ticket, id, until: Some(until) });
                }
                // Nobody waits for it any more.
                Ok(()) => {}
                Err(error) => drop(caller.send(Reply::ChildRefused(error).into())),
            },
            Ask::Which(caller) => {
                let _ = caller.send(self.family.which_children());
            }
            Ask::Count(caller) => {
                let _ = caller.send(self.family.count_children());
            }
            Ask::Spec(id, caller) => {
                let spec = self
                    .family
                    .key_of(&id)
                    .and_then(|key| self.wards.get(&key))
                    .map(|ward| ward.spec.clone());
                let _ = caller.send(spec);
            }
        }
    }
}

impl ChildOptions {
    pub(crate) fn of(spec: &ChildSpec) -> Self {
        Self {
            restart: spec.restart,
            significant: spec.significant,
            is_supervisor: false,
            child_limit: spec.child_limit,
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // Killed from outside, or the runtime is going down: nothing that runs for it may outlive it,
        // and whoever waits must hear.
        for (_, running) in self.runs.drain() {
            running.cancelled.store(true, Ordering::Release);
            running.task.abort();
        }
        if !self.done {
            let node = Arc::clone(&self.node);
            let life = self.life;
            let wards: Vec<_> = self.wards.drain().map(|(_, ward)| ward).collect();
            let clearing = std::mem::take(&mut self.clearing);
            self.node.hub.runtime.spawn(async move {
                for mut clearing in clearing.into_values() {
                    while clearing.changed().await.is_ok() {}
                }
                for ward in wards.into_iter().rev() {
                    let ending = Ending {
                        shutdown: Shutdown::Brutal,
                        restart: !ward.dynamic,
                        cause: ExitCause::Killed,
                        until: None,
                    };
                    Arc::clone(&ward.managed).end(ending).await;
                    if ward.dynamic {
                        ward.managed.remove(&ExitCause::Killed);
                        node.registry.forget(ward.managed.path());
                    }
                }
                node.finished(life, ExitCause::Killed, None);
            });
        }
    }
}

pub(super) struct SupervisorActor;

impl Actor for SupervisorActor {
    type Msg = Wake;
    type State = Shell;
    type Arguments = Shell;

    async fn pre_start(
        &self,
        me: ActorRef<Wake>,
        mut shell: Shell,
    ) -> Result<Shell, ActorProcessingErr> {
        let me = Line::new(me, &shell.said);
        shell.office = Some(Arc::new(Office { line: me.clone() }));
        shell.feed(&me, Input::Boot);
        Ok(shell)
    }

    async fn handle(
        &self,
        me: ActorRef<Wake>,
        _: Wake,
        shell: &mut Shell,
    ) -> Result<(), ActorProcessingErr> {
        let Some(message) = shell.said.lock().pop_front() else { return Ok(()) };
        let me = Line::new(me, &shell.said);
        match message {
            Msg::Exited { key, life, cause, siblings } => {
                let widen = siblings.then(|| shell.family.options().strategy.with_siblings());
                shell.feed(&me, Input::Exited { key, incarnation: life, cause, widen });
            }
            Msg::RunDone { run, result } => {
                if shell.runs.remove(&run).is_some() {
                    shell.feed(&me, Input::RunDone { run, result });
                }
            }
            Msg::Due(token) => {
                if shell.backoffs.remove(&token).is_some() {
                    shell.feed(&me, Input::Due { token });
                }
            }
            Msg::Stop { cause, until } => shell.feed(&me, Input::Stop { cause, until }),
            Msg::Ask(ask) => shell.ask(&me, ask),
        }
        Ok(())
    }

    /// The ends of carriers are told by what they carried, with the life they belong to; ractor's own
    /// events say less, and may come in another order. Its default would stop this supervisor.
    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Wake>,
        _: SupervisionEvent,
        _: &mut Shell,
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}
