//! A transaction is returned by hand, and the process ends at each commit of that.

use std::sync::atomic::AtomicUsize;

use super::*;

/// What the world was told, each with the key under which it was.
#[derive(Default)]
struct World(Mutex<Vec<(bool, String)>>);

/// Writes down once what is paid (`true`) and what is given back.
#[derive(Clone)]
struct Shop(Arc<World>);

impl Behavior for Shop {
    type Request = bool;
    type Reply = ();
    const EFFECT: Option<EffectKind> = Some(EffectKind::Idempotent);
}

impl Stateless for Shop {
    async fn serve(&self, paid: &bool, ctx: &Context) -> Result<(), Fault> {
        let mut world = self.0.0.lock();
        let line = (*paid, ctx.key());
        if !world.contains(&line) {
            world.push(line);
        }
        Ok(())
    }
}

/// Where a purchase waits in the first process.
#[derive(Default)]
struct Gate {
    is_open: AtomicBool,
    reached: Notify,
    opened: Notify,
}

#[derive(Clone)]
struct Keeper(Arc<Gate>);

impl Behavior for Keeper {
    type Request = ();
    type Reply = ();
    const EFFECT: Option<EffectKind> = Some(EffectKind::Read);
}

impl Stateless for Keeper {
    async fn serve(&self, (): &(), _: &Context) -> Result<(), Fault> {
        if !self.0.is_open.load(Ordering::SeqCst) {
            self.0.reached.notify_one();
            self.0.opened.notified().await;
        }
        Ok(())
    }
}

/// Asked for 0 it earns 100; otherwise it pays twice, waits at the gate, and earns 1.
#[derive(Clone)]
struct Buyer {
    stage: Arc<u32>,
    earned: Arc<u32>,
    told: Arc<AtomicUsize>,
}

impl Behavior for Buyer {
    type Request = u32;
    type Reply = u32;

    fn needs() -> Needs {
        Needs::none().needs::<Port<bool, ()>>("shop").needs::<Port<(), ()>>("gate")
    }
}

impl Stateful for Buyer {
    async fn step(&mut self, buys: &u32, turn: Turn, ctx: &Context) -> Result<Step<u32>, Fault> {
        match &turn {
            Turn::Performed(performed) => {
                performed.get::<()>(0)?;
                self.stage = Arc::new(*self.stage + 1);
            }
            Turn::RolledBack(undone) => {
                self.told.fetch_add(undone.undone.len(), Ordering::SeqCst);
            }
            _ => {}
        }
        let call = match *self.stage {
            _ if *buys == 0 => {
                self.earned = Arc::new(*self.earned + 100);
                return Ok(Step::Reply(*self.earned));
            }
            0 | 1 => {
                let shop = ctx.port::<bool, ()>("shop")?;
                Call::from(shop.effect(true).undo(&shop, false))
            }
            2 => ctx.port::<(), ()>("gate")?.ask(()),
            _ => {
                self.stage = Arc::default();
                self.earned = Arc::new(*self.earned + 1);
                return Ok(Step::Reply(*self.earned));
            }
        };
        Ok(Step::Perform(vec![call]))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        let snapshot = Snapshot::new("buyer", 1).with("stage", Arc::clone(&self.stage));
        Some(snapshot.with("earned", Arc::clone(&self.earned)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.stage = snapshot.get("stage")?;
        self.earned = snapshot.get("earned")?;
        Ok(())
    }
}

/// What there is besides the store.
#[derive(Default)]
struct Scene {
    world: Arc<World>,
    gate: Arc<Gate>,
    told: Arc<AtomicUsize>,
}

impl Scene {
    fn tree(&self) -> SupervisorSpec {
        let (shop, keeper) = (Shop(Arc::clone(&self.world)), Keeper(Arc::clone(&self.gate)));
        let told = Arc::clone(&self.told);
        let (stage, earned) = (Arc::default(), Arc::default());
        let buyer = Buyer { stage, earned, told };
        SupervisorSpec::one_for_one("deal")
            .scope(Scope::Transaction)
            .child(ChildSpec::stateless("shop", move || shop.clone()).recorded::<Shop>())
            .child(ChildSpec::stateless("gate", move || keeper.clone()))
            .child(ChildSpec::stateful("buyer", move || buyer.clone()).durable::<Buyer>())
    }
}

/// Ends the process after so many commits of a rollback by hand. Whether it came to its end before that.
async fn returned(scene: &Scene, store: &Arc<dyn Store>, lived: bool, commits: u32) -> bool {
    let dying = Arc::new(Dying::new(store, u32::MAX, false));
    let tree = scene.tree();
    let (system, _) = System::recover(tree, Arc::clone(&dying) as Arc<dyn Store>).await.unwrap();
    let buyer = system.port::<u32, u32>("deal/buyer").unwrap();
    if lived {
        buyer.call(0_u32).await.unwrap();
    }
    system.checkpoint("deal").await.unwrap();
    buyer.call(0_u32).await.unwrap();
    buyer.submit(1_u32, CallOptions::new().key("k")).await.unwrap();
    scene.gate.reached.notified().await;
    dying.left.store(commits, Ordering::SeqCst);
    let back = system.rollback("deal", To::Latest);
    let report = tokio::time::timeout(Duration::from_secs(20), back).await;
    if let Ok(report) = &report {
        let report = report.as_ref().unwrap();
        assert_eq!((report.undone.len(), report.replayed.len(), report.missing.len()), (2, 1, 0));
        // What follows from it: the replay, and the purchase once more.
        let again = scene.gate.reached.notified();
        if tokio::time::timeout(Duration::from_secs(3), again).await.is_ok() {
            return true;
        }
    }
    // Its tasks end with its runtime.
    std::mem::forget(system);
    false
}

#[test]
fn wherever_the_process_ends_in_a_rollback_by_hand_no_answer_is_lost_and_no_act_undone_twice() {
    for lived in [false, true] {
        let mut commits = 0;
        loop {
            let what = format!("after {commits} commits, lived before: {lived}");
            let (scene, store) = (Scene::default(), store());
            let over = runtime().block_on(returned(&scene, &store, lived, commits));
            scene.gate.is_open.store(true, Ordering::SeqCst);
            scene.told.store(0, Ordering::SeqCst);
            // Behind the two requests that are answered: the purchase has got on since it was undone, or was not.
            let newest = store.checkpoints(&"deal/buyer".into()).unwrap();
            let got_on = newest[0].checkpoint.step > if lived { 2 } else { 1 };
            runtime().block_on(async {
                let before = if lived { 200 } else { 100 };
                let (system, recovered) = System::recover(scene.tree(), store).await.unwrap();
                assert_eq!(recovered.missing, [], "{what}");
                assert_eq!(settled(&system, "k").await, Fate::Done, "{what}");
                let fated = Journaled::Fated(Fate::Done, Some((before + 1).to_string()));
                assert_eq!(system.journaled("k"), Some(fated), "{what}");
                let buyer = system.port::<u32, u32>("deal/buyer").unwrap();
                assert_eq!(buyer.call(0_u32).await.unwrap().value, before + 101, "{what}");
                assert_eq!(system.lost_work(), [], "{what}");
                assert_eq!(system.effects().open(), [], "{what}");
                system.stop().await;
            });
            let world = scene.world.0.lock();
            let count = |paid: bool| world.iter().filter(|line| line.0 == paid).count();
            assert_eq!(count(true), count(false) + 2, "{what}: {world:?}");
            // Whoever begins again where its acts are undone knows that, whatever was replayed before.
            let told = scene.told.load(Ordering::SeqCst);
            let knows = told == count(false) || got_on;
            assert!(knows, "{what}: told of {told}: {world:?}");
            if over {
                break;
            }
            commits += 1;
        }
        assert!(commits > 5, "only {commits} commits");
    }
}
