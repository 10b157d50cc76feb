//! A rollback by hand that comes at a bad moment: while the supervisor restarts its children, or right before
//! the process ends.

use std::sync::Arc;
use std::time::Duration;

use mainstay::behavior::{Behavior, Context, StartContext, Stateless};
use mainstay::checkpoint::{MemoryStore, Scope, Store};
use mainstay::fault::Fault;
use mainstay::id::{CheckpointId, ChildPath};
use mainstay::port::CallOptions;
use mainstay::spec::{ChildSpec, SupervisorSpec};
use mainstay::system::{RollbackError, System, To};
use tokio::sync::Semaphore;

use super::dying::Dying;
use super::{Ask, SECOND, Switch, agent, spec};

/// A sibling whose starts each need a permit.
struct Slow(Arc<Semaphore>);

impl Behavior for Slow {
    type Request = ();
    type Reply = ();
}

impl Stateless for Slow {
    async fn start(&mut self, _: &StartContext) -> Result<(), Fault> {
        self.0.acquire().await.unwrap().forget();
        Ok(())
    }

    async fn serve(&self, (): &(), _: &Context) -> Result<(), Fault> {
        Ok(())
    }
}

/// An agent behind a sibling that takes it along when it is killed: its sum is 3, and was 1.
async fn restarting() -> (System, Arc<Semaphore>, CheckpointId) {
    let starts = Arc::new(Semaphore::new(1));
    let slow = {
        let starts = Arc::clone(&starts);
        move || Slow(Arc::clone(&starts))
    };
    let flow = SupervisorSpec::one_for_all("flow")
        .scope(Scope::Flow)
        .intensity(3, SECOND)
        .child(ChildSpec::stateless("slow", slow).start_timeout(120 * SECOND))
        .child(agent("a0", &Arc::<Switch>::default()));
    let tree = SupervisorSpec::one_for_one("top").scope(Scope::System).supervisor(flow);
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (system, _) = System::recover(tree, Arc::clone(&store)).await.unwrap();
    assert_eq!(ask(&system, Ask::Add(1)).await, 1);
    let first = store.checkpoints(&ChildPath::new("top/flow/a0")).unwrap()[0].checkpoint.id;
    assert_eq!(ask(&system, Ask::Add(2)).await, 3);
    let mut events = system.events();
    system.kill("top/flow/slow").unwrap();
    while events.next().await.unwrap().event.path() != Some(&ChildPath::new("top/flow/a0")) {}
    (system, starts, first)
}

async fn ask(system: &System, ask: Ask) -> u64 {
    system.port::<Ask, u64>("top/flow/a0").unwrap().call(ask).await.unwrap().value
}

#[tokio::test(start_paused = true)]
async fn a_rollback_waits_for_the_restart_of_the_siblings() {
    let (system, starts, first) = restarting().await;
    let (back, ()) = tokio::join!(system.rollback("top/flow/a0", To::Checkpoint(first)), async {
        tokio::time::timeout(2 * SECOND, std::future::pending::<()>()).await.unwrap_err();
        starts.add_permits(1);
    });
    let report = back.unwrap();
    assert_eq!(report.children, [(ChildPath::new("top/flow/a0"), Some(first))]);
    assert!(report.elapsed >= 2 * SECOND, "{:?}", report.elapsed);
    assert_eq!(ask(&system, Ask::Add(0)).await, 1);
    assert!(system.fates().is_balanced());
}

#[tokio::test(start_paused = true)]
async fn a_rollback_that_cannot_be_done_has_changed_nothing() {
    let (system, starts, first) = restarting().await;
    let late = system.rollback("top/flow/a0", To::Checkpoint(first)).await.unwrap_err();
    let RollbackError::TooLate { phase, limit, .. } = &late else { panic!("{late}") };
    assert_eq!(
        (*phase, *limit),
        ("waiting for its supervisor, which restarts its children", Duration::from_secs(10))
    );
    starts.add_permits(1);
    assert_eq!(ask(&system, Ask::Add(0)).await, 3, "it goes on with what it was");
    // What was not returned to can be returned to.
    starts.add_permits(9);
    system.rollback("top/flow/a0", To::Checkpoint(first)).await.unwrap();
    assert_eq!(ask(&system, Ask::Add(0)).await, 1);
    assert!(system.fates().is_balanced());
}

/// What the next process says and knows after one that ended with the `commits`th commit of a rollback, or once it had
/// the report and `lives_on` for so long: whether the answered request is named as missing, and the sum.
fn after((commits, last): (u32, bool), lives_on: Duration) -> (bool, u64) {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap()
    };
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let tree = || spec(&Arc::<Switch>::default(), 1, Scope::Flow);
    runtime().block_on(async {
        let (system, _) = System::recover(tree(), Arc::clone(&store)).await.unwrap();
        let port = system.port::<Ask, u64>("top/flow/a0").unwrap();
        port.call(Ask::Add(10)).await.unwrap();
        system.checkpoint("top/flow").await.unwrap();
        port.call_with(Ask::Add(1), CallOptions::new().key("k")).await.unwrap();
        system.stop().await;
    });
    runtime().block_on(async {
        // The commits of the start are made before they are counted.
        let dying = Arc::new(Dying::new(&store, u32::MAX, last));
        let (system, recovered) =
            System::recover(tree(), Arc::clone(&dying) as Arc<dyn Store>).await.unwrap();
        assert_eq!(recovered.missing, []);
        dying.dies_after(commits);
        let back = system.rollback("top/flow", To::Latest);
        let _ = tokio::time::timeout(100 * SECOND, back).await;
        let lives = std::future::pending::<()>();
        tokio::time::timeout(lives_on, lives).await.unwrap_err();
    });
    runtime().block_on(async {
        let told = |all: Vec<(ChildPath, Arc<str>)>| {
            assert!(
                all.iter().all(|(child, key)| child.as_str() == "top/flow/a0" && &**key == "k")
            );
            !all.is_empty()
        };
        let (system, recovered) = System::recover(tree(), Arc::clone(&store)).await.unwrap();
        let missing = told(recovered.missing);
        // It ends before anybody can have read that.
        drop(system);
        let (system, recovered) = System::recover(tree(), Arc::clone(&store)).await.unwrap();
        assert_eq!(told(recovered.missing), missing);
        assert_eq!(told(system.lost_work()), missing);
        let port = system.port::<Ask, u64>("top/flow/a0").unwrap();
        let sum = port.call(Ask::Add(0)).await.unwrap().value;
        system.stop().await;
        let (_, recovered) = System::recover(tree(), store).await.unwrap();
        assert_eq!(recovered.missing, [], "it is told once");
        (missing, sum)
    })
}

#[test]
fn work_that_a_rollback_has_lost_is_named_by_the_next_process_if_this_one_could_not() {
    let all: Vec<_> = (0..6).flat_map(|n| [(n, false), (n, true)]).collect();
    let found = |lives_on| -> Vec<_> { all.iter().map(|at| after(*at, lives_on)).collect() };
    // Before it was written nothing has happened.
    let killed = found(9 * SECOND);
    let first =
        killed.iter().position(|(_, sum)| *sum == 10).expect("it is written at some commit");
    assert!(killed[..first].iter().all(|it| *it == (false, 11)), "{killed:?}");
    assert!(
        first < killed.len() && killed[first..].iter().all(|it| *it == (true, 10)),
        "{killed:?}"
    );
    // From then on somebody says it until somebody has heard it.
    let found = found(11 * SECOND);
    assert_eq!(found[..=first], killed[..=first]);
    let end = found.iter().rposition(|(missing, _)| *missing).unwrap();
    assert!(found[first..=end].iter().all(|it| *it == (true, 10)), "{found:?}");
    assert!(found[end + 1..].iter().all(|it| *it == (false, 10)), "{found:?}");
    assert!(end + 1 < found.len(), "the report was heard in the end: {found:?}");
}
