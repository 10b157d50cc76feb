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
