//! P1: a call that succeeds.
//!
//! Ours has a deadline, an id, a lease, a panic guard and its counts; the peers have what they come
//! with. The child adds one to a number. Goals are for the stateful child on one thread; what stands
//! beside them is for the record.

use mainstay::spec::ChildSpec;
use tokio::runtime::Runtime;

use super::hand::{self, Bare, Kameo};
use super::meter::{Goal, Options, Side, Unit, alternate, ct, mt2, price, report};
use super::ours::{Echo, Ours, echo};

pub(crate) fn run(options: &Options) {
    for (callers, goal) in [(1, 1.15), (8, 0.85), (64, 0.80)] {
        compare(options, "ct", ct, callers, Goal::Ratio(goal));
    }
    for callers in [1, 8, 64] {
        compare(options, "mt2", mt2, callers, Goal::Reported);
    }
}

fn compare(options: &Options, name: &str, make: fn() -> Runtime, callers: usize, goal: Goal) {
    let calls = options.size(200_000);
    let (mine, shared, bare, kameo) = (make(), make(), make(), make());
    let (_one, stateful) = mine.block_on(echo(ChildSpec::stateful("echo", || Echo)));
    let spec = ChildSpec::stateless("echo", || Echo).concurrency(64);
    let (_other, stateless) = shared.block_on(echo(spec));
    let (stateful, stateless) = (Ours(stateful), Ours(stateless));
    let echo_bare = bare.block_on(Bare::start());
    let echo_kameo = kameo.block_on(async { Kameo::start() });
    let sides: Vec<Side<'_>> = vec![
        ("ours", Box::new(|| price(&mine, callers, calls, &stateful))),
        ("ractor", Box::new(|| price(&bare, callers, calls, &echo_bare))),
        ("kameo", Box::new(|| price(&kameo, callers, calls, &echo_kameo))),
        ("stateless", Box::new(|| price(&shared, callers, calls, &stateless))),
    ];
    let medians = alternate(options, sides);
    report(format_args!("P1 {name}/{callers}"), Unit::Time, &medians[..3], goal);
    let stateless = [("ours", medians[3].1), medians[1]];
    report(format_args!("P1 {name}/{callers} stateless"), Unit::Time, &stateless, Goal::Reported);
    bare.block_on(hand::stop(&echo_bare));
}
