//! States that are not the newest, or are old: which of them a child goes on with.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::SystemTime;

use mainstay::checkpoint::{Batch, Durability, Scope};
use mainstay::clock::{Clock, TokioClock};
use mainstay::fault::ExitCause;
use mainstay::moment::Moment;
use mainstay::system::{Recovered, SystemOptions, To};

use super::*;

/// People's time is so many seconds ahead.
#[derive(Debug)]
struct Ahead(TokioClock, u64);

impl Clock for Ahead {
    fn now(&self) -> Moment {
        self.0.now()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now() + Duration::from_secs(self.1)
    }

    fn sleep_until(&self, at: Moment) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.0.sleep_until(at)
    }
}

#[derive(Default)]
struct Scene {
    /// A long request is in its last step.
    reached: Notify,
    /// A short request is in its only step.
    adding: Notify,
    /// Slow requests wait there.
    door: Notify,
    /// Long requests fail there.
    fails: AtomicBool,
    /// A state with this sum cannot be restored.
    bad: AtomicU64,
    kind: Option<EffectKind>,
}

/// Asked for it a first step waits at the door and adds 10, and a second one replies.
const SLOW: u64 = 1_000_000;

/// Adds up. Asked for 0 it takes three steps and does not come back from the fourth.
#[derive(Clone)]
struct Adds {
    sum: Arc<u64>,
    steps: Arc<u64>,
    scene: Arc<Scene>,
}

impl Behavior for Adds {
    type Request = u64;
    type Reply = u64;
}

impl Stateful for Adds {
    async fn step(&mut self, more: &u64, turn: Turn, _: &Context) -> Result<Step<u64>, Fault> {
        if *more == SLOW && *self.steps == 0 {
            self.scene.reached.notify_one();
            self.scene.door.notified().await;
            (self.sum, self.steps) = (Arc::new(*self.sum + 10), Arc::new(1));
            return Ok(Step::Continue);
        }
        if *more == SLOW {
            self.steps = Arc::default();
            return Ok(Step::Reply(*self.sum));
        }
        if *more > 0 || matches!(turn, Turn::RolledBack(_)) {
            self.scene.adding.notify_one();
            self.sum = Arc::new(*self.sum + more);
            return Ok(Step::Reply(*self.sum));
        }
        if *self.steps == 3 {
            if self.scene.fails.load(Ordering::SeqCst) {
                return Err(Fault::business("no"));
            }
            self.scene.reached.notify_one();
            std::future::pending::<()>().await;
        }
        self.steps = Arc::new(*self.steps + 1);
        Ok(Step::Continue)
    }

    fn snapshot(&self) -> Option<Snapshot> {
        let snapshot = Snapshot::new("adds", 1).with("sum", Arc::clone(&self.sum));
        Some(snapshot.with("steps", Arc::clone(&self.steps)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.sum = snapshot.get("sum")?;
        self.steps = snapshot.get("steps")?;
        match *self.sum == self.scene.bad.load(Ordering::SeqCst) {
            true => Err(CheckpointError::MissingField("of this sum".to_owned())),
            false => Ok(()),
        }
    }
}

/// Opens the door when it is stopped.
#[derive(Clone)]
struct Bell(Arc<Scene>);

impl Behavior for Bell {
    type Request = ();
    type Reply = ();
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
}

impl Stateless for Bell {
    async fn serve(&self, (): &(), _: &Context) -> Result<(), Fault> {
        Ok(())
    }

    async fn stop(&self, _: &ExitCause) {
        self.0.door.notify_one();
    }
}

impl Scene {
    async fn up(
        self: &Arc<Self>,
        store: &Arc<dyn Store>,
        ahead: u64,
        max_age: Option<Duration>,
    ) -> (System, Port<u64, u64>, Recovered) {
        let adds = Adds { sum: Arc::default(), steps: Arc::default(), scene: Arc::clone(self) };
        let child = ChildSpec::stateful("adds", move || adds.clone())
            .durable::<Adds>()
            .checkpoint(Interval::Steps(1))
            .attempt_timeout(Duration::from_secs(100_000))
            .effect(self.kind.unwrap_or(EffectKind::Pure));
        let bell = Bell(Arc::clone(self));
        let spec = SupervisorSpec::one_for_one("desk")
            .scope(Scope::Transaction)
            .child(child)
            .child(ChildSpec::stateless("bell", move || bell.clone()));
        let mut options = RecoverOptions::default();
        options.system = SystemOptions::default().clock(Arc::new(Ahead(TokioClock::new(), ahead)));
        options.max_age = max_age;
        let (system, recovered) =
            System::recover_with(spec, Arc::clone(store), options).await.unwrap();
        let port = system.port("desk/adds").unwrap();
        (system, port, recovered)
    }
}

const HOUR: Duration = Duration::from_secs(3600);

/// A request that began with an old state, and the process ends in its middle; whether its base is set aside.
async fn in_the_middle(scene: &Arc<Scene>, store: &Arc<dyn Store>, aside: bool) {
    let (system, port, _) = scene.up(store, 6000, None).await;
    port.submit(0_u64, CallOptions::new().key("long")).await.unwrap();
    scene.reached.notified().await;
    if aside {
        let all = store.checkpoints(&"desk/adds".into()).unwrap();
        let base = all.iter().find(|listed| listed.checkpoint.envelope.is_none()).unwrap();
        let batch = Batch::new().mark_bad(base.checkpoint.id, "a test");
        store.commit(batch, Durability::Sync).await.unwrap();
    }
    std::mem::forget(system);
}

async fn answered(scene: &Arc<Scene>, store: &Arc<dyn Store>, adds: &[u64]) {
    let (system, port, _) = scene.up(store, 0, None).await;
    for more in adds {
        port.call(*more).await.unwrap();
    }
    system.stop().await;
}

#[test]
fn what_a_request_began_with_is_of_use_as_long_as_the_state_in_its_middle_is() {
    let (scene, store) = (Arc::<Scene>::default(), store());
    runtime().block_on(answered(&scene, &store, &[400, 100]));
    runtime().block_on(in_the_middle(&scene, &store, false));
    scene.fails.store(true, Ordering::SeqCst);
    runtime().block_on(async {
        let (system, port, recovered) = scene.up(&store, 6060, Some(HOUR)).await;
        assert_eq!(recovered.refused, []);
        assert_eq!(port.call(1_u64).await.unwrap().value, 501);
        let fate = system.journaled("long");
        assert_eq!(fate, Some(Journaled::Fated(Fate::Done, Some("500".to_owned()))));
    });
}

#[test]
fn a_request_whose_beginning_is_gone_goes_back_to_no_other_and_leaves_nothing_half_done() {
    let (scene, store) = (Arc::<Scene>::default(), store());
    runtime().block_on(answered(&scene, &store, &[400, 100]));
    runtime().block_on(in_the_middle(&scene, &store, true));
    scene.fails.store(true, Ordering::SeqCst);
    runtime().block_on(async {
        let (system, port, recovered) = scene.up(&store, 6060, None).await;
        assert_eq!(recovered.refused.len(), 1, "{:?}", recovered.refused);
        // The one before that, and what was answered since.
        assert_eq!(port.call(1_u64).await.unwrap().value, 501);
        assert_eq!(system.journaled("long"), Some(Journaled::Fated(Fate::Failed, None)));
        assert_eq!(system.lost_work(), []);
    });
}

#[test]
fn a_state_that_cannot_be_restored_costs_one_request_and_not_all_however_old_it_is() {
    for ahead in [0, 4000] {
        let folder = tempfile::TempDir::new().unwrap();
        let scene = Arc::new(Scene { kind: Some(EffectKind::Idempotent), ..Scene::default() });
        let open = || Arc::new(FileStore::open(folder.path()).unwrap()) as Arc<dyn Store>;
        runtime().block_on(answered(&scene, &open(), &[101, 102, 103, 104, 105]));
        scene.bad.store(515, Ordering::SeqCst);
        runtime().block_on(async {
            let (system, port, _) = scene.up(&open(), ahead, None).await;
            assert_eq!(port.call(1_u64).await.unwrap().value, 411, "{ahead} s later");
            assert_eq!(system.lost_work().len(), 1);
            system.stop().await;
        });
    }
}

/// Of two processes, or of one.
#[test]
fn a_future_that_a_rollback_has_given_up_is_not_gone_on_with() {
    for again in [false, true] {
        let store = store();
        let scene = Arc::new(Scene { kind: Some(EffectKind::Idempotent), ..Scene::default() });
        runtime().block_on(async {
            let (system, port, _) = scene.up(&store, 0, None).await;
            for more in [1_u64, 10, 100, 1000] {
                port.call(more).await.unwrap();
            }
            let all = store.checkpoints(&"desk/adds".into()).unwrap();
            let to = To::Checkpoint(all[2].checkpoint.id);
            let report = system.rollback("desk/adds", to).await.unwrap();
            assert_eq!(report.missing.len(), 2);
            scene.bad.store(11, Ordering::SeqCst);
            if !again {
                system.kill("desk/adds").unwrap();
                assert_eq!(port.call(1_u64).await.unwrap().value, 2, "in one process");
            }
            system.stop().await;
        });
        if again {
            runtime().block_on(async {
                let (_system, port, _) = scene.up(&store, 0, None).await;
                assert_eq!(port.call(1_u64).await.unwrap().value, 2, "in the next process");
            });
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_beginning_that_cannot_be_restored_is_set_aside_and_the_one_before_it_gone_back_to() {
    for adds in [[400_u64, 100].as_slice(), &[500]] {
        let (scene, store) = (Arc::<Scene>::default(), store());
        let (system, port, _) = scene.up(&store, 0, None).await;
        for more in adds {
            port.call(*more).await.unwrap();
        }
        scene.fails.store(true, Ordering::SeqCst);
        scene.bad.store(500, Ordering::SeqCst);
        // What was answered since is replayed before it is told.
        assert_eq!(port.call(0_u64).await.unwrap().value, 500, "{adds:?}");
        scene.bad.store(0, Ordering::SeqCst);
        assert_eq!(port.call(1_u64).await.unwrap().value, 501, "{adds:?}");
        assert_eq!(system.lost_work(), []);
        let aside = store.quarantined().unwrap();
        assert_eq!(aside.len(), 1, "{aside:?}");
        assert_eq!(aside[0].checkpoint.envelope, None, "it is the one between two requests");
        system.stop().await;
    }
}

/// A step that is under way while the lives that follow are made stores its state after that was looked through.
#[tokio::test(start_paused = true)]
async fn what_a_step_stores_while_its_scope_returns_is_of_the_future_that_is_given_up() {
    let (scene, store) = (Arc::<Scene>::default(), store());
    let (system, port, _) = scene.up(&store, 0, None).await;
    port.call(1_u64).await.unwrap();
    system.checkpoint("desk").await.unwrap();
    port.submit(SLOW, CallOptions::new().key("k")).await.unwrap();
    scene.reached.notified().await;
    system.rollback("desk", To::Latest).await.unwrap();
    let all = store.checkpoints(&"desk/adds".into()).unwrap();
    let future = all.iter().find(|listed| listed.checkpoint.envelope.is_some());
    let future = future.expect("the step was under way").checkpoint.id;
    // The one before the line is left.
    let report = system.rollback("desk/adds", To::Latest).await.unwrap();
    assert_eq!(report.children.len(), 1);
    assert_ne!(report.children[0].1, Some(future), "{report:?}");
    scene.door.notify_one();
    assert_eq!(port.call(1_u64).await.unwrap().value, 12);
    system.stop().await;
}

/// Its answer is in the store, and on its way: whoever goes back does it again, and not upon its own work.
#[tokio::test(start_paused = true)]
async fn a_request_is_not_done_again_on_a_state_that_has_its_work() {
    for killed in [false, true] {
        let (scene, inner) = (Arc::<Scene>::default(), store());
        let dying = Arc::new(Dying::new(&inner, u32::MAX, true));
        let dead: Arc<dyn Store> = Arc::clone(&dying) as Arc<dyn Store>;
        let (system, port, _) = scene.up(&dead, 0, None).await;
        port.call(1_u64).await.unwrap();
        scene.adding.notified().await;
        // It is accepted; its answer is written, and nobody hears of that.
        dying.left.store(1, Ordering::SeqCst);
        port.submit(5_u64, CallOptions::new().key("k")).await.unwrap();
        scene.adding.notified().await;
        assert_eq!(inner.checkpoints(&"desk/adds".into()).unwrap().len(), 2);
        dying.left.store(u32::MAX, Ordering::SeqCst);
        if killed {
            system.kill("desk/adds").unwrap();
        }
        system.rollback("desk/adds", To::Latest).await.unwrap();
        assert_eq!(port.call(1_u64).await.unwrap().value, 7, "killed: {killed}");
        let fate = Some(Journaled::Fated(Fate::Done, Some("6".to_owned())));
        assert_eq!(system.journaled("k"), fate, "killed: {killed}");
        assert_eq!(system.lost_work(), []);
        system.stop().await;
        let (system, port, _) = scene.up(&inner, 0, None).await;
        assert_eq!(port.call(1_u64).await.unwrap().value, 8, "killed: {killed}");
        system.stop().await;
    }
}
