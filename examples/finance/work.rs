//! Handing the transfers to the teller, and waiting until each has its fate.
//!
//! *Invariant.* What was handed over before is not handed over again: the journal knows. A request that
//! ended without an answer is followed up, so that its user is told how it stands.

use std::collections::HashSet;
use std::io::{Write as _, stderr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay::error::{CallError, Unavailable};
use mainstay::event::{Event, EventStream};
use mainstay::fate::Fate;
use mainstay::journal::Journaled;
use mainstay::port::{CallOptions, Port};
use mainstay::system::System;

use crate::audit::{Books, State};
use crate::bank::{Bank, Message, Notice};
use crate::desk::TELLER;
use crate::plan::Plan;
use crate::points::Points;
use crate::teller::{Done, Errand};

/// Transfers that wait at a time.
const WINDOW: u32 = 64;
const PROGRESS_EVERY: Duration = Duration::from_secs(2);
/// How long undos that go on by themselves are waited for.
const UNDO_LIMIT: Duration = Duration::from_secs(300);
/// So many messages a start sends to the user of a failed transfer, until one arrives; the next start
/// sends as many again.
const MESSAGES: u32 = 20;
/// The wait before the second message, and the longest: each wait is twice the one before.
const SECOND_MESSAGE: Duration = Duration::from_millis(10);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The runtime is looked at again at least this often, also when nothing happens.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The work of a run.
pub(crate) struct Work {
    system: System,
    teller: Port<Errand, Done>,
    bank: Arc<Bank>,
    plan: Plan,
    points: Arc<Points>,
    events: EventStream,
    pub(crate) rollbacks: u64,
    shown: Instant,
}

impl Work {
    pub(crate) fn new(
        system: &System,
        bank: &Arc<Bank>,
        plan: Plan,
        points: &Arc<Points>,
    ) -> Result<Self, String> {
        let teller = system.port(TELLER).map_err(|error| error.to_string())?;
        Ok(Self {
            system: system.clone(),
            teller,
            bank: Arc::clone(bank),
            plan,
            points: Arc::clone(points),
            events: system.events(),
            rollbacks: 0,
            shown: Instant::now(),
        })
    }

    /// Does all of it. What the teller says it has done in the end must be what its answers said.
    pub(crate) async fn run(&mut self) -> Result<(), String> {
        let mut settled = 0;
        for id in 0..self.plan.transfers {
            let transfer = self.plan.transfer(id);
            if self.system.journaled(&key(id)).is_none() {
                self.submit(&key(id), Errand::Move(transfer)).await?;
            }
            while id - settled >= WINDOW {
                self.settle(&key(settled)).await;
                settled += 1;
            }
        }
        for id in settled..self.plan.transfers {
            self.settle(&key(id)).await;
        }
        self.follow_up().await?;
        self.compare().await
    }

    async fn submit(&self, key: &str, errand: Errand) -> Result<(), String> {
        let mut errand = errand;
        loop {
            match self.teller.submit(errand, CallOptions::new().key(key)).await {
                Ok(_) => {
                    self.points.accepted(key);
                    return Ok(());
                }
                Err(CallError::Refused { why: Unavailable::Duplicate, .. }) => return Ok(()),
                Err(CallError::Full { message: back, .. }) => {
                    errand = back;
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                Err(error) => return Err(format!("{key} was not accepted: {error}")),
            }
        }
    }

    /// Waits until the request with this key has its fate.
    async fn settle(&mut self, key: &str) {
        while !matches!(self.system.journaled(key), Some(Journaled::Fated(..))) {
            self.look().await;
        }
    }

    /// Waits until something has happened, and shows how far it is.
    async fn look(&mut self) {
        if let Ok(Some(stamped)) = tokio::time::timeout(LOOK_EVERY, self.events.next()).await {
            self.rollbacks += u64::from(matches!(stamped.event, Event::RolledBack { .. }));
        }
        if self.shown.elapsed() >= PROGRESS_EVERY {
            self.shown = Instant::now();
            let fated =
                (0..self.plan.transfers).filter(|id| self.fate(&key(*id)).is_some()).count();
            let _ = writeln!(stderr(), "{fated} of {} transfers", self.plan.transfers);
        }
    }

    fn fate(&self, key: &str) -> Option<(Fate, Option<Done>)> {
        match self.system.journaled(key) {
            Some(Journaled::Fated(fate, reply)) => {
                Some((fate, reply.and_then(|text| serde_json::from_str(&text).ok())))
            }
            _ => None,
        }
    }

    /// Tells the users of transfers whose request failed how they stand. Those of which somebody has
    /// to find out first are left to that person.
    async fn follow_up(&mut self) -> Result<(), String> {
        let failed: Vec<u32> = (0..self.plan.transfers)
            .filter(|id| self.fate(&key(*id)).is_some_and(|(fate, _)| given_up(fate)))
            .collect();
        if failed.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        while self.is_undoing(&failed)? && started.elapsed() < UNDO_LIMIT {
            // The books are read again at most so often, whatever happens.
            let until = Instant::now() + LOOK_EVERY;
            while Instant::now() < until {
                self.look().await;
            }
        }
        for id in failed {
            let books = Books::read(&self.bank).map_err(|refused| refused.to_string())?;
            let state = books.state(self.plan.transfer(id));
            if state == State::Half || !books.told(id).is_empty() {
                continue;
            }
            let notice = Notice { transfer: id, done: state == State::Done };
            self.tell(notice).await?;
        }
        Ok(())
    }

    /// Whether any of these is still to be undone. The database says so: one undo of a transfer comes after the other,
    /// and of a transfer that this start has set aside the first may be still to come, so at times the runtime has
    /// none under way. What it has given up waits for a person; an undo that the process before had begun does not yet.
    fn is_undoing(&self, failed: &[u32]) -> Result<bool, String> {
        let books = Books::read(&self.bank).map_err(|refused| refused.to_string())?;
        let open = self.system.effects().open();
        let given_up = open.iter().filter(|effect| effect.status != "compensating");
        let waiting: HashSet<u32> =
            given_up.filter_map(|effect| transfer_of(&effect.task)).collect();
        Ok(failed.iter().any(|id| {
            books.state(self.plan.transfer(*id)) != State::Undone && !waiting.contains(id)
        }))
    }

    /// A message may fail like any other request; then there is another, later. Those of earlier starts
    /// are in the journal and are not sent again.
    async fn tell(&mut self, notice: Notice) -> Result<(), String> {
        let (mut sent, mut wait) = (0, SECOND_MESSAGE);
        for number in 1.. {
            let key = format!("{}-told-{number}", key(notice.transfer));
            if self.system.journaled(&key).is_none() {
                if sent == MESSAGES {
                    break;
                }
                if number > 1 {
                    tokio::time::sleep(wait).await;
                    wait = LONGEST_WAIT.min(wait * 2);
                }
                self.submit(&key, Errand::Tell(Message { notice, number })).await?;
                sent += 1;
            }
            self.settle(&key).await;
            if self.fate(&key).is_some_and(|(fate, _)| !given_up(fate)) {
                return Ok(());
            }
        }
        Err(format!(
            "the user of transfer {} was not reached by {sent} messages; the same arguments try again",
            notice.transfer
        ))
    }

    /// The teller's state has been through every crash; its answers stand in the journal.
    async fn compare(&mut self) -> Result<(), String> {
        let counted = self.teller.call(Errand::Count).await.map_err(|error| error.to_string())?;
        let mut answered = (0, 0);
        for id in 0..self.plan.transfers {
            if self.fate(&key(id)).and_then(|(_, reply)| reply).is_some_and(|done| done.moved) {
                answered.0 += 1;
                answered.1 += self.plan.transfer(id).amount;
            }
        }
        let held = (counted.value.transfers, counted.value.cents);
        if held == answered {
            return Ok(());
        }
        Err(format!(
            "the teller has counted {held:?} transfers and cents, its answers {answered:?}"
        ))
    }
}

/// Whether a request ended without having been done, and without a person who has to find out.
fn given_up(fate: Fate) -> bool {
    !matches!(fate, Fate::Done | Fate::Unheard | Fate::Unknown)
}

/// The name under which a transfer is known to the journal.
pub(crate) fn key(id: u32) -> String {
    format!("t-{id}")
}

/// The transfer that a request with this key is about.
pub(crate) fn transfer_of(key: &str) -> Option<u32> {
    let rest = key.strip_prefix("t-")?;
    rest.split_once('-').map_or(rest, |(id, _)| id).parse().ok()
}
