//! What has been done for a request so far, wherever it was done.
//!
//! *Invariant.* Retries are counted for the request, not for the member that made them: `n` siblings
//! never multiply the retries. Counts only grow; a rollback does not give them back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::decision::Action;
use crate::fault::Class;
use crate::policy::strategy::Cause;

/// What the ladder has spent on one request. It says what was *before* the failure being judged: call
/// [`History::record`] with the decision afterwards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    retries: u32,
    by_class: Counts,
    crashes: u32,
    substitutions: u32,
    tried: u64,
    rollbacks: u32,
    last: Option<Class>,
    #[serde(default)]
    soft: u32,
}

impl History {
    /// The largest number of members whose trying is remembered. A larger group is refused when its
    /// spec is built, since no chain may be that long.
    pub const MEMBERS: usize = u64::BITS as usize;

    /// A history in which this member of the group is the first to be tried.
    pub fn starting_at(member: usize) -> Self {
        let mut history = Self::default();
        history.mark_tried(member);
        history
    }

    /// Retries granted, redeliveries after a crash included.
    pub const fn retries(&self) -> u32 {
        self.retries
    }

    /// Retries granted after faults of this class.
    pub const fn retries_of(&self, class: Class) -> u32 {
        self.by_class.0[class as usize] as u32
    }

    /// Lives that ended with this request in hand and may have ended because of it.
    pub const fn crashes(&self) -> u32 {
        self.crashes
    }

    /// Substitutes so far: the depth of the chain.
    pub const fn substitutions(&self) -> u32 {
        self.substitutions
    }

    /// Rollbacks made for this request.
    pub const fn rollbacks(&self) -> u32 {
        self.rollbacks
    }

    /// The class of the last failure, if it had one.
    pub const fn last(&self) -> Option<Class> {
        self.last
    }

    /// Faults of the whole task that were mended within the policy's window, those of the calls made for
    /// it included, as [told](History::tell_soft_failures) before this failure was judged.
    pub const fn soft_failures(&self) -> u32 {
        self.soft
    }

    /// Tells how many soft failures the task has had within the window.
    pub const fn tell_soft_failures(&mut self, failures: u32) {
        self.soft = failures;
    }

    /// Whether this member of the group has had the request.
    pub const fn has_tried(&self, member: usize) -> bool {
        member < Self::MEMBERS && self.tried & (1 << member) != 0
    }

    /// Notes that this member of the group has the request.
    pub const fn mark_tried(&mut self, member: usize) {
        if member < Self::MEMBERS {
            self.tried |= 1 << member;
        }
    }

    /// Takes a member back that had no room after all.
    pub const fn forget_tried(&mut self, member: usize) {
        if member < Self::MEMBERS {
            self.tried &= !(1 << member);
        }
    }

    /// Counts a hand-over to this member that no failure of this moment decided: the request waited for
    /// it.
    pub const fn mark_substituted(&mut self, member: usize) {
        self.substitutions = self.substitutions.saturating_add(1);
        self.mark_tried(member);
    }

    /// Takes such a hand-over back, or one that was decided, from a member that had no room after all.
    pub const fn forget_substituted(&mut self, member: usize) {
        self.substitutions = self.substitutions.saturating_sub(1);
        self.forget_tried(member);
    }

    /// Counts a failure and what was decided about it. After an escalation the members tried are
    /// those of another group, so none is; what was spent stays spent. A failure that will be judged
    /// again, by the parent or when a sibling has room, is not counted as a crash yet: one death is
    /// counted once.
    pub fn record(&mut self, cause: Cause<'_>, action: Action) {
        let class = cause.class();
        self.last = class;
        let judged_again = matches!(action, Action::Escalate | Action::AwaitSibling { .. });
        if cause.is_crash() && !judged_again {
            self.crashes = self.crashes.saturating_add(1);
        }
        match action {
            Action::Retry { .. } => {
                self.retries = self.retries.saturating_add(1);
                if let Some(class) = class {
                    let count = &mut self.by_class.0[class as usize];
                    *count = count.saturating_add(1);
                }
            }
            Action::Substitute { member } => {
                self.substitutions = self.substitutions.saturating_add(1);
                self.mark_tried(member);
            }
            Action::Rollback | Action::Widen => self.rollbacks = self.rollbacks.saturating_add(1),
            Action::Escalate => self.tried = 0,
            _ => {}
        }
    }
}

/// A small count a class. Stored by name, so that a new class does not spoil what was written before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<Class, u8>", into = "BTreeMap<Class, u8>")]
struct Counts([u8; Class::ALL.len()]);

impl From<BTreeMap<Class, u8>> for Counts {
    fn from(map: BTreeMap<Class, u8>) -> Self {
        let mut counts = Self::default();
        for (class, count) in map {
            counts.0[class as usize] = count;
        }
        counts
    }
}

impl From<Counts> for BTreeMap<Class, u8> {
    fn from(counts: Counts) -> Self {
        Class::ALL
            .into_iter()
            .map(|class| (class, counts.0[class as usize]))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}
