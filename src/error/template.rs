//! Why no child was made from a template.
//!
//! *Invariant.* No variant holds the arguments.

use thiserror::Error;

use super::StoreError;
use crate::id::ChildPath;

/// Why no child was made from a template.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// The supervisor has no such template.
    #[error("supervisor \"{supervisor}\" has no template {template:?}; {}", list(known))]
    Unknown {
        /// The supervisor.
        supervisor: ChildPath,
        /// The name.
        template: String,
        /// The names of those it has.
        known: Vec<String>,
    },
    /// The template takes other arguments.
    #[error("template {template:?} of \"{supervisor}\" takes {wanted}, not {found}")]
    Type {
        /// The supervisor.
        supervisor: ChildPath,
        /// The template.
        template: String,
        /// What it takes.
        wanted: &'static str,
        /// What it was given.
        found: &'static str,
    },
    /// The arguments cannot be written down, or nothing can be made from what is written.
    #[error("child \"{child}\" cannot be made from template {template:?}: {why}")]
    Arguments {
        /// The child.
        child: ChildPath,
        /// The template.
        template: String,
        /// What is wrong.
        why: String,
    },
    /// The store did not take the record of the child, which was not started.
    #[error("child \"{child}\" was not started, since it could not be written down: {why}")]
    Store {
        /// The child.
        child: ChildPath,
        /// What the store says.
        why: StoreError,
    },
}

fn list(known: &[String]) -> String {
    match known {
        [] => "it has none: see `SupervisorSpec::template`".to_owned(),
        known => format!("it has {}", known.join(", ")),
    }
}
