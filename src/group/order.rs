//! Who may have a request, and in which order they are asked.
//!
//! *Invariant.* Waiting changes nothing: whom the class, the allow-list or the effect of the last
//! failure shuts out is shut out for as long as the request waits.

use std::sync::Arc;

use super::{Errand, Group};
use crate::fate::Ended;
use crate::fault::{Class, EffectKind};
use crate::moment::Moment;
use crate::policy::eligibility::{self, Role};
use crate::port::{Envelope, Home};

/// The persons that come before all others in an order: whoever stands behind them is asked by their leave only, which
/// they give by passing the request on.
pub(super) struct Persons {
    /// All so far were persons.
    lead: bool,
    /// One of them was asked, and could not be.
    closed: bool,
}

impl Persons {
    pub(super) const fn new(lead: bool) -> Self {
        Self { lead, closed: false }
    }

    /// Whether the next in the order, of this role, may be asked. A default value does nothing.
    pub(super) fn let_pass(&mut self, role: Role) -> bool {
        if self.closed {
            return role == Role::Default;
        }
        self.lead &= role == Role::Human;
        self.closed = self.lead;
        true
    }
}

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

    /// What this request is to those it is offered to, and the members that may have it, in order; and whether those
    /// behind a person have it by the person's leave only.
    pub(super) fn order(
        &self,
        mail: &Arc<Envelope<Q, R>>,
        now: Moment,
    ) -> (Errand, (Vec<usize>, bool)) {
        let (history, failed, heard) = {
            let Some(book) = mail.book() else {
                return (Errand::New, (self.admission.clone(), true));
            };
            let failed = book.trail.iter().rev().find_map(|attempt| {
                let at = self.seats.iter().position(|s| *s.member.path() == attempt.child)?;
                let kind = self.seats[at].member.effect_kind();
                let kind = if book.tainted { EffectKind::Irreversible } else { kind };
                let safe = book.fault.as_ref().is_none_or(|fault| fault.is_replay_safe(kind));
                let leave = match &attempt.ended {
                    Ended::Fault { class, .. } => eligibility::is_leave(*class),
                    Ended::Exit(_) => false,
                };
                Some((at, safe, leave))
            });
            let heard = |index: usize| {
                let path = self.seats[index].member.path();
                book.trail.iter().any(|attempt| attempt.child == *path)
            };
            let all: Vec<_> = (0..self.seats.len()).map(heard).collect();
            (book.history.clone(), failed, all)
        };
        // A person who had it, and was stopped, has said nothing: nobody has it in that person's place.
        let is_untried = |index: usize| {
            !history.has_tried(index) || self.seats[index].role == Role::Human && !heard[index]
        };
        let Some((failed, safe, leave)) = failed else {
            // It was interrupted, but has not failed.
            let untried = self.admission.iter().copied().filter(|index| is_untried(*index));
            return (Errand::Moved, (untried.collect(), true));
        };
        let class = history.last().unwrap_or(Class::Internal);
        let mut fit = self.candidates(&history, failed, now);
        fit.retain(|member| {
            is_untried(member.index)
                && eligibility::fits(class, self.kind, member).is_ok()
                && (safe || member.default_value || member.human)
                && (leave || !member.needs_leave())
        });
        fit.sort_by_key(|member| (member.last_resort(), member.priority));
        let is_person = self.seats[failed].role == Role::Human;
        (Errand::Substitute, (fit.into_iter().map(|member| member.index).collect(), is_person))
    }
}
