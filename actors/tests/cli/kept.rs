//! Killed in the middle, with endpoints of every wire and with people: a request is kept, and answered once.

use std::io::{BufRead, BufReader, Write};

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
