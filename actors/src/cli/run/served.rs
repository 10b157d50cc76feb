//! Who answered whom while a question was worked on: an answer says that it rests on something
//! degraded, the events say on what.
//!
//! *Invariant.* Of groups below the one that is asked; of that one, its answer says it.

use mainstay::event::Event;
use mainstay::id::ChildPath;
use serde_json::{Value, json};

/// A member that answered instead of the first one of its group, or of a value that had to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoodIn {
    pub(super) group: ChildPath,
    pub(super) by: ChildPath,
    pub(super) degraded: bool,
    pub(super) defaulted: bool,
    pub(super) attempts: u32,
}

/// What is known of one question.
#[derive(Clone, Debug, Default)]
pub(super) struct Served(Vec<StoodIn>);

impl Served {
    pub(super) fn note(&mut self, event: &Event) {
        if let Event::Fated { child, served_by: Some(by), attempts, degraded, defaulted, .. } =
            event
        {
            let (group, by) = (child.clone(), by.clone());
            let (degraded, defaulted, attempts) = (*degraded, *defaulted, *attempts);
            self.0.push(StoodIn { group, by, degraded, defaulted, attempts });
        }
    }

    /// Those who stood in below the one that is asked, each once.
    pub(super) fn below(&self, asked: &ChildPath) -> Vec<StoodIn> {
        let mut found: Vec<StoodIn> = Vec::new();
        let stood = |it: &&StoodIn| {
            it.group != it.by && it.group != *asked && (it.degraded || it.defaulted)
        };
        for it in self.0.iter().filter(stood) {
            if !found.iter().any(|known| (&known.group, &known.by) == (&it.group, &it.by)) {
                found.push(it.clone());
            }
        }
        found
    }

    /// Who answered what this one was asked, if it was asked once.
    pub(super) fn only(&self, asked: &ChildPath) -> Option<&StoodIn> {
        let mut all = self.0.iter().filter(|it| it.group == *asked);
        all.next().filter(|_| all.next().is_none())
    }
}

impl StoodIn {
    pub(super) fn as_json(&self) -> Value {
        json!({"group": self.group, "by": self.by, "defaulted": self.defaulted})
    }
}
