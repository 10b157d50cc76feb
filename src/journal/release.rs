//! A request that was set aside and is released, until somebody has taken it.
//!
//! *Invariant.* One that nobody has taken is set aside again, with what was asked; and where its child has ended for
//! good meanwhile, it is not for another of its path.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::line::Line;
use super::{Aside, Handed, Journal, append};
use crate::checkpoint::{Batch, Commit, Durability, Receipt};

/// See the [module](self). It ends when this is dropped.
pub(crate) struct Releasing {
    journal: Arc<Journal>,
    aside: Aside,
    serial: u64,
}

impl Releasing {
    /// From before it is open again; `None` when there is none with this key.
    pub(crate) fn of(journal: &Arc<Journal>, key: &str) -> Option<Self> {
        let mut state = journal.state.lock();
        let aside = state.aside(key)?.clone();
        let serial = state.number();
        state.children.releasing.insert(serial, (aside.open.child.clone(), false));
        drop(state);
        Some(Self { journal: Arc::clone(journal), aside, serial })
    }

    /// Whether its child is gone, so that it is for nobody.
    pub(crate) const fn is_deleted(&self) -> bool {
        self.aside.deleted
    }

    /// Nobody has taken it: it is set aside as it was.
    pub(crate) fn sets_back(self) -> Handed {
        let journal = &self.journal;
        let mut aside = self.aside.clone();
        let mut state = journal.state.lock();
        if !state.is_running(&aside.open.key) {
            return Handed::plain(Commit::ready(Ok(Receipt::default())));
        }
        let gone = state.children.releasing.get(&self.serial).is_some_and(|(_, gone)| *gone);
        aside.deleted |= gone;
        // No two times under its key have the same number.
        aside.open.round = aside.open.round.wrapping_add(1);
        // With what was asked: whoever reads that its child is gone ends what is open.
        let commit = match append(Batch::new(), &Line::from(&aside.open)) {
            Ok(batch) => journal.commit(batch, &aside.line(), Durability::Sync),
            Err(error) => Commit::ready(Err(error)),
        };
        journal.written.fetch_add(1, Ordering::Relaxed);
        let token = state.set_back(aside);
        journal.handed(commit, token)
    }
}

impl Drop for Releasing {
    fn drop(&mut self) {
        self.journal.state.lock().children.releasing.remove(&self.serial);
    }
}
