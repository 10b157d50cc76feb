//! Hedging over real HTTP: an endpoint that is slow, one that answers meanwhile, and a listener.

use std::time::Duration;

use mainstay::fate::Answer;
use mainstay::policy::{Hedge, Policy};
use mainstay::port::Port;
use mainstay::spec::{GroupSpec, SupervisorSpec};
use mainstay::system::System;
use mainstay_actors::chat::stream::{ChatStream, StreamEvent, open};
use mainstay_actors::chat::{ChatReply, ChatRequest};
use mainstay_actors::local::LocalModel;
use mainstay_actors::model::Model;
use mainstay_actors::stub_server::{Row, StreamEnd, StubServer};

const SOON: Duration = Duration::from_millis(300);
/// Longer than that: a stream that has begun is still under way when it is hedged.
const IDLE: Duration = Duration::from_millis(700);

type Llm = Port<ChatRequest, ChatReply>;

async fn servers() -> (StubServer, StubServer) {
    (StubServer::start().await.unwrap(), StubServer::start().await.unwrap())
}

async fn desk(group: GroupSpec) -> (System, Llm) {
    let root = SupervisorSpec::one_for_one("desk").group(group.hedge(Hedge::after(SOON)));
    let system = System::start(root).await.unwrap();
    let llm = system.port("desk/llm").unwrap();
    (system, llm)
}

fn two(first: &StubServer, second: &StubServer) -> GroupSpec {
    let model = |server: &StubServer, id| {
        let model = Model::openai(server.url(), "m").idle_timeout(IDLE);
        model.price_per_million(1_000_000, 1_000_000).spec(id)
    };
    GroupSpec::model("llm").member_spec(model(first, "first")).member_spec(model(second, "second"))
}

async fn listen(llm: &Llm) -> (Answer<ChatReply>, Vec<StreamEvent>) {
    let (sink, mut stream) = open(64);
    let request = ChatRequest::from("hello").stream_to(sink);
    let (answer, heard) = tokio::join!(llm.call(request), rest(&mut stream));
    (answer.unwrap(), heard)
}

async fn rest(stream: &mut ChatStream) -> Vec<StreamEvent> {
    let mut all = Vec::new();
    while let Some(event) = stream.next().await {
        all.push(event);
    }
    all
}

fn said(texts: &[&str]) -> Vec<StreamEvent> {
    let texts = texts.iter().map(|text| StreamEvent::Text((*text).to_owned()));
    texts.chain([StreamEvent::Done]).collect()
}

#[tokio::test]
async fn a_second_endpoint_answers_and_the_slow_ones_connection_is_closed() {
    let (first, second) = servers().await;
    first.then(Row::hang());
    second.then(Row::reply("second"));
    let (system, llm) = desk(two(&first, &second)).await;
    let answer = llm.call("q").await.unwrap();
    assert_eq!((answer.value.text.as_str(), answer.served_by.id()), ("second", "second"));
    assert!(answer.elapsed >= SOON);
    // 15 tokens of the second's, and the prompt that the first was sent, though nobody has set a budget.
    assert!((16..40).contains(&answer.cost.tokens), "{:?}", answer.cost);
    // It hears at once that nobody waits for it any more.
    first.hung_up(1).await;
    let stats = system.stats();
    assert_eq!((stats.hedges.len(), stats.hedges_won.len(), stats.fallbacks.len()), (1, 1, 0));
    system.stop().await;
}

/// Says a word, and then nothing.
fn falters() -> Row {
    // The first piece says who speaks.
    Row::reply_stream(["hel", "lo"]).end_after(2, StreamEnd::Hang)
}

fn is_part(answer: &Answer<ChatReply>, heard: &[StreamEvent]) -> bool {
    answer.value.text == "hel"
        && answer.served_by.id() == "first"
        && matches!(heard, [StreamEvent::Text(text), StreamEvent::Partial(_)] if text == "hel")
}

#[tokio::test]
async fn an_answer_that_is_heard_already_is_not_asked_for_twice() {
    let (first, second) = servers().await;
    first.then(falters());
    let (system, llm) = desk(two(&first, &second)).await;
    let (answer, heard) = listen(&llm).await;
    assert!(is_part(&answer, &heard), "{answer:?} {heard:?}");
    // The hedge is refused where it would have been sent.
    assert_eq!((second.count(), system.stats().hedges.len()), (0, 1));
    system.stop().await;
}

#[tokio::test]
async fn a_stream_that_does_not_begin_is_taken_over_and_never_mixed() {
    let (first, second) = servers().await;
    first.then(Row::hang());
    second.then(Row::reply_stream(["sec", "ond"]));
    let (system, llm) = desk(two(&first, &second)).await;
    let (answer, heard) = listen(&llm).await;
    assert_eq!((answer.value.text.as_str(), answer.served_by.id()), ("second", "second"));
    assert_eq!(heard, said(&["sec", "ond"]));
    first.hung_up(1).await;
    system.stop().await;
}

#[tokio::test]
async fn the_offline_model_takes_no_stream_over_that_is_heard() {
    let first = StubServer::start().await.unwrap();
    first.then(falters());
    let model = Model::openai(first.url(), "m").idle_timeout(IDLE).spec("first");
    let group = GroupSpec::model("llm").member_spec(model).member("local", LocalModel::new());
    let (system, llm) = desk(group).await;
    let (answer, heard) = listen(&llm).await;
    assert!(is_part(&answer, &heard), "{answer:?} {heard:?}");
    system.stop().await;
}

#[tokio::test]
async fn what_a_dropped_attempt_has_used_is_charged() {
    let (first, second) = servers().await;
    // Some of an answer that is held back, since it is no frame of content yet, and then nothing.
    let usage = r#"{"choices":[],"usage":{"prompt_tokens":1000,"completion_tokens":1}}"#;
    first.then(
        Row::stream([format!("data: {usage}\n\n"), String::from(": beat\n\n")])
            .end_after(2, StreamEnd::Hang),
    );
    second.then(Row::reply_stream(["second"]));
    let (system, llm) = desk(two(&first, &second)).await;
    let (answer, _) = listen(&llm).await;
    assert_eq!(answer.served_by.id(), "second");
    // 15 tokens of the second's, and what the first had said it used when it was called off.
    assert!(answer.cost.tokens >= 1015, "{:?}", answer.cost);
    let first_alone = Model::openai(first.url(), "m").spec("first");
    first.then(
        Row::stream([format!("data: {usage}\n\n"), String::from(": beat\n\n")])
            .end_after(2, StreamEnd::Hang),
    );
    let limit = Duration::from_millis(300);
    let second_alone = Model::openai(second.url(), "m").spec("second");
    let group = GroupSpec::model("llm")
        .policy(Policy::without_retries())
        .member_spec(first_alone.attempt_timeout(limit))
        .member_spec(second_alone);
    let root = SupervisorSpec::one_for_one("desk").group(group);
    let other = System::start(root).await.unwrap();
    second.then(Row::reply_stream(["second"]));
    let (answer, _) = listen(&other.port("desk/llm").unwrap()).await;
    assert_eq!(answer.served_by.id(), "second");
    assert!(answer.cost.tokens >= 1015, "{:?}", answer.cost);
    other.stop().await;
    system.stop().await;
}
