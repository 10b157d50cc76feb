//! What must survive the process: accepted requests and their fates, and the ledger of effects, as
//! records of one journal in the store.
//!
//! *Invariant.* A record is written as text that says what it is, so that one of a later version is
//! refused by name and never misread. What the journal says is known here too, and is never ahead of
//! what was handed to the store.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::checkpoint::codec::{self, SchemaId};
use crate::checkpoint::{Batch, Commit, Durability, Store};
use crate::effects::{Keep, Keeping};
pub(crate) use crate::error::failed;
use crate::error::{RecoverError, StoreError};
use crate::fate::Fate;
use crate::fault::{EffectKind, Fault};
use crate::id::{ChildPath, EffectKey};
use crate::ledger::{EffectStatus, Intent, Record, Undo};

/// The stream in the store.
const STREAM: &str = "mainstay";
const SCHEMA: &str = "mainstay.journal";
const VERSION: u32 = 1;
/// Records read at a time.
const PAGE: usize = 4096;
/// Records after which the journal and the store are looked at for what can go.
const TIDY_EVERY: u64 = 4096;
/// Fates that are remembered after the request, by its key, so that it is not accepted twice.
const REMEMBERED: usize = 65_536;

/// What is known of a durable request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Journaled {
    /// It was accepted and has no fate yet.
    Open,
    /// It has this fate; the reply as JSON, for one that was answered.
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
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Accepted { child: ChildPath, key: Arc<str>, request: String, deadline: Option<u64> },
    Fated { key: Arc<str>, fate: Fate, reply: Option<String> },
    Intent(StoredIntent),
    Status { key: String, status: StoredStatus },
    Retired { task: Arc<str> },
}

#[derive(Serialize, Deserialize)]
struct StoredIntent {
    key: String,
    epoch: u32,
    task: Arc<str>,
    owner: ChildPath,
    step: u64,
    ordinal: u32,
    tool: ChildPath,
    kind: EffectKind,
    request: String,
    undo: Option<(ChildPath, String)>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredStatus {
    Intended,
    Confirmed(String),
    Rejected,
    Failed(Fault),
    Unknown,
    Compensating,
    Compensated,
    Stuck(String),
}

#[derive(Default)]
struct State {
    /// In the order of acceptance.
    open: BTreeMap<u64, Open>,
    places: HashMap<Arc<str>, u64>,
    next: u64,
    fated: HashMap<Arc<str>, (Fate, Option<String>)>,
    order: VecDeque<Arc<str>>,
}

/// See the [module](self).
pub(crate) struct Journal {
    pub(crate) store: Arc<dyn Store>,
    state: Mutex<State>,
    /// Records in the journal, about.
    written: AtomicU64,
    since_tidy: AtomicU64,
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Journal {
    /// Reads the journal of a store: what it knows of requests stays here, the records of the ledger
    /// are returned.
    pub(crate) fn open(store: Arc<dyn Store>) -> Result<(Arc<Self>, Vec<Record>), RecoverError> {
        let mut state = State::default();
        let mut records = Vec::new();
        let mut written = 0;
        let mut from = 1;
        loop {
            let page = store.scan(STREAM, from, PAGE)?;
            written += page.len() as u64;
            for record in &page {
                from = record.position + 1;
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
                records.extend(state.read(line).map_err(unreadable)?);
            }
            if page.len() < PAGE {
                break;
            }
        }
        let journal = Self {
            store,
            state: Mutex::new(state),
            written: AtomicU64::new(written),
            since_tidy: AtomicU64::new(0),
        };
        Ok((Arc::new(journal), records))
    }

    /// Makes the journal as short as what it says, once it has grown to several times that; `ledger`
    /// gives the records that the ledger comes to.
    pub(crate) async fn tidy(
        &self,
        ledger: impl FnOnce() -> Vec<Record>,
    ) -> Result<(), StoreError> {
        let commit = {
            // Under the lock, so that whatever is not in these lines is committed after them.
            let state = self.state.lock();
            let mut lines: Vec<_> = state
                .order
                .iter()
                .filter_map(|key| {
                    let (fate, reply) = state.fated.get(key)?.clone();
                    Some(Line::Fated { key: Arc::clone(key), fate, reply })
                })
                .collect();
            lines.extend(state.open.values().map(|open| Line::Accepted {
                child: open.child.clone(),
                key: Arc::clone(&open.key),
                request: open.request.clone(),
                deadline: open.deadline,
            }));
            lines.extend(ledger().into_iter().map(Line::from));
            let written = self.written.load(Ordering::Relaxed);
            if written < lines.len() as u64 * 2 + 1024 {
                return Ok(());
            }
            let next = self.store.streams()?;
            let next = next.iter().find(|(name, _)| **name == *STREAM).map_or(1, |(_, next)| *next);
            let mut batch = Batch::new();
            let count = lines.len() as u64;
            for line in lines {
                batch = append(batch, &line)?;
            }
            self.written.store(count, Ordering::Relaxed);
            self.store.commit(batch.trim(STREAM, next), Durability::Sync)
        };
        commit.await.map(drop)
    }

    /// Whether so much has been written since this last said so that it is time to tidy up.
    pub(crate) fn wants_tidying(&self) -> bool {
        let due = self.since_tidy.load(Ordering::Relaxed) >= TIDY_EVERY;
        due && self.since_tidy.swap(0, Ordering::Relaxed) >= TIDY_EVERY
    }

    /// What is known of the request with this key.
    pub(crate) fn known(&self, key: &str) -> Option<Journaled> {
        let state = self.state.lock();
        if let Some((fate, reply)) = state.fated.get(key) {
            return Some(Journaled::Fated(*fate, reply.clone()));
        }
        state.places.contains_key(key).then_some(Journaled::Open)
    }

    /// The requests without a fate, in the order in which they were accepted.
    pub(crate) fn open_requests(&self) -> Vec<Open> {
        self.state.lock().open.values().cloned().collect()
    }

    /// A request is accepted; `None` when one with its key was before.
    pub(crate) fn accepted(&self, open: Open, durability: Durability) -> Option<Commit> {
        let line = Line::Accepted {
            child: open.child.clone(),
            key: Arc::clone(&open.key),
            request: open.request.clone(),
            deadline: open.deadline,
        };
        // The store keeps the order of the calls, so both are done under one lock.
        let mut state = self.state.lock();
        if state.places.contains_key(&open.key) || state.fated.contains_key(&open.key) {
            return None;
        }
        let commit = self.commit(Batch::new(), &line, durability);
        state.accept(open);
        Some(commit)
    }

    /// A request has its fate, which is committed together with `batch`.
    pub(crate) fn fated(
        &self,
        key: &Arc<str>,
        fate: Fate,
        reply: Option<String>,
        batch: Batch,
        durability: Durability,
    ) -> Commit {
        let line = Line::Fated { key: Arc::clone(key), fate, reply: reply.clone() };
        let mut state = self.state.lock();
        let commit = self.commit(batch, &line, durability);
        state.fate(Arc::clone(key), fate, reply);
        commit
    }

    fn commit(&self, batch: Batch, line: &Line, durability: Durability) -> Commit {
        self.written.fetch_add(1, Ordering::Relaxed);
        self.since_tidy.fetch_add(1, Ordering::Relaxed);
        match append(batch, line) {
            Ok(batch) => self.store.commit(batch, durability),
            Err(error) => Commit::ready(Err(error)),
        }
    }
}

impl State {
    fn read(&mut self, line: Line) -> Result<Option<Record>, String> {
        Ok(match line {
            Line::Accepted { child, key, request, deadline } => {
                self.accept(Open { child, key, request, deadline });
                None
            }
            Line::Fated { key, fate, reply } => {
                self.fate(key, fate, reply);
                None
            }
            Line::Intent(stored) => Some(stored.into_record()?),
            Line::Status { key, status } => Some(Record::Status(key_of(&key)?, status.into())),
            Line::Retired { task } => Some(Record::Retired(task)),
        })
    }

    fn accept(&mut self, open: Open) {
        if self.places.contains_key(&open.key) {
            return;
        }
        self.places.insert(Arc::clone(&open.key), self.next);
        self.open.insert(self.next, open);
        self.next += 1;
    }

    fn fate(&mut self, key: Arc<str>, fate: Fate, reply: Option<String>) {
        if let Some(place) = self.places.remove(&key) {
            self.open.remove(&place);
        }
        if self.fated.insert(Arc::clone(&key), (fate, reply)).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > REMEMBERED {
            if let Some(old) = self.order.pop_front() {
                self.fated.remove(&old);
            }
        }
    }
}

fn append(batch: Batch, line: &Line) -> Result<Batch, StoreError> {
    let text = serde_json::to_vec(line).map_err(|error| StoreError::Refused(error.to_string()))?;
    let bytes = codec::seal_bytes(&SchemaId::new(SCHEMA, VERSION), &text)?;
    Ok(batch.append(STREAM, bytes))
}

impl Keep for Journal {
    fn keep(&self, record: Record) -> Keeping {
        let commit = self.commit(Batch::new(), &Line::from(record), Durability::Sync);
        Box::pin(async move { commit.await.map(drop).map_err(|error| failed(&error)) })
    }

    fn note(&self, record: Record) {
        // Nobody can wait for it: what is not written is found out again by whoever asks next.
        drop(self.commit(Batch::new(), &Line::from(record), Durability::Async));
    }
}

impl From<Record> for Line {
    fn from(record: Record) -> Self {
        match record {
            Record::Intent(intent, epoch) => Self::Intent(StoredIntent {
                key: intent.key.to_string(),
                epoch,
                task: intent.task,
                owner: intent.owner,
                step: intent.step,
                ordinal: intent.ordinal,
                tool: intent.tool,
                kind: intent.kind,
                request: String::from_utf8_lossy(&intent.request).into_owned(),
                undo: intent
                    .undo
                    .map(|undo| (undo.tool, String::from_utf8_lossy(&undo.request).into_owned())),
            }),
            Record::Status(key, status) => {
                let status = match status {
                    EffectStatus::Intended => StoredStatus::Intended,
                    EffectStatus::Confirmed(result) => {
                        StoredStatus::Confirmed(String::from_utf8_lossy(&result).into_owned())
                    }
                    EffectStatus::Rejected => StoredStatus::Rejected,
                    EffectStatus::Failed(fault) => StoredStatus::Failed(fault),
                    EffectStatus::Unknown => StoredStatus::Unknown,
                    EffectStatus::Compensating => StoredStatus::Compensating,
                    EffectStatus::Compensated => StoredStatus::Compensated,
                    EffectStatus::Stuck(why) => StoredStatus::Stuck(why),
                };
                Self::Status { key: key.to_string(), status }
            }
            Record::Retired(task) => Self::Retired { task },
        }
    }
}

impl From<StoredStatus> for EffectStatus {
    fn from(status: StoredStatus) -> Self {
        match status {
            StoredStatus::Intended => Self::Intended,
            StoredStatus::Confirmed(result) => Self::Confirmed(bytes(result)),
            StoredStatus::Rejected => Self::Rejected,
            StoredStatus::Failed(fault) => Self::Failed(fault),
            StoredStatus::Unknown => Self::Unknown,
            StoredStatus::Compensating => Self::Compensating,
            StoredStatus::Compensated => Self::Compensated,
            StoredStatus::Stuck(why) => Self::Stuck(why),
        }
    }
}

impl StoredIntent {
    fn into_record(self) -> Result<Record, String> {
        let intent = Intent {
            key: key_of(&self.key)?,
            task: self.task,
            owner: self.owner,
            step: self.step,
            ordinal: self.ordinal,
            tool: self.tool,
            kind: self.kind,
            request: bytes(self.request),
            undo: self.undo.map(|(tool, request)| Undo { tool, request: bytes(request) }),
        };
        Ok(Record::Intent(intent, self.epoch))
    }
}

fn bytes(text: String) -> Arc<[u8]> {
    Arc::from(text.into_bytes())
}

fn key_of(text: &str) -> Result<EffectKey, String> {
    text.parse().map_err(|()| format!("{text:?} is no key of an effect"))
}
