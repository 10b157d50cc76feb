//! Whoever stands in for whom: servers' tools, searches, people, texts, simpler agents, and agents that
//! start others.

use std::io::Write;
use std::time::Duration;

use mainstay_actors::stub_server::{Row, StubServer};
use serde_json::{Value, json};

use super::harness::{Folder, Said, command, said, shop};
use super::models::run;

/// A tree whose model is the stub server; the rest is the test's.
fn tree(server: &StubServer, rest: &str) -> Folder {
    let text = format!(
        "[policy]\nmax_retries = 0\n[models.llm]\nkind = \"openai\"\nbase_url = \"{}\"\nmodel = \"m\"\n{rest}",
        server.url()
    );
    Folder::with("t.toml", &text)
}

/// What the model is told about a tool's result, in the request of this number.
fn result(server: &StubServer, request: usize) -> String {
    let messages = server.requests()[request].json()["messages"].clone();
    let last = messages.as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["role"], "tool", "{messages}");
    last["content"].as_str().unwrap().to_owned()
}

/// The names and parameters of the tools that a request offers.
fn offered(server: &StubServer, request: usize) -> Vec<Value> {
    let body = server.requests()[request].json();
    body["tools"].as_array().unwrap().iter().map(|tool| tool["function"].clone()).collect()
}

#[track_caller]
fn answered(said: &Said, text: &str) {
    assert_eq!((said.code, said.out.trim_end()), (0, text), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_of_one_server_stands_in_for_that_of_another_and_a_person_comes_last() {
    let server = StubServer::start().await.unwrap();
    let rest = |code: i32| {
        format!(
            r#"[tools.one]
command = ["{0}"]
[tools.one.effects]
protocol_error = "read"
[tools.two]
command = ["{0}"]
[tools.two.effects]
sum = "read"
[tools.local]
builtin = "default"
text = "42"
[people.manual_override]
expiry = "1h"
[groups.add]
kind = "tool"
members = [{1}]
[agents.a]
model = "llm"
tools = ["add"]
"#,
            shop().display(),
            match code {
                1 => "\"one.protocol_error\", \"two.sum\"",
                2 => "\"one.protocol_error\", \"local\"",
                _ => "\"one.protocol_error\", \"manual_override\"",
            }
        )
    };
    for (kind, code, content) in
        [(1, -32601, "{\"sum\":5}"), (1, -32002, "{\"sum\":5}"), (2, -32601, "42")]
    {
        let before = server.count();
        let arguments = format!("{{\"code\":{code},\"a\":2,\"b\":3}}");
        server.then(Row::tool_calls([("add", &*arguments)]));
        server.then(Row::reply("five"));
        let folder = tree(&server, &rest(kind));
        answered(&run(&folder, &["run", "t.toml", "2 and 3"]).await, "five");
        assert_eq!(result(&server, before + 1), content, "{code}");
        assert_eq!(offered(&server, before)[0]["name"], "add");
        assert_eq!(offered(&server, before)[0]["description"], "does protocol_error");
    }
    // Wrong arguments are wrong for whoever is asked.
    let before = server.count();
    server.then(Row::tool_calls([("add", "{\"code\":-32602}")]));
    server.then(Row::reply("no"));
    answered(&run(&tree(&server, &rest(1)), &["run", "t.toml", "2 and 3"]).await, "no");
    assert!(!result(&server, before + 1).contains("sum"));
    // And a person, in a conversation.
    let before = server.count();
    server.then(Row::tool_calls([("add", "{\"code\":-32601}")]));
    server.then(Row::reply("by hand"));
    let folder = tree(&server, &rest(3));
    let said = tokio::task::spawn_blocking(move || {
        folder.run(&["run", "t.toml", "--chat"], "2 and 3\nwhat?\n/answer manual_override-1 7\n")
    });
    let said = said.await.unwrap();
    assert_eq!(result(&server, before + 1), "7", "{said:?}");
    assert!(said.out.contains("first, somebody waits for a person; "), "{said:?}");
    assert!(said.out.contains("decided: manual_override-1\nby hand\nok\n"), "{said:?}");
    assert!(said.err.contains("> what?\n"), "{said:?}");
    assert!(said.err.contains("manual_override-1 waits for a person: add {\"code\":-32601}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_start_is_done_without_and_comes_later() {
    let server = StubServer::start().await.unwrap();
    let rest = |tools: &str| {
        format!(
            "[tools.bank]\ncommand = [\"./bank\"]\n[tools.bank.effects]\nsum = \"read\"\n[tools.cash]\nbuiltin = \"default\"\ntext = \"7\"\n[groups.add]\nkind = \"tool\"\nmembers = [\"bank.sum\", \"cash\"]\n[agents.a]\nmodel = \"llm\"\ntools = [{tools}]\n"
        )
    };
    let folder = tree(&server, &rest("\"add\""));
    server.then(Row::tool_calls([("add", "{\"a\":1,\"b\":1}")]));
    server.then(Row::reply("seven"));
    let mut chat = command(&folder.0, &["run", "t.toml", "--chat"]).spawn().unwrap();
    let mut input = chat.stdin.take().unwrap();
    input.write_all(b"add\n").unwrap();
    server.asked(2).await;
    assert_eq!(result(&server, 1), "7");
    assert_eq!(offered(&server, 0)[0]["description"], "Says what it always says.");
    // The program is there from now on, and is tried again until it starts.
    std::os::unix::fs::symlink(shop(), folder.0.join("bank")).unwrap();
    let mut asked = 2;
    while result(&server, asked - 1) != "{\"sum\":2}" {
        assert!(asked < 400, "the server never came");
        server.then(Row::tool_calls([("add", "{\"a\":1,\"b\":1}")]));
        // The pace of the questions: the circuit of a member that failed opens for some seconds.
        server.then(Row::reply("again").delay(Duration::from_millis(250)));
        input.write_all(b"add\n").unwrap();
        asked += 2;
        server.asked(asked).await;
    }
    drop(input);
    let said = tokio::task::spawn_blocking(move || said(chat.wait_with_output().unwrap()));
    let said = said.await.unwrap();
    assert!(said.err.contains("the server `bank` did not start, and others stand in"), "{said:?}");
    // Two that stand in for each other alone are not both done without.
    let both = rest("\"add\"").replace("\"cash\"]", "\"till.sum\"]");
    let till = "[tools.till]\ncommand = [\"./till\"]\n[tools.till.effects]\nsum = \"read\"\n";
    let folder = tree(&server, &(both + till));
    let said = run(&folder, &["run", "t.toml", "add"]).await;
    assert_eq!((said.code, &*said.out), (1, ""), "{said:?}");
    let nobody = "did not start, and nobody else of the group `add` is there: ";
    assert!(said.err.contains(nobody), "{said:?}");
    // One that is called by name is not done without.
    let folder = tree(&server, &rest("\"add\", \"bank\""));
    let said = run(&folder, &["run", "t.toml", "add"]).await;
    assert_eq!((said.code, &*said.out), (1, ""), "{said:?}");
    assert!(said.err.starts_with("mainstay: the server `bank` did not start: "), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_answers_is_named_after_its_start_timeout() {
    let server = StubServer::start().await.unwrap();
    let rest = "[agents.a]\nmodel = \"llm\"\ntools = [\"mute.x\"]\n[tools.mute]\ncommand = [\"sleep\", \"1000\"]\nstart_timeout = \"100ms\"\n";
    let folder = tree(&server, rest);
    for command in [&["run", "t.toml", "hello"][..], &["tree", "t.toml"]] {
        let said = run(&folder, command).await;
        let expected = "mainstay: the server `mute` did not start: ";
        assert!(said.code == 1 && said.err.starts_with(expected), "{said:?}");
        assert!(said.err.contains("the server did not answer within 100ms"), "{said:?}");
    }
    assert_eq!(server.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_a_server_does_not_have_is_named_at_the_start() {
    let server = StubServer::start().await.unwrap();
    let bank = format!("[tools.bank]\ncommand = [{:?}]\n", shop());
    for (rest, said_of) in [
        ("[agents.a]\nmodel = \"llm\"\ntools = [\"bank.nope\"]\n", ""),
        (
            "[groups.g]\nkind = \"tool\"\nmembers = [\"bank.nope\"]\n[agents.a]\nmodel = \"llm\"\ntools = [\"g\"]\n",
            ", a member of the group `g`",
        ),
        (
            "effects.nope = \"read\"\n[agents.a]\nmodel = \"llm\"\ntools = [\"bank\"]\n",
            ", of which `effects` says what it does",
        ),
    ] {
        let folder = tree(&server, &format!("{bank}{rest}"));
        let said = run(&folder, &["run", "t.toml", "hello"]).await;
        let expected = format!("mainstay: the server `bank` has no tool `nope`{said_of}\n");
        assert_eq!((said.code, said.err), (2, expected));
    }
    assert_eq!(server.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn words_find_what_a_server_cannot_search_for() {
    let server = StubServer::start().await.unwrap();
    let rest = format!(
        r#"[tools.remote]
command = ["{}"]
[tools.remote.effects]
die = "read"
[tools.vectors]
builtin = "vector_search"
documents = "faq.jsonl"
[tools.words]
builtin = "exact_search"
documents = "faq.json"
[groups.find]
kind = "data"
members = ["remote.die", "words"]
[groups.local]
kind = "data"
members = ["vectors"]
[agents.a]
model = "llm"
tools = ["find", "local"]
"#,
        shop().display()
    );
    let folder = tree(&server, &rest);
    let one = json!({"id": "returns", "text": "Goods can be returned within 30 days."});
    let other = json!({"id": "shipping", "text": "Orders leave our warehouse the next day."});
    std::fs::write(folder.0.join("faq.jsonl"), format!("{one}\n{other}\n")).unwrap();
    std::fs::write(folder.0.join("faq.json"), json!([one, other]).to_string()).unwrap();
    server.then(Row::tool_calls([("find", "{\"query\":\"warehouse\"}")]));
    // Another form of the word: vectors find it, words would not.
    server.then(Row::tool_calls([("local", "{\"query\":\"returning goods\",\"limit\":1}")]));
    server.then(Row::reply("done"));
    answered(&run(&folder, &["run", "t.toml", "find it"]).await, "done");
    let found = |request| -> Value { serde_json::from_str(&result(&server, request)).unwrap() };
    assert_eq!(found(1)["hits"][0]["document"]["id"], "shipping");
    assert_eq!(found(2)["hits"][0]["document"]["id"], "returns");
    let tree = run(&folder, &["tree", "t.toml"]).await.out;
    assert!(tree.contains("data group"), "{tree}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_who_says_nothing_is_decided_for() {
    let server = StubServer::start().await.unwrap();
    for (otherwise, told, used) in [
        ("", "no person is asked with --json", Some("permission")),
        ("otherwise = \"refuse\"\ntext = \"not today\"", "not today", Some("permission")),
        ("otherwise = \"pass_on\"", "\"later\"", None),
        ("otherwise = \"answer\"\ntext = \"a voucher\"", "\"a voucher\"", None),
    ] {
        let rest = format!(
            "[people.boss]\nexpiry = \"50ms\"\n{otherwise}\n[tools.later]\nbuiltin = \"default\"\ntext = \"later\"\n[groups.ask]\nkind = \"tool\"\nmembers = [\"boss\", \"later\"]\n[agents.a]\nmodel = \"llm\"\ntools = [\"ask\"]\n"
        );
        let before = server.count();
        server.then(Row::tool_calls([("ask", "{\"request\":\"may I?\"}")]));
        server.then(Row::reply("done"));
        let folder = tree(&server, &rest);
        let said = run(&folder, &["run", "t.toml", "--json", "hello"]).await;
        let answer: Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!(answer["tools_used"][0]["failed"].as_str(), used, "{otherwise}: {answer}");
        let heard = result(&server, before + 1);
        assert!(heard.contains(told), "{otherwise}: {heard}");
        assert_eq!(said.err, "", "a program is told in JSON");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_answers_for_a_model_and_for_an_agent() {
    let down = "kind = \"openai\"\nbase_url = \"http://127.0.0.1:9/v1\"\nmodel = \"m\"\n";
    for (group, rest, entry) in [
        ("model", format!("[models.b]\n{down}"), "b"),
        ("step", format!("[models.far]\n{down}[agents.b]\nmodel = \"far\"\n"), "b"),
    ] {
        let text = format!(
            "[policy]\nmax_retries = 0\n{rest}[people.boss]\n[groups.g]\nkind = \"{group}\"\nmembers = [\"{entry}\", \"boss\"]\n"
        );
        let folder = Folder::with("t.toml", &text);
        let input = "who are you?\n/pending\n/approve boss-7\n/answer boss-1\n/answer boss-1 I am Ann\n/pending\n/refuse x\n";
        let said =
            tokio::task::spawn_blocking(move || folder.run(&["run", "t.toml", "--chat"], input));
        let said = said.await.unwrap();
        let expected = [
            "boss-1  who are you? (refused after 600 s)",
            "nothing waits under `boss-7`",
            "boss-1  who are you? (refused after 600 s)",
            "an answer needs a text: /answer ID TEXT",
        ];
        let lines: Vec<_> = said.out.lines().collect();
        assert_eq!(lines[..4], expected, "{said:?}");
        let end = "decided: boss-1\nI am Ann\nnothing waits for a person\nnothing waits under `x`\nnothing waits for a person\n";
        assert!(said.out.ends_with(end), "{said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_group_ends_with_a_text_that_cannot_fail() {
    let down = "[policy]\nmax_retries = 0\n[models.far]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:9/v1\"\nmodel = \"m\"\n";
    let text = format!(
        "{down}[models.note]\nkind = \"template\"\ntext = \"We got: {{question}}. Later.\"\n[groups.out]\nkind = \"output\"\nmembers = [\"far\", \"note\"]\n"
    );
    let folder = Folder::with("t.toml", &text);
    let said = run(&folder, &["run", "t.toml", "--json", "where is it"]).await;
    let answer: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(answer["text"], "We got: where is it. Later.");
    assert_eq!((&answer["defaulted"], &answer["served_by"]), (&true.into(), &"t/out/note".into()));
    let text = format!(
        "{down}[models.sorry]\nkind = \"default\"\ntext = \"sorry\"\n[agents.full]\nmodel = \"far\"\n[groups.flow]\nkind = \"step\"\nmembers = [\"full\", \"sorry\"]\n"
    );
    let said = run(&Folder::with("t.toml", &text), &["run", "t.toml", "--json", "hello"]).await;
    let answer: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&answer["text"], &answer["defaulted"]), (&"sorry".into(), &true.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_simpler_flow_takes_over_from_one_that_fails() {
    let server = StubServer::start().await.unwrap();
    server.otherwise(Row::tool_calls([("escalate", "{}")]));
    let rest = "[models.local]\nkind = \"local\"\n[tools.escalate]\nbuiltin = \"escalate\"\n[agents.full]\nmodel = \"llm\"\ntools = [\"escalate\"]\nmax_steps = 2\n[agents.simple]\nmodel = \"local\"\n[groups.flow]\nkind = \"step\"\nmembers = [\"full\", \"simple\"]\n";
    let said = run(&tree(&server, rest), &["run", "t.toml", "--json", "hello"]).await;
    let answer: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(
        (&answer["served_by"], &answer["degraded"]),
        (&"t/flow/simple".into(), &true.into())
    );
    assert_eq!((answer["attempts"].as_u64(), server.count()), (Some(2), 2), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_starts_others_for_its_tasks_and_they_are_gone_afterwards() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::tool_calls([("finder", "{\"task\":\"find 7\"}")]));
    server.then(Row::tool_calls([("escalate", "{\"order\":7}")]));
    server.then(Row::reply("it is T-7"));
    server.then(Row::reply("done: T-7"));
    let rest = "[tools.escalate]\nbuiltin = \"escalate\"\n[agents.lead]\nmodel = \"llm\"\nagents = [\"finder\"]\n[agents.finder]\nmodel = \"llm\"\nsystem = \"You find.\"\ndescription = \"Finds tickets.\"\ntools = [\"escalate\"]\n";
    let folder = tree(&server, rest);
    let chat = move || folder.run(&["run", "t.toml", "--chat"], "where is 7?\n/tree\n");
    let said = tokio::task::spawn_blocking(chat).await.unwrap();
    assert!(said.out.starts_with("done: T-7\n"), "{said:?}");
    let lead = &offered(&server, 0)[0];
    assert_eq!((&lead["name"], &lead["description"]), (&json!("finder"), &json!("Finds tickets.")));
    let sub = server.requests()[1].json();
    assert_eq!(sub["messages"][0]["content"], "You find.");
    assert_eq!(sub["messages"][1]["content"], "find 7");
    assert_eq!(result(&server, 3), "\"it is T-7\"");
    assert!(said.out.contains("work"), "{said:?}");
    assert!(!said.out.contains("task-"), "{said:?}");
}

/// A tree in a folder below the one where the command runs, and beside it the server's program.
fn below(tool: &str) -> Folder {
    let folder = Folder::new();
    std::fs::create_dir_all(folder.0.join("desk/bin")).unwrap();
    std::os::unix::fs::symlink(shop(), folder.0.join("desk/bin/till")).unwrap();
    let text = format!(
        "[models.m]\nkind = \"local\"\n[agents.a]\nmodel = \"m\"\ntools = [\"t\"]\n[tools.t]\n{tool}[tools.t.effects]\nsum = \"read\"\n"
    );
    std::fs::write(folder.0.join("desk/t.toml"), text).unwrap();
    folder
}

#[test]
fn a_path_in_a_servers_command_begins_at_the_tree_file_and_a_name_is_looked_up() {
    // The argument is a path, too: where the server runs, it writes its log.
    for (tool, log) in [
        ("command = [\"./bin/till\", \"--log\", \"log\"]\n", "desk/log"),
        ("command = [\"bin/till\", \"--log\", \"log\"]\ndir = \"bin\"\n", "desk/bin/log"),
        ("command = [\"till\", \"--log\", \"log\"]\n", "desk/log"),
        ("command = [\"till\", \"--log\", \"../log\"]\ndir = \"bin\"\n", "desk/log"),
    ] {
        let folder = below(tool);
        let mut command = command(&folder.0, &["tree", "desk/t.toml"]);
        let said = said(command.env("PATH", folder.0.join("desk/bin")).output().unwrap());
        assert_eq!(said.code, 0, "{tool} {said:?}");
        assert!(folder.0.join(log).exists(), "{tool}");
        for other in ["log", "desk/log", "desk/bin/log"].iter().filter(|other| **other != log) {
            assert!(!folder.0.join(other).exists(), "{tool}: {other}");
        }
    }
    // A name is no path, even if there is such a file.
    let folder = below("command = [\"till\"]\ndir = \"bin\"\n");
    let said = folder.run(&["tree", "desk/t.toml"], "");
    assert_ne!(said.code, 0, "{said:?}");
    assert!(said.err.contains("\"till\" cannot be started"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_above_the_limit_of_its_server_is_told_to_the_model_as_a_failure() {
    let server = StubServer::start().await.unwrap();
    for (limit, told) in [("", "\"xxxxxxxx\""), ("max_result_bytes = 9\n", "result has 10 bytes")] {
        let before = server.count();
        server.then(Row::tool_calls([("fill", "{\"bytes\":8}")]));
        server.then(Row::reply("so it is"));
        let rest = format!(
            "[agents.a]\nmodel = \"llm\"\ntools = [\"t\"]\n[tools.t]\ncommand = [{:?}]\n{limit}[tools.t.effects]\nfill = \"read\"\n",
            shop()
        );
        answered(&run(&tree(&server, &rest), &["run", "t.toml", "fill"]).await, "so it is");
        let said = result(&server, before + 1);
        assert!(said.contains(told), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_calls_an_error_is_of_the_kind_that_the_file_says() {
    let server = StubServer::start().await.unwrap();
    for (line, class) in [("", "business"), ("errors_are_transient = true\n", "tool_execution")] {
        let before = server.count();
        server.then(Row::tool_calls([("refuse", "{}")]));
        server.then(Row::reply("so it is"));
        let rest = format!(
            "[agents.a]\nmodel = \"llm\"\ntools = [\"t\"]\n[tools.t]\ncommand = [{:?}]\n{line}[tools.t.effects]\nrefuse = \"read\"\n",
            shop()
        );
        answered(&run(&tree(&server, &rest), &["run", "t.toml", "go"]).await, "so it is");
        let said = result(&server, before + 1);
        assert!(said.contains(&format!("\"class\":\"{class}\"")), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_gone_is_waited_for_as_long_as_the_file_says() {
    let server = StubServer::start().await.unwrap();
    for (line, told) in [("", "5"), ("connect_wait = \"1ms\"\n", "not been reached within 1ms")] {
        let before = server.count();
        server.then(Row::tool_calls([("die", "{}")]));
        server.then(Row::tool_calls([("sum", "{\"a\":2,\"b\":3}")]));
        server.then(Row::reply("so it is"));
        let rest = format!(
            "[agents.a]\nmodel = \"llm\"\ntools = [\"t\"]\n[tools.t]\ncommand = [{:?}]\n{line}[tools.t.effects]\nsum = \"read\"\ndie = \"read\"\n",
            shop()
        );
        answered(&run(&tree(&server, &rest), &["run", "t.toml", "go"]).await, "so it is");
        let said = result(&server, before + 2);
        assert!(said.contains(told), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_rests_on_a_stand_in_says_on_whose() {
    let server = StubServer::start().await.unwrap();
    let rest = r#"[models.sorry]
kind = "default"
text = "later"
[groups.brain]
kind = "output"
members = ["llm", "sorry"]
[tools.gone]
command = ["./gone"]
[tools.gone.effects]
sum = "read"
[tools.known]
builtin = "default"
text = "42"
[groups.add]
kind = "tool"
members = ["gone.sum", "known"]
[agents.a]
model = "brain"
tools = ["add"]
"#;
    server.then(Row::tool_calls([("add", "{}")]));
    server.then(Row::reply("it is 42"));
    let folder = tree(&server, rest);
    let said = run(&folder, &["run", "t.toml", "--json", "2 and 3"]).await;
    let answer: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&answer["served_by"], &answer["degraded"]), (&json!("t/a"), &json!(true)));
    let by_default = json!([{"group": "t/add", "by": "t/add/known", "defaulted": true}]);
    assert_eq!(answer["stood_in"], by_default, "{answer}");
    // The model's place, too, and for people.
    server.otherwise(Row::error(404, "model_not_found", "gone"));
    let said = run(&folder, &["run", "t.toml", "--progress", "2 and 3"]).await;
    assert!(
        said.err.contains("(by t/a; degraded; a default of t/brain/sorry; 1 step;"),
        "{said:?}"
    );
    // Who needed nobody names nobody.
    server.otherwise(Row::reply("five"));
    let said = run(&folder, &["run", "t.toml", "--json", "2 and 3"]).await;
    let answer: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&answer["text"], answer.get("stood_in")), (&json!("five"), None), "{answer}");
}
