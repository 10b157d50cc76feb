//! The headers that go with every request of an endpoint.

use std::sync::Arc;

use mainstay::fault::Fault;
use reqwest::Url;
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue,
};

use super::key::Key;
use super::wire::Wire;
use super::{anthropic, key};
use crate::http;
use crate::secrets::{Secrets, is_name_of_secret};

/// The headers of a request, with the key as it is sent, and what must not be shown of it.
#[derive(Clone, Default)]
pub(super) struct Credentials {
    /// For a whole answer, and for a stream.
    pub(super) headers: [HeaderMap; 2],
    pub(super) secrets: Arc<Secrets>,
}

impl Credentials {
    pub(super) fn new(
        wire: Wire,
        key: Option<&str>,
        base: &Url,
        more: &[(String, Key)],
    ) -> Result<Self, Fault> {
        let mut whole = HeaderMap::with_capacity(6);
        // What is no header is no host of a URI, either.
        if let Ok(host) = HeaderValue::try_from(http::host(base)) {
            whole.insert(HOST, host);
        }
        whole.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(key) = key {
            let (name, value) = key::header(wire, key)?;
            whole.insert(name, value);
        }
        if wire == Wire::Anthropic {
            let version = HeaderValue::from_static(anthropic::VERSION);
            whole.insert(HeaderName::from_static("anthropic-version"), version);
        }
        let mut secrets = Secrets::new(key, base);
        if let Some(basic) = key::basic(base).filter(|_| !whole.contains_key(AUTHORIZATION)) {
            let text = basic.to_str().unwrap_or_default();
            secrets.add(text.trim_start_matches("Basic "));
            whole.insert(AUTHORIZATION, basic);
        }
        for (name, value) in more {
            let read = value.read()?;
            let text = read.as_deref().unwrap_or_default();
            let (header, mut sent) = header(name, text)?;
            if matches!(value, Key::Env(_)) || is_name_of_secret(name) {
                sent.set_sensitive(true);
                match value {
                    Key::Given(_) => secrets.add_named(name, text),
                    _ => secrets.add(text),
                }
                // What quotes it may leave out the scheme before it.
                secrets.add(text.split_once(' ').map_or("", |(_, rest)| rest.trim()));
            }
            whole.insert(header, sent);
        }
        let mut stream = whole.clone();
        let accepted = HeaderValue::from_static(match wire {
            Wire::Ollama => "application/x-ndjson, application/json",
            _ => "text/event-stream, application/json",
        });
        stream.entry(ACCEPT).or_insert(accepted);
        whole.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        Ok(Self { headers: [whole, stream], secrets: Arc::new(secrets) })
    }
}

/// Headers that the client sets itself, or that are between it and whoever is next on the way.
const KEPT: [&str; 9] = [
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "proxy-authorization",
    "te",
    "transfer-encoding",
    "upgrade",
];

pub(crate) fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), Fault> {
    let bad = |what: &str| {
        Fault::input_validation(format!("the header {name:?} {what}")).with_code("bad_header")
    };
    let header = HeaderName::try_from(name).map_err(|_| bad("has a name that none can have"))?;
    if KEPT.contains(&header.as_str()) {
        return Err(bad("is set by HTTP itself"));
    }
    let value = HeaderValue::try_from(value).map_err(|_| bad("has a value that none can have"))?;
    Ok((header, value))
}
