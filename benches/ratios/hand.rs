//! The peers: stock ractor, with a supervisor as people write one by hand, and kameo.

use std::collections::HashMap;
use std::future::pending;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kameo::actor::Spawn;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent, call};

use super::meter::Asks;
use super::ours::Stopwatch;

/// What a peer is told.
pub(crate) enum Msg {
    Echo(u64, RpcReplyPort<u64>),
    Err,
    Panic,
    /// As [`Msg::Panic`], with somebody who waits for an answer.
    Poison(RpcReplyPort<u64>),
    Hang(RpcReplyPort<()>),
    /// Show that you serve.
    Ping,
}

/// Adds one, or does as it is told.
struct Worker;

impl Actor for Worker {
    type Msg = Msg;
    type State = Arc<Stopwatch>;
    type Arguments = Arc<Stopwatch>;

    async fn pre_start(
        &self,
        _: ActorRef<Msg>,
        watch: Arc<Stopwatch>,
    ) -> Result<Arc<Stopwatch>, ActorProcessingErr> {
        Ok(watch)
    }

    async fn handle(
        &self,
        _: ActorRef<Msg>,
        message: Msg,
        watch: &mut Arc<Stopwatch>,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Echo(value, reply) => reply.send(value + 1)?,
            Msg::Err => {
                watch.fails(Duration::ZERO);
                return Err("cue".into());
            }
            Msg::Panic => {
                watch.fails(Duration::ZERO);
                panic!("cue");
            }
            Msg::Poison(_reply) => panic!("cue"),
            Msg::Hang(hangs) => {
                hangs.send(())?;
                pending::<()>().await;
            }
            Msg::Ping => watch.serves(),
        }
        Ok(())
    }
}

/// One actor that nobody supervises.
#[derive(Clone)]
pub(crate) struct Bare(ActorRef<Msg>);

impl Bare {
    pub(crate) async fn start() -> Self {
        let (actor, _) = Actor::spawn(None, Worker, Stopwatch::new()).await.expect("it starts");
        Self(actor)
    }
}

impl Asks for Bare {
    async fn ask(&self) {
        assert_eq!(call!(self.0, Msg::Echo, 7).expect("it succeeds"), 8);
    }
}

pub(crate) async fn stop(bare: &Bare) {
    bare.0.stop(None);
}

/// Where a worker can be found, in whichever life.
pub(crate) type Address = Arc<Mutex<ActorRef<Msg>>>;

pub(crate) fn at(address: &Address) -> ActorRef<Msg> {
    address.lock().expect("no holder panics").clone()
}

/// A supervisor by hand: starts a worker again when one ends, and tells where the new one is.
struct Nurse {
    watch: Arc<Stopwatch>,
    all: bool,
}

/// What a [`Nurse`] knows of its workers.
struct Round {
    addresses: Vec<Address>,
    places: HashMap<ActorId, usize>,
}

impl Nurse {
    async fn spawn(&self, me: &ActorRef<()>) -> Result<ActorRef<Msg>, ActorProcessingErr> {
        let watch = Arc::clone(&self.watch);
        Ok(Actor::spawn_linked(None, Worker, watch, me.get_cell()).await?.0)
    }

    async fn again(
        &self,
        me: &ActorRef<()>,
        round: &mut Round,
        place: usize,
    ) -> Result<(), ActorProcessingErr> {
        let worker = self.spawn(me).await?;
        round.places.insert(worker.get_id(), place);
        worker.cast(Msg::Ping)?;
        *round.addresses[place].lock().expect("no holder panics") = worker;
        Ok(())
    }
}

impl Actor for Nurse {
    type Msg = ();
    type State = Round;
    type Arguments = (usize, tokio::sync::oneshot::Sender<Vec<Address>>);

    async fn pre_start(
        &self,
        me: ActorRef<()>,
        (count, tell): Self::Arguments,
    ) -> Result<Round, ActorProcessingErr> {
        let mut round = Round { addresses: Vec::new(), places: HashMap::new() };
        for place in 0..count {
            let worker = self.spawn(&me).await?;
            round.places.insert(worker.get_id(), place);
            round.addresses.push(Arc::new(Mutex::new(worker)));
        }
        let _ = tell.send(round.addresses.clone());
        Ok(round)
    }

    async fn handle_supervisor_evt(
        &self,
        me: ActorRef<()>,
        event: SupervisionEvent,
        round: &mut Round,
    ) -> Result<(), ActorProcessingErr> {
        let (SupervisionEvent::ActorFailed(who, _) | SupervisionEvent::ActorTerminated(who, ..)) =
            event
        else {
            return Ok(());
        };
        // One that was stopped for its sibling's sake is known no more.
        let Some(place) = round.places.remove(&who.get_id()) else { return Ok(()) };
        if !self.all {
            return self.again(&me, round, place).await;
        }
        round.places.clear();
        me.get_cell().stop_children_and_wait(None, None).await;
        for place in 0..round.addresses.len() {
            self.again(&me, round, place).await?;
        }
        Ok(())
    }
}

/// Workers below a supervisor, and the supervisor.
pub(crate) async fn ward(
    watch: &Arc<Stopwatch>,
    count: usize,
    all: bool,
) -> (Vec<Address>, ActorRef<()>) {
    let (tell, told) = tokio::sync::oneshot::channel();
    let nurse = Nurse { watch: Arc::clone(watch), all };
    let (nurse, _) = Actor::spawn(None, nurse, (count, tell)).await.expect("it starts");
    (told.await.expect("it has started"), nurse)
}

/// kameo's worker.
pub(crate) struct KameoWorker {
    watch: Arc<Stopwatch>,
}

impl kameo::Actor for KameoWorker {
    type Args = Arc<Stopwatch>;
    type Error = kameo::error::Infallible;

    async fn on_start(
        watch: Arc<Stopwatch>,
        _: kameo::actor::ActorRef<Self>,
    ) -> Result<Self, Self::Error> {
        watch.serves();
        Ok(Self { watch })
    }
}

impl kameo::message::Message<u64> for KameoWorker {
    type Reply = u64;

    async fn handle(&mut self, value: u64, _: &mut kameo::message::Context<Self, u64>) -> u64 {
        value + 1
    }
}

/// A message that is a panic.
pub(crate) struct Boom;

impl kameo::message::Message<Boom> for KameoWorker {
    type Reply = u64;

    async fn handle(&mut self, _: Boom, _: &mut kameo::message::Context<Self, u64>) -> u64 {
        self.watch.fails(Duration::ZERO);
        panic!("cue");
    }
}

/// kameo's supervisor, which only is there.
struct KameoBoss;

impl kameo::Actor for KameoBoss {
    type Args = ();
    type Error = kameo::error::Infallible;

    async fn on_start((): (), _: kameo::actor::ActorRef<Self>) -> Result<Self, Self::Error> {
        Ok(Self)
    }

    async fn on_link_died(
        &mut self,
        _: kameo::actor::WeakActorRef<Self>,
        _: kameo::actor::ActorId,
        _: kameo::error::ActorStopReason,
    ) -> Result<ControlFlow<kameo::error::ActorStopReason>, Self::Error> {
        Ok(ControlFlow::Continue(()))
    }
}

/// A worker of kameo's.
#[derive(Clone)]
pub(crate) struct Kameo(pub(crate) kameo::actor::ActorRef<KameoWorker>);

impl Kameo {
    pub(crate) fn start() -> Self {
        Self(KameoWorker::spawn(Stopwatch::new()))
    }

    /// Workers below a supervisor; what must be kept for them to live comes second.
    pub(crate) async fn ward(
        watch: &Arc<Stopwatch>,
        count: usize,
    ) -> (Vec<Self>, impl Send + use<>) {
        let boss = KameoBoss::spawn(());
        let mut workers = Vec::with_capacity(count);
        for _ in 0..count {
            let worker = <KameoWorker as kameo::actor::Spawn>::supervise(&boss, Arc::clone(watch))
                .restart_limit(u32::MAX, Duration::from_secs(1))
                .spawn()
                .await;
            workers.push(Self(worker));
        }
        (workers, boss)
    }
}

impl Asks for Kameo {
    async fn ask(&self) {
        assert_eq!(self.0.ask(7_u64).await.expect("it succeeds"), 8);
    }
}
