//! `mainstay check --chaos`: what is tried, what is counted, and how it ends.

use serde_json::Value;

use super::harness::{Folder, Said, support};

/// A tree whose objectives nobody can miss but the availability; nothing it names is there.
const TREE: &str = r#"
[watch]
without = ["S25", "S26", "S27", "S37", "S38", "S28", "S29", "S30", "S31", "S32", "S97", "S51", "S52", "S98"]

[models.a]
kind = "openai"
base_url = "http://127.0.0.1:9/v1"
model = "none"

[tools.till]
command = ["there-is-no-such-program"]

[tools.till.effects]
put = "idempotent"

[agents.clerk]
model = "a"
tools = ["till.put"]
answer_schema = "answer.json"

[store]
path = "state"
"#;

fn tried(said: &Said) -> Value {
    serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"))
}

fn sum(tried: &Value, what: &str) -> u64 {
    let rates = tried["rates"].as_array().unwrap();
    rates.iter().map(|rate| rate["ends"][what].as_u64().unwrap()).sum()
}

fn tree(text: &str) -> Folder {
    let folder = Folder::with("t.toml", text);
    let schema = r#"{"type": "object", "required": ["word"]}"#;
    std::fs::write(folder.0.join("answer.json"), schema).unwrap();
    folder
}

#[test]
fn every_question_of_a_trial_ends_once_and_nothing_outside_is_asked() {
    let folder = tree(TREE);
    let said = folder.run(&["check", "t.toml", "--chaos", "--json", "--requests", "60"], "");
    assert_eq!((said.code, &*said.err), (0, ""), "{said:?}");
    let tried = tried(&said);
    assert_eq!(tried["ok"], true);
    let percents: Vec<_> =
        tried["rates"].as_array().unwrap().iter().map(|rate| &rate["network_percent"]).collect();
    assert_eq!(percents, [5, 10, 15]);
    let parts = ["succeeded", "degraded", "defaulted", "failed", "escalated", "lost"];
    assert_eq!((sum(&tried, "requests"), sum(&tried, "lost")), (180, 0));
    assert_eq!(parts.iter().map(|part| sum(&tried, part)).sum::<u64>(), 180, "{tried}");
    for rate in tried["rates"].as_array().unwrap() {
        assert!(rate["injected"]["network"].as_u64().unwrap() > 0, "{rate}");
    }
    assert!(!folder.0.join("state").exists(), "the store of the file is not touched");
}

#[test]
fn a_trial_uses_the_policy_of_the_file_and_fails_where_an_objective_is_missed() {
    let without = format!("{TREE}\n[policy.retries]\nnetwork = 0\n");
    let folder = tree(&without);
    let said = folder.run(&["check", "t.toml", "--chaos", "--requests", "100"], "");
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("at 5 %, S39 missed"), "{said:?}");
    let json = folder.run(&["check", "t.toml", "--chaos", "--json", "--requests", "100"], "");
    assert_eq!((json.code, &*json.err), (1, ""), "{json:?}");
    let tried = tried(&json);
    assert_eq!(tried["ok"], false);
    assert!(sum(&tried, "failed") > 20, "nothing is retried: {tried}");
    // Some fail of a few, too, and a few are no measure of an objective.
    let few =
        folder.run(&["check", "t.toml", "--chaos", "--json", "--requests", "4", "--seed", "2"], "");
    let tried = super::chaos::tried(&few);
    assert!(sum(&tried, "failed") > 0 && few.code == 0, "{few:?}");
}

#[test]
fn a_seed_says_what_fails_and_a_default_is_counted_as_one() {
    let text = r#"
[models.a]
kind = "local"
[models.sorry]
kind = "default"
text = "not now"
[groups.llm]
kind = "model"
members = ["a", "sorry"]
[policy.retries]
network = 0
"#;
    let folder = Folder::with("t.toml", text);
    let trial =
        |seed| folder.run(&["check", "t.toml", "--chaos", "--json", "--seed", seed], "").out;
    let first = trial("1");
    assert_eq!(first, trial("1"));
    assert_ne!(first, trial("2"));
    let tried: Value = serde_json::from_str(&first).unwrap();
    let injected: u64 = tried["rates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rate| rate["injected"]["network"].as_u64().unwrap())
        .sum();
    // One whose circuit is open is not even asked.
    assert!(injected > 20 && sum(&tried, "defaulted") >= injected, "{tried}");
    assert_eq!(sum(&tried, "failed"), 0, "{tried}");
}

#[test]
fn every_example_meets_what_it_aims_at_without_a_loss() {
    // A model of the profile `codegen` is to write nonsense in 15 of 100 answers, which is past the goal
    // of S94 by itself.
    for (name, judged) in [
        ("support", true),
        ("finance", true),
        ("codegen", false),
        ("shop", true),
        ("desk", true),
        ("office", false),
    ] {
        let file = format!("examples/trees/{name}.toml");
        let said = support(&["check", &file, "--chaos", "--json"], "");
        assert_eq!((said.code, &*said.err), (0, ""), "{name}: {said:?}");
        let tried = tried(&said);
        assert_eq!((sum(&tried, "requests"), sum(&tried, "lost")), (600, 0), "{name}: {tried}");
        let rates: Vec<_> =
            tried["rates"].as_array().unwrap().iter().map(|rate| &rate["judged"]).collect();
        assert_eq!(rates, [judged, false, false], "{name}");
        assert_eq!(tried["ok"], true, "{name}");
    }
}

#[test]
fn what_belongs_to_a_trial_is_refused_without_one() {
    let said = support(&["check", "examples/trees/support.toml", "--seed", "2"], "");
    assert_eq!(said.code, 2);
    assert!(said.err.contains("--chaos"), "{said:?}");
}
