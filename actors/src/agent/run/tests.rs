use super::*;
use crate::chat::{Role, ToolSpec};

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
    })
}

fn run() -> Run {
    Run::new(plan(), &[], "where is it?")
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
    let mut run = Run::new(Arc::new(Plan { max_steps: 20, ..(*plan()).clone() }), &[], "x");
    for index in 0..9 {
        run.on_model(asks([call("a", "look", "{}")])).unwrap();
        let result = if index % 3 == 2 { Ok("1".into()) } else { Err(Fault::network("x")) };
        run.on_tools([result]).unwrap();
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
    // Another payment is another matter.
    planned(run.on_model(asks([call("c", "pay", r#"{"x":2}"#)])).unwrap());
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
fn a_round_that_is_made_again_has_the_same_keys_whatever_ids_the_model_gives() {
    let keys = |id: &str, arguments: &str| {
        let mut run = run();
        let calls = planned(run.on_model(asks([call(id, "pay", arguments)])).unwrap());
        assert_eq!(planned(run.resume()), calls);
        calls[0].key.clone()
    };
    assert_eq!(keys("a", r#"{"x":1,"y":2}"#), keys("b", r#"{"y":2, "x":1}"#));
    assert_ne!(keys("a", r#"{"x":1}"#), keys("a", r#"{"x":2}"#));
    let mut run = run();
    let twice = [call("a", "pay", "{}"), call("b", "pay", "{}")];
    let calls = planned(run.on_model(asks(twice)).unwrap());
    assert_ne!(calls[0].key, calls[1].key);
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
