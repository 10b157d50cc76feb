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
    for part in ["--adopt takes the store up", "- t/helper", "+ t/other"] {
        assert!(said.err.contains(part), "{said:?}");
    }
    let said = run(&folder, &["run", "t.toml", "--adopt", "hello"]).await;
    assert_eq!((said.code, &*said.out), (0, "ok\n"), "{said:?}");
}

/// The steps at which an agent of this profile was checkpointed, whose model calls a tool five times with
/// six lines each.
async fn checkpoints(profile: &str) -> Vec<u32> {
    let server = StubServer::start().await.unwrap();
    for call in 0..5 {
        // Another word each time, since the same call again would be served from the record.
        let lines = format!("{call}\\n2\\n3\\n4\\n5\\n6");
        server.then(Row::tool_calls([("write", &*format!("{{\"reason\":\"{lines}\"}}"))]));
    }
    server.then(Row::reply("done"));
    let agents =
        "[tools.write]\nbuiltin = \"escalate\"\n[agents.a]\nmodel = \"llm\"\ntools = [\"write\"]\n";
    let text = format!("{profile}\n{}", text(&server, agents));
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
