//! What every store owes, checked: for the stores here, and for one of your own.
//!
//! ```
//! use std::sync::Arc;
//! use mainstay::checkpoint::{MemoryStore, Store, contract};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! // In a test, and with your own store instead: a new, empty one each time.
//! contract::check(|| Arc::new(MemoryStore::new()) as Arc<dyn Store>).await;
//! # }
//! ```
//!
//! Where each clause is to be a test of its own, [`CLAUSES`] has them one by one. A store that outlives its object is
//! checked by [`check_reopened`], too.
//!
//! *Invariant.* Nothing is asked of a store but what [`Store`] and [`Item`](crate::checkpoint::Item) say, and nothing is
//! known of it but what they tell.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::checkpoint::store::Store;

mod clauses;
mod kept;
mod kit;

pub use clauses::CLAUSES;
pub use kept::check_reopened;

/// One thing that every store owes.
#[derive(Clone, Copy)]
pub struct Clause {
    name: &'static str,
    holds: fn(Arc<dyn Store>) -> Checking,
}

type Checking = Pin<Box<dyn Future<Output = ()> + Send>>;

impl fmt::Debug for Clause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clause").field(&self.name).finish()
    }
}

impl Clause {
    /// What is owed, as a sentence with underscores in it: a name for a test.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Checks it with a store that is new and empty. Within a runtime of tokio of any flavor; commits are awaited
    /// there, and the other methods are called on its threads, as a system does.
    ///
    /// # Panics
    /// When the store breaks it: with the store's name, the clause's, and what was not as it is owed. When there is no
    /// runtime.
    pub async fn check(self, store: Arc<dyn Store>) {
        let name = named(&*store);
        ends_well((self.holds)(store), &name, self.name).await;
    }
}

/// Checks every clause, one after the other, each with a store that `make` makes new and empty.
///
/// # Panics
/// As [`Clause::check`], at the first that is broken.
pub async fn check(mut make: impl FnMut() -> Arc<dyn Store>) {
    for clause in CLAUSES {
        clause.check(make()).await;
    }
}

fn named(store: &dyn Store) -> String {
    store.info().map_or_else(|error| error.to_string(), |info| info.name)
}

async fn ends_well(checking: Checking, store: &str, clause: &str) {
    // In a task of its own, whose panic can be told with the name of the clause.
    let Err(error) = tokio::spawn(checking).await else { return };
    let why = match error.try_into_panic() {
        Ok(payload) => text_of(&*payload),
        Err(error) => error.to_string(),
    };
    panic!("store \"{store}\" breaks the contract, in \"{}\": {why}", clause.replace('_', " "));
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().cloned();
    let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_else(|| "it panicked".to_owned())
}
