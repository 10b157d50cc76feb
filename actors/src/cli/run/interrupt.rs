//! Ctrl-C, whenever it comes.
//!
//! *Invariant.* From the first wait on, or once they are heard, none is lost between two waits, and none ends
//! the process by itself.

use std::sync::OnceLock;

use tokio::sync::Notify;

/// Waits for the next Ctrl-C, or takes one that has come since the last wait.
pub(crate) async fn interrupted() {
    heard().notified().await;
}

/// From now on none is lost, and none ends the process by itself.
pub(crate) fn hear_interrupts() {
    heard();
}

fn heard() -> &'static Notify {
    static HEARD: OnceLock<Notify> = OnceLock::new();
    let mut is_first = false;
    let heard = HEARD.get_or_init(|| {
        is_first = true;
        Notify::new()
    });
    if is_first {
        listen(heard);
    }
    heard
}

#[cfg(unix)]
fn listen(heard: &'static Notify) {
    use tokio::signal::unix::{SignalKind, signal};

    let Ok(mut signals) = signal(SignalKind::interrupt()) else { return };
    tokio::spawn(async move {
        while signals.recv().await.is_some() {
            heard.notify_one();
        }
    });
}

#[cfg(not(unix))]
fn listen(heard: &'static Notify) {
    tokio::spawn(async move {
        while tokio::signal::ctrl_c().await.is_ok() {
            heard.notify_one();
        }
    });
}
