//! What a request may ask of the supervisors above it: to return to their recovery lines.
//!
//! *Invariant.* Whoever asks waits in a task of its own. No supervisor does.

use std::pin::Pin;
use std::sync::Arc;

use crate::decision::Scope;
use crate::id::{ChildPath, LineId};

/// The supervisors above a child, as far as they have lines to return to.
pub(crate) trait Scopes: Send + Sync {
    /// The next one above `at` that is wider than a step and has a line.
    fn next(&self, at: &ChildPath) -> Option<(ChildPath, Scope)>;

    /// Returns a supervisor's subtree to its newest valid line, unless that was returned to before; else
    /// why not.
    fn roll_back(self: Arc<Self>, at: ChildPath) -> Returning;
}

pub(crate) type Returning = Pin<Box<dyn Future<Output = Result<Option<LineId>, String>> + Send>>;
