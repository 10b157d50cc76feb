//! What a tree file says of acts on the world: what undoes them, and what tells whether they happened.

use mainstay_actors::stub_server::{Row, StubServer};

use super::harness::{Folder, Said, command, shop};
use super::models::run;

/// An agent with the reservations of the shop's server, in a transaction.
pub(crate) fn tree(server: &StubServer, acts: &str) -> Folder {
    let text = format!(
        r#"[supervisor]
scope = "transaction"
[store]
path = "state"
[policy]
max_retries = 0
[models.llm]
kind = "openai"
base_url = "{}"
model = "m"
[tools.box]
command = ["{}", "--log", "log"]
timeout = "1s"
[tools.box.effects]
release = "idempotent"
reserved = "read"
{acts}
[agents.a]
model = "llm"
tools = ["box.reserve"]
"#,
        server.url(),
        shop().display(),
    );
    Folder::with("t.toml", &text)
}

/// What the server did, in its order.
fn done(folder: &Folder) -> Vec<String> {
    let log = std::fs::read_to_string(folder.0.join("log")).unwrap();
    let of_seats = |line: &&str| {
        ["reserve ", "release ", "reserved "].iter().any(|name| line.starts_with(name))
    };
    log.lines().filter(of_seats).map(str::to_owned).collect()
}

/// What the model was told of its call.
fn told(server: &StubServer) -> String {
    let seen = server.requests().pop().unwrap().json();
    seen["messages"].as_array().unwrap().last().unwrap()["content"].to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_question_has_done_is_undone_when_it_fails() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::tool_calls([("reserve", "{\"seat\":\"A7\",\"guests\":[2]}")]));
    server.otherwise(Row::error(401, "invalid_api_key", "no"));
    let undo = r#"reserve = { kind = "compensable", undo = { tool = "box.release", arguments = { seat = "{seat}", why = "not {seat} for {guests.0}" } } }"#;
    let folder = tree(&server, undo);
    let said = run(&folder, &["run", "t.toml", "hello"]).await;
    assert_eq!((said.code, &*said.out), (1, ""), "{said:?}");
    let undone = r#"release {"seat":"A7","why":"not A7 for 2"}: free"#;
    let reserved = r#"reserve {"guests":[2],"seat":"A7"}: taken"#;
    assert_eq!(done(&folder), [reserved, undone], "{said:?}");
    assert!(!said.err.contains("done all the same"), "{said:?}");
    let told = said.err.lines().find(|line| line.starts_with("mainstay: done, and undone again: "));
    assert!(told.is_some_and(|line| line.ends_with(" t/box/reserve")), "{said:?}");
    let page = run(&folder, &["check", "t.toml"]).await.out;
    assert!(page.contains("  box.reserve  undone by box.release\n"), "{page}");
    // Without arguments of its own, the undo has those of the call.
    let same =
        "[tools.box.effects.reserve]\nkind = \"compensable\"\nundo = { tool = \"box.release\" }\n";
    let folder = tree(&server, same);
    server.then(Row::tool_calls([("reserve", "{\"seat\":\"B1\"}")]));
    let said = run(&folder, &["run", "t.toml", "hello", "--json"]).await;
    let last = done(&folder).pop();
    assert_eq!(last.as_deref(), Some(r#"release {"seat":"B1"}: free"#), "{said:?}");
    let body: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let act = &body["error"]["undone"][0];
    assert_eq!((&act["tool"], &act["owner"]), (&"t/box/reserve".into(), &"t/a".into()), "{body}");
    assert!(body["error"].get("done").is_none(), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_called_whoever_reads_it_where_what_was_done_cannot_be_undone() {
    for json in [&[][..], &["--json"]] {
        let server = StubServer::start().await.unwrap();
        server.then(Row::tool_calls([("reserve", "{\"seat\":\"A7\"}")]));
        server.otherwise(Row::error(401, "invalid_api_key", "no"));
        let folder = tree(&server, "");
        let said = run(&folder, &[&["run", "t.toml", "hello"], json].concat()).await;
        assert_eq!(said.code, 1, "{said:?}");
        let called = "mainstay: alert: a person has to settle what t/a did: t/box/reserve has no undo that helps for ";
        let left = "mainstay: not settled, `mainstay store` shows how: ";
        assert!(said.err.contains(called) && said.err.contains(left), "{said:?}");
        if !json.is_empty() {
            let body: serde_json::Value = serde_json::from_str(&said.out).unwrap();
            let effect = &body["unsettled"][0];
            assert_eq!(
                (&effect["tool"], &effect["owner"]),
                (&"t/box/reserve".into(), &"t/a".into())
            );
            let key = effect["key"].as_str().unwrap();
            let mut settle = command(&folder.0, &["store", "t.toml", "settle", key, "stands"]);
            let said = super::harness::said(settle.env("USER", "ben").output().unwrap());
            assert_eq!(said.code, 0, "{said:?}");
            let said = run(&folder, &["store", "t.toml", "--json"]).await;
            let body: serde_json::Value = serde_json::from_str(&said.out).unwrap();
            assert_eq!(body["settled"][0]["said"]["by"], "ben", "{said:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_answer_is_lost_is_asked_about_and_the_answer_is_its_result() {
    async fn ask(lose: &str, reads: &str) -> (Said, String, Vec<String>) {
        let server = StubServer::start().await.unwrap();
        let arguments = format!("{{\"seat\":\"A7\",\"lose\":\"{lose}\"}}");
        server.then(Row::tool_calls([("reserve", &*arguments)]));
        server.then(Row::reply("done"));
        let verify = format!(
            "reserve = {{ kind = \"verifiable\", verify = {{ tool = \"box.reserved\", arguments = {{ seat = \"{{seat}}\" }}, {reads} }} }}"
        );
        let folder = tree(&server, &verify);
        let said = run(&folder, &["run", "t.toml", "hello"]).await;
        let page = run(&folder, &["check", "t.toml"]).await.out;
        assert!(page.contains("  box.reserve  where unknown, box.reserved tells\n"), "{page}");
        (said, told(&server), done(&folder))
    }
    let at = "at = \"state\", happened = [\"taken\"], not_happened = [\"free\"]";
    let (said, told, seen) = ask("after", at).await;
    assert_eq!((said.code, &*said.out), (0, "done\n"), "{said:?}");
    assert_eq!(told, r#""{\"seat\":\"A7\",\"state\":\"taken\"}""#);
    assert_eq!(seen[1..], [r#"reserved {"seat":"A7"}: taken"#]);
    // It did not: that is known, too.
    let (said, told, seen) = ask("before", at).await;
    assert_eq!((said.code, &*said.out), (0, "done\n"), "{said:?}");
    assert!(!told.contains("taken") && seen[1].ends_with(": free"), "{told} {seen:?}");
    // An answer of which the file says nothing tells nothing: a person has to find out.
    let (_, told, seen) = ask("after", "at = \"state\", happened = [\"paid\"]").await;
    assert!(seen.len() == 2 && told.contains("indeterminate"), "{told} {seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_undo_of_a_group_is_asked_whoever_has_served() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::tool_calls([("pay", "{\"order\":7}")]));
    server.then(Row::error(401, "invalid_api_key", "no"));
    server.then(Row::tool_calls([("look", "{\"order\":7}")]));
    server.then(Row::reply("seen"));
    let text = format!(
        r#"profile = "finance"
[store]
path = "state"
[policy]
max_retries = 0
[models.llm]
kind = "openai"
base_url = "{}"
model = "m"
[tools.look]
builtin = "query_order"
data = "orders.json"
[tools.till]
builtin = "refund"
data = "orders.json"
[tools.back]
builtin = "take_back"
data = "orders.json"
[groups.pay]
kind = "tool"
members = ["till"]
undo = {{ tool = "back" }}
[agents.a]
model = "llm"
tools = ["pay", "look"]
"#,
        server.url()
    );
    let folder = Folder::with("t.toml", &text);
    let orders = "[{\"order\": 7, \"status\": \"shipped\"}]";
    std::fs::write(folder.0.join("orders.json"), orders).unwrap();
    let page = run(&folder, &["check", "t.toml"]).await.out;
    assert!(page.contains("what pay did is undone; who asked is told"), "{page}");
    // It goes back to where the question began, with nothing paid, and does it again.
    let said = run(&folder, &["run", "t.toml", "pay"]).await;
    assert_eq!((said.code, &*said.out), (0, "seen\n"), "{said:?}");
    assert!(told(&server).contains("shipped"), "{} {said:?}", told(&server));
}

/// The same where nothing is undone, with an agent that may give the work to another one.
fn lasting(server: &StubServer, store: &str) -> Folder {
    let folder = tree(server, "");
    let text = std::fs::read_to_string(folder.0.join("t.toml")).unwrap();
    let text =
        text.replace("[supervisor]\nscope = \"transaction\"\n[store]\npath = \"state\"\n", store);
    let text = text.replace("[agents.a]\n", "[agents.a]\nagents = [\"s\"]\n");
    let sub = "[agents.s]\nmodel = \"llm\"\ntools = [\"box.reserve\"]\n";
    std::fs::write(folder.0.join("t.toml"), text + sub).unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_names_what_its_question_did_and_what_others_did_for_it() {
    for store in ["", "[store]\npath = \"state\"\n"] {
        for sub in [false, true] {
            let server = StubServer::start().await.unwrap();
            let folder = lasting(&server, store);
            let question = || {
                if sub {
                    server.then(Row::tool_calls([("s", "{\"task\":\"reserve it\"}")]));
                }
                server.then(Row::tool_calls([("reserve", "{\"seat\":\"A7\"}")]));
                if sub {
                    server.then(Row::reply("it is reserved"));
                }
                server.then(Row::error(401, "invalid_api_key", "no"));
            };
            question();
            // A long key does not stand in those of the tasks that are begun under it.
            let key = "k".repeat(if sub { 200 } else { 1 });
            let keyed = ["--key", &*key];
            let keyed = if store.is_empty() { &[][..] } else { &keyed[..] };
            let words = [&["run", "t.toml", "--json", "book"][..], keyed].concat();
            let said = run(&folder, &words).await;
            let told: serde_json::Value = serde_json::from_str(&said.out).unwrap();
            let all = told["error"]["done"].as_array().expect(&said.out);
            assert_eq!((said.code, all.len()), (1, 1), "{said:?}");
            let act = (&all[0]["tool"], &all[0]["status"]);
            assert_eq!(act, (&"t/box/reserve".into(), &"confirmed".into()), "{said:?}");
            let owner = if sub { "t/s/work/" } else { "t/a" };
            assert!(all[0]["owner"].as_str().unwrap().starts_with(owner), "{said:?}");
            let key = &all[0]["key"].as_str().unwrap()[..12];
            let line =
                format!("mainstay: done all the same, and not undone: {key} t/box/reserve\n");
            assert!(said.err.contains(&line), "{said:?}");
            if !store.is_empty() {
                // Who asks once more under the key, or for something else, hears it as well.
                let again = run(&folder, &words).await;
                let again: serde_json::Value = serde_json::from_str(&again.out).unwrap();
                assert_eq!(again["error"]["kind"], "asked_before");
                assert_eq!(again["error"]["done"], told["error"]["done"]);
                server.then(Row::reply("another"));
                let other = run(&folder, &["run", "t.toml", "--json", "hello"]).await;
                assert!(!other.out.contains("done") && other.err.is_empty(), "{other:?}");
            }
            question();
            let mut chat = command(&folder.0, &["run", "t.toml", "--chat"]);
            let chat = tokio::task::spawn_blocking(move || {
                use std::io::Write as _;
                let mut chat = chat.spawn().unwrap();
                chat.stdin.take().unwrap().write_all(b"book\n").unwrap();
                super::harness::said(chat.wait_with_output().unwrap())
            });
            let chat = chat.await.unwrap();
            let line = chat
                .err
                .lines()
                .find(|line| line.starts_with("  done all the same, and not undone: "));
            assert!(line.is_some_and(|line| line.ends_with(" t/box/reserve")), "{chat:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_question_of_before_did_is_named_with_what_became_of_it() {
    for json in [&[][..], &["--json"]] {
        let server = StubServer::start().await.unwrap();
        let folder = lasting(&server, "[store]\npath = \"state\"\n");
        server.then(Row::tool_calls([("reserve", "{\"seat\":\"A7\"}")]));
        server.then(Row::hang());
        let first = super::store::start(&folder, &["run", "t.toml", "book"]);
        server.asked(2).await;
        drop(first);
        server.then(Row::error(401, "invalid_api_key", "no"));
        server.then(Row::reply("another"));
        let said = run(&folder, &[&["run", "t.toml", "hello"], json].concat()).await;
        assert_eq!(said.code, 0, "{said:?}");
        let line = "mainstay: asked before: done all the same, and not undone: ";
        let line = said.err.lines().find(|it| it.starts_with(line));
        assert!(line.is_some_and(|line| line.ends_with(" t/box/reserve")), "{said:?}");
        if !json.is_empty() {
            let told: serde_json::Value = serde_json::from_str(&said.out).unwrap();
            assert_eq!(told["text"], "another", "{said:?}");
            let act = &told["before"][0]["error"]["done"][0];
            let act = (&act["tool"], &act["status"]);
            assert_eq!(act, (&"t/box/reserve".into(), &"confirmed".into()), "{said:?}");
        }
    }
}
