//! A tree on a store: what a killed process leaves is taken up by the next one.

use std::io::{BufRead, BufReader};
use std::process::Child;

use mainstay_actors::stub_server::{Row, StubServer};

use super::harness::{Folder, command};
use super::models::run;

fn tree(server: &StubServer) -> Folder {
    Folder::with("t.toml", &text(server, "[agents.helper]\nmodel = \"llm\"\n"))
}

fn text(server: &StubServer, agents: &str) -> String {
    format!(
        "[store]\npath = \"state\"\n[models.llm]\nkind = \"openai\"\nbase_url = \"{}\"\nmodel = \"m\"\n{agents}",
        server.url()
    )
}

/// A process that is killed when the test is over, whatever its end.
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn start(folder: &Folder, arguments: &[&str]) -> Killed {
    Killed(command(&folder.0, arguments).spawn().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_words_after_a_kill_take_the_request_up_and_ask_nothing_twice() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::hang());
    server.then(Row::reply("taken up"));
    let folder = tree(&server);
    let first = start(&folder, &["run", "t.toml", "hello"]);
    server.asked(1).await;
    drop(first);
    let said = run(&folder, &["run", "t.toml", "hello"]).await;
    assert_eq!((said.code, &*said.out), (0, "taken up\n"), "{said:?}");
    let taken =
        "mainstay: taken up again: 1 open request, the state of 1 agent\n  t/helper: its state of ";
    assert!(said.err.starts_with(taken), "{said:?}");
    assert_eq!(server.count(), 2);
    // What has its answer is not taken up again.
    server.then(Row::reply("another"));
    let said = run(&folder, &["run", "t.toml", "hello"]).await;
    assert_eq!((&*said.out, server.count()), ("another\n", 3), "{said:?}");
    assert!(!said.err.contains("open request"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_the_process_ends_with_as_often_as_the_file_says_is_set_aside() {
    let agent = "[agents.helper]\nmodel = \"llm\"\n";
    let group = "[groups.helper]\nkind = \"model\"\nmembers = [\"llm\"]\n";
    for rest in [agent, group, ""] {
        let server = StubServer::start().await.unwrap();
        server.otherwise(Row::hang());
        let text = text(&server, rest).replace("\"state\"", "\"state\"\nprocess_deaths = 1");
        let folder = Folder::with("t.toml", &text);
        let page = run(&folder, &["check", "t.toml"]).await.out;
        let line = page.lines().find(|line| line.contains("ends the process")).unwrap();
        assert!(line.ends_with("  is begun again once, then set aside"), "{line}");
        // The process that has accepted it is not counted, the one that has begun it again is.
        for asked in [1, 2] {
            let process = start(&folder, &["run", "t.toml", "hello"]);
            server.asked(asked).await;
            drop(process);
        }
        server.otherwise(Row::reply("fine"));
        let said = run(&folder, &["run", "t.toml", "another"]).await;
        assert_eq!((said.code, &*said.out, server.count()), (0, "fine\n", 3), "{said:?}");
        assert!(server.requests()[2].json().to_string().contains("another"), "{rest}");
        let said = run(&folder, &["store", "t.toml"]).await;
        assert!(said.out.contains("\n1 request set aside "), "{said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_words_after_a_kill_hear_of_the_request_before() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::hang());
    server.then(Row::reply("one"));
    server.then(Row::reply("two"));
    let folder = tree(&server);
    let first = start(&folder, &["run", "t.toml", "first"]);
    server.asked(1).await;
    drop(first);
    let said = run(&folder, &["run", "t.toml", "second"]).await;
    assert_eq!(said.out, "two\n", "{said:?}");
    let taken =
        "mainstay: taken up again: 1 open request, the state of 1 agent\n  t/helper: its state of ";
    assert!(said.err.starts_with(taken), "{said:?}");
    assert!(said.err.ends_with(" ago\nasked before: first\none\n"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_goes_on_after_a_kill_where_it_stood() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::reply("I am Ann"));
    server.then(Row::hang());
    server.then(Row::reply("Ann, as I said"));
    server.then(Row::reply("bye"));
    let folder = tree(&server);
    let mut first = start(&folder, &["run", "t.toml", "--chat"]);
    std::io::Write::write_all(first.0.stdin.as_mut().unwrap(), b"who are you?\nwho?\n").unwrap();
    server.asked(2).await;
    drop(first);
    let folder = std::sync::Arc::new(folder);
    let there = std::sync::Arc::clone(&folder);
    let chat = move || there.run(&["run", "t.toml", "--chat"], "bye\n");
    let said = tokio::task::spawn_blocking(chat).await.unwrap();
    assert_eq!(said.out, "asked before: who?\nAnn, as I said\nbye\n", "{said:?}");
    let told: Vec<_> = server.requests()[3].json()["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["content"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(told, ["who are you?", "I am Ann", "who?", "Ann, as I said", "bye"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_waited_for_a_person_at_a_kill_is_answered_by_one_afterwards() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::tool_calls([("boss", "{\"request\":\"may I?\"}")]));
    server.then(Row::reply("you may"));
    let agents =
        "[people.boss]\nexpiry = \"1h\"\n[agents.a]\nmodel = \"llm\"\ntools = [\"boss\"]\n";
    // A profile that keeps every step.
    let text = format!("profile = \"finance\"\n{}", text(&server, agents));
    let folder = Folder::with("t.toml", &text);
    let mut first = start(&folder, &["run", "t.toml", "hello"]);
    let err = first.0.stderr.take().unwrap();
    let told = tokio::task::spawn_blocking(move || {
        BufReader::new(err).lines().map_while(Result::ok).find(|line| line.contains("waits"))
    });
    assert!(told.await.unwrap().is_some_and(|line| line.contains("boss-1 waits for a person")));
    drop(first);
    let folder = std::sync::Arc::new(folder);
    let there = std::sync::Arc::clone(&folder);
    let input = "/pending\n/answer boss-1 yes\n";
    let chat = move || there.run(&["run", "t.toml", "--chat"], input);
    let said = tokio::task::spawn_blocking(chat).await.unwrap();
    assert!(said.out.ends_with("decided: boss-1\nasked before: hello\nyou may\n"), "{said:?}");
    assert_eq!(server.count(), 2, "what the model had said was not asked again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_store_is_refused_and_told_who_holds_it() {
    let server = StubServer::start().await.unwrap();
    server.otherwise(Row::hang());
    let folder = tree(&server);
    let first = start(&folder, &["run", "t.toml", "hello"]);
    server.asked(1).await;
    let said = run(&folder, &["run", "t.toml", "hello"]).await;
    let expected = format!(
        "mainstay: store \"state\" is in use by process {}; stop it, or use another folder\n",
        first.0.id()
    );
    assert_eq!((said.code, said.err), (1, expected));
    assert_eq!(server.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_other_agents_is_refused_with_the_difference_until_it_is_adopted() {
    let server = StubServer::start().await.unwrap();
    let folder = tree(&server);
    assert_eq!(run(&folder, &["run", "t.toml", "hello"]).await.code, 0);
    let other = text(&server, "[agents.other]\nmodel = \"llm\"\n");
    std::fs::write(folder.0.join("t.toml"), other).unwrap();
    let said = run(&folder, &["run", "t.toml", "hello"]).await;
    assert_eq!(said.code, 2);
    for part in [
        "mainstay: the store belongs to another tree: - t/helper",
        "+ t/other",
        "; --adopt takes the store up",
    ] {
        assert!(said.err.contains(part), "{said:?}");
    }
    let said = run(&folder, &["run", "t.toml", "--adopt", "hello"]).await;
    assert_eq!((said.code, &*said.out), (0, "ok\n"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_of_an_agent_that_is_no_more_is_set_aside_and_told() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::hang());
    let folder = tree(&server);
    let first = start(&folder, &["run", "t.toml", "hello"]);
    server.asked(1).await;
    drop(first);
    let other = text(&server, "[agents.other]\nmodel = \"llm\"\n");
    std::fs::write(folder.0.join("t.toml"), other).unwrap();
    let said = run(&folder, &["run", "t.toml", "--adopt", "hello"]).await;
    assert_eq!((said.code, &*said.out), (0, "ok\n"), "{said:?}");
    let told = "set aside: request \"";
    assert!(said.err.contains(told) && said.err.contains("t/helper, which is no more"), "{said:?}");
    // Once: it waits for a person from now on, and the tree is the one of this store.
    let said = run(&folder, &["run", "t.toml", "hello"]).await;
    assert_eq!((said.code, said.err.contains(told)), (0, false), "{said:?}");
}

/// The steps at which an agent of this profile was checkpointed, whose model calls a tool five times with
/// six lines each.
async fn checkpoints(profile: &str) -> Vec<u32> {
    checkpoints_of(profile, "builtin = \"escalate\"", "").await
}

/// The same of an agent with these keys and this tool.
async fn checkpoints_of(profile: &str, tool: &str, own: &str) -> Vec<u32> {
    let server = StubServer::start().await.unwrap();
    for call in 0..5 {
        // Another word each time, since the same call again would be served from the record.
        let lines = format!("{call}\\n2\\n3\\n4\\n5\\n6");
        server.then(Row::tool_calls([("write", &*format!("{{\"reason\":\"{lines}\"}}"))]));
    }
    server.then(Row::reply("done"));
    let agents =
        format!("[tools.write]\n{tool}\n[agents.a]\nmodel = \"llm\"\ntools = [\"write\"]\n{own}\n");
    let text = format!("{profile}\n{}", text(&server, &agents));
    let folder = Folder::with("t.toml", &text);
    let said = run(&folder, &["run", "t.toml", "--progress", "go"]).await;
    assert_eq!((said.code, &*said.out), (0, "done\n"), "{said:?}");
    let steps = said.err.lines().filter_map(|line| line.strip_prefix("  t/a: checkpoint at step "));
    steps.map(|step| step.parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_decides_when_agents_are_checkpointed() {
    // Twelve steps in all: the beginning, six of the model's answers, five results. The last one is
    // always kept, with the answer.
    assert_eq!(checkpoints("").await, (1..=12).collect::<Vec<_>>());
    assert_eq!(checkpoints("profile = \"finance\"").await, (1..=12).collect::<Vec<_>>());
    // And before each call of a tool that acts, whatever the profile says.
    let service = checkpoints("profile = \"customer_service\"").await;
    assert_eq!(service, [2, 4, 5, 6, 8, 10, 12]);
    // Six lines a call: the tenth is written with the second, the twentieth with the fourth, the
    // thirtieth with the fifth.
    assert_eq!(checkpoints("profile = \"codegen\"").await, [2, 4, 6, 8, 10, 12]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_can_have_an_interval_of_its_own() {
    // A tool that does nothing to the world: nothing is kept for its sake.
    let tool = "builtin = \"default\"\ntext = \"written\"";
    let all: Vec<_> = (1..=12).collect();
    for (own, kept) in [
        ("", &all[..]),
        ("checkpoint = { steps = 5 }", &[5, 10, 12]),
        // Six lines a call: the tenth comes with the second, the twentieth with the fourth, the
        // thirtieth with the fifth.
        ("checkpoint = { lines = 10 }", &[4, 8, 10, 12]),
        ("checkpoint = { effects = true }", &[12]),
    ] {
        assert_eq!(checkpoints_of("", tool, own).await, kept, "{own}");
    }
    // It goes before what the profile says.
    let own = checkpoints_of("profile = \"finance\"", tool, "checkpoint = { steps = 5 }").await;
    assert_eq!(own, [5, 10, 12]);
    assert_eq!(checkpoints_of("profile = \"codegen\"", tool, "").await, [4, 8, 10, 12]);
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_drawn_as_often_as_the_file_says_and_for_its_scope() {
    let server = StubServer::start().await.unwrap();
    server.otherwise(Row::reply("hi"));
    let rest =
        "[supervisor]\nscope = \"session\"\nlines_every = \"50m\"\n[agents.a]\nmodel = \"llm\"\n";
    let folder = Folder::with("t.toml", &text(&server, rest));
    let said = folder.run(&["check", "t.toml"], "");
    assert!(said.out.contains("the tree: session"), "{said:?}");
    assert!(said.out.contains("a line every 50 min"), "{said:?}");
    for _ in 0..2 {
        let said = run(&folder, &["run", "t.toml", "hello"]).await;
        assert_eq!((said.code, &*said.out), (0, "hi\n"), "{said:?}");
    }
    let tree = folder.run(&["tree", "t.toml", "--format", "json"], "");
    let tree: serde_json::Value = serde_json::from_str(&tree.out).unwrap();
    assert_eq!(tree["root"]["scope"], "session", "{tree:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_and_a_schema_of_the_file_bind_the_agent() {
    let server = StubServer::start().await.unwrap();
    let tool = "[tools.write]\nbuiltin = \"default\"\ntext = \"written\"\n";
    let rest = format!(
        "{tool}[agents.a]\nmodel = \"llm\"\ntools = [\"write\"]\nbudget = {{ tokens = 10 }}\n"
    );
    let folder = Folder::with("t.toml", &text(&server, &rest));
    let said = run(&folder, &["run", "t.toml", "go"]).await;
    assert_ne!(said.code, 0, "{said:?}");
    assert!(said.err.contains("budget"), "{said:?}");
    assert_eq!(server.count(), 0, "the model is not asked on credit");
    let said = folder.run(&["check", "t.toml"], "");
    assert!(said.out.contains("at most 10 tokens"), "{said:?}");

    server.then(Row::reply("about seven"));
    server.then(Row::reply("{\"count\":\"seven\"}"));
    server.then(Row::reply("{\"count\":7}"));
    let rest = "[agents.a]\nmodel = \"llm\"\nanswer_schema = \"answer.json\"\n";
    let folder = Folder::with("t.toml", &text(&server, rest));
    let schema = serde_json::json!({
        "type": "object", "properties": { "count": { "type": "integer" } }, "required": ["count"],
    });
    std::fs::write(folder.0.join("answer.json"), schema.to_string()).unwrap();
    let said = run(&folder, &["run", "t.toml", "how many?"]).await;
    assert_eq!((said.code, &*said.out), (0, "{\"count\":7}\n"), "{said:?}");
    let told = server.requests().pop().unwrap().json()["messages"].to_string();
    assert!(told.contains("not JSON alone") && told.contains("count"), "{told}");
    let asked = server.requests()[0].json();
    assert!(asked["messages"][0]["content"].as_str().unwrap().contains(&schema.to_string()));
    assert_eq!(asked["response_format"]["json_schema"]["schema"], schema);
    // What would be passed over is pointed at.
    std::fs::write(folder.0.join("answer.json"), "{\"pattern\":\"^a\"}").unwrap();
    let said = folder.run(&["check", "t.toml"], "");
    let why = "error: the schema cannot be held: the keyword `pattern` at its root is not checked\n --> t.toml:";
    assert!(said.code == 2 && said.err.starts_with(why), "{said:?}");
    // So is what a model is asked for without an agent.
    let rest = "[ask]\nresponse_format = \"schema\"\nschema = \"answer.json\"\n";
    let folder = Folder::with("t.toml", &text(&server, rest));
    std::fs::write(folder.0.join("answer.json"), "{\"pattern\":\"^a\"}").unwrap();
    let said = folder.run(&["check", "t.toml"], "");
    assert!(said.code == 2 && said.err.starts_with(why), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn durability_decides_what_is_written() {
    let server = StubServer::start().await.unwrap();
    for (durability, printed) in [
        ("sync", "  store  sync; "),
        ("async", "  store  async: a power cut may take the last writes; "),
    ] {
        let text = text(&server, "[agents.a]\nmodel = \"llm\"\n")
            .replace("[models", &format!("durability = \"{durability}\"\n[models"));
        let folder = Folder::with("t.toml", &text);
        let page = run(&folder, &["check", "t.toml"]).await.out;
        assert!(page.contains(printed), "{page}");
        assert_eq!(run(&folder, &["run", "t.toml", "hello"]).await.code, 0);
        assert!(folder.0.join("state").is_dir(), "{durability}");
    }
    let memory = text(&server, "[agents.a]\nmodel = \"llm\"\n")
        .replace("path = \"state\"", "durability = \"memory\"");
    let folder = Folder::with("t.toml", &memory);
    assert_eq!(run(&folder, &["run", "t.toml", "hello"]).await.code, 0);
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 1, "only the file itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_goes_on_after_a_kill_between_two_questions_until_it_is_forgotten() {
    let server = StubServer::start().await.unwrap();
    for text in ["hello Ann", "Ann", "who?", "nobody"] {
        server.then(Row::reply(text));
    }
    let folder = std::sync::Arc::new(tree(&server));
    let mut first = start(&folder, &["run", "t.toml", "--chat"]);
    let mut input = first.0.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, b"I am Ann\n").unwrap();
    // The next prompt is read once the answer is kept.
    std::io::Write::write_all(&mut input, b"/help\n").unwrap();
    let mut out = BufReader::new(first.0.stdout.take().unwrap()).lines();
    assert_eq!(out.next().unwrap().unwrap(), "hello Ann");
    assert!(out.next().unwrap().unwrap().starts_with("/tree"));
    drop(first);
    let chat = |input: &'static str| {
        let there = std::sync::Arc::clone(&folder);
        tokio::task::spawn_blocking(move || there.run(&["run", "t.toml", "--chat"], input))
    };
    let said = chat("who am I\n").await.unwrap();
    assert!(said.err.contains("the conversation goes on where it was left"), "{said:?}");
    let said = chat("/forget\nwho am I\n").await.unwrap();
    assert_eq!(said.out, "who?\n", "{said:?}");
    // One question alone has no conversation, and none is begun by it.
    run(&folder, &["run", "t.toml", "and now"]).await;
    let told = |request: usize| {
        let messages = server.requests()[request].json()["messages"].clone();
        let texts = messages.as_array().unwrap().iter().map(|it| it["content"].clone());
        texts.map(|text| text.as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(told(1), ["I am Ann", "hello Ann", "who am I"]);
    assert_eq!(told(2), ["who am I"]);
    assert_eq!(told(3), ["and now"]);
}

/// What the files of a folder hold, by name.
fn files(folder: &std::path::Path) -> Vec<(String, Vec<u8>)> {
    let all = std::fs::read_dir(folder).unwrap().map(|entry| {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        (name, std::fs::read(entry.path()).unwrap())
    });
    let mut all: Vec<_> = all.collect();
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn check_reads_the_store_and_leaves_it_as_it_is() {
    let server = StubServer::start().await.unwrap();
    let folder = tree(&server);
    let state = folder.0.join("state");
    server.then(Row::reply("hi"));
    run(&folder, &["run", "t.toml", "hello"]).await;
    let before = files(&state);
    let said = run(&folder, &["check", "t.toml"]).await;
    assert_eq!((said.code, &*said.err), (0, ""), "{said:?}");
    assert_eq!(files(&state), before);
    // Another process is at work with it, which is nothing wrong.
    server.then(Row::hang());
    let first = start(&folder, &["run", "t.toml", "hello"]);
    server.asked(2).await;
    let said = run(&folder, &["check", "t.toml"]).await;
    assert_eq!((said.code, &*said.err), (0, ""), "{said:?}");
    drop(first);

    let (log, mut bytes) =
        files(&state).into_iter().find(|(name, _)| name.ends_with(".seg")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(state.join(&log), bytes).unwrap();
    let before = files(&state);
    let said = run(&folder, &["check", "t.toml"]).await;
    let why = "error: the store cannot be read: ";
    assert!(said.err.starts_with(why) && said.err.contains(&log), "{said:?}");
    assert_eq!((said.code, &*said.out), (1, ""), "{said:?}");
    assert_eq!(files(&state), before);
}
