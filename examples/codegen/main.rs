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
use mainstay::checkpoint::{FileStore, MemoryStore, Store};
use mainstay::event::{Event, EventStream};
use mainstay::fate::Fate;
use mainstay::fault::Class;
use mainstay::journal::Journaled;
use mainstay::port::{CallOptions, Port};
use mainstay::system::System;
use mainstay_actors::chat::ChatRequest;
use mainstay_actors::model::Model;

use args::{Args, Summary};
use coder::{CODER, Written};
use faults::Faults;
use python::Python;
use report::{Outcome, Report};
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

/// How long a server may take to answer the question whether it is there.
const HELLO: Duration = Duration::from_secs(30);
/// Whatever happens, the journal is looked at so often.
const LOOK: Duration = Duration::from_millis(500);

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            let _ = writeln!(stderr(), "error: {text}");
            ExitCode::from(2)
        }
    }
}

async fn run(args: &Args) -> Result<(), String> {
    let specs = specs::read(args.limit.map(|limit| limit.get()))?;
    let model = model(args).await?;
    // With a model the faults are its own.
    let faults = Faults::new(args.seed, if model.is_some() { 0.0 } else { args.fault_rate });
    let python = Python::find(faults).await?;
    let source = match &model {
        Some(_) => Source::Model,
        None => Source::Rules(faults, Duration::from_millis(args.pace.into())),
    };
    let store: Arc<dyn Store> = match &args.store {
        None => Arc::new(MemoryStore::new()),
        Some(folder) => Arc::new(
            FileStore::open(folder)
                .map_err(|error| format!("--store {}: {error}", folder.display()))?,
        ),
    };
    let tree = coder::spec(python, &source, model);
    let (system, recovered) =
        System::recover(tree, store).await.map_err(|error| error.to_string())?;
    let mut events = system.events();
    let port = system.port::<Spec, Written>(CODER).map_err(|error| error.to_string())?;
    let started = Instant::now();
    submit(&system, &port, &specs, args.seed).await?;
    let (outcomes, checkpoints) = wait(&system, &mut events, specs, args.seed).await?;
    let took = started.elapsed();
    let tree = system.tree().to_string();
    system.stop().await;
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
    Ok(())
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
) -> Result<(), String> {
    for spec in specs {
        let key = key(spec, seed);
        if system.journaled(&key).is_none() {
            let options = CallOptions::new().key(key);
            coder.submit(spec.clone(), options).await.map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

/// Waits until each has its fate, and counts the checkpoints meanwhile.
async fn wait(
    system: &System,
    events: &mut EventStream,
    specs: Vec<Spec>,
    seed: u64,
) -> Result<(Vec<Outcome>, u64), String> {
    let total = specs.len();
    let mut open: Vec<_> = specs.into_iter().enumerate().collect();
    let (mut outcomes, mut checkpoints) = (Vec::with_capacity(total), 0);
    loop {
        let mut waits = Vec::new();
        for (index, spec) in open {
            match outcome(system, &key(&spec, seed))? {
                None => waits.push((index, spec)),
                Some(outcome) => {
                    let name = &spec.name;
                    let _ = writeln!(stderr(), "{}/{total} {name}", outcomes.len() + 1);
                    outcomes.push((index, (spec, outcome)));
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
