//! Whether the process ends with a request in hand that an earlier one has left.
//!
//! Before such a request is worked on, the journal says how often the process has ended with it in hand,
//! should it end now; and once it waits, fails, is interrupted or gets on, that it has not. The next process
//! judges the number ([`deaths`](crate::policy::deaths)). All of it survives the process and need not survive
//! a power cut, of which no request is guilty: it waits for no disk.
//!
//! A request is in hand while its own code runs, or that of a request it has asked for; who waits for others, or
//! for the world, is not.
//!
//! *Invariant.* Work on a request begins once its number is with the operating system. Of those that are
//! suspected one is in hand at a time, unless it is for longer than [`LONG`].

use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Journal;
use super::line::Line;
use super::state::State;
use crate::checkpoint::{Batch, Commit, Durability};
use crate::clock::Clock;
use crate::id::ChildPath;
use crate::moment::Moment;
use crate::port::{Trial, Turning};

/// For how long others wait for one that is suspected: it may itself wait for what is done behind them.
const LONG: Duration = Duration::from_secs(30);

/// See the [module](self).
pub(crate) struct Tried {
    journal: Arc<Journal>,
    key: Arc<str>,
    /// It is suspected.
    alone: bool,
    stand: Mutex<Stand>,
}

struct Stand {
    /// After how many steps it was taken up.
    from: u64,
    /// By how many it is worked on: the request itself, and those it has asked for.
    hands: u32,
    /// It has got on.
    over: bool,
}

impl Tried {
    pub(crate) fn new(journal: &Arc<Journal>, key: &Arc<str>, alone: bool) -> Arc<Self> {
        let stand = Mutex::new(Stand { from: u64::MAX, hands: 0, over: false });
        let (journal, key) = (Arc::clone(journal), Arc::clone(key));
        let tried = Arc::new(Self { journal, key, alone, stand });
        tried.journal.tried.lock().push(Arc::downgrade(&tried));
        tried
    }

    /// So many work on it from now on.
    fn leave(&self, left: impl FnOnce(u32) -> u32) -> Option<Commit> {
        let mut stand = self.stand.lock();
        let before = stand.hands;
        stand.hands = left(before);
        if before == 0 || stand.hands > 0 {
            return None;
        }
        // Under the lock, so that whoever takes it up again is written after this.
        // A store that is full has room for this: it is no fault of the request's that nothing else can be written.
        let batch = Batch::new().making_room(true);
        let commit = self.journal.counts(&self.key, |n| n.saturating_sub(1), batch);
        drop(stand);
        self.journal.turn.leave(&self.key);
        commit
    }
}

impl Trial for Tried {
    fn turn(&self) -> Turning<'_> {
        Box::pin(async move {
            let is_over = self.stand.lock().over;
            if self.alone && !is_over {
                self.journal.turn.come(&self.key, &*self.journal.clock).await;
            }
        })
    }

    fn take_up(&self, step: u64) -> Option<Commit> {
        let mut stand = self.stand.lock();
        if stand.over {
            drop(stand);
            self.journal.turn.leave(&self.key);
            return None;
        }
        stand.from = stand.from.min(step);
        stand.hands += 1;
        match stand.hands {
            1 => self.journal.counts(&self.key, |n| n.saturating_add(1), Batch::new()),
            // An empty one: what was written for the first of them is there once it is.
            _ => Some(self.journal.store.commit(Batch::new(), Durability::Async)),
        }
    }

    fn put_down(&self) -> Option<Commit> {
        self.leave(|hands| hands.saturating_sub(1))
    }

    fn got_on(&self) {
        let mut stand = self.stand.lock();
        stand.over = true;
        stand.hands = 0;
        drop(stand);
        self.journal.turn.leave(&self.key);
    }

    fn is_further(&self, step: u64) -> bool {
        let stand = self.stand.lock();
        !stand.over && step > stand.from
    }

    fn wants_kept(&self, step: u64) -> bool {
        // More and more rarely: whoever it ends the process for later is found after a few more ends.
        let from = self.stand.lock().from;
        step.checked_sub(from).is_some_and(u64::is_power_of_two)
    }
}

/// Whose turn it is among those that are suspected.
#[derive(Default)]
pub(super) struct Turn {
    holder: Mutex<Option<(Arc<str>, Moment)>>,
    left: Notify,
}

impl Turn {
    async fn come(&self, key: &Arc<str>, clock: &dyn Clock) {
        loop {
            let mut left = pin!(self.left.notified());
            // Listening before looking, so that nobody is missed who leaves in between.
            left.as_mut().enable();
            let until = {
                let mut holder = self.holder.lock();
                let now = clock.now();
                match &*holder {
                    // Since when is for the others, who wait.
                    Some((who, _)) if who == key => return,
                    Some((_, since)) if now.since(*since) < LONG => *since + LONG,
                    _ => {
                        *holder = Some((Arc::clone(key), now));
                        return;
                    }
                }
            };
            tokio::select! {
                biased;
                () = left => {}
                () = clock.sleep_until(until) => {}
            }
        }
    }

    fn leave(&self, key: &str) {
        let held = self.holder.lock().take_if(|(who, _)| **who == *key);
        if held.is_some() {
            self.left.notify_waiters();
        }
    }
}

impl Journal {
    /// Writes down how often the process has ended with this request in hand, should it end now, if that
    /// has changed.
    fn counts(&self, key: &Arc<str>, to: impl FnOnce(u32) -> u32, batch: Batch) -> Option<Commit> {
        let mut state = self.state.lock();
        let n = state.counts(key, to)?;
        let line = Line::TakenUp { key: Arc::clone(key), n };
        Some(self.commit(batch, &line, Durability::Async))
    }

    /// The store had no room for a request's fate: it is open still, and in nobody's hands. A store that is full
    /// has room for that: the process has not ended with it.
    pub(super) fn is_open_again(&self, state: &mut State, key: &Arc<str>) {
        let Some(n) = state.counts(key, |n| n.saturating_sub(1)) else { return };
        let line = Line::TakenUp { key: Arc::clone(key), n };
        drop(self.commit(Batch::new().making_room(true), &line, Durability::Async));
    }

    /// Commits a state that this request has got on to.
    pub(crate) fn commit_further(
        &self,
        key: &Arc<str>,
        batch: Batch,
        durability: Durability,
    ) -> Commit {
        let mut state = self.state.lock();
        match state.counts(key, |_| 0) {
            Some(n) => {
                let line = Line::TakenUp { key: Arc::clone(key), n };
                self.commit(batch, &line, durability)
            }
            None => self.store.commit(batch, durability),
        }
    }

    /// Commits that this request goes back to where it began, or that the supervisor at `to` is to return for
    /// it, together with `batch`.
    pub(crate) fn goes_back(
        &self,
        key: &Arc<str>,
        to: Option<ChildPath>,
        (batch, durability): (Batch, Durability),
    ) -> Commit {
        let mut state = self.state.lock();
        if !state.is_open(key) {
            return self.store.commit(batch, durability);
        }
        state.goes_back(key, to.clone());
        self.commit(batch, &Line::WentBack { key: Arc::clone(key), to }, durability)
    }

    /// The supervisor at `at` is to return for this request. What the store does not take is only said: the
    /// next process may have it return once more.
    pub(crate) async fn returns_for(&self, key: &Arc<str>, at: &ChildPath) {
        let commit = self.goes_back(key, Some(at.clone()), (Batch::new(), Durability::Sync));
        let limit = self.clock.sleep_until(self.clock.now() + super::KEPT_WITHIN);
        tokio::select! {
            biased;
            kept = commit => if let Err(error) = kept {
                self.note_failure(&error);
                tracing::warn!(target: "mainstay", %error, "the journal could not be written");
            },
            () = limit => {}
        }
    }

    /// The process is about to end in order: with no request in hand. Returns once all that was handed to the store
    /// is durable: a fate without an answer is told before it is, and would be forgotten with the process.
    pub(crate) async fn ends_in_order(&self) {
        let tried: Vec<_> = self.tried.lock().iter().filter_map(Weak::upgrade).collect();
        for request in tried {
            drop(request.leave(|_| 0));
        }
        // Of what was lost since, in a replay, an event spoke at best: the next process names it.
        let heard = self.named();
        match heard.is_empty() {
            true => self.all_written().await,
            false => self.written_within(self.told_missing(&heard)).await,
        }
    }

    /// Once all that was handed to the store is durable.
    pub(crate) async fn all_written(&self) {
        // What was written before it is there once it is.
        self.written_within(self.store.commit(Batch::new(), Durability::Sync)).await;
    }

    async fn written_within(&self, commit: Commit) {
        /// A store that does not answer by then is not waited for.
        const WITHIN: Duration = Duration::from_secs(1);
        let limit = self.clock.sleep_until(self.clock.now() + WITHIN);
        tokio::select! {
            biased;
            _ = commit => {}
            () = limit => {}
        }
    }
}
