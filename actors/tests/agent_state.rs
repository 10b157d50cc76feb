//! What an agent has done stays done: over crashes, rollbacks and the end of the process.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use mainstay::checkpoint::{FileStore, MemoryStore, Scope, Store};
use mainstay::event::Event;
use mainstay::fate::Fate;
use mainstay::fault::{Class, EffectKind, Fault};
use mainstay::journal::Journaled;
use mainstay::port::{CallOptions, Verified};
use mainstay::spec::acting::AtRunTime;
use mainstay::spec::{ChildSpec, GroupSpec, SupervisorSpec};
use mainstay::system::{System, To};
use mainstay_actors::agent::{Agent, AgentReply, AgentRequest, AgentTool, Reach, Team};
use mainstay_actors::chat::{ChatReply, ChatRequest, Role, ToolCall, ToolSpec};
use mainstay_actors::tool::{ToolContext, tool};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::runtime::Runtime;

use world::{AgentPort, Brain, World, desk, one_after_the_other, pay, payer, payments, results};

// Beside this file it would be a test of its own.
#[path = "agent/world.rs"]
mod world;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

fn port(system: &System) -> AgentPort {
    system.port::<AgentRequest, AgentReply>("desk/agent").unwrap()
}

/// Waits for the fate of the request under this key.
async fn fate(system: &System, key: &str) -> (Fate, Option<String>) {
    let mut events = system.events();
    loop {
        if let Some(Journaled::Fated(fate, reply)) = system.journaled(key) {
            return (fate, reply);
        }
        events.next().await.unwrap();
    }
}

#[test]
fn a_conversation_goes_on_in_another_process_wherever_the_first_one_ended() {
    // Before anything was done, between two payments, before the answer; within a payment.
    let points =
        [(Some(0), None), (Some(1), None), (Some(2), None), (None, Some(1)), (None, Some(2))];
    for (model, tool) in points {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let world = Arc::new(World::default());
        (*world.hang_model.lock(), *world.hang_tool.lock()) = (model, tool);
        let spec = || desk(&world, EffectKind::Idempotent, one_after_the_other, true);
        runtime().block_on(async {
            let (system, _) = System::recover(spec(), Arc::clone(&store)).await.unwrap();
            port(&system).submit("go", CallOptions::new().key("job")).await.unwrap();
            world.hung.notified().await;
        });
        // The runtime is gone, and everything in it: nothing was stopped in order.
        let before = world.asked.lock().len();
        runtime().block_on(async {
            let (system, recovered) = System::recover(spec(), Arc::clone(&store)).await.unwrap();
            assert_eq!(recovered.requests, 1);
            let (fate, reply) = fate(&system, "job").await;
            assert_eq!(fate, Fate::Done);
            let reply: AgentReply = serde_json::from_str(&reply.unwrap()).unwrap();
            assert_eq!((&*reply.text, reply.steps), ("paid 1 and 2", 3));
            assert_eq!(reply.tools_used.len(), 2);
        });
        // Only what was under way is asked again: a payment under the key it had.
        let mut paid = world.paid.lock().clone();
        assert_eq!(paid.len(), 2 + usize::from(tool.is_some()), "{model:?} {tool:?}");
        paid.dedup();
        assert_eq!(paid.len(), 2, "{model:?} {tool:?}");
        let asked = world.asked.lock();
        assert_eq!(asked.len(), 3 + usize::from(model.is_some()), "{model:?} {tool:?}");
        if model.is_some() {
            assert_eq!(asked[before - 1], asked[before], "the conversation is the same");
        }
    }
}

#[test]
fn a_payment_of_which_nobody_knows_is_not_made_again_by_another_process() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let world = Arc::new(World::default());
    *world.hang_tool.lock() = Some(1);
    let spec = || desk(&world, EffectKind::Irreversible, one_after_the_other, true);
    runtime().block_on(async {
        let (system, _) = System::recover(spec(), Arc::clone(&store)).await.unwrap();
        port(&system).submit("go", CallOptions::new().key("job")).await.unwrap();
        world.hung.notified().await;
    });
    runtime().block_on(async {
        let (system, _) = System::recover(spec(), Arc::clone(&store)).await.unwrap();
        assert_eq!(fate(&system, "job").await.0, Fate::Done);
        assert_eq!(system.effects().open().len(), 1);
        assert_eq!(world.amounts(), [1, 2]);
        let told = world.asked.lock().last().unwrap().clone();
        assert!(told.iter().any(|it| it.text.contains("it may have happened")), "{told:?}");
    });
}

#[tokio::test(start_paused = true)]
async fn an_answered_question_is_replayed_without_asking_the_model_or_paying_again() {
    let world = Arc::new(World::default());
    let spec = desk(&world, EffectKind::Irreversible, one_after_the_other, true);
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (system, _) = System::recover(spec, store).await.unwrap();
    let line = system.checkpoint("desk").await.unwrap();
    port(&system).call_with("go", CallOptions::new().key("first")).await.unwrap();
    assert_eq!((world.amounts(), world.asked.lock().len()), (vec![1, 2], 3));
    let mut events = system.events();
    let report = system.rollback("desk", To::Line(line)).await.unwrap();
    assert_eq!((report.replayed.len(), report.missing.len()), (1, 0));
    port(&system).call_with("go", CallOptions::new().key("second")).await.unwrap();
    assert_eq!(world.amounts(), [1, 2, 1, 2], "those of the second question");
    assert_eq!(world.asked.lock().len(), 6);
    let replayed = Event::Replayed { child: "desk/agent".into(), requests: 1, lost: 0 };
    events.wait_for(|event| *event == replayed).await.unwrap();
}

/// Pays another amount each time it is asked anew.
fn moody(request: &ChatRequest) -> ChatReply {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    match results(request) {
        0 => ChatReply::calls([pay(ASKED.fetch_add(1, Ordering::SeqCst) + 1)]),
        _ => ChatReply::text("paid"),
    }
}

/// Has the expert pay.
fn delegates(request: &ChatRequest) -> ChatReply {
    let arguments = "{\"task\": \"pay\"}".to_owned();
    match results(request) {
        0 => ChatReply::calls([ToolCall { id: "1".into(), name: "expert".into(), arguments }]),
        _ => ChatReply::text("done"),
    }
}

#[test]
fn a_sub_agent_that_begins_anew_is_told_the_same_and_acts_once() {
    let (world, quiet) = (Arc::new(World::default()), Arc::new(World::default()));
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let spec = || {
        let boss = Brain { world: Arc::clone(&quiet), decide: delegates };
        let boss = ChildSpec::stateless("boss_llm", move || boss.clone());
        let offer = AgentTool::offer("expert", "Pays.");
        desk(&world, EffectKind::Idempotent, moody, false)
            .child(AgentTool::new("agent").spec("expert"))
            .child(boss)
            .child(Agent::new("boss_llm").tool(offer, "expert").durable_spec("boss"))
    };
    let boss = |system: &System| system.port::<AgentRequest, AgentReply>("desk/boss").unwrap();
    // Once it has paid.
    *world.hang_model.lock() = Some(1);
    runtime().block_on(async {
        let (system, _) = System::recover(spec(), Arc::clone(&store)).await.unwrap();
        boss(&system).submit("go", CallOptions::new().key("job")).await.unwrap();
        world.hung.notified().await;
    });
    assert_eq!(world.amounts(), [1]);
    runtime().block_on(async {
        let (system, _) = System::recover(spec(), Arc::clone(&store)).await.unwrap();
        assert_eq!(fate(&system, "job").await.0, Fate::Done);
    });
    assert_eq!(world.amounts(), [1], "asked anew it would have paid 2");
    assert_eq!(world.asked.lock().len(), 3, "what had led to nothing is asked for again");
}

#[test]
fn a_durable_sub_agent_goes_on_where_it_stood_and_its_caller_waits_for_it() {
    // Between two payments, and within the second.
    for (model, tool) in [(Some(1), None), (None, Some(2))] {
        let (world, quiet) = (Arc::new(World::default()), Arc::new(World::default()));
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let spec = || {
            let boss = Brain { world: Arc::clone(&quiet), decide: delegates };
            let boss = ChildSpec::stateless("boss_llm", move || boss.clone());
            let offer = AgentTool::offer("expert", "Pays.");
            desk(&world, EffectKind::Idempotent, one_after_the_other, true)
                .child(AgentTool::new("agent").durable_spec("expert"))
                .child(boss)
                .child(Agent::new("boss_llm").tool(offer, "expert").durable_spec("boss"))
        };
        (*world.hang_model.lock(), *world.hang_tool.lock()) = (model, tool);
        runtime().block_on(async {
            let (system, _) = System::recover(spec(), Arc::clone(&store)).await.unwrap();
            let boss = system.port::<AgentRequest, AgentReply>("desk/boss").unwrap();
            boss.submit("go", CallOptions::new().key("job")).await.unwrap();
            world.hung.notified().await;
        });
        let before = world.asked.lock().len();
        runtime().block_on(async {
            let (system, recovered) = System::recover(spec(), Arc::clone(&store)).await.unwrap();
            assert_eq!(recovered.requests, 2, "the boss's and the expert's");
            assert_eq!(fate(&system, "job").await.0, Fate::Done);
        });
        let mut paid = world.amounts();
        paid.dedup();
        assert_eq!(paid, [1, 2]);
        let told = quiet.asked.lock().last().unwrap().last().unwrap().text.clone();
        assert_eq!(told, "\"paid 1 and 2\"");
        // It is not told its task again, nor asked what it had answered.
        let asked = world.asked.lock();
        assert!(asked[before..].iter().all(|messages| messages.len() > 2), "{asked:?}");
    }
}

#[test]
fn an_agent_that_was_started_from_a_template_goes_on_in_the_next_process() {
    let world = Arc::new(World::default());
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let spec = || {
        let clerk = |system: &String| {
            Agent::new("llm")
                .system(system.as_str())
                .tool(ToolSpec::new("pay"), "pay")
                .durable_spec("")
        };
        let crew = SupervisorSpec::dynamic("crew").template("clerk", clerk);
        desk(&world, EffectKind::Idempotent, one_after_the_other, false).supervisor(crew)
    };
    *world.hang_model.lock() = Some(1);
    runtime().block_on(async {
        let (system, _) = System::recover(spec(), Arc::clone(&store)).await.unwrap();
        let crew = system.supervisor("desk/crew").unwrap();
        let ada = crew.start_from("clerk", "ada", &"You are Ada.".to_owned()).await.unwrap();
        let ada = system.port::<AgentRequest, AgentReply>(ada).unwrap();
        ada.submit("go", CallOptions::new().key("job")).await.unwrap();
        world.hung.notified().await;
    });
    runtime().block_on(async {
        let (system, recovered) = System::recover(spec(), Arc::clone(&store)).await.unwrap();
        assert!(recovered.made.len() == 1 && recovered.made[0] == "desk/crew/ada");
        assert_eq!(fate(&system, "job").await.0, Fate::Done);
    });
    assert_eq!(world.amounts(), [1, 2]);
    let asked = world.asked.lock();
    assert!(asked.iter().all(|messages| messages[0].text == "You are Ada."), "{asked:?}");
    assert_eq!(asked.len(), 4, "the one that was never answered is asked again, and no other");
}

#[tokio::test(start_paused = true)]
async fn a_killed_agent_goes_on_where_it_stood() {
    for hang in 0..=2 {
        let world = Arc::new(World::default());
        *world.hang_model.lock() = Some(hang);
        let system =
            System::start(desk(&world, EffectKind::Irreversible, one_after_the_other, false))
                .await
                .unwrap();
        let agent = port(&system);
        let call = tokio::spawn(async move { agent.call("go").await });
        world.hung.notified().await;
        system.kill("desk/agent").unwrap();
        assert_eq!(call.await.unwrap().unwrap().value.text, "paid 1 and 2");
        assert_eq!(world.amounts(), [1, 2]);
        assert_eq!(world.asked.lock().len(), 4);
    }
}

fn three_at_once(request: &ChatRequest) -> ChatReply {
    match results(request) {
        0 => ChatReply::calls([pay(1), pay(2), pay(3)]),
        _ => ChatReply::text("paid"),
    }
}

#[tokio::test(start_paused = true)]
async fn calls_that_are_made_together_settle_one_by_one() {
    let world = Arc::new(World::default());
    *world.hang_tool.lock() = Some(2);
    let spec = desk(&world, EffectKind::Idempotent, three_at_once, false);
    let system = System::start(spec).await.unwrap();
    let agent = port(&system);
    let call = tokio::spawn(async move { agent.call("go").await });
    world.hung.notified().await;
    let mut events = system.events();
    while system.effects().counts().confirmed < 2 {
        events.next().await.unwrap();
    }
    system.kill("desk/agent").unwrap();
    assert_eq!(call.await.unwrap().unwrap().value.text, "paid");
    let mut amounts = world.amounts();
    amounts.sort_unstable();
    assert_eq!(amounts, [1, 2, 2, 3], "only the one under way is asked again");
    let keys: Vec<_> = world.paid.lock().iter().filter(|it| it.0 == 2).cloned().collect();
    assert_eq!(keys[0], keys[1]);
}

/// What was asked of the seats' tools, in order.
type Log = Arc<Mutex<Vec<(&'static str, Value)>>>;

/// An agent that books seats and can cancel. Seat 3 is never free; the answer about seat 7 is lost, the
/// first time; then `look` says this.
fn seats(
    decide: fn(&ChatRequest) -> ChatReply,
    kind: EffectKind,
    look: &'static str,
) -> (SupervisorSpec, Log) {
    let log = Log::default();
    let brain = Brain { world: Arc::default(), decide };
    let here = Arc::clone(&log);
    let book = tool("book", AtRunTime(kind), move |asked: Value, _: ToolContext| {
        let first = here.lock().iter().all(|(_, before)| *before != asked);
        here.lock().push(("book", asked.clone()));
        async move {
            match asked["seat"].as_u64() {
                Some(3) => Err(Fault::business("taken")),
                Some(7) if first => Err(Fault::indeterminate("no answer")),
                _ => Ok(json!({ "ticket": asked["seat"] })),
            }
        }
    });
    let other = |name: &'static str, kind, answer: &'static str| {
        let here = Arc::clone(&log);
        tool(name, AtRunTime(kind), move |asked: Value, _: ToolContext| {
            here.lock().push((name, asked));
            async move { Ok::<_, Fault>(answer) }
        })
    };
    let reach =
        Reach::new("book").undo("cancel", "cancel", |book| json!({ "free": book["seat"] })).verify(
            "look",
            "look",
            |book| json!({ "of": book["seat"] }),
            |answer| match answer.as_str() {
                Some("taken") => Verified::Happened(json!({ "ticket": "found" })),
                Some("free") => Verified::NotHappened,
                _ => Verified::CannotTell,
            },
        );
    let agent = Agent::new("llm").tool(ToolSpec::new("book"), reach);
    let spec = SupervisorSpec::one_for_one("desk")
        .scope(Scope::Transaction)
        .child(ChildSpec::stateless("llm", move || brain.clone()))
        .child(book)
        .child(other("cancel", EffectKind::Idempotent, "cancelled"))
        .child(other("look", EffectKind::Read, look))
        .child(agent.spec("agent"));
    (spec, log)
}

fn book(seat: usize) -> ChatReply {
    let arguments = json!({ "seat": seat }).to_string();
    ChatReply::calls([ToolCall { id: format!("seat-{seat}"), name: "book".to_owned(), arguments }])
}

/// Books 1 and 2, and asks for 3 as long as it may.
fn three_seats(request: &ChatRequest) -> ChatReply {
    book((results(request) + 1).min(3))
}

#[tokio::test(start_paused = true)]
async fn what_an_agent_has_booked_is_cancelled_in_reverse_when_its_transaction_fails() {
    let (spec, log) = seats(three_seats, EffectKind::Compensable, "taken");
    let system = System::start(spec).await.unwrap();
    port(&system).call("go").await.unwrap_err();
    let log = log.lock();
    let cancelled: Vec<_> = log.iter().filter(|(tool, _)| *tool == "cancel").collect();
    assert_eq!(
        cancelled,
        [&("cancel", json!({ "free": 2 })), &("cancel", json!({ "free": 1 }))],
        "{log:?}"
    );
    let booked = log.iter().position(|(tool, _)| *tool == "cancel").unwrap();
    assert_eq!(log[0], ("book", json!({ "seat": 1 })));
    assert!(log[..booked].contains(&("book", json!({ "seat": 3 }))), "{log:?}");
    assert!(log.iter().all(|(tool, _)| *tool != "look"), "nothing was in doubt: {log:?}");
    assert_eq!(system.effects().open(), []);
}

/// Books 7, and says what it was told.
fn seat_seven(request: &ChatRequest) -> ChatReply {
    match request.messages.iter().rfind(|message| message.role == Role::Tool) {
        None => book(7),
        Some(told) => ChatReply::text(told.text.as_str()),
    }
}

#[tokio::test(start_paused = true)]
async fn a_booking_of_which_nobody_knows_is_asked_about() {
    // What `look` says, and what the model is told.
    let cases = [("taken", "{\"ticket\":\"found\"}"), ("free", "nothing has happened")];
    for (look, told) in cases {
        let (spec, log) = seats(seat_seven, EffectKind::Verifiable, look);
        let system = System::start(spec).await.unwrap();
        let answer = port(&system).call("go").await.unwrap();
        assert!(answer.value.text.contains(told), "{look}: {}", answer.value.text);
        let log = log.lock();
        assert_eq!(log.iter().filter(|(tool, _)| *tool == "book").count(), 1, "{log:?}");
        assert_eq!(log[1], ("look", json!({ "of": 7 })), "{log:?}");
        assert_eq!(system.effects().open(), []);
    }
    let (spec, log) = seats(seat_seven, EffectKind::Verifiable, "who knows");
    let system = System::start(spec).await.unwrap();
    let answer = port(&system).call("go").await.unwrap();
    assert!(answer.value.text.contains("may have happened"), "{}", answer.value.text);
    assert_eq!(log.lock().iter().filter(|(tool, _)| *tool == "book").count(), 1);
    assert_eq!(system.effects().open().len(), 1);
}

/// After a rollback it does things the other way round.
fn forgetful(request: &ChatRequest) -> ChatReply {
    let rolled_back = request.messages.iter().any(|it| it.text.contains("taken back"));
    match (results(request), rolled_back) {
        (count @ (0 | 1), false) => ChatReply::calls([pay(count as u32 + 1)]),
        (count @ (0 | 1), true) => ChatReply::calls([pay(2 - count as u32)]),
        _ => ChatReply::text("paid 1 and 2"),
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_rollback_the_model_is_told_once_and_what_stands_is_not_done_again() {
    let world = Arc::new(World::default());
    *world.fail_model.lock() = Some(2);
    let spec = desk(&world, EffectKind::Irreversible, forgetful, false);
    // Elsewhere a ladder that is spent is not climbed again.
    let spec = spec.scope(Scope::Transaction);
    let system = System::start(spec).await.unwrap();
    let mut events = system.events();
    let answer = port(&system).call("go").await.unwrap();
    assert_eq!((&*answer.value.text, answer.value.tools_used.len()), ("paid 1 and 2", 2));
    assert_eq!(world.amounts(), [1, 2]);
    let asked = world.asked.lock();
    let last = asked.last().unwrap();
    let notes: Vec<_> = last.iter().filter(|it| it.text.contains("taken back")).collect();
    assert_eq!(notes.len(), 1);
    assert_eq!(notes[0].role, Role::System);
    // Many servers refuse a system message that is not the first.
    assert!(last.iter().skip(1).all(|it| it.role != Role::System), "{last:?}");
    for amount in [1, 2] {
        assert!(notes[0].text.contains(&format!("{{\\\"amount\\\": {amount}}}")), "{notes:?}");
    }
    // Served from the record, the results are those of the payments.
    assert!(last.iter().any(|it| it.role == Role::Tool && it.text == "\"paid 2\""), "{last:?}");
    let rolled_back = std::iter::from_fn(|| events.try_next())
        .filter(|it| matches!(it.event, Event::RolledBack { kept: 2, .. }));
    assert_eq!(rolled_back.count(), 1);
}

/// Pays 1, and once more when it does not hear that it was paid.
fn stubborn(request: &ChatRequest) -> ChatReply {
    match results(request) {
        0 => ChatReply::calls([pay(1)]),
        _ => ChatReply::text("asked for it"),
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_rollback_what_nobody_knows_is_refused() {
    let world = Arc::new(World::default());
    (*world.hang_tool.lock(), *world.fail_model.lock()) = (Some(1), Some(1));
    let spec = desk(&world, EffectKind::Irreversible, stubborn, false).scope(Scope::Transaction);
    let system = System::start(spec).await.unwrap();
    let answer = port(&system).call("go").await.unwrap();
    assert_eq!(world.amounts(), [1]);
    assert_eq!(answer.value.tools_used[0].failed, Some(Class::Indeterminate));
    let asked = world.asked.lock();
    let last = &asked.last().unwrap().last().unwrap().text;
    assert!(last.contains("outcome_unknown"), "{last}");
    assert_eq!(system.effects().open().len(), 1);
}

/// Pays 2 first, and then 1.
fn other_way_round(request: &ChatRequest) -> ChatReply {
    match results(request) {
        count @ (0 | 1) => ChatReply::calls([pay(2 - count as u32)]),
        _ => ChatReply::text("paid 2 and 1"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_stands_in_is_told_what_the_other_has_done_and_does_not_do_it_again() {
    let world = Arc::new(World::default());
    // The first has paid 1 by then.
    *world.fail_model.lock() = Some(1);
    let brain = |decide| {
        let brain = Brain { world: Arc::clone(&world), decide };
        move || brain.clone()
    };
    let flow = GroupSpec::step("agent")
        .member_spec(payer("first_llm").spec("first"))
        .member_spec(payer("second_llm").spec("second"));
    let spec = SupervisorSpec::one_for_one("desk")
        .child(ChildSpec::stateless("first_llm", brain(one_after_the_other)))
        .child(ChildSpec::stateless("second_llm", brain(other_way_round)))
        .child(payments(&world, EffectKind::Irreversible))
        .group(flow);
    let system = System::start(spec).await.unwrap();
    let answer = port(&system).call("go").await.unwrap();
    assert_eq!(
        (&*answer.value.text, answer.served_by.as_str()),
        ("paid 2 and 1", "desk/agent/second")
    );
    assert_eq!(world.amounts(), [1, 2]);
    let asked = world.asked.lock();
    let last = asked.last().unwrap();
    let notes: Vec<_> = last.iter().filter(|it| it.text.contains("taken back")).collect();
    assert_eq!(notes.len(), 1, "{last:?}");
    assert!(notes[0].text.contains("{\\\"amount\\\": 1}"), "{notes:?}");
    // What it asked for in another step than the first is served from the record.
    assert!(last.iter().any(|it| it.role == Role::Tool && it.text == "\"paid 1\""), "{last:?}");
}

/// Pays 1, and says what it was told.
fn pays_one(request: &ChatRequest) -> ChatReply {
    match request.messages.iter().rfind(|message| message.role == Role::Tool) {
        None => ChatReply::calls([pay(1)]),
        Some(told) => ChatReply::text(told.text.as_str()),
    }
}

#[test]
fn an_agent_that_takes_over_from_another_process_hears_what_the_question_says() {
    for (look, told, open) in
        [("paid", "found", 0), ("not paid", "paid 1", 0), ("who knows", "outcome_unknown", 1)]
    {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let (world, second) = (Arc::new(World::default()), Arc::new(World::default()));
        // The first is away at first, and the second hangs in its payment.
        (*world.fail_model.lock(), *world.hang_tool.lock()) = (Some(0), Some(1));
        let looks = Arc::new(AtomicU32::new(0));
        let spec = || {
            let brain = |world: &Arc<World>| {
                let brain = Brain { world: Arc::clone(world), decide: pays_one };
                move || brain.clone()
            };
            let reach =
                Reach::new("pay").verify("look", "look", Value::clone, |it| match it.as_str() {
                    Some("paid") => Verified::Happened(json!("found")),
                    Some("not paid") => Verified::NotHappened,
                    _ => Verified::CannotTell,
                });
            let agent = |model| Agent::new(model).tool(ToolSpec::new("pay"), reach.clone());
            let count = Arc::clone(&looks);
            let look =
                tool("look", AtRunTime(EffectKind::Read), move |_: Value, _: ToolContext| {
                    count.fetch_add(1, Ordering::SeqCst);
                    async move { Ok::<_, Fault>(look) }
                });
            let flow = GroupSpec::step("agent")
                .member_spec(agent("first_llm").spec("first"))
                .member_spec(agent("second_llm").spec("second"))
                .durable::<Agent>();
            SupervisorSpec::one_for_one("desk")
                .child(ChildSpec::stateless("first_llm", brain(&world)))
                .child(ChildSpec::stateless("second_llm", brain(&second)))
                .child(payments(&world, EffectKind::Verifiable))
                .child(look)
                .group(flow)
        };
        runtime().block_on(async {
            let (system, _) = System::recover(spec(), Arc::clone(&store)).await.unwrap();
            port(&system).submit("go", CallOptions::new().key("k")).await.unwrap();
            world.hung.notified().await;
        });
        runtime().block_on(async {
            let (system, _) = System::recover(spec(), Arc::clone(&store)).await.unwrap();
            let (fate, reply) = fate(&system, "k").await;
            let reply = reply.unwrap_or_default();
            assert!(fate == Fate::Done && reply.contains(told), "{look}: {fate:?} {reply}");
            assert_eq!(looks.load(Ordering::SeqCst), 1, "{look}");
            assert_eq!(system.effects().open().len(), open, "{look}");
        });
    }
}

fn restless(request: &ChatRequest) -> ChatReply {
    ChatReply::calls([pay(results(request) as u32)])
}

#[tokio::test(start_paused = true)]
async fn a_task_that_ended_by_its_own_limit_is_not_worked_on_again() {
    let world = Arc::new(World::default());
    let spec = desk(&world, EffectKind::Irreversible, restless, false);
    let system = System::start(spec).await.unwrap();
    let error = port(&system).call("go").await.unwrap_err();
    assert!(error.to_string().contains("no answer within 8 steps"), "{error}");
    assert_eq!(world.asked.lock().len(), 8);
    // The next task is another matter.
    assert!(port(&system).call("go").await.is_err());
    assert_eq!(world.asked.lock().len(), 16);
}

/// Never comes to an end with the first task, and goes about the second as [`forgetful`].
fn restless_once(request: &ChatRequest) -> ChatReply {
    let is_first = request.messages.iter().any(|it| it.role == Role::User && it.text == "first");
    if is_first { restless(request) } else { forgetful(request) }
}

#[tokio::test(start_paused = true)]
async fn what_has_ended_a_task_does_not_end_the_next_one_under_its_key() {
    let world = Arc::new(World::default());
    let spec = desk(&world, EffectKind::Irreversible, restless_once, false);
    let system = System::start(spec.scope(Scope::Transaction)).await.unwrap();
    let ask = |text: &'static str| {
        let port = port(&system);
        async move { port.call_with(text, CallOptions::new().key("k")).await }
    };
    let error = ask("first").await.unwrap_err();
    assert!(error.to_string().contains("no answer within 8 steps"), "{error}");
    // It is rolled back on its way.
    *world.fail_model.lock() = Some(2);
    let answer = ask("second").await.unwrap();
    assert_eq!(answer.value.text, "paid 1 and 2");
}

const PLACE: &str = "MAINSTAY_TEST_AGENT_PLACE";
const HANG: &str = "MAINSTAY_TEST_AGENT_HANG";

/// The other process: takes the task up or goes on with it, and prints the answer.
fn child(place: &Path) {
    let world = Arc::new(World { file: Some(place.join("world")), ..World::default() });
    *world.hang_model.lock() = std::env::var(HANG).ok().and_then(|at| at.parse().ok());
    let spec = desk(&world, EffectKind::Irreversible, one_after_the_other, true);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store: Arc<dyn Store> = Arc::new(FileStore::open(place.join("store")).unwrap());
        let (system, _) = System::recover(spec, store).await.unwrap();
        if system.journaled("job").is_none() {
            port(&system).submit("go", CallOptions::new().key("job")).await.unwrap();
        }
        let (fate, reply) = fate(&system, "job").await;
        println!("\nended {fate} {}", reply.unwrap());
    });
}

#[test]
fn a_conversation_survives_kill_9() {
    // This test is its own child process.
    if let Some(place) = std::env::var_os(PLACE) {
        return child(Path::new(&place));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for hang in 0..=2 {
        let place =
            std::env::temp_dir().join(format!("mainstay-agent-{}-{hang}", std::process::id()));
        std::fs::create_dir_all(&place).unwrap();
        let run = |hang: Option<i32>| {
            let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
            command
                .args(["--exact", "a_conversation_survives_kill_9", "--nocapture"])
                .env(PLACE, &place)
                .envs(hang.map(|at| (HANG, at.to_string())))
                .stdout(Stdio::piped())
                .kill_on_drop(true);
            command.spawn().unwrap()
        };
        let lines = runtime.block_on(async {
            let work = async {
                let mut first = run(Some(hang));
                let mut out = BufReader::new(first.stdout.take().unwrap()).lines();
                while !out.next_line().await.unwrap().expect("it ended early").contains("hangs") {}
                // SIGKILL, in the middle of a conversation.
                first.kill().await.unwrap();
                let second = run(None).wait_with_output().await.unwrap();
                let out = String::from_utf8(second.stdout).unwrap();
                assert!(second.status.success(), "{out}");
                assert!(out.contains("ended done"), "{out}");
                assert!(out.contains("paid 1 and 2"), "{out}");
            };
            tokio::time::timeout(Duration::from_secs(60), work).await.unwrap();
            std::fs::read_to_string(place.join("world")).unwrap()
        });
        let count = |what: &str| lines.lines().filter(|line| line.starts_with(what)).count();
        for amount in ["paid 1 ", "paid 2 "] {
            assert_eq!(count(amount), 1, "{lines}");
        }
        // Only the question that was not answered is asked again, and asked as it was.
        assert_eq!(count("asked"), 4, "{lines}");
        assert_eq!(count(&format!("asked {hang}")), 2, "{lines}");
        std::fs::remove_dir_all(&place).unwrap();
    }
}

/// Who asks gives a task to a crew that books 1 and 2, and is refused.
fn employer(request: &ChatRequest) -> ChatReply {
    match results(request) {
        0 => ChatReply::calls([ToolCall {
            id: "crew".to_owned(),
            name: "crew".to_owned(),
            arguments: r#"{"task":"book"}"#.to_owned(),
        }]),
        // There is no such tool, as often as it is asked for.
        _ => book(3),
    }
}

fn two_seats(request: &ChatRequest) -> ChatReply {
    match results(request) {
        done @ (0 | 1) => book(done + 1),
        _ => ChatReply::text("booked"),
    }
}

/// An agent whose crew books seats in its transaction, that has no step left once it has; what was booked and cancelled,
/// and whether the next cancellation is answered.
fn employers(
    reach: Reach,
    log: &Log,
    hang: &Arc<AtomicBool>,
    durable: bool,
) -> (SupervisorSpec, Team) {
    let said = |name: &'static str, kind| {
        let (log, hang) = (Arc::clone(log), Arc::clone(hang));
        tool(name, AtRunTime(kind), move |asked: Value, _: ToolContext| {
            log.lock().push((name, asked.clone()));
            let hangs = name == "cancel" && hang.swap(false, Ordering::SeqCst);
            async move {
                if hangs {
                    std::future::pending::<()>().await;
                }
                Ok::<_, Fault>(asked)
            }
        })
    };
    let cancel = Reach::new("book").undo("cancel", "cancel", Value::clone);
    let crew = Agent::new("crew_llm").tool(ToolSpec::new("book"), cancel);
    let team = Team::new(crew.clone());
    let brain = |decide| {
        let brain = Brain { world: Arc::default(), decide };
        move || brain.clone()
    };
    let agent = Agent::new("llm").tool(Team::offer("crew", "Books."), reach);
    let spec = SupervisorSpec::one_for_one("desk")
        .scope(Scope::Transaction)
        .child(ChildSpec::stateless("llm", brain(employer)))
        .child(ChildSpec::stateless("crew_llm", brain(two_seats)))
        .child(said("book", EffectKind::Compensable))
        .child(said("cancel", EffectKind::Idempotent))
        .supervisor(SupervisorSpec::dynamic("crews"))
        .child(agent.durable_spec("agent"));
    let spec = match durable {
        true => spec
            .child(crew.durable_spec("of_its_own"))
            .child(AgentTool::new("of_its_own").durable_spec("crew")),
        false => spec.child(team.spec("crew")),
    };
    (spec, team)
}

#[tokio::test(start_paused = true)]
async fn what_a_sub_agent_has_done_is_undone_when_the_question_that_led_to_it_fails() {
    let stays = [("book", json!({ "seat": 1 })), ("book", json!({ "seat": 2 }))];
    let undone = [("cancel", json!({ "seat": 2 })), ("cancel", json!({ "seat": 1 }))];
    for (reach, durable, expected, open) in [
        (Reach::agent("crew", "crew"), false, [&stays[..], &undone].concat(), 0),
        (Reach::new("crew"), false, stays.to_vec(), 1),
        // Nor does it do the task once more.
        (Reach::agent("crew", "crew"), true, stays.to_vec(), 1),
    ] {
        let (log, hang) = (Log::default(), Arc::default());
        let (spec, team) = employers(reach, &log, &hang, durable);
        let (system, _) = System::recover(spec, Arc::new(MemoryStore::new())).await.unwrap();
        team.attach(&system, "desk/crews");
        port(&system).call("go").await.unwrap_err();
        let booked: Vec<_> = log.lock().clone();
        assert_eq!(booked, expected);
        assert_eq!(system.effects().open().len(), open);
        system.stop().await;
    }
}

#[test]
fn the_next_process_goes_on_with_undoing_what_a_sub_agent_has_done() {
    let again = [("book", 1), ("book", 2), ("cancel", 2), ("cancel", 1)];
    for is_left in [true, false] {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let (log, hang) = (Log::default(), Arc::new(AtomicBool::new(true)));
        let begin = async || {
            let (spec, team) = employers(Reach::agent("crew", "crew"), &log, &hang, false);
            let (system, _) = System::recover(spec, Arc::clone(&store)).await.unwrap();
            team.attach(&system, "desk/crews");
            system
        };
        let first = runtime();
        first.block_on(async {
            let system = begin().await;
            let mut events = system.events();
            let agent = port(&system);
            let key = CallOptions::new().key("k");
            let call =
                tokio::spawn(async move { agent.call_with(AgentRequest::new("go"), key).await });
            while log.lock().len() < 3 {
                events.next().await.unwrap();
            }
            if is_left {
                // It has its fate, and what it did is being undone.
                call.abort();
                fate(&system, "k").await;
            }
        });
        drop(first);
        assert_eq!(log.lock().len(), 3, "the later one is being cancelled");
        runtime().block_on(async {
            let system = begin().await;
            fate(&system, "k").await;
            let mut events = system.events();
            while system.effects().counts().compensated < 3 {
                events.next().await.unwrap();
            }
            assert_eq!(system.effects().open(), []);
            system.stop().await;
        });
        let seat = |(name, asked): &(_, Value)| (*name, asked["seat"].as_u64().unwrap());
        let done: Vec<(&str, u64)> = log.lock().iter().map(seat).collect();
        assert_eq!(done[..5], [&again[..3], &again[2..]].concat());
        // A question that is still open may be gone on with: from its beginning.
        assert!(done[5..].chunks(4).all(|it| *it == again && !is_left), "{done:?}");
    }
}
