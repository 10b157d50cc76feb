//! Lines that a supervisor draws by itself, every so often.
//!
//! *Invariant.* Nobody stands still for longer than the patience, and no line says again what one before it
//! says, unless that one is too old to be returned to before the next is due; nor what was returned to: that
//! would be returned to again, and lead to the same end.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::{Draw, Place, RollbackError};
use crate::checkpoint::Now;
use crate::event::Event;
use crate::hub::Timed;
use crate::id::CheckpointId;
use crate::moment::Moment;
use crate::slot::Kept;
use crate::supervisor::{Registry, Supervisor};

/// The longest that children stand still for it.
const PATIENCE: Duration = Duration::from_secs(1);

/// See the [module](self).
pub(crate) struct Lines {
    me: Weak<Self>,
    node: Weak<Supervisor>,
    period: Duration,
}

impl Lines {
    /// Draws the first lines of these supervisors, where their specs want it and there is a store, and has
    /// the others follow. They are drawn for as long as what is returned is kept.
    pub(crate) async fn begin(registry: &Registry, root: &Arc<Supervisor>) -> Vec<Arc<Self>> {
        if root.hub.journal.get().is_none() {
            return Vec::new();
        }
        let mut nodes = registry.supervisors_below(&root.path);
        nodes.push(Arc::clone(root));
        nodes.sort_by(|one, other| one.path.cmp(&other.path));
        let mut all = Vec::new();
        for node in nodes {
            let Some(period) = node.spec.lines else { continue };
            let lines = Arc::new_cyclic(|me| Self {
                me: Weak::clone(me),
                node: Arc::downgrade(&node),
                period,
            });
            lines.draw().await;
            all.push(lines);
        }
        all
    }

    async fn draw(&self) {
        let Some(node) = self.node.upgrade() else { return };
        if node.is_ended().is_none()
            && let Err(error) = self.draw_of(Place::of(&node)).await
        {
            let (supervisor, reason) = (node.path.clone(), error.to_string());
            node.hub.emit(Event::LineMissed { supervisor, reason });
        }
        let me: Weak<Self> = Weak::clone(&self.me);
        node.hub.arm(node.hub.now() + self.period, me);
    }

    async fn draw_of(&self, place: Place) -> Result<(), RollbackError> {
        if !is_new(&place, self.period)? {
            return Ok(());
        }
        let patience = PATIENCE.min(self.period / 10);
        place.within(patience, Draw).await.map(drop)
    }
}

/// Whether a line would say what none says that can still be returned to when the next is due.
fn is_new(place: &Place, period: Duration) -> Result<bool, RollbackError> {
    let journal = place.journal()?;
    let now = Now::read(&*place.node.hub.clock);
    let is_old = |id: CheckpointId| match journal.store.find(id) {
        Ok(listed) => {
            let checkpoint = listed.checkpoint;
            checkpoint.age(now) + period + PATIENCE > checkpoint.validity()
        }
        Err(_) => true,
    };
    let lines = journal.store.lines(place.scope(), place.at())?;
    let members = lines.first().into_iter().flat_map(|line| line.members.iter());
    let newest: BTreeMap<_, _> = members.cloned().collect();
    Ok(place.children()?.iter().any(|child| match child.kept() {
        Kept::Nothing => false,
        Kept::At(id) => {
            (newest.get(child.path()) != Some(&id) || is_old(id)) && !journal.is_used_up(id)
        }
        Kept::Behind => true,
    }))
}

impl Timed for Lines {
    fn on_time(&self, _: Moment) {
        let (Some(me), Some(node)) = (self.me.upgrade(), self.node.upgrade()) else { return };
        if !node.hub.is_shutting_down() {
            node.hub.runtime.spawn(async move { me.draw().await });
        }
    }
}
