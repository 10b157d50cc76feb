//! Models of every wire in a tree file.

use mainstay_actors::stub_server::{Row, Seen, StubServer};
use serde_json::{Value, json};

use super::harness::{Folder, Said, command, refused, said};

/// Runs the command while a server of this test answers it.
pub(crate) async fn run(folder: &Folder, arguments: &[&str]) -> Said {
    let mut command = command(&folder.0, arguments);
    command.stdin(std::process::Stdio::null()).env("MAINSTAY_CLI_KEY", "sk-test");
    tokio::task::spawn_blocking(move || said(command.output().unwrap())).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_of_every_wire_is_asked_in_its_own_words() {
    let claude = json!({"content": [{"type": "text", "text": "hi"}], "stop_reason": "end_turn",
        "usage": {"input_tokens": 3, "output_tokens": 1}});
    let gemini =
        json!({"candidates": [{"content": {"parts": [{"text": "hi"}]}, "finishReason": "STOP"}]});
    let ollama = json!({"message": {"role": "assistant", "content": "hi"}, "done": true, "done_reason": "stop"});
    let responses = json!({"status": "completed", "output": [{"type": "message", "content":
        [{"type": "output_text", "text": "hi"}]}]});
    let rows: [(&str, Option<Value>, &str); 6] = [
        ("openai", None, "/v1/chat/completions"),
        ("responses", Some(responses), "/v1/responses"),
        ("anthropic", Some(claude), "/v1/messages"),
        ("gemini", Some(gemini), "/v1/models/m:generateContent"),
        ("ollama", None, "/v1/chat/completions"),
        ("ollama-native", Some(ollama), "/v1/api/chat"),
    ];
    for (kind, body, path) in rows {
        let server = StubServer::start().await.unwrap();
        server.otherwise(
            body.map_or_else(|| Row::reply("hi"), |body| Row::new(200, body.to_string())),
        );
        let text = format!(
            "[models.llm]\nkind = \"{kind}\"\nbase_url = \"{}\"\nmodel = \"m\"\nkey_env = \"MAINSTAY_CLI_KEY\"\n",
            server.url()
        );
        let folder = Folder::with("t.toml", &text);
        let said = run(&folder, &["run", "t.toml", "hello"]).await;
        assert_eq!((said.code, &*said.out), (0, "hi\n"), "{kind}: {said:?}");
        let seen = server.requests();
        assert_eq!(seen[0].path, path, "{kind}");
        let keyed = ["authorization", "x-api-key", "x-goog-api-key"]
            .iter()
            .any(|header| seen[0].header(header).is_some_and(|value| value.ends_with("sk-test")));
        assert!(keyed, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_certificates_reaches_what_needs_none_and_says_what_the_rest_needs() {
    let server = StubServer::start().await.unwrap();
    server.otherwise(Row::reply("hi"));
    let secure = server.url().replace("http://", "https://");
    // The second is not on this machine, so that `reqwest` is asked, which a proxy leads there.
    let rows = [
        (server.url(), None, 0, ""),
        ("http://models.invalid/v1", Some(server.url()), 0, ""),
        (&*secure, None, 1, "`ca-certificates`"),
    ];
    for (url, proxy, code, why) in rows {
        let text =
            format!("[models.llm]\nkind = \"openai\"\nbase_url = \"{url}\"\nmodel = \"m\"\n");
        let folder = Folder::with("t.toml", &text);
        let mut command = command(&folder.0, &["run", "t.toml", "hello"]);
        command.stdin(std::process::Stdio::null()).env("SSL_CERT_FILE", "/dev/null");
        command.env("SSL_CERT_DIR", folder.0.join("none")).envs(proxy.map(|to| ("HTTP_PROXY", to)));
        let said = tokio::task::spawn_blocking(move || said(command.output().unwrap()));
        let said = said.await.unwrap();
        assert_eq!(said.code, code, "{url}: {said:?}");
        assert!(said.err.contains(why), "{url}: {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prices_the_ask_section_and_the_format_reach_the_endpoint() {
    let server = StubServer::start().await.unwrap();
    server.otherwise(Row::reply("{\"a\":1}"));
    let text = format!(
        r#"[ask]
system = "be brief"
max_tokens = 77
temperature = 0.5
response_format = "schema"
schema = "answer.json"
[models.llm]
kind = "openai"
base_url = "{}"
model = "m"
price_per_million = {{ input = 1000000, output = 1000000 }}
"#,
        server.url()
    );
    let folder = Folder::with("t.toml", &text);
    std::fs::write(folder.0.join("answer.json"), r#"{"type":"object","title":"mine"}"#).unwrap();
    let said = run(&folder, &["run", "t.toml", "--json", "hello"]).await;
    let answer: Value = serde_json::from_str(&said.out).unwrap();
    let tokens = answer["tokens"].as_u64().unwrap();
    assert!(tokens > 0, "{answer}");
    assert_eq!(answer["money_micros"].as_u64(), Some(tokens * 1_000_000), "{answer}");
    let body = server.requests()[0].json();
    assert_eq!(body["messages"][0], json!({"role": "system", "content": "be brief"}));
    assert_eq!((&body["max_tokens"], &body["temperature"]), (&json!(77), &json!(0.5)), "{body}");
    assert!(body["response_format"].to_string().contains("mine"), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_under_a_budget_is_as_long_as_the_file_says_and_what_is_cut_off_is_no_answer() {
    let server = StubServer::start().await.unwrap();
    let cut = json!({"choices": [{"message": {"content": "it beg"}, "finish_reason": "length"}]});
    server.otherwise(Row::new(200, cut.to_string()));
    let text = format!(
        "[models.llm]\nkind = \"openai\"\nbase_url = \"{}\"\nmodel = \"m\"\nanswer_tokens = 77\n[agents.a]\nmodel = \"llm\"\nbudget = {{ tokens = 50000 }}\n",
        server.url()
    );
    let folder = Folder::with("t.toml", &text);
    let page = run(&folder, &["check", "t.toml"]).await.out;
    assert!(page.contains("  answers of 77 tokens where nobody says\n"), "{page}");
    let said = run(&folder, &["run", "t.toml", "hello"]).await;
    assert_eq!((said.code, &*said.out), (1, ""), "{said:?}");
    let why = "the answer was cut off at 77 tokens, what it gets where nobody says: set `max_tokens`, or raise the model's `answer_tokens`";
    assert!(said.err.contains(why), "{said:?}");
    assert_eq!(server.requests()[0].json()["max_tokens"], 77);
}

/// A completion of chat completions that ended so.
fn ended(content: &str, why: &str) -> Row {
    let choice = json!({"message": {"content": content}, "finish_reason": why});
    Row::new(200, json!({"choices": [choice]}).to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn code_that_cannot_be_used_is_generated_again_twice_with_what_is_wrong() {
    let tree = |profile: &str, server: &StubServer| {
        format!(
            "{profile}entry = \"writers\"\n[ask]\nmax_tokens = 40\n[models.large]\nkind = \"openai\"\nbase_url = \"{}\"\nmodel = \"m\"\n[models.template]\nkind = \"default\"\ntext = \"by hand\"\n[groups.writers]\nkind = \"model\"\nmembers = [\"large\", \"template\"]\n",
            server.url()
        )
    };
    let codegen = "profile = \"codegen\"\n";
    let ask = async |profile: &str, rows: &[(&str, &str)]| {
        let server = StubServer::start().await.unwrap();
        rows.iter().for_each(|(content, why)| server.then(ended(content, why)));
        server.otherwise(ended("fn b", "length"));
        let folder = Folder::with("t.toml", &tree(profile, &server));
        let said = run(&folder, &["run", "t.toml", "--json", "write it"]).await;
        let answer: Value = serde_json::from_str(&said.out).unwrap();
        let last = |request: &Seen| {
            let messages = request.json()["messages"].clone();
            messages.as_array().unwrap().last().unwrap()["content"].as_str().unwrap().to_owned()
        };
        (answer, server.requests().iter().map(last).collect::<Vec<_>>())
    };
    let (answer, told) =
        ask(codegen, &[("fn a", "length"), ("", "stop"), ("fn a() {}", "stop")]).await;
    assert_eq!(
        (&answer["text"], &answer["attempts"]),
        (&json!("fn a() {}"), &json!(3)),
        "{answer}"
    );
    assert_eq!((told.len(), &*told[0]), (3, "write it"));
    assert!(told[1].contains("cut off") && told[1].contains("40 tokens"), "{told:?}");
    assert!(told[2].contains("said nothing"), "{told:?}");
    // The same again is told in other words, and twice is all there is.
    let (answer, told) = ask(codegen, &[]).await;
    assert_eq!((&answer["text"], told.len()), (&json!("by hand"), 3), "{answer}");
    assert!(told[2].contains("cut off") && told[2] != told[1], "{told:?}");
    // Without the profile nobody has it generated again.
    let (answer, told) = ask("", &[]).await;
    assert_eq!((&answer["text"], told.len()), (&json!("by hand"), 1), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_no_json_is_asked_for_again_by_the_agent_or_by_the_endpoint_and_not_by_both()
 {
    let agent = "[agents.a]\nmodel = \"llm\"\nanswer_schema = \"answer.json\"\n";
    let ask = "[ask]\nresponse_format = \"schema\"\nschema = \"answer.json\"\n";
    for (whom, requests) in [(agent, 3), (ask, 3)] {
        let server = StubServer::start().await.unwrap();
        server.otherwise(Row::reply("no json"));
        let text = format!(
            "profile = \"codegen\"\n{whom}[models.llm]\nkind = \"openai\"\nbase_url = \"{}\"\nmodel = \"m\"\n",
            server.url()
        );
        let folder = Folder::with("t.toml", &text);
        let schema = r#"{"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": false}"#;
        std::fs::write(folder.0.join("answer.json"), schema).unwrap();
        let said = run(&folder, &["run", "t.toml", "hello"]).await;
        assert_eq!((said.code, server.count()), (1, requests), "{whom}: {said:?}");
        assert!(server.requests()[1].json().to_string().contains("JSON"), "{whom}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_may_cost_more_than_the_price_cap_of_the_file_is_not_sent() {
    let server = StubServer::start().await.unwrap();
    server.otherwise(Row::reply("hi"));
    for (cap, code, asked) in [("0.0001", 1, 0), ("0.5", 0, 1)] {
        let text = format!(
            "[ask]\nmax_tokens = 100\n[models.llm]\nkind = \"openai\"\nbase_url = \"{}\"\nmodel = \"m\"\nprice_per_million = {{ input = 1.0, output = 2.0 }}\nprice_cap = {cap}\n",
            server.url()
        );
        let folder = Folder::with("t.toml", &text);
        let page = run(&folder, &["check", "t.toml"]).await.out;
        assert!(page.contains(&format!("  at most {cap} a request\n")), "{page}");
        let said = run(&folder, &["run", "t.toml", "--progress", "hello"]).await;
        assert_eq!((said.code, server.count()), (code, asked), "{said:?}");
        assert_eq!(said.err.contains("(price_cap)"), code == 1, "{said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn how_an_endpoint_wants_to_be_asked_is_said_in_the_file() {
    let server = StubServer::start().await.unwrap();
    server.otherwise(Row::reply("{}"));
    let text = format!(
        r#"[ask]
max_tokens = 77
response_format = "json"
[models.llm]
kind = "openai"
base_url = "{}"
model = "m"
context_window = 300
token_limit = "max_completion_tokens"
structured_output = false
headers = {{ x-team = "desk" }}
headers_env = {{ x-api-token = "MAINSTAY_CLI_KEY" }}
"#,
        server.url()
    );
    let folder = Folder::with("t.toml", &text);
    let page = run(&folder, &["check", "t.toml"]).await;
    assert!(page.out.contains("  a window of 300 tokens\n"), "{page:?}");
    let said = run(&folder, &["run", "t.toml", "hello"]).await;
    assert_eq!((said.code, &*said.out), (0, "{}\n"), "{said:?}");
    let sent = server.requests().pop().unwrap();
    assert_eq!(
        (sent.header("x-team"), sent.header("x-api-token")),
        (Some("desk"), Some("sk-test"))
    );
    let body = sent.json();
    assert_eq!((&body["max_completion_tokens"], &body["max_tokens"]), (&json!(77), &Value::Null));
    assert!(body.get("response_format").is_none(), "{body}");
    let said = run(&folder, &["run", "t.toml", "--progress", &"x".repeat(3000)]).await;
    assert!(said.code == 1 && said.err.contains("(context_window)"), "{said:?}");
    assert_eq!(server.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_tools_gets_the_headers_that_the_file_says() {
    use std::io::BufRead as _;
    let mut shop = std::process::Command::new(super::harness::shop())
        .args(["--http", "--wants", "x-shop-token: sk-test"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut place = String::new();
    std::io::BufReader::new(shop.stdout.take().unwrap()).read_line(&mut place).unwrap();
    let server = StubServer::start().await.unwrap();
    server.then(Row::tool_calls([("sum", r#"{"a":2,"b":3}"#)]));
    server.then(Row::reply("five"));
    let tree = |more: &str| {
        let (url, place) = (server.url(), place.trim());
        let model =
            format!("[models.llm]\nkind = \"openai\"\nbase_url = \"{url}\"\nmodel = \"m\"\n");
        let agent = "[agents.a]\nmodel = \"llm\"\ntools = [\"shop\"]\n";
        let shop =
            format!("[tools.shop]\nurl = \"http://{place}/mcp\"\n{more}\neffects.sum = \"read\"\n");
        Folder::with("t.toml", &format!("{model}{agent}{shop}"))
    };
    let refused = run(&tree(""), &["run", "t.toml", "hello"]).await;
    assert!(refused.code != 0 && refused.err.contains("status 401"), "{refused:?}");
    let headers =
        "headers = { x-team = \"desk\" }\nheaders_env = { x-shop-token = \"MAINSTAY_CLI_KEY\" }";
    let folder = tree(headers);
    let said = run(&folder, &["run", "t.toml", "hello"]).await;
    assert_eq!((said.code, &*said.out), (0, "five\n"), "{said:?}");
    let result = server.requests().pop().unwrap().json()["messages"].to_string();
    assert!(result.contains("sum") && result.contains('5'), "{result}");
    for arguments in
        [&["check", "t.toml"][..], &["tree", "t.toml"], &["run", "t.toml", "--json", "x"]]
    {
        let said = run(&folder, arguments).await;
        assert!(!said.out.contains("sk-test") && !said.err.contains("sk-test"), "{said:?}");
    }
    // What no header can have is for whoever calls to change, wherever it comes from.
    let mut odd = super::harness::command(&folder.0, &["run", "t.toml", "--json", "x"]);
    odd.env("MAINSTAY_CLI_KEY", "two\nlines");
    let said = super::harness::said(odd.output().unwrap());
    assert!(said.code == 2 && said.out.contains("\"kind\":\"file\""), "{said:?}");
    let told = "MAINSTAY_CLI_KEY has what no header can have";
    assert!(said.err.contains(told) && !said.err.contains("lines"), "{said:?}");
    shop.kill().unwrap();
    shop.wait().unwrap();
}

#[test]
fn headers_that_cannot_be_sent_and_secrets_of_the_file_are_pointed_at() {
    let model = |more: &str| {
        format!(
            "[models.m]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:9/v1\"\nmodel = \"m\"\n{more}\n"
        )
    };
    for (more, message) in [
        (
            "headers = { X-Api-Key = \"sk-0123456789-secret\" }",
            "the header `X-Api-Key` has its secret in the file",
        ),
        ("headers = { host = \"x\" }", "the header \"host\" is set by HTTP itself"),
        ("headers = { \"a b\" = \"x\" }", "the header \"a b\" has a name that none can have"),
        ("headers = { x-a = \"a\\nb\" }", "a value that no header can have"),
        ("headers_env = { x-a = \"MAINSTAY_NONE\" }", "the environment variable MAINSTAY_NONE is"),
        (
            "headers = { x-a = \"b\" }\nheaders_env = { X-A = \"PATH\" }",
            "the header `X-A` has two values",
        ),
        ("headers = { x-b = \"1\", X-B = \"2\" }", "the header `X-B` has two values"),
        ("headers_env = { X-C = \"PATH\", x-c = \"PATH\" }", "the header `x-c` has two values"),
    ] {
        let said = Folder::with("t.toml", &model(more)).run(&["check", "t.toml"], "");
        assert_eq!(said.code, 2, "{said:?}");
        assert!(said.err.contains(&format!("error: {message}")), "{more}\n{}", said.err);
        assert!(said.err.contains("--> t.toml:") && !said.err.contains("0123"), "{}", said.err);
    }
    // Those of a server of tools are, too.
    for (more, message) in [
        (
            "url = \"http://h/mcp\"\nheaders = { X-Token = \"sk-0123456789\" }",
            "the header `X-Token` has its secret in the file",
        ),
        (
            "url = \"http://h/mcp\"\nheaders = { accept = \"x\" }",
            "the header \"accept\" is set by the protocol itself",
        ),
        (
            "url = \"http://h/mcp\"\nheaders_env = { x-a = \"MAINSTAY_NONE\" }",
            "the environment variable MAINSTAY_NONE is",
        ),
        (
            "url = \"http://h/mcp\"\nbearer_env = \"PATH\"\nheaders_env = { Authorization = \"PATH\" }",
            "a bearer token beside the header `authorization`",
        ),
        (
            "url = \"http://h/mcp\"\nheaders = { x-b = \"1\", X-B = \"2\" }",
            "the header `X-B` has two values",
        ),
        ("command = [\"x\"]\nheaders = { x-a = \"b\" }", "`headers` without a `url`"),
        ("command = [\"x\"]\nheaders_env = { x-a = \"PATH\" }", "`headers_env` without a `url`"),
    ] {
        let text =
            format!("[models.m]\nkind = \"local\"\n[agents.a]\nmodel = \"m\"\n[tools.t]\n{more}\n");
        let said = Folder::with("t.toml", &text).run(&["check", "t.toml"], "");
        assert_eq!(said.code, 2, "{said:?}");
        assert!(said.err.contains(&format!("error: {message}")), "{more}\n{}", said.err);
        assert!(said.err.contains("--> t.toml:") && !said.err.contains("0123"), "{}", said.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limits_of_a_quota_domain_hold_for_all_that_are_paid_from_it() {
    let server = StubServer::start().await.unwrap();
    server.otherwise(Row::error(500, "server_error", "no"));
    let text = format!(
        r#"[policy]
max_retries = 0
[models.one]
kind = "openai"
base_url = "{0}"
model = "m"
quota_domain = "d"
limits = {{ requests_per_minute = 1, max_wait = "1ms" }}
[models.two]
kind = "openai"
base_url = "{0}"
model = "m"
quota_domain = "d"
[groups.llm]
kind = "model"
members = ["one", "two"]
"#,
        server.url()
    );
    let folder = Folder::with("t.toml", &text);
    let said = run(&folder, &["run", "t.toml", "--progress", "hello"]).await;
    assert_eq!(said.code, 1, "{said:?}");
    // The second is not asked: the one request of this minute was the first one's.
    assert!(said.err.contains("t/llm/two: attempt 2 failed: rate_limit (local_limit)"), "{said:?}");
    assert_eq!(server.count(), 1);
    let page = run(&folder, &["check", "t.toml"]).await.out;
    let limited = page.lines().filter(|line| line.contains("1 requests a minute")).count();
    assert_eq!(limited, 2, "{page}");
}

#[test]
fn what_does_not_fit_a_model_is_pointed_at() {
    refused(
        r#"[models.a]
kind = "anthropic"
base_url = "api.anthropic.com"
model = "m"
price_per_million = { input = -1, output = 2 }

[models.b]
kind = "local"
limits = { concurrent = 2 }

[models.c]
kind = "gemini"
model = "m"

[agents.h]
model = "a"
"#,
        r#"error: the base URL is not an http(s) URL
 --> t.toml:3:12
  |
3 | base_url = "api.anthropic.com"
  |            ^^^^^^^^^^^^^^^^^^^ no URL
  |
  = help: write one such as "https://api.anthropic.com/v1"

error: a price that is none
 --> t.toml:5:21
  |
5 | price_per_million = { input = -1, output = 2 }
  |                     ^^^^^^^^^^^^^^^^^^^^^^^^^^ 0 or more
  |
  = help: what a million tokens cost: { input = 2.5, output = 10.0 }

error: a `local` model has no `limits`
 --> t.toml:9:10
  |
9 | limits = { concurrent = 2 }
  |          ^^^^^^^^^^^^^^^^^^ does not fit the kind
  |
  = help: remove it, or write `kind = "openai"` for an endpoint

error: the model `c` has no `base_url`
  --> t.toml:11:9
   |
11 | [models.c]
   |         ^ its kind is `gemini`
   |
   = help: add a line such as `base_url = "https://generativelanguage.googleapis.com/v1beta"`
"#,
    );
}

#[test]
fn what_does_not_go_together_is_refused() {
    let agent = "[models.m]\nkind = \"local\"\n[agents.a]\nmodel = \"m\"\n";
    let model = "[models.m]\nkind = \"local\"\n";
    let remote = |name: &str| {
        format!(
            "[models.{name}]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:9/v1\"\nmodel = \"m\"\nquota_domain = \"d\"\nlimits = {{ concurrent = 1 }}\n"
        )
    };
    let twice = format!("{}{}[agents.a]\nmodel = \"b\"\n", remote("b"), remote("c"));
    let rows = [
        (format!("[ask]\nsystem = \"s\"\n{agent}"), "[ask] in a tree whose agents are asked"),
        (format!("[ask]\nschema = \"s\"\n{model}"), "a schema that is not asked for"),
        (format!("[ask]\nresponse_format = \"schema\"\n{model}"), "a format without its schema"),
        (format!("[ask]\nresponse_format = \"json\"\n{model}"), "`m` does not answer in JSON"),
        (
            format!("[ask]\nresponse_format = \"schema\"\nschema = \"none\"\n{model}"),
            "the schema cannot be read",
        ),
        (
            format!(
                "[store]\npath = \"s\"\n{model}[groups.g]\nkind = \"model\"\nmembers = [\"m\"]\ndurable = false\n"
            ),
            "a store, and nothing to keep",
        ),
        (
            format!("[store]\npath = \"s\"\ndurability = \"memory\"\n{agent}"),
            "a path for what stays in memory",
        ),
        (twice, "the limits of the quota domain `d` are stated by `b` already"),
        (
            remote("b").replace("concurrent = 1", "concurrent = 0"),
            "a limit that lets nothing through",
        ),
        (remote("b").replace("concurrent = 1", "max_wait = \"1s\""), "limits that limit nothing"),
        (format!("{model}concurrency = 0\n"), "a model that takes no request"),
        (
            format!("{model}context_window = 9\n"),
            "the window of `m`, which is compared with nobody's",
        ),
        (format!("{model}token_limit = \"max_tokens\"\n"), "a `local` model has no `token_limit`"),
        (format!("{model}price_cap = -0.5\n"), "a price cap that is none"),
        (format!("{}price_cap = 0.5\n", remote("b")), "a price cap of a model without prices"),
    ];
    for (text, message) in rows {
        let said = Folder::with("t.toml", &text).run(&["check", "t.toml"], "");
        assert_eq!(said.code, 2, "{text}\n{said:?}");
        assert!(said.err.contains(&format!("error: {message}")), "{text}\n{}", said.err);
        assert!(said.err.contains("--> t.toml:"), "{text}\n{}", said.err);
    }
}

#[test]
fn a_capability_of_each_kind_needs_a_grant_when_it_is_weaker() {
    for (primary, other, what) in [
        ("price_cap = 0.5", "price_cap = 0.6", "a higher price cap"),
        ("", "tool_rights = [\"pay\"]", "more tool rights"),
        ("residency = \"eu\"", "residency = \"us\"", "another residency"),
    ] {
        let text = format!(
            "[models.a]\nkind = \"local\"\n{primary}\n[models.b]\nkind = \"local\"\n{other}\n[groups.g]\nkind = \"model\"\nmembers = [\"a\", \"b\"]\n"
        );
        let said = Folder::with("t.toml", &text).run(&["check", "t.toml"], "");
        assert!(said.err.contains(&format!("`b` may not stand in for `a`: {what}")), "{said:?}");
    }
    // What costs nothing keeps every cap.
    let text = "[models.a]\nkind = \"local\"\nprice_cap = 0.5\n[models.b]\nkind = \"default\"\ntext = \"t\"\n[groups.g]\nkind = \"model\"\nmembers = [\"a\", \"b\"]\n";
    assert_eq!(Folder::with("t.toml", text).run(&["check", "t.toml"], "").code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_is_told_when_whoever_could_serve_is_back() {
    let server = StubServer::start().await.unwrap();
    server.otherwise(Row::error(429, "rate_limit_exceeded", "slower").header("retry-after", "90"));
    let model = format!(
        "[policy]\nmax_retries = 0\n[models.llm]\nkind = \"openai\"\nbase_url = \"{}\"\nmodel = \"m\"\n",
        server.url()
    );
    for asked in ["", "[agents.a]\nmodel = \"llm\"\n"] {
        let folder = Folder::with("t.toml", &format!("{model}{asked}"));
        let said = run(&folder, &["run", "t.toml", "--json", "hello"]).await;
        let error = serde_json::from_str::<Value>(&said.out).unwrap()["error"].take();
        assert_eq!((said.code, &error["kind"]), (1, &"recovery_exhausted".into()), "{said:?}");
        let wait = error["retry_after"].as_f64().unwrap();
        assert!((80.0..=90.0).contains(&wait), "{error}");
    }
    // Nobody comes back by himself: there is nothing to wait for.
    server.otherwise(Row::error(401, "invalid_api_key", "no"));
    let said = run(&Folder::with("t.toml", &model), &["run", "t.toml", "--json", "hello"]).await;
    let error = serde_json::from_str::<Value>(&said.out).unwrap()["error"].take();
    assert_eq!((&error["class"], error.get("retry_after")), (&"permission".into(), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_reads_an_answer_line_by_line_while_it_is_written() {
    let server = StubServer::start().await.unwrap();
    let model = format!(
        "[policy]\nmax_retries = 0\n[models.llm]\nkind = \"openai\"\nbase_url = \"{}\"\nmodel = \"m\"\n",
        server.url()
    );
    let folder = Folder::with("t.toml", &model);
    let lines = |said: &Said| -> Vec<Value> {
        said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    server.then(Row::reply_stream(["hel", "lo"]));
    let said = run(&folder, &["run", "t.toml", "--json", "--stream", "hello"]).await;
    let all = lines(&said);
    assert_eq!((said.code, &*said.err), (0, ""));
    assert_eq!(all[0], json!({"event": "text", "text": "hel"}), "{said:?}");
    assert_eq!(all[1], json!({"event": "text", "text": "lo"}));
    let last = all.last().unwrap();
    assert_eq!((&last["event"], &last["text"]), (&json!("answer"), &json!("hello")));
    assert_eq!(last["served_by"], "t/llm");
    // Alone, it is the answer and nothing else.
    server.then(Row::reply("hello"));
    let said = run(&folder, &["run", "t.toml", "--json", "hello"]).await;
    assert_eq!((lines(&said).len(), lines(&said)[0].get("event")), (1, None));
    server.then(Row::error(401, "invalid_api_key", "no"));
    for (file, kind) in [("t.toml", "recovery_exhausted"), ("none.toml", "not_asked")] {
        let arguments = ["run", file, "--json", "--stream", "hello"];
        let last = lines(&run(&folder, &arguments).await).pop().unwrap();
        assert_eq!((&last["event"], &last["error"]["kind"]), (&json!("error"), &json!(kind)));
    }
    // What an agent's model calls is said, too, and voids what was written before it.
    let folder = Folder::with(
        "t.toml",
        &format!(
            "{model}[tools.write]\nbuiltin = \"default\"\ntext = \"written\"\n[agents.a]\nmodel = \"llm\"\ntools = [\"write\"]\n"
        ),
    );
    server.then(Row::tool_calls([("write", "{}")]));
    server.then(Row::reply_stream(["done"]));
    let said = run(&folder, &["run", "t.toml", "--json", "--stream", "go"]).await;
    let call = json!({"event": "tool_call", "name": "write", "arguments": "{}"});
    assert!(lines(&said).contains(&call), "{said:?}");
}
