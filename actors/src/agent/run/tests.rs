use super::*;
use crate::chat::{Finish, Role, ToolSpec};
use serde_json::Value;

fn plan() -> Arc<Plan> {
    Arc::new(Plan {
        model: "llm".into(),
        system: Some("be kind".into()),
        tools: vec![
            (ToolSpec::new("look"), "tools/look".into()),
            (ToolSpec::new("pay"), "tools/pay".into()),
        ],
        max_steps: 4,
        max_tokens: Some(9),
        temperature: None,
        checks: Vec::new(),
        answer: None,
        budget: crate::agent::TaskBudget::default(),
    })
}

fn run() -> Run {
    Run::new(plan(), "task".to_owned(), &"where is it?".into())
}

fn with_plan(change: impl FnOnce(&mut Plan)) -> Run {
    let mut plan = Arc::unwrap_or_clone(plan());
    change(&mut plan);
    Run::new(Arc::new(plan), "task".to_owned(), &"where is it?".into())
}

fn call(id: &str, name: &str, arguments: &str) -> ToolCall {
    ToolCall { id: id.into(), name: name.into(), arguments: arguments.into() }
}

fn asks(calls: impl IntoIterator<Item = ToolCall>) -> ChatReply {
    ChatReply::calls(calls)
}

fn planned(next: Next) -> Vec<Planned> {
    match next {
        Next::Call(planned) => planned,
        next => panic!("no calls: {next:?}"),
    }
}

fn asked(next: Next) -> ChatRequest {
    match next {
        Next::Ask(request) => request,
        next => panic!("no question: {next:?}"),
    }
}

fn last_error(next: Next) -> Value {
    let request = asked(next);
    let last = request.messages.last().unwrap();
    assert_eq!(last.role, Role::Tool);
    serde_json::from_str::<Value>(&last.text).unwrap()["error"].clone()
}

#[test]
fn a_task_is_model_then_tools_then_model_then_an_answer() {
    let mut run = run();
    let request = asked(run.resume());
    assert_eq!(request.messages, [Message::system("be kind"), Message::user("where is it?")]);
    assert_eq!((request.tools.len(), request.max_tokens), (2, Some(9)));
    let calls = [call("a", "look", "{}"), call("b", "pay", r#"{"x":1}"#)];
    let calls = planned(run.on_model(asks(calls)).unwrap());
    assert_eq!((&*calls[0].need, &*calls[1].need), ("tools/look", "tools/pay"));
    let request = asked(run.on_tools([Ok("1".into()), Ok("2".into())]).unwrap());
    assert_eq!(
        request.messages[3..],
        [Message::tool_result("a", "1"), Message::tool_result("b", "2")]
    );
    let Next::Done(reply) = run.on_model(ChatReply::text("there")).unwrap() else { panic!() };
    assert_eq!((&*reply.text, reply.steps, reply.tools_used.len()), ("there", 2, 2));
}

#[test]
fn a_tool_that_does_not_exist_is_told_to_the_model() {
    let mut run = run();
    let error = last_error(run.on_model(asks([call("a", "rm", "{}")])).unwrap());
    assert_eq!(error["code"], "unknown_tool");
    assert!(error["message"].as_str().unwrap().contains("look, pay"));
}

#[test]
fn a_failed_call_is_told_to_the_model_with_the_fault_behind_the_ladder() {
    let mut run = run();
    run.on_model(asks([call("a", "look", "{}")])).unwrap();
    let inner = Fault::input_validation("argument \"order\": missing").with_code("bad_arguments");
    let outer = Fault::exhausted("all rungs climbed").with_source(inner);
    let error = last_error(run.on_tools([Err(outer)]).unwrap());
    assert_eq!(error["class"], "input_validation");
    assert_eq!(error["message"], "argument \"order\": missing");
    let Next::Done(reply) = run.on_model(ChatReply::text("sorry")).unwrap() else { panic!() };
    assert_eq!(reply.tools_used[0].failed, Some(Class::InputValidation));
}

#[test]
fn the_same_call_failing_three_times_ends_the_task_however_it_is_written() {
    let mut run = run();
    let spellings = [r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#, r#" { "a" : 1, "b" : 2 } "#];
    for (index, spelling) in spellings.into_iter().enumerate() {
        run.on_model(asks([call(&index.to_string(), "look", spelling)])).unwrap();
        let result = run.on_tools([Err(Fault::tool_execution("down"))]);
        if index < 2 {
            result.unwrap();
        } else {
            let fault = result.unwrap_err();
            assert_eq!((fault.class, fault.code.as_deref()), (Class::Exhausted, Some("tool_loop")));
        }
    }
}

#[test]
fn a_success_between_two_failures_starts_the_count_again() {
    let mut run = with_plan(|plan| plan.max_steps = 20);
    for index in 0..9 {
        run.on_model(asks([call("a", "look", "{}")])).unwrap();
        let result = if index % 3 == 2 { Ok("1".into()) } else { Err(Fault::network("x")) };
        run.on_tools([result]).unwrap();
    }
}

#[test]
fn equal_calls_of_one_answer_fail_once_before_the_model_hears_of_it() {
    for name in ["look", "no_such_tool"] {
        let mut run = run();
        for round in 1..=MAX_FAILURES {
            let calls = ["a", "b", "c"].map(|id| call(id, name, "{}"));
            let failed = run.on_model(asks(calls)).and_then(|next| match next {
                Next::Call(all) => run.on_tools(all.iter().map(|_| Err(Fault::network("x")))),
                next => Ok(next),
            });
            let code = failed.err().and_then(|fault| fault.code);
            assert_eq!(code.as_deref(), (round == MAX_FAILURES).then_some("tool_loop"), "{name}");
        }
    }
}

#[test]
fn the_step_limit_ends_a_task_that_never_answers() {
    let mut run = run();
    for step in 1..=4 {
        let result = run.on_model(asks([call("a", "look", &format!("{{\"n\":{step}}}"))]));
        if step < 4 {
            result.unwrap();
            run.on_tools([Ok("1".into())]).unwrap();
        } else {
            let fault = result.unwrap_err();
            assert_eq!(
                (fault.class, fault.code.as_deref()),
                (Class::Exhausted, Some("step_limit"))
            );
        }
    }
}

#[test]
fn a_call_whose_outcome_is_unknown_is_not_made_again() {
    let mut run = run();
    run.on_model(asks([call("a", "pay", r#"{"x":1}"#)])).unwrap();
    let error = last_error(run.on_tools([Err(Fault::indeterminate("sent"))]).unwrap());
    assert!(error["advice"].as_str().unwrap().contains("do not call it again"));
    let error = last_error(run.on_model(asks([call("b", "pay", r#"{"x":1}"#)])).unwrap());
    assert_eq!(error["code"], "outcome_unknown");
    // However the tool says it.
    let mut other = self::run();
    other.on_model(asks([call("a", "pay", r#"{"x":1}"#)])).unwrap();
    let late = Fault::exhausted("tools").with_source(Fault::timeout("10 s").effect_unknown());
    let error = last_error(other.on_tools([Err(late)]).unwrap());
    assert!(error["advice"].as_str().unwrap().contains("do not call it again"), "{error}");
    let error = last_error(other.on_model(asks([call("b", "pay", r#"{"x":1}"#)])).unwrap());
    assert_eq!(error["code"], "outcome_unknown");
    // Nor when an equal one of the same answer was made.
    let mut twice = self::run();
    let same = [call("a", "pay", r#"{"x":1}"#), call("b", "pay", r#"{"x":1}"#)];
    twice.on_model(asks(same)).unwrap();
    twice.on_tools([Err(Fault::indeterminate("sent")), Ok("paid".into())]).unwrap();
    let error = last_error(twice.on_model(asks([call("c", "pay", r#"{"x":1}"#)])).unwrap());
    assert_eq!(error["code"], "outcome_unknown");
    // Another payment is another matter.
    planned(run.on_model(asks([call("c", "pay", r#"{"x":2}"#)])).unwrap());
    // What only reads has done nothing, and may be called again.
    let mut run = self::run();
    run.on_model(asks([call("a", "look", "{}")])).unwrap();
    let lost = Fault::indeterminate("sent").not_applied();
    let error = last_error(run.on_tools([Err(lost)]).unwrap());
    assert!(error["advice"].as_str().unwrap().starts_with("nothing was done"), "{error}");
    planned(run.on_model(asks([call("b", "look", "{}")])).unwrap());
}

#[test]
fn what_was_denied_or_called_off_ends_the_task() {
    for fault in [Fault::budget_denied("tokens"), Fault::cancelled("left")] {
        let mut run = run();
        run.on_model(asks([call("a", "look", "{}")])).unwrap();
        let class = fault.class;
        assert_eq!(run.on_tools([Err(fault)]).unwrap_err().class, class);
    }
}

#[test]
fn a_round_that_is_interrupted_is_asked_for_again_as_it_was() {
    let mut run = run();
    let twice = [call("a", "pay", "{}"), call("b", "look", "{}")];
    let calls = planned(run.on_model(asks(twice)).unwrap());
    assert_eq!(planned(run.resume()), calls);
    assert_eq!(run.expects(), 2);
}

#[test]
fn a_call_that_fails_in_another_way_each_time_is_no_loop() {
    let mut run = with_plan(|plan| plan.max_steps = 20);
    let faults = [
        Fault::network("x"),
        Fault::timeout("x"),
        Fault::timeout("x").with_code("late"),
        Fault::timeout("y").with_code("late"),
        Fault::timeout("y").with_code("late"),
    ];
    for fault in faults {
        run.on_model(asks([call("a", "look", "{}")])).unwrap();
        run.on_tools([Err(fault)]).unwrap();
    }
    run.on_model(asks([call("a", "look", "{}")])).unwrap();
    let fault = run.on_tools([Err(Fault::timeout("y").with_code("late"))]).unwrap_err();
    assert_eq!(fault.code.as_deref(), Some("tool_loop"));
}

#[test]
fn an_answer_that_is_refused_is_given_again_with_what_is_wrong_with_it_twice() {
    let digit = |text: &str| match text.chars().any(|c| c.is_ascii_digit()) {
        true => Ok(()),
        false => Err("it names no number".to_owned()),
    };
    let check = crate::agent::Check(Arc::new(digit));
    for good in [1, 2, 9] {
        let mut run = with_plan(|plan| plan.checks = vec![check.clone()]);
        for round in 0..3 {
            let text = if round == good { "it is 7" } else { "it is many" };
            match run.on_model(ChatReply::text(text)) {
                Ok(Next::Done(reply)) => {
                    assert_eq!((round, &*reply.text, reply.steps), (good, "it is 7", good + 1));
                    break;
                }
                Ok(next) => {
                    assert!(round < 2);
                    let request = asked(next);
                    let [.., answer, complaint] = &request.messages[..] else { panic!() };
                    assert_eq!(*answer, Message::assistant("it is many"));
                    assert_eq!(complaint.role, Role::User);
                    assert!(complaint.text.contains("it names no number"), "{}", complaint.text);
                }
                Err(fault) => {
                    assert_eq!((good, round), (9, 2), "{fault:?}");
                    assert_eq!(fault.class, Class::OutputInvalid);
                    assert_eq!(fault.code.as_deref(), Some("rejected"));
                }
            }
        }
    }
}

#[test]
fn a_regeneration_is_a_step_and_the_step_limit_holds_for_it() {
    let check = crate::agent::Check(Arc::new(|_: &str| Err("no".to_owned())));
    let mut run = with_plan(|plan| (plan.checks, plan.max_steps) = (vec![check], 1));
    let fault = run.on_model(ChatReply::text("x")).unwrap_err();
    assert_eq!(fault.code.as_deref(), Some("step_limit"));
}

#[test]
fn a_conversation_that_is_too_long_is_shortened_as_often_as_there_is_something_to_shorten() {
    let too_long = || Fault::exhausted("models").with_source(Fault::context_length("8192"));
    let mut run = run();
    assert_eq!(run.on_model_fault(too_long(), 0).unwrap_err().class, Class::Exhausted);
    run.on_model(asks([call("a", "look", "{}")])).unwrap();
    let before = asked(run.on_tools([Ok("x".repeat(20_000))]).unwrap());
    assert_eq!(run.on_model_fault(Fault::network("x"), 0).unwrap_err().class, Class::Network);
    let after = asked(run.on_model_fault(too_long(), 0).unwrap());
    assert!(after.messages[3].text.len() * 4 < before.messages[3].text.len());
    assert_eq!(after.messages[..3], before.messages[..3]);
    assert_eq!(run.on_model_fault(too_long(), 0).unwrap_err().class, Class::Exhausted);
    // What is read later is shortened before a step is left out.
    run.on_model(asks([call("b", "look", "{}")])).unwrap();
    run.on_tools([Ok("y".repeat(20_000))]).unwrap();
    let again = asked(run.on_model_fault(too_long(), 0).unwrap());
    assert!(again.messages[5].text.len() < 5_000 && again.messages.len() == 6, "{again:?}");
    assert_eq!((run.shortened, run.left_out), (2, LeftOut::default()));
    let Next::Done(reply) = run.on_model(ChatReply::text("there")).unwrap() else { panic!() };
    assert!(reply.compacted);
}

/// What is asked, without the tools.
fn texts(request: &ChatRequest) -> Vec<&str> {
    request.messages.iter().map(|message| &*message.text).collect()
}

#[test]
fn a_conversation_that_is_still_too_long_loses_its_oldest_turns_and_then_its_oldest_steps() {
    let too_long = || Fault::exhausted("models").with_source(Fault::context_length("8192"));
    let turn = |n: u32| [Message::user(format!("q{n}")), Message::assistant(format!("a{n}"))];
    let request = AgentRequest::new("where is it?").history((1..=4).flat_map(turn)).left_out(2);
    let mut run = Run::new(plan(), "task".to_owned(), &request);
    let said = |parts: &str| {
        format!(
            "be kind\n\n[Left out to make room: {parts}. If you need what was said there, say so, or call the tool again.]"
        )
    };
    let first = asked(run.resume());
    assert_eq!(texts(&first)[..2], [&*said("the 2 oldest turns of this conversation"), "q1"]);
    let calls = |run: &mut Run, id: &str| {
        planned(run.on_model(asks([call(id, "look", "{}"), call("y", "pay", "{}")])).unwrap());
        run.on_tools([Ok(format!("{id} found")), Ok("paid".into())]).unwrap();
    };
    calls(&mut run, "a");
    calls(&mut run, "b");
    let half = asked(run.on_model_fault(too_long(), 2).unwrap());
    let note = said("the 4 oldest turns of this conversation");
    let rounds = ["", "a found", "paid", "", "b found", "paid"];
    assert_eq!(
        texts(&half),
        [&[&*note, "q3", "a3", "q4", "a4", "where is it?"][..], &rounds].concat()
    );
    let none = asked(run.on_model_fault(too_long(), 2).unwrap());
    let note = said("the 6 oldest turns of this conversation");
    assert_eq!(texts(&none), [&[&*note, "where is it?"][..], &rounds].concat());
    // A copy from the store goes on as the original.
    let mut run = Run::idle(plan()).restored(&with_rounds(&mut run).snapshot()).unwrap();
    let last = asked(run.on_model_fault(too_long(), 2).unwrap());
    let note = said(
        "the 6 oldest turns of this conversation and the oldest step of your work on this task",
    );
    assert_eq!(texts(&last), [&*note, "where is it?", "", "b found", "paid"]);
    assert_eq!(last.messages[2].tool_calls.len(), 2);
    assert_eq!(run.on_model_fault(too_long(), 2).unwrap_err().class, Class::Exhausted);
    let Next::Done(reply) = run.on_model(ChatReply::text("there")).unwrap() else { panic!() };
    assert_eq!((reply.left_out, reply.compacted), (LeftOut { turns: 4, steps: 1 }, false));
}

/// As a turn leaves it.
fn with_rounds(run: &mut Run) -> &Run {
    run.memory().rounds = run.context.rounds.len() as u32;
    run
}

#[test]
fn a_part_of_an_answer_is_no_answer() {
    let cut = Fault::network("reset").with_code("stream_cut");
    let part = ChatReply { finish: Finish::Partial(Box::new(cut)), ..ChatReply::text("half an") };
    let fault = run().on_model(part).unwrap_err();
    assert_eq!((fault.class, fault.code.as_deref()), (Class::Exhausted, Some("partial")));
    assert_eq!(innermost(&fault).code.as_deref(), Some("stream_cut"));
}

#[test]
fn a_turn_that_paused_goes_on_and_is_no_answer() {
    let mut run = run();
    let paused = |text: &str| ChatReply {
        finish: Finish::Other("pause_turn".into()),
        ..ChatReply::text(text)
    };
    for text in ["so far", ""] {
        let request = asked(run.on_model(paused(text)).unwrap());
        let last = request.messages.last().unwrap();
        assert_eq!((last.role, &*last.text), (Role::Assistant, text));
    }
    let Next::Done(reply) = run.on_model(ChatReply::text("and done")).unwrap() else { panic!() };
    assert_eq!((&*reply.text, reply.steps), ("and done", 3));
    // It pauses no more often than it may ask.
    let pauses = (0..100).find_map(|_| run.on_model(paused("x")).err()).unwrap();
    assert_eq!(pauses.code.as_deref(), Some("step_limit"));
}

#[test]
fn a_snapshot_holds_the_fields_of_an_agent_and_gives_the_task_back() {
    let mut run = run();
    run.on_model(asks([call("a", "look", "{}")])).unwrap();
    run.on_tools([Ok("1".into())]).unwrap();
    run.on_model(asks([call("b", "pay", "{}")])).unwrap();
    run.memory().rounds = 3;
    let before = run.snapshot();
    assert!(mainstay::checkpoint::AGENT_FIELDS.iter().all(|field| before.has(field)));
    let back = Run::idle(plan()).restored(&before).unwrap();
    assert_eq!((&back.context, &back.used, &back.memory), (&run.context, &run.used, &run.memory));
    // What has not changed is shared, so that it is not written again.
    run.on_tools([Ok("2".into())]).unwrap();
    let after = run.snapshot();
    let piece = |snapshot: &mainstay::checkpoint::Snapshot, name: &str| {
        snapshot.get::<Vec<Message>>(name).unwrap()
    };
    for (name, shared) in [("context", true), ("context/1", true), ("context/2", false)] {
        assert_eq!(Arc::ptr_eq(&piece(&before, name), &piece(&after, name)), shared, "{name}");
    }
    run.memory().rounds = 4;
    let missing = Run::idle(plan()).restored(&run.snapshot()).unwrap_err();
    assert!(missing.to_string().contains("context/3"), "{missing}");
}

#[test]
fn too_many_calls_at_once_and_results_that_are_too_long_are_cut() {
    let mut run = run();
    let many = (0..20).map(|n| call(&n.to_string(), "look", &format!("{{\"n\":{n}}}")));
    assert_eq!(planned(run.on_model(asks(many)).unwrap()).len(), MAX_CALLS);
    let long = "é".repeat(MAX_RESULT);
    let request = asked(run.on_tools((0..MAX_CALLS).map(|_| Ok(long.clone()))).unwrap());
    assert!(request.messages.last().unwrap().text.len() <= MAX_RESULT + 20);
    assert_eq!(request.messages.iter().filter(|m| m.role == Role::Tool).count(), 20);
}

#[test]
fn an_answer_of_nothing_is_no_answer() {
    let fault = run().on_model(ChatReply::default()).unwrap_err();
    assert_eq!(fault.class, Class::OutputInvalid);
}
