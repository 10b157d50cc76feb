//! An answer that comes after the fate of its request.
//!
//! *Invariant.* It changes no fate. It is for whoever has to know how the work ended, and lets them go when the
//! last who works on the request has let go of it.

use std::any::Any;

use parking_lot::Mutex;
use tokio::sync::oneshot::{self, Receiver, Sender};

/// Goes with a request, to whom its answer is of use however late it comes.
pub(crate) struct Late(Mutex<Option<Sender<Box<dyn Any + Send>>>>);

impl Late {
    pub(super) fn new() -> (Self, Receiver<Box<dyn Any + Send>>) {
        let (tell, told) = oneshot::channel();
        (Self(Mutex::new(Some(tell))), told)
    }

    /// There it is.
    pub(crate) fn tell(&self, answer: Box<dyn Any + Send>) {
        let tell = self.0.lock().take();
        if let Some(Err(unheard)) = tell.map(|tell| tell.send(answer)) {
            // The user's reply, dropped in the runtime's own task.
            let _ = super::dropped(unheard);
        }
    }

    /// It will not come: whoever works on it hangs.
    pub(crate) fn give_up(&self) {
        drop(self.0.lock().take());
    }
}
