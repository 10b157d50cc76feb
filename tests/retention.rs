//! What a request can still go back to is not forgotten, however many steps it takes; and what nobody can go
//! back to makes room when there is none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use mainstay::behavior::{Behavior, Context, Stateful, Stateless, Step, Turn};
use mainstay::checkpoint::{
    Batch, Durability, FileOptions, FileStore, Interval, MemoryStore, Retention, Scope, Snapshot,
    Store, Wall,
};
use mainstay::error::CheckpointError;
use mainstay::fate::Fate;
use mainstay::fault::{EffectKind, Fault};
use mainstay::id::ChildPath;
use mainstay::journal::Journaled;
use mainstay::port::{CallOptions, Port};
use mainstay::spec::{ChildSpec, SupervisorSpec};
use mainstay::system::{RecoverOptions, System, To};
use tokio::runtime::Runtime;
use tokio::sync::Notify;

const STEPS: u32 = 300;

#[derive(Default)]
struct World {
    /// The last step of a long request fails; until then it never ends.
    fails: AtomicBool,
    there: Notify,
}

/// Adds up. A request of 0 takes many steps, and does not end well.
#[derive(Clone)]
struct Long {
    world: Arc<World>,
    sum: Arc<u32>,
    steps: Arc<u32>,
}

impl Behavior for Long {
    type Request = u32;
    type Reply = u32;
}

impl Stateful for Long {
    async fn step(&mut self, request: &u32, turn: Turn, _: &Context) -> Result<Step<u32>, Fault> {
        if *request > 0 || matches!(turn, Turn::RolledBack(_)) {
            self.sum = Arc::new(*self.sum + request);
            return Ok(Step::Reply(*self.sum));
        }
        if *self.steps == STEPS {
            if self.world.fails.load(Ordering::SeqCst) {
                return Err(Fault::business("it cannot be done"));
            }
            self.world.there.notify_one();
            std::future::pending::<()>().await;
        }
        self.steps = Arc::new(*self.steps + 1);
        self.sum = Arc::new(*self.sum + 1000);
        Ok(Step::Continue)
    }

    fn snapshot(&self) -> Option<Snapshot> {
        let snapshot = Snapshot::new("long", 1);
        Some(snapshot.with("sum", Arc::clone(&self.sum)).with("steps", Arc::clone(&self.steps)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.sum = snapshot.get("sum")?;
        self.steps = snapshot.get("steps")?;
        Ok(())
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

async fn open(world: &Arc<World>, store: &Arc<dyn Store>) -> (System, Port<u32, u32>) {
    let long = Long { world: Arc::clone(world), sum: Arc::default(), steps: Arc::default() };
    let child = ChildSpec::stateful("long", move || long.clone())
        .durable::<Long>()
        .checkpoint(Interval::Steps(1));
    let spec = SupervisorSpec::one_for_one("desk").scope(Scope::Transaction).child(child);
    let (system, _) = System::recover(spec, Arc::clone(store)).await.unwrap();
    let port = system.port("desk/long").unwrap();
    (system, port)
}

/// As few are kept as can be.
fn forget(store: &dyn Store) -> usize {
    let keep = Retention { checkpoints: 2, lines: 1 };
    store.retain(keep, Wall::from(SystemTime::now())).unwrap();
    store.compact().unwrap();
    let left = store.checkpoints(&"desk/long".into()).unwrap();
    for listed in &left {
        assert_eq!(listed.broken, None, "the lineage of {} is lost", listed.checkpoint.id);
    }
    left.len()
}

#[test]
fn a_request_of_many_steps_can_still_go_back_to_its_beginning() {
    // With a state of an earlier request to go back to, and as the first that the child ever has.
    for before in [0, 5] {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let world = Arc::new(World::default());
        // Twice, so that the pin of an earlier process holds, too.
        for round in 0..2 {
            runtime().block_on(async {
                let (_system, long) = open(&world, &store).await;
                if round == 0 {
                    if before > 0 {
                        assert_eq!(long.call(before).await.unwrap().value, before);
                    }
                    long.submit(0_u32, CallOptions::new().key("long")).await.unwrap();
                }
                world.there.notified().await;
                assert_eq!(forget(&*store), 3, "the newest two, and where it began");
            });
        }
        runtime().block_on(async {
            world.fails.store(true, Ordering::SeqCst);
            let (system, long) = open(&world, &store).await;
            assert_eq!(long.call(1_u32).await.unwrap().value, before + 1);
            let Some(Journaled::Fated(_, reply)) = system.journaled("long") else {
                panic!("it has no fate")
            };
            assert_eq!(reply, Some(before.to_string()), "it began with {before}");
            // Nothing is held any more.
            assert_eq!(forget(&*store), 2);
        });
    }
}

/// Remembers 4 KB of its last request, which do not get smaller.
#[derive(Clone, Default)]
struct Fat(Arc<Vec<u64>>);

impl Behavior for Fat {
    type Request = u64;
    type Reply = u64;
}

impl Stateful for Fat {
    async fn step(&mut self, request: &u64, _: Turn, _: &Context) -> Result<Step<u64>, Fault> {
        let noise = |at: u64| (request * 512 + at + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = Arc::new((0..512).map(noise).collect());
        Ok(Step::Reply(*request))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("fat", 1).with("noise", Arc::clone(&self.0)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.0 = snapshot.get("noise")?;
        Ok(())
    }
}

#[test]
fn a_store_that_is_full_makes_room_by_itself() {
    // Twice as much as is kept of one child, and half of what is written.
    const QUOTA: u64 = 1_200_000;
    const CALLS: u64 = 600;
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = FileOptions::new().quota(QUOTA).open(folder.path()).unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let child = ChildSpec::stateful("fat", Fat::default).durable::<Fat>();
        let child = child.durability(Durability::Async);
        let spec = SupervisorSpec::one_for_one("desk").child(child.checkpoint(Interval::Steps(1)));
        let (system, _) = System::recover(spec, Arc::clone(&store)).await.unwrap();
        let port: Port<u64, u64> = system.port("desk/fat").unwrap();
        let mut refused = 0;
        for n in 0..CALLS {
            let begun = Instant::now();
            while let Err(error) = port.call(n).await {
                refused += 1;
                assert!(begun.elapsed() < Duration::from_secs(60), "{n} after {refused}: {error}");
            }
        }
        assert!(refused > 0, "it was never full");
        let bytes = store.info().unwrap().bytes;
        assert!(bytes <= QUOTA, "{bytes}");
        let kept = store.checkpoints(&"desk/fat".into()).unwrap();
        assert!(kept.len() < CALLS as usize / 2, "{} are kept", kept.len());
        system.stop().await;
    });
}

#[test]
fn a_store_smaller_than_what_is_kept_of_a_child_is_not_full_for_ever() {
    // Ten states of one child.
    const QUOTA: u64 = 60_000;
    const CALLS: u64 = 60;
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let options = || FileOptions::new().quota(QUOTA);
    let spec = || {
        let child = ChildSpec::stateful("fat", Fat::default).durable::<Fat>();
        let child = child.durability(Durability::Async);
        SupervisorSpec::one_for_one("desk").child(child.checkpoint(Interval::Steps(1)))
    };
    runtime.block_on(async {
        let store: Arc<dyn Store> = Arc::new(options().open(folder.path()).unwrap());
        let (system, _) = System::recover(spec(), Arc::clone(&store)).await.unwrap();
        let port: Port<u64, u64> = system.port("desk/fat").unwrap();
        let mut refused = 0;
        for n in 0..CALLS {
            let begun = Instant::now();
            while let Err(error) = port.call(n).await {
                refused += 1;
                assert!(begun.elapsed() < Duration::from_secs(20), "{n} after {refused}: {error}");
            }
        }
        assert!(refused > 0, "it was never full");
        let bytes = store.info().unwrap().bytes;
        assert!(bytes <= QUOTA, "{bytes}");
        system.stop().await;
    });
    // The newest is among what is left; and whoever has the store last is waited for. Those whose fate had no room
    // are done now.
    let open = runtime.block_on(async {
        let store: Arc<dyn Store> = Arc::new(FileStore::open(folder.path()).unwrap());
        let (system, recovered) = System::recover(spec(), store).await.unwrap();
        assert_eq!(recovered.children[0].answered, CALLS);
        let port: Port<u64, u64> = system.port("desk/fat").unwrap();
        for n in 0..20_u64 {
            port.call(n).await.unwrap();
        }
        system.stop().await;
        recovered.requests as u64
    });
    // What is written while it is taken up finds room, too.
    runtime.block_on(async {
        let store: Arc<dyn Store> = Arc::new(options().open(folder.path()).unwrap());
        assert!(store.info().unwrap().bytes > QUOTA);
        let another = ChildSpec::stateful("thin", Fat::default).durable::<Fat>();
        let mut options = RecoverOptions::default();
        options.adopt_topology = true;
        let spec = spec().child(another);
        let (system, recovered) =
            System::recover_with(spec, Arc::clone(&store), options).await.unwrap();
        let bytes = store.info().unwrap().bytes;
        assert!(bytes <= QUOTA, "{bytes}");
        assert_eq!(recovered.children[0].answered, CALLS + open + 20);
        assert!(recovered.refused.is_empty(), "{:?}", recovered.refused);
        system.stop().await;
    });
}

/// Answers at length.
#[derive(Clone)]
struct Wordy;

impl Behavior for Wordy {
    type Request = u64;
    type Reply = String;
}

impl Stateful for Wordy {
    async fn step(&mut self, n: &u64, _: Turn, _: &Context) -> Result<Step<String>, Fault> {
        // Nothing that is shorter when it is compressed.
        let noise = |at: u64| (n * 600 + at + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let words: String = (0..600).map(|at| format!("{:x}", noise(at))).collect();
        Ok(Step::Reply(format!("{n}: {words}")))
    }
}

#[test]
fn a_store_that_is_full_of_answers_lets_the_older_ones_go() {
    // A tenth of what is answered, and far less than what is remembered where there is room.
    const QUOTA: u64 = 1_000_000;
    const CALLS: u64 = 1_000;
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = FileOptions::new().quota(QUOTA).open(folder.path()).unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let child = ChildSpec::stateful("wordy", || Wordy).durable::<Wordy>();
        let child = child.durability(Durability::Async);
        let spec = SupervisorSpec::one_for_one("desk").child(child);
        let (system, _) = System::recover(spec, Arc::clone(&store)).await.unwrap();
        let port: Port<u64, String> = system.port("desk/wordy").unwrap();
        let (mut refused, mut last) = (0, None);
        for n in 0..CALLS {
            let begun = Instant::now();
            let key = loop {
                let key = format!("{n}-{refused}");
                match port.call_with(n, CallOptions::new().key(&*key)).await {
                    Ok(_) => break key,
                    Err(error) => {
                        refused += 1;
                        assert!(begun.elapsed() < Duration::from_secs(60), "{n}: {error}");
                    }
                }
            };
            last = Some(key);
        }
        assert!(refused > 0, "it was never full");
        let known = |key: &str| system.journaled(key);
        let key = last.unwrap();
        let Some(Journaled::Fated(fate, Some(reply))) = known(&key) else {
            panic!("{:?} after {refused}", known(&key));
        };
        assert_eq!(fate, Fate::Done);
        assert!(reply.contains("999: "));
        // The fate of the first is remembered, and its text is not.
        assert_eq!(known("0-0"), Some(Journaled::Fated(Fate::Done, None)));
        system.stop().await;
    });
}

/// Acts, as far as anybody knows, and never ends.
#[derive(Clone)]
struct Once(Arc<Notify>);

impl Behavior for Once {
    type Request = u64;
    type Reply = u64;
}

impl Stateless for Once {
    async fn serve(&self, _: &u64, _: &Context) -> Result<u64, Fault> {
        self.0.notify_one();
        std::future::pending().await
    }
}

#[test]
fn a_full_store_is_taken_up_where_a_request_has_to_be_given_its_fate() {
    const QUOTA: u64 = 60_000;
    let folder = tempfile::tempdir().unwrap();
    let begun = Arc::new(Notify::new());
    let spec = || {
        let begun = Arc::clone(&begun);
        let fat = ChildSpec::stateful("fat", Fat::default).durable::<Fat>();
        let once = ChildSpec::stateless("once", move || Once(Arc::clone(&begun)));
        SupervisorSpec::one_for_one("desk")
            .child(fat.checkpoint(Interval::Steps(1)))
            .child(once.durable::<Once>())
    };
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let first = runtime();
    let system = first.block_on(async {
        let store: Arc<dyn Store> = Arc::new(FileStore::open(folder.path()).unwrap());
        let (system, _) = System::recover(spec(), Arc::clone(&store)).await.unwrap();
        let fat: Port<u64, u64> = system.port("desk/fat").unwrap();
        for n in 0..20_u64 {
            fat.call(n).await.unwrap();
        }
        let once: Port<u64, u64> = system.port("desk/once").unwrap();
        once.submit(1_u64, CallOptions::new().key("once")).await.unwrap();
        begun.notified().await;
        assert!(store.info().unwrap().bytes > QUOTA);
        system
    });
    // The process ends with it in hand, and not in order.
    drop(first);
    drop(system);
    let in_doubt = || {
        runtime().block_on(async {
            let store = FileOptions::new().quota(QUOTA).open(folder.path()).unwrap();
            let store: Arc<dyn Store> = Arc::new(store);
            let (system, recovered) = System::recover(spec(), Arc::clone(&store)).await.unwrap();
            // Room was made, or is being made: it is not full for ever.
            let fat: Port<u64, u64> = system.port("desk/fat").unwrap();
            let taken = async { while fat.call(20_u64).await.is_err() {} };
            tokio::time::timeout(Duration::from_secs(30), taken).await.expect("there is room");
            let listed = system.in_doubt();
            assert_eq!(listed.iter().map(|key| &**key).collect::<Vec<_>>(), ["once"]);
            recovered.in_doubt.len()
        })
    };
    // It is told once, and listed by every process.
    assert_eq!([in_doubt(), in_doubt()], [1, 0]);
}

/// Counts its requests, and remembers as much of the last one as [`Fat`].
#[derive(Clone, Default)]
struct Counter {
    count: Arc<u64>,
    fat: Fat,
}

impl Behavior for Counter {
    type Request = u64;
    type Reply = u64;
}

impl Stateful for Counter {
    async fn step(&mut self, request: &u64, turn: Turn, ctx: &Context) -> Result<Step<u64>, Fault> {
        self.count = Arc::new(*self.count + 1);
        self.fat.step(request, turn, ctx).await?;
        Ok(Step::Reply(*self.count))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        let snapshot = Snapshot::new("counter", 1).with("noise", Arc::clone(&self.fat.0));
        Some(snapshot.with("count", Arc::clone(&self.count)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.fat.0 = snapshot.get("noise")?;
        self.count = snapshot.get("count")?;
        Ok(())
    }
}

async fn counting(store: &Arc<dyn Store>) -> (System, Port<u64, u64>) {
    // By itself it acts on the world, so that nothing is replayed.
    let child = ChildSpec::stateful("counter", Counter::default).durable::<Counter>();
    let child = child.effect(EffectKind::Idempotent);
    let spec = SupervisorSpec::one_for_one("desk").child(child);
    let (system, _) = System::recover(spec, Arc::clone(store)).await.unwrap();
    let port = system.port("desk/counter").unwrap();
    (system, port)
}

#[test]
fn a_rollback_in_a_full_store_makes_room_and_keeps_what_it_returns_to() {
    const QUOTA: u64 = 600_000;
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = FileOptions::new().quota(QUOTA).open(folder.path()).unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let (system, port) = counting(&store).await;
        let path = ChildPath::new("desk/counter");
        let mut tenth = None;
        for n in 1..=60 {
            assert_eq!(port.call(n).await.unwrap().value, n);
            if n == 10 {
                tenth = Some(store.checkpoints(&path).unwrap()[0].checkpoint.id);
            }
        }
        // Somebody else takes all that is left.
        for len in [10_000, 1_000, 100, 1] {
            let more = || Batch::new().append("other", vec![7; len]);
            while store.commit(more(), Durability::Memory).await.is_ok() {}
        }
        let tenth = tenth.unwrap();
        system.rollback(path.clone(), To::Checkpoint(tenth)).await.unwrap();
        let kept = store.checkpoints(&path).unwrap();
        assert!(kept.len() < 40, "{} are kept", kept.len());
        // What it is built on is there, so that more can be stored.
        assert_eq!(port.call(0_u64).await.unwrap().value, 11);
        drop((system, port));
        let (system, port) = counting(&store).await;
        assert_eq!(
            port.call(0_u64).await.unwrap().value,
            12,
            "the next process goes on from there"
        );
        for listed in store.checkpoints(&path).unwrap() {
            assert_eq!(listed.broken, None, "the lineage of {} is lost", listed.checkpoint.id);
        }
        system.stop().await;
    });
}
