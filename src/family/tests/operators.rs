//! Start, terminate, restart, delete.

use super::*;

fn slow(strategy: Strategy) -> FamilyOptions {
    let backoff = Some((Duration::from_millis(100), Duration::from_secs(1)));
    FamilyOptions { backoff, ..options(strategy, 9) }
}

const STRATEGIES: [Strategy; 3] = [Strategy::OneForOne, Strategy::RestForOne, Strategy::OneForAll];

#[test]
fn a_started_child_has_its_key_at_once_and_is_answered_when_it_is_up() {
    let mut bench = Bench::of(options(Strategy::OneForOne, 5), "a");
    assert_eq!(bench.start(1, "b", PERMANENT), "run start b1");
    assert_eq!(bench.status("b"), ChildStatus::Starting);
    assert_eq!(bench.done(), "reply 1 started b");
    assert!(bench.key("b") > bench.key("a"));
}

#[test]
fn a_child_whose_first_start_fails_is_refused_and_not_kept() {
    for kind in [PERMANENT, TRANSIENT, TEMPORARY] {
        let mut bench = Bench::of(options(Strategy::OneForOne, 0), "a");
        bench.start(1, "b", kind);
        assert_eq!(bench.fails("b"), "removed b, reply 1 failed");
        assert_eq!(bench.family.key_of("b"), None);
        assert_eq!(bench.start(2, "b", kind), "run start b1", "the id is free again");
        assert_ne!(bench.key("b"), Key(1), "the key is not");
    }
}

#[test]
fn a_duplicate_is_refused_and_does_not_disturb_the_child() {
    let mut bench = Bench::of(slow(Strategy::OneForOne), "a");
    assert_eq!(bench.start(1, "a", TEMPORARY), "reply 1 already started");
    bench.crash("a");
    assert_eq!(bench.start(2, "a", TEMPORARY), "reply 2 already started");
    assert_eq!(bench.due(), "run start a2");
    assert_eq!(bench.start(3, "a", TEMPORARY), "reply 3 already started");
    bench.done();
    assert_eq!(bench.status("a"), ChildStatus::Running);
    bench.terminate(4, "a");
    bench.done();
    assert_eq!(bench.start(5, "a", TEMPORARY), "reply 5 already present");
    bench.start(6, "b", PERMANENT);
    assert_eq!(bench.start(7, "b", PERMANENT), "reply 7 already started");
}

#[test]
fn the_limit_on_children_counts_those_in_backoff_and_those_that_are_stopped() {
    let mut with = slow(Strategy::OneForOne);
    with.max_children = Some(2);
    let mut bench = Bench::of(with, "ab");
    bench.crash("a");
    assert_eq!(bench.start(1, "c", PERMANENT), "reply 1 max 2");
    bench.terminate(2, "b");
    bench.done();
    assert_eq!(bench.start(3, "c", PERMANENT), "reply 3 max 2");
    assert_eq!(bench.due(), "run start a2", "the child in backoff comes back");
    bench.delete(4, "b");
    assert_eq!(bench.start(5, "c", PERMANENT), "run start c1");
}

#[test]
fn a_child_that_dies_before_its_start_is_reported_was_started() {
    let mut bench = Bench::of(options(Strategy::OneForOne, 5), "");
    bench.start(1, "a", PERMANENT);
    let old = bench.run.unwrap();
    assert_eq!(bench.crash("a"), "cancel, reply 1 started a, restarting a of 1 (1), run start a2");
    assert_eq!(bench.feed(Input::RunDone { run: old, result: Ok(()) }), "");
    bench.start(2, "t", TEMPORARY);
    assert_eq!(bench.crash("t"), "cancel, reply 2 started t, removed t");
}

#[test]
fn a_terminated_child_keeps_its_spec_and_a_temporary_one_does_not() {
    let mut bench = Bench::new(
        options(Strategy::OneForOne, 5),
        &[("a", PERMANENT), ("b", TRANSIENT), ("c", TEMPORARY)],
    );
    for id in ["a", "b"] {
        assert_eq!(bench.terminate(1, id), format!("run stop {id}-"));
        assert_eq!(bench.status(id), ChildStatus::Stopping);
        assert_eq!(bench.done(), "reply 1 terminated");
        assert_eq!(bench.status(id), ChildStatus::Stopped);
        assert_eq!(bench.terminate(2, id), "reply 2 terminated", "again");
    }
    bench.terminate(3, "c");
    assert_eq!(bench.done(), "removed c, reply 3 terminated");
    assert_eq!(bench.terminate(4, "c"), "reply 4 not found");
}

#[test]
fn restart_and_delete_need_a_stopped_child() {
    let mut bench = Bench::of(slow(Strategy::OneForOne), "a");
    assert_eq!(bench.restart(1, "a"), "reply 1 running");
    assert_eq!(bench.delete(2, "a"), "reply 2 running");
    assert_eq!(bench.restart(3, "x"), "reply 3 not found");
    assert_eq!(bench.delete(4, "x"), "reply 4 not found");
    bench.crash("a");
    assert_eq!(bench.restart(5, "a"), "reply 5 restarting");
    assert_eq!(bench.delete(6, "a"), "reply 6 restarting");
    bench.due();
    assert_eq!(bench.restart(7, "a"), "reply 7 restarting");
    assert_eq!(bench.delete(8, "a"), "reply 8 restarting");
    bench.done();
    assert_eq!(bench.delete(9, "a"), "reply 9 running");
}

#[test]
fn a_failed_restart_by_an_operator_is_told_and_neither_counted_nor_tried_again() {
    let mut bench = Bench::of(options(Strategy::OneForOne, 0), "ab");
    bench.terminate(1, "a");
    bench.done();
    bench.restart(2, "a");
    assert_eq!(bench.fails("a"), "rests a, reply 2 failed");
    assert_eq!(bench.status("a"), ChildStatus::Stopped);
    assert_eq!(bench.restart(3, "a"), "run start a3");
    assert_eq!(bench.done(), "reply 3 restarted");
}

#[test]
fn terminate_during_backoff_cancels_the_restart() {
    for strategy in STRATEGIES {
        let mut bench = Bench::of(slow(strategy), "a");
        bench.crash("a");
        assert_eq!(bench.status("a"), ChildStatus::Restarting);
        assert_eq!(
            bench.terminate(1, "a"),
            "run stop a-",
            "{strategy}: what waits must hear of it"
        );
        assert_eq!(bench.due(), "");
        assert_eq!(bench.done(), "reply 1 terminated");
        assert_eq!(bench.due(), "");
        assert_eq!(bench.status("a"), ChildStatus::Stopped);
        assert_eq!(bench.restart(2, "a"), "run start a2");
        bench.done();
    }
}

#[test]
fn terminate_during_the_backoff_of_siblings_takes_only_this_child_out() {
    let mut bench = Bench::of(slow(Strategy::OneForAll), "abc");
    bench.crash("a");
    bench.done();
    assert_eq!(bench.terminate(1, "b"), "run stop b-");
    assert_eq!(bench.done(), "reply 1 terminated");
    assert_eq!(bench.terminate(2, "a"), "run stop a-", "the one that crashed");
    assert_eq!(bench.done(), "reply 2 terminated");
    assert_eq!(bench.due(), "run start c2");
    assert_eq!(bench.done(), "");
    assert_eq!(bench.status("b"), ChildStatus::Stopped);
}

#[test]
fn a_restart_of_siblings_without_any_left_is_over_at_once() {
    let mut bench = Bench::of(slow(Strategy::OneForAll), "ab");
    bench.crash("a");
    bench.done();
    assert_eq!(bench.start(1, "c", PERMANENT), "", "waits");
    bench.terminate(2, "a");
    bench.done();
    assert_eq!(bench.terminate(3, "b"), "run stop b-, run start c1");
    assert_eq!(bench.due(), "");
}

#[test]
fn terminate_while_a_child_restarts_alone_calls_the_restart_off() {
    let mut bench = Bench::of(options(Strategy::OneForOne, 9), "a");
    bench.crash("a");
    let old = bench.run.unwrap();
    assert_eq!(bench.terminate(1, "a"), "cancel, run stop a-");
    assert_eq!(bench.feed(Input::RunDone { run: old, result: Ok(()) }), "");
    assert_eq!(bench.done(), "reply 1 terminated");
    assert_eq!(bench.status("a"), ChildStatus::Stopped);
}

#[test]
fn terminate_while_siblings_restart_waits_for_the_run() {
    let mut bench = Bench::of(options(Strategy::OneForAll, 9), "ab");
    bench.crash("a");
    assert_eq!(bench.terminate(1, "b"), "");
    assert_eq!(bench.restart(2, "b"), "reply 2 restarting");
    assert_eq!(bench.delete(3, "b"), "reply 3 restarting");
    assert_eq!(bench.done(), "run stop b-");
    assert_eq!(bench.done(), "reply 1 terminated");
}

#[test]
fn terminate_while_siblings_stop_for_a_later_restart_is_done_when_they_are_stopped() {
    let mut bench = Bench::of(slow(Strategy::OneForAll), "ab");
    bench.crash("a");
    assert_eq!(bench.terminate(1, "b"), "");
    assert_eq!(bench.done(), "run stop b-");
    assert_eq!(bench.done(), "reply 1 terminated");
    assert_eq!(bench.due(), "run start a2");
}

#[test]
fn a_child_of_a_temporary_type_taken_along_is_gone_when_terminate_comes_to_it() {
    let mut bench =
        Bench::new(options(Strategy::OneForAll, 9), &[("a", PERMANENT), ("t", TEMPORARY)]);
    bench.crash("a");
    assert_eq!(bench.terminate(1, "t"), "");
    assert_eq!(bench.done(), "removed t, reply 1 not found");
}

#[test]
fn what_is_wanted_of_a_child_is_done_in_the_order_it_was_asked() {
    let mut bench = Bench::of(options(Strategy::OneForOne, 9), "a");
    bench.terminate(1, "a");
    assert_eq!(bench.restart(2, "a"), "");
    assert_eq!(bench.terminate(3, "a"), "");
    assert_eq!(bench.delete(4, "a"), "");
    assert_eq!(bench.done(), "reply 1 terminated, run start a2");
    assert_eq!(bench.done(), "reply 2 restarted, run stop a-");
    assert_eq!(bench.done(), "reply 3 terminated, removed a, reply 4 deleted");
}

#[test]
fn start_and_restart_wait_while_siblings_restart_and_are_refused_at_once_if_at_all() {
    let mut bench = Bench::of(slow(Strategy::RestForOne), "abc");
    bench.terminate(1, "c");
    bench.done();
    bench.crash("b");
    assert_eq!(bench.start(2, "d", PERMANENT), "");
    assert_eq!(bench.start(3, "d", PERMANENT), "reply 3 already started");
    assert_eq!(bench.restart(4, "c"), "");
    assert_eq!(bench.due(), "run start b2");
    assert_eq!(bench.done(), "run start d1, run start c2");
    assert_eq!(bench.done(), "reply 4 restarted");
}

#[test]
fn a_start_under_way_is_called_off_by_a_restart_of_siblings_and_done_again() {
    let mut bench = Bench::of(options(Strategy::OneForAll, 9), "ab");
    bench.terminate(1, "b");
    bench.done();
    bench.start(2, "c", TEMPORARY);
    bench.restart(3, "b");
    let said = bench.crash("a");
    assert_eq!(said, "cancel, cancel, restarting a of 1 (1), run stop c+ b+ start a2");
    assert_eq!(bench.delete(4, "c"), "reply 4 restarting");
    assert_eq!(bench.done(), "run start b3, run start c2");
    assert_eq!(bench.done(), "reply 2 started c");
}

#[test]
fn operators_wait_for_the_boot() {
    let mut bench = Bench::fresh(options(Strategy::OneForOne, 9), &[("a", PERMANENT)]);
    assert_eq!(bench.start(1, "b", PERMANENT), "");
    assert_eq!(bench.terminate(2, "a"), "");
    assert_eq!(bench.feed(Input::Boot), "run start a1");
    assert_eq!(bench.start(3, "c", PERMANENT), "");
    assert_eq!(bench.restart(4, "a"), "");
    assert_eq!(bench.delete(5, "b"), "");
    let said = bench.done();
    assert_eq!(said, "booted, run start b1, run stop a-, run start c1");
}

#[test]
fn counts_are_as_in_otp() {
    let mut bench = Bench::new(
        options(Strategy::OneForOne, 9),
        &[("a", PERMANENT), ("s", ChildOptions { is_supervisor: true, ..PERMANENT })],
    );
    bench.terminate(1, "a");
    bench.done();
    let counts = ChildCounts { specs: 2, active: 1, supervisors: 1, workers: 1 };
    assert_eq!(bench.family.count_children(), counts);
    bench.delete(2, "a");
    let counts = ChildCounts { specs: 1, active: 1, supervisors: 1, workers: 0 };
    assert_eq!(bench.family.count_children(), counts);
    let infos = bench.family.which_children();
    assert_eq!(infos.len(), 1);
    assert_eq!((&*infos[0].id, infos[0].status), ("s", ChildStatus::Running));
}
