//! Proxies of the environment: what they refuse is told for what it is, and their passwords are told to nobody.

use std::process::{Command, Stdio};

use mainstay_actors::stub_server::{Row, StubServer};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

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
    without_proxies(&mut command);
    let proxy = proxy.replace("http://", &format!("http://desk:{PASSWORD}@"));
    command.env("HTTP_PROXY", &proxy).env("HTTPS_PROXY", &proxy);
    command.env("MAINSTAY_CLI_KEY", "sk-test-0123456789").stdin(Stdio::null());
    let said = tokio::task::spawn_blocking(move || said(command.output().unwrap())).await.unwrap();
    assert_eq!(said.code, 1, "{said:?}");
    let error = serde_json::from_str::<Value>(&said.out).unwrap()["error"].take();
    (error, said.out + &said.err)
}

fn without_proxies(command: &mut Command) {
    for name in ["no_proxy", "all_proxy", "http_proxy", "https_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
}

/// Takes one connection as SOCKS 5 has it, leads it to `to`, and says which name was asked for.
async fn socks(listener: TcpListener, to: String) -> String {
    let (mut client, _) = listener.accept().await.unwrap();
    let (version, methods) = (client.read_u8().await.unwrap(), client.read_u8().await.unwrap());
    let mut offered = vec![0; usize::from(methods)];
    client.read_exact(&mut offered).await.unwrap();
    assert_eq!((version, offered.contains(&0)), (5, true));
    client.write_all(&[5, 0]).await.unwrap();
    let mut asked = [0; 5];
    client.read_exact(&mut asked).await.unwrap();
    // A connection to a name.
    assert_eq!(asked[..4], [5, 1, 0, 3]);
    let mut name = vec![0; usize::from(asked[4])];
    client.read_exact(&mut name).await.unwrap();
    client.read_u16().await.unwrap();
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
    let mut server = TcpStream::connect(to).await.unwrap();
    let _ = copy_bidirectional(&mut client, &mut server).await;
    String::from_utf8(name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_reached_through_a_socks_proxy_of_the_environment() {
    let server = StubServer::start().await.unwrap();
    server.otherwise(Row::reply("hi"));
    let text = "[policy]\nmax_retries = 0\n[models.llm]\nkind = \"openai\"\nbase_url = \"http://models.invalid/v1\"\nmodel = \"m\"\n";
    let folder = Folder::with("t.toml", text);
    let ask = |port: u16| {
        let mut command = command(&folder.0, &["run", "t.toml", "hello"]);
        without_proxies(&mut command);
        command.env("ALL_PROXY", format!("socks5h://127.0.0.1:{port}")).stdin(Stdio::null());
        tokio::task::spawn_blocking(move || said(command.output().unwrap()))
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let to = server.url().trim_start_matches("http://").trim_end_matches("/v1").to_owned();
    let proxy = tokio::spawn(socks(listener, to));
    let said = ask(port).await.unwrap();
    assert_eq!((said.code, &*said.out), (0, "hi\n"), "{said:?}");
    assert_eq!(proxy.await.unwrap(), "models.invalid");
    let said = ask(1).await.unwrap();
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.err.contains("the proxy on the way to models.invalid was not reached"),
        "{said:?}"
    );
}

/// Wants a login and takes none.
async fn refuses(listener: TcpListener) {
    let (mut client, _) = listener.accept().await.unwrap();
    let mut head = [0; 2];
    client.read_exact(&mut head).await.unwrap();
    client.read_exact(&mut vec![0; usize::from(head[1])]).await.unwrap();
    client.write_all(&[5, 2]).await.unwrap();
    client.read_u8().await.unwrap();
    for _ in 0..2 {
        let length = client.read_u8().await.unwrap();
        client.read_exact(&mut vec![0; usize::from(length)]).await.unwrap();
    }
    client.write_all(&[1, 1]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_a_socks_proxy_does_not_take_is_no_failure_of_the_network() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let proxy = tokio::spawn(refuses(listener));
    let (error, all) = failed("http", &format!("socks5h://desk:{PASSWORD}@127.0.0.1:{port}")).await;
    proxy.await.unwrap();
    assert_eq!(
        (&error["class"], &error["code"]),
        (&"permission".into(), &"proxy_auth".into()),
        "{all}"
    );
    assert!(!all.contains(PASSWORD) && !all.contains("hunter@two"), "{all}");
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
