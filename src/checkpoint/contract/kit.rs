//! What the clauses are made of.

use std::sync::Arc;
use std::time::Duration;

use crate::checkpoint::line::{LineDraft, RecoveryLine};
use crate::checkpoint::manifest::{Draft, Now, Pin, Sealed, Wall};
use crate::checkpoint::snapshot::Snapshot;
use crate::checkpoint::store::{Batch, Durability, Receipt, Store};
use crate::checkpoint::validate::{Schema, Schemas};
use crate::checkpoint::{Retention, Scope};
use crate::error::StoreError;
use crate::id::{CheckpointId, ChildPath, Incarnation};
use crate::moment::Moment;

pub(super) fn now(seconds: u64) -> Now {
    let wall = Wall(1_700_000_000_000 + seconds * 1000);
    Now { wall, moment: Moment::from_millis(seconds * 1000) }
}

pub(super) fn root() -> ChildPath {
    ChildPath::new("root")
}

pub(super) fn child(id: &str) -> ChildPath {
    root().join(id)
}

pub(super) fn snapshot(memory: &str) -> Snapshot {
    Snapshot::new("agent", 1)
        .with("tools_used", Arc::new(vec!["search".to_owned()]))
        .with("context", Arc::new("the context".to_owned()))
        .with("memory", Arc::new(memory.to_owned()))
}

pub(super) fn draft(id: &str, step: u64, parent: Option<&Sealed>) -> Draft {
    let draft = Draft::new(child(id), snapshot(&format!("step {step}")), now(step));
    let draft = draft.at(Incarnation(1), step);
    parent.into_iter().fold(draft, |draft, parent| draft.after(parent.checkpoint()))
}

pub(super) fn sealed(draft: Draft) -> Sealed {
    draft.seal().unwrap_or_else(|error| panic!("the checks' own checkpoint: {error}"))
}

pub(super) fn seal(id: &str, step: u64, parent: Option<&Sealed>) -> Sealed {
    sealed(draft(id, step, parent))
}

/// What the store answers where it has no reason to fail.
pub(super) fn got<T>(what: &str, answer: Result<T, StoreError>) -> T {
    answer.unwrap_or_else(|error| panic!("{what} fails: {error}"))
}

/// Commits what fits.
pub(super) async fn commit(store: &dyn Store, batch: Batch) -> Receipt {
    got("a commit that fits", store.commit(batch, Durability::Sync).await)
}

/// Commits what contradicts the store; the error.
pub(super) async fn refused(store: &dyn Store, what: &str, batch: Batch) -> String {
    match store.commit(batch, Durability::Sync).await {
        Err(error @ StoreError::Refused { .. }) => error.to_string(),
        other => panic!("{what} is to be answered with `StoreError::Refused`, not {other:?}"),
    }
}

/// `count` checkpoints of one child, each built on the one before.
pub(super) async fn history(store: &dyn Store, id: &str, count: u64) -> Vec<Sealed> {
    let mut made: Vec<Sealed> = Vec::new();
    for step in 1..=count {
        let sealed = seal(id, step, made.last());
        commit(store, Batch::new().checkpoint(&sealed)).await;
        made.push(sealed);
    }
    made
}

pub(super) fn id(sealed: &Sealed) -> CheckpointId {
    sealed.checkpoint().id
}

pub(super) fn ids(store: &dyn Store, id: &str) -> Vec<CheckpointId> {
    let listed = got("`checkpoints`", store.checkpoints(&child(id)));
    listed.iter().map(|it| it.checkpoint.id).collect()
}

pub(super) fn memory(store: &dyn Store, id: CheckpointId) -> String {
    let stored = got("`load`", store.load(id));
    let memory = stored.snapshot.get::<String>("memory");
    memory.unwrap_or_else(|error| panic!("what was loaded of {id}: {error}")).to_string()
}

pub(super) fn records(store: &dyn Store, stream: &str, from: u64, n: usize) -> Vec<(u64, Vec<u8>)> {
    let records = got("`scan`", store.scan(stream, from, n));
    records.into_iter().map(|it| (it.position, it.bytes)).collect()
}

pub(super) fn lines(store: &dyn Store, scope: Scope, at: &ChildPath) -> Vec<Arc<RecoveryLine>> {
    got("`lines`", store.lines(scope, at))
}

pub(super) fn retain(store: &dyn Store, checkpoints: usize, lines: usize, at: u64) -> usize {
    let keep = Retention { checkpoints, lines };
    got("`retain`", store.retain(keep, now(at).wall)).dropped.len()
}

pub(super) fn schemas() -> Schemas {
    let schema = Schema::agent(1).field::<String>("memory").field::<Vec<String>>("tools_used");
    let schemas = Schemas::new().register(schema);
    schemas.unwrap_or_else(|error| panic!("the checks' own schema: {error}"))
}

pub(super) fn line(at: u64, members: &[&Sealed]) -> RecoveryLine {
    let draft = LineDraft::new(Scope::Session, root(), now(at));
    let draft = members.iter().fold(draft, |draft, member| draft.member(member.checkpoint()));
    draft.draw().unwrap_or_else(|error| panic!("the checks' own line: {error}"))
}

pub(super) fn pin(owner: &str, at: u64, hours: u64) -> Pin {
    let since = now(at).wall;
    let until = since.after(Duration::from_secs(hours * 3600));
    Pin { owner: owner.to_owned(), reason: "a person decides".to_owned(), since, until }
}
