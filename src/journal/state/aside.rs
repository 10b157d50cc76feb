//! Requests that were set aside, and are so again.
//!
//! *Invariant.* As certain as the store's answer, as every change.

use std::sync::Arc;

use super::{Aside, Known, State, Token};

impl State {
    /// One that was released, and that nobody has taken, is set aside as this says.
    pub(in crate::journal) fn set_back(&mut self, aside: Aside) -> Token {
        let key = Arc::clone(&aside.open.key);
        self.change(key, |state, _| Known::Aside(state.number(), aside))
    }
}
