//! A conversation in the store of its tree: the next process goes on with it.
//!
//! *Invariant.* A record is one question with its answer, and nobody is asked to write one before the
//! answer is there.

use std::sync::Arc;

use mainstay::checkpoint::{Batch, Durability, Store};
use mainstay::error::StoreError;
use mainstay_actors::chat::Message;

/// How many questions with their answers are kept.
pub(super) const KEPT: usize = 200;

/// Where a conversation with one agent, or group, is kept.
pub(super) struct Talk {
    store: Arc<dyn Store>,
    stream: Arc<str>,
    durability: Durability,
}

impl Talk {
    pub(super) fn new(store: Arc<dyn Store>, asked: &str, durability: Durability) -> Self {
        Self { store, stream: format!("talk/{asked}").into(), durability }
    }

    /// What was said in earlier processes.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(super) fn said(&self) -> Result<Vec<Message>, StoreError> {
        let records = self.store.scan(&self.stream, 0, usize::MAX)?;
        // Of another version: what it says is not worth a conversation that does not begin.
        let read = records
            .iter()
            .filter_map(|record| serde_json::from_slice::<(String, String)>(&record.bytes).ok());
        Ok(read.flat_map(|(question, answer)| pair(&question, &answer)).collect())
    }

    /// Has the batch keep questions with their answers.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(super) fn keep(
        &self,
        turns: &[(String, String)],
        mut batch: Batch,
    ) -> Result<Batch, StoreError> {
        for turn in turns {
            // A pair of texts is always JSON.
            let bytes = serde_json::to_vec(turn).unwrap_or_default();
            batch = batch.append(Arc::clone(&self.stream), bytes);
        }
        let next = next(&*self.store, &self.stream)? + turns.len() as u64;
        let before = next.saturating_sub(KEPT as u64);
        Ok(if before > 1 { batch.trim(Arc::clone(&self.stream), before) } else { batch })
    }

    /// The next process begins anew.
    ///
    /// # Errors
    /// The store does not take it.
    pub(super) async fn forget(&self) -> Result<(), StoreError> {
        let batch = Batch::new();
        let batch = batch.trim(Arc::clone(&self.stream), next(&*self.store, &self.stream)?);
        self.store.commit(batch, self.durability).await.map(drop)
    }
}

/// The position of the next record of a journal.
///
/// # Errors
/// The store cannot be read.
pub(super) fn next(store: &dyn Store, stream: &str) -> Result<u64, StoreError> {
    let streams = store.streams()?;
    Ok(streams.iter().find(|(name, _)| **name == *stream).map_or(1, |(_, next)| *next))
}

/// A question and its answer as they are said again to a model.
pub(super) fn pair(question: &str, answer: &str) -> [Message; 2] {
    [Message::user(question), Message::assistant(answer)]
}
