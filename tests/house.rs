//! Keeps the house: what `src/docs/architecture.md` says about who may know whom, checked.
//!
//! The checker is one function over `(path, text)` pairs. The first test feeds it this repository, the
//! others feed it planted faults and assert that each is found, by file and line. The order of the
//! modules and their floors (words, core, contracts, shell, windows, pages) are read from `src/lib.rs`,
//! so a new module needs no edit here.
//!
//! Comments and the insides of strings never count. Test code (`#[cfg(test)]` items and the files they
//! declare) may name modules below its own, since a test may look down; the judgement's tests still may
//! not touch an actor, a clock or chance, since that is what makes them tests of values.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::process::Command;

use lexer::{Token, heads, in_test, inline_depth, is_word, tokens};

// Beside this file it would be a test of its own.
#[path = "house/lexer.rs"]
mod lexer;

/// A floor of the house, in reading order. A heading in `lib.rs` (`// Core: …`) opens one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Floor {
    Words,
    Core,
    Contracts,
    Shell,
    Windows,
    Pages,
}

const FLOORS: [(&str, Floor); 6] = [
    ("Words", Floor::Words),
    ("Core", Floor::Core),
    ("Contracts", Floor::Contracts),
    ("Shell", Floor::Shell),
    ("Windows", Floor::Windows),
    ("Pages", Floor::Pages),
];

/// Where the rooms that carry the promise must stand, so that moving a heading cannot loosen a rule.
const PINNED: [(Floor, &[&str]); 3] = [
    (Floor::Words, &["id", "moment", "fault", "decision", "fate", "error"]),
    (Floor::Core, &["policy", "circuit", "mailbox", "lifecycle", "family", "ledger"]),
    (Floor::Shell, &["slot", "incarnation", "group", "supervisor", "system"]),
];

/// What words and core may not name: actors, time, chance.
const IMPURE: [&str; 10] = [
    "ractor",
    "tokio",
    "futures",
    "async",
    "await",
    "Instant",
    "SystemTime",
    "rand",
    "fastrand",
    "getrandom",
];

/// Files that may sleep in a test, each with its reason. An entry that is no longer needed is a
/// finding, too.
const MAY_SLEEP: [(&str, &str); 6] = [
    ("actors/tests/agent.rs", "plays a model that takes its time, on a paused clock"),
    ("tests/real_llm.rs", "asks another process, now and then, whether it is there again"),
    ("actors/tests/mcp/harness.rs", "waits for what another process does, of which no event tells"),
    ("actors/tests/mcp_real.rs", "gives servers that write no log time to begin a call"),
    (
        "tests/crash/harness.rs",
        "waits until another process has its store, of which no event tells",
    ),
    ("tests/crash.rs", "kills real processes at random times, which no clock of ours can pause"),
];

const LONGEST_FILE: usize = 700;

// Put together here, so that this file does not find itself.
const MACHINE_PATHS: [&str; 4] =
    [concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/wo", "rk/"), concat!("/Us", "ers/")];
const REGISTRY_HOSTS: [&str; 8] = [
    concat!("index.crat", "es.io"),
    concat!("static.crat", "es.io"),
    concat!("py", "pi.org"),
    concat!("python", "hosted.org"),
    concat!("registry.np", "mjs.org"),
    concat!("deb.deb", "ian.org"),
    concat!("proxy.gol", "ang.org"),
    concat!("arti", "factory"),
];

/// One thing that is not as it was drawn.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl fmt::Debug for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// Every finding in these files, in order.
fn inspect(files: &[(String, String)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let sources: Vec<Source> = files
        .iter()
        .filter(|(path, _)| path.ends_with(".rs"))
        .map(|(path, text)| Source::new(path, text))
        .collect();
    let map = Map::read(files, &sources, &mut findings);
    let test_files = test_files(&sources);
    let mut slept = BTreeSet::new();
    for source in &sources {
        let is_test = source.path.split('/').any(|part| matches!(part, "tests" | "tests.rs"))
            || test_files.iter().any(|file| source.is_below(file));
        source.check_names(&map, is_test, &mut findings);
        source.check_direction(&map, is_test, &mut findings);
        source.check_unfinished(&mut findings);
        source.check_size(&mut findings);
        if source.check_sleeps(is_test, &mut findings) {
            slept.insert(source.path.as_str());
        }
    }
    for (path, reason) in MAY_SLEEP {
        if reason.is_empty() || (!slept.contains(path) && files.iter().any(|(at, _)| at == path)) {
            let what = "is allowed to sleep, without need or without a reason".to_owned();
            findings.push(Finding { path: path.to_owned(), line: 1, what });
        }
    }
    for (path, text) in files {
        check_text(path, text, &mut findings);
    }
    findings.sort();
    findings.dedup();
    findings
}

/// A Rust file as tokens, without comments and the insides of literals.
struct Source {
    path: String,
    tokens: Vec<Token>,
    /// Whether the token stands in a `#[cfg(test)]` item.
    in_test: Vec<bool>,
    /// How many inline modules the token stands in.
    depth: Vec<usize>,
    lines: usize,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let tokens = tokens(text);
        let in_test = in_test(&tokens);
        let depth = inline_depth(&tokens);
        Self { path: path.to_owned(), tokens, in_test, depth, lines: text.lines().count() }
    }

    fn text(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| token.text.as_str())
    }

    fn is(&self, at: usize, wanted: &[&str]) -> bool {
        wanted.iter().enumerate().all(|(offset, text)| self.text(at + offset) == *text)
    }

    fn find(&self, at: usize, what: String) -> Finding {
        Finding { path: self.path.clone(), line: self.tokens[at].line, what }
    }

    /// The top module of the runtime this file belongs to; `None` outside `src`, and for `lib.rs`.
    fn module(&self) -> Option<&str> {
        let inner = self.path.strip_prefix("src/")?.strip_suffix(".rs")?;
        let top = inner.split('/').next()?;
        (inner != "lib").then_some(top)
    }

    /// How deep in the module tree the file stands: 1 for `src/policy.rs`.
    fn file_depth(&self) -> usize {
        if self.module().is_some() { self.path.split('/').count() - 1 } else { 0 }
    }

    /// Whether this is the file `src/x/tests.rs` or one in the folder `src/x/tests/`.
    fn is_below(&self, file: &str) -> bool {
        let folder = format!("{}/", file.trim_end_matches(".rs"));
        self.path == file || self.path.starts_with(&folder)
    }

    /// Names that only some rooms may speak.
    fn check_names(&self, map: &Map, is_test: bool, findings: &mut Vec<Finding>) {
        let floor = self.module().and_then(|module| map.floor(module));
        let ours = ["src/", "actors/", "examples/"].iter().any(|at| self.path.starts_with(at));
        for (at, token) in self.tokens.iter().enumerate() {
            let name = token.text.as_str();
            // A field or a method of that name is not the crate of that name.
            if at > 0 && self.text(at - 1) == "." && name != "await" {
                continue;
            }
            if matches!(floor, Some(Floor::Words | Floor::Core)) && IMPURE.contains(&name) {
                let module = self.module().unwrap_or_default();
                findings.push(self.find(at, format!("the pure module `{module}` names `{name}`")));
            } else if name == "ractor" && ours && floor != Some(Floor::Shell) {
                findings.push(self.find(at, "names `ractor` outside the shell".to_owned()));
            }
            // Not there but by accident: its words are handed on where they are promised.
            let windows = ["actors/", "examples/"].iter().any(|at| self.path.starts_with(at));
            if name == "mirror" && windows && at > 1 && self.text(at - 2) == "mainstay" {
                findings.push(self.find(at, "names the hidden `mainstay::mirror`".to_owned()));
            }
            let codec = self.is_below("src/checkpoint/codec.rs");
            if name == "bincode" && !codec && !is_test && !self.path.starts_with("benches/") {
                let what = "names `bincode` outside `checkpoint/codec`".to_owned();
                findings.push(self.find(at, what));
            }
        }
    }

    /// A module names only modules at or above it.
    fn check_direction(&self, map: &Map, is_test: bool, findings: &mut Vec<Finding>) {
        let Some(own) = self.module() else { return };
        let Some(rank) = map.rank(own) else { return };
        for at in 0..self.tokens.len() {
            if is_test || self.in_test[at] {
                continue;
            }
            let Some(start) = self.after_root(at) else { continue };
            for (leaf, head) in heads(&self.tokens, start) {
                let Some(named) = map.resolve(&head) else { continue };
                if map.rank(named).is_some_and(|named| named > rank) {
                    findings.push(self.find(
                        leaf,
                        format!("`{own}` names `{named}`, which stands below it in lib.rs"),
                    ));
                }
            }
        }
    }

    /// Where the path that starts here goes on from the root of the crate: after `crate::`, or after
    /// as many `super::` as lead there.
    fn after_root(&self, at: usize) -> Option<usize> {
        if self.is(at, &["crate", "::"]) {
            return Some(at + 2);
        }
        if self.text(at) != "super" || (at > 0 && self.text(at - 1) == "::") {
            return None;
        }
        let mut start = at;
        let mut up = 0;
        while self.is(start, &["super", "::"]) {
            start += 2;
            up += 1;
        }
        (up > 0 && up == self.file_depth() + self.depth[at]).then_some(start)
    }

    fn check_unfinished(&self, findings: &mut Vec<Finding>) {
        for at in 0..self.tokens.len() {
            if self.is(at, &["#", "[", "ignore"]) {
                let what = "a test is ignored; assert what is true today instead".to_owned();
                findings.push(self.find(at, what));
            }
            for left in ["todo", "unimplemented"] {
                if self.is(at, &[left, "!"]) {
                    findings.push(self.find(at, format!("`{left}!` was left behind")));
                }
            }
        }
        if self.path.ends_with("/mod.rs") {
            let what = "a `mod.rs`; the module's file stands beside its folder".to_owned();
            findings.push(Finding { path: self.path.clone(), line: 1, what });
        }
    }

    fn check_size(&self, findings: &mut Vec<Finding>) {
        let in_src = self.path.starts_with("src/") || self.path.contains("/src/");
        if in_src && self.lines > LONGEST_FILE {
            let what = format!("{} lines, at most {LONGEST_FILE}: more than one room", self.lines);
            findings.push(Finding { path: self.path.clone(), line: LONGEST_FILE + 1, what });
        }
    }

    /// Whether a test sleeps here; a finding unless it may.
    fn check_sleeps(&self, is_test: bool, findings: &mut Vec<Finding>) -> bool {
        let allowed = MAY_SLEEP.iter().any(|(path, _)| *path == self.path);
        let mut sleeps = false;
        for at in 0..self.tokens.len() {
            if !(is_test || self.in_test[at]) {
                continue;
            }
            if !(self.is(at, &["thread", "::"]) || self.is(at, &["time", "::"])) {
                continue;
            }
            for (leaf, head) in heads(&self.tokens, at + 2) {
                if matches!(head.as_str(), "sleep" | "sleep_until" | "sleep_ms") {
                    sleeps = true;
                    if !allowed {
                        let what = "a test sleeps; wait for an event, or list it in MAY_SLEEP";
                        findings.push(self.find(leaf, what.to_owned()));
                    }
                }
            }
        }
        sleeps
    }
}

/// The rooms in their order, as `lib.rs` declares them.
#[derive(Default)]
struct Map {
    rooms: Vec<(String, Floor)>,
    /// Names that the root re-exports, with the module each comes from.
    exported: BTreeMap<String, String>,
}

impl Map {
    fn read(files: &[(String, String)], sources: &[Source], findings: &mut Vec<Finding>) -> Self {
        let mut map = Self::default();
        let text = files.iter().find(|(path, _)| path == "src/lib.rs");
        let source = sources.iter().find(|source| source.path == "src/lib.rs");
        let (Some((_, text)), Some(lib)) = (text, source) else { return map };
        let headings: Vec<(usize, Floor)> = text
            .lines()
            .enumerate()
            .filter_map(|(index, line)| {
                let heading = line.trim().strip_prefix("// ")?;
                let name = heading.split([':', '.', ' ']).next()?;
                let (_, floor) = FLOORS.iter().find(|(word, _)| *word == name)?;
                Some((index + 1, *floor))
            })
            .collect();
        for pair in headings.windows(2) {
            if pair[0].1 >= pair[1].1 {
                let what = format!("the floor {:?} stands after {:?}", pair[1].1, pair[0].1);
                findings.push(Finding { path: "src/lib.rs".to_owned(), line: pair[1].0, what });
            }
        }
        for at in 0..lib.tokens.len() {
            if lib.in_test[at] || lib.depth[at] > 0 {
                continue;
            }
            if lib.text(at) == "mod" && matches!(lib.text(at + 2), ";" | "{") {
                let (name, line) = (lib.text(at + 1).to_owned(), lib.tokens[at].line);
                let floor = headings.iter().rev().find(|(heading, _)| *heading < line);
                let Some((_, floor)) = floor else {
                    let what = format!("module `{name}` stands under no heading (`// Core: …`)");
                    findings.push(lib.find(at, what));
                    continue;
                };
                let pinned = PINNED.iter().find(|(_, names)| names.contains(&name.as_str()));
                if let Some((wanted, _)) = pinned.filter(|(wanted, _)| wanted != floor) {
                    let what = format!("module `{name}` belongs to {wanted:?}, not {floor:?}");
                    findings.push(lib.find(at, what));
                }
                map.rooms.push((name, *floor));
            }
        }
        for at in 0..lib.tokens.len() {
            if lib.text(at) == "use" {
                let start = if lib.is(at + 1, &["crate", "::"]) || lib.is(at + 1, &["self", "::"]) {
                    at + 3
                } else {
                    at + 1
                };
                map.export(&lib.tokens, start);
            }
        }
        map
    }

    /// Takes the names of `module::{A, inner::B as C}`.
    fn export(&mut self, tokens: &[Token], start: usize) {
        for (at, module) in heads(tokens, start) {
            if self.rank(&module).is_none() {
                continue;
            }
            let mut open = 0_usize;
            for (index, token) in tokens.iter().enumerate().skip(at + 1) {
                let next = tokens.get(index + 1).map_or("", |token| token.text.as_str());
                match token.text.as_str() {
                    "{" => open += 1,
                    "}" if open == 0 => break,
                    "}" => open -= 1,
                    "," if open == 0 => break,
                    ";" => break,
                    name if is_word(name) && matches!(next, "," | ";" | "}") => {
                        self.exported.insert(name.to_owned(), module.clone());
                    }
                    _ => {}
                }
            }
        }
    }

    fn rank(&self, module: &str) -> Option<usize> {
        self.rooms.iter().position(|(name, _)| name == module)
    }

    fn floor(&self, module: &str) -> Option<Floor> {
        self.rank(module).map(|rank| self.rooms[rank].1)
    }

    /// The module behind the first word of a path from the root.
    fn resolve<'a>(&'a self, head: &'a str) -> Option<&'a str> {
        if self.rank(head).is_some() {
            return Some(head);
        }
        self.exported.get(head).map(String::as_str)
    }
}

/// The files that `#[cfg(test)] mod tests;` declares.
fn test_files(sources: &[Source]) -> Vec<String> {
    let mut files = Vec::new();
    for source in sources {
        let folder = match source.path.strip_suffix(".rs") {
            Some(path) => path.strip_suffix("/lib").unwrap_or(path).to_owned(),
            None => continue,
        };
        for at in 0..source.tokens.len() {
            if source.in_test[at] && source.text(at) == "mod" && source.text(at + 2) == ";" {
                files.push(format!("{folder}/{}.rs", source.text(at + 1)));
            }
        }
    }
    files
}

/// What holds for every file, whatever its language.
fn check_text(path: &str, text: &str, findings: &mut Vec<Finding>) {
    let mut find = |line: usize, what: String| {
        findings.push(Finding { path: path.to_owned(), line: line + 1, what });
    };
    for (index, line) in text.lines().enumerate() {
        for machine in MACHINE_PATHS {
            let stands_alone = |at: usize| {
                let before = line[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || "._-)".contains(c))
            };
            if line.match_indices(machine).any(|(at, _)| stands_alone(at)) {
                find(index, format!("a path of somebody's machine: `{machine}`"));
            }
        }
        for host in REGISTRY_HOSTS {
            if line.contains(host) {
                find(index, format!("the host of a package registry: `{host}`"));
            }
        }
        if path.ends_with(".toml") {
            let setting = line.split('#').next().unwrap_or_default();
            if setting.contains("panic") && setting.contains("abort") {
                find(index, "`panic = \"abort\"` would end supervision".to_owned());
            }
            let key = setting.split(['=', '.']).next().unwrap_or_default().trim();
            if path != "Cargo.toml" && path.ends_with("Cargo.toml") && key == "ractor" {
                find(index, "depends on `ractor`; only the runtime may".to_owned());
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------------

/// The files of this repository that are or would be committed.
fn this_repository() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output();
    let paths: Vec<String> = match listed {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
        }
        // An unpacked package: no repository around it.
        _ => walk(root, root),
    };
    paths
        .into_iter()
        // Large or binary files do not read as text; they hold no code.
        .filter_map(|path| std::fs::read_to_string(root.join(&path)).ok().map(|text| (path, text)))
        .collect()
}

fn walk(root: &Path, folder: &Path) -> Vec<String> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() {
            if !matches!(name.as_str(), ".git" | ".venv" | "target" | "node_modules") {
                paths.extend(walk(root, &path));
            }
        } else if let Ok(inner) = path.strip_prefix(root) {
            paths.push(inner.to_string_lossy().replace('\\', "/"));
        }
    }
    paths
}

#[test]
fn the_house_stands_as_it_was_drawn() {
    let files = this_repository();
    assert!(files.iter().any(|(path, _)| path == "src/lib.rs"), "nothing to look at");
    let findings = inspect(&files);
    assert!(findings.is_empty(), "{} findings:\n{findings:#?}", findings.len());
}

const PLAN: &str = "\
//! The map.
// Words: plain data.
pub mod id;
pub mod fault;
// Core: judgement.
pub mod policy;
mod mailbox;
// Contracts: what others implement.
pub mod clock;
// Shell: knows ractor.
mod slot;
#[cfg(feature = \"system\")]
pub mod system;
// Windows: looking in.
pub mod tree;

pub use fault::{Class, Fault};
pub use crate::system::{System, inner::Options as SystemOptions};
";

/// Plants one file into a small, sound house and compares what is found: line and a piece of the text.
#[track_caller]
fn check(path: &str, text: &str, expected: &[(usize, &str)]) {
    let mut files = vec![(path.to_owned(), text.to_owned())];
    if path != "src/lib.rs" {
        files.push(("src/lib.rs".to_owned(), PLAN.to_owned()));
    }
    let findings = inspect(&files);
    let agrees = findings.len() == expected.len()
        && findings.iter().zip(expected).all(|(finding, (line, what))| {
            finding.path == path && finding.line == *line && finding.what.contains(what)
        });
    assert!(agrees, "found {findings:#?}\nexpected {expected:#?}");
}

#[test]
fn a_module_that_names_one_below_it_is_found() {
    check("src/id.rs", "\nuse crate::fault::Fault;", &[(2, "`id` names `fault`")]);
    check("src/fault.rs", "use crate::id::ChildPath;", &[]);
    check("src/policy.rs", "fn f() -> crate::clock::Now {}", &[(1, "`policy` names `clock`")]);
    check("src/policy/backoff.rs", "use crate::policy::A;\nuse crate::slot::B;", &[(2, "`slot`")]);
    check("src/clock.rs", "use crate::{id::X, slot::{self, Y}};", &[(1, "`clock` names `slot`")]);
    check("src/clock.rs", "use crate::{\n    id,\n    tree,\n};", &[(3, "`clock` names `tree`")]);
    check("src/clock.rs", "m! { $crate::tree::X }", &[(1, "`clock` names `tree`")]);
}

#[test]
fn a_name_that_the_root_hands_on_counts_as_its_module() {
    check("src/id.rs", "use crate::Class;", &[(1, "`id` names `fault`")]);
    check("src/clock.rs", "use crate::{Class, SystemOptions};", &[(1, "`clock` names `system`")]);
    check("src/tree.rs", "use crate::{Class, System};", &[]);
}

#[test]
fn super_counts_when_it_leads_to_the_root() {
    check("src/id.rs", "use super::fault::Fault;", &[(1, "`id` names `fault`")]);
    check("src/policy/a.rs", "use super::clock;", &[]);
    check("src/policy/a.rs", "use super::super::clock;", &[(1, "`policy` names `clock`")]);
    check("src/policy.rs", "mod inner {\n use super::clock;\n}", &[]);
    check("src/policy.rs", "mod inner {\n use super::super::clock;\n}", &[(2, "`clock`")]);
    check("src/policy.rs", "mod inner {}\nuse super::{id, clock};", &[(2, "`clock`")]);
}

#[test]
fn words_and_core_know_no_actor_no_time_and_no_chance() {
    check("src/id.rs", "use std::time::Instant;", &[(1, "names `Instant`")]);
    check("src/fault.rs", "\n\nfn f() { SystemTime::now(); }", &[(3, "names `SystemTime`")]);
    check("src/policy.rs", "async fn f() {}", &[(1, "names `async`")]);
    check("src/policy/a.rs", "use rand::Rng;", &[(1, "`policy` names `rand`")]);
    check("src/mailbox.rs", "use tokio::sync::oneshot;", &[(1, "names `tokio`")]);
    check("src/mailbox.rs", "use ractor::ActorRef;", &[(1, "names `ractor`")]);
    check("src/mailbox.rs", "fn f() { x.await; }", &[(1, "names `await`")]);
    check("src/clock.rs", "use tokio::time::Instant;\nasync fn f() {}", &[]);
    check("src/policy.rs", "fn f(noise: Noise) { noise.rand; }", &[]);
}

#[test]
fn only_the_shell_names_ractor() {
    check("src/clock.rs", "use ractor::Actor;", &[(1, "outside the shell")]);
    check("src/tree.rs", "\nfn f(a: ::ractor::ActorCell) {}", &[(2, "outside the shell")]);
    check("actors/src/agent.rs", "use ractor::Actor;", &[(1, "outside the shell")]);
    check("examples/a.rs", "use ractor as r;", &[(1, "outside the shell")]);
    check("src/slot.rs", "use ractor::Actor;", &[]);
    check("src/slot/wake.rs", "use ractor::Actor;", &[]);
    check("benches/calls.rs", "use ractor::Actor;", &[]);
    check("actors/Cargo.toml", "[dependencies]\nractor = \"0.16\"", &[(2, "depends on `ractor`")]);
    check("actors/Cargo.toml", "ractor.workspace = true", &[(1, "depends on `ractor`")]);
    check("Cargo.toml", "ractor = \"0.16\"", &[]);
}

#[test]
fn what_is_hidden_is_named_by_nobody_outside() {
    check("actors/src/tool.rs", "use mainstay::mirror::Kind;", &[(1, "hidden `mainstay::mirror`")]);
    check("actors/src/tool.rs", "use mainstay::spec::Kind; fn f(mirror: u8) {}", &[]);
}

#[test]
fn only_the_codec_names_bincode() {
    check("src/slot.rs", "fn f() { bincode::encode(); }", &[(1, "`bincode`")]);
    check("src/checkpoint/codec.rs", "use bincode::config;", &[]);
    check("src/checkpoint/codec/v1.rs", "use bincode::config;", &[]);
    check("src/checkpoint/line.rs", "use bincode::config;", &[(1, "`bincode`")]);
}

#[test]
fn comments_and_texts_raise_no_alarm() {
    let quiet = r####"
//! On `ractor`; see [`crate::system`].
/* async /* nested */ Instant::now() */
/// The clock is [`crate::clock::Clock`]; never `rand`.
#[doc = "crate::slot::Slot"]
fn f<'a>(x: &'a str) -> char {
    let _ = ("tokio \" crate::system::System", r#"ractor " crate::tree"#, b"rand", '"', '\'');
    let _ = (r"SystemTime\", 'x', '\u{1f}', "todo!()"); // bincode
    let _ = br##"async "# await"##;
    'outer: loop { break 'outer; }
    '\\'
}
"####;
    check("src/id.rs", quiet, &[]);
    // Nothing was swallowed either: what follows is still read.
    let lines = quiet.lines().count();
    check("src/id.rs", &format!("{quiet}use rand::Rng;"), &[(lines + 1, "names `rand`")]);
}

#[test]
fn a_test_may_look_down_but_judgement_is_tested_with_values() {
    let inline = "#[cfg(test)]\nmod tests {\n    use crate::tree::T;\n}\nuse crate::clock::C;";
    check("src/policy.rs", inline, &[(5, "`policy` names `clock`")]);
    let timed = "#[cfg(test)]\nmod tests {\n    use tokio::time::advance;\n}";
    check("src/policy.rs", timed, &[(3, "names `tokio`")]);
    check("src/clock.rs", "#[cfg(not(test))]\nuse crate::tree::T;", &[(2, "`tree`")]);
    check("src/clock.rs", "#[cfg(all(test, unix))]\n#[inline]\nfn f() { crate::tree::t() }", &[]);
    let declared = [
        ("src/lib.rs", PLAN),
        ("src/policy.rs", "#[cfg(test)]\nmod cases;"),
        ("src/policy/cases.rs", "use crate::clock::C;"),
        ("src/policy/cases/more.rs", "use crate::clock::C;"),
        ("src/policy/judge.rs", "use crate::clock::C;"),
    ];
    let files = declared.map(|(path, text)| (path.to_owned(), text.to_owned()));
    let found: Vec<String> = inspect(&files).into_iter().map(|finding| finding.path).collect();
    assert_eq!(found, ["src/policy/judge.rs"]);
}

#[test]
fn a_test_that_sleeps_is_found() {
    let what = "a test sleeps";
    check("tests/a.rs", "fn f() {\n std::thread::sleep(d);\n}", &[(2, what)]);
    check("tests/a.rs", "use tokio::time::{self, sleep};", &[(1, what)]);
    check("actors/tests/a.rs", "tokio::time::sleep_until(t)", &[(1, what)]);
    check("src/slot.rs", "#[cfg(test)]\nmod tests { fn f() { time::sleep(d) } }", &[(2, what)]);
    check("src/policy/tests.rs", "fn f() { thread::sleep(d) }", &[(1, what)]);
    check("src/clock.rs", "fn f() { tokio::time::sleep_until(t) }", &[]);
    check("tests/a.rs", "fn f() { tokio::time::advance(d); clock.sleep_until(t); }", &[]);
}

#[test]
fn what_was_left_unfinished_is_found() {
    check("tests/a.rs", "#[test]\n#[ignore]\nfn f() {}", &[(2, "ignored")]);
    check("tests/a.rs", "#[ignore = \"slow\"]\nfn f() {}", &[(1, "ignored")]);
    check("src/slot.rs", "fn f() { todo!() }", &[(1, "`todo!`")]);
    check("src/slot.rs", "fn f() { unimplemented!(\"x\") }", &[(1, "`unimplemented!`")]);
    check("src/slot.rs", "fn todo() { let ignore = [0]; }", &[]);
}

#[test]
fn rooms_are_small_and_stand_beside_their_folders() {
    check("src/slot/mod.rs", "", &[(1, "`mod.rs`")]);
    check("tests/common/mod.rs", "", &[(1, "`mod.rs`")]);
    check("src/slot.rs", &"\n".repeat(LONGEST_FILE), &[]);
    check("src/slot.rs", &"\n".repeat(LONGEST_FILE + 1), &[(LONGEST_FILE + 1, "at most 700")]);
    check("actors/src/a.rs", &"\n".repeat(LONGEST_FILE + 1), &[(LONGEST_FILE + 1, "at most 700")]);
    check("tests/a.rs", &"\n".repeat(LONGEST_FILE + 1), &[]);
}

#[test]
fn a_profile_that_would_end_supervision_is_found() {
    let what = "would end supervision";
    check("Cargo.toml", "[profile.release]\npanic = \"abort\"", &[(2, what)]);
    check(".cargo/config.toml", "rustflags = [\"-C\", \"panic=abort\"]", &[(1, what)]);
    check("Cargo.toml", "[profile.release]\n# never panic = \"abort\"\npanic = \"unwind\"", &[]);
}

#[test]
fn what_belongs_to_one_machine_is_found() {
    for machine in MACHINE_PATHS {
        check("README.md", &format!("a\nsee {machine}x"), &[(2, "somebody's machine")]);
        check("run.sh", &format!("cd \"{machine}x\""), &[(1, "somebody's machine")]);
        check("README.md", &format!("https://example.org{machine}x"), &[]);
    }
    for host in REGISTRY_HOSTS {
        check(".ci/run", &format!("curl https://{host}/x"), &[(1, "package registry")]);
    }
}

#[test]
fn every_module_stands_on_its_floor() {
    check("src/lib.rs", "pub mod id;", &[(1, "under no heading")]);
    check("src/lib.rs", "// Core: x\nmod policy;\n// Words: x\nmod id;", &[(3, "stands after")]);
    check("src/lib.rs", "// Contracts: x\nmod policy;", &[(2, "`policy` belongs to Core")]);
    check("src/lib.rs", "// Contracts: x\nmod slot;", &[(2, "`slot` belongs to Shell")]);
    check("src/lib.rs", "// Words: x\nmod names;\n// Windows: x\nmod web { mod inner; }", &[]);
}
