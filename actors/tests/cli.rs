//! The command `mainstay` as a user meets it: what it prints, and how it ends.

use harness::{Folder, refused, support};

#[path = "cli/acts.rs"]
mod acts;
#[path = "cli/aliases.rs"]
mod aliases;
#[path = "cli/aside.rs"]
mod aside;
#[path = "cli/bad_files.rs"]
mod bad_files;
#[path = "cli/chaos.rs"]
mod chaos;
#[path = "cli/chat.rs"]
mod chat;
#[path = "cli/durable.rs"]
mod durable;
#[path = "cli/ended.rs"]
mod ended;
#[path = "cli/harness.rs"]
mod harness;
#[path = "cli/hedge.rs"]
mod hedge;
#[path = "cli/kept.rs"]
mod kept;
#[path = "cli/models.rs"]
mod models;
#[path = "cli/points.rs"]
mod points;
#[path = "cli/proxies.rs"]
mod proxies;
#[path = "cli/stand_ins.rs"]
mod stand_ins;
#[path = "cli/store.rs"]
mod store;
#[cfg(unix)]
#[path = "cli/terminal.rs"]
mod terminal;
#[path = "cli/trees.rs"]
mod trees;
#[path = "cli/watch.rs"]
mod watch;

const FILE: &str = "examples/trees/support.toml";

#[test]
fn the_support_desk_answers_without_a_network() {
    let said = support(&["run", FILE, "Where is order 1042?"], "");
    assert_eq!((said.code, &*said.err), (0, ""), "{said:?}");
    assert_eq!(said.out, "Your order 1042 is delayed. Date: 2026-11-28.\n");
    let piped = support(&["run", FILE], "Where is order 1042?\n");
    assert_eq!((piped.code, piped.out), (0, said.out));
}

#[test]
fn progress_and_json_are_for_those_who_ask_for_them() {
    let said = support(&["run", FILE, "--progress", "Where is order 1042?"], "");
    assert!(said.err.contains("(by support/agent; tools query_order; 2 steps;"), "{said:?}");
    let said = support(&["run", FILE, "--json", "I want my money back for order 1003"], "");
    let answer: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(said.code, 0);
    assert_eq!(answer["served_by"], "support/agent");
    assert_eq!((&answer["degraded"], &answer["steps"]), (&false.into(), &3.into()));
    let tools: Vec<_> =
        answer["tools_used"].as_array().unwrap().iter().map(|t| &t["name"]).collect();
    assert_eq!(tools, ["query_order", "refund"]);
}

#[test]
fn no_prompt_is_a_wrong_argument() {
    let said = support(&["run", FILE], " \n");
    assert_eq!((said.code, &*said.out), (2, ""));
    assert_eq!(
        said.err,
        "mainstay: there is no prompt: give one as an argument or on standard input\n"
    );
}

#[test]
fn what_cannot_be_asked_is_told_to_programs_as_json() {
    let error = |said: &harness::Said| -> serde_json::Value {
        assert_eq!(said.out.lines().count(), 1, "{said:?}");
        serde_json::from_str::<serde_json::Value>(&said.out).unwrap()["error"].take()
    };
    let said = support(&["run", FILE, "--json"], "\n");
    assert_eq!((said.code, &error(&said)["kind"]), (2, &"not_asked".into()), "{said:?}");
    let folder = Folder::with("t.toml", "[models.m]\nkind = 5\n");
    let said = folder.run(&["run", "t.toml", "--json", "hello"], "");
    assert_eq!((said.code, &error(&said)["kind"]), (2, &"file".into()), "{said:?}");
    assert!(error(&said)["message"].as_str().unwrap().contains("t.toml:2:8"), "{said:?}");
}

#[test]
fn the_exit_code_says_whether_the_command_has_to_be_changed() {
    const AGENT: &str = "[agents.a]\nmodel = \"llm\"\n";
    let text = "[models.llm]\nkind = \"default\"\ntext = \"later\"\n";
    let down = "[models.llm]\nkind = \"openai\"\nmodel = \"m\"\nbase_url = \"http://127.0.0.1:9/v1\"\n[policy]\nmax_retries = 0\n";
    let dead = format!("{text}[tools.s]\ncommand = [\"false\"]\n{AGENT}tools = [\"s\"]\n");
    let (fine, down) = (format!("{text}{AGENT}"), format!("{down}{AGENT}"));
    let one = ["run", "t.toml", "--json", "hello"];
    for (file, arguments, code, kind) in [
        (&*fine, &one[..], 0, ""),
        (&fine, &["check", "t.toml"], 0, ""),
        (&down, &one, 1, "recovery_exhausted"),
        (&down, &["run", "t.toml", "hello"], 1, ""),
        // Nothing is wrong with the file: the server may start at another time.
        (&dead, &one, 1, "not_asked"),
        (&dead, &["tree", "t.toml"], 1, ""),
        ("[models.llm]\n", &one, 2, "file"),
        ("[models.llm]\n", &["check", "t.toml"], 2, ""),
        (&fine, &["run", "t.toml", "--json"], 2, "not_asked"),
        (&fine, &["run", "t.toml", "--json", "--key", "k", "hello"], 2, "not_asked"),
        (&fine, &["run", "t.toml", "--history", "h"], 2, ""),
        (&fine, &["run", "t.toml", "--jsno", "hello"], 2, ""),
        (&fine, &["store", "t.toml"], 2, ""),
    ] {
        let said = Folder::with("t.toml", file).run(arguments, "");
        let body = serde_json::from_str::<serde_json::Value>(&said.out).unwrap_or_default();
        let said_kind = body["error"]["kind"].as_str().unwrap_or_default();
        assert_eq!((said.code, said_kind), (code, kind), "{arguments:?}: {said:?}");
    }
}

#[test]
fn bytes_that_are_no_text_are_no_question() {
    let text = "[models.llm]\nkind = \"local\"\n[agents.a]\nmodel = \"llm\"\n";
    let folder = Folder::with("t.toml", text);
    let said = folder.run_bytes(&["run", "t.toml"], b"abc\xff def");
    assert_eq!((said.code, &*said.out), (2, ""));
    assert_eq!(said.err, "mainstay: standard input is not UTF-8, from byte 4 on\n");
    // In a conversation the other lines are heard.
    let said = folder.run_bytes(&["run", "t.toml", "--chat"], b"abc\xff def\n/help\n");
    assert_eq!(said.code, 0);
    assert!(said.err.ends_with("that line is not UTF-8\n"), "{said:?}");
    assert!(said.out.contains("/tree "), "{said:?}");
}

#[test]
fn a_failure_is_told_to_people_and_to_programs() {
    // Nobody listens on the discard port.
    let text = r#"
        [models.llm]
        kind = "openai"
        base_url = "http://127.0.0.1:9/v1"
        model = "m"
        [policy]
        max_retries = 0
        [agents.helper]
        model = "llm"
    "#;
    let folder = Folder::with("down.toml", text);
    let said = folder.run(&["run", "down.toml", "--progress", "hello"], "");
    assert_eq!((said.code, &*said.out), (1, ""));
    assert!(said.err.contains("down/llm: attempt 1 failed: network"), "{said:?}");
    assert!(said.err.contains("mainstay: no answer: "), "{said:?}");
    let said = folder.run(&["run", "down.toml", "--json", "hello"], "");
    let answer: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((said.code, &*said.err), (1, ""));
    assert_eq!(answer["error"]["kind"], "recovery_exhausted");
    assert_eq!(answer["error"]["trail"][0]["child"], "down/helper");
}

#[test]
fn a_default_answer_stands_in_and_says_so() {
    let text = r#"
        [models.far]
        kind = "openai"
        base_url = "http://127.0.0.1:9/v1"
        model = "m"
        [models.sorry]
        kind = "default"
        text = "later"
        [groups.llm]
        kind = "model"
        members = ["far", "sorry"]
        [policy]
        max_retries = 0
        [agents.helper]
        model = "llm"
    "#;
    let said = Folder::with("t.toml", text).run(&["run", "t.toml", "--json", "hello"], "");
    let answer: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&answer["text"], &answer["degraded"]), (&"later".into(), &true.into()));
}

#[test]
fn a_check_prints_the_whole_plan_of_a_profile() {
    let said = support(&["check", FILE], "");
    assert_eq!((said.code, &*said.err), (0, ""));
    for line in [
        "support: valid (customer_service); support/agent answers",
        "  network            3        1s, 2s, 4s  a sibling",
        "  permission         0                    nobody: it ends here",
        "  refund (tool): refund_desk -> human_agent",
        "  S44  system       5 min, high risk",
        "  S64  checkpoint   every 5 steps",
        "  S98               recovery in all                    > 98 %",
        "  S65.intervention  a person had to help (reported)    < 10 %",
        "  S90  rollback success < 95 %      critical        >= 20",
        "  S61  a tool times out: 5 to 10 %",
    ] {
        assert!(said.out.lines().any(|there| there == line), "{line}\n{}", said.out);
    }
}

#[test]
fn each_profile_has_its_own_numbers_and_policy() {
    let page = |profile: &str| {
        let text = format!(
            "profile = \"{profile}\"\n[store]\npath = \"s\"\n[models.m]\nkind = \"local\"\n[agents.a]\nmodel = \"m\"\n"
        );
        Folder::with("t.toml", &text).run(&["check", "t.toml"], "").out
    };
    let finance = page("finance");
    assert!(
        finance.contains("S71.success   transaction success                > 99.9 %"),
        "{finance}"
    );
    assert!(
        finance.contains("S71.loss      funds lost (reported)              < 0.01 %"),
        "{finance}"
    );
    assert!(finance.contains(
        "S70  checkpoint   every step; a transaction that fails returns to its beginning"
    ));
    assert!(finance.contains("  store  sync; agents"));
    assert!(finance.contains("  output_invalid     0   "));
    let codegen = page("codegen");
    assert!(
        codegen.contains("S76  checkpoint   every 10 lines that an agent's model has written"),
        "{codegen}"
    );
    assert!(codegen.contains("  output_invalid     2        none, none  a sibling"), "{codegen}");
    assert!(codegen.contains("S73  a syntax error: 10 to 15 %"));
    assert!(
        codegen.contains("S77.generation  generation, P95 (reported)         < 10 s"),
        "{codegen}"
    );
}

#[test]
fn the_policy_section_changes_what_is_printed() {
    let text = "[models.m]\nkind = \"local\"\n[agents.a]\nmodel = \"m\"\n[policy]\nmax_retries = 2\nattempt_timeout = \"5s\"\nmax_delay = \"1500ms\"\n[policy.retries]\ntool_execution = 1\n";
    let said = Folder::with("t.toml", text).run(&["check", "t.toml"], "");
    for part in [
        "  network            2        1s, 1.5s   a sibling",
        "  tool_execution     1        1s         a sibling",
        "  all together: at most 2 retries; one attempt at most 5s;",
    ] {
        assert!(said.out.contains(part), "{part}\n{}", said.out);
    }
}

#[test]
fn a_tree_is_shown_in_every_format() {
    let said = support(&["tree", FILE], "");
    assert!(said.out.contains("├─ refund          tool group"), "{said:?}");
    let json = support(&["tree", FILE, "--format", "json"], "");
    serde_json::from_str::<serde_json::Value>(&json.out).unwrap();
    assert!(support(&["tree", FILE, "--format", "dot"], "").out.starts_with("digraph"));
    assert!(support(&["tree", FILE, "--format", "mermaid"], "").out.starts_with("flowchart"));
    assert_eq!(support(&["tree", FILE, "--format", "png"], "").code, 2);
}

#[test]
fn an_unknown_key_is_pointed_at() {
    refused(
        "[models.llm]\nkind = \"local\"\n\n[agents.helper]\nmodle = \"llm\"\n",
        r#"error: unknown key `modle`
 --> t.toml:5:1
  |
5 | modle = "llm"
  | ^^^^^ not a key of this place
  |
  = help: did you mean `model`? known here: `model`, `system`, `description`, `tools`, `agents`, `max_steps`, `max_tokens`, `temperature`, `answer_schema`, `budget` and `checkpoint`
"#,
    );
    refused(
        "[models.llm]\nkind = \"locl\"\n",
        r#"error: unknown value `locl`
 --> t.toml:2:8
  |
2 | kind = "locl"
  |        ^^^^^^ not a value of this place
  |
  = help: did you mean `local`? known here: `openai`, `responses`, `anthropic`, `gemini`, `ollama`, `ollama-native`, `local`, `default` and `template`
"#,
    );
}

#[test]
fn a_wrong_type_is_pointed_at() {
    refused(
        "[models.llm]\nkind = \"local\"\n\n[agents.helper]\nmodel = 5\n",
        r"error: integer `5` where a string is expected
 --> t.toml:5:9
  |
5 | model = 5
  |         ^ expected a string
  |
  = help: put it into quotes
",
    );
    refused(
        "[models.llm]\nkind = \"local\"\ntimeout = \"30\"\n",
        r#"error: string "30" where a duration such as "30s", "500ms" or "2m" is expected
 --> t.toml:3:11
  |
3 | timeout = "30"
  |           ^^^^ expected a duration such as "30s", "500ms" or "2m"
  |
  = help: write a whole number above 0 and a unit: "500ms", "30s", "2m" or "1h"; at most a year
"#,
    );
    refused(
        "[agents.helper]\nsystem = \"x\"\n",
        r"error: the key `model` is missing
 --> t.toml:1:1
  |
1 | [agents.helper]
  | ^^^^^^^^^^^^^^^ in this table
  |
  = help: add a line `model = ...`
",
    );
    refused(
        "[agents.helper\n",
        r"error: a section's name that does not end
 --> t.toml:1:15
  |
1 | [agents.helper
  |               ^ here
  |
  = help: end it with `]`
",
    );
}

#[test]
fn a_missing_variable_and_a_name_that_leads_nowhere_are_told_together() {
    refused(
        r#"[models.llm]
kind = "openai"
base_url = "http://127.0.0.1:9/v1"
model = "m"
key_env = "MAINSTAY_TEST_KEY"

[agents.helper]
model = "lm"
tools = ["llm"]
"#,
        r#"error: the environment variable MAINSTAY_TEST_KEY is not set
 --> t.toml:5:11
  |
5 | key_env = "MAINSTAY_TEST_KEY"
  |           ^^^^^^^^^^^^^^^^^^^ read from here
  |
  = help: set it before the start: export MAINSTAY_TEST_KEY=...

error: there is no `lm`
 --> t.toml:8:9
  |
8 | model = "lm"
  |         ^^^^ a model or a group of models is expected
  |
  = help: did you mean `llm`?

error: `llm` is a model, not a tool, a server, or `server.tool`
 --> t.toml:9:10
  |
9 | tools = ["llm"]
  |          ^^^^^ a tool, a server, or `server.tool` is expected
  |
  = help: there is none of this kind: declare a tool, a server, or `server.tool`
"#,
    );
}

#[test]
fn combinations_that_cannot_be_are_refused() {
    refused(
        r#"profile = "finance"

[store]
path = "money"
durability = "async"

[models.a]
kind = "local"
base_url = "http://127.0.0.1:9/v1"

[tools.f]
command = ["x"]
url = "http://127.0.0.1:9/mcp"

[agents.h]
model = "a"
tools = ["f"]

[policy]
max_retries = 9

[policy.retries]
permission = 1
"#,
        r#"error: a `local` model has no `base_url`
 --> t.toml:9:12
  |
9 | base_url = "http://127.0.0.1:9/v1"
  |            ^^^^^^^^^^^^^^^^^^^^^^^ does not fit the kind
  |
  = help: remove it, or write `kind = "openai"` for an endpoint

error: the tool `f` is two things: `command` and `url`
  --> t.toml:13:7
   |
13 | url = "http://127.0.0.1:9/mcp"
   |       ^^^^^^^^^^^^^^^^^^^^^^^^ besides `command`
   |
   = help: keep one of them, or make two tools

error: the profile `finance` with a store that may lose writes
 --> t.toml:5:14
  |
5 | durability = "async"
  |              ^^^^^^^ an effect must be on disk before it is made
  |
  = help: write `durability = "sync"`, or leave it out

error: 9 retries of one request
  --> t.toml:20:15
   |
20 | max_retries = 9
   |               ^ at most 3
   |
   = help: more would be an avalanche (S78); let a sibling answer instead

error: `permission` is never retried
  --> t.toml:23:1
   |
23 | permission = 1
   | ^^^^^^^^^^ again would end the same way
   |
   = help: remove it, or write 0
"#,
    );
}

#[test]
fn a_member_is_asked_through_its_group_and_a_weaker_one_needs_a_grant() {
    refused(
        r#"[models.a]
kind = "local"
guardrail = 2

[models.b]
kind = "local"

[groups.g]
kind = "model"
members = ["a", "b"]

[agents.h]
model = "a"
"#,
        r"error: `a` is a member of the group `g`
  --> t.toml:13:9
   |
13 | model = QaQ
   |         ^^^ asked past its group
   |
   = help: write `g`, or declare it again under another name
"
        .replace('Q', "\"")
        .as_str(),
    );
    let text = r#"[models.a]
kind = "local"
guardrail = 2

[models.b]
kind = "local"

[groups.g]
kind = "model"
members = ["a", "b"]

[agents.h]
model = "g"
"#;
    refused(
        text,
        r"error: `b` may not stand in for `a`: a lower guardrail level
  --> t.toml:10:17
   |
10 | members = [QaQ, QbQ]
   |                 ^^^ weaker than the first member
   |
   = help: remove it, or answer for it: [groups.g.grants.b] with `owner` and `reason`
"
        .replace('Q', "\"")
        .as_str(),
    );
    let granted = format!("{text}[groups.g.grants.b]\nowner = \"ops\"\nreason = \"outages\"\n");
    let said = Folder::with("t.toml", &granted).run(&["check", "t.toml"], "");
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("    b may be weaker: outages (ops)"), "{said:?}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let said = Folder::new().run(&["check", "nowhere.toml"], "");
    assert_eq!(said.code, 2);
    assert!(said.err.starts_with("mainstay: nowhere.toml cannot be read: "), "{said:?}");
}

#[test]
fn errors_that_nobody_reads_end_nothing() {
    let folder = Folder::with("t.toml", "[models.m]\nkind = \"nothing\"\n");
    for arguments in [&["check", "t.toml"][..], &["check", "gone.toml"], &["run", "t.toml", "x"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        // Whoever read has gone before anything is said.
        drop(reader);
        let mut command = harness::command(&folder.0, arguments);
        let ended = command.stderr(writer).output().unwrap();
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}");
    }
}
