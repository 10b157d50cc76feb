//! Undos that an earlier process has left, side by side.
//!
//! *Invariant.* What one task has done is undone in its order; and nobody waits for a tool that is not asked for
//! anything of theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::Effects;
use crate::id::ChildPath;
use crate::ledger::EffectKey;

/// Undoes what a task has done.
pub(crate) type Unwind = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How many tasks that have acted with the same tools are undone at the same time: a tool has its limits.
const BESIDE: usize = 16;

impl Effects {
    /// Goes on with undos that were begun, of these epochs, and undoes these tasks, in tasks of their own.
    pub(crate) fn undo_beside(
        self: &Arc<Self>,
        undoing: Vec<(EffectKey, u32)>,
        owing: Vec<(Arc<str>, Unwind)>,
        runtime: &Handle,
    ) {
        let mut begun = BTreeMap::<Arc<str>, Vec<(EffectKey, u32)>>::new();
        for (key, epoch) in undoing {
            let task = self.ledger.lock().get(key).map(|entry| Arc::clone(&entry.intent.task));
            if let Some(task) = task {
                begun.entry(task).or_default().push((key, epoch));
            }
        }
        // The latest first, here too.
        let begun = begun.into_iter().map(|(task, mut acts)| {
            acts.reverse();
            let effects = Arc::clone(self);
            let goes_on: Unwind = Box::pin(async move {
                for (key, epoch) in acts {
                    // The life of a request that is open goes on with it, too, and may act once more meanwhile.
                    effects.undo(key, Some(epoch)).await;
                    // Of a request that is over, what was left before it is undone, too, if a person has spoken.
                    effects.spoken_on(key);
                }
            });
            (task, goes_on)
        });
        let mut lanes = BTreeMap::<BTreeSet<ChildPath>, Vec<Unwind>>::new();
        for (task, unwinds) in begun.chain(owing) {
            lanes.entry(self.undoers_of(&task)).or_default().push(unwinds);
        }
        for lane in lanes.into_values() {
            let about_to = self.about_to_undo();
            runtime.spawn(async move {
                let _about_to = about_to;
                let mut beside = JoinSet::new();
                for unwinds in lane {
                    if beside.len() >= BESIDE {
                        beside.join_next().await;
                    }
                    beside.spawn(unwinds);
                }
                while beside.join_next().await.is_some() {}
            });
        }
    }

    /// Who is asked to undo what this task has done.
    fn undoers_of(&self, task: &str) -> BTreeSet<ChildPath> {
        let ledger = self.ledger.lock();
        let undos = ledger.of_task(task).into_iter().filter_map(|it| it.intent.undo.as_ref());
        undos.map(|undo| undo.tool.clone()).collect()
    }
}
