//! The family's own end: asked for, fallen, automatic.

use super::*;

const SIGNIFICANT: ChildOptions = ChildOptions { significant: true, ..TRANSIENT };

fn auto(auto_shutdown: AutoShutdown, strategy: Strategy) -> FamilyOptions {
    FamilyOptions { auto_shutdown, ..options(strategy, 9) }
}

fn slow(strategy: Strategy) -> FamilyOptions {
    let backoff = Some((Duration::from_millis(100), Duration::from_secs(1)));
    FamilyOptions { backoff, ..options(strategy, 9) }
}

#[test]
fn a_stop_ends_a_boot_under_way_and_nothing_comes_back() {
    let mut bench = Bench::fresh(FamilyOptions::default(), &[("a", PERMANENT), ("b", PERMANENT)]);
    bench.feed(Input::Boot);
    let old = bench.run.unwrap();
    bench.start(1, "c", PERMANENT);
    assert_eq!(bench.stop(), "cancel, reply 1 gone, run stop b- a-");
    assert_eq!(bench.feed(Input::RunDone { run: old, result: Ok(()) }), "");
    assert_eq!(bench.done(), "finished stopped");
    assert_eq!(bench.feed(Input::Boot), "");
}

#[test]
fn a_stop_before_the_boot_ends_the_family_at_once() {
    let mut bench = Bench::fresh(FamilyOptions::default(), &[("a", PERMANENT)]);
    assert_eq!(bench.stop(), "finished stopped");
    assert_eq!(bench.feed(Input::Boot), "");
}

#[test]
fn a_stop_during_backoff_leaves_the_child_down() {
    let mut bench = Bench::of(slow(Strategy::OneForOne), "abc");
    bench.crash("b");
    assert_eq!(bench.stop(), "run stop c- a-");
    assert_eq!(bench.due(), "");
    assert_eq!(bench.done(), "finished stopped");
    assert_eq!(bench.due(), "");
}

#[test]
fn a_stop_during_restarts_calls_them_off_and_stops_all_that_may_be_up() {
    let mut bench = Bench::of(options(Strategy::OneForOne, 9), "abc");
    bench.crash("a");
    bench.crash("c");
    assert_eq!(bench.stop(), "cancel, cancel, run stop c- b- a-");
    for id in ["a", "b", "c"] {
        assert_eq!(bench.crash(id), "", "expected");
    }
    assert_eq!(bench.done(), "finished stopped");
    let mut bench = Bench::of(options(Strategy::OneForAll, 9), "abc");
    bench.crash("a");
    assert_eq!(bench.stop(), "cancel, run stop c- b- a-");
    assert_eq!(bench.done(), "finished stopped");
    let mut bench = Bench::of(slow(Strategy::RestForOne), "abc");
    bench.crash("b");
    assert_eq!(bench.stop(), "cancel, run stop c- a-");
    assert_eq!(bench.due(), "");
    assert_eq!(bench.done(), "finished stopped");
}

#[test]
fn operators_are_told_that_the_supervisor_is_gone() {
    let mut bench = Bench::of(options(Strategy::OneForOne, 9), "abc");
    bench.terminate(1, "a");
    bench.delete(2, "a");
    bench.start(3, "d", PERMANENT);
    bench.terminate(4, "d");
    let said = bench.stop();
    let expected = "cancel, reply 1 gone, cancel, reply 3 gone, reply 2 gone, reply 4 gone, \
                    run stop d- c- b- a-";
    assert_eq!(said, expected);
    assert_eq!(bench.start(5, "e", PERMANENT), "reply 5 gone");
    assert_eq!(bench.done(), "finished stopped");
    assert_eq!(bench.terminate(6, "b"), "reply 6 gone");
    assert_eq!(bench.done(), "", "twice");
    assert!(bench.family.is_finished());
    assert_eq!(bench.family.count_children().active, 0);
}

#[test]
fn the_whole_family_may_be_stopped_together() {
    let mut with = options(Strategy::OneForAll, 1);
    with.parallel_stop = true;
    let mut bench = Bench::of(with, "abc");
    assert_eq!(bench.crash("a"), "restarting a of 3 (1), run stop c+ b+ start a2 b2 c2");
    bench.done();
    assert_eq!(bench.stop(), "run stop together c- b- a-");
}

#[test]
fn a_stop_while_the_family_falls_releases_the_mailboxes_and_keeps_the_cause() {
    let mut bench = Bench::of(options(Strategy::OneForOne, 0), "abc");
    assert_eq!(bench.crash("b"), "run stop c+ a+");
    let old = bench.run.unwrap();
    assert_eq!(bench.stop(), "cancel, run stop c- a-");
    assert_eq!(bench.feed(Input::RunDone { run: old, result: Ok(()) }), "");
    assert_eq!(bench.stop(), "", "again");
    assert_eq!(bench.done(), "finished restart intensity exceeded");
}

#[test]
fn a_fall_calls_off_all_other_restarts() {
    let mut bench = Bench::of(options(Strategy::OneForOne, 1), "abc");
    bench.crash("a");
    assert_eq!(bench.crash("c"), "cancel, run stop b+ a+");
    assert_eq!(bench.done(), "finished restart intensity exceeded");
}

#[test]
fn any_significant_child_that_ends_by_itself_ends_the_family() {
    let children = [("a", PERMANENT), ("s", SIGNIFICANT), ("t", SIGNIFICANT)];
    let with = auto(AutoShutdown::AnySignificant, Strategy::OneForOne);
    let mut bench = Bench::new(with.clone(), &children);
    assert_eq!(bench.exit("s", ExitCause::Normal), "rests s, run stop t- a-");
    assert_eq!(bench.done(), "finished normal");
    let mut bench = Bench::new(with.clone(), &children);
    assert_eq!(bench.crash("s"), "restarting s of 1 (1), run start s2", "it did not end");
    let temporary = ChildOptions { significant: true, ..TEMPORARY };
    for cause in [panic(), ExitCause::Normal] {
        let mut bench = Bench::new(with.clone(), &[("a", PERMANENT), ("s", temporary)]);
        assert_eq!(bench.exit("s", cause), "removed s, run stop a-");
    }
}

#[test]
fn the_last_significant_child_that_ends_by_itself_ends_the_family() {
    let temporary = ChildOptions { significant: true, ..TEMPORARY };
    let children = [("a", PERMANENT), ("s", SIGNIFICANT), ("t", temporary), ("n", TRANSIENT)];
    let with = auto(AutoShutdown::AllSignificant, Strategy::OneForOne);
    let mut bench = Bench::new(with.clone(), &children);
    assert_eq!(bench.exit("n", ExitCause::Normal), "rests n");
    assert_eq!(bench.exit("s", ExitCause::Normal), "rests s");
    assert_eq!(bench.crash("t"), "removed t, run stop a-");
    assert_eq!(bench.done(), "finished normal");
    // One that is between two lives has not ended.
    let mut bench = Bench::new(with, &children);
    bench.crash("s");
    assert_eq!(bench.exit("t", ExitCause::Normal), "removed t");
    bench.done();
    assert_eq!(bench.exit("s", ExitCause::Normal), "rests s, run stop n- a-");
}

#[test]
fn a_significant_child_that_an_operator_terminates_does_not_end_the_family() {
    for auto_shutdown in [AutoShutdown::AnySignificant, AutoShutdown::AllSignificant] {
        let temporary = ChildOptions { significant: true, ..TEMPORARY };
        let children = [("a", PERMANENT), ("s", SIGNIFICANT), ("t", temporary)];
        let mut bench = Bench::new(auto(auto_shutdown, Strategy::OneForOne), &children);
        bench.terminate(1, "s");
        assert_eq!(bench.exit("s", ExitCause::Stopped), "");
        assert_eq!(bench.done(), "reply 1 terminated");
        bench.terminate(2, "t");
        assert_eq!(bench.done(), "removed t, reply 2 terminated");
    }
}

#[test]
fn a_significant_child_taken_along_by_a_sibling_does_not_end_the_family() {
    for auto_shutdown in [AutoShutdown::AnySignificant, AutoShutdown::AllSignificant] {
        let temporary = ChildOptions { significant: true, ..TEMPORARY };
        let children = [("a", PERMANENT), ("s", SIGNIFICANT), ("t", temporary)];
        let mut bench = Bench::new(auto(auto_shutdown, Strategy::OneForAll), &children);
        bench.crash("a");
        let (key, incarnation) = (bench.key("t"), Incarnation(1));
        let cause = ExitCause::Stopped;
        assert_eq!(bench.feed(Input::Exited { key, incarnation, cause, widen: None }), "");
        assert_eq!(bench.done(), "removed t");
    }
}

#[test]
fn without_automatic_shutdown_significance_means_nothing() {
    let with = auto(AutoShutdown::Never, Strategy::OneForOne);
    let mut bench = Bench::new(with, &[("s", SIGNIFICANT)]);
    assert_eq!(bench.exit("s", ExitCause::Normal), "rests s");
}

#[test]
fn a_significant_child_that_ends_during_the_boot_ends_the_family_after_it() {
    let with = auto(AutoShutdown::AnySignificant, Strategy::OneForOne);
    let mut bench = Bench::fresh(with, &[("s", SIGNIFICANT), ("a", PERMANENT)]);
    bench.feed(Input::Boot);
    bench.exit("s", ExitCause::Normal);
    bench.start(1, "b", PERMANENT);
    assert_eq!(bench.done(), "booted, rests s, reply 1 gone, run stop a-");
}
