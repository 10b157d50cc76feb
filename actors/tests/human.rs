//! A person decides, or the default does: scripted on a paused clock.

use std::time::Duration;

use mainstay::error::CallError;
use mainstay::fault::{Class, EffectKind, Fault};
use mainstay::port::{CallOptions, Port};
use mainstay::spec::{GroupSpec, SupervisorSpec};
use mainstay::system::System;
use mainstay_actors::default::DefaultAnswer;
use mainstay_actors::human::{Decision, HumanDesk, NotPending, Pending};
use mainstay_actors::scripted::{Cue, Script};
use tokio::time::Instant;

const EXPIRY: Duration = Duration::from_secs(3600);

type Desk = HumanDesk<String, String>;

/// A tool that always fails, a person, and a default answer.
async fn system(desk: &Desk) -> (System, Port<String, String>) {
    let tool = Script::<String, String>::echo();
    tool.otherwise(|| Cue::Fail(Fault::exhausted("the bank is closed")));
    let group = GroupSpec::tool("refunds")
        .member_spec(tool.stateless("tool"))
        .member_spec(desk.spec("person"));
    let group =
        group.member_spec(DefaultAnswer::<String, String>::new("later".to_owned()).spec("default"));
    let system = System::start(SupervisorSpec::one_for_one("desk").group(group)).await.unwrap();
    let port = system.port("desk/refunds").unwrap();
    (system, port)
}

/// Waits until a request waits.
async fn point(desk: &Desk) -> Pending<String> {
    let mut changes = desk.changes();
    loop {
        if let Some(point) = desk.pending().into_iter().next() {
            return point;
        }
        changes.changed().await.unwrap();
    }
}

fn ask(
    port: &Port<String, String>,
    text: &str,
) -> tokio::task::JoinHandle<Result<mainstay::fate::Answer<String>, CallError<String>>> {
    let (port, text) = (port.clone(), text.to_owned());
    tokio::spawn(async move { port.call_with(text, CallOptions::new().key("job")).await })
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_listed_and_answered_and_written_down() {
    let desk = Desk::new(EXPIRY);
    let (_system, port) = system(&desk).await;
    let call = ask(&port, "refund 7");
    let shown = point(&desk).await;
    assert_eq!((&*shown.request, &*shown.key), ("refund 7", "job"));
    assert_eq!(shown.child.as_str(), "desk/refunds/person");
    assert_eq!(shown.until, shown.since.after(EXPIRY));
    tokio::time::advance(Duration::from_secs(1800)).await;
    desk.decide(shown.id, Decision::Answer("by hand".to_owned()), "ada", "she called").unwrap();
    let answer = call.await.unwrap().unwrap();
    assert_eq!((&*answer.value, answer.degraded, answer.defaulted), ("by hand", true, false));
    assert_eq!(desk.pending(), []);
    let log = desk.log();
    assert_eq!((log.len(), log[0].what, log[0].by.as_deref()), (1, "answer", Some("ada")));
    assert_eq!((&*log[0].why, &*log[0].key), ("she called", "job"));
    let again = Decision::Answer("twice".to_owned());
    assert_eq!(desk.decide(shown.id, again, "ada", ""), Err(NotPending(shown.id)));
    assert_eq!(desk.log().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_a_decision_the_default_decides_at_its_time() {
    let answers = Desk::with_default(EXPIRY, Decision::Answer("a voucher".to_owned()));
    let refuses = Desk::new(EXPIRY);
    for desk in [answers, refuses.clone()] {
        let (_system, port) = system(&desk).await;
        let before = Instant::now();
        let outcome = ask(&port, "refund 7").await.unwrap();
        assert_eq!(before.elapsed(), EXPIRY);
        assert_eq!((desk.log().len(), desk.log()[0].by.clone()), (1, None));
        assert_eq!(desk.pending(), []);
        if desk.log()[0].what == "answer" {
            let answer = outcome.unwrap();
            assert_eq!((&*answer.value, answer.defaulted), ("a voucher", true));
        } else {
            assert_eq!(desk.log()[0].what, "refuse");
            let error = outcome.unwrap_err();
            let CallError::RecoveryExhausted { fault, .. } = error else { panic!("{error:?}") };
            assert_eq!(fault.class, Class::Permission, "the default answer is not asked");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_and_a_pass_are_of_different_classes() {
    let desk = Desk::new(EXPIRY);
    let spec = SupervisorSpec::one_for_one("desk").child(desk.spec("person"));
    let system = System::start(spec).await.unwrap();
    let port = system.port::<String, String>("desk/person").unwrap();
    let table = [
        (Decision::Refuse("no".to_owned()), Class::Permission, "refused_by_person"),
        (Decision::PassOn("not mine".to_owned()), Class::Exhausted, "not_by_person"),
    ];
    for (decision, class, code) in table {
        let call = ask(&port, "refund 7");
        let shown = point(&desk).await;
        desk.decide(shown.id, decision, "ada", "").unwrap();
        let error = call.await.unwrap().unwrap_err();
        let CallError::RecoveryExhausted { fault, .. } = error else { panic!("{error:?}") };
        assert_eq!((fault.class, fault.code.as_deref()), (class, Some(code)));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_person_passes_on_goes_to_the_next_in_the_group() {
    let desk = Desk::new(EXPIRY);
    let (_system, port) = system(&desk).await;
    let call = ask(&port, "refund 7");
    let shown = point(&desk).await;
    desk.decide(shown.id, Decision::PassOn("not mine".to_owned()), "ada", "").unwrap();
    let answer = call.await.unwrap().unwrap();
    assert_eq!((&*answer.value, answer.defaulted), ("later", true));
}

/// Persons before an act.
async fn guarded(
    persons: &[(&str, &Desk)],
) -> (System, Port<String, String>, Script<String, String>) {
    let act = Script::<String, String>::echo();
    let mut group = GroupSpec::tool("refunds");
    for (name, desk) in persons {
        group = group.member_spec(desk.spec(name));
    }
    let group = group.member_spec(act.stateless("act").effect(EffectKind::Irreversible));
    let system = System::start(SupervisorSpec::one_for_one("desk").group(group)).await.unwrap();
    let port = system.port("desk/refunds").unwrap();
    (system, port, act)
}

fn pass(desk: &Desk, shown: &Pending<String>) {
    desk.decide(shown.id, Decision::PassOn("go on".to_owned()), "ada", "").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_person_is_asked_however_many_requests_were_passed_on_before() {
    let desk = Desk::new(EXPIRY);
    let (_system, port, act) = guarded(&[("person", &desk)]).await;
    for done in 0..20 {
        let call = ask(&port, "refund 7");
        let shown = point(&desk).await;
        assert_eq!(act.count(), done);
        pass(&desk, &shown);
        assert_eq!(call.await.unwrap().unwrap().value, "refund 7");
    }
    // Nor does nobody having decided in time make a person one who is not asked.
    let slow = Desk::with_default(EXPIRY, Decision::PassOn("nobody was there".to_owned()));
    let (_system, port, _) = guarded(&[("person", &slow)]).await;
    for asked in 0..5 {
        assert_eq!(slow.log().len(), asked);
        ask(&port, "refund 7").await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn each_of_several_persons_before_an_act_is_asked_for_leave() {
    let (lead, boss) = (Desk::new(EXPIRY), Desk::new(EXPIRY));
    let (_system, port, act) = guarded(&[("lead", &lead), ("boss", &boss)]).await;
    let call = ask(&port, "refund 7");
    pass(&lead, &point(&lead).await);
    let shown = point(&boss).await;
    assert_eq!(act.count(), 0);
    pass(&boss, &shown);
    assert_eq!(call.await.unwrap().unwrap().value, "refund 7");
    assert_eq!(act.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_person_who_cannot_be_asked_opens_no_way_past() {
    for away in ["lead", "boss"] {
        let (lead, boss) = (Desk::new(EXPIRY), Desk::new(EXPIRY));
        let (system, port, act) = guarded(&[("lead", &lead), ("boss", &boss)]).await;
        system.isolate(format!("desk/refunds/{away}")).unwrap();
        let call = ask(&port, "refund 7");
        if away == "boss" {
            pass(&lead, &point(&lead).await);
        }
        call.await.unwrap().unwrap_err();
        assert_eq!(act.count(), 0, "{away}");
    }
    // A default value does nothing.
    let desk = Desk::new(EXPIRY);
    let group = GroupSpec::tool("refunds").member_spec(desk.spec("person"));
    let later = DefaultAnswer::<String, String>::new("later".to_owned());
    let group = group.member_spec(later.spec("default"));
    let system = System::start(SupervisorSpec::one_for_one("desk").group(group)).await.unwrap();
    system.isolate("desk/refunds/person").unwrap();
    let port = system.port("desk/refunds").unwrap();
    assert_eq!(ask(&port, "refund 7").await.unwrap().unwrap().value, "later");
    // One who is stopped with the request in hand has said nothing.
    let (lead, boss) = (Desk::new(EXPIRY), Desk::new(EXPIRY));
    let (system, port, act) = guarded(&[("lead", &lead), ("boss", &boss)]).await;
    let call = ask(&port, "refund 7");
    pass(&lead, &point(&lead).await);
    point(&boss).await;
    let group = system.supervisor("desk/refunds").unwrap();
    group.terminate_child("boss").await.unwrap();
    call.await.unwrap().unwrap_err();
    assert_eq!(act.count(), 0);
    // One whose life ends has said nothing.
    let (lead, boss) = (Desk::new(EXPIRY), Desk::new(EXPIRY));
    let (system, port, act) = guarded(&[("lead", &lead), ("boss", &boss)]).await;
    let call = ask(&port, "refund 7");
    for _ in 0..2 {
        point(&lead).await;
        let mut changes = lead.changes();
        system.kill("desk/refunds/lead").unwrap();
        changes.changed().await.unwrap();
    }
    call.await.unwrap().unwrap_err();
    assert_eq!(act.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_leaves_takes_the_question_along() {
    let desk = Desk::new(EXPIRY);
    let (_system, port) = system(&desk).await;
    let call = ask(&port, "refund 7");
    let shown = point(&desk).await;
    let mut changes = desk.changes();
    call.abort();
    while !desk.pending().is_empty() {
        changes.changed().await.unwrap();
    }
    assert_eq!(
        desk.decide(shown.id, Decision::Refuse(String::new()), "ada", ""),
        Err(NotPending(shown.id))
    );
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_wait_is_a_new_point_for_the_same_request() {
    let desk = Desk::new(EXPIRY);
    let (system, port) = system(&desk).await;
    let call = ask(&port, "refund 7");
    let first = point(&desk).await;
    let mut changes = desk.changes();
    system.kill("desk/refunds/person").unwrap();
    let second = loop {
        match desk.pending().into_iter().find(|shown| shown.id != first.id) {
            Some(second) => break second,
            None => changes.changed().await.unwrap(),
        }
    };
    assert_eq!((&second.request, &second.key), (&first.request, &first.key));
    let answer = Decision::Answer("by hand".to_owned());
    assert_eq!(desk.decide(first.id, answer.clone(), "ada", ""), Err(NotPending(first.id)));
    desk.decide(second.id, answer, "ada", "").unwrap();
    assert_eq!(call.await.unwrap().unwrap().value, "by hand");
}

#[tokio::test(start_paused = true)]
async fn many_can_wait_and_each_gets_its_own_answer() {
    let desk = Desk::new(EXPIRY);
    let (_system, port) = system(&desk).await;
    let calls: Vec<_> = (0..200).map(|n| ask(&port, &n.to_string())).collect();
    let mut changes = desk.changes();
    while desk.pending().len() < 200 {
        changes.changed().await.unwrap();
    }
    for shown in desk.pending().into_iter().rev() {
        desk.decide(shown.id, Decision::Answer(format!("for {}", shown.request)), "ada", "")
            .unwrap();
    }
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap().unwrap().value, format!("for {n}"));
    }
}
