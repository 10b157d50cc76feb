//! A key is in its header and nowhere else: a process with keys that can be recognized goes through
//! every failure and prints everything that can be printed, and its whole output is searched.

use std::error::Error;
use std::fmt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use mainstay::checkpoint::{FileStore, Store};
use mainstay::fault::Fault;
use mainstay::port::CallOptions;
use mainstay::spec::SupervisorSpec;
use mainstay::spec::acting::Irreversible;
use mainstay::system::System;
use mainstay_actors::agent::{Agent, AgentReply, AgentRequest};
use mainstay_actors::chat::stream::open;
use mainstay_actors::chat::{ChatReply, ChatRequest, ToolSpec};
use mainstay_actors::model::Model;
use mainstay_actors::stub_server::{Row, StreamEnd, StubServer};
use mainstay_actors::tool::{ToolContext, tool};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};

const VARIABLE: &str = "MAINSTAY_TEST_KEY";
/// The keys: of the environment, given, of a callback, in a URL. Split, so that no backtrace or listing
/// of this source holds one.
fn keys() -> [String; 4] {
    ["env", "given", "callback", "query"].map(|kind| format!("sk-{kind}-{}", "7f3a9c5e1b"))
}

#[test]
fn no_key_is_ever_shown() {
    if std::env::var_os(VARIABLE).is_some() {
        return everything_that_can_be_printed();
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["no_key_is_ever_shown", "--exact", "--nocapture", "--test-threads=1"])
        .env(VARIABLE, &keys()[0])
        .env("RUST_BACKTRACE", "full")
        .output()
        .unwrap();
    let output = [child.stdout, child.stderr].map(|all| String::from_utf8_lossy(&all).into_owned());
    let output = output.join("\n");
    assert!(child.status.success(), "{output}");
    // It did print what it should.
    for part in [
        "invalid_api_key",
        "[key]",
        "all recovery strategies failed",
        "Partial(",
        "\"event\"",
        "digraph",
        "flowchart",
        "model_unavailable",
        "trace: ",
        "connection_refused",
        // What is kept is in clear: it would show.
        "it is [key], [key]",
        "kept answer: Answer",
        "stored: ",
        "{\\\"key\\\":\\\"[key]\\\"}",
    ] {
        assert!(output.contains(part), "nothing shows {part}:\n{output}");
    }
    for key in keys() {
        let leak = output.lines().find(|line| line.contains(&key));
        assert_eq!(leak, None, "{key} was shown");
        // Nor a part that would do.
        for part in [key.trim_start_matches("sk-"), &key[..key.len() - 1]] {
            assert!(!output.contains(part), "{part} was shown");
        }
    }
}

fn everything_that_can_be_printed() {
    tracing::subscriber::set_global_default(Printer).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(fail_in_every_way());
}

/// The first row that speaks before it fails.
const SPEAK: usize = 13;

async fn fail_in_every_way() {
    let [env, given, callback, query] = keys();
    let server = StubServer::start().await.unwrap();
    let gone = "http://127.0.0.1:1/v1";
    let models = [
        ("env", Model::openai(server.url(), "m").key_env(VARIABLE), &env),
        ("given", Model::gemini(server.url(), "m").key(given.as_str()), &given),
        (
            "callback",
            Model::anthropic(server.url(), "m").key_from({
                let key = callback.clone();
                move || Ok(key.clone())
            }),
            &callback,
        ),
        ("query", Model::responses(format!("{}?key={query}", server.url()), "m"), &query),
        ("gone", Model::openai(format!("{gone}?key={query}"), "m").key(given.as_str()), &given),
        ("bad", Model::openai(server.url(), "m").key(format!("{given}\u{7f}")), &given),
    ];
    // What an unkind server says: the key it was given, wherever it can.
    let rows = |key: &str| {
        let echo = format!("bad key {key}, or was it \"{key}\"");
        let page = format!("<html>{echo}</html>");
        vec![
            Row::error(401, "invalid_api_key", &echo),
            Row::error(400, key, &echo),
            Row::error(404, "model_not_found", &format!("no model for {key}")),
            // Cut within the key: where it quotes it, and where we cut its message.
            Row::error(402, "cut", &format!("no money for {}", &key[..key.len() - 1])),
            Row::error(402, "cut", &format!("{}{key}", "x".repeat(513 - key.len()))),
            Row::new(503, page.clone()).header("x-echo", key),
            Row::new(200, page).header("content-type", format!("text/html; {key}")),
            Row::new(302, "").header("location", format!("http://127.0.0.1:1/?key={key}")),
            Row::reset_after(),
            Row::reset_before(),
            Row::reply("x").cut_off(9),
            Row::hang(),
            Row::stream([format!(
                "data: {{\"error\":{{\"code\":\"invalid_api_key\",\"message\":\"{echo}\"}}}}\n\n"
            )]),
            Row::stream([
                "data: {\"choices\":[{\"delta\":{\"content\":\"hel\"}}]}\n\n".to_owned(),
                format!("data: {{\"error\":{{\"code\":\"{key}\",\"message\":\"{key}\"}}}}\n\n"),
            ]),
            Row::reply_stream(["hel"]).end_after(2, StreamEnd::Reset),
            // Good answers that hold it.
            Row::reply(&echo),
            Row::tool_calls([(key, echo.as_str())]),
            Row::completion(
                serde_json::json!({ "content": null, "tool_calls": [
                { "id": key, "function": { "name": "f", "arguments": "{}" } }] }),
                key,
            ),
            Row::reply_stream(["it is ", &key[..7], &key[7..], ", ", key, &key[..9]]),
        ]
    };
    for (id, model, key) in models {
        println!("model: {model:?} {model:#?}");
        let spec = model.clone().spec(id);
        println!("spec: {spec:?}");
        let supervisor = SupervisorSpec::one_for_one("root").child(spec);
        let system = match System::start(supervisor).await {
            Ok(system) => system,
            Err(error) => {
                assert_eq!(id, "bad");
                show(&error);
                continue;
            }
        };
        let mut events = system.events();
        let child = system.port::<ChatRequest, ChatReply>(format!("root/{id}").as_str()).unwrap();
        for (number, row) in rows(key).into_iter().enumerate() {
            for streamed in [false, true] {
                // Every attempt fails in the same way.
                server.otherwise(row.clone());
                let (sink, mut stream) = open(64);
                let mut request = ChatRequest::from("hello");
                if streamed {
                    request = request.stream_to(sink);
                } else {
                    drop(sink);
                }
                println!("request: {request:?}");
                // What must be heard before it fails gets the time it needs.
                let must_speak = id == "env" && streamed && number >= SPEAK;
                let deadline = Duration::from_millis(if must_speak { 10_000 } else { 300 });
                let options = CallOptions::new().deadline(deadline);
                let listen = async {
                    while let Some(event) = stream.next().await {
                        println!("heard: {event:?}")
                    }
                };
                let (answer, ()) = tokio::join!(child.call_with(request, options), listen);
                match answer {
                    Ok(answer) => println!("answer: {answer:?}"),
                    Err(error) => show(&error),
                }
            }
        }
        let tree = system.tree();
        println!("{tree} {tree:?} {} {} {}", tree.to_json(), tree.to_dot(), tree.to_mermaid());
        system.stop().await;
        let tree = system.tree();
        println!("{tree} {}", tree.to_json());
        drop(system);
        let mut count = 0;
        while let Ok(Some(event)) =
            tokio::time::timeout(Duration::from_millis(200), events.next()).await
        {
            println!("{event:?} {}", serde_json::to_string(&event).unwrap());
            count += 1;
        }
        assert!(count > 10);
        println!("model again: {model:?}");
    }
    // They were sent, or all of this shows nothing.
    let sent = server.requests();
    let with = |name: &str, value: &str| {
        sent.iter().any(|request| request.header(name).is_some_and(|sent| sent == value))
    };
    assert!(with("authorization", &format!("Bearer {env}")));
    assert!(with("x-goog-api-key", &given) && with("x-api-key", &callback));
    assert!(sent.iter().any(|request| request.path.ends_with(&format!("?key={query}"))));
    what_is_kept(&server, &env).await;
    let mut missing = Model::openai(server.url(), "m").key_env("MAINSTAY_NO_SUCH_KEY");
    show(&missing.connect().unwrap_err());
}

/// An agent with a store works with a model and a tool that tell the key whenever they can; all that is
/// kept of it is printed.
async fn what_is_kept(server: &StubServer, key: &str) {
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("keys-{}", std::process::id()));
    let store: Arc<dyn Store> = Arc::new(FileStore::open(&folder).unwrap());
    let look = |_: serde_json::Value, _: ToolContext| async {
        Err::<String, _>(Fault::business("nothing was found").with_code("nothing"))
    };
    let spec = ToolSpec::new("look").parameters(serde_json::json!({"type": "object"}));
    let agent = Agent::new("llm").tool(spec, "look").durable_spec("agent");
    let root = SupervisorSpec::one_for_one("root")
        .child(Model::openai(server.url(), "m").key_env(VARIABLE).spec("llm"))
        .child(tool("look", Irreversible, look))
        .child(agent);
    let (system, _) = System::recover(root, Arc::clone(&store)).await.unwrap();
    let port = system.port::<AgentRequest, AgentReply>("root/agent").unwrap();
    let echo = format!("the key is {key}");
    server.otherwise(Row::error(401, "invalid_api_key", &echo));
    for row in
        [Row::tool_calls([("look", format!("{{\"key\":\"{key}\"}}").as_str())]), Row::reply(&echo)]
    {
        server.then(row);
    }
    for id in ["good", "bad"] {
        let options = CallOptions::new().key(id).deadline(Duration::from_secs(10));
        match port.call_with("hello", options).await {
            Ok(answer) => println!("kept answer: {answer:?}"),
            Err(error) => show(&error),
        }
        println!("journaled: {:?}", system.journaled(id));
    }
    for effect in system.effects().list() {
        println!("effect: {effect:?} {:?}", system.effects().request(effect.key));
    }
    let quarantine = system.quarantine();
    for listed in store.checkpoints(&"root/agent".into()).unwrap() {
        let exported = quarantine.export_checkpoint(listed.checkpoint.id);
        println!("exported: {}", exported.map_or_else(|error| error.to_string(), text));
    }
    println!("metrics: {}", serde_json::to_string(&system.metrics()).unwrap());
    system.stop().await;
    drop((system, store));
    let mut files = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        println!("stored: {}", text(std::fs::read(entry.unwrap().path()).unwrap()));
        files += 1;
    }
    assert!(files > 0);
    std::fs::remove_dir_all(&folder).unwrap();
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Prints an error and all that is behind it.
fn show<E: Error + fmt::Debug>(error: &E) {
    println!("error: {error} {error:?} {error:#?}");
    let mut next = error.source();
    while let Some(source) = next {
        println!("because: {source} {source:?}");
        next = source.source();
    }
}

/// Prints every record and span of everything in the process.
struct Printer;

impl Subscriber for Printer {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        print!("trace: span {}", span.metadata().name());
        span.record(&mut Fields);
        println!();
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, values: &Record<'_>) {
        print!("trace: record");
        values.record(&mut Fields);
        println!();
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        print!("trace: {} {}", event.metadata().target(), event.metadata().name());
        event.record(&mut Fields);
        println!();
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

struct Fields;

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        print!(" {field}={value:?}");
    }
}
