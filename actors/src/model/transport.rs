//! HTTP for one attempt: the client, what is sent, and what a failure below HTTP means.
//!
//! *Invariant.* Nothing is sent twice, and a key goes to the origin it was given for and no other.

use std::borrow::Cow;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mainstay::fault::Fault;
use reqwest::Url;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, LOCATION};
use tokio::time::timeout;

use super::MAX_BODY;
use super::classify::classify;
use super::headers::Headers;
use crate::http::{self, Failure, Response};

/// How an answer began. It is only for a failure that more than the status is made of it.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    headers: HeaderMap,
}

impl Head {
    /// Takes it from a response.
    pub(crate) fn take(response: &mut Response) -> Self {
        let status = response.status().as_u16();
        Self { status, headers: std::mem::take(response.headers_mut()) }
    }

    #[cfg(test)]
    pub(crate) fn of(status: u16) -> Self {
        Self { status, headers: HeaderMap::new() }
    }

    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// What the body is said to be.
    pub(crate) fn content_type(&self) -> Option<Cow<'_, str>> {
        let value = self.headers.get(CONTENT_TYPE)?;
        Some(String::from_utf8_lossy(value.as_bytes()))
    }

    /// How the body is said to be packed.
    pub(crate) fn encoding(&self) -> Option<Cow<'_, str>> {
        let value = self.headers.get(CONTENT_ENCODING)?;
        Some(String::from_utf8_lossy(value.as_bytes()))
    }

    /// The failure that this body reports.
    pub(crate) fn judge(&self, body: &[u8]) -> Fault {
        let headers: Headers = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes())))
            .collect();
        let fault = classify(self.status, &headers, body, SystemTime::now());
        match self.status {
            300..=399 => self.redirected(fault),
            _ => fault,
        }
    }

    /// The failure of an endpoint that sends elsewhere. Of the address only where it is: the rest may hold a secret.
    fn redirected(&self, mut fault: Fault) -> Fault {
        let to = self.headers.get(LOCATION).map(|to| String::from_utf8_lossy(to.as_bytes()));
        let to = to.and_then(|to| Url::parse(&to).ok()).filter(Url::has_host);
        let to = to.map(|to| format!("{}://{}", to.scheme(), http::host(&to)));
        let to = to.as_deref().unwrap_or("another address");
        let said = std::mem::take(&mut fault.message);
        let said = if said.is_empty() { said } else { format!(": {said}").into() };
        fault.message = format!("the server redirects to {to}, which is not followed{said}").into();
        fault
    }
}

/// How long the text of an error is waited for: its status has said the most of it.
const ERROR_TEXT: Duration = Duration::from_secs(1);

/// Reads the rest of a response, up to [`MAX_BODY`]. What an error says is read as far as it comes, whatever
/// becomes of the rest.
pub(crate) async fn read_whole(mut response: Response) -> Result<(Head, Vec<u8>), Fault> {
    // As far as the server is believed.
    let announced = response.content_length().unwrap_or(0).min(64 * 1024);
    let head = Head::take(&mut response);
    let mut body = Vec::with_capacity(usize::try_from(announced).unwrap_or(0));
    if !head.is_success() {
        // In a box, since it is rare.
        let _ = Box::pin(timeout(ERROR_TEXT, read_error(&mut response, &mut body))).await;
        return Ok((head, body));
    }
    while let Some(chunk) = response.chunk().await.map_err(transport)? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok((head, body))
}

async fn read_error(response: &mut Response, body: &mut Vec<u8>) {
    while body.len() < MAX_BODY
        && let Ok(Some(chunk)) = response.chunk().await
    {
        body.extend_from_slice(&chunk);
    }
}

pub(crate) fn too_large() -> Fault {
    Fault::output_invalid(format!("the answer has more than {MAX_BODY} bytes"))
        .with_code("body_too_large")
}

/// What a failure below HTTP means. The endpoint is pure, so a broken connection leaves nothing
/// unknown and is `Network` even when the request had been sent.
pub(crate) fn transport(failure: Failure) -> Fault {
    let told = failure.told();
    let proxied = told.url.as_ref().is_some_and(http::may_be_proxied);
    // The rest of the URL may hold a secret.
    let host = told.url.as_ref().map(http::host).unwrap_or_default();
    let error = &*told.error;
    // Who was to be reached first.
    let first = match proxied {
        true => format!("{host} or the proxy on the way to it"),
        false => host.clone(),
    };
    let text = chain(error);
    let fault = if let Some(why) = tunnel(error) {
        tunnel_fault(&why, &host)
    } else if told.is_connect {
        let (code, text) = if told.is_timeout {
            ("connect_timeout", format!("{first} was not reached in time"))
        } else if io_kind(error) == Some(io::ErrorKind::ConnectionRefused) {
            ("connection_refused", format!("{first} refused the connection"))
        } else if let Some(why) = tls(error) {
            ("tls", format!("no secure connection to {host}: {why}"))
        } else {
            ("connect", format!("{first} was not reached: {text}"))
        };
        Fault::network(text).with_code(code).not_applied()
    } else if told.is_timeout {
        Fault::timeout("the deadline passed before the answer came").with_code("deadline")
    } else if told.is_builder {
        Fault::internal(format!("the request cannot be built: {text}")).not_applied()
    } else {
        Fault::network(format!("the connection broke: {text}")).with_code("connection_reset")
    };
    Fault { source: Some(Arc::from(told.error)), ..fault }
}

/// What became of the tunnel that a proxy was to make, if it is that: its own words, since the type has no name
/// outside.
fn tunnel(error: &dyn Error) -> Option<String> {
    let mut next = error.source();
    while let Some(error) = next {
        let text = error.to_string();
        let why =
            text.strip_prefix("tunnel error: ").or_else(|| text.strip_prefix("SOCKS error: "));
        if let Some(why) = why {
            return Some(why.to_owned());
        }
        next = error.source();
    }
    None
}

/// Nothing has reached the endpoint.
fn tunnel_fault(why: &str, host: &str) -> Fault {
    let proxy = format!("the proxy on the way to {host}");
    match why {
        "proxy authorization required" => {
            Fault::permission(format!("{proxy} wants to know who asks: 407"))
                .with_code("proxy_auth")
        }
        "credentials not accepted" | "server does not support user/pass authentication" => {
            Fault::permission(format!("{proxy} does not take the login that it was given: {why}"))
                .with_code("proxy_auth")
        }
        "failed to create underlying connection" => {
            Fault::network(format!("{proxy} was not reached")).with_code("proxy_unreachable")
        }
        _ => {
            Fault::network(format!("{proxy} made no connection: {why}")).with_code("proxy_refused")
        }
    }
    .not_applied()
}

/// Why there is no secure connection, if it is that.
fn tls<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(error) = error.downcast_ref::<rustls::Error>() {
        return Some(error);
    }
    // An I/O error shows the cause of what it wraps, not what it wraps.
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    inner.and_then(|inner| tls(inner)).or_else(|| error.source().and_then(tls))
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
