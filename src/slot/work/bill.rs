//! What an attempt has cost, however it ended.
//!
//! *Invariant.* What was set aside on its way is settled with it.

use crate::behavior::Context;
use crate::fate::Cost;
use crate::policy::budget::Reservation;

/// What an attempt has cost.
#[derive(Default)]
pub(crate) struct Bill {
    /// By itself: the calls it made are charged where they were worked on.
    pub(crate) own: Cost,
    /// With the calls it made.
    pub(crate) all: Cost,
    /// What it had set aside on its way.
    pub(super) held: Option<Reservation>,
}

impl Bill {
    pub(crate) fn of(context: &Context) -> Option<Box<Self>> {
        let own = context.own_cost();
        // Most have called nobody.
        let (all, held) = match context.tie.get() {
            Some(tie) => (context.cost(), tie.take_held()),
            None => (own, None),
        };
        (all != Cost::default() || held.is_some()).then(|| Box::new(Self { own, all, held }))
    }
}
