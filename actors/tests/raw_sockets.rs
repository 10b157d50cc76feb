//! Servers that do not even speak HTTP properly, byte by byte over bare sockets: every attempt ends, as a
//! fault of the right class, and within its time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mainstay::error::CallError;
use mainstay::fault::{Class, EffectKind, EffectState, Fault};
use mainstay::spec::SupervisorSpec;
use mainstay::system::System;
use mainstay_actors::chat::stream::open;
use mainstay_actors::chat::{ChatReply, ChatRequest};
use mainstay_actors::mcp::{CONNECTION, McpServer};
use mainstay_actors::model::{CommitPoint, Model};
use mainstay_actors::stub_server::{Row, StubServer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, interval, timeout};

/// For whatever must end by itself.
const LONG: Duration = Duration::from_secs(20);
/// For whatever ends only because its time is over.
const SHORT: Duration = Duration::from_millis(300);
const DRIP: Duration = Duration::from_millis(5);

/// What a server does with each connection once it has read a request, or before.
#[derive(Clone, Copy, Debug)]
enum Says {
    /// These bytes, and then the end.
    Bytes(&'static [u8]),
    /// The same, made at run time.
    Made(fn() -> Vec<u8>),
    /// These bytes, and then others, one at a time, for ever.
    Drips(&'static [u8], &'static [u8]),
    /// Nothing, and it does not even read.
    Nothing,
}

struct Raw {
    url: String,
    task: JoinHandle<()>,
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn raw(says: Says) -> Raw {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            match says {
                Says::Nothing => open.push(connection),
                says => drop(tokio::spawn(speak(connection, says))),
            }
        }
    });
    Raw { url, task }
}

async fn speak(mut connection: TcpStream, says: Says) -> Option<()> {
    // The request is small enough to come at once, more or less.
    if connection.read(&mut vec![0; 64 * 1024]).await.ok()? == 0 {
        return None;
    }
    match says {
        Says::Bytes(bytes) => connection.write_all(bytes).await.ok()?,
        Says::Made(make) => connection.write_all(&make()).await.ok()?,
        Says::Drips(begin, drop) => {
            connection.write_all(begin).await.ok()?;
            let mut ticks = interval(DRIP);
            for byte in drop.iter().cycle() {
                ticks.tick().await;
                connection.write_all(&[*byte]).await.ok()?;
            }
        }
        Says::Nothing => {}
    }
    connection.shutdown().await.ok()
}

fn models(url: &str) -> Vec<Model> {
    [
        Model::openai(url, "m"),
        Model::responses(url, "m"),
        Model::anthropic(url, "m"),
        Model::gemini(url, "m"),
        Model::ollama_native(url, "m"),
    ]
    .map(|model| model.key("sk-secret").idle_timeout(SHORT))
    .into()
}

async fn ask(mut model: Model, streamed: bool, left: Duration) -> Result<ChatReply, Fault> {
    model.connect()?;
    let (sink, stream) = open(64);
    drop(stream);
    let mut request = ChatRequest::from("hello");
    if streamed {
        request = request.stream_to(sink);
    }
    timeout(LONG, model.ask(&request, left, 1)).await.expect("the attempt ends")
}

/// What becomes of it with every provider, whole and streamed.
async fn becomes(says: Says, left: Duration, class: Class) {
    let server = raw(says).await;
    for model in models(&server.url) {
        for streamed in [false, true] {
            let fault = ask(model.clone(), streamed, left).await.unwrap_err();
            assert_eq!(fault.class, class, "{says:?}, {model:?}, streamed: {streamed}: {fault:?}");
            assert!(!format!("{fault:?} {:?}", fault.source).contains("sk-secret"));
        }
    }
}

#[tokio::test]
async fn a_server_that_never_comes_to_an_end_is_left_at_the_deadline() {
    for says in [
        Says::Nothing,
        Says::Drips(b"", b"H"),
        Says::Drips(b"HTTP/1.1 200 OK\r\nx-pad: ", b"x"),
        Says::Drips(b"HTTP/1.1 200 OK\r\n", b"a: b\r\n"),
        Says::Drips(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{", b" "),
        Says::Drips(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
            b"1\r\n \r\n",
        ),
        Says::Drips(b"HTTP/1.1 500 Oh\r\ncontent-length: 999999\r\n\r\n", b"x"),
    ] {
        let server = raw(says).await;
        let mut attempts = JoinSet::new();
        for model in models(&server.url) {
            for streamed in [false, true] {
                attempts.spawn(ask(model.clone(), streamed, SHORT));
            }
        }
        while let Some(attempt) = attempts.join_next().await {
            let fault = attempt.unwrap().unwrap_err();
            // Headers without end may also be too many at some point.
            let is_left = match says {
                // It has said that it failed, whatever it goes on to say.
                Says::Drips(head, _) if head.starts_with(b"HTTP/1.1 500") => {
                    fault.class == Class::ServerTransient
                }
                _ => matches!(fault.class, Class::Timeout | Class::Network),
            };
            assert!(is_left, "{says:?}: {fault:?}");
        }
    }
}

#[tokio::test]
async fn a_stream_that_drips_without_a_frame_is_a_timeout_long_before_the_deadline() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: {";
    let server = raw(Says::Drips(head, b" ")).await;
    for model in models(&server.url) {
        let fault = ask(model, true, LONG).await.unwrap_err();
        assert_eq!(fault.class, Class::Timeout, "{fault:?}");
    }
}

#[tokio::test]
async fn what_is_no_http_or_not_whole_is_a_network_fault() {
    let cases: [&[u8]; 11] = [
        b"",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"HTTP/1.1 200",
        b"HTTP/1.1 999999 What\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: minus one\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 7\r\n\r\n{}{}{}{",
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 400\r\n\r\n{\"choices\":",
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    ];
    for bytes in cases {
        becomes(Says::Bytes(bytes), LONG, Class::Network).await;
    }
}

#[tokio::test]
async fn headers_without_measure_are_a_network_fault() {
    let long = || {
        let mut bytes = b"HTTP/1.1 200 OK\r\nx-pad: ".to_vec();
        bytes.resize(4 * 1024 * 1024, b'x');
        bytes.extend_from_slice(b"\r\ncontent-length: 2\r\n\r\n{}");
        bytes
    };
    let many = || {
        let mut bytes = b"HTTP/1.1 200 OK\r\n".to_vec();
        for n in 0..10_000 {
            bytes.extend_from_slice(format!("x-{n}: y\r\n").as_bytes());
        }
        bytes.extend_from_slice(b"content-length: 2\r\n\r\n{}");
        bytes
    };
    for make in [long as fn() -> Vec<u8>, many] {
        becomes(Says::Made(make), LONG, Class::Network).await;
    }
}

#[tokio::test]
async fn a_whole_answer_that_is_no_answer_is_judged_by_what_it_is() {
    let json = "content-type: application/json\r\n";
    let answer = |head: &str, body: &[u8]| -> Vec<u8> {
        let length = body.len();
        let head = format!("HTTP/1.1 200 OK\r\n{head}content-length: {length}\r\n\r\n");
        [head.as_bytes(), body].concat()
    };
    let cases: [(Vec<u8>, &str); 5] = [
        // Shorter than it is: what is there is half an answer.
        (answer(json, b"{\"choices\":[{\"message\":{\"content\":\"h"), "not_json"),
        // Says that it is packed, which was not asked for.
        (answer("content-encoding: gzip\r\n", b"\x1f\x8b\x08\x00junk"), "not_json"),
        (answer("content-type: application/json\r\nx: é", b"<html>"), "not_json"),
        // Deep enough to overflow a careless parser.
        (answer(json, "[".repeat(200_000).as_bytes()), "not_json"),
        (answer(json, b"[[[]]]"), "bad_shape"),
    ];
    for (bytes, code) in cases {
        let bytes: &'static [u8] = bytes.leak();
        let server = raw(Says::Bytes(bytes)).await;
        for model in models(&server.url) {
            let fault = ask(model.clone(), false, LONG).await.unwrap_err();
            let found = fault.code.as_deref().unwrap_or_default();
            let fits = found == code || (code == "bad_shape" && found == "no_choice");
            assert!(fits, "{code}, {model:?}: {fault:?}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_nobody_asked_for_is_not_taken_for_that_of_the_next_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                // One for each request, and one more at once, on a connection that stays.
                while connection.read(&mut vec![0; 64 * 1024]).await.is_ok_and(|read| read > 0) {
                    let both = kept("asked for") + &kept("not asked for");
                    connection.write_all(both.as_bytes()).await.ok()?;
                }
                Some(())
            });
        }
    });
    let mut model = Model::openai(&url, "m");
    model.connect().unwrap();
    for _ in 0..20 {
        let reply = model.ask(&"hello".into(), LONG, 1).await.unwrap();
        assert_eq!(reply.text, "asked for");
    }
    server.abort();
}

/// An answer that leaves the connection open.
fn kept(text: &str) -> String {
    let body = format!("{{\"choices\":[{{\"message\":{{\"content\":\"{text}\"}}}}]}}");
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    format!("{head}content-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn a_kept_connection_that_the_server_has_closed_fails_no_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let (closed, mut is_closed) = mpsc::channel(1);
    let server = tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            for text in ["first", "second"] {
                assert!(connection.read(&mut vec![0; 64 * 1024]).await.unwrap() > 0);
                connection.write_all(kept(text).as_bytes()).await.unwrap();
            }
            connection.shutdown().await.unwrap();
            // The client has noticed.
            assert_eq!(connection.read(&mut [0]).await.unwrap(), 0);
            closed.send(()).await.unwrap();
        }
    });
    let mut model = Model::openai(&url, "m");
    model.connect().unwrap();
    for _ in 0..3 {
        for text in ["first", "second"] {
            assert_eq!(model.ask(&"hello".into(), LONG, 1).await.unwrap().text, text);
        }
        is_closed.recv().await.unwrap();
    }
    server.abort();
}

#[tokio::test]
async fn what_is_sent_is_the_request_and_nothing_about_whoever_sends_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let server = tokio::spawn(async move {
        let mut sent = Vec::new();
        for _ in 0..2 {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut read = Vec::new();
            while !read.ends_with(b"}") {
                assert!(connection.read_buf(&mut read).await.unwrap() > 0);
            }
            connection.write_all(kept("hello").as_bytes()).await.unwrap();
            sent.push(String::from_utf8(read).unwrap());
        }
        sent
    });
    for streamed in [false, true] {
        let url = format!("http://desk:hunter2-4711@{host}/v1?version=2#part");
        ask(Model::openai(url, "m"), streamed, LONG).await.unwrap();
    }
    for (number, sent) in server.await.unwrap().iter().enumerate() {
        let (head, body) = sent.split_once("\r\n\r\n").unwrap();
        let (line, headers) = head.split_once("\r\n").unwrap();
        assert_eq!(line, "POST /v1/chat/completions?version=2 HTTP/1.1");
        let mut headers: Vec<_> = headers.split("\r\n").collect();
        headers.sort_unstable();
        let accept = ["*/*", "text/event-stream, application/json"][number];
        let expected = [
            &*format!("accept: {accept}"),
            "authorization: Basic ZGVzazpodW50ZXIyLTQ3MTE=",
            &*format!("content-length: {}", body.len()),
            "content-type: application/json",
            &*format!("host: {host}"),
        ];
        assert_eq!(headers, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_of_tls_is_no_server_after_five_seconds() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    for (left, class, code) in [
        (LONG, Class::Network, "connect_timeout"),
        (Duration::from_secs(4), Class::Timeout, "deadline"),
    ] {
        let start = Instant::now();
        let model = Model::openai(format!("https://{host}/v1?key=sk-secret"), "m");
        let fault = ask(model, false, left).await.unwrap_err();
        assert_eq!((fault.class, fault.code.as_deref()), (class, Some(code)), "{fault:?}");
        let not_sent = fault.effect == EffectState::NotApplied;
        assert_eq!(not_sent, class == Class::Network, "{fault:?}");
        assert_eq!(start.elapsed().as_secs(), left.as_secs().min(5), "{fault:?}");
        assert_eq!(not_sent, fault.message.contains(&host), "{fault:?}");
        assert!(!format!("{fault:?} {:?}", fault.source).contains("sk-secret"), "{fault:?}");
    }
}

#[tokio::test]
async fn a_request_to_a_server_that_drips_has_its_fate_and_its_connection_is_closed() {
    let closed = Arc::new(AtomicU32::new(0));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let count = Arc::clone(&closed);
    let server = tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                speak(connection, Says::Drips(b"HTTP/1.1 200 OK\r\nx: ", b"x")).await;
                count.fetch_add(1, Ordering::SeqCst);
            });
        }
    });
    let child = Model::openai(&url, "m").spec("m").attempt_timeout(SHORT).deadline(LONG);
    let policy = mainstay::policy::Policy::without_retries();
    let root = SupervisorSpec::one_for_one("root").child(child.policy(policy));
    let system = System::start(root).await.unwrap();
    let port = system.port::<ChatRequest, ChatReply>("root/m").unwrap();
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let port = port.clone();
            tokio::spawn(async move { port.call("x").await })
        })
        .collect();
    for call in calls {
        let error = call.await.unwrap().unwrap_err();
        let CallError::RecoveryExhausted { fault, .. } = error else { panic!("{error:?}") };
        assert_eq!(fault.class, Class::Timeout);
    }
    system.stop().await;
    assert_eq!((system.fates().failed, system.fates().open), (8, 0));
    // Dropped attempts close their connections, which the server notices at its next byte.
    let mut ticks = interval(DRIP);
    let all = async {
        while closed.load(Ordering::SeqCst) < 8 {
            ticks.tick().await;
        }
    };
    timeout(LONG, all).await.expect("every connection is closed");
    server.abort();
}

#[tokio::test]
async fn the_bearer_of_a_tool_server_is_read_from_the_variable_that_is_named() {
    let server = StubServer::start().await.unwrap();
    server.otherwise(Row::new(401, ""));
    let tools = McpServer::url(server.url());
    // A variable that a test is run with.
    tools.clone().bearer_env("CARGO_PKG_NAME").discover().await.unwrap_err();
    let expected = format!("Bearer {}", env!("CARGO_PKG_NAME"));
    assert_eq!(server.requests()[0].header("authorization"), Some(&*expected));
    let asked = server.count();
    let fault = tools.bearer_env("MAINSTAY_NO_SUCH_VARIABLE").discover().await.unwrap_err();
    let told = "environment variable MAINSTAY_NO_SUCH_VARIABLE is not set";
    assert_eq!((&*fault.message, fault.class), (told, Class::Permission));
    assert_eq!(server.count(), asked, "nothing is sent without it");
}

#[tokio::test]
async fn a_limit_of_an_endpoint_that_is_the_longest_there_is_is_no_limit() {
    let max = Duration::MAX;
    let server = StubServer::start().await.unwrap();
    let model = || Model::openai(server.url(), "m");
    for mut model in [
        model().idle_timeout(max),
        model().commit_point(CommitPoint::Probe { characters: 4, time: max }),
        model().throughput_floor(1, max),
    ] {
        server.then(Row::reply_stream(["hel", "lo"]));
        model.connect().unwrap();
        let (sink, mut stream) = open(8);
        let request = ChatRequest::from("x").stream_to(sink);
        let heard = async { while stream.next().await.is_some() {} };
        let (reply, ()) = tokio::join!(model.ask(&request, LONG, 1), heard);
        assert_eq!(reply.unwrap().text, "hello", "{model:?}");
    }
    for tools in [
        McpServer::url(server.url()).call_timeout(max),
        McpServer::url(server.url()).connect_wait(max),
        McpServer::url(server.url()).start_timeout(max).ping_timeout(max),
    ] {
        server.then(Row::new(401, ""));
        let tools = tools.tool("x", EffectKind::Read).supervisor("s");
        let root = SupervisorSpec::one_for_one("root").supervisor(tools);
        let error = timeout(LONG, System::start(root)).await.unwrap().unwrap_err();
        assert!(error.to_string().contains("401"), "{error}");
    }
}

#[tokio::test]
async fn what_is_no_secret_of_a_url_is_left_in_good_answers() {
    let server = StubServer::start().await.unwrap();
    let said = "api-version 2024-10-01-preview, key sk-0123456789abcdef";
    let url = format!("{}?api-version=2024-10-01-preview&key=sk-0123456789abcdef", server.url());
    let mut model = Model::openai(url, "m");
    model.connect().unwrap();
    server.then(Row::reply(said));
    let reply = model.ask(&ChatRequest::from("x"), LONG, 1).await.unwrap();
    assert_eq!(reply.text, "api-version 2024-10-01-preview, key [key]");
    server.then(Row::error(400, "bad", said));
    let fault = model.ask(&ChatRequest::from("x"), LONG, 1).await.unwrap_err();
    assert!(fault.message.contains("api-version 2024-10-01-preview, key [key]"), "{fault:?}");
}

#[tokio::test]
async fn a_tool_whose_name_can_be_no_id_keeps_no_tree_from_starting() {
    let server = StubServer::start().await.unwrap();
    server.otherwise(Row::new(401, ""));
    let tools = McpServer::url(server.url()).tool("x/y", EffectKind::Read);
    let tools = tools.tool("x_y", EffectKind::Read).tool("", EffectKind::Read);
    // What the life beside the tools is called.
    let tools = tools.tool(CONNECTION, EffectKind::Read);
    let root = SupervisorSpec::one_for_one("root").supervisor(tools.supervisor("s"));
    // It got as far as to the server, which refuses it.
    let error = System::start(root).await.unwrap_err();
    assert!(error.to_string().contains("401") && server.count() > 0, "{error}");
    assert_eq!(
        (&*McpServer::tool_id("x_y"), McpServer::tool_id("x/y").contains('/')),
        ("x_y", false)
    );
}

#[tokio::test]
async fn no_bearer_of_a_tool_server_follows_a_redirect() {
    let thief = StubServer::start().await.unwrap();
    let server = StubServer::start().await.unwrap();
    for status in [301, 302, 303, 307, 308] {
        let location = thief.url().to_owned();
        server.otherwise(Row::new(status, "").header("location", location));
        let tools = McpServer::url(server.url()).bearer("secret-bearer");
        let root = SupervisorSpec::one_for_one("root").supervisor(tools.supervisor("s"));
        let error = System::start(root).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret-bearer"));
    }
    assert_eq!(thief.connections().len(), 0);
    let first = &server.requests()[0];
    assert_eq!(first.header("authorization"), Some("Bearer secret-bearer"));
}
