//! P3 and P4: from a failure to serving again, alone and in crowds.
//!
//! P3 is CPU time between two points in the child's own code: the one at which it fails, and the one at
//! which it works again. All of it happens on one thread that never sleeps, so on a machine of its own
//! the wall clock would say the same. A fault is not retried without a wait, since nothing would change,
//! so what is timed is the next request in the mailbox; a panic is, in the next life. What is hung or
//! killed is counted from its deadline and from the kill; the clock behind it has no tick, which a timer
//! of tokio's would add, up to 1 ms.
//!
//! P4 is how many attempts or lives a second of CPU may fail and be followed by the next.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mainstay::clock::Clock;
use mainstay::moment::Moment;
use mainstay::port::Port;
use mainstay::spec::{ChildSpec, SupervisorSpec};
use mainstay::system::{System, SystemOptions};
use ractor::call;
use tokio::runtime::Runtime;

use super::hand::{self, Boom, Kameo, Msg};
use super::meter::{Goal, Options, Side, Unit, alternate, ct, median, report, thread_cpu};
use super::ours::{Ask, Cue, Stopwatch, no_retries, patient};

/// Successes that pay for one retry.
const REFILL: usize = 14;

/// Looks at the time again and again instead of waiting for a tick. The time is that of the watch.
#[derive(Debug)]
struct Restless;

impl Clock for Restless {
    fn now(&self) -> Moment {
        Moment::START + thread_cpu()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn sleep_until(&self, at: Moment) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            while Moment::START + thread_cpu() < at {
                tokio::task::yield_now().await;
            }
        })
    }
}

/// One child that does as it is told, and who watches it.
struct Ours {
    runtime: Runtime,
    system: System,
    port: Port<Ask, u64>,
    watch: Arc<Stopwatch>,
}

impl Ours {
    fn start(timeout: Option<Duration>) -> Self {
        let runtime = ct();
        let watch = Stopwatch::new();
        let mut cue = Cue::new(&watch);
        let mut options = SystemOptions::new();
        if let Some(timeout) = timeout {
            cue.timeout = timeout;
            options = options.clock(Arc::new(Restless));
        }
        let mut child = ChildSpec::stateful("cue", move || cue.clone());
        if let Some(timeout) = timeout {
            child = child.attempt_timeout(timeout).policy(no_retries());
        }
        let spec = patient(SupervisorSpec::one_for_one("top").child(child));
        let system = runtime.block_on(System::start_with(spec, options)).expect("it starts");
        let port = system.port("top/cue").expect("it is there");
        Self { runtime, system, port, watch }
    }

    /// The median of so many failures, each with a request that waits behind it.
    fn next(&self, ask: Ask, times: usize) -> f64 {
        self.runtime.block_on(async {
            for _ in 0..times {
                let (failed, served) = tokio::join!(self.port.call(ask), self.port.call(Ask::Mark));
                failed.expect_err("it fails");
                served.expect("the next succeeds");
            }
        });
        median(&mut self.watch.took())
    }

    /// The median of so many failures, each retried and answered.
    fn fail(&self, ask: Ask, times: usize) -> f64 {
        self.runtime.block_on(async {
            for _ in 0..times {
                self.port.call(ask).await.expect("the second attempt succeeds");
                for _ in 0..REFILL {
                    self.port.call(Ask::Echo(1)).await.expect("it succeeds");
                }
            }
        });
        median(&mut self.watch.took())
    }

    /// The same, for a life that is killed while it hangs.
    fn kill(&self, times: usize) -> f64 {
        self.runtime.block_on(async {
            for _ in 0..times {
                let before = self.watch.failures();
                let port = self.port.clone();
                let call = tokio::spawn(async move { port.call(Ask::HangOnce).await });
                while self.watch.failures() == before {
                    tokio::task::yield_now().await;
                }
                self.watch.fails(Duration::ZERO);
                self.system.kill("top/cue").expect("it is there");
                call.await.expect("no panic").expect("the second attempt succeeds");
                for _ in 0..REFILL {
                    self.port.call(Ask::Echo(1)).await.expect("it succeeds");
                }
            }
        });
        median(&mut self.watch.took())
    }
}

/// One worker of ractor's below a supervisor by hand.
struct Hand {
    runtime: Runtime,
    address: hand::Address,
    watch: Arc<Stopwatch>,
}

impl Hand {
    fn start() -> Self {
        let runtime = ct();
        let watch = Stopwatch::new();
        let (addresses, _) = runtime.block_on(hand::ward(&watch, 1, false));
        Self { runtime, address: Arc::clone(&addresses[0]), watch }
    }

    fn fail(&self, message: fn() -> Msg, times: usize) -> f64 {
        self.runtime.block_on(async {
            for _ in 0..times {
                hand::at(&self.address).cast(message()).expect("it is there");
                self.again().await;
            }
        });
        median(&mut self.watch.took())
    }

    fn kill(&self, times: usize) -> f64 {
        self.runtime.block_on(async {
            for _ in 0..times {
                let actor = hand::at(&self.address);
                call!(actor, Msg::Hang).expect("it hangs");
                self.watch.fails(Duration::ZERO);
                actor.kill();
                self.again().await;
            }
        });
        median(&mut self.watch.took())
    }

    /// Waits until a new life answers.
    async fn again(&self) {
        loop {
            tokio::task::yield_now().await;
            let actor = hand::at(&self.address);
            if call!(actor, Msg::Echo, 1).is_ok() {
                return;
            }
        }
    }
}

fn fail_kameo(runtime: &Runtime, worker: &Kameo, watch: &Stopwatch, times: usize) -> f64 {
    runtime.block_on(async {
        for _ in 0..times {
            let _ = worker.0.ask(Boom).await;
            while worker.0.ask(1_u64).await.is_err() {
                tokio::task::yield_now().await;
            }
        }
    });
    median(&mut watch.took())
}

pub(crate) fn one(options: &Options) {
    let times = options.size(2_000);
    let (ours, hand) = (Ours::start(None), Hand::start());
    let kameo = ct();
    let watch = Stopwatch::new();
    let (workers, _boss) = kameo.block_on(Kameo::ward(&watch, 1));

    let sides: Vec<Side<'_>> = vec![
        ("ours", Box::new(|| ours.next(Ask::Err, times))),
        ("ractor by hand", Box::new(|| hand.fail(|| Msg::Err, times))),
    ];
    report("P3 Err", Unit::Time, &alternate(options, sides), Goal::AtMost(3e3));

    let sides: Vec<Side<'_>> = vec![
        ("ours", Box::new(|| ours.fail(Ask::PanicOnce, times))),
        ("ractor by hand", Box::new(|| hand.fail(|| Msg::Panic, times))),
        ("kameo", Box::new(|| fail_kameo(&kameo, &workers[0], &watch, times))),
    ];
    report("P3 panic", Unit::Time, &alternate(options, sides), Goal::AtMost(12e3));

    let sides: Vec<Side<'_>> = vec![
        ("ours", Box::new(|| ours.kill(times))),
        ("ractor by hand", Box::new(|| hand.kill(times))),
    ];
    report("P3 killed", Unit::Time, &alternate(options, sides), Goal::AtMost(35e3));

    let hung = Ours::start(Some(Duration::from_millis(2)));
    let few = (times / 10).max(10);
    let sides: Vec<Side<'_>> = vec![
        ("ours", Box::new(|| hung.next(Ask::HangOnce, few))),
        ("ractor by hand, killed", Box::new(|| hand.kill(few))),
    ];
    report(
        "P3 hung, after its deadline",
        Unit::Time,
        &alternate(options, sides),
        Goal::AtMost(35e3),
    );
}

const CHILDREN: usize = 64;

/// Failures a second of CPU, with one caller a child.
fn rate<F, A>(runtime: &Runtime, watch: &Stopwatch, fail: F) -> f64
where
    F: Fn(usize) -> A,
    A: Future<Output = ()> + Send + 'static,
{
    let (before, begun) = (watch.failures(), thread_cpu());
    runtime.block_on(async {
        let tasks: Vec<_> = (0..CHILDREN).map(|child| tokio::spawn(fail(child))).collect();
        for task in tasks {
            task.await.expect("no caller panics");
        }
    });
    let took = thread_cpu() - begun;
    (watch.failures() - before) as f64 / took.as_secs_f64()
}

pub(crate) fn many(options: &Options) {
    let each = (options.size(32_000) / CHILDREN).max(10);
    let mine = ct();
    let watch = Stopwatch::new();
    let mut spec = SupervisorSpec::one_for_one("top");
    for child in 0..CHILDREN {
        let cue = Cue::new(&watch);
        spec = spec.child(ChildSpec::stateful(child.to_string(), move || cue.clone()));
    }
    let system = mine.block_on(System::start(patient(spec))).expect("it starts");
    let ports: Vec<Port<Ask, u64>> = (0..CHILDREN)
        .map(|child| system.port(format!("top/{child}")).expect("it is there"))
        .collect();
    let ours = |ask: Ask| {
        rate(&mine, &watch, |child| {
            let port = ports[child].clone();
            async move {
                for _ in 0..each {
                    port.call(ask).await.expect_err("it fails");
                }
            }
        })
    };

    let bare = ct();
    let hand_watch = Stopwatch::new();
    let (addresses, nurse) = bare.block_on(hand::ward(&hand_watch, CHILDREN, false));
    let by_hand = |message: fn() -> Msg| {
        rate(&bare, &hand_watch, |child| {
            let address = Arc::clone(&addresses[child]);
            async move {
                for _ in 0..each {
                    let actor = hand::at(&address);
                    let _ = actor.cast(message());
                    while hand::at(&address).get_id() == actor.get_id() {
                        tokio::task::yield_now().await;
                    }
                }
            }
        })
    };

    let other = ct();
    let kameo_watch = Stopwatch::new();
    let (workers, _boss) = other.block_on(Kameo::ward(&kameo_watch, CHILDREN));
    let kameo = || {
        rate(&other, &kameo_watch, |child| {
            let worker = workers[child].clone();
            async move {
                for _ in 0..each {
                    let _ = worker.0.ask(Boom).await;
                }
            }
        })
    };

    let sides: Vec<Side<'_>> = vec![
        ("ours", Box::new(|| ours(Ask::Err))),
        ("ractor by hand", Box::new(|| by_hand(|| Msg::Err))),
    ];
    report("P4 ct/64 Err", Unit::Rate, &alternate(options, sides), Goal::AtLeast(300e3));
    let sides: Vec<Side<'_>> = vec![
        ("ours", Box::new(|| ours(Ask::Panic))),
        ("ractor by hand", Box::new(|| by_hand(|| Msg::Panic))),
        ("kameo", Box::new(kameo)),
    ];
    report("P4 ct/64 panic", Unit::Rate, &alternate(options, sides), Goal::AtLeast(80e3));
    mine.block_on(system.stop());
    nurse.stop(None);
}
