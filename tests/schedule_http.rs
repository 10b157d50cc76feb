//! The schedule over real HTTP, in real time: every row of the tables of real errors goes through a
//! server of ours, the model endpoint, the group and its policy, and the servers count what they see.
//!
//! The waits are short here, since `schedule.rs` proves the exact ones on a paused clock; only what a
//! rate limit asks for is waited for in full. Nothing is waited for that an event does not announce,
//! and a wait is only ever too long, never too short, so no test depends on the speed of the machine.

use std::time::{Duration, Instant, SystemTime};

use mainstay::decision::Action;
use mainstay::error::CallError;
use mainstay::event::Event;
use mainstay::fate::{Answer, Ended};
use mainstay::fault::Class;
use mainstay::policy::{Backoff, Capabilities, Policy};
use mainstay::port::Port;
use mainstay::spec::{ChildSpec, GroupSpec, SupervisorSpec};
use mainstay::system::System;
use mainstay_actors::chat::{ChatReply, ChatRequest};
use mainstay_actors::local::LocalModel;
use mainstay_actors::model::Model;
use mainstay_actors::stub_server::{Row, StubServer};
use serde_json::json;
use tokio::task::JoinSet;

const KEY: &str = "sk-very-secret-0042";

type Chat = Port<ChatRequest, ChatReply>;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The playbook's caps with short waits. A rate limit keeps its two seconds.
fn quick() -> Policy {
    Policy::playbook_exact()
        .with_backoff(Class::Network, Backoff::doubling(ms(10)))
        .with_backoff(Class::ServerTransient, Backoff::doubling(ms(10)))
        .with_backoff(Class::Timeout, Backoff::doubling(ms(5)))
}

fn window(tokens: u32) -> Capabilities {
    Capabilities { context_window: Some(tokens), ..Capabilities::default() }
}

/// A model under test, a second provider, and the offline model, which takes longer prompts.
struct Bench {
    system: System,
    port: Chat,
    first: StubServer,
    second: StubServer,
}

impl Bench {
    async fn new(row: Row, change: impl FnOnce(&StubServer) -> ChildSpec) -> Self {
        let (first, second) =
            (StubServer::start().await.unwrap(), StubServer::start().await.unwrap());
        first.otherwise(row);
        second.otherwise(Row::reply("from the second"));
        let group = GroupSpec::model("llm")
            .policy(quick())
            .member_spec(change(&first).capabilities(window(8)))
            .member_spec(Model::openai(second.url(), "m").spec("second").capabilities(window(8)))
            .member_spec(LocalModel::default().spec("local").capabilities(window(64)));
        let system = System::start(SupervisorSpec::one_for_one("root").group(group)).await.unwrap();
        let port = system.port("root/llm").unwrap();
        Self { system, port, first, second }
    }

    async fn ask(&self) -> Result<Answer<ChatReply>, CallError<ChatRequest>> {
        self.port.call("Where is order 1042?").await
    }
}

fn openai(server: &StubServer) -> ChildSpec {
    Model::openai(server.url(), "m").key(KEY).spec("first")
}

fn ollama(server: &StubServer) -> ChildSpec {
    Model::ollama(server.url(), "m").spec("first")
}

/// A row of a table: what the server says, what it is, how often it is asked, and who answers.
struct Case {
    name: &'static str,
    row: Row,
    class: Class,
    requests: usize,
    served_by: Option<&'static str>,
    ollama: bool,
}

fn case(name: &'static str, row: Row, class: Class, requests: usize, by: &'static str) -> Case {
    let served_by = (!by.is_empty()).then_some(by);
    Case { name, row, class, requests, served_by, ollama: false }
}

/// An error as Ollama's own API writes it.
fn said(status: u16, text: &str) -> Row {
    Row::new(status, json!({ "error": text }).to_string())
}

fn openai_table() -> Vec<Case> {
    use Class::*;
    let plain = |status| Row::error(status, "", "no");
    let quota = |code| case("quota", Row::error(429, code, "no"), QuotaExhausted, 1, "second");
    let ended = |reason| Row::completion(json!({ "role": "assistant", "content": "a" }), reason);
    vec![
        case("reset before the request", Row::reset_before(), Network, 4, "second"),
        // A model changes nothing in the world, so a lost answer leaves nothing unknown.
        case("reset after the request", Row::reset_after(), Network, 4, "second"),
        case("no answer", Row::hang(), Timeout, 3, "second"),
        case("an answer that trickles", Row::reply("a").slow(1, ms(50)), Timeout, 3, "second"),
        case("408", plain(408), Timeout, 3, "second"),
        case("409", plain(409), InputValidation, 1, ""),
        case(
            "409, retry",
            plain(409).header("x-should-retry", "true"),
            ServerTransient,
            4,
            "second",
        ),
        case("429", Row::error(429, "rate_limit_exceeded", "no"), RateLimit, 2, "second"),
        case("429 slow_down", Row::error(429, "slow_down", "no"), RateLimit, 2, "second"),
        case("503 slow_down", Row::error(503, "slow_down", "no"), RateLimit, 2, "second"),
        quota("insufficient_quota"),
        quota("credit_balance_exhausted"),
        quota("organization_spend_limit_exceeded"),
        quota("project_spend_limit_exceeded"),
        quota("organization_usage_limit_exceeded"),
        case(
            "context",
            Row::error(400, "context_length_exceeded", "no"),
            ContextLength,
            1,
            "local",
        ),
        case("policy", Row::error(400, "content_policy_violation", "no"), ContentFiltered, 1, ""),
        case("400", Row::error(400, "unsupported_value", "no"), InputValidation, 1, ""),
        case("404", plain(404), InputValidation, 1, ""),
        case("404 model", Row::error(404, "model_not_found", "no"), ModelUnavailable, 1, "second"),
        case("422", plain(422), InputValidation, 1, ""),
        case("401", Row::error(401, "invalid_api_key", "no"), Permission, 1, ""),
        case(
            "403",
            Row::error(403, "unsupported_country_region_territory", "no"),
            Permission,
            1,
            "",
        ),
        case("500", plain(500), ServerTransient, 4, "second"),
        case(
            "500, do not",
            plain(500).header("x-should-retry", "false"),
            ModelUnavailable,
            1,
            "second",
        ),
        case(
            "502",
            Row::new(502, "<html>").header("content-type", "text/html"),
            ServerTransient,
            4,
            "second",
        ),
        case("503", plain(503), Overloaded, 1, "second"),
        case("504", plain(504), Timeout, 3, "second"),
        case("200 filtered", ended("content_filter"), ContentFiltered, 1, ""),
        case("200 cut off", ended("length"), OutputInvalid, 1, "second"),
        case("200 error", Row::error(200, "model_not_found", "no"), ModelUnavailable, 1, "second"),
        case("200 error, retryable", Row::error(200, "server_busy", "no"), Overloaded, 1, "second"),
        case("unknown", plain(418), Unknown, 1, "second"),
        // What is not in the table and comes over the wire all the same.
        case("half a body", Row::reply("a long answer").cut_off(40), Network, 4, "second"),
        case("half a JSON", Row::new(200, r#"{"choices":[{"mess"#), ServerTransient, 4, "second"),
        case(
            "a page",
            Row::new(200, "<html>sign in</html>").header("content-type", "text/html"),
            ServerTransient,
            4,
            "second",
        ),
        case(
            "no UTF-8",
            Row::new(200, b"{\"choices\":[\"\xff\xfe\"]}".to_vec()),
            ServerTransient,
            4,
            "second",
        ),
        case("400, no UTF-8", Row::new(400, b"\xff\xfe\x00".to_vec()), InputValidation, 1, ""),
        case("another shape", Row::new(200, "{}"), OutputInvalid, 1, "second"),
        case("too large", Row::new(200, vec![b' '; 11 << 20]), OutputInvalid, 1, "second"),
    ]
}

fn ollama_table() -> Vec<Case> {
    use Class::*;
    let long = "the input length exceeds the context length";
    let busy = "server busy, please try again.  maximum pending requests exceeded";
    let missing = "model \"llama9\" not found, try pulling it first";
    let rows = vec![
        case("400 JSON", said(400, "invalid character 'x'"), InputValidation, 1, ""),
        case("400 context", said(400, long), ContextLength, 1, "local"),
        case("404", said(404, missing), ModelUnavailable, 1, "second"),
        case("429", said(429, "too many requests"), RateLimit, 2, "second"),
        case("502", said(502, "upstream unreachable"), ServerTransient, 4, "second"),
        case("503", said(503, busy), Overloaded, 1, "second"),
        // Passing once; then the model cannot answer.
        case("500", said(500, "llama runner process has terminated"), ServerTransient, 2, "second"),
        case("200 busy", said(200, busy), Overloaded, 1, "second"),
        case("200 context", said(200, long), ContextLength, 1, "local"),
        case("200 model", said(200, missing), ModelUnavailable, 1, "second"),
        case(
            "generic type",
            Row::new(503, json!({"error": {"type": "invalid_request_error"}}).to_string()),
            Overloaded,
            1,
            "second",
        ),
    ];
    rows.into_iter().map(|case| Case { ollama: true, ..case }).collect()
}

/// What went wrong with a case, if anything.
async fn run(case: Case) -> Result<(), String> {
    let spec = if case.ollama { ollama } else { openai };
    let bench = Bench::new(case.row, |server| match case.class {
        // The others may take as long as the machine needs.
        Class::Timeout => spec(server).attempt_timeout(ms(400)),
        _ => spec(server),
    })
    .await;
    let outcome = bench.ask().await;
    let (trail, served_by) = match &outcome {
        Ok(answer) => (&answer.trail, Some(answer.served_by.id())),
        Err(CallError::RecoveryExhausted { trail, .. }) => (trail, None),
        Err(other) => return Err(format!("{}: {other:?}", case.name)),
    };
    let wrong = |what: String| Err(format!("{}: {what}; {trail}", case.name));
    let class = match trail.iter().next().map(|failed| &failed.ended) {
        Some(Ended::Fault { class, .. }) => *class,
        other => return wrong(format!("ended {other:?}")),
    };
    if class != case.class {
        return wrong(format!("is {class}, not {}", case.class));
    }
    if served_by != case.served_by {
        return wrong(format!("served by {served_by:?}, not {:?}", case.served_by));
    }
    let connections = bench.first.connections();
    if connections.len() != case.requests {
        return wrong(format!("{} requests, not {}", connections.len(), case.requests));
    }
    let failed = trail.0.len();
    if failed != case.requests {
        return wrong(format!("{failed} attempts failed, {} requests came", case.requests));
    }
    // The sibling is asked once, after all retries, and only if it may be.
    let to_second = bench.second.connections();
    if to_second.len() != usize::from(case.served_by == Some("second")) {
        return wrong(format!("the second was asked {} times", to_second.len()));
    }
    if to_second.iter().any(|at| connections.iter().any(|first| first > at)) {
        return wrong("the second was asked before the first was given up".to_owned());
    }
    // No retry comes early.
    for (at, pair) in connections.windows(2).enumerate() {
        let Action::Retry { delay, .. } = trail.0[at].action else {
            return wrong(format!("attempt {} was no retry", at + 2));
        };
        if pair[1].duration_since(pair[0]) < delay {
            return wrong(format!("retry {} came early", at + 1));
        }
    }
    if outcome.as_ref().is_ok_and(|answer| !answer.degraded) {
        return wrong("a substitute's answer is not marked".to_owned());
    }
    let fates = bench.system.fates();
    if !fates.is_balanced() || fates.open != 0 || fates.accepted != 1 {
        return wrong(format!("{fates:?}"));
    }
    bench.system.stop().await;
    Ok(())
}

#[tokio::test]
async fn every_row_of_the_tables_of_openai_and_ollama_is_answered_as_it_says() {
    let mut cases = JoinSet::new();
    for case in openai_table().into_iter().chain(ollama_table()) {
        cases.spawn(run(case));
    }
    let results = cases.join_all().await;
    let wrong: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    println!("{} rows", results.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// How long the first server was left alone after this answer, by the decision and by the server's own
/// clock; `None` when the second was asked instead.
async fn left_alone(row: Row) -> Option<(Duration, Duration)> {
    let bench = Bench::new(Row::reply("at last"), openai).await;
    bench.first.then(row);
    let answer = bench.ask().await.unwrap();
    let at: Vec<Instant> = bench.first.requests().iter().map(|seen| seen.at.into_std()).collect();
    match (answer.trail.0[0].action, &at[..]) {
        (Action::Retry { delay, .. }, [first, second]) => Some((delay, *second - *first)),
        (Action::Substitute { member: 1 }, [_]) => None,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_rate_limited_server_is_left_alone_for_two_seconds_or_as_long_as_it_asks() {
    let rows = [
        ("x-nothing", "1", Some(2000)),
        ("retry-after", "1", Some(2000)),
        ("retry-after", "NaN", Some(2000)),
        ("retry-after", "inf", Some(2000)),
        ("retry-after", "-5", Some(2000)),
        ("retry-after", "3", Some(3000)),
        ("retry-after-ms", "2300", Some(2300)),
        ("retry-after", "31", None),
    ];
    let limited = || Row::error(429, "rate_limit_exceeded", "no");
    let mut runs = JoinSet::new();
    for (name, value, wait) in rows {
        runs.spawn(async move {
            let found = left_alone(limited().header(name, value)).await;
            assert_eq!(found.map(|(delay, _)| delay), wait.map(ms), "{name}: {value}");
            assert!(found.is_none_or(|(delay, gap)| gap >= delay), "{name}: {value}: {found:?}");
        });
    }
    runs.spawn(async move {
        // A date has whole seconds.
        let date = httpdate::fmt_http_date(SystemTime::now() + ms(5000));
        assert!(left_alone(limited().header("retry-after", &*date)).await.is_some());
        assert!(SystemTime::now() >= httpdate::parse_http_date(&date).unwrap());
    });
    runs.join_all().await;
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_tried_four_times_and_then_left_to_its_circuit() {
    // A port that was just free, and is not listened on.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let gone = move |_: &StubServer| {
        Model::ollama(format!("http://127.0.0.1:{port}/v1"), "m").spec("first")
    };
    let bench = Bench::new(Row::reply("never asked"), gone).await;
    let mut attempts = Vec::new();
    for _ in 0..4 {
        let answer = bench.ask().await.unwrap();
        assert_eq!(answer.served_by.id(), "second");
        attempts.push(answer.attempts);
        for failed in answer.trail.iter() {
            let code = Some("connection_refused".to_owned());
            assert_eq!(failed.ended, Ended::Fault { class: Class::Network, code });
        }
    }
    // Three requests in a row open the circuit; the fourth does not even try.
    assert_eq!(attempts, [5, 5, 5, 1]);
    assert_eq!(bench.second.count(), 4);
}

#[tokio::test]
async fn one_answer_after_failures_of_every_kind_is_one_request_for_the_caller() {
    let bench = Bench::new(Row::reply("at last"), openai).await;
    bench.first.then(Row::reset_before());
    bench.first.then(Row::error(500, "", "no"));
    bench.first.then(Row::error(408, "", "no"));
    let answer = bench.ask().await.unwrap();
    assert_eq!((answer.value.text.as_str(), answer.attempts), ("at last", 4));
    assert!(!answer.degraded && answer.served_by.id() == "first");
    assert_eq!(bench.first.connections().len(), 4);
    // The same question each time, and each time with the key.
    let requests = bench.first.requests();
    assert_eq!(requests.len(), 3);
    assert!(requests.iter().all(|seen| seen.json() == requests[0].json()));
    let bearer = format!("Bearer {KEY}");
    assert!(requests.iter().all(|seen| seen.header("authorization") == Some(&*bearer)));
    // With the prompt of the one whose connection was reset, which may have been read: 23 by estimate.
    assert_eq!((answer.cost.tokens, bench.system.fates().accepted), (15 + 23, 1));
}

#[tokio::test]
async fn a_redirect_to_another_host_is_not_followed_and_the_key_stays() {
    let thief = StubServer::start().await.unwrap();
    for status in [301, 302, 303, 307, 308] {
        let to = format!("{}/chat/completions", thief.url());
        let bench = Bench::new(Row::new(status, "").header("location", to), openai).await;
        let answer = bench.ask().await.unwrap();
        assert_eq!(answer.served_by.id(), "second", "{status}");
        let code = Some(status.to_string());
        let expected = Ended::Fault { class: Class::ModelUnavailable, code };
        assert_eq!(answer.trail.0[0].ended, expected);
        assert_eq!(bench.first.count(), 1);
        // The second endpoint has no key, and gets none.
        assert_eq!(bench.second.requests()[0].header("authorization"), None);
    }
    assert_eq!(thief.connections().len(), 0);
}

#[tokio::test]
async fn a_large_answer_is_an_answer_up_to_the_cap() {
    let bench = Bench::new(Row::reply(&"a".repeat(9 << 20)), |server| {
        Model::openai(server.url(), "m").spec("first")
    })
    .await;
    let answer = bench.ask().await.unwrap();
    assert_eq!((answer.value.text.len(), answer.served_by.id()), (9 << 20, "first"));
}

#[tokio::test]
async fn what_a_provider_says_is_in_the_error_for_the_caller_and_nowhere_else() {
    const PROMPT: &str = "my card is 4111-1111";
    const WORDS: &str = "the model has gone fishing";
    let row = Row::error(401, "invalid_api_key", &format!("{WORDS}: {KEY} for {PROMPT}"));
    let bench = Bench::new(row, openai).await;
    let mut events = bench.system.events();
    let error = bench.port.call(PROMPT).await.unwrap_err();
    let CallError::RecoveryExhausted { fault, .. } = &error else { panic!("{error:?}") };
    assert!(fault.message.contains(WORDS));
    assert!(!format!("{error} {error:?}").contains(KEY));
    let mut texts = Vec::new();
    while let Some(stamped) = events.try_next() {
        texts.push(format!("{stamped:?} {}", serde_json::to_string(&stamped).unwrap()));
        if let Event::Failed { ended, .. } = stamped.event {
            assert!(ended.to_string().contains("invalid_api_key"));
        }
    }
    assert!(texts.len() >= 3, "{texts:?}");
    let tree = bench.system.tree();
    texts.extend([tree.to_string(), format!("{tree:#}"), tree.to_json(), tree.to_dot()]);
    texts.extend([tree.to_mermaid(), format!("{tree:?} {:?}", bench.system)]);
    texts.push(format!("{:?}", bench.system.stats()));
    for text in texts {
        for secret in [KEY, PROMPT, WORDS] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}

#[tokio::test]
async fn two_endpoints_of_one_account_are_both_left_alone_after_a_rate_limit() {
    let (a, b, c) = (
        StubServer::start().await.unwrap(),
        StubServer::start().await.unwrap(),
        StubServer::start().await.unwrap(),
    );
    a.otherwise(Row::error(429, "rate_limit_exceeded", "no").header("retry-after", "60"));
    let group = GroupSpec::model("llm")
        .policy(quick())
        .member_spec(Model::openai(a.url(), "big").spec("a").quota_domain("account"))
        .member_spec(Model::openai(b.url(), "small").spec("b").quota_domain("account"))
        .member_spec(Model::openai(c.url(), "other").spec("c"));
    let system = System::start(SupervisorSpec::one_for_one("root").group(group)).await.unwrap();
    let port: Chat = system.port("root/llm").unwrap();
    for _ in 0..3 {
        assert_eq!(port.call("x").await.unwrap().served_by.id(), "c");
    }
    assert_eq!((a.count(), b.count(), c.count()), (1, 0, 3));
}
