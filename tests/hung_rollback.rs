//! A scope returns within its limit also when its children hang: nobody is waited for longer than half of
//! what is left, and where no order matters all are waited for at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mainstay::behavior::{Behavior, Context, Stateful, Step, Turn};
use mainstay::checkpoint::{MemoryStore, Scope, Snapshot, Store};
use mainstay::error::CheckpointError;
use mainstay::fault::{EffectKind, Fault};
use mainstay::port::Port;
use mainstay::spec::{ChildSpec, Shutdown, SupervisorSpec};
use mainstay::system::{System, To};
use tokio::sync::Notify;

const SECOND: Duration = Duration::from_secs(1);

/// How many hang.
#[derive(Default)]
struct Hung {
    count: AtomicUsize,
    more: Notify,
}

impl Hung {
    async fn are(&self, count: usize) {
        loop {
            let mut more = std::pin::pin!(self.more.notified());
            more.as_mut().enable();
            if self.count.load(Ordering::SeqCst) == count {
                return;
            }
            more.await;
        }
    }
}

/// Counts; `false` hangs, and later, as another life, counts.
#[derive(Clone)]
struct Agent {
    count: Arc<u32>,
    lives: Arc<AtomicUsize>,
    hung: Arc<Hung>,
}

impl Behavior for Agent {
    type Request = bool;
    type Reply = u32;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
}

impl Stateful for Agent {
    async fn step(&mut self, well: &bool, _: Turn, _: &Context) -> Result<Step<u32>, Fault> {
        if !well && self.lives.fetch_add(1, Ordering::SeqCst) == 0 {
            self.hung.count.fetch_add(1, Ordering::SeqCst);
            self.hung.more.notify_waiters();
            std::future::pending::<()>().await;
        }
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

fn agent(id: impl Into<String>, hung: &Arc<Hung>) -> ChildSpec {
    let (lives, hung) = (Arc::<AtomicUsize>::default(), Arc::clone(hung));
    let made =
        move || Agent { count: Arc::default(), lives: Arc::clone(&lives), hung: Arc::clone(&hung) };
    ChildSpec::stateful(id.into(), made)
        .durable::<Agent>()
        .attempt_timeout(86_400 * SECOND)
        .shutdown(Shutdown::Timeout(5 * SECOND))
}

/// So many agents below.
fn with(spec: SupervisorSpec, agents: usize, hung: &Arc<Hung>) -> SupervisorSpec {
    (0..agents).fold(spec, |spec, number| spec.child(agent(format!("a{number}"), hung)))
}

/// Every agent of these hangs when `at` is returned to the line before; how long that took.
async fn returns(top: SupervisorSpec, at: &str, paths: Vec<String>, hung: &Hung) -> Duration {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (system, _) = System::recover(top, store).await.unwrap();
    let ports: Vec<Port<bool, u32>> =
        paths.iter().map(|path| system.port(path.as_str()).unwrap()).collect();
    for port in &ports {
        assert_eq!(port.call(true).await.unwrap().value, 1);
    }
    system.checkpoint(at).await.unwrap();
    let mut calls = Vec::new();
    for port in ports {
        calls.push(tokio::spawn(async move { port.call(false).await.unwrap().value }));
    }
    hung.are(paths.len()).await;
    let report = system.rollback(at, To::Latest).await.unwrap();
    assert_eq!(report.children.len(), paths.len());
    for call in calls {
        assert_eq!(call.await.unwrap(), 2, "it was handled again, from the line");
    }
    assert!(system.fates().is_balanced(), "{:?}", system.fates());
    system.stop().await;
    report.elapsed
}

#[tokio::test(start_paused = true)]
async fn a_thousand_agents_that_hang_cost_a_transaction_the_grace_of_one() {
    let hung = Arc::<Hung>::default();
    let flow = with(SupervisorSpec::one_for_one("flow").scope(Scope::Flow), 500, &hung);
    let deal = SupervisorSpec::one_for_one("deal").scope(Scope::Transaction);
    let top =
        SupervisorSpec::one_for_one("top").supervisor(with(deal, 500, &hung).supervisor(flow));
    let mut paths: Vec<_> = (0..500).map(|number| format!("top/deal/a{number}")).collect();
    paths.extend((0..500).map(|number| format!("top/deal/flow/a{number}")));
    assert_eq!(returns(top, "top/deal", paths, &hung).await, 5 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn those_that_stop_in_order_have_half_of_the_limit_together() {
    for (spec, took) in [
        (SupervisorSpec::rest_for_one("deal"), 15 * SECOND),
        (SupervisorSpec::one_for_all("deal"), 15 * SECOND),
        (SupervisorSpec::one_for_one("deal"), 5 * SECOND),
    ] {
        let hung = Arc::<Hung>::default();
        let deal = with(spec.scope(Scope::Transaction), 10, &hung);
        let top = SupervisorSpec::one_for_one("top").supervisor(deal);
        let paths = (0..10).map(|number| format!("top/deal/a{number}")).collect();
        assert_eq!(returns(top, "top/deal", paths, &hung).await, took);
    }
}

#[tokio::test(start_paused = true)]
async fn one_agent_that_hangs_returns_a_step_within_the_limit_of_a_step() {
    let hung = Arc::<Hung>::default();
    let top = with(SupervisorSpec::one_for_one("top").scope(Scope::Step), 1, &hung);
    let took = returns(top, "top", vec!["top/a0".to_owned()], &hung).await;
    assert_eq!(took, Duration::from_millis(2500));
}
