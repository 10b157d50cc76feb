//! The examples: each is valid as it stands, and what `check` says of the first is known to the letter.

use super::harness::{Folder, shop, support};

const TREES: [&str; 6] = ["support", "finance", "codegen", "shop", "desk", "office"];
/// Those whose tree can be started everywhere.
const OFFLINE: [&str; 5] = ["support", "finance", "codegen", "shop", "desk"];

#[test]
fn every_example_is_valid() {
    let mut there: Vec<_> = std::fs::read_dir(
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/trees"),
    )
    .unwrap()
    .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
    .collect();
    there.sort();
    let mut named = TREES.map(str::to_owned).to_vec();
    named.sort();
    assert_eq!(there, named, "each example is tested here");
    for name in TREES {
        let said = support(&["check", &format!("examples/trees/{name}.toml")], "");
        assert_eq!((said.code, &*said.err), (0, ""), "{name}");
        assert!(said.out.starts_with(&format!("{name}: valid (")), "{name}: {}", said.out);
    }
}

#[test]
fn the_page_of_the_support_desk_is_known_to_the_letter() {
    let said = support(&["check", "examples/trees/support.toml"], "");
    assert_eq!(said.out, include_str!("support.check.txt"), "\n{}", said.out);
}

#[test]
fn the_tree_of_the_support_desk_is_known_to_the_letter() {
    let said = support(&["tree", "examples/trees/support.toml"], "");
    assert_eq!(said.out, include_str!("support.tree.txt"), "\n{}", said.out);
}

/// An example in a folder of its own, with its server built beside the tests and not by them.
fn copy(name: &str) -> Folder {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = std::fs::read_to_string(root.join(format!("examples/trees/{name}.toml"))).unwrap();
    let data = root.join("examples/data");
    let cargo = "[\"cargo\", \"run\", \"--quiet\", \"--package\", \"mainstay-actors\", \"--example\", \"mcp_shop\"]";
    let text = text
        .replace("../data", data.to_str().unwrap())
        .replace("dir = \"../..\"\n", "")
        .replace(cargo, &format!("[{:?}]", shop()));
    Folder::with(&format!("{name}.toml"), &text)
}

#[test]
fn every_example_that_needs_nothing_is_shown_in_every_format() {
    for name in OFFLINE {
        let (folder, file) = (copy(name), format!("{name}.toml"));
        for (format, begin) in
            [("text", "name "), ("json", "{"), ("dot", "digraph"), ("mermaid", "flowchart LR")]
        {
            let said = folder.run(&["tree", &file, "--format", format], "");
            assert_eq!((said.code, &*said.err), (0, ""), "{name} as {format}");
            assert!(said.out.starts_with(begin), "{name} as {format}: {}", said.out);
        }
    }
}

#[test]
fn the_desk_pays_through_its_bank_and_passes_on_what_no_person_decides() {
    let (folder, file) = (copy("desk"), "desk.toml");
    let said = folder.run(&["run", file, "--json", "I want my money back for order 1003"], "");
    let answer: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(answer["text"], "Your order 1003 will be refunded.", "{answer}");
    let by = (&answer["served_by"], &answer["degraded"]);
    assert_eq!(by, (&"desk/reception/clerk".into(), &false.into()));
    let colleague = "A colleague will get in touch with you shortly.\n";
    let input = "I want to speak to a human\n/approve shift_lead-1\n";
    let said = folder.run(&["run", file, "--chat"], input);
    assert_eq!((said.code, said.out), (0, format!("decided: shift_lead-1\n{colleague}")));
    let said = folder.run(&["run", file, "I want to speak to a human"], "");
    assert_eq!(said.out, colleague, "{}", said.err);
    assert!(said.err.contains("(passed on after 2 s)\n  nobody types here"), "{}", said.err);
}

#[test]
fn money_is_paid_back_from_a_store_without_a_network() {
    // The example writes beside the build: a copy, so that two runs of the tests do not meet.
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = std::fs::read_to_string(root.join("examples/trees/finance.toml")).unwrap();
    let orders = root.join("examples/data/orders.json");
    let text = text
        .replace("../../target/trees/finance", "state")
        .replace("../data/orders.json", orders.to_str().unwrap());
    let folder = Folder::with("finance.toml", &text);
    let said =
        folder.run(&["run", "finance.toml", "--json", "I want my money back for order 1003"], "");
    let answer: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let tools: Vec<_> =
        answer["tools_used"].as_array().unwrap().iter().map(|tool| &tool["name"]).collect();
    assert_eq!(tools, ["query_order", "refund"], "{answer}");
    assert!(folder.0.join("state").is_dir());
}

/// The names between backticks.
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn the_page_about_the_file_is_valid_and_names_every_key() {
    let page = include_str!("../../../src/docs/tree-file.md");
    let (_, file) = page.split_once("```toml\n").unwrap();
    let (file, prose) = file.split_once("```").unwrap();
    let folder = Folder::with("t.toml", file);
    std::fs::write(folder.0.join("orders.json"), "[]").unwrap();
    std::fs::write(folder.0.join("faq.jsonl"), "{\"id\": \"a\", \"text\": \"b\"}\n").unwrap();
    let said = folder.run(&["check", "t.toml"], "");
    assert_eq!((said.code, &*said.err), (0, ""), "{}", said.err);
    // A key that nobody knows makes the reader name those that there are.
    let places = [
        "",
        "[ask]\n",
        "[supervisor]\n",
        "[policy]\n",
        "[store]\n",
        "[points]\n",
        "[watch]\n",
        "[watch.objectives.o]\n",
        "[watch.alerts.a]\n",
        "[models.m]\nkind = \"local\"\n",
        "[models.m.limits]\n",
        "[groups.g]\n",
        "[groups.g.hedge]\n",
        "[groups.g.undo]\n",
        "[groups.g.verify]\n",
        "[tools.t]\n",
        "[tools.t.effects.e]\n",
        "[people.p]\n",
        "[agents.a]\n",
        "[agents.a.budget]\n",
        "[agents.a.checkpoint]\n",
    ];
    let mut missing = Vec::new();
    for place in places {
        let unknown = Folder::with("t.toml", &format!("{place}nobody_knows = 1\n"));
        let said = unknown.run(&["check", "t.toml"], "");
        let (_, known) = said.err.split_once("known here: ").unwrap();
        assert!(names(known).count() > 0, "{place}: {}", said.err);
        let is_there = |key: &&str| {
            let at = |line: &str| {
                let line = line.trim_start().trim_start_matches('[');
                let rest = line.strip_prefix(key);
                rest.is_some_and(|rest| rest.starts_with([' ', '.', ']']))
            };
            let inline = [
                format!("{{ {key} ="),
                format!(", {key} ="),
                format!(".{key}]"),
                format!(".{key}."),
            ];
            file.lines().any(at)
                || inline.iter().any(|text| file.contains(text))
                || names(prose).any(|name| name == *key || name == format!("[{key}]"))
        };
        missing
            .extend(names(known).filter(|key| !is_there(key)).map(|key| format!("{place}{key}")));
    }
    assert!(missing.is_empty(), "{missing:?}");
}
