//! A dump as a table whose first column is a tree.
//!
//! *Invariant.* Columns are aligned by the width a terminal gives a character, columns with nothing in
//! them are left out, and no line ends in a blank.

use std::fmt;

use unicode_width::UnicodeWidthStr;

use super::cells::{Column, Shown, grouped, printable, shown};
use super::{Node, TreeDump};
use crate::mirror::Counts;

/// Between two columns.
const GAP: usize = 2;

/// A line: the tree part, and the node it is about, if it is about one.
type Visit<'v> = dyn FnMut(&str, Option<&Node<'_>>) -> fmt::Result + 'v;

impl fmt::Display for TreeDump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = f.alternate();
        let mut name_width = "name".len();
        let mut widths = [0; Column::ALL.len()];
        self.lines(all, &mut |name, node| {
            name_width = name_width.max(name.width());
            if let Some(node) = node {
                for (width, column) in widths.iter_mut().zip(Column::ALL) {
                    // Known from the configuration; takes room in a long dump only.
                    if all || column != Column::Intensity {
                        *width = (*width).max(column.text(node).width());
                    }
                }
            }
            Ok(())
        })?;
        let columns: Vec<_> = Column::ALL
            .into_iter()
            .zip(widths)
            .filter(|(_, width)| *width > 0)
            .map(|(column, width)| (column, width.max(column.title().len())))
            .collect();

        let mut line = Line::default();
        line.cell("name", name_width, false);
        for (column, width) in &columns {
            line.cell(column.title(), *width, column.is_number());
        }
        line.end(f)?;
        self.lines(all, &mut |name, node| {
            line.cell(name, name_width, false);
            if let Some(node) = node {
                for (column, width) in &columns {
                    line.cell(&column.text(node), *width, column.is_number());
                }
            }
            line.end(f)
        })?;
        f.write_str(&summary(&self.counts()))
    }
}

impl TreeDump {
    fn lines(&self, all: bool, visit: &mut Visit<'_>) -> fmt::Result {
        let root = self.root();
        visit(&printable(root.path().as_str()), Some(&root))?;
        below(&root, &mut String::new(), all, visit)
    }
}

fn below(node: &Node<'_>, stem: &mut String, all: bool, visit: &mut Visit<'_>) -> fmt::Result {
    let lines = shown(node, all);
    let last = lines.len().saturating_sub(1);
    for (index, line) in lines.iter().enumerate() {
        let (fork, deeper) = if index == last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        match line {
            Shown::Node(child) => {
                visit(&format!("{stem}{fork}{}", printable(child.id())), Some(child))?;
                if child.child_count() > 0 {
                    let length = stem.len();
                    stem.push_str(deeper);
                    below(child, stem, all, visit)?;
                    stem.truncate(length);
                }
            }
            Shown::More(count, state) => {
                visit(&format!("{stem}{fork}{}", Shown::more(*count, *state)), None)?;
            }
        }
    }
    Ok(())
}

#[derive(Default)]
struct Line {
    text: String,
    /// Blanks owed before the next text.
    owed: usize,
}

impl Line {
    fn cell(&mut self, text: &str, width: usize, right: bool) {
        let blank = width.saturating_sub(text.width());
        if text.is_empty() {
            self.owed += blank;
        } else if right {
            self.push(blank, text);
        } else {
            self.push(0, text);
            self.owed = blank;
        }
        self.owed += GAP;
    }

    fn push(&mut self, blank: usize, text: &str) {
        self.text.extend(std::iter::repeat_n(' ', self.owed + blank));
        self.owed = 0;
        self.text.push_str(text);
    }

    fn end(&mut self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        f.write_str("\n")?;
        self.text.clear();
        self.owed = 0;
        Ok(())
    }
}

/// The last line: how many of what.
fn summary(counts: &Counts) -> String {
    let many = |count: u64, one: &str, more: &str| {
        (count > 0).then(|| format!("{} {}", grouped(count), if count == 1 { one } else { more }))
    };
    let nodes = [
        many(counts.supervisors, "supervisor", "supervisors"),
        many(counts.groups, "group", "groups"),
        many(counts.children, "child", "children"),
    ];
    let states = [
        (counts.serving, "serving"),
        (counts.unstarted, "unstarted"),
        (counts.starting, "starting"),
        (counts.restarting, "restarting"),
        (counts.backing_off, "backing off"),
        (counts.stopping, "stopping"),
        (counts.stopped, "stopped"),
        (counts.quarantined, "quarantined"),
        (counts.zombies, "zombie"),
    ];
    let join = |parts: Vec<String>| parts.join(", ");
    let mut text = join(nodes.into_iter().flatten().collect());
    let states = join(states.into_iter().filter_map(|(n, name)| many(n, name, name)).collect());
    if !states.is_empty() {
        text.push_str(": ");
        text.push_str(&states);
    }
    if let Some(restarts) = many(counts.restarts, "restart", "restarts") {
        text.push_str("; ");
        text.push_str(&restarts);
    }
    text.push('\n');
    text
}
