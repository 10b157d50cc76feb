//! What a store owes that outlives its object.

use std::sync::Arc;

use crate::checkpoint::Scope;
use crate::checkpoint::contract::kit::{
    child, commit, draft, got, history, id, line, lines, pin, records, root, seal, sealed,
};
use crate::checkpoint::contract::{ends_well, named};
use crate::checkpoint::manifest::{Pin, Topology};
use crate::checkpoint::store::{Batch, Item, Store};

/// Checks that whatever was answered is there when the store is opened anew. `open` opens the same place each time; it is
/// empty at first. The object before is dropped by then.
///
/// # Panics
/// As [`Clause::check`](crate::checkpoint::contract::Clause::check).
pub async fn check_reopened(mut open: impl FnMut() -> Arc<dyn Store>) {
    let store = open();
    let name = named(&*store);
    let clause = "what_was_answered_is_there_when_the_store_is_opened_anew";
    ends_well(Box::pin(fill(store)), &name, clause).await;
    let store = open();
    ends_well(Box::pin(is_there(store)), &name, clause).await;
    ends_well(Box::pin(goes_on(open())), &name, clause).await;
}

fn topology() -> Topology {
    Topology::new(["root/a agent".to_owned(), "root/b tool".to_owned()])
}

fn pinned() -> Pin {
    pin("operator", 9, 2)
}

async fn fill(store: Arc<dyn Store>) {
    let store = &*store;
    commit(store, Batch::new().topology(topology())).await;
    let a = history(store, "a", 4).await;
    let b = sealed(draft("b", 1, None).envelope(b"in hand".to_vec()));
    let (first, second) = (b"one".to_vec(), b"two".to_vec());
    let both = Batch::new().checkpoint(&b).append("requests", first).append("requests", second);
    commit(store, both).await;
    commit(store, Batch::new().line(line(5, &[&a[1], &b]))).await;
    let marks = Batch::new().pin(id(&a[2]), pinned()).pin(id(&a[2]), pin("gone", 9, 2));
    let marks = marks.unpin(id(&a[2]), "gone").mark_bad(id(&a[3]), "it failed a restore");
    commit(store, marks.trim("requests", 2)).await;
    commit(store, Batch::new().item(Item::Drop(id(&a[0])))).await;
    got("`flush`", store.flush());
}

async fn is_there(store: Arc<dyn Store>) {
    let store = &*store;
    let info = got("`info`", store.info());
    assert_eq!(info.topology.as_deref(), Some(&topology()), "the topology");
    let children = got("`children`", store.children());
    assert_eq!(children, [child("a"), child("b")], "the children");
    let a = got("`checkpoints`", store.checkpoints(&child("a")));
    let steps: Vec<u64> = a.iter().map(|it| it.checkpoint.step).collect();
    assert_eq!(steps, [4, 3, 2], "of four steps the first was dropped");
    assert!(a.iter().all(|it| it.checkpoint.taken.is_none()), "of another process's clock: {a:?}");
    assert_eq!(a[0].bad.as_deref(), Some("it failed a restore"), "the mark");
    assert_eq!(a[1].pins, [pinned()], "the pins");
    assert!(
        a.iter().all(|it| it.broken.is_none()),
        "a parent that was dropped is remembered: {a:?}"
    );
    let b = got("`checkpoints`", store.checkpoints(&child("b")));
    let stored = got("`load`", store.load(b[0].checkpoint.id));
    let request = stored.envelope().unwrap_or_else(|error| panic!("the request in hand: {error}"));
    assert_eq!(request.as_deref(), Some(&b"in hand"[..]), "the request in hand");
    let drawn = lines(store, Scope::Session, &root());
    let members = [(child("a"), a[2].checkpoint.id), (child("b"), b[0].checkpoint.id)];
    assert_eq!(drawn.len(), 1, "the lines");
    assert_eq!(drawn[0].members, members, "the members of the line");
    assert_eq!(records(store, "requests", 1, 9), [(2, b"two".to_vec())], "the journal");
}

/// Goes on where it was: with the next position, and from a parent that is remembered alone.
async fn goes_on(store: Arc<dyn Store>) {
    let store = &*store;
    let sequence = got("`info`", store.info()).commits;
    let receipt = commit(store, Batch::new().append("requests", Vec::new())).await;
    assert_eq!(receipt.positions, [(Arc::from("requests"), 3)], "the next position");
    assert_eq!(receipt.sequence, sequence + 1, "the next commit");
    let first = seal("c", 1, None);
    commit(store, Batch::new().checkpoint(&first)).await;
    commit(store, Batch::new().checkpoint(&seal("c", 2, Some(&first)))).await;
}
