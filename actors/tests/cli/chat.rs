//! Conversations, answers that appear as they are written, and calling them off.

use std::io::Read;
use std::process::Command;

use mainstay_actors::stub_server::{Row, StreamEnd, StubServer};

use super::harness::{Folder, command, said};
use super::models::run;

fn model(server: &StubServer) -> Folder {
    let text = format!(
        "[models.llm]\nkind = \"openai\"\nbase_url = \"{}\"\nmodel = \"m\"\n",
        server.url()
    );
    Folder::with("t.toml", &text)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_appears_as_it_is_written() {
    let server = StubServer::start().await.unwrap();
    // It hangs after the first piece, which comes second: what is read can only be the beginning.
    server.then(Row::reply_stream(["one ", "two"]).end_after(2, StreamEnd::Hang));
    let folder = model(&server);
    let mut child = command(&folder.0, &["run", "t.toml", "--stream", "hello"]).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let read = tokio::task::spawn_blocking(move || {
        let mut first = [0; 4];
        out.read_exact(&mut first).map(|()| first)
    });
    let read = read.await.unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(&read.unwrap(), b"one ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_answer_is_printed_once() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::reply_stream(["one ", "two"]));
    server.then(Row::reply("whole"));
    let folder = model(&server);
    let said = run(&folder, &["run", "t.toml", "--stream", "hello"]).await;
    assert_eq!((said.code, &*said.out, &*said.err), (0, "one two\n", ""));
    assert_eq!(server.requests()[0].json()["stream"], true);
    // Without a terminal and without the flag, nobody listens.
    let said = run(&folder, &["run", "t.toml", "hello"]).await;
    assert_eq!((&*said.out, &server.requests()[1].json()["stream"]), ("whole\n", &false.into()));
}

fn agent(server: &StubServer) -> Folder {
    let text = format!(
        "[models.llm]\nkind = \"openai\"\nbase_url = \"{}\"\nmodel = \"m\"\n[tools.escalate]\nbuiltin = \"escalate\"\n[agents.helper]\nmodel = \"llm\"\ntools = [\"escalate\"]\n",
        server.url()
    );
    Folder::with("t.toml", &text)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agents_answer_appears_as_it_is_written() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::tool_calls([("escalate", "{}")]));
    // It hangs after the first piece, which comes second: what is read can only be the beginning.
    server.then(Row::reply_stream(["one ", "two"]).end_after(2, StreamEnd::Hang));
    let folder = agent(&server);
    let mut child = command(&folder.0, &["run", "t.toml", "--stream", "hello"]).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let read = tokio::task::spawn_blocking(move || {
        let mut first = [0; 4];
        out.read_exact(&mut first).map(|()| first)
    });
    let read = read.await.unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(&read.unwrap(), b"one ");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agents_streamed_answer_is_printed_once_and_json_waits_for_it() {
    let server = StubServer::start().await.unwrap();
    let folder = agent(&server);
    for _ in 0..3 {
        server.then(Row::tool_calls([("escalate", "{}")]));
        server.then(Row::reply_stream(["one ", "two"]));
    }
    let said = run(&folder, &["run", "t.toml", "--stream", "--progress", "hello"]).await;
    assert_eq!((said.code, &*said.out), (0, "one two\n"), "{said:?}");
    assert!(said.err.contains("  calls escalate\n"), "{said:?}");
    // One that breaks off is begun again, and says so.
    server.then(Row::reply_stream(["one ", "two"]).end_after(2, StreamEnd::Reset));
    server.then(Row::reply_stream(["three"]));
    let said = run(&folder, &["run", "t.toml", "--stream", "hello"]).await;
    assert_eq!(said.out, "one two\n", "{said:?}");
    let said = run(&folder, &["run", "t.toml", "--stream", "hello"]).await;
    assert_eq!(said.out, "one two\n", "{said:?}");
    let said = run(&folder, &["run", "t.toml", "--stream", "hello"]).await;
    assert_eq!((&*said.out, said.code), ("one \nthree\n", 0), "{said:?}");
    assert_eq!(said.err, "  (the answer broke off; once more)\n");
    let said = run(&folder, &["run", "t.toml", "--json", "hello"]).await;
    assert_eq!((said.out.lines().count(), said.code), (1, 0), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_written_once_more() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::reply_stream(["one ", "two"]).end_after(2, StreamEnd::Reset));
    server.then(Row::reply_stream(["three"]));
    let folder = model(&server);
    let said = run(&folder, &["run", "t.toml", "--stream", "hello"]).await;
    assert!(said.out.ends_with("three\n"), "{said:?}");
    assert!(said.err.contains("(the answer broke off; once more)"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_another_gives_instead_is_shown_whole() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::reply_stream(["one ", "two"]).end_after(2, StreamEnd::Reset));
    let text = format!(
        "[policy]\nmax_retries = 0\n[models.llm]\nkind = \"openai\"\nbase_url = \"{}\"\nmodel = \"m\"\n[models.sorry]\nkind = \"default\"\ntext = \"later\"\n[groups.g]\nkind = \"model\"\nmembers = [\"llm\", \"sorry\"]\n",
        server.url()
    );
    let folder = Folder::with("t.toml", &text);
    let said = run(&folder, &["run", "t.toml", "--stream", "hello"]).await;
    assert_eq!((said.code, &*said.out), (0, "one \nlater\n"), "{said:?}");
    assert_eq!(said.err, "  (the answer broke off; another one was given)\n");

    server.then(Row::reply_stream(["one ", "two"]).end_after(2, StreamEnd::Reset));
    let said = run(&folder, &["run", "t.toml", "--json", "--stream", "hello"]).await;
    let events =
        said.out.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let events: Vec<_> = events.map(|it| it["event"].as_str().unwrap().to_owned()).collect();
    assert_eq!(events, ["text", "restart", "answer"], "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_calls_the_request_off_down_to_the_wire() {
    let server = StubServer::start().await.unwrap();
    server.otherwise(Row::hang());
    let folder = model(&server);
    let child = command(&folder.0, &["run", "t.toml", "hello"]).spawn().unwrap();
    server.asked(1).await;
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let said = tokio::task::spawn_blocking(move || said(child.wait_with_output().unwrap()));
    let said = said.await.unwrap();
    assert_eq!((said.code, &*said.out, &*said.err), (1, "", "mainstay: called off\n"));
    server.hung_up(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_between_two_questions_is_heard_without_a_terminal_too() {
    let server = StubServer::start().await.unwrap();
    let folder = model(&server);
    let mut child = command(&folder.0, &["run", "t.toml", "--chat"]).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, b"hello\n").unwrap();
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let work = tokio::task::spawn_blocking(move || {
        let interrupt = || {
            let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
            assert!(sent.unwrap().success());
        };
        out.read_exact(&mut [0; 3]).unwrap();
        let mut said = String::new();
        interrupt();
        while !said.contains("Ctrl-C again leaves.\n") {
            let mut bytes = [0; 512];
            let read = err.read(&mut bytes).unwrap();
            assert!(read > 0, "{said}");
            said.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
        interrupt();
        child.wait().unwrap().code()
    });
    assert_eq!(work.await.unwrap(), Some(0));
    drop(stdin);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_more_is_asked_once_nobody_reads_the_answers() {
    let server = StubServer::start().await.unwrap();
    let folder = model(&server);
    let mut child = command(&folder.0, &["run", "t.toml", "--chat"]).spawn().unwrap();
    let work = tokio::task::spawn_blocking(move || {
        let mut stdin = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, b"one\n").unwrap();
        // As `head -1` does.
        let mut out = child.stdout.take().unwrap();
        out.read_exact(&mut [0; 3]).unwrap();
        drop(out);
        std::io::Write::write_all(&mut stdin, b"two\nthree\nfour\n").unwrap();
        child.wait().unwrap().code()
    });
    assert_eq!(work.await.unwrap(), Some(0));
    assert_eq!(server.count(), 2, "its reader has gone by the second answer");
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_cannot_be_written_is_no_success() {
    let server = StubServer::start().await.unwrap();
    let folder = model(&server);
    for arguments in [&["run", "t.toml", "hello"][..], &["check", "t.toml"]] {
        let mut full = command(&folder.0, arguments);
        full.stdout(std::fs::File::options().write(true).open("/dev/full").unwrap());
        let ended = tokio::task::spawn_blocking(move || full.output().unwrap()).await.unwrap();
        let err = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(1), "{err}");
        assert!(err.starts_with("mainstay: standard output: "), "{err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_has_its_commands_and_remembers_what_was_said() {
    let server = StubServer::start().await.unwrap();
    let folder = std::sync::Arc::new(model(&server));
    let there = std::sync::Arc::clone(&folder);
    let input = "one\n/tree\n/effects\n/effects settle\n/effects undone 12\n/nope\ntwo\n/forget\nthree\n/quit\nfour\n";
    let chat = move || there.run(&["run", "t.toml", "--chat", "--history", "lines.txt"], input);
    let said = tokio::task::spawn_blocking(chat).await.unwrap();
    assert_eq!(said.code, 0, "{said:?}");
    for part in [
        "ok\nname    kind ",
        "0 unknown, 0 stuck, 0 undone; none waits for a person\n",
        "there is no `settle`\n/effects happened KEY [RESULT]",
        "no open effect has a key that begins with `12`\n",
        "there is no /nope; /help shows what there is\n",
    ] {
        assert!(said.out.contains(part), "{part}\n{}", said.out);
    }
    let lengths: Vec<_> = server
        .requests()
        .iter()
        .map(|seen| seen.json()["messages"].as_array().unwrap().len())
        .collect();
    assert_eq!(lengths, [1, 3, 1], "nothing after /quit, and /forget forgets");
    let kept = std::fs::read_to_string(folder.0.join("lines.txt")).unwrap();
    assert!(kept.starts_with("one\n/tree\n") && kept.ends_with("/quit\n"), "{kept}");
}

#[test]
fn lines_are_kept_only_when_asked() {
    let text = "[models.llm]\nkind = \"local\"\n";
    let folder = Folder::with("t.toml", text);
    let said = folder.run(&["run", "t.toml", "--chat"], "hello\n");
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 1, "only the file itself");
    let said = folder.run(&["run", "t.toml", "--history", "h"], "hello\n");
    assert_eq!(said.code, 2);
    assert!(said.err.contains("--history is for a conversation"), "{said:?}");
}

/// What a model was told, without the roles.
fn told(server: &StubServer, at: usize) -> Vec<String> {
    let request = server.requests()[at].json();
    let messages = request["messages"].as_array().unwrap().clone();
    messages.iter().map(|it| it["content"].as_str().unwrap_or_default().to_owned()).collect()
}

async fn talk(folder: Folder, input: String) -> super::harness::Said {
    let chat = move || folder.run(&["run", "t.toml", "--chat"], &input);
    tokio::task::spawn_blocking(chat).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_that_no_longer_fits_goes_on_without_its_oldest_turns() {
    let too_long = || Row::error(400, "context_length_exceeded", "at most 8192 tokens");
    let ask = "[ask]\nsystem = \"be kind\"\n";
    let agent = "[agents.a]\nmodel = \"llm\"\nsystem = \"be kind\"\n";
    for asked in [ask, agent] {
        let server = StubServer::start().await.unwrap();
        for n in 1..=4 {
            server.then(Row::reply(&format!("a{n}")));
        }
        server.then(too_long());
        server.then(Row::reply("a5"));
        server.then(too_long());
        server.then(too_long());
        server.then(Row::reply("a6"));
        server.then(Row::reply("a7"));
        let folder = model(&server);
        let text = std::fs::read_to_string(folder.0.join("t.toml")).unwrap();
        std::fs::write(folder.0.join("t.toml"), format!("{text}{asked}")).unwrap();
        let said = talk(folder, (1..=7).map(|n| format!("q{n}\n")).collect()).await;
        assert_eq!(said.out, "a1\na2\na3\na4\na5\na6\na7\n", "{said:?}");
        let line = |what: &str| {
            format!(
                "  {what} of this conversation: left out from now on, for lack of room in the model's window (/forget begins a new one)\n"
            )
        };
        let lines: String = said.err.split_inclusive('\n').skip(1).collect();
        let expected = line("the 2 oldest turns") + &line("the 3 oldest turns");
        assert_eq!(lines, expected, "{said:?}");
        let note = |turns| {
            format!(
                "be kind\n\n[Left out to make room: the {turns} oldest turns of this conversation. If you need what was said there, say so, or call the tool again.]"
            )
        };
        assert_eq!(told(&server, 5), [&*note(2), "q3", "a3", "q4", "a4", "q5"]);
        assert_eq!(told(&server, 8), [&*note(5), "q6"]);
        // The next question does not fail first, and has what was said since.
        assert_eq!(told(&server, 9), [&*note(5), "q6", "a6", "q7"]);
        assert_eq!(server.count(), 10);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_alone_is_too_long_is_no_answer_and_forgets_nothing() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::reply("a1"));
    for _ in 0..2 {
        server.then(Row::error(400, "context_length_exceeded", "at most 8192 tokens"));
    }
    server.then(Row::reply("a3"));
    let said = talk(model(&server), "q1\nq2\nq3\n".to_owned()).await;
    assert!(said.out == "a1\na3\n" && said.err.contains("no answer: "), "{said:?}");
    assert!(!said.err.contains("left out"), "{said:?}");
    assert_eq!(
        told(&server, 2),
        [
            "[Left out to make room: the oldest turn of this conversation. If you need what was said there, say so, or call the tool again.]",
            "q2"
        ]
    );
    assert_eq!(told(&server, 3), ["q1", "a1", "q3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_along_with_a_question_has_an_end() {
    let server = StubServer::start().await.unwrap();
    let long = "x".repeat(100 * 1024);
    server.otherwise(Row::reply(&long));
    let said = talk(model(&server), "q1\nq2\nq3\nq4\n".to_owned()).await;
    assert!(said.err.contains("  the oldest turn of this conversation: left out from now on, since no more than 256 KiB go along with a question"), "{}", said.err);
    assert_eq!(said.out.len(), 4 * (long.len() + 1));
    let last = told(&server, 3);
    assert_eq!((last.len(), &*last[1], last.last().unwrap().as_str()), (6, "q2", "q4"));
    assert!(last[0].starts_with("[Left out to make room: the oldest turn"), "{}", last[0]);
}
