//! Servers that mean harm, or do it all the same: what they get, and what becomes of the attempt.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mainstay::fate::Cost;
use mainstay::fault::{Class, EffectState, Fault};
use mainstay::spec::SupervisorSpec;
use mainstay::system::System;
use mainstay_actors::chat::stream::open;
use mainstay_actors::chat::{ChatReply, ChatRequest};
use mainstay_actors::model::Model;
use mainstay_actors::model::limits::RateLimits;
use mainstay_actors::stub_server::{Row, StubServer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};

const LONG: Duration = Duration::from_secs(20);

/// One of each wire, with a key.
fn models(url: &str) -> Vec<Model> {
    [
        Model::openai(url, "m"),
        Model::responses(url, "m"),
        Model::anthropic(url, "m"),
        Model::gemini(url, "m"),
        Model::ollama_native(url, "m"),
    ]
    .map(|model| model.key("sk-secret"))
    .into()
}

async fn ask(mut model: Model, streamed: bool) -> Result<ChatReply, Fault> {
    model.connect()?;
    let (sink, stream) = open(64);
    drop(stream);
    let mut request = ChatRequest::from("hello");
    if streamed {
        request = request.stream_to(sink);
    }
    model.ask(&request, LONG, 1).await
}

#[tokio::test]
async fn no_key_of_any_provider_follows_a_redirect_to_another_origin() {
    let thief = StubServer::start().await.unwrap();
    let server = StubServer::start().await.unwrap();
    for model in models(server.url()) {
        for status in [301, 302, 303, 307, 308] {
            // Another port, another host name of the same machine, and upgraded.
            for to in [thief.url().to_owned(), thief.url().replace("127.0.0.1", "localhost")] {
                server.then(Row::new(status, "").header("location", to));
                let fault = ask(model.clone(), status == 307).await.unwrap_err();
                assert_eq!(fault.class, Class::ModelUnavailable, "{status}");
            }
        }
    }
    assert_eq!(thief.connections().len(), 0);
    // In a circle within the origin it ends, too.
    server.otherwise(Row::new(307, "").header("location", "/v1/again"));
    let before = server.count();
    ask(Model::openai(server.url(), "m"), false).await.unwrap_err();
    assert!((2..=5).contains(&(server.count() - before)));
}

#[tokio::test]
async fn a_certificate_that_does_not_verify_gets_no_request_and_no_key() {
    let pem = include_bytes!("fixtures/untrusted.pem");
    let provider = Arc::new(crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            CertificateDer::pem_slice_iter(pem).map(Result::unwrap).collect(),
            PrivateKeyDer::from_pem_slice(pem).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/v1", listener.local_addr().unwrap());
    let finished = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&finished);
    let server = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if acceptor.accept(stream).await.is_ok() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    for model in models(&url) {
        let fault = ask(model, false).await.unwrap_err();
        assert_eq!(
            (fault.class, fault.code.as_deref()),
            (Class::Network, Some("tls")),
            "{fault:?}"
        );
        assert_eq!(fault.effect, EffectState::NotApplied);
        assert!(!format!("{fault:?} {:?}", fault.source).contains("sk-secret"));
    }
    assert_eq!(finished.load(Ordering::SeqCst), 0, "no handshake was finished");
    server.abort();
}

#[tokio::test]
async fn plain_text_where_tls_is_spoken_is_a_network_fault() {
    let server = StubServer::start().await.unwrap();
    let fault = ask(Model::openai(server.url().replace("http:", "https:"), "m"), false).await;
    let fault = fault.unwrap_err();
    assert_eq!((fault.class, fault.effect), (Class::Network, EffectState::NotApplied));
    assert_eq!(server.count(), 0);
}

#[tokio::test]
async fn a_body_of_ten_megabytes_is_read_and_a_longer_one_is_not() {
    let server = StubServer::start().await.unwrap();
    for model in [Model::openai(server.url(), "m"), Model::ollama_native(server.url(), "m")] {
        for streamed in [false, true] {
            let mut body = br#"{"choices":[{"message":{"content":"x"}}]}"#.to_vec();
            body.resize(10 * 1024 * 1024, b' ');
            server.then(Row::new(200, body.clone()));
            let code = ask(model.clone(), streamed).await.err().and_then(|fault| fault.code);
            assert_ne!(code.as_deref(), Some("body_too_large"));
            body.push(b' ');
            server.then(Row::new(200, body));
            let fault = ask(model.clone(), streamed).await.unwrap_err();
            assert_eq!(fault.code.as_deref(), Some("body_too_large"));
        }
    }
    // An error can be large, too.
    server.then(Row::new(500, vec![b'x'; 11 * 1024 * 1024]));
    let fault = ask(Model::openai(server.url(), "m"), false).await.unwrap_err();
    assert_eq!(fault.code.as_deref(), Some("body_too_large"));
}

#[tokio::test]
async fn content_that_is_not_what_it_says_is_judged_by_what_it_is() {
    let server = StubServer::start().await.unwrap();
    let answer = r#"{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}"#;
    for kind in ["text/plain", "text/html; charset=latin-1", "application/octet-stream", "", "?"] {
        server.then(Row::new(200, answer).header("content-type", kind));
        let reply = ask(Model::openai(server.url(), "m"), false).await.unwrap();
        assert_eq!(reply.text, "hi", "{kind}");
    }
    for body in
        [&b"{\"choices\":[{\"message\":{\"content\":\"\xff\"}}]}"[..], b"", b"\xff\xfe", b"{"]
    {
        for model in models(server.url()) {
            server.then(Row::new(200, body));
            let fault = ask(model, false).await.unwrap_err();
            assert_eq!(fault.code.as_deref(), Some("not_json"), "{body:?}");
        }
    }
}

#[tokio::test]
async fn resets_before_and_after_the_request_are_network_faults_for_every_provider() {
    let server = StubServer::start().await.unwrap();
    for model in models(server.url()) {
        for streamed in [false, true] {
            for row in [Row::reset_before(), Row::reset_after(), Row::reply("x").cut_off(7)] {
                server.then(row.clone());
                let fault = ask(model.clone(), streamed).await.unwrap_err();
                assert_eq!(fault.class, Class::Network, "{row:?}");
            }
        }
    }
}

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
