//! Who is offered a request that has not failed yet, while circuits are open; and where it waits.

use mainstay::behavior::Behavior;
use mainstay::error::{SpecError, StartError, Unavailable};
use mainstay::spec::{AllDown, Role};
use mainstay_actors::default::DefaultAnswer;
use mainstay_actors::human::HumanDesk;

use super::siblings::{exact, member};
use super::*;

/// Opens the circuit of a member that is asked by name and through its group.
async fn open(script: &Script, port: &Texts) {
    script.otherwise_fail(Class::ModelUnavailable);
    for _ in 0..3 {
        let _ = port.call("x").await;
    }
    script.forget();
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_leads_nobody_past_the_allow_list() {
    let (a, one) = member("a");
    let (b, two) = member("b");
    let (c, three) = member("c");
    let group = exact().member_spec(one).member_spec(two).member_spec(three).allow("a", ["c"]);
    let (_system, port) = grouped(group).await;
    open(&a, &port).await;
    assert_eq!(port.call("x").await.unwrap().served_by.id(), "c");
    assert_eq!((a.count(), b.count(), c.count()), (0, 0, 4));
    // What stands in no list is never asked: this one is refused at once, with its message.
    let (a, one) = member("a");
    let (b, two) = member("b");
    let none: [&str; 0] = [];
    let (system, port) = grouped(exact().member_spec(one).member_spec(two).allow("a", none)).await;
    open(&a, &port).await;
    system.isolate("root/llm/a").unwrap();
    let Err(CallError::Refused { message, why, .. }) = port.call("x").await else {
        panic!("somebody has served");
    };
    assert_eq!((&*message, why, a.count(), b.count()), ("x", Unavailable::Isolated, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_default_is_asked_last_also_while_the_circuit_of_the_primary_is_open() {
    let (primary, a) = member("primary");
    let (second, b) = member("second");
    let group = exact()
        .member_spec(a)
        .member("default", DefaultAnswer::<String, String>::new("sorry".into()))
        .member_spec(b);
    let (_system, port) = grouped(group).await;
    open(&primary, &port).await;
    let answer = port.call("x").await.unwrap();
    assert_eq!((answer.served_by.id(), answer.defaulted), ("second", false));
    assert_eq!((primary.count(), second.count()), (0, 4));
}

#[tokio::test(start_paused = true)]
async fn a_behavior_brings_its_role_into_the_group() {
    assert_eq!(<HumanDesk<String, String> as Behavior>::ROLE, Role::Human);
    let (primary, a) = member("primary");
    primary.otherwise_fail(Class::InputValidation);
    let sorry = DefaultAnswer::<String, String>::new("sorry".into());
    let (_system, port) = grouped(exact().member_spec(a).member("default", sorry.clone())).await;
    // A sibling would not be asked for a request that is malformed.
    let answer = port.call("x").await.unwrap();
    assert_eq!((answer.served_by.id(), answer.defaulted), ("default", true));
    let (primary, a) = member("primary");
    primary.otherwise_fail(Class::InputValidation);
    let plain = ChildSpec::stateless("default", move || sorry.clone()).role(Role::Sibling);
    let (_system, port) = grouped(exact().member_spec(a).member_spec(plain)).await;
    port.call("x").await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_missing_permission_is_never_answered_by_a_sibling_however_often_it_is_missed() {
    let (a, one) = member("a");
    let (b, two) = member("b");
    a.otherwise_fail(Class::Permission);
    let (_system, port) = grouped(exact().member_spec(one).member_spec(two)).await;
    for _ in 0..10 {
        let Err(CallError::RecoveryExhausted { fault, .. }) = port.call("x").await else {
            panic!("a sibling has answered");
        };
        assert_eq!(fault.class, Class::Permission);
    }
    assert_eq!((a.count(), b.count()), (10, 0));
}

#[tokio::test(start_paused = true)]
async fn what_a_caller_brought_says_nothing_about_whoever_asked_further_for_it() {
    for (class, told) in [(Class::ContentFiltered, false), (Class::InputValidation, true)] {
        let inner =
            move || Fault::new(Class::Exhausted, "inner").with_source(Fault::new(class, "x"));
        let (a, one) = member("a");
        let (_, two) = member("b");
        a.otherwise(move || Cue::Fail(inner()));
        let (system, port) = grouped(exact().member_spec(one).member_spec(two)).await;
        for _ in 0..5 {
            assert_eq!(port.call("x").await.unwrap().served_by.id(), "b");
        }
        let opened = system.tree().to_string().contains("open");
        assert_eq!((opened, a.count()), (told, if told { 3 } else { 5 }), "{class:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_in_a_group_is_bounded_and_seen() {
    let (script, a) = member("a");
    let (system, port) = grouped(exact().member_spec(a).mailbox(2)).await;
    open(&script, &port).await;
    script.otherwise_usual();
    let waiting: Vec<_> = (0..2)
        .map(|n| {
            let port = port.clone();
            tokio::spawn(async move { port.call(n.to_string()).await.unwrap().value })
        })
        .collect();
    while system.fates().open < 2 {
        tokio::task::yield_now().await;
    }
    let Err(CallError::Full { message, .. }) = port.call("third").await else {
        panic!("it found room")
    };
    assert_eq!(message, "third");
    let tree = system.tree();
    let group = tree.find(&"root/llm".into()).unwrap();
    assert_eq!(group.detail().map(|detail| detail.waiting), Some(2), "{tree}");
    let dump: serde_json::Value = serde_json::to_value(&tree).unwrap();
    assert_eq!(dump["root"]["children"][0]["waiting"], 2);
    // They are served when the circuit is tried again, in the order in which they came.
    let values: Vec<_> = futures_values(waiting).await;
    assert_eq!(values, ["a: 0", "a: 1"]);
    assert_eq!((now(&system), system.fates().open), (5000, 0));
    let tree = system.tree();
    let group = tree.find(&"root/llm".into()).unwrap();
    assert!(group.detail().is_none_or(|detail| detail.waiting == 0));
}

async fn futures_values(waiting: Vec<tokio::task::JoinHandle<String>>) -> Vec<String> {
    let mut values = Vec::new();
    for call in waiting {
        values.push(call.await.unwrap());
    }
    values
}

#[tokio::test(start_paused = true)]
async fn what_waits_in_a_group_is_bounded_by_weight_too() {
    let (script, a) = member("a");
    let group = exact().member_spec(a).mailbox_bytes(5, |text: &String| text.len());
    let (system, port) = grouped(group).await;
    open(&script, &port).await;
    script.otherwise_usual();
    let first = tokio::spawn({
        let port = port.clone();
        async move { port.call("four").await.unwrap().value }
    });
    while system.fates().open < 1 {
        tokio::task::yield_now().await;
    }
    let Err(CallError::Full { message, .. }) = port.call("to").await else {
        panic!("it found room")
    };
    assert_eq!(message, "to");
    assert_eq!(port.call("1").await.unwrap().value, "a: 1");
    assert_eq!(first.await.unwrap(), "a: four");
}

#[tokio::test(start_paused = true)]
async fn the_bounds_of_a_group_are_checked() {
    let start = async |group| System::start(SupervisorSpec::one_for_one("root").group(group)).await;
    let one = || exact().member_spec(member("a").1);
    for (group, what) in [
        (one().mailbox(0), "the mailbox"),
        (one().mailbox_bytes(0, |text: &String| text.len()), "the mailbox in bytes"),
    ] {
        let refused = start(group).await.unwrap_err();
        assert!(
            matches!(&refused, StartError::Spec(SpecError::Zero { path, what: named })
                if path == "root/llm" && *named == what),
            "{refused}"
        );
    }
    let refused = start(one().mailbox_bytes(9, |number: &u32| *number as usize)).await.unwrap_err();
    assert!(
        matches!(&refused, StartError::Spec(SpecError::BadCombination { path, .. })
            if path == "root/llm"),
        "{refused}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_is_asked_as_the_last_resort_by_one_request_at_a_time() {
    let (script, a) = member("a");
    let (system, port) = grouped(exact().member_spec(a)).await;
    open(&script, &port).await;
    script.otherwise_usual();
    script.then_wait();
    let hurry = || CallOptions::new().deadline(ms(100));
    let first = tokio::spawn({
        let port = port.clone();
        async move { port.call_with("first", hurry()).await.unwrap().value }
    });
    while script.count() < 1 {
        tokio::task::yield_now().await;
    }
    let Err(CallError::Refused { message, child, why }) = port.call_with("second", hurry()).await
    else {
        panic!("two are asked at a time");
    };
    let retry_after = secs(5);
    assert_eq!((&*message, why), ("second", Unavailable::Resting { retry_after }));
    assert_eq!(
        CallError::Refused { message, child, why }.to_string(),
        "child \"root/llm\" refuses requests: every member rests (circuit open or quota domain \
         closed); the first is back in 5s"
    );
    script.release();
    assert_eq!(first.await.unwrap(), "a: first");
    assert_eq!(port.call_with("third", hurry()).await.unwrap().value, "a: third");
    // It has answered twice, and is open all the same until its time is over.
    assert!(system.tree().to_string().contains("open"), "{}", system.tree());
}

#[tokio::test(start_paused = true)]
async fn nobody_is_sent_into_a_closed_quota_domain_as_the_last_resort() {
    let (script, a) = member("a");
    let wait = Fault::new(Class::RateLimit, "slow down").with_retry_after(secs(40));
    script.then_fault(wait);
    let (system, port) = grouped(exact().member_spec(a.quota_domain("account"))).await;
    port.call("x").await.unwrap_err();
    let hurry = CallOptions::new().deadline(secs(1));
    let Err(CallError::Refused { why, .. }) = port.call_with("y", hurry).await else {
        panic!("it was accepted")
    };
    // It is told at once, not at its deadline.
    let resting = Unavailable::Resting { retry_after: secs(40) };
    assert_eq!((why, now(&system), script.count()), (resting, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_group_that_fails_when_all_are_down_says_at_once_when_one_is_back() {
    let (script, a) = member("a");
    let (system, port) = grouped(exact().member_spec(a).all_down(AllDown::Fail)).await;
    open(&script, &port).await;
    script.otherwise_usual();
    let opened = now(&system);
    // Neither one that could wait nor one that could not does, and nobody is asked.
    for deadline in [secs(60), ms(100)] {
        let options = CallOptions::new().deadline(deadline);
        let Err(CallError::Refused { message, why, .. }) = port.call_with("x", options).await
        else {
            panic!("it was accepted")
        };
        let retry_after = secs(5);
        assert_eq!((&*message, why), ("x", Unavailable::Resting { retry_after }));
    }
    assert_eq!((script.count(), now(&system)), (0, opened));
    tokio::time::advance(secs(5)).await;
    assert_eq!(port.call("y").await.unwrap().value, "a: y");
}

#[tokio::test(start_paused = true)]
async fn a_group_that_waits_when_all_are_down_asks_nobody_as_the_last_resort() {
    let (script, a) = member("a");
    let (system, port) = grouped(exact().member_spec(a).all_down(AllDown::WaitUntil)).await;
    open(&script, &port).await;
    script.otherwise_usual();
    let opened = now(&system);
    let hurry = CallOptions::new().deadline(ms(100));
    let late = port.call_with("x", hurry).await;
    assert!(matches!(late, Err(CallError::Expired { .. })), "{late:?}");
    assert_eq!((script.count(), now(&system) - opened), (0, 100));
    // One that has the time is served when the circuit lets somebody through.
    let patient = CallOptions::new().deadline(secs(60));
    assert_eq!(port.call_with("y", patient).await.unwrap().value, "a: y");
    assert_eq!((script.count(), now(&system) - opened), (1, 5_000));
    let fates = system.fates();
    assert_eq!((fates.expired, fates.open), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_request_after_which_every_member_rests_is_told_when_the_first_is_back() {
    let (a, one) = member("a");
    let (b, two) = member("b");
    let group = exact().member_spec(one).member_spec(two).all_down(AllDown::Fail);
    let (_system, port) = grouped(group).await;
    a.otherwise_fail(Class::ModelUnavailable);
    b.otherwise_fail(Class::ModelUnavailable);
    let mut told = Vec::new();
    for _ in 0..2 {
        let error = port.call("x").await.unwrap_err();
        assert!(matches!(error, CallError::RecoveryExhausted { .. }), "{error}");
        told.push(error.retry_after());
    }
    // Both are offered the next request as well.
    assert_eq!(told, [None, None]);
    let error = port.call("x").await.unwrap_err();
    let CallError::RecoveryExhausted { retry_after: Some(wait), .. } = &error else {
        panic!("{error}")
    };
    assert!(error.to_string().contains(&format!("back in {wait:?}")), "{error}");
    assert_eq!(error.retry_after(), Some(*wait));
    // It was true: just before nobody is asked, and then somebody is.
    a.otherwise_usual();
    b.otherwise_usual();
    a.forget();
    b.forget();
    tokio::time::advance(*wait - ms(1)).await;
    let early = port.call("early").await.unwrap_err();
    assert_eq!((early.retry_after(), a.count() + b.count()), (Some(ms(1)), 0), "{early}");
    tokio::time::advance(ms(1)).await;
    assert_eq!(port.call("y").await.unwrap().value, "a: y");
    // Where one is isolated, the other counts.
    let (a, one) = member("a");
    let (_b, two) = member("b");
    let (system, port) = grouped(exact().member_spec(one).member_spec(two)).await;
    a.otherwise_fail(Class::RateLimit);
    system.isolate("root/llm/b").unwrap();
    let error = port.call("x").await.unwrap_err();
    assert!(error.retry_after().is_some(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_child_that_was_asked_to_wait_says_so_to_whoever_asked_through_another() {
    let limited = echo();
    let slow_down = Fault::rate_limit("slow down").with_retry_after(secs(50));
    limited.otherwise(move || Cue::Fail(slow_down.clone()));
    let (_system, port) = alone(&limited, |spec| spec).await;
    let error = port.call("x").await.unwrap_err();
    assert_eq!(error.retry_after(), Some(secs(50)), "{error}");
    let outer = Fault::from(error);
    assert_eq!(outer.retry_after, None, "nobody has asked that of the outer child");
    let inner = outer.source.as_ref().unwrap().downcast_ref::<Fault>().unwrap();
    assert_eq!(inner.retry_after, Some(secs(50)));
    // An outer child fails with it, and its caller is told.
    let outside = echo();
    outside.otherwise(move || Cue::Fail(outer.clone()));
    let (_system, port) = alone(&outside, |spec| spec).await;
    assert_eq!(port.call("x").await.unwrap_err().retry_after(), Some(secs(50)));
}
