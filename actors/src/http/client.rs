//! The client of one endpoint: [direct](super::direct) where no proxy may be on the way, `reqwest` where one may.
//! Which it is makes no difference to who asks.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::HeaderMap;
use hyper::{Method, StatusCode};
use hyper_util::client::legacy;
use mainstay::fault::Fault;
use reqwest::Url;

use super::direct::{self, Deadline, Direct, Target, TimedOut};
use super::{builder, may_be_proxied, no_client, tls};

/// A client with the URLs that requests go to.
#[derive(Clone)]
pub(crate) struct Client(Way);

#[derive(Clone)]
enum Way {
    Direct(Direct, Box<[Target; 2]>),
    Proxied(reqwest::Client, Box<[Url; 2]>),
}

impl Client {
    /// All of these URLs are of one origin.
    ///
    /// # Errors
    /// `Internal`, when there is no client to be had.
    pub(crate) fn new(urls: [Url; 2]) -> Result<Self, Fault> {
        let [first, second] = &urls;
        if !may_be_proxied(first)
            && let Some(first) = Target::new(first.clone())
            && let Some(second) = Target::new(second.clone())
        {
            return Ok(Self(Way::Direct(Direct::new(tls(&first.url)?), Box::new([first, second]))));
        }
        // A URL that is no URI has no way at all, as each request is told then.
        let client = builder(first)?.build().map_err(|error| no_client(&error))?;
        Ok(Self(Way::Proxied(client, Box::new(urls))))
    }

    /// Sends a POST to the first of the URLs, or the `second`, and waits for the head of its answer.
    /// `headers` have the host. `time_left` is that for the whole answer.
    pub(crate) fn post<'a>(
        &'a self,
        second: bool,
        headers: &'a HeaderMap,
        body: Vec<u8>,
        time_left: Duration,
    ) -> Answering<'a> {
        let time_left = Some(time_left).filter(|left| *left < Duration::MAX);
        match &self.0 {
            Way::Direct(client, targets) => Box::pin(async move {
                let target = &targets[usize::from(second)];
                let answered = client.post(target, headers, body.into(), time_left);
                let (response, deadline) = answered.await?;
                Ok(Response(Via::Direct(response, deadline)))
            }),
            Way::Proxied(client, urls) => {
                let url = urls[usize::from(second)].clone();
                let mut request = reqwest::Request::new(Method::POST, url);
                *request.headers_mut() = headers.clone();
                *request.timeout_mut() = time_left;
                *request.body_mut() = Some(body.into());
                let answered = client.execute(request);
                Box::pin(async { Ok(Response(Via::Proxied(answered.await?))) })
            }
        }
    }
}

/// Waits for the head of an answer. In a box, since whoever waits is to be small.
type Answering<'a> = Pin<Box<dyn Future<Output = Result<Response, Failure>> + Send + 'a>>;

/// An answer that has begun.
pub(crate) struct Response(Via);

enum Via {
    Direct(hyper::Response<Incoming>, Deadline),
    Proxied(reqwest::Response),
}

impl Response {
    pub(crate) fn status(&self) -> StatusCode {
        match &self.0 {
            Via::Direct(response, _) => response.status(),
            Via::Proxied(response) => response.status(),
        }
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        match &self.0 {
            Via::Direct(response, _) => response.headers(),
            Via::Proxied(response) => response.headers(),
        }
    }

    pub(crate) fn headers_mut(&mut self) -> &mut HeaderMap {
        match &mut self.0 {
            Via::Direct(response, _) => response.headers_mut(),
            Via::Proxied(response) => response.headers_mut(),
        }
    }

    /// How long the body is said to be, in bytes.
    pub(crate) fn content_length(&self) -> Option<u64> {
        match &self.0 {
            Via::Direct(response, _) => response.body().size_hint().exact(),
            Via::Proxied(response) => response.content_length(),
        }
    }

    /// The next piece of the body; `None` at its end. It may be dropped before it is there, and asked again.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        match &mut self.0 {
            Via::Direct(response, deadline) => direct::chunk(response, deadline).await,
            Via::Proxied(response) => Ok(response.chunk().await?),
        }
    }
}

/// What went wrong below HTTP.
pub(crate) struct Failure(Box<Told>);

/// What is known of a [`Failure`].
pub(crate) struct Told {
    /// Where the request went, if it had no answer yet.
    pub(crate) url: Option<Url>,
    /// No connection was made: nothing was sent.
    pub(crate) is_connect: bool,
    /// The time was over: that of the request, or of the connection to be made.
    pub(crate) is_timeout: bool,
    /// The request could not be put together.
    pub(crate) is_builder: bool,
    /// Without the URL, which may hold a secret.
    pub(crate) error: Box<dyn Error + Send + Sync>,
}

impl Failure {
    fn new(error: impl Error + Send + Sync + 'static) -> Self {
        let is_connect = causes(&error).any(|cause| {
            cause.downcast_ref::<legacy::Error>().is_some_and(legacy::Error::is_connect)
        });
        let is_timeout = causes(&error).any(|cause| {
            cause.is::<TimedOut>()
                || cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_timeout)
        });
        let is_timeout = is_timeout || (is_connect && is_timed_out(&error));
        let error = Box::new(error);
        Self(Box::new(Told { url: None, is_connect, is_timeout, is_builder: false, error }))
    }

    /// The same, of a request to this URL.
    pub(super) fn at(mut self, url: &Url) -> Self {
        self.0.url = Some(url.clone());
        self
    }

    pub(crate) fn told(self) -> Told {
        *self.0
    }
}

/// Whether the system says so: of a connection that is made, or of one without life.
fn is_timed_out(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| {
        let error = cause.downcast_ref::<io::Error>();
        error.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
    })
}

/// An error and what it comes from.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

impl From<TimedOut> for Failure {
    fn from(error: TimedOut) -> Self {
        Self::new(error)
    }
}

impl From<legacy::Error> for Failure {
    fn from(error: legacy::Error) -> Self {
        Self::new(error)
    }
}

impl From<hyper::Error> for Failure {
    fn from(error: hyper::Error) -> Self {
        Self::new(error)
    }
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        Self(Box::new(Told {
            url: error.url().cloned(),
            is_connect: error.is_connect(),
            // A connection that has died is broken, whatever time is left.
            is_timeout: error.is_timeout() && (error.is_connect() || !is_timed_out(&error)),
            is_builder: error.is_builder(),
            error: Box::new(error.without_url()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_without_life_is_no_deadline() {
        let dead = Failure::new(io::Error::from(io::ErrorKind::TimedOut)).told();
        assert!(!dead.is_timeout && !dead.is_connect);
        assert!(Failure::from(TimedOut).told().is_timeout);
    }
}
