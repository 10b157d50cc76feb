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
    for (name, profile) in [
        ("support", true),
        ("finance", true),
        ("codegen", true),
        ("shop", false),
        ("desk", true),
        ("office", true),
    ] {
        let file = format!("examples/trees/{name}.toml");
        // One in which nine things are asked for each question takes its time.
        let seeds = if name == "office" { &["1"][..] } else { &["1", "2", "3"] };
        for seed in seeds {
            let said = support(&["check", &file, "--chaos", "--json", "--seed", seed], "");
            assert_eq!((said.code, &*said.err), (0, ""), "{name} {seed}: {said:?}");
            let tried = tried(&said);
            let asked = if profile { 800 } else { 600 };
            let counted = (sum(&tried, "requests"), sum(&tried, "lost"));
            assert_eq!(counted, (asked, 0), "{name} {seed}: {tried}");
            // The goals of all trees are judged where nothing but the network fails, below that of S94.
            let first = &tried["rates"][0];
            let how = (&first["judged"], &first["alone"]);
            assert_eq!(how, (&true.into(), &profile.into()), "{name} {seed}");
            assert!(objectives(first, "S").any(|it| it["id"] == "S39" && it["judged"] == true));
            assert_eq!(tried["ok"], true, "{name} {seed}");
        }
    }
}

/// What nobody can make good (a question that is too hard) goes to a text, which is a fallback that has not helped:
/// how many there are of it is luck, and few seeds and few questions have enough of them to tell.
#[test]
fn an_example_is_not_judged_by_what_nobody_can_make_good_whatever_the_seed() {
    // Each of them has enough.
    for seed in ["4", "7"] {
        let said = support(&["check", "examples/trees/desk.toml", "--chaos", "--seed", seed], "");
        assert_eq!((said.code, &*said.err), (0, ""), "{seed}: {said:?}");
    }
}

#[test]
fn an_example_is_not_judged_by_what_nobody_can_make_good_however_much_is_asked() {
    let file = "examples/trees/support.toml";
    let said = support(&["check", file, "--chaos", "--json", "--requests", "2000"], "");
    assert_eq!((said.code, &*said.err), (0, ""), "{said:?}");
    let tried = tried(&said);
    // Beside the network of 5 % the profile has its questions that are too hard.
    let rate = &tried["rates"][1];
    let helped: Vec<_> = objectives(rate, "S37").collect();
    let enough = helped[0]["samples"].as_u64().unwrap() >= 20;
    assert!(enough && helped[0]["met"] == false && helped[0]["judged"] == false, "{rate}");
}

/// The objectives of a rate whose ids begin so.
fn objectives<'a>(rate: &'a Value, id: &'a str) -> impl Iterator<Item = &'a Value> {
    let all = rate["objectives"].as_array().unwrap().iter();
    all.filter(move |it| it["id"].as_str().unwrap().starts_with(id))
}

#[test]
fn what_a_profile_aims_at_is_judged_with_the_failures_that_it_names() {
    let models = |members: &str, more: &str| {
        format!(
            "profile = \"codegen\"\nentry = \"llm\"\n[models.a]\nkind = \"local\"\n[models.b]\nkind = \"local\"\n[models.d]\nkind = \"default\"\ntext = \"by hand\"\n[groups.llm]\nkind = \"model\"\nmembers = [{members}]\n{more}"
        )
    };
    let never = "[policy.retries]\noutput_invalid = 0\nnetwork = 0\n";
    for (members, more, code, missed) in [
        ("\"a\", \"b\", \"d\"", "", 0, ""),
        // Nobody generates again, and a template is no code.
        ("\"a\", \"d\"", never, 1, "at 5 %, S77.usable missed"),
        ("\"a\"", never, 1, "S77.usable, S77.repair missed"),
    ] {
        let folder = Folder::with("t.toml", &models(members, more));
        let said = folder.run(&["check", "t.toml", "--chaos"], "");
        assert_eq!(said.code, code, "{members}: {said:?}");
        assert!(said.err.contains(missed), "{members}: {said:?}");
        let json = folder.run(&["check", "t.toml", "--chaos", "--json"], "");
        let tried = tried(&json);
        for (at, expected) in [(0, true), (1, true), (2, false), (3, false)] {
            let rate = &tried["rates"][at];
            let own: Vec<_> = objectives(rate, "S77").map(|it| &it["judged"]).collect();
            assert_eq!(own, [expected; 3], "{at}: {rate}");
            assert_eq!(rate["judged"], at == 0, "{rate}");
        }
    }
}

#[test]
fn the_plan_says_what_becomes_of_what_no_agent_has() {
    let text = r#"
profile = "finance"

[store]
path = "state"

[models.m]
kind = "local"

[tools.shop]
command = ["shop"]

[tools.shop.effects]
book = { kind = "compensable", undo = { tool = "shop.cancel" } }
pay = { kind = "verifiable", verify = { tool = "shop.look", at = "state", happened = ["paid"] } }
cancel = "idempotent"
look = "read"
spare = "read"

[agents.a]
model = "m"
tools = ["shop.book", "shop.pay"]
"#;
    let said = Folder::with("t.toml", text).run(&["check", "t.toml"], "");
    assert_eq!(said.code, 0, "{said:?}");
    for (tool, then) in [
        ("shop.cancel", "then what it was to undo stays, and a person settles it (/effects)"),
        (
            "shop.look",
            "then what it was asked about stays unknown, and a person settles it (/effects)",
        ),
        ("shop.spare", "then nobody: no agent has it"),
    ] {
        let mut lines = said.out.lines().filter(|line| line.trim_start().starts_with(tool));
        assert!(lines.any(|line| line.ends_with(then)), "{tool}: {}", said.out);
    }
    let finance = support(&["check", "examples/trees/finance.toml"], "").out;
    let of_undo = finance.lines().filter(|line| line.trim_start().starts_with("take_back "));
    assert!(
        of_undo.clone().count() > 1 && of_undo.clone().all(|line| line.contains("to undo stays"))
    );
}

#[test]
fn what_belongs_to_a_trial_is_refused_without_one() {
    let said = support(&["check", "examples/trees/support.toml", "--seed", "2"], "");
    assert_eq!(said.code, 2);
    assert!(said.err.contains("--chaos"), "{said:?}");
}
