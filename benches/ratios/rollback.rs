//! RB: how long a rollback of each scope takes, in a system of 10,000 agents.
//!
//! All agents stand below each of the scopes, so a rollback of a scope returns all of them, but for that
//! of a step, which returns one among them. Each has worked since the line it returns to, has nothing in hand,
//! and has done nothing to the world: what is undone there waits for the tools. Time is wall time from the
//! question to its answer, as a person who asks for it waits.

use std::sync::Arc;
use std::time::Instant;

use mainstay::behavior::{Behavior, Context, Stateful, Step, Turn};
use mainstay::checkpoint::{Durability, FileStore, Interval, Scope, Snapshot, Store};
use mainstay::error::CheckpointError;
use mainstay::fault::{EffectKind, Fault};
use mainstay::port::Port;
use mainstay::spec::{ChildSpec, SupervisorSpec};
use mainstay::system::{System, To};
use tempfile::TempDir;

use super::meter::{Goal, Options, Unit, ct, report};

/// Rollbacks of each scope.
const TIMES: usize = 20;

/// The scopes of a supervisor from the widest on, with their supervisors.
const SCOPES: [(Scope, &str); 4] = [
    (Scope::System, "top"),
    (Scope::Session, "top/session"),
    (Scope::Transaction, "top/session/transaction"),
    (Scope::Flow, "top/session/transaction/flow"),
];

/// Counts.
#[derive(Clone)]
struct Agent {
    count: Arc<u64>,
}

impl Behavior for Agent {
    type Request = ();
    type Reply = u64;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
}

impl Stateful for Agent {
    async fn step(&mut self, (): &(), _: Turn, _: &Context) -> Result<Step<u64>, Fault> {
        self.count = Arc::new(*self.count + 1);
        Ok(Step::Reply(*self.count))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("agent", 1).with("count", Arc::clone(&self.count)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.count = snapshot.get("count")?;
        Ok(())
    }
}

/// A system of so many agents below every scope, on a store in a file.
struct Bed {
    system: System,
    ports: Vec<Port<(), u64>>,
    _folder: TempDir,
}

impl Bed {
    async fn new(agents: usize) -> Self {
        let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder can be made");
        let store = FileStore::open(folder.path()).expect("the store opens");
        let flow = SupervisorSpec::one_for_one("flow").scope(Scope::Flow);
        let flow = (0..agents).fold(flow, |flow, number| {
            let agent = || Agent { count: Arc::default() };
            let child = ChildSpec::stateful(number.to_string(), agent);
            let child = child.durable::<Agent>().checkpoint(Interval::Steps(1));
            flow.child(child.durability(Durability::Async))
        });
        let transaction = SupervisorSpec::one_for_one("transaction").scope(Scope::Transaction);
        let session = SupervisorSpec::one_for_one("session").scope(Scope::Session);
        let session = session.supervisor(transaction.supervisor(flow));
        let top = SupervisorSpec::one_for_one("top").scope(Scope::System);
        let top = top.supervisor(session);
        let recovered = System::recover(top, Arc::new(store) as Arc<dyn Store>).await;
        let (system, _) = recovered.expect("it starts");
        let port = |number| system.port(format!("{}/{number}", SCOPES[3].1));
        let ports = (0..agents).map(|number| port(number).expect("it is there")).collect();
        Self { system, ports, _folder: folder }
    }

    /// Every agent works; what each has counted.
    async fn work(&self) -> u64 {
        let mut counted = 0;
        let calls: Vec<_> = self
            .ports
            .iter()
            .cloned()
            .map(|port| tokio::spawn(async move { port.call(()).await }))
            .collect();
        for call in calls {
            let answer = call.await.expect("no agent panics");
            counted = answer.expect("it answers").value;
        }
        counted
    }

    /// Rolls a place back, and says how long that took.
    async fn back(&self, at: &str, children: usize) -> f64 {
        let begun = Instant::now();
        let done = self.system.rollback(at, To::Latest).await.expect("it returns");
        let took = begun.elapsed().as_nanos() as f64;
        assert_eq!(done.children.len(), children);
        took
    }
}

pub(crate) fn run(options: &Options) {
    let agents = options.size(10_000);
    let runtime = ct();
    runtime.block_on(async {
        let bed = Bed::new(agents).await;
        step(options, &bed).await;
        for (scope, at) in SCOPES.into_iter().rev() {
            let mut took = Vec::new();
            for _ in 0..options.size(TIMES) {
                let counted = bed.work().await;
                bed.system.checkpoint(at).await.expect("the disk takes it");
                bed.work().await;
                took.push(bed.back(at, agents).await);
                // What was answered since the line was drawn is handled again, before this.
                assert_eq!(
                    bed.work().await,
                    counted + 2,
                    "nothing is lost, and nothing done twice"
                );
            }
            say(scope, &format!("{agents} agents"), took);
        }
        bed.system.stop().await;
    });
}

/// One agent among all returns to its last checkpoint.
async fn step(options: &Options, bed: &Bed) {
    bed.work().await;
    let mut took = Vec::new();
    for at in 0..options.size(TIMES) {
        took.push(bed.back(bed.ports[at].path().as_str(), 1).await);
    }
    say(Scope::Step, &format!("one of {} agents", bed.ports.len()), took);
}

/// The middle one and the 95th of a hundred, against the limit of the scope.
fn say(scope: Scope, what: &str, mut took: Vec<f64>) {
    took.sort_by(f64::total_cmp);
    let at =
        |share: f64| took[((took.len() as f64 * share).ceil() as usize).clamp(1, took.len()) - 1];
    let goal = Goal::AtMost(scope.limit().as_nanos() as f64);
    report(
        format_args!("RB {scope} of {what}, P50"),
        Unit::Time,
        &[("ours", at(0.5))],
        Goal::Reported,
    );
    report(format_args!("RB {scope} of {what}, P95"), Unit::Time, &[("ours", at(0.95))], goal);
}
