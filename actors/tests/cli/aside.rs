//! `mainstay store`: a person looks at what a store has set aside, and says what becomes of it.

use mainstay::checkpoint::{Batch, Durability, FileStore, Listed, Store as _};
use mainstay_actors::stub_server::{Row, StubServer};
use serde_json::Value;

use super::harness::{Folder, Said};
use super::models::run;
use super::{acts, store};

fn json(said: &Said) -> Value {
    assert_eq!(said.out.lines().count(), 1, "{said:?}");
    serde_json::from_str(&said.out).unwrap()
}

async fn ask(folder: &Folder, words: &[&str]) -> Said {
    run(folder, &[&["store", "t.toml"], words].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_effect_that_nobody_knows_is_listed_exported_and_settled() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::tool_calls([("reserve", "{\"seat\":\"A7\",\"lose\":\"after\"}")]));
    server.otherwise(Row::reply("it is being checked"));
    let folder = acts::tree(&server, "");
    let said = run(&folder, &["run", "t.toml", "hello"]).await;
    assert_eq!((said.code, &*said.out), (0, "it is being checked\n"), "{said:?}");

    let said = ask(&folder, &[]).await;
    let first = said.out.lines().next().unwrap();
    assert_eq!(first, "state: no request goes on at the next start", "{said:?}");
    assert!(said.out.contains("1 effect for a person to settle (settle KEY happened"), "{said:?}");
    assert!(said.out.contains("unknown: t/box/reserve for t/a (Irreversible)"), "{said:?}");
    let effect = json(&ask(&folder, &["list", "--json"]).await)["effects"][0].take();
    let key = effect["key"].as_str().unwrap();

    // Of the file only the store has to be right: it may be one of another version.
    let text = std::fs::read_to_string(folder.0.join("t.toml")).unwrap();
    std::fs::write(folder.0.join("t.toml"), format!("{text}unheard_of = 1\n[later]\nx = 1\n"))
        .unwrap();
    let said = ask(&folder, &["list", "--json"]).await;
    assert_eq!((said.code, &json(&said)["effects"][0]), (0, &effect), "{said:?}");
    std::fs::write(folder.0.join("t.toml"), text).unwrap();

    // What was asked is the user's, and shown to who asks for it.
    let plain = ask(&folder, &["export"]).await;
    assert!(!plain.out.contains("A7") && json(&plain) == effect, "{plain:?}");
    let whole = json(&ask(&folder, &["export", &key[..8], "--user-data"]).await);
    assert!(whole["request"].to_string().contains("A7"), "{whole}");

    for (words, why) in [
        (["release", key].as_slice(), "is an effect: say what became of it with `settle`"),
        (
            &["settle", key, "undone"],
            "is unknown, which is settled by `happened` or `did-not-happen`\n",
        ),
        (&["settle", key, "did-not-happen", "x"], "not settled: what did-not-happen has no result"),
        (&["settle", "nothing", "happened"], "has a key that begins with `nothing`"),
        (&["discard", ""], "has a key that begins with ``"),
    ] {
        let said = ask(&folder, words).await;
        assert_eq!((said.code, &*said.out), (1, ""), "{said:?}");
        assert!(said.err.contains(why), "{said:?}");
    }
    let word = ["settle", &key[..8], "happened", "{\"seat\":\"A7\"}"];
    let said = ask(&folder, &[&word[..], &["--by", "ann", "--why", "I have it"]].concat()).await;
    assert_eq!((said.code, said.out), (0, format!("settled effect {key}\n")));
    let settled = json(&ask(&folder, &["list", "--json"]).await)["settled"][0].take();
    assert_eq!((&settled["key"], &settled["status"]), (&effect["key"], &"confirmed".into()));
    assert_eq!(settled["said"], serde_json::json!({"by": "ann", "why": "I have it"}));
    let said = ask(&folder, &["list"]).await;
    assert!(said.out.ends_with("nothing was set aside, and nothing waits for a person\n"));
    let said = run(&folder, &["run", "t.toml", "--progress", "hello"]).await;
    assert!(said.err.contains("1 effect not to be repeated"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_to_an_agent_that_is_no_more_is_released_once_the_agent_is_back() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::hang());
    server.otherwise(Row::reply("done"));
    let text = |agent: &str| {
        let store = "[store]\npath = \"state\"\n[models.llm]\nkind = \"openai\"\nmodel = \"m\"\n";
        format!("{store}base_url = \"{}\"\n[agents.{agent}]\nmodel = \"llm\"\n", server.url())
    };
    let folder = Folder::with("t.toml", &text("helper"));
    let write = |agent: &str| std::fs::write(folder.0.join("t.toml"), text(agent)).unwrap();
    let first = store::start(&folder, &["run", "t.toml", "my secret"]);
    server.asked(1).await;
    // One process at a time, and who it is.
    let said = ask(&folder, &["list", "--json"]).await;
    let holder = first.0.id().to_string();
    assert_eq!((said.code, &json(&said)["error"]["kind"]), (1, &"store".into()), "{said:?}");
    assert!(said.err.contains(&holder), "process {holder}: {said:?}");
    drop(first);
    let said = ask(&folder, &["list"]).await;
    assert!(said.out.starts_with("state: 1 request goes on at the next start\n"), "{said:?}");

    write("other");
    let said = run(&folder, &["run", "t.toml", "--adopt", "hello"]).await;
    assert!(said.err.contains("  set aside: request "), "{said:?}");
    let said = ask(&folder, &["list"]).await;
    assert!(said.out.contains("\n1 request set aside (release KEY | discard KEY):\n"), "{said:?}");
    assert!(said.out.contains("  to t/helper, ") && !said.out.contains("secret"), "{said:?}");
    let request = json(&ask(&folder, &["export"]).await);
    assert_eq!((&request["kind"], &request["child"]), (&"request".into(), &"t/helper".into()));
    let key = request["key"].as_str().unwrap();
    let whole = json(&ask(&folder, &["export", key, "--user-data"]).await);
    assert_eq!(whole["request"]["text"], "my secret");
    for (words, why) in [
        (["release", key].as_slice(), "nothing durable is at \"t/helper\""),
        (&["settle", key, "happened"], "is a request: `release` or `discard` it"),
    ] {
        let said = ask(&folder, words).await;
        assert!(said.code == 1 && said.err.contains(why) && said.err.contains(key), "{said:?}");
    }

    // The agent is back, and the request is done.
    write("helper");
    let said = run(&folder, &["run", "t.toml", "--adopt", "hello"]).await;
    assert_eq!((said.code, &*said.out), (0, "done\n"), "{said:?}");
    let said = ask(&folder, &["release", key, "--json"]).await;
    assert_eq!(said.out, format!("{{\"kind\":\"request\",\"released\":\"{key}\"}}\n"));
    let said = run(&folder, &["run", "t.toml", "my secret"]).await;
    assert!(said.out == "done\n" && said.err.contains("1 open request"), "{said:?}");
    let said = ask(&folder, &["discard", key]).await;
    assert!(said.code == 1 && said.err.contains("has a key that begins with"), "{said:?}");
}

#[test]
fn a_store_that_is_not_there_is_not_made_by_looking() {
    // Nothing but the store of the file has to be right.
    let model = "[models.m]\nkind = \"openai\"\nkey_env = \"MAINSTAY_TEST_KEY\"\n";
    let folder = Folder::with("t.toml", &format!("[store]\npath = \"state\"\n{model}"));
    let said = folder.run(&["store", "t.toml"], "");
    assert_eq!((said.code, &*said.err), (0, ""), "{said:?}");
    assert!(said.out.ends_with("nothing was set aside, and nothing waits for a person\n"));
    assert_eq!(folder.run(&["store", "t.toml", "export"], "").out, "");
    assert!(!folder.0.join("state").exists());
    for text in [model.to_owned(), format!("[store]\ndurability = \"memory\"\n{model}")] {
        let said = Folder::with("t.toml", &text).run(&["store", "t.toml"], "");
        let why = "mainstay: t.toml keeps nothing: it has no [store] with a `path`\n";
        assert_eq!((said.code, &*said.err), (2, why), "{said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_set_aside_is_seen_released_and_given_up_in_a_conversation() {
    let server = StubServer::start().await.unwrap();
    server.otherwise(Row::hang());
    let text = format!(
        "[store]\npath = \"state\"\nprocess_deaths = 1\n[models.llm]\nkind = \"openai\"\nmodel = \"m\"\nbase_url = \"{}\"\n[agents.a]\nmodel = \"llm\"\n",
        server.url()
    );
    let folder = std::sync::Arc::new(Folder::with("t.toml", &text));
    for asked in 1..=4 {
        let words = if asked <= 2 { "my secret" } else { "another" };
        let process = store::start(&folder, &["run", "t.toml", words]);
        server.asked(asked).await;
        drop(process);
    }
    server.otherwise(Row::reply("fine"));
    assert_eq!(run(&folder, &["run", "t.toml", "hello"]).await.code, 0);
    let listed = json(&ask(&folder, &["list", "--json"]).await)["requests"].take();
    let keys: Vec<_> = (0..2).map(|it| listed[it]["key"].as_str().unwrap().to_owned()).collect();
    let (first, second) = (&keys[0], &keys[1]);
    let input = format!(
        "/aside\n/aside export\n/aside export {first} --user-data\n/aside release nothing\n/aside settle x\n\
         /aside release {first}\n/aside discard {second}\n/aside\n/help\n"
    );
    let there = std::sync::Arc::clone(&folder);
    let chat = move || there.run(&["run", "t.toml", "--chat"], &input);
    let said = tokio::task::spawn_blocking(chat).await.unwrap();
    assert_eq!(said.code, 0, "{said:?}");
    let how = "2 requests set aside (/aside release KEY | discard KEY):\n";
    let mut rest = said.out.as_str();
    for part in [
        "this tree: no request is open\n",
        how,
        "/aside export [KEY] [--user-data]",
        &format!("\"key\":\"{first}\",\"kind\":\"request\""),
        "\"text\":\"my secret\"",
        "nothing that waits for a person has a key that begins with `nothing`\n",
        "there is no `settle x`\n/aside ",
        &format!("released request {first}: it is done now\n"),
        &format!("discarded request {second}\n"),
        "nothing was set aside, and nothing waits for a person\n",
        "/aside    what was set aside, and how to release it or give it up\n",
    ] {
        let at = rest.find(part).unwrap_or_else(|| panic!("{part}\n{}", said.out));
        rest = &rest[at + part.len()..];
    }
    assert_eq!(said.out.matches("my secret").count(), 1, "{}", said.out);
    assert!(said.err.contains("/tree, /effects, /aside, "), "{said:?}");
    // It was done, or is by the next process, once more where the end of the conversation came between.
    assert_eq!(run(&folder, &["run", "t.toml", "hello"]).await.code, 0);
    let left = ask(&folder, &[]).await.out;
    assert!(left.starts_with("state: no request goes on at the next start\nnothing was set aside"));
    let asked: Vec<_> = server.requests().iter().map(|seen| seen.json().to_string()).collect();
    let released = asked.iter().filter(|body| body.contains("my secret")).count();
    assert!((3..=4).contains(&released), "{asked:?}");
    assert_eq!(asked.iter().filter(|body| body.contains("another")).count(), 2, "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_no_state_any_more_is_named() {
    let text =
        "[store]\npath = \"state\"\n[models.llm]\nkind = \"local\"\n[agents.a]\nmodel = \"llm\"\n";
    let folder = Folder::with("t.toml", text);
    let ask =
        async |arguments: &[&str]| run(&folder, &[&["run", "t.toml"], arguments].concat()).await;
    for key in ["first", "second"] {
        assert_eq!(ask(&["--key", key, key]).await.code, 0);
    }
    {
        // As a program that cannot restore the newest.
        let store = FileStore::open(folder.0.join("state")).unwrap();
        let newest = store.checkpoints(&"t/a".into()).unwrap();
        let newest = newest.iter().max_by_key(|it| it.checkpoint.step).unwrap().checkpoint.id;
        let bad = Batch::new().mark_bad(newest, "not understood");
        store.commit(bad, Durability::Sync).await.unwrap();
    }
    // The agent asks its model something else by now: what it was answered then says nothing of that.
    std::fs::write(folder.0.join("t.toml"), format!("{text}system = \"Be kind.\"\n")).unwrap();
    let said = ask(&["--json", "third"]).await;
    assert_eq!(json(&said)["lost"], serde_json::json!([{"child": "t/a", "key": "second"}]));
    let line = "mainstay: lost: t/a had answered request \"second\", and its state went back to before that\n";
    assert_eq!((said.code, said.err.matches(line).count()), (0, 1), "{said:?}");
    // What was lost while the tree ran is named once more by the next process, whoever was there to hear it.
    let said = ask(&["--json", "fourth"]).await;
    assert_eq!(json(&said)["lost"][0]["key"], "second", "{said:?}");
    assert_eq!(said.err.matches(line).count(), 1, "{said:?}");
    // That one ended in order, so it was heard.
    let said = ask(&["--json", "fifth"]).await;
    assert!(json(&said).get("lost").is_none() && !said.err.contains("lost: "), "{said:?}");
}

/// Sets all states of the agent `t/a` aside, as a program does that cannot restore them; how many.
async fn spoil(folder: &Folder) -> usize {
    let store = FileStore::open(folder.0.join("state")).unwrap();
    let states = store.checkpoints(&"t/a".into()).unwrap();
    let mark = |batch: Batch, it: &Listed| batch.mark_bad(it.checkpoint.id, "not understood");
    store.commit(states.iter().fold(Batch::new(), mark), Durability::Sync).await.unwrap();
    states.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_states_of_an_agent_that_were_set_aside_are_released_together() {
    let text =
        "[store]\npath = \"state\"\n[models.llm]\nkind = \"local\"\n[agents.a]\nmodel = \"llm\"\n";
    let folder = std::sync::Arc::new(Folder::with("t.toml", text));
    for question in ["hello", "thanks"] {
        assert_eq!(run(&folder, &["run", "t.toml", question]).await.code, 0);
    }
    let states = spoil(&folder).await;
    assert!(states > 1);
    let how = format!(
        "\n{states} checkpoints that could not be restored (release KEY | release-checkpoints CHILD | discard KEY):\n"
    );
    assert!(ask(&folder, &[]).await.out.contains(&how));
    for (child, why) in [("t/b", "was set aside, but of `t/a`"), ("a", "of `a` was set aside")] {
        let said = ask(&folder, &["release-checkpoints", child]).await;
        assert!(said.code == 1 && said.err.contains(why), "{said:?}");
    }
    let said = ask(&folder, &["release-checkpoints", "t/a"]).await;
    let expected = format!(
        "released {states} checkpoints of t/a: the next start of the tree looks at them again\n"
    );
    assert_eq!((said.code, said.out), (0, expected));
    assert!(ask(&folder, &[]).await.out.ends_with("nothing waits for a person\n"));
    spoil(&folder).await;
    let said = json(&ask(&folder, &["release-checkpoints", "t/a", "--json"]).await);
    assert_eq!(
        (&said["child"], said["released"].as_array().unwrap().len()),
        (&"t/a".into(), states)
    );
    let said = ask(&folder, &["release-checkpoints", "t/a"]).await;
    assert!(said.code == 1 && said.err.contains(", nor of anybody else"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn states_that_were_set_aside_are_listed_and_released_in_a_conversation() {
    // The state is of a child that is none of this tree's any more, so that the start does not look for one.
    let text = |agent: &str| {
        format!(
            "name = \"t\"\n[store]\npath = \"state\"\n[models.llm]\nkind = \"local\"\n[agents.{agent}]\nmodel = \"llm\"\n"
        )
    };
    let folder = std::sync::Arc::new(Folder::with("t.toml", &text("a")));
    assert_eq!(run(&folder, &["run", "t.toml", "hello"]).await.code, 0);
    spoil(&folder).await;
    std::fs::write(folder.0.join("t.toml"), text("b")).unwrap();
    let there = std::sync::Arc::clone(&folder);
    let input = "/aside\n/aside release-checkpoints\n/aside release-checkpoints t/a\n/aside\n";
    let chat = move || there.run(&["run", "t.toml", "--chat", "--adopt"], input);
    let said = tokio::task::spawn_blocking(chat).await.unwrap();
    let mut rest = said.out.as_str();
    for part in [
        "that could not be restored (/aside release KEY | release-checkpoints CHILD):\n",
        ": not understood\n/aside ",
        "of which agent?\n/aside ",
        "checkpoint",
        " of t/a: the next start of the tree, or the next rollback looks at ",
        "nothing was set aside",
    ] {
        let at = rest.find(part).unwrap_or_else(|| panic!("{part}\n{said:?}"));
        rest = &rest[at + part.len()..];
    }
}
