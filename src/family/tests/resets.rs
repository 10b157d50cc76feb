//! A reset is a restart that nobody is to blame for.

use super::*;

/// No restart is allowed: whatever is counted ends the family.
fn strict(strategy: Strategy) -> FamilyOptions {
    options(strategy, 0)
}

#[test]
fn a_family_is_reset_in_reverse_and_in_order_without_being_counted() {
    for strategy in [Strategy::OneForOne, Strategy::RestForOne, Strategy::OneForAll] {
        let mut bench = Bench::of(strict(strategy), "abc");
        for life in 2..9 {
            let text = bench.reset(1, None);
            assert_eq!(text, format!("run stop c+ b+ a+ start a{life} b{life} c{life}"));
            assert_eq!(bench.done(), "reply 1 reset");
        }
        assert_eq!(bench.status("c"), ChildStatus::Running);
    }
}

#[test]
fn one_child_is_reset_without_its_siblings_and_without_being_counted() {
    for strategy in [Strategy::OneForOne, Strategy::RestForOne, Strategy::OneForAll] {
        let mut bench = Bench::of(strict(strategy), "abc");
        for life in 2..9 {
            assert_eq!(bench.reset(1, Some("b")), format!("run stop b+ start b{life}"));
            assert_eq!(bench.done(), "reply 1 reset");
        }
        assert_eq!(bench.status("b"), ChildStatus::Running);
    }
}

#[test]
fn a_reset_in_a_hurry_stops_all_at_once_where_no_order_matters_and_nobody_waits_longer() {
    let limit = Duration::from_secs(15);
    for (strategy, order) in [
        (Strategy::OneForOne, "stop together"),
        (Strategy::RestForOne, "stop"),
        (Strategy::OneForAll, "stop"),
    ] {
        let mut bench = Bench::of(strict(strategy), "abc");
        let text = bench.reset_within(1, None, limit);
        assert_eq!(text, format!("run {order} c+ b+ a+ within 15s start a2 b2 c2"));
        assert_eq!(bench.done(), "reply 1 reset");
        assert_eq!(bench.reset_within(2, Some("b"), limit), "run stop b+ within 15s start b3");
    }
}

#[test]
fn a_death_during_a_reset_in_a_hurry_gives_nobody_more_time() {
    let mut bench = Bench::of(options(Strategy::OneForOne, 1), "ab");
    bench.reset_within(1, None, Duration::from_secs(15));
    bench.wait(5_000);
    let again = "cancel, restarting a of 2 (1), run stop together b+ within 10s start a3 b3";
    assert_eq!(bench.crash("a"), again);
    assert_eq!(bench.done(), "reply 1 reset");
    // The next restart knows nothing of it.
    assert_eq!(bench.reset(2, None), "run stop b+ a+ start a4 b4");
}

#[test]
fn a_family_that_is_stopped_in_a_hurry_stops_all_at_once_where_no_order_matters() {
    for (strategy, order) in
        [(Strategy::OneForOne, "stop together"), (Strategy::RestForOne, "stop")]
    {
        let mut bench = Bench::of(strict(strategy), "abc");
        let until = Some(bench.now + Duration::from_secs(3));
        let text = bench.feed(Input::Stop { cause: ExitCause::Stopped, until });
        assert_eq!(text, format!("run {order} c- b- a- within 3s"));
    }
}

#[test]
fn a_reset_takes_stopped_children_along_only_as_a_restart_of_siblings_would() {
    let children = [("a", TRANSIENT), ("b", PERMANENT), ("t", TEMPORARY), ("c", PERMANENT)];
    let mut bench = Bench::new(strict(Strategy::OneForOne), &children);
    bench.exit("a", ExitCause::Normal);
    bench.terminate(1, "c");
    bench.done();
    assert_eq!(bench.reset(2, None), "run stop t- b+ start a2 b2");
    assert_eq!(bench.done(), "removed t, reply 2 reset");
    assert_eq!(bench.status("c"), ChildStatus::Stopped, "an operator has stopped it");
}

#[test]
fn a_family_without_anybody_to_start_is_reset_at_once() {
    let mut bench = Bench::new(strict(Strategy::OneForOne), &[]);
    assert_eq!(bench.reset(1, None), "reply 1 reset");
    assert_eq!(bench.start(2, "a", PERMANENT), "run start a1", "nothing waits for it");
}

#[test]
fn a_child_that_is_between_two_lives_or_stopped_needs_no_reset() {
    let backoff = Some((Duration::from_millis(50), Duration::from_millis(50)));
    let slow = FamilyOptions { backoff, ..options(Strategy::OneForOne, 5) };
    let mut bench = Bench::of(slow, "ab");
    bench.crash("a");
    assert_eq!(bench.reset(1, Some("a")), "reply 1 reset");
    assert_eq!(bench.due(), "run start a2");
    bench.done();
    bench.terminate(2, "b");
    bench.done();
    assert_eq!(bench.reset(3, Some("b")), "reply 3 reset");
    assert_eq!(bench.status("b"), ChildStatus::Stopped);
}

#[test]
fn a_restart_that_is_under_way_is_done_again_by_a_reset() {
    let mut bench = Bench::of(options(Strategy::OneForOne, 1), "ab");
    bench.crash("a");
    assert_eq!(bench.reset(1, Some("a")), "cancel, run stop a+ start a3");
    assert_eq!(bench.done(), "reply 1 reset");
    let mut bench = Bench::of(options(Strategy::OneForAll, 1), "ab");
    bench.crash("a");
    assert_eq!(bench.reset(1, None), "cancel, run stop b+ a+ start a3 b3");
    assert_eq!(bench.done(), "reply 1 reset");
}

#[test]
fn a_death_during_a_reset_is_counted_and_the_reset_is_over_with_the_restart() {
    let mut bench = Bench::of(options(Strategy::OneForOne, 1), "ab");
    bench.reset(1, None);
    let again = "cancel, restarting a of 2 (1), run stop b+ start a3 b3";
    assert_eq!(bench.crash("a"), again);
    assert_eq!(bench.done(), "reply 1 reset");
    let mut bench = Bench::of(strict(Strategy::OneForOne), "ab");
    bench.reset(1, None);
    assert_eq!(bench.crash("a"), "cancel, reply 1 gone, run stop b+");
}

#[test]
fn a_child_that_dies_as_soon_as_it_was_reset_has_been_reset() {
    let mut bench = Bench::of(options(Strategy::OneForOne, 1), "ab");
    bench.reset(1, Some("a"));
    let text = bench.crash("a");
    assert_eq!(text, "cancel, reply 1 reset, restarting a of 1 (1), run start a3");
}

#[test]
fn a_reset_whose_start_fails_says_so_and_is_a_restart_from_then_on() {
    let mut bench = Bench::of(options(Strategy::OneForOne, 1), "ab");
    bench.reset(1, Some("a"));
    assert_eq!(bench.fails("a"), "reply 1 failed, restarting a of 1 (1), run start a3");
    bench.done();
    assert_eq!(bench.status("a"), ChildStatus::Running);
}

#[test]
fn a_restart_of_siblings_takes_over_the_reset_of_one_of_them() {
    let mut bench = Bench::of(options(Strategy::OneForAll, 1), "abc");
    bench.reset(1, Some("b"));
    let text = bench.crash("a");
    assert_eq!(text, "cancel, restarting a of 3 (1), run stop c+ b+ start a2 b3 c2");
    assert_eq!(bench.done(), "reply 1 reset");
}

#[test]
fn a_stop_during_a_reset_stops_and_answers() {
    for id in [None, Some("a")] {
        let mut bench = Bench::of(options(Strategy::OneForOne, 1), "ab");
        bench.reset(1, id);
        assert_eq!(bench.stop(), "cancel, reply 1 gone, run stop b- a-");
        assert_eq!(bench.done(), "finished stopped");
        assert_eq!(bench.reset(2, id), "reply 2 gone");
    }
}

#[test]
fn a_reset_of_nobody_and_one_before_the_boot_are_refused() {
    let mut bench = Bench::fresh(options(Strategy::OneForOne, 1), &[("a", PERMANENT)]);
    assert_eq!(bench.reset(1, None), "reply 1 restarting");
    bench.feed(Input::Boot);
    assert_eq!(bench.reset(2, Some("a")), "reply 2 restarting");
    bench.done();
    assert_eq!(bench.reset(3, Some("x")), "reply 3 not found");
}

#[test]
fn what_an_operator_wishes_during_a_reset_waits_for_it() {
    let mut bench = Bench::of(options(Strategy::OneForOne, 1), "ab");
    bench.reset(1, None);
    assert_eq!(bench.start(2, "c", PERMANENT), "");
    assert_eq!(bench.terminate(3, "a"), "");
    let text = bench.done();
    assert!(text.starts_with("reply 1 reset, run start c1, run stop a-"), "{text}");
}

#[test]
fn what_waits_for_a_child_that_is_reset_is_done_after_a_restart_of_siblings_took_the_reset_over() {
    let mut bench = Bench::of(options(Strategy::OneForAll, 5), "ab");
    assert_eq!(bench.reset(1, Some("a")), "run stop a+ start a2");
    assert_eq!(bench.terminate(2, "a"), "", "it waits for the reset");
    assert_eq!(bench.crash("b"), "cancel, restarting b of 2 (1), run stop a+ start a3 b2");
    assert_eq!(bench.done(), "reply 1 reset, run stop a-");
    assert_eq!(bench.done(), "reply 2 terminated");
}
