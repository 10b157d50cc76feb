//! The user's values and code in the runtime's hands.
//!
//! *Invariant.* A panic in them comes back as its text; dropping what is kept here never unwinds into
//! the runtime.

use std::any::Any;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs user code that does not wait. A panic comes back as its text.
///
/// What catches is compiled once and not for each caller: a slot has dozens of them, for each behavior of a
/// user. It costs a call through a pointer; see [`unwound_here`].
pub(crate) fn unwound<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    let mut run = Some(run);
    let mut made = None;
    caught(&mut || made = run.take().map(|run| run()))?;
    Ok(made.expect("it has run to its end"))
}

fn caught(run: &mut dyn FnMut()) -> Result<(), String> {
    unwound_here(run)
}

/// As [`unwound`], compiled for its caller: for what every request passes.
#[inline]
pub(crate) fn unwound_here<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(panic_text)
}

/// Drops a user's value. A panic comes back as its text.
#[inline]
pub(crate) fn dropped<T>(value: T) -> Result<(), String> {
    // A type without a destructor has nothing that could panic.
    if std::mem::needs_drop::<T>() { unwound_here(move || drop(value)) } else { Ok(()) }
}

/// The text of a panic's payload. A payload may panic when it is dropped; that is nobody's news.
pub(crate) fn panic_text(payload: Box<dyn Any + Send>) -> String {
    let text = if let Some(text) = payload.downcast_ref::<&'static str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a payload that is no text".to_owned()
    };
    if let Err(again) = catch_unwind(AssertUnwindSafe(move || drop(payload))) {
        // This one might do the same: it is left alone.
        std::mem::forget(again);
    }
    text
}

/// Holds a request.
pub(crate) struct Kept<Q>(Option<Q>);

impl<Q> Kept<Q> {
    pub(crate) fn new(value: Q) -> Self {
        Self(Some(value))
    }

    pub(crate) fn into_inner(mut self) -> Q {
        self.0.take().expect("it is taken only here, by value")
    }
}

impl<Q> Deref for Kept<Q> {
    type Target = Q;

    fn deref(&self) -> &Q {
        self.0.as_ref().expect("it is taken only by value")
    }
}

impl<Q> Drop for Kept<Q> {
    fn drop(&mut self) {
        let _ = dropped(self.0.take());
    }
}
