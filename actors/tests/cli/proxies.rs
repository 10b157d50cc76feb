//! Proxies of the environment: what they refuse is told for what it is, and their passwords are told to nobody.

use std::process::Stdio;

use mainstay_actors::stub_server::{Row, StubServer};
use serde_json::Value;

use super::harness::{Folder, command, said};

const PASSWORD: &str = "hunter%40two";
/// `desk:hunter@two`
const BASIC: &str = "ZGVzazpodW50ZXJAdHdv";

/// Asks a model that is behind a proxy; what is said of the failure, and all that was printed.
async fn failed(scheme: &str, proxy: &str) -> (Value, String) {
    let text = format!(
        "[policy]\nmax_retries = 0\n[models.llm]\nkind = \"openai\"\nbase_url = \"{scheme}://models.invalid/v1\"\nmodel = \"m\"\nkey_env = \"MAINSTAY_CLI_KEY\"\n"
    );
    let folder = Folder::with("t.toml", &text);
    let mut command = command(&folder.0, &["run", "t.toml", "--json", "hello"]);
    for name in ["no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY", "http_proxy", "https_proxy"] {
        command.env_remove(name);
    }
    let proxy = proxy.replace("http://", &format!("http://desk:{PASSWORD}@"));
    command.env("HTTP_PROXY", &proxy).env("HTTPS_PROXY", &proxy);
    command.env("MAINSTAY_CLI_KEY", "sk-test-0123456789").stdin(Stdio::null());
    let said = tokio::task::spawn_blocking(move || said(command.output().unwrap())).await.unwrap();
    assert_eq!(said.code, 1, "{said:?}");
    let error = serde_json::from_str::<Value>(&said.out).unwrap()["error"].take();
    (error, said.out + &said.err)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_proxy_refuses_is_told_for_what_it_is_and_without_its_password() {
    let quoted = format!("no {PASSWORD}, no hunter@two, no {BASIC}");
    for (scheme, status, class, code) in [
        ("https", Some(407), "permission", "proxy_auth"),
        ("https", Some(403), "network", "proxy_refused"),
        ("http", Some(407), "permission", "407"),
        ("https", None, "network", "proxy_unreachable"),
        ("http", None, "network", "connection_refused"),
    ] {
        let server = StubServer::start().await.unwrap();
        let url = match status {
            Some(status) => {
                server.otherwise(Row::error(status, "", &quoted));
                server.url().trim_end_matches("/v1").to_owned()
            }
            None => "http://127.0.0.1:1".to_owned(),
        };
        let (error, all) = failed(scheme, &url).await;
        assert_eq!((&error["class"], &error["code"]), (&class.into(), &code.into()), "{all}");
        for secret in [PASSWORD, "hunter@two", BASIC, "sk-test-0123456789"] {
            assert!(!all.contains(secret), "{scheme} {status:?}: {all}");
        }
        if status.is_none() || scheme == "https" {
            assert!(all.contains("the proxy on the way to"), "{scheme} {status:?}: {all}");
        }
        for seen in server.requests() {
            assert_eq!(seen.header("proxy-authorization"), Some(&*format!("Basic {BASIC}")));
            // A proxy that makes a tunnel hears no key.
            assert_eq!(seen.header("authorization").is_none(), seen.method == "CONNECT");
        }
        assert_eq!(server.count(), usize::from(status.is_some()));
    }
}
