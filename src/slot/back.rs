//! Going back: the state of a request in hand returns to where it began, and within a transaction the world does.
//!
//! *Invariant.* A rollback that does not come to its end leaves the child where the request began or where it
//! stood, never with a state of the one and a record of the other.

use std::convert::identity;
use std::pin::pin;
use std::sync::Arc;

use super::keep::{NotBack, Unkept, Writing};
use super::state::{StoredInHand, Undoing};
use super::{Job, Slot};
use crate::behavior::{Context, Undone};
use crate::checkpoint::{Batch, Snapshot};
use crate::event::Event;
use crate::fault::Fault;
use crate::journal::Handed;
use crate::port::Cut;
use crate::slot::worker::{Worker, dropped, watched};

impl<W: Worker> Slot<W> {
    /// Brings the state back to where the request in hand began, in a newly made life; and within a transaction, or where
    /// it `undoes` that for one further above, the world: what the request has done to it is undone, the latest first.
    pub(crate) async fn go_back(
        &self,
        job: &Job<W>,
        context: &Context,
        undoes: bool,
    ) -> Result<(W::Life, Arc<Undone>), (Option<W::Life>, NotBack)> {
        let scope = self.rules.scope;
        let undoes = undoes || self.rules.in_transaction;
        // Its own rollback does by itself what is due within a transaction.
        let due = if undoes && !self.rules.in_transaction { Undoing::Due } else { Undoing::No };
        let late = || {
            let late = format!("the rollback took longer than {:?}", scope.limit());
            NotBack::from(Unkept::failed(Fault::timeout(late).with_code("rollback")))
        };
        let limit = self.hub.now() + scope.limit();
        // Most are there before anybody has to watch the time.
        let mut limit = pin!(async { self.hub.clock.sleep_until(limit).await });
        let (life, base, to) = tokio::select! {
            biased;
            life = self.life_between(job) => life.map_err(|why| (None, why.into()))?,
            () = &mut limit => return Err((None, late())),
        };
        // From here on it is this life that the child goes on with, however the rest ends.
        let left = self.desk().saved.as_mut().and_then(|saved| saved.mid.take());
        let _ = dropped(left);
        // It stands where its request began. Whoever has it stand still may have whoever undoes do so as well.
        self.says_back(job, due);
        self.stands_between(job.ticket);
        let work = async {
            if let Some(journal) = self.journal() {
                // The process may end half-way through the undos: the next one goes on with them.
                let (key, round) = (context.task(), job.mail.round());
                let in_hand = StoredInHand { key, step: 0, back: true, undo: due, round };
                let writing =
                    self.write_in_hand(journal, base.clone(), (job, context), &in_hand)?;
                self.kept(Some(writing), job, context).await?;
            } else if let (Some(journal), Some(recording), Some(key)) =
                (self.hub.journal.get(), self.recording(&job.mail), job.mail.key())
            {
                let counted = journal.goes_back(key, None, (Batch::new(), recording.durability));
                let writing = Writing::new(Handed::plain(counted), None, 0);
                self.kept(Some(writing), job, context).await?;
            }
            if !undoes {
                self.give_up(0, context).await?;
                self.says_back(job, Undoing::Done);
                // Its key need not be written where nobody has done anything.
                let standing = || self.hub.effects.standing(&context.key());
                let is_used = self.hub.effects.is_used();
                return Ok::<_, NotBack>(is_used.then(standing).unwrap_or_default());
            }
            let undone = self.hub.effects.compensate(&context.key()).await;
            self.all_undone(context).await?;
            self.give_up(0, context).await?;
            if undone != Undone::default() {
                // What it does from here on is not undone, should the process end.
                self.keep_undone(base, (0, Undoing::Done), job, context).await?;
            }
            self.says_back(job, Undoing::Done);
            Ok(undone)
        };
        let done = tokio::select! {
            biased;
            done = work => done,
            () = limit => Err(late()),
        };
        let undone = match done {
            Ok(undone) => Undone { to, ..undone },
            Err(why) => return Err((Some(life), why)),
        };
        self.hub.emit(Event::RolledBack {
            child: self.path.clone(),
            request: job.mail.id,
            scope,
            kept: undone.kept.len(),
            undone: undone.undone.len(),
            unknown: undone.unknown.len(),
        });
        Ok((life, Arc::new(undone)))
    }

    /// What a line that is drawn before the first step says of the request in hand.
    fn says_back(&self, job: &Job<W>, says: Undoing) {
        let mut desk = self.desk();
        if let Some(out) = desk.out.iter_mut().find(|out| out.ticket == job.ticket) {
            out.goes_back = Some(says);
        }
    }

    /// Whether a rollback that was told this has brought back all that it was to: within a transaction the world, too.
    pub(crate) fn has_undone(&self, told: &Undone) -> bool {
        !self.rules.in_transaction || told.unknown.is_empty()
    }

    /// Goes on with a rollback to this step of the request that another process has not come to the end of:
    /// what was done from there on is undone.
    pub(crate) async fn undo_from(
        &self,
        step: u64,
        job: &Job<W>,
        context: &Context,
    ) -> Result<Arc<Undone>, NotBack> {
        let scope = self.rules.scope;
        let limit = self.hub.clock.sleep_until(self.hub.now() + scope.limit());
        self.stands_between(job.ticket);
        let work = async {
            let undone = self.hub.effects.compensate_from(&context.key(), step).await;
            self.all_undone(context).await?;
            self.give_up(step, context).await?;
            let mid = {
                let mut desk = self.desk();
                let mid = desk.saved.as_mut().and_then(|saved| saved.mid.as_mut());
                mid.map(|mid| {
                    mid.undo = mid.undone();
                    (mid.snapshot.clone(), mid.undo)
                })
            };
            if let Some((mid, undo)) = mid {
                self.keep_undone(mid, (step, undo), job, context).await?;
            }
            Ok(Arc::new(undone))
        };
        tokio::select! {
            biased;
            done = work => done,
            () = limit => {
                let late = format!("the rollback took longer than {:?}", scope.limit());
                Err(Unkept::failed(Fault::timeout(late).with_code("rollback")).into())
            }
        }
    }

    /// What others have answered the request in hand at this step and later is asked anew.
    async fn give_up(&self, step: u64, context: &Context) -> Result<(), Unkept> {
        if self.hub.journal.get().is_none() {
            return Ok(());
        }
        self.hub.effects.give_up(&context.key(), step).await.map_err(Unkept::failed)
    }

    /// Fails when a tool was not asked to undo what it is to undo: the next process goes on with that, when this
    /// one is about to end.
    async fn all_undone(&self, context: &Context) -> Result<(), NotBack> {
        if !self.hub.effects.owes(&context.key()) {
            return Ok(());
        }
        if self.hub.is_shutting_down() {
            let heard = &[Cut::Kill, Cut::Stop];
            watched(std::future::pending::<()>, identity, &context.flight, heard).await;
            return Err(NotBack::Stopped);
        }
        let why = "whoever is to undo something was away or full";
        Err(Unkept::failed(Fault::internal(why).with_code("rollback")).into())
    }

    /// All is undone that this step and those after it have done: a process that ends later goes on from
    /// there, and undoes nothing of what was done since.
    async fn keep_undone(
        &self,
        snapshot: Snapshot,
        (step, undo): (u64, Undoing),
        job: &Job<W>,
        context: &Context,
    ) -> Result<(), Unkept> {
        let Some(journal) = self.journal() else { return Ok(()) };
        let (key, round) = (context.task(), job.mail.round());
        let in_hand = StoredInHand { key, step, back: false, undo, round };
        let writing = self.write_in_hand(journal, snapshot, (job, context), &in_hand)?;
        self.kept(Some(writing), job, context).await
    }
}
