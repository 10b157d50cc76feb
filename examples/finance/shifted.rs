//! A clock whose wall time is wrong by a fixed amount, as after a jump.

use std::pin::Pin;
use std::time::{Duration, SystemTime};

use mainstay::clock::{Clock, TokioClock};
use mainstay::moment::Moment;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Shifted {
    real: TokioClock,
    seconds: i64,
}

impl Shifted {
    pub(crate) fn new(seconds: i64) -> Self {
        Self { real: TokioClock::new(), seconds }
    }
}

impl Clock for Shifted {
    fn now(&self) -> Moment {
        self.real.now()
    }

    fn wall(&self) -> SystemTime {
        let jump = Duration::from_secs(self.seconds.unsigned_abs());
        let now = self.real.wall();
        let shifted = if self.seconds < 0 { now.checked_sub(jump) } else { now.checked_add(jump) };
        shifted.unwrap_or(now)
    }

    fn sleep_until(&self, at: Moment) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.real.sleep_until(at)
    }
}
