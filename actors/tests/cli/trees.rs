//! The examples: each is valid as it stands, and what `check` says of the first is known to the letter.

use super::harness::{Folder, support};

const TREES: [&str; 4] = ["support", "finance", "codegen", "shop"];

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
