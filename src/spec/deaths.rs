//! How often the process may end with a durable request in hand.

use super::{ChildSpec, GroupSpec};

impl ChildSpec {
    /// How often in a row the process may end with a durable request of this child in hand, at the same place,
    /// before the next recovery sets it aside ([`System::quarantine`](crate::system::System::quarantine)), so
    /// that a request which ends the process does not do so for ever. Counted from the first recovery on:
    /// the end of the process that had accepted the request is not, nor is one that comes in order, nor one
    /// while the request waits. [`u32::MAX`] sets none aside; 0 is refused.
    ///
    /// # Default
    /// [`PROCESS_DEATHS`](crate::policy::deaths::PROCESS_DEATHS): 3, since every delivery may be paid for, and
    /// a life may be ended but twice. Others allow a hundred, which is far too many for paid calls.
    #[must_use]
    pub fn process_deaths(mut self, ends: u32) -> Self {
        self.process_deaths = ends;
        self
    }
}

impl GroupSpec {
    /// As [`ChildSpec::process_deaths`], for the requests that a durable group has accepted, whoever serves.
    ///
    /// # Default
    /// As there.
    #[must_use]
    pub fn process_deaths(mut self, ends: u32) -> Self {
        self.process_deaths = ends;
        self
    }
}
