//! The last resort: [`DefaultAnswer`] gives the same value whatever it is asked.
//!
//! *Invariant.* It cannot fail, and its answers are marked: whoever gets one can see that nobody
//! worked for it.

use std::fmt;
use std::marker::PhantomData;

use mainstay::behavior::{Behavior, Context, Stateless};
use mainstay::fault::{EffectKind, Fault};
use mainstay::spec::Kind;
use mainstay::spec::{ChildSpec, Role};

/// Answers every request with a clone of one value, marked as defaulted and so as degraded.
///
/// `Q` is the request of the group it stands in, and follows from it.
///
/// # Limits
/// It cannot fail unless the value's `clone` panics.
pub struct DefaultAnswer<Q, R> {
    value: R,
    request: PhantomData<fn(&Q)>,
}

impl<Q, R> DefaultAnswer<Q, R> {
    /// Answers with this value.
    pub const fn new(value: R) -> Self {
        Self { value, request: PhantomData }
    }
}

impl<Q: Send + Sync + 'static, R: Clone + Send + Sync + 'static> DefaultAnswer<Q, R> {
    /// The child spec: stateless, kind and role of a default answer, 64 attempts at a time.
    pub fn spec(self, id: impl AsRef<str>) -> ChildSpec {
        ChildSpec::stateless(id, move || self.clone()).kind(Kind::Output).concurrency(64)
    }
}

impl<Q, R: Clone> Clone for DefaultAnswer<Q, R> {
    fn clone(&self) -> Self {
        Self::new(self.value.clone())
    }
}

impl<Q, R> fmt::Debug for DefaultAnswer<Q, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DefaultAnswer").finish_non_exhaustive()
    }
}

impl<Q: Send + Sync + 'static, R: Clone + Send + Sync + 'static> Behavior for DefaultAnswer<Q, R> {
    type Request = Q;
    type Reply = R;
    const EFFECT: Option<EffectKind> = Some(EffectKind::Pure);
    const ROLE: Role = Role::Default;
}

impl<Q: Send + Sync + 'static, R: Clone + Send + Sync + 'static> Stateless for DefaultAnswer<Q, R> {
    async fn serve(&self, _: &Q, ctx: &Context) -> Result<R, Fault> {
        ctx.mark_defaulted();
        Ok(self.value.clone())
    }
}
