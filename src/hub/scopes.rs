//! What a request may ask of the supervisors above it: to return to their recovery lines.
//!
//! *Invariant.* Whoever asks waits in a task of its own. No supervisor does.

use std::pin::Pin;
use std::sync::Arc;

use crate::checkpoint::RecoveryLine;
use crate::decision::Scope;
use crate::id::ChildPath;
use crate::moment::Moment;

/// The supervisors above a child, as far as they have lines to return to.
pub(crate) trait Scopes: Send + Sync {
    /// The next one above `at` that is wider than a step and has a line.
    fn next(&self, at: &ChildPath) -> Option<(ChildPath, Scope)>;

    /// The lines that a request of this child may have those above it return to if it is decided now, the nearest
    /// first: of each the newest that was drawn before the request `failed`, where that is as good as new.
    fn lines(&self, child: &ChildPath, failed: Moment) -> Vec<Arc<RecoveryLine>>;

    /// How many returns there have been, of whomever.
    fn returns(&self) -> u64;

    /// Returns a supervisor's subtree to its newest valid line, unless that was returned to before.
    fn roll_back(self: Arc<Self>, at: ChildPath, asks: Asks) -> Returning;
}

/// What a request knows that asks for it.
pub(crate) struct Asks {
    /// How many returns there had been when it failed: who has returned since has done so for it, too.
    pub(crate) returns: u64,
    /// When it failed first: a line that was drawn later has the failure in it.
    pub(crate) failed: Moment,
    /// Whose it is, and its key: a line that has it in its middle is narrower than its own rollback was.
    pub(crate) child: ChildPath,
    pub(crate) task: String,
    /// Whether anybody still waits for it. Asked under no lock.
    pub(crate) wanted: Box<dyn Fn() -> bool + Send + Sync>,
}

/// What came of it.
pub(crate) enum Returned {
    /// The states are those of a line.
    Back,
    /// They are what they were; why. The next wider scope may do better.
    Not(String),
    /// They are, and nobody wider does better: a person has to approve it; why.
    Stop(String),
    /// Nobody waits for it any more.
    Unwanted,
}

pub(crate) type Returning = Pin<Box<dyn Future<Output = Returned> + Send>>;
