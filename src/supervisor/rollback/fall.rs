//! A supervisor that fell begins again from its newest line; when it cannot, the wider scopes are tried.
//!
//! *Invariant.* A supervisor begins again whatever its lines say: without one, each child goes on with
//! what it has kept by itself. Its children do nothing until what was undone for them is known.

use std::sync::Arc;

use super::{Choice, Missing, Phase, Place, Report, RollbackError, Since, To, Wider};
use crate::event::Event;
use crate::journal::{Footing, Journal};
use crate::moment::Moment;
use crate::slot::Held;

impl Place {
    /// The supervisor fell, and begins again: its children go on from its newest line, if there is one.
    /// When none of its lines can be used, the wider scopes are tried, one after the other.
    pub(crate) async fn after_fall(self) -> Option<Fallen> {
        let journal = self.journal().ok()?;
        let store = Arc::clone(&journal.store);
        let hub = Arc::clone(&self.node.hub);
        let begun = hub.now();
        let limit = hub.clock.sleep_until(begun + self.scope().limit());
        let choose = async {
            let chosen = self.choose(&store, To::Latest, None).await?;
            self.may_return_by_itself()?;
            Ok(chosen)
        };
        let chosen = tokio::select! {
            biased;
            chosen = choose => chosen,
            () = limit => Err(self.too_late(self.scope().limit(), "making the lives that follow")),
        };
        match chosen {
            Ok(Choice { line, lives: chosen, refused, footing }) => {
                let children: Vec<_> = chosen.iter().map(|(child, ..)| Arc::clone(child)).collect();
                let held = Held::new(children.clone());
                let mut returned = Vec::with_capacity(chosen.len());
                for (child, id, prepared) in chosen {
                    child.install(prepared);
                    returned.push((child.path().clone(), id));
                }
                self.registry.rollbacks.note(self.at());
                self.takes_over();
                let used = super::options::used_up(&journal, &returned);
                journal.use_up(used.iter().copied());
                let (at, scope) = (self.at().clone(), self.scope());
                let (kept, undone, unknown) = (Vec::new(), Vec::new(), Vec::new());
                let (since, replayed, missing) =
                    Since::of(&self, &journal, used, &returned, &children);
                let elapsed = hub.now().since(begun);
                let report = Report {
                    at,
                    scope,
                    line,
                    children: returned,
                    refused,
                    kept,
                    undone,
                    unknown,
                    replayed,
                    missing,
                    elapsed,
                };
                Some(Fallen { journal, report, since, begun, held, footing })
            }
            // Nothing of it was ever stored.
            Err(RollbackError::NoState(_)) => None,
            Err(RollbackError::NoneValid { refused, .. }) if refused.is_empty() => None,
            Err(error) => {
                let first = self.failed(&error);
                if error.has_tried() {
                    hub.count_rollback(self.scope(), false, begun);
                    hub.runtime.clone().spawn(self.widen(first));
                } else {
                    // A person has not approved it: what is wider does more, and is not done instead.
                    self.exhausted(vec![first]);
                }
                None
            }
        }
    }

    /// What falls below have begun and not ended is of states that are returned from.
    pub(super) fn takes_over(&self) {
        for node in self.registry.supervisors_below(self.at()) {
            node.comes_up_no_more();
        }
    }

    /// Returns the nearest wider scope that can be returned; when none can, somebody is told.
    async fn widen(self, first: String) {
        let fell = self.clone();
        let mut reasons = vec![first];
        let mut place = self;
        while let Some(Wider { at: Some(path), .. }) = place.wider() {
            let Ok(next) = Self::find(&place.registry, &path) else { break };
            if let Err(error) = next.may_return_by_itself() {
                reasons.push(next.failed(&error));
                break;
            }
            match next.clone().roll_back(To::Latest, None).await {
                Ok(_) => return,
                // The system is about to end.
                Err(RollbackError::Restart(_)) => return,
                Err(error) => reasons.push(error.to_string()),
            }
            place = next;
        }
        fell.exhausted(reasons);
    }

    fn exhausted(&self, reasons: Vec<String>) {
        let (at, hub) = (self.at().clone(), &self.node.hub);
        hub.stats.lock().alerts += 1;
        hub.emit(Event::RollbackExhausted { at, reasons });
    }
}

/// A supervisor that fell, whose children are about to begin from a line. They do nothing until what
/// they had done to the world is settled.
pub(crate) struct Fallen {
    journal: Arc<Journal>,
    report: Report,
    since: Since,
    begun: Moment,
    held: Held,
    footing: Footing,
}

impl Fallen {
    /// They will not come up. What their open requests have done is settled with their fates.
    pub(crate) fn let_go(self) {
        drop(Missing::noted(&self.journal, self.report.missing));
    }

    /// All are up.
    pub(crate) fn come_up(self, place: Place) {
        let Self { journal, mut report, since, begun, held, footing } = self;
        let hub = Arc::clone(&place.node.hub);
        hub.runtime.clone().spawn(async move {
            let _footing = footing;
            let phase = Phase::default();
            let missing = Missing::noted(&journal, std::mem::take(&mut report.missing));
            // Until here it has waited for a start that went well.
            let limit = hub.clock.sleep_until(hub.now() + place.scope().limit());
            let mut settled = Box::pin(place.settle(&journal, &held, since, &phase));
            let told = tokio::select! {
                biased;
                told = &mut settled => told,
                () = limit => {
                    hub.count_rollback(place.scope(), false, begun);
                    place.failed(&place.too_late(place.scope().limit(), phase.get()));
                    // Given up half-way, it would let them go on with effects that are not settled.
                    if let Err(error) = settled.await {
                        tracing::error!(target: "mainstay", at = %place.at(), %error, "a late rollback did not end well");
                    }
                    missing.told(&hub, &journal);
                    return;
                }
            };
            drop(settled);
            hub.count_rollback(place.scope(), told.is_ok(), begun);
            match told {
                Ok(told) => {
                    report.kept = told.kept;
                    report.undone = told.undone;
                    report.unknown = told.unknown;
                    report.elapsed = hub.now().since(begun);
                    report.missing = missing.told(&hub, &journal);
                    hub.emit(report.event(None));
                }
                Err(error) => drop(place.failed(&error)),
            }
            drop(held);
        });
    }
}
