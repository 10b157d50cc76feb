//! Groups whose members are gone, full, or taken out by hand; and how each alternative does.

use mainstay::error::Unavailable;
use mainstay_actors::default::DefaultAnswer;

use super::siblings::{exact, member};
use super::*;

#[tokio::test(start_paused = true)]
async fn a_group_whose_members_are_all_isolated_says_so() {
    let (_, a) = member("a");
    let (_, b) = member("b");
    let (system, port) = grouped(exact().member_spec(a).member_spec(b)).await;
    system.isolate("root/llm/a").unwrap();
    assert_eq!(port.call("x").await.unwrap().served_by.id(), "b");
    system.isolate("root/llm/b").unwrap();
    let Err(CallError::Refused { message, child, why }) = port.call("x").await else {
        panic!("somebody who was taken out by hand has served");
    };
    assert_eq!((&*message, child.as_str(), why), ("x", "root/llm", Unavailable::Isolated));
    assert_eq!(
        CallError::Refused { message, child, why }.to_string(),
        "child \"root/llm\" refuses requests: every member is isolated by hand; release one"
    );
    system.release("root/llm/b").unwrap();
    assert_eq!(port.call("x").await.unwrap().served_by.id(), "b");
    let fates = system.fates();
    assert_eq!((fates.accepted, fates.done, fates.open), (2, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn the_last_resort_of_a_group_is_nobody_who_was_isolated_by_hand() {
    let (script, a) = member("a");
    let (other, b) = member("b");
    other.otherwise_fail(Class::ModelUnavailable);
    let (system, port) = grouped(exact().member_spec(a).member_spec(b)).await;
    system.isolate("root/llm/a").unwrap();
    for _ in 0..3 {
        port.call("x").await.unwrap_err();
    }
    // Its circuit is open for longer than this caller waits: it is asked all the same, `a` is not.
    let hurry = CallOptions::new().deadline(ms(100));
    let outcome = port.call_with("x", hurry).await;
    assert_eq!((script.count(), other.count()), (0, 4), "{outcome:?}");
}

/// A group of a primary that fails and a sibling that is full; and whom to release.
async fn full() -> (System, Texts, Script, Vec<tokio::task::JoinHandle<()>>) {
    let (primary, a) = member("primary");
    let (sibling, b) = member("sibling");
    primary.otherwise_fail(Class::ModelUnavailable);
    sibling.then_wait();
    let b = b.concurrency(1).mailbox(1);
    let (system, port) = grouped(exact().member_spec(a).member_spec(b)).await;
    let direct: Texts = system.port("root/llm/sibling").unwrap();
    let mut busy = Vec::new();
    for n in 0..2 {
        let direct = direct.clone();
        busy.push(tokio::spawn(async move {
            let _ = direct.call(n.to_string()).await;
        }));
        tokio::task::yield_now().await;
    }
    // What is handed on may use a small reserve, which is filled, too.
    let more = port.clone();
    busy.push(tokio::spawn(async move {
        let _ = more.call("reserve").await;
    }));
    while sibling.count() < 1 || system.stats().fallbacks.is_empty() {
        tokio::task::yield_now().await;
    }
    (system, port, sibling, busy)
}

#[tokio::test(start_paused = true)]
async fn a_substitute_that_was_waited_for_counts_as_one() {
    let (system, port, sibling, busy) = full().await;
    let waiting = tokio::spawn(async move { port.call("late").await.unwrap() });
    let mut events = system.events();
    let waits = |event: &Event| {
        matches!(event, Event::Decided { decision, .. }
            if matches!(decision.action, Action::AwaitSibling { .. }))
    };
    events.wait_for(waits).await.unwrap();
    let group = "root/llm".into();
    assert_eq!(system.stats().fallbacks[&group], 1, "it only waits");
    sibling.release();
    let answer = waiting.await.unwrap();
    assert_eq!((answer.served_by.id(), answer.degraded, answer.attempts), ("sibling", true, 2));
    for call in busy {
        call.await.unwrap();
    }
    let stats = system.stats();
    assert_eq!((stats.fallbacks[&group], stats.entered_fallback[&group]), (2, 2));
    assert_eq!(stats.recovered_by_fallback[&group], 2);
    assert_eq!(stats.alternatives[&"root/llm/sibling".into()].to_string(), "2/2");
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_last_sibling_goes_away_while_it_waits_has_climbed_its_ladder() {
    let (system, port, _sibling, busy) = full().await;
    let mut events = system.events();
    let waiting = tokio::spawn(async move { port.call("late").await });
    let waits = |event: &Event| {
        matches!(event, Event::Decided { decision, .. }
            if matches!(decision.action, Action::AwaitSibling { .. }))
    };
    events.wait_for(waits).await.unwrap();
    let before = system.stats().alerts;
    system.supervisor("root/llm").unwrap().terminate_child("sibling").await.unwrap();
    let Err(CallError::RecoveryExhausted { child, fault, trail, .. }) = waiting.await.unwrap()
    else {
        panic!("its trail is lost");
    };
    assert_eq!((child.as_str(), fault.class), ("root/llm", Class::ModelUnavailable));
    assert_eq!((trail.0.len(), trail.0[0].child.id()), (1, "primary"));
    for call in busy {
        call.await.unwrap();
    }
    // One alert for it, and one for what was in the reserve.
    assert_eq!(system.stats().alerts - before, 2);
    let mut alerts = 0;
    while let Some(stamped) = events.try_next() {
        alerts += usize::from(matches!(stamped.event, Event::Alert { .. }));
    }
    assert_eq!(alerts, 2);
    let fates = system.fates();
    assert!(fates.is_balanced() && fates.open == 0 && fates.failed == 2, "{fates:?}");
}

#[tokio::test(start_paused = true)]
async fn how_each_alternative_does_is_counted_by_member() {
    let (primary, a) = member("primary");
    let (second, b) = member("second");
    let (third, c) = member("third");
    primary.otherwise_fail(Class::ModelUnavailable);
    for _ in 0..2 {
        second.then_usual();
        second.then_fail(Class::ModelUnavailable);
    }
    third.then_usual();
    third.then_fail(Class::ModelUnavailable);
    let never =
        mainstay::circuit::CircuitSpec::new().with_threshold(100, 1000).with_window(secs(30), 1000);
    let group = exact()
        .circuit(never)
        .member_spec(a)
        .member_spec(b)
        .member_spec(c)
        .member_spec(DefaultAnswer::<String, String>::new("sorry".into()).spec("default"));
    let (system, port) = grouped(group).await;
    for n in 0..4 {
        port.call(n.to_string()).await.unwrap();
    }
    let stats = system.stats();
    let shown: Vec<_> = stats
        .alternatives
        .iter()
        .map(|(path, counts)| (path.id(), counts.to_string(), counts.success_rate()))
        .collect();
    assert_eq!(
        shown,
        [
            ("default", "1/1".to_owned(), Some(0.0)),
            ("second", "2/4".to_owned(), Some(0.5)),
            ("third", "1/2".to_owned(), Some(0.5)),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_that_its_member_was_stopped_with_goes_on_under_the_next_number() {
    let (first, a) = member("first");
    let (second, b) = member("second");
    first.then_hang();
    let a = a.effect(EffectKind::Read).shutdown(mainstay::family::Shutdown::Brutal);
    let (system, port) = grouped(exact().member_spec(a).member_spec(b)).await;
    let call = tokio::spawn(async move { port.call("x").await.unwrap() });
    while first.count() < 1 {
        tokio::task::yield_now().await;
    }
    system.supervisor("root/llm").unwrap().terminate_child("first").await.unwrap();
    // It has not failed: the attempt is the first still, and the hand-out another one.
    let answer = call.await.unwrap();
    assert_eq!((answer.served_by.id(), answer.attempts), ("second", 1));
    let made = |script: &Script| script.attempts().iter().map(|a| a.delivery.0).collect::<Vec<_>>();
    assert_eq!((made(&first), made(&second)), (vec![1], vec![2]));
}
