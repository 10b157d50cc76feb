//! A financial agent: transfers between the accounts of an embedded database, each of them done or undone
//! as a whole, with exactly one notice to the user, while the network fails, transactions are aborted,
//! and the process is killed. Start it, kill it at any moment, start it again with the same arguments.
//!
//! `cargo run --release --example finance -- --help` says what can be changed.

use std::io::{Write as _, stderr, stdout};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use mainstay::checkpoint::{FileOptions, Now, Retention, Store};
use mainstay::clock::Clock;
use mainstay::system::{RecoverOptions, System, SystemOptions};
use mainstay::watch::{Profile, Signal, WatchSpec};

use args::{Args, Summary};
use audit::Audit;
use bank::Bank;
use plan::Plan;
use points::{Pointed, Points};
use report::Report;
use shifted::Shifted;
use work::Work;

mod mishaps;
mod args;
mod plan;
mod stamp;
mod points;
mod disk;
mod bank;
mod audit;
mod teller;
mod desk;
mod shifted;
mod work;
mod agree;
mod report;

/// From this size on the store gives back the room of what it no longer needs.
const COMPACT_FROM: u64 = 8 << 20;

/// Longer than any run: the report is about all of it.
const WHOLE_RUN: Duration = Duration::from_secs(6 * 3600);

const UNSOUND: u8 = 1;
const UNUSABLE: u8 = 3;
const INTERRUPTED: u8 = 130;

#[tokio::main]
async fn main() {
    let args = Args::parse();
    let points = Points::new(&args.mishaps);
    let result = match &args.store {
        Some(folder) => run(&args, folder, &points).await,
        None => match tempfile::tempdir() {
            Ok(folder) => run(&args, folder.path(), &points).await,
            Err(error) => Err((UNUSABLE, format!("no temporary folder: {error}"))),
        },
    };
    if args.mishaps.count_points {
        complain(&format!("points: {}", points.passed()));
    }
    let code = result.unwrap_or_else(|(code, text)| {
        complain(&format!("error: {text}"));
        code
    });
    // Without waiting for tools that do not come back from a database which has failed.
    std::process::exit(i32::from(code));
}

type Failed = (u8, String);

fn unusable(error: impl std::fmt::Display) -> Failed {
    (UNUSABLE, error.to_string())
}

async fn run(args: &Args, folder: &Path, points: &Arc<Points>) -> Result<u8, Failed> {
    let plan = Plan::new(args.transfers, args.seed, args.fault_rate);
    let clock: Arc<dyn Clock> = Arc::new(Shifted::new(args.mishaps.clock_jump));
    let mut options = FileOptions::new();
    if let Some(bytes) = args.mishaps.quota {
        options = options.quota(bytes);
    }
    // First, since it also keeps a second process out.
    let store = options.open(folder.join("store")).map_err(unusable)?;
    let store: Arc<dyn Store> = Arc::new(Pointed::new(Arc::new(store), Arc::clone(points)));
    let info = store.info().map_err(unusable)?;
    let fresh = info.commits == 0;
    let name = |text: String| unusable(format!("--store \"{}\": {text}", folder.display()));
    let mut run = traits(args);
    stamp::fits(&*store, &run).map_err(name)?;
    let bank = Bank::open(&folder.join("bank.redb"), &plan, fresh, Arc::clone(points), args.disk);
    let bank = Arc::new(bank.map_err(unusable)?);
    run.push(("bank.redb number".to_owned(), bank.id().to_string()));
    stamp::fits(&*store, &run).map_err(name)?;
    bank.check(&info.name, info.commits).map_err(unusable)?;
    if !fresh {
        tidy(&*store, &*clock).map_err(unusable)?;
    }

    let mut options = RecoverOptions::default();
    options.system = SystemOptions::new().event_capacity(1 << 16).clock(clock).watch(watched());
    let spec = desk::spec(&bank, plan, args.backoff_ms.map(Duration::from_millis), args.deaths);
    let recovering = System::recover_with(spec, Arc::clone(&store), options);
    let (system, recovered) = recovering.await.map_err(unusable)?;
    // What goes on by itself waits at the bank's door meanwhile.
    let fits = match stamp::write(&*store, &run).await {
        Ok(()) => agree::agree(&system, &bank, &plan),
        Err(text) => Err(text),
    };
    if let Err(text) = fits {
        complain(&format!("error: --store \"{}\": {text}", folder.display()));
        std::process::exit(i32::from(UNUSABLE));
    }
    bank.serve();
    if recovered.requests > 0 {
        complain(&format!("{} transfers were under way and go on", recovered.requests));
    }

    let mut work = Work::new(&system, &bank, plan, points).map_err(unusable)?;
    let worked = unless_failed(points, async {
        tokio::select! {
            done = work.run() => Some(done),
            _ = tokio::signal::ctrl_c() => None,
        }
    });
    let Some(worked) = worked.await? else {
        complain("stopping in order; the same arguments go on with it");
        unless_failed(points, system.stop()).await?;
        return Ok(INTERRUPTED);
    };
    let tree = system.tree();
    unless_failed(points, system.stop()).await?;
    store.flush().map_err(unusable)?;

    let open = system.effects().open();
    let waiting = open.iter().filter_map(|effect| work::transfer_of(&effect.task)).collect();
    let audit = Audit::of(&bank, &plan, &waiting).map_err(unusable)?;
    tell_losses(&system, &audit, plan.transfers);
    let report = Report {
        plan: &plan,
        audit: &audit,
        recovered: &recovered,
        fates: system.fates(),
        stats: &system.stats(),
        effects: system.effects().counts(),
        open: open.len(),
        rollbacks: work.rollbacks,
        loss: system.metrics().slo("S71.loss").and_then(|slo| Some((slo.actual?, slo.met?))),
        tree: &tree,
    };
    publish(args, &report);
    match worked {
        Err(text) => Err((UNSOUND, text)),
        Ok(()) if audit.is_sound() => Ok(0),
        Ok(()) => Err((UNSOUND, audit.verdict())),
    }
}

/// Goes on with this until the store or the database fails. Nothing that is done from then on could be kept, and
/// the next start finds what was: so the process ends as if it was killed, and nothing is tried again or undone.
async fn unless_failed<T>(points: &Points, work: impl Future<Output = T>) -> Result<T, Failed> {
    let done = tokio::select! {
        biased;
        failure = points.failure() => return Err(unusable(failure)),
        done = work => done,
    };
    // Whoever works may hear of it before it is told here.
    points.failed().map_or(Ok(done), |failure| Err(unusable(failure)))
}

/// What another start has to be begun with to go on with this one.
fn traits(args: &Args) -> stamp::Traits {
    let rate =
        args.fault_rate.map_or_else(|| "of the playbook".to_owned(), |rate| rate.to_string());
    [
        ("program", "finance".to_owned()),
        ("--transfers", args.transfers.to_string()),
        ("--seed", args.seed.to_string()),
        ("--fault-rate", rate),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

/// The objectives of the case, over the whole run.
fn watched() -> WatchSpec {
    WatchSpec::profile(Profile::Finance).window(WHOLE_RUN)
}

/// Tells the runtime what it cannot know: of how many transfers the money is gone.
fn tell_losses(system: &System, audit: &Audit, transfers: u32) {
    for n in 0..transfers {
        let counted =
            system.signal("funds_lost", if n < audit.lost { Signal::Yes } else { Signal::No });
        debug_assert!(counted, "no objective asks for it");
    }
}

/// Forgets the states of long ago.
fn tidy(store: &dyn Store, clock: &dyn Clock) -> Result<(), mainstay::error::StoreError> {
    store.retain(Retention::default(), Now::read(clock).wall)?;
    if store.info()?.bytes > COMPACT_FROM {
        store.compact()?;
    }
    Ok(())
}

/// A reader that has gone is nobody to tell.
fn publish(args: &Args, report: &Report<'_>) {
    let mut out = stdout().lock();
    let _ = out.write_all(report.text().as_bytes());
    if let Some(Summary::Json) = args.summary {
        let _ = writeln!(out, "{}", report.summary());
    }
    let _ = out.flush();
}

fn complain(text: &str) {
    let _ = writeln!(stderr(), "{text}");
}
