//! What the contract promises in a sentence, and no other test would miss.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mainstay::error::{CallError, ChildError, SpecError, StartError};
use mainstay::event::Event;
use mainstay::fate::{Ended, Fate};
use mainstay::fault::{Class, Fault};
use mainstay::policy::Policy;
use mainstay::port::Port;
use mainstay::spec::{BetweenLives, GroupSpec, SupervisorSpec};
use mainstay::system::{System, SystemOptions};
use mainstay::watch::WatchSpec;
use mainstay_actors::scripted::Script;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};

type Texts = Port<String, String>;

fn echo() -> Script {
    Script::echo()
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[tokio::test(start_paused = true)]
async fn a_lazy_child_begins_its_first_life_with_its_first_request() {
    for lazy in [false, true] {
        let script = echo();
        let child = script.stateless("it");
        let child = if lazy { child.lazy() } else { child };
        let system = System::start(SupervisorSpec::one_for_one("root").child(child)).await.unwrap();
        let mut events = system.events();
        tokio::time::advance(secs(60)).await;
        assert_eq!(script.built(), u64::from(!lazy));
        let tree = system.tree().to_string();
        assert_eq!(tree.contains("unstarted"), lazy, "{tree}");
        let port: Texts = system.port("root/it").unwrap();
        assert_eq!(port.call("x").await.unwrap().value, "x");
        assert_eq!(script.built(), 1);
        let mut started = 0;
        while let Some(stamped) = events.try_next() {
            started += usize::from(matches!(stamped.event, Event::Started { .. }));
        }
        assert_eq!(started, usize::from(lazy));
    }
}

#[tokio::test(start_paused = true)]
async fn a_mailbox_is_full_by_weight_and_names_the_child_that_is() {
    let script = echo();
    script.then_wait();
    let child = script.stateless("it").mailbox_bytes(10, String::len);
    let system = System::start(SupervisorSpec::one_for_one("root").child(child)).await.unwrap();
    let port: Texts = system.port("root/it").unwrap();
    // The one at work weighs as well, until it is answered.
    port.cast("12345").unwrap();
    port.cast("12345").unwrap();
    let full = port.cast("1").unwrap_err();
    assert_eq!(full.to_string(), "child \"root/it\": mailbox full; the message is returned");
    assert!(matches!(&full, CallError::Full { message, .. } if message == "1"), "{full:?}");
    assert!(full.is_retryable());
    assert_eq!(system.fates().accepted, 2);
}

#[tokio::test(start_paused = true)]
async fn a_full_group_names_itself() {
    let script = echo();
    script.then_hang();
    let group = GroupSpec::model("llm").member_spec(script.stateless("a").mailbox(1));
    let system = System::start(SupervisorSpec::one_for_one("root").group(group)).await.unwrap();
    let port: Texts = system.port("root/llm").unwrap();
    let mut last = Ok(());
    for _ in 0..8 {
        last = last.and(port.cast("x").map(drop));
    }
    let text = "child \"root/llm\": mailbox full; the message is returned";
    assert_eq!(last.unwrap_err().to_string(), text);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_refuses_between_two_lives_is_passed_over() {
    for (between, serves) in [(BetweenLives::Wait, "first"), (BetweenLives::Refuse, "second")] {
        let (first, second) = (echo(), echo());
        let group = GroupSpec::model("llm")
            .member_spec(first.stateless("first").between_lives(between))
            .member_spec(second.stateless("second"));
        let system = System::start(SupervisorSpec::one_for_one("root").group(group)).await.unwrap();
        first.then_born(mainstay_actors::scripted::Birth::StartHangs);
        let mut events = system.events();
        system.kill("root/llm/first").unwrap();
        events.wait_for(|event| matches!(event, Event::Exited { .. })).await.unwrap();
        let port: Texts = system.port("root/llm").unwrap();
        assert_eq!(port.call("x").await.unwrap().served_by.id(), serves);
    }
}

#[tokio::test(start_paused = true)]
async fn the_fate_of_a_cast_is_known_for_ten_minutes() {
    let script = echo();
    let root = SupervisorSpec::one_for_one("root").child(script.stateless("it"));
    let system = System::start(root).await.unwrap();
    let port: Texts = system.port("root/it").unwrap();
    let first = port.cast("x").unwrap();
    assert_eq!(system.fate(first), Some(None), "it is open");
    port.call("y").await.unwrap();
    assert_eq!(system.fate(first), Some(Some(Fate::Done)));
    tokio::time::advance(secs(600)).await;
    assert_eq!(system.fate(first), Some(Some(Fate::Done)));
    tokio::time::advance(secs(1)).await;
    assert_eq!(system.fate(first), None);
    assert_eq!(system.fates().done, 2, "counts are kept for ever");
}

#[tokio::test(start_paused = true)]
async fn the_fates_of_the_last_65536_casts_are_known() {
    let script = echo();
    let root = SupervisorSpec::one_for_one("root").child(script.stateless("it").mailbox(100_000));
    let system = System::start(root).await.unwrap();
    let port: Texts = system.port("root/it").unwrap();
    let first = port.cast("x").unwrap();
    port.call("y").await.unwrap();
    let second = port.cast("x").unwrap();
    let mut receipts: Vec<_> = (1..65_536).map(|_| port.cast("x").unwrap()).collect();
    port.call("y").await.unwrap();
    assert_eq!(system.fate(first), None);
    assert_eq!(system.fate(second), Some(Some(Fate::Done)));
    assert_eq!(system.fate(receipts.pop().unwrap()), Some(Some(Fate::Done)));
}

#[tokio::test(start_paused = true)]
async fn the_dump_says_why_an_attempt_failed_and_what_is_left_for_retries() {
    let script = echo();
    for _ in 0..2 {
        script.then_fault(Fault::network("secret text").with_code("503"));
    }
    let child = script.stateless("it").policy(Policy::playbook_exact());
    let system = System::start(SupervisorSpec::one_for_one("root").child(child)).await.unwrap();
    let port: Texts = system.port("root/it").unwrap();
    port.call("x").await.unwrap();
    let tree = system.tree();
    let json: serde_json::Value = serde_json::from_str(&tree.to_json()).unwrap();
    let child = &json["root"]["children"][0];
    let ended =
        serde_json::to_value(Ended::Fault { class: Class::Network, code: Some("503".to_owned()) });
    assert_eq!(child["last_cause"]["ended"], ended.unwrap(), "{json}");
    assert_eq!(child["last_cause"]["age_ms"], 2000);
    let budget = &child["budgets"][0];
    // A retry costs 14; the one that helped has its cost back.
    let expected = serde_json::json!({ "name": "retries", "left": 486, "limit": 500 });
    assert_eq!(*budget, expected);
    let text = tree.to_string();
    assert!(text.contains("network (503)") && text.contains("retries 486/500"), "{text}");
    assert!(!text.contains("secret"), "{text}");
    // The end of a life is the later cause.
    let mut events = system.events();
    system.kill("root/it").unwrap();
    events.wait_for(|event| matches!(event, Event::Started { .. })).await.unwrap();
    let text = system.tree().to_string();
    assert!(text.contains("killed") && !text.contains("network"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn every_listed_child_has_a_spec_or_is_said_to_be_a_supervisor() {
    let script = echo();
    let root = SupervisorSpec::one_for_one("root")
        .child(script.stateless("it"))
        .group(GroupSpec::model("llm").member_spec(script.stateless("a")))
        .supervisor(SupervisorSpec::dynamic("pool"));
    let system = System::start(root).await.unwrap();
    let top = system.supervisor("root").unwrap();
    for info in top.which_children().await.unwrap() {
        let spec = top.child_spec(&*info.id).await;
        match (&*info.id, spec) {
            ("it", Ok(spec)) => assert_eq!(spec.id(), "it"),
            (id, Err(ChildError::Supervisor(path))) => {
                assert_eq!(path.to_string(), format!("root/{id}"));
                let text = ChildError::Supervisor(path).to_string();
                assert_eq!(
                    text,
                    format!("child \"root/{id}\" is a supervisor, which has no child spec")
                );
            }
            (id, other) => panic!("{id}: {other:?}"),
        }
    }
    let missing = top.child_spec("nobody").await.unwrap_err();
    assert_eq!(missing, ChildError::NotFound("root/nobody".into()));
}

#[tokio::test(start_paused = true)]
async fn a_fallback_path_that_no_objective_and_no_rule_covers_is_refused() {
    let group = || {
        let script = echo();
        GroupSpec::model("llm")
            .member_spec(script.stateless("a"))
            .member_spec(script.stateless("b"))
    };
    let blind = || {
        let mut watch = WatchSpec::new();
        watch.slos.clear();
        watch.alerts.clear();
        watch
    };
    let start = async |group: GroupSpec, watch: WatchSpec| {
        let inner = SupervisorSpec::one_for_one("inner").group(group);
        let root = SupervisorSpec::one_for_one("root").supervisor(inner);
        System::start_with(root, SystemOptions::new().watch(watch)).await
    };
    let refused = start(group(), blind()).await.unwrap_err();
    let StartError::Spec(SpecError::Unmonitored { path }) = &refused else { panic!("{refused}") };
    assert_eq!(path, "root/inner/llm");
    // A rule or an objective about fallback is enough, if it is about this kind.
    let whole = WatchSpec::new();
    let about = |watch: &mut WatchSpec, kind| {
        use mainstay::watch::{AlertRule, Bound, Measure, Severity};
        let rule = AlertRule::new(
            "x",
            "degraded",
            Measure::Degraded(kind),
            Bound::Above(0.5),
            Severity::Warning,
        );
        watch.alerts.push(rule);
    };
    for (kind, starts) in
        [(mainstay::policy::GroupKind::Model, true), (mainstay::policy::GroupKind::Tool, false)]
    {
        let mut watch = blind();
        about(&mut watch, kind);
        assert_eq!(start(group(), watch).await.is_ok(), starts, "{kind:?}");
    }
    assert!(start(group(), whole).await.is_ok());
    // Where there is nobody to fall back to, there is no path.
    let alone = GroupSpec::model("llm").member_spec(echo().stateless("a"));
    assert!(start(alone, blind()).await.is_ok());
}

/// Keeps what this thread says to `tracing`.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push_str(&format!(" {field}={value:?}"));
    }
}

impl Subscriber for Recorder {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut line = Line("span".to_owned());
        span.record(&mut line);
        self.0.lock().unwrap().push(line.0);
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line(event.metadata().target().to_owned());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::test(start_paused = true)]
async fn no_record_holds_what_was_asked_answered_or_said_by_a_fault_or_a_panic() {
    const SECRET: &str = "order 1042 of Ada";
    let recorder = Recorder::default();
    let _on = tracing::subscriber::set_default(recorder.clone());
    let (first, second) = (echo(), echo());
    first.then_fault(Fault::network(SECRET));
    first.then_fault(Fault::new(Class::ModelUnavailable, SECRET));
    first.then_panic();
    first.then_hang();
    second.otherwise(|| mainstay_actors::scripted::Cue::Fail(Fault::output_invalid(SECRET)));
    let group = GroupSpec::model("llm")
        .member_spec(first.stateless("first"))
        .member_spec(second.stateless("second"));
    let system = System::start(SupervisorSpec::one_for_one("root").group(group)).await.unwrap();
    let port: Texts = system.port("root/llm").unwrap();
    for _ in 0..8 {
        let _ = port.call(SECRET).await;
    }
    system.stop().await;
    let lines = recorder.0.lock().unwrap();
    for word in ["attempt failed", "fated"] {
        assert!(lines.iter().any(|line| line.contains(word)), "nothing {word}: {lines:#?}");
    }
    for line in &*lines {
        assert!(!line.contains("1042") && !line.contains("Ada"), "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_below_the_worst_case_is_said_and_not_refused() {
    let recorder = Recorder::default();
    let _on = tracing::subscriber::set_default(recorder.clone());
    let script = echo();
    let group = |id: &str, deadline| {
        GroupSpec::model(id).member_spec(script.stateless("a")).deadline(deadline)
    };
    let root = SupervisorSpec::one_for_one("root")
        .child(script.stateless("short").deadline(secs(1)))
        .child(script.stateless("long").deadline(secs(3600)))
        .child(script.stateless("unsaid"))
        .group(group("hasty", secs(2)))
        .group(group("patient", secs(3600)));
    let system = System::start(root).await.unwrap();
    let lines = recorder.0.lock().unwrap();
    let said: Vec<_> = lines.iter().filter(|line| line.contains("worst-case")).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("root/short") && said[0].contains("1s"), "{said:?}");
    assert!(said[1].contains("root/hasty") && said[1].contains("2s"), "{said:?}");
    drop(system);
}
