//! What is counted when a request that has failed before has its fate.
//!
//! *Invariant.* A request that has never failed is not looked at: it has no book.

use super::Hub;
use crate::decision::Rung;
use crate::fate::{Ended, Fate};
use crate::id::ChildPath;
use crate::moment::Moment;
use crate::policy::eligibility::is_leave;
use crate::port::Envelope;
use crate::watch::{Fated, Input};

/// Counts, for a request that has its fate, what became of the retries and substitutes it needed.
/// `by` is who answered it, if somebody did, and whether with a default value.
pub(crate) fn note<Q, R>(
    hub: &Hub,
    mail: &Envelope<Q, R>,
    fate: Fate,
    by: Option<(&ChildPath, bool)>,
    now: Moment,
) {
    let defaulted = by.is_some_and(|(_, defaulted)| defaulted);
    let (retries, substitutions, mut fated) = {
        let Some(book) = mail.book() else { return };
        let Some(first) = book.trail.iter().next() else { return };
        let handed = book.trail.iter().find(|it| it.action.rung() == Some(Rung::Substitute));
        let fated = Fated {
            fate,
            defaulted,
            failed_at: first.at,
            retried: book.history.retries() > 0,
            failed_over: book.trail.iter().any(|it| {
                // Whom a person passes it on to does it in the place of nobody who has failed.
                let said = matches!(&it.ended, Ended::Fault { class, .. } if is_leave(*class));
                let by_person = mail.home.as_ref().is_some_and(|home| home.is_person(&it.child));
                it.action.rung() == Some(Rung::Substitute) && !(said && by_person)
            }),
            handed_on: mail.home.as_ref().zip(handed).map(|(group, it)| (group.kind(), it.at)),
            rolled_back: book.trail.iter().any(|it| it.action.rung() == Some(Rung::Rollback)),
        };
        (book.history.retries(), book.history.substitutions(), fated)
    };
    let answered = matches!(fate, Fate::Done | Fate::Unheard);
    {
        let mut stats = hub.stats.lock();
        if retries > 0 {
            stats.entered_retry += 1;
            stats.recovered_by_retry += u64::from(answered && substitutions == 0);
        }
        if substitutions > 0
            && let Some(group) = &mail.home
        {
            let path = group.path();
            *stats.entered_fallback.entry(path.clone()).or_default() += 1;
            if answered && let Some((by, _)) = by {
                let alternative = stats.alternatives.entry(by.clone()).or_default();
                match defaulted {
                    true => alternative.defaulted += 1,
                    false => alternative.answered += 1,
                }
                let counts = match defaulted {
                    true => &mut stats.defaulted,
                    false => &mut stats.recovered_by_fallback,
                };
                *counts.entry(path.clone()).or_default() += 1;
            }
        }
    }
    fated.defaulted &= answered;
    hub.watch(Input::Fated(fated), now);
}
