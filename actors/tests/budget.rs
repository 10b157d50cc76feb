//! What requests may use: the limits an endpoint keeps to by itself, and the budget of whoever asks.

use std::time::Duration;

use mainstay::event::Event;
use mainstay::port::{CallOptions, Port};
use mainstay::spec::{GroupSpec, SupervisorSpec};
use mainstay::system::System;
use mainstay_actors::chat::{ChatReply, ChatRequest};
use mainstay_actors::model::Model;
use mainstay_actors::model::limits::RateLimits;
use mainstay_actors::stub_server::StubServer;

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
