//! P9 to P12 and P14: what state costs.
//!
//! A big agent has 10 MB in ten pieces, and changes one small piece a step. Beside each figure stands
//! what nobody can do without: a bare append with `fdatasync`, or bincode alone, in the same round.
//! What waits for the disk or reads from it is wall time; everything else is CPU time of the thread. "Store" is the
//! store's own interface, "runtime" a durable child's step as a user has it.

use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use bincode::config::standard;
use mainstay::behavior::{Behavior, Context, Stateful, Step, Turn};
use mainstay::checkpoint::{
    Batch, Digest, Draft, Durability, FileStore, Interval, Now, Rules, Schema, Schemas, Sealed,
    Snapshot, Store, Validator,
};
use mainstay::clock::TokioClock;
use mainstay::error::CheckpointError;
use mainstay::fault::{EffectKind, Fault};
use mainstay::id::{ChildPath, Incarnation};
use mainstay::port::Port;
use mainstay::spec::{ChildSpec, SupervisorSpec};
use mainstay::system::System;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::meter::{Goal, Options, Side, Unit, alternate, ct, median, price, report, thread_cpu};
use super::ours::{Ours, echo};

const PIECES: usize = 10;
const MESSAGES: usize = 9_700;
const NAMES: [&str; PIECES] = ["p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8", "p9"];

/// What an agent remembers: a number and a text of a hundred letters each, which no compression makes
/// shorter than four bits a letter.
type Memory = Vec<(u64, String)>;

/// An agent of 10 MB, or one that only counts.
#[derive(Clone, Debug, Default)]
struct Agent {
    memory: Vec<Arc<Memory>>,
    notes: Arc<Vec<u64>>,
    /// It gives no snapshot: what its own work costs without one.
    silent: bool,
    /// Steps a request takes before the one that answers it, and those of them that are left.
    steps: u64,
    left: u64,
    /// The second step of each request fails once: whether it has. Outside of the state.
    failed: Option<Arc<AtomicBool>>,
}

impl Agent {
    fn big() -> Self {
        let message = |at: usize| {
            let mut text = Digest::of(&at.to_le_bytes()).to_string();
            text.push_str(&Digest::of(&(!at).to_le_bytes()).to_string());
            text.truncate(100);
            (at as u64, text)
        };
        let piece = |piece: usize| (0..MESSAGES).map(|at| message(at + piece)).collect();
        let memory = (0..PIECES).map(|at| Arc::new(piece(at))).collect();
        Self { memory, ..Self::default() }
    }

    /// One step: 190 numbers, some 1.5 KB, are other ones.
    fn work(&mut self, step: u64) {
        self.notes = Arc::new((0..190).map(|at| u64::MAX - step - at).collect());
    }
}

impl Behavior for Agent {
    type Request = u64;
    type Reply = u64;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
}

impl Stateful for Agent {
    async fn step(&mut self, step: &u64, turn: Turn, _: &Context) -> Result<Step<u64>, Fault> {
        match turn {
            Turn::First | Turn::RolledBack(_) => self.left = self.steps,
            // Nothing is tried again: what it has made of the state is at fault.
            _ if self.failed.as_ref().is_some_and(|failed| !failed.fetch_xor(true, Relaxed)) => {
                return Err(Fault::output_invalid("made up"));
            }
            _ => {}
        }
        if self.memory.is_empty() {
            self.notes = Arc::new(vec![*step, self.left]);
        } else {
            self.work(step + self.left);
        }
        if self.left == 0 {
            return Ok(Step::Reply(step + 1));
        }
        self.left -= 1;
        Ok(Step::Continue)
    }

    fn snapshot(&self) -> Option<Snapshot> {
        if self.silent {
            return None;
        }
        let start = Snapshot::new("agent", 1).with("notes", Arc::clone(&self.notes));
        let pieces = NAMES.iter().zip(&self.memory);
        Some(pieces.fold(start, |snapshot, (name, piece)| snapshot.with(*name, Arc::clone(piece))))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.notes = snapshot.get("notes")?;
        let known = NAMES.iter().filter(|name| snapshot.has(name));
        self.memory = known.map(|name| snapshot.get(name)).collect::<Result<_, _>>()?;
        Ok(())
    }
}

fn taken(agent: &Agent) -> Snapshot {
    agent.snapshot().expect("it gives one")
}

fn now() -> Now {
    static CLOCK: LazyLock<TokioClock> = LazyLock::new(TokioClock::new);
    Now::read(&*CLOCK)
}

fn folder() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder can be made")
}

fn open(folder: &Path) -> Arc<FileStore> {
    Arc::new(FileStore::open(folder).expect("the store opens"))
}

fn bare(folder: &Path) -> File {
    let path = folder.join("bare");
    File::options().create(true).append(true).open(path).expect("a file can be made")
}

/// A bare append that survives a power cut.
fn append(file: &mut File, bytes: &[u8]) {
    file.write_all(bytes).and_then(|()| file.sync_data()).expect("the disk takes it");
}

/// Nanoseconds of wall time, the middle one of so many.
fn waits(times: usize, mut run: impl FnMut()) -> f64 {
    let mut took: Vec<f64> = (0..times)
        .map(|_| {
            let begun = Instant::now();
            run();
            begun.elapsed().as_nanos() as f64
        })
        .collect();
    median(&mut took)
}

/// Nanoseconds of this thread, on average.
fn works(times: usize, mut run: impl FnMut()) -> f64 {
    let begun = thread_cpu();
    for _ in 0..times {
        run();
    }
    (thread_cpu() - begun).as_nanos() as f64 / times as f64
}

fn seal(child: &ChildPath, snapshot: Snapshot, before: Option<&Sealed>, step: u64) -> Sealed {
    let draft = Draft::new(child.clone(), snapshot, now()).at(Incarnation(1), step);
    let draft = match before {
        Some(before) => draft.after(before.checkpoint()),
        None => draft,
    };
    draft.seal().expect("it can be encoded")
}

/// P9: a checkpoint in memory of a big agent, and the way back to it.
pub(crate) fn memory(options: &Options) {
    let mut agent = Agent::big();
    let mut before = taken(&agent);
    let steps = options.size(20_000);
    let mut other = agent.clone();
    let back = before.clone();
    let (plain, keeping, straight, back_again) = (ct(), ct(), ct(), ct());
    // The same agent, which does the same work: only what is kept of it differs.
    let silent = Agent { silent: true, ..agent.clone() };
    let spec = ChildSpec::stateful("echo", move || silent.clone());
    let (_one, silent) = plain.block_on(echo(spec));
    let template = agent.clone();
    let spec = ChildSpec::stateful("echo", move || template.clone());
    let (_other, keeper) = keeping.block_on(echo(spec));
    let (silent, keeper) = (Ours(silent), Ours(keeper));
    // Four steps each: one that goes back before its second, and one that goes on.
    let on = Agent { steps: 3, ..agent.clone() };
    let (_on, on) = straight.block_on(echo(ChildSpec::stateful("echo", move || on.clone())));
    let failed = Some(Arc::new(AtomicBool::new(false)));
    let failing = Agent { steps: 1, failed, ..agent.clone() };
    let spec = ChildSpec::stateful("echo", move || failing.clone());
    let (_back, returning) = back_again.block_on(echo(spec));
    let (on, returning) = (Ours(on), Ours(returning));
    let whole: Vec<Memory> = agent.memory.iter().map(|piece| piece.as_ref().clone()).collect();
    let sides: Vec<Side<'_>> = vec![
        (
            "ours",
            Box::new(|| {
                works(steps, || {
                    agent.notes = Arc::new(Vec::new());
                    let next = taken(&agent).following(&before);
                    before = black_box(next);
                })
            }),
        ),
        (
            "bincode alone",
            Box::new(|| {
                works(1, || {
                    let bytes = bincode::serde::encode_to_vec(&whole, standard());
                    black_box(bytes.expect("it can be encoded"));
                })
            }),
        ),
        (
            "restore",
            Box::new(|| works(steps, || other.restore(black_box(&back)).expect("it fits"))),
        ),
        ("clone", Box::new(|| works(1, || drop(black_box(whole.clone()))))),
        ("plain call", Box::new(|| price(&plain, 1, steps, &silent))),
        ("kept call", Box::new(|| price(&keeping, 1, steps, &keeper))),
        ("call of four steps", Box::new(|| price(&straight, 1, steps, &on))),
        ("the same with a rollback", Box::new(|| price(&back_again, 1, steps, &returning))),
    ];
    let medians = alternate(options, sides);
    report("P9 behavior, snapshot of 10 MB", Unit::Time, &medians[..2], Goal::AtMost(1e3));
    let call = [("ours", (medians[5].1 - medians[4].1).max(0.0)), medians[1]];
    report("P9 runtime, added to a call by it", Unit::Time, &call, Goal::AtMost(1e3));
    let restore = [medians[2], ("a deep clone", medians[3].1)];
    report("P9 behavior, its restore", Unit::Time, &restore, Goal::Reported);
    let back = [("ours", (medians[7].1 - medians[6].1).max(0.0)), ("a deep clone", medians[3].1)];
    report("P9 runtime, warm rollback", Unit::Time, &back, Goal::AtMost(5e3));
}

/// Steps of a request before the one that answers it.
const INNER: u64 = 18;

/// Durable children "0", "1" and so on below "top", whose every step is stored.
async fn durable(place: &Path, agents: usize, agent: Agent) -> (System, Vec<Port<u64, u64>>) {
    let spec = (0..agents).fold(SupervisorSpec::one_for_one("top"), |spec, number| {
        let agent = agent.clone();
        let child = ChildSpec::stateful(number.to_string(), move || agent.clone());
        spec.child(child.durable::<Agent>().checkpoint(Interval::Steps(1)))
    });
    let (system, _) = System::recover(spec, open(place)).await.expect("it starts");
    let port = |number| system.port(format!("top/{number}")).expect("it is there");
    let ports = (0..agents).map(port).collect();
    (system, ports)
}

/// Each of them has answered once.
async fn asked(ports: &[Port<u64, u64>]) {
    let calls: Vec<_> = ports
        .iter()
        .map(|port| {
            let port = port.clone();
            tokio::spawn(async move { port.call(7_u64).await.expect("it answers").value })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.expect("no agent panics"), 8);
    }
}

/// P10: one durable step after the other, of a big agent.
pub(crate) fn step(options: &Options) {
    let place = folder();
    let store = open(place.path());
    let mut file = bare(place.path());
    let child = ChildPath::new("top").join("agent");
    let mut agent = Agent::big();
    let mut last = seal(&child, taken(&agent), None, 0);
    let commit = |sealed: &Sealed| {
        let batch = Batch::new().checkpoint(sealed);
        store.commit(batch, Durability::Sync).wait().expect("the disk takes it");
    };
    commit(&last);
    let times = options.size(200).max(20);
    let runtime = ct();
    let other = folder();
    let ours = runtime.block_on(durable(other.path(), 1, Agent { steps: INNER, ..Agent::big() }));
    let mut step = 0;
    let bytes = vec![7; 2_000];
    let sides: Vec<Side<'_>> = vec![
        (
            "ours",
            Box::new(|| {
                waits(times, || {
                    step += 1;
                    agent.work(step);
                    let snapshot = taken(&agent).following(last.snapshot());
                    last = seal(&child, snapshot, Some(&last), step);
                    commit(&last);
                })
            }),
        ),
        ("append and fdatasync", Box::new(|| waits(times, || append(&mut file, &bytes)))),
        (
            "runtime",
            Box::new(|| {
                let calls = times / 20;
                let took = waits(calls, || runtime.block_on(asked(&ours.1)));
                // The acceptance, the steps, and the answer with the last state.
                took / (INNER + 2) as f64
            }),
        ),
    ];
    let medians = alternate(options, sides);
    report("P10 store, durable step of 10 MB", Unit::Time, &medians[..2], Goal::Ratio(2.0));
    let through = [("ours", medians[2].1), medians[1]];
    report("P10 runtime, durable step of 10 MB", Unit::Time, &through, Goal::Ratio(2.0));
    runtime.block_on(ours.0.stop());
}

/// P11: durable steps a second of many agents, each of which waits for its own.
pub(crate) fn many(options: &Options) {
    const AGENTS: usize = 4_096;
    const TOGETHER: usize = 64;
    /// As many as a call of the runtime has, so that the first of each agent does not decide.
    const STEPS: usize = 10;
    let place = folder();
    let store = open(place.path());
    let mut file = bare(place.path());
    let runtime = ct();
    let steps = options.size(40).max(4);
    let other = folder();
    let ours =
        runtime.block_on(durable(other.path(), AGENTS, Agent { steps: 9, ..Agent::default() }));
    let bytes = vec![7; 600 * TOGETHER];
    let sides: Vec<Side<'_>> = vec![
        ("ours", Box::new(|| rate(&runtime, &store, AGENTS, STEPS))),
        (
            "append and fdatasync of 64",
            Box::new(|| {
                let rounds = 5 * steps;
                let begun = Instant::now();
                for _ in 0..rounds {
                    append(&mut file, &bytes);
                }
                (rounds * TOGETHER) as f64 / begun.elapsed().as_secs_f64()
            }),
        ),
        (
            "runtime",
            Box::new(|| {
                let begun = Instant::now();
                runtime.block_on(asked(&ours.1));
                (10 * AGENTS) as f64 / begun.elapsed().as_secs_f64()
            }),
        ),
    ];
    let medians = alternate(options, sides);
    let what = format_args!("P11 store, durable steps of {AGENTS} agents");
    report(what, Unit::Rate, &medians[..2], Goal::AtLeast(50e3));
    let what = format_args!("P11 runtime, durable steps of {AGENTS} agents");
    report(what, Unit::Rate, &[("ours", medians[2].1), medians[1]], Goal::AtLeast(50e3));
    runtime.block_on(ours.0.stop());
}

fn rate(runtime: &Runtime, store: &Arc<FileStore>, agents: usize, steps: usize) -> f64 {
    let begun = Instant::now();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..agents)
            .map(|number| {
                let store = Arc::clone(store);
                tokio::spawn(async move {
                    let child = ChildPath::new("top").join(&number.to_string());
                    let mut last: Option<Sealed> = None;
                    for step in 0..steps as u64 {
                        let snapshot = Snapshot::new("agent", 1).with("n", Arc::new(step));
                        let sealed = seal(&child, snapshot, last.as_ref(), step);
                        let batch = Batch::new().checkpoint(&sealed);
                        store.commit(batch, Durability::Sync).await.expect("the disk takes it");
                        last = Some(sealed);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("no agent panics");
        }
    });
    (agents * steps) as f64 / begun.elapsed().as_secs_f64()
}

/// P12: a big agent from its file, which the system still has in its cache.
pub(crate) fn restore(options: &Options) {
    let place = folder();
    let child = ChildPath::new("top").join("agent");
    let agent = Agent::big();
    let sealed = seal(&child, taken(&agent), None, 0);
    let batch = Batch::new().checkpoint(&sealed);
    open(place.path()).commit(batch, Durability::Sync).wait().expect("the disk takes it");
    let path = place.path().join("bare");
    let encoded = bincode::serde::encode_to_vec(&agent.memory, standard());
    std::fs::write(&path, encoded.expect("it can be encoded")).expect("the disk takes it");
    let schema =
        NAMES.iter().fold(Schema::new("agent", 1), |schema, name| schema.field::<Memory>(*name));
    let schemas = Schemas::new().register(schema).expect("it is the only one");
    let sides: Vec<Side<'_>> = vec![
        (
            "ours",
            Box::new(|| {
                let store = open(place.path());
                waits(1, || restored(&*store, &schemas, &child))
            }),
        ),
        (
            "read and bincode alone",
            Box::new(|| {
                waits(1, || {
                    let bytes = std::fs::read(&path).expect("it is there");
                    let read: Result<(Vec<Memory>, usize), _> =
                        bincode::serde::decode_from_slice(&bytes, standard());
                    assert_eq!(read.expect("it can be decoded").0.len(), PIECES);
                })
            }),
        ),
        ("opened too", Box::new(|| waits(1, || restored(&*open(place.path()), &schemas, &child)))),
    ];
    let medians = alternate(options, sides);
    report("P12 store, restore of 10 MB", Unit::Time, &medians[..2], Goal::AtMost(25e6));
    let opened = [("ours", medians[2].1), medians[1]];
    report("P12 store, open and restore of 10 MB", Unit::Time, &opened, Goal::AtMost(25e6));
}

/// The big agent as its newest checkpoint has it.
fn restored(store: &dyn Store, schemas: &Schemas, child: &ChildPath) {
    let validator = Validator::new(store, schemas, Rules::at(now()));
    let found = validator.newest(child).expect("the store can be read").found;
    let mut agent = Agent::default();
    agent.restore(found.expect("it is valid").snapshot()).expect("it fits");
    assert_eq!(agent.memory.len(), PIECES);
}

/// P14: all of a system's agents, from what another one has left.
pub(crate) fn system(options: &Options) {
    let agents = options.size(10_000);
    let place = folder();
    let spec = || {
        (0..agents).fold(SupervisorSpec::one_for_one("top"), |spec, number| {
            let child = ChildSpec::stateful(number.to_string(), Agent::default);
            let child = child.durable::<Agent>().checkpoint(Interval::Steps(1));
            spec.child(child.durability(Durability::Async))
        })
    };
    let start = |first: bool| {
        let runtime = ct();
        // A copy, as another machine would have it: the process that wrote it still holds the first.
        let copy = folder();
        let place = if first { place.path() } else { copied(place.path(), copy.path()) };
        let begun = Instant::now();
        let took = runtime.block_on(async {
            let store = open(place);
            let recovered = System::recover(spec(), store).await;
            let (system, recovered) = recovered.expect("it starts");
            let took = begun.elapsed().as_nanos() as f64;
            assert_eq!(recovered.children.len(), if first { 0 } else { agents });
            if first {
                let port = |number| system.port(format!("top/{number}")).expect("it is there");
                asked(&(0..agents).map(port).collect::<Vec<_>>()).await;
            }
            system.stop().await;
            took
        });
        drop(runtime);
        took
    };
    start(true);
    let few = Options { rounds: options.rounds.min(3), ..*options };
    let medians = alternate(&few, vec![("ours", Box::new(|| start(false)))]);
    let goal = Goal::AtMost(1e9 * agents as f64 / 10_000.0);
    report(format_args!("P14 runtime, restart of {agents} agents"), Unit::Time, &medians, goal);
}

fn copied<'a>(from: &Path, to: &'a Path) -> &'a Path {
    for entry in std::fs::read_dir(from).expect("it is there") {
        let entry = entry.expect("it can be listed");
        if entry.path().extension().is_some_and(|kind| kind == "seg") {
            std::fs::copy(entry.path(), to.join(entry.file_name())).expect("there is room");
        }
    }
    to
}
