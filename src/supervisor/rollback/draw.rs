//! Drawing a line: what many children have become, agreeing with each other, in one commit.
//!
//! *Invariant.* A line names every child that is there when it is stored and has something to go back to, or it is
//! not drawn.

use std::sync::Arc;

use super::progress::Phase;
use super::{Entry, Place, RollbackError, Work};
use crate::checkpoint::{Batch, Durability, LineDraft, Now, Sealed, Store};
use crate::error::StoreError;
use crate::event::Event;
use crate::id::LineId;
use crate::mirror::LineView;
use crate::slot::{Held, Look};

pub(super) struct Draw;

impl Work<LineId> for Draw {
    fn run(
        self,
        place: Place,
        phase: Phase,
    ) -> impl Future<Output = Result<LineId, RollbackError>> + Send {
        place.draw_now(phase)
    }
}

impl Place {
    async fn draw_now(self, phase: Phase) -> Result<LineId, RollbackError> {
        let store = self.store()?;
        phase.set("waiting for another rollback");
        let _turn = self.registry.rollbacks.turn.lock().await;
        let children = self.children()?;
        phase.set("waiting for the children to stand still");
        let held = Held::new(children.clone());
        held.still().await;
        phase.set("writing what they have become");
        let mut children = children;
        loop {
            let count = children.len();
            match self.write_line(&*store, &mut children).await {
                Err(_) if children.is_empty() => {
                    return Err(RollbackError::NoState(self.at().clone()));
                }
                Err(_) if children.len() < count => {}
                done => return done,
            }
        }
    }

    /// Stores what they have become. Who was deleted since it was found goes from `children`: its states have gone
    /// with it, and what goes on from them is refused, with all the others.
    async fn write_line(
        &self,
        store: &dyn Store,
        children: &mut Vec<Arc<dyn Look>>,
    ) -> Result<LineId, RollbackError> {
        let scope = self.scope();
        let now = Now::read(&*self.node.hub.clock);
        let mut draft = LineDraft::new(scope, self.at().clone(), now);
        let mut batch = Batch::new();
        let mut members = Vec::with_capacity(children.len());
        for child in children.iter() {
            if let Some(sealed) = child.capture(scope, None).map_err(RollbackError::Store)? {
                draft = draft.member(sealed.checkpoint());
                batch = batch.checkpoint(&sealed);
                members.push((Arc::clone(child), sealed));
            }
        }
        for (stream, next) in store.streams()? {
            draft = draft.journal(stream, next);
        }
        let line = draft.draw().map_err(RollbackError::Store)?;
        let id = line.id;
        // Before anybody can find it.
        self.registry.rollbacks.note_drawn(id, now.moment);
        if let Err(refused) = store.commit(batch.line(line), Durability::Sync).await {
            let count = members.len();
            self.forget_gone(store, &mut members);
            if members.len() < count {
                *children = members.into_iter().map(|(child, _)| child).collect();
            }
            return Err(refused.into());
        }
        for (child, sealed) in &members {
            child.captured(sealed);
        }
        let roster = self.node.roster();
        roster.publish_line(LineView::new(id, members.len()), now.moment);
        self.node.hub.emit(Event::LineDrawn {
            supervisor: self.at().clone(),
            line: id,
            scope,
            children: members.len(),
        });
        Ok(id)
    }

    /// Forgets who was deleted since it was asked what it has become: what it goes on from has gone with it. Of a
    /// child that is there, what is missing is missed.
    pub(super) fn forget_gone(
        &self,
        store: &dyn Store,
        members: &mut Vec<(Arc<dyn Look>, Sealed)>,
    ) {
        let is_there = |child: &Arc<dyn Look>| match self.registry.get(child.path()) {
            Some(Entry::Child { slot, .. }) => Arc::ptr_eq(&slot, child),
            _ => false,
        };
        members.retain(|(child, sealed)| {
            let parent = sealed.checkpoint().lineage.parent;
            let is_lost = |parent| matches!(store.find(parent), Err(StoreError::NotFound(_)));
            is_there(child) || !parent.is_some_and(is_lost)
        });
    }
}
