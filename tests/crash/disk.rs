//! The disk below the database is full, which the database may be the first to find. The run ends before anybody
//! retries or undoes what then finds no room either, and goes on when there is some.

use super::*;

/// A run of three transfers whose database has so much room.
fn with_room(folder: &Path, room: u64) -> Command {
    let mut command = finance(folder);
    command.args(["--disk", &room.to_string()]);
    command
}

/// Whether the database had too little room for that; then it must say so.
fn is_full(command: &mut Command, what: &str) -> bool {
    let output = command.output().unwrap();
    if output.status.code() == Some(0) {
        return false;
    }
    let errors = errors(&output);
    assert_eq!(output.status.code(), Some(3), "{what}: {}{errors}", text(&output));
    let named = ["error: database \"", "bank.redb\": ", "no space left on the disk"];
    assert!(named.iter().all(|text| errors.contains(text)), "{what}: {errors}");
    true
}

/// A start of this that acts and finds no room for it.
fn in_the_middle(mut command: impl FnMut() -> Command, what: &str) {
    for pages in 1..20 {
        let room = (pages * 4096_u64).to_string();
        let output = command().args(["--disk", &room]).output().unwrap();
        let errors = errors(&output);
        assert_eq!(output.status.code(), Some(3), "{what}, {pages} pages: {errors}");
        // With less it cannot even open it.
        if errors.contains("the database failed") {
            assert!(errors.contains("the same arguments go on"), "{what}: {errors}");
            return;
        }
    }
    panic!("{what}: it never acted");
}

/// Runs to the end, to what comes of it on a disk with room.
fn ends_as_ever(folder: &Path, what: &str) {
    let (summary, text) = ends(finance(folder), what);
    for none in ["lost", "duplicated", "notifications_duplicated", "unknown_open"] {
        assert_eq!(summary[none], 0, "{what}: {text}");
    }
    assert_eq!(summary["sum_before"], summary["sum_after"], "{what}: {text}");
    assert!(
        text.contains("2 done, 1 undone (0 for lack of funds), 0 in between"),
        "{what}: {text}"
    );
}

#[test]
fn a_disk_that_the_database_finds_full_ends_the_run_and_nothing_is_left_to_a_person() {
    // No multiple of a page, so that writes are cut here and there.
    let step = 17_003;
    let mut full = 0;
    loop {
        let folder = TempDir::new().unwrap();
        let room = full * step;
        let what = format!("room for {room} bytes");
        if !is_full(&mut with_room(folder.path(), room), &what) {
            break;
        }
        full += 1;
        ends_as_ever(folder.path(), &what);
    }
    assert!(full > 10, "it was full only {full} times");
}

#[test]
fn a_disk_that_stays_full_is_no_fault_of_the_transfers_in_hand() {
    let folder = half_done();
    for start in 1..=4 {
        in_the_middle(|| finance(folder.path()), &format!("start {start}"));
    }
    ends_as_ever(folder.path(), "with room again");
}

/// With its both sides done it is set aside at a start, and undone one side after the other, while nothing
/// else is left to do.
#[test]
fn the_user_of_a_transfer_that_is_set_aside_is_told_when_both_its_sides_are_undone() {
    // The credit is in the bank; and is known to be.
    for (round, point) in [8, 9, 10].into_iter().cycle().take(6).enumerate() {
        let folder = TempDir::new().unwrap();
        let run = || {
            let mut command = run_of(folder.path(), "1", "17", "0");
            // It is set aside after one end of the process.
            command.args(["--deaths", "1"]);
            command
        };
        let what = format!("round {round}, point {point}");
        die(run(), point, true);
        in_the_middle(run, &what);
        let output = run().arg("--count-points").output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{what}: {}{}", text(&output), errors(&output));
        assert!(text(&output).contains("0 done, 1 undone"), "{what}: {}", text(&output));
        ends_well(run(), &what);
    }
}
