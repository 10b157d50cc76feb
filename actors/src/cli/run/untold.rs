//! Questions that nobody has been told the outcome of: a process that ends between the two has the next one tell it.
//!
//! *Invariant.* A record is there before its question is asked, and goes once what became of it was shown.

use std::sync::Arc;

use mainstay::checkpoint::{Batch, Durability, Store};
use mainstay::error::StoreError;

use super::talk;

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
    ) -> Result<String, StoreError> {
        // Positions are not given anew, whatever is forgotten.
        let at = talk::next(&*self.store, &self.stream)?;
        let key = key.unwrap_or_else(|| format!("{}/{at}", self.stream));
        // A pair of texts is always JSON.
        let bytes = serde_json::to_vec(&(&key, question)).unwrap_or_default();
        let batch = Batch::new().append(Arc::clone(&self.stream), bytes);
        self.store.commit(batch, self.durability).await?;
        Ok(key)
    }

    /// The keys and words of the questions, in the order in which they were asked.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(super) fn questions(&self) -> Result<Vec<(String, String)>, StoreError> {
        let records = self.store.scan(&self.stream, 0, usize::MAX)?;
        Ok(records.iter().filter_map(|it| serde_json::from_slice(&it.bytes).ok()).collect())
    }

    /// Has the batch forget the questions there are, since they have been told, but for those that are open still.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(super) fn told(
        &self,
        batch: Batch,
        open: impl Fn(&str) -> bool,
    ) -> Result<Batch, StoreError> {
        let next = talk::next(&*self.store, &self.stream)?;
        let mut batch = batch.trim(Arc::clone(&self.stream), next);
        for record in self.store.scan(&self.stream, 0, usize::MAX)? {
            let known = serde_json::from_slice::<(String, String)>(&record.bytes);
            if known.is_ok_and(|(key, _)| open(&key)) {
                batch = batch.append(Arc::clone(&self.stream), record.bytes);
            }
        }
        Ok(batch)
    }

    /// The questions there are have been told, but for those that are open still.
    ///
    /// # Errors
    /// The store cannot be read, or does not take it: the next process tells them again.
    pub(super) async fn all_told(&self, open: impl Fn(&str) -> bool) -> Result<(), StoreError> {
        if self.store.scan(&self.stream, 0, 1)?.is_empty() {
            return Ok(());
        }
        let batch = self.told(Batch::new(), open)?;
        self.store.commit(batch, self.durability).await.map(drop)
    }
}
