//! Who stands in for whom, and when.

use mainstay::behavior::Step;
use mainstay::fault::ExitKind;
use mainstay::policy::Capabilities;
use mainstay::spec::Role;
use mainstay_actors::default::DefaultAnswer;
use mainstay_actors::scripted::StepCue;
use tokio::task::JoinSet;

use super::*;

pub(crate) fn member(id: &str) -> (Script, ChildSpec) {
    let script = Script::new({
        let id = id.to_owned();
        move |text: &String| format!("{id}: {text}")
    });
    let spec = script.stateless(id).concurrency(64);
    (script, spec)
}

pub(crate) fn exact() -> GroupSpec {
    GroupSpec::model("llm").policy(Policy::playbook_exact())
}

fn window(tokens: u32) -> Capabilities {
    Capabilities { context_window: Some(tokens), ..Capabilities::default() }
}

#[tokio::test(start_paused = true)]
async fn a_model_that_is_down_is_tried_once_and_replaced_at_once_in_the_order_of_the_group() {
    let (first, a) = member("gpt-4");
    let (second, b) = member("claude");
    let (third, c) = member("gpt-3.5");
    first.then_fail(Class::ModelUnavailable);
    second.then_fail(Class::QuotaExhausted);
    let (system, port) = grouped(exact().member_spec(a).member_spec(b).member_spec(c)).await;
    let mut events = system.events();
    let answer = port.call("x").await.unwrap();
    assert_eq!((&*answer.value, answer.served_by.as_str()), ("gpt-3.5: x", "root/llm/gpt-3.5"));
    assert!(answer.degraded && !answer.defaulted);
    assert_eq!((answer.attempts, whole(answer.elapsed)), (3, 0));
    let steps: Vec<_> = answer
        .trail
        .iter()
        .map(|failed| (failed.child.as_str().to_owned(), failed.attempt, failed.action))
        .collect();
    assert_eq!(
        steps,
        [
            ("root/llm/gpt-4".to_owned(), 1, Action::Substitute { member: 1 }),
            ("root/llm/claude".to_owned(), 2, Action::Substitute { member: 2 }),
        ]
    );
    assert_eq!((first.count(), second.count(), third.count()), (1, 1, 1));
    // One request, whoever was asked: the key is the same at all three.
    assert_eq!(first.attempts()[0].key, third.attempts()[0].key);
    let fates = system.fates();
    assert_eq!((fates.accepted, fates.done, fates.open), (1, 1, 0));
    let stats = system.stats();
    let group = "root/llm".into();
    assert_eq!((stats.fallbacks[&group], stats.recovered_by_fallback[&group]), (2, 1));
    let mut order = Vec::new();
    while let Some(stamped) = events.try_next() {
        match stamped.event {
            Event::Failed { .. } => order.push("failed"),
            Event::Decided { .. } => order.push("decided"),
            Event::Fated { degraded, attempts, .. } => {
                assert!(degraded && attempts == 3);
                order.push("fated");
            }
            Event::Alert { .. } => order.push("alert"),
            _ => {}
        }
    }
    assert_eq!(order, ["failed", "decided", "failed", "decided", "fated"]);
}

#[tokio::test(start_paused = true)]
async fn a_sibling_is_asked_when_the_retries_are_spent_and_gets_one_attempt() {
    let (first, a) = member("first");
    let (second, b) = member("second");
    first.otherwise_fail(Class::Network);
    second.otherwise_fail(Class::Network);
    let (system, port) = grouped(exact().member_spec(a).member_spec(b)).await;
    let trail = trail(port.call("x").await);
    assert_eq!((times(&first), times(&second)), (vec![0, 1000, 3000, 7000], vec![7000]));
    assert_eq!(trail.0.len(), 5);
    assert_eq!(declined(&trail, Rung::Substitute), Some(Declined::AllowListExhausted));
    assert_eq!(system.stats().alerts, 1);
}

#[tokio::test(start_paused = true)]
async fn each_class_goes_only_to_the_siblings_its_row_allows() {
    // Who answers in a group of a plain sibling, one with a larger window, a simpler flow and a
    // default value; the plain one shares the quota domain, the others do not.
    let rows: [(Class, Option<&str>); 17] = [
        (Class::Network, Some("plain")),
        (Class::Timeout, Some("plain")),
        (Class::ServerTransient, Some("plain")),
        (Class::ModelUnavailable, Some("plain")),
        (Class::ToolExecution, Some("plain")),
        (Class::OutputInvalid, Some("plain")),
        (Class::Exhausted, Some("plain")),
        (Class::Overloaded, Some("plain")),
        (Class::RateLimit, Some("large")),
        (Class::QuotaExhausted, Some("large")),
        (Class::ContextLength, Some("large")),
        (Class::InputValidation, Some("simple")),
        (Class::Business, Some("simple")),
        (Class::ContentFiltered, Some("simple")),
        (Class::Permission, None),
        (Class::BudgetDenied, None),
        (Class::Cancelled, None),
    ];
    for (class, served_by) in rows {
        let (primary, first) = member("primary");
        primary.otherwise_fail(class);
        let mut others = Vec::new();
        let mut group = exact().member_spec(first.quota_domain("account").capabilities(window(8)));
        for (id, role, tokens) in [
            ("plain", Role::Sibling, 8),
            ("large", Role::Sibling, 16),
            ("simple", Role::Simplified, 8),
        ] {
            let (script, spec) = member(id);
            let spec = spec.role(role).capabilities(window(tokens));
            group =
                group.member_spec(if id == "plain" { spec.quota_domain("account") } else { spec });
            others.push((id, script));
        }
        let group = group.member_spec(
            DefaultAnswer::<String, String>::new("sorry".into())
                .spec("default")
                .capabilities(window(8)),
        );
        let (_system, port) = grouped(group).await;
        let outcome = port.call("x").await;
        match (outcome, served_by) {
            (Ok(answer), Some(id)) => {
                assert_eq!(answer.served_by.id(), id, "{class}");
                assert!(answer.degraded && !answer.defaulted);
            }
            (Err(CallError::RecoveryExhausted { fault, trail, .. }), None) => {
                assert_eq!(fault.class, class);
                let why = declined(&trail, Rung::Substitute);
                assert_eq!(why, Some(Declined::ClassNotEligible(class)));
            }
            (Err(CallError::Cancelled { .. }), None) if class == Class::Cancelled => {}
            (outcome, _) => panic!("{class}: {outcome:?}"),
        }
        for (id, script) in others {
            assert_eq!(script.count(), usize::from(served_by == Some(id)), "{class} at {id}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_fit_sibling_the_class_ends_the_request() {
    for class in [
        Class::ContextLength,
        Class::InputValidation,
        Class::ContentFiltered,
        Class::QuotaExhausted,
    ] {
        let (primary, a) = member("primary");
        let (plain, b) = member("plain");
        primary.otherwise_fail(class);
        let group = exact()
            .member_spec(a.quota_domain("account").capabilities(window(8)))
            .member_spec(b.quota_domain("account").capabilities(window(8)));
        let (system, port) = grouped(group).await;
        trail(port.call("x").await);
        assert_eq!((primary.count(), plain.count(), now(&system)), (1, 0, 0), "{class}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_default_value_is_the_last_resort_and_says_what_it_is() {
    let (primary, a) = member("primary");
    let (second, b) = member("second");
    primary.otherwise_fail(Class::InputValidation);
    let group = exact()
        .member_spec(a)
        .member_spec(DefaultAnswer::<String, String>::new("sorry".into()).spec("default"))
        .member_spec(b);
    let (system, port) = grouped(group).await;
    let answer = port.call("x").await.unwrap();
    assert_eq!((&*answer.value, answer.served_by.id()), ("sorry", "default"));
    assert!(answer.degraded && answer.defaulted);
    // A class that any sibling may answer asks the sibling first, although it stands after it.
    primary.otherwise_fail(Class::ModelUnavailable);
    assert_eq!(port.call("y").await.unwrap().served_by.id(), "second");
    assert_eq!(second.count(), 1);
    let stats = system.stats();
    let group = "root/llm".into();
    assert_eq!((stats.defaulted[&group], stats.recovered_by_fallback[&group]), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_closes_the_domain_for_every_sibling_that_shares_it() {
    let (a, one) = member("a");
    let (b, two) = member("b");
    let (c, three) = member("c");
    // More than is waited for, so it goes on at once: past the sibling of the same account.
    a.then_fault(limited("retry-after", "40"));
    let group = exact()
        .member_spec(one.quota_domain("account"))
        .member_spec(two.quota_domain("account"))
        .member_spec(three.quota_domain("other"));
    let (system, port) = grouped(group).await;
    let mut events = system.events();
    let answer = port.call("x").await.unwrap();
    assert_eq!((answer.served_by.id(), whole(answer.elapsed)), ("c", 0));
    let closed = events.wait_for(|event| matches!(event, Event::DomainClosed { .. })).await;
    let Event::DomainClosed { domain, until } = closed.unwrap().event else { unreachable!() };
    assert_eq!((&*domain, whole(until.since_start())), ("account", 40_000));
    // Others do not even try what is closed.
    for _ in 0..3 {
        assert_eq!(port.call("y").await.unwrap().served_by.id(), "c");
    }
    assert_eq!((a.count(), b.count(), c.count()), (1, 0, 4));
    // Nor does who calls the sibling by its own name: it waits until the domain opens.
    let direct = system.port::<String, String>("root/llm/b").unwrap();
    assert_eq!(whole(direct.call("z").await.unwrap().elapsed), 40_000);
    // And the primary is returned to.
    let answer = port.call("w").await.unwrap();
    assert_eq!((answer.served_by.id(), answer.degraded), ("a", false));
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_was_asked_for_closes_the_domain_whatever_the_class() {
    let (a, one) = member("a");
    let (b, two) = member("b");
    let (c, three) = member("c");
    a.then_fault(Fault::overloaded("busy").with_retry_after(secs(8)));
    let group = exact()
        .member_spec(one.quota_domain("account"))
        .member_spec(two.quota_domain("account"))
        .member_spec(three);
    let (system, port) = grouped(group).await;
    let answer = port.call("x").await.unwrap();
    assert_eq!((answer.served_by.id(), whole(answer.elapsed)), ("c", 0));
    assert_eq!(port.call("y").await.unwrap().served_by.id(), "c");
    assert_eq!((a.count(), b.count(), c.count()), (1, 0, 2));
    let direct = system.port::<String, String>("root/llm/b").unwrap();
    assert_eq!(whole(direct.call("z").await.unwrap().elapsed), 8_000);
    assert_eq!(port.call("w").await.unwrap().served_by.id(), "a");
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_for_a_member_whose_circuit_opens_go_to_the_sibling() {
    for by_hand in [false, true] {
        let (primary, a) = member("primary");
        let (sibling, b) = member("sibling");
        primary.otherwise(|| Cue::Hang);
        let policy = Policy::playbook_exact().with_cap(Class::Timeout, 0);
        let group = GroupSpec::model("llm")
            .policy(policy)
            .member_spec(a.concurrency(1).attempt_timeout(secs(3)))
            .member_spec(b);
        let (system, port) = grouped(group).await;
        let mut calls = JoinSet::new();
        for n in 0..20 {
            let port = port.clone();
            calls.spawn(async move { port.call(n.to_string()).await.unwrap() });
        }
        tokio::task::yield_now().await;
        if by_hand {
            system.isolate("root/llm/primary").unwrap();
        }
        let answers = calls.join_all().await;
        assert!(answers.iter().all(|answer| answer.served_by.id() == "sibling" && answer.degraded));
        // Three in a row open it; by hand, only the one under way is waited for.
        let tried = if by_hand { 1 } else { 3 };
        assert_eq!((primary.count(), sibling.count()), (tried, 20));
        assert_eq!(now(&system), 3000 * tried as u64);
        let untried = answers.iter().filter(|answer| answer.attempts == 1).count();
        assert_eq!(untried, 20 - tried);
        let fates = system.fates();
        assert_eq!((fates.accepted, fates.done, fates.open), (20, 20, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_for_the_only_member_keep_their_places_when_its_circuit_opens() {
    let (only, a) = member("only");
    for _ in 0..4 {
        only.then_fail(Class::ModelUnavailable);
    }
    only.then_wait();
    let (system, port) = grouped(exact().member_spec(a.concurrency(1))).await;
    let mut calls = JoinSet::new();
    for n in 0..8 {
        let port = port.clone();
        calls.spawn(async move { port.call(n.to_string()).await });
    }
    let mut events = system.events();
    let open = |event: &Event| matches!(event, Event::Circuit { state: "open", .. });
    events.wait_for(open).await.unwrap();
    only.release();
    let outcomes = calls.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 4);
    assert_eq!(now(&system), 0);
}

#[tokio::test(start_paused = true)]
async fn those_who_waited_for_a_domain_come_back_by_rate() {
    let script = echo();
    script.then_fail(Class::RateLimit);
    let (_system, port) = alone(&script, |spec| spec).await;
    let mut calls = JoinSet::new();
    for n in 0..21 {
        let port = port.clone();
        calls.spawn(async move { port.call(n.to_string()).await.unwrap() });
    }
    assert_eq!(calls.join_all().await.len(), 21);
    let times = times(&script);
    assert_eq!(times.len(), 22);
    // Ten in the first second after the two, more in the next; never two at once.
    let after: Vec<_> = times.iter().filter(|at| **at >= 2000).collect();
    assert!(after.windows(2).all(|two| two[0] < two[1]), "{times:?}");
    assert!(after.iter().filter(|at| ***at < 3000).count() <= 10, "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn an_overloaded_member_is_retried_only_when_nobody_else_can() {
    let (primary, a) = member("primary");
    let (_, b) = member("sibling");
    primary.then_fail(Class::Overloaded);
    let (system, port) = grouped(exact().member_spec(a).member_spec(b)).await;
    let answer = port.call("x").await.unwrap();
    assert_eq!((answer.served_by.id(), primary.count()), ("sibling", 1));
    system.isolate("root/llm/sibling").unwrap();
    primary.then_fail(Class::Overloaded);
    let answer = port.call("y").await.unwrap();
    assert_eq!((answer.served_by.id(), whole(answer.elapsed)), ("primary", 2000));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_leaves_no_time_for_a_retry_goes_to_the_sibling_at_once() {
    let (primary, a) = member("primary");
    let (_, b) = member("sibling");
    primary.otherwise_fail(Class::Network);
    let (_system, port) = grouped(exact().member_spec(a).member_spec(b)).await;
    let answer = port.call_with("x", CallOptions::new().deadline(ms(2500))).await.unwrap();
    assert_eq!((answer.served_by.id(), whole(answer.elapsed)), ("sibling", 1000));
    assert_eq!(times(&primary), [0, 1000]);
}

#[tokio::test(start_paused = true)]
async fn a_crash_is_repeated_once_and_a_second_one_sets_the_request_aside() {
    let (primary, a) = member("primary");
    primary.then_panic();
    let (system, port) = grouped(exact().member_spec(a)).await;
    assert_eq!(port.call("x").await.unwrap().attempts, 2);
    primary.then_panic();
    primary.then_panic();
    assert!(matches!(port.call("y").await, Err(CallError::Quarantined { .. })));
    assert_eq!((primary.count(), system.fates().quarantined), (4, 1));
    let causes = system.tree();
    assert!(causes.find(&"root/llm/primary".into()).is_some());
    assert!(!primary.stops().contains(&ExitKind::Panic));
}

/// A stateful child that asks `need` and passes on what it hears.
pub(crate) fn asks(id: &str, need: &'static str) -> (Script, ChildSpec) {
    let script = echo();
    script.otherwise(move || {
        Cue::step(move |cue: StepCue<'_, String>| match cue.turn {
            mainstay::behavior::Turn::Performed(performed) => {
                Ok(Step::Reply(performed.get::<String>(0)?.value.clone()))
            }
            _ => Ok(Step::Perform(vec![
                cue.ctx.port::<String, String>(need)?.ask(cue.request.clone()),
            ])),
        })
    });
    let spec = script.stateful(id).needs::<Texts>(need).policy(Policy::playbook_exact());
    (script, spec)
}

#[tokio::test(start_paused = true)]
async fn nested_calls_to_a_dead_provider_make_the_attempts_of_one_ladder() {
    for (class, attempts) in [(Class::Network, 4), (Class::Timeout, 3), (Class::ToolExecution, 3)] {
        let provider = echo();
        provider.otherwise_fail(class);
        let (inner, middle) = asks("inner", "provider");
        let (outer, top) = asks("outer", "inner");
        let root = SupervisorSpec::one_for_one("root")
            .policy(Policy::playbook_exact())
            .child(provider.stateless("provider"))
            .child(middle)
            .child(top);
        let system = System::start(root).await.unwrap();
        let port = system.port::<String, String>("root/outer").unwrap();
        let Err(CallError::RecoveryExhausted { fault, trail, .. }) = port.call("x").await else {
            panic!("a dead provider has answered");
        };
        assert_eq!(provider.count(), attempts, "{class}");
        assert_eq!(times(&provider), schedule(class));
        // Each of them made its call once: a first step, and one that heard of the failure.
        assert_eq!((inner.count(), outer.count()), (2, 2));
        assert_eq!((fault.class, trail.0.len()), (Class::Exhausted, 1));
        assert_eq!(now(&system), schedule(class)[attempts - 1]);
        let stats = system.stats();
        assert_eq!(stats.attempts as usize, attempts + 2);
        assert_eq!(system.fates().failed, 3);
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_inner_ladder_gave_up_goes_to_the_outer_sibling_without_a_retry() {
    let provider = echo();
    provider.otherwise_fail(Class::Network);
    let (_, full) = asks("full", "provider");
    let (simple, flow) = member("simple");
    let root = SupervisorSpec::one_for_one("root")
        .policy(Policy::playbook_exact())
        .child(provider.stateless("provider"))
        .group(GroupSpec::step("flow").member_spec(full).member_spec(flow));
    let system = System::start(root).await.unwrap();
    let port = system.port::<String, String>("root/flow").unwrap();
    let answer = port.call("x").await.unwrap();
    assert_eq!((answer.served_by.id(), answer.degraded), ("simple", true));
    assert_eq!((provider.count(), simple.count()), (4, 1));
    assert_eq!(whole(answer.elapsed), 7000);
}

#[tokio::test(start_paused = true)]
async fn a_permission_fault_keeps_its_meaning_through_every_layer() {
    let provider = echo();
    provider.otherwise_fail(Class::Permission);
    let (_, full) = asks("full", "provider");
    let (simple, flow) = member("simple");
    let root = SupervisorSpec::one_for_one("root")
        .child(provider.stateless("provider"))
        .group(GroupSpec::step("flow").member_spec(full).member_spec(flow));
    let system = System::start(root).await.unwrap();
    let port = system.port::<String, String>("root/flow").unwrap();
    let Err(CallError::RecoveryExhausted { fault, .. }) = port.call("x").await else {
        panic!("what was forbidden was done by somebody else");
    };
    assert_eq!((fault.class, provider.count(), simple.count()), (Class::Permission, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_rests_on_a_degraded_one_is_degraded() {
    let (primary, a) = member("primary");
    let (_, b) = member("sibling");
    primary.otherwise_fail(Class::ModelUnavailable);
    let (_, top) = asks("outer", "llm");
    let root =
        SupervisorSpec::one_for_one("root").group(exact().member_spec(a).member_spec(b)).child(top);
    let system = System::start(root).await.unwrap();
    let port = system.port::<String, String>("root/outer").unwrap();
    let answer = port.call("x").await.unwrap();
    assert_eq!(
        (answer.served_by.as_str(), answer.degraded, answer.attempts),
        ("root/outer", true, 1)
    );
}
