//! The whole stack against a real small language model, served over HTTP by a real server.
//!
//! `MAINSTAY_LLM_URL` is the base URL of such a server, which is only asked. Tests that load, stop, kill
//! and start again have servers of their own, for which `MAINSTAY_LLM_PACKAGES` is the folder that
//! `.ci/llm/install` printed. `.ci/run` sets both; where one is missing, its tests say that they are
//! skipped.
//!
//! Nothing here depends on how fast the model is: what is waited for is an answer, a line of the
//! server, or an event of the system, and deadlines are only ever too long.

use std::io::Write as _;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay::behavior::{Behavior, Context, Stateless};
use mainstay::circuit::CircuitSpec;
use mainstay::error::CallError;
use mainstay::event::Event;
use mainstay::fate::{Answer, Ended, FateCounts};
use mainstay::fault::{Class, EffectKind, Fault};
use mainstay::policy::{Capabilities, Policy};
use mainstay::port::{CallOptions, Port};
use mainstay::spec::acting::Read;
use mainstay::spec::{ChildSpec, GroupSpec, SupervisorSpec};
use mainstay::system::System;
use mainstay_actors::agent::Agent;
use mainstay_actors::chat::stream::{StreamEvent, open};
use mainstay_actors::chat::{ChatReply, ChatRequest, Finish, Role, ToolChoice};
use mainstay_actors::local::LocalModel;
use mainstay_actors::model::Model;
use mainstay_actors::tool::{ToolContext, ToolSpec, tool};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

const NAME: &str = "smollm2-135m";
/// For an answer of some length while others are given.
const LONG: Duration = Duration::from_secs(300);
/// Requests of one load.
const LOAD: usize = 50;

type Chat = Port<ChatRequest, ChatReply>;

/// Servers with a model in them are started one at a time: two would only slow each other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// The value of a variable, or a line that no test harness keeps to itself.
fn variable(name: &str, test: &str) -> Option<String> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    if value.is_none() {
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {name} is not set");
    }
    value
}

fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A question that a word answers: the model is cut off politely at its first vowel.
fn short(text: impl Into<String>) -> ChatRequest {
    let request = ChatRequest::from(text.into()).max_tokens(16).temperature(0.0);
    ["a", "e", "i", "o", "u", " "].into_iter().fold(request, ChatRequest::stop)
}

fn real(url: &str) -> ChildSpec {
    Model::openai(url, NAME).price_per_million(100_000, 200_000).spec("real").concurrency(2)
}

/// The same, waited for however busy the machine is.
fn awaited(url: &str) -> ChildSpec {
    let model = Model::openai(url, NAME).idle_timeout(LONG);
    model.spec("real").concurrency(2).attempt_timeout(LONG)
}

fn window(spec: ChildSpec, tokens: u32) -> ChildSpec {
    spec.capabilities(Capabilities { context_window: Some(tokens), ..Capabilities::default() })
}

async fn start(group: GroupSpec) -> (System, Chat) {
    let agent = Agent::new("llm").system("You are brief.").max_tokens(64).temperature(0.0);
    let root = SupervisorSpec::one_for_one("root").group(group).child(agent.spec("agent"));
    let system = System::start(root).await.unwrap();
    let port = system.port("root/llm").unwrap();
    (system, port)
}

fn class_and_code(answer: &Answer<ChatReply>) -> (Class, String) {
    match &answer.trail.0[0].ended {
        Ended::Fault { class, code } => (*class, code.clone().unwrap_or_default()),
        other => panic!("{other:?}"),
    }
}

fn assert_balanced(fates: FateCounts) {
    assert!(fates.is_balanced() && fates.open == 0, "{fates:?}");
}

#[tokio::test]
async fn a_real_model_answers_alone_and_through_an_agent() {
    let Some(url) = variable("MAINSTAY_LLM_URL", "a real answer") else { return };
    let group = GroupSpec::model("llm")
        .member_spec(real(&url))
        .member_spec(LocalModel::default().spec("local"));
    let (system, port) = start(group).await;
    let answer = port.call(short("Say hello.")).await.unwrap();
    assert_eq!(answer.served_by, "root/llm/real", "{}", answer.trail);
    assert!(!answer.degraded && answer.attempts == 1);
    assert_eq!(answer.value.model, NAME);
    assert!(!answer.value.usage.estimated && answer.value.usage.input > 10);
    assert_eq!(answer.cost.tokens, answer.value.usage.input + answer.value.usage.output);
    assert!(answer.cost.money_micros > 0);

    let agent = system.child::<Agent>("root/agent").unwrap();
    let begun = Instant::now();
    let answer = agent.call("Say hello.").await.unwrap();
    say(&format!("a real agent says {:?} after {:?}", answer.value.text, begun.elapsed()));
    assert!(!answer.value.text.is_empty() && answer.value.steps == 1);
    assert_eq!((answer.served_by.as_str(), answer.degraded), ("root/agent", false));
    assert_balanced(system.fates());
}

#[tokio::test]
async fn a_real_model_is_held_to_a_schema_and_told_of_tools() {
    let Some(url) = variable("MAINSTAY_LLM_URL", "a real answer of a schema") else { return };
    let schema = json!({
        "type": "object",
        "properties": {
            "mood": {"enum": ["good", "bad"]}, "degrees": {"type": "integer", "minimum": 0, "maximum": 9},
        },
        "required": ["mood", "degrees"],
        "additionalProperties": false,
    });
    let brief = Agent::new("llm").max_tokens(64).temperature(0.0);
    let judge = brief.clone().answer_schema(schema);
    let look = async |_: Value, _: ToolContext| Ok::<_, Fault>("it rains");
    let city = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    let offer = ToolSpec::new("look").description("Looks the weather up.").parameters(city);
    let root = SupervisorSpec::one_for_one("root")
        .group(GroupSpec::model("llm").member_spec(real(&url)))
        .child(tool("look", Read, look))
        .child(judge.spec("judge"))
        .child(brief.tool(offer, "look").spec("looker"));
    let system = System::start(root).await.unwrap();
    let judge = system.child::<Agent>("root/judge").unwrap();
    let answer = judge.call("How is the weather?").await.unwrap();
    say(&format!("a real answer of the schema: {}", answer.value.text));
    let said: Value = serde_json::from_str(&answer.value.text).unwrap();
    assert!(said["mood"] == "good" || said["mood"] == "bad", "{said}");
    assert!(said["degrees"].as_u64().is_some_and(|degrees| degrees <= 9), "{said}");
    // The server sees to it, so that nothing had to be asked again.
    assert_eq!(answer.value.steps, 1);
    // Whether it calls one is its own affair: it is a small one. That there are tools is none against it.
    let looker = system.child::<Agent>("root/looker").unwrap();
    let answer = looker.call("Say hello.").await.unwrap();
    say(&format!("with a tool it says {:?}", answer.value.text));
    assert!(!answer.value.text.is_empty());
    assert_balanced(system.fates());
}

#[tokio::test]
async fn a_real_model_is_held_to_a_schema_while_it_is_heard() {
    let Some(url) = variable("MAINSTAY_LLM_URL", "a heard answer of a schema") else { return };
    let schema = json!({
        "type": "object",
        "properties": {"mood": {"enum": ["good", "bad"]}, "degrees": {"enum": [1, 2]}},
        "required": ["mood", "degrees"],
        "additionalProperties": false,
    });
    let root = SupervisorSpec::one_for_one("root")
        .group(GroupSpec::model("llm").member_spec(awaited(&url)));
    let system = System::start(root).await.unwrap();
    let port: Chat = system.port("root/llm").unwrap();
    let (sink, mut stream) = open(64);
    let options = CallOptions::new().deadline(LONG);
    let request = ChatRequest::from("How is the weather?").max_tokens(64).temperature(0.0);
    let request = request.json_schema("weather", schema).stream_to(sink);
    let call = tokio::spawn(async move { port.call_with(request, options).await });
    let (mut heard, mut pieces) = (String::new(), 0);
    while let Some(event) = stream.next().await {
        match event {
            StreamEvent::Text(text) => {
                heard.push_str(&text);
                pieces += 1;
            }
            StreamEvent::Done => break,
            other => panic!("{other:?} after {heard:?}"),
        }
    }
    let answer = call.await.unwrap().unwrap();
    say(&format!("heard of a real answer, in {pieces} pieces: {heard:?}"));
    assert_eq!(answer.value.text, heard);
    let said: Value = serde_json::from_str(&heard).unwrap();
    assert!(said["mood"] == "good" || said["mood"] == "bad", "{said}");
    assert!(said["degrees"] == 1 || said["degrees"] == 2, "{said}");
    assert!(!answer.value.usage.estimated && answer.value.usage.output > 0, "{answer:?}");
    assert_balanced(system.fates());
}

/// What the server also speaks, besides chat completions.
fn other_wires(url: &str) -> [(&'static str, Model); 2] {
    [("responses", Model::responses(url, NAME)), ("messages", Model::anthropic(url, NAME))]
}

#[tokio::test]
async fn a_real_model_answers_by_the_other_wires_whole_and_while_it_is_heard() {
    let Some(url) = variable("MAINSTAY_LLM_URL", "an answer by another wire") else { return };
    for (wire, model) in other_wires(&url) {
        let model = model.idle_timeout(LONG).price_per_million(100_000, 200_000);
        let root =
            SupervisorSpec::one_for_one("root").child(model.spec("real").attempt_timeout(LONG));
        let system = System::start(root).await.unwrap();
        let port: Chat = system.port("root/real").unwrap();
        let options = CallOptions::new().deadline(LONG);
        let request = ChatRequest::from("Say hello.").system("You are brief.");
        let request = request.max_tokens(48).temperature(0.0);
        let whole = port.call_with(request.clone(), options.clone()).await.unwrap();
        let (sink, mut stream) = open(64);
        let heard = request.stream_to(sink);
        let call = {
            let (port, options) = (port.clone(), options.clone());
            tokio::spawn(async move { port.call_with(heard, options).await })
        };
        let mut heard = String::new();
        while let Some(event) = stream.next().await {
            match event {
                StreamEvent::Text(text) => heard.push_str(&text),
                StreamEvent::Done => break,
                other => panic!("{wire}: {other:?} after {heard:?}"),
            }
        }
        let streamed = call.await.unwrap().unwrap();
        say(&format!("by {wire}: {:?}, and heard {heard:?}", whole.value.text));
        assert_eq!(streamed.value.text, heard, "{wire}");
        for answer in [&whole, &streamed] {
            let usage = answer.value.usage;
            assert!(!answer.degraded && answer.value.finish == Finish::Stop, "{wire}: {answer:?}");
            assert!(!usage.estimated && usage.input > 10 && usage.output > 0, "{wire}: {usage:?}");
            assert!(answer.cost.money_micros > 0, "{wire}");
        }

        // By responses this server calls an answer that it has cut off complete.
        if wire == "messages" {
            let cut = ChatRequest::from("Say hello.").max_tokens(2);
            let cut = port.call_with(cut, options.clone()).await;
            let Err(CallError::RecoveryExhausted { fault, .. }) = cut else { panic!("{wire}") };
            let why = (fault.class, fault.code.as_deref());
            assert_eq!(why, (Class::OutputInvalid, Some("truncated")), "{wire}");
        }
        // It is told as the same thing by each of them.
        let long = port.call_with(ChatRequest::from("word ".repeat(9000)), options).await;
        let Err(CallError::RecoveryExhausted { fault, .. }) = long else { panic!("{wire}") };
        assert_eq!(fault.class, Class::ContextLength, "{wire}: {fault}");
        assert_balanced(system.fates());
    }
}

/// How freely it speaks, one after the other, until it does not speak on and on before it calls.
const MOODS: [f32; 4] = [0.0, 0.3, 0.6, 0.9];

/// Stands between an agent and its model: has the model call a tool first, and then say what it makes of that.
struct ToolFirst;

impl Behavior for ToolFirst {
    type Request = ChatRequest;
    type Reply = ChatReply;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
}

impl Stateless for ToolFirst {
    async fn serve(&self, request: &ChatRequest, ctx: &Context) -> Result<ChatReply, Fault> {
        let is_told = request.messages.iter().any(|message| message.role == Role::Tool);
        let choice = if is_told { ToolChoice::None } else { ToolChoice::Required };
        let real = ctx.port::<ChatRequest, ChatReply>("real")?;
        for mood in MOODS {
            let request = request.clone().tool_choice(choice).temperature(mood);
            match real.call(request).await {
                Ok(answer) => return Ok(answer.value),
                Err(error) => say(&format!("no answer in the mood {mood}: {error}")),
            }
        }
        Err(Fault::exhausted("no mood is the right one"))
    }
}

#[tokio::test]
async fn a_real_model_calls_a_tool_and_answers_with_what_it_says() {
    let Some(url) = variable("MAINSTAY_LLM_URL", "a real call of a tool") else { return };
    let looked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&looked);
    let look = move |arguments: Value, _: ToolContext| {
        seen.lock().unwrap().push(arguments);
        async { Ok::<_, Fault>("it rains in every city") }
    };
    let city = json!({
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": false,
    });
    let offer = ToolSpec::new("look").description("Looks the weather up.").parameters(city);
    // It is a small one, and has to be told how a call looks.
    let example = concat!(
        "Say nothing but a call, such as\n<tool_call>\n",
        r#"{"name": "look", "arguments": {"city": "Rome"}}"#,
        "\n</tool_call>"
    );
    let agent = Agent::new("first").system(example).max_tokens(192).temperature(0.0);
    let agent = agent.tool(offer.clone(), "look");
    let root = SupervisorSpec::one_for_one("root")
        .child(awaited(&url))
        .child(
            ChildSpec::stateless("first", || ToolFirst).needs::<Chat>("real").attempt_timeout(LONG),
        )
        .child(tool("look", Read, look))
        .child(agent.spec("agent"));
    let system = System::start(root).await.unwrap();
    let agent = system.child::<Agent>("root/agent").unwrap();
    let options = CallOptions::new().deadline(LONG);
    let answer = agent.call_with("Repeat: <tool_call>", options.clone()).await.unwrap();
    let looked = looked.lock().unwrap().clone();
    let text = &answer.value.text;
    say(&format!("a real model has called `look` with {looked:?} and says {text:?}"));
    assert!(!looked.is_empty() && !text.is_empty());
    for arguments in &looked {
        assert!(arguments["city"] == "Paris" || arguments["city"] == "Rome", "{arguments}");
    }
    assert_eq!((answer.value.steps, answer.value.tools_used.len()), (2, looked.len()));

    // The same while it is heard, where a call comes in pieces.
    let port: Chat = system.port("root/real").unwrap();
    let request = ChatRequest::from("Repeat: <tool_call>").system(example).max_tokens(192);
    let request = request.tool(offer).tool_choice(ToolChoice::Required);
    for mood in MOODS {
        let (sink, mut stream) = open(64);
        let request = request.clone().temperature(mood).stream_to(sink);
        let (port, options) = (port.clone(), options.clone());
        let call = tokio::spawn(async move { port.call_with(request, options).await });
        let mut heard = Vec::new();
        while let Some(event) = stream.next().await {
            if let StreamEvent::ToolCall(call) = event {
                heard.push(call);
            }
        }
        let answer = call.await.unwrap().unwrap().value;
        if let Some(fault) = answer.broken_by() {
            say(&format!("no call in the mood {mood}: {fault}"));
            continue;
        }
        assert_eq!((&answer.tool_calls, answer.finish), (&heard, Finish::ToolCalls));
        assert!(!heard.is_empty());
        for call in &heard {
            let arguments: Value = serde_json::from_str(&call.arguments).unwrap();
            assert!(arguments["city"] == "Paris" || arguments["city"] == "Rome", "{arguments}");
        }
        assert_balanced(system.fates());
        return;
    }
    panic!("it has not called while it was heard");
}

#[tokio::test]
async fn a_real_answer_that_was_cut_off_is_paid_for_and_given_by_the_sibling() {
    let Some(url) = variable("MAINSTAY_LLM_URL", "an answer cut off") else { return };
    let group = GroupSpec::model("llm")
        .member_spec(real(&url))
        .member_spec(LocalModel::default().spec("local"));
    let (_system, port) = start(group).await;
    let answer = port.call(ChatRequest::from("Say hello.").max_tokens(2)).await.unwrap();
    assert_eq!(class_and_code(&answer), (Class::OutputInvalid, "truncated".to_owned()));
    assert_eq!((answer.served_by.id(), answer.degraded, answer.attempts), ("local", true, 2));
    let own = answer.value.usage.input + answer.value.usage.output;
    assert!(answer.cost.tokens > own, "{:?} is only the sibling's share", answer.cost);
}

#[tokio::test]
async fn a_prompt_that_is_too_long_for_the_real_model_goes_only_to_a_larger_window() {
    let Some(url) = variable("MAINSTAY_LLM_URL", "a context overflow") else { return };
    let long = || short("word ".repeat(9000));
    let refused = (Class::ContextLength, "exceed_context_size_error".to_owned());
    let group = |tokens| {
        GroupSpec::model("llm")
            .member_spec(window(real(&url), 2048))
            .member_spec(window(LocalModel::default().spec("local"), tokens))
    };
    let (system, port) = start(group(1_000_000)).await;
    let answer = port.call(long()).await.unwrap();
    assert_eq!(class_and_code(&answer), refused);
    assert_eq!((answer.served_by.id(), answer.degraded, answer.attempts), ("local", true, 2));
    // It says nothing about the member: no circuit counts it.
    for _ in 0..3 {
        assert_eq!(port.call(long()).await.unwrap().attempts, 2);
    }
    assert_eq!(port.call(short("Say hello.")).await.unwrap().served_by.id(), "real");
    assert_balanced(system.fates());

    let (system, port) = start(group(2048)).await;
    let Err(CallError::RecoveryExhausted { fault, trail, .. }) = port.call(long()).await else {
        panic!("a model of the same size has answered what is too long for it");
    };
    assert_eq!((fault.class, trail.0.len()), (Class::ContextLength, 1));
    assert_balanced(system.fates());
}

/// A server of this test's own, ended with it.
struct Server {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    url: String,
    pid: String,
}

impl Server {
    /// Starts one and returns when it has said where it will listen; its model is not loaded yet.
    async fn spawn(packages: &str, port: u16) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/.ci/llm/serve.py");
        let port = port.to_string();
        let mut child = Command::new("python3")
            .args([script, "--threads", "1", "--seconds", "300", "--port", &*port])
            .env("PYTHONPATH", packages)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("python3 runs");
        let pid = child.id().expect("it has not ended").to_string();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = lines.next_line().await.unwrap().expect("the server says its URL");
        Self { child, lines, url, pid }
    }

    /// Returns when its model is loaded.
    async fn loaded(mut self) -> Self {
        let line = self.lines.next_line().await.unwrap().expect("the server says that it is ready");
        assert!(line.starts_with("ready"), "{line}");
        self
    }

    fn port(&self) -> u16 {
        let port = self.url.trim_end_matches("/v1").rsplit(':').next().unwrap();
        port.parse().unwrap()
    }

    async fn signal(&self, name: &str) {
        let mut kill = Command::new("sh");
        kill.args(["-c", "kill -s \"$0\" \"$1\"", name, &self.pid]);
        let status = kill.status().await.unwrap();
        assert!(status.success());
    }

    async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

#[tokio::test]
async fn a_real_server_that_loads_its_model_is_waited_for_by_the_ladder() {
    let Some(packages) = variable("MAINSTAY_LLM_PACKAGES", "a model that loads") else { return };
    let _alone = ONE_AT_A_TIME.lock().await;
    let server = Server::spawn(&packages, 0).await;
    let policy = Policy::default();
    // Nobody stands in, so that an overloaded server is waited for.
    let (system, port) =
        start(GroupSpec::model("llm").policy(policy).member_spec(real(&server.url))).await;
    let address = ("127.0.0.1", server.port());
    while tokio::net::TcpStream::connect(address).await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let begun = Instant::now();
    let answer = port.call(short("Say hello.")).await;
    let seen: Vec<_> = match &answer {
        Ok(answer) => &answer.trail,
        Err(CallError::RecoveryExhausted { trail, .. }) => trail,
        Err(other) => panic!("{other:?}"),
    }
    .iter()
    .map(|failed| failed.ended.clone())
    .collect();
    let loading =
        Ended::Fault { class: Class::Overloaded, code: Some("unavailable_error".to_owned()) };
    assert!(seen.contains(&loading), "it was loaded before it was asked: {seen:?}");
    let _server = server.loaded().await;
    // One wait of two seconds may not be enough for a slow disk; then the next request finds it.
    let answer = match answer {
        Ok(answer) => answer,
        Err(_) => port.call(short("Say hello.")).await.unwrap(),
    };
    assert_eq!(answer.served_by.id(), "real");
    say(&format!("a server that was loading has answered after {:?}, {seen:?}", begun.elapsed()));
    assert_balanced(system.fates());
}

/// The real model first, then the offline one. A real answer that takes longer than three seconds is
/// given up, so that a stopped server is found soon; on a slow machine the sibling gives more of them.
fn desk(url: &str) -> GroupSpec {
    let second = Duration::from_secs(1);
    GroupSpec::model("llm")
        .policy(Policy::default())
        .circuit(CircuitSpec::new().with_open(second, second))
        .member_spec(real(url).attempt_timeout(3 * second))
        .member_spec(LocalModel::default().spec("local"))
}

/// Asks until the real model serves for good: its circuit lets a request through by itself, now and
/// then, and is closed after two that were answered. Returns how many had to be asked.
async fn until_real(port: &Chat) -> u32 {
    let (mut asked, mut in_a_row) = (0, 0);
    while in_a_row < 3 {
        asked += 1;
        let answer = port.call(short("Say hello.")).await.unwrap();
        if answer.served_by.id() == "real" && answer.attempts == 1 {
            in_a_row += 1;
        } else {
            in_a_row = 0;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    asked
}

/// A load of requests, of which `strike` happens when the first few are answered. Returns who served
/// how many.
async fn load(port: &Chat, strike: impl AsyncFnOnce()) -> (usize, usize) {
    let mut calls = JoinSet::new();
    for n in 0..LOAD {
        let port = port.clone();
        let options = CallOptions::new().deadline(Duration::from_secs(120));
        let question = short(format!("Where is order {n}? Say hello."));
        calls.spawn(async move { port.call_with(question, options).await });
    }
    let mut strike = Some(strike);
    let (mut by_real, mut by_local) = (0, 0);
    while let Some(answer) = calls.join_next().await {
        let answer = answer.unwrap().expect("every request is answered by somebody");
        match answer.served_by.id() {
            "real" => by_real += 1,
            "local" => by_local += 1,
            other => panic!("{other}"),
        }
        if by_real + by_local == 5
            && let Some(strike) = strike.take()
        {
            strike().await;
        }
    }
    assert_eq!(by_real + by_local, LOAD);
    (by_real, by_local)
}

#[tokio::test]
async fn a_real_server_that_is_stopped_is_found_by_deadline_and_returned_to_when_it_goes_on() {
    let Some(packages) = variable("MAINSTAY_LLM_PACKAGES", "a stopped server") else { return };
    let _alone = ONE_AT_A_TIME.lock().await;
    let server = Server::spawn(&packages, 0).await.loaded().await;
    let (system, port) = start(desk(&server.url)).await;
    let mut events = system.events();
    until_real(&port).await;
    let before = system.fates().accepted;

    let begun = Instant::now();
    let (by_real, by_local) = load(&port, async || server.signal("STOP").await).await;
    let fates = system.fates();
    assert_balanced(fates);
    assert_eq!(fates.accepted, before + LOAD as u64);
    assert_eq!(fates.done, fates.accepted);
    assert!(by_local > 0);
    let opened = events.wait_for(|event| matches!(event, Event::Circuit { state: "open", .. }));
    opened.await.unwrap();
    assert!(system.stats().failures[&Class::Timeout] >= 3);
    say(&format!(
        "stopped: {by_real} by the real model, {by_local} by the sibling in {:?}",
        begun.elapsed()
    ));

    // An open circuit costs nobody a timeout. When its time is over, one request at a time tries.
    server.signal("CONT").await;
    let begun = Instant::now();
    let asked = until_real(&port).await;
    let back = events.wait_for(|event| matches!(event, Event::Switched { failback: true, .. }));
    back.await.unwrap();
    say(&format!("gone on: back at the real model after {asked} requests, {:?}", begun.elapsed()));
    assert_balanced(system.fates());
    system.stop().await;
    assert_balanced(system.fates());
}

#[tokio::test]
async fn a_real_server_that_is_killed_loses_no_request_and_gets_traffic_when_it_is_back() {
    let Some(packages) = variable("MAINSTAY_LLM_PACKAGES", "a killed server") else { return };
    let _alone = ONE_AT_A_TIME.lock().await;
    let server = Server::spawn(&packages, 0).await.loaded().await;
    let place = server.port();
    let (system, port) = start(desk(&server.url)).await;
    let mut events = system.events();
    until_real(&port).await;
    let before = system.fates().accepted;

    let begun = Instant::now();
    let (by_real, by_local) = load(&port, async || server.kill().await).await;
    let fates = system.fates();
    assert_balanced(fates);
    assert_eq!(fates.accepted, before + LOAD as u64);
    assert_eq!(fates.done, fates.accepted);
    assert!(by_local > 0);
    assert!(system.stats().failures[&Class::Network] > 0);
    say(&format!(
        "killed: {by_real} by the real model, {by_local} by the sibling in {:?}",
        begun.elapsed()
    ));

    // The same address, another process: nobody has to tell the system.
    let _server = Server::spawn(&packages, place).await.loaded().await;
    while events.try_next().is_some() {}
    let begun = Instant::now();
    let asked = until_real(&port).await;
    let back = events.wait_for(|event| matches!(event, Event::Switched { failback: true, .. }));
    back.await.unwrap();
    say(&format!("started again: back after {asked} requests, {:?}", begun.elapsed()));
    // And a whole load, with nothing in its way.
    let (by_real, by_local) = load(&port, async || {}).await;
    say(&format!("healthy: {by_real} by the real model, {by_local} by the sibling"));
    assert!(by_real > 0);
    assert_balanced(system.fates());
    system.stop().await;
    assert_balanced(system.fates());
}
