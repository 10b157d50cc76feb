use super::*;
use crate::checkpoint::{
    Batch, Commit, Compacted, Draft, Durability, JournalRecord, LineDraft, Listed, MemoryStore,
    Pin, RecoveryLine, Retained, Retention, Scope, Sealed, StoreInfo, Stored, Wall,
};
use crate::error::StoreError;
use crate::moment::Moment;

const START: u64 = 1_700_000_000_000;

fn now(seconds: u64) -> Now {
    Now { wall: Wall(START + seconds * 1000), moment: Moment::from_millis(seconds * 1000) }
}

fn child() -> ChildPath {
    ChildPath::new("root/agent")
}

fn full() -> Snapshot {
    Snapshot::new("agent", 1)
        .with("tools_used", Arc::new(Vec::<String>::new()))
        .with("context", Arc::new("context".to_owned()))
        .with("memory", Arc::new("memory".to_owned()))
}

fn keep(store: &MemoryStore, draft: Draft) -> Sealed {
    let sealed = draft.seal().unwrap();
    store.commit(Batch::new().checkpoint(&sealed), Durability::Sync).wait().unwrap();
    sealed
}

fn agents() -> Schemas {
    Schemas::new().register(Schema::agent(1)).unwrap()
}

/// What validation says about one checkpoint of this draft.
fn judge(draft: Draft, schemas: &Schemas, rules: Rules) -> Result<Validated, CheckpointError> {
    let store = MemoryStore::new();
    let sealed = keep(&store, draft);
    Validator::new(&store, schemas, rules).validate(sealed.checkpoint().id)
}

fn draft(snapshot: Snapshot) -> Draft {
    Draft::new(child(), snapshot, now(0))
}

#[test]
fn a_sound_checkpoint_passes_with_its_state_and_its_request() {
    let valid = judge(draft(full()).envelope(vec![1, 2]), &agents(), Rules::at(now(1))).unwrap();
    assert_eq!(*valid.snapshot().get::<String>("memory").unwrap(), "memory");
    assert_eq!(valid.envelope(), Some(&[1, 2][..]));
    assert!(!valid.is_migrated());
}

#[test]
fn what_is_not_there_is_not_found() {
    let store = MemoryStore::new();
    let schemas = agents();
    let validator = Validator::new(&store, &schemas, Rules::at(now(0)));
    let id = CheckpointId(5);
    assert_eq!(validator.validate(id).unwrap_err(), CheckpointError::NotFound(id.to_string()));
    let search = validator.newest(&child()).unwrap();
    assert!(search.found.is_none() && search.refused.is_empty());
}

#[test]
fn each_missing_field_of_an_agent_is_named() {
    for missing in AGENT_FIELDS {
        let mut snapshot = Snapshot::new("agent", 1);
        for piece in full().pieces().iter().filter(|piece| piece.name() != missing) {
            snapshot = snapshot.with_piece(piece.clone());
        }
        let error = judge(draft(snapshot), &agents(), Rules::at(now(0))).unwrap_err();
        assert_eq!(error, CheckpointError::MissingField(missing.to_owned()));
    }
}

#[test]
fn a_field_of_another_type_is_refused() {
    let schema = Schema::agent(1).field::<u64>("memory");
    let schemas = Schemas::new().register(schema).unwrap();
    let error = judge(draft(full()), &schemas, Rules::at(now(0))).unwrap_err();
    assert!(
        matches!(&error, CheckpointError::IllTyped { field, wanted, .. } if field == "memory" && wanted == "u64")
    );
}

#[test]
fn an_hour_later_a_checkpoint_is_expired() {
    judge(draft(full()), &agents(), Rules::at(now(3600))).unwrap();
    let error = judge(draft(full()), &agents(), Rules::at(now(3601))).unwrap_err();
    let (age, limit) = (Duration::from_secs(3601), Duration::from_secs(3600));
    assert!(
        matches!(error, CheckpointError::Expired { age: a, limit: l, .. } if (a, l) == (age, limit))
    );
    let short = draft(full()).valid_for(Duration::from_secs(5));
    assert!(judge(short, &agents(), Rules::at(now(6))).is_err());
}

#[test]
fn a_jump_of_the_wall_clock_does_not_age_a_checkpoint_of_this_process() {
    let jump = |seconds: i64| {
        let wall = Wall((START as i64 + seconds * 1000) as u64);
        Rules::at(Now { wall, moment: Moment::from_millis(10_000) })
    };
    for seconds in [0, 1_000_000_000, -1_000_000_000] {
        judge(draft(full()), &agents(), jump(seconds)).unwrap();
    }
    // And one that was read from disk, whose age only the wall knows, ages as the wall does.
    let mut checkpoint = (**draft(full()).seal().unwrap().checkpoint()).clone();
    checkpoint.taken = None;
    assert_eq!(checkpoint.age(jump(7000).now), Duration::from_secs(7000));
    assert_eq!(checkpoint.age(jump(-7000).now), Duration::ZERO);
    checkpoint.taken = Some(Moment::START);
    assert_eq!(checkpoint.age(jump(7000).now), Duration::from_secs(10));
}

#[test]
fn a_pin_holds_a_checkpoint_for_a_day_at_most() {
    let store = MemoryStore::new();
    let id = keep(&store, draft(full())).checkpoint().id;
    let pin = Pin {
        owner: "operator".to_owned(),
        reason: "approval".to_owned(),
        since: now(0).wall,
        until: Wall(u64::MAX),
    };
    store.commit(Batch::new().pin(id, pin), Durability::Sync).wait().unwrap();
    let schemas = agents();
    let validate = |rules| Validator::new(&store, &schemas, rules).validate(id);
    validate(Rules::at(now(86_400))).unwrap();
    assert!(matches!(validate(Rules::at(now(86_401))), Err(CheckpointError::Expired { .. })));
    let short = Rules { longest_pin: Duration::from_secs(7200), ..Rules::at(now(7201)) };
    assert!(matches!(validate(short), Err(CheckpointError::Expired { .. })));
}

#[test]
fn another_tree_and_a_ledger_that_fell_behind_are_refused() {
    let here = Digest::of(b"here");
    let rules = Rules { topology: Some(here), ledger: 10, ..Rules::at(now(0)) };
    judge(draft(full()).topology(here).ledger(10), &agents(), rules).unwrap();
    let error = judge(draft(full()).topology(Digest::of(b"there")), &agents(), rules).unwrap_err();
    assert!(matches!(&error, CheckpointError::Incompatible { what, .. } if what == "topology"));
    let error = judge(draft(full()).topology(here).ledger(11), &agents(), rules).unwrap_err();
    assert!(matches!(error, CheckpointError::LedgerBehind { position: 11, current: 10, .. }));
}

#[test]
fn an_unknown_and_a_later_schema_are_refused_by_name() {
    let rules = Rules::at(now(0));
    let other = Snapshot::new("robot", 1).with("arm", Arc::new(1_u8));
    let error = judge(draft(other), &agents(), rules).unwrap_err();
    assert_eq!(
        error.to_string(),
        "schema \"robot\" version 1 does not fit, \"agent\" is expected here"
    );
    let later = Snapshot::new("agent", 2).with("memory", Arc::new(1_u8));
    let error = judge(draft(later), &agents(), rules).unwrap_err();
    assert!(error.to_string().contains("\"agent\" version 2"), "{error}");
}

fn counter(version: u32) -> Schema {
    Schema::new("counter", version).requires(["count", "name"])
}

#[test]
fn migrations_are_chained_from_any_older_version() {
    let schema = counter(3)
        .field::<u64>("count")
        .migrate(1, 2, |old| {
            let count = u64::from(*old.get::<u8>("count")?);
            Snapshot::new("counter", 2).with("count", Arc::new(count)).keep(old, "name")
        })
        .migrate(2, 3, |old| {
            let count = *old.get::<u64>("count")? * 10;
            Snapshot::new("counter", 3).with("count", Arc::new(count)).keep(old, "name")
        });
    let schemas = Schemas::new().register(schema).unwrap();
    let name = Arc::new("n".to_owned());
    let first = Snapshot::new("counter", 1).with("count", Arc::new(4_u8));
    let valid = judge(draft(first.with("name", name)), &schemas, Rules::at(now(0))).unwrap();
    assert!(valid.is_migrated());
    assert_eq!(valid.snapshot().schema(), &SchemaId::new("counter", 3));
    assert_eq!(*valid.snapshot().get::<u64>("count").unwrap(), 40);
    assert_eq!(*valid.snapshot().get::<String>("name").unwrap(), "n");
}

#[test]
fn a_migration_that_is_missing_lies_or_panics_refuses_the_checkpoint() {
    let judge = |schema: Schema| {
        let schemas = Schemas::new().register(schema).unwrap();
        let old = Snapshot::new("counter", 1).with("count", Arc::new(1_u8));
        judge(draft(old), &schemas, Rules::at(now(0))).unwrap_err().to_string()
    };
    let missing = judge(counter(2));
    assert!(missing.contains("one with a migration to it"), "{missing}");
    let lying = judge(counter(2).migrate(1, 2, |old| Ok(old.clone())));
    assert!(lying.contains("which the migration promised"), "{lying}");
    let panics = judge(counter(2).migrate(1, 2, |_| panic!("on purpose")));
    assert!(panics.contains("does not panic"), "{panics}");
    let forgets = judge(counter(2).migrate(1, 2, |_| Ok(Snapshot::new("counter", 2))));
    assert_eq!(forgets, "field \"count\" is missing");
}

#[test]
fn migrations_that_lead_nowhere_are_refused_when_they_are_registered() {
    let register = |schema: Schema| Schemas::new().register(schema).unwrap_err().to_string();
    let same = |old: &Snapshot| Ok(old.clone());
    assert!(register(counter(3).migrate(2, 2, same)).contains("more than 2"));
    assert!(register(counter(3).migrate(2, 4, same)).contains("at most 3"));
    let twice = register(counter(3).migrate(1, 2, same).migrate(1, 3, same));
    assert!(twice.contains("a migration from version 1"), "{twice}");
}

#[test]
fn the_newest_valid_one_is_found_with_the_reason_of_each_refusal() {
    let store = MemoryStore::new();
    let good = keep(&store, draft(full()));
    let missing = Snapshot::new("agent", 1).with("memory", Arc::new(1_u8));
    let bad = keep(&store, draft(missing).after(good.checkpoint()));
    let worse = keep(&store, draft(full()).after(bad.checkpoint()));
    let mark = Batch::new().mark_bad(worse.checkpoint().id, "it failed a restore");
    store.commit(mark, Durability::Sync).wait().unwrap();
    let schemas = agents();
    let search = Validator::new(&store, &schemas, Rules::at(now(1))).newest(&child()).unwrap();
    assert_eq!(search.found.unwrap().checkpoint().id, good.checkpoint().id);
    let refused: Vec<_> = search.refused.iter().map(|it| it.checkpoint).collect();
    assert_eq!(refused, [worse.checkpoint().id, bad.checkpoint().id]);
    assert!(matches!(search.refused[0].why, CheckpointError::Quarantined { .. }));
    assert!(matches!(search.refused[1].why, CheckpointError::MissingField(_)));
    let none = Validator::new(&store, &schemas, Rules::at(now(9999))).newest(&child()).unwrap();
    assert!(none.found.is_none());
    assert_eq!(none.refused.len(), 3);
}

/// A store whose checkpoints are altered or unreadable.
#[derive(Debug)]
struct Liar {
    inner: MemoryStore,
    lie: fn(Listed) -> Listed,
    load: Option<StoreError>,
}

impl Store for Liar {
    fn commit(&self, batch: Batch, durability: Durability) -> Commit {
        self.inner.commit(batch, durability)
    }
    fn children(&self) -> Result<Vec<ChildPath>, StoreError> {
        self.inner.children()
    }
    fn checkpoints(&self, child: &ChildPath) -> Result<Vec<Listed>, StoreError> {
        self.inner.checkpoints(child)
    }
    fn find(&self, id: CheckpointId) -> Result<Listed, StoreError> {
        self.inner.find(id).map(self.lie)
    }
    fn load(&self, id: CheckpointId) -> Result<Stored, StoreError> {
        self.load.clone().map_or_else(|| self.inner.load(id), Err)
    }
    fn lines(&self, scope: Scope, at: &ChildPath) -> Result<Vec<Arc<RecoveryLine>>, StoreError> {
        self.inner.lines(scope, at)
    }
    fn scan(&self, s: &str, from: u64, n: usize) -> Result<Vec<JournalRecord>, StoreError> {
        self.inner.scan(s, from, n)
    }
    fn streams(&self) -> Result<Vec<(Arc<str>, u64)>, StoreError> {
        self.inner.streams()
    }
    fn quarantined(&self) -> Result<Vec<Listed>, StoreError> {
        self.inner.quarantined()
    }
    fn info(&self) -> Result<StoreInfo, StoreError> {
        self.inner.info()
    }
    fn retain(&self, keep: Retention, now: Wall) -> Result<Retained, StoreError> {
        self.inner.retain(keep, now)
    }
    fn compact(&self) -> Result<Compacted, StoreError> {
        self.inner.compact()
    }
    fn flush(&self) -> Result<(), StoreError> {
        self.inner.flush()
    }
}

fn judge_lie(lie: fn(Listed) -> Listed, load: Option<StoreError>) -> CheckpointError {
    let store = Liar { inner: MemoryStore::new(), lie, load };
    let sealed = keep(&store.inner, draft(full()));
    let schemas = agents();
    Validator::new(&store, &schemas, Rules::at(now(0)))
        .validate(sealed.checkpoint().id)
        .unwrap_err()
}

#[test]
fn a_checkpoint_that_was_altered_is_corrupt() {
    let error = judge_lie(
        |mut listed| {
            Arc::make_mut(&mut listed.checkpoint).step += 1;
            listed
        },
        None,
    );
    assert!(matches!(error, CheckpointError::Corrupt { .. }), "{error}");
    let error = judge_lie(
        |mut listed| {
            listed.broken = Some(Arc::from("its parent is missing"));
            listed
        },
        None,
    );
    assert!(matches!(error, CheckpointError::BrokenLineage { .. }), "{error}");
}

#[test]
fn what_cannot_be_read_now_is_not_taken_for_invalid() {
    let io = StoreError::Io { store: "s".to_owned(), what: "reading", why: "no".to_owned() };
    let error = judge_lie(|listed| listed, Some(io.clone()));
    assert_eq!(error, CheckpointError::Transient(io.clone()));
    assert!(error.is_retryable());
    // An older one is not tried in its place: the newer one may be sound.
    let store = Liar { inner: MemoryStore::new(), lie: |listed| listed, load: Some(io.clone()) };
    let first = keep(&store.inner, draft(full()));
    keep(&store.inner, draft(full()).after(first.checkpoint()));
    let schemas = agents();
    let validator = Validator::new(&store, &schemas, Rules::at(now(0)));
    assert_eq!(validator.newest(&child()).unwrap_err(), CheckpointError::Transient(io));
    let corrupt = StoreError::Corrupt { file: "log".to_owned(), offset: 7, what: "x".to_owned() };
    let error = judge_lie(|listed| listed, Some(corrupt));
    assert_eq!(error.to_string(), "\"log\" at byte 7 is corrupt: x");
}

#[test]
fn a_parent_of_another_child_is_refused() {
    let parent = draft(full()).seal().unwrap();
    let other = Draft::new(ChildPath::new("root/other"), full(), now(1));
    let error = other.after(parent.checkpoint()).seal().unwrap_err();
    assert!(matches!(error, CheckpointError::Incompatible { .. }), "{error}");
}

#[test]
fn a_line_is_drawn_only_of_members_that_agree() {
    let sealed = |path: &str, topology: &[u8]| {
        let draft = Draft::new(ChildPath::new(path), full(), now(0));
        draft.topology(Digest::of(topology)).ledger(path.len() as u64).seal().unwrap()
    };
    let (a, b) = (sealed("root/s/a", b"t"), sealed("root/s/b/c", b"t"));
    let line = |members: &[&Sealed]| {
        let mut draft = LineDraft::new(Scope::Flow, ChildPath::new("root/s"), now(2));
        for member in members {
            draft = draft.member(member.checkpoint());
        }
        draft.journal("requests", 5).draw()
    };
    let drawn = line(&[&b, &a]).unwrap();
    let members: Vec<&str> = drawn.members.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(members, ["root/s/a", "root/s/b/c"]);
    assert_eq!((drawn.ledger, drawn.topology), (10, Digest::of(b"t")));
    assert_eq!(drawn.journal, [(Arc::from("requests"), 5)]);
    let why = |members: &[&Sealed]| line(members).unwrap_err().to_string();
    assert!(why(&[]).contains("a member of the flow line of root/s"));
    assert!(why(&[&a, &sealed("root/sibling", b"t")]).contains("a member's place root/sibling"));
    assert!(why(&[&a, &sealed("root/s/z", b"other")]).contains("a member's topology"));
    assert!(why(&[&a, &a]).contains("a second checkpoint of a member"));
}
