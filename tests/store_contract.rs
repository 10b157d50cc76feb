//! What every store owes: one suite, run for each, and for one that somebody else has written.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use mainstay::behavior::{Behavior, Context, Stateful, Step, Turn};
use mainstay::checkpoint::{
    Batch, Checkpoint, Commit, Compacted, Digest, Draft, Durability, FileOptions, FileStore, Item,
    JournalRecord, Listed, MemoryStore, Now, Pin, Receipt, RecoveryLine, Retained, Retention,
    Scope, Snapshot, Store, StoreInfo, Stored, Topology, Wall, contract,
};
use mainstay::error::{CheckpointError, StoreError};
use mainstay::fate::Fate;
use mainstay::fault::Fault;
use mainstay::id::{CheckpointId, ChildPath};
use mainstay::journal::Journaled;
use mainstay::moment::Moment;
use mainstay::port::CallOptions;
use mainstay::spec::{ChildSpec, SupervisorSpec};
use mainstay::system::System;
use parking_lot::Mutex;
use tempfile::TempDir;

/// A store as its users would write one, with nothing but what is public: plain maps of bytes. What it keeps
/// outlives it, as a disk does.
#[derive(Clone, Debug, Default)]
struct Plain(Arc<Mutex<Maps>>);

#[derive(Clone, Debug, Default)]
struct Maps {
    contents: BTreeMap<Digest, Vec<u8>>,
    checkpoints: Vec<Row>,
    lines: Vec<Vec<u8>>,
    /// By name: the position of the first record, and the records.
    journals: BTreeMap<String, (u64, Vec<Vec<u8>>)>,
    /// The chains of what was dropped.
    chains: BTreeMap<CheckpointId, Digest>,
    topology: Option<Vec<String>>,
    commits: u64,
}

#[derive(Clone, Debug)]
struct Row {
    manifest: Vec<u8>,
    pins: Vec<Pin>,
    bad: Option<String>,
}

const NAME: &str = "plain";

fn refuse<T>(why: String) -> Result<T, StoreError> {
    Err(StoreError::Refused { store: NAME.to_owned(), why })
}

impl Row {
    fn read(&self) -> Listed {
        Listed {
            checkpoint: Arc::new(Checkpoint::read(&self.manifest).unwrap()),
            pins: self.pins.clone(),
            bad: self.bad.as_deref().map(Arc::from),
            broken: None,
        }
    }
}

impl Maps {
    fn listed(&self) -> Vec<Listed> {
        self.checkpoints.iter().map(Row::read).collect()
    }

    fn drawn(&self) -> Vec<Arc<RecoveryLine>> {
        let read = |bytes: &Vec<u8>| Arc::new(RecoveryLine::read(bytes).unwrap());
        self.lines.iter().map(read).collect()
    }

    fn find(&self, id: CheckpointId) -> Option<Listed> {
        self.listed().into_iter().find(|listed| listed.checkpoint.id == id)
    }

    fn row(&mut self, id: CheckpointId) -> Result<&mut Row, StoreError> {
        match self.checkpoints.iter().position(|row| row.read().checkpoint.id == id) {
            Some(at) => Ok(&mut self.checkpoints[at]),
            None => refuse(format!("{id} is not in it")),
        }
    }

    fn take(&mut self, item: Item, receipt: &mut Receipt) -> Result<(), StoreError> {
        match item {
            Item::Checkpoint(sealed) => {
                let checkpoint = sealed.checkpoint();
                let id = checkpoint.id;
                if self.find(id).is_some() {
                    return refuse(format!("{id} is in it already"));
                }
                if let Some(parent) = checkpoint.lineage.parent {
                    let chain = self.find(parent).map(|listed| listed.checkpoint.lineage.chain);
                    match chain.or_else(|| self.chains.get(&parent).copied()) {
                        Some(chain) if checkpoint.follows(chain) => {}
                        Some(_) => return refuse(format!("{id} does not go on from {parent}")),
                        None => return refuse(format!("{parent}, the parent of {id}, is missing")),
                    }
                }
                for (digest, bytes) in sealed.parts() {
                    self.contents.entry(digest).or_insert_with(|| bytes.to_vec());
                }
                let manifest = sealed.manifest().to_vec();
                self.checkpoints.push(Row { manifest, pins: Vec::new(), bad: None });
            }
            Item::Line(line) => {
                if self.drawn().iter().any(|other| other.id == line.id) {
                    return refuse(format!("{} is in it already", line.id));
                }
                for (_, id) in &line.members {
                    self.row(*id)?;
                }
                self.lines.push(line.write().unwrap());
            }
            Item::Append { stream, bytes } => {
                let known = self.journals.entry(stream.to_string());
                let (first, records) = known.or_insert((1, Vec::new()));
                receipt.positions.push((stream, *first + records.len() as u64));
                records.push(bytes);
            }
            Item::Trim { stream, before } => {
                let known = self.journals.entry(stream.to_string());
                let (first, records) = known.or_insert((1, Vec::new()));
                if before > *first + records.len() as u64 {
                    return refuse(format!("journal \"{stream}\" ends before {before}"));
                }
                records.drain(..before.saturating_sub(*first) as usize);
                *first = before.max(*first);
            }
            Item::Pin(id, pin) => {
                let pins = &mut self.row(id)?.pins;
                pins.retain(|other| other.owner != pin.owner);
                pins.push(pin);
            }
            Item::Unpin(id, owner) => {
                if let Ok(row) = self.row(id) {
                    row.pins.retain(|pin| pin.owner != owner);
                }
            }
            Item::Bad(id, why) => self.row(id)?.bad = Some(why),
            Item::Release(id) => self.row(id)?.bad = None,
            Item::Topology(topology) => self.topology = Some(topology.lines.clone()),
            Item::Drop(id) => self.remove(id),
            Item::DropLine(id) => {
                self.lines.retain(|line| RecoveryLine::read(line).unwrap().id != id);
            }
            Item::Clear(child, now) => {
                let its = self.listed().into_iter().filter(|it| it.checkpoint.child == child);
                for id in Retention::left_by(&child, its, self.drawn(), now) {
                    self.remove(id);
                }
            }
            other => return refuse(format!("{other:?} is not known to it")),
        }
        Ok(())
    }

    fn remove(&mut self, id: CheckpointId) {
        let Some(gone) = self.find(id) else { return };
        self.chains.insert(id, gone.checkpoint.lineage.chain);
        self.checkpoints.retain(|row| row.read().checkpoint.id != id);
        // Those that somebody goes on from.
        let listed = self.listed();
        let parents = listed.iter().filter_map(|it| it.checkpoint.lineage.parent);
        let parents: BTreeSet<CheckpointId> = parents.collect();
        self.chains.retain(|id, _| parents.contains(id));
    }
}

impl Store for Plain {
    fn commit(&self, batch: Batch, _: Durability) -> Commit {
        let mut maps = self.0.lock();
        // Whole or not at all: it is done to a copy.
        let mut next = maps.clone();
        next.commits += 1;
        let mut receipt = Receipt { sequence: next.commits, ..Receipt::default() };
        for item in batch.into_items() {
            if let Err(error) = next.take(item, &mut receipt) {
                return Commit::ready(Err(error));
            }
        }
        *maps = next;
        Commit::ready(Ok(receipt))
    }

    fn children(&self) -> Result<Vec<ChildPath>, StoreError> {
        let listed = self.0.lock().listed();
        let children: BTreeSet<_> = listed.iter().map(|it| it.checkpoint.child.clone()).collect();
        Ok(children.into_iter().collect())
    }

    fn checkpoints(&self, child: &ChildPath) -> Result<Vec<Listed>, StoreError> {
        let listed = self.0.lock().listed().into_iter().rev();
        Ok(listed.filter(|it| it.checkpoint.child == *child).collect())
    }

    fn find(&self, id: CheckpointId) -> Result<Listed, StoreError> {
        self.0.lock().find(id).ok_or_else(|| StoreError::NotFound(id.to_string()))
    }

    fn load(&self, id: CheckpointId) -> Result<Stored, StoreError> {
        let listed = self.find(id)?;
        let maps = self.0.lock();
        Stored::new(NAME, listed, |digest| match maps.contents.get(&digest) {
            Some(bytes) => Ok(Arc::new(bytes.clone())),
            None => Err(StoreError::NotFound(format!("content {digest}"))),
        })
    }

    fn lines(&self, scope: Scope, at: &ChildPath) -> Result<Vec<Arc<RecoveryLine>>, StoreError> {
        let drawn = self.0.lock().drawn().into_iter().rev();
        Ok(drawn.filter(|line| line.scope == scope && line.at == *at).collect())
    }

    fn scan(&self, stream: &str, from: u64, n: usize) -> Result<Vec<JournalRecord>, StoreError> {
        let maps = self.0.lock();
        let Some((first, records)) = maps.journals.get(stream) else { return Ok(Vec::new()) };
        let records = (*first..).zip(records).filter(|(position, _)| *position >= from).take(n);
        let record =
            |(position, bytes): (u64, &Vec<u8>)| JournalRecord { position, bytes: bytes.clone() };
        Ok(records.map(record).collect())
    }

    fn streams(&self) -> Result<Vec<(Arc<str>, u64)>, StoreError> {
        let maps = self.0.lock();
        let next = |(name, (first, records)): (&String, &(u64, Vec<Vec<u8>>))| {
            (Arc::from(name.as_str()), first + records.len() as u64)
        };
        Ok(maps.journals.iter().map(next).collect())
    }

    fn quarantined(&self) -> Result<Vec<Listed>, StoreError> {
        Ok(self.0.lock().listed().into_iter().filter(|it| it.bad.is_some()).collect())
    }

    fn info(&self) -> Result<StoreInfo, StoreError> {
        let maps = self.0.lock();
        Ok(StoreInfo {
            name: NAME.to_owned(),
            format: 1,
            topology: maps.topology.clone().map(|lines| Arc::new(Topology::new(lines))),
            checkpoints: maps.checkpoints.len(),
            pieces: maps.contents.len(),
            lines: maps.lines.len(),
            bytes: maps.contents.values().map(|bytes| bytes.len() as u64).sum(),
            commits: maps.commits,
            poisoned: None,
        })
    }

    fn retain(&self, keep: Retention, now: Wall) -> Result<Retained, StoreError> {
        self.retain_besides(keep, now, &HashSet::new())
    }

    fn retain_besides(
        &self,
        keep: Retention,
        now: Wall,
        held: &HashSet<CheckpointId>,
    ) -> Result<Retained, StoreError> {
        let mut maps = self.0.lock();
        let plan = keep.plan(maps.listed(), maps.drawn(), held, now);
        plan.dropped.iter().for_each(|id| maps.remove(*id));
        maps.lines.retain(|line| !plan.lines.contains(&RecoveryLine::read(line).unwrap().id));
        Ok(plan)
    }

    fn compact(&self) -> Result<Compacted, StoreError> {
        let before = self.info()?.bytes;
        let mut maps = self.0.lock();
        let listed = maps.listed();
        let named: BTreeSet<Digest> =
            listed.iter().flat_map(|it| it.checkpoint.contents()).collect();
        maps.contents.retain(|digest, _| named.contains(digest));
        drop(maps);
        Ok(Compacted { before, after: self.info()?.bytes })
    }

    fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A new folder for each store.
fn folders(options: FileOptions) -> impl FnMut() -> Arc<dyn Store> {
    let mut folders = Vec::new();
    move || {
        let folder = TempDir::new().unwrap();
        let store = options.clone().open(folder.path().join("store")).unwrap();
        folders.push(folder);
        Arc::new(store)
    }
}

#[tokio::test]
async fn a_store_in_memory_keeps_the_contract() {
    contract::check(|| Arc::new(MemoryStore::new())).await;
}

#[tokio::test]
async fn a_store_in_a_folder_keeps_the_contract() {
    contract::check(folders(FileOptions::new())).await;
}

/// Every few batches begin a segment.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_in_small_segments_keeps_the_contract() {
    contract::check(folders(FileOptions::new().segment_bytes(1500))).await;
}

#[tokio::test]
async fn a_store_of_ones_own_keeps_the_contract() {
    contract::check(|| Arc::new(Plain::default())).await;
}

#[tokio::test]
async fn a_store_that_is_opened_anew_keeps_the_contract() {
    for segment in [1500, 1 << 20] {
        let folder = TempDir::new().unwrap();
        let options = FileOptions::new().segment_bytes(segment);
        contract::check_reopened(|| Arc::new(options.clone().open(folder.path()).unwrap())).await;
    }
    let disk = Plain::default();
    contract::check_reopened(|| Arc::new(disk.clone())).await;
}

#[tokio::test]
async fn a_compaction_gives_back_the_room_of_what_was_dropped() {
    let folder = TempDir::new().unwrap();
    let stores: [Arc<dyn Store>; 2] =
        [Arc::new(MemoryStore::new()), Arc::new(FileStore::open(folder.path()).unwrap())];
    for store in stores {
        for n in 0..20_u64 {
            let snapshot = Snapshot::new("agent", 1).with("memory", Arc::new(vec![n; 1000]));
            let now = Now { wall: Wall(n), moment: Moment::from_millis(n) };
            let draft = Draft::new(ChildPath::new("a"), snapshot, now);
            let batch = Batch::new().checkpoint(&draft.seal().unwrap());
            store.commit(batch, Durability::Sync).await.unwrap();
        }
        store.retain(Retention { checkpoints: 2, lines: 1 }, Wall(30)).unwrap();
        let compacted = store.compact().unwrap();
        assert!(compacted.after * 4 < compacted.before, "{store:?}: {compacted:?}");
    }
}

/// Breaks one clause at a time.
#[derive(Debug)]
struct Broken(Plain, &'static str);

impl Store for Broken {
    fn commit(&self, batch: Batch, durability: Durability) -> Commit {
        match self.1 {
            // Of several things the first is taken, whatever the others are.
            "halves" => {
                let mut last = Commit::ready(Ok(Receipt::default()));
                for item in batch.into_items() {
                    let one = match item {
                        Item::Checkpoint(sealed) => Batch::new().checkpoint(&sealed),
                        Item::Append { stream, bytes } => Batch::new().append(stream, bytes),
                        Item::Line(line) => Batch::new().line((*line).clone()),
                        _ => continue,
                    };
                    last = self.0.commit(one, durability);
                }
                last
            }
            _ => self.0.commit(batch, durability),
        }
    }

    fn children(&self) -> Result<Vec<ChildPath>, StoreError> {
        self.0.children()
    }

    fn checkpoints(&self, child: &ChildPath) -> Result<Vec<Listed>, StoreError> {
        let mut listed = self.0.checkpoints(child)?;
        if self.1 == "order" {
            listed.reverse();
        }
        Ok(listed)
    }

    fn find(&self, id: CheckpointId) -> Result<Listed, StoreError> {
        self.0.find(id)
    }

    fn load(&self, id: CheckpointId) -> Result<Stored, StoreError> {
        if self.1 != "contents" {
            return self.0.load(id);
        }
        // It mixes them up.
        let maps = self.0.0.lock();
        let any = maps.contents.values().next().unwrap();
        Stored::new(NAME, maps.find(id).unwrap(), |_| Ok(Arc::new(any.clone())))
    }

    fn lines(&self, scope: Scope, at: &ChildPath) -> Result<Vec<Arc<RecoveryLine>>, StoreError> {
        self.0.lines(scope, at)
    }

    fn scan(&self, stream: &str, from: u64, n: usize) -> Result<Vec<JournalRecord>, StoreError> {
        self.0.scan(stream, from, n)
    }

    fn streams(&self) -> Result<Vec<(Arc<str>, u64)>, StoreError> {
        self.0.streams()
    }

    fn quarantined(&self) -> Result<Vec<Listed>, StoreError> {
        self.0.quarantined()
    }

    fn info(&self) -> Result<StoreInfo, StoreError> {
        self.0.info()
    }

    fn retain(&self, keep: Retention, now: Wall) -> Result<Retained, StoreError> {
        if self.1 == "retention" {
            let mut maps = self.0.0.lock();
            let from = maps.checkpoints.len().saturating_sub(keep.checkpoints);
            maps.checkpoints.drain(..from);
            return Ok(Retained::default());
        }
        self.0.retain(keep, now)
    }

    fn compact(&self) -> Result<Compacted, StoreError> {
        self.0.compact()
    }

    fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// What `check` says of a store that breaks the contract in this way.
async fn said_of(how: &'static str) -> String {
    let check = contract::check(move || Arc::new(Broken(Plain::default(), how)));
    let error = tokio::spawn(check).await.unwrap_err();
    error.into_panic().downcast_ref::<String>().unwrap().clone()
}

#[tokio::test]
async fn a_store_that_breaks_the_contract_is_told_in_which_clause() {
    for (how, clause, what) in [
        ("contents", "what was committed reads back", "it is not "),
        ("order", "checkpoints are listed newest first", "the order of `checkpoints`"),
        ("halves", "a batch is taken whole or not at all", "of a batch that was refused"),
        ("retention", "retention keeps the newest and whatever is needed", "the newest 3"),
    ] {
        let said = said_of(how).await;
        let named = format!("store \"plain\" breaks the contract, in \"{clause}\": ");
        assert!(said.starts_with(&named) && said.contains(what), "{how}: {said}");
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

/// Adds up what it is asked.
#[derive(Clone, Default)]
struct Sum(Arc<u64>);

impl Behavior for Sum {
    type Request = u64;
    type Reply = u64;
}

impl Stateful for Sum {
    async fn step(&mut self, request: &u64, _: Turn, _: &Context) -> Result<Step<u64>, Fault> {
        self.0 = Arc::new(*self.0 + request);
        Ok(Step::Reply(*self.0))
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Some(Snapshot::new("sum", 1).with("sum", Arc::clone(&self.0)))
    }

    fn restore(&mut self, snapshot: &Snapshot) -> Result<(), CheckpointError> {
        self.0 = snapshot.get("sum")?;
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_system_lives_on_a_store_of_ones_own() {
    let disk = Plain::default();
    for process in 1..=3 {
        let spec = SupervisorSpec::one_for_one("desk")
            .child(ChildSpec::stateful("sum", Sum::default).durable::<Sum>());
        let (system, _) = System::recover(spec, Arc::new(disk.clone())).await.unwrap();
        let sum = system.port::<u64, u64>("desk/sum").unwrap();
        for n in 1..=10 {
            let key = CallOptions::new().key(format!("{process}-{n}"));
            let answer = sum.call_with(5_u64, key).await.unwrap();
            assert_eq!(answer.value, (process - 1) * 50 + n * 5);
        }
        let first = system.journaled("1-1");
        assert_eq!(first, Some(Journaled::Fated(Fate::Done, Some("5".to_owned()))));
        system.stop().await;
        disk.retain(Retention::default(), Wall(0)).unwrap();
        disk.compact().unwrap();
    }
}
