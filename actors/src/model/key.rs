//! Where a key comes from, and that it goes nowhere else.

use std::fmt;
use std::sync::Arc;

use mainstay::fault::Fault;
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue};

use super::wire::Wire;

/// What replaces a secret in a text.
const HIDDEN: &str = "[key]";
/// The shortest part of a URL that is taken for a secret.
const SHORTEST: usize = 6;

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

/// What must never be shown: a key, and what a URL may hold of secrets.
#[derive(Clone, Default)]
pub(crate) struct Secrets(Vec<String>);

impl Secrets {
    pub(crate) fn new(key: Option<&str>, url: &Url) -> Self {
        let mut secrets: Vec<String> = key.map(str::to_owned).into_iter().collect();
        let mut long = |text: &str| {
            if text.len() >= SHORTEST {
                secrets.push(text.to_owned());
            }
        };
        for (_, value) in url.query_pairs() {
            long(&value);
        }
        long(url.password().unwrap_or_default());
        // The longest first, so that none hides a part of another.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self(secrets)
    }

    /// The fault without secrets. Providers quote keys in their messages, some in full.
    pub(crate) fn hide(&self, mut fault: Fault) -> Fault {
        for secret in &self.0 {
            if fault.message.contains(secret.as_str()) {
                fault.message = fault.message.replace(secret.as_str(), HIDDEN).into();
            }
            if fault.code.as_ref().is_some_and(|code| code.contains(secret.as_str())) {
                fault.code = Some("hidden".into());
            }
        }
        fault
    }
}
