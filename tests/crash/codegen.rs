//! The agent that writes functions is attacked as the one that moves money is. However it went on, every
//! function comes out as in a run that nobody has disturbed; or the store is refused, with its place named.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

use super::harness::{
    self, Dice, Log, Running, accepted, closed_folder, copy, die, ends, ends_without, errors,
    example, refused, text,
};

/// With this seed the first function is written again.
const SEED: &str = "8";
const RATE: &str = "0.4";

fn codegen(folder: &Path) -> Command {
    let mut command = run_of(folder, SEED, RATE);
    command.args(["--pace", "0"]);
    command
}

fn run_of(folder: &Path, seed: &str, rate: &str) -> Command {
    let mut command = example("codegen");
    command.arg("--store").arg(folder.join("store")).args(["--limit", "1"]);
    command.args(["--seed", seed, "--fault-rate", rate, "--summary", "json", "--tell-accepted"]);
    command
}

/// What a run comes to, however often it was begun.
const NAMES: [&str; 4] = ["functions", "usable", "templates", "regenerations"];

/// What it comes to when nobody disturbs it, and how many points it passes.
fn undisturbed() -> &'static (Value, u64) {
    static CLEAN: OnceLock<(Value, u64)> = OnceLock::new();
    CLEAN.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        let (points, text) = harness::points(codegen(folder.path()));
        let summary: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!([&summary["usable"], &summary["regenerations"]], [1, 1], "{text}");
        (summary, points)
    })
}

/// Runs to the end, and comes to the same.
fn ends_well(command: Command, what: &str) -> (Value, String) {
    let (summary, text) = ends(command, what);
    comes_to_the_same(&summary, what);
    (summary, text)
}

fn comes_to_the_same(summary: &Value, what: &str) {
    let (clean, _) = undisturbed();
    for name in NAMES {
        assert_eq!(summary[name], clean[name], "{what}: {name}: {summary}");
    }
    assert_eq!(summary["accepted"], summary["fates"]["done"], "{what}: {summary}");
}

/// A run that ended in the middle of its function, after the tenth line.
fn half_done() -> TempDir {
    let folder = TempDir::new().unwrap();
    let (_, points) = undisturbed();
    die(codegen(folder.path()), points - 2, true);
    folder
}

#[test]
fn an_agent_that_ends_at_any_point_is_gone_on_with() {
    let (_, points) = *undisturbed();
    assert!(points >= 6, "only {points} points to end at");
    let (mut resumed, mut again) = (0, 0);
    // After it, and after that again, before the next has got far; or before it.
    for (after, first) in [(true, 1), (false, 2)] {
        for point in (first..=points).step_by(2) {
            let folder = TempDir::new().unwrap();
            let what = format!("point {point} of {points}, after: {after}");
            let output = super::ended(codegen(folder.path()), point, after);
            assert_eq!(output.status.code(), None, "{what}: it did not die: {}", errors(&output));
            let known = accepted(&output);
            if after {
                again += u64::from(die(codegen(folder.path()), 1, true).status.code().is_none());
            }
            let (summary, _) = ends_without(codegen(folder.path()), &known, &what);
            comes_to_the_same(&summary, &what);
            resumed += summary["resumed"].as_u64().unwrap();
        }
    }
    assert!(resumed > 1, "only {resumed} functions were taken up");
    assert!(again > 1, "only {again} ended a second time");
}

#[test]
fn its_store_cut_or_scribbled_over_is_gone_on_with_or_refused_by_file_and_byte() {
    let folder = half_done();
    let log = Log::of(folder.path());
    let (mut well, mut refused) = (0, 0);
    let mut attacked = |copy: &Path, what: &str| {
        let output = codegen(copy).output().unwrap();
        let (text, errors) = (text(&output), errors(&output));
        match output.status.code() {
            Some(0) => {
                comes_to_the_same(
                    &serde_json::from_str(text.lines().last().unwrap()).unwrap(),
                    what,
                );
                well += 1;
            }
            code => {
                assert_eq!(code, Some(2), "{what}: {text}{errors}");
                assert!(log.is_named(&errors), "{what}: {errors}");
                refused += 1;
            }
        }
    };
    let mut dice = Dice::new("cut and scribbled over");
    for at in log.cuts().into_iter().skip(dice.below(2) as usize).step_by(2) {
        let copy = log.cut(folder.path(), at);
        attacked(copy.path(), &format!("cut at {at} of {}", log.bytes.len()));
    }
    for _ in 0..10 {
        let (copy, what) = log.scribbled(folder.path(), &mut dice);
        attacked(copy.path(), &what);
    }
    // What was cut off is written again: nothing outside the store is ahead of it.
    assert!(well > 2 && refused > 2, "{well} went on, {refused} were refused");
}

#[test]
fn its_store_that_is_full_ends_the_run_and_goes_on_when_there_is_room() {
    let folder = TempDir::new().unwrap();
    ends_well(codegen(folder.path()), "the reference");
    let size = Log::of(folder.path()).bytes.len() as u64;
    let folder = TempDir::new().unwrap();
    let mut full = 0;
    for part in 1..6 {
        let quota = (size * part / 6).to_string();
        let output = codegen(folder.path()).args(["--quota", &quota]).output().unwrap();
        match output.status.code() {
            Some(3) => {
                full += 1;
                let errors = errors(&output);
                let named = ["--store ", "is full", "the same arguments go on with it"];
                assert!(named.iter().all(|text| errors.contains(text)), "{quota}: {errors}");
            }
            code => assert_eq!(code, Some(0), "{quota} of {size}: {}", errors(&output)),
        }
    }
    assert!(full > 2, "it was full only {full} times");
    ends_well(codegen(folder.path()), "with room again");
}

/// The interpreter finds there what it is to check: without it every function would be found wrong, for ever.
#[test]
fn a_temporary_folder_that_cannot_be_used_ends_the_run_and_goes_on_when_it_can() {
    let folder = TempDir::new().unwrap();
    let missing = folder.path().join("missing");
    // Begun, and gone on with.
    for start in 1..=2 {
        let mut command = codegen(folder.path());
        for name in ["TMPDIR", "TMP", "TEMP"] {
            command.env(name, &missing);
        }
        let output = command.output().unwrap();
        let errors = errors(&output);
        assert_eq!(output.status.code(), Some(3), "start {start}: {}{errors}", text(&output));
        let named = ["temporary folder \"", "missing\": ", "the same arguments go on with it"];
        assert!(named.iter().all(|text| errors.contains(text)), "start {start}: {errors}");
    }
    ends_well(codegen(folder.path()), "with a temporary folder");
}

#[test]
fn a_clock_that_jumps_changes_nothing_in_what_it_writes() {
    let folder = half_done();
    // Its states are then of the future, and older than any that a rollback would take.
    for jump in ["-40000000", "40000000"] {
        let copy = copy(folder.path());
        let mut jumped = codegen(copy.path());
        jumped.args(["--clock-jump", jump]);
        assert_eq!(die(jumped, 1, true).status.code(), None, "jump {jump}");
        let (summary, text) = ends_well(codegen(copy.path()), "back after a jump");
        assert_eq!(summary["resumed"], 1, "jump {jump}: {summary}");
        assert!(text.contains("was gone on with after line 1"), "jump {jump}: {text}");
    }
}

#[test]
fn what_it_cannot_use_is_refused_by_name() {
    let folder = half_done();
    let at = |seed, rate| run_of(folder.path(), seed, rate);
    refused(at("2", RATE), 2, &["--store", "--seed 8,", "--seed 2;", "another --store"]);
    refused(at(SEED, "0.1"), 2, &["--fault-rate 0.4", "--fault-rate 0.1"]);

    // Another program's, which says so; and before it could say so.
    let money = TempDir::new().unwrap();
    die(super::finance(money.path()), 1, true);
    let theirs =
        ["another tree", "- finance/transfers/teller stateful", "+ codegen/coder stateful"];
    refused(codegen(money.path()), 2, &theirs);
    die(super::finance(money.path()), 20, true);
    refused(codegen(money.path()), 2, &["program finance ", "program codegen "]);
    super::ends_well(super::finance(money.path()), "after another program has looked");
    // And the other way round.
    let swapped = copy(folder.path());
    refused(super::finance(swapped.path()), 3, &["program codegen ", "program finance "]);
    ends_well(codegen(swapped.path()), "after another program has looked");

    let closed = closed_folder(folder.path());
    refused(codegen(&closed), 2, &[closed.to_str().unwrap()]);

    let busy = TempDir::new().unwrap();
    let slow = || {
        let mut command = run_of(busy.path(), SEED, RATE);
        command.args(["--pace", "1000"]);
        command
    };
    let running = Running::with_store(slow(), busy.path());
    refused(slow(), 2, &["in use by process", &running.pid()]);
    drop(running);
    ends_well(codegen(folder.path()), "after all of that");
}
