//! The finance example is killed at every numbered point, at random, twice in a row; its store is cut,
//! scribbled over and filled up. However it went on, the database says that each transfer is done or
//! undone as a whole, with one notice.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Of the three transfers of this run one is undone, a notice's answer is lost, and others are retried.
const TRANSFERS: &str = "3";
const SEED: &str = "20";
const RATE: &str = "0.25";

/// The built example. `cargo test --test crash` alone does not build it.
fn example() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let me = std::env::current_exe().unwrap();
        // <target>/<profile>/deps/crash-...
        let profile = me.parent().and_then(Path::parent).unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--example", "finance", "--target-dir"]);
        cargo.arg(profile.parent().unwrap()).current_dir(env!("CARGO_MANIFEST_DIR"));
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success(), "the example does not build");
        profile.join("examples").join(format!("finance{}", std::env::consts::EXE_SUFFIX))
    })
}

/// A run of three transfers in this folder.
fn finance(folder: &Path) -> Command {
    run_of(folder, TRANSFERS, SEED, RATE)
}

fn run_of(folder: &Path, transfers: &str, seed: &str, rate: &str) -> Command {
    let mut command = Command::new(example());
    command.arg("--store").arg(folder).args(["--transfers", transfers, "--seed", seed]);
    command.args(["--fault-rate", rate, "--backoff-ms", "1", "--summary", "json"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Dies at this point, before it or right after it.
fn die(folder: &Path, point: u64, after: bool) -> Output {
    let mut command = finance(folder);
    command.args(["--die-at", &point.to_string()]);
    if after {
        command.arg("--die-after");
    }
    command.output().unwrap()
}

/// Runs to the end, and looks at what the database says.
fn ends_well(mut command: Command, what: &str) -> Value {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{what}: {text}{}", errors(&output));
    let summary: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    for none in ["lost", "duplicated", "notifications_duplicated", "unknown_open"] {
        assert_eq!(summary[none], 0, "{what}: {text}");
    }
    assert_eq!(summary["sum_before"], summary["sum_after"], "{what}: {text}");
    assert_eq!(summary["sum_before"], 16_000_000, "{what}: {text}");
    summary
}

/// How many points a run without an end passes.
fn points() -> u64 {
    let folder = TempDir::new().unwrap();
    let output = finance(folder.path()).arg("--count-points").output().unwrap();
    let errors = errors(&output);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("2 done, 1 undone (0 for lack of funds), 0 in between"), "{text}");
    assert!(text.contains("indeterminate"), "{text}");
    let line = errors.lines().find_map(|line| line.strip_prefix("points: "));
    line.unwrap_or_else(|| panic!("{errors}")).parse().unwrap()
}

/// Numbers that follow from a seed, which is printed.
struct Dice(u64);

impl Dice {
    fn new(name: &str) -> Self {
        let seed = match std::env::var("CRASH_SEED") {
            Ok(seed) => seed.parse().unwrap(),
            Err(_) => std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64,
        };
        println!("{name}: CRASH_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

#[test]
fn a_process_that_ends_at_any_point_is_gone_on_with() {
    let points = points();
    assert!(points > 40, "only {points} points to end at");
    let mut resumed = 0;
    for after in [false, true] {
        for point in 1..=points {
            let folder = TempDir::new().unwrap();
            let what = format!("point {point} of {points}, after: {after}");
            let output = die(folder.path(), point, after);
            assert_eq!(output.status.code(), None, "{what}: it did not die: {}", errors(&output));
            let summary = ends_well(finance(folder.path()), &what);
            resumed += summary["resumed"].as_u64().unwrap();
        }
    }
    assert!(resumed > points, "only {resumed} requests were taken up");
}

#[test]
fn a_process_that_ends_while_it_goes_on_is_gone_on_with() {
    let points = points();
    let mut dice = Dice::new("a second end");
    let mut seconds = 0;
    // Every other point, now these and now those: each costs three processes.
    for first in (1 + dice.below(2)..=points).step_by(2) {
        let folder = TempDir::new().unwrap();
        let after = dice.below(2) == 0;
        die(folder.path(), first, after);
        // What is left to do has fewer points the later the first end was.
        let second = 1 + dice.below((points - first).clamp(1, 20));
        let second_after = dice.below(2) == 0;
        let output = die(folder.path(), second, second_after);
        seconds += u64::from(output.status.code().is_none());
        let what = format!("points {first} (after: {after}) and {second} (after: {second_after})");
        ends_well(finance(folder.path()), &what);
    }
    assert!(seconds > points / 4, "only {seconds} of {points} ended a second time");
}

#[test]
fn a_process_that_is_killed_at_random_is_gone_on_with() {
    let mut dice = Dice::new("killed at random");
    for round in 0..10 {
        let folder = TempDir::new().unwrap();
        let seed = dice.below(10_000).to_string();
        let mut kills = 0;
        for _ in 0..=dice.below(4) {
            let mut child = run_of(folder.path(), "8", &seed, "0.3").spawn().unwrap();
            std::thread::sleep(Duration::from_millis(dice.below(250)));
            kills += u64::from(child.try_wait().unwrap().is_none());
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let what = format!("round {round}, seed {seed}, {kills} kills");
        ends_well(run_of(folder.path(), "8", &seed, "0.3"), &what);
    }
}

#[test]
fn what_waits_for_a_person_is_not_lost() {
    // So much fails that the budget for retries runs dry, and undos are stuck.
    let folder = TempDir::new().unwrap();
    let output = run_of(folder.path(), "60", "5", "0.8").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}{}", errors(&output));
    let summary: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    for none in ["lost", "duplicated", "notifications_duplicated"] {
        assert_eq!(summary[none], 0, "{text}");
    }
    let open = summary["unknown_open"].as_u64().unwrap();
    assert!(open > 0 && text.contains("wait for a person, who has to find out"), "{text}");
    // The same arguments find it as it was, and still know whom it waits for.
    let output = run_of(folder.path(), "60", "5", "0.8").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}{}", errors(&output));
    let again: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(again, summary, "{text}");
}

/// The log of the runtime's store, and where its batches end.
fn log(folder: &Path) -> (PathBuf, Vec<u8>, Vec<usize>) {
    let mut logs: Vec<PathBuf> = std::fs::read_dir(folder.join("store"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .collect();
    logs.sort();
    let path = logs.pop().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let trailer = [0x4d, 0x53, 0x2e, 0xa5];
    let ends = bytes.windows(4).enumerate().filter(|(_, four)| *four == trailer);
    let ends = ends.map(|(at, _)| at + 4).collect();
    (path, bytes, ends)
}

/// A run that ended in the middle, with some transfers done.
fn half_done() -> TempDir {
    let folder = TempDir::new().unwrap();
    die(folder.path(), 40, true);
    folder
}

fn copy(from: &Path) -> TempDir {
    let to = TempDir::new().unwrap();
    std::fs::create_dir(to.path().join("store")).unwrap();
    for entry in std::fs::read_dir(from.join("store")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.path().join("store").join(entry.file_name())).unwrap();
    }
    std::fs::copy(from.join("bank.redb"), to.path().join("bank.redb")).unwrap();
    to
}

#[test]
fn a_store_that_is_cut_is_gone_on_with_or_refused_by_file_and_byte() {
    let folder = half_done();
    let (path, bytes, ends) = log(folder.path());
    assert!(ends.len() > 20, "only {} batches", ends.len());
    let name = path.file_name().unwrap();
    let mut from = 0;
    let mut cuts = Vec::new();
    for end in ends {
        cuts.extend([end, from + (end - from) / 2]);
        from = end;
    }
    let (mut well, mut refused) = (0, 0);
    for cut in cuts {
        let copy = copy(folder.path());
        std::fs::write(copy.path().join("store").join(name), &bytes[..cut]).unwrap();
        let what = format!("cut at {cut} of {}", bytes.len());
        if is_refused(copy.path(), name.to_str().unwrap(), &what) {
            refused += 1;
        } else {
            ends_well(finance(copy.path()), &what);
            well += 1;
        }
    }
    assert!(well > 0 && refused > 20, "{well} went on, {refused} were refused");
}

#[test]
fn a_store_that_was_scribbled_over_is_gone_on_with_or_refused_by_file_and_byte() {
    let folder = half_done();
    let (path, bytes, _) = log(folder.path());
    let name = path.file_name().unwrap();
    let mut dice = Dice::new("scribbled over");
    let mut refused = 0;
    for round in 0..20 {
        let copy = copy(folder.path());
        let mut bytes = bytes.clone();
        let mut what = format!("round {round}:");
        for _ in 0..=dice.below(3) {
            let at = dice.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 + dice.below(255) as u8;
            write!(what, " {at}").unwrap();
        }
        std::fs::write(copy.path().join("store").join(name), bytes).unwrap();
        if is_refused(copy.path(), name.to_str().unwrap(), &what) {
            refused += 1;
        } else {
            ends_well(finance(copy.path()), &what);
        }
    }
    assert!(refused > 5, "only {refused} were refused");
}

/// Whether the run does not begin; then it must say where the store is wrong.
fn is_refused(folder: &Path, file: &str, what: &str) -> bool {
    let output = finance(folder).output().unwrap();
    if output.status.code() == Some(0) {
        return false;
    }
    let errors = errors(&output);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(3), "{what}: {text}{errors}");
    let corrupt = errors.contains(file) && errors.contains(" at byte ");
    let later = errors.contains(file) && errors.contains("not known");
    // What the database was written after is not there any more.
    let gone = errors.contains("store\" ends at commit") && errors.contains("commits are missing");
    let names = corrupt || later || gone;
    assert!(names, "{what}: {errors}");
    true
}

#[test]
fn a_store_that_is_full_ends_the_run_and_goes_on_when_there_is_room() {
    let folder = TempDir::new().unwrap();
    ends_well(finance(folder.path()), "the reference");
    let size = log(folder.path()).1.len() as u64;
    let folder = TempDir::new().unwrap();
    let mut full = 0;
    for part in 1..9 {
        let quota = size * part / 9;
        let output = finance(folder.path()).args(["--quota", &quota.to_string()]).output().unwrap();
        match output.status.code() {
            Some(3) => {
                full += 1;
                let errors = errors(&output);
                assert!(errors.contains("is full"), "{quota} of {size}: {errors}");
            }
            code => assert_eq!(code, Some(0), "{quota} of {size}: {}", errors(&output)),
        }
    }
    assert!(full > 4, "it was full only {full} times");
    ends_well(finance(folder.path()), "with room again");
}

#[test]
fn a_clock_that_jumps_changes_nothing() {
    for jump in [-40_000_000_i64, -3_600, 7_200, 40_000_000] {
        let folder = half_done();
        let mut jumped = finance(folder.path());
        jumped.args(["--clock-jump", &jump.to_string(), "--die-at", "15"]);
        assert_eq!(jumped.output().unwrap().status.code(), None, "jump {jump}");
        ends_well(finance(folder.path()), &format!("back after a jump of {jump} s"));
    }
}

/// A run that goes on until it is killed, which it is when this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone now.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn what_cannot_be_used_is_refused_by_name() {
    let folder = half_done();
    let refused = |mut command: Command, code, texts: &[&str]| {
        let output = command.output().unwrap();
        let errors = errors(&output);
        assert_eq!(output.status.code(), Some(code), "{errors}");
        for text in texts {
            assert!(errors.contains(text), "{text:?} is not in: {errors}");
        }
    };
    let at = |folder: &Path, transfers, seed| run_of(folder, transfers, seed, RATE);
    refused(
        at(folder.path(), "4", SEED),
        3,
        &["--transfers 3 --seed 20", "--transfers 4 --seed 20"],
    );
    refused(at(folder.path(), TRANSFERS, "21"), 3, &["--seed 20", "--seed 21", "another --store"]);
    refused(at(folder.path(), "0", SEED), 2, &["--transfers", "0"]);
    refused(at(folder.path(), "many", SEED), 2, &["--transfers", "many"]);
    refused(run_of(folder.path(), TRANSFERS, SEED, "2"), 2, &["--fault-rate", "0 to 1"]);

    let file = folder.path().join("bank.redb").join("below a file");
    refused(finance(&file), 3, &["below a file"]);
    let closed = folder.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    let mut rights = std::fs::metadata(&closed).unwrap().permissions();
    rights.set_readonly(true);
    std::fs::set_permissions(&closed, rights).unwrap();
    // Whoever may write everywhere is kept out by nothing but a file system that takes no files.
    let closed = match std::fs::write(closed.join("probe"), "") {
        Ok(()) => PathBuf::from("/proc/mainstay"),
        Err(_) => closed,
    };
    refused(finance(&closed), 3, &[closed.to_str().unwrap()]);

    let copied = copy(folder.path());
    std::fs::remove_file(copied.path().join("bank.redb")).unwrap();
    refused(finance(copied.path()), 3, &["bank.redb", "is missing"]);
    std::fs::write(copied.path().join("bank.redb"), "not a database").unwrap();
    refused(finance(copied.path()), 3, &["bank.redb"]);

    let busy = TempDir::new().unwrap();
    let running = Running(run_of(busy.path(), "20000", SEED, RATE).spawn().unwrap());
    let (lock, pid) = (busy.path().join("store").join("LOCK"), running.0.id().to_string());
    let started = Instant::now();
    while std::fs::read_to_string(&lock).unwrap_or_default().trim() != pid {
        assert!(started.elapsed() < Duration::from_secs(60), "it does not take its store");
        std::thread::sleep(Duration::from_millis(5));
    }
    refused(run_of(busy.path(), "20000", SEED, RATE), 3, &["in use by process", &pid]);
    drop(running);
    ends_well(finance(folder.path()), "after all of that");
}

/// With this seed the budget for retries of the outbox runs dry, and the first try of notices that are
/// due after that fails.
#[test]
fn users_are_told_when_the_budget_for_retries_has_run_dry() {
    let folder = TempDir::new().unwrap();
    let output = run_of(folder.path(), "100", "3", "0.6").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}{}", errors(&output));
    let summary: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    for none in ["lost", "duplicated", "notifications_duplicated"] {
        assert_eq!(summary[none], 0, "{text}");
    }
    let left = text.lines().find(|line| line.contains(" notify ")).unwrap();
    let left = left.split("retries ").nth(1).unwrap().split('/').next().unwrap();
    // What arrived in the end has given a little back.
    assert!(left.parse::<u32>().unwrap() < 100, "the budget was never short: {text}");
}

// Not all of it is of use here.
#[allow(dead_code)]
#[path = "../examples/finance/plan.rs"]
mod plan;

#[test]
fn the_rates_of_the_playbook_leave_what_the_objective_asks_for_within_reach() {
    let transfers = 50_000;
    let undone = (1..=9).map(|seed| {
        let plan = plan::Plan::new(transfers, seed, None);
        // The first attempt, and the two retries of its class.
        let fails = |id: &u32| {
            (1..=3).all(|attempt| plan.strike(plan::Tool::Credit, *id, attempt).is_some())
        };
        (1..=transfers).filter(fails).count()
    });
    let share = undone.sum::<usize>() as f64 / f64::from(transfers * 9);
    // S71: more than 99.9 % of the transfers are done.
    assert!(share > 0.000_1 && share < 0.000_7, "{:.4} % are undone", share * 100.0);
}

#[test]
fn an_outage_of_the_outbox_ends_for_later_messages_as_for_later_attempts() {
    let plan = plan::Plan::new(100, 3, Some(0.6));
    let refused: Vec<u32> =
        (0..100).filter(|id| plan.strike_message(*id, 0, 1).is_some()).collect();
    assert!(refused.len() > 20, "only {} first tries fail", refused.len());
    for id in refused {
        // A retry and a message of its own are the same try; the third always arrives.
        assert_eq!(plan.strike_message(id, 0, 2), plan.strike_message(id, 1, 1), "transfer {id}");
        assert_eq!(plan.strike_message(id, 2, 1), None, "transfer {id}");
    }
}
