//! Real processes are killed, again and again, also while they recover, with everything at once: a durable
//! group, an agent with a checkpoint after each step, effects, and requests that no life survives until they
//! are mended and released from quarantine.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use mainstay::behavior::{Behavior, Call, Context, Stateful, Stateless, Step, Turn};
use mainstay::checkpoint::{FileOptions, Interval, Snapshot, Store};
use mainstay::error::{CallError, CheckpointError, QuarantineError, Unavailable};
use mainstay::fate::Fate;
use mainstay::fault::{EffectKind, Fault};
use mainstay::journal::Journaled;
use mainstay::port::{CallOptions, Needs, Port};
use mainstay::spec::{ChildSpec, GroupSpec, SupervisorSpec};
use mainstay::system::System;

/// Set for a process that is to be killed: where its store and its world are.
const CHILD: &str = "MAINSTAY_CRASH_MIXED";
const REQUESTS: u64 = 12;

/// Every fourth request ends each life that takes it up, until the world is mended.
const fn is_poison(n: u64) -> bool {
    n % 4 == 1
}

/// What survives a process beside its store: files that are only ever appended to.
#[derive(Clone)]
struct World(Arc<PathBuf>);

impl World {
    fn acts(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.0.join("acts")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Remembers what was accepted: from here on it must not be lost.
    fn accepted(&self, key: &str) {
        let file = OpenOptions::new().create(true).append(true).open(self.0.join("accepted"));
        file.unwrap().write_all(format!("{key}\n").as_bytes()).unwrap();
    }

    /// Acts, once for each key.
    fn act(&self, key: &str, what: u64) {
        let line = format!("{what} {key}");
        if !self.acts().contains(&line) {
            let mut file =
                OpenOptions::new().create(true).append(true).open(self.0.join("acts")).unwrap();
            // One write: it happens as a whole, or not at all.
            file.write_all(format!("{line}\n").as_bytes()).unwrap();
        }
    }

    fn is_mended(&self) -> bool {
        self.0.join("mended").exists()
    }

    fn mend(&self) {
        std::fs::write(self.0.join("mended"), "").unwrap();
    }
}

/// Something has happened: a place to be killed at.
fn tell(what: &str) {
    println!("at {what}");
}

#[derive(Clone)]
struct Tool(World);

impl Behavior for Tool {
    type Request = u64;
    type Reply = u64;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Idempotent);
}

impl Stateless for Tool {
    async fn serve(&self, request: &u64, ctx: &Context) -> Result<u64, Fault> {
        tell("an act");
        self.0.act(&ctx.key(), *request);
        tell("an act that is done");
        Ok(*request)
    }
}

/// Acts twice for each request, and counts the requests it has answered.
#[derive(Clone)]
struct Agent {
    world: World,
    seen: Arc<u64>,
    acted: Arc<u64>,
}

impl Behavior for Agent {
    type Request = u64;
    type Reply = u64;

    fn needs() -> Needs {
        Needs::none().needs::<Port<u64, u64>>("tool")
    }
}

impl Stateful for Agent {
    async fn step(&mut self, request: &u64, turn: Turn, ctx: &Context) -> Result<Step<u64>, Fault> {
        tell("a step");
        match turn {
            Turn::First => self.acted = Arc::new(0),
            Turn::Performed(performed) => {
                performed.get::<u64>(0)?;
                self.acted = Arc::new(*self.acted + 1);
            }
            _ => {}
        }
        if *self.acted < 2 {
            let tool = ctx.port::<u64, u64>("tool")?;
            return Ok(Step::Perform(vec![Call::from(tool.effect(*request))]));
        }
        assert!(!is_poison(*request) || self.world.is_mended(), "poisoned");
        self.seen = Arc::new(*self.seen + 1);
        Ok(Step::Reply(*self.seen))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        let snapshot = Snapshot::new("agent", 1).with("seen", Arc::clone(&self.seen));
        Some(snapshot.with("acted", Arc::clone(&self.acted)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.seen = snapshot.get("seen")?;
        self.acted = snapshot.get("acted")?;
        Ok(())
    }
}

fn spec(world: &World) -> SupervisorSpec {
    let tool = Tool(world.clone());
    let agent = Agent { world: world.clone(), seen: Arc::default(), acted: Arc::default() };
    let member = |id: &'static str| {
        let tool = Tool(world.clone());
        ChildSpec::stateless(id, move || tool.clone())
    };
    SupervisorSpec::one_for_one("desk")
        .intensity(100_000, Duration::from_secs(5))
        .group(
            GroupSpec::tool("twins")
                .member_spec(member("one"))
                .member_spec(member("other"))
                .durable::<Tool>(),
        )
        .child(ChildSpec::stateless("tool", move || tool.clone()))
        .child(
            ChildSpec::stateful("agent", move || agent.clone())
                .durable::<Agent>()
                .checkpoint(Interval::Steps(1)),
        )
}

fn agent_key(n: u64) -> String {
    format!("agent-{n}")
}

fn twins_key(n: u64) -> String {
    format!("twins-{n}")
}

async fn submit(world: &World, port: &Port<u64, u64>, n: u64, key: String) {
    match port.submit(n, CallOptions::new().key(key.as_str())).await {
        Ok(_) => world.accepted(&key),
        Err(CallError::Refused { why: Unavailable::Duplicate, .. }) => {}
        Err(error) => panic!("{key}: {error}"),
    }
    tell("an acceptance");
}

/// Until each of these has a fate.
async fn settled(system: &System, keys: &[String]) {
    let mut events = system.events();
    for key in keys {
        while !matches!(system.journaled(key), Some(Journaled::Fated(..))) {
            // A fate is known to the journal somewhat before or after its event.
            drop(tokio::time::timeout(Duration::from_millis(20), events.next()).await);
        }
        tell("a fate");
    }
}

/// Does all of it, or what is left of it.
async fn work(folder: &Path) {
    let world = World(Arc::new(folder.to_owned()));
    tell("the beginning");
    // Small segments, so that processes also end between two of them.
    let store = FileOptions::new().segment_bytes(20_000).open(folder.join("store")).unwrap();
    let store: Arc<dyn Store> = Arc::new(store);
    tell("an open store");
    let (system, _) = System::recover(spec(&world), Arc::clone(&store)).await.unwrap();
    tell("a system");
    let agent: Port<u64, u64> = system.port("desk/agent").unwrap();
    let twins: Port<u64, u64> = system.port("desk/twins").unwrap();
    for n in 0..REQUESTS {
        submit(&world, &agent, n, agent_key(n)).await;
        submit(&world, &twins, n, twins_key(n)).await;
    }
    let keys: Vec<String> = (0..REQUESTS).flat_map(|n| [agent_key(n), twins_key(n)]).collect();
    settled(&system, &keys).await;
    world.mend();
    tell("a mended world");
    store.compact().unwrap();
    tell("a compacted store");
    // Those that end lives, and those with which in hand processes were killed too often.
    for key in &keys {
        match system.quarantine().release(key).await {
            Ok(_) => tell("a release"),
            Err(QuarantineError::NotFound(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    loop {
        settled(&system, &keys).await;
        if keys.iter().all(|key| {
            matches!(system.journaled(key), Some(Journaled::Fated(fate, _)) if fate == Fate::Done)
        }) {
            break;
        }
        let fates: Vec<_> = keys.iter().map(|key| (key, system.journaled(key))).collect();
        let other = |it: &Option<Journaled>| matches!(it, Some(Journaled::Fated(fate, _)) if *fate != Fate::Done);
        assert!(!fates.iter().any(|(_, fate)| other(fate)), "{fates:?}");
    }
    system.stop().await;
    store.flush().unwrap();
}

/// What the journal, the state and the world say when all is done.
async fn is_sound(folder: &Path, what: &str) {
    let world = World(Arc::new(folder.to_owned()));
    let store: Arc<dyn Store> = Arc::new(FileOptions::new().open(folder.join("store")).unwrap());
    let (system, recovered) = System::recover(spec(&world), store).await.unwrap();
    assert_eq!(recovered.requests, 0, "{what}: nothing is open");
    assert!(recovered.refused.is_empty(), "{what}: {:?}", recovered.refused);
    let mut answers = Vec::new();
    for n in 0..REQUESTS {
        match system.journaled(&agent_key(n)) {
            Some(Journaled::Fated(Fate::Done, Some(reply))) => {
                answers.push(reply.parse::<u64>().unwrap());
            }
            other => panic!("{what}: agent {n}: {other:?}"),
        }
        let done = Some(Journaled::Fated(Fate::Done, Some(n.to_string())));
        assert_eq!(system.journaled(&twins_key(n)), done, "{what}");
    }
    // What one process has accepted no later one has taken for new.
    let text = std::fs::read_to_string(folder.join("accepted")).unwrap();
    let mut accepted: Vec<&str> = text.lines().collect();
    accepted.sort_unstable();
    let twice = accepted.windows(2).find(|pair| pair[0] == pair[1]);
    assert_eq!(twice, None, "{what}: accepted, and lost");
    assert!(accepted.len() as u64 > REQUESTS, "{what}: {accepted:?}");
    // Each was counted once, whatever became of the lives that counted.
    answers.sort_unstable();
    assert_eq!(answers, (1..=REQUESTS).collect::<Vec<_>>(), "{what}");
    assert!(system.quarantine().requests().is_empty(), "{what}");
    assert!(system.effects().open().is_empty(), "{what}");
    let agent: Port<u64, u64> = system.port("desk/agent").unwrap();
    let last = agent.call_with(REQUESTS + 2, CallOptions::new().key("last")).await.unwrap();
    assert_eq!(last.value, REQUESTS + 1, "{what}");
    let mut acts: HashMap<u64, Vec<String>> = HashMap::new();
    for line in world.acts() {
        let (n, key) = line.split_once(' ').unwrap();
        acts.entry(n.parse().unwrap()).or_default().push(key.to_owned());
    }
    for n in 0..REQUESTS {
        // Twice by the agent, and once by one of the twins.
        assert_eq!(acts[&n].len(), 3, "{what}: {n}: {:?}", acts[&n]);
    }
    system.stop().await;
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// On its own: all of it is done and sound. In a process that the next test kills: all that is left.
#[test]
fn all_of_it_at_once_is_done_by_one_process() {
    let folder = std::env::var_os(CHILD).map(PathBuf::from);
    let scratch = tempfile::tempdir().unwrap();
    let place = folder.clone().unwrap_or_else(|| scratch.path().to_owned());
    runtime().block_on(work(&place));
    if folder.is_none() {
        assert!(World(Arc::new(place.clone())).is_mended());
        runtime().block_on(is_sound(&place, "alone"));
    }
    tell("the end");
}

/// A process that does what is left, and is gone when this is dropped.
struct Running(Child);

impl Running {
    fn new(folder: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "all_of_it_at_once_is_done_by_one_process", "--nocapture"]);
        command.env(CHILD, folder).stdin(Stdio::null());
        // Into a file: what nobody reads would hold the process up.
        let errors = OpenOptions::new().create(true).append(true).open(folder.join("errors"));
        command.stderr(errors.unwrap());
        Self(command.stdout(Stdio::piped()).spawn().unwrap())
    }

    /// Kills it at this place, unless it has ended before; whether it has.
    fn kill_at(mut self, place: u64) -> bool {
        let lines = BufReader::new(self.0.stdout.take().unwrap()).lines();
        let mut passed = 0;
        for line in lines {
            passed += u64::from(line.unwrap().contains("at "));
            if passed > place {
                self.0.kill().unwrap();
                self.0.wait().unwrap();
                return false;
            }
        }
        true
    }

    /// Lets it come to its end.
    fn ends(mut self, folder: &Path, what: &str) {
        let lines = BufReader::new(self.0.stdout.take().unwrap()).lines();
        let seen: Vec<String> = lines.map(Result::unwrap).collect();
        let status = self.0.wait().unwrap();
        let errors = std::fs::read_to_string(folder.join("errors")).unwrap();
        assert!(status.success(), "{what}: {seen:?} {errors}");
        assert!(seen.iter().any(|line| line.contains("at the end")), "{what}: {seen:?}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone now.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Numbers that follow from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

#[test]
fn all_of_it_at_once_survives_processes_that_are_killed_anywhere_and_again_while_they_recover() {
    let rounds = std::env::var("CRASH_ROUNDS").map_or(6, |rounds| rounds.parse().unwrap());
    let seed = match std::env::var("CRASH_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64,
    };
    println!("CRASH_SEED={seed}");
    let mut dice = Dice(seed);
    let mut kills = 0;
    for round in 0..rounds {
        let folder = tempfile::tempdir().unwrap();
        let mut what = format!("CRASH_SEED={seed}, round {round}, killed at");
        for _ in 0..=dice.below(4) {
            // Anywhere; and then, often, before the next process has recovered.
            for place in [dice.below(260), dice.below(6)] {
                kills += u64::from(!Running::new(folder.path()).kill_at(place));
                what = format!("{what} {place}");
            }
        }
        Running::new(folder.path()).ends(folder.path(), &what);
        runtime().block_on(is_sound(folder.path(), &what));
    }
    println!("{kills} kills in {rounds} rounds");
    assert!(kills >= rounds, "only {kills} processes were killed");
}
