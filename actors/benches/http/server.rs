//! A server on a thread of its own that answers every request the same, as soon as it has read it, and
//! keeps its connections.

use std::net::{SocketAddr, TcpListener as Blocking};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

pub(crate) const ANSWER: &str = "It left the warehouse on Tuesday, and comes tomorrow before noon.";

pub(crate) struct Server {
    url: String,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::that_works(Duration::ZERO)
    }

    /// One that takes so long for each answer.
    pub(crate) fn that_works(work: Duration) -> Self {
        let listener = Blocking::bind("127.0.0.1:0").expect("a port is free");
        listener.set_nonblocking(true).expect("it can be polled");
        let address = listener.local_addr().expect("it has an address");
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime can be had");
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).expect("it can be polled");
                let (whole, stream) = (whole(), stream());
                while let Ok((connection, _)) = listener.accept().await {
                    tokio::spawn(serve(connection, whole.clone(), stream.clone(), work));
                }
            });
        });
        Self { url: url(address) }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

/// A URL where nobody listens.
pub(crate) fn refuses() -> String {
    let listener = Blocking::bind("127.0.0.1:0").expect("a port is free");
    url(listener.local_addr().expect("it has an address"))
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}/v1")
}

fn whole() -> Vec<u8> {
    let body = serde_json::json!({
        "id": "chatcmpl-bench", "object": "chat.completion", "created": 0, "model": "m",
        "choices": [{
            "index": 0, "finish_reason": "stop",
            "message": { "role": "assistant", "content": ANSWER },
        }],
        "usage": { "prompt_tokens": 20, "completion_tokens": 14, "total_tokens": 34 },
    })
    .to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body.into_bytes()].concat()
}

fn stream() -> Vec<u8> {
    let mut body = String::new();
    let choice = |delta: serde_json::Value, finish: Option<&str>| {
        let choice = serde_json::json!({ "index": 0, "delta": delta, "finish_reason": finish });
        format!("data: {}\n\n", serde_json::json!({ "model": "m", "choices": [choice] }))
    };
    for word in ANSWER.split_inclusive(' ') {
        body.push_str(&choice(serde_json::json!({ "content": word }), None));
    }
    body.push_str(&choice(serde_json::json!({}), Some("stop")));
    let usage = serde_json::json!({
        "model": "m", "choices": [],
        "usage": { "prompt_tokens": 20, "completion_tokens": 14, "total_tokens": 34 },
    });
    body.push_str(&format!("data: {usage}\n\ndata: [DONE]\n\n"));
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body.into_bytes()].concat()
}

async fn serve(mut connection: TcpStream, whole: Vec<u8>, stream: Vec<u8>, work: Duration) {
    let _ = connection.set_nodelay(true);
    let mut read = Vec::with_capacity(4096);
    loop {
        let (head, length) = loop {
            if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&read[..end]).to_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
                let length: usize = length.and_then(|n| n.trim().parse().ok()).unwrap_or(0);
                break (end + 4, length);
            }
            if connection.read_buf(&mut read).await.unwrap_or(0) == 0 {
                return;
            }
        };
        while read.len() < head + length {
            if connection.read_buf(&mut read).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let body = &read[head..head + length];
        let wants_stream = body.windows(13).any(|window| window == br#""stream":true"#);
        let answer = if wants_stream { &stream } else { &whole };
        if !work.is_zero() {
            tokio::time::sleep(work).await;
        }
        if connection.write_all(answer).await.is_err() {
            return;
        }
        read.drain(..head + length);
    }
}
