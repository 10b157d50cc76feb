//! Everything at once on real threads: 64 callers, some of whom leave, faults, panics, hangs, kills,
//! hedged copies, operators, and a watcher who counts all the time. What is exact on a paused clock is
//! checked there (`attack_chaos`); here it is what only threads can break.

#[path = "attack_support/storm.rs"]
mod storm;
#[path = "attack_support/support.rs"]
mod support;

use mainstay::spec::SupervisorSpec;

use storm::{CALLERS, Strategy, Wild, storm};

const CALLS: u64 = 60;

/// More seeds by hand: `STORM_SEEDS=100..120 cargo test --test attack_threads`.
fn seeds() -> Vec<u64> {
    let Ok(range) = std::env::var("STORM_SEEDS") else { return vec![2, 9] };
    let (from, to) = range.split_once("..").expect("STORM_SEEDS is a range, such as 100..120");
    (from.parse().unwrap()..to.parse().unwrap()).collect()
}

fn weathers(strategy: Strategy) {
    for seed in seeds() {
        let workers = 2 + seed as usize % 3;
        let weather =
            storm(Wild { strategy, seed, workers, calls: CALLS, stops: false, nested: false });
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

/// Agents hold requests while they wait for others, under one deadline.
#[test]
fn threads_agree_when_children_ask_children() {
    for seed in seeds() {
        for strategy in
            [SupervisorSpec::one_for_one, SupervisorSpec::one_for_all, SupervisorSpec::rest_for_one]
        {
            let workers = 2 + seed as usize % 3;
            let wild = Wild { strategy, seed, workers, calls: CALLS, stops: false, nested: true };
            let weather = storm(wild);
            assert!(weather.answers > CALLERS * CALLS / 4, "{} answers", weather.answers);
        }
    }
}

/// Whoever asks while everything is being stopped, and after that, is told at once.
#[test]
fn a_system_that_is_stopped_in_a_storm_leaves_nobody_waiting_and_nothing_open() {
    for seed in seeds() {
        for strategy in
            [SupervisorSpec::one_for_one, SupervisorSpec::one_for_all, SupervisorSpec::rest_for_one]
        {
            let workers = 2 + seed as usize % 3;
            let weather = storm(Wild {
                strategy,
                seed,
                workers,
                calls: CALLS,
                stops: true,
                nested: seed.is_multiple_of(3),
            });
            assert!(weather.answers > CALLERS, "{} answers", weather.answers);
        }
    }
}
