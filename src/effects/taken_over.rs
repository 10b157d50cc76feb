//! What a child is told that begins a request for which others of its group have acted.
//!
//! It begins anew, and may ask for the same at another step, under another key: that would be another act. So it is
//! told what stands, as after a rollback.
//!
//! Of what nobody knows the question is asked before, if it has one, and what is told as unknown then is so to everybody.
//!
//! *Invariant.* What the child does itself from there on changes nothing in what it is told: begun once more, it asks
//! the same, and gets the same answers.

use std::sync::Arc;

use super::Effects;
use super::parts::{is_open_or_stands, told_of};
use crate::behavior::Undone;
use crate::fault::{EffectKind, Fault};
use crate::id::ChildPath;
use crate::ledger::{EffectKey, EffectStatus, Entry, Input, Ledger};
use crate::port::{Act, Call, Tie};

/// Who has acted, as the child sees it that begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Itself,
    Sibling,
    /// Somebody who works under the same key, and is no member of the group.
    Other,
}

impl Effects {
    /// What is told to `child`, which begins the request of this task, of what has been done for it up to the last act
    /// of a sibling that stands or of which nobody knows. `None` where there is no such.
    pub(crate) fn left_by(
        &self,
        task: &str,
        child: &ChildPath,
        is_sibling: impl Fn(&ChildPath) -> bool,
    ) -> Option<Undone> {
        let by = |owner: &ChildPath| match owner {
            owner if owner == child => By::Itself,
            owner if is_sibling(owner) => By::Sibling,
            _ => By::Other,
        };
        let ledger = self.ledger.lock();
        let entries = ledger.of_task(task).into_iter().filter(|entry| entry.intent.kind.acts());
        let acts: Vec<_> = entries.map(|entry| (by(&entry.intent.owner), entry)).collect();
        let says: Vec<_> =
            acts.iter().map(|(by, entry)| (*by, is_open_or_stands(&ledger, entry))).collect();
        let count = told(&says);
        let its = acts.iter().take(count).filter(|(by, _)| *by != By::Other);
        let told = (count > 0).then(|| told_of(&ledger, its.map(|(_, entry)| *entry)));
        drop(ledger);
        told.map(|told| self.described(told))
    }

    /// Whether a question may tell what came of this. Where the undo of its task has stopped, a person was called, and
    /// tells.
    pub(crate) fn can_be_asked(&self, key: EffectKey) -> bool {
        let ledger = self.ledger.lock();
        ledger.get(key).is_some_and(|entry| {
            let is_left = |it: &Entry| matches!(it.status, EffectStatus::Left(_));
            has_question(entry) && !ledger.of_task(&entry.intent.task).into_iter().any(is_left)
        })
    }

    /// Asks the question of this act, once nobody is at work on it, where that is what the call asks for.
    pub(crate) async fn ask_about(
        &self,
        key: EffectKey,
        call: Call,
        tie: Arc<Tie>,
    ) -> Result<(), Fault> {
        let tool = call.target().clone();
        let Some(Act { request: Ok(request), verify: Some(verify), .. }) = call.act.map(|it| *it)
        else {
            return Ok(());
        };
        let Some(entry) = self.at_rest(key).await else { return Ok(()) };
        let is_it = entry.intent.tool == tool && entry.intent.request == request;
        if is_it && has_question(&entry) {
            let resolution = verify(tie).await;
            self.feed(Input::Resolved(key, resolution)).await?;
        }
        Ok(())
    }

    /// These are told as unknown: whoever is told does not ask for them again, unless by chance.
    pub(crate) fn told_unknown(&self, keys: &[EffectKey]) {
        for key in keys {
            let entry = self.ledger.lock().get(*key).cloned();
            if entry.is_some_and(|entry| !self.is_with_tool(&entry)) {
                self.orphaned(*key);
            }
        }
    }
}

fn has_question(entry: &Entry) -> bool {
    let is_open = matches!(entry.status, EffectStatus::Intended | EffectStatus::Unknown);
    is_open && entry.intent.kind == EffectKind::Verifiable
}

/// Whether a sibling has acted for this task since `child` did the last time, and that stands, or nobody knows: what the
/// child has of the request is of a course that another one has taken over.
pub(crate) fn is_overtaken(
    ledger: &Ledger,
    task: &str,
    child: &ChildPath,
    is_sibling: impl Fn(&ChildPath) -> bool,
) -> bool {
    let entries = ledger.of_task(task).into_iter().filter(|entry| entry.intent.kind.acts());
    let acts: Vec<_> = entries
        .map(|entry| {
            let by = match &entry.intent.owner {
                owner if owner == child => By::Itself,
                owner if is_sibling(owner) => By::Sibling,
                _ => By::Other,
            };
            (by, is_open_or_stands(ledger, entry))
        })
        .collect();
    is_behind(&acts)
}

/// Whether the last act of a sibling that stands or is open comes after all of the child itself.
fn is_behind(acts: &[(By, bool)]) -> bool {
    let told = told(acts);
    told > 0 && acts[told..].iter().all(|(by, _)| *by != By::Itself)
}

/// How many of these acts are told, the earliest first: those up to the last one of a sibling that stands or is open.
/// What the child itself has done before that belongs to an earlier course of its own.
fn told(acts: &[(By, bool)]) -> usize {
    let is_told = |(by, stands): &(By, bool)| *by == By::Sibling && *stands;
    acts.iter().rposition(is_told).map_or(0, |last| last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_child_has_of_a_request_is_of_no_use_once_a_sibling_has_acted_after_it() {
        use By::{Itself, Other, Sibling};
        let rows: [(&[(By, bool)], bool); 7] = [
            (&[], false),
            (&[(Itself, true)], false),
            (&[(Other, true)], false),
            (&[(Sibling, true)], true),
            (&[(Itself, true), (Sibling, true)], true),
            // Nothing of that stands.
            (&[(Itself, true), (Sibling, false)], false),
            // It was told of that, and has gone on, whatever came of it.
            (&[(Sibling, true), (Itself, false)], false),
        ];
        for (acts, expected) in rows {
            assert_eq!(is_behind(acts), expected, "{acts:?}");
        }
    }

    #[test]
    fn it_is_told_what_was_done_up_to_the_last_act_of_a_sibling_that_may_stand() {
        use By::{Itself, Other, Sibling};
        let rows: [(&[(By, bool)], usize); 9] = [
            (&[], 0),
            // Retried by the same child, it begins as ever.
            (&[(Itself, true), (Itself, true)], 0),
            // Who works under the same key is not stood in for.
            (&[(Other, true)], 0),
            (&[(Sibling, true)], 1),
            // Nothing stands.
            (&[(Sibling, false)], 0),
            (&[(Sibling, false), (Sibling, true), (Sibling, false)], 2),
            // What it does itself changes nothing.
            (&[(Sibling, true), (Itself, true), (Itself, false)], 1),
            // Nor what it did before, which it is told where a sibling has acted since.
            (&[(Itself, true), (Sibling, true)], 2),
            (&[(Itself, true), (Sibling, false)], 0),
        ];
        for (acts, count) in rows {
            assert_eq!(told(acts), count, "{acts:?}");
        }
    }
}
