//! What requests may use: the limits an endpoint keeps to by itself, and the budget of whoever asks.

use std::time::Duration;

use mainstay::error::CallError;
use mainstay::event::Event;
use mainstay::fault::{Class, Fault};
use mainstay::policy::budget::Limits;
use mainstay::policy::{Backoff, Policy};
use mainstay::port::{CallOptions, Port};
use mainstay::spec::{ChildSpec, GroupSpec, SupervisorSpec};
use mainstay::system::System;
use mainstay_actors::agent::{Agent, AgentReply, AgentRequest, TaskBudget};
use mainstay_actors::chat::stream::open;
use mainstay_actors::chat::{ChatReply, ChatRequest};
use mainstay_actors::model::limits::RateLimits;
use mainstay_actors::model::{BUDGETED_ANSWER, Model};
use mainstay_actors::stub_server::{Row, StreamEnd, StubServer};
use serde_json::json;

type Chat = Port<ChatRequest, ChatReply>;

/// For calls that nothing may hold up: far from what any closed account would take.
fn soon() -> CallOptions {
    CallOptions::new().deadline(Duration::from_secs(20))
}

#[tokio::test]
async fn a_request_too_large_for_an_endpoints_own_limits_holds_up_no_other_of_the_account() {
    let (limited, wide) = (StubServer::start().await.unwrap(), StubServer::start().await.unwrap());
    // Of 15 tokens an answer, there is room for two hundred, and none for 1,000 bytes more.
    let limits = || RateLimits::new().tokens_per_minute(200).max_wait(Duration::from_millis(1));
    let member = |server: &StubServer, limits: Option<RateLimits>| {
        let model = Model::openai(server.url(), "m");
        limits.into_iter().fold(model, Model::limits)
    };
    let root = SupervisorSpec::one_for_one("root")
        .child(member(&limited, Some(limits())).spec("alone").quota_domain("account"))
        .group(
            GroupSpec::model("llm")
                .member_spec(member(&limited, Some(limits())).spec("a").quota_domain("account"))
                .member_spec(member(&wide, None).spec("b").quota_domain("account")),
        );
    let system = System::start(root).await.unwrap();
    let mut events = system.events();
    let (alone, llm): (Chat, Chat) =
        (system.port("root/alone").unwrap(), system.port("root/llm").unwrap());
    let large = || ChatRequest::from("x".repeat(1000));
    for _ in 0..2 {
        alone.call_with("small", soon()).await.unwrap();
        let error = alone.call_with(large(), soon()).await.unwrap_err();
        let wait = error.retry_after().unwrap();
        assert!(wait > Duration::from_secs(30) && wait <= Duration::from_secs(60), "{wait:?}");
        assert_eq!(llm.call_with("small", soon()).await.unwrap().served_by.id(), "a");
        assert_eq!(llm.call_with(large(), soon()).await.unwrap().served_by.id(), "b");
    }
    system.stop().await;
    while let Some(stamped) = events.try_next() {
        let event = stamped.event;
        assert!(!matches!(event, Event::DomainClosed { .. }), "{event:?}");
    }
    assert_eq!((limited.count(), wide.count()), (4, 2));
}

/// A millionth a token read, two a token written.
const PRICE: (u64, u64) = (1_000_000, 2_000_000);

fn tokens(tokens: u64) -> Limits {
    Limits { tokens: Some(tokens), ..Limits::default() }
}

fn money(micros: u64) -> Limits {
    Limits { money_micros: Some(micros), ..Limits::default() }
}

fn within(limits: Limits) -> CallOptions {
    soon().budget(limits)
}

/// One endpoint, `root/m`.
async fn one(spec: ChildSpec) -> (System, Chat) {
    let ms = Backoff::Fixed(Duration::from_millis(1));
    let policy = Policy::playbook_exact()
        .with_backoff(Class::Timeout, ms)
        .with_backoff(Class::Network, ms)
        .with_backoff(Class::ServerTransient, ms);
    let root = SupervisorSpec::one_for_one("root").policy(policy).child(spec);
    let system = System::start(root).await.unwrap();
    let port = system.port("root/m").unwrap();
    (system, port)
}

fn fault<Q: std::fmt::Debug>(error: CallError<Q>) -> Fault {
    match error {
        CallError::RecoveryExhausted { fault, .. } => *fault,
        error => panic!("{error:?}"),
    }
}

fn stream_of(request: ChatRequest, streamed: bool) -> ChatRequest {
    if streamed { request.stream_to(open(64).0) } else { request }
}

#[tokio::test]
async fn what_an_answer_may_cost_is_reserved_before_it_is_asked_for_and_settled_after() {
    let server = StubServer::start().await.unwrap();
    let model = Model::openai(server.url(), "m").price_per_million(PRICE.0, PRICE.1);
    let (_system, port) = one(model.spec("m")).await;
    for streamed in [false, true] {
        let ask = |limit: u32| stream_of(ChatRequest::from("hi").max_tokens(limit), streamed);
        let before = server.count();
        for limits in [tokens(1000), money(2000)] {
            let error = port.call_with(ask(1000), within(limits)).await.unwrap_err();
            let fault = fault(error);
            assert_eq!(fault.class, Class::BudgetDenied, "{fault}");
        }
        assert_eq!(server.count(), before, "nothing is sent on credit");
        for limits in [tokens(1000), money(2000)] {
            if streamed {
                server.then(Row::reply_stream(["hello"]));
            }
            let answer = port.call_with(ask(900), within(limits)).await.unwrap();
            // Ten read and five written, however much was reserved.
            assert_eq!((answer.cost.tokens, answer.cost.money_micros), (15, 20));
        }
        let sent = server.requests();
        assert_eq!(sent.len(), before + 2);
        assert!(sent[before..].iter().all(|seen| seen.json()["max_tokens"] == 900));
    }
}

#[tokio::test]
async fn an_answer_without_a_limit_gets_what_the_budget_leaves_in_each_format() {
    let server = StubServer::start().await.unwrap();
    let table: [(Model, &str); 5] = [
        (Model::openai(server.url(), "m"), "/max_tokens"),
        (Model::responses(server.url(), "m"), "/max_output_tokens"),
        (Model::anthropic(server.url(), "m"), "/max_tokens"),
        (Model::gemini(server.url(), "m"), "/generationConfig/maxOutputTokens"),
        (Model::ollama_native(server.url(), "m"), "/options/num_predict"),
    ];
    for (model, place) in table {
        let model = model.price_per_million(PRICE.0, PRICE.1);
        let (system, port) = one(model.spec("m")).await;
        let asked = server.count();
        // The answer is none in most formats; what was sent is what matters.
        for options in [
            soon(),
            within(tokens(600)),
            within(money(700)),
            within(tokens(1_000_000)),
            within(Limits { attempts: Some(9), ..Limits::default() }),
        ] {
            let _ = port.call_with("hi", options).await;
        }
        system.stop().await;
        let sent = server.requests();
        assert_eq!(sent.len(), asked + 5, "{place}");
        let sent = &sent[asked..];
        let prompt = (sent[0].body.len() as u64).div_ceil(4);
        let limits: Vec<_> = sent.iter().map(|seen| seen.json().pointer(place).cloned()).collect();
        let most = Some(json!(BUDGETED_ANSWER));
        let left = [600 - prompt, (700 - prompt) / 2].map(|left| Some(json!(left)));
        // Without a budget, or with one that it does not draw on, the provider's own stands.
        let own = if place == "/max_tokens" && limits[0].is_some() { most.clone() } else { None };
        assert_eq!(
            limits[..],
            [own.clone(), left[0].clone(), left[1].clone(), most, own],
            "{place}"
        );
    }
}

#[tokio::test]
async fn an_answer_that_is_cut_off_at_a_limit_of_ours_is_a_fault_that_says_whose_limit_it_was() {
    let cut = json!({
        "choices": [{"message": {"content": "it beg"}, "finish_reason": "length"}],
        "content": [{"type": "text", "text": "it beg"}], "stop_reason": "max_tokens", "type": "message",
    });
    let server = StubServer::start().await.unwrap();
    server.otherwise(Row::new(200, cut.to_string()));
    let openai = || Model::openai(server.url(), "m");
    let anthropic = || Model::anthropic(server.url(), "m");
    let ours = "tokens, what it gets where nobody says: set `max_tokens`";
    let provider = "the answer was cut off at its token limit";
    let much = || within(tokens(1_000_000));
    let table = [
        (openai(), None, much(), Some(BUDGETED_ANSWER), format!("cut off at 4096 {ours}")),
        (openai().answer_tokens(77), None, much(), Some(77), format!("cut off at 77 {ours}")),
        (openai(), None, within(tokens(300)), None, "tokens, all that the budget had left".into()),
        (openai().answer_tokens(77), None, soon(), None, provider.into()),
        (openai().answer_tokens(77), Some(99), much(), Some(99), provider.into()),
        (anthropic(), None, soon(), Some(BUDGETED_ANSWER), format!("cut off at 4096 {ours}")),
        (anthropic().answer_tokens(77), None, soon(), Some(77), format!("cut off at 77 {ours}")),
    ];
    for (model, limit, options, sent, says) in table {
        let (system, port) = one(model.spec("m")).await;
        let mut request = ChatRequest::from("hi");
        request.max_tokens = limit;
        let asked = server.count();
        let fault = fault(port.call_with(request, options).await.unwrap_err());
        system.stop().await;
        let body = server.requests()[asked].json();
        if sent.is_some() || says == provider {
            assert_eq!(body["max_tokens"].as_u64(), sent.map(u64::from), "{says}");
        }
        let said = format!("{fault:?}");
        assert!(said.contains(&says), "{says}\n{said}");
    }
}

#[tokio::test]
async fn a_tool_call_that_is_cut_off_is_not_asked_for_again_under_the_same_limit() {
    let call = json!({"id": "a", "function": {"name": "f", "arguments": "{\"x\":"}});
    for (message, asked) in
        [(json!({"content": "it beg"}), 3), (json!({"content": null, "tool_calls": [call]}), 1)]
    {
        let server = StubServer::start().await.unwrap();
        server.otherwise(Row::completion(message, "length"));
        let model = Model::openai(server.url(), "m").spec("m").policy(Policy::code_generation());
        let (system, port) = one(model).await;
        let mut request = ChatRequest::from("write it");
        request.max_tokens = Some(50);
        let fault = fault(port.call_with(request, soon()).await.unwrap_err());
        system.stop().await;
        assert_eq!((fault.class, fault.code.as_deref()), (Class::OutputInvalid, Some("truncated")));
        assert_eq!(fault.message.contains("a higher `max_tokens`"), asked == 1, "{fault}");
        assert_eq!(server.count(), asked, "{fault}");
    }
}

#[tokio::test]
async fn an_attempt_whose_end_nobody_knows_is_charged_what_it_had_reserved() {
    let table = [
        (Row::hang(), 2, Class::BudgetDenied),
        (Row::reset_after(), 2, Class::BudgetDenied),
        (Row::reply("half of it").cut_off(20), 2, Class::BudgetDenied),
        // Those say that nothing was done.
        (Row::error(500, "server_error", "no"), 4, Class::ServerTransient),
    ];
    for (row, sent, class) in table {
        for streamed in [false, true] {
            let server = StubServer::start().await.unwrap();
            server.otherwise(row.clone());
            let model = Model::openai(server.url(), "m");
            let spec = model.spec("m").attempt_timeout(Duration::from_millis(150));
            let (_system, port) = one(spec).await;
            // Room for two attempts, and not for three.
            let request = stream_of(ChatRequest::from("hi").max_tokens(400), streamed);
            let error = port.call_with(request, within(tokens(1100))).await.unwrap_err();
            let fault = fault(error);
            assert_eq!((fault.class, server.count()), (class, sent), "{streamed} {fault}");
        }
    }
}

#[tokio::test]
async fn a_prompt_that_was_sent_for_nothing_is_charged_without_a_budget_as_well() {
    let table = [
        (Row::hang(), true),
        (Row::reset_after(), true),
        (Row::reply("half of it").cut_off(20), true),
        (Row::error(500, "server_error", "no"), false),
    ];
    for (row, charged) in table {
        let server = StubServer::start().await.unwrap();
        server.then(row);
        let spec = Model::openai(server.url(), "m").spec("m");
        let (_system, port) = one(spec.attempt_timeout(Duration::from_millis(150))).await;
        let answer = port.call_with("hi", soon()).await.unwrap();
        assert_eq!(server.count(), 2);
        // What the stub says of each answer.
        assert_eq!(answer.cost.tokens > 15, charged, "{:?}", answer.cost);
    }
}

#[tokio::test]
async fn a_stream_that_is_cut_short_is_charged_for_what_had_come() {
    let server = StubServer::start().await.unwrap();
    let text = "x".repeat(400);
    // The first piece says who speaks.
    server.then(Row::reply_stream([&*text, "rest"]).end_after(2, StreamEnd::Hang));
    let model = Model::openai(server.url(), "m").idle_timeout(Duration::from_millis(100));
    let (_system, port) = one(model.spec("m")).await;
    let (sink, mut stream) = open(64);
    let request = ChatRequest::from("hi").max_tokens(5000).stream_to(sink);
    let (answer, ()) = tokio::join!(port.call_with(request, within(tokens(6000))), async {
        while stream.next().await.is_some() {}
    });
    let spent = answer.unwrap().cost.tokens;
    assert!((100..400).contains(&spent), "{spent}");
}

#[tokio::test]
async fn a_cheaper_endpoint_is_asked_for_what_the_first_costs_too_much_for() {
    let (dear, free) = (StubServer::start().await.unwrap(), StubServer::start().await.unwrap());
    let paid = |id| Model::openai(dear.url(), "m").price_per_million(PRICE.0, PRICE.1).spec(id);
    let gratis = |id| Model::openai(free.url(), "m").spec(id);
    let once = Policy::without_retries();
    let group = |id| GroupSpec::model(id).policy(once.clone());
    let root = SupervisorSpec::one_for_one("root")
        .group(group("up").member_spec(paid("dear")).member_spec(gratis("free")))
        .group(group("down").member_spec(gratis("free")).member_spec(paid("dear")));
    let system = System::start(root).await.unwrap();
    let (up, down): (Chat, Chat) =
        (system.port("root/up").unwrap(), system.port("root/down").unwrap());
    let ask = || ChatRequest::from("hi").max_tokens(500);
    let answer = up.call_with(ask(), within(money(900))).await.unwrap();
    assert_eq!((answer.served_by.id(), answer.cost.money_micros), ("free", 0));
    assert_eq!((dear.count(), free.count()), (0, 1));
    // A free endpoint with a stand-in that is paid for: not past the budget either.
    free.otherwise(Row::error(500, "server_error", "no"));
    let fault = fault(down.call_with(ask(), within(money(900))).await.unwrap_err());
    assert_eq!((fault.class, dear.count(), free.count()), (Class::BudgetDenied, 0, 2));
    let answer = down.call_with(ask(), within(money(2000))).await.unwrap();
    assert_eq!((answer.served_by.id(), dear.count()), ("dear", 1));
}

#[tokio::test]
async fn an_agent_draws_on_the_smaller_of_its_budget_and_its_callers() {
    for (own, callers, asked) in [(5000, 5000, 1), (300, 5000, 0), (5000, 300, 0)] {
        let server = StubServer::start().await.unwrap();
        let agent = Agent::new("m").max_tokens(1000).budget(TaskBudget::new().tokens(own));
        let root = SupervisorSpec::one_for_one("root")
            .child(Model::openai(server.url(), "m").spec("m"))
            .child(agent.spec("agent"));
        let system = System::start(root).await.unwrap();
        let port: Port<AgentRequest, AgentReply> = system.port("root/agent").unwrap();
        match port.call_with("hi", within(tokens(callers))).await {
            Ok(answer) => assert_eq!(answer.cost.tokens, 15),
            Err(error) => assert_eq!(fault(error).class, Class::BudgetDenied),
        }
        assert_eq!(server.count(), asked, "{own} {callers}");
    }
}

#[tokio::test]
async fn no_request_of_an_endpoint_may_cost_more_than_its_price_cap() {
    let (dear, cheap) = (StubServer::start().await.unwrap(), StubServer::start().await.unwrap());
    let capped =
        || Model::openai(dear.url(), "m").price_per_million(PRICE.0, PRICE.1).price_cap(1000);
    let ask = |limit: u32| ChatRequest::from("hi").max_tokens(limit);
    let (system, port) = one(capped().spec("m")).await;
    // With and without a budget of the caller's, and of the two limits the tighter one decides.
    for (options, code) in [
        (soon(), Some("price_cap")),
        (within(money(5000)), Some("price_cap")),
        (within(money(900)), None),
    ] {
        let fault = fault(port.call_with(ask(500), options).await.unwrap_err());
        assert_eq!((fault.class, fault.code.as_deref()), (Class::BudgetDenied, code), "{fault}");
    }
    assert_eq!(dear.count(), 0, "nothing is sent that may cost more");
    port.call_with(ask(400), soon()).await.unwrap();
    // Without a limit of its own an answer gets what the cap covers.
    port.call_with("hi", soon()).await.unwrap();
    let sent = dear.requests();
    let prompt = |at: usize| (sent[at].body.len() as u64).div_ceil(4);
    assert_eq!(sent[0].json()["max_tokens"], 400);
    let limit = sent[1].json()["max_tokens"].as_u64().unwrap();
    assert!((prompt(1) + 2 * limit).abs_diff(1000) <= 10, "{limit}");
    system.stop().await;
    // Also without supervision.
    let mut alone = capped();
    alone.connect().unwrap();
    let fault = alone.ask(&ask(500), Duration::MAX, 1).await.unwrap_err();
    assert_eq!(fault.code.as_deref(), Some("price_cap"));
    // A sibling that costs less may be asked.
    let member = Model::openai(cheap.url(), "m").price_per_million(1, 1).price_cap(1000);
    let group =
        GroupSpec::model("llm").member_spec(capped().spec("a")).member_spec(member.spec("b"));
    let system = System::start(SupervisorSpec::one_for_one("root").group(group)).await.unwrap();
    let llm: Chat = system.port("root/llm").unwrap();
    assert_eq!(llm.call_with(ask(500), soon()).await.unwrap().served_by.id(), "b");
    assert_eq!((dear.count(), cheap.count()), (2, 1));
}

#[tokio::test]
async fn a_price_cap_is_what_the_child_says_of_itself_and_wants_prices() {
    let mut model = Model::openai("http://127.0.0.1:9/v1", "m").price_cap(5);
    let fault = model.connect().unwrap_err();
    assert_eq!((fault.class, fault.code.as_deref()), (Class::InputValidation, Some("no_price")));
    model.clone().price_per_million(0, 0).connect().unwrap();
    // Beside one with a cap, one with none is a downgrade.
    let model = |cap: Option<u64>| {
        let model = Model::openai("http://127.0.0.1:9/v1", "m").price_per_million(1, 1);
        cap.into_iter().fold(model, Model::price_cap)
    };
    for (other, fits) in [(None, false), (Some(6), false), (Some(5), true)] {
        let group = GroupSpec::model("llm")
            .member_spec(model(Some(5)).spec("a"))
            .member_spec(model(other).spec("b"));
        let root = SupervisorSpec::one_for_one("root").group(group);
        assert_eq!(root.validate().is_ok(), fits, "{other:?}");
    }
}
