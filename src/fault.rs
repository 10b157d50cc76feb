//! What went wrong: a [`Fault`] ended an attempt, an [`ExitCause`] ended a life.
//!
//! *Invariant.* Everything here is plain data that can be cloned and stored, since it is read again
//! after a crash. Nothing here decides what to do: that is [`crate::policy`].

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::ChildPath;

/// How a fault is treated. The first eight are the playbook's; the others are extensions, each
/// counted under one of the eight ([`Class::playbook`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Class {
    /// The network failed before the request was taken: refused, unresolved, reset before a response.
    Network,
    /// No answer within the time given.
    Timeout,
    /// The provider asks for fewer requests.
    RateLimit,
    /// The model or its service cannot answer at all.
    ModelUnavailable,
    /// The request is malformed: the caller's fault.
    InputValidation,
    /// A tool failed while it worked.
    ToolExecution,
    /// The prompt is too long for this model.
    ContextLength,
    /// Not allowed: credentials, rights, region.
    Permission,
    /// The provider is overloaded for everybody. Counts as `ModelUnavailable`.
    Overloaded,
    /// A passing error on the provider's side (500, 502). Counts as `Network`.
    ServerTransient,
    /// Money, credit or a hard quota is used up: waiting does not help. Counts as `ModelUnavailable`.
    QuotaExhausted,
    /// A content filter refused. Counts as `InputValidation`.
    ContentFiltered,
    /// The answer did not pass its validator, or was cut off. Counts as `ToolExecution`.
    OutputInvalid,
    /// The request was sent, and nobody knows whether it took effect. Counts as `Timeout`.
    Indeterminate,
    /// A business rule said no (insufficient funds). Counts as `InputValidation`.
    Business,
    /// The budget of the request does not cover this work. Counts as `Permission`.
    BudgetDenied,
    /// An inner ladder failed: retrying outside would only repeat it. Counts as `ModelUnavailable`.
    Exhausted,
    /// The work was called off. Not an error for rates; counts as `Timeout` where one must be named.
    Cancelled,
    /// A defect of the runtime or of a behavior. Counts as `ToolExecution`.
    Internal,
    /// Nothing that is known. Counts as `ToolExecution`, and is not retried.
    Unknown,
}

impl Class {
    /// Every class, the playbook's eight first.
    pub const ALL: [Self; 20] = [
        Self::Network,
        Self::Timeout,
        Self::RateLimit,
        Self::ModelUnavailable,
        Self::InputValidation,
        Self::ToolExecution,
        Self::ContextLength,
        Self::Permission,
        Self::Overloaded,
        Self::ServerTransient,
        Self::QuotaExhausted,
        Self::ContentFiltered,
        Self::OutputInvalid,
        Self::Indeterminate,
        Self::Business,
        Self::BudgetDenied,
        Self::Exhausted,
        Self::Cancelled,
        Self::Internal,
        Self::Unknown,
    ];

    /// The eight classes of the playbook, in its order.
    pub const PLAYBOOK: [Self; 8] = [
        Self::Network,
        Self::Timeout,
        Self::RateLimit,
        Self::ModelUnavailable,
        Self::InputValidation,
        Self::ToolExecution,
        Self::ContextLength,
        Self::Permission,
    ];

    /// The playbook class under which this one is counted; itself for the eight.
    pub const fn playbook(self) -> Self {
        match self {
            Self::Network | Self::ServerTransient => Self::Network,
            Self::Timeout | Self::Indeterminate | Self::Cancelled => Self::Timeout,
            Self::RateLimit => Self::RateLimit,
            Self::ModelUnavailable | Self::Overloaded | Self::QuotaExhausted | Self::Exhausted => {
                Self::ModelUnavailable
            }
            Self::InputValidation | Self::ContentFiltered | Self::Business => Self::InputValidation,
            Self::ToolExecution | Self::OutputInvalid | Self::Internal | Self::Unknown => {
                Self::ToolExecution
            }
            Self::ContextLength => Self::ContextLength,
            Self::Permission | Self::BudgetDenied => Self::Permission,
        }
    }

    /// Whether the playbook retries this class: true for `Network`, `Timeout`, `RateLimit` and
    /// `ToolExecution`, and for the one extension that is treated as a network error,
    /// `ServerTransient`. How often and when is the policy's to say.
    pub const fn is_retryable(self) -> bool {
        match self {
            Self::Network
            | Self::Timeout
            | Self::RateLimit
            | Self::ToolExecution
            | Self::ServerTransient => true,
            Self::ModelUnavailable
            | Self::InputValidation
            | Self::ContextLength
            | Self::Permission
            | Self::Overloaded
            | Self::QuotaExhausted
            | Self::ContentFiltered
            | Self::OutputInvalid
            | Self::Indeterminate
            | Self::Business
            | Self::BudgetDenied
            | Self::Exhausted
            | Self::Cancelled
            | Self::Internal
            | Self::Unknown => false,
        }
    }

    /// Whether the caller, not the child, is to blame. Such a fault says nothing about the child's
    /// health and never opens a circuit.
    pub const fn is_callers_fault(self) -> bool {
        matches!(
            self,
            Self::InputValidation
                | Self::ContextLength
                | Self::ContentFiltered
                | Self::Business
                | Self::BudgetDenied
                | Self::Cancelled
        )
    }

    /// Whether such a fault says something about the health of the child that it came from: a circuit
    /// counts it. The caller's own faults do not, and neither does a missing permission, which no sibling
    /// may answer instead: an open circuit would send the next request to one.
    pub const fn tells_of_health(self) -> bool {
        !self.is_callers_fault() && !matches!(self, Self::Permission)
    }

    /// Whether the request was turned away before it could take effect, unless the fault says
    /// otherwise. A refused request may be sent again whatever it would have done.
    pub const fn is_refusal(self) -> bool {
        matches!(
            self,
            Self::Network
                | Self::RateLimit
                | Self::ModelUnavailable
                | Self::InputValidation
                | Self::ContextLength
                | Self::Permission
                | Self::Overloaded
                | Self::QuotaExhausted
                | Self::ContentFiltered
                | Self::Business
                | Self::BudgetDenied
        )
    }

    /// The name in events, metrics and summaries: `network`, `rate_limit`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Timeout => "timeout",
            Self::RateLimit => "rate_limit",
            Self::ModelUnavailable => "model_unavailable",
            Self::InputValidation => "input_validation",
            Self::ToolExecution => "tool_execution",
            Self::ContextLength => "context_length",
            Self::Permission => "permission",
            Self::Overloaded => "overloaded",
            Self::ServerTransient => "server_transient",
            Self::QuotaExhausted => "quota_exhausted",
            Self::ContentFiltered => "content_filtered",
            Self::OutputInvalid => "output_invalid",
            Self::Indeterminate => "indeterminate",
            Self::Business => "business",
            Self::BudgetDenied => "budget_denied",
            Self::Exhausted => "exhausted",
            Self::Cancelled => "cancelled",
            Self::Internal => "internal",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a tool does to the world, from nothing to what cannot be taken back. Undeclared means
/// [`EffectKind::Irreversible`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EffectKind {
    /// Computes; touches nothing.
    Pure,
    /// Reads the world and leaves it as it was.
    Read,
    /// Takes an idempotency key: the same key takes effect once.
    Idempotent,
    /// Can be asked afterwards whether it happened.
    Verifiable,
    /// Has an undo.
    Compensable,
    /// Cannot be undone, asked about or repeated.
    #[default]
    Irreversible,
}

impl EffectKind {
    /// Whether it does anything to the world.
    pub(crate) const fn acts(self) -> bool {
        !matches!(self, Self::Pure | Self::Read)
    }

    /// Whether the same request may be executed again without knowing how the last time ended.
    pub const fn is_replay_safe(self) -> bool {
        matches!(self, Self::Pure | Self::Read | Self::Idempotent)
    }
}

/// What is known about the effect of a failed attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EffectState {
    /// The fault does not say; its class and the kind of effect decide.
    #[default]
    Unstated,
    /// Nothing happened: the attempt may be repeated.
    NotApplied,
    /// It may have happened.
    Unknown,
    /// The other side says that it failed, and not that nothing has happened: it is not repeated, and what
    /// undoes it is asked to. The class alone would say that it was refused.
    Failed,
}

/// A child's failure to do its job, classified. Ends the attempt, not the life.
///
/// The message is for the caller and the operator; it may hold user data, so events, metrics and
/// dumps carry only the class and the code.
#[derive(Clone, Serialize, Deserialize)]
pub struct Fault {
    /// How it is treated.
    pub class: Class,
    /// The provider's or tool's own short code, such as `rate_limit_exceeded` or `503`.
    pub code: Option<Cow<'static, str>>,
    /// What happened, for people.
    pub message: Cow<'static, str>,
    /// How long the other side asked us to wait.
    pub retry_after: Option<Duration>,
    /// What is known about the effect.
    pub effect: EffectState,
    /// The child turned the request away by limits of its own: see [`Fault::by_own_limits`]. It is not
    /// stored with the fault.
    #[serde(skip)]
    pub own_limits: bool,
    /// What the next attempt at the request should know to do better: it finds it in
    /// [`Context::feedback`](crate::behavior::Context::feedback). It may hold user data and, as the
    /// cause, is not stored with the fault.
    #[serde(skip)]
    pub feedback: Option<Arc<str>>,
    /// The typed cause. It is not stored with the fault.
    #[serde(skip)]
    pub source: Option<Arc<dyn Error + Send + Sync>>,
}

impl Fault {
    /// A fault of this class, with nothing known about its effect.
    pub fn new(class: Class, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            class,
            code: None,
            message: message.into(),
            retry_after: None,
            effect: EffectState::Unstated,
            own_limits: false,
            feedback: None,
            source: None,
        }
    }

    /// The same fault with the other side's code.
    #[must_use]
    pub fn with_code(mut self, code: impl Into<Cow<'static, str>>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// The same fault with the wait the other side asked for.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The same fault, saying that the request took no effect.
    #[must_use]
    pub fn not_applied(mut self) -> Self {
        self.effect = EffectState::NotApplied;
        self
    }

    /// The same fault, saying that nobody knows whether the request took effect.
    #[must_use]
    pub fn effect_unknown(mut self) -> Self {
        self.effect = EffectState::Unknown;
        self
    }

    /// The same fault, saying that the other side has failed and may have done a part: for a class that is a
    /// [refusal](Class::is_refusal) where nothing shows that it was refused before anything was done.
    #[must_use]
    pub fn effect_failed(mut self) -> Self {
        self.effect = EffectState::Failed;
        self
    }

    /// The same fault, saying that the child keeps to limits of its own and nobody else was asked. It says
    /// nothing about the account: the quota domain stays open, whatever [wait](Fault::retry_after) this
    /// request is told, and any sibling may take it. Nor does it say that the child is ill: no circuit
    /// counts it. Of [`Class::BudgetDenied`] it says that the budget does not cover what *this* child may
    /// cost: a cheaper sibling may be asked, where else that class ends the request.
    #[must_use]
    pub fn by_own_limits(mut self) -> Self {
        self.own_limits = true;
        self
    }

    /// The same fault with what the next attempt should know, be it a retry or a substitute's: what the
    /// compiler said, which example failed. An attempt that is told something new differs from the one
    /// that failed, which is what a retry of [`Class::OutputInvalid`] needs. Without text it is no
    /// feedback.
    #[must_use]
    pub fn with_feedback(mut self, feedback: impl Into<Arc<str>>) -> Self {
        self.feedback = Some(feedback.into()).filter(|feedback| !feedback.is_empty());
        self
    }

    /// The class that says whether whoever failed with this is well: of an inner ladder that was spent on
    /// what the caller had brought (too long, filtered, refused by the rules of the business) or on limits
    /// that somebody keeps to by itself, the class of that; else its own. A malformed request within a
    /// child is the child's doing. A refusal by own limits is as work that was called off: it says nothing.
    pub fn health_class(&self) -> Class {
        if self.own_limits {
            return Class::Cancelled;
        }
        let inner = self.source.as_deref().and_then(|source| source.downcast_ref::<Self>());
        match (self.class, inner.map(Self::health_class)) {
            (
                Class::Exhausted,
                Some(
                    class @ (Class::ContextLength
                    | Class::ContentFiltered
                    | Class::Business
                    | Class::Cancelled),
                ),
            ) => class,
            (class, _) => class,
        }
    }

    /// The fault that an inner ladder was spent on, however deep; itself for one of no inner ladder.
    pub fn innermost(&self) -> &Self {
        let mut fault = self;
        while fault.class == Class::Exhausted
            && let Some(inner) = fault.source.as_deref().and_then(|it| it.downcast_ref::<Self>())
        {
            fault = inner;
        }
        fault
    }

    /// The same fault with its typed cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// Whether the attempt may be executed again by a child whose work is of this kind: the kind is
    /// replay-safe, or the fault shows that nothing happened.
    pub const fn is_replay_safe(&self, kind: EffectKind) -> bool {
        match self.effect {
            _ if kind.is_replay_safe() => true,
            EffectState::NotApplied => true,
            EffectState::Unknown | EffectState::Failed => false,
            EffectState::Unstated => self.class.is_refusal(),
        }
    }

    /// Whether the outcome of an effect of this kind is unknown after this fault: not replay-safe, and
    /// either stated so or a class that cannot tell (timeout, indeterminate, server error, internal).
    pub const fn leaves_unknown(&self, kind: EffectKind) -> bool {
        match self.effect {
            _ if kind.is_replay_safe() => false,
            EffectState::Unknown => true,
            EffectState::NotApplied | EffectState::Failed => false,
            EffectState::Unstated => matches!(
                self.class,
                Class::Timeout | Class::Indeterminate | Class::ServerTransient | Class::Internal
            ),
        }
    }
}

macro_rules! constructors {
    ($($name:ident => $class:ident),* $(,)?) => {
        /// One constructor a class.
        impl Fault {
            $(
                #[doc = concat!("A [`Class::", stringify!($class), "`] fault.")]
                pub fn $name(message: impl Into<Cow<'static, str>>) -> Self {
                    Self::new(Class::$class, message)
                }
            )*
        }
    };
}

constructors! {
    network => Network,
    timeout => Timeout,
    rate_limit => RateLimit,
    model_unavailable => ModelUnavailable,
    input_validation => InputValidation,
    tool_execution => ToolExecution,
    context_length => ContextLength,
    permission => Permission,
    overloaded => Overloaded,
    server_transient => ServerTransient,
    quota_exhausted => QuotaExhausted,
    content_filtered => ContentFiltered,
    output_invalid => OutputInvalid,
    indeterminate => Indeterminate,
    business => Business,
    budget_denied => BudgetDenied,
    exhausted => Exhausted,
    cancelled => Cancelled,
    internal => Internal,
    unknown => Unknown,
}

impl PartialEq for Fault {
    /// Equal in everything but the typed cause, which has no equality.
    fn eq(&self, other: &Self) -> bool {
        self.class == other.class
            && self.code == other.code
            && self.message == other.message
            && self.retry_after == other.retry_after
            && self.effect == other.effect
            && self.own_limits == other.own_limits
            && self.feedback == other.feedback
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fault")
            .field("class", &self.class)
            .field("code", &self.code)
            .field("message", &self.message)
            .field("retry_after", &self.retry_after)
            .field("effect", &self.effect)
            .field("own_limits", &self.own_limits)
            .field("feedback", &self.feedback.is_some())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.class)?;
        if let Some(code) = &self.code {
            write!(f, " ({code})")?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        Ok(())
    }
}

impl Error for Fault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

/// Why a life ended. Never disguised as a normal exit.
///
/// Texts inside may hold user data (a panic message often does); events and dumps show only
/// [`ExitCause::kind`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ExitCause {
    /// The behavior ended by itself, its work done.
    Normal,
    /// A supervisor or an operator stopped it.
    Stopped,
    /// It panicked; the payload as text.
    Panic(String),
    /// It did not yield within its grace after the attempt timeout.
    Hang,
    /// Its actor was killed from outside.
    Killed,
    /// Its constructor or its start failed; why.
    StartFailed(String),
    /// The state it would start from is bad.
    Poisoned(String),
    /// A fault of a class whose restart strategy ends the life.
    Faulted(Class),
    /// A supervisor gave up: more restarts than its intensity allows.
    Intensity {
        /// The child whose exit was one too many.
        child: ChildPath,
        /// Why that child exited.
        cause: Box<ExitCause>,
        /// Restarts counted within the period, this one included.
        restarts: u32,
        /// The period.
        period: Duration,
    },
}

impl ExitCause {
    /// The kind of the cause, without any text.
    pub const fn kind(&self) -> ExitKind {
        match self {
            Self::Normal => ExitKind::Normal,
            Self::Stopped => ExitKind::Stopped,
            Self::Panic(_) => ExitKind::Panic,
            Self::Hang => ExitKind::Hang,
            Self::Killed => ExitKind::Killed,
            Self::StartFailed(_) => ExitKind::StartFailed,
            Self::Poisoned(_) => ExitKind::Poisoned,
            Self::Faulted(_) => ExitKind::Faulted,
            Self::Intensity { .. } => ExitKind::Intensity,
        }
    }

    /// Whether the life ended as it should: by itself, or because it was asked to. A transient child
    /// is restarted after every other end.
    pub const fn is_normal(&self) -> bool {
        matches!(self, Self::Normal | Self::Stopped)
    }
}

impl fmt::Display for ExitCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panic(text) => write!(f, "panicked: {text}"),
            Self::StartFailed(text) => write!(f, "start failed: {text}"),
            Self::Poisoned(text) => write!(f, "poisoned: {text}"),
            Self::Faulted(class) => write!(f, "ended by a {class} fault"),
            Self::Intensity { child, cause, restarts, period } => write!(
                f,
                "restart intensity exceeded: {restarts} restarts in {period:?}, last child \"{child}\" ({cause})"
            ),
            other => write!(f, "{}", other.kind()),
        }
    }
}

/// The kind of an [`ExitCause`]: what events, metrics and dumps show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ExitKind {
    /// See [`ExitCause::Normal`].
    Normal,
    /// See [`ExitCause::Stopped`].
    Stopped,
    /// See [`ExitCause::Panic`].
    Panic,
    /// See [`ExitCause::Hang`].
    Hang,
    /// See [`ExitCause::Killed`].
    Killed,
    /// See [`ExitCause::StartFailed`].
    StartFailed,
    /// See [`ExitCause::Poisoned`].
    Poisoned,
    /// See [`ExitCause::Faulted`].
    Faulted,
    /// See [`ExitCause::Intensity`].
    Intensity,
}

impl fmt::Display for ExitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Normal => "normal",
            Self::Stopped => "stopped",
            Self::Panic => "panic",
            Self::Hang => "hang",
            Self::Killed => "killed",
            Self::StartFailed => "start failed",
            Self::Poisoned => "poisoned",
            Self::Faulted => "faulted",
            Self::Intensity => "restart intensity exceeded",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_four_playbook_classes_are_retryable() {
        let retryable: Vec<_> = Class::PLAYBOOK.into_iter().filter(|c| c.is_retryable()).collect();
        assert_eq!(
            retryable,
            [Class::Network, Class::Timeout, Class::RateLimit, Class::ToolExecution]
        );
    }

    #[test]
    fn every_extension_counts_under_one_of_the_eight() {
        for class in Class::ALL {
            assert!(Class::PLAYBOOK.contains(&class.playbook()), "{class}");
        }
        for class in Class::PLAYBOOK {
            assert_eq!(class.playbook(), class);
        }
    }

    #[test]
    fn an_irreversible_timeout_leaves_its_outcome_unknown_and_a_refusal_does_not() {
        let kind = EffectKind::Irreversible;
        assert!(Fault::timeout("").leaves_unknown(kind));
        assert!(!Fault::timeout("").leaves_unknown(EffectKind::Read));
        assert!(!Fault::timeout("").not_applied().leaves_unknown(kind));
        assert!(!Fault::network("refused").leaves_unknown(kind));
        assert!(Fault::network("refused").is_replay_safe(kind));
        assert!(!Fault::network("reset").effect_unknown().is_replay_safe(kind));
        assert!(!Fault::tool_execution("").is_replay_safe(kind));
        assert!(Fault::business("no").is_replay_safe(kind));
        let failed = Fault::business("no").effect_failed();
        assert!(!failed.is_replay_safe(kind) && !failed.leaves_unknown(kind));
        assert!(failed.is_replay_safe(EffectKind::Idempotent));
    }

    #[test]
    fn own_limits_say_nothing_about_health_however_deep_they_were_met() {
        let own = Fault::rate_limit("").by_own_limits();
        let outer = |inner: &Fault| Fault::exhausted("").with_source(inner.clone());
        for fault in [own.clone(), outer(&own), outer(&outer(&own))] {
            assert!(!fault.health_class().tells_of_health(), "{fault:?}");
        }
        let theirs = Fault::rate_limit("");
        for fault in [theirs.clone(), outer(&theirs)] {
            assert!(fault.health_class().tells_of_health(), "{fault:?}");
        }
    }
}
