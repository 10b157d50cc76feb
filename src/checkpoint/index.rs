//! What a store knows, without where its bytes are: the same for every store.
//!
//! *Invariant.* Pure bookkeeping: no file, no clock, no lock. A batch is admitted against the index and
//! what was admitted before it ([`Admission`]) without changing either, and applied once it is written,
//! so a write that fails changes nothing.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::iter::successors;
use std::sync::Arc;

use crate::checkpoint::line::RecoveryLine;
use crate::checkpoint::manifest::{Checkpoint, Digest, Pin, Topology, Wall};
use crate::checkpoint::spread::{SpreadMap, SpreadSet};
use crate::checkpoint::store::{Batch, Item, Listed, Receipt, Retained, Retention};
use crate::checkpoint::{LONGEST_PIN, POINT, Scope};
use crate::error::StoreError;
use crate::id::{CheckpointId, ChildPath, LineId};

/// `P` is where a content is, `J` where a journal record is.
#[derive(Debug)]
pub(crate) struct Index<P, J> {
    pub(crate) pieces: SpreadMap<Digest, P>,
    checkpoints: SpreadMap<CheckpointId, Listed>,
    /// In the order of commits.
    children: BTreeMap<ChildPath, Vec<CheckpointId>>,
    /// How many there are that follow each; so that to drop one costs the same however many there are.
    followers: SpreadMap<CheckpointId, usize>,
    lines: Vec<Arc<RecoveryLine>>,
    streams: BTreeMap<Arc<str>, Stream<J>>,
    /// The chains of parents that were dropped.
    anchors: SpreadMap<CheckpointId, Digest>,
    topology: Option<Arc<Topology>>,
    pub(crate) commits: u64,
}

#[derive(Debug)]
struct Stream<J> {
    /// The position of the first record that is left.
    first: u64,
    records: VecDeque<J>,
}

impl<J> Stream<J> {
    fn next(&self) -> u64 {
        self.first + self.records.len() as u64
    }
}

impl<J> Default for Stream<J> {
    fn default() -> Self {
        Self { first: 1, records: VecDeque::new() }
    }
}

/// One change, once it is written.
#[derive(Debug)]
pub(crate) enum Change<P, J> {
    Piece(Digest, P),
    Checkpoint(Arc<Checkpoint>),
    Line(Arc<RecoveryLine>),
    Append(Arc<str>, u64, J),
    Trim(Arc<str>, u64),
    Pin(CheckpointId, Pin),
    Unpin(CheckpointId, String),
    Bad(CheckpointId, String),
    Release(CheckpointId),
    Topology(Arc<Topology>),
    Drop(CheckpointId),
    DropLine(LineId),
    /// The chain of a parent that was dropped; only compaction writes it.
    Anchor(CheckpointId, Digest),
}

/// What was admitted and is not yet applied.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    checkpoints: SpreadMap<CheckpointId, Digest>,
    lines: SpreadSet<LineId>,
    pieces: SpreadSet<Digest>,
    next: SpreadMap<Arc<str>, u64>,
    commits: u64,
}

impl Admission {
    /// Whether the content has still to be written; from now on it has not.
    pub(crate) fn wants<P, J>(&mut self, index: &Index<P, J>, digest: Digest) -> bool {
        !index.pieces.contains_key(&digest) && self.pieces.insert(digest)
    }
}

impl<P, J> Default for Index<P, J> {
    fn default() -> Self {
        Self {
            pieces: SpreadMap::default(),
            checkpoints: SpreadMap::default(),
            children: BTreeMap::new(),
            followers: SpreadMap::default(),
            lines: Vec::new(),
            streams: BTreeMap::new(),
            anchors: SpreadMap::default(),
            topology: None,
            commits: 0,
        }
    }
}

impl<P, J> Index<P, J> {
    /// Of what another store has, in the order of its commits: enough to say what goes.
    pub(crate) fn of(
        checkpoints: impl IntoIterator<Item = Listed>,
        lines: impl IntoIterator<Item = Arc<RecoveryLine>>,
    ) -> Self {
        let mut index = Self { lines: lines.into_iter().collect(), ..Self::default() };
        for listed in checkpoints {
            let (id, child) = (listed.checkpoint.id, listed.checkpoint.child.clone());
            index.children.entry(child).or_default().push(id);
            index.checkpoints.insert(id, listed);
        }
        index
    }

    /// Nothing is known any more of when a checkpoint was taken on a runtime's clock.
    pub(crate) fn forget_moments(&mut self) {
        for listed in self.checkpoints.values_mut() {
            if listed.checkpoint.taken.is_some() {
                Arc::make_mut(&mut listed.checkpoint).taken = None;
            }
        }
    }

    /// Whether the batch agrees with what is there; the receipt it will get.
    pub(crate) fn admit(
        &self,
        admission: &mut Admission,
        batch: &Batch,
    ) -> Result<Receipt, StoreError> {
        // What this batch adds must be seen by its later items, and forgotten when it is refused.
        let mut chains: SpreadMap<CheckpointId, Digest> =
            SpreadMap::with_hasher(*admission.checkpoints.hasher());
        let mut lines: Vec<LineId> = Vec::new();
        let mut next: Vec<(Arc<str>, u64)> = Vec::new();
        let mut positions = Vec::new();
        let refuse = |why: String| Err(StoreError::Refused { store: String::new(), why });
        for item in &batch.items {
            let chain_of = |id: CheckpointId| {
                let inside = chains.get(&id).copied();
                inside
                    .or_else(|| admission.checkpoints.get(&id).copied())
                    .or_else(|| self.checkpoints.get(&id).map(|it| it.checkpoint.lineage.chain))
            };
            match item {
                Item::Checkpoint(sealed) => {
                    let checkpoint = sealed.checkpoint();
                    if chain_of(checkpoint.id).is_some() {
                        return refuse(format!("{} is in the store already", checkpoint.id));
                    }
                    if let Some(parent) = checkpoint.lineage.parent {
                        let chain = chain_of(parent).or_else(|| self.anchors.get(&parent).copied());
                        let Some(chain) = chain else {
                            let id = checkpoint.id;
                            return refuse(format!("{parent}, the parent of {id}, is not in it"));
                        };
                        if !sealed.follows(chain) {
                            let id = checkpoint.id;
                            return refuse(format!("{id} does not go on from its parent {parent}"));
                        }
                    }
                    chains.insert(checkpoint.id, checkpoint.lineage.chain);
                }
                Item::Line(line) => {
                    let known = lines.contains(&line.id)
                        || admission.lines.contains(&line.id)
                        || self.lines.iter().any(|other| other.id == line.id);
                    if known {
                        return refuse(format!("{} is in the store already", line.id));
                    }
                    let missing = line.members.iter().find(|(_, id)| chain_of(*id).is_none());
                    if let Some((child, id)) = missing {
                        return refuse(format!("{}: {id} of \"{child}\" is missing", line.id));
                    }
                    lines.push(line.id);
                }
                Item::Append { stream, .. } => {
                    let known = next.iter().position(|(name, _)| name == stream);
                    let slot = known.unwrap_or(next.len());
                    if known.is_none() {
                        next.push((Arc::clone(stream), self.next(admission, stream)));
                    }
                    let (_, at) = &mut next[slot];
                    positions.push((Arc::clone(stream), *at));
                    *at += 1;
                }
                Item::Trim { stream, before } => {
                    let inside = next.iter().find(|(name, _)| name == stream);
                    let end = inside.map_or_else(|| self.next(admission, stream), |(_, at)| *at);
                    if *before > end {
                        return refuse(format!(
                            "journal \"{stream}\" ends before {end}, it cannot be trimmed to {before}"
                        ));
                    }
                }
                Item::Pin(id, _) | Item::Bad(id, _) | Item::Release(id) => {
                    if chain_of(*id).is_none() {
                        return refuse(format!("{id} is not in the store"));
                    }
                }
                Item::Unpin(..)
                | Item::Topology(_)
                | Item::Drop(_)
                | Item::DropLine(_)
                | Item::Clear(..) => {}
            }
        }
        admission.checkpoints.extend(chains);
        admission.lines.extend(lines);
        admission.next.extend(next);
        admission.commits += 1;
        Ok(Receipt { sequence: self.commits + admission.commits, positions })
    }

    /// The position of the next record, with what was admitted counted in.
    fn next(&self, admission: &Admission, stream: &str) -> u64 {
        let admitted = admission.next.get(stream).copied();
        admitted.unwrap_or_else(|| self.streams.get(stream).map_or(1, Stream::next))
    }

    /// Makes one change that was admitted. What a checkpoint goes on from was looked at then.
    pub(crate) fn apply_admitted(&mut self, change: Change<P, J>) {
        match change {
            Change::Checkpoint(checkpoint) => {
                let broken = checkpoint.lineage.parent.and_then(|parent| {
                    self.checkpoints.get(&parent).and_then(|listed| listed.broken.clone())
                });
                self.list(checkpoint, broken);
            }
            change => {
                self.apply(change);
            }
        }
    }

    /// Makes one change. False when the change does not fit: a journal record that leaves a gap.
    pub(crate) fn apply(&mut self, change: Change<P, J>) -> bool {
        match change {
            Change::Piece(digest, at) => {
                self.pieces.insert(digest, at);
            }
            Change::Checkpoint(checkpoint) => self.add(checkpoint),
            Change::Line(line) => {
                self.lines.retain(|other| other.id != line.id);
                self.lines.push(line);
            }
            Change::Append(stream, position, at) => {
                let stream = self.streams.entry(stream).or_default();
                match position.cmp(&stream.next()) {
                    Ordering::Equal => stream.records.push_back(at),
                    // It was trimmed later on, and that is known already.
                    Ordering::Less => {}
                    Ordering::Greater => return false,
                }
            }
            Change::Trim(stream, before) => {
                let stream = self.streams.entry(stream).or_default();
                while stream.first < before && stream.records.pop_front().is_some() {
                    stream.first += 1;
                }
                // An empty journal goes on where it was, never with an old position.
                stream.first = stream.first.max(before);
            }
            Change::Pin(id, pin) => {
                if let Some(listed) = self.checkpoints.get_mut(&id) {
                    listed.pins.retain(|other| other.owner != pin.owner);
                    listed.pins.push(pin);
                }
            }
            Change::Unpin(id, owner) => {
                if let Some(listed) = self.checkpoints.get_mut(&id) {
                    listed.pins.retain(|other| other.owner != owner);
                }
            }
            Change::Bad(id, reason) => {
                if let Some(listed) = self.checkpoints.get_mut(&id) {
                    listed.bad = Some(Arc::from(reason));
                }
            }
            Change::Release(id) => {
                if let Some(listed) = self.checkpoints.get_mut(&id) {
                    listed.bad = None;
                }
            }
            Change::Topology(topology) => self.topology = Some(topology),
            Change::Drop(id) => self.forget(id),
            Change::DropLine(id) => self.lines.retain(|line| line.id != id),
            Change::Anchor(id, chain) => {
                self.anchors.insert(id, chain);
            }
        }
        true
    }

    fn add(&mut self, checkpoint: Arc<Checkpoint>) {
        let broken = checkpoint.lineage.parent.and_then(|parent| {
            let listed = self.checkpoints.get(&parent);
            let chain = listed
                .map(|listed| listed.checkpoint.lineage.chain)
                .or_else(|| self.anchors.get(&parent).copied());
            let inherited = listed.and_then(|listed| listed.broken.clone());
            inherited.or_else(|| match chain {
                None => Some(Arc::from(format!("its parent {parent} is missing"))),
                Some(chain) if !checkpoint.follows(chain) => {
                    Some(Arc::from(format!("it does not go on from its parent {parent}")))
                }
                Some(_) => None,
            })
        });
        self.list(checkpoint, broken);
    }

    fn list(&mut self, checkpoint: Arc<Checkpoint>, broken: Option<Arc<str>>) {
        let id = checkpoint.id;
        let order = self.children.entry(checkpoint.child.clone()).or_default();
        if let Some(parent) = checkpoint.lineage.parent {
            *self.followers.entry(parent).or_default() += 1;
        }
        let listed = Listed { checkpoint, pins: Vec::new(), bad: None, broken };
        match self.checkpoints.insert(id, listed) {
            None => order.push(id),
            Some(before) => drop(self.unfollow(&before)),
        }
    }

    /// One that is not listed any more follows its parent no longer: the parent, if nobody else does.
    fn unfollow(&mut self, gone: &Listed) -> Option<CheckpointId> {
        let parent = gone.checkpoint.lineage.parent?;
        let count = self.followers.get_mut(&parent)?;
        *count -= 1;
        if *count > 0 {
            return None;
        }
        self.followers.remove(&parent);
        Some(parent)
    }

    fn forget(&mut self, id: CheckpointId) {
        let Some(listed) = self.checkpoints.remove(&id) else { return };
        if let Some(parent) = self.unfollow(&listed) {
            self.anchors.remove(&parent);
        }
        let checkpoint = listed.checkpoint;
        if let Some(order) = self.children.get_mut(&checkpoint.child) {
            // The oldest are dropped first, so it is not far.
            if let Some(at) = order.iter().position(|other| *other == id) {
                order.remove(at);
            }
            if order.is_empty() {
                self.children.remove(&checkpoint.child);
            }
        }
        if self.followers.contains_key(&id) {
            self.anchors.insert(id, checkpoint.lineage.chain);
        }
    }

    pub(crate) fn children(&self) -> Vec<ChildPath> {
        self.children.keys().cloned().collect()
    }

    pub(crate) fn checkpoints(&self, child: &ChildPath) -> Vec<Listed> {
        let ids = self.children.get(child).into_iter().flatten().rev();
        ids.filter_map(|id| self.checkpoints.get(id).cloned()).collect()
    }

    pub(crate) fn find(&self, id: CheckpointId) -> Result<&Listed, StoreError> {
        self.checkpoints.get(&id).ok_or_else(|| StoreError::NotFound(id.to_string()))
    }

    pub(crate) fn piece(&self, digest: Digest) -> Result<&P, StoreError> {
        let missing = || StoreError::NotFound(format!("content {digest}"));
        self.pieces.get(&digest).ok_or_else(missing)
    }

    pub(crate) fn lines(&self, scope: Scope, at: &ChildPath) -> Vec<Arc<RecoveryLine>> {
        let here = |line: &&Arc<RecoveryLine>| line.scope == scope && line.at == *at;
        self.lines.iter().rev().filter(here).cloned().collect()
    }

    /// The records from a position on, with their positions.
    pub(crate) fn records(&self, stream: &str, from: u64) -> impl Iterator<Item = (u64, &J)> {
        let stream = self.streams.get(stream);
        let first = stream.map_or(1, |stream| stream.first);
        let skip = usize::try_from(from.saturating_sub(first)).unwrap_or(usize::MAX);
        let records = stream.map(|stream| stream.records.iter().enumerate().skip(skip));
        records.into_iter().flatten().map(move |(at, record)| (first + at as u64, record))
    }

    pub(crate) fn streams(&self) -> Vec<(Arc<str>, u64)> {
        self.streams.iter().map(|(name, stream)| (Arc::clone(name), stream.next())).collect()
    }

    pub(crate) fn quarantined(&self) -> Vec<Listed> {
        let ids = self.children.values().flatten();
        let listed = ids.filter_map(|id| self.checkpoints.get(id));
        listed.filter(|listed| listed.bad.is_some()).cloned().collect()
    }

    pub(crate) fn topology(&self) -> Option<Arc<Topology>> {
        self.topology.clone()
    }

    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        (self.checkpoints.len(), self.pieces.len(), self.lines.len())
    }

    /// What a retention drops that holds these.
    pub(crate) fn plan(
        &self,
        keep: Retention,
        now: Wall,
        held: &HashSet<CheckpointId>,
    ) -> Retained {
        let mut kept: HashMap<(Scope, &ChildPath), usize> = HashMap::new();
        let mut lines = Vec::new();
        let mut named: SpreadSet<CheckpointId> = SpreadSet::default();
        for line in self.lines.iter().rev() {
            let count = kept.entry((line.scope, &line.at)).or_default();
            let hook = line.hook().and_then(|id| self.checkpoints.get(&id));
            if *count < keep.lines.max(1) {
                *count += 1;
            } else if !hook.is_some_and(|listed| line.is_held_by(&listed.pins, now)) {
                lines.push(line.id);
                continue;
            }
            named.extend(line.members.iter().flat_map(|(_, id)| self.since_beginning(*id)));
        }
        let mut dropped = Vec::new();
        for ids in self.children.values() {
            let needed = self.needed(ids);
            let mut left = keep.checkpoints.max(1);
            let first = dropped.len();
            for id in ids.iter().rev() {
                let Some(listed) = self.checkpoints.get(id) else { continue };
                // What was set aside is kept for people, and takes nobody's place.
                if listed.bad.is_some() {
                    continue;
                }
                let is_recent = left > 0;
                left = left.saturating_sub(1);
                let is_held = listed.pins.iter().any(|pin| pin.holds(now, LONGEST_PIN));
                let is_needed = named.contains(id) || needed.contains(id) || held.contains(id);
                if !is_recent && !is_held && !is_needed {
                    dropped.push(*id);
                }
            }
            dropped[first..].reverse();
        }
        Retained { dropped, lines }
    }

    /// This one, and where it was taken in the middle of a request those before it up to where that began: once the
    /// request has its fate, a line with its middle returns to there.
    fn since_beginning(&self, id: CheckpointId) -> impl Iterator<Item = CheckpointId> {
        successors(Some(id), |id| {
            let checkpoint = &self.checkpoints.get(id)?.checkpoint;
            checkpoint.envelope.and(checkpoint.lineage.parent)
        })
    }

    /// What a child that is gone has left and nobody needs, the oldest first: what people have set aside or pinned
    /// stays, and what a line names, which could not be returned to without it.
    pub(crate) fn left_by(&self, child: &ChildPath, now: Wall) -> Vec<CheckpointId> {
        let Some(ids) = self.children.get(child) else { return Vec::new() };
        let members = self.lines.iter().flat_map(|line| &line.members);
        let its = members.filter(|(path, _)| path == child);
        let named: SpreadSet<CheckpointId> = its.map(|(_, id)| *id).collect();
        // Its own pins were for requests that have their fates.
        let is_own = |owner: &str| {
            let whom = owner.strip_suffix(child.as_str());
            whom.is_some_and(|whom| whom.is_empty() || whom.ends_with(POINT))
        };
        let is_held = |pin: &Pin| !is_own(&pin.owner) && pin.holds(now, LONGEST_PIN);
        let is_left = |id: &&CheckpointId| {
            let listed = self.checkpoints.get(id);
            !named.contains(id)
                && listed.is_some_and(|it| it.bad.is_none() && !it.pins.iter().any(is_held))
        };
        ids.iter().filter(is_left).copied().collect()
    }

    /// What a child with these checkpoints goes on from, whatever becomes of the request in hand: the newest that
    /// is fit for it and the newest between two requests, in the lineage of its last one, and of all. Where none is
    /// between two, the oldest tells that the child began with nothing.
    fn needed(&self, ids: &[CheckpointId]) -> SpreadSet<CheckpointId> {
        let fit = |id: &CheckpointId| {
            let listed = self.checkpoints.get(id).filter(|listed| listed.bad.is_none())?;
            Some((*id, listed.checkpoint.envelope.is_none()))
        };
        let parent = |id: &CheckpointId| self.checkpoints.get(id)?.checkpoint.lineage.parent;
        let between = |(id, is_between): (CheckpointId, bool)| is_between.then_some(id);
        let mut needed = SpreadSet::default();
        let oldest = || ids.iter().find_map(fit).map(|(id, _)| id);
        needed.extend(ids.iter().rev().filter_map(fit).find_map(between).or_else(oldest));
        // Its own parents are older, so this ends.
        let lineage = || std::iter::successors(ids.last().copied(), parent).take(ids.len());
        needed.extend(lineage().find_map(|id| fit(&id)).map(|(id, _)| id));
        needed.extend(lineage().filter_map(|id| fit(&id)).find_map(between));
        needed
    }

    /// The contents that some checkpoint names.
    pub(crate) fn live_pieces(&self) -> SpreadSet<Digest> {
        let checkpoints = self.checkpoints.values().map(|listed| &listed.checkpoint);
        checkpoints.flat_map(|it| it.contents()).collect()
    }

    /// About how many bytes all this is in one copy: what is named, and what each takes beside its own bytes.
    pub(crate) fn live_bytes(&self, piece: impl Fn(&P) -> u64, record: impl Fn(&J) -> u64) -> u64 {
        /// The head of an item, and the digest or the position that it begins with.
        const ITEM: u64 = 40;
        /// What a checkpoint says beside the names in it.
        const CHECKPOINT: u64 = 350;
        let named = self.live_pieces();
        let pieces = named.iter().filter_map(|digest| self.pieces.get(digest));
        let checkpoints = self.checkpoints.values().map(|listed| {
            let Checkpoint { child, pieces, .. } = &*listed.checkpoint;
            let names = pieces.iter().map(|(name, _)| ITEM + name.len() as u64).sum::<u64>();
            CHECKPOINT + child.as_str().len() as u64 + names
        });
        let lines = self.lines.iter().flat_map(|line| &line.members);
        let records = self.streams.iter().flat_map(|(name, stream)| {
            stream.records.iter().map(|at| ITEM + name.len() as u64 + record(at))
        });
        pieces.map(|at| ITEM + piece(at)).sum::<u64>()
            + checkpoints.sum::<u64>()
            + lines.map(|(child, _)| ITEM + child.as_str().len() as u64).sum::<u64>()
            + records.sum::<u64>()
    }

    /// Forgets the contents that no checkpoint names.
    pub(crate) fn drop_dead_pieces(&mut self) {
        let live = self.live_pieces();
        self.pieces.retain(|digest, _| live.contains(digest));
    }
}

impl<P: Clone, J: Clone> Index<P, J> {
    /// Changes that lead an empty index to this state.
    pub(crate) fn replay(&self) -> Vec<Change<P, J>> {
        let mut changes = Vec::new();
        changes.extend(self.topology.iter().cloned().map(Change::Topology));
        changes.extend(self.anchors.iter().map(|(id, chain)| Change::Anchor(*id, *chain)));
        changes.extend(self.pieces.iter().map(|(digest, at)| Change::Piece(*digest, at.clone())));
        for id in self.children.values().flatten() {
            let Some(listed) = self.checkpoints.get(id) else { continue };
            changes.push(Change::Checkpoint(Arc::clone(&listed.checkpoint)));
            changes.extend(listed.pins.iter().map(|pin| Change::Pin(*id, pin.clone())));
            changes.extend(listed.bad.iter().map(|why| Change::Bad(*id, why.as_ref().to_owned())));
        }
        changes.extend(self.lines.iter().cloned().map(Change::Line));
        for (name, stream) in &self.streams {
            changes.push(Change::Trim(Arc::clone(name), stream.first));
            for (at, record) in stream.records.iter().enumerate() {
                let position = stream.first + at as u64;
                changes.push(Change::Append(Arc::clone(name), position, record.clone()));
            }
        }
        changes
    }

    /// Moves a content and a record to where compaction copied them, if they are still there.
    pub(crate) fn move_piece(&mut self, digest: Digest, to: P) {
        if let Some(at) = self.pieces.get_mut(&digest) {
            *at = to;
        }
    }

    /// As [`Index::move_piece`], for a record of a journal.
    pub(crate) fn move_record(&mut self, stream: &str, position: u64, to: J) {
        let Some(stream) = self.streams.get_mut(stream) else { return };
        let at = position.checked_sub(stream.first).and_then(|at| usize::try_from(at).ok());
        if let Some(at) = at.and_then(|at| stream.records.get_mut(at)) {
            *at = to;
        }
    }
}
