//! Headers that go with every request to a server at a URL.
//!
//! *Invariant.* They go to that server and to nobody else: no redirect to another origin is followed.

use std::collections::HashMap;
use std::sync::Arc;

use mainstay::fault::Fault;
use reqwest::header::{HeaderName, HeaderValue};

use super::{McpServer, Plan, Setting};
use crate::model::credentials;
use crate::secrets::{Secrets, is_name_of_secret};

/// Those of the protocol, which are not for others to set.
const OURS: [&str; 4] = ["accept", "last-event-id", "mcp-protocol-version", "mcp-session-id"];

impl McpServer {
    /// Sends this header with every request over HTTP. Its value is shown nowhere; where its name is that of a
    /// secret (as for [`McpServer::env`]), `[key]` stands for it in the server's errors and results. It does not
    /// follow a redirect elsewhere. A server that is a command has no use for it.
    ///
    /// # Errors
    /// The connection does not start (`InputValidation`, `bad_header`) with a name or value that no header can have,
    /// one that [`Model::header`](crate::model::Model::header) does not take, one of the protocol (`accept`,
    /// `last-event-id`, `mcp-protocol-version`, `mcp-session-id`), or `authorization` beside a
    /// [bearer token](McpServer::bearer).
    ///
    /// # Default
    /// None.
    #[must_use]
    pub fn header(self, name: impl Into<String>, value: impl Into<Arc<str>>) -> Self {
        self.with(|plan| plan.headers.push((name.into(), Setting::Given(value.into()))))
    }

    /// The same with a value from this environment variable, read at each start. It is taken for a secret whatever
    /// its name. One that is not set fails the start, naming it.
    #[must_use]
    pub fn header_env(self, name: impl Into<String>, variable: impl Into<String>) -> Self {
        self.with(|plan| plan.headers.push((name.into(), Setting::Env(variable.into()))))
    }

    /// Whether a header of this name can be [set](McpServer::header).
    ///
    /// # Errors
    /// What is wrong with the name.
    pub fn takes_header(name: &str) -> Result<(), String> {
        header(name, "").map(drop).map_err(|fault| fault.message.into_owned())
    }
}

/// The headers as they are sent.
pub(super) fn of(plan: &Plan) -> Result<HashMap<HeaderName, HeaderValue>, Fault> {
    let mut headers = HashMap::new();
    for (name, value) in &plan.headers {
        let (name, mut value) = header(name, value.read()?.trim())?;
        if plan.bearer.is_some() && name == reqwest::header::AUTHORIZATION {
            return Err(bad(name.as_str(), "stands beside a bearer token"));
        }
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

/// What of them must not be shown.
pub(super) fn hide(plan: &Plan, secrets: &mut Secrets) {
    for (name, value) in &plan.headers {
        let is_meant = matches!(value, Setting::Env(_));
        let is_secret = is_meant || is_name_of_secret(name);
        let Some(value) = value.read().ok().filter(|_| is_secret) else { continue };
        match is_meant {
            true => secrets.add(value.trim()),
            false => secrets.add_named(name, value.trim()),
        }
        // What quotes it may leave out the scheme before it.
        secrets.add(value.trim().split_once(' ').map_or("", |(_, rest)| rest.trim()));
    }
}

fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), Fault> {
    let (header, value) = credentials::header(name, value)?;
    if OURS.contains(&header.as_str()) {
        return Err(bad(name, "is set by the protocol itself"));
    }
    Ok((header, value))
}

fn bad(name: &str, what: &str) -> Fault {
    Fault::input_validation(format!("the header {name:?} {what}")).with_code("bad_header")
}
