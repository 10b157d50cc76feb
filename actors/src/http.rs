//! The HTTP client that models and servers are reached with.
//!
//! *Invariant.* It tries once, and takes what it carries nowhere else: it follows a redirect only within the
//! origin, and only one that leaves a request what it was.

use std::error::Error;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mainstay::fault::Fault;
use reqwest::{Client, ClientBuilder, Url, redirect, retry};
use rustls_platform_verifier::BuilderVerifierExt as _;

/// How long a connection may take to be made.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection is kept for the next request. Many servers close theirs after 5 s, and a
/// request that is sent into a connection that is being closed is lost.
const KEPT: Duration = Duration::from_secs(4);
const MAX_REDIRECTS: usize = 3;

/// Made once: to read the certificates this machine trusts takes longer than most requests.
static TLS: OnceLock<rustls::ClientConfig> = OnceLock::new();

fn tls() -> Result<rustls::ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_platform_verifier()?
        .with_no_client_auth())
}

/// A builder of clients for this URL.
///
/// # Errors
/// `Internal`, when this machine's certificates cannot be read.
pub(crate) fn builder(url: &Url) -> Result<ClientBuilder, Fault> {
    let tls = match TLS.get() {
        Some(tls) => tls.clone(),
        None => {
            let tls = tls().map_err(|error| no_client(&error))?;
            TLS.get_or_init(|| tls).clone()
        }
    };
    let builder = Client::builder()
        .tls_backend_preconfigured(tls)
        .connect_timeout(CONNECT_TIMEOUT)
        .retry(retry::never())
        // A URL may hold a secret, and a redirect would take the one before along.
        .referer(false)
        .pool_idle_timeout(KEPT)
        .redirect(redirect::Policy::custom(|attempt| {
            // A key must not follow to another origin, and a POST must stay one.
            let same = attempt.previous().first().is_some_and(|first| {
                first.origin() == attempt.url().origin()
                    && matches!(attempt.status().as_u16(), 307 | 308)
            });
            if same && attempt.previous().len() <= MAX_REDIRECTS {
                attempt.follow()
            } else {
                attempt.stop()
            }
        }));
    // A server on this machine is not behind a proxy.
    Ok(if is_this_machine(url) { builder.no_proxy() } else { builder })
}

/// There is no client to be had, for this reason.
pub(crate) fn no_client(error: &dyn Error) -> Fault {
    Fault::internal(format!("no HTTP client: {error}"))
}

fn is_this_machine(url: &Url) -> bool {
    url.host_str().is_some_and(|host| {
        let host = host.trim_matches(['[', ']']);
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_this_machine_is_known_by_its_address() {
        for (url, here) in [
            ("http://localhost:80/v1", true),
            ("http://127.0.0.2/", true),
            ("http://[::1]:9/", true),
            ("http://localhost.example/", false),
            ("http://10.0.0.1/", false),
        ] {
            assert_eq!(is_this_machine(&Url::parse(url).unwrap()), here, "{url}");
        }
    }
}
