//! What must survive the process: accepted requests and their fates, and the ledger of effects, as
//! records of one journal in the store.
//!
//! *Invariant.* A record is written as text that says what it is, so that one of a later version is
//! refused by name and never misread. What the journal says is known here too, and whoever asks never
//! hears of what the store has not confirmed.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::checkpoint::codec::{self, SchemaId};
use crate::checkpoint::{Batch, Commit, Durability, Receipt, Store, Wall};
use crate::clock::Clock;
use crate::error::{RecoverError, StoreError};
pub(crate) use crate::error::{failed, late};
use crate::fate::{Fate, Given, Trail};
use crate::id::{CheckpointId, ChildPath};
use crate::ledger::Record;
use crate::moment::Moment;
use crate::policy::budget::Limits;
use crate::port::Back;

mod end;
mod hand;
mod handed;
mod keep;
mod line;
mod lost;
mod made;
mod nested;
mod past;
mod release;
mod room;
mod standing;
mod state;
mod trial;

pub(crate) use end::End;
pub(crate) use hand::Hand;
pub(crate) use handed::Handed;
use line::Line;
pub(crate) use made::{Made, Serial, Taken};
pub(crate) use release::Releasing;
pub(crate) use standing::Footing;
use standing::Standing;
pub(crate) use state::Aside;
use state::{State, Token};
pub(crate) use trial::Tried;
use trial::Turn;

/// The stream in the store.
const STREAM: &str = "mainstay";
const SCHEMA: &str = "mainstay.journal";
/// 2 knows requests that were set aside, and what became of them; 3 which checkpoints were
/// returned to, and in which state the work of a request is; 4 who gave the result of an effect and whether
/// it was a stand-in, and effects at which an undo stopped; 5 what requests were that have been answered, and
/// what came of questions that are no effects, both for a replay; 6 with which requests in hand the process has
/// ended, and what was returned for a request; 7 which requests that may not be repeated were handed out; 8 which
/// children were made from templates; 9 on whose word the status of an effect is what it is; 10 how answers were
/// given, what they and the results of effects have cost, and whether the child is gone for good that a request was
/// set aside for; 11 which time a request was accepted under its key; 12 what is to be undone of tasks that are not
/// in it.
const VERSION: u32 = 12;
/// Records read at a time.
const PAGE: usize = 4096;
/// Commits after which the journal and the store are looked at for what can go.
const TIDY_EVERY: u64 = 4096;
/// A store that stays full is not tidied more often.
const FULL_EVERY: Duration = Duration::from_secs(10);

/// What is known of a durable request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Journaled {
    /// It was accepted and has no fate yet.
    Open,
    /// It has this fate; the reply as JSON, for one that was answered and as long as the replies since weigh no
    /// more than 64 MiB.
    Fated(Fate, Option<String>),
}

/// A request that was accepted and has no fate.
#[derive(Clone, Debug)]
pub(crate) struct Open {
    pub(crate) child: ChildPath,
    pub(crate) key: Arc<str>,
    pub(crate) request: String,
    /// When it must have its fate, on the clock people read, in milliseconds since 1970.
    pub(crate) deadline: Option<u64>,
    /// What failed before it was set aside and released.
    pub(crate) trail: Trail,
    /// What it may cost, time aside.
    pub(crate) budget: Option<Limits>,
    /// How often the process has ended with it in hand since it last got on, should it end now.
    pub(crate) taken: u32,
    /// What was returned for it.
    pub(crate) back: Back,
    /// Whether somebody has begun with it who may have acted.
    pub(crate) hand: Hand,
    /// Which time it was accepted or released under its key: no two have the same number. What it has come to
    /// in one is nothing to go on with in another, since that may be undone. Zero under a key of its own.
    pub(crate) round: u64,
}

/// See the [module](self).
pub(crate) struct Journal {
    pub(crate) store: Arc<dyn Store>,
    state: Mutex<State>,
    /// Records in the journal, about.
    written: AtomicU64,
    since_tidy: AtomicU64,
    /// What its records weigh, about, and what they did when it was last written anew.
    bytes: AtomicU64,
    tidied_bytes: AtomicU64,
    /// The position of the last record that is known to be in the store.
    reached: AtomicU64,
    /// What the store weighed after it was last compacted, or found to have little to let go of.
    compacted: AtomicU64,
    /// What it weighed when it was last full.
    filled: AtomicU64,
    /// The store has refused something for lack of room.
    is_full: AtomicBool,
    full_at: Mutex<Option<Moment>>,
    /// What children go on from.
    standing: Standing,
    /// Something has become of some request.
    changed: tokio::sync::Notify,
    /// Requests whose work this process could not bring back into a state, the last ones.
    lost: Mutex<VecDeque<(ChildPath, Arc<str>)>>,
    /// Those of them that were named to somebody who has to live on to have heard it.
    named: Mutex<BTreeSet<Arc<str>>>,
    /// Which of the requests that the process may have ended for is in hand.
    turn: Turn,
    /// Those that an earlier process has left.
    tried: Mutex<Vec<Weak<Tried>>>,
    clock: Arc<dyn Clock>,
    /// Where it was opened, if that was on one.
    runtime: Option<Handle>,
}

/// A journal that is being written anew.
pub(crate) struct Rewriting {
    commits: Vec<Commit>,
    /// From where on nothing goes.
    next: u64,
    /// Records there were.
    written: u64,
}

/// From how many bytes on a journal is written anew, beyond twice what it weighed then.
const HEAVY: u64 = 32 * state::MIB as u64;

/// About how many bytes of a journal that is written anew go into the store at a time.
const BATCH: usize = 8 * state::MIB;

/// From how many records on a journal that says what so many would is written anew.
const fn has_grown(lines: usize) -> u64 {
    lines as u64 * 2 + 1024
}

/// How long an effect's record may take before the step that waits for it fails.
const KEPT_WITHIN: Duration = Duration::from_secs(30);

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Journal {
    /// Reads the journal of a store: what it knows of requests stays here, the records of the ledger
    /// are returned.
    pub(crate) fn open(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
    ) -> Result<(Arc<Self>, Vec<Record>), RecoverError> {
        let mut state = State::default();
        let mut records = Vec::new();
        let (mut written, mut bytes) = (0, 0);
        let mut from = 1;
        loop {
            let page = store.scan(STREAM, from, PAGE)?;
            written += page.len() as u64;
            for record in &page {
                from = record.position + 1;
                bytes += record.bytes.len() as u64;
                let unreadable =
                    |why: String| RecoverError::Journal { position: record.position, why };
                let opened = codec::open(&record.bytes).map_err(|e| unreadable(e.to_string()))?;
                if opened.schema.name != SCHEMA || opened.schema.version > VERSION {
                    let known = SchemaId::new(SCHEMA, VERSION);
                    let found = &opened.schema;
                    return Err(unreadable(format!("{found} is not known here, {known} is")));
                }
                let text = opened.raw().map_err(|e| unreadable(e.to_string()))?;
                let line: Line =
                    serde_json::from_slice(text).map_err(|e| unreadable(e.to_string()))?;
                let line = line.of_version(opened.schema.version);
                records.extend(state.read(line).map_err(unreadable)?);
            }
            if page.len() < PAGE {
                break;
            }
        }
        state.children.has_read();
        let journal = Self {
            store,
            state: Mutex::new(state),
            written: AtomicU64::new(written),
            since_tidy: AtomicU64::new(0),
            bytes: AtomicU64::new(bytes),
            tidied_bytes: AtomicU64::new(0),
            reached: AtomicU64::new(from - 1),
            compacted: AtomicU64::new(0),
            filled: AtomicU64::new(0),
            is_full: AtomicBool::new(false),
            full_at: Mutex::new(None),
            standing: Standing::default(),
            changed: tokio::sync::Notify::new(),
            lost: Mutex::default(),
            named: Mutex::default(),
            turn: Turn::default(),
            tried: Mutex::default(),
            clock,
            runtime: Handle::try_current().ok(),
        };
        Ok((Arc::new(journal), records))
    }

    /// Makes the journal as short as what it says, once it has grown to several times that; `ledger`
    /// gives the records that the ledger comes to.
    pub(crate) async fn tidy(
        &self,
        ledger: impl FnOnce() -> Vec<Record>,
    ) -> Result<(), StoreError> {
        let rewriting = self.rewriting(ledger)?;
        self.rewritten(rewriting).await
    }

    /// The first half of [`Journal::tidy`], which takes the longer the more there is to say: what it says is handed
    /// to the store. `None` when that is not due.
    pub(crate) fn rewriting(
        &self,
        ledger: impl FnOnce() -> Vec<Record>,
    ) -> Result<Option<Rewriting>, StoreError> {
        // Under the lock, so that whatever is not in these lines is committed after them.
        let mut state = self.state.lock();
        let written = self.written.load(Ordering::Relaxed);
        // So many it will be at least: usually that answers it, and nothing is looked at or copied.
        let is_full = self.is_full.load(Ordering::Relaxed);
        let is_heavy = is_full || self.is_heavy();
        if written < has_grown(state.least()) && !is_heavy {
            return Ok(None);
        }
        // What the store has let go of cannot be returned to again.
        state.retain_used(|id| self.store.find(id).is_ok());
        state.retain_past(|child| self.oldest(child));
        if is_full {
            // Less is told of what was answered, so that something new can be accepted.
            state.forget_older_texts();
        }
        let mut lines = state.lines();
        lines.extend(ledger().into_iter().map(Line::from));
        if written < has_grown(lines.len()) && !is_heavy {
            return Ok(None);
        }
        let next = self.store.streams()?;
        let next = next.iter().find(|(name, _)| **name == *STREAM).map_or(1, |(_, next)| *next);
        let (batches, bytes) = in_batches(&lines)?;
        self.written.store(lines.len() as u64, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
        self.tidied_bytes.store(bytes, Ordering::Relaxed);
        state.note_tidied();
        let commits = batches
            .into_iter()
            .map(|batch| self.store.commit(batch.making_room(is_full), Durability::Async))
            .collect();
        Ok(Some(Rewriting { commits, next, written }))
    }

    /// The second half: once the store has all of that, what is old goes.
    pub(crate) async fn rewritten(&self, rewriting: Option<Rewriting>) -> Result<(), StoreError> {
        let Some(Rewriting { commits, next, written }) = rewriting else { return Ok(()) };
        let done = self.replaced(commits, next).await;
        if done.is_err() {
            // What is old is there still: it is due as it was.
            self.written.fetch_add(written, Ordering::Relaxed);
        }
        done
    }

    /// What is old goes once all of it is there: until then all is said twice, and the same.
    async fn replaced(&self, commits: Vec<Commit>, next: u64) -> Result<(), StoreError> {
        for commit in commits {
            commit.await?;
        }
        let last = Batch::new().trim(STREAM, next).making_room(true);
        self.store.commit(last, Durability::Sync).await?;
        Ok(())
    }

    /// Whether it weighs several times what it did when it was last written anew, however few its records are.
    fn is_heavy(&self) -> bool {
        let due = 2 * self.tidied_bytes.load(Ordering::Relaxed) + HEAVY;
        self.bytes.load(Ordering::Relaxed) > due
    }

    /// After how many steps the oldest state of a child is that the store still has.
    fn oldest(&self, child: &ChildPath) -> Option<u64> {
        let states = self.store.checkpoints(child).ok()?;
        states.iter().map(|listed| listed.checkpoint.step).min()
    }

    /// Commits a state that no record of the journal comes with.
    pub(crate) fn commit_state(&self, batch: Batch, durability: Durability) -> Handed {
        self.since_tidy.fetch_add(1, Ordering::Relaxed);
        Handed { commit: Some(self.store.commit(batch, durability)), token: None }
    }

    /// A store without room is to be tidied as soon as anybody asks for something again.
    pub(crate) fn note_failure(&self, error: &StoreError) {
        if !matches!(error, StoreError::Full { .. }) {
            return;
        }
        let now = self.clock.now();
        let mut last = self.full_at.lock();
        if last.is_none_or(|at| now.since(at) >= FULL_EVERY) {
            *last = Some(now);
            self.is_full.store(true, Ordering::Relaxed);
            self.since_tidy.fetch_max(TIDY_EVERY, Ordering::Relaxed);
        }
    }

    /// The store is known to have no room as it is.
    pub(crate) fn fill(&self) {
        self.filled.store(0, Ordering::Relaxed);
        self.is_full.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// How far the journal is, and with it the ledger: the position of its last record in the store.
    pub(crate) fn position(&self) -> u64 {
        let streams = self.store.streams().unwrap_or_default();
        let here = streams.into_iter().find(|(name, _)| **name == *STREAM);
        here.map_or(0, |(_, next)| next.saturating_sub(1))
    }

    /// As [`Journal::position`], or somewhat before it: what the store has answered so far. Does not ask
    /// the store, which may be busy with the steps of others.
    pub(crate) fn reached(&self) -> u64 {
        self.reached.load(Ordering::Relaxed)
    }

    /// Whether so much has been written since this last said so that it is time to tidy up.
    pub(crate) fn wants_tidying(&self) -> bool {
        let due = self.since_tidy.load(Ordering::Relaxed) >= TIDY_EVERY;
        due && self.since_tidy.swap(0, Ordering::Relaxed) >= TIDY_EVERY
    }

    /// What is known of the request with this key, for certain.
    pub(crate) fn known(&self, key: &str) -> Option<Journaled> {
        self.state.lock().known(key)
    }

    /// How the answer to a request was given, where that is written down.
    pub(crate) fn given_of(&self, key: &str) -> Option<Given> {
        self.state.lock().given(key).cloned()
    }

    /// The requests without a fate, in the order in which they were accepted.
    pub(crate) fn open_requests(&self) -> Vec<Open> {
        self.state.lock().opened().cloned().collect()
    }

    /// The requests that were set aside, the oldest first.
    pub(crate) fn set_aside(&self) -> Vec<Aside> {
        self.state.lock().set_aside().cloned().collect()
    }

    /// The request with this key, if it was set aside.
    pub(crate) fn aside(&self, key: &str) -> Option<Aside> {
        self.state.lock().aside(key).cloned()
    }

    /// These are returned to, and never again, which this process knows from now on; the next one once
    /// [`Journal::returned`] has said it.
    pub(crate) fn use_up(&self, ids: impl IntoIterator<Item = CheckpointId>) {
        self.state.lock().use_up(ids);
    }

    /// The requests, in the order of their answers, whose work is not in the states their children had
    /// after so many steps.
    pub(crate) fn work_since(
        &self,
        states: &HashMap<ChildPath, u64>,
    ) -> Vec<(ChildPath, Arc<str>)> {
        self.state.lock().work_since(states)
    }

    /// In whose state the work of the request with this key is, and after how many steps; also when that was only
    /// handed to the store.
    pub(crate) fn work_of(&self, key: &str) -> Option<(ChildPath, u64)> {
        self.state.lock().work_of(key)
    }

    /// Whether the request that was answered with this key can be handled again.
    pub(crate) fn has_past(&self, key: &str) -> bool {
        self.state.lock().past(key).is_some()
    }

    /// The requests whose work is in the state of this child after more than so many steps, in the order in
    /// which it came there, with the step; `None` for one that is not kept any more.
    pub(crate) fn replays(
        &self,
        child: &ChildPath,
        step: u64,
    ) -> Vec<(u64, Arc<str>, Option<String>)> {
        let state = self.state.lock();
        let after = state.after(child, step).into_iter();
        after
            .map(|(step, key)| {
                let request = state.past(&key).map(|open| open.request.clone());
                (step, key, request)
            })
            .collect()
    }

    /// Whether this was returned to already.
    pub(crate) fn is_used_up(&self, id: CheckpointId) -> bool {
        self.state.lock().is_used_up(id)
    }

    /// Commits that these were returned to, and that the work of those requests is missing since, together with
    /// `batch`.
    pub(crate) fn returned(
        &self,
        ids: &[CheckpointId],
        missing: &[Arc<str>],
        batch: Batch,
    ) -> Commit {
        // Under the lock, so that a journal that is written anew has them, too.
        let mut state = self.state.lock();
        state.use_up(ids.iter().copied());
        state.note_missing(missing);
        self.say_returned(state::returned(ids, missing, &[]), batch)
    }

    /// Commits that the work of these requests is in a state again, and that of those in none, together with
    /// `batch`. Here it is known once [`Journal::note_replayed`] has said it: a state that nobody goes on with
    /// has brought nothing back. Returns also how often the journal was written anew.
    pub(crate) fn replayed(
        &self,
        missing: &[Arc<str>],
        replayed: &[Arc<str>],
        batch: Batch,
    ) -> (Commit, u64) {
        let state = self.state.lock();
        let lines = state::returned(&[], missing, replayed);
        (self.say_returned(lines, batch), state.tidied())
    }

    /// A child goes on with a state that was committed so, after the journal was written anew so often.
    pub(crate) fn note_replayed(&self, missing: &[Arc<str>], replayed: &[Arc<str>], tidied: u64) {
        let mut state = self.state.lock();
        state.note_missing(missing);
        state.note_replayed(replayed);
        if state.tidied() != tidied {
            // It was written anew without this.
            drop(self.say_returned(state::returned(&[], missing, replayed), Batch::new()));
        }
    }

    fn say_returned(&self, lines: Vec<Line>, mut batch: Batch) -> Commit {
        self.written.fetch_add(lines.len() as u64, Ordering::Relaxed);
        for line in lines {
            batch = match append(batch, &line) {
                Ok(batch) => batch,
                Err(error) => return Commit::ready(Err(error)),
            };
        }
        self.store.commit(batch, Durability::Sync)
    }

    /// A request is accepted; `None` when one with its key was before.
    pub(crate) fn accepted(self: &Arc<Self>, open: Open, durability: Durability) -> Option<Handed> {
        let line = Line::from(&open);
        // The store keeps the order of the calls, so both are done under one lock.
        let mut state = self.state.lock();
        if !state.is_free(&open.key) {
            return None;
        }
        let commit = self.commit(Batch::new(), &line, durability);
        let token = state.accept(open);
        Some(self.handed(commit, token))
    }

    /// A request whose acceptance was written down was not taken after all: its key is free again.
    pub(crate) fn withdrawn(self: &Arc<Self>, key: &Arc<str>, durability: Durability) -> Handed {
        let mut state = self.state.lock();
        if !state.is_open(key) {
            return Handed::plain(Commit::ready(Ok(Receipt::default())));
        }
        let commit =
            self.commit(Batch::new(), &Line::Withdrawn { key: Arc::clone(key) }, durability);
        let token = state.withdraw(key);
        self.handed(commit, token)
    }

    /// What was asked under this key ended without being done: it may be asked again, unless it was set aside.
    pub(crate) fn freed(self: &Arc<Self>, key: &Arc<str>) -> Handed {
        let mut state = self.state.lock();
        match state.known(key) {
            Some(Journaled::Fated(fate, _)) if !matches!(fate, Fate::Done | Fate::Quarantined) => {}
            _ => return Handed::plain(Commit::ready(Ok(Receipt::default()))),
        }
        let line = Line::Withdrawn { key: Arc::clone(key) };
        let commit = self.commit(Batch::new(), &line, Durability::Sync);
        let token = state.withdraw(key);
        self.handed(commit, token)
    }

    /// A request has its fate, which is committed together with `batch`. One whose acceptance failed
    /// has none here.
    pub(crate) fn fated(
        self: &Arc<Self>,
        key: &Arc<str>,
        fate: Fate,
        end: impl Into<End>,
        work: Option<(ChildPath, u64)>,
        (batch, durability): (Batch, Durability),
    ) -> Handed {
        let mut state = self.state.lock();
        if !state.is_running(key) {
            return if batch.is_empty() {
                Handed::plain(Commit::ready(Ok(Receipt::default())))
            } else {
                Handed::plain(self.store.commit(batch, durability))
            };
        }
        let end = end.into();
        let line = state::fated(key, fate, end.clone(), work.clone());
        let commit = self.commit(batch, &line, durability);
        state.works(key, work);
        let token = state.fate(key, fate, end);
        self.handed(commit, token)
    }

    /// A request is set aside, after all this has failed.
    pub(crate) fn quarantined(
        self: &Arc<Self>,
        key: &Arc<str>,
        trail: Trail,
        at: Wall,
        durability: Durability,
    ) -> Handed {
        let mut state = self.state.lock();
        if !state.is_running(key) {
            return Handed::plain(Commit::ready(Ok(Receipt::default())));
        }
        let line = state::quarantined(key, trail.clone(), at);
        let commit = self.commit(Batch::new(), &line, durability);
        let token = state.quarantine(key, trail, at);
        self.handed(commit, token)
    }

    /// A request that was set aside is open again, and begins anew; `None` when there is none with this key.
    pub(crate) fn released(self: &Arc<Self>, key: &str) -> Option<(Open, Handed)> {
        let mut state = self.state.lock();
        let aside = state.aside(key)?.clone();
        let round = aside.open.round.wrapping_add(1);
        let line = Line::Released { key: Arc::clone(&aside.open.key), round };
        let commit = self.commit(Batch::new(), &line, Durability::Sync);
        let open = aside.released(round);
        let token = state.release(open.clone());
        Some((open, self.handed(commit, token)))
    }

    /// A request that was set aside is not kept any longer; `None` when there is none with this key.
    pub(crate) fn discarded(self: &Arc<Self>, key: &str) -> Option<Handed> {
        let mut state = self.state.lock();
        let key = Arc::clone(&state.aside(key)?.open.key);
        let line = Line::Discarded { key: Arc::clone(&key) };
        let commit = self.commit(Batch::new(), &line, Durability::Sync);
        let token = state.discard(&key);
        Some(self.handed(commit, token))
    }

    fn handed(self: &Arc<Self>, commit: Commit, token: Token) -> Handed {
        Handed { commit: Some(commit), token: Some((Arc::clone(self), token)) }
    }

    /// The store has answered.
    fn answered(&self, token: &Token, result: &Result<(), StoreError>) {
        let mut state = self.state.lock();
        for line in state.answered(token, result.is_ok()) {
            // Nobody can wait for it; what is not written is found open by the next process.
            drop(self.commit(Batch::new(), &line, Durability::Sync));
        }
        if result.is_err() {
            self.is_open_again(&mut state, token.key());
        }
        drop(state);
        self.changed.notify_waiters();
        if let Err(error) = result {
            self.note_failure(error);
            tracing::warn!(target: "mainstay", %error, "the journal could not be written");
        }
    }

    fn note_reached(&self, receipt: &Receipt) {
        if let Some((_, last)) = receipt.positions.last() {
            self.reached.fetch_max(*last, Ordering::Relaxed);
        }
    }

    fn commit(&self, batch: Batch, line: &Line, durability: Durability) -> Commit {
        self.written.fetch_add(1, Ordering::Relaxed);
        self.since_tidy.fetch_add(1, Ordering::Relaxed);
        match sealed(line) {
            Ok(bytes) => {
                self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                if self.is_heavy() {
                    self.since_tidy.fetch_max(TIDY_EVERY, Ordering::Relaxed);
                }
                self.store.commit(batch.append(STREAM, bytes), durability)
            }
            Err(error) => Commit::ready(Err(error)),
        }
    }
}

fn append(batch: Batch, line: &Line) -> Result<Batch, StoreError> {
    Ok(batch.append(STREAM, sealed(line)?))
}

fn sealed(line: &Line) -> Result<Vec<u8>, StoreError> {
    let text = serde_json::to_vec(line).map_err(|error| StoreError::Refused {
        store: String::new(),
        why: format!("a record of journal \"{STREAM}\": {error}"),
    })?;
    codec::seal_bytes(&SchemaId::new(SCHEMA, VERSION), &text)
        .map_err(StoreError::codec(format!("a record of journal \"{STREAM}\"")))
}

/// The records of a journal that is written anew, in batches of about [`BATCH`]. What one record says of the
/// one before it stands in the same batch.
fn in_batches(lines: &[Line]) -> Result<(Vec<Batch>, u64), StoreError> {
    let mut batches = Vec::new();
    let mut all = 0;
    let (mut batch, mut weight) = (Batch::new(), 0);
    for line in lines {
        let bytes = sealed(line)?;
        weight += bytes.len();
        all += bytes.len() as u64;
        batch = batch.append(STREAM, bytes);
        if weight > BATCH && !line.is_begun() {
            batches.push(std::mem::take(&mut batch));
            weight = 0;
        }
    }
    batches.push(batch);
    Ok((batches, all))
}

#[cfg(test)]
mod tests;
