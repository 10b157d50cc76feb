//! A support desk answers 240 customers in 14 languages while its models and tools fail under it. Eight
//! attempts in a hundred time out, fail or panic; each is tried again, handed to a sibling or given to a person,
//! and no customer is lost. What that took, and whether the objectives were met, stands in the report.
//!
//! `cargo run --example support_desk -- --help` says what can be changed.

use std::future::poll_fn;
use std::io::{self, Write as _, stderr, stdout};
use std::process::ExitCode;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use clap::Parser as _;
use mainstay::fault::Class;
use mainstay::system::{Stats, System, SystemOptions};
use mainstay_actors::chat::ChatRequest;
use mainstay_actors::model::Model;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use args::{Args, Summary};
use desk::Models;
use faults::Faults;
use flows::{Ask, Reply};
use report::Report;
use screen::{Screen, Style};
use shop::Shop;
use watch::Watch;
use work::Work;

mod args;
mod input;
mod faults;
mod shop;
mod flows;
mod desk;
mod watch;
mod work;
mod slo;
mod screen;
mod report;

/// How long a customer waits at most: simulated models are quick, real ones may be slow.
const PATIENCE: Duration = Duration::from_secs(60);
const PATIENCE_WITH_SERVER: Duration = Duration::from_secs(600);
/// How long a server may take to answer the question whether it is there.
const HELLO: Duration = Duration::from_secs(30);

const INTERRUPTED: u8 = 130;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    hush_injected_panics();
    match run(&args).await {
        Ok(code) => ExitCode::from(code),
        Err(text) => {
            complain(&format!("error: {text}"));
            ExitCode::from(2)
        }
    }
}

async fn run(args: &Args) -> Result<u8, String> {
    let interrupt = on_interrupt().await;
    let input = input::read(args.input.as_deref(), args.limit.map(|limit| limit.get()))?;
    for row in input::named(&input.faulty) {
        complain(&format!("error: {row}"));
    }
    let models = tokio::select! {
        models = models(args) => models?,
        () = interrupt.notified() => {
            complain("interrupted before the server answered: nothing was worked on");
            return Ok(INTERRUPTED);
        }
    };

    let faults = Faults::new(args.seed, args.fault_rate);
    let complaints: Arc<[_]> = input.complaints.into();
    let shop = Arc::new(Shop::new(input.orders, &complaints));
    let spec = desk::spec(&models, &faults, &shop, args.agents.get());
    let options = SystemOptions::new().event_capacity(1 << 16).watch(slo::watched());
    let system = System::start_with(spec, options).await.map_err(|error| error.to_string())?;
    let desk = system.port::<Ask, Reply>(desk::COMPLAINTS).map_err(|error| error.to_string())?;

    let mut watch = Watch::new(system.events());
    let mut screen = Screen::new();
    let work = Work::new(Arc::clone(&complaints));
    let patience = if args.model_url.is_some() { PATIENCE_WITH_SERVER } else { PATIENCE };
    let started = Instant::now();
    let mut callers = work.start(&desk, args.agents.get(), patience);
    let mut draw = tokio::time::interval(screen::DRAW_EVERY);
    let interrupted = loop {
        tokio::select! {
            () = all(&mut callers) => break false,
            () = interrupt.notified() => break true,
            _ = draw.tick() => {
                watch.catch_up();
                screen.show(&system, &watch, &work);
            }
        }
    };
    let took = started.elapsed();
    watch.catch_up();
    screen.show(&system, &watch, &work);
    let tree = system.tree();
    if interrupted {
        work.call_off();
        screen.say("stopping the tree in order; Ctrl-C again ends the process at once");
    } else {
        screen.clear();
    }
    system.stop().await;
    all(&mut callers).await;
    watch.catch_up();

    let (fates, stats) = (system.fates(), system.stats());
    let outcomes = work.outcomes();
    let evidence = slo::Evidence {
        shop: &shop,
        complaints: &complaints,
        labels: &input.labels,
        outcomes: &outcomes,
    };
    let metrics = slo::report(&system, &watch, &evidence);
    let report = Report {
        setting: setting(args, &input.source),
        interrupted,
        took,
        complaints: &complaints,
        labels: &input.labels,
        outcomes: &outcomes,
        shop: &shop,
        watch: &watch,
        fates,
        stats: &stats,
        metrics: &metrics,
        tree: &tree,
    };
    let published = publish(args, &report);
    if !fates.is_balanced() || fates.open > 0 {
        return Err(format!("{} requests have no fate; that is a bug", fates.open));
    }
    if watch.missed() == 0 && watch.totals() != totals(&stats) {
        return Err("the events and the runtime's counts differ; that is a bug".to_owned());
    }
    if !input.faulty.is_empty() {
        complain(&format!("error: {} rows were left out", input.faulty.len()));
    }
    if let Err(error) = &published {
        complain(&format!("error: the report cannot be written to stdout: {error}"));
    }
    Ok(match (interrupted, input.faulty.is_empty() && published.is_ok()) {
        (true, _) => INTERRUPTED,
        (false, true) => 0,
        (false, false) => 1,
    })
}

/// Retries and fallbacks as the runtime counts them.
fn totals(stats: &Stats) -> (u64, u64) {
    (stats.retries.values().sum(), stats.fallbacks.values().sum())
}

/// The models to use; a server is asked first whether it is there.
async fn models(args: &Args) -> Result<Models, String> {
    let (Some(url), Some(name)) = (&args.model_url, &args.model) else {
        return Ok(Models::Simulated);
    };
    let mut model = Model::openai(url, name);
    if let Some(variable) = &args.api_key_env {
        if std::env::var_os(variable).is_none_or(|key| key.is_empty()) {
            return Err(format!("--api-key-env: the environment variable {variable} is not set"));
        }
        model = model.key_env(variable);
    }
    model.connect().map_err(|fault| format!("--model-url {url}: {fault}"))?;
    let hello = ChatRequest::from("Hello").max_tokens(1);
    let Err(fault) = model.ask(&hello, HELLO, 1).await else {
        return Ok(Models::Server(Box::new(model)));
    };
    match fault.class {
        Class::Network => Err(format!("--model-url {url}: the server cannot be reached: {fault}")),
        Class::Timeout => Err(format!("--model-url {url}: no answer within {HELLO:?}: {fault}")),
        Class::Permission | Class::ModelUnavailable | Class::QuotaExhausted => {
            Err(format!("--model-url {url}: the server does not serve {name:?}: {fault}"))
        }
        // It is there; what else it minds, the ladder deals with. One token is rarely an answer.
        Class::OutputInvalid => Ok(Models::Server(Box::new(model))),
        _ => {
            complain(&format!("warning: --model-url {url}: {fault}"));
            Ok(Models::Server(Box::new(model)))
        }
    }
}

/// The panics that the desk's tools have on purpose would only tear the picture.
fn hush_injected_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.payload().downcast_ref::<&str>() != Some(&faults::PANIC) {
            usual(panic);
        }
    }));
}

/// Tells when Ctrl-C was pressed, or SIGTERM sent. The second time it ends the process. Both are caught
/// once this returns.
async fn on_interrupt() -> Arc<Notify> {
    let notify = Arc::new(Notify::new());
    let told = Arc::clone(&notify);
    let mut first = Box::pin(pressed());
    // Signals are caught from the first poll on.
    let early = poll_fn(|cx| Poll::Ready(first.as_mut().poll(cx).is_ready())).await;
    tokio::spawn(async move {
        if !early {
            first.await;
        }
        told.notify_one();
        pressed().await;
        std::process::exit(i32::from(INTERRUPTED));
    });
    notify
}

#[cfg(unix)]
async fn pressed() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut term) = signal(SignalKind::terminate()) else { return ctrl_c().await };
    tokio::select! {
        () = ctrl_c() => {}
        _ = term.recv() => {}
    }
}

#[cfg(not(unix))]
async fn pressed() {
    ctrl_c().await;
}

/// Never ends where the signal cannot be caught.
async fn ctrl_c() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn all(callers: &mut JoinSet<()>) {
    while let Some(ended) = callers.join_next().await {
        if let Err(error) = ended {
            complain(&format!("error: a caller did not end well: {error}"));
        }
    }
}

fn setting(args: &Args, source: &str) -> [(&'static str, String); 3] {
    let (models, whom) = match (&args.model_url, &args.model) {
        (Some(url), Some(name)) => {
            // A query may hold a key.
            let url = url.split('?').next().unwrap_or_default();
            (format!("openai_service is {name} at {url}"), "tools")
        }
        _ => ("claude_service and openai_service are simulated".to_owned(), "models and tools"),
    };
    let (percent, seed) = ((args.fault_rate * 1e4).round() / 100.0, args.seed);
    let faults = format!("{percent} % of attempts at {whom}, seed {seed}");
    [("input", source.to_owned()), ("models", models), ("faults", faults)]
}

/// A reader that has gone is nobody to tell; what cannot be written for another reason is an error.
fn publish(args: &Args, report: &Report<'_>) -> io::Result<()> {
    let mut text = match args.dump {
        None => report.text(Style::of(&stdout())),
        Some(format) => {
            let style = Style::of(&stderr());
            let _ = stderr().write_all(report.text(style).as_bytes());
            report.dump(format)
        }
    };
    if let Some(Summary::Json) = args.summary {
        text.push_str(&report.summary().to_string());
        text.push('\n');
    }
    let mut out = stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

fn complain(text: &str) {
    let _ = writeln!(stderr(), "{text}");
}
