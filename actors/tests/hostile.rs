//! Servers that mean harm, or do it all the same: what they get, and what becomes of the attempt.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mainstay::fate::Cost;
use mainstay::fault::{Class, EffectState, Fault};
use mainstay::spec::SupervisorSpec;
use mainstay::system::System;
use mainstay_actors::chat::ChatRequest;
use mainstay_actors::chat::stream::open;
use mainstay_actors::model::Model;
use mainstay_actors::model::limits::RateLimits;
use mainstay_actors::stub_server::{Row, StubServer};

#[path = "hostile/bodies.rs"]
mod bodies;
#[path = "hostile/calls.rs"]
mod calls;
#[path = "hostile/endings.rs"]
mod endings;
#[path = "hostile/streams.rs"]
mod streams;
#[path = "hostile/tls.rs"]
mod tls;
#[path = "hostile/wires.rs"]
mod wires;

const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_key_from_a_callback_is_asked_for_each_time_and_its_failure_is_the_fault() {
    let server = StubServer::start().await.unwrap();
    let asked = AtomicU32::new(0);
    let mut model = Model::openai(server.url(), "m").key_from(move || {
        match asked.fetch_add(1, Ordering::SeqCst) {
            0 => Ok("sk-one".to_owned()),
            1 => Ok(" sk-two\n".to_owned()),
            2 => Ok(" ".to_owned()),
            _ => Err(Fault::permission("the vault is closed").with_code("vault")),
        }
    });
    model.connect().unwrap();
    let ask = || async { model.ask(&"x".into(), LONG, 1).await };
    ask().await.unwrap();
    ask().await.unwrap();
    let sent: Vec<_> = server.requests();
    assert_eq!(sent[0].header("authorization"), Some("Bearer sk-one"));
    assert_eq!(sent[1].header("authorization"), Some("Bearer sk-two"));
    assert_eq!(ask().await.unwrap_err().code.as_deref(), Some("no_key"));
    let fault = ask().await.unwrap_err();
    assert_eq!((fault.code.as_deref(), fault.effect), (Some("vault"), EffectState::NotApplied));
    assert_eq!(server.count(), 2, "nothing is sent without a key");
}

#[tokio::test]
async fn an_endpoint_keeps_to_its_own_limits_and_a_request_of_its_refusal_is_not_sent() {
    let server = StubServer::start().await.unwrap();
    let limits = RateLimits::new().requests_per_minute(1);
    let mut first = Model::openai(server.url(), "m").limits(limits.clone());
    let mut second = Model::anthropic(server.url(), "m").limits(limits);
    first.connect().unwrap();
    second.connect().unwrap();
    first.ask(&"x".into(), LONG, 1).await.unwrap();
    for model in [&first, &second] {
        let fault = model.ask(&"x".into(), LONG, 1).await.unwrap_err();
        assert_eq!((fault.class, fault.code.as_deref()), (Class::RateLimit, Some("local_limit")));
        let wait = fault.retry_after.unwrap();
        assert!(wait > Duration::from_secs(30) && wait <= Duration::from_secs(60), "{wait:?}");
    }
    assert_eq!(server.count(), 1);
    // Tokens are settled by what was used: 15 of 20, and the next needs more than 5.
    let limits = RateLimits::new().tokens_per_minute(20);
    let mut model = Model::openai(server.url(), "m").limits(limits);
    model.connect().unwrap();
    model.ask(&"x".into(), LONG, 1).await.unwrap();
    let fault = model.ask(&"x".into(), LONG, 1).await.unwrap_err();
    assert_eq!(fault.code.as_deref(), Some("local_limit"));
}

#[tokio::test]
async fn tokens_and_money_are_on_the_answer() {
    let server = StubServer::start().await.unwrap();
    // 10 tokens at 3 and 5 at 15 a million.
    let model = Model::openai(server.url(), "m").price_per_million(3_000_000, 15_000_000);
    let root = SupervisorSpec::one_for_one("root").child(model.spec("m"));
    let system = System::start(root).await.unwrap();
    let child = system.child::<Model>("root/m").unwrap();
    let expected = Cost { tokens: 15, money_micros: 105 };
    assert_eq!(child.call("x").await.unwrap().cost, expected);
    server.then(Row::reply_stream(["x"]));
    let (sink, _stream) = open(64);
    let answer = child.call(ChatRequest::from("x").stream_to(sink)).await.unwrap();
    assert_eq!(answer.cost, expected);
    system.stop().await;
}
