//! Who may stand in: what a sibling must never gain, and which sibling is fit for which class.
//!
//! *Invariant.* A substitute is taken from the members handed in and from nowhere else: nothing a
//! model or a tool says can add one. Permission never substitutes.
//!
//! | Class | Fit siblings |
//! |---|---|
//! | network, timeout, server transient, model unavailable, overloaded, tool execution, output invalid, indeterminate, exhausted, internal, unknown | every member |
//! | rate limit, quota exhausted | members in another quota domain, defaults, people |
//! | context length | a larger window, a simpler flow |
//! | input validation, business | a simpler flow, a default |
//! | content filtered | the content chain, a simpler flow, a default |
//! | permission, budget denied, cancelled | nobody |
//!
//! A request that is not replay-safe goes only to a default or a person, since neither repeats it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::decision::Declined;
use crate::fault::Class;
use crate::moment::Moment;

/// What a member of a group may and can do, for comparison with its primary.
///
/// # Default
///
/// Guardrail level 0, no tool rights, and nothing else stated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// How well guarded; higher is safer.
    pub guardrail: u8,
    /// The tools it may use.
    pub tool_rights: BTreeSet<String>,
    /// Where it keeps data; `None` when it is not stated.
    pub residency: Option<String>,
    /// The most one request may cost, in millionths; `None` for no limit.
    pub price_cap_micros: Option<u64>,
    /// How many tokens it takes; `None` when it is not known.
    pub context_window: Option<u32>,
    /// Who runs it.
    pub provider: Option<String>,
}

impl Capabilities {
    /// In what this would be a downgrade from its primary; `None` when it may stand in without a
    /// grant. A primary that states no residency or price cap sets none.
    pub fn weaker_than(&self, primary: &Self) -> Option<&'static str> {
        if self.guardrail < primary.guardrail {
            return Some("a lower guardrail level");
        }
        if !self.tool_rights.is_subset(&primary.tool_rights) {
            return Some("more tool rights");
        }
        if primary.residency.is_some() && self.residency != primary.residency {
            return Some("another residency");
        }
        match (self.price_cap_micros, primary.price_cap_micros) {
            (Some(own), Some(limit)) if own > limit => Some("a higher price cap"),
            (None, Some(_)) => Some("a higher price cap"),
            _ => None,
        }
    }

    /// Whether this takes longer prompts than `other`. A window that is not known is not larger.
    pub const fn has_larger_window(&self, other: &Self) -> bool {
        match (self.context_window, other.context_window) {
            (Some(own), Some(other)) => own > other,
            _ => false,
        }
    }

    /// Whether both are run by the same provider, as far as that is known.
    pub fn same_provider(&self, other: &Self) -> bool {
        self.provider.is_some() && self.provider == other.provider
    }
}

/// Leave for one member to stand in although it is weaker than its primary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Who answers for it.
    pub owner: String,
    /// Why.
    pub reason: String,
}

impl Grant {
    /// A grant by this owner for this reason.
    pub fn new(owner: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { owner: owner.into(), reason: reason.into() }
    }

    /// Whether both owner and reason are given.
    pub fn is_complete(&self) -> bool {
        !self.owner.trim().is_empty() && !self.reason.trim().is_empty()
    }
}

/// What a member of a group is, beside a sibling like the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// Does the same work.
    #[default]
    Sibling,
    /// A simpler flow that can do with less: also eligible for a request that is malformed or too
    /// long for the others.
    Simplified,
    /// Does the same work behind another content filter: a sibling that also takes what the filter of
    /// another member refused.
    Content,
    /// Gives a default value: the last resort.
    Default,
    /// A person.
    Human,
}

/// What the members of a group are to each other: the playbook's five kinds of fallback.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GroupKind {
    /// Another model.
    #[default]
    Model,
    /// Another tool.
    Tool,
    /// A simpler flow: every member after the first counts as one.
    Step,
    /// Another way to find the same data.
    Data,
    /// A default value at the end, which cannot fail.
    Output,
}

/// Whether a member takes work, as its circuit, its quota domain and its mailbox say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It does.
    #[default]
    Ready,
    /// Its mailbox is full.
    Full,
    /// Its circuit is open, or its quota domain closed, until then; from then on it is probed.
    OpenUntil(Moment),
    /// Taken out by hand.
    Isolated,
    /// Stopped, quarantined or gone.
    OutOfService,
}

/// One member of the group, as seen from the request and the member that failed.
///
/// # Default
///
/// Index 0, untried, fit, ready, priority 0, in its own quota domain and with its own provider, with
/// no special gift.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its index in the group's order.
    pub index: usize,
    /// Whether it has had this request.
    pub tried: bool,
    /// Whether its compiled capabilities allow it to stand in.
    pub fit: bool,
    /// Whether it takes work.
    pub standing: Standing,
    /// Whether it shares the quota domain of the member that failed.
    pub same_quota_domain: bool,
    /// Whether it is run by the provider of the member that failed.
    pub same_provider: bool,
    /// Whether it takes longer prompts than the member that failed.
    pub larger_window: bool,
    /// Whether it is a simplified flow.
    pub simpler: bool,
    /// Whether it gives a default value, which cannot fail and repeats nothing.
    pub default_value: bool,
    /// Whether it is a person.
    pub human: bool,
    /// Whether the member that failed is a person, who may have given leave by that.
    pub behind_a_person: bool,
    /// Whether it stands in the dedicated chain for what a content filter refused.
    pub content_chain: bool,
    /// Its static priority; smaller comes first.
    pub priority: u32,
}

impl Default for Candidate {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Candidate {
    /// An untried, fit and ready member.
    pub const fn new(index: usize) -> Self {
        Self {
            index,
            tried: false,
            fit: true,
            standing: Standing::Ready,
            same_quota_domain: false,
            same_provider: false,
            larger_window: false,
            simpler: false,
            default_value: false,
            human: false,
            behind_a_person: false,
            content_chain: false,
            priority: 0,
        }
    }

    /// Whether others are asked first.
    pub(crate) const fn last_resort(&self) -> u8 {
        if self.default_value { 2 } else { (self.human && !self.behind_a_person) as u8 }
    }

    /// Whether it is a person whose leave is needed, too, by those behind.
    pub(crate) const fn gives_leave(&self) -> bool {
        self.human && self.behind_a_person
    }

    /// Whether it may be asked only if the person that failed has passed the request on.
    pub(crate) const fn needs_leave(&self) -> bool {
        self.behind_a_person && !self.human && !self.default_value
    }

    /// Where it comes in the order of those that may serve: a default value last and a person before
    /// it (but for one behind another person, who keeps the place), then its circuit, its provider, its priority, and its place. `None` when it does not take
    /// work at `now`.
    pub const fn rank(&self, demote_provider: bool, now: Moment) -> Option<Rank> {
        let probe = match self.standing {
            Standing::Ready => false,
            Standing::OpenUntil(until) if until.as_nanos() <= now.as_nanos() => true,
            _ => return None,
        };
        Some(Rank {
            last_resort: self.last_resort(),
            probe,
            demoted: demote_provider && self.same_provider,
            priority: self.priority,
            index: self.index,
        })
    }
}

/// The place of a member among those that may serve; the smallest goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    last_resort: u8,
    probe: bool,
    demoted: bool,
    priority: u32,
    index: usize,
}

/// Whether a person who answers with a fault of this class has passed the request on. The others are the runtime's word for
/// one who has said nothing.
pub const fn is_leave(class: Class) -> bool {
    !matches!(class, Class::Timeout | Class::Internal | Class::Indeterminate)
}

/// Whether no sibling of any kind may be asked after a fault of this class.
pub const fn is_never_substituted(class: Class) -> bool {
    matches!(class, Class::Permission | Class::BudgetDenied | Class::Cancelled)
}

/// Whether this member is fit to stand in after a fault of this class, in a group of this kind.
/// Whether it takes work just now is [`Candidate::standing`].
pub const fn fits(class: Class, kind: GroupKind, candidate: &Candidate) -> Result<(), Declined> {
    if is_never_substituted(class) {
        return Err(Declined::ClassNotEligible(class));
    }
    if !candidate.fit {
        return Err(Declined::NoFitSibling);
    }
    let simpler = candidate.simpler || (matches!(kind, GroupKind::Step) && candidate.index > 0);
    let other_domain = !candidate.same_quota_domain;
    match class {
        Class::InputValidation | Class::Business if !(simpler || candidate.default_value) => {
            Err(Declined::ClassNotEligible(class))
        }
        Class::ContentFiltered
            if !(candidate.content_chain || simpler || candidate.default_value) =>
        {
            Err(Declined::ClassNotEligible(class))
        }
        Class::ContextLength if !(candidate.larger_window || simpler) => {
            Err(Declined::NoFitSibling)
        }
        Class::RateLimit | Class::QuotaExhausted
            if !(other_domain || candidate.default_value || candidate.human) =>
        {
            Err(Declined::NoFitSibling)
        }
        _ => Ok(()),
    }
}

/// The members that a request which has not failed may go to, in the order in which they are offered it.
/// The first is the primary. From each, the way leads to those that its allow-list names, in that order, and
/// to all after it where it has none; a person comes after all others, and a default value last, unless it is
/// the primary. Whom no
/// list leads to is never asked, also while the circuits of those before are open.
///
/// `members` are their roles and allow-lists, in the order of the group.
pub fn admission(members: &[(Role, Option<&[usize]>)]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..members.len().min(1)).collect();
    let mut at = 0;
    while let Some(&from) = order.get(at) {
        let all: Vec<usize>;
        let next = match members[from].1 {
            Some(list) => list,
            None => {
                all = (from + 1..members.len()).collect();
                &all
            }
        };
        for &to in next {
            if to < members.len() && !order.contains(&to) {
                order.push(to);
            }
        }
        at += 1;
    }
    // Whoever was put first is meant to be asked first, a person too.
    if let Some((_, others)) = order.split_first_mut() {
        others.sort_by_key(|&index| match members[index].0 {
            Role::Default => 2,
            Role::Human => 1,
            _ => 0,
        });
    }
    order
}
