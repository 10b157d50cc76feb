//! What a child whose state went back to before requests that were answered has to do again.
//!
//! *Invariant.* The state and what is known to be missing in it are written together: a process that ends in
//! between replays from where the state stands.

use std::sync::Arc;

use super::state::{Saved, StoredInHand, Undoing};
use super::{Job, Look, Mail, Slot, Unkept, Writing};
use crate::behavior::{Context, Place, Turn};
use crate::checkpoint::{Batch, Snapshot};
use crate::event::Event;
use crate::id::{ChildPath, Delivery};
use crate::journal::{self, Handed, Journal};
use crate::mailbox::Ticket;
use crate::moment::Moment;
use crate::port::Flight;
use crate::slot::worker::Worker;

/// A request that was answered, and whose work is not in the state.
pub(crate) struct Replay<W: Worker> {
    pub(crate) key: Arc<str>,
    /// After how many steps of the child its work was in the state.
    pub(crate) step: u64,
    /// What was asked; or why it cannot be handled again.
    pub(crate) request: Result<Box<W::Request>, String>,
}

/// What became of the replays of a child.
pub(crate) struct Replayed {
    /// The requests whose work is in the state again.
    pub(crate) done: Vec<Arc<str>>,
    /// The requests whose work is not.
    pub(crate) lost: Vec<Arc<str>>,
    /// The state, after so many steps.
    pub(crate) state: Option<(Snapshot, u64)>,
}

/// Requests that were answered, by child and idempotency key.
pub(crate) type Answered = Vec<(ChildPath, Arc<str>)>;

/// Which of the requests whose work is missing in states are replayed, and which are lost.
pub(crate) fn told_apart<'a>(
    journal: &Journal,
    missing: Answered,
    child: impl Fn(&ChildPath) -> Option<&'a dyn Look>,
) -> (Answered, Answered) {
    missing.into_iter().partition(|(path, key)| {
        let replays = child(path).is_some_and(|child| {
            let able = child.spec().can_replay();
            if able {
                child.fall_behind();
            }
            able
        });
        replays && journal.has_past(key)
    })
}

/// A request that begins again where it stands: whether it goes back to there, or has been returned there and the
/// next process is to know it. One that has spent something is to be known, also where it has nothing to be told.
fn begins<W: Worker>(job: &Job<W>) -> Option<(bool, Undoing)> {
    if job.place.as_ref().is_some_and(|place| place.back) {
        return Some((true, Undoing::No));
    }
    is_known::<W>(job.place.as_deref(), &job.mail).then_some((false, Undoing::Done))
}

/// Whether the next process is to know of a request that goes on here, and has not begun: it has been returned, or has
/// spent something.
pub(super) fn is_known<W: Worker>(place: Option<&Place>, mail: &Mail<W>) -> bool {
    let is_first = |place: &Place| !place.back && matches!(place.turn, Turn::First);
    place.is_some_and(Place::is_returned) || place.is_none_or(is_first) && mail.has_spent()
}

impl<W: Worker> Slot<W> {
    /// What is to be replayed, in its order. Nothing in the middle of a request: its work comes last.
    pub(crate) fn replays(&self) -> Vec<Replay<W>> {
        let Some(journal) = self.journal() else { return Vec::new() };
        let step = {
            let desk = self.desk();
            match &desk.saved {
                Some(saved) if saved.is_between() => saved.steps,
                Some(_) => return Vec::new(),
                None => 0,
            }
        };
        let read = |text: Option<String>| {
            if !self.spec.can_replay() {
                return Err("the child does something to the world by itself".to_owned());
            }
            let text = text.ok_or("it is not kept any more, or was replayed before")?;
            let codec = self.spec.codec.ok_or("it cannot be read")?;
            let request = (codec.read_request)(text.as_bytes())?;
            request.downcast::<W::Request>().map_err(|_| "it is of another type".to_owned())
        };
        // One that is still in hand, since its answer was on its way, is done again itself.
        let open = self.tasks();
        let is_open = |key: &str| open.iter().any(|(_, task, _)| task == key);
        let due = journal.replays(&self.path, step).into_iter().filter(|(_, key, _)| !is_open(key));
        due.map(|(step, key, text)| Replay { key, step, request: read(text) }).collect()
    }

    /// The context in which this request is replayed.
    pub(crate) fn replay_context(
        self: &Arc<Self>,
        job: &Job<W>,
        flight: &Arc<Flight>,
        key: &Arc<str>,
    ) -> Context {
        Context {
            // Nobody takes it for the request that waits, or for the one before it.
            request: self.hub.next_id(),
            attempt: 1,
            delivery: Delivery(1),
            deadline: Moment::NEVER,
            key: Some(Arc::clone(key)),
            feedback: None,
            purse: None,
            soft: None,
            hedge: false,
            replay: true,
            ..self.context(job, Arc::clone(flight))
        }
    }

    /// A step of a replay begins, or the first of a request that something came before: whoever waits for the
    /// child to stand still need not wait for it.
    pub(crate) fn stands_between(&self, ticket: Ticket) {
        let mut desk = self.desk();
        if let Some(out) = desk.out.iter_mut().find(|out| out.ticket == ticket) {
            out.between = true;
        }
        desk.told_still();
    }

    /// Writes what the replays have made of the state.
    pub(crate) async fn keep_replayed(
        &self,
        replayed: Replayed,
        job: &Job<W>,
        context: &Context,
    ) -> Result<(), Unkept> {
        let Replayed { done, lost, state } = replayed;
        self.desk().counts_still(job)?;
        let mut tidied = None;
        if let Some(journal) = self.journal()
            && (state.is_some() || !lost.is_empty())
        {
            let mut batch = Batch::new();
            let mut checkpoint = None;
            if let Some((snapshot, step)) = &state {
                let more = done.len() as u64;
                let (mut draft, _) = self.draft(snapshot.clone(), job.life, more);
                draft = draft.at(job.life, *step);
                if let Some((back, undo)) = begins(job) {
                    // The request that waits begins here again, also in the next process.
                    let (key, round) = (context.task(), job.mail.round());
                    let in_hand = StoredInHand { key, step: 0, back, undo, round };
                    let bytes = serde_json::to_vec(&in_hand);
                    draft = draft
                        .budgets(self.spent(job, context))
                        .envelope(bytes.map_err(|error| Unkept::failed(journal::failed(&error)))?);
                }
                let made = super::keep::seal(draft)?;
                checkpoint = Some(Arc::clone(made.checkpoint()));
                batch = self.let_base_go(batch.sealed(made));
            }
            let (commit, so_often) = journal.replayed(&lost, &done, batch);
            tidied = Some(so_often);
            let handed = Handed::plain(commit);
            let step = state.as_ref().map_or(0, |(_, step)| *step);
            self.kept(Some(Writing::new(handed, checkpoint, step)), job, context).await?;
        }
        let mut desk = self.desk();
        // It is the child's state, whatever has become of the request that waits; but where another life has begun
        // meanwhile, that has begun without it, and has it all to do again.
        let standing = desk.counts_still(job);
        if matches!(standing, Err(Unkept::Ended(_))) {
            return standing.map(drop);
        }
        desk.rare().behind = false;
        if let Some((snapshot, step)) = state {
            let saved = desk.saved.get_or_insert_with(Saved::new);
            saved.steps = step;
            saved.answered += done.len() as u64;
            // A request that begins again does so behind what was replayed.
            let again = saved.mid.as_mut().filter(|mid| mid.is_beginning()).map(|mid| {
                mid.stored = true;
                std::mem::replace(&mut mid.snapshot, snapshot.clone())
            });
            let before = saved.base.replace(snapshot);
            desk.discard((before, again));
        }
        if let (Some(journal), Some(tidied)) = (self.journal(), tidied) {
            journal.note_replayed(&lost, &done, tidied);
        }
        drop(desk);
        if !done.is_empty() || !lost.is_empty() {
            let (child, requests, count) = (self.path.clone(), done.len(), lost.len());
            if let Some(journal) = self.journal() {
                journal.note_lost(&child, lost);
            }
            self.hub.emit(Event::Replayed { child, requests, lost: count });
        }
        standing.map(drop)
    }
}
