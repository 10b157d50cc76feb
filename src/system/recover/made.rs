//! Making the children again that earlier processes have started from templates.
//!
//! *Invariant.* A child that cannot be made again is never left out unasked.

use std::sync::Arc;

use super::RecoverOptions;
use crate::error::RecoverError;
use crate::id::ChildPath;
use crate::journal::{Journal, Made, Serial};
use crate::supervisor::again;
use crate::system::System;

/// A child that was started from a template and cannot be made again.
#[derive(Clone)]
#[non_exhaustive]
pub struct LetGo {
    /// The child.
    pub child: ChildPath,
    /// The name of its template.
    pub template: Arc<str>,
    /// Its arguments, as JSON. Holds user data.
    pub arguments: String,
    /// Why it cannot be made again.
    pub why: String,
}

impl std::fmt::Debug for LetGo {
    /// Without the arguments.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LetGo")
            .field("child", &self.child)
            .field("template", &self.template)
            .field("why", &self.why)
            .finish_non_exhaustive()
    }
}

/// Who was made, and who is let go.
type Again = (Vec<ChildPath>, Vec<(Serial, LetGo)>);

impl System {
    /// Makes them, the oldest first; they begin with their supervisors.
    pub(super) fn make_again(
        &self,
        journal: &Journal,
        options: &RecoverOptions,
    ) -> Result<Again, RecoverError> {
        let (mut all, mut gone) = (Vec::new(), Vec::new());
        let mut left = journal.made();
        // One may need another that was started anew after it.
        let failed = loop {
            let before = left.len();
            let mut failed = Vec::new();
            for (serial, made) in left {
                match self.make_one(&made, serial) {
                    Ok(()) => all.push((serial, made.child)),
                    Err(why) => failed.push((serial, made, why)),
                }
            }
            if failed.is_empty() || failed.len() == before {
                break failed;
            }
            left = failed.into_iter().map(|(serial, made, _)| (serial, made)).collect();
        };
        for (serial, made, why) in failed {
            if !options.adopt_topology {
                let supervisor = made.child.parent().unwrap_or_else(|| made.child.clone());
                let (child, template) = (made.child, made.template.to_string());
                return Err(RecoverError::Child { child, template, supervisor, why });
            }
            let Made { child, template, arguments, .. } = made;
            gone.push((serial, LetGo { child, template, arguments, why }));
        }
        all.sort_by_key(|(serial, _)| *serial);
        Ok((all.into_iter().map(|(_, child)| child).collect(), gone))
    }

    fn make_one(&self, made: &Made, serial: Serial) -> Result<(), String> {
        let parent = made.child.parent();
        let node = parent.and_then(|path| self.inner.registry.supervisor(&path));
        let node = node.ok_or("the tree has no such supervisor")?;
        let template = node.spec.template_named(&node.path, &made.template);
        let template = template.map_err(|error| error.to_string())?;
        let spec = template.make(made.child.id(), &made.arguments)?;
        if !spec.durable {
            return Err("what the template makes is not durable any more".to_owned());
        }
        again(&node, &Arc::new(spec), serial).map_err(|error| error.to_string())
    }
}
