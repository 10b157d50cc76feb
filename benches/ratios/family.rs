//! P5: `one_for_all` over ten thousand children that have all worked: from the crash of one to the
//! last one serving.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mainstay::behavior::{Behavior, Context, StartContext, Stateful, Step, Turn};
use mainstay::fault::{EffectKind, Fault};
use mainstay::port::Port;
use mainstay::spec::{ChildSpec, SupervisorSpec};
use mainstay::system::System;
use ractor::call;
use tokio::sync::Notify;

use super::hand::{self, Msg};
use super::meter::{Goal, Options, Side, Unit, alternate, ct, report, thread_cpu};
use super::ours::{Stopwatch, patient};

const CHILDREN: usize = 10_000;

/// How many lives have begun, and who waits for the last of them.
#[derive(Debug, Default)]
struct Begun {
    lives: AtomicUsize,
    all: Notify,
}

#[derive(Clone, Debug)]
struct Member {
    begun: Arc<Begun>,
    children: usize,
}

impl Behavior for Member {
    type Request = bool;
    type Reply = ();
    const EFFECT: Option<EffectKind> = Some(EffectKind::Irreversible);
}

impl Stateful for Member {
    async fn start(&mut self, _: &StartContext) -> Result<(), Fault> {
        if (self.begun.lives.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(self.children) {
            self.begun.all.notify_one();
        }
        Ok(())
    }

    async fn step(&mut self, crash: &bool, _: Turn, _: &Context) -> Result<Step<()>, Fault> {
        assert!(!crash, "cue");
        Ok(Step::Reply(()))
    }
}

pub(crate) fn run(options: &Options) {
    let children = options.size(CHILDREN);
    let (mine, bare) = (ct(), ct());
    let begun = Arc::new(Begun::default());
    let mut spec = SupervisorSpec::one_for_all("top");
    for child in 0..children {
        let member = Member { begun: Arc::clone(&begun), children };
        spec = spec.child(ChildSpec::stateful(child.to_string(), move || member.clone()));
    }
    let system = mine.block_on(System::start(patient(spec))).expect("it starts");
    let ports: Vec<Port<bool, ()>> = (0..children)
        .map(|child| system.port(format!("top/{child}")).expect("it is there"))
        .collect();
    mine.block_on(async {
        begun.all.notified().await;
        for port in &ports {
            port.call(false).await.expect("it serves");
        }
    });
    let (addresses, nurse) = bare.block_on(hand::ward(&Stopwatch::new(), children, true));
    let (first, last) = (&ports[0], &ports[children - 1]);
    let sides: Vec<Side<'_>> = vec![
        (
            "ours",
            Box::new(|| {
                let cpu = thread_cpu();
                mine.block_on(async {
                    first.call(true).await.expect_err("it crashes");
                    begun.all.notified().await;
                    last.call(false).await.expect("it serves");
                });
                (thread_cpu() - cpu).as_nanos() as f64
            }),
        ),
        (
            "ractor by hand",
            Box::new(|| {
                let cpu = thread_cpu();
                bare.block_on(async {
                    let before = hand::at(&addresses[children - 1]).get_id();
                    let _ = hand::at(&addresses[0]).cast(Msg::Panic);
                    loop {
                        let actor = hand::at(&addresses[children - 1]);
                        if actor.get_id() != before && call!(actor, Msg::Echo, 1).is_ok() {
                            return;
                        }
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                });
                (thread_cpu() - cpu).as_nanos() as f64
            }),
        ),
    ];
    let medians = alternate(options, sides);
    let what = format!("P5 ct one_for_all over {children}");
    report(what, Unit::Time, &medians, Goal::AtMost(35e6 * children as f64 / CHILDREN as f64));
    mine.block_on(system.stop());
    nurse.stop(None);
}
