//! Hedging over real HTTP: an endpoint that is slow, one that answers meanwhile, and a listener.

use std::time::Duration;

use mainstay::event::Event;
use mainstay::fate::Answer;
use mainstay::policy::{Hedge, Policy};
use mainstay::port::Port;
use mainstay::spec::{ChildSpec, GroupSpec, SupervisorSpec};
use mainstay::system::System;
use mainstay_actors::chat::stream::{ChatStream, OnBreak, StreamEvent, open};
use mainstay_actors::chat::{ChatReply, ChatRequest};
use mainstay_actors::local::LocalModel;
use mainstay_actors::model::Model;
use mainstay_actors::stub_server::{Row, StreamEnd, StubServer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

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

/// A server that says what it is told to, when it is told to.
struct Puppet {
    url: String,
    /// `None` hangs up.
    says: UnboundedSender<Option<String>>,
    tells: UnboundedReceiver<Told>,
}

#[derive(Debug, PartialEq)]
enum Told {
    Asked,
    /// Nobody waits for it any more.
    HungUp,
}

impl Puppet {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let (says, mut said) = unbounded_channel::<Option<String>>();
        let (tell, tells) = unbounded_channel();
        tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut some = [0; 4096];
                let _ = socket.read(&mut some).await;
                let _ = tell.send(Told::Asked);
                loop {
                    tokio::select! {
                        word = said.recv() => match word.flatten() {
                            Some(word) => socket.write_all(word.as_bytes()).await.unwrap(),
                            None => break,
                        },
                        read = socket.read(&mut some) => if !matches!(read, Ok(1..)) {
                            let _ = tell.send(Told::HungUp);
                            break;
                        },
                    }
                }
            }
        });
        Self { url, says, tells }
    }

    fn model(&self, id: &str) -> ChildSpec {
        Model::openai(&*self.url, "m").spec(id)
    }

    async fn tells(&mut self, what: Told) {
        assert_eq!(self.tells.recv().await, Some(what));
    }

    fn begins(&self, word: &str) {
        let head =
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
        self.says.send(Some(head.to_owned())).unwrap();
        self.goes_on(word);
    }

    fn goes_on(&self, word: &str) {
        let frame = format!(r#"{{"choices":[{{"index":0,"delta":{{"content":"{word}"}}}}]}}"#);
        self.says.send(Some(format!("data: {frame}\n\n"))).unwrap();
    }

    fn ends(&self) {
        let frame = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
        self.says.send(Some(format!("data: {frame}\n\ndata: [DONE]\n\n"))).unwrap();
        self.says.send(None).unwrap();
    }

    fn breaks_off(&self) {
        self.says.send(None).unwrap();
    }
}

/// Two that are asked both, whatever each says.
async fn puppets() -> (Puppet, Puppet, System, Llm) {
    let (first, second) = (Puppet::start().await, Puppet::start().await);
    let members = (first.model("first"), second.model("second"));
    let group = GroupSpec::model("llm").member_spec(members.0).member_spec(members.1);
    let (system, llm) = desk(group).await;
    (first, second, system, llm)
}

#[tokio::test]
async fn an_endpoint_whose_answer_begins_later_breaks_nothing_off_that_its_hedge_has_begun() {
    for on_break in [OnBreak::Partial, OnBreak::Restart] {
        let (mut first, mut second, system, llm) = puppets().await;
        let (sink, mut stream) = open(64);
        let request = ChatRequest::from("hello").stream_to(sink.on_break(on_break));
        let play = async {
            first.tells(Told::Asked).await;
            second.tells(Told::Asked).await;
            second.begins("sec");
            assert_eq!(stream.next().await, Some(StreamEvent::Text("sec".to_owned())));
            first.begins("fir");
            // It was refused.
            first.tells(Told::HungUp).await;
            second.goes_on("ond");
            second.ends();
            rest(&mut stream).await
        };
        let (answer, heard) = tokio::join!(llm.call(request), play);
        let answer = answer.unwrap();
        assert_eq!((answer.value.text.as_str(), answer.served_by.id()), ("second", "second"));
        assert_eq!(heard, said(&["ond"]));
        system.stop().await;
    }
}

#[tokio::test]
async fn the_copy_that_is_left_answers_when_the_one_that_wrote_breaks_off() {
    for first_breaks in [true, false] {
        let (mut first, mut second, system, llm) = puppets().await;
        let mut events = system.events();
        let (sink, mut stream) = open(64);
        let request = ChatRequest::from("hello").stream_to(sink.on_break(OnBreak::Restart));
        let play = async {
            first.tells(Told::Asked).await;
            second.tells(Told::Asked).await;
            let (breaks, left) = if first_breaks { (&first, &second) } else { (&second, &first) };
            breaks.begins("a");
            assert_eq!(stream.next().await, Some(StreamEvent::Text("a".to_owned())));
            breaks.breaks_off();
            while !matches!(events.next().await.unwrap().event, Event::Failed { .. }) {}
            left.begins("b");
            left.ends();
            rest(&mut stream).await
        };
        let (answer, heard) = tokio::join!(llm.call(request), play);
        let answer = answer.unwrap();
        let left = if first_breaks { "second" } else { "first" };
        assert_eq!((answer.value.text.as_str(), answer.served_by.id()), ("b", left));
        assert_eq!(heard, [&[StreamEvent::Restart], &said(&["b"])[..]].concat());
        system.stop().await;
    }
}
