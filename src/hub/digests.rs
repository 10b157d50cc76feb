//! The digest of what decides about failures, worked out once for all the children that share it.
//!
//! *Invariant.* What it gives depends on what it is asked for alone, and never on who asked before.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;

use crate::checkpoint::{Digest, Scope};
use crate::fault::EffectKind;
use crate::policy::Policy;
use crate::text;

/// How many are kept. A tree has few kinds of children, and one more than these is worked out anew.
const KEPT: usize = 16;

/// What decides about the failures of a child.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Deciding {
    pub(crate) policy: Arc<Policy>,
    pub(crate) effect: EffectKind,
    pub(crate) attempt_timeout: Duration,
    pub(crate) deadline: Option<Duration>,
    pub(crate) scope: Scope,
    pub(crate) in_transaction: bool,
    /// Whom the groups of the tree allow to stand in for whom.
    pub(crate) allowed: Option<Digest>,
}

impl Deciding {
    fn digest(&self) -> Digest {
        let said = json!({
            "policy": *self.policy,
            "effect": self.effect,
            "attempt_timeout": self.attempt_timeout,
            "deadline": self.deadline,
            "scope": self.scope,
            "in_transaction": self.in_transaction,
            "allowed": self.allowed.as_ref().map(Digest::to_string),
        });
        text::canonical(&said).map_or(Digest::NONE, |text| Digest::of(&text))
    }
}

/// The digests that were asked for lately. Ten thousand children of one kind have one between them: writing a
/// policy as text costs some ten microseconds, comparing two some ten nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct Digests(Mutex<Vec<(Deciding, Digest)>>);

impl Digests {
    pub(crate) fn of(&self, deciding: Deciding) -> Digest {
        let mut known = self.0.lock();
        if let Some((_, digest)) = known.iter().find(|(other, _)| *other == deciding) {
            return *digest;
        }
        let digest = deciding.digest();
        if known.len() == KEPT {
            known.remove(0);
        }
        known.push((deciding, digest));
        digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deciding(timeout: u64) -> Deciding {
        Deciding {
            policy: Arc::new(Policy::default()),
            effect: EffectKind::Pure,
            attempt_timeout: Duration::from_secs(timeout),
            deadline: None,
            scope: Scope::Flow,
            in_transaction: false,
            allowed: None,
        }
    }

    #[test]
    fn each_field_counts_and_what_is_kept_is_what_is_worked_out() {
        let digests = Digests::default();
        let once = Arc::new(Policy::default().once());
        let others = [
            deciding(1),
            Deciding { policy: once, ..deciding(1) },
            Deciding { effect: EffectKind::Irreversible, ..deciding(1) },
            Deciding { deadline: Some(Duration::from_secs(1)), ..deciding(1) },
            Deciding { scope: Scope::Transaction, ..deciding(1) },
            Deciding { in_transaction: true, ..deciding(1) },
            Deciding { allowed: Some(Digest::of(b"a")), ..deciding(1) },
        ];
        // More than are kept, twice: from what is kept, and worked out anew.
        let all = (2..20).map(deciding).chain(others).chain((2..20).map(deciding));
        let given: Vec<_> = all.map(|one| (one.digest(), digests.of(one))).collect();
        assert!(given.iter().all(|(fresh, given)| fresh == given), "{given:?}");
        let mut different: Vec<_> = given.iter().map(|(_, given)| given.to_string()).collect();
        different.sort();
        different.dedup();
        assert_eq!(different.len(), 18 + 7);
        assert!(digests.0.lock().len() <= KEPT);
    }
}
