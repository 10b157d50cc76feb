//! Files that are wrong: each is refused at its line and column, with what is wrong and what to do.

use serde_json::Value;

use super::harness::{Folder, refused};

#[test]
fn every_bad_file_is_refused_at_its_place_with_a_hint() {
    let rows = include_str!("../fixtures/bad_trees.jsonl");
    let folder = Folder::new();
    let mut wrong = Vec::new();
    for row in rows.lines() {
        let row: Value = serde_json::from_str(row).unwrap();
        let text = |key: &str| row[key].as_str().unwrap();
        std::fs::write(folder.0.join("t.toml"), text("file")).unwrap();
        let said = folder.run(&["check", "t.toml"], "");
        let mut lines = said.err.lines();
        let starts = |line: Option<&str>, begin: &str| {
            line.is_some_and(|line| line.trim_start().starts_with(begin))
        };
        let fits = said.code == 2
            && said.out.is_empty()
            && starts(lines.next(), &format!("error: {}", text("says")))
            && starts(lines.next(), &format!("--> t.toml:{}", text("at")))
            && starts(
                lines.find(|line| line.contains("= help")),
                &format!("= help: {}", text("help")),
            );
        if !fits {
            wrong.push(format!("{row}\n{}", said.err));
        }
    }
    assert!(rows.lines().count() > 100);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_mark_at_the_beginning_and_other_ends_of_lines_do_not_matter() {
    let text = "\u{feff}[models.llm]\r\nkind = \"local\"\r\n";
    let folder = Folder::with("t.toml", text);
    assert_eq!(folder.run(&["check", "t.toml"], "").code, 0);
    refused(
        "\u{feff}[modles.llm]\r\nkind = \"local\"\r\n",
        r"error: unknown key `modles`
 --> t.toml:1:2
  |
1 | [modles.llm]
  |  ^^^^^^ not a key of this place
  |
  = help: did you mean `models`? known here: `name`, `profile`, `entry`, `ask`, `supervisor`, `policy`, `store`, `points`, `watch`, `models`, `groups`, `tools`, `people` and `agents`
",
    );
}

#[test]
fn times_and_sizes_that_just_go_together_are_taken() {
    let text = r#"
[models.slow]
kind = "openai"
base_url = "http://127.0.0.1:9/v1"
model = "m"
timeout = "1m"
idle_timeout = "1m"
context_window = 100
answer_tokens = 99

[models.wide]
kind = "openai"
base_url = "http://127.0.0.1:9/v1"
model = "m"
context_window = 5000

[groups.llm]
kind = "model"
members = ["wide", "slow"]
hedge = { after = "40s" }

[people.lead]
expiry = "59s"

[agents.a]
model = "llm"
tools = ["lead"]
max_tokens = 4000
budget = { time = "1m" }

[watch]
without = ["S37", "S38", "S28", "R18"]
"#;
    let said = Folder::with("t.toml", text).run(&["check", "t.toml"], "");
    assert_eq!((said.code, &*said.err), (0, ""), "{said:?}");
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines: Vec<_> = said.out.lines().map(words).collect();
    assert!(
        lines.iter().any(|line| line == "one attempt of slow 1 min, its own, above the usual 30 s"),
        "{}",
        said.out
    );
    assert!(said.out.contains("one attempt at most 30s, where it has no time of its own (S79)"));
}

#[test]
fn a_budget_of_money_wants_the_price_of_whom_it_may_pay_and_of_nobody_else() {
    let endpoint = |name: &str, price: &str| {
        format!(
            "[models.{name}]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:9/v1\"\nmodel = \"m\"\n{price}"
        )
    };
    let priced = |what: f64| format!("price_per_million = {{ input = {what}, output = {what} }}\n");
    let (paid, free) = (endpoint("paid", &priced(1.0)), endpoint("free", &priced(0.0)));
    let (below, other) = (endpoint("below", &priced(2.0)), endpoint("other", ""));
    let rest = r#"entry = "a"
[models.own]
kind = "local"
[models.sorry]
kind = "default"
text = "later"
[groups.llm]
kind = "model"
members = ["free", "paid", "own", "sorry"]
[agents.sub]
model = "below"
[agents.stranger]
model = "other"
budget = { tokens = 1000 }
[agents.a]
model = "llm"
agents = ["sub"]
budget = { money = 0.5 }
"#;
    let text = format!("{rest}{paid}{free}{below}{other}");
    let folder = Folder::with("t.toml", &text);
    let said = folder.run(&["check", "t.toml"], "");
    assert_eq!(said.code, 0, "{said:?}");
    // Each is named.
    std::fs::write(folder.0.join("t.toml"), text.replace("price_per_million", "#")).unwrap();
    let said = folder.run(&["check", "t.toml"], "");
    let errors = said.err.lines().filter(|line| line.starts_with("error: "));
    let expected = ["free", "paid", "below"]
        .map(|name| format!("error: a budget of money, and `{name}` has no price"));
    assert_eq!(
        (said.code, errors.collect::<Vec<_>>()),
        (2, expected.iter().map(|it| &**it).collect())
    );
}

#[test]
fn bytes_that_are_no_text_have_a_place() {
    let folder = Folder::new();
    std::fs::write(folder.0.join("t.toml"), b"[models.m]\nkind = \"\xffocal\"\n").unwrap();
    let said = folder.run(&["check", "t.toml"], "");
    assert_eq!(said.code, 2);
    assert!(said.err.starts_with("error: this is not UTF-8\n --> t.toml:2:9\n"), "{}", said.err);
}

#[test]
fn a_folder_is_no_tree_file() {
    let said = Folder::new().run(&["run", ".", "hello"], "");
    assert_eq!(said.code, 2);
    assert!(said.err.starts_with("mainstay: . cannot be read: "), "{said:?}");
    assert!(said.err.ends_with("; name the tree file itself\n"), "{said:?}");
    let said = Folder::new().run(&["check", "none.toml"], "");
    assert!(said.err.ends_with("; paths are seen from the folder you are in\n"), "{said:?}");
}

const ASKED: &str = "[models.m]\nkind = \"local\"\n[agents.h]\nmodel = \"m\"\n";

#[test]
fn two_tools_that_a_model_could_not_tell_apart_are_named_with_a_way_out() {
    let servers = "[tools.a]\ncommand = [\"a\"]\n[tools.b]\ncommand = [\"b\"]\n";
    refused(
        &format!("{servers}{ASKED}tools = [\"a.look\", \"b.look\"]\n"),
        r#"error: `b.look` and `a.look` are both called `look`
 --> t.toml:9:20
  |
9 | tools = ["a.look", "b.look"]
  |                    ^^^^^^^^ a model knows only that name
  |
  = help: to have both, give one a name of its own: [groups.NAME] with `kind = "tool"` and `members = ["b.look"]`, and `NAME` in the agent's `tools`
"#,
    );
    refused(
        &format!("{servers}{ASKED}tools = [\"a\", \"b\", \"a.look\"]\n"),
        r#"error: `a.look` stands here twice: `a` is all of its tools
 --> t.toml:9:20
  |
9 | tools = ["a", "b", "a.look"]
  |                    ^^^^^^^^ one of them
  |
  = help: remove one of the two
"#,
    );
}

#[test]
fn a_key_that_is_written_down_is_told_where_it_belongs_and_is_not_shown() {
    for (line, wrong) in
        [("key = \"sk-0123456789abcdef\"", "key"), ("api_key = 'sk-0123456789abcdef'", "api_key")]
    {
        let text = format!("[models.m]\nkind = \"openai\"\n{line}\n");
        let said = Folder::with("t.toml", &text).run(&["check", "t.toml"], "");
        let hint = "= help: a key stands in no file: write `key_env = \"VARIABLE\"`, and set this environment variable";
        assert!(said.code == 2 && said.err.contains(hint), "{said:?}");
        assert!(said.err.contains(&format!("unknown key `{wrong}`")), "{said:?}");
        assert!(!said.err.contains("sk-0"), "{said:?}");
    }
    let tool = format!("{ASKED}[tools.t]\nurl = \"http://127.0.0.1:9/mcp\"\ntoken = \"abc\"\n");
    let said = Folder::with("t.toml", &tool).run(&["check", "t.toml"], "");
    assert!(said.err.contains("write `bearer_env = "), "{said:?}");
}

#[test]
fn a_store_that_cannot_be_written_is_an_error_before_the_tree_is_started() {
    let with = |path: &str| format!("{ASKED}[store]\npath = \"{path}\"\n");
    refused(
        &with("t.toml/state"),
        r#"error: the store is to be below a file, t.toml
 --> t.toml:6:8
  |
6 | path = "t.toml/state"
  |        ^^^^^^^^^^^^^^ a folder is expected
  |
  = help: name a folder; it is made if it is not there
"#,
    );
    // Nobody may write there, whoever runs this.
    if cfg!(target_os = "linux") {
        let folder = Folder::with("t.toml", &with("/proc/state/of/mine"));
        let said = folder.run(&["check", "t.toml"], "");
        assert_eq!((said.code, &*said.out), (1, ""), "{said:?}");
        // It is the same to whoever runs it.
        assert_eq!(folder.run(&["run", "t.toml", "hello"], "").code, 1);
        assert!(said.err.starts_with("error: the store cannot be written: "), "{said:?}");
        assert!(said.err.contains(" --> t.toml:6:8\n"), "{said:?}");
    }
    #[cfg(unix)]
    for target in ["nowhere", "state"] {
        for path in ["state", "state/of/mine"] {
            let folder = Folder::with("t.toml", &with(path));
            std::os::unix::fs::symlink(target, folder.0.join("state")).unwrap();
            let said = folder.run(&["check", "t.toml"], "");
            assert_eq!(said.code, 1, "{target} {path}: {said:?}");
            assert!(said.err.contains("state is a link that leads to nothing: "), "{said:?}");
            assert!(said.err.contains(" --> t.toml:6:8\n"), "{said:?}");
            let ran = folder.run(&["run", "t.toml", "hello"], "");
            assert_eq!((ran.code, &*ran.out), (1, ""), "{target} {path}: {ran:?}");
        }
    }
    let folder = Folder::with("t.toml", &with("some\\u0000thing"));
    for arguments in [&["check", "t.toml"][..], &["run", "t.toml", "hello"]] {
        let said = folder.run(arguments, "");
        assert_eq!(said.code, 2, "{said:?}");
        assert!(said.err.starts_with("error: the store's path has a NUL in it\n"), "{said:?}");
    }
    // One that can be written is not made by looking.
    let folder = Folder::with("t.toml", &with("some/state"));
    let said = folder.run(&["check", "t.toml"], "");
    assert_eq!((said.code, &*said.err), (0, ""), "{said:?}");
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 1);
    assert_eq!(folder.run(&["run", "t.toml", "hello"], "").code, 0);
    let held = || std::fs::read_dir(folder.0.join("some/state")).unwrap().count();
    let before = held();
    let said = folder.run(&["check", "t.toml"], "");
    assert_eq!((said.code, &*said.err, held()), (0, "", before), "{said:?}");
}

#[test]
fn what_is_strange_and_wrong_for_nobody_is_a_warning() {
    let spare = "[models.spare]\nkind = \"local\"\n[people.boss]\n[groups.g]\nkind = \"model\"\nmembers = [\"spare\"]\n";
    let folder = Folder::with("t.toml", &format!("{ASKED}{spare}[store]\npath = \"state\"\n"));
    std::fs::create_dir(folder.0.join("state")).unwrap();
    std::fs::write(folder.0.join("state/notes.txt"), "").unwrap();
    let said = folder.run(&["check", "t.toml"], "");
    assert!(said.code == 0 && said.out.starts_with("t: valid"), "{said:?}");
    let expected = r#"warning: nobody uses `g`, a group
 --> t.toml:8:9
  |
8 | [groups.g]
  |         ^ is named nowhere else
  |
  = help: name it where it is to serve, or remove it

warning: nobody uses `boss`, a person
 --> t.toml:7:9
  |
7 | [people.boss]
  |         ^^^^ is named nowhere else
  |
  = help: name it where it is to serve, or remove it

warning: the folder of the store holds something else: notes.txt
  --> t.toml:12:8
   |
12 | path = "state"
   |        ^^^^^^^ is no store
   |
   = help: name a folder of its own; it is made if it is not there
"#;
    assert_eq!(said.err, expected, "\n{}", said.err);
}

#[test]
fn a_checkpoint_of_an_agent_that_others_start_is_pointed_at() {
    let text = "[store]\npath = \"state\"\n[models.llm]\nkind = \"local\"\n[agents.boss]\nmodel = \"llm\"\nagents = [\"reader\"]\n\
                [agents.reader]\nmodel = \"llm\"\ncheckpoint = { steps = 5 }\n";
    let said = Folder::with("t.toml", text).run(&["check", "t.toml"], "");
    assert_eq!((said.code, &*said.out), (2, ""), "{said:?}");
    assert!(said.err.starts_with("error: a checkpoint of `reader`, which other agents start\n"));
    assert!(said.err.contains(" --> t.toml:10:14\n"), "{said:?}");
}
