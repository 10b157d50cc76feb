//! What every store owes: one suite, run for each.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use mainstay::checkpoint::{
    Batch, Commit, Digest, Draft, Durability, Export, FileOptions, FileStore, LineDraft,
    MemoryStore, Now, Pin, RecoveryLine, Retention, Rules, Schema, Schemas, Scope, Sealed,
    Snapshot, Store, Topology, Validator, Wall,
};
use mainstay::error::{CheckpointError, StoreError};
use mainstay::id::{CheckpointId, ChildPath, Incarnation};
use mainstay::moment::Moment;

/// A store and what must live as long as it.
struct Place {
    store: Arc<dyn Store>,
    _folder: Option<tempfile::TempDir>,
}

fn now(seconds: u64) -> Now {
    let wall = Wall(1_700_000_000_000 + seconds * 1000);
    Now { wall, moment: Moment::from_millis(seconds * 1000) }
}

fn child(id: &str) -> ChildPath {
    ChildPath::new("root").join(id)
}

fn snapshot(memory: &str) -> Snapshot {
    Snapshot::new("agent", 1)
        .with("tools_used", Arc::new(vec!["search".to_owned()]))
        .with("context", Arc::new("the context".to_owned()))
        .with("memory", Arc::new(memory.to_owned()))
}

fn seal(id: &str, step: u64, parent: Option<&Sealed>) -> Sealed {
    let draft = Draft::new(child(id), snapshot(&format!("step {step}")), now(step));
    let draft = draft.at(Incarnation(1), step);
    let draft = match parent {
        Some(parent) => draft.after(parent.checkpoint()),
        None => draft,
    };
    draft.seal().unwrap()
}

/// `count` checkpoints of one child, each built on the one before.
fn history(store: &dyn Store, id: &str, count: u64) -> Vec<Sealed> {
    let mut made: Vec<Sealed> = Vec::new();
    for step in 1..=count {
        let sealed = seal(id, step, made.last());
        store.commit(Batch::new().checkpoint(&sealed), Durability::Sync).wait().unwrap();
        made.push(sealed);
    }
    made
}

fn ids(store: &dyn Store, id: &str) -> Vec<CheckpointId> {
    store.checkpoints(&child(id)).unwrap().iter().map(|it| it.checkpoint.id).collect()
}

fn id(sealed: &Sealed) -> CheckpointId {
    sealed.checkpoint().id
}

fn schemas() -> Schemas {
    let schema = Schema::agent(1).field::<String>("memory").field::<Vec<String>>("tools_used");
    Schemas::new().register(schema).unwrap()
}

fn line(at: u64, members: &[&Sealed]) -> RecoveryLine {
    let mut draft = LineDraft::new(Scope::Session, ChildPath::new("root"), now(at));
    for member in members {
        draft = draft.member(member.checkpoint());
    }
    draft.draw().unwrap()
}

fn pin(owner: &str, at: u64, hours: u64) -> Pin {
    let since = now(at).wall;
    let until = since.after(Duration::from_secs(hours * 3600));
    Pin { owner: owner.to_owned(), reason: "a person decides".to_owned(), since, until }
}

fn what_was_committed_reads_back(place: &Place) {
    let store = &*place.store;
    let draft = Draft::new(child("a"), snapshot("gold"), now(5))
        .at(Incarnation(3), 17)
        .scope(Scope::Flow)
        .envelope(b"the request".to_vec())
        .topology(Digest::of(b"tree"))
        .ledger(9)
        .mailbox_cut(41)
        .policy(Digest::of(b"policy"));
    let sealed = draft.seal().unwrap();
    let receipt = store.commit(Batch::new().checkpoint(&sealed), Durability::Sync).wait().unwrap();
    assert_eq!(receipt.sequence, 1);
    let stored = store.load(id(&sealed)).unwrap();
    let mut wanted = (**sealed.checkpoint()).clone();
    wanted.taken = stored.checkpoint().taken;
    assert_eq!(**stored.checkpoint(), wanted);
    assert_eq!(*stored.snapshot.get::<String>("memory").unwrap(), "gold");
    assert_eq!(stored.envelope().unwrap().as_deref(), Some(&b"the request"[..]));
    assert_eq!(stored.snapshot.digest().unwrap(), sealed.snapshot().digest().unwrap());
    assert_eq!(store.children().unwrap(), [child("a")]);
    assert!(matches!(store.load(CheckpointId(1)), Err(StoreError::NotFound(_))));
    assert!(store.checkpoints(&child("nobody")).unwrap().is_empty());
}

fn checkpoints_are_listed_newest_first(place: &Place) {
    let made = history(&*place.store, "a", 4);
    let wanted: Vec<CheckpointId> = made.iter().rev().map(id).collect();
    assert_eq!(ids(&*place.store, "a"), wanted);
}

fn a_batch_is_taken_whole_or_not_at_all(place: &Place) {
    let store = &*place.store;
    let (known, unknown) = (seal("a", 1, None), seal("b", 1, None));
    let batch = Batch::new()
        .checkpoint(&known)
        .append("requests", b"one".to_vec())
        .line(line(1, &[&known, &unknown]));
    let error = store.commit(batch, Durability::Sync).wait().unwrap_err();
    assert!(error.to_string().contains(&id(&unknown).to_string()), "{error}");
    assert!(ids(store, "a").is_empty());
    assert!(store.scan("requests", 1, 10).unwrap().is_empty());
    let batch = Batch::new().checkpoint(&known).checkpoint(&unknown).append("requests", vec![1]);
    let batch = batch.line(line(1, &[&known, &unknown]));
    let receipt = store.commit(batch, Durability::Sync).wait().unwrap();
    assert_eq!(receipt.positions, [(Arc::from("requests"), 1)]);
    assert_eq!(store.lines(Scope::Session, &ChildPath::new("root")).unwrap().len(), 1);
}

fn an_error_names_the_store_and_what_is_wrong(place: &Place) {
    let store = &*place.store;
    let name = store.info().unwrap().name;
    let long = "n".repeat(usize::from(u16::MAX) + 1);
    let orphan = seal("a", 2, Some(&seal("a", 1, None)));
    for (batch, what) in [
        (Batch::new().checkpoint(&orphan), id(&orphan).to_string()),
        (Batch::new().pin(CheckpointId(7), pin("x", 0, 1)), CheckpointId(7).to_string()),
        (Batch::new().trim("requests", 2), "\"requests\"".to_owned()),
        (Batch::new().append(long, Vec::new()), "nnnn".to_owned()),
    ] {
        // In memory a name may be as long as it likes.
        let Err(error) = store.commit(batch, Durability::Sync).wait() else {
            assert_eq!((name.as_str(), what.as_str()), ("memory", "nnnn"));
            continue;
        };
        assert!(matches!(&error, StoreError::Refused { store, .. } if *store == name), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(&format!("store \"{name}\"")), "{text}");
        assert!(text.contains(&what), "{text}");
    }
}

#[test]
fn a_commit_whose_store_is_gone_says_which() {
    let (answerer, commit) = Commit::pending_of("ledgers".into());
    drop(answerer);
    let error = commit.wait().unwrap_err();
    assert_eq!(error, StoreError::Closed { store: "ledgers".to_owned() });
    assert_eq!(error.to_string(), "store \"ledgers\" is closed");
    let (answerer, commit) = Commit::pending();
    drop(answerer);
    assert_eq!(commit.wait().unwrap_err().to_string(), "the store is closed");
}

fn a_checkpoint_that_contradicts_the_store_is_refused(place: &Place) {
    let store = &*place.store;
    let orphan = seal("a", 2, Some(&seal("a", 1, None)));
    let error = store.commit(Batch::new().checkpoint(&orphan), Durability::Sync).wait();
    assert!(
        matches!(&error, Err(StoreError::Refused { why, .. }) if why.contains("parent")),
        "{error:?}"
    );
    let first = seal("a", 1, None);
    let batch = || Batch::new().checkpoint(&first);
    store.commit(batch(), Durability::Sync).wait().unwrap();
    let error = store.commit(batch(), Durability::Sync).wait();
    assert!(
        matches!(&error, Err(StoreError::Refused { why, .. }) if why.contains("already")),
        "{error:?}"
    );
    let unknown = CheckpointId(7);
    for batch in [
        Batch::new().pin(unknown, pin("x", 0, 1)),
        Batch::new().mark_bad(unknown, "no"),
        Batch::new().release(unknown),
        Batch::new().trim("requests", 2),
    ] {
        let answer = store.commit(batch, Durability::Sync).wait();
        assert!(matches!(answer, Err(StoreError::Refused { .. })), "{answer:?}");
    }
    assert_eq!(ids(store, "a").len(), 1);
}

fn a_piece_that_did_not_change_is_kept_once(place: &Place) {
    let made = history(&*place.store, "a", 5);
    // `tools_used` and `context` are the same in all five, `memory` differs.
    assert_eq!(place.store.info().unwrap().pieces, 2 + made.len());
    assert_eq!(place.store.info().unwrap().checkpoints, made.len());
}

fn pieces_of_different_types_with_the_same_bytes_are_read_as_what_each_is(place: &Place) {
    let store = &*place.store;
    let snapshot = Snapshot::new("agent", 1)
        .with("count", Arc::new(0_u64))
        .with("done", Arc::new(false))
        .with("list", Arc::new(Vec::<String>::new()))
        .with("text", Arc::new(String::new()));
    let sealed = Draft::new(child("a"), snapshot, now(1)).seal().unwrap();
    store.commit(Batch::new().checkpoint(&sealed), Durability::Sync).wait().unwrap();
    for _ in 0..2 {
        let read = store.load(id(&sealed)).unwrap().snapshot;
        assert_eq!(*read.get::<u64>("count").unwrap(), 0);
        assert!(!*read.get::<bool>("done").unwrap());
        assert!(read.get::<Vec<String>>("list").unwrap().is_empty());
        assert_eq!(*read.get::<String>("text").unwrap(), "");
    }
}

fn a_journal_keeps_its_order_and_its_positions(place: &Place) {
    let store = &*place.store;
    for n in 0..6_u8 {
        let batch = Batch::new().append("fates", vec![n]).append("requests", vec![10 + n]);
        let receipt = store.commit(batch, Durability::Async).wait().unwrap();
        let position = u64::from(n) + 1;
        let wanted = [(Arc::from("fates"), position), (Arc::from("requests"), position)];
        assert_eq!(receipt.positions, wanted);
    }
    let read = |stream, from, limit| -> Vec<(u64, Vec<u8>)> {
        let records = store.scan(stream, from, limit).unwrap();
        records.into_iter().map(|it| (it.position, it.bytes)).collect()
    };
    assert_eq!(read("fates", 5, 9), [(5, vec![4]), (6, vec![5])]);
    assert_eq!(read("requests", 0, 2), [(1, vec![10]), (2, vec![11])]);
    assert!(read("fates", 7, 9).is_empty());
    assert!(read("nothing", 1, 9).is_empty());
    store.commit(Batch::new().trim("fates", 5), Durability::Sync).wait().unwrap();
    assert_eq!(read("fates", 1, 9), [(5, vec![4]), (6, vec![5])]);
    store.commit(Batch::new().trim("fates", 7), Durability::Sync).wait().unwrap();
    assert!(read("fates", 1, 9).is_empty());
    store.compact().unwrap();
    let batch = Batch::new().append("fates", vec![9]).append("fates", vec![8]);
    let receipt = store.commit(batch, Durability::Sync).wait().unwrap();
    assert_eq!(receipt.positions, [(Arc::from("fates"), 7), (Arc::from("fates"), 8)]);
    assert_eq!(read("fates", 1, 9), [(7, vec![9]), (8, vec![8])]);
    assert_eq!(read("requests", 1, 9).len(), 6);
    let streams = store.streams().unwrap();
    assert_eq!(streams, [(Arc::from("fates"), 9), (Arc::from("requests"), 7)]);
}

fn retention_keeps_the_newest_and_whatever_is_needed(place: &Place) {
    let store = &*place.store;
    let made = history(store, "a", 12);
    let other = history(store, "b", 1);
    let commit = |batch| store.commit(batch, Durability::Sync).wait().unwrap();
    commit(Batch::new().line(line(20, &[&made[3], &other[0]])));
    commit(Batch::new().pin(id(&made[1]), pin("operator", 20, 2)));
    commit(Batch::new().pin(id(&made[2]), pin("operator", 20, 1)));
    commit(Batch::new().mark_bad(id(&made[5]), "failed a restore"));
    // Two hours in, one of the two pins has run out.
    let keep = Retention { checkpoints: 3, lines: 1 };
    let retained = store.retain(keep, now(20 + 5400).wall).unwrap();
    let left = [11, 10, 9, 5, 3, 1].map(|at| id(&made[at]));
    assert_eq!(ids(store, "a"), left);
    assert_eq!(ids(store, "b"), [id(&other[0])]);
    assert_eq!(retained.dropped.len(), 12 - left.len());
    // What is left has an unbroken lineage, though most parents are gone.
    let schemas = schemas();
    let validator = Validator::new(store, &schemas, Rules::at(now(30)));
    for at in [11, 10, 9, 3, 1] {
        validator.validate(id(&made[at])).unwrap();
    }
    // The next one builds on the newest, and an older one that was dropped can still be built on.
    commit(Batch::new().checkpoint(&seal("a", 13, made.last())));
    commit(Batch::new().checkpoint(&seal("a", 14, Some(&made[8]))));
    store.compact().unwrap();
    validator.validate(id(&made[9])).unwrap();
}

fn retention_keeps_what_a_child_goes_on_from(place: &Place) {
    let store = &*place.store;
    let commit = |batch| store.commit(batch, Durability::Sync).wait().unwrap();
    let long = |of: &str, mut before: Option<Sealed>| {
        let step = |at: u64| {
            let draft = Draft::new(child(of), snapshot(&format!("step {at}")), now(at));
            let draft = draft.at(Incarnation(1), 2).envelope(at.to_string().into_bytes());
            let draft = before.iter().fold(draft, |it, before| it.after(before.checkpoint()));
            let sealed = draft.seal().unwrap();
            commit(Batch::new().checkpoint(&sealed));
            before = Some(sealed.clone());
            id(&sealed)
        };
        (3..8).map(step).collect::<Vec<_>>()
    };
    // In the middle of a request, with what it began with and with nothing before it; no pin holds that.
    let first = history(store, "a", 2);
    let a = long("a", first.last().cloned());
    let b = long("b", None);
    // The second was returned to, and what followed is of no use; what lies between was given up.
    let c = history(store, "c", 4);
    let bad = seal("c", 9, Some(&c[1]));
    commit(Batch::new().checkpoint(&bad));
    commit(Batch::new().mark_bad(id(&bad), "failed a restore"));
    store.retain(Retention { checkpoints: 1, lines: 1 }, now(9).wall).unwrap();
    assert_eq!(ids(store, "a"), [a[4], id(&first[1])]);
    assert_eq!(ids(store, "b"), [b[4], b[0]]);
    assert_eq!(ids(store, "c"), [id(&bad), id(&c[3]), id(&c[1])]);
}

fn retention_keeps_the_newest_lines_of_each_place(place: &Place) {
    let store = &*place.store;
    let made = history(store, "a", 4);
    let lines: Vec<RecoveryLine> = made.iter().map(|it| line(10, &[it])).collect();
    for line in &lines {
        store.commit(Batch::new().line(line.clone()), Durability::Sync).wait().unwrap();
    }
    let again = store.commit(Batch::new().line(lines[0].clone()), Durability::Sync).wait();
    assert!(matches!(again, Err(StoreError::Refused { .. })), "{again:?}");
    let root = ChildPath::new("root");
    let listed = store.lines(Scope::Session, &root).unwrap();
    assert_eq!(listed.iter().map(|it| it.id).collect::<Vec<_>>(), {
        lines.iter().rev().map(|it| it.id).collect::<Vec<_>>()
    });
    assert_eq!(*listed[0], lines[3]);
    assert!(store.lines(Scope::System, &root).unwrap().is_empty());
    assert!(store.lines(Scope::Session, &child("a")).unwrap().is_empty());
    let retained = store.retain(Retention { checkpoints: 1, lines: 2 }, now(20).wall).unwrap();
    assert_eq!(retained.lines, [lines[1].id, lines[0].id]);
    assert_eq!(store.lines(Scope::Session, &root).unwrap().len(), 2);
    assert_eq!(ids(store, "a"), [id(&made[3]), id(&made[2])]);
}

fn retention_keeps_where_a_request_began_that_a_line_has_in_the_middle(place: &Place) {
    let store = &*place.store;
    let commit = |batch| store.commit(batch, Durability::Sync).wait().unwrap();
    let mut made = history(store, "a", 2);
    for at in 3..5 {
        let draft = Draft::new(child("a"), snapshot(&format!("step {at}")), now(at));
        let draft = draft.at(Incarnation(1), at).after(made[made.len() - 1].checkpoint());
        let middle = draft.envelope(b"in hand".to_vec()).seal().unwrap();
        commit(Batch::new().checkpoint(&middle));
        made.push(middle);
    }
    commit(Batch::new().line(line(5, &[&made[3]])));
    for at in 5..8 {
        let sealed = seal("a", at, made.last());
        commit(Batch::new().checkpoint(&sealed));
        made.push(sealed);
    }
    store.retain(Retention { checkpoints: 1, lines: 1 }, now(9).wall).unwrap();
    assert_eq!(ids(store, "a"), [6, 3, 2, 1].map(|at: usize| id(&made[at])));
}

fn what_is_set_aside_is_listed_exported_and_released(place: &Place) {
    let store = &*place.store;
    let made = history(store, "a", 2);
    let bad = id(&made[1]);
    let batch = Batch::new().mark_bad(bad, "the restore panicked");
    store.commit(batch, Durability::Sync).wait().unwrap();
    let listed = store.quarantined().unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].bad.as_deref(), Some("the restore panicked"));
    let schemas = schemas();
    let validator = Validator::new(store, &schemas, Rules::at(now(3)));
    let error = validator.validate(bad).unwrap_err();
    assert!(
        matches!(&error, CheckpointError::Quarantined { reason, .. } if reason.contains("panicked"))
    );
    let search = validator.newest(&child("a")).unwrap();
    assert_eq!(search.found.unwrap().checkpoint().id, id(&made[0]));
    assert_eq!(search.refused[0].checkpoint, bad);
    let export = store.load(bad).unwrap().export().unwrap();
    let read = Export::read(&export).unwrap();
    assert_eq!(read.checkpoint().id, bad);
    assert_eq!(*read.snapshot.get::<String>("memory").unwrap(), "step 2");
    assert_eq!(read.listed.bad.as_deref(), Some("the restore panicked"));
    assert!(Export::read(&export[..export.len() - 1]).is_err());
    store.commit(Batch::new().release(bad), Durability::Sync).wait().unwrap();
    assert!(store.quarantined().unwrap().is_empty());
    assert_eq!(validator.newest(&child("a")).unwrap().found.unwrap().checkpoint().id, bad);
}

fn a_pin_holds_until_it_is_taken_away(place: &Place) {
    let store = &*place.store;
    let made = history(store, "a", 1);
    let only = id(&made[0]);
    let schemas = schemas();
    let validate = |at: u64| Validator::new(store, &schemas, Rules::at(now(at))).validate(only);
    let commit = |batch| store.commit(batch, Durability::Sync).wait().unwrap();
    validate(3601).unwrap();
    let error = validate(3602).unwrap_err();
    assert!(matches!(error, CheckpointError::Expired { .. }), "{error:?}");
    commit(Batch::new().pin(only, pin("operator", 2, 72)).pin(only, pin("auditor", 2, 2)));
    validate(2 + 24 * 3600).unwrap();
    validate(3 + 24 * 3600).unwrap_err();
    commit(Batch::new().unpin(only, "operator"));
    validate(3 * 3600).unwrap_err();
    validate(3600 + 1800).unwrap();
    commit(Batch::new().unpin(only, "auditor").unpin(only, "nobody"));
    validate(3600 + 1800).unwrap_err();
}

fn compaction_changes_nothing_that_can_be_seen(place: &Place) {
    let store = &*place.store;
    let made = history(store, "a", 20);
    for n in 0..20 {
        store
            .commit(Batch::new().append("requests", vec![n; 100]), Durability::Async)
            .wait()
            .unwrap();
    }
    store.commit(Batch::new().mark_bad(id(&made[18]), "bad"), Durability::Sync).wait().unwrap();
    store.commit(Batch::new().line(line(30, &[&made[19]])), Durability::Sync).wait().unwrap();
    store.retain(Retention { checkpoints: 2, lines: 1 }, now(30).wall).unwrap();
    let before = (ids(store, "a"), store.scan("requests", 1, 99).unwrap());
    let pieces = store.info().unwrap().pieces;
    let compacted = store.compact().unwrap();
    assert!(compacted.after < compacted.before, "{compacted:?}");
    assert!(store.info().unwrap().pieces < pieces);
    assert_eq!((ids(store, "a"), store.scan("requests", 1, 99).unwrap()), before);
    assert_eq!(store.quarantined().unwrap().len(), 1);
    assert_eq!(store.lines(Scope::Session, &ChildPath::new("root")).unwrap().len(), 1);
    let newest = store.load(id(&made[19])).unwrap();
    assert_eq!(*newest.snapshot.get::<String>("memory").unwrap(), "step 20");
    // A content that was dropped is written again when it comes back.
    let again = Draft::new(child("b"), snapshot("step 1"), now(40)).seal().unwrap();
    store.commit(Batch::new().checkpoint(&again), Durability::Sync).wait().unwrap();
    let read = store.load(id(&again)).unwrap();
    assert_eq!(*read.snapshot.get::<String>("memory").unwrap(), "step 1");
}

fn the_topology_is_the_last_one_committed(place: &Place) {
    let store = &*place.store;
    assert_eq!(store.info().unwrap().topology, None);
    let old = Topology::new(["root/a agent".to_owned(), "root/b tool".to_owned()]);
    let new = Topology::new(["root/c tool".to_owned(), "root/a agent".to_owned()]);
    store.commit(Batch::new().topology(old.clone()), Durability::Sync).wait().unwrap();
    store.commit(Batch::new().topology(new.clone()), Durability::Sync).wait().unwrap();
    assert_eq!(store.info().unwrap().topology.as_deref(), Some(&new));
    assert_eq!(old.difference(&new), ["- root/b tool", "+ root/c tool"]);
}

fn many_commit_at_once_and_each_keeps_its_order(place: &Place) {
    const EACH: u64 = 40;
    let names = ["a", "b", "c", "d"];
    std::thread::scope(|scope| {
        for name in names {
            let store = &*place.store;
            scope.spawn(move || {
                let mut made: Vec<Sealed> = Vec::new();
                let mut commits = Vec::new();
                for step in 1..=EACH {
                    let sealed = seal(name, step, made.last());
                    let batch = Batch::new().checkpoint(&sealed).append("all", vec![step as u8]);
                    // Not waited for one by one: the next builds on one that is still on its way.
                    commits.push(store.commit(batch, Durability::Async));
                    made.push(sealed);
                }
                commits.into_iter().map(|commit| commit.wait().unwrap()).for_each(drop);
                let wanted: Vec<CheckpointId> = made.iter().rev().map(id).collect();
                assert_eq!(ids(store, name), wanted);
            });
        }
    });
    let records = place.store.scan("all", 1, usize::MAX).unwrap();
    let positions: Vec<u64> = records.iter().map(|it| it.position).collect();
    assert_eq!(positions, (1..=4 * EACH).collect::<Vec<_>>());
    assert_eq!(place.store.info().unwrap().commits, 4 * EACH);
    place.store.flush().unwrap();
}

fn a_commit_nobody_waits_for_happens_all_the_same(place: &Place) {
    let sealed = seal("a", 1, None);
    drop(place.store.commit(Batch::new().checkpoint(&sealed), Durability::Memory));
    place.store.flush().unwrap();
    assert_eq!(ids(&*place.store, "a"), [id(&sealed)]);
}

fn a_commit_is_awaited_without_blocking_the_thread(place: &Place) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let store = Arc::clone(&place.store);
    let sequences: BTreeSet<u64> = runtime.block_on(async move {
        let mut tasks = Vec::new();
        for n in 0..50_u8 {
            let store = Arc::clone(&store);
            tasks.push(tokio::spawn(async move {
                let batch = Batch::new().append("all", vec![n]);
                store.commit(batch, Durability::Sync).await.unwrap().sequence
            }));
        }
        let mut sequences = BTreeSet::new();
        for task in tasks {
            sequences.insert(task.await.unwrap());
        }
        sequences
    });
    assert_eq!(sequences, (1..=50).collect());
}

fn a_line_is_restored_whole_or_an_older_one_is(place: &Place) {
    let store = &*place.store;
    let (a, b) = (history(store, "a", 2), history(store, "b", 2));
    let (old, new) = (line(10, &[&a[0], &b[0]]), line(11, &[&a[1], &b[1]]));
    for line in [&old, &new] {
        store.commit(Batch::new().line(line.clone()), Durability::Sync).wait().unwrap();
    }
    let schemas = schemas();
    let root = ChildPath::new("root");
    let validator = Validator::new(store, &schemas, Rules::at(now(12)));
    let found = validator.newest_line(Scope::Session, &root).unwrap();
    assert_eq!(found.found.unwrap().line().id, new.id);
    store.commit(Batch::new().mark_bad(id(&b[1]), "bad"), Durability::Sync).wait().unwrap();
    let found = validator.newest_line(Scope::Session, &root).unwrap();
    assert_eq!(found.refused.len(), 1);
    assert_eq!(found.refused[0].checkpoint, id(&b[1]));
    let valid = found.found.unwrap();
    assert_eq!(valid.line().id, old.id);
    let members: Vec<CheckpointId> = valid.members().iter().map(|it| it.checkpoint().id).collect();
    assert_eq!(members, [id(&a[0]), id(&b[0])]);
    assert!(validator.newest_line(Scope::System, &root).unwrap().found.is_none());
}

macro_rules! suite {
    ($store:ident, $place:expr, $($name:ident)*) => {
        mod $store {
            $(#[test]
            fn $name() {
                super::$name(&$place);
            })*
        }
    };
}

macro_rules! contract {
    ($store:ident, $place:expr) => {
        suite! {
            $store, $place,
            what_was_committed_reads_back
            checkpoints_are_listed_newest_first
            a_batch_is_taken_whole_or_not_at_all
            a_checkpoint_that_contradicts_the_store_is_refused
            an_error_names_the_store_and_what_is_wrong
            a_piece_that_did_not_change_is_kept_once
            pieces_of_different_types_with_the_same_bytes_are_read_as_what_each_is
            a_journal_keeps_its_order_and_its_positions
            retention_keeps_the_newest_and_whatever_is_needed
            retention_keeps_what_a_child_goes_on_from
            retention_keeps_the_newest_lines_of_each_place
            retention_keeps_where_a_request_began_that_a_line_has_in_the_middle
            what_is_set_aside_is_listed_exported_and_released
            a_pin_holds_until_it_is_taken_away
            compaction_changes_nothing_that_can_be_seen
            the_topology_is_the_last_one_committed
            many_commit_at_once_and_each_keeps_its_order
            a_commit_nobody_waits_for_happens_all_the_same
            a_commit_is_awaited_without_blocking_the_thread
            a_line_is_restored_whole_or_an_older_one_is
        }
    };
}

fn in_memory() -> Place {
    Place { store: Arc::new(MemoryStore::new()), _folder: None }
}

contract!(memory, crate::in_memory());

fn on_disk() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::open(folder.path().join("store")).unwrap();
    Place { store: Arc::new(store), _folder: Some(folder) }
}

contract!(file, crate::on_disk());

/// So that every few batches begin a segment.
fn on_disk_in_small_segments() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let store = FileOptions::new().segment_bytes(1500).open(folder.path()).unwrap();
    Place { store: Arc::new(store), _folder: Some(folder) }
}

contract!(file_in_small_segments, crate::on_disk_in_small_segments());
