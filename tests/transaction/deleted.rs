//! Children of templates that are deleted while they owe it to the world to undo something.

use std::sync::atomic::Ordering;

use mainstay::error::ChildError;
use mainstay::spec::Shutdown;
use mainstay::system::SupervisorRef;

use super::kept::quiet;
use super::late::{Mover, Run, TWICE};
use super::moody::Moody;
use super::*;

impl Run {
    fn movers(&self) -> SupervisorSpec {
        let mover = self.mover(true).shutdown(Shutdown::Brutal);
        let top = self.top().scope(Scope::Transaction);
        top.template("mover", move |(): &()| mover.clone().durable::<Mover>())
    }

    async fn up(&self, store: &Arc<dyn Store>) -> (System, SupervisorRef) {
        let (system, _) = System::recover(self.movers(), Arc::clone(store)).await.unwrap();
        let top = system.supervisor("top").unwrap();
        (system, top)
    }

    /// Has moved 5, and what is then asked is not answered.
    async fn moves_5(&self, system: &System, top: &SupervisorRef) {
        top.start_from("mover", "a", &()).await.unwrap();
        let port = system.port::<u32, u32>("top/a").unwrap();
        port.submit(5_u32, CallOptions::new().key("five")).await.unwrap();
        quiet(system).await;
        assert_eq!(*self.moves.log.lock(), ["move 5"]);
    }

    fn log(&self) -> Vec<String> {
        self.moves.log.lock().clone()
    }
}

#[test]
fn wherever_the_process_ends_what_a_deleted_child_has_done_is_undone() {
    let mut ends = 0;
    for last in [false, true] {
        for limit in 0..100 {
            let run = Run::new();
            let dying = Arc::new(Dying::new(&run.store, u32::MAX, last));
            let deleted = runtime().block_on(async {
                let store: Arc<dyn Store> = Arc::clone(&dying) as Arc<dyn Store>;
                let (system, top) = run.up(&store).await;
                run.moves_5(&system, &top).await;
                dying.dies_after(limit);
                let delete = async {
                    top.terminate_child("a").await.unwrap();
                    top.delete_child("a").await.unwrap();
                };
                let deleted = tokio::time::timeout(Duration::from_secs(60), delete).await.is_ok();
                quiet(&system).await;
                deleted
            });
            runtime().block_on(async {
                let (system, _) = run.up(&run.store).await;
                run.finishes.notify_one();
                quiet(&system).await;
                // An undo may be asked for twice, with one key.
                let (log, case) = (run.log(), format!("{limit} {last}"));
                match system.journaled("five") {
                    Some(Journaled::Fated(Fate::Done, _)) => {
                        assert_eq!(log, ["move 5"], "the process ended before all of it: {case}");
                    }
                    Some(Journaled::Fated(Fate::Stopped, _)) => {
                        assert!(log[1..].iter().any(|it| it == "undo 5"), "{log:?} {case}");
                        let known = system.effects().list();
                        assert!(known.iter().all(|it| it.status == "compensated"), "{known:?}");
                    }
                    other => panic!("{other:?} {case}"),
                }
                assert!(!deleted || system.port::<u32, u32>("top/a").is_err(), "{case}");
            });
            ends += 1;
            if deleted {
                break;
            }
            assert!(limit < 99, "it is never deleted");
        }
    }
    assert!(ends > 8, "only {ends} places to end at");
}

/// Whose acts they are is known to the next process by the tree, so the child is in it until all is undone.
#[test]
fn a_process_that_ends_while_the_acts_of_a_deleted_child_are_undone_leaves_the_rest_to_the_next() {
    let run = Run::new();
    runtime().block_on(async {
        let (system, top) = run.up(&run.store).await;
        top.start_from("mover", "a", &()).await.unwrap();
        let port = system.port::<u32, u32>("top/a").unwrap();
        port.submit(TWICE, CallOptions::new().key("twice")).await.unwrap();
        quiet(&system).await;
        assert_eq!(run.log(), ["move 3000", "move more"]);
        run.moves.is_slow.store(true, Ordering::SeqCst);
        top.terminate_child("a").await.unwrap();
        let deletes = tokio::time::timeout(Duration::from_secs(5), top.delete_child("a"));
        assert!(deletes.await.is_err(), "one of both is being undone");
    });
    run.moves.is_slow.store(false, Ordering::SeqCst);
    runtime().block_on(async {
        let (system, _) = run.up(&run.store).await;
        quiet(&system).await;
        let log = run.log();
        for undo in ["undo more", "undo 3000"] {
            assert!(log.iter().any(|it| it == undo), "{log:?}");
        }
        let known = system.effects().list();
        assert!(known.iter().all(|it| it.status == "compensated"), "{known:?}");
    });
}

#[test]
fn a_child_that_is_deleted_within_a_stop_is_there_again_and_whoever_asked_is_told() {
    let run = Run::new();
    runtime().block_on(async {
        let (system, top) = run.up(&run.store).await;
        run.moves_5(&system, &top).await;
        top.start_from("mover", "b", &()).await.unwrap();
        let port = system.port::<u32, u32>("top/b").unwrap();
        port.submit(6_u32, CallOptions::new().key("six")).await.unwrap();
        quiet(&system).await;
        run.moves.is_slow.store(true, Ordering::SeqCst);
        // The stop waits for this to be undone.
        top.terminate_child("b").await.unwrap();
        let deletes = async {
            quiet(&system).await;
            top.terminate_child("a").await.unwrap();
            top.delete_child("a").await
        };
        let (told, ()) = tokio::join!(deletes, system.stop());
        let Err(ChildError::SupervisorGone(supervisor)) = &told else { panic!("{told:?}") };
        assert_eq!(supervisor.as_str(), "top");
    });
    run.moves.is_slow.store(false, Ordering::SeqCst);
    runtime().block_on(async {
        let (system, _) = run.up(&run.store).await;
        quiet(&system).await;
        assert!(system.port::<u32, u32>("top/a").is_ok());
        let log = run.log();
        for undo in ["undo 5", "undo 6"] {
            assert!(log.iter().any(|it| it == undo), "{log:?}");
        }
    });
}

/// The next process finds the request open, and goes on with it behind what it has done.
#[test]
fn what_was_done_stands_where_the_store_refuses_the_fate_of_its_request() {
    let moody = Moody::new();
    let run = Run::on(Arc::clone(&moody) as Arc<dyn Store>);
    runtime().block_on(async {
        let (system, top) = run.up(&run.store).await;
        run.moves_5(&system, &top).await;
        moody.refuse(1);
        top.terminate_child("a").await.unwrap();
        quiet(&system).await;
        assert!(!moody.refuses());
        assert_eq!(system.journaled("five"), Some(Journaled::Open));
        assert_eq!(run.log(), ["move 5"]);
    });
    runtime().block_on(async {
        let (system, _) = run.up(&run.store).await;
        run.finishes.notify_one();
        quiet(&system).await;
        let done = Journaled::Fated(Fate::Done, Some("5".to_owned()));
        assert_eq!(system.journaled("five"), Some(done));
        assert_eq!(run.log(), ["move 5"]);
    });
}
