//! Agents that work in steps: what a step that is tried again keeps, what a new life forgets, what may
//! not be called twice, and when their clock stands still.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use mainstay::behavior::{Behavior, Context, Stateful, Step, Turn};
use mainstay::error::CallError;
use mainstay::event::Event;
use mainstay::family::Shutdown;
use mainstay::fault::{EffectKind, Fault};
use mainstay::policy::Policy;
use mainstay::port::{Needs, Port};
use mainstay::spec::{ChildSpec, SupervisorSpec};
use mainstay::system::System;

#[path = "attack_support/support.rs"]
mod support;

use support::{Act, Clerk, Hand, Log, ms, pass, script, secs};

fn hand(
    log: &Arc<Log>,
    act: impl Fn(u64, &Context) -> Act + Send + Sync + 'static,
) -> impl Fn() -> Hand + Send + Sync + 'static {
    let hand = Hand { script: script(act), log: Arc::clone(log) };
    move || hand.clone()
}

fn clerk(
    log: &Arc<Log>,
    act: impl Fn(u64, &Context) -> Act + Send + Sync + 'static,
) -> impl Fn() -> Clerk + Send + Sync + 'static {
    let clerk = Clerk { script: script(act), log: Arc::clone(log) };
    move || clerk.clone()
}

fn port(system: &System, path: &str) -> Port<u64, u64> {
    system.port(path).unwrap()
}

/// Calls `tool` in one step and works on alone in the next, which `then` decides.
#[derive(Clone)]
struct Agent {
    turns: Arc<std::sync::Mutex<Vec<&'static str>>>,
    then: fn(u32) -> Option<u64>,
    again: Arc<AtomicU32>,
}

impl Behavior for Agent {
    type Request = u64;
    type Reply = u64;
    fn needs() -> Needs {
        Needs::none().needs::<Port<u64, u64>>("tool")
    }
}

impl Stateful for Agent {
    async fn step(&mut self, id: &u64, turn: Turn, ctx: &Context) -> Result<Step<u64>, Fault> {
        let Turn::Performed(outcomes) = turn else {
            self.turns.lock().unwrap().push("first");
            return Ok(Step::Perform(vec![ctx.port::<u64, u64>("tool")?.ask(*id)]));
        };
        self.turns.lock().unwrap().push("performed");
        let value = *outcomes.get::<u64>(0)?.value;
        match (self.then)(self.again.fetch_add(1, Ordering::Relaxed)) {
            Some(0) => Err(Fault::network("once")),
            Some(u64::MAX) => pending().await,
            Some(millis) => {
                pass(millis).await;
                Ok(Step::Reply(value))
            }
            None => Ok(Step::Reply(value)),
        }
    }
}

async fn agent(
    then: fn(u32) -> Option<u64>,
    effect: EffectKind,
    log: &Arc<Log>,
) -> (System, Agent) {
    let agent = Agent { turns: Arc::default(), then, again: Arc::default() };
    let made = agent.clone();
    let system = System::start(
        SupervisorSpec::one_for_all("top")
            .policy(Policy::playbook_exact())
            .child(
                ChildSpec::stateless("tool", hand(log, |_, _| Act::ReplyAfter(40_000)))
                    .effect(effect)
                    .attempt_timeout(secs(60)),
            )
            .child(ChildSpec::stateful("falls", clerk(log, |_, _| Act::Reply)))
            .child(
                ChildSpec::stateful("agent", move || made.clone())
                    .shutdown(Shutdown::Timeout(ms(10))),
            ),
    )
    .await
    .unwrap();
    (system, agent)
}

#[tokio::test(start_paused = true)]
async fn a_step_that_is_tried_again_keeps_what_its_calls_brought() {
    let log = Arc::new(Log::default());
    let (system, agent) = agent(|n| (n == 0).then_some(0), EffectKind::Read, &log).await;
    let answer = port(&system, "top/agent").call(1u64).await.unwrap();
    assert_eq!((answer.value, answer.attempts), (1, 2));
    assert_eq!(*agent.turns.lock().unwrap(), ["first", "performed", "performed"]);
    assert_eq!(log.of(1).begun.len(), 1);
    system.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_life_that_follows_a_siblings_restart_starts_its_request_from_the_first_step() {
    let log = Arc::new(Log::default());
    let (system, agent) = agent(|n| (n == 0).then_some(0), EffectKind::Read, &log).await;
    let mut events = system.events();
    let call = tokio::spawn(port(&system, "top/agent").call_once(1));
    // While it backs off, after the step that failed, its life is taken along.
    events.wait_for(|event| matches!(event, Event::Decided { .. })).await;
    system.kill("top/falls").unwrap();
    assert_eq!(call.await.unwrap().unwrap().attempts, 2);
    assert_eq!(*agent.turns.lock().unwrap(), ["first", "performed", "first", "performed"]);
    system.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_called_what_may_not_be_called_twice_is_not_started_over() {
    for brutal in [false, true] {
        let log = Arc::new(Log::default());
        let then = if brutal { |_| Some(u64::MAX) } else { |_| Some(5) };
        let (system, agent) = agent(then, EffectKind::Irreversible, &log).await;
        let call = tokio::spawn(port(&system, "top/agent").call_once(1));
        while agent.again.load(Ordering::Relaxed) == 0 {
            tokio::time::advance(secs(1)).await;
        }
        system.kill("top/falls").unwrap();
        match (brutal, call.await.unwrap()) {
            // It was in its last step and had time to finish it.
            (false, Ok(answer)) => assert_eq!(answer.value, 1),
            (true, Err(CallError::Unknown { .. })) => {}
            (_, other) => panic!("{other:?}"),
        }
        assert_eq!(log.of(1).begun.len(), 1);
        assert_eq!(system.fates().open, 0);
        system.stop().await;
    }
}

trait Once {
    fn call_once(
        self,
        id: u64,
    ) -> impl Future<Output = Result<mainstay::fate::Answer<u64>, CallError<u64>>> + Send + 'static;
}

impl Once for Port<u64, u64> {
    async fn call_once(self, id: u64) -> Result<mainstay::fate::Answer<u64>, CallError<u64>> {
        self.call(id).await
    }
}

/// Each step waits for a slow child by itself, and works a while afterwards.
#[derive(Clone)]
struct Patient(Arc<AtomicU64>);

impl Behavior for Patient {
    type Request = u64;
    type Reply = u64;
    fn needs() -> Needs {
        Needs::none().needs::<Port<u64, u64>>("tool")
    }
}

impl Stateful for Patient {
    async fn step(&mut self, id: &u64, _: Turn, ctx: &Context) -> Result<Step<u64>, Fault> {
        pass(20_000).await;
        ctx.port::<u64, u64>("tool")?.call(*id).await?;
        pass(9_000).await;
        let steps = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(if steps == 4 { Step::Reply(*id) } else { Step::Continue })
    }
}

#[tokio::test(start_paused = true)]
async fn the_clock_of_every_step_stands_still_while_it_waits_for_others() {
    let log = Arc::new(Log::default());
    let system = System::start(
        SupervisorSpec::one_for_one("top")
            .child(
                ChildSpec::stateless("tool", hand(&log, |_, _| Act::ReplyAfter(50_000)))
                    .attempt_timeout(secs(60)),
            )
            .child(ChildSpec::stateful("patient", || Patient(Arc::default()))),
    )
    .await
    .unwrap();
    // Each step works for 29 of its 30 seconds.
    let answer = port(&system, "top/patient").call(1u64).await.unwrap();
    assert_eq!((answer.attempts, answer.elapsed), (1, secs(4 * 79)));
    system.stop().await;
}
