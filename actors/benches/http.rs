//! What the whole stack costs over real HTTP, as ratios to bare reqwest in the same run.
//!
//! ```text
//! cargo bench -p mainstay-actors --bench http -- [--quick] [--rounds N] [FIGURE ...]
//! cargo bench -p mainstay-actors --bench http -- --count ours|reqwest N
//! ```
//!
//! The second makes `N` requests of one side of `L1h` and nothing else, for a profiler or a counter of
//! instructions: the difference of two counts is free of what starting takes.
//!
//! As the ratios of the runtime: ours and the peers take turns, round by round, and a figure is the
//! median of the rounds. A server on a thread of its own answers both on loopback, over connections
//! that are kept. `L1h` is time on the wall, since it is latency that is promised: pairs of short bursts,
//! and the median of their ratios with its interval. The others are CPU time of the client's thread, or
//! wall time where it says so. Nothing here fails by time.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use mainstay::circuit::CircuitSpec;
use mainstay::fault::Class;
use mainstay::policy::Policy;
use mainstay::port::Port;
use mainstay::spec::{GroupSpec, SupervisorSpec};
use mainstay::system::System;
use mainstay_actors::chat::stream::{StreamEvent, open};
use mainstay_actors::chat::{ChatReply, ChatRequest};
use mainstay_actors::model::Model;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

#[path = "../../benches/ratios/meter.rs"]
#[allow(dead_code)]
mod meter;
#[path = "http/bare.rs"]
mod bare;
#[path = "http/pairs.rs"]
mod pairs;
#[path = "http/server.rs"]
mod server;

use bare::Bare;
use meter::{Asks, Goal, Options, Side, Unit, alternate, median, price, report};
use server::Server;

const PROMPT: &str = "Where is order 1042? It was sent on Monday and should have come by now.";
const STREAMS: usize = 1000;
/// How long either side may take for one answer.
const DEADLINE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let mut options = Options { rounds: 9, quick: false };
    let mut names = Vec::new();
    let mut left = std::env::args().skip(1);
    while let Some(argument) = left.next() {
        match argument.as_str() {
            "--bench" => {}
            "--quick" => options.quick = true,
            "--count" => {
                let (side, requests) = (left.next(), left.next());
                return count(side.as_deref(), requests.and_then(|number| number.parse().ok()));
            }
            "--rounds" => match left.next().and_then(|rounds| rounds.parse().ok()) {
                Some(rounds) if rounds > 0 => options.rounds = rounds,
                _ => {
                    eprintln!("error: --rounds needs a whole number from 1");
                    return ExitCode::FAILURE;
                }
            },
            name if ["L1H", "P7H", "P8H", "S1H"].contains(&name.to_uppercase().as_str()) => {
                names.push(name.to_uppercase());
            }
            other => {
                eprintln!(
                    "error: {other}: known are --quick, --rounds N, --count, L1h, P7h, P8h, S1h"
                );
                return ExitCode::FAILURE;
            }
        }
    }
    let wanted = |name: &str| names.is_empty() || names.iter().any(|known| known == name);
    let server = Server::start();
    if wanted("L1H") {
        latency(&options, &server);
    }
    if wanted("P7H") {
        routing(&options, &server);
    }
    if wanted("P8H") {
        fail_over(&options, &server);
    }
    if wanted("S1H") {
        streams(&options, &server);
    }
    ExitCode::SUCCESS
}

/// So many requests of one side of L1h, one after the other, timed by nobody.
fn count(side: Option<&str>, requests: Option<usize>) -> ExitCode {
    async fn all(asks: &impl Asks, requests: usize) {
        for _ in 0..requests {
            asks.ask().await;
        }
    }
    let (server, runtime) = (Server::start(), ct());
    let url = server.url();
    match (side, requests) {
        (Some("ours"), Some(requests)) => {
            let (system, port) = start(&runtime, group("llm", [url, url], 8));
            runtime.block_on(all(&Ours(port), requests));
            runtime.block_on(system.stop());
        }
        (Some("reqwest"), Some(requests)) => runtime.block_on(all(&Bare::new(url), requests)),
        _ => {
            eprintln!("error: --count needs `ours` or `reqwest`, and a whole number");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn ct() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime can be had")
}

fn mt2() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be had")
}

/// The whole stack: a supervisor, a group of two, and the endpoints.
fn group(id: &str, urls: [&str; 2], concurrency: u32) -> GroupSpec {
    // No retry and no opening circuit, so that each call finds the primary as the figure says.
    let never = CircuitSpec::new()
        .with_threshold(100, u32::MAX)
        .with_window(Duration::from_secs(30), u32::MAX);
    let mut policy = Policy::new();
    for class in Class::ALL {
        policy = policy.with_cap(class, 0);
    }
    let member = |id: &str, url: &str| {
        Model::openai(url, "m").key("sk-bench").spec(id).concurrency(concurrency).mailbox(4096)
    };
    GroupSpec::model(id)
        .circuit(never)
        .policy(policy)
        .member_spec(member("first", urls[0]))
        .member_spec(member("second", urls[1]))
}

type Desk = (System, Port<ChatRequest, ChatReply>);

fn start(runtime: &Runtime, spec: GroupSpec) -> Desk {
    runtime.block_on(async {
        let system = System::start(SupervisorSpec::one_for_one("top").group(spec)).await;
        let system = system.expect("it starts");
        let port = system.port("top/llm").expect("it is there");
        (system, port)
    })
}

/// Asks through the whole stack.
#[derive(Clone)]
struct Ours(Port<ChatRequest, ChatReply>);

impl Asks for Ours {
    async fn ask(&self) {
        let answer = self.0.call(ChatRequest::from(PROMPT)).await.expect("it answers");
        let reply = answer.value;
        assert_eq!(reply.text, server::ANSWER);
        assert_eq!((reply.usage.total(), &*reply.model), (34, "m"));
    }
}

/// Requests of one side in a row. A burst takes a millisecond or two, so that what else goes on on the
/// machine meets both sides of a pair alike.
const BURST: usize = 20;
/// What a server of the same kind takes for its answer in the figure that has one which works.
const WORK: Duration = Duration::from_millis(2);

/// The median time on the wall of a burst of requests, one after the other.
fn burst(runtime: &Runtime, asks: &impl Asks) -> f64 {
    runtime.block_on(async {
        let mut took = [0.0; BURST];
        for took in &mut took {
            let begun = Instant::now();
            asks.ask().await;
            *took = begun.elapsed().as_nanos() as f64;
        }
        median(&mut took)
    })
}

/// L1h: what the whole stack adds to the latency of one request.
fn latency(options: &Options, server: &Server) {
    let busy = Server::that_works(WORK);
    for (what, server, pairs, goal) in [
        ("L1h ct/1 latency", server, 200, Some(1.05)),
        ("L1h ct/1 latency, 2 ms of work", &busy, 10, None),
    ] {
        let (mine, bare) = (ct(), ct());
        let url = server.url();
        let (system, port) = start(&mine, group("llm", [url, url], 8));
        let (ours, peer) = (Ours(port), Bare::new(url));
        let found = pairs::of(
            options.size(pairs) * options.rounds,
            || burst(&mine, &ours),
            || burst(&bare, &peer),
        );
        println!("{}", found.line(what, "reqwest", goal));
        if goal.is_some() {
            let requests = options.size(2_000);
            let sides: Vec<Side<'_>> = vec![
                ("ours", Box::new(|| price(&mine, 1, requests, &ours))),
                ("reqwest", Box::new(|| price(&bare, 1, requests, &peer))),
            ];
            let medians = alternate(options, sides);
            report("L1h ct/1 client CPU", Unit::Time, &medians, Goal::Reported);
        }
        mine.block_on(system.stop());
    }
}

/// P7h: what the group adds to a call of its member alone, over HTTP.
fn routing(options: &Options, server: &Server) {
    let (grouped, alone) = (ct(), ct());
    let url = server.url();
    let (system, port) = start(&grouped, group("llm", [url, url], 8));
    let child = Model::openai(url, "m").key("sk-bench").spec("llm");
    let spec = SupervisorSpec::one_for_one("top").child(child);
    let other = alone.block_on(System::start(spec)).expect("it starts");
    let single = Ours(other.port("top/llm").expect("it is there"));
    let ours = Ours(port);
    let requests = options.size(3_000);
    let sides: Vec<Side<'_>> = vec![
        ("ours", Box::new(|| price(&grouped, 1, requests, &ours))),
        ("the member alone", Box::new(|| price(&alone, 1, requests, &single))),
    ];
    let medians = alternate(options, sides);
    report("P7h ct/1 through the group", Unit::Time, &medians, Goal::Reported);
    let added = (medians[0].1 - medians[1].1).max(0.0);
    report("P7h ct/1 added", Unit::Time, &[("ours", added)], Goal::AtMost(1e3));
    grouped.block_on(system.stop());
    alone.block_on(other.stop());
}

/// P8h: a sibling answers, because the primary is known to be down, or because it refuses connections. What that
/// adds is beside the same call of a group whose primary answers, and, of a refusal, without what the refusal
/// itself costs whoever tries the one and then the other by hand.
fn fail_over(options: &Options, server: &Server) {
    let (mine, whole, bare) = (ct(), ct(), ct());
    let (url, dead) = (server.url(), server::refuses());
    let (system, port) = start(&mine, group("llm", [&dead, url], 8));
    let (well, healthy) = start(&whole, group("llm", [url, url], 8));
    let (ours, healthy, other) = (Ours(port), Ours(healthy), Bare::new(url));
    let requests = options.size(2_000);
    system.isolate("top/llm/first").expect("it is there");
    let sides: Vec<Side<'_>> = vec![
        ("ours", Box::new(|| price(&mine, 1, requests, &ours))),
        ("reqwest, the other", Box::new(|| price(&bare, 1, requests, &other))),
        ("its primary answers", Box::new(|| price(&whole, 1, requests, &healthy))),
    ];
    let known = alternate(options, sides);
    report("P8h primary known dead", Unit::Time, &known[..2], Goal::Reported);
    let added = [("ours", (known[0].1 - known[2].1).max(0.0))];
    report("P8h primary known dead, added", Unit::Time, &added, Goal::AtMost(5e3));
    system.release("top/llm/first").expect("it is there");
    let by_hand = Bare::new(url).before(&dead);
    let sides: Vec<Side<'_>> = vec![
        ("ours", Box::new(|| price(&mine, 1, requests, &ours))),
        ("reqwest by hand", Box::new(|| price(&bare, 1, requests, &by_hand))),
    ];
    let refuses = alternate(options, sides);
    report("P8h primary refuses", Unit::Time, &refuses, Goal::Reported);
    let refusal = (refuses[1].1 - known[1].1).max(0.0);
    let added = [("ours", (refuses[0].1 - known[2].1 - refusal).max(0.0))];
    report("P8h primary refuses, added", Unit::Time, &added, Goal::AtMost(25e3));
    mine.block_on(system.stop());
    whole.block_on(well.stop());
}

/// S1h: a thousand streams at once on two workers: how many a second, and how many are lost.
fn streams(options: &Options, server: &Server) {
    let (mine, bare) = (mt2(), mt2());
    let url = server.url();
    let (system, port) = start(&mine, group("llm", [url, url], STREAMS as u32));
    let peer = Bare::new(url);
    let lost = std::cell::Cell::new(0);
    let ours = || {
        let begun = Instant::now();
        let whole = mine.block_on(all(|| {
            let port = port.clone();
            async move {
                let (sink, mut stream) = open(64);
                let call = port.call(ChatRequest::from(PROMPT).stream_to(sink));
                let hear = async {
                    let mut text = String::new();
                    while let Some(event) = stream.next().await {
                        if let StreamEvent::Text(more) = event {
                            text.push_str(&more);
                        }
                    }
                    text
                };
                let (answer, heard) = tokio::join!(call, hear);
                answer.is_ok_and(|answer| {
                    let reply = answer.value;
                    reply.text == server::ANSWER && reply.usage.output == 14
                }) && heard == server::ANSWER
            }
        }));
        lost.set(lost.get() + STREAMS - whole);
        STREAMS as f64 / begun.elapsed().as_secs_f64()
    };
    let theirs = || {
        let begun = Instant::now();
        let whole = bare.block_on(all(|| {
            let peer = peer.clone();
            async move {
                // As with ours, the words are heard by somebody else while they come.
                let (listener, mut words) = mpsc::channel::<String>(64);
                let request = ChatRequest::from(PROMPT);
                let call = peer.streamed(&request, listener);
                let hear = async {
                    let mut text = String::new();
                    while let Some(more) = words.recv().await {
                        text.push_str(&more);
                    }
                    text
                };
                let (answer, heard) = tokio::join!(call, hear);
                answer.is_some_and(|reply| reply.text == server::ANSWER && reply.usage.output == 14)
                    && heard == server::ANSWER
            }
        }));
        assert_eq!(whole, STREAMS, "the server loses streams");
        STREAMS as f64 / begun.elapsed().as_secs_f64()
    };
    let sides: Vec<Side<'_>> = vec![("ours", Box::new(ours)), ("reqwest", Box::new(theirs))];
    let medians = alternate(options, sides);
    report("S1h mt2/1000 streams, wall", Unit::Rate, &medians, Goal::Reported);
    let all = STREAMS * (options.rounds + 1);
    println!("S1h mt2/1000 streams lost ours {} of {all} goal 0", lost.get());
    mine.block_on(system.stop());
}

/// How many of a thousand, all begun at once, went well.
async fn all<F: Future<Output = bool> + Send + 'static>(one: impl Fn() -> F) -> usize {
    let tasks: Vec<_> = (0..STREAMS).map(|_| tokio::spawn(one())).collect();
    let mut well = 0;
    for task in tasks {
        well += usize::from(task.await.expect("no panic"));
    }
    well
}
