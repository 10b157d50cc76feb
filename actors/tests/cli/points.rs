//! `[points]` of a tree file: who waits for a person after which rung, and what can be said to it.

use std::time::{Duration, Instant};

use mainstay_actors::stub_server::{Row, StubServer};

use super::harness::{Folder, Said};
use super::models::run;

/// A group of a model that fails and a text, with one retry that waits for nothing long.
fn tree(server: &StubServer, points: &str) -> Folder {
    let text = format!(
        r#"[policy]
max_retries = 1
max_delay = "1ms"
[models.far]
kind = "openai"
base_url = "{}"
model = "m"
[models.other]
kind = "openai"
base_url = "{0}"
model = "other"
[groups.llm]
kind = "model"
members = ["far", "other"]
[points]
{points}"#,
        server.url()
    );
    Folder::with("t.toml", &text)
}

fn down() -> Row {
    Row::error(500, "server_error", "down")
}

async fn chat(folder: Folder, input: &'static str) -> Said {
    let chat = move || folder.run(&["run", "t.toml", "--chat", "--progress"], input);
    tokio::task::spawn_blocking(chat).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_answers_tries_again_refuses_or_passes_on_after_a_retry() {
    const AFTER: &str = "after_retry = \"10m\"\n";
    for (word, out, asked) in [
        ("/answer #1 by hand", "decided: #1\nby hand\n", 2),
        ("/again #1", "decided: #1\nok\n", 3),
        ("/pass #1 not here", "decided: #1\nok\n", 3),
        ("/refuse #1 no", "decided: #1\n", 2),
    ] {
        let server = StubServer::start().await.unwrap();
        server.then(down());
        server.then(down());
        let input = format!("hello\n/pending\n/again #7\n{word}\n").leak();
        let said = chat(tree(&server, AFTER), input).await;
        assert!(said.out.ends_with(out), "{word}: {said:?}");
        assert!(said.out.contains("no decision 7 is waited for\n"), "{word}: {said:?}");
        let waits = "#1 waits for a person: t/llm/far has failed after its retries (server_transient) (the ladder goes on: substitute, after 600 s)\n";
        assert!(said.err.contains(waits), "{word}: {said:?}");
        assert!(said.err.contains("/again #1, /refuse #1 or /pass #1\n"), "{word}: {said:?}");
        // What would be done is not told as done before somebody has decided.
        let would = "  t/llm/far: substitute to t/llm/other, unless a person decides otherwise\n";
        let done = "  t/llm/far: substitute to t/llm/other\n";
        assert!(said.err.contains(would) && !said.err.contains(done), "{word}: {said:?}");
        assert_eq!(server.count(), asked, "{word}: {said:?}");
        let last = server.requests().pop().unwrap().json()["model"].clone();
        assert_eq!(last, if word.starts_with("/pass") { "other" } else { "m" }, "{word}");
        let decided = if word.starts_with("/refuse") { "abort" } else { "by a person" };
        assert!(said.err.contains(decided), "{word}: {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_without_a_person_is_said_and_done() {
    for (otherwise, out, asked) in
        [("continue", "ok\n", 3), ("retry_again", "ok\n", 3), ("abort", "", 2)]
    {
        let server = StubServer::start().await.unwrap();
        server.then(down());
        server.then(down());
        let points = format!("after_retry = \"300ms\"\notherwise = \"{otherwise}\"\n");
        let said = run(&tree(&server, &points), &["run", "t.toml", "--progress", "hello"]).await;
        assert_eq!(said.out, out, "{otherwise}: {said:?}");
        assert!(said.err.contains("nobody types here, so that is what happens"), "{said:?}");
        let told = format!("t/llm/far: #1 decided by nobody in time: {otherwise}\n");
        assert!(said.err.contains(&told), "{otherwise}: {said:?}");
        assert_eq!(server.count(), asked, "{otherwise}");
        let last = server.requests().pop().unwrap().json()["model"].clone();
        assert_eq!(last, if otherwise == "continue" { "other" } else { "m" }, "{otherwise}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_rungs_that_are_named_wait_for_a_person() {
    let server = StubServer::start().await.unwrap();
    server.otherwise(down());
    let folder = tree(&server, "after_substitute = \"10m\"\n");
    let said = chat(folder, "hello\n/answer #1 by hand\n").await;
    assert!(said.out.ends_with("decided: #1\nby hand\n"), "{said:?}");
    let waits = "#1 waits for a person: t/llm/other has failed after its substitutes";
    assert!(said.err.contains(waits), "{said:?}");
    // Without any, nobody is asked.
    let text = "[policy]\nmax_retries = 0\n[models.far]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:9/v1\"\nmodel = \"m\"\n";
    let said = chat(Folder::with("t.toml", text), "hello\n/pending\n").await;
    assert!(!said.err.contains("waits for a person"), "{said:?}");
    assert!(said.out.contains("nothing waits for a person\n"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_asked_at_once_where_no_rung_may_help() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::error(401, "invalid_api_key", "no"));
    let folder = tree(&server, "at_once = \"10m\"\n");
    let said = chat(folder, "hello\n/answer #1 by hand\n").await;
    assert!(said.out.ends_with("decided: #1\nby hand\n"), "{said:?}");
    let waits =
        "#1 waits for a person: t/llm/far has failed and nothing else may help (permission)";
    assert!(said.err.contains(waits), "{said:?}");
    assert_eq!(server.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_in_the_place_of_a_model_is_what_its_agent_goes_on_with() {
    let server = StubServer::start().await.unwrap();
    server.otherwise(down());
    let folder = tree(&server, "after_substitute = \"10m\"\n[agents.a]\nmodel = \"llm\"\n");
    let said = chat(folder, "hello\n/answer #1 by hand\n").await;
    assert!(said.out.ends_with("decided: #1\nby hand\n"), "{said:?}");
    assert!(
        said.err.contains("(by t/a; degraded; a person in the place of t/llm/other; 1 step;"),
        "{said:?}"
    );
}

/// What a program is told, long before a person's time is over.
async fn at_once(folder: &Folder) -> (i32, serde_json::Value) {
    let began = Instant::now();
    let said = run(folder, &["run", "t.toml", "--json", "hello"]).await;
    assert!(began.elapsed() < Duration::from_secs(120), "{said:?}");
    assert_eq!(said.err, "");
    (said.code, serde_json::from_str(&said.out).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_waits_for_nobody_and_hears_what_was_done_without_a_person() {
    for (otherwise, by, asked) in
        [("continue", "t/llm/other", 3), ("retry_again", "t/llm/far", 3), ("abort", "", 2)]
    {
        let server = StubServer::start().await.unwrap();
        server.then(down());
        server.then(down());
        let folder =
            tree(&server, &format!("after_retry = \"24h\"\notherwise = \"{otherwise}\"\n"));
        let (code, answer) = at_once(&folder).await;
        assert_eq!(code, i32::from(by.is_empty()), "{answer}");
        assert_eq!(answer["served_by"].as_str().unwrap_or_default(), by, "{answer}");
        let undecided = serde_json::json!([{"failed": "t/llm/far", "otherwise": otherwise}]);
        assert_eq!((&answer["undecided"], server.count()), (&undecided, asked), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_who_stands_in_is_not_waited_for_by_a_program() {
    for (otherwise, did, told) in [
        ("refuse", "refuse", "no person is asked with --json"),
        ("answer", "answer", "come back"),
        ("pass_on", "pass_on", "not_by_person"),
    ] {
        let server = StubServer::start().await.unwrap();
        server.then(Row::tool_calls([("boss", "{\"request\":\"may I?\"}")]));
        server.then(Row::reply("ok"));
        let text = if otherwise == "answer" { "text = \"come back\"\n" } else { "" };
        let file = format!(
            "[models.llm]\nkind = \"openai\"\nbase_url = \"{}\"\nmodel = \"m\"\n[people.boss]\nexpiry = \"24h\"\notherwise = \"{otherwise}\"\n{text}[agents.a]\nmodel = \"llm\"\ntools = [\"boss\"]\n",
            server.url()
        );
        let (code, answer) = at_once(&Folder::with("t.toml", &file)).await;
        assert_eq!((code, &answer["text"]), (0, &"ok".into()), "{answer}");
        let undecided = serde_json::json!([{"who": "boss", "otherwise": did}]);
        assert_eq!(answer["undecided"], undecided, "{answer}");
        let heard = server.requests()[1].json()["messages"].to_string();
        assert!(heard.contains(told), "{otherwise}: {heard}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_prints_where_a_person_may_decide() {
    let server = StubServer::start().await.unwrap();
    let points = "at_once = \"5m\"\nafter_retry = \"90s\"\nafter_rollback = \"24h\"\notherwise = \"abort\"\n";
    let page = run(&tree(&server, points), &["check", "t.toml"]).await.out;
    let expected = "
Manual points: where a person may decide
  where no rung may help  waits 5 min    then it fails
  after retries           waits 90 s     then it fails
  after substitutes       does not wait
  after a rollback        waits 24 h     then it fails
";
    assert!(page.contains(expected), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_waited_for_after_a_rollback_and_answers_for_the_agent() {
    let tree = |server: &StubServer, points: &str| {
        let text = format!(
            "profile = \"finance\"\n[store]\npath = \"state\"\n[models.llm]\nkind = \"openai\"\nbase_url = \"{}\"\nmodel = \"m\"\n[tools.note]\nbuiltin = \"escalate\"\n[agents.clerk]\nmodel = \"llm\"\ntools = [\"note\"]\n[points]\n{points}",
            server.url()
        );
        Folder::with("t.toml", &text)
    };
    for (points, waits) in
        [("after_rollback = \"10m\"\n", true), ("after_retry = \"10m\"\n", false)]
    {
        let server = StubServer::start().await.unwrap();
        server.then(Row::tool_calls([("note", "{\"reason\":\"late\"}")]));
        server.otherwise(Row::error(404, "model_not_found", "gone"));
        let said = chat(tree(&server, points), "hello\n/answer #1 by hand\n").await;
        let told = "#1 waits for a person: t/clerk has failed after its rollback (exhausted)";
        assert_eq!(said.err.contains(told), waits, "{said:?}");
        assert_eq!(said.out.ends_with("decided: #1\nby hand\n"), waits, "{said:?}");
        let by = "(by t/clerk; degraded; a person in the place of t/clerk;";
        assert_eq!(said.err.contains(by), waits, "{said:?}");
        // It went back to its checkpoint and did the step again before anybody was asked.
        assert_eq!(server.count(), 3, "{said:?}");
    }
}
