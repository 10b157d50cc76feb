//! What takes time: stopping and starting children, in a task of its own.
//!
//! *Invariant.* A run that nobody called off is reported, whatever becomes of it: nothing else starts its
//! children again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Msg;
use super::line::Line;
use super::shell::{Running, Shell};
use crate::family::{Key, RunId};
use crate::fault::ExitCause;
use crate::id::Incarnation;
use crate::moment::Moment;
use crate::slot::{Ending, Link, Managed, guarded};

/// A run, with everything it touches.
struct Run {
    stop: Vec<(Arc<dyn Managed>, Ending)>,
    parallel: bool,
    start: Vec<(Arc<dyn Managed>, Incarnation, Link)>,
    /// What has to be cleared away first.
    clearing: Vec<watch::Receiver<()>>,
    cancelled: Arc<AtomicBool>,
}

impl Shell {
    pub(super) fn start_run(
        &mut self,
        me: &Line,
        run: RunId,
        stop: Vec<(Key, bool)>,
        (parallel, until): (bool, Option<Moment>),
        start: Vec<(Key, Incarnation)>,
    ) {
        let Some(office) = self.office.clone() else { return };
        self.clearing.retain(|_, clearing| clearing.has_changed().is_ok());
        let keys = stop.iter().map(|(key, _)| key).chain(start.iter().map(|(key, _)| key));
        let clearing = keys.filter_map(|key| self.clearing.get(key).cloned()).collect();
        // A life that is asked to stop for another one keeps what waits in its children.
        let keep = self.node.desk.lock().stopping == Some(true);
        let stop = stop
            .into_iter()
            .filter_map(|(key, restart)| {
                let ward = self.wards.get(&key)?;
                let ending = Ending {
                    shutdown: ward.shutdown,
                    restart: (restart || keep) && !ward.dynamic_stop(restart),
                    cause: ExitCause::Stopped,
                    until,
                };
                Some((Arc::clone(&ward.managed), ending))
            })
            .collect();
        let start: Vec<_> = start
            .into_iter()
            .filter_map(|(key, life)| {
                let ward = self.wards.get(&key)?;
                let link = Link { boss: Arc::clone(&office), key };
                Some((Arc::clone(&ward.managed), life, link))
            })
            .collect();
        let cancelled = Arc::new(AtomicBool::new(false));
        let starting = start.iter().map(|(child, life, _)| (Arc::clone(child), *life)).collect();
        let work = Run { stop, parallel, start, clearing, cancelled: Arc::clone(&cancelled) };
        let me = me.clone();
        let task = self.node.hub.runtime.spawn(async move {
            if let Some(result) = work.carry_out().await {
                me.say(Msg::RunDone { run, result });
            }
        });
        let running = Running { cancelled, task: task.abort_handle(), start: starting };
        self.runs.insert(run, running);
    }
}

impl super::Ward {
    /// A dynamic child that is stopped with its supervisor has no next life to wait for.
    fn dynamic_stop(&self, restart: bool) -> bool {
        self.dynamic && !restart
    }
}

impl Run {
    /// `None` when it was cancelled.
    async fn carry_out(self) -> Option<Result<(), (Key, ExitCause)>> {
        for mut clearing in self.clearing {
            // Ends with the task that clears.
            while clearing.changed().await.is_ok() {}
        }
        if self.parallel {
            // They end with this run, if it is called off.
            let mut tasks = JoinSet::new();
            for (child, ending) in self.stop {
                tasks.spawn(child.end(ending));
            }
            // A stop that panicked has ended, too.
            while tasks.join_next().await.is_some() {}
        } else {
            for (child, ending) in self.stop {
                if self.cancelled.load(Ordering::Acquire) {
                    return None;
                }
                // As one that panicked in a task of its own: it has ended.
                let _ = guarded(|| child.end(ending)).await;
            }
        }
        for (child, life, link) in self.start {
            if self.cancelled.load(Ordering::Acquire) {
                return None;
            }
            let key = link.key;
            let begun = guarded(|| child.begin(life, link)).await;
            if let Err(cause) = begun.unwrap_or_else(|text| Err(ExitCause::StartFailed(text))) {
                return Some(Err((key, cause)));
            }
        }
        Some(Ok(()))
    }
}
