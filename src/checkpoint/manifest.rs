//! What a checkpoint says about itself, and how it is made.
//!
//! *Invariant.* A checkpoint is immutable once sealed: its digest covers everything it says and the
//! digests of its pieces, and its chain covers every checkpoint it was built on. Pins and verdicts come
//! later and stand in the store, beside it.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::checkpoint::codec::{self, SchemaId};
use crate::checkpoint::snapshot::{Encoded, Snapshot};
use crate::checkpoint::{Scope, VALIDITY, stored};
use crate::error::{CheckpointError, CodecError};
use crate::fate::Cost;
use crate::id::{CheckpointId, ChildPath, Incarnation};
use crate::moment::Moment;
use crate::policy::budget::Spent;

/// The name of a content: 32 bytes of BLAKE3. Equal contents have equal names.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Of nothing: not recorded.
    pub const NONE: Self = Self([0; 32]);

    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    /// The first eight bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A point on the clock people read: milliseconds since 1970. It may jump.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Wall(pub u64);

impl Wall {
    /// This point and `delay`; the latest one there is when the sum does not fit.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// How long ago `earlier` was; zero when the clock has jumped back behind it.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl From<SystemTime> for Wall {
    /// Times before 1970 count as 1970.
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// What time it is, on both clocks. A checkpoint of this life of the process ages by `moment`, which
/// never jumps; one that was read from disk ages by `wall`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// On the clock people read.
    pub wall: Wall,
    /// On the runtime's clock.
    pub moment: Moment,
}

impl Now {
    /// What a clock says now.
    pub fn read(clock: &dyn crate::clock::Clock) -> Self {
        Self { wall: clock.wall().into(), moment: clock.now() }
    }
}

/// Holds a checkpoint beyond its validity: something waits for it, such as a person's decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Who pinned it.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: Wall,
    /// Until when. However late this is, a pin holds for at most [`LONGEST_PIN`] after `since`.
    ///
    /// [`LONGEST_PIN`]: crate::checkpoint::LONGEST_PIN
    pub until: Wall,
}

impl Pin {
    /// Whether it holds now, when pins may hold for `longest`.
    pub fn holds(&self, now: Wall, longest: Duration) -> bool {
        now <= self.until.min(self.since.after(longest))
    }
}

/// The shape of a tree: what a store belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// The digest of its lines.
    pub digest: Digest,
    /// A line for each child, sorted: path, kind and whatever else must agree.
    pub lines: Vec<String>,
}

impl Topology {
    /// The topology with these lines, in any order.
    pub fn new(lines: impl IntoIterator<Item = String>) -> Self {
        let mut lines: Vec<String> = lines.into_iter().collect();
        lines.sort_unstable();
        lines.dedup();
        let mut hash = blake3::Hasher::new();
        for line in &lines {
            hash.update(&(line.len() as u64).to_le_bytes());
            hash.update(line.as_bytes());
        }
        Self { digest: Digest(*hash.finalize().as_bytes()), lines }
    }

    /// How `other` differs: its lines that are not here with `+`, ours that are not there with `-`.
    pub fn difference(&self, other: &Self) -> Vec<String> {
        let gone = self.lines.iter().filter(|line| other.lines.binary_search(line).is_err());
        let new = other.lines.iter().filter(|line| self.lines.binary_search(line).is_err());
        gone.map(|line| format!("- {line}")).chain(new.map(|line| format!("+ {line}"))).collect()
    }
}

/// Where a checkpoint comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// The one it was built on; `None` for the first.
    pub parent: Option<CheckpointId>,
    /// The first one of the lineage.
    pub root: CheckpointId,
    /// How many stand before it.
    pub seq: u64,
    /// Over the parent's chain and this checkpoint's digest, so that no ancestor can be altered.
    pub chain: Digest,
}

/// What the request in hand, or the one just answered, had spent when the checkpoint was taken, in this process
/// and those before it. Budgets do not roll back: a process that goes on with the request charges it to its budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budgets {
    /// Attempts.
    pub attempts: u64,
    /// Tokens.
    pub tokens: u64,
    /// Money, in millionths.
    pub money_micros: u64,
    /// Time, in milliseconds.
    pub wall_millis: u64,
}

impl Budgets {
    /// The larger one of each.
    pub(crate) fn most(self, other: Self) -> Self {
        Self {
            attempts: self.attempts.max(other.attempts),
            tokens: self.tokens.max(other.tokens),
            money_micros: self.money_micros.max(other.money_micros),
            wall_millis: self.wall_millis.max(other.wall_millis),
        }
    }
}

impl From<Budgets> for Spent {
    fn from(spent: Budgets) -> Self {
        let Budgets { attempts, tokens, money_micros, .. } = spent;
        Self { attempts, cost: Cost { tokens, money_micros } }
    }
}

impl fmt::Display for Budgets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { attempts, tokens, money_micros, wall_millis } = self;
        write!(
            f,
            "attempts {attempts}, tokens {tokens}, millionths {money_micros}, ms {wall_millis}"
        )
    }
}

/// A stored state: everything but the pieces themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Its id.
    pub id: CheckpointId,
    /// Whose state.
    pub child: ChildPath,
    /// In which life it was taken.
    pub incarnation: Incarnation,
    /// After which step, counted over all lives.
    pub step: u64,
    /// The widest scope that can return to it by itself.
    pub scope: Scope,
    /// The schema of the snapshot.
    pub schema: SchemaId,
    /// The pieces by name, sorted, with the names of their contents.
    pub pieces: Vec<(String, Digest)>,
    /// The content of the request in hand, if there was one.
    pub envelope: Option<Digest>,
    /// Where it comes from.
    pub lineage: Lineage,
    /// The shape of the tree it was taken in; [`Digest::NONE`] when not recorded.
    pub topology: Digest,
    /// When it was taken.
    pub created_at: Wall,
    /// Until when it may be restored without a pin.
    pub valid_until: Wall,
    /// How far the effect ledger was.
    pub ledger: u64,
    /// The last request whose work is in it, as a number from 1: how many the child had answered, over all its
    /// lives and processes. What was accepted later, or is in hand, is not in it.
    pub mailbox_cut: u64,
    /// What decided about failures when it was taken: the child's policy, what its work does to the world, its
    /// scope and limits of time, and the allow-lists of the tree's groups. [`Digest::NONE`] when not recorded.
    /// A state is taken up under whatever there is then; that it is another is told
    /// ([`Event::PolicyChanged`](crate::event::Event::PolicyChanged)).
    pub policy: Digest,
    /// What the request in hand, or the one just answered, had spent.
    pub budgets: Budgets,
    /// Over all of the above but the chain.
    pub digest: Digest,
    /// When it was taken on the runtime's clock. Not stored: `None` once read from disk, or taken up by another
    /// system.
    pub taken: Option<Moment>,
}

impl Checkpoint {
    /// How old it is. By the runtime's clock when it was taken in this process, which jumps of the wall
    /// clock do not move.
    pub fn age(&self, now: Now) -> Duration {
        match self.taken {
            Some(taken) => now.moment.since(taken),
            None => now.wall.since(self.created_at),
        }
    }

    /// How old it may become.
    pub const fn validity(&self) -> Duration {
        self.valid_until.since(self.created_at)
    }

    /// Reads what [`Sealed::manifest`] gave. What it says of itself is not doubted: that is for a
    /// [`Validator`](crate::checkpoint::Validator).
    ///
    /// # Errors
    /// The bytes are corrupt, or of a later version.
    pub fn read(bytes: &[u8]) -> Result<Self, CodecError> {
        stored::read_checkpoint(bytes)
    }

    /// The names of everything that is stored apart from it: of its pieces, and of the request in hand.
    pub fn contents(&self) -> impl Iterator<Item = Digest> + '_ {
        self.pieces.iter().map(|(_, digest)| *digest).chain(self.envelope)
    }

    /// Whether its digest is the one of what it says.
    pub(crate) fn is_sound(&self) -> bool {
        stored::checkpoint_digest(self) == self.digest
    }

    /// Whether its chain goes on from this one, its parent's ([`Lineage::chain`]).
    pub fn follows(&self, parent: Digest) -> bool {
        self.lineage.chain == chain(parent, self.digest)
    }
}

impl fmt::Display for Checkpoint {
    /// One line, without any of the state.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, child, step, incarnation, mailbox_cut, policy, budgets, .. } = self;
        write!(f, "{id} of \"{child}\": step {step}, life {incarnation}, ")?;
        write!(f, "{mailbox_cut} requests answered, policy {policy:?}, spent: {budgets}")
    }
}

fn chain(parent: Digest, digest: Digest) -> Digest {
    let mut both = [0; 64];
    both[..32].copy_from_slice(&parent.0);
    both[32..].copy_from_slice(&digest.0);
    Digest::of(&both)
}

/// The id of a checkpoint taken at `wall`: a UUID of version 7.
pub fn new_checkpoint_id(wall: Wall) -> CheckpointId {
    CheckpointId(new_uuid(wall))
}

pub(crate) fn new_uuid(wall: Wall) -> u128 {
    uuid::Builder::from_unix_timestamp_millis(wall.0, &noise()).into_uuid().as_u128()
}

/// Ten random bytes. Asking the system for each id would be a tenth of what a checkpoint costs, so it
/// is asked for a key now and then, which is spread over many.
fn noise() -> [u8; 10] {
    const IDS: usize = 64;
    thread_local! {
        static LEFT: RefCell<(usize, [u8; 10 * IDS])> = const { RefCell::new((0, [0; 10 * IDS])) };
    }
    LEFT.with_borrow_mut(|(left, bytes)| {
        if *left == 0 {
            let mut hash = blake3::Hasher::new();
            // Of a version 4 UUID 122 bits are random.
            for _ in 0..3 {
                hash.update(uuid::Uuid::new_v4().as_bytes());
            }
            hash.finalize_xof().fill(bytes);
            *left = IDS;
        }
        *left -= 1;
        let mut noise = [0; 10];
        noise.copy_from_slice(&bytes[10 * *left..][..10]);
        noise
    })
}

/// A checkpoint that is being made.
///
/// # Default
/// Step 0 of no life, scope `Step`, valid for one hour, first of its lineage, everything else empty.
#[derive(Clone, Debug)]
#[must_use = "a draft is nothing until it is sealed"]
pub struct Draft {
    checkpoint: Checkpoint,
    snapshot: Snapshot,
    envelope: Option<Vec<u8>>,
    parent: Option<Parent>,
}

#[derive(Clone, Debug)]
struct Parent {
    child: ChildPath,
    chain: Digest,
}

impl Draft {
    /// A checkpoint of `child` with this state, taken now.
    pub fn new(child: ChildPath, snapshot: Snapshot, now: Now) -> Self {
        let id = new_checkpoint_id(now.wall);
        let checkpoint = Checkpoint {
            id,
            child,
            incarnation: Incarnation::NONE,
            step: 0,
            scope: Scope::Step,
            schema: snapshot.schema().clone(),
            pieces: Vec::new(),
            envelope: None,
            lineage: Lineage { parent: None, root: id, seq: 0, chain: Digest::NONE },
            topology: Digest::NONE,
            created_at: now.wall,
            valid_until: now.wall.after(VALIDITY),
            ledger: 0,
            mailbox_cut: 0,
            policy: Digest::NONE,
            budgets: Budgets::default(),
            digest: Digest::NONE,
            taken: Some(now.moment),
        };
        Self { checkpoint, snapshot: snapshot.settled(), envelope: None, parent: None }
    }

    /// Built on this one, the last of the same child, or the one it was restored from.
    pub fn after(mut self, parent: &Checkpoint) -> Self {
        let lineage = &mut self.checkpoint.lineage;
        lineage.parent = Some(parent.id);
        lineage.root = parent.lineage.root;
        lineage.seq = parent.lineage.seq + 1;
        self.parent = Some(Parent { child: parent.child.clone(), chain: parent.lineage.chain });
        self
    }

    /// In which life, after which step.
    pub const fn at(mut self, incarnation: Incarnation, step: u64) -> Self {
        self.checkpoint.incarnation = incarnation;
        self.checkpoint.step = step;
        self
    }

    /// The widest scope that can return to it by itself.
    pub const fn scope(mut self, scope: Scope) -> Self {
        self.checkpoint.scope = scope;
        self
    }

    /// How long it may be restored without a pin.
    pub fn valid_for(mut self, validity: Duration) -> Self {
        self.checkpoint.valid_until = self.checkpoint.created_at.after(validity);
        self
    }

    /// The request in hand, as bytes.
    pub fn envelope(mut self, bytes: Vec<u8>) -> Self {
        self.envelope = Some(bytes);
        self
    }

    /// The shape of the tree.
    pub const fn topology(mut self, topology: Digest) -> Self {
        self.checkpoint.topology = topology;
        self
    }

    /// How far the effect ledger is.
    pub const fn ledger(mut self, position: u64) -> Self {
        self.checkpoint.ledger = position;
        self
    }

    /// The last request whose work is in it.
    pub const fn mailbox_cut(mut self, request: u64) -> Self {
        self.checkpoint.mailbox_cut = request;
        self
    }

    /// The policy in force.
    pub const fn policy(mut self, policy: Digest) -> Self {
        self.checkpoint.policy = policy;
        self
    }

    /// What has been spent.
    pub const fn budgets(mut self, budgets: Budgets) -> Self {
        self.checkpoint.budgets = budgets;
        self
    }

    /// Encodes the pieces that are not encoded yet, and signs the whole. User code runs here: the
    /// `Serialize` of the pieces, caught when it panics.
    ///
    /// # Errors
    /// A piece that cannot be stored, by name; [`CheckpointError::Incompatible`] when the parent is
    /// another child's.
    pub fn seal(mut self) -> Result<Sealed, CheckpointError> {
        let schema = self.snapshot.schema();
        let count = self.snapshot.pieces().len();
        let mut contents = Vec::with_capacity(count + 1);
        self.checkpoint.pieces.reserve_exact(count);
        for piece in self.snapshot.pieces() {
            let encoded = piece.encoded(schema)?;
            self.checkpoint.pieces.push((piece.name().to_owned(), encoded.digest));
            contents.push(encoded.clone());
        }
        self.checkpoint.pieces.sort_unstable();
        if let Some(bytes) = self.envelope {
            let (digest, bytes) = codec::seal_raw(&envelope_schema(), &bytes)
                .map_err(|error| CheckpointError::in_field("the request in hand", error))?;
            self.checkpoint.envelope = Some(digest);
            contents.push(Encoded { digest, bytes: Arc::new(bytes) });
        }
        if let Some(parent) = self.parent.as_ref().filter(|it| it.child != self.checkpoint.child) {
            return Err(CheckpointError::Incompatible {
                what: "the parent's child".to_owned(),
                found: parent.child.to_string(),
                expected: self.checkpoint.child.to_string(),
            });
        }
        let parent = self.parent.map_or(Digest::NONE, |parent| parent.chain);
        let sign = |digest| chain(parent, digest);
        let manifest = stored::sign_checkpoint(&mut self.checkpoint, sign)
            .map_err(|error| CheckpointError::in_field("checkpoint", error))?;
        Ok(Sealed {
            checkpoint: Arc::new(self.checkpoint),
            snapshot: self.snapshot,
            contents,
            manifest: Arc::new(manifest),
            parent,
        })
    }
}

/// The schema of the envelope around a request in hand.
pub(crate) const fn envelope_schema() -> SchemaId {
    SchemaId { name: Cow::Borrowed("mainstay.request"), version: 1 }
}

/// A checkpoint with its pieces, ready to be committed.
#[derive(Clone, Debug)]
pub struct Sealed {
    checkpoint: Arc<Checkpoint>,
    snapshot: Snapshot,
    contents: Vec<Encoded>,
    manifest: Arc<Vec<u8>>,
    /// The parent's chain, with which it was signed.
    parent: Digest,
}

impl Sealed {
    /// What it says about itself; the parent of the next one.
    pub fn checkpoint(&self) -> &Arc<Checkpoint> {
        &self.checkpoint
    }

    /// The state.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The contents, pieces and request in hand, each with its name and as the bytes of an envelope
    /// ([`codec::open`]). A store keeps one of each name; some may be there already.
    pub fn parts(&self) -> impl ExactSizeIterator<Item = (Digest, &Arc<Vec<u8>>)> {
        self.contents.iter().map(|encoded| (encoded.digest, &encoded.bytes))
    }

    /// As [`Sealed::parts`].
    pub(crate) fn contents(&self) -> &[Encoded] {
        &self.contents
    }

    /// Whether it goes on from a parent with this chain.
    pub(crate) fn follows(&self, parent: Digest) -> bool {
        self.parent == parent
    }

    /// The checkpoint itself, encoded; [`Checkpoint::read`] reads it.
    pub fn manifest(&self) -> &[u8] {
        &self.manifest
    }
}
