//! The headers that go with every request of an endpoint.

use std::sync::Arc;

use mainstay::fault::Fault;
use reqwest::Url;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use super::wire::Wire;
use super::{anthropic, key};
use crate::secrets::Secrets;

/// The headers of a request, with the key as it is sent, and what must not be shown of it.
#[derive(Clone, Default)]
pub(super) struct Credentials {
    /// For a whole answer, and for a stream.
    pub(super) headers: [HeaderMap; 2],
    pub(super) secrets: Arc<Secrets>,
}

impl Credentials {
    pub(super) fn new(wire: Wire, key: Option<&str>, base: &Url) -> Result<Self, Fault> {
        let mut whole = HeaderMap::with_capacity(6);
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
        let mut stream = whole.clone();
        stream.insert(
            ACCEPT,
            HeaderValue::from_static(match wire {
                Wire::Ollama => "application/x-ndjson, application/json",
                _ => "text/event-stream, application/json",
            }),
        );
        Ok(Self { headers: [whole, stream], secrets: Arc::new(secrets) })
    }
}
