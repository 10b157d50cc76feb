//! A dump as nested JSON, and back.
//!
//! *Invariant.* Reading what was written and writing it again gives the same text.

use std::sync::Arc;

use serde::de::{Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Block, Branch, Children, Node, TreeDump};
use crate::id::{ChildPath, Incarnation};
use crate::mirror::{ChildState, Facts, Kind, NodeDetail, Status, Words};
use crate::moment::Moment;

/// Rows of one block of a dump that was read from JSON: a row's number fits 16 bits.
const BLOCK: usize = 1_024;

#[derive(Serialize)]
struct DumpOut<'a> {
    at_ms: u64,
    root: NodeOut<'a>,
}

#[derive(Serialize)]
struct NodeOut<'a> {
    path: &'a str,
    id: &'a str,
    kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    of: Option<Kind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strategy: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    intensity: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
    #[serde(skip_serializing_if = "is_false")]
    durable: bool,
    state: ChildState,
    incarnation: Incarnation,
    restarts: u32,
    mailbox: u32,
    in_flight_count: u16,
    #[serde(flatten)]
    detail: Option<&'a NodeDetail>,
    #[serde(skip_serializing_if = "Option::is_none")]
    children: Option<ChildrenOut<'a>>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

struct ChildrenOut<'a>(Children<'a>);

impl Serialize for ChildrenOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.clone().map(NodeOut::from))
    }
}

impl<'a> From<Node<'a>> for NodeOut<'a> {
    fn from(node: Node<'a>) -> Self {
        Self {
            path: node.path.as_str(),
            id: node.id(),
            kind: node.kind(),
            of: node.of(),
            strategy: node.strategy(),
            intensity: node.intensity(),
            scope: node.scope(),
            durable: node.is_durable(),
            state: node.state(),
            incarnation: node.incarnation(),
            restarts: node.restarts(),
            mailbox: node.mailbox(),
            in_flight_count: node.in_flight(),
            detail: node.detail,
            children: node.branch.map(|_| ChildrenOut(node.children())),
        }
    }
}

impl Serialize for TreeDump {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let at_ms = self.at.as_nanos() / 1_000_000;
        DumpOut { at_ms, root: self.root().into() }.serialize(serializer)
    }
}

#[derive(Deserialize)]
struct DumpIn {
    at_ms: u64,
    root: NodeIn,
}

#[derive(Deserialize)]
struct NodeIn {
    path: ChildPath,
    /// The last segment of the path, said twice for readers of the JSON.
    #[serde(default, rename = "id")]
    _id: IgnoredAny,
    kind: Kind,
    #[serde(default)]
    of: Option<Kind>,
    #[serde(default)]
    strategy: Option<String>,
    #[serde(default)]
    intensity: Option<String>,
    #[serde(default)]
    scope: Option<String>,
    #[serde(default)]
    durable: bool,
    state: ChildState,
    incarnation: Incarnation,
    restarts: u32,
    mailbox: u32,
    in_flight_count: u16,
    #[serde(flatten)]
    detail: NodeDetail,
    #[serde(default)]
    children: Vec<NodeIn>,
}

impl NodeIn {
    fn words(&self) -> Words {
        let status = Status {
            state: self.state,
            in_flight: usize::from(self.in_flight_count),
            mailbox: self.mailbox as usize,
            has_detail: !self.detail.is_empty(),
        };
        Words::new(self.kind, status, self.incarnation, self.restarts).with_durable(self.durable)
    }
}

fn boxed(detail: NodeDetail) -> Option<Box<NodeDetail>> {
    (!detail.is_empty()).then(|| Box::new(detail))
}

impl TryFrom<NodeIn> for Branch {
    type Error = String;

    fn try_from(node: NodeIn) -> Result<Self, String> {
        if !node.kind.is_branch() {
            return Err(format!("\"{}\" is a {} and has no children", node.path, node.kind));
        }
        let words = node.words();
        let NodeIn { path, kind, of, strategy, intensity, scope, durable, .. } = node;
        let NodeIn { detail, children, .. } = node;
        let (strategy, intensity) = (strategy.map(Arc::from), intensity.map(Arc::from));
        let scope = scope.map(Arc::from);
        let facts = Facts { path, kind, of, strategy, intensity, scope, durable };
        let mut branch = Self::new(Arc::new(facts), words, boxed(detail));
        let mut children = children.into_iter().peekable();
        while children.peek().is_some() {
            let block = Block::collect(children.by_ref().take(BLOCK))?;
            let live = block.words.len();
            branch.push(block, live);
        }
        Ok(branch)
    }
}

impl Block {
    fn collect(children: impl Iterator<Item = NodeIn>) -> Result<Self, String> {
        let mut names = Vec::new();
        let mut words = Vec::new();
        let mut details = Vec::new();
        let mut branches = Vec::new();
        for (row, node) in (0..).zip(children) {
            names.push(Some(node.path.clone()));
            words.push(node.words());
            if node.kind.is_branch() || !node.children.is_empty() {
                branches.push((row, Branch::try_from(node)?));
            } else if let Some(detail) = boxed(node.detail) {
                details.push((row, detail));
            }
        }
        Ok(Self { names: Arc::new(names), words: words.into(), details, branches })
    }
}

impl<'de> Deserialize<'de> for TreeDump {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let DumpIn { at_ms, root } = DumpIn::deserialize(deserializer)?;
        let root = Branch::try_from(root).map_err(D::Error::custom)?;
        Ok(Self { at: Moment::from_millis(at_ms), root })
    }
}
