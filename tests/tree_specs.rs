//! A tree that cannot be run is refused as a whole, before anything starts, and the error names who it
//! is about.

use std::num::NonZeroUsize;
use std::time::Duration;

use mainstay::behavior::{Behavior, Context, Stateless};
use mainstay::circuit::CircuitSpec;
use mainstay::error::{SpecError, StartError};
use mainstay::fault::{Class, EffectKind, Fault};
use mainstay::policy::{Backoff, Policy};
use mainstay::port::Port;
use mainstay::spec::acting::{Irreversible, Read};
use mainstay::spec::{
    AutoShutdown, Capabilities, ChildSpec, Grant, GroupSpec, RestartType, SupervisorSpec,
};
use mainstay::system::System;

#[path = "tree/kit.rs"]
mod kit;

use kit::{Do, Kit, secs};

type WorkerPort = Port<Do, u32>;

const ZERO: Duration = Duration::ZERO;

fn child(id: &str) -> ChildSpec {
    Kit::new().child(id)
}

fn top() -> SupervisorSpec {
    SupervisorSpec::one_for_one("top")
}

/// A group `g` of `a`, `b`, `c`.
fn group() -> GroupSpec {
    ["a", "b", "c"].into_iter().fold(GroupSpec::model("g"), |g, id| g.member_spec(child(id)))
}

fn refusal(spec: &SupervisorSpec) -> String {
    match spec.validate() {
        Ok(()) => "nothing".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[track_caller]
fn refused(spec: SupervisorSpec, expected: &str) {
    assert_eq!(refusal(&spec), expected);
}

#[test]
fn a_sound_tree_is_accepted() {
    let inner = SupervisorSpec::rest_for_one("in").child(child("b").needs::<WorkerPort>("a"));
    let significant = SupervisorSpec::one_for_all("sig")
        .child(child("s").transient().significant())
        .auto_shutdown(AutoShutdown::AnySignificant);
    let spec = top().child(child("a")).supervisor(inner).supervisor(significant).group(group());
    assert_eq!(refusal(&spec), "nothing");
}

#[test]
fn ids_are_there_once_and_are_one_part_of_a_path() {
    let text = |id: &str| {
        format!("id {id:?} in \"top\": use a non-empty id without '/' and control characters")
    };
    for id in ["", "a/b", "a\nb"] {
        refused(top().child(child(id)), &text(id));
        refused(top().supervisor(SupervisorSpec::one_for_one(id)), &text(id));
        refused(top().group(GroupSpec::tool(id).member_spec(child("x"))), &text(id));
        let root = SupervisorSpec::one_for_one(id);
        assert!(matches!(root.validate(), Err(SpecError::InvalidId { .. })));
    }
    let twice = "child \"a\" stands twice in \"top\"";
    refused(top().child(child("a")).child(child("a")), twice);
    refused(top().child(child("a")).supervisor(SupervisorSpec::dynamic("a")), twice);
    refused(top().group(GroupSpec::tool("a").member_spec(child("x"))).child(child("a")), twice);
    refused(top().group(group().member_spec(child("b"))), "child \"b\" stands twice in \"top/g\"");
    let below = SupervisorSpec::one_for_one("in").child(child("a"));
    assert_eq!(refusal(&top().child(child("a")).supervisor(below)), "nothing", "other paths");
}

#[test]
fn no_limit_counts_within_no_time() {
    refused(top().intensity(1, ZERO), "\"top\": the period of the restart intensity is zero");
    refused(top().child_limit(1, ZERO), "\"top\": the period of the child limit is zero");
    let inner = SupervisorSpec::dynamic("in").intensity(1, ZERO);
    refused(top().supervisor(inner), "\"top/in\": the period of the restart intensity is zero");
    let text = "\"top/a\": the period of the child limit is zero";
    refused(top().child(child("a").child_limit(1, ZERO)), text);
    let text = "\"top/g\": the period of the restart intensity is zero";
    refused(top().group(group().intensity(1, ZERO)), text);
    refused(top().restart_backoff(ZERO, secs(1)), "\"top\": the restart backoff is zero");
    let text = "\"top\": the restart backoff is 2s, at most its maximum, 1s";
    refused(top().restart_backoff(secs(2), secs(1)), text);
}

#[test]
fn what_must_be_something_is_not_zero() {
    for (spec, what) in [
        (child("a").concurrency(0), "the concurrency"),
        (child("a").mailbox(0), "the mailbox"),
        (child("a").mailbox_bytes(0, |_: &Do| 1), "the mailbox in bytes"),
        (child("a").attempt_timeout(ZERO), "the attempt timeout"),
        (child("a").start_timeout(ZERO), "the start timeout"),
        (child("a").deadline(ZERO), "the deadline"),
    ] {
        refused(top().child(spec), &format!("\"top/a\": {what} is zero"));
    }
    refused(top().group(group().deadline(ZERO)), "\"top/g\": the deadline is zero");
}

#[test]
fn what_excludes_each_other_is_refused() {
    let exclude = |path: &str, one: &str, other: &str| {
        format!("\"{path}\": {one} and {other} exclude each other")
    };
    let auto = || top().auto_shutdown(AutoShutdown::AnySignificant);
    let permanent = exclude("top/a", "significant", "permanent, which does not end by itself");
    refused(auto().child(child("a").significant()), &permanent);
    refused(auto().supervisor(SupervisorSpec::one_for_one("a").significant()), &permanent);
    let never = exclude("top/a", "significant", "a supervisor that never shuts down by itself");
    refused(top().child(child("a").transient().significant()), &never);
    let inner = SupervisorSpec::dynamic("a").restart(RestartType::Temporary).significant();
    refused(top().supervisor(inner), &never);
    let text = exclude("top/a", "stateful", "a concurrency of 2");
    refused(top().child(child("a").concurrency(2)), &text);
    let weight = "the weight of a mailbox in bytes";
    let text = exclude("top/a", weight, "a behavior with another request type");
    refused(top().child(child("a").mailbox_bytes(1, |_: &u8| 1)), &text);
    let text = "\"top/a\": a deadline of 1s leaves no time for one attempt of 2s";
    refused(top().child(child("a").deadline(secs(1)).attempt_timeout(secs(2))), text);
    let two = NonZeroUsize::new(2).unwrap();
    let many = top().child(child("a")).child(child("b")).child(child("c")).max_children(two);
    refused(many, "\"top\": the number of children is 3, at most max_children, 2");
}

#[test]
fn needs_exist_have_their_type_and_form_no_cycle() {
    let text =
        "child \"top/a\" needs \"llm\", and there is no such child or group beside or above it";
    refused(top().child(child("a").needs::<WorkerPort>("llm")), text);
    let inner = SupervisorSpec::one_for_one("llm").child(child("x"));
    refused(top().child(child("a").needs::<WorkerPort>("llm")).supervisor(inner), text);
    let spec = top().child(child("llm")).child(child("a").needs::<Port<u8, u8>>("llm"));
    let refusal = refusal(&spec);
    assert!(refusal.starts_with("child \"top/a\" needs \"llm\" as "), "{refusal}");
    assert!(refusal.contains("Port<u8, u8>") && refusal.contains("Do, u32>"), "{refusal}");
    let cycle = top()
        .child(child("a").needs::<WorkerPort>("b"))
        .child(child("b").needs::<WorkerPort>("c"))
        .child(child("c").needs::<WorkerPort>("a"));
    refused(cycle, "needs form a cycle: top/a -> top/b -> top/c -> top/a");
    let member = child("x").needs::<WorkerPort>("g");
    let spec = top().group(GroupSpec::tool("g").member_spec(member));
    refused(spec, "needs form a cycle: top/g -> top/g/x -> top/g");
    // A need of its own name is looked for above, never found in itself.
    let inner = SupervisorSpec::one_for_one("in").child(child("a").needs::<WorkerPort>("a"));
    assert_eq!(self::refusal(&top().child(child("a")).supervisor(inner)), "nothing");
}

#[test]
fn a_fallback_path_has_members_is_monitored_and_comes_to_an_end() {
    refused(top().group(GroupSpec::model("g")), "group \"top/g\" has no members");
    let text = "group \"top/g\" is not monitored; a fallback path without metrics, objective or rule is refused";
    refused(top().group(group().unmonitored()), text);
    let text = "group \"top/g\": the fallback path a -> b -> a is a cycle";
    refused(top().group(group().allow("a", ["b"]).allow("b", ["a"])), text);
    // Who has no list of its own may hand on to all who follow, which closes the circle.
    refused(top().group(group().allow("b", ["a"])), text);
    let text = "\"top/g\": an allow-list of \"a\" and a second one exclude each other";
    refused(top().group(group().allow("a", ["b"]).allow("a", ["c"])), text);
    let text = "group \"top/g\": the fallback path c -> c is a cycle";
    refused(top().group(group().allow("c", ["c"])), text);
    let text = "group \"top/g\": the allow-list of \"a\" names \"z\", which is no member";
    refused(top().group(group().allow("a", ["b", "z"])), text);
    let text = "group \"top/g\": the allow-list of \"z\" names \"z\", which is no member";
    refused(top().group(group().allow("z", ["a"])), text);
    let long = (0..7).fold(GroupSpec::data("g"), |g, n| g.member_spec(child(&format!("m{n}"))));
    refused(top().group(long), "group \"top/g\" has 7 members, a chain has at most 6");
}

#[test]
fn a_member_takes_what_the_first_takes_and_is_no_weaker_without_a_grant() {
    struct Other;
    impl mainstay::behavior::Behavior for Other {
        type Request = u8;
        type Reply = u8;
    }
    impl mainstay::behavior::Stateless for Other {
        async fn serve(
            &self,
            request: &u8,
            _: &mainstay::behavior::Context,
        ) -> Result<u8, mainstay::fault::Fault> {
            Ok(*request)
        }
    }
    let mixed = group().member_spec(ChildSpec::stateless("other", || Other));
    let error = refusal(&top().group(mixed));
    assert!(error.starts_with("group \"top/g\": member \"other\" is "), "{error}");

    let strong = Capabilities { guardrail: 2, ..Capabilities::default() };
    let weak = |id: &str| child(id).capabilities(Capabilities::default());
    let pair = || {
        let first = child("a").capabilities(strong.clone());
        GroupSpec::model("g").member_spec(first).member_spec(weak("b"))
    };
    let text = "group \"top/g\": member \"b\" has a lower guardrail level than \"a\"; \
                grant it with an owner and a reason";
    refused(top().group(pair()), text);
    assert_eq!(refusal(&top().group(pair().grant("b", Grant::new("ada", "a trial")))), "nothing");
    for grant in [Grant::new(" ", "a trial"), Grant::new("ada", "")] {
        let error = top().group(pair().grant("b", grant)).validate();
        let expected = SpecError::GrantWithoutReason { path: "top/g".into(), member: "b".into() };
        assert_eq!(error, Err(expected));
    }
    // The primary is the first member, whoever failed last: one that is safer than it binds nobody after
    // it, and a chain through one with a grant ends at nobody who is weaker.
    let level = |guardrail| Capabilities { guardrail, ..Capabilities::default() };
    let chain = |last| {
        GroupSpec::model("g")
            .member_spec(child("a").capabilities(level(2)))
            .member_spec(child("b").capabilities(level(5)))
            .member_spec(child("c").capabilities(level(0)))
            .member_spec(child("d").capabilities(level(last)))
            .grant("c", Grant::new("ann", "drill"))
            .allow("b", ["c", "d"])
            .allow("c", ["d"])
    };
    top().group(chain(2)).validate().unwrap();
    let text = "group \"top/g\": member \"d\" has a lower guardrail level than \"a\"; \
                grant it with an owner and a reason";
    refused(top().group(chain(1)), text);
    // Who declares nothing grants nothing: a substitute with rights of its own needs a grant.
    let rights = Capabilities { tool_rights: ["refund".into()].into(), ..Capabilities::default() };
    let armed = group().member_spec(child("d").capabilities(rights));
    let text = "group \"top/g\": member \"d\" has more tool rights than \"a\"; \
                grant it with an owner and a reason";
    refused(top().group(armed), text);
}

#[test]
fn a_policy_keeps_its_limits_wherever_it_stands() {
    let above = Policy::new().with_cap(Class::Network, 4);
    let text = |path: &str| {
        format!(
            "\"{path}\": network may be retried 4 times, but at most 3 retries a request are allowed"
        )
    };
    refused(top().policy(above.clone()), &text("top"));
    refused(top().child(child("a").policy(above.clone())), &text("top/a"));
    refused(top().group(group().policy(above.clone())), &text("top/g"));
    let inner = SupervisorSpec::one_for_all("in").policy(above);
    refused(top().supervisor(inner), &text("top/in"));
    for (policy, what) in [
        (Policy::new().with_cap(Class::Permission, 1), "the retry cap is 1 for permission"),
        (Policy::new().with_global_cap(4), "the global retry cap is 4"),
        (Policy::new().with_max_delay(secs(31)), "the longest delay is 31s"),
        (Policy::new().with_max_delay(ZERO), "the longest delay is zero"),
        (Policy::new().with_attempt_timeout(ZERO), "the attempt timeout is zero"),
        (Policy::new().with_delivery_cap(0), "the delivery cap is zero"),
        (Policy::new().with_depth_limit(6), "the depth limit is 6"),
        (Policy::new().with_crash_redeliveries(2), "the crash redeliveries is 2"),
        (Policy::new().with_tolerance(0, secs(1)), "the tolerance of soft failures is zero"),
        (Policy::new().with_tolerance(10_001, secs(1)), "the tolerance of soft failures is 10001"),
        (Policy::new().with_tolerance(1, ZERO), "the window of the tolerance is zero"),
        (Policy::new().with_min_attempt(secs(31)), "the least time for an attempt is 31s"),
        (
            Policy::new().with_backoff(
                Class::Network,
                Backoff::Exponential { base: secs(1), factor: f64::NAN },
            ),
            "a backoff factor is NaN for network",
        ),
    ] {
        let error = refusal(&top().child(child("a").policy(policy)));
        assert!(error.starts_with(&format!("\"top/a\": {what}")), "{error}");
    }
    for (circuit, what) in [
        (CircuitSpec::new().with_window(ZERO, 5), "the circuit's window is zero"),
        (CircuitSpec::new().with_window(secs(30), 0), "the circuit's least number of requests is"),
        (CircuitSpec::new().with_threshold(0, 3), "the circuit's failure share is 0 %"),
        (CircuitSpec::new().with_threshold(101, 3), "the circuit's failure share is 101 %"),
        (CircuitSpec::new().with_threshold(50, 0), "the circuit's failures in a row is zero"),
        (CircuitSpec::new().with_open(ZERO, secs(1)), "the circuit's open time is zero"),
        (CircuitSpec::new().with_open(secs(9), secs(1)), "the circuit's open time is 9s"),
        (CircuitSpec::new().with_probes(0, 1), "the circuit's probe successes is zero"),
        (CircuitSpec::new().with_probes(1, 0), "the circuit's probes at a time is zero"),
        (CircuitSpec::new().with_probe_timeout(ZERO), "the circuit's probe timeout is zero"),
    ] {
        let error = refusal(&top().group(group().circuit(circuit)));
        assert!(error.starts_with(&format!("\"top/g\": {what}")), "{error}");
    }
}

#[test]
fn what_cannot_be_repeated_is_not_given_a_policy_that_retries() {
    let text = |path: &str| {
        format!(
            "\"{path}\": its policy retries, and its work is irreversible: it says so, or does not say \
             what it does; say it (`ChildSpec::effect`, `acts`), or give it \
             `Policy::without_retries()` or no policy of its own"
        )
    };
    let tool = |effect| child("pay").effect(effect);
    let once = Policy::without_retries();
    let crashes = once.clone().with_crash_redeliveries(1);
    let one_class = once.clone().with_global_cap(1).with_cap(Class::Network, 1);
    for policy in [Policy::new(), crashes, one_class] {
        let irreversible = tool(EffectKind::Irreversible).policy(policy.clone());
        refused(top().child(irreversible.clone()), &text("top/pay"));
        refused(top().group(GroupSpec::tool("g").member_spec(irreversible)), &text("top/g/pay"));
        // The policy came first, and its type says it afterwards.
        let typed = child("pay").policy(policy.clone()).acts::<Irreversible>();
        refused(top().child(typed), &text("top/pay"));
        for effect in [EffectKind::Compensable, EffectKind::Verifiable, EffectKind::Idempotent] {
            refused(top().child(tool(effect).policy(policy.clone())), "nothing");
        }
        let inherited = top().policy(policy).child(tool(EffectKind::Irreversible));
        refused(inherited, "nothing");
    }
    refused(top().child(tool(EffectKind::Irreversible).policy(once)), "nothing");
    // A stateless child that says nothing is irreversible.
    let silent = ChildSpec::stateless("silent", || Silent);
    refused(top().child(silent.clone()), "nothing");
    refused(top().child(silent.clone().policy(Policy::new())), &text("top/silent"));
    refused(top().child(silent.acts::<Read>().policy(Policy::new())), "nothing");
}

/// Does not say what it does.
#[derive(Clone)]
struct Silent;

impl Behavior for Silent {
    type Request = ();
    type Reply = ();
}

impl Stateless for Silent {
    async fn serve(&self, _: &(), _: &Context) -> Result<(), Fault> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_started_for_a_tree_that_is_refused() {
    let kit = Kit::new();
    let spec = top().child(kit.child("a")).child(kit.child("b").mailbox(0));
    let expected = SpecError::Zero { path: "top/b".into(), what: "the mailbox" };
    assert_eq!(System::start(spec).await.unwrap_err(), StartError::Spec(expected));
    assert_eq!(kit.said(), "");
}

#[test]
fn a_tree_is_not_started_without_a_runtime() {
    let start = System::start(top());
    let mut start = std::pin::pin!(start);
    let mut task = std::task::Context::from_waker(std::task::Waker::noop());
    let std::task::Poll::Ready(started) = start.as_mut().poll(&mut task) else {
        panic!("it waits")
    };
    assert_eq!(started.unwrap_err(), StartError::NoRuntime);
}
