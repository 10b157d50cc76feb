//! Who may have a request, and in which order they are asked.
//!
//! *Invariant.* Waiting changes nothing: whom the class, the allow-list or the effect of the last
//! failure shuts out is shut out for as long as the request waits.

use std::sync::Arc;

use super::{Errand, Group};
use crate::fault::{Class, EffectKind};
use crate::moment::Moment;
use crate::policy::eligibility;
use crate::port::{Envelope, Home};

impl<Q: Send + Sync + 'static, R: Send + 'static> Group<Q, R> {
    /// The place of `to` among those that a request which failed at `from` may go to; `None` if it may
    /// not.
    pub(super) fn place(&self, from: usize, to: usize) -> Option<u32> {
        let place = match &self.seats[from].allow {
            None => (to > from).then_some(to),
            Some(list) => list.iter().position(|allowed| *allowed == to),
        };
        place.and_then(|place| u32::try_from(place).ok())
    }

    /// What this request is to those it is offered to, and the members that may have it, in order.
    pub(super) fn order(&self, mail: &Arc<Envelope<Q, R>>, now: Moment) -> (Errand, Vec<usize>) {
        let (history, failed) = {
            let Some(book) = mail.book() else {
                return (Errand::New, self.admission.clone());
            };
            let failed = book.trail.iter().rev().find_map(|attempt| {
                let at = self.seats.iter().position(|s| *s.member.path() == attempt.child)?;
                let kind = self.seats[at].member.effect_kind();
                let kind = if book.tainted { EffectKind::Irreversible } else { kind };
                let safe = book.fault.as_ref().is_none_or(|fault| fault.is_replay_safe(kind));
                Some((at, safe))
            });
            (book.history.clone(), failed)
        };
        let Some((failed, safe)) = failed else {
            // It was interrupted, but has not failed.
            let untried = self.admission.iter().copied().filter(|index| !history.has_tried(*index));
            return (Errand::Moved, untried.collect());
        };
        let class = history.last().unwrap_or(Class::Internal);
        let mut fit = self.candidates(&history, failed, now);
        fit.retain(|member| {
            !member.tried
                && eligibility::fits(class, self.kind, member).is_ok()
                && (safe || member.default_value || member.human)
        });
        fit.sort_by_key(|member| (member.default_value, member.human, member.priority));
        (Errand::Substitute, fit.into_iter().map(|member| member.index).collect())
    }
}
