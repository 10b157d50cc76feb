//! What an earlier process owes is undone side by side: a tool that does not answer holds up no other one.

use super::late::{Run, TWICE};
use super::*;

/// One transaction for each, with tools of its own.
fn tree(runs: &[Run; 2]) -> SupervisorSpec {
    let mut root = SupervisorSpec::one_for_one("root");
    for (at, run) in runs.iter().enumerate() {
        let mover = run.mover(true).durable::<late::Mover>();
        let top = run.top().scope(Scope::Transaction).child(mover);
        root = root.supervisor(SupervisorSpec::one_for_one(format!("deal{at}")).supervisor(top));
    }
    root
}

#[test]
fn a_tool_that_does_not_answer_holds_up_no_other_undo_of_the_process_before() {
    let runs = [Run::new(), Run::new()];
    let store = Arc::clone(&runs[0].store);
    runtime().block_on(async {
        let (system, _) = System::recover(tree(&runs), Arc::clone(&store)).await.unwrap();
        for (at, run) in runs.iter().enumerate() {
            run.moves.is_slow.store(true, Ordering::SeqCst);
            let mover = system.port::<u32, u32>(format!("root/deal{at}/top/mover")).unwrap();
            let options = CallOptions::new().key(format!("k{at}")).deadline(Duration::from_secs(2));
            let late = mover.call_with(TWICE, options).await;
            assert!(matches!(late, Err(CallError::Expired { .. })), "{late:?}");
        }
        assert_eq!(system.effects().counts().compensating, 2);
    });
    let [first, second] = &runs;
    second.moves.is_slow.store(false, Ordering::SeqCst);
    runtime().block_on(async {
        let (system, _) = System::recover(tree(&runs), Arc::clone(&store)).await.unwrap();
        let mut events = system.events();
        // Before the one that does not answer is given up.
        let both = async {
            while system.effects().counts().compensated < 2 {
                drop(events.next().await);
            }
        };
        let both = tokio::time::timeout(Duration::from_secs(10), both).await;
        assert!(both.is_ok(), "{:?}", second.moves.log.lock());
        let undone = |run: &Run| -> Vec<String> {
            let log = run.moves.log.lock();
            log.iter().filter(|what| what.starts_with("undo")).cloned().collect()
        };
        assert_eq!(undone(second), ["undo more", "undo 3000"]);
        assert!(undone(first).is_empty());
    });
}
