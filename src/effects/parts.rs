//! What stands of an act whose work others have done, under its key: as a sub-agent does that of the call that asked it.
//!
//! *Invariant.* That such an act has failed, or was refused, says nothing of its parts: they are acts by themselves, and
//! whoever may do the same again is told of them.

use crate::behavior::Undone;
use crate::ledger::{EffectStatus, Entry, Ledger};

/// What stands of these effects, and what is not known, but for what they were. Of one that is not known to have
/// happened its parts are told, too, but for those that are to be undone still.
pub(super) fn told_of<'a>(
    ledger: &'a Ledger,
    entries: impl IntoIterator<Item = &'a Entry>,
) -> Undone {
    let mut told = Undone::default();
    for entry in entries.into_iter().filter(|entry| entry.intent.kind.acts()) {
        let key = entry.intent.key;
        match entry.status {
            EffectStatus::Confirmed(_) | EffectStatus::Left(_) => {
                told.kept.push(key);
                continue;
            }
            EffectStatus::Compensated => {
                told.undone.push(key);
                continue;
            }
            _ => {}
        }
        let parts = ledger.parts(entry);
        if is_told(entry) || parts.iter().any(|part| is_told(part)) {
            told.unknown.push(key);
        }
        for part in parts.into_iter().filter(|part| is_told(part) && !is_owed(ledger, part)) {
            let list = if is_done(part) { &mut told.kept } else { &mut told.unknown };
            list.push(part.intent.key);
        }
    }
    told
}

/// Whether it stands, or nobody knows. Of what has failed the tool has said so.
pub(super) fn is_open_or_stands(ledger: &Ledger, entry: &Entry) -> bool {
    is_open(entry) || is_vain(entry) && ledger.parts(entry).into_iter().any(is_open)
}

const fn is_vain(entry: &Entry) -> bool {
    matches!(entry.status, EffectStatus::Rejected | EffectStatus::Failed(_))
}

const fn is_done(entry: &Entry) -> bool {
    matches!(entry.status, EffectStatus::Confirmed(_) | EffectStatus::Left(_))
}

const fn is_open(entry: &Entry) -> bool {
    !is_vain(entry) && !matches!(entry.status, EffectStatus::Compensated)
}

/// By itself: what has failed may have done a part, which does no harm where it may be done again.
const fn is_told(entry: &Entry) -> bool {
    let has_failed = matches!(entry.status, EffectStatus::Failed(_));
    is_open(entry) || has_failed && !entry.intent.kind.is_replay_safe()
}

/// Whether it is about to be undone: who does the same then does it once.
fn is_owed(ledger: &Ledger, part: &Entry) -> bool {
    let task = &part.intent.task;
    let goes_on = || !ledger.of_task(task).into_iter().any(Entry::stops);
    let is_begun = matches!(part.status, EffectStatus::Compensating | EffectStatus::Unknown);
    let undoes = part.undoes() || is_begun && part.intent.undo.is_some();
    undoes && ledger.owes(task) && goes_on()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fault::{EffectKind, Fault};
    use crate::id::{ChildPath, EffectKey};
    use crate::ledger::{Happened, Input, Intent, Record, Undo};

    /// An act of a task with this status, of which the key is returned that its tool is given.
    fn act(ledger: &mut Ledger, task: &str, kind: EffectKind, status: EffectStatus) -> String {
        let (tool, request) = (ChildPath::from("desk/tool"), Arc::<[u8]>::from(&b"7"[..]));
        let key = EffectKey::of(task, 0, 0, &tool, &request);
        let undo = Undo { tool: tool.clone(), request: Arc::clone(&request) };
        let undo = (kind == EffectKind::Compensable).then_some(undo);
        let (task, owner) = (Arc::from(task), "desk/agent".into());
        let intent = Intent { key, task, owner, step: 0, ordinal: 0, tool, kind, request, undo };
        ledger.apply(Record::Intent(intent, 0));
        ledger.apply(Record::Status(key, status));
        ledger.get(key).unwrap().idempotency_key()
    }

    /// How many acts of the task are told as kept, undone and unknown; and whether one stands or is open.
    fn told(ledger: &Ledger, task: &str) -> ((usize, usize, usize), bool) {
        let entries = ledger.of_task(task);
        let is_open = entries.iter().any(|entry| is_open_or_stands(ledger, entry));
        let told = told_of(ledger, entries);
        ((told.kept.len(), told.undone.len(), told.unknown.len()), is_open)
    }

    #[test]
    fn what_was_done_for_an_act_in_vain_is_told_however_deep_it_is() {
        use EffectKind::{Compensable, Idempotent, Irreversible};
        let failed = || EffectStatus::Failed(Fault::exhausted("its model is away"));
        let done = || EffectStatus::Confirmed(Happened::new(&b"1"[..]));
        let long = "k".repeat(200);
        for task in ["t", &long] {
            for vain in [failed(), EffectStatus::Rejected] {
                for (kind, status, expected) in [
                    (Irreversible, done(), ((1, 0, 1), true)),
                    (Irreversible, EffectStatus::Unknown, ((0, 0, 2), true)),
                    // As of its own acts: it may have done a part, and its tool has said that it failed.
                    (Irreversible, failed(), ((0, 0, 2), false)),
                    (Idempotent, failed(), ((0, 0, 0), false)),
                    (Irreversible, EffectStatus::Rejected, ((0, 0, 0), false)),
                    (Compensable, EffectStatus::Compensated, ((0, 0, 0), false)),
                ] {
                    let mut ledger = Ledger::default();
                    let call = act(&mut ledger, task, Idempotent, vain.clone());
                    let inner = act(&mut ledger, &call, Idempotent, vain.clone());
                    act(&mut ledger, &inner, kind, status.clone());
                    // The call within may be made again, and is told by its parts.
                    assert_eq!(told(&ledger, task), expected, "{kind:?} {status:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_about_to_be_undone_is_told_with_the_act_it_was_done_for_only() {
        let mut ledger = Ledger::default();
        let failed = EffectStatus::Failed(Fault::exhausted("its model is away"));
        let done = EffectStatus::Confirmed(Happened::new(&b"1"[..]));
        let call = act(&mut ledger, "t", EffectKind::Idempotent, failed);
        act(&mut ledger, &call, EffectKind::Compensable, done);
        assert_eq!(told(&ledger, "t"), ((1, 0, 1), true));
        ledger.on(Input::Owes(Arc::from(&*call), true));
        assert_eq!(told(&ledger, "t"), ((0, 0, 1), true));
        ledger.on(Input::Owes(Arc::from(&*call), false));
        assert_eq!(told(&ledger, "t"), ((1, 0, 1), true));
    }
}
