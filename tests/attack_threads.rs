//! Everything at once on real threads: 64 callers, some of whom leave, faults, panics, hangs, kills,
//! hedged copies, operators, and a watcher who counts all the time. What is exact on a paused clock is
//! checked there (`attack_chaos`); here it is what only threads can break.

#[path = "attack_support/storm.rs"]
mod storm;
#[path = "attack_support/support.rs"]
mod support;

use mainstay::spec::SupervisorSpec;

use storm::{CALLERS, Strategy, storm};

const CALLS: u64 = 60;

/// More seeds by hand: `STORM_SEEDS=100..120 cargo test --test attack_threads`.
fn seeds() -> Vec<u64> {
    let Ok(range) = std::env::var("STORM_SEEDS") else { return vec![2, 7] };
    let (from, to) = range.split_once("..").expect("STORM_SEEDS is a range, such as 100..120");
    (from.parse().unwrap()..to.parse().unwrap()).collect()
}

fn weathers(strategy: Strategy) {
    for seed in seeds() {
        let weather = storm(strategy, seed, 2 + seed as usize % 3, CALLS);
        assert!(weather.looks > 100, "{} looks", weather.looks);
        assert!(weather.answers > CALLERS * CALLS / 4, "{} answers", weather.answers);
        assert!(weather.crashes > 5, "{} crashes", weather.crashes);
        assert!(weather.hedges > 5, "{} hedges", weather.hedges);
    }
}

#[test]
fn threads_agree_on_every_fate_under_one_for_one() {
    weathers(SupervisorSpec::one_for_one);
}

#[test]
fn threads_agree_on_every_fate_under_one_for_all() {
    weathers(SupervisorSpec::one_for_all);
}

#[test]
fn threads_agree_on_every_fate_under_rest_for_one() {
    weathers(SupervisorSpec::rest_for_one);
}
