//! A server reached over streamable HTTP.

use mainstay::fault::Fault;
use reqwest::{Client, Url};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;

use super::Plan;
use crate::http;

pub(super) fn transport(
    plan: &Plan,
    address: &str,
) -> Result<StreamableHttpClientTransport<Client>, Fault> {
    let url = Url::parse(address)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| Fault::input_validation("the server's URL is not an http(s) URL"))?;
    let client = http::builder(&url)?.build().map_err(|error| http::no_client(&error))?;
    // A session that the server has forgotten is a life that is over, and the supervisor's to mend.
    let mut config = StreamableHttpClientTransportConfig::with_uri(url.as_str())
        .reinit_on_expired_session(false)
        .max_json_response_size(plan.longest())
        .max_sse_event_size(plan.longest());
    if let Some(bearer) = &plan.bearer {
        config = config.auth_header(bearer.read()?.trim());
    }
    Ok(StreamableHttpClientTransport::with_client(client, config))
}
