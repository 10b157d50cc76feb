//! What a question that has no answer has done to the world all the same: whoever asks it again has to know.
//!
//! *Invariant.* Nothing is named that has not happened, nothing as done that was undone, and nothing twice: what a
//! person has to settle is named for that.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};

use mainstay::fault::EffectKind;
use mainstay::id::ChildPath;
use mainstay::system::{EffectView, System};
use serde_json::{Value, json};

use super::settle::{self, Rest, listed, named};
use super::{Session, tell};

/// What is needed to tell what a question has done.
#[derive(Debug, Default)]
pub(super) struct Deeds {
    /// The key of the question that was asked last.
    key: Option<String>,
    /// Its key once it is known that it has no answer: what it has done is told when nothing more comes of it.
    unanswered: Option<String>,
    /// The keys of those of before that had none.
    before: Vec<String>,
    /// Who is only asked: people, and who takes the tasks of agents, where what is done for these is named.
    asked: BTreeSet<ChildPath>,
    /// Whether what has an undo is undone.
    undoes: bool,
}

impl Deeds {
    pub(super) fn new(asked: BTreeSet<ChildPath>, undoes: bool) -> Self {
        Self { asked, undoes, ..Self::default() }
    }

    /// This is asked now, or what became of it before is told.
    pub(super) fn of(&mut self, key: impl Into<String>) {
        self.key = Some(key.into());
    }

    /// It has its answer.
    pub(super) fn is_answered(&mut self) {
        self.key = None;
    }

    /// It has no answer, and the end says what it has done.
    pub(super) fn is_unanswered(&mut self) {
        self.unanswered = self.key.take();
    }

    /// Nor had one of before.
    pub(super) fn was_unanswered(&mut self, key: &str) {
        self.before.push(key.to_owned());
    }

    /// The acts of a question, and of the tasks that others were given for it.
    fn done(&self, system: &System, key: &str, rest: Rest) -> Done {
        let told = settle::keys(system, rest);
        let mut all = its_own(system.effects().list(), key);
        all.retain(|act| {
            !matches!(act.kind, EffectKind::Pure | EffectKind::Read)
                && !told.contains(&act.key)
                && !self.asked.contains(&act.tool)
        });
        let mut done = Done::default();
        for act in all {
            match act.status {
                DONE => done.stand.push(act),
                BEGUN => done.may.push(act),
                // What may be repeated has failed as a whole.
                FAILED if !act.kind.is_replay_safe() => done.may.push(act),
                UNDONE => done.undone.push(act),
                _ => {}
            }
        }
        done
    }
}

/// What a question did.
#[derive(Default)]
struct Done {
    /// What took place and stands.
    stand: Vec<EffectView>,
    /// What may have taken place.
    may: Vec<EffectView>,
    /// What took place and was undone.
    undone: Vec<EffectView>,
}

impl Done {
    fn tell_undone(&self, begin: &str) {
        if !self.undone.is_empty() {
            tell(format_args!("{begin}done, and undone again: {}", listed(&self.undone, named)));
        }
    }
}

/// The status of an act that took place, of one that its tool says has failed, which may have done a part, of one
/// of which nobody has heard how it ended, and of one that was undone.
const DONE: &str = "confirmed";
const FAILED: &str = "failed";
const BEGUN: &str = "intended";
const UNDONE: &str = "compensated";

/// Those of a task and of the tasks that were begun by its acts, whose keys say so.
fn its_own(mut acts: Vec<EffectView>, key: &str) -> Vec<EffectView> {
    let mut begun: Vec<String> = Vec::new();
    // An act comes before those of the task that it begins.
    acts.retain(|act| {
        // The key of an act that has a long one before it is without that.
        let rest = act.task.strip_prefix(key).and_then(|rest| rest.strip_prefix('/'));
        let rest = rest.unwrap_or(&act.task);
        let is_its = act.task == key || begun.iter().any(|it| rest.starts_with(it));
        if is_its {
            begun.push(format!("{}-", act.key));
        }
        is_its
    });
    acts
}

/// A key that no other question has, in this process or another.
pub(super) fn own_key() -> String {
    let (one, two) = (RandomState::new().hash_one(1), RandomState::new().hash_one(2));
    format!("asked-{one:016x}{two:016x}")
}

impl Session {
    /// What those did that had no answer, now that nothing more comes of it.
    pub(super) fn tell_done(&self) {
        let before = self.deeds.before.iter().map(|key| (key, "asked before: "));
        let asked = self.deeds.unanswered.iter().map(|key| (key, ""));
        for (key, whose) in before.chain(asked) {
            let done = self.deeds.done(&self.system, key, self.rest);
            done.tell_undone(&format!("mainstay: {whose}"));
            if !done.stand.is_empty() {
                let stand = listed(&done.stand, named);
                tell(format_args!("mainstay: {whose}done all the same, and not undone: {stand}"));
            }
            if !done.may.is_empty() {
                let may = listed(&done.may, |act| format!("{} is {}", named(act), act.status));
                tell(format_args!("mainstay: {whose}may have been done: {may}"));
            }
        }
    }

    /// The same of the question that was asked last, in a conversation, where more may come of it.
    pub(super) fn tell_done_so_far(&mut self) {
        let Some(key) = self.deeds.key.take() else { return };
        let now = Rest { in_order: true, ..self.rest };
        let done = self.deeds.done(&self.system, &key, now);
        done.tell_undone("  ");
        if !done.stand.is_empty() {
            let undone = match self.deeds.undoes {
                true => " (what has an undo is being undone)",
                false => ", and not undone",
            };
            let stand = listed(&done.stand, named);
            tell(format_args!("  done all the same{undone}: {stand}"));
        }
        if !done.may.is_empty() {
            let may = listed(&done.may, |act| format!("{} is {}", named(act), act.status));
            let later = "/effects shows what nobody learns the outcome of";
            tell(format_args!("  may have been done, or be done yet ({later}): {may}"));
        }
    }

    /// What is told a program of a question without an answer, with what it did.
    pub(super) fn with_done(&self, mut told: Value, key: Option<&str>) -> Value {
        let Some(error) = told.get_mut("error") else { return told };
        let one = |act: EffectView| json!({"key": act.key.to_string(), "tool": act.tool, "owner": act.owner, "status": act.status});
        let done = key.map(|key| self.deeds.done(&self.system, key, self.rest));
        let Done { stand, may, undone } = done.unwrap_or_default();
        let did: Vec<Value> = stand.into_iter().chain(may).map(one).collect();
        let undone: Vec<Value> = undone.into_iter().map(one).collect();
        for (name, acts) in [("done", did), ("undone", undone)] {
            if !acts.is_empty() {
                error[name] = acts.into();
            }
        }
        told
    }

    /// The key of the question that was asked, if it has no answer.
    pub(super) fn unanswered(&self) -> Option<&str> {
        self.deeds.unanswered.as_deref()
    }
}
