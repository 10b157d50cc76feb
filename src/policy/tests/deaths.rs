//! How a request is handed out again with which in hand the process has ended.

use crate::policy::deaths::{Again, PROCESS_DEATHS, again};

#[test]
fn a_request_that_ends_the_process_too_often_is_not_handed_out_again() {
    use Again::{Alone, Freely, Never};
    for (deaths, limit, expected) in [
        (0, PROCESS_DEATHS, Freely),
        (1, PROCESS_DEATHS, Alone),
        (2, PROCESS_DEATHS, Alone),
        (3, PROCESS_DEATHS, Never),
        // A limit that was lowered meanwhile.
        (7, PROCESS_DEATHS, Never),
        (0, 1, Freely),
        (1, 1, Never),
        (99, 100, Alone),
        (100, 100, Never),
        (0, u32::MAX, Freely),
        (u32::MAX - 1, u32::MAX, Alone),
        (u32::MAX, u32::MAX, Alone),
    ] {
        assert_eq!(again(deaths, limit), expected, "{deaths} of {limit}");
    }
}
