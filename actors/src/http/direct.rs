//! The way to a server that no proxy stands before: hyper's own client, which `reqwest` is made of.
//!
//! `reqwest` reads the URL three times for each request and copies the headers for layers that do nothing
//! here, which is a sixth of what a small request takes. Nothing of it can be switched off.
//!
//! *Invariant.* Connections are made, kept and given up as `reqwest` does by default. A request is
//! written to a server once, and once more only for a redirect within the origin that leaves it what it is.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{HeaderMap, HeaderValue, LOCATION};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use reqwest::Url;
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep, timeout};
use tower_service::Service;

use super::client::Failure;
use super::{CONNECT_TIMEOUT, KEPT, MAX_REDIRECTS};

/// A connection without life is noticed after some 30 s: as `reqwest` has it.
const ALIVE: Duration = Duration::from_secs(15);
const SIGNS_OF_LIFE: u32 = 3;
#[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// What a request is given up at.
pub(super) type Deadline = Option<Pin<Box<Sleep>>>;

/// The time was over.
#[derive(Debug)]
pub(super) struct TimedOut;

impl std::fmt::Display for TimedOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("operation timed out")
    }
}

impl std::error::Error for TimedOut {}

/// A pool of connections.
#[derive(Clone)]
pub(super) struct Direct(legacy::Client<Connector, Full<Bytes>>);

/// Where requests go, ready to be asked for.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) url: Url,
    uri: Uri,
}

impl Target {
    /// `None` for what is a URL and no URI.
    pub(super) fn new(url: Url) -> Option<Self> {
        let uri = uri(&url)?;
        Some(Self { url, uri })
    }
}

/// The part of a URL that is for the server.
fn uri(url: &Url) -> Option<Uri> {
    let mut bare = url.clone();
    bare.set_username("").ok()?;
    bare.set_password(None).ok()?;
    bare.set_fragment(None);
    bare.as_str().parse().ok()
}

impl Direct {
    pub(super) fn new(tls: Arc<rustls::ClientConfig>) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(ALIVE));
        tcp.set_keepalive_interval(Some(ALIVE));
        tcp.set_keepalive_retries(Some(SIGNS_OF_LIFE));
        #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
        tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
        let connector = Connector(Arc::new(HttpsConnector::from((tcp, tls))));
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).pool_idle_timeout(KEPT);
        // It is among the headers already.
        builder.set_host(false);
        Self(builder.build(connector))
    }

    /// Sends a request and waits for the head of its answer. `headers` have the host.
    pub(super) async fn post(
        &self,
        target: &Target,
        headers: &HeaderMap,
        body: Bytes,
        time_left: Option<Duration>,
    ) -> Result<(Response<Incoming>, Deadline), Failure> {
        let mut deadline = time_left.map(|left| Box::pin(sleep(left)));
        let sent = self.send(target.uri.clone(), headers, body.clone());
        let response = match answered(sent, &mut deadline).await {
            Ok(response) if is_redirect(&response) => {
                // In a box, since it is rare.
                let followed = self.follow(response, &target.url, headers, body, &mut deadline);
                Box::pin(followed).await
            }
            answered => answered,
        };
        match response {
            Ok(response) => Ok((response, deadline)),
            Err(failure) => Err(failure.at(&target.url)),
        }
    }

    async fn follow(
        &self,
        mut response: Response<Incoming>,
        url: &Url,
        headers: &HeaderMap,
        body: Bytes,
        deadline: &mut Deadline,
    ) -> Result<Response<Incoming>, Failure> {
        let mut at = url.clone();
        for _ in 0..MAX_REDIRECTS {
            if !is_redirect(&response) {
                break;
            }
            let Some(next) = next(&at, response.headers().get(LOCATION)) else { break };
            at = next.url;
            let sent = self.send(next.uri, headers, body.clone());
            response = answered(sent, deadline).await?;
        }
        Ok(response)
    }

    fn send(&self, uri: Uri, headers: &HeaderMap, body: Bytes) -> legacy::ResponseFuture {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers.clone();
        self.0.request(request)
    }
}

async fn answered(
    mut sent: legacy::ResponseFuture,
    deadline: &mut Deadline,
) -> Result<Response<Incoming>, Failure> {
    poll_fn(|cx| {
        if is_over(deadline, cx) {
            return Poll::Ready(Err(Failure::from(TimedOut)));
        }
        Pin::new(&mut sent).poll(cx).map_err(Failure::from)
    })
    .await
}

/// The next piece of a body; `None` at its end. What is there already is given also after the deadline.
pub(super) async fn chunk(
    response: &mut Response<Incoming>,
    deadline: &mut Deadline,
) -> Result<Option<Bytes>, Failure> {
    poll_fn(|cx| {
        loop {
            match Pin::new(response.body_mut()).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    // Else it is a trailer.
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Ok(Some(data)));
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(Failure::from(error))),
                Poll::Ready(None) => return Poll::Ready(Ok(None)),
                Poll::Pending if is_over(deadline, cx) => {
                    return Poll::Ready(Err(Failure::from(TimedOut)));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

fn is_over(deadline: &mut Deadline, cx: &mut Context<'_>) -> bool {
    deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready())
}

/// Those which say that the request is to be made again as it is.
fn is_redirect(response: &Response<Incoming>) -> bool {
    matches!(response.status(), StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT)
}

/// Where a redirect leads; `None` when it is not followed. A key must not follow to another origin.
fn next(at: &Url, location: Option<&HeaderValue>) -> Option<Target> {
    let location = std::str::from_utf8(location?.as_bytes()).ok()?;
    let url = at.join(location).ok()?;
    if url.origin() != at.origin() {
        return None;
    }
    Target::new(url)
}

/// Makes connections, with TLS where the URL says so, and within [`CONNECT_TIMEOUT`].
#[derive(Clone)]
struct Connector(Arc<HttpsConnector<HttpConnector>>);

type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, Unreached>> + Send>>;
type Unreached = Box<dyn std::error::Error + Send + Sync>;

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = Unreached;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Unreached>> {
        // So is what it is made of.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = HttpsConnector::clone(&self.0).call(uri);
        Box::pin(async {
            match timeout(CONNECT_TIMEOUT, connecting).await {
                Ok(connected) => connected,
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, TimedOut).into()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_for_the_server_is_sent_to_it() {
        for (url, sent) in [
            ("https://h.example/v1?a=b", "https://h.example/v1?a=b"),
            ("http://name:word@h.example:81/v1#part", "http://h.example:81/v1"),
            ("http://[::1]:80/", "http://[::1]/"),
            ("http://h.example/a b", "http://h.example/a%20b"),
        ] {
            assert_eq!(uri(&Url::parse(url).unwrap()).unwrap().to_string(), sent, "{url}");
        }
    }

    #[test]
    fn a_redirect_is_followed_within_the_origin_only() {
        let at = Url::parse("http://h.example:81/v1/chat?key=k").unwrap();
        for (location, led) in [
            ("/v2", Some("http://h.example:81/v2")),
            ("other?x=y", Some("http://h.example:81/v1/other?x=y")),
            ("http://name:word@h.example:81/v2", Some("http://h.example:81/v2")),
            ("http://h.example/v2", None),
            ("https://h.example:81/v2", None),
            ("//i.example:81/v2", None),
            ("file:///v2", None),
            ("http://", None),
        ] {
            let value = HeaderValue::from_static(location);
            let found = next(&at, Some(&value)).map(|target| target.uri.to_string());
            assert_eq!(found.as_deref(), led, "{location}");
        }
        assert!(next(&at, None).is_none());
        let value = HeaderValue::from_bytes(b"/\xff").unwrap();
        assert!(next(&at, Some(&value)).is_none());
    }
}
