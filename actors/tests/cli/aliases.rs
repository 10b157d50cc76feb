//! Tools of servers whose names cannot stand in a path.

use mainstay_actors::mcp::McpServer;
use mainstay_actors::stub_server::{Row, StubServer};

use super::harness::{Folder, command, refused};
use super::models::run;

/// A server of few words, with these tools: it writes down the line of each call.
fn odd(folder: &Folder, tools: &[&str]) {
    let tools: Vec<_> = tools
        .iter()
        .map(|name| {
            serde_json::json!({"name": name, "inputSchema": {"type": "object"}}).to_string()
        })
        .collect();
    let script = r##"
        echo started >> starts
        while read -r line; do
            id=$(printf '%s' "$line" | sed -n 's/.*"id":\([0-9]*\).*/\1/p')
            case "$line" in
                *'"initialize"'*) result='{"protocolVersion":"2025-03-26","capabilities":{"tools":{}},"serverInfo":{"name":"odd","version":"1"}}' ;;
                *'"tools/list"'*) result='{"tools":[TOOLS]}' ;;
                *'"tools/call"'*) printf '%s\n' "$line" >> calls; result='{"content":[{"type":"text","text":"done"}]}' ;;
                *) continue ;;
            esac
            printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$result"
        done"##;
    std::fs::write(folder.0.join("odd.sh"), script.replace("TOOLS", &tools.join(","))).unwrap();
}

fn tree(server: &StubServer, rest: &str, tools: &[&str]) -> Folder {
    let text = format!(
        "[models.llm]\nkind = \"openai\"\nbase_url = \"{}\"\nmodel = \"m\"\n[tools.odd]\ncommand = [\"sh\", \"odd.sh\"]\n{rest}",
        server.url()
    );
    let folder = Folder::with("t.toml", &text);
    odd(&folder, tools);
    folder
}

/// The names of the calls that the server has had.
fn calls(folder: &Folder) -> Vec<String> {
    let lines = std::fs::read_to_string(folder.0.join("calls")).unwrap_or_default();
    let name = |line: &str| {
        let call: serde_json::Value = serde_json::from_str(line).unwrap();
        call["params"]["name"].as_str().unwrap().to_owned()
    };
    lines.lines().map(name).collect()
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_tool_whose_name_cannot_stand_in_a_path_is_called_by_another_one() {
    let odd = ["repos/list", "", "connection", "fine", "turned\u{202e}round"];
    let ids: Vec<_> = odd.iter().map(|name| McpServer::tool_id(name).into_owned()).collect();
    let server = StubServer::start().await.unwrap();
    let agent = "[agents.a]\nmodel = \"llm\"\ntools = [\"odd\"]\n";
    let folder = tree(&server, agent, &odd);
    for id in &ids {
        server.then(Row::tool_calls([(id.as_str(), "{}")]));
    }
    server.otherwise(Row::reply("ok"));
    let said = run(&folder, &["run", "t.toml", "--json", "hello"]).await;
    assert_eq!((said.code, &*said.err), (0, ""), "{said:?}");
    let answer: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    // The one that was asked for its tools goes on to be the tree's.
    assert_eq!(std::fs::read_to_string(folder.0.join("starts")).unwrap(), "started\n");
    // The server hears its own names; the model, and who reads of it, the others.
    assert_eq!(calls(&folder), odd);
    let used = answer["tools_used"].as_array().unwrap().iter().map(|used| used["name"].clone());
    assert_eq!(serde_json::json!(used.collect::<Vec<_>>()), serde_json::json!(ids));
    let told = server.requests()[0].json()["tools"].clone();
    let mut told: Vec<_> =
        told.as_array().unwrap().iter().map(|it| it["function"]["name"].clone()).collect();
    let mut expected = ids.clone();
    told.sort_by_key(ToString::to_string);
    expected.sort();
    assert_eq!(serde_json::json!(told), serde_json::json!(expected));
    // And so does the tree, which says whose they are.
    let said = run(&folder, &["tree", "t.toml"]).await;
    for (id, own) in ids.iter().zip(odd) {
        assert!(said.out.contains(&format!("\u{2500} {id} ")), "{said:?}");
        let line = format!("mainstay: odd.{id} is what its server calls {own:?}\n");
        assert_eq!(said.err.contains(&line), id != own, "{said:?}");
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_file_may_use_both_names_of_a_tool() {
    let id = |own: &str| McpServer::tool_id(own).into_owned();
    let (make, undo, read) = (id("make/it"), id("undo/it"), id("read/it"));
    let server = StubServer::start().await.unwrap();
    let rest = format!(
        "[store]\npath = \"state\"\n[supervisor]\nscope = \"transaction\"\n[tools.odd.effects]\n\"undo/it\" = \"idempotent\"\n{read} = \"read\"\n[tools.odd.effects.\"make/it\"]\nkind = \"compensable\"\nundo = {{ tool = \"odd.{undo}\" }}\n\
         [groups.reads]\nkind = \"tool\"\nmembers = [\"odd.read/it\", \"odd.fine\"]\n[groups.reads.grants.\"odd.read/it\"]\nowner = \"me\"\nreason = \"why\"\n\
         [agents.a]\nmodel = \"llm\"\ntools = [\"odd.{make}\", \"reads\"]\n"
    );
    let folder = tree(&server, &rest, &["make/it", "undo/it", "read/it", "fine"]);
    let page = run(&folder, &["check", "t.toml"]).await;
    let grant = format!("warning: a grant for `odd.{read}`, which may stand in without one\n");
    assert!(page.code == 0 && page.err.starts_with(&grant), "{page:?}");
    let names = "\nTools by other names, in paths and for models\n";
    assert!(page.out.contains(names), "{page:?}");
    assert!(page.out.contains(&format!("  odd.{read}  its server calls it \"read/it\"\n")));
    assert!(page.out.contains(&format!("  odd.{make}  undone by odd.{undo}\n")), "{page:?}");
    server.then(Row::tool_calls([(make.as_str(), "{}"), ("reads", "{}")]));
    server.otherwise(Row::reply("ok"));
    let said = run(&folder, &["run", "t.toml", "hello"]).await;
    assert_eq!((said.code, &*said.out, &*said.err), (0, "ok\n", ""), "{said:?}");
    let mut called = calls(&folder);
    called.sort();
    assert_eq!(called, ["make/it", "read/it"]);
    let said = run(&folder, &["tree", "t.toml"]).await;
    assert!(said.out.contains(&format!("\u{2500} odd.{read} ")), "{said:?}");
    // One that the server does not have is named as the file has it.
    let text = std::fs::read_to_string(folder.0.join("t.toml")).unwrap();
    std::fs::write(folder.0.join("t.toml"), text.replace("odd.fine", "odd.not/there")).unwrap();
    let said = run(&folder, &["run", "t.toml", "hello"]).await;
    let expected =
        "mainstay: the server `odd` has no tool `not/there`, a member of the group `reads`\n";
    assert_eq!((said.code, &*said.err), (2, expected));
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_would_have_the_name_of_another_one_is_left_out_and_said() {
    let server = StubServer::start().await.unwrap();
    server.otherwise(Row::reply("ok"));
    let id = McpServer::tool_id("a/b").into_owned();
    let agent = "[agents.a]\nmodel = \"llm\"\ntools = [\"odd\"]\n";
    let folder = tree(&server, agent, &["a/b", &id, "a/b"]);
    server.then(Row::tool_calls([(id.as_str(), "{}")]));
    let said = run(&folder, &["run", "t.toml", "hello"]).await;
    assert_eq!((said.code, &*said.out), (0, "ok\n"), "{said:?}");
    let line = format!(
        "mainstay: the server `odd` has a tool \"a/b\", which is left out: it would be called `{id}` here, and so would its tool {id:?}\n"
    );
    assert!(said.err.starts_with(&line), "{said:?}");
    assert_eq!(calls(&folder), [id]);
}

#[test]
fn a_tool_with_two_entries_under_its_two_names_is_refused() {
    let id = McpServer::tool_id("a/b").into_owned();
    let text = format!(
        "[models.m]\nkind = \"local\"\n[tools.odd]\ncommand = [\"odd\"]\n[tools.odd.effects]\n\"a/b\" = \"read\"\n{id} = \"idempotent\"\n[agents.a]\nmodel = \"m\"\n"
    );
    let expected = format!(
        "error: `{id}` stands here twice, under two names\n --> t.toml:7:1\n  |\n7 | {id} = \"idempotent\"\n  | {} the second\n  |\n  = help: keep one of the two\n",
        "^".repeat(id.len())
    );
    refused(&text, &expected);
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn of_two_servers_with_a_tool_of_one_name_one_tool_is_called_by_the_name_of_a_group() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::tool_calls([("fine", "{}"), ("other", "{}")]));
    server.otherwise(Row::reply("ok"));
    let rest = |rest: &str| {
        format!("[tools.even]\ncommand = [\"sh\", \"odd.sh\"]\n{rest}[agents.a]\nmodel = \"llm\"\n")
    };
    let folder = tree(&server, &format!("{}tools = [\"odd\", \"even\"]\n", rest("")), &["fine"]);
    let said = run(&folder, &["run", "t.toml", "hello"]).await;
    let told =
        "mainstay: the agent `a` has two tools called `fine`, from `odd/fine` and `even/fine`: ";
    assert!(said.code == 2 && said.err.starts_with(told), "{said:?}");
    assert!(said.err.contains("`members = [\"even.fine\"]`"), "{said:?}");
    // As it is said there.
    let group = "[groups.other]\nkind = \"tool\"\nmembers = [\"even.fine\"]\n";
    let folder =
        tree(&server, &format!("{}tools = [\"odd\", \"other\"]\n", rest(group)), &["fine"]);
    let said = run(&folder, &["run", "t.toml", "hello"]).await;
    assert_eq!((said.code, &*said.out, &*said.err), (0, "ok\n", ""), "{said:?}");
    assert_eq!(calls(&folder), ["fine", "fine"]);
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_told_which_servers_a_slow_start_waits_for() {
    use std::io::{BufRead, BufReader, Read};

    let server = StubServer::start().await.unwrap();
    server.otherwise(Row::reply("ok"));
    let agent = "[agents.a]\nmodel = \"llm\"\ntools = [\"odd\"]\n";
    let folder = tree(&server, agent, &["fine"]);
    let script = std::fs::read_to_string(folder.0.join("odd.sh")).unwrap();
    let slow = format!("until [ -e go ]; do sleep 0.05; done\n{script}");
    std::fs::write(folder.0.join("odd.sh"), slow).unwrap();
    let work = move || {
        let mut child =
            command(&folder.0, &["run", "t.toml", "--progress", "hello"]).spawn().unwrap();
        let mut err = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        err.read_line(&mut line).unwrap();
        std::fs::write(folder.0.join("go"), "").unwrap();
        let mut out = String::new();
        child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        err.read_to_string(&mut String::new()).unwrap();
        (line, out, child.wait().unwrap().code())
    };
    let (line, out, code) = tokio::task::spawn_blocking(work).await.unwrap();
    assert_eq!(line, "mainstay: waits for servers of tools to start: `odd`\n");
    assert_eq!((&*out, code), ("ok\n", Some(0)));
}
