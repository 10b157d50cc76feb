//! A slow request is also given to a sibling: when, to whom, what becomes of the slower copy, and what
//! speaks against it.

use std::future::pending;
use std::time::Duration;

use mainstay::behavior::{Behavior, Context, Stateless};
use mainstay::circuit::CircuitSpec;
use mainstay::decision::Action;
use mainstay::error::{CallError, SpecError};
use mainstay::event::{Event, EventStream};
use mainstay::fate::{Answer, Cost};
use mainstay::fault::{Class, EffectKind, Fault};
use mainstay::policy::budget::Limits;
use mainstay::policy::{Hedge, NoHedge, Policy};
use mainstay::port::{CallOptions, Port};
use mainstay::spec::{ChildSpec, GroupSpec, Role, SupervisorSpec};
use mainstay::system::System;
use mainstay_actors::scripted::{Cue, Payload, Script};

const HEDGE: Duration = ms(2000);

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn reader(script: &Script, id: &str) -> ChildSpec {
    script.stateless(id).effect(EffectKind::Read).concurrency(64)
}

fn hedged(first: &Script, second: &Script) -> GroupSpec {
    GroupSpec::model("llm")
        .member_spec(reader(first, "first"))
        .member_spec(reader(second, "second"))
        .hedge(Hedge::after(HEDGE))
        .policy(Policy::playbook_exact())
}

async fn start(group: GroupSpec) -> (System, Port<String, String>) {
    let system = System::start(SupervisorSpec::one_for_one("app").group(group)).await.unwrap();
    let port = system.port("app/llm").unwrap();
    (system, port)
}

fn takes(script: &Script, delay: Duration, reply: &str) {
    script.then(Cue::Reply(reply.to_owned()).after(delay));
}

fn fails(script: &Script, delay: Duration, class: Class) {
    script.then(Cue::fail(class).after(delay));
}

/// Hedges sent and won, and fallbacks.
fn counts(system: &System) -> (u64, u64, u64) {
    let stats = system.stats();
    let of = |map: &std::collections::HashMap<_, u64>| map.values().sum();
    (of(&stats.hedges), of(&stats.hedges_won), of(&stats.fallbacks))
}

fn seen(events: &mut EventStream, wanted: impl Fn(&Event) -> bool) -> usize {
    let mut found = 0;
    while let Some(stamped) = events.try_next() {
        found += usize::from(wanted(&stamped.event));
    }
    found
}

#[tokio::test(start_paused = true)]
async fn a_request_without_an_answer_after_the_delay_is_given_to_a_sibling_as_well() {
    let (first, second) = (Script::echo(), Script::echo());
    takes(&first, ms(10_000), "first");
    takes(&second, ms(500), "second");
    let (system, port) = start(hedged(&first, &second)).await;
    let mut events = system.events();
    let answer: Answer<String> = port.call("q").await.unwrap();
    assert_eq!((answer.value.as_str(), answer.elapsed), ("second", HEDGE + ms(500)));
    assert_eq!((answer.served_by.as_str(), answer.attempts), ("app/llm/second", 2));
    // Another member gave it, so it is not what the primary would have said.
    assert!(answer.degraded && answer.trail.is_empty());
    assert_eq!(counts(&system), (1, 1, 0));
    let deliveries = [first.attempts()[0].delivery.0, second.attempts()[0].delivery.0];
    assert_eq!(deliveries, [1, 2]);
    let hedged = |event: &Event| {
        matches!(event, Event::Hedged { group, from, to, after, .. } if *group == "app/llm"
            && *from == "app/llm/first" && *to == "app/llm/second" && *after == HEDGE)
    };
    assert_eq!(seen(&mut events, hedged), 1);
    assert_eq!((system.fates().done, system.fates().open), (1, 0));
    let text = format!("{:#}", system.tree());
    assert!(text.contains("1 won of 1"), "{text}");
    // One slow request has not made the second the one that serves.
    assert_eq!(port.call("again").await.unwrap().served_by, "app/llm/first");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_answered_in_time_is_not_hedged() {
    let (first, second) = (Script::echo(), Script::echo());
    takes(&first, HEDGE - ms(1), "first");
    let (system, port) = start(hedged(&first, &second)).await;
    assert_eq!(port.call("q").await.unwrap().value, "first");
    tokio::time::advance(ms(5000)).await;
    assert_eq!((second.count(), counts(&system)), (0, (0, 0, 0)));
}

#[tokio::test(start_paused = true)]
async fn the_slower_copy_is_called_off_when_the_first_member_answers_after_all() {
    let (first, second) = (Script::echo(), Script::echo());
    takes(&first, ms(3000), "first");
    second.then_hang();
    let (system, port) = start(hedged(&first, &second)).await;
    let answer = port.call("q").await.unwrap();
    assert_eq!((answer.value.as_str(), answer.elapsed), ("first", ms(3000)));
    assert!(!answer.degraded);
    assert_eq!(counts(&system), (1, 0, 0));
    // It hangs for ever, and yet the supervisor's stop need not wait for it.
    let before = tokio::time::Instant::now();
    system.stop().await;
    assert_eq!(before.elapsed(), Duration::ZERO);
    assert_eq!(system.stats().failures.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_result_that_comes_after_the_winner_is_stale_and_changes_nothing() {
    let (first, second) = (Script::echo(), Script::echo());
    takes(&first, HEDGE + ms(500), "first");
    takes(&second, ms(500), "second");
    let (system, port) = start(hedged(&first, &second)).await;
    let mut events = system.events();
    let answer = port.call("q").await.unwrap();
    assert_eq!(answer.elapsed, HEDGE + ms(500));
    tokio::time::advance(ms(1)).await;
    let fates = system.fates();
    assert_eq!((fates.accepted, fates.done, fates.open), (1, 1, 0));
    let fated = |event: &Event| matches!(event, Event::Fated { .. });
    assert_eq!(seen(&mut events, fated), 1);
    assert_eq!(system.stats().stale, 1);
}

#[tokio::test(start_paused = true)]
async fn the_delay_can_be_the_time_that_95_of_100_requests_keep() {
    let (first, second) = (Script::echo(), Script::echo());
    let spec = hedged(&first, &second).hedge(Hedge::p95());
    let (system, port) = start(spec).await;
    // Too few for a percentile: nothing is hedged, however slow.
    for _ in 0..19 {
        takes(&first, ms(100), "first");
        port.call("q").await.unwrap();
    }
    takes(&first, ms(9000), "first");
    assert_eq!(port.call("q").await.unwrap().elapsed, ms(9000));
    assert_eq!(counts(&system), (0, 0, 0));
    // Of 20, all but the slowest took 100 ms: the edge of that bucket is 106,496 us.
    takes(&first, ms(9000), "first");
    takes(&second, ms(50), "second");
    assert_eq!(port.call("q").await.unwrap().elapsed, ms(107) + ms(50));
    assert_eq!(counts(&system), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn at_the_deadline_both_copies_are_called_off_and_there_is_one_fate() {
    let (first, second) = (Script::echo(), Script::echo());
    first.then_hang();
    second.then_hang();
    let (system, port) = start(hedged(&first, &second)).await;
    let options = CallOptions::new().deadline(ms(5000));
    let error = port.call_with("q", options).await.unwrap_err();
    let CallError::Expired { waited, .. } = error else { panic!("{error}") };
    assert_eq!(waited, ms(5000));
    tokio::time::advance(ms(60_000)).await;
    let fates = system.fates();
    assert_eq!((fates.expired, fates.open, fates.ended()), (1, 0, 1));
    assert_eq!((first.count(), second.count()), (1, 1));
    // A deadline that leaves no time for the copy: there is none.
    let options = CallOptions::new().deadline(HEDGE);
    first.then_hang();
    port.call_with("q", options).await.unwrap_err();
    assert_eq!(counts(&system), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn when_both_copies_fail_the_ladder_goes_on_once_where_the_last_one_failed() {
    for (one, other, last) in [(2500, 1000, "first"), (3000, 500, "first"), (2500, 800, "second")] {
        let (first, second) = (Script::echo(), Script::echo());
        // `first` fails after `one`, `second` after the hedge and `other`.
        let (a, b) = if last == "first" { (one + 1000, other) } else { (one, other) };
        fails(&first, ms(a), Class::Network);
        fails(&second, ms(b), Class::Network);
        let (system, port) = start(hedged(&first, &second)).await;
        let answer = port.call("q").await.unwrap();
        let ended = ms(a).max(HEDGE + ms(b));
        // The first retry of its class comes a second later, at the member that failed last.
        assert_eq!(answer.elapsed, ended + ms(1000));
        assert_eq!(answer.served_by.id(), last);
        let actions: Vec<_> = answer.trail.iter().map(|attempt| attempt.action).collect();
        assert!(
            matches!(actions[..], [Action::AwaitCopy, Action::Retry { .. }]),
            "{}: {actions:?}",
            answer.trail
        );
        assert_eq!(answer.attempts, 3);
        let mut numbers: Vec<_> = first.attempts().iter().map(|a| a.delivery.0).collect();
        numbers.extend(second.attempts().iter().map(|a| a.delivery.0));
        numbers.sort_unstable();
        assert_eq!(numbers, [1, 2, 3], "no two hand-outs have one number");
        let stats = system.stats();
        assert_eq!((stats.failures[&Class::Network], stats.retries[&Class::Network]), (2, 1));
        assert_eq!(counts(&system), (1, 0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_fails_alone_is_not_missed() {
    let (first, second) = (Script::echo(), Script::echo());
    takes(&first, ms(6000), "first");
    fails(&second, ms(100), Class::Permission);
    let (system, port) = start(hedged(&first, &second)).await;
    let answer = port.call("q").await.unwrap();
    assert_eq!((answer.value.as_str(), answer.elapsed), ("first", ms(6000)));
    assert_eq!((system.stats().alerts, counts(&system)), (0, (1, 0, 0)));
}

/// What a hedge says that has found the other at work.
fn stands_back(script: &Script, delay: Duration) {
    let fault = Fault::cancelled("the other one has it").not_applied();
    script.then(Cue::Fail(fault).after(delay));
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_stood_back_may_have_the_request_when_the_other_fails() {
    let (first, second) = (Script::echo(), Script::echo());
    fails(&first, ms(3000), Class::ModelUnavailable);
    stands_back(&second, ms(100));
    takes(&second, ms(100), "second");
    let (system, port) = start(hedged(&first, &second)).await;
    let answer = port.call("q").await.unwrap();
    assert_eq!((answer.value.as_str(), answer.elapsed), ("second", ms(3100)));
    assert_eq!(counts(&system), (1, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_stood_back_for_one_that_has_failed_meanwhile_is_tried_again() {
    let (first, second) = (Script::echo(), Script::echo());
    fails(&first, ms(2500), Class::Network);
    stands_back(&second, ms(600));
    takes(&second, ms(100), "second");
    let (system, port) = start(hedged(&first, &second)).await;
    let answer = port.call("q").await.unwrap();
    assert_eq!((answer.value.as_str(), answer.elapsed), ("second", ms(3700)));
    // What is cancelled for another reason stays so.
    fails(&first, ms(2500), Class::Network);
    fails(&second, ms(600), Class::Cancelled);
    let error = port.call("q").await.unwrap_err();
    assert!(matches!(error, CallError::Cancelled { .. }), "{error:?}");
    system.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_is_told_to_wait_closes_its_quota_domain_and_says_so() {
    let (first, second) = (Script::echo(), Script::echo());
    takes(&first, ms(6000), "first");
    let slow_down = Fault::rate_limit("slow down").with_retry_after(ms(60_000));
    second.then(Cue::Fail(slow_down).after(ms(100)));
    let group = GroupSpec::model("llm")
        .member_spec(reader(&first, "first"))
        .member_spec(reader(&second, "second").quota_domain("account"))
        .hedge(Hedge::after(HEDGE))
        .policy(Policy::playbook_exact());
    let (system, port) = start(group).await;
    let mut events = system.events();
    assert_eq!(port.call("q").await.unwrap().value, "first");
    let closed =
        |event: &Event| matches!(event, Event::DomainClosed { domain, .. } if domain == "account");
    assert_eq!(seen(&mut events, closed), 1);
    // So the next slow request gets no copy there.
    takes(&first, ms(6000), "again");
    assert_eq!(port.call("q").await.unwrap().value, "again");
    assert_eq!((second.count(), counts(&system)), (1, (1, 0, 0)));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_ends_a_life_with_each_of_its_copies_is_quarantined() {
    let (first, second) = (Script::echo(), Script::echo());
    first.then(Cue::Panic(Payload::Text("one".into())).after(ms(3000)));
    second.then(Cue::Panic(Payload::Text("two".into())).after(ms(500)));
    let (system, port) = start(hedged(&first, &second).intensity(9, ms(1000))).await;
    let error = port.call("q").await.unwrap_err();
    assert!(matches!(error, CallError::Quarantined { .. }), "{error}");
    assert_eq!((first.count(), second.count(), system.fates().quarantined), (1, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_leaves_calls_both_copies_off() {
    let (first, second) = (Script::echo(), Script::echo());
    first.then_hang();
    second.then_hang();
    let (system, port) = start(hedged(&first, &second)).await;
    let mut events = system.events();
    let call = port.call("q");
    let left = tokio::time::timeout(ms(4000), call).await;
    assert!(left.is_err());
    events.wait_for(|event| matches!(event, Event::Fated { .. })).await.unwrap();
    let fates = system.fates();
    assert_eq!((fates.cancelled, fates.open, fates.ended()), (1, 0, 1));
    let before = tokio::time::Instant::now();
    system.stop().await;
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_draws_on_the_request_budget_and_without_one_there_is_none() {
    let (first, second) = (Script::echo(), Script::echo());
    takes(&first, ms(8000), "first");
    let (system, port) = start(hedged(&first, &second)).await;
    let mut events = system.events();
    let one = Limits { attempts: Some(1), ..Limits::default() };
    let answer = port.call_with("q", CallOptions::new().budget(one)).await.unwrap();
    assert_eq!((answer.value.as_str(), answer.elapsed), ("first", ms(8000)));
    let why = |event: &Event| matches!(event, Event::NotHedged { why: NoHedge::RequestBudget, group, .. } if *group == "app/llm");
    assert_eq!((seen(&mut events, why), second.count()), (1, 0));
    assert_eq!(counts(&system), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn no_more_than_three_or_a_fifth_of_the_requests_are_hedged_at_a_time() {
    for (all, expected) in [(10, 3), (40, 8)] {
        let (first, second) = (Script::echo(), Script::echo());
        for _ in 0..all {
            takes(&first, ms(20_000), "first");
        }
        second.otherwise(|| Cue::Hang);
        let (system, port) = start(hedged(&first, &second)).await;
        let mut events = system.events();
        let calls: Vec<_> = (0..all)
            .map(|_| {
                let port = port.clone();
                tokio::spawn(async move { port.call("q").await.map(|answer| answer.elapsed) })
            })
            .collect();
        for call in calls {
            assert_eq!(call.await.unwrap().unwrap(), ms(20_000));
        }
        assert_eq!(counts(&system), (expected, 0, 0));
        let crowded =
            |event: &Event| matches!(event, Event::NotHedged { why: NoHedge::Crowded { .. }, .. });
        assert_eq!(seen(&mut events, crowded) as u64, all - expected);
        assert_eq!((system.fates().done, system.fates().open), (all, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_retry_budget_means_no_hedge_and_no_failure() {
    let (first, second) = (Script::echo(), Script::echo());
    first.otherwise(|| Cue::Reply("first".to_owned()).after(ms(3000)));
    second.otherwise(|| Cue::Hang);
    let (system, port) = start(hedged(&first, &second)).await;
    let mut events = system.events();
    for _ in 0..50 {
        assert_eq!(port.call("q").await.unwrap().elapsed, ms(3000));
    }
    // 500 tokens, 14 a hedge; the sibling gives no answers that would give some back.
    assert_eq!(counts(&system), (35, 0, 0));
    let empty = |event: &Event| matches!(event, Event::NotHedged { why: NoHedge::RetryBudget, .. });
    assert_eq!(seen(&mut events, empty), 15);
}

#[tokio::test(start_paused = true)]
async fn a_copy_goes_to_nobody_who_does_less_or_who_is_not_allowed() {
    let (first, second, third) = (Script::echo(), Script::echo(), Script::echo());
    takes(&first, ms(9000), "first");
    let spec = GroupSpec::model("llm")
        .member_spec(reader(&first, "first"))
        .member_spec(reader(&second, "simple").role(Role::Simplified))
        .member_spec(reader(&third, "third"))
        .hedge(Hedge::after(HEDGE));
    let (system, port) = start(spec.clone().allow("first", ["simple"])).await;
    let mut events = system.events();
    assert_eq!(port.call("q").await.unwrap().value, "first");
    let nobody = |event: &Event| matches!(event, Event::NotHedged { why: NoHedge::NoSibling, .. });
    assert_eq!((seen(&mut events, nobody), counts(&system)), (1, (0, 0, 0)));
    takes(&first, ms(9000), "first");
    let (system, port) = start(spec).await;
    assert_eq!(port.call("q").await.unwrap().served_by, "app/llm/third");
    assert_eq!((second.count(), counts(&system)), (0, (1, 1, 0)));
}

/// Says what it has cost, and answers or does not.
#[derive(Clone)]
struct Paid(u64, bool);

impl Behavior for Paid {
    type Request = String;
    type Reply = String;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Idempotent);
}

impl Stateless for Paid {
    async fn serve(&self, _: &String, ctx: &Context) -> Result<String, Fault> {
        ctx.spend(Cost { tokens: self.0, money_micros: 0 });
        if self.1 { Ok("paid".to_owned()) } else { pending().await }
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_slower_copy_has_cost_is_in_the_answer_and_in_the_budget() {
    let spec = GroupSpec::model("llm")
        .member("first", Paid(40, false))
        .member("second", Paid(7, true))
        .hedge(Hedge::after(HEDGE));
    let (_system, port) = start(spec).await;
    let all = Limits { tokens: Some(60), ..Limits::default() };
    let answer = port.call_with("q", CallOptions::new().budget(all)).await.unwrap();
    assert_eq!(answer.served_by, "app/llm/second");
    assert_eq!(answer.cost, Cost { tokens: 47, money_micros: 0 });
}

#[test]
fn a_group_whose_members_cannot_bear_a_second_copy_is_refused() {
    let refused = |group: GroupSpec| {
        let root = SupervisorSpec::one_for_one("app").group(group);
        root.validate().unwrap_err()
    };
    let script: Script = Script::echo();
    let plain = || reader(&script, "first");
    let group = || GroupSpec::model("llm").hedge(Hedge::after(HEDGE));
    let blind = script.stateless("blind").effect(EffectKind::Irreversible);
    let error = refused(group().member_spec(plain()).member_spec(blind));
    assert_eq!(
        error.to_string(),
        "\"app/llm/blind\": the effect Irreversible, which is not replay-safe and a group that hedges \
         exclude each other"
    );
    let stateful = script.stateful("agent");
    let error = refused(group().member_spec(plain()).member_spec(stateful));
    assert!(error.to_string().starts_with("\"app/llm/agent\": a member with state"), "{error}");
    let default = reader(&script, "default").role(Role::Default);
    for alone in [group().member_spec(plain()), group().member_spec(plain()).member_spec(default)] {
        let error = refused(alone);
        assert!(
            matches!(&error, SpecError::BadCombination { path, .. } if path == "app/llm"),
            "{error}"
        );
    }
    let now = GroupSpec::model("llm").hedge(Hedge::after(Duration::ZERO));
    let error = refused(now.member_spec(plain()).member_spec(reader(&script, "second")));
    assert!(matches!(&error, SpecError::Zero { what: "the delay of a hedge", .. }), "{error}");
    let many =
        (0..65).fold(group(), |group, n| group.member_spec(reader(&script, &format!("{n}"))));
    let expected = SpecError::ChainTooLong { path: "app/llm".into(), members: 65, limit: 6 };
    assert_eq!(refused(many), expected);
    // What is no sibling of the same work is never asked at the same time, so anything goes.
    let person = script.stateless("person").role(Role::Human);
    let second = reader(&script, "second");
    let fine = group().member_spec(plain()).member_spec(second).member_spec(person);
    SupervisorSpec::one_for_one("app").group(fine).validate().unwrap();
}

#[tokio::test(start_paused = true)]
async fn fates_add_up_under_a_storm_of_slow_failing_and_dying_members() {
    for seed in 1..=12_u64 {
        println!("seed {seed}");
        let scripts: Vec<Script> = (0..3).map(|_| Script::echo()).collect();
        for (at, script) in scripts.iter().enumerate() {
            let state = std::sync::atomic::AtomicU64::new(seed * 31 + at as u64 + 1);
            script.otherwise(move || {
                let mut x = state.load(std::sync::atomic::Ordering::Relaxed);
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                state.store(x, std::sync::atomic::Ordering::Relaxed);
                let delay = ms(x / 100 % 700);
                match x % 100 {
                    0..60 => Cue::Usual.after(delay),
                    60..75 => Cue::fail(Class::Network).after(delay),
                    75..85 => Cue::fail(Class::Timeout).after(delay),
                    85..90 => Cue::Panic(Payload::Text("storm".into())).after(delay),
                    90..95 => Cue::fail(Class::Permission),
                    _ => Cue::Hang,
                }
            });
        }
        let mut group = GroupSpec::model("llm")
            .hedge(Hedge::after(ms(150)))
            .intensity(100_000, ms(1000))
            .child_limit(100_000, ms(1000));
        for (at, script) in scripts.iter().enumerate() {
            group = group.member_spec(reader(script, &format!("m{at}")).concurrency(8));
        }
        let (system, port) = start(group).await;
        let calls: Vec<_> = (0..400)
            .map(|n| {
                let port = port.clone();
                tokio::spawn(async move {
                    let options = CallOptions::new().deadline(ms(500 + n % 7 * 3000));
                    let call = port.call_with(n.to_string(), options);
                    if n % 11 == 0 {
                        return tokio::time::timeout(ms(n % 300), call).await.is_ok();
                    }
                    if let Ok(answer) = call.await {
                        assert_eq!(answer.value, n.to_string());
                    }
                    true
                })
            })
            .collect();
        for call in calls {
            call.await.unwrap();
        }
        // What its callers have left is ended, too, once its attempts are.
        tokio::time::advance(ms(120_000)).await;
        let fates = system.fates();
        assert!(fates.is_balanced() && fates.open == 0 && fates.accepted == 400, "{fates:?}");
        let (sent, won, _) = counts(&system);
        assert!(sent > 10 && won > 0 && won <= sent, "{sent} sent, {won} won");
        let tree = system.tree();
        assert!(tree.nodes().all(|node| node.in_flight() == 0 && node.mailbox() == 0), "{tree:#}");
        system.stop().await;
        assert!(system.fates().is_balanced());
    }
}

/// On real threads copies are sent, answered, called off and fail at the same moments.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fates_add_up_when_copies_race_on_two_threads() {
    let scripts: Vec<Script> = (0..2).map(|_| Script::echo()).collect();
    for (at, script) in scripts.iter().enumerate() {
        let turn = std::sync::atomic::AtomicUsize::new(at);
        script.otherwise(move || {
            let turn = turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let cue = match turn % 5 {
                0..3 => Cue::Usual,
                3 => Cue::fail(Class::Permission),
                _ if turn % 50 == 4 => Cue::Panic(Payload::Text("race".into())),
                _ => Cue::Hang,
            };
            cue.after(ms(turn as u64 % 3))
        });
    }
    let group = hedged(&scripts[0], &scripts[1])
        .hedge(Hedge::after(ms(1)))
        // Open circuits would only make it wait.
        .circuit(CircuitSpec::default().with_threshold(100, u32::MAX))
        .intensity(1_000_000, ms(1000))
        .child_limit(1_000_000, ms(1000));
    let (system, port) = start(group).await;
    for _ in 0..20 {
        let calls: Vec<_> = (0..100)
            .map(|n| {
                let port = port.clone();
                let options = CallOptions::new().deadline(ms(3 + n % 30));
                tokio::spawn(async move {
                    port.call_with(n.to_string(), options).await.map(|a| (n, a.value))
                })
            })
            .collect();
        for call in calls {
            if let Ok((n, value)) = call.await.unwrap() {
                assert_eq!(value, n.to_string());
            }
        }
    }
    let fates = system.fates();
    assert_eq!((fates.accepted, fates.open, fates.ended()), (2000, 0, 2000), "{fates:?}");
    let (sent, won, _) = counts(&system);
    assert!(sent > 0 && won <= sent, "{sent} sent, {won} won");
    system.stop().await;
}
