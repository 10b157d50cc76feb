//! Quota domains as they are defined in specs.

use mainstay::circuit::DomainSpec;
use mainstay::error::{SpecError, StartError};
use mainstay::spec::AllDown;
use tokio::task::JoinSet;

use super::siblings::{exact, member};
use super::*;

/// Two children of one domain, which is defined where `define` puts it.
async fn shared(
    script: &Script,
    define: impl FnOnce(SupervisorSpec) -> SupervisorSpec,
) -> (System, Texts, Texts) {
    let root = SupervisorSpec::one_for_one("root").policy(Policy::playbook_exact());
    let child = |id| script.stateless(id).concurrency(64).quota_domain("account");
    let root = define(root).child(child("a")).child(child("b"));
    let system = System::start(root).await.unwrap();
    let (a, b) = (system.port("root/a").unwrap(), system.port("root/b").unwrap());
    (system, a, b)
}

fn new() -> DomainSpec {
    DomainSpec::new()
}

#[tokio::test(start_paused = true)]
async fn the_shortest_and_the_longest_closing_of_a_domain_are_kept() {
    for (spec, asked, closed) in [
        (new(), None, 2000),
        (new().with_close(secs(7), secs(300)), None, 7000),
        (new().with_close(secs(2), secs(300)), Some(secs(20)), 20_000),
        (new().with_close(secs(2), secs(9)), Some(secs(20)), 9000),
    ] {
        let script = echo();
        let mut limited = Fault::new(Class::RateLimit, "slow down");
        limited.retry_after = asked;
        script.then_fault(limited);
        let (_system, a, b) = shared(&script, |root| root.quota_domain("account", spec)).await;
        let first = tokio::spawn(async move { a.call("x").await });
        tokio::task::yield_now().await;
        // It stands in the same domain, and waits for it.
        let answer = b.call("y").await.unwrap();
        assert_eq!(whole(answer.elapsed), closed, "{spec:?}");
        first.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_waited_for_a_domain_are_let_in_at_its_rate() {
    for (spec, spacing) in [(new(), 100), (new().with_ramp(4, secs(60)), 250)] {
        let script = echo();
        script.then_fail(Class::RateLimit);
        let define = |root: SupervisorSpec| root.quota_domain("account", spec);
        let (_system, a, b) = shared(&script, define).await;
        let first = tokio::spawn(async move { a.call("x").await });
        tokio::task::yield_now().await;
        let mut calls = JoinSet::new();
        for n in 0..4 {
            let b = b.clone();
            calls.spawn(async move { b.call(n.to_string()).await.unwrap() });
        }
        calls.join_all().await;
        first.await.unwrap().unwrap();
        let mut times = times(&script);
        times.sort_unstable();
        let expected: Vec<u64> =
            std::iter::once(0).chain((0..5).map(|n| 2000 + n * spacing)).collect();
        assert_eq!(times, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn the_retry_budget_of_a_domain_has_the_size_and_the_refund_it_was_given() {
    // One fails twice, so many succeed at once, and one fails once. A retry costs 14; what is not affordable is not
    // retried.
    let retried = |spec: DomainSpec, successes: usize| async move {
        let script = echo();
        let (system, a, b) = shared(&script, |root| root.quota_domain("account", spec)).await;
        script.then_fail(Class::Network);
        script.then_fail(Class::Network);
        let _ = a.call("first").await;
        for n in 0..successes {
            let _ = b.call(n.to_string()).await;
        }
        script.then_fail(Class::Network);
        let _ = a.call("last").await;
        system.stats().retries.get(&Class::Network).copied().unwrap_or_default()
    };
    assert_eq!(retried(new(), 0).await, 3);
    assert_eq!(retried(new().with_retries(0, 1), 2).await, 0);
    // The retry that helps gives back what it has cost, and the one that does not gives nothing.
    assert_eq!(retried(new().with_retries(28, 1), 0).await, 3);
    assert_eq!(retried(new().with_retries(27, 1), 0).await, 1);
    // What succeeds at once gives back the refund.
    assert_eq!(retried(new().with_retries(14, 7), 2).await, 2);
    assert_eq!(retried(new().with_retries(14, 6), 2).await, 1);
    assert_eq!(retried(new().with_retries(14, 20), 1).await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_domain_is_one_thing_wherever_it_is_defined() {
    let spec = new().with_close(secs(5), secs(300));
    let define = |root: SupervisorSpec| root;
    let (_, a) = member("a");
    let (_, b) = member("b");
    let (script, c) = member("c");
    script.then_fail(Class::RateLimit);
    // By the group, by a member of it, and by a child: the same numbers each time.
    let group = exact()
        .quota_domain("account", spec)
        .member_spec(a.quota_domain_with("account", spec))
        .member_spec(b);
    let root = SupervisorSpec::one_for_one("root")
        .policy(Policy::playbook_exact())
        .group(group.clone())
        .child(c.quota_domain("account"));
    let system = System::start(define(root.clone())).await.unwrap();
    let port: Texts = system.port("root/c").unwrap();
    assert_eq!(whole(port.call("x").await.unwrap().elapsed), 5000);

    let other = new().with_close(secs(6), secs(300));
    let (_, d) = member("d");
    let torn = root.child(d.clone().quota_domain_with("account", other));
    let expected = SpecError::DomainConflict {
        domain: "account".into(),
        one: "root/llm".into(),
        other: "root/d".into(),
    };
    assert_eq!(torn.validate(), Err(expected.clone()));
    assert_eq!(
        expected.to_string(),
        "the quota domain \"account\" is one thing in \"root/llm\" and another in \"root/d\""
    );
    // A child that is started later has to agree, too.
    let pool = SupervisorSpec::one_for_one("root")
        .quota_domain("account", spec)
        .supervisor(SupervisorSpec::dynamic("pool"));
    let system = System::start(pool).await.unwrap();
    let pool = system.supervisor("root/pool").unwrap();
    let refused = pool.start_child(d.clone().quota_domain_with("account", other)).await;
    let Err(StartError::Spec(SpecError::DomainConflict { one, other, .. })) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((&*one, &*other), ("root", "root/pool/d"));
    pool.start_child(d.quota_domain_with("account", spec)).await.unwrap();
}

#[test]
fn a_domain_that_cannot_run_is_refused_by_name() {
    for (spec, text) in [
        (new().with_ramp(0, secs(1)), "the domain's ramp rate is zero"),
        (new().with_retries(500, 0), "the domain's refund is zero"),
        (new().with_close(secs(9), secs(3)), "the domain's shortest closing is 9s, at most 3s"),
    ] {
        for root in [
            SupervisorSpec::one_for_one("root").quota_domain("account", spec),
            SupervisorSpec::one_for_one("root")
                .child(echo().stateless("it").quota_domain_with("account", spec)),
        ] {
            let error = root.validate().unwrap_err().to_string();
            assert!(error.contains(text) && error.contains("(quota domain account)"), "{error}");
        }
    }
    let nameless = SupervisorSpec::one_for_one("root").quota_domain(" ", new());
    let error = nameless.validate().unwrap_err().to_string();
    assert!(error.contains("the name of a quota domain"), "{error}");
}

#[test]
fn a_domain_that_is_defined_and_used_by_nobody_is_refused_by_name() {
    let spec = new().with_close(secs(5), secs(300));
    let (_, a) = member("a");
    let (_, b) = member("b");
    // The members say "acount", the group defines "account".
    let slip = exact()
        .quota_domain("account", spec)
        .member_spec(a.clone().quota_domain("acount"))
        .member_spec(b.quota_domain("acount"));
    let root = SupervisorSpec::one_for_one("root").group(slip);
    let expected = SpecError::UnusedDomain { path: "root/llm".into(), domain: "account".into() };
    assert_eq!(root.validate(), Err(expected.clone()));
    assert_eq!(
        expected.to_string(),
        "the quota domain \"account\" is defined in \"root/llm\", and no child uses it: name it with \
         `ChildSpec::quota_domain`"
    );
    // Somebody else in the tree uses it, it is a child's own, or somebody may come who uses it.
    let (_, c) = member("c");
    for fine in [
        root.clone().child(c.clone().quota_domain("account")),
        SupervisorSpec::one_for_one("root").quota_domain("root/c", spec).child(c.clone()),
        SupervisorSpec::one_for_one("root")
            .quota_domain("account", spec)
            .child(c)
            .supervisor(SupervisorSpec::dynamic("pool")),
    ] {
        assert_eq!(fine.validate(), Ok(()));
    }
    // That somebody may come below another supervisor is no excuse.
    assert_eq!(root.supervisor(SupervisorSpec::dynamic("pool")).validate(), Err(expected));
}

#[tokio::test(start_paused = true)]
async fn how_many_attempts_the_requests_of_a_domain_cause_is_in_the_metrics() {
    let spec = new().with_retries(100, 1);
    let (script, a) = member("a");
    let (_, b) = member("b");
    let root = SupervisorSpec::one_for_one("root")
        .policy(Policy::playbook_exact())
        .child(a.effect(EffectKind::Read).quota_domain_with("account", spec))
        .child(b.quota_domain("other"));
    let system = System::start(root).await.unwrap();
    assert_eq!(system.metrics().domains["account"].amplification, None);
    let port: Texts = system.port("root/a").unwrap();
    script.then_fail(Class::Network);
    script.then_fail(Class::Network);
    port.call("x").await.unwrap();
    port.call("y").await.unwrap();
    let domains = system.metrics().domains;
    let account = domains["account"];
    assert_eq!((account.requests, account.attempts), (2, 4));
    assert_eq!((account.amplification, account.above_cap), (Some(2.0), true));
    // Two retries were paid for; the answer of the second gave its cost back, and the other answer one token.
    assert_eq!((account.retry_tokens, account.retry_capacity), (100 - 2 * 14 + 14 + 1, 100));
    assert_eq!(account.closed_for, None);
    assert_eq!((domains["other"].attempts, domains.len()), (0, 2));
    // One that is interrupted is one request, and two attempts.
    script.then_hang();
    let made = script.count();
    let (other, hung) = (port.clone(), tokio::spawn(async move { port.call("k").await.unwrap() }));
    while script.count() == made {
        tokio::task::yield_now().await;
    }
    system.kill("root/a").unwrap();
    hung.await.unwrap();
    let account = system.metrics().domains["account"];
    assert_eq!((account.requests, account.attempts), (3, 6));
    script.then_fail(Class::RateLimit);
    let hurry = CallOptions::new().deadline(secs(1));
    other.call_with("z", hurry).await.unwrap_err();
    let closed = system.metrics().domains["account"].closed_for;
    assert!(closed.is_some_and(|left| left > secs(0) && left <= secs(2)), "{closed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_only_waited_for_its_group_opens_nobodys_circuit() {
    let (first, second) = (echo(), echo());
    first.then_fault(Fault::rate_limit("slow down").with_retry_after(secs(20)));
    let member = |script: &Script, id| script.stateless(id).quota_domain("account");
    let group = GroupSpec::model("llm")
        .member_spec(member(&first, "first"))
        .member_spec(member(&second, "second"))
        .all_down(AllDown::WaitUntil)
        .policy(Policy::playbook_exact());
    let (system, port) = grouped(group).await;
    let mut events = system.events();
    let limited = tokio::spawn({
        let port = port.clone();
        async move { port.call("x").await }
    });
    tokio::task::yield_now().await;
    for _ in 0..3 {
        let options = CallOptions::new().deadline(secs(1));
        let expired = port.call_with("y", options).await;
        assert!(matches!(expired, Err(CallError::Expired { .. })), "{expired:?}");
    }
    assert_eq!((first.count(), second.count()), (1, 0), "nobody was asked");
    while let Some(event) = events.try_next() {
        assert!(!matches!(event.event, Event::Circuit { .. }), "{:?}", event.event);
    }
    assert_eq!(limited.await.unwrap().unwrap().elapsed, secs(20));
}

#[tokio::test(start_paused = true)]
async fn limits_that_a_member_keeps_to_by_itself_close_neither_its_domain_nor_its_circuit() {
    let full = || Fault::rate_limit("my own").with_retry_after(secs(60)).by_own_limits();
    let (script, first) = member("first");
    let (sibling, second) = member("second");
    let group = exact()
        .member_spec(first.quota_domain("account"))
        .member_spec(second.quota_domain("account"));
    let (system, port) = grouped(group).await;
    let mut events = system.events();
    // More in a row than a circuit bears, each for the sibling of the same account.
    for _ in 0..6 {
        script.then_fault(full());
        let answer = port.call("x").await.unwrap();
        assert_eq!(answer.served_by, "root/llm/second");
    }
    // What fits goes where it always goes, at once.
    let answer = port.call("x").await.unwrap();
    assert_eq!(answer.served_by, "root/llm/first");
    // Where nobody has room the caller is told the wait, and the next request is served all the same.
    script.then_fault(full());
    sibling.then_fault(full().with_retry_after(secs(40)));
    let error = port.call("x").await.unwrap_err();
    assert_eq!(error.retry_after(), Some(secs(40)), "{error}");
    assert_eq!(port.call("x").await.unwrap().served_by, "root/llm/first");
    assert_eq!((script.count(), sibling.count(), now(&system)), (9, 7, 0));
    system.stop().await;
    while let Some(stamped) = events.try_next() {
        let event = stamped.event;
        let told = matches!(event, Event::DomainClosed { .. } | Event::Circuit { .. });
        assert!(!told, "{event:?}");
    }
}
