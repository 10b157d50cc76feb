//! How wide a rollback may be, by class.
//!
//! A fault that an older state cannot mend is not answered with one: what is wrong with one request is
//! the matter of its step, what is wrong with a service that of the flow which needs it, and only a
//! state that is broken itself is the matter of everybody.
//!
//! | Class | Widest scope |
//! |---|---|
//! | network, timeout, server transient, overloaded, model unavailable, quota, tool execution, indeterminate, exhausted | flow; transaction within one |
//! | rate limit, permission | step; transaction within one |
//! | input validation, business, context length, content filtered, output invalid, unknown | step |
//! | internal | session |
//! | any, where a rollback failed | system |
//!
//! Of an inner ladder that was spent the class is judged that it was spent on.
//!
//! *Invariant.* What is wider than the policy allows is never returned without a person.

use crate::decision::Scope;
use crate::fault::Class;

/// The supervisor that would return next, for a request whose own rollback is spent or impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wider {
    /// Its scope.
    pub scope: Scope,
    /// Whether a transaction is open, with effects to be undone.
    pub in_transaction: bool,
    /// Whether the failure is that of a rollback: no valid state, too late, an undo that failed.
    pub rollback_failed: bool,
}

/// Where something stands among the scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Within {
    /// The nearest scope.
    pub(crate) scope: Scope,
    /// Whether it is part of a transaction, its own or one around it: what is narrower does not end that,
    /// and what is wider begins anew.
    pub(crate) in_transaction: bool,
}

impl Within {
    /// Above everything.
    pub(crate) const OUTSIDE: Self = Self { scope: Scope::Step, in_transaction: false };

    /// One level further down, where a scope begins or none does.
    pub(crate) const fn below(self, scope: Option<Scope>) -> Self {
        let Some(scope) = scope else { return self };
        let in_transaction = match scope {
            Scope::Step | Scope::Flow => self.in_transaction,
            Scope::Transaction => true,
            Scope::Session | Scope::System => false,
        };
        Self { scope, in_transaction }
    }
}

/// The widest scope that a failure of this class has returned.
pub const fn widest(class: Class, wider: &Wider) -> Scope {
    if wider.rollback_failed {
        return Scope::System;
    }
    match class {
        // A bug, or a state that nobody had foreseen: not for one request to stop everybody.
        Class::Internal => Scope::Session,
        Class::InputValidation
        | Class::Business
        | Class::ContextLength
        | Class::ContentFiltered
        | Class::OutputInvalid
        | Class::BudgetDenied
        | Class::Cancelled
        | Class::Unknown => Scope::Step,
        Class::RateLimit | Class::Permission if !wider.in_transaction => Scope::Step,
        _ if wider.in_transaction => Scope::Transaction,
        _ => Scope::Flow,
    }
}
