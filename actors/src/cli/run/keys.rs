//! What was asked under which key: one who gives a key again asks the same again, or is told that it is another
//! question's.
//!
//! *Invariant.* A record is there before its question is asked, and holds no word of it.

use std::sync::Arc;

use mainstay::checkpoint::{Batch, Digest, Durability, Store};
use mainstay::error::StoreError;

use super::talk;

/// How many keys are kept: as many as fates are remembered.
const KEPT: u64 = 65_536;

/// The longest key, in bytes, as of every durable request.
const LONGEST: usize = 4096;

/// What is wrong with a key, if it can stand for no question.
pub(crate) fn wrong_key(key: &str) -> Option<String> {
    Some(match key.len() {
        0 => "is empty: a key has 1 to 4,096 bytes".to_owned(),
        len if len > LONGEST => format!("has {len} bytes: a key has 1 to 4,096"),
        _ if key.starts_with("undo-") => {
            "begins with \"undo-\", as only the keys of undos do: give another one".to_owned()
        }
        _ => return None,
    })
}

/// Where the keys of one who is asked are kept.
pub(super) struct Keys {
    store: Arc<dyn Store>,
    stream: Arc<str>,
    durability: Durability,
}

impl Keys {
    pub(super) fn new(store: Arc<dyn Store>, asked: &str, durability: Durability) -> Self {
        Self { store, stream: format!("keys/{asked}").into(), durability }
    }

    /// Whether this is what the key stands for; it does from now on, if it has stood for nothing.
    ///
    /// # Errors
    /// The store cannot be read, or does not take it.
    pub(super) async fn stands_for(&self, key: &str, question: &str) -> Result<bool, StoreError> {
        let digest = Digest::of(question.as_bytes()).to_string();
        let records = self.store.scan(&self.stream, 0, usize::MAX)?;
        let known = records.iter().rev().find_map(|record| {
            let (known, digest) = serde_json::from_slice::<(String, String)>(&record.bytes).ok()?;
            (known == key).then_some(digest)
        });
        if let Some(known) = known {
            return Ok(known == digest);
        }
        // A pair of texts is always JSON.
        let bytes = serde_json::to_vec(&(key, &digest)).unwrap_or_default();
        let mut batch = Batch::new().append(Arc::clone(&self.stream), bytes);
        let next = talk::next(&*self.store, &self.stream)?;
        if let Some(before) = next.checked_sub(KEPT - 1).filter(|before| *before > 1) {
            batch = batch.trim(Arc::clone(&self.stream), before);
        }
        self.store.commit(batch, self.durability).await?;
        Ok(true)
    }
}
