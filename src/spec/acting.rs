//! A child whose kind of effect is part of its type, so that what cannot be undone or repeated cannot be
//! told to retry.
//!
//! *Invariant.* A child that is irreversible by its type has no policy of its own, and none above it has
//! it retried. There is no way back from [`Acting`] of such a kind to a [`ChildSpec`], which takes one.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{
    BetweenLives, Capabilities, ChildSpec, DomainSpec, Durability, Interval, RestartType, Role,
    Shutdown,
};
use crate::behavior::Behavior;
use crate::fault::EffectKind;
use crate::policy::Policy;
use crate::port::PortType;

mod sealed {
    pub trait Sealed {}
}

/// A kind of effect as a type. Sealed.
pub trait Kind: Declares<Spec = Acting<Self>> + fmt::Debug + Copy + Send + Sync + 'static {
    /// The kind.
    const KIND: EffectKind;
}

/// A kind whose failures may be answered with a policy that retries: all but [`Irreversible`]. Where the
/// outcome of an attempt is unknown, the policy still repeats only what is pure, read or idempotent.
/// Sealed.
pub trait Retryable: Kind {}

/// What a tool says it does to the world: one of the types here, or [`AtRunTime`]. Sealed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a kind of effect",
    note = "name it as a type, as `Read` or `Irreversible` in `mainstay::spec::acting`, so that an \
            irreversible tool cannot be told to retry",
    note = "where the kind is found out while the program runs, wrap it: `AtRunTime(kind)`"
)]
pub trait Declares: sealed::Sealed + Clone + Send + Sync + 'static {
    /// The spec of a child that does this: with a way to give it a policy, or without.
    type Spec: Into<AnyChild>;

    /// The kind.
    fn kind(&self) -> EffectKind;

    /// The spec of a child that does this.
    fn declare(self, spec: ChildSpec) -> Self::Spec;
}

macro_rules! kinds {
    ($($name:ident $(: $retryable:ident)?, $doc:literal;)*) => {
        $(
            #[doc = $doc]
            #[derive(Clone, Copy, Debug)]
            pub struct $name;
            impl sealed::Sealed for $name {}
            impl Declares for $name {
                type Spec = Acting<Self>;
                fn kind(&self) -> EffectKind {
                    EffectKind::$name
                }
                fn declare(self, spec: ChildSpec) -> Acting<Self> {
                    spec.acts::<Self>()
                }
            }
            impl Kind for $name {
                const KIND: EffectKind = EffectKind::$name;
            }
            $(impl $retryable for $name {})?
        )*
    };
}

kinds! {
    Pure: Retryable, "[`EffectKind::Pure`] as a type.";
    Read: Retryable, "[`EffectKind::Read`] as a type.";
    Idempotent: Retryable, "[`EffectKind::Idempotent`] as a type.";
    Verifiable: Retryable, "[`EffectKind::Verifiable`] as a type.";
    Compensable: Retryable, "[`EffectKind::Compensable`] as a type.";
    Irreversible, "[`EffectKind::Irreversible`] as a type.";
}

/// A kind that is found out while the program runs, from a file or from a server. The spec takes any
/// policy, and one that retries what is irreversible is refused when the tree is checked
/// ([`SpecError::RetriesIrreversible`](crate::error::SpecError::RetriesIrreversible)).
#[derive(Clone, Copy, Debug)]
pub struct AtRunTime(pub EffectKind);

impl sealed::Sealed for AtRunTime {}

impl Declares for AtRunTime {
    type Spec = ChildSpec;

    fn kind(&self) -> EffectKind {
        self.0
    }

    fn declare(self, spec: ChildSpec) -> ChildSpec {
        spec.effect(self.0)
    }
}

/// A child spec in its place in a tree, whatever its type was: from a [`ChildSpec`] or an [`Acting`] with
/// [`From`].
#[derive(Clone, Debug)]
pub struct AnyChild(pub(crate) ChildSpec);

impl From<ChildSpec> for AnyChild {
    fn from(spec: ChildSpec) -> Self {
        Self(spec)
    }
}

impl<K> From<Acting<K>> for AnyChild {
    fn from(acting: Acting<K>) -> Self {
        Self(acting.spec)
    }
}

/// A child that acts on the world in this way: made by [`ChildSpec::acts`], with the options of a
/// [`ChildSpec`].
///
/// ```
/// # use mainstay::behavior::{Behavior, Context, Stateless};
/// # use mainstay::fault::Fault;
/// # #[derive(Clone)] struct Mail;
/// # impl Behavior for Mail { type Request = String; type Reply = (); }
/// # impl Stateless for Mail {
/// #     async fn serve(&self, _: &String, _: &Context) -> Result<(), Fault> { Ok(()) }
/// # }
/// use mainstay::policy::Policy;
/// use mainstay::spec::{ChildSpec, SupervisorSpec, acting::{Idempotent, Irreversible}};
///
/// let keyed = ChildSpec::stateless("mail", || Mail).acts::<Idempotent>().policy(Policy::new());
/// let blind = ChildSpec::stateless("letter", || Mail).acts::<Irreversible>().concurrency(8);
/// let office = SupervisorSpec::one_for_one("office").child(keyed).child(blind);
/// # office.validate().unwrap();
/// ```
///
/// What is irreversible cannot be told to retry:
///
/// ```compile_fail,E0599
/// # use mainstay::behavior::{Behavior, Context, Stateless};
/// # use mainstay::fault::Fault;
/// # #[derive(Clone)] struct Mail;
/// # impl Behavior for Mail { type Request = String; type Reply = (); }
/// # impl Stateless for Mail {
/// #     async fn serve(&self, _: &String, _: &Context) -> Result<(), Fault> { Ok(()) }
/// # }
/// use mainstay::policy::Policy;
/// use mainstay::spec::{ChildSpec, acting::Irreversible};
///
/// let blind = ChildSpec::stateless("mail", || Mail).acts::<Irreversible>().policy(Policy::new());
/// ```
///
/// Nor does it become a spec again that could:
///
/// ```compile_fail,E0277
/// # use mainstay::behavior::{Behavior, Context, Stateless};
/// # use mainstay::fault::Fault;
/// # #[derive(Clone)] struct Mail;
/// # impl Behavior for Mail { type Request = String; type Reply = (); }
/// # impl Stateless for Mail {
/// #     async fn serve(&self, _: &String, _: &Context) -> Result<(), Fault> { Ok(()) }
/// # }
/// use mainstay::spec::{ChildSpec, acting::Irreversible};
///
/// let blind = ChildSpec::stateless("mail", || Mail).acts::<Irreversible>();
/// let blind = ChildSpec::from(blind);
/// ```
#[must_use = "a spec starts nothing"]
pub struct Acting<K> {
    spec: ChildSpec,
    kind: PhantomData<fn() -> K>,
}

impl ChildSpec {
    /// The same child, with its kind of effect in its type. As [`ChildSpec::effect`], but what follows
    /// is checked when it is compiled, and one that is [`Irreversible`] is not retried by a policy above
    /// it either, not even where nothing has happened.
    pub fn acts<K: Kind>(self) -> Acting<K> {
        let mut spec = self.effect(K::KIND);
        spec.once = K::KIND == EffectKind::Irreversible;
        Acting { spec, kind: PhantomData }
    }
}

impl<K: Retryable> Acting<K> {
    /// As [`ChildSpec::policy`].
    ///
    /// # Default
    /// Its supervisor's.
    pub fn policy(self, policy: Policy) -> Self {
        self.map(|spec| spec.policy(policy))
    }
}

impl<K: Retryable> From<Acting<K>> for ChildSpec {
    fn from(acting: Acting<K>) -> Self {
        acting.spec
    }
}

macro_rules! options {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {
        /// The options of a [`ChildSpec`], each as it is there.
        impl<K> Acting<K> {
            $(
                #[doc = concat!("As [`ChildSpec::", stringify!($name), "`].")]
                pub fn $name(self, $($argument: $type),*) -> Self {
                    self.map(|spec| spec.$name($($argument),*))
                }
            )*
        }
    };
}

options! {
    with_id(id: impl AsRef<str>);
    permanent();
    transient();
    temporary();
    restart(restart: RestartType);
    shutdown(shutdown: Shutdown);
    significant();
    lazy();
    between_lives(between: BetweenLives);
    blocking();
    concurrency(attempts: u32);
    mailbox(requests: u32);
    attempt_timeout(timeout: Duration);
    start_timeout(timeout: Duration);
    deadline(deadline: Duration);
    child_limit(restarts: u32, period: Duration);
    quota_domain(domain: impl AsRef<str>);
    quota_domain_with(domain: impl AsRef<str>, spec: DomainSpec);
    capabilities(capabilities: Capabilities);
    role(role: Role);
    kind(kind: super::Kind);
    checkpoint(interval: Interval);
    durability(durability: Durability);
    process_deaths(ends: u32);
}

impl<K> Acting<K> {
    fn map(self, change: impl FnOnce(ChildSpec) -> ChildSpec) -> Self {
        Self { spec: change(self.spec), kind: PhantomData }
    }

    /// As [`ChildSpec::id`].
    pub fn id(&self) -> &str {
        self.spec.id()
    }

    /// As [`ChildSpec::mailbox_bytes`].
    pub fn mailbox_bytes<Q: 'static>(
        self,
        bytes: usize,
        weigh: impl Fn(&Q) -> usize + Send + Sync + 'static,
    ) -> Self {
        self.map(|spec| spec.mailbox_bytes(bytes, weigh))
    }

    /// As [`ChildSpec::needs`].
    pub fn needs<P: PortType>(self, name: impl Into<String>) -> Self {
        self.map(|spec| spec.needs::<P>(name))
    }

    /// As [`ChildSpec::recorded`].
    pub fn recorded<B: Behavior>(self) -> Self
    where
        B::Request: Serialize + DeserializeOwned,
        B::Reply: Serialize + DeserializeOwned,
    {
        self.map(ChildSpec::recorded::<B>)
    }

    /// As [`ChildSpec::durable`].
    pub fn durable<B: Behavior>(self) -> Self
    where
        B::Request: Serialize + DeserializeOwned,
        B::Reply: Serialize + DeserializeOwned,
    {
        self.map(ChildSpec::durable::<B>)
    }
}

// Not derived, which would ask it of the kind.
impl<K> Clone for Acting<K> {
    fn clone(&self) -> Self {
        Self { spec: self.spec.clone(), kind: PhantomData }
    }
}

impl<K: Kind> fmt::Debug for Acting<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acting").field("kind", &K::KIND).field("spec", &self.spec).finish()
    }
}
