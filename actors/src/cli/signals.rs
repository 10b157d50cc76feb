//! The signals that ask a process to end, and not only to call off what it does: from `kill`, a container,
//! a service manager or `timeout`, and from a terminal that is closed.
//!
//! *Invariant.* Whoever has these signals answers them: from then on the system no longer ends the process.

use std::fmt;

#[cfg(unix)]
mod stuck;

/// Why the command ended before its work was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    name: &'static str,
    number: u8,
    /// Whether a program was told of it, with what else there was to say.
    told: bool,
}

impl Ended {
    const fn by(name: &'static str, number: u8) -> Self {
        Self { name, number, told: false }
    }

    /// The same, and a program was told.
    pub(crate) const fn told(self) -> Self {
        Self { told: true, ..self }
    }

    pub(crate) const fn is_told(self) -> bool {
        self.told
    }

    /// As shells have it.
    pub(crate) fn code(self) -> u8 {
        128 + self.number
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ended by {}", self.name)
    }
}

impl std::error::Error for Ended {}

impl Signals {
    /// The next one, Ctrl-C among them: where nothing is asked yet that could be called off.
    pub(crate) async fn next_or_interrupt(&mut self) -> Ended {
        tokio::select! {
            ended = self.next() => ended,
            () = super::run::interrupted() => Ended::by("SIGINT", 2),
        }
    }
}

#[cfg(unix)]
pub(crate) struct Signals {
    terminate: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    pub(crate) fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        super::run::hear_interrupts();
        stuck::watch();
        let (terminate, hang_up) = (SignalKind::terminate(), SignalKind::hangup());
        Ok(Self { terminate: signal(terminate)?, hang_up: signal(hang_up)? })
    }

    /// The next one.
    pub(crate) async fn next(&mut self) -> Ended {
        tokio::select! {
            _ = self.terminate.recv() => Ended::by("SIGTERM", 15),
            _ = self.hang_up.recv() => Ended::by("SIGHUP", 1),
        }
    }
}

#[cfg(not(unix))]
pub(crate) struct Signals;

#[cfg(not(unix))]
impl Signals {
    pub(crate) fn new() -> std::io::Result<Self> {
        super::run::hear_interrupts();
        Ok(Self)
    }

    /// There are none here.
    pub(crate) async fn next(&mut self) -> Ended {
        std::future::pending().await
    }
}
