//! Intensity and a child's own limit.

use super::*;

fn with_child_limit(strategy: Strategy, family: u32, child: u32) -> FamilyOptions {
    let child_limit = Some(Limit::new(child, Duration::from_secs(5)));
    FamilyOptions { child_limit, ..options(strategy, family) }
}

#[test]
fn one_restart_more_than_the_intensity_ends_the_family_with_its_cause_as_data() {
    let mut bench = Bench::of(options(Strategy::OneForOne, 2), "abc");
    for _ in 0..2 {
        bench.crash("b");
        bench.done();
    }
    assert_eq!(bench.crash("b"), "run stop c+ a+");
    assert_eq!(bench.done(), "finished restart intensity exceeded");
    let cause = ExitCause::Intensity {
        child: "top/b".into(),
        cause: Box::new(panic()),
        restarts: 3,
        period: Duration::from_secs(5),
    };
    assert_eq!(bench.said, [Output::Finished { cause, start_error: None }]);
}

#[test]
fn an_intensity_of_zero_allows_no_restart() {
    let mut bench = Bench::of(options(Strategy::OneForAll, 0), "ab");
    assert_eq!(bench.crash("a"), "run stop b+");
}

#[test]
fn the_window_slides_and_its_edge_counts() {
    let mut bench = Bench::of(options(Strategy::OneForOne, 2), "a");
    for at in [0, 3000, 6000, 9000] {
        bench.now = Moment::from_millis(at);
        assert!(bench.crash("a").starts_with("restarting"), "at {at}");
        bench.done();
    }
    // 6000 and 9000 are within; at exactly five seconds a restart still counts.
    bench.now = Moment::from_millis(11_000);
    assert_eq!(bench.crash("a"), "finished restart intensity exceeded");
    let mut bench = Bench::of(options(Strategy::OneForOne, 1), "a");
    bench.crash("a");
    bench.done();
    bench.now = Moment::from_nanos(5_000_000_001);
    assert_eq!(bench.crash("a"), "restarting a of 1 (1), run start a3");
}

#[test]
fn the_restart_of_a_whole_scope_counts_once() {
    for strategy in [Strategy::OneForAll, Strategy::RestForOne] {
        let mut bench = Bench::of(options(strategy, 3), "abcdef");
        for round in 1..=3 {
            assert!(bench.crash("a").contains(&format!("of 6 ({round})")), "{strategy}");
            bench.done();
        }
        assert_eq!(bench.crash("a"), "run stop f+ e+ d+ c+ b+");
    }
}

#[test]
fn a_child_that_alone_exceeds_its_limit_is_quarantined_before_the_family_falls() {
    for strategy in [Strategy::OneForOne, Strategy::RestForOne, Strategy::OneForAll] {
        let mut bench = Bench::of(with_child_limit(strategy, 2, 2), "abc");
        for _ in 0..2 {
            bench.crash("b");
            bench.done();
        }
        assert_eq!(bench.crash("b"), "quarantined b", "{strategy}");
        assert_eq!(bench.status("b"), ChildStatus::Quarantined);
        assert_eq!(bench.status("a"), ChildStatus::Running);
        assert_eq!(bench.status("c"), ChildStatus::Running);
        assert_eq!(bench.stop(), "run stop c- a-");
        assert_eq!(bench.done(), "finished stopped");
    }
}

#[test]
fn the_exit_that_quarantines_a_child_is_not_counted_against_the_family() {
    let mut bench = Bench::of(with_child_limit(Strategy::OneForOne, 3, 2), "ab");
    for _ in 0..2 {
        bench.crash("a");
        bench.done();
    }
    assert_eq!(bench.crash("a"), "quarantined a");
    assert_eq!(bench.crash("b"), "restarting b of 1 (3), run start b2");
}

#[test]
fn two_children_that_crash_within_their_own_limits_can_still_end_the_family() {
    let mut bench = Bench::of(with_child_limit(Strategy::OneForOne, 2, 2), "ab");
    bench.crash("a");
    bench.done();
    bench.crash("b");
    bench.done();
    assert_eq!(bench.crash("a"), "run stop b+");
}

#[test]
fn a_childs_own_limit_stands_before_the_familys() {
    let own = Some(Limit::new(0, Duration::from_secs(1)));
    let children = [("a", ChildOptions { child_limit: own, ..PERMANENT }), ("b", PERMANENT)];
    let mut bench = Bench::new(with_child_limit(Strategy::OneForOne, 9, 1), &children);
    assert_eq!(bench.crash("a"), "quarantined a");
    bench.crash("b");
    bench.done();
    assert_eq!(bench.crash("b"), "quarantined b");
}

#[test]
fn an_operator_releases_a_quarantined_child_with_a_clean_record() {
    let mut bench = Bench::of(with_child_limit(Strategy::OneForOne, 9, 1), "ab");
    bench.crash("a");
    bench.done();
    assert_eq!(bench.crash("a"), "quarantined a");
    assert_eq!(bench.start(1, "a", PERMANENT), "reply 1 already present");
    assert_eq!(bench.restart(2, "a"), "run start a3");
    assert_eq!(bench.done(), "reply 2 restarted");
    assert_eq!(bench.crash("a"), "restarting a of 1 (2), run start a4");
    bench.done();
    assert_eq!(bench.crash("a"), "quarantined a");
    assert_eq!(bench.delete(3, "a"), "removed a, reply 3 deleted");
}

#[test]
fn a_quarantined_child_is_not_started_by_a_restart_of_its_siblings() {
    let mut bench = Bench::of(with_child_limit(Strategy::OneForAll, 9, 0), "ab");
    let children = [("a", PERMANENT), ("b", PERMANENT)];
    bench.crash("a");
    assert_eq!(bench.status("a"), ChildStatus::Quarantined);
    let b = ChildOptions { child_limit: Some(Limit::new(9, Duration::from_secs(5))), ..PERMANENT };
    let mut bench =
        Bench::new(with_child_limit(Strategy::OneForAll, 9, 0), &[children[0], ("b", b)]);
    bench.crash("a");
    assert_eq!(bench.crash("b"), "restarting b of 1 (1), run start b2");
}

#[test]
fn a_child_quarantined_by_failed_starts_within_a_restart_lets_the_others_go_on() {
    let mut bench = Bench::of(with_child_limit(Strategy::OneForAll, 9, 1), "abc");
    bench.crash("b");
    assert_eq!(bench.fails("b"), "quarantined b, run start c3");
    assert_eq!(bench.status("a"), ChildStatus::Running);
    assert_eq!(bench.done(), "");
    assert_eq!(bench.status("c"), ChildStatus::Running);
}

#[test]
fn a_child_quarantined_before_a_restart_is_reported_lets_it_go_on() {
    let mut bench = Bench::of(with_child_limit(Strategy::OneForAll, 9, 1), "abc");
    bench.crash("b");
    assert_eq!(bench.crash("b"), "quarantined b");
    assert_eq!(bench.done(), "");
    assert_eq!(bench.status("b"), ChildStatus::Quarantined);
    assert_eq!(bench.status("c"), ChildStatus::Running);
}

#[test]
fn what_a_runner_says_of_a_quarantined_child_does_not_stop_those_after_it() {
    let mut bench = Bench::of(with_child_limit(Strategy::OneForAll, 9, 1), "abc");
    bench.crash("b");
    bench.crash("b");
    // The runner saw the same death as a failed start, and did not go on.
    assert_eq!(bench.fails("b"), "run start c3");
    assert_eq!(bench.done(), "");
    assert_eq!(bench.family.count_children().active, 2);
}

#[test]
fn a_childs_record_is_small() {
    let size = std::mem::size_of::<Child>();
    assert!(size <= 104, "{size}");
}
