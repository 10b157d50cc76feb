//! A request that is handled again only for what it has made of the state: meanwhile nobody is asked for
//! anything.
//!
//! *Invariant.* Whether a step is being replayed is known wherever its code runs, also to ports that the
//! behavior holds itself; it is forgotten at every await, so that nobody else is taken for one.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context as TaskContext, Poll};

/// Replays under way anywhere: while there are none, nobody looks further.
static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static HERE: Cell<Stage> = const { Cell::new(Stage::Elsewhere) };
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Elsewhere,
    Replaying,
    /// It has asked for something all the same.
    Asked,
}

/// Whether this is asked by a step that is replayed, which is then known to have asked.
#[inline]
pub(crate) fn is_replayed() -> bool {
    UNDER_WAY.load(Ordering::Relaxed) > 0 && note()
}

#[cold]
fn note() -> bool {
    HERE.with(|here| {
        let replayed = here.get() != Stage::Elsewhere;
        if replayed {
            here.set(Stage::Asked);
        }
        replayed
    })
}

/// Runs a step as one that is replayed. Says whether it has asked for something, which it was not given.
pub(crate) struct Replayed<F> {
    step: Pin<Box<F>>,
    asked: bool,
}

impl<F: Future> Replayed<F> {
    /// Made inside, since the code that makes a future may ask, too.
    pub(crate) fn new(make: impl FnOnce() -> F) -> Self {
        UNDER_WAY.fetch_add(1, Ordering::Relaxed);
        let over = Over;
        let (step, asked) = here(|| Box::pin(make()));
        std::mem::forget(over);
        Self { step, asked }
    }
}

/// Counted down also by one that panics while it is made.
struct Over;

impl Drop for Over {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<F> Drop for Replayed<F> {
    fn drop(&mut self) {
        drop(Over);
    }
}

impl<F: Future> Future for Replayed<F> {
    type Output = (F::Output, bool);

    fn poll(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let (polled, asked) = here(|| self.step.as_mut().poll(task));
        self.asked |= asked;
        polled.map(|output| (output, self.asked))
    }
}

/// Runs this as a part of a replay; whether it has asked for something.
fn here<T>(run: impl FnOnce() -> T) -> (T, bool) {
    /// A panic leaves it, too.
    struct Back(Stage);
    impl Drop for Back {
        fn drop(&mut self) {
            HERE.set(self.0);
        }
    }
    let back = Back(HERE.replace(Stage::Replaying));
    let done = run();
    let asked = HERE.get() == Stage::Asked;
    drop(back);
    (done, asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_code_of_a_replay_is_taken_for_one() {
        assert!(!is_replayed());
        let replayed = Replayed::new(|| async {
            tokio::task::yield_now().await;
            is_replayed()
        });
        // Made, and not polled: nobody else is one meanwhile.
        assert!(!is_replayed());
        assert_eq!(replayed.await, (true, true));
        assert_eq!(Replayed::new(|| async { 1 }).await, (1, false));
        assert!(!is_replayed());
    }

    #[test]
    fn a_replay_that_panics_leaves_nothing_behind() {
        for _ in 0..100 {
            let torn = std::panic::catch_unwind(|| {
                drop(Replayed::new(|| -> std::future::Ready<()> { panic!("made") }));
            });
            assert!(torn.is_err());
            assert!(HERE.get() == Stage::Elsewhere);
        }
        // Other tests replay at the same time, but not as many.
        assert!(UNDER_WAY.load(Ordering::Relaxed) < 50);
    }
}
