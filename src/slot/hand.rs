//! Durable requests in the hands of code that may not be repeated.
//!
//! *Invariant.* Before such code begins the store has said that it does; once it has ended, and nothing has
//! happened, that it has.

use std::convert::identity;

use super::{Ended, Job, Mail, Slot};
use crate::behavior::{Context, Place};
use crate::fault::{ExitCause, Fault};
use crate::journal;
use crate::port::Cut;
use crate::slot::worker::{Watched, Worker, watched};

/// What is heard while the store is waited for.
const HEARD: [Cut; 4] = [Cut::Kill, Cut::Stop, Cut::Timeout, Cut::Cancel];

impl<W: Worker> Slot<W> {
    /// Whether what is done here may not be done again after an end that says nothing.
    pub(super) fn acts(&self) -> bool {
        !self.spec.effect.is_replay_safe()
    }

    /// Whether it is written down when somebody begins with this request.
    pub(crate) fn hands_out(&self, mail: &Mail<W>) -> bool {
        self.acts() && self.keeps(mail)
    }

    /// Returns once the store says that somebody begins with this request.
    pub(super) async fn note_begun(
        &self,
        job: &Job<W>,
        context: &Context,
    ) -> Result<(), Ended<W::Reply>> {
        let (Some(journal), Some(key)) = (self.hub.journal.get(), job.mail.key()) else {
            return Ok(());
        };
        let Some(recording) = self.recording(&job.mail) else { return Ok(()) };
        let Some(written) = journal.hands_out(key, recording.durability) else { return Ok(()) };
        let refused = |fault: Fault| {
            let place = job.place.as_deref().cloned().unwrap_or(Place::START);
            Ended::Fault(Box::new(fault.not_applied()), place, false)
        };
        // Whatever ends it here has it handed back: nobody has begun.
        Err(match watched(|| written, identity, &context.flight, &HEARD).await {
            Watched::Done(Ok(_)) => return Ok(()),
            Watched::Done(Err(error)) => {
                journal.note_failure(&error);
                refused(journal::failed(&error))
            }
            Watched::Cut(Cut::Timeout) => refused(journal::late(self.rules.attempt_timeout)),
            Watched::Cut(cut) => Ended::Cut(cut, false),
            Watched::Panicked(text) => Ended::Crash(Box::new(ExitCause::Panic(text)), false),
        })
    }

    /// An attempt has ended: if it shows that nothing has happened, the request may be begun with again.
    pub(super) fn hand_back(&self, job: &Job<W>, ended: &Ended<W::Reply>) {
        if !self.acts() {
            return;
        }
        let (Some(journal), Some(key)) = (self.hub.journal.get(), job.mail.key()) else { return };
        let untouched = match ended {
            // By its type it is not done again even then.
            Ended::Fault(fault, _, tainted) => {
                !tainted && !self.spec.once && fault.is_replay_safe(self.spec.effect)
            }
            // Between two steps, or before the first.
            Ended::Cut(_, tainted) => !tainted,
            Ended::Crash(..) | Ended::Reply(..) => false,
        };
        if untouched && self.is_stored_so_far() {
            journal.hands_back(key);
        }
    }

    /// Whether the next process would go on with the request in hand where this one does, and not before a
    /// step that has acted.
    fn is_stored_so_far(&self) -> bool {
        let desk = self.desk();
        let mid = desk.saved.as_ref().and_then(|saved| saved.mid.as_ref());
        mid.is_none_or(|mid| mid.stored)
    }
}
