//! A child whose kind of effect is part of its type, so that what must not be repeated cannot be told to
//! retry.

use std::fmt;
use std::marker::PhantomData;

use super::ChildSpec;
use crate::fault::EffectKind;
use crate::policy::Policy;

mod sealed {
    pub trait Sealed {}
}

/// A kind of effect as a type. Sealed.
pub trait Kind: sealed::Sealed + 'static {
    /// The kind.
    const KIND: EffectKind;
}

/// A kind that may be repeated without knowing how the last time ended. Sealed.
pub trait Repeatable: Kind {}

macro_rules! kinds {
    ($($name:ident $(: $repeatable:ident)?, $doc:literal;)*) => {
        $(
            #[doc = $doc]
            #[derive(Clone, Copy, Debug)]
            pub enum $name {}
            impl sealed::Sealed for $name {}
            impl Kind for $name {
                const KIND: EffectKind = EffectKind::$name;
            }
            $(impl $repeatable for $name {})?
        )*
    };
}

kinds! {
    Pure: Repeatable, "[`EffectKind::Pure`] as a type.";
    Read: Repeatable, "[`EffectKind::Read`] as a type.";
    Idempotent: Repeatable, "[`EffectKind::Idempotent`] as a type.";
    Verifiable, "[`EffectKind::Verifiable`] as a type.";
    Compensable, "[`EffectKind::Compensable`] as a type.";
    Irreversible, "[`EffectKind::Irreversible`] as a type.";
}

/// A child that acts on the world in this way: made by [`ChildSpec::acts`], a [`ChildSpec`] again with
/// [`From`].
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
/// use mainstay::spec::{ChildSpec, acting::Idempotent};
///
/// let keyed = ChildSpec::stateless("mail", || Mail).acts::<Idempotent>().retry(Policy::new());
/// # let _: ChildSpec = keyed.into();
/// ```
///
/// What cannot be repeated cannot be told to:
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
/// let blind = ChildSpec::stateless("mail", || Mail).acts::<Irreversible>().retry(Policy::new());
/// ```
#[must_use = "a spec starts nothing"]
pub struct Acting<K> {
    spec: ChildSpec,
    kind: PhantomData<fn() -> K>,
}

impl ChildSpec {
    /// The same child, with its kind of effect in its type. As [`ChildSpec::effect`], but what follows
    /// is checked when it is compiled.
    pub fn acts<K: Kind>(self) -> Acting<K> {
        // Until it is told to, it repeats nothing.
        let spec = self.effect(K::KIND).policy(Policy::without_retries());
        Acting { spec, kind: PhantomData }
    }
}

impl<K: Repeatable> Acting<K> {
    /// Retries as this policy says.
    ///
    /// # Default
    /// No retries, and no second delivery after a crash.
    pub fn retry(mut self, policy: Policy) -> Self {
        self.spec = self.spec.policy(policy);
        self
    }
}

impl<K> From<Acting<K>> for ChildSpec {
    fn from(acting: Acting<K>) -> Self {
        acting.spec
    }
}

impl<K: Kind> fmt::Debug for Acting<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acting").field("kind", &K::KIND).field("spec", &self.spec).finish()
    }
}
