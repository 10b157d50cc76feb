//! Which run a store belongs to: what it was begun with is written into it, and another run is refused.
//!
//! *Invariant.* Nothing is written into a store before its tree was found to be this program's.

use mainstay::checkpoint::{Batch, Durability, Store};
use mainstay::error::StoreError;

const STREAM: &str = "run";

/// What a run is begun with: the argument or the thing, and its value.
pub(crate) type Traits = Vec<(String, String)>;

/// Fails, with the difference, for the store of a run that was begun with something else. A store that does
/// not say belongs to anybody.
pub(crate) fn fits(store: &dyn Store, run: &Traits) -> Result<(), String> {
    let Some(known) = read(store)? else { return Ok(()) };
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for (name, value) in run {
        if let Some((_, other)) = known.iter().find(|it| it.0 == *name).filter(|it| it.1 != *value)
        {
            theirs.push(format!("{name} {other}"));
            ours.push(format!("{name} {value}"));
        }
    }
    if theirs.is_empty() {
        return Ok(());
    }
    Err(format!(
        "it belongs to the run with {}, not to this one with {}; go on with that one, or use another --store",
        theirs.join(" "),
        ours.join(" ")
    ))
}

/// Says whose store it is, unless it says so already.
pub(crate) async fn write(store: &dyn Store, run: &Traits) -> Result<(), String> {
    if read(store)?.is_some() {
        return Ok(());
    }
    let text = serde_json::to_vec(run).map_err(|error| error.to_string())?;
    let made: Result<_, StoreError> =
        store.commit(Batch::new().append(STREAM, text), Durability::Sync).await;
    made.map(drop).map_err(|error| error.to_string())
}

fn read(store: &dyn Store) -> Result<Option<Traits>, String> {
    let records = store.scan(STREAM, 1, 1).map_err(|error| error.to_string())?;
    let Some(record) = records.first() else { return Ok(None) };
    let known = serde_json::from_slice(&record.bytes);
    known.map(Some).map_err(|error| format!("what it says of its run cannot be read: {error}"))
}
