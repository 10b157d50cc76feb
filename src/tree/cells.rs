//! What a node has to say, as short texts, and which nodes are summed up.
//!
//! *Invariant.* A text here fits one line: whatever is no printable character is replaced.

use std::time::Duration;

use super::Node;
use crate::id::Incarnation;
use crate::mirror::{ChildState, CircuitView, NodeDetail};

/// Alike children beyond this many are summed up ...
const QUIET_LIMIT: usize = 12;
/// ... of which so many are shown.
const QUIET_SHOWN: usize = 10;
/// The same for children in the same state that have something to tell.
const TELLING_LIMIT: usize = 60;
const TELLING_SHOWN: usize = 50;

/// One line of a tree.
pub(super) enum Shown<'a> {
    /// A node of its own.
    Node(Node<'a>),
    /// So many more in this state.
    More(usize, ChildState),
}

impl Shown<'_> {
    pub(super) fn more(count: usize, state: ChildState) -> String {
        format!("… {} more {state}", grouped(count as u64))
    }
}

/// The lines of a node's children: the children, or the first ones of each state and how many more
/// there are. Supervisors and groups are always shown.
pub(super) fn shown<'a>(node: &Node<'a>, all: bool) -> Vec<Shown<'a>> {
    if all || node.child_count() <= QUIET_LIMIT {
        return node.children().map(Shown::Node).collect();
    }
    let mut found = [[0; 2]; ChildState::ALL.len() + 1];
    for child in node.children().filter(|child| child.branch.is_none()) {
        found[child.state() as usize][usize::from(is_telling(&child))] += 1;
    }
    let limit = |[quiet, telling]: [usize; 2]| {
        [
            if quiet > QUIET_LIMIT { QUIET_SHOWN } else { quiet },
            if telling > TELLING_LIMIT { TELLING_SHOWN } else { telling },
        ]
    };
    let mut left = found.map(limit);
    let mut lines = Vec::new();
    for child in node.children() {
        let left = &mut left[child.state() as usize][usize::from(is_telling(&child))];
        if child.branch.is_some() {
            lines.push(Shown::Node(child));
        } else if *left > 0 {
            *left -= 1;
            lines.push(Shown::Node(child));
        }
    }
    for state in ChildState::ALL {
        let all = found[state as usize];
        let [quiet, telling] = limit(all);
        let hidden = all[0] + all[1] - quiet - telling;
        if hidden > 0 {
            lines.push(Shown::More(hidden, state));
        }
    }
    lines
}

fn is_telling(node: &Node<'_>) -> bool {
    node.detail.is_some() || node.mailbox() > 0 || node.in_flight() > 0 || node.restarts() > 0
}

/// The columns beside the name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Kind,
    Intensity,
    Scope,
    State,
    Life,
    Restarts,
    Mailbox,
    InFlight,
    Circuit,
    LastCause,
    WaitsFor,
    Zombies,
    Budgets,
    Hedges,
    Checkpoint,
}

impl Column {
    pub(super) const ALL: [Self; 15] = [
        Self::Kind,
        Self::Intensity,
        Self::Scope,
        Self::State,
        Self::Life,
        Self::Restarts,
        Self::Mailbox,
        Self::InFlight,
        Self::Circuit,
        Self::LastCause,
        Self::WaitsFor,
        Self::Zombies,
        Self::Budgets,
        Self::Hedges,
        Self::Checkpoint,
    ];

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Kind => "kind",
            Self::Intensity => "intensity",
            Self::Scope => "scope",
            Self::State => "state",
            Self::Life => "life",
            Self::Restarts => "restarts",
            Self::Mailbox => "mailbox",
            Self::InFlight => "in flight",
            Self::Circuit => "circuit",
            Self::LastCause => "last cause",
            Self::WaitsFor => "waits for",
            Self::Zombies => "zombies",
            Self::Budgets => "left",
            Self::Hedges => "hedges",
            Self::Checkpoint => "checkpoint",
        }
    }

    /// Whether its cells are numbers and stand on the right.
    pub(super) const fn is_number(self) -> bool {
        matches!(self, Self::Restarts | Self::Mailbox | Self::Zombies)
    }

    /// The text of this column about a node; empty when there is nothing to say.
    pub(super) fn text(self, node: &Node<'_>) -> String {
        match self {
            Self::Kind => kind(node),
            Self::Intensity => printable(node.intensity().unwrap_or_default()),
            Self::Scope => printable(node.scope().unwrap_or_default()),
            Self::State => state(node),
            Self::Life if node.incarnation() == Incarnation::NONE => String::new(),
            Self::Life => node.incarnation().to_string(),
            Self::Restarts => number(node.restarts()),
            Self::Mailbox => number(waiting(node)),
            Self::InFlight => in_flight(node),
            Self::Circuit => about(node, |detail| Some(circuit(detail.circuit?))),
            Self::LastCause => about(node, |detail| {
                let cause = detail.last_cause.as_ref()?;
                Some(format!("{}, {}", printable(&cause.ended.to_string()), short(cause.age)))
            }),
            Self::WaitsFor => about(node, |detail| {
                match detail.waits_for.split_first() {
                    Some((first, others)) => {
                        Some(and_more(printable(first.as_str()), others.len()))
                    }
                    // It waits for a time, and not to try again.
                    None if node.state() == ChildState::Waiting => {
                        detail.resumes_in.map(|_| "a decision".to_owned())
                    }
                    None => None,
                }
            }),
            Self::Zombies => about(node, |detail| Some(number(detail.zombies))),
            Self::Budgets => about(node, |detail| Some(budgets(detail))),
            Self::Hedges => about(node, |detail| {
                let hedges = detail.hedges?;
                Some(format!("{} won of {}", grouped(hedges.won), grouped(hedges.sent)))
            }),
            Self::Checkpoint => about(node, |detail| {
                if let Some(line) = &detail.line {
                    let (id, age) = (line.id, short(line.age));
                    return Some(format!("{id}, {age}, {} children", line.children));
                }
                let checkpoint = detail.checkpoint.as_ref()?;
                let (id, age) = (printable(&checkpoint.id), short(checkpoint.age));
                Some(format!("{id}, {age}, step {}", checkpoint.step))
            }),
        }
    }
}

fn about(node: &Node<'_>, text: impl FnOnce(&NodeDetail) -> Option<String>) -> String {
    node.detail.and_then(text).unwrap_or_default()
}

fn kind(node: &Node<'_>) -> String {
    let mut text = if node.is_durable() { "durable " } else { "" }.to_owned();
    if let Some(of) = node.of() {
        text.push_str(of.name());
        text.push(' ');
    }
    text.push_str(node.kind().name());
    if let Some(strategy) = node.strategy() {
        text.push(' ');
        text.push_str(&printable(strategy));
    }
    text
}

fn state(node: &Node<'_>) -> String {
    // A supervisor has no work of its own that it could be idle without.
    let name = match node.state() {
        ChildState::Idle if node.branch.is_some() => "running".to_owned(),
        state => state.name().to_owned(),
    };
    match node.detail.and_then(|detail| detail.resumes_in) {
        Some(left) => format!("{name} {}", short(left)),
        None => name,
    }
}

fn in_flight(node: &Node<'_>) -> String {
    match node.detail.and_then(|detail| detail.in_flight.split_first()) {
        Some((first, others)) => {
            let first = format!("attempt {}, {}", first.attempt, short(first.age));
            and_more(first, others.len())
        }
        None => number(u32::from(node.in_flight())),
    }
}

fn circuit(circuit: CircuitView) -> String {
    match circuit {
        CircuitView::Closed => "closed".to_owned(),
        CircuitView::Open { left } => format!("open {}", short(left)),
        CircuitView::HalfOpen => "half-open".to_owned(),
        CircuitView::Isolated => "isolated".to_owned(),
    }
}

fn budgets(detail: &NodeDetail) -> String {
    let each = detail.budgets.iter().map(|budget| {
        let (name, left) = (printable(&budget.name), budget.left);
        budget.limit.map_or_else(
            || format!("{name} {}", grouped(left)),
            |limit| format!("{name} {}/{}", grouped(left), grouped(limit)),
        )
    });
    each.collect::<Vec<_>>().join(", ")
}

fn and_more(mut text: String, more: usize) -> String {
    if more > 0 {
        text.push_str(&format!(" +{more}"));
    }
    text
}

/// What waits in a mailbox, or in a group for a member that takes it.
fn waiting(node: &Node<'_>) -> u32 {
    let held = node.detail.map_or(0, |detail| detail.waiting);
    node.mailbox().saturating_add(u32::try_from(held).unwrap_or(u32::MAX))
}

/// A number for people; nothing for none.
fn number(number: u32) -> String {
    if number == 0 { String::new() } else { grouped(u64::from(number)) }
}

/// `1,234,567`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A duration to two digits or two units: `340ms`, `4.2s`, `42s`, `3m05s`, `2h10m`, `3d4h`.
pub(super) fn short(duration: Duration) -> String {
    let millis = duration.as_millis();
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{millis}ms"),
        1..10 if millis % 1_000 < 100 => format!("{seconds}s"),
        1..10 => format!("{seconds}.{}s", millis % 1_000 / 100),
        10..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// The text with what would break a line, or turn it around, replaced.
pub(super) fn printable(text: &str) -> String {
    let breaks = |c: char| {
        c.is_control()
            || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if breaks(c) { '\u{fffd}' } else { c }).collect()
}
