//! Panics, kills, hangs and stops at random, while 64 callers ask and some of them leave.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mainstay::error::CallError;
use mainstay::fault::Class;
use mainstay::policy::Policy;
use mainstay::port::{CallOptions, Port};
use mainstay::spec::{ChildSpec, SupervisorSpec};
use mainstay::system::{System, SystemOptions};

#[path = "attack_support/support.rs"]
mod support;

use support::{Act, Chance, Clerk, Hand, Log, audit, ms, script, secs};

const CHILDREN: [&str; 4] = ["clerk-a", "hand-a", "clerk-b", "hand-b"];

/// How rough it gets.
#[derive(Clone, Copy)]
struct Storm {
    seed: u64,
    callers: u64,
    calls: u64,
    /// Whether time is virtual: then everything is exact.
    exact: bool,
}

fn tree(
    strategy: fn(&'static str) -> SupervisorSpec,
    chance: &Arc<Chance>,
    log: &Arc<Log>,
) -> SupervisorSpec {
    let policy = Policy::default().with_attempt_timeout(ms(400)).with_hang_grace(ms(100));
    let chance = Arc::clone(chance);
    let plan = script(move |_, _| match chance.below(1000) {
        0..10 => Act::Panic,
        10..15 => Act::Hang,
        15..35 => Act::Fail(Class::Network),
        35..45 => Act::Fail(Class::InputValidation),
        45..400 => Act::ReplyAfter(1 + chance.below(8)),
        _ => Act::Reply,
    });
    let mut spec = strategy("top").intensity(1_000_000, secs(1)).no_child_limit().policy(policy);
    for id in CHILDREN {
        let (script, log) = (Arc::clone(&plan), Arc::clone(log));
        spec = spec.child(if id.starts_with("hand") {
            let hand = Hand { script, log };
            ChildSpec::stateless(id, move || hand.clone()).concurrency(8).shutdown_soon()
        } else {
            let clerk = Clerk { script, log };
            ChildSpec::stateful(id, move || clerk.clone()).shutdown_soon()
        });
    }
    spec
}

trait Soon {
    fn shutdown_soon(self) -> Self;
}

impl Soon for ChildSpec {
    fn shutdown_soon(self) -> Self {
        self.shutdown(mainstay::family::Shutdown::Timeout(ms(20)))
    }
}

#[derive(Default)]
struct Heard {
    answers: AtomicU64,
    left: AtomicU64,
    expired: AtomicU64,
    others: AtomicU64,
    refused: AtomicU64,
}

async fn caller(
    ports: Vec<Port<u64, u64>>,
    chance: Arc<Chance>,
    first: u64,
    storm: Storm,
    heard: Arc<Heard>,
) {
    for n in 0..storm.calls {
        let id = first + n;
        let port = &ports[chance.below(ports.len() as u64) as usize];
        let deadline = ms(500 + 250 * chance.below(12));
        let began = tokio::time::Instant::now();
        let call = port.call_with(id, CallOptions::new().deadline(deadline));
        let patience = if chance.mille(30) { ms(chance.below(20)) } else { secs(3600) };
        let outcome = tokio::time::timeout(patience, call).await;
        let waited = began.elapsed();
        if storm.exact {
            assert!(waited <= deadline, "waited {waited:?} of {deadline:?}");
        }
        let counter = match outcome {
            Err(_) => &heard.left,
            Ok(Ok(answer)) => {
                assert_eq!(answer.value, id);
                &heard.answers
            }
            Ok(Err(CallError::Expired { waited: said, .. })) => {
                if storm.exact {
                    assert_eq!((waited, said), (deadline, deadline));
                }
                assert!(said >= deadline);
                &heard.expired
            }
            Ok(Err(
                CallError::Full { message: back, .. } | CallError::Refused { message: back, .. },
            )) => {
                assert_eq!(back, id);
                &heard.refused
            }
            Ok(Err(_)) => &heard.others,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

async fn storm(strategy: fn(&'static str) -> SupervisorSpec, storm: Storm) {
    let chance = Chance::new(storm.seed);
    let log = Arc::new(Log::default());
    let options = SystemOptions::new().event_capacity(1 << 16);
    let system = System::start_with(tree(strategy, &chance, &log), options).await.unwrap();
    let (killer, top) = (system.clone(), system.supervisor("top").unwrap());
    let luck = Arc::clone(&chance);
    let auditor = audit(&system, move |_| {
        let child = CHILDREN[luck.below(4) as usize];
        if luck.mille(15) {
            killer.kill(format!("top/{child}")).unwrap();
        } else if luck.mille(4) {
            let top = top.clone();
            tokio::spawn(async move {
                let _ = top.terminate_child(child).await;
                let _ = top.restart_child(child).await;
            });
        }
    });
    let ports: Vec<Port<u64, u64>> =
        CHILDREN.iter().map(|id| system.port(format!("top/{id}")).unwrap()).collect();
    let heard = Arc::new(Heard::default());
    let callers: Vec<_> = (0..storm.callers)
        .map(|n| {
            let (ports, chance, heard) = (ports.clone(), Arc::clone(&chance), Arc::clone(&heard));
            tokio::spawn(caller(ports, chance, n * storm.calls, storm, heard))
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    // Those who left are not waited for by their callers; the tree ends with nothing open.
    system.stop().await;
    let audit = auditor.await.unwrap();
    let fates = system.fates();
    let stats = system.stats();
    assert_eq!(audit.unbalanced, 0, "of {} looks", audit.events);
    assert!(audit.events > 1000);
    assert!(fates.is_balanced(), "{fates:?}");
    assert_eq!(fates.open, 0, "{fates:?}");
    let asked = storm.callers * storm.calls;
    let [answers, left, expired, others, refused] =
        [&heard.answers, &heard.left, &heard.expired, &heard.others, &heard.refused]
            .map(|count| count.load(Ordering::Relaxed));
    println!("{fates:?} heard {answers} left {left} expired {expired} others {others}");
    assert_eq!(answers + left + expired + others + refused, asked);
    assert!(fates.accepted <= asked && fates.accepted + refused + left >= asked);
    assert!(fates.done >= answers);
    assert!(fates.expired >= expired);
    assert!(answers > asked / 2, "{answers} of {asked}");
    assert!(stats.crashes > 5, "{}", stats.crashes);
    // A restart runs nothing again that was complete; between threads, a kill may come between the
    // last word of the work and its record, and then the result is one of a lease that is over.
    let again = u64::from(log.again());
    assert!(again <= if storm.exact { 0 } else { stats.stale }, "{again} runs of complete work");
    for mut runs in log.all() {
        if !storm.exact {
            // Between threads, one that was killed before it began may begin after its successor.
            runs.begun.sort_by_key(|(_, delivery)| *delivery);
        }
        assert!(runs.begun.len() <= 5, "{:?}", runs.begun);
        assert!(runs.begun.windows(2).all(|pair| pair[0].1 < pair[1].1), "{:?}", runs.begun);
        assert!(runs.begun.windows(2).all(|pair| pair[0].0 <= pair[1].0), "{:?}", runs.begun);
    }
}

async fn exact(strategy: fn(&'static str) -> SupervisorSpec) {
    for seed in [1, 7, 1042] {
        storm(strategy, Storm { seed, callers: 64, calls: 40, exact: true }).await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_request_has_one_fate_by_its_deadline_under_one_for_one() {
    exact(SupervisorSpec::one_for_one).await;
}

#[tokio::test(start_paused = true)]
async fn every_request_has_one_fate_by_its_deadline_under_one_for_all() {
    exact(SupervisorSpec::one_for_all).await;
}

#[tokio::test(start_paused = true)]
async fn every_request_has_one_fate_by_its_deadline_under_rest_for_one() {
    exact(SupervisorSpec::rest_for_one).await;
}

async fn threads(strategy: fn(&'static str) -> SupervisorSpec) {
    let run = storm(strategy, Storm { seed: 3, callers: 64, calls: 20, exact: false });
    // Nothing here takes seconds; a deadlock would take for ever.
    tokio::time::timeout(Duration::from_secs(120), run).await.expect("no thread waits for ever");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_thread_waits_for_ever_under_one_for_one() {
    threads(SupervisorSpec::one_for_one).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_thread_waits_for_ever_under_one_for_all() {
    threads(SupervisorSpec::one_for_all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_thread_waits_for_ever_under_rest_for_one() {
    threads(SupervisorSpec::rest_for_one).await;
}
