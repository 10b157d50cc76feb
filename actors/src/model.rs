//! Model endpoints over HTTP: [`Model`] asks one that speaks OpenAI's chat completions (OpenAI,
//! Ollama, llama.cpp, vLLM, most gateways).
//!
//! One attempt is one HTTP request. The client retries nothing, follows no redirect to another
//! origin, and has no time limit of its own but the connect timeout; everything else is the
//! supervisor's to decide, from the [`Fault`] that [`classify`](classify::classify) makes.
//!
//! *Invariant.* A key is in the `Authorization` header and nowhere else: not in `Debug`, not in a
//! fault, not in a log.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mainstay::behavior::{Behavior, Context, StartContext, Stateless};
use mainstay::fate::Cost;
use mainstay::fault::{EffectKind, Fault};
use mainstay::mirror::Kind;
use mainstay::spec::ChildSpec;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Url, redirect, retry};
use rustls_platform_verifier::BuilderVerifierExt as _;

use crate::chat::{ChatReply, ChatRequest, Usage};
use crate::model::headers::Headers;

pub mod classify;
pub mod headers;
mod openai;

/// The longest body of an answer that is read, in bytes.
pub const MAX_BODY: usize = 10 * 1024 * 1024;
/// The time to reach the server.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Attempts at a time of a child made by [`Model::spec`].
pub const CONCURRENCY: u32 = 8;

const MAX_REDIRECTS: usize = 3;

/// A response as it came, before anything is made of it.
#[derive(Clone, PartialEq, Eq)]
pub struct RawResponse {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: Headers,
    /// The body, at most [`MAX_BODY`] bytes.
    pub body: Vec<u8>,
}

impl fmt::Debug for RawResponse {
    /// Without the body, which may hold user data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawResponse")
            .field("status", &self.status)
            .field("headers", &self.headers)
            .field("body_bytes", &self.body.len())
            .finish()
    }
}

#[derive(Clone)]
enum Key {
    None,
    Given(Arc<str>),
    Env(String),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    OpenAi,
    Ollama,
}

/// A model behind an OpenAI-compatible endpoint. Made with [`Model::openai`] or [`Model::ollama`].
///
/// Its work is [`EffectKind::Pure`]: asking again costs money and changes nothing in the world. So a
/// connection that breaks after the request was sent is `Network`, not `Indeterminate`: there is no
/// effect whose outcome could be unknown.
///
/// # Errors
/// By [`classify`](classify::classify) for what the server says, and:
///
/// | What | Class, code |
/// |---|---|
/// | not reached: refused, not resolved, TLS, 5 s over | `Network`, not applied: `connection_refused`, `connect`, `connect_timeout` |
/// | the connection broke before the answer was whole | `Network`, `connection_reset` |
/// | the deadline passed while it was waited for | `Timeout`, `deadline` |
/// | the body is not JSON | `ServerTransient`, `not_json` |
/// | the body is no chat completion, has no choice, is too large | `OutputInvalid`: `bad_shape`, `no_choice`, `body_too_large` |
/// | `finish_reason` `length` | `OutputInvalid`, `truncated` |
/// | `finish_reason` `content_filter`, a refusal | `ContentFiltered`: `content_filter`, `refusal` |
#[derive(Clone)]
pub struct Model {
    url: String,
    model: String,
    key: Key,
    dialect: Dialect,
    price: (u64, u64),
    client: Option<Ready>,
}

#[derive(Clone)]
struct Ready {
    client: Client,
    url: Url,
    key: Option<(HeaderValue, Arc<str>)>,
}

impl Model {
    /// The model `model` at `base_url`, such as `https://api.openai.com/v1`: requests go to
    /// `{base_url}/chat/completions`. No key is sent unless one is named.
    pub fn openai(base_url: impl Into<String>, model: impl Into<String>) -> Self {
        Self {
            url: base_url.into(),
            model: model.into(),
            key: Key::None,
            dialect: Dialect::OpenAi,
            price: (0, 0),
            client: None,
        }
    }

    /// The model `model` of an Ollama server at `base_url`, such as `http://127.0.0.1:11434/v1`. As
    /// [`Model::openai`], but a second 500 is `ModelUnavailable`: a local model that failed to load
    /// fails again.
    ///
    /// # Limits
    /// Ollama cuts a prompt that is too long without saying so, unless its own API is told
    /// otherwise; its compatible API cannot be told.
    pub fn ollama(base_url: impl Into<String>, model: impl Into<String>) -> Self {
        Self { dialect: Dialect::Ollama, ..Self::openai(base_url, model) }
    }

    /// The key, sent as a bearer token.
    #[must_use]
    pub fn key(mut self, key: impl Into<Arc<str>>) -> Self {
        self.key = Key::Given(key.into());
        self
    }

    /// Reads the key from this environment variable at each start of a life, so that a restart
    /// takes up a new key. A variable that is not set fails the start with `Permission`, naming it.
    #[must_use]
    pub fn key_env(mut self, variable: impl Into<String>) -> Self {
        self.key = Key::Env(variable.into());
        self
    }

    /// What a million tokens cost, read and written, in millionths of the currency; counted into
    /// [`Answer::cost`](mainstay::fate::Answer::cost).
    ///
    /// # Default
    /// 0: only tokens are counted.
    #[must_use]
    pub fn price_per_million(mut self, input_micros: u64, output_micros: u64) -> Self {
        self.price = (input_micros, output_micros);
        self
    }

    /// The child spec: stateless, kind `model`, [`CONCURRENCY`] attempts at a time. Everything can
    /// be changed; models that share an account should share a
    /// [`quota_domain`](ChildSpec::quota_domain).
    pub fn spec(self, id: impl AsRef<str>) -> ChildSpec {
        ChildSpec::stateless(id, move || self.clone()).kind(Kind::Model).concurrency(CONCURRENCY)
    }

    /// Reads the key and makes the client. A behavior does this at its start; call it only to use
    /// [`Model::ask`] without supervision.
    ///
    /// # Errors
    /// `InputValidation` for a base URL that is none, `Permission` for a key that is not set or
    /// cannot be sent.
    pub fn connect(&mut self) -> Result<(), Fault> {
        self.client = Some(self.ready()?);
        Ok(())
    }

    fn ready(&self) -> Result<Ready, Fault> {
        let bad = || Fault::input_validation("the base URL is not an http(s) URL");
        let mut url = Url::parse(&self.url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(bad)?;
        // A query of the base URL stays: Azure's names the version of the API.
        url.path_segments_mut().map_err(|()| bad())?.pop_if_empty().extend(["chat", "completions"]);
        let key = match &self.key {
            Key::None => None,
            Key::Given(key) => Some(Arc::clone(key)),
            Key::Env(variable) => match std::env::var(variable) {
                Ok(key) if !key.trim().is_empty() => Some(Arc::from(key.trim())),
                _ => {
                    let text = format!("environment variable {variable} is not set");
                    return Err(Fault::permission(text).with_code("no_key"));
                }
            },
        };
        let key = key.map(|key| {
            let mut header = HeaderValue::try_from(format!("Bearer {key}")).map_err(|_| {
                Fault::permission("the key has characters that no header can hold")
                    .with_code("bad_key")
            })?;
            header.set_sensitive(true);
            Ok::<_, Fault>((header, key))
        });
        Ok(Ready { client: client(&url)?, url, key: key.transpose()? })
    }

    /// Makes one attempt, supervised by nobody. `time_left` bounds it; [`Duration::MAX`] does not.
    /// `attempt` counts from 1.
    ///
    /// # Errors
    /// See [`Model`]. `Internal` before [`Model::connect`].
    pub async fn ask(
        &self,
        request: &ChatRequest,
        time_left: Duration,
        attempt: u32,
    ) -> Result<ChatReply, Fault> {
        self.attempt(request, time_left, attempt).await.0
    }

    async fn attempt(
        &self,
        request: &ChatRequest,
        time_left: Duration,
        attempt: u32,
    ) -> (Result<ChatReply, Fault>, Usage) {
        let (outcome, usage) = match self.exchange(request, time_left).await {
            Ok((response, sent)) => openai::outcome(&response, sent, SystemTime::now()),
            Err(fault) => (Err(fault), Usage::default()),
        };
        (outcome.map_err(|fault| self.finish(fault, attempt)), usage)
    }

    /// The last word on a fault: the dialect's, and no key in it.
    fn finish(&self, mut fault: Fault, attempt: u32) -> Fault {
        use mainstay::fault::Class;
        if self.dialect == Dialect::Ollama
            && attempt > 1
            && fault.class == Class::ServerTransient
            && fault.code.as_deref() == Some("500")
        {
            fault.class = Class::ModelUnavailable;
        }
        // Providers quote keys in their messages, some in full.
        if let Some((_, key)) = self.client.as_ref().and_then(|ready| ready.key.as_ref())
            && fault.message.contains(&**key)
        {
            fault.message = fault.message.replace(&**key, "[key]").into();
        }
        fault
    }

    async fn exchange(
        &self,
        request: &ChatRequest,
        time_left: Duration,
    ) -> Result<(RawResponse, usize), Fault> {
        let ready = self.client.as_ref().ok_or_else(|| {
            Fault::internal("the model has no client yet; call `connect` first").not_applied()
        })?;
        let completion_tokens = ready.url.host_str() == Some("api.openai.com");
        let body = openai::body(&self.model, request, completion_tokens)?;
        let sent = body.len();
        let mut builder = ready
            .client
            .post(ready.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .body(body);
        if let Some((header, _)) = &ready.key {
            builder = builder.header(AUTHORIZATION, header.clone());
        }
        if time_left < Duration::MAX {
            builder = builder.timeout(time_left);
        }
        let mut response = builder.send().await.map_err(transport)?;
        let status = response.status().as_u16();
        let headers = response
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes())))
            .collect();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(transport)? {
            if body.len() + chunk.len() > MAX_BODY {
                let text = format!("the answer has more than {MAX_BODY} bytes");
                return Err(Fault::output_invalid(text).with_code("body_too_large"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((RawResponse { status, headers, body }, sent))
    }

    fn cost(&self, usage: Usage) -> Cost {
        let (input, output) = self.price;
        let micros = u128::from(usage.input) * u128::from(input)
            + u128::from(usage.output) * u128::from(output);
        Cost {
            tokens: usage.total(),
            money_micros: u64::try_from(micros.div_ceil(1_000_000)).unwrap_or(u64::MAX),
        }
    }
}

impl fmt::Debug for Model {
    /// Without the key, and of the URL only scheme, host and path: a query may hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = match &self.key {
            Key::None => "none".to_owned(),
            Key::Given(_) => "given".to_owned(),
            Key::Env(variable) => format!("${variable}"),
        };
        let url = Url::parse(&self.url).map_or_else(
            |_| "?".to_owned(),
            |url| format!("{}{}", url.origin().ascii_serialization(), url.path()),
        );
        f.debug_struct("Model")
            .field("url", &url)
            .field("model", &self.model)
            .field("key", &key)
            .finish_non_exhaustive()
    }
}

impl Behavior for Model {
    type Request = ChatRequest;
    type Reply = ChatReply;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
}

impl Stateless for Model {
    async fn start(&mut self, _: &StartContext) -> Result<(), Fault> {
        self.connect()
    }

    async fn serve(&self, request: &ChatRequest, ctx: &Context) -> Result<ChatReply, Fault> {
        let (outcome, usage) = self.attempt(request, ctx.time_left(), ctx.attempt()).await;
        // Also when it failed: an answer that was cut off is paid for.
        ctx.spend(self.cost(usage));
        outcome
    }
}

fn client(url: &Url) -> Result<Client, Fault> {
    let failed = |error: &dyn Error| Fault::internal(format!("no HTTP client: {error}"));
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .map_err(|error| failed(&error))?
    .with_platform_verifier()
    .map_err(|error| failed(&error))?
    .with_no_client_auth();
    let mut builder = Client::builder()
        .tls_backend_preconfigured(tls)
        .connect_timeout(CONNECT_TIMEOUT)
        .retry(retry::never())
        .redirect(redirect::Policy::custom(|attempt| {
            // A key must not follow to another origin, and a POST must stay one.
            let same = attempt.previous().first().is_some_and(|first| {
                first.origin() == attempt.url().origin()
                    && matches!(attempt.status().as_u16(), 307 | 308)
            });
            if same && attempt.previous().len() <= MAX_REDIRECTS {
                attempt.follow()
            } else {
                attempt.stop()
            }
        }));
    if url.host_str().is_some_and(|host| {
        let host = host.trim_matches(['[', ']']);
        host == "localhost"
            || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }) {
        // A server on this machine is not behind a proxy.
        builder = builder.no_proxy();
    }
    builder.build().map_err(|error| failed(&error))
}

/// What a failure below HTTP means. The endpoint is pure, so a broken connection leaves nothing
/// unknown and is `Network` even when the request had been sent.
fn transport(error: reqwest::Error) -> Fault {
    // The URL may hold a secret in its query.
    let error = error.without_url();
    let text = chain(&error);
    let fault = if error.is_connect() {
        let (code, what) = if error.is_timeout() {
            ("connect_timeout", "not reached in time")
        } else if io_kind(&error) == Some(io::ErrorKind::ConnectionRefused) {
            ("connection_refused", "refused")
        } else {
            ("connect", "not reached")
        };
        Fault::network(format!("{what}: {text}")).with_code(code).not_applied()
    } else if error.is_timeout() {
        Fault::timeout("the deadline passed before the answer came").with_code("deadline")
    } else if error.is_builder() {
        Fault::internal(format!("the request cannot be built: {text}")).not_applied()
    } else {
        Fault::network(format!("the connection broke: {text}")).with_code("connection_reset")
    };
    fault.with_source(error)
}

fn io_kind(error: &dyn Error) -> Option<io::ErrorKind> {
    let mut next = error.source();
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        next = error.source();
    }
    None
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}
