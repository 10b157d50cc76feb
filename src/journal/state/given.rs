//! How answers were given.
//!
//! *Invariant.* As certain as the fate that goes with it.

use super::{Known, State};
use crate::fate::Given;

impl State {
    /// How the answer to this request was given, or what it has cost without one, as far as that is certain.
    pub(in crate::journal) fn given(&self, key: &str) -> Option<&Given> {
        let end = match self.unsure.get(key).map(|unsure| &unsure.before) {
            Some(Known::Fated(_, end)) => end,
            Some(_) => return None,
            None => &self.fated.get(key)?.end,
        };
        end.given.as_deref()
    }
}
