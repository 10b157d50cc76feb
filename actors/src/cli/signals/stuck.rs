//! A command that is asked to end while it writes to somebody who does not read: who waits for the signals is then
//! the one who writes.
//!
//! *Invariant.* Nothing is cut off that is being read, and a command that hears its signals itself is left alone.

use std::sync::Once;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::super::{Writing, run};

/// How long somebody has to read on, once the command is to end.
const READS_ON: Duration = Duration::from_secs(5);

/// From now on a process that is stuck so is ended: by SIGTERM or SIGHUP when nothing was read for a time, and by a
/// second signal of any kind at once.
pub(super) fn watch() {
    static WATCHED: Once = Once::new();
    // In a thread and a runtime of its own: no other can be stuck with it. Without them such a process is ended by
    // SIGKILL alone.
    WATCHED.call_once(|| {
        let thread = std::thread::Builder::new().name("signals".to_owned());
        let _ = thread.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let Ok(runtime) = runtime else { return };
            runtime.block_on(async {
                if let Ok(signals) = Signals::new() {
                    signals.end_who_is_stuck().await;
                }
            });
        });
    });
}

struct Signals {
    terminate: Signal,
    hang_up: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.hang_up.recv() => SignalKind::hangup(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
        }
    }

    async fn end_who_is_stuck(mut self) {
        let mut asked = self.next().await;
        loop {
            let before = Writing::now();
            // Ctrl-C only calls off what is asked, and a pager hears it as well.
            let is_to_end = asked != SignalKind::interrupt();
            let again = tokio::select! {
                next = self.next() => Some(next),
                () = tokio::time::sleep(READS_ON), if is_to_end => None,
            };
            if Writing::is_stuck_since(before) {
                run::restore_terminal();
                std::process::exit(128 + asked.as_raw_value());
            }
            asked = match again {
                Some(next) => next,
                None => self.next().await,
            };
        }
    }
}
