//! The wait of a request for its own acceptance to be durable.

use std::any::Any;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::checkpoint::Durability;
use crate::error::StoreError;

/// How the fates of a durable child's or group's requests are written down.
#[derive(Clone, Copy)]
pub(crate) struct Recording {
    pub(crate) write_reply: fn(&dyn Any) -> Result<Vec<u8>, String>,
    pub(crate) durability: Durability,
}

/// Opened once, with what the store says.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    result: Mutex<Option<Result<(), StoreError>>>,
    opened: Notify,
}

impl Gate {
    pub(crate) fn open(&self, result: Result<(), StoreError>) {
        *self.result.lock() = Some(result);
        self.opened.notify_waiters();
    }

    /// What the store says, once it has said it.
    pub(crate) async fn passed(&self) -> Result<(), StoreError> {
        loop {
            let opened = self.opened.notified();
            let mut opened = std::pin::pin!(opened);
            // Listening before looking, so that an opening in between is not missed.
            opened.as_mut().enable();
            if let Some(result) = self.result.lock().clone() {
                return result;
            }
            opened.await;
        }
    }
}
