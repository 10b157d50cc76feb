//! A life that learns, outside of any attempt, that it is over.

use std::sync::Arc;

use mainstay::behavior::{
    Behavior, Context, Lifeline, StartContext, Stateful, Stateless, Step, Turn,
};
use mainstay::event::{Event, EventStream};
use mainstay::fault::{Class, EffectKind, ExitKind, Fault};
use mainstay::id::Incarnation;
use mainstay::spec::{ChildSpec, SupervisorSpec};
use mainstay::system::System;
use tokio::sync::{mpsc, watch};

/// Hands out the lifeline of each of its lives; waits at its gate when it is told to.
#[derive(Clone)]
struct Keeper {
    lines: mpsc::UnboundedSender<Lifeline>,
    gate: watch::Receiver<bool>,
    arrived: mpsc::UnboundedSender<u32>,
    /// Says in its first start that it is over.
    stillborn: bool,
    life: Incarnation,
}

impl Keeper {
    async fn begin(&mut self, ctx: &StartContext) {
        self.life = ctx.incarnation;
        if self.stillborn && ctx.incarnation == Incarnation(1) {
            ctx.lifeline.end(Class::Network);
        }
        self.lines.send(ctx.lifeline.clone()).ok();
    }

    async fn answer(&self) -> Result<u32, Fault> {
        self.arrived.send(self.life.0).ok();
        let mut gate = self.gate.clone();
        gate.wait_for(|open| *open).await.ok();
        Ok(self.life.0)
    }
}

/// The same, as a stateless and as a stateful child.
#[derive(Clone)]
struct Shared(Keeper);
#[derive(Clone)]
struct Serial(Keeper);

impl Behavior for Shared {
    type Request = ();
    type Reply = u32;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
}

impl Behavior for Serial {
    type Request = ();
    type Reply = u32;
}

impl Stateless for Shared {
    async fn start(&mut self, ctx: &StartContext) -> Result<(), Fault> {
        self.0.begin(ctx).await;
        Ok(())
    }

    async fn serve(&self, _: &(), _: &Context) -> Result<u32, Fault> {
        self.0.answer().await
    }
}

impl Stateful for Serial {
    async fn start(&mut self, ctx: &StartContext) -> Result<(), Fault> {
        self.0.begin(ctx).await;
        Ok(())
    }

    async fn step(&mut self, _: &(), _: Turn, _: &Context) -> Result<Step<u32>, Fault> {
        self.0.answer().await.map(Step::Reply)
    }
}

struct Stage {
    system: Arc<System>,
    events: EventStream,
    lines: mpsc::UnboundedReceiver<Lifeline>,
    arrived: mpsc::UnboundedReceiver<u32>,
    gate: watch::Sender<bool>,
}

async fn stage(stillborn: bool, spec: fn(Keeper) -> ChildSpec) -> Stage {
    let (to_lines, lines) = mpsc::unbounded_channel();
    let (to_arrived, arrived) = mpsc::unbounded_channel();
    let (gate, at_gate) = watch::channel(false);
    let life = Incarnation::NONE;
    let keeper = Keeper { lines: to_lines, gate: at_gate, arrived: to_arrived, stillborn, life };
    // Its first exit may come before anybody could listen.
    let root = SupervisorSpec::one_for_one("root").child(spec(keeper));
    let system = Arc::new(System::start(root).await.unwrap());
    let events = system.events();
    Stage { system, events, lines, arrived, gate }
}

fn shared(keeper: Keeper) -> ChildSpec {
    ChildSpec::stateless("keeper", move || Shared(keeper.clone()))
}

fn serial(keeper: Keeper) -> ChildSpec {
    ChildSpec::stateful("keeper", move || Serial(keeper.clone()))
}

#[tokio::test(start_paused = true)]
async fn an_idle_life_that_says_it_is_over_is_restarted_with_its_cause() {
    let mut stage = stage(false, shared).await;
    stage.gate.send_replace(true);
    let first = stage.lines.recv().await.unwrap();
    first.end(Class::ModelUnavailable);
    let exited =
        stage.events.wait_for(|event| matches!(event, Event::Exited { .. })).await.unwrap();
    assert!(matches!(
        exited.event,
        Event::Exited { incarnation: Incarnation(1), cause: ExitKind::Faulted, .. }
    ));
    let keeper = stage.system.child::<Shared>("root/keeper").unwrap();
    assert_eq!(keeper.call(()).await.unwrap().value, 2);
    // A word about a life that is gone, or a second one, changes nothing.
    first.end(Class::Network);
    let _second = stage.lines.recv().await.unwrap();
    assert_eq!(keeper.call(()).await.unwrap().value, 2);
    stage.system.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_life_that_is_over_before_it_has_started_ends_as_soon_as_it_has() {
    let stage = stage(true, shared).await;
    stage.gate.send_replace(true);
    let keeper = stage.system.child::<Shared>("root/keeper").unwrap();
    assert_eq!(keeper.call(()).await.unwrap().value, 2);
    stage.system.stop().await;
}

#[tokio::test(start_paused = true)]
async fn attempts_of_a_stateless_life_that_is_over_end_by_themselves() {
    let mut stage = stage(false, shared).await;
    let keeper = stage.system.child::<Shared>("root/keeper").unwrap();
    let call = tokio::spawn({
        let keeper = keeper.clone();
        async move { keeper.call(()).await }
    });
    assert_eq!(stage.arrived.recv().await, Some(1));
    stage.lines.recv().await.unwrap().end(Class::Network);
    stage.lines.recv().await.unwrap();
    stage.gate.send_replace(true);
    let answer = call.await.unwrap().unwrap();
    assert_eq!((answer.value, answer.attempts), (1, 1));
    stage.system.stop().await;
    assert!(stage.system.fates().is_balanced());
}

#[tokio::test(start_paused = true)]
async fn the_request_of_a_stateful_life_that_is_over_is_handed_to_the_next() {
    let mut stage = stage(false, serial).await;
    let keeper = stage.system.child::<Serial>("root/keeper").unwrap();
    let call = tokio::spawn({
        let keeper = keeper.clone();
        async move { keeper.call(()).await }
    });
    assert_eq!(stage.arrived.recv().await, Some(1));
    stage.lines.recv().await.unwrap().end(Class::Network);
    assert_eq!(stage.arrived.recv().await, Some(2));
    stage.gate.send_replace(true);
    assert_eq!(call.await.unwrap().unwrap().value, 2);
    stage.system.stop().await;
    assert!(stage.system.fates().is_balanced());
}
