//! Who answered whom while a question was worked on: an answer says that it rests on something
//! degraded, the events say on what.
//!
//! *Invariant.* Of groups below the one that is asked; of that one, its answer says it, unless a person
//! gave it.

use mainstay::event::Event;
use mainstay::fate::{Cost, Ended, Fate};
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
    pub(super) cost: Cost,
    /// Whether a person answered in its place, at a manual point.
    pub(super) by_person: bool,
}

/// A request that ended without an answer, and how its attempts did.
#[derive(Clone, Debug)]
pub(super) struct Failed {
    pub(super) child: ChildPath,
    pub(super) fate: Fate,
    pub(super) trail: Vec<(ChildPath, u32, Ended)>,
}

/// What is known of one question.
#[derive(Clone, Debug, Default)]
pub(super) struct Served {
    all: Vec<StoodIn>,
    /// Attempts that ended without an answer, of requests that have no fate yet.
    ended: Vec<(RequestId, ChildPath, u32, Ended)>,
    failed: Vec<Failed>,
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
                cost,
                ..
            } => {
                let (group, by) = (child.clone(), by.clone());
                let by_person = self.by_person.contains(request);
                self.all.push(StoodIn {
                    group,
                    by,
                    degraded: *degraded,
                    defaulted: *defaulted,
                    attempts: *attempts,
                    cost: *cost,
                    by_person,
                });
            }
            Event::Failed { child, request, attempt, ended, .. } => {
                self.ended.push((*request, child.clone(), *attempt, ended.clone()));
            }
            Event::Fated { child, request, fate, .. } => {
                let (of_it, others) = std::mem::take(&mut self.ended)
                    .into_iter()
                    .partition::<Vec<_>, _>(|(id, ..)| id == request);
                self.ended = others;
                let trail =
                    of_it.into_iter().map(|(_, child, attempt, ended)| (child, attempt, ended));
                self.failed.push(Failed {
                    child: child.clone(),
                    fate: *fate,
                    trail: trail.collect(),
                });
            }
            _ => {}
        }
    }

    /// How what this one was asked ended, if it was asked once and did not answer.
    pub(super) fn failed(&self, asked: &ChildPath) -> Option<&Failed> {
        let mut all = self.failed.iter().filter(|it| it.child == *asked);
        all.next().filter(|_| all.next().is_none())
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
