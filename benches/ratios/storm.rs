//! P2: sixty-four callers, and one request in a hundred panics, whoever works on it.
//!
//! Counted are the innocent requests that got no answer, and the innocent answers a second of CPU.
//! Ours gives a poisonous request to one more life and then sets it aside; the peers lose it and what
//! waits behind it.

use std::sync::Arc;

use mainstay::error::CallError;
use mainstay::spec::{ChildSpec, SupervisorSpec};
use mainstay::system::System;
use ractor::call;

use super::hand::{self, Boom, Kameo, Msg};
use super::meter::{Goal, Options, Side, Unit, alternate, ct, report, thread_cpu};
use super::ours::{Ask, Cue, Stopwatch, patient};

const CALLERS: usize = 64;
const POISON: usize = 100;

/// What became of the requests of one round.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    good: usize,
    lost: usize,
    poison: usize,
    quarantined: usize,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.good += other.good;
        self.lost += other.lost;
        self.poison += other.poison;
        self.quarantined += other.quarantined;
    }
}

/// How a request ended, seen by its caller.
enum Heard {
    Answer,
    Quarantine,
    Nothing,
}

/// Every caller asks `each` times; the rate of good answers, with everything added to `total`.
fn round<F, A>(runtime: &tokio::runtime::Runtime, each: usize, total: &mut Tally, ask: F) -> f64
where
    F: Fn(bool) -> A + Clone + Send + 'static,
    A: Future<Output = Heard> + Send,
{
    let begun = thread_cpu();
    let tally = runtime.block_on(async {
        let tasks: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let ask = ask.clone();
                tokio::spawn(async move {
                    let mut tally = Tally::default();
                    for turn in 0..each {
                        let poison = (turn + caller * 7) % POISON == POISON - 1;
                        match (ask(poison).await, poison) {
                            (Heard::Answer, false) => tally.good += 1,
                            (_, false) => {
                                tally.lost += 1;
                                // A supervisor needs a turn, too.
                                tokio::task::yield_now().await;
                            }
                            (Heard::Quarantine, true) => {
                                tally.poison += 1;
                                tally.quarantined += 1;
                            }
                            (_, true) => tally.poison += 1,
                        }
                    }
                    tally
                })
            })
            .collect();
        let mut tally = Tally::default();
        for task in tasks {
            tally.add(task.await.expect("no caller panics"));
        }
        tally
    });
    let took = thread_cpu() - begun;
    total.add(tally);
    tally.good as f64 / took.as_secs_f64()
}

pub(crate) fn run(options: &Options) {
    let each = options.size(100_000) / CALLERS;
    let (mine, bare, other) = (ct(), ct(), ct());
    let watch = Stopwatch::new();
    let cue = Cue::new(&watch);
    let system = mine
        .block_on(System::start(patient(
            SupervisorSpec::one_for_one("top")
                .child(ChildSpec::stateful("cue", move || cue.clone())),
        )))
        .expect("it starts");
    let child = system.port::<Ask, u64>("top/cue").expect("it is there");
    let (addresses, nurse) = bare.block_on(hand::ward(&Stopwatch::new(), 1, false));
    let address = Arc::clone(&addresses[0]);
    let (workers, _boss) = other.block_on(Kameo::ward(&Stopwatch::new(), 1));
    let worker = workers[0].clone();
    let (mut ours, mut ractor, mut kameo) = (Tally::default(), Tally::default(), Tally::default());
    let sides: Vec<Side<'_>> = vec![
        (
            "ours",
            Box::new(|| {
                let child = child.clone();
                round(&mine, each, &mut ours, move |poison| {
                    let child = child.clone();
                    async move {
                        match child.call(if poison { Ask::Panic } else { Ask::Echo(7) }).await {
                            Ok(_) => Heard::Answer,
                            Err(CallError::Quarantined { .. }) => Heard::Quarantine,
                            Err(_) => Heard::Nothing,
                        }
                    }
                })
            }),
        ),
        (
            "ractor",
            Box::new(|| {
                let address = Arc::clone(&address);
                round(&bare, each, &mut ractor, move |poison| {
                    let actor = hand::at(&address);
                    async move {
                        let heard = if poison {
                            call!(actor, Msg::Poison)
                        } else {
                            call!(actor, Msg::Echo, 7)
                        };
                        if heard.is_ok() { Heard::Answer } else { Heard::Nothing }
                    }
                })
            }),
        ),
        (
            "kameo",
            Box::new(|| {
                let worker = worker.clone();
                round(&other, each, &mut kameo, move |poison| {
                    let worker = worker.clone();
                    async move {
                        let heard = if poison {
                            worker.0.ask(Boom).await.is_ok()
                        } else {
                            worker.0.ask(7_u64).await.is_ok()
                        };
                        if heard { Heard::Answer } else { Heard::Nothing }
                    }
                })
            }),
        ),
    ];
    let medians = alternate(options, sides);
    report("P2 ct/64 good calls", Unit::Rate, &medians, Goal::AtLeast(650_000.0));
    let percent = |tally: Tally| {
        let all = (tally.good + tally.lost).max(1);
        100.0 * tally.lost as f64 / all as f64
    };
    println!(
        "P2 ct/64 innocent requests lost ours {} of {} peer ractor {:.1} % peer kameo {:.1} % goal 0 {}",
        ours.lost,
        ours.good + ours.lost,
        percent(ractor),
        percent(kameo),
        if ours.lost == 0 { "met" } else { "missed" },
    );
    println!(
        "P2 ct/64 poisonous requests ours {} of {} quarantined",
        ours.quarantined, ours.poison
    );
    mine.block_on(system.stop());
    nurse.stop(None);
}
