//! Recovery lines: one checkpoint a child, such that they agree with each other.
//!
//! Checkpoints taken by themselves agree only by chance: one child may remember a call that the other
//! has not made yet. A line is drawn while the subtree is quiet and committed as one manifest, so it
//! exists whole or not at all.
//!
//! *Invariant.* A line that was drawn names each child once, all below its place in the tree, all of
//! one topology. It is only ever used as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::checkpoint::manifest::{Checkpoint, Digest, Now, Pin, Wall, new_uuid};
use crate::checkpoint::validate::{Refused, Search, Validated, Validator};
use crate::checkpoint::{LONGEST_PIN, Scope, stored};
use crate::error::{CheckpointError, CodecError};
use crate::id::{CheckpointId, ChildPath, LineId};

/// A set of checkpoints that agree, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryLine {
    /// Its id.
    pub id: LineId,
    /// The scope that returns to it.
    pub scope: Scope,
    /// The supervisor whose subtree it covers.
    pub at: ChildPath,
    /// When it was drawn.
    pub created_at: Wall,
    /// The shape of the tree then.
    pub topology: Digest,
    /// How far the effect ledger was.
    pub ledger: u64,
    /// One checkpoint a child, sorted by path.
    pub members: Vec<(ChildPath, CheckpointId)>,
    /// How far the journals were: the position of the next record of each.
    pub journal: Vec<(Arc<str>, u64)>,
}

impl RecoveryLine {
    /// As bytes, for a store of your own.
    ///
    /// # Errors
    /// More than one envelope may hold.
    pub fn write(&self) -> Result<Vec<u8>, CodecError> {
        stored::write_line(self)
    }

    /// Reads what [`RecoveryLine::write`] gave.
    ///
    /// # Errors
    /// The bytes are corrupt, or of a later version.
    pub fn read(bytes: &[u8]) -> Result<Self, CodecError> {
        stored::read_line(bytes)
    }
}

/// A line is pinned as a whole by one pin: on its first member, and in the line's name.
impl RecoveryLine {
    /// The checkpoint that such a pin is on.
    pub(crate) fn hook(&self) -> Option<CheckpointId> {
        self.members.first().map(|(_, id)| *id)
    }

    /// The owner of a pin in the line's name, for somebody.
    pub(crate) fn pinned_for(&self, whom: &str) -> String {
        format!("{} for {whom}", self.id)
    }

    /// Whether one of these pins of its first member is in its name, and holds now.
    pub(crate) fn is_held_by(&self, pins: &[Pin], now: Wall) -> bool {
        let holding = || pins.iter().filter(|pin| pin.holds(now, LONGEST_PIN));
        // Hardly any has a pin at all.
        holding().next().is_some() && {
            let name = format!("{} ", self.id);
            holding().any(|pin| pin.owner.starts_with(&name))
        }
    }
}

/// A line that is being drawn.
#[derive(Clone, Debug)]
#[must_use = "a draft is nothing until it is drawn"]
pub struct LineDraft {
    line: RecoveryLine,
    members: BTreeMap<ChildPath, CheckpointId>,
    problem: Option<CheckpointError>,
}

impl LineDraft {
    /// A line of this scope below `at`.
    pub fn new(scope: Scope, at: ChildPath, now: Now) -> Self {
        let line = RecoveryLine {
            id: LineId(new_uuid(now.wall)),
            scope,
            at,
            created_at: now.wall,
            topology: Digest::NONE,
            ledger: 0,
            members: Vec::new(),
            journal: Vec::new(),
        };
        Self { line, members: BTreeMap::new(), problem: None }
    }

    /// The checkpoint of one child.
    pub fn member(mut self, checkpoint: &Checkpoint) -> Self {
        let incompatible = |what: &str, found: String, expected: String| {
            Some(CheckpointError::Incompatible { what: what.to_owned(), found, expected })
        };
        let (child, at) = (&checkpoint.child, &self.line.at);
        let below = child.as_str().strip_prefix(at.as_str());
        let problem = if !below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
            incompatible("a member's place", child.to_string(), format!("below {at}"))
        } else if !self.members.is_empty() && checkpoint.topology != self.line.topology {
            let expected = self.line.topology.to_string();
            incompatible("a member's topology", checkpoint.topology.to_string(), expected)
        } else if let Some(other) = self.members.insert(child.clone(), checkpoint.id) {
            incompatible(
                "a second checkpoint of a member",
                checkpoint.id.to_string(),
                other.to_string(),
            )
        } else {
            None
        };
        self.line.topology = checkpoint.topology;
        self.line.ledger = self.line.ledger.max(checkpoint.ledger);
        self.problem = self.problem.or(problem);
        self
    }

    /// How far a journal is: the position of its next record.
    pub fn journal(mut self, stream: impl Into<Arc<str>>, next: u64) -> Self {
        self.line.journal.push((stream.into(), next));
        self
    }

    /// The line, when its members agree.
    ///
    /// # Errors
    /// [`CheckpointError::Incompatible`] names the member that does not fit;
    /// [`CheckpointError::NotFound`] when there is no member.
    pub fn draw(mut self) -> Result<RecoveryLine, CheckpointError> {
        if let Some(problem) = self.problem {
            return Err(problem);
        }
        if self.members.is_empty() {
            let (scope, at) = (self.line.scope, &self.line.at);
            return Err(CheckpointError::NotFound(format!("a member of the {scope} line of {at}")));
        }
        self.line.members = self.members.into_iter().collect();
        Ok(self.line)
    }
}

/// A line whose every member was validated.
#[derive(Clone, Debug)]
pub struct ValidLine {
    line: Arc<RecoveryLine>,
    members: Vec<Validated>,
}

impl ValidLine {
    /// The line.
    pub fn line(&self) -> &Arc<RecoveryLine> {
        &self.line
    }

    /// Its members, sorted by path.
    pub fn members(&self) -> &[Validated] {
        &self.members
    }

    /// Its members, to be restored.
    pub fn into_members(self) -> Vec<Validated> {
        self.members
    }
}

impl Validator<'_> {
    /// Whether this line is pinned.
    pub(crate) fn holds(&self, line: &RecoveryLine) -> bool {
        let listed = line.hook().and_then(|id| self.store().find(id).ok());
        listed.is_some_and(|listed| line.is_held_by(&listed.pins, self.now().wall))
    }

    /// A member of a line: however old it is, where that is pinned.
    pub(crate) fn member(
        &self,
        id: CheckpointId,
        is_pinned: bool,
    ) -> Result<Validated, CheckpointError> {
        if is_pinned { self.validate_held(id) } else { self.validate(id) }
    }

    /// Every member of the line, or the first reason why it cannot be used. Where the line is pinned, its members
    /// are, too.
    ///
    /// # Errors
    /// The member that was refused, and why.
    pub fn line(&self, line: &Arc<RecoveryLine>) -> Result<ValidLine, Box<Refused>> {
        let mut members = Vec::with_capacity(line.members.len());
        let is_pinned = self.holds(line);
        for (child, id) in &line.members {
            let refuse = |why| Box::new(Refused { checkpoint: *id, child: child.clone(), why });
            let member = self.member(*id, is_pinned).map_err(refuse)?;
            if member.checkpoint().child != *child {
                return Err(refuse(CheckpointError::Incompatible {
                    what: format!("in {}, a member's child", line.id),
                    found: member.checkpoint().child.to_string(),
                    expected: child.to_string(),
                }));
            }
            members.push(member);
        }
        Ok(ValidLine { line: Arc::clone(line), members })
    }

    /// The newest line of a scope at a place that is valid as a whole, with the reason why each newer
    /// one was refused.
    ///
    /// # Errors
    /// [`CheckpointError::Transient`] when the store cannot be read now: an older line is then not
    /// tried, since the newer one may be sound.
    pub fn newest_line(
        &self,
        scope: Scope,
        at: &ChildPath,
    ) -> Result<Search<ValidLine>, CheckpointError> {
        let mut refused = Vec::new();
        for line in self.store().lines(scope, at)? {
            match self.line(&line) {
                Ok(found) => return Ok(Search { found: Some(found), refused }),
                Err(it) if it.why.is_retryable() => return Err(it.why),
                Err(it) => refused.push(*it),
            }
        }
        Ok(Search { found: None, refused })
    }
}
