//! Ctrl-C, whenever it comes.
//!
//! *Invariant.* From the first wait on, none is lost between two waits, and none ends the process by itself.

use std::sync::OnceLock;

use tokio::sync::Notify;

/// Waits for the next Ctrl-C, or takes one that has come since the last wait.
pub(crate) async fn interrupted() {
    static HEARD: OnceLock<Notify> = OnceLock::new();
    let mut is_first = false;
    let heard = HEARD.get_or_init(|| {
        is_first = true;
        Notify::new()
    });
    if is_first {
        listen(heard);
    }
    heard.notified().await;
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
