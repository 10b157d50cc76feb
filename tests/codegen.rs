//! Case 3 of the playbook as its users meet it: the example `codegen`, run as a program, and killed.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use mainstay_actors::stub_server::{Row, StubServer};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

/// Nothing here takes so long; a program that hangs fails the test instead of holding it up.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where `cargo test` has put the program, beside this test. A run of this test alone does not build
/// examples; then it is built here.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let profile = test.parent().unwrap().parent().unwrap();
        let program =
            profile.join("examples").join(format!("codegen{}", std::env::consts::EXE_SUFFIX));
        if !program.exists() {
            let mut cargo = std::process::Command::new(env!("CARGO"));
            cargo.args(["build", "--quiet", "--example", "codegen"]);
            if profile.ends_with("release") {
                cargo.arg("--release");
            }
            let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap();
            assert!(built.success() && program.exists(), "{program:?} cannot be built");
        }
        program
    })
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(arguments).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a run came to.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    /// The last line of stdout as JSON, with its counts balanced.
    fn summary(&self) -> Value {
        assert_eq!(self.code, Some(0), "{self:#?}");
        let line = self.out.lines().last().unwrap_or_default();
        let summary: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{self:#?}"));
        let fates = summary["fates"].as_object().unwrap().values();
        let sum: u64 = fates.map(|count| count.as_u64().unwrap()).sum();
        assert_eq!(summary["accepted"].as_u64().unwrap(), sum, "{summary}");
        summary
    }
}

async fn end(mut command: Command) -> Ran {
    let ended = timeout(PATIENCE, command.output()).await.expect("the program hangs");
    let Output { status, stdout, stderr } = ended.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: status.code(), out: text(stdout), err: text(stderr) }
}

async fn run(arguments: &[&str]) -> Ran {
    end(command(arguments)).await
}

/// Runs it until so many lines with this text have come on stderr, and ends it with SIGKILL.
async fn run_and_kill(arguments: &[&str], text: &str, times: usize) {
    let (mut child, _) = run_until(arguments, text, times).await;
    child.kill().await.unwrap();
}

/// Runs it until so many lines with this text have come on stderr, of which the others are handed on.
async fn run_until(
    arguments: &[&str],
    text: &str,
    times: usize,
) -> (Child, Lines<BufReader<ChildStderr>>) {
    let mut child = command(arguments).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let read = async {
        let mut seen = 0;
        while seen < times {
            let line = lines.next_line().await.unwrap().expect("it ended before it was killed");
            seen += usize::from(line.contains(text));
        }
    };
    timeout(PATIENCE, read).await.expect("it does not come so far");
    (child, lines)
}

#[tokio::test]
async fn without_faults_every_function_is_usable_and_none_is_written_again() {
    let ran = run(&["--limit", "8", "--fault-rate", "0", "--summary", "json"]).await;
    let summary = ran.summary();
    assert_eq!(summary["functions"], json!(8), "{summary}");
    assert_eq!(summary["usable"], json!(8), "{summary}");
    assert_eq!([&summary["templates"], &summary["regenerations"]], [&json!(0), &json!(0)]);
    assert_eq!([&summary["resumed"], &summary["fates"]["failed"]], [&json!(0), &json!(0)]);
    assert_eq!(summary["slo"]["S77.usable"]["actual"], json!(100.0));
    assert_eq!(summary["slo"]["S77.repair"]["actual"], json!(0.0));
    for id in ["S77.usable", "S77.repair", "S77.generation"] {
        assert_eq!(summary["slo"][id]["met"], json!(true), "{id}: {summary}");
    }
    assert!(ran.out.contains("total += value * value"), "{}", ran.out);
}

#[tokio::test]
async fn when_every_generation_is_wrong_the_template_stands_in_for_each() {
    let summary = run(&["--limit", "3", "--fault-rate", "1", "--summary", "json"]).await.summary();
    assert_eq!([&summary["templates"], &summary["usable"]], [&json!(3), &json!(0)], "{summary}");
    assert!(summary["regenerations"].as_u64().unwrap() <= 6, "{summary}");
    assert_eq!(summary["slo"]["S77.usable"]["met"], json!(false));
    assert_eq!(summary["slo"]["S77.repair"]["actual"], json!(100.0));
}

#[tokio::test]
async fn what_the_interpreter_refuses_is_written_again_and_comes_out_well() {
    let arguments = ["--limit", "12", "--fault-rate", "0.3", "--summary", "json"];
    let others = [&arguments[..], &["--seed", "8"]].concat();
    let (first, other) = tokio::join!(run(&arguments), run(&others));
    let (first, other) = (first.summary(), other.summary());
    for summary in [&first, &other] {
        let count = |name: &str| summary[name].as_u64().unwrap();
        assert!(count("regenerations") > 0, "{summary}");
        assert!(count("usable") > 12 / 2, "more than the first generations alone: {summary}");
        assert!(count("usable") + count("templates") <= 12, "{summary}");
    }
    assert_ne!(first, other, "the seed changes nothing");
}

#[tokio::test]
async fn after_kill_9_the_next_run_goes_on_after_the_last_tenth_line() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let common = ["--store", store.to_str().unwrap(), "--limit", "4", "--summary", "json"];
    let quiet = [&common[..], &["--fault-rate", "0"]].concat();
    // The first checkpoint is in the middle of the first function, which has fourteen lines.
    let slow = [&quiet[..], &["--pace", "500"]].concat();
    run_and_kill(&slow, "checkpoint", 1).await;
    let ran = run(&quiet).await;
    let summary = ran.summary();
    assert!(ran.out.contains("sum_of_squares was gone on with after line 10"), "{}", ran.out);
    assert_eq!([&summary["functions"], &summary["usable"]], [&json!(4), &json!(4)], "{summary}");
    assert_eq!(summary["resumed"], json!(4), "{summary}");
    // And once more there is nothing left to do: the functions are those of before.
    let again = run(&quiet).await;
    let summary = again.summary();
    assert_eq!([&summary["accepted"], &summary["resumed"]], [&json!(0), &json!(0)], "{summary}");
    assert_eq!(summary["usable"], json!(4));
    assert!(again.out.contains("sum_of_squares was gone on with after line 10"), "{}", again.out);
}

#[cfg(unix)]
#[tokio::test]
async fn ctrl_c_stops_it_in_order_and_the_next_run_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let common = ["--store", store.to_str().unwrap(), "--limit", "3", "--summary", "json"];
    let slow = [&common[..], &["--pace", "50"]].concat();
    let (mut child, mut lines) = run_until(&slow, "checkpoint", 1).await;
    let pid = child.id().unwrap().to_string();
    let told = std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap();
    assert!(told.success());
    let status = timeout(PATIENCE, child.wait()).await.expect("it does not stop").unwrap();
    let mut said = String::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        said += &line;
    }
    assert_eq!(status.code(), Some(130), "{said}");
    assert!(said.contains("stopping in order; the same arguments go on with it"), "{said}");
    let ran = run(&common).await;
    let summary = ran.summary();
    assert_eq!([&summary["functions"], &summary["usable"]], [&json!(3), &json!(3)], "{summary}");
    assert_eq!(summary["resumed"], json!(3), "none was given up: {summary}");
    assert!(ran.out.contains("was gone on with after line"), "{}", ran.out);
}

#[tokio::test]
async fn what_rules_have_written_is_not_passed_off_as_a_model_s() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let arguments = ["--store", store.to_str().unwrap(), "--limit", "1"];
    assert_eq!(run(&[&arguments[..], &["--pace", "0"]].concat()).await.code, Some(0));
    let server = StubServer::start().await.unwrap();
    server.then(Row::reply("Hello."));
    let ran =
        run(&[&arguments[..], &["--model-url", server.url(), "--model", "tiny"]].concat()).await;
    assert_eq!((ran.code, &*ran.out), (Some(2), ""), "{ran:#?}");
    for text in ["--store", "functions by rules", "functions by a model", "another --store"] {
        assert!(ran.err.contains(text), "{text:?}: {}", ran.err);
    }
    assert_eq!(server.requests().len(), 1, "nothing was asked of it");
}

// Not all of it is of use here.
#[allow(dead_code)]
#[path = "../examples/codegen/faults.rs"]
mod faults;

/// S77: a person has to finish less than 5 %. Of a run of 46 functions a single one is 2.2 %, so what one
/// seed comes to says little; the rates themselves have to leave it within reach.
#[test]
fn the_rates_of_the_playbook_leave_little_enough_for_a_person() {
    let (mut functions, mut left) = (0, 0);
    for seed in 0..400 {
        let faults = faults::Faults::new(seed, 0.12);
        for n in 0..46 {
            // The first generation, and the two that follow a refusal.
            let flawed = |generation| faults.flaw(&format!("function {n}"), generation).is_some();
            functions += 1;
            left += u32::from((1..=3).all(flawed));
        }
    }
    let share = 100.0 * f64::from(left) / f64::from(functions);
    assert!(share > 1.0 && share < 4.0, "{share:.2} % are left");
}

#[tokio::test]
async fn it_may_be_killed_again_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let arguments =
        ["--store", store.to_str().unwrap(), "--limit", "5", "--summary", "json", "--pace", "20"];
    for times in [1, 3, 2] {
        run_and_kill(&arguments, "checkpoint", times).await;
    }
    let summary = run(&arguments).await.summary();
    let clean = run(&arguments[2..]).await.summary();
    for name in ["functions", "usable", "templates"] {
        assert_eq!(summary[name], clean[name], "{name}: {summary} instead of {clean}");
    }
    assert!(summary["resumed"].as_u64().unwrap() > 0, "{summary}");
}

#[tokio::test]
async fn a_model_hears_what_the_interpreter_said_and_sees_its_code_again() {
    const KEY: &str = "sk-nobody-may-see-this";
    let server = StubServer::start().await.unwrap();
    let head = "```python\ndef sum_of_squares(values):\n";
    for answer in [
        "Hello.".to_owned(),
        format!("{head}    return sum(v * v for v in values\n```"),
        format!("Of course!\n{head}    while True:\n        pass\n```\nDone."),
        format!("{head}    return sum(v * v for v in values)\n```"),
    ] {
        server.then(Row::reply(&answer));
    }
    let mut command = command(&["--model-url", server.url(), "--model", "tiny", "--limit", "1"]);
    command.args(["--api-key-env", "CODEGEN_KEY", "--summary", "json"]).env("CODEGEN_KEY", KEY);
    let ran = end(command).await;
    let summary = ran.summary();
    assert_eq!([&summary["usable"], &summary["regenerations"]], [&json!(1), &json!(2)], "{ran:#?}");
    assert!(ran.out.contains("return sum(v * v for v in values)"), "{}", ran.out);
    assert!(!ran.out.contains(KEY) && !ran.err.contains(KEY), "{ran:#?}");
    let bodies: Vec<_> = server.requests().iter().map(|seen| seen.json().to_string()).collect();
    assert_eq!(bodies.len(), 4);
    assert!(!bodies[1].contains("The last attempt was wrong"), "{}", bodies[1]);
    assert!(bodies[2].contains("line 2") && bodies[2].contains("for v in values"), "{}", bodies[2]);
    assert!(bodies[3].contains("does not end") && bodies[3].contains("pass"), "{}", bodies[3]);
}

#[tokio::test]
async fn a_function_that_only_knows_the_examples_it_was_shown_is_not_usable() {
    let server = StubServer::start().await.unwrap();
    server.then(Row::reply("Hello."));
    server.then(Row::reply("def sum_of_squares(values):\n    return 14 if values else 0"));
    let arguments = ["--model-url", server.url(), "--model", "tiny", "--limit", "1"];
    let ran = run(&[&arguments[..], &["--summary", "json"]].concat()).await;
    let summary = ran.summary();
    assert_eq!([&summary["usable"], &summary["templates"]], [&json!(0), &json!(0)], "{ran:#?}");
    assert!(ran.out.contains("sum_of_squares: passes its check, but not its test"), "{}", ran.out);
}

#[tokio::test]
async fn without_an_interpreter_it_says_what_is_missing() {
    let empty = tempfile::tempdir().unwrap();
    for path in [Path::new(""), empty.path()] {
        let mut command = command(&["--limit", "1"]);
        command.env("PATH", path);
        let ran = end(command).await;
        assert_eq!((ran.code, &*ran.out), (Some(2), ""), "{ran:#?}");
        assert!(ran.err.starts_with("error: python3 cannot be run"), "{}", ran.err);
        assert!(ran.err.contains("PATH"), "{}", ran.err);
    }
}

#[tokio::test]
async fn bad_arguments_are_refused_by_name() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let file = file.path().to_str().unwrap();
    let model = ["--model-url", "http://127.0.0.1:1/v1", "--model", "m"];
    for (arguments, named) in [
        (vec!["--bogus"], "--bogus"),
        (vec!["--limit", "0"], "--limit"),
        (vec!["--seed", "-1"], "-1"),
        (vec!["--fault-rate", "1.5"], "--fault-rate"),
        (vec!["--fault-rate", "NaN"], "--fault-rate"),
        (vec!["--pace", "1001"], "--pace"),
        (vec!["--summary", "xml"], "--summary"),
        (vec!["--store", file], file),
        (vec!["--model", "m"], "--model-url <URL>"),
        (vec!["--model-url", "http://127.0.0.1:1/v1"], "--model <NAME>"),
        (model.to_vec(), "http://127.0.0.1:1/v1"),
        ([&model[..], &["--api-key-env", "MAINSTAY_NO_SUCH_KEY"]].concat(), "MAINSTAY_NO_SUCH_KEY"),
    ] {
        let ran = run(&arguments).await;
        assert_eq!((ran.code, &*ran.out), (Some(2), ""), "{arguments:?}: {ran:#?}");
        assert!(ran.err.contains("error: ") && ran.err.contains(named), "{arguments:?}: {ran:#?}");
    }
}

#[tokio::test]
async fn help_names_every_flag() {
    let ran = run(&["--help"]).await;
    assert_eq!((ran.code, &*ran.err), (Some(0), ""));
    for flag in ["--store", "--seed", "--limit", "--fault-rate", "--pace", "--summary"] {
        assert!(ran.out.contains(flag), "{flag}: {}", ran.out);
    }
    for flag in ["--model-url", "--model ", "--api-key-env"] {
        assert!(ran.out.contains(flag), "{flag}: {}", ran.out);
    }
}
