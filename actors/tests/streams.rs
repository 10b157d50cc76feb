//! Answers while they are written: what a listener hears, when, and what becomes of it when the
//! provider, the network or the caller goes away.

use std::time::Duration;

use mainstay::fault::{Class, Fault};
use mainstay::spec::{ChildSpec, GroupSpec, SupervisorSpec};
use mainstay::system::System;
use mainstay_actors::agent::{Agent, AgentReply, AgentRequest};
use mainstay_actors::chat::stream::{ChatStream, OnBreak, StreamEvent, StreamSink, open};
use mainstay_actors::chat::{ChatReply, ChatRequest, Finish, ResponseFormat};
use mainstay_actors::local::LocalModel;
use mainstay_actors::model::{CommitPoint, Model, WhenFull};
use mainstay_actors::stub_server::{Row, StreamEnd, StubServer};
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(20);

fn text(text: &str) -> StreamEvent {
    StreamEvent::Text(text.to_owned())
}

async fn rest(stream: &mut ChatStream) -> Vec<StreamEvent> {
    let mut all = Vec::new();
    while let Some(event) = stream.next().await {
        all.push(event);
    }
    all
}

/// One attempt at the server by this model, and what was heard of it.
async fn ask_as(
    mut model: Model,
    request: ChatRequest,
) -> (Result<ChatReply, Fault>, Vec<StreamEvent>) {
    model.connect().unwrap();
    let (sink, mut stream) = open(1024);
    let ask = async {
        let request = request.stream_to(sink);
        model.ask(&request, LONG, 1).await
    };
    tokio::join!(ask, rest(&mut stream))
}

async fn ask(server: &StubServer) -> (Result<ChatReply, Fault>, Vec<StreamEvent>) {
    ask_as(Model::openai(server.url(), "m"), "hello".into()).await
}

fn code(outcome: &Result<ChatReply, Fault>) -> Option<&str> {
    let fault = match outcome {
        Err(fault) => Some(fault),
        Ok(reply) => reply.broken_by(),
    };
    fault.and_then(|fault| fault.code.as_deref())
}

/// A group of one model for each server.
async fn desk<const N: usize>(
    servers: [&StubServer; N],
    configure: impl Fn(Model) -> Model,
    limits: impl Fn(ChildSpec) -> ChildSpec,
) -> System {
    let mut group = GroupSpec::model("llm");
    for (number, server) in servers.iter().enumerate() {
        let model = configure(Model::openai(server.url(), "m"));
        group = group.member_spec(limits(model.spec(format!("m{number}"))));
    }
    System::start(SupervisorSpec::one_for_one("desk").group(group)).await.unwrap()
}

fn request(sink: StreamSink) -> ChatRequest {
    ChatRequest::from("hello").stream_to(sink)
}

#[tokio::test]
async fn an_answer_is_heard_as_it_is_written_and_the_reply_says_it_whole() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::reply_stream(["hel", "lo"]));
    let (reply, heard) = ask(&server).await;
    assert_eq!(heard, [text("hel"), text("lo"), StreamEvent::Done]);
    let reply = reply.unwrap();
    assert_eq!((&*reply.text, reply.usage.input, reply.usage.output), ("hello", 10, 5));
    assert!(!reply.usage.estimated);
    let sent = server.requests()[0].json();
    assert_eq!(
        (&sent["stream"], &sent["stream_options"]["include_usage"]),
        (&true.into(), &true.into())
    );
    assert!(server.requests()[0].header("accept").unwrap().contains("text/event-stream"));
}

#[tokio::test]
async fn the_first_word_is_heard_before_the_last_is_written() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::reply_stream(["hel", "lo"]).end_after(2, StreamEnd::Hang));
    let mut model = Model::openai(server.url(), "m");
    model.connect().unwrap();
    let (sink, mut stream) = open(8);
    let request = request(sink);
    tokio::select! {
        _ = model.ask(&request, LONG, 1) => panic!("there is no answer yet"),
        event = stream.next() => assert_eq!(event, Some(text("hel"))),
    }
}

#[tokio::test]
async fn every_cut_of_the_bytes_gives_the_same_answer() {
    let body = "data: {\"choices\":[{\"delta\":{\"content\":\"h\u{e9}l\"}}]}\r\n\r\n: beat\r\ndata: \
                {\"choices\":[{\"delta\":{\"content\":\"\u{1f600}\"},\"finish_reason\":\"stop\"}]}\n\n\
                data: [DONE]\n\n";
    for piece in [1, 2, 3, 7, 50] {
        let server = StubServer::start().await.unwrap();
        server.then(Row::stream(body.as_bytes().chunks(piece)));
        let (reply, heard) = ask(&server).await;
        assert_eq!(reply.unwrap().text, "h\u{e9}l\u{1f600}");
        assert_eq!(heard, [text("h\u{e9}l"), text("\u{1f600}"), StreamEvent::Done], "{piece}");
    }
}

#[tokio::test]
async fn each_provider_streams_in_its_own_way() {
    let anthropic = concat!(
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"m\",\"usage\":{\"input_tokens\":10}}}\n\n",
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"hello\"}}\n\n",
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":5}}\n\n",
        "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
    );
    let responses = concat!(
        "data: {\"type\":\"response.output_text.delta\",\"delta\":\"hello\"}\n\n",
        "data: {\"type\":\"response.completed\",\"response\":{\"status\":\"completed\",\"usage\":{\"input_tokens\":10,\"output_tokens\":5}}}\n\n",
    );
    let gemini = "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"hello\"}]},\"finishReason\":\"STOP\"}],\"usageMetadata\":{\"promptTokenCount\":10,\"candidatesTokenCount\":5}}\n\n";
    let ollama = "{\"message\":{\"content\":\"hello\"},\"done\":false}\n{\"message\":{\"content\":\"\"},\"done\":true,\"done_reason\":\"stop\",\"prompt_eval_count\":10,\"eval_count\":5}\n";
    let server = StubServer::start().await.unwrap();
    let url = server.url();
    let cases = [
        (
            Model::responses(url, "m"),
            responses,
            "text/event-stream",
            "authorization",
            "/v1/responses",
        ),
        (Model::anthropic(url, "m"), anthropic, "text/event-stream", "x-api-key", "/v1/messages"),
        (
            Model::gemini(url, "m"),
            gemini,
            "text/event-stream",
            "x-goog-api-key",
            "/v1/models/m:streamGenerateContent?alt=sse",
        ),
        (
            Model::ollama_native(url, "m"),
            ollama,
            "application/x-ndjson",
            "authorization",
            "/v1/api/chat",
        ),
    ];
    for (number, (model, body, kind, header, path)) in cases.into_iter().enumerate() {
        server.then(Row::stream(body.as_bytes().chunks(11)).header("content-type", kind));
        let (reply, heard) = ask_as(model.key("sk-1234"), "x".into()).await;
        let reply = reply.unwrap();
        assert_eq!((&*reply.text, reply.usage.total()), ("hello", 15), "{path}");
        assert_eq!(heard, [text("hello"), StreamEvent::Done], "{path}");
        let seen = &server.requests()[number];
        assert_eq!(seen.path, path);
        assert!(seen.header(header).unwrap().ends_with("sk-1234"), "{path}");
        let version = seen.header("anthropic-version");
        assert_eq!(version.is_some(), path == "/v1/messages");
    }
}

#[tokio::test]
async fn a_stream_that_breaks_is_told_alike_whoever_it_comes_from() {
    let server = StubServer::start().await.unwrap();
    let url = server.url();
    let events = "text/event-stream";
    let wires = [
        (
            Model::openai(url, "m"),
            events,
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hel\"}}]}\n\n",
            "data: {\"error\":{\"code\":\"server_busy\",\"message\":\"busy\"}}\n\n",
        ),
        (
            Model::responses(url, "m"),
            events,
            "data: {\"type\":\"response.output_text.delta\",\"delta\":\"hel\"}\n\n",
            "data: {\"type\":\"error\",\"code\":\"server_busy\",\"message\":\"busy\"}\n\n",
        ),
        (
            Model::anthropic(url, "m"),
            events,
            concat!(
                "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"m\"}}\n\n",
                "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"hel\"}}\n\n",
            ),
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"server_busy\",\"message\":\"busy\"}}\n\n",
        ),
        (
            Model::gemini(url, "m"),
            events,
            "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"hel\"}]}}]}\n\n",
            "data: {\"error\":{\"code\":503,\"message\":\"busy\",\"status\":\"SERVER_BUSY\"}}\n\n",
        ),
        (
            Model::ollama_native(url, "m"),
            "application/x-ndjson",
            "{\"message\":{\"content\":\"hel\"},\"done\":false}\n",
            "{\"error\":\"server busy\"}\n",
        ),
    ];
    let cut = "the stream ended without its final frame";
    for (way, class, message) in [
        ("ends", Class::Network, cut),
        ("ends in what went wrong", Class::Network, cut),
        ("is reset", Class::Network, "the connection broke"),
        ("fails", Class::Overloaded, "busy"),
        ("is garbled", Class::ServerTransient, "a frame of the stream is not JSON"),
    ] {
        for (model, kind, said, failed) in wires.clone() {
            let garbled = failed.replacen(':', "::", failed.matches(':').count());
            let garbled = garbled.replace("data::", "data:").replace("event::", "event:");
            let more = match way {
                "ends in what went wrong" => &failed[..failed.len() - 6],
                "fails" => failed,
                "is garbled" => &garbled,
                _ => "",
            };
            let pieces = [said, more].into_iter().filter(|piece| !piece.is_empty());
            let row = Row::stream(pieces).header("content-type", kind);
            server.then(if way == "is reset" { row.end_after(1, StreamEnd::Reset) } else { row });
            let (reply, heard) = ask_as(model, "x".into()).await;
            let reply = reply.unwrap();
            let fault = reply.broken_by().unwrap();
            let told = (fault.class, fault.message.contains(message), &*reply.text);
            assert_eq!(told, (class, true, "hel"), "{way}: {said}: {fault:?}");
            assert_eq!(heard[0], text("hel"), "{way}: {said}");
        }
    }
}

#[tokio::test]
async fn a_server_that_does_not_stream_is_heard_all_at_once() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::reply("hello"));
    let (reply, heard) = ask(&server).await;
    assert_eq!(reply.unwrap().text, "hello");
    assert_eq!(heard, [text("hello"), StreamEvent::Done]);
    server.then(Row::tool_calls([("f", "{}")]));
    let (reply, heard) = ask(&server).await;
    let call = reply.unwrap().tool_calls[0].clone();
    assert_eq!(heard, [StreamEvent::ToolCall(call), StreamEvent::Done]);
}

#[tokio::test]
async fn an_answer_that_is_all_said_needs_no_final_frame() {
    let server = StubServer::start().await.unwrap();
    // Role, text, finish reason; then a reset, or silence.
    for end in [StreamEnd::Reset, StreamEnd::Hang] {
        server.then(Row::reply_stream(["hello"]).end_after(3, end));
        // Nor is it waited for as long as a pause may be.
        let model = Model::openai(server.url(), "m").idle_timeout(LONG * 10);
        let (reply, heard) = ask_as(model, "x".into()).await;
        assert_eq!(reply.unwrap().text, "hello");
        assert_eq!(heard.last(), Some(&StreamEvent::Done));
    }
}

#[tokio::test]
async fn a_failure_before_the_commit_is_mended_by_a_sibling_and_never_noticed() {
    let (first, second) = (StubServer::start().await.unwrap(), StubServer::start().await.unwrap());
    let overloaded = "data: {\"error\":{\"code\":\"overloaded_error\",\"message\":\"x\"}}\n\n";
    first.then(Row::stream([
        "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n",
        overloaded,
    ]));
    second.then(Row::reply_stream(["hel", "lo"]));
    let system = desk([&first, &second], |model| model, |spec| spec).await;
    let llm = system.port::<ChatRequest, ChatReply>("desk/llm").unwrap();
    let (sink, mut stream) = open(64);
    let (answer, heard) = tokio::join!(llm.call(request(sink)), rest(&mut stream));
    let answer = answer.unwrap();
    assert_eq!((&*answer.value.text, answer.served_by.as_str()), ("hello", "desk/llm/m1"));
    assert_eq!(heard, [text("hel"), text("lo"), StreamEvent::Done]);
    assert_eq!((first.count(), second.count()), (1, 1));
    system.stop().await;
}

#[tokio::test]
async fn an_agent_whose_model_says_nothing_is_mended_by_a_sibling_and_never_noticed() {
    let (first, second) = (StubServer::start().await.unwrap(), StubServer::start().await.unwrap());
    first.otherwise(Row::reply_stream([]));
    second.then(Row::reply_stream(["hel", "lo"]));
    let root = SupervisorSpec::one_for_one("desk")
        .child(Model::openai(first.url(), "m").spec("m0"))
        .child(Model::openai(second.url(), "m").spec("m1"))
        .group(
            GroupSpec::step("desk")
                .member_spec(Agent::new("m0").spec("a0"))
                .member_spec(Agent::new("m1").spec("a1")),
        );
    let system = System::start(root).await.unwrap();
    let desk = system.port::<AgentRequest, AgentReply>("desk/desk").unwrap();
    let (sink, mut stream) = open(64);
    let question = AgentRequest::new("hello").stream_to(sink);
    let (answer, heard) = tokio::join!(desk.call(question), rest(&mut stream));
    let answer = answer.unwrap();
    assert_eq!((&*answer.value.text, answer.served_by.as_str()), ("hello", "desk/desk/a1"));
    assert_eq!(heard, [text("hel"), text("lo"), StreamEvent::Done]);
    system.stop().await;
}

#[tokio::test]
async fn a_turn_that_its_provider_has_paused_is_gone_on_with_in_the_same_stream() {
    let server = StubServer::start().await.unwrap();
    let turn = |said: &str, stop: &str| {
        let delta = serde_json::json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": said}});
        let end = serde_json::json!({"type": "message_delta", "delta": {"stop_reason": stop}, "usage": {"output_tokens": 5}});
        Row::stream([
            "data: {\"type\":\"message_start\",\"message\":{\"model\":\"m\",\"usage\":{\"input_tokens\":10}}}\n\n".to_owned(),
            format!("data: {delta}\n\ndata: {end}\n\ndata: {{\"type\":\"message_stop\"}}\n\n"),
        ])
    };
    server.then(turn("searching. ", "pause_turn"));
    server.then(turn("found", "end_turn"));
    let root = SupervisorSpec::one_for_one("desk")
        .child(Model::anthropic(server.url(), "m").key("sk-1234").spec("m"))
        .child(Agent::new("m").spec("a"));
    let system = System::start(root).await.unwrap();
    let agent = system.port::<AgentRequest, AgentReply>("desk/a").unwrap();
    let (sink, mut stream) = open(64);
    let question = AgentRequest::new("hello").stream_to(sink);
    let (answer, heard) = tokio::join!(agent.call(question), rest(&mut stream));
    assert_eq!(answer.unwrap().value.text, "found");
    assert_eq!(heard, [text("searching. "), text("found"), StreamEvent::Done]);
    system.stop().await;
}

#[tokio::test]
async fn a_failure_after_the_commit_is_a_part_and_nobody_is_asked_again() {
    let (first, second) = (StubServer::start().await.unwrap(), StubServer::start().await.unwrap());
    first.then(Row::reply_stream(["hel", "lo"]).end_after(2, StreamEnd::Reset));
    let system =
        desk([&first, &second], |model| model.price_per_million(1_000_000, 0), |spec| spec).await;
    let llm = system.port::<ChatRequest, ChatReply>("desk/llm").unwrap();
    let (sink, mut stream) = open(64);
    let (answer, heard) = tokio::join!(llm.call(request(sink)), rest(&mut stream));
    let answer = answer.unwrap();
    assert!(answer.degraded);
    assert_eq!(answer.value.text, "hel");
    let Finish::Partial(fault) = &answer.value.finish else { panic!("{:?}", answer.value) };
    assert_eq!(fault.class, Class::Network);
    assert_eq!(heard, [text("hel"), StreamEvent::Partial((**fault).clone())]);
    assert_eq!((first.count(), second.count()), (1, 0));
    // What was not finished is paid for, by estimate.
    assert!(answer.value.usage.estimated && answer.cost.money_micros > 0);
    system.stop().await;
}

#[tokio::test]
async fn streams_that_break_off_open_the_circuit_of_their_endpoint() {
    let (first, second) = (StubServer::start().await.unwrap(), StubServer::start().await.unwrap());
    first.otherwise(Row::reply_stream(["hel", "lo"]).end_after(2, StreamEnd::Reset));
    let system = desk([&first, &second], |model| model, |spec| spec).await;
    let llm = system.port::<ChatRequest, ChatReply>("desk/llm").unwrap();
    for round in 1..=4 {
        let (sink, mut stream) = open(64);
        let (answer, _) = tokio::join!(llm.call(request(sink)), rest(&mut stream));
        let answer = answer.unwrap();
        // Each of the first three is answered with its part, and counted as a failure all the same.
        let broke = round <= 3;
        assert_eq!(answer.value.broken_by().is_some(), broke, "{round}");
        assert_eq!(answer.served_by.id(), if broke { "m0" } else { "m1" }, "{round}");
    }
    assert_eq!((first.count(), second.count()), (3, 1));
    let stats = system.stats();
    assert_eq!((stats.failures[&Class::Network], system.fates().done), (3, 4));
    system.stop().await;
}

#[tokio::test]
async fn a_listener_that_can_begin_again_hears_a_restart_and_the_siblings_answer() {
    let (first, second) = (StubServer::start().await.unwrap(), StubServer::start().await.unwrap());
    let overloaded = "data: {\"error\":{\"code\":\"overloaded_error\",\"message\":\"x\"}}\n\n";
    first.then(Row::stream([
        "data: {\"choices\":[{\"delta\":{\"content\":\"hel\"}}]}\n\n",
        overloaded,
    ]));
    second.then(Row::reply_stream(["good ", "day"]));
    let system = desk([&first, &second], |model| model, |spec| spec).await;
    let llm = system.port::<ChatRequest, ChatReply>("desk/llm").unwrap();
    let (sink, mut stream) = open(64);
    let sink = sink.on_break(OnBreak::Restart);
    let (answer, heard) = tokio::join!(llm.call(request(sink)), rest(&mut stream));
    assert_eq!(answer.unwrap().value.text, "good day");
    let expected =
        [text("hel"), StreamEvent::Restart, text("good "), text("day"), StreamEvent::Done];
    assert_eq!(heard, expected);
    system.stop().await;
}

#[tokio::test]
async fn the_offline_model_is_heard_as_a_substitute_and_keeps_to_a_part() {
    let server = StubServer::start().await.unwrap();
    let overloaded = "data: {\"error\":{\"code\":\"overloaded_error\",\"message\":\"x\"}}\n\n";
    server.otherwise(Row::stream([
        "data: {\"choices\":[{\"delta\":{\"content\":\"hel\"}}]}\n\n",
        overloaded,
    ]));
    let group = GroupSpec::model("llm")
        .member_spec(Model::openai(server.url(), "m").spec("m"))
        .member_spec(LocalModel::default().spec("local"));
    let root = SupervisorSpec::one_for_one("desk").group(group);
    let system = System::start(root).await.unwrap();
    let llm = system.port::<ChatRequest, ChatReply>("desk/llm").unwrap();
    let (sink, mut stream) = open(64);
    let sink = sink.on_break(OnBreak::Restart);
    let (answer, heard) = tokio::join!(llm.call(request(sink)), rest(&mut stream));
    let said = answer.unwrap().value.text;
    let expected = [text("hel"), StreamEvent::Restart, text(&said), StreamEvent::Done];
    assert_eq!(heard, expected);
    system.stop().await;
    // Asked after an answer broke off, it gives the part.
    let (sink, _stream) = open(64);
    let mut writer = sink.attempt();
    writer.text("hel").await.unwrap();
    drop(writer);
    let root = SupervisorSpec::one_for_one("desk").child(LocalModel::default().spec("local"));
    let system = System::start(root).await.unwrap();
    let local = system.child::<LocalModel>("desk/local").unwrap();
    let answer = local.call(request(sink)).await.unwrap();
    assert_eq!((&*answer.value.text, answer.degraded), ("hel", true));
    assert!(answer.value.broken_by().is_some());
    system.stop().await;
}

#[tokio::test]
async fn an_attempt_that_runs_out_of_time_after_the_commit_leaves_its_part() {
    let server = StubServer::start().await.unwrap();
    server.otherwise(Row::reply_stream(["hel", "lo"]).end_after(2, StreamEnd::Hang));
    let short = |spec: ChildSpec| spec.attempt_timeout(Duration::from_secs(2));
    let system = desk([&server], |model| model, short).await;
    let llm = system.port::<ChatRequest, ChatReply>("desk/llm").unwrap();
    let (sink, mut stream) = open(64);
    let (answer, heard) = tokio::join!(llm.call(request(sink)), rest(&mut stream));
    let answer = answer.unwrap();
    assert_eq!((&*answer.value.text, answer.degraded), ("hel", true));
    assert_eq!(answer.value.broken_by().unwrap().code.as_deref(), Some("cut_off"));
    assert!(answer.value.usage.estimated && answer.cost.tokens > 0, "it is paid for");
    assert!(matches!(&heard[..], [_, StreamEvent::Partial(_)]));
    assert_eq!(server.count(), 1, "the part is not asked for again");
    timeout(LONG, server.hung_up(1)).await.unwrap();
    system.stop().await;
}

#[tokio::test]
async fn dropping_the_call_closes_the_connection_before_and_after_the_commit() {
    let server = StubServer::start().await.unwrap();
    let system = desk([&server], |model| model, |spec| spec).await;
    let llm = system.port::<ChatRequest, ChatReply>("desk/llm").unwrap();
    for (number, row) in
        [Row::hang(), Row::reply_stream(["hel", "lo"]).end_after(2, StreamEnd::Hang)]
            .into_iter()
            .enumerate()
    {
        server.then(row);
        let (sink, mut stream) = open(64);
        tokio::select! {
            _ = llm.call(request(sink)) => panic!("nobody answers"),
            _ = async {
                server.asked(number + 1).await;
                if number == 1 {
                    assert_eq!(stream.next().await, Some(text("hel")));
                }
            } => {}
        }
        timeout(LONG, server.hung_up(number + 1)).await.expect("the server sees it");
    }
    // The same for an answer that comes whole.
    server.then(Row::hang());
    tokio::select! {
        _ = llm.call("hello") => panic!("nobody answers"),
        () = server.asked(3) => {}
    }
    timeout(LONG, server.hung_up(3)).await.expect("the server sees it");
    system.stop().await;
    assert!(system.fates().is_balanced());
}

#[tokio::test]
async fn a_stream_that_pauses_trickles_or_never_makes_a_frame_is_a_timeout() {
    let server = StubServer::start().await.unwrap();
    let frame = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n";
    let ms = Duration::from_millis;
    let idle = || Model::openai(server.url(), "m").idle_timeout(ms(1000));
    let floor = || Model::openai(server.url(), "m").throughput_floor(1000, ms(200));
    let slow_loris = Row::stream(frame.bytes().map(|byte| vec![byte])).pause(ms(100));
    let silent = Row::stream([frame]).end_after(1, StreamEnd::Hang);
    let trickle = Row::stream([frame; 100]).pause(ms(20));
    let cases = [
        (idle(), slow_loris, "idle", ""),
        (idle(), silent, "idle", "x"),
        (floor(), trickle, "too_slow", "x"),
    ];
    for (number, (model, row, expected, said)) in cases.into_iter().enumerate() {
        server.then(row);
        let (reply, heard) = ask_as(model, "x".into()).await;
        assert_eq!(code(&reply), Some(expected), "{reply:?}");
        assert_eq!(heard.is_empty(), said.is_empty(), "{expected}");
        timeout(LONG, server.hung_up(number + 1)).await.expect("the connection is closed");
    }
}

#[tokio::test]
async fn heartbeats_keep_a_thinking_model_alive() {
    let server = StubServer::start().await.unwrap();
    let mut pieces = vec![": thinking\n\n".to_owned(); 20];
    pieces.push(
        "data: {\"choices\":[{\"delta\":{\"content\":\"x\"},\"finish_reason\":\"stop\"}]}\n\n"
            .to_owned(),
    );
    server.then(Row::stream(pieces).pause(Duration::from_millis(200)));
    let model = Model::openai(server.url(), "m").idle_timeout(Duration::from_secs(3));
    assert_eq!(ask_as(model, "x".into()).await.0.unwrap().text, "x");
}

#[tokio::test]
async fn the_commit_point_and_a_full_buffer_are_as_the_endpoint_says() {
    let server = StubServer::start().await.unwrap();
    let frame = "data: {\"choices\":[{\"delta\":{\"content\":\"hel\"}}]}\n\n";
    let probe = |characters, time| {
        Model::openai(server.url(), "m").commit_point(CommitPoint::Probe { characters, time })
    };
    // Three characters and a reset: heard, and not heard.
    server.then(Row::stream([frame]).end_after(1, StreamEnd::Reset));
    let (reply, heard) = ask_as(probe(4, LONG), "x".into()).await;
    assert_eq!((reply.unwrap_err().class, heard.len()), (Class::Network, 0));
    server.then(Row::stream([frame]).end_after(1, StreamEnd::Reset));
    let (reply, heard) = ask_as(probe(3, LONG), "x".into()).await;
    assert_eq!((&*reply.unwrap().text, &heard[0]), ("hel", &text("hel")));
    // Or so long after the first.
    server.then(Row::stream([frame]).end_after(1, StreamEnd::Hang));
    let model = probe(1000, Duration::from_millis(50)).idle_timeout(Duration::from_secs(2));
    let (reply, heard) = ask_as(model, "x".into()).await;
    assert_eq!((code(&reply), &heard[0]), (Some("idle"), &text("hel")));
    let many = || Row::stream([frame; 600]).end_after(600, StreamEnd::Reset);
    server.then(many());
    let (reply, heard) = ask_as(probe(10_000, LONG).when_full(WhenFull::Fail), "x".into()).await;
    assert_eq!((code(&reply), heard.len()), (Some("buffer_full"), 0));
    server.then(many());
    let (reply, heard) = ask_as(probe(10_000, LONG), "x".into()).await;
    assert!(reply.unwrap().broken_by().is_some() && heard.len() > 500);
}

#[tokio::test]
async fn what_grows_without_end_is_given_up() {
    let server = StubServer::start().await.unwrap();
    let line = vec![b'x'; 2 * 1024 * 1024];
    server.then(Row::stream([b"data: ".to_vec(), line]).end_after(2, StreamEnd::Hang));
    assert_eq!(code(&ask(&server).await.0), Some("frame_too_large"));
    let large = format!("data: {{\"choices\":[],\"x\":\"{}\"}}\n\n", "x".repeat(900 * 1024));
    server.then(Row::stream(vec![large; 13]).end_after(13, StreamEnd::Hang));
    assert_eq!(code(&ask(&server).await.0), Some("body_too_large"));
    timeout(LONG, server.hung_up(2)).await.expect("the connections are closed");
}

#[tokio::test]
async fn text_that_is_not_utf8_is_never_passed_on() {
    let server = StubServer::start().await.unwrap();
    let bad = b"data: {\"choices\":[{\"delta\":{\"content\":\"\xff\"}}]}\n\n".to_vec();
    server.then(Row::stream([bad]));
    let (reply, heard) = ask(&server).await;
    assert_eq!((code(&reply), heard.len()), (Some("bad_utf8"), 0));
}

#[tokio::test]
async fn a_listener_that_does_not_listen_is_given_up_and_the_connection_closed() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::reply_stream(["x"; 100]));
    let mut model = Model::openai(server.url(), "m").idle_timeout(Duration::from_secs(1));
    model.connect().unwrap();
    let (sink, mut stream) = open(2);
    let asked = request(sink);
    let reply = model.ask(&asked, LONG, 1).await;
    assert_eq!(code(&reply), Some("listener_stalled"));
    assert_eq!(reply.unwrap().text, "xx");
    drop(asked);
    let heard = rest(&mut stream).await;
    assert!(matches!(&heard[..], [_, _, StreamEvent::Partial(_)]), "{heard:?}");
    // One that has gone is no reason to stop: somebody waits for the reply.
    server.then(Row::reply_stream(["x"; 100]));
    let (sink, stream) = open(2);
    drop(stream);
    let reply = model.ask(&request(sink), LONG, 1).await.unwrap();
    assert_eq!(reply.text.len(), 100);
}

#[tokio::test]
async fn json_that_was_asked_for_is_checked() {
    let server = StubServer::start().await.unwrap();
    for (said, expected) in [("{\"n\":1}", None), ("certainly! {", Some("bad_json"))] {
        let json = || ChatRequest::from("x").response_format(ResponseFormat::Json);
        server.then(Row::reply(said));
        let mut model = Model::openai(server.url(), "m");
        model.connect().unwrap();
        let reply = model.ask(&json(), LONG, 1).await;
        assert_eq!(code(&reply), expected);
        server.then(Row::reply_stream([said]));
        let (reply, _) = ask_as(Model::openai(server.url(), "m"), json()).await;
        assert_eq!(code(&reply), expected, "{reply:?}");
    }
    // Not where tools were called: their arguments are JSON, and the text is none.
    server.then(Row::tool_calls([("f", "{}")]));
    let json = ChatRequest::from("x").response_format(ResponseFormat::Json);
    let (reply, _) = ask_as(Model::openai(server.url(), "m"), json).await;
    assert_eq!(reply.unwrap().tool_calls.len(), 1);
}

/// Lets this process open `files` files. Many shells allow 1,024 of far more that they may have,
/// and each stream here has a socket at both ends.
#[cfg(unix)]
fn allow_open_files(files: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    if now.current.is_some_and(|current| current < files) {
        let raised = Rlimit { current: Some(files), maximum: now.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            panic!("this test needs {files} open files, of {now:?}: {error}");
        }
    }
}

#[cfg(not(unix))]
fn allow_open_files(_: u64) {}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_streams_at_once_lose_nothing() {
    let count = 1000;
    allow_open_files(2500);
    let server = StubServer::start().await.unwrap();
    let words: Vec<String> = (0..20).map(|n| format!("w{n} ")).collect();
    // None goes on before all have begun.
    server.otherwise(Row::reply_stream(words.iter().map(String::as_str)).together(count));
    let wide = |spec: ChildSpec| {
        spec.concurrency(u32::try_from(count).unwrap()).mailbox(u32::try_from(count).unwrap())
    };
    let system = desk([&server], |model| model, wide).await;
    let llm = system.port::<ChatRequest, ChatReply>("desk/llm").unwrap();
    let expected = words.concat();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..count {
        let llm = llm.clone();
        callers.spawn(async move {
            let (sink, mut stream) = open(4);
            let (answer, heard) = tokio::join!(llm.call(request(sink)), rest(&mut stream));
            (answer.map(|answer| (answer.value.text, answer.attempts)), heard)
        });
    }
    let mut done = 0;
    while let Some(caller) = callers.join_next().await {
        let (answer, heard) = caller.unwrap();
        assert_eq!(answer.unwrap(), (expected.clone(), 1));
        let said: String = heard
            .iter()
            .filter_map(|event| match event {
                StreamEvent::Text(text) => Some(text.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(said, expected);
        assert_eq!(heard.last(), Some(&StreamEvent::Done));
        done += 1;
    }
    assert_eq!((done, server.count()), (count, count));
    let fates = system.fates();
    assert_eq!((fates.accepted, fates.done, fates.open), (count as u64, count as u64, 0));
    system.stop().await;
}
