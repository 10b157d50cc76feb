//! Effects on the world: what was intended, what came of it, and what has to be undone.
//!
//! A task acts on the world by asking tools. Each such act is an *effect* with a key made of what it
//! is, not of when it was tried: the task, the step of it, the place in the step, the tool and its
//! arguments. So an act that is asked for again, by a retry, after a rollback or after the process was
//! killed, is recognized, and what is known about it decides.
//!
//! | The effect is | asked for again | |
//! |---|---|---|
//! | not known | [`Verdict::Dispatch`] | once the intent is durable |
//! | confirmed | [`Verdict::Replay`] | the recorded result; the tool is not asked |
//! | rejected: nothing happened, or held | [`Verdict::Dispatch`] | |
//! | failed, as the tool said, and replay-safe | [`Verdict::Dispatch`] | with the same key |
//! | failed, any other | [`Verdict::Failed`] | the recorded fault |
//! | intended or unknown, replay-safe | [`Verdict::Again`] | with the same key |
//! | intended, no outcome, verifiable | [`Verdict::Verify`] | ask whether it happened |
//! | intended, no outcome, any other | [`Verdict::Unknown`] | a person decides |
//! | under way | [`Verdict::Busy`] | |
//! | undone | [`Verdict::Dispatch`] | under the next epoch of its key |
//! | being undone, or its undo failed | [`Verdict::Unknown`] | a person decides |
//!
//! *Invariant.* An intent is in the table before anything is dispatched for it, and nothing turns an
//! outcome that is not known into one that is, but a verification or a person. A confirmed effect is
//! never dispatched. The ledger is a machine: it knows no clock, no channel and no actor, and writes
//! nothing; each change comes out as a [`Record`] for whoever keeps the journal.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::fault::{EffectKind, Fault};
use crate::id::ChildPath;
pub use crate::id::EffectKey;
pub use status::{EffectStatus, Happened, Said};
pub(crate) use unanswered::Trace;

mod find;
mod held;
mod owing;
mod questions;
mod status;
mod unanswered;

#[cfg(test)]
mod tests;

/// The code of a fault by which a tool says that there is nothing to undo: the undo it was asked for is done.
pub const NOTHING_TO_UNDO: &str = "nothing_to_undo";

/// Whom to ask, and with what, to reverse an effect.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undo {
    /// The child or group.
    pub tool: ChildPath,
    /// The request, encoded. May hold user data.
    pub request: Arc<[u8]>,
}

impl fmt::Debug for Undo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Undo").field("tool", &self.tool).finish_non_exhaustive()
    }
}

/// An act that is asked for.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// What it is.
    pub key: EffectKey,
    /// The task it belongs to: the idempotency key of the request.
    pub task: Arc<str>,
    /// The child that acts.
    pub owner: ChildPath,
    /// Which step of the task.
    pub step: u64,
    /// Which act of the step.
    pub ordinal: u32,
    /// Whom it asks.
    pub tool: ChildPath,
    /// What the tool does to the world.
    pub kind: EffectKind,
    /// The request, encoded, for verification and for people. May hold user data.
    pub request: Arc<[u8]>,
    /// How it is reversed, if it can be.
    pub undo: Option<Undo>,
}

impl Intent {
    fn weight(&self) -> usize {
        self.request.len() + self.undo.as_ref().map_or(0, |undo| undo.request.len())
    }
}

impl fmt::Debug for Intent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intent")
            .field("key", &self.key)
            .field("owner", &self.owner)
            .field("step", &self.step)
            .field("ordinal", &self.ordinal)
            .field("tool", &self.tool)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// An effect as the ledger keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// What was asked for.
    pub intent: Intent,
    /// How often it was undone and asked for again: part of the key that the tool sees.
    pub epoch: u32,
    /// What is known about it.
    pub status: EffectStatus,
    /// Its place in the order of intents.
    pub seq: u64,
    /// Somebody waits for its outcome right now.
    pub in_flight: bool,
    /// Who has said that this is its status, and why; `None` where nobody did, or gave no name.
    pub said: Option<Arc<Said>>,
}

impl Entry {
    /// The idempotency key the tool is given: what it is, after the key of the request it belongs to, so
    /// that people can tell whose it is. A long one of those is left out: targets bound their keys.
    pub fn idempotency_key(&self) -> String {
        let Self { intent, epoch, .. } = self;
        if self.has_short_key() {
            return format!("{}-{epoch}", intent.key);
        }
        format!("{}/{}-{epoch}", intent.task, intent.key)
    }
}

impl Entry {
    /// Whether the key that its tool is given is without that of the request it belongs to.
    pub(crate) fn has_short_key(&self) -> bool {
        self.intent.task.len() > LONGEST_TASK
    }

    /// Whether somebody still has to find out what came of it, or to do something about it.
    pub(crate) fn is_owed(&self) -> bool {
        // To know of one that does no harm when it is repeated nobody will ever want.
        let is_moot = self.status == EffectStatus::Intended
            && self.intent.kind.is_replay_safe()
            && self.intent.undo.is_none();
        self.status.is_open() && !is_moot
    }
}

/// The longest key of a request that stands in the keys of its effects, in bytes.
const LONGEST_TASK: usize = 128;

/// What happens to an effect.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A task asks for it.
    Begin(Intent),
    /// The tool says that it happened, and what came of it.
    Confirmed(EffectKey, Happened),
    /// It is certain that it did not happen.
    Rejected(EffectKey),
    /// The tool says that it failed.
    Failed(EffectKey, Fault),
    /// Whoever was asked does nothing before [`Input::GoesOn`].
    Held(EffectKey),
    /// It may happen from now on.
    GoesOn(EffectKey),
    /// Whoever waited for the outcome is gone, or the outcome cannot be told.
    Lost(EffectKey),
    /// A verification, or a person, says what is the case.
    Resolved(EffectKey, Resolution),
    /// A person says that it happened, with this encoded result, where the undo of its task has stopped at it: it
    /// stands.
    FoundLeft(EffectKey, Arc<[u8]>),
    /// It is to be undone.
    Undo(EffectKey),
    /// It was undone.
    Undone(EffectKey),
    /// It could not be undone; why.
    UndoFailed(EffectKey, String),
    /// The undo of its task stopped before it: it stands.
    Left(EffectKey),
    /// A person says that it stands rightly.
    Stands(EffectKey),
    /// The task has its fate, and nothing will ask for its effects again.
    Retire(Arc<str>),
    /// The task has ended without an answer, and what it has done is to be undone; or that is over, since it acts anew.
    Owes(Arc<str>, bool),
    /// A person says this.
    By(Arc<Said>, Box<Input>),
}

/// What a verification, or a person, found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// It happened, with this encoded result.
    Happened(Arc<[u8]>),
    /// It did not happen: it may be asked for again.
    NotHappened,
    /// It cannot be told.
    CannotTell,
}

/// What is to be done about an effect that is asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Make the record durable, then ask the tool.
    Dispatch,
    /// Ask the tool again, with the same key: the intent is durable.
    Again,
    /// It happened: this is what came of it.
    Replay(Happened),
    /// It failed: this is how.
    Failed(Fault),
    /// Ask whether it happened; then [`Input::Resolved`].
    Verify,
    /// It must not be asked for: nobody knows, and somebody must find out.
    Unknown,
    /// An earlier attempt still waits for its outcome.
    Busy,
}

/// What came of an [`Input`].
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// For [`Input::Begin`]: what to do.
    pub verdict: Option<Verdict>,
    /// What has to be written down, before anything follows from it.
    pub record: Option<Record>,
}

/// A change of the ledger, to be kept in the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Record {
    /// An intent, and which epoch of its key it opens.
    Intent(Intent, u32),
    /// What is known about an effect now.
    Status(EffectKey, EffectStatus),
    /// The same, on the word of a person.
    Said(EffectKey, EffectStatus, Arc<Said>),
    /// What came of a question of this task that is no effect: only its replay needs it.
    Asked(Arc<str>, EffectKey, EffectStatus),
    /// The effects of this task that are settled are forgotten, and its questions.
    Retired(Arc<str>),
    /// The task has ended without an answer, and what it has done is to be undone; or that is over, since it acts anew.
    Owes(Arc<str>, bool),
}

/// How many effects there are of each kind of status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectCounts {
    /// Without an outcome yet.
    pub intended: usize,
    /// Happened.
    pub confirmed: usize,
    /// Waiting for a verification or a person.
    pub unknown: usize,
    /// Being undone.
    pub compensating: usize,
    /// Undone.
    pub compensated: usize,
    /// Undoing failed, or stopped before it.
    pub stuck: usize,
}

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    entries: BTreeMap<EffectKey, Entry>,
    /// In the order of their keys: what was done for one task is found among all.
    tasks: BTreeMap<Arc<str>, Vec<EffectKey>>,
    /// What came of the questions of each task.
    asked: HashMap<Arc<str>, BTreeMap<EffectKey, EffectStatus>>,
    /// The tasks that asked, the oldest first, and what their answers weigh.
    askers: VecDeque<Arc<str>>,
    asked_bytes: usize,
    /// The tasks that have ended without an answer, and are to be undone.
    owing: BTreeSet<Arc<str>>,
    /// The acts that were held, and the attempts that have let them go on.
    passed_on: HashMap<EffectKey, u32>,
    next: u64,
}

impl Ledger {
    /// A ledger as these records left it. What was under way then has no outcome now.
    pub fn replayed(records: impl IntoIterator<Item = Record>) -> Self {
        let mut ledger = Self::default();
        for record in records {
            ledger.apply(record);
        }
        ledger
    }

    /// Applies a record that was written before.
    pub fn apply(&mut self, record: Record) {
        match record {
            Record::Intent(intent, epoch) => {
                // A journal that was being written anew when its process ended says what it had come to a
                // second time: that is no later act. One that was refused or has failed, and is asked for
                // again, is.
                let said = self.entries.get(&intent.key).filter(|known| {
                    let asked_again = match known.status {
                        EffectStatus::Rejected => true,
                        EffectStatus::Failed(_) => known.intent.kind.is_replay_safe(),
                        _ => false,
                    };
                    known.epoch == epoch && !asked_again
                });
                let seq = said.map(|known| known.seq);
                let key = intent.key;
                self.insert(intent, epoch, false);
                if let (Some(seq), Some(entry)) = (seq, self.entries.get_mut(&key)) {
                    entry.seq = seq;
                }
            }
            Record::Status(key, status) => self.note(key, status, None),
            Record::Said(key, status, said) => self.note(key, status, Some(said)),
            Record::Asked(task, key, status) => {
                self.note_asked(task, key, status);
            }
            Record::Retired(task) => self.forget(&task),
            Record::Owes(task, owes) => drop(self.note_owing(&task, owes)),
        }
    }

    /// The records that make a ledger like this one: what a compacted journal holds.
    pub fn records(&self) -> Vec<Record> {
        let mut entries: Vec<_> = self.entries.values().collect();
        entries.sort_by_key(|entry| entry.seq);
        let mut records = Vec::with_capacity(entries.len() * 2);
        for entry in entries {
            records.push(Record::Intent(entry.intent.clone(), entry.epoch));
            let (key, status) = (entry.intent.key, entry.status.clone());
            match &entry.said {
                Some(said) => records.push(Record::Said(key, status, Arc::clone(said))),
                None if status == EffectStatus::Intended => {}
                None => records.push(Record::Status(key, status)),
            }
        }
        records.extend(self.owing.iter().map(|task| Record::Owes(Arc::clone(task), true)));
        for (task, asked) in &self.asked {
            let each = asked.iter();
            records.extend(
                each.map(|(key, status)| Record::Asked(Arc::clone(task), *key, status.clone())),
            );
        }
        records
    }

    /// Feeds one input.
    pub fn on(&mut self, input: Input) -> Output {
        match input {
            Input::By(said, input) => self.on_word(said, *input),
            Input::Begin(intent) => self.begin(intent),
            Input::Confirmed(key, result) => self.settle(key, |entry| match entry.status {
                EffectStatus::Intended | EffectStatus::Unknown => {
                    Some(EffectStatus::Confirmed(result))
                }
                _ => None,
            }),
            Input::Rejected(key) => self.settle(key, |entry| match entry.status {
                EffectStatus::Intended => Some(EffectStatus::Rejected),
                _ => None,
            }),
            Input::Failed(key, fault) => self.settle(key, |entry| match entry.status {
                EffectStatus::Intended => Some(EffectStatus::Failed(fault)),
                _ => None,
            }),
            Input::Held(key) => Output { verdict: None, record: self.hold(key) },
            Input::GoesOn(key) => Output { verdict: None, record: self.go_on(key) },
            Input::Lost(key) => self.settle(key, |entry| match entry.status {
                // Asked for again, it does no harm: the intent stands as it is.
                EffectStatus::Intended if entry.intent.kind.is_replay_safe() => None,
                EffectStatus::Intended => Some(EffectStatus::Unknown),
                _ => None,
            }),
            Input::Resolved(key, resolution) => self.settle(key, |entry| {
                let open = matches!(entry.status, EffectStatus::Intended | EffectStatus::Unknown);
                match resolution {
                    _ if !open => None,
                    Resolution::Happened(result) => {
                        Some(EffectStatus::Confirmed(Happened::new(result)))
                    }
                    Resolution::NotHappened => Some(EffectStatus::Rejected),
                    Resolution::CannotTell => {
                        (entry.status != EffectStatus::Unknown).then_some(EffectStatus::Unknown)
                    }
                }
            }),
            Input::FoundLeft(key, result) => self.settle(key, |entry| match entry.status {
                EffectStatus::Intended | EffectStatus::Unknown => {
                    Some(EffectStatus::Left(Happened::new(result)))
                }
                _ => None,
            }),
            Input::Undo(key) => {
                let waited_for = self.entries.get(&key).is_some_and(|entry| entry.in_flight);
                if waited_for {
                    return Output { verdict: None, record: None };
                }
                self.settle(key, |entry| match entry.status {
                    // A person's word is not taken back.
                    _ if entry.status.stands() => None,
                    // An undo copes with what has never happened, so nobody has to know.
                    EffectStatus::Confirmed(_)
                    | EffectStatus::Left(_)
                    | EffectStatus::Intended
                    | EffectStatus::Failed(_)
                    | EffectStatus::Unknown
                        if entry.intent.undo.is_some() =>
                    {
                        Some(EffectStatus::Compensating)
                    }
                    _ => None,
                })
            }
            Input::Undone(key) => self.settle(key, |entry| match entry.status {
                EffectStatus::Compensating | EffectStatus::Stuck(_) | EffectStatus::Left(_) => {
                    Some(EffectStatus::Compensated)
                }
                _ => None,
            }),
            Input::UndoFailed(key, why) => self.settle(key, |entry| match entry.status {
                EffectStatus::Compensating => Some(EffectStatus::Stuck(why)),
                _ => None,
            }),
            Input::Left(key) => self.settle(key, |entry| match &entry.status {
                EffectStatus::Confirmed(happened) if !happened.stands => {
                    Some(EffectStatus::Left(happened.clone()))
                }
                _ => None,
            }),
            Input::Stands(key) => self.settle(key, |entry| match &entry.status {
                EffectStatus::Left(happened) => {
                    Some(EffectStatus::Confirmed(Happened { stands: true, ..happened.clone() }))
                }
                _ => None,
            }),
            Input::Retire(task) => {
                let had = self.knows(&task);
                self.forget(&task);
                Output { verdict: None, record: had.then_some(Record::Retired(task)) }
            }
            Input::Owes(task, owes) => {
                let is_new = self.note_owing(&task, owes);
                Output { verdict: None, record: is_new.then_some(Record::Owes(task, owes)) }
            }
        }
    }

    /// Nobody waits for its outcome any more, and the next process finds it as it is.
    pub(crate) fn let_go(&mut self, key: EffectKey) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.in_flight = false;
        }
    }

    /// Nobody asks for it again by itself: where it has no outcome it waits for a person, unless to know of it does
    /// nobody any good.
    pub(crate) fn orphan(&mut self, key: EffectKey) -> Output {
        if self.entries.get(&key).is_some_and(|entry| entry.in_flight) {
            return Output { verdict: None, record: None };
        }
        let is_nothing = self.get(key).is_some_and(|entry| self.has_done_nothing(entry));
        self.settle(key, |entry| {
            let is_lost = entry.status == EffectStatus::Intended && entry.is_owed() && !is_nothing;
            is_lost.then_some(EffectStatus::Unknown)
        })
    }

    /// Whether anything is known of what this task has done or asked.
    pub fn knows(&self, task: &str) -> bool {
        self.tasks.contains_key(task) || self.asked.contains_key(task)
    }

    /// What the acts of this task weigh in memory and in the store, about: their requests, undos and results.
    pub fn weight(&self, task: &str) -> usize {
        let keys = self.tasks.get(task).into_iter().flatten();
        let entries = keys.filter_map(|key| self.entries.get(key));
        entries.map(|Entry { intent, status, .. }| intent.weight() + weight(status)).sum()
    }

    /// The tasks of which anything is known: those that have only asked, and then those that have acted, by
    /// their last acts.
    pub fn tasks(&self) -> Vec<Arc<str>> {
        let only_asked =
            |task: &&Arc<str>| self.asked.contains_key(*task) && !self.tasks.contains_key(*task);
        let mut tasks: Vec<_> =
            self.entries().into_iter().rev().map(|it| &it.intent.task).collect();
        tasks.extend(self.askers.iter().rev().filter(only_asked));
        let mut seen = HashSet::new();
        tasks.retain(|task| seen.insert(Arc::clone(task)));
        tasks.into_iter().rev().cloned().collect()
    }

    /// What came of an effect or a question of this task when it was done: the record a replay is served
    /// from. `None` when nothing is recorded.
    pub fn recalled(&self, task: &str, key: EffectKey) -> Option<&EffectStatus> {
        match self.entries.get(&key) {
            Some(entry) => Some(&entry.status),
            None => self.asked.get(task)?.get(&key),
        }
    }

    /// The effect with this key.
    pub fn get(&self, key: EffectKey) -> Option<&Entry> {
        self.entries.get(&key)
    }

    /// Every effect, in the order of the intents.
    pub fn entries(&self) -> Vec<&Entry> {
        let mut entries: Vec<_> = self.entries.values().collect();
        entries.sort_by_key(|entry| entry.seq);
        entries
    }

    /// The effects of a task, in the order of the intents.
    pub fn of_task(&self, task: &str) -> Vec<&Entry> {
        let keys = self.tasks.get(task).map(Vec::as_slice).unwrap_or_default();
        let mut entries: Vec<_> = keys.iter().filter_map(|key| self.entries.get(key)).collect();
        entries.sort_by_key(|entry| entry.seq);
        entries
    }

    /// How many effects there are.
    pub fn counts(&self) -> EffectCounts {
        let mut counts = EffectCounts::default();
        for entry in self.entries.values() {
            match entry.status {
                EffectStatus::Intended => counts.intended += 1,
                EffectStatus::Confirmed(_) => counts.confirmed += 1,
                EffectStatus::Rejected | EffectStatus::Failed(_) => {}
                EffectStatus::Unknown => counts.unknown += 1,
                EffectStatus::Compensating => counts.compensating += 1,
                EffectStatus::Compensated => counts.compensated += 1,
                EffectStatus::Stuck(_) | EffectStatus::Left(_) => counts.stuck += 1,
            }
        }
        counts
    }

    fn begin(&mut self, intent: Intent) -> Output {
        let key = intent.key;
        let Some(entry) = self.entries.get_mut(&key) else {
            return self.open(intent, 0);
        };
        if entry.in_flight {
            return Output { verdict: Some(Verdict::Busy), record: None };
        }
        let verdict = match &entry.status {
            EffectStatus::Confirmed(happened) => Verdict::Replay(happened.clone()),
            // What was left standing is part of the work again.
            EffectStatus::Left(happened) => {
                let happened = happened.clone();
                let record = entry.becomes(EffectStatus::Confirmed(happened.clone()));
                return Output { verdict: Some(Verdict::Replay(happened)), record: Some(record) };
            }
            EffectStatus::Failed(fault) if !entry.intent.kind.is_replay_safe() => {
                Verdict::Failed(fault.clone())
            }
            EffectStatus::Rejected | EffectStatus::Failed(_) => {
                let epoch = entry.epoch;
                return self.open(intent, epoch);
            }
            EffectStatus::Compensated => {
                let epoch = entry.epoch.saturating_add(1);
                return self.open(intent, epoch);
            }
            EffectStatus::Intended if entry.intent.kind.is_replay_safe() => {
                entry.in_flight = true;
                Verdict::Again
            }
            // It was given up, and whoever asks for it does no harm.
            EffectStatus::Unknown if entry.intent.kind.is_replay_safe() => {
                entry.in_flight = true;
                let record = entry.becomes(EffectStatus::Intended);
                return Output { verdict: Some(Verdict::Again), record: Some(record) };
            }
            EffectStatus::Intended | EffectStatus::Unknown
                if entry.intent.kind == EffectKind::Verifiable =>
            {
                Verdict::Verify
            }
            EffectStatus::Intended => {
                let record = entry.becomes(EffectStatus::Unknown);
                return Output { verdict: Some(Verdict::Unknown), record: Some(record) };
            }
            EffectStatus::Unknown | EffectStatus::Compensating | EffectStatus::Stuck(_) => {
                Verdict::Unknown
            }
        };
        Output { verdict: Some(verdict), record: None }
    }

    fn open(&mut self, intent: Intent, epoch: u32) -> Output {
        let record = Record::Intent(intent.clone(), epoch);
        self.insert(intent, epoch, true);
        Output { verdict: Some(Verdict::Dispatch), record: Some(record) }
    }

    fn insert(&mut self, intent: Intent, epoch: u32, in_flight: bool) {
        let seq = self.next;
        self.next += 1;
        let status = EffectStatus::Intended;
        let (key, task) = (intent.key, Arc::clone(&intent.task));
        let entry = Entry { intent, epoch, status, seq, in_flight, said: None };
        if self.entries.insert(key, entry).is_none() {
            self.tasks.entry(task).or_default().push(key);
        }
    }

    fn settle(
        &mut self,
        key: EffectKey,
        next: impl FnOnce(&Entry) -> Option<EffectStatus>,
    ) -> Output {
        let Some(entry) = self.entries.get_mut(&key) else {
            return Output { verdict: None, record: None };
        };
        let status = next(entry);
        entry.in_flight = false;
        self.passed_on.remove(&key);
        let record = status.map(|status| entry.becomes(status));
        Output { verdict: None, record }
    }

    fn forget(&mut self, task: &str) {
        self.forget_asked(task);
        let Some((task, mut keys)) = self.tasks.remove_entry(task) else { return };
        keys.retain(|key| {
            let open = self.entries.get(key).is_some_and(Entry::is_owed);
            if !open {
                self.entries.remove(key);
            }
            open
        });
        match keys.is_empty() {
            true => drop(self.owing.remove(&task)),
            false => drop(self.tasks.insert(task, keys)),
        }
    }
}

/// What an answer or an outcome weighs, about.
fn weight(status: &EffectStatus) -> usize {
    match status {
        EffectStatus::Confirmed(happened) | EffectStatus::Left(happened) => happened.result.len(),
        EffectStatus::Failed(fault) => fault.message.len(),
        _ => 0,
    }
}
