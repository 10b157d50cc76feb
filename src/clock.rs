//! The only reader of time.
//!
//! *Invariant.* Nothing else in the runtime asks what time it is; judgement is handed a [`Moment`].

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::SystemTime;

use crate::moment::Moment;

/// A source of time. Handed to [`SystemOptions`](crate::system::SystemOptions).
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// Now, on a clock that never goes back.
    fn now(&self) -> Moment;
    /// Now, on the clock people read. It may jump; nothing but records uses it.
    fn wall(&self) -> SystemTime;
    /// Completes at `at` or as soon after as the implementation can tell; at once if it has passed,
    /// never for [`Moment::NEVER`].
    fn sleep_until(&self, at: Moment) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// The real clock: tokio's, so that `tokio::time::pause` gives tests virtual time.
///
/// # Limits
/// Sleeps end on whole milliseconds of tokio's timer, never early.
#[derive(Clone, Copy, Debug)]
pub struct TokioClock {
    start: tokio::time::Instant,
}

impl TokioClock {
    /// A clock that starts at [`Moment::START`] now.
    pub fn new() -> Self {
        Self { start: tokio::time::Instant::now() }
    }
}

impl Default for TokioClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Moment {
        Moment::START + self.start.elapsed()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn sleep_until(&self, at: Moment) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        if at.is_never() {
            return Box::pin(std::future::pending());
        }
        let start = self.start;
        Box::pin(async move { tokio::time::sleep_until(start + at.since_start()).await })
    }
}
