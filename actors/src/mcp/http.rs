//! A server reached over streamable HTTP.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use mainstay::fault::Fault;
use reqwest::{Client, Url, redirect, retry};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rustls_platform_verifier::BuilderVerifierExt;

use super::Plan;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn transport(
    plan: &Plan,
    address: &str,
) -> Result<StreamableHttpClientTransport<Client>, Fault> {
    let url = Url::parse(address)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| Fault::input_validation("the server's URL is not an http(s) URL"))?;
    // A session that the server has forgotten is a life that is over, and the supervisor's to mend.
    let mut config = StreamableHttpClientTransportConfig::with_uri(url.as_str())
        .reinit_on_expired_session(false);
    if let Some(bearer) = &plan.bearer {
        config = config.auth_header(bearer.read()?.trim());
    }
    Ok(StreamableHttpClientTransport::with_client(client(&url)?, config))
}

fn client(url: &Url) -> Result<Client, Fault> {
    let failed = |error: &dyn Error| Fault::internal(format!("no HTTP client: {error}"));
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .map_err(|error| failed(&error))?
    .with_platform_verifier()
    .map_err(|error| failed(&error))?
    .with_no_client_auth();
    let mut builder = Client::builder()
        .tls_backend_preconfigured(tls)
        .connect_timeout(CONNECT_TIMEOUT)
        .retry(retry::never())
        // A token must not follow to another place.
        .redirect(redirect::Policy::none());
    if url.host_str().is_some_and(|host| {
        let host = host.trim_matches(['[', ']']);
        host == "localhost"
            || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }) {
        // A server on this machine is not behind a proxy.
        builder = builder.no_proxy();
    }
    builder.build().map_err(|error| failed(&error))
}
