//! An act that is with somebody who does nothing before it is decided.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use mainstay::behavior::{Behavior, Context, Stateless};
use mainstay::event::Event;
use mainstay::fault::{EffectKind, Fault};
use mainstay::port::Port;
use mainstay::spec::{ChildSpec, GroupSpec, Role, SupervisorSpec};
use mainstay::system::System;
use tokio::sync::Notify;

use super::{Agent, Register, Tool, World};

/// Waits for a word before it hands on to the next.
#[derive(Default)]
struct Word {
    given: Notify,
    waits: Notify,
    /// How often it was too late.
    late: AtomicU32,
}

#[derive(Clone)]
struct Gate(Arc<Word>);

impl Behavior for Gate {
    type Request = u32;
    type Reply = u32;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Idempotent);
    const ROLE: Role = Role::Human;
}

impl Stateless for Gate {
    async fn serve(&self, _: &u32, ctx: &Context) -> Result<u32, Fault> {
        let hold = ctx.hold().await?;
        self.0.waits.notify_one();
        self.0.given.notified().await;
        if let Err(fault) = hold.goes_on().await {
            self.0.late.fetch_add(1, Ordering::SeqCst);
            return Err(fault);
        }
        Err(Fault::exhausted("passed on").not_applied())
    }
}

/// An agent, and the tool that it asks: these, and one that acts among them.
async fn desk_of(
    kind: EffectKind,
    before: &[&Arc<Word>],
    after: &[&Arc<Word>],
) -> (System, Arc<World>, Port<u32, u32>) {
    let world = Arc::<World>::default();
    let (agent, register) = (Agent(Arc::clone(&world)), Register(Arc::clone(&world)));
    let tool = Tool(Arc::clone(&world));
    let tool = ChildSpec::stateless("pay", move || tool.clone()).effect(kind);
    let gates = |group: GroupSpec, name: &str, words: &[&Arc<Word>]| {
        words.iter().enumerate().fold(group, |group, (index, word)| {
            let gate = Gate(Arc::clone(word));
            let id = format!("{name}-{index}");
            group.member_spec(ChildSpec::stateless(id, move || gate.clone()))
        })
    };
    let tools = gates(GroupSpec::tool("tool"), "before", before).member_spec(tool);
    let spec = SupervisorSpec::one_for_one("desk")
        .group(gates(tools, "after", after))
        .child(ChildSpec::stateless("register", move || register.clone()))
        .child(ChildSpec::stateful("agent", move || agent.clone()));
    let system = System::start(spec).await.unwrap();
    let port = system.port("desk/agent").unwrap();
    (system, world, port)
}

async fn desk(kind: EffectKind) -> (System, Arc<World>, Arc<Word>, Port<u32, u32>) {
    let word = Arc::<Word>::default();
    let (system, world, port) = desk_of(kind, &[&word], &[]).await;
    (system, world, word, port)
}

const KINDS: [EffectKind; 3] =
    [EffectKind::Verifiable, EffectKind::Compensable, EffectKind::Irreversible];

fn status(system: &System) -> &'static str {
    system.effects().list()[0].status
}

#[tokio::test(start_paused = true)]
async fn it_has_not_happened_until_it_goes_on_and_then_happens_once() {
    for kind in KINDS {
        let (system, world, word, agent) = desk(kind).await;
        let call = tokio::spawn(async move { agent.call(21_u32).await });
        word.waits.notified().await;
        assert_eq!(status(&system), "rejected", "{kind:?}");
        word.given.notify_one();
        assert_eq!(call.await.unwrap().unwrap().value, 42, "{kind:?}");
        assert_eq!(status(&system), "confirmed", "{kind:?}");
        assert_eq!(world.acts.lock().len(), 1, "{kind:?}");
    }
}

/// Each of them is the first who could have done something.
#[tokio::test(start_paused = true)]
async fn it_is_held_by_each_of_several_before_it() {
    let words = [Arc::<Word>::default(), Arc::<Word>::default()];
    let kind = EffectKind::Irreversible;
    let (system, world, agent) = desk_of(kind, &[&words[0], &words[1]], &[]).await;
    let call = tokio::spawn(async move { agent.call(21_u32).await });
    for word in &words {
        word.waits.notified().await;
        assert_eq!(status(&system), "rejected");
        word.given.notify_one();
    }
    assert_eq!(call.await.unwrap().unwrap().value, 42);
    assert_eq!((status(&system), world.acts.lock().len()), ("confirmed", 1));
}

/// The next life has it held, too: as another attempt, or as the one that was interrupted.
#[tokio::test(start_paused = true)]
async fn it_stays_held_when_the_life_that_has_it_ends() {
    for kind in KINDS {
        let (system, world, word, agent) = desk(kind).await;
        let call = tokio::spawn(async move { agent.call(21_u32).await });
        word.waits.notified().await;
        system.kill("desk/tool/before-0").unwrap();
        word.waits.notified().await;
        assert_eq!(status(&system), "rejected", "{kind:?}");
        word.given.notify_one();
        assert_eq!(call.await.unwrap().unwrap().value, 42, "{kind:?}");
        assert_eq!(status(&system), "confirmed", "{kind:?}");
        assert_eq!(world.acts.lock().len(), 1, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_be_repeated_is_not_held() {
    let (system, world, word, agent) = desk(EffectKind::Idempotent).await;
    let call = tokio::spawn(async move { agent.call(21_u32).await });
    word.waits.notified().await;
    assert_eq!(status(&system), "intended");
    word.given.notify_one();
    assert_eq!(call.await.unwrap().unwrap().value, 42);
    assert_eq!(world.acts.lock().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn it_does_not_happen_any_more_once_its_asker_has_left() {
    for kind in KINDS {
        let (system, world, word, agent) = desk(kind).await;
        let mut events = system.events();
        let asks = agent.clone();
        let call = tokio::spawn(async move { asks.call(21_u32).await });
        word.waits.notified().await;
        call.abort();
        let leaves = |event: &Event| matches!(event, Event::Fated { .. });
        events.wait_for(leaves).await.unwrap();
        word.given.notify_one();
        system.stop().await;
        assert!(world.acts.lock().is_empty(), "{kind:?}");
        assert!(system.effects().open().is_empty(), "{kind:?}");
    }
}

/// Whether it has happened nobody knows by then.
#[tokio::test(start_paused = true)]
async fn what_somebody_else_has_had_before_is_not_held() {
    for kind in [EffectKind::Compensable, EffectKind::Irreversible] {
        let word = Arc::<Word>::default();
        let (system, world, agent) = desk_of(kind, &[], &[&word]).await;
        *world.fail.lock() = Some(Fault::exhausted("it broke half-way"));
        let call = tokio::spawn(async move { agent.call(21_u32).await });
        word.waits.notified().await;
        assert_eq!(status(&system), "intended", "{kind:?}");
        drop(call);
    }
}
