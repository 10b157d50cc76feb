//! Who answered whom while a question was worked on: an answer says that it rests on something
//! degraded, the events say on what.
//!
//! *Invariant.* Of groups below the one that is asked; of that one, its answer says it, unless a person
//! gave it.

use mainstay::event::Event;
use mainstay::id::{ChildPath, RequestId};
use serde_json::{Value, json};

/// A member that answered instead of the first one of its group, or of a value that had to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoodIn {
    pub(super) group: ChildPath,
    pub(super) by: ChildPath,
    pub(super) degraded: bool,
    pub(super) defaulted: bool,
    pub(super) attempts: u32,
    /// Whether a person answered in its place, at a manual point.
    pub(super) by_person: bool,
}

/// What is known of one question.
#[derive(Clone, Debug, Default)]
pub(super) struct Served {
    all: Vec<StoodIn>,
    /// In whose place, and for which request, a person has answered.
    by_person: Vec<RequestId>,
}

impl Served {
    pub(super) fn note(&mut self, event: &Event) {
        match event {
            Event::PointClosed { request, decision: "answer", .. } => self.by_person.push(*request),
            Event::Fated {
                child,
                request,
                served_by: Some(by),
                attempts,
                degraded,
                defaulted,
                ..
            } => {
                let (group, by) = (child.clone(), by.clone());
                let (degraded, defaulted, attempts) = (*degraded, *defaulted, *attempts);
                let by_person = self.by_person.contains(request);
                self.all.push(StoodIn { group, by, degraded, defaulted, attempts, by_person });
            }
            _ => {}
        }
    }

    /// Those who stood in below the one that is asked, each once.
    pub(super) fn below(&self, asked: &ChildPath) -> Vec<StoodIn> {
        let mut found: Vec<StoodIn> = Vec::new();
        let stood = |it: &&StoodIn| {
            let other = it.group != it.by && it.group != *asked;
            it.by_person || other && (it.degraded || it.defaulted)
        };
        for it in self.all.iter().filter(stood) {
            if !found.iter().any(|known| (&known.group, &known.by) == (&it.group, &it.by)) {
                found.push(it.clone());
            }
        }
        found
    }

    /// Who answered what this one was asked, if it was asked once.
    pub(super) fn only(&self, asked: &ChildPath) -> Option<&StoodIn> {
        let mut all = self.all.iter().filter(|it| it.group == *asked);
        all.next().filter(|_| all.next().is_none())
    }
}

impl StoodIn {
    pub(super) fn as_json(&self) -> Value {
        let mut body = json!({"group": self.group, "by": self.by, "defaulted": self.defaulted});
        if self.by_person {
            body["by_person"] = json!(true);
        }
        body
    }
}
