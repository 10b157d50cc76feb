//! A store has one living system at a time, also within a process.

use mainstay::error::StoreError;
use mainstay::fault::ExitKind;

use super::*;

fn store_error(error: RecoverError) -> StoreError {
    let RecoverError::Store(error) = error else { panic!("{error}") };
    error
}

#[test]
fn a_second_system_on_the_store_of_one_that_lives_is_refused_and_taken_once_that_has_stopped() {
    let (store, world) = (store(), Arc::new(World::default()));
    let tree = || spec(&world, EffectKind::Idempotent);
    let first = runtime();
    first.block_on(async {
        let (system, _, counter) = recover(tree(), &store).await;
        assert_eq!(counter.call(2_u64).await.unwrap().value, 2);
        let before = store.scan("mainstay", 1, usize::MAX).unwrap().len();
        let refused = System::recover(tree(), Arc::clone(&store)).await.unwrap_err();
        assert_eq!(store.scan("mainstay", 1, usize::MAX).unwrap().len(), before);
        let error = store_error(refused);
        let told = error.to_string();
        assert!(told.contains("\"desk\" of this process") && told.contains("stop it"), "{told}");
        let StoreError::InUse { store: name, root, ending, .. } = error else { panic!("{told}") };
        assert_eq!((&*name, root.as_str(), ending), ("memory", "desk", false));
        // The first one works on, also with what is open, which nobody else has been given.
        world.hang.store(1, Ordering::SeqCst);
        counter.submit(1_u64, CallOptions::new().key("open")).await.unwrap();
        world.hung.notified().await;
        let refused = System::recover(tree(), Arc::clone(&store)).await.unwrap_err();
        assert!(matches!(store_error(refused), StoreError::InUse { .. }));
        assert_eq!(*world.acts.lock(), [200, 201, 100]);
        assert_eq!(system.journaled("open"), Some(Journaled::Open));
        system.stop().await;
        assert!(system.fates().is_balanced());
    });
    // Nobody runs the tasks of the first one any more, and its handle is gone without its runtime.
    runtime().block_on(async {
        let (_system, recovered, counter) = recover(tree(), &store).await;
        assert_eq!(recovered.requests, 1);
        assert_eq!(counter.call(1_u64).await.unwrap().value, 4);
    });
    drop(first);
}

#[test]
fn a_store_is_free_again_when_a_system_could_not_take_it_up_or_did_not_start() {
    let (store, world) = (store(), Arc::new(World::default()));
    let tree = || spec(&world, EffectKind::Idempotent);
    runtime().block_on(async {
        let (system, _, counter) = recover(tree(), &store).await;
        assert_eq!(counter.call(2_u64).await.unwrap().value, 2);
        system.stop().await;
        let other = ChildSpec::stateful("other", Counter::new).durable::<Counter>();
        let error = System::recover(tree().child(other), Arc::clone(&store)).await.unwrap_err();
        assert!(matches!(error, RecoverError::Topology { .. }), "{error}");
        let stuck = || ChildSpec::stateless("stuck", || -> Tool { panic!("it has no tool") });
        for _ in 0..2 {
            let started = System::recover(tree().child(stuck()), Arc::clone(&store)).await;
            assert!(matches!(started, Err(RecoverError::Start(_))), "{started:?}");
        }
        let (_system, _, counter) = recover(tree(), &store).await;
        assert_eq!(counter.call(1_u64).await.unwrap().value, 3);
    });
}

#[test]
fn a_store_is_free_again_when_the_runtime_of_its_system_is_gone() {
    let (store, world) = (store(), Arc::new(World::default()));
    let tree = || spec(&world, EffectKind::Idempotent);
    for in_background in [false, true] {
        let own = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        // Its handle stays.
        let (system, _, _) = own.block_on(recover(tree(), &store));
        if in_background {
            own.shutdown_background();
        } else {
            drop(own);
        }
        // Its clock is the real one: tasks that are let go of in the background take a moment for that.
        let next = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        next.block_on(async {
            let (_system, _, counter) = recover(tree(), &store).await;
            counter.call(1_u64).await.unwrap();
        });
        drop((next, system));
    }
}

#[test]
fn a_store_is_free_again_when_the_tree_of_its_system_has_ended_by_itself() {
    let (store, world) = (store(), Arc::new(World::default()));
    let tree = || spec(&world, EffectKind::Idempotent);
    runtime().block_on(async {
        let falls = tree().intensity(0, Duration::from_secs(5)).no_child_limit();
        let (system, _, counter) = recover(falls, &store).await;
        assert_eq!(counter.call(2_u64).await.unwrap().value, 2);
        system.kill("desk/counter").unwrap();
        assert_ne!(system.wait().await.kind(), ExitKind::Stopped);
        let (next, _, counter) = recover(tree(), &store).await;
        // What is left of the first one does not write any more.
        system.stop().await;
        assert_eq!(counter.call(1_u64).await.unwrap().value, 3);
        let refused = System::recover(tree(), Arc::clone(&store)).await.unwrap_err();
        assert!(matches!(store_error(refused), StoreError::InUse { .. }));
        next.stop().await;
    });
}

/// Is at work for as long as nobody ends it.
#[derive(Clone)]
struct Works {
    at_work: Arc<AtomicU32>,
    begun: Arc<Notify>,
}

struct Ends(Arc<AtomicU32>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Behavior for Works {
    type Request = u64;
    type Reply = u64;
}

impl Stateless for Works {
    async fn serve(&self, _: &u64, _: &Context) -> Result<u64, Fault> {
        self.at_work.fetch_add(1, Ordering::SeqCst);
        let _ends = Ends(Arc::clone(&self.at_work));
        self.begun.notify_one();
        std::future::pending().await
    }
}

#[test]
fn who_takes_up_the_store_of_a_system_that_was_just_dropped_or_told_to_stop_waits_for_its_end() {
    for dropped in [true, false] {
        let store = store();
        let works = Works { at_work: Arc::default(), begun: Arc::default() };
        let tree = || {
            let works = works.clone();
            let child = ChildSpec::stateless("works", move || works.clone());
            SupervisorSpec::one_for_one("desk")
                .child(child.effect(EffectKind::Idempotent).durable::<Works>())
        };
        runtime().block_on(async {
            let (system, _) = System::recover(tree(), Arc::clone(&store)).await.unwrap();
            let port = system.port::<u64, u64>("desk/works").unwrap();
            port.submit(1_u64, CallOptions::new().key("one")).await.unwrap();
            works.begun.notified().await;
            let mut stopping = None;
            if dropped {
                drop(system);
            } else {
                stopping = Some(tokio::spawn(async move { system.stop().await }));
                tokio::task::yield_now().await;
            }
            let (next, recovered) = System::recover(tree(), Arc::clone(&store)).await.unwrap();
            assert_eq!(recovered.requests, 1);
            works.begun.notified().await;
            // By the next one only.
            assert_eq!(works.at_work.load(Ordering::SeqCst), 1, "dropped: {dropped}");
            if let Some(stopping) = stopping {
                stopping.await.unwrap();
            }
            next.stop().await;
        });
    }
}

#[test]
fn systems_without_a_store_and_on_stores_of_their_own_live_beside_each_other() {
    let (one, other, world) = (store(), store(), Arc::new(World::default()));
    let tree = || spec(&world, EffectKind::Idempotent);
    let plain =
        || SupervisorSpec::one_for_one("desk").child(ChildSpec::stateful("counter", Counter::new));
    runtime().block_on(async {
        let (_one, _, counter) = recover(tree(), &one).await;
        let (_other, _, another) = recover(tree(), &other).await;
        let tool = Tool(Arc::clone(&world));
        let with_tool = || {
            let tool = tool.clone();
            plain().child(ChildSpec::stateless("tool", move || tool.clone()))
        };
        let first = System::start(with_tool()).await.unwrap();
        let second = System::start(with_tool()).await.unwrap();
        for port in [counter, another]
            .into_iter()
            .chain([&first, &second].map(|it| it.port::<u64, u64>("desk/counter").unwrap()))
        {
            assert_eq!(port.call(1_u64).await.unwrap().value, 1);
        }
    });
}
