//! An agent writes 46 small functions, line by line, and makes mistakes. The real Python interpreter checks
//! each; what it refuses is written again with its words as feedback, twice at most, and then a template stands
//! in. Kill it with kill -9 wherever you like: with `--store` the next run goes on after the last tenth line.
//!
//! `cargo run --release --example codegen -- --help` says what can be changed.

use std::io::{Write as _, stderr, stdout};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser as _;
use mainstay::checkpoint::{FileOptions, MemoryStore, Store};
use mainstay::clock::Clock;
use mainstay::error::StoreError;
use mainstay::event::{Event, EventStream};
use mainstay::fate::Fate;
use mainstay::fault::Class;
use mainstay::journal::Journaled;
use mainstay::port::{CallOptions, Port};
use mainstay::system::{RecoverOptions, System, SystemOptions};
use mainstay_actors::chat::ChatRequest;
use mainstay_actors::model::Model;

use args::{Args, Summary};
use coder::{CODER, Written};
use faults::Faults;
use points::{Failure, Pointed, Points};
use python::Python;
use report::{Outcome, Report};
use shifted::Shifted;
use specs::Spec;
use writer::Source;

mod args;
mod specs;
mod faults;
mod rules;
mod python;
mod writer;
mod coder;
mod report;

// What every example needs that is killed and begun again.
#[allow(dead_code, reason = "its database wants to know more")]
#[path = "../finance/points.rs"]
mod points;
#[path = "../finance/mishaps.rs"]
mod mishaps;
#[path = "../finance/shifted.rs"]
mod shifted;
#[path = "../finance/stamp.rs"]
mod stamp;

/// How long a server may take to answer the question whether it is there.
const HELLO: Duration = Duration::from_secs(30);
/// Whatever happens, the journal is looked at so often.
const LOOK: Duration = Duration::from_millis(500);

/// How it ends, if not well.
const NOT_BEGUN: u8 = 2;
const FAILED: u8 = 3;
const INTERRUPTED: u8 = 130;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let points = Points::new(&args.mishaps);
    let result = run(&args, &points).await;
    if args.mishaps.count_points {
        let _ = writeln!(stderr(), "points: {}", points.passed());
    }
    match result {
        Ok(code) => ExitCode::from(code),
        Err(text) => {
            let _ = writeln!(stderr(), "error: {text}");
            ExitCode::from(NOT_BEGUN)
        }
    }
}

async fn run(args: &Args, points: &Arc<Points>) -> Result<u8, String> {
    let specs = specs::read(args.limit.map(|limit| limit.get()))?;
    let model = model(args).await?;
    // With a model the faults are its own.
    let faults = Faults::new(args.seed, if model.is_some() { 0.0 } else { args.fault_rate });
    let python = Python::find(faults, points).await?;
    let source = match &model {
        Some(_) => Source::Model,
        None => Source::Rules(faults, Duration::from_millis(args.pace.into())),
    };
    let of_store = |error: &dyn std::fmt::Display| match &args.store {
        Some(folder) => format!("--store {}: {error}", folder.display()),
        None => error.to_string(),
    };
    let store = open(args).map_err(|error| of_store(&error))?;
    let store: Arc<dyn Store> = Arc::new(Pointed::new(store, Arc::clone(points)));
    let traits = traits(args);
    stamp::fits(&*store, &traits).map_err(|error| of_store(&error))?;
    let tree = coder::spec(python, &source, model);
    let clock: Arc<dyn Clock> = Arc::new(Shifted::new(args.mishaps.clock_jump));
    let mut options = RecoverOptions::default();
    options.system = SystemOptions::new().clock(clock);
    let (system, recovered) = System::recover_with(tree, Arc::clone(&store), options)
        .await
        .map_err(|error| of_store(&error))?;
    let mut events = system.events();
    let port = system.port::<Spec, Written>(CODER).map_err(|error| error.to_string())?;
    let started = Instant::now();
    let work = async {
        stamp::write(&*store, &traits).await?;
        submit(&system, &port, &specs, args.seed, points).await?;
        wait(&system, &mut events, &specs, args.seed).await
    };
    let worked = tokio::select! {
        biased;
        error = points.failure() => {
            // In order, so that what is in hand is not blamed for the end of the process.
            system.stop().await;
            return Ok(failed(args, &error));
        }
        worked = work => worked,
        _ = tokio::signal::ctrl_c() => {
            let _ = writeln!(stderr(), "stopping in order; the same arguments go on with it");
            system.stop().await;
            return Ok(points.failed().map_or(INTERRUPTED, |error| failed(args, &error)));
        }
    };
    let took = started.elapsed();
    let tree = system.tree().to_string();
    system.stop().await;
    // Whoever waits for a commit may hear of a store that fails before it is told here.
    if let Some(error) = points.failed() {
        return Ok(failed(args, &error));
    }
    let (outcomes, checkpoints) = worked?;
    let fates = system.fates();
    let report = Report {
        setting: setting(args),
        took,
        outcomes: &outcomes,
        resumed: recovered.requests,
        checkpoints,
        fates,
        tree,
    };
    // A reader that has gone is nobody to tell.
    let mut out = stdout().lock();
    let _ = out.write_all(report.text().as_bytes());
    if let Some(Summary::Json) = args.summary {
        let _ = writeln!(out, "{}", report.summary());
    }
    let _ = out.flush();
    if !fates.is_balanced() || fates.open > 0 {
        return Err(format!("{} requests have no fate; that is a bug", fates.open));
    }
    Ok(0)
}

/// Nothing that is done from here on could be kept: the next start finds what was.
fn failed(args: &Args, failure: &Failure) -> u8 {
    let text = match (&args.store, failure) {
        (Some(folder), Failure::Store(error)) => format!("--store {}: {error}", folder.display()),
        _ => failure.to_string(),
    };
    let kept = match &args.store {
        Some(_) => "; what was kept is there, and the same arguments go on with it",
        None => "",
    };
    let _ = writeln!(stderr(), "error: {text}{kept}");
    FAILED
}

fn open(args: &Args) -> Result<Arc<dyn Store>, StoreError> {
    let Some(folder) = &args.store else { return Ok(Arc::new(MemoryStore::new())) };
    let mut options = FileOptions::new();
    if let Some(bytes) = args.mishaps.quota {
        options = options.quota(bytes);
    }
    Ok(Arc::new(options.open(folder)?))
}

/// What another start has to be begun with to go on with this one.
fn traits(args: &Args) -> stamp::Traits {
    let writes = match &args.model {
        Some(model) => ("--model", model.clone()),
        None => ("--fault-rate", args.fault_rate.to_string()),
    };
    let model = if args.model.is_some() { "a model" } else { "rules" };
    let seed = ("--seed", args.seed.to_string());
    [("program", "codegen".to_owned()), ("functions by", model.to_owned()), seed, writes]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
}

/// The name under which a function is known to the journal.
fn key(spec: &Spec, seed: u64) -> String {
    format!("{seed}/{}", spec.name)
}

/// Hands over what no process has accepted before.
async fn submit(
    system: &System,
    coder: &Port<Spec, Written>,
    specs: &[Spec],
    seed: u64,
    points: &Points,
) -> Result<(), String> {
    for spec in specs {
        let key = key(spec, seed);
        if system.journaled(&key).is_none() {
            let options = CallOptions::new().key(&*key);
            coder.submit(spec.clone(), options).await.map_err(|error| error.to_string())?;
            points.accepted(&key);
        }
    }
    Ok(())
}

/// Waits until each has its fate, and counts the checkpoints meanwhile.
async fn wait(
    system: &System,
    events: &mut EventStream,
    specs: &[Spec],
    seed: u64,
) -> Result<(Vec<Outcome>, u64), String> {
    let total = specs.len();
    let mut open: Vec<_> = specs.iter().enumerate().collect();
    let (mut outcomes, mut checkpoints) = (Vec::with_capacity(total), 0);
    loop {
        let mut waits = Vec::new();
        for (index, spec) in open {
            match outcome(system, &key(spec, seed))? {
                None => waits.push((index, spec)),
                Some(outcome) => {
                    let name = &spec.name;
                    let _ = writeln!(stderr(), "{}/{total} {name}", outcomes.len() + 1);
                    outcomes.push((index, (spec.clone(), outcome)));
                }
            }
        }
        open = waits;
        if open.is_empty() {
            break;
        }
        // Until something happens that may be a fate.
        let news = async {
            while let Some(stamped) = events.next().await {
                match &stamped.event {
                    Event::Checkpointed { child, step, .. } if *child == CODER => {
                        checkpoints += 1;
                        let _ = writeln!(stderr(), "checkpoint at step {step}");
                    }
                    Event::Fated { child, .. } if *child == CODER => break,
                    _ => {}
                }
            }
        };
        let _ = tokio::time::timeout(LOOK, news).await;
    }
    outcomes.sort_by_key(|(index, _)| *index);
    Ok((outcomes.into_iter().map(|(_, outcome)| outcome).collect(), checkpoints))
}

/// What came of a function, if it has its fate.
fn outcome(system: &System, key: &str) -> Result<Option<Result<Written, Fate>>, String> {
    match system.journaled(key) {
        Some(Journaled::Fated(Fate::Done, Some(reply))) => {
            let written = serde_json::from_str(&reply).map_err(|error| {
                format!("the journal's reply for {key} cannot be read: {error}")
            })?;
            Ok(Some(Ok(written)))
        }
        Some(Journaled::Fated(fate, _)) => Ok(Some(Err(fate))),
        _ => Ok(None),
    }
}

/// The model to ask, which is asked first whether it is there.
async fn model(args: &Args) -> Result<Option<Model>, String> {
    let (Some(url), Some(name)) = (&args.model_url, &args.model) else { return Ok(None) };
    let mut model = Model::openai(url, name);
    if let Some(variable) = &args.api_key_env {
        if std::env::var_os(variable).is_none_or(|key| key.is_empty()) {
            return Err(format!("--api-key-env: the environment variable {variable} is not set"));
        }
        model = model.key_env(variable);
    }
    model.connect().map_err(|fault| format!("--model-url {url}: {fault}"))?;
    let hello = ChatRequest::from("Hello").max_tokens(1);
    match model.ask(&hello, HELLO, 1).await {
        // It is there; one token is rarely an answer.
        Ok(_) => Ok(Some(model)),
        Err(fault) if fault.class == Class::OutputInvalid => Ok(Some(model)),
        Err(fault) => {
            Err(format!("--model-url {url}: the server does not serve {name:?}: {fault}"))
        }
    }
}

fn setting(args: &Args) -> [(&'static str, String); 3] {
    let percent = (args.fault_rate * 1e4).round() / 100.0;
    let (writes, faults) = match (&args.model_url, &args.model) {
        (Some(url), Some(name)) => {
            // A query may hold a key.
            let url = url.split('?').next().unwrap_or_default();
            (format!("{name} at {url}"), "none injected".to_owned())
        }
        _ => (
            "rules that make mistakes".to_owned(),
            format!("{percent} % of generations with a syntax error, seed {}", args.seed),
        ),
    };
    let store = match &args.store {
        Some(folder) => folder.display().to_string(),
        None => "in memory".to_owned(),
    };
    [("writes", writes), ("faults", faults), ("store", store)]
}
