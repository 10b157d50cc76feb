//! Whether two children are made from one template.
//!
//! *Invariant.* What cannot be compared counts as different, unless it is one and the same.

use std::any::TypeId;
use std::sync::Arc;

use super::{ChildSpec, Weigh};

impl ChildSpec {
    /// Whether the other differs in its id at most, as far as can be seen: what was made apart counts
    /// as different.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        fn same<T: ?Sized>(one: Option<&Arc<T>>, other: Option<&Arc<T>>) -> bool {
            match (one, other) {
                (Some(one), Some(other)) => Arc::ptr_eq(one, other),
                (one, other) => one.is_none() && other.is_none(),
            }
        }
        // Taken apart, so that a new field cannot be forgotten here.
        let Self {
            id: _,
            kind,
            stateful,
            recipe,
            port,
            port_name: _,
            request,
            restart,
            shutdown,
            significant,
            start_mode,
            between_lives,
            blocking,
            effect,
            once,
            role,
            concurrency,
            mailbox,
            mailbox_bytes,
            attempt_timeout,
            start_timeout,
            deadline,
            child_limit,
            policy,
            quota_domain,
            domain_spec,
            capabilities,
            needs,
            codec,
            durable,
            durability,
            process_deaths,
            checkpoint,
        } = other;
        let bytes = |bounds: &Option<(usize, TypeId, Weigh)>| {
            bounds.as_ref().map(|(bytes, request, _)| (*bytes, *request))
        };
        let weigh = |bounds| -> Option<&Arc<_>> {
            let bounds: &Option<(usize, TypeId, Weigh)> = bounds;
            bounds.as_ref().map(|(_, _, weigh)| weigh)
        };
        Arc::ptr_eq(&self.recipe, recipe)
            && (self.kind, self.stateful, self.port) == (*kind, *stateful, *port)
            && (self.request, self.restart, self.shutdown) == (*request, *restart, *shutdown)
            && (self.significant, self.start_mode) == (*significant, *start_mode)
            && (self.between_lives, self.blocking) == (*between_lives, *blocking)
            && (self.effect, self.once, self.role) == (*effect, *once, *role)
            && (self.concurrency, self.mailbox) == (*concurrency, *mailbox)
            && bytes(&self.mailbox_bytes) == bytes(mailbox_bytes)
            && same(weigh(&self.mailbox_bytes), weigh(mailbox_bytes))
            && self.attempt_timeout == *attempt_timeout
            && self.start_timeout == *start_timeout
            && self.deadline == *deadline
            && self.child_limit == *child_limit
            && same(self.policy.as_ref(), policy.as_ref())
            && self.quota_domain == *quota_domain
            && self.domain_spec == *domain_spec
            && same(self.capabilities.as_ref(), capabilities.as_ref())
            && self.needs == *needs
            // Its functions go with the recipe.
            && self.codec.is_some() == codec.is_some()
            && (self.durable, self.durability) == (*durable, *durability)
            && self.process_deaths == *process_deaths
            && self.checkpoint == *checkpoint
    }
}
