//! Reason x type x strategy, as OTP's `supervisor_SUITE` walks them.

use super::*;

/// What the family says when `b` of `a`, `b`, `c` ends; `a` and `c` are permanent.
fn check(strategy: Strategy, kind: ChildOptions, cause: &ExitCause, expected: &str) {
    let children = [("a", PERMANENT), ("b", kind), ("c", PERMANENT)];
    let mut bench = Bench::new(options(strategy, 1), &children);
    let said = bench.exit("b", cause.clone());
    assert_eq!(said, expected, "{strategy} {} {cause}", kind.restart);
}

fn normal() -> [ExitCause; 2] {
    [ExitCause::Normal, ExitCause::Stopped]
}

fn abnormal() -> [ExitCause; 6] {
    [
        panic(),
        ExitCause::Hang,
        ExitCause::Killed,
        ExitCause::StartFailed("no".into()),
        ExitCause::Poisoned("bad".into()),
        ExitCause::Faulted(crate::fault::Class::Permission),
    ]
}

const ONE: &str = "restarting b of 1 (1), run start b2";
const REST: &str = "restarting b of 2 (1), run stop c+ start b2 c2";
const ALL: &str = "restarting b of 3 (1), run stop c+ a+ start a2 b2 c2";
const EACH: [(Strategy, &str); 3] =
    [(Strategy::OneForOne, ONE), (Strategy::RestForOne, REST), (Strategy::OneForAll, ALL)];

#[test]
fn a_permanent_child_is_restarted_after_every_end() {
    for (strategy, expected) in EACH {
        for cause in normal().iter().chain(&abnormal()) {
            check(strategy, PERMANENT, cause, expected);
        }
    }
}

#[test]
fn a_transient_child_is_restarted_only_after_an_abnormal_end() {
    for (strategy, expected) in EACH {
        for cause in &normal() {
            check(strategy, TRANSIENT, cause, "rests b");
        }
        for cause in &abnormal() {
            check(strategy, TRANSIENT, cause, expected);
        }
    }
}

#[test]
fn a_temporary_child_is_never_restarted_and_its_spec_goes_with_it() {
    for (strategy, _) in EACH {
        for cause in normal().iter().chain(&abnormal()) {
            check(strategy, TEMPORARY, cause, "removed b");
        }
    }
}

#[test]
fn a_transient_child_that_ended_normally_stays_and_can_be_restarted_or_deleted() {
    let mut bench = Bench::new(options(Strategy::OneForOne, 1), &[("a", TRANSIENT)]);
    bench.exit("a", ExitCause::Normal);
    assert_eq!(bench.status("a"), ChildStatus::Stopped);
    assert_eq!(bench.restart(1, "a"), "run start a2");
    assert_eq!(bench.done(), "reply 1 restarted");
    bench.exit("a", ExitCause::Normal);
    assert_eq!(bench.delete(2, "a"), "removed a, reply 2 deleted");
}

#[test]
fn children_start_from_left_to_right_and_stop_from_right_to_left() {
    let mut bench =
        Bench::fresh(options(Strategy::OneForOne, 1), &[("a", PERMANENT), ("b", TEMPORARY)]);
    assert_eq!(bench.feed(Input::Boot), "run start a1 b1");
    assert_eq!(bench.done(), "booted");
    assert_eq!(bench.start(1, "c", TRANSIENT), "run start c1");
    assert_eq!(bench.done(), "reply 1 started c");
    assert_eq!(bench.stop(), "run stop c- b- a-");
    assert_eq!(bench.done(), "finished stopped");
}

#[test]
fn a_family_without_children_boots_and_ends_at_once() {
    let mut bench = Bench::fresh(FamilyOptions::default(), &[]);
    assert_eq!(bench.feed(Input::Boot), "booted");
    assert_eq!(bench.feed(Input::Boot), "");
    assert_eq!(bench.stop(), "finished stopped");
    assert_eq!(bench.stop(), "");
}

#[test]
fn a_failed_start_in_the_boot_stops_those_before_it_in_reverse_and_ends_the_family() {
    for kind in [PERMANENT, TRANSIENT, TEMPORARY] {
        let children = [("a", PERMANENT), ("b", PERMANENT), ("c", kind), ("d", PERMANENT)];
        let mut bench = Bench::fresh(options(Strategy::OneForOne, 1), &children);
        assert_eq!(bench.feed(Input::Boot), "run start a1 b1 c1 d1");
        assert_eq!(bench.fails("c"), "run stop b+ a+");
        assert_eq!(bench.done(), "finished start failed");
        let Output::Finished { start_error: Some(StartError::Child { child, cause }), .. } =
            &bench.said[0]
        else {
            panic!("{:?}", bench.said);
        };
        assert_eq!(child, "top/c");
        assert_eq!(*cause, ExitCause::StartFailed("no".into()));
    }
}

#[test]
fn a_kept_child_that_does_not_start_is_judged_after_the_boot_of_the_others() {
    let mut bench = Bench::fresh(options(Strategy::OneForOne, 3), &[("a", PERMANENT)]);
    for (id, options) in [("b", PERMANENT), ("c", TEMPORARY), ("d", PERMANENT), ("e", TRANSIENT)] {
        bench.family.add_kept(id.into(), options, Incarnation::NONE).unwrap();
    }
    assert_eq!(bench.feed(Input::Boot), "run start a1 b1 c1 d1 e1");
    assert_eq!(bench.fails("b"), "run start c1 d1 e1");
    assert_eq!(bench.crash("a"), "", "it is not booted yet");
    assert_eq!(bench.fails("c"), "run start d1 e1");
    let judged =
        "restarting b of 1 (0), run start b2, restarting a of 1 (1), run start a2, removed c";
    assert_eq!(bench.fails("e"), format!("booted, {judged}, restarting e of 1 (1), run start e2"));
    assert_eq!(bench.status("d"), ChildStatus::Running);
}

/// With `a` of the spec and kept children of these ids, of which all fail in the boot.
fn none_kept_starts(options: FamilyOptions, ids: &[&str]) -> (Bench, String) {
    let mut bench = Bench::fresh(options, &[("a", PERMANENT)]);
    for id in ids {
        bench.family.add_kept((*id).into(), PERMANENT, Incarnation::NONE).unwrap();
    }
    bench.feed(Input::Boot);
    let said = ids.iter().map(|id| bench.fails(id)).last().unwrap();
    (bench, said)
}

#[test]
fn kept_children_that_do_not_start_are_quarantined_one_by_one_and_end_no_family() {
    for (strategy, _) in EACH {
        for own in [None, Some(Limit::new(1, Duration::from_secs(5)))] {
            let options = FamilyOptions { child_limit: own, ..options(strategy, 1) };
            let (mut bench, said) = none_kept_starts(options, &["b", "c"]);
            let each = "restarting b of 1 (0), run start b2, restarting c of 1 (0), run start c2";
            assert_eq!(said, format!("booted, {each}"), "{strategy}");
            assert_eq!(bench.fails("c"), "quarantined c", "{strategy}");
            bench.run = bench.run.map(|RunId(c)| RunId(c - 1));
            assert_eq!(bench.fails("b"), "quarantined b", "{strategy}");
            assert_eq!(bench.status("a"), ChildStatus::Running);
            assert!(bench.crash("a").starts_with("restarting a of 1 (1)"), "nothing was counted");
        }
    }
}

/// It was said to be up when nobody had asked it anything yet.
#[test]
fn a_lazy_kept_child_that_does_not_start_with_its_first_request_counts_against_itself_only() {
    let no = || ExitCause::StartFailed("no".into());
    for (strategy, _) in EACH {
        let mut bench = Bench::fresh(options(strategy, 1), &[("a", PERMANENT)]);
        for id in ["b", "c"] {
            bench.family.add_kept(id.into(), PERMANENT, Incarnation::NONE).unwrap();
        }
        bench.feed(Input::Boot);
        // One is asked within the boot.
        assert_eq!(bench.exit("c", no()), "", "{strategy}");
        assert_eq!(bench.done(), "booted, restarting c of 1 (0), run start c2", "{strategy}");
        assert_eq!(bench.fails("c"), "quarantined c", "{strategy}");
        assert_eq!(bench.exit("b", no()), "restarting b of 1 (0), run start b2", "{strategy}");
        assert_eq!(bench.fails("b"), "quarantined b", "{strategy}");
        let next = bench.crash("a");
        assert!(next.starts_with("restarting a of 1 (1)"), "nothing was counted: {next}");
    }
    // One that had begun, and was to begin again with the next request.
    let mut bench = Bench::fresh(options(Strategy::OneForOne, 1), &[("a", PERMANENT)]);
    bench.family.add_kept("b".into(), PERMANENT, Incarnation::NONE).unwrap();
    bench.feed(Input::Boot);
    bench.done();
    assert_eq!(bench.crash("b"), "restarting b of 1 (1), run start b2");
    bench.done();
    assert_eq!(bench.exit("b", no()), "run stop a+", "the second is one too many");
}

#[test]
fn a_kept_child_that_was_up_once_counts_as_any_other() {
    let own = Some(Limit::new(9, Duration::from_secs(5)));
    let options = FamilyOptions { child_limit: own, ..options(Strategy::OneForAll, 1) };
    let (mut bench, _) = none_kept_starts(options.clone(), &["b"]);
    bench.done();
    assert_eq!(bench.crash("b"), "restarting b of 2 (1), run stop a+ start a2 b3");
    assert_eq!(bench.fails("b"), "run stop a+", "the second is one too many");
    // Also one that ends before it is known that it was up: in its own run, and in the boot.
    let (mut bench, _) = none_kept_starts(options.clone(), &["b"]);
    assert_eq!(bench.crash("b"), "cancel, restarting b of 2 (1), run stop a+ start a2 b3");
    let mut bench = Bench::fresh(options, &[("a", PERMANENT)]);
    bench.family.add_kept("b".into(), PERMANENT, Incarnation::NONE).unwrap();
    bench.feed(Input::Boot);
    bench.crash("b");
    assert_eq!(bench.done(), "booted, restarting b of 2 (1), run stop a+ start a2 b2");
}

#[test]
fn a_kept_child_that_does_not_start_waits_for_its_backoff_and_holds_up_no_siblings() {
    let own = Some(Limit::new(9, Duration::from_secs(5)));
    let backoff = Some((Duration::from_millis(50), Duration::from_millis(500)));
    let options = FamilyOptions { child_limit: own, ..options(Strategy::OneForAll, 1) };
    let options = FamilyOptions { backoff, ..options };
    let (mut bench, said) = none_kept_starts(options.clone(), &["b"]);
    assert_eq!(said, "booted, restarting b of 1 (0), arm 50ms");
    bench.wait(50);
    assert_eq!(bench.due(), "run start b2");
    assert_eq!(bench.fails("b"), "restarting b of 1 (0), arm 100ms");
    // In a restart of its siblings, of which it takes part, too.
    let (mut bench, _) = none_kept_starts(FamilyOptions { backoff: None, ..options }, &["b", "c"]);
    assert_eq!(
        bench.crash("a"),
        "cancel, cancel, restarting a of 3 (1), run stop c+ b+ start a2 b3 c3"
    );
    assert_eq!(bench.fails("b"), "restarting b of 1 (1), run start b4, run start c4");
    assert_eq!(bench.done(), "");
    assert_eq!(bench.status("c"), ChildStatus::Running);
    bench.run = bench.run.map(|RunId(c)| RunId(c - 1));
    assert_eq!(bench.done(), "");
    assert_eq!(bench.status("b"), ChildStatus::Running);
}

#[test]
fn a_child_of_the_spec_that_does_not_start_ends_a_family_with_kept_children_too() {
    let mut bench = Bench::fresh(options(Strategy::OneForOne, 3), &[("a", PERMANENT)]);
    bench.family.add_kept("b".into(), PERMANENT, Incarnation::NONE).unwrap();
    bench.feed(Input::Boot);
    assert_eq!(bench.fails("a"), "finished start failed");
    let mut bench = Bench::fresh(options(Strategy::OneForOne, 3), &[("a", PERMANENT)]);
    for id in ["b", "c"] {
        bench.family.add_kept(id.into(), PERMANENT, Incarnation::NONE).unwrap();
    }
    bench.feed(Input::Boot);
    bench.fails("b");
    // Within the boot.
    assert_eq!(bench.stop(), "cancel, run stop c- a-");
}

#[test]
fn a_first_child_that_does_not_start_ends_the_family_with_nothing_to_stop() {
    let mut bench = Bench::fresh(FamilyOptions::default(), &[("a", PERMANENT), ("b", PERMANENT)]);
    bench.feed(Input::Boot);
    assert_eq!(bench.fails("a"), "finished start failed");
}

#[test]
fn a_child_that_dies_during_the_boot_is_judged_after_it() {
    for (strategy, expected) in EACH {
        let children = [("a", PERMANENT), ("b", PERMANENT), ("c", PERMANENT)];
        let mut bench = Bench::fresh(options(strategy, 1), &children);
        bench.feed(Input::Boot);
        assert_eq!(bench.crash("b"), "");
        assert_eq!(bench.crash("b"), "", "said twice");
        assert_eq!(bench.done(), format!("booted, {expected}"));
    }
}

#[test]
fn a_child_that_died_during_a_boot_that_fails_is_not_stopped_again() {
    let children = [("a", PERMANENT), ("b", PERMANENT), ("c", PERMANENT)];
    let mut bench = Bench::fresh(options(Strategy::OneForOne, 1), &children);
    bench.feed(Input::Boot);
    bench.crash("b");
    assert_eq!(bench.fails("c"), "run stop a+");
}

#[test]
fn two_deaths_during_the_boot_of_one_for_all_are_one_restart() {
    let children = [("a", PERMANENT), ("b", PERMANENT), ("t", TEMPORARY)];
    let mut bench = Bench::fresh(options(Strategy::OneForAll, 1), &children);
    bench.feed(Input::Boot);
    bench.crash("a");
    bench.crash("b");
    bench.crash("t");
    assert_eq!(bench.done(), "booted, restarting a of 2 (1), run stop t- start a2 b2");
    assert_eq!(bench.done(), "removed t");
}

#[test]
fn an_exit_of_an_old_life_changes_nothing() {
    let mut bench = Bench::of(options(Strategy::OneForOne, 5), "a");
    bench.crash("a");
    bench.done();
    for life in [0, 1, 3] {
        let key = bench.key("a");
        let incarnation = Incarnation(life);
        let exited = Input::Exited { key, incarnation, cause: panic(), widen: None };
        assert_eq!(bench.feed(exited), "");
    }
    assert_eq!(bench.status("a"), ChildStatus::Running);
}

#[test]
fn an_exit_may_ask_for_a_wider_strategy_and_never_for_a_narrower_one() {
    let mut bench = Bench::of(options(Strategy::OneForOne, 5), "abc");
    let widen = |strategy| Some(strategy);
    assert_eq!(bench.exit_widen("b", panic(), widen(Strategy::OneForAll)), ALL);
    let mut bench = Bench::of(options(Strategy::OneForOne, 5), "abc");
    assert_eq!(bench.exit_widen("b", panic(), widen(Strategy::RestForOne)), REST);
    let mut bench = Bench::of(options(Strategy::OneForAll, 5), "abc");
    assert_eq!(bench.exit_widen("b", panic(), widen(Strategy::OneForOne)), ALL);
}

#[test]
fn the_last_life_of_a_child_before_its_supervisor_was_restarted_counts_on() {
    let mut family = Family::new(ChildPath::new("top"), FamilyOptions::default());
    let key = family.add_static("a".into(), PERMANENT, Incarnation(7)).unwrap();
    assert_eq!(family.add_static("a".into(), PERMANENT, Incarnation::NONE), Err(()));
    let said = family.on(Input::Boot, Moment::START);
    assert!(matches!(&said[0], Output::Run { start, .. } if *start == [(key, Incarnation(8))]));
    assert_eq!(family.add_static("b".into(), PERMANENT, Incarnation::NONE), Err(()));
}

#[test]
fn names_in_specs_and_dumps_are_otps() {
    for (strategy, _) in EACH {
        let text = serde_json::to_string(&strategy).unwrap();
        assert_eq!(text, format!("\"{strategy}\""));
    }
    assert_eq!(Strategy::OneForOne.to_string(), "one_for_one");
    assert_eq!(RestartType::Transient.to_string(), "transient");
    assert_eq!(Shutdown::default(), Shutdown::Timeout(Duration::from_secs(5)));
    assert_eq!(Limit::default(), Limit::new(1, Duration::from_secs(5)));
}
