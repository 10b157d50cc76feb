//! Restarts of siblings: scope, second deaths, failed starts, backoff.

use super::*;

#[test]
fn one_for_one_leaves_the_siblings_alone_and_restarts_several_children_at_once() {
    let mut bench = Bench::of(options(Strategy::OneForOne, 5), "abc");
    assert_eq!(bench.crash("a"), "restarting a of 1 (1), run start a2");
    let first = bench.run.unwrap();
    assert_eq!(bench.crash("c"), "restarting c of 1 (2), run start c2");
    assert_eq!(bench.status("b"), ChildStatus::Running);
    bench.done();
    bench.feed(Input::RunDone { run: first, result: Ok(()) });
    assert_eq!(bench.family.count_children().active, 3);
}

#[test]
fn temporary_siblings_taken_along_are_stopped_and_removed() {
    let children = [("t", TEMPORARY), ("a", PERMANENT), ("u", TEMPORARY), ("b", TRANSIENT)];
    let mut bench = Bench::new(options(Strategy::OneForAll, 5), &children);
    assert_eq!(bench.crash("a"), "restarting a of 2 (1), run stop b+ u- t- start a2 b2");
    assert_eq!(bench.done(), "removed u, removed t");
    let mut bench = Bench::new(options(Strategy::RestForOne, 5), &children);
    assert_eq!(bench.crash("a"), "restarting a of 2 (1), run stop b+ u- start a2 b2");
    assert_eq!(bench.done(), "removed u");
    assert_eq!(bench.family.count_children().specs, 3);
}

#[test]
fn a_transient_sibling_that_had_ended_starts_again_with_the_others_and_a_terminated_one_does_not() {
    let children = [("a", TRANSIENT), ("b", PERMANENT), ("c", PERMANENT)];
    let mut bench = Bench::new(options(Strategy::OneForAll, 5), &children);
    bench.exit("a", ExitCause::Normal);
    bench.terminate(1, "c");
    bench.done();
    assert_eq!(bench.crash("b"), "restarting b of 2 (1), run start a2 b2");
}

#[test]
fn the_exit_of_a_sibling_that_a_restart_stops_is_expected_and_not_counted() {
    let mut bench = Bench::of(options(Strategy::OneForAll, 1), "abc");
    bench.crash("b");
    for id in ["a", "c", "b"] {
        let (key, incarnation) = (bench.key(id), Incarnation(1));
        let exited = Input::Exited { key, incarnation, cause: panic(), widen: None };
        assert_eq!(bench.feed(exited), "");
    }
    assert_eq!(bench.done(), "");
    assert_eq!(bench.family.count_children().active, 3);
}

#[test]
fn a_second_death_outside_the_scope_widens_the_running_restart_and_counts_once() {
    let mut bench = Bench::of(options(Strategy::RestForOne, 2), "abcd");
    bench.crash("c");
    let old = bench.run.unwrap();
    let said = bench.crash("b");
    assert_eq!(said, "cancel, restarting b of 3 (2), run stop d+ c+ start b2 c3 d3");
    assert_eq!(bench.feed(Input::RunDone { run: old, result: Ok(()) }), "", "called off");
    assert_eq!(bench.status("c"), ChildStatus::Restarting);
    assert_eq!(bench.done(), "");
    assert_eq!(bench.family.count_children().active, 4);
}

#[test]
fn a_death_before_the_restart_is_reported_does_it_again_and_counts_once() {
    let mut bench = Bench::of(options(Strategy::OneForAll, 2), "abc");
    bench.crash("a");
    // `a` and `b` are up again, `c` starts.
    assert_eq!(bench.crash("b"), "cancel, restarting b of 3 (2), run stop c+ a+ start a3 b3 c3");
    assert_eq!(bench.done(), "");
    let mut bench = Bench::of(options(Strategy::RestForOne, 2), "abc");
    bench.crash("b");
    assert_eq!(bench.crash("c"), "cancel, restarting c of 2 (2), run stop b+ start b3 c3");
}

#[test]
fn the_death_of_a_child_not_in_scope_does_not_touch_a_restart_that_another_strategy_asked_for() {
    let mut bench = Bench::of(options(Strategy::OneForOne, 5), "abc");
    let said = bench.exit_widen("b", panic(), Some(Strategy::RestForOne));
    assert_eq!(said, "restarting b of 2 (1), run stop c+ start b2 c2");
    assert_eq!(bench.crash("a"), "restarting a of 1 (2), run start a2");
}

#[test]
fn a_wider_restart_takes_restarts_of_single_children_along() {
    let mut with = options(Strategy::OneForOne, 9);
    with.backoff = Some((Duration::from_millis(50), Duration::from_secs(1)));
    let mut bench = Bench::of(with, "abcd");
    bench.crash("a");
    let of_a = bench.token.unwrap();
    bench.crash("d");
    bench.due();
    let said = bench.exit_widen("b", panic(), Some(Strategy::OneForAll));
    assert_eq!(said, "cancel, restarting b of 4 (3), run stop d+ c+, arm 50ms");
    assert_eq!(bench.feed(Input::Due { token: of_a }), "", "it is part of the wider one");
    assert_eq!(bench.due(), "");
    assert_eq!(bench.done(), "run start a2 b2 c2 d3");
}

#[test]
fn a_failed_start_in_a_restart_is_counted_and_tried_again_until_the_intensity_is_reached() {
    let mut bench = Bench::of(options(Strategy::OneForOne, 3), "ab");
    bench.crash("a");
    assert_eq!(bench.fails("a"), "restarting a of 1 (2), run start a3");
    assert_eq!(bench.fails("a"), "restarting a of 1 (3), run start a4");
    assert_eq!(bench.fails("a"), "run stop b+");
    assert_eq!(bench.done(), "finished restart intensity exceeded");
}

#[test]
fn a_failed_start_in_one_for_all_stops_those_before_it_and_starts_all_again() {
    let mut bench = Bench::of(options(Strategy::OneForAll, 3), "abc");
    bench.crash("a");
    assert_eq!(bench.fails("b"), "restarting b of 3 (2), run stop a+ start a3 b3 c3");
    assert_eq!(bench.done(), "");
}

#[test]
fn a_failed_start_in_rest_for_one_goes_on_from_the_child_that_failed() {
    let mut bench = Bench::of(options(Strategy::RestForOne, 3), "abcd");
    bench.crash("b");
    assert_eq!(bench.fails("c"), "restarting c of 2 (2), run start c3 d3");
    assert_eq!(bench.status("b"), ChildStatus::Running);
    assert_eq!(bench.done(), "");
    assert_eq!(bench.family.count_children().active, 4);
}

#[test]
fn a_failed_start_is_tried_again_after_the_backoff() {
    let mut with = options(Strategy::OneForAll, 9);
    with.backoff = Some((Duration::from_millis(100), Duration::from_secs(1)));
    let mut bench = Bench::of(with, "abc");
    assert_eq!(bench.crash("b"), "restarting b of 3 (1), run stop c+ a+, arm 100ms");
    bench.done();
    assert_eq!(bench.due(), "run start a2 b2 c2");
    assert_eq!(bench.fails("b"), "restarting b of 3 (2), run stop a+, arm 200ms");
    assert_eq!(bench.done(), "");
    assert_eq!(bench.due(), "run start a3 b3 c3");
    assert_eq!(bench.done(), "");
}

#[test]
fn siblings_are_stopped_at_once_and_started_when_both_the_stops_and_the_backoff_are_over() {
    let mut with = options(Strategy::RestForOne, 9);
    with.backoff = Some((Duration::from_millis(100), Duration::from_secs(1)));
    let mut bench = Bench::of(with.clone(), "abc");
    assert_eq!(bench.crash("b"), "restarting b of 2 (1), run stop c+, arm 100ms");
    assert_eq!(bench.due(), "", "c is still stopping");
    assert_eq!(bench.done(), "run start b2 c2");
    let mut bench = Bench::of(with, "abc");
    assert_eq!(bench.crash("c"), "restarting c of 1 (1), arm 100ms", "nobody to stop");
    assert_eq!(bench.due(), "run start c2");
    assert_eq!(bench.due(), "", "an old timer");
}

#[test]
fn a_second_death_during_the_backoff_widens_and_waits_for_the_later_of_both() {
    let mut with = options(Strategy::RestForOne, 9);
    with.backoff = Some((Duration::from_millis(100), Duration::from_secs(1)));
    let mut bench = Bench::of(with, "abc");
    bench.crash("c");
    let old = bench.token.unwrap();
    bench.wait(60);
    assert_eq!(bench.crash("a"), "restarting a of 3 (2), run stop b+, arm 100ms");
    assert_eq!(bench.feed(Input::Due { token: old }), "");
    bench.done();
    assert_eq!(bench.due(), "run start a2 b2 c2");
}

#[test]
fn the_backoff_doubles_with_each_restart_of_that_child_and_starts_over_after_the_period() {
    let mut with = options(Strategy::OneForOne, 99);
    with.backoff = Some((Duration::from_millis(100), Duration::from_millis(350)));
    let mut bench = Bench::of(with, "ab");
    for (count, delay) in [(1, 100), (2, 200), (3, 350), (4, 350)] {
        let said = bench.crash("a");
        assert_eq!(said, format!("restarting a of 1 ({count}), arm {delay}ms"));
        bench.due();
        bench.done();
    }
    assert_eq!(bench.crash("b"), "restarting b of 1 (5), arm 100ms", "its own count");
    bench.wait(5001);
    assert_eq!(bench.crash("a"), "restarting a of 1 (1), arm 100ms");
}

#[test]
fn a_transient_child_that_ends_normally_within_a_restart_does_not_disturb_it() {
    let children = [("a", PERMANENT), ("b", TRANSIENT), ("c", PERMANENT)];
    let mut bench = Bench::new(options(Strategy::OneForAll, 5), &children);
    bench.crash("a");
    assert_eq!(bench.exit("b", ExitCause::Normal), "rests b");
    assert_eq!(bench.done(), "");
    assert_eq!(bench.status("b"), ChildStatus::Stopped);
    assert_eq!(bench.status("c"), ChildStatus::Running);
}

#[test]
fn a_child_started_alone_that_dies_before_the_report_is_an_ordinary_exit() {
    let mut bench = Bench::of(options(Strategy::OneForOne, 5), "a");
    bench.crash("a");
    let old = bench.run.unwrap();
    assert_eq!(bench.crash("a"), "cancel, restarting a of 1 (2), run start a3");
    assert_eq!(bench.feed(Input::RunDone { run: old, result: Ok(()) }), "");
    assert_eq!(bench.status("a"), ChildStatus::Restarting);
    bench.done();
    assert_eq!(bench.status("a"), ChildStatus::Running);
}
