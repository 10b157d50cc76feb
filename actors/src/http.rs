//! The HTTP client that models and servers are reached with.
//!
//! *Invariant.* It tries once, and takes what it carries nowhere else: it follows a redirect only within the
//! origin, and only one that leaves a request what it was.

use std::error::Error;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mainstay::fault::Fault;
use reqwest::{ClientBuilder, Url, redirect, retry};
use rustls_platform_verifier::BuilderVerifierExt as _;

pub(crate) use client::{Client, Failure, Response};

mod client;
mod direct;

/// How long a connection may take to be made.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection is kept for the next request. Many servers close theirs after 5 s, and a
/// request that is sent into a connection that is being closed is lost.
const KEPT: Duration = Duration::from_secs(4);
const MAX_REDIRECTS: usize = 3;

/// Made once: to read the certificates this machine trusts takes longer than most requests.
static TLS: OnceLock<Arc<rustls::ClientConfig>> = OnceLock::new();

/// No protocol is negotiated: what is spoken is HTTP/1.1. For a URL to which no secure connection is made, this
/// machine needs no certificates: many containers have none.
fn tls(url: &Url) -> Result<Arc<rustls::ClientConfig>, Fault> {
    if let Some(tls) = TLS.get() {
        return Ok(Arc::clone(tls));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| no_client(&error))?;
    if !may_need_tls(url) {
        // Whom it trusts is never asked: a redirect does not leave the origin.
        let nobody = rustls::RootCertStore::empty();
        return Ok(Arc::new(config.with_root_certificates(nobody).with_no_client_auth()));
    }
    let trusting = config.with_platform_verifier().map_err(|error| {
        Fault::internal(format!(
            "no secure connection can be made, since the CA certificates of this machine cannot be read: {error} (install them, mostly the package `ca-certificates`, or name a file with `SSL_CERT_FILE`)"
        ))
    })?;
    Ok(Arc::clone(TLS.get_or_init(|| Arc::new(trusting.with_no_client_auth()))))
}

/// Whether there is a secure connection on the way to this URL.
fn may_need_tls(url: &Url) -> bool {
    let proxied = || !is_this_machine(url) && proxies().any(|proxy| proxy.scheme() == "https");
    url.scheme() != "http" || proxied()
}

/// A builder of clients of `reqwest` for this URL.
///
/// # Errors
/// `Internal`, when this machine's certificates cannot be read.
pub(crate) fn builder(url: &Url) -> Result<ClientBuilder, Fault> {
    let builder = reqwest::Client::builder()
        .tls_backend_preconfigured(rustls::ClientConfig::clone(&*tls(url)?))
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

/// The proxies that the environment names, which every client of ours but those for this machine goes through.
fn proxies() -> impl Iterator<Item = Url> {
    let names = ["ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY"];
    let names = names.into_iter().flat_map(|name| [name.to_owned(), name.to_ascii_lowercase()]);
    names.filter_map(|name| std::env::var(name).ok()).filter_map(|text| {
        // One may be named without a scheme.
        let url = Url::parse(&text).ok().filter(Url::has_host);
        url.or_else(|| Url::parse(&format!("http://{text}")).ok())
    })
}

/// Whether there may be a proxy on the way to this URL.
pub(crate) fn may_be_proxied(url: &Url) -> bool {
    !is_this_machine(url) && proxies().next().is_some()
}

/// What the environment says of proxies that must not be shown: passwords, as they stand there, as they are, and as
/// they are sent.
pub(crate) fn proxy_secrets() -> &'static [String] {
    static FOUND: OnceLock<Vec<String>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let mut found = Vec::new();
        for proxy in proxies() {
            let Some(password) = proxy.password() else { continue };
            let (name, plain) = (decoded(proxy.username()), decoded(password));
            found.push(base64([&*name, b":", &*plain].concat().as_slice()));
            found.extend([password.to_owned(), String::from_utf8_lossy(&plain).into_owned()]);
        }
        found
    })
}

/// A part of a URL without its percents.
pub(crate) fn decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let (mut plain, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(&byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 3).and_then(|two| std::str::from_utf8(two).ok());
        let code = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
        match code.filter(|_| byte == b'%') {
            Some(code) => {
                plain.push(code);
                at += 3;
            }
            None => {
                plain.push(byte);
                at += 1;
            }
        }
    }
    plain
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let bits = (byte(0) << 16) | (byte(1) << 8) | byte(2);
        for at in 0..4 {
            let six = ((bits >> (18 - 6 * at)) & 63) as usize;
            text.push(if at > three.len() { '=' } else { char::from(LETTERS[six]) });
        }
    }
    text
}

/// The host and port of a URL, as they are named and sent.
pub(crate) fn host(url: &Url) -> String {
    let name = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"))
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

    #[test]
    fn a_name_and_a_password_are_sent_as_every_client_writes_them() {
        for (name, password, expected) in [
            ("desk", "hunter%402-hunter", "ZGVzazpodW50ZXJAMi1odW50ZXI="),
            ("a", "b", "YTpi"),
            ("", "%", "OiU="),
            ("%C3%A4", "%zz%4", "w6Q6JXp6JTQ="),
        ] {
            let plain = [decoded(name), decoded(password)].join(&b':');
            assert_eq!(base64(&plain), expected, "{name}:{password}");
        }
    }
}
