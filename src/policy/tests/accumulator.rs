//! Small failures that add up.

use super::*;

const WINDOW: Duration = Duration::from_secs(60);

fn too_many(limit: u32) -> Declined {
    Declined::SoftFailures { limit, window: WINDOW }
}

#[test]
fn so_many_soft_failures_are_mended_one_by_one_and_the_next_goes_a_rung_further() {
    check(class(Class::ToolExecution).added_up(19), "retry in 1s");
    declines(class(Class::ToolExecution).added_up(20), too_many(20));
    let members = [Candidate::new(0), Candidate::new(1)];
    let why = "no retry: the task has had 20 soft failures within 60s";
    check(
        class(Class::Network).added_up(20).members(members),
        &format!("substitute member 1; {why}"),
    );
    let alone = class(Class::Network).added_up(25).look(|look| look.has_parent = true);
    check(
        alone.clone().checkpoint(false, false),
        &format!("rollback; {why}; no substitute: stands in no group"),
    );
    check(
        alone,
        &format!("escalate; {why}; no substitute: stands in no group; no rollback: no checkpoint"),
    );
}

#[test]
fn the_tolerance_is_a_number_and_a_window_of_the_policy() {
    let three = |given: Given| given.policy(|policy| policy.with_tolerance(3, WINDOW));
    check(three(class(Class::Network).added_up(2)), "retry in 1s");
    declines(three(class(Class::Network).added_up(3)), too_many(3));
    // What has a reason of its own is declined for that.
    declines(
        three(class(Class::Permission).added_up(3)),
        Declined::ClassNotRetryable(Class::Permission),
    );
    declines(
        three(class(Class::Network).retried(Class::Network, 3).added_up(3)),
        Declined::ClassCap { class: Class::Network, cap: 3 },
    );
}

#[test]
fn the_redelivery_after_a_crash_is_no_soft_failure() {
    check(exit(ExitCause::Hang).added_up(Tolerance::MOST), "retry in 0ns");
}

#[test]
fn a_soft_failure_counts_until_it_is_as_old_as_the_window() {
    let mut soft = SoftFailures::default();
    assert_eq!(soft.within(WINDOW, NOW), 0);
    for at in [0, 10, 10, 59_999] {
        soft.note(NOW + ms(at));
    }
    for (at, window, count) in [
        (59_999, 60_000, 4),
        (60_000, 60_000, 3),
        (60_009, 60_000, 3),
        (60_010, 60_000, 1),
        (119_998, 60_000, 1),
        (119_999, 60_000, 0),
        // A longer memory finds them again.
        (119_999, 120_000, 4),
    ] {
        assert_eq!(soft.within(ms(window), NOW + ms(at)), count, "{at} in {window}");
    }
    for _ in 0..=Tolerance::MOST {
        soft.note(NOW + ms(60_000));
    }
    assert_eq!(soft.within(WINDOW, NOW + ms(60_000)), Tolerance::MOST);
}
