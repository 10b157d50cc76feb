//! A process is killed (SIGKILL) at every numbered point of a rollback by hand: before and after each
//! commit of its store, and before and after each act on the world. The next process goes on, and the
//! world, a file that is not the store's, says that each thing was done once and undone as often as it was
//! done too much.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mainstay::behavior::{Behavior, Call, Context, Stateful, Stateless, Step, Turn};
use mainstay::checkpoint::{
    Batch, Commit, Compacted, Durability, FileStore, JournalRecord, Listed, RecoveryLine, Retained,
    Retention, Scope, Snapshot, Store, StoreInfo, Stored, Wall,
};
use mainstay::error::{CheckpointError, StoreError};
use mainstay::fate::Fate;
use mainstay::fault::{EffectKind, Fault};
use mainstay::id::{CheckpointId, ChildPath};
use mainstay::journal::Journaled;
use mainstay::port::{CallOptions, Needs, Port};
use mainstay::spec::{ChildSpec, SupervisorSpec};
use mainstay::system::{System, To};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

const FOLDER: &str = "ROLLBACK_CRASH_FOLDER";
const POINT: &str = "ROLLBACK_CRASH_POINT";

/// Where this process is killed.
#[derive(Debug, Default)]
struct Points {
    /// `0`: nowhere.
    at: u64,
    armed: AtomicBool,
    passed: AtomicU64,
}

impl Points {
    /// One more point is passed, unless it is the one.
    fn pass(&self) {
        if !self.armed.load(Ordering::SeqCst) {
            return;
        }
        if self.passed.fetch_add(1, Ordering::SeqCst) + 1 == self.at {
            let me = std::process::id().to_string();
            Command::new("kill").args(["-KILL", &me]).status().unwrap();
            loop {
                std::thread::park();
            }
        }
    }
}

/// A store that passes a point before and after each commit.
#[derive(Debug)]
struct Pointed {
    inner: FileStore,
    points: Arc<Points>,
}

impl Store for Pointed {
    fn commit(&self, batch: Batch, durability: Durability) -> Commit {
        self.points.pass();
        let made = self.inner.commit(batch, durability);
        let (answerer, commit) = Commit::pending();
        let points = Arc::clone(&self.points);
        std::thread::spawn(move || {
            let result = made.wait();
            points.pass();
            answerer.answer(result);
        });
        commit
    }

    fn children(&self) -> Result<Vec<ChildPath>, StoreError> {
        self.inner.children()
    }

    fn checkpoints(&self, child: &ChildPath) -> Result<Vec<Listed>, StoreError> {
        self.inner.checkpoints(child)
    }

    fn find(&self, id: CheckpointId) -> Result<Listed, StoreError> {
        self.inner.find(id)
    }

    fn load(&self, id: CheckpointId) -> Result<Stored, StoreError> {
        self.inner.load(id)
    }

    fn lines(&self, scope: Scope, at: &ChildPath) -> Result<Vec<Arc<RecoveryLine>>, StoreError> {
        self.inner.lines(scope, at)
    }

    fn scan(
        &self,
        stream: &str,
        from: u64,
        limit: usize,
    ) -> Result<Vec<JournalRecord>, StoreError> {
        self.inner.scan(stream, from, limit)
    }

    fn streams(&self) -> Result<Vec<(Arc<str>, u64)>, StoreError> {
        self.inner.streams()
    }

    fn quarantined(&self) -> Result<Vec<Listed>, StoreError> {
        self.inner.quarantined()
    }

    fn info(&self) -> Result<StoreInfo, StoreError> {
        self.inner.info()
    }

    fn retain(&self, keep: Retention, now: Wall) -> Result<Retained, StoreError> {
        self.inner.retain(keep, now)
    }

    fn compact(&self) -> Result<Compacted, StoreError> {
        self.inner.compact()
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.inner.flush()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Order {
    Debit,
    Refund,
}

/// Writes each order down once.
#[derive(Clone)]
struct Bank {
    file: PathBuf,
    points: Arc<Points>,
}

impl Behavior for Bank {
    type Request = Order;
    type Reply = ();
    const EFFECT: Option<EffectKind> = Some(EffectKind::Idempotent);
}

impl Stateless for Bank {
    async fn serve(&self, order: &Order, ctx: &Context) -> Result<(), Fault> {
        let line = format!("{order:?} {}\n", ctx.key());
        if read(&self.file).contains(&line) {
            return Ok(());
        }
        self.points.pass();
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&self.file);
        file.and_then(|mut file| {
            file.write_all(line.as_bytes())?;
            file.sync_all()
        })
        .map_err(|error| Fault::internal(error.to_string()))?;
        self.points.pass();
        Ok(())
    }
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_default()
}

#[derive(Default)]
struct Door {
    waiting: Notify,
    open: AtomicBool,
    opened: Notify,
}

/// Answers once it is open.
#[derive(Clone)]
struct Gate(Arc<Door>);

impl Behavior for Gate {
    type Request = ();
    type Reply = ();
    const EFFECT: Option<EffectKind> = Some(EffectKind::Read);
}

impl Stateless for Gate {
    async fn serve(&self, (): &(), _: &Context) -> Result<(), Fault> {
        let mut opened = std::pin::pin!(self.0.opened.notified());
        opened.as_mut().enable();
        if !self.0.open.load(Ordering::SeqCst) {
            self.0.waiting.notify_one();
            opened.await;
        }
        Ok(())
    }
}

/// Pays twice, and waits at the gate.
#[derive(Clone, Default)]
struct Buyer {
    stage: Arc<u32>,
    paid: Arc<u32>,
}

impl Behavior for Buyer {
    type Request = u32;
    type Reply = u32;

    fn needs() -> Needs {
        Needs::none().needs::<Port<Order, ()>>("bank").needs::<Port<(), ()>>("gate")
    }
}

impl Stateful for Buyer {
    async fn step(&mut self, _: &u32, turn: Turn, ctx: &Context) -> Result<Step<u32>, Fault> {
        if let Turn::Performed(performed) = &turn {
            performed.get::<()>(0)?;
            self.stage = Arc::new(*self.stage + 1);
        }
        let call = match *self.stage {
            0 | 1 => {
                let bank = ctx.port::<Order, ()>("bank")?;
                Call::from(bank.effect(Order::Debit).undo(&bank, Order::Refund))
            }
            2 => ctx.port::<(), ()>("gate")?.ask(()),
            _ => {
                self.stage = Arc::new(0);
                self.paid = Arc::new(*self.paid + 1);
                return Ok(Step::Reply(*self.paid));
            }
        };
        Ok(Step::Perform(vec![call]))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        let snapshot = Snapshot::new("buyer", 1).with("stage", Arc::clone(&self.stage));
        Some(snapshot.with("paid", Arc::clone(&self.paid)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.stage = snapshot.get("stage")?;
        self.paid = snapshot.get("paid")?;
        Ok(())
    }
}

/// One process: in the first, a purchase is at the gate when its transaction is returned by hand.
async fn process(folder: &Path, at: u64) {
    let points = Arc::new(Points { at, ..Points::default() });
    let inner = FileStore::open(folder.join("store")).unwrap();
    let store: Arc<dyn Store> = Arc::new(Pointed { inner, points: Arc::clone(&points) });
    let door = Arc::<Door>::default();
    let bank = Bank { file: folder.join("bank"), points: Arc::clone(&points) };
    let gate = Gate(Arc::clone(&door));
    let deal = SupervisorSpec::one_for_one("deal")
        .scope(Scope::Transaction)
        .child(ChildSpec::stateless("bank", move || bank.clone()).recorded::<Bank>())
        .child(ChildSpec::stateless("gate", move || gate.clone()))
        .child(ChildSpec::stateful("buyer", Buyer::default).durable::<Buyer>());
    let top = SupervisorSpec::one_for_one("top").scope(Scope::System).supervisor(deal);
    let (system, _) = System::recover(top, store).await.unwrap();
    let mut events = system.events();
    let buyer = system.port::<u32, u32>("top/deal/buyer").unwrap();
    if system.journaled("k").is_none() {
        system.checkpoint("top/deal").await.unwrap();
        buyer.submit(1_u32, CallOptions::new().key("k")).await.unwrap();
        door.waiting.notified().await;
        points.armed.store(true, Ordering::SeqCst);
        let report = system.rollback("top/deal", To::Latest).await.unwrap();
        assert_eq!(report.undone.len(), 2);
        points.armed.store(false, Ordering::SeqCst);
        println!("points: {}", points.passed.load(Ordering::SeqCst));
    }
    door.open.store(true, Ordering::SeqCst);
    door.opened.notify_waiters();
    while system.journaled("k") == Some(Journaled::Open)
        || system.effects().counts().compensating > 0
    {
        // Whatever happens next; the fate itself is told by no event that could not be missed.
        let _ = tokio::time::timeout(Duration::from_millis(50), events.next()).await;
    }
    let fate = system.journaled("k");
    assert_eq!(fate, Some(Journaled::Fated(Fate::Done, Some("1".to_owned()))));
    assert_eq!(system.effects().open(), []);
    assert!(system.fates().is_balanced(), "{:?}", system.fates());
    system.stop().await;
    println!("ended well");
}

/// This test again, as a process of its own.
fn run(folder: &Path, point: u64) -> (Output, String) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_process_that_is_killed_in_a_rollback_by_hand_is_gone_on_with"])
        .arg("--nocapture")
        .env(FOLDER, folder)
        .env(POINT, point.to_string())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output, text)
}

/// It ends well, and the world has seen each purchase once more than it was taken back.
fn ends_well(folder: &Path, what: &str) -> usize {
    let (output, text) = run(folder, 0);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("ended well"), "{what}: {text}{errors}");
    let world = read(&folder.join("bank"));
    let count = |order: &str| world.lines().filter(|line| line.starts_with(order)).count();
    let (debits, refunds) = (count("Debit"), count("Refund"));
    assert_eq!(debits, refunds + 2, "{what}: {world}");
    refunds
}

#[test]
fn a_process_that_is_killed_in_a_rollback_by_hand_is_gone_on_with() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        let point = std::env::var(POINT).unwrap().parse().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(process(Path::new(&folder), point));
    }
    let (mut none, mut both, mut points) = (0, 0, 0);
    // How many there are depends on what the store writes in one commit, so each run is asked anew: the
    // first that ends before its point has passed them all.
    loop {
        let point = points + 1;
        let folder = tempfile::TempDir::new().unwrap();
        let (output, text) = run(folder.path(), point);
        let what = format!("point {point}");
        if output.status.code().is_some() {
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{what}: {text}{errors}");
            let passed = text.lines().find_map(|line| line.split("points: ").nth(1));
            let passed: u64 = passed.unwrap_or_else(|| panic!("{what}: {text}")).parse().unwrap();
            assert!(passed < point, "{what}: it passed {passed} points, and did not die: {text}");
            assert!(point > 10, "{what}: only {passed} points");
            break;
        }
        if text.contains("points: ") {
            // The rollback was over: a commit of what came next had begun before the points were taken away.
            assert!(point > 10, "{what}: only {text}");
            ends_well(folder.path(), &what);
            break;
        }
        match ends_well(folder.path(), &what) {
            0 => none += 1,
            2 => both += 1,
            refunds => panic!("{what}: {refunds} undone, and not all or none"),
        }
        points = point;
    }
    // Before its states are stored, the rollback has not been; from then on it goes on to its end.
    assert!(none > 0 && both > points / 2, "{none} were not begun, {both} went on");
}
