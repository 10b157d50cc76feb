//! A checkpoint is doubted before anything is stopped for it.
//!
//! In this order: it exists, was not set aside, is not expired or is pinned, says what its digest says,
//! has pieces that are whole, has a schema that is known or can be migrated, has all required fields
//! with the right types, belongs to this tree, has an unbroken lineage, and stands at a ledger position
//! that the ledger has reached. The first failure names itself.
//!
//! *Invariant.* A [`Validated`] is made here and nowhere else, and nothing else can be restored.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::checkpoint::codec::SchemaId;
use crate::checkpoint::manifest::{Checkpoint, Digest, Now};
use crate::checkpoint::snapshot::Snapshot;
use crate::checkpoint::store::Store;
use crate::checkpoint::{AGENT_FIELDS, LONGEST_PIN};
use crate::error::{CheckpointError, SpecError};
use crate::id::{CheckpointId, ChildPath};
use crate::moment::Moment;

type Check = fn(&Snapshot, &str) -> Result<(), CheckpointError>;
type Migrate = Arc<dyn Fn(&Snapshot) -> Result<Snapshot, CheckpointError> + Send + Sync>;

/// What a kind of state must look like, and how older versions become the present one.
///
/// ```
/// use std::sync::Arc;
/// use mainstay::checkpoint::{Schema, Snapshot};
///
/// let schema = Schema::new("counter", 2)
///     .field::<u64>("count")
///     // Version 1 counted in 32 bits.
///     .migrate(1, 2, |old| {
///         let count = u64::from(*old.get::<u32>("count")?);
///         Ok(Snapshot::new("counter", 2).with("count", Arc::new(count)))
///     });
/// # drop(schema);
/// ```
#[derive(Clone)]
pub struct Schema {
    id: SchemaId,
    fields: Vec<(String, Option<Check>)>,
    steps: BTreeMap<u32, (u32, Migrate)>,
    duplicate: Option<u32>,
}

impl Schema {
    /// The schema of this name, now at this version, without required fields.
    pub fn new(name: impl Into<std::borrow::Cow<'static, str>>, version: u32) -> Self {
        let id = SchemaId::new(name, version);
        Self { id, fields: Vec::new(), steps: BTreeMap::new(), duplicate: None }
    }

    /// The schema `agent` with the fields that every agent has: `tools_used`, `context`, `memory`.
    pub fn agent(version: u32) -> Self {
        Self::new("agent", version).requires(AGENT_FIELDS)
    }

    /// Fields that must be there, of whatever type.
    #[must_use]
    pub fn requires(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        for name in names {
            self = self.with_field(name.into(), None);
        }
        self
    }

    /// A field that must be there and be a `T`. It is decoded to see that, once: a later
    /// [`Snapshot::get`] finds the value. What is stored does not say its type: bytes of another one that read as a `T`
    /// pass. A type that changes is a new version of the schema.
    #[must_use]
    pub fn field<T: DeserializeOwned + Send + Sync + 'static>(
        self,
        name: impl Into<String>,
    ) -> Self {
        self.with_field(name.into(), Some(|snapshot, name| snapshot.get::<T>(name).map(drop)))
    }

    fn with_field(mut self, name: String, check: Option<Check>) -> Self {
        match self.fields.iter_mut().find(|(other, _)| *other == name) {
            Some((_, known)) => *known = check.or(*known),
            None => self.fields.push((name, check)),
        }
        self
    }

    /// How version `from` becomes version `to`; steps are chained up to the present version.
    #[must_use]
    pub fn migrate(
        mut self,
        from: u32,
        to: u32,
        step: impl Fn(&Snapshot) -> Result<Snapshot, CheckpointError> + Send + Sync + 'static,
    ) -> Self {
        if self.steps.insert(from, (to, Arc::new(step))).is_some() {
            self.duplicate = Some(from);
        }
        self
    }

    /// Name and present version.
    pub fn id(&self) -> &SchemaId {
        &self.id
    }

    fn check(&self) -> Result<(), SpecError> {
        let path = || format!("schema \"{}\"", self.id.name);
        if let Some(from) = self.duplicate {
            let one = format!("a migration from version {from}");
            return Err(SpecError::BadCombination { path: path(), other: one.clone(), one });
        }
        for (from, (to, _)) in &self.steps {
            if to <= from || *to > self.id.version {
                return Err(SpecError::OutOfRange {
                    path: path(),
                    what: "the target of a migration",
                    value: to.to_string(),
                    expected: format!("more than {from} and at most {}", self.id.version),
                });
            }
        }
        Ok(())
    }

    /// The snapshot at the present version.
    fn bring(&self, snapshot: &Snapshot) -> Result<Snapshot, CheckpointError> {
        let incompatible = |found: &SchemaId, expected: String| CheckpointError::Incompatible {
            what: "schema".to_owned(),
            found: found.to_string(),
            expected,
        };
        let mut snapshot = snapshot.clone();
        while snapshot.schema().version != self.id.version {
            let found = snapshot.schema().clone();
            let Some((to, step)) = self.steps.get(&found.version) else {
                let expected = if found.version > self.id.version {
                    format!("at most version {}", self.id.version)
                } else {
                    format!("version {} or one with a migration to it", self.id.version)
                };
                return Err(incompatible(&found, expected));
            };
            let made = catch_unwind(AssertUnwindSafe(|| step(&snapshot)));
            let wanted = SchemaId::new(self.id.name.clone(), *to);
            snapshot = match made {
                Ok(made) => made?,
                Err(_) => {
                    return Err(incompatible(&found, "a migration that does not panic".to_owned()));
                }
            };
            if *snapshot.schema() != wanted {
                let expected = format!("{wanted}, which the migration promised");
                return Err(incompatible(snapshot.schema(), expected));
            }
        }
        Ok(snapshot)
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields: Vec<&str> = self.fields.iter().map(|(name, _)| name.as_str()).collect();
        let steps: Vec<(u32, u32)> =
            self.steps.iter().map(|(from, (to, _))| (*from, *to)).collect();
        f.debug_struct("Schema")
            .field("id", &self.id)
            .field("fields", &fields)
            .field("migrations", &steps)
            .finish()
    }
}

/// The schemas a system knows.
#[derive(Clone, Debug, Default)]
pub struct Schemas {
    known: BTreeMap<String, Schema>,
}

impl Schemas {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a schema; one of the same name is replaced.
    ///
    /// # Errors
    /// [`SpecError`] for a migration that does not lead forward, leads beyond the present version, or
    /// starts where another one does.
    pub fn register(mut self, schema: Schema) -> Result<Self, SpecError> {
        schema.check()?;
        self.known.insert(schema.id.name.to_string(), schema);
        Ok(self)
    }

    /// The schema of this name.
    pub fn get(&self, name: &str) -> Option<&Schema> {
        self.known.get(name)
    }

    /// Brings a snapshot to the present version of its schema and checks its fields.
    ///
    /// # Errors
    /// [`CheckpointError::Incompatible`] for an unknown or later schema, by name;
    /// [`CheckpointError::MissingField`]; [`CheckpointError::IllTyped`].
    pub fn check(&self, snapshot: &Snapshot) -> Result<Snapshot, CheckpointError> {
        let name = &snapshot.schema().name;
        let Some(schema) = self.known.get(name.as_ref()) else {
            let known: Vec<String> = self.known.keys().map(|name| format!("{name:?}")).collect();
            return Err(CheckpointError::Incompatible {
                what: "schema".to_owned(),
                found: snapshot.schema().to_string(),
                expected: if known.is_empty() { "none".to_owned() } else { known.join(" or ") },
            });
        };
        let snapshot = schema.bring(snapshot)?;
        for (name, check) in &schema.fields {
            if !snapshot.has(name) {
                return Err(CheckpointError::MissingField(name.clone()));
            }
            if let Some(check) = check {
                check(&snapshot, name)?;
            }
        }
        Ok(snapshot)
    }
}

/// Against what checkpoints are validated.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// What time it is.
    pub now: Now,
    /// The shape of the tree; a checkpoint that records another one is refused. `None`: any.
    pub topology: Option<Digest>,
    /// How far the effect ledger is.
    pub ledger: u64,
    /// How long a pin holds at most.
    pub longest_pin: Duration,
}

impl Rules {
    /// Any topology, any ledger position, pins of at most 24 hours.
    pub const fn at(now: Now) -> Self {
        Self { now, topology: None, ledger: u64::MAX, longest_pin: LONGEST_PIN }
    }

    /// As [`Rules::at`], for this checkpoint whatever its age: it is the latest there is, and no step back.
    pub(crate) fn of_any_age(checkpoint: &Checkpoint) -> Self {
        let moment = checkpoint.taken.unwrap_or(Moment::START);
        Self::at(Now { wall: checkpoint.created_at, moment })
    }
}

/// Doubts what a store says.
#[derive(Clone, Copy, Debug)]
pub struct Validator<'a> {
    store: &'a dyn Store,
    schemas: &'a Schemas,
    rules: Rules,
}

/// A checkpoint that passed every check: the only thing that can be restored.
#[derive(Clone, Debug)]
pub struct Validated {
    checkpoint: Arc<Checkpoint>,
    snapshot: Snapshot,
    envelope: Option<Vec<u8>>,
}

/// A checkpoint that did not pass, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The checkpoint.
    pub checkpoint: CheckpointId,
    /// Whose.
    pub child: ChildPath,
    /// Why.
    pub why: CheckpointError,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of \"{}\": {}", self.checkpoint, self.child, self.why)
    }
}

/// What was found among several, the newest first, and why each newer one was refused.
#[derive(Clone, Debug)]
pub struct Search<T> {
    /// The newest valid one.
    pub found: Option<T>,
    /// Those before it, in the order in which they were tried.
    pub refused: Vec<Refused>,
}

impl<'a> Validator<'a> {
    /// Validates what is in this store, for a system that knows these schemas.
    pub fn new(store: &'a dyn Store, schemas: &'a Schemas, rules: Rules) -> Self {
        Self { store, schemas, rules }
    }

    /// The store.
    pub fn store(&self) -> &'a dyn Store {
        self.store
    }

    /// The checkpoint, when every check passes. Runs the `Deserialize` of the typed fields and the
    /// migrations, each caught when it panics: call it where the new life is made, not in a supervisor.
    ///
    /// # Errors
    /// The first check that failed.
    pub fn validate(&self, id: CheckpointId) -> Result<Validated, CheckpointError> {
        let listed = self.store.find(id)?;
        let checkpoint = Arc::clone(&listed.checkpoint);
        if let Some(reason) = &listed.bad {
            let reason = reason.as_ref().to_owned();
            return Err(CheckpointError::Quarantined { checkpoint: id, reason });
        }
        let now = self.rules.now;
        let (age, limit) = (checkpoint.age(now), checkpoint.validity());
        let is_pinned = listed.pins.iter().any(|pin| pin.holds(now.wall, self.rules.longest_pin));
        if age > limit && !is_pinned {
            return Err(CheckpointError::Expired { checkpoint: id, age, limit });
        }
        if !checkpoint.is_sound() {
            let what = "its digest does not match what it says".to_owned();
            return Err(CheckpointError::Corrupt { place: id.to_string(), what });
        }
        let stored = self.store.load(id)?;
        let snapshot = self.schemas.check(&stored.snapshot)?;
        let envelope = stored
            .envelope()
            .map_err(|error| CheckpointError::in_field("the request in hand", error))?;
        if let Some(topology) =
            self.rules.topology.filter(|topology| *topology != checkpoint.topology)
        {
            return Err(CheckpointError::Incompatible {
                what: "topology".to_owned(),
                found: checkpoint.topology.to_string(),
                expected: topology.to_string(),
            });
        }
        if let Some(why) = &listed.broken {
            let why = why.as_ref().to_owned();
            return Err(CheckpointError::BrokenLineage { checkpoint: id, why });
        }
        if checkpoint.ledger > self.rules.ledger {
            let (position, current) = (checkpoint.ledger, self.rules.ledger);
            return Err(CheckpointError::LedgerBehind { checkpoint: id, position, current });
        }
        Ok(Validated { checkpoint, snapshot, envelope })
    }

    /// What time it is.
    pub(super) const fn now(&self) -> Now {
        self.rules.now
    }

    /// As [`Validator::validate`], of one that is held by the pin of another.
    pub(super) fn validate_held(&self, id: CheckpointId) -> Result<Validated, CheckpointError> {
        let now = Rules::of_any_age(&self.store.find(id)?.checkpoint).now;
        Self { rules: Rules { now, ..self.rules }, ..*self }.validate(id)
    }

    /// The newest valid checkpoint of a child, with the reason why each newer one was refused.
    ///
    /// # Errors
    /// [`CheckpointError::Transient`] when the store cannot be read now: an older checkpoint is then
    /// not tried, since the newer one may be sound.
    pub fn newest(&self, child: &ChildPath) -> Result<Search<Validated>, CheckpointError> {
        let mut refused = Vec::new();
        for listed in self.store.checkpoints(child)? {
            let id = listed.checkpoint.id;
            match self.validate(id) {
                Ok(found) => return Ok(Search { found: Some(found), refused }),
                Err(why) if why.is_retryable() => return Err(why),
                Err(why) => refused.push(Refused { checkpoint: id, child: child.clone(), why }),
            }
        }
        Ok(Search { found: None, refused })
    }
}

impl Validated {
    /// What it says about itself.
    pub fn checkpoint(&self) -> &Arc<Checkpoint> {
        &self.checkpoint
    }

    /// The state, at the present version of its schema.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The request in hand when it was taken.
    pub fn envelope(&self) -> Option<&[u8]> {
        self.envelope.as_deref()
    }

    /// Whether its state was written in an older version of its schema.
    pub fn is_migrated(&self) -> bool {
        *self.snapshot.schema() != self.checkpoint.schema
    }
}

#[cfg(test)]
mod tests;
