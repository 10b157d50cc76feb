//! Where a key comes from, and the header it goes into.

use std::fmt;
use std::sync::Arc;

use mainstay::fault::Fault;
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue};

use super::wire::Wire;
use crate::http;

#[derive(Clone)]
pub(crate) enum Key {
    None,
    Given(Arc<str>),
    Env(String),
    Callback(Arc<dyn Fn() -> Result<String, Fault> + Send + Sync>),
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Given(_) => f.write_str("given"),
            Self::Env(variable) => write!(f, "${variable}"),
            Self::Callback(_) => f.write_str("callback"),
        }
    }
}

impl Key {
    /// The key as it is now, without blanks around it.
    pub(crate) fn read(&self) -> Result<Option<Arc<str>>, Fault> {
        let key = match self {
            Self::None => return Ok(None),
            Self::Given(key) => Arc::clone(key),
            Self::Env(variable) => match std::env::var(variable) {
                Ok(key) if !key.trim().is_empty() => Arc::from(key),
                _ => {
                    let text = format!("environment variable {variable} is not set");
                    return Err(Fault::permission(text).with_code("no_key"));
                }
            },
            Self::Callback(callback) => Arc::from(callback()?),
        };
        if key.trim().is_empty() {
            return Err(Fault::permission("the key is empty").with_code("no_key"));
        }
        Ok(Some(if key.trim().len() == key.len() { key } else { Arc::from(key.trim()) }))
    }
}

/// The header of a name and a password in the base URL, which go with every request as they do elsewhere.
pub(crate) fn basic(base: &Url) -> Option<HeaderValue> {
    if base.username().is_empty() && base.password().is_none() {
        return None;
    }
    // A builder reads them, and knows how they are written.
    let client = http::builder(base).ok()?.build().ok()?;
    let mut request = client.get(base.clone()).build().ok()?;
    request.headers_mut().remove(AUTHORIZATION)
}

/// The header that carries a key.
pub(crate) fn header(wire: Wire, key: &str) -> Result<(HeaderName, HeaderValue), Fault> {
    let (name, text) = match wire {
        Wire::Chat | Wire::Responses | Wire::Ollama => (AUTHORIZATION, format!("Bearer {key}")),
        Wire::Anthropic => (HeaderName::from_static("x-api-key"), key.to_owned()),
        Wire::Gemini => (HeaderName::from_static("x-goog-api-key"), key.to_owned()),
    };
    let mut value = HeaderValue::try_from(text).map_err(|_| {
        Fault::permission("the key has characters that no header can hold").with_code("bad_key")
    })?;
    value.set_sensitive(true);
    Ok((name, value))
}
