//! Bare reqwest, doing by hand what the endpoint does: the typed request becomes the body, and the whole
//! answer becomes the typed reply. It retries nothing and judges nothing.
//!
//! *Invariant.* It has what ours has made ready beforehand, too: the client with the same settings, the
//! parsed URL, the header with the key.

use std::sync::Arc;
use std::time::Duration;

use mainstay_actors::chat::{ChatReply, ChatRequest, Finish, ToolCall, Usage};
use mainstay_actors::model::CONNECT_TIMEOUT;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, RequestBuilder, Url, redirect, retry};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::meter::Asks;
use super::{DEADLINE, PROMPT, server};

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: Vec<Said<'a>>,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Serialize)]
struct Said<'a> {
    role: &'a str,
    content: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
}

/// The body of the request; the bench's has no tools.
fn body(request: &ChatRequest, stream: bool) -> Vec<u8> {
    let messages = request.messages.iter().map(|message| Said {
        role: message.role.name(),
        content: &message.text,
        tool_call_id: message.tool_call_id.as_deref(),
    });
    let body = Body {
        model: "m",
        messages: messages.collect(),
        stream,
        stream_options: stream.then_some(StreamOptions { include_usage: true }),
        max_tokens: request.max_tokens,
        temperature: request.temperature,
        seed: request.seed,
    };
    serde_json::to_vec(&body).expect("it is JSON")
}

/// A whole answer, or a frame of one.
#[derive(Deserialize)]
struct Answer {
    model: String,
    choices: Vec<Choice>,
    usage: Option<Tokens>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(alias = "delta")]
    message: Message,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    content: Option<String>,
    #[serde(default)]
    tool_calls: Vec<Call>,
}

#[derive(Deserialize)]
struct Call {
    id: String,
    function: Function,
}

#[derive(Deserialize)]
struct Function {
    name: String,
    arguments: String,
}

#[derive(Deserialize)]
struct Tokens {
    prompt_tokens: u64,
    completion_tokens: u64,
}

/// Adds what is said to the reply, and returns the text.
fn add(reply: &mut ChatReply, answer: Answer) -> Option<String> {
    reply.model = answer.model;
    if let Some(usage) = answer.usage {
        let (input, output) = (usage.prompt_tokens, usage.completion_tokens);
        reply.usage = Usage { input, output, estimated: false };
    }
    let choice = answer.choices.into_iter().next()?;
    reply.tool_calls.extend(choice.message.tool_calls.into_iter().map(|call| ToolCall {
        id: call.id,
        name: call.function.name,
        arguments: call.function.arguments,
    }));
    match choice.finish_reason.as_deref() {
        Some("stop") => reply.finish = Finish::Stop,
        Some("tool_calls") => reply.finish = Finish::ToolCalls,
        Some(other) => reply.finish = Finish::Other(other.to_owned()),
        None => {}
    }
    choice.message.content
}

#[derive(Clone)]
pub(crate) struct Bare {
    client: Client,
    url: Url,
    /// Who is asked when the first does not answer.
    other: Option<Url>,
    key: HeaderValue,
}

impl Bare {
    pub(crate) fn new(server: &str) -> Self {
        // The same backend as ours, without which there is none at all.
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .expect("there are protocols")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(Duration::from_secs(4))
            .retry(retry::never())
            .redirect(redirect::Policy::none())
            .build()
            .expect("a client can be had");
        let mut key = HeaderValue::from_static("Bearer sk-bench");
        key.set_sensitive(true);
        Self { client, url: completions(server), other: None, key }
    }

    /// One that asks `server`, and this one when that is not reached.
    pub(crate) fn before(self, server: &str) -> Self {
        Self { url: completions(server), other: Some(self.url), ..self }
    }

    fn post(&self, url: &Url, request: &ChatRequest, stream: bool) -> RequestBuilder {
        let builder = self
            .client
            .post(url.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(AUTHORIZATION, &self.key)
            .timeout(DEADLINE)
            .body(body(request, stream));
        match stream {
            true => builder.header(ACCEPT, HeaderValue::from_static("text/event-stream")),
            false => builder,
        }
    }

    async fn whole(&self, request: &ChatRequest) -> ChatReply {
        let response = match (self.post(&self.url, request, false).send().await, &self.other) {
            (Ok(response), _) => response,
            (Err(_), Some(other)) => {
                self.post(other, request, false).send().await.expect("it answers")
            }
            (Err(error), None) => panic!("{error}"),
        };
        assert!(response.status().is_success());
        let bytes = response.bytes().await.expect("it is whole");
        let mut reply = ChatReply::default();
        let text = add(&mut reply, serde_json::from_slice(&bytes).expect("it is an answer"));
        reply.text = text.unwrap_or_default();
        reply
    }

    /// The answer, with each word to the listener as it comes; `None` when it breaks off.
    pub(crate) async fn streamed(
        &self,
        request: &ChatRequest,
        listener: mpsc::Sender<String>,
    ) -> Option<ChatReply> {
        let mut response = self.post(&self.url, request, true).send().await.ok()?;
        let (mut reply, mut read) = (ChatReply::default(), Vec::new());
        while let Some(piece) = response.chunk().await.ok()? {
            read.extend_from_slice(&piece);
            let mut done = 0;
            while let Some(length) = read[done..].iter().position(|byte| *byte == b'\n') {
                let line = &read[done..done + length];
                done += length + 1;
                let Some(data) = line.strip_prefix(b"data: ") else { continue };
                if data == b"[DONE]" {
                    // Read to the end, so that the connection can be used again.
                    while let Ok(Some(_)) = response.chunk().await {}
                    return Some(reply);
                }
                if let Some(text) = add(&mut reply, serde_json::from_slice(data).ok()?) {
                    reply.text.push_str(&text);
                    listener.send(text).await.ok()?;
                }
            }
            read.drain(..done);
        }
        None
    }
}

fn completions(server: &str) -> Url {
    Url::parse(&format!("{server}/chat/completions")).expect("it is a URL")
}

impl Asks for Bare {
    async fn ask(&self) {
        let reply = self.whole(&ChatRequest::from(PROMPT)).await;
        assert_eq!(reply.text, server::ANSWER);
        assert_eq!((reply.usage.total(), &*reply.model), (34, "m"));
    }
}
