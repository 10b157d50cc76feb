//! P13: the dump of a million children with state, incarnation, queue depth and restarts, and their
//! counts.
//!
//! ractor knows ids and states only; it is asked about a tenth of the children, and its price is
//! multiplied by ten, since a million actors of its do not fit everywhere.

use std::hint::black_box;
use std::time::Duration;

use mainstay::spec::SupervisorSpec;
use mainstay::system::System;
use ractor::ActorRef;

use super::hand;
use super::memory;
use super::meter::{Goal, Options, Side, Unit, alternate, ct, report, thread_cpu};
use super::ours::Stopwatch;

const CHILDREN: usize = 1_000_000;
const SHARE: usize = 10;

fn timed(run: impl FnOnce()) -> f64 {
    let begun = thread_cpu();
    run();
    (thread_cpu() - begun).as_nanos() as f64
}

/// Walks over what ractor shows of the children of a supervisor.
fn walk(nurse: &ActorRef<()>) {
    for child in nurse.get_children() {
        black_box((child.get_id(), child.get_status()));
    }
}

pub(crate) fn run(options: &Options) {
    let children = options.size(CHILDREN);
    let (mine, bare) = (ct(), ct());
    let system = mine.block_on(async {
        let system = System::start(SupervisorSpec::dynamic("top")).await.expect("it starts");
        memory::fill(&system, children).await;
        system
    });
    let (_addresses, nurse) = bare.block_on(hand::ward(&Stopwatch::new(), children / SHARE, false));
    let sides: Vec<Side<'_>> = vec![
        (
            "ours",
            Box::new(|| {
                let mut tree = None;
                let took = timed(|| tree = Some(system.tree()));
                assert_eq!(tree.map(|tree| tree.len()), Some(children + 1));
                took
            }),
        ),
        ("ractor, less", Box::new(|| timed(|| walk(&nurse)) * SHARE as f64)),
        (
            "read",
            Box::new(|| {
                let tree = system.tree();
                timed(|| {
                    for node in tree.nodes() {
                        black_box((
                            node.path(),
                            node.state(),
                            node.incarnation(),
                            node.mailbox(),
                            node.restarts(),
                        ));
                    }
                })
            }),
        ),
        (
            "counts",
            Box::new(|| {
                const TIMES: usize = 1_000;
                timed(|| {
                    for _ in 0..TIMES {
                        black_box(system.counts());
                    }
                }) / TIMES as f64
            }),
        ),
    ];
    let medians = alternate(options, sides);
    let goal = Goal::AtMost(40e6 * children as f64 / CHILDREN as f64);
    report(format_args!("P13 dump of {children}"), Unit::Time, &medians[..2], goal);
    let read = [("ours", medians[2].1)];
    report(format_args!("P13 reading that dump"), Unit::Time, &read, Goal::Reported);
    let counts = [("ours", medians[3].1)];
    report(format_args!("P13 counts of {children}"), Unit::Time, &counts, Goal::AtMost(1e3));
    mine.shutdown_timeout(Duration::from_secs(1));
    bare.shutdown_timeout(Duration::from_secs(1));
}
