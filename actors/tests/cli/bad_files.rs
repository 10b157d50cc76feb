//! Files that are wrong: each is refused at its line and column, with what is wrong and what to do.

use serde_json::Value;

use super::harness::{Folder, command, refused, said};

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
budget = { time = "1m", tokens = 9000 }

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

/// One as a provider makes it, two as people do, and what each is in escapes.
const PASTED: [(&str, &str); 3] = [
    ("sk-live-9f8e7d6c5b4a3210", "sk\\u002dlive-9f8e7d6c5b4a3210"),
    ("gsk_AbCdEfGh0123456789zz", "gsk\\u005FAbCdEfGh0123456789zz"),
    ("tr0ub4dor-&-3", "tr0ub4dor-\\u0026-3"),
];

#[test]
fn a_key_that_is_pasted_into_a_file_is_shown_nowhere_however_it_is_written() {
    let endpoint = "kind = \"openai\"\nbase_url = \"http://127.0.0.1:9/v1\"\nmodel = \"m\"\n";
    let model = format!("[models.m]\n{endpoint}");
    let mut files = Vec::new();
    for (key, escaped) in PASTED {
        // Under whatever a key is written.
        let values = [
            format!("\"{key}\""),
            format!("'{key}'"),
            format!("\"{escaped}\""),
            format!("\"\"\"\n{key}\"\"\""),
            format!("\"\"\"\n{escaped}\n\"\"\""),
            format!("'''\n{key}'''"),
            format!("\"\"\"\\\n   {key}\\\n\"\"\""),
            format!("[\"{key}\"]"),
            format!("{{ a = \"{key}\" }}"),
            key.to_owned(),
            format!("\"{key}"),
            format!("\"Bearer {key}\""),
        ];
        for name in ["key_env", "\"key_env\"", "\"key\\u005fenv\"", "api_key", "auth", "credential"]
        {
            let file = |value: &String| (key, format!("{model}{name} = {value}\n"));
            files.extend(values.iter().map(file));
            files.push((key, format!("{model}{name} = 1\n{name} = \"{key}\"\n")));
            files.push((key, format!("[models]\nm.kind = \"local\"\nm.{name} = \"{key}\"\n")));
            files.push((key, format!("models.m.{name}.sub = '{key}'\n")));
            files.push((key, format!("models.m = {{ kind = \"local\", {name} = '{key}' }}\n")));
        }
        for name in ["pass", "pwd", "openai", "store", "points", "password"] {
            files.push((key, format!("{model}{name} = \"{key}\"\n")));
            files.push((key, format!("{name} = '{key}'\n{model}")));
            files.push((key, format!("{model}[{name}]\nmine = \"{escaped}\"\n")));
        }
        let table = [
            format!("headers_env = {{ x-team = \"{key}\" }}\n"),
            format!("headers_env.x-team = '{key}'\n"),
            format!("[models.m.headers_env]\nx-team = \"{key}\"\n"),
            format!("[models.m.headers_env]\nx-team = {key}\n"),
            format!("[models.m.\"headers_env\"]\nx-team = \"{escaped}\"\n"),
            format!("headers_env = [\"{key}\"]\n"),
            format!("headers_env = \"{key}\"\n"),
            format!("headers = {{ authorization = \"Bearer {key}\" }}\n"),
            format!("headers = {{ x-auth = \"{key}\", \"x y\" = \"z\" }}\n"),
        ];
        files.extend(table.map(|table| (key, format!("{model}{table}"))));
        let tool = "[models.m]\nkind = \"local\"\n[tools.t]\n";
        let places = [
            format!("url = \"http://127.0.0.1:9/mcp\"\nbearer_env = \"{key}\"\n"),
            format!("url = \"http://127.0.0.1:9/mcp\"\nbearer_env = {key}\n"),
            format!("command = [\"x\"]\nenv_from = [\n  \"HOME\",\n  \"{escaped}\",\n]\n"),
            format!("command = [\"x\"]\nenv_from = {{ \"{key}\" = 1 }}\n"),
            format!("command = [\"x\"]\nenv = {{ MY_KEY = \"{key}\", \"A=B\" = \"\" }}\n"),
            format!("command = [\"x\"]\nenv = {{ \"A={key}\" = \"\" }}\n"),
        ];
        files.extend(places.map(|place| (key, format!("{tool}{place}"))));
    }
    // By its looks alone, wherever it stands.
    let (strong, _) = PASTED[0];
    files.extend(
        [
            format!("{model}[agents.\"{strong}\"]\nmodel = \"none\"\n"),
            format!("{model}bogus = 1 # {strong}\n"),
            format!("{model}token_limit = \"{strong}\"\n"),
            format!("{model}key_env: {strong}\n"),
            format!("{model}key_env {strong}\n"),
            format!("{model}{strong}\n"),
        ]
        .map(|file| (strong, file)),
    );
    let folder = Folder::new();
    let mut shown = Vec::new();
    for (index, (key, file)) in files.iter().enumerate() {
        std::fs::write(folder.0.join("t.toml"), file).unwrap();
        let escaped = PASTED.iter().find(|(it, _)| it == key).unwrap().1;
        let commands = [&["check", "t.toml"][..], &["run", "t.toml", "--json", "hello"]];
        // Both say the same, which a few of them show.
        for arguments in &commands[..1 + usize::from(index % 16 == 0)] {
            let said = folder.run(arguments, "");
            let all = format!("{}{}", said.out, said.err);
            if said.code != 2 || all.contains(key) || all.contains(escaped) {
                shown.push(format!("{arguments:?} ({}) of\n{file}{all}", said.code));
            }
        }
    }
    assert!(shown.is_empty(), "{} of {}: {}", shown.len(), files.len(), shown.join("\n"));
}

#[test]
fn what_is_no_key_is_shown_beside_one() {
    let file =
        |line: &str| format!("[models.m]\nkind = \"openai\"\nmodel = \"qwen2.5:7b\"\n{line}\n");
    for line in [
        "modle = \"llama3:8b\" # as ours",
        "headers_env = { x-team-name = \"MAINSTAY_NO_SUCH_KEY\" }",
        "key_env = MY_KEY",
        "max_token = 400",
        "token = \"MY_TOKEN\"",
        "base_ur = \"http://127.0.0.1:11434/v1\"",
    ] {
        let said = Folder::with("t.toml", &file(line)).run(&["check", "t.toml"], "");
        assert!(said.err.contains(&format!("4 | {line}\n")), "{said:?}");
    }
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
fn a_variable_whose_value_no_header_can_have_is_wrong_before_anybody_is_asked() {
    let endpoint =
        "[models.m]\nkind = \"openai\"\nbase_url = \"http://127.0.0.1:9/v1\"\nmodel = \"m\"\n";
    let server = format!("{ASKED}tools = [\"t.x\"]\n[tools.t]\nurl = \"http://127.0.0.1:9/mcp\"\n");
    let files = [
        format!("{endpoint}key_env = \"MAINSTAY_SENT\"\n"),
        format!("{endpoint}headers_env = {{ x-team = \"MAINSTAY_SENT\" }}\n"),
        format!("{server}bearer_env = \"MAINSTAY_SENT\"\n"),
        format!("{server}headers_env = {{ x-team = \"MAINSTAY_SENT\" }}\n"),
    ];
    for file in files {
        let folder = Folder::with("t.toml", &file);
        let with = |value: &str, arguments: &[&str]| {
            let mut command = command(&folder.0, arguments);
            said(command.env("MAINSTAY_SENT", value).output().unwrap())
        };
        for (value, what) in
            [("  ", "blanks only"), ("sk-a\nb", "what no header can have"), ("a\u{7}", "what no")]
        {
            for arguments in
                [&["check", "t.toml"][..], &["tree", "t.toml"], &["run", "t.toml", "x"]]
            {
                let said = with(value, arguments);
                let told = format!("error: the environment variable MAINSTAY_SENT has {what}");
                assert!(said.code == 2 && said.err.starts_with(&told), "{file}{said:?}");
                assert!(!said.err.contains("sk-a"), "{said:?}");
            }
        }
        // The line's end of the file that it was read from is none of it.
        assert_eq!(with("sk-a\n", &["check", "t.toml"]).code, 0, "{file}");
    }
}

#[test]
fn what_changes_nothing_is_a_warning_and_not_where_it_changes_something() {
    let file = r#"
entry = "boss"
[models.far]
kind = "openai"
base_url = "http://127.0.0.1:9/v1"
model = "m"
timeout = "5m"
answer_tokens = 900
guardrail = 3
residency = "eu"
provider = "x"
quota_domain = "account"
tool_rights = ["refund"]
[models.near]
kind = "local"
price_cap = 1.0
[models.text]
kind = "default"
text = "later"
timeout = "3s"
concurrency = 3
[models.one]
kind = "local"
guardrail = 1
[models.two]
kind = "local"
[groups.turned]
kind = "model"
members = ["text", "one"]
[groups.pair]
kind = "tool"
members = ["nothing", "other"]
grants = { other = { owner = "ops", reason = "so" } }
[tools.nothing]
builtin = "default"
text = "nothing"
[tools.other]
builtin = "default"
text = "nothing"
[agents.boss]
description = "leads"
model = "far"
agents = ["reader", "writer"]
tools = ["pair"]
budget = { time = "1m" }
[agents.reader]
description = "reads"
model = "near"
temperature = 0.5
[agents.writer]
model = "turned"
"#;
    let folder = Folder::with("t.toml", file);
    let said = folder.run(&["check", "t.toml"], "");
    assert_eq!(said.code, 0, "{said:?}");
    let warnings = |err: &str| {
        let mut all: Vec<String> = Vec::new();
        for line in err.lines() {
            if let Some(text) = line.strip_prefix("warning: ") {
                all.push(text.to_owned());
            } else if let (Some((_, place)), Some(last)) =
                (line.split_once("--> t.toml:"), all.last_mut())
            {
                *last = format!("{place} {last}");
            }
        }
        all
    };
    let expected = [
        "9:13 `guardrail` of `far`, for which nobody can stand in",
        "10:13 `residency` of `far`, for which nobody can stand in",
        "13:15 `tool_rights` of `far`, for which nobody can stand in",
        "11:12 `provider` of `far`, for which nobody can stand in",
        "12:16 `quota_domain` of `far`, for which nobody can stand in",
        "8:17 `answer_tokens` without a budget",
        "7:11 an attempt of 5 min in tasks that have 1 min",
        "16:13 `price_cap` of `near`, for which nobody can stand in",
        "20:11 `timeout` of a text, which is there at once",
        "21:15 `concurrency` of a text, which is there at once",
        "32:23 `other` stands behind a text, which always answers",
        "33:12 a grant for `other`, which may stand in without one",
        "29:20 `one` stands behind a text, which always answers",
        "41:15 a description of `boss`, which no agent starts",
        "49:15 a temperature, and no model that has one",
        "25:9 nobody uses `two`, a model",
    ];
    let mut found = warnings(&said.err);
    let mut expected = expected.map(str::to_owned).to_vec();
    found.sort();
    expected.sort();
    assert_eq!(found, expected, "{}", said.err);
    // Each of them where it does something.
    let file = r#"
entry = "boss"
[models.far]
kind = "openai"
base_url = "http://127.0.0.1:9/v1"
model = "m"
timeout = "1m"
answer_tokens = 900
guardrail = 3
residency = "eu"
provider = "x"
tool_rights = ["refund"]
quota_domain = "account"
[models.beside]
kind = "anthropic"
base_url = "http://127.0.0.1:9/v1"
model = "m"
answer_tokens = 900
quota_domain = "account"
[models.near]
kind = "local"
price_cap = 1.0
[models.text]
kind = "default"
text = "later"
[groups.chain]
kind = "model"
members = ["far", "near", "text"]
grants = { near = { owner = "ops", reason = "so" }, text = { owner = "ops", reason = "so" } }
[agents.boss]
model = "chain"
agents = ["reader"]
temperature = 0.5
budget = { time = "1m", tokens = 9000 }
[agents.reader]
description = "reads"
model = "beside"
"#;
    let said = Folder::with("t.toml", file).run(&["check", "t.toml"], "");
    assert_eq!((said.code, &*said.err), (0, ""), "{said:?}");
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
