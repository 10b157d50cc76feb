//! An agent's state as a snapshot, and back.
//!
//! The pieces every agent has, and those that keep a long conversation cheap: `context` is what the
//! task began with, `context/1` and so on its rounds, of which a checkpoint writes only the last.
//!
//! *Invariant.* A snapshot is taken whole or refused by the name of the piece that does not fit.

use std::sync::Arc;

use mainstay::checkpoint::{Schema, Snapshot};
use mainstay::error::CheckpointError;
use mainstay::fault::Class;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ToolUse;
use super::budget::Spent;
use super::context::Conversation;
use super::run::Run;
use super::turns::LeftOut;
use crate::chat::{Message, ToolCall};

/// The version of the agents' schema.
const VERSION: u32 = 1;

/// A tool call to be made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Planned {
    pub(super) need: String,
    pub(super) call: ToolCall,
}

/// The same call, however it is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Same {
    name: String,
    arguments: String,
}

impl Same {
    pub(super) fn of(name: &str, arguments: &str) -> Self {
        // Reading and writing sorts the keys and drops the white space.
        let arguments = serde_json::from_str::<Value>(arguments)
            .map_or_else(|_| arguments.to_owned(), |value| value.to_string());
        Self { name: name.to_owned(), arguments }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Failed {
    pub(super) same: Same,
    pub(super) times: u32,
    /// How it failed the last time.
    pub(super) class: Class,
    /// Its code, and a digest of what was said.
    pub(super) error: Option<String>,
    /// Nobody knows whether it happened: it must not be made again.
    pub(super) unknown: bool,
}

/// A call that was made before the task was rolled back, and stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Stands {
    pub(super) same: Same,
    pub(super) content: String,
}

/// What a task knows beside its conversation and its tool calls.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Memory {
    /// The idempotency key of the task; `None` between two tasks.
    pub(super) task: Option<String>,
    /// Rounds of the conversation.
    pub(super) rounds: u32,
    pub(super) steps: u32,
    pub(super) planned: Vec<Planned>,
    pub(super) failed: Vec<Failed>,
    pub(super) stands: Vec<Stands>,
    pub(super) spent: Spent,
    pub(super) regenerations: u32,
    pub(super) compacted: bool,
}

pub(super) fn schema() -> Schema {
    Schema::agent(VERSION)
        .field::<Vec<ToolUse>>("tools_used")
        .field::<Vec<Message>>("context")
        .field::<Memory>("memory")
}

impl Run {
    pub(super) fn snapshot(&self) -> Snapshot {
        let snapshot = Snapshot::new("agent", VERSION)
            .with("tools_used", Arc::clone(&self.used))
            .with("memory", Arc::clone(&self.memory));
        // A piece of its own, and only where there is something to say: earlier versions know of none.
        let snapshot = match self.left_out.is_nothing() {
            true => snapshot,
            false => snapshot.with("left_out", Arc::new(self.left_out)),
        };
        let rounds = self.context.rounds.iter().enumerate();
        rounds.fold(snapshot, |snapshot, (index, round)| match index {
            0 => snapshot.with("context", Arc::clone(round)),
            _ => snapshot.with(format!("context/{index}"), Arc::clone(round)),
        })
    }

    /// What was asked for but not settled is part of the memory, so nothing else is needed.
    pub(super) fn restored(&self, snapshot: &Snapshot) -> Result<Self, CheckpointError> {
        let memory: Arc<Memory> = snapshot.get("memory")?;
        let mut rounds = vec![snapshot.get("context")?];
        for index in 1..memory.rounds {
            rounds.push(snapshot.get(&format!("context/{index}"))?);
        }
        Ok(Self {
            plan: Arc::clone(&self.plan),
            context: Conversation { rounds },
            used: snapshot.get("tools_used")?,
            left_out: match snapshot.has("left_out") {
                true => *snapshot.get::<LeftOut>("left_out")?,
                false => LeftOut::default(),
            },
            memory,
            shortened: 0,
        })
    }
}
