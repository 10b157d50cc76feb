//! Model endpoints over HTTP: [`Model`] asks one that speaks OpenAI's chat completions (OpenAI, most
//! gateways, llama.cpp, vLLM), OpenAI's responses, Anthropic's messages, Google's generateContent, or
//! Ollama's own API.
//!
//! One attempt is one HTTP request. The client retries nothing, follows no redirect to another
//! origin, and has no time limit of its own but the connect timeout and those of a stream; everything
//! else is the supervisor's to decide, from the [`Fault`] that [`classify`](classify::classify) makes.
//!
//! *Invariant.* A key is in its header and nowhere else: not in `Debug`, not in a fault, not in a log.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mainstay::behavior::{Behavior, Context, StartContext, Stateless};
use mainstay::fate::Cost;
use mainstay::fault::{Class, EffectKind, EffectState, Fault};
use mainstay::spec::ChildSpec;
use mainstay::spec::Kind;
use reqwest::Url;

use crate::chat::{ChatReply, ChatRequest, Finish, Usage};
use crate::http::Client;
use crate::model::commit::Rules;
use crate::model::course::{Course, superseded};
use crate::model::credentials::Credentials;
use crate::model::key::Key;
use crate::model::limits::{Permit, RateLimits};
use crate::model::share::{Price, Share};
use crate::model::wire::{Terms, Wire};
use crate::names;
use crate::secrets::Secrets;

pub use crate::model::commit::{CommitPoint, WhenFull};
pub use crate::model::options::TokenLimit;
pub use crate::model::share::BUDGETED_ANSWER;

pub(crate) mod again;
mod anthropic;
mod calls;
pub mod classify;
mod commit;
mod course;
pub(crate) mod credentials;
mod ending;
mod frames;
mod gemini;
pub mod headers;
mod key;
pub mod limits;
mod ollama;
mod openai;
mod options;
mod read;
mod responses;
mod share;
mod streaming;
mod transport;
mod wire;

/// The longest body of an answer that is read, in bytes. Of a stream, the most that it may say, and the most that it may
/// send without saying anything: what each word comes in is not counted, up to 512 bytes a letter.
pub const MAX_BODY: usize = 10 * 1024 * 1024;
/// The code of an answer that is no JSON, where JSON was asked for.
pub(crate) const BAD_JSON: &str = "bad_json";
/// The time to reach the server.
pub const CONNECT_TIMEOUT: Duration = crate::http::CONNECT_TIMEOUT;
/// Attempts at a time of a child made by [`Model::spec`].
pub const CONCURRENCY: u32 = 8;

/// A model behind an HTTP endpoint, made with one of:
///
/// | Constructor | Speaks | Requests go to |
/// |---|---|---|
/// | [`Model::openai`] | OpenAI's chat completions | `{base}/chat/completions` |
/// | [`Model::responses`] | OpenAI's responses | `{base}/responses` |
/// | [`Model::anthropic`] | Anthropic's messages | `{base}/messages` |
/// | [`Model::gemini`] | Google's generateContent | `{base}/models/{model}:generateContent` |
/// | [`Model::ollama`] | chat completions as Ollama speaks them | `{base}/chat/completions` |
/// | [`Model::ollama_native`] | Ollama's own API | `{base}/api/chat` |
///
/// Its work is [`EffectKind::Pure`]: asking again costs money and changes nothing in the world. So a
/// connection that breaks after the request was sent is `Network`, not `Indeterminate`: there is no
/// effect whose outcome could be unknown.
///
/// # Streaming
/// A request with a [`StreamSink`](crate::chat::stream::StreamSink) is answered as it is written. What
/// comes is held back until the [commit point](Model::commit_point); a failure before it is retried
/// and substituted as any other, and the listener never notices. After it, what
/// [`OnBreak`](crate::chat::stream::OnBreak) says happens. An answer that ended as a
/// [part](crate::chat::Finish::Partial) is a success to whoever asked, degraded, and counts as a failure for
/// the endpoint's circuit.
///
/// The child's [`attempt_timeout`](ChildSpec::attempt_timeout) bounds the whole answer, not the pause
/// between its pieces: set it for answers that take longer.
///
/// # Budgets
/// What a request may cost is reserved in the budget of whoever asks before it is sent, and settled with
/// what it used: a token for four bytes of the request, and the tokens its answer may have
/// ([`ChatRequest::max_tokens`]), at the [price](Model::price_per_million). What is not left is not begun,
/// and a cheaper sibling may be asked. Under a budget of tokens, or of money where there is a price, a
/// request without a limit of its own is given what is left, at most its
/// [`answer_tokens`](Model::answer_tokens). One that is cut off there is no answer: the fault says where the
/// limit came from, and what to raise.
///
/// A [price cap](Model::price_cap) bounds each request of the endpoint in the same way, whoever asks.
///
/// An attempt that nobody knows the end of is charged for what it had reserved: one that was dropped, timed
/// out, or lost its connection before its answer was whole. Of a stream that had begun that is what had come
/// so far, by the same estimate.
///
/// # Answers that cannot be used
/// What a model can do better when it is told (an answer that is cut off and calls no tool, says nothing, is no JSON where JSON was
/// asked for, or has a tool call that cannot be read) fails with [feedback](Fault::with_feedback), so that a policy
/// that retries [`Class::OutputInvalid`] ([`Policy::code_generation`](mainstay::policy::Policy::code_generation)) has
/// it given again. The next attempt, also that of a substitute, has what was wrong at the end of what it is asked. An
/// [`Agent`](crate::agent::Agent) that has a schema of its answers has those given again itself that are no JSON.
///
/// # Errors
/// By [`classify`](classify::classify) for what the server says, in a status, in the body of a 200 or
/// in a stream, and:
///
/// | What | Class, code |
/// |---|---|
/// | not reached: refused, not resolved, a certificate that does not verify, 5 s over | `Network`, not applied: `connection_refused`, `connect`, `tls`, `connect_timeout` |
/// | a proxy of the environment was not reached, or made no connection; wants another password | `Network`, not applied: `proxy_unreachable`, `proxy_refused`; `Permission`, not applied: `proxy_auth` |
/// | the connection broke before the answer was whole | `Network`, `connection_reset` |
/// | a stream ended without its final frame | `Network`, `stream_cut` |
/// | the deadline passed while it was waited for | `Timeout`, `deadline` |
/// | a stream paused, or trickled, for too long | `Timeout`: `idle`, `too_slow` |
/// | the body is not JSON; a frame is not JSON, not UTF-8 | `ServerTransient`: `not_json`, `bad_frame`, `bad_utf8` |
/// | the answer has another shape, has no choice, is too large | `OutputInvalid`: `bad_shape`, `no_choice`, `body_too_large`, `frame_too_large` |
/// | it was cut off at its token limit; a tool call cannot be read; JSON was asked for; nothing was said and nothing asked for | `OutputInvalid`: `truncated`, the provider's code, `bad_json`, `empty_answer` |
/// | the provider says that it has broken the answer off (`abort`, `insufficient_system_resource`) | `ServerTransient`: the provider's code |
/// | the provider says that the answer is spoiled (`MALFORMED_RESPONSE`, `OTHER`) | `OutputInvalid`: the provider's code |
/// | the provider filtered it, or the model refused | `ContentFiltered`: the provider's code, `refusal` |
/// | the window was too small for the answer; the prompt has no room in the [window](Model::context_window) that was stated | `ContextLength`: `model_context_window_exceeded`; `context_window`, not applied |
/// | more was held back before the commit than may be, and [`WhenFull::Fail`] | `OutputInvalid`, `buffer_full` |
/// | the listener of a stream does not listen | `Cancelled`, `listener_stalled` |
/// | its own [limits](Model::limits) | `RateLimit`, not applied: `local_limit` |
/// | the budget does not cover it; its [price cap](Model::price_cap) does not | `BudgetDenied`, not applied; `price_cap` |
/// | the request cannot be said in this format | `InputValidation`: `unsupported`, `bad_schema` |
///
/// The final frame of a stream is that which its format has for it (`[DONE]`, `message_stop`, `response.completed`, `done`),
/// and one that says why the answer ended (`finish_reason`, `stop_reason`, `finishReason`) where nothing more of it came
/// behind that: all of it has been said then, and a stream that is cut there is whole.
///
/// An answer that ended for a reason that is not known here is [`Finish::Other`], and degraded; one that says nothing
/// and asks for nothing is `OutputInvalid`, with that reason as its code.
#[derive(Clone)]
pub struct Model {
    url: String,
    model: String,
    key: Key,
    wire: Wire,
    /// Whether a second 500 means that the model cannot be loaded.
    local: bool,
    price: Option<Price>,
    price_cap: Option<u64>,
    window: Option<u32>,
    token_limit: Option<TokenLimit>,
    structured: bool,
    headers: Vec<(String, Key)>,
    rules: Rules,
    limits: Option<RateLimits>,
    answer_tokens: u32,
    client: Option<Ready>,
}

#[derive(Clone)]
struct Ready {
    /// With where requests go: for a whole answer, and for a stream.
    client: Client,
    base: Url,
    /// What a request says differently from server to server.
    terms: Terms,
    /// The ids of calls that are taken there.
    ids: names::Ids,
    /// Made at the start of a life; a callback is asked each time.
    credentials: Credentials,
}

/// What is to be sent.
struct Written {
    body: Vec<u8>,
    /// What was set aside for it.
    share: Option<Share>,
    /// The token limit that is sent, which is the one that it was set aside for.
    limit: Option<u32>,
}

impl Model {
    fn new(wire: Wire, base_url: String, model: String) -> Self {
        Self {
            url: base_url,
            model,
            key: Key::None,
            wire,
            local: false,
            price: None,
            price_cap: None,
            window: None,
            token_limit: None,
            structured: true,
            headers: Vec::new(),
            rules: Rules::default(),
            limits: None,
            answer_tokens: BUDGETED_ANSWER,
            client: None,
        }
    }

    /// The model `model` at `base_url`, such as `https://api.openai.com/v1`, by chat completions. No
    /// key is sent unless one is named; that holds for all of them.
    pub fn openai(base_url: impl Into<String>, model: impl Into<String>) -> Self {
        Self::new(Wire::Chat, base_url.into(), model.into())
    }

    /// The model `model` at `base_url`, such as `https://api.openai.com/v1`, by the responses API.
    /// Nothing is kept at the provider.
    ///
    /// # Limits
    /// The API has no stop texts, which are refused, and no seed, which is left out.
    pub fn responses(base_url: impl Into<String>, model: impl Into<String>) -> Self {
        Self::new(Wire::Responses, base_url.into(), model.into())
    }

    /// The model `model` at `base_url`, such as `https://api.anthropic.com/v1`.
    ///
    /// # Limits
    /// The API wants a token limit; without one in the request it is 4,096. It has no seed, which is
    /// left out.
    pub fn anthropic(base_url: impl Into<String>, model: impl Into<String>) -> Self {
        Self::new(Wire::Anthropic, base_url.into(), model.into())
    }

    /// The model `model` at `base_url`, such as `https://generativelanguage.googleapis.com/v1beta`. A
    /// model with a slash in its name (`tunedModels/x`) is taken as a path.
    pub fn gemini(base_url: impl Into<String>, model: impl Into<String>) -> Self {
        Self::new(Wire::Gemini, base_url.into(), model.into())
    }

    /// The model `model` of an Ollama server at `base_url`, such as `http://127.0.0.1:11434/v1`. As
    /// [`Model::openai`], but a second 500 is `ModelUnavailable`: a local model that failed to load
    /// fails again.
    ///
    /// # Limits
    /// Ollama cuts a prompt that is too long without saying so, unless its own API is told
    /// otherwise; its compatible API cannot be told. [`Model::ollama_native`] tells it, and how large a
    /// [window](Model::context_window) is wanted.
    pub fn ollama(base_url: impl Into<String>, model: impl Into<String>) -> Self {
        Self { local: true, ..Self::openai(base_url, model) }
    }

    /// The model `model` of an Ollama server at `base_url`, such as `http://127.0.0.1:11434`, by
    /// Ollama's own API. A second 500 is `ModelUnavailable`.
    ///
    /// # Limits
    /// The API cannot be told that the model must use a tool, which is refused.
    pub fn ollama_native(base_url: impl Into<String>, model: impl Into<String>) -> Self {
        Self { local: true, ..Self::new(Wire::Ollama, base_url.into(), model.into()) }
    }

    /// The key, sent as the provider wants it: as a bearer token, or in a header of its own. It is shown
    /// nowhere else: an error that quotes it, or part of it, says `[key]` there, and so does a good answer that
    /// quotes it in full, in larger or smaller letters or as JSON quotes it. A good answer keeps what has less than 8
    /// bytes, or less than 16 and is made of words (as `not-needed`, which a local server is given for a key) or of less
    /// than five different characters.
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

    /// Asks for the key at the start of each attempt: for keys that expire. The callback must be
    /// quick, and must not put the key into its fault.
    #[must_use]
    pub fn key_from(
        mut self,
        callback: impl Fn() -> Result<String, Fault> + Send + Sync + 'static,
    ) -> Self {
        self.key = Key::Callback(Arc::new(callback));
        self
    }

    /// What a million tokens cost, read and written, in millionths of the currency; counted into
    /// [`Answer::cost`](mainstay::fate::Answer::cost).
    ///
    /// # Default
    /// 0: only tokens are counted, and a budget of money is no limit.
    #[must_use]
    pub fn price_per_million(mut self, input_micros: u64, output_micros: u64) -> Self {
        self.price = Some((input_micros, output_micros));
        self
    }

    /// Requests and tokens a minute that this endpoint keeps to, whatever the provider says. Clones of
    /// `limits` share one account.
    ///
    /// # Default
    /// None.
    #[must_use]
    pub fn limits(mut self, limits: RateLimits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// The most tokens of an answer to a request that names no limit of its own
    /// ([`ChatRequest::max_tokens`]), where one has to be named: under a budget of tokens, or of money where
    /// there is a price, and for Anthropic always. Otherwise the provider decides. At least 1.
    ///
    /// # Default
    /// [`BUDGETED_ANSWER`].
    #[must_use]
    pub fn answer_tokens(mut self, tokens: u32) -> Self {
        self.answer_tokens = tokens.max(1);
        self
    }

    /// How much of a stream must have come before the listener hears of it.
    ///
    /// # Default
    /// [`CommitPoint::FirstContent`].
    #[must_use]
    pub fn commit_point(mut self, point: CommitPoint) -> Self {
        self.rules.point = point;
        self
    }

    /// What is done when more is held back before the commit than may be: 512 pieces or 1 MiB.
    ///
    /// # Default
    /// [`WhenFull::Commit`].
    #[must_use]
    pub fn when_full(mut self, when: WhenFull) -> Self {
        self.rules.when_full = when;
        self
    }

    /// How long a stream may pause between two frames, the first included. Heartbeats are frames;
    /// single bytes are not. Also how long a full stream is held for a listener that does not listen.
    ///
    /// # Default
    /// 15 s.
    #[must_use]
    pub fn idle_timeout(mut self, idle: Duration) -> Self {
        self.rules.idle = idle;
        self
    }

    /// From its first content on, a stream must bring so many characters in each span of this length.
    ///
    /// # Default
    /// None: only pauses are noticed.
    #[must_use]
    pub fn throughput_floor(mut self, characters: usize, span: Duration) -> Self {
        self.rules.floor = Some((characters, span));
        self
    }

    /// The child spec: stateless, kind `model`, [`CONCURRENCY`] attempts at a time. Everything can
    /// be changed; models that share an account should share a
    /// [`quota_domain`](ChildSpec::quota_domain).
    pub fn spec(self, id: impl AsRef<str>) -> ChildSpec {
        let stated = self.capabilities();
        let spec = ChildSpec::stateless(id, move || self.clone());
        let spec = spec.kind(Kind::Model).concurrency(CONCURRENCY);
        stated.into_iter().fold(spec, ChildSpec::capabilities)
    }

    /// Reads the key and makes the client. A behavior does this at its start; call it only to use
    /// [`Model::ask`] without supervision.
    ///
    /// # Errors
    /// `InputValidation` for a base URL that is none, `no_price` for a [price cap](Model::price_cap) without
    /// prices, and `bad_header` for a [header](Model::header) that cannot be sent or is not to be set; `Permission`
    /// for a key that is not set or cannot be sent.
    pub fn connect(&mut self) -> Result<(), Fault> {
        self.client = Some(self.ready()?);
        Ok(())
    }

    fn ready(&self) -> Result<Ready, Fault> {
        let bad = || Fault::input_validation("the base URL is not an http(s) URL");
        self.fits()?;
        // A query of the base URL stays: Azure's names the version of the API.
        let base = Url::parse(&self.url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(bad)?;
        let key = match &self.key {
            Key::Callback(_) => None,
            key => key.read()?,
        };
        let credentials = Credentials::new(self.wire, key.as_deref(), &base, &self.headers)?;
        let url = |stream| self.wire.url(&base, &self.model, stream).ok_or_else(bad);
        let urls = [url(false)?, url(true)?];
        let named = self.token_limit.unwrap_or_else(|| TokenLimit::of(base.host_str()));
        let terms = Terms {
            completion: named == TokenLimit::MaxCompletionTokens,
            window: self.window,
            phases: options::is_openai(base.host_str()),
        };
        let ids = self.wire.ids(base.host_str());
        Ok(Ready { client: Client::new(urls)?, base, terms, ids, credentials })
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
        self.attempt(request, time_left, attempt, &Course::default()).await.0
    }

    async fn attempt(
        &self,
        request: &ChatRequest,
        time_left: Duration,
        attempt: u32,
        course: &Course<'_>,
    ) -> (Result<ChatReply, Fault>, Usage) {
        if let Some(mut part) = request.stream.as_ref().and_then(|sink| sink.broken()) {
            // The attempt that was ended from outside could not say what it used, but has paid for it.
            let read = request.messages.iter().map(|message| message.text.len()).sum();
            part.usage = wire::estimate(read, part.text.len());
            return (Ok(part), Usage::default());
        }
        let mut secrets = Arc::default();
        // What it is charged if nobody says what it used.
        let mut at_stake = Usage::default();
        let exchange =
            self.exchange(request, time_left, attempt, &mut secrets, &mut at_stake, course);
        let (outcome, usage) = match exchange.await {
            Ok(settled) => settled,
            Err(fault) => (Err(fault), at_stake),
        };
        // What a listener has heard is hidden from nobody, but the fault that goes with it is.
        let outcome = match outcome {
            Err(fault) => Err(secrets.hide(self.finish(fault, attempt))),
            ok => ok,
        };
        (outcome, usage)
    }

    /// The last word on a fault.
    fn finish(&self, mut fault: Fault, attempt: u32) -> Fault {
        // It answers a prompt that it cannot get through in its own time in this way, too: that a second
        // one would end otherwise is not likely, and a larger window or a shorter prompt may help.
        if self.wire == Wire::Gemini
            && attempt > 1
            && fault.class == Class::Timeout
            && fault
                .code
                .as_deref()
                .is_some_and(|code| code == "504" || code == "DEADLINE_EXCEEDED")
        {
            fault.class = Class::ContextLength;
        }
        fault
    }

    async fn exchange(
        &self,
        request: &ChatRequest,
        time_left: Duration,
        attempt: u32,
        secrets: &mut Arc<Secrets>,
        at_stake: &mut Usage,
        course: &Course<'_>,
    ) -> Result<(Result<ChatReply, Fault>, Usage), Fault> {
        let ready = self.client.as_ref().ok_or_else(|| {
            Fault::internal("the model has no client yet; call `connect` first").not_applied()
        })?;
        // In a box, since what is held while an answer is waited for is allocated anew for each.
        let fresh = match &self.key {
            key @ Key::Callback(_) => {
                let key = key.read().map_err(Fault::not_applied)?;
                // Before it is looked at: what is said of it must not show it.
                *secrets = Arc::new(Secrets::new(key.as_deref(), &ready.base));
                let (key, more) = (key.as_deref(), &self.headers);
                Some(Box::new(Credentials::new(self.wire, key, &ready.base, more)?))
            }
            _ => None,
        };
        let credentials = fresh.as_deref().unwrap_or(&ready.credentials);
        *secrets = Arc::clone(&credentials.secrets);
        let stream = request.stream.is_some();
        let Written { body, share, limit } = self.written(ready, request, course)?;
        let sent = body.len();
        // Attempts at a stream are told apart by when they began, not by when they were answered.
        let writer = request.stream.as_ref().map(|sink| course.writer(sink));
        let mut time_left = time_left;
        let permit = match &self.limits {
            Some(limits) => {
                let start = tokio::time::Instant::now();
                let output = u64::from(limit.unwrap_or(0));
                let tokens = wire::estimate(sent, 0).input.saturating_add(output);
                let permit = limits.admit(tokens, time_left).await?;
                time_left = time_left.saturating_sub(start.elapsed());
                Some(permit)
            }
            None => None,
        };
        // What is sent is read, also if by the time of the answer nobody waits for it any more, or it is lost.
        *at_stake = share.map_or_else(|| wire::estimate(sent, 0), |share| share.usage);
        course.used(*at_stake);
        let headers = &credentials.headers[usize::from(stream)];
        let answered = ready.client.post(stream, headers, body, time_left).await;
        let response = match answered.map_err(transport::transport) {
            Ok(response) => response,
            Err(fault) => {
                if fault.effect == EffectState::NotApplied {
                    *at_stake = Usage::default();
                    permit.into_iter().for_each(Permit::give_back);
                }
                return Err(fault);
            }
        };
        // Its compatible layer says the same code with every status.
        let is_again = self.local && attempt > 1 && response.status().as_u16() == 500;
        if !response.status().is_success() {
            // An error costs nothing, whatever becomes of its text.
            *at_stake = Usage::default();
            course.used(Usage::default());
        }
        let (outcome, usage) = match writer {
            Some(writer) => {
                // Boxed, so that what has no stream is small.
                Box::pin(streaming::answer(self, response, sent, request, *writer, secrets, course))
                    .await?
            }
            None => {
                let (head, body) = transport::read_whole(response).await?;
                let (outcome, usage) = streaming::whole(self.wire, &head, &body, request, sent);
                (outcome.map(|reply| secrets.cleaned(reply)), usage)
            }
        };
        if let Some(permit) = permit {
            permit.settle(usage.total());
        }
        let told = course.payer.and_then(|(_, ctx)| ctx.feedback());
        let outcome = outcome.map_err(|mut fault| {
            if is_again && fault.class == Class::ServerTransient {
                fault.class = Class::ModelUnavailable;
            }
            again::after(fault, request, told, limit)
        });
        let outcome = match limit.filter(|_| request.max_tokens.is_none()) {
            Some(limit) => {
                let named = |fault| {
                    share::cut_off(fault, limit, self.answer_tokens, self.price_cap.is_some())
                };
                outcome.map_err(named).map(|reply| match reply {
                    ChatReply { finish: Finish::Partial(fault), .. } => {
                        ChatReply { finish: Finish::Partial(Box::new(named(*fault))), ..reply }
                    }
                    reply => reply,
                })
            }
            None => outcome,
        };
        Ok((outcome, usage))
    }

    /// The body of a request, once what it may cost is set aside.
    fn written(
        &self,
        ready: &Ready,
        request: &ChatRequest,
        course: &Course<'_>,
    ) -> Result<Written, Fault> {
        let stream = request.stream.is_some();
        let told = self.in_words(names::told(request, ready.ids));
        let mut body = self.wire.body(&self.model, &told, stream, ready.terms)?;
        self.fits_window(body.len())?;
        let share = course.share(self, wire::estimate(body.len(), 0).input, request.max_tokens)?;
        let reserved = share.map(|share| share.limit).or(request.max_tokens);
        let must_say = self.wire == Wire::Anthropic;
        let limit = reserved.or_else(|| must_say.then_some(self.answer_tokens));
        if limit != request.max_tokens.or_else(|| must_say.then_some(BUDGETED_ANSWER)) {
            let limited = ChatRequest { max_tokens: limit, ..ChatRequest::clone(&told) };
            body = self.wire.body(&self.model, &limited, stream, ready.terms)?;
        }
        Ok(Written { body, share, limit })
    }

    fn cost(&self, usage: Usage) -> Cost {
        share::cost(self.price.unwrap_or_default(), usage)
    }
}

impl fmt::Debug for Model {
    /// Without the key, and of the URL only scheme, host and path: a query may hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = Url::parse(&self.url).map_or_else(
            |_| "?".to_owned(),
            |url| format!("{}{}", url.origin().ascii_serialization(), url.path()),
        );
        f.debug_struct("Model")
            .field("wire", &self.wire)
            .field("url", &url)
            .field("model", &self.model)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// Whether it ended for a reason that is not known here: it may be whole.
fn is_doubtful(reply: &ChatReply) -> bool {
    matches!(reply.finish, Finish::Other(_)) && !reply.is_paused()
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
        if let Some(sink) = &request.stream
            && if ctx.is_hedge() { sink.is_written() } else { sink.is_hedged() }
        {
            // Somebody hears another answer already: a second one would only cost.
            return Err(superseded());
        }
        let again = ctx.feedback().map(|feedback| Box::new(again::told(request, feedback)));
        let request = again.as_deref().unwrap_or(request);
        let broken = request.stream.as_ref().is_some_and(|sink| sink.broken().is_some());
        let course = Course { rival: ctx.is_hedge(), payer: Some((self, ctx)) };
        // In a box: whoever runs it moves it a few times before its first poll.
        let attempt = Box::pin(self.attempt(request, ctx.time_left(), ctx.attempt(), &course));
        let (outcome, usage) = attempt.await;
        // Also when it failed: an answer that was cut off is paid for.
        ctx.owe(Cost::default());
        ctx.spend(self.cost(usage));
        if outcome.as_ref().is_ok_and(is_doubtful) {
            ctx.mark_degraded();
        }
        if let Some(fault) = outcome.as_ref().ok().and_then(ChatReply::broken_by) {
            ctx.mark_degraded();
            // What another attempt has left is not this endpoint's failure.
            if !broken {
                ctx.mark_flawed(fault.class);
            }
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_an_answer_is_small() {
        let model = Model::openai("http://localhost/v1", "m");
        let (request, course) = (ChatRequest::from("hello"), Course::default());
        let attempt = model.attempt(&request, Duration::MAX, 1, &course);
        // What is larger than that is no longer kept by the allocator for the next of its kind.
        let size = size_of_val(&attempt);
        assert!(size <= 1032, "{size} bytes are allocated for each attempt");
    }
}
