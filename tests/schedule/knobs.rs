//! Every option of a policy, a group and a call, each with a test that fails when it is ignored.
//!
//! What an option does to the judgement alone is tested beside the judgement; here the running tree is
//! asked, from outside.

use std::sync::Arc;

use mainstay::behavior::{Step, Turn};
use mainstay::circuit::CircuitSpec;
use mainstay::error::{SpecError, StartError};
use mainstay::fate::Cost;
use mainstay::fault::ExitKind;
use mainstay::policy::budget::Limits;
use mainstay::policy::{Capabilities, Grant, Jitter, What};
use mainstay::spec::BetweenLives;
use mainstay::system::SystemOptions;
use parking_lot::Mutex;

use super::siblings::{exact, member};
use super::*;

/// When a child that always fails so is tried under this policy.
async fn tried(class: Class, policy: Policy) -> Vec<u64> {
    let script = echo();
    script.otherwise_fail(class);
    let (_system, port) = alone(&script, |spec| spec.policy(policy)).await;
    trail(port.call("x").await);
    times(&script)
}

#[tokio::test(start_paused = true)]
async fn a_rule_a_cap_and_a_backoff_of_a_class_are_kept() {
    let exact = Policy::playbook_exact;
    assert_eq!(tried(Class::Network, exact().with_cap(Class::Network, 1)).await, [0, 1000]);
    assert_eq!(tried(Class::Network, exact().with_cap(Class::Network, 0)).await, [0]);
    let fixed = exact().with_backoff(Class::Network, Backoff::Fixed(ms(40)));
    assert_eq!(tried(Class::Network, fixed).await, [0, 40, 80, 120]);
    let tripling = Backoff::Exponential { base: ms(100), factor: 3.0 };
    let rule = exact().with_rule(Class::ToolExecution, Rule::new(3, tripling));
    assert_eq!(tried(Class::ToolExecution, rule).await, [0, 100, 400, 1300]);
    // Of one class only.
    let other = exact().with_cap(Class::Timeout, 1);
    assert_eq!(tried(Class::Network, other).await, schedule(Class::Network));
}

#[tokio::test(start_paused = true)]
async fn the_longest_wait_clamps_a_schedule_and_what_is_asked_for() {
    let policy = Policy::playbook_exact().with_max_delay(ms(1500));
    assert_eq!(tried(Class::Network, policy.clone()).await, [0, 1000, 2500, 4000]);
    let script = echo();
    script.then_fault(limited("retry-after", "2"));
    let (_system, port) = alone(&script, |spec| spec.policy(policy)).await;
    trail(port.call("x").await);
    assert_eq!(times(&script), [0]);
}

#[tokio::test(start_paused = true)]
async fn the_global_cap_can_be_lowered_and_raised_only_by_name() {
    let one = Policy::playbook_exact()
        .with_cap(Class::Network, 1)
        .with_cap(Class::ServerTransient, 1)
        .with_cap(Class::Timeout, 1)
        .with_cap(Class::Indeterminate, 1)
        .with_cap(Class::ToolExecution, 1)
        .with_global_cap(1);
    let script = echo();
    script.then_fail(Class::Network);
    script.then_fail(Class::Timeout);
    let (_system, port) = alone(&script, |spec| spec.policy(one)).await;
    let trail = trail(port.call("x").await);
    assert_eq!(declined(&trail, Rung::Retry), Some(Declined::GlobalCap { cap: 1 }));

    let five = Policy::playbook_exact().with_global_cap(5).with_cap(Class::Network, 5);
    let spec = echo().stateless("it").policy(five.clone());
    let refused = System::start(SupervisorSpec::one_for_one("root").child(spec)).await;
    let Err(StartError::Spec(SpecError::OutOfRange { path, value, .. })) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((&*path, &*value), ("root/it", "5"));
    let five = five.with_delivery_cap(6).unsafe_limits();
    assert_eq!(tried(Class::Network, five).await, [0, 1000, 3000, 7000, 15_000, 31_000]);
}

/// Keeps what is logged on this thread, from the level of warnings on.
struct Warnings(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = String::new();
        event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            line += &format!("{field}={value:?} ");
        });
        self.0.lock().push(line);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test(start_paused = true)]
async fn whoever_runs_without_the_ceilings_of_safety_is_named_in_the_log() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let _guard = tracing::subscriber::set_default(Warnings(Arc::clone(&lines)));
    let script = echo();
    let root = SupervisorSpec::one_for_one("root")
        .child(script.stateless("safe"))
        .child(script.stateless("bold").policy(Policy::default().unsafe_limits()));
    let _system = System::start(root).await.unwrap();
    let text = "message=policy without the ceilings of safety child=root/bold ";
    assert_eq!(*lines.lock(), [text]);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_timeout_and_the_grace_after_it_are_kept() {
    let script = echo();
    script.then_hang();
    let policy = Policy::playbook_exact().with_attempt_timeout(secs(2));
    let (_system, port) = alone(&script, |spec| spec.policy(policy)).await;
    port.call("x").await.unwrap();
    assert_eq!(times(&script), [0, 2500]);
    // The child's own comes before its policy's.
    let script = echo();
    script.then_hang();
    let (_system, port) = alone(&script, |spec| spec.attempt_timeout(secs(3))).await;
    port.call("x").await.unwrap();
    assert_eq!(times(&script), [0, 3500]);
    // What does not even yield is a hang when the grace is over, and its life ends. It blocks a
    // thread of its own, so the clock of this one goes on.
    let script = echo();
    script.then_block_until_released();
    let policy = Policy::playbook_exact().with_hang_grace(secs(7));
    let (system, port) =
        alone(&script, |spec| spec.policy(policy).attempt_timeout(secs(3)).blocking()).await;
    let mut events = system.events();
    // Its answer would come by a real thread, for which the paused clock does not wait.
    port.cast("x").unwrap();
    // Nor for its beginning: the clock stands while somebody runs, and what is late is not begun.
    while times(&script).is_empty() {
        tokio::task::yield_now().await;
    }
    let zombie = events.wait_for(|event| matches!(event, Event::Zombie { .. })).await.unwrap();
    script.release();
    assert_eq!(whole(zombie.at.since_start()), 10_000);
}

#[tokio::test(start_paused = true)]
async fn the_least_time_of_an_attempt_decides_what_the_deadline_leaves_room_for() {
    for (least, expected) in [(secs(1), &[0_u64, 1000][..]), (secs(2), &[0])] {
        let script = echo();
        script.then_fail(Class::Network);
        let policy = Policy::playbook_exact().with_min_attempt(least);
        let (_system, port) = alone(&script, |spec| spec.policy(policy)).await;
        let _ = port.call_with("x", CallOptions::new().deadline(ms(2500))).await;
        assert_eq!(times(&script), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn hand_outs_are_capped_apart_from_retries() {
    let policy = Policy::playbook_exact().with_delivery_cap(2);
    let script = echo();
    script.otherwise_fail(Class::Network);
    let (_system, port) = alone(&script, |spec| spec.policy(policy)).await;
    let trail = trail(port.call("x").await);
    assert_eq!(times(&script), [0, 1000]);
    assert_eq!(declined(&trail, Rung::Retry), Some(Declined::DeliveryCap { cap: 2 }));
}

#[tokio::test(start_paused = true)]
async fn redeliveries_after_a_crash_can_be_forbidden() {
    for (policy, attempts) in
        [(Policy::playbook_exact(), 2), (Policy::playbook_exact().with_crash_redeliveries(0), 1)]
    {
        let script = echo();
        script.then_panic();
        let (system, port) = alone(&script, |spec| spec.policy(policy)).await;
        let outcome = port.call("x").await;
        assert_eq!(script.count(), attempts);
        assert_eq!(outcome.is_ok(), attempts == 2);
        assert_eq!(system.fates().quarantined, 2 - attempts as u64);
    }
}

#[tokio::test(start_paused = true)]
async fn a_chain_of_substitutes_is_as_long_as_the_policy_allows() {
    let (mut group, mut scripts) = (GroupSpec::model("llm"), Vec::new());
    group = group.policy(Policy::playbook_exact().with_depth_limit(1));
    for id in ["a", "b", "c"] {
        let (script, spec) = member(id);
        script.otherwise_fail(Class::ModelUnavailable);
        group = group.member_spec(spec);
        scripts.push(script);
    }
    let (_system, port) = grouped(group).await;
    let trail = trail(port.call("x").await);
    assert_eq!(scripts.iter().map(Script::count).collect::<Vec<_>>(), [1, 1, 0]);
    assert_eq!(declined(&trail, Rung::Substitute), Some(Declined::Depth { limit: 1 }));
}

#[tokio::test(start_paused = true)]
async fn a_class_can_opt_for_the_life_or_the_siblings_instead_of_the_attempt() {
    for (what, own, others) in [(What::Attempt, 1, 1), (What::Life, 2, 1), (What::Siblings, 2, 2)] {
        let (script, neighbor) = (echo(), echo());
        script.then_fail(Class::Network);
        let policy = Policy::playbook_exact().with_what(Class::Network, what);
        let root = SupervisorSpec::one_for_one("root")
            .child(script.stateless("it").policy(policy))
            .child(neighbor.stateless("neighbor"));
        let system = System::start(root).await.unwrap();
        let port = system.port::<String, String>("root/it").unwrap();
        assert_eq!(port.call("x").await.unwrap().attempts, 2);
        assert_eq!((script.lives().len(), neighbor.lives().len()), (own, others), "{what:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_siblings_that_a_class_takes_along_are_those_of_the_supervisors_strategy() {
    for (spec, expected) in [
        (SupervisorSpec::one_for_one("root"), [2, 2, 2]),
        (SupervisorSpec::rest_for_one("root"), [1, 2, 2]),
        (SupervisorSpec::one_for_all("root"), [2, 2, 2]),
    ] {
        let scripts = [echo(), echo(), echo()];
        let policy = Policy::playbook_exact().with_what(Class::Network, What::Siblings);
        scripts[1].then_fail(Class::Network);
        let root = spec
            .child(scripts[0].stateless("before"))
            .child(scripts[1].stateless("it").policy(policy))
            .child(scripts[2].stateless("after"));
        let system = System::start(root).await.unwrap();
        let port = system.port::<String, String>("root/it").unwrap();
        assert_eq!(port.call("x").await.unwrap().attempts, 2);
        // Those after it start again, one after the other, when it is up: wait for the last of them.
        let last = system.port::<String, String>("root/after").unwrap();
        last.call("x").await.unwrap();
        let lives = scripts.each_ref().map(|script| script.lives().len());
        assert_eq!(lives, expected, "{:?}", system.tree().to_string());
    }
}

#[tokio::test(start_paused = true)]
async fn jitter_is_as_wide_as_the_policy_says() {
    let mut latest = 0;
    let policy = Policy::default().with_jitter(Jitter::Ratio { percent: 100 });
    let script = echo();
    let (_system, port) = alone(&script, |spec| spec.policy(policy)).await;
    for _ in 0..10 {
        script.forget();
        script.then_fail(Class::Network);
        port.call("x").await.unwrap();
        let times = times(&script);
        assert!((1000..=2000).contains(&(times[1] - times[0])), "{times:?}");
        latest = latest.max(times[1] - times[0]);
    }
    assert!(latest > 1200, "no more than by default: {latest} ms");
}

#[tokio::test(start_paused = true)]
async fn processes_that_begin_together_do_not_come_back_together_by_their_seeds() {
    let gap = async |seed| {
        let script = echo();
        script.then_fail(Class::Network);
        let root = SupervisorSpec::one_for_one("root").child(script.stateless("a"));
        let options = SystemOptions::new().jitter_seed(seed);
        let system = System::start_with(root, options).await.unwrap();
        system.port::<String, String>("root/a").unwrap().call("x").await.unwrap();
        let times = times(&script);
        times[1] - times[0]
    };
    let mut gaps = std::collections::BTreeSet::new();
    for seed in 0..10 {
        let first = gap(seed).await;
        assert_eq!(gap(seed).await, first, "a run can be repeated");
        gaps.insert(first);
    }
    assert!(gaps.len() > 5, "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn an_allow_list_names_who_may_be_asked() {
    let (a, one) = member("a");
    let (b, two) = member("b");
    let (_, three) = member("c");
    a.otherwise_fail(Class::ModelUnavailable);
    let group = exact().member_spec(one).member_spec(two).member_spec(three).allow("a", ["c"]);
    let (_system, port) = grouped(group).await;
    assert_eq!(port.call("x").await.unwrap().served_by.id(), "c");
    assert_eq!(b.count(), 0);
    // Nobody may be asked for what stands in no list.
    let (a, one) = member("a");
    let (_, two) = member("b");
    a.otherwise_fail(Class::ModelUnavailable);
    let none: [&str; 0] = [];
    let (_system, port) = grouped(exact().member_spec(one).member_spec(two).allow("a", none)).await;
    let trail = trail(port.call("x").await);
    assert_eq!(declined(&trail, Rung::Substitute), Some(Declined::NoFitSibling));
}

#[tokio::test(start_paused = true)]
async fn a_weaker_member_needs_a_grant_and_an_unmonitored_path_is_refused() {
    let group = || {
        let guarded = Capabilities { guardrail: 2, ..Capabilities::default() };
        exact()
            .member_spec(member("guarded").1.capabilities(guarded))
            .member_spec(member("weak").1.capabilities(Capabilities::default()))
    };
    let start = async |group| System::start(SupervisorSpec::one_for_one("root").group(group)).await;
    let refused = start(group()).await.unwrap_err();
    assert!(
        matches!(refused, StartError::Spec(SpecError::Downgrade { member, .. }) if member == "weak")
    );
    let refused = start(group().grant("weak", Grant::new("", "cheap"))).await.unwrap_err();
    assert!(matches!(refused, StartError::Spec(SpecError::GrantWithoutReason { .. })));
    assert!(start(group().grant("weak", Grant::new("ops", "no other is up"))).await.is_ok());
    let (_, only) = member("only");
    let refused = start(exact().member_spec(only).unmonitored()).await.unwrap_err();
    assert!(
        matches!(refused, StartError::Spec(SpecError::Unmonitored { path }) if path == "root/llm")
    );
}

#[tokio::test(start_paused = true)]
async fn a_circuit_opens_as_its_options_say_and_requests_return_by_themselves() {
    let (primary, a) = member("primary");
    let (_, b) = member("sibling");
    primary.otherwise_fail(Class::ModelUnavailable);
    let circuit = CircuitSpec::new().with_threshold(100, 2).with_open(secs(4), secs(4));
    let (system, port) = grouped(exact().member_spec(a).member_spec(b).circuit(circuit)).await;
    let mut events = system.events();
    for n in 0..4 {
        let answer = port.call("x").await.unwrap();
        assert_eq!(
            (answer.served_by.id(), answer.attempts),
            ("sibling", if n < 2 { 2 } else { 1 })
        );
    }
    assert_eq!(primary.count(), 2);
    primary.otherwise_usual();
    tokio::time::advance(secs(4)).await;
    let mut by = Vec::new();
    for _ in 0..3 {
        by.push(port.call("x").await.unwrap().served_by.id().to_owned());
    }
    assert_eq!(by, ["primary", "primary", "primary"]);
    let mut states = Vec::new();
    let mut failback = 0;
    while let Some(stamped) = events.try_next() {
        match stamped.event {
            Event::Circuit { state, .. } => states.push((whole(stamped.at.since_start()), state)),
            Event::Switched { failback: true, .. } => failback += 1,
            _ => {}
        }
    }
    assert_eq!(states, [(0, "open"), (4000, "half-open"), (4000, "closed")]);
    assert_eq!(failback, 1);
}

#[tokio::test(start_paused = true)]
async fn a_group_has_a_deadline_of_its_own_or_the_worst_case_of_its_members() {
    for (deadline, expected) in [
        (Some(secs(40)), 40_000),
        (None, Policy::playbook_exact().worst_case(1).as_millis() as u64),
    ] {
        let (script, spec) = member("only");
        script.otherwise(|| Cue::Hang);
        let mut group = exact().member_spec(spec);
        if let Some(deadline) = deadline {
            group = group.deadline(deadline);
        }
        let (system, port) = grouped(group).await;
        let outcome = port.call("x").await;
        match deadline {
            Some(_) => {
                assert!(matches!(outcome, Err(CallError::Expired { .. })));
                assert_eq!(now(&system), expected);
            }
            // The schedule of a class ends before the worst case of all of them.
            None => assert!(outcome.is_err() && now(&system) < expected),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_in_which_too_many_lives_end_is_given_up_and_one_member_before_that() {
    // Eleven crashes of one member, each of another request.
    let run = async |group: GroupSpec| {
        let (script, spec) = member("only");
        let group = group.member_spec(spec.between_lives(BetweenLives::Wait));
        let root = SupervisorSpec::one_for_one("root").intensity(100, secs(5)).group(group);
        let system = System::start(root).await.unwrap();
        let mut events = system.events();
        for _ in 0..4 {
            script.then_panic();
            script.then_usual();
        }
        let port = system.port::<String, String>("root/llm").unwrap();
        let mut answered = 0;
        for _ in 0..4 {
            let outcome = port.call_with("x", CallOptions::new().deadline(secs(1))).await;
            answered += usize::from(outcome.is_ok());
        }
        let (mut set_aside, mut given_up) = (0, 0);
        while let Some(stamped) = events.try_next() {
            match stamped.event {
                Event::ChildQuarantined { .. } => set_aside += 1,
                Event::Escalated { cause: ExitKind::Panic, .. } => given_up += 1,
                _ => {}
            }
        }
        (answered, set_aside, given_up)
    };
    assert_eq!(run(exact().intensity(9, secs(5))).await, (4, 0, 0));
    // The default limit of a member is the intensity of its group: it is set aside, the group stays.
    let (answered, set_aside, given_up) = run(exact().intensity(1, secs(5))).await;
    assert_eq!((set_aside, given_up), (1, 0));
    assert!(answered < 4);
    let (_, set_aside, given_up) = run(exact().intensity(9, secs(5)).child_limit(2, secs(5))).await;
    assert_eq!((set_aside, given_up), (1, 0));
    // A limit above the intensity leaves it to the group.
    let (_, set_aside, given_up) = run(exact().intensity(1, secs(5)).child_limit(9, secs(5))).await;
    assert_eq!((set_aside, given_up > 0), (0, true));
}

#[tokio::test(start_paused = true)]
async fn a_group_has_its_own_policy_and_else_its_supervisors() {
    for (own, expected) in [(true, vec![0, 1000, 3000, 7000]), (false, vec![0, 1000])] {
        let (script, spec) = member("only");
        script.otherwise_fail(Class::Network);
        let mut group = GroupSpec::model("llm").member_spec(spec);
        if own {
            group = group.policy(Policy::playbook_exact());
        }
        let above = Policy::playbook_exact().with_cap(Class::Network, 1);
        let root = SupervisorSpec::one_for_one("root").policy(above).group(group);
        let system = System::start(root).await.unwrap();
        trail(system.port::<String, String>("root/llm").unwrap().call("x").await);
        assert_eq!(times(&script), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn the_kind_of_a_group_decides_who_counts_as_simpler() {
    for (group, served) in [(GroupSpec::step("llm"), true), (GroupSpec::tool("llm"), false)] {
        let (primary, a) = member("full");
        let (_, b) = member("other");
        primary.otherwise_fail(Class::InputValidation);
        let (_system, port) = grouped(group.member_spec(a).member_spec(b)).await;
        assert_eq!(port.call("x").await.is_ok(), served);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_has_its_own_deadline_and_key() {
    let script = echo();
    script.otherwise_fail(Class::Network);
    let (_system, port) = alone(&script, |spec| spec.deadline(secs(2))).await;
    trail(port.call("x").await);
    assert_eq!(times(&script), [0, 1000]);
    let options = CallOptions::new().deadline(secs(60)).key("order-7");
    trail(port.call_with("y", options).await);
    let keys: Vec<_> = script.attempts().into_iter().map(|attempt| attempt.key).collect();
    assert_eq!(keys.len(), 2 + 4);
    assert!(keys[2..].iter().all(|key| key == "order-7"));
    assert!(keys[0] == keys[1] && keys[0] != "order-7");
}

#[tokio::test(start_paused = true)]
async fn a_call_makes_no_more_attempts_than_its_budget_pays_for() {
    for (attempts, expected) in [(1, vec![0]), (2, vec![0, 1000]), (9, vec![0, 1000, 3000, 7000])] {
        let script = echo();
        script.otherwise_fail(Class::Network);
        let (_system, port) = alone(&script, |spec| spec).await;
        let limits = Limits { attempts: Some(attempts), ..Limits::default() };
        let trail = trail(port.call_with("x", CallOptions::new().budget(limits)).await);
        assert_eq!(times(&script), expected);
        let spent = declined(&trail, Rung::Retry) == Some(Declined::RequestBudget);
        assert_eq!(spent, attempts < 4);
    }
}

/// Answers, and has cost so many tokens.
fn costs(tokens: u64) -> Cue<String, String> {
    Cue::answer(move |text: &String, ctx| {
        ctx.spend(Cost { tokens, ..Cost::default() });
        Ok(text.clone())
    })
}

#[tokio::test(start_paused = true)]
async fn a_call_spends_no_more_tokens_than_its_budget_holds() {
    // Three calls of 100 tokens each, made one after the other by a child that a budget was given.
    for (tokens, answers, calls) in
        [(150, false, 2), (200, false, 2), (201, true, 3), (300, true, 3)]
    {
        let provider = echo();
        provider.otherwise(|| costs(100));
        let (_, middle) = siblings::asks("middle", "provider");
        let outer = echo();
        for _ in 0..3 {
            outer.then(Cue::perform(|text: &String, ctx| {
                Ok(vec![ctx.port::<String, String>("middle")?.ask(text.clone())])
            }));
        }
        outer.then(Cue::step(|cue| match cue.turn {
            Turn::Performed(performed) => {
                Ok(Step::Reply(performed.get::<String>(0)?.value.clone()))
            }
            _ => unreachable!(),
        }));
        let root = SupervisorSpec::one_for_one("root")
            .policy(Policy::playbook_exact())
            .child(provider.stateless("provider"))
            .child(middle)
            .child(outer.stateful("outer").needs::<Texts>("middle"));
        let system = System::start(root).await.unwrap();
        let port = system.port::<String, String>("root/outer").unwrap();
        let limits = Limits { tokens: Some(tokens), ..Limits::default() };
        let outcome = port.call_with("x", CallOptions::new().budget(limits)).await;
        assert_eq!(provider.count(), calls, "{tokens}");
        match outcome {
            Ok(answer) => assert!(answers && answer.cost.tokens == 300, "{answer:?}"),
            Err(CallError::RecoveryExhausted { fault, .. }) => {
                assert!(!answers && fault.class == Class::BudgetDenied, "{tokens}: {fault:?}");
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_attempt_reserves_is_held_charged_or_given_back() {
    let all = |cost: u64| Cost { tokens: cost, ..Cost::default() };
    let script = echo();
    let (_system, port) = alone(&script, |spec| spec).await;
    let limits = Limits { tokens: Some(100), ..Limits::default() };
    let budgeted = || CallOptions::new().budget(limits);
    // Whoever ends without a word is charged what it owes: 60 of 100, and 60 more are not there.
    let asks = |tokens: u64, owes: bool| {
        Cue::answer(move |_: &String, ctx| {
            ctx.reserve(all(tokens))?;
            ctx.owe(if owes { all(tokens) } else { Cost::default() });
            Err(Fault::server_transient("lost"))
        })
    };
    script.then(asks(60, true));
    script.then(asks(60, true));
    let error = port.call_with("x", budgeted()).await.unwrap_err();
    let CallError::RecoveryExhausted { fault, trail: tried, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!((fault.class, fault.own_limits), (Class::BudgetDenied, true), "{fault}");
    assert_eq!(fault.message, "budget denied: 60 tokens asked for, 40 left");
    assert_eq!((script.count(), tried.iter().count()), (2, 2));
    // What is not owed goes back; what is left is seen; what was spent is not reserved twice.
    script.forget();
    script.then(asks(60, false));
    script.then(Cue::answer(move |text: &String, ctx| {
        assert_eq!(ctx.budget_left().tokens, Some(100));
        ctx.reserve(all(70))?;
        assert_eq!(ctx.budget_left().tokens, Some(30));
        ctx.spend(all(50));
        ctx.reserve(all(40))?;
        assert_eq!(ctx.budget_left().tokens, Some(10));
        assert!(ctx.reserve(all(51)).is_err());
        Ok(text.clone())
    }));
    assert_eq!(port.call_with("x", budgeted()).await.unwrap().cost, all(50));
    // A life that is lost with its attempt, too.
    script.forget();
    script.then(Cue::answer(move |_: &String, ctx| {
        ctx.reserve(all(60))?;
        ctx.owe(all(60));
        panic!("lost")
    }));
    script.then(asks(60, true));
    let trail = trail(port.call_with("x", budgeted()).await);
    assert_eq!((script.count(), trail.iter().count()), (2, 2));
    // Nobody has set a budget: nothing is refused.
    script.then(Cue::answer(move |text: &String, ctx| {
        assert_eq!(ctx.budget_left(), Limits::default());
        ctx.reserve(all(u64::MAX))?;
        Ok(text.clone())
    }));
    assert_eq!(port.call("x").await.unwrap().cost, Cost::default());
}

#[tokio::test(start_paused = true)]
async fn what_one_member_costs_too_much_for_goes_to_a_cheaper_one_and_to_nobody_else() {
    let price = |micros: u64| {
        Cue::answer(move |text: &String, ctx| {
            let cost = Cost { money_micros: micros, ..Cost::default() };
            ctx.reserve(cost)?;
            ctx.spend(cost);
            Ok(text.clone())
        })
    };
    let (dear, first) = member("dear");
    let (cheap, second) = member("cheap");
    let (system, port) = grouped(exact().member_spec(first).member_spec(second)).await;
    let limits = |attempts, money| {
        let limits = Limits { attempts, money_micros: Some(money), ..Limits::default() };
        CallOptions::new().budget(limits)
    };
    // More in a row than a circuit bears; and who asked nobody gives the attempt back.
    for _ in 0..5 {
        dear.then(price(100));
        cheap.then(price(10));
        let answer = port.call_with("x", limits(Some(1), 50)).await.unwrap();
        assert_eq!((answer.served_by.id(), answer.cost.money_micros), ("cheap", 10));
    }
    dear.then(price(100));
    assert_eq!(port.call_with("x", limits(None, 100)).await.unwrap().served_by.id(), "dear");
    // The stand-in of a free member is not free.
    dear.then_fail(Class::ModelUnavailable);
    cheap.then(price(10));
    let error = port.call_with("x", limits(None, 9)).await.unwrap_err();
    let CallError::RecoveryExhausted { fault, .. } = error else { panic!("{error:?}") };
    assert_eq!(fault.class, Class::BudgetDenied);
    assert_eq!((dear.count(), cheap.count(), now(&system)), (7, 6, 0));
}

#[tokio::test(start_paused = true)]
async fn what_failed_attempts_have_cost_is_in_the_answer_and_in_the_budget() {
    let script = echo();
    script.then(Cue::answer(|_: &String, ctx| {
        ctx.spend(Cost { tokens: 30, ..Cost::default() });
        Err(Fault::server_transient("cut off"))
    }));
    script.then(costs(12));
    let (_system, port) = alone(&script, |spec| spec).await;
    assert_eq!(port.call("x").await.unwrap().cost.tokens, 42);
    // With nothing left after the first attempt there is no second.
    script.then(Cue::answer(|_: &String, ctx| {
        ctx.spend(Cost { tokens: 30, ..Cost::default() });
        Err(Fault::server_transient("cut off"))
    }));
    let limits = Limits { tokens: Some(30), ..Limits::default() };
    script.forget();
    trail(port.call_with("x", CallOptions::new().budget(limits)).await);
    assert_eq!(script.count(), 1);
}
