//! The live dump: the whole tree at one moment, as text, JSON, DOT and Mermaid.
//!
//! [`TreeDump::read`] copies what the slots last published in the [mirror](crate::mirror): it asks no
//! actor, can be called from any thread and works when every actor is stuck. Rows are taken as packed
//! words and shared lists of paths, so a million children cost a scan and no allocation each. A dump is
//! not a cut through time: each row is as its child last described itself, and rows of different
//! children may be microseconds apart.
//!
//! *Invariant.* Looking never touches: reading changes nothing, and a dump holds no user data, only
//! paths, states, numbers, class and code names.

use std::fmt;
use std::sync::Arc;

use crate::fate::Ended;
use crate::id::{ChildPath, Incarnation};
use crate::mirror::{CELLS, Facts, Names, PageCopy, Roster, Words};
use crate::moment::Moment;
use crate::system::System;

pub use crate::mirror::{
    BudgetView, CheckpointView, ChildState, CircuitView, Counts, InFlight, Kind, LastCause,
    LineView, NodeDetail,
};

mod cells;
mod graph;
mod json;
mod text;

/// Whether a dump asks children for what does not fit their row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Details {
    /// Ask those that have something to say: requests in flight with their age, circuits, last causes.
    #[default]
    Ask,
    /// Take rows only, and no slot's lock.
    Skip,
}

/// The tree at one moment.
///
/// `Display` prints a table with branches; long runs of children that have nothing to tell are summed
/// up, and `{:#}` prints all of them. Serialises as nested JSON; see [`TreeDump::to_json`].
#[derive(Clone)]
pub struct TreeDump {
    at: Moment,
    root: Branch,
}

/// A supervisor or a group with its children.
#[derive(Clone)]
struct Branch {
    facts: Arc<Facts>,
    words: Words,
    detail: Option<Box<NodeDetail>>,
    blocks: Vec<Block>,
    /// Nodes at and below this one.
    len: usize,
    /// Direct children.
    children: usize,
}

/// Children that were read together: row `i` is the child `names[i]`, and free where there is no name.
#[derive(Clone)]
struct Block {
    names: Names,
    words: Box<[Words]>,
    /// In the order of rows, as are the branches.
    details: Vec<(u16, Box<NodeDetail>)>,
    branches: Vec<(u16, Branch)>,
}

impl System {
    /// The tree as it is now, read from the mirror: no actor is asked, and nobody is waited for.
    pub fn tree(&self) -> TreeDump {
        TreeDump::read(self.roster(), self.clock().now(), Details::Ask)
    }

    /// How many nodes there are, by state, without reading any row.
    pub fn counts(&self) -> Counts {
        self.roster().counts()
    }
}

impl TreeDump {
    /// Reads the tree below this roster. `now` is what ages are counted from; it is kept in whole
    /// milliseconds.
    pub fn read(root: &Roster, now: Moment, details: Details) -> Self {
        let at = Moment::from_millis(now.as_nanos() / 1_000_000);
        Self { at, root: Branch::read(root, now, details) }
    }

    /// When it was read.
    pub const fn at(&self) -> Moment {
        self.at
    }

    /// The root supervisor.
    pub fn root(&self) -> Node<'_> {
        self.root.node()
    }

    /// The node with this path. Looks at the children of each supervisor on the way.
    pub fn find(&self, path: &ChildPath) -> Option<Node<'_>> {
        self.root().find(path.as_str())
    }

    /// Every node, parents before their children.
    pub fn nodes(&self) -> Nodes<'_> {
        Nodes { next: Some(self.root()), stack: Vec::new() }
    }

    /// How many nodes there are.
    pub const fn len(&self) -> usize {
        self.root.len
    }

    /// Never: there is always a root.
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// How many nodes there are by what they are doing. Counts every row;
    /// [`Roster::counts`] knows it at once.
    pub fn counts(&self) -> Counts {
        let mut cells = [0; CELLS];
        let mut restarts = 0;
        self.root.count(&mut cells, &mut restarts);
        Counts::from_cells(cells, restarts)
    }

    /// As JSON on one line: `{"at_ms": .., "root": {"path", "id", "kind", "state", .., "children": [..]}}`.
    /// What is empty is left out. For a JSON of many lines, serialise the dump itself.
    pub fn to_json(&self) -> String {
        // Writing numbers, strings and lists to memory cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// As a Graphviz graph. Sums up long runs as `Display` does.
    pub fn to_dot(&self) -> String {
        graph::dot(self)
    }

    /// As a Mermaid flowchart. Sums up long runs as `Display` does. Mermaid itself refuses more than 500
    /// edges unless `maxEdges` is raised.
    pub fn to_mermaid(&self) -> String {
        graph::mermaid(self)
    }
}

impl fmt::Debug for TreeDump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TreeDump")
            .field("at", &self.at)
            .field("root", &self.root.facts.path)
            .field("len", &self.len())
            .finish()
    }
}

impl Branch {
    fn read(roster: &Roster, now: Moment, details: Details) -> Self {
        let own = roster.own();
        let ask = details == Details::Ask;
        let asked = own.detail.filter(|_| ask).and_then(|weak| weak.upgrade());
        let mut detail = asked.map(|asked| asked.detail(now)).unwrap_or_default();
        if let (None, Some((kind, at))) = (&detail.last_cause, own.last_cause) {
            detail.last_cause = Some(LastCause { ended: Ended::Exit(kind), age: now.since(at) });
        }
        if let Some((line, at)) = own.line {
            detail.line = Some(LineView { age: now.since(at), ..line });
        }
        let detail = (!detail.is_empty()).then(|| Box::new(detail));
        let mut branch = Self::new(own.facts, own.words, detail);
        let mut at = 0;
        while let Some(copy) = roster.page(at, ask) {
            if copy.live > 0 {
                let live = copy.live;
                branch.push(Block::read(copy, now, details), live);
            }
            at += 1;
        }
        branch
    }

    const fn new(facts: Arc<Facts>, words: Words, detail: Option<Box<NodeDetail>>) -> Self {
        Self { facts, words, detail, blocks: Vec::new(), len: 1, children: 0 }
    }

    fn push(&mut self, block: Block, live: usize) {
        self.children += live;
        self.len += live;
        // A branch's row was counted as live and is its own first node.
        self.len += block.branches.iter().map(|(_, branch)| branch.len - 1).sum::<usize>();
        self.blocks.push(block);
    }

    fn node(&self) -> Node<'_> {
        Node {
            path: &self.facts.path,
            words: self.words,
            detail: self.detail.as_deref(),
            branch: Some(self),
        }
    }

    fn count(&self, cells: &mut [u64; CELLS], restarts: &mut u64) {
        cells[self.words.cell()] += 1;
        *restarts += u64::from(self.words.restarts());
        for block in &self.blocks {
            for words in &block.words {
                if words.state().is_some() && !words.kind().is_branch() {
                    cells[words.cell()] += 1;
                    *restarts += u64::from(words.restarts());
                }
            }
            for (_, branch) in &block.branches {
                branch.count(cells, restarts);
            }
        }
    }
}

impl Block {
    fn read(copy: PageCopy, now: Moment, details: Details) -> Self {
        let mut copy = copy;
        let words = &mut copy.words;
        let ask = |(row, detail): (u16, Arc<dyn crate::mirror::Detail>)| {
            let detail = detail.detail(now);
            if !detail.waits_for.is_empty() {
                words[usize::from(row)].set_waiting();
            }
            (!detail.is_empty()).then(|| (row, Box::new(detail)))
        };
        let read = |(row, roster): (u16, Roster)| (row, Branch::read(&roster, now, details));
        Self {
            details: copy.details.into_iter().filter_map(ask).collect(),
            branches: copy.nested.into_iter().map(read).collect(),
            names: copy.names,
            words: copy.words,
        }
    }

    fn node(&self, row: usize) -> Option<Node<'_>> {
        let path = self.names.get(row)?.as_ref()?;
        let words = *self.words.get(row)?;
        words.state()?;
        if words.kind().is_branch()
            && let Some(branch) = at_row(&self.branches, row)
        {
            return Some(branch.node());
        }
        let detail = if words.has_detail() { at_row(&self.details, row) } else { None };
        Some(Node { path, words, detail: detail.map(|detail| &**detail), branch: None })
    }
}

fn at_row<T>(sorted: &[(u16, T)], row: usize) -> Option<&T> {
    let row = u16::try_from(row).ok()?;
    sorted.binary_search_by_key(&row, |(at, _)| *at).ok().map(|found| &sorted[found].1)
}

/// One node of a dump.
#[derive(Clone, Copy)]
pub struct Node<'a> {
    path: &'a ChildPath,
    words: Words,
    detail: Option<&'a NodeDetail>,
    branch: Option<&'a Branch>,
}

impl<'a> Node<'a> {
    /// Its whole path.
    pub const fn path(&self) -> &'a ChildPath {
        self.path
    }

    /// Its id within its supervisor.
    pub fn id(&self) -> &'a str {
        self.path.id()
    }

    /// What it is.
    pub const fn kind(&self) -> Kind {
        self.words.kind()
    }

    /// What the members of a group are; `None` for everything else.
    pub fn of(&self) -> Option<Kind> {
        self.branch.and_then(|branch| branch.facts.of)
    }

    /// The strategy of a supervisor or group.
    pub fn strategy(&self) -> Option<&'a str> {
        self.branch.and_then(|branch| branch.facts.strategy.as_deref())
    }

    /// The restart intensity of a supervisor: `3 in 5s`.
    pub fn intensity(&self) -> Option<&'a str> {
        self.branch.and_then(|branch| branch.facts.intensity.as_deref())
    }

    /// How far a rollback of a supervisor reaches; `None` for a step, and for everything else.
    pub fn scope(&self) -> Option<&'a str> {
        self.branch.and_then(|branch| branch.facts.scope.as_deref())
    }

    /// Whether what it has accepted survives the process.
    pub fn is_durable(&self) -> bool {
        self.branch.map_or(self.words.is_durable(), |branch| branch.facts.durable)
    }

    /// What it is doing.
    pub fn state(&self) -> ChildState {
        self.words.state().unwrap_or_default()
    }

    /// Which life it is in.
    pub const fn incarnation(&self) -> Incarnation {
        self.words.incarnation()
    }

    /// How many of its lives were restarts.
    pub const fn restarts(&self) -> u32 {
        self.words.restarts()
    }

    /// Requests that wait in its mailbox.
    pub const fn mailbox(&self) -> u32 {
        self.words.mailbox()
    }

    /// Requests handed out and not back, as the row says; [`NodeDetail::in_flight`] has them one by one.
    pub const fn in_flight(&self) -> u16 {
        self.words.in_flight()
    }

    /// What else there is to say; `None` when there is nothing, or it was not asked.
    pub const fn detail(&self) -> Option<&'a NodeDetail> {
        self.detail
    }

    /// Its children, in the order of the mirror: order of start, but for rows used again. Empty for what
    /// is neither a supervisor nor a group.
    pub fn children(&self) -> Children<'a> {
        Children { blocks: self.branch.map_or(&[], |branch| &branch.blocks), row: 0 }
    }

    /// How many children it has.
    pub fn child_count(&self) -> usize {
        self.branch.map_or(0, |branch| branch.children)
    }

    fn find(self, path: &str) -> Option<Self> {
        let mut at = self;
        loop {
            if at.path.as_str() == path {
                return Some(at);
            }
            at = at.children().find(|child| {
                path.strip_prefix(child.path.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })?;
        }
    }
}

impl fmt::Debug for Node<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("path", &self.path)
            .field("kind", &self.kind())
            .field("durable", &self.is_durable())
            .field("state", &self.state())
            .field("incarnation", &self.incarnation())
            .field("restarts", &self.restarts())
            .field("mailbox", &self.mailbox())
            .field("in_flight", &self.in_flight())
            .field("detail", &self.detail)
            .field("children", &self.child_count())
            .finish()
    }
}

/// See [`Node::children`].
#[derive(Clone)]
pub struct Children<'a> {
    blocks: &'a [Block],
    row: usize,
}

impl<'a> Iterator for Children<'a> {
    type Item = Node<'a>;

    fn next(&mut self) -> Option<Node<'a>> {
        while let [block, others @ ..] = self.blocks {
            while self.row < block.words.len() {
                let node = block.node(self.row);
                self.row += 1;
                if node.is_some() {
                    return node;
                }
            }
            self.blocks = others;
            self.row = 0;
        }
        None
    }
}

impl fmt::Debug for Children<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Children").field("row", &self.row).finish_non_exhaustive()
    }
}

/// See [`TreeDump::nodes`].
#[derive(Clone, Debug)]
pub struct Nodes<'a> {
    next: Option<Node<'a>>,
    stack: Vec<Children<'a>>,
}

impl<'a> Iterator for Nodes<'a> {
    type Item = Node<'a>;

    fn next(&mut self) -> Option<Node<'a>> {
        let node = self.next.take().or_else(|| {
            loop {
                match self.stack.last_mut()?.next() {
                    Some(node) => return Some(node),
                    None => self.stack.pop(),
                };
            }
        })?;
        if node.branch.is_some() {
            self.stack.push(node.children());
        }
        Some(node)
    }
}

#[cfg(test)]
mod tests;
