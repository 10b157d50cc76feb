//! Every row of the tables of real errors, whole and in streams, over HTTP: what each provider sends,
//! and what is made of it.

use std::collections::BTreeMap;
use std::time::Duration;

use mainstay::fault::Class;
use mainstay_actors::chat::stream::{StreamEvent, open};
use mainstay_actors::chat::{ChatReply, ChatRequest, Finish};
use mainstay_actors::model::Model;
use mainstay_actors::stub_server::{Row as Answer, StubServer};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    /// The row of the table.
    row: String,
    wire: String,
    stream: bool,
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
    /// Null for what is no fault.
    class: Option<Class>,
    code: Option<String>,
    wait_ms: Option<u64>,
    /// What a listener heard of it.
    heard: Option<String>,
    finish: Option<Finish>,
    attempt: Option<u32>,
}

fn model(wire: &str, url: &str) -> Model {
    let mut model = match wire {
        "openai" => Model::openai(url, "m"),
        "responses" => Model::responses(url, "m"),
        "anthropic" => Model::anthropic(url, "m"),
        "gemini" => Model::gemini(url, "m"),
        "ollama" => Model::ollama(url, "m"),
        "ollama_native" => Model::ollama_native(url, "m"),
        other => panic!("no such wire: {other}"),
    };
    model.connect().unwrap();
    model
}

async fn check(fixtures: &str) {
    let rows: Vec<Row> = serde_json::from_str(fixtures).unwrap();
    let server = StubServer::start().await.unwrap();
    let mut wrong = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        let mut answer = Answer::new(row.status, row.body.as_str());
        for (name, value) in &row.headers {
            answer = answer.header(name, value);
        }
        server.then(answer);
        let (sink, mut stream) = open(64);
        let mut request = ChatRequest::from("hello");
        if row.stream {
            request = request.stream_to(sink.clone());
        }
        drop(sink);
        let model = model(&row.wire, server.url());
        let reply = model.ask(&request, Duration::from_secs(20), row.attempt.unwrap_or(1)).await;
        drop(request);
        let mut heard = String::new();
        let mut last = None;
        while let Some(event) = stream.next().await {
            if let StreamEvent::Text(text) = &event {
                heard.push_str(text);
            }
            last = Some(event);
        }
        let fault = match &reply {
            Err(fault) => Some(fault),
            Ok(reply) => reply.broken_by(),
        };
        let wait = fault.and_then(|fault| fault.retry_after);
        let finish = reply.as_ref().ok().map(|reply| &reply.finish);
        let finish = finish.filter(|finish| matches!(finish, Finish::Other(_)));
        let right = fault.map(|fault| fault.class) == row.class
            && fault.and_then(|fault| fault.code.as_deref()) == row.code.as_deref()
            && wait == row.wait_ms.map(Duration::from_millis)
            && finish == row.finish.as_ref()
            && heard == row.heard.as_deref().unwrap_or_default();
        // A fault before the commit is the ladder's; after it the part is the answer, and says so.
        let part =
            matches!(&reply, Ok(ChatReply { text, .. }) if row.class.is_some() && *text == heard);
        let told = match (&last, row.class) {
            (None, _) => heard.is_empty() && !part,
            (Some(StreamEvent::Partial(told)), Some(class)) => told.class == class && part,
            (Some(StreamEvent::Done), None) => true,
            _ => false,
        };
        if !right || !told {
            wrong.push(format!("{}: {reply:?}, heard {heard:?}, last {last:?}", row.row));
        }
        assert_eq!(server.count(), number + 1, "{}: one attempt is one request", row.row);
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

#[tokio::test]
async fn every_error_of_openai_gets_its_class() {
    check(include_str!("fixtures/openai.json")).await;
}

#[tokio::test]
async fn every_error_of_anthropic_gets_its_class() {
    check(include_str!("fixtures/anthropic.json")).await;
}

#[tokio::test]
async fn every_error_of_gemini_gets_its_class() {
    check(include_str!("fixtures/gemini.json")).await;
}

#[tokio::test]
async fn every_error_of_ollama_gets_its_class() {
    check(include_str!("fixtures/ollama.json")).await;
}
