//! Questions that nobody has been told the outcome of: a process that ends between the two has the next one tell it.
//!
//! *Invariant.* A record is there before its question is asked, and goes once what became of it was shown.

use std::sync::Arc;

use mainstay::checkpoint::{Batch, Durability, Store};
use mainstay::error::StoreError;

use super::talk;

/// A question that was asked.
pub(super) struct Record {
    /// Under which it was.
    pub(super) key: String,
    pub(super) text: String,
    /// Whether it is a turn of a conversation, which is more than a question in the same words.
    pub(super) is_turn: bool,
}

impl Record {
    /// `None` for what another version has written otherwise. The first one did not tell turns from others.
    fn of(bytes: &[u8]) -> Option<Self> {
        if let Ok((key, text, is_turn)) = serde_json::from_slice(bytes) {
            return Some(Self { key, text, is_turn });
        }
        let (key, text) = serde_json::from_slice(bytes).ok()?;
        Some(Self { key, text, is_turn: false })
    }
}

/// Where the questions to one who is asked are kept until they are told.
pub(super) struct Untold {
    store: Arc<dyn Store>,
    stream: Arc<str>,
    durability: Durability,
}

impl Untold {
    pub(super) fn new(store: Arc<dyn Store>, asked: &str, durability: Durability) -> Self {
        Self { store, stream: format!("untold/{asked}").into(), durability }
    }

    /// A question is about to be asked. Under which key: the one it has, or one that no other question ever has.
    ///
    /// # Errors
    /// The store cannot be read, or does not take it.
    pub(super) async fn asks(
        &self,
        key: Option<String>,
        question: &str,
        is_turn: bool,
    ) -> Result<String, StoreError> {
        // Positions are not given anew, whatever is forgotten.
        let at = talk::next(&*self.store, &self.stream)?;
        let key = key.unwrap_or_else(|| format!("{}/{at}", self.stream));
        // Texts are always JSON.
        let bytes = serde_json::to_vec(&(&key, question, is_turn)).unwrap_or_default();
        let batch = Batch::new().append(Arc::clone(&self.stream), bytes);
        self.store.commit(batch, self.durability).await?;
        Ok(key)
    }

    /// The questions, in the order in which they were asked.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(super) fn questions(&self) -> Result<Vec<Record>, StoreError> {
        let records = self.store.scan(&self.stream, 0, usize::MAX)?;
        Ok(records.iter().filter_map(|it| Record::of(&it.bytes)).collect())
    }

    /// A batch that forgets the questions there are, since they have been told, but for those that are open still;
    /// `None` where there are none.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(super) fn told(&self, open: impl Fn(&str) -> bool) -> Result<Option<Batch>, StoreError> {
        let records = self.store.scan(&self.stream, 0, usize::MAX)?;
        if records.is_empty() {
            return Ok(None);
        }
        let next = talk::next(&*self.store, &self.stream)?;
        let mut batch = Batch::new().trim(Arc::clone(&self.stream), next);
        for record in records {
            if Record::of(&record.bytes).is_some_and(|it| open(&it.key)) {
                batch = batch.append(Arc::clone(&self.stream), record.bytes);
            }
        }
        Ok(Some(batch))
    }

    /// Commits it, as the questions were.
    ///
    /// # Errors
    /// The store does not take it: the next process tells them again.
    pub(super) async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.store.commit(batch, self.durability).await.map(drop)
    }
}
