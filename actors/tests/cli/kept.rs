//! Killed in the middle, with endpoints of every wire and with people: a request is kept, and answered once.

use std::io::{BufRead, BufReader, Read, Write};

use mainstay_actors::stub_server::{Row, StubServer};
use serde_json::{Value, json};

use super::harness::{Folder, Said};
use super::models::run;
use super::store::{Killed, start};

/// Until the process says this on standard error.
async fn says(process: &mut Killed, what: &'static str) {
    let err = process.0.stderr.take().unwrap();
    let heard =
        move || BufReader::new(err).lines().map_while(Result::ok).any(|it| it.contains(what));
    assert!(tokio::task::spawn_blocking(heard).await.unwrap(), "it never said {what:?}");
}

async fn chat(folder: &Folder, input: &'static str) -> Said {
    let mut command = super::harness::command(&folder.0, &["run", "t.toml", "--chat"]);
    let talk = move || {
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        super::harness::said(child.wait_with_output().unwrap())
    };
    tokio::task::spawn_blocking(talk).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_to_a_group_of_every_wire_survives_kill_after_kill_and_is_answered_once() {
    let gone = |body: Value| Row::new(404, body.to_string());
    let by_openai = || {
        gone(
            json!({"error": {"message": "no such model", "type": "invalid_request_error", "code": "model_not_found"}}),
        )
    };
    let claude =
        json!({"type": "error", "error": {"type": "not_found_error", "message": "model: m"}});
    let gemini =
        json!({"error": {"code": 404, "message": "models/m is not found", "status": "NOT_FOUND"}});
    let ollama = json!({"message": {"role": "assistant", "content": "by the last"}, "done": true, "done_reason": "stop"});
    let rows: [(&str, Vec<Row>); 5] = [
        ("openai", vec![Row::hang(), by_openai(), by_openai()]),
        ("responses", vec![Row::hang(), by_openai()]),
        ("anthropic", vec![gone(claude)]),
        ("gemini", vec![gone(gemini)]),
        ("ollama-native", vec![Row::new(200, ollama.to_string())]),
    ];
    let (mut servers, mut text) = (Vec::new(), "[store]\npath = \"state\"\n".to_owned());
    for (kind, rows) in rows {
        let server = StubServer::start().await.unwrap();
        rows.into_iter().for_each(|row| server.then(row));
        let url = server.url();
        text +=
            &format!("[models.{kind}]\nkind = \"{kind}\"\nbase_url = \"{url}\"\nmodel = \"m\"\n");
        servers.push(server);
    }
    text += "[groups.desk]\nkind = \"model\"\nmembers = [\"openai\", \"responses\", \"anthropic\", \"gemini\", \"ollama-native\"]\n";
    let folder = Folder::with("t.toml", &text);
    for server in &servers[..2] {
        let count = server.count() + 1;
        let process = start(&folder, &["run", "t.toml", "where is it?"]);
        server.asked(count).await;
        drop(process);
    }
    let said = run(&folder, &["run", "t.toml", "--json", "where is it?"]).await;
    let answer: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&answer["text"], &answer["taken_up"]), (&"by the last".into(), &true.into()));
    assert_eq!(answer["served_by"], "t/desk/ollama-native", "{answer}");
    let asked: Vec<_> = servers.iter().map(StubServer::count).collect();
    assert_eq!(asked, [3, 2, 1, 1, 1]);
    for server in &servers {
        let bodies = server.requests();
        assert!(bodies.iter().all(|seen| seen.json().to_string().contains("where is it?")));
    }
    // It has its answer: the next process finds nothing open.
    servers[0].then(Row::reply("another"));
    let said = run(&folder, &["run", "t.toml", "where is it?"]).await;
    assert_eq!((&*said.out, &*said.err), ("another\n", ""), "{said:?}");
}

/// A group that keeps its requests, whose two members fail, and where somebody may decide.
fn tree(server: &StubServer, asked: &str, points: &str) -> Folder {
    let url = server.url();
    let text = format!(
        r#"[store]
path = "state"
[policy]
max_retries = 0
[models.far]
kind = "anthropic"
base_url = "{url}"
model = "far"
[models.other]
kind = "openai"
base_url = "{url}"
model = "other"
[groups.llm]
kind = "model"
members = ["far", "other"]
{asked}
[points]
{points}"#
    );
    Folder::with("t.toml", &text)
}

fn down() -> Row {
    Row::error(500, "server_error", "down")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_who_was_asked_before_a_kill_is_asked_again_and_answers_once() {
    for asked in ["", "[agents.a]\nmodel = \"llm\"\n"] {
        let server = StubServer::start().await.unwrap();
        server.otherwise(down());
        let folder = tree(&server, asked, "after_substitute = \"10m\"\n");
        let mut first = start(&folder, &["run", "t.toml", "--chat"]);
        let stdin = first.0.stdin.as_mut().unwrap();
        stdin.write_all(b"hello\n").unwrap();
        says(&mut first, "#1 waits for a person: t/llm/other").await;
        drop(first);
        let said = chat(&folder, "/answer #1 by hand\nand now?\n/answer #2 by hand, too\n").await;
        let expected = "decided: #1\nasked before: hello\nby hand\ndecided: #2\nby hand, too\n";
        assert_eq!(said.out, expected, "{said:?}");
        let asked_of = |model: &str| {
            let seen = server.requests();
            seen.iter().filter(|seen| seen.json()["model"] == model).count()
        };
        assert_eq!((asked_of("far"), asked_of("other")), (3, 3), "{said:?}");
        // Nothing is left of it but the conversation.
        server.otherwise(Row::reply("well"));
        let said = chat(&folder, "still there?\n").await;
        assert!(said.out == "well\n" && !said.err.contains("open request"), "{said:?}");
        let last = server.requests().pop().unwrap().json()["messages"].to_string();
        assert!(last.contains("\"by hand\"") && last.contains("\"by hand, too\""), "{last}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_point_whose_process_was_killed_opens_again_and_its_default_is_done_in_its_time() {
    let server = StubServer::start().await.unwrap();
    server.otherwise(down());
    let folder = tree(&server, "", "after_retry = \"1s\"\notherwise = \"continue\"\n");
    let text = std::fs::read_to_string(folder.0.join("t.toml")).unwrap();
    let retries = text.replace("max_retries = 0", "max_retries = 1\nmax_delay = \"1ms\"");
    std::fs::write(folder.0.join("t.toml"), retries).unwrap();
    let mut first = start(&folder, &["run", "t.toml", "hello"]);
    says(&mut first, "#1 waits for a person: t/llm/far").await;
    drop(first);
    server.then(down());
    server.then(down());
    server.then(Row::reply("from the other"));
    let began = std::time::Instant::now();
    let said = run(&folder, &["run", "t.toml", "hello"]).await;
    assert_eq!((said.code, &*said.out), (0, "from the other\n"), "{said:?}");
    assert!(began.elapsed() >= std::time::Duration::from_secs(1), "it waited for a person");
    assert_eq!(server.count(), 2 + 3, "{said:?}");
    server.otherwise(Row::error(401, "invalid_api_key", "no"));
    let said = run(&folder, &["run", "t.toml", "--json", "hello"]).await;
    assert!(!said.out.contains("from the other"), "what has its answer is over: {said:?}");
}

/// More than a pipe holds: who prints it is at it until somebody has read it all.
fn long(said: &str) -> String {
    format!("{said} {}", "more ".repeat(30_000))
}

/// Until the process has begun to print, which it cannot end.
async fn prints(process: &mut Killed) {
    let mut out = process.0.stdout.take().unwrap();
    let read = move || out.read_exact(&mut [0]).map(|()| out);
    // It is read no further, and stays open.
    std::mem::forget(tokio::task::spawn_blocking(read).await.unwrap().unwrap());
}

const AGENT: &str = "[agents.a]\nmodel = \"m\"\n";
const GROUP: &str = "[groups.desk]\nkind = \"model\"\nmembers = [\"m\"]\n";

fn keeper(server: &StubServer, asked: &str) -> Folder {
    let (store, url) = ("[store]\npath = \"state\"\n", server.url());
    let model = format!("[models.m]\nkind = \"openai\"\nbase_url = \"{url}\"\nmodel = \"m\"\n");
    Folder::with("t.toml", &format!("{store}{model}{asked}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_kept_and_not_told_is_told_by_the_next_process_and_asked_once() {
    for asked in [AGENT, GROUP] {
        let server = StubServer::start().await.unwrap();
        let folder = keeper(&server, asked);
        for (arguments, next) in [
            (&["run", "t.toml", "pay it"][..], "pay it"),
            (&["run", "t.toml", "--json", "pay it"], "pay it"),
            (&["run", "t.toml", "--key", "k", "pay it"], "another"),
            (&["run", "t.toml", "--json", "pay it"], "another"),
        ] {
            let count = server.count();
            server.then(Row::reply(&long("paid")));
            let mut process = start(&folder, arguments);
            prints(&mut process).await;
            drop(process);
            server.then(Row::reply("and this"));
            let said = run(&folder, &["run", "t.toml", "--json", next]).await;
            let answer: Value = serde_json::from_str(&said.out).unwrap();
            let (told, asked) = match next {
                "pay it" => (&answer, 1),
                _ => (&answer["before"][0], 2),
            };
            assert_eq!((&told["text"], &told["taken_up"]), (&long("paid").into(), &true.into()));
            assert_eq!(server.count(), count + asked, "{arguments:?}");
            // It has been told: the same words are another question.
            if asked == 2 {
                server.then(Row::reply("and this"));
            }
            let said = run(&folder, &["run", "t.toml", next]).await;
            assert_eq!((&*said.out, &*said.err), ("and this\n", ""), "{arguments:?}: {said:?}");
            assert_eq!(server.count(), count + asked + 1, "{arguments:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_of_a_conversation_that_was_kept_and_not_told_is_told_and_is_a_part_of_it_once() {
    let server = StubServer::start().await.unwrap();
    let folder = keeper(&server, AGENT);
    server.then(Row::reply(&long("yes")));
    let mut process = start(&folder, &["run", "t.toml", "--chat"]);
    process.0.stdin.as_mut().unwrap().write_all(b"is it?\n").unwrap();
    prints(&mut process).await;
    drop(process);
    for (question, before) in [
        ("sure?\n", format!("asked before: is it?\n{}\n", long("yes"))),
        ("really?\n", String::new()),
    ] {
        server.then(Row::reply("so it is"));
        let said = chat(&folder, question).await;
        assert!(said.out == format!("{before}so it is\n"), "{:.200} {:?}", said.out, said.err);
    }
    let last = server.requests().pop().unwrap().json()["messages"].to_string();
    let told = |what: &str| last.matches(what).count();
    assert_eq!((told("is it?"), told("yes more"), told("so it is"), told("sure?")), (1, 1, 1, 1));
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_could_not_be_written_is_not_told_and_its_question_not_asked_again() {
    let server = StubServer::start().await.unwrap();
    let folder = keeper(&server, AGENT);
    for json in [&[][..], &["--json"]] {
        let arguments = [&["run", "t.toml", "pay it"][..], json].concat();
        for is_read in [true, false] {
            let count = server.count();
            server.then(Row::reply("paid"));
            let mut command = super::harness::command(&folder.0, &arguments);
            if is_read {
                // A full disk.
                command.stdout(std::fs::File::options().write(true).open("/dev/full").unwrap());
            }
            let mut child = command.spawn().unwrap();
            drop(child.stdout.take());
            let ended = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
            assert_eq!(ended.await.unwrap().status.code(), Some(i32::from(is_read)));
            assert_eq!(server.count(), count + 1);
            let said = run(&folder, &arguments).await;
            assert!(said.code == 0 && said.out.contains("paid"), "{arguments:?}: {said:?}");
            assert_eq!(server.count(), count + 1, "{arguments:?}: it was paid");
        }
    }
    let said = run(&folder, &["run", "t.toml", "--json"]).await;
    assert!(said.out.contains("not_asked"), "all of it is told: {said:?}");
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_beside_another_answer_and_cannot_be_written_is_told_again() {
    let server = StubServer::start().await.unwrap();
    let folder = keeper(&server, AGENT);
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    let ends = |mut command: std::process::Command| {
        tokio::task::spawn_blocking(move || command.spawn().unwrap().wait_with_output().unwrap())
    };
    // Standard output, which the answer itself is written to, can be written, and cannot.
    for is_written in [true, false] {
        let count = server.count();
        server.then(Row::reply("paid 7"));
        server.then(Row::reply("paid 8"));
        let mut first = super::harness::command(&folder.0, &["run", "t.toml", "pay 7"]);
        first.stdout(full());
        assert_eq!(ends(first).await.unwrap().status.code(), Some(1));
        let mut second = super::harness::command(&folder.0, &["run", "t.toml", "pay 8"]);
        second.stderr(full());
        if !is_written {
            second.stdout(full());
        }
        assert_eq!(ends(second).await.unwrap().status.success(), is_written);
        assert_eq!(server.count(), count + 2);
        let said = run(&folder, &["run", "t.toml", "pay 7"]).await;
        assert!(said.code == 0 && said.out.contains("paid 7"), "{said:?}");
        assert_eq!(said.err.contains("paid 8"), !is_written, "{said:?}");
        assert_eq!(server.count(), count + 2, "it was paid");
        let said = run(&folder, &["run", "t.toml", "--json"]).await;
        assert!(said.out.contains("not_asked"), "all of it is told: {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_ends_while_the_next_one_is_typed_is_told_once() {
    let server = StubServer::start().await.unwrap();
    let folder = keeper(&server, AGENT);
    for (typed, before, text) in [("first", 0, "one"), ("second", 1, "two")] {
        let count = server.count();
        server.then(Row::hang());
        let process = start(&folder, &["run", "t.toml", "first"]);
        server.asked(count + 1).await;
        drop(process);
        let answer = format!("one, of {typed}");
        server.then(Row::reply(&answer));
        server.then(Row::reply("two"));
        let mut process = start(&folder, &["run", "t.toml", "--json"]);
        let store = folder.0.join("state");
        tokio::task::spawn_blocking(move || while !holds(&store, &answer) {}).await.unwrap();
        process.0.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
        let mut out = process.0.stdout.take().unwrap();
        let read = move || {
            let mut text = String::new();
            out.read_to_string(&mut text).map(|_| text)
        };
        let said = tokio::task::spawn_blocking(read).await.unwrap().unwrap();
        let answer: Value = serde_json::from_str(&said).unwrap();
        assert!(answer["text"].as_str().unwrap().starts_with(text), "{said}");
        assert_eq!(answer["before"].as_array().map_or(0, Vec::len), before, "{said}");
    }
}

/// Whether a file of the folder has the text in it.
pub(super) fn holds(folder: &std::path::Path, text: &str) -> bool {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|it| std::fs::read(it.path()).ok()).any(|bytes| {
        let mut windows = bytes.windows(text.len());
        windows.any(|window| window == text.as_bytes())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_of_a_conversation_is_not_the_answer_to_the_same_words_and_not_lost_by_them() {
    let server = StubServer::start().await.unwrap();
    let folder = keeper(&server, AGENT);
    for is_open in [false, true] {
        let mut process = start(&folder, &["run", "t.toml", "--chat"]);
        let count = server.count();
        let row = if is_open { Row::hang() } else { Row::reply(&long("deleted")) };
        server.then(row);
        process.0.stdin.as_mut().unwrap().write_all(b"yes\n").unwrap();
        match is_open {
            true => server.asked(count + 1).await,
            false => prints(&mut process).await,
        }
        drop(process);
        if is_open {
            server.then(Row::reply("deleted more"));
        }
        server.then(Row::reply("yes to what?"));
        let said = run(&folder, &["run", "t.toml", "--json", "yes"]).await;
        let answer: Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!(answer["text"], "yes to what?", "{is_open}");
        let told = answer["before"][0]["text"].as_str().unwrap();
        assert!(told.starts_with("deleted more"), "{is_open}: {told:.50}");
        server.then(Row::reply("gone"));
        let said = chat(&folder, "and now?\n").await;
        assert_eq!(said.out, "gone\n", "{is_open}: it was told");
        let last = server.requests().pop().unwrap().json()["messages"].to_string();
        let told = |what: &str| last.matches(what).count();
        let turns = 1 + usize::from(is_open);
        assert_eq!((told("deleted more"), told("yes to what?")), (turns, 0), "{is_open}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_was_told_is_not_told_again() {
    let server = StubServer::start().await.unwrap();
    server.otherwise(Row::error(400, "bad_thing", "no"));
    let folder = keeper(&server, AGENT);
    for json in [&[][..], &["--json"]] {
        let said = run(&folder, &[&["run", "t.toml", "first"][..], json].concat()).await;
        assert_eq!(said.code, 1, "{said:?}");
    }
    let said = chat(&folder, "first\n").await;
    assert!(!said.out.contains("before") && said.err.contains("bad_thing"), "{said:?}");
    server.otherwise(Row::reply("well"));
    let said = run(&folder, &["run", "t.toml", "first"]).await;
    assert_eq!((&*said.out, &*said.err), ("well\n", ""), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_can_stand_for_nothing_and_a_store_that_is_not_there_are_wrong_arguments() {
    let folder =
        Folder::with("t.toml", "[store]\npath = \"state\"\n[models.llm]\nkind = \"local\"\n");
    let long = "k".repeat(4097);
    for (key, why) in
        [("", "is empty"), (&*long, "has 4097 bytes"), ("undo-7", "begins with \"undo-\"")]
    {
        let said = run(&folder, &["run", "t.toml", "--key", key, "hello"]).await;
        assert_eq!((said.code, &*said.out), (2, ""), "{said:?}");
        assert!(said.err.starts_with(&format!("mainstay: --key {why}")), "{said:?}");
    }
    assert!(!folder.0.join("state").exists());
    let said = run(&folder, &["run", "t.toml", "--key", &long[1..], "hello"]).await;
    assert_eq!(said.code, 0, "{said:?}");
    for store in ["", "[store]\ndurability = \"memory\"\n"] {
        let text = format!("{store}[models.llm]\nkind = \"local\"\n");
        let folder = Folder::with("t.toml", &text);
        let said = run(&folder, &["run", "t.toml", "--adopt", "hello"]).await;
        assert_eq!((said.code, &*said.out), (2, ""), "{said:?}");
        assert!(
            said.err.starts_with(
                "mainstay: --adopt takes up what a store keeps: t.toml has no [store]"
            ),
            "{said:?}"
        );
    }
}

/// An agent that pays by leave of a person, and what it was heard to say on standard error until it asked for that.
async fn asks_leave(server: &StubServer) -> (Folder, Killed, BufReader<std::process::ChildStderr>) {
    server.then(Row::tool_calls([("g", "{\"n\":7}")]));
    let folder = keeper(
        server,
        "[people.lead]\nexpiry = \"10m\"\notherwise = \"refuse\"\n[groups.g]\nkind = \"tool\"\nmembers = [\"lead\", \"box.pay\"]\n\
         [tools.box]\ncommand = [\"sh\", \"s.sh\"]\n[tools.box.effects]\nback = \"idempotent\"\npay = \"irreversible\"\n\
         [agents.a]\nmodel = \"m\"\ntools = [\"g\"]\n",
    );
    std::fs::write(folder.0.join("s.sh"), super::ended::PAYS).unwrap();
    let mut process = start(&folder, &["run", "t.toml", "--chat"]);
    process.0.stdin.as_mut().unwrap().write_all(b"pay it\n").unwrap();
    let mut err = BufReader::new(process.0.stderr.take().unwrap());
    let read = move || {
        until(&mut err, "lead-1 waits for a person");
        err
    };
    let err = tokio::task::spawn_blocking(read).await.unwrap();
    (folder, process, err)
}

fn until(said: &mut impl BufRead, what: &str) {
    assert!(said.lines().map_while(Result::ok).any(|it| it.contains(what)), "{what}");
}

fn payments(folder: &Folder) -> usize {
    std::fs::read_to_string(folder.0.join("pays")).map_or(0, |pays| pays.lines().count())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_act_that_waits_for_leave_when_its_process_ends_has_not_happened_and_waits_again() {
    for signal in ["KILL", "TERM"] {
        for (word, paid) in [("/pass lead-1\n", 1), ("/refuse lead-1 no\n", 0)] {
            let server = StubServer::start().await.unwrap();
            let (folder, mut process, err) = asks_leave(&server).await;
            let pid = process.0.id().to_string();
            let sent = std::process::Command::new("kill").args(["-s", signal, &pid]).status();
            assert!(sent.unwrap().success());
            let ends = move || (process.0.wait().unwrap(), drop(err));
            tokio::task::spawn_blocking(ends).await.unwrap();
            assert_eq!(payments(&folder), 0, "{signal}");
            server.otherwise(Row::reply("so it is"));
            let said = chat(&folder, word).await;
            assert!(said.out.ends_with("so it is\n"), "{signal} {word}: {said:?}");
            assert!(!said.err.contains("not settled"), "{signal} {word}: {said:?}");
            assert_eq!(payments(&folder), paid, "{signal} {word}: {said:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_act_that_waits_for_leave_when_it_is_called_off_does_not_happen_any_more() {
    let server = StubServer::start().await.unwrap();
    let (folder, mut process, mut err) = asks_leave(&server).await;
    let pid = process.0.id().to_string();
    let sent = std::process::Command::new("kill").args(["-s", "INT", &pid]).status();
    assert!(sent.unwrap().success());
    let ended = tokio::task::spawn_blocking(move || {
        until(&mut err, "called off");
        let mut stdin = process.0.stdin.take().unwrap();
        let mut said = BufReader::new(process.0.stdout.take().unwrap());
        // The agent hears a moment later that its caller has left.
        let mut pending = String::new();
        while pending != "nothing waits for a person\n" {
            stdin.write_all(b"/pending\n").unwrap();
            pending.clear();
            assert_ne!(said.read_line(&mut pending).unwrap(), 0);
        }
        stdin.write_all(b"/pass lead-1\n").unwrap();
        drop(stdin);
        let (mut rest, mut out) = (String::new(), String::new());
        err.read_to_string(&mut rest).unwrap();
        said.read_to_string(&mut out).unwrap();
        process.0.wait().unwrap();
        (out, rest)
    });
    let (out, rest) = ended.await.unwrap();
    assert_eq!(payments(&folder), 0, "{out} {rest}");
    for false_alarm in ["may have been done", "not settled", "in flight"] {
        assert!(!rest.contains(false_alarm), "{out} {rest}");
    }
    assert!(!out.contains("decided"), "nobody waits any more: {out} {rest}");
}

/// It has a state of its own of that request, from before the other one took it over.
#[tokio::test(flavor = "multi_thread")]
async fn who_had_a_question_before_another_who_has_acted_is_told_of_that_by_the_next_process() {
    let (first, second) = (StubServer::start().await.unwrap(), StubServer::start().await.unwrap());
    let model = |name: &str, server: &StubServer| {
        let url = server.url();
        format!("[models.{name}]\nkind = \"openai\"\nbase_url = \"{url}\"\nmodel = \"m\"\n")
    };
    let agent = |name: &str| {
        format!("[agents.{name}]\nmodel = \"m{name}\"\ntools = [\"box.pay\", \"box.back\"]\n")
    };
    let text = format!(
        "entry = \"desk\"\n[store]\npath = \"state\"\n{}{}[tools.box]\ncommand = [\"sh\", \"s.sh\"]\n\
         [tools.box.effects]\nback = \"idempotent\"\npay = \"irreversible\"\n{}{}\
         [groups.desk]\nkind = \"step\"\nmembers = [\"a\", \"b\"]\n",
        model("ma", &first),
        model("mb", &second),
        agent("a"),
        agent("b"),
    );
    let folder = Folder::with("t.toml", &text);
    std::fs::write(folder.0.join("s.sh"), super::ended::PAYS).unwrap();
    first.then(Row::error(404, "model_not_found", "no such model"));
    second.then(Row::tool_calls([("pay", "{\"n\":7}")]));
    second.then(Row::hang());
    let process = start(&folder, &["run", "t.toml", "pay it"]);
    second.asked(2).await;
    drop(process);
    assert_eq!((first.count(), payments(&folder)), (1, 1));
    // At another step, so under another key.
    first.then(Row::tool_calls([("back", "{\"n\":1}")]));
    first.then(Row::tool_calls([("pay", "{\"n\":7}")]));
    first.then(Row::reply("it was paid"));
    let said = run(&folder, &["run", "t.toml", "pay it"]).await;
    assert_eq!(said.out, "it was paid\n", "{said:?}");
    assert_eq!(payments(&folder), 1, "{said:?}");
    let told = first.requests()[1].json()["messages"].to_string();
    assert!(told.contains("taken back to its beginning"), "{told}");
}
