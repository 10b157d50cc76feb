//! Certificates that do not verify: no request is sent, and the fault says which host and why.
//!
//! Which roots are trusted is read once in a process, so this test runs itself in another one, in which
//! its own root is trusted.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use mainstay::fault::{Class, EffectState, Fault};
use mainstay_actors::chat::ChatReply;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};

use crate::wires::{KEY, WIRES, Wire, ask, connected, hear};

const VARIABLE: &str = "MAINSTAY_TEST_ROOT";
const NAME: &str =
    "tls::a_certificate_that_does_not_verify_is_named_and_gets_no_request_in_any_wire";

#[test]
fn a_certificate_that_does_not_verify_is_named_and_gets_no_request_in_any_wire() {
    if std::env::var_os(VARIABLE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(meet_them());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls/root.pem");
    let child = Command::new(std::env::current_exe().unwrap())
        .args([NAME, "--exact", "--nocapture"])
        .env(VARIABLE, "1")
        .env("SSL_CERT_FILE", root)
        .env_remove("SSL_CERT_DIR")
        .output()
        .unwrap();
    let output = [child.stdout, child.stderr].map(|all| String::from_utf8_lossy(&all).into_owned());
    let output = output.join("\n");
    assert!(child.status.success() && output.contains("met 5 wires"), "{output}");
}

async fn meet_them() {
    let cases: [(&str, &[u8], &str); 4] = [
        ("expired", include_bytes!("../fixtures/tls/expired.pem"), "expired"),
        ("early", include_bytes!("../fixtures/tls/early.pem"), "not valid yet"),
        ("of another host", include_bytes!("../fixtures/tls/other_host.pem"), "other.example"),
        ("its own", include_bytes!("../fixtures/tls/self_signed.pem"), "UnknownIssuer"),
    ];
    for wire in WIRES {
        let server = Secure::start(wire, include_bytes!("../fixtures/tls/good.pem")).await;
        for outcome in server.asked(wire).await {
            assert_eq!(outcome.unwrap().text, "hello", "a good certificate is one: {wire:?}");
        }
        assert_eq!(server.handshakes.load(Ordering::SeqCst), 2);
        for (what, pem, why) in cases {
            let server = Secure::start(wire, pem).await;
            for outcome in server.asked(wire).await {
                let fault = outcome.unwrap_err();
                let (class, code) = (fault.class, fault.code.as_deref());
                assert_eq!((class, code), (Class::Network, Some("tls")), "{wire:?}, {what}");
                assert_eq!(fault.effect, EffectState::NotApplied, "{wire:?}, {what}");
                assert!(fault.message.contains(&server.host), "{wire:?}, {what}: {fault:?}");
                assert!(fault.message.contains(why), "{wire:?}, {what}: {fault:?}");
                let shown = format!("{fault:?} {fault} {:?}", fault.source);
                assert!(!shown.contains(&KEY[3..15]), "{wire:?}, {what}: {shown}");
            }
            assert_eq!(server.handshakes.load(Ordering::SeqCst), 0, "{wire:?}, {what}");
        }
    }
    println!("met {} wires", WIRES.len());
}

#[tokio::test]
async fn plain_text_where_tls_is_spoken_is_a_network_fault_that_names_the_host() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let server = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // Enough to be seen, whatever is read of it.
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            let _ = stream.read(&mut vec![0; 64 * 1024]).await;
        }
    });
    for wire in WIRES {
        let model = connected(wire.bare(&format!("https://{host}/v1?key={KEY}")));
        for outcome in [ask(&model).await, hear(&model).await.0] {
            let fault = outcome.unwrap_err();
            let found = (fault.class, fault.code.as_deref(), fault.effect);
            assert_eq!(found, (Class::Network, Some("tls"), EffectState::NotApplied), "{fault:?}");
            assert!(fault.message.contains(&host) && !fault.message.contains(&KEY[3..15]));
        }
    }
    server.abort();
}

/// A server with this certificate that answers `hello`.
struct Secure {
    host: String,
    /// Those that were finished: only after one can a request be sent.
    handshakes: Arc<AtomicU32>,
    task: JoinHandle<()>,
}

impl Secure {
    async fn start(wire: Wire, pem: &'static [u8]) -> Self {
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
        let host = listener.local_addr().unwrap().to_string();
        let handshakes = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&handshakes);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, acceptor.clone(), wire, Arc::clone(&count)));
            }
        });
        Self { host, handshakes, task }
    }

    /// What comes of it, whole and streamed; the key is in its header and in the URL.
    async fn asked(&self, wire: Wire) -> [Result<ChatReply, Fault>; 2] {
        let url = format!("https://{}/v1?key={KEY}", self.host);
        let model = connected(wire.bare(&url).key(KEY));
        [ask(&model).await, hear(&model).await.0]
    }
}

impl Drop for Secure {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    wire: Wire,
    handshakes: Arc<AtomicU32>,
) -> Option<()> {
    let mut stream = acceptor.accept(stream).await.ok()?;
    handshakes.fetch_add(1, Ordering::SeqCst);
    // The request is small enough to come at once, more or less.
    let _ = stream.read(&mut vec![0; 64 * 1024]).await.ok()?;
    let body = wire.whole("hello").to_string();
    let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json\r\n";
    let answer = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(answer.as_bytes()).await.ok()?;
    stream.shutdown().await.ok()
}
