//! A program that cannot make or restore what the one before it has kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mainstay::checkpoint::{Batch, Durability};
use mainstay::id::ChildPath;
use mainstay::system::{RollbackError, To};

use super::*;

/// What goes wrong.
#[derive(Default)]
struct Deploy {
    no_constructor: AtomicBool,
    no_snapshot: AtomicBool,
    no_restore: AtomicBool,
    refuses: AtomicBool,
    /// Of this state nobody makes a life, unless it is 0.
    poison: AtomicU64,
}

/// Counts; whether it says what its state looks like.
#[derive(Clone)]
struct Keeper<const SAYS: bool> {
    sum: Arc<u64>,
    deploy: Arc<Deploy>,
}

impl<const SAYS: bool> Behavior for Keeper<SAYS> {
    type Request = u64;
    type Reply = u64;
}

impl<const SAYS: bool> Stateful for Keeper<SAYS> {
    async fn step(&mut self, request: &u64, _: Turn, _: &Context) -> Result<Step<u64>, Fault> {
        self.sum = Arc::new(*self.sum + request);
        Ok(Step::Reply(*self.sum))
    }

    fn schema() -> Option<Schema> {
        SAYS.then(|| Schema::new("keeper", 1).field::<u64>("sum"))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        assert!(!self.deploy.no_snapshot.load(Ordering::SeqCst), "the camera is broken");
        Some(Snapshot::new("keeper", 1).with("sum", Arc::clone(&self.sum)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        assert!(!self.deploy.no_restore.load(Ordering::SeqCst), "the books cannot be read");
        if self.deploy.refuses.load(Ordering::SeqCst) {
            return Err(CheckpointError::MissingField("total".to_owned()));
        }
        self.sum = snapshot.get("sum")?;
        let poison = self.deploy.poison.load(Ordering::SeqCst);
        assert!(*self.sum == 0 || *self.sum != poison, "not this one");
        Ok(())
    }
}

fn keeper<const SAYS: bool>(id: &str, deploy: &Arc<Deploy>) -> ChildSpec {
    let deploy = Arc::clone(deploy);
    ChildSpec::stateful(id, move || {
        assert!(!deploy.no_constructor.load(Ordering::SeqCst), "the plan is lost");
        Keeper::<SAYS> { sum: Arc::default(), deploy: Arc::clone(&deploy) }
    })
    .durable::<Keeper<SAYS>>()
}

async fn keepers<const SAYS: bool>(
    deploy: &Arc<Deploy>,
    store: &Arc<dyn Store>,
    options: RecoverOptions,
) -> Result<(System, Port<u64, u64>), RecoverError> {
    // The second is always well.
    let spec = SupervisorSpec::one_for_one("desk")
        .child(keeper::<SAYS>("keeper", deploy))
        .child(keeper::<SAYS>("other", &Arc::default()));
    let (system, _) = System::recover_with(spec, Arc::clone(store), options).await?;
    let port = system.port("desk/keeper").unwrap();
    Ok((system, port))
}

async fn a_constructor_panics<const SAYS: bool>() {
    let (deploy, store) = (Arc::<Deploy>::default(), store());
    let (system, port) = keepers::<SAYS>(&deploy, &store, RecoverOptions::default()).await.unwrap();
    port.call(1_u64).await.unwrap();
    system.checkpoint("desk").await.unwrap();
    port.call(10_u64).await.unwrap();
    deploy.no_constructor.store(true, Ordering::SeqCst);
    for at in ["desk/keeper", "desk"] {
        let error = system.rollback(at, To::Latest).await.unwrap_err();
        let RollbackError::NoLife(CheckpointError::NoLife { child, what, panic }) = &error else {
            panic!("{at}: {error}")
        };
        assert_eq!((child.as_str(), *what), ("desk/keeper", "constructor"));
        assert!(panic.contains("the plan is lost"), "{panic}");
        assert!(error.to_string().contains("the plan is lost"), "{error}");
    }
    assert_eq!(port.call(100_u64).await.unwrap().value, 111, "nothing was stopped");
    let aside = system.quarantine().checkpoints().unwrap();
    assert!(aside.is_empty(), "no state is at fault: {aside:?}");
    deploy.no_constructor.store(false, Ordering::SeqCst);
    system.rollback("desk", To::Latest).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_constructor_that_panics_for_a_rollback_is_named_and_no_state_set_aside() {
    a_constructor_panics::<true>().await;
    a_constructor_panics::<false>().await;
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_panics_for_a_rollback_is_not_taken_for_a_child_without_a_state() {
    let (deploy, store) = (Arc::<Deploy>::default(), store());
    let (system, port) =
        keepers::<false>(&deploy, &store, RecoverOptions::default()).await.unwrap();
    port.call(1_u64).await.unwrap();
    deploy.no_snapshot.store(true, Ordering::SeqCst);
    let error = system.rollback("desk/keeper", To::Latest).await.unwrap_err();
    let is_named = error.to_string().contains("its snapshot panicked: the camera is broken");
    assert!(is_named && matches!(error, RollbackError::NoLife(_)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_restore_that_panics_for_a_rollback_is_named_and_its_state_set_aside() {
    let (deploy, store) = (Arc::<Deploy>::default(), store());
    let (system, port) = keepers::<true>(&deploy, &store, RecoverOptions::default()).await.unwrap();
    port.call(1_u64).await.unwrap();
    let at = ChildPath::from("desk/keeper");
    let id = store.checkpoints(&at).unwrap()[0].checkpoint.id;
    deploy.no_restore.store(true, Ordering::SeqCst);
    let error = system.rollback("desk/keeper", To::Checkpoint(id)).await.unwrap_err();
    assert!(matches!(error, RollbackError::Refused(_)), "{error}");
    let text = error.to_string();
    assert!(text.contains(&format!("the restore of {id} panicked: the books cannot")), "{text}");
    assert!(!text.contains("corrupt"), "the bytes are sound: {text}");
    let aside = system.quarantine().checkpoints().unwrap();
    assert_eq!(aside.iter().map(|it| it.checkpoint.id).collect::<Vec<_>>(), [id]);
}

/// The state of a child as the program finds it that reads it.
async fn sum(deploy: &Arc<Deploy>, store: &Arc<dyn Store>) -> u64 {
    let options = RecoverOptions::default();
    let (_system, port) = keepers::<true>(deploy, store, options).await.unwrap();
    port.call(0_u64).await.unwrap().value
}

#[test]
fn a_program_that_can_restore_no_state_is_refused_and_the_one_before_it_finds_them_all() {
    for refuses in [false, true] {
        let (well, store) = (Arc::<Deploy>::default(), store());
        runtime().block_on(async {
            let options = RecoverOptions::default();
            let (_system, port) = keepers::<true>(&well, &store, options).await.unwrap();
            for _ in 0..5 {
                port.call(100_u64).await.unwrap();
            }
        });
        let before = store.info().unwrap();
        let bad = Arc::<Deploy>::default();
        bad.no_restore.store(!refuses, Ordering::SeqCst);
        bad.refuses.store(refuses, Ordering::SeqCst);
        for _ in 0..3 {
            runtime().block_on(async {
                let result = keepers::<true>(&bad, &store, RecoverOptions::default()).await;
                let error = result.map(drop).unwrap_err();
                let RecoverError::State { child, .. } = &error else { panic!("{error}") };
                assert_eq!(child.as_str(), "desk/keeper");
                let said = if refuses { "total" } else { "the books cannot be read" };
                assert!(error.to_string().contains(said), "{error}");
            });
        }
        assert_eq!(store.info().unwrap(), before, "nothing was written");
        assert!(store.quarantined().unwrap().is_empty());
        assert_eq!(runtime().block_on(sum(&well, &store)), 500);
        // Told to, it begins anew.
        runtime().block_on(async {
            let mut options = RecoverOptions::default();
            options.give_up_states = true;
            keepers::<true>(&bad, &store, options).await.unwrap();
        });
    }
}

#[test]
fn states_that_were_all_set_aside_are_not_given_up_unasked_and_released_in_one_call() {
    for upkeep in [false, true] {
        let (deploy, store) = (Arc::<Deploy>::default(), store());
        let at = ChildPath::from("desk/keeper");
        runtime().block_on(async {
            let options = RecoverOptions::default();
            let (system, port) = keepers::<true>(&deploy, &store, options).await.unwrap();
            for _ in 0..3 {
                port.call(100_u64).await.unwrap();
            }
            // As a program of before did that could restore none of them.
            for listed in store.checkpoints(&at).unwrap() {
                let batch = Batch::new().mark_bad(listed.checkpoint.id, "restore panicked");
                store.commit(batch, Durability::Sync).await.unwrap();
            }
            let aside = system.quarantine().checkpoints().unwrap();
            assert_eq!(aside.len(), 3);
            if !upkeep {
                assert_eq!(system.quarantine().release_checkpoints(&at).await.unwrap().len(), 3);
                assert!(system.quarantine().checkpoints().unwrap().is_empty());
            }
        });
        if upkeep {
            runtime().block_on(async {
                let result = keepers::<true>(&deploy, &store, RecoverOptions::default()).await;
                let error = result.map(drop).unwrap_err().to_string();
                assert!(error.contains("was set aside") && error.contains("release it"), "{error}");
                let upkeep = mainstay::system::Upkeep::of(Arc::clone(&store)).unwrap();
                assert_eq!(upkeep.release_checkpoints(&"desk/other".into()).await.unwrap(), []);
                assert_eq!(upkeep.release_checkpoints(&at).await.unwrap().len(), 3);
            });
        }
        assert_eq!(runtime().block_on(sum(&deploy, &store)), 300);
    }
}

#[tokio::test(start_paused = true)]
async fn a_rollback_sets_a_state_aside_where_another_can_be_restored_and_none_where_none_can() {
    let (deploy, store) = (Arc::<Deploy>::default(), store());
    let (system, port) = keepers::<true>(&deploy, &store, RecoverOptions::default()).await.unwrap();
    for _ in 0..5 {
        port.call(1_u64).await.unwrap();
    }
    deploy.no_restore.store(true, Ordering::SeqCst);
    let error = system.rollback("desk/keeper", To::Latest).await.unwrap_err();
    let RollbackError::NoneValid { refused, .. } = &error else { panic!("{error}") };
    let panicked = |it: &CheckpointError| matches!(it, CheckpointError::RestorePanicked { .. });
    assert!(refused.len() == 5 && refused.iter().all(|it| panicked(&it.why)), "{error}");
    assert!(system.quarantine().checkpoints().unwrap().is_empty(), "it is the program");
    deploy.no_restore.store(false, Ordering::SeqCst);
    deploy.poison.store(5, Ordering::SeqCst);
    let report = system.rollback("desk/keeper", To::Latest).await.unwrap();
    let aside = system.quarantine().checkpoints().unwrap();
    let [bad] = &aside[..] else { panic!("{aside:?}") };
    assert_eq!(bad.checkpoint.id, report.refused[0].checkpoint);
    assert!(bad.bad.as_deref().unwrap().contains("not this one"));
}
