//! A dump as a graph: DOT for Graphviz, a flowchart for Mermaid.
//!
//! *Invariant.* The ids of the graph are ours (`n0`, `n1`), and what comes from elsewhere stands only in
//! quoted labels, escaped: no id of a child can change the graph.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::cells::{Column, Shown, printable, shown};
use super::{Node, TreeDump};
use crate::mirror::{ChildState, CircuitView, Kind};

/// The columns that are worth a line in a label, each with the words around its text.
const LABEL: [(Column, &str, &str); 9] = [
    (Column::Scope, "scope ", ""),
    (Column::Restarts, "", " restarts"),
    (Column::Mailbox, "", " in mailbox"),
    (Column::InFlight, "in flight: ", ""),
    (Column::Circuit, "circuit ", ""),
    (Column::LastCause, "last: ", ""),
    (Column::Zombies, "", " zombies"),
    (Column::Budgets, "left: ", ""),
    (Column::Checkpoint, "kept: ", ""),
];

/// One box of the graph.
struct Vertex<'a> {
    above: Option<usize>,
    what: Shown<'a>,
}

impl<'a> Vertex<'a> {
    const fn node(&self) -> Option<Node<'a>> {
        match self.what {
            Shown::Node(node) => Some(node),
            Shown::More(..) => None,
        }
    }

    /// The lines of its label.
    fn label(&self) -> Vec<String> {
        let node = match &self.what {
            Shown::More(count, state) => return vec![Shown::more(*count, *state)],
            Shown::Node(node) => node,
        };
        let name = if self.above.is_none() { node.path().as_str() } else { node.id() };
        let state = [Column::State.text(node), Column::Life.text(node)].join(" ");
        let mut lines = vec![printable(name), Column::Kind.text(node), state.trim_end().to_owned()];
        for (column, before, after) in LABEL {
            let text = column.text(node);
            if !text.is_empty() {
                lines.push(format!("{before}{text}{after}"));
            }
        }
        lines
    }

    fn kind(&self) -> Option<Kind> {
        self.node().map(|node| node.kind())
    }

    /// Whether it is there without running.
    fn is_absent(&self) -> bool {
        let state = match &self.what {
            Shown::Node(node) => node.state(),
            Shown::More(_, state) => *state,
        };
        matches!(state, ChildState::Unstarted | ChildState::Stopped | ChildState::Quarantined)
    }
}

/// What a box is drawn in, so that trouble is seen before anything is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tone {
    Calm,
    /// It is on its way back.
    Uneasy,
    /// It does not serve until somebody or a timer lets it.
    Bad,
}

impl Tone {
    fn of(vertex: &Vertex<'_>) -> Self {
        let state = match &vertex.what {
            Shown::Node(node) => node.state(),
            Shown::More(_, state) => *state,
        };
        let detail = vertex.node().and_then(|node| node.detail());
        match (state, detail.and_then(|detail| detail.circuit)) {
            (ChildState::Quarantined | ChildState::Zombie, _)
            | (_, Some(CircuitView::Open { .. } | CircuitView::Isolated)) => Self::Bad,
            (ChildState::Restarting | ChildState::BackingOff, _)
            | (_, Some(CircuitView::HalfOpen)) => Self::Uneasy,
            _ => Self::Calm,
        }
    }

    /// Its name, and the colors of its ground and its line.
    const fn paint(self) -> Option<(&'static str, &'static str, &'static str)> {
        match self {
            Self::Calm => None,
            Self::Uneasy => Some(("uneasy", "#fff3cd", "#997404")),
            Self::Bad => Some(("bad", "#f8d7da", "#b02a37")),
        }
    }
}

/// Every box, parents first, and who waits for whom among those that are shown.
fn vertices(dump: &TreeDump) -> (Vec<Vertex<'_>>, Vec<(usize, usize)>) {
    let mut all = vec![Vertex { above: None, what: Shown::Node(dump.root()) }];
    let mut at = 0;
    while at < all.len() {
        if let Shown::Node(node) = &all[at].what {
            let lines = shown(node, false);
            all.extend(lines.into_iter().map(|what| Vertex { above: Some(at), what }));
        }
        at += 1;
    }
    let by_path: HashMap<&str, usize> = all
        .iter()
        .enumerate()
        .filter_map(|(at, vertex)| Some((vertex.node()?.path().as_str(), at)))
        .collect();
    let waits = |(at, node): (usize, Node<'_>)| {
        let targets = node.detail().map_or(&[][..], |detail| &detail.waits_for).iter();
        let found: Vec<_> = targets.filter_map(|path| by_path.get(path.as_str())).collect();
        found.into_iter().map(move |to| (at, *to)).collect::<Vec<_>>()
    };
    let waits = all
        .iter()
        .enumerate()
        .filter_map(|(at, vertex)| Some((at, vertex.node()?)))
        .flat_map(waits)
        .collect();
    (all, waits)
}

pub(super) fn dot(dump: &TreeDump) -> String {
    let (vertices, waits) = vertices(dump);
    let mut text = String::from("digraph mainstay {\n");
    text.push_str("  rankdir=LR;\n  node [fontname=\"sans-serif\", shape=box];\n");
    text.push_str("  edge [fontname=\"sans-serif\", fontsize=10];\n");
    for (at, vertex) in vertices.iter().enumerate() {
        let label = vertex.label().iter().map(|line| dot_escaped(line)).collect::<Vec<_>>();
        let tone = Tone::of(vertex).paint();
        let is_leaf = !matches!(vertex.kind(), None | Some(Kind::Supervisor | Kind::Group));
        let styles = [
            ("rounded", is_leaf),
            ("dashed", vertex.is_absent() && vertex.kind().is_some()),
            ("filled", tone.is_some()),
        ];
        let styles: Vec<_> =
            styles.into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect();
        let mut style = match vertex.kind() {
            Some(Kind::Group) => ", shape=folder".to_owned(),
            Some(_) => String::new(),
            None => ", shape=plaintext".to_owned(),
        };
        match styles.as_slice() {
            [] => {}
            [one] => _ = write!(style, ", style={one}"),
            more => _ = write!(style, ", style=\"{}\"", more.join(",")),
        }
        if let Some((_, ground, line)) = tone {
            _ = write!(style, ", fillcolor=\"{ground}\", color=\"{line}\"");
        }
        _ = writeln!(text, "  n{at} [label=\"{}\"{style}];", label.join("\\n"));
        if let Some(above) = vertex.above {
            _ = writeln!(text, "  n{above} -> n{at};");
        }
    }
    for (from, to) in waits {
        _ = writeln!(
            text,
            "  n{from} -> n{to} [style=dashed, constraint=false, label=\"waits for\"];"
        );
    }
    text.push_str("}\n");
    text
}

/// For a quoted string of DOT: backslashes would begin an escape, quotes would end it.
fn dot_escaped(line: &str) -> String {
    // `&name;` would be read as an HTML entity.
    line.replace('\\', "\\\\").replace('"', "\\\"").replace('&', "&amp;")
}

pub(super) fn mermaid(dump: &TreeDump) -> String {
    let (vertices, waits) = vertices(dump);
    let mut text = String::from("flowchart LR\n");
    let mut tones = Vec::new();
    for (at, vertex) in vertices.iter().enumerate() {
        let label = vertex.label().iter().map(|line| mermaid_escaped(line)).collect::<Vec<_>>();
        let label = label.join("<br/>");
        let (open, close) = match vertex.kind() {
            Some(Kind::Supervisor) | None => ("[", "]"),
            Some(Kind::Group) => ("[[", "]]"),
            Some(_) => ("(", ")"),
        };
        let tone = Tone::of(vertex);
        let class = tone.paint().map(|(name, ..)| format!(":::{name}")).unwrap_or_default();
        if tone != Tone::Calm && !tones.contains(&tone) {
            tones.push(tone);
        }
        _ = writeln!(text, "  n{at}{open}\"{label}\"{close}{class}");
        if let Some(above) = vertex.above {
            _ = writeln!(text, "  n{above} --> n{at}");
        }
    }
    for (from, to) in waits {
        _ = writeln!(text, "  n{from} -. waits for .-> n{to}");
    }
    for (name, ground, line) in tones.into_iter().filter_map(Tone::paint) {
        _ = writeln!(text, "  classDef {name} fill:{ground},stroke:{line}");
    }
    text
}

/// For a quoted label of Mermaid, which reads entities, HTML and Markdown in it. Characters that only
/// ever are text stay; every other one becomes `#code;`.
fn mermaid_escaped(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut characters = line.chars().peekable();
    let mut before = ' ';
    while let Some(c) = characters.next() {
        let after = characters.peek().copied().unwrap_or(' ');
        let plain = match c {
            // Within a word this is no Markdown.
            '_' => before.is_alphanumeric() && after.is_alphanumeric(),
            // Before a blank this could begin a list.
            '.' | '-' => after != ' ',
            ' ' | ',' | '/' | ':' | '(' | ')' | '…' => true,
            _ => c.is_alphanumeric(),
        };
        if plain {
            text.push(c);
        } else {
            _ = write!(text, "#{};", u32::from(c));
        }
        before = c;
    }
    text
}
