//! The clauses, each an async function that panics with what is not as it is owed.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use crate::checkpoint::contract::Clause;
use crate::checkpoint::contract::kit::{
    child, commit, draft, got, history, id, ids, line, lines, memory, now, pin, records, refused,
    retain, root, schemas, seal, sealed, snapshot,
};
use crate::checkpoint::line::RecoveryLine;
use crate::checkpoint::manifest::{Budgets, Digest, Draft, Sealed, Topology};
use crate::checkpoint::snapshot::Snapshot;
use crate::checkpoint::store::{Batch, Durability, Export, Item, Store, Stored};
use crate::checkpoint::validate::{Rules, Validator};
use crate::checkpoint::{Retention, Scope};
use crate::error::{CheckpointError, StoreError};
use crate::id::{CheckpointId, Incarnation};

macro_rules! clauses {
    ($($name:ident)*) => {
        /// All of them.
        pub const CLAUSES: &[Clause] = &[
            $(Clause { name: stringify!($name), holds: |store| Box::pin($name(store)) },)*
        ];
    };
}

clauses! {
    what_was_committed_reads_back
    checkpoints_are_listed_newest_first
    a_batch_is_taken_whole_or_not_at_all
    what_contradicts_the_store_is_refused
    an_error_names_the_store_and_what_is_wrong
    a_content_that_did_not_change_is_kept_once
    contents_of_different_types_with_the_same_bytes_are_read_as_what_each_is
    a_journal_keeps_its_order_and_its_positions
    retention_keeps_the_newest_and_whatever_is_needed
    retention_keeps_what_is_held_besides
    retention_keeps_what_a_child_goes_on_from
    retention_keeps_where_a_request_began_that_a_line_has_in_the_middle
    retention_keeps_the_newest_lines_of_each_place
    what_is_dropped_is_gone_and_what_goes_on_from_it_is_whole
    what_a_child_that_is_gone_has_left_goes_but_for_what_is_needed
    what_is_set_aside_is_listed_exported_and_released
    a_pin_holds_until_it_is_taken_away
    compaction_changes_nothing_that_can_be_seen
    the_topology_is_the_last_one_committed
    many_commit_at_once_and_each_keeps_its_order
    a_commit_nobody_waits_for_happens_all_the_same
    commits_that_wait_together_are_numbered_one_by_one
    a_line_is_restored_whole_or_an_older_one_is
    a_store_that_is_taken_up_knows_of_no_other_clock
}

async fn what_was_committed_reads_back(store: Arc<dyn Store>) {
    let store = &*store;
    let draft = Draft::new(child("a"), snapshot("gold"), now(5))
        .at(Incarnation(3), 17)
        .scope(Scope::Flow)
        .envelope(b"the request".to_vec())
        .topology(Digest::of(b"tree"))
        .ledger(9)
        .mailbox_cut(41)
        .policy(Digest::of(b"policy"))
        .budgets(Budgets { attempts: 1, tokens: 2, money_micros: 3, wall_millis: 4 });
    let sealed = sealed(draft);
    let receipt = commit(store, Batch::new().checkpoint(&sealed)).await;
    assert_eq!(receipt.sequence, 1, "the number of the first commit");
    let stored = got("`load`", store.load(id(&sealed)));
    let mut wanted = (**sealed.checkpoint()).clone();
    // Both are right, until it is taken up.
    wanted.taken = stored.checkpoint().taken;
    assert_eq!(**stored.checkpoint(), wanted, "the checkpoint");
    assert_eq!(memory(store, id(&sealed)), "gold", "a piece");
    assert_eq!(request(&stored).as_deref(), Some(&b"the request"[..]), "the request in hand");
    let (read, given) = (stored.snapshot.digest(), sealed.snapshot().digest());
    assert_eq!(read, given, "the digest of the state");
    let found = got("`find`", store.find(id(&sealed)));
    assert_eq!(found.checkpoint.digest, wanted.digest, "the checkpoint that is found");
    assert_eq!(got("`children`", store.children()), [child("a")], "the children");
    let unknown = CheckpointId(1);
    let loaded = store.load(unknown).map(drop);
    assert!(matches!(loaded, Err(StoreError::NotFound(_))), "`load` of an unknown id: {loaded:?}");
    let found = store.find(unknown).map(drop);
    assert!(matches!(found, Err(StoreError::NotFound(_))), "`find` of an unknown id: {found:?}");
    assert!(ids(store, "nobody").is_empty(), "a child without checkpoints has none");
}

fn request(stored: &Stored) -> Option<Vec<u8>> {
    stored.envelope().unwrap_or_else(|error| panic!("the request in hand: {error}"))
}

async fn checkpoints_are_listed_newest_first(store: Arc<dyn Store>) {
    let made = history(&*store, "a", 4).await;
    let wanted: Vec<CheckpointId> = made.iter().rev().map(id).collect();
    assert_eq!(ids(&*store, "a"), wanted, "the order of `checkpoints`");
}

async fn a_batch_is_taken_whole_or_not_at_all(store: Arc<dyn Store>) {
    let store = &*store;
    let (known, unknown) = (seal("a", 1, None), seal("b", 1, None));
    let batch = Batch::new()
        .checkpoint(&known)
        .append("requests", b"one".to_vec())
        .line(line(1, &[&known, &unknown]));
    let error = refused(store, "a line with a member that is missing", batch).await;
    let named = id(&unknown).to_string();
    assert!(error.contains(&named), "an error about the member {named} that is missing: {error}");
    assert!(ids(store, "a").is_empty(), "a checkpoint of a batch that was refused is there");
    assert!(records(store, "requests", 1, 10).is_empty(), "a record of a batch that was refused");
    let batch = Batch::new().checkpoint(&known).checkpoint(&unknown).append("requests", vec![1]);
    let receipt = commit(store, batch.line(line(1, &[&known, &unknown]))).await;
    assert_eq!(receipt.positions, [(Arc::from("requests"), 1)], "the position of a first record");
    assert_eq!(lines(store, Scope::Session, &root()).len(), 1, "the line");
}

async fn what_contradicts_the_store_is_refused(store: Arc<dyn Store>) {
    let store = &*store;
    let unknown = CheckpointId(7);
    let (first, other) = (seal("a", 1, None), seal("a", 1, None));
    let orphan = Batch::new().checkpoint(&seal("a", 2, Some(&first)));
    refused(store, "a checkpoint whose parent is missing", orphan).await;
    commit(store, Batch::new().checkpoint(&first)).await;
    let mut stranger = (**other.checkpoint()).clone();
    stranger.id = id(&first);
    let forged = Draft::new(child("a"), snapshot("forged"), now(2)).after(&stranger);
    for (what, batch) in [
        ("a checkpoint twice", Batch::new().checkpoint(&first)),
        ("one that does not go on from its parent", Batch::new().checkpoint(&sealed(forged))),
        ("a checkpoint twice in a batch", Batch::new().checkpoint(&other).checkpoint(&other)),
        ("a pin on what is not there", Batch::new().pin(unknown, pin("x", 0, 1))),
        ("a mark on what is not there", Batch::new().mark_bad(unknown, "no")),
        ("the release of what is not there", Batch::new().release(unknown)),
        ("a journal trimmed beyond its end", Batch::new().trim("requests", 2)),
    ] {
        refused(store, what, batch).await;
    }
    assert_eq!(ids(store, "a"), [id(&first)], "what is left of all that was refused");
    let nothing = Batch::new().item(Item::Drop(unknown)).unpin(unknown, "nobody");
    commit(store, nothing.unpin(id(&first), "nobody")).await;
}

async fn an_error_names_the_store_and_what_is_wrong(store: Arc<dyn Store>) {
    let store = &*store;
    let name = got("`info`", store.info()).name;
    let orphan = seal("a", 2, Some(&seal("a", 1, None)));
    let pinned = Batch::new().pin(CheckpointId(7), pin("x", 0, 1));
    for (batch, what) in [
        (Batch::new().checkpoint(&orphan), id(&orphan).to_string()),
        (pinned, CheckpointId(7).to_string()),
        (Batch::new().trim("requests", 2), "\"requests\"".to_owned()),
    ] {
        let error = refused(store, &what, batch).await;
        assert!(error.contains(&format!("store \"{name}\"")), "\"{name}\" is not named: {error}");
        assert!(error.contains(&what), "{what} is not named: {error}");
    }
    // How long a name may be is the store's own affair, as long as it says so.
    let long = "n".repeat(usize::from(u16::MAX) + 1);
    match store.commit(Batch::new().append(&*long, vec![1]), Durability::Sync).await {
        Ok(_) => assert_eq!(records(store, &long, 1, 9), [(1, vec![1])], "a journal's long name"),
        Err(error) => assert!(error.to_string().contains("nnnn"), "a name too long: {error}"),
    }
}

async fn a_content_that_did_not_change_is_kept_once(store: Arc<dyn Store>) {
    let made = history(&*store, "a", 5).await;
    let info = got("`info`", store.info());
    // `tools_used` and `context` are the same in all five, `memory` differs.
    assert_eq!(info.pieces, 2 + made.len(), "`StoreInfo::pieces`");
    assert_eq!(info.checkpoints, made.len(), "`StoreInfo::checkpoints`");
}

async fn contents_of_different_types_with_the_same_bytes_are_read_as_what_each_is(
    store: Arc<dyn Store>,
) {
    let store = &*store;
    let snapshot = Snapshot::new("agent", 1)
        .with("count", Arc::new(0_u64))
        .with("done", Arc::new(false))
        .with("list", Arc::new(Vec::<String>::new()))
        .with("text", Arc::new(String::new()));
    let sealed = sealed(Draft::new(child("a"), snapshot, now(1)));
    commit(store, Batch::new().checkpoint(&sealed)).await;
    for _ in 0..2 {
        let read = got("`load`", store.load(id(&sealed))).snapshot;
        assert_eq!(read.get::<u64>("count").as_deref(), Ok(&0), "a number");
        assert_eq!(read.get::<bool>("done").as_deref(), Ok(&false), "a truth");
        assert_eq!(read.get::<Vec<String>>("list").as_deref(), Ok(&Vec::new()), "a list");
        assert_eq!(read.get::<String>("text").as_deref(), Ok(&String::new()), "a text");
    }
}

async fn a_journal_keeps_its_order_and_its_positions(store: Arc<dyn Store>) {
    let store = &*store;
    for n in 0..6_u8 {
        let batch = Batch::new().append("fates", vec![n]).append("requests", vec![10 + n]);
        let receipt = got("a commit that fits", store.commit(batch, Durability::Async).await);
        let position = u64::from(n) + 1;
        let wanted = [(Arc::from("fates"), position), (Arc::from("requests"), position)];
        assert_eq!(receipt.positions, wanted, "the positions of a commit");
    }
    let read = |stream, from, limit| records(store, stream, from, limit);
    let last = [(5, vec![4]), (6, vec![5])];
    assert_eq!(read("fates", 5, 9), last, "from the fifth on");
    assert_eq!(read("requests", 0, 2), [(1, vec![10]), (2, vec![11])], "the first two");
    assert!(read("fates", 7, 9).is_empty(), "behind the last");
    assert!(read("nothing", 1, 9).is_empty(), "of a journal that is not there");
    commit(store, Batch::new().trim("fates", 5)).await;
    assert_eq!(read("fates", 1, 9), last, "what a trim has left");
    commit(store, Batch::new().trim("fates", 7)).await;
    assert!(read("fates", 1, 9).is_empty(), "all was trimmed");
    got("`compact`", store.compact());
    let batch = Batch::new().append("fates", vec![9]).append("fates", vec![8]);
    let receipt = commit(store, batch).await;
    let wanted = [(Arc::from("fates"), 7), (Arc::from("fates"), 8)];
    assert_eq!(receipt.positions, wanted, "the positions after all was trimmed");
    assert_eq!(read("fates", 1, 9), [(7, vec![9]), (8, vec![8])], "the records after that");
    assert_eq!(read("requests", 1, 9).len(), 6, "another journal");
    let streams = got("`streams`", store.streams());
    assert_eq!(streams, [(Arc::from("fates"), 9), (Arc::from("requests"), 7)], "`streams`");
}

async fn retention_keeps_the_newest_and_whatever_is_needed(store: Arc<dyn Store>) {
    let store = &*store;
    let made = history(store, "a", 12).await;
    let other = history(store, "b", 1).await;
    commit(store, Batch::new().line(line(20, &[&made[3], &other[0]]))).await;
    commit(store, Batch::new().pin(id(&made[1]), pin("operator", 20, 2))).await;
    commit(store, Batch::new().pin(id(&made[2]), pin("operator", 20, 1))).await;
    commit(store, Batch::new().mark_bad(id(&made[5]), "failed a restore")).await;
    // Two hours in, one of the two pins has run out.
    let dropped = retain(store, 3, 1, 20 + 5400);
    let left = [11, 10, 9, 5, 3, 1].map(|at| id(&made[at]));
    assert_eq!(ids(store, "a"), left, "the newest 3, those set aside, in a line, and pinned");
    assert_eq!(ids(store, "b"), [id(&other[0])], "another child's");
    assert_eq!(dropped, 12 - left.len(), "`Retained::dropped`");
    // What is left has an unbroken lineage, though most parents are gone.
    for at in [11, 10, 9, 3, 1] {
        is_valid(store, &made[at]);
    }
    // The next one builds on the newest, and an older one that was dropped can still be built on.
    commit(store, Batch::new().checkpoint(&seal("a", 13, made.last()))).await;
    commit(store, Batch::new().checkpoint(&seal("a", 14, Some(&made[8])))).await;
    got("`compact`", store.compact());
    is_valid(store, &made[9]);
}

fn is_valid(store: &dyn Store, sealed: &Sealed) {
    let schemas = schemas();
    let validated = Validator::new(store, &schemas, Rules::at(now(30))).validate(id(sealed));
    if let Err(error) = validated {
        panic!("step {} is no longer valid: {error}", sealed.checkpoint().step);
    }
}

async fn retention_keeps_what_is_held_besides(store: Arc<dyn Store>) {
    let store = &*store;
    let made = history(store, "a", 4).await;
    let keep = Retention { checkpoints: 1, lines: 1 };
    let held = HashSet::from([id(&made[0]), CheckpointId(7)]);
    let retained = got("`retain_besides`", store.retain_besides(keep, now(5).wall, &held));
    let left = ids(store, "a");
    assert_eq!(left.len(), 4 - retained.dropped.len(), "`Retained::dropped`");
    assert!(left.contains(&id(&made[0])) && left.contains(&id(&made[3])), "what is held: {left:?}");
    retain(store, 1, 1, 5);
    assert_eq!(ids(store, "a"), [id(&made[3])], "what is held no longer");
}

async fn retention_keeps_what_a_child_goes_on_from(store: Arc<dyn Store>) {
    let store = &*store;
    // In the middle of a request, with what it began with and with nothing before it; no pin holds that.
    let first = history(store, "a", 2).await;
    let a = in_the_middle(store, "a", first.last().cloned()).await;
    let b = in_the_middle(store, "b", None).await;
    // The second was returned to, and what followed is of no use; what lies between was given up.
    let c = history(store, "c", 4).await;
    let bad = seal("c", 9, Some(&c[1]));
    commit(store, Batch::new().checkpoint(&bad)).await;
    commit(store, Batch::new().mark_bad(id(&bad), "failed a restore")).await;
    retain(store, 1, 1, 9);
    assert_eq!(ids(store, "a"), [a[4], id(&first[1])], "the newest, and where its request began");
    assert_eq!(ids(store, "b"), [b[4], b[0]], "the newest, and the oldest: it began with nothing");
    let left = [id(&bad), id(&c[3]), id(&c[1])];
    assert_eq!(ids(store, "c"), left, "what is set aside, the newest, and what both come from");
}

async fn in_the_middle(
    store: &dyn Store,
    of: &str,
    mut before: Option<Sealed>,
) -> Vec<CheckpointId> {
    let mut made = Vec::new();
    for at in 3..8 {
        let sealed = sealed(draft(of, at, before.as_ref()).envelope(at.to_string().into_bytes()));
        commit(store, Batch::new().checkpoint(&sealed)).await;
        made.push(id(&sealed));
        before = Some(sealed);
    }
    made
}

async fn retention_keeps_where_a_request_began_that_a_line_has_in_the_middle(
    store: Arc<dyn Store>,
) {
    let store = &*store;
    let mut made = history(store, "a", 2).await;
    for at in 3..5 {
        let middle = sealed(draft("a", at, made.last()).envelope(b"in hand".to_vec()));
        commit(store, Batch::new().checkpoint(&middle)).await;
        made.push(middle);
    }
    commit(store, Batch::new().line(line(5, &[&made[3]]))).await;
    for at in 5..8 {
        let sealed = seal("a", at, made.last());
        commit(store, Batch::new().checkpoint(&sealed)).await;
        made.push(sealed);
    }
    retain(store, 1, 1, 9);
    let left = [6, 3, 2, 1].map(|at: usize| id(&made[at]));
    assert_eq!(ids(store, "a"), left, "the newest, and the line's back to its request's begin");
}

async fn retention_keeps_the_newest_lines_of_each_place(store: Arc<dyn Store>) {
    let store = &*store;
    let made = history(store, "a", 4).await;
    let drawn: Vec<RecoveryLine> = made.iter().map(|it| line(10, &[it])).collect();
    for line in &drawn {
        commit(store, Batch::new().line(line.clone())).await;
    }
    refused(store, "a line twice", Batch::new().line(drawn[0].clone())).await;
    // A pin in the name of a line, on its first member, holds all of it.
    let for_ann = format!("{} for ann", drawn[0].id);
    commit(store, Batch::new().pin(id(&made[0]), pin(&for_ann, 10, 1))).await;
    let listed = lines(store, Scope::Session, &root());
    let found: Vec<_> = listed.iter().map(|it| it.id).collect();
    let wanted: Vec<_> = drawn.iter().rev().map(|it| it.id).collect();
    assert_eq!(found, wanted, "the order of `lines`");
    assert_eq!(*listed[0], drawn[3], "a line as it was drawn");
    assert!(lines(store, Scope::System, &root()).is_empty(), "lines of another scope");
    assert!(lines(store, Scope::Session, &child("a")).is_empty(), "lines of another place");
    let keep = Retention { checkpoints: 1, lines: 2 };
    let retained = got("`retain`", store.retain(keep, now(20).wall));
    assert_eq!(retained.lines, [drawn[1].id], "`Retained::lines`");
    let left: Vec<_> = lines(store, Scope::Session, &root()).iter().map(|it| it.id).collect();
    assert_eq!(left, [drawn[3].id, drawn[2].id, drawn[0].id], "the newest lines, and the pinned");
    let left = [3, 2, 0].map(|at: usize| id(&made[at]));
    assert_eq!(ids(store, "a"), left, "what they name");
}

async fn what_is_dropped_is_gone_and_what_goes_on_from_it_is_whole(store: Arc<dyn Store>) {
    let store = &*store;
    let made = history(store, "a", 3).await;
    let drop = Batch::new().item(Item::Drop(id(&made[0]))).item(Item::Drop(id(&made[1])));
    commit(store, drop).await;
    assert_eq!(ids(store, "a"), [id(&made[2])], "what is left");
    let dropped = store.load(id(&made[1])).map(std::mem::drop);
    assert!(matches!(dropped, Err(StoreError::NotFound(_))), "`load` of it: {dropped:?}");
    is_valid(store, &made[2]);
    commit(store, Batch::new().checkpoint(&seal("a", 4, Some(&made[1])))).await;
    let drop = Batch::new().item(Item::Drop(id(&made[2])));
    commit(store, drop).await;
    got("`compact`", store.compact());
    assert_eq!(ids(store, "a").len(), 1, "the one that goes on from what was dropped");
    // Nobody goes on from it any more.
    let orphan = Batch::new().checkpoint(&seal("a", 5, Some(&made[2])));
    refused(store, "what goes on from one that is forgotten", orphan).await;
}

async fn what_a_child_that_is_gone_has_left_goes_but_for_what_is_needed(store: Arc<dyn Store>) {
    let store = &*store;
    let made = history(store, "a", 5).await;
    let other = history(store, "b", 1).await;
    commit(store, Batch::new().line(line(5, &[&made[0]]))).await;
    // Its own pins were for requests that have their fates.
    let own = child("a").as_str().to_owned();
    let pins = Batch::new().pin(id(&made[1]), pin("ann", 5, 1)).pin(id(&made[2]), pin(&own, 5, 1));
    commit(store, pins.mark_bad(id(&made[3]), "failed a restore")).await;
    commit(store, Batch::new().item(Item::Clear(child("a"), now(6).wall))).await;
    let left = [3, 1, 0].map(|at: usize| id(&made[at]));
    assert_eq!(ids(store, "a"), left, "what others pinned, what is set aside or in a line");
    assert_eq!(ids(store, "b"), [id(&other[0])], "another child's");
}

async fn what_is_set_aside_is_listed_exported_and_released(store: Arc<dyn Store>) {
    let store = &*store;
    let made = history(store, "a", 2).await;
    let bad = id(&made[1]);
    commit(store, Batch::new().mark_bad(bad, "the restore panicked")).await;
    let listed = got("`quarantined`", store.quarantined());
    assert_eq!(listed.len(), 1, "`quarantined`");
    assert_eq!(listed[0].bad.as_deref(), Some("the restore panicked"), "why it was set aside");
    let schemas = schemas();
    let validator = || Validator::new(store, &schemas, Rules::at(now(3)));
    match validator().validate(bad).map(drop) {
        Err(CheckpointError::Quarantined { reason, .. }) if reason.contains("panicked") => {}
        other => panic!("what was set aside is restored: {other:?}"),
    }
    let newest = || match validator().newest(&child("a")) {
        Ok(search) => search.found.map(|found| found.checkpoint().id),
        Err(error) => panic!("the newest that is valid: {error}"),
    };
    assert_eq!(newest(), Some(id(&made[0])), "the newest that is valid");
    let export = got("the export", got("`load`", store.load(bad)).export());
    let read = Export::read(&export).unwrap_or_else(|error| panic!("an export: {error}"));
    assert_eq!(read.checkpoint().id, bad, "the export's checkpoint");
    let piece = read.snapshot.get::<String>("memory");
    assert_eq!(piece.as_deref(), Ok(&"step 2".to_owned()), "the export's state");
    assert_eq!(read.listed.bad.as_deref(), Some("the restore panicked"), "the export's reason");
    commit(store, Batch::new().release(bad)).await;
    assert!(got("`quarantined`", store.quarantined()).is_empty(), "it was released");
    assert_eq!(newest(), Some(bad), "the newest that is valid, once it was released");
}

async fn a_pin_holds_until_it_is_taken_away(store: Arc<dyn Store>) {
    let store = &*store;
    let made = history(store, "a", 1).await;
    let only = id(&made[0]);
    let schemas = schemas();
    let is_valid = |at: u64| {
        let validated = Validator::new(store, &schemas, Rules::at(now(at))).validate(only);
        match validated {
            Ok(_) => true,
            Err(CheckpointError::Expired { .. }) => false,
            Err(other) => panic!("it is valid or expired, not this: {other}"),
        }
    };
    assert!(is_valid(3601) && !is_valid(3602), "without a pin it is valid for an hour");
    let pins = Batch::new().pin(only, pin("operator", 2, 1)).pin(only, pin("operator", 2, 72));
    commit(store, pins.pin(only, pin("auditor", 2, 2))).await;
    let listed = got("`find`", store.find(only));
    let mut owners: Vec<&str> = listed.pins.iter().map(|pin| &*pin.owner).collect();
    owners.sort_unstable();
    assert_eq!(owners, ["auditor", "operator"], "a pin of the same owner is replaced");
    assert!(is_valid(2 + 24 * 3600) && !is_valid(3 + 24 * 3600), "a pin holds for a day at most");
    commit(store, Batch::new().unpin(only, "operator")).await;
    assert!(!is_valid(3 * 3600) && is_valid(3600 + 1800), "one pin is taken away, one is left");
    commit(store, Batch::new().unpin(only, "auditor").unpin(only, "nobody")).await;
    assert!(!is_valid(3600 + 1800), "all pins are taken away");
}

async fn compaction_changes_nothing_that_can_be_seen(store: Arc<dyn Store>) {
    let store = &*store;
    let made = history(store, "a", 20).await;
    for n in 0..20 {
        let batch = Batch::new().append("requests", vec![n; 100]);
        got("a commit that fits", store.commit(batch, Durability::Async).await);
    }
    commit(store, Batch::new().mark_bad(id(&made[18]), "bad")).await;
    commit(store, Batch::new().line(line(30, &[&made[19]]))).await;
    retain(store, 2, 1, 30);
    let before = (ids(store, "a"), records(store, "requests", 1, 99));
    let compacted = got("`compact`", store.compact());
    assert!(compacted.after <= compacted.before, "it takes more than before: {compacted:?}");
    let after = (ids(store, "a"), records(store, "requests", 1, 99));
    assert_eq!(after, before, "checkpoints and records");
    // `tools_used` and `context`, and the `memory` of each that is left.
    let pieces = got("`info`", store.info()).pieces;
    assert_eq!(pieces, 2 + before.0.len(), "contents that nothing names are gone");
    assert_eq!(got("`quarantined`", store.quarantined()).len(), 1, "what was set aside");
    assert_eq!(lines(store, Scope::Session, &root()).len(), 1, "the line");
    assert_eq!(memory(store, id(&made[19])), "step 20", "the newest state");
    // A content that was dropped is written again when it comes back.
    let again = sealed(Draft::new(child("b"), snapshot("step 1"), now(40)));
    commit(store, Batch::new().checkpoint(&again)).await;
    assert_eq!(memory(store, id(&again)), "step 1", "a content that has come back");
}

async fn the_topology_is_the_last_one_committed(store: Arc<dyn Store>) {
    let store = &*store;
    assert_eq!(got("`info`", store.info()).topology, None, "of an empty store");
    let old = Topology::new(["root/a agent".to_owned(), "root/b tool".to_owned()]);
    let new = Topology::new(["root/c tool".to_owned(), "root/a agent".to_owned()]);
    commit(store, Batch::new().topology(old)).await;
    commit(store, Batch::new().topology(new.clone())).await;
    let topology = got("`info`", store.info()).topology;
    assert_eq!(topology.as_deref(), Some(&new), "after two");
}

async fn many_commit_at_once_and_each_keeps_its_order(store: Arc<dyn Store>) {
    const EACH: u64 = 40;
    let names = ["a", "b", "c", "d"];
    let threads = names.map(|name| {
        let store = Arc::clone(&store);
        tokio::task::spawn_blocking(move || {
            let mut made: Vec<Sealed> = Vec::new();
            let mut commits = Vec::new();
            for step in 1..=EACH {
                let sealed = seal(name, step, made.last());
                let batch = Batch::new().checkpoint(&sealed).append("all", vec![step as u8]);
                // Not waited for one by one: the next builds on one that is still on its way.
                commits.push(store.commit(batch, Durability::Async));
                made.push(sealed);
            }
            for commit in commits {
                got("a commit behind others", commit.wait());
            }
            let wanted: Vec<CheckpointId> = made.iter().rev().map(id).collect();
            assert_eq!(ids(&*store, name), wanted, "the checkpoints of one thread");
        })
    });
    for thread in threads {
        if let Err(error) = thread.await {
            panic!("{error}");
        }
    }
    let records = records(&*store, "all", 1, usize::MAX);
    let positions: Vec<u64> = records.iter().map(|(position, _)| *position).collect();
    assert_eq!(positions, (1..=4 * EACH).collect::<Vec<_>>(), "the positions of all records");
    assert_eq!(got("`info`", store.info()).commits, 4 * EACH, "`StoreInfo::commits`");
    got("`flush`", store.flush());
}

async fn a_commit_nobody_waits_for_happens_all_the_same(store: Arc<dyn Store>) {
    let sealed = seal("a", 1, None);
    drop(store.commit(Batch::new().checkpoint(&sealed), Durability::Memory));
    // Behind it, so that it has been made.
    commit(&*store, Batch::new().append("all", vec![1])).await;
    got("`flush`", store.flush());
    assert_eq!(ids(&*store, "a"), [id(&sealed)], "the checkpoint");
}

async fn commits_that_wait_together_are_numbered_one_by_one(store: Arc<dyn Store>) {
    let tasks: Vec<_> = (0..50_u8)
        .map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { commit(&*store, Batch::new().append("all", vec![n])).await })
        })
        .collect();
    let mut sequences = BTreeSet::new();
    for task in tasks {
        match task.await {
            Ok(receipt) => sequences.insert(receipt.sequence),
            Err(error) => panic!("{error}"),
        };
    }
    assert_eq!(sequences, (1..=50).collect(), "`Receipt::sequence`");
}

async fn a_line_is_restored_whole_or_an_older_one_is(store: Arc<dyn Store>) {
    let store = &*store;
    let (a, b) = (history(store, "a", 2).await, history(store, "b", 2).await);
    let (old, new) = (line(10, &[&a[0], &b[0]]), line(11, &[&a[1], &b[1]]));
    for line in [&old, &new] {
        commit(store, Batch::new().line(line.clone())).await;
    }
    let newest = |scope| {
        let schemas = schemas();
        let found = Validator::new(store, &schemas, Rules::at(now(12))).newest_line(scope, &root());
        found.unwrap_or_else(|error| panic!("the newest line: {error}"))
    };
    let found = newest(Scope::Session).found.map(|found| found.line().id);
    assert_eq!(found, Some(new.id), "the newest line");
    commit(store, Batch::new().mark_bad(id(&b[1]), "bad")).await;
    let search = newest(Scope::Session);
    let refused: Vec<_> = search.refused.iter().map(|it| it.checkpoint).collect();
    assert_eq!(refused, [id(&b[1])], "the member that was set aside");
    let found = search.found.map(|found| {
        let members: Vec<_> = found.members().iter().map(|it| it.checkpoint().id).collect();
        (found.line().id, members)
    });
    assert_eq!(found, Some((old.id, vec![id(&a[0]), id(&b[0])])), "the line before it");
    assert!(newest(Scope::System).found.is_none(), "a line of another scope");
}

async fn a_store_that_is_taken_up_knows_of_no_other_clock(store: Arc<dyn Store>) {
    let made = history(&*store, "a", 1).await;
    store.taken_up();
    let taken = got("`find`", store.find(id(&made[0]))).checkpoint.taken;
    assert_eq!(taken, None, "`Checkpoint::taken` after `taken_up`");
    let taken = got("`load`", store.load(id(&made[0]))).checkpoint().taken;
    assert_eq!(taken, None, "`Checkpoint::taken` after `taken_up`");
}
